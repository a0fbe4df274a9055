package policy

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

func TestAnnotationsThatMeanNothing(t *testing.T) {
	const run = `(principal, action == Action::"submit", resource);`
	for text, want := range map[string]string{
		`@limits("time=1s") forbid` + run:                                           "@limits is for what is permitted to run",
		`@limits("time=1s") permit(principal, action == Action::"read", resource);`: "@limits is for what is permitted to run",
		`@limits("tiem=1s") permit` + run:                                           "(did you mean time?)",
		`@limits("time=1") permit` + run:                                            "want a number above 0 with its unit",
		`@limits("time=-1s") permit` + run:                                          "want a number above 0",
		`@limits("memory=1e9") permit` + run:                                        "want a number above 0 with its unit",
		`@limits("fuel=99999999999G") permit` + run:                                 "want one above 0",
		`@limits("fuel=1M, fuel=2M") permit` + run:                                  "given twice",
		`@limits("") permit` + run:                                                  "want NAME=VALUE",
		`@limits("time=1s,") permit` + run:                                          "want NAME=VALUE",
		`@review forbid` + run:                                                      "@review is for what is permitted to run",
		`@review permit(principal, action == Action::"read", resource);`:            "@review is for what is permitted to run",
		`@review("3") permit` + run:                                                 "want how long a script waits",
		`@review("0") permit` + run:                                                 "want how long a script waits",
		`@review("91d") permit` + run:                                               "at most 90d",
		`@reason("x") permit` + run:                                                 "@reason is for a forbid",
		`@reason("") forbid` + run:                                                  "@reason must be 1 to 500 bytes",
		`@reason("a\nb") forbid` + run:                                              "@reason must be 1 to 500 bytes",
		`@reason("` + strings.Repeat("x", 501) + `") forbid` + run:                  "@reason must be 1 to 500 bytes",
		`@hide permit` + run:                                                        "@hide is for a forbid",
		`@hide("yes") forbid` + run:                                                 "@hide has no value",
		`@limit("time=1s") permit` + run:                                            "(did you mean @limits?)",
	} {
		s, err := Parse([]File{{"x.cedar", text}})
		if s != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "x.cedar:1:2: ") {
			t.Errorf("%s\n%v, want %q", text, err, want)
		}
	}
}

// accept is Accept without an envelope.
func acceptedLimits(s *Set, r Request) Limits { return s.limits(s.Submit(r)) }

// Each permit that applies may narrow; what does not apply narrows nothing.
func TestLimits(t *testing.T) {
	s := parse(t, `@limits("time=200ms, memory=32MiB, fuel=50M") permit(principal in Circle::"friends", action == Action::"submit", resource);
		@limits("time = 1s , memory=16MiB, output=1KiB,log=2KiB, host_calls=10k, bytes=1MiB, file=64KiB, entries=10, handles=4, depth=3") permit(principal, action, resource) when { context.module.name == "guestbook" };
		@limits("time=1ms") permit(principal == Peer::"mallory", action, resource);
		permit(principal == Peer::"alice", action, resource);`)
	want := Limits{Time: 200 * time.Millisecond, Memory: 16 << 20, Output: 1 << 10, Log: 2 << 10, HostCalls: 10_000, Fuel: 50_000_000,
		Bytes: 1 << 20, File: 64 << 10, Entries: 10, Handles: 4, Depth: 3}
	if got := acceptedLimits(s, from(alice)); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if again, err := ParseLimits(want.String()); err != nil || again != want {
		t.Errorf("%q reads as %+v, %v", want, again, err)
	}
	if got := acceptedLimits(parse(t, `permit(principal, action, resource);`), from(alice)); got != (Limits{}) {
		t.Errorf("without @limits: %+v", got)
	}
}

// One permit with @review is enough, and the nearest time counts.
func TestReviewOf(t *testing.T) {
	s := parse(t, `@review("2d") permit(principal in Circle::"friends", action == Action::"submit", resource);
		@review permit(principal, action, resource) when { context.module.name == "guestbook" };
		@review("1h") permit(principal == Peer::"mallory", action, resource);
		permit(principal == Peer::"alice", action, resource);`)
	if got := s.review(s.Submit(from(alice))); got != 48*time.Hour {
		t.Errorf("%v, want 2d", got)
	}
	if e := s.Explain(from(alice)); e.Review != 48*time.Hour {
		t.Errorf("explained as %v", e.Review)
	}
	other := from(alice)
	other.Code.Name, other.Parties.Caller.Circles = "wordcount", nil
	if got := s.review(s.Submit(other)); got != 0 {
		t.Errorf("%v, want none", got)
	}
	for _, d := range []time.Duration{time.Second, 90 * time.Minute, 24 * time.Hour, MaxReview} {
		if got, err := ParseReview(reviewText(d)); err != nil || got != d {
			t.Errorf("%v is written %s, and read as %v, %v", d, reviewText(d), got, err)
		}
	}
}

func TestReasons(t *testing.T) {
	s := parse(t, `@id("p") permit(principal, action, resource);
		@id("b") @reason("come back in May") forbid(principal, action == Action::"submit", resource) when { context.module.name == "guestbook" };
		@id("a") @reason("ask me first") forbid(principal == Peer::"alice", action, resource);
		@id("c") @reason("never said") forbid(principal == Peer::"mallory", action, resource);`)
	v := s.Submit(from(alice))
	if want := "policies a and b forbid it (ask me first; come back in May)"; v.String() != want {
		t.Errorf("%q, want %q", v, want)
	}
	if err := s.Grants(from(alice)).Allow(script.Read, "/x"); err == nil || !strings.HasSuffix(err.Error(), "policy a of bob forbids it (ask me first)") {
		t.Error(err)
	}
}

// What is hidden looks as if no policy were about it; one forbid that hides is
// enough.
func TestHide(t *testing.T) {
	s := parse(t, `@id("p") permit(principal, action, resource);
		@id("open") forbid(principal, action, resource in Path::"/closed");
		@id("secret") @hide @reason("not even this") forbid(principal, action, resource in Path::"/closed/secret");
		@id("nobody") @hide forbid(principal == Peer::"mallory", action == Action::"submit", resource);`)
	var denied *DeniedError
	g := s.Grants(from(alice))
	if err := g.Allow(script.Read, "/closed/x"); !errors.As(err, &denied) || denied.Verdict.Hidden || !strings.Contains(err.Error(), "policy open of bob forbids it") {
		t.Error(err)
	}
	if err := g.Allow(script.Read, "/closed/secret/x"); !errors.As(err, &denied) || !denied.Verdict.Hidden || !strings.HasSuffix(err.Error(), "no policy of bob permits it") {
		t.Error(err)
	}
	refused := &RefusedError{Request: from(mallory), Verdict: s.Submit(from(mallory))}
	unknown := &RefusedError{Request: from(mallory), Verdict: parse(t, "//").Submit(from(mallory))}
	if refused.Error() != unknown.Error() || !reflect.DeepEqual(refused.Verdict.Public(), unknown.Verdict.Public()) {
		t.Errorf("%q, and where no policy speaks of it %q", refused, unknown)
	}
	if v := s.Submit(from(mallory)); v.String() != "policy nobody forbids it" {
		t.Errorf("the owner is told %q", v)
	}
}

// Refused, a script is told about by the name that it used itself, found or not.
func TestRefusalsSpeakOfWhatWasAsked(t *testing.T) {
	r := from(mallory)
	r.Asked = "guestbook"
	there := &RefusedError{Request: r}
	r.Code = Code{}
	gone := &RefusedError{Request: r}
	if there.Error() != gone.Error() || !strings.Contains(gone.Error(), "may not run guestbook:sign") {
		t.Errorf("%q and %q", there, gone)
	}
	if !(peer.Peer{Circles: []string{"x"}}).Known() || mallory.Known() || !alice.Known() {
		t.Error("who is a stranger?")
	}
}
