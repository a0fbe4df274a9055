package overlay

import (
	"context"
	"sync"

	"github.com/circles-host/circles/host/store"
)

// gate orders the transactions of one store: any number of views, or one commit
// being applied; and beside either, one update that is still running. Every wait
// ends with its context, which sync.RWMutex cannot.
type gate struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every release
	views    int
	updating bool
	applying bool
	// A commit that waits for views holds up new ones: a stream of overlapping
	// views would keep it waiting for good.
	waiting bool
	closed  bool
}

func newGate() *gate { return &gate{changed: make(chan struct{})} }

// enter waits until try, called with the lock held, succeeds.
func (g *gate) enter(ctx context.Context, try func() bool) error {
	for {
		g.mu.Lock()
		if g.closed {
			g.mu.Unlock()
			return store.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			g.mu.Unlock()
			return context.Cause(ctx)
		}
		if try() {
			g.mu.Unlock()
			return nil
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *gate) leave(undo func()) {
	g.mu.Lock()
	undo()
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
}

func (g *gate) beginView(ctx context.Context) error {
	nested := store.IsNested(ctx)
	return g.enter(ctx, func() bool {
		if g.applying || g.waiting && !nested {
			return false
		}
		g.views++
		return true
	})
}

func (g *gate) endView() { g.leave(func() { g.views-- }) }

func (g *gate) beginUpdate(ctx context.Context) error {
	return g.enter(ctx, func() bool {
		if g.updating {
			return false
		}
		g.updating = true
		return true
	})
}

func (g *gate) endUpdate() { g.leave(func() { g.updating = false }) }

// beginApply waits for the running views; the caller is in an update.
func (g *gate) beginApply(ctx context.Context) error {
	g.mu.Lock()
	g.waiting = true
	g.mu.Unlock()
	for {
		g.mu.Lock()
		if g.views == 0 {
			g.waiting, g.applying = false, true
			g.mu.Unlock()
			return nil
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			g.leave(func() { g.waiting = false })
			return context.Cause(ctx)
		}
	}
}

func (g *gate) endApply() { g.leave(func() { g.applying = false }) }

// close refuses newcomers and waits for the rest. It reports whether this call
// closed it.
func (g *gate) close() bool {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return false
	}
	g.closed = true
	close(g.changed) // those that wait give up
	g.changed = make(chan struct{})
	for g.views > 0 || g.updating {
		changed := g.changed
		g.mu.Unlock()
		<-changed
		g.mu.Lock()
	}
	g.mu.Unlock()
	return true
}
