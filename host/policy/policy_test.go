package policy

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// The people of these tests: bob owns the policies, alice is his friend, mallory
// is nobody he knows.
var (
	alice   = peer.Peer{ID: id(1), Name: "alice", Circles: []string{"friends"}}
	bob     = peer.Peer{ID: id(2), Name: "bob"}
	mallory = peer.Peer{ID: id(3)}

	guestbook = Code{Found: true, Name: "guestbook", Layer: "peer", Digest: script.Digest{1}, Size: 1000, Imports: []string{"wasi_snapshot_preview1"}}
	noon      = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
)

func id(seed byte) peer.ID {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return peer.IDOf(key.Public().(ed25519.PublicKey))
}

// from is alice's, or somebody else's, request to run the guestbook at bob's.
func from(caller peer.Peer) Request {
	return Request{Parties: peer.Parties{Caller: caller, Target: bob}, Code: guestbook, Entry: "sign", Params: 10, Now: noon}
}

// filled replaces the names of people in a policy by their ids.
var filled = strings.NewReplacer(`"alice"`, `"`+string(id(1))+`"`, `"bob"`, `"`+string(id(2))+`"`, `"mallory"`, `"`+string(id(3))+`"`).Replace

func parse(t testing.TB, texts ...string) *Set {
	t.Helper()
	var fs []File
	for i, text := range texts {
		fs = append(fs, File{fmt.Sprintf("%c.cedar", 'a'+i), filled(text)})
	}
	s, err := Parse(fs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSubmit(t *testing.T) {
	carried := Code{Found: true, Layer: "carried", Digest: script.Digest{2}, Size: 5, Imports: []string{"env"}}
	change := func(f func(*Request)) Request { r := from(alice); f(&r); return r }

	tests := []struct {
		name    string
		policy  string
		request Request
		want    string // of the verdict
	}{
		{"nothing permits by default", `// nothing`, from(alice), "no policy permits it"},
		{"the starter permits nobody", Starter, from(alice), "no policy permits it"},
		{"a permit", `@id("p") permit(principal, action == Action::"submit", resource);`, from(mallory), "policy p permits it"},
		{"an id by position", `permit(principal, action == Action::"read", resource); permit(principal, action, resource);`, from(alice), "policy a.cedar#2 permits it"},
		{"forbid wins", `@id("p") permit(principal, action, resource); @id("f") forbid(principal == Peer::"alice", action, resource);`, from(alice), "policy f forbids it"},
		{"forbid of somebody else", `@id("p") permit(principal, action, resource); @id("f") forbid(principal == Peer::"mallory", action, resource);`, from(alice), "policy p permits it"},
		{"every forbid is named", `@id("f2") forbid(principal, action, resource); @id("f1") forbid(principal, action, resource);`, from(alice), "policies f1 and f2 forbid it"},
		{"a permit of another action", `permit(principal, action in Action::"files", resource);`, from(alice), "no policy permits it"},

		// Cedar itself says allow to these.
		{"a forbid that fails refuses", `@id("p") permit(principal, action, resource);
			@id("f") forbid(principal, action, resource) when { context.params + 9223372036854775807 > 0 };`, from(alice), "policy f could not be evaluated, and may forbid it"},
		{"so does a permit that fails", `@id("p") permit(principal, action, resource);
			@id("q") permit(principal, action, resource) when { context.params * 9223372036854775807 > 0 };`, from(alice), "policy q could not be evaluated, and may forbid it"},
		{"a forbid beside one that fails is named", `@id("f") forbid(principal, action, resource);
			@id("q") permit(principal, action, resource) when { context.params * 9223372036854775807 > 0 };`, from(alice), "policy f forbids it"},
		{"a policy that fails for others does not", `@id("p") permit(principal, action, resource);
			@id("f") forbid(principal == Peer::"mallory", action, resource) when { context.params + 9223372036854775807 > 0 };`, from(alice), "policy p permits it"},

		{"by id", `@id("p") permit(principal == Peer::"alice", action, resource);`, from(alice), "policy p permits it"},
		{"another's id", `@id("p") permit(principal == Peer::"alice", action, resource);`, from(mallory), "no policy permits it"},
		{"by circle", `@id("p") permit(principal in Circle::"friends", action, resource);`, from(alice), "policy p permits it"},
		{"by circle, with the type", `@id("p") permit(principal is Peer in Circle::"friends", action, resource);`, from(alice), "policy p permits it"},
		{"not in the circle", `@id("p") permit(principal in Circle::"friends", action, resource);`, from(mallory), "no policy permits it"},
		{"another circle", `@id("p") permit(principal in Circle::"family", action, resource);`, from(alice), "no policy permits it"},
		{"circle in a condition", `@id("p") permit(principal, action, resource) when { principal in Circle::"friends" };`, from(alice), "policy p permits it"},
		{"circle in a condition, of a stranger", `@id("p") permit(principal, action, resource) when { principal in Circle::"friends" };`, from(mallory), "no policy permits it"},
		{"forbid by circle", `permit(principal, action, resource); @id("f") forbid(principal in Circle::"friends", action, resource);`, from(alice), "policy f forbids it"},
		{"by petname", `@id("p") permit(principal, action, resource) when { principal has name && principal.name like "ali*" };`, from(alice), "policy p permits it"},
		{"a stranger has no petname", `@id("p") permit(principal, action, resource) when { principal has name };`, from(mallory), "no policy permits it"},

		{"module by name", `@id("p") permit(principal, action, resource) when { context.module.name == "guestbook" };`, from(alice), "policy p permits it"},
		{"another module", `permit(principal, action, resource) when { context.module.name == "calendar" };`, from(alice), "no policy permits it"},
		{"module by digest", `@id("p") permit(principal, action, resource) when { context.module.digest == "sha256:01` + strings.Repeat("00", 31) + `" };`, from(alice), "policy p permits it"},
		{"by the digest that the script names, elsewhere", `@id("p") permit(principal, action, resource) when { context.module.digest like "sha256:01*" };`,
			change(func(r *Request) { r.Code = Code{Digest: guestbook.Digest} }), "policy p permits it"},
		{"another digest", `permit(principal, action, resource) when { context.module.digest == "sha256:02` + strings.Repeat("00", 31) + `" };`, from(alice), "no policy permits it"},
		{"module by layer", `@id("p") permit(principal, action, resource) when { context.module.layer == "peer" };`, from(alice), "policy p permits it"},
		{"no carried code", `permit(principal, action, resource); @id("f") forbid(principal, action, resource) when { context.module.layer == "carried" };`,
			change(func(r *Request) { r.Code = carried }), "policy f forbids it"},
		{"carried code has no name", `permit(principal, action, resource) when { context.module.name == "guestbook" };`,
			change(func(r *Request) { r.Code = carried }), "no policy permits it"},
		{"by size", `@id("p") permit(principal, action, resource) when { context.module.size <= 1000 };`, from(alice), "policy p permits it"},
		{"by imports", `@id("p") permit(principal, action, resource) when { ["wasi_snapshot_preview1", "circles:host/log"].containsAll(context.module.imports) };`, from(alice), "policy p permits it"},
		{"too many imports", `permit(principal, action, resource) when { ["wasi_snapshot_preview1"].containsAll(context.module.imports) };`,
			change(func(r *Request) { r.Code = carried }), "no policy permits it"},
		{"a module that is not there", `@id("p") permit(principal, action, resource) when { !context.module.found && context.module.digest == "" && context.module.imports.isEmpty() };`,
			change(func(r *Request) { r.Code = Code{} }), "policy p permits it"},
		{"by entry", `@id("p") permit(principal, action, resource) when { ["sign", "read"].contains(context.entry) };`, from(alice), "policy p permits it"},
		{"by size of params", `permit(principal, action, resource) when { context.params < 10 };`, from(alice), "no policy permits it"},
		{"by time", `@id("p") permit(principal, action, resource) when { context.now < datetime("2026-06-02") };`, from(alice), "policy p permits it"},
		{"too late", `permit(principal, action, resource) when { context.now < datetime("2026-06-01") };`, from(alice), "no policy permits it"},
		{"by context", `@id("p") permit(principal, action, resource == Context::"bob");`, from(alice), "policy p permits it"},
		{"another context", `@id("p") permit(principal, action, resource == Context::"alice");`, from(alice), "no policy permits it"},
		{"the owner", `@id("p") permit(principal, action == Action::"submit", resource) when { principal == resource.owner };`, from(bob), "policy p permits it"},
		{"not the owner", `@id("p") permit(principal, action == Action::"submit", resource) when { principal == resource.owner };`, from(alice), "no policy permits it"},
		{"submitting is not lending", `permit(principal, action, resource) when { context.lent };`, from(alice), "no policy permits it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := parse(t, tt.policy).Submit(tt.request)
			if v.String() != tt.want {
				t.Errorf("%s, want %s", v, tt.want)
			}
			if strings.HasPrefix(tt.want, "policy ") && (len(v.Policies) != 1 || v.Policies[0] != strings.Fields(tt.want)[1]) {
				t.Errorf("decided by %v", v.Policies)
			}
			if v.Permitted != (strings.HasSuffix(tt.want, "permits it") && !strings.HasPrefix(tt.want, "no ")) {
				t.Errorf("permitted: %v", v.Permitted)
			}
		})
	}
}

func TestNothingIsPermittedWithoutPolicies(t *testing.T) {
	var none *Set
	for name, s := range map[string]*Set{"nil": none, "zero": {}, "broken": Broken(errors.New("x")), "empty": parse(t)} {
		if v := s.Submit(from(alice)); v.Permitted {
			t.Errorf("%s Set: %s", name, v)
		}
		if err := s.Grants(from(alice)).Allow(script.Read, "/"); err == nil {
			t.Errorf("%s Set allows reading", name)
		}
	}
	var nobody *Grants
	for name, g := range map[string]*Grants{"nil": nobody, "zero": {}} {
		var denied *DeniedError
		if err := g.Allow(script.Read, "/"); !errors.As(err, &denied) {
			t.Errorf("%s Grants: %v", name, err)
		}
	}
}

// The caller may be a stranger: a receipt tells the ids of policies, and neither
// their text nor what is wrong with it.
func TestRefusalTellsAStrangerOnlyIDs(t *testing.T) {
	_, problem := Parse([]File{{"secret.cedar", `permit(principal == Peer::"the secret", action, resource);`}})
	if problem == nil {
		t.Fatal("parsed")
	}
	tests := []struct {
		set  *Set
		want string
	}{
		{parse(t, ``+"//"), "z6Mk…" + tail(mallory.ID) + " may not run guestbook:sign in the context of bob: no policy of bob permits it"},
		{parse(t, `@id("no-strangers") forbid(principal, action, resource) when { context.entry == "sign" };`),
			"z6Mk…" + tail(mallory.ID) + " may not run guestbook:sign in the context of bob: policy no-strangers of bob forbids it"},
		{parse(t, `@id("odd") forbid(principal, action, resource) when { context.params + 9223372036854775807 == 5 };`),
			"z6Mk…" + tail(mallory.ID) + " may not run guestbook:sign in the context of bob: policy odd of bob could not be evaluated, and may forbid it"},
		{Broken(problem), "z6Mk…" + tail(mallory.ID) + " may not run guestbook:sign in the context of bob: the policies of bob have a mistake in them, and permit nothing until it is mended"},
	}
	for _, tt := range tests {
		e := &RefusedError{Request: from(mallory), Verdict: tt.set.Submit(from(mallory))}
		if e.Error() != tt.want {
			t.Errorf("%s\nwant %s", e, tt.want)
		}
		e.Hint = "circles-host policy allow …"
		if !strings.HasSuffix(e.Error(), "; to allow it: circles-host policy allow …") {
			t.Error(e)
		}
	}
}

func tail(id peer.ID) string { return string(id[len(id)-8:]) }

// What a module is called must not be learnt from a refusal, nor must its
// absence.
func TestRefusalIsTheSameWithoutTheModule(t *testing.T) {
	r := from(mallory)
	r.Code = Code{}
	e := &RefusedError{Request: r, Verdict: parse(t, "//").Submit(r)}
	if strings.Contains(e.Error(), "guestbook") || !strings.Contains(e.Error(), "no policy of bob permits it") {
		t.Error(e)
	}
}

// Who sends to himself is caller and target, and is asked about as the caller.
func TestSubmitToOneself(t *testing.T) {
	me := peer.Peer{ID: bob.ID, Name: "bob", Circles: []string{"me"}}
	r := from(me)
	if v := parse(t, `@id("p") permit(principal in Circle::"me", action, resource);`).Submit(r); !v.Permitted {
		t.Error(v)
	}
}

// Cedar gives its reasons in the order in which it came to them.
func TestVerdictsAreTheSameEachTime(t *testing.T) {
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, "@id(\"p%02d\") permit(principal in Circle::\"c%d\", action, resource);\n", i, i%3)
	}
	s := parse(t, b.String())
	r := from(peer.Peer{ID: alice.ID, Circles: []string{"c0", "c1", "c2"}})
	for range 20 {
		v := s.Submit(r)
		if len(v.Policies) != 50 || !slices.IsSorted(v.Policies) {
			t.Fatal(v.Policies)
		}
	}
	if got, want := s.Submit(r).String(), "policies p00, p01, p02, p03, p04 and 45 more permit it"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestExplain(t *testing.T) {
	s := parse(t, `@id("run") permit(principal, action == Action::"submit", resource);
		@id("files") permit(principal, action in [Action::"read", Action::"list"], resource in Path::"/guestbook");
		@id("not-this") forbid(principal, action, resource == Path::"/guestbook/secret");`)
	e := s.Explain(from(alice), Need{script.Read, "/guestbook/a"}, Need{script.Write, "/guestbook/a"}, Need{script.Read, "/guestbook/secret"}, Need{script.Read, "x"})
	if e.Submit.String() != "policy run permits it" {
		t.Error(e.Submit)
	}
	var got []string
	for _, n := range e.Needs {
		if n.Denied != nil {
			got = append(got, n.Denied.Error())
			continue
		}
		got = append(got, fmt.Sprint(n.Action, n.Path, n.By))
	}
	want := []string{
		"read/guestbook/a[files]",
		`may not write "/guestbook/a" in the context of bob: no policy of bob permits it`,
		`may not read "/guestbook/secret" in the context of bob: policy not-this of bob forbids it`,
		`may not read "x" in the context of bob: not an absolute path`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
