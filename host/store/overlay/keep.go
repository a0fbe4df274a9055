package overlay

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/circles-host/circles/host/store"
)

var errNothingToKeep = fmt.Errorf("it is in use as it was, or was appended to, or is no file: %w", store.ErrInvalid)

// Keep implements store.Tx. What was at path gets a node of its own in Private,
// with the origin that the node at path had: so the plan moves the lower file
// there instead of removing it, and puts what was written as a new file.
func (t *Tx) Keep(path, to string) error {
	if err := t.keepAt(path, to); err != nil {
		return &fs.PathError{Op: "keep", Path: path, Err: err}
	}
	return nil
}

func (t *Tx) keepAt(path, to string) error {
	switch {
	case t.ended:
		return store.ErrClosed
	case t.readOnly:
		return store.ErrReadOnly
	}
	d, n := t.before(path)
	if n == nil || n.attr.Kind != store.KindFile || n.origin == "" {
		return errNothingToKeep
	}
	if !n.gone {
		if n.staged == nil || n.home() && n.intact >= n.attr.Size {
			return errNothingToKeep
		}
		if same, err := t.sameAsOrigin(n); err != nil {
			return err
		} else if same {
			return errNothingToKeep
		}
	}
	f := &files{t: t, private: true}
	at, err := f.mutate(&to, store.OpWrite)
	switch {
	case err != nil:
		return err
	case at.dotted:
		return store.ErrInvalid
	case at.node != nil:
		return store.ErrExists
	}
	t.made++
	k := &node{
		kind: store.KindFile, ino: inodeOf('n', fmt.Sprint(t.made)), of: &t.host,
		origin: n.origin, attr: n.attr, size: n.attr.Size,
		atime: n.attr.Atime, mtime: n.attr.Mtime, ctime: n.attr.Ctime,
	}
	if err := t.keep(at.dir); err != nil {
		return err
	}
	if err := t.room(k.size, 1); err != nil {
		return err
	}
	if err := t.charge(k, 1); err != nil {
		return err
	}
	t.weigh(k, k.size)
	t.delta.Entries++
	if d.masked == nil {
		d.masked = map[string]*node{}
	}
	d.masked[k.origin[strings.LastIndexByte(k.origin, '/')+1:]] = k
	n.origin = ""
	t.place(k, at.dir, at.name)
	return nil
}

// before finds what was at an absolute path when the transaction began, and the
// directory that it was in. It is nil if the transaction has done nothing to it
// but move a directory above it.
func (t *Tx) before(path string) (d, n *node) {
	rest, ok := strings.CutPrefix(path, "/")
	if top, _, _ := strings.Cut(rest, "/"); !ok || reserved(top) {
		return nil, nil
	}
	n = t.root
	for more := true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		d, n = n, n.masked[name]
		if n == nil {
			n = d.children[name]
			if n == nil || !n.home() {
				return nil, nil
			}
		}
	}
	return d, n
}

// Restore implements store.Tx.
func (t *Tx) Restore(from, path string) error {
	if err := t.restore(from, path); err != nil {
		return &fs.PathError{Op: "restore", Path: path, Err: err}
	}
	return nil
}

func (t *Tx) restore(from, path string) error {
	src, err := (&files{t: t, private: true}).mutate(&from, store.OpRemove)
	switch {
	case err != nil:
		return err
	case src.node == nil:
		return store.ErrNotExist
	case src.node.kind != store.KindFile:
		return store.ErrSpecial
	}
	n := src.node
	if err := t.keep(n); err != nil {
		return err
	}
	defer t.forget(n)
	dst, err := (&files{t: t}).mutate(&path, store.OpWrite)
	switch {
	case err != nil:
		return err
	case dst.reserved:
		return errReserved
	case dst.dotted || dst.mustDir || dst.node != nil && dst.node.kind == store.KindDir:
		return store.ErrIsDir
	case len(dst.path()) > maxPath:
		return store.ErrNameTooLong
	}
	// Nothing below may fail half-way: charge first, then change.
	if err := t.chargeTarget(dst); err != nil {
		return err
	}
	was := n.charged
	_ = t.charge(n, 0)
	n.of = dst.dir.of
	if err := t.charge(n, 1); err != nil {
		n.of = &t.host
		_ = t.charge(n, was)
		return err
	}
	if n.staged != nil {
		t.host.staged -= n.size
		n.of.staged += n.size
	}
	if dst.node != nil {
		t.remove(dst.node)
	}
	t.detach(n)
	t.place(n, dst.dir, dst.name)
	return nil
}
