package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/script"
)

func TestReach(t *testing.T) {
	s := parse(t, `@id("files") permit(principal in Circle::"friends", action in [Action::"read", Action::"write"], resource in Path::"/guestbook");
		@id("old") forbid(principal, action == Action::"write", resource in Path::"/guestbook/2025");
		@id("one") permit(principal, action == Action::"read", resource == Path::"/card.txt");
		@id("key") permit(principal, action == Action::"get", resource in Collection::"notes") when { resource.key like "a*" };
		@id("rec") permit(principal, action == Action::"put", resource == Record::"notes/tea");
		@id("q") permit(principal, action == Action::"query", resource);
		@id("mute") forbid(principal, action == Action::"log", resource);
		@id("not hers") permit(principal == Peer::"mallory", action, resource);`)
	var got []string
	reach, whole := s.Reach(from(alice))
	if !whole {
		t.Error("that is not all")
	}
	for _, x := range reach {
		text := strings.TrimSpace(fmt.Sprintf("%t %s %s", x.Allowed, x.Action, x.Path))
		if x.Below && !x.Action.OfRecords() {
			text += "/…"
		}
		if x.Depends {
			text += " depends"
		}
		got = append(got, strings.TrimSpace(text+" "+strings.Join(x.By, ",")))
	}
	want := `true read /card.txt one
true read /guestbook/… files
true write /guestbook/… files
false write /guestbook/2025/… old
false get notes depends
true put notes/tea rec
true query * q
true clock (given)
true random (given)
false log mute`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
}

// Whatever the policies: what Reach says of the nearest place above a path, that is
// decided there, unless it says that it depends.
func TestReachIsWhatIsDecided(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	allowed, asked := 0, 0
	for asked < cases(t) {
		var text strings.Builder
		for range 1 + r.IntN(6) {
			text.WriteString(randomPolicy(r))
		}
		s, err := Parse([]File{{"x.cedar", filled(text.String())}})
		if err != nil {
			continue
		}
		request := randomRequest(r)
		request.Chain, request.Parties.Via = nil, nil // what a delegation leaves out is not a policy's
		reach, _ := s.Reach(request)
		grants := s.Grants(request)
		for range 10 {
			action, resource := randomAccess(r, request)
			path := string(resource.ID)
			if action == submit || isGiven(action) || wrongResource(action, path) != "" {
				continue
			}
			var at Reached // the last that covers it is the nearest
			for _, x := range reach {
				here, other := x.Path == path, x.Path == OtherCollections
				if action.OfRecords() {
					here = here || x.Below && holds(x.Path, path)
				} else {
					here = here || x.Below && covers(x.Path, path)
				}
				if at.Path == path && x.Path == path && !at.Below {
					continue // at is about the place itself, and x about what is below alone
				}
				if x.Action == action && (here || other) {
					at = x
				}
			}
			if at.Depends {
				continue
			}
			asked++
			if err := grants.Allow(action, path); (err == nil) != at.Allowed {
				t.Fatalf("seed %d: %s of %s: %v, and Reach says %+v\n%+v\n%s", seed, action, path, err, at, reach, text.String())
			} else if err == nil {
				allowed++
			}
		}
	}
	if allowed < asked/50 {
		t.Errorf("%d of %d were allowed: that tries too little", allowed, asked)
	}
}

// What Why says is what Allow does.
func TestWhyIsWhatIsAllowed(t *testing.T) {
	s := parse(t, `@id("a") permit(principal, action == Action::"read", resource in Path::"/a"); @id("b") forbid(principal, action, resource in Path::"/a/b");
		@id("c") forbid(principal, action == Action::"clock", resource);`)
	g := s.Grants(from(alice))
	for _, tt := range []struct {
		need Need
		by   string // "" is denied by none
	}{
		{Need{script.Read, "/a/x"}, "a"}, {Need{script.Read, "/a/b"}, "-b"}, {Need{script.Read, "/c"}, "-"}, {Need{Clock, ""}, "-c"}, {Need{Log, ""}, Given},
	} {
		x := g.Why(tt.need)
		got := strings.Join(x.By, ",")
		if x.Denied != nil {
			got = "-" + strings.Join(x.Denied.Verdict.Policies, ",")
		}
		if got != tt.by {
			t.Errorf("%v: %s, want %s", tt.need, got, tt.by)
		}
	}
}

// However many places policies name, and whatever they ask of each, what they reach
// is found in bounded time, and it is said that it is not all.
func TestReachIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "permit(principal, action, resource in Path::\"/p%d\") when { resource != Path::\"/q\" };\n", i)
	}
	began := time.Now()
	reach, whole := parse(t, strings.ReplaceAll(b.String(), "action,", `action in Action::"files",`)).Reach(from(alice))
	if whole || len(reach) < maxReached || len(reach) > 8*maxReached+len(given) {
		t.Errorf("%d places, whole: %t", len(reach), whole)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
}
