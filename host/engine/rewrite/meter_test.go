package rewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// A meterHost is the host's side of metering: it grants slices up to a limit,
// and then ends the guest.
type meterHost struct {
	slice int64
	limit int64 // 0: none

	granted int64
	refills int
}

const outOfFuel = 77 // the exit code that a meterHost ends guests with

// instantiate defines the host function. A nil meterHost stands for that in the
// context of the call.
func (h *meterHost) instantiate(ctx context.Context, t testing.TB, rt wazero.Runtime) {
	t.Helper()
	_, err := rt.NewHostModuleBuilder(DefaultModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, _ api.Module, stack []uint64) {
			h := h
			if h == nil {
				h = ctx.Value(meterKey{}).(*meterHost)
			}
			stack[0] = uint64(h.refill())
		}), nil, []api.ValueType{api.ValueTypeI64}).Export(DefaultFunc).
		NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
		if stack[0] == LimitStack {
			panic(errors.New("stack overflow"))
		}
	}),
		[]api.ValueType{api.ValueTypeI32, api.ValueTypeI64}, nil).Export(LimitFunc).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
}

func (h *meterHost) refill() int64 {
	h.refills++
	n := h.slice
	if h.limit > 0 {
		n = min(n, h.limit-h.granted)
	}
	if n <= 0 {
		panic(sys.NewExitError(outOfFuel))
	}
	h.granted += n
	return n
}

// burned is the fuel that m has used of what was granted.
func (h *meterHost) burned(m api.Module) int64 {
	return h.granted - int64(m.ExportedGlobal(FuelGlobal).Get())
}

func ranOut(err error) bool {
	var exit *sys.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == outOfFuel
}

func guest(t testing.TB, name string) []byte {
	if name == "reactor" || name == "parser" {
		return goGuest(t, name)
	}
	return readFile(t, "testdata/"+name+".wasm")
}

// computing are the guests that compute. wazero takes 10 s to compile a Go guest
// under the race detector, which has nothing to find here.
func computing() []string {
	if raceDetector {
		return []string{"kernels"}
	}
	return []string{"kernels", "reactor"}
}

func metered(t testing.TB, wasm []byte) []byte {
	t.Helper()
	out, err := Meter(wasm, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type meterKey struct{}

// An engine runs modules with WASI, each instance with the meterHost of its
// context. Modules are compiled once.
type engine struct {
	rt       wazero.Runtime
	compiled map[string]wazero.CompiledModule
}

func newEngine(t testing.TB, cfg wazero.RuntimeConfig) *engine {
	ctx := context.Background()
	e := &engine{wazero.NewRuntimeWithConfig(ctx, cfg.WithCoreFeatures(features)), map[string]wazero.CompiledModule{}}
	wasi_snapshot_preview1.MustInstantiate(ctx, e.rt)
	(*meterHost)(nil).instantiate(ctx, t, e.rt)
	return e
}

var sharedEngine *engine

// shared returns the engine that tests share, for compiling a Go guest takes a
// second. Tests that use it must not run in parallel.
func shared(t testing.TB) *engine {
	if sharedEngine == nil {
		sharedEngine = newEngine(t, wazero.NewRuntimeConfig())
	}
	return sharedEngine
}

func (e *engine) compile(t testing.TB, wasm []byte) wazero.CompiledModule {
	t.Helper()
	c := e.compiled[string(wasm)]
	if c == nil {
		var err error
		if c, err = e.rt.CompileModule(context.Background(), wasm); err != nil {
			t.Fatal(err)
		}
		e.compiled[string(wasm)] = c
	}
	return c
}

// start instantiates a module. Its functions are to be called with the context
// that is returned.
func (e *engine) start(t testing.TB, wasm []byte, meter *meterHost) (context.Context, api.Module) {
	t.Helper()
	ctx := context.WithValue(context.Background(), meterKey{}, meter)
	m, err := e.rt.InstantiateModule(ctx, e.compile(t, wasm), wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(ctx) })
	return ctx, m
}

// TestComputeIsUnchanged runs each kernel plain and metered: the same results,
// the same memory.
func TestComputeIsUnchanged(t *testing.T) {
	for _, g := range computing() {
		wasm := guest(t, g)
		_, plain := shared(t).start(t, wasm, nil)
		ctx, with := shared(t).start(t, metered(t, wasm), &meterHost{slice: 1000})
		for _, k := range kernels {
			if k.guest != g {
				continue
			}
			want, err := plain.ExportedFunction(k.name).Call(ctx, k.arg/4)
			if err != nil {
				t.Fatal(err)
			}
			got, err := with.ExportedFunction(k.name).Call(ctx, k.arg/4)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s %s: metered %v, %v; plain %v", g, k.name, got, err, want)
			}
			if g == "kernels" && !bytes.Equal(memoryOf(plain), memoryOf(with)) {
				t.Errorf("%s %s: memories differ", g, k.name)
			}
		}
	}
}

// TestCommandsAreUnchanged runs programs of several toolchains, plain and
// metered: the same output, the same exit code.
func TestCommandsAreUnchanged(t *testing.T) {
	programs := map[string][]byte{}
	if !raceDetector {
		programs["go"] = goGuest(t, "command")
	}
	dir, err := wazeroDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range glob(t, filepath.Join(dir, "imports/wasi_snapshot_preview1/example/testdata/*/cat.wasm")) {
		programs[filepath.Base(filepath.Dir(name))] = readFile(t, name)
	}
	for name, wasm := range programs {
		t.Run(name, func(t *testing.T) {
			run := func(wasm []byte, meter *meterHost) string {
				var out bytes.Buffer
				ctx := context.WithValue(context.Background(), meterKey{}, meter)
				_, err := shared(t).rt.InstantiateModule(ctx, shared(t).compile(t, wasm), wazero.NewModuleConfig().WithName("").
					WithStdin(strings.NewReader("the quick fox and the lazy dog and the rest\n")).
					WithStdout(&out).WithStderr(&out).WithArgs("program", "/dev/null"))
				return fmt.Sprint(out.String(), firstLine(err))
			}
			want := run(wasm, nil)
			meter := &meterHost{slice: 10_000}
			got := run(metered(t, wasm), meter)
			if got != want {
				t.Errorf("metered:\n%s\nplain:\n%s", got, want)
			}
			if meter.refills == 0 {
				t.Error("burned nothing")
			}
			if name == "go" && !strings.Contains(want, "the 3") {
				t.Errorf("the guest did not count: %s", want)
			}
		})
	}
}

// endless are the ways in which the guests run without end.
var endless = []struct {
	guest, name string
	args        []uint64
}{
	{"kernels", "spin", nil},
	{"kernels", "spin_if", nil},
	{"kernels", "spin_table", nil},
	{"kernels", "spin_param", nil},
	{"kernels", "spin_nested", nil},
	{"kernels", "spin_outer", nil},
	{"kernels", "recurse", nil},
	{"kernels", "ping", []uint64{1}},
	{"kernels", "recurse_indirect", nil},
	{"kernels", "tail", nil},
	{"kernels", "tail_indirect", nil},
	{"kernels", "bush", []uint64{60}},
	{"kernels", "fill", nil},
	{"kernels", "grow_nothing", nil},
	{"reactor", "spin", nil},
	{"reactor", "chase", nil},
}

// TestEndlessGuestsEnd holds that no guest outlives its fuel: each way to run
// without end asks for every slice, and ends when it is refused.
func TestEndlessGuestsEnd(t *testing.T) {
	const slice, grants = 10_000, 20
	for _, x := range endless {
		if !slices.Contains(computing(), x.guest) {
			continue
		}
		t.Run(x.guest+"/"+x.name, func(t *testing.T) {
			meter := &meterHost{slice: slice}
			ctx, m := shared(t).start(t, metered(t, guest(t, x.guest)), meter)
			meter.granted, meter.refills, meter.limit = 0, 0, slice*grants
			m.ExportedGlobal(FuelGlobal).(api.MutableGlobal).Set(0)
			_, err := m.ExportedFunction(x.name).Call(ctx, x.args...)
			if !ranOut(err) {
				t.Fatalf("ended otherwise: %v", err)
			}
			if meter.granted != slice*grants || meter.refills > grants+1 {
				t.Errorf("%d granted in %d refills", meter.granted, meter.refills)
			}
			// What is beyond the limit is at most one stretch between two checks.
			if over := meter.burned(m) - slice*grants; over <= 0 || over > 1_000_000 {
				t.Errorf("burned %d beyond the limit", over)
			}
		})
	}
}

// TestFuelIsDeterministic holds that what a run burns does not depend on how its
// fuel is sliced, neither when it ends well nor when it traps or is ended.
func TestFuelIsDeterministic(t *testing.T) {
	type run struct {
		guest, name string
		args        []uint64
		limit       int64
	}
	var runs []run
	for _, k := range kernels {
		runs = append(runs, run{k.guest, k.name, []uint64{k.arg / 20}, 0})
		runs = append(runs, run{k.guest, k.name, []uint64{k.arg}, 33_333})
	}
	for _, x := range endless {
		runs = append(runs, run{x.guest, x.name, x.args, 54_321})
	}
	for _, name := range []string{"trap_divide", "trap_deep", "trap_bounds", "trap_fill", "trap_indirect"} {
		runs = append(runs, run{"kernels", name, nil, 0})
	}
	modules := map[string][]byte{}
	for _, g := range computing() {
		modules[g] = metered(t, guest(t, g))
	}
	for _, r := range runs {
		if modules[r.guest] == nil {
			continue
		}
		t.Run(fmt.Sprint(r.guest, "/", r.name, "/", r.limit), func(t *testing.T) {
			var want string
			for _, slice := range []int64{1 << 40, 1 << 16, 999, 97} {
				meter := &meterHost{slice: 1 << 20}
				ctx, m := shared(t).start(t, modules[r.guest], meter)
				*meter = meterHost{slice: slice, limit: r.limit}
				m.ExportedGlobal(FuelGlobal).(api.MutableGlobal).Set(0)
				res, err := m.ExportedFunction(r.name).Call(ctx, r.args...)
				if strings.HasPrefix(r.name, "trap") && (err == nil || ranOut(err)) {
					t.Fatalf("did not trap: %v", err)
				}
				got := fmt.Sprint(res, firstLine(err), meter.burned(m))
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("slices of %d: %s, of 2^40: %s", slice, got, want)
				}
			}
		})
	}
}

// TestEnginesAgree holds that wazero's interpreter burns what its compiler does.
func TestEnginesAgree(t *testing.T) {
	wasm := metered(t, guest(t, "kernels"))
	engines := []*engine{shared(t), newEngine(t, wazero.NewRuntimeConfigInterpreter())}
	for _, k := range kernels {
		if k.guest != "kernels" {
			continue
		}
		var outcomes []string
		for _, e := range engines {
			meter := &meterHost{slice: 1000}
			ctx, m := e.start(t, wasm, meter)
			res, err := m.ExportedFunction(k.name).Call(ctx, k.arg/100)
			outcomes = append(outcomes, fmt.Sprint(res, err, meter.burned(m)))
		}
		if outcomes[0] != outcomes[1] {
			t.Errorf("%s: compiled %s, interpreted %s", k.name, outcomes[0], outcomes[1])
		}
	}
}

// TestFuelCounts pins what some runs burn, so that a change of the cost table
// does not go unnoticed: fuel in policies and receipts would change its meaning.
func TestFuelCounts(t *testing.T) {
	wasm := metered(t, guest(t, "kernels"))
	for _, x := range []struct {
		name string
		arg  uint64
		want int64
	}{
		// local.get, i32.const, i32.lt_u, if: 4; then local.get: 1. So 5.
		{"fib", 1, 5},
		// 4, then 3 each for the arguments and 4 for the calls of fib(1) and
		// fib(0), which are 5 each, and i32.add: 4 + 2×(3+4+5) + 1.
		{"fib", 2, 29},
		// 2 before the loop, 11 a turn, 1 after it.
		{"lcg", 1, 14},
		{"lcg", 1001, 11_014},
		// What memory.fill clears is a part of it: 16, and 1,000 for 8,000 bytes.
		{"sieve", 8_000, 319_784},
	} {
		meter := &meterHost{slice: 1000}
		ctx, m := shared(t).start(t, wasm, meter)
		if _, err := m.ExportedFunction(x.name).Call(ctx, x.arg); err != nil {
			t.Fatal(err)
		}
		if got := meter.burned(m); got != x.want {
			t.Errorf("%s(%d) burned %d, want %d", x.name, x.arg, got, x.want)
		}
	}
}

// TestHostCallsMayCharge holds that a host function can lower the counter while
// the guest waits for it, and that the guest sees it.
func TestHostCallsMayCharge(t *testing.T) {
	ctx := context.Background()
	// (import "h" "f" (func)) (func (export "run") (loop call 0 br 0))
	wasm := module(
		sec(secType, 1, 0x60, 0, 0),
		sec(secImport, 1, 1, 'h', 1, 'f', kindFunc, 0),
		sec(secFunction, 1, 0),
		sec(secExport, 1, 3, 'r', 'u', 'n', kindFunc, 1),
		sec(secCode, 1, 9, 0, opLoop, typeEmpty, opCall, 0, opBr, 0, opEnd, opEnd),
	)
	meter := &meterHost{slice: 1 << 40, limit: 1 << 40}
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	meter.instantiate(ctx, t, rt)
	calls := 0
	_, err := rt.NewHostModuleBuilder("h").NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, _ []uint64) {
		calls++
		g := m.ExportedGlobal(FuelGlobal).(api.MutableGlobal)
		g.Set(g.Get() - 1<<38)
	}), nil, nil).Export("f").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m, err := rt.Instantiate(ctx, metered(t, wasm))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.ExportedFunction("run").Call(ctx); !ranOut(err) || calls != 4 {
		t.Errorf("after %d calls: %v", calls, err)
	}
}

// TestTracesNameFunctions holds that the name section still fits.
func TestTracesNameFunctions(t *testing.T) {
	meter := &meterHost{slice: 1000, limit: 100_000}
	ctx, m := shared(t).start(t, metered(t, guest(t, "kernels")), meter)
	_, err := m.ExportedFunction("trap_deep").Call(ctx)
	if err == nil || !strings.Contains(err.Error(), ".down(") {
		t.Errorf("trace does not name the function: %v", err)
	}
}
