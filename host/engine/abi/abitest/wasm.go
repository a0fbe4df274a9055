// Package abitest makes guests for tests: WebAssembly modules put together
// instruction by instruction, so that a test can hand the host exactly the
// pointer, handle or discriminant that no compiler would. It also reads the WIT
// files, so that tests can hold host functions against them.
//
//	var m abitest.Module
//	log := m.Import("circles:host/log@0.1.0", "write", "iii", "")
//	m.Memory(1)
//	m.Data(64, "hello")
//	m.Func("run", "ii", "i", abitest.I32(1), abitest.I32(64), abitest.I32(5), abitest.Call(log), abitest.I32(0))
//	wasm := m.Bytes()
//
// Types are written as letters: i is i32, I is i64.
package abitest

import "encoding/binary"

// Module is a WebAssembly module under construction. Imports come before
// functions, since they share one index space.
type Module struct {
	types   [][2]string
	imports []imported
	funcs   []function
	exports []exported
	globals []int32
	data    []segment
	start   []byte // a function, or nothing
	pages   uint32
	max     uint32
	hasMem  bool
}

type imported struct {
	module, name string
	typ          int
}

type function struct {
	typ    int
	locals int
	code   []byte
}

type exported struct {
	name  string
	kind  byte
	index uint32
}

type segment struct {
	at    uint32
	bytes string
}

// Code is a sequence of instructions.
type Code []byte

func (m *Module) typ(params, results string) int {
	for i, t := range m.types {
		if t == [2]string{params, results} {
			return i
		}
	}
	m.types = append(m.types, [2]string{params, results})
	return len(m.types) - 1
}

// Import adds an imported function and returns its index for Call.
func (m *Module) Import(module, name, params, results string) uint32 {
	if len(m.funcs) > 0 {
		panic("abitest: Import after Func")
	}
	m.imports = append(m.imports, imported{module, name, m.typ(params, results)})
	return uint32(len(m.imports) - 1)
}

// Memory gives the module a memory of that many pages of 64 KiB, exported as
// "memory".
func (m *Module) Memory(pages uint32) { m.MemoryMax(pages, 65536) }

// MemoryMax is Memory with an upper bound for growth.
func (m *Module) MemoryMax(pages, most uint32) {
	m.pages, m.max, m.hasMem = pages, most, true
	m.exports = append(m.exports, exported{"memory", 2, 0})
}

// Data places bytes into the memory.
func (m *Module) Data(at uint32, bytes string) { m.data = append(m.data, segment{at, bytes}) }

// Global adds a mutable i32 and returns its index.
func (m *Module) Global(value int32) uint32 {
	m.globals = append(m.globals, value)
	return uint32(len(m.globals) - 1)
}

// Func adds a function with eight i32 locals after its parameters, exports it
// unless name is "", and returns its index.
func (m *Module) Func(name, params, results string, code ...Code) uint32 {
	var body []byte
	for _, c := range code {
		body = append(body, c...)
	}
	index := uint32(len(m.imports) + len(m.funcs))
	m.funcs = append(m.funcs, function{m.typ(params, results), 8, append(body, 0x0b)})
	if name != "" {
		m.exports = append(m.exports, exported{name, 0, index})
	}
	return index
}

// Start has a function run when the module is instantiated.
func (m *Module) Start(function uint32) { m.start = binary.AppendUvarint(nil, uint64(function)) }

// Rename changes the name of an export.
func (m *Module) Rename(from, to string) {
	for i := range m.exports {
		if m.exports[i].name == from {
			m.exports[i].name = to
			return
		}
	}
	panic("abitest: no export " + from)
}

// Bump adds a cabi_realloc that hands out memory from at upwards and grows the
// memory when it is used up, and returns its index.
func (m *Module) Bump(at int32) uint32 {
	next := m.Global(at)
	const align, size, ptr, end = 2, 3, 4, 5
	return m.Func("cabi_realloc", "iiii", "i",
		// ptr = next + align-1 & -align; end = ptr + size
		GlobalGet(next), Get(align), Add, I32(1), Sub, I32(0), Get(align), Sub, And, Set(ptr),
		Get(ptr), Get(size), Add, Set(end),
		// Grow by the pages that are missing, and trap if there are none.
		Block, Get(end), MemorySize, I32(16), Shl, LeU, BrIf(0),
		Get(end), I32(65535), Add, I32(16), ShrU, MemorySize, Sub, MemoryGrow, I32(-1), Eq, If, Unreachable, End,
		End,
		Get(end), GlobalSet(next), Get(ptr),
	)
}

// Bytes encodes the module.
func (m *Module) Bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, n int, items []byte) {
		if n > 0 {
			out = append(out, id)
			out = vec(out, append(binary.AppendUvarint(nil, uint64(n)), items...))
		}
	}
	var b []byte
	for _, t := range m.types {
		b = append(b, 0x60)
		for _, s := range t {
			b = binary.AppendUvarint(b, uint64(len(s)))
			for _, c := range s {
				b = append(b, map[rune]byte{'i': 0x7f, 'I': 0x7e}[c])
			}
		}
	}
	section(1, len(m.types), b)
	b = nil
	for _, i := range m.imports {
		b = append(vec(vec(b, []byte(i.module)), []byte(i.name)), 0)
		b = binary.AppendUvarint(b, uint64(i.typ))
	}
	section(2, len(m.imports), b)
	b = nil
	for _, f := range m.funcs {
		b = binary.AppendUvarint(b, uint64(f.typ))
	}
	section(3, len(m.funcs), b)
	if m.hasMem {
		b = binary.AppendUvarint([]byte{1}, uint64(m.pages))
		section(5, 1, binary.AppendUvarint(b, uint64(m.max)))
	}
	b = nil
	for _, g := range m.globals {
		b = append(append(append(b, 0x7f, 1), I32(g)...), 0x0b)
	}
	section(6, len(m.globals), b)
	b = nil
	for _, e := range m.exports {
		b = binary.AppendUvarint(append(vec(b, []byte(e.name)), e.kind), uint64(e.index))
	}
	section(7, len(m.exports), b)
	if m.start != nil {
		out = vec(append(out, 8), m.start)
	}
	b = nil
	for _, f := range m.funcs {
		body := append(binary.AppendUvarint([]byte{1}, uint64(f.locals)), 0x7f)
		b = vec(b, append(body, f.code...))
	}
	section(10, len(m.funcs), b)
	b = nil
	for _, d := range m.data {
		b = append(append(append(b, 0), I32(int32(d.at))...), 0x0b)
		b = vec(b, []byte(d.bytes))
	}
	section(11, len(m.data), b)
	return out
}

func vec(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// Instructions without operands.
var (
	Unreachable = Code{0x00}
	Block       = Code{0x02, 0x40}
	Loop        = Code{0x03, 0x40}
	If          = Code{0x04, 0x40}
	End         = Code{0x0b}
	Return      = Code{0x0f}
	Drop        = Code{0x1a}
	Load        = Code{0x28, 2, 0} // i32.load
	Load8       = Code{0x2d, 0, 0} // i32.load8_u
	Store       = Code{0x36, 2, 0} // i32.store
	Store8      = Code{0x3a, 0, 0} // i32.store8
	MemorySize  = Code{0x3f, 0}
	MemoryGrow  = Code{0x40, 0}
	Eqz         = Code{0x45}
	Eq          = Code{0x46}
	Ne          = Code{0x47}
	LeU         = Code{0x4d}
	Add         = Code{0x6a}
	Sub         = Code{0x6b}
	And         = Code{0x71}
	Shl         = Code{0x74}
	ShrU        = Code{0x76}
)

// I32 pushes a constant.
func I32(n int32) Code { return Code(sleb([]byte{0x41}, int64(n))) }

// I64 pushes a constant.
func I64(n int64) Code { return Code(sleb([]byte{0x42}, n)) }

// Get reads a local; parameters come first.
func Get(i uint32) Code { return op(0x20, i) }

// Set writes a local.
func Set(i uint32) Code { return op(0x21, i) }

// GlobalGet reads a global.
func GlobalGet(i uint32) Code { return op(0x23, i) }

// GlobalSet writes a global.
func GlobalSet(i uint32) Code { return op(0x24, i) }

// Call calls a function.
func Call(i uint32) Code { return op(0x10, i) }

// Br branches to the n-th enclosing block.
func Br(n uint32) Code { return op(0x0c, n) }

// BrIf branches if the top of the stack is not 0.
func BrIf(n uint32) Code { return op(0x0d, n) }

func op(code byte, n uint32) Code {
	return binary.AppendUvarint([]byte{code}, uint64(n))
}

func sleb(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
