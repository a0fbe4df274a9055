package fs

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes a file's content durable, and its size if that changed.
func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

// syncAll makes durable all of the file system that an open file is on.
func syncAll(fd int) error { return unix.Syncfs(fd) }
