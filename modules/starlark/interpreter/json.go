package main

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// This file is JSON (RFC 8259) for params, results, records and the script's own json.
// It is not go.starlark.net/lib/json, which recurses as deep as its input says, takes
// text that is not UTF-8, and brings encoding/json with it: 400 kB of the module.

// maxNesting is how deep arrays and objects may lie in each other, either way: it bounds
// the interpreter's own recursion.
const maxNesting = 500

// maxJSON is how many bytes an encoder may make. A few lists can hold each other in a
// way that is no cycle, and yet has more elements than there are atoms.
const maxJSON = 64 << 20

// jsonModule is the script's json, as go.starlark.net documents it: keys are sorted,
// so that the same value has the same text.
var jsonModule = &starlarkstruct.Module{
	Name: "json",
	Members: starlark.StringDict{
		"encode":        starlark.NewBuiltin("json.encode", jsonEncode),
		"encode_indent": starlark.NewBuiltin("json.encode_indent", jsonEncodeIndent),
		"decode":        starlark.NewBuiltin("json.decode", jsonDecode),
		"indent":        starlark.NewBuiltin("json.indent", jsonIndent),
	},
}

func jsonEncode(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var x starlark.Value
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &x); err != nil {
		return nil, err
	}
	return encoded(b.Name(), x, layout{})
}

func jsonEncodeIndent(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	l := layout{lines: true, indent: "\t"}
	if err := starlark.UnpackArgs(b.Name(), nil, kwargs, "prefix?", &l.prefix, "indent?", &l.indent); err != nil {
		return nil, err
	}
	var x starlark.Value
	if err := starlark.UnpackPositionalArgs(b.Name(), args, nil, 1, &x); err != nil {
		return nil, err
	}
	return encoded(b.Name(), x, l)
}

func jsonIndent(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	l := layout{lines: true, indent: "\t"}
	if err := starlark.UnpackArgs(b.Name(), nil, kwargs, "prefix?", &l.prefix, "indent?", &l.indent); err != nil {
		return nil, err
	}
	var s string
	if err := starlark.UnpackPositionalArgs(b.Name(), args, nil, 1, &s); err != nil {
		return nil, err
	}
	x, err := decode(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	return encoded(b.Name(), x, l)
}

func jsonDecode(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var s string
	var otherwise starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "x", &s, "default?", &otherwise); err != nil {
		return nil, err
	}
	v, err := decode(s)
	switch {
	case err == nil:
		return v, nil
	case otherwise != nil:
		return otherwise, nil
	}
	return nil, fmt.Errorf("%s: %w", b.Name(), err)
}

func encoded(name string, x starlark.Value, l layout) (starlark.Value, error) {
	text, err := encode(x, l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return starlark.String(text), nil
}

// layout is where an encoder breaks lines.
type layout struct {
	lines          bool
	prefix, indent string
}

// encode writes a value as JSON.
func encode(x starlark.Value, l layout) ([]byte, error) {
	e := encoder{layout: l}
	if err := e.value(x, 0); err != nil {
		return nil, err
	}
	return e.out, nil
}

type encoder struct {
	layout
	out []byte
}

// line begins a line at that depth.
func (e *encoder) line(depth int) {
	if e.lines {
		e.out = append(append(e.out, '\n'), e.prefix...)
		for range depth {
			e.out = append(e.out, e.indent...)
		}
	}
}

func (e *encoder) key(s string) {
	e.text(s)
	e.out = append(e.out, ':')
	if e.lines {
		e.out = append(e.out, ' ')
	}
}

func (e *encoder) value(x starlark.Value, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("the value is nested more than %d deep, or contains itself", maxNesting)
	}
	if len(e.out) > maxJSON {
		return fmt.Errorf("the text would have more than %d MiB", maxJSON>>20)
	}
	switch x := x.(type) {
	case starlark.NoneType:
		e.out = append(e.out, "null"...)
	case starlark.Bool:
		e.out = strconv.AppendBool(e.out, bool(x))
	case starlark.Int:
		e.out = append(e.out, x.String()...)
	case starlark.Float:
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return fmt.Errorf("JSON has no number like %v", x)
		}
		e.out = append(e.out, x.String()...) // with a point or exponent, so that it stays a float
	case starlark.String:
		e.text(string(x))
	case starlark.Bytes:
		return errors.New("bytes are no JSON; make text of them, with str(b), or a list, with list(b.elems())")
	case starlark.IterableMapping:
		items := x.Items()
		for _, item := range items {
			if _, ok := item[0].(starlark.String); !ok {
				return fmt.Errorf("the dict has the key %s, which is %s; JSON's keys are strings", brief(item[0]), article(item[0].Type()))
			}
		}
		slices.SortFunc(items, func(a, b starlark.Tuple) int {
			return strings.Compare(string(a[0].(starlark.String)), string(b[0].(starlark.String)))
		})
		e.out = append(e.out, '{')
		for i, item := range items {
			if i > 0 {
				e.out = append(e.out, ',')
			}
			e.line(depth + 1)
			e.key(string(item[0].(starlark.String)))
			if err := e.value(item[1], depth+1); err != nil {
				return err
			}
		}
		if len(items) > 0 {
			e.line(depth)
		}
		e.out = append(e.out, '}')
	case starlark.Iterable: // list, tuple, set, range
		e.out = append(e.out, '[')
		iter := x.Iterate()
		defer iter.Done()
		var item starlark.Value
		i := 0
		for ; iter.Next(&item); i++ {
			if i > 0 {
				e.out = append(e.out, ',')
			}
			e.line(depth + 1)
			if err := e.value(item, depth+1); err != nil {
				return err
			}
		}
		if i > 0 {
			e.line(depth)
		}
		e.out = append(e.out, ']')
	case *starlarkstruct.Struct:
		e.out = append(e.out, '{')
		i := 0
		for name, v := range x.Entries() { // sorted
			if i > 0 {
				e.out = append(e.out, ',')
			}
			i++
			e.line(depth + 1)
			e.key(name)
			if err := e.value(v, depth+1); err != nil {
				return err
			}
		}
		if i > 0 {
			e.line(depth)
		}
		e.out = append(e.out, '}')
	default:
		return fmt.Errorf("%s cannot be written as JSON", article(x.Type()))
	}
	return nil
}

const hex = "0123456789abcdef"

// text writes a string. What is not UTF-8 in it becomes U+FFFD: a slice of a string
// can cut a letter in two.
func (e *encoder) text(s string) {
	out := e.out
	out = append(out, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				out = append(append(out, s[done:i]...), "\uFFFD"...)
				done = i + 1
			}
			i += n
			continue
		}
		i++
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		out = append(out, s[done:i-1]...)
		done = i
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	e.out = append(append(out, s[done:]...), '"')
}

// decode reads one JSON value and nothing after it. Ints are exact, whatever their
// size; a number with a point or an exponent is a float; an object is a dict in the
// order of the text.
func decode(s string) (starlark.Value, error) {
	d := decoder{s: s}
	v, err := d.value(0)
	if err == nil {
		if d.space(); d.i < len(s) {
			err = d.unexpected("the end")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("at offset %d: %w", d.i, err)
	}
	return v, nil
}

// ambiguous is an error in what is JSON by its grammar: the text is not to be taken
// for something else.
type ambiguous string

func (e ambiguous) Error() string { return string(e) }

type decoder struct {
	s string
	i int
}

// space goes to what is next.
func (d *decoder) space() {
	for d.i < len(d.s) && strings.IndexByte(" \t\r\n", d.s[d.i]) >= 0 {
		d.i++
	}
}

func (d *decoder) unexpected(want string) error {
	if d.i >= len(d.s) {
		return fmt.Errorf("the text ends, where %s is wanted", want)
	}
	r, _ := utf8.DecodeRuneInString(d.s[d.i:])
	return fmt.Errorf("%q, where %s is wanted", r, want)
}

// eat takes the byte if it is next.
func (d *decoder) eat(c byte) bool {
	d.space()
	if d.i < len(d.s) && d.s[d.i] == c {
		d.i++
		return true
	}
	return false
}

func (d *decoder) value(depth int) (starlark.Value, error) {
	if depth > maxNesting {
		return nil, ambiguous(fmt.Sprintf("values are nested more than %d deep", maxNesting))
	}
	d.space()
	rest := d.s[d.i:]
	switch {
	case rest == "":
	case rest[0] == '"':
		s, err := d.text()
		return starlark.String(s), err
	case rest[0] == '{':
		return d.object(depth)
	case rest[0] == '[':
		return d.array(depth)
	case rest[0] == '-' || digit(rest[0]):
		return d.number()
	case strings.HasPrefix(rest, "null"):
		d.i += 4
		return starlark.None, nil
	case strings.HasPrefix(rest, "true"):
		d.i += 4
		return starlark.True, nil
	case strings.HasPrefix(rest, "false"):
		d.i += 5
		return starlark.False, nil
	}
	return nil, d.unexpected("a value")
}

func (d *decoder) array(depth int) (starlark.Value, error) {
	d.i++
	var list []starlark.Value
	if d.eat(']') {
		return starlark.NewList(nil), nil
	}
	for {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if d.eat(']') {
			return starlark.NewList(list), nil
		}
		if !d.eat(',') {
			return nil, d.unexpected("a comma or ]")
		}
	}
}

func (d *decoder) object(depth int) (starlark.Value, error) {
	d.i++
	dict := new(starlark.Dict)
	if d.eat('}') {
		return dict, nil
	}
	for {
		if d.space(); d.i == len(d.s) || d.s[d.i] != '"' {
			return nil, d.unexpected("a key in quotes")
		}
		at := d.i
		key, err := d.text()
		if err != nil {
			return nil, err
		}
		if !d.eat(':') {
			return nil, d.unexpected("a colon")
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n := dict.Len()
		if err := dict.SetKey(starlark.String(key), v); err != nil {
			return nil, err
		}
		if dict.Len() == n {
			d.i = at
			return nil, ambiguous(fmt.Sprintf("the object has the key %s twice", brief(starlark.String(key))))
		}
		if d.eat('}') {
			return dict, nil
		}
		if !d.eat(',') {
			return nil, d.unexpected("a comma or }")
		}
	}
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func (d *decoder) digits() bool {
	at := d.i
	for d.i < len(d.s) && digit(d.s[d.i]) {
		d.i++
	}
	return d.i > at
}

func (d *decoder) number() (starlark.Value, error) {
	at := d.i
	if d.s[d.i] == '-' {
		d.i++
	}
	first := d.i
	if !d.digits() {
		return nil, d.unexpected("a digit")
	}
	if d.s[first] == '0' && d.i > first+1 {
		d.i = first
		return nil, errors.New("a number begins with 0")
	}
	whole := true
	if d.i < len(d.s) && d.s[d.i] == '.' {
		d.i++
		if whole = false; !d.digits() {
			return nil, d.unexpected("a digit")
		}
	}
	if d.i < len(d.s) && (d.s[d.i] == 'e' || d.s[d.i] == 'E') {
		d.i++
		if d.i < len(d.s) && (d.s[d.i] == '+' || d.s[d.i] == '-') {
			d.i++
		}
		if whole = false; !d.digits() {
			return nil, d.unexpected("a digit")
		}
	}
	text := d.s[at:d.i]
	if !whole {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, ambiguous(fmt.Sprintf("the number %.40s is too large for a float", text))
		}
		return starlark.Float(f), nil
	}
	if len(text) < 19 {
		n, err := strconv.ParseInt(text, 10, 64)
		return starlark.MakeInt64(n), err
	}
	n, _ := new(big.Int).SetString(text, 10)
	return starlark.MakeBigInt(n), nil
}

// text reads a string. What has no UTF-8, half of a surrogate pair, is refused: it
// could only be replaced, and two keys could become one.
func (d *decoder) text() (string, error) {
	d.i++
	at := d.i
	var out []byte
	for d.i < len(d.s) {
		c := d.s[d.i]
		switch {
		case c == '"':
			rest := d.s[at:d.i]
			d.i++
			if out == nil {
				return rest, nil
			}
			return string(append(out, rest...)), nil
		case c == '\\':
			out = append(out, d.s[at:d.i]...)
			r, err := d.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
			at = d.i
		case c < 0x20:
			return "", fmt.Errorf("the control character %q in a string; write it as an escape", c)
		case c < utf8.RuneSelf:
			d.i++
		default:
			r, n := utf8.DecodeRuneInString(d.s[d.i:])
			if r == utf8.RuneError && n == 1 {
				return "", errors.New("a string is not UTF-8")
			}
			d.i += n
		}
	}
	return "", errors.New("the text ends in a string")
}

// escape reads what begins with a backslash.
func (d *decoder) escape() (rune, error) {
	if d.i++; d.i == len(d.s) {
		return 0, errors.New("the text ends in a string")
	}
	c := d.s[d.i]
	d.i++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, err := d.unit()
		if err != nil || !utf16.IsSurrogate(r) {
			return r, err
		}
		if strings.HasPrefix(d.s[d.i:], `\u`) {
			d.i += 2
			low, err := d.unit()
			if err != nil {
				return 0, err
			}
			if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
				return r, nil
			}
		}
		return 0, errors.New("half of a surrogate pair in a string")
	}
	return 0, fmt.Errorf("there is no escape \\%c", c)
}

func (d *decoder) unit() (rune, error) {
	if len(d.s)-d.i < 4 {
		return 0, errors.New("the text ends in an escape")
	}
	n, err := strconv.ParseUint(d.s[d.i:d.i+4], 16, 16)
	if err != nil {
		return 0, fmt.Errorf("an escape has %q for four hexadecimal digits", d.s[d.i:d.i+4])
	}
	d.i += 4
	return rune(n), nil
}
