package policy

import (
	"os"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
)

// to is what the code of that name may do for alice, whom the policies let send it.
func accepted(s *Set, name string) *Accepted {
	r := from(alice)
	r.Code.Name = name
	return &Accepted{grants: s.Grants(r), parties: r.Parties}
}

func TestCallIsDecided(t *testing.T) {
	for name, tt := range map[string]struct {
		policy, by, of, want string
	}{
		"nothing by default":            {`permit(principal, action == Action::"submit", resource);`, "app", "audit", "no policy of bob permits it"},
		"files are not modules":         {`permit(principal, action in [Action::"files", Action::"records"], resource);`, "app", "audit", "no policy of bob permits it"},
		"one of them":                   {`permit(principal, action == Action::"call", resource == Module::"audit");`, "app", "audit", ""},
		"another":                       {`permit(principal, action == Action::"call", resource == Module::"audit");`, "app", "audit-2", "no policy of bob permits it"},
		"all of them":                   {`permit(principal, action == Action::"call", resource);`, "app", "x", ""},
		"who calls is known":            {`permit(principal, action == Action::"call", resource) when { context.module.name == "app" };`, "other", "x", "no policy of bob permits it"},
		"a forbid":                      {`permit(principal, action, resource); @id("no") forbid(principal, action == Action::"call", resource == Module::"x");`, "app", "x", "policy no of bob forbids it"},
		"a forbid beside it":            {`permit(principal, action, resource); @id("no") forbid(principal, action == Action::"call", resource == Module::"x");`, "app", "y", ""},
		"in a condition":                {`permit(principal, action == Action::"call", resource) when { [Module::"a", Module::"b"].contains(resource) };`, "app", "b", ""},
		"no name":                       {`permit(principal, action, resource);`, "app", "", "not a module's name"},
		"a path":                        {`permit(principal, action, resource);`, "app", "/audit", "not a module's name"},
		"no other's delegation or loan": {`permit(principal, action, resource) when { context.lent };`, "app", "audit", "no policy of bob permits it"},
	} {
		err := accepted(parse(t, tt.policy), tt.by).Target().Allow(Call, tt.of)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && !strings.Contains(err.Error(), "may not call module ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for text, want := range map[string]string{
		`permit(principal, action == Action::"call", resource == Module::"Audit");`:        `Module::"Audit" matches nothing`,
		`permit(principal, action == Action::"call", resource in Path::"/a");`:             "impossible",
		`permit(principal, action == Action::"submit", resource == Module::"audit");`:      "",
		`permit(principal, action == Action::"call", resource) when { resource.x == "" };`: "not found",
	} {
		if _, err := Parse([]File{{"x.cedar", text}}); err == nil || !strings.Contains(err.Error(), want) && want != "impossible" {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// What is called has what the policies give it, and no more than any that called it;
// what an owner has put in its place, nobody having called it, has its own.
func TestCalledGrants(t *testing.T) {
	s := parse(t, `
@id("app") permit(principal, action in Action::"files", resource in Path::"/a") when { context.module.name == "app" };
@id("both") permit(principal, action in Action::"files", resource in Path::"/shared") when { ["app", "dep", "deeper"].contains(context.module.name) };
@id("dep") permit(principal, action in Action::"files", resource in Path::"/d") when { ["dep", "deeper"].contains(context.module.name) };
@id("deeper") permit(principal, action in Action::"files", resource in Path::"/e") when { context.module.name == "deeper" };
@id("quiet") forbid(principal, action == Action::"log", resource) when { context.module.name == "dep" };
@id("small") forbid(principal, action == Action::"write", resource) when { context.params > 10 };
@id("entry") forbid(principal, action == Action::"read", resource) when { context.entry == "blind" };
`)
	a := accepted(s, "app")
	code := func(name string) Code { return Code{Found: true, Name: name, Digest: script.Digest{7}, Layer: "peer"} }
	app := a.Target()
	dep := a.Called(code("dep"), "", nil, app)
	deeper := a.Called(code("deeper"), "", nil, dep)
	own := a.Called(code("deeper"), "", nil, nil)
	for path, want := range map[string][4]bool{
		"/a/x": {true, false, false, false}, "/shared": {true, true, true, true}, "/d/x": {false, false, false, true}, "/e": {false, false, false, true}, "/f": {},
	} {
		for i, g := range []*Grants{app, dep, deeper, own} {
			for range 2 { // also when it is remembered
				if got := g.Allow(script.Read, path) == nil; got != want[i] {
					t.Errorf("%s: read %s is %v", g.Module(), path, got)
				}
			}
			if got := g.Why(Need{script.Read, path}).Denied == nil; got != want[i] {
				t.Errorf("%s: why read %s is %v", g.Module(), path, got)
			}
		}
	}
	if app.May(Log) != nil || dep.May(Log) == nil || deeper.May(Log) == nil || own.May(Log) != nil {
		t.Error("deeper logs for dep, which may not, or alone it does not")
	}
	err := deeper.Allow(script.Read, "/e")
	if want := "dep called this, and may not: no policy of bob permits it"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	if err := a.Called(code("deeper"), "", make([]byte, 11), nil).Allow(script.Write, "/e"); err == nil {
		t.Error("policies do not see the params that it was called with")
	}
	if err := a.Called(code("deeper"), "blind", nil, nil).Allow(script.Read, "/e"); err == nil {
		t.Error("policies do not see the entry that it was called by")
	}
	if a.Target().Allow(script.Write, "/a") != nil {
		t.Error("what was called has changed what the script may do")
	}
}

// What is written for a module that is called lets it do that, and not be sent.
func TestPermitToCall(t *testing.T) {
	dir := t.TempDir()
	p := Permit{Peer: alice.ID, Name: alice.Name, Module: "app", Call: []string{"audit", "mail"}, Read: []string{"/a"}}
	if _, err := p.Save(dir); err != nil {
		t.Fatal(err)
	}
	called := Permit{Peer: alice.ID, Name: alice.Name, Module: "audit", Within: true, Write: []string{"/audit"}, Call: []string{"mail"}}
	name, err := called.Save(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	app, audit := accepted(s, "app"), accepted(s, "audit")
	if app.grants.submit().Permitted != true || audit.grants.submit().Permitted {
		t.Error("audit may be sent, or app may not")
	}
	for g, want := range map[*Grants][3]bool{app.grants: {true, true, false}, audit.grants: {false, true, true}} {
		got := [3]bool{g.Allow(Call, "audit") == nil, g.Allow(Call, "mail") == nil, g.Allow(script.Write, "/audit/x") == nil}
		if got != want {
			t.Errorf("%s: %v, want %v", g.Module(), got, want)
		}
	}
	r := from(alice)
	r.Code.Name = "app"
	if reach, _ := s.Reach(r); !strings.Contains(reachText(reach), "call audit\ncall mail\n") || strings.Contains(reachText(reach), "call *") {
		t.Errorf("%s", reachText(reach))
	}
	needs, err := ParseNeeds([]string{"call audit"})
	if err != nil || needs[0] != (Need{Call, "audit"}) {
		t.Errorf("%v, %v", needs, err)
	}
	if _, err := ParseNeeds([]string{"call /audit"}); err == nil || !strings.Contains(err.Error(), "not a module's name") {
		t.Error(err)
	}
	if x := s.Explain(r, needs...); x.Needs[0].Denied != nil || len(x.Needs[0].By) != 1 {
		t.Errorf("%+v", x.Needs)
	}
	edits, left, err := Revoke(dir, strings.TrimSuffix(name, ".cedar"), Permit{})
	if err != nil || len(edits) != 1 || len(left) != 0 || edits[0].File != name {
		t.Errorf("%v, %v, %v", edits, left, err)
	}
	text, err := os.ReadFile(dir + "/" + name)
	if err != nil || strings.Contains(string(text), "submit") || !strings.Contains(string(text), `resource == Module::"mail"`) {
		t.Errorf("%s, %v", text, err)
	}
	f := Forbid{Permit: Permit{Peer: alice.ID, Module: "app", Call: []string{"mail"}}, Reason: "no mails"}
	e, err := f.Plan(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = With(dir, e); err != nil {
		t.Fatal(err)
	}
	if g := accepted(s, "app").grants; g.Allow(Call, "mail") == nil || g.Allow(Call, "audit") != nil || !g.submit().Permitted {
		t.Error("deny --call forbids something else")
	}
	if _, err := (Permit{Peer: alice.ID, Module: "app", Call: []string{"A B"}}).Format(); err == nil || !strings.Contains(err.Error(), "not a module's name") {
		t.Error(err)
	}
}

func reachText(reach []Reached) string {
	var b strings.Builder
	for _, r := range reach {
		if r.Allowed {
			b.WriteString(string(r.Action) + " " + r.Path + "\n")
		}
	}
	return b.String()
}
