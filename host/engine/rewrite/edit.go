package rewrite

import (
	"strings"
)

// An edit is a module with additions. What it adds comes after what the module
// has, so that the only indices that change are those of the module's own
// functions when functions are imported: they move up by one.
type edit struct {
	m       *Module
	types   [][]byte // as encoded
	imports [][]byte // functions only
	funcs   []uint32 // types of the functions added
	globals [][]byte
	exports [][]byte
	// bodies are those of the module's own functions, as encoded without their
	// size; nil leaves them as they are. It must not be nil when functions are
	// imported, for bodies name functions. added are those of funcs.
	bodies, added [][]byte
	drop          map[byte]bool // sections to leave out
}

// addType returns the index of the type added.
func (e *edit) addType(b []byte) uint32 {
	e.types = append(e.types, b)
	return uint32(len(e.m.types) + len(e.types) - 1)
}

func (e *edit) addGlobal(b []byte) { e.globals = append(e.globals, b) }

func (e *edit) addExport(name string, kind byte, index uint32) {
	e.exports = append(e.exports, appendU32(append(appendName(nil, name), kind), index))
}

func (e *edit) importFunc(module, name string, typ uint32) {
	b := appendName(appendName(nil, module), name)
	e.imports = append(e.imports, appendU32(append(b, kindFunc), typ))
}

// addFunc returns the index that the function added has after the edit. Imports
// are to be added before.
func (e *edit) addFunc(typ uint32, body []byte) uint32 {
	e.funcs = append(e.funcs, typ)
	e.added = append(e.added, body)
	return e.m.allFuncs() + uint32(len(e.imports)+len(e.funcs)-1)
}

// renumber returns the index that function fn has after the edit.
func (e *edit) renumber(fn uint32) uint32 {
	if fn >= e.m.importedFuncs {
		return fn + uint32(len(e.imports))
	}
	return fn
}

// encode returns the edited module. Sections that the edit does not touch keep
// their bytes, and so do the items of those that it only appends to.
func (e *edit) encode() ([]byte, error) {
	m := e.m
	total := len(header)
	for _, b := range e.bodies {
		total += len(b) + 5
	}
	for i := range m.sections {
		if m.sections[i].id != secCode {
			total += len(m.sections[i].raw)
		}
	}
	out := make([]byte, 0, total+total/16+256)
	out = append(out, header...)
	for _, s := range e.allSections() {
		p, touched, err := e.section(s)
		if err != nil {
			return nil, err
		}
		switch {
		case !touched:
			out = append(out, s.raw...)
		case p != nil:
			out = append(out, s.id)
			out = appendU32(out, uint32(len(p)))
			out = append(out, p...)
		}
	}
	if len(out) > 1<<31-1 {
		return nil, &UnsupportedError{What: "module that reaches 2 GiB when metered", Where: "module", Offset: len(m.wasm)}
	}
	return out, nil
}

// allSections is the module's sections, with empty ones for those that the edit
// needs and the module lacks.
func (e *edit) allSections() []section {
	secs := append([]section(nil), e.m.sections...)
	need := func(id byte, additions int) {
		if additions == 0 {
			return
		}
		at := len(secs)
		for i, s := range secs {
			if s.id == id {
				return
			}
			if s.id != secCustom && sectionRank(s.id) > sectionRank(id) && i < at {
				at = i
			}
		}
		secs = append(secs, section{})
		copy(secs[at+1:], secs[at:])
		secs[at] = section{id: id, payload: []byte{0}}
	}
	need(secType, len(e.types))
	need(secImport, len(e.imports))
	need(secFunction, len(e.funcs))
	need(secGlobal, len(e.globals))
	need(secExport, len(e.exports))
	need(secCode, len(e.added))
	return secs
}

// section returns the new payload of s, or that it keeps its bytes. A touched
// section without payload is dropped.
func (e *edit) section(s section) (payload []byte, touched bool, err error) {
	m := e.m
	if e.drop[s.id] {
		return nil, true, nil
	}
	// appended keeps the items and appends others.
	appended := func(items [][]byte) ([]byte, bool, error) {
		r := &reader{b: s.payload}
		n := r.u32()
		p := appendU32(make([]byte, 0, len(s.payload)+64), n+uint32(len(items)))
		p = append(p, s.payload[r.pos:]...)
		for _, b := range items {
			p = append(p, b...)
		}
		return p, true, nil
	}
	shifts := len(e.imports) > 0
	switch s.id {
	case secType:
		return appended(e.types)
	case secImport:
		return appended(e.imports)
	case secFunction:
		var items [][]byte
		for _, t := range e.funcs {
			items = append(items, appendU32(nil, t))
		}
		return appended(items)
	case secGlobal:
		p := appendU32(make([]byte, 0, len(s.payload)+64), uint32(len(m.globals)+len(e.globals)))
		for _, g := range m.globals {
			if !g.refs || !shifts {
				p = append(p, g.raw...)
				continue
			}
			mut := byte(0)
			if g.mutable {
				mut = 1
			}
			p = e.renumberExpr(append(p, g.typ, mut), g.init)
		}
		for _, g := range e.globals {
			p = append(p, g...)
		}
		return p, true, nil
	case secExport:
		p := appendU32(make([]byte, 0, len(s.payload)+64), uint32(len(m.exports)+len(e.exports)))
		for _, x := range m.exports {
			if x.kind == kindFunc {
				p = appendU32(append(appendName(p, x.name), kindFunc), e.renumber(x.index))
			} else {
				p = append(p, x.raw...)
			}
		}
		for _, x := range e.exports {
			p = append(p, x...)
		}
		return p, true, nil
	case secStart:
		return appendU32(nil, e.renumber(uint32(m.start))), true, nil
	case secElement:
		if !shifts {
			return nil, false, nil
		}
		p := appendU32(make([]byte, 0, len(s.payload)+len(s.payload)/16), uint32(len(m.elements)))
		for _, x := range m.elements {
			p = append(p, x.head...)
			p = appendU32(p, uint32(x.count))
			r := &reader{b: x.items}
			for i := 0; i < x.count; i++ {
				if x.flags&4 == 0 {
					p = appendU32(p, e.renumber(r.u32()))
				} else {
					p = e.renumberExpr(p, r.constExpr(nil))
				}
			}
		}
		return p, true, nil
	case secCode:
		if e.bodies == nil {
			for _, b := range m.bodies {
				e.bodies = append(e.bodies, m.wasm[b.from:b.to])
			}
		}
		p := appendU32(nil, uint32(len(e.bodies)+len(e.added)))
		for _, bodies := range [][][]byte{e.bodies, e.added} {
			for _, b := range bodies {
				p = appendU32(p, uint32(len(b)))
				p = append(p, b...)
			}
		}
		return p, true, nil
	case secCustom:
		switch {
		case s.name == "name" && shifts:
			r := &reader{b: s.payload}
			p := m.renumberNames(r, appendName(nil, s.name), e.renumber)
			return p, true, r.err
		case strings.HasPrefix(s.name, ".debug_"), strings.HasPrefix(s.name, "reloc."), strings.HasPrefix(s.name, "metadata.code."),
			s.name == "linking", s.name == "sourceMappingURL", s.name == "external_debug_info":
			return nil, true, nil
		}
	}
	return nil, false, nil
}

// renumberExpr appends a constant expression with its function indices changed.
func (e *edit) renumberExpr(p, expr []byte) []byte {
	r := &reader{b: expr}
	copied := 0
	r.constExpr(func(in *instr) {
		if in.op == opRefFunc {
			p = append(p, expr[copied:in.at]...)
			p = appendU32(append(p, opRefFunc), e.renumber(in.index))
			copied = in.end
		}
	})
	return append(p, expr[copied:]...)
}
