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

// meterFuncs are the functions that metered code calls, in the order in which
// rewrite has it import them. They are not among the host modules: guests cannot
// import them (rewrite refuses that), and they do not count as host calls.
var meterFuncs = []struct {
	name            string
	call            api.GoModuleFunc
	params, results []api.ValueType
}{
	{rewrite.DefaultFunc, func(ctx context.Context, _ api.Module, stack []uint64) {
		stack[0] = uint64(ctx.Value(runKey{}).(*run).refill())
	}, nil, []api.ValueType{api.ValueTypeI64}},
	{rewrite.LimitFunc, func(ctx context.Context, _ api.Module, stack []uint64) {
		ctx.Value(runKey{}).(*run).atLimit(uint32(stack[0]), stack[1])
	}, []api.ValueType{api.ValueTypeI32, api.ValueTypeI64}, nil},
}

// exportMeter instantiates the meterFuncs.
func exportMeter(ctx context.Context, rt wazero.Runtime) (*hostModule, error) {
	b := rt.NewHostModuleBuilder(rewrite.DefaultModule)
	for _, f := range meterFuncs {
		b = b.NewFunctionBuilder().WithGoModuleFunction(f.call, f.params, f.results).Export(f.name)
	}
	compiled, err := b.Compile(ctx)
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
		if n = min(n, limit-min(limit, r.others+r.granted)); n == 0 {
			r.halt(FuelHit, fuelText, limit)
		}
	}
	r.granted += n
	return int64(n)
}

// atLimit is told by metered code of a limit that it has come to.
func (r *run) atLimit(which uint32, n uint64) {
	switch which {
	case rewrite.LimitMemory:
		r.memory.refused(n * pageSize)
	case rewrite.LimitStack:
		r.halt(StackHit, "called too deep: its calls take more than the %d MiB of stack that a guest has; a recursion that does not end, or one for each level of what it was given", rewrite.StackSize>>20)
	}
}

// burned is the fuel that an instance has used so far, by its counter. It depends
// on the module and what it was given alone, not on the machine.
func (r *run) burned(counter api.MutableGlobal) uint64 {
	left := int64(counter.Get())
	return uint64(max(int64(r.granted)-left, 0))
}
