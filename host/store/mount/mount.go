// Package mount joins several file systems into one, each below a directory of
// its own, for a program that is given more than one directory.
package mount

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/circles-host/circles/host/store"
)

// FS is a root and what is mounted in it. Symbolic links stay in the file system
// that they are in: one that leads out of it is store.ErrEscapes, also where the
// way would end in another mount. Nothing can be renamed from one to another.
type FS struct {
	root   store.FS
	mounts []point // longest path first
}

type point struct {
	path string // absolute, clean
	fs   store.FS
	id   uint64
}

var _ store.FS = (*FS)(nil)

// New returns root with nothing mounted in it.
func New(root store.FS) *FS { return &FS{root: root} }

// Mount shows fs at path, which is made in the root if it is not there. A path
// of "/" puts fs in the root's place. It must not be called once the FS is used.
func (m *FS) Mount(at string, fs store.FS) error {
	at = path.Clean("/" + at)
	if at == "/" {
		m.root = fs
		return nil
	}
	for _, p := range m.mounts {
		if p.path == at {
			return fmt.Errorf("mount %s: something is mounted there already", at)
		}
	}
	// The directories on the way are the root's, so that they can be listed.
	for i, c := range at + "/" {
		if c != '/' || i == 0 {
			continue
		}
		if info, err := m.root.Stat(at[:i], true); err == nil && info.Kind == store.KindDir {
			continue
		}
		if err := m.root.Mkdir(at[:i]); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
	}
	m.mounts = append(m.mounts, point{at, fs, uint64(len(m.mounts) + 1)})
	slices.SortStableFunc(m.mounts, func(a, b point) int { return len(b.path) - len(a.path) })
	return nil
}

// of returns the file system that a path is in, and the path there.
func (m *FS) of(p string) (fs store.FS, rest string, id uint64) {
	clean := path.Clean("/" + p)
	slash := ""
	if strings.HasSuffix(p, "/") && clean != "/" {
		slash = "/" // it asks for a directory
	}
	for _, point := range m.mounts {
		if clean == point.path {
			return point.fs, "/", point.id
		}
		if rest, ok := strings.CutPrefix(clean, point.path+"/"); ok {
			return point.fs, "/" + rest + slash, point.id
		}
	}
	return m.root, clean + slash, 0
}

// busy refuses to do away with a directory that something is mounted on, or
// below.
func (m *FS) busy(p string) error {
	clean := path.Clean("/" + p)
	for _, point := range m.mounts {
		if point.path == clean || clean == "/" || strings.HasPrefix(point.path, clean+"/") {
			return store.ErrDenied
		}
	}
	return nil
}

// Numbers of different file systems may be the same; those that a program sees
// must not be.
func number(inode, id uint64) uint64 { return inode ^ id<<48 }

// Open implements store.FS.
func (m *FS) Open(p string, flag store.Flag) (store.File, error) {
	fs, rest, id := m.of(p)
	f, err := fs.Open(rest, flag)
	if err != nil {
		return nil, err
	}
	return file{f, id}, nil
}

// Stat implements store.FS.
func (m *FS) Stat(p string, follow bool) (store.Info, error) {
	fs, rest, id := m.of(p)
	info, err := fs.Stat(rest, follow)
	info.Inode = number(info.Inode, id)
	return info, err
}

// Readlink implements store.FS.
func (m *FS) Readlink(p string) (string, error) {
	fs, rest, _ := m.of(p)
	return fs.Readlink(rest)
}

// Mkdir implements store.FS.
func (m *FS) Mkdir(p string) error {
	fs, rest, _ := m.of(p)
	if rest == "/" {
		return store.ErrExists
	}
	return fs.Mkdir(rest)
}

// Rmdir implements store.FS.
func (m *FS) Rmdir(p string) error {
	if err := m.busy(p); err != nil {
		return err
	}
	fs, rest, _ := m.of(p)
	return fs.Rmdir(rest)
}

// Unlink implements store.FS.
func (m *FS) Unlink(p string) error {
	fs, rest, _ := m.of(p)
	if rest == "/" {
		return store.ErrIsDir
	}
	return fs.Unlink(rest)
}

// Rename implements store.FS.
func (m *FS) Rename(from, to string) error {
	if err := m.busy(from); err != nil {
		return err
	}
	if err := m.busy(to); err != nil {
		return err
	}
	a, restA, idA := m.of(from)
	_, restB, idB := m.of(to)
	if idA != idB {
		return store.ErrNotSupported
	}
	return a.Rename(restA, restB)
}

// Symlink implements store.FS.
func (m *FS) Symlink(target, p string) error {
	fs, rest, _ := m.of(p)
	if rest == "/" {
		return store.ErrExists
	}
	return fs.Symlink(target, rest)
}

// SetTimes implements store.FS.
func (m *FS) SetTimes(p string, follow bool, atime, mtime time.Time) error {
	fs, rest, _ := m.of(p)
	return fs.SetTimes(rest, follow, atime, mtime)
}

type file struct {
	store.File
	id uint64
}

func (f file) Stat() (store.Info, error) {
	info, err := f.File.Stat()
	info.Inode = number(info.Inode, f.id)
	return info, err
}

func (f file) ReadDir(skip, n int) ([]store.DirEntry, error) {
	entries, err := f.File.ReadDir(skip, n)
	for i := range entries {
		entries[i].Inode = number(entries[i].Inode, f.id)
	}
	return entries, err
}
