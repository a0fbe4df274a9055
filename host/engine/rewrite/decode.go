package rewrite

import "fmt"

// Decode reads a module, and checks its form: sections, counts, limits, and
// that every function, type, global, local and label index is one that exists.
// It does not check types: that remains the engine's.
//
// Its errors are *MalformedError and *UnsupportedError. It needs memory of the
// order of the module's own size, whatever the module's counts say, and time
// linear in it.
func Decode(wasm []byte) (*Module, error) {
	r := &reader{b: wasm}
	if len(wasm) < len(header) || string(wasm[:4]) != header[:4] {
		r.malformed(0, "no WebAssembly module")
		return nil, r.err
	}
	if len(wasm) > 1<<31-1 {
		r.malformed(0, "module of 2 GiB or more")
		return nil, r.err
	}
	switch string(wasm[4:8]) {
	case header[4:]:
	case "\x0d\x00\x01\x00":
		r.unsupported(4, "a component instead of a core module")
		return nil, r.err
	default:
		r.malformed(4, "unknown version of the binary format")
		return nil, r.err
	}
	r.pos = len(header)
	m := &Module{wasm: wasm, start: -1, dataCount: -1}
	rank, named := 0, false
	for r.left() > 0 {
		at := r.pos
		id := r.byte()
		if int(id) >= len(sectionNames) {
			r.unsupported(at, "section %d", id)
		}
		payload := r.take(r.u32())
		if r.err != nil {
			return nil, r.err
		}
		s := section{id: id, raw: wasm[at:r.pos:r.pos], payload: payload, offset: r.pos - len(payload)}
		sr := &reader{b: payload, base: s.offset, where: func() string { return sectionNames[id] + " section" }}
		if id != secCustom {
			if sectionRank(id) <= rank {
				sr.malformed(0, "section out of order")
			}
			rank = sectionRank(id)
		}
		switch id {
		case secCustom:
			s.name = sr.name("name of a custom section")
			s.payload, s.offset = payload[sr.pos:], s.offset+sr.pos
			if s.name == "name" {
				if named {
					sr.malformed(0, "second name section")
				}
				named = true
				m.decodeNames(sr)
			}
			sr.pos = len(payload)
		case secType:
			m.decodeTypes(sr)
		case secImport:
			m.decodeImports(sr)
		case secFunction:
			m.decodeFunctions(sr)
		case secTable:
			for n := sr.count("tables", 3, maxTables); n > 0 && sr.err == nil; n-- {
				m.table = sr.tableType()
				m.tables++
			}
		case secMemory:
			for n := sr.count("memories", 2, maxTables); n > 0 && sr.err == nil; n-- {
				m.memory = sr.memoryType()
				m.memories++
			}
		case secGlobal:
			m.decodeGlobals(sr)
		case secExport:
			m.decodeExports(sr)
		case secStart:
			m.start = int64(m.funcIndex(sr))
		case secElement:
			m.decodeElements(sr)
		case secDataCount:
			m.dataCount = int64(sr.u32())
			if sr.err == nil && m.dataCount > maxSegments {
				sr.malformed(0, "%d data segments, where at most %d are accepted", m.dataCount, maxSegments)
			}
		case secCode:
			m.decodeCode(sr)
		case secData:
			m.decodeData(sr)
		case secTag:
			sr.unsupported(0, "exception tag")
		}
		if sr.err == nil && sr.left() > 0 {
			sr.malformed(sr.pos, "%d bytes too many", sr.left())
		}
		if sr.err != nil {
			return nil, sr.err
		}
		m.sections = append(m.sections, s)
	}
	if own := len(m.funcTypes) - int(m.importedFuncs); own != len(m.bodies) {
		r.malformed(r.pos, "%d functions declared, %d bodies", own, len(m.bodies))
	}
	if m.memories > 1 {
		r.unsupported(r.pos, "more than one memory")
	}
	if m.dataCount >= 0 && int(m.dataCount) != len(m.data) {
		r.malformed(r.pos, "%d data segments declared, %d found", m.dataCount, len(m.data))
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

func (m *Module) decodeTypes(r *reader) {
	n := r.count("types", 3, maxTypes)
	m.types = make([]funcType, 0, n)
	for ; n > 0 && r.err == nil; n-- {
		at := r.pos
		if form := r.byte(); form != 0x60 {
			r.unsupported(at, "type form %#x", form)
		}
		m.types = append(m.types, funcType{r.valueTypes("parameters", maxParams), r.valueTypes("results", maxResults)})
	}
}

func (r *reader) valueTypes(what string, limit int) []byte {
	n := r.count(what, 1, limit)
	at := r.pos
	for i := 0; i < n && r.err == nil; i++ {
		r.valueType()
	}
	return r.b[at:r.pos:r.pos]
}

func (m *Module) decodeImports(r *reader) {
	n := r.count("imports", 4, maxImports)
	for ; n > 0 && r.err == nil; n-- {
		at := r.pos
		x := extern{module: r.name("module name"), name: r.name("import name")}
		kindAt := r.pos
		x.kind = r.byte()
		switch x.kind {
		case kindFunc:
			x.index = m.typeIndex(r)
			m.funcTypes = append(m.funcTypes, x.index)
			m.importedFuncs++
		case kindTable:
			m.table = r.tableType()
			m.table.imported = true
			m.tables++
		case kindMemory:
			m.memory = r.memoryType()
			m.memory.imported = true
			m.memories++
		case kindGlobal:
			r.valueType()
			if r.mutability() {
				m.importedMutable = true
			}
			m.importedGlobals++
		default:
			r.unsupported(kindAt, "import kind %d", x.kind)
		}
		x.raw = r.b[at:r.pos:r.pos]
		m.imports = append(m.imports, x)
	}
}

func (m *Module) typeIndex(r *reader) uint32 {
	at := r.pos
	i := r.u32()
	if r.err == nil && int64(i) >= int64(len(m.types)) {
		r.malformed(at, "type %d of %d", i, len(m.types))
	}
	return i
}

// funcIndex reads a function index. Every one must be checked: one beyond the
// module's functions would name a function that Meter adds.
func (m *Module) funcIndex(r *reader) uint32 {
	at := r.pos
	i := r.u32()
	m.checkFunc(r, at, i)
	return i
}

func (m *Module) checkFunc(r *reader, at int, i uint32) {
	if r.err == nil && i >= m.allFuncs() {
		r.malformed(at, "function %d of %d", i, m.allFuncs())
	}
}

func (r *reader) limits(limit uint32) (least, most uint32) {
	at := r.pos
	flags := r.byte()
	if flags > 1 {
		r.unsupported(at, "limits with flags %#x (shared or 64-bit)", flags)
	}
	least, most = r.u32(), 1<<32-1
	if r.err == nil && least > limit {
		r.malformed(at, "minimum of %d, where at most %d is accepted", least, limit)
	}
	if flags == 1 {
		if most = r.u32(); r.err == nil && most < least {
			r.malformed(at, "maximum %d below minimum %d", most, least)
		}
	}
	return least, most
}

func (r *reader) tableType() table {
	at := r.pos
	t := r.byte()
	if r.err == nil && t != typeFuncref && t != typeExternref {
		r.unsupported(at, "table of type %#x", t)
	}
	least, most := r.limits(maxTableEntries)
	return table{typ: t, min: least, max: most}
}

func (r *reader) memoryType() table {
	least, most := r.limits(maxPages)
	return table{min: least, max: most}
}

func (r *reader) mutability() bool {
	at := r.pos
	v := r.byte()
	if v > 1 {
		r.malformed(at, "mutability %#x", v)
	}
	return v == 1
}

func (m *Module) decodeFunctions(r *reader) {
	n := r.count("functions", 1, maxFunctions)
	for ; n > 0 && r.err == nil; n-- {
		m.funcTypes = append(m.funcTypes, m.typeIndex(r))
	}
}

func (m *Module) decodeGlobals(r *reader) {
	n := r.count("globals", 4, maxGlobals)
	m.globals = make([]global, 0, n)
	for ; n > 0 && r.err == nil; n-- {
		at := r.pos
		g := global{typ: r.valueType(), mutable: r.mutability()}
		// With extended constant expressions an initialiser may name the
		// module's own globals before it.
		known := m.allGlobals()
		g.init = r.constExpr(func(in *instr) {
			switch in.op {
			case opGlobalGet:
				m.checkGlobal(r, in.at, in.index, known)
			case opRefFunc:
				m.checkFunc(r, in.at, in.index)
				g.refs = true
			}
		})
		g.raw = r.b[at:r.pos:r.pos]
		m.globals = append(m.globals, g)
	}
}

func (m *Module) checkGlobal(r *reader, at int, i, known uint32) {
	if i >= known {
		r.malformed(at, "global %d of %d", i, known)
	}
}

// offsetExpr reads the offset of an active segment.
func (m *Module) offsetExpr(r *reader) []byte {
	return r.constExpr(func(in *instr) {
		switch in.op {
		case opGlobalGet:
			m.checkGlobal(r, in.at, in.index, m.allGlobals())
		case opRefFunc:
			r.malformed(in.at, "function reference as an offset")
		}
	})
}

func (m *Module) decodeExports(r *reader) {
	n := r.count("exports", 3, maxExports)
	m.exports = make([]extern, 0, n)
	for ; n > 0 && r.err == nil; n-- {
		at := r.pos
		x := extern{name: r.name("export name")}
		kindAt := r.pos
		x.kind = r.byte()
		switch x.kind {
		case kindFunc:
			x.index = m.funcIndex(r)
		case kindGlobal:
			indexAt := r.pos
			x.index = r.u32()
			m.checkGlobal(r, indexAt, x.index, m.allGlobals())
		case kindTable, kindMemory:
			x.index = r.u32()
		default:
			r.unsupported(kindAt, "export kind %d", x.kind)
		}
		x.raw = r.b[at:r.pos:r.pos]
		m.exports = append(m.exports, x)
	}
}

func (m *Module) decodeElements(r *reader) {
	n := r.count("element segments", 3, maxSegments)
	for ; n > 0 && r.err == nil; n-- {
		at := r.pos
		e := element{flags: r.u32()}
		if e.flags > 7 {
			r.unsupported(at, "element segment with flags %#x", e.flags)
			return
		}
		passive, explicit, exprs := e.flags&1 != 0, e.flags&2 != 0, e.flags&4 != 0
		if !passive {
			if explicit {
				e.table = r.u32()
			}
			e.offset = m.offsetExpr(r)
		}
		if e.flags&3 != 0 {
			kindAt := r.pos
			switch e.kind = r.byte(); {
			case !exprs && e.kind != 0, exprs && e.kind != typeFuncref && e.kind != typeExternref:
				r.unsupported(kindAt, "element kind %#x", e.kind)
			}
		}
		e.head = r.b[at:r.pos:r.pos]
		e.count = r.count("elements", 1, maxElements-m.elems)
		m.elems += e.count
		items := r.pos
		for i := 0; i < e.count && r.err == nil; i++ {
			if !exprs {
				m.funcIndex(r)
				continue
			}
			r.constExpr(func(in *instr) {
				switch in.op {
				case opGlobalGet:
					m.checkGlobal(r, in.at, in.index, m.allGlobals())
				case opRefFunc:
					m.checkFunc(r, in.at, in.index)
				}
			})
		}
		e.items = r.b[items:r.pos:r.pos]
		m.elements = append(m.elements, e)
	}
}

func (m *Module) decodeData(r *reader) {
	n := r.count("data segments", 2, maxSegments)
	for i := 0; i < n && r.err == nil; i++ {
		at := r.pos
		s := segment{flags: r.u32()}
		switch s.flags {
		case 0:
			s.offset = m.offsetExpr(r)
		case 1:
		case 2:
			if r.u32() != 0 {
				r.unsupported(at, "memory index other than 0")
			}
			s.offset = m.offsetExpr(r)
		default:
			r.unsupported(at, "data segment with flags %#x", s.flags)
		}
		s.bytes = r.take(r.u32())
		m.data = append(m.data, s)
	}
}

func (m *Module) decodeCode(r *reader) {
	n := r.count("bodies", 3, maxFunctions)
	if declared := len(m.funcTypes) - int(m.importedFuncs); n != declared {
		r.malformed(0, "%d functions declared, %d bodies", declared, n)
		return
	}
	m.bodies = make([]span, 0, n)
	w := newBodyReader(m)
	for i := 0; i < n && r.err == nil; i++ {
		at := r.pos
		size := r.u32()
		if size > maxBody {
			r.malformed(at, "function of %d bytes, where at most %d are accepted", size, maxBody)
		}
		body := r.take(size)
		if r.err != nil {
			return
		}
		s := span{uint32(r.base + r.pos - len(body)), uint32(r.base + r.pos)}
		if err := w.read(i, s, m.uses.see); err != nil {
			r.err = err
			return
		}
		// A few bytes declare 50,000 locals, and wazero makes 8 bytes of each: a
		// module of nothing but such functions would take terabytes.
		if m.locals += uint64(w.locals); m.locals > uint64(len(m.wasm)+maxLocals) {
			r.malformed(at, "%d locals by function %d, in a module of %d bytes", m.locals, i, len(m.wasm))
		}
		m.bodies = append(m.bodies, s)
	}
}

// A bodyReader steps through the bodies of functions and checks every index in
// them. It is reused, to allocate once a module.
type bodyReader struct {
	m      *Module
	labels []uint32
	r      reader

	fn     int    // the function, among the module's own
	groups span   // the declarations of its locals, without their count, in body
	nGroup uint32 // their count
	locals uint32 // parameters included
	code   int    // where the instructions start in body
	depth  int    // of blocks around the next instruction; the function's own is one
}

func newBodyReader(m *Module) *bodyReader {
	w := &bodyReader{m: m}
	w.r.where = func() string { return fmt.Sprintf("code section, function %d", int(m.importedFuncs)+w.fn) }
	return w
}

// read steps through the body of the module's own function fn and calls visit
// for each instruction, with w.depth as it is after the instruction.
func (w *bodyReader) read(fn int, s span, visit func(*instr)) error {
	w.open(fn, s)
	var in instr
	for w.next(&in) {
		visit(&in)
	}
	return w.r.err
}

// open starts on the body of the module's own function fn and reads the
// declarations of locals.
func (w *bodyReader) open(fn int, s span) {
	m := w.m
	r := &w.r
	*r = reader{b: m.wasm[s.from:s.to], base: int(s.from), where: r.where}
	w.fn = fn
	w.depth = 1
	locals := uint64(len(m.funcType(m.importedFuncs + uint32(fn)).params))
	n := r.count("groups of locals", 2, maxLocals)
	w.nGroup = uint32(n)
	w.groups.from = uint32(r.pos)
	for ; n > 0 && r.err == nil; n-- {
		at := r.pos
		locals += uint64(r.u32())
		r.valueType()
		if locals > maxLocals {
			r.malformed(at, "more than %d locals", maxLocals)
		}
	}
	w.groups.to = uint32(r.pos)
	w.locals = uint32(locals)
	w.code = r.pos
}

// next decodes and checks one instruction. It returns false after the body's
// last, or at an error.
func (w *bodyReader) next(in *instr) bool {
	r, m := &w.r, w.m
	if w.depth == 0 {
		if r.err == nil && r.left() > 0 {
			r.malformed(r.pos, "%d bytes after the function's end", r.left())
		}
		return false
	}
	r.instruction(in, w.labels)
	if r.err != nil {
		return false
	}
	switch in.op {
	case opBlock, opLoop, opIf:
		if in.block < 0 && int64(in.index) >= int64(len(m.types)) {
			r.malformed(in.at, "type %d of %d", in.index, len(m.types))
		}
		if w.depth++; w.depth > maxNesting {
			r.malformed(in.at, "more than %d blocks in each other", maxNesting)
		}
	case opEnd:
		w.depth--
	case opBr, opBrIf:
		w.label(in, in.index)
	case opBrTable:
		w.labels = in.labels
		for _, l := range in.labels {
			w.label(in, l)
		}
	case opCall, opReturnCall, opRefFunc:
		m.checkFunc(r, in.at, in.index)
	case opCallIndirect, opReturnCallIndirect:
		if int64(in.index) >= int64(len(m.types)) {
			r.malformed(in.at, "type %d of %d", in.index, len(m.types))
		}
	case opLocalGet, opLocalSet, opLocalTee:
		if in.index >= w.locals {
			r.malformed(in.at, "local %d of %d", in.index, w.locals)
		}
	case opGlobalGet, opGlobalSet:
		m.checkGlobal(r, in.at, in.index, m.allGlobals())
	}
	return r.err == nil
}

func (w *bodyReader) label(in *instr, l uint32) {
	if w.r.err == nil && int64(l) >= int64(w.depth) {
		w.r.malformed(in.at, "label %d inside %d blocks", l, w.depth)
	}
}
