package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
)

// What is given needs no permit, and a forbid of it, or a policy about it that
// fails, takes it away, as with all else.
func TestGiven(t *testing.T) {
	const fails = `context.params + 9223372036854775807 > 0`
	for _, tc := range []struct {
		name, policy string
		denied       string // actions
		why          string
	}{
		{"no policy is about it", `permit(principal, action == Action::"submit", resource);`, "", ""},
		{"forbidden", `@id("no") forbid(principal, action == Action::"clock", resource);`, "clock", "policy no of bob forbids it"},
		{"all", `@id("no") forbid(principal, action in Action::"host", resource);`, "clock random log", "policy no of bob forbids it"},
		{"whatever is done there", `@id("no") forbid(principal, action, resource is Context);`, "clock random log", "policy no of bob forbids it"},
		{"and permitted", `permit(principal, action, resource); @id("no") forbid(principal, action == Action::"log", resource);`, "log", "policy no of bob forbids it"},
		{"to this module", `@id("no") forbid(principal, action == Action::"random", resource) when { context.module.name == "guestbook" };`, "random", "policy no of bob forbids it"},
		{"to another", `forbid(principal, action == Action::"random", resource) when { context.module.name == "study" };`, "", ""},
		{"a path is not the context", `forbid(principal, action, resource in Path::"/");`, "", ""},
		{"a forbid that fails", `@id("f") forbid(principal, action == Action::"clock", resource) when { ` + fails + ` };`, "clock", "policy f of bob could not be evaluated"},
		{"a permit that fails", `@id("f") permit(principal, action == Action::"clock", resource) when { ` + fails + ` };`, "clock", "policy f of bob could not be evaluated"},
	} {
		g := parse(t, tc.policy).Grants(from(alice))
		for range 2 { // asked, and remembered
			for _, a := range given {
				err := g.May(a)
				if denied := strings.Contains(tc.denied, string(a)); (err != nil) != denied || denied && !strings.Contains(err.Error(), tc.why) {
					t.Errorf("%s: %s: %v", tc.name, a, err)
				}
			}
		}
	}
	for _, g := range []*Grants{nil, {}} {
		if err := g.May(Clock); err == nil {
			t.Error("without grants there is a clock")
		}
	}
	var denied *DeniedError
	g := parse(t, `permit(principal, action, resource);`).Grants(from(alice))
	if err := g.May(script.Read); !errors.As(err, &denied) {
		t.Errorf("read is given: %v", err)
	}
	if err := g.Allow(Clock, "/"); !errors.As(err, &denied) {
		t.Errorf("a clock has a path: %v", err)
	}
	if err := Broken(errors.New("x")).Grants(from(alice)).May(Clock); err == nil {
		t.Error("policies that do not load permit a clock")
	}
	for _, id := range []string{Given, Owner} {
		if _, err := Parse([]File{{"a.cedar", `@id("` + id + `") forbid(principal, action, resource);`}}); err == nil || !strings.Contains(err.Error(), "choose another") {
			t.Errorf("a policy may be called %s: %v", id, err)
		}
	}
}

// A script asks for the time more often than for anything else.
func TestMayAllocatesNothing(t *testing.T) {
	for _, text := range []string{
		`permit(principal, action, resource);`,
		`forbid(principal, action == Action::"clock", resource) when { context.module.name == "other" };`,
	} {
		g := parse(t, text).Grants(from(alice))
		if n := testing.AllocsPerRun(100, func() {
			if g.May(Clock) != nil {
				t.Fatal("denied")
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}
