package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// inlineBudget bounds the contents that one commit keeps in its tables instead of in
// blobs, in bytes: they are in memory until it is done.
const inlineBudget = 2 << 20

// prepared is a plan as changes of the files' table, whose contents have been put.
type prepared struct {
	plan    *overlay.Plan
	changes []entry
	nextIno uint64
	bytes   int64 // so many more than before
	entries int64
}

// Prepare implements overlay.Backend: it puts the contents of files, and works out
// what becomes of the table.
func (b *backend) Prepare(ctx context.Context, p *overlay.Plan) error {
	base := p.Base.(*snapshot)
	w := b.bucket.writer(base.epoch)
	pack := &packer{w: w, ctx: ctx}
	budget := inlineBudget
	for _, s := range p.Steps {
		if s.Kind == overlay.StepPut {
			if err := s.File.(*staged).prepare(base, pack, s.Size, &budget); err != nil {
				return base.fail(err)
			}
		}
	}
	if err := pack.seal(); err != nil {
		return err
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	a := &applier{
		ctx: ctx, s: base, now: nanoseconds(b.now()), changes: map[string][]byte{}, nextIno: base.nextIno,
		slots: make([]node, p.Slots), where: map[uint64][]byte{}, changed: map[uint64]bool{}, wanted: map[uint64]bool{}, taken: map[uint64]bool{},
	}
	if err := a.apply(p); err != nil {
		return err
	}
	changes := make([]entry, 0, len(a.changes))
	for _, key := range slices.Sorted(maps.Keys(a.changes)) {
		changes = append(changes, entry{[]byte(key), a.changes[key]})
	}
	b.prepared = &prepared{p, changes, a.nextIno, a.bytes, a.entries}
	return nil
}

// Abandon implements overlay.Backend. What was put is garbage now.
func (b *backend) Abandon(*overlay.Plan) { b.prepared = nil }

// prepare works out the chunks of a staged file that will be of that size, and puts
// what is not given inline into blobs.
func (f *staged) prepare(base *snapshot, pack *packer, size int64, budget *int) error {
	f.ready = map[int64][]piece{}
	places := slices.Sorted(maps.Keys(f.chunks))
	if f.base != nil && f.baseLen < f.base.size && f.baseLen%chunkSize > 0 && f.chunks[f.baseLen/chunkSize] == nil {
		places = append(places, f.baseLen/chunkSize) // it is cut
	}
	for _, at := range places {
		if err := pack.ctx.Err(); err != nil {
			return context.Cause(pack.ctx)
		}
		pieces, err := f.pieces(base, at, int(min(chunkSize, size-at*chunkSize)))
		if err != nil {
			return err
		}
		raw := 0
		for _, p := range pieces {
			raw += len(p.raw)
		}
		if raw > maxInline || raw > *budget || len(pieces) > maxPieces {
			if pieces, err = base.b.bucket.gather(pack.ctx, pieces); err != nil {
				return err
			}
			for i := range pieces {
				if pieces[i].raw != nil {
					if err := pack.add(pieces, i); err != nil {
						return err
					}
				}
			}
		} else {
			*budget -= raw
		}
		f.ready[at] = pieces
	}
	return nil
}

// pieces are those of a chunk, of size bytes at most: what was written in it, and
// between that what was there. Zeros at the end are left out.
func (f *staged) pieces(base *snapshot, at int64, size int) ([]piece, error) {
	var old, out []piece
	if have := int(min(f.baseLen-at*chunkSize, int64(size))); have > 0 {
		var err error
		if old, err = base.chunk(f.base.ino, at); err != nil {
			return nil, err
		}
		old = cut(old, 0, have)
	}
	done := 0
	fill := func(to int) {
		if to > done {
			was := cut(old, done, to)
			out = append(out, was...)
			if n := to - done - length(was); n > 0 {
				out = append(out, piece{n: n})
			}
			done = to
		}
	}
	if c := f.chunks[at]; c != nil {
		for _, s := range c.spans {
			if s.to = min(s.to, size); s.from >= s.to {
				break
			}
			fill(s.from)
			raw := make([]byte, s.to-s.from)
			if err := f.s.readAt(c, raw, s.from); err != nil {
				return nil, err
			}
			if n := len(out); n > 0 && out[n-1].raw != nil {
				raw = slices.Concat(out[n-1].raw, raw)
				out = out[:n-1]
			}
			out = append(out, piece{n: len(raw), raw: raw})
			done = s.to
		}
	}
	fill(max(done, length(old)))
	for len(out) > 0 && out[len(out)-1].raw == nil && out[len(out)-1].blob.Epoch == 0 {
		out = out[:len(out)-1]
	}
	return out, nil
}

// gather makes of many pieces fewer, by reading what is beside those that are written
// anyway: a neighbour that is no longer than they are. So a file to which a little is
// appended each time has, like a binary counter has digits, few pieces, and each byte
// is written a few times over. Should there still be too many, one is made of all.
func (b *bucket) gather(ctx context.Context, pieces []piece) ([]piece, error) {
	var out []piece
	for _, p := range pieces {
		for n := len(out); n > 0 && p.raw != nil; n = len(out) {
			before := out[n-1]
			if before.raw == nil && (before.n > p.n || before.blob.Epoch == 0) {
				break
			}
			if err := b.fetch(ctx, &before); err != nil {
				return nil, err
			}
			p.raw = slices.Concat(before.raw, p.raw)
			p.n, out = len(p.raw), out[:n-1]
		}
		if n := len(out); n > 0 && out[n-1].raw != nil && p.raw == nil && p.blob.Epoch > 0 && p.n <= out[n-1].n {
			if err := b.fetch(ctx, &p); err != nil {
				return nil, err
			}
			raw := slices.Concat(out[n-1].raw, p.raw)
			out[n-1] = piece{n: len(raw), raw: raw}
			continue
		}
		out = append(out, p)
	}
	if len(out) <= maxPieces {
		return out, nil
	}
	whole := piece{n: length(out)}
	whole.raw = make([]byte, whole.n)
	if err := b.read(ctx, out, whole.raw, 0); err != nil {
		return nil, err
	}
	return []piece{whole}, nil
}

func (b *bucket) fetch(ctx context.Context, p *piece) error {
	if p.raw != nil {
		return nil
	}
	raw := make([]byte, p.n)
	if err := b.read(ctx, []piece{*p}, raw, 0); err != nil {
		return err
	}
	p.raw = raw
	return nil
}

// applier applies a plan's steps to the files' table of one state. That state is the
// one that the plan was made for, so nothing can stand in its way but a mistake.
type applier struct {
	ctx     context.Context
	s       *snapshot
	now     int64
	changes map[string][]byte // by key; nil: gone
	nextIno uint64
	bytes   int64 // so many more than before
	entries int64
	slots   []node
	where   map[uint64][]byte // the keys of directories that were met
	changed map[uint64]bool   // directories in which names changed
	wanted  map[uint64]bool   // files that are put over what they were, wherever that is
	taken   map[uint64]bool   // of those: they stay as they are elsewhere, or have been put
}

func (a *applier) apply(p *overlay.Plan) error {
	for _, s := range p.Steps {
		if s.Kind == overlay.StepPut {
			if f := s.File.(*staged); f.base != nil {
				a.wanted[f.base.ino] = true
			}
		}
	}
	for _, s := range p.Steps {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		if s.Kind == overlay.StepTimes {
			continue // they are the last, and come after the times that changes leave
		}
		if err := a.step(s); err != nil {
			return fmt.Errorf("apply change to %q: %w", s.Path, err)
		}
	}
	for ino := range a.changed {
		key := a.where[ino]
		if key == nil {
			continue // it is gone
		}
		n, err := a.get(key)
		if err != nil {
			return err
		}
		n.mtime, n.ctime = a.now, a.now
		a.changes[string(key)] = n.encode()
	}
	for _, s := range p.Steps {
		if s.Kind != overlay.StepTimes {
			continue
		}
		key, n, err := a.find(s.Path)
		if err != nil {
			return fmt.Errorf("set times of %q: %w", s.Path, err)
		}
		n.atime, n.mtime, n.ctime = nanoseconds(s.Atime), nanoseconds(s.Mtime), a.now
		a.changes[string(key)] = n.encode()
	}
	return nil
}

func (a *applier) get(key []byte) (node, error) {
	val, ok := a.changes[string(key)]
	switch {
	case !ok:
		return a.s.get(key)
	case val == nil:
		return node{}, store.ErrNotExist
	}
	return decodeNode(val)
}

// find resolves a path as the steps have changed it.
func (a *applier) find(path string) (key []byte, n node, err error) {
	key = nodeKey(0, "")
	if n, err = a.get(key); err != nil || path == "." {
		return key, n, err
	}
	for name := range strings.SplitSeq(path, "/") {
		if n.kind != store.KindDir {
			return nil, node{}, store.ErrNotDir
		}
		a.where[n.ino] = key
		key = nodeKey(n.ino, name)
		if n, err = a.get(key); err != nil {
			return key, node{}, err
		}
	}
	return key, n, nil
}

func (a *applier) step(s overlay.Step) error {
	dir, name := ".", s.Path
	if i := strings.LastIndexByte(s.Path, '/'); i >= 0 {
		dir, name = s.Path[:i], s.Path[i+1:]
	}
	dirKey, parent, err := a.find(dir)
	if err != nil {
		return err
	}
	if parent.kind != store.KindDir {
		return store.ErrNotDir
	}
	a.where[parent.ino] = dirKey
	a.changed[parent.ino] = true
	key := nodeKey(parent.ino, name)
	n, err := a.get(key)
	found := err == nil
	if err != nil && !errors.Is(err, store.ErrNotExist) {
		return err
	}
	if s.Kind == overlay.StepRemove || s.Kind == overlay.StepOut {
		if !found {
			return store.ErrNotExist
		}
		a.changes[string(key)] = nil
		a.count(n, -1)
		delete(a.where, n.ino)
		if s.Kind == overlay.StepOut {
			a.slots[s.Slot] = n
			a.taken[n.ino] = true
			return nil
		}
		return a.vacate(n)
	}
	if found && n.kind == store.KindDir {
		return store.ErrExists
	}
	fresh := node{ino: a.nextIno, atime: a.now, mtime: a.now, ctime: a.now}
	switch s.Kind {
	case overlay.StepMkdir:
		fresh.kind = store.KindDir
	case overlay.StepSymlink:
		if len(s.Target) > maxTarget {
			return store.ErrNameTooLong
		}
		fresh.kind, fresh.target, fresh.size = store.KindLink, s.Target, int64(len(s.Target))
	case overlay.StepIn:
		fresh = a.slots[s.Slot]
		fresh.ctime = a.now
	case overlay.StepPut:
		f := s.File.(*staged)
		if f.base != nil && !a.taken[f.base.ino] {
			fresh.ino, fresh.edits = f.base.ino, f.base.edits+1
			a.taken[fresh.ino] = true
		}
		fresh.kind, fresh.size, fresh.atime, fresh.mtime = store.KindFile, s.Size, nanoseconds(s.Atime), nanoseconds(s.Mtime)
		if err := a.contents(f, fresh.ino); err != nil {
			return err
		}
	default:
		return fmt.Errorf("step of unknown kind %d", s.Kind)
	}
	if fresh.ino == a.nextIno {
		a.nextIno++
	}
	a.count(fresh, 1)
	if found {
		a.count(n, -1)
		if n.ino != fresh.ino {
			if err := a.vacate(n); err != nil {
				return err
			}
		}
	}
	if fresh.kind == store.KindDir {
		a.where[fresh.ino] = key
	}
	a.changes[string(key)] = fresh.encode()
	return nil
}

// count counts a node that has come, or with -1 one that has gone.
func (a *applier) count(n node, by int64) {
	a.entries += by
	if n.kind == store.KindFile {
		a.bytes += by * n.size
	}
}

// contents gives a file the chunks of what was staged. Over its base only those that
// changed are written; beside it the others are named once more.
func (a *applier) contents(f *staged, ino uint64) error {
	if f.base != nil {
		rest := (f.baseLen + chunkSize - 1) / chunkSize // what was cut off and not written again is gone
		if ino != f.base.ino {
			if err := a.each(number('c', f.base.ino), number('c', f.base.ino), func(e entry) error {
				if bytes.Compare(e.key, chunkKey(f.base.ino, rest)) < 0 {
					a.changes[string(append(number('c', ino), e.key[1+8:]...))] = e.val
				}
				return nil
			}); err != nil {
				return err
			}
		} else if f.baseLen < f.base.size {
			if err := a.dropChunks(ino, rest); err != nil {
				return err
			}
		}
	}
	for at, pieces := range f.ready {
		var val []byte
		if len(pieces) > 0 {
			val = appendPieces(nil, pieces)
		}
		a.changes[string(chunkKey(ino, at))] = val
	}
	return nil
}

func (a *applier) dropChunks(ino uint64, from int64) error {
	return a.each(number('c', ino), chunkKey(ino, from), func(e entry) error {
		a.changes[string(e.key)] = nil
		return nil
	})
}

// each visits what the table had with a prefix before the plan.
func (a *applier) each(prefix, first []byte, visit func(entry) error) error {
	return a.s.fail(a.s.files.scan(a.ctx, a.s.b.bucket, prefix, first, func(e entry) (bool, error) { return true, visit(e) }))
}

// vacate frees what an entry held that is gone.
func (a *applier) vacate(n node) error {
	switch {
	case n.kind == store.KindFile && !a.wanted[n.ino]:
		return a.dropChunks(n.ino, 0)
	case n.kind == store.KindDir:
		prefix := nodeKey(n.ino, "")
		return a.each(prefix, prefix, func(e entry) error {
			if val, ok := a.changes[string(e.key)]; !ok || val != nil {
				return fmt.Errorf("%q is left in it: %w", bytes.TrimPrefix(e.key, prefix), store.ErrNotEmpty)
			}
			return nil
		})
	}
	return nil
}
