package rewrite

import (
	"fmt"
	"unicode/utf8"
)

// A reader reads the binary format from b, which is a window that starts at
// byte base of the module. The first failure sticks: after it every read gives
// zero and leaves the position alone, so that callers may check once per item.
// Loops over counts must end at a failure.
type reader struct {
	b     []byte
	pos   int
	base  int
	where func() string
	err   error
}

func (r *reader) place() string {
	if r.where == nil {
		return "module"
	}
	return r.where()
}

func (r *reader) malformed(at int, format string, args ...any) {
	if r.err == nil {
		r.err = &MalformedError{What: fmt.Sprintf(format, args...), Where: r.place(), Offset: r.base + at}
	}
}

func (r *reader) unsupported(at int, format string, args ...any) {
	if r.err == nil {
		r.err = &UnsupportedError{What: fmt.Sprintf(format, args...), Where: r.place(), Offset: r.base + at}
	}
}

func (r *reader) left() int { return len(r.b) - r.pos }

func (r *reader) byte() byte {
	if r.err != nil {
		return 0
	}
	if r.pos >= len(r.b) {
		r.malformed(r.pos, "unexpected end")
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

// take returns the next n bytes, aliasing the module.
func (r *reader) take(n uint32) []byte {
	if r.err != nil {
		return nil
	}
	if uint64(n) > uint64(r.left()) {
		r.malformed(r.pos, "%d bytes announced where %d remain", n, r.left())
		return nil
	}
	p := r.b[r.pos : r.pos+int(n) : r.pos+int(n)]
	r.pos += int(n)
	return p
}

// u32 reads an unsigned LEB128 number, of at most five bytes and 32 bits.
func (r *reader) u32() uint32 {
	// Most numbers of a module are below 128.
	if r.err == nil && r.pos < len(r.b) {
		if c := r.b[r.pos]; c < 0x80 {
			r.pos++
			return uint32(c)
		}
	}
	at := r.pos
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 28 && c > 0x0f {
			break
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	r.malformed(at, "number longer than 32 bits")
	return 0
}

// signed reads a signed LEB128 number of at most width bits: 32, 33 or 64.
func (r *reader) signed(width int) int64 {
	at := r.pos
	var v int64
	last := (width - 1) / 7 * 7 // the shift of the last byte allowed
	for shift := 0; shift <= last; shift += 7 {
		c := r.byte()
		if r.err != nil {
			return 0
		}
		v |= int64(c&0x7f) << shift
		if c >= 0x80 {
			continue
		}
		if shift == last {
			// The bits beyond width must all repeat the sign bit.
			used := uint(width - last)
			top := int8(c<<1) >> used // sign-extended from bit 6, less the used ones but the sign
			if top != 0 && top != -1 {
				break
			}
		}
		if shift+7 < 64 && c&0x40 != 0 {
			v |= -1 << (shift + 7)
		}
		return v
	}
	r.malformed(at, "number longer than %d bits", width)
	return 0
}

// count reads how many items follow, of at least size bytes each, so that no
// count makes a caller allocate more than the module's bytes can fill; limit is
// the most that is accepted.
func (r *reader) count(what string, size, limit int) int {
	at := r.pos
	n := r.u32()
	if r.err != nil {
		return 0
	}
	if int64(n)*int64(size) > int64(r.left()) {
		r.malformed(at, "%d %s announced where %d bytes remain", n, what, r.left())
		return 0
	}
	if int64(n) > int64(limit) {
		r.malformed(at, "%d %s, where at most %d are accepted", n, what, limit)
		return 0
	}
	return int(n)
}

func (r *reader) name(what string) string {
	at := r.pos
	p := r.take(r.u32())
	if r.err == nil && !utf8.Valid(p) {
		r.malformed(at, "%s is not UTF-8", what)
	}
	return string(p)
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendS64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && c&0x40 == 0) || (v == -1 && c&0x40 != 0) {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendName(b []byte, s string) []byte {
	return append(appendU32(b, uint32(len(s))), s...)
}
