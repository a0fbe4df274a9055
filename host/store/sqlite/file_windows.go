package sqlite

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// plain returns the size of a regular file, and refuses anything else. Whose it
// is, is left to its access control list.
func plain(path string) (size int64, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file (%v): move it away", path, info.Mode().Type())
	}
	return info.Size(), nil
}

// openPlain opens such a file for reading.
func openPlain(path string) (*os.File, error) {
	if _, err := plain(path); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// takeLock keeps other processes, and other stores of this one, away.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockFile locks f, until it is closed.
func lockFile(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return fmt.Errorf("%w: stop what holds %s", ErrLocked, f.Name())
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// syncDir has nothing to do: names are durable with the file system's journal.
func syncDir(string) error { return nil }
