package fs

import "golang.org/x/sys/unix"

func exchange(dir int, name string, to int, dest string) error {
	return unix.Renameat2(dir, name, to, dest, unix.RENAME_EXCHANGE)
}

// unshared reports whether this descriptor, which is open for writing, is the only
// way to a file that has no name that anybody looks for: nobody else has it open or
// mapped, and no name outside leads to it. And whether nobody has given it
// attributes of its own.
//
// The kernel grants a lease for writing only to who is alone with a file
// (fcntl(2), F_SETLEASE).
func unshared(fd int, st *unix.Stat_t) bool {
	if st.Nlink != 1 {
		return false
	}
	if n, err := unix.Flistxattr(fd, nil); n != 0 || err != nil && err != unix.ENOTSUP {
		return false
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err == nil
}
