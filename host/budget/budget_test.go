package budget

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func id(n int) script.ID { return script.ID{byte(n >> 16), byte(n >> 8), byte(n), 1} }

// used is what a caller used, as whoever comes next sees it.
func used(l *Ledger, caller peer.ID, now time.Time) (u Used) {
	_ = l.Take(caller, script.ID{}, now, func(p Past) (Amount, error) {
		u = p.At(now)
		return Amount{}, errLook
	})
	return u
}

var errLook = errors.New("only looking")

// run is a script that runs at once.
func run(l *Ledger, caller peer.ID, n int, at time.Time, a Amount) {
	if err := l.Take(caller, id(n), at, func(Past) (Amount, error) { return Amount{1, Unlimited, Unlimited}, nil }); err != nil {
		panic(err)
	}
	l.Used(caller, id(n), at, a)
	l.Settle(id(n))
}

// What was used within the window counts, and what was used a twelfth of the
// window before that does not, at any time.
func TestWindowsAgreeWithAList(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		var l Ledger
		type event struct {
			at time.Time
			a  Amount
		}
		var events []event
		now := noon
		steps := []time.Duration{time.Second, 10 * time.Second, time.Minute, 7 * time.Minute, time.Hour, 5 * time.Hour}
		for n := range 300 {
			now = now.Add(time.Duration(r.Int64N(int64(steps[r.IntN(len(steps))]))))
			if r.IntN(3) > 0 {
				a := Amount{1, r.Int64N(1000), r.Int64N(10)}
				events = append(events, event{now, a})
				run(&l, "alice", n, now, a)
				continue
			}
			got := used(&l, "alice", now)
			for i, a := range []Amount{got.Minute, got.Hour, got.Day} {
				var least, most Amount
				for _, e := range events {
					if age := now.Sub(e.at); age < windows[i] {
						least, most = least.plus(e.a), most.plus(e.a)
					} else if age <= windows[i]+windows[i]/parts {
						most = most.plus(e.a)
					}
				}
				if a.Scripts < least.Scripts || a.Fuel < least.Fuel || a.Bytes < least.Bytes || a.Scripts > most.Scripts || a.Fuel > most.Fuel || a.Bytes > most.Bytes {
					t.Fatalf("seed %d: in the last %v %+v, which is not from %+v to %+v", seed, windows[i], a, least, most)
				}
			}
		}
	}
}

// Later tells when there is room again: not before, and not long after.
func TestLater(t *testing.T) {
	var l Ledger
	for n := range 5 {
		run(&l, "alice", n, noon.Add(time.Duration(n)*10*time.Second), Amount{Scripts: 1})
	}
	now := noon.Add(50 * time.Second)
	err := l.Take("alice", id(9), now, func(p Past) (Amount, error) {
		for at, u := range p.Later(now) {
			if u.Minute.Scripts < 3 {
				if at.Before(noon.Add(80*time.Second)) || at.After(noon.Add(86*time.Second)) {
					t.Errorf("fewer than three in a minute again at %v", at)
				}
				if u := used(&Ledger{accounts: l.accounts}, "alice", at); u.Minute.Scripts >= 3 {
					t.Errorf("at that time there are %d", u.Minute.Scripts)
				}
				break
			}
		}
		last := now
		for at, u := range p.Later(now) {
			if !at.After(last) {
				t.Errorf("%v comes after %v", at, last)
			}
			if last = at; u.Day.Scripts == 0 && at.Sub(now) > 26*time.Hour+time.Minute {
				t.Errorf("nothing counts only from %v on", at)
			}
		}
		return Amount{}, errLook
	})
	if !errors.Is(err, errLook) {
		t.Fatal(err)
	}
	if err := l.Take("nobody", id(9), now, func(p Past) (Amount, error) {
		for at := range p.Later(now) {
			t.Errorf("of somebody who used nothing less counts at %v", at)
		}
		return Amount{}, errLook
	}); !errors.Is(err, errLook) {
		t.Fatal(err)
	}
}

// What is under way counts with the most that it may use, the same script once,
// and not to itself; what did not run does not count.
func TestUnderWay(t *testing.T) {
	var l Ledger
	take := func(n int, fuel int64, see int64) {
		t.Helper()
		if err := l.Take("alice", id(n), noon, func(p Past) (Amount, error) {
			if u := p.At(noon); u.Minute.Fuel != see || u.Day.Fuel != see {
				t.Errorf("script %d sees %+v, not %d", n, u, see)
			}
			return Amount{1, fuel, 0}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	take(1, 100, 0)
	take(1, 100, 0)
	take(2, Unlimited, 100)
	take(3, 5, Unlimited)
	take(1, 100, Unlimited)
	l.Used("alice", id(1), noon, Amount{1, 40, 0})
	l.Settle(id(1))
	l.Settle(id(1))
	l.Settle(id(2)) // it did not run
	take(4, 1, 105)
	l.Settle(id(1))
	take(5, 1, 46)
	for n := range 10 {
		l.Settle(id(n))
	}
	if u := used(&l, "alice", noon); u.Hour != (Amount{1, 40, 0}) {
		t.Errorf("at the end %+v", u)
	}
	if len(l.underway) != 0 || l.accounts.callers["alice"].underway != 0 {
		t.Error("something stays under way")
	}
}

func TestABudgetOfOneIsPassedByOne(t *testing.T) {
	var l Ledger
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for n := range 200 {
		wg.Go(func() {
			err := l.Take("alice", id(n), noon, func(p Past) (Amount, error) {
				if p.At(noon).Hour.Scripts >= 1 {
					return Amount{}, errLook
				}
				return Amount{Scripts: 1}, nil
			})
			if err == nil {
				mu.Lock()
				passed++
				mu.Unlock()
				l.Used("alice", id(n), noon, Amount{Scripts: 1})
				l.Settle(id(n))
			}
		})
	}
	wg.Wait()
	if passed != 1 {
		t.Errorf("%d passed", passed)
	}
}

// Any number of callers takes bounded memory, gives nobody a budget anew, and
// leaves no trace of those who are refused.
func TestManyCallers(t *testing.T) {
	var l Ledger
	for n := range 3 * maxCallers {
		used(&l, peer.ID(fmt.Sprint("stranger", n)), noon)
	}
	if len(l.accounts.callers) != 0 {
		t.Errorf("%d strangers are remembered", len(l.accounts.callers))
	}
	run(&l, "alice", 0, noon, Amount{Scripts: 7})
	for n := range 3 * maxCallers {
		run(&l, peer.ID(fmt.Sprint("many", n)), n, noon, Amount{Scripts: 1})
	}
	if n := len(l.accounts.callers); n != maxCallers {
		t.Errorf("%d callers are counted apart", n)
	}
	if u := used(&l, "alice", noon); u.Day.Scripts != 7 {
		t.Errorf("of the first caller %+v is left", u)
	}
	for n := range 3 * maxCallers {
		if u := used(&l, peer.ID(fmt.Sprint("many", n)), noon); u.Day.Scripts < 1 {
			t.Fatalf("caller %d used %+v", n, u)
		}
	}
	// When what they used does not count any more there is room again.
	later := noon.Add(27 * time.Hour)
	run(&l, "late", 1, later, Amount{Scripts: 1})
	if u := used(&l, "late", later); u.Day.Scripts != 1 || len(l.accounts.callers) > 1 {
		t.Errorf("a day later %+v, of %d callers", u, len(l.accounts.callers))
	}
}

// A clock that is set back, or far ahead and back, makes things count for longer,
// and never not at all.
func TestClocksAreSet(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, -30 * 24 * time.Hour, time.Hour, 30 * 24 * time.Hour} {
		var l Ledger
		run(&l, "alice", 1, noon.Add(jump), Amount{Scripts: 1})
		run(&l, "alice", 2, noon, Amount{Scripts: 1})
		if u := used(&l, "alice", noon); u.Minute.Scripts < 1 || u.Hour.Scripts < 1 || u.Day.Scripts < 1 {
			t.Errorf("by a jump of %v: %+v", jump, u)
		}
	}
	var l Ledger
	run(&l, "alice", 1, time.Unix(-100, 0), Amount{Scripts: 1})
	run(&l, "alice", 2, time.Time{}, Amount{Scripts: Unlimited})
	if u := used(&l, "alice", time.Unix(-100, 0)); u.Day.Scripts < 1 {
		t.Errorf("before 1970: %+v", u)
	}
}

// While it is filled again nothing of what goes on is lost, and what is under way
// is not forgotten.
func TestRefill(t *testing.T) {
	var l Ledger
	one := Amount{1, 10, 0}
	run(&l, "alice", 1, noon, one)
	for n := 2; n <= 4; n++ {
		if err := l.Take("alice", id(n), noon, func(Past) (Amount, error) { return Amount{1, 100, 0}, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Refill(func(func(peer.ID, script.ID, time.Time, Amount)) error { return errLook }); !errors.Is(err, errLook) {
		t.Fatal(err)
	}
	if u := used(&l, "alice", noon); u.Hour != (Amount{4, 310, 0}) {
		t.Errorf("after a log that cannot be read %+v", u)
	}
	waited := make(chan Used)
	err := l.Refill(func(add func(peer.ID, script.ID, time.Time, Amount)) error {
		go func() { waited <- used(&l, "alice", noon) }()
		add("alice", id(1), noon, one)
		l.Used("alice", id(2), noon, one) // it is committed, is read, and settled
		add("alice", id(2), noon, one)
		l.Settle(id(2))
		l.Used("alice", id(3), noon, one) // it is settled after
		add("alice", id(3), noon, one)
		l.Used("carol", id(7), noon, one) // it was not taken here
		add("bob", id(8), noon.Add(-2*time.Hour), one)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if u := <-waited; u.Hour != (Amount{4, 10 + 10 + 100 + 100, 0}) {
		t.Errorf("then %+v", u)
	}
	l.Settle(id(3))
	l.Settle(id(4))
	if u := used(&l, "alice", noon); u.Hour != (Amount{3, 30, 0}) {
		t.Errorf("at the end %+v", u)
	}
	if u := used(&l, "carol", noon); u.Hour != one {
		t.Errorf("of carol %+v", u)
	}
	if u := used(&l, "bob", noon); u.Hour != (Amount{}) || u.Day != one {
		t.Errorf("of bob %+v", u)
	}
}

func BenchmarkTake(b *testing.B) {
	var l Ledger
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		run(&l, "alice", n, noon, Amount{1, 1000, 1000})
	}
}
