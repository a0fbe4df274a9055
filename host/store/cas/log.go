package cas

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/circles-host/circles/host/store"
)

// HasKey implements overlay.Backend. Transactions ask their snapshot.
func (b *backend) HasKey(key store.Key) bool {
	s, err := b.current()
	return err == nil && (&snapshot{state: s, ctx: context.Background(), b: b}).HasKey(key)
}

// Head implements overlay.Header.
func (b *backend) Head() (seq uint64, hash [32]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.logSeq, b.state.logHash
}

// LogBytes implements overlay.LogCounter.
func (b *backend) LogBytes(context.Context, uint64) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return plausible(b.state.logBytes), nil
}

// plausible is a sum that an enemy may have written.
func plausible(sum int64) int64 {
	if sum < 0 {
		return math.MaxInt64 / 4
	}
	return min(sum, math.MaxInt64/4)
}

// Entry implements overlay.Backend. What is in the log stays in it, so the bucket is
// only asked for a key that was not seen yet.
func (b *backend) Entry(ctx context.Context, key store.Key) (store.Entry, bool, error) {
	s, err := b.current()
	if err != nil {
		return store.Entry{}, false, err
	}
	for range 2 {
		on := &snapshot{state: s, ctx: ctx, b: b}
		e, ok, err := on.entry(key)
		if ok || err != nil && !errors.Is(err, store.ErrConflict) {
			return e, ok, err
		}
		was := s
		if s, err = b.refresh(ctx); err != nil {
			return store.Entry{}, false, err
		}
		if s == was {
			break
		}
	}
	return store.Entry{}, false, nil
}

func (s *snapshot) entry(key store.Key) (store.Entry, bool, error) {
	val, err := s.log.get(s.ctx, s.b.bucket, keyKey(key))
	if err != nil || val == nil {
		return store.Entry{}, false, s.fail(err)
	}
	seq, err := decodeSeq(val)
	if err != nil {
		return store.Entry{}, false, &DamageError{What: "the table of the log", Err: err}
	}
	val, err = s.log.get(s.ctx, s.b.bucket, entryKey(seq))
	if err != nil {
		return store.Entry{}, false, s.fail(err)
	}
	e, err := s.decodeEntry(entry{entryKey(seq), val})
	if err == nil && e.Key != key {
		err = &DamageError{What: "the table of the log", Err: fmt.Errorf("entry %d is not that of its key", seq)}
	}
	return e, err == nil, err
}

func (s *snapshot) decodeEntry(from entry) (store.Entry, error) {
	l, size, err := decodeLogged(from)
	if err != nil || l.Seq > s.logSeq {
		return store.Entry{}, &DamageError{What: "the table of the log", Err: fmt.Errorf("entry %d: %w", l.Seq, errMalformed)}
	}
	// The pieces were decoded before: a few bytes cannot claim a large entry, unless
	// they name one blob again and again.
	l.Data = make([]byte, size)
	return l.Entry, s.fail(s.b.bucket.read(s.ctx, l.data, l.Data, 0))
}

// Log implements overlay.Backend. It yields the entries that there were when the loop
// began, and sees that each follows from the one before.
func (b *backend) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		fail := func(err error) { yield(store.Entry{}, fmt.Errorf("read log: %w", err)) }
		state, err := b.refresh(ctx)
		if err != nil {
			fail(err)
			return
		}
		s := &snapshot{state: state, ctx: ctx, b: b}
		next, prev := max(from, 1), [32]byte{}
		goesOn := true
		if next <= s.logSeq {
			err = s.log.scan(ctx, b.bucket, []byte{'e'}, entryKey(next), func(at entry) (bool, error) {
				if ctx.Err() != nil {
					return false, context.Cause(ctx)
				}
				e, err := s.decodeEntry(at)
				if err != nil {
					return false, err
				}
				if e.Seq != next || (next == 1 || next > from) && e.Prev != prev {
					return false, &DamageError{What: "the log", Err: fmt.Errorf("entry %d does not follow from what is before it", e.Seq)}
				}
				next, prev = next+1, e.Hash()
				if e.Seq == s.logSeq && prev != s.logHash {
					return false, &DamageError{What: "the log", Err: fmt.Errorf("entry %d is not the one that was the last", e.Seq)}
				}
				goesOn = yield(e, nil)
				return goesOn, nil
			})
		}
		switch {
		case err != nil:
			fail(s.fail(err))
		case goesOn && next <= s.logSeq:
			fail(&DamageError{What: "the log", Err: fmt.Errorf("entry %d of %d is missing", next, s.logSeq)})
		}
	}
}
