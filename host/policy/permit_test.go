package policy

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

func TestPermitFormat(t *testing.T) {
	p := Permit{
		Peer: alice.ID, Name: "alice", Module: "guestbook", Entries: []string{"sign"},
		Read: []string{"/guestbook", "/motd"}, List: []string{"/guestbook"}, Write: []string{"/guestbook"},
	}
	got, err := p.Format()
	if err != nil {
		t.Fatal(err)
	}
	want := filled(`// alice may run guestbook here.
@id("allow-alice-guestbook")
permit (
  principal == Peer::"alice",
  action == Action::"submit",
  resource
) when {
  context.module.name == "guestbook" &&
  context.entry == "sign"
};

// What that may touch while it runs for them, and all that is below.
@id("allow-alice-guestbook-files")
permit (
  principal == Peer::"alice",
  action in [Action::"read", Action::"list", Action::"write"],
  resource in Path::"/guestbook"
) when {
  context.module.name == "guestbook" &&
  context.entry == "sign"
};

@id("allow-alice-guestbook-files-2")
permit (
  principal == Peer::"alice",
  action in [Action::"read"],
  resource in Path::"/motd"
) when {
  context.module.name == "guestbook" &&
  context.entry == "sign"
};
`)
	// The id appears in the guestbook's names, too: put those back.
	want = strings.ReplaceAll(want, `"`+string(alice.ID)+`-`, `"alice-`)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPermitIsNoMoreThanItSays(t *testing.T) {
	p := Permit{Circle: "friends", Module: "guestbook", Digest: guestbook.Digest, Entries: []string{"sign", "read"}, Read: []string{"/a"}, Remove: []string{"/b"}}
	text, err := p.Format()
	if err != nil {
		t.Fatal(err)
	}
	s := parse(t, text)
	other := func(f func(*Request)) Request { r := from(alice); f(&r); return r }
	tests := []struct {
		name  string
		r     Request
		files bool
	}{
		{"as written", from(alice), true},
		{"somebody else", from(mallory), false},
		{"another module", other(func(r *Request) { r.Code.Name = "calendar" }), false},
		{"the name, of other code", other(func(r *Request) { r.Code.Digest[0] ^= 1 }), false},
		{"another entry", other(func(r *Request) { r.Entry = "erase" }), false},
		{"the other entry", other(func(r *Request) { r.Entry = "read" }), true},
	}
	for _, tt := range tests {
		if v := s.Submit(tt.r); v.Permitted != tt.files {
			t.Errorf("%s: %v", tt.name, v)
		}
		e := s.Explain(tt.r, Need{script.Read, "/a/x"}, Need{script.Remove, "/b"}, Need{script.Read, "/b"}, Need{script.Write, "/a"}, Need{script.Read, "/"})
		for i, n := range e.Needs {
			if (n.Denied == nil) != (tt.files && i < 2) {
				t.Errorf("%s: %s %s: %v", tt.name, n.Action, n.Path, n.Denied)
			}
		}
	}
}

// A permit for what somebody signed is for that alone, and with a name for that of this
// name alone.
func TestPermitOfAPublisher(t *testing.T) {
	for _, module := range []string{"", "guestbook"} {
		text, err := Permit{Peer: alice.ID, Module: module, Publisher: mallory.ID, Send: []string{string(mallory.ID)}}.Format()
		if err != nil {
			t.Fatal(err)
		}
		s := parse(t, text)
		for _, tt := range []struct {
			name      string
			publisher peer.ID
			permitted bool
		}{
			{"guestbook", mallory.ID, true}, {"guestbook", alice.ID, false}, {"guestbook", "", false}, {"other", mallory.ID, module == ""},
		} {
			r := from(alice)
			r.Code.Name, r.Code.Publisher = tt.name, tt.publisher
			if v := s.Submit(r); v.Permitted != tt.permitted {
				t.Errorf("%q, of %q signed by %s: %s", module, tt.name, tt.publisher, v)
			}
			if err := s.Grants(r).Allow(script.Send, string(mallory.ID)); (err == nil) != tt.permitted {
				t.Errorf("%q, of %q signed by %s: to send: %v", module, tt.name, tt.publisher, err)
			}
			if err := s.Grants(r).Allow(script.Send, string(alice.ID)); err == nil {
				t.Errorf("%q: it may send to alice too", module)
			}
		}
	}
}

// Names of modules, entries and circles, paths and petnames come from others.
// None may add to the policy that it is written into.
func TestPermitHoldsHostileNames(t *testing.T) {
	evil := []string{
		`x" || true || "`, `x"; permit(principal, action, resource); //`, "x\npermit(principal, action, resource);\n//",
		"x\r\npermit(principal, action, resource);", `\`, `\"`, `\u{22}`, `"`, "*/ permit(principal,action,resource); /*", "\x1b[2J", "\u2028permit", "ü",
	}
	for _, s := range evil {
		for name, p := range map[string]Permit{
			"module": {Peer: alice.ID, Module: s},
			"entry":  {Peer: alice.ID, Module: "m", Entries: []string{s}},
			"path":   {Peer: alice.ID, Module: "m", Read: []string{"/" + strings.ReplaceAll(s, "/", "_")}},
			"record": {Peer: alice.ID, Module: "m", Get: []string{"notes/" + s}},
			"name":   {Peer: alice.ID, Name: peer.Name(s), Module: "m"},
			"id":     {ID: s, Peer: alice.ID, Module: "m"},
			"circle": {Circle: s, Module: "m"},
		} {
			text, err := p.Format()
			if err != nil {
				if name == "circle" && !printable(s) || name == "record" && script.CheckKey(s) != nil {
					continue // nothing is called so
				}
				t.Errorf("%s %q: %v", name, s, err)
				continue
			}
			set := parse(t, text)
			if want := 1 + len(p.touched()); set.Len() != want {
				t.Errorf("%s %q: %d policies, not %d:\n%s", name, s, set.Len(), want, text)
			}
			if v := set.Submit(from(mallory)); v.Permitted {
				t.Errorf("%s %q permits mallory:\n%s", name, s, text)
			}
			if v := set.Submit(p.example()); !v.Permitted {
				t.Errorf("%s %q permits nobody:\n%s", name, s, text)
			}
		}
	}
	for name, p := range map[string]Permit{
		"nobody":              {Module: "m"},
		"two":                 {Peer: alice.ID, Circle: "friends", Module: "m"},
		"no module":           {Peer: alice.ID},
		"no id":               {Peer: "alice", Module: "m"},
		"relative path":       {Peer: alice.ID, Module: "m", Read: []string{"a"}},
		"dots":                {Peer: alice.ID, Module: "m", Read: []string{"/a/.."}},
		"path not in UTF-8":   {Peer: alice.ID, Module: "m", Read: []string{"/\xff"}},
		"module not in UTF-8": {Peer: alice.ID, Module: "\xff"},
		"a path of records":   {Peer: alice.ID, Module: "m", Get: []string{"/notes"}},
		"no collection":       {Peer: alice.ID, Module: "m", Put: []string{"../notes"}},
		"no key":              {Peer: alice.ID, Module: "m", Put: []string{"notes/"}},
		"a query of a record": {Peer: alice.ID, Module: "m", Query: []string{"notes/a"}},
		"files of records":    {Peer: alice.ID, Module: "m", Read: []string{"notes"}},
	} {
		if text, err := p.Format(); err == nil {
			t.Errorf("%s: written:\n%s", name, text)
		}
	}
}

func TestPermitSave(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policy")
	p := Permit{Peer: alice.ID, Name: "alice", Module: "guestbook"}
	var names []string
	for range 3 {
		name, err := p.Save(dir)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if got := strings.Join(names, " "); got != "allow-alice-guestbook.cedar allow-alice-guestbook-2.cedar allow-alice-guestbook-3.cedar" {
		t.Error(got)
	}
	s, err := Load(dir)
	if err != nil || s.Len() != 3 || !s.Submit(from(alice)).Permitted {
		t.Errorf("%v, %v", s, err)
	}

	// The id may be in use in another file, under another name.
	put(t, dir+"/mine.cedar", `@id("allow-alice-calendar") permit(principal == Peer::"alice", action, resource);`)
	p.Module = "calendar"
	if name, err := p.Save(dir); name != "allow-alice-calendar-2.cedar" {
		t.Error(name, err)
	}

	put(t, dir+"/mine.cedar", `permit`)
	if name, err := p.Save(dir); err == nil || !strings.Contains(err.Error(), "mend the policies first") {
		t.Error(name, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 5 {
		t.Errorf("left behind: %v", entries)
	}
}

// Two that allow at once must both be in force, under a file each.
func TestPermitSaveTogether(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	const n = 8
	for range n {
		all.Go(func() {
			if _, err := (Permit{Peer: alice.ID, Module: "guestbook"}).Save(dir); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if s, err := Load(dir); err != nil || s.Len() != n {
		t.Errorf("%d, %v", s.Len(), err)
	}
}
