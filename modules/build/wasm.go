package build

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// errOdd is about a module that is not as compilers, or guest-sdk/js/build.sh, make it.
var errOdd = errors.New("it is not a module as it should be")

// section is one of a core module's; https://webassembly.github.io/spec/core/binary/modules.html
type section struct {
	id   byte
	body []byte
}

type sections []section

const (
	globalSection    = 6
	exportSection    = 7
	dataSection      = 11
	dataCountSection = 12

	i32Const = 0x41
	end      = 0x0b
)

// parse splits a module that a compiler made, or we: what is odd about it is an error,
// and need not be a good one.
func parse(wasm []byte) (all sections, err error) {
	if !bytes.HasPrefix(wasm, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, errOdd
	}
	for r := (reader{b: wasm[8:]}); len(r.b) > 0; {
		id := r.byte()
		body := r.bytes(r.number())
		if r.bad {
			return nil, errOdd
		}
		all = append(all, section{id, body})
	}
	return all, nil
}

func (s sections) encode() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, x := range s {
		out = append(out, x.id)
		out = binary.AppendUvarint(out, uint64(len(x.body)))
		out = append(out, x.body...)
	}
	return out
}

func (s sections) find(id byte) *section {
	for i := range s {
		if s[i].id == id {
			return &s[i]
		}
	}
	return nil
}

// address is the value of an exported global, which is how a linker exports the place
// of a variable.
func (s sections) address(name string) (uint32, error) {
	exports, globals := s.find(exportSection), s.find(globalSection)
	if exports == nil || globals == nil {
		return 0, errOdd
	}
	index := -1
	r := reader{b: exports.body}
	for n := r.number(); n > 0 && !r.bad; n-- {
		found, kind, i := string(r.bytes(r.number())), r.byte(), r.number()
		if found == name && kind == 3 {
			index = int(i)
		}
	}
	r = reader{b: globals.body}
	for i, n := 0, int(r.number()); i < n && !r.bad; i++ {
		r.byte() // type
		r.byte() // whether it changes
		if r.byte() != i32Const {
			break
		}
		value, k := signed(r.b)
		r.bytes(uint64(k))
		r.byte() // the end of the expression
		if i == index {
			return uint32(value), nil
		}
	}
	return 0, fmt.Errorf("%w: it exports no %s", errOdd, name)
}

// exports renames what is exported, and takes away what rename does not keep.
func (s sections) exports(rename func(string) (string, bool)) error {
	x := s.find(exportSection)
	if x == nil {
		return errOdd
	}
	r := reader{b: x.body}
	var kept []byte
	count := uint64(0)
	for n := r.number(); n > 0 && !r.bad; n-- {
		name := string(r.bytes(r.number()))
		kind, index := r.byte(), r.number()
		name, keep := rename(name)
		if !keep {
			continue
		}
		count++
		kept = binary.AppendUvarint(kept, uint64(len(name)))
		kept = append(kept, name...)
		kept = append(kept, kind)
		kept = binary.AppendUvarint(kept, index)
	}
	if r.bad {
		return errOdd
	}
	x.body = append(binary.AppendUvarint(nil, count), kept...)
	return nil
}

// data adds a segment that is copied to an address.
func (s sections) data(at uint32, text []byte) error {
	x := s.find(dataSection)
	if x == nil || s.find(dataCountSection) != nil {
		return errOdd
	}
	r := reader{b: x.body}
	n := r.number()
	if r.bad {
		return errOdd
	}
	body := binary.AppendUvarint(nil, n+1)
	body = append(body, r.b...)
	body = append(body, 0, i32Const) // active, in memory 0
	body = appendSigned(body, int64(int32(at)))
	body = append(body, end)
	body = binary.AppendUvarint(body, uint64(len(text)))
	x.body = slices.Concat(body, text)
	return nil
}

// withLanguage adds a producers section, if there is none, which says the language: so
// tools and policies can tell of every module that was built here.
// https://github.com/WebAssembly/tool-conventions/blob/main/ProducersSection.md
func withLanguage(wasm []byte, language string) ([]byte, error) {
	all, err := parse(wasm)
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		r := reader{b: x.body}
		if x.id == 0 && string(r.bytes(r.number())) == "producers" {
			return wasm, nil
		}
	}
	var body []byte
	text := func(s string) {
		body = binary.AppendUvarint(body, uint64(len(s)))
		body = append(body, s...)
	}
	text("producers")
	body = append(body, 1) // field
	text("language")
	body = append(body, 1) // value
	text(language)
	text("") // its version
	return append(all, section{0, body}).encode(), nil
}

// binaryLength is a length as the interpreter reads it: 4 bytes, the lowest first.
func binaryLength(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	b := r.bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) number() uint64 {
	n, k := binary.Uvarint(r.b)
	if k <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[k:]
	return n
}

// signed reads a number in signed LEB128, and returns how many bytes it has.
func signed(b []byte) (value int64, n int) {
	for shift := uint(0); n < len(b) && shift < 64; shift += 7 {
		c := b[n]
		n++
		value |= int64(c&0x7f) << shift
		if c < 0x80 {
			if c&0x40 != 0 {
				value |= -1 << (shift + 7)
			}
			return value, n
		}
	}
	return 0, n
}

func appendSigned(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
