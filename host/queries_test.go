package host_test

import (
	"strings"
	"testing"

	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
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
