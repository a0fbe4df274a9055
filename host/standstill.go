package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
)

// waits keeps scripts from waiting for each other in a circle. That one waits for its
// own context script.Within tells, and is refused. But two scripts, in a and in b, may
// each send one to where the other is; or any number of them, on any number of hosts.
//
// So of a script that others wait for, and one that holds the context that it needs and
// waits itself, the former may wait only if it belongs to a lesser root: then all
// waiting is in one direction, and there is no circle (Rosenkrantz, Stearns and Lewis,
// ACM Transactions on Database Systems 3, 1978: wait-die). Else it gives up, with all
// those that wait for it, up to their root, which is undone and run again. What they had
// sent is answered with what became of it then.
//
// Memory is waited for out of this order, and not for long; see Host.share.
//
// Roots are in the signed scripts, so that all hosts compare the same. Whoever makes one
// up gives way to others, or does not, and changes nothing else: every wait ends with
// its script's deadline.
type waits struct {
	mu      sync.Mutex
	sending map[script.ID]int // roots of those that have the context and wait, and how many
	waiting map[*waiter]struct{}
}

// waiter is a script that others wait for, and that waits for the context.
type waiter struct {
	root   script.ID
	cancel context.CancelCauseFunc
}

// errStandstill is why a script is undone and run again. It is told as a conflict of
// the store is, which is what it is.
var errStandstill = fmt.Errorf("it would wait for a script that waits for it: %w", store.ErrConflict)

// send notes that a script that has the context, and belongs to root, waits for one that
// it sends, until what it returns is called.
func (w *waits) send(root script.ID) (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sending == nil {
		w.sending = map[script.ID]int{}
	}
	w.sending[root]++
	for x := range w.waiting {
		if after(x.root, root) {
			x.cancel(errStandstill)
		}
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.sending[root]--; w.sending[root] == 0 {
			delete(w.sending, root)
		}
	}
}

// wait notes that a script that belongs to root waits for the context, until got is
// called; the context that it returns is cancelled when it must not wait.
func (w *waits) wait(ctx context.Context, root script.ID) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	x := &waiter{root, cancel}
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.sending {
		if after(root, s) {
			cancel(errStandstill)
		}
	}
	if w.waiting == nil {
		w.waiting = map[*waiter]struct{}{}
	}
	w.waiting[x] = struct{}{}
	return ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.waiting, x)
	}
}

func after(a, b script.ID) bool { return bytes.Compare(a[:], b[:]) > 0 }

// updates is how a runs alone among the writers of its target's context.
func (c *peerContext) updates(a *policy.Accepted) func(context.Context, func(store.Tx) error) error {
	if a.Script().Within.IsZero() {
		return c.update
	}
	return func(ctx context.Context, f func(store.Tx) error) error {
		waiting, got := c.waits.wait(ctx, a.Script().Within.Root)
		defer got()
		err := c.store.Update(waiting, func(tx store.Tx) error {
			got()
			return f(tx)
		})
		if errors.Is(err, errStandstill) || errors.Is(context.Cause(waiting), errStandstill) && errors.Is(err, context.Canceled) {
			// To whom it is nested in, up to the root: they hold what others wait for.
			return &transport.Error{Code: transport.Standstill, Message: errStandstillText}
		}
		return err
	}
}

// stands reports whether a script has no receipt, since it was undone for others.
func stands(err error) bool {
	var e *transport.Error
	return errors.As(err, &e) && e.Code == transport.Standstill
}

const errStandstillText = "it would wait for a script that waits for it; send it again"

// update is store.Update, and a rest if others have to go first.
func (c *peerContext) update(ctx context.Context, f func(store.Tx) error) error {
	err := c.store.Update(ctx, f)
	if errors.Is(err, errStandstill) {
		select {
		case <-ctx.Done():
		case <-time.After(leastRest + time.Duration(time.Now().UnixNano())%mostRest): // no two alike
		}
	}
	return err
}

// A script that was undone for others rests until some of them will be done.
const (
	leastRest = time.Millisecond
	mostRest  = 150 * time.Millisecond
)
