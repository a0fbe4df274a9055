package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	w "github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/engine/rewrite"
)

func TestInspectGoGuests(t *testing.T) {
	wasm, err := commandWasm()
	if err != nil {
		t.Fatal(err)
	}
	info, err := Inspect(wasm)
	if err != nil {
		t.Fatal(err)
	}
	if info.Shape != Command || info.Size != len(wasm) || info.Entries != nil || info.Memory == 0 {
		t.Errorf("command: %+v", info)
	}
	if got := info.Modules(); !reflect.DeepEqual(got, []string{"wasi_snapshot_preview1"}) {
		t.Errorf("imports from %v", got)
	}
	if !strings.HasPrefix(info.Language, "Go go1.") || !strings.HasPrefix(info.Toolchain, "Go cmd/compile go1.") {
		t.Errorf("language %q, toolchain %q", info.Language, info.Toolchain)
	}
	if wasm, err = reactorWasm(); err != nil {
		t.Fatal(err)
	}
	info, err = Inspect(wasm)
	if want := []string{"blow-up", "collect", "give-much", "leave", "print-it", "remember", "run", "say-no", "unlike", "work"}; err != nil || info.Shape != Reactor || !reflect.DeepEqual(info.Entries, want) {
		t.Errorf("reactor: %v %v, %v", info.Shape, info.Entries, err)
	}
	// Cut off anywhere, it is an error that says so, never a panic. (Between two
	// sections a module may be whole without the rest.)
	for n := 0; n < len(wasm); n += 997 {
		if _, err := Inspect(wasm[:n]); err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	e := sharedEngine(t)
	imports := func(n int) []byte {
		b := []byte{byte(n)}
		for range n {
			b = append(b, 1, 'm', 1, 'f', 0, 0)
		}
		return b
	}
	whole := guest()
	for _, tc := range []struct {
		name string
		wasm []byte
		text string
	}{
		{"empty", nil, "empty"},
		{"text", []byte("#!/bin/sh\necho hello\n"), "it is text"},
		{"WAT", []byte("\n (module)"), "text format"},
		{"ELF", []byte("\x7fELF\x02\x01\x01\x00"), "native ELF binary"},
		{"gzip", []byte("\x1f\x8b\x08\x00\x00"), "compressed"},
		{"binary", []byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, "00 61 73 6d"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "core wasip1 module"},
		{"later version", []byte("\x00asm\x02\x00\x00\x00"), "version 0x2"},
		{"two bytes", []byte("\x00a"), "cut off"},
		{"six bytes", []byte("\x00asm\x01\x00"), "truncated"},
		{"truncated", whole[:len(whole)-3], "truncated"},
		{"section of 4 GiB", module([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f}), "truncated"},
		{"types of 4 GiB", module(section(sectionType, 0xff, 0xff, 0xff, 0xff, 0x0f)), "4294967295 types"},
		{"count beyond the section", module(section(sectionType, 100, 0x60), section(sectionImport, 0)), "section ends"},
		{"number of 6 bytes", module(section(sectionType, 0x80, 0x80, 0x80, 0x80, 0x80, 0)), "longer than 5"},
		{"section twice", module(section(sectionType, 0), section(sectionType, 0)), "twice"},
		{"sections out of order", module(section(sectionImport, 0), section(sectionType, 0)), "out of order"},
		{"section 99", module(section(99)), "section 99"},
		{"left over", module(section(sectionType, 0, 7)), "left over"},
		{"nothing to call", module(), "neither _start nor an entry"},
		{"memory of 8 GiB", module(section(sectionMemory, 1, 0, 0x80, 0x80, 0x08)), "65536 pages"},
		{"two memories", module(section(sectionMemory, 2, 0, 1, 0, 1)), "2 memories"},
		{"64-bit memory", module(section(sectionMemory, 1, 4, 1)), "wasm32"},
		{"shared memory", module(section(sectionMemory, 1, 3, 1, 1)), "threads"},
		{"table of 2^32-1", module(section(sectionTable, 1, 0x70, 0, 0xff, 0xff, 0xff, 0xff, 0x0f)), "4294967295 entries"},
		{"tables that sum up", module(section(sectionTable, 2, 0x70, 0, 0xff, 0xff, 0x3f, 0x70, 0, 2)), "1048577 entries"},
		{"garbage collection", module(section(sectionType, 1, 0x5f, 0)), "garbage collection"},
		{"function of 8 MB", module(section(sectionCode, 1, 0x80, 0x80, 0x80, 0x04)), "8388608 bytes"},
		{"import of kind 9", module(section(sectionImport, 1, 0, 0, 9, 0)), "kind 9"},
		{"name not UTF-8", module(section(sectionImport, 1, 1, 0xff, 0, 0, 0)), "UTF-8"},
		{"export twice", module(section(sectionExport, 2, 1, 'a', 2, 0, 1, 'a', 2, 0)), `"a" is exported twice`},
		{"imports of no use", module(section(sectionType, 1, 0x60, 0, 0), section(sectionImport, imports(3)...)), "neither"},
		{"entry of another type", func() []byte {
			var m w.Module
			m.Memory(1)
			m.Func("run", "i", "i", w.I32(0))
			return m.Bytes()
		}(), "it exports run as (i32) -> (i32)"},
		{"reactor without memory", func() []byte {
			var m w.Module
			m.Func("run", "ii", "i", w.I32(0))
			return m.Bytes()
		}(), "does not export its memory"},
		{"reactor without realloc", func() []byte {
			var m w.Module
			m.Memory(1)
			m.Func("run", "ii", "i", w.I32(0))
			return m.Bytes()
		}(), "cabi_realloc"},
		{"code that does not validate", command(w.Drop), "not a module that this host can run"},
		{"reserved export", func() []byte {
			var m w.Module
			m.Func(rewrite.StartExport, "", "")
			m.Func("_start", "", "")
			b := m.Bytes()
			info, _ := Inspect(b)
			at := info.sections[sectionExport].to
			return append(append(append([]byte{}, b[:at]...), section(sectionStart, 0)...), b[at:]...)
		}(), "reserved"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := e.Compile(t.Context(), tc.wasm)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("Compile = %v, %v; want %q", p, err, tc.text)
			}
		})
	}
	small := newEngine(t, Config{MaxModuleBytes: 100})
	if _, err := small.Compile(t.Context(), make([]byte, 101)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "allows 100") {
		t.Errorf("oversize: %v", err)
	}
}

func nothing(context.Context) {}

// All that is missing is named at once, with what there is.
func TestUnsupportedImports(t *testing.T) {
	export := func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(nothing).Export("caller")
		b.NewFunctionBuilder().WithFunc(func(context.Context, uint32) uint32 { return 0 }).Export("read")
	}
	e := newEngine(t, Config{}, HostModule{Name: "circles:host/contexts", Version: "0.1.2", Export: export}, HostModule{Name: "env", Export: export})
	var m w.Module
	m.Import("wasi_snapshot_preview1", "fd_write", "iiii", "i")
	m.Import("circles:host/contexts@0.2.0", "caller", "", "")
	m.Import("circles:host/contexts@0.1.0", "destroy", "", "")
	m.Import("circles:host/contexts@0.1.0", "caller", "", "")
	m.Import("circles:host/contexts", "caller", "", "")
	m.Import("env\x1b[2J", "f", "", "")
	m.Memory(1)
	m.Func("_start", "", "")
	_, err := e.Compile(t.Context(), m.Bytes())
	var u *UnsupportedError
	if !errors.As(err, &u) || !errors.Is(err, ErrInvalid) {
		t.Fatalf("Compile = %v", err)
	}
	if len(u.Missing) != 5 || u.Missing[0] != (Import{"wasi_snapshot_preview1", "fd_write"}) {
		t.Errorf("missing %q", u.Missing)
	}
	if want := []string{"circles:host/contexts@0.1.2", "env"}; !reflect.DeepEqual(u.Offered, want) {
		t.Errorf("offered %q", u.Offered)
	}
	for _, text := range []string{
		`"fd_write" of "wasi_snapshot_preview1" (no such module)`, "does not serve 0.2.0", "no such function in circles:host/contexts@0.1.2",
		"imported without a version", "it offers circles:host/contexts@0.1.2, env",
	} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q: %v", text, err)
		}
	}
	if strings.Contains(err.Error(), "\x1b") {
		t.Error("the error passes an escape sequence on")
	}

	var typed w.Module
	typed.Import("env", "read", "ii", "")
	typed.Memory(1)
	typed.Func("_start", "", "")
	if _, err = e.Compile(t.Context(), typed.Bytes()); !errors.As(err, &u) || !strings.Contains(err.Error(), "imported as (i32, i32) -> (), it is (i32) -> (i32)") {
		t.Errorf("import of another type: %v", err)
	}
	// A memory, say, is not offered by anybody.
	mem := module(section(sectionType, 1, 0x60, 0, 0), section(sectionImport, 1, 3, 'e', 'n', 'v', 1, 'm', 2, 0, 1),
		section(sectionFunction, 1, 0), section(sectionExport, append([]byte{1, 6}, "_start\x00\x00"...)...), section(sectionCode, 1, 2, 0, 0x0b))
	if _, err = e.Compile(t.Context(), mem); !errors.As(err, &u) || !strings.Contains(err.Error(), `"env"."m" (a memory)`) {
		t.Errorf("imported memory: %v", err)
	}
}

func TestVersions(t *testing.T) {
	for _, tc := range []struct {
		host, asked string
		want        bool
	}{
		{"0.1.2", "0.1.0", true}, {"0.1.2", "0.1.2", true}, {"0.1.2", "0.1.3", false}, {"0.1.2", "0.2.0", false}, {"0.2.0", "0.1.0", false},
		{"0.0.2", "0.0.1", false}, {"0.0.2", "0.0.2", true},
		{"1.2.3", "1.0.0", true}, {"1.2.3", "1.2.4", false}, {"1.2.3", "1.3.0", false}, {"1.2.3", "2.0.0", false}, {"2.0.0", "1.9.9", false},
		{"1.0.0-rc", "1.0.0-rc", true}, {"1.0.0-rc", "1.0.0", false}, {"1.0.0", "1.0.0-rc", false}, {"1.0.0+linux", "1.0.0+darwin", true},
	} {
		host, err := parseVersion(tc.host)
		if err != nil {
			t.Fatal(err)
		}
		asked, err := parseVersion(tc.asked)
		if err != nil {
			t.Fatal(err)
		}
		if got := host.serves(asked); got != tc.want {
			t.Errorf("%s serves %s = %v", tc.host, tc.asked, got)
		}
	}
	for _, s := range []string{"", "1", "1.2", "1.2.3.4", "a.b.c", "1.2.-3", "99999999999.0.0", "v1.2.3"} {
		if v, err := parseVersion(s); err == nil {
			t.Errorf("parseVersion(%q) = %v", s, v)
		}
	}
}

// The guest gets the host's newest compatible version, under the name that the
// guest was built with.
func TestLinkBySemver(t *testing.T) {
	module := func(version, says string) HostModule {
		return HostModule{Name: "circles:host/test", Version: version, Export: func(b wazero.HostModuleBuilder) {
			b.NewFunctionBuilder().WithFunc(func(ctx context.Context) { fmt.Fprint(Log(ctx), says) }).Export("hello")
		}}
	}
	e := newEngine(t, Config{}, module("0.1.4", "old"), module("0.1.5", "new"), module("0.2.0", "other"))
	for asked, want := range map[string]string{"0.1.0": "new", "0.1.5": "new", "0.2.0": "other"} {
		var m w.Module
		f := m.Import("circles:host/test@"+asked, "hello", "", "")
		m.Memory(1)
		m.Func("_start", "", "", w.Call(f))
		if out := ran(t, e, compile(t, e, m.Bytes()), Call{}); string(out.Log) != want {
			t.Errorf("%s got %q", asked, out.Log)
		}
	}
}

func TestManifest(t *testing.T) {
	manifest := func(json string) Info {
		info, err := Inspect(append(guest(), custom("circles-manifest", json)...))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	info := manifest(`{"description":"A guestbook\u001b[2J","entries":{"run":{"description":"signs","params":"name","result":"count"}},
		"needs":[{"action":"write","path":"/guestbook"}],"future":1}`)
	want := &Manifest{
		Description: "A guestbook\ufffd[2J",
		Entries:     map[string]EntryInfo{"run": {Description: "signs", Params: "name", Result: "count"}},
		Needs:       []Need{{"write", "/guestbook"}},
	}
	if !reflect.DeepEqual(info.Manifest, want) || info.Warnings != nil {
		t.Errorf("manifest %+v, warnings %q", info.Manifest, info.Warnings)
	}
	for _, tc := range []struct{ json, text string }{
		{"", "JSON"}, {"[]", "JSON"}, {`{"entries":7}`, "JSON"}, {strings.Repeat("[", 60_000), "JSON"},
		{"\xff", "UTF-8"}, {`{"description":"` + strings.Repeat("x", 70_000) + `"}`, "65536"},
		{`{"entries":{"Not_Kebab":{}}}`, "kebab"}, {`{"needs":[{"action":"own","path":"/"}]}`, "own"},
		{`{"needs":[{"action":"read","path":"/../etc"}]}`, "clean"}, {`{"needs":[{"action":"read","path":"etc"}]}`, "clean"},
		{`{"needs":[{"action":"read","path":"/a\n"}]}`, ""}, {`{"needs":[{"action":"send","path":"depot"}]}`, "write *"},
		{`{"entries":{"run":{"types":{"n":"int"}}}}`, "none of string"}, {`{"entries":{"run":{"types":{"n":"string??"}}}}`, "none of string"}, {`{"entries":{"run":{"types":{"n":{"m":"string"}}}}}`, "JSON"},
		{`{"entries":{"run":{"types":{"` + strings.Repeat("n", 65) + `":"string"}}}}`, "at most 64"}, {`{"entries":{"run":{"types":{"n\u001b":"string"}}}}`, "at most 64"},
		{`{"entries":{"run":{"types":{` + manyTypes(65) + `}}}}`, "there are 65"},
		{`{"needs":[` + strings.Repeat(`{"action":"read","path":"/"},`, 300) + `{"action":"read","path":"/"}]}`, "301 needs"},
	} {
		info := manifest(tc.json)
		if tc.text == "" {
			continue
		}
		if info.Manifest != nil || len(info.Warnings) != 1 || !strings.Contains(info.Warnings[0], tc.text) {
			t.Errorf("%.40q: manifest %+v, warnings %.200q", tc.json, info.Manifest, info.Warnings)
		}
	}
}

func manyTypes(n int) string {
	types := make([]string, n)
	for i := range types {
		types[i] = fmt.Sprintf(`"n%d":"string"`, i)
	}
	return strings.Join(types, ",")
}

// Thousands of sections that each earn a warning do not make thousands of them.
func TestManifestWarningsAreBounded(t *testing.T) {
	info, err := Inspect(append(guest(), bytes.Repeat(custom("circles-manifest", "?"), 5000)...))
	if err != nil || len(info.Warnings) != 16 {
		t.Errorf("%d warnings, %v", len(info.Warnings), err)
	}
}

func TestBoundTablesKeepsTheRest(t *testing.T) {
	wasm := append(module(section(sectionTable, 1, 0x70, 0, 3), section(sectionMemory, 1, 0, 1)), custom("note", "kept")...)
	info, err := Inspect(wasm)
	if err != nil {
		t.Fatal(err)
	}
	want := append(module(section(sectionTable, 1, 0x70, 1, 3, 0x80, 0x80, 0x40), section(sectionMemory, 1, 0, 1)), custom("note", "kept")...)
	if out := boundTables(wasm, &info); !bytes.Equal(out, want) {
		t.Errorf("%q, want %q", out, want)
	}
	plain := guest()
	if info, err = Inspect(plain); err != nil || !bytes.Equal(boundTables(plain, &info), plain) {
		t.Errorf("a module without tables is changed (%v)", err)
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(guest())
	f.Add(startModule())
	f.Add(module(section(sectionTable, 2, 0x70, 0, 1, 0x6f, 1, 2, 3)))
	f.Add(append(guest(), custom("circles-manifest", `{"needs":[{"action":"read","path":"/"}]}`)...))
	f.Add(append(guest(), custom("producers", "\x01\x08language\x01\x02Go\x041.26")...))
	f.Add([]byte("\x00asm\x0d\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Inspect(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%v does not wrap ErrInvalid", err)
			}
			return
		}
		out := boundTables(b, &info)
		after, err := Inspect(out)
		if err != nil {
			t.Fatalf("boundTables broke the module: %v", err)
		}
		if info.Shape != after.Shape || !reflect.DeepEqual(info.Entries, after.Entries) || !reflect.DeepEqual(info.Imports, after.Imports) {
			t.Fatalf("boundTables changed %+v to %+v", info, after)
		}
	})
}

// FuzzCompile looks for modules that take the host down: every one either is
// refused as the module's fault or runs inside of its limits.
func FuzzCompile(f *testing.F) {
	f.Add(guest())
	f.Add(guest(w.Unreachable))
	f.Add(command(w.Loop, w.Br(0), w.End))
	f.Add(startModule(w.I32(1), w.MemoryGrow, w.Drop))
	f.Add(fibonacci(10))
	f.Add(nested(3, 3, true))
	f.Add(resultsBomb())
	f.Add(append(guest(), custom("name", "\x01\x05\x01\x00\x02ab")...))
	e, err := New(context.Background(), Config{}, wasi())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.Close(context.Background()) })
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := e.Compile(t.Context(), b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		defer p.Close()
		_, err = e.Run(t.Context(), p, Call{Limits: Limits{Fuel: 1e6, Memory: 4 << 20, Output: 1000, Log: 1000, HostCalls: 100}})
		var failure *Failure
		if err != nil && !errors.As(err, &failure) {
			t.Fatal(err)
		}
	})
}
