package turns_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/circles-host/circles/host/turns"
)

// take takes as many places as a caller gets.
func take(ps *turns.Places, caller string) (got []turns.Place) {
	for {
		p, _, ok := ps.Take(caller)
		if !ok {
			return got
		}
		got = append(got, p)
	}
}

// TestNoCallerTakesAllPlaces: there is room for one who comes later, however much
// those want who were there before.
func TestNoCallerTakesAllPlaces(t *testing.T) {
	ps := turns.NewPlaces(48)
	one := take(ps, "one")
	if len(one) != 24 {
		t.Errorf("one alone got %d of 48", len(one))
	}
	two := take(ps, "two")
	if len(two) != 12 {
		t.Errorf("the second got %d", len(two))
	}
	for i := range 12 { // as many strangers as there are places left, and one more
		_, _, ok := ps.Take(fmt.Sprint("stranger ", i))
		if !ok {
			t.Errorf("stranger %d got none", i)
		}
	}
	if _, _, ok := ps.Take("one too many"); ok {
		t.Error("49 of 48 were taken")
	}
	if more := take(ps, "one"); len(more) != 0 {
		t.Errorf("who has 24 got %d more, of none", len(more))
	}
	// What is given back goes to whoever has least.
	for _, p := range one {
		p.Leave()
	}
	if again := take(ps, "one"); len(again) != 12 {
		t.Errorf("who had half before gets %d of 24", len(again))
	}
	for _, p := range two[:6] {
		p.Leave()
	}
	if again := take(ps, "two"); len(again) != 6 {
		t.Errorf("who has 6 gets %d of 18 that are left", len(again))
	}
}

// TestASmallNumberOfPlaces: one is enough for one.
func TestASmallNumberOfPlaces(t *testing.T) {
	for most, want := range map[int]int{-1: 1, 1: 1, 2: 1, 3: 2, 4: 2} {
		if got := take(turns.NewPlaces(most), "a"); len(got) != want {
			t.Errorf("of %d one alone got %d, want %d", most, len(got), want)
		}
	}
}

// TestRetryIsAfterAPlaceIsLikelyFree: what was told to wait is told for how long,
// by how long others had theirs.
func TestRetryIsAfterAPlaceIsLikelyFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ps := turns.NewPlaces(2)
		refused := func() time.Duration {
			t.Helper()
			p, _, ok := ps.Take("a")
			if !ok {
				t.Fatal("there is none")
			}
			_, retry, ok := ps.Take("a")
			if ok {
				t.Fatal("one caller got all")
			}
			time.Sleep(4 * time.Second)
			p.Leave()
			return retry
		}
		if first := refused(); first != 100*time.Millisecond {
			t.Errorf("before anything is known: %v", first)
		}
		var last time.Duration
		for range 50 {
			last = refused()
		}
		if last < 3500*time.Millisecond || last > 4*time.Second {
			t.Errorf("each has it for 4 s: %v", last)
		}
	})
}

func BenchmarkPlaces(b *testing.B) {
	ps := turns.NewPlaces(48)
	b.ReportAllocs()
	for b.Loop() {
		p, _, ok := ps.Take("a")
		if !ok {
			b.Fatal("there is none")
		}
		p.Leave()
	}
}
