package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/imports/log"
	"github.com/circles-host/circles/host/imports/modules"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/turns"
)

// HostModules are the host functions that scripts find. A tool that compiles
// modules without running them needs them too, to tell what is offered.
func HostModules() []engine.HostModule {
	return []engine.HostModule{wasi.Module(), contexts.Module(), log.Module(), modules.Module()}
}

// ownHandles is how many files a script's transaction may have open beside those
// that the script has: what is preopened, and what host functions read.
// For each of the modules that run one within the other there is one.
const ownHandles = 2 * maxDepth

// work is what an accepted script has done in its transaction.
type work interface {
	// readsOnly reports whether it changes nothing, and is held to that.
	readsOnly() bool
	digest() script.Digest // of the code; zero if none runs
	do(ctx context.Context, in running) (engine.Output, error)
}

// running is the transaction that work is done in, and what belongs to it.
type running struct {
	*policy.Accepted
	target *peerContext
	tx     transaction
	guard  *watched
	sends  *sends
	turn   *turns.Turn
	back   transport.Back
}

// work is what a asks for.
func (h *Host) work(ctx context.Context, a *policy.Accepted, target *peerContext, found *module.Found) (work, error) {
	if sealed := a.Script().Logic.Revoke; len(sealed) > 0 {
		return takeBack{sealed}, nil
	}
	if id := a.Script().Logic.Undo; id != (script.ID{}) {
		return undo{h, id}, nil
	}
	if a.Script().Logic.Decide != (script.Decision{}) {
		return nil, nil // what the script does that it is about is found when that is found
	}
	return h.program(ctx, target, found)
}

// program is the work of a script that runs code.
type program struct {
	*Host
	found *module.Found  // what the script asked for
	line  []module.Place // what runs for it, if a compose file puts anything before it; else nil
}

// program compiles all that will run first, so that no transaction waits for that.
func (h *Host) program(ctx context.Context, target *peerContext, found *module.Found) (p program, err error) {
	p = program{Host: h, found: found}
	if found.Composed(target.modules, h.modules) {
		if p.line, err = found.Line(target.modules, h.modules); err != nil {
			return p, err
		}
		for _, place := range p.line {
			if _, err = place.Program(ctx, h.engine); err != nil {
				return p, fmt.Errorf("module %s: %w", place.Name, err)
			}
		}
	}
	_, err = found.Program(ctx, h.engine)
	return p, err
}

func (p program) digest() script.Digest { return p.found.Digest }

// readsOnly reports whether a program says of itself that it only reads, as what is
// put before it does. It is then held to it, with all that it calls: it runs on a
// transaction that cannot write.
func (p program) readsOnly() bool {
	for _, place := range p.line {
		if !readsOnly(place.Manifest) {
			return false
		}
	}
	return readsOnly(p.found.Manifest)
}

func readsOnly(m *engine.Manifest) bool {
	if m == nil || len(m.Needs) == 0 {
		return false
	}
	for _, need := range m.Needs {
		if !script.Action(need.Action).Reads() {
			return false
		}
	}
	return true
}

// do runs the program in a fresh instance, bound to one transaction of its target,
// under the script's grants.
func (p program) do(ctx context.Context, in running) (engine.Output, error) {
	if err := in.turn.Begin(ctx); err != nil {
		return engine.Output{}, err
	}
	defer in.turn.End()
	c := newCalls(p, in)
	defer c.release()
	output, err := c.first(ctx)
	in.guard.parts = c.parts
	if in.sends.stuck != nil {
		err = in.sends.stuck // whatever they made of that
	}
	if err == nil {
		err = in.tx.records.Flush(ctx)
	}
	return output, err
}

// state is what the host functions of one run find.
type state struct {
	caller, target contexts.Context
	modules        modules.Modules
	*watched
}

func (s state) Caller() contexts.Context { return s.caller }
func (s state) Target() contexts.Context { return s.target }
func (s state) Modules() modules.Modules { return s.modules }

// Clock implements wasi.Senses.
func (w *watched) Clock() bool {
	err := w.grants.May(policy.Clock)
	w.all().trace.saw(w.grants, policy.Clock, "", err)
	return err == nil
}

// Random implements wasi.Senses.
func (w *watched) Random() bool {
	err := w.grants.May(policy.Random)
	w.all().trace.saw(w.grants, policy.Random, "", err)
	return w.note(err) == nil
}

// codeOf tells policy what code asks to run; found is nil when there is none.
func codeOf(found *module.Found) policy.Code {
	if found == nil {
		return policy.Code{}
	}
	return policy.Code{
		Found: true, Digest: found.Digest, Name: found.Name, Layer: found.Layer,
		Size: int64(found.Size), Imports: found.Modules(), Language: found.Language, Text: found.Text(),
		Publisher: found.Publisher, Types: found.Manifest.Types(),
		Instead: found.Instead,
	}
}

// guard asks a script's grants about each access to the files of a context.
type guard struct{ grants *policy.Grants }

var actions = map[store.Op]script.Action{
	store.OpRead: script.Read, store.OpList: script.List, store.OpWrite: script.Write, store.OpRemove: script.Remove,
}

// Allow implements store.Guard. What a path is may be asked by whoever may do
// anything with it: a program that may only write a file still has to look
// whether it is there.
func (g guard) Allow(op store.Op, path string) error {
	if op != store.OpStat {
		return shown(g.grants.Allow(actions[op], path))
	}
	var first error
	for _, action := range [...]script.Action{script.Read, script.List, script.Write, script.Remove} {
		err := shown(g.grants.Allow(action, path))
		if err == nil {
			return nil
		}
		if first == nil || errors.Is(err, store.ErrHidden) {
			first = err
		}
	}
	return first
}

// shown is a denial as the file system shows it.
func shown(err error) error {
	var denied *policy.DeniedError
	if errors.As(err, &denied) && denied.Verdict.Hidden {
		return store.ErrHidden
	}
	return err
}

// watched is a guard that remembers what it denied, for the receipt of a script
// that then fails.
type watched struct {
	guard
	of     *watched // the script's own, which remembers, where this is that of a module that runs for it
	mu     sync.Mutex
	denied []*policy.DeniedError
	more   int
	asked  atomic.Bool   // something of the context was asked for, whatever the answer
	wrote  atomic.Int64  // how often it was allowed to change something
	trace  *trace        // of a rehearsal; else nil
	parts  []script.Part // that took part, if it is not one alone; set when they have ended
	sends  sends
}

// names has what the run sends named in its receipt.
func (w *watched) names(r *script.Receipt) *sends {
	w.sends.receipt = r
	return &w.sends
}

const maxDenied = 3 // in one receipt's message

func watching(grants *policy.Grants) *watched { return &watched{guard: guard{grants}} }

// under is w for a module with other grants that runs for the same script.
func (w *watched) under(grants *policy.Grants) *watched {
	return &watched{guard: guard{grants}, of: w.all()}
}

// all is what remembers for all modules of the script.
func (w *watched) all() *watched {
	if w.of != nil {
		return w.of
	}
	return w
}

func (w *watched) Allow(op store.Op, path string) error {
	err := w.guard.Allow(op, path)
	w.saw(actions[op], path, err)
	if op == store.OpStat {
		return err
	}
	return w.note(err)
}

// saw writes down what was asked for, and the answer.
func (w *watched) saw(action script.Action, path string, err error) {
	all := w.all()
	all.asked.Store(true)
	if err == nil && action != "" && action != policy.Call && !action.Reads() {
		all.wrote.Add(1)
	}
	all.trace.saw(w.grants, action, path, err)
}

// note remembers a denial.
func (w *watched) note(err error) error {
	var denied *policy.DeniedError
	if !errors.As(err, &denied) {
		return err
	}
	all := w.all()
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, d := range all.denied {
		if d.Action == denied.Action && d.Path == denied.Path && d.Module == denied.Module {
			return err
		}
	}
	if len(all.denied) < maxDenied {
		all.denied = append(all.denied, denied)
	} else {
		all.more++
	}
	return err
}

// String tells what was denied, and to which module if not to the script's own.
func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.denied) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("it was denied:")
	for i, d := range w.denied {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(" " + strings.TrimSpace(string(d.Action)+" "+d.Path))
		if own := w.grants.Module(); d.Module != own {
			b.WriteString(" to " + d.Module)
		}
	}
	if w.more > 0 {
		fmt.Fprintf(&b, " and more")
	}
	return b.String()
}
