package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/engine/enginetest/guests"
)

// wasi is wazero's own WASI: the engine takes host modules from anywhere.
func wasi() HostModule {
	return HostModule{
		Name: wasi_snapshot_preview1.ModuleName,
		Export: func(b wazero.HostModuleBuilder) {
			wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
		},
		Initial: func(function string, params []uint64) bool {
			switch function {
			case "args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_time_get", "random_get",
				"fd_fdstat_get", "fd_prestat_get", "fd_fdstat_set_flags":
				return true
			}
			return false
		},
	}
}

// shared is what tests without host modules of their own run in: compiling the
// Go guests is most of what this package's tests cost.
var shared = sync.OnceValues(func() (*Engine, error) {
	return New(context.Background(), Config{MaxCompileTime: 10 * time.Minute}, wasi())
})

func sharedEngine(t testing.TB) *Engine {
	t.Helper()
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newEngine(t testing.TB, c Config, hosts ...HostModule) *Engine {
	t.Helper()
	e, err := New(t.Context(), c, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func compile(t testing.TB, e *Engine, wasm []byte) *Program {
	t.Helper()
	p, err := e.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func ran(t testing.TB, e *Engine, p *Program, c Call) Output {
	t.Helper()
	out, err := e.Run(t.Context(), p, c)
	if err != nil {
		var f *Failure
		if errors.As(err, &f) {
			t.Logf("log: %s", f.Log)
		}
		t.Fatal(err)
	}
	return out
}

// What the suite runs too.
var (
	commandWasm, reactorWasm = guests.GoCommand, guests.GoReactor
	guest, command           = guests.Reactor, guests.Command
	section, module          = guests.Section, guests.Module
	stateful, startModule    = guests.Stateful, guests.Started
	fibonacci                = guests.Fibonacci
)

func custom(name, contents string) []byte {
	b := append(binary.AppendUvarint(nil, uint64(len(name))), name...)
	return section(sectionCustom, append(b, contents...)...)
}

// hostCallLoop is a command that calls "nothing" of "test" n times.
func hostCallLoop(n int32) []byte {
	var m abitest.Module
	f := m.Import("test", "nothing", "", "")
	m.Memory(1)
	m.Func("_start", "", "",
		abitest.I32(n), abitest.Set(0),
		abitest.Loop, abitest.Call(f), abitest.Get(0), abitest.I32(1), abitest.Sub, abitest.Set(0), abitest.Get(0), abitest.BrIf(0), abitest.End)
	return m.Bytes()
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
