package overlay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
)

// Config is for New. The zero value works.
type Config struct {
	Limits Limits
	Now    func() time.Time // default time.Now
}

// Store is a store.Store on a backend.
//
// Views run side by side, and beside one update, on the committed state; a
// commit waits for the views that run and holds up new ones while it is applied.
// So a View must not wait for an Update of the same store, nor for another View
// of it, to end: only ctx would end that wait. On a Snapshotter commits and views
// do not wait for each other.
type Store struct {
	backend   Backend
	snapshots Snapshotter // the backend, if it is one
	limits    Limits
	now       func() time.Time
	gate      *gate
	meter     meter

	mu     sync.Mutex
	broken error
}

var _ store.Store = (*Store)(nil)

// New makes a store of a backend, and owns it from then on.
func New(b Backend, c Config) *Store {
	if c.Now == nil {
		c.Now = time.Now
	}
	snapshots, _ := b.(Snapshotter)
	s := &Store{backend: b, snapshots: snapshots, limits: c.Limits.withDefaults(), now: c.Now, gate: newGate()}
	s.meter.life, s.meter.stop = context.WithCancel(context.Background())
	return s
}

// snapshot is what a transaction starts from. Without snapshots that is the
// backend itself, which the gate keeps from changing meanwhile.
func (s *Store) snapshot(ctx context.Context) (Snapshot, error) {
	if s.snapshots == nil {
		if l, ok := s.backend.(Looker); ok {
			return l.Look(), nil
		}
		return still{s.backend}, nil
	}
	return s.snapshots.Snapshot(ctx)
}

type still struct{ Backend }

func (still) Release() {}

// View implements store.Store.
func (s *Store) View(ctx context.Context, f func(store.Tx) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.gate.beginView(ctx); err != nil {
		return fmt.Errorf("begin view: %w", err)
	}
	defer s.gate.endView()
	t, err := newTx(ctx, s, true)
	if err != nil {
		return fmt.Errorf("begin view: %w", err)
	}
	defer t.end()
	if err := f(t); err != nil {
		return err
	}
	if len(t.records) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("commit log entries: %w", context.Cause(ctx))
	}
	return s.commit(ctx, nil, t)
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, f func(store.Tx) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.gate.beginUpdate(ctx); err != nil {
		return fmt.Errorf("begin update: %w", err)
	}
	defer s.gate.endUpdate()
	if err := s.usable(); err != nil { // the update we waited for may have broken it
		return err
	}
	t, err := newTx(ctx, s, false)
	if err != nil {
		return fmt.Errorf("begin update: %w", err)
	}
	s.foreign(t.lower)
	defer t.end() // rolls back, also when f panics
	if err := f(t); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("begin commit: %w", context.Cause(ctx))
	}
	t.closeHandles()
	plan, err := t.plan()
	if err != nil {
		return fmt.Errorf("plan commit: %w", err)
	}
	if len(plan.Steps) == 0 {
		if len(t.records) == 0 {
			return nil
		}
		// Where several hosts commit, what it saw must still be so: it might not have
		// left the files alone otherwise.
		if s.snapshots == nil {
			return s.commit(ctx, nil, t)
		}
	}
	decided := false
	defer func() {
		if decided {
			plan.release() // the staged content is the backend's now
		} else {
			s.backend.Abandon(plan)
		}
	}()
	if err := s.backend.Prepare(ctx, plan); err != nil {
		return fmt.Errorf("prepare commit: %w", err)
	}
	if s.snapshots == nil {
		if err := s.gate.beginApply(ctx); err != nil {
			return fmt.Errorf("wait for views to end before commit: %w", err)
		}
		defer s.gate.endApply()
	}
	err = s.commit(ctx, plan, t)
	decided = err == nil || errors.Is(err, ErrBroken)
	return err
}

func (s *Store) commit(ctx context.Context, p *Plan, t *Tx) error {
	now := s.now().UTC()
	for i := range t.records {
		if r := &t.records[i]; r.Time.IsZero() {
			r.Time = now
		}
	}
	if len(t.records) == 0 {
		if err := s.unlogged(); err != nil {
			return err
		}
	}
	s.meter.quiet.RLock()
	defer s.meter.quiet.RUnlock()
	err := s.backend.Commit(ctx, p, t.records)
	if err == nil {
		s.book(t.delta)
	}
	if errors.Is(err, ErrBroken) {
		s.mu.Lock()
		s.broken = err
		s.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func (s *Store) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return fmt.Errorf("an earlier commit was not wholly applied: %w", s.broken)
	}
	return nil
}

// Entry implements store.Store.
func (s *Store) Entry(ctx context.Context, key store.Key) (store.Entry, bool, error) {
	return s.backend.Entry(ctx, key)
}

// Log implements store.Store.
func (s *Store) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return s.backend.Log(ctx, from)
}

// Close implements store.Store. A second Close does nothing.
func (s *Store) Close() error {
	s.meter.stop()
	if !s.gate.close() {
		return nil
	}
	s.remember()
	return s.backend.Close()
}

// Widen raises limits that the store has for each transaction; what is narrower,
// or zero, stays as it is. It is for those who carry what is there already, and is
// called before anything else.
func (s *Store) Widen(l store.Limits) {
	s.limits.StagedBytes = max(s.limits.StagedBytes, l.Bytes)
	s.limits.FileSize = max(s.limits.FileSize, l.FileSize)
	s.limits.Entries = max(s.limits.Entries, l.Entries)
	s.limits.OpenFiles = max(s.limits.OpenFiles, l.Handles)
	s.limits.Listed = max(s.limits.Listed, l.Listed)
}
