package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	w "github.com/circles-host/circles/host/engine/abi/abitest"
)

func TestCommand(t *testing.T) {
	e, p := sharedProgram(t, "command", commandWasm)
	out := ran(t, e, p, Call{Params: []byte("hello")})
	if string(out.Result) != "HELLO" || string(out.Log) != "read 5 bytes" {
		t.Errorf("result %q, log %q", out.Result, out.Log)
	}
	if u := out.Usage; u.Output != 5 || u.Log != 12 || u.HostCalls == 0 || u.Memory < 1<<20 || u.Wall <= 0 {
		t.Errorf("usage %+v", u)
	}
	out = ran(t, e, p, Call{Args: []string{"env"}, Name: "guest", Env: map[string]string{"GREETING": " hi"}})
	if string(out.Result) != "guest env hi" {
		t.Errorf("arguments and environment: %q", out.Result)
	}
	out = ran(t, e, p, Call{Args: []string{"date"}})
	if year := fmt.Sprint(time.Now().Year()); string(out.Result) != year {
		t.Errorf("the guest's clock shows %s", out.Result)
	}
}

func TestReactor(t *testing.T) {
	e, p := sharedProgram(t, "reactor", reactorWasm)
	for range 3 { // a fresh instance each: the guest's own counter stays at 1
		out := ran(t, e, p, Call{Params: []byte("grüße")})
		if string(out.Result) != "call 1: grüße" {
			t.Fatalf("result %q", out.Result)
		}
	}
	if f := failed(t, e, p, Call{Entry: "say-no", Params: []byte("why")}, Returned); f.Detail != "no: why" {
		t.Errorf("returned error %q", f.Detail)
	}
	if out := ran(t, e, p, Call{Entry: "print-it"}); string(out.Log) != "printed\n" || len(out.Result) != 0 {
		t.Errorf("a reactor's stdout: result %q, log %q", out.Result, out.Log)
	}
	if out := ran(t, e, p, Call{Entry: "collect"}); string(out.Result) != "kept" {
		t.Errorf("result %q", out.Result)
	}
	f := failed(t, e, p, Call{Entry: "absent"}, NoEntry)
	if !strings.Contains(f.Detail, "say-no") {
		t.Errorf("NoEntry does not list the entries: %s", f.Detail)
	}
	failed(t, e, p, Call{Entry: "cabi_realloc"}, NoEntry)
}

// Fuel is the same for the same input, whatever else happens; and its limit ends
// a guest at that very point.
func TestFuel(t *testing.T) {
	e := sharedEngine(t)
	p := compile(t, e, fibonacci(20))
	want := ran(t, e, p, Call{}).Usage.Fuel
	if want < 100_000 {
		t.Fatalf("fib(20) burned %d", want)
	}
	for range 5 {
		if got := ran(t, e, p, Call{}).Usage.Fuel; got != want {
			t.Errorf("burned %d, then %d", want, got)
		}
	}
	ran(t, e, p, Call{Limits: Limits{Fuel: want}})
	failed(t, e, p, Call{Limits: Limits{Fuel: want - 1}}, FuelHit)
	f := failed(t, e, p, Call{Limits: Limits{Fuel: want / 2}}, FuelHit)
	if f.Usage.Fuel < want/2 || f.Usage.Fuel > want/2+1000 {
		t.Errorf("limit %d, burned %d", want/2, f.Usage.Fuel)
	}
	if again := failed(t, e, p, Call{Limits: Limits{Fuel: want / 2}}, FuelHit); again.Usage.Fuel != f.Usage.Fuel {
		t.Errorf("ended at %d, then at %d", f.Usage.Fuel, again.Usage.Fuel)
	}
	// A trap, an exit and a deadline have burned something too.
	_, cmd := sharedProgram(t, "command", commandWasm)
	if f := failed(t, e, cmd, Call{Args: []string{"exit"}}, Exited); f.Usage.Fuel == 0 {
		t.Error("an exit burned no fuel")
	}
}

// Every way to fail has its own kind, and limits are on without being asked for.
func TestKinds(t *testing.T) {
	e, cmd := sharedProgram(t, "command", commandWasm)
	_, rea := sharedProgram(t, "reactor", reactorWasm)
	for _, tc := range []struct {
		name string
		p    *Program
		call Call
		want Kind
		text string
	}{
		{"exit", cmd, Call{Args: []string{"exit"}}, Exited, "code 7"},
		{"Go panic in a command", cmd, Call{Args: []string{"panic"}}, Exited, "code 2"},
		{"Go panic in a reactor", rea, Call{Entry: "blow-up"}, Trapped, "unreachable"},
		{"stdout over its limit", cmd, Call{Args: []string{"flood"}, Limits: Limits{Output: 10_000}}, OutputHit, "10000"},
		{"result over its limit", rea, Call{Entry: "give-much", Limits: Limits{Output: 1000}}, OutputHit, "1048576"},
		{"memory", cmd, Call{Args: []string{"hoard"}, Limits: Limits{Memory: 32 << 20}}, MemoryHit, "33554432"},
		{"memory, default", cmd, Call{Args: []string{"hoard"}}, MemoryHit, "67108864"},
		{"memory at the start", cmd, Call{Limits: Limits{Memory: 1 << 16}}, MemoryHit, "begins with"},
		{"host calls", cmd, Call{Args: []string{"clock"}, Limits: Limits{HostCalls: 1000}}, HostCallsHit, "1000"},
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
		out := ran(t, e, cmd, Call{Args: []string{"chatter"}, Limits: Limits{Log: 100}})
		if len(out.Log) != 100 || out.Usage.Log != 44_000 {
			t.Errorf("log of %d bytes, %d used", len(out.Log), out.Usage.Log)
		}
	})
	t.Run("exit code of its own choice", func(t *testing.T) {
		f := failed(t, e, cmd, Call{Args: []string{"exit-as-if-cancelled"}}, Exited)
		if f.ExitCode != 0xffffffff {
			t.Errorf("exit code %#x", f.ExitCode)
		}
	})
}

func TestTraps(t *testing.T) {
	e := sharedEngine(t)
	for _, tc := range []struct {
		name string
		wasm []byte
		text string
	}{
		{"unreachable", guest(w.Unreachable), "unreachable"},
		{"out of bounds", guest(w.I32(-4), w.Load, w.Drop), "out of bounds memory access"},
		{"infinite recursion", guest(w.I32(0), w.I32(0), w.Call(1), w.Drop), "stack overflow"},
		{"ABI violation", guest(w.I32(-4), w.Return), "leaves the memory"},
		{"command", command(w.Unreachable), "unreachable"},
		{"call of nothing in the table", calledIndirectly(2), "invalid table access"},
		{"call outside of the table", calledIndirectly(200), "invalid table access"},
		{"call of what is unreachable", calledIndirectly(1), "unreachable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := failed(t, e, compile(t, e, tc.wasm), Call{Limits: Limits{Wall: time.Minute}}, Trapped)
			if !strings.Contains(f.Detail, tc.text) || strings.Contains(f.Detail, "\n") {
				t.Errorf("detail %q; want %q", f.Detail, tc.text)
			}
		})
	}
}

// calledIndirectly is a command that calls an entry of its table: 0 does nothing,
// 1 is unreachable, 2 is null.
func calledIndirectly(entry byte) []byte {
	return module(section(sectionType, 1, 0x60, 0, 0), section(sectionFunction, 3, 0, 0, 0), section(sectionTable, 1, 0x70, 0, 3),
		section(sectionMemory, 1, 0, 1), section(sectionExport, append([]byte{1, 6}, "_start\x00\x00"...)...),
		section(sectionElement, 1, 0, 0x41, 0, 0x0b, 2, 1, 2),
		section(sectionCode, 3, 8, 0, 0x41, entry&0x7f|0x80, entry>>7, 0x11, 0, 0, 0x0b, 2, 0, 0x0b, 3, 0, 0, 0x0b))
}

// Whatever a guest does, it ends near its deadline. (Margins are tenfold: the
// machine may be busy.)
func TestDeadline(t *testing.T) {
	const wall, slack = 200 * time.Millisecond, 8 * time.Second
	block := HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context) { <-ctx.Done() }).Export("block")
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context) { time.Sleep(time.Millisecond) }).Export("nap")
	}}
	e := newEngine(t, Config{}, block)
	var blocks, naps w.Module
	f := blocks.Import("test", "block", "", "")
	blocks.Memory(1)
	blocks.Func("_start", "", "", w.Call(f))
	f = naps.Import("test", "nap", "", "")
	naps.Memory(1)
	naps.Func("_start", "", "", w.Loop, w.Call(f), w.Br(0), w.End)

	shared, cmd := sharedProgram(t, "command", commandWasm)
	for _, tc := range []struct {
		name string
		e    *Engine
		p    *Program
		call Call
	}{
		// fib(100): recursion without a loop, which wazero's own interruption misses.
		{"recursion", e, compile(t, e, fibonacci(100)), Call{}},
		{"recursion in realloc", e, compile(t, e, reallocRecurses()), Call{Params: []byte("x")}},
		{"mutual tail calls", e, compile(t, e, command([]byte{0x12, 0})), Call{}},
		{"bulk memory", e, compile(t, e, func() []byte { // fills 64 MB, again and again
			var m w.Module
			m.Memory(1000)
			m.Func("_start", "", "", w.Loop, w.I32(0), w.I32(7), w.I32(1000<<16), w.Code{0xfc, 11, 0}, w.Br(0), w.End)
			return m.Bytes()
		}()), Call{}},
		{"tight loop", e, compile(t, e, command(w.Loop, w.Br(0), w.End)), Call{}},
		{"loop in a Go guest", shared, cmd, Call{Args: []string{"spin"}}},
		{"sleep", shared, cmd, Call{Args: []string{"sleep"}}},
		{"host call that waits", e, compile(t, e, blocks.Bytes()), Call{}},
		{"loop of short host calls", e, compile(t, e, naps.Bytes()), Call{}},
		{"loop in start", e, compile(t, e, startModule(w.Loop, w.Br(0), w.End)), Call{}},
		{"stdin nobody writes to", shared, cmd, Call{Stdio: &Stdio{Stdin: neverReader{}}}},
		{"stdout nobody reads", shared, cmd, Call{Args: []string{"flood"}, Stdio: &Stdio{Stdout: neverWriter{}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			call := tc.call
			call.Limits.Wall = wall
			start := time.Now()
			f := failed(t, tc.e, tc.p, call, DeadlineHit)
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
			var f *Failure
			if !errors.As(err, &f) || f.Kind != DeadlineHit || !strings.Contains(f.Detail, "deadline of its request") {
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
			var f *Failure
			if !errors.As(err, &f) || f.Kind != Cancelled {
				t.Errorf("Run = %v", err)
			}
		})
	}
}

// fibonacci is a command that computes fib(n) by its definition.
func fibonacci(n int32) []byte {
	var m w.Module
	m.Memory(1)
	m.Func("fib", "i", "i",
		w.Get(0), w.I32(1), w.LeU, w.If, w.Get(0), w.Return, w.End,
		w.Get(0), w.I32(1), w.Sub, w.Call(0), w.Get(0), w.I32(2), w.Sub, w.Call(0), w.Add)
	m.Func("_start", "", "", w.I32(n), w.Call(0), w.Drop)
	return m.Bytes()
}

// reallocRecurses is a reactor that never gets as far as its entry.
func reallocRecurses() []byte {
	var m w.Module
	m.Memory(1)
	m.Func("fib", "i", "i",
		w.Get(0), w.I32(1), w.LeU, w.If, w.Get(0), w.Return, w.End,
		w.Get(0), w.I32(1), w.Sub, w.Call(0), w.Get(0), w.I32(2), w.Sub, w.Call(0), w.Add)
	m.Func("cabi_realloc", "iiii", "i", w.I32(100), w.Call(0))
	m.Func("run", "ii", "i", w.I32(16))
	return m.Bytes()
}

type neverReader struct{}

func (neverReader) Read([]byte) (int, error) { select {} }

type neverWriter struct{}

func (neverWriter) Write([]byte) (int, error) { select {} }

// startModule is a command whose start section runs code.
func startModule(code ...w.Code) []byte {
	var m w.Module
	m.Memory(1)
	m.Func("init", "", "", code...)
	m.Func("_start", "", "")
	wasm := m.Bytes()
	info, err := Inspect(wasm)
	if err != nil {
		panic(err)
	}
	at := info.sections[sectionExport].to
	return append(append(append([]byte{}, wasm[:at]...), section(sectionStart, 0)...), wasm[at:]...)
}

func TestStartSection(t *testing.T) {
	e := sharedEngine(t)
	ran(t, e, compile(t, e, calledIndirectly(0)), Call{})
	ran(t, e, compile(t, e, startModule()), Call{})
	failed(t, e, compile(t, e, startModule(w.Unreachable)), Call{}, Trapped)
}

type unavailable struct{ peer string }

func (u *unavailable) Error() string { return u.peer + " is away" }

// What a host function panics with ends this run and no other: typed errors reach
// the caller, bugs do not reach the guest's owner.
func TestHostFunctionPanics(t *testing.T) {
	var nilMap map[string]int
	e := newEngine(t, Config{}, HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
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
	program := func(name string, nested bool) *Program {
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
		f := failed(t, e, program("typed", nested), Call{}, Trapped)
		var u *unavailable
		if !errors.As(f, &u) || u.peer != "alice" || !strings.Contains(f.Detail, "read: alice is away") {
			t.Errorf("nested %v: failure %q with cause %v", nested, f.Detail, f.Cause)
		}
		for _, name := range []string{"nil map", "text"} {
			_, err := e.Run(t.Context(), program(name, nested), Call{})
			var f *Failure
			var bug *PanicError
			if errors.As(err, &f) || !errors.As(err, &bug) || bug.Func != "test."+name || !bytes.Contains(bug.Stack, []byte("TestHostFunctionPanics")) {
				t.Errorf("%s, nested %v: Run = %v", name, nested, err)
			}
		}
	}
}

// A guest that calls the host from inside of a host call, and so on, would
// overflow the Go stack, which ends the process.
func TestHostCallsNestedTooDeep(t *testing.T) {
	e := newEngine(t, Config{}, HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
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
	if f := failed(t, e, compile(t, e, m.Bytes()), Call{}, Trapped); f.Usage.HostCalls > maxHostDepth+1 {
		t.Errorf("%d host calls deep: %s", f.Usage.HostCalls, f.Detail)
	}
}

// A host function that swallows the end of a run does not give the guest more.
func TestStoppedGuestStaysStopped(t *testing.T) {
	e := newEngine(t, Config{}, HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
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
	failed(t, e, compile(t, e, m.Bytes()), Call{Limits: Limits{HostCalls: 100}}, HostCallsHit)
}

func TestCallStateAndLog(t *testing.T) {
	e := newEngine(t, Config{}, HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context) {
			fmt.Fprintf(Log(ctx), "state is %v\n", CallState(ctx))
		}).Export("tell")
	}})
	var m w.Module
	f := m.Import("test", "tell", "", "")
	m.Memory(1)
	m.Func("_start", "", "", w.Call(f))
	p := compile(t, e, m.Bytes())
	if out := ran(t, e, p, Call{State: 42}); string(out.Log) != "state is 42\n" {
		t.Errorf("log %q", out.Log)
	}
	var stderr bytes.Buffer
	out := ran(t, e, p, Call{State: 43, Stdio: &Stdio{Stderr: &stderr}})
	if stderr.String() != "state is 43\n" || len(out.Log) != 0 {
		t.Errorf("stderr %q, log %q", &stderr, out.Log)
	}
	if CallState(t.Context()) != nil || Log(t.Context()) != io.Discard {
		t.Error("outside of a run there is a state")
	}
}

func TestStdio(t *testing.T) {
	e, p := sharedProgram(t, "command", commandWasm)
	var stdout, stderr bytes.Buffer
	in := strings.Repeat("x", 200_000)
	out := ran(t, e, p, Call{Stdio: &Stdio{Stdin: iotestOneByte{strings.NewReader(in)}, Stdout: &stdout, Stderr: &stderr}})
	if stdout.String() != strings.ToUpper(in) || stderr.String() != "read 200000 bytes" || len(out.Result) != 0 {
		t.Errorf("stdout %d bytes, stderr %q, result %d bytes", stdout.Len(), &stderr, len(out.Result))
	}
	failed(t, e, p, Call{Args: []string{"flood"}, Stdio: &Stdio{Stdout: io.Discard}, Limits: Limits{Output: 1 << 20}}, OutputHit)
}

// iotestOneByte reads in odd pieces.
type iotestOneByte struct{ r io.Reader }

func (r iotestOneByte) Read(b []byte) (int, error) { return r.r.Read(b[:min(len(b), 1000)]) }

func TestCallRefusesWhatWASICannotExpress(t *testing.T) {
	e, p := sharedProgram(t, "command", commandWasm)
	for _, c := range []Call{
		{Name: "a\x00b"}, {Args: []string{"a\x00b"}}, {Env: map[string]string{"": "x"}},
		{Env: map[string]string{"a=b": "x"}}, {Env: map[string]string{"a": "x\x00"}},
	} {
		_, err := e.Run(t.Context(), p, c)
		var f *Failure
		if err == nil || errors.As(err, &f) {
			t.Errorf("Run(%+v) = %v", c, err)
		}
	}
}

// Nothing of a run is left for the next: neither the guest's memory nor the
// host's goroutines and heap.
func TestRunsLeaveNothing(t *testing.T) {
	e := sharedEngine(t)
	// The guest returns what it finds at 4096, and leaves a mark there.
	p := compile(t, e, guest(
		w.I32(20), w.I32(4096), w.Store, w.I32(24), w.I32(4), w.Store,
		w.I32(8192), w.I32(4096), w.Load, w.Store, w.I32(20), w.I32(8192), w.Store,
		w.I32(4096), w.I32(0x5ec2e7), w.Store,
		w.I32(1), w.MemoryGrow, w.Drop))
	run := func() {
		out, err := e.Run(context.Background(), p, Call{Params: []byte("x")})
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
func TestConcurrentRuns(t *testing.T) {
	e, cmd := sharedProgram(t, "command", commandWasm)
	_, rea := sharedProgram(t, "reactor", reactorWasm)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				text := fmt.Sprintf("run %d.%d", i, j)
				out, err := e.Run(context.Background(), cmd, Call{Params: []byte(text)})
				if err != nil || string(out.Result) != strings.ToUpper(text) {
					t.Errorf("command: %q, %v", out.Result, err)
				}
				out, err = e.Run(context.Background(), rea, Call{Params: []byte(text)})
				if err != nil || string(out.Result) != "call 1: "+text {
					t.Errorf("reactor: %q, %v", out.Result, err)
				}
				_, err = e.Run(context.Background(), rea, Call{Entry: "say-no", Params: []byte(text)})
				var f *Failure
				if !errors.As(err, &f) || f.Detail != "no: "+text {
					t.Errorf("reactor: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func TestMain(m *testing.M) {
	code := m.Run()
	if e, err := shared(); err == nil {
		if err := e.Close(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
