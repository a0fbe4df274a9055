package policy

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
)

// A forbid says what its owner was shown, whatever names it is made of, and
// nothing about anybody else.
func TestForbidIsWhatItSays(t *testing.T) {
	open := `permit(principal, action, resource);`
	for _, tt := range []struct {
		name   string
		forbid Forbid
		runs   bool // alice may still run the guestbook
		writes bool // it may still write /a/b
	}{
		{"a module", Forbid{Permit: Permit{Peer: alice.ID, Module: "guestbook"}}, false, true},
		{"another module", Forbid{Permit: Permit{Peer: alice.ID, Module: "grep"}}, true, true},
		{"everything", Forbid{Permit: Permit{Peer: alice.ID}, Reason: "no", Hide: true}, false, true},
		{"a circle", Forbid{Permit: Permit{Circle: "friends", Module: "guestbook", Entries: []string{"sign"}}}, false, true},
		{"a path", Forbid{Permit: Permit{Peer: alice.ID, Module: "guestbook", Write: []string{"/a"}}}, true, false},
		{"that path alone", Forbid{Permit: Permit{Peer: alice.ID, Write: []string{"/a"}, Exact: true}}, true, true},
		{"somebody else", Forbid{Permit: Permit{Peer: mallory.ID}}, true, true},
	} {
		text, err := tt.forbid.Format()
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		s := parse(t, open, text)
		if runs := s.Submit(from(alice)).Permitted; runs != tt.runs {
			t.Errorf("%s: runs: %t\n%s", tt.name, runs, text)
		}
		if writes := s.Grants(from(alice)).Allow(script.Write, "/a/b") == nil; writes != tt.writes {
			t.Errorf("%s: writes: %t\n%s", tt.name, writes, text)
		}
	}
	for _, f := range []Forbid{
		{}, {Permit: Permit{Peer: alice.ID, Circle: "x"}}, {Permit: Permit{Peer: alice.ID, Module: "a\xff"}},
		{Permit: Permit{Peer: alice.ID, Write: []string{"a"}}}, {Permit: Permit{Peer: alice.ID}, Reason: "\x1b"},
	} {
		if text, err := f.Format(); err == nil {
			t.Errorf("%+v was written:\n%s", f, text)
		}
	}
}

// What is taken back is what was shown: a file that was changed meanwhile stays,
// and so does one that somebody has just saved under the same name.
func TestEditIsWhatWasShown(t *testing.T) {
	dir := t.TempDir()
	p := Permit{Peer: alice.ID, Name: "alice", Module: "guestbook", Read: []string{"/a"}}
	e, err := p.Plan(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/" + e.File); err == nil {
		t.Fatal("a plan was carried out")
	}
	with, err := With(dir, e)
	if err != nil || !with.Submit(from(alice)).Permitted {
		t.Fatalf("with it: %v", err)
	}
	put(t, dir+"/"+e.File, "// mine")
	if err := e.Apply(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if b, _ := os.ReadFile(dir + "/" + e.File); string(b) != "// mine" {
		t.Errorf("now it is %q", b)
	}
	name, err := p.Save(dir)
	if err != nil || name != "allow-alice-guestbook-2.cedar" {
		t.Fatalf("%s, %v", name, err)
	}

	edits, left, err := Revoke(dir, "", p)
	if err != nil || len(edits) != 1 || edits[0].File != name || len(left) != 0 {
		t.Fatalf("%+v, %+v, %v", edits, left, err)
	}
	if d := edits[0].Diff(); !strings.Contains(d, "\n-permit (") || strings.Contains(d, "\n+permit") {
		t.Errorf("diff:\n%s", d)
	}
	put(t, dir+"/"+name, edits[0].Before+"// and mine")
	if err := edits[0].Apply(dir); err == nil {
		t.Error("what was changed meanwhile is gone")
	}
	put(t, dir+"/"+name, edits[0].Before)
	if err := edits[0].Apply(dir); err != nil {
		t.Error(err)
	}
	if found, _ := os.ReadDir(dir); len(found) != 1 {
		t.Errorf("left are %v", found)
	}
}

// Only what permits that peer to run that module is taken back, and nothing that
// an owner wrote beside it.
func TestRevoke(t *testing.T) {
	dir := t.TempDir()
	save := func(p Permit) {
		t.Helper()
		if _, err := p.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	digest := script.Digest{7}
	save(Permit{Peer: alice.ID, Name: "alice", Module: "guestbook", Read: []string{"/a", "/b"}, Get: []string{"c"}})
	save(Permit{Peer: alice.ID, Name: "alice", Module: "guestbook", Entries: []string{"sign"}})
	save(Permit{Peer: alice.ID, Name: "alice", Module: "grep"})
	save(Permit{Peer: mallory.ID, Name: "mallory", Module: "guestbook"})
	save(Permit{Peer: alice.ID, Name: "alice", Digest: digest})
	save(Permit{Peer: alice.ID, Name: "alice", Module: "audit", Put: []string{"done"}, Within: true})
	put(t, dir+"/own.cedar", "// both\n"+`@id("one") permit(principal == Peer::"alice", action, resource) when { context.module.name == "guestbook" };
@id("two") permit(principal == Peer::"mallory", action, resource);`)
	put(t, dir+"/odd.cedar", "not a policy")
	for _, tt := range []struct {
		id    string
		of    Permit
		files string
		left  []Place
	}{
		{"", Permit{Peer: alice.ID, Module: "guestbook"}, "allow-alice-guestbook-2.cedar allow-alice-guestbook.cedar", []Place{{"one", "own.cedar", 2}}},
		{"", Permit{Peer: alice.ID, Digest: digest}, "allow-alice-07000000.cedar", nil},
		{"", Permit{Peer: alice.ID, Module: "audit"}, "allow-alice-audit.cedar", nil}, // what is called only
		{"", Permit{Circle: "friends", Module: "guestbook"}, "", nil},
		{"", Permit{Peer: alice.ID, Module: "sed"}, "", nil},
		{"allow-alice-grep", Permit{}, "allow-alice-grep.cedar", nil},
		{"allow-alice-guestbook-files", Permit{}, "", []Place{{"allow-alice-guestbook-files", "allow-alice-guestbook.cedar", 12}}},
		{"two", Permit{}, "", []Place{{"two", "own.cedar", 3}}},
		{"none", Permit{}, "", nil},
	} {
		edits, left, err := Revoke(dir, tt.id, tt.of)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range edits {
			names = append(names, e.File)
		}
		if got := strings.Join(names, " "); got != tt.files || !slices.Equal(left, tt.left) {
			t.Errorf("%s %+v: %s, %+v", tt.id, tt.of, got, left)
		}
	}
}
