//go:build linux || darwin || freebsd

package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
)

// Check looks at a context that nobody has open (else ErrLocked), without
// changing anything, and reports what is not as a context is that was closed: a
// commit under way, leftovers, a log whose end was never written whole. With
// repair it then opens it once, which finishes or removes all of that. What the
// log and the files say is for OpenReader and its callers.
func Check(ctx context.Context, c Config, repair bool, report func(store.Finding)) error {
	unlock, err := lockToLook(c.Tx)
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Data, err)
	}
	var found []store.Finding
	for _, look := range []func(Config) (*store.Finding, error){pending, leftovers, unfinishedEntry} {
		f, err := look(c)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			unlock()
			return fmt.Errorf("check %s: %w", c.Data, err)
		}
		if f != nil {
			found = append(found, *f)
		}
	}
	unlock()
	if repair && len(found) > 0 {
		s, err := Open(c)
		if err == nil {
			err = s.Close()
		}
		for i := range found {
			found[i].Fixed = err == nil
		}
		if err != nil {
			found = append(found, store.Finding{Where: c.Data, What: fmt.Sprintf("it could not be opened to mend that: %v", err), Damage: true})
		}
	}
	for _, f := range found {
		report(f)
	}
	return nil
}

// lockToLook keeps others out, without making a file where there is none.
func lockToLook(tx string) (unlock func(), err error) {
	fd, err := openat(unix.AT_FDCWD, filepath.Join(tx, "lock"), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%w: stop what holds %s", ErrLocked, filepath.Join(tx, "lock"))
		}
		return nil, fmt.Errorf("lock %s: %w", tx, err)
	}
	return func() { unix.Close(fd) }, nil
}

// pending finds a commit that may have been decided and not be applied.
func pending(c Config) (*store.Finding, error) {
	path := filepath.Join(c.Tx, "journal")
	f, err := openToLook(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 16)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	if allZero(head[:n]) {
		return nil, nil
	}
	return &store.Finding{
		Where: path, What: "it was not closed, and a commit may be half done",
		Fix: "opening it finishes what was decided, and drops what was not",
	}, nil
}

// leftovers finds content of transactions that did not end.
func leftovers(c Config) (*store.Finding, error) {
	dir := filepath.Join(c.Tx, "stage")
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(10_000)
	if len(names) == 0 {
		if err == io.EOF {
			err = nil
		}
		return nil, err
	}
	return &store.Finding{
		Where: dir, What: fmt.Sprintf("%d files of transactions that were not committed", len(names)),
		Fix: "opening it removes them",
	}, nil
}

// unfinishedEntry finds a last log entry that was never whole. What else is wrong
// with the log is for its readers.
func unfinishedEntry(c Config) (*store.Finding, error) {
	segments, err := segments(c.Log)
	if err != nil || len(segments) == 0 {
		return nil, err
	}
	path := filepath.Join(c.Log, segments[len(segments)-1])
	f, err := openToLook(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size, off := info.Size(), int64(len(logMagic))
	torn := func() (*store.Finding, error) {
		return &store.Finding{
			Where: path, What: fmt.Sprintf("%d bytes at its end are of an entry that was not written whole, and so of a script that nobody has a receipt of", size-off),
			Fix: "opening it cuts them off, or writes the entry anew if it was decided",
		}, nil
	}
	if size < off {
		off = 0
		return torn()
	}
	if size == off {
		return nil, nil
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, off, size-off), 256<<10)
	for off < size {
		enc, err := readFrame(r, size-off)
		if err == errTorn {
			return torn()
		}
		if err == errFrame {
			if zero, zerr := zeroFrom(f, off, size); zerr == nil && zero {
				return torn()
			}
		}
		if err != nil {
			return nil, nil // damage, which whoever reads the log will meet
		}
		off += frameHead + int64(len(enc))
	}
	return nil, nil
}

// openToLook opens a regular file for reading, and waits for nothing.
func openToLook(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file: move it away", path))
	}
	return f, nil
}
