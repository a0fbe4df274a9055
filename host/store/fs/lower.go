//go:build linux || darwin || freebsd

package fs

import (
	"errors"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// lower is the owner's directory, read only.
type lower struct {
	under beneath
	dev   uint64
	// folds: the file system finds "a" by the name "A". Guards do not, so names
	// must be checked to be spelled as they are stored.
	folds bool

	last *lastDir // nil where several look at once
}

// lastDir is the directory that a transaction looked into last, open. Programs
// stay in one for a while, and most of what it costs to open a file is to get
// there. It is the directory that it was, whatever the owner's tools do to its
// name meanwhile, as a file is that has been opened.
type lastDir struct {
	path string
	fd   int // -1 for none
}

func (d *lastDir) set(path string, fd int) {
	if d.fd >= 0 {
		unix.Close(d.fd)
	}
	d.path, d.fd = path, fd
}

// look is the lower state as one transaction sees it.
type look struct {
	lower
	*backend
}

// Look implements overlay.Looker.
func (b *backend) Look() overlay.Snapshot {
	l := b.lower
	l.last = &lastDir{fd: -1}
	return &look{l, b}
}

// Release implements overlay.Snapshot.
func (l *look) Release() { l.lower.last.set("", -1) }

// at opens the directory that path is a name in. done releases it.
func (l *lower) at(path string) (dir int, name string, done func(), err error) {
	if !plainPath(path) { // overlay never asks for such, and nobody else may
		return -1, "", nil, store.ErrInvalid
	}
	parent, name := split(path)
	if parent == "." {
		return l.under.root(), name, func() {}, nil
	}
	if l.last != nil && l.last.fd >= 0 && l.last.path == parent {
		return l.last.fd, name, func() {}, nil
	}
	fd, err := l.under.openDir(parent)
	if err != nil {
		return -1, "", nil, err
	}
	if l.last != nil {
		l.last.set(parent, fd)
		return fd, name, func() {}, nil
	}
	return fd, name, func() { unix.Close(fd) }, nil
}

// Lstat implements overlay.Lower.
func (l *lower) Lstat(path string) (overlay.Attr, error) {
	if l.folds {
		dir, name := split(path)
		names, err := l.ReadDir(dir, 1<<20)
		if err != nil {
			return overlay.Attr{}, err
		}
		if !slices.ContainsFunc(names, func(n overlay.Name) bool { return n.Name == name }) {
			return overlay.Attr{}, store.ErrNotExist
		}
	}
	return l.lstat(path)
}

func (l *lower) lstat(path string) (overlay.Attr, error) {
	dir, name, done, err := l.at(path)
	if err != nil {
		return overlay.Attr{}, fileError(err)
	}
	defer done()
	st, err := lstatat(dir, name)
	if err != nil {
		return overlay.Attr{}, fileError(err)
	}
	return l.attr(&st), nil
}

// attr describes an entry. A directory on another file system, a mount point, is
// nothing that we would enter.
func (l *lower) attr(st *unix.Stat_t) overlay.Attr {
	a := attrOf(st)
	if uint64(st.Dev) != l.dev {
		a.Kind = store.KindOther
	}
	return a
}

// ReadDir implements overlay.Lower.
func (l *lower) ReadDir(path string, limit int) ([]overlay.Name, error) {
	fd := -1
	var err error
	switch {
	case path == ".": // a descriptor of its own: reading moves its offset
		fd, err = openat(l.under.root(), ".", dirFlags, 0)
	case !plainPath(path):
		err = store.ErrInvalid
	default:
		fd, err = l.under.openDir(path)
	}
	if err != nil {
		return nil, fileError(err)
	}
	defer unix.Close(fd)
	names, err := readDir(fd, limit)
	return names, fileError(err)
}

// Open implements overlay.Lower. O_NONBLOCK: opening a FIFO that has no writer
// would block the thread for good.
func (l *lower) Open(path string) (overlay.LowerFile, error) {
	dir, name, done, err := l.at(path)
	if err != nil {
		return nil, fileError(err)
	}
	defer done()
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fileError(err)
	}
	f := &lowerFile{fd: fd}
	if err := unix.Fstat(fd, &f.st); err != nil {
		unix.Close(fd)
		return nil, fileError(err)
	}
	if kindOfMode(uint32(f.st.Mode)) != store.KindFile || uint64(f.st.Dev) != l.dev {
		unix.Close(fd)
		return nil, store.ErrSpecial
	}
	return f, nil
}

// Readlink implements overlay.Lower.
func (l *lower) Readlink(path string) (string, error) {
	dir, name, done, err := l.at(path)
	if err != nil {
		return "", fileError(err)
	}
	defer done()
	target, err := readlinkat(dir, name)
	return target, fileError(err)
}

func readlinkat(dir int, name string) (string, error) {
	var buf [4097]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// lowerFile is a bare descriptor: what is only read at offsets needs no poller
// and no finalizer, and overlay closes what it opens.
type lowerFile struct {
	fd int
	st unix.Stat_t
}

func (f *lowerFile) Attr() overlay.Attr { return attrOf(&f.st) }
func (f *lowerFile) Close() error       { return unix.Close(f.fd) }

func (f *lowerFile) ReadAt(p []byte, off int64) (int, error) {
	total := 0
	for total < len(p) {
		n, err := unix.Pread(f.fd, p[total:], off+int64(total))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return total, fileError(err)
		case n == 0:
			return total, io.EOF
		}
		total += n
	}
	return total, nil
}

func lstatat(dir int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != unix.EINTR {
			return st, err
		}
	}
}

func attrOf(st *unix.Stat_t) overlay.Attr {
	at := func(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()) }
	return overlay.Attr{
		Kind:  kindOfMode(uint32(st.Mode)),
		Size:  st.Size,
		Atime: at(st.Atim), Mtime: at(st.Mtim), Ctime: at(st.Ctim),
		Version: overlay.Version{
			ID:   [2]uint64{uint64(st.Dev), st.Ino},
			Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
		},
	}
}

func kindOfMode(mode uint32) store.Kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return store.KindFile
	case unix.S_IFDIR:
		return store.KindDir
	case unix.S_IFLNK:
		return store.KindLink
	}
	return store.KindOther
}

// fileError puts an error of the operating system in the words of package store.
// What a guest may read of it says nothing of the host.
func fileError(err error) error {
	if err == nil {
		return nil
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.ENOENT:
		return store.ErrNotExist
	case unix.ENOTDIR:
		return store.ErrNotDir
	case unix.EISDIR:
		return store.ErrIsDir
	case unix.EEXIST:
		return store.ErrExists
	case unix.EACCES, unix.EPERM:
		return store.ErrDenied
	case unix.ENAMETOOLONG:
		return store.ErrNameTooLong
	case unix.EMFILE, unix.ENFILE:
		return store.ErrTooManyOpen
	case unix.ENOSPC, unix.EDQUOT:
		return store.ErrQuota
	case unix.EFBIG:
		return store.ErrTooBig
	case unix.ELOOP, unix.EXDEV, unix.ENXIO, unix.ENODEV:
		// A link or a mount where there was none a moment ago; a socket, or a
		// device without a driver.
		return store.ErrSpecial
	}
	return errno
}
