package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/circles-host/circles/host/store"
)

// files is a transaction's file system under one guard, or its private one; or
// what of these is below an open directory.
type files struct {
	t       *Tx
	guard   store.Guard
	private bool
	whole   *files // that this is a part of, or itself
	dir     *file  // that it is below; nil in the whole
}

// Files implements store.Tx.
func (t *Tx) Files(guard store.Guard) store.FS { return t.files(guard, false) }

func (t *Tx) files(guard store.Guard, private bool) *files {
	f := &files{t: t, guard: guard, private: private}
	f.whole = f
	return f
}

// spot is where a path leads: a name in a directory, and the node there, if any.
type spot struct {
	dir  *node // nil for the root
	name string
	node *node // nil if there is nothing
	// mustDir: the path ended in a slash or a dot, so only a directory will do.
	mustDir bool
	// dotted: the path ended in "." or ".." or was the root: it names a directory
	// that is there, but not an entry that could be made or removed.
	dotted bool
	// reserved: the name is the host's own, or another name for it, and node is
	// nil whatever is there.
	reserved bool
}

func (s spot) path() string {
	if s.dir == nil {
		return "/"
	}
	return childPath(s.dir, s.name)
}

// follow says what to do with a link in the last component.
type follow uint8

const (
	followNot   follow = iota // never: the operation is on the name itself
	followSlash               // only if a slash comes after it
	followAll
)

// allow asks the guard.
func (f *files) allow(op store.Op, path string) error {
	if f.guard == nil {
		return nil
	}
	err := f.guard.Allow(op, path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrHidden):
		return store.ErrNotExist
	case errors.Is(err, store.ErrDenied):
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrDenied, err)
}

// fail names the operation and the path in an error. The path is the one given:
// a resolved one would tell where a link leads.
func fail(op, path string, err error) error {
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// check refuses what no file system could hold, and copies the path: it may
// alias the memory of a guest, which changes under us.
func (f *files) check(path string) (string, error) {
	switch {
	case f.t.ended, f.dir != nil && f.dir.closed:
		// An open directory stays in the tree; one that is closed may be loaded
		// anew, and then this would be a second of it.
		return "", store.ErrClosed
	case len(path) > maxPath:
		return path[:maxName], store.ErrNameTooLong
	}
	path = strings.Clone(path)
	switch {
	case path == "":
		return path, store.ErrNotExist
	case strings.IndexByte(path, 0) >= 0, !utf8.ValidString(path):
		return path, store.ErrInvalid
	}
	return path, nil
}

// walk resolves a path that check has passed.
func (f *files) walk(path string, mode follow) (spot, error) {
	t := f.t
	if f.private {
		if _, err := t.privateDir(); err != nil {
			return spot{}, err
		}
	}
	top := f.top()
	cur, depth, limit := top, top.depth(), top.of.limits.Depth
	rest := path
	for steps, links := 0, 0; ; steps++ {
		rest = strings.TrimLeft(rest, "/")
		if rest == "" {
			at := spot{name: cur.name, node: cur, mustDir: true, dotted: true}
			if cur != top {
				at.dir = cur.parent
			}
			return at, nil
		}
		if steps == maxSteps {
			return spot{}, store.ErrLoop
		}
		comp, tail, slash := strings.Cut(rest, "/")
		rest = tail
		switch comp {
		case ".":
			continue
		case "..":
			if cur == top {
				return spot{}, store.ErrEscapes
			}
			if err := f.allow(store.OpStat, cur.path()); err != nil {
				return spot{}, err
			}
			cur, depth = cur.parent, depth-1
			continue
		}
		switch {
		case len(comp) > maxName || depth >= limit:
			return spot{}, store.ErrNameTooLong
		case cur.gone:
			// The root, held open. What the lower state has at its origin is of
			// whoever is there now.
			return spot{}, store.ErrNotExist
		}
		last := strings.Trim(tail, "/") == ""
		n, hidden, err := f.lookup(cur, comp)
		switch {
		case errors.Is(err, store.ErrNotExist):
			if last {
				return spot{dir: cur, name: comp, mustDir: slash, reserved: hidden}, nil
			}
			return spot{}, f.reveal(cur, comp, store.ErrNotExist)
		case err != nil:
			return spot{}, f.reveal(cur, comp, err)
		}
		if f.private && n.kind == store.KindLink && (!last || mode == followAll) {
			return spot{}, store.ErrSpecial // the host makes none
		}
		if n.kind == store.KindLink && (!last || mode == followAll || mode == followSlash && slash) {
			target, err := f.followLink(n)
			if err != nil {
				return spot{}, err
			}
			if links++; links > maxLinks {
				return spot{}, store.ErrLoop
			}
			rest = target
			if slash {
				rest = target + "/" + tail
			}
			continue
		}
		if last {
			return spot{dir: cur, name: comp, node: n, mustDir: slash}, nil
		}
		if n.kind != store.KindDir {
			return spot{}, f.reveal(cur, comp, store.ErrNotDir)
		}
		cur, depth = n, depth+1
	}
}

// reveal returns err if the guard lets its user know what is, or is not, there.
func (f *files) reveal(d *node, name string, err error) error {
	if denied := f.allow(store.OpStat, childPath(d, name)); denied != nil {
		return denied
	}
	return err
}

func (f *files) followLink(n *node) (string, error) {
	if err := f.allow(store.OpStat, n.path()); err != nil {
		return "", err
	}
	target, err := f.t.readlink(n)
	switch {
	case err != nil:
		return "", err
	case target == "":
		return "", store.ErrNotExist
	case target[0] == '/':
		return "", store.ErrEscapes
	case len(target) > maxPath:
		return "", store.ErrNameTooLong
	case strings.IndexByte(target, 0) >= 0, !utf8.ValidString(target):
		return "", store.ErrInvalid
	}
	return target, nil
}
