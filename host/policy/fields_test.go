package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
)

// TestFields: policies decide by what is in the value that is put, and by what a query
// asks by; nothing of one access is remembered for the next, nor for one of which
// nothing is known.
func TestFields(t *testing.T) {
	s := parse(t, `
		@id("drafts") permit(principal == Peer::"alice", action == Action::"put", resource in Collection::"posts") when {
			context.value.strings.hasTag("/status") && context.value.strings.getTag("/status") == "draft" };
		@id("small") permit(principal == Peer::"alice", action == Action::"put", resource in Collection::"orders") when {
			context.value.numbers.hasTag("/sum/total") && context.value.numbers.getTag("/sum/total") < 100 } unless {
			context.value.booleans.hasTag("/urgent") && context.value.booleans.getTag("/urgent") };
		@id("all") permit(principal == Peer::"alice", action == Action::"put", resource in Collection::"notes");
		@id("asked") permit(principal == Peer::"alice", action == Action::"query", resource == Collection::"posts") when {
			["/starts", "/room"].containsAll(context.fields) };
		@id("some") permit(principal == Peer::"alice", action == Action::"query", resource == Collection::"notes");
		@id("no-salary") forbid(principal, action == Action::"query", resource) when { context.fields.contains("/salary") };
	`)
	status := func(v string) *Fields { return &Fields{Strings: map[string]string{"/status": v}} }
	sum := func(n int64, urgent bool) *Fields {
		return &Fields{Numbers: map[string]int64{"/sum/total": n}, Booleans: map[string]bool{"/urgent": urgent}}
	}
	asked := func(fields ...string) *Fields { return &Fields{Asked: fields} }
	unread := &Fields{Unread: errors.New("it cannot be looked into")}
	g := s.Grants(from(alice))
	if !g.LookAtFields() {
		t.Fatal("policies look at fields, and nobody says so")
	}
	for range 2 {
		for _, tc := range []struct {
			action  script.Action
			path    string
			fields  *Fields
			refused string
		}{
			{script.Put, "posts/1", status("draft"), ""},
			{script.Put, "posts/1", status("public"), "no policy of bob permits it"},
			{script.Put, "posts/1", &Fields{}, "no policy of bob permits it"},
			{script.Put, "posts/1", nil, "no policy of bob permits it"},
			{script.Put, "posts/1", unread, "it cannot be looked into"},
			{script.Put, "orders/1", sum(99, false), ""},
			{script.Put, "orders/1", sum(100, false), "no policy of bob permits it"},
			{script.Put, "orders/1", sum(99, true), "no policy of bob permits it"},
			{script.Put, "notes/1", unread, ""}, // of which no policy asks what is in them
			{script.Put, "others/1", status("draft"), "no policy of bob permits it"},
			{script.Query, "posts", asked("/room"), ""},
			{script.Query, "posts", asked("/room", "/starts"), ""},
			{script.Query, "posts", asked("/room", "/note"), "no policy of bob permits it"},
			{script.Query, "posts", asked(), ""},
			{script.Query, "notes", asked("/note"), ""},
			{script.Query, "notes", asked("/note", "/salary"), "no-salary"},
		} {
			err := g.AllowRecord(tc.action, tc.path, tc.fields)
			if (err == nil) != (tc.refused == "") || err != nil && !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%s %s with %+v: %v", tc.action, tc.path, tc.fields, err)
			}
		}
		if g.Allow(script.Put, "posts/1") == nil || g.Allow(script.Query, "posts") != nil {
			t.Error("what is known of one access is used for another")
		}
	}
	none := parse(t, `permit(principal, action, resource);`).Grants(from(alice))
	if none.LookAtFields() || none.AllowRecord(script.Put, "posts/1", nil) != nil {
		t.Error("policies that look at no fields")
	}
	var nothing *Grants
	if nothing.LookAtFields() || nothing.AllowRecord(script.Put, "posts/1", status("draft")) == nil {
		t.Error("no grants")
	}
	for text, want := range map[string]string{
		`permit(principal, action == Action::"put", resource) when { context.value.strings.getTag("/a") == "b" };`: "may be absent",
		`permit(principal, action == Action::"put", resource) when { context.value.string.hasTag("/a") };`:         "did you mean strings?",
		`permit(principal, action == Action::"put", resource) when { context.fields == "/a" };`:                    "",
		`permit(principal, action == Action::"put", resource) when { StringFields::"x".hasTag("/a") };`:            "values have no id",
	} {
		if _, err := Parse([]File{{Name: "a.cedar", Text: text}}); want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
