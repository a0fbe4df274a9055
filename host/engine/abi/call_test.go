package abi_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/host/engine/abi"
	. "github.com/circles-host/circles/host/engine/abi/abitest"
)

// caller calls host functions as core code would, but with any stack it likes:
// core code cannot put garbage above an i32, JIT-compiled code can.
type caller struct {
	t     testing.TB
	ctx   context.Context
	inst  *abi.Instance
	guest api.Module
	funcs map[string]abi.Func
	core  map[string]api.GoModuleFunction
}

func newCaller(t testing.TB, guest api.Module, funcs ...abi.Func) *caller {
	t.Helper()
	rt := wazero.NewRuntime(t.Context())
	t.Cleanup(func() { rt.Close(context.Background()) })
	b := rt.NewHostModuleBuilder("h")
	abi.Export(b, "h", funcs...)
	compiled, err := b.Compile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{t: t, guest: guest, funcs: map[string]abi.Func{}, core: map[string]api.GoModuleFunction{}}
	for _, f := range funcs {
		c.funcs[f.Name] = f
		c.core[f.Name] = compiled.ExportedFunctions()[f.Name].GoFunction().(api.GoModuleFunction)
	}
	c.enter()
	return c
}

func (c *caller) enter() {
	c.ctx, c.inst = abi.Enter(context.Background())
	c.t.Cleanup(c.inst.Close)
}

// call returns the flat result, and what the function panicked with.
func (c *caller) call(name string, stack ...uint64) (result uint64, err error) {
	params, results := c.funcs[name].Core()
	if len(stack) != len(params) {
		c.t.Fatalf("%s takes %d core parameters", name, len(params))
	}
	stack = append(stack, make([]uint64, max(0, len(results)-len(params)))...)
	defer func() {
		switch v := recover().(type) {
		case nil:
		case runtime.Error:
			panic(v) // never acceptable
		case error:
			err = v
		default:
			panic(v)
		}
	}()
	c.core[name].Call(c.ctx, c.guest, stack)
	if len(results) == 1 {
		result = stack[0]
	}
	return result, nil
}

// must fails the test unless the call goes well.
func (c *caller) must(name string, stack ...uint64) uint64 {
	c.t.Helper()
	r, err := c.call(name, stack...)
	if err != nil {
		c.t.Fatalf("%s%v: %v", name, stack, err)
	}
	return r
}

// violates fails the test unless the call is a violation that says so.
func (c *caller) violates(want, name string, stack ...uint64) {
	c.t.Helper()
	_, err := c.call(name, stack...)
	var v *abi.Violation
	if !errors.As(err, &v) || !strings.Contains(err.Error(), want) {
		c.t.Errorf("%s%v: %v; want a violation: %q", name, stack, err, want)
	} else if v.Func != "h "+name {
		c.t.Errorf("%s%v: violation names %q", name, stack, v.Func)
	}
}

// poke writes little-endian u32s into the guest's memory.
func (c *caller) poke(at uint32, words ...uint32) {
	for i, w := range words {
		if !c.guest.Memory().WriteUint32Le(at+4*uint32(i), w) {
			c.t.Fatalf("poke at %#x", at)
		}
	}
}

func (c *caller) peek(at, n uint32) []byte {
	b, ok := c.guest.Memory().Read(at, n)
	if !ok {
		c.t.Fatalf("peek at %#x", at)
	}
	return slices.Clone(b)
}

func (c *caller) peek32(at uint32) uint32 { return binary.LittleEndian.Uint32(c.peek(at, 4)) }

// bump is a guest with one page and an honest allocator from 32 KiB up.
func bump(t testing.TB) api.Module {
	var m Module
	m.Memory(1)
	m.Bump(32 << 10)
	return instantiate(t, m.Bytes())
}

const page = 65536

// garbage sets the upper half of an i32 slot.
const garbage = 0xdeadbeef_00000000

// Sizes, alignments and core types from the specification's own rules, worked
// out by hand.
func TestLayout(t *testing.T) {
	errs := abi.Record(abi.Field{Name: "code", Type: abi.Enum("a", "b")}, abi.Field{Name: "message", Type: abi.String})
	many := make([]string, 300)
	for i := range many {
		many[i] = fmt.Sprint("c", i)
	}
	const i, I = api.ValueTypeI32, api.ValueTypeI64
	for _, tc := range []struct {
		typ         *abi.Type
		text        string
		size, align uint32
		flat        []api.ValueType
	}{
		{abi.Bool, "bool", 1, 1, []api.ValueType{i}},
		{abi.U16, "u16", 2, 2, []api.ValueType{i}},
		{abi.U64, "u64", 8, 8, []api.ValueType{I}},
		{abi.String, "string", 8, 4, []api.ValueType{i, i}},
		{abi.Bytes, "list<u8>", 8, 4, []api.ValueType{i, i}},
		{abi.Enum("a"), "enum{a}", 1, 1, []api.ValueType{i}},
		{abi.Enum(many[:256]...), "", 1, 1, []api.ValueType{i}},
		{abi.Enum(many[:257]...), "", 2, 2, []api.ValueType{i}},
		{errs, "record{code: enum{a, b}, message: string}", 12, 4, []api.ValueType{i, i, i}},
		{abi.Record(abi.Field{Name: "a", Type: abi.U8}, abi.Field{Name: "b", Type: abi.U64}, abi.Field{Name: "c", Type: abi.U8}), "", 24, 8, []api.ValueType{i, I, i}},
		{abi.Result(nil, nil), "result", 1, 1, []api.ValueType{i}},
		{abi.Result(abi.U8, nil), "result<u8>", 2, 1, []api.ValueType{i, i}},
		{abi.Result(nil, errs), "result<_, record{code: enum{a, b}, message: string}>", 16, 4, []api.ValueType{i, i, i, i}},
		{abi.Result(abi.U64, abi.String), "result<u64, string>", 16, 8, []api.ValueType{i, I, i}},
		{abi.Result(abi.Bytes, abi.String), "result<list<u8>, string>", 12, 4, []api.ValueType{i, i, i}},
		{abi.Variant(abi.Field{Name: "a", Type: abi.U32}, abi.Field{Name: "b", Type: abi.U64}), "variant{a(u32), b(u64)}", 16, 8, []api.ValueType{i, I}},
		{abi.Option(abi.U16), "option<u16>", 4, 2, []api.ValueType{i, i}},
		{abi.Variant(abi.Field{Name: "a", Type: abi.U32}, abi.Field{Name: "b"}, abi.Field{Name: "c", Type: abi.String}), "variant{a(u32), b, c(string)}", 12, 4, []api.ValueType{i, i, i}},
	} {
		size, align, flat := abi.Layout(tc.typ)
		if size != tc.size || align != tc.align || !slices.Equal(flat, tc.flat) {
			t.Errorf("%s has size %d, alignment %d, flat %v; want %d, %d, %v", tc.typ, size, align, flat, tc.size, tc.align, tc.flat)
		}
		if tc.text != "" && tc.typ.String() != tc.text {
			t.Errorf("type is written %s, want %s", tc.typ, tc.text)
		}
	}
}

func TestCoreSignature(t *testing.T) {
	u32s := func(n int) []*abi.Type { return slices.Repeat([]*abi.Type{abi.U32}, n) }
	for _, tc := range []struct {
		f               abi.Func
		params, results int
	}{
		{abi.Func{}, 0, 0},
		{abi.Func{Result: abi.U64}, 0, 1},
		{abi.Func{Result: abi.Enum("a", "b")}, 0, 1},
		{abi.Func{Result: abi.Result(nil, nil)}, 0, 1},
		{abi.Func{Result: abi.String}, 1, 0},
		{abi.Func{Result: abi.Option(abi.Bool)}, 1, 0},
		{abi.Func{Params: u32s(16), Result: abi.U8}, 16, 1},
		{abi.Func{Params: u32s(17), Result: abi.U8}, 1, 1},
		{abi.Func{Params: u32s(17), Result: abi.String}, 2, 0},
		{abi.Func{Params: []*abi.Type{abi.String, abi.Bytes, abi.U64}, Result: abi.String}, 6, 0},
	} {
		params, results := tc.f.Core()
		if len(params) != tc.params || len(results) != tc.results {
			t.Errorf("%v is %d core parameters and %d results, want %d and %d", tc.f, len(params), len(results), tc.params, tc.results)
		}
	}
}

// scalars lifts one of each and lowers what it saw.
var scalars = abi.Func{
	Name:   "scalars",
	Params: []*abi.Type{abi.Bool, abi.U8, abi.U16, abi.U32, abi.U64, abi.Enum("a", "b", "c"), abi.String, abi.Bytes},
	Result: abi.String,
	Do:     func(c *abi.Call) { describe(c) },
}

func describe(c *abi.Call) {
	b, u8, u16, u32, u64, e := c.Bool(), c.U8(), c.U16(), c.U32(), c.U64(), c.Enum()
	s, whole := c.String(8)
	l, ok := c.Bytes(8)
	c.Result().String(fmt.Sprintf("%v %v %v %v %v %v %v %v %v %v", b, u8, u16, u32, u64, e, s, whole, l, ok))
}

// spilled is scalars with so many parameters that they go through memory.
var spilled = abi.Func{
	Name:   "spilled",
	Params: slices.Concat(scalars.Params, slices.Repeat([]*abi.Type{abi.U8}, 7)),
	Result: abi.String,
	Do:     scalars.Do,
}

func TestLiftTruncates(t *testing.T) {
	c := newCaller(t, bump(t), scalars)
	c.guest.Memory().Write(100, []byte("grüße!"))
	const ret = 200
	c.must("scalars", garbage|0, garbage|0xabc01, garbage|0xabc0002, garbage|3, 1<<63|4, garbage|2,
		garbage|100, garbage|8, garbage|100, garbage|3, garbage|ret)
	got := string(c.peek(c.peek32(ret), c.peek32(ret+4)))
	if want := "false 1 2 3 9223372036854775812 2 grüße! true [103 114 195] true"; got != want {
		t.Errorf("lifted %s\n  want %s", got, want)
	}
}

func TestLiftSpilledParameters(t *testing.T) {
	c := newCaller(t, bump(t), spilled)
	c.guest.Memory().Write(100, []byte("grüße!"))
	const args, ret = 1024, 200
	c.guest.Memory().Write(args, []byte{1, 7, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0x80, 1})
	c.poke(args+20, 100, 4, 100, 9)
	c.must("spilled", garbage|args, garbage|ret)
	got := string(c.peek(c.peek32(ret), c.peek32(ret+4)))
	if want := "true 7 2 3 9223372036854775812 1 grü true [] false"; got != want {
		t.Errorf("lifted %s\n  want %s", got, want)
	}
	c.violates("not aligned to 8", "spilled", args+4, ret)
	c.violates("leaves the memory", "spilled", page-8, ret)
	c.violates("leaves the memory", "spilled", 0xfffffff8, ret)
	c.poke(args+16, 3)
	c.violates("no case of enum", "spilled", args, ret)
}

// A string over the limit is cut between characters, and what is cut off is not
// even looked at.
func TestStringIsBounded(t *testing.T) {
	c := newCaller(t, bump(t), scalars)
	c.guest.Memory().Write(100, []byte("1234567ü\xff\xff"))
	c.must("scalars", 1, 0, 0, 0, 0, 0, 100, 11, 100, 0, 200)
	got := string(c.peek(c.peek32(200), c.peek32(204)))
	if want := "true 0 0 0 0 0 1234567 false [] true"; got != want {
		t.Errorf("lifted %s\n  want %s", got, want)
	}
}

// An option's list is copied if there is one: none is nil, whatever lies where its
// list would be, and an empty list is not.
func TestLiftOption(t *testing.T) {
	var got []byte
	var ok bool
	lift := func(c *abi.Call) { got, ok = c.OptionBytes(5) }
	flat := abi.Func{Name: "flat", Params: []*abi.Type{abi.Option(abi.Bytes)}, Do: lift}
	many := []*abi.Type{abi.Option(abi.Bytes)}
	for range 14 {
		many = append(many, abi.U8)
	}
	memory := abi.Func{Name: "memory", Params: many, Do: lift}
	c := newCaller(t, bump(t), flat, memory)
	c.guest.Memory().Write(100, []byte("sixsix"))
	const args = 1024
	for _, tc := range []struct {
		some, at, n uint32
		want        string
	}{
		{0, 0xffffffff, 0xffffffff, "[] true true"},
		{1, 100, 0, "[] false true"},
		{1, 100, 3, "[115 105 120] false true"},
		{1, 100, 6, "[] true false"},
	} {
		c.must("flat", garbage|uint64(tc.some), garbage|uint64(tc.at), garbage|uint64(tc.n))
		if s := fmt.Sprint(got, got == nil, ok); s != tc.want {
			t.Errorf("%v: lifted %s", tc, s)
		}
		c.poke(args, tc.some, tc.at, tc.n)
		c.must("memory", garbage|args)
		if s := fmt.Sprint(got, got == nil, ok); s != tc.want {
			t.Errorf("%v in memory: lifted %s", tc, s)
		}
	}
	c.violates("2 is no case of option<list<u8>>", "flat", 2, 100, 3)
	c.violates("leaves the memory", "flat", 1, page-2, 3)
	c.poke(args, 2)
	c.violates("2 is no case of option<list<u8>>", "memory", args)
	c.violates("leaves the memory", "memory", page-8)
}

// What is lifted is the host's own: the guest may change its memory, and the
// engine unmap it, while the host still works with an argument.
func TestLiftedIsACopy(t *testing.T) {
	var s string
	var b []byte
	keep := abi.Func{Name: "keep", Params: []*abi.Type{abi.String, abi.Bytes}, Do: func(c *abi.Call) {
		s, _ = c.String(10)
		b, _ = c.Bytes(10)
	}}
	c := newCaller(t, bump(t), keep)
	c.guest.Memory().Write(100, []byte("before"))
	c.must("keep", 100, 6, 100, 6)
	c.guest.Memory().Write(100, []byte("after!"))
	if s != "before" || string(b) != "before" {
		t.Errorf("arguments became %q and %q", s, b)
	}
}

func TestLiftHostile(t *testing.T) {
	c := newCaller(t, bump(t), scalars)
	c.guest.Memory().Write(page-2, []byte("\xc3\x28"))
	call := func(want string, enum, sp, sn, lp, ln, ret uint64) {
		t.Helper()
		c.violates(want, "scalars", 0, 0, 0, 0, 0, enum, sp, sn, lp, ln, ret)
	}
	call("no case of enum", 3, 0, 0, 0, 0, 0)
	call("no case of enum", 256, 0, 0, 0, 0, 0) // one byte in memory, but 32 bits here
	call("no case of enum", 0xffffffff, 0, 0, 0, 0, 0)
	call("string of 2 bytes at 0xffff leaves", 0, page-1, 2, 0, 0, 0)
	call("leaves the memory", 0, 0xffffffff, 1, 0, 0, 0)
	call("leaves the memory", 0, 0xffffffff, 0xffffffff, 0, 0, 0)
	call("leaves the memory", 0, page+1, 0, 0, 0, 0)
	call("is not UTF-8", 0, page-2, 2, 0, 0, 0)
	call("list of 4294967295 bytes", 0, 0, 0, 0, 0xffffffff, 0)
	call("list of 1 bytes at 0x10000 leaves", 0, 0, 0, page, 1, 0)
	call("return area at 0x2 is not aligned", 0, 0, 0, 0, 0, 2)
	call("return area of 8 bytes at 0xfffc leaves", 0, 0, 0, 0, 0, page-4)
	call("return area of 8 bytes at 0xfffffffc leaves", 0, 0, 0, 0, 0, 0xfffffffc)
	// The end of the memory is a place for nothing at all.
	c.must("scalars", 0, 0, 0, 0, 0, 0, page, 0, page, 0, page-8)
}

// rich returns every form that is lowered, in one value.
var rich = abi.Func{
	Name:   "rich",
	Params: []*abi.Type{abi.U32},
	Result: abi.Result(abi.List(abi.Record(
		abi.Field{Name: "name", Type: abi.String},
		abi.Field{Name: "flag", Type: abi.Bool},
		abi.Field{Name: "size", Type: abi.U64},
		abi.Field{Name: "kind", Type: abi.Enum("a", "b")},
		abi.Field{Name: "port", Type: abi.Option(abi.U16)},
		abi.Field{Name: "blob", Type: abi.Bytes},
	)), abi.U8),
	Do: func(c *abi.Call) {
		n := c.U32()
		out := c.Result().Case(abi.Ok).List(int(n))
		for i := range int(n) {
			r := out.At(i)
			r.Field(0).String(fmt.Sprint("name", i))
			r.Field(1).Bool(true)
			r.Field(2).U64(uint64(i) << 32)
			r.Field(3).Case(1)
			r.Field(4).Case(1).U16(uint16(i))
			r.Field(5).Bytes([]byte{byte(i)})
		}
	},
}

// Lowering grows the guest's memory, which moves it, many times over.
func TestLowerWhileMemoryMoves(t *testing.T) {
	c := newCaller(t, bump(t), rich)
	const ret, n = 256, 5000
	c.poke(ret, 0xffffffff)
	c.must("rich", n, ret)
	if c.guest.Memory().Size() < 4*page {
		t.Fatal("the memory did not grow")
	}
	if c.peek(ret, 1)[0] != 0 {
		t.Fatal("result is not ok")
	}
	list := c.peek32(ret + 4)
	if c.peek32(ret+8) != n || list%8 != 0 {
		t.Fatalf("list of %d at %#x", c.peek32(ret+8), list)
	}
	for i := range uint32(n) {
		at := list + 40*i
		rec := c.peek(at, 40)
		name := string(c.peek(c.peek32(at), c.peek32(at+4)))
		size := binary.LittleEndian.Uint64(rec[16:])
		blob := c.peek(c.peek32(at+32), c.peek32(at+36))
		if name != fmt.Sprint("name", i) || rec[8] != 1 || size != uint64(i)<<32 || rec[24] != 1 ||
			rec[26] != 1 || binary.LittleEndian.Uint16(rec[28:]) != uint16(i) || string(blob) != string([]byte{byte(i)}) {
			t.Fatalf("record %d is %x, name %q, blob %x", i, rec, name, blob)
		}
	}
	// Nothing at all needs no memory: a dangling, aligned pointer.
	c.must("rich", 0, ret)
	if p, n := c.peek32(ret+4), c.peek32(ret+8); p != 8 || n != 0 {
		t.Errorf("empty list is %d elements at %#x", n, p)
	}
}

// The guest's memory is at its limit: cabi_realloc traps, and that is what the
// run ends with.
func TestLowerMoreThanGuestHolds(t *testing.T) {
	c := newCaller(t, bump(t), rich)
	_, err := c.call("rich", 1<<20, 256)
	var v *abi.Violation
	if err == nil || errors.As(err, &v) || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("lowering 40 MiB into 4 MiB: %v, want the guest's trap", err)
	}
	// And a length that no memory could hold is refused before it is asked for.
	c.violates("more than any list", "rich", 1<<31-1, 256)
}

func TestLowerHostileRealloc(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		realloc    []Code
	}{
		{"zero", "returned 0", []Code{I32(0)}},
		{"unaligned", "result at 0x804 is not aligned to 8", []Code{I32(0x804)}},
		{"past the end", "leaves the memory", []Code{I32(page)}},
		{"across the end", "leaves the memory", []Code{I32(page - 8)}},
		{"wraps around", "leaves the memory", []Code{I32(-8)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var m Module
			m.Memory(1)
			m.Func("cabi_realloc", "iiii", "i", tc.realloc...)
			c := newCaller(t, instantiate(t, m.Bytes()), rich)
			c.violates(tc.want, "rich", 4, 256)
		})
	}
	t.Run("missing", func(t *testing.T) {
		var m Module
		m.Memory(1)
		c := newCaller(t, instantiate(t, m.Bytes()), rich)
		c.violates("does not export cabi_realloc", "rich", 1, 256)
	})
	t.Run("no memory", func(t *testing.T) {
		var m Module
		m.Bump(0)
		for _, f := range []abi.Func{rich, abi.Drop(abi.NewKind("x", nil))} {
			params, _ := f.Core()
			newCaller(t, instantiate(t, (&Module{}).Bytes()), f).violates("does not export its memory", f.Name, make([]uint64, len(params))...)
		}
	})
	// Overlapping the arguments, the return area and itself is the guest's own
	// affair: arguments were copied, and no region is more the host's than any.
	t.Run("overlaps everything", func(t *testing.T) {
		var m Module
		m.Memory(1)
		m.Func("cabi_realloc", "iiii", "i", I32(256))
		c := newCaller(t, instantiate(t, m.Bytes()), rich, scalars)
		c.must("rich", 100, 256)
		c.guest.Memory().Write(256, []byte("argument"))
		c.must("scalars", 0, 0, 0, 0, 0, 0, 256, 8, 256, 8, 256)
	})
}

type thing struct{ name string }

var (
	thingKind = abi.NewKind("thing", func(v any) { v.(*thing).name += " dropped" })
	otherKind = abi.NewKind("thing", nil) // same name, another type
)

var things = []abi.Func{
	{Name: "make", Params: []*abi.Type{abi.String}, Result: abi.Own(thingKind), Do: func(c *abi.Call) {
		s, _ := c.String(100)
		c.Result().Own(&thing{s})
	}},
	{Name: "make-other", Result: abi.Own(otherKind), Do: func(c *abi.Call) { c.Result().Own(1) }},
	{Name: "[method]thing.name", Params: []*abi.Type{abi.Borrow(thingKind)}, Result: abi.String, Do: func(c *abi.Call) {
		c.Result().String(abi.Self[*thing](c).name)
	}},
	{Name: "same", Params: []*abi.Type{abi.Borrow(thingKind), abi.Borrow(thingKind)}, Result: abi.Bool, Do: func(c *abi.Call) {
		a, b := abi.Self[*thing](c), abi.Self[*thing](c)
		c.Result().Bool(a == b)
	}},
	abi.Drop(thingKind),
}

func TestHandles(t *testing.T) {
	const drop, name = "[resource-drop]thing", "[method]thing.name"
	c := newCaller(t, bump(t), things...)
	c.violates("there is no handle 0", name, 0, 0)
	c.violates("there is no handle 1", name, 1, 0)
	a, b := c.must("make", 0, 0), c.must("make", 0, 0)
	if a == 0 || a == b {
		t.Fatalf("handles are %d and %d", a, b)
	}
	other := c.must("make-other")
	c.violates("is a thing, want a thing", name, other, 0)
	c.violates("is a thing, want a thing", drop, other)
	c.must(name, garbage|a, 0)
	if c.must("same", a, b) != 0 || c.must("same", a, a) != 1 {
		t.Error("handles are mixed up")
	}

	c.must(drop, a)
	c.violates("was dropped", name, a, 0)
	c.violates("was dropped", drop, a)
	for _, i := range []uint64{0, other + 1, 1 << 31, 0xffffffff} {
		c.violates("there is no handle", drop, i)
	}
	c.must(drop, b)
	for _, last := range []uint64{b, a} {
		if again := c.must("make", 0, 0); again != last {
			t.Errorf("after %d was dropped, the next handle is %d: stale uses stay hidden for long", last, again)
		}
	}
	if n := c.inst.Handles.Live(); n != 3 {
		t.Errorf("%d handles live, want 3", n)
	}
	c.must(drop, a)
	c.violates("was dropped", "same", b, a)
}

// A call that ends well gives back what it borrowed. (After one that does not,
// nothing runs that could tell.)
func TestHandleCanBeDroppedAfterBorrow(t *testing.T) {
	c := newCaller(t, bump(t), things...)
	h := c.must("make", 0, 0)
	c.must("[method]thing.name", h, 0)
	c.must("same", h, h)
	c.must("[resource-drop]thing", h)
}

func TestHandlesAreBounded(t *testing.T) {
	c := newCaller(t, bump(t), things...)
	for range abi.MaxHandles {
		c.must("make", 0, 0)
	}
	c.violates("more than 1000 handles", "make", 0, 0)
	c.must("[resource-drop]thing", 500)
	c.must("make", 0, 0)
	c.violates("more than 1000 handles", "make-other")
}

func TestHandlesAreDroppedOnceAtTheEnd(t *testing.T) {
	var seen []*thing
	k := abi.NewKind("thing", func(v any) { seen = append(seen, v.(*thing)) })
	mk := abi.Func{Name: "make", Result: abi.Own(k), Do: func(c *abi.Call) { c.Result().Own(&thing{}) }}
	c := newCaller(t, bump(t), mk, abi.Drop(k))
	for range 10 {
		c.must("make")
	}
	c.must("[resource-drop]thing", 3)
	c.must("[resource-drop]thing", 7)
	c.inst.Close()
	c.inst.Close()
	slices.SortFunc(seen, func(a, b *thing) int { return strings.Compare(fmt.Sprintf("%p", a), fmt.Sprintf("%p", b)) })
	if len(seen) != 10 || len(slices.Compact(seen)) != 10 || c.inst.Handles.Live() != 0 {
		t.Errorf("%d drops, %d handles live", len(seen), c.inst.Handles.Live())
	}
}

// Two runs know nothing of each other's handles.
func TestHandlesBelongToTheirRun(t *testing.T) {
	c := newCaller(t, bump(t), things...)
	h := c.must("make", 0, 0)
	c.enter()
	c.violates("there is no handle", "[method]thing.name", h, 0)
}

// reentrant is a guest whose cabi_realloc does something, the first times that
// it is called, before it allocates.
func reentrant(t testing.TB, times int32, imports func(*Module) []Code, funcs ...abi.Func) api.Module {
	var m Module
	body := imports(&m)
	m.Memory(1)
	left := m.Global(times)
	honest := m.Bump(32 << 10)
	m.Func("hostile", "iiii", "i",
		GlobalGet(left), If,
		GlobalGet(left), I32(1), Sub, GlobalSet(left),
		slices.Concat(body...),
		End,
		Get(0), Get(1), Get(2), Get(3), Call(honest))
	m.Rename("cabi_realloc", "honest")
	m.Rename("hostile", "cabi_realloc")
	return instantiate(t, m.Bytes(), funcs...)
}

func TestReallocCallsHost(t *testing.T) {
	const name = "[method]thing.name"
	t.Run("and is served", func(t *testing.T) {
		mod := reentrant(t, 1, func(m *Module) []Code {
			f := m.Import("h", name, "ii", "")
			return []Code{I32(1), I32(512), Call(f)}
		}, things...)
		c := newCaller(t, mod, things...)
		c.guest.Memory().Write(100, []byte("bob"))
		h := c.must("make", 100, 3)
		c.must(name, h, 256)
		outer := string(c.peek(c.peek32(256), c.peek32(260)))
		inner := string(c.peek(c.peek32(512), c.peek32(516)))
		if outer != "bob" || inner != "bob" || c.peek32(256) == c.peek32(512) {
			t.Errorf("outer call got %q, inner %q", outer, inner)
		}
		c.must("[resource-drop]thing", h) // both gave the handle back
	})
	t.Run("and drops the handle in use", func(t *testing.T) {
		mod := reentrant(t, 1, func(m *Module) []Code {
			f := m.Import("h", "[resource-drop]thing", "i", "")
			return []Code{I32(1), Call(f)}
		}, things...)
		c := newCaller(t, mod, things...)
		c.guest.Memory().Write(100, []byte("x"))
		h := c.must("make", 100, 1)
		_, err := c.call(name, h, 256)
		var v *abi.Violation
		if !errors.As(err, &v) || !strings.Contains(v.Detail, "while a call borrows it") || v.Func != "h [resource-drop]thing" {
			t.Errorf("dropping the handle in use: %v", err)
		}
	})
	t.Run("without end", func(t *testing.T) {
		mod := reentrant(t, 1<<30, func(m *Module) []Code {
			f := m.Import("h", name, "ii", "")
			return []Code{I32(1), I32(512), Call(f)}
		}, things...)
		c := newCaller(t, mod, things...)
		c.guest.Memory().Write(100, []byte("bob"))
		h := c.must("make", 100, 3)
		_, err := c.call(name, h, 256)
		var v *abi.Violation
		if !errors.As(err, &v) || !strings.Contains(v.Detail, "3 deep") {
			t.Errorf("recursion through cabi_realloc: %v", err)
		}
	})
	t.Run("and grows its memory", func(t *testing.T) {
		mod := reentrant(t, 1<<30, func(m *Module) []Code {
			return []Code{I32(1), MemoryGrow, Drop}
		})
		c := newCaller(t, mod, rich)
		c.must("rich", 5, 256)
		if n := c.peek32(256 + 8); n != 5 {
			t.Errorf("list of %d", n)
		}
	})
	t.Run("and exits", func(t *testing.T) {
		mod := reentrant(t, 1, func(m *Module) []Code {
			f := m.Import("wasi_snapshot_preview1", "proc_exit", "i", "")
			return []Code{I32(3), Call(f)}
		})
		c := newCaller(t, mod, rich)
		if _, err := c.call("rich", 1, 256); fmt.Sprint(err) != "module closed with exit_code(3)" {
			t.Errorf("exit inside of cabi_realloc: %v", err)
		}
	})
}

// Lowering is a loop in the host: it ends when the run does.
func TestLoweringEndsWithTheRun(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("deadline of the run")
	stop := abi.Func{Name: "stop", Result: abi.List(abi.String), Do: func(c *abi.Call) {
		l := c.Result().List(1000)
		for i := range 1000 {
			if i == 10 {
				cancel(why)
			}
			l.At(i).String("x")
		}
	}}
	c := newCaller(t, bump(t), stop)
	c.ctx, c.inst = abi.Enter(ctx)
	if _, err := c.call("stop", 256); !errors.Is(err, why) {
		t.Errorf("call after the run's end: %v", err)
	}
}

func TestCallOutsideOfARun(t *testing.T) {
	c := newCaller(t, bump(t), things...)
	c.ctx = context.Background()
	if _, err := c.call("make", 0, 0); err == nil || !strings.Contains(err.Error(), "not within a run") {
		t.Errorf("call outside of a run: %v", err)
	}
}

// What the host lowers is valid, whatever it was given.
func TestLowerInvalidUTF8(t *testing.T) {
	f := abi.Func{Name: "f", Result: abi.String, Do: func(c *abi.Call) { c.Result().String("a\xffb") }}
	c := newCaller(t, bump(t), f)
	c.must("f", 256)
	if got := string(c.peek(c.peek32(256), c.peek32(260))); got != "a\ufffdb" {
		t.Errorf("lowered %q", got)
	}
}

// A violation traps the guest that commits it, through the WebAssembly runtime,
// and the next run of the same host module is as good as ever.
func TestViolationIsATrap(t *testing.T) {
	var m Module
	name := m.Import("h", "[method]thing.name", "ii", "")
	mk := m.Import("h", "make", "ii", "i")
	m.Memory(1)
	m.Bump(32 << 10)
	m.Data(16, "\x00\x00\x00\x00")
	m.Func("bad", "ii", "i", I32(99), I32(0), Call(name), I32(16))
	m.Func("good", "ii", "i", I32(0), I32(0), Call(mk), I32(0), Call(name), I32(16))
	mod := instantiate(t, m.Bytes(), things...)
	for range 3 {
		_, _, _, err := abi.CallBytes(t.Context(), mod, "bad", nil, abi.Options{})
		var v *abi.Violation
		if !errors.As(err, &v) || v.Func != "h [method]thing.name" {
			t.Fatalf("bad handle: %v", err)
		}
		if _, _, _, err := abi.CallBytes(t.Context(), mod, "good", nil, abi.Options{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExportRefusesWhatItCannotLift(t *testing.T) {
	for _, typ := range []*abi.Type{abi.List(abi.String), abi.Option(abi.U8), abi.Record()} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a parameter of type %s was accepted", typ)
				}
			}()
			newCaller(t, nil, abi.Func{Name: "f", Params: []*abi.Type{typ}})
		}()
	}
}

// Any stack, any memory, any realloc: a call goes well or is an error, and the
// host neither panics nor allocates by what the guest says.
func FuzzHostFunctions(f *testing.F) {
	var m Module
	m.Memory(1)
	ptr := m.Global(0)
	step := m.Global(0)
	m.Func("cabi_realloc", "iiii", "i",
		GlobalGet(ptr), GlobalGet(step), Add, GlobalSet(ptr), GlobalGet(ptr))
	m.Func("set", "ii", "", Get(0), GlobalSet(ptr), Get(1), GlobalSet(step))
	guest := instantiate(f, m.Bytes())
	c := newCaller(f, guest, append([]abi.Func{scalars, spilled, rich}, things...)...)
	names := []string{"scalars", "spilled", "rich", "make", "make-other", "[method]thing.name", "same", "[resource-drop]thing"}

	f.Add([]byte{0, 0, 0, 0, 0, 1}, uint32(1024), uint32(64), []byte("memory"))
	f.Add([]byte{3, 0, 0, 5, 1, 7, 1, 6, 1, 1}, uint32(page-8), uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, script []byte, at, by uint32, mem []byte) {
		c.t = t
		c.ctx, c.inst = abi.Enter(context.Background())
		defer c.inst.Close()
		guest.Memory().Write(0, mem[:min(len(mem), page)])
		if _, err := guest.ExportedFunction("set").Call(c.ctx, uint64(at), uint64(by)); err != nil {
			t.Fatal(err)
		}
		next := func() byte {
			if len(script) == 0 {
				return 0
			}
			b := script[0]
			script = script[1:]
			return b
		}
		for len(script) > 0 {
			name := names[int(next())%len(names)]
			params, _ := c.funcs[name].Core()
			stack := make([]uint64, len(params))
			for i := range stack {
				switch v := next(); v % 8 {
				case 0, 1, 2, 3, 4: // small: handles, lengths, flags
					stack[i] = uint64(v >> 3)
				case 5: // places in memory
					stack[i] = uint64(v>>3) * (page / 32) &^ 7
				case 6: // near the ends
					stack[i] = uint64(page) - 16 + uint64(v>>3)
				case 7:
					stack[i] = garbage | 0xffffffff - uint64(v>>3)
				}
			}
			if name == "rich" {
				stack[0] %= 64 // as many as the host has, not as the guest likes
			}
			c.call(name, stack...)
		}
	})
}

// What a host call costs: lifting a handle and a path, lowering a small result
// through the guest's cabi_realloc.
func BenchmarkCall(b *testing.B) {
	read := abi.Func{
		Name:   "read",
		Params: []*abi.Type{abi.Borrow(thingKind), abi.String},
		Result: abi.Result(abi.Bytes, abi.String),
		Do: func(c *abi.Call) {
			abi.Self[*thing](c)
			c.String(4096)
			c.Result().Case(abi.Ok).Bytes([]byte("sixteen bytes..."))
		},
	}
	var m Module
	m.Memory(1)
	m.Func("cabi_realloc", "iiii", "i", I32(4096))
	c := newCaller(b, instantiate(b, m.Bytes()), append(things, read)...)
	h := c.must("make", 0, 0)
	f := c.core["read"]
	stack := make([]uint64, 4)
	b.ReportAllocs()
	for b.Loop() {
		stack[0], stack[1], stack[2], stack[3] = h, 100, 12, 256
		f.Call(c.ctx, c.guest, stack)
	}
}
