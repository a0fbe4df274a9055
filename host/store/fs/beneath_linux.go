package fs

import (
	"golang.org/x/sys/unix"
)

// kernelWalk is a beneath on openat2 (Linux 5.6), whose walk no race can lead
// out, through a link, or onto another file system.
type kernelWalk struct{ fd int }

// newBeneath asks the kernel once: openat2 is missing from old kernels (ENOSYS)
// and forbidden by old seccomp profiles (EPERM).
func newBeneath(dir string) (beneath, error) {
	fd, err := openat(unix.AT_FDCWD, dir, dirFlags, 0)
	if err != nil {
		return nil, err
	}
	w := &kernelWalk{fd}
	probe, err := w.openDir(".")
	if err != nil {
		unix.Close(fd)
		return newWalkRoot(dir)
	}
	unix.Close(probe)
	return w, nil
}

func (w *kernelWalk) root() int { return w.fd }

func (w *kernelWalk) openDir(path string) (int, error) {
	how := unix.OpenHow{
		Flags:   dirFlags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	// EAGAIN: something was renamed during the walk and the kernel could not
	// tell whether it stayed beneath. Not for ever, if someone renames in a loop.
	for try := 0; ; try++ {
		fd, err := unix.Openat2(w.fd, path, &how)
		if err == unix.EINTR || err == unix.EAGAIN && try < 128 {
			continue
		}
		return fd, err
	}
}

func (w *kernelWalk) close() error { return unix.Close(w.fd) }
