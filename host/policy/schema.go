package policy

import (
	_ "embed"
	"sync"

	"github.com/cedar-policy/cedar-go/types"
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
	typeAction     types.EntityType = "Action"
)

// submit is the action of running a script in a context. The others are those
// of package script, and are all in the group files or records.
const (
	submit  script.Action = "submit"
	files   script.Action = "files"
	records script.Action = "records"
)

func actionUID(a script.Action) types.EntityUID {
	return types.NewEntityUID(typeAction, types.String(a))
}

// dictionary is the schema, ready to check policies against.
type dictionary struct {
	validator *validate.Validator
	actions   map[types.EntityUID]types.Entity
	names     []string // of entity types, actions and attributes, to suggest
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
