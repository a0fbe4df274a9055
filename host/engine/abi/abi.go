// Package abi is the Component Model's Canonical ABI on core WebAssembly
// modules: how strings, lists, records, results and handles cross between a
// guest's linear memory and the host.
//
// The engine wraps each run in Enter and calls a reactor's entry with
// CallBytes:
//
//	ctx, inst := abi.Enter(ctx)
//	defer inst.Close()
//	result, errText, isErr, err := abi.CallBytes(ctx, mod, "run", params, abi.Options{})
//
// A host function is declared by its WIT signature as a Func, and written
// against a Call, which lifts its arguments and lowers its result. It never
// sees an offset or an api.Memory:
//
//	var size = abi.Func{
//		Name:   "[method]context.size",
//		Params: []*abi.Type{abi.Borrow(kind), abi.String},
//		Result: abi.Result(abi.U64, abi.String),
//		Do: func(c *abi.Call) {
//			self := abi.Self[Context](c)
//			path, _ := c.String(4096)
//			n, err := self.Size(c.Context(), path)
//			if err != nil {
//				c.Result().Case(abi.Err).String(err.Error())
//				return
//			}
//			c.Result().Case(abi.Ok).U64(n)
//		},
//	}
//
// # Trust
//
// Whatever a guest hands over is hostile. Each pointer is checked for bounds
// and alignment, each discriminant, handle and string for validity, and each
// pointer that its cabi_realloc returns likewise; nothing is allocated for a
// length before the guest's memory is known to hold that many bytes. What fails
// a check is a *Violation. In a host function it is a panic, which the
// WebAssembly runtime turns into a trap of this one guest.
//
// Memory is read and written through bounds-checked accessors only, and what is
// lifted is a copy: the guest's memory may move whenever guest code runs, which
// includes every lowering (cabi_realloc), and may be unmapped after the run.
//
// # Source
//
// Sections named in this package are those of
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md.
// Where the package departs from it:
//
//   - Empty lists and strings are lowered with a dangling aligned pointer (their
//     alignment) instead of calling cabi_realloc for zero bytes.
//   - Guest code that runs inside cabi_realloc may call host functions, to a
//     small depth ("may_leave" would forbid it). A Go guest's scheduler can run
//     another goroutine there, at the garbage collector's whim.
//   - Strings are UTF-8 only.
package abi

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

// Violation is a breach of the Canonical ABI by the guest. The fault lies in
// the module's bindings, or the module is hostile.
type Violation struct {
	Func   string // the host function or entry that was being called, as imported or exported
	Detail string
}

func (v *Violation) Error() string {
	if v.Func == "" {
		return "canonical ABI violation: " + v.Detail
	}
	return "canonical ABI violation in " + v.Func + ": " + v.Detail
}

func violation(format string, args ...any) *Violation {
	return &Violation{Detail: fmt.Sprintf(format, args...)}
}

// reallocName is what wit-bindgen, wit-component and our SDKs call it.
const reallocName = "cabi_realloc"

// maxDepth bounds how deep guest code that runs inside cabi_realloc may call
// back into host functions that call cabi_realloc again. Each level has a
// WebAssembly stack of its own, up to 100 MB, and Go stack besides; unbounded,
// a guest could exhaust either.
const maxDepth = 3

// Instance is what the ABI keeps for one instance of a module: its handles and
// its realloc function. It lives for one run and belongs to the goroutine that
// runs it.
type Instance struct {
	Handles Table

	mod       api.Module // the first that was seen; mem and realloc are its
	mem       api.Memory
	realloc   api.Function
	depth     int32 // nested calls of cabi_realloc
	inRealloc bool  // realloc is running: it must not be entered again, see alloc
	inThrough bool
	// through and its calls are as Options have them; it must not be entered while
	// it runs either.
	through api.Function
	calls   map[string]uint32
	// One for each depth, so that a host call allocates neither. Many runs make no
	// host call.
	hostCalls  [maxDepth + 1]*Call
	stack      [5]uint64 // of cabi_realloc; deeper ones have their own
	entryStack [5]uint64
}

type instanceKey struct{}

// Enter returns a context for one run of one fresh instance. Host functions
// that are called with it, or with contexts derived from it, share the Instance.
func Enter(ctx context.Context) (context.Context, *Instance) {
	inst := new(Instance)
	return context.WithValue(ctx, instanceKey{}, inst), inst
}

// Value is for a context that is itself a run, and holds its Instance: what Enter
// would have it find, or nil.
func (inst *Instance) Value(key any) any {
	if _, ok := key.(instanceKey); ok {
		return inst
	}
	return nil
}

// Close drops all handles that are left. It is called once, after the run.
func (inst *Instance) Close() {
	inst.Handles.close()
	inst.mod, inst.mem, inst.realloc, inst.through = nil, nil, nil, nil
}

// instanceOf returns the run's Instance, or nil outside of Enter.
func instanceOf(ctx context.Context) *Instance {
	inst, _ := ctx.Value(instanceKey{}).(*Instance)
	return inst
}

// guest is one instance's memory and allocator: all that lifting and lowering
// need. Its methods return *Violation for what the guest did wrong.
type guest struct {
	ctx  context.Context
	inst *Instance
	mod  api.Module
	mem  api.Memory
}

func (g *guest) init(ctx context.Context, inst *Instance, mod api.Module) error {
	mem := inst.mem
	if mem == nil || inst.mod != mod {
		// Not mod.Memory(): without a memory that is a non-nil interface around
		// a nil pointer.
		if mem = mod.ExportedMemory("memory"); mem == nil {
			return violation("the module does not export its memory: export it as \"memory\"")
		}
		if inst.mod == nil {
			inst.mod, inst.mem = mod, mem
		}
	}
	*g = guest{ctx: ctx, inst: inst, mod: mod, mem: mem}
	return nil
}

// check reports whether size bytes at ptr lie inside of the memory, aligned.
// It goes by 64-bit sums: ptr+size may pass 2^32.
func (g *guest) check(what string, ptr, size, align uint32) error {
	if ptr&(align-1) != 0 {
		return violation("%s at %#x is not aligned to %d bytes", what, ptr, align)
	}
	if uint64(ptr)+uint64(size) > uint64(g.mem.Size()) {
		return violation("%s of %d bytes at %#x leaves the memory of %d bytes", what, size, ptr, g.mem.Size())
	}
	return nil
}

// view returns n bytes at ptr without copying them. It is valid until guest
// code runs: never across an alloc, and never given away.
func (g *guest) view(what string, ptr, n uint32) ([]byte, error) {
	if err := g.check(what, ptr, n, 1); err != nil {
		return nil, err
	}
	b, _ := g.mem.Read(ptr, n)
	return b, nil
}

// alloc asks the guest for size bytes. The returned region is in bounds,
// aligned, and not at 0. It may overlap anything that the guest owns: that is
// the guest's affair, since arguments have been copied by now.
//
// Any error that is not a *Violation comes from the guest code that ran (a
// trap, an exit) or from the end of ctx.
func (g *guest) alloc(align, size uint32) (uint32, error) {
	if size == 0 {
		return align, nil
	}
	if err := g.ctx.Err(); err != nil {
		// Lowering a long list is a loop in the host: it ends with the run.
		return 0, fmt.Errorf("lower value: %w", context.Cause(g.ctx))
	}
	inst := g.inst
	if inst.depth >= maxDepth {
		return 0, violation("host functions called inside of %s, inside of host functions, %d deep: allocate without calling the host", reallocName, maxDepth)
	}
	stack := &inst.stack
	if inst.depth > 0 {
		stack = new([5]uint64)
	}
	which, through := inst.calls[reallocName]
	var f api.Function
	if through = through && !inst.inThrough && inst.mod == g.mod; through {
		f = inst.through
		*stack = [5]uint64{uint64(which), 0, 0, uint64(align), uint64(size)}
	} else {
		if f = inst.realloc; f == nil || inst.inRealloc || inst.mod != g.mod {
			// An api.Function must not be entered while it runs: it has one stack.
			// Code inside of realloc that needs realloc again gets one of its own.
			f = g.mod.ExportedFunction(reallocName)
			if f == nil {
				return 0, violation("the module does not export %s, which the host needs to pass it lists and strings: link its bindings in", reallocName)
			}
			if !hasType(f.Definition(), reallocParams, reallocResults) {
				return 0, violation("the module's %s is not of type (i32, i32, i32, i32) -> i32", reallocName)
			}
			if inst.realloc == nil && inst.mod == g.mod {
				inst.realloc = f
			}
		}
		*stack = [5]uint64{0, 0, uint64(align), uint64(size)}
	}
	// One of the two runs: code inside of it that needs the host, which needs
	// realloc again, finds the other free, or is given one of its own.
	running := &inst.inRealloc
	if through {
		running = &inst.inThrough
	}
	outer := *running
	*running = true
	inst.depth++
	err := f.CallWithStack(g.ctx, stack[:])
	inst.depth--
	*running = outer
	if err != nil {
		return 0, guestError(reallocName, err)
	}
	ptr := uint32(stack[0])
	if ptr == 0 {
		return 0, violation("%s returned 0 for %d bytes: the guest is out of memory, and should trap", reallocName, size)
	}
	if err := g.check(reallocName+"'s result", ptr, size, align); err != nil {
		return 0, err
	}
	return ptr, nil
}

var (
	i32            = api.ValueTypeI32
	reallocParams  = []api.ValueType{i32, i32, i32, i32}
	reallocResults = []api.ValueType{i32}
)

// guestError passes on how guest code called by the host ended. An exit stays
// the bare *sys.ExitError: the runtime recognises it by type only.
func guestError(what string, err error) error {
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		return exit
	}
	return fmt.Errorf("call %s: %w", what, err)
}

func hasType(d api.FunctionDefinition, params, results []api.ValueType) bool {
	return string(d.ParamTypes()) == string(params) && string(d.ResultTypes()) == string(results)
}

// size32 returns n*each, or a violation where that is no size in a 32-bit
// memory.
func size32(n int, each uint32) (uint32, error) {
	if uint64(n)*uint64(each) > math.MaxInt32 {
		return 0, violation("%d elements of %d bytes are more than any list may be", n, each)
	}
	return uint32(n) * each, nil
}
