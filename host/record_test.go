package host_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// withNotes adds the module notes, which keeps records, to the host.
func (w *world) withNotes() {
	w.Helper()
	wasm, err := os.ReadFile("../guest-sdk/sdktest/testdata/notes.wasm")
	if err != nil {
		w.Fatal(err)
	}
	if _, err := module.Add(filepath.Join(w.root.Dir, "modules"), "notes", wasm); err != nil {
		w.Fatal(err)
	}
	w.reopen()
}

func notes(entry, params string) script.Script {
	return script.Script{Logic: script.Logic{Name: "notes"}, Entry: entry, Params: []byte(params)}
}

// record changes or reads records as their owner.
func (w *world) records(name peer.Name, f func(*records.Collections) error) {
	w.Helper()
	id := w.entry(name).ID
	if w.stores[id] == nil {
		w.stores[id] = mem.New(mem.Config{})
	}
	if err := w.stores[id].Update(w.Context(), func(tx store.Tx) error {
		t := records.In(tx.Private(), records.Config{})
		if err := f(t.As(nil)); err != nil {
			return err
		}
		return t.Flush(w.Context())
	}); err != nil {
		w.Fatal(err)
	}
}

// note is what the target's note says; "" if there is none.
func (w *world) note(name peer.Name, key string) (value string) {
	w.Helper()
	w.records(name, func(c *records.Collections) error {
		b, _ := c.Get(context.Background(), "notes", key)
		value = string(b)
		return nil
	})
	return value
}

// TestRecordsInReceipts: what a script does to records is in its receipt, as records
// and not as files, and is told as far as the script may get it.
func TestRecordsInReceipts(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.withNotes()
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Module: "notes",
		Put: []string{"notes"}, Delete: []string{"notes"}, Get: []string{"notes/public"}})

	r := w.send("alice", "bob", notes("put", "public one"))
	if r.Code != script.Done || len(r.Effects) != 1 {
		t.Fatalf("%v %s: %+v", r.Code, r.Message, r.Effects)
	}
	e := r.Effects[0]
	collection, key, ok := e.Record()
	if e.Kind != script.RecordPut || !ok || collection != "notes" || key != "public" || e.Before != (script.Blob{}) ||
		e.After != (script.Blob{Size: 3, Digest: script.DigestOf([]byte("one"))}) || e.Diff != "" {
		t.Errorf("effect %+v", e)
	}
	if r := w.send("alice", "bob", notes("put", "public one")); len(r.Effects) != 0 {
		t.Errorf("the same again has effects %+v", r.Effects)
	}
	r = w.send("alice", "bob", notes("put", "secret two"))
	if e := r.Effects[0]; e.Path != "/notes/secret" || e.After != (script.Blob{}) {
		t.Errorf("the receipt tells of what may not be got: %+v", e)
	}
	dry := notes("put", "public two")
	dry.DryRun = true
	r = w.send("alice", "bob", dry)
	if e := r.Effects[0]; !strings.Contains(e.Diff, "-one") || !strings.Contains(e.Diff, "+two") || !strings.Contains(e.Diff, "/notes/public") {
		t.Errorf("diff %q", e.Diff)
	}
	dry = notes("put", "secret three")
	dry.DryRun = true
	if r = w.send("alice", "bob", dry); r.Effects[0].Diff != "" || r.Effects[0].Before != (script.Blob{}) {
		t.Errorf("a dry run tells of what may not be got: %+v", r.Effects[0])
	}
	if got := w.note("bob", "public") + w.note("bob", "secret"); got != "onetwo" {
		t.Errorf("the notes are %q", got)
	}
	r = w.send("alice", "bob", notes("drop", "public"))
	if e := r.Effects[0]; e.Kind != script.RecordDeleted || e.Before.Size != 3 || e.After != (script.Blob{}) {
		t.Errorf("effect %+v", e)
	}
	if log := w.logged("bob"); len(log) != 6 || len(log[0].Effects) != 1 {
		t.Errorf("%d receipts are in the log", len(log))
	}
}

// TestRecordsAreRolledBack: a script that fails leaves no record, and says what it
// was denied.
func TestRecordsAreRolledBack(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.withNotes()
	w.records("alice", func(c *records.Collections) error { return c.Put(w.Context(), "cards", "home", []byte("x")) })
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Module: "notes", Put: []string{"notes"}})
	r := w.send("alice", "bob", notes("get", "a"))
	if r.Code != script.Failed || !strings.Contains(r.Message, "it was denied: get notes/a") ||
		!strings.Contains(r.Message, "circles-host policy allow --to bob alice notes --get notes/a") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	// What a module does not catch is as if nothing had happened.
	if r := w.send("alice", "bob", notes("put", strings.Repeat("k", 2000)+" x")); r.Code != script.Failed || len(r.Effects) > 0 {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	w.files("bob", func(fs store.FS) error { return nil })
	w.records("bob", func(c *records.Collections) error {
		page, err := c.Scan(w.Context(), "notes", records.Range{})
		if len(page.Records) > 0 {
			t.Errorf("there is %v", page)
		}
		return err
	})
}

// TestLentRecords: a script gets of its caller's records what the caller lends, as
// far as the caller's policies permit, and from its own target like anybody else's.
func TestLentRecords(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.withNotes()
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Module: "notes", Put: []string{"notes"}})
	w.allow("alice", policy.Permit{Peer: w.entry("alice").ID, Module: "notes", Put: []string{"notes"}})
	w.records("alice", func(c *records.Collections) error {
		return c.Put(w.Context(), "cards", "home", []byte("Alice, Oxford"))
	})
	card := func(to peer.Name, lent ...script.Grant) script.Receipt {
		t.Helper()
		s := notes("card", "")
		s.Lent = lent
		return w.send("alice", to, s)
	}
	for _, lent := range []script.Grant{{Action: script.Get, Path: "cards"}, {Action: script.Get, Path: "cards/home"}} {
		if r := card("bob", lent); r.Code != script.Done || string(r.Result) != "Alice, Oxford" {
			t.Errorf("lent %v: %v %s", lent, r.Code, r.Message)
		}
	}
	if w.note("bob", string(w.entry("alice").ID)) != "Alice, Oxford" {
		t.Error("the card was not kept")
	}
	for _, lent := range [][]script.Grant{nil, {{Action: script.Query, Path: "cards"}}, {{Action: script.Get, Path: "cards/home2"}}, {{Action: script.Read, Path: "/cards/home"}}, {{Action: script.Read, Path: "/"}}} {
		if r := card("bob", lent...); r.Code != script.Failed || !strings.Contains(r.Message, `may not get record "cards/home" in the context of alice: the script does not lend it`) {
			t.Errorf("lent %v: %v %s", lent, r.Code, r.Message)
		}
	}
	// To herself: the transaction is one, the permissions are two.
	if r := card("alice", script.Grant{Action: script.Get, Path: "cards/home"}); r.Code != script.Done {
		t.Errorf("to herself: %v %s", r.Code, r.Message)
	}
	if r := card("alice"); r.Code != script.Failed {
		t.Errorf("to herself, not lent: %v", r.Code)
	}
	w.policy("alice", "private", `forbid (principal, action == Action::"get", resource) when { context.lent && resource.key == "home" };`)
	if r := card("bob", script.Grant{Action: script.Get, Path: "cards"}); r.Code != script.Failed || !strings.Contains(r.Message, "forbids it") {
		t.Errorf("against alice's policy: %v %s", r.Code, r.Message)
	}
}

// TestHiddenRecords: what a policy hides is not there.
func TestHiddenRecords(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.withNotes()
	w.records("bob", func(c *records.Collections) error {
		for _, key := range []string{"a", "diary/1", "diary/2", "z"} {
			if err := c.Put(w.Context(), "notes", key, []byte("of "+key)); err != nil {
				return err
			}
		}
		return nil
	})
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Module: "notes", Put: []string{"notes"}, Get: []string{"notes"}, Query: []string{"notes"}})
	w.policy("bob", "hide", `@hide forbid (principal, action in Action::"records", resource) when { resource is Record && resource.key like "diary/*" };`)
	if r := w.send("alice", "bob", notes("all", "")); string(r.Result) != "a: of a\nz: of z\n" {
		t.Errorf("%v %s: %q", r.Code, r.Message, r.Result)
	}
	if r := w.send("alice", "bob", notes("get", "diary/1")); !strings.Contains(r.Message, "cannot get record notes/diary/1: there is no such record") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	if r := w.send("alice", "bob", notes("get", "none")); !strings.Contains(r.Message, "cannot get record notes/none: there is no such record") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
}

// TestUndoRecords: an undone script leaves the records as they were before it, and
// is not undone over what came later.
func TestUndoRecords(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.withNotes()
	all := []string{"notes"}
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Module: "notes", Put: all, Delete: all})
	first := w.send("alice", "bob", notes("put", "tea green"))
	second := w.send("alice", "bob", notes("put", "tea black"))
	third := w.send("alice", "bob", notes("drop", "tea"))
	other := w.send("alice", "bob", notes("put", "cake lots"))
	for _, r := range []script.Receipt{first, second, third, other} {
		if r.Code != script.Done || r.Kept.IsZero() {
			t.Fatalf("%v %s, kept %v", r.Code, r.Message, r.Kept)
		}
	}
	r := w.send("bob", "bob", undo(second.Script))
	if r.Code == script.Done || !strings.Contains(r.Message, "undo first, in this order: "+third.Script.Short()) || !strings.Contains(r.Message, "on notes/tea") {
		t.Errorf("undone over a later change: %v %s", r.Code, r.Message)
	}
	undone := w.want(w.send("bob", "bob", undo(third.Script)), script.Done)
	if w.note("bob", "tea") != "black" || len(undone.Effects) != 1 || undone.Effects[0].Kind != script.RecordPut {
		t.Errorf("after the undo: %q, effects %+v", w.note("bob", "tea"), undone.Effects)
	}
	w.want(w.send("bob", "bob", undo(undone.Script)), script.Done)
	if w.note("bob", "tea") != "" {
		t.Errorf("the undo undone: %q", w.note("bob", "tea"))
	}
	undone = w.want(w.send("bob", "bob", undo(third.Script)), script.Done)
	w.want(w.send("bob", "bob", undo(second.Script)), script.Done)
	if w.note("bob", "tea") != "green" || w.note("bob", "cake") != "lots" {
		t.Errorf("after two: %q, %q", w.note("bob", "tea"), w.note("bob", "cake"))
	}
	// By hand, and not by a script.
	white := w.send("alice", "bob", notes("put", "wine white"))
	w.records("bob", func(c *records.Collections) error { return c.Put(w.Context(), "notes", "wine", []byte("red")) })
	w.want(w.send("bob", "bob", undo(white.Script)), script.Conflict, "changed outside of scripts: notes/wine")
	// A file of that path is something else.
	w.put("bob", "/notes/cake", "a file")
	w.want(w.send("bob", "bob", undo(other.Script)), script.Done)
	if w.note("bob", "cake") != "" || w.read("bob", "/notes/cake") != "a file" {
		t.Error("the record is there, or the file is not")
	}
}
