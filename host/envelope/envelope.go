// Package envelope turns bytes into a script that somebody is known to have
// signed for somebody, now, and not before; and signs what we say.
//
// An envelope is a protobuf message (circles.v1.Envelope): payload, payload
// type, signer and signature. The signature is Ed25519 over DSSE's
// pre-authentication encoding of type and payload
// (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md), so the
// exact bytes are signed and a receipt can never be shown as a script. An
// envelope has one encoding only: one that decodes but does not encode to the
// same bytes is refused, so no byte of it can be changed.
package envelope

import (
	"context"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Known is what Open asks of the host that it runs on.
type Known interface {
	// Holds reports whether the context of id is on this host.
	Holds(id peer.ID) bool
	// Prior returns the sealed receipt of the script with which caller used
	// nonce towards target before, and that script's id.
	Prior(ctx context.Context, caller, target peer.ID, nonce script.Nonce) (id script.ID, receipt []byte, ok bool, err error)
}

// Verified is a script whose signature, target and time have been checked.
// Only Open makes one.
type Verified struct {
	script script.Script
	id     script.ID
	prior  []byte
}

// Script returns the script. The caller must not change what it points to.
func (v *Verified) Script() *script.Script { return &v.script }

// ID is the SHA-256 of the signed bytes.
func (v *Verified) ID() script.ID { return v.id }

// Prior is the sealed receipt of this very script if it was delivered before,
// else nil. It must then be the answer.
func (v *Verified) Prior() []byte { return v.prior }
