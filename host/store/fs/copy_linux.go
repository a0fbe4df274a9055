package fs

import "golang.org/x/sys/unix"

// copyRange copies n bytes at off to the same place in another file. The kernel
// shares the blocks where the file system can (FICLONERANGE), and copies them
// otherwise.
func copyRange(dst, src int, off, n int64) (int, error) {
	in, out := off, off
	for {
		k, err := unix.CopyFileRange(src, &in, dst, &out, int(n), 0)
		if err != unix.EINTR {
			return max(k, 0), err
		}
	}
}

// room is how many bytes a file system has left, for us.
func room(fd int, root bool) (int64, bool) {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil || st.Blocks == 0 { // one without bounds
		return 0, false
	}
	if root {
		return int64(st.Bfree) * st.Bsize, true
	}
	return int64(st.Bavail) * st.Bsize, true
}
