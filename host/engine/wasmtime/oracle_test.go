//go:build wasmtime

package wasmtime_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/engine/enginetest/guests"
	"github.com/circles-host/circles/host/engine/wasmtime"
	"github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/imports/log"
	"github.com/circles-host/circles/host/imports/modules"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/testdata/build"
)

// An oracle runs the same on two engines that share no compiler, and has them
// compared: result, log, how it ended, with what words, what it used, and the
// files that it left.
type oracle struct{ engines [2]*engine.Engine }

var engineNames = [2]string{"wazero", "wasmtime"}

func newOracle(t testing.TB) *oracle {
	t.Helper()
	o := new(oracle)
	for i, m := range []engine.Machine{nil, wasmtime.New()} {
		e, err := engine.New(t.Context(), engine.Config{MaxCompileTime: 10 * time.Minute, Machine: m},
			sameAnswers(wasi.Module()), contexts.Module(), log.Module(), modules.Module())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		o.engines[i] = e
	}
	return o
}

// pair is a module as both have compiled it.
type pair [2]*engine.Program

// compile has both compile a module, or refuse it: nil.
func (o *oracle) compile(t testing.TB, wasm []byte) *pair {
	t.Helper()
	var p pair
	var errs [2]error
	var wg sync.WaitGroup
	for i, e := range o.engines {
		wg.Go(func() { p[i], errs[i] = e.Compile(context.Background(), wasm) })
	}
	wg.Wait()
	for i := range p {
		if p[i] != nil {
			t.Cleanup(p[i].Close)
		} else if !errors.Is(errs[i], engine.ErrInvalid) {
			t.Fatalf("%s: %v", engineNames[i], errs[i])
		}
	}
	var trap *engine.Trap
	if p[0] != nil && p[1] == nil && errors.As(errs[1], &trap) && trap.Reason == engine.TrapTable {
		return nil // see the package documentation
	}
	if (p[0] == nil) != (p[1] == nil) {
		t.Errorf("one compiles what the other refuses:\nwazero   %v\nwasmtime %v\nmodule: %x", errs[0], errs[1], cut(string(wasm)))
		return nil
	}
	if p[0] == nil {
		return nil
	}
	if a, b := p[0].Info(), p[1].Info(); a.Image != b.Image || a.Plain != b.Plain {
		t.Errorf("images differ: %d bytes (%s), %d bytes (%s)", a.Image, a.Plain, b.Image, b.Plain)
	}
	return &p
}

// same runs a call on both, and returns what there is to say of it.
func (o *oracle) same(t testing.TB, p *pair, c engine.Call) string {
	t.Helper()
	a, b := observe(t, o.engines[0], p[0], c), observe(t, o.engines[1], p[1], c)
	if a != b {
		i := 0
		for i < min(len(a), len(b)) && a[i] == b[i] {
			i++
		}
		i = max(i-300, 0)
		t.Errorf("%s %q, limits %+v:\nwazero   … %s\nwasmtime … %s", c.Entry, cut(string(c.Params)), c.Limits, cut(a[min(i, len(a)):]), cut(b[min(i, len(b)):]))
	}
	return a
}

func cut(s string) string { return s[:min(len(s), 700)] }

// observe runs a call over files of its own.
func observe(t testing.TB, e *engine.Engine, p *engine.Program, c engine.Call) string {
	t.Helper()
	s := mem.New(mem.Config{Now: func() time.Time { return epoch }})
	defer s.Close()
	if err := s.Update(context.Background(), furnish); err != nil {
		t.Fatal(err)
	}
	var seen string
	// The transaction is given up: what it left is looked at from inside.
	_ = s.Update(context.Background(), func(tx store.Tx) error {
		fs := tx.Files(nil)
		ctx, files := wasi.Mount(t.Context(), fs, wasi.Config{})
		all := records.In(tx.Private(), records.Config{})
		c := c
		c.State = &peers{
			caller: contexts.Local("did:key:z6MkAlice", "alice", fs, all.As(everything{}), nil),
			target: contexts.Local("did:key:z6MkBob", "bob", fs, all.As(everything{}), nil),
		}
		out, err := e.Run(ctx, p, c)
		if err := errors.Join(files.Close(), all.Flush(ctx)); err != nil {
			t.Error(err)
		}
		seen = describe(t, out, err) + listing(fs, "/") + listing(tx.Private(), "/")
		return errors.New("undone")
	})
	return seen
}

// describe says how a run ended. Not of a trap's stack trace: that is as each
// compiler has it.
func describe(t testing.TB, out engine.Output, err error) string {
	t.Helper()
	out.Usage.Wall = 0
	var f *engine.Failure
	if !errors.As(err, &f) {
		if err != nil {
			t.Errorf("the host's fault: %v", err)
		}
		return fmt.Sprintf("result %q, log %q, usage %+v", out.Result, out.Log, out.Usage)
	}
	text := string(f.Log)
	if i := strings.LastIndex(text, "trapped: "); i >= 0 && (f.Kind == engine.Trapped || f.Kind == engine.MemoryHit) {
		text = text[:i]
		out.Usage.Log = 0
	}
	return fmt.Sprintf("%v, code %d, %s, log %q, usage %+v", f.Kind, f.ExitCode, f.Detail, text, out.Usage)
}

// epoch is when everything happens.
var epoch = time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)

func furnish(tx store.Tx) error {
	fs := tx.Files(nil)
	if err := errors.Join(fs.Mkdir("/dir"), fs.Symlink("card.txt", "/link")); err != nil {
		return err
	}
	for name, text := range map[string]string{"/card.txt": "Alice Liddell, Oxford\n", "/dir/b": "beta", "/words.txt": strings.Repeat("the quick brown fox\n", 50)} {
		f, err := fs.Open(name, store.FlagWrite|store.FlagCreate)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt([]byte(text), 0); err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// listing is all that there is below a directory, in one line.
func listing(fs store.FS, dir string) string {
	d, err := fs.Open(dir, store.FlagRead|store.FlagDirectory)
	if err != nil {
		return fmt.Sprintf("\n%s: %v", dir, err)
	}
	defer d.Close()
	entries, err := d.ReadDir(0, 1000)
	if err != nil {
		return fmt.Sprintf("\n%s: %v", dir, err)
	}
	var b strings.Builder
	for _, x := range entries {
		at := path.Join(dir, x.Name)
		switch x.Kind {
		case store.KindDir:
			b.WriteString("\n" + at + "/" + listing(fs, at))
		case store.KindLink:
			to, err := fs.Readlink(at)
			fmt.Fprintf(&b, "\n%s -> %s %v", at, to, err)
		default:
			f, err := fs.Open(at, store.FlagRead)
			if err != nil {
				fmt.Fprintf(&b, "\n%s: %v", at, err)
				continue
			}
			info, _ := f.Stat()
			text, err := io.ReadAll(io.NewSectionReader(f, 0, min(info.Size, 4096)))
			fmt.Fprintf(&b, "\n%s %d bytes %q %v", at, info.Size, text, err)
			f.Close()
		}
	}
	return b.String()
}

// everything is allowed.
type everything struct{}

func (everything) Allow(records.Op, string, string) error { return nil }

// peers is a call's state.
type peers struct {
	caller, target contexts.Context
	ticks          uint64
}

func (p *peers) Caller() contexts.Context { return p.caller }
func (p *peers) Target() contexts.Context { return p.target }
func (p *peers) Clock() bool              { return true }
func (p *peers) Modules() modules.Modules { return alone{} }

// alone is a module without others.
type alone struct{}

func (alone) Entry() string { return "run" }

func (alone) Call(context.Context, string, string, []byte) ([]byte, error) {
	return nil, &contexts.Error{Code: contexts.NotFound, Message: "there are no others"}
}

func (alone) Base(context.Context, string, []byte) ([]byte, error) {
	return nil, &contexts.Error{Code: contexts.NotFound, Message: "there is none below"}
}

// sameAnswers is WASI with a clock that goes on by a millisecond whenever it is
// asked, and random bytes that are not. Else no two runs of a Go program would be
// the same on one engine.
func sameAnswers(m engine.HostModule) engine.HostModule {
	export := m.Export
	m.Export = func(b wazero.HostModuleBuilder) { export(answers{b}) }
	return m
}

type answers struct{ wazero.HostModuleBuilder }

func (a answers) NewFunctionBuilder() wazero.HostFunctionBuilder {
	return &answer{HostFunctionBuilder: a.HostModuleBuilder.NewFunctionBuilder()}
}

type answer struct {
	wazero.HostFunctionBuilder
	name string
}

func (a *answer) WithGoModuleFunction(f api.GoModuleFunction, params, results []api.ValueType) wazero.HostFunctionBuilder {
	a.HostFunctionBuilder = a.HostFunctionBuilder.WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
		switch a.name {
		case "random_get":
			at, n := uint32(stack[0]), uint32(stack[1])
			if b, ok := mod.Memory().Read(at, n); ok {
				for i := range b {
					b[i] = byte(i*7 + 3)
				}
				stack[0] = 0
				return
			}
		case "clock_time_get":
			now := uint64(epoch.UnixNano())
			if p, ok := engine.CallState(ctx).(*peers); ok {
				p.ticks++
				now += p.ticks * uint64(time.Millisecond)
			}
			if mod.Memory().WriteUint64Le(uint32(stack[2]), now) {
				stack[0] = 0
				return
			}
		}
		f.Call(ctx, mod, stack)
	}), params, results)
	return a
}

func (a *answer) WithName(name string) wazero.HostFunctionBuilder {
	a.HostFunctionBuilder = a.HostFunctionBuilder.WithName(name)
	return a
}

func (a *answer) WithParameterNames(names ...string) wazero.HostFunctionBuilder {
	a.HostFunctionBuilder = a.HostFunctionBuilder.WithParameterNames(names...)
	return a
}

func (a *answer) WithResultNames(names ...string) wazero.HostFunctionBuilder {
	a.HostFunctionBuilder = a.HostFunctionBuilder.WithResultNames(names...)
	return a
}

func (a *answer) Export(name string) wazero.HostModuleBuilder {
	a.name = name
	a.HostFunctionBuilder.Export(name)
	return nil
}

// TestOracle runs every guest of this repository on both engines, on inputs of its
// own and on others that were made from these.
func TestOracle(t *testing.T) {
	o := newOracle(t)
	root := build.Root(t)
	modules := map[string]func(t testing.TB) []byte{}
	count := func(pattern string, add func(file string)) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("nothing matches %s (%v)", pattern, err)
		}
		for _, file := range files {
			add(file)
		}
	}
	for _, pattern := range []string{"modules/*/*.wasm", "guest-sdk/sdktest/testdata/*.wasm"} {
		count(pattern, func(file string) {
			modules[strings.TrimSuffix(filepath.Base(file), ".wasm")+" in C"] = func(t testing.TB) []byte {
				wasm, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				return wasm
			}
		})
	}
	for _, pattern := range []string{"modules/*/main.go", "testdata/guests/*/main.go", "host/engine/testdata/*/main.go"} {
		count(pattern, func(file string) {
			dir, err := filepath.Rel(root, filepath.Dir(file))
			source, readErr := os.ReadFile(file)
			if err != nil || readErr != nil {
				t.Fatal(err, readErr)
			}
			if dir == "modules/addmanifest" {
				return // a tool of ours
			}
			name := filepath.Base(dir)
			if raceDetector && name != "files" {
				return
			}
			reactor := strings.Contains(string(source), "//go:wasmexport")
			modules[name+" in Go"] = func(t testing.TB) []byte { return build.Go(t, dir, reactor) }
		})
	}
	for name, wasm := range modules {
		t.Run(name, func(t *testing.T) {
			p := o.compile(t, wasm(t))
			if p == nil {
				t.Fatal("both refuse it")
			}
			random := rand.New(rand.NewPCG(1, uint64(len(name))))
			entries := p[0].Entries()
			if p[0].Shape() == engine.Command {
				entries = []string{""}
			}
			ends := make(map[string]int)
			for _, entry := range entries {
				wall, texts := time.Minute, inputs(random, 12)
				if name == "sleep in Go" || name == "senses in Go" {
					wall, texts = time.Second, texts[:1] // these wait, and take no notice of any
				}
				for _, in := range texts {
					// Enough for what ends, and for what does not an end that is the same.
					c := engine.Call{Entry: entry, Params: []byte(in), Limits: engine.Limits{Fuel: 30_000_000, Wall: wall, HostCalls: 2000}}
					end, _, _ := strings.Cut(o.same(t, p, c), " ")
					ends[end]++
				}
			}
			t.Log(ends)
		})
	}
}

// inputs are texts that some guest understands, and n that were made from them.
func inputs(random *rand.Rand, n int) []string {
	known := []string{
		"", "7", "recurse", "stderr", "file", "files", "/card.txt", "/nowhere", "card.txt",
		"write /x some text\nread /x\nlist /\nstat /link\nrename /x /dir/y\nread /dir/y\nsymlink ../card.txt /dir/l\nreadlink /dir/l\nremove /words.txt\nmkdir /d",
		`{"message": "Lovely!"}`, `{"path": "/words.txt"}`, `{"file": "/words.txt", "top": 3}`,
		`{"slot": "2026-12-01T10:00", "minutes": 30, "what": "tea"}`, `{"day": "2026-12-01"}`,
		`{"dir": "/dir", "field": "diet"}`, strings.Repeat("[", 200), strings.Repeat("grüße ", 3000),
	}
	out := known
	for range n {
		b := []byte(known[random.IntN(len(known))])
		for range 1 + random.IntN(4) {
			at := random.IntN(len(b) + 1)
			switch random.IntN(4) {
			case 0:
				b = append(b[:at:at], append([]byte{byte(random.IntN(256))}, b[at:]...)...)
			case 1:
				b = b[:at]
			case 2:
				b = append(b, b[at:]...)
			default:
				if at < len(b) {
					b[at] ^= 1 << random.IntN(8)
				}
			}
		}
		out = append(out, string(b[:min(len(b), 1<<20)]))
	}
	return out
}

// TestOracleTraps brings guests to every end that there is, on both.
func TestOracleTraps(t *testing.T) {
	o := newOracle(t)
	var divide, overflow, convert, signature abitest.Module
	for m, code := range map[*abitest.Module]abitest.Code{
		&divide:    {0x41, 1, 0x41, 0, 0x6d, 0x1a},                               // 1 / 0
		&overflow:  {0x41, 0x80, 0x80, 0x80, 0x80, 0x78, 0x41, 0x7f, 0x6d, 0x1a}, // -2^31 / -1
		&convert:   {0x43, 0, 0, 0xc0, 0x7f, 0xa8, 0x1a},                         // i32.trunc_f32_s of NaN
		&signature: {0x43, 0, 0, 0, 0x4f, 0xa8, 0x1a},                            // of 2^31
	} {
		m.Memory(1)
		m.Func("_start", "", "", code)
	}
	for name, tc := range map[string]struct {
		wasm []byte
		says string
	}{
		"unreachable":        {guests.Command(abitest.Unreachable), "unreachable"},
		"memory":             {guests.Command(abitest.I32(-4), abitest.Load, abitest.Drop), "out of bounds memory access"},
		"memory, at its end": {guests.Command(abitest.I32(65533), abitest.Load, abitest.Drop), "out of bounds memory access"},
		"copy":               {guests.Command(abitest.I32(0), abitest.I32(65000), abitest.I32(1000), abitest.Code{0xfc, 10, 0, 0}), "out of bounds memory access"},
		"null entry":         {guests.CalledIndirectly(2), "invalid table access"},
		"no entry":           {guests.CalledIndirectly(200), "invalid table access"},
		"entry that traps":   {guests.CalledIndirectly(1), "unreachable"},
		"division":           {divide.Bytes(), "integer divide by zero"},
		"overflow":           {overflow.Bytes(), "integer overflow"},
		"conversion of NaN":  {convert.Bytes(), "invalid conversion to integer"},
		"conversion":         {signature.Bytes(), "integer overflow"},
		"start":              {guests.Started(abitest.Unreachable), "unreachable"},
		"ABI":                {guests.Reactor(abitest.I32(-4), abitest.Return), "leaves the memory"},
		"no stack":           {guests.Reactor(abitest.I32(0), abitest.I32(0), abitest.Call(1), abitest.Drop), "stack limit"},
		"no fuel":            {guests.Fibonacci(40), "fuel limit"},
		"no memory":          {guests.Reactor(abitest.I32(2000), abitest.MemoryGrow, abitest.I32(-1), abitest.Eq, abitest.If, abitest.Unreachable, abitest.End), "memory limit"},
		"nothing":            {guests.Fibonacci(15), "result"},
		"state":              {guests.Stateful(), "result"},
	} {
		t.Run(name, func(t *testing.T) {
			p := o.compile(t, tc.wasm)
			if p == nil {
				t.Fatal("both refuse it")
			}
			for _, l := range []engine.Limits{{Fuel: 1_000_000}, {Fuel: 1_000_000, Memory: 6 << 16}, {Fuel: 100}, {Fuel: 1 << 30}, {Fuel: 1_000_000, Output: 1}} {
				if got := o.same(t, p, engine.Call{Params: []byte("params"), Limits: l}); l == (engine.Limits{Fuel: 1_000_000}) && !strings.Contains(got, tc.says) {
					t.Errorf("%s; want %q", got, tc.says)
				}
			}
		})
	}
}

// TestOracleMutants changes bytes of modules, and runs what both still take for
// one. What one takes and the other does not is a difference too.
func TestOracleMutants(t *testing.T) {
	o := newOracle(t)
	kernels, err := os.ReadFile(filepath.Join(build.Root(t), "host/engine/rewrite/testdata/kernels.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	sources := [][]byte{guests.Fibonacci(12), guests.Stateful(), guests.CalledIndirectly(1), guests.Reactor(abitest.I32(3), abitest.MemoryGrow, abitest.Drop), kernels}
	random := rand.New(rand.NewPCG(7, 7))
	n, ran := 1500, 0
	if raceDetector {
		n = 200
	}
	for i := range n {
		wasm := append([]byte{}, sources[random.IntN(len(sources))]...)
		for range 1 + random.IntN(3) {
			wasm[8+random.IntN(len(wasm)-8)] = byte(random.IntN(256))
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			p := o.compile(t, wasm)
			if p == nil {
				return
			}
			ran++
			o.same(t, p, engine.Call{Entry: first(p), Params: []byte("params"), Limits: engine.Limits{Fuel: 200_000, Memory: 8 << 20, Wall: time.Minute}})
			if t.Failed() {
				t.Logf("module: %x", wasm)
			}
		})
	}
	if ran < n/20 {
		t.Errorf("of %d mutants %d ran", n, ran)
	}
}

func first(p *pair) string {
	if e := p[0].Entries(); len(e) > 0 {
		return e[0]
	}
	return ""
}

// TestOracleRandomPrograms runs programs that were written at random, of integer
// and float arithmetic, memory, control and calls.
func TestOracleRandomPrograms(t *testing.T) {
	o := newOracle(t)
	n := 400
	if raceDetector {
		n = 60
	}
	ends := make(map[string]int)
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			wasm := randomProgram(rand.New(rand.NewPCG(uint64(seed), 11)))
			p := o.compile(t, wasm)
			if p == nil {
				_, err := o.engines[0].Compile(t.Context(), wasm)
				t.Fatal("no program: ", err)
			}
			for _, in := range []string{"", "\x00\x00\x00\x00", "\x01\xff\x80\x7f\x00\x10"} {
				got := o.same(t, p, engine.Call{Params: []byte(in), Limits: engine.Limits{Fuel: 100_000, Memory: 4 << 20, Wall: time.Minute}})
				end, _, _ := strings.Cut(got, " ")
				ends[end]++
			}
			if t.Failed() {
				t.Logf("module: %x", wasm)
			}
		})
	}
	t.Log(ends)
	if ends["result"] < n/4 || len(ends) < 3 {
		t.Errorf("of the programs too many end the same way: %v", ends)
	}
}

// writer writes a random program: a reactor of a few functions (i32, i64, f64) -> i64
// that call each other. It returns the first 256 bytes of its memory.
type writer struct {
	r      *rand.Rand
	b      []byte
	budget int
	funcs  int
	depth  int // of blocks
}

const (
	i32 = byte(0x7f)
	i64 = byte(0x7e)
	f64 = byte(0x7c)
)

// locals of each function: parameters, then two more of each type.
var localTypes = []byte{i32, i64, f64, i32, i32, i64, i64, f64, f64}

func randomProgram(r *rand.Rand) []byte {
	section, u := guests.Section, func(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }
	vec := func(b []byte) []byte { return append(u(len(b)), b...) }
	funcs := 2 + r.IntN(3)
	var code []byte
	code = append(code, u(funcs+2)...)
	// cabi_realloc: always 4096.
	code = append(code, vec([]byte{0, 0x41, 0x80, 0x20, 0x0b})...)
	// run: store what function 2 makes of the parameters at 8, result at 16: ok, 0, 256.
	run := []byte{0, 0x41, 8, 0x20, 1, 0x20, 1, 0xad, 0x20, 1, 0xb7, 0x10, 2, 0x37, 3, 0,
		0x41, 16, 0x41, 0, 0x36, 2, 0, 0x41, 20, 0x41, 24, 0x36, 2, 0, 0x41, 24, 0x41, 0x80, 2, 0x36, 2, 0, 0x41, 16, 0x0b}
	code = append(code, vec(run)...)
	for range funcs {
		w := &writer{r: r, budget: 20 + r.IntN(120), funcs: funcs}
		w.b = []byte{3, 2, i32, 2, i64, 2, f64}
		for range 2 + r.IntN(6) {
			w.statement()
		}
		w.value(i64)
		w.b = append(w.b, 0x0b)
		code = append(code, vec(w.b)...)
	}
	types := []byte{3, 0x60, 4, i32, i32, i32, i32, 1, i32, 0x60, 2, i32, i32, 1, i32, 0x60, 3, i32, i64, f64, 1, i64}
	declared := append(u(funcs+2), 0, 1)
	elements := append([]byte{1, 0, 0x41, 0, 0x0b}, u(funcs)...)
	for i := range funcs {
		declared = append(declared, 2)
		elements = append(elements, byte(i+2))
	}
	export := append([]byte{3}, vec([]byte("memory"))...)
	export = append(append(export, 2, 0), vec([]byte("cabi_realloc"))...)
	export = append(append(export, 0, 0), vec([]byte("run"))...)
	export = append(export, 0, 1)
	globals := []byte{2, i64, 1, 0x42, 5, 0x0b, i32, 1, 0x41, 9, 0x0b}
	return guests.Module(section(1, types...), section(3, declared...), section(4, 1, 0x70, 0, byte(funcs)), section(5, 1, 1, 1, 20),
		section(6, globals...), section(7, export...), section(9, elements...), section(10, code...))
}

func (w *writer) put(b ...byte) { w.b = append(w.b, b...) }

func (w *writer) local(typ byte) byte {
	for {
		if i := w.r.IntN(len(localTypes)); localTypes[i] == typ {
			return byte(i)
		}
	}
}

// address pushes an address, mostly one inside of the memory.
func (w *writer) address() {
	w.value(i32)
	if w.r.IntN(20) > 0 {
		w.put(0x41, 0xff, 0x1f, 0x71) // i32.and 4095
	}
}

// value pushes a value of a type. The bits of a float are never seen: which NaN
// arithmetic makes is open.
func (w *writer) value(typ byte) {
	w.budget--
	if w.budget < 0 || w.r.IntN(4) == 0 {
		switch {
		case w.r.IntN(2) == 0:
			w.put(0x20, w.local(typ))
		case typ == i32:
			w.b = sleb(append(w.b, 0x41), int64(int32(w.constant())))
		case typ == i64:
			w.b = sleb(append(w.b, 0x42), int64(w.constant()))
		default:
			w.put(0x44)
			w.b = binary.LittleEndian.AppendUint64(w.b, []uint64{0, 1 << 63, 0x3ff0000000000000, 0xc01e000000000000, 0x7ff0000000000000, 0x41e0000000000000, 0x43e0000000000000, 1}[w.r.IntN(8)])
		}
		return
	}
	pick := func(ops ...byte) byte { return ops[w.r.IntN(len(ops))] }
	switch typ {
	case i32:
		switch w.r.IntN(12) {
		case 0, 1, 2: // add … rotr, division among them
			w.value(i32)
			w.value(i32)
			w.put(0x6a + byte(w.r.IntN(15)))
		case 3:
			w.value(i32)
			w.value(i32)
			w.put(0x46 + byte(w.r.IntN(10)))
		case 4:
			w.value(i64)
			w.value(i64)
			w.put(0x51 + byte(w.r.IntN(10)))
		case 5:
			w.value(f64)
			w.value(f64)
			w.put(0x61 + byte(w.r.IntN(6)))
		case 6:
			w.value(i32)
			w.put(pick(0x45, 0x67, 0x68, 0x69, 0xc0, 0xc1)) // eqz, clz, ctz, popcnt, extend8_s, extend16_s
		case 7:
			w.value(i64)
			w.put(0xa7)
		case 8:
			w.value(f64)
			w.put(0xfc, pick(2, 3)) // trunc_sat
		case 9:
			w.address()
			w.put(pick(0x28, 0x2c, 0x2d, 0x2e, 0x2f), 0, byte(w.r.IntN(128)))
		case 10:
			w.put(0x23, 1)
		default:
			w.selected(i32)
		}
	case i64:
		switch w.r.IntN(11) {
		case 0, 1, 2:
			w.value(i64)
			w.value(i64)
			w.put(0x7c + byte(w.r.IntN(15)))
		case 3:
			w.value(i64)
			w.put(pick(0x79, 0x7a, 0x7b, 0xc2, 0xc3, 0xc4))
		case 4:
			w.value(i32)
			w.put(pick(0xac, 0xad))
		case 5:
			w.value(f64)
			w.put(0xfc, pick(6, 7))
		case 6:
			w.address()
			w.put(pick(0x29, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35), 0, byte(w.r.IntN(128)))
		case 7:
			w.put(0x23, 0)
		case 8:
			w.arguments()
			w.put(0x10, byte(2+w.r.IntN(w.funcs)))
		case 9:
			w.arguments()
			w.value(i32)
			w.put(0x41, 7, 0x71, 0x11, 2, 0)
		default:
			w.selected(i64)
		}
	default:
		switch w.r.IntN(7) {
		case 0, 1:
			w.value(f64)
			w.value(f64)
			w.put(0xa0 + byte(w.r.IntN(6)))
		case 2:
			w.value(f64)
			w.put(0x9b + byte(w.r.IntN(5))) // ceil, floor, trunc, nearest, sqrt
		case 3:
			w.value(i32)
			w.put(pick(0xb7, 0xb8))
		case 4:
			w.value(i64)
			w.put(pick(0xb9, 0xba))
		case 5:
			w.value(f64)
			w.put(0xb6, 0xbb) // to f32 and back
		default:
			w.selected(f64)
		}
	}
}

func (w *writer) constant() uint64 {
	switch w.r.IntN(3) {
	case 0:
		return uint64(w.r.IntN(70)) - 3
	case 1:
		return 1<<w.r.IntN(64) - uint64(w.r.IntN(2))
	}
	return w.r.Uint64()
}

func (w *writer) arguments() {
	w.value(i32)
	w.value(i64)
	w.value(f64)
}

// selected is a value by select, or by if.
func (w *writer) selected(typ byte) {
	if w.r.IntN(2) == 0 {
		w.value(typ)
		w.value(typ)
		w.value(i32)
		w.put(0x1b)
		return
	}
	w.value(i32)
	w.put(0x04, typ)
	w.depth++
	w.value(typ)
	w.put(0x05)
	w.value(typ)
	w.depth--
	w.put(0x0b)
}

func (w *writer) statement() {
	w.budget--
	if w.budget < 0 {
		return
	}
	types := []byte{i32, i64, f64}
	switch w.r.IntN(10) {
	case 0, 1, 2:
		typ := types[w.r.IntN(3)]
		w.value(typ)
		w.put(0x21, w.local(typ))
	case 3:
		w.address()
		w.value(i32)
		w.put([]byte{0x36, 0x3a, 0x3b}[w.r.IntN(3)], 0, byte(w.r.IntN(128)))
	case 4:
		w.address()
		w.value(i64)
		w.put([]byte{0x37, 0x3c, 0x3d, 0x3e}[w.r.IntN(4)], 0, byte(w.r.IntN(128)))
	case 5:
		w.value(i64)
		w.put(0x24, 0)
	case 6: // a loop of some turns
		n := w.local(i32)
		w.b = sleb(append(w.b, 0x41), int64(1+w.r.IntN(20)))
		w.put(0x21, n, 0x03, 0x40)
		w.depth++
		w.statement()
		w.put(0x20, n, 0x41, 1, 0x6b, 0x22, n, 0x41, 0, 0x4a, 0x0d, 0) // while (--n > 0)
		w.depth--
		w.put(0x0b)
	case 7: // a switch
		w.put(0x02, 0x40, 0x02, 0x40, 0x02, 0x40)
		w.value(i32)
		w.put(0x0e, 2, 0, 1, 2, 0x0b)
		w.statement()
		w.put(0x0b)
		w.statement()
		w.put(0x0b)
	case 8:
		w.address()
		w.value(i32)
		w.value(i32)
		w.put(0x41, 0xff, 1, 0x71, 0xfc, 11, 0) // memory.fill of at most 255 bytes
	default:
		w.value(i32)
		w.put(0x41, 1, 0x71, 0x40, 0, 0x24, 1) // memory.grow by a page or none
	}
}

func sleb(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		if v >>= 7; v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
