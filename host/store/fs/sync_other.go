//go:build darwin || freebsd

package fs

import "os"

// datasync makes a file's content durable, and its size if that changed.
func datasync(f *os.File) error { return f.Sync() }
