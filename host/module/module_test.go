package module_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/watch"
)

// says is a reactor whose entries answer with text.
func says(text string, entries ...string) []byte {
	var m abitest.Module
	m.Memory(1)
	m.Data(64, text)
	m.Func("cabi_realloc", "iiii", "i", abitest.I32(1024))
	if len(entries) == 0 {
		entries = []string{"run"}
	}
	for _, entry := range entries {
		m.Func(entry, "ii", "i",
			abitest.I32(20), abitest.I32(64), abitest.Store,
			abitest.I32(24), abitest.I32(int32(len(text))), abitest.Store,
			abitest.I32(16))
	}
	return m.Bytes()
}

func newEngine(t *testing.T) *engine.Engine {
	t.Helper()
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	return e
}

func add(t *testing.T, dir, name string, wasm []byte) {
	t.Helper()
	if _, err := module.Add(dir, name, wasm); err != nil {
		t.Fatal(err)
	}
}

// answer runs what logic finds and returns what it says.
func answer(t *testing.T, e *engine.Engine, logic script.Logic, layers ...*module.Layer) (string, error) {
	t.Helper()
	f, err := module.Find(logic, layers...)
	if err != nil {
		return "", err
	}
	defer f.Release()
	p, err := f.Program(t.Context(), e)
	if err != nil {
		return "", err
	}
	out, err := e.Run(t.Context(), p, engine.Call{})
	return string(out.Result), err
}

func TestLayersShadow(t *testing.T) {
	e := newEngine(t)
	peers, hosts := t.TempDir(), t.TempDir()
	add(t, hosts, "greet", says("host"))
	add(t, hosts, "only-host", says("only host"))
	add(t, peers, "greet", says("peer"))
	peer := module.Open(t.Context(), "peer", peers, e, nil, nil)
	defer peer.Close()
	host := module.Open(t.Context(), "host", hosts, e, nil, nil)
	defer host.Close()

	for _, tc := range []struct {
		logic script.Logic
		want  string
	}{
		{script.Logic{Name: "greet"}, "peer"},
		{script.Logic{Name: "only-host"}, "only host"},
		{script.Logic{Digest: sha256.Sum256(says("host"))}, "host"}, // shadowed by name, there by digest
		{script.Logic{Wasm: says("carried")}, "carried"},
	} {
		got, err := answer(t, e, tc.logic, peer, host)
		if err != nil || got != tc.want {
			t.Errorf("%v: %q, %v; want %q", tc.logic, got, err, tc.want)
		}
	}
	for _, logic := range []script.Logic{{Name: "gone"}, {Digest: script.Digest{1}}, {Name: "../greet"}} {
		if _, err := module.Find(logic, peer, host); !errors.Is(err, module.ErrNotFound) {
			t.Errorf("%v: %v, want ErrNotFound", logic, err)
		}
	}
	if _, err := module.Find(script.Logic{Wasm: []byte("#!/bin/sh")}, peer); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("carried text: %v, want ErrInvalid", err)
	}
	if list := host.List(); len(list) != 2 || list[0].Name != "greet" || list[0].Layer != "host" || list[0].Entries[0] != "run" {
		t.Errorf("list: %+v", list)
	}
}

func TestFoundDescribesWithoutCompiling(t *testing.T) {
	wasm := says("x", "sign", "read-all")
	f, err := module.Find(script.Logic{Wasm: wasm})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if f.Layer != module.Carried || f.Name != "" || f.Digest != sha256.Sum256(wasm) || f.Size != len(wasm) {
		t.Errorf("found %+v", f)
	}
	if !f.HasEntry("sign") || !f.HasEntry("read-all") || f.HasEntry("") || f.HasEntry("cabi_realloc") {
		t.Errorf("entries %v", f.Entries)
	}
}

// log collects events, and waits for one.
type log struct {
	mu     sync.Mutex
	events []module.Event
}

func (l *log) add(e module.Event) { l.mu.Lock(); defer l.mu.Unlock(); l.events = append(l.events, e) }

func (l *log) await(t *testing.T, kind module.EventKind, name string) module.Event {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		for i, e := range l.events {
			if e.Kind == kind && e.Name == name {
				l.events = append(l.events[:i:i], l.events[i+1:]...)
				l.mu.Unlock()
				return e
			}
		}
		l.mu.Unlock()
	}
	t.Fatalf("no event %s %s; got %+v", kind, name, l.events)
	panic("unreachable")
}

func watcher(t *testing.T) *watch.Watcher {
	w := watch.New(watch.Options{Debounce: 5 * time.Millisecond, MaxDelay: 50 * time.Millisecond})
	t.Cleanup(w.Close)
	return w
}

func TestHotReload(t *testing.T) {
	e, dir, events := newEngine(t), filepath.Join(t.TempDir(), "not", "yet"), new(log)
	l := module.Open(t.Context(), "peer", dir, e, watcher(t), events.add)
	defer l.Close()
	says1 := func(want string) {
		t.Helper()
		if got, err := answer(t, e, script.Logic{Name: "m"}, l); err != nil || got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}

	add(t, dir, "m", says("one", "run", "more"))
	events.await(t, module.Loaded, "m")
	says1("one")

	add(t, dir, "m", says("two"))
	if ev := events.await(t, module.Replaced, "m"); ev.Digest != sha256.Sum256(says("two")) || len(ev.Notes) == 0 || !strings.Contains(ev.Notes[len(ev.Notes)-1], "more") {
		t.Errorf("event %+v; want the new digest and a note that entry more is gone", ev)
	}
	says1("two")

	wants := func(wasm []byte, reason string) {
		t.Helper()
		add(t, dir, "m", wasm)
		ev := events.await(t, module.Broken, "m")
		if !strings.Contains(ev.Err.Error(), reason) || !strings.Contains(ev.Err.Error(), "stays in force") {
			t.Errorf("broken: %v; want it to say %q and what is in force", ev.Err, reason)
		}
		if ev.Digest != sha256.Sum256(says("two")) || l.Problem() == nil {
			t.Errorf("broken: digest %x, problem %v", ev.Digest, l.Problem())
		}
		says1("two")
	}
	whole := says("three")
	wants(whole[:len(whole)-3], "")
	wants(nil, "")
	wants([]byte{0, 'a', 's', 'm', 0x0d, 0, 1, 0}, "component")
	var alien abitest.Module
	alien.Import("env", "launch", "", "")
	alien.Func("run", "ii", "i", abitest.I32(0))
	alien.Memory(1)
	alien.Bump(1024)
	wants(alien.Bytes(), "launch")

	add(t, dir, "m", says("two")) // the version in force, back in its file
	for end := time.Now().Add(30 * time.Second); l.Problem() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("problem stays: %v", l.Problem())
		}
	}
	add(t, dir, "m", whole)
	events.await(t, module.Replaced, "m")
	says1("three")

	if err := os.Remove(filepath.Join(dir, "m.wasm")); err != nil {
		t.Fatal(err)
	}
	events.await(t, module.Removed, "m")
	if _, err := module.Find(script.Logic{Name: "m"}, l); !errors.Is(err, module.ErrNotFound) {
		t.Errorf("removed module: %v", err)
	}
}

// What else may lie in the directory harms nothing.
func TestStrangeFiles(t *testing.T) {
	e, dir := newEngine(t), t.TempDir()
	add(t, dir, "good", says("good"))
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("README.md", []byte("text"))
	write("Bad Name.wasm", says("x"))
	write(".hidden.wasm", says("x"))
	write("text.wasm", []byte("(module)"))
	if err := os.Mkdir(filepath.Join(dir, "dir.wasm"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "zero.wasm")); err != nil {
		t.Fatal(err)
	}
	fifo(t, filepath.Join(dir, "fifo.wasm"))
	huge, err := os.Create(filepath.Join(dir, "huge.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	if err := huge.Truncate(module.MaxBytes + 1); err != nil {
		t.Fatal(err)
	}
	huge.Close()
	l := module.Open(t.Context(), "peer", dir, e, nil, nil)
	defer l.Close()
	if list := l.List(); len(list) != 1 || list[0].Name != "good" {
		t.Errorf("modules in force: %+v", list)
	}
	problem := fmt.Sprint(l.Problem())
	for _, name := range []string{"Bad Name", "text", "dir", "zero", "fifo", "huge"} {
		if !strings.Contains(problem, name) {
			t.Errorf("%s is not reported:\n%s", name, problem)
		}
	}
	for _, name := range []string{"README", "hidden"} {
		if strings.Contains(problem, name) {
			t.Errorf("%s is reported:\n%s", name, problem)
		}
	}
	for _, name := range []string{"", "-a", "a-", "A", "a/b", "..", strings.Repeat("a", 64)} {
		if _, err := module.Add(dir, name, says("x")); err == nil {
			t.Errorf("added a module named %q", name)
		}
	}
}

// A program that was found runs to its end, however often it is replaced
// meanwhile, and is what was found.
func TestFoundOutlivesReplacement(t *testing.T) {
	e, dir := newEngine(t), t.TempDir()
	add(t, dir, "m", says("one"))
	l := module.Open(t.Context(), "peer", dir, e, nil, nil)
	defer l.Close()
	f, err := module.Find(script.Logic{Name: "m"}, l)
	if err != nil {
		t.Fatal(err)
	}
	add(t, dir, "m", says("two"))
	if err := l.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := f.Program(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.Run(t.Context(), p, engine.Call{})
	if err != nil || string(out.Result) != "one" || f.Digest != sha256.Sum256(says("one")) {
		t.Errorf("ran %q, %v", out.Result, err)
	}
	f.Release()
	if p.Retain() {
		t.Error("a replaced program that nobody runs was not freed")
	}
}

// Hammer: a module is replaced 200 times under load. No call is lost, none
// fails, each gets an answer that was whole and in force, and answers never go
// back to a version from before one that the same caller has seen.
func TestReplace200TimesUnderLoad(t *testing.T) {
	const replacements, callers = 200, 4
	e, dir := newEngine(t), t.TempDir()
	text := func(n int) string { return fmt.Sprintf("version %03d", n) }
	add(t, dir, "m", says(text(0)))
	var loaded atomic.Int32
	done := make(chan struct{})
	l := module.Open(t.Context(), "peer", dir, e, watcher(t), func(ev module.Event) {
		switch ev.Kind {
		case module.Replaced:
			loaded.Add(1)
		case module.Broken, module.Removed:
			t.Errorf("%s: %v", ev.Kind, ev.Err)
		}
		if ev.Digest == sha256.Sum256(says(text(replacements))) {
			close(done)
		}
	})
	defer l.Close()

	var calls atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			last := ""
			for {
				got, err := answer(t, e, script.Logic{Name: "m"}, l)
				if err != nil || got < last || got > text(replacements) || len(got) != len(last) && last != "" {
					t.Errorf("after %q: got %q, %v", last, got, err)
					return
				}
				last = got
				calls.Add(1)
				select {
				case <-done:
					if last == text(replacements) {
						return
					}
				default:
				}
			}
		})
	}
	for n := 1; n <= replacements; n++ {
		add(t, dir, "m", says(text(n)))
		if n%2 == 0 { // every other one is given the time to be compiled
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if f, err := module.Find(script.Logic{Name: "m"}, l); err == nil {
					current := f.Digest == sha256.Sum256(says(text(n)))
					f.Release()
					if current {
						break
					}
				}
			}
		}
	}
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Error("the last version never came into force")
	}
	all.Wait()
	if n := loaded.Load(); n < replacements/2 {
		t.Errorf("only %d of %d versions were in force", n, replacements)
	}
	t.Logf("%d calls over %d versions", calls.Load(), loaded.Load())
}
