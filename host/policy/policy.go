// Package policy decides, by the Cedar policies of a context's owner, whether a
// verified script may run there and what it may touch while it does.
//
// A Set is one version of an owner's policies, immutable. Accept evaluates the
// submission; the *Accepted that it returns is the only way to run a script,
// and carries the grants that its file accesses are checked against:
//
//	accepted, err := bob.Policies.Accept(verified, parties, code)  // *RefusedError
//	err = accepted.Target().Allow(script.Read, "/guestbook/a.txt") // *DeniedError
//
// Default deny. Cedar skips a policy that errors, so that a broken forbid would
// let a permit through; here a decision with any evaluation error is a refusal.
package policy

import (
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Code is what a policy may know of the code that asks to run.
type Code struct {
	Found   bool // false: the target has no such module; the rest is zero
	Digest  script.Digest
	Name    string // within its layer; "" for carried code
	Layer   string // "peer", "host" or "carried"
	Size    int64
	Imports []string // modules of host functions it imports, sorted
}

// Accepted is a verified script that a policy permits. Only Set.Accept makes one.
type Accepted struct {
	*envelope.Verified
	parties peer.Parties
	code    Code
	by      []string
	grants  *Grants
}

// Parties are the two peers, with the target owner's names and circles for them.
func (a *Accepted) Parties() peer.Parties { return a.parties }

// Code is the code that was accepted; no other may be run.
func (a *Accepted) Code() Code { return a.code }

// Policies names the policies that permitted it.
func (a *Accepted) Policies() []string { return a.by }

// Target are the grants in the target's context.
func (a *Accepted) Target() *Grants { return a.grants }
