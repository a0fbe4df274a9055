package rewrite

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
)

// module and sec put modules together by hand.
func module(sections ...[]byte) []byte {
	b := []byte(header)
	for _, s := range sections {
		b = append(b, s...)
	}
	return b
}

func sec(id byte, payload ...byte) []byte {
	return append(appendU32([]byte{id}, uint32(len(payload))), payload...)
}

// code is a module with one function () -> () of the given body.
func code(body ...byte) []byte {
	return module(
		sec(secType, 1, 0x60, 0, 0),
		sec(secFunction, 1, 0),
		sec(secCode, append(appendU32([]byte{1}, uint32(len(body))), body...)...),
	)
}

func custom(name string, payload ...byte) []byte {
	return sec(secCustom, append(appendName(nil, name), payload...)...)
}

// TestRoundTrip holds that a module is encoded as it was decoded, byte for byte.
// TestSpecification does the same on each module of the specification.
func TestRoundTrip(t *testing.T) {
	corpus := map[string][]byte{
		"empty":       module(),
		"go command":  goGuest(t, "command"),
		"go reactor":  goGuest(t, "reactor"),
		"kernels":     guest(t, "kernels"),
		"custom only": module(custom("hello", 1, 2, 3), custom("", 4), custom("hello")),
		"numbers longer than need be": module(
			append([]byte{secType, 0x87, 0x80, 0x00}, 0x81, 0x00, 0x60, 0x80, 0x80, 0x00, 0),
			sec(secFunction, 0x81, 0x80, 0x80, 0x80, 0x00, 0x80, 0x00),
			sec(secCode, 0x81, 0x00, 0x88, 0x00, 0x80, 0x00, opI32Const, 0x80, 0x80, 0x00, opDrop, opEnd),
		),
		"vectors": code(0,
			opVector, 0x0c, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
			opVector, 0x80, 0x01, opVector, 0x15, 3, opDrop, opEnd),
	}
	dir, err := wazeroDir()
	if err != nil {
		t.Fatal(err)
	}
	// Modules of TinyGo, Rust, Zig, AssemblyScript and Emscripten.
	for _, pattern := range []string{"examples/*/testdata/*.wasm", "examples/allocation/*/testdata/*.wasm",
		"imports/*/testdata/*.wasm", "imports/*/example/testdata/*.wasm", "imports/wasi_snapshot_preview1/*/testdata/*/*.wasm"} {
		for _, name := range glob(t, filepath.Join(dir, pattern)) {
			corpus[name] = readFile(t, name)
		}
	}
	for name, wasm := range corpus {
		checkIdentity(t, name, wasm)
	}
}

// TestMeterKeepsOtherSections holds that sections Meter has no business with
// keep their bytes and places, and that those which name code by offset go.
func TestMeterKeepsOtherSections(t *testing.T) {
	kept := [][]byte{custom("first", 1, 2), custom("producers", 0), custom("", 9), custom("last")}
	wasm := module(
		kept[0],
		sec(secType, 1, 0x60, 0, 0),
		kept[1],
		sec(secFunction, 1, 0),
		custom(".debug_info", 1),
		sec(secMemory, 1, 0, 1),
		kept[2],
		sec(secDataCount, 1),
		sec(secCode, 1, 2, 0, opEnd),
		sec(secData, 1, 1, 3, 'a', 'b', 'c'),
		custom("metadata.code.branch_hint", 0),
		custom("sourceMappingURL", 1, 'x'),
		kept[3],
	)
	m, err := Decode(metered(t, wasm))
	if err != nil {
		t.Fatal(err)
	}
	var customs [][]byte
	var order []byte
	for _, s := range m.sections {
		if s.id == secCustom {
			customs = append(customs, s.raw)
		}
		order = append(order, s.id)
	}
	if !slices.EqualFunc(customs, kept, bytes.Equal) {
		t.Errorf("custom sections %q, want %q", customs, kept)
	}
	if want := []byte{0, 1, 0, 2, 3, 5, 0, 6, 7, 12, 10, 11, 0}; !bytes.Equal(order, want) {
		t.Errorf("order of sections %v, want %v", order, want)
	}
	for _, s := range [][]byte{sec(secMemory, 1, 0, 1), sec(secDataCount, 1), sec(secData, 1, 1, 3, 'a', 'b', 'c')} {
		if !bytes.Contains(m.Encode(), s) {
			t.Errorf("section %v is gone", s)
		}
	}
}

// refused are modules that must be refused, with what the error must say.
var refused = map[string]struct {
	wasm []byte
	says string
}{
	"nothing":         {nil, "no WebAssembly module"},
	"text":            {[]byte("(module)"), "no WebAssembly module"},
	"a component":     {[]byte("\x00asm\x0d\x00\x01\x00"), "component"},
	"another version": {[]byte("\x00asm\x02\x00\x00\x00"), "version"},

	// Code must not reach what Meter adds: each of these would be invalid in the
	// module as it came, and would name the counter, the helper, the import or a
	// local of the meter's in the module that Meter makes.
	"the counter, read":              {code(0, opGlobalGet, 0, opDrop, opEnd), "global 0 of 0"},
	"the counter, written":           {code(0, opI64Const, 0, opGlobalSet, 0, opEnd), "global 0 of 0"},
	"the counter, in dead code":      {code(0, opUnreachable, opGlobalGet, 0, opDrop, opEnd), "global 0 of 0"},
	"the counter, exported":          {module(sec(secExport, 1, 1, 'x', kindGlobal, 0)), "global 0 of 0"},
	"the counter, in an initialiser": {module(sec(secGlobal, 1, typeI64, 0, opGlobalGet, 1, opEnd)), "global 1 of 0"},
	"the counter, in an offset":      {module(sec(secMemory, 1, 0, 1), sec(secData, 1, 0, opGlobalGet, 0, opEnd, 0)), "global 0 of 0"},
	"the helper, called":             {code(0, opCall, 1, opEnd), "function 1 of 1"},
	"the import, called":             {code(0, opCall, 2, opEnd), "function 2 of 1"},
	"the helper, referred to":        {code(0, opRefFunc, 2, opDrop, opEnd), "function 2 of 1"},
	"the helper, exported":           {module(sec(secExport, 1, 1, 'x', kindFunc, 0)), "function 0 of 0"},
	"the helper, started":            {module(sec(secStart, 0)), "function 0 of 0"},
	"the helper, in a table":         {module(sec(secTable, 1, typeFuncref, 0, 1), sec(secElement, 1, 0, opI32Const, 0, opEnd, 1, 0)), "function 0 of 0"},
	"the helper, in an expression":   {module(sec(secTable, 1, typeFuncref, 0, 1), sec(secElement, 1, 4, opI32Const, 0, opEnd, 1, opRefFunc, 0, opEnd)), "function 0 of 0"},
	"the helper's type":              {code(0, opI32Const, 0, opCallIndirect, 1, 0, opEnd), "type 1 of 1"},
	"the helper's type, of a block":  {code(0, opBlock, 1, opEnd, opEnd), "type 1 of 1"},
	"the meter's local":              {code(0, opLoop, typeEmpty, opEnd, opI64Const, 0, opLocalSet, 0, opEnd), "local 0 of 0"},
	"the meter's label":              {code(0, opLoop, typeEmpty, opBr, 2, opEnd, opEnd), "label 2 inside 2"},
	"the meter's label, in a table":  {code(0, opI32Const, 0, opBrTable, 1, 0, 1, opEnd), "label 1 inside 1"},

	// wazero reads the second byte of a vector opcode as an instruction: here the
	// guest would hide a loop, or a call, from the meter.
	"a hidden loop":          {code(0, opVector, 0x80, opLoop, typeEmpty, opEnd, opEnd), "relaxed SIMD"},
	"a hidden vector prefix": {code(0, opVector, 0x80, 0x80, 0x01, opEnd), "relaxed SIMD"},
	"a memory index":         {code(0, opMemorySize, 1, opDrop, opEnd), "memory index"},
	"a long memory index":    {code(0, opMemorySize, 0x80, 0, opDrop, opEnd), "memory index"},
	"an atomic":              {code(0, opAtomic, 3, 0, opEnd), "atomic"},
	"an exception":           {code(0, 0x08, 0, opEnd), "instruction 0x8"},
	"a try":                  {code(0, 0x06, typeEmpty, opEnd, opEnd), "instruction 0x6"},
	"a typed reference":      {module(sec(secType, 1, 0x60, 1, 0x63, 0)), "value type 0x63"},
	"a recursive type":       {module(sec(secType, 1, 0x4e, 1, 0x60, 0, 0)), "type form 0x4e"},
	"a shared memory":        {module(sec(secMemory, 1, 3, 1, 1)), "shared"},
	"a 64-bit memory":        {module(sec(secMemory, 1, 4, 1)), "64-bit"},
	"two memories":           {module(sec(secMemory, 2, 0, 1, 0, 1)), "more than one memory"},
	"a tag":                  {module(sec(secTag, 1, 0, 0)), "tag"},
	"an unknown section":     {module(sec(14)), "section 14"},

	// What would make a trusting decoder allocate gigabytes.
	"2^32-1 types":         {module(sec(secType, 0xff, 0xff, 0xff, 0xff, 0x0f)), "announced"},
	"2^32-1 imports":       {module(sec(secImport, 0xff, 0xff, 0xff, 0xff, 0x0f)), "announced"},
	"2^32-1 functions":     {module(sec(secFunction, 0xff, 0xff, 0xff, 0xff, 0x0f)), "announced"},
	"2^32-1 globals":       {module(sec(secGlobal, 0xff, 0xff, 0xff, 0xff, 0x0f)), "announced"},
	"2^32-1 exports":       {module(sec(secExport, 0xff, 0xff, 0xff, 0xff, 0x0f)), "announced"},
	"2^32-1 elements":      {module(sec(secElement, 1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f)), "announced"},
	"2^32-1 bytes of data": {module(sec(secData, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f)), "announced"},
	"2^32-1 labels":        {code(0, opI32Const, 0, opBrTable, 0xff, 0xff, 0xff, 0xff, 0x0f, opEnd), "announced"},
	"2^32-1 locals":        {code(1, 0xff, 0xff, 0xff, 0xff, 0x0f, typeI64, opEnd), "more than 50000 locals"},
	"2^32-1 names":         {module(custom("name", 1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f)), "announced"},
	"2^32-1 local names":   {module(custom("name", 2, 7, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f)), "announced"},
	"2^32-1 table entries": {module(sec(secTable, 1, typeFuncref, 0, 0xff, 0xff, 0xff, 0xff, 0x0f)), "at most"},
	"65537 pages":          {module(sec(secMemory, 1, 0, 0x81, 0x80, 0x04)), "at most"},

	// What breaks the format.
	"a section twice":                 {module(sec(secType, 0), sec(secType, 0)), "out of order"},
	"data count after code":           {module(sec(secCode, 0), sec(secDataCount, 0)), "out of order"},
	"two name sections":               {module(custom("name"), custom("name")), "second name section"},
	"bytes after a section's content": {module(sec(secType, 0, 0)), "too many"},
	"bytes after a function's end":    {code(0, opEnd, opNop), "after the function's end"},
	"no end":                          {code(0, opNop), "unexpected end"},
	"functions without code":          {module(sec(secType, 1, 0x60, 0, 0), sec(secFunction, 1, 0)), "0 bodies"},
	"code without functions":          {module(sec(secCode, 1, 2, 0, opEnd)), "0 functions"},
	"less data than counted":          {module(sec(secDataCount, 1)), "declared"},
	"a number of six bytes":           {code(0, opBr, 0x80, 0x80, 0x80, 0x80, 0x80, 0, opEnd), "32 bits"},
	"a number of 33 bits":             {code(0, opBr, 0x80, 0x80, 0x80, 0x80, 0x10, opEnd), "32 bits"},
	"a signed number of 33 bits":      {code(0, opI32Const, 0x80, 0x80, 0x80, 0x80, 0x08, opDrop, opEnd), "32 bits"},
	"a name that is not UTF-8":        {module(sec(secExport, 1, 1, 0xff, kindFunc, 0)), "UTF-8"},
	"deep nesting":                    {code(append(append([]byte{0}, bytes.Repeat([]byte{opBlock, typeEmpty}, maxNesting)...), bytes.Repeat([]byte{opEnd}, maxNesting+1)...)...), "in each other"},
	"1001 parameters":                 {module(sec(secType, append(append([]byte{1, 0x60, 0xe9, 0x07}, bytes.Repeat([]byte{typeI32}, 1001)...), 0)...)), "at most 1000"},
}

func TestRefused(t *testing.T) {
	for name, x := range refused {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Meter(x.wasm, Options{})
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Fatal("accepted")
			}
			var malformed *MalformedError
			var unsupported *UnsupportedError
			if !errors.As(err, &malformed) && !errors.As(err, &unsupported) {
				t.Errorf("an error of another type: %v", err)
			}
			if !strings.Contains(err.Error(), x.says) {
				t.Errorf("%q does not say %q", err, x.says)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > uint64(64<<10+32*len(x.wasm)) {
				t.Errorf("allocated %d bytes for a module of %d", got, len(x.wasm))
			}
		})
	}
}

// TestLocalsBomb holds that many functions of many locals each are refused, and
// that going through them until then takes no long time.
func TestLocalsBomb(t *testing.T) {
	const n = 100_000
	types, bodies := appendU32(nil, n), appendU32(nil, n)
	body := []byte{1, 0xcf, 0x86, 0x03, typeI64, opLoop, typeEmpty, opLocalGet, 0xce, 0x86, 0x03, opLocalSet, 0xce, 0x86, 0x03, opEnd, opEnd}
	for range n {
		types = append(types, 0)
		bodies = append(append(bodies, byte(len(body))), body...)
	}
	_, err := Meter(module(sec(secType, 1, 0x60, 0, 0), sec(secFunction, types...), sec(secCode, bodies...)), Options{})
	var malformed *MalformedError
	if !errors.As(err, &malformed) || !strings.Contains(err.Error(), "locals by function") {
		t.Errorf("%v", err)
	}
}

// TestManyLoops holds that metering takes time linear in the module, where a
// function of many locals has many loops.
func TestManyLoops(t *testing.T) {
	body := []byte{2, 0xce, 0x86, 0x03, typeI64, 1, typeF64}
	loop := []byte{opLoop, typeEmpty, opLocalGet, 0xce, 0x86, 0x03, opLocalSet, 0xce, 0x86, 0x03, opEnd}
	body = append(append(body, bytes.Repeat(loop, 200_000)...), opEnd)
	if out := metered(t, code(body...)); len(out) > 5*len(body) {
		t.Errorf("%d bytes became %d", len(body), len(out))
	}
}

// TestElseOutsideIf holds what Decode leaves to the engine and Meter must not
// trip over.
func TestElseOutsideIf(t *testing.T) {
	for _, body := range [][]byte{
		{0, opElse, opEnd},
		{0, opBlock, typeEmpty, opElse, opEnd, opEnd},
		{0, opI32Const, 0, opIf, typeEmpty, opElse, opElse, opEnd, opEnd},
		{0, opUnreachable, opIf, typeEmpty, opElse, opElse, opEnd, opEnd},
	} {
		if _, err := Meter(code(body...), Options{}); err == nil {
			t.Errorf("%v: accepted", body)
		}
	}
}

// TestReservedNames holds that a guest can neither import what the engine
// exports nor pass for a metered module.
func TestReservedNames(t *testing.T) {
	for _, x := range []struct{ module, name, export string }{
		{module: DefaultModule, name: DefaultFunc},
		{module: ReservedPrefix + "other", name: "f"},
		{module: "own:meter", name: "g"},
		{export: FuelGlobal},
		{export: ReservedPrefix},
	} {
		var wasm []byte
		if x.module != "" {
			payload := append(appendName(appendName([]byte{1}, x.module), x.name), kindFunc, 0)
			wasm = module(sec(secType, 1, 0x60, 0, 0), sec(secImport, payload...))
		} else {
			payload := append(appendName([]byte{1}, x.export), kindMemory, 0)
			wasm = module(sec(secMemory, 1, 0, 1), sec(secExport, payload...))
		}
		_, err := Meter(wasm, Options{Module: "own:meter"})
		var reserved *ReservedError
		if !errors.As(err, &reserved) || reserved.Name != x.module+x.export {
			t.Errorf("%+v: %v", x, err)
		}
	}
	// Metering twice would count twice.
	if _, err := Meter(metered(t, code(0, opEnd)), Options{}); err == nil {
		t.Error("metered twice")
	}
}

// TestTruncated holds that a module cut short at any byte is refused or still
// whole, and never a panic.
func TestTruncated(t *testing.T) {
	wasm := guest(t, "kernels")
	for n := range wasm {
		if m, err := Decode(wasm[:n:n]); err == nil && !bytes.Equal(m.Encode(), wasm[:n]) {
			t.Errorf("cut at %d: encoded differently", n)
		}
		_, _ = Meter(wasm[:n:n], Options{})
	}
}

// TestDeepNesting holds that the deepest nesting that is accepted is metered, in
// time linear in it, and compiles.
func TestDeepNesting(t *testing.T) {
	for _, open := range [][]byte{{opBlock, typeEmpty}, {opLoop, typeEmpty}, {opI32Const, 1, opIf, typeEmpty}} {
		const n = maxNesting - 1
		body := append([]byte{0}, bytes.Repeat(open, n)...)
		// A branch out of all of them, from each.
		for i := range n {
			body = append(body, opI32Const, 0)
			body = appendU32(append(body, opBrIf), uint32(n-i))
			body = append(body, opEnd)
		}
		out := metered(t, code(append(body, opEnd)...))
		if len(out) > 20*len(body) {
			t.Errorf("%d bytes became %d", len(body), len(out))
		}
	}
}

// TestImports holds that Imports names them in order, and stops when told.
func TestImports(t *testing.T) {
	m, err := Decode(module(sec(secType, 1, 0x60, 0, 0),
		sec(secImport, 3, 1, 'a', 1, 'x', kindFunc, 0, 1, 'b', 1, 'y', kindGlobal, typeI32, 0, 1, 'c', 0, kindFunc, 0)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	m.Imports(func(module, name string) bool {
		got = append(got, module+"."+name)
		return len(got) < 2
	})
	if want := []string{"a.x", "b.y"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// FuzzMeter mutates modules. Whatever comes, nothing panics; what is decoded is
// encoded as it was; what wazero accepts it also accepts metered, and what it
// refuses it refuses metered; and a metered function ends when its fuel does.
func FuzzMeter(f *testing.F) {
	f.Add(readFile(f, "testdata/kernels.wasm"))
	for _, x := range refused {
		f.Add(x.wasm)
	}
	for _, name := range []string{"loop.0", "br_table.0", "if.0", "block.0", "call_indirect.0", "memory_grow.0", "table_grow.0",
		"bulk.0", "ref_func.0", "ref_func.1", "simd_lane.0", "start.0", "global.0", "elem.0", "unreached-valid.0", "select.0"} {
		b, err := os.ReadFile(filepath.Join(specDir(f, "v2"), name+".wasm"))
		if err != nil {
			continue // the specification's tests are numbered anew now and then
		}
		f.Add(b)
	}
	ctx := context.Background()
	meter := &meterHost{}
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features).WithMemoryLimitPages(16))
	meter.instantiate(ctx, f, rt)
	f.Fuzz(func(t *testing.T, wasm []byte) {
		m, err := Decode(wasm)
		if err != nil {
			return
		}
		if !bytes.Equal(m.Encode(), wasm) {
			t.Fatal("encoded differently")
		}
		out, err := Meter(wasm, Options{})
		if err != nil {
			return
		}
		plain, errPlain := rt.CompileModule(ctx, wasm)
		with, errWith := rt.CompileModule(ctx, out)
		if errPlain != nil && strings.Contains(errPlain.Error(), "custom section") {
			return // wazero refuses an empty one at the very end, which metering may move
		}
		if (errPlain == nil) != (errWith == nil) {
			t.Fatalf("plain: %v; metered: %v", errPlain, errWith)
		}
		if errPlain != nil {
			return
		}
		defer plain.Close(ctx)
		defer with.Close(ctx)
		*meter = meterHost{slice: 1000, limit: 10_000}
		inst, err := rt.InstantiateModule(ctx, with, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			return
		}
		defer inst.Close(ctx)
		for name, def := range with.ExportedFunctions() {
			*meter = meterHost{slice: 1000, limit: 10_000}
			_, _ = inst.ExportedFunction(name).Call(ctx, make([]uint64, 2*len(def.ParamTypes()))[:paramWords(def.ParamTypes())]...)
			if inst.IsClosed() {
				return
			}
		}
	})
}

func paramWords(types []byte) int {
	n := len(types)
	for _, t := range types {
		if t == typeV128 {
			n++
		}
	}
	return n
}
