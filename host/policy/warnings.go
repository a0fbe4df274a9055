package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/circles-host/circles/host/near"
	"github.com/circles-host/circles/host/script"
)

// Warning is something in policies that loads, and that their owner may not have
// meant. What a Warning says is so: Check is silent where it is not certain.
type Warning struct {
	Problem
	Policy string // the id of the policy that it is about
	Kind   WarningKind
}

// WarningKind says what a Warning is about.
type WarningKind string

// The kinds of warnings.
const (
	// Unreachable: the policy never decides anything.
	Unreachable WarningKind = "unreachable"
	// Shadowed: another permit permits all that this one does.
	Shadowed WarningKind = "shadowed"
	// Everyone: it permits something to whoever asks, strangers included, and does
	// not say that this is meant: principal is Peer.
	Everyone WarningKind = "everyone"
	// NoModule: it names the digest of a module that is not here.
	NoModule WarningKind = "no-module"
	// NoCircle: it names a circle that the owner does not have.
	NoCircle WarningKind = "no-circle"
)

// Here is what is in a context besides its policies, that those may name.
type Here struct {
	Circles []string
	Modules map[string]script.Digest // by name, as the layers have them now
	// Former are names that modules had when scripts were run by them before.
	Former map[script.Digest]string
}

// Check reads the policies of dir, as Load does, and says what in them their owner
// may not have meant, in the order of the files.
func Check(dir string, here Here) (*Set, []Warning, error) {
	read, err := readDir(dir)
	if err != nil {
		return nil, nil, err
	}
	s, err := Parse(read)
	if err != nil {
		return nil, nil, err
	}
	warnings := s.warnings(here)
	for i := range warnings {
		w := &warnings[i]
		for _, f := range read {
			if f.Name == w.File {
				w.locate(f.Text)
				w.Source = excerpt(f.Text, w.Line, w.Column)
			}
		}
	}
	return s, warnings, nil
}

// locate moves a warning from the beginning of its policy to the word that Source
// names until then.
func (w *Warning) locate(text string) {
	if w.Source == "" {
		return
	}
	spans, _ := split(text)
	for _, s := range spans {
		if start := s.tokens[0]; start.line == w.Line && start.column == w.Column {
			for _, t := range slices.Backward(s.tokens) { // an @id comes before, and may be the same word
				if strings.Trim(t.text, `"`) == w.Source {
					w.Line, w.Column = t.line, t.column
					return
				}
			}
		}
	}
}

// warnings are those about s, each with the word of its policy that it is about
// as its Source, "" for the policy as a whole.
func (s *Set) warnings(here Here) []Warning {
	looked := make([]*clauses, len(s.rules))
	for i, r := range s.rules {
		looked[i] = clausesOf(r)
	}
	permits, forbids := newScopes(), newScopes()
	var all []Warning
	add := func(c *clauses, kind WarningKind, word, format string, a ...any) {
		all = append(all, Warning{
			Problem: Problem{File: c.file, Line: c.line, Column: c.column, Source: word, Message: clip(fmt.Sprintf(format, a...))},
			Policy:  c.id, Kind: kind,
		})
	}
	for _, c := range looked {
		c.never = c.contradiction()
		switch {
		case c.never != "":
		case c.forbids:
			forbids.add(c)
		default:
			permits.add(c)
		}
	}
	digests := map[script.Digest]bool{}
	for _, c := range looked {
		if c.never != "" {
			add(c, Unreachable, "", "%s never decides anything: %s", c.id, c.never)
			continue
		}
		for _, name := range c.circles {
			if slices.Contains(here.Circles, name) {
				continue
			}
			hint := ""
			if n := near.Name(name, here.Circles); n != "" {
				hint = fmt.Sprintf(" (did you mean %s?)", n)
			}
			add(c, NoCircle, name, "%s is about the circle %q, and circles.toml has none of that name%s: nobody is in it", c.id, name, hint)
		}
		if c.forbids {
			continue
		}
		if f := forbids.find(c, func(f *clauses) bool { return c.safe || len(f.atoms) == 0 }); f != nil {
			add(c, Unreachable, "", "%s never decides anything: %s (%s:%d) forbids all that it permits", c.id, f.id, f.file, f.line)
			continue
		}
		if p := permits.find(c, func(p *clauses) bool {
			return p != c && p.plain && c.plain && (p.position < c.position || !c.covers(p))
		}); p != nil {
			add(c, Shadowed, "", "%s permits nothing that %s (%s:%d) does not permit; it can go", c.id, p.id, p.file, p.line)
		}
		if what := c.everyone(); what != "" {
			add(c, Everyone, "", "%s; if that is meant, say so: principal is Peer", what)
		}
		for _, d := range c.digests {
			if digests[d] {
				continue // another of its policies was told of
			}
			if what := here.about(d, c); what != "" {
				digests[d] = true
				add(c, NoModule, digestText(d), "%s", what)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Warning) int { return strings.Compare(a.File, b.File) })
	return all
}

// about says what is to be said of a digest that c names; "" if nothing.
func (h Here) about(d script.Digest, c *clauses) string {
	for _, have := range h.Modules {
		if have == d {
			return ""
		}
	}
	if carried := c.facts.equal[moduleLayer]; carried != nil && carried.Equal(types.String("carried")) {
		return ""
	}
	name := h.Former[d]
	if text, ok := c.facts.equal[moduleName].(types.String); ok && name == "" {
		name = string(text)
	}
	now, there := h.Modules[name]
	switch {
	case name != "" && there:
		return fmt.Sprintf("%s names the digest that %s had before; it has changed since, to %s, and the permit does not carry over: permit that, or delete this",
			c.id, name, digestText(now))
	case name != "":
		return fmt.Sprintf("%s names the digest of %s, which is not here any more", c.id, name)
	}
	return fmt.Sprintf("%s names a digest that no module here has; if it is for scripts that bring that code along, say so: context.module.layer == \"carried\"", c.id)
}

// clauses is a rule taken apart into what must hold for it to apply: its scope,
// and its conditions as a list of atoms that all must hold, in the order in which
// they are evaluated.
type clauses struct {
	*rule
	position int // among all; set by scopes.add
	actions  map[types.EntityUID]bool
	atoms    []atom
	mask     uint64 // of the atoms, to tell soon that they are not a subset
	facts    facts
	safe     bool   // no atom can fail
	plain    bool   // it says nothing besides permitting
	never    string // why it never applies; "" if it may
	digests  []script.Digest
	circles  []string
}

// atom is one condition.
type atom struct {
	node   ast.IsNode
	text   string // in Cedar, as a formatter writes it
	negate bool
	safe   bool
}

func clausesOf(r *rule) *clauses {
	c := &clauses{rule: r, actions: map[types.EntityUID]bool{}, safe: true, plain: true}
	for uid := range known().actions {
		if mayMatch(uid, r.action) {
			c.actions[uid] = true
		}
	}
	tree := (*ast.Policy)(r.policy.AST())
	for _, a := range tree.Annotations {
		if a.Key != "id" && a.Key != "description" {
			c.plain = false
		}
	}
	for _, condition := range tree.Conditions {
		c.split(condition.Body, condition.Condition == ast.ConditionUnless)
	}
	for i := range c.atoms {
		a := &c.atoms[i]
		a.text, a.safe = textOf(a.node), safe(a.node)
		c.safe = c.safe && a.safe
		c.mask |= a.bit()
		if eq, ok := a.node.(ast.NodeTypeEquals); ok && !a.negate && textOf(eq.Left) == moduleDigest {
			c.digest(eq.Right)
		}
		if in, ok := a.node.(ast.NodeTypeContains); ok && !a.negate && textOf(in.Right) == moduleDigest {
			if set, ok := in.Left.(ast.NodeTypeSet); ok {
				for _, element := range set.Elements {
					c.digest(element)
				}
			}
		}
	}
	for uid := range entities(tree) {
		if uid.Type == typeCircle && !slices.Contains(c.circles, string(uid.ID)) {
			c.circles = append(c.circles, string(uid.ID))
		}
	}
	return c
}

func (c *clauses) digest(n ast.IsNode) {
	text, ok := literal(n).(types.String)
	if !ok {
		return
	}
	if d, err := script.ParseDigest(string(text)); err == nil && !slices.Contains(c.digests, d) {
		c.digests = append(c.digests, d)
	}
}

// split adds the atoms of a condition.
func (c *clauses) split(n ast.IsNode, negate bool) {
	switch n := n.(type) {
	case ast.NodeTypeNot:
		c.split(n.Arg, !negate)
	case ast.NodeTypeNotEquals:
		c.atoms = append(c.atoms, atom{node: ast.NodeTypeEquals(n), negate: !negate})
	case ast.NodeTypeAnd:
		if negate {
			c.atoms = append(c.atoms, atom{node: n, negate: true})
			return
		}
		c.split(n.Left, false)
		c.split(n.Right, false)
	case ast.NodeTypeOr:
		if !negate { // not (a or b) is not a, and not b
			c.atoms = append(c.atoms, atom{node: n})
			return
		}
		c.split(n.Left, true)
		c.split(n.Right, true)
	default:
		c.atoms = append(c.atoms, atom{node: n, negate: negate})
	}
}

func (a atom) bit() uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(a.text) {
		h = (h ^ uint64(a.text[i])) * 1099511628211
	}
	if a.negate {
		h++
	}
	return 1 << (h % 64)
}

// textOf is an expression as text. The literals and variables that most are made
// of cost little.
func textOf(n ast.IsNode) string {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		return string(n.Name)
	case ast.NodeTypeAccess:
		return textOf(n.Arg) + "." + string(n.Value)
	}
	p := ast.Permit().When(ast.NewNode(n))
	_, text, _ := strings.Cut(string(cedar.NewPolicyFromAST((*cedarast.Policy)(p)).MarshalCedar()), "when")
	text = strings.TrimSuffix(strings.TrimSpace(text), ";")
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(text, "{"), "}"))
}

// covers reports whether c applies wherever other does.
func (c *clauses) covers(other *clauses) bool {
	if c.mask&^other.mask != 0 || len(c.atoms) > len(other.atoms) {
		return false
	}
	switch s := c.principal.(type) {
	case ast.ScopeTypeAll:
	case ast.ScopeTypeIs:
		if s.Type != typePeer { // there are no other principals
			return false
		}
	default:
		have, at := principalOf(s)
		want, of := principalOf(other.principal)
		if have != want || at != of {
			return false
		}
	}
	for a := range other.actions {
		if !c.actions[a] {
			return false
		}
	}
	if !resourceCovers(c.resource, other.resource) {
		return false
	}
	for _, a := range c.atoms {
		if !slices.ContainsFunc(other.atoms, func(b atom) bool { return a.negate == b.negate && a.text == b.text }) {
			return false
		}
	}
	return true
}

// principalOf is the entity of a scope; a peer is in nothing but itself.
func principalOf(s ast.IsPrincipalScopeNode) (uid types.EntityUID, named bool) {
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return s.Entity, true
	case ast.ScopeTypeIn:
		return s.Entity, true
	case ast.ScopeTypeIsIn:
		return s.Entity, s.Type == typePeer
	}
	return uid, false
}

// resourceOf takes a scope of resources apart: of what type, and what it is in or,
// if exact, is.
func resourceOf(s ast.IsResourceScopeNode) (of types.EntityType, in types.EntityUID, exact bool) {
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return s.Entity.Type, s.Entity, true
	case ast.ScopeTypeIn:
		if s.Entity.Type != typeCollection { // a collection and its records
			of = s.Entity.Type
		}
		return of, s.Entity, false
	case ast.ScopeTypeIsIn:
		return s.Type, s.Entity, false
	case ast.ScopeTypeIs:
		return s.Type, in, false
	}
	return of, in, false
}

func resourceCovers(wide, narrow ast.IsResourceScopeNode) bool {
	of, in, exact := resourceOf(wide)
	narrowOf, narrowIn, narrowExact := resourceOf(narrow)
	switch {
	case exact:
		return narrowExact && in == narrowIn
	case of != "" && of != narrowOf:
		return false
	case in == types.EntityUID{}:
		return true
	}
	return narrowIn != types.EntityUID{} && within(in, narrowIn)
}

// within reports whether inner is outer or below it.
func within(outer, inner types.EntityUID) bool {
	switch {
	case outer == inner:
		return true
	case outer.Type == typePath && inner.Type == typePath:
		return covers(string(outer.ID), string(inner.ID))
	case outer.Type == typeCollection && inner.Type == typeRecord:
		return holds(string(outer.ID), string(inner.ID))
	}
	return false
}

// scopes finds the clauses that may cover others, by what their scope names.
type scopes struct {
	anywhere []*clauses
	at       map[types.EntityUID][]*clauses
	n        int
}

func newScopes() *scopes { return &scopes{at: map[types.EntityUID][]*clauses{}} }

func (s *scopes) add(c *clauses) {
	c.position = s.n
	s.n++
	if _, in, _ := resourceOf(c.resource); in != (types.EntityUID{}) {
		s.at[in] = append(s.at[in], c)
		return
	}
	s.anywhere = append(s.anywhere, c)
}

// find returns one that covers c, and that fits.
func (s *scopes) find(c *clauses, fits func(*clauses) bool) *clauses {
	look := func(list []*clauses) *clauses {
		for _, x := range list {
			if x.mask&^c.mask == 0 && x.covers(c) && fits(x) {
				return x
			}
		}
		return nil
	}
	if x := look(s.anywhere); x != nil {
		return x
	}
	_, at, _ := resourceOf(c.resource)
	for at != (types.EntityUID{}) {
		if x := look(s.at[at]); x != nil {
			return x
		}
		at = above(at)
	}
	return nil
}

// above is what an entity is in; zero if nothing.
func above(uid types.EntityUID) types.EntityUID {
	id := string(uid.ID)
	switch {
	case uid.Type == typeRecord:
		collection, _, _ := strings.Cut(id, "/")
		return types.NewEntityUID(typeCollection, types.String(collection))
	case uid.Type == typePath && id != "/":
		return pathUID("/" + strings.TrimPrefix(id[:strings.LastIndexByte(id, '/')], "/"))
	}
	return types.EntityUID{}
}

// everyone says what c permits to whoever asks; "" if it does not, or says that
// it is meant.
func (c *clauses) everyone() string {
	if _, open := c.principal.(ast.ScopeTypeAll); !open {
		return ""
	}
	ofModule := false
	for _, a := range c.atoms {
		if a.text == "context.lent" && !a.negate || mentions(a.node, "principal") {
			return ""
		}
		ofModule = ofModule || strings.Contains(a.text, "context.module") && !a.negate
	}
	switch submits := c.actions[actionUID(submit)]; {
	case submits && ofModule:
		return c.id + " lets everybody run what it names, whoever they are"
	case submits:
		return c.id + " lets everybody run anything, code that they bring along included"
	case ofModule || c.gives():
		return ""
	}
	return c.id + " is for whatever anybody may run here"
}

// gives reports whether c permits nothing that is not given.
func (c *clauses) gives() bool {
	for a := range c.actions {
		if !groups()[a] && !isGiven(script.Action(a.ID)) {
			return false
		}
	}
	return true
}

func mentions(n ast.IsNode, variable types.String) (found bool) {
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		v, ok := n.(ast.NodeTypeVariable)
		found = found || ok && v.Name == variable
		return !found
	})
	return found
}

// What conditions look at most, as textOf has it.
const (
	moduleName   = "context.module.name"
	moduleDigest = "context.module.digest"
	moduleLayer  = "context.module.layer"
)

// facts are what atoms say about expressions, by their text.
type facts struct {
	equal   map[string]types.Value
	unequal map[string][]types.Value
	among   map[string][]types.Value // one of these
	from    map[string]types.Long
	to      map[string]types.Long
	like    map[string][]types.Pattern
	truth   map[string]bool
	in      []types.EntityUID // what the resource is in
	notIn   []types.EntityUID
}

// contradiction says why a policy never applies; "" if it may. Only what would be
// evaluated before anything could fail counts: a policy that fails decides, too.
func (c *clauses) contradiction() string {
	c.facts = facts{
		equal: map[string]types.Value{}, unequal: map[string][]types.Value{}, among: map[string][]types.Value{},
		from: map[string]types.Long{"context.params": 0, "context.module.size": 0}, to: map[string]types.Long{},
		like: map[string][]types.Pattern{}, truth: map[string]bool{},
	}
	f := &c.facts
	if s, ok := c.principal.(ast.ScopeTypeEq); ok {
		f.equal["principal"] = s.Entity
	}
	if _, at, exact := resourceOf(c.resource); exact {
		f.equal["resource"] = at
	} else if at != (types.EntityUID{}) {
		f.in = append(f.in, at)
	}
	actions := map[types.EntityUID]bool{}
	for a := range c.actions {
		if !groups()[a] {
			actions[a] = true
		}
	}
	for _, a := range c.atoms {
		if value, certain := truth(a.node); certain && value == a.negate {
			return fmt.Sprintf("%s is never so", a)
		}
		if !a.safe {
			return ""
		}
		if why := f.add(a, actions); why != "" {
			return why
		}
	}
	return ""
}

// groups are the actions that others are in, and that nothing is asked about.
var groups = sync.OnceValue(func() map[types.EntityUID]bool {
	found := map[types.EntityUID]bool{}
	for _, a := range known().actions {
		for group := range a.Parents.All() {
			found[group] = true
		}
	}
	return found
})

// String is the atom as Cedar has it.
func (a atom) String() string {
	text := a.text
	if a.negate {
		text = "!(" + text + ")"
	}
	const most = 120
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return graphic(strings.Join(strings.Fields(text), " "))
}

// add takes an atom as a fact, and says what it contradicts.
func (f *facts) add(a atom, actions map[types.EntityUID]bool) string {
	no := fmt.Sprintf("%s contradicts what must hold besides", a)
	if was, ok := f.truth[a.text]; ok && was == a.negate {
		return no
	}
	f.truth[a.text] = !a.negate
	term := ""
	switch n := a.node.(type) {
	case ast.NodeTypeEquals:
		left, right := n.Left, n.Right
		if literal(left) != nil {
			left, right = right, left
		}
		value := literal(right)
		if value == nil || literal(left) != nil {
			return ""
		}
		switch term = textOf(left); {
		case term == "action":
			return f.only(actions, a, func(uid types.EntityUID) bool { return types.Value(uid).Equal(value) }, no)
		case a.negate:
			f.unequal[term] = append(f.unequal[term], value)
		default:
			if old, ok := f.equal[term]; ok && !old.Equal(value) {
				return no
			}
			f.equal[term] = value
		}
	case ast.NodeTypeContains:
		set, ok := n.Left.(ast.NodeTypeSet)
		if !ok {
			return ""
		}
		var values []types.Value
		for _, element := range set.Elements {
			v := literal(element)
			if v == nil {
				return ""
			}
			values = append(values, v)
		}
		switch term = textOf(n.Right); {
		case a.negate:
			f.unequal[term] = append(f.unequal[term], values...)
		default:
			if old, ok := f.among[term]; ok {
				values = slices.DeleteFunc(values, func(v types.Value) bool { return !has(old, v) })
			}
			f.among[term] = values
			if len(values) == 0 {
				return no
			}
		}
	case ast.NodeTypeLessThan:
		term = f.bound(n.Left, n.Right, !a.negate, a.negate)
	case ast.NodeTypeLessThanOrEqual:
		term = f.bound(n.Left, n.Right, !a.negate, !a.negate)
	case ast.NodeTypeGreaterThan:
		term = f.bound(n.Left, n.Right, a.negate, a.negate)
	case ast.NodeTypeGreaterThanOrEqual:
		term = f.bound(n.Left, n.Right, a.negate, !a.negate)
	case ast.NodeTypeLike:
		if term = textOf(n.Arg); !a.negate {
			f.like[term] = append(f.like[term], n.Value)
		}
	case ast.NodeTypeIn:
		of := targets(n.Right)
		switch textOf(n.Left) {
		case "action":
			if of == nil {
				return ""
			}
			return f.only(actions, a, func(uid types.EntityUID) bool {
				return slices.ContainsFunc(of, func(group types.EntityUID) bool { return actionIn(uid, group) })
			}, no)
		case "resource":
			term = "resource"
			if a.negate {
				f.notIn = append(f.notIn, of...)
			} else if len(of) == 1 {
				f.in = append(f.in, of[0])
			}
		}
	case ast.NodeTypeAccess:
		if a.text == "context.lent" && !a.negate && len(actions) == 1 && actions[actionUID(submit)] {
			return "nothing is lent to a script that is yet to be accepted: " + no
		}
	}
	if term == "" {
		return ""
	}
	return f.impossible(term, no)
}

// only keeps the actions that an atom is true of.
func (f *facts) only(actions map[types.EntityUID]bool, a atom, is func(types.EntityUID) bool, no string) string {
	for uid := range actions {
		if is(uid) == a.negate {
			delete(actions, uid)
		}
	}
	if len(actions) == 0 {
		return no
	}
	return ""
}

// bound notes a comparison of an expression with a number, and returns the
// expression.
func (f *facts) bound(left, right ast.IsNode, less, orEqual bool) string {
	n, ok := literal(right).(types.Long)
	if !ok {
		if n, ok = literal(left).(types.Long); !ok {
			return ""
		}
		left, less = right, !less
	}
	term := textOf(left)
	switch {
	case !orEqual && (less && n == math.MinInt64 || !less && n == math.MaxInt64):
		return "" // nothing is beyond; rare enough to say nothing
	case less && !orEqual:
		n--
	case !orEqual:
		n++
	}
	if old, ok := f.to[term]; less && (!ok || n < old) {
		f.to[term] = n
	}
	if old, ok := f.from[term]; !less && (!ok || n > old) {
		f.from[term] = n
	}
	return term
}

// impossible says why no value of an expression is as it must be; "" if one may
// be.
func (f *facts) impossible(term, no string) string {
	value, fixed := f.equal[term]
	from, hasFrom := f.from[term]
	to, hasTo := f.to[term]
	if hasFrom && hasTo && from > to {
		return no
	}
	possible := func(v types.Value) bool {
		if has(f.unequal[term], v) {
			return false
		}
		if n, ok := v.(types.Long); ok && (hasFrom && n < from || hasTo && n > to) {
			return false
		}
		if text, ok := v.(types.String); ok {
			for _, p := range f.like[term] {
				if !p.Match(text) {
					return false
				}
			}
		}
		return plausible(term, v)
	}
	among, limited := f.among[term]
	switch {
	case fixed && limited && !has(among, value), fixed && !possible(value):
		if fixed && !plausible(term, value) {
			return fmt.Sprintf("no %s is %s", term, value.MarshalCedar())
		}
		return no
	case limited && !slices.ContainsFunc(among, possible):
		return no
	}
	if name, layer := f.equal[moduleName], f.equal[moduleLayer]; name != nil && layer != nil && !name.Equal(types.String("")) && layer.Equal(types.String("carried")) {
		return "code that a script brings along has no name"
	}
	if term == "resource" {
		return f.nowhere(no)
	}
	return ""
}

// plausible reports whether an expression may have a value, by what the host says
// of code.
func plausible(term string, v types.Value) bool {
	text, ok := v.(types.String)
	switch {
	case !ok || text == "":
		return true
	case term == moduleLayer:
		return text == "peer" || text == "host" || text == "carried"
	case term == moduleDigest:
		d, err := script.ParseDigest(string(text))
		return err == nil && digestText(d) == string(text)
	}
	return true
}

// nowhere says why no resource is where it must be.
func (f *facts) nowhere(no string) string {
	at := slices.Clone(f.in)
	is, exact := f.equal["resource"].(types.EntityUID)
	if exact {
		at = append(at, is)
	}
	for i, a := range at {
		for _, b := range at[:i] {
			// Of two places one is in the other, or nothing is in both.
			if !within(a, b) && !within(b, a) {
				return no
			}
			if exact && (a == is && !within(b, a) || b == is && !within(a, b)) {
				return no
			}
		}
		for _, n := range f.notIn {
			if within(n, a) {
				return no
			}
		}
	}
	return ""
}

func has(values []types.Value, v types.Value) bool {
	return slices.ContainsFunc(values, v.Equal)
}

// targets are the entities that something is to be in; nil if it is not said by
// name.
func targets(n ast.IsNode) []types.EntityUID {
	if uid, ok := literal(n).(types.EntityUID); ok {
		return []types.EntityUID{uid}
	}
	set, ok := n.(ast.NodeTypeSet)
	if !ok {
		return nil
	}
	var all []types.EntityUID
	for _, element := range set.Elements {
		uid, ok := literal(element).(types.EntityUID)
		if !ok {
			return nil
		}
		all = append(all, uid)
	}
	return all
}

// literal is the value of a string, number, boolean or entity that is written
// down; nil if n is none.
func literal(n ast.IsNode) types.Value {
	if v, ok := n.(ast.NodeValue); ok {
		switch v.Value.(type) {
		case types.String, types.Long, types.Boolean, types.EntityUID:
			return v.Value
		}
	}
	return nil
}

// truth is the value of a condition, if it is the same whatever is asked, and
// nothing fails before it is known.
func truth(n ast.IsNode) (value, certain bool) {
	switch n := n.(type) {
	case ast.NodeValue:
		b, ok := n.Value.(types.Boolean)
		return bool(b), ok
	case ast.NodeTypeNot:
		value, certain = truth(n.Arg)
		return !value, certain
	case ast.NodeTypeAnd:
		left, sure := truth(n.Left)
		if sure && !left {
			return false, true
		}
		right, rightSure := truth(n.Right)
		if rightSure && !right && (sure || safe(n.Left)) {
			return false, true
		}
		return true, sure && rightSure
	case ast.NodeTypeOr:
		left, sure := truth(n.Left)
		if sure && left {
			return true, true
		}
		right, rightSure := truth(n.Right)
		if rightSure && right && (sure || safe(n.Left)) {
			return true, true
		}
		return false, sure && rightSure
	case ast.NodeTypeEquals:
		if l, r := literal(n.Left), literal(n.Right); l != nil && r != nil {
			return l.Equal(r), true
		}
	case ast.NodeTypeNotEquals:
		if l, r := literal(n.Left), literal(n.Right); l != nil && r != nil {
			return !l.Equal(r), true
		}
	case ast.NodeTypeIfThenElse:
		if value, certain = truth(n.If); certain && value {
			return truth(n.Then)
		} else if certain {
			return truth(n.Else)
		}
		then, thenSure := truth(n.Then)
		otherwise, elseSure := truth(n.Else)
		return then, thenSure && elseSure && then == otherwise && safe(n.If)
	}
	return false, false
}

// safe reports whether an expression of a policy that was type checked cannot
// fail. Arithmetic overflows, an extension's function may not know its text, and
// an entity that is named may not be there to have attributes.
func safe(n ast.IsNode) bool {
	ok := true
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		switch n := n.(type) {
		case ast.NodeTypeAdd, ast.NodeTypeSub, ast.NodeTypeMult, ast.NodeTypeNegate, ast.NodeTypeExtensionCall, ast.NodeTypeGetTag:
			ok = false
		case ast.NodeTypeAccess:
			ok = ok && rooted(n.Arg)
		}
		return ok
	})
	return ok
}

// rooted reports whether an expression is an attribute of a variable.
func rooted(n ast.IsNode) bool {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		return true
	case ast.NodeTypeAccess:
		return rooted(n.Arg)
	}
	return false
}
