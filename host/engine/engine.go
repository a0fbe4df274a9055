// Package engine runs WebAssembly: it compiles a module once, and gives every
// call of it a fresh instance inside limits. It knows nothing of peers,
// policies or storage; what a guest may reach is what the Call binds.
//
//	e, err := engine.New(ctx, engine.Config{CacheDir: dir}, hostModules...)
//	p, err := e.Compile(ctx, wasm)
//	out, err := e.Run(ctx, p, engine.Call{Entry: "sign", Params: params})
//
// Run's error, when the guest is at fault, is a *Failure, whose Kind tells a
// trap, an exit, a deadline, a lack of memory and a returned error apart.
//
// wazero runs the guests. [Machine] is what the engine needs of a runtime, and
// package wasmtime another one of that kind, in builds that ask for it.
//
// A run begins with an image of memory that was made when the module was compiled,
// where that is possible: SNAPSHOTS.md says how and when. No instance serves two.
//
// # Host functions
//
// A HostModule's functions run on the goroutine of the run that calls them. The
// engine counts each call, stops the run in it once the run is over, and turns
// a panic into an end of that run alone. To a host function,
//
//   - ctx ends with the run's deadline; one that waits must heed it, since
//     nothing can stop it from outside;
//   - CallState(ctx) is Call.State, and Log(ctx) takes what the guest logs;
//   - the guest's memory is its for as long as it runs, and then another run's: no
//     slice of it and no api.Memory may be kept or passed to another goroutine;
//   - panicking with an error ends the run. It reaches the caller of Run as
//     Failure.Cause, for errors.As; a *Failure reaches it as what it is, so that a
//     host function that runs a guest (see Call.Nested) can pass on how that ended. Any
//     other panic, and Go's own (a nil dereference, an index), is a bug of the host: a
//     *PanicError, no Failure.
package engine

import (
	"io"
	"time"

	"github.com/tetratelabs/wazero"
)

// Config configures an Engine. The zero value works: no disk cache, defaults
// for the limits.
type Config struct {
	// CacheDir keeps compiled code, and images of modules that are slow to initialise,
	// between runs. It must belong to the host alone (0700): what lies in it is
	// executed. Empty means in memory only.
	CacheDir string
	// MaxCacheBytes bounds CacheDir; the oldest file goes first. It is enforced
	// from time to time, not to the byte. 0 means 2 GiB.
	MaxCacheBytes int64
	// MaxModuleBytes bounds what Compile accepts. 0 means 32 MiB.
	MaxModuleBytes int
	// MaxCompileTime bounds one Compile. 0 means 60 s.
	MaxCompileTime time.Duration
	// MaxImages bounds the bytes of memory images, all programs together. The
	// modules of programs that come after are initialised in each run. 0 means 1 GiB.
	MaxImages int64
	// Keep is how many programs are kept although nobody may have them any more, those
	// last asked for: Compile returns one of them where it is given the same bytes
	// again. They are fewer where they are large: see kept. 0 means none.
	Keep int
	// Languages are those whose texts Load takes. A language's module is compiled when the
	// first text is loaded.
	Languages []Language
	// Plain has every module initialised in each run: to find out whether an image
	// is to blame for something. Nothing else changes, fuel included.
	Plain bool
	// Machine runs guests; nil is wazero.
	Machine Machine
	// CheckImages compares memory and globals with the image before each run, byte
	// for byte. A difference is an error of the host's, and the end of that run.
	CheckImages bool
}

// A HostModule adds one module of host functions to an Engine. Its functions
// find the state of the call that they serve through CallState.
type HostModule struct {
	Name    string // as guests import it, e.g. "circles:host/contexts"; a version is matched by semver
	Version string // e.g. "0.1.0"; empty for an unversioned name
	Export  func(wazero.HostModuleBuilder)

	// Initial tells whether a module may make this call while it is initialised for
	// all its runs to come: the call leaves nothing behind on the host's side, and its
	// answer is the same in each run of a reactor, or one that nobody may rely on to
	// differ, like the time and random bytes. What a module was told then is what all its
	// runs were told. A module that makes any other call, or any of a host module
	// without Initial, is initialised in each run. See SNAPSHOTS.md.
	Initial func(function string, params []uint64) bool
}

// Shape is how a module is run.
type Shape string

const (
	Command Shape = "command" // _start; params on stdin, result on stdout
	Reactor Shape = "reactor" // exported entries: list<u8> -> result<list<u8>, string>
)

// Import is one function that a module asks for.
type Import struct{ Module, Name string }

// Call is one run of a program.
type Call struct {
	Entry  string // a reactor's entry; "" means "run". Ignored by a command.
	Params []byte
	Args   []string          // a command's arguments after its own name
	Env    map[string]string // a command's environment
	Name   string            // a command's args[0]; "" means "script", which a reactor's is always
	State  any               // what host modules get from CallState
	Limits Limits
	// Stdin, Stdout and Stderr, when set, replace Params, Result and Log.
	Stdio *Stdio
	// Turn, when set, is told on the guest's goroutine when other guests may go
	// first. Whoever sets it begins and ends it.
	Turn Turn
	// Nested says that Run is called by a host function, for the run that called it,
	// whose context it passes on. What is left of the limits of that one is what this
	// one has, its log and turn are that one's, and what it uses counts as used by
	// both: Limits, Stdio and Turn are not looked at.
	Nested bool
	// Quiet counts what the guest logs, and keeps nothing of it.
	Quiet bool
}

// Turn is a guest's place among those that compute.
type Turn interface {
	Slice()  // a slice of fuel has ended, a third of a millisecond of computing
	Pause()  // the guest is about to wait for something that is not computed
	Resume() // and computes again
}

// Stdio binds a command's standard streams to the host's own. Stdout is still
// counted against Limits.Output, Stderr against Limits.Log.
type Stdio struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Limits bound one run. A zero field means the default, never "no limit".
type Limits struct {
	Wall      time.Duration // including host calls; default 5 s
	Memory    uint64        // bytes of linear memory; default 64 MiB
	Output    uint64        // bytes of result or stdout; default 8 MiB
	HostCalls uint64        // default 1,000,000
	Log       uint64        // bytes of log and stderr, the rest is cut; default 64 KiB
	Fuel      uint64        // default 0: counted, not limited
}

// Output is what a run that went well returned.
type Output struct {
	Result []byte // empty where Stdio.Stdout took it
	Log    []byte // as the guest wrote it: it may be no text, or hold escape sequences; nil of a nested run
	Usage  Usage
}

// Usage is what a run used, with those that were nested in it; it is filled in for
// failed runs too.
type Usage struct {
	Wall      time.Duration
	Fuel      uint64
	Memory    uint64 // peak bytes, of all that were there at once
	HostCalls uint64
	Output    uint64 // bytes of result or stdout
	Log       uint64 // bytes of log and stderr, those that were cut included
}

// Failure is a run that the guest brought to a bad end. It carries what the
// run logged and used.
type Failure struct {
	Kind     Kind
	Detail   string // for a person
	ExitCode uint32 // Exited only
	Log      []byte
	Usage    Usage
	Cause    error // Trapped: the runtime's error, which wraps what a host function panicked with
}

// Kind tells failures apart.
type Kind uint8

const (
	Returned    Kind = iota + 1 // the entry returned err(string); Detail is the string
	Exited                      // exit code other than 0; of a reactor, any: it had no result yet
	Trapped                     // unreachable, out-of-bounds access, stack exhaustion, ABI violation …; or a host function's error, in Cause
	DeadlineHit                 // Limits.Wall, or the context's deadline
	Cancelled                   // the context was cancelled
	MemoryHit                   // failed after Limits.Memory was reached
	OutputHit
	HostCallsHit
	FuelHit
	NoEntry  // the module has no such entry
	StackHit // it called deeper than rewrite.StackSize
)

func (f *Failure) Error() string { return f.Detail }

// Unwrap makes Cause reachable for errors.As.
func (f *Failure) Unwrap() error { return f.Cause }

var kindTexts = [...]string{
	Returned: "returned an error", Exited: "exited", Trapped: "trapped", DeadlineHit: "deadline", Cancelled: "cancelled",
	MemoryHit: "memory limit", OutputHit: "output limit", HostCallsHit: "host call limit", FuelHit: "fuel limit", NoEntry: "no entry", StackHit: "stack limit",
}

func (k Kind) String() string {
	if int(k) < len(kindTexts) && kindTexts[k] != "" {
		return kindTexts[k]
	}
	return "unknown"
}
