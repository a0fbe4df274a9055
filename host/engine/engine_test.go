package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
)

// A runtime remembers every function type that it has seen.
func TestTypesDoNotPileUp(t *testing.T) {
	e := newEngine(t, Config{})
	e.maxTypes = 100 << 10
	first := e.current
	keep := compile(t, e, guest())
	// 20 KB of types, different in each module.
	hostile := func(n int) []byte {
		var types []byte
		for i := range 20 {
			types = append(types, 0x60)
			types = binary.AppendUvarint(types, 1000)
			p := bytes.Repeat([]byte{0x7f}, 1000)
			for bit := range 24 {
				if (n*20+i)>>bit&1 == 1 {
					p[bit] = 0x7e
				}
			}
			types = append(append(types, p...), 0)
		}
		types = append(types, 0x60, 0, 0)
		return module(section(sectionType, append(binary.AppendUvarint(nil, 21), types...)...),
			section(sectionFunction, 1, 20),
			section(sectionExport, append([]byte{1, 6}, "_start\x00\x00"...)...), section(sectionCode, 1, 2, 0, 0x0b))
	}
	for i := range 12 {
		p, err := e.Compile(t.Context(), hostile(i))
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	if e.current == first || e.current.types > e.maxTypes+30<<10 {
		t.Errorf("a runtime has seen %d bytes of types", e.current.types)
	}
	if first.refs != 1 {
		t.Errorf("the first runtime is referred to %d times", first.refs)
	}
	ran(t, e, keep, Call{}) // the old generation lives as long as its programs
}

func TestCompileGivesUp(t *testing.T) {
	e := newEngine(t, Config{MaxCompileTime: time.Nanosecond})
	_, err := e.Compile(t.Context(), guest())
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrInvalid) {
		t.Errorf("Compile = %v", err)
	}
	e = newEngine(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Compile(ctx, guest()); !errors.Is(err, context.Canceled) {
		t.Errorf("Compile = %v", err)
	}
	// What was given up on gives its slot back.
	for range 3 * cap(e.compile) {
		compile(t, e, guest())
	}
}

func TestCacheDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	files := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	use := func() {
		e, err := New(t.Context(), Config{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close(context.Background())
		p, err := e.Compile(t.Context(), guest())
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		ran(t, e, p, Call{})
	}
	use()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("cache is %v, %v", info.Mode(), err)
	}
	cached := files()
	if len(cached) != 1 {
		t.Fatalf("%d files are cached", len(cached))
	}
	before, err := os.Stat(cached[0])
	if err != nil {
		t.Fatal(err)
	}
	use()
	if after, err := os.Stat(cached[0]); err != nil || !os.SameFile(before, after) {
		t.Error("compiled again in spite of the cache")
	}
	t.Run("damaged", func(t *testing.T) {
		whole, err := os.ReadFile(cached[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 3, 20, len(whole) / 2, len(whole) - 1} {
			if err := os.WriteFile(cached[0], whole[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			use()
		}
		for _, i := range []int{0, 5, 6, 8, len(whole) / 2} { // magic, version, code
			b := bytes.Clone(whole)
			b[i] ^= 0x40
			if err := os.WriteFile(cached[0], b, 0o600); err != nil {
				t.Fatal(err)
			}
			use()
		}
	})
}

// What lies in the cache is executed.
func TestCacheDirOfOthersIsRefused(t *testing.T) {
	refused := func(t *testing.T, dir, text string) {
		t.Helper()
		e, err := New(t.Context(), Config{CacheDir: dir})
		if err == nil {
			e.Close(t.Context())
			t.Fatal("accepted")
		}
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %v; want %q", err, text)
		}
	}
	for _, mode := range []fs.FileMode{0o770, 0o702, 0o777 | fs.ModeSticky} {
		t.Run(mode.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			if err := os.MkdirAll(filepath.Join(dir, "wazero-v"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(dir, "wazero-v"), mode); err != nil {
				t.Fatal(err)
			}
			refused(t, dir, "writable by others")
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			refused(t, dir, "writable by others")
		})
	}
	t.Run("link", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		refused(t, filepath.Join(dir, "link"), "symbolic link")
	})
	t.Run("file", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, name, "not a directory")
	})
}

// Whoever may send modules makes the cache grow.
func TestCacheIsPruned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	subs := []string{filepath.Join(dir, "wazero-v0"), filepath.Join(dir, imageDir)}
	for _, sub := range subs {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		name := filepath.Join(subs[i%2], fmt.Sprint(i))
		if err := os.WriteFile(name, make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(time.Duration(i-100) * time.Minute)
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	newEngine(t, Config{CacheDir: dir, MaxCacheBytes: 3500})
	left, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	var names []string
	for _, name := range left {
		names = append(names, filepath.Base(name))
	}
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"7", "8", "9"}) {
		t.Errorf("left %q, %v; want the newest three", left, err)
	}
}

func TestHostModulesAreChecked(t *testing.T) {
	export := func(b wazero.HostModuleBuilder) { b.NewFunctionBuilder().WithFunc(nothing).Export("f") }
	for _, h := range []HostModule{
		{Name: "", Export: export}, {Name: "test"}, {Name: "test", Version: "one", Export: export},
		{Name: "test", Export: func(b wazero.HostModuleBuilder) { b.NewFunctionBuilder().WithFunc(func(string) {}).Export("f") }},
	} {
		if e, err := New(t.Context(), Config{}, h); err == nil {
			e.Close(t.Context())
			t.Errorf("%+v is accepted", h)
		}
	}
	if e, err := New(t.Context(), Config{}, HostModule{Name: "a", Export: export}, HostModule{Name: "a", Export: export}); err == nil {
		e.Close(t.Context())
		t.Error("one name twice is accepted")
	}
}
