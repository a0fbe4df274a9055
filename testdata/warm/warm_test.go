// Package warm_test compiles the language modules into a cache of compiled code, for
// tests that run with the race detector, which slows the compiler tenfold. It is run by
// build.Cache, as a test, since wazero keeps what tests compile apart from what
// programs do.
package warm_test

import (
	"context"
	"os"
	"testing"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/modules/languages"
)

func TestWarm(t *testing.T) {
	dir := os.Getenv("CIRCLES_WARM")
	if dir == "" {
		t.Fatal("CIRCLES_WARM does not say where")
	}
	var all []engine.Language
	for _, l := range languages.All() {
		all = append(all, engine.Language{Name: l.Name, Suffix: l.Suffix, Digest: l.Digest, Wasm: l.Wasm})
	}
	e, err := engine.New(t.Context(), engine.Config{CacheDir: dir, Languages: all}, host.HostModules()...)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(context.Background())
	for _, l := range all {
		p, err := e.Load(t.Context(), l.Name, []byte("1"))
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
}
