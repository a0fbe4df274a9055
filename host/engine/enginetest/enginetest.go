// Package enginetest is the suite that every engine.Machine passes, and the engine
// itself with wazero. A machine's test is one line:
//
//	enginetest.Run(t, wasmtime.New())
//
// What it holds is what the engine promises to those who run guests: how each
// of them ends, what it leaves behind, what it uses, to the unit of fuel.
package enginetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/enginetest/guests"
)

// Run runs the suite. A nil machine is wazero.
func Run(t *testing.T, machine engine.Machine) {
	s := &suite{machine: machine, programs: make(map[string]*engine.Program)}
	s.common = s.engine(t, engine.Config{MaxCompileTime: 10 * time.Minute}, wasi())
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Command", s.command},
		{"Reactor", s.reactor},
		{"Fuel", s.fuel},
		{"Kinds", s.kinds},
		{"Traps", s.traps},
		{"StackLimit", s.stackLimit},
		{"Deadline", s.deadline},
		{"StartSection", s.startSection},
		{"HostFunctionPanics", s.hostFunctionPanics},
		{"HostCallsNestedTooDeep", s.hostCallsNestedTooDeep},
		{"StoppedGuestStaysStopped", s.stoppedGuestStaysStopped},
		{"CallStateAndLog", s.callStateAndLog},
		{"Stdio", s.stdio},
		{"CallRefusesWhatWASICannotExpress", s.callRefusesWhatWASICannotExpress},
		{"RunsLeaveNothing", s.runsLeaveNothing},
		{"ConcurrentRuns", s.concurrentRuns},
		{"RunsFromImages", s.runsFromImages},
		{"RandomnessAndTimeAreOfTheRun", s.randomnessAndTimeAreOfTheRun},
		{"UsageIsTheSameWithoutImages", s.usageIsTheSameWithoutImages},
		{"InitialisedInEachRun", s.initialisedInEachRun},
		{"MemoryOutlivesAnExit", s.memoryOutlivesAnExit},
		{"ReplaceUnderLoad", s.replaceUnderLoad},
		{"CloseProgramWhileItRuns", s.closeProgramWhileItRuns},
		{"CloseEngine", s.closeEngine},
		{"TableGrowIsBounded", s.tableGrowIsBounded},
		{"LoadsTexts", s.loadsTexts},
		{"TextsThatCannotBeLoaded", s.textsThatCannotBeLoaded},
		{"LoadsTextsUnderLoad", s.loadsTextsUnderLoad},
	} {
		t.Run(c.name, c.run)
	}
}

// suite is a machine under test.
type suite struct {
	machine engine.Machine
	// common is what tests without host modules of their own run in: compiling the
	// Go guests is most of what the suite costs.
	common *engine.Engine

	mu       sync.Mutex
	programs map[string]*engine.Program
}

func (s *suite) shared(*testing.T) *engine.Engine { return s.common }

func (s *suite) engine(t *testing.T, c engine.Config, hosts ...engine.HostModule) *engine.Engine {
	t.Helper()
	c.Machine = s.machine
	e, err := engine.New(t.Context(), c, hosts...)
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

// program is one of the Go guests, "command" or "reactor".
func (s *suite) program(t *testing.T, name string) (*engine.Engine, *engine.Program) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.programs[name]; p != nil {
		return s.common, p
	}
	wasm := goGuest(t, name)
	p, err := s.common.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	s.programs[name] = p
	return s.common, p
}

func goGuest(t *testing.T, name string) []byte {
	t.Helper()
	build := guests.GoCommand
	if name == "reactor" {
		build = guests.GoReactor
	}
	wasm, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// wasi is wazero's own WASI: the engine takes host modules from anywhere.
func wasi() engine.HostModule {
	return engine.HostModule{
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

func compile(t *testing.T, e *engine.Engine, wasm []byte) *engine.Program {
	t.Helper()
	p, err := e.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// failed runs a guest that comes to a bad end of that kind.
func failed(t *testing.T, e *engine.Engine, p *engine.Program, c engine.Call, want engine.Kind) *engine.Failure {
	t.Helper()
	out, err := e.Run(t.Context(), p, c)
	var f *engine.Failure
	if !errors.As(err, &f) {
		t.Fatalf("Run = %q, %v; want a failure: %v", out.Result, err, want)
	}
	if f.Kind != want {
		t.Fatalf("failure is %v: %v; want %v\n%s", f.Kind, f.Detail, want, f.Log)
	}
	if out.Usage != f.Usage {
		t.Errorf("Output says %+v, Failure %+v", out.Usage, f.Usage)
	}
	return f
}

func ran(t *testing.T, e *engine.Engine, p *engine.Program, c engine.Call) engine.Output {
	t.Helper()
	out, err := e.Run(t.Context(), p, c)
	if err != nil {
		var f *engine.Failure
		if errors.As(err, &f) {
			t.Logf("log: %s", f.Log)
		}
		t.Fatal(err)
	}
	return out
}
