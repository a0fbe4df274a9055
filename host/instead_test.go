package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/modules"
)

// TestTheTargetDecidesWhatRuns: what a script names or brings stands for what its
// target maps it to. Policy is asked about that, and the receipt has both.
func TestTheTargetDecidesWhatRuns(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	guestbook, _ := modules.Get("guestbook")
	words, _ := modules.Get("wordcount")
	layer := filepath.Join(w.entry("bob").Dir, "modules")
	pins := func(text string) {
		t.Helper()
		if err := os.MkdirAll(layer, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(layer, module.PinsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.reopen()
	}
	asks := []script.Script{
		{Logic: script.Logic{Name: "guestbook"}, Params: []byte("one two")},
		{Logic: script.Logic{Wasm: guestbook.Wasm}, Params: []byte("one two")},
		{Logic: script.Logic{Digest: guestbook.Digest()}, Params: []byte("one two")},
	}
	w.allow("bob", guestbookPermit(w, "alice"))
	pins(fmt.Sprintf("[map]\nguestbook = \"wordcount\"\n%q = \"wordcount\"\n", script.Digest(guestbook.Digest())))

	// That alice may run the guestbook is not asked.
	for _, s := range asks {
		r := w.send("alice", "bob", s)
		if r.Code != script.Refused || !strings.Contains(r.Message, "policy allow --to bob alice wordcount") {
			t.Errorf("%s: %s", r.Code, r.Message)
		}
	}
	// And a stranger is not told what bob has in its place.
	stranger, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range asks {
		s.Target = w.entry("bob").ID
		sealed, id, err := envelope.SealScript(s, stranger)
		if err != nil {
			t.Fatal(err)
		}
		if r := w.deliver(sealed, id); r.Code != script.Refused || r.Instead != "" || !r.Module.IsZero() || strings.Contains(r.Message, "wordcount") {
			t.Errorf("a stranger is told %q, %s", r.Message, r.Instead)
		}
	}
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Name: "alice", Module: "wordcount"})
	for i, s := range asks {
		r := w.send("alice", "bob", s)
		if r.Code != script.Done || !strings.Contains(string(r.Result), `"words":2`) {
			t.Errorf("%s: %s %s", r.Code, r.Message, r.Result)
		}
		want := script.Digest(guestbook.Digest())
		if i == 0 {
			want = script.Digest{}
		}
		if r.Instead != "wordcount" || r.Module != words.Digest() || r.ModuleName != s.Logic.Name || r.Asked != want {
			t.Errorf("it says that %q, %s, was asked for, and %s, %s, ran", r.ModuleName, r.Asked, r.Instead, r.Module)
		}
	}
	if r := w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "wordcount"}}); r.Code != script.Done || r.Instead != "" || !r.Asked.IsZero() {
		t.Errorf("asked by its own name: %+v", r)
	}

	// What cannot be known to be the owner's wish does not run, and the reason is theirs.
	pins("[map]\nguestbook = 1\n")
	for _, s := range append(asks, script.Script{Logic: script.Logic{Name: "wordcount"}}) {
		r := w.send("alice", "bob", s)
		if r.Code != script.Unavailable || !strings.Contains(r.Message, "pins.toml") || strings.Contains(r.Message, layer) {
			t.Errorf("%s: %s", r.Code, r.Message)
		}
	}
	if problem := w.host.Problem(); problem == nil || !strings.Contains(problem.Error(), "pins.toml:2") {
		t.Errorf("problem: %v", problem)
	}
}
