package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
)

// schema writes a schema of a peer's; with "" it removes it.
func (w *world) schema(name peer.Name, collection, text string) {
	w.Helper()
	path := filepath.Join(host.SchemaDir(w.entry(name)), collection+".json")
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil && text == "" {
		err = os.Remove(path)
	} else if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// TestSchemasBindCollections: what a script puts into a bound collection is as the
// schema has it, or the script is told where it is not, and nothing is changed. A
// schema that is changed while the host runs is in force if it has no mistake and
// what is there is as it says; else the last good one is, also after a restart.
func TestSchemasBindCollections(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.withNotes()
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Module: "notes", Put: []string{"notes"}, Delete: []string{"notes"}, Get: []string{"notes"}})
	w.records("bob", func(c *records.Collections) error { return c.Put(t.Context(), "notes", "old", []byte("text")) })
	put := func(value string) string {
		t.Helper()
		r := w.send("alice", "bob", notes("put", "new "+value))
		if r.Code == script.Done {
			return ""
		}
		if len(r.Effects) > 0 {
			t.Errorf("what failed has effects: %+v", r.Effects)
		}
		return r.Message
	}
	bound := func(what string, text string, ok func() bool) {
		t.Helper()
		w.schema("bob", "notes", text)
		eventually(t, what, ok)
	}
	problem := func(want string) func() bool {
		return func() bool {
			err := w.host.Problem()
			return err != nil && strings.Contains(err.Error(), want)
		}
	}
	well := func() bool { return w.host.Problem() == nil && put(`{}`) != "" }

	if m := put("anything"); m != "" {
		t.Fatalf("without a schema: %s", m)
	}
	const cups = `{"type": "object", "required": ["cups"], "properties": {"cups": {"type": "integer"}}}`
	bound("that records are not as the first schema has them", cups, problem("notes.json: 2 of 2 records of notes are not as the new schema has them"))
	if m := put("anything else"); m != "" {
		t.Errorf("a schema that is not in force: %s", m)
	}
	bound("that they may stay", strings.Replace(cups, "{", `{"x-circles-stored": "as-is", `, 1), well)
	want := "cannot put record notes/new: it is not as the schema of notes has it\n/cups: is a string, and must be an integer"
	if m := put(`{"cups": "two"}`); !strings.Contains(m, want) {
		t.Errorf("a violation: %q", m)
	}
	if m := put(`{"cups": 2}`); m != "" {
		t.Error(m)
	}
	if r := w.send("alice", "bob", notes("get", "old")); string(r.Result) != "text" {
		t.Errorf("what is there and violates the schema is read: %v %s %q", r.Code, r.Message, r.Result)
	}

	w.send("alice", "bob", notes("drop", "old"))
	bound("a mistake in the file", `{"typ": "object"}`, problem(`notes.json:1:2: /typ: there is no keyword "typ" in JSON Schema 2020-12; did you mean "type"?`))
	if m := put(`{"cups": "two"}`); !strings.Contains(m, want) {
		t.Errorf("with a mistake in the file: %q", m)
	}
	w.reopen()
	if m := put(`{"cups": "two"}`); !strings.Contains(m, want) {
		t.Errorf("with a mistake in the file, after a restart: %q", m)
	}
	bound("a schema that what is there violates", `{"type": "string"}`, problem("1 of 1 records of notes are not as the new schema"))
	w.reopen()
	if m := put(`{"cups": "two"}`); !strings.Contains(m, want) || !problem("1 of 1 records")() {
		t.Errorf("with a schema that is not in force, after a restart: %q", m)
	}
	bound("a schema that all are as", cups, well)

	// A directory that cannot be read, or not in whole, says nothing of what is to be bound.
	dir := host.SchemaDir(w.entry("bob"))
	if err := os.Rename(dir, dir+"-aside"); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(){
		"a pipe": func() { pipe(t, dir) },
		"more schemas than are read": func() {
			for i := range 1001 {
				w.schema("bob", fmt.Sprintf("a%d", i), "{}")
			}
		},
	} {
		spoil()
		w.reopen()
		if m := put(`{"cups": "two"}`); !strings.Contains(m, want) || w.host.Problem() == nil {
			t.Errorf("%s, after a restart: %q, %v", what, m, w.host.Problem())
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(dir+"-aside", dir); err != nil {
		t.Fatal(err)
	}
	w.reopen()

	// What an undo brings back is held to the schema too, as it is by then.
	r := w.send("alice", "bob", notes("put", `new {"cups": 3}`))
	w.schema("bob", "notes", strings.Replace(cups, `"integer"`, `"integer", "minimum": 3`, 1))
	w.reopen()
	undo := w.send("bob", "bob", script.Script{Logic: script.Logic{Undo: r.Script}})
	if undo.Code == script.Done || !strings.Contains(undo.Message, "/cups: is 2, and must be at least 3") {
		t.Errorf("undo what would violate the schema: %v %s", undo.Code, undo.Message)
	}

	bound("that the schema is gone", "", func() bool { return w.host.Problem() == nil && put("anything") == "" })
}

// TestPoliciesLookAtFields: a policy decides about what a script puts by what is in it,
// and a value that it cannot look into is not put.
func TestPoliciesLookAtFields(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.withNotes()
	w.policy("bob", "notes", `@id("run") permit(principal, action == Action::"submit", resource);
		@id("few-cups") permit(principal, action == Action::"put", resource in Collection::"notes") when {
			context.value.numbers.hasTag("/tea/cups") && context.value.numbers.getTag("/tea/cups") < 3 };`)
	many := `{"tea": {"cups": 2}`
	for i := range 300 {
		many += fmt.Sprintf(`, "x%d": %d`, i, i)
	}
	for value, want := range map[string]string{
		`{"tea": {"cups": 2}}`:                     "",
		`{"tea": {"cups": 2.0}}`:                   "",
		`{"tea": {"cups": 3}}`:                     "no policy of bob permits it",
		`{"tea": {"cups": 2.5}}`:                   "no policy of bob permits it",
		`{"tea": {"cups": "2"}}`:                   "no policy of bob permits it",
		`{"tea": [{"cups": 2}]}`:                   "no policy of bob permits it",
		`{"tea": {"cups": 2}, "tea": {"cups": 9}}`: "a policy looks at its value, and that cannot be looked into: line 1, column 22: \"tea\" is there twice",
		`tea`:      "that cannot be looked into: line 1, column 1: it is not JSON",
		many + "}": "that cannot be looked into: it has more than 256 fields",
	} {
		r := w.send("alice", "bob", notes("put", "new "+value))
		if (r.Code == script.Done) != (want == "") || !strings.Contains(r.Message, want) {
			t.Errorf("%.60s: %v %s; want %s", value, r.Code, r.Message, want)
		}
	}
}
