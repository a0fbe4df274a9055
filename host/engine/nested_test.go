package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/host/engine/abi/abitest"
)

// nesting is an engine whose guests run each other: test.run(n) runs the n-th of its
// programs, nested, and returns 0, or 1 if that failed; the ends of the outermost's
// limits it passes on.
type nesting struct {
	*Engine
	programs []*Program
	quiet    map[int32]bool
	failures []*Failure
	usage    []Usage // in the order in which they ended
}

func newNesting(t testing.TB) *nesting {
	n := &nesting{quiet: map[int32]bool{}}
	n.Engine = newEngine(t, Config{}, HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		i32 := []api.ValueType{api.ValueTypeI32}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, _ api.Module, stack []uint64) {
			which := int32(stack[0])
			out, err := n.Run(ctx, n.programs[which], Call{Nested: true, Quiet: n.quiet[which]})
			n.usage = append(n.usage, out.Usage)
			stack[0] = 0
			var f *Failure
			if errors.As(err, &f) {
				n.failures = append(n.failures, f)
				if f.Kind != Trapped && f.Kind != MemoryHit {
					panic(f)
				}
				stack[0] = 1
			} else if err != nil {
				panic(err)
			}
		}), i32, i32).Export("run")
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, _ api.Module, _ []uint64) {
			_, _ = Log(ctx).Write([]byte("line\n"))
		}), nil, nil).Export("log")
	}})
	return n
}

// program adds a command; what it does is made of run, log and burn.
func (n *nesting) program(t testing.TB, pages uint32, code func(run, log func(int32) abitest.Code) []abitest.Code) int32 {
	var m abitest.Module
	runs, logs := m.Import("test", "run", "i", "i"), m.Import("test", "log", "", "")
	m.MemoryMax(pages, 100)
	m.Func("_start", "", "", code(
		func(which int32) abitest.Code { return join(abitest.I32(which), abitest.Call(runs)) },
		func(int32) abitest.Code { return abitest.Call(logs) })...)
	n.programs = append(n.programs, compile(t, n.Engine, m.Bytes()))
	return int32(len(n.programs) - 1)
}

func join(codes ...abitest.Code) (all abitest.Code) {
	for _, c := range codes {
		all = append(all, c...)
	}
	return all
}

// burn goes round some times.
func burn(times int32) abitest.Code {
	return join(abitest.I32(times), abitest.Set(0),
		abitest.Loop, abitest.Get(0), abitest.I32(1), abitest.Sub, abitest.Set(0), abitest.Get(0), abitest.BrIf(0), abitest.End)
}

func (n *nesting) failed(t *testing.T, which int32, l Limits, kind Kind) *Failure {
	t.Helper()
	_, err := n.Run(t.Context(), n.programs[which], Call{Limits: l})
	var f *Failure
	if !errors.As(err, &f) || f.Kind != kind {
		t.Fatalf("ended with %v, want %v", err, kind)
	}
	return f
}

// TestNestedRunsShareFuel: it is all the same to a limit whether a guest does
// something itself, or calls others that do.
func TestNestedRunsShareFuel(t *testing.T) {
	n := newNesting(t)
	leaf := n.program(t, 1, func(_, _ func(int32) abitest.Code) []abitest.Code { return []abitest.Code{burn(1_000_000)} })
	middle := n.program(t, 1, func(run, _ func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{burn(1000), run(leaf), abitest.Drop, burn(500_000), run(leaf), abitest.Drop, burn(1000)}
	})
	top := n.program(t, 1, func(run, _ func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{run(middle), abitest.Drop, burn(300_000), run(leaf), abitest.Drop, burn(300_000)}
	})
	alone := ran(t, n.Engine, n.programs[leaf], Call{}).Usage.Fuel
	total := ran(t, n.Engine, n.programs[top], Call{}).Usage.Fuel
	if total <= 3*alone || total > 5*alone {
		t.Errorf("it burned %d, and what it ran three times %d", total, alone)
	}
	if u := n.usage; len(u) != 4 || u[0].Fuel != alone || u[1].Fuel != alone || u[2].Fuel <= 2*alone || u[3].Fuel != alone {
		t.Errorf("shares of %d: %+v", alone, u)
	}
	if got := ran(t, n.Engine, n.programs[top], Call{Limits: Limits{Fuel: total}}).Usage.Fuel; got != total {
		t.Errorf("burned %d, and then %d", total, got)
	}
	n.failed(t, top, Limits{Fuel: total - 1}, FuelHit)
	for limit := total / 20; limit < total; limit += total / 10 {
		f, again := n.failed(t, top, Limits{Fuel: limit}, FuelHit), n.failed(t, top, Limits{Fuel: limit}, FuelHit)
		if f.Usage.Fuel != again.Usage.Fuel || f.Usage.Fuel < limit || f.Usage.Fuel > limit+2000 {
			t.Errorf("of a limit of %d it burned %d, and %d", limit, f.Usage.Fuel, again.Usage.Fuel)
		}
	}
}

func TestNestedRunsShareHostCallsTimeAndLog(t *testing.T) {
	n := newNesting(t)
	calls := n.program(t, 1, func(_, log func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{log(0), log(0), log(0)}
	})
	silent := n.program(t, 1, func(_, log func(int32) abitest.Code) []abitest.Code { return []abitest.Code{log(0)} })
	n.quiet[silent] = true
	top := n.program(t, 1, func(run, log func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{log(0), run(calls), abitest.Drop, run(silent), abitest.Drop, log(0)}
	})
	out := ran(t, n.Engine, n.programs[top], Call{})
	if out.Usage.HostCalls != 8 || string(out.Log) != strings.Repeat("line\n", 5) || out.Usage.Log != 30 {
		t.Errorf("%d host calls, %d bytes of log, %q", out.Usage.HostCalls, out.Usage.Log, out.Log)
	}
	if n.usage[0].HostCalls != 3 || n.usage[0].Log != 15 || n.usage[1].HostCalls != 1 || n.usage[1].Log != 5 {
		t.Errorf("shares: %+v", n.usage)
	}
	if out, err := n.Run(t.Context(), n.programs[top], Call{Quiet: true}); err != nil || string(out.Log) != strings.Repeat("line\n", 3) {
		t.Errorf("quiet itself: %q, %v", out.Log, err)
	}
	if f := n.failed(t, top, Limits{HostCalls: 7}, HostCallsHit); !strings.Contains(f.Detail, "7 calls") || f.Usage.HostCalls != 7 {
		t.Errorf("%s, %+v", f.Detail, f.Usage)
	}
	n.failed(t, top, Limits{HostCalls: 3}, HostCallsHit) // within what was called
	if out := ran(t, n.Engine, n.programs[top], Call{Limits: Limits{Log: 17}}); len(out.Log) != 17 || out.Usage.Log != 30 {
		t.Errorf("log is %q", out.Log)
	}

	endless := n.program(t, 1, func(_, _ func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{abitest.Loop, abitest.Br(0), abitest.End}
	})
	waits := n.program(t, 1, func(run, _ func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{run(endless), abitest.Drop, abitest.Loop, abitest.Br(0), abitest.End}
	})
	outer := n.program(t, 1, func(run, _ func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{run(waits), abitest.Drop, abitest.Loop, abitest.Br(0), abitest.End}
	})
	if f := n.failed(t, outer, Limits{Wall: 50 * time.Millisecond}, DeadlineHit); !strings.Contains(f.Detail, "time limit of 50ms") {
		t.Errorf("%s", f.Detail)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	var f *Failure
	if _, err := n.Run(ctx, n.programs[outer], Call{}); !errors.As(err, &f) || f.Kind != Cancelled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestNestedRunsShareMemoryAndStack(t *testing.T) {
	n := newNesting(t)
	const page = 64 << 10
	inner := n.program(t, 10, func(_, _ func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{abitest.I32(3), abitest.MemoryGrow, abitest.I32(0), abitest.LeU, abitest.Eqz, abitest.If, abitest.End}
	})
	grows := func(more int32) abitest.Code { // traps if it cannot
		return join(abitest.I32(more), abitest.MemoryGrow, abitest.I32(-1), abitest.Eq, abitest.If, abitest.Unreachable, abitest.End)
	}
	hungry := n.program(t, 10, func(_, _ func(int32) abitest.Code) []abitest.Code { return []abitest.Code{grows(5)} })
	top := n.program(t, 10, func(run, _ func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{run(inner), abitest.Drop, run(hungry), abitest.Drop, grows(10), run(inner), abitest.Drop}
	})
	out := ran(t, n.Engine, n.programs[top], Call{Limits: Limits{Memory: 40 * page}})
	if out.Usage.Memory != 33*page || len(n.failures) != 0 || n.usage[1].Memory != 15*page {
		t.Errorf("peak of %d pages, %v, %+v", out.Usage.Memory/page, n.failures, n.usage)
	}
	// With 22 pages the first fits into what is left of 12, the second does not grow, and
	// the third not even begin; the outer has what they had.
	out = ran(t, n.Engine, n.programs[top], Call{Limits: Limits{Memory: 22 * page}})
	if len(n.failures) != 2 || n.failures[0].Kind != MemoryHit || n.failures[1].Kind != MemoryHit || out.Usage.Memory > 22*page {
		t.Errorf("peak of %d pages, %v", out.Usage.Memory/page, n.failures)
	}
	n.failures = nil
	n.failed(t, top, Limits{Memory: 19 * page}, MemoryHit) // its own growth

	// A recursion that goes on in the next module is one recursion.
	var m abitest.Module
	runs := m.Import("test", "run", "i", "i")
	m.Memory(1)
	const levels = 20_000 // some 3 MB of stack
	down := m.Func("down", "i", "", abitest.Get(0), abitest.If, abitest.Get(0), abitest.I32(1), abitest.Sub, abitest.Call(1), abitest.Get(0), abitest.Drop, abitest.Return, abitest.End,
		abitest.I32(int32(len(n.programs)+1)), abitest.Call(runs), abitest.Drop)
	if down != 1 {
		t.Fatal(down)
	}
	m.Func("_start", "", "", abitest.I32(levels), abitest.Call(down))
	n.programs = append(n.programs, compile(t, n.Engine, m.Bytes()))
	deep := int32(len(n.programs) - 1)
	n.program(t, 1, func(_, _ func(int32) abitest.Code) []abitest.Code { return nil })
	if _, err := n.Run(t.Context(), n.programs[deep], Call{}); err != nil {
		t.Fatal(err)
	}
	n.programs[deep+1] = n.programs[deep] // it runs itself, that deep
	before := len(n.usage)
	n.failed(t, deep, Limits{}, StackHit)
	if levels := len(n.usage) - before; levels < 1 || levels > 8 {
		t.Errorf("%d of them were under way when the stack was used up", levels)
	}
}

// TestNestedFailures: a run that fails within another does that one no harm; and what
// its host function throws is how the outer ends.
func TestNestedFailures(t *testing.T) {
	n := newNesting(t)
	traps := n.program(t, 1, func(_, _ func(int32) abitest.Code) []abitest.Code { return []abitest.Code{abitest.Unreachable} })
	top := n.program(t, 1, func(run, log func(int32) abitest.Code) []abitest.Code {
		return []abitest.Code{run(traps), abitest.Eqz, abitest.If, abitest.Unreachable, abitest.End, log(0)}
	})
	for range 3 {
		if out := ran(t, n.Engine, n.programs[top], Call{}); !strings.HasSuffix(string(out.Log), "line\n") || !strings.HasPrefix(string(out.Log), "trapped: unreachable\n") {
			t.Errorf("log is %q", out.Log)
		}
	}
	if len(n.failures) != 3 || n.failures[0].Log != nil {
		t.Errorf("%+v", n.failures)
	}
	if _, err := n.Run(t.Context(), n.programs[traps], Call{Nested: true}); err == nil || errors.As(err, new(*Failure)) {
		t.Errorf("nested in nothing: %v", err)
	}
}

// A call by another, beside a call that nobody makes for it.
func BenchmarkNested(b *testing.B) {
	n := newNesting(b)
	leaf := n.program(b, 1, func(_, _ func(int32) abitest.Code) []abitest.Code { return nil })
	const calls = 1000
	var m abitest.Module
	runs := m.Import("test", "run", "i", "i")
	m.Memory(1)
	m.Func("_start", "", "", abitest.I32(calls), abitest.Set(0),
		abitest.Loop, abitest.I32(leaf), abitest.Call(runs), abitest.Drop,
		abitest.Get(0), abitest.I32(1), abitest.Sub, abitest.Set(0), abitest.Get(0), abitest.BrIf(0), abitest.End)
	caller := compile(b, n.Engine, m.Bytes())
	var fresh, nested time.Duration
	for b.Loop() {
		start := time.Now()
		for range calls {
			ran(b, n.Engine, n.programs[leaf], Call{})
		}
		between := time.Now()
		ran(b, n.Engine, caller, Call{})
		fresh, nested = fresh+between.Sub(start), nested+time.Since(between)
	}
	b.ReportMetric(float64(fresh.Nanoseconds())/float64(b.N*calls), "ns/fresh")
	b.ReportMetric(float64(nested.Nanoseconds())/float64(b.N*calls), "ns/nested")
}
