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
const ownHandles = 16

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
	turn   *turns.Turn
	back   transport.Back
}

// work is what a asks for.
func (h *Host) work(ctx context.Context, a *policy.Accepted, found *module.Found) (work, error) {
	if id := a.Script().Logic.Undo; id != (script.ID{}) {
		return undo{h, id}, nil
	}
	if a.Script().Logic.Decide != (script.Decision{}) {
		return nil, nil // what the script does that it is about is found when that is found
	}
	p, err := found.Program(ctx, h.engine)
	return program{h, p}, err
}

// program is the work of a script that runs code.
type program struct {
	*Host
	code *engine.Program
}

func (p program) digest() script.Digest { return p.code.Digest() }

// readsOnly reports whether a program says of itself that it only reads. It is
// then held to it: it runs on a transaction that cannot write.
func (p program) readsOnly() bool {
	m := p.code.Manifest()
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
	parties, tx, guard, turn, h := in.Parties(), in.tx, in.guard, in.turn, p.Host
	if err := turn.Begin(ctx); err != nil {
		return engine.Output{}, err
	}
	defer turn.End()
	handles := h.limitFiles(tx, in.Accepted)
	ctx, files := wasi.Mount(ctx, tx.Files(guard), wasi.Config{Handles: handles, Senses: guard})
	output, err := h.engine.Run(ctx, p.code, engine.Call{
		Entry:  in.Script().Entry,
		Params: in.Script().Params,
		Name:   in.Code().Name,
		Limits: h.limits(in.Accepted),
		Turn:   turn,
		State: state{
			caller:  h.callerOf(in.Accepted, in.target, tx, turn, in.back),
			target:  contexts.Local(string(parties.Target.ID), string(parties.Target.Name), tx.Files(guard), tx.records.As(watchedRecords{guard}), h.report),
			others:  others{entry: in.Script().Entry},
			watched: guard,
		},
	})
	output.Log, err = in.kept(output.Log, err)
	if failure := files.Close(); failure != nil {
		// The storage failed and the guest was told of an I/O error. Whatever it
		// made of that must not be committed.
		return output, fmt.Errorf("files of %s: %w", in.target.entry.Name, failure)
	}
	if err == nil {
		err = tx.records.Flush(ctx)
	}
	return output, err
}

// state is what the host functions of one run find.
type state struct {
	caller, target contexts.Context
	others         others
	*watched
}

func (s state) Caller() contexts.Context { return s.caller }
func (s state) Target() contexts.Context { return s.target }
func (s state) Modules() modules.Modules { return s.others }

// kept is what may be kept of the log of a run: all, or nothing. It is what the
// script's author and its caller read, and so a way out for what the script has
// read.
func (in running) kept(log []byte, err error) ([]byte, error) {
	var failure *engine.Failure
	failed := errors.As(err, &failure)
	if len(log) == 0 && (!failed || len(failure.Log) == 0) || in.Target().May(policy.Log) == nil {
		return log, err
	}
	if failed {
		silent := *failure
		silent.Log = nil
		err = &silent
	}
	return nil, err
}

// Clock implements wasi.Senses.
func (w *watched) Clock() bool {
	err := w.grants.May(policy.Clock)
	w.trace.saw(policy.Clock, "", err)
	return err == nil
}

// Random implements wasi.Senses.
func (w *watched) Random() bool {
	err := w.grants.May(policy.Random)
	w.trace.saw(policy.Random, "", err)
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
	mu     sync.Mutex
	denied []*policy.DeniedError
	more   int
	asked  atomic.Bool // something of the context was asked for, whatever the answer
	trace  *trace      // of a rehearsal; else nil
}

const maxDenied = 3 // in one receipt's message

func watching(grants *policy.Grants) *watched { return &watched{guard: guard{grants}} }

func (w *watched) Allow(op store.Op, path string) error {
	w.asked.Store(true)
	err := w.guard.Allow(op, path)
	w.trace.saw(actions[op], path, err)
	if op == store.OpStat {
		return err
	}
	return w.note(err)
}

// note remembers a denial.
func (w *watched) note(err error) error {
	var denied *policy.DeniedError
	if !errors.As(err, &denied) {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.denied {
		if d.Action == denied.Action && d.Path == denied.Path {
			return err
		}
	}
	if len(w.denied) < maxDenied {
		w.denied = append(w.denied, denied)
	} else {
		w.more++
	}
	return err
}

// String tells what was denied, and how to allow it.
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
	}
	if w.more > 0 {
		fmt.Fprintf(&b, " and more")
	}
	return b.String()
}
