package overlay

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/circles-host/circles/host/store"
)

// Open implements store.FS.
func (f *files) Open(path string, flag store.Flag) (store.File, error) {
	h, err := f.open(&path, flag)
	if err != nil {
		return nil, fail("open", path, err)
	}
	return h, nil
}

func (f *files) open(path *string, flag store.Flag) (*file, error) {
	var err error
	if *path, err = f.check(*path); err != nil {
		return nil, err
	}
	has := func(bits store.Flag) bool { return flag&bits != 0 }
	switch {
	case flag >= store.FlagNoFollow<<1,
		has(store.FlagExclusive) && !has(store.FlagCreate),
		has(store.FlagTruncate) && !has(store.FlagWrite),
		has(store.FlagDirectory) && has(store.FlagCreate):
		return nil, store.ErrInvalid
	case f.t.readOnly && has(store.FlagWrite|store.FlagExclusive):
		return nil, store.ErrReadOnly
	}
	mode := followAll
	if has(store.FlagNoFollow | store.FlagExclusive) {
		mode = followSlash
	}
	if has(store.FlagCreate) {
		if err := f.makeTop(); err != nil {
			return nil, err
		}
	}
	at, err := f.walk(*path, mode)
	if err != nil {
		return nil, err
	}
	abs, n := at.path(), at.node

	// Every question that the flags raise, before any answer.
	isDir := n != nil && n.kind == store.KindDir
	makes := has(store.FlagCreate) && (n == nil || has(store.FlagExclusive))
	if has(store.FlagRead) && !isDir && !has(store.FlagDirectory) {
		err = f.allow(store.OpRead, abs)
	}
	if err == nil && (has(store.FlagWrite) || makes) {
		err = f.allow(store.OpWrite, abs)
	}
	if err == nil && abs != "/" && (isDir || has(store.FlagDirectory) || !makes && !has(store.FlagRead|store.FlagWrite)) {
		err = f.allow(store.OpStat, abs)
	}
	if err != nil {
		return nil, err
	}

	switch {
	case n == nil && !has(store.FlagCreate):
		return nil, store.ErrNotExist
	case n == nil && f.t.readOnly:
		return nil, store.ErrReadOnly
	case n == nil && at.mustDir:
		return nil, store.ErrIsDir
	case n != nil && makes:
		return nil, store.ErrExists
	case n != nil && n.kind == store.KindLink:
		return nil, store.ErrLoop
	case n != nil && n.kind == store.KindOther:
		return nil, store.ErrSpecial
	case n != nil && !isDir && (at.mustDir || has(store.FlagDirectory)):
		return nil, store.ErrNotDir
	case isDir && has(store.FlagWrite|store.FlagCreate):
		return nil, store.ErrIsDir
	}
	if account := f.top().of; account.open >= account.limits.OpenFiles {
		return nil, fmt.Errorf("more than %d: %w", account.limits.OpenFiles, store.ErrTooManyOpen)
	}

	created := n == nil
	if created {
		if n, err = f.make(at, store.KindFile); err != nil {
			return nil, err
		}
	} else if err = f.t.keep(n); err != nil {
		return nil, err
	}
	if isDir {
		n.opens++
	} else {
		if created {
			if err = f.t.copyUp(n, 0); err != nil {
				f.t.remove(n)
				return nil, err
			}
		}
		if err = f.t.open(n); err != nil {
			f.t.forget(n)
			return nil, err
		}
		if has(store.FlagTruncate) && !created {
			if err = f.t.truncate(n, 0); err != nil {
				f.t.close(n)
				return nil, err
			}
		}
	}
	h := &file{f: f, n: n, flag: flag}
	f.t.handles[h] = struct{}{}
	n.of.open++
	n.of.used.Handles = max(n.of.used.Handles, n.of.open)
	return h, nil
}

// Stat implements store.FS.
func (f *files) Stat(path string, followLast bool) (store.Info, error) {
	path, err := f.check(path)
	if err != nil {
		return store.Info{}, fail("stat", path, err)
	}
	mode := followSlash
	if followLast {
		mode = followAll
	}
	at, err := f.walk(path, mode)
	if err == nil && at.dir != nil { // that there is a root is no secret
		err = f.allow(store.OpStat, at.path())
	}
	if err == nil {
		err = at.mustExist()
	}
	if err != nil {
		return store.Info{}, fail("stat", path, err)
	}
	return at.node.info(), nil
}

func (s spot) mustExist() error {
	switch {
	case s.node == nil:
		return store.ErrNotExist
	case s.mustDir && s.node.kind != store.KindDir:
		return store.ErrNotDir
	}
	return nil
}

func (n *node) info() store.Info {
	i := store.Info{Kind: n.kind, Size: n.size, Inode: n.ino, Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime}
	if n.kind != store.KindFile && n.kind != store.KindLink {
		i.Size = 0
	}
	return i
}

// Readlink implements store.FS.
func (f *files) Readlink(path string) (string, error) {
	path, err := f.check(path)
	if err != nil {
		return "", fail("readlink", path, err)
	}
	at, err := f.walk(path, followSlash)
	if err == nil {
		err = f.allow(store.OpRead, at.path())
	}
	if err == nil {
		err = at.mustExist()
	}
	if err == nil && at.node.kind != store.KindLink {
		err = store.ErrInvalid
	}
	var target string
	if err == nil {
		target, err = f.t.readlink(at.node)
	}
	if err == nil && !utf8.ValidString(target) {
		err = store.ErrInvalid
	}
	if err != nil {
		return "", fail("readlink", path, err)
	}
	return target, nil
}

// mutate does what the operations that make or remove one name have in common:
// it resolves the path and asks the guard.
func (f *files) mutate(path *string, op store.Op) (spot, error) {
	var err error
	if *path, err = f.check(*path); err != nil {
		return spot{}, err
	}
	if f.t.readOnly {
		return spot{}, store.ErrReadOnly
	}
	if op == store.OpWrite {
		if err := f.makeTop(); err != nil {
			return spot{}, err
		}
	}
	at, err := f.walk(*path, followNot)
	if err != nil {
		return spot{}, err
	}
	if err := f.allow(op, at.path()); err != nil {
		return spot{}, err
	}
	return at, nil
}

// Mkdir implements store.FS.
func (f *files) Mkdir(path string) error {
	at, err := f.mutate(&path, store.OpWrite)
	if err == nil {
		if at.node != nil {
			err = store.ErrExists
		} else {
			_, err = f.make(at, store.KindDir)
		}
	}
	if err != nil {
		return fail("mkdir", path, err)
	}
	return nil
}

// Rmdir implements store.FS.
func (f *files) Rmdir(path string) error {
	at, err := f.mutate(&path, store.OpRemove)
	if err == nil {
		err = f.rmdir(at)
	}
	if err != nil {
		return fail("rmdir", path, err)
	}
	return nil
}

func (f *files) rmdir(at spot) error {
	switch {
	case at.dotted:
		return store.ErrInvalid
	case at.node == nil:
		return store.ErrNotExist
	case at.node.kind != store.KindDir:
		return store.ErrNotDir
	}
	if empty, err := f.t.empty(at.node); err != nil {
		return err
	} else if !empty {
		return store.ErrNotEmpty
	}
	return f.t.drop(at.node)
}

// drop removes an entry for good.
func (t *Tx) drop(n *node) error {
	if err := t.keep(n); err != nil {
		return err
	}
	if err := t.charge(n, 1); err != nil {
		return err
	}
	t.remove(n)
	return nil
}

// Unlink implements store.FS.
func (f *files) Unlink(path string) error {
	at, err := f.mutate(&path, store.OpRemove)
	if err == nil {
		switch {
		case at.node == nil:
			err = store.ErrNotExist
		case at.node.kind == store.KindDir:
			err = store.ErrIsDir
		case at.mustDir:
			err = store.ErrNotDir
		default:
			err = f.t.drop(at.node)
		}
	}
	if err != nil {
		return fail("unlink", path, err)
	}
	return nil
}

// Symlink implements store.FS.
func (f *files) Symlink(target, path string) error {
	err := f.symlink(strings.Clone(target), &path)
	if err != nil {
		return fail("symlink", path, err)
	}
	return nil
}

func (f *files) symlink(target string, path *string) error {
	switch {
	case target == "":
		return store.ErrNotExist
	case f.private:
		return store.ErrNotSupported
	case len(target) >= maxPath:
		return store.ErrNameTooLong
	case strings.IndexByte(target, 0) >= 0, !utf8.ValidString(target):
		return store.ErrInvalid
	}
	at, err := f.mutate(path, store.OpWrite)
	switch {
	case err != nil:
		return err
	case at.node != nil && at.mustDir && at.node.kind != store.KindDir:
		return store.ErrNotDir
	case at.node != nil:
		return store.ErrExists
	case at.mustDir:
		return store.ErrNotExist
	}
	// We would refuse to follow such a link, but the owner's other tools would
	// not: what a guest leaves behind must not lead them out either.
	if target[0] == '/' {
		return store.ErrEscapes
	}
	depth := at.dir.depth()
	for comp := range strings.SplitSeq(target, "/") {
		switch comp {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return store.ErrEscapes
			}
		default:
			depth++
		}
	}
	n, err := f.make(at, store.KindLink)
	if err != nil {
		return err
	}
	n.target, n.size = target, int64(len(target))
	return nil
}

// SetTimes implements store.FS.
func (f *files) SetTimes(path string, followLast bool, atime, mtime time.Time) error {
	path, err := f.check(path)
	if err == nil && f.t.readOnly {
		err = store.ErrReadOnly
	}
	mode := followSlash
	if followLast {
		mode = followAll
	}
	var at spot
	if err == nil {
		at, err = f.walk(path, mode)
	}
	if err == nil {
		err = f.allow(store.OpWrite, at.path())
	}
	if err == nil {
		err = at.mustExist()
	}
	if err == nil {
		err = f.t.setTimes(at.node, atime, mtime)
	}
	if err != nil {
		return fail("set times of", path, err)
	}
	return nil
}

func (t *Tx) setTimes(n *node, atime, mtime time.Time) error {
	if n.kind == store.KindOther {
		return store.ErrSpecial
	}
	if !n.gone {
		if err := t.keep(n); err != nil {
			return err
		}
	}
	if err := t.charge(n, max(n.charged, 1)); err != nil {
		return err
	}
	if !atime.IsZero() {
		n.atime, n.timesSet = atime, true
	}
	if !mtime.IsZero() {
		n.mtime, n.timesSet = mtime, true
	}
	n.ctime = t.s.now()
	return nil
}

// Rename implements store.FS.
func (f *files) Rename(from, to string) error { return f.RenameTo(from, f, to) }

// RenameTo implements store.FS.
func (f *files) RenameTo(from string, at store.FS, to string) error {
	err := store.ErrNotSupported
	if there, ok := at.(*files); ok && there.whole == f.whole {
		err = f.rename(&from, there, &to)
	}
	if err != nil {
		return fail("rename", from+" to "+to, err)
	}
	return nil
}

func (f *files) rename(from *string, there *files, to *string) error {
	t := f.t
	src, err := f.mutate(from, store.OpRemove)
	if err != nil {
		return err
	}
	if err := src.mustExist(); err != nil {
		return err
	}
	if src.dotted {
		return store.ErrInvalid
	}
	n := src.node
	// Kept before the second walk, so that both walks meet the same nodes.
	if err := t.keep(n); err != nil {
		return err
	}
	defer t.forget(n)
	dst, err := there.mutate(to, store.OpWrite)
	if err != nil {
		return err
	}
	isDir := n.kind == store.KindDir
	switch {
	case dst.dotted:
		return store.ErrInvalid
	case dst.reserved:
		return errReserved
	case dst.mustDir && !isDir:
		return store.ErrNotDir
	case dst.node == n:
		return nil
	}
	for d := dst.dir; isDir && d != nil; d = d.parent {
		if d == n {
			return store.ErrInvalid // a directory into itself
		}
	}
	if dst.node != nil {
		switch dstDir := dst.node.kind == store.KindDir; {
		case isDir && !dstDir:
			return store.ErrNotDir
		case !isDir && dstDir:
			return store.ErrIsDir
		case isDir:
			if empty, err := t.empty(dst.node); err != nil {
				return err
			} else if !empty {
				return store.ErrNotEmpty
			}
		}
	}
	moved, err := f.checkMove(n, dst)
	if err != nil {
		return err
	}

	// Nothing below may fail half-way: charge first, then change.
	if err := t.chargeTarget(dst); err != nil {
		return err
	}
	if err := t.charge(n, max(n.charged, 1+moved)); err != nil {
		return err
	}
	if dst.node != nil {
		t.remove(dst.node)
	}
	t.detach(n)
	t.place(n, dst.dir, dst.name)
	if n.home() && n.staged == nil && !n.timesSet {
		_ = t.charge(n, 0) // back where it was: not a change any more
	}
	return nil
}

// checkMove asks, for n and all that is below it, whether it may go from where
// it is to dst, and counts what is below.
func (f *files) checkMove(n *node, dst spot) (below int, err error) {
	t := f.t
	from, to := n.path(), dst.path()
	check := func(rel string, kind store.Kind) error {
		if len(to)+len(rel) > maxPath {
			return store.ErrNameTooLong
		}
		if f.guard == nil {
			return nil
		}
		if rel != "" {
			// A name that cannot be said cannot be decided about.
			if !utf8.ValidString(rel) {
				return store.ErrDenied
			}
			if err := f.allowMove(store.OpRemove, from+rel); err != nil {
				return err
			}
			if err := f.allowMove(store.OpWrite, to+rel); err != nil {
				return err
			}
		}
		// A move must not widen what can be seen of the thing. (What can be
		// changed may widen: it could be removed here and made there.)
		see := store.OpRead
		if kind == store.KindDir {
			see = store.OpList
		}
		if denied := f.allowMove(see, from+rel); denied != nil && f.allow(see, to+rel) == nil {
			return denied
		}
		return nil
	}
	if err := check("", n.kind); err != nil {
		return 0, err
	}
	if n.kind != store.KindDir {
		return 0, nil
	}
	base := dst.dir.depth() + 1
	err = t.below(n, n.origin, "", func(rel string, kind store.Kind, _ *node, _ string) error {
		if below++; below > t.s.limits.Moved {
			return store.ErrQuota
		}
		if base+strings.Count(rel, "/") > n.of.limits.Depth {
			return store.ErrNameTooLong
		}
		return check(rel, kind)
	})
	return below, err
}

// allowMove is allow for something below a moved directory: there, hidden cannot
// be made to look absent, so it is a plain refusal.
func (f *files) allowMove(op store.Op, path string) error {
	err := f.allow(op, path)
	if errors.Is(err, store.ErrNotExist) {
		return store.ErrDenied
	}
	return err
}
