package rewrite

import (
	"fmt"
	"strconv"
)

// Names that Prepare adds to a module.
const (
	// StartExport is the module's start function, which is one no longer: who
	// instantiates the module calls it. Its type is () -> ().
	StartExport = ReservedPrefix + "start"
	// CallExport is a function of five i32 parameters and one i32 result that
	// calls another: the first parameter says which, see Prepared.Calls, the others
	// are that function's. A result that it does not have is 0.
	CallExport = ReservedPrefix + "call"

	// MemoryExport is the module's memory, if it has one of its own.
	MemoryExport = ReservedPrefix + "memory"

	globalPrefix = ReservedPrefix + "global/"
)

// Prepared is a module whose instances can begin with an image of memory and
// globals, see [Prepare].
type Prepared struct {
	Wasm  []byte // never aliases the input
	Start bool   // the module had a start function; it is exported as StartExport
	// Calls are the functions that CallExport calls, by name, with its first
	// parameter. Of Options.Calls those are missing that are of another type than
	// up to four i32 to at most one, and all after the first 64. If it is empty
	// there is no CallExport.
	Calls map[string]uint32
	// Plain says, for people, why no image can stand for instantiating the module.
	// Then its data is still in it, and its globals are not exported.
	Plain string
	// Data is what was the active data segments, in the order to apply them. All
	// lie within the memory that the module begins with. It aliases the input.
	Data []Data
	// Globals are the exports of the module's mutable globals, each of type i32,
	// i64, f32 or f64, without FuelGlobal.
	Globals []string
	// Dispatched is how many table entries are called directly, by functions added
	// for that, which then have the indices from DispatchFrom up to, not with,
	// DispatchTo; the table is gone. 0 leaves the table as it was.
	Dispatched               int
	DispatchFrom, DispatchTo uint32
}

// Data is one active data segment.
type Data struct {
	Offset uint32
	Bytes  []byte
}

// Prepare is Meter, and makes a module that need not be initialised each time:
// data and start section are taken out, for the host to apply once; what
// instructions can change besides memory, its globals, is exported, for the host
// to capture and set; and its function table is dissolved into code, since that
// is what else takes time to instantiate: call_indirect becomes a call of a
// function with all entries of that type, which jumps to the one asked for.
//
// Fuel is counted as Meter does, to the unit, whatever of this is done: what
// Prepare adds costs nothing beyond the instructions it stands for. A call of a
// null entry, or of one that is of another type or not there, is a trap as before,
// if another one: unreachable, in one of the functions of Prepared.DispatchFrom.
//
// What keeps a module from having an image (Prepared.Plain) is that something
// else than memory and globals could change before the image is taken, or that
// the engine alone can judge what the module says: a memory that is imported or
// missing, globals that are imported and mutable or hold references or vectors,
// instructions that change tables or work on data segments, passive segments,
// and offsets that are no constants or lie outside. Such a module keeps its data.
// Its table is dissolved all the same, unless something else than call_indirect
// could look at it.
//
// It is a pure function of its arguments. Its errors are Meter's.
func Prepare(wasm []byte, opt Options) (*Prepared, error) {
	m, err := Decode(wasm)
	if err != nil {
		return nil, err
	}
	e := &edit{m: m, drop: make(map[byte]bool)}
	c, err := e.meter(opt)
	if err != nil {
		return nil, err
	}
	p := &Prepared{Plain: m.plain(opt.MaxMemory)}
	if m.start >= 0 {
		if t := m.funcType(uint32(m.start)); len(t.params)+len(t.results) > 0 {
			return nil, &MalformedError{What: "a start function with parameters or results", Where: "start section", Offset: len(wasm)}
		}
		p.Start = true
		e.drop[secStart] = true
		// Not the function itself: what is exported may be named by ref.func.
		body := append(appendU32([]byte{0, opCall}, e.renumber(uint32(m.start))), opEnd)
		e.addExport(StartExport, kindFunc, e.addFunc(e.addType([]byte{0x60, 0, 0}), body))
	}
	e.call(p, opt.Calls)
	if m.memories > 0 && !m.memory.imported {
		e.addExport(MemoryExport, kindMemory, 0)
	}
	if p.Plain == "" {
		for _, s := range m.data {
			at, _ := constant(s.offset)
			p.Data = append(p.Data, Data{at, s.bytes})
		}
		e.drop[secData], e.drop[secDataCount] = true, true
		for i, g := range m.globals {
			if g.mutable {
				name := globalPrefix + strconv.Itoa(i)
				p.Globals = append(p.Globals, name)
				e.addExport(name, kindGlobal, m.importedGlobals+uint32(i))
			}
		}
	}
	if !opt.Tables {
		e.dispatch(p, c)
	}
	if err := c.functions(); err != nil {
		return nil, err
	}
	p.Wasm, err = e.encode()
	return p, err
}

// plain says why the module cannot begin with an image, or "".
func (m *Module) plain(most uint64) string {
	switch size := uint64(m.memory.min) << 16; {
	case m.memories == 0:
		return "it has no memory"
	case most > 0 && size > most:
		return fmt.Sprintf("it begins with %d bytes of memory, where images have at most %d", size, most)
	case m.memory.imported:
		return "it imports its memory"
	case m.importedMutable:
		return "it imports a mutable global"
	case m.table.imported:
		return "it imports a table"
	case m.uses.tableChange:
		return "it changes tables (table.set, table.init, table.copy, table.grow, table.fill or elem.drop)"
	case m.uses.dataSegment:
		return "it works on data segments (memory.init or data.drop)"
	}
	for i, g := range m.globals {
		if g.mutable && (g.typ == typeV128 || g.typ == typeFuncref || g.typ == typeExternref) {
			return fmt.Sprintf("its mutable global %d holds a vector or a reference", m.importedGlobals+uint32(i))
		}
	}
	for i, s := range m.data {
		at, ok := constant(s.offset)
		switch {
		case s.offset == nil:
			return fmt.Sprintf("its data segment %d is passive", i)
		case !ok:
			return fmt.Sprintf("the offset of its data segment %d is not a constant", i)
		case uint64(at)+uint64(len(s.bytes)) > uint64(m.memory.min)<<16:
			return fmt.Sprintf("its data segment %d lies outside of the memory that it begins with", i)
		}
	}
	return ""
}

// constant is the value of a constant expression that is just an i32.const.
func constant(expr []byte) (uint32, bool) {
	if len(expr) < 3 || expr[0] != opI32Const {
		return 0, false
	}
	r := &reader{b: expr, pos: 1}
	v := r.signed(32)
	return uint32(v), r.err == nil && r.left() == 1 // opEnd
}

// maxCalls bounds how deep the blocks of CallExport lie in each other.
const maxCalls = 64

// call adds CallExport.
func (e *edit) call(p *Prepared, names []string) {
	m := e.m
	exported := make(map[string]uint32)
	for _, x := range m.exports {
		if x.kind == kindFunc {
			exported[x.name] = x.index
		}
	}
	var funcs []uint32
	p.Calls = make(map[string]uint32)
	for _, name := range names {
		fn, ok := exported[name]
		if _, twice := p.Calls[name]; !ok || twice || len(funcs) == maxCalls {
			continue
		}
		t := m.funcType(fn)
		fits := len(t.params) <= 4 && len(t.results) <= 1
		for _, v := range string(t.params) + string(t.results) {
			fits = fits && v == typeI32
		}
		if fits {
			p.Calls[name] = uint32(len(funcs))
			funcs = append(funcs, fn)
		}
	}
	if len(funcs) == 0 {
		return
	}
	b := []byte{0}
	for range len(funcs) + 1 {
		b = append(b, opBlock, typeEmpty)
	}
	b = append(b, opLocalGet, 0, opBrTable)
	b = appendU32(b, uint32(len(funcs)))
	for i := range len(funcs) + 1 {
		b = appendU32(b, uint32(i))
	}
	b = append(b, opEnd)
	for _, fn := range funcs {
		t := m.funcType(fn)
		for i := range t.params {
			b = append(b, opLocalGet, byte(i+1))
		}
		b = appendU32(append(b, opCall), e.renumber(fn))
		if len(t.results) == 0 {
			b = append(b, opI32Const, 0)
		}
		b = append(b, opReturn, opEnd)
	}
	b = append(b, opUnreachable, opEnd)
	typ := e.addType([]byte{0x60, 5, typeI32, typeI32, typeI32, typeI32, typeI32, 1, typeI32})
	e.addExport(CallExport, kindFunc, e.addFunc(typ, b))
}

// Bounds of what dispatch builds: beyond them the table stays.
const (
	groupSize = 64   // entries of one inner jump
	maxGroups = 1024 // of one function; its blocks lie as deep in each other
	// maxRows is how many places to jump to, all functions together, an entry of
	// the table may cause. Each type has an own function, over all of the table
	// that it has entries in.
	maxRows = 16
)

// dispatch takes the table apart, or leaves it.
func (e *edit) dispatch(p *Prepared, c *metering) {
	m := e.m
	entries, ok := m.entries()
	if !ok {
		return
	}
	// Functions by the bytes of their type, as call_indirect compares them.
	byType := make(map[string][]int)
	count := 0
	for at, fn := range entries {
		if fn >= 0 {
			key := m.funcType(uint32(fn)).key()
			byType[key] = append(byType[key], at)
			count++
		}
	}
	type function struct{ typ, body []byte }
	var functions []function
	built := make(map[string]int) // index in functions, by type
	rows := 0
	for typ, used := range m.uses.indirect {
		t := m.types[typ]
		if _, ok := built[t.key()]; !used || ok {
			continue
		}
		body, n := e.dispatchBody(uint32(typ), byType[t.key()], entries)
		if rows += n; body == nil || rows > maxRows*(count+groupSize) {
			return
		}
		enc := append(appendU32([]byte{0x60}, uint32(len(t.params)+1)), t.params...)
		enc = appendU32(append(enc, typeI32), uint32(len(t.results)))
		built[t.key()] = len(functions)
		functions = append(functions, function{append(enc, t.results...), body})
	}
	if count == 0 {
		return
	}
	added := make([]uint32, len(functions))
	for i, f := range functions {
		added[i] = e.addFunc(e.addType(f.typ), f.body)
	}
	p.Dispatched = count
	p.DispatchTo = m.allFuncs() + uint32(len(e.imports)+len(e.funcs))
	p.DispatchFrom = p.DispatchTo - uint32(len(functions))
	c.dispatch = make(map[uint32]uint32)
	for typ, used := range m.uses.indirect {
		if used {
			c.dispatch[uint32(typ)] = added[built[m.types[typ].key()]]
		}
	}
	e.drop[secElement], e.drop[secTable] = true, true
}

// key is the type's parameters and results, as call_indirect compares them.
func (t funcType) key() string {
	return strconv.Itoa(len(t.params)) + string(t.params) + string(t.results)
}

// entries returns what the module's table begins with, and with that always
// holds: functions, and -1 for null. It returns false if there is not just the
// one table, if anything but call_indirect can look at it, or if instantiating
// the module would have to judge its segments.
func (m *Module) entries() ([]int64, bool) {
	if m.tables != 1 || m.table.typ != typeFuncref || m.table.imported || m.uses.tableRead || m.uses.tableChange {
		return nil, false
	}
	for _, x := range m.exports {
		if x.kind == kindTable {
			return nil, false
		}
	}
	if m.table.min > groupSize*maxGroups {
		return nil, false
	}
	entries := make([]int64, m.table.min)
	for i := range entries {
		entries[i] = -1
	}
	for _, x := range m.elements {
		active, at := x.flags&1 == 0, uint32(0)
		if active {
			var ok bool
			if at, ok = constant(x.offset); !ok || x.table != 0 || uint64(at)+uint64(x.count) > uint64(len(entries)) {
				return nil, false
			}
		}
		if x.flags&4 != 0 && x.flags&3 != 0 && x.kind != typeFuncref {
			return nil, false
		}
		r := &reader{b: x.items}
		for i := range x.count {
			fn := int64(-1)
			if x.flags&4 == 0 {
				fn = int64(r.u32())
			} else {
				expr := &reader{b: r.constExpr(nil)}
				switch op := expr.byte(); op {
				case opRefFunc:
					fn = int64(expr.u32())
				case opRefNull:
					if expr.byte() != typeFuncref {
						return nil, false
					}
				default:
					return nil, false
				}
				if expr.left() != 1 {
					return nil, false
				}
			}
			if active {
				entries[int(at)+i] = fn
			}
		}
	}
	return entries, true
}

// dispatchBody is a function of typ's parameters and an index, that goes on as
// the entry of that type at that index: at are all that there are, ascending. It
// returns nil if that would be too much, and how many places it may jump to.
//
// Which group of 64 an index lies in is one jump, and which of them a second
// one: blocks inside of blocks by the thousand would take wazero minutes.
func (e *edit) dispatchBody(typ uint32, at []int, entries []int64) (body []byte, rows int) {
	m := e.m
	index := uint32(len(m.types[typ].params))
	// jump goes to one of n places by the index, less base and shifted, of which
	// used are behind a block each, in order; every other one is behind the last.
	jump := func(base, shift, n int, used []int) {
		for range len(used) + 1 {
			body = append(body, opBlock, typeEmpty)
		}
		body = appendS64(append(appendU32(append(body, opLocalGet), index), opI32Const), int64(base))
		body = append(body, opI32Sub)
		if shift > 0 {
			body = append(body, opI32Const, byte(shift), opI32ShrU)
		}
		body = appendU32(append(body, opBrTable), uint32(n))
		block := 0
		for i := range n {
			if block < len(used) && used[block] == i {
				body = appendU32(body, uint32(block))
				block++
			} else {
				body = appendU32(body, uint32(len(used)))
			}
		}
		body = append(appendU32(body, uint32(len(used))), opEnd)
		rows += n + 1
	}
	body = []byte{0}
	if len(at) > 0 {
		first, last := at[0], at[len(at)-1]
		var groups [][]int // of indices relative to their group
		var numbers []int
		for _, k := range at {
			g := (k - first) / groupSize
			if len(numbers) == 0 || numbers[len(numbers)-1] != g {
				numbers = append(numbers, g)
				groups = append(groups, nil)
			}
			groups[len(groups)-1] = append(groups[len(groups)-1], k-first-g*groupSize)
		}
		if len(groups) > 1 {
			jump(first, 6, (last-first)/groupSize+1, numbers)
		}
		for i, group := range groups {
			base := first + numbers[i]*groupSize
			jump(base, 0, group[len(group)-1]+1, group)
			for _, k := range group {
				for i := range index {
					body = appendU32(append(body, opLocalGet), i)
				}
				body = append(appendU32(append(body, opReturnCall), e.renumber(uint32(entries[base+k]))), opEnd)
			}
			if len(groups) > 1 {
				body = append(body, opUnreachable, opEnd)
			}
		}
	}
	return append(body, opUnreachable, opEnd), rows
}
