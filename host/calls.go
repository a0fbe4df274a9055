package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

// What the modules may do that run for one script, beside its limits, which they
// share.
const (
	maxDepth = 16     // that run one within the other
	maxCalls = 10_000 // of one by another
)

// calls are what one script runs: its own module, what its owner put before that, and
// what these call, each in an instance of its own, in one transaction.
type calls struct {
	program
	in     running
	caller contexts.Context
	open   int                       // files that the script may have open
	called map[string][]module.Place // by the name that was called
	made   int                       // calls
	parts  []script.Part             // nil while there is one module alone
	ended  error                     // the script is over, however its modules take it
}

// frame is one module that runs.
type frame struct {
	*calls
	line  []module.Place // what runs for the name that was asked for; the script's own, alone, until somebody asks for more
	at    int            // which of them this is
	whole bool           // line is all of it
	guard *watched
	by    *policy.Grants // of who called; nil if the script itself asked for it
	entry string         // that was asked for; "" for the default one
	up    *frame         // that this one runs in; nil for the first
	depth int
	files *wasi.Files
	fuel  uint64 // of those that ran in this one
}

func newCalls(p program, in running) *calls {
	return &calls{program: p, in: in, open: p.limitFiles(in.tx, in.Accepted), caller: p.callerOf(in.Accepted, in.target, in.tx, in.turn, in.back)}
}

// release gives back what was called.
func (c *calls) release() {
	for _, line := range c.called {
		for _, place := range line {
			place.Release()
		}
	}
}

// first runs what the script asked for.
func (c *calls) first(ctx context.Context) (engine.Output, error) {
	s := c.in.Script()
	f := &frame{calls: c, line: c.line, whole: c.line != nil, guard: c.in.guard, entry: s.Entry, depth: 1}
	if f.line == nil {
		f.line = []module.Place{{Found: c.program.found}}
	}
	if f.place().Found != c.program.found {
		f.guard = c.in.guard.under(c.grants(f.place(), s.Entry, s.Params, nil))
	}
	output, err := f.run(ctx, engine.Call{Params: s.Params, Limits: c.limits(c.in.Accepted), Turn: c.in.turn})
	var failure *engine.Failure
	if c.ended != nil && !errors.As(c.ended, &failure) {
		return output, c.ended // the host's, whatever the guest was told
	}
	return output, err
}

func (f *frame) place() module.Place { return f.line[f.at] }

// grants are what a module has that was called with by, nil if that was the script's
// doing. A stage was put there by the owner of the context, or of the host, and so it
// has what the policies give it, whoever called what it stands before.
func (c *calls) grants(p module.Place, entry string, params []byte, by *policy.Grants) *policy.Grants {
	if p.Stage {
		by = nil
	}
	return c.in.Called(codeOf(p.Found), entry, params, by)
}

// run runs the module.
func (f *frame) run(ctx context.Context, call engine.Call) (engine.Output, error) {
	place, in := f.place(), f.in
	code, err := place.Program(ctx, f.engine)
	if err != nil {
		return engine.Output{}, err
	}
	call.Entry = f.entry
	if place.Stage && !place.HasEntry(call.Entry) {
		call.Entry = ""
	}
	handles := f.open
	if f.up != nil {
		handles = f.up.files.Left()
	}
	ctx, f.files = wasi.Mount(ctx, in.tx.Files(f.guard), wasi.Config{Handles: handles, Senses: f.guard})
	target := in.Parties().Target
	call.Name, call.Nested = place.Name, f.up != nil
	call.Quiet = f.guard.grants.May(policy.Log) != nil
	call.State = state{
		caller:  f.caller,
		target:  &sendingContext{contexts.Local(string(target.ID), string(target.Name), in.tx.Files(f.guard), in.tx.records.As(watchedRecords{f.guard}), f.report), f, f.guard},
		modules: f,
		watched: f.guard,
	}
	output, err := f.engine.Run(ctx, code, call)
	f.took(output.Usage.Fuel, err)
	if failure := f.files.Close(); failure != nil {
		// The storage failed and the guest was told of an I/O error. Whatever it
		// made of that must not be committed.
		return output, fmt.Errorf("files of %s: %w", in.target.entry.Name, failure)
	}
	return output, err
}

// took notes what the module used, without those that ran in it.
func (f *frame) took(fuel uint64, err error) {
	var failure *engine.Failure
	if errors.As(err, &failure) {
		fuel = failure.Usage.Fuel
	}
	if f.up != nil {
		f.up.fuel += fuel
	} else if f.made == 0 && f.place().Found == f.program.found {
		return // it was the only one, and what the receipt is about
	}
	p := f.part()
	p.Calls++
	p.Fuel += fuel - f.fuel
}

// part is what the receipt says of the module.
func (f *frame) part() *script.Part {
	of := f.place()
	i := slices.IndexFunc(f.parts, func(p script.Part) bool {
		return p.Module == of.Digest && p.Name == of.Name && p.Layer == of.Layer
	})
	if i < 0 {
		i = len(f.parts)
		f.parts = append(f.parts, script.Part{Name: of.Name, Layer: of.Layer, Module: of.Digest})
	}
	return &f.parts[i]
}

// Entry implements modules.Modules.
func (f *frame) Entry() string {
	if place := f.place(); place.Stage && place.Interpreter != [32]byte{} && !place.HasEntry(f.entry) {
		return "run" // which is what a text is entered by then
	}
	return cmp.Or(f.entry, "run")
}

// Call implements modules.Modules.
func (f *frame) Call(ctx context.Context, name, entry string, params []byte) ([]byte, error) {
	err := f.guard.grants.Allow(policy.Call, name)
	f.guard.saw(policy.Call, name, err)
	if err = f.guard.note(err); err != nil {
		return nil, notCalled(name, contexts.Denied, "%v", err)
	}
	line, err := f.find(name)
	if err != nil {
		return nil, err
	}
	return f.enter(ctx, frame{line: line, whole: true, by: f.guard.grants, entry: entry}, params)
}

// find is what runs where a module is called: the same each time, for as long as the
// script runs.
func (c *calls) find(name string) ([]module.Place, error) {
	if line := c.called[name]; line != nil {
		return line, nil
	}
	found, err := module.Named(name, c.in.target.modules, c.modules)
	if errors.Is(err, module.ErrNotFound) {
		return nil, notCalled(name, contexts.NotFound, "%v", err)
	}
	if err != nil {
		return nil, notCalled(name, contexts.Unavailable, "%v", err)
	}
	line, err := found.Line(c.in.target.modules, c.modules)
	if err != nil {
		found.Release()
		return nil, notCalled(name, contexts.Unavailable, "%v", err)
	}
	if c.called == nil {
		c.called = make(map[string][]module.Place)
	}
	c.called[name] = line
	return line, nil
}

// Base implements modules.Modules.
func (f *frame) Base(ctx context.Context, entry string, params []byte) ([]byte, error) {
	if !f.whole {
		line, err := f.place().Line(f.in.target.modules, f.modules)
		if err != nil {
			return nil, notCalled("base", contexts.Unavailable, "%v", err)
		}
		// What the owner has put before it since it was asked for has no part in this.
		is := f.place().Found
		if at := slices.IndexFunc(line, func(p module.Place) bool { return p.Found == is }); at >= 0 {
			f.line = line[at:]
		}
		f.whole = true
	}
	if f.at+1 == len(f.line) {
		return nil, &contexts.Error{Code: contexts.NotFound, Message: "cannot call the base: this module stands before no other"}
	}
	return f.enter(ctx, frame{line: f.line, at: f.at + 1, whole: true, by: f.by, entry: cmp.Or(entry, f.entry)}, params)
}

func notCalled(name string, code contexts.Code, format string, a ...any) error {
	return &contexts.Error{Code: code, Message: fmt.Sprintf("cannot call %.80q: ", name) + fmt.Sprintf(format, a...)}
}

// enter runs next within f, on f's own goroutine and in its place on the machine.
//
// How it fails is f's to handle, if it has changed nothing yet. Else the script is over,
// since what was changed cannot be taken back by itself; and so it is when a limit is
// reached, which is that of both.
func (f *frame) enter(ctx context.Context, next frame, params []byte) ([]byte, error) {
	place := next.place()
	next.calls, next.up, next.depth = f.calls, f, f.depth+1
	if f.made++; f.made > maxCalls {
		return nil, notCalled(place.Name, contexts.TooLarge, "this script has made %d calls, which is as many as one may", maxCalls)
	}
	if next.depth > maxDepth {
		return nil, notCalled(place.Name, contexts.TooLarge, "%d modules run one within the other, which is as many as may: %s", maxDepth, next.chain())
	}
	if len(f.parts) >= script.MaxParts-maxDepth && !slices.ContainsFunc(f.parts, func(p script.Part) bool {
		return p.Module == place.Digest && p.Name == place.Name && p.Layer == place.Layer
	}) {
		return nil, notCalled(place.Name, contexts.TooLarge, "%d modules have taken part in this script, which is as many as may", len(f.parts))
	}
	next.guard = f.guard.under(f.grants(place, next.entry, params, next.by))
	before := f.in.guard.wrote.Load()
	output, err := next.run(ctx, engine.Call{Params: params})
	if f.ended != nil {
		panic(f.ended)
	}
	if err == nil {
		return output.Result, nil
	}
	var failure *engine.Failure
	switch {
	case errors.As(err, &failure):
	case errors.Is(err, module.ErrNotFound), errors.Is(err, engine.ErrInvalid):
		return nil, notCalled(place.Name, contexts.Unavailable, "%v", err)
	default:
		return nil, f.end(err)
	}
	message := failure.Detail
	if failure.Kind != engine.Returned {
		message = place.Name + " " + message
	}
	switch failure.Kind {
	case engine.DeadlineHit, engine.Cancelled, engine.FuelHit, engine.HostCallsHit:
		return nil, f.end(failure)
	}
	if f.in.guard.wrote.Load() != before {
		return nil, f.end(&engine.Failure{Kind: engine.Returned, Detail: fmt.Sprintf(
			"module %s failed when it had changed something, so nothing of this script is kept: %s", place.Name, failure.Detail)})
	}
	if failure.Kind == engine.NoEntry {
		return nil, notCalled(place.Name, contexts.NotFound, "%s", failure.Detail)
	}
	return nil, &contexts.Error{Code: contexts.Failed, Message: message}
}

// end ends the script: it does not return.
func (f *frame) end(err error) error {
	f.ended = err
	panic(err)
}

// chain names the modules that run, the first first.
func (f *frame) chain() string {
	var names []string
	for ; f != nil; f = f.up {
		names = append(names, cmp.Or(f.place().Name, "the script"))
	}
	slices.Reverse(names)
	return strings.Join(names, " runs ")
}
