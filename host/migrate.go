package host

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/transport"
)

// Migration changes what is in a collection so that it is as a new schema has it.
type Migration struct {
	Collection string
	// Remove is how many records it may leave fewer than there were. More are a
	// mistake, and nothing is changed.
	Remove int
	// Migrated, if not nil, is told what became of the collection.
	Migrated *Migrated
}

// Migrated is what a migration did, or in a dry run would.
type Migrated struct {
	Before, After int // records
	records.Checked
}

// Migrate runs a script of a context's owner, to itself, as Deliver does, and puts the
// schema that is in the file of a collection in force in the same transaction, for
// which what the script puts is held against that. If there is then a record that is
// not as it has it, the script has failed, and nothing is changed.
//
// The owner's policies are not asked: who may write the schema and the policies may do
// this. But the script gets no more than the records of that collection.
func (h *Host) Migrate(ctx context.Context, sealed []byte, m Migration) ([]byte, error) {
	verified, err := envelope.Open(ctx, sealed, h.now(), known{h})
	if err != nil {
		return nil, h.bare(err)
	}
	s := verified.Script()
	if s.Caller != s.Target || len(verified.Via()) > 0 {
		return nil, &transport.Error{Code: transport.Malformed, Message: "a migration is a script from the context's owner to itself"}
	}
	target, release, err := h.contexts.enter(ctx, s)
	if err != nil {
		return nil, h.bare(err)
	}
	defer release()
	file, err := target.schemaFile(m.Collection)
	if err != nil {
		return nil, &transport.Error{Code: transport.Malformed, Message: err.Error()}
	}
	set, err := policy.Parse([]policy.File{{Name: "migration.cedar", Text: fmt.Sprintf(
		`@id("migration") permit (principal == Peer::%q, action == Action::"submit", resource);
		@id("migration-records") permit (principal == Peer::%[1]q, action in Action::"records", resource in Collection::%q);`, s.Caller, m.Collection)}})
	if err != nil {
		return nil, h.bare(err)
	}
	found, err := module.Find(s.Logic, target.modules, h.modules)
	if err != nil {
		return h.refuse(target, verified, nil, err)
	}
	defer found.Release()
	accepted, err := set.Accept(verified, target.meet(s.Caller), codeOf(found), policy.Occasion{Now: h.now(), Transport: "local"})
	if err != nil {
		return h.refuse(target, verified, found, err)
	}
	program, err := h.program(ctx, target, found)
	if err != nil {
		return h.refuse(target, verified, found, err)
	}
	turn, err := h.share(ctx, accepted)
	if err != nil {
		return nil, h.bare(err)
	}
	defer turn.Leave()
	receipt, err := h.run(ctx, accepted, target, migration{program, m, file}, turn, nil)
	target.rebind(ctx)
	return receipt, err
}

// schemaFile is the schema that is in a collection's file.
func (c *peerContext) schemaFile(collection string) (*schema.Schema, error) {
	files, err := schema.ReadDir(SchemaDir(c.entry), nil)
	if err != nil {
		return nil, err
	}
	if err := files.Problems[collection]; err != nil {
		return nil, err
	}
	s := files.Schemas[collection]
	if s == nil {
		return nil, fmt.Errorf("there is no schema/%.80s%s to migrate to: write that first", collection, schema.Suffix)
	}
	return s, nil
}

// migration is the work of a script that migrates.
type migration struct {
	program
	Migration
	to *schema.Schema
}

func (migration) readsOnly() bool { return false }

// only binds one collection to another schema than the one in force.
type only struct {
	records.Schemas
	collection string
	to         *schema.Schema
}

// Of implements records.Schemas.
func (o only) Of(collection string) *schema.Schema {
	if collection == o.collection {
		return o.to
	}
	return o.Schemas.Of(collection)
}

func (m migration) do(ctx context.Context, in running) (engine.Output, error) {
	t := in.tx.records
	t.Under(only{&in.target.schemas, m.Collection, m.to})
	before, err := t.Keys(ctx, m.Collection)
	if err != nil {
		return engine.Output{}, err
	}
	output, err := m.program.do(ctx, in)
	if err != nil {
		return output, err
	}
	after, err := t.Keys(ctx, m.Collection)
	if err != nil {
		return output, err
	}
	checked, err := t.Check(ctx, m.Collection, m.to)
	if err != nil {
		return output, err
	}
	if m.Migrated != nil {
		*m.Migrated = Migrated{len(before), len(after), checked}
	}
	failed := func(format string, args ...any) error {
		return &engine.Failure{Kind: engine.Returned, Detail: fmt.Sprintf(format, args...)}
	}
	if lost := len(before) - len(after); lost > m.Remove {
		const most = 5
		var gone []string
		for _, key := range before {
			if _, still := slices.BinarySearch(after, key); !still && len(gone) < most {
				gone = append(gone, fmt.Sprintf("%.80q", key))
			}
		}
		return output, failed("it leaves %d of %d records, and may remove %d: %s would be gone; nothing was changed; if that is meant, allow it with --remove %d",
			len(after), len(before), m.Remove, strings.Join(gone, ", "), lost)
	}
	if checked.Violating > 0 && !m.to.KeepsStored() {
		first := checked.First[0]
		return output, failed("after it %d of %d records are not as the new schema has them, and nothing was changed: %.80s%s",
			checked.Violating, checked.Records, first.Key, first.List[0])
	}
	if _, err := t.Bind(ctx, m.Collection, m.to); err != nil {
		return output, err
	}
	return output, t.Flush(ctx)
}
