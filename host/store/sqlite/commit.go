package sqlite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// Prepare implements overlay.Backend. It applies the plan in a transaction of
// SQLite's and leaves that open: views go on reading what was committed before,
// and wait for no more than its end.
func (b *backend) Prepare(ctx context.Context, p *overlay.Plan) error {
	b.write.Lock()
	defer b.write.Unlock()
	if err := b.begin(); err != nil {
		return err
	}
	if err := b.do(func(c *conn) error { return b.applyPlan(ctx, c, p) }); err != nil {
		return err
	}
	b.prepared = p
	return nil
}

// Abandon implements overlay.Backend.
func (b *backend) Abandon(p *overlay.Plan) {
	b.write.Lock()
	defer b.write.Unlock()
	if b.prepared == p {
		_ = b.unprepare()
	}
}

// unprepare gives up what Prepare did.
func (b *backend) unprepare() error {
	b.prepared = nil
	return b.rollback()
}

// Commit implements overlay.Backend.
func (b *backend) Commit(ctx context.Context, p *overlay.Plan, records []overlay.Record) error {
	if p == nil {
		return b.appendOnly(records)
	}
	b.write.Lock()
	defer b.write.Unlock()
	if b.prepared != p { // a view's entries could not wait for us
		if err := b.begin(); err != nil {
			return err
		}
		if err := b.do(func(c *conn) error { return b.applyPlan(context.WithoutCancel(ctx), c, p) }); err != nil {
			return err
		}
	}
	b.prepared = nil
	if err := b.do(func(c *conn) error { return b.insert(c, records) }); err != nil {
		return err
	}
	if err := b.commit(); err != nil {
		return err
	}
	b.dirs.clear()
	for _, s := range p.Steps {
		if s.Kind == overlay.StepPut {
			s.File.Discard()
		}
	}
	return nil
}

func (b *backend) applyPlan(ctx context.Context, c *conn, p *overlay.Plan) error {
	if err := b.expect(c, p); err != nil {
		return err
	}
	return b.apply(ctx, c, p)
}

// The four below are a transaction of SQLite's. Their caller holds b.write.

func (b *backend) begin() error {
	switch {
	case b.broken != nil:
		return b.broken
	case b.conn == nil:
		return store.ErrClosed
	}
	b.next = b.tail
	return b.do(func(c *conn) error { return c.exec("BEGIN IMMEDIATE") })
}

// do runs f in the transaction, and ends that if f fails.
func (b *backend) do(f func(*conn) error) error {
	err := guarded(func() error { return f(b.conn) })
	if err == nil {
		return nil
	}
	undone := b.rollback()
	err = b.explain(err)
	switch {
	case undone != nil:
		return fmt.Errorf("%w; and could not undo it: %w", err, undone)
	case errors.Is(err, errTrap): // nobody knows what state the connection is in
		return b.breaks(err)
	}
	return err
}

func (b *backend) rollback() error {
	err := guarded(func() error {
		if b.conn.db.GetAutocommit() { // SQLite has done so by itself
			return nil
		}
		return b.conn.exec("ROLLBACK")
	})
	if err != nil {
		return b.breaks(b.explain(err))
	}
	return nil
}

// commit makes the transaction durable: with synchronous = FULL, COMMIT has
// waited for the disk.
func (b *backend) commit() error {
	err := guarded(func() error { return b.conn.exec("COMMIT") })
	if err == nil {
		b.tails.Lock()
		b.tail = b.next
		b.tails.Unlock()
		return nil
	}
	undone := b.rollback()
	err = b.explain(err)
	if undone == nil && (errors.Is(err, sqlite3.FULL) || errors.Is(err, sqlite3.BUSY)) {
		return err
	}
	// The commit may be in the -wal file, whole, and only the wait for the disk
	// have failed. Whether it is, is seen when the file is read again; until then
	// nothing may be built on either answer.
	return b.breaks(err)
}

// breaks says that the store must be opened again, and keeps to it.
func (b *backend) breaks(err error) error {
	b.broken = fmt.Errorf("%w: %w", overlay.ErrBroken, err)
	return b.broken
}

// insert appends log entries.
func (b *backend) insert(c *conn, records []overlay.Record) error {
	if len(records) == 0 {
		return nil
	}
	last, err := c.int(`SELECT max(seq) FROM log`)
	if err != nil {
		return err
	}
	if uint64(last) != b.next.seq {
		return &DamageError{File: b.path, Err: fmt.Errorf("the log ended at entry %d, and another program has changed that to %d", b.next.seq, last)}
	}
	for _, r := range records {
		if has, err := hasKey(c, r.Key); err != nil {
			return err
		} else if has {
			return keyExists(r.Key)
		}
		ns := nanoseconds(r.Time)
		e := store.Entry{Seq: b.next.seq + 1, Prev: b.next.hash, Time: fromNanoseconds(ns), Key: r.Key, Data: r.Data}
		if err := c.exec(`INSERT INTO log (seq, prev, time, key, data) VALUES (?, ?, ?, ?, ?)`,
			int64(e.Seq), e.Prev[:], ns, e.Key[:], e.Data); err != nil {
			return err
		}
		b.next = tail{e.Seq, e.Hash()}
	}
	return nil
}

// expect checks that the committed state is what the plan was made for. Only
// another program can have changed it.
func (b *backend) expect(c *conn, p *overlay.Plan) error {
	for _, e := range p.Expect {
		n, err := b.dirs.find(c, e.Path)
		if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) {
			n, err = node{}, nil
		}
		if err != nil {
			return err
		}
		if e.Attr.Kind == 0 {
			if n.attr.Kind != 0 {
				return conflict(e.Path)
			}
			continue
		}
		if !n.attr.Same(e.Attr) {
			return conflict(e.Path)
		}
		if !e.IsOnly {
			continue
		}
		more := false
		if err := c.rows(`SELECT name FROM node WHERE parent = ?`, func(s *sqlite3.Stmt) bool {
			_, known := slices.BinarySearch(e.Only, string(s.ColumnRawBlob(0)))
			more = more || !known
			return !more
		}, n.id); err != nil {
			return err
		}
		if more {
			return conflict(e.Path)
		}
	}
	return nil
}

func conflict(path string) error {
	return fmt.Errorf("%w: another program changed %q in the database; run the script again", store.ErrConflict, path)
}

// applier applies a plan. A file whose content is wanted again (staged over it)
// is parked when it leaves: its row becomes the one that is put.
type applier struct {
	ctx     context.Context
	c       *conn
	dirs    dirCache // the paths as the steps change them
	now     int64
	slots   []int64
	wanted  map[int64]bool // bases that are not put yet
	parked  map[int64]bool
	kept    map[int64]bool // of wanted: those that are to stay as they are, elsewhere
	changed map[int64]bool // directories in which names changed
}

func (b *backend) apply(ctx context.Context, c *conn, p *overlay.Plan) error {
	a := &applier{
		ctx: ctx, c: c, now: nanoseconds(b.now()), slots: make([]int64, p.Slots),
		wanted: map[int64]bool{}, parked: map[int64]bool{}, kept: map[int64]bool{}, changed: map[int64]bool{},
	}
	for _, s := range p.Steps {
		if s.Kind == overlay.StepPut {
			if f := s.File.(*staged); f.base != nil {
				a.wanted[f.base.id] = true
			}
		}
	}
	times := len(p.Steps)
	for times > 0 && p.Steps[times-1].Kind == overlay.StepTimes {
		times--
	}
	for _, s := range p.Steps[:times] {
		if err := a.step(s); err != nil {
			return fmt.Errorf("apply change to %q: %w", s.Path, err)
		}
	}
	if len(a.parked) > 0 {
		return errors.New("the plan moves out what it does not move in")
	}
	for id := range a.changed {
		if err := c.exec(`UPDATE node SET mtime = ?, ctime = ? WHERE id = ?`, a.now, a.now, id); err != nil {
			return err
		}
	}
	for _, s := range p.Steps[times:] {
		n, err := a.dirs.find(c, s.Path)
		if err == nil {
			err = c.exec(`UPDATE node SET atime = ?, mtime = ?, ctime = ? WHERE id = ?`,
				nanoseconds(s.Atime), nanoseconds(s.Mtime), a.now, n.id)
		}
		if err != nil {
			return fmt.Errorf("set times of %q: %w", s.Path, err)
		}
	}
	return nil
}

func (a *applier) step(s overlay.Step) error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	dir, name := split(s.Path)
	parent, err := a.dirs.resolve(a.c, dir)
	if err != nil {
		return err
	}
	n, found, err := lookup(a.c, parent, name)
	if err != nil {
		return err
	}
	a.changed[parent] = true
	isDir := found && n.attr.Kind == store.KindDir
	if isDir && (s.Kind == overlay.StepRemove || s.Kind == overlay.StepOut) {
		a.dirs.clear() // paths through it lead elsewhere now
	}
	switch s.Kind {
	case overlay.StepRemove, overlay.StepOut:
		if !found {
			return conflict(s.Path)
		}
		if s.Kind == overlay.StepOut {
			a.slots[s.Slot] = n.id
			if a.wanted[n.id] {
				a.kept[n.id] = true
			}
			return a.park(n)
		}
		return a.vacate(n)
	}
	// What comes in takes the place of anything but a directory.
	if isDir {
		return conflict(s.Path)
	}
	base := int64(0)
	if s.Kind == overlay.StepPut {
		if f := s.File.(*staged); f.base != nil {
			base = f.base.id
		}
	}
	if found && n.id != base {
		if err := a.vacate(n); err != nil {
			return err
		}
	}
	switch s.Kind {
	case overlay.StepMkdir:
		return a.insert(parent, name, store.KindDir, 0, a.now, a.now, nil)
	case overlay.StepSymlink:
		return a.insert(parent, name, store.KindLink, int64(len(s.Target)), a.now, a.now, []byte(s.Target))
	case overlay.StepIn:
		a.dirs.clear()
		id := a.slots[s.Slot]
		delete(a.parked, id)
		return a.c.exec(`UPDATE node SET parent = ?, name = ?, ctime = ? WHERE id = ?`, parent, []byte(name), a.now, id)
	case overlay.StepPut:
		return a.put(s, parent, name, base)
	}
	return fmt.Errorf("step of unknown kind %d", s.Kind)
}

func (a *applier) insert(parent int64, name string, kind store.Kind, size, atime, mtime int64, target []byte) error {
	if kind == store.KindLink {
		return a.c.exec(`INSERT INTO node (parent, name, kind, size, atime, mtime, ctime, edits, target) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)`,
			parent, []byte(name), int64(kind), size, atime, mtime, a.now, target)
	}
	return a.c.exec(`INSERT INTO node (parent, name, kind, size, atime, mtime, ctime, edits) VALUES (?, ?, ?, ?, ?, ?, ?, 0)`,
		parent, []byte(name), int64(kind), size, atime, mtime, a.now)
}

// park takes an entry out of the tree until a later step puts it back: no
// directory has a negative id.
func (a *applier) park(n node) error {
	a.parked[n.id] = true
	return a.c.exec(`UPDATE node SET parent = ?, name = x'' WHERE id = ?`, -n.id, n.id)
}

// vacate removes an entry, or parks it if its content is wanted.
func (a *applier) vacate(n node) error {
	switch {
	case a.wanted[n.id]:
		return a.park(n)
	case n.attr.Kind == store.KindDir:
		if some, err := a.c.row(`SELECT 1 FROM node WHERE parent = ?`, func(*sqlite3.Stmt) {}, n.id); err != nil {
			return err
		} else if some {
			return store.ErrNotEmpty
		}
	case n.attr.Kind == store.KindFile:
		if err := a.cut(n.id, 0); err != nil {
			return err
		}
	}
	return a.c.exec(`DELETE FROM node WHERE id = ?`, n.id)
}

// cut removes a file's chunks from place at on.
func (a *applier) cut(id, at int64) error {
	return a.c.exec(`DELETE FROM chunk WHERE id BETWEEN ? AND ?`, chunkID(id, at), chunkID(id, 1<<chunkBits-1))
}

// put puts a staged file at a name. Over a base it writes what changed, so that
// appending to a file costs what is appended.
func (a *applier) put(s overlay.Step, parent int64, name string, base int64) error {
	f := s.File.(*staged)
	id := base
	if id == 0 || a.kept[id] {
		if err := a.insert(parent, name, store.KindFile, s.Size, nanoseconds(s.Atime), nanoseconds(s.Mtime), nil); err != nil {
			return err
		}
		id = a.c.db.LastInsertRowID()
		if base != 0 {
			if err := a.copy(base, id, f); err != nil {
				return err
			}
		}
	} else {
		delete(a.wanted, id)
		delete(a.parked, id)
		n, found, err := byID(a.c, id)
		if err != nil {
			return err
		}
		if !found || n.attr.Kind != store.KindFile {
			return conflict(s.Path)
		}
		if err := a.c.exec(`UPDATE node SET parent = ?, name = ?, size = ?, atime = ?, mtime = ?, ctime = ?, edits = edits + 1 WHERE id = ?`,
			parent, []byte(name), s.Size, nanoseconds(s.Atime), nanoseconds(s.Mtime), a.now, id); err != nil {
			return err
		}
		if f.baseLen < n.attr.Size {
			if err := a.cut(id, (f.baseLen+chunkSize-1)/chunkSize); err != nil {
				return err
			}
			if at, rest := f.baseLen/chunkSize, f.baseLen%chunkSize; rest > 0 && f.chunks[at] == nil {
				if err := a.c.exec(`UPDATE chunk SET data = substr(data, 1, ?) WHERE id = ?`, rest, chunkID(id, at)); err != nil {
					return err
				}
			}
		}
	}
	return a.write(id, f)
}

// copy gives a file what of its base is in it: chunks that are replaced are not
// copied.
func (a *applier) copy(base, id int64, f *staged) error {
	for at := range (f.baseLen + chunkSize - 1) / chunkSize {
		if f.chunks[at] != nil {
			continue
		}
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		if err := a.c.exec(`INSERT INTO chunk (id, data) SELECT ?, substr(data, 1, ?) FROM chunk WHERE id = ?`,
			chunkID(id, at), min(chunkSize, f.baseLen-at*chunkSize), chunkID(base, at)); err != nil {
			return err
		}
	}
	return nil
}

// write replaces the chunks of a file that were written.
func (a *applier) write(id int64, f *staged) error {
	buf := make([]byte, chunkSize)
	for _, at := range slices.Sorted(maps.Keys(f.chunks)) {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		c := f.chunks[at]
		if c.size == 0 {
			if err := a.c.exec(`DELETE FROM chunk WHERE id = ?`, chunkID(id, at)); err != nil {
				return err
			}
			continue
		}
		if err := f.s.readAt(c.slot, buf[:c.size], 0); err != nil {
			return err
		}
		if err := a.c.exec(`INSERT OR REPLACE INTO chunk (id, data) VALUES (?, ?)`, chunkID(id, at), buf[:c.size]); err != nil {
			return err
		}
	}
	return nil
}
