package rewrite

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
)

// indirect is a module with a memory and a table of n entries, of which the first
// half are functions: f(i) -> 1000+k at entry k, and one of another type at entry
// 1. Its function "call" calls the entry asked for, "tail" in place of itself.
func indirect(n int) []byte {
	at := func(k int) []byte {
		return append(appendS64([]byte{0, opLocalGet, 0, opI32Const}, int64(1000+k)), opI32Add, opEnd)
	}
	funcs, elems := []byte{2, 2}, []byte{0, opI32Const, 0, opEnd}
	codes := [][]byte{
		{0, opLocalGet, 1, opLocalGet, 0, opCallIndirect, 0, 0, opEnd},
		{0, opLocalGet, 1, opLocalGet, 0, opReturnCallIndirect, 0, 0, opEnd},
	}
	elems = appendU32(elems, uint32(n/2))
	for k := range n / 2 {
		typ, body := byte(0), at(k)
		if k == 1 {
			typ, body = 1, []byte{0, opEnd}
		}
		funcs, codes = append(funcs, typ), append(codes, body)
		elems = appendU32(elems, uint32(2+k))
	}
	code := appendU32(nil, uint32(len(codes)))
	for _, b := range codes {
		code = append(appendU32(code, uint32(len(b))), b...)
	}
	return module(
		sec(secType, 3, 0x60, 1, typeI32, 1, typeI32, 0x60, 0, 0, 0x60, 2, typeI32, typeI32, 1, typeI32),
		sec(secFunction, append(appendU32(nil, uint32(len(funcs))), funcs...)...),
		sec(secTable, append([]byte{1, typeFuncref, 0}, appendU32(nil, uint32(n))...)...),
		sec(secMemory, 1, 0, 1),
		sec(secExport, 2, 4, 'c', 'a', 'l', 'l', kindFunc, 0, 4, 't', 'a', 'i', 'l', kindFunc, 1),
		sec(secElement, append([]byte{1}, elems...)...),
		sec(secCode, code...),
	)
}

// TestDispatch calls each entry of tables of many sizes, and entries that are not
// there, by way of the table and of what Prepare makes of it: the same results,
// traps and fuel.
func TestDispatch(t *testing.T) {
	for _, n := range []int{2, 3, 4, 63, 64, 65, 128, 129, 130, 1000, 20_000} {
		wasm := indirect(n)
		p, err := Prepare(wasm, Options{})
		if err != nil || p.Dispatched != n/2 {
			t.Fatalf("%d entries: %d dispatched, %v", n, p.Dispatched, err)
		}
		meters := []*meterHost{{slice: 1 << 20}, {slice: 1 << 20}}
		ctx, plain := shared(t).start(t, metered(t, wasm), meters[0])
		with, prepared := shared(t).start(t, p.Wasm, meters[1])
		if prepared.ExportedFunction("call") == nil {
			t.Fatal("an export is gone")
		}
		step := max(n/500, 1)
		var entries []int64
		for k := 0; k < n; k += step {
			entries = append(entries, int64(k))
		}
		for _, k := range append(entries, 1, int64(n-1), int64(n), int64(n)+63, 1<<31, 1<<31-1, 1<<32-1, 1<<32-64) {
			for _, name := range []string{"call", "tail"} {
				want, werr := plain.ExportedFunction(name).Call(ctx, uint64(k), 7)
				got, gerr := prepared.ExportedFunction(name).Call(with, uint64(k), 7)
				if fmt.Sprint(got, sameTrap(firstLine(gerr))) != fmt.Sprint(want, sameTrap(firstLine(werr))) {
					t.Fatalf("%s of entry %d of %d: %v, %v; by the table %v, %v", name, k, n, got, gerr, want, werr)
				}
				if ok := k < int64(n)/2 && k != 1; ok != (gerr == nil) {
					t.Fatalf("%s of entry %d of %d: %v", name, k, n, gerr)
				}
			}
		}
		if a, b := meters[0].burned(plain), meters[1].burned(prepared); a != b {
			t.Errorf("%d entries: burned %d by the table, %d without", n, a, b)
		}
	}
}

// What keeps a table from being dissolved, and a module from having an image.
func TestPreparedPlain(t *testing.T) {
	build := func(sections map[byte][]byte, body ...byte) []byte {
		all := map[byte][]byte{
			secType: {1, 0x60, 0, 0}, secFunction: {1, 0}, secTable: {1, typeFuncref, 0, 4}, secMemory: {1, 0, 1},
			secElement: {1, 0, opI32Const, 1, opEnd, 1, 0},
			secCode:    append([]byte{1, byte(len(body) + 2), 0}, append(body, opEnd)...),
		}
		maps.Copy(all, sections)
		var out [][]byte
		for _, id := range slices.SortedFunc(maps.Keys(all), func(a, b byte) int { return sectionRank(a) - sectionRank(b) }) {
			if all[id] != nil {
				out = append(out, sec(id, all[id]...))
			}
		}
		return module(out...)
	}
	type sections = map[byte][]byte
	zero := []byte{opI32Const, 0}
	for name, tc := range map[string]struct {
		wasm  []byte
		plain string // what Plain says; "" for an image
		table bool   // stays
	}{
		"nothing special":              {build(nil, append(zero, opCallIndirect, 0, 0)...), "", false},
		"no memory":                    {build(sections{secMemory: nil}), "no memory", false},
		"imported memory":              {build(sections{secMemory: nil, secImport: {1, 1, 'm', 1, 'm', kindMemory, 0, 1}}), "imports its memory", false},
		"imported mutable global":      {build(sections{secImport: {1, 1, 'm', 1, 'g', kindGlobal, typeI32, 1}}), "imports a mutable global", false},
		"imported constant":            {build(sections{secImport: {1, 1, 'm', 1, 'g', kindGlobal, typeI32, 0}}), "", false},
		"imported table":               {build(sections{secTable: nil, secImport: {1, 1, 'm', 1, 't', kindTable, typeFuncref, 0, 4}}), "imports a table", true},
		"vector global":                {build(sections{secGlobal: append(append([]byte{1, typeV128, 1, opVector, 0x0c}, make([]byte, 16)...), opEnd)}), "global 0 holds a vector", false},
		"reference global":             {build(sections{secGlobal: {1, typeFuncref, 1, opRefNull, typeFuncref, opEnd}}), "global 0 holds a vector or a reference", false},
		"constant reference global":    {build(sections{secGlobal: {1, typeFuncref, 0, opRefFunc, 0, opEnd}}), "", false},
		"passive data":                 {build(sections{secData: {1, 1, 1, 'x'}}), "data segment 0 is passive", false},
		"data.drop":                    {build(sections{secDataCount: {0}, secData: {0}}, opMisc, miscDataDrop, 0), "works on data segments", false},
		"memory.init":                  {build(sections{secDataCount: {0}, secData: {0}}, slices.Concat(zero, zero, zero, []byte{opMisc, miscMemoryInit, 0, 0})...), "works on data segments", false},
		"data outside":                 {build(sections{secData: {2, 0, opI32Const, 0, opEnd, 1, 'x', 0, opI32Const, 0x7f, opEnd, 1, 'x'}}), "data segment 1 lies outside", false},
		"data at the end":              {build(sections{secData: {1, 0, opI32Const, 0xff, 0xff, 3, opEnd, 1, 'x'}}), "", false},
		"data at a global":             {build(sections{secGlobal: {1, typeI32, 0, opI32Const, 0, opEnd}, secData: {1, 0, opGlobalGet, 0, opEnd, 1, 'x'}}), "offset of its data segment 0 is not a constant", false},
		"data at a sum":                {build(sections{secData: {1, 0, opI32Const, 0, opI32Const, 0, opI32Add, opEnd, 1, 'x'}}), "not a constant", false},
		"table.set":                    {build(nil, append(zero, opRefNull, typeFuncref, opTableSet, 0)...), "changes tables", true},
		"table.set in dead code":       {build(nil, opUnreachable, opTableSet, 0), "changes tables", true},
		"table.grow":                   {build(nil, opRefNull, typeFuncref, opI32Const, 0, opMisc, miscTableGrow, 0, opDrop), "changes tables", true},
		"table.fill":                   {build(nil, slices.Concat(zero, []byte{opRefNull, typeFuncref}, zero, []byte{opMisc, miscTableFill, 0})...), "changes tables", true},
		"table.copy":                   {build(nil, slices.Concat(zero, zero, zero, []byte{opMisc, miscTableCopy, 0, 0})...), "changes tables", true},
		"table.init":                   {build(nil, slices.Concat(zero, zero, zero, []byte{opMisc, miscTableInit, 0, 0})...), "changes tables", true},
		"elem.drop":                    {build(nil, opMisc, miscElemDrop, 0), "changes tables", true},
		"table.get":                    {build(nil, append(zero, opTableGet, 0, opDrop)...), "", true},
		"table.size":                   {build(nil, opMisc, miscTableSize, 0, opDrop), "", true},
		"ref.func":                     {build(nil, opRefFunc, 0, opDrop), "", true},
		"exported table":               {build(sections{secExport: {1, 1, 't', kindTable, 0}}), "", true},
		"two tables":                   {build(sections{secTable: {2, typeFuncref, 0, 4, typeFuncref, 0, 4}}), "", true},
		"call by another table":        {build(sections{secTable: {2, typeFuncref, 0, 4, typeFuncref, 0, 4}}, append(zero, opCallIndirect, 0, 1)...), "", true},
		"table of objects":             {build(sections{secTable: {1, typeExternref, 0, 4}, secElement: nil}), "", true},
		"entries outside":              {build(sections{secElement: {1, 0, opI32Const, 4, opEnd, 1, 0}}), "", true},
		"entries at a global":          {build(sections{secGlobal: {1, typeI32, 0, opI32Const, 0, opEnd}, secElement: {1, 0, opGlobalGet, 0, opEnd, 1, 0}}), "", true},
		"entries that are expressions": {build(sections{secElement: {1, 4, opI32Const, 1, opEnd, 2, opRefFunc, 0, opEnd, opRefNull, typeFuncref, opEnd}}), "", false},
		"declared entries":             {build(sections{secElement: {2, 3, 0, 1, 0, 0, opI32Const, 1, opEnd, 1, 0}}), "", false},
		"an enormous table":            {build(sections{secTable: {1, typeFuncref, 0, 0x80, 0x80, 0x40}}), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Prepare(tc.wasm, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if tc.plain == "" && p.Plain != "" || !strings.Contains(p.Plain, tc.plain) {
				t.Errorf("plain because %q, want %q", p.Plain, tc.plain)
			}
			m, err := Decode(p.Wasm)
			if err != nil {
				t.Fatal(err)
			}
			if gone := m.tables == 0; gone == tc.table {
				t.Errorf("table of %d entries, %d segments", m.table.min, len(m.elements))
			}
			if was := len(mustDecode(t, tc.wasm).data); p.Plain != "" && len(m.data) != was || p.Plain == "" && len(p.Data) != was {
				t.Errorf("of %d data segments %d are in the module, %d out of it", was, len(m.data), len(p.Data))
			}
			again, err := Prepare(tc.wasm, Options{})
			if err != nil || !bytes.Equal(again.Wasm, p.Wasm) {
				t.Errorf("prepared otherwise the second time (%v)", err)
			}
		})
	}
	if p, err := Prepare(build(nil), Options{MaxMemory: 1 << 15}); err != nil || !strings.Contains(p.Plain, "65536 bytes of memory") {
		t.Errorf("a memory over the bound: %+v, %v", p, err)
	}
	if p, err := Prepare(build(nil), Options{Tables: true}); err != nil || p.Dispatched != 0 || len(mustDecode(t, p.Wasm).elements) != 1 {
		t.Errorf("told to leave the table: %+v, %v", p, err)
	}
}

func mustDecode(t *testing.T, wasm []byte) *Module {
	t.Helper()
	m, err := Decode(wasm)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCallExport calls functions of several types through the one that Prepare
// adds, and others that it is not to reach.
func TestCallExport(t *testing.T) {
	wasm := module(
		sec(secType, 5, 0x60, 0, 0, 0x60, 1, typeI32, 1, typeI32, 0x60, 4, typeI32, typeI32, typeI32, typeI32, 1, typeI32,
			0x60, 1, typeI64, 1, typeI32, 0x60, 5, typeI32, typeI32, typeI32, typeI32, typeI32, 0),
		sec(secFunction, 5, 0, 1, 2, 3, 4),
		sec(secExport, append([]byte{5}, slices.Concat(
			[]byte{4, 'n', 'o', 'n', 'e', kindFunc, 0}, []byte{3, 'o', 'n', 'e', kindFunc, 1}, []byte{4, 'f', 'o', 'u', 'r', kindFunc, 2},
			[]byte{4, 'l', 'o', 'n', 'g', kindFunc, 3}, []byte{4, 'f', 'i', 'v', 'e', kindFunc, 4})...)...),
		sec(secCode, 5, 2, 0, opEnd, 7, 0, opLocalGet, 0, opI32Const, 1, opI32Add, opEnd,
			13, 0, opLocalGet, 0, opLocalGet, 1, opI32Sub, opLocalGet, 2, opI32Sub, opLocalGet, 3, opI32Sub, opEnd,
			4, 0, opI32Const, 0, opEnd, 2, 0, opEnd),
	)
	p, err := Prepare(wasm, Options{Calls: []string{"four", "absent", "long", "one", "one", "none", "five"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]uint32{"four": 0, "one": 1, "none": 2}; !maps.Equal(p.Calls, want) {
		t.Fatalf("calls %v, want %v", p.Calls, want)
	}
	ctx, m := shared(t).start(t, p.Wasm, &meterHost{slice: 1 << 20})
	f := m.ExportedFunction(CallExport)
	for _, tc := range [][]uint64{{0, 50, 5, 3, 2, 40}, {1, 5, 9, 9, 9, 6}, {2, 9, 9, 9, 9, 0}} {
		if got, err := f.Call(ctx, tc[:5]...); err != nil || got[0] != tc[5] {
			t.Errorf("call %v: %v, %v", tc[:5], got, err)
		}
	}
	for _, which := range []uint64{3, 4, 1 << 31, 1<<32 - 1} {
		if got, err := f.Call(ctx, which, 0, 0, 0, 0); err == nil {
			t.Errorf("call of %d: %v", which, got)
		}
	}
	var many []string
	exports := appendU32(nil, 200)
	for i := range 200 {
		many = append(many, fmt.Sprint("f", i))
		exports = append(appendName(exports, many[i]), kindFunc, 0)
	}
	if p, err := Prepare(module(sec(secType, 1, 0x60, 0, 0), sec(secFunction, 1, 0), sec(secExport, exports...), sec(secCode, 1, 2, 0, opEnd)),
		Options{Calls: many}); err != nil || len(p.Calls) != maxCalls {
		t.Errorf("of 200 functions %d are reached, %v", len(p.Calls), err)
	}
}

// A start function is one no longer, and nothing but () -> () becomes one.
func TestPreparedStart(t *testing.T) {
	build := func(typ ...byte) []byte {
		return module(sec(secType, append([]byte{1, 0x60}, typ...)...), sec(secFunction, 1, 0), sec(secMemory, 1, 0, 1),
			sec(secStart, 0), sec(secCode, 1, 3, 0, opUnreachable, opEnd))
	}
	p, err := Prepare(build(0, 0), Options{})
	if err != nil || !p.Start {
		t.Fatalf("%+v, %v", p, err)
	}
	ctx, m := shared(t).start(t, p.Wasm, &meterHost{slice: 1 << 20}) // does not run it
	if _, err := m.ExportedFunction(StartExport).Call(ctx); err == nil {
		t.Error("the start function did not trap")
	}
	if _, err := Prepare(build(1, typeI32, 0), Options{}); err == nil {
		t.Error("a start function with a parameter was accepted")
	}
}

// TestPreparedGuests prepares programs of several toolchains. All of them get an
// image, and lose their tables.
func TestPreparedGuests(t *testing.T) {
	names := []string{"command", "reactor", "parser"}
	for _, name := range names {
		p, err := Prepare(goGuest(t, name), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Plain != "" || p.Dispatched < 1000 || len(p.Data) == 0 || len(p.Globals) < 2 {
			t.Errorf("%s: plain because %q, %d table entries dispatched, %d data segments, globals %v", name, p.Plain, p.Dispatched, len(p.Data), p.Globals)
		}
	}
}

// FuzzPrepare looks for modules that Prepare makes valid or invalid, or that it
// takes apart otherwise than Meter does.
func FuzzPrepare(f *testing.F) {
	f.Add(indirect(5))
	f.Add(indirect(300))
	f.Add(readFile(f, "testdata/kernels.wasm"))
	f.Add(module(sec(secType, 1, 0x60, 0, 0), sec(secMemory, 1, 0, 1), sec(secData, 1, 0, opI32Const, 0, opEnd, 1, 'x')))
	for _, seed := range []uint64{1, 2, 3} {
		f.Add(randomModule(seed))
	}
	for _, suite := range []string{"call_indirect", "elem", "ref_func", "start", "data", "table_get", "return_call_indirect"} {
		for _, dir := range specSuites {
			if b, err := os.ReadFile(filepath.Join(specDir(f, dir), suite+".0.wasm")); err == nil {
				f.Add(b)
			}
		}
	}
	rt := wazero.NewRuntimeWithConfig(f.Context(), wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features).WithMemoryLimitPages(16))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		p, err := Prepare(wasm, Options{Calls: []string{"call", "run"}})
		if err != nil {
			return
		}
		if _, err := Decode(p.Wasm); err != nil {
			t.Fatalf("what was made is refused: %v", err)
		}
		ctx := t.Context()
		c, want := rt.CompileModule(ctx, wasm)
		if want == nil {
			c.Close(ctx)
		}
		if want != nil && strings.Contains(want.Error(), "custom section") {
			return // see FuzzMeter
		}
		d, got := rt.CompileModule(ctx, p.Wasm)
		if got == nil {
			d.Close(ctx)
		}
		if (want == nil) != (got == nil) {
			t.Fatalf("compiled as it is: %v; prepared: %v", want, got)
		}
	})
}
