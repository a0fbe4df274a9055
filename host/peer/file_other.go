//go:build !unix

package peer

import (
	"fmt"
	"os"
)

// openRegular opens path for reading if it is a regular file and no link.
func openRegular(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: not a regular file", path)
	}
	return os.Open(path)
}

// checkPrivate cannot tell here: access is governed by ACLs that the directory
// hands down, and the mode bits say nothing about them.
func checkPrivate(*os.File) error { return nil }

// syncDir has no counterpart here; a file's own Sync covers its name.
func syncDir(string) error { return nil }

// lockDir: directories cannot be locked here. Changes by several processes at
// once may lose one; no file is ever half written.
func lockDir(string) (unlock func(), err error) { return func() {}, nil }
