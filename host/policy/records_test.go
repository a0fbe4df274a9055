package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// TestRecords: who may do what to which records is a question like that of files,
// of collections, records, and what a key begins with.
func TestRecords(t *testing.T) {
	s := parse(t, `
		permit(principal == Peer::"alice", action in [Action::"get", Action::"query"], resource in Collection::"bookings");
		permit(principal == Peer::"alice", action == Action::"put", resource) when { resource in Collection::"bookings" && resource.key like "2026-*" };
		permit(principal == Peer::"alice", action in Action::"records", resource == Record::"counters/visits");
		permit(principal, action in Action::"files", resource);
		forbid(principal, action == Action::"get", resource == Record::"bookings/secret");
		forbid(principal, action in Action::"records", resource in Collection::"diary");
	`)
	for _, tc := range []struct {
		action  script.Action
		name    string
		allowed bool
	}{
		{script.Get, "bookings/2026-11-23/alice", true},
		{script.Get, "bookings/a", true},
		{script.Get, "bookings", true},
		{script.Query, "bookings", true},
		{script.Put, "bookings/2026-11-23", true},
		{script.Put, "bookings/2025-11-23", false},
		{script.Put, "bookings", false},
		{script.Delete, "bookings/2026-11-23", false},
		{script.Get, "bookings/secret", false},
		{script.Put, "counters/visits", true},
		{script.Delete, "counters/visits", true},
		{script.Put, "counters/visits/x", false},
		{script.Query, "counters", false},
		{script.Get, "diary/1", false},
		{script.Get, "bookings-2/a", false},
		{script.Get, "notes/a", false},
		{script.Get, "/bookings/a", false},
		{script.Get, "bookings/", false},
		{script.Get, "bookings/a\x00", false},
		{script.Query, "bookings/a", false},
		{script.Read, "bookings/a", false},
		{script.Read, "/bookings/a", true}, // a file
		{"eat", "bookings/a", false},
	} {
		for caller, may := range map[string]bool{"alice": tc.allowed, "mallory": tc.allowed && tc.action == script.Read} {
			p := alice
			if caller == "mallory" {
				p = mallory
			}
			g := s.Grants(from(p))
			for range 2 { // the second time from memory
				err := g.Allow(tc.action, tc.name)
				if (err == nil) != may {
					t.Errorf("%s: %s %q: %v", caller, tc.action, tc.name, err)
				}
				var denied *DeniedError
				if err != nil && (!errors.As(err, &denied) || denied.Action != tc.action || denied.Path != tc.name) {
					t.Errorf("%s: %s %q: %#v", caller, tc.action, tc.name, err)
				}
			}
		}
	}
	err := s.Grants(from(alice)).Allow(script.Delete, "bookings/a")
	if err == nil || err.Error() != `may not delete record "bookings/a" in the context of bob: no policy of bob permits it` {
		t.Error(err)
	}
	x := s.Explain(from(alice), Need{script.Get, "bookings"}, Need{script.Delete, "bookings"})
	if x.Needs[0].Denied != nil || len(x.Needs[0].By) != 1 || x.Needs[1].Denied == nil {
		t.Errorf("explained as %+v", x.Needs)
	}
}

// TestLentRecords: a script reads of its caller's records those that it lends, as
// far as the caller's policies go, and changes none.
func TestLentRecords(t *testing.T) {
	s := parse(t, Starter+`forbid(principal, action, resource == Record::"cards/secret") when { context.lent };`)
	sent := &script.Script{Caller: alice.ID, Target: bob.ID, Lent: []script.Grant{
		{Action: script.Get, Path: "cards"}, {Action: script.Query, Path: "cards"}, {Action: script.Get, Path: "notes/a"}, {Action: script.Put, Path: "cards"},
	}}
	g := s.Lend(sent, peer.Parties{Caller: alice, Target: bob}, guestbook, noon)
	for name, want := range map[string]bool{
		"get cards/home": true, "get cards/a/b": true, "query cards": true, "get notes/a": true,
		"get cards/secret": false, "query notes": false, "get notes/a/b": false, "get notes/ab": false, "put cards/home": false,
		"delete cards/home": false, "get cards-2/home": false, "get card/s": false, "read /cards/home": false,
	} {
		action, path, _ := strings.Cut(name, " ")
		if err := g.Allow(script.Action(action), path); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPermitRecords: a permit for records says what it permits, and no more.
func TestPermitRecords(t *testing.T) {
	p := Permit{Peer: alice.ID, Name: "alice", Module: "guestbook", Read: []string{"/a"}, List: []string{"/a"},
		Get: []string{"bookings", "counters/visits"}, Put: []string{"counters/visits"}, Query: []string{"bookings"}, Delete: []string{"trash"}}
	text, err := p.Format()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`@id("allow-alice-guestbook-records")`, `@id("allow-alice-guestbook-records-2")`, `@id("allow-alice-guestbook-records-3")`, `@id("allow-alice-guestbook-files")`,
		`action in [Action::"get", Action::"query"],` + "\n  " + `resource in Collection::"bookings"`,
		`action in [Action::"get", Action::"put"],` + "\n  " + `resource in Record::"counters/visits"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
	s := parse(t, text)
	g := s.Grants(from(alice))
	for name, want := range map[string]bool{
		"get bookings/x": true, "query bookings": true, "put bookings/x": false, "put counters/visits": true, "put counters/x": false,
		"delete trash/x": true, "get trash/x": false, "query counters": false, "read /a/b": true,
	} {
		action, path, _ := strings.Cut(name, " ")
		if err := g.Allow(script.Action(action), path); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRecordScopesThatMatchNothing: a forbid of something that is no record's name
// would be void, so it is a mistake.
func TestRecordScopesThatMatchNothing(t *testing.T) {
	for _, scope := range []string{
		`Collection::"Bookings"`, `Collection::"/bookings"`, `Collection::"bookings/a"`, `Collection::""`,
		`Record::"bookings"`, `Record::"bookings/"`, `Record::"/bookings/a"`, `Record::"a/\u{7}"`,
	} {
		_, err := Parse([]File{{"x.cedar", `forbid(principal, action in Action::"records", resource in ` + scope + `);`}})
		if err == nil || !strings.Contains(err.Error(), "matches nothing") {
			t.Errorf("%s: %v", scope, err)
		}
	}
	for _, text := range []string{
		`permit(principal, action == Action::"get", resource in Path::"/a");`, `permit(principal, action == Action::"query", resource == Record::"a/b");`,
		`permit(principal, action == Action::"read", resource in Collection::"a");`, `permit(principal, action == Action::"query", resource) when { resource.key == "a" };`,
	} {
		if _, err := Parse([]File{{"x.cedar", text}}); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	for text, want := range map[string]string{
		`allow = ["get bookings/a", "query bookings"]`: "", `allow = ["get /bookings"]`: "record", `deny = ["query bookings/a"]`: "queried", `allow = ["read bookings"]`: "path",
	} {
		_, err := ParseTests("t.toml", "[[test]]\nas = \"alice\"\nmodule = \"m\"\nexpect = \"permit\"\n"+text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
