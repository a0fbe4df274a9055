package enginetest

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

	"github.com/circles-host/circles/host/engine"
	w "github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/engine/enginetest/guests"
)

// TestRunsFromImages runs programs by the thousand, at random and side by side:
// calls that go well, that trap, exit, grow, run out of fuel and memory, and
// write all over their memory. Before each run the engine compares memory and
// globals with the image, byte for byte, and each run finds what the first found.
func (s *suite) runsFromImages(t *testing.T) {
	e := s.engine(t, engine.Config{MaxCompileTime: 10 * time.Minute, CheckImages: true}, wasi())
	// Fills the memory that it has from the 8th KiB on, and traps if asked to.
	spoiler := guests.Reactor(
		w.I32(8192), w.I32(0xaa), w.MemorySize, w.I32(16), w.Shl, w.I32(8192), w.Sub, w.Code{0xfc, 11, 0},
		w.Get(1), w.If, w.Unreachable, w.End)
	rea, cmd := compile(t, e, goGuest(t, "reactor")), compile(t, e, goGuest(t, "command"))
	small, spoil := compile(t, e, guests.Stateful()), compile(t, e, spoiler)
	for _, p := range []*engine.Program{rea, cmd, small, spoil} {
		if p.Info().Image == 0 || p.Info().Plain != "" {
			t.Fatalf("a program of %d bytes has no image: %s", p.Size(), p.Info().Plain)
		}
	}
	kinds := []struct {
		p    *engine.Program
		call engine.Call
		want string // the result; or what the error says
		kind engine.Kind
	}{
		{p: rea, call: engine.Call{Entry: "run", Params: []byte("x")}, want: "call 1: x"},
		{p: rea, call: engine.Call{Entry: "remember", Params: []byte("a secret")}, want: "nothing"},
		{p: rea, call: engine.Call{Entry: "work"}, want: "38000"},
		{p: rea, call: engine.Call{Entry: "collect"}, want: "kept"},
		{p: rea, call: engine.Call{Entry: "blow-up"}, kind: engine.Trapped},
		{p: rea, call: engine.Call{Entry: "leave"}, kind: engine.Exited},
		{p: rea, call: engine.Call{Entry: "work", Limits: engine.Limits{Fuel: 500_000}}, kind: engine.FuelHit},
		{p: rea, call: engine.Call{Entry: "give-much", Limits: engine.Limits{Output: 10}}, kind: engine.OutputHit},
		{p: rea, call: engine.Call{Entry: "run", Params: make([]byte, 7<<20), Limits: engine.Limits{Memory: 4 << 20}}, kind: engine.MemoryHit},
		{p: rea, call: engine.Call{Entry: "print-it"}, want: ""},
		{p: cmd, call: engine.Call{Params: []byte("hello")}, want: "HELLO"},
		{p: cmd, call: engine.Call{Args: []string{"exit"}}, kind: engine.Exited},
		{p: small, want: "eata\x28\x00\x00\x00\x05\x00\x00\x00"},
		{p: small, call: engine.Call{Limits: engine.Limits{Memory: 5 << 16}}, want: "eata\x28\x00\x00\x00\x05\x00\x00\x00"},
		{p: spoil, call: engine.Call{}, want: ""},
		{p: spoil, call: engine.Call{Params: []byte("trap")}, kind: engine.Trapped},
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
				var f *engine.Failure
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

// Random bytes and the time are each run's own, although the guest was
// initialised once.
func (s *suite) randomnessAndTimeAreOfTheRun(t *testing.T) {
	e, p := s.program(t, "reactor")
	if p.Info().Image == 0 {
		t.Fatal(p.Info().Plain)
	}
	seen := make(map[string]bool)
	var last int64
	for range 50 {
		random, now, _ := strings.Cut(string(ran(t, e, p, engine.Call{Entry: "unlike"}).Result), " ")
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
func (s *suite) usageIsTheSameWithoutImages(t *testing.T) {
	with, without := s.shared(t), s.engine(t, engine.Config{Plain: true}, wasi())
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
		"reactor":                  guests.Reactor(w.I32(4096), w.I32(1), w.Store),
		"initialised":              guests.Stateful(),
		"initialised by the host":  random.Bytes(),
		"initialised in each run":  prints.Bytes(),
		"command":                  guests.Fibonacci(15),
		"command with start":       guests.Started(w.I32(100), w.I32(7), w.Store),
		"trap":                     guests.Reactor(w.I32(-4), w.Load, w.Drop),
		"start that traps":         guests.Started(w.Unreachable),
		"stack":                    guests.Reactor(w.I32(0), w.I32(0), w.Call(1), w.Drop),
		"grows":                    guests.Reactor(w.I32(20), w.MemoryGrow, w.Drop),
		"grows beyond its maximum": guests.Reactor(w.I32(70000), w.MemoryGrow, w.Drop),
	} {
		t.Run(name, func(t *testing.T) {
			image, plain := compile(t, with, wasm), compile(t, without, wasm)
			if plain.Info().Image != 0 || plain.Info().Plain == "" {
				t.Errorf("an image of %d bytes where there is to be none", plain.Info().Image)
			}
			if none := name == "initialised in each run" || name == "start that traps"; (image.Info().Image == 0) != none {
				t.Errorf("image of %d bytes, plain because %q", image.Info().Image, image.Info().Plain)
			}
			use := func(e *engine.Engine, p *engine.Program, l engine.Limits) string {
				out, err := e.Run(t.Context(), p, engine.Call{Params: []byte("params"), Limits: l})
				u := out.Usage
				u.Wall = 0
				return fmt.Sprintf("%x %+v %v", out.Result, u, err)
			}
			for _, l := range []engine.Limits{{}, {Fuel: 1}, {Fuel: 30}, {Fuel: 3000}, {Memory: 1 << 16}, {Memory: 6 << 16}, {HostCalls: 1}} {
				a, b := use(with, image, l), use(without, plain, l)
				if a != b && !(l.Memory == 1<<16 && name == "initialised") { // one begins with more than that, the other is denied it
					t.Errorf("limits %+v:\nwith an image %s\nwithout       %s", l, a, b)
				}
			}
		})
	}
	// A Go guest's own random seeds move a few instructions; its start would be
	// millions.
	reactor := goGuest(t, "reactor")
	image, plain := compile(t, with, reactor), compile(t, without, reactor)
	a, b := ran(t, with, image, engine.Call{}).Usage, ran(t, without, plain, engine.Call{}).Usage
	if a.Fuel > b.Fuel*2 || b.Fuel > a.Fuel*2 || a.HostCalls != b.HostCalls {
		t.Errorf("a Go guest uses %+v with an image, %+v without", a, b)
	}
}

// Why modules are initialised in each run: all of these run, or fail, as if there
// were no images.
func (s *suite) initialisedInEachRun(t *testing.T) {
	e := s.engine(t, engine.Config{}, wasi(), engine.HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(context.Context) {}).Export("act")
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
	args.Start(args.Func("init", "", "", w.I32(0), w.I32(4), w.Call(sizes), w.Drop))
	args.Func("_start", "", "")
	var bare w.Module
	bare.Func("_start", "", "")
	for _, tc := range []struct {
		name, says string
		wasm       []byte
		kind       engine.Kind // how runs end
	}{
		{"host call", "calls test.act", reactor(act), 0},
		{"host call that acts", "calls wasi_snapshot_preview1.proc_exit", reactor(nil, w.I32(0)[:0]), 0},
		{"trap", "unreachable", reactor(nil, w.Unreachable), engine.Trapped},
		{"endless", "too long", reactor(nil, w.Loop, w.Br(0), w.End), engine.DeadlineHit},
		{"hoards", "asks for 4294967296 bytes of memory", reactor(nil, w.I32(65535), w.MemoryGrow, w.Drop), 0},
		{"arguments of a command", "calls wasi_snapshot_preview1.args_sizes_get", args.Bytes(), 0},
		{"no memory", "no memory", bare.Bytes(), 0},
		{"much memory", "begins with 67174400 bytes", func() []byte {
			var m w.Module
			m.Memory(1025)
			m.Func("_start", "", "")
			return m.Bytes()
		}(), engine.MemoryHit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "host call that acts" {
				var m w.Module
				f := exit(&m)
				m.Memory(1)
				m.Bump(1024)
				m.Func("_initialize", "", "", w.I32(0), w.Call(f))
				m.Func("run", "ii", "i", w.I32(16))
				tc.wasm, tc.kind = m.Bytes(), engine.Exited
			}
			p := compile(t, e, tc.wasm)
			if info := p.Info(); info.Image != 0 || !strings.Contains(info.Plain, tc.says) {
				t.Errorf("image of %d bytes, plain because %q; want %q", info.Image, info.Plain, tc.says)
			}
			call := engine.Call{Limits: engine.Limits{Wall: 300 * time.Millisecond}}
			if tc.kind != 0 {
				failed(t, e, p, call, tc.kind)
			} else {
				ran(t, e, p, engine.Call{})
			}
		})
	}
}

// A guest that exits is closed while the host functions that called it are still
// at work. Its memory is nobody else's before they are done.
func (s *suite) memoryOutlivesAnExit(t *testing.T) {
	var e *engine.Engine
	var p *engine.Program
	e = s.engine(t, engine.Config{}, wasi(), engine.HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module) {
			if _, err := m.ExportedFunction("inner").Call(ctx); err == nil {
				t.Error("the guest did not exit")
			}
			ran(t, e, p, engine.Call{Params: []byte("xxxxxxxx")}) // a run that would be given that memory
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
	failed(t, e, p, engine.Call{}, engine.Exited)
}
