package policy

import (
	"crypto/sha256"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// residual is what is left of a Set once it is known who asks, with which code,
// for which action: the policies that may still apply, by the path in their
// scope. Those whose conditions were found false are gone, and of those that are
// left it is known whether anything but the path decides. It is immutable.
//
// It never decides against a full authorization: what is not certain is
// evaluated again, in full, on the policies that are left.
type residual struct {
	anywhere []left
	at       map[types.String][]left
	size     int
}

// left is a policy that is left.
type left struct {
	rule    *rule
	exact   bool // the scope is the path itself, not what is below it
	certain bool // it applies wherever its scope does
}

// residualOf reduces the policies that are relevant to q.
func (q *question) residualOf(action script.Action, kind types.EntityType) *residual {
	e := q.evaluation()
	uid := actionUID(action)
	may := make(candidates, 0, len(e.relevant)+1)
	for _, r := range e.relevant {
		if mayMatch(uid, r.action) {
			may = append(may, r)
		}
	}
	if isGiven(action) {
		may = append(may, giving())
	}
	// Of each policy only what does not depend on the resource, so any will do.
	_, diagnostic := cedar.Authorize(fixed(may), &e.entities, types.Request{
		Principal: q.principal, Action: uid, Resource: contextUID(q.request.Parties.Target.ID), Context: e.context,
	})
	holds := make(map[cedar.PolicyID]bool, len(diagnostic.Reasons)+len(diagnostic.Errors)) // and for certain
	for _, reason := range diagnostic.Reasons {
		holds[reason.PolicyID] = true
	}
	for _, failed := range diagnostic.Errors {
		holds[failed.PolicyID] = false
	}
	r := &residual{at: make(map[types.String][]left)}
	for _, rule := range may {
		if certain, ok := holds[cedar.PolicyID(rule.id)]; ok {
			r.add(left{rule: rule, certain: certain && rule.rest == 0}, kind)
		}
	}
	return r
}

// add puts a policy where those look that ask about a resource of this kind.
func (r *residual) add(l left, kind types.EntityType) {
	if kind == typePeer { // which may be in circles: nobody sends so often that it would pay to look at that here
		l.certain = false
		r.anywhere = append(r.anywhere, l)
		r.size++
		return
	}
	switch scope := l.rule.resource.(type) {
	case ast.ScopeTypeEq:
		l.exact = true
		r.put(scope.Entity, kind, l)
	case ast.ScopeTypeIn:
		r.put(scope.Entity, kind, l)
	case ast.ScopeTypeIsIn:
		if scope.Type == kind {
			r.put(scope.Entity, kind, l)
		}
	case ast.ScopeTypeIs:
		if scope.Type == kind {
			r.anywhere = append(r.anywhere, l)
		}
	case ast.ScopeTypeAll:
		r.anywhere = append(r.anywhere, l)
	default:
		l.certain = false
		r.anywhere = append(r.anywhere, l)
	}
	r.size++
}

func (r *residual) put(scope types.EntityUID, kind types.EntityType, l left) {
	if scope.Type == kind || scope.Type == typeCollection && kind == typeRecord {
		r.at[scope.ID] = append(r.at[scope.ID], l)
	}
}

// settle divides a policy into the conditions that are settled once it is known
// who asks, with which code, for which action, and the number of those that are
// not. It cuts before the first that looks at the resource, or at what is not
// stable: a later one, even if it is false, cannot make up for its failing, which
// refuses.
func settle(tree *ast.Policy) (fixed *cedar.Policy, rest int) {
	part := *tree
	part.Effect = ast.EffectPermit // only whether it applies is asked
	part.Resource = ast.ScopeTypeAll{}
	part.Annotations = nil
	n := slices.IndexFunc(tree.Conditions, func(c ast.ConditionType) bool { return waits(c.Body) })
	if n < 0 {
		n = len(tree.Conditions)
	}
	part.Conditions = slices.Clone(tree.Conditions[:n])
	if rest = len(tree.Conditions) - n; rest > 0 && tree.Conditions[n].Condition == ast.ConditionWhen {
		for _, body := range conjuncts(tree.Conditions[n].Body) {
			if waits(body) {
				break
			}
			part.Conditions = append(part.Conditions, ast.ConditionType{Condition: ast.ConditionWhen, Body: body})
		}
	}
	return cedar.NewPolicyFromAST((*cedarast.Policy)(&part)), rest
}

// conjuncts are the parts of a && b && c, in order.
func conjuncts(n ast.IsNode) []ast.IsNode {
	if and, ok := n.(ast.NodeTypeAnd); ok {
		return append(conjuncts(and.Left), conjuncts(and.Right)...)
	}
	return []ast.IsNode{n}
}

// stable are the parts of the context that stay as they are for a caller, a
// module and an entry.
var stable = []types.String{"module", "entry", "lent"}

// waits reports whether a condition looks at anything that is not known when
// policies are reduced.
func waits(n ast.IsNode) (found bool) {
	isContext := func(n ast.IsNode) bool {
		v, ok := n.(ast.NodeTypeVariable)
		return ok && v.Name == "context"
	}
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		switch n := n.(type) {
		case ast.NodeTypeAccess:
			if isContext(n.Arg) {
				found = found || !slices.Contains(stable, n.Value)
				return false
			}
		case ast.NodeTypeHas:
			if isContext(n.Arg) {
				found = found || !slices.Contains(stable, n.Value)
				return false
			}
		case ast.NodeTypeVariable:
			found = found || n.Name == "context" || n.Name == "resource"
		}
		return !found
	})
	return found
}

// each calls f with every policy whose scope covers resource, until f says no.
// The resource is a path, a record, a collection, or the one resource of its kind
// that there is.
func (r *residual) each(resource types.EntityUID, f func(left) bool) {
	for _, l := range r.anywhere {
		if !f(l) {
			return
		}
	}
	if len(r.at) == 0 {
		return
	}
	for at, self := string(resource.ID), true; ; self = false {
		for _, l := range r.at[types.String(at)] {
			if (self || !l.exact) && !f(l) {
				return
			}
		}
		if resource.Type == typeRecord && self {
			at, _, _ = strings.Cut(at, "/") // its collection
			continue
		}
		if resource.Type != typePath || at == "/" {
			return
		}
		if i := strings.LastIndexByte(at, '/'); i > 0 {
			at = at[:i]
		} else {
			at = "/"
		}
	}
}

// verdict is the decision about resource, if it is certain.
func (r *residual) verdict(resource types.EntityUID) (v Verdict, certain bool) {
	var permits, forbids []string
	certain = true
	r.each(resource, func(l left) bool {
		switch {
		case !l.certain:
			certain = false
		case l.rule.forbids:
			forbids = append(forbids, l.rule.id)
		default:
			permits = append(permits, l.rule.id)
		}
		return certain
	})
	v = Verdict{Permitted: len(forbids) == 0 && len(permits) > 0, Policies: permits}
	if len(forbids) > 0 {
		v.Policies = forbids
	}
	slices.Sort(v.Policies)
	return v, certain
}

// covering is the policies whose scope covers resource, for a full
// authorization.
func (r *residual) covering(resource types.EntityUID) candidates {
	var found candidates
	r.each(resource, func(l left) bool {
		found = append(found, l.rule)
		return true
	})
	return found
}

// candidates are the policies that Cedar is to ask.
type candidates []*rule

// All implements cedar.PolicyIterator.
func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range c {
			if !yield(cedar.PolicyID(r.id), r.policy) {
				return
			}
		}
	}
}

// fixed is what is settled of each policy.
type fixed []*rule

// All implements cedar.PolicyIterator.
func (f fixed) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range f {
			if !yield(cedar.PolicyID(r.id), r.fixed) {
				return
			}
		}
	}
}

// permits reports whether resource is certainly permitted: no more is known when
// it says no.
func (r *residual) permits(resource types.EntityUID) bool {
	permitted := false
	r.each(resource, func(l left) bool {
		if !l.certain || l.rule.forbids {
			permitted = false
			return false
		}
		permitted = true
		return true
	})
	return permitted
}

// askedBy identifies what a residual depends on. All that a policy can know of a
// module follows from these; the time and the size of the params are not among
// them: see stable.
type askedBy struct {
	principal, caller, target peer.ID
	seen                      string // see question.seen
	digest                    script.Digest
	entry                     string
	lent                      bool
	action                    script.Action
}

// residuals remembers what was reduced: one caller's scripts ask the same again
// and again.
type residuals struct {
	mu   sync.Mutex
	by   map[askedBy]*residual
	size int
}

// maxRemembered bounds the policies that are referred to by residuals, and by
// that their memory, to some 16 MiB for one Set.
const maxRemembered = 300_000

func (rs *residuals) get(key askedBy, make func() *residual) *residual {
	rs.mu.Lock()
	r := rs.by[key]
	rs.mu.Unlock()
	if r != nil {
		return r
	}
	r = make()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	const each = 50 // what an entry costs besides, in policies
	if rs.size += r.size + each; rs.by == nil || rs.size > maxRemembered {
		rs.by, rs.size = map[askedBy]*residual{}, r.size+each
	}
	rs.by[key] = r
	return r
}

// seen is what policies can see of the parties and the code, besides their ids.
func (q *question) seen() string {
	b := make([]byte, 0, 256)
	for _, p := range q.peers {
		b = strconv.AppendQuote(b, string(p.Name))
		circles := p.Circles
		if !slices.IsSorted(circles) {
			circles = slices.Sorted(slices.Values(circles))
		}
		for _, c := range circles {
			b = strconv.AppendQuote(append(b, ','), c)
		}
		b = append(b, ';')
	}
	c := q.request.Code
	b = strconv.AppendBool(b, c.Found)
	b = strconv.AppendQuote(append(b, ','), c.Name)
	b = strconv.AppendQuote(append(b, ','), c.Layer)
	b = strconv.AppendInt(append(b, ','), c.Size, 10)
	b = strconv.AppendQuote(append(b, ','), c.Language)
	b = strconv.AppendQuote(append(b, ','), string(c.Publisher))
	for _, name := range c.Imports {
		b = strconv.AppendQuote(append(b, ','), name)
	}
	if len(b) > maxSeen {
		// A module that anybody may carry here can import from a thousand modules
		// with names of a KiB, and what was asked about it is remembered.
		sum := sha256.Sum256(b)
		return string(sum[:])
	}
	return string(b)
}

// maxSeen is the length of a key that is kept as it is, which most are.
const maxSeen = 1024
