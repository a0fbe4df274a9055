package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/host/engine/abi"
	"github.com/circles-host/circles/host/engine/rewrite"
)

// Defaults of Limits.
const (
	defaultWall      = 5 * time.Second
	defaultMemory    = 64 << 20
	defaultOutput    = 8 << 20
	defaultHostCalls = 1_000_000
	defaultLog       = 64 << 10
)

// WithDefaults returns l with each zero field set to its default.
func (l Limits) WithDefaults() Limits {
	if l.Wall <= 0 {
		l.Wall = defaultWall
	}
	for _, f := range []struct {
		field *uint64
		value uint64
	}{{&l.Memory, defaultMemory}, {&l.Output, defaultOutput}, {&l.HostCalls, defaultHostCalls}, {&l.Log, defaultLog}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return l
}

// CallState returns Call.State of the run that ctx belongs to, or nil.
func CallState(ctx context.Context) any {
	if r, ok := ctx.Value(runKey{}).(*run); ok {
		return r.state
	}
	return nil
}

// Log takes what the guest of the run that ctx belongs to logs: one Write for
// each line, with its line break. It never fails; what is over Limits.Log is
// cut. Outside of a run it discards.
func Log(ctx context.Context) io.Writer {
	if r, ok := ctx.Value(runKey{}).(*run); ok {
		return &r.log
	}
	return io.Discard
}

// Asked returns the oldest version of a module of host functions that the guest of
// the run that ctx belongs to imports: what it was built for. It is "" outside of a
// run, and for a module that the guest imports without a version, or not at all.
func Asked(ctx context.Context, module string) string {
	r, ok := ctx.Value(runKey{}).(*run)
	if !ok || r.program == nil {
		return ""
	}
	var oldest *version
	for _, imp := range r.program.info.Imports {
		name, asked, _ := strings.Cut(imp.Module, "@")
		if v, err := parseVersion(asked); name == module && err == nil && (oldest == nil || oldest.serves(v)) {
			oldest = &v
		}
	}
	if oldest == nil {
		return ""
	}
	return oldest.String()
}

type runKey struct{}

// run is the state of one run. It is the context that guest and host functions
// get, so that finding it costs no search. All of it but the deadline belongs to
// the goroutine of the run.
type run struct {
	deadline
	program *Program // nil while a module is initialised for all its runs
	state   any
	turn    Turn
	limits  Limits
	start   time.Time

	granted   uint64 // fuel
	fuel      uint64 // burned; set when the guest has ended
	others    uint64 // fuel burned by the runs that this is nested in, and those nested in it
	hostCalls uint64 // with theirs
	asked     uint32 // how often check asked for Err
	hostDepth int16
	free      bool // what runs now is not charged for
	quiet     bool // what it logs is not kept
	memory    memory
	input     *input // nil: params are what the guest reads
	params    params
	out       output
	log       logBuffer
	shell     *shell
	stopped   *stop // why the engine ended the run; set once

	priming *priming // set if this is no run, but the initialising of a module for all of them

	instance abi.Instance

	mod   api.Module // while the guest runs
	outer *run       // that this one is nested in
}

func (e *Engine) newRun(ctx context.Context, limits Limits, c *Call) *run {
	r := &run{limits: limits, start: time.Now(), state: c.State, turn: c.Turn, quiet: c.Quiet}
	r.init(ctx, e.ctx, r.start.Add(limits.Wall))
	r.memory.limit = limits.Memory
	r.out.run, r.log.run = r, r
	if c.Stdio != nil {
		r.out.to, r.log.to = c.Stdio.Stdout, c.Stdio.Stderr
	}
	if c.Stdio != nil && c.Stdio.Stdin != nil {
		r.input = &input{run: r, from: c.Stdio.Stdin}
	} else {
		r.params.b = c.Params
	}
	return r
}

// stdin is what the guest reads.
func (r *run) stdin() io.Reader {
	if r.input != nil {
		return r.input
	}
	return &r.params
}

// Value implements context.Context.
func (r *run) Value(key any) any {
	if key == (runKey{}) {
		return r
	}
	if v := r.instance.Value(key); v != nil {
		return v
	}
	if r.shell != nil {
		if v := r.shell.ctx.Value(key); v != nil {
			return v
		}
	}
	return r.value(key)
}

// stop is the panic by which the engine ends a guest, on the guest's own
// goroutine: an instance that is closed from another crashes the process when
// its memory goes while code runs in it.
type stop struct {
	kind   Kind
	detail string
}

func (s *stop) Error() string { return s.detail }

// halt ends the run. The first reason counts.
func (r *run) halt(kind Kind, format string, args ...any) {
	if r.stopped == nil {
		r.stopped = &stop{kind, fmt.Sprintf(format, args...)}
	}
	panic(r.stopped)
}

// check ends the run if its time is over.
func (r *run) check() {
	if r.stopped != nil {
		panic(r.stopped) // a host function swallowed it; the guest must not go on
	}
	// Who asks often is asked to wait for a timer rather than to read the clock.
	if r.asked++; r.asked == 16 {
		r.arm()
	}
	if err := r.Err(); err != nil {
		r.haltContext(err)
	}
}

func (r *run) haltContext(err error) {
	if expired(err) {
		r.halt(DeadlineHit, "%s", r.deadlineText())
	}
	r.halt(Cancelled, "%s", cancelledText)
}

const cancelledText = "cancelled before it was finished"

func (r *run) deadlineText() string {
	if wall := time.Since(r.outermost().start); wall < r.limits.Wall {
		return fmt.Sprintf("stopped at the deadline of its request, after %v", wall.Round(time.Millisecond))
	}
	return fmt.Sprintf("stopped after its time limit of %v", r.limits.Wall)
}

// enterHost is called before each call of a host function.
func (r *run) enterHost(name string) {
	r.hostCalls++
	if r.hostCalls > r.limits.HostCalls {
		r.hostCalls-- // the one that was not made
		r.halt(HostCallsHit, "stopped after its limit of %d calls of host functions", r.limits.HostCalls)
	}
	r.check()
	if r.hostDepth++; r.hostDepth > maxHostDepth {
		r.halt(Trapped, "host functions called inside of host functions, %d deep (%s)", maxHostDepth, name)
	}
}

// leaveHost is called after each, unless it panicked. The check ends a sleep
// that was cut short, and a guest that does little else than call the host.
func (r *run) leaveHost() {
	r.hostDepth--
	r.check()
}

// sleep is the guest's sleep: it ends with the run.
func (r *run) sleep(ns int64) {
	if ns <= 0 {
		return
	}
	if r.turn != nil {
		r.turn.Pause()
		defer r.turn.Resume()
	}
	t := time.NewTimer(time.Duration(ns))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Done():
	}
}

// Run runs a program once, in an instance of its own, on the calling goroutine.
// It returns when the guest has ended, by itself or by a limit.
//
// An error that is a *Failure is the guest's; Failure says what it logged and
// used. Any other error is the host's: ErrClosed, or a *PanicError.
//
// A guest that computes or sleeps ends within milliseconds of its deadline. One
// that is inside of a host function ends when that returns. What a guest may
// take beside Limits.Memory: a call stack, of rewrite.StackSize by an estimate that is good
// for what compilers make of programs (see THREATS), and tables of 8 MiB.
func (e *Engine) Run(ctx context.Context, p *Program, c Call) (Output, error) {
	if p.engine != e {
		return Output{}, errors.New("run: the program belongs to another engine")
	}
	if err := e.enter(); err != nil {
		return Output{}, fmt.Errorf("run: %w", err)
	}
	defer e.leave()
	if !p.Retain() {
		return Output{}, fmt.Errorf("run: program: %w", ErrClosed)
	}
	defer p.Close()

	if err := c.check(); err != nil {
		return Output{}, err
	}
	var r *run
	if c.Nested {
		var err error
		if r, err = e.nest(ctx, &c); err != nil {
			return Output{}, err
		}
	} else {
		r = e.newRun(ctx, c.Limits.WithDefaults(), &c)
	}
	r.program = p
	defer r.end()
	result, err := r.do(p, &c)
	if err == nil && r.limits.Fuel > 0 && r.others+r.fuel > r.limits.Fuel {
		// Since it last asked for fuel. Whether a guest stays within its limit
		// must not depend on where it asks.
		result, err = nil, &Failure{Kind: FuelHit, Detail: fmt.Sprintf(fuelText, r.limits.Fuel)}
	}
	usage := Usage{
		Wall:      time.Since(r.start),
		Fuel:      r.others + r.fuel,
		Memory:    r.memory.peak,
		HostCalls: r.hostCalls,
		Output:    max(r.out.n, uint64(len(result))),
		Log:       r.log.n,
	}
	if c.Nested {
		r.settle(&usage)
	}
	if err != nil {
		var f *Failure
		if errors.As(err, &f) {
			f.Log, f.Usage = r.log.b, usage
		} else {
			err = fmt.Errorf("run: %w", err)
		}
		return Output{Usage: usage}, err
	}
	return Output{Result: result, Log: r.log.b, Usage: usage}, nil
}

// check refuses what WASI cannot express, before a guest is made.
func (c *Call) check() error {
	for i, a := range append([]string{c.Name}, c.Args...) {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("run: argument %d contains a NUL byte", i)
		}
	}
	for k, v := range c.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			return fmt.Errorf("run: environment variable %s: its name is empty or contains =, or there is a NUL byte", quote(k))
		}
	}
	return nil
}

// do runs the guest and sorts out how it ended.
func (r *run) do(p *Program, c *Call) (result []byte, err error) {
	defer func() {
		// Guest code runs under wazero's own recover; what arrives here was
		// thrown while an instance was made or closed, and may still be a stop.
		if v := recover(); v != nil {
			result, err = nil, r.failure(p, asError("", v))
		}
	}()
	entry := c.Entry
	if p.info.Shape == Reactor {
		if entry == "" {
			entry = "run"
		}
		if _, ok := slices.BinarySearch(p.info.Entries, entry); !ok {
			return nil, &Failure{Kind: NoEntry, Detail: fmt.Sprintf("the %s has no entry %s; it has %s", p.what(), quote(entry), strings.Join(p.info.Entries, ", "))}
		}
	}
	image := p.begin()
	size := p.info.Memory
	if image != nil {
		size = uint64(image.memory.Size())
	}
	if size > r.memory.limit {
		// wazero would panic.
		return nil, &Failure{Kind: MemoryHit, Detail: fmt.Sprintf("the module begins with %d bytes of memory; its limit is %d", size, r.memory.limit)}
	}
	if err := r.Err(); err != nil {
		return nil, r.failure(p, err)
	}

	defer r.instance.Close()
	if image != nil && p.standin == nil {
		if r.memory.image, err = image.memory.Open(); err != nil {
			return nil, err
		}
	}
	defer r.memory.close() // when nothing of the run is left that could look at it
	mod, err := p.instantiate(r, c, image)
	if err != nil {
		return nil, r.failure(p, err)
	}
	fuel := r.global(mod, rewrite.FuelGlobal)
	// By the goroutine that ran it, and after results have been copied.
	defer func() {
		if !r.free {
			r.fuel = r.burned(fuel)
		}
		mod.Close(context.Background())
		p.put(r.shell)
	}()
	if image != nil {
		image.enter(r, mod)
		if p.engine.config.CheckImages {
			if err := image.check(r, mod); err != nil {
				return nil, err
			}
		}
	}
	if r.mod = mod; r.outer != nil {
		// One stack for all that are nested.
		r.global(mod, rewrite.StackGlobal).Set(r.outer.global(r.outer.mod, rewrite.StackGlobal).Get())
	}
	if p.primed == nil {
		if err := r.initialise(p, mod, fuel); err != nil {
			return nil, r.failure(p, err)
		}
	}
	if p.info.Shape == Command {
		_, err := mod.ExportedFunction("_start").Call(r)
		if err != nil && !isExit(err, 0) {
			return nil, r.failure(p, err)
		}
		if r.stopped != nil {
			return nil, r.failure(p, r.stopped)
		}
		return r.out.b, nil
	}
	if p.of != nil {
		entry = callEntry // which asks for the text's own
	}
	result, text, isErr, err := abi.CallBytes(r, mod, entry, c.Params, abi.Options{
		MaxResult: r.limits.Output, Through: rewrite.CallExport, Calls: p.calls,
	})
	if err != nil {
		return nil, r.failure(p, err)
	}
	if isErr {
		return nil, r.memoryOr(&Failure{Kind: Returned, Detail: clean(text, 8<<10)})
	}
	return result, nil
}

// what p is, for people.
func (p *Program) what() string {
	if p.of != nil {
		return "text"
	}
	return "module"
}

// initialise does what a module begins with, where no image has it done. What a
// module does that an image could have, is not charged for, so that a run's usage
// is the same whether there is an image or not.
func (r *run) initialise(p *Program, mod api.Module, fuel api.MutableGlobal) error {
	if !p.pure {
		return p.initialise(r, mod)
	}
	limits, others, calls := r.limits, r.others, r.hostCalls
	r.limits.Fuel, r.limits.HostCalls, r.others, r.hostCalls = p.initial, 2*primeHostCalls, 0, 0
	r.free = true
	err := p.initialise(r, mod)
	r.others, r.hostCalls = others, calls+r.hostCalls
	if err != nil {
		return err
	}
	r.free = false
	r.limits, r.hostCalls = limits, calls
	r.granted = 0
	fuel.Set(0)
	return nil
}

func isExit(err error, code uint32) bool {
	var exit *sys.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == code
}

// failure says how a guest ended that did not end well.
func (r *run) failure(p *Program, err error) error {
	if u, ok := err.(*unloaded); ok {
		return u.failure
	}
	var bug *PanicError
	if errors.As(err, &bug) {
		return bug
	}
	var rt runtime.Error
	if errors.As(err, &rt) { // in wazero's own code; the text has the stack
		return &PanicError{Value: err}
	}
	if r.stopped == nil && r.Err() != nil {
		// A host function passed the context's error on, or the guest came to
		// another end just then, which nobody would have waited for.
		func() {
			defer func() { _ = recover() }()
			r.haltContext(r.Err())
		}()
	}
	if r.stopped != nil {
		return &Failure{Kind: r.stopped.kind, Detail: r.stopped.detail}
	}
	var passed *Failure
	if errors.As(err, &passed) { // that of a run nested in this one
		return &Failure{Kind: passed.Kind, Detail: passed.Detail, ExitCode: passed.ExitCode, Cause: passed.Cause}
	}
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		f := &Failure{Kind: Exited, ExitCode: exit.ExitCode(), Detail: fmt.Sprintf("exited with code %d", exit.ExitCode())}
		if p.info.Shape == Reactor {
			f.Detail += " before it returned a result"
		}
		return r.memoryOr(f)
	}
	var over *abi.OverLimit
	if errors.As(err, &over) {
		return &Failure{Kind: OutputHit, Detail: fmt.Sprintf("returned %d bytes; its limit is %d", over.Size, over.Limit)}
	}
	text, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:")
	text = strings.TrimSuffix(text, " (recovered by wazero)")
	trace, _, _ = strings.Cut(trace, " (recovered by wazero)") // a Machine's, which wazero has added its own to
	if text == "wasm error: unreachable" && p.dispatched(trace) {
		text = "wasm error: invalid table access"
	}
	f := &Failure{Kind: Trapped, Detail: "trapped: " + strings.TrimPrefix(clean(text, 1<<10), "wasm error: ")}
	if r.starved() {
		f.Detail = "there was no more for the interpreter"
	} else if trace != "" {
		// For the module's author, who reads the log.
		fmt.Fprintf(&r.log, "%s\n%s\n", f.Detail, strings.TrimPrefix(clean(trace, 4<<10), "\n"))
	}
	f.Cause = err
	return r.memoryOr(f)
}

// dispatched reports whether a stack trace begins in a function that calls
// functions of the table.
func (p *Program) dispatched(trace string) bool {
	frame, _, _ := strings.Cut(strings.TrimSpace(trace), "(") // e.g. "module.$1234"
	_, number, ok := strings.Cut(frame, ".$")
	n, err := strconv.ParseUint(number, 10, 32)
	return ok && err == nil && uint32(n) >= p.dispatchFrom && uint32(n) < p.dispatchTo
}

// starved reports whether the guest interprets a text and was denied memory.
func (r *run) starved() bool {
	return r.memory.denied > 0 && r.program != nil && r.program.info.Text()
}

// memoryOr makes f a MemoryHit if the guest was denied memory before. Guests
// rarely say that this is why they fail: they abort, exit or trap.
func (r *run) memoryOr(f *Failure) *Failure {
	if r.memory.denied == 0 {
		return f
	}
	return &Failure{
		Kind:     MemoryHit,
		ExitCode: f.ExitCode,
		Detail:   fmt.Sprintf("out of memory: asked for %d bytes; its limit is %d (%s)", r.memory.denied, r.memory.limit, f.Detail),
		Cause:    f.Cause,
	}
}
