package policy

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/circles-host/circles/host/budget"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Set is one version of an owner's policies. It is immutable and may be used by
// any number of goroutines. The zero Set permits nothing.
type Set struct {
	rules   []*rule
	byID    map[string]*rule
	index   index
	version script.Digest
	problem error
	reduced residuals
	counts  time.Duration          // how far back policies look at what was used
	args    bool                   // some policy looks into the params
	fields  bool                   // some policy looks at values that are put, or at what is asked by
	given   map[script.Action]bool // those that no policy can keep from anybody
}

// Broken returns a Set that permits nothing because of err: the policies of an
// owner that could not be loaded.
func Broken(err error) *Set { return &Set{problem: err} }

// Version is a digest of the policy files, which tells two Sets apart.
func (s *Set) Version() script.Digest { return s.version }

// Len is the number of policies.
func (s *Set) Len() int { return len(s.rules) }

// Policies are the ids of all policies, sorted.
func (s *Set) Policies() []string {
	ids := make([]string, len(s.rules))
	for i, r := range s.rules {
		ids[i] = r.id
	}
	slices.Sort(ids)
	return ids
}

// Request is what is decided about: who asks whom to run what.
type Request struct {
	Parties peer.Parties
	Code    Code
	Entry   string
	Params  int // bytes
	// Args are the params themselves. They are read where a policy looks at them, and
	// Code declares their types; see MaxArgs.
	Args []byte
	Now  time.Time
	// Transport is what it came by, as in Occasion.
	Transport string
	Used      budget.Used // by the caller's scripts before this one
	// Chain is by which delegations another sent it, those in Parties.Via; nil if
	// the caller did.
	Chain []envelope.Link
	// Asked is what the script names, whether it is here or not; "" says that it
	// is what Code says.
	Asked string
}

// Verdict is a decision and what made it.
type Verdict struct {
	Permitted bool
	// Policies are the ids of those that decided, sorted: the permits of what is
	// permitted; else the forbids; else those that failed, if any.
	Policies []string
	// Failed are policies whose evaluation failed. What they would have said is
	// unknown, so nothing is permitted. The messages are for the owner.
	Failed []Failure
	// Problem is why there are no policies to ask.
	Problem error
	// Unread is why the params, or a value, cannot be read, of which a policy asks.
	Unread error
	// Reasons are what the owner wants said to whom a forbid refuses: @reason.
	Reasons []string
	// Hidden says that what is forbidden is to look as if it were not there, and
	// a refusal as if no policy were about it: @hide.
	Hidden bool
}

// Failure is a policy that could not be evaluated.
type Failure struct{ Policy, Message string }

// String says why: "policies a and b forbid it", "no policy permits it".
func (v Verdict) String() string { return v.of("") }

// of says why, and whose policies they are.
func (v Verdict) of(owner string) string {
	if owner != "" {
		owner = " of " + owner
	}
	switch {
	case v.Problem != nil:
		return "the policies" + owner + " have a mistake in them, and permit nothing until it is mended"
	case v.Unread != nil:
		return v.Unread.Error()
	case len(v.Failed) > 0 && slices.Equal(v.Policies, v.failed()):
		return named(v.Policies) + owner + " could not be evaluated, and may forbid it"
	case v.Permitted && len(v.Policies) == 1:
		return named(v.Policies) + owner + " permits it"
	case v.Permitted:
		return named(v.Policies) + owner + " permit it"
	case len(v.Policies) == 1:
		return named(v.Policies) + owner + " forbids it" + v.because()
	case len(v.Policies) > 1:
		return named(v.Policies) + owner + " forbid it" + v.because()
	}
	return "no policy" + owner + " permits it"
}

// because is what the owner wants said.
func (v Verdict) because() string {
	if len(v.Reasons) == 0 {
		return ""
	}
	return " (" + strings.Join(v.Reasons, "; ") + ")"
}

// Public is the verdict as its subject may know it.
func (v Verdict) Public() Verdict {
	if v.Hidden {
		return Verdict{}
	}
	return v
}

// failed are the ids of the policies that failed, sorted.
func (v Verdict) failed() []string {
	ids := make([]string, len(v.Failed))
	for i, f := range v.Failed {
		ids[i] = f.Policy
	}
	return ids
}

func named(ids []string) string {
	const shown = 5
	switch {
	case len(ids) == 1:
		return "policy " + ids[0]
	case len(ids) > shown:
		return fmt.Sprintf("policies %s and %d more", strings.Join(ids[:shown], ", "), len(ids)-shown)
	}
	return fmt.Sprintf("policies %s and %s", strings.Join(ids[:len(ids)-1], ", "), ids[len(ids)-1])
}

// Submit decides whether the script may run. It is Accept without the envelope,
// for explaining; nothing can be run on it.
func (s *Set) Submit(r Request) Verdict {
	target := contextUID(r.Parties.Target.ID)
	return s.behalf(r).narrow(s.question(r).ask(submit, target), submit, target)
}

// question is a Request made ready for several decisions. Use by one goroutine
// at a time.
type question struct {
	set       *Set
	request   Request
	lent      bool
	principal types.EntityUID
	peers     [3]peer.Peer // the principal, the caller and the target
	key       askedBy      // but for the action
	reduced   map[script.Action]*residual

	known *evaluation // nil until something must be evaluated
}

// evaluation is what Cedar is asked about: most questions need none, as they were
// reduced before.
type evaluation struct {
	context  types.Record
	entities entityStore
	relevant []*rule // those whose scope may match the principal
}

func (s *Set) question(r Request) *question { return s.asked(r, r.Parties.Caller, false) }

// asked is the question whether principal may do something on behalf of r.
func (s *Set) asked(r Request, principal peer.Peer, lent bool) *question {
	if s == nil {
		s = &Set{}
	}
	q := &question{
		set: s, request: r, lent: lent, principal: peerUID(principal.ID),
		// The principal first: somebody who sends to himself is both.
		peers:   [...]peer.Peer{principal, r.Parties.Caller, r.Parties.Target},
		reduced: make(map[script.Action]*residual, 2),
	}
	q.key = askedBy{
		principal: principal.ID, caller: r.Parties.Caller.ID, target: r.Parties.Target.ID,
		seen: q.seen(), digest: r.Code.Digest, entry: r.Entry, lent: lent,
	}
	return q
}

func (q *question) evaluation() *evaluation {
	if q.known == nil {
		e := &evaluation{context: q.request.context(q.lent)}
		e.entities = entityStore{target: q.request.Parties.Target.ID, paths: make(map[types.String]types.Entity)}
		for i, p := range q.peers {
			e.entities.peers[i] = peerEntity(p)
		}
		for _, p := range q.request.Parties.Via {
			e.entities.via = append(e.entities.via, peerEntity(p))
		}
		e.relevant = q.set.index.find(q.principal, e.entities.parents(q.principal), &q.request)
		q.known = e
	}
	return q.known
}

// left is the policies that may apply to action on a resource of this kind.
func (q *question) left(action script.Action, kind types.EntityType) *residual {
	r := q.reduced[action]
	if r == nil {
		key := q.key
		key.action = action
		r = q.set.reduced.get(key, func() *residual {
			return q.residualOf(action, kind)
		})
		q.reduced[action] = r
	}
	return r
}

// permits reports whether action on resource is permitted for certain.
func (q *question) permits(action script.Action, resource types.EntityUID) bool {
	return q.set.problem == nil && q.left(action, resource.Type).permits(resource)
}

// ask decides whether the principal may do action on resource.
func (q *question) ask(action script.Action, resource types.EntityUID) Verdict {
	if q.set.problem != nil {
		return Verdict{Problem: q.set.problem}
	}
	left := q.left(action, resource.Type)
	if v, certain := left.verdict(resource); certain {
		return q.set.explain(v)
	}
	e := q.evaluation()
	covering := left.covering(resource)
	request := types.Request{Principal: q.principal, Action: actionUID(action), Resource: resource, Context: e.context}
	if q.set.args && covering.lookAtArgs() && e.entities.args == nil {
		a, err := q.request.args()
		if err != nil {
			return q.unread(err, covering, request)
		}
		e.entities.args = a
	}
	if q.set.fields && e.entities.fields != nil && covering.lookAtFields() {
		if err := e.entities.fields.Unread; err != nil {
			return Verdict{Unread: err}
		}
		request.Context = e.entities.fields.of(e.context)
	}
	decision, diagnostic := cedar.Authorize(covering, &e.entities, request)
	return q.set.explain(verdictOf(decision, diagnostic))
}

func verdictOf(decision cedar.Decision, diagnostic cedar.Diagnostic) (v Verdict) {
	for _, e := range diagnostic.Errors {
		v.Failed = append(v.Failed, Failure{string(e.PolicyID), e.Message})
	}
	for _, r := range diagnostic.Reasons {
		v.Policies = append(v.Policies, string(r.PolicyID))
	}
	slices.Sort(v.Policies)
	slices.SortFunc(v.Failed, func(a, b Failure) int { return strings.Compare(a.Policy, b.Policy) })
	// Cedar skips a policy that fails: a permit beside a failed forbid is
	// "allow", with an error in the diagnostic.
	v.Permitted = decision == cedar.Allow && len(v.Failed) == 0
	if forbidden := decision == cedar.Deny && len(v.Policies) > 0; len(v.Failed) > 0 && !forbidden {
		v.Policies = v.failed()
	}
	return v
}

func (r Request) context(lent bool) types.Record {
	imports := make([]types.Value, len(r.Code.Imports))
	for i, name := range r.Code.Imports {
		imports[i] = types.String(name)
	}
	all := types.RecordMap{
		"module": types.NewRecord(types.RecordMap{
			"publisher": types.String(r.Code.Publisher),
			"found":     types.Boolean(r.Code.Found),
			"name":      types.String(r.Code.Name),
			"digest":    r.Code.digest(),
			"layer":     types.String(r.Code.Layer),
			"size":      types.Long(r.Code.Size),
			"imports":   types.NewSet(imports...),
			"language":  types.String(r.Code.Language),
		}),
		"entry":     types.String(r.Entry),
		"params":    types.Long(r.Params),
		"args":      argsRecord,
		"value":     valueRecord,
		"fields":    types.NewSet(),
		"now":       types.NewDatetime(r.Now),
		"used":      usedRecord(r.Used),
		"transport": types.String(r.Transport),
		"lent":      types.Boolean(lent),
	}
	if len(r.Chain) > 0 {
		all["delegation"] = r.delegation()
	}
	return types.NewRecord(all)
}

// digest is the one that policies see; "" if there is none.
func (c Code) digest() types.String {
	if c.Digest == (script.Digest{}) {
		return ""
	}
	return types.String(digestText(c.Digest))
}

func digestText(d script.Digest) string { return "sha256:" + hex.EncodeToString(d[:]) }

func peerUID(id peer.ID) types.EntityUID {
	return types.NewEntityUID(typePeer, types.String(id))
}

func contextUID(id peer.ID) types.EntityUID {
	return types.NewEntityUID(typeContext, types.String(id))
}

func pathUID(path string) types.EntityUID {
	return types.NewEntityUID(typePath, types.String(path))
}

// resourceUID is what Call or an action of package script is done to; name has been
// checked. Of get, put and delete it is a record: for a collection a record of it
// that no policy names.
func resourceUID(action script.Action, name string) types.EntityUID {
	switch {
	case action == Call:
		return types.NewEntityUID(typeModule, types.String(name))
	case action == script.Send:
		return peerUID(peer.ID(name))
	case !action.OfRecords():
		return pathUID(name)
	case action == script.Query:
		return types.NewEntityUID(typeCollection, types.String(name))
	case !strings.Contains(name, "/"):
		name += "/*"
	}
	return types.NewEntityUID(typeRecord, types.String(name))
}

func peerEntity(p peer.Peer) types.Entity {
	e := types.Entity{UID: peerUID(p.ID)}
	if p.Name != "" {
		e.Attributes = types.NewRecord(types.RecordMap{"name": types.String(p.Name)})
	}
	circles := make([]types.EntityUID, len(p.Circles))
	for i, c := range p.Circles {
		circles[i] = types.NewEntityUID(typeCircle, types.String(c))
	}
	e.Parents = types.NewEntityUIDSet(circles...)
	return e
}

// entityStore answers what Cedar asks of entities. Paths are made when asked
// for: the hierarchy is in their names.
type entityStore struct {
	peers  [3]types.Entity // the principal, the caller and the target
	via    []types.Entity  // whom a delegation came by
	to     types.Entity    // to whom something is to be sent
	target peer.ID
	args   args // nil until a policy looks at them
	fields *Fields
	paths  map[types.String]types.Entity
}

// maxPaths bounds what an entityStore remembers.
const maxPaths = 4 * maxDepth

func (s *entityStore) Get(uid types.EntityUID) (types.Entity, bool) {
	switch uid.Type {
	case typePath:
		return s.path(uid)
	case typeRecord:
		return recordEntity(uid)
	case typeModule:
		return types.Entity{UID: uid}, checkModule(string(uid.ID)) == ""
	case typeStrings, typeNumbers, typeBooleans:
		return s.args.entity(uid)
	case typeStringFields, typeNumberFields, typeBooleanFields:
		return s.fields.entity(uid)
	case typePeer:
		for i := range s.peers {
			if s.peers[i].UID == uid {
				return s.peers[i], true
			}
		}
		for i := range s.via {
			if s.via[i].UID == uid {
				return s.via[i], true
			}
		}
		return s.to, s.to.UID == uid
	case typeAction:
		e, ok := known().actions[uid]
		return e, ok
	case typeContext:
		if peer.ID(uid.ID) == s.target {
			return types.Entity{UID: uid, Attributes: types.NewRecord(types.RecordMap{"owner": peerUID(s.target)})}, true
		}
	}
	return types.Entity{}, false
}

func recordEntity(uid types.EntityUID) (types.Entity, bool) {
	collection, key, err := script.SplitRecord(string(uid.ID))
	if err != nil || key == "" {
		return types.Entity{}, false
	}
	return types.Entity{
		UID:        uid,
		Parents:    types.NewEntityUIDSet(types.NewEntityUID(typeCollection, types.String(collection))),
		Attributes: types.NewRecord(types.RecordMap{"key": types.String(key)}),
	}, true
}

func (s *entityStore) path(uid types.EntityUID) (types.Entity, bool) {
	if e, ok := s.paths[uid.ID]; ok {
		return e, true
	}
	if cleanPath(string(uid.ID)) != "" {
		return types.Entity{}, false
	}
	e := types.Entity{UID: uid}
	if uid.ID != "/" {
		up := string(uid.ID[:strings.LastIndexByte(string(uid.ID), '/')])
		if up == "" {
			up = "/"
		}
		e.Parents = types.NewEntityUIDSet(pathUID(up))
	}
	if len(s.paths) >= maxPaths {
		clear(s.paths)
	}
	s.paths[uid.ID] = e
	return e, true
}

func (s *entityStore) parents(uid types.EntityUID) types.EntityUIDSet {
	e, _ := s.Get(uid)
	return e.Parents
}

// index finds the policies whose scope may match a principal, and whose first
// condition may be met, so that a decision costs by the policies about the caller and
// the code, and not by all. It may find too many, as Cedar decides again; it must not
// miss one.
type index map[indexed][]*rule

// indexed is what a policy is found by: the peer or circle in its scope, zero for
// anyone, and what its first condition asks for, zero if that is anything else.
type indexed struct {
	principal types.EntityUID
	first     firstly
}

// firstly is a part of the context and the only text that it may have.
type firstly struct {
	part  types.String // "name", "digest" or "publisher" of the module, or "entry"
	value types.String
}

func (x index) add(r *rule) {
	at := indexed{first: r.first}
	switch s := r.principal.(type) {
	case ast.ScopeTypeEq:
		at.principal = s.Entity
	case ast.ScopeTypeIn:
		at.principal = s.Entity
	case ast.ScopeTypeIsIn:
		at.principal = s.Entity
	}
	x[at] = append(x[at], r)
}

// find returns the policies for a principal, the circles that it is in, and the code
// of r. Circles are in no circles, so these are all its ancestors.
func (x index) find(principal types.EntityUID, circles types.EntityUIDSet, r *Request) (found []*rule) {
	code := [...]firstly{
		{}, {"name", types.String(r.Code.Name)}, {"digest", r.Code.digest()},
		{"publisher", types.String(r.Code.Publisher)}, {"entry", types.String(r.Entry)},
	}
	add := func(of types.EntityUID) {
		for _, first := range code {
			found = append(found, x[indexed{of, first}]...)
		}
	}
	add(types.EntityUID{})
	add(principal)
	for c := range circles.All() {
		add(c)
	}
	return found
}

// firstOf is what the first condition of a policy asks for. If that is not so, the
// policy does not apply, whatever follows: nothing that could fail comes before.
func firstOf(tree *ast.Policy) firstly {
	if len(tree.Conditions) == 0 || tree.Conditions[0].Condition != ast.ConditionWhen {
		return firstly{}
	}
	eq, ok := conjuncts(tree.Conditions[0].Body)[0].(ast.NodeTypeEquals)
	if !ok {
		return firstly{}
	}
	of, literal := eq.Left, eq.Right
	if _, ok := of.(ast.NodeValue); ok {
		of, literal = literal, of
	}
	value, ok := literal.(ast.NodeValue)
	if !ok {
		return firstly{}
	}
	text, ok := value.Value.(types.String)
	access, isAccess := of.(ast.NodeTypeAccess)
	if !ok || !isAccess {
		return firstly{}
	}
	within := access.Arg
	switch access.Value {
	case "name", "digest", "publisher":
		module, ok := within.(ast.NodeTypeAccess)
		if !ok || module.Value != "module" {
			return firstly{}
		}
		within = module.Arg
	case "entry":
	default:
		return firstly{}
	}
	if v, ok := within.(ast.NodeTypeVariable); !ok || v.Name != "context" {
		return firstly{}
	}
	return firstly{access.Value, text}
}

// mayMatch reports whether a scope may be about action; it may say yes too often.
func mayMatch(action types.EntityUID, scope ast.IsActionScopeNode) bool {
	switch scope := scope.(type) {
	case ast.ScopeTypeEq:
		return scope.Entity == action
	case ast.ScopeTypeIn:
		return actionIn(action, scope.Entity)
	case ast.ScopeTypeInSet:
		return slices.ContainsFunc(scope.Entities, func(e types.EntityUID) bool { return actionIn(action, e) })
	}
	return true
}

func actionIn(action, group types.EntityUID) bool {
	return group == action || known().actions[action].Parents.Contains(group)
}

// covers reports whether path is dir or below it; both are clean.
func covers(dir, path string) bool {
	if dir == "/" || dir == path {
		return true
	}
	return len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// holds reports whether record is group or, if group is a collection, in it.
func holds(group, record string) bool {
	rest, ok := strings.CutPrefix(record, group)
	return ok && (rest == "" || rest[0] == '/' && !strings.Contains(group, "/"))
}
