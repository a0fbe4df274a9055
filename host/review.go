package host

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/review"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/turns"
)

// reviewed reports whether a script is to be held until the target's owner has
// seen what it would do, or is the owner's decision about one that was.
func reviewed(a *policy.Accepted) bool {
	return a.Review() > 0 || a.Script().Logic.Decide.Ruling != 0
}

// review holds a script, or does what the owner has decided about one.
func (h *Host) review(ctx context.Context, a *policy.Accepted, target *peerContext, work work, turn *turns.Turn, back transport.Back) ([]byte, error) {
	ctx, cancel := h.deadline(ctx, a)
	defer cancel()
	if a.Script().Logic.Decide.Ruling != 0 {
		return h.decide(ctx, a, target, turn)
	}
	return h.hold(ctx, a, target, work, turn, back)
}

// decisionKey is what the final receipt of a script that was held is found by in
// its target's log, where logKey finds the one that said that it is pending.
func decisionKey(id script.ID) store.Key {
	return sha256.Sum256(append([]byte("circles decision key v1\x00"), id[:]...))
}

// hold runs a script on a transaction that is dropped, keeps what it would do for
// the target's owner, and answers that it is pending.
//
// Nothing of what the run found out reaches the caller before the owner says so:
// not the result, nor the effects, nor what it used, nor that it failed, which a
// script could choose to do by what it has read. For the same reason it may ask the
// caller's host for what the caller lent only until it has looked at anything here.
func (h *Host) hold(ctx context.Context, a *policy.Accepted, target *peerContext, work work, turn *turns.Turn, back transport.Back) ([]byte, error) {
	s := a.Script()
	if s.DryRun {
		return h.refuse(target, a.Verified, nil, &policy.RefusedError{Reason: fmt.Sprintf(
			"%s looks at what this would do before it is done, and nobody else does: send it without asking for a dry run", label(a.Parties().Target))})
	}
	h.expireAll(ctx, target) // which may make room
	err := target.store.View(ctx, func(tx store.Tx) error {
		return review.Room(tx.Private(), s.Caller, int64(len(a.Sealed())), h.config.Review)
	})
	if err != nil {
		return h.refuse(target, a.Verified, nil, err)
	}

	would := h.receipt(a, work)
	would.DryRun = true
	defer func() { target.spending.spent(&would.Receipt) }()
	watched, asked := watching(a.Target()), review.Record(back)
	watched.sends.try = true
	transact := target.updates(a)
	if work.readsOnly() {
		transact = target.store.View
	}
	err = transact(ctx, func(of store.Tx) error {
		tx := target.transaction(of, work.readsOnly())
		output, err := work.do(ctx, running{a, target, tx, watched, watched.names(&would.Receipt), turn, blind(asked.Back(), watched)})
		would.files, would.Parts = tx.Usage(), watched.parts
		if err != nil {
			return err
		}
		if _, err := would.did(ctx, output, tx, everything, target.history); err != nil {
			return err
		}
		return errDryRun // the transaction is dropped
	})
	if stands(err) {
		return nil, h.bare(err)
	}
	if !errors.Is(err, errDryRun) {
		if !ofScript(err) {
			r := h.receipt(a, work)
			r.Code, r.Message = h.codeOf(err)
			return h.settle(target, a.Verified, r)
		}
		would.failed(h, a, err, watched)
	}

	pending := h.receipt(a, work)
	// That it took its time its caller knows; and it counts against the caller's budget.
	pending.Usage.Wall = would.Usage.Wall
	pending.Code, pending.Expires = script.Pending, h.now().Add(a.Review()).Truncate(time.Millisecond)
	pending.Message = fmt.Sprintf("held until %s has looked at what it would do, and refused if that is not before %s; nothing is done yet, and the same script, sent again, is answered with what became of it",
		label(a.Parties().Target), pending.Expires.UTC().Format(time.RFC3339))
	sealed, err := h.keepHeld(ctx, target, a, &would.Receipt, outcomeOf(&would.Receipt, watched.sends.ids), asked.Answers(), pending)
	var full *review.FullError
	switch {
	case errors.Is(err, store.ErrExists):
		return h.first(ctx, target, a.Verified) // it was delivered twice at once
	case errors.As(err, &full):
		return h.refuse(target, a.Verified, nil, err)
	case err != nil:
		r := h.receipt(a, work)
		r.Code, r.Message = h.codeOf(err)
		return h.settle(target, a.Verified, r)
	}
	h.log.Debug("held for review", "peer", target.entry.Name, "script", a.ID().Short(), "by", label(a.Parties().Caller), "until", pending.Expires)
	return sealed, nil
}

// keepHeld keeps a script with its pending receipt, both or neither.
func (h *Host) keepHeld(ctx context.Context, target *peerContext, a *policy.Accepted, would *script.Receipt, outcome review.Outcome, answers map[script.Digest][]byte, pending *receipt) (sealed []byte, err error) {
	held := &review.Held{
		Script: a.ID(), Caller: a.Script().Caller, Key: logKey(a.Verified), Expires: pending.Expires,
		Sealed: a.Sealed(), Transport: transport.Name(ctx), Outcome: outcome, Answers: answers,
	}
	would.Finished = h.now()
	if held.Would, err = would.Encode(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(h.running, settleTime) // the sender's time may be over
	defer cancel()
	return sealed, h.transact(ctx, target, func(tx store.Tx) error {
		if pending.Kept, err = review.Put(ctx, tx.Private(), held, h.config.Review); err != nil {
			return err
		}
		if err := review.NoteUsed(tx.Private(), held.Script, pending.Started, review.Used{Fuel: would.Usage.Fuel, Bytes: would.Usage.FileBytes}); err != nil {
			return err
		}
		if sealed, err = pending.seal(h); err != nil {
			return err
		}
		return tx.Append(held.Key, sealed)
	})
}

// transact is Update, again where others were faster.
func (h *Host) transact(ctx context.Context, target *peerContext, f func(store.Tx) error) error {
	err := target.update(ctx, f)
	for runs := 1; errors.Is(err, store.ErrConflict) && runs < maxRuns && ctx.Err() == nil; runs++ {
		err = target.update(ctx, f)
	}
	return err
}

// blind is the way back of a script that nothing must leave by: it ends when the
// script has asked for anything of its target's.
func blind(back transport.Back, of *watched) transport.Back {
	if back == nil {
		return nil
	}
	return func(ctx context.Context, question []byte) ([]byte, error) {
		if of.asked.Load() {
			return nil, errors.New("this script is held for review, so it has to read what its caller lent before it looks at anything here")
		}
		return back(ctx, question)
	}
}

// everything is what the owner of a context is told.
func everything(script.Action, string) bool { return true }

// ofScript reports whether err is how a script ended that ran, and not something
// that stopped the host from running it, or that holds whatever it would do.
func ofScript(err error) bool {
	var f *engine.Failure
	if errors.As(err, &f) {
		return f.Kind != engine.Cancelled && f.Kind != engine.NoEntry
	}
	return errors.Is(err, store.ErrQuota) && !errors.Is(err, store.ErrLogFull) || errors.Is(err, store.ErrTooBig)
}

// outcomeOf is what two runs are compared by. r is as the owner sees it, and sent are the
// scripts that it sends, as they are when they are tried. Times and usage are left out,
// as they differ from run to run, and so does a limit's message.
func outcomeOf(r *script.Receipt, sent []script.ID) review.Outcome {
	var changes, answer []byte
	add := func(to *[]byte, parts ...string) {
		for _, p := range parts {
			*to = append(binary.AppendUvarint(*to, uint64(len(p))), p...)
		}
	}
	for _, e := range r.Effects {
		add(&changes, string(rune(e.Kind)), e.Path, e.To, fmt.Sprint(e.End.At))
		for _, b := range []script.Blob{e.Before, e.After, e.End.Before, e.End.After} {
			add(&changes, fmt.Sprint(b.Size), string(b.Digest[:]))
		}
	}
	for _, id := range sent {
		add(&changes, "sent", string(id[:]))
	}
	message := ""
	if r.Code == script.Failed || r.Code == script.Trapped {
		message = r.Message
	}
	add(&answer, r.Code.String(), message, fmt.Sprint(r.ExitCode), string(r.Result), string(r.Log))
	return review.Outcome{Changes: script.DigestOf(changes), Answer: script.DigestOf(answer)}
}

// decisionError is why what the owner has decided is not done.
type decisionError struct {
	code    script.Code
	message string
}

func (e *decisionError) Error() string { return e.message }

func notDecided(code script.Code, format string, a ...any) error {
	return &decisionError{code, fmt.Sprintf(format, a...)}
}

// waiting is a script that is held, as the log knows it.
type waiting struct {
	review.Item
	pending script.Receipt // of its log entry
	entry   []byte
}

// waitingFor finds the script that a decision is about.
func (h *Host) waitingFor(ctx context.Context, target *peerContext, id script.ID) (*waiting, error) {
	w := &waiting{}
	var ok bool
	err := target.store.View(ctx, func(tx store.Tx) (err error) {
		w.Item, ok, err = review.Find(tx.Private(), id)
		return err
	})
	// Asked after that: what is held goes when it is decided about.
	if err == nil {
		err = h.undecided(ctx, target, id)
	}
	if err != nil {
		return nil, err
	}
	if ok {
		w.pending, w.entry, ok, err = h.pendingAt(ctx, target, w.Key)
		if err != nil {
			return nil, err
		}
	}
	if !ok || w.pending.Script != id {
		return nil, notHeld(id)
	}
	return w, nil
}

func notHeld(id script.ID) error {
	return notDecided(script.NotFound, "no script %s is held for review", id.Short())
}

// pendingAt is the receipt with that key, if it says that a script is pending.
func (h *Host) pendingAt(ctx context.Context, target *peerContext, key store.Key) (r script.Receipt, data []byte, ok bool, err error) {
	entry, ok, err := target.store.Entry(ctx, key)
	if err != nil || !ok {
		return r, nil, false, err
	}
	if r, _, err = envelope.OpenReceipt(entry.Data, ""); err != nil {
		return r, nil, false, fmt.Errorf("read the log of %s: entry %d: %w", target.entry.Name, entry.Seq, err)
	}
	return r, entry.Data, r.Code == script.Pending, nil
}

// final is the sealed receipt of a script that was held, once there is one.
func (h *Host) final(ctx context.Context, target *peerContext, id script.ID) (r script.Receipt, data []byte, ok bool, err error) {
	entry, ok, err := target.store.Entry(ctx, decisionKey(id))
	if err != nil || !ok {
		return r, nil, false, err
	}
	if r, _, err = envelope.OpenReceipt(entry.Data, ""); err != nil {
		return r, nil, false, fmt.Errorf("read the log of %s: entry %d: %w", target.entry.Name, entry.Seq, err)
	}
	return r, entry.Data, r.Script == id, nil
}

// undecided says what became of a script that is decided about already.
func (h *Host) undecided(ctx context.Context, target *peerContext, id script.ID) error {
	r, _, ok, err := h.final(ctx, target, id)
	if err != nil || !ok {
		return err
	}
	by := "it expired"
	if !r.Decision.IsZero() {
		by = "by script " + r.Decision.Short()
	}
	return notDecided(script.Conflict, "script %s was decided already, at %s, %s: it is %s", id.Short(), r.Finished.UTC().Format(time.DateTime), by, r.Code)
}

// standing is what a script that is held is answered with when it is sent again.
func (h *Host) standing(ctx context.Context, target *peerContext, pending script.Receipt, entry []byte) ([]byte, error) {
	_, final, ok, err := h.final(ctx, target, pending.Script)
	switch {
	case err != nil:
		return nil, err
	case ok:
		return final, nil
	case h.now().Before(pending.Expires):
		return entry, nil
	}
	return h.expire(ctx, target, &waiting{pending: pending, entry: entry})
}

// refused is the final receipt of a script that is not run.
func (w *waiting) refused(h *Host, decision script.ID, message string) *receipt {
	p := w.pending
	return &receipt{Receipt: script.Receipt{
		Script: p.Script, Caller: p.Caller, Target: p.Target, Host: h.key.ID(), Code: script.Refused, Message: message,
		Policies: p.Policies, Via: p.Via, Module: p.Module, ModuleName: p.ModuleName, Instead: p.Instead, Asked: p.Asked, Entry: p.Entry, Started: h.now(),
		Pending: script.DigestOf(w.entry), Decision: decision,
	}}
}

// conclude ends the review of a script in a transaction: what was held is gone, and
// the final receipt is in the log.
func conclude(tx store.Tx, id script.ID, final []byte) error {
	item, ok, err := review.Find(tx.Private(), id)
	if err == nil && ok {
		err = item.Remove(tx.Private())
	}
	if err != nil {
		return err
	}
	return tx.Append(decisionKey(id), final)
}

// expire refuses a script that nobody has decided about in time, and returns the
// final receipt, or that of whoever was faster.
func (h *Host) expire(ctx context.Context, target *peerContext, w *waiting) ([]byte, error) {
	sealed, err := w.refused(h, script.ID{}, fmt.Sprintf("nobody approved it before %s, and nothing of it was done; send a new one", w.pending.Expires.UTC().Format(time.RFC3339))).seal(h)
	if err != nil {
		return nil, err
	}
	err = h.transact(ctx, target, func(tx store.Tx) error { return conclude(tx, w.pending.Script, sealed) })
	if errors.Is(err, store.ErrExists) {
		_, sealed, _, err = h.final(ctx, target, w.pending.Script)
	}
	return sealed, err
}

// maxExpired bounds what one delivery does for those that expired.
const maxExpired = 64

// expireAll refuses what has expired. That it fails is no reason for anything else
// to: whoever asks for a script that expired is told so in any case.
func (h *Host) expireAll(ctx context.Context, target *peerContext) (n int) {
	var items []review.Item
	err := target.store.View(ctx, func(tx store.Tx) (err error) {
		items, err = review.List(tx.Private())
		return err
	})
	for _, item := range items[:min(len(items), maxExpired)] {
		if err != nil || h.now().Before(item.Expires) {
			break
		}
		w := &waiting{Item: item}
		var ok bool
		if w.pending, w.entry, ok, err = h.pendingAt(ctx, target, item.Key); err != nil {
			break
		}
		if !ok || w.pending.Script != item.Script {
			// Nothing that was held by this host; its name was made up.
			err = h.transact(ctx, target, func(tx store.Tx) error { return item.Remove(tx.Private()) })
			continue
		}
		if h.now().Before(w.pending.Expires) {
			continue
		}
		if _, err = h.expire(ctx, target, w); err == nil {
			n++
		}
	}
	if err != nil && ctx.Err() == nil {
		h.report(fmt.Errorf("expire what is held for review in the context of %s: %w", target.entry.Name, err))
	}
	return n
}

// decide does what the owner has decided. It answers with the receipt of the
// decision; what became of the script that it is about is in that one's own.
func (h *Host) decide(ctx context.Context, a *policy.Accepted, target *peerContext, turn *turns.Turn) ([]byte, error) {
	d := a.Script().Logic.Decide
	own := h.receiptOf(a.Verified)
	own.Policies, own.Code = a.Policies(), script.Done
	sealed, err := h.decided(ctx, a, target, turn, own)
	if errors.Is(err, store.ErrExists) {
		// The decision was delivered twice at once, or somebody else was faster.
		if _, ok, _ := target.store.Entry(ctx, logKey(a.Verified)); ok {
			return h.first(ctx, target, a.Verified)
		}
		if err = h.undecided(ctx, target, d.Script); err == nil {
			err = notHeld(d.Script)
		}
	}
	if err != nil && !own.DryRun {
		own.Result, own.Effects = nil, nil
	}
	var not *decisionError
	switch {
	case errors.As(err, &not):
		own.Code, own.Message = not.code, not.message
	case err != nil:
		own.Code, own.Message = h.codeOf(err)
	case sealed != nil:
		return sealed, nil
	}
	return h.settle(target, a.Verified, own)
}

// decided returns the receipt of a decision if it was committed with the script
// that it is about; else own is to be sealed and logged for itself.
func (h *Host) decided(ctx context.Context, a *policy.Accepted, target *peerContext, turn *turns.Turn, own *receipt) (sealed []byte, err error) {
	d := a.Script().Logic.Decide
	if d.Ruling == script.Expire {
		n := 0
		if !own.DryRun {
			n = h.expireAll(ctx, target)
		}
		return nil, own.tell(map[string]any{"expired": n})
	}
	w, err := h.waitingFor(ctx, target, d.Script)
	if err != nil {
		return nil, err
	}
	if !h.now().Before(w.pending.Expires) {
		if !own.DryRun {
			if _, err := h.expire(ctx, target, w); err != nil {
				return nil, err
			}
		}
		return nil, notDecided(script.Conflict, "script %s expired at %s, and was refused", d.Script.Short(), w.pending.Expires.UTC().Format(time.DateTime))
	}
	if d.Ruling == script.Approve {
		return h.approve(ctx, a, target, turn, own, w)
	}
	message := label(a.Parties().Target) + " looked at what it would do, and rejected it"
	if d.Reason != "" {
		message += ": " + d.Reason
	}
	if own.DryRun {
		return nil, own.tell(map[string]any{"script": d.Script, "code": script.Refused, "message": message})
	}
	return h.concluded(ctx, a, target, own, w.refused(h, a.ID(), message))
}

// concluded commits the final receipt of a script and that of the decision.
func (h *Host) concluded(ctx context.Context, a *policy.Accepted, target *peerContext, own, final *receipt) (sealed []byte, err error) {
	return sealed, h.transact(ctx, target, func(tx store.Tx) error {
		sealed, err = h.concludeBoth(tx, a, own, final)
		return err
	})
}

func (h *Host) concludeBoth(tx store.Tx, a *policy.Accepted, own, final *receipt) ([]byte, error) {
	sealed, err := final.seal(h)
	if err != nil {
		return nil, err
	}
	if err := conclude(tx, final.Script, sealed); err != nil {
		return nil, err
	}
	if err := own.tell(map[string]any{"script": final.Script, "code": final.Code, "message": final.Message, "effects": len(final.Effects)}); err != nil {
		return nil, err
	}
	if sealed, err = own.seal(h); err != nil {
		return nil, err
	}
	return sealed, tx.Append(logKey(a.Verified), sealed)
}

// tell makes v the result of a decision.
func (r *receipt) tell(v any) (err error) {
	r.Result, err = json.Marshal(v)
	return err
}

// approve runs a script that was held, on the data as they are now and under the
// policies as they are now, if its code is what was looked at; and keeps what it did
// if that is what was looked at, or may be something else.
func (h *Host) approve(ctx context.Context, a *policy.Accepted, target *peerContext, turn *turns.Turn, own *receipt, w *waiting) (sealed []byte, err error) {
	d := a.Script().Logic.Decide
	var held *review.Held
	err = target.store.View(ctx, func(tx store.Tx) (err error) {
		held, err = w.Open(ctx, tx.Private(), w.pending.Kept)
		return err
	})
	if errors.Is(err, review.ErrDamaged) {
		// It is gone, too, once somebody else was faster.
		if err := h.undecided(ctx, target, d.Script); err != nil {
			return nil, err
		}
		return nil, notDecided(script.NotFound, "%v, and so it cannot be run: reject it", err)
	}
	if err != nil {
		return nil, err
	}
	accepted, work, release, err := h.again(ctx, target, held, w)
	if err != nil {
		return nil, err
	}
	defer release()
	if would, err := script.DecodeReceipt(held.Would); err == nil && len(would.Sent) > 0 && !own.DryRun {
		// What it sends is done where it is sent to, also if this turns out to be something
		// else than what was looked at. So that is found out first.
		try := &receipt{Receipt: own.Receipt}
		try.DryRun = true
		if _, err := h.approve(ctx, a, target, turn, try, w); err != nil {
			return nil, err
		}
	}

	var final *receipt
	committed := false
	watched := watching(accepted.Target())
	attempt := func(of store.Tx) error {
		if _, ok, err := review.Find(of.Private(), d.Script); err != nil {
			return err
		} else if !ok {
			return store.ErrExists // somebody else was faster
		}
		tx := target.transaction(of, work.readsOnly())
		before := final
		final, watched = h.receipt(accepted, work), watching(accepted.Target())
		if before != nil {
			final.Sent = before.Sent
		}
		watched.sends.try, watched.sends.decision = own.DryRun, a.Script()
		final.Pending, final.Decision = script.DigestOf(w.entry), a.ID()
		output, err := work.do(ctx, running{accepted, target, tx, watched, watched.names(&final.Receipt), turn, blind(held.Back(), watched)})
		final.files, final.Parts = tx.Usage(), watched.parts
		if err != nil {
			return err
		}
		would := &receipt{Receipt: final.Receipt, files: final.files}
		would.DryRun = own.DryRun // with diffs
		changes, err := would.did(ctx, output, tx, everything, target.history)
		if err != nil {
			return err
		}
		if err := h.asApproved(a, held.Outcome, &would.Receipt, watched.sends.ids, own); err != nil {
			return err
		}
		if _, err := final.did(ctx, output, tx, mayRead(accepted.Target()), target.history); err != nil {
			return err
		}
		if work.readsOnly() {
			return nil // and committed below: this transaction cannot write
		}
		if err := final.keep(ctx, tx, accepted, decisionKey(d.Script), changes, target.history); err != nil {
			return err
		}
		sealed, err = h.concludeBoth(tx, a, own, final)
		committed = err == nil
		return err
	}
	if work.readsOnly() {
		err = target.store.View(ctx, attempt)
	} else {
		err = h.transact(ctx, target, attempt)
	}
	switch {
	case errors.Is(err, errDryRun):
		return nil, nil
	case err != nil && ofScript(err) && final != nil:
		// It has no effects, and whether that is what was looked at is compared too.
		committed = false
		final.failed(h, accepted, err, watched)
		if err := h.asApproved(a, held.Outcome, &final.Receipt, watched.sends.ids, own); errors.Is(err, errDryRun) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	if !committed {
		ctx, cancel := context.WithTimeout(h.running, settleTime) // the time of the decision may be over
		defer cancel()
		return h.concluded(ctx, a, target, own, final)
	}
	final.kept.Committed()
	return sealed, nil
}

// again accepts a held script anew, and finds its code.
func (h *Host) again(ctx context.Context, target *peerContext, held *review.Held, w *waiting) (accepted *policy.Accepted, work work, release func(), err error) {
	v, err := envelope.OpenHeld(held.Sealed, w.pending.Script, target.entry.ID)
	if err != nil {
		return nil, nil, nil, err
	}
	s := v.Script()
	found, err := module.Find(s.Logic, target.modules, h.modules)
	if err != nil {
		return nil, nil, nil, notDecided(script.NotFound, "%v any more: put it back, or reject the script", err)
	}
	defer func() {
		if err != nil {
			found.Release()
		}
	}()
	if found.Digest != w.pending.Module {
		return nil, nil, nil, notDecided(script.Conflict, "module %s is %s now, and what it would do was looked at with %s: put that back, or reject the script", s.Logic.Name, script.Digest(found.Digest), w.pending.Module)
	}
	// Who was allowed this when it was sent may not be any more. An owner who wants
	// it nevertheless writes the permit first: an approval goes round no policy.
	accepted, err = target.acceptHeld(v, codeOf(found), held.Transport)
	var refused *policy.RefusedError
	if errors.As(err, &refused) {
		return nil, nil, nil, notDecided(script.Refused, "it is not permitted any more: %v; permit it again, or reject it", refused)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if work, err = h.work(ctx, accepted, target, found); err != nil {
		return nil, nil, nil, err
	}
	return accepted, work, found.Release, nil
}

// acceptHeld accepts a held script again. What its caller may use was taken from
// the caller's budgets when it was held; when it was sent it was in time, and came by
// what it came by. That a
// delegation that it came by was taken back since, counts.
func (c *peerContext) acceptHeld(v *envelope.Verified, code policy.Code, by string) (*policy.Accepted, error) {
	parties := c.meet(v.Script().Caller, v.Via()...)
	if err := c.unrevoked(v, parties); err != nil {
		return nil, err
	}
	when := policy.Occasion{Now: c.host.now(), Transport: by}
	accepted, err := c.policies.Current().Accept(v, parties, code, when)
	if err == nil {
		return accepted, nil
	}
	c.reread() // who has just permitted it again should not have to wait for that to be noticed
	return c.policies.Current().Accept(v, parties, code, when)
}

// asApproved compares what a script does with what its owner has looked at, as far
// as the decision minds. Of a dry run of the decision it is what it shows.
func (h *Host) asApproved(a *policy.Accepted, seen review.Outcome, does *script.Receipt, sent []script.ID, own *receipt) error {
	d, now := a.Script().Logic.Decide, outcomeOf(does, sent)
	var differs string
	switch changes, answer := now.Changes != seen.Changes && !d.OtherChanges, now.Answer != seen.Answer && !d.OtherAnswer; {
	case changes && answer:
		differs = "change something else, and answer something else, than"
	case changes:
		differs = "change something else than"
	case answer:
		differs = "answer something else than"
	}
	if own.DryRun {
		own.Result, own.Log, own.Effects, own.Usage = does.Result, does.Log, does.Effects, does.Usage
		if does.Code != script.Done {
			return notDecided(does.Code, "%s", does.Message)
		}
		if differs == "" {
			return errDryRun
		}
	}
	if differs == "" {
		return nil
	}
	again := shell([]string{Command, "review", "approve", label(a.Parties().Target), d.Script.Short(), "--dry-run"})
	return notDecided(script.Conflict, "by now script %s would %s what was looked at, so nothing was done, and it is still held; to look at it again: %s", d.Script.Short(), differs, again)
}
