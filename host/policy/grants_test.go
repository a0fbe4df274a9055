package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

func TestGrants(t *testing.T) {
	const (
		read   = `@id("r") permit(principal, action == Action::"read", resource in Path::"/a");`
		all    = `@id("all") permit(principal, action in Action::"files", resource);`
		secret = `@id("no") forbid(principal, action, resource in Path::"/a/secret");`
	)
	tests := []struct {
		name, policy string
		action       script.Action
		path         string
		want         string // "" is allowed
	}{
		{"nothing permits by default", `//`, script.Read, "/a", "no policy of bob permits it"},
		{"permission to run is not to touch", `permit(principal, action == Action::"submit", resource);`, script.Read, "/a", "no policy of bob permits it"},
		{"the directory itself", read, script.Read, "/a", ""},
		{"below it", read, script.Read, "/a/b/c.txt", ""},
		{"beside it, with a longer name", read, script.Read, "/ab", "no policy of bob permits it"},
		{"above it", read, script.Read, "/", "no policy of bob permits it"},
		{"another action", read, script.Write, "/a", "no policy of bob permits it"},
		{"every action", all, script.Remove, "/x", ""},
		{"root", `permit(principal, action in Action::"files", resource in Path::"/");`, script.List, "/", ""},
		{"below root", `permit(principal, action in Action::"files", resource in Path::"/");`, script.List, "/x/y", ""},
		{"only root itself", `permit(principal, action in Action::"files", resource == Path::"/");`, script.List, "/x", "no policy of bob permits it"},
		{"forbid wins over the rest", all + secret, script.Read, "/a/secret/key", "policy no of bob forbids it"},
		{"and only there", all + secret, script.Read, "/a/secrets", ""},
		{"hierarchy in a condition", `permit(principal, action in Action::"files", resource) when { resource in [Path::"/x", Path::"/a"] };`, script.Read, "/a/b/c", ""},
		{"hierarchy in a condition, beside", `permit(principal, action in Action::"files", resource) when { resource in [Path::"/x", Path::"/a"] };`, script.Read, "/ab", "no policy of bob permits it"},
		{"hierarchy of literals", `permit(principal, action in Action::"files", resource) when { Path::"/a/b" in Path::"/a" };`, script.Read, "/z", ""},
		{"hierarchy of literals, the wrong way", `permit(principal, action in Action::"files", resource) when { Path::"/a" in Path::"/a/b" };`, script.Read, "/a/b/c", "no policy of bob permits it"},
		{"with the type", `permit(principal, action, resource is Path in Path::"/a");`, script.Read, "/a/b", ""},
		{"the module is known", `permit(principal, action in Action::"files", resource) when { context.module.name == "guestbook" };`, script.Read, "/a", ""},
		{"a forbid that fails denies", all + `@id("f") forbid(principal, action == Action::"read", resource) when { context.params + 9223372036854775807 > 0 };`,
			script.Read, "/a", "policy f of bob could not be evaluated, and may forbid it"},
		{"one elsewhere does not", all + `@id("f") forbid(principal, action == Action::"read", resource in Path::"/b") when { context.params + 9223372036854775807 > 0 };`,
			script.Read, "/a", ""},
		{"lent is of the caller's context only", `permit(principal, action, resource) when { context.lent };`, script.Read, "/a", "no policy of bob permits it"},

		{"dots", all, script.Read, "/a/../b", `has "..", "." or a slash too many in it`},
		{"dots at the end", all, script.Read, "/a/..", `has "..", "." or a slash too many in it`},
		{"a dot", all, script.Read, "/a/./b", `has "..", "." or a slash too many in it`},
		{"a trailing slash", all, script.Read, "/a/", `has "..", "." or a slash too many in it`},
		{"two slashes", all, script.Read, "//a", `has "..", "." or a slash too many in it`},
		{"relative", all, script.Read, "a", "not an absolute path"},
		{"empty", all, script.Read, "", "not an absolute path"},
		{"NUL", all, script.Read, "/a\x00/b", "has a NUL in it"},
		{"too long", all, script.Read, "/" + strings.Repeat("x", script.MaxPath), "longer than 4096 bytes"},
		{"too deep", all, script.Read, strings.Repeat("/x", 257), "more than 256 directories deep"},
		{"as deep as may be", all, script.Read, strings.Repeat("/x", 256), ""},
		{"not UTF-8, as Linux allows", all, script.Read, "/\xff", ""},
		{"not UTF-8, elsewhere", read, script.Read, "/\xff", "no policy of bob permits it"},
		{"no such action", all, "submit", "/a", "there is no such action on files, records or modules"},
		{"the group is no action", all, "files", "/a", "there is no such action on files, records or modules"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := parse(t, tt.policy).Grants(from(alice))
			for range 2 { // decided, then remembered
				err := g.Allow(tt.action, tt.path)
				if tt.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					continue
				}
				var denied *DeniedError
				if !errors.As(err, &denied) || !strings.HasSuffix(err.Error(), ": "+tt.want) {
					t.Fatalf("%v, want %s", err, tt.want)
				}
				if denied.Action != tt.action || denied.Path != tt.path || len(err.Error()) > 500 {
					t.Errorf("%#v", denied)
				}
			}
		})
	}
}

func TestLend(t *testing.T) {
	lend := func(gs ...script.Grant) *script.Script { return &script.Script{Lent: gs} }
	shared := lend(script.Grant{Action: script.Read, Path: "/shared"}, script.Grant{Action: script.List, Path: "/shared"})
	// Alice sent a script to bob; these are her policies.
	tests := []struct {
		name, policy string
		sent         *script.Script
		action       script.Action
		path         string
		want         string
	}{
		{"the starter lets scripts read what was lent", Starter, shared, script.Read, "/shared/x", ""},
		{"and list it", Starter, shared, script.List, "/shared", ""},
		{"but nothing else", Starter, shared, script.Read, "/sharedx", "the script does not lend it"},
		{"of no other action", Starter, lend(script.Grant{Action: script.Write, Path: "/shared"}), script.Write, "/shared/x", "no policy of alice permits it"},
		{"nothing when nothing was lent", Starter, lend(), script.Read, "/", "the script does not lend it"},
		{"all when all was lent", Starter, lend(script.Grant{Action: script.Read, Path: "/"}), script.Read, "/x", ""},
		{"lending is not enough", "//", shared, script.Read, "/shared/x", "no policy of alice permits it"},
		{"nor is a policy", `permit(principal, action, resource);`, lend(), script.Read, "/shared/x", "the script does not lend it"},
		{"a forbid takes it back", Starter + `@id("keys") forbid(principal, action, resource in Path::"/shared/keys");`, shared, script.Read, "/shared/keys/k", "policy keys of alice forbids it"},
		{"to whom matters", `@id("bob") permit(principal == Peer::"bob", action, resource) when { context.lent };`, shared, script.Read, "/shared/x", ""},
		{"it is not the caller who asks", `permit(principal == Peer::"alice", action, resource);`, shared, script.Read, "/shared/x", "no policy of alice permits it"},
		{"a policy may do without it", `permit(principal, action, resource) unless { context.lent };`, shared, script.Read, "/shared/x", "no policy of alice permits it"},
		{"dots in the grant lend nothing", Starter, lend(script.Grant{Action: script.Read, Path: "/shared/.."}), script.Read, "/x", "the script does not lend it"},
		{"an empty grant lends nothing", Starter, lend(script.Grant{Action: script.Read}), script.Read, "/x", "the script does not lend it"},
		{"dots in the path", Starter, shared, script.Read, "/shared/../x", `has "..", "." or a slash too many in it`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := parse(t, tt.policy).Lend(tt.sent, peer.Parties{Caller: alice, Target: bob}, guestbook, noon)
			err := g.Allow(tt.action, tt.path)
			if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), "in the context of alice: "+tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// The target's policies about lending must not open the target's own files.
func TestLentIsFalseAtHome(t *testing.T) {
	r := from(alice)
	if err := parse(t, Starter).Grants(r).Allow(script.Read, "/x"); err == nil {
		t.Error("the starter lets a caller read the target's files")
	}
}

// A script chooses the paths, and may choose many.
func TestGrantsRememberBoundedly(t *testing.T) {
	g := parse(t, `permit(principal, action in Action::"files", resource) when { resource in Path::"/a" };`).Grants(from(alice))
	for i := range 2 * maxAnswers {
		path := fmt.Sprintf("/%d%s", i, strings.Repeat("/x", 30))
		if err := g.Allow(script.Read, path); err == nil {
			t.Fatal("allowed")
		}
		if len(g.answers) > maxAnswers || len(g.question.evaluation().entities.paths) > maxPaths {
			t.Fatalf("%d answers, %d paths", len(g.answers), len(g.question.evaluation().entities.paths))
		}
	}
}

func TestGrantsFromManyGoroutines(t *testing.T) {
	g := parse(t, `permit(principal, action == Action::"read", resource in Path::"/a");`).Grants(from(alice))
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for i := range 300 {
				path := fmt.Sprintf("/%c/%d", 'a'+(n+i)%2, i)
				if err := g.Allow(script.Read, path); (err == nil) != strings.HasPrefix(path, "/a/") {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
	all.Wait()
}

// A hint that one caller adds must not be another's.
func TestDenialsAreNotShared(t *testing.T) {
	g := parse(t, "//").Grants(from(alice))
	var first, second *DeniedError
	errors.As(g.Allow(script.Read, "/x"), &first)
	first.Hint = "do this"
	errors.As(g.Allow(script.Read, "/x"), &second)
	if second.Hint != "" {
		t.Error("the hint is in the second denial")
	}
}

// Policies are sliced before Cedar sees them; slicing must not change a single
// decision, permitting or not. Compared with Cedar over all policies and plain
// entities, on random ones.
func TestSlicingDecidesAsCedarDoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	paths := []string{"/", "/a", "/ab", "/a/b", "/a/b/c", "/b", "/a/c"}
	path := func() string { return fmt.Sprintf("Path::%q", pick(paths...)) }
	who := func() string {
		return pick(`Peer::"alice"`, `Peer::"mallory"`, `Circle::"friends"`, `Circle::"family"`)
	}
	peerOnly := func() string { return pick(`Peer::"alice"`, `Peer::"mallory"`) }
	act := func() string {
		return pick(`Action::"read"`, `Action::"write"`, `Action::"files"`, `Action::"submit"`)
	}
	generate := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "@id(\"%d\") %s (%s, %s, %s) %s;\n", i, pick("permit", "permit", "forbid"),
				pick("principal", "principal is Peer", "principal == "+peerOnly(), "principal in "+who(), "principal is Peer in "+who()),
				pick("action", `action in Action::"files"`, `action == Action::"read"`, "action in ["+act()+","+act()+"]", `action == Action::"submit"`),
				pick("resource", "resource is Path", "resource == "+path(), "resource in "+path(), "resource is Path in "+path(), `resource == Context::"bob"`),
				pick("", "", "when { resource in "+path()+" }", `when { principal in Circle::"friends" }`, `unless { context.lent }`,
					"when { context.params + 9223372036854775807 > 0 }", `when { action == Action::"read" }`, `when { context.entry == "sign" }`))
		}
		return b.String()
	}
	callers := []peer.Peer{alice, mallory, {ID: mallory.ID, Circles: []string{"family", "friends"}}}

	permitted, denied, failed := 0, 0, 0
	for range 800 {
		text := generate(1 + rng.IntN(5))
		set, err := Parse([]File{{"x.cedar", filled(text)}})
		if err != nil {
			continue // a scope that can never apply
		}
		full := cedar.NewPolicySet()
		for _, r := range set.rules {
			full.Add(cedar.PolicyID(r.id), r.policy)
		}
		for _, caller := range callers {
			r := from(caller)
			entities := cedar.EntityMap{}
			for _, p := range []peer.Peer{caller, bob} {
				entities[peerUID(p.ID)] = peerEntity(p)
			}
			for uid, e := range known().actions {
				entities[uid] = e
			}
			for _, p := range paths {
				e := types.Entity{UID: pathUID(p)}
				if p != "/" {
					up := p[:max(1, strings.LastIndexByte(p, '/'))]
					e.Parents = types.NewEntityUIDSet(pathUID(up))
				}
				entities[e.UID] = e
			}
			entities[contextUID(bob.ID)] = types.Entity{UID: contextUID(bob.ID),
				Attributes: types.NewRecord(types.RecordMap{"owner": peerUID(bob.ID)})}

			compare := func(action script.Action, resource types.EntityUID, got Verdict) {
				decision, diagnostic := cedar.Authorize(full, entities, cedar.Request{
					Principal: peerUID(caller.ID), Action: actionUID(action), Resource: resource, Context: r.context(false)})
				want := decision == cedar.Allow && len(diagnostic.Errors) == 0
				if got.Permitted != want || len(got.Failed) != len(diagnostic.Errors) {
					t.Fatalf("%s %s by %s: %v, Cedar says %v %v\n%s", action, resource, caller.ID, got, decision, diagnostic, text)
				}
				switch {
				case want:
					permitted++
				case len(got.Failed) > 0:
					failed++
				default:
					denied++
				}
			}
			compare(submit, contextUID(bob.ID), set.Submit(r))
			q := set.question(r)
			for _, action := range []script.Action{script.Read, script.Write} {
				for _, p := range paths {
					compare(action, pathUID(p), q.ask(action, pathUID(p)))
				}
			}
		}
	}
	if permitted < 1000 || denied < 1000 || failed < 1000 {
		t.Errorf("%d permitted, %d denied, %d failed: the comparison says little", permitted, denied, failed)
	}
	t.Logf("%d permitted, %d denied, %d failed", permitted, denied, failed)
}
