package floor_test

import (
	"testing"

	"github.com/circles-host/circles/host/engine/floor"
	"github.com/circles-host/circles/modules"
)

// TestCallDoesTheWork: a floor that did not run the guest would flatter nobody's
// measurements but its own.
func TestCallDoesTheWork(t *testing.T) {
	m, _ := modules.Get("wordcount")
	f, err := floor.New(t.Context(), m.Wasm)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(t.Context())
	for range 2 {
		out, err := f.Call(t.Context(), []byte("one two\nthree\n"))
		if want := `{"lines":2,"words":3,"bytes":14}`; err != nil || string(out) != want && string(out) != want+"\n" {
			t.Fatalf("%q, %v; want %s", out, err, want)
		}
	}
}
