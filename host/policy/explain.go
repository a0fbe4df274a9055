package policy

import (
	"time"

	"github.com/circles-host/circles/host/script"
)

// Need is something that a script would do to a file or record of its target.
type Need struct {
	Action script.Action
	Path   string // as in a script.Grant; of a collection, a record that no policy names is meant
}

// Explanation is what would happen to a script, and why.
type Explanation struct {
	Submit Verdict
	Limits Limits // that the policies set, if Submit is permitted
	// Review is how long it would be held until the owner approves it, if it is
	// permitted; 0 if it would run.
	Review time.Duration
	Needs  []Explained // in the order that was asked for; also when Submit is refused
}

// Explained is the answer to one need: nil when it is allowed.
type Explained struct {
	Need
	By     []string // the policies that allow it
	Denied *DeniedError
}

// Explain decides a request and what it would need, and runs nothing.
func (s *Set) Explain(r Request, needs ...Need) Explanation {
	g := s.Grants(r)
	e := Explanation{Submit: g.submit()}
	if e.Submit.Permitted {
		e.Limits, e.Review = s.limits(e.Submit), s.review(e.Submit)
	}
	for _, n := range needs {
		x := Explained{Need: n, Denied: g.decide(n.Action, n.Path)}
		if x.Denied == nil {
			x.By = g.by(n)
		}
		e.Needs = append(e.Needs, x)
	}
	return e
}

// by is the policies that allow what decide has just allowed.
func (g *Grants) by(n Need) []string {
	resource := resourceUID(n.Action, n.Path)
	if n.Action == script.Send {
		to, _ := g.question.request.Parties.Other(n.Path)
		resource = peerUID(to.ID)
	}
	return g.question.ask(n.Action, resource).Policies
}
