package policy

import (
	"errors"
	"testing"
	"time"

	"github.com/circles-host/circles/host/budget"
)

// Nobody counts what no policy asks about, and no further back than one does.
func TestCounts(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`permit(principal, action, resource);`:                                                                                       0,
		`permit(principal, action, resource) when { context.module.name == "used" };`:                                                0,
		`permit(principal, action, resource) when { context.params < 10 && context.lent };`:                                          0,
		`permit(principal, action, resource) when { context.used.minute.scripts < 3 };`:                                              time.Minute,
		`permit(principal, action, resource) when { context.used.minute.scripts < 3 || context.used.hour.fuel < 3 };`:                time.Hour,
		`permit(principal, action, resource) unless { context["used"]["day"].bytes > 3 };`:                                           24 * time.Hour,
		`permit(principal, action, resource) when { context.used == context.used };`:                                                 24 * time.Hour,
		`permit(principal, action, resource) when { context == context };`:                                                           24 * time.Hour,
		`permit(principal, action, resource) when { (if context.lent then context.used else context.used).minute.scripts < 3 };`:     24 * time.Hour,
		`permit(principal, action, resource) when { (if context.lent then context else context).used.minute.scripts < 3 };`:          24 * time.Hour,
		`permit(principal, action, resource); forbid(principal, action, resource) when { context.used.hour.scripts >= 100 };`:        time.Hour,
		`permit(principal, action in Action::"files", resource) when { context.used.hour.scripts < 100 && resource is Path };`:       time.Hour,
		`permit(principal, action, resource) when { {a: context.used.minute}.a.scripts < 100 };`:                                     time.Minute,
		`permit(principal, action, resource) when { (if context.lent then context.used.minute else context.used.hour).scripts < 1};`: time.Hour,
	} {
		if got := parse(t, text).Counts(); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// Who is refused because of what was used is told when to come back, unless
// something else is in the way, or the owner hides it.
func TestAgain(t *testing.T) {
	hour := func(n int64) budget.Used { return budget.Used{Hour: budget.Amount{Scripts: n}} }
	later := func(yield func(time.Time, budget.Used) bool) {
		for i := range 5 {
			if !yield(noon.Add(time.Duration(i+1)*time.Minute), hour(int64(4-i))) {
				return
			}
		}
	}
	for text, want := range map[string]time.Time{
		`permit(principal, action, resource) when { context.used.hour.scripts < 3 };`:                                                         noon.Add(3 * time.Minute),
		`permit(principal, action, resource); forbid(principal, action, resource) when { context.used.hour.scripts >= 3 };`:                   noon.Add(3 * time.Minute),
		`permit(principal, action, resource); @hide forbid(principal, action, resource) when { context.used.hour.scripts >= 3 };`:             {},
		`permit(principal, action, resource) when { context.used.hour.scripts < 0 };`:                                                         {},
		`permit(principal, action, resource) when { context.used.hour.scripts < 3 }; forbid(principal, action, resource);`:                    {},
		`permit(principal == Peer::"mallory", action, resource) when { context.used.hour.scripts < 3 };`:                                      {},
		`permit(principal, action, resource) when { context.used.hour.scripts < 3 && context.used.hour.scripts * 9223372036854775807 >= 0 };`: noon.Add(4 * time.Minute),
		`permit(principal, action, resource) when { context.used.hour.scripts < 3 && context.now < datetime("2026-06-01T12:02:00Z") };`:       {},
		`permit(principal, action, resource) when { context.used.hour.scripts < 3 && context.now >= datetime("2026-06-01T12:05:00Z") };`:      noon.Add(5 * time.Minute),
		`permit(principal, action == Action::"read", resource) when { context.used.hour.scripts < 3 };`:                                       {},
	} {
		s, r := parse(t, text), from(alice)
		r.Used = hour(5)
		v := s.Submit(r)
		if v.Permitted {
			t.Fatalf("%s: permitted", text)
		}
		if got := s.Again(&RefusedError{Request: r, Verdict: v}, later); !got.Equal(want) {
			t.Errorf("%s: again at %v, want %v", text, got, want)
		}
	}
	s := Broken(errors.New("x"))
	if got := s.Again(&RefusedError{Request: from(alice), Verdict: s.Submit(from(alice))}, later); !got.IsZero() {
		t.Errorf("with broken policies: %v", got)
	}
}
