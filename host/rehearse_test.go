package host_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// supposed is s as from one peer to another, signed by nobody.
func (w *world) supposed(from, to peer.Name, s script.Script) script.Script {
	s.Caller, s.Target = w.entry(from).ID, w.entry(to).ID
	s.NotBefore = time.Now()
	s.Deadline = s.NotBefore.Add(time.Minute)
	return s
}

// TestRehearse: an owner sees what a script that nobody has sent would do and ask
// for, under policies that are not in force; and nothing of it is left.
func TestRehearse(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "sign", `@id("run") permit(principal, action == Action::"submit", resource);
		@id("files") permit(principal, action in [Action::"read", Action::"write"], resource in Path::"/guestbook");
		@id("no-clock") forbid(principal, action == Action::"clock", resource);`)
	// Once for real, so that there is a store to look into.
	if r := w.send("alice", "bob", sign("first")); r.Code != script.Done {
		t.Fatalf("%v %s", r.Code, r.Message)
	}
	before, logged := w.tree("bob"), len(w.logged("bob"))
	r, err := w.host.Rehearse(t.Context(), w.supposed("alice", "bob", sign("again")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Receipt.Code != script.Done || !r.Receipt.DryRun || len(r.Receipt.Effects) == 0 || !slices.Equal(r.Receipt.Policies, []string{"run"}) {
		t.Errorf("%+v", r.Receipt)
	}
	found := map[string]string{}
	for _, a := range r.Accesses {
		if a.Count < 1 {
			t.Errorf("%+v", a)
		}
		found[strings.TrimSpace(string(a.Action)+" "+a.Path)] = strings.Join(a.By, ",")
		if (a.Reason == "") != a.Allowed {
			t.Errorf("%+v", a)
		}
	}
	if found["write /guestbook"] != "files" {
		t.Errorf("asked for %v", found)
	}
	if after := w.tree("bob"); after != before || len(w.logged("bob")) != logged {
		t.Errorf("it left something:\n%s\n%s\n%d receipts, were %d", before, after, len(w.logged("bob")), logged)
	}

	// Under others, that refuse it, or a part.
	none, err := w.host.Rehearse(t.Context(), w.supposed("alice", "bob", sign("again")), &policy.Set{})
	if err != nil || none.Receipt.Code != script.Refused || len(none.Accesses) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	if _, err := w.host.Rehearse(t.Context(), script.Script{Target: w.entry("bob").ID}, nil); err == nil {
		t.Error("a script that is none was rehearsed")
	}
	if len(w.logged("bob")) != logged {
		t.Error("a rehearsal is in the log")
	}
}

// tree is the names of all that is in a peer's context.
func (w *world) tree(name peer.Name) string {
	var b strings.Builder
	w.files(name, func(fs store.FS) error {
		var walk func(dir string) error
		walk = func(dir string) error {
			d, err := fs.Open(dir, store.FlagRead|store.FlagDirectory)
			if err != nil {
				return err
			}
			defer d.Close()
			entries, err := d.ReadDir(0, 1000)
			for _, e := range entries {
				path := strings.TrimSuffix(dir, "/") + "/" + e.Name
				b.WriteString(path + "\n")
				if e.Kind == store.KindDir {
					if err := walk(path); err != nil {
						return err
					}
				}
			}
			return err
		}
		return walk("/")
	})
	return b.String()
}

// TestSuggest: what a suggestion permits is just what the script asked for. The
// script runs by it, and no near miss does.
func TestSuggest(t *testing.T) {
	w := newWorld(t, "alice", "bob", "mallory")
	s := w.supposed("alice", "bob", sign("hello"))
	g, err := w.host.Suggest(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if g.Last.Receipt.Code != script.Done || len(g.Forbidden) != 0 || g.Permit.Within || !g.Permit.Exact {
		t.Fatalf("%+v", g)
	}
	if strings.Contains(g.Edit.After, "resource in") || !strings.Contains(g.Edit.After, "context.module.digest == ") || !strings.Contains(g.Edit.After, `context.entry == "sign"`) {
		t.Errorf("it is wider than it need be:\n%s", g.Edit.After)
	}
	if len(w.logged("bob")) != 0 {
		t.Error("it left receipts")
	}
	if err := g.Edit.Apply(w.entry("bob").Dir + "/policy"); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	for _, tt := range []struct {
		from peer.Name
		s    script.Script
		want bool
	}{
		{"mallory", sign("hello"), false},
		{"alice", script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "read"}, false},
		{"alice", script.Script{Logic: script.Logic{Name: "wordcount"}}, false},
		{"alice", sign("hello"), true},
	} {
		if r := w.send(tt.from, "bob", tt.s); (r.Code == script.Done) != tt.want {
			t.Errorf("%s: %v %s", tt.from, r.Code, r.Message)
		}
	}

	// The next message goes into another file: that alone is missing by now, and it
	// may run already.
	g, err = w.host.Suggest(t.Context(), w.supposed("alice", "bob", sign("more")))
	if err != nil {
		t.Fatal(err)
	}
	if g.Edit.After != "" && (!g.Permit.Within || strings.Contains(g.Edit.After, `"submit"`)) {
		t.Errorf("it permits again what is permitted:\n%s", g.Edit.After)
	}
	// What a forbid denies no permit gives.
	w.policy("bob", "full", `@id("full") forbid(principal, action == Action::"write", resource);`)
	if g, err = w.host.Suggest(t.Context(), w.supposed("alice", "bob", sign("more"))); err != nil || len(g.Forbidden) == 0 || g.Forbidden[0].By[0] != "full" {
		t.Errorf("%+v, %v", g, err)
	}
	w.policy("bob", "closed", `@id("closed") forbid(principal, action == Action::"submit", resource);`)
	if _, err = w.host.Suggest(t.Context(), w.supposed("alice", "bob", sign("more"))); err == nil || !strings.Contains(err.Error(), "policy closed forbids it") {
		t.Errorf("%v", err)
	}
	if _, err = w.host.Suggest(t.Context(), w.supposed("alice", "bob", script.Script{Logic: script.Logic{Name: "none"}})); err == nil {
		t.Error("a module that is not there was suggested")
	}
}
