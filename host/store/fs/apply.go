//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// Prepare implements overlay.Backend: everything that a commit will rename into
// place is made, complete and, unless it is so small that the journal takes it,
// durable, before the commit is decided.
func (b *backend) Prepare(ctx context.Context, p *overlay.Plan) error {
	b.commits++
	c := &cursor{b: b, fd: -1}
	defer func() { _ = c.leave() }() // it only looks
	alone := false                   // see op.alone
	var puts []overlay.Step
	for _, s := range p.Steps {
		switch s.Kind {
		case overlay.StepOut:
			alone = alone || s.Was.Kind == store.KindDir
		case overlay.StepPut:
			f := s.File.(*staged)
			if dir, name := split(s.Path); f.base >= 0 && c.to(dir) == nil {
				f.grow = f.grows(c.fd, name, s.Was, s.Size)
			}
			if alone = alone || f.grow; !f.grow {
				if err := f.whole(); err != nil {
					return err
				}
			}
			puts = append(puts, s)
		case overlay.StepSymlink:
			if err := b.disk.symlink(s.Target, b.stage, b.slot(s.Slot)); err != nil {
				return fmt.Errorf("stage link %s: %w", s.Path, fileError(err))
			}
		}
	}
	// A commit that is alone is done again from what is in the staging directory:
	// see the package's documentation.
	durable, err := b.seal(ctx, puts, alone)
	if err != nil {
		return err
	}
	if alone || durable {
		if err := b.disk.sync(b.stage); err != nil {
			return fmt.Errorf("make staged files durable: %w", fileError(err))
		}
	}
	return b.at("prepared")
}

// seal completes staged files. Those that are made durable are so some at a time:
// a file system commits what several wait for at once.
func (b *backend) seal(ctx context.Context, puts []overlay.Step, alone bool) (durable bool, err error) {
	const together = 8
	room := int64(inlineTotal)
	var large []overlay.Step
	for _, s := range puts {
		if alone || s.Size > inlineSize || s.Size > room {
			if err := s.File.(*staged).spill(); err != nil {
				return false, fmt.Errorf("complete content of %s: %w", s.Path, err)
			}
			large = append(large, s)
			continue
		}
		room -= s.Size
		if err := s.File.(*staged).seal(s, true); err != nil {
			return false, fmt.Errorf("complete content of %s: %w", s.Path, fileError(err))
		}
	}
	for chunk := range slices.Chunk(large, together) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		var wg sync.WaitGroup
		errs := make([]error, len(chunk))
		for i, s := range chunk {
			wg.Go(func() {
				if err := s.File.(*staged).seal(s, false); err != nil {
					errs[i] = fmt.Errorf("make content of %s durable: %w", s.Path, fileError(err))
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return false, err
		}
		if err := b.at("sealed"); err != nil {
			return false, err
		}
	}
	return len(large) > 0, nil
}

// slot names a slot of the current commit in the staging directory. The name is
// never used again, so that a leftover cannot be taken for a step that was done.
func (b *backend) slot(i int) string { return fmt.Sprintf("s%x-%d-%d", b.nonce, b.commits, i) }

// Commit implements overlay.Backend.
func (b *backend) Commit(ctx context.Context, p *overlay.Plan, records []overlay.Record) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() {
		if p != nil && (err == nil || errors.Is(err, overlay.ErrBroken)) {
			for _, s := range p.Steps { // what is left of them is ours now
				if s.Kind == overlay.StepPut {
					s.File.(*staged).letBase()
					s.File.(*staged).forget()
				}
			}
		}
	}()
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
	if p != nil {
		if err := b.expect(p.Expect); err != nil {
			return err
		}
		if err := b.possible(p); err != nil {
			return err
		}
	}
	if err := b.attach(); err != nil {
		return err
	}
	r, err := b.describe(p, records)
	if err != nil {
		return err
	}
	if err := b.at("expected"); err != nil {
		return err
	}
	frame := newFrame(r)
	if err := b.roomFor(r, int64(len(frame))); err != nil {
		return err
	}
	at, err := b.journal.commit(ctx, b.session, frame)
	if errors.Is(err, errUndecided) {
		// Whether this commit was decided is for the next opening to see.
		return b.broke(err)
	}
	if err != nil {
		return err
	}
	b.session.seq = r.seq
	if err = b.at("decided"); err == nil {
		err = b.finish(r, at)
	}
	b.journal.applied(at, err != nil)
	if err != nil {
		return b.broke(err)
	}
	return nil
}

// describe makes the record of a commit.
func (b *backend) describe(p *overlay.Plan, records []overlay.Record) (*record, error) {
	s := b.session
	r := &record{context: s.id, tx: s.tx, device: b.lower.dev, mount: mountID(b.lower.under.root()), seq: s.seq + 1}
	if p != nil {
		for _, step := range p.Steps {
			o := op{kind: step.Kind, path: step.Path, was: step.Was, target: step.Target, atime: step.Atime, mtime: step.Mtime}
			switch step.Kind {
			case overlay.StepPut:
				f := step.File.(*staged)
				if f.grow {
					o.kind, o.off = stepGrow, f.kept
				}
				o.slot, o.made, o.mode, o.uid, o.gid, o.isInline, o.content = f.name, f.made, f.mode, f.uid, f.gid, f.isInline, f.content
			case overlay.StepOut, overlay.StepIn, overlay.StepSymlink:
				o.slot = b.slot(step.Slot)
			}
			r.ops = append(r.ops, o)
		}
	}
	// What is alone is applied to a state that is wholly on the disk. So is a new
	// segment of the log begun.
	if r.alone() || len(records) > 0 && b.log.full() {
		if err := s.settle(); err != nil {
			return nil, b.broke(err)
		}
	}
	if len(records) > 0 {
		var err error
		if r.logSeg, r.logOff, err = b.log.ready(); err != nil {
			return nil, err
		}
		r.entries = b.log.next(records)
	}
	var err error
	if r.settled, err = s.state(); err != nil {
		return nil, b.broke(err)
	}
	return r, nil
}

// roomFor refuses a commit while it can be refused, if the disk is so full that
// applying it would fail: it takes little besides its log entries, names, and what
// files grow by.
func (b *backend) roomFor(r *record, n int64) error {
	const slack = 128 << 10
	for _, o := range r.ops {
		if o.kind == stepGrow {
			n += o.made.Size - o.off
		}
	}
	for _, fd := range []int{b.stage, b.logDir} {
		if free, known := room(fd, os.Geteuid() == 0); known && free < n+slack {
			return fmt.Errorf("the host's disk is full: %w", store.ErrQuota)
		}
	}
	return nil
}

// Abandon implements overlay.Backend. Staged files are discarded by the
// transaction that wrote them; links were made by Prepare.
func (b *backend) Abandon(p *overlay.Plan) {
	for _, s := range p.Steps {
		if s.Kind == overlay.StepSymlink {
			_ = b.disk.unlink(b.stage, b.slot(s.Slot))
		}
	}
}

func (b *backend) broke(err error) error {
	b.broken = fmt.Errorf("%w: %w: open it again to finish the commit", overlay.ErrBroken, err)
	if b.session != nil {
		b.session.fail(b.broken)
	}
	return b.broken
}

// finish applies a commit that has just been decided.
func (b *backend) finish(r *record, at redoPlace) error {
	alone := r.alone()
	moves := slices.ContainsFunc(r.ops, func(o op) bool { return o.kind == overlay.StepOut })
	if moves {
		b.session.settling.Lock()
	}
	err := b.apply(r.ops, alone)
	if moves {
		b.session.settling.Unlock()
	}
	if err != nil {
		return err
	}
	if err := b.at("applied"); err != nil {
		return err
	}
	if err := b.log.append(r.entries); err != nil {
		return err
	}
	b.session.done(r.seq, at, len(r.entries) > 0)
	if err := b.at("logged"); err != nil {
		return err
	}
	if alone {
		if err := b.session.settle(); err != nil {
			return err
		}
	}
	return b.at("done")
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
// it are made durable when the cursor leaves it, or noted for the session to do.
type cursor struct {
	b     *backend
	path  string
	fd    int
	dirty bool
	later *session
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
	switch {
	case c.dirty && c.later != nil:
		c.later.changed(c.path, "")
	case c.dirty:
		if err = c.b.disk.sync(c.fd); err != nil {
			err = fmt.Errorf("make directory /%s durable: %w", c.path, err)
		}
	}
	unix.Close(c.fd)
	c.fd, c.dirty = -1, false
	return err
}

// apply does the steps of a commit. If it is alone, it may be a repetition of what
// was done before, in whole or in part: every step finds out whether it was.
func (b *backend) apply(ops []op, alone bool) error {
	c := &cursor{b: b, fd: -1}
	if !alone {
		c.later = b.session
	}
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
		return errNoDirectory(err)
	}
	switch o.kind {
	case overlay.StepRemove:
		return b.remove(c, name, o)
	case overlay.StepOut:
		return b.out(c, name, o)
	case overlay.StepMkdir:
		return b.mkdir(c, name)
	case overlay.StepIn, overlay.StepPut, overlay.StepSymlink:
		return b.in(c, name, o)
	case stepGrow:
		return b.grow(c, name, o)
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

func errNoDirectory(err error) error {
	return fmt.Errorf("open directory: %w; make it again, then open the store again", err)
}

func (b *backend) mkdir(c *cursor, name string) error {
	err := b.disk.mkdir(c.fd, name, 0o777)
	if err == unix.EEXIST {
		st, err := lstatat(c.fd, name)
		if err != nil {
			return err
		}
		if kindOfMode(uint32(st.Mode)) == store.KindDir {
			c.dirty = true
			return nil
		}
		if err := b.setAside(c, name); err != nil {
			return err
		}
		return b.mkdir(c, name)
	}
	c.dirty = true
	return err
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
	if o.was.Kind == store.KindDir {
		err = b.disk.rmdir(c.fd, name)
	} else {
		err = b.disk.unlink(c.fd, name)
	}
	if err == unix.ENOTEMPTY || err == unix.EEXIST {
		return nil // the owner has put something in: the directory stays
	}
	if c.later != nil {
		c.later.loses(o.was.Version)
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
	if c.later != nil {
		c.later.left(o.path, o.slot)
	}
	return b.disk.rename(c.fd, name, b.stage, o.slot)
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
		return b.disk.unlink(b.stage, o.slot)
	}
	if err == nil && !(o.was.Kind != 0 && is(&st, o.was)) {
		// The owner made or changed this since the transaction looked: between
		// the last check and now, or between a crash and now. Theirs is kept.
		if err := b.setAside(c, name); err != nil {
			return err
		}
	}
	c.dirty = true
	if c.later != nil && o.isInline && o.was.Kind == store.KindFile && err == nil {
		err = b.replace(c, name, o)
	} else {
		err = b.disk.rename(b.stage, o.slot, c.fd, name)
	}
	// Noted when it is there, and not before: who makes things durable meanwhile
	// looks for it by its path, and would find what it replaces.
	switch {
	case c.later == nil || err != nil:
	case o.kind == overlay.StepIn:
		c.later.arrived(o.slot, o.path)
	case o.isInline:
		c.later.changed(c.path, o.path)
		c.later.makes(o.made)
	}
	return err
}

// grow writes what a file grows by, after all that it held. It is in the slot, at
// the same place. If the owner has changed the file since, it is kept beside.
func (b *backend) grow(c *cursor, name string, o op) error {
	src, err := openat(b.stage, o.slot, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil // done before
	}
	if err != nil {
		return err
	}
	end := os.NewFile(uintptr(src), o.slot)
	defer end.Close()
	f, err := openWritable(c.fd, name)
	if err != nil && !gone(err) {
		return err
	}
	at := o.off
	if err != nil || !b.begins(f, end, o) {
		if f != nil {
			f.Close()
		}
		if f, err = b.beside(c, name); err != nil {
			return err
		}
		at = 0
	}
	defer f.Close()
	buf := make([]byte, min(o.made.Size-o.off, 1<<20))
	for off := o.off; off < o.made.Size; {
		n, err := end.ReadAt(buf[:min(o.made.Size-off, int64(len(buf)))], off)
		if n == 0 && err != nil {
			return err
		}
		if err := b.disk.write(f, buf[:n], at+off-o.off); err != nil {
			return err
		}
		off += int64(n)
	}
	if at == o.off {
		if err := setTimes(c.fd, name, o.atime, o.mtime); err != nil {
			return err
		}
	}
	if err := b.disk.sync(int(f.Fd())); err != nil {
		return err
	}
	if err := b.disk.sync(c.fd); err != nil {
		return err
	}
	return b.disk.unlink(b.stage, o.slot)
}

func openWritable(dir int, name string) (*os.File, error) {
	fd, err := openat(dir, name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// begins reports whether a file is the one that a step makes grow, as it was or
// with some of the step done: what is behind its old end is what belongs there,
// or zeros, which a crash leaves.
func (b *backend) begins(f, end *os.File, o op) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	a := attrOf(&st)
	if a.Kind != o.was.Kind || a.Version.ID != o.was.Version.ID || a.Size < o.off || a.Size > o.made.Size {
		return false
	}
	if a.Size == o.off {
		return a.Version.Mtime == o.was.Version.Mtime || a.Version.Mtime == o.made.Mtime
	}
	have, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := o.off; off < a.Size; {
		n, err := f.ReadAt(have[:min(int64(len(have)), a.Size-off)], off)
		if n == 0 {
			return err == io.EOF
		}
		if k, _ := end.ReadAt(want[:n], off); k < n {
			return false
		}
		for i := range n {
			if have[i] != 0 && have[i] != want[i] {
				return false
			}
		}
		off += int64(n)
	}
	return true
}

// setAside renames what is in a commit's way.
func (b *backend) setAside(c *cursor, name string) error {
	aside, err := c.free(name)
	if err != nil {
		return err
	}
	c.dirty = true
	return b.disk.rename(c.fd, name, c.fd, aside)
}

// beside makes an empty file beside a name.
func (b *backend) beside(c *cursor, name string) (*os.File, error) {
	aside, err := c.free(name)
	if err != nil {
		return nil, err
	}
	c.dirty = true
	return b.disk.create(c.fd, aside, 0o666)
}

// free finds a name that is not taken, for what cannot have its own.
func (c *cursor) free(name string) (string, error) {
	const room = 255 - len(".conflict-999")
	for i := 1; i < 1000; i++ {
		aside := fmt.Sprintf("%s.conflict-%d", name[:min(len(name), room)], i)
		if _, err := lstatat(c.fd, aside); err == unix.ENOENT {
			return aside, nil
		}
	}
	return "", fmt.Errorf("keep what is at /%s beside: every name for it is taken; move it away and open the store again", path.Join(c.path, name))
}
