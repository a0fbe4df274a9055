package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/review"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/turns"
)

// logKey is what a script's receipt is found by in its target's log: a sender's
// nonce, so that a second script with the same one is noticed too.
func logKey(v *envelope.Verified) store.Key {
	return nonceKey(v.Script().Caller, v.Signer(), v.Script().Nonce)
}

func nonceKey(caller, signer peer.ID, nonce script.Nonce) store.Key {
	b := append([]byte("circles log key v1\x00"), caller...)
	if signer != caller { // whose nonces on behalf of the caller are not the caller's
		b = append(append(b, 0), signer...)
	}
	return sha256.Sum256(append(append(b, 0), nonce[:]...))
}

// known answers what envelope.Open asks.
type known struct{ *Host }

func (k known) Prior(ctx context.Context, caller, signer, target peer.ID, nonce script.Nonce) (id script.ID, receipt []byte, ok bool, err error) {
	c, release, err := k.contexts.open(ctx, target)
	if err != nil {
		return id, nil, false, err
	}
	defer release()
	entry, ok, err := c.store.Entry(ctx, nonceKey(caller, signer, nonce))
	if err != nil || !ok {
		return id, nil, false, err
	}
	r, _, err := envelope.OpenReceipt(entry.Data, "")
	if err != nil {
		return id, nil, false, fmt.Errorf("read the log of %s: entry %d: %w", c.entry.Name, entry.Seq, err)
	}
	if r.Code == script.Pending {
		now, err := k.standing(ctx, c, r, entry.Data)
		return r.Script, now, err == nil, err
	}
	return r.Script, entry.Data, true, nil
}

// A receipt under construction.
type receipt struct {
	script.Receipt
	kept  *history.Kept
	files store.Usage
}

func (h *Host) receiptOf(v *envelope.Verified) *receipt {
	s := v.Script()
	r := &receipt{Receipt: script.Receipt{
		Script: v.ID(), Caller: s.Caller, Target: s.Target, Host: h.key.ID(),
		ModuleName: s.Logic.Name, Entry: s.Entry, Started: h.now(), DryRun: s.DryRun, Undid: s.Logic.Undo, Decided: s.Logic.Decide.Script,
	}}
	for _, l := range v.Chain() {
		r.Via = append(r.Via, script.Via{Delegation: l.ID, To: l.To})
	}
	return r
}

func (h *Host) receipt(a *policy.Accepted, w work) *receipt {
	r := h.receiptOf(a.Verified)
	r.Policies = a.Policies()
	r.Module = w.digest()
	if a.Code().Instead {
		r.ranInstead(a.Script().Logic, a.Code().Name)
	}
	return r
}

// anew is the receipt of another run of the same script, before of the one before. What
// that one sent was sent.
func (h *Host) anew(a *policy.Accepted, w work, before *receipt) *receipt {
	r := h.receipt(a, w)
	r.Sent = before.Sent
	return r
}

// accountTime bounds how long it may take to find out what a script has done.
const accountTime = 30 * time.Second

// done fills in what a run that went well did, and keeps what undoes it.
//
// A script makes and removes in no time files that take hours to read, and the
// target's other scripts wait as long: it ends with ctx, and after accountTime.
func (r *receipt) done(ctx context.Context, out engine.Output, tx transaction, a *policy.Accepted, past *history.History) error {
	ctx, cancel := context.WithTimeout(ctx, accountTime)
	defer cancel()
	changes, err := r.did(ctx, out, tx, mayRead(a.Target()), past)
	if err != nil || r.DryRun {
		return err
	}
	return r.keep(ctx, tx, a, logKey(a.Verified), changes, past)
}

// did fills in what a run that went well did. Of the files and records for which
// told is false it tells the names.
func (r *receipt) did(ctx context.Context, out engine.Output, tx transaction, told func(script.Action, string) bool, past *history.History) (*history.Changes, error) {
	r.Code = script.Done
	r.Result, r.Log, r.Usage = out.Result, out.Log, usage(out.Usage, r.files)
	read := func(path string) bool { return told(script.Read, path) }
	changes, err := past.Changes(ctx, tx, read)
	if err != nil {
		return nil, err
	}
	changes.Records(tx.records.Changes())
	room := maxDiffs
	if r.Effects, err = effects(ctx, changes.List, read, r.DryRun, &room); err != nil {
		return nil, err
	}
	get := func(record string) bool { return told(script.Get, record) }
	r.Effects = append(r.Effects, recordEffects(tx.records, get, r.DryRun, &room)...)
	return changes, nil
}

func mayRead(grants *policy.Grants) func(script.Action, string) bool {
	return func(action script.Action, name string) bool { return grants.Allow(action, name) == nil }
}

// keep keeps what undoes the script, whose receipt will have that key in the log.
func (r *receipt) keep(ctx context.Context, tx transaction, a *policy.Accepted, key store.Key, changes *history.Changes, past *history.History) (err error) {
	if r.kept, err = past.Keep(ctx, tx, a.ID(), key, changes); err != nil {
		return err
	}
	r.Kept = r.kept.Digest
	return nil
}

// seal signs the receipt as it is now.
func (r *receipt) seal(h *Host) ([]byte, error) {
	r.Finished = h.now()
	return envelope.SealReceipt(r.Receipt, h.key)
}

// failed fills in why a script that ran, or was about to, has no effects. It is
// the one place that maps errors to receipt codes.
func (r *receipt) failed(h *Host, a *policy.Accepted, err error, denied *watched) {
	r.Result, r.Effects, r.Kept = nil, nil, script.Digest{}
	r.Code, r.Message = h.codeOf(err)
	var f *engine.Failure
	if errors.As(err, &f) {
		r.ExitCode, r.Log, r.Usage = f.ExitCode, f.Log, usage(f.Usage, r.files)
	}
	if what := denied.String(); what != "" {
		r.Message += "; " + what
		if hint := h.allowDenied(a, denied); hint != "" {
			r.Message += "; to allow it: " + hint
		}
	}
}

func (h *Host) codeOf(err error) (script.Code, string) {
	var (
		refused     *policy.RefusedError
		unsupported *engine.UnsupportedError
		failure     *engine.Failure
		hostPanic   *engine.PanicError
		notKept     *history.NotKeptError
		touched     *touchedError
		full        *review.FullError
		violation   *records.ViolationError
	)
	switch {
	case errors.As(err, &hostPanic):
		// Its text and stack are the host's.
	case errors.As(err, &refused):
		return script.Refused, refused.Error()
	case errors.Is(err, module.ErrPins), errors.Is(err, module.ErrComposed):
		return script.Unavailable, err.Error()
	case errors.Is(err, module.ErrNotFound):
		return script.NotFound, err.Error()
	case errors.As(err, &unsupported), errors.Is(err, engine.ErrInvalid):
		return script.Invalid, err.Error()
	case errors.As(err, &failure):
		return failureCodes[failure.Kind], failure.Detail
	case errors.As(err, &notKept):
		return script.NotFound, notKept.Error()
	case errors.As(err, &full):
		return script.Unavailable, full.Error()
	case errors.As(err, &touched):
		return script.Conflict, touched.Error()
	case errors.As(err, &violation): // of an undo: what a script puts it is told itself
		return script.Failed, "what was there is not as the collection's schema has it by now, so it is not brought back: " + violation.Error()
	case errors.Is(err, errStandstill):
		return script.Unavailable, "each time that it ran it would have waited for a script that waited for it, and nothing of it was kept; send a new one when the contexts that it sends to are less busy"
	case errors.Is(err, store.ErrConflict):
		return script.Unavailable, "its files were changed, by another worker or by their owner, each time that it ran, and nothing of it was kept; send a new one when the context is less busy"
	case errors.Is(err, store.ErrUnknown):
		// Once this is in the log, under the script's key, it is true.
		return script.Unavailable, "what keeps the files did not answer in time, and nothing of the script was kept; send a new one"
	case errors.Is(err, store.ErrLogFull):
		return script.OverLimit, "the log of this context has no room for another receipt, so nothing of the script was kept; the context's owner can make room: log, under [quota]"
	case errors.Is(err, store.ErrQuota), errors.Is(err, store.ErrTooBig):
		return script.OverLimit, "it wrote more than the context has room for; nothing of it was kept"
	case errors.Is(err, context.DeadlineExceeded):
		return script.Deadline, "its time was over before it could begin or be committed; send a new one with more time, or when the context is less busy"
	case errors.Is(err, context.Canceled):
		return script.Unavailable, "the sender went away, or the host is shutting down, before it was done; nothing of it was kept; send a new one"
	}
	h.report(err)
	return script.Internal, "the host failed to do this, and nothing of the script was kept; its operator's log says why"
}

var failureCodes = map[engine.Kind]script.Code{
	engine.Returned:     script.Failed,
	engine.Exited:       script.Failed,
	engine.Trapped:      script.Trapped,
	engine.DeadlineHit:  script.Deadline,
	engine.Cancelled:    script.Unavailable,
	engine.MemoryHit:    script.OutOfMemory,
	engine.OutputHit:    script.OverLimit,
	engine.HostCallsHit: script.OverLimit,
	engine.FuelHit:      script.OverLimit,
	engine.StackHit:     script.OverLimit,
	engine.NoEntry:      script.NotFound,
}

// refuse answers a script that did not run.
func (h *Host) refuse(target *peerContext, v *envelope.Verified, found *module.Found, err error) ([]byte, error) {
	r := h.receiptOf(v)
	var refused *policy.RefusedError
	if errors.As(err, &refused) {
		r.Policies = refused.Verdict.Public().Policies
		if !refused.Request.Parties.Known() {
			found = nil // strangers must not find out which modules a peer has
		}
		if len(r.Policies) == 0 && refused.Again.IsZero() && refused.Verdict.Unread == nil { // else one forbids it, and a permit would not help
			refused.Hint = h.allow(refused, v.Script().Logic, found)
		}
	}
	if found != nil {
		r.Module = found.Digest
		if found.Instead {
			r.ranInstead(v.Script().Logic, found.Name)
		}
	}
	r.Code, r.Message = h.codeOf(err)
	if !target.refusals.take(h.now()) {
		sealed, err := r.seal(h)
		if err != nil {
			return nil, h.bare(err)
		}
		return sealed, nil
	}
	return h.settle(target, v, r)
}

// settle signs and logs a receipt that stands alone, of a script without
// effects.
func (h *Host) settle(target *peerContext, v *envelope.Verified, r *receipt) ([]byte, error) {
	sealed, err := r.seal(h)
	if err != nil {
		return nil, h.bare(err)
	}
	// The sender's time may be over, but not the owner's wish to know. The bound
	// is for the commits that this one may have to wait for.
	ctx, cancel := context.WithTimeout(h.running, settleTime)
	defer cancel()
	err = target.store.View(ctx, func(tx store.Tx) error { return tx.Append(logKey(v), sealed) })
	if errors.Is(err, store.ErrExists) {
		return h.first(ctx, target, v)
	}
	if err != nil {
		return nil, h.bare(fmt.Errorf("log the receipt of script %v: %w", v.ID(), err))
	}
	return sealed, nil
}

const settleTime = 10 * time.Second

// bare maps what happened before there was somebody to give a receipt to.
func (h *Host) bare(err error) error {
	var e *transport.Error
	if errors.As(err, &e) {
		return e
	}
	code, known := bareCodes[envelope.KindOf(err)]
	switch {
	case known:
		return &transport.Error{Code: code, Message: err.Error()}
	case errors.Is(err, turns.ErrBusy), errors.Is(err, turns.ErrTooDeep):
		return &transport.Error{Code: transport.Unavailable, Message: err.Error() + "; send it again in a while"}
	case errors.Is(err, store.ErrLogFull):
		return &transport.Error{Code: transport.Unavailable, Message: "the log of this context has no room for another receipt, and without one nothing is run; the context's owner has to make room"}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &transport.Error{Code: transport.Unavailable, Message: "the host did not get to this script in time; send it again"}
	}
	h.report(err)
	return &transport.Error{Code: transport.Internal, Message: "the host failed to do this; its operator's log says why"}
}

var bareCodes = map[envelope.Kind]transport.Code{
	envelope.Malformed:       transport.Malformed,
	envelope.Unauthenticated: transport.Unauthenticated,
	envelope.NotHere:         transport.NotFound,
	envelope.Expired:         transport.Expired,
	envelope.NotYet:          transport.Expired,
	envelope.TooLarge:        transport.TooLarge,
	envelope.Conflict:        transport.Conflict,
}

func usage(u engine.Usage, files store.Usage) script.Usage {
	return script.Usage{
		Wall: u.Wall, Fuel: u.Fuel, MemoryBytes: u.Memory, HostCalls: u.HostCalls, OutputBytes: u.Output, LogBytes: u.Log,
		FileBytes: uint64(files.Bytes), Entries: uint64(files.Entries), Handles: uint64(files.Handles),
	}
}
