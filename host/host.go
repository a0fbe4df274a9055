// Package host takes a script from a transport to its signed receipt. It is the
// embedding API: Open a root, hand Deliver to a transport, Close.
//
//	h, err := host.Open(ctx, root, host.Config{OpenStore: …})
//	defer h.Close()
//	server := http2.NewServer(h.Deliver, http2.Config{Host: string(h.ID())})
//
// Deliver, below, is what happens to a script, in order. Each step's result is
// the next one's argument, and only its own package can make it: code that runs
// a script without a decision does not compile.
package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/turns"
)

// Deliver takes one sealed script to its sealed receipt. It is a
// transport.Handler, and safe for concurrent use.
//
// An error means that there is nobody to give a receipt to: who sent the bytes,
// or for whom, could not be established. Once it is, every outcome is a signed
// receipt, refusals and traps included.
func (h *Host) Deliver(ctx context.Context, sealed []byte, back transport.Back) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.running, cancel)()                   // a host that closes waits for this to end
	verified, err := envelope.Open(ctx, sealed, h.now(), known{h}) // who signed, for whom, fresh
	if err != nil {
		return nil, h.bare(err)
	}
	if prior := verified.Prior(); prior != nil {
		return prior, nil // delivered before: what was done stays done
	}
	target, release, err := h.contexts.enter(ctx, verified.Script()) // opened on demand; or turned away
	if err != nil {
		return nil, h.bare(err)
	}
	defer release()
	parties := target.meet(verified.Script().Caller, verified.Via()...) // as the target's owner knows them

	found, missing := module.Find(verified.Script().Logic, target.modules, h.modules) // described, not compiled
	if missing == nil {
		defer found.Release()
	}
	accepted, err := target.accept(ctx, verified, parties, codeOf(found)) // permit or deny, and the grants
	if err != nil {
		return h.refuse(target, verified, found, orPins(err, missing))
	}
	defer target.spending.settle(verified.ID()) // against its caller's budget
	if missing != nil {                         // said only to those whom the policy lets run something
		return h.refuse(target, verified, nil, missing)
	}
	work, err := h.work(ctx, accepted, target, found) // a program, carried code compiled now and not before; or an undo
	if err != nil {
		return h.refuse(target, verified, found, err)
	}
	turn, err := h.share(ctx, accepted) // of the host
	if err != nil {
		return nil, h.bare(err)
	}
	defer turn.Leave()
	if reviewed(accepted) { // the owner looks first at what it would do, or has, and decides
		return h.review(ctx, accepted, target, work, turn, back)
	}
	return h.run(ctx, accepted, target, work, turn, back)
}

// run takes an Accepted, which only a decision makes. The script's effects and
// its receipt are committed as one, or it leaves no effects and a receipt that
// says why.
func (h *Host) run(ctx context.Context, a *policy.Accepted, target *peerContext, work work, turn *turns.Turn, back transport.Back) ([]byte, error) {
	ctx, cancel := h.deadline(ctx, a)
	defer cancel()
	transact := target.updates(a) // alone among the writers of this context
	if work.readsOnly() {
		transact = target.store.View // side by side; a write fails
	}
	r := h.receipt(a, work)
	defer func() { target.spending.spent(&r.Receipt) }()
	watched := watching(a.Target())
	var sealed []byte
	attempt := func(of store.Tx) error {
		tx := target.transaction(of, work.readsOnly())
		output, err := work.do(ctx, running{a, target, tx, watched, watched.names(&r.Receipt), turn, back})
		r.files, r.Parts = tx.Usage(), watched.parts
		if err != nil {
			return err
		}
		if err := r.done(ctx, output, tx, a, target.history); err != nil {
			return err
		}
		if r.DryRun {
			return errDryRun // the transaction is dropped
		}
		if sealed, err = r.seal(h); err != nil {
			return err
		}
		return tx.Append(logKey(a.Verified), sealed)
	}
	err := transact(ctx, attempt)
	for runs := 1; errors.Is(err, store.ErrConflict) && runs < maxRuns && ctx.Err() == nil; runs++ {
		// Another worker committed first, or the owner changed a file, and nothing of
		// this run is left. It might do something else now: so it runs again.
		r, watched = h.anew(a, work, r), watching(a.Target())
		err = transact(ctx, attempt)
	}
	if errors.Is(err, store.ErrExists) {
		return h.first(ctx, target, a.Verified) // it was delivered twice at once
	}
	if stands(err) {
		return nil, h.bare(err) // whoever sent it, and waits for it, is undone too
	}
	if err != nil {
		if !errors.Is(err, errDryRun) {
			r.failed(h, a, err, watched)
		}
		return h.settle(target, a.Verified, r)
	}
	r.kept.Committed()
	return sealed, nil
}

var errDryRun = errors.New("dry run")

// maxRuns bounds how often a script runs of which others change the files meanwhile.
// Who is that unlucky is usually ended by the deadline.
const maxRuns = 20

// first returns the receipt of the delivery that won.
func (h *Host) first(ctx context.Context, target *peerContext, v *envelope.Verified) ([]byte, error) {
	entry, ok, err := target.store.Entry(context.WithoutCancel(ctx), logKey(v))
	if err != nil || !ok {
		return nil, h.bare(fmt.Errorf("find the receipt of script %v: %v, %w", v.ID(), ok, err))
	}
	r, _, err := envelope.OpenReceipt(entry.Data, "") // of whichever worker did it
	if err != nil {
		return nil, h.bare(err)
	}
	if r.Script != v.ID() {
		return nil, &transport.Error{Code: transport.Conflict, Message: fmt.Sprintf("its nonce was used before, for script %s; draw a new one for each script", r.Script)}
	}
	return entry.Data, nil
}
