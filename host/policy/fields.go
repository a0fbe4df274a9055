package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/circles-host/circles/host/script"
)

// The entity types by whose tags policies see the value that is put.
const (
	typeStringFields  types.EntityType = "StringFields"
	typeNumberFields  types.EntityType = "NumberFields"
	typeBooleanFields types.EntityType = "BooleanFields"
)

// valueID is the only id that these have.
const valueID types.String = "value"

// valueRecord is context.value, the same for all: what differs are the tags.
var valueRecord = types.NewRecord(types.RecordMap{
	"strings":  types.NewEntityUID(typeStringFields, valueID),
	"numbers":  types.NewEntityUID(typeNumberFields, valueID),
	"booleans": types.NewEntityUID(typeBooleanFields, valueID),
})

// Fields are what policies see of an access to records beside whose they are: of put
// the fields of the value, of query those that it asks or orders by.
type Fields struct {
	Strings  map[string]string // by JSON Pointer
	Numbers  map[string]int64  // whole ones that are exact as float64 too
	Booleans map[string]bool
	Asked    []string // of query

	// Unread is why the value cannot be looked into: nothing that policies which look
	// at values have a say in is then allowed.
	Unread error
}

// entity is the one of this type, if uid is it.
func (f *Fields) entity(uid types.EntityUID) (types.Entity, bool) {
	if uid.ID != valueID {
		return types.Entity{}, false
	}
	tags := types.RecordMap{}
	if f != nil {
		switch uid.Type {
		case typeStringFields:
			for at, v := range f.Strings {
				tags[types.String(at)] = types.String(v)
			}
		case typeNumberFields:
			for at, v := range f.Numbers {
				tags[types.String(at)] = types.Long(v)
			}
		case typeBooleanFields:
			for at, v := range f.Booleans {
				tags[types.String(at)] = types.Boolean(v)
			}
		}
	}
	return types.Entity{UID: uid, Tags: types.NewRecord(tags)}, true
}

// of is a request's context with the fields that are asked by.
func (f *Fields) of(context types.Record) types.Record {
	if f == nil || len(f.Asked) == 0 {
		return context
	}
	asked := make([]types.Value, len(f.Asked))
	for i, at := range f.Asked {
		asked[i] = types.String(at)
	}
	all := context.Map()
	all["fields"] = types.NewSet(asked...)
	return types.NewRecord(all)
}

// looksAtFields reports whether conditions look at values that are put, or at what is
// asked by.
func looksAtFields(tree *ast.Policy) bool { return looksAt(tree, "value", "fields") }

func (c candidates) lookAtFields() bool {
	return slices.ContainsFunc(c, func(r *rule) bool { return r.fields })
}

// LookAtFields reports whether AllowRecord may say something else than Allow. If not,
// there is no need to know what is in a value.
func (g *Grants) LookAtFields() bool {
	for ; g != nil; g = g.called {
		if g.question != nil && g.question.set.fields {
			return true
		}
	}
	return false
}

// AllowRecord is Allow for put and query, of which policies may also see fields. It
// remembers nothing.
func (g *Grants) AllowRecord(action script.Action, path string, f *Fields) error {
	if g == nil || g.all || g.question == nil || !g.question.set.fields {
		err := g.allow(action, path)
		if err == nil && g != nil && g.called != nil {
			return byCaller(g.called.AllowRecord(action, path, f))
		}
		return err
	}
	if denied := g.allowRecord(action, path, f); denied != nil {
		return denied
	}
	if g.called != nil {
		return byCaller(g.called.AllowRecord(action, path, f))
	}
	return nil
}

func (g *Grants) allowRecord(action script.Action, path string, f *Fields) *DeniedError {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.surely(action, path) {
		return nil
	}
	g.question.with(f)
	g.behalf.with(f)
	defer g.question.with(nil)
	defer g.behalf.with(nil)
	return g.decide(action, path)
}

// with says what policies shall see until it is said anew.
func (q *question) with(f *Fields) {
	if q.set.problem == nil {
		q.evaluation().entities.fields = f
	}
}

func (b *behalf) with(f *Fields) {
	if b != nil {
		for _, q := range b.via {
			q.with(f)
		}
	}
}
