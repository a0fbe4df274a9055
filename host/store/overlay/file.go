package overlay

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/circles-host/circles/host/store"
)

// file is an open file or directory. Several may share a node, and then see each
// other's writes.
type file struct {
	f      *files
	n      *node
	flag   store.Flag
	closed bool
	// listing is the directory as it was when reading began: a script that
	// removes what it lists would otherwise skip every other name.
	listing []store.DirEntry
	listed  bool
}

func (h *file) fail(op string, err error) error {
	return fail(op, h.n.path(), err)
}

// usable checks that the handle may do what it is asked to.
func (h *file) usable(need store.Flag) error {
	switch {
	case h.closed:
		return store.ErrClosed
	case h.n.kind == store.KindDir:
		return store.ErrIsDir
	case h.flag&need == 0:
		return store.ErrBadFile
	}
	return nil
}

// ReadAt implements store.File.
func (h *file) ReadAt(p []byte, off int64) (int, error) {
	if err := h.usable(store.FlagRead); err != nil {
		return 0, h.fail("read", err)
	}
	n, err := h.n.readAt(p, off)
	if err != nil && err != io.EOF {
		return n, h.fail("read", err)
	}
	return n, err
}

func (n *node) readAt(p []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return 0, store.ErrInvalid
	case len(p) == 0:
		return 0, nil
	case n.staged == nil:
		return n.lower.ReadAt(p, off)
	case off >= n.size:
		return 0, io.EOF
	}
	short := false
	if int64(len(p)) > n.size-off {
		p, short = p[:n.size-off], true
	}
	k, err := n.staged.ReadAt(p, off)
	if err == io.EOF && k < len(p) { // never written: a hole
		clear(p[k:])
		k, err = len(p), nil
	}
	if k == len(p) && (err == nil || err == io.EOF) {
		err = nil
		if short {
			err = io.EOF
		}
	}
	return k, err
}

// WriteAt implements store.File.
func (h *file) WriteAt(p []byte, off int64) (int, error) {
	k, err := h.writeAt(p, off)
	if err != nil {
		return k, h.fail("write", err)
	}
	return k, nil
}

func (h *file) writeAt(p []byte, off int64) (int, error) {
	n, t := h.n, h.f.t
	if err := h.usable(store.FlagWrite); err != nil {
		return 0, err
	}
	if h.flag&store.FlagAppend != 0 {
		off = n.size
	}
	switch {
	case off < 0:
		return 0, store.ErrInvalid
	case len(p) == 0:
		return 0, nil
	case off > n.of.limits.FileSize-int64(len(p)):
		return 0, fmt.Errorf("over %d bytes: %w", n.of.limits.FileSize, store.ErrTooBig)
	}
	if err := t.copyUp(n, n.size); err != nil {
		return 0, err
	}
	end := max(n.size, off+int64(len(p)))
	if err := t.grow(n, end); err != nil {
		return 0, err
	}
	n.intact = min(n.intact, off)
	k, err := n.staged.WriteAt(p, off)
	got := max(n.size, off+int64(k))
	n.of.staged -= end - got
	t.weigh(n, got)
	n.size = got
	t.touch(n)
	return k, err
}

// Truncate implements store.File.
func (h *file) Truncate(size int64) error {
	err := h.usable(store.FlagWrite)
	if err == nil {
		err = h.f.t.truncate(h.n, size)
	}
	if err != nil {
		return h.fail("truncate", err)
	}
	return nil
}

func (t *Tx) truncate(n *node, size int64) error {
	if size < 0 {
		return store.ErrInvalid
	}
	if size > n.of.limits.FileSize {
		return fmt.Errorf("over %d bytes: %w", n.of.limits.FileSize, store.ErrTooBig)
	}
	made := n.staged == nil
	if err := t.copyUp(n, min(n.size, size)); err != nil {
		return err
	}
	if made && n.size == size {
		// It is as long as it should be. To say so to the file system is not for
		// nothing: ext4 writes a file that was emptied to disk when it is closed.
		t.touch(n)
		return nil
	}
	was := n.size
	if err := t.grow(n, size); err != nil {
		return err
	}
	n.intact = min(n.intact, size)
	if err := n.staged.Truncate(size); err != nil {
		n.of.staged -= size - was
		t.weigh(n, was)
		return err
	}
	n.size = size
	t.touch(n)
	return nil
}

// Stat implements store.File. It asks no guard: whoever opened the file knows
// that it is there.
func (h *file) Stat() (store.Info, error) {
	if h.closed {
		return store.Info{}, h.fail("stat", store.ErrClosed)
	}
	return h.n.info(), nil
}

// SetTimes implements store.File. A file open for writing is past the guard; of
// any other the guard is asked for OpWrite.
func (h *file) SetTimes(atime, mtime time.Time) error {
	var err error
	switch {
	case h.closed:
		err = store.ErrClosed
	case h.f.t.readOnly:
		err = store.ErrReadOnly
	case h.n.gone && h.flag&store.FlagWrite == 0:
		err = store.ErrDenied // it has no path left to ask about
	case h.flag&store.FlagWrite == 0:
		err = h.f.allow(store.OpWrite, h.n.path())
	}
	if err == nil {
		err = h.f.t.setTimes(h.n, atime, mtime)
	}
	if err != nil {
		return h.fail("set times of", err)
	}
	return nil
}

// ReadDir implements store.File.
func (h *file) ReadDir(skip, n int) ([]store.DirEntry, error) {
	var err error
	switch {
	case h.closed:
		err = store.ErrClosed
	case h.n.kind != store.KindDir:
		err = store.ErrNotDir
	case skip < 0 || n < 0:
		err = store.ErrInvalid
	case h.n.gone:
		return nil, nil
	default:
		err = h.f.allow(store.OpList, h.n.path())
	}
	if err == nil && (skip == 0 || !h.listed) {
		err = h.list()
	}
	if err != nil {
		return nil, h.fail("list", err)
	}
	if skip >= len(h.listing) {
		return nil, nil
	}
	return slices.Clone(h.listing[skip:min(len(h.listing), skip+min(n, len(h.listing)))]), nil
}

func (h *file) list() error {
	t, d := h.f.t, h.n
	h.unlist()
	room := d.of.limits.Listed - d.of.listed
	var entries []store.DirEntry
	prefix := d.path()
	if prefix != "/" {
		prefix += "/"
	}
	err := t.list(d, room, func(name string, kind store.Kind, n *node) error {
		if !utf8.ValidString(name) || d == t.root && reserved(name) { // a guest could not say it
			return nil
		}
		if len(entries) == room {
			return fmt.Errorf("more than %d directory entries held: %w", d.of.limits.Listed, store.ErrQuota)
		}
		// Hidden names are left out. Others show even if nothing may be done
		// with them: OpList is permission to see names.
		if h.f.guard != nil && errors.Is(h.f.guard.Allow(store.OpStat, prefix+name), store.ErrHidden) {
			return nil
		}
		e := store.DirEntry{Name: name, Kind: kind}
		if n != nil {
			e.Inode = n.ino
		} else {
			e.Inode = inodeOf('l', join(d.origin, name))
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b store.DirEntry) int { return cmp.Compare(a.Name, b.Name) })
	h.listing, h.listed = entries, true
	d.of.listed += len(entries)
	return nil
}

func (h *file) unlist() {
	h.n.of.listed -= len(h.listing)
	h.listing, h.listed = nil, false
}

// Below implements store.File.
func (h *file) Below() (store.FS, error) {
	switch {
	case h.closed:
		return nil, h.fail("open below", store.ErrClosed)
	case h.n.kind != store.KindDir:
		return nil, h.fail("open below", store.ErrNotDir)
	}
	below := *h.f
	below.dir = h
	return &below, nil
}

// Close implements store.File.
func (h *file) Close() error {
	if h.closed {
		return h.fail("close", store.ErrClosed)
	}
	h.closed = true
	h.unlist()
	delete(h.f.t.handles, h)
	h.n.of.open--
	if h.n.kind == store.KindDir {
		h.n.opens--
		h.f.t.release(h.n)
		h.f.t.forget(h.n)
	} else {
		h.f.t.close(h.n)
	}
	return nil
}
