package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/host/engine"
	w "github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/engine/enginetest/guests"
)

func (s *suite) command(t *testing.T) {
	e, p := s.program(t, "command")
	out := ran(t, e, p, engine.Call{Params: []byte("hello")})
	if string(out.Result) != "HELLO" || string(out.Log) != "read 5 bytes" {
		t.Errorf("result %q, log %q", out.Result, out.Log)
	}
	if u := out.Usage; u.Output != 5 || u.Log != 12 || u.HostCalls == 0 || u.Memory < 1<<20 || u.Wall <= 0 {
		t.Errorf("usage %+v", u)
	}
	out = ran(t, e, p, engine.Call{Args: []string{"env"}, Name: "guest", Env: map[string]string{"GREETING": " hi"}})
	if string(out.Result) != "guest env hi" {
		t.Errorf("arguments and environment: %q", out.Result)
	}
	out = ran(t, e, p, engine.Call{Args: []string{"date"}})
	if year := fmt.Sprint(time.Now().Year()); string(out.Result) != year {
		t.Errorf("the guest's clock shows %s", out.Result)
	}
}

func (s *suite) reactor(t *testing.T) {
	e, p := s.program(t, "reactor")
	for range 3 { // a fresh instance each: the guest's own counter stays at 1
		out := ran(t, e, p, engine.Call{Params: []byte("grüße")})
		if string(out.Result) != "call 1: grüße" {
			t.Fatalf("result %q", out.Result)
		}
	}
	if f := failed(t, e, p, engine.Call{Entry: "say-no", Params: []byte("why")}, engine.Returned); f.Detail != "no: why" {
		t.Errorf("returned error %q", f.Detail)
	}
	if out := ran(t, e, p, engine.Call{Entry: "print-it"}); string(out.Log) != "printed\n" || len(out.Result) != 0 {
		t.Errorf("a reactor's stdout: result %q, log %q", out.Result, out.Log)
	}
	if out := ran(t, e, p, engine.Call{Entry: "collect"}); string(out.Result) != "kept" {
		t.Errorf("result %q", out.Result)
	}
	f := failed(t, e, p, engine.Call{Entry: "absent"}, engine.NoEntry)
	if !strings.Contains(f.Detail, "say-no") {
		t.Errorf("NoEntry does not list the entries: %s", f.Detail)
	}
	failed(t, e, p, engine.Call{Entry: "cabi_realloc"}, engine.NoEntry)
}

// Fuel is the same for the same input, whatever else happens; and its limit ends
// a guest at that very point.
func (s *suite) fuel(t *testing.T) {
	e := s.shared(t)
	p := compile(t, e, guests.Fibonacci(20))
	want := ran(t, e, p, engine.Call{}).Usage.Fuel
	if want < 100_000 {
		t.Fatalf("fib(20) burned %d", want)
	}
	for range 5 {
		if got := ran(t, e, p, engine.Call{}).Usage.Fuel; got != want {
			t.Errorf("burned %d, then %d", want, got)
		}
	}
	ran(t, e, p, engine.Call{Limits: engine.Limits{Fuel: want}})
	failed(t, e, p, engine.Call{Limits: engine.Limits{Fuel: want - 1}}, engine.FuelHit)
	f := failed(t, e, p, engine.Call{Limits: engine.Limits{Fuel: want / 2}}, engine.FuelHit)
	if f.Usage.Fuel < want/2 || f.Usage.Fuel > want/2+1000 {
		t.Errorf("limit %d, burned %d", want/2, f.Usage.Fuel)
	}
	if again := failed(t, e, p, engine.Call{Limits: engine.Limits{Fuel: want / 2}}, engine.FuelHit); again.Usage.Fuel != f.Usage.Fuel {
		t.Errorf("ended at %d, then at %d", f.Usage.Fuel, again.Usage.Fuel)
	}
	// A trap, an exit and a deadline have burned something too.
	_, cmd := s.program(t, "command")
	if f := failed(t, e, cmd, engine.Call{Args: []string{"exit"}}, engine.Exited); f.Usage.Fuel == 0 {
		t.Error("an exit burned no fuel")
	}
}

// Every way to fail has its own kind, and limits are on without being asked for.
func (s *suite) kinds(t *testing.T) {
	e, cmd := s.program(t, "command")
	_, rea := s.program(t, "reactor")
	for _, tc := range []struct {
		name string
		p    *engine.Program
		call engine.Call
		want engine.Kind
		text string
	}{
		{"exit", cmd, engine.Call{Args: []string{"exit"}}, engine.Exited, "code 7"},
		{"Go panic in a command", cmd, engine.Call{Args: []string{"panic"}}, engine.Exited, "code 2"},
		{"Go panic in a reactor", rea, engine.Call{Entry: "blow-up"}, engine.Trapped, "unreachable"},
		{"stdout over its limit", cmd, engine.Call{Args: []string{"flood"}, Limits: engine.Limits{Output: 10_000}}, engine.OutputHit, "10000"},
		{"result over its limit", rea, engine.Call{Entry: "give-much", Limits: engine.Limits{Output: 1000}}, engine.OutputHit, "1048576"},
		{"memory", cmd, engine.Call{Args: []string{"hoard"}, Limits: engine.Limits{Memory: 32 << 20}}, engine.MemoryHit, "33554432"},
		{"memory, default", cmd, engine.Call{Args: []string{"hoard"}}, engine.MemoryHit, "67108864"},
		{"memory at the start", cmd, engine.Call{Limits: engine.Limits{Memory: 1 << 16}}, engine.MemoryHit, "begins with"},
		{"host calls", cmd, engine.Call{Args: []string{"clock"}, Limits: engine.Limits{HostCalls: 1000}}, engine.HostCallsHit, "1000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := failed(t, e, tc.p, tc.call, tc.want)
			if !strings.Contains(f.Detail, tc.text) {
				t.Errorf("detail %q does not say %q", f.Detail, tc.text)
			}
			if f.Usage.Wall <= 0 {
				t.Errorf("usage %+v", f.Usage)
			}
		})
	}
	t.Run("log", func(t *testing.T) {
		out := ran(t, e, cmd, engine.Call{Args: []string{"chatter"}, Limits: engine.Limits{Log: 100}})
		if len(out.Log) != 100 || out.Usage.Log != 44_000 {
			t.Errorf("log of %d bytes, %d used", len(out.Log), out.Usage.Log)
		}
	})
	t.Run("exit code of its own choice", func(t *testing.T) {
		f := failed(t, e, cmd, engine.Call{Args: []string{"exit-as-if-cancelled"}}, engine.Exited)
		if f.ExitCode != 0xffffffff {
			t.Errorf("exit code %#x", f.ExitCode)
		}
	})
}

func (s *suite) traps(t *testing.T) {
	e := s.shared(t)
	for _, tc := range []struct {
		name string
		wasm []byte
		text string
	}{
		{"unreachable", guests.Reactor(w.Unreachable), "unreachable"},
		{"out of bounds", guests.Reactor(w.I32(-4), w.Load, w.Drop), "out of bounds memory access"},
		{"ABI violation", guests.Reactor(w.I32(-4), w.Return), "leaves the memory"},
		{"command", guests.Command(w.Unreachable), "unreachable"},
		{"call of nothing in the table", guests.CalledIndirectly(2), "invalid table access"},
		{"call outside of the table", guests.CalledIndirectly(200), "invalid table access"},
		{"call of what is unreachable", guests.CalledIndirectly(1), "unreachable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := failed(t, e, compile(t, e, tc.wasm), engine.Call{Limits: engine.Limits{Wall: time.Minute}}, engine.Trapped)
			if !strings.Contains(f.Detail, tc.text) || strings.Contains(f.Detail, "\n") {
				t.Errorf("detail %q; want %q", f.Detail, tc.text)
			}
		})
	}
}

// A recursion ends at its own limit, the same for every engine, and long before
// what an engine would give it; what is no recursion does not come near it.
func (s *suite) stackLimit(t *testing.T) {
	e := s.common
	countdown := func(n int32, ways ...w.Code) []byte { // calls itself n deep by function 0
		var m w.Module
		m.Memory(1)
		m.Func("down", "i", "i", append([]w.Code{w.Get(0), w.Eqz, w.If, w.I32(0), w.Return, w.End, w.Get(0), w.I32(1), w.Sub}, ways...)...)
		m.Func("_start", "", "", w.I32(n), w.Call(0), w.Drop)
		return m.Bytes()
	}
	mutual := func() []byte {
		var m w.Module
		m.Memory(1)
		m.Func("ping", "i", "i", w.Get(0), w.Call(1), w.I32(1), w.Add)
		m.Func("pong", "i", "i", w.Get(0), w.Call(0), w.I32(1), w.Add)
		m.Func("_start", "", "", w.I32(1), w.Call(0), w.Drop)
		return m.Bytes()
	}()
	// A million calls, one after the other, of a function that leaves by return, by a
	// tail call, or in its midst.
	var many w.Module
	many.Memory(1)
	leaf := many.Func("leaf", "i", "i", w.Get(0))
	many.Func("leaves", "i", "i",
		w.Get(0), w.Call(leaf), w.I32(1), w.And, w.If, w.I32(7), w.Return, w.End,
		w.Get(0), w.I32(2), w.And, w.If, w.Get(0), w.Code{0x12, byte(leaf)}, w.End,
		w.Get(0), w.Get(0), w.I32(4), w.And, w.BrIf(0), w.Drop, w.I32(9))
	many.Func("_start", "", "", w.I32(1_000_000), w.Set(0),
		w.Loop, w.Get(0), w.Call(1), w.Drop, w.Get(0), w.I32(1), w.Sub, w.Set(0), w.Get(0), w.BrIf(0), w.End)
	for name, tc := range map[string]struct {
		wasm []byte
		ends bool
	}{
		"recursion without end": {countdown(-1, w.Call(0)), true},
		"to and fro":            {mutual, true},
		"35,000 deep":           {countdown(35_000, w.Call(0)), false},
		"a million tail calls":  {countdown(1_000_000, w.Code{0x12, 0}), false},
		"a million calls":       {many.Bytes(), false},
	} {
		t.Run(name, func(t *testing.T) {
			p := compile(t, e, tc.wasm)
			if !tc.ends {
				ran(t, e, p, engine.Call{})
				return
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f := failed(t, e, p, engine.Call{Limits: engine.Limits{Wall: time.Minute}}, engine.StackHit)
			runtime.ReadMemStats(&after)
			if !strings.Contains(f.Detail, "8 MiB of stack") {
				t.Errorf("detail %q", f.Detail)
			}
			// All that wazero's stack took while it grew, by doubling.
			if took := after.TotalAlloc - before.TotalAlloc; took > 48<<20 {
				t.Errorf("it took %d bytes", took)
			}
			if again := failed(t, e, p, engine.Call{}, engine.StackHit); again.Usage.Fuel != f.Usage.Fuel {
				t.Errorf("ended after %d units of fuel, then after %d", f.Usage.Fuel, again.Usage.Fuel)
			}
		})
	}
}

// Whatever a guest does, it ends near its deadline. (Margins are tenfold: the
// machine may be busy.)
func (s *suite) deadline(t *testing.T) {
	const wall, slack = 200 * time.Millisecond, 8 * time.Second
	block := engine.HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context) { <-ctx.Done() }).Export("block")
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context) { time.Sleep(time.Millisecond) }).Export("nap")
	}}
	e := s.engine(t, engine.Config{}, block)
	var blocks, naps w.Module
	f := blocks.Import("test", "block", "", "")
	blocks.Memory(1)
	blocks.Func("_start", "", "", w.Call(f))
	f = naps.Import("test", "nap", "", "")
	naps.Memory(1)
	naps.Func("_start", "", "", w.Loop, w.Call(f), w.Br(0), w.End)

	shared, cmd := s.program(t, "command")
	for _, tc := range []struct {
		name string
		e    *engine.Engine
		p    *engine.Program
		call engine.Call
	}{
		// fib(100): recursion without a loop, which wazero's own interruption misses.
		{"recursion", e, compile(t, e, guests.Fibonacci(100)), engine.Call{}},
		{"recursion in realloc", e, compile(t, e, guests.ReallocRecurses()), engine.Call{Params: []byte("x")}},
		{"mutual tail calls", e, compile(t, e, guests.Command([]byte{0x12, 0})), engine.Call{}},
		{"bulk memory", e, compile(t, e, func() []byte { // fills 64 MB, again and again
			var m w.Module
			m.Memory(1000)
			m.Func("_start", "", "", w.Loop, w.I32(0), w.I32(7), w.I32(1000<<16), w.Code{0xfc, 11, 0}, w.Br(0), w.End)
			return m.Bytes()
		}()), engine.Call{}},
		{"tight loop", e, compile(t, e, guests.Command(w.Loop, w.Br(0), w.End)), engine.Call{}},
		{"loop in a Go guest", shared, cmd, engine.Call{Args: []string{"spin"}}},
		{"sleep", shared, cmd, engine.Call{Args: []string{"sleep"}}},
		{"host call that waits", e, compile(t, e, blocks.Bytes()), engine.Call{}},
		{"loop of short host calls", e, compile(t, e, naps.Bytes()), engine.Call{}},
		{"loop in start", e, compile(t, e, guests.Started(w.Loop, w.Br(0), w.End)), engine.Call{}},
		{"stdin nobody writes to", shared, cmd, engine.Call{Stdio: &engine.Stdio{Stdin: neverReader{}}}},
		{"stdout nobody reads", shared, cmd, engine.Call{Args: []string{"flood"}, Stdio: &engine.Stdio{Stdout: neverWriter{}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			call := tc.call
			call.Limits.Wall = wall
			start := time.Now()
			f := failed(t, tc.e, tc.p, call, engine.DeadlineHit)
			if took := time.Since(start); took > wall+slack {
				t.Errorf("ended after %v", took)
			}
			if !strings.Contains(f.Detail, "time limit of 200ms") {
				t.Errorf("detail %q", f.Detail)
			}
		})
		t.Run(tc.name+", request's deadline", func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), wall)
			defer cancel()
			call := tc.call
			call.Limits.Wall = time.Minute
			_, err := tc.e.Run(ctx, tc.p, call)
			var f *engine.Failure
			if !errors.As(err, &f) || f.Kind != engine.DeadlineHit || !strings.Contains(f.Detail, "deadline of its request") {
				t.Errorf("Run = %v", err)
			}
		})
		t.Run(tc.name+", cancelled", func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(wall/2, cancel)
			call := tc.call
			call.Limits.Wall = time.Minute
			_, err := tc.e.Run(ctx, tc.p, call)
			var f *engine.Failure
			if !errors.As(err, &f) || f.Kind != engine.Cancelled {
				t.Errorf("Run = %v", err)
			}
		})
	}
}

type neverReader struct{}

func (neverReader) Read([]byte) (int, error) { select {} }

type neverWriter struct{}

func (neverWriter) Write([]byte) (int, error) { select {} }

func (s *suite) startSection(t *testing.T) {
	e := s.shared(t)
	ran(t, e, compile(t, e, guests.CalledIndirectly(0)), engine.Call{})
	ran(t, e, compile(t, e, guests.Started()), engine.Call{})
	failed(t, e, compile(t, e, guests.Started(w.Unreachable)), engine.Call{}, engine.Trapped)
}

type unavailable struct{ peer string }

func (u *unavailable) Error() string { return u.peer + " is away" }

// What a host function panics with ends this run and no other: typed errors reach
// the caller, bugs do not reach the guest's owner.
func (s *suite) hostFunctionPanics(t *testing.T) {
	var nilMap map[string]int
	e := s.engine(t, engine.Config{}, engine.HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		for name, f := range map[string]func(){
			"typed":   func() { panic(fmt.Errorf("read: %w", &unavailable{"alice"})) },
			"nil map": func() { nilMap["x"] = 1 },
			"text":    func() { panic("a bug") },
		} {
			b.NewFunctionBuilder().WithFunc(func(context.Context) { f() }).Export(name)
		}
		// Panics that pass through guest code on their way.
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module) {
			if _, err := m.ExportedFunction("inner").Call(ctx); err != nil {
				panic(err)
			}
		}).Export("nest")
	}})
	program := func(name string, nested bool) *engine.Program {
		var m w.Module
		f, nest := m.Import("test", name, "", ""), m.Import("test", "nest", "", "")
		m.Memory(1)
		m.Func("inner", "", "", w.Call(f))
		if nested {
			f = nest
		}
		m.Func("_start", "", "", w.Call(f))
		return compile(t, e, m.Bytes())
	}
	for _, nested := range []bool{false, true} {
		f := failed(t, e, program("typed", nested), engine.Call{}, engine.Trapped)
		var u *unavailable
		if !errors.As(f, &u) || u.peer != "alice" || !strings.Contains(f.Detail, "read: alice is away") {
			t.Errorf("nested %v: failure %q with cause %v", nested, f.Detail, f.Cause)
		}
		for _, name := range []string{"nil map", "text"} {
			_, err := e.Run(t.Context(), program(name, nested), engine.Call{})
			var f *engine.Failure
			var bug *engine.PanicError
			if errors.As(err, &f) || !errors.As(err, &bug) || bug.Func != "test."+name || !bytes.Contains(bug.Stack, []byte("hostFunctionPanics")) {
				t.Errorf("%s, nested %v: Run = %v", name, nested, err)
			}
		}
	}
}

// A guest that calls the host from inside of a host call, and so on, would
// overflow the Go stack, which ends the process.
func (s *suite) hostCallsNestedTooDeep(t *testing.T) {
	e := s.engine(t, engine.Config{}, engine.HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module) {
			if _, err := m.ExportedFunction("again").Call(ctx); err != nil {
				panic(err)
			}
		}).Export("nest")
	}})
	var m w.Module
	f := m.Import("test", "nest", "", "")
	m.Memory(1)
	m.Func("again", "", "", w.Call(f))
	m.Func("_start", "", "", w.Call(f))
	if f := failed(t, e, compile(t, e, m.Bytes()), engine.Call{}, engine.Trapped); f.Usage.HostCalls > 10 {
		t.Errorf("%d host calls deep: %s", f.Usage.HostCalls, f.Detail)
	}
}

// A host function that swallows the end of a run does not give the guest more.
func (s *suite) stoppedGuestStaysStopped(t *testing.T) {
	e := s.engine(t, engine.Config{}, engine.HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(context.Context) {}).Export("count")
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module) {
			m.ExportedFunction("inner").Call(ctx)
		}).Export("swallow")
	}})
	var m w.Module
	count, swallow := m.Import("test", "count", "", ""), m.Import("test", "swallow", "", "")
	m.Memory(1)
	m.Func("inner", "", "", w.Loop, w.Call(count), w.Br(0), w.End)
	m.Func("_start", "", "", w.Loop, w.Call(swallow), w.Br(0), w.End)
	failed(t, e, compile(t, e, m.Bytes()), engine.Call{Limits: engine.Limits{HostCalls: 100}}, engine.HostCallsHit)
}

func (s *suite) callStateAndLog(t *testing.T) {
	e := s.engine(t, engine.Config{}, engine.HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context) {
			fmt.Fprintf(engine.Log(ctx), "state is %v\n", engine.CallState(ctx))
		}).Export("tell")
	}})
	var m w.Module
	f := m.Import("test", "tell", "", "")
	m.Memory(1)
	m.Func("_start", "", "", w.Call(f))
	p := compile(t, e, m.Bytes())
	if out := ran(t, e, p, engine.Call{State: 42}); string(out.Log) != "state is 42\n" {
		t.Errorf("log %q", out.Log)
	}
	var stderr bytes.Buffer
	out := ran(t, e, p, engine.Call{State: 43, Stdio: &engine.Stdio{Stderr: &stderr}})
	if stderr.String() != "state is 43\n" || len(out.Log) != 0 {
		t.Errorf("stderr %q, log %q", &stderr, out.Log)
	}
	if engine.CallState(t.Context()) != nil || engine.Log(t.Context()) != io.Discard {
		t.Error("outside of a run there is a state")
	}
}

func (s *suite) stdio(t *testing.T) {
	e, p := s.program(t, "command")
	var stdout, stderr bytes.Buffer
	in := strings.Repeat("x", 200_000)
	out := ran(t, e, p, engine.Call{Stdio: &engine.Stdio{Stdin: iotestOneByte{strings.NewReader(in)}, Stdout: &stdout, Stderr: &stderr}})
	if stdout.String() != strings.ToUpper(in) || stderr.String() != "read 200000 bytes" || len(out.Result) != 0 {
		t.Errorf("stdout %d bytes, stderr %q, result %d bytes", stdout.Len(), &stderr, len(out.Result))
	}
	failed(t, e, p, engine.Call{Args: []string{"flood"}, Stdio: &engine.Stdio{Stdout: io.Discard}, Limits: engine.Limits{Output: 1 << 20}}, engine.OutputHit)
}

// iotestOneByte reads in odd pieces.
type iotestOneByte struct{ r io.Reader }

func (r iotestOneByte) Read(b []byte) (int, error) { return r.r.Read(b[:min(len(b), 1000)]) }

func (s *suite) callRefusesWhatWASICannotExpress(t *testing.T) {
	e, p := s.program(t, "command")
	for _, c := range []engine.Call{
		{Name: "a\x00b"}, {Args: []string{"a\x00b"}}, {Env: map[string]string{"": "x"}},
		{Env: map[string]string{"a=b": "x"}}, {Env: map[string]string{"a": "x\x00"}},
	} {
		_, err := e.Run(t.Context(), p, c)
		var f *engine.Failure
		if err == nil || errors.As(err, &f) {
			t.Errorf("Run(%+v) = %v", c, err)
		}
	}
}

// Nothing of a run is left for the next: neither the guest's memory nor the
// host's goroutines and heap.
func (s *suite) runsLeaveNothing(t *testing.T) {
	e := s.shared(t)
	// The guest returns what it finds at 4096, and leaves a mark there.
	p := compile(t, e, guests.Reactor(
		w.I32(20), w.I32(4096), w.Store, w.I32(24), w.I32(4), w.Store,
		w.I32(8192), w.I32(4096), w.Load, w.Store, w.I32(20), w.I32(8192), w.Store,
		w.I32(4096), w.I32(0x5ec2e7), w.Store,
		w.I32(1), w.MemoryGrow, w.Drop))
	run := func() {
		out, err := e.Run(context.Background(), p, engine.Call{Params: []byte("x")})
		if err != nil || !bytes.Equal(out.Result, make([]byte, 4)) {
			t.Errorf("result %x, %v", out.Result, err)
		}
	}
	run()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 100 {
				run()
			}
		})
	}
	wg.Wait()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("1,000 runs left %d bytes", grown)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines+2; {
		if time.Now().After(deadline) {
			t.Fatalf("1,000 runs left %d goroutines", runtime.NumGoroutine()-goroutines)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Go guests of one program run side by side, some of them failing.
func (s *suite) concurrentRuns(t *testing.T) {
	e, cmd := s.program(t, "command")
	_, rea := s.program(t, "reactor")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				text := fmt.Sprintf("run %d.%d", i, j)
				out, err := e.Run(context.Background(), cmd, engine.Call{Params: []byte(text)})
				if err != nil || string(out.Result) != strings.ToUpper(text) {
					t.Errorf("command: %q, %v", out.Result, err)
				}
				out, err = e.Run(context.Background(), rea, engine.Call{Params: []byte(text)})
				if err != nil || string(out.Result) != "call 1: "+text {
					t.Errorf("reactor: %q, %v", out.Result, err)
				}
				_, err = e.Run(context.Background(), rea, engine.Call{Entry: "say-no", Params: []byte(text)})
				var f *engine.Failure
				if !errors.As(err, &f) || f.Detail != "no: "+text {
					t.Errorf("reactor: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
