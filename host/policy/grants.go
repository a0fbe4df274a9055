package policy

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Grants answers what one accepted script may do to the files and records of one
// context:
// the target's (Accepted.Target), or the caller's (Set.Lend). It decides by the
// policies that were in force when the script was accepted, whatever is saved
// while the script runs. The zero Grants, and nil, allow nothing. Its methods
// may be called from any goroutine.
//
// The policies were reduced when the first question was asked, to those that the
// path alone decides about and those that it does not. An access that the former
// allow costs a few map lookups; any other is a full authorization on what is
// left, remembered for as long as the script runs.
type Grants struct {
	owner   peer.Peer      // whose files
	all     bool           // everything is allowed: the owner's own doing
	lending bool           // only what is in lent, too
	lent    []script.Grant // by the owner, in the script that the owner signed
	behalf  *behalf        // nil if the caller itself sent the script

	called *Grants // of the code that called it, which it has no more than; nil for none

	mu       sync.Mutex
	question *question
	answers  map[script.Grant]*DeniedError // nil: allowed
}

// maxAnswers bounds what Grants remember: a script chooses the paths, and each
// may be script.MaxPath long.
const maxAnswers = 512

// DeniedError is the answer to a script that tried what it may not do.
type DeniedError struct {
	Action  script.Action
	Path    string    // as in a script.Grant
	Owner   peer.Peer // whose it is
	Verdict Verdict
	// Reason, when it is not "", says why no policy was asked.
	Reason string
	// Hint tells the owner what to do to allow it. The host may set it; this
	// package knows no commands. It is left out of Error, which a script can
	// read.
	Hint string
	// Module is the code that may not, by its name; By says that it called the one that
	// asked, which may not do more.
	Module string
	By     bool
}

func (e *DeniedError) Error() string {
	reason := e.Reason
	if reason == "" {
		reason = e.Verdict.Public().of(label(e.Owner))
	}
	if e.By {
		reason = fmt.Sprintf("%s called this, and may not: %s", e.Module, reason)
	}
	if isGiven(e.Action) {
		return fmt.Sprintf("may not have what %s is, in the context of %s: %s", e.Action, label(e.Owner), reason)
	}
	what := ""
	if e.Action == script.Send {
		return fmt.Sprintf("may not send to %s from the context of %s: %s", shortened(e.Path), label(e.Owner), reason)
	}
	if e.Action == Call {
		what = "module "
	}
	if e.Action.OfRecords() {
		what = "record "
		if !strings.Contains(e.Path, "/") {
			what = "collection "
		}
	}
	return fmt.Sprintf("may not %s %s%q in the context of %s: %s", e.Action, what, shortened(e.Path), label(e.Owner), reason)
}

// Allow reports, with a *DeniedError, whether the script may not do action on
// path, which is as in a script.Grant. A path of files is absolute and clean:
// another is denied, never cleaned, since what was checked must be what is opened.
func (g *Grants) Allow(action script.Action, path string) error {
	err := g.allow(action, path)
	if err == nil && g != nil && g.called != nil {
		return byCaller(g.called.Allow(action, path))
	}
	return err
}

func (g *Grants) allow(action script.Action, path string) error {
	if g != nil && g.all {
		if wrongResource(action, path) == "" {
			return nil
		}
	}
	if g == nil || g.question == nil {
		return &DeniedError{Action: action, Path: path, Reason: "nothing is granted"}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := script.Grant{Action: action, Path: path}
	denied, ok := g.answers[asked]
	if !ok {
		if g.surely(action, path) {
			return nil // that costs less than to remember it
		}
		denied = g.decide(action, path)
		if len(g.answers) >= maxAnswers {
			clear(g.answers)
		}
		g.answers[asked] = denied
	}
	if denied == nil {
		return nil
	}
	e := *denied // the host may add a hint
	return &e
}

// May reports, with a *DeniedError, whether the script may have what is given to
// it unless a policy forbids it: Clock, Random or Log. It costs next to nothing
// where no policy could.
func (g *Grants) May(action script.Action) error {
	err := g.may(action)
	if err == nil && g.called != nil {
		return byCaller(g.called.May(action))
	}
	return err
}

func (g *Grants) may(action script.Action) error {
	switch {
	case g == nil || g.question == nil && !g.all || !isGiven(action):
		return &DeniedError{Action: action, Reason: "nothing is granted"}
	case g.all || g.question.set.given[action]:
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := script.Grant{Action: action}
	denied, ok := g.answers[asked]
	if !ok {
		target := contextUID(g.question.request.Parties.Target.ID)
		if v := g.behalf.narrow(g.question.ask(action, target), action, target); !v.Permitted {
			denied = &DeniedError{Action: action, Owner: g.owner, Verdict: v, Module: g.question.request.Code.Name}
		}
		g.answers[asked] = denied
	}
	if denied == nil {
		return nil
	}
	e := *denied
	return &e
}

// Send reports, with a *DeniedError, whether the script may send another one to a peer,
// whom it calls by petname or did:key, and who that is. Of somebody whom the owner does
// not know by that name it is as of one whom no policy knows, and if that is allowed,
// the peer has no ID: or who is known here could be found out by trying names.
func (g *Grants) Send(as string) (peer.Peer, error) {
	if g == nil || g.question == nil {
		return peer.Peer{}, &DeniedError{Action: script.Send, Path: as, Reason: "nothing is granted"}
	}
	to, _ := g.question.request.Parties.Other(as)
	g.mu.Lock()
	denied := g.sends(to, as)
	g.mu.Unlock()
	if denied != nil {
		return peer.Peer{}, denied
	}
	if g.called != nil {
		to, err := g.called.Send(as)
		return to, byCaller(err)
	}
	return to, nil
}

// sends is decide for a peer, as the script calls it. The caller holds g.mu.
func (g *Grants) sends(to peer.Peer, as string) *DeniedError {
	e := &DeniedError{Action: script.Send, Path: as, Owner: g.owner, Module: g.question.request.Code.Name}
	if e.Reason = g.behalf.allow(script.Send, string(to.ID)); e.Reason != "" {
		return e
	}
	resource := peerUID(to.ID)
	g.question.about(to)
	g.behalf.about(to)
	if e.Verdict = g.behalf.narrow(g.question.ask(script.Send, resource), script.Send, resource); e.Verdict.Permitted {
		return nil
	}
	return e
}

// about says what is in the circles of a peer to whom something is to be sent.
func (q *question) about(to peer.Peer) {
	if q.set.problem == nil {
		q.evaluation().entities.to = peerEntity(to)
	}
}

func (b *behalf) about(to peer.Peer) {
	if b != nil {
		for _, q := range b.via {
			q.about(to)
		}
	}
}

// surely reports whether the policies allow it whatever else is asked. It is
// what nearly every access of a script that may do it comes to.
func (g *Grants) surely(action script.Action, path string) bool {
	return isAsked(action) && g.behalf == nil && wrongResource(action, path) == "" && (!g.lending || g.isLent(action, path)) &&
		g.question.permits(action, resourceUID(action, path))
}

func (g *Grants) decide(action script.Action, path string) *DeniedError {
	e := &DeniedError{Action: action, Path: path, Owner: g.owner, Module: g.question.request.Code.Name}
	if !isAsked(action) {
		e.Reason = "there is no such action on files, records or modules"
		return e
	}
	if e.Reason = wrongResource(action, path); e.Reason != "" {
		return e
	}
	if g.lending && !g.isLent(action, path) {
		e.Reason = fmt.Sprintf("the script does not lend it; send it with --lend %s:%s", action, path)
		return e
	}
	if action == script.Send {
		to, _ := g.question.request.Parties.Other(path)
		return g.sends(to, path)
	}
	if e.Reason = g.behalf.allow(action, path); e.Reason != "" {
		return e
	}
	resource := resourceUID(action, path)
	if e.Verdict = g.behalf.narrow(g.question.ask(action, resource), action, resource); e.Verdict.Permitted {
		return nil
	}
	return e
}

// submit decides whether the script may run at all.
func (g *Grants) submit() Verdict {
	target := contextUID(g.owner.ID)
	return g.behalf.narrow(g.question.ask(submit, target), submit, target)
}

func (g *Grants) isLent(action script.Action, path string) bool {
	for _, l := range g.lent {
		if l.Action != action || wrongResource(action, l.Path) != "" {
			continue
		}
		if action.OfRecords() && holds(l.Path, path) || !action.OfRecords() && covers(l.Path, path) {
			return true
		}
	}
	return false
}

// Lend returns what a script may do, while it runs at its target, to the files
// of its caller, whose policies s are: what the signed script lends, as far as
// the policies permit the target to do it with context.lent true.
//
// The parties carry the names and circles that the caller's owner uses, as those
// for Accept carry the target's. code is what the caller's host knows of the
// code; when the target runs elsewhere that is no more than the script says.
func (s *Set) Lend(sent *script.Script, parties peer.Parties, code Code, now time.Time) *Grants {
	r := Request{Parties: parties, Code: code, Entry: sent.Entry, Params: len(sent.Params), Args: sent.Params, Now: now}
	return &Grants{
		owner:    parties.Caller,
		lending:  true,
		lent:     sent.Lent,
		question: s.asked(r, parties.Target, true),
		answers:  make(map[script.Grant]*DeniedError),
	}
}

// Grants returns what the code of r may do in the target's context once it runs.
// Whether it may run is for Accept, which returns the same.
func (s *Set) Grants(r Request) *Grants {
	return &Grants{
		owner:    r.Parties.Target,
		behalf:   s.behalf(r),
		question: s.question(r),
		answers:  make(map[script.Grant]*DeniedError),
	}
}

// label is how a message calls a peer.
func label(p peer.Peer) string {
	if p.Name != "" {
		return string(p.Name)
	}
	if p.ID == "" {
		return "nobody"
	}
	return p.ID.Short()
}

// shortened keeps a path that a script made up from filling a receipt.
func shortened(path string) string {
	const most = 256
	if len(path) > most {
		path = path[:most] + "…"
	}
	return strings.ToValidUTF8(path, "�")
}
