//go:build unix

package sqlite

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// plain returns the size of a file that may be opened: a regular one, not a
// link, of ours alone. Anything else in its place was put there: a link would
// lead to another file, a FIFO block, and a file with a second name be changed
// behind SQLite's back, without its -wal file.
func plain(path string) (size int64, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), plainInfo(path, info)
}

func plainInfo(path string, info os.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file (%v): move it away", path, info.Mode().Type())
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, and this is user %d: run as that user, or change its owner", path, st.Uid, os.Geteuid())
	case st.Nlink != 1:
		return fmt.Errorf("%s has %d names (hard links): keep one, or copy it", path, st.Nlink)
	}
	return nil
}

// openPlain opens such a file for reading.
func openPlain(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = plainInfo(path, info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// takeLock keeps other processes, and other stores of this one, away. The kernel
// drops the lock when its holder dies, however it dies. It is a file of its own
// because locks on the database are SQLite's, which lets many in.
func takeLock(path string) (_ *os.File, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link: move it away", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := plainInfo(path, info); err != nil {
		return nil, err
	}
	return f, lockFile(f)
}

// lockFile locks f, until it is closed.
func lockFile(f *os.File) error {
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		return nil
	case unix.EWOULDBLOCK:
		return fmt.Errorf("%w: stop what holds %s", ErrLocked, f.Name())
	default:
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("make %s durable: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("make %s durable: %w", dir, err)
	}
	return nil
}
