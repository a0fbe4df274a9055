// Package envelope turns bytes into a script that somebody is known to have
// signed for somebody, now, and not before; and signs what we say.
//
// Open is the only maker of a Verified, and takes a host's part; SealScript and
// OpenReceiptOf are the sender's:
//
//	sealed, id, err := envelope.SealScript(s, aliceKey)
//	verified, err := envelope.Open(ctx, sealed, time.Now(), known)
//	answer, err := envelope.SealReceipt(receipt, hostKey)
//	receipt, host, err := envelope.OpenReceiptOf(id, answer, hostID)
//
// An envelope is a protobuf message (circles.v1.Envelope): payload, payload
// type, signer and signature. The signature is Ed25519 over DSSE's
// pre-authentication encoding of type and payload
// (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md), so the
// exact bytes are signed and a receipt can never be shown as a script. An
// envelope has one encoding only: one that decodes but does not encode to the
// same bytes is refused, so no byte of it can be changed.
//
// # Delegations
//
// A peer may let another, or a host, send scripts in its name: it signs a
// script.Delegation, and who has it may pass it on by signing another that names
// it as parent. A script that is sent so carries the chain in its signed bytes,
// from the caller's own delegation to the one for whoever signs the script. Each
// link says no more than the one before it, or the chain is refused with the name
// of the field; so what a chain allows is what its every link does. Open checks
// that; what of it the script may do is decided by package policy.
package envelope

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

const (
	// ClockSkew is how far the clocks of a sender and a host may differ: a script
	// counts as fresh that much before it may start and after its deadline.
	ClockSkew = 30 * time.Second

	// DefaultLifetime is the time that SealScript gives a script without a deadline.
	DefaultLifetime = time.Minute
)

// Known is what Open asks of the host that it runs on.
type Known interface {
	// Holds reports whether the context of id is on this host.
	Holds(id peer.ID) bool
	// Prior returns the sealed receipt of the script with which signer, on behalf
	// of caller if that is another, used nonce towards target before, and that
	// script's id. The nonces of each are their own: or who may act for another
	// could use up the nonces of that one's scripts.
	Prior(ctx context.Context, caller, signer, target peer.ID, nonce script.Nonce) (id script.ID, receipt []byte, ok bool, err error)
}

// Verified is a script whose signature, target and time have been checked.
// Only Open makes one.
type Verified struct {
	script script.Script
	id     script.ID
	signer peer.ID
	chain  []Link
	sealed []byte
	prior  []byte

	supposed bool // see Suppose
}

// Script returns the script. The caller must not change what it points to.
func (v *Verified) Script() *script.Script { return &v.script }

// ID is the SHA-256 of the signed bytes.
func (v *Verified) ID() script.ID { return v.id }

// Signer is who signed it: the caller, or at the end of Chain another, on the
// caller's behalf.
func (v *Verified) Signer() peer.ID { return v.signer }

// Chain is how the caller let Signer send it, the caller's own delegation first;
// nil if the caller signed it. The caller must not change it.
func (v *Verified) Chain() []Link { return v.chain }

// Via is whom the delegations of Chain are for, Signer last; nil without one.
func (v *Verified) Via() (via []peer.ID) {
	for _, l := range v.chain {
		via = append(via, l.To)
	}
	return via
}

// Sealed is what was opened; it must not be changed.
func (v *Verified) Sealed() []byte { return v.sealed }

// Prior is the sealed receipt of this very script if it was delivered before,
// else nil. It must then be the answer. Its times have not been looked at: who
// asks again after the deadline finds out what became of the script.
func (v *Verified) Prior() []byte { return v.prior }

// Open checks a sealed script as of now: that it is in form, that its caller
// signed it, or somebody to whom a chain of delegations leads, that its target is held here, that it is the time for it, and that
// its nonce is new, or that it is the same script again (see Verified.Prior).
// An error is an *Error, but for one that known.Prior returned.
//
// Two deliveries of a script at the same moment may both find no prior receipt:
// the store's unique log key decides between them when they commit.
func Open(ctx context.Context, sealed []byte, now time.Time, known Known) (*Verified, error) {
	v, err := openScript(sealed)
	if err != nil {
		return nil, fmt.Errorf("open script: %w", err)
	}
	s := &v.script
	if !known.Holds(s.Target) {
		return nil, fail(NotHere, "open script: the context of %s is not on this host: send it to the host that holds it", s.Target)
	}
	id, receipt, ok, err := known.Prior(ctx, s.Caller, v.signer, s.Target, s.Nonce)
	if err != nil {
		return nil, fmt.Errorf("open script: look for an earlier delivery: %w", err)
	}
	if ok {
		if id != v.id {
			return nil, fail(Conflict, "open script: its nonce was used before, for the other script %s: draw a new one for each script", id)
		}
		v.prior = receipt
		return v, nil
	}
	if err := checkFresh(s, now); err != nil {
		return nil, err
	}
	if v.chain != nil {
		if err := CheckTime(v.chain, now); err != nil {
			return nil, fmt.Errorf("open script: %w", err)
		}
	}
	return v, nil
}

// openScript checks what does not depend on who opens it, and when.
func openScript(sealed []byte) (*Verified, error) {
	payload, signer, err := open(sealed, script.MaxSealed, scriptType)
	if err != nil {
		return nil, err
	}
	s, err := script.DecodeScript(payload)
	if err != nil {
		return nil, fail(Malformed, "%w", err)
	}
	var chain []Link
	switch {
	case len(s.Chain) > 0:
		if chain, err = OpenChain(s.Chain); err == nil {
			err = leads(chain, &s, signer)
		}
		if err != nil {
			return nil, err
		}
	case s.Caller != signer:
		return nil, fail(Unauthenticated, "it says it is from %s, but %s signed it: only a caller signs for itself, and whoever carries its delegation", s.Caller, signer)
	}
	return &Verified{script: s, id: script.IDOf(payload), signer: signer, chain: chain, sealed: sealed}, nil
}

// OpenHeld opens a script again that Open has opened, and that the host has kept
// since, sealed, for target to approve, or whoever sent it, to ask about: id is what Open said that it is. It
// checks the signature. The script, and the delegations that it came by, were in time then, and once; when it may
// still be run is for who kept it to say. A target of "" is any.
func OpenHeld(sealed []byte, id script.ID, target peer.ID) (*Verified, error) {
	v, err := openScript(sealed)
	if err != nil {
		return nil, fmt.Errorf("open held script: %w", err)
	}
	switch {
	case v.id != id:
		return nil, fail(Conflict, "open held script: it is %s, and not %s", v.id, id)
	case target != "" && v.script.Target != target:
		return nil, fail(NotHere, "open held script: it is for %s, and not for %s", v.script.Target, target)
	}
	return v, nil
}

func checkFresh(s *script.Script, now time.Time) error {
	const hint = "check both clocks, or seal it again"
	if early := s.NotBefore.Sub(now); early > ClockSkew {
		return fail(NotYet, "open script: it may not start before %s and here it is %s: %s", stamp(s.NotBefore), stamp(now), hint)
	}
	left := s.Deadline.Sub(now)
	if left < -ClockSkew {
		return fail(Expired, "open script: its deadline was %s and here it is %s: %s", stamp(s.Deadline), stamp(now), hint)
	}
	if left > script.MaxLifetime+ClockSkew {
		return fail(Expired, "open script: its deadline %s is more than %s from now, %s: give it a nearer one", stamp(s.Deadline), script.MaxLifetime, stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// SealScript signs s with its caller's key, or that of whom its chain leads to,
// and returns the sealed bytes and the script's id. What s leaves empty it fills
// in: the caller from key or chain, a random nonce, now as not-before, and
// DefaultLifetime after that as deadline. To send a script again, send the same
// bytes: sealing again makes another script.
func SealScript(s script.Script, key *peer.Key) (sealed []byte, id script.ID, err error) {
	if len(s.Chain) > 0 {
		chain, err := OpenChain(s.Chain)
		if err == nil {
			s.Caller = cmp.Or(s.Caller, chain[0].Issuer)
			err = leads(chain, &s, key.ID())
		}
		if err != nil {
			return nil, script.ID{}, fmt.Errorf("seal script: %w", err)
		}
	} else if s.Caller == "" {
		s.Caller = key.ID()
	}
	if len(s.Chain) == 0 && s.Caller != key.ID() {
		return nil, script.ID{}, fmt.Errorf("seal script: it is from %s, but the key is that of %s: sign with the caller's key", s.Caller, key.ID())
	}
	if s.Nonce == (script.Nonce{}) {
		if _, err := rand.Read(s.Nonce[:]); err != nil {
			return nil, script.ID{}, fmt.Errorf("seal script: draw a nonce: %w", err)
		}
	}
	if s.NotBefore.IsZero() {
		s.NotBefore = time.Now()
		if !s.Deadline.IsZero() && s.Deadline.Before(s.NotBefore) {
			return nil, script.ID{}, fmt.Errorf("seal script: its deadline %s has passed", stamp(s.Deadline))
		}
	}
	if s.Deadline.IsZero() {
		s.Deadline = s.NotBefore.Add(DefaultLifetime)
	}
	payload, err := s.Encode()
	if err != nil {
		return nil, script.ID{}, fmt.Errorf("seal script: %w", err)
	}
	if len(payload) > script.MaxSealed-overhead {
		return nil, script.ID{}, fail(TooLarge, "seal script: it is %d bytes long, at most %d are taken: name a module instead of carrying it, or send less", len(payload), script.MaxSealed-overhead)
	}
	return seal(scriptType, payload, key), script.IDOf(payload), nil
}

// SealReceipt signs r with the key of the host that it names. See
// script.Receipt.Encode for what is cut to fit.
func SealReceipt(r script.Receipt, key *peer.Key) ([]byte, error) {
	if r.Host != key.ID() {
		return nil, fmt.Errorf("seal receipt: it is by %s, but the key is that of %s: sign with the host's key", r.Host, key.ID())
	}
	payload, err := r.Encode()
	if err != nil {
		return nil, fmt.Errorf("seal receipt: %w", err)
	}
	return seal(receiptType, payload, key), nil
}

// OpenReceipt checks a sealed receipt: that it is in form and that the host that
// it names signed it. That is *a* host; whoever knows which one holds the target
// passes its id, and a receipt of any other is refused. The error is an *Error.
func OpenReceipt(sealed []byte, host peer.ID) (r script.Receipt, signer peer.ID, err error) {
	payload, signer, err := open(sealed, script.MaxSealed, receiptType)
	if err != nil {
		return script.Receipt{}, "", fmt.Errorf("open receipt: %w", err)
	}
	if host != "" && signer != host {
		return script.Receipt{}, "", fail(Unauthenticated, "open receipt: %s signed it, but the target's host is %s: ask the target which host is right", signer, host)
	}
	r, err = script.DecodeReceipt(payload)
	if err != nil {
		return script.Receipt{}, "", fail(Malformed, "open receipt: %w", err)
	}
	if r.Host != signer {
		return script.Receipt{}, "", fail(Unauthenticated, "open receipt: it says it is by %s, but %s signed it", r.Host, signer)
	}
	return r, signer, nil
}

// ReadReceipt is OpenReceipt without a look at the signature, which is most of its
// cost, for a host that reads many receipts of its own log. What it returns proves
// nothing to anybody.
func ReadReceipt(sealed []byte) (script.Receipt, error) {
	p, err := split(sealed)
	if err != nil || string(p.payloadType) != receiptType {
		return script.Receipt{}, fail(Malformed, "read receipt: not a sealed receipt: %v", err)
	}
	r, err := script.DecodeReceipt(p.payload)
	if err != nil {
		return script.Receipt{}, fail(Malformed, "read receipt: %w", err)
	}
	return r, nil
}

// OpenReceiptOf is OpenReceipt for who sent a script and must know that the
// answer is to that one: a receipt of any other script is refused.
func OpenReceiptOf(id script.ID, sealed []byte, host peer.ID) (r script.Receipt, signer peer.ID, err error) {
	r, signer, err = OpenReceipt(sealed, host)
	if err != nil {
		return script.Receipt{}, "", err
	}
	if r.Script != id {
		return script.Receipt{}, "", fail(Unauthenticated, "open receipt: it is of script %s, not of %s, which was sent", r.Script, id)
	}
	return r, signer, nil
}
