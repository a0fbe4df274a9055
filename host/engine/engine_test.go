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
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	w "github.com/circles-host/circles/host/engine/abi/abitest"
)

// A program is replaced 200 times while others run it: no run fails but for
// ErrClosed, upon which the new one is there.
func TestReplaceUnderLoad(t *testing.T) {
	e := newEngine(t, Config{}, wasi())
	version := func(i int) *Program {
		var m w.Module
		m.Memory(1)
		m.Bump(1024)
		m.Data(20, string(binary.LittleEndian.AppendUint32(nil, 64))+"\x04")
		m.Data(64, fmt.Sprintf("v%03d", i))
		m.Func("run", "ii", "i", w.I32(16))
		p, err := e.Compile(t.Context(), m.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var current atomic.Pointer[Program]
	current.Store(version(0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var runs atomic.Int64
	for range 4 {
		wg.Go(func() {
			last := ""
			for {
				select {
				case <-stop:
					return
				default:
				}
				out, err := e.Run(context.Background(), current.Load(), Call{})
				switch {
				case errors.Is(err, ErrClosed):
					continue
				case err != nil:
					t.Error(err)
					return
				case string(out.Result) < last:
					t.Errorf("%s after %s", out.Result, last)
				}
				last = string(out.Result)
				runs.Add(1)
			}
		})
	}
	for i := 1; i <= 200; i++ {
		current.Swap(version(i)).Close()
	}
	close(stop)
	wg.Wait()
	if runs.Load() == 0 {
		t.Error("nothing ran")
	}
	p := current.Load()
	p.Close()
	if _, err := e.Run(t.Context(), p, Call{}); !errors.Is(err, ErrClosed) {
		t.Errorf("run of a closed program: %v", err)
	}
	if p.Retain() {
		t.Error("a closed program can be retained")
	}
}

// A run that has begun goes on when its program is closed under it.
func TestCloseProgramWhileItRuns(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	e := newEngine(t, Config{}, HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(context.Context) { close(entered); <-leave }).Export("wait")
	}})
	var m w.Module
	f := m.Import("test", "wait", "", "")
	m.Memory(1)
	m.Func("work", "i", "i", w.Get(0), w.I32(1), w.Add)
	m.Func("_start", "", "", w.Call(f), w.I32(1), w.Call(1), w.Drop)
	p, err := e.Compile(t.Context(), m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := e.Run(context.Background(), p, Call{})
		done <- err
	}()
	<-entered
	p.Close()
	runtime.GC() // the code is unmapped by a finalizer
	runtime.GC()
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Close waits for what runs, and ends it when it may not wait any longer.
func TestCloseEngine(t *testing.T) {
	// The guest says when it runs: what an Engine counts as running may be the end
	// of a compilation.
	entered := make(chan struct{})
	e, err := New(t.Context(), Config{}, HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(context.Context) { close(entered) }).Export("entered")
	}})
	if err != nil {
		t.Fatal(err)
	}
	var m w.Module
	enter := m.Import("test", "entered", "", "")
	m.Memory(1)
	m.Func("_start", "", "", w.Call(enter), w.Loop, w.Br(0), w.End)
	p, err := e.Compile(t.Context(), m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := e.Run(context.Background(), p, Call{Limits: Limits{Wall: time.Minute}})
		done <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
	var f *Failure
	if err := <-done; !errors.As(err, &f) || f.Kind != Cancelled {
		t.Errorf("Run = %v", err)
	}
	if _, err := e.Run(t.Context(), p, Call{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close = %v", err)
	}
	if _, err := e.Compile(t.Context(), guest()); !errors.Is(err, ErrClosed) {
		t.Errorf("Compile after Close = %v", err)
	}
	p.Close()
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

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
