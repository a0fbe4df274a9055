package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/host/engine/rewrite"
)

// Host functions are given wazero's instances: their memory, their exports, and
// for WASI what lies behind them. A guest that a Machine runs has a wazero instance
// that stands in for it there, and at the engine itself. The stand-in has the
// guest's imports and exports, and no code: its memory is the guest's own, its
// functions call the guest's. So there is one set of host functions, and none of
// them can tell.
//
// Globals it has none, see run.global.

// A standin is what a Program has if a Machine runs it.
type standin struct {
	code      Code
	serve     []api.GoModuleFunction // the imports
	exports   []string               // functions, by the number that enter is given
	hasMemory bool
}

// The function by which a stand-in calls its guest: with the number of an export,
// and up to five parameters.
const (
	enterModule = rewrite.ReservedPrefix + "machine"
	enterFunc   = "enter"
	enterParams = 5
)

// exportEnter instantiates the function that stand-ins call.
func exportEnter(ctx context.Context, rt wazero.Runtime) (*hostModule, error) {
	const i64 = api.ValueTypeI64
	compiled, err := rt.NewHostModuleBuilder(enterModule).
		NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) {
			ctx.Value(runKey{}).(*run).memory.native.enter(ctx, stack)
		}), []api.ValueType{api.ValueTypeI32, i64, i64, i64, i64, i64}, []api.ValueType{i64}).
		Export(enterFunc).
		Compile(ctx)
	if err != nil {
		return nil, fmt.Errorf("add machine: %w", err)
	}
	module, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName(enterModule))
	if err != nil {
		return nil, fmt.Errorf("add machine: %w", err)
	}
	return &hostModule{name: enterModule, module: module, compiled: compiled}, nil
}

// standIn has a module compiled by the engine's Machine, and makes the module that
// stands in for it.
func (e *Engine) standIn(g *generation, imports *Info, code []byte) ([]byte, *standin, error) {
	wasm, s, err := standIn(code)
	if err != nil {
		return nil, nil, err
	}
	for _, imp := range imports.Imports {
		h, _ := g.hosts.find(imp.Module) // which has it: Compile has linked the names
		s.serve = append(s.serve, h.serve[imp.Name])
	}
	for _, f := range meterFuncs {
		s.serve = append(s.serve, f.call)
	}
	if s.code, err = e.config.Machine.Compile(code); err != nil {
		return nil, nil, err
	}
	return wasm, s, nil
}

// standIn makes the module that stands in for code.
func standIn(code []byte) ([]byte, *standin, error) {
	var info Info
	m := moduleReader{info: &info}
	if err := m.read(code); err != nil {
		return nil, nil, err
	}
	s := &standin{hasMemory: info.sections[sectionMemory] != span{}}
	// appended is a section of the module's, with items after its own.
	appended := func(id int, items ...[]byte) []byte {
		at := info.sections[id]
		r := reader{b: code, off: at.from, end: at.to}
		n := uint32(0)
		if at != (span{}) {
			n = r.u32()
		}
		b := binary.AppendUvarint(nil, uint64(n)+uint64(len(items)))
		if at != (span{}) {
			b = append(b, r.rest()...)
		}
		for _, item := range items {
			b = append(b, item...)
		}
		return append(binary.AppendUvarint([]byte{byte(id)}, uint64(len(b))), b...)
	}
	list := func(id int, items [][]byte) []byte {
		b := binary.AppendUvarint(nil, uint64(len(items)))
		for _, item := range items {
			b = append(b, item...)
		}
		return append(binary.AppendUvarint([]byte{byte(id)}, uint64(len(b))), b...)
	}
	name := func(s string) []byte { return append(binary.AppendUvarint(nil, uint64(len(s))), s...) }

	enter := uint64(len(info.Imports))
	imported := append(append(append(name(enterModule), name(enterFunc)...), kindFunc), binary.AppendUvarint(nil, uint64(len(m.types)))...)
	var funcs, exports, bodies [][]byte
	for export, x := range info.exports {
		if x.kind == kindFunc {
			s.exports = append(s.exports, export)
		} else if x.kind == kindMemory {
			exports = append(exports, append(name(export), kindMemory, 0))
		}
	}
	slices.Sort(s.exports)
	for i, export := range s.exports {
		t, ok := m.functionType(export)
		if !ok {
			return nil, nil, fmt.Errorf("export %s is a function that there is not", quote(export))
		}
		funcs = append(funcs, binary.AppendUvarint(nil, uint64(m.funcs[info.exports[export].index])))
		exports = append(exports, append(append(name(export), kindFunc), binary.AppendUvarint(nil, enter+1+uint64(i))...))
		body := append([]byte{0}, trampoline(t, i, enter)...)
		bodies = append(bodies, append(binary.AppendUvarint(nil, uint64(len(body))), body...))
	}
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	wasm = append(wasm, appended(sectionType, []byte{0x60, 6, 0x7f, 0x7e, 0x7e, 0x7e, 0x7e, 0x7e, 1, 0x7e})...)
	wasm = append(wasm, appended(sectionImport, imported)...)
	wasm = append(wasm, list(sectionFunction, funcs)...)
	if at := info.sections[sectionMemory]; at != (span{}) {
		wasm = append(wasm, code[at.start:at.to]...)
	}
	wasm = append(wasm, list(sectionExport, exports)...)
	return append(wasm, list(sectionCode, bodies)...), s, nil
}

// trampoline is the code of a function of type t that calls export number i. The engine
// and the ABI call functions of few i32 alone. What else is exported is there to
// be seen, and refused for its type.
func trampoline(t funcType, i int, enter uint64) []byte {
	const i32, i64 = 0x7f, 0x7e
	fits := len(t.params) <= enterParams && len(t.results) <= 1
	for _, v := range t.params + t.results {
		fits = fits && (v == i32 || v == i64)
	}
	if !fits {
		return []byte{0x00, 0x0b} // unreachable
	}
	b := append([]byte{0x41}, signed(int64(i))...) // i32.const
	for p := range enterParams {
		if p >= len(t.params) {
			b = append(b, 0x42, 0) // i64.const
			continue
		}
		b = append(b, 0x20, byte(p)) // local.get
		if t.params[p] == i32 {
			b = append(b, 0xad) // i64.extend_i32_u
		}
	}
	b = binary.AppendUvarint(append(b, 0x10), enter) // call
	switch t.results {
	case "":
		b = append(b, 0x1a) // drop
	case "\x7f":
		b = append(b, 0xa7) // i32.wrap_i64
	}
	return append(b, 0x0b)
}

// signed is a signed LEB128.
func signed(v int64) (b []byte) {
	for {
		c := byte(v & 0x7f)
		if v >>= 7; v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// native is an instance of a Machine's, in a run.
type native struct {
	of    *standin
	inst  Instance
	mod   api.Module      // its stand-in
	ctx   context.Context // of the innermost call
	image []byte          // that the memory has yet to be given
}

// instantiate makes an instance, and the one that stands in for it, in the memory of
// the first. Both are r's to close.
func (s *standin) instantiate(r *run, p *Program, im *image) (api.Module, error) {
	n := &native{of: s, ctx: r}
	if im != nil {
		n.image = im.memory.Bytes()
	}
	var err error
	if n.inst, err = s.code.Instantiate(r.memory.limit, n.serve); err != nil {
		return nil, err
	}
	r.memory.native = n
	n.mod, err = p.gen.runtime.InstantiateModule(r, p.code, r.shell.config)
	return n.mod, err
}

func (s *standin) close() {
	if s != nil {
		s.code.Close()
	}
}

// enter calls an export. What ends it is thrown as a host function throws, which is
// what wazero takes this for.
func (n *native) enter(ctx context.Context, stack []uint64) {
	outer := n.ctx
	n.ctx = ctx
	defer func() { n.ctx = outer }()
	err := n.inst.Call(n.of.exports[uint32(stack[0])], stack[1:])
	n.follow()
	if err != nil {
		panic(err)
	}
	stack[0] = stack[1]
}

// serve calls a host function.
func (n *native) serve(function int, stack []uint64) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = asError("", v)
		}
	}()
	n.follow()
	n.of.serve[function].Call(n.ctx, n.mod, stack)
	return nil
}

// memory is the guest's, of so many bytes that it has already. The first time it is
// made what the image has.
func (n *native) memory(size uint64) []byte {
	if n.image != nil {
		size = max(size, uint64(len(n.image)))
		if n.inst.Grow(rewrite.MemoryExport, size) != nil {
			return nil
		}
		copy(n.inst.Memory(rewrite.MemoryExport), n.image)
		n.image = nil
	}
	b := n.inst.Memory(rewrite.MemoryExport)
	if uint64(len(b)) < size {
		return nil
	}
	return b[:size:size]
}

// follow lets the stand-in's memory grow as the guest's has.
func (n *native) follow() {
	if !n.of.hasMemory || n.mod == nil || n.mod.IsClosed() {
		return
	}
	mem := n.mod.Memory()
	have, want := uint64(mem.Size()), uint64(len(n.inst.Memory(rewrite.MemoryExport)))
	if have < want {
		mem.Grow(uint32((want - have) / pageSize))
	}
}

// global is a mutable global that the instance of the run exports.
func (r *run) global(mod api.Module, name string) api.MutableGlobal {
	if n := r.memory.native; n != nil {
		return machineGlobal{inst: n.inst, name: name}
	}
	return mod.ExportedGlobal(name).(api.MutableGlobal)
}

// machineGlobal is a global of a Machine's instance as one of wazero's.
type machineGlobal struct {
	api.MutableGlobal // none: for the method by which wazero keeps others from being one
	inst              Instance
	name              string
}

func (g machineGlobal) Get() uint64  { return g.inst.Global(g.name) }
func (g machineGlobal) Set(v uint64) { g.inst.SetGlobal(g.name, v) }
