package host_test

import (
	"strings"
	"testing"

	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// TestQueriesTellNothingInReceipts: what a query comes upon and may not return is not
// named in what a script that then fails was denied, either.
func TestQueriesTellNothingInReceipts(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.records("bob", func(c *records.Collections) error {
		return c.Put(t.Context(), "notes", "of-mallory", []byte(`{"n": 2}`))
	})
	w.policy("bob", "run", `@id("run") permit(principal, action == Action::"submit", resource);
		@id("query") permit(principal, action == Action::"query", resource in Collection::"notes");`)
	send := func(source string) script.Receipt {
		return w.send("alice", "bob", script.Script{Logic: script.Logic{Text: script.Text{Language: "javascript", Source: source}}})
	}
	for _, query := range []string{`{}`, `{ where: { field: "/n", above: 0 } }`, `{ order: [{ field: "/n" }] }`} {
		r := send(`target.records("notes").query(` + query + `); throw "over"`)
		if r.Code != script.Failed || !strings.Contains(r.Message, "over") || strings.Contains(r.Message, "denied") {
			t.Errorf("%s: %v %s", query, r.Code, r.Message)
		}
	}
	if r := send(`target.records("notes").get("of-mallory")`); !strings.Contains(r.Message, "notes/of-mallory") {
		t.Errorf("what it asks for by name: %v %s", r.Code, r.Message)
	}
}

// TestUndoKeepsIndexes: what an undo brings back, and takes away, the indexes follow.
func TestUndoKeepsIndexes(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	w.schema("bob", "notes", `{"x-circles-index": [["/n"]]}`)
	w.reopen()
	send := func(source string) script.Receipt {
		t.Helper()
		r := w.send("alice", "bob", script.Script{Logic: script.Logic{Text: script.Text{Language: "javascript", Source: source}}})
		if r.Code != script.Done {
			t.Fatalf("%s: %v %s", source, r.Code, r.Message)
		}
		return r
	}
	// agree compares what the index says with what a scan does.
	agree := func(when, want string) {
		t.Helper()
		got := send(`const notes = target.records("notes");
			[notes.query({ where: { field: "/n", from: 2 } }).items.map((r) => r.key).join(" "),
			 notes.list().items.filter((r) => r.value.n >= 2).map((r) => r.key).sort().join(" ")].join(";")`)
		if string(got.Result) != want+";"+want {
			t.Errorf("%s: %s; want %s of both", when, got.Result, want)
		}
		of, err := schema.Parse("notes.json", `{"x-circles-index": [["/n"]]}`)
		if err != nil {
			t.Fatal(err)
		}
		w.private("bob", func(private store.FS) error {
			right, err := records.In(private, records.Config{ReadOnly: true}).Indexed(t.Context(), "notes", of.Indexes())
			if !right {
				t.Errorf("%s: the index is not right", when)
			}
			return err
		})
	}
	send(`const notes = target.records("notes"); for (let n = 0; n < 4; n++) notes.put("k" + n, { n, pad: "x".repeat(9000) })`)
	agree("at first", "k2 k3")
	r := send(`const notes = target.records("notes"); notes.delete("k2"); notes.put("k3", { n: 0 }); notes.put("k4", { n: 4 }); notes.put("k0", { n: 7 })`)
	agree("changed", "k0 k4")
	if u := w.send("bob", "bob", undo(r.Script)); u.Code != script.Done {
		t.Fatalf("%v %s", u.Code, u.Message)
	}
	agree("undone", "k2 k3")
}
