package circles

import (
	"encoding/json"
	"fmt"
	"iter"
)

// Query says which records of a collection to find, by their values, which are JSON,
// and in what order. The zero Query finds all of them.
//
//	soon := circles.Query{
//		Where: circles.And(circles.Field("/room").Equals("blue"), circles.Field("/starts").From("2026-11-01").Below("2026-12-01")),
//		Order: []circles.Order{{Field: "/starts"}},
//	}
//	for record, err := range circles.Target().Collection("bookings").Query(soon) { … }
type Query struct {
	Where Condition `json:"where,omitzero"`
	Order []Order   `json:"order,omitempty"` // without it, that of the keys
	Limit int       `json:"limit,omitempty"` // of records in all; 0 is none
}

// Order is by a field, a JSON Pointer into the values (RFC 6901).
type Order struct {
	Field      string `json:"field"`
	Descending bool   `json:"descending,omitempty"`
}

// Condition is what a Query asks of a value. The zero Condition asks nothing.
type Condition struct {
	op   string // "and" or "or", of list
	list []Condition

	members []member // of the condition of a field
}

type member struct {
	name  string
	value any
}

// And holds if all of them hold, Or if one of them does.
func And(all ...Condition) Condition { return Condition{op: "and", list: all} }

// Or holds if one of them holds.
func Or(some ...Condition) Condition { return Condition{op: "or", list: some} }

// Field begins the condition of a field, a JSON Pointer into the value (RFC 6901). What
// it is to be follows: one Equals or Prefix, or some of Above, From, Below and To.
func Field(pointer string) Condition { return Condition{members: []member{{"field", pointer}}} }

// Equals asks that the field be that JSON value.
func (c Condition) Equals(value any) Condition { return c.with("equals", value) }

// Prefix asks that the field be a text that begins so.
func (c Condition) Prefix(text string) Condition { return c.with("prefix", text) }

// Above asks that the field be more than value, of its type.
func (c Condition) Above(value any) Condition { return c.with("above", value) }

// From asks that the field be value or more.
func (c Condition) From(value any) Condition { return c.with("from", value) }

// Below asks that the field be less than value.
func (c Condition) Below(value any) Condition { return c.with("below", value) }

// To asks that the field be value or less.
func (c Condition) To(value any) Condition { return c.with("to", value) }

func (c Condition) with(name string, value any) Condition {
	c.members = append(c.members[:len(c.members):len(c.members)], member{name, value})
	return c
}

// IsZero reports whether it asks nothing.
func (c Condition) IsZero() bool { return c.op == "" && len(c.members) == 0 }

// MarshalJSON writes it as the host reads it.
func (c Condition) MarshalJSON() ([]byte, error) {
	if c.op != "" {
		return json.Marshal(map[string][]Condition{c.op: append([]Condition{}, c.list...)})
	}
	object := map[string]any{}
	for _, m := range c.members {
		object[m.name] = m.value
	}
	return json.Marshal(object)
}

// Query yields the records that q finds, a page at a time: what is put or deleted
// meanwhile may be among them, or not. It ends with an error, if there is one.
func (c Collection) Query(q Query) iter.Seq2[Record, error] {
	text, err := json.Marshal(q)
	if err != nil {
		return func(yield func(Record, error) bool) { yield(Record{}, fmt.Errorf("encode query: %w", err)) }
	}
	return pages(func(start string) ([]Record, string, error) { return c.QueryPage(string(text), start, 0) })
}

// QueryPage returns records that a query in JSON finds, as package circles:host
// describes it. start is "", or the next of the page before; there are at most limit of
// them, or, with 0, as many as the host gives at once. next is "" at the end.
func (c Collection) QueryPage(query, start string, limit uint32) (records []Record, next string, err error) {
	records, next, failure := hostQueryRecords(c.context.party, c.name, query, start, limit)
	return records, next, failed("query", c.name, failure)
}
