package host_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/transport"
)

const (
	budgetFor = `@id("all") @limits("fuel=1M") permit(principal, action, resource) when { `
	quick     = " };"
)

// What a caller may use in a while it may use no more of, says when it may again,
// and does not have again after a restart; others have their own.
func TestBudget(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	count := carried(guest(nil, abitest.I32(16)))
	w.policy("bob", "all", budgetFor+`action != Action::"submit" || context.used.hour.scripts < 2`+quick)
	began := time.Now()
	for range 2 {
		if r := w.send("alice", "bob", count); r.Code != script.Done {
			t.Fatalf("within the budget: %v %s", r.Code, r.Message)
		}
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			w.reopen()
		}
		r := w.send("alice", "bob", count)
		_, again, _ := strings.Cut(r.Message, "send it again after ")
		at, err := time.Parse(time.RFC3339, again)
		if r.Code != script.Refused || err != nil || at.Before(began.Add(time.Hour-time.Second)) || at.After(began.Add(time.Hour+10*time.Minute)) {
			t.Errorf("over the budget, restarted %t: %v %s", restarted, r.Code, r.Message)
		}
		if !restarted {
			continue
		}
		if r := w.send("carol", "bob", count); r.Code != script.Done {
			t.Errorf("another caller: %v %s", r.Code, r.Message)
		}
	}

	// A budget of fuel: what was burned counts, of scripts that failed, too.
	w = newWorld(t, "alice", "bob")
	w.policy("bob", "all", budgetFor+`context.used.day.fuel < 900000`+quick)
	spin := carried(guest(nil, abitest.Loop, abitest.Br(0), abitest.End, abitest.I32(16)))
	if r := w.send("alice", "bob", count); r.Code != script.Done {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	if r := w.send("alice", "bob", spin); r.Code != script.OverLimit {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	if r := w.send("alice", "bob", count); r.Code != script.Refused || !strings.Contains(r.Message, "send it again after") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
}

// Of scripts that arrive at once a budget of one lets one through, whatever they
// are: the same again and again, or different ones. What is refused, or does not
// run, costs nothing.
func TestBudgetsAreNotRaced(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", budgetFor+`action != Action::"submit" || context.used.day.scripts < 3`+quick)
	s := carried(guest(nil, abitest.I32(16)))
	if r := w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "absent"}}); r.Code != script.NotFound {
		t.Fatalf("%v %s", r.Code, r.Message)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[script.Code]int{}
	done := map[script.ID]bool{}
	for range 8 {
		sealed, id := w.seal("alice", "bob", s)
		for range 3 {
			wg.Go(func() {
				back, err := w.host.Deliver(context.Background(), sealed, nil)
				if err != nil {
					t.Error(err)
					return
				}
				r, _, err := envelope.OpenReceiptOf(id, back, w.host.ID())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				codes[r.Code]++
				if r.Code == script.Done {
					done[id] = true
				}
			})
		}
	}
	wg.Wait()
	if len(done) != 3 || codes[script.Done] != 9 || codes[script.Refused] != 15 {
		t.Errorf("%d scripts of eight were done, by %v", len(done), codes)
	}
	ran := 0
	for _, r := range w.logged("bob") {
		if r.Code == script.Done {
			ran++
		}
	}
	if ran != 3 {
		t.Errorf("%d of three ran", ran)
	}
}

// While scripts are under way that may use everything, nobody knows what is left.
func TestBudgetOfWhatIsUnderWay(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource) when { context.used.hour.fuel < 1000000000000 };`)
	spin := carried(guest(nil, abitest.Loop, abitest.Br(0), abitest.End, abitest.I32(16)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { // until it is what came first
		for ctx.Err() == nil {
			sealed, _ := w.seal("alice", "bob", spin)
			_, _ = w.host.Deliver(ctx, sealed, nil)
		}
	})
	quickly := carried(guest(nil, abitest.I32(16)))
	var r script.Receipt
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if r = w.send("alice", "bob", quickly); r.Code == script.Refused {
			break
		}
	}
	if r.Code != script.Refused || !strings.Contains(r.Message, "send it again after") {
		t.Errorf("beside a script without a limit of fuel: %v %s", r.Code, r.Message)
	}
	cancel()
	wg.Wait()
	if r = w.send("alice", "bob", quickly); r.Code != script.Done {
		t.Errorf("after it: %v %s", r.Code, r.Message)
	}
}

// Policies see by what a script came.
func TestTransportIsSeen(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource) when { context.transport == "http" };`)
	s := carried(guest(nil, abitest.I32(16)))
	if r := w.send("alice", "bob", s); r.Code != script.Refused {
		t.Errorf("by none: %v %s", r.Code, r.Message)
	}
	sealed, id := w.seal("alice", "bob", s)
	back, err := w.host.Deliver(transport.By(t.Context(), "http"), sealed, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, _, err := envelope.OpenReceiptOf(id, back, w.host.ID()); err != nil || r.Code != script.Done {
		t.Errorf("by http: %v %s, %v", r.Code, r.Message, err)
	}
}
