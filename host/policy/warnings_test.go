package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/script"
)

func TestWarnings(t *testing.T) {
	digest := func(b byte) string { return digestText(script.Digest{b}) }
	here := Here{
		Circles: []string{"friends", "family"},
		Modules: map[string]script.Digest{"guestbook": {1}, "grep": {3}},
		Former:  map[script.Digest]string{{2}: "guestbook", {4}: "sed"},
	}
	who := `principal == Peer::"alice"`
	for _, tt := range []struct {
		name, policy string
		want         string // kind line:column, of each, and a word of the message after "~"
	}{
		{"what is as it should be", `@id("a") permit(principal in Circle::"friends", action == Action::"submit", resource) when { context.module.name == "guestbook" };
			@id("b") permit(principal in Circle::"friends", action in Action::"files", resource in Path::"/g") when { context.module.name == "guestbook" };
			@id("c") forbid(principal, action, resource in Path::"/secret");`, ""},
		{"the starter", Starter, ""},

		{"a condition that is never so", `permit(` + who + `, action, resource) when { false };`, "unreachable 1:1~false is never so"},
		{"always, said by unless", `permit(` + who + `, action, resource) unless { 1 == 1 || context.lent };`, "unreachable 1:1"},
		{"two names", `permit(` + who + `, action, resource) when { context.module.name == "a" && context.module.name == "b" };`, `unreachable 1:1~context.module.name == "b" contradicts`},
		{"two entries, in two conditions", `permit(` + who + `, action, resource) when { context.entry == "a" } unless { context.entry == "a" };`, "unreachable 1:1"},
		{"not one of those", `permit(` + who + `, action, resource) when { ["a", "b"].contains(context.entry) && context.entry == "c" };`, "unreachable 1:1"},
		{"all of those excluded", `permit(` + who + `, action, resource) when { ["a", "b"].contains(context.entry) && context.entry != "a" && !["b"].contains(context.entry) };`, "unreachable 1:1"},
		{"less than nothing", `forbid(principal, action, resource) when { context.params < 0 };`, "unreachable 1:1"},
		{"an empty range", `permit(` + who + `, action, resource) when { context.params > 10 && 10 >= context.params };`, "unreachable 1:1"},
		{"a pattern that it has not", `permit(` + who + `, action, resource) when { context.module.name == "abc" && context.module.name like "b*" };`, "unreachable 1:1"},
		{"another peer", `permit(` + who + `, action, resource) when { principal == Peer::"mallory" };`, "unreachable 1:1"},
		{"another action", `permit(` + who + `, action == Action::"read", resource) when { action == Action::"write" };`, "unreachable 1:1"},
		{"no action", `permit(` + who + `, action in Action::"files", resource) unless { action in [Action::"read", Action::"list"] || action == Action::"write" || action == Action::"remove" };`, "unreachable 1:1"},
		{"another directory", `permit(` + who + `, action == Action::"read", resource in Path::"/a") when { resource in Path::"/ab" };`, "unreachable 1:1"},
		{"outside of itself", `permit(` + who + `, action == Action::"read", resource in Path::"/a/b") unless { resource in Path::"/a" };`, "unreachable 1:1"},
		{"another collection", `permit(` + who + `, action == Action::"get", resource == Record::"c/k") when { resource in Collection::"d" };`, "unreachable 1:1"},
		{"lent before it is accepted", `permit(` + who + `, action == Action::"submit", resource) when { context.lent };`, "unreachable 1:1~lent"},
		{"no such layer", `permit(` + who + `, action, resource) when { context.module.layer == "Host" };`, `unreachable 1:1~no context.module.layer is "Host"`},
		{"no digest", `permit(` + who + `, action, resource) when { context.module.digest == "sha256:ABC" };`, "unreachable 1:1~no context.module.digest"},
		{"carried code with a name", `permit(` + who + `, action, resource) when { context.module.layer == "carried" && context.module.name == "x" };`, "unreachable 1:1~no name"},
		{"what fails before it is false decides", `forbid(principal, action, resource) when { context.params * 2 > 1 && false };`, ""},
		{"what is false before it fails does not", `forbid(principal, action, resource) when { false && context.params * 2 > 1 };`, "unreachable 1:1"},
		{"no end of a range is wrapped", `permit(` + who + `, action, resource) when { context.params > 9223372036854775807 };`, ""},
		{"forbidden as a whole", `@id("f") forbid(principal, action == Action::"read", resource in Path::"/a");
@id("p") permit(` + who + `, action == Action::"read", resource in Path::"/a/b") when { context.entry == "x" };`, "unreachable 2:1~f (a.cedar:1) forbids all that it permits"},
		{"forbidden in part", `forbid(principal, action == Action::"read", resource in Path::"/a/b"); permit(` + who + `, action == Action::"read", resource in Path::"/a");`, ""},
		{"forbidden under a condition of its own", `forbid(principal, action, resource) when { context.entry == "x" };
permit(` + who + `, action, resource) when { context.module.name == "y" && context.entry == "x" };`, "unreachable 2:1"},
		{"forbidden to another", `forbid(principal == Peer::"mallory", action, resource); permit(` + who + `, action, resource);`, ""},

		{"shadowed", `@id("all") permit(principal in Circle::"friends", action in Action::"files", resource in Path::"/a");
@id("one") permit(principal in Circle::"friends", action == Action::"read", resource in Path::"/a/b") when { context.entry == "x" };`, "shadowed 2:1~all (a.cedar:1) does not permit"},
		{"twice the same", `permit(` + who + `, action, resource); permit(` + who + `, action, resource);`, "shadowed 1:" + fmt.Sprint(len(filled(`permit(`+who+`, action, resource); `))+1)},
		{"shadowed by a later one", `permit(` + who + `, action, resource == Record::"c/k"); permit(` + who + `, action, resource in Collection::"c");`, "shadowed 1:1"},
		{"a limit is not nothing", `permit(` + who + `, action, resource); @limits("time=1s") permit(` + who + `, action == Action::"submit", resource);`, ""},
		{"another circle", `permit(principal in Circle::"friends", action, resource); permit(principal in Circle::"family", action, resource);`, ""},

		{"everybody may run anything", `permit(principal, action == Action::"submit", resource);`, "everyone 1:1~code that they bring along"},
		{"everybody may run one", `permit(principal, action == Action::"submit", resource) when { context.module.name == "guestbook" };`, "everyone 1:1~what it names"},
		{"everybody, and meant", `permit(principal is Peer, action == Action::"submit", resource) when { context.module.name == "guestbook" };`, ""},
		{"whatever runs may read", `permit(principal, action == Action::"read", resource in Path::"/a");`, "everyone 1:1~whatever anybody may run"},
		{"whom I have named", `permit(principal, action == Action::"submit", resource) when { principal has name };`, ""},

		{"a module that changed", `@id("d") permit(` + who + `, action == Action::"submit", resource) when {
  context.module.digest == "` + digest(2) + `" };`, "no-module 2:28~guestbook had before; it has changed since, to " + digest(1)},
		{"one that the policy itself names", `permit(` + who + `, action == Action::"submit", resource) when { context.module.name == "grep" && context.module.digest == "` + digest(9) + `" };`, "no-module~grep had before"},
		{"a module that is gone", `permit(` + who + `, action == Action::"submit", resource) when { ["` + digest(1) + `", "` + digest(4) + `"].contains(context.module.digest) };`, "no-module~sed, which is not here any more"},
		{"code that comes along", `permit(` + who + `, action == Action::"submit", resource) when { context.module.digest == "` + digest(5) + `" && context.module.layer == "carried" };`, ""},
		{"a digest of which nothing is known", `permit(` + who + `, action == Action::"submit", resource) when { context.module.digest == "` + digest(6) + `" };
permit(` + who + `, action == Action::"read", resource in Path::"/a") when { context.module.digest == "` + digest(6) + `" };`, "no-module~bring that code along"},

		{"a circle that is misspelt", `@id("f") forbid(principal in Circle::"freinds", action, resource);`, "no-circle 1:38~did you mean friends?"},
		{"a circle in a condition", `forbid(principal, action, resource) when { principal in [Circle::"friends", Circle::"x"] };`, `no-circle~"x"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, dir+"/a.cedar", tt.policy)
			_, warnings, err := Check(dir, here)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if len(warnings) > 0 {
					t.Errorf("got %v", warnings)
				}
				return
			}
			place, word, _ := strings.Cut(tt.want, "~")
			if len(warnings) != 1 {
				t.Fatalf("got %v", warnings)
			}
			w := warnings[0]
			if got := fmt.Sprintf("%s %d:%d", w.Kind, w.Line, w.Column); got != place && string(w.Kind) != place || !strings.Contains(w.Message, word) {
				t.Errorf("got %s: %v", got, w)
			}
			if w.File != "a.cedar" || w.Source == "" || w.Policy == "" {
				t.Errorf("%+v", w)
			}
		})
	}
}

// Whatever the policies, one that is said never to decide does not, and one that
// is said to be shadowed can go: nothing is decided otherwise.
func TestWarningsAreSo(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	unreachable, shadowed, decided := 0, 0, 0
	for asked := 0; asked < 2*cases(t); {
		var texts []string
		for range 2 + r.IntN(6) {
			next := likelyPolicy(r)
			if len(texts) > 0 && r.IntN(4) == 0 { // as one before, and narrower
				next = strings.TrimSuffix(pick(r, texts...), ";\n") + " when { " + randomCondition(r, 1) + " };\n"
			}
			texts = append(texts, next)
		}
		s, err := Parse([]File{{"x.cedar", filled(strings.Join(texts, ""))}})
		if err != nil {
			continue // it does not type check
		}
		never := map[string]bool{}
		var without []*Set // each lacks one that is shadowed
		for _, w := range s.warnings(Here{}) {
			var n int
			if _, err := fmt.Sscanf(w.Policy, "x.cedar#%d", &n); err != nil {
				t.Fatal(err)
			}
			switch w.Kind {
			case Unreachable:
				never[w.Policy] = true
				unreachable++
			case Shadowed:
				rest, err := Parse([]File{{"x.cedar", filled(strings.Join(slices.Delete(slices.Clone(texts), n-1, n), "") + "//")}})
				if err != nil {
					t.Fatal(err)
				}
				without = append(without, rest)
				shadowed++
			}
		}
		for range 20 {
			request := randomRequest(r)
			if request.Code.Layer == "carried" {
				request.Code.Name = "" // as Accept sees to
			}
			action, resource := randomAccess(r, request)
			lent := r.IntN(4) == 0 && resource.Type != typeContext
			principal := request.Parties.Caller
			if lent {
				principal = request.Parties.Target
			}
			v := s.asked(request, principal, lent).ask(action, resource)
			asked++
			for _, id := range v.Policies {
				if decided++; never[id] {
					t.Fatalf("seed %d: %s decided %s of %v, context %v: %+v\n%s", seed, id, action, resource, request.context(lent), v, strings.Join(texts, ""))
				}
			}
			for _, rest := range without {
				if got := rest.asked(request, principal, lent).ask(action, resource); got.Permitted != v.Permitted && len(v.Failed) == 0 {
					t.Fatalf("seed %d: without what is shadowed %s of %v is %v, not %v\n%s", seed, action, resource, got, v, strings.Join(texts, ""))
				}
			}
		}
	}
	t.Logf("%d unreachable, %d shadowed, %d decisions", unreachable, shadowed, decided)
	if least := cases(t) / 100; unreachable < least || shadowed < least/4 || decided < 10*least {
		t.Error("that tries too little")
	}
}

// likelyPolicy is a random policy of conditions that often contradict each other.
func likelyPolicy(r *rand.Rand) string {
	text := strings.TrimSuffix(randomPolicy(r), ";\n")
	for range r.IntN(4) {
		text += fmt.Sprintf(" %s { %s }", pick(r, "when", "when", "unless"), pick(r,
			`context.entry == "sign"`, `context.entry != "sign"`, `"read" == context.entry`, `["sign", "read"].contains(context.entry)`,
			`["sign"].contains(context.entry)`, `context.entry like "s*"`, `context.entry like "*d"`,
			`context.params > 1`, `context.params >= 1`, `context.params < 1`, `context.params <= 100`, `1 > context.params`, `100 <= context.params`, `context.params == 1`,
			`context.module.layer == "carried"`, `context.module.layer == "host"`, `context.module.layer == "x"`, `context.module.name == "guestbook"`, `context.module.name == ""`,
			`context.module.digest == "sha256:1"`, `context.lent`, `!context.lent`, `context.lent == false`,
			`action == Action::"read"`, `action != Action::"read"`, `action in [Action::"files", Action::"submit"]`, `action in Action::"records"`,
			`resource in Path::"/a"`, `resource in Path::"/a/b"`, `resource == Path::"/a/b"`, `resource in [Path::"/x"]`, `resource in Collection::"c"`, `resource == Record::"c/a"`,
			`principal == Peer::"alice"`, `principal != Peer::"alice"`, `principal in Circle::"friends"`,
			`context.module.size > 10 && context.module.size < 1000`, `context.params * 9223372036854775807 > 0`, `true`, `false || context.lent`,
			`if context.lent then true else context.params < 0`, `context.params < 9223372036854775807 && context.params > 9223372036854775806`))
	}
	return text + ";\n"
}

// 10,000 policies are compared in bounded time, whatever they are.
func TestWarningsOfManyPolicies(t *testing.T) {
	for name, policy := range map[string]string{
		"by path":      "permit(principal, action == Action::\"read\", resource == Path::\"/p%d\");\n",
		"by condition": "permit(principal, action == Action::\"read\", resource) when { context.params == %d && context.entry == \"x\" };\n",
		"by peer":      "permit(principal == Peer::\"alice\", action == Action::\"read\", resource in Path::\"/a/b\") when { context.params > %d };\n",
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			for i := range maxPolicies {
				fmt.Fprintf(&b, policy, i)
				if b.Len() > maxFile/3 { // a name becomes a did:key
					break
				}
			}
			s := parse(t, b.String())
			began := time.Now()
			warnings := s.warnings(Here{})
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			t.Logf("%d policies, %d warnings, %v", s.Len(), len(warnings), time.Since(began))
		})
	}
}
