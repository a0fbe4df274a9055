package rewrite

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

// A meterHost is the host's side of metering: it grants slices up to a limit,
// and then ends the guest.
type meterHost struct {
	slice int64
	limit int64 // 0: none

	granted int64
	refills int
}

const outOfFuel = 77 // the exit code that a meterHost ends guests with

func (h *meterHost) instantiate(ctx context.Context, t testing.TB, rt wazero.Runtime) {
	t.Helper()
	_, err := rt.NewHostModuleBuilder(DefaultModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
			stack[0] = uint64(h.refill())
		}), nil, []api.ValueType{api.ValueTypeI64}).Export(DefaultFunc).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
}

func (h *meterHost) refill() int64 {
	h.refills++
	n := h.slice
	if h.limit > 0 {
		n = min(n, h.limit-h.granted)
	}
	if n <= 0 {
		panic(sys.NewExitError(outOfFuel))
	}
	h.granted += n
	return n
}

// burned is the fuel that m has used of what was granted.
func (h *meterHost) burned(m api.Module) int64 {
	return h.granted - int64(m.ExportedGlobal(FuelGlobal).Get())
}
