package host

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Rehearsal is what would become of a script.
type Rehearsal struct {
	// Receipt is what its caller would be told. Nobody has signed it, and it is in
	// no log.
	Receipt script.Receipt
	// Accesses are what it asked of its target, in the order in which it first did.
	Accesses []Access
	More     int // accesses of other files and records, beyond maxTraced
}

// Access is something that a script asked to do, and the answer.
type Access struct {
	// Action is "" for a look at what a path is: whoever may do anything with it
	// may have that.
	Action  script.Action
	Path    string // "" for the clock and chance; of a call the module
	Module  string // which asked, by its name; "" for code that the script carried
	Count   int
	Allowed bool
	// By are the policies that allowed or forbade it; none if it is denied because
	// no policy permits it.
	By     []string
	Reason string // why it was denied
	// Lacks is the module that it was denied to: Module, or one that called that, which
	// may do no more than both.
	Lacks string

	grants *policy.Grants // of the module
}

// Look is how an Access without an Action is called.
const Look = "look"

// maxTraced bounds the accesses that a rehearsal tells apart: a script makes up
// paths as fast as it can.
const maxTraced = 1000

// trace writes down what a script asks. The nil trace writes nothing.
type trace struct {
	mu   sync.Mutex
	list []Access
	at   map[traced]int
	more int
}

// traced is what tells accesses apart.
type traced struct {
	script.Grant
	module string
}

func (t *trace) saw(of *policy.Grants, action script.Action, path string, err error) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	asked := traced{script.Grant{Action: action, Path: path}, of.Module()}
	if i, ok := t.at[asked]; ok {
		t.list[i].Count++
		return
	}
	if len(t.list) == maxTraced {
		t.more++
		return
	}
	t.at[asked] = len(t.list)
	t.list = append(t.list, Access{Action: action, Path: path, Module: asked.module, Count: 1, Allowed: err == nil, grants: of})
}

// explained is what was written down, with the policies that decided.
func (t *trace) explained() []Access {
	for i := range t.list {
		a := &t.list[i]
		actions := []script.Action{a.Action}
		if a.Action == "" {
			actions = []script.Action{script.Read, script.List, script.Write, script.Remove}
		}
		for _, action := range actions {
			x := a.grants.Why(policy.Need{Action: action, Path: a.Path})
			if x.Denied == nil {
				a.By, a.Reason, a.Lacks = x.By, "", ""
				break
			}
			if a.Reason == "" {
				a.Lacks = x.Denied.Module
				a.By, a.Reason = x.Denied.Verdict.Policies, cmp.Or(x.Denied.Reason, x.Denied.Verdict.String())
			}
		}
	}
	return t.list
}

// Rehearse does s as Deliver would, for the owner of its target, under set instead
// of the policies in force if it is not nil. Nobody need have signed s. Nothing of
// it is kept: the transaction is dropped, no log has a receipt, and nobody's budget
// is used or looked at. What it is told is for the owner alone, since it says what
// policies say.
func (h *Host) Rehearse(ctx context.Context, s script.Script, set *policy.Set) (Rehearsal, error) {
	verified, err := envelope.Suppose(s)
	if err != nil {
		return Rehearsal{}, err
	}
	target, release, err := h.contexts.enter(ctx, verified.Script())
	if err != nil {
		return Rehearsal{}, err
	}
	defer release()
	if set == nil {
		set = target.policies.Current()
	}
	found, missing := module.Find(s.Logic, target.modules, h.modules)
	if missing == nil {
		defer found.Release()
	}
	r := h.receiptOf(verified)
	accepted, err := set.Accept(verified, target.meet(s.Caller), codeOf(found), policy.Occasion{Now: h.now(), Transport: "http"})
	if err = cmp.Or(orPins(err, missing), missing); err != nil {
		r.Code, r.Message = h.codeOf(err)
		var refused *policy.RefusedError
		if errors.As(err, &refused) {
			r.Policies = refused.Verdict.Policies
		}
		return Rehearsal{Receipt: r.Receipt}, nil
	}
	work, err := h.work(ctx, accepted, target, found)
	if err != nil {
		r.Code, r.Message = h.codeOf(err)
		return Rehearsal{Receipt: r.Receipt}, nil
	}
	if reviewed(accepted) && !s.Within.IsZero() { // and not for its owner
		r.Code, r.Message = script.Refused, label(accepted.Parties().Target)+" looks at what this would do before it is done, and nobody else does"
		return Rehearsal{Receipt: r.Receipt}, nil
	}
	turn, err := h.share(ctx, accepted)
	if err != nil {
		return Rehearsal{}, err
	}
	defer turn.Leave()
	ctx, cancel := h.deadline(ctx, accepted)
	defer cancel()
	r = h.receipt(accepted, work)
	w := watching(accepted.Target())
	w.trace = &trace{at: map[traced]int{}}
	w.sends.try = true
	err = target.updates(accepted)(ctx, func(of store.Tx) error {
		tx := target.transaction(of, work.readsOnly())
		output, err := work.do(ctx, running{accepted, target, tx, w, w.names(&r.Receipt), turn, nil})
		if r.files, r.Parts = tx.Usage(), w.parts; err == nil {
			err = r.done(ctx, output, tx, accepted, target.history)
		}
		if err == nil {
			err = errDryRun // whatever happened, nothing is committed
		}
		return err
	})
	if stands(err) {
		return Rehearsal{}, err
	}
	if !errors.Is(err, errDryRun) {
		r.failed(h, accepted, err, w)
	}
	r.Finished = h.now()
	w.trace.mu.Lock() // what is left of the script may still ask
	defer w.trace.mu.Unlock()
	return Rehearsal{Receipt: r.Receipt, Accesses: slices.Clone(w.trace.explained()), More: w.trace.more}, nil
}
