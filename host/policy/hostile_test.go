package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/budget"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// As many policies as there may be, each of which has to be looked at anew for
// each question, decide as they say, and with bounded memory; one
// more is not loaded.
func TestTenThousandPolicies(t *testing.T) {
	var files []File
	n := 0
	for f := range 10 {
		var b strings.Builder
		for range maxPolicies / 10 {
			fmt.Fprintf(&b, "forbid(principal, action, resource) when { context.used.hour.scripts == %d && context.params > %d };\n", 1000+n, n)
			n++
		}
		files = append(files, File{fmt.Sprintf("%d.cedar", f), b.String()})
	}
	files[0].Text = "@id(\"all\") permit(principal, action, resource);\n" + files[0].Text[strings.IndexByte(files[0].Text, '\n')+1:]
	s, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != maxPolicies {
		t.Fatalf("%d policies", s.Len())
	}
	r := from(alice)
	if v := s.Submit(r); !v.Permitted {
		t.Errorf("refused: %v", v)
	}
	r.Used = budget.Used{Hour: budget.Amount{Scripts: 1000 + 9}}
	if v := s.Submit(r); v.Permitted || len(v.Policies) != 1 {
		t.Errorf("the tenth does not forbid it: %v", v)
	}
	if g := s.Grants(r); g.Allow(script.Read, "/a") == nil || g.May(Clock) == nil {
		t.Error("the tenth does not forbid the rest")
	}
	// Another for each of them, which are all that is left of each: what is
	// remembered is bounded by maxRemembered.
	for i := range maxRemembered/maxPolicies + 2 {
		r.Entry = fmt.Sprint("entry", i)
		s.Submit(r)
	}
	if s.reduced.size > maxRemembered {
		t.Errorf("%d policies are remembered", s.reduced.size)
	}
	if _, err := Parse(append(files, File{"more.cedar", "permit(principal, action, resource);"})); err == nil || !strings.Contains(err.Error(), "more than 10000 policies") {
		t.Errorf("one more: %v", err)
	}
}

// What comes in a request is text of whoever sent it, or of an owner's files. None
// of it may be what it is not by its spelling, or hold a decision up.
func TestHostileRequests(t *testing.T) {
	s := parse(t, `@id("all") permit(principal in Circle::"friends", action, resource) when { context.entry like "*a*a*a*a*a*a*b" };
		@id("read") permit(principal, action == Action::"read", resource in Path::"/a");`)
	entry := strings.Repeat("a", script.MaxEntry)
	circles := make([]string, 1024)
	for i := range circles {
		circles[i] = fmt.Sprintf("c%d", i)
	}
	for name, change := range map[string]func(*Request){
		"a pattern's worst":      func(r *Request) { r.Parties.Caller = alice; r.Entry = entry },
		"circles without number": func(r *Request) { r.Parties.Caller.Circles = circles },
		"a circle that is quoted": func(r *Request) {
			r.Parties.Caller.Circles = []string{`friends"`, `"friends"`, "friends\x00", "Friends", " friends"}
		},
		"circles of no text":  func(r *Request) { r.Parties.Caller.Circles = []string{"\xff\xfe", "friends\xff", ""} },
		"a name of no text":   func(r *Request) { r.Parties.Caller.Name = "\xff\"" },
		"an id that is none":  func(r *Request) { r.Parties.Caller.ID = "\xff" },
		"a module of no text": func(r *Request) { r.Code.Name, r.Code.Language, r.Code.Layer = "\xff", "\xff", "\xff" },
		"an entry of no text": func(r *Request) { r.Parties.Caller = alice; r.Entry = "\xffab\xff" },
		"no time":             func(r *Request) { r.Now = time.Time{} },
		"more than was ever used": func(r *Request) {
			r.Used.Day = budget.Amount{Scripts: budget.Unlimited, Fuel: budget.Unlimited, Bytes: budget.Unlimited}
		},
		"transport of no text": func(r *Request) { r.Transport = strings.Repeat("\xff", 1<<16) },
	} {
		t.Run(name, func(t *testing.T) {
			r := from(mallory)
			change(&r)
			if v := s.Submit(r); v.Permitted {
				t.Errorf("permitted: %v", v)
			}
			g := s.Grants(r)
			if err := g.Allow(script.Read, "/a/b"); err != nil {
				t.Errorf("what is for all: %v", err)
			}
			if g.Allow(script.Write, "/a/b") == nil || g.Allow(script.Read, "/\xff") == nil || g.Allow(script.Read, "/a/"+strings.Repeat("b/", maxDepth)+"c") == nil {
				t.Error("allowed")
			}
			_ = (&RefusedError{Request: r, Verdict: s.Submit(r)}).Error()
		})
	}
	if v := s.Submit(Request{Parties: peer.Parties{Caller: alice, Target: bob}, Entry: "aaaaaab"}); !v.Permitted {
		t.Errorf("what is permitted: %v", v)
	}
}
