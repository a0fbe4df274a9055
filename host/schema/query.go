package schema

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// What a query may be at most: each alternative is looked for by itself, and each
// condition is tried on each record that is looked at.
const (
	maxAlternatives = 16
	maxConditions   = 64
	maxConds        = 16 // how deep and and or are in each other
)

// Query asks for records by what is in their values. It does not change.
//
//	{"where": COND, "order": [{"field": "/starts", "descending": true}], "limit": 10}
//
//	COND = {"field": P, "equals": V}     null, true, false, a number or a string
//	     | {"field": P, "prefix": "text"}
//	     | {"field": P, "above": V, "to": V}    above, from, below, to: numbers or strings;
//	                                            one above or from with one below or to
//	     | {"and": [COND, …]} | {"or": [COND, …]}
//
// Everything may be left out. A field is a JSON Pointer. A condition holds of values
// of the same type only: nothing is above null, and what is missing equals nothing.
// Numbers are compared as float64 has them, strings by their bytes.
//
// Without an order, records come in that of their keys, as by the field "". In an order, missing fields
// come first, then null, false, true, numbers, strings, and lists and objects, which
// are not told apart; records that are equal come in the order of their keys, and
// backwards where the last field is descending.
type Query struct {
	Where *Cond // nil: all
	Order []Order
	Limit int // 0: none
	// Backwards is for an order by keys alone, of which Order has nothing.
	Backwards bool
}

// Order is a field that records are sorted by.
type Order struct {
	Field      Pointer
	Descending bool
}

// Cond is a condition on a value: And, Or, or what is demanded of one field.
type Cond struct {
	And, Or []*Cond

	Field                  Pointer
	Equals                 *Value
	Prefix                 *string
	Above, From, Below, To *Value
}

// Holds reports whether a value is as c has it. What is no JSON is nil.
func (c *Cond) Holds(v *Value) bool {
	switch {
	case c == nil:
		return true
	case c.And != nil:
		return !slices.ContainsFunc(c.And, func(c *Cond) bool { return !c.Holds(v) })
	case c.Or != nil:
		return slices.ContainsFunc(c.Or, func(c *Cond) bool { return c.Holds(v) })
	}
	is := c.Field.In(v)
	if is == nil {
		return false
	}
	if c.Prefix != nil && !(is.kind == text && strings.HasPrefix(is.text, *c.Prefix)) {
		return false
	}
	for _, b := range []struct {
		than *Value
		ok   func(int) bool
	}{
		{c.Equals, func(n int) bool { return n == 0 }},
		{c.Above, func(n int) bool { return n > 0 }}, {c.From, func(n int) bool { return n >= 0 }},
		{c.Below, func(n int) bool { return n < 0 }}, {c.To, func(n int) bool { return n <= 0 }},
	} {
		if b.than == nil {
			continue
		}
		if n, ok := is.compare(b.than); !ok || !b.ok(n) {
			return false
		}
	}
	return true
}

// compare compares two values of the same type.
func (v *Value) compare(than *Value) (n int, ok bool) {
	if v.kind != than.kind {
		return 0, false
	}
	switch v.kind {
	case text:
		return strings.Compare(v.text, than.text), true
	case number:
		a, b := v.float(), than.float()
		switch {
		case a < b:
			return -1, true
		case a > b:
			return 1, true
		}
		return 0, true
	case boolean:
		return btoi(v.truth) - btoi(than.truth), true
	case null:
		return 0, true
	}
	return 0, false
}

// Alternatives are lists of conditions on fields, so that a value is as c has it if
// it is as all of one list have it. There is none that holds of everything: for that
// there is one empty list.
func (c *Cond) Alternatives() [][]*Cond {
	switch {
	case c == nil:
		return [][]*Cond{nil}
	case c.Or != nil:
		var all [][]*Cond
		for _, of := range c.Or {
			all = append(all, of.Alternatives()...)
		}
		return all
	case c.And != nil:
		all := [][]*Cond{nil}
		for _, of := range c.And {
			var next [][]*Cond
			for _, before := range all {
				for _, more := range of.Alternatives() {
					next = append(next, slices.Concat(before, more))
				}
			}
			all = next
		}
		return all
	}
	return [][]*Cond{{c}}
}

// alternatives is how many Alternatives there would be, or a number above the most.
func (c *Cond) alternatives() int {
	n := 1
	switch {
	case c.Or != nil:
		n = 0
		for _, of := range c.Or {
			n = min(n+of.alternatives(), maxAlternatives+1)
		}
	case c.And != nil:
		for _, of := range c.And {
			n = min(n*of.alternatives(), maxAlternatives+1)
		}
	}
	return n
}

// Fields are the fields that a query looks at, each once, in its order.
func (q *Query) Fields() (where, order []Pointer) {
	var of func(c *Cond)
	of = func(c *Cond) {
		if c == nil {
			return
		}
		for _, c := range slices.Concat(c.And, c.Or) {
			of(c)
		}
		if c.And == nil && c.Or == nil && !slices.Contains(where, c.Field) {
			where = append(where, c.Field)
		}
	}
	of(q.Where)
	for _, o := range q.Order {
		order = append(order, o.Field)
	}
	return where, order
}

// What Fields tells of a value at most.
const (
	maxTold      = 256
	maxToldDepth = 8
)

// Fields calls f with the strings, booleans and whole numbers (int64, up to 2^53-1) that
// are in a value, outside of lists, each with its JSON Pointer. An error says that there
// are too many of them, or too deep, to be told all.
func (v *Value) Fields(f func(pointer string, is any)) error {
	told := 0
	var tell func(v *Value, pointer string, depth int) error
	tell = func(v *Value, pointer string, depth int) error {
		if told++; told > maxTold || depth > maxToldDepth {
			return fmt.Errorf("it has more than %d fields, or is nested deeper than %d", maxTold, maxToldDepth)
		}
		switch v.kind {
		case text:
			f(pointer, v.text)
		case boolean:
			f(pointer, v.truth)
		case number:
			if d := decimalOf(v.text); d.integer() && len(d.digits)+d.exponent <= 16 {
				if n, err := strconv.ParseInt(d.plain(), 10, 64); err == nil && n < 1<<53 && n > -1<<53 {
					f(pointer, n)
				}
			}
		case object:
			for i := range v.members {
				if err := tell(&v.members[i].value, join(pointer, v.members[i].name), depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return tell(v, "", 0)
}

// ParseQuery reads a query. Errors have the line and the column.
func ParseQuery(in string) (*Query, error) {
	v, err := readJSON(in)
	p := &queryReader{in: in}
	var wrong *syntaxError
	if errors.As(err, &wrong) {
		return nil, p.fail(wrong.at, "%w", wrong.err)
	}
	q := &Query{}
	if v.kind != object {
		return nil, p.fail(v.at, `a query is an object: {"where": …, "order": […], "limit": N}`)
	}
	for i := range v.members {
		m := &v.members[i]
		switch m.name {
		case "where":
			if q.Where, err = p.cond(&m.value, 0); err != nil {
				return nil, err
			}
			if q.Where.alternatives() > maxAlternatives {
				return nil, p.fail(m.at, "there are more than %d alternatives in it, once every or is multiplied out: ask in several queries", maxAlternatives)
			}
		case "order":
			if q.Order, err = p.order(&m.value); err != nil {
				return nil, err
			}
			q.Backwards = p.backwards
		case "limit":
			n, err := strconv.Atoi(m.value.text)
			if m.value.kind != number || err != nil || n < 0 {
				return nil, p.fail(m.value.at, "limit is a whole number, from 0")
			}
			q.Limit = n
		default:
			return nil, p.unknown(m, "where", "order", "limit")
		}
	}
	return q, nil
}

type queryReader struct {
	in        string
	conds     int
	backwards bool
}

func (p *queryReader) fail(at int, format string, args ...any) error {
	line, column := position(p.in, at)
	return fmt.Errorf("line %d, column %d: %w", line, column, fmt.Errorf(format, args...))
}

func (p *queryReader) unknown(m *member, names ...string) error {
	hint := meant(m.name, names)
	if hint == "" {
		hint = "; there are " + strings.Join(names, ", ")
	}
	return p.fail(m.at, "there is no %s in a query here%s", quote(m.name), hint)
}

func (p *queryReader) pointer(v *Value) (Pointer, error) {
	if v.kind != text {
		return Pointer{}, p.fail(v.at, `a field is a JSON Pointer, as "/starts"`)
	}
	f, err := ParsePointer(v.text)
	if err != nil {
		return f, p.fail(v.at, "%w", err)
	}
	return f, nil
}

func (p *queryReader) order(v *Value) ([]Order, error) {
	if v.kind != array || len(v.items) > MaxFields {
		return nil, p.fail(v.at, `order is a list of at most %d: [{"field": "/starts", "descending": true}]`, MaxFields)
	}
	var all []Order
	for i := range v.items {
		of := &v.items[i]
		if of.kind != object {
			return nil, p.fail(of.at, `order is a list of objects: [{"field": "/starts"}]`)
		}
		var o Order
		named := false
		for j := range of.members {
			m := &of.members[j]
			var err error
			switch m.name {
			case "field":
				named = true
				o.Field, err = p.pointer(&m.value)
			case "descending":
				if o.Descending = m.value.truth; m.value.kind != boolean {
					err = p.fail(m.value.at, "descending is true or false")
				}
			default:
				err = p.unknown(m, "field", "descending")
			}
			if err != nil {
				return nil, err
			}
		}
		switch {
		case !named:
			return nil, p.fail(of.at, `it has no "field"`)
		case o.Field.text == "" && len(v.items) > 1:
			return nil, p.fail(of.at, "a whole value cannot be sorted by: name a field")
		case slices.ContainsFunc(all, func(b Order) bool { return b.Field == o.Field }):
			return nil, p.fail(of.at, "%s is in the order twice", quote(o.Field.text))
		}
		all = append(all, o)
	}
	if len(all) == 1 && all[0].Field.text == "" {
		p.backwards = all[0].Descending
		return nil, nil
	}
	return all, nil
}

func (p *queryReader) cond(v *Value, depth int) (*Cond, error) {
	if p.conds++; p.conds > maxConditions {
		return nil, p.fail(v.at, "there are more than %d conditions in it", maxConditions)
	}
	const form = `a condition is {"field": "/starts", "equals": …}, or has prefix, above, from, below or to, or it is {"and": […]} or {"or": […]}`
	if v.kind != object || depth > maxConds {
		return nil, p.fail(v.at, form)
	}
	c := &Cond{}
	named := false
	for i := range v.members {
		m := &v.members[i]
		var err error
		switch m.name {
		case "and", "or":
			if len(v.members) > 1 {
				return nil, p.fail(m.at, "%s stands alone: put what is beside it into it", m.name)
			}
			if m.value.kind != array || len(m.value.items) == 0 {
				return nil, p.fail(m.value.at, "%s is a list of at least one condition", m.name)
			}
			var all []*Cond
			for j := range m.value.items {
				sub, err := p.cond(&m.value.items[j], depth+1)
				if err != nil {
					return nil, err
				}
				all = append(all, sub)
			}
			if m.name == "and" {
				return &Cond{And: all}, nil
			}
			return &Cond{Or: all}, nil
		case "field":
			named = true
			c.Field, err = p.pointer(&m.value)
		case "prefix":
			if c.Prefix = &m.value.text; m.value.kind != text {
				err = p.fail(m.value.at, "prefix is a string")
			}
		case "equals":
			if c.Equals = &m.value; m.value.kind&(array|object) != 0 {
				err = p.fail(m.value.at, "lists and objects are not compared: name a field in it")
			}
		case "above", "from", "below", "to":
			if m.value.kind&(number|text) == 0 {
				err = p.fail(m.value.at, "%s is a number or a string", m.name)
			}
			*map[string]**Value{"above": &c.Above, "from": &c.From, "below": &c.Below, "to": &c.To}[m.name] = &m.value
		default:
			err = p.unknown(m, "field", "equals", "prefix", "above", "from", "below", "to", "and", "or")
		}
		if err != nil {
			return nil, err
		}
	}
	bounds := c.Above != nil || c.From != nil || c.Below != nil || c.To != nil
	switch {
	case !named || c.Equals == nil && c.Prefix == nil && !bounds:
		return nil, p.fail(v.at, form)
	case c.Equals != nil && (c.Prefix != nil || bounds), c.Above != nil && c.From != nil, c.Below != nil && c.To != nil:
		return nil, p.fail(v.at, "two of its demands say the same: leave one out, or put them into {\"and\": […]}")
	}
	return c, nil
}
