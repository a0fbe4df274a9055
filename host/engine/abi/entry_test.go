package abi_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/host/engine/abi"
	. "github.com/circles-host/circles/host/engine/abi/abitest"
)

// instantiate runs wasm with the host module "h" of those functions.
func instantiate(t testing.TB, wasm []byte, funcs ...abi.Func) api.Module {
	t.Helper()
	ctx := t.Context()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithMemoryLimitPages(64))
	t.Cleanup(func() { rt.Close(context.Background()) })
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	if len(funcs) > 0 {
		b := rt.NewHostModuleBuilder("h")
		abi.Export(b, "h", funcs...)
		if _, err := b.Instantiate(ctx); err != nil {
			t.Fatal(err)
		}
	}
	mod, err := rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName("guest").WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	return mod
}

// answer is a "run" that returns ptr as its result, without looking at params.
func answer(m *Module, ptr int32) { m.Func("run", "ii", "i", I32(ptr)) }

func TestCallBytesEchoes(t *testing.T) {
	for _, tc := range []struct {
		name string
		disc int32
	}{{"ok", 0}, {"err", 1}} {
		t.Run(tc.name, func(t *testing.T) {
			var m Module
			m.Memory(1)
			m.Bump(1024)
			posts := m.Global(0)
			m.Func("run", "ii", "i",
				I32(16), I32(tc.disc|-256), Store, // the discriminant is one byte, the rest padding
				I32(20), Get(0), Store, I32(24), Get(1), Store, I32(16))
			m.Func("cabi_post_run", "i", "", GlobalGet(posts), Get(0), Add, GlobalSet(posts))
			m.Func("posted", "", "i", GlobalGet(posts))
			mod := instantiate(t, m.Bytes())
			for _, params := range []string{"", "x", "grüße", strings.Repeat("long ", 50_000)} {
				result, text, isErr, err := abi.CallBytes(t.Context(), mod, "run", []byte(params), abi.Options{MaxError: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				if got := string(result) + text; got != params || isErr != (tc.disc == 1) {
					t.Errorf("run(%d bytes) = %d bytes, isErr %v", len(params), len(got), isErr)
				}
			}
			r, err := mod.ExportedFunction("posted").Call(t.Context())
			if err != nil || r[0] != 4*16 {
				t.Errorf("cabi_post_run saw pointers that sum up to %v, %v; want four times 16", r, err)
			}
		})
	}
}

// Everything a hostile entry can return, and what a hostile cabi_realloc can.
func TestCallBytesHostile(t *testing.T) {
	const page = 65536
	u32 := func(n uint32) string { return string([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}) }
	area := func(disc, ptr, n uint32) string { return u32(disc) + u32(ptr) + u32(n) }
	entry := func(ptr int32, mem string) func(*Module) {
		return func(m *Module) {
			m.Memory(1)
			m.Bump(1024)
			m.Data(16, mem)
			answer(m, ptr)
		}
	}
	realloc := func(ptr int32) func(*Module) {
		return func(m *Module) {
			m.Memory(1)
			m.Func("cabi_realloc", "iiii", "i", I32(ptr))
			answer(m, 16)
		}
	}
	for _, tc := range []struct {
		name  string
		build func(*Module)
		want  string
	}{
		{"area unaligned", entry(18, area(0, 0, 0)), "aligned to 4"},
		{"area at the edge", entry(page-8, ""), "leaves the memory"},
		{"area at the end of the address space", entry(-4, ""), "leaves the memory"},
		{"discriminant 2", entry(16, area(2, 0, 0)), "discriminant 2"},
		{"discriminant 255", entry(16, area(255, 0, 0)), "discriminant 255"},
		{"list past the end", entry(16, area(0, page-1, 2)), "leaves the memory"},
		{"list that wraps around", entry(16, area(0, 0xffffffff, 2)), "leaves the memory"},
		{"list of 4 GiB", entry(16, area(0, 0, 0xffffffff)), "leaves the memory"},
		{"empty list out of bounds", entry(16, area(0, page+1, 0)), "leaves the memory"},
		{"error past the end", entry(16, area(1, page-1, 2)), "leaves the memory"},
		{"error not UTF-8", entry(16, area(1, 30, 2)+"\xc3\x28\xc3\x28"), "not UTF-8"},
		{"error a lone surrogate", entry(16, area(1, 28, 3)+"\xed\xa0\x80"), "not UTF-8"},
		{"realloc returns 0", realloc(0), "returned 0"},
		{"realloc past the end", realloc(page), "leaves the memory"},
		{"realloc across the end", realloc(page - 1), "leaves the memory"},
		{"realloc returns -1", realloc(-1), "leaves the memory"},
		{"realloc of another type", func(m *Module) {
			m.Memory(1)
			m.Func("cabi_realloc", "ii", "i", I32(8))
			answer(m, 16)
		}, "not of type"},
		{"no realloc", func(m *Module) { m.Memory(1); answer(m, 16) }, "does not export cabi_realloc"},
		{"no memory", func(m *Module) { answer(m, 16) }, "does not export its memory"},
		{"post of another type", func(m *Module) {
			entry(16, area(0, 0, 0))(m)
			m.Func("cabi_post_run", "", "")
		}, "cabi_post_run is not of type"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var m Module
			tc.build(&m)
			mod := instantiate(t, m.Bytes())
			result, _, _, err := abi.CallBytes(t.Context(), mod, "run", []byte("params"), abi.Options{})
			var v *abi.Violation
			if !errors.As(err, &v) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("CallBytes = %q, %v; want a violation: %q", result, err, tc.want)
			}
			if v.Func != "run" {
				t.Errorf("violation names %q", v.Func)
			}
		})
	}
}

func TestCallBytesWithoutEntry(t *testing.T) {
	var m Module
	m.Memory(1)
	m.Func("short", "i", "i", I32(0))
	m.Func("Not_Kebab", "ii", "i", I32(0))
	mod := instantiate(t, m.Bytes())
	for _, entry := range []string{"", "run", "short", "Not_Kebab", "memory"} {
		_, _, _, err := abi.CallBytes(t.Context(), mod, entry, nil, abi.Options{})
		if !errors.Is(err, abi.ErrNoEntry) {
			t.Errorf("CallBytes(%q) = %v, want ErrNoEntry", entry, err)
		}
	}
}

func TestCallBytesBoundsResult(t *testing.T) {
	var m Module
	m.Memory(1)
	m.Data(16, "\x00\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00") // ok(1,000 bytes at 0)
	m.Data(32, "\x01\x00\x00\x00\x40\x00\x00\x00\x0a\x00\x00\x00") // err(10 bytes at 64)
	m.Data(64, "ääääää")
	answer(&m, 16)
	m.Func("fail", "ii", "i", I32(32))
	mod := instantiate(t, m.Bytes())

	var over *abi.OverLimit
	_, _, _, err := abi.CallBytes(t.Context(), mod, "run", nil, abi.Options{MaxResult: 999})
	if !errors.As(err, &over) || over.Size != 1000 || over.Limit != 999 {
		t.Errorf("result of 1,000 bytes under a limit of 999: %v", err)
	}
	result, _, _, err := abi.CallBytes(t.Context(), mod, "run", nil, abi.Options{MaxResult: 1000})
	if err != nil || len(result) != 1000 {
		t.Errorf("result of 1,000 bytes under a limit of 1,000: %d bytes, %v", len(result), err)
	}
	// An error's text is cut between characters, never refused.
	_, text, isErr, err := abi.CallBytes(t.Context(), mod, "fail", nil, abi.Options{MaxError: 5})
	if err != nil || !isErr || text != "ää…" {
		t.Errorf("error cut at 5 bytes = %q, %v, %v", text, isErr, err)
	}
}

// A trap and an exit in the entry, in cabi_realloc and in cabi_post are what the
// runtime says they are, not violations.
func TestCallBytesPassesGuestErrorsOn(t *testing.T) {
	for _, where := range []string{"cabi_realloc", "run", "cabi_post_run"} {
		for _, how := range []string{"trap", "exit"} {
			t.Run(where+" "+how, func(t *testing.T) {
				var m Module
				exit := m.Import("wasi_snapshot_preview1", "proc_exit", "i", "")
				m.Memory(1)
				end := Unreachable
				if how == "exit" {
					end = append(I32(7), Call(exit)...)
				}
				code := map[string]Code{"cabi_realloc": I32(512), "run": I32(16), "cabi_post_run": nil}
				code[where] = append(append(Code{}, end...), code[where]...)
				m.Func("cabi_realloc", "iiii", "i", code["cabi_realloc"])
				m.Func("run", "ii", "i", code["run"])
				m.Func("cabi_post_run", "i", "", code["cabi_post_run"])
				mod := instantiate(t, m.Bytes())
				_, _, _, err := abi.CallBytes(t.Context(), mod, "run", []byte("x"), abi.Options{})
				var exitErr *sys.ExitError
				var v *abi.Violation
				switch {
				case err == nil, errors.As(err, &v):
					t.Fatalf("error is %v", err)
				case how == "exit" && (!errors.As(err, &exitErr) || exitErr.ExitCode() != 7):
					t.Fatalf("error is %v, want exit code 7", err)
				case how == "trap" && !strings.Contains(err.Error(), "unreachable"):
					t.Fatalf("error is %v, want a trap", err)
				}
			})
		}
	}
}

// The result is a copy: the engine unmaps the memory after the run.
func TestCallBytesResultIsACopy(t *testing.T) {
	var m Module
	m.Memory(1)
	m.Bump(1024)
	m.Data(16, "\x00\x00\x00\x00\x40\x00\x00\x00\x04\x00\x00\x00")
	m.Data(64, "keep")
	m.Func("cabi_post_run", "i", "", I32(64), I32(0), Store)
	answer(&m, 16)
	mod := instantiate(t, m.Bytes())
	result, _, _, err := abi.CallBytes(t.Context(), mod, "run", nil, abi.Options{})
	if err != nil || !bytes.Equal(result, []byte("keep")) {
		t.Errorf("result = %q, %v after cabi_post overwrote it", result, err)
	}
}

// Any memory, any pointers: CallBytes returns a value that lies in the memory,
// or an error.
func FuzzCallBytes(f *testing.F) {
	var m Module
	m.Memory(1)
	ret, ptr := m.Global(0), m.Global(0)
	m.Func("cabi_realloc", "iiii", "i", GlobalGet(ptr))
	m.Func("run", "ii", "i", GlobalGet(ret))
	m.Func("set", "ii", "", Get(0), GlobalSet(ret), Get(1), GlobalSet(ptr))
	mod := instantiate(f, m.Bytes())
	f.Add(uint32(0), uint32(64), []byte("params"), []byte("\x00\x00\x00\x00\x40\x00\x00\x00\x06\x00\x00\x00"))
	f.Add(uint32(4), uint32(0xffff), []byte("p"), []byte("....\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, ret, ptr uint32, params, mem []byte) {
		mod.Memory().Write(0, mem[:min(len(mem), 65536)])
		if _, err := mod.ExportedFunction("set").Call(t.Context(), uint64(ret), uint64(ptr)); err != nil {
			t.Fatal(err)
		}
		result, text, isErr, err := abi.CallBytes(t.Context(), mod, "run", params, abi.Options{MaxResult: 40_000})
		var v *abi.Violation
		var over *abi.OverLimit
		switch {
		case errors.As(err, &v), errors.As(err, &over) && over.Size <= 65536:
		case err != nil:
			t.Errorf("neither a result nor a violation: %v", err)
		case len(result) > 40_000, isErr && result != nil, !isErr && text != "", !utf8.ValidString(text):
			t.Errorf("%d bytes, text %q, isErr %v", len(result), text, isErr)
		}
	})
}

func TestIsEntryName(t *testing.T) {
	var m Module
	names := map[string]bool{
		"run": true, "a": true, "add-slot": true, "v2": true, "get-URL": true, "HTTP-get": true,
		"": false, "-a": false, "a-": false, "a--b": false, "2a": false, "a-2": false, "aB": false, "Ab": false,
		"a_b": false, "a.b": false, "circles:script/run#run": false, "ä": false,
	}
	for name := range names {
		m.Func(name+" ", "ii", "i", I32(0)) // exported under a name that is never empty
	}
	m.Memory(1)
	mod := instantiate(t, m.Bytes())
	for name, want := range names {
		d := mod.ExportedFunction(name + " ").Definition()
		if got := abi.IsEntry(name, d); got != want {
			t.Errorf("IsEntry(%q) = %v", name, got)
		}
	}
}
