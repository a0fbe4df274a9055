package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// deadline is the context of a run: its caller's, with the run's own deadline,
// and over when the run is or the engine stops.
//
// Most runs are over in microseconds and wait for nothing. So there is no timer
// and no goroutine before somebody asks for Done, or has asked for Err often:
// until then Err looks at the clock itself.
type deadline struct {
	parent context.Context
	stop   context.Context // the engine's
	at     time.Time       // the earlier of the parent's and the run's own

	armed atomic.Pointer[armedDeadline]
	over  atomic.Bool

	mu sync.Mutex // held to arm and to end
}

type armedDeadline struct {
	context.Context
	release func()
}

func (d *deadline) init(parent, stop context.Context, at time.Time) {
	if earlier, ok := parent.Deadline(); ok && earlier.Before(at) {
		at = earlier
	}
	d.parent, d.stop, d.at = parent, stop, at
}

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} { return d.arm().Done() }

// Err implements context.Context.
func (d *deadline) Err() error {
	if a := d.armed.Load(); a != nil {
		return a.Err()
	}
	if d.over.Load() || d.parent.Err() != nil || d.stop.Err() != nil || !time.Now().Before(d.at) {
		return d.arm().Err() // from now on the same for all who ask
	}
	return nil
}

// value is for keys that the run itself does not know.
func (d *deadline) value(key any) any {
	if a := d.armed.Load(); a != nil {
		return a.Value(key) // package context looks for its own here
	}
	return d.parent.Value(key)
}

// arm makes it a context as package context has them.
func (d *deadline) arm() *armedDeadline {
	if a := d.armed.Load(); a != nil {
		return a
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.armed.Load(); a != nil {
		return a
	}
	ctx, cancel := context.WithDeadline(d.parent, d.at)
	unhook := context.AfterFunc(d.stop, cancel)
	if d.over.Load() || d.stop.Err() != nil {
		cancel()
	}
	a := &armedDeadline{ctx, func() { unhook(); cancel() }}
	d.armed.Store(a)
	if d.over.Load() {
		a.release()
	}
	return a
}

// end is for when the run is over: whoever holds the context still, finds it
// cancelled.
func (d *deadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over.Store(true)
	if a := d.armed.Load(); a != nil {
		a.release()
	}
}

// expired reports whether it is the time that is over.
func expired(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
