package rewrite

// Subsections of the name section whose maps are keyed by function index.
const (
	namesFunctions = 1
	namesLocals    = 2
	namesLabels    = 3
)

// decodeNames checks the name section that r stands in. The specification lets
// engines ignore a broken one, but those that read it trust its counts.
func (m *Module) decodeNames(r *reader) {
	m.renumberNames(r, nil, nil)
}

// renumberNames reads the subsections that follow in r, and appends them to out
// with the function indices passed through renumber; with a nil renumber it only
// checks them.
func (m *Module) renumberNames(r *reader, out []byte, renumber func(uint32) uint32) []byte {
	for r.left() > 0 && r.err == nil {
		at := r.pos
		id := r.byte()
		body := r.take(r.u32())
		s := &reader{b: body, base: r.base + r.pos - len(body), where: r.where, err: r.err}
		switch id {
		case 0:
			s.name("module name")
		case namesFunctions, namesLocals, namesLabels:
			var sub []byte
			n := s.count("names", 2, maxFunctions+maxImports)
			sub = appendU32(sub, uint32(n))
			for ; n > 0 && s.err == nil; n-- {
				fn := s.u32()
				entry := s.pos
				if id == namesFunctions {
					s.name("function name")
				} else {
					for k := s.count("names", 2, len(body)); k > 0 && s.err == nil; k-- {
						s.u32()
						s.name("local or label name")
					}
				}
				if renumber != nil {
					sub = appendU32(sub, renumber(fn))
					sub = append(sub, body[entry:s.pos]...)
				}
			}
			if renumber != nil {
				out = append(out, id)
				out = appendU32(out, uint32(len(sub)))
				out = append(out, sub...)
			}
		default:
			s.pos = len(body)
			if renumber != nil {
				out = append(out, r.b[at:r.pos]...)
			}
		}
		if s.err == nil && s.left() > 0 {
			s.malformed(s.pos, "%d bytes too many in subsection %d", s.left(), id)
		}
		if id == 0 && renumber != nil {
			out = append(out, r.b[at:r.pos]...)
		}
		r.err = s.err
	}
	return out
}
