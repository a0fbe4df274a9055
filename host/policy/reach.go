package policy

import (
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/circles-host/circles/host/script"
)

// Why answers one need as Allow does, and says by which policies.
func (g *Grants) Why(n Need) Explained {
	if isGiven(n.Action) {
		x := Explained{Need: n}
		if err := g.May(n.Action); err != nil {
			x.Denied, _ = err.(*DeniedError)
		} else {
			x.By = []string{Given}
		}
		return x
	}
	x := g.why(n)
	if x.Denied == nil && g.called != nil {
		x.Denied, _ = byCaller(g.called.Allow(n.Action, n.Path)).(*DeniedError)
	}
	return x
}

func (g *Grants) why(n Need) Explained {
	g.mu.Lock()
	defer g.mu.Unlock()
	x := Explained{Need: n, Denied: g.decide(n.Action, n.Path)}
	if x.Denied == nil {
		x.By = g.by(n)
	}
	return x
}

// Reached is a part of a context that a script may, or may not, do something to.
type Reached struct {
	Action script.Action
	Path   string // "" for what is given
	// Below says that it is about what is below Path too; else about that alone.
	Below bool
	// Depends says that conditions decide besides, on each resource or the time:
	// some of it may be otherwise.
	Depends bool
	Allowed bool
	By      []string // the policies that decide
}

// Reach is all that the code of r could do to its target's context once it runs:
// each place that a policy names, and the whole, where the answer is another than
// that of what it lies in. So what is not listed is as the nearest above it that
// is, and denied if there is none.
//
// It is not whole when policies name more than maxReached places of a kind: of
// those that are beyond nothing is said.
func (s *Set) Reach(r Request) (all []Reached, whole bool) {
	g := s.Grants(r)
	whole = true
	few := func(places []string) []string {
		whole = whole && len(places) <= maxReached
		return places[:min(len(places), maxReached)]
	}
	paths := few(s.named(typePath, "/"))
	for _, action := range []script.Action{script.Read, script.List, script.Write, script.Remove} {
		all = append(all, g.reach(action, paths)...)
	}
	collections := few(s.named(typeCollection))
	for _, at := range few(s.named(typeRecord)) {
		collection, _, _ := strings.Cut(at, "/")
		collections = append(collections, collection, at)
	}
	slices.Sort(collections)
	collections = slices.Compact(collections)
	other := notNamed(collections)
	places := append([]string{other}, collections...)
	for _, action := range []script.Action{script.Get, script.Put, script.Query, script.Delete} {
		for _, a := range g.reach(action, places) {
			if a.Path == other {
				a.Path = OtherCollections
			}
			all = append(all, a)
		}
	}
	for _, name := range append([]string{notNamed(s.named(typeModule))}, few(s.named(typeModule))...) {
		a := g.place(Call, name)
		if !slices.Contains(s.named(typeModule), name) {
			a.Path = OtherModules
		} else {
			a.Path = name
		}
		if a.Allowed || len(a.By) > 0 || a.Depends {
			all = append(all, a)
		}
	}
	peers := few(s.named(typePeer, OtherPeers))
	all = append(all, g.reachPeers(peers)...)
	for _, action := range given {
		x := g.Why(Need{Action: action})
		a := Reached{Action: action, Allowed: x.Denied == nil, By: x.By}
		if x.Denied != nil {
			a.By = x.Denied.Verdict.Policies
		}
		all = append(all, a)
	}
	return all, whole
}

// maxReached bounds what Reach asks, of each of which all policies may have to be
// evaluated.
const maxReached = 300

// notNamed is the name of a collection, or module, that no policy names: it stands for
// all of those.
func notNamed(names []string) string {
	other := "other"
	for slices.Contains(names, other) {
		other += "-x"
	}
	return other
}

// OtherModules is the Path of a Reached that is about calling the modules that are not
// listed.
const OtherModules = "*"

// OtherPeers is the Path of a Reached that is about sending to those that are not
// listed, and in no circle that policies name.
const OtherPeers = "*"

// reachPeers decides to whom the script may send others. Who else is in a circle is not
// known here, so that it may depend on that.
func (g *Grants) reachPeers(peers []string) (list []Reached) {
	inCircles := false
	for _, r := range g.question.set.rules {
		if mayMatch(actionUID(script.Send), r.action) {
			_, in, _ := resourceOf(r.resource)
			inCircles = inCircles || in.Type == typeCircle
		}
	}
	others := Reached{}
	for _, at := range peers { // OtherPeers is the first
		a := Reached{Action: script.Send, Path: at}
		if at == OtherPeers {
			a.Depends = inCircles
		}
		g.mu.Lock()
		to, _ := g.question.request.Parties.Other(at)
		denied := g.sends(to, at)
		g.mu.Unlock()
		if a.Allowed = denied == nil; a.Allowed {
			a.By = g.by(Need{script.Send, at})
		} else {
			a.By = denied.Verdict.Policies
		}
		if at == OtherPeers {
			others = a
		}
		if at == OtherPeers && (a.Allowed || len(a.By) > 0 || a.Depends) || at != OtherPeers && (a.Allowed != others.Allowed || !slices.Equal(a.By, others.By)) {
			list = append(list, a)
		}
	}
	return list
}

// OtherCollections is the Path of a Reached that is about the collections that are
// not listed.
const OtherCollections = "*"

// named are the places of a kind that policies name, sorted.
func (s *Set) named(kind types.EntityType, besides ...string) []string {
	places := besides
	for _, r := range s.rules {
		for uid := range entities((*ast.Policy)(r.policy.AST())) {
			if uid.Type == kind {
				places = append(places, string(uid.ID))
			}
		}
	}
	slices.Sort(places)
	return slices.Compact(places)
}

// reach decides about places, which are sorted, and leaves out those that are as
// what they lie in.
func (g *Grants) reach(action script.Action, places []string) (list []Reached) {
	for _, at := range places {
		if action == script.Query && strings.Contains(at, "/") {
			continue // it is asked of collections
		}
		self, below := g.place(action, at), g.place(action, beneath(action, at))
		self.Path, below.Path, below.Below = at, at, true
		if same(self, below) {
			self.Below = true
			self.Depends = self.Depends || below.Depends
		}
		// The nearest place above that was listed, or nothing.
		above := Reached{}
		for i, l := range list {
			if i == 0 && action.OfRecords() && l.Path == places[0] && at != places[0] {
				above = l // any collection that is not listed
			}
			if l.Below && l.Path != at && (action.OfRecords() && holds(l.Path, at) || !action.OfRecords() && covers(l.Path, at)) {
				above = l
			}
		}
		if !same(self, above) {
			list = append(list, self)
		}
		if !self.Below && !same(below, above) && !(action.OfRecords() && strings.Contains(at, "/")) {
			list = append(list, below)
		}
	}
	return list
}

// beneath is a name below a place that no policy names.
func beneath(action script.Action, at string) string {
	switch {
	case action == script.Query || action.OfRecords() && strings.Contains(at, "/"):
		return at
	case at == "/":
		return "/*"
	}
	return at + "/*"
}

func (g *Grants) place(action script.Action, at string) Reached {
	uid := resourceUID(action, at)
	a := Reached{Action: action}
	if g.question.set.problem != nil {
		return a
	}
	_, certain := g.question.left(action, uid.Type).verdict(uid)
	v := g.question.ask(action, uid)
	a.Allowed, a.By, a.Depends = v.Permitted, v.Policies, !certain
	return a
}

func same(a, b Reached) bool {
	return a.Allowed == b.Allowed && a.Depends == b.Depends && slices.Equal(a.By, b.By)
}
