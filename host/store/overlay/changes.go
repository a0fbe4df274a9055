package overlay

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/store"
)

// difference collects the two sides of what a transaction changed, by lower-style
// path.
type difference struct {
	t   *Tx
	old map[string]store.Kind
	new map[string]entry
}

// entry is something in the transaction's tree: a loaded node, or a lower entry
// below a moved directory.
type entry struct {
	kind   store.Kind
	node   *node
	origin string
}

// Changes implements store.Tx. A directory comes before what is in it, and a
// removal before what takes its path. A rename is a removal and a creation, and
// that of a directory is so for everything below it. Before and After can be
// read until the transaction ends. What is in Private is not looked at.
func (t *Tx) Changes() ([]store.Change, error) {
	if t.ended {
		return nil, store.ErrClosed
	}
	d := difference{t: t, old: map[string]store.Kind{}, new: map[string]entry{}}
	if t.root.timesSet {
		d.both(t.root)
	}
	if err := d.settled(t.root); err != nil {
		return nil, err
	}
	paths := make([]string, 0, len(d.old)+len(d.new))
	for path := range d.old {
		paths = append(paths, path)
	}
	for path := range d.new {
		if _, ok := d.old[path]; !ok {
			paths = append(paths, path)
		}
	}
	slices.SortFunc(paths, comparePaths)
	var changes []store.Change
	for _, path := range paths {
		cs, err := d.at(path)
		if err != nil {
			return nil, err
		}
		changes = append(changes, cs...)
	}
	return changes, nil
}

func (d *difference) both(n *node) {
	d.old[n.origin] = n.attr.Kind
	if n.parent == nil {
		d.old[n.origin] = store.KindDir
	}
	d.new[n.origin] = entry{n.kind, n, n.origin}
}

// settled collects from a directory that is where the lower state has it.
func (d *difference) settled(dir *node) error {
	for _, n := range dir.masked {
		if err := d.left(n.origin, n.attr.Kind); err != nil {
			return err
		}
	}
	for name, c := range dir.children {
		if dir.parent == nil && name == store.PrivateName {
			continue
		}
		if !c.home() {
			if err := d.came(c, join(dir.origin, name)); err != nil {
				return err
			}
			continue
		}
		if c.staged != nil || c.timesSet {
			d.both(c)
		}
		if c.kind == store.KindDir {
			if err := d.settled(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// left collects a lower entry that is no longer where it was, and what it holds.
func (d *difference) left(origin string, kind store.Kind) error {
	d.old[origin] = kind
	if kind != store.KindDir {
		return nil
	}
	n := 0
	return d.t.below(nil, origin, "", func(rel string, kind store.Kind, _ *node, _ string) error {
		// It was counted when it was moved. A lower state that has become larger
		// since may be one that somebody makes up as we ask.
		if n++; n > d.t.s.limits.Moved {
			return fmt.Errorf("more than %d entries in a directory that was moved: %w", n-1, store.ErrQuota)
		}
		d.old[origin+rel] = kind
		return nil
	})
}

// came collects a node that is new at a path, and what it holds.
func (d *difference) came(n *node, path string) error {
	d.new[path] = entry{n.kind, n, n.origin}
	if n.kind != store.KindDir {
		return nil
	}
	lower := 0
	return d.t.below(n, n.origin, "", func(rel string, kind store.Kind, c *node, origin string) error {
		if c == nil {
			if lower++; lower > d.t.s.limits.Moved {
				return fmt.Errorf("more than %d entries in a directory that was moved: %w", lower-1, store.ErrQuota)
			}
		}
		d.new[path+rel] = entry{kind, c, origin}
		return nil
	})
}

// at compares the two sides at one path.
func (d *difference) at(path string) ([]store.Change, error) {
	t := d.t
	oldKind, was := d.old[path]
	e, is := d.new[path]
	abs := "/" + path
	if path == "." {
		abs = "/"
	}

	var before store.Change
	var attr Attr
	if was {
		var err error
		if attr, err = t.lower.Lstat(path); err != nil && !errors.Is(err, store.ErrNotExist) {
			return nil, err
		}
		before = store.Change{Path: abs, Kind: store.ChangeRemove, Was: store.Was{Kind: oldKind, Atime: attr.Atime, Mtime: attr.Mtime}}
		if oldKind == store.KindLink {
			if before.Was.Link, err = t.lower.Readlink(path); err != nil && !errors.Is(err, store.ErrNotExist) {
				return nil, err
			}
		}
		if oldKind == store.KindFile {
			before.Before = func() (io.ReadSeekCloser, error) { return t.lowerContent(path) }
			before.Sizes.Before = attr.Size
		}
	}
	if was && (!is || oldKind != e.kind) {
		if !is {
			return []store.Change{before}, nil
		}
		after, err := d.made(abs, e)
		return []store.Change{before, after}, err
	}
	after, err := d.made(abs, e)
	if err != nil || !was {
		return []store.Change{after}, err
	}
	after.Was = before.Was

	// The same kind on both sides.
	same := true
	switch e.kind {
	case store.KindFile:
		switch {
		case e.node == nil || e.node.staged == nil:
			same = e.origin == path
			if !same {
				same, err = d.sameLower(e.origin, path)
			}
		case e.origin == path:
			same, err = t.sameAsOrigin(e.node)
		default:
			same, err = t.sameContent(e.node, path, attr, 0)
		}
	case store.KindLink:
		same = before.Was.Link == after.Link
	}
	if err != nil {
		return nil, err
	}
	if !same {
		if e.kind == store.KindFile {
			after.Kind = store.ChangeModify
			after.Before, after.Sizes.Before = before.Before, before.Sizes.Before
			if n := e.node; n != nil && n.staged != nil && e.origin == path {
				after.Intact = min(n.intact, n.size, attr.Size)
				after.Appended = after.Intact == attr.Size && n.size > attr.Size
			}
		}
		return []store.Change{after}, nil
	}
	if n := e.node; n != nil && n.timesSet && !(n.mtime.Equal(attr.Mtime) && n.atime.Equal(attr.Atime)) {
		c := store.Change{Path: abs, Kind: store.ChangeTimes, Was: before.Was}
		if e.kind == store.KindFile {
			c.Before, c.After, c.Sizes = before.Before, after.After, after.Sizes
			c.Sizes.Before = before.Sizes.Before
		}
		return []store.Change{c}, nil
	}
	return nil, nil
}

// made is the change of something that is new at a path.
func (d *difference) made(abs string, e entry) (store.Change, error) {
	t := d.t
	c := store.Change{Path: abs, Kind: store.ChangeCreate}
	switch e.kind {
	case store.KindDir:
		c.Kind = store.ChangeMkdir
	case store.KindLink:
		c.Kind = store.ChangeSymlink
		var err error
		if e.node != nil {
			c.Link, err = t.readlink(e.node)
		} else {
			c.Link, err = t.lower.Readlink(e.origin)
		}
		if err != nil {
			return c, err
		}
	case store.KindFile:
		n := e.node
		if n == nil {
			a, err := t.lower.Lstat(e.origin)
			if err != nil {
				return c, err
			}
			c.Sizes.After = a.Size
			c.After = func() (io.ReadSeekCloser, error) { return t.lowerContent(e.origin) }
			c.From = "/" + e.origin
			break
		}
		if e.origin != "" && e.origin != abs[1:] && !strings.HasPrefix(e.origin, store.PrivateName+"/") {
			same := n.staged == nil
			if !same {
				var err error
				if same, err = t.sameAsOrigin(n); err != nil {
					return c, err
				}
			}
			if same {
				c.From = "/" + e.origin
			}
		}
		c.Sizes.After = n.size
		c.After = func() (io.ReadSeekCloser, error) { return t.content(n) }
	}
	return c, nil
}

// sameLower compares two lower files.
func (d *difference) sameLower(a, b string) (bool, error) {
	fa, err := d.t.lower.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := d.t.lower.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	size := fa.Attr().Size
	if size != fb.Attr().Size {
		return false, nil
	}
	return equal(d.t.ctx, size, io.NewSectionReader(fa, 0, size), io.NewSectionReader(fb, 0, size))
}

// content reads a node's content as it is now.
func (t *Tx) content(n *node) (io.ReadSeekCloser, error) {
	switch {
	case t.ended:
		return nil, store.ErrClosed
	case n.staged == nil:
		return t.lowerContent(n.origin)
	}
	r := io.NewSectionReader(readerAt(func(p []byte, off int64) (int, error) {
		if t.ended || n.staged == nil {
			return 0, store.ErrClosed
		}
		return n.readAt(p, off)
	}), 0, n.size)
	return readCloser{r, func() error {
		if !t.ended && n.staged != nil && n.opens == 0 {
			n.staged.Idle()
		}
		return nil
	}}, nil
}

func (t *Tx) lowerContent(origin string) (io.ReadSeekCloser, error) {
	if t.ended {
		return nil, store.ErrClosed
	}
	f, err := t.lower.Open(origin)
	if err != nil {
		return nil, err
	}
	return readCloser{io.NewSectionReader(f, 0, f.Attr().Size), f.Close}, nil
}

type readerAt func(p []byte, off int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

type readCloser struct {
	io.ReadSeeker
	close func() error
}

func (r readCloser) Close() error { return r.close() }
