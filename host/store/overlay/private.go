package overlay

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/circles-host/circles/host/store"
)

// Private implements store.Tx.
func (t *Tx) Private() store.FS { return t.files(nil, true) }

var errReserved = fmt.Errorf("the host keeps this name for itself: %w", store.ErrDenied)

// top is the directory that is "/" in f, and which ".." does not leave. In
// private, privateDir has found it.
func (f *files) top() *node {
	if f.dir != nil {
		return f.dir.n
	}
	if f.private {
		return f.t.private
	}
	return f.t.root
}

// privateDir finds the directory of Private, once in a transaction: what is
// there and is no directory of ours, a link that somebody planted above all, is
// neither used nor replaced.
func (t *Tx) privateDir() (*node, error) {
	if t.private != nil || t.privateErr != nil {
		return t.private, t.privateErr
	}
	n, err := t.lookup(t.root, store.PrivateName)
	if err == nil && n.kind != store.KindDir {
		err = fmt.Errorf("what is at /%s is no directory of the host's; move it away: %w", store.PrivateName, store.ErrNotDir)
	}
	if err != nil {
		t.privateErr = err
		return nil, err
	}
	t.private = n
	return n, nil
}

// makeTop makes the directory of Private if it is not there.
func (f *files) makeTop() error {
	if !f.private || f.t.readOnly {
		return nil
	}
	if _, err := f.t.privateDir(); !errors.Is(err, store.ErrNotExist) {
		return err
	}
	n, err := f.t.create(f.t.root, store.PrivateName, store.KindDir)
	if err == nil {
		f.t.private, f.t.privateErr = n, nil
	}
	return err
}

// account is what a name in a directory is counted in.
func (t *Tx) account(d *node, name string) *account {
	if d == t.root && name == store.PrivateName {
		return &t.host
	}
	return d.of
}

// make adds a new node at a spot.
func (f *files) make(at spot, kind store.Kind) (*node, error) {
	if at.reserved {
		return nil, errReserved
	}
	return f.t.create(at.dir, at.name, kind)
}

// lookup finds one name as f shows it. hidden says that it is absent because the
// directory of Private is, or would be, what it names.
//
// Names are compared as file systems do that take several for one. The directory
// is also known by its identity, against one that takes more names for it than we
// thought of: short names, other normal forms.
func (f *files) lookup(d *node, name string) (n *node, hidden bool, err error) {
	t := f.t
	if d != t.root {
		n, err = t.lookup(d, name)
		return n, false, err
	}
	if reserved(name) {
		return nil, true, store.ErrNotExist
	}
	n, err = t.lookup(d, name)
	if err != nil || n.kind != store.KindDir || n.attr.Version.ID == [2]uint64{} {
		return n, false, err
	}
	if own, err := t.privateDir(); err == nil && own.attr.Version.ID == n.attr.Version.ID {
		return nil, true, store.ErrNotExist
	}
	return n, false, nil
}

// reserved reports whether some file system would take a name for PrivateName:
// in other case, with characters that do not show, or with dots and spaces after
// it.
func reserved(name string) bool {
	if len(name) < len(store.PrivateName) || name[0] < utf8.RuneSelf && name[0] != store.PrivateName[0] {
		return false
	}
	visible := strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
			return -1
		}
		return r
	}, name)
	return strings.EqualFold(strings.TrimRight(visible, " ."), store.PrivateName)
}
