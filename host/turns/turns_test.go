package turns_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/circles-host/circles/host/turns"
)

// compute takes d of a processor, a third of a millisecond at a time, and
// returns how long it took to get it.
func compute(t *testing.T, turn *turns.Turn, d time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	if err := turn.Begin(t.Context()); err != nil {
		t.Error(err)
	}
	for left := d; left > 0; left -= time.Millisecond / 3 {
		time.Sleep(time.Millisecond / 3)
		turn.Slice()
	}
	turn.End()
	return time.Since(start)
}

func enter(t *testing.T, ts *turns.Turns, caller string, memory uint64) *turns.Turn {
	t.Helper()
	turn, err := ts.Enter(t.Context(), caller, 0, memory)
	if err != nil {
		t.Fatal(err)
	}
	return turn
}

// The promise: whoever sends fifty scripts that compute for ever costs another,
// who sends one small one now and then, one processor of two, and no more.
func TestOneGreedyCallerDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := turns.New(turns.Config{Processors: 2})
		var greedy sync.WaitGroup
		for range 50 {
			greedy.Go(func() {
				turn := enter(t, ts, "greedy", 1<<20)
				defer turn.Leave()
				compute(t, turn, 100*time.Millisecond)
			})
		}
		synctest.Wait()
		for range 100 {
			turn := enter(t, ts, "modest", 1<<20)
			// Alone it would take 3 ms.
			if took := compute(t, turn, 3*time.Millisecond); took > 8*time.Millisecond {
				t.Errorf("3 ms of computing took %v beside a greedy caller", took)
			}
			turn.Leave()
			time.Sleep(5 * time.Millisecond)
		}
		greedy.Wait()
	})
}

// Of two callers who both always have something to compute each gets half,
// however many scripts that is.
func TestCallersShareEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := turns.New(turns.Config{Processors: 1})
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		var mu sync.Mutex
		got := map[string]time.Duration{}
		var all sync.WaitGroup
		for i := range 11 {
			name := "many"
			if i == 5 {
				name = "one"
			}
			all.Go(func() {
				turn := enter(t, ts, name, 1)
				defer turn.Leave()
				if turn.Begin(ctx) != nil {
					return
				}
				defer turn.End()
				for ctx.Err() == nil {
					time.Sleep(time.Millisecond)
					mu.Lock()
					got[name] += time.Millisecond
					mu.Unlock()
					turn.Slice()
				}
			})
		}
		all.Wait()
		if got["one"] < 450*time.Millisecond || got["many"] < 450*time.Millisecond {
			t.Errorf("of a second they got %v", got)
		}
	})
}

func TestNoMoreComputeThanThereAreProcessors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := turns.New(turns.Config{Processors: 3})
		var mu sync.Mutex
		at, most := 0, 0
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				turn := enter(t, ts, fmt.Sprint(i%4), 1)
				defer turn.Leave()
				for range 3 {
					if err := turn.Begin(t.Context()); err != nil {
						t.Error(err)
					}
					mu.Lock()
					at++
					most = max(most, at)
					mu.Unlock()
					time.Sleep(time.Millisecond)
					mu.Lock()
					at--
					mu.Unlock()
					turn.End()
				}
			})
		}
		all.Wait()
		if most != 3 {
			t.Errorf("%d computed at once", most)
		}
	})
}

// One that sleeps, or asks its caller something, is not in the way.
func TestPauseLetsOthersCompute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := turns.New(turns.Config{Processors: 1})
		sleeper := enter(t, ts, "a", 1)
		if err := sleeper.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		sleeper.Pause()
		other := enter(t, ts, "b", 1)
		if took := compute(t, other, time.Millisecond); took > 2*time.Millisecond {
			t.Errorf("took %v", took)
		}
		other.Leave()
		sleeper.Resume()
		third, _ := ts.Enter(t.Context(), "c", 0, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := third.Begin(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who resumed has no place: %v", err)
		}
		sleeper.End()
		sleeper.Leave()
		if err := third.Begin(t.Context()); err != nil {
			t.Error(err)
		}
		third.Leave() // with its place
		fourth := enter(t, ts, "d", 1)
		if err := fourth.Begin(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Its context ends while it waits to go on: it returns, and what it holds is
// given back once.
func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := turns.New(turns.Config{Processors: 1, Quantum: time.Millisecond})
		a, b := enter(t, ts, "a", 1), enter(t, ts, "b", 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := a.Begin(ctx); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := b.Begin(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second) // and never slices
			b.End()
		}()
		time.Sleep(2 * time.Millisecond)
		a.Slice()
		if ctx.Err() == nil {
			t.Error("it went on without a place")
		}
		a.End()
		a.Leave()
		<-done
		for range 2 { // there is one place, and not two
			if err := b.Begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			c := enter(t, ts, "c", 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := c.Begin(ctx); err == nil {
				t.Error("two compute at once")
			}
			cancel()
			c.Leave()
			b.End()
		}
	})
}

func TestMemoryIsReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := turns.New(turns.Config{Memory: 100, Waiting: 4, Share: 2})
		if _, err := ts.Enter(t.Context(), "a", 0, 101); !errors.Is(err, turns.ErrTooLarge) {
			t.Errorf("more than there is: %v", err)
		}
		holder := enter(t, ts, "a", 90)
		entered := make(chan string, 10)
		wait := func(caller string, memory uint64) {
			go func() {
				turn, err := ts.Enter(t.Context(), caller, 0, memory)
				if err != nil {
					t.Error(err)
					return
				}
				entered <- caller
				time.Sleep(time.Second)
				turn.Leave()
			}()
			synctest.Wait()
		}
		wait("b", 60)
		wait("c", 10) // would fit, and must not overtake b for ever
		wait("b", 10)
		if len(entered) != 0 {
			t.Errorf("%s overtook", <-entered)
		}
		if _, err := ts.Enter(t.Context(), "b", 0, 1); !errors.Is(err, turns.ErrBusy) {
			t.Errorf("more than a caller's share: %v", err)
		}
		wait("d", 10)
		if _, err := ts.Enter(t.Context(), "e", 0, 1); !errors.Is(err, turns.ErrBusy) {
			t.Errorf("more than may wait: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		holder.Leave()
		holder.Leave() // is nothing
		synctest.Wait()
		if len(entered) != 4 {
			t.Errorf("%d of 4 entered", len(entered))
		}
		if _, err := ts.Enter(ctx, "f", 0, 50); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("until its deadline: %v", err)
		}
		time.Sleep(2 * time.Second)
		enter(t, ts, "g", 100).Leave() // everything was given back
	})
}

// A guest that computes lets the rest of the host run at each slice: nothing else
// would before the scheduler's 10 ms are over.
func TestSlicesLetTheHostRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ts := turns.New(turns.Config{})
	turn := enter(t, ts, "a", 1)
	defer turn.Leave()
	if err := turn.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer turn.End()
	var ran atomic.Int64
	stop := make(chan struct{})
	var other sync.WaitGroup
	other.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				ran.Add(1)
				runtime.Gosched()
			}
		}
	})
	const slices = 1000
	for range slices {
		turn.Slice()
	}
	if n := ran.Load(); n < slices/2 {
		t.Errorf("in %d slices of a guest another goroutine ran %d times", slices, n)
	}
	close(stop)
	other.Wait()
}

// Slice is called some thousand times a second of each script.
func BenchmarkSlice(b *testing.B) {
	ts := turns.New(turns.Config{})
	turn, err := ts.Enter(b.Context(), "a", 0, 1)
	if err != nil {
		b.Fatal(err)
	}
	if err := turn.Begin(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		turn.Slice()
	}
}

func BenchmarkTurn(b *testing.B) {
	ts := turns.New(turns.Config{})
	b.ReportAllocs()
	for b.Loop() {
		turn, err := ts.Enter(b.Context(), "a", 0, 1)
		if err != nil {
			b.Fatal(err)
		}
		if err := turn.Begin(b.Context()); err != nil {
			b.Fatal(err)
		}
		turn.End()
		turn.Leave()
	}
}

// Scripts that wait for those that they sent hold their memory meanwhile. However
// many there are, and however long others wait, one of each level goes on; and a level
// that somebody only claims gets no more than that out of its turn.
func TestLevels(t *testing.T) {
	const script = 10
	ts := turns.New(turns.Config{Memory: 6 * script, Script: script, Levels: 2, Waiting: 4, Share: 4})
	enter := func(level int) (*turns.Turn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return ts.Enter(ctx, "a", level, script)
	}
	var held []*turns.Turn
	for range 4 { // two of six are kept back
		turn, err := enter(0)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, turn)
	}
	if _, err := enter(0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one too many of level 0: %v", err)
	}
	first, err := enter(1)
	if err != nil {
		t.Fatalf("one of level 1: %v", err)
	}
	if _, err := enter(1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one of level 1, which somebody may only claim to be: %v", err)
	}
	second, err := enter(2)
	if err != nil {
		t.Fatalf("one of level 2: %v", err)
	}
	if _, err := enter(3); !errors.Is(err, turns.ErrTooDeep) {
		t.Errorf("one of level 3: %v", err)
	}
	// One that waits takes what is kept back when that is free, and one of level 0 does
	// not.
	type result struct {
		turn *turns.Turn
		err  error
	}
	root, deep := make(chan result, 1), make(chan result, 1)
	wait := func(level int, c chan result) {
		turn, err := ts.Enter(t.Context(), "b", level, script)
		c <- result{turn, err}
	}
	go wait(0, root)
	go wait(1, deep)
	second.Leave()
	select {
	case <-root:
		t.Error("level 0 got what was kept back for level 2")
	case <-deep:
		t.Error("level 1 got what was kept back for level 2")
	case <-time.After(20 * time.Millisecond):
	}
	first.Leave()
	d := <-deep
	if d.err != nil {
		t.Fatal(d.err)
	}
	held[0].Leave()
	r := <-root
	if r.err != nil {
		t.Fatal(r.err)
	}
	d.turn.Leave()
	r.turn.Leave()
	for _, turn := range held[1:] {
		turn.Leave()
	}
	for range 4 { // nothing was lost
		if _, err := enter(0); err != nil {
			t.Error(err)
		}
	}
	for level := 1; level <= 2; level++ {
		if _, err := enter(level); err != nil {
			t.Error(err)
		}
	}

	// Memory for one alone, or one and a half, has no levels.
	for _, memory := range []uint64{script, script + script/2} {
		ts = turns.New(turns.Config{Memory: memory, Script: script, Levels: 2})
		if _, err := enter(1); !errors.Is(err, turns.ErrTooDeep) {
			t.Errorf("%d bytes, level 1: %v", memory, err)
		}
		if _, err := enter(0); err != nil {
			t.Errorf("%d bytes, level 0: %v", memory, err)
		}
	}
}
