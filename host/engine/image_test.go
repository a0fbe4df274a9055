package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	w "github.com/circles-host/circles/host/engine/abi/abitest"
)

// stateful is a module whose initialising changes data, globals and the size of
// its memory. Its entry "run" returns 12 bytes, the word at 256, a global and the
// pages that it has, then spoils all three.
func stateful() []byte {
	var m w.Module
	m.Memory(2)
	m.Bump(8192)
	m.Data(256, "data")
	m.Data(131000, strings.Repeat("x", 72))
	g := m.Global(7)
	m.Func("_initialize", "", "",
		w.I32(256), w.I32(256), w.Load, w.I32(1), w.Add, w.Store,
		w.I32(40), w.GlobalSet(g), w.I32(3), w.MemoryGrow, w.Drop)
	m.Func("run", "ii", "i",
		w.I32(512), w.I32(256), w.Load, w.Store, w.I32(516), w.GlobalGet(g), w.Store, w.I32(520), w.MemorySize, w.Store,
		w.I32(256), w.I32(-1), w.Store, w.I32(99), w.GlobalSet(g), w.I32(5), w.MemoryGrow, w.Drop,
		w.I32(131000), w.I32(-1), w.Store,
		w.I32(1028), w.I32(512), w.Store, w.I32(1032), w.I32(12), w.Store, w.I32(1024))
	return m.Bytes()
}

// checked is an engine that compares each instance with its image.
var checked = sync.OnceValues(func() (*Engine, error) {
	return New(context.Background(), Config{MaxCompileTime: 10 * time.Minute, CheckImages: true}, wasi())
})

// TestRunsFromImages runs programs by the thousand, at random and side by side:
// calls that go well, that trap, exit, grow, run out of fuel and memory, and
// write all over their memory. Before each run the engine compares memory and
// globals with the image, byte for byte, and each run finds what the first found.
func TestRunsFromImages(t *testing.T) {
	e, err := checked()
	if err != nil {
		t.Fatal(err)
	}
	reactor, err := reactorWasm()
	if err != nil {
		t.Fatal(err)
	}
	command, err := commandWasm()
	if err != nil {
		t.Fatal(err)
	}
	// Fills the memory that it has from the 8th KiB on, and traps if asked to.
	spoiler := guest(
		w.I32(8192), w.I32(0xaa), w.MemorySize, w.I32(16), w.Shl, w.I32(8192), w.Sub, w.Code{0xfc, 11, 0},
		w.Get(1), w.If, w.Unreachable, w.End)
	rea, cmd, small, spoil := compile(t, e, reactor), compile(t, e, command), compile(t, e, stateful()), compile(t, e, spoiler)
	for _, p := range []*Program{rea, cmd, small, spoil} {
		if p.Info().Image == 0 || p.Info().Plain != "" {
			t.Fatalf("a program of %d bytes has no image: %s", p.Size(), p.Info().Plain)
		}
	}
	kinds := []struct {
		p    *Program
		call Call
		want string // the result; or what the error says
		kind Kind
	}{
		{p: rea, call: Call{Entry: "run", Params: []byte("x")}, want: "call 1: x"},
		{p: rea, call: Call{Entry: "remember", Params: []byte("a secret")}, want: "nothing"},
		{p: rea, call: Call{Entry: "work"}, want: "38000"},
		{p: rea, call: Call{Entry: "collect"}, want: "kept"},
		{p: rea, call: Call{Entry: "blow-up"}, kind: Trapped},
		{p: rea, call: Call{Entry: "leave"}, kind: Exited},
		{p: rea, call: Call{Entry: "work", Limits: Limits{Fuel: 500_000}}, kind: FuelHit},
		{p: rea, call: Call{Entry: "give-much", Limits: Limits{Output: 10}}, kind: OutputHit},
		{p: rea, call: Call{Entry: "run", Params: make([]byte, 7<<20), Limits: Limits{Memory: 4 << 20}}, kind: MemoryHit},
		{p: rea, call: Call{Entry: "print-it"}, want: ""},
		{p: cmd, call: Call{Params: []byte("hello")}, want: "HELLO"},
		{p: cmd, call: Call{Args: []string{"exit"}}, kind: Exited},
		{p: small, want: "eata\x28\x00\x00\x00\x05\x00\x00\x00"},
		{p: small, call: Call{Limits: Limits{Memory: 5 << 16}}, want: "eata\x28\x00\x00\x00\x05\x00\x00\x00"},
		{p: spoil, call: Call{}, want: ""},
		{p: spoil, call: Call{Params: []byte("trap")}, kind: Trapped},
	}
	n := 150
	if testing.Short() {
		n = 30
	}
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range n {
				k := kinds[rnd.IntN(len(kinds))]
				out, err := e.Run(t.Context(), k.p, k.call)
				var f *Failure
				switch {
				case k.kind == 0 && (err != nil || string(out.Result) != k.want):
					t.Errorf("%s: %q, %v; want %q", k.call.Entry, out.Result, err, k.want)
				case k.kind != 0 && (!errors.As(err, &f) || f.Kind != k.kind):
					t.Errorf("%s: %v; want %v", k.call.Entry, err, k.kind)
				}
			}
		})
	}
	wg.Wait()
}

// A difference between an instance and its image is found, or the test before
// would hold nothing.
func TestCheckImages(t *testing.T) {
	e, err := checked()
	if err != nil {
		t.Fatal(err)
	}
	p := compile(t, e, stateful())
	r := e.newRun(t.Context(), Limits{}.WithDefaults(), &Call{})
	if r.memory.image, err = p.primed.memory.Open(); err != nil {
		t.Fatal(err)
	}
	defer r.memory.close()
	mod, err := p.instantiate(r, &Call{})
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close(t.Context())
	if err := p.primed.check(mod); err == nil {
		t.Error("an instance whose globals are those of the module passed")
	}
	p.primed.enter(mod)
	if err := p.primed.check(mod); err != nil {
		t.Error(err)
	}
	for _, at := range []uint32{0, 256, 5<<16 - 1} {
		b, _ := mod.Memory().ReadByte(at)
		mod.Memory().WriteByte(at, b+1)
		if err := p.primed.check(mod); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("byte %#x", at)) {
			t.Errorf("byte %d changed: %v", at, err)
		}
		mod.Memory().WriteByte(at, b)
	}
	mod.Memory().Grow(1)
	if err := p.primed.check(mod); err == nil {
		t.Error("a larger memory passed")
	}
	// And by way of Run, which is a bug of the host's, no failure of the guest's.
	p.primed.globals[0].value++
	p.primed.globals[0].changed = false
	var f *Failure
	if _, err := e.Run(t.Context(), p, Call{}); err == nil || errors.As(err, &f) || !strings.Contains(err.Error(), "differs from its image") {
		t.Errorf("Run = %v", err)
	}
}

// Random bytes and the time are each run's own, although the guest was
// initialised once.
func TestRandomnessAndTimeAreOfTheRun(t *testing.T) {
	e, p := sharedProgram(t, "reactor", reactorWasm)
	if p.Info().Image == 0 {
		t.Fatal(p.Info().Plain)
	}
	seen := make(map[string]bool)
	var last int64
	for range 50 {
		random, now, _ := strings.Cut(string(ran(t, e, p, Call{Entry: "unlike"}).Result), " ")
		if seen[random] || random == strings.Repeat("0", 32) {
			t.Fatalf("random bytes %s come again", random)
		}
		seen[random] = true
		at, err := strconv.ParseInt(now, 10, 64)
		if off := time.Since(time.Unix(0, at)); err != nil || at < last || off < -time.Minute || off > time.Minute {
			t.Fatalf("the time is %s, after %d", now, last)
		}
		last = at
	}
}

// What a run uses is the same whether it begins with an image or is initialised.
func TestUsageIsTheSameWithoutImages(t *testing.T) {
	with, without := sharedEngine(t), newEngine(t, Config{Plain: true}, wasi())
	var random w.Module // asks for random bytes, the time and its arguments while it is initialised
	imports := []uint32{
		random.Import("wasi_snapshot_preview1", "random_get", "ii", "i"),
		random.Import("wasi_snapshot_preview1", "args_sizes_get", "ii", "i"),
	}
	random.Memory(1)
	random.Bump(1024)
	random.Func("_initialize", "", "", w.I32(64), w.I32(8), w.Call(imports[0]), w.Drop, w.I32(72), w.I32(76), w.Call(imports[1]), w.Drop)
	random.Func("run", "ii", "i", w.I32(80), w.I32(8), w.Call(imports[0]), w.Drop, w.I32(16))
	var prints w.Module // has no image on either
	write := prints.Import("wasi_snapshot_preview1", "fd_write", "iiii", "i")
	prints.Memory(1)
	prints.Bump(1024)
	prints.Func("_initialize", "", "", w.I32(1), w.I32(64), w.I32(1), w.I32(96), w.Call(write), w.Drop)
	prints.Func("run", "ii", "i", w.I32(16))
	for name, wasm := range map[string][]byte{
		"reactor":                  guest(w.I32(4096), w.I32(1), w.Store),
		"initialised":              stateful(),
		"initialised by the host":  random.Bytes(),
		"initialised in each run":  prints.Bytes(),
		"command":                  fibonacci(15),
		"command with start":       startModule(w.I32(100), w.I32(7), w.Store),
		"trap":                     guest(w.I32(-4), w.Load, w.Drop),
		"start that traps":         startModule(w.Unreachable),
		"stack":                    guest(w.I32(0), w.I32(0), w.Call(1), w.Drop),
		"grows":                    guest(w.I32(20), w.MemoryGrow, w.Drop),
		"grows beyond its maximum": guest(w.I32(70000), w.MemoryGrow, w.Drop),
	} {
		t.Run(name, func(t *testing.T) {
			image, plain := compile(t, with, wasm), compile(t, without, wasm)
			if plain.Info().Image != 0 || plain.Info().Plain == "" {
				t.Errorf("an image of %d bytes where there is to be none", plain.Info().Image)
			}
			if none := name == "initialised in each run" || name == "start that traps"; (image.Info().Image == 0) != none {
				t.Errorf("image of %d bytes, plain because %q", image.Info().Image, image.Info().Plain)
			}
			use := func(e *Engine, p *Program, l Limits) string {
				out, err := e.Run(t.Context(), p, Call{Params: []byte("params"), Limits: l})
				u := out.Usage
				u.Wall = 0
				if name == "stack" {
					u.Fuel = 0 // how deep a stack goes is the engine's affair
				}
				return fmt.Sprintf("%x %+v %v", out.Result, u, err)
			}
			for _, l := range []Limits{{}, {Fuel: 1}, {Fuel: 30}, {Fuel: 3000}, {Memory: 1 << 16}, {Memory: 6 << 16}, {HostCalls: 1}} {
				a, b := use(with, image, l), use(without, plain, l)
				if a != b && !(l.Memory == 1<<16 && name == "initialised") { // one begins with more than that, the other is denied it
					t.Errorf("limits %+v:\nwith an image %s\nwithout       %s", l, a, b)
				}
			}
		})
	}
	// A Go guest's own random seeds move a few instructions; its start would be
	// millions.
	reactor, err := reactorWasm()
	if err != nil {
		t.Fatal(err)
	}
	image, plain := compile(t, with, reactor), compile(t, without, reactor)
	a, b := ran(t, with, image, Call{}).Usage, ran(t, without, plain, Call{}).Usage
	if a.Fuel > b.Fuel*2 || b.Fuel > a.Fuel*2 || a.HostCalls != b.HostCalls {
		t.Errorf("a Go guest uses %+v with an image, %+v without", a, b)
	}
}

// Why modules are initialised in each run: all of these run, or fail, as if there
// were no images.
func TestInitialisedInEachRun(t *testing.T) {
	e := newEngine(t, Config{}, wasi(), HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(nothing).Export("act")
	}})
	reactor := func(imports func(m *w.Module) uint32, init ...w.Code) []byte {
		var m w.Module
		var code []w.Code
		if imports != nil {
			code = append(code, w.Call(imports(&m)))
		}
		m.Memory(1)
		m.Bump(1024)
		m.Func("_initialize", "", "", append(code, init...)...)
		m.Func("run", "ii", "i", w.I32(16))
		return m.Bytes()
	}
	act := func(m *w.Module) uint32 { return m.Import("test", "act", "", "") }
	exit := func(m *w.Module) uint32 { return m.Import("wasi_snapshot_preview1", "proc_exit", "i", "") }
	var args w.Module
	sizes := args.Import("wasi_snapshot_preview1", "args_sizes_get", "ii", "i")
	args.Memory(1)
	args.Func("init", "", "", w.I32(0), w.I32(4), w.Call(sizes), w.Drop)
	args.Func("_start", "", "")
	startArgs := func() []byte {
		b := args.Bytes()
		info, _ := Inspect(b)
		at := info.sections[sectionExport].to
		return append(append(append([]byte{}, b[:at]...), section(sectionStart, 1)...), b[at:]...)
	}()
	var bare w.Module
	bare.Func("_start", "", "")
	for _, tc := range []struct {
		name, says string
		wasm       []byte
		kind       Kind // how runs end
	}{
		{"host call", "calls test.act", reactor(act), 0},
		{"host call that acts", "calls wasi_snapshot_preview1.proc_exit", reactor(nil, w.I32(0)[:0]), 0},
		{"trap", "unreachable", reactor(nil, w.Unreachable), Trapped},
		{"endless", "too long", reactor(nil, w.Loop, w.Br(0), w.End), DeadlineHit},
		{"hoards", "asks for 4294967296 bytes of memory", reactor(nil, w.I32(65535), w.MemoryGrow, w.Drop), 0},
		{"arguments of a command", "calls wasi_snapshot_preview1.args_sizes_get", startArgs, 0},
		{"no memory", "no memory", bare.Bytes(), 0},
		{"much memory", "begins with 67174400 bytes", func() []byte {
			var m w.Module
			m.Memory(1025)
			m.Func("_start", "", "")
			return m.Bytes()
		}(), MemoryHit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "host call that acts" {
				var m w.Module
				f := exit(&m)
				m.Memory(1)
				m.Bump(1024)
				m.Func("_initialize", "", "", w.I32(0), w.Call(f))
				m.Func("run", "ii", "i", w.I32(16))
				tc.wasm, tc.kind = m.Bytes(), Exited
			}
			p := compile(t, e, tc.wasm)
			if info := p.Info(); info.Image != 0 || !strings.Contains(info.Plain, tc.says) {
				t.Errorf("image of %d bytes, plain because %q; want %q", info.Image, info.Plain, tc.says)
			}
			call := Call{Limits: Limits{Wall: 300 * time.Millisecond}}
			if tc.kind != 0 {
				failed(t, e, p, call, tc.kind)
			} else {
				ran(t, e, p, Call{})
			}
		})
	}
}

// The bytes of images are bounded, and closing a program makes room.
func TestImagesAreBounded(t *testing.T) {
	e := newEngine(t, Config{MaxImages: 6 << 16}, wasi())
	first, err := e.Compile(t.Context(), stateful()) // 5 pages
	if err != nil {
		t.Fatal(err)
	}
	second := compile(t, e, guest(w.I32(0), w.Drop))
	third := compile(t, e, guest())
	if first.Info().Image != 5<<16 || second.Info().Image != 1<<16 || third.Info().Image != 0 || !strings.Contains(third.Info().Plain, "no room") {
		t.Errorf("images of %d, %d and %d bytes (%s)", first.Info().Image, second.Info().Image, third.Info().Image, third.Info().Plain)
	}
	ran(t, e, third, Call{})
	first.Close()
	if p := compile(t, e, guest()); p.Info().Image != 1<<16 {
		t.Errorf("no image although there is room: %s", p.Info().Plain)
	}
}

// A guest that exits is closed while the host functions that called it are still
// at work. Its memory is nobody else's before they are done.
func TestMemoryOutlivesAnExit(t *testing.T) {
	var e *Engine
	var p *Program
	e = newEngine(t, Config{}, wasi(), HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module) {
			if _, err := m.ExportedFunction("inner").Call(ctx); err == nil {
				t.Error("the guest did not exit")
			}
			ran(t, e, p, Call{Params: []byte("xxxxxxxx")}) // a run that would be given that memory
			if got, _ := m.Memory().Read(4096, 4); !bytes.Equal(got, []byte("mine")) {
				t.Errorf("the memory of a run that is not over is another's: %q", got)
			}
		}).Export("nest")
	}})
	var m w.Module
	nest, exit := m.Import("test", "nest", "", ""), m.Import("wasi_snapshot_preview1", "proc_exit", "i", "")
	m.Memory(1)
	m.Bump(1024)
	m.Func("inner", "", "", w.I32(4096), w.I32(0x656e696d), w.Store, w.I32(0), w.Call(exit))
	m.Func("run", "ii", "i", w.Get(1), w.If, w.I32(4096), w.I32(-1), w.Store, w.I32(16), w.Return, w.End, w.Call(nest), w.I32(16))
	p = compile(t, e, m.Bytes())
	if p.Info().Image == 0 {
		t.Fatal(p.Info().Plain)
	}
	failed(t, e, p, Call{}, Exited)
}
