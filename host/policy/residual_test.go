package policy

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/circles-host/circles/host/budget"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// cases is how many random questions TestResidualAgrees asks; RESIDUAL_CASES sets
// another number.
func cases(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("RESIDUAL_CASES"))
	if os.Getenv("RESIDUAL_CASES") != "" && err != nil {
		t.Fatal(err)
	}
	if n > 0 {
		return n
	}
	return 5000
}

// What is reduced, remembered and looked up by path must say what Cedar says of
// all policies: the same decision, for the same reasons, with the same failures.
func TestResidualAgrees(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var permitted, refused, failed, certain, byOthers int
	for asked := 0; asked < cases(t); {
		var text strings.Builder
		for range 1 + r.IntN(8) {
			text.WriteString(randomPolicy(r))
		}
		s, err := Parse([]File{{"x.cedar", filled(text.String())}})
		if err != nil {
			continue // it does not type check
		}
		for range 3 {
			request := randomRequest(r)
			lent := r.IntN(6) == 0
			principal := request.Parties.Caller
			if lent {
				principal = request.Parties.Target
			}
			q := s.asked(request, principal, lent)
			grants := s.Grants(request)
			for range 6 {
				action, resource := randomAccess(r, request)
				want := authorized(s, request, principal, lent, action, resource)
				asked++
				if got := q.ask(action, resource); !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d: %s of %v by %v (lent: %t), context %v:\ngot  %+v\nwant %+v\n%s",
						seed, action, resource, principal, lent, request.context(lent), got, want, text.String())
				}
				if surely := q.permits(action, resource); surely && !want.Permitted {
					t.Fatalf("seed %d: %s of %v is surely permitted, and %+v\n%s", seed, action, resource, want, text.String())
				} else if surely {
					certain++
				}
				granted := want.Permitted && !delegationRefuses(s, request, action, resource)
				if want.Permitted && !granted && !lent {
					byOthers++
				}
				if resource.Type == typeContext && action == submit && !lent {
					if got := s.Submit(request); got.Permitted != granted {
						t.Fatalf("seed %d: %+v, by way of %v: %t\n%s", seed, got, request.Parties.Via, granted, text.String())
					}
				}
				if isGiven(action) && !lent {
					if err := grants.May(action); (err == nil) != granted {
						t.Fatalf("seed %d: %s: %v, and %+v\n%s", seed, action, err, want, text.String())
					}
				}
				if resource.Type != typeContext && !lent {
					if err := grants.Allow(action, string(resource.ID)); (err == nil) != granted {
						t.Fatalf("seed %d: %s of %v: %v, and %+v\n%s", seed, action, resource, err, want, text.String())
					}
				}
				switch {
				case want.Permitted:
					permitted++
				case len(want.Failed) > 0:
					failed++
				default:
					refused++
				}
			}
		}
	}
	if least := cases(t) / 100; permitted < least || refused < least || failed < least || certain < least || byOthers < least/4 {
		t.Errorf("%d were permitted, %d of them for certain, %d not on another's behalf, %d refused, %d failed: that tries too little", permitted, certain, byOthers, refused, failed)
	}
}

// authorized asks Cedar about every policy there is.
func authorized(s *Set, r Request, principal peer.Peer, lent bool, action script.Action, resource types.EntityUID) Verdict {
	entities := entityStore{target: r.Parties.Target.ID, paths: map[types.String]types.Entity{}}
	for _, p := range r.Parties.Via {
		entities.via = append(entities.via, peerEntity(p))
	}
	entities.args, _ = r.args()
	entities.peers = [...]types.Entity{peerEntity(principal), peerEntity(r.Parties.Caller), peerEntity(r.Parties.Target)}
	all := candidates(s.rules)
	if isGiven(action) {
		all = append(slices.Clone(all), giving())
	}
	decision, diagnostic := cedar.Authorize(all, &entities, types.Request{
		Principal: peerUID(principal.ID), Action: actionUID(action), Resource: resource, Context: r.context(lent),
	})
	return s.explain(verdictOf(decision, diagnostic))
}

// delegationRefuses reports whether a link of the request's chain does not allow an
// access, or a policy forbids it to one whom the chain came by, or may.
func delegationRefuses(s *Set, r Request, action script.Action, resource types.EntityUID) bool {
	for i, l := range r.Chain {
		if action != submit && !isGiven(action) && !slices.ContainsFunc(l.Allows, func(g script.Grant) bool { return g.Covers(action, string(resource.ID)) }) {
			return true
		}
		v := authorized(s, r, r.Parties.Via[i], false, action, resource)
		if len(v.Failed) > 0 || !v.Permitted && len(v.Policies) > 0 {
			return true
		}
	}
	return false
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func randomPolicy(r *rand.Rand) string {
	principal := pick(r, "principal", "principal", `principal == Peer::"alice"`, `principal == Peer::"mallory"`,
		`principal in Circle::"friends"`, `principal is Peer in Circle::"family"`, "principal is Peer", `principal == Peer::"bob"`)
	action := pick(r, "action", `action == Action::"submit"`, `action in Action::"files"`, `action == Action::"read"`,
		`action in [Action::"read", Action::"write"]`, `action in Action::"host"`, `action in [Action::"clock", Action::"submit"]`,
		`action in [Action::"submit", Action::"files"]`,
		`action in Action::"records"`, `action in [Action::"get", Action::"query"]`)
	resource := pick(r, "resource", "resource", `resource in Path::"/a"`, `resource in Path::"/"`, `resource == Path::"/a/b"`,
		"resource is Path", `resource is Path in Path::"/a/b"`, `resource == Context::"bob"`, "resource is Context")
	if r.IntN(4) == 0 {
		resource = pick(r, `resource in Collection::"c"`, `resource == Collection::"c"`, `resource == Record::"c/a"`, `resource in Record::"c/a/b"`,
			"resource is Record", "resource is Collection", `resource is Record in Collection::"c"`)
	}
	if strings.Contains(resource, "Path") && strings.Contains(action, "submit") {
		action = `action in Action::"files"`
	} else if strings.Contains(resource, "Context") {
		action = pick(r, `action == Action::"submit"`, `action in Action::"host"`, `action == Action::"clock"`)
	} else if strings.Contains(resource, "Collection") || strings.Contains(resource, "Record") {
		action = pick(r, `action in Action::"records"`, `action in [Action::"get", Action::"query"]`, `action == Action::"get"`)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s(%s, %s, %s)", pick(r, "permit", "permit", "forbid"), principal, action, resource)
	for range pick(r, 0, 0, 1, 1, 2) {
		fmt.Fprintf(&b, " %s { %s }", pick(r, "when", "when", "unless"), randomCondition(r, 3))
	}
	b.WriteString(";\n")
	return b.String()
}

func randomCondition(r *rand.Rand, depth int) string {
	if depth > 0 && r.IntN(2) == 0 {
		c := func() string { return randomCondition(r, depth-1) }
		return pick(r,
			func() string { return "(" + c() + " && " + c() + ")" },
			func() string { return "(" + c() + " || " + c() + ")" },
			func() string { return "!(" + c() + ")" },
			func() string { return "(if " + c() + " then " + c() + " else " + c() + ")" },
		)()
	}
	return pick(r,
		"true", "false", "context.lent", `context.module.name == "guestbook"`, `context.module.name like "g*"`,
		`context.module.found`, `context.module.size < 500`, `context.module.imports.contains("env")`, `context.module.layer == "carried"`, `context.module.language like "Go *"`, `context.module.publisher == "did:key:z6Mk"`, `context.module.publisher != ""`,
		`context.transport == "http"`,
		`(context.args.numbers.hasTag("guests") && context.args.numbers.getTag("guests") < 10)`, `context.args.strings.hasTag("day")`,
		`(context.args.booleans.hasTag("vip") && context.args.booleans.getTag("vip"))`,
		`(context.args.numbers.hasTag("guests") && context.args.numbers.getTag("guests") * 9223372036854775807 > 0)`,
		`context.entry == "sign"`, `["sign", "read"].contains(context.entry)`,
		`context.params < 5`, `context.params * 9223372036854775807 > 0`, `context.module.size * 9223372036854775807 > 0`,
		`context.now < datetime("2026-06-02")`, `context.used.hour.scripts < 2`, `context.used.minute.fuel * 9223372036854775807 >= 0`,
		`context.module.size + 9223372036854775807 > 0`, `context.params + 9223372036854775807 > 0`, `context.used.day.bytes - 9223372036854775807 < context.params - 9223372036854775807`,
		`context.used == {minute: {scripts: 0, fuel: 0, bytes: 0}, hour: {scripts: 0, fuel: 0, bytes: 0}, day: {scripts: 0, fuel: 0, bytes: 0}}`,
		`resource in Path::"/a"`, `resource == Path::"/a/b/c"`, `resource in [Path::"/x", Path::"/a"]`,
		`principal in Circle::"friends"`, `principal has name`, `(principal has name && principal.name like "ali*")`,
		`principal == Peer::"bob"`, `(resource is Context && principal == resource.owner)`,
		`action == Action::"read"`, `action in Action::"files"`, `principal == resource`,
		`context has delegation`, `(context has delegation && context.delegation.links * 9223372036854775807 > 0)`,
		`(context has delegation && context.delegation.signer in Circle::"friends")`,
		`(context has delegation && context.delegation.links > 1)`, `!(context has delegation && context.delegation.signer == Peer::"mallory")`,
		`resource in Collection::"c"`, `resource == Record::"c/a"`, `(resource is Record && resource.key like "a*")`,
	)
}

func randomRequest(r *rand.Rand) Request {
	request := from(pick(r, alice, bob, mallory, peer.Peer{ID: id(4), Circles: []string{"family", "friends"}}))
	request.Code = pick(r, guestbook, guestbook, Code{}, Code{Digest: guestbook.Digest},
		Code{Found: true, Layer: "carried", Digest: script.Digest{2}, Size: 5, Imports: []string{"env"}, Language: pick(r, "", "Go go1.26"), Publisher: pick(r, peer.ID(""), "did:key:z6Mk", "did:key:z6Mj")},
		Code{Found: true, Name: "grep", Layer: "host", Digest: script.Digest{3}, Size: 4})
	request.Entry = pick(r, "", "sign", "read")
	request.Transport = pick(r, "", "http", "local")
	request.Params = pick(r, 0, 1, 100)
	if r.IntN(2) == 0 {
		request.Code.Types = map[string]map[string]string{"sign": {"guests": "number", "vip": "boolean"}, "run": {"day": "string"}}
		request.Args = []byte(map[string]string{"sign": pick(r, `{"guests":5,"vip":true}`, `{"guests":50,"vip":false}`), "": `{"day":"x"}`}[request.Entry])
	}
	request.Used = pick(r, budget.Used{}, budget.Used{Hour: budget.Amount{Scripts: 1}}, budget.Used{Minute: budget.Amount{Fuel: 7}, Hour: budget.Amount{Scripts: 5}})
	request.Now = noon.Add(time.Duration(r.IntN(3)) * 24 * time.Hour)
	for range max(0, r.IntN(6)-3) {
		to := pick(r, mallory, alice, peer.Peer{ID: id(6), Circles: []string{"family"}})
		link := envelope.Link{ID: script.Digest{byte(1 + r.IntN(3))}, Delegation: script.Delegation{To: to.ID}}
		for _, a := range []script.Action{script.Read, script.List, script.Write, script.Remove} {
			link.Allows = append(link.Allows, script.Grant{Action: a, Path: pick(r, "/", "/", "/a", "/x")})
		}
		for _, a := range []script.Action{script.Get, script.Put, script.Query} {
			link.Allows = append(link.Allows, script.Grant{Action: a, Path: pick(r, "c", "c", "d")})
		}
		request.Parties.Via, request.Chain = append(request.Parties.Via, to), append(request.Chain, link)
	}
	return request
}

func randomAccess(r *rand.Rand, request Request) (script.Action, types.EntityUID) {
	if r.IntN(4) == 0 {
		return pick(r, submit, submit, Clock, Random, Log), contextUID(request.Parties.Target.ID)
	}
	switch r.IntN(6) {
	case 0:
		return script.Query, resourceUID(script.Query, pick(r, "c", "d", "c-a"))
	case 1:
		action := pick(r, script.Get, script.Put, script.Delete)
		return action, resourceUID(action, pick(r, "c", "c/a", "c/a/b", "c/ab", "d/a", "c-a/a", "a/c", "c/\u00e9"))
	}
	return pick(r, script.Read, script.List, script.Write, script.Remove),
		pathUID(pick(r, "/", "/a", "/a/b", "/a/b/c", "/ab", "/x/y", "/a/"+strings.Repeat("d/", r.IntN(5))+"e"))
}

// One caller's questions are remembered; a flood of different ones must not grow
// the host.
func TestResidualsAreBounded(t *testing.T) {
	var text strings.Builder
	for i := range 500 {
		fmt.Fprintf(&text, "permit(principal, action, resource in Path::\"/p%d\");\n", i)
	}
	s := parse(t, strings.ReplaceAll(text.String(), "action,", `action in Action::"files",`))
	for i := range 2000 {
		r := from(alice)
		r.Entry = strconv.Itoa(i)
		if err := s.Grants(r).Allow(script.Read, "/p7/x"); err != nil {
			t.Fatal(err)
		}
		if s.reduced.size > maxRemembered {
			t.Fatalf("%d policies are remembered", s.reduced.size)
		}
	}
	if n := len(s.reduced.by); n == 0 || n > maxRemembered/500 {
		t.Errorf("%d residuals are remembered", n)
	}
}

// Anybody may send a module that says much of itself, and another each time: what
// is remembered of each is small, and none is taken for another.
func TestResidualsOfHugeRequestsAreSmall(t *testing.T) {
	s := parse(t, `permit(principal, action, resource) when { context.module.imports.contains("m7") };`)
	r := from(mallory)
	r.Code = Code{Found: true, Layer: "carried", Size: 1 << 20, Language: strings.Repeat("x", 64)}
	for i := range 1000 {
		r.Code.Imports = append(r.Code.Imports, fmt.Sprintf("%d%s", i, strings.Repeat("i", 1000)))
	}
	for i := range 20 {
		r.Code.Imports[999] = fmt.Sprintf("m%d", i)
		if got := s.Submit(r).Permitted; got != (i == 7) {
			t.Errorf("with m%d it is permitted: %t", i, got)
		}
	}
	if len(s.reduced.by) != 20 {
		t.Errorf("%d are remembered", len(s.reduced.by))
	}
	for key := range s.reduced.by {
		if len(key.seen) > maxSeen {
			t.Errorf("a key of %d bytes is remembered", len(key.seen))
		}
	}
}

// What is remembered of one must not be taken for another.
func TestResidualsAreKeptApart(t *testing.T) {
	s := parse(t, `permit(principal, action, resource) when { context.module.name == "guestbook" && principal has name && principal.name like "ali*" && context.module.language == "" && context.module.publisher == "" };`)
	changes := map[string]func(*Request){
		"the caller":       func(r *Request) { r.Parties.Caller = mallory },
		"the petname":      func(r *Request) { r.Parties.Caller.Name = "eve" },
		"the module":       func(r *Request) { r.Code.Name = "calendar" },
		"the language":     func(r *Request) { r.Code.Language = "Rust" },
		"the publisher":    func(r *Request) { r.Code.Publisher = id(9) },
		"nothing is found": func(r *Request) { r.Code = Code{} },
	}
	for name, change := range changes {
		r := from(alice)
		if !s.Submit(r).Permitted {
			t.Fatal("refused")
		}
		if change(&r); s.Submit(r).Permitted {
			t.Errorf("permitted although %s is another", name)
		}
	}
	c := parse(t, `permit(principal in Circle::"friends", action, resource);`)
	if r := from(alice); !c.Submit(r).Permitted {
		t.Fatal("refused")
	} else if r.Parties.Caller.Circles = nil; c.Submit(r).Permitted {
		t.Error("permitted although she is in no circle any more")
	}
	now := parse(t, `permit(principal, action, resource) when { context.now < datetime("2026-06-02") && context.params < 20 };`)
	late, large := from(alice), from(alice)
	late.Now, large.Params = noon.Add(48*time.Hour), 100
	if !now.Submit(from(alice)).Permitted || now.Submit(late).Permitted || now.Submit(large).Permitted {
		t.Error("the time or the size of the params was remembered")
	}
	used := parse(t, `permit(principal, action, resource) when { context.used.day.bytes < 5 };`)
	much := from(alice)
	much.Used.Day.Bytes = 5
	if !used.Submit(from(alice)).Permitted || used.Submit(much).Permitted {
		t.Error("what was used was remembered")
	}
}

// The order of a peer's circles is nothing that a policy can see, or a caller's
// slice that may be sorted in place.
func TestResidualLeavesCirclesAlone(t *testing.T) {
	circles := []string{"z", "a"}
	r := from(peer.Peer{ID: id(5), Circles: circles})
	parse(t, `permit(principal, action, resource);`).Submit(r)
	if !slices.Equal(circles, []string{"z", "a"}) {
		t.Errorf("circles became %v", circles)
	}
}
