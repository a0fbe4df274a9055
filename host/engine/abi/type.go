package abi

import (
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/api"
)

// Type is a component-level value type with its layout. Types are made once,
// when a host module is declared, and never change.
type Type struct {
	form   form
	text   string // structural, as in WIT: "list<u8>", "enum{file, directory}"
	size   uint32 // bytes in memory ("Element Size")
	align  uint32 // "Alignment"
	flat   []api.ValueType
	fields []field // of a record, or a variant's cases
	discr  uint32  // variant: bytes of the discriminant
	elem   *Type   // list
	kind   *Kind   // own, borrow
}

type field struct {
	name   string
	typ    *Type  // nil for a case without payload
	offset uint32 // of the field, or of every case's payload
}

// form tells apart what is lifted and lowered differently.
type form uint8

const (
	formBool form = iota + 1
	formU8
	formU16
	formU32
	formU64
	formString
	formList
	formRecord
	formVariant
	formOwn
	formBorrow
)

// The primitive types that circles:host uses, and list<u8>, which is lifted and
// lowered as one block.
var (
	Bool   = scalar(formBool, "bool", 1)
	U8     = scalar(formU8, "u8", 1)
	U16    = scalar(formU16, "u16", 2)
	U32    = scalar(formU32, "u32", 4)
	U64    = scalar(formU64, "u64", 8)
	String = &Type{form: formString, text: "string", size: 8, align: 4, flat: []api.ValueType{i32, i32}}
	Bytes  = List(U8)
)

func scalar(f form, text string, size uint32) *Type {
	flat := i32
	if size == 8 {
		flat = api.ValueTypeI64
	}
	return &Type{form: f, text: text, size: size, align: size, flat: []api.ValueType{flat}}
}

// String returns the type as WIT would write it, with every named type written
// out.
func (t *Type) String() string { return t.text }

// List is list<elem>.
func List(elem *Type) *Type {
	return &Type{form: formList, text: "list<" + elem.text + ">", size: 8, align: 4, flat: []api.ValueType{i32, i32}, elem: elem}
}

// Own is an own handle, in a result.
func Own(k *Kind) *Type {
	return &Type{form: formOwn, text: "own<" + k.name + ">", size: 4, align: 4, flat: []api.ValueType{i32}, kind: k}
}

// Borrow is a borrowed handle, in a parameter: a method's self.
func Borrow(k *Kind) *Type {
	return &Type{form: formBorrow, text: "borrow<" + k.name + ">", size: 4, align: 4, flat: []api.ValueType{i32}, kind: k}
}

// A Field is a record's field or a variant's case.
type Field struct {
	Name string
	Type *Type // nil for a case without payload
}

// Record is record{…}.
func Record(fields ...Field) *Type {
	t := &Type{form: formRecord, align: 1}
	var b strings.Builder
	for i, f := range fields {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(f.Name + ": " + f.Type.text)
		t.size = alignTo(t.size, f.Type.align)
		t.fields = append(t.fields, field{f.Name, f.Type, t.size})
		t.size += f.Type.size
		t.align = max(t.align, f.Type.align)
		t.flat = append(t.flat, f.Type.flat...)
	}
	t.size = alignTo(t.size, t.align)
	t.text = "record{" + b.String() + "}"
	return t
}

// Variant is variant{…}.
func Variant(cases ...Field) *Type {
	t := variant(cases)
	var names []string
	for _, c := range cases {
		if c.Type != nil {
			c.Name += "(" + c.Type.text + ")"
		}
		names = append(names, c.Name)
	}
	t.text = "variant{" + strings.Join(names, ", ") + "}"
	return t
}

// Enum is enum{…}.
func Enum(names ...string) *Type {
	cases := make([]Field, len(names))
	for i, n := range names {
		cases[i].Name = n
	}
	t := variant(cases)
	t.text = "enum{" + strings.Join(names, ", ") + "}"
	return t
}

// Result is result<ok, err>; nil stands for "_".
func Result(ok, err *Type) *Type {
	t := variant([]Field{{"ok", ok}, {"err", err}})
	switch {
	case ok == nil && err == nil:
		t.text = "result"
	case err == nil:
		t.text = "result<" + ok.text + ">"
	case ok == nil:
		t.text = "result<_, " + err.text + ">"
	default:
		t.text = "result<" + ok.text + ", " + err.text + ">"
	}
	return t
}

// Option is option<some>: case 0 is none, case 1 is some.
func Option(some *Type) *Type {
	t := variant([]Field{{"none", nil}, {"some", some}})
	t.text = "option<" + some.text + ">"
	return t
}

// variant lays out what "Despecialization" makes of enums, results and options
// too.
func variant(cases []Field) *Type {
	t := &Type{form: formVariant, discr: 1}
	switch n := len(cases); {
	case n > 1<<16:
		t.discr = 4
	case n > 1<<8:
		t.discr = 2
	}
	payloadAlign, payload := uint32(1), uint32(0)
	var flat []api.ValueType
	for _, c := range cases {
		if c.Type == nil {
			continue
		}
		payloadAlign = max(payloadAlign, c.Type.align)
		payload = max(payload, c.Type.size)
		for i, v := range c.Type.flat {
			if i == len(flat) {
				flat = append(flat, v)
			} else if flat[i] != v {
				flat[i] = api.ValueTypeI64 // "join"; there are no floats here
			}
		}
	}
	t.align = max(t.discr, payloadAlign)
	at := alignTo(t.discr, payloadAlign)
	for _, c := range cases {
		t.fields = append(t.fields, field{c.Name, c.Type, at})
	}
	t.size = alignTo(at+payload, t.align)
	t.flat = append([]api.ValueType{i32}, flat...)
	return t
}

func alignTo(n, align uint32) uint32 { return (n + align - 1) &^ (align - 1) }

// More flat values than these are passed in memory ("Flattening").
const (
	maxFlatParams  = 16
	maxFlatResults = 1
)

// Func declares a host function by its WIT signature.
type Func struct {
	// Name is the core import name: a function's own, "[method]r.f",
	// "[static]r.f" or "[resource-drop]r".
	Name   string
	Params []*Type // self first, as a Borrow
	Result *Type   // nil for none

	// Do is the function. It lifts each of Params in order, does its work, and
	// lowers into c.Result(). It runs on the guest's goroutine. It may keep
	// neither the Call nor any Slot.
	Do func(c *Call)
}

// String returns the signature as in WIT, without parameter names.
func (f Func) String() string {
	var b strings.Builder
	b.WriteString("func(")
	for i, p := range f.Params {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.text)
	}
	b.WriteString(")")
	if f.Result != nil {
		b.WriteString(" -> " + f.Result.text)
	}
	return b.String()
}

// Core returns the core function type that a guest imports ("flatten_functype",
// for lower): more than 16 flat parameters become one pointer to a record of
// them, more than one flat result becomes a pointer to where it belongs, passed
// as the last parameter.
func (f Func) Core() (params, results []api.ValueType) {
	for _, p := range f.Params {
		params = append(params, p.flat...)
	}
	if len(params) > maxFlatParams {
		params = []api.ValueType{i32}
	}
	if f.Result != nil {
		if len(f.Result.flat) > maxFlatResults {
			params = append(params, i32)
		} else {
			results = slices.Clone(f.Result.flat)
		}
	}
	return params, results
}

// spilled reports whether the parameters are passed in memory.
func (f Func) spilled() bool {
	n := 0
	for _, p := range f.Params {
		n += len(p.flat)
	}
	return n > maxFlatParams
}
