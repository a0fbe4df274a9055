//go:build wasmtime

package wasmtime

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/circles-host/circles/host/engine"
)

// version is that of Wasmtime in this build.
const version = "wasmtime 39.0.1"

// pageSize is that of WebAssembly's memories.
const pageSize = 65536

// Machine runs guests with Wasmtime. Make it with New. Any number of engines may
// share it.
type Machine struct {
	engine *wasmtime.Engine
}

// New makes a Machine.
func New() *Machine {
	c := wasmtime.NewConfig()
	c.SetWasmThreads(false)
	c.SetWasmReferenceTypes(true)
	c.SetWasmSIMD(true)
	c.SetWasmRelaxedSIMD(false)
	c.SetWasmBulkMemory(true)
	c.SetWasmMultiValue(true)
	c.SetWasmMultiMemory(false)
	c.SetWasmMemory64(false)
	c.SetWasmTailCall(true)
	c.SetWasmFunctionReferences(false)
	c.SetWasmGC(false)
	c.SetWasmWideArithmetic(false)
	c.SetConsumeFuel(false)         // the code has its own
	c.SetEpochInterruption(false)   // and asks the host by itself
	c.SetParallelCompilation(false) // the engine compiles one module for each processor
	c.SetMaxWasmStack(stack())
	return &Machine{wasmtime.NewEngineWithConfig(c)}
}

// String implements engine.Machine.
func (m *Machine) String() string { return version }

// Compile implements engine.Machine.
func (m *Machine) Compile(wasm []byte) (engine.Code, error) {
	module, err := wasmtime.NewModule(m.engine, wasm)
	if err != nil {
		return nil, err
	}
	c := &code{engine: m.engine, module: module, linker: wasmtime.NewLinker(m.engine)}
	c.linker.AllowShadowing(true) // a module may import a function twice
	imports := module.Imports()
	for i, imp := range imports {
		typ, name := imp.Type().FuncType(), imp.Name()
		if typ == nil || name == nil {
			c.Close()
			return nil, fmt.Errorf("import %q of %q is not a function", *name, imp.Module())
		}
		if err := c.define(i, imp.Module(), *name, typ); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// code is a compiled module. It implements engine.Code.
type code struct {
	engine *wasmtime.Engine
	module *wasmtime.Module
	linker *wasmtime.Linker
}

// define makes the function that import i calls, for the instances of all stores.
func (c *code) define(i int, module, name string, typ *wasmtime.FuncType) error {
	params, results := typ.Params(), typ.Results()
	n := max(len(params), len(results))
	kinds := make([]wasmtime.ValKind, len(results))
	for k, t := range results {
		kinds[k] = t.Kind()
	}
	return c.linker.FuncNew(module, name, typ, func(caller *wasmtime.Caller, args []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
		in := caller.Data().(*instance)
		stack := make([]uint64, n)
		for k, a := range args {
			stack[k] = bits(a)
		}
		if err := in.call(i, stack); err != nil {
			in.ended = err
			return nil, wasmtime.NewTrap("host function")
		}
		out := make([]wasmtime.Val, len(kinds))
		for k, kind := range kinds {
			out[k] = value(kind, stack[k])
		}
		return out, nil
	})
}

// Close implements engine.Code.
func (c *code) Close() {
	c.linker.Close()
	c.module.Close()
}

// instance is an instance in a store of its own. It implements engine.Instance.
type instance struct {
	store *wasmtime.Store
	inst  *wasmtime.Instance
	call  func(int, []uint64) error
	ended error // what a host function ended the guest with
}

// Instantiate implements engine.Code.
func (c *code) Instantiate(most uint64, call func(int, []uint64) error) (engine.Instance, error) {
	in := &instance{call: call}
	in.store = wasmtime.NewStoreWithData(c.engine, in)
	in.store.Limiter(int64(min(most, math.MaxInt64)), -1, 1, -1, 1)
	var err error
	if in.inst, err = c.linker.Instantiate(in.store, c.module); err != nil {
		in.Close()
		return nil, trap(err)
	}
	return in, nil
}

// Call implements engine.Instance.
func (in *instance) Call(function string, stack []uint64) error {
	f := in.inst.GetFunc(in.store, function)
	if f == nil {
		return fmt.Errorf("call %s: it is not exported", function)
	}
	params := f.Type(in.store).Params()
	args := make([]any, len(params))
	for i, t := range params {
		args[i] = value(t.Kind(), stack[i])
	}
	result, err := f.Call(in.store, args...)
	if ended := in.ended; ended != nil && err != nil {
		in.ended = nil
		return ended
	}
	switch v := result.(type) {
	case int32:
		stack[0] = uint64(uint32(v))
	case int64:
		stack[0] = uint64(v)
	}
	return trap(err)
}

func (in *instance) memory(export string) *wasmtime.Memory {
	return in.inst.GetExport(in.store, export).Memory()
}

// Memory implements engine.Instance.
func (in *instance) Memory(export string) []byte {
	m := in.memory(export)
	size := m.DataSize(in.store)
	if size == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(m.Data(in.store)), size)
}

// Grow implements engine.Instance.
func (in *instance) Grow(export string, size uint64) error {
	m := in.memory(export)
	pages := size / pageSize
	if have := m.Size(in.store); have < pages {
		_, err := m.Grow(in.store, pages-have)
		return err
	}
	return nil
}

// Global implements engine.Instance.
func (in *instance) Global(export string) uint64 {
	return bits(in.inst.GetExport(in.store, export).Global().Get(in.store))
}

// SetGlobal implements engine.Instance.
func (in *instance) SetGlobal(export string, v uint64) {
	g := in.inst.GetExport(in.store, export).Global()
	if err := g.Set(in.store, value(g.Type(in.store).Content().Kind(), v)); err != nil {
		panic(fmt.Errorf("set global %s: %w", export, err))
	}
}

// Close implements engine.Instance.
func (in *instance) Close() { in.store.Close() }

// bits is a value as the engine has it.
func bits(v wasmtime.Val) uint64 {
	switch v.Kind() {
	case wasmtime.KindI32:
		return uint64(uint32(v.I32()))
	case wasmtime.KindI64:
		return uint64(v.I64())
	case wasmtime.KindF32:
		return uint64(math.Float32bits(v.F32()))
	case wasmtime.KindF64:
		return math.Float64bits(v.F64())
	}
	panic(fmt.Errorf("a value of kind %v crosses to the host", v.Kind()))
}

// value is the reverse of bits.
func value(kind wasmtime.ValKind, v uint64) wasmtime.Val {
	switch kind {
	case wasmtime.KindI32:
		return wasmtime.ValI32(int32(v))
	case wasmtime.KindI64:
		return wasmtime.ValI64(int64(v))
	case wasmtime.KindF32:
		return wasmtime.ValF32(math.Float32frombits(uint32(v)))
	case wasmtime.KindF64:
		return wasmtime.ValF64(math.Float64frombits(v))
	}
	panic(fmt.Errorf("a value of kind %v crosses to the guest", kind))
}

// reasons are Wasmtime's traps by the names that the engine has for them.
var reasons = map[wasmtime.TrapCode]string{
	wasmtime.StackOverflow:          engine.TrapStackExhausted,
	wasmtime.MemoryOutOfBounds:      engine.TrapMemory,
	wasmtime.TableOutOfBounds:       engine.TrapTable,
	wasmtime.IndirectCallToNull:     engine.TrapTable,
	wasmtime.BadSignature:           engine.TrapSignature,
	wasmtime.IntegerOverflow:        engine.TrapIntegerRange,
	wasmtime.IntegerDivisionByZero:  engine.TrapDivideByZero,
	wasmtime.BadConversionToInteger: engine.TrapNotANumber,
	wasmtime.UnreachableCodeReached: engine.TrapUnreachable,
}

// trap is err as an *engine.Trap, if it is one.
func trap(err error) error {
	var t *wasmtime.Trap
	if !errors.As(err, &t) {
		return err
	}
	defer t.Close()
	code := t.Code()
	if code == nil || reasons[*code] == "" {
		return fmt.Errorf("wasmtime: %s", t.Message())
	}
	out := &engine.Trap{Reason: reasons[*code]}
	for _, f := range t.Frames() {
		out.Stack = append(out.Stack, f.FuncIndex())
	}
	return out
}
