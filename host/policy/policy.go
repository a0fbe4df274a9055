// Package policy decides, by the Cedar policies of a context's owner, whether a
// verified script may run there and what it may touch while it does.
//
// A Set is one version of an owner's policies, immutable. Accept evaluates the
// submission; the *Accepted that it returns is the only way to run a script,
// and carries the grants that its file accesses are checked against:
//
//	live := policy.Open("peers/bob/policy", watcher, report)                    // hot-reloads
//	accepted, err := live.Current().Accept(verified, parties, code, policy.Occasion{Now: time.Now()}) // *RefusedError
//	err = accepted.Target().Allow(script.Read, "/guestbook/a.txt")              // *DeniedError
//
// What policies can speak of is in Schema; Starter is a new peer's first file,
// and Permit writes the next ones.
//
// Default deny. Cedar skips a policy that errors, so that a broken forbid would
// let a permit through; here a decision with any evaluation error is a refusal.
// Files that do not parse, or do not type check, are never in force, not even in
// part; see Live for what is in force instead.
//
// An owner's policies are trusted to say what happens to the owner's data, and
// not trusted to be harmless to the host: what cannot be bounded in time and
// memory is not loaded.
package policy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Code is what a policy may know of the code that asks to run.
type Code struct {
	Found   bool // false: the target has no such module; what is not known is zero
	Digest  script.Digest
	Name    string // within its layer; "" for carried code
	Layer   string // "peer", "host" or "carried"
	Size    int64
	Imports []string // modules of host functions it imports, sorted
	// Language is what the compiler wrote into it, "Go go1.26"; "" if nothing. It
	// is the module's own word. Of a text it is the language that it is run in.
	Language string
	Text     bool
	// Publisher is who signed it; "" if nobody. What claims to be signed and is not
	// never gets here.
	Publisher peer.ID
	// Types are those that it declares of params, "string", "number" or "boolean", with
	// a "?" if they may be missing, by
	// entry, "run" for the default one. They are the module's own word.
	Types map[string]map[string]string
	// Instead: it is not what the script names or brings, but the module of a layer
	// that the target's owner has mapped that to.
	Instead bool
}

// Accepted is a verified script that a policy permits. Only Set.Accept makes one.
type Accepted struct {
	*envelope.Verified
	parties peer.Parties
	code    Code
	by      []string
	limits  Limits
	review  time.Duration
	grants  *Grants
}

// Parties are the two peers, with the target owner's names and circles for them.
func (a *Accepted) Parties() peer.Parties { return a.parties }

// Code is the code that was accepted; no other may be run.
func (a *Accepted) Code() Code { return a.code }

// Policies names the policies that permitted it.
func (a *Accepted) Policies() []string { return a.by }

// Limits are those that the policies which permitted it set, zero where they set
// none.
func (a *Accepted) Limits() Limits { return a.limits }

// Review is for how long the script is to be held until the target's owner has
// seen what it would do, and approves it: by @review of a policy that permitted it.
// 0 means that it runs.
func (a *Accepted) Review() time.Duration { return a.review }

// Target are the grants in the target's context.
func (a *Accepted) Target() *Grants { return a.grants }

// Owner are the grants of the target's owner, who may see everything there. No
// script gets them.
func (a *Accepted) Owner() *Grants { return ownerGrants(a.parties.Target) }

func ownerGrants(owner peer.Peer) *Grants {
	return &Grants{owner: owner, all: true, answers: make(map[script.Grant]*DeniedError)}
}

// Accept decides whether a script may run. Parties must be those of the script;
// their names and circles are the target owner's, whose policies s are. Code
// must be what the script's logic resolves to.
//
// The error is a *RefusedError if that is the decision. Any other error means
// that the host asked about something else than what was sent; that must not
// run either, and is the host's fault.
func (s *Set) Accept(v *envelope.Verified, parties peer.Parties, code Code, when Occasion) (*Accepted, error) {
	sent := v.Script()
	if err := consistent(v, parties, code); err != nil {
		return nil, fmt.Errorf("accept script %s: %w", digestText(v.ID()), err)
	}
	if len(sent.Logic.Revoke) > 0 {
		return acceptRevocation(v, parties, code, when.Now)
	}
	if sent.Logic.OfOwner() {
		return acceptOwner(v, parties, code, when.Now)
	}
	r := Request{Parties: parties, Code: code, Entry: sent.Entry, Params: len(sent.Params), Args: sent.Params, Asked: asked(sent.Logic), Now: when.Now, Transport: when.Transport, Used: when.Used, Chain: v.Chain()}
	grants := s.Grants(r)
	verdict := grants.submit()
	if !verdict.Permitted {
		return nil, &RefusedError{Request: r, Verdict: verdict}
	}
	// After the policies: only to whom they would let run it may this say whether
	// a module is here.
	if reason := grants.behalf.run(r); reason != "" {
		return nil, &RefusedError{Request: r, Reason: reason}
	}
	if s.args { // before anything runs: a policy about files may look at them
		if _, err := r.args(); err != nil {
			return nil, &RefusedError{Request: r, Verdict: Verdict{Unread: err}}
		}
	}
	return &Accepted{Verified: v, parties: parties, code: code, by: verdict.Policies, limits: s.limits(verdict), review: s.review(verdict), grants: grants}, nil
}

// Owner is what an Accepted names instead of a policy when it needed none.
const Owner = "(owner)"

// Issuer is what an Accepted names that only takes back what somebody has issued.
const Issuer = "(issuer)"

// acceptRevocation accepts that somebody takes back a delegation, whoever brings it, if
// the target's owner knows who: to keep what strangers sign would let them fill the
// place.
func acceptRevocation(v *envelope.Verified, parties peer.Parties, code Code, now time.Time) (*Accepted, error) {
	refuse := func(format string, a ...any) error {
		return &RefusedError{Request: Request{Parties: parties, Code: code, Now: now}, Reason: fmt.Sprintf(format, a...)}
	}
	r, err := envelope.OpenRevocation(v.Script().Logic.Revoke)
	if err != nil {
		return nil, refuse("%v", err)
	}
	if by, _ := parties.Other(string(r.Issuer)); !by.Known() && r.Issuer != parties.Target.ID {
		return nil, refuse("the owner of the context of %s does not know %s, who takes a delegation back, and nothing that strangers sign is kept: tell the owner, or the operator of the host",
			parties.Target.ID.Short(), r.Issuer)
	}
	return &Accepted{Verified: v, parties: parties, code: code, by: []string{Issuer}, grants: &Grants{}}, nil
}

// acceptOwner accepts a wish to undo a script, or a decision about one that is held
// for review, from the context's owner, and from nobody else. No policy is asked:
// an undo touches whatever the script touched, which is more than any path or
// module says, and tells whether it is there; and an owner whose policies let in
// what should be undone must not depend on them. What a decision lets run is
// accepted for itself.
func acceptOwner(v *envelope.Verified, parties peer.Parties, code Code, now time.Time) (*Accepted, error) {
	if parties.Caller.ID != parties.Target.ID {
		r := Request{Parties: parties, Code: code, Now: now}
		what := "undo what was done"
		if v.Script().Logic.Decide != (script.Decision{}) {
			what = "decide about what is held for review"
		}
		return nil, &RefusedError{Request: r, Reason: fmt.Sprintf("%s may not %s in the context of %s: only its owner may",
			label(parties.Caller), what, label(parties.Target))}
	}
	return &Accepted{Verified: v, parties: parties, code: code, by: []string{Owner}, grants: ownerGrants(parties.Target)}, nil
}

// consistent checks that the decision is about the script that was sent. Deciding
// about one and running another is the mistake that would not be seen.
func consistent(v *envelope.Verified, parties peer.Parties, code Code) error {
	sent := v.Script()
	logic := sent.Logic
	switch {
	case v.Prior() != nil:
		return errors.New("it was delivered before: answer with its receipt")
	case parties.Caller.ID != sent.Caller || parties.Target.ID != sent.Target:
		return fmt.Errorf("it is from %s to %s, and was to be decided as from %s to %s",
			sent.Caller.Short(), sent.Target.Short(), parties.Caller.ID.Short(), parties.Target.ID.Short())
	case !slices.EqualFunc(v.Chain(), parties.Via, func(l envelope.Link, p peer.Peer) bool { return l.To == p.ID }):
		return errors.New("it was to be decided as if it had come by others, on behalf of its caller, than it did")
	case logic.OfOwner() && code.Digest != script.Digest{}:
		return fmt.Errorf("it asks to undo or decide about another script, and was to be decided for %s", digestText(code.Digest))
	case !code.Found:
		return nil
	case code.Instead:
		if code.Name == "" || code.Layer == "carried" {
			return fmt.Errorf("it was to be decided for %q of layer %q, which nobody can map anything to", code.Name, code.Layer)
		}
	case logic.Digest != script.Digest{} && code.Digest != logic.Digest:
		return fmt.Errorf("it asks for %s, and was to be decided for %s", digestText(logic.Digest), digestText(code.Digest))
	case (len(logic.Wasm) > 0 || logic.Text != script.Text{}) && (code.Name != "" || code.Layer != "carried"):
		// Policies trust names: they are the target's, or its host's.
		return fmt.Errorf("it carries its code, and was to be decided for %q of layer %q", code.Name, code.Layer)
	}
	return nil
}

// RefusedError is the answer to a script that no policy permits to run, or that
// one forbids.
type RefusedError struct {
	Request Request
	Verdict Verdict
	// Reason, when it is not "", says it all: no policy was asked.
	Reason string
	// Again is when the same would be permitted, if all that is in the way is what
	// the caller has used; zero if that is not known. See Set.Again.
	Again time.Time
	// Hint is the command that would allow it, for the message. The host sets
	// it; this package knows no commands.
	Hint string
}

// Error is meant for the caller, who may be a stranger: it names the policies
// that decided, and quotes none. What is wrong with a policy is in Verdict, for
// the owner.
func (e *RefusedError) Error() string {
	if e.Reason != "" {
		return e.Reason
	}
	owner := label(e.Request.Parties.Target)
	message := fmt.Sprintf("%s may not run %s in the context of %s: %s",
		e.Request.sender(), e.Request.what(), owner, e.Verdict.Public().of(owner))
	if !e.Again.IsZero() {
		message += "; what the caller may use in a while is used up: send it again after " + e.Again.UTC().Format(time.RFC3339)
	}
	if e.Hint != "" {
		message += "; to allow it: " + e.Hint
	}
	return message
}

// Permit is the permit that would allow it, were nothing forbidding it.
func (e *RefusedError) Permit() Permit {
	r := e.Request
	p := Permit{Peer: r.Parties.Caller.ID, Name: r.Parties.Caller.Name, Entries: []string{r.Entry}, Module: r.Code.Name}
	if p.Module == "" && r.Code.Found {
		p.Digest = r.Code.Digest
	}
	return p
}

// asked is what a script's logic names. It is the script's own word: a refusal
// that said more would tell a stranger which modules an owner has.
func asked(l script.Logic) string {
	switch {
	case l.Name != "":
		return shortened(l.Name)
	case l.Digest != script.Digest{}:
		return digestText(l.Digest)
	}
	return "code that it carries"
}

// what names the code as a person knows it.
func (r Request) what() string {
	switch {
	case r.Asked != "" && r.Entry != "":
		return r.Asked + ":" + r.Entry
	case r.Asked != "":
		return r.Asked
	case !r.Code.Found:
		return "what it asks for"
	case r.Code.Name == "":
		return "code that it carries"
	case r.Entry == "":
		return r.Code.Name
	}
	return r.Code.Name + ":" + r.Entry
}
