package abi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Export adds functions to a host module that guests import as module, e.g.
// "circles:host/log@0.1.0"; the name is used in messages only. It panics on a
// declaration that cannot be lifted or lowered: that is a mistake in the host.
//
// The functions work in a context from Enter.
func Export(b wazero.HostModuleBuilder, module string, funcs ...Func) {
	for _, f := range funcs {
		p := &plan{Func: f, where: module + " " + f.Name, inMemory: f.spilled()}
		for _, t := range f.Params {
			if !t.liftable() {
				panic(fmt.Sprintf("abi: %s: parameters of type %s are not supported", p.where, t))
			}
			p.args = Record(append(recordFields(p.args), Field{Type: t})...)
		}
		p.indirect = f.Result != nil && len(f.Result.flat) > maxFlatResults
		params, results := f.Core()
		b.NewFunctionBuilder().
			WithGoModuleFunction(api.GoModuleFunc(p.call), params, results).
			WithName(f.Name).
			Export(f.Name)
	}
}

func (t *Type) liftable() bool {
	switch t.form {
	case formRecord:
		return false
	case formVariant:
		return len(t.flat) == 1 || t.text == optionBytes.text // an enum, or what OptionBytes lifts
	case formList:
		return t.elem.form == formU8
	}
	return true
}

var optionBytes = Option(Bytes)

func recordFields(t *Type) []Field {
	var out []Field
	if t != nil {
		for _, f := range t.fields {
			out = append(out, Field{f.name, f.typ})
		}
	}
	return out
}

// plan is a Func with all that is known of it before it is called.
type plan struct {
	Func
	where    string
	args     *Type // the parameters as a record; nil if there are none
	inMemory bool  // the parameters are passed as a pointer to args
	indirect bool  // the result is passed as a pointer, the last parameter
}

// call is the core function: stack holds the parameters and, on return, the
// result ("canon lower").
func (p *plan) call(ctx context.Context, mod api.Module, stack []uint64) {
	inst := instanceOf(ctx)
	if inst == nil {
		panic(fmt.Errorf("call %s: not within a run (abi.Enter): a module may call it from its entry, not while it starts up", p.where))
	}
	c := inst.hostCalls[inst.depth]
	if c == nil {
		c = new(Call)
		inst.hostCalls[inst.depth] = c
	}
	c.plan, c.stack, c.param, c.slot, c.lent, c.lowered = p, stack, 0, 0, c.lent[:0], false
	if err := c.init(ctx, inst, mod); err != nil {
		c.fail(err)
	}
	// i32 values may carry anything in their upper half: each is truncated
	// where it is read.
	if p.inMemory {
		c.base = uint32(stack[0])
		if err := c.check("parameters", c.base, p.args.size, p.args.align); err != nil {
			c.fail(err)
		}
	}
	if p.indirect {
		// The specification checks the result's place after the function has
		// run. Before is as good for the guest, and nothing has happened yet.
		c.out = uint32(stack[p.outSlot()])
		if err := c.check("return area", c.out, p.Result.size, p.Result.align); err != nil {
			c.fail(err)
		}
	}
	p.Do(c)
	if p.Result != nil && !c.lowered {
		panic(fmt.Errorf("call %s: the host function returned no result", p.where))
	}
	for _, i := range c.lent {
		inst.Handles.entries[i-1].lent--
	}
	// What is left would keep the run's context alive until the next call.
	c.guest, c.stack = guest{}, nil
}

// outSlot is the flat parameter that points to the return area.
func (p *plan) outSlot() int {
	switch {
	case p.inMemory:
		return 1
	case p.args == nil:
		return 0
	}
	return len(p.args.flat)
}

// Call is one call of a host function. Its lifting methods take the parameters
// in their declared order; a method of another type than the declared one is a
// mistake in the host, and panics. It is used by one goroutine, until Func.Do
// returns.
type Call struct {
	guest
	plan    *plan
	stack   []uint64
	param   int    // the next of plan.Params
	slot    int    // the next flat value in stack
	base    uint32 // of the parameters, if they are in memory
	out     uint32 // where the result goes, if indirect
	lent    []uint32
	lowered bool
}

// Context returns the run's context.
func (c *Call) Context() context.Context { return c.ctx }

// fail ends the guest.
func (c *Call) fail(err error) {
	var v *Violation
	if errors.As(err, &v) && v.Func == "" {
		v.Func = c.plan.where
	}
	panic(err)
}

// word lifts the next parameter, of form f, as its first and, for strings and
// lists, second core value.
func (c *Call) word(f form) (t *Type, first, second uint64) {
	if c.param == len(c.plan.Params) || c.plan.Params[c.param].form != f {
		panic(fmt.Sprintf("abi: %s: parameter %d is not lifted as declared", c.plan.where, c.param))
	}
	t = c.plan.Params[c.param]
	if c.plan.inMemory {
		at := c.base + c.plan.args.fields[c.param].offset
		switch t.size {
		case 1:
			b, _ := c.mem.ReadByte(at)
			first = uint64(b)
		case 2:
			n, _ := c.mem.ReadUint16Le(at)
			first = uint64(n)
		case 4:
			n, _ := c.mem.ReadUint32Le(at)
			first = uint64(n)
		default:
			first, _ = c.mem.ReadUint64Le(at)
			if len(t.flat) == 2 {
				first, second = first&0xffffffff, first>>32
			}
		}
	} else {
		first = c.stack[c.slot]
		if len(t.flat) == 2 {
			second = c.stack[c.slot+1]
		}
		c.slot += len(t.flat)
	}
	c.param++
	return t, first, second
}

// Bool lifts a bool: any bit of the 32 makes it true.
func (c *Call) Bool() bool { _, v, _ := c.word(formBool); return uint32(v) != 0 }

// U8 lifts a u8.
func (c *Call) U8() uint8 { _, v, _ := c.word(formU8); return uint8(v) }

// U16 lifts a u16.
func (c *Call) U16() uint16 { _, v, _ := c.word(formU16); return uint16(v) }

// U32 lifts a u32.
func (c *Call) U32() uint32 { _, v, _ := c.word(formU32); return uint32(v) }

// U64 lifts a u64.
func (c *Call) U64() uint64 { _, v, _ := c.word(formU64); return v }

// Enum lifts an enum as the index of its case.
func (c *Call) Enum() uint32 {
	t, v, _ := c.word(formVariant)
	if uint32(v) >= uint32(len(t.fields)) {
		c.fail(violation("parameter %d: %d is no case of %s", c.param-1, uint32(v), t))
	}
	return uint32(v)
}

// String lifts a string, or as many whole characters from its beginning as fit
// into limit bytes, and whether that is all of it. What is not taken is not
// checked either.
func (c *Call) String(limit int) (s string, whole bool) {
	_, ptr, n := c.word(formString)
	b, err := c.view("string", uint32(ptr), uint32(n))
	if err != nil {
		c.fail(err)
	}
	b, whole = prefix(b, limit)
	if !utf8.Valid(b) {
		c.fail(violation("parameter %d: string is not UTF-8", c.param-1))
	}
	return string(b), whole
}

// Bytes lifts a copy of a list<u8>. A list over limit bytes is not copied:
// ok is false.
func (c *Call) Bytes(limit int) (b []byte, ok bool) {
	_, ptr, n := c.word(formList)
	b, err := c.view("list", uint32(ptr), uint32(n))
	if err != nil {
		c.fail(err)
	}
	if len(b) > limit {
		return nil, false
	}
	return append(make([]byte, 0, len(b)), b...), true
}

// OptionBytes lifts a copy of an option<list<u8>>, which for none is nil; an empty
// list is not. A list over limit bytes is not copied: ok is false.
func (c *Call) OptionBytes(limit int) (b []byte, ok bool) {
	if c.param == len(c.plan.Params) || c.plan.Params[c.param].text != optionBytes.text {
		panic(fmt.Sprintf("abi: %s: parameter %d is not lifted as declared", c.plan.where, c.param))
	}
	var which uint32
	var ptr, n uint64
	if c.plan.inMemory {
		at := c.base + c.plan.args.fields[c.param].offset
		discriminant, _ := c.mem.ReadByte(at) // the region is checked
		list, _ := c.mem.ReadUint64Le(at + optionBytes.fields[1].offset)
		which, ptr, n = uint32(discriminant), list&0xffffffff, list>>32
	} else {
		which, ptr, n = uint32(c.stack[c.slot]), c.stack[c.slot+1], c.stack[c.slot+2]
		c.slot += len(optionBytes.flat)
	}
	c.param++
	switch which {
	case 0:
		return nil, true // whatever its pointer and length are
	case 1:
	default:
		c.fail(violation("parameter %d: %d is no case of %s", c.param-1, which, optionBytes))
	}
	list, err := c.view("list", uint32(ptr), uint32(n))
	if err != nil {
		c.fail(err)
	}
	if len(list) > limit {
		return nil, false
	}
	return append(make([]byte, 0, len(list)), list...), true
}

// Self lifts a borrowed handle as its value, which is a T. The handle cannot be
// dropped until the call is over.
func Self[T any](c *Call) T {
	t, v, _ := c.word(formBorrow)
	h, err := c.inst.Handles.get(uint32(v), t.kind)
	if err != nil {
		c.fail(err)
	}
	h.lent++
	c.lent = append(c.lent, uint32(v))
	return h.value.(T)
}

// Drop declares "[resource-drop]" of a resource.
func Drop(k *Kind) Func {
	return Func{
		Name:   "[resource-drop]" + k.name,
		Params: []*Type{Own(k)},
		Do: func(c *Call) {
			_, v, _ := c.word(formOwn)
			if err := c.inst.Handles.remove(uint32(v), k); err != nil {
				c.fail(err)
			}
		},
	}
}

// Result returns the place of the function's result, to be filled in once.
func (c *Call) Result() Slot {
	c.lowered = true
	return Slot{c: c, t: c.plan.Result, ptr: c.out, flat: !c.plan.indirect}
}

// Slot is a place for one value of a declared type: in the guest's memory,
// bounds checked, or the one flat result. A method of another type than the
// declared one is a mistake in the host, and panics.
type Slot struct {
	c    *Call
	t    *Type
	ptr  uint32
	flat bool
}

func (s Slot) want(f form) {
	if s.t == nil || s.t.form != f {
		panic(fmt.Sprintf("abi: %s: a value is not lowered as declared, as %v", s.c.plan.where, s.t))
	}
}

// put stores a value of size bytes. The region was checked when the slot came
// to be, and memory never shrinks.
func (s Slot) put(size uint32, v uint64) {
	if s.flat {
		s.c.stack[0] = v
		return
	}
	var ok bool
	switch size {
	case 1:
		ok = s.c.mem.WriteByte(s.ptr, byte(v))
	case 2:
		ok = s.c.mem.WriteUint16Le(s.ptr, uint16(v))
	case 4:
		ok = s.c.mem.WriteUint32Le(s.ptr, uint32(v))
	default:
		ok = s.c.mem.WriteUint64Le(s.ptr, v)
	}
	if !ok {
		panic(fmt.Sprintf("abi: %s: slot at %#x is outside of the memory", s.c.plan.where, s.ptr))
	}
}

// Bool lowers a bool.
func (s Slot) Bool(v bool) {
	s.want(formBool)
	if v {
		s.put(1, 1)
	} else {
		s.put(1, 0)
	}
}

// U8 lowers a u8.
func (s Slot) U8(v uint8) { s.want(formU8); s.put(1, uint64(v)) }

// U16 lowers a u16.
func (s Slot) U16(v uint16) { s.want(formU16); s.put(2, uint64(v)) }

// U32 lowers a u32.
func (s Slot) U32(v uint32) { s.want(formU32); s.put(4, uint64(v)) }

// U64 lowers a u64.
func (s Slot) U64(v uint64) { s.want(formU64); s.put(8, v) }

// String lowers a string, through the guest's cabi_realloc. What is not UTF-8
// in it, such as a file's name may hold, becomes U+FFFD: guests take a string's
// validity for granted.
func (s Slot) String(v string) {
	s.want(formString)
	v = strings.ToValidUTF8(v, "\ufffd")
	n, err := size32(len(v), 1)
	if err != nil {
		s.c.fail(err)
	}
	ptr := s.pair(1, n, n)
	s.c.mem.WriteString(ptr, v) // pair has checked the region
}

// Bytes lowers a list<u8>, through the guest's cabi_realloc.
func (s Slot) Bytes(v []byte) {
	s.want(formList)
	if s.t.elem.form != formU8 {
		panic(fmt.Sprintf("abi: %s: bytes lowered as %v", s.c.plan.where, s.t))
	}
	n, err := size32(len(v), 1)
	if err != nil {
		s.c.fail(err)
	}
	ptr := s.pair(1, n, n)
	s.c.mem.Write(ptr, v)
}

// pair allocates size bytes in the guest and stores pointer and length.
func (s Slot) pair(align, size, length uint32) uint32 {
	ptr, err := s.c.alloc(align, size)
	if err != nil {
		s.c.fail(err)
	}
	s.put(8, uint64(ptr)|uint64(length)<<32) // two little-endian words
	return ptr
}

// Elems is a list's elements.
type Elems struct {
	c    *Call
	elem *Type
	ptr  uint32
	n    int
}

// List lowers a list of n elements, each to be filled in once.
func (s Slot) List(n int) Elems {
	s.want(formList)
	size, err := size32(n, s.t.elem.size)
	if err != nil {
		s.c.fail(err)
	}
	ptr := s.pair(s.t.elem.align, size, uint32(n))
	return Elems{s.c, s.t.elem, ptr, n}
}

// At returns the place of element i.
func (e Elems) At(i int) Slot {
	if i < 0 || i >= e.n {
		panic(fmt.Sprintf("abi: %s: element %d of %d", e.c.plan.where, i, e.n))
	}
	return Slot{c: e.c, t: e.elem, ptr: e.ptr + uint32(i)*e.elem.size}
}

// Field returns the place of a record's field, by its number in declared order.
func (s Slot) Field(i int) Slot {
	s.want(formRecord)
	f := s.t.fields[i]
	return Slot{c: s.c, t: f.typ, ptr: s.ptr + f.offset, flat: s.flat}
}

// Case lowers the discriminant of a variant, enum, result (Ok, Err) or option,
// and returns the place of that case's payload, if it has one.
func (s Slot) Case(i uint32) Slot {
	s.want(formVariant)
	f := s.t.fields[i]
	s.put(s.t.discr, uint64(i))
	return Slot{c: s.c, t: f.typ, ptr: s.ptr + f.offset}
}

// Own lowers a new handle that owns value.
func (s Slot) Own(value any) {
	s.want(formOwn)
	i, err := s.c.inst.Handles.insert(s.t.kind, value)
	if err != nil {
		s.c.fail(err)
	}
	s.put(4, uint64(i))
}
