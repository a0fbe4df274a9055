package schema

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Between is what stands between the fields of a key, and behind the last: it is
// less than anything in them.
const Between = " "

// after is greater than Between, and not greater than anything else in a field.
const after = "!"

// The first character of a field in a key: values of different types are in this
// order.
const (
	missing   = '0'
	isNull    = '1'
	isFalse   = '2'
	isTrue    = '3'
	isNumber  = '4'
	isText    = '5'
	otherwise = '6' // lists and objects are not told apart
)

// AppendKey appends what v, which may be nil for a missing one, is sorted by: text
// whose bytes are in the order of the values. Numbers are as float64 has them: whole
// ones are exact up to 2^53. Of strings the first MaxIndexed bytes count.
func (v *Value) AppendKey(b []byte) []byte {
	if v == nil {
		return append(b, missing)
	}
	switch v.kind {
	case null:
		return append(b, isNull)
	case boolean:
		if v.truth {
			return append(b, isTrue)
		}
		return append(b, isFalse)
	case number:
		return appendNumber(append(b, isNumber), v.float())
	case text:
		return appendText(append(b, isText), v.text)
	}
	return append(b, otherwise)
}

// float is a number's value; what is too large for it is infinite.
func (v *Value) float() float64 {
	f, _ := strconv.ParseFloat(v.text, 64)
	return f
}

func appendNumber(b []byte, f float64) []byte {
	if f == 0 {
		f = 0 // there are two
	}
	bits := math.Float64bits(f)
	if bits>>63 == 1 {
		bits = ^bits
	} else {
		bits |= 1 << 63
	}
	var be [8]byte
	binary.BigEndian.PutUint64(be[:], bits)
	return hex.AppendEncode(b, be[:])
}

// appendText writes every byte up to '"' as '!' and a letter, so that Between and
// what JSON would escape are in no field.
func appendText(b []byte, s string) []byte {
	if len(s) > MaxIndexed {
		n := MaxIndexed
		for !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	for i := range len(s) {
		if c := s[i]; c <= '"' {
			b = append(b, '!', '@'+c)
		} else {
			b = append(b, c)
		}
	}
	return b
}

// Span is an interval of keys: from Low on, and below High.
type Span struct{ Low, High string }

// Span is where the keys of the values lie of which a condition on one field can be
// true. Behind a key stand Between and what comes next.
func (c *Cond) Span() Span {
	key := func(v *Value) string { return string(v.AppendKey(nil)) }
	if c.Equals != nil {
		e := key(c.Equals)
		return Span{e + Between, e + after}
	}
	s := Span{string(rune(missing)), string(rune(otherwise + 1))}
	narrow := func(low, high string) {
		s.Low, s.High = max(s.Low, low), min(s.High, high)
	}
	if c.Prefix != nil {
		p := string(appendText([]byte{isText}, *c.Prefix))
		narrow(p, p+"\xff")
	}
	for _, b := range []struct {
		v    *Value
		low  string
		high string
	}{{c.Above, after, ""}, {c.From, Between, ""}, {c.Below, "", Between}, {c.To, "", after}} {
		if b.v == nil {
			continue
		}
		e := key(b.v)
		if b.v.kind == text && len(b.v.text) >= MaxIndexed { // more than the key says is behind it
			b.low, b.high = strings.Replace(b.low, after, Between, 1), strings.Replace(b.high, Between, after, 1)
		}
		narrow(e[:1], string(rune(e[0]+1)))
		if b.low != "" {
			narrow(e+b.low, s.High)
		} else {
			narrow(s.Low, e+b.high)
		}
	}
	return s
}
