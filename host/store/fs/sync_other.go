//go:build darwin || freebsd

package fs

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes a file's content durable, and its size if that changed.
func datasync(f *os.File) error { return f.Sync() }

// syncAll makes durable all of the file system that an open file is on.
func syncAll(int) error { return unix.Sync() }
