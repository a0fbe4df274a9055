package engine

import (
	"errors"
	"fmt"
	"sort"
)

// What compiling a module may take, in the units of checkEffort. Of real
// programs, the main loops of SQLite, QuickJS and CPython come to 115,000,
// 167,000 and 315,000 units, all functions of a Go program of 4 MB to 39,000 at
// most; as modules they come to 2 to 15 million.
const (
	maxFunctionEffort = 1 << 19 // at the bound wazero takes some 200 MB and 3 s
	maxModuleEffort   = 24 << 20
	// A function's effort counts once, and by the square for what wazero's
	// optimiser takes: in a module, u units are u + u²/effortSquare.
	effortSquare = 1 << 15
	// Places alone, without any value, take time by their square too.
	placesSquare = 5000
)

// checkEffort refuses modules that are small to send and immense to compile.
//
// An optimising compiler keeps, for each place where control joins or parts,
// what is live there. A thousand variables used inside of a thousand loops are
// a module of 20 KB and a million such entries: gigabytes and minutes. wazero
// bounds neither, and cannot be interrupted, so the effort is added up before:
// for each function, the number of pairs of a place (the start of a loop; the
// arms and end of a block; each label that a branch may go to) and a value that
// may be live there (a local between a setting of it and its last use; what lies
// on the operand stack).
//
// wasm must have passed rewrite.Decode: indices are not checked again.
func (m *moduleReader) checkEffort(wasm []byte) error {
	s := m.info.sections[sectionCode]
	if s == (span{}) {
		return nil
	}
	r := reader{b: wasm, off: s.from, end: s.to}
	n := r.count(maxFunctions, "functions")
	imported := len(m.funcs) - int(n)
	if imported < 0 {
		return errors.New("code section: more bodies than functions")
	}
	total := 0
	var e effort
	for i := range int(n) {
		size := r.u32()
		body := r.bytes(size)
		if r.err != nil {
			return r.err
		}
		cost, err := e.function(m, m.funcs[imported+i], &reader{b: wasm, off: r.off - len(body), end: r.off})
		if err != nil {
			return fmt.Errorf("code section, function %d: %w", imported+i, err)
		}
		if cost > maxFunctionEffort {
			return fmt.Errorf("code section, function %d: it has so many variables across so many branches that compiling it would take gigabytes; split it up, or build with optimisation", imported+i)
		}
		if total += cost + cost*cost/effortSquare; total > maxModuleEffort {
			return errors.New("code section: it has so many variables across so many branches that compiling it would take minutes; build with optimisation, or split the module up")
		}
	}
	return nil
}

// effort adds up one function; it is reused, to allocate once a module.
type effort struct {
	m      *moduleReader
	cost   int
	place  int // places so far: where in the function we are
	height int // of the operand stack
	serial int // of blocks opened
	blocks []block
	loops  []int // which of blocks are loops
	locals []local
}

// block is a block, loop, arm of an if, or the function itself, that is open.
type block struct {
	serial  int // unique in the function: an arm of an if is not the other
	loop    bool
	height  int // beneath its parameters
	params  int
	results int
	extend  []uint32 // of a loop: locals that are live until its end
}

// local is what is known of a local's liveness. Its value comes from the setting
// at place since, in the block that is (or was) the depth-th with that serial.
// That setting dominates all that follows in the block. A use outside of it may
// see any earlier value as well, down to the zero that the function began with.
type local struct {
	since  int
	last   int // place of the last use; before since if there is none
	depth  int
	serial int
	marked int // serial of the loop in whose extend it was put last
}

func (e *effort) function(m *moduleReader, typ uint32, r *reader) (int, error) {
	if int64(typ) >= int64(len(m.types)) {
		return 0, errors.New("its type does not exist")
	}
	t := m.types[typ]
	n := len(t.params)
	for range r.count(50_000, "groups of locals") {
		n += int(r.u32In(50_000, "locals"))
		r.byte()
		if n > 51_000 {
			r.fail("more than 50,000 locals")
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	*e = effort{m: m, cost: n, locals: append(e.locals[:0], make([]local, n)...), blocks: e.blocks[:0], loops: e.loops[:0]}
	e.open(false, 0, len(t.results))
	for len(e.blocks) > 0 {
		e.instruction(r)
		if r.err != nil {
			return 0, r.err
		}
		if e.cost > maxFunctionEffort {
			return e.cost, nil
		}
	}
	for i := range e.locals {
		e.settle(&e.locals[i])
	}
	e.cost += e.place * e.place / placesSquare
	return e.cost, r.done()
}

// at counts a place where control joins or parts, n times over.
func (e *effort) at(n int) {
	e.place += n
	e.cost += n * (1 + max(e.height, 0))
}

func (e *effort) open(loop bool, params, results int) {
	if loop {
		e.loops = append(e.loops, len(e.blocks))
	}
	e.blocks = append(e.blocks, block{serial: e.serial, loop: loop, height: e.height - params, params: params, results: results})
	e.serial++
}

func (e *effort) close() {
	b := &e.blocks[len(e.blocks)-1]
	e.height = b.height + b.results
	e.at(1)
	for _, i := range b.extend {
		e.locals[i].last = e.place
	}
	e.blocks = e.blocks[:len(e.blocks)-1]
	if b.loop {
		e.loops = e.loops[:len(e.loops)-1]
	}
}

// settle adds the places across which a local's value was live.
func (e *effort) settle(l *local) {
	if l.last > l.since {
		e.cost += l.last - l.since
	}
}

func (e *effort) set(i uint32) {
	l := &e.locals[i]
	top := len(e.blocks) - 1
	b := &e.blocks[top]
	switch {
	case l.depth == top && l.serial == b.serial:
		// The same block: what follows sees this value, and no longer that one.
	case l.last > l.since || l.marked != 0:
		return // used already: it may be used again outside of this block
	}
	e.settle(l)
	*l = local{since: e.place, last: e.place, depth: top, serial: b.serial}
}

func (e *effort) get(i uint32) {
	l := &e.locals[i]
	if l.depth >= len(e.blocks) || e.blocks[l.depth].serial != l.serial {
		l.since, l.depth, l.serial = 0, 0, e.blocks[0].serial
	}
	l.last = e.place + 1
	// Live throughout the outermost loop that the value comes into from outside.
	if n := sort.SearchInts(e.loops, l.depth+1); n < len(e.loops) {
		b := &e.blocks[e.loops[n]]
		if l.marked != b.serial {
			l.marked = b.serial
			b.extend = append(b.extend, i)
		}
	}
}

// move pops and pushes: it moves the stack's height. In code that cannot be reached it may
// be anything, and is put right at the block's end.
func (e *effort) move(pops, pushes int) { e.height += pushes - pops }

func (e *effort) call(t uint32, r *reader) {
	if int64(t) >= int64(len(e.m.types)) {
		r.fail("a type does not exist")
		return
	}
	typ := e.m.types[t]
	e.move(len(typ.params), len(typ.results))
	if n := len(typ.results); n > 1 {
		e.cost += n // two bytes of code, a thousand values
	}
}

// blockType reads the type of a block.
func (e *effort) blockType(r *reader) (params, results int) {
	switch c := r.peek(); {
	case c == 0x40:
		r.byte()
		return 0, 0
	case c >= 0x40 && c < 0x80: // a value type is a negative number
		r.byte()
		return 0, 1
	}
	t := r.leb(5)
	if t >= uint64(len(e.m.types)) {
		r.fail("a block's type does not exist")
		return 0, 0
	}
	return len(e.m.types[t].params), len(e.m.types[t].results)
}

// instruction steps over one instruction.
// https://webassembly.github.io/spec/core/binary/instructions.html
func (e *effort) instruction(r *reader) {
	op := r.byte()
	switch {
	case op <= 0x01: // unreachable, nop
	case op == 0x02, op == 0x03: // block, loop
		p, n := e.blockType(r)
		e.open(op == 0x03, p, n)
		if op == 0x03 {
			e.at(1)
		}
	case op == 0x04: // if
		p, n := e.blockType(r)
		e.move(1, 0)
		e.at(1)
		e.open(false, p, n)
	case op == 0x05: // else
		b := e.blocks[len(e.blocks)-1]
		e.close()
		e.height = b.height + b.params
		e.open(false, b.params, b.results)
	case op == 0x0b: // end
		e.close()
	case op == 0x0c, op == 0x0d: // br, br_if
		r.u32()
		e.move(int(op-0x0c), 0)
		e.at(1)
	case op == 0x0e: // br_table
		n := r.count(maxBodySize, "labels")
		for range n + 1 {
			r.u32()
		}
		e.move(1, 0)
		e.at(int(n) + 1)
	case op == 0x0f: // return
		e.at(1)
	case op == 0x10, op == 0x12: // call, return_call
		f := r.u32()
		if int64(f) >= int64(len(e.m.funcs)) {
			r.fail("a function does not exist")
			return
		}
		e.call(e.m.funcs[f], r)
	case op == 0x11, op == 0x13: // call_indirect, return_call_indirect
		t := r.u32()
		r.u32()
		e.move(1, 0)
		e.call(t, r)
	case op == 0x1a: // drop
		e.move(1, 0)
	case op == 0x1b: // select
		e.move(3, 1)
	case op == 0x1c: // select with types
		r.bytes(r.count(maxTypeValues, "types"))
		e.move(3, 1)
	case op >= 0x20 && op <= 0x22: // local.get, set, tee
		i := r.u32()
		if int64(i) >= int64(len(e.locals)) {
			r.fail("a local does not exist")
			return
		}
		switch op {
		case 0x20:
			e.get(i)
			e.move(0, 1)
		case 0x21:
			e.set(i)
			e.move(1, 0)
		case 0x22:
			e.set(i)
		}
	case op == 0x23: // global.get
		r.u32()
		e.move(0, 1)
	case op == 0x24: // global.set
		r.u32()
		e.move(1, 0)
	case op == 0x25, op == 0x26: // table.get, table.set
		r.u32()
		e.move(2*int(op-0x25), 0)
	case op >= 0x28 && op <= 0x35: // loads
		r.memarg()
	case op >= 0x36 && op <= 0x3e: // stores
		r.memarg()
		e.move(2, 0)
	case op == 0x3f: // memory.size
		r.byte()
		e.move(0, 1)
	case op == 0x40: // memory.grow
		r.byte()
	case op == 0x41: // i32.const
		r.leb(5)
		e.move(0, 1)
	case op == 0x42: // i64.const
		r.leb(10)
		e.move(0, 1)
	case op == 0x43, op == 0x44: // f32.const, f64.const
		r.bytes(4 * uint32(op-0x42))
		e.move(0, 1)
	case op == 0x45, op == 0x50, op >= 0x67 && op <= 0x69, op >= 0x79 && op <= 0x7b,
		op >= 0x8b && op <= 0x91, op >= 0x99 && op <= 0x9f, op >= 0xa7 && op <= 0xc4: // one operand
	case op >= 0x46 && op <= 0xa6: // two operands
		e.move(2, 1)
	case op == 0xd0: // ref.null
		r.byte()
		e.move(0, 1)
	case op == 0xd1: // ref.is_null
	case op == 0xd2: // ref.func
		r.u32()
		e.move(0, 1)
	case op == 0xfc:
		e.misc(r)
	case op == 0xfd:
		e.vector(r)
	default:
		r.fail("instruction %#x belongs to a proposal that this host does not run", op)
	}
}

func (e *effort) misc(r *reader) {
	switch sub := r.u32(); {
	case sub <= 7: // saturating conversions
	case sub == 8, sub == 10, sub == 12, sub == 14: // memory.init, memory.copy, table.init, table.copy
		r.u32()
		r.u32()
		e.move(3, 0)
	case sub == 9, sub == 13: // data.drop, elem.drop
		r.u32()
	case sub == 11, sub == 17: // memory.fill, table.fill
		r.u32()
		e.move(3, 0)
	case sub == 15: // table.grow
		r.u32()
		e.move(2, 1)
	case sub == 16: // table.size
		r.u32()
		e.move(0, 1)
	default:
		r.fail("instruction 0xfc %d belongs to a proposal that this host does not run", sub)
	}
}

// vector steps over a SIMD instruction. The stack's height is an upper bound:
// operators are taken to leave as much as they find.
func (e *effort) vector(r *reader) {
	switch sub := r.u32(); {
	case sub <= 10, sub == 92, sub == 93: // loads
		r.memarg()
	case sub == 11: // v128.store
		r.memarg()
		e.move(2, 0)
	case sub == 12: // v128.const
		r.bytes(16)
		e.move(0, 1)
	case sub == 13: // i8x16.shuffle
		r.bytes(16)
		e.move(2, 1)
	case sub >= 21 && sub <= 34: // lanes
		r.byte()
	case sub >= 84 && sub <= 91: // loads and stores of lanes
		r.memarg()
		r.byte()
		e.move(1, 0)
	case sub <= 275:
	default:
		r.fail("instruction 0xfd %d belongs to a proposal that this host does not run", sub)
	}
}

func (r *reader) memarg() {
	r.u32()
	r.leb(10)
}

func (r *reader) peek() byte {
	if r.len() < 1 {
		r.truncated()
		return 0
	}
	return r.b[r.off]
}
