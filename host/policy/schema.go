package policy

import (
	_ "embed"
	"slices"
	"sync"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/circles-host/circles/host/script"
)

// Schema is the Cedar schema that every policy is checked against, for editors
// and other tools of the Cedar language.
//
//go:embed schema.cedarschema
var Schema string

// Starter is the text of a new peer's first policy file. It permits nobody to
// run anything; it lets the peer's own scripts read what the peer lent them.
//
//go:embed starter.cedar
var Starter string

// The entity types of the schema.
const (
	typePeer       types.EntityType = "Peer"
	typeCircle     types.EntityType = "Circle"
	typeContext    types.EntityType = "Context"
	typePath       types.EntityType = "Path"
	typeRecord     types.EntityType = "Record"
	typeCollection types.EntityType = "Collection"
	typeModule     types.EntityType = "Module"
	typeAction     types.EntityType = "Action"
)

// submit is the action of running a script in a context. The others are those of
// package script, which are all in the group files or records, but for script.Send,
// and Clock, Random and Log, which are in the group host.
const (
	submit  script.Action = "submit"
	files   script.Action = "files"
	records script.Action = "records"
	ofHost  script.Action = "host"
)

// What a script that runs has of its host, unless a policy forbids it; see
// Grants.May.
const (
	Clock  script.Action = "clock"  // the time, and waiting for it
	Random script.Action = "random" // random bytes
	Log    script.Action = "log"    // lines in the receipt
)

// given are the actions that need no permit.
var given = [...]script.Action{Clock, Random, Log}

func isGiven(a script.Action) bool { return a == Clock || a == Random || a == Log }

// Given is what an explanation names as the policy that permits them.
const Given = "(given)"

// giving is the policy that permits what is given, in every Set beside the
// owner's. It permits for certain; a forbid outweighs it as any other.
var giving = sync.OnceValue(func() *rule {
	parsed, err := cedar.NewPolicyListFromBytes(Given, []byte(`permit (principal, action in Action::"host", resource);`))
	if err != nil {
		panic(err)
	}
	tree := (*ast.Policy)(parsed[0].AST())
	r := &rule{id: Given, policy: parsed[0], principal: tree.Principal, action: tree.Action, resource: tree.Resource}
	r.fixed, r.rest = settle(tree)
	return r
})

func actionUID(a script.Action) types.EntityUID {
	return types.NewEntityUID(typeAction, types.String(a))
}

// dictionary is the schema, ready to check policies against.
type dictionary struct {
	validator *validate.Validator
	actions   map[types.EntityUID]types.Entity
	names     []string // of entity types, actions and attributes, to suggest
}

// Actions are those that policies can be about, groups of them aside, sorted.
func Actions() []script.Action {
	var all []script.Action
	for uid := range known().actions {
		if a := script.Action(uid.ID); a != files && a != records && a != ofHost {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	return all
}

// known is Schema as a dictionary. It is part of the program, so a mistake in it
// panics.
var known = sync.OnceValue(func() *dictionary {
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar([]byte(Schema)); err != nil {
		panic(err)
	}
	r, err := s.Resolve()
	if err != nil {
		panic(err)
	}
	d := &dictionary{
		validator: validate.New(r),
		actions:   make(map[types.EntityUID]types.Entity),
		names:     []string{"Action", "principal", "action", "resource", "context", "permit", "forbid", "when", "unless"},
	}
	var attributes func(resolved.RecordType)
	attributes = func(rec resolved.RecordType) {
		for name, a := range rec {
			d.names = append(d.names, string(name))
			if inner, ok := a.Type.(resolved.RecordType); ok {
				attributes(inner)
			}
		}
	}
	for name, e := range r.Entities {
		d.names = append(d.names, string(name))
		attributes(e.Shape)
	}
	for uid, a := range r.Actions {
		d.names = append(d.names, string(uid.ID))
		d.actions[uid] = a.Entity
		if a.AppliesTo != nil {
			attributes(a.AppliesTo.Context)
		}
	}
	return d
})
