package module_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/modules"
)

// start opens a directory on an engine of its own, as a host does when it starts.
func start(t *testing.T, cache, dir string) (*engine.Engine, *module.Layer) {
	t.Helper()
	e, err := engine.New(t.Context(), engine.Config{CacheDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	l := module.Open(t.Context(), "host", dir, e, nil, nil)
	t.Cleanup(l.Close)
	return e, l
}

// old makes files look as if they had not been touched lately.
func old(t *testing.T, files ...string) {
	t.Helper()
	hourAgo := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, f := range files {
		if err := os.Chtimes(f, hourAgo, hourAgo); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKnownModulesKeepTheirTypes: what policies see of a module is the same when it
// comes from the cache. A forbid about params would hold no more if these were lost.
func TestKnownModulesKeepTheirTypes(t *testing.T) {
	cache, dir := t.TempDir(), t.TempDir()
	if err := os.Chmod(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	wasm, err := modules.WithManifest(says("hi"), []byte(`{"entries": {"run": {"types": {"guests": "number"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	add(t, dir, "m", wasm)
	old(t, filepath.Join(dir, "m.wasm"))
	var seen []engine.Manifest
	for range 2 {
		_, l := start(t, cache, dir)
		f, err := module.Find(script.Logic{Name: "m"}, l)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Manifest.Types(); len(got) != 1 || got["run"]["guests"] != "number" {
			t.Errorf("start %d: the types are %v", len(seen)+1, got)
		}
		seen = append(seen, *f.Manifest)
		f.Release()
		l.Close()
	}
	if !reflect.DeepEqual(seen[0], seen[1]) {
		t.Errorf("it was %+v, and is %+v", seen[0], seen[1])
	}
}

// TestKnownModulesAreNotReadAtStart: a start does not take longer the more modules
// there are; each is compiled when it is first run.
func TestKnownModulesAreNotReadAtStart(t *testing.T) {
	cache, dir := t.TempDir(), t.TempDir()
	if err := os.Chmod(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "m.wasm")
	was, is := says("was"), says("is!")
	add(t, dir, "m", was)
	old(t, file)
	e, l := start(t, cache, dir)
	if got, err := answer(t, e, script.Logic{Name: "m"}, l); got != "was" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}

	// The proof that it is not read: it is another one, which looks the same.
	if err := os.WriteFile(file, is, 0o600); err != nil || len(is) != len(was) {
		t.Fatal(err)
	}
	old(t, file)
	e, l = start(t, cache, dir)
	if list := l.List(); len(list) != 1 || list[0].Digest != sha256.Sum256(was) || list[0].Entries[0] != "run" || l.Problem() != nil {
		t.Fatalf("it is known as %+v, %v", list, l.Problem())
	}
	// And it is never run: what was decided about is what runs, of what is kept, or
	// nothing does.
	if err := os.RemoveAll(filepath.Join(dir, ".versions")); err != nil {
		t.Fatal(err)
	}
	if got, err := answer(t, e, script.Logic{Name: "m"}, l); !errors.Is(err, module.ErrNotFound) {
		t.Errorf("it ran %q, %v", got, err)
	}
	if err := os.WriteFile(file, was, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := answer(t, e, script.Logic{Name: "m"}, l); got != "was" || err != nil {
		t.Errorf("the file is what it was: %q, %v", got, err)
	}

	// A change is seen, at a start and after it.
	add(t, dir, "m", is)
	if err := l.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := answer(t, e, script.Logic{Name: "m"}, l); got != "is!" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		e, l = start(t, cache, dir)
	}
}

// TestWhatIsKnownIsDamaged: whatever somebody makes of the note, what runs is what is
// in the files, and none is missing.
func TestWhatIsKnownIsDamaged(t *testing.T) {
	cache, dir := t.TempDir(), t.TempDir()
	if err := os.Chmod(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	add(t, dir, "a", says("a"))
	add(t, dir, "b", says("b"))
	old(t, filepath.Join(dir, "a.wasm"), filepath.Join(dir, "b.wasm"))
	start(t, cache, dir)
	notes, err := filepath.Glob(filepath.Join(cache, "layers", "*"))
	if err != nil || len(notes) != 1 {
		t.Fatalf("%v, %v", notes, err)
	}
	whole, err := os.ReadFile(notes[0])
	if err != nil {
		t.Fatal(err)
	}
	a, b := sha256.Sum256(says("a")), sha256.Sum256(says("b"))
	if a == b || !bytes.Contains(whole, []byte(`"a"`)) {
		t.Fatalf("the note is %s", whole)
	}
	for name, damage := range map[string][]byte{
		"empty": {}, "cut": whole[:len(whole)/2], "garbage": []byte("\x00\x01"), "another host's": bytes.Replace(whole, []byte("v1 "), []byte("v1 00"), 1),
		"flipped": bytes.Replace(whole, []byte(`"a"`), []byte(`"c"`), 1), "as it was": whole,
	} {
		if err := os.WriteFile(notes[0], damage, 0o600); err != nil {
			t.Fatal(err)
		}
		e, l := start(t, cache, dir)
		for _, name2 := range []string{"a", "b"} {
			if got, err := answer(t, e, script.Logic{Name: name2}, l); got != name2 || err != nil {
				t.Errorf("%s: %s says %q, %v", name, name2, got, err)
			}
		}
		if _, err := module.Find(script.Logic{Name: "c"}, l); err == nil {
			t.Errorf("%s: there is a module c", name)
		}
	}
	// What cannot be written, or is something else, is done without.
	if err := os.Remove(notes[0]); err != nil {
		t.Fatal(err)
	}
	fifo(t, notes[0])
	if e, l := start(t, cache, dir); l.Problem() != nil {
		t.Error(l.Problem())
	} else if got, err := answer(t, e, script.Logic{Name: "a"}, l); got != "a" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestAKnownModuleIsCompiledOnce: however many come at once, for a module that nobody
// has run since the start; and who gives up leaves it to the others.
func TestAKnownModuleIsCompiledOnce(t *testing.T) {
	cache, dir := t.TempDir(), t.TempDir()
	if err := os.Chmod(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	add(t, dir, "m", says("m"))
	old(t, filepath.Join(dir, "m.wasm"))
	start(t, cache, dir)
	e, l := start(t, cache, dir)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var mu sync.Mutex
	programs := map[*engine.Program]bool{}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			f, err := module.Find(script.Logic{Name: "m"}, l)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Release()
			ctx := t.Context()
			if i%2 == 0 {
				ctx = gone
			}
			p, err := f.Program(ctx, e)
			if err != nil && !errors.Is(err, context.Canceled) || i%2 == 1 && err != nil {
				t.Errorf("%d: %v", i, err)
			}
			if err == nil {
				mu.Lock()
				programs[p] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(programs) != 1 {
		t.Errorf("it was compiled %d times", len(programs))
	}
}

// TestABrokenFileInPlaceOfOneThatNobodyRan: what is kept of it stays in force. Where
// nothing is kept, there is nothing that could.
func TestABrokenFileInPlaceOfOneThatNobodyRan(t *testing.T) {
	for _, kept := range []bool{true, false} {
		cache, dir := t.TempDir(), t.TempDir()
		if err := os.Chmod(cache, 0o700); err != nil {
			t.Fatal(err)
		}
		add(t, dir, "m", says("m"))
		old(t, filepath.Join(dir, "m.wasm"))
		start(t, cache, dir)
		e, l := start(t, cache, dir)
		found, err := module.Find(script.Logic{Name: "m"}, l)
		if err != nil {
			t.Fatal(err)
		}
		defer found.Release()
		if !kept {
			if err := os.RemoveAll(filepath.Join(dir, ".versions")); err != nil {
				t.Fatal(err)
			}
		}
		add(t, dir, "m", []byte("no module"))
		if err := l.Reload(t.Context()); err == nil || (len(l.List()) != 0) != kept {
			t.Errorf("kept %v: %v, %+v", kept, err, l.List())
		}
		if _, err := found.Program(t.Context(), e); errors.Is(err, module.ErrNotFound) == kept {
			t.Errorf("kept %v: it was found before: %v", kept, err)
		}
		if got, err := answer(t, e, script.Logic{Name: "m"}, l); (got == "m") != kept {
			t.Errorf("kept %v: %q, %v", kept, got, err)
		}
		add(t, dir, "m", says("m"))
		if err := l.Reload(t.Context()); err != nil || len(l.List()) != 1 {
			t.Errorf("mended: %v, %+v", err, l.List())
		}
	}
}
