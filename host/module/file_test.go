package module_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/enginetest/guests"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
)

// textEngine runs texts that return themselves. asked counts how often the interpreter
// was wanted.
func textEngine(t *testing.T, cache string, asked *int) *engine.Engine {
	t.Helper()
	if cache != "" {
		if err := os.Chmod(cache, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	wasm := guests.Language()
	e, err := engine.New(t.Context(), engine.Config{CacheDir: cache, Languages: []engine.Language{
		{Name: "self", Suffix: ".self", Digest: sha256.Sum256(wasm), Wasm: func() ([]byte, error) { *asked++; return wasm, nil }},
	}}, wasi.Module())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	return e
}

func write(t *testing.T, dir, file, text string, age time.Duration) {
	t.Helper()
	path := filepath.Join(dir, file)
	at := time.Now().Add(-age)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
}

// TestTextsInLayers: a text is found by its name and digest, is replaced when its file
// is, and stays in force when that has a mistake, which is told with its place.
func TestTextsInLayers(t *testing.T) {
	asked := 0
	e := textEngine(t, "", &asked)
	dir := t.TempDir()
	write(t, dir, "hello.self", "hello", 0)
	write(t, dir, "notes.txt", "no module", 0)
	broken := 0
	l := module.Open(t.Context(), "peer", dir, e, nil, func(e module.Event) {
		if e.Kind == module.Broken {
			broken++
		}
	})
	defer l.Close()
	want := func(logic script.Logic, want string) {
		t.Helper()
		if got, err := answer(t, e, logic, l); err != nil || got != want {
			t.Errorf("%.40v: %q, %v; want %q", logic, got, err, want)
		}
	}
	hello := script.Logic{Name: "hello"}
	want(hello, "hello")
	want(script.Logic{Digest: sha256.Sum256([]byte("hello"))}, "hello")
	want(script.Logic{Text: script.Text{Language: "self", Source: "carried"}}, "carried")
	if list := l.List(); len(list) != 1 || list[0].File != filepath.Join(dir, "hello.self") || list[0].Language != "self" || !list[0].Text() {
		t.Errorf("%+v", list)
	}
	f, err := module.Find(script.Logic{Text: script.Text{Language: "self", Source: "x"}}, l)
	if err != nil || f.Layer != module.Carried || f.Name != "" || f.Language != "self" || f.Digest != sha256.Sum256([]byte("x")) || len(f.Modules()) != 1 {
		t.Errorf("%+v %v", f, err)
	}
	if _, err := module.Find(script.Logic{Text: script.Text{Language: "cobol", Source: "x"}}, l); !errors.Is(err, engine.ErrInvalid) {
		t.Error(err)
	}

	write(t, dir, "hello.self", "!", 0)
	place := filepath.Join(dir, "hello.self") + ":1:2: no"
	if err := l.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), place) || !strings.Contains(err.Error(), "the version before stays in force") {
		t.Errorf("%v, want in it %s", err, place)
	}
	want(hello, "hello")
	write(t, dir, "hello.self", "hello again", 0)
	if err := l.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	want(hello, "hello again")

	// Two files of one name: what was in force stays, whichever came last.
	add(t, dir, "hello", says("compiled"))
	for range 2 {
		if err := l.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "hello.self and hello.wasm") && !strings.Contains(err.Error(), "hello.wasm and hello.self") {
			t.Errorf("two files: %v", err)
		}
		want(hello, "hello again")
	}
	os.Remove(filepath.Join(dir, "hello.self"))
	if err := l.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	want(hello, "compiled")
	os.Remove(filepath.Join(dir, "hello.wasm"))
	write(t, dir, "hello.self", "a text again", 0)
	if err := l.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	want(hello, "a text again")
	if asked > 2 {
		t.Errorf("the interpreter was fetched %d times", asked)
	}
	if broken != 2 {
		t.Errorf("%d times something broken was told, want 2", broken)
	}
}

// TestKnownTextsAreNotLoaded: what the cache knows of texts is enough to open a layer,
// and to decide about them, without their interpreter; for as long as that is the same.
func TestKnownTextsAreNotLoaded(t *testing.T) {
	cache, dir := t.TempDir(), t.TempDir()
	for i := range 5 {
		write(t, dir, fmt.Sprintf("t%d.self", i), fmt.Sprint("a ", i), time.Hour)
	}
	for _, want := range []bool{true, false} {
		asked := 0
		e := textEngine(t, cache, &asked)
		l := module.Open(t.Context(), "host", dir, e, nil, nil)
		if (asked > 0) != want {
			t.Errorf("the interpreter was fetched %d times", asked)
		}
		if list := l.List(); len(list) != 5 || !list[0].Text() || len(list[0].Entries) != 2 {
			t.Errorf("%+v", list)
		}
		if got, err := answer(t, e, script.Logic{Name: "t3"}, l); err != nil || got != "a 3" {
			t.Errorf("%q %v", got, err)
		}
		l.Close()
	}
}
