package main

import (
	"bytes"
	"testing"
)

// TestShippedCases runs the cases that lie beside the modules which ship; those in
// C as they are prebuilt, those in Go built from their sources.
func TestShippedCases(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for _, module := range []string{"album/album.wasm", "guestbook/guestbook.wasm", "inventory/inventory.wasm", "wordcount/wordcount.wasm", "booking", "count"} {
		var out bytes.Buffer
		if code := run(t.Context(), []string{"circles-host", "test", "../../modules/" + module}, nil, &out, &out); code != exitOK {
			t.Errorf("%s: exit code %d\n%s", module, code, out.String())
		}
	}
}
