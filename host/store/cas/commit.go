package cas

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// maxLost is how often a commit may find that another worker was quicker, before it
// gives up: each time one of them has got on.
const maxLost = 200

// Commit implements overlay.Backend. See "Commits" in the package's documentation.
func (b *backend) Commit(ctx context.Context, p *overlay.Plan, records []overlay.Record) error {
	select { // one at a time from here: we should only be in our own way
	case b.committing <- struct{}{}:
		defer func() { <-b.committing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	base, err := b.current()
	if err != nil {
		return err
	}
	for lost := 0; ; lost++ {
		if p != nil {
			if on := p.Base.(*snapshot); base.filesGen != on.filesGen || base.epoch != on.epoch {
				return fmt.Errorf("%w: another worker committed first; run the script again", store.ErrConflict)
			}
		}
		next, err := b.build(ctx, base, p, records)
		if err == nil {
			err = b.swap(ctx, base, next)
		}
		switch {
		case err == nil:
			if p != nil {
				for _, s := range p.Steps {
					if s.Kind == overlay.StepPut {
						s.File.Discard()
					}
				}
				b.prepared = nil
			}
			return nil
		case errors.Is(err, store.ErrConflict) && p == nil: // pages of base are gone
		case !errors.Is(err, ErrLost):
			return err
		}
		if lost == maxLost {
			return fmt.Errorf("%w: other workers were quicker %d times; run the script again", store.ErrConflict, lost)
		}
		if lost > 0 {
			if err := pause(ctx, b.bucket.lag); err != nil {
				return err
			}
		}
		if base, err = b.refresh(ctx); err != nil {
			return err
		}
	}
}

// build makes the state that follows base, and puts all that it needs.
func (b *backend) build(ctx context.Context, base *state, p *overlay.Plan, records []overlay.Record) (*state, error) {
	next := base.next()
	on := &snapshot{state: base, ctx: ctx, b: b}
	w := b.bucket.writer(base.epoch)
	if p != nil && len(p.Steps) > 0 {
		var err error
		next.filesGen++
		next.nextIno = b.prepared.nextIno
		next.bytes += b.prepared.bytes
		next.entries += b.prepared.entries
		if next.files, err = base.files.with(ctx, w, b.prepared.changes); err != nil {
			return nil, on.fail(err)
		}
	}
	changes, err := b.entries(ctx, on, next, w, records)
	if err != nil {
		return nil, err
	}
	if next.log, err = base.log.with(ctx, w, changes); err != nil {
		return nil, on.fail(err)
	}
	return next, w.flush(ctx)
}

// entries makes the changes of the log's table, and counts next on.
func (b *backend) entries(ctx context.Context, on *snapshot, next *state, w *writer, records []overlay.Record) ([]entry, error) {
	pack := &packer{w: w, ctx: ctx}
	made := make([]logged, len(records))
	budget := inlineBudget
	for i, r := range records {
		val, err := on.log.get(ctx, b.bucket, keyKey(r.Key))
		if err != nil {
			return nil, on.fail(err)
		}
		if val != nil {
			return nil, fmt.Errorf("append log entry %x: %w", r.Key[:8], store.ErrExists)
		}
		l := &made[i]
		l.Entry = store.Entry{Seq: next.logSeq + 1, Prev: next.logHash, Time: r.Time, Key: r.Key, Data: r.Data}
		next.logSeq, next.logHash = l.Seq, l.Hash()
		next.logBytes += overlay.LogSize(len(l.Data))
		for part := range slices.Chunk(r.Data, MaxBlob) {
			l.data = append(l.data, piece{n: len(part), raw: part})
		}
		if n := len(r.Data); n <= maxInlineEntry && n <= budget {
			budget -= n
			continue
		}
		for i := range l.data {
			if err := pack.add(l.data, i); err != nil {
				return nil, err
			}
		}
	}
	if err := pack.seal(); err != nil {
		return nil, err
	}
	changes := make([]entry, 0, 2*len(made))
	for _, l := range made {
		changes = append(changes, entry{entryKey(l.Seq), l.encode()}, entry{keyKey(l.Key), number('e', l.Seq)[1:]})
	}
	slices.SortFunc(changes, func(x, y entry) int { return slices.Compare(x.key, y.key) })
	for i := 1; i < len(changes); i++ {
		if slices.Equal(changes[i-1].key, changes[i].key) {
			return nil, fmt.Errorf("append one log entry twice: %w", store.ErrExists)
		}
	}
	return changes, nil
}

// swap makes next the root, if that is still base, and learns whether it has. Its
// error is ErrLost, or store.ErrUnknown, or nothing was done.
//
// A request whose answer did not come may still be on its way. So the same one is
// made again, until there is an answer or the root is seen to have moved on: it is
// carried out once at most, since base is gone with the first.
func (b *backend) swap(ctx context.Context, base, next *state) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	data := next.encode()
	// From here on it is no longer for ctx to say that nothing has happened.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), b.settle, errSlow)
	defer cancel()
	for try := 0; ; try++ {
		var version Version
		err := b.bucket.once(ctx, func(ctx context.Context) (err error) {
			version, err = b.bucket.remote.SwapRoot(ctx, data, base.version)
			return err
		})
		if err == nil {
			next.version = version
			return b.install(next)
		}
		if errors.Is(err, ErrRefused) && try == 0 {
			return fmt.Errorf("swap the root: %w", err)
		}
		found, unread := b.bucket.load(ctx, nil)
		if unread == nil {
			yes, known := found.follows(next.id, base)
			switch {
			case yes:
				return b.install(found)
			case found.version == base.version:
				// It was not carried out, or not yet.
			case known:
				return fmt.Errorf("swap the root: %w", ErrLost)
			default:
				return fmt.Errorf("swap the root: %w: it was swapped more than %d times since (%w)", store.ErrUnknown, maxRecent, err)
			}
		}
		if pause(ctx, min(b.bucket.lag<<min(try, 6), b.settle/4)) != nil {
			return fmt.Errorf("swap the root: %w: %w", store.ErrUnknown, errors.Join(err, unread))
		}
	}
}

// current is the state that was seen last.
func (b *backend) current() (*state, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, store.ErrClosed
	}
	return b.state, nil
}

// refresh asks the bucket for its state.
func (b *backend) refresh(ctx context.Context) (*state, error) {
	was, err := b.current()
	if err != nil {
		return nil, err
	}
	found, err := b.bucket.load(ctx, was)
	if err != nil {
		return nil, err
	}
	if found != nil {
		if err := was.leads(found); err != nil {
			return nil, err
		}
		if err := b.install(found); err != nil {
			return nil, err
		}
	}
	return b.current()
}

// install takes a state that was found, unless a later one is known.
func (b *backend) install(s *state) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.gen > b.state.gen {
		b.state = s
	}
	return nil
}

// leads checks that a root which was loaded after s was known comes after it: a
// bucket that was set back, or that takes swaps whatever their condition, has lost
// what was acknowledged.
func (s *state) leads(found *state) error {
	ahead := int64(found.gen) - int64(s.gen)
	switch {
	case ahead == 0 && found.id == s.id:
		return nil
	case ahead < 0:
		return &DamageError{What: "the root", Err: fmt.Errorf("it went back from commit %d to commit %d", s.gen, found.gen)}
	case ahead == 0 || ahead <= int64(len(found.recent)) && found.recent[ahead-1] != s.id:
		return &DamageError{What: "the root", Err: fmt.Errorf("commit %d is missing from what led to commit %d", s.gen, found.gen)}
	}
	return nil
}
