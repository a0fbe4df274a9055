package schema

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// kind is what a JSON value is, as a bit, so that several are a set.
type kind uint8

const (
	null kind = 1 << iota
	boolean
	number
	text
	array
	object
)

var kindNames = map[kind]string{null: "null", boolean: "boolean", number: "number", text: "string", array: "array", object: "object"}

// Value is a JSON value as it was read: with the order of its members, the text of
// its numbers and, for messages, where it stood. It is not changed any more.
type Value struct {
	kind    kind
	truth   bool
	text    string // of a string, decoded; of a number, as it was written
	at      int    // its offset, in bytes
	items   []Value
	members []member
}

type member struct {
	name  string
	at    int
	value Value
}

// What a JSON text may be at most. encoding/json bounds none of it but the depth,
// at 10,000, and a megabyte of "[[],[],…" becomes fifty.
const (
	maxDepth = 128
	maxParts = 100_000 // values in a value
	maxDigit = 400     // bytes of a number, and what its exponent may be
)

// syntaxError is what is wrong with a JSON text, and where.
type syntaxError struct {
	at  int // bytes
	err error
}

func (e *syntaxError) Error() string { return e.err.Error() }
func (e *syntaxError) Unwrap() error { return e.err }

// reader reads one JSON text (RFC 8259), and refuses what its readers disagree
// about: a name that is twice in an object, text that is not UTF-8.
type reader struct {
	in    string
	at    int
	parts int
	depth int
}

// ReadJSON reads a JSON value. An error of the text has its line and column.
func ReadJSON(in string) (Value, error) {
	v, err := readJSON(in)
	var wrong *syntaxError
	if errors.As(err, &wrong) {
		line, column := position(in, wrong.at)
		return v, fmt.Errorf("line %d, column %d: %w", line, column, wrong.err)
	}
	return v, err
}

func readJSON(in string) (v Value, err error) {
	r := &reader{in: in}
	if !utf8.ValidString(in) {
		at := 0
		for at < len(in) {
			c, n := utf8.DecodeRuneInString(in[at:])
			if c == utf8.RuneError && n == 1 {
				break
			}
			at += n
		}
		return v, &syntaxError{at, errors.New("it is not UTF-8")}
	}
	r.space()
	if err := r.value(&v); err != nil {
		return Value{}, err
	}
	if r.space(); r.at < len(in) {
		return Value{}, r.wrong("there is something behind the end of the JSON value")
	}
	return v, nil
}

func (r *reader) wrong(format string, args ...any) error {
	return &syntaxError{r.at, fmt.Errorf(format, args...)}
}

func (r *reader) space() {
	for r.at < len(r.in) {
		switch r.in[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

func (r *reader) value(v *Value) error {
	if r.parts++; r.parts > maxParts {
		return r.wrong("it has more than %d values in it", maxParts)
	}
	if r.at == len(r.in) {
		return r.wrong("the JSON ends too early")
	}
	v.at = r.at
	var err error
	switch c := r.in[r.at]; {
	case c == '{':
		v.kind = object
		return r.object(v)
	case c == '[':
		v.kind = array
		return r.array(v)
	case c == '"':
		v.kind = text
		v.text, err = r.string()
		return err
	case c == '-' || '0' <= c && c <= '9':
		v.kind = number
		v.text, err = r.number()
		return err
	}
	word := ""
	switch r.in[r.at] {
	case 'n':
		v.kind, word = null, "null"
	case 't':
		v.kind, v.truth, word = boolean, true, "true"
	case 'f':
		v.kind, word = boolean, "false"
	}
	if word != "" && strings.HasPrefix(r.in[r.at:], word) {
		r.at += len(word)
		return nil
	}
	return r.wrong("it is not JSON: a value was expected")
}

func (r *reader) deeper() error {
	if r.depth++; r.depth > maxDepth {
		return r.wrong("it is nested deeper than %d", maxDepth)
	}
	return nil
}

func (r *reader) array(v *Value) error {
	if err := r.deeper(); err != nil {
		return err
	}
	defer func() { r.depth-- }()
	r.at++
	r.space()
	if strings.HasPrefix(r.in[r.at:], "]") {
		r.at++
		return nil
	}
	for {
		r.space()
		v.items = append(v.items, Value{})
		if err := r.value(&v.items[len(v.items)-1]); err != nil {
			return err
		}
		if more, err := r.next(']'); err != nil || !more {
			v.items = slices.Clip(v.items)
			return err
		}
	}
}

func (r *reader) object(v *Value) error {
	if err := r.deeper(); err != nil {
		return err
	}
	defer func() { r.depth-- }()
	r.at++
	r.space()
	if strings.HasPrefix(r.in[r.at:], "}") {
		r.at++
		return nil
	}
	for {
		r.space()
		m := member{at: r.at}
		if !strings.HasPrefix(r.in[r.at:], `"`) {
			return r.wrong("it is not JSON: a name in quotes was expected")
		}
		var err error
		if m.name, err = r.string(); err != nil {
			return err
		}
		r.space()
		if !strings.HasPrefix(r.in[r.at:], ":") {
			return r.wrong("it is not JSON: a colon was expected")
		}
		r.at++
		r.space()
		if err := r.value(&m.value); err != nil {
			return err
		}
		v.members = append(v.members, m)
		if more, err := r.next('}'); err != nil || !more {
			v.members = slices.Clip(v.members)
			if err == nil {
				err = unique(v.members)
			}
			return err
		}
	}
}

// unique refuses a name that is twice in an object: which of both counts, readers
// of JSON disagree about.
func unique(members []member) error {
	if len(members) <= 8 {
		for i := range members {
			for j := range members[:i] {
				if members[i].name == members[j].name {
					return twice(members[i])
				}
			}
		}
		return nil
	}
	names := make(map[string]struct{}, len(members))
	for _, m := range members {
		if _, ok := names[m.name]; ok {
			return twice(m)
		}
		names[m.name] = struct{}{}
	}
	return nil
}

func twice(m member) error {
	return &syntaxError{m.at, fmt.Errorf("%s is there twice", quote(m.name))}
}

// next reads a comma, or the end of a list.
func (r *reader) next(end byte) (more bool, err error) {
	r.space()
	if r.at == len(r.in) {
		return false, r.wrong("the JSON ends too early")
	}
	switch r.in[r.at] {
	case ',':
		r.at++
		return true, nil
	case end:
		r.at++
		return false, nil
	}
	return false, r.wrong("it is not JSON: a comma or %q was expected", end)
}

func (r *reader) number() (string, error) {
	from := r.at
	digits := func() int {
		n := r.at
		for r.at < len(r.in) && '0' <= r.in[r.at] && r.in[r.at] <= '9' {
			r.at++
		}
		return r.at - n
	}
	is := func(any string) bool {
		ok := r.at < len(r.in) && strings.IndexByte(any, r.in[r.at]) >= 0
		if ok {
			r.at++
		}
		return ok
	}
	is("-")
	ok := true
	if !is("0") {
		ok = digits() > 0
	}
	if ok && is(".") {
		ok = digits() > 0
	}
	exponent := ""
	if ok && is("eE") {
		start := r.at
		is("+-")
		ok = digits() > 0
		exponent = r.in[start:r.at]
	}
	if !ok {
		r.at = from
		return "", r.wrong("it is not JSON: this is no number")
	}
	if e, err := strconv.Atoi(exponent); r.at-from > maxDigit || exponent != "" && (err != nil || e > maxDigit || e < -maxDigit) {
		r.at = from
		return "", r.wrong("the number is too long: at most %d digits and exponents up to %d are read", maxDigit, maxDigit)
	}
	return r.in[from:r.at], nil
}

func (r *reader) string() (string, error) {
	r.at++
	from := r.at
	plain := strings.IndexAny(r.in[from:], `"\`)
	if plain < 0 {
		r.at = len(r.in)
		return "", r.wrong("the JSON ends too early: a string has no end")
	}
	if control := strings.IndexFunc(r.in[from:from+plain], isControl); control >= 0 {
		r.at = from + control
		return "", r.wrong("it is not JSON: a control character in a string")
	}
	if r.at = from + plain; r.in[r.at] == '"' {
		r.at++
		return r.in[from : from+plain], nil
	}
	var b strings.Builder
	b.WriteString(r.in[from:r.at])
	for r.at < len(r.in) {
		c := r.in[r.at]
		r.at++
		switch {
		case c == '"':
			return b.String(), nil
		case c < ' ':
			r.at--
			return "", r.wrong("it is not JSON: a control character in a string")
		case c != '\\':
			b.WriteByte(c)
			continue
		}
		if r.at == len(r.in) {
			break
		}
		c = r.in[r.at]
		r.at++
		if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
			b.WriteByte("\"\\/\b\f\n\r\t"[i])
			continue
		}
		if c != 'u' {
			r.at -= 2
			return "", r.wrong(`it is not JSON: \%c in a string`, c)
		}
		u, ok := r.hex()
		if ok && utf16.IsSurrogate(u) {
			was := r.at
			low := rune(0)
			if strings.HasPrefix(r.in[r.at:], `\u`) {
				r.at += 2
				low, ok = r.hex()
			}
			if u = utf16.DecodeRune(u, low); u == utf8.RuneError {
				r.at = was // half a pair: as encoding/json has it
			}
		}
		if !ok {
			return "", r.wrong(`it is not JSON: \u takes four hexadecimal digits`)
		}
		b.WriteRune(u)
	}
	return "", r.wrong("the JSON ends too early: a string has no end")
}

func isControl(c rune) bool { return c < ' ' }

func (r *reader) hex() (rune, bool) {
	if len(r.in)-r.at < 4 {
		return 0, false
	}
	u, err := strconv.ParseUint(r.in[r.at:r.at+4], 16, 16)
	r.at += 4
	return rune(u), err == nil
}

// member returns a member of an object, nil if there is none.
func (v *Value) member(name string) *Value {
	for i := range v.members {
		if v.members[i].name == name {
			return &v.members[i].value
		}
	}
	return nil
}

// position is the line and the column, in characters, of an offset; from 1.
func position(in string, at int) (line, column int) {
	before := in[:min(at, len(in))]
	line = 1 + strings.Count(before, "\n")
	return line, 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// decimal is a number without what its writing adds: 1e1, 10 and 10.0 are the
// same, and 0 is that of every zero.
type decimal struct {
	negative bool
	digits   string // without zeros at either end; "" is 0
	exponent int    // of ten, by which the digits, as an integer, are multiplied
}

func decimalOf(s string) decimal {
	var d decimal
	s, d.negative = strings.CutPrefix(s, "-")
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		d.exponent, _ = strconv.Atoi(s[i+1:]) // bounded when it was read
		s = s[:i]
	}
	if whole, part, ok := strings.Cut(s, "."); ok {
		s = whole + part
		d.exponent -= len(part)
	}
	s = strings.TrimLeft(s, "0")
	d.digits = strings.TrimRight(s, "0")
	d.exponent += len(s) - len(d.digits)
	if d.digits == "" {
		return decimal{}
	}
	return d
}

func (d decimal) integer() bool { return d.exponent >= 0 }

func (d decimal) String() string {
	s := d.digits + "e" + strconv.Itoa(d.exponent)
	if d.negative {
		return "-" + s
	}
	return s
}

// compare is exact, whatever the numbers are.
func (d decimal) compare(e decimal) int {
	sign := func(d decimal) int {
		switch {
		case d.digits == "":
			return 0
		case d.negative:
			return -1
		}
		return 1
	}
	a, b := sign(d), sign(e)
	if a != b || a == 0 {
		return a - b
	}
	if x, y := len(d.digits)+d.exponent, len(e.digits)+e.exponent; x != y {
		if x < y {
			return -a
		}
		return a
	}
	return a * strings.Compare(d.digits, e.digits) // as after a decimal point
}

// canonical writes v so that two values are equal, by JSON Schema, if and only if
// the texts are: members in the order of their names, numbers as decimals.
func (v *Value) canonical(b *strings.Builder) {
	switch v.kind {
	case null:
		b.WriteByte('n')
	case boolean:
		b.WriteByte("ft"[btoi(v.truth)])
	case number:
		b.WriteString(decimalOf(v.text).String())
		b.WriteByte(';')
	case text:
		writeText(b, v.text)
	case array:
		b.WriteByte('[')
		for i := range v.items {
			v.items[i].canonical(b)
		}
		b.WriteByte(']')
	case object:
		b.WriteByte('{')
		sorted := make([]*member, len(v.members))
		for i := range v.members {
			sorted[i] = &v.members[i]
		}
		slices.SortFunc(sorted, func(a, b *member) int { return strings.Compare(a.name, b.name) })
		for _, m := range sorted {
			writeText(b, m.name)
			m.value.canonical(b)
		}
		b.WriteByte('}')
	}
}

func writeText(b *strings.Builder, s string) {
	b.WriteByte('"')
	b.WriteString(strconv.Itoa(len(s)))
	b.WriteByte(':')
	b.WriteString(s)
}

func (v *Value) canonicalText() string {
	var b strings.Builder
	v.canonical(&b)
	return b.String()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// quote shows a text of somebody else's in a message: short, and without what
// drives a terminal.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strconv.Quote(s)
}
