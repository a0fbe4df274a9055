package schema

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Pointer is a JSON Pointer (RFC 6901), to a field of a value; "" is the value.
type Pointer struct{ text string }

// ParsePointer reads a pointer.
func ParsePointer(s string) (Pointer, error) {
	switch {
	case len(s) > maxPointer:
		return Pointer{}, fmt.Errorf("a field's pointer has at most %d bytes", maxPointer)
	case s != "" && s[0] != '/':
		return Pointer{}, fmt.Errorf("%s is no field: it is a JSON Pointer, and begins with a slash%s", quote(s), meant(s, []string{"/" + s}))
	}
	for rest := s; ; {
		i := strings.IndexByte(rest, '~')
		if i < 0 {
			return Pointer{strings.Clone(s)}, nil
		}
		if rest = rest[i+1:]; !strings.HasPrefix(rest, "0") && !strings.HasPrefix(rest, "1") {
			return Pointer{}, fmt.Errorf("%s is no JSON Pointer: ~ is written ~0 there, and / in a name ~1", quote(s))
		}
	}
}

// String is the pointer as it is written.
func (p Pointer) String() string { return p.text }

var unescaped = strings.NewReplacer("~1", "/", "~0", "~")

// names are the names on the way.
func (p Pointer) names() []string {
	if p.text == "" {
		return nil
	}
	all := strings.Split(p.text[1:], "/")
	for i, name := range all {
		all[i] = unescaped.Replace(name)
	}
	return all
}

// In returns what p points to in v, nil if there is nothing.
func (p Pointer) In(v *Value) *Value {
	rest := p.text
	for rest != "" && v != nil {
		name := rest[1:]
		rest = ""
		if i := strings.IndexByte(name, '/'); i >= 0 {
			name, rest = name[:i], name[i:]
		}
		if strings.IndexByte(name, '~') >= 0 {
			name = unescaped.Replace(name)
		}
		v = v.child(name)
	}
	return v
}

// child is a member or an item, nil if there is none.
func (v *Value) child(name string) *Value {
	switch v.kind {
	case object:
		return v.member(name)
	case array:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(v.items) && strconv.Itoa(i) == name {
			return &v.items[i]
		}
	}
	return nil
}

// indexes reads "x-circles-index".
func (b *builder) indexes(v *Value, root *rule) ([]Index, error) {
	const at = "/x-circles-index"
	const form = `it is a list of indexes, each a list of fields: [["/starts"], ["/room", "/starts"]]`
	list := v.member("x-circles-index")
	if list == nil {
		return nil, nil
	}
	if list.kind != array || len(list.items) > maxIndexes {
		return nil, b.fail(list.at, at, fmt.Errorf("%s; at most %d", form, maxIndexes))
	}
	var all []Index
	for i := range list.items {
		fields := &list.items[i]
		pointer := join(at, strconv.Itoa(i))
		if fields.kind != array || len(fields.items) == 0 || len(fields.items) > MaxFields {
			return nil, b.fail(fields.at, pointer, fmt.Errorf("%s; at most %d fields", form, MaxFields))
		}
		var x Index
		for j := range fields.items {
			f := &fields.items[j]
			if f.kind != text {
				return nil, b.fail(f.at, pointer, errors.New(form))
			}
			p, err := ParsePointer(f.text)
			if err == nil && p.text == "" {
				err = errors.New("a whole value cannot be sorted by: name a field")
			}
			if err == nil {
				err = declared(root, p)
			}
			if err == nil && slices.Contains(x.Fields, p) {
				err = fmt.Errorf("%s is in it twice", p)
			}
			if err != nil {
				return nil, b.fail(f.at, pointer, err)
			}
			x.Fields = append(x.Fields, p)
		}
		if slices.ContainsFunc(all, func(y Index) bool { return slices.Equal(x.Fields, y.Fields) }) {
			return nil, b.fail(fields.at, pointer, errors.New("the same index is there twice"))
		}
		all = append(all, x)
	}
	return all, nil
}

// declared says whether a pointer goes where the schema has nothing, as far as
// that is plain to see.
func declared(r *rule, p Pointer) error {
	for _, name := range p.names() {
		for r != nil && r.ref != nil && r.properties == nil {
			r = r.ref
		}
		if r == nil || len(r.properties) == 0 || len(r.inPlace()) > 0 || r.patterns != nil || r.items != nil || r.prefix != nil {
			return nil
		}
		next := r.properties[name]
		if next == nil {
			return fmt.Errorf("the schema has no property %s%s", quote(name), meant(name, r.order))
		}
		r = next
	}
	return nil
}

// printable is for strings.Map: what drives a terminal becomes a box.
func printable(c rune) rune {
	if unicode.IsGraphic(c) {
		return c
	}
	return '�'
}
