package engine

import (
	"context"
	"errors"

	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/host/engine/rewrite"
)

// nest makes the run of a call that a host function makes for its guest.
//
// All that runs for one script shares one set of limits: each counter goes on from
// where the outer run is, and the outer goes on from where this one ended. So it does
// not matter to any limit whether a guest does something itself or calls another
// that does. Memory and the stack are given back when this run is over. Results are
// bounded one by one: they pass from hand to hand.
func (e *Engine) nest(ctx context.Context, c *Call) (*run, error) {
	outer, ok := ctx.Value(runKey{}).(*run)
	if !ok || outer.mod == nil || outer.free {
		return nil, errors.New("run: a nested call needs the context of a run, in a host function that the run has called")
	}
	r := e.newRun(ctx, outer.limits, &Call{State: c.State, Params: c.Params, Turn: outer.turn, Quiet: c.Quiet})
	r.outer = outer
	r.init(ctx, e.ctx, outer.at)
	r.others, r.hostCalls = outer.total(), outer.hostCalls
	r.memory.limit = outer.memory.limit - min(outer.memory.limit, outer.size())
	r.log.n = r.outermost().log.n
	return r, nil
}

// settle charges the outer run with what this one has used, and leaves in u what this
// one and those nested in it have.
func (r *run) settle(u *Usage) {
	o := r.outer
	u.Fuel -= o.total()
	u.HostCalls -= o.hostCalls
	u.Log = r.outermost().log.n - r.log.n
	o.others += u.Fuel
	o.hostCalls = r.hostCalls
	o.memory.peak = max(o.memory.peak, o.size()+r.memory.peak)
	if limit := o.limits.Fuel; limit > 0 {
		// What the outer was granted and has not burned, it may not have any more.
		left, counter := limit-min(limit, o.total()), o.counter()
		if have := counter.Get(); int64(have) > 0 && have > left {
			o.granted -= have - left
			counter.Set(left)
		}
	}
}

// total is the fuel that was burned so far, by all.
func (r *run) total() uint64 { return r.others + r.burned(r.counter()) }

func (r *run) counter() api.MutableGlobal { return r.global(r.mod, rewrite.FuelGlobal) }

// size is how much memory the guest has now.
func (r *run) size() uint64 {
	if m := r.mod.Memory(); m != nil {
		return uint64(m.Size())
	}
	return 0
}

// outermost is the run that is nested in none: limits, time and log are its.
func (r *run) outermost() *run {
	for r.outer != nil {
		r = r.outer
	}
	return r
}
