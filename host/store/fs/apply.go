//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// Prepare implements overlay.Backend: everything that a commit will rename into
// place is made, complete and durable, before the commit is decided.
func (b *backend) Prepare(ctx context.Context, p *overlay.Plan) error {
	b.commits++
	var puts []overlay.Step
	for _, s := range p.Steps {
		switch s.Kind {
		case overlay.StepPut:
			puts = append(puts, s)
		case overlay.StepSymlink:
			if err := unix.Symlinkat(s.Target, b.stage, b.slot(s.Slot)); err != nil {
				return fmt.Errorf("stage link %s: %w", s.Path, fileError(err))
			}
		}
	}
	if err := b.seal(ctx, puts); err != nil {
		return err
	}
	if err := unix.Fsync(b.stage); err != nil {
		return fmt.Errorf("make staged files durable: %w", fileError(err))
	}
	return b.at("prepared")
}

// seal makes staged files durable. Some at a time: a file system commits what
// several wait for at once.
func (b *backend) seal(ctx context.Context, puts []overlay.Step) error {
	const together = 8
	for chunk := range slices.Chunk(puts, together) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var wg sync.WaitGroup
		errs := make([]error, len(chunk))
		for i, s := range chunk {
			wg.Go(func() {
				if err := s.File.(*staged).seal(s.Atime, s.Mtime); err != nil {
					errs[i] = fmt.Errorf("make content of %s durable: %w", s.Path, fileError(err))
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if err := b.at("sealed"); err != nil {
			return err
		}
	}
	return nil
}

// slot names a slot of the current commit in the staging directory. The name is
// never used again, so that a leftover cannot be taken for a step that was done.
func (b *backend) slot(i int) string { return fmt.Sprintf("s%x-%d-%d", b.nonce, b.commits, i) }

// Commit implements overlay.Backend.
func (b *backend) Commit(_ context.Context, p *overlay.Plan, records []overlay.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return b.broken
	}
	if b.closed {
		return store.ErrClosed
	}
	for _, r := range records {
		if _, ok := b.log.keys[r.Key]; ok {
			return fmt.Errorf("append log entry %x: %w", r.Key[:8], store.ErrExists)
		}
	}
	r := record{}
	if len(records) > 0 {
		var err error
		if r.logSeg, r.logOff, err = b.log.ready(); err != nil {
			return err
		}
		r.entries = b.log.next(records)
	}
	if p == nil {
		if err := b.log.append(r.entries); err != nil {
			if errors.Is(err, errTail) {
				return b.broke(err)
			}
			return err
		}
		return nil
	}
	if err := b.expect(p.Expect); err != nil {
		return err
	}
	if err := b.possible(p); err != nil {
		return err
	}
	for _, s := range p.Steps {
		o := op{kind: s.Kind, path: s.Path, was: s.Was, target: s.Target, atime: s.Atime, mtime: s.Mtime}
		switch s.Kind {
		case overlay.StepPut:
			o.slot = s.File.(*staged).name
		case overlay.StepOut, overlay.StepIn, overlay.StepSymlink:
			o.slot = b.slot(s.Slot)
		}
		r.ops = append(r.ops, o)
	}
	if err := b.at("expected"); err != nil {
		return err
	}
	enc := r.append(nil)
	if len(enc) > maxJournal {
		return fmt.Errorf("commit of %d changes, which take %d bytes to describe: %w", len(r.ops), len(enc), store.ErrQuota)
	}
	if err := b.journal.write(enc); err != nil {
		// Part of it may be on the disk. Unless that is gone for certain, whether
		// this commit was decided is for the next opening to see.
		if undo := b.journal.drop(); undo != nil {
			return b.broke(fmt.Errorf("write journal: %w: %w", err, undo))
		}
		return fmt.Errorf("write journal: %w", fileError(err))
	}
	if err := b.at("decided"); err != nil {
		return b.broke(err)
	}
	if err := b.finish(&r, false); err != nil {
		return b.broke(err)
	}
	return nil
}

// Abandon implements overlay.Backend. Staged files are discarded by the
// transaction that wrote them; links were made by Prepare.
func (b *backend) Abandon(p *overlay.Plan) {
	for _, s := range p.Steps {
		if s.Kind == overlay.StepSymlink {
			_ = unix.Unlinkat(b.stage, b.slot(s.Slot), 0)
		}
	}
}

func (b *backend) broke(err error) error {
	b.broken = fmt.Errorf("%w: %w: open it again to finish the commit", overlay.ErrBroken, err)
	return b.broken
}

// finish applies a decided commit: at once, or again when the store is next
// opened.
func (b *backend) finish(r *record, again bool) error {
	if err := b.apply(r.ops); err != nil {
		return err
	}
	if again {
		// What was done before is not done again, so nothing says whether it is
		// durable. This is rare, so everything may be made so.
		if err := syncAll(b.lower.under.root()); err != nil {
			return fmt.Errorf("make commit durable: %w", err)
		}
	}
	if err := b.at("applied"); err != nil {
		return err
	}
	if err := b.log.append(r.entries); err != nil {
		return err
	}
	if err := b.at("logged"); err != nil {
		return err
	}
	if err := b.journal.drop(); err != nil {
		return fmt.Errorf("drop journal record: %w", err)
	}
	return b.at("dropped")
}

// expect fails with ErrConflict if the owner's files are not as the transaction
// saw them, where it matters.
func (b *backend) expect(all []overlay.Expect) error {
	for _, e := range all {
		look := b.Lstat
		if e.Attr.Kind == 0 {
			look = b.lstat // a name that differs in case only is in the way too
		}
		a, err := look(e.Path)
		conflict := func(what string) error {
			return fmt.Errorf("/%s %s while the script ran: %w; run it again", e.Path, what, ErrConflict)
		}
		switch {
		case err == store.ErrNotExist || err == store.ErrNotDir:
			if e.Attr.Kind != 0 {
				return conflict("was removed")
			}
			continue
		case err == store.ErrSpecial: // a directory on the way is a link or a mount now
			return conflict("was replaced")
		case err != nil:
			return fmt.Errorf("look at /%s before commit: %w", e.Path, err)
		case e.Attr.Kind == 0:
			return conflict("was made by someone else")
		case !a.Same(e.Attr):
			return conflict("was changed by someone else")
		}
		if e.IsOnly {
			names, err := b.ReadDir(e.Path, len(e.Only)+1)
			if err != nil {
				return fmt.Errorf("look at /%s before commit: %w", e.Path, err)
			}
			known := make(map[string]bool, len(e.Only))
			for _, name := range e.Only {
				known[name] = true
			}
			for _, n := range names {
				if !known[n.Name] {
					return conflict("got a new file")
				}
			}
		}
	}
	return nil
}

// possible refuses what would fail once it is decided: a script could otherwise
// leave its context with a commit that can be neither finished nor forgotten,
// by a name or a directory that the file system or its owner does not allow.
func (b *backend) possible(p *overlay.Plan) error {
	dirs := slices.Clip(p.Dirs)
	for _, s := range p.Steps {
		switch s.Kind {
		case overlay.StepOut:
			if s.Was.Kind == store.KindDir { // its ".." will change
				dirs = append(dirs, s.Path)
			}
		case overlay.StepMkdir, overlay.StepIn, overlay.StepPut, overlay.StepSymlink:
			if b.plainNames || s.Was.Kind != 0 {
				continue
			}
			if err := b.tryName(s.Path); err != nil {
				return err
			}
		}
	}
	c := &cursor{b: b, fd: -1}
	defer func() { _ = c.leave() }()
	for _, dir := range dirs {
		err := c.to(dir)
		if err == nil {
			err = unix.Faccessat(c.fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		}
		if err != nil {
			return fmt.Errorf("directory /%s cannot be changed on the host: %w", dir, fileError(err))
		}
	}
	for _, e := range p.Expect {
		if e.Attr.Kind == 0 {
			continue
		}
		dir, name := split(e.Path)
		if err := c.to(dir); err != nil {
			return fmt.Errorf("look at /%s before commit: %w", e.Path, fileError(err))
		}
		if immutable(c.fd, name) {
			return fmt.Errorf("/%s is immutable on the host: %w", e.Path, store.ErrDenied)
		}
	}
	return nil
}

// tryName makes an empty file of a name, and removes it: not every file system
// takes every name.
func (b *backend) tryName(path string) error {
	_, name := split(path)
	fd, err := openat(b.names, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
		err = unix.Unlinkat(b.names, name, 0)
	}
	if err != nil {
		return fmt.Errorf("the host's file system does not take the name of /%s: %v: %w", path, err, store.ErrInvalid)
	}
	return nil
}

// cursor holds the directory that the current steps are about. Names changed in
// it are made durable when the cursor leaves it.
type cursor struct {
	b     *backend
	path  string
	fd    int
	dirty bool
}

func (c *cursor) to(path string) error {
	if c.fd >= 0 && c.path == path {
		return nil
	}
	if err := c.leave(); err != nil {
		return err
	}
	var err error
	if path == "." {
		c.fd, err = openat(c.b.lower.under.root(), ".", dirFlags, 0)
	} else {
		c.fd, err = c.b.lower.under.openDir(path)
	}
	if err != nil {
		c.fd = -1
		return err
	}
	c.path = path
	return nil
}

func (c *cursor) leave() error {
	if c.fd < 0 {
		return nil
	}
	var err error
	if c.dirty {
		if err = unix.Fsync(c.fd); err != nil {
			err = fmt.Errorf("make directory /%s durable: %w", c.path, err)
		}
	}
	unix.Close(c.fd)
	c.fd, c.dirty = -1, false
	return err
}

// apply does the steps of a commit. It may be a repetition of what was done
// before, in whole or in part: every step finds out whether it was.
func (b *backend) apply(ops []op) error {
	c := &cursor{b: b, fd: -1}
	for _, o := range ops {
		if err := b.step(c, o); err != nil {
			_ = c.leave()
			return fmt.Errorf("apply commit to /%s: %w", o.path, err)
		}
		if err := b.at("step"); err != nil {
			_ = c.leave()
			return err
		}
	}
	return c.leave()
}

func (b *backend) step(c *cursor, o op) error {
	dir, name := split(o.path)
	err := c.to(dir)
	leaving := o.kind == overlay.StepRemove || o.kind == overlay.StepOut || o.kind == overlay.StepTimes
	if leaving && (err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP) {
		return nil // its directory has left already
	}
	if err != nil {
		return fmt.Errorf("open directory: %w; make it again, then open the store again", err)
	}
	switch o.kind {
	case overlay.StepRemove:
		return b.remove(c, name, o)
	case overlay.StepOut:
		return b.out(c, name, o)
	case overlay.StepMkdir:
		err := unix.Mkdirat(c.fd, name, 0o777)
		if err == unix.EEXIST {
			st, err := lstatat(c.fd, name)
			if err != nil {
				return err
			}
			if kindOfMode(uint32(st.Mode)) == store.KindDir {
				return nil
			}
			if err := b.setAside(c, name); err != nil {
				return err
			}
			return b.step(c, o)
		}
		c.dirty = true
		return err
	case overlay.StepIn, overlay.StepPut, overlay.StepSymlink:
		return b.in(c, name, o)
	case overlay.StepTimes:
		if o.path == "." {
			name = "."
		}
		err := setTimes(c.fd, name, o.atime, o.mtime)
		if err == unix.ENOENT {
			return nil
		}
		c.dirty = true
		return err
	}
	return errRecord
}

// is reports whether an entry is the one that the transaction saw. A change of
// its inode's times does not count here: the removal of another link to a file
// is one.
func is(st *unix.Stat_t, was overlay.Attr) bool {
	a := attrOf(st)
	if a.Kind != was.Kind || a.Version.ID != was.Version.ID {
		return false
	}
	return a.Kind == store.KindDir || a.Version.Size == was.Version.Size && a.Version.Mtime == was.Version.Mtime
}

func (b *backend) remove(c *cursor, name string, o op) error {
	st, err := lstatat(c.fd, name)
	if err == unix.ENOENT || err == nil && !is(&st, o.was) {
		return nil // done before; or it is something newer, which is not ours to remove
	}
	if err != nil {
		return err
	}
	flags := 0
	if o.was.Kind == store.KindDir {
		flags = unix.AT_REMOVEDIR
	}
	err = unix.Unlinkat(c.fd, name, flags)
	if err == unix.ENOTEMPTY || err == unix.EEXIST {
		return nil // the owner has put something in: the directory stays
	}
	c.dirty = true
	return err
}

func (b *backend) out(c *cursor, name string, o op) error {
	if _, err := lstatat(b.stage, o.slot); err != unix.ENOENT {
		return err // done before
	}
	st, err := lstatat(c.fd, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	if a := attrOf(&st); a.Kind != o.was.Kind || a.Version.ID != o.was.Version.ID {
		return nil // out before, and in again at its new place
	}
	c.dirty = true
	return unix.Renameat(c.fd, name, b.stage, o.slot)
}

func (b *backend) in(c *cursor, name string, o op) error {
	src, err := lstatat(b.stage, o.slot)
	if err == unix.ENOENT {
		c.dirty = true // done before, but perhaps not durable
		return nil
	}
	if err != nil {
		return err
	}
	st, err := lstatat(c.fd, name)
	if err != nil && err != unix.ENOENT {
		return err
	}
	if err == nil && st.Ino == src.Ino && st.Dev == src.Dev {
		// Two links to one file: rename would do nothing, and leave the slot.
		c.dirty = true
		return unix.Unlinkat(b.stage, o.slot, 0)
	}
	if err == nil && !(o.was.Kind != 0 && is(&st, o.was)) {
		// The owner made or changed this since the transaction looked: between
		// the last check and now, or between a crash and now. Theirs is kept.
		if err := b.setAside(c, name); err != nil {
			return err
		}
	}
	c.dirty = true
	return unix.Renameat(b.stage, o.slot, c.fd, name)
}

// setAside renames what is in a commit's way.
func (b *backend) setAside(c *cursor, name string) error {
	const room = 255 - len(".conflict-999")
	for i := 1; i < 1000; i++ {
		aside := fmt.Sprintf("%s.conflict-%d", name[:min(len(name), room)], i)
		if _, err := lstatat(c.fd, aside); err == unix.ENOENT {
			c.dirty = true
			return unix.Renameat(c.fd, name, c.fd, aside)
		}
	}
	return fmt.Errorf("set aside what is at /%s: every name for it is taken; move it away and open the store again", path.Join(c.path, name))
}
