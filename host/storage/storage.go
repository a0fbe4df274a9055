// Package storage opens the contexts of a root, each in the backend that its
// peer.toml names, and moves them from one backend to another.
//
//	contexts := storage.New(storage.Config{Find: backends, Quota: root.Config.Quota})
//	h, err := host.Open(ctx, root, host.Config{OpenStore: contexts.Open})
//
// # One live copy
//
// A context is where its peer.toml says, and that can change: Migrate copies it
// elsewhere and then puts another peer.toml in place. Whoever opens a context
// first locks the file context.lock in the peer's directory, shared for a backend
// that many hosts may write at once and alone for the others, and then reads
// peer.toml; Migrate holds that lock alone from before it reads the first byte
// until the new peer.toml is durable. So nobody writes where a context was, and
// what is read is not written at the same time. The lock is the kernel's, and goes
// when its holder dies, however it dies.
//
// It keeps away this machine only. Who migrates a context that other hosts reach
// too (s3, natsobj) stops them first; a commit of theirs in between is noticed
// before the switch, one after it is not.
package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/store"
)

// Backend is a way to keep contexts.
type Backend struct {
	// Open opens the context of e, and makes it if there is none. It is called by
	// one at a time for one context, unless Shared. An error that wraps ErrInUse
	// says that another process has it open.
	Open func(ctx context.Context, e peer.Entry) (store.Store, error)
	// Read opens the context of e for reading while somebody else may write it; it
	// changes nothing. nil: Open does, if the backend is Shared, and else nobody can.
	Read func(ctx context.Context, e peer.Entry) (store.Store, error)
	// Check says what is wrong with how it is set up, as far as that shows without
	// asking anybody. nil: nothing can be.
	Check func() error
	// Verify checks how e's context is kept, while nobody else has it open; see
	// package fsck. nil: the backend has nothing to check.
	Verify func(ctx context.Context, e peer.Entry, repair bool, report func(store.Finding)) error
	// Edited: the owner may change a context's files with other tools.
	Edited bool
	// Shared: any number of processes and hosts may have a context open.
	Shared bool
	// Where is the place of e's context, for people.
	Where func(e peer.Entry) string
	// Remove removes e's context from there, for good.
	Remove func(ctx context.Context, e peer.Entry) error
}

// ErrInUse is wrapped by the error about a context that somebody has open.
var ErrInUse = errors.New("the context is in use")

// Config is for New. Find is required.
type Config struct {
	// Find returns the backend of a name, as it stands in a peer.toml.
	Find func(name string) (Backend, error)
	// Quota of a context whose peer.toml sets none; what it does not say is
	// host.DefaultQuota.
	Quota host.Quota
	// Wait is for how long Open waits for another process that has the context
	// open, as a send without a worker does for a moment. 0 means 3 seconds.
	Wait time.Duration
}

// Contexts opens contexts. It is safe for concurrent use.
type Contexts struct {
	config Config
	batch  batch
}

// New makes a Contexts.
func New(c Config) *Contexts {
	if c.Wait <= 0 {
		c.Wait = 3 * time.Second
	}
	return &Contexts{c, usualBatch}
}

// Kept is how a context is kept.
type Kept struct {
	Name    string // of the backend
	Backend Backend
	Quota   host.Quota
}

// Of returns how e's context is kept now.
func (c *Contexts) Of(e peer.Entry) (Kept, error) {
	set, err := host.ReadContext(e)
	if err != nil {
		return Kept{}, err
	}
	b, err := c.config.Find(set.Store)
	if err != nil {
		return Kept{}, fmt.Errorf("%s: store: %w", filepath.Join(e.Dir, "peer.toml"), err)
	}
	return Kept{set.Store, b, set.Quota.Or(c.config.Quota, host.DefaultQuota)}, nil
}

// Open opens e's context. It is what host.Config.OpenStore wants.
func (c *Contexts) Open(ctx context.Context, e peer.Entry) (store.Store, error) {
	for start := time.Now(); ; {
		s, err := c.TryOpen(ctx, e)
		if !errors.Is(err, ErrInUse) || time.Since(start) > c.config.Wait {
			return s, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// TryOpen is Open for those who do not wait for others.
func (c *Contexts) TryOpen(ctx context.Context, e peer.Entry) (store.Store, error) {
	k, err := c.Of(e)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(e, k.Backend.Shared)
	if err != nil {
		return nil, err
	}
	// It may have been moved before we had the lock; from now on it is not.
	now, err := c.Of(e)
	if err == nil && now.Name != k.Name {
		err = fmt.Errorf("%w: it was being moved from %s to %s", ErrInUse, k.Name, now.Name)
	}
	var s store.Store
	if err == nil {
		s, err = now.Backend.Open(ctx, e)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	if m, ok := s.(measured); ok {
		m.Bound(now.Quota.Store(), memo(filepath.Join(e.Dir, memoFile)))
	}
	return &open{Store: s, unlock: sync.OnceFunc(unlock)}, nil
}

// measured is a store that bounds what a context holds.
type measured interface {
	Bound(store.Quota, store.Memo)
	Volume(ctx context.Context, exact bool) (store.Volume, error)
}

// Volume counts what e's context holds, beside a worker too; of a backend that
// cannot be looked at then, it is an error.
func (c *Contexts) Volume(ctx context.Context, e peer.Entry) (u store.Volume, err error) {
	s, err := c.Read(ctx, e)
	if err != nil {
		return u, err
	}
	defer s.Close()
	if u, err = volume(ctx, s, true); err != nil {
		return u, fmt.Errorf("count what the context of %s holds: %w", e.Name, err)
	}
	return u, nil
}

// Read opens e's context for reading, also while a worker has it open.
func (c *Contexts) Read(ctx context.Context, e peer.Entry) (store.Store, error) {
	k, err := c.Of(e)
	switch {
	case err != nil:
		return nil, err
	case k.Backend.Read != nil:
		return k.Backend.Read(ctx, e)
	}
	s, err := c.Open(ctx, e)
	if errors.Is(err, ErrInUse) {
		return nil, fmt.Errorf("%w; in the backend %s nobody can look at it meanwhile", err, k.Name)
	}
	return s, err
}

// Verify checks what keeps e's context. It is ErrInUse if somebody has it open.
func (c *Contexts) Verify(ctx context.Context, e peer.Entry, repair bool, report func(store.Finding)) error {
	k, err := c.Of(e)
	if err != nil || k.Backend.Verify == nil {
		return err
	}
	// On a disk that takes no lock file nobody can open the context either.
	unlock, err := lock(e, k.Backend.Shared)
	if errors.Is(err, ErrInUse) {
		return err
	}
	if err == nil {
		defer unlock()
	}
	return k.Backend.Verify(ctx, e, repair, report)
}

// OpenOrRead opens e's context, and for reading only if somebody else has it open.
func (c *Contexts) OpenOrRead(ctx context.Context, e peer.Entry) (store.Store, error) {
	s, err := c.TryOpen(ctx, e)
	if errors.Is(err, ErrInUse) {
		return c.Read(ctx, e)
	}
	return s, err
}

// open is a store whose context is locked.
type open struct {
	store.Store
	unlock func()
}

// Volume is that of the store, where it has one.
func (o *open) Volume(ctx context.Context, exact bool) (store.Volume, error) {
	return volume(ctx, o.Store, exact)
}

func (o *open) Close() error {
	defer o.unlock() // last: who comes next must find the backend's own lock free
	return o.Store.Close()
}

const lockFile = "context.lock"

// lock keeps others out of e's context, or with shared only those who want it
// alone.
func lock(e peer.Entry, shared bool) (unlock func(), err error) {
	path := filepath.Join(e.Dir, lockFile)
	f, err := openLock(path)
	if err != nil {
		return nil, fmt.Errorf("lock the context of %s: %w", e.Name, err)
	}
	if err := tryLock(f, shared); err != nil {
		f.Close()
		if errors.Is(err, ErrInUse) {
			return nil, fmt.Errorf("%w: stop what holds %s", err, path)
		}
		return nil, fmt.Errorf("lock the context of %s: %w", e.Name, err)
	}
	return func() { f.Close() }, nil
}
