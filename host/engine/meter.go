package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/host/engine/rewrite"
)

// slice is how much fuel a guest gets at a time: about a third of a
// millisecond, after which the host looks at the clock. Go's garbage collector,
// which waits for guests since their code cannot be preempted, waits no longer
// than that.
const slice = 1 << 20

const fuelText = "stopped after its limit of %d units of fuel"

// exportMeter instantiates the function that metered code calls for more fuel.
// It is not among the host modules: guests cannot import it (rewrite refuses that), and it
// does not count as a host call.
func exportMeter(ctx context.Context, rt wazero.Runtime) (*hostModule, error) {
	compiled, err := rt.NewHostModuleBuilder(rewrite.DefaultModule).
		NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) {
			stack[0] = uint64(ctx.Value(runKey{}).(*run).refill())
		}), nil, []api.ValueType{api.ValueTypeI64}).
		Export(rewrite.DefaultFunc).
		Compile(ctx)
	if err != nil {
		return nil, fmt.Errorf("add meter: %w", err)
	}
	// Not Builder.Instantiate: what that returns cannot be resolved to.
	meter, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName(rewrite.DefaultModule))
	if err != nil {
		return nil, fmt.Errorf("add meter: %w", err)
	}
	return &hostModule{name: rewrite.DefaultModule, module: meter, compiled: compiled}, nil
}

// refill grants the next slice, or ends the guest, on the guest's own goroutine.
func (r *run) refill() int64 {
	if r.turn != nil {
		r.turn.Slice()
	}
	r.check()
	// Not by the context alone: its timer needs a processor to fire on, and
	// guests may occupy all of them.
	if !time.Now().Before(r.at) {
		r.haltContext(context.DeadlineExceeded)
	}
	n := uint64(slice)
	if limit := r.limits.Fuel; limit > 0 {
		if n = min(n, limit-r.granted); n == 0 {
			r.halt(FuelHit, fuelText, limit)
		}
	}
	r.granted += n
	return int64(n)
}

// burned is the fuel that an instance has used so far, by its counter. It depends
// on the module and what it was given alone, not on the machine.
func (r *run) burned(counter api.Global) uint64 {
	left := int64(counter.Get())
	return uint64(max(int64(r.granted)-left, 0))
}
