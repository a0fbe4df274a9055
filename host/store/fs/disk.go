//go:build linux || darwin || freebsd

package fs

import (
	"os"

	"golang.org/x/sys/unix"
)

// disk does all that a commit, a recovery and the journal do to the file system.
// A test looks on through before, and makes any of it fail.
type disk struct {
	before func(diskOp) error
}

// diskOp is one call: a name in a directory, for a rename two, or an open file.
type diskOp struct {
	what string // rename, exchange, unlink, rmdir, mkdir, symlink, times, create, write, truncate, sync, syncfs
	dir  int
	name string
	to   int
	dest string
	file int
	off  int64
	size int64
}

func (d disk) ask(op diskOp) error {
	if d.before == nil {
		return nil
	}
	return d.before(op)
}

func (d disk) rename(dir int, name string, to int, dest string) error {
	if err := d.ask(diskOp{what: "rename", dir: dir, name: name, to: to, dest: dest}); err != nil {
		return err
	}
	return unix.Renameat(dir, name, to, dest)
}

// exchange is rename, but what was there takes the name that is given up.
func (d disk) exchange(dir int, name string, to int, dest string) error {
	if err := d.ask(diskOp{what: "exchange", dir: dir, name: name, to: to, dest: dest}); err != nil {
		return err
	}
	return exchange(dir, name, to, dest)
}

func (d disk) unlink(dir int, name string) error {
	if err := d.ask(diskOp{what: "unlink", dir: dir, name: name}); err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, 0)
}

func (d disk) rmdir(dir int, name string) error {
	if err := d.ask(diskOp{what: "rmdir", dir: dir, name: name}); err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

func (d disk) mkdir(dir int, name string, perm uint32) error {
	if err := d.ask(diskOp{what: "mkdir", dir: dir, name: name}); err != nil {
		return err
	}
	return unix.Mkdirat(dir, name, perm)
}

func (d disk) symlink(target string, dir int, name string) error {
	if err := d.ask(diskOp{what: "symlink", dir: dir, name: name}); err != nil {
		return err
	}
	return unix.Symlinkat(target, dir, name)
}

// create makes a new file for reading and writing.
func (d disk) create(dir int, name string, perm uint32) (*os.File, error) {
	if err := d.ask(diskOp{what: "create", dir: dir, name: name}); err != nil {
		return nil, err
	}
	fd, err := openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (d disk) write(f *os.File, b []byte, off int64) error {
	if err := d.ask(diskOp{what: "write", file: int(f.Fd()), off: off, size: int64(len(b))}); err != nil {
		return err
	}
	_, err := f.WriteAt(b, off)
	return err
}

func (d disk) truncate(f *os.File, size int64) error {
	if err := d.ask(diskOp{what: "truncate", file: int(f.Fd()), off: size}); err != nil {
		return err
	}
	return f.Truncate(size)
}

// sync makes a file's content durable, or a directory's names.
func (d disk) sync(fd int) error {
	if err := d.ask(diskOp{what: "sync", file: fd}); err != nil {
		return err
	}
	return retry(func() error { return unix.Fsync(fd) })
}

// datasync makes a file's content durable, and its size if that changed.
func (d disk) datasync(f *os.File) error {
	if err := d.ask(diskOp{what: "sync", file: int(f.Fd())}); err != nil {
		return err
	}
	return datasync(f)
}

// syncAll makes durable all of the file system that an open file is on.
func (d disk) syncAll(fd int) error {
	if err := d.ask(diskOp{what: "syncfs", file: fd}); err != nil {
		return err
	}
	return syncAll(fd)
}

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
