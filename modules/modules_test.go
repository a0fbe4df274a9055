package modules_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/circles-host/circles/modules"
)

// TestBuiltFromTheseSources holds that the committed modules were built from
// the committed sources: build.sh records the digests of both.
func TestBuiltFromTheseSources(t *testing.T) {
	f, err := os.Open("SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	built := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		want, file, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			t.Fatalf("SHA256SUMS: %q is not a digest and a file", lines.Text())
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != want {
			t.Errorf("%s is not what the modules were built with; run modules/build.sh", file)
		}
		built[file] = true
	}
	for _, m := range modules.List() {
		if !built[m.Name+"/"+m.Name+".wasm"] {
			t.Errorf("SHA256SUMS does not name %s", m.Name)
		}
	}
}

// TestManifests holds that every module says what it is, in the section that
// README.md describes, and says it of the entries that it has.
func TestManifests(t *testing.T) {
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCustomSections(true))
	defer r.Close(ctx)
	for _, m := range modules.List() {
		c, err := r.CompileModule(ctx, m.Wasm)
		if err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		var manifest struct {
			Description string
			Entries     map[string]struct{ Description, Params, Result string }
			Needs       []struct{ Action, Path string }
			Lends       []struct{ Action, Path string }
		}
		n := 0
		for _, s := range c.CustomSections() {
			if s.Name() == "circles-manifest" {
				n++
				if err := json.Unmarshal(s.Data(), &manifest); err != nil {
					t.Errorf("%s: %v", m.Name, err)
				}
			}
		}
		if n != 1 || manifest.Description == "" || len(manifest.Entries) == 0 {
			t.Errorf("%s: %d manifests, the last %+v", m.Name, n, manifest)
		}
		for entry := range manifest.Entries {
			if _, ok := c.ExportedFunctions()[entry]; !ok && entry != "" {
				t.Errorf("%s: the manifest names the entry %q, which the module has not", m.Name, entry)
			}
		}
		if len(m.Wasm) > 40<<10 {
			t.Errorf("%s: %d bytes; a module that is committed stays below 40 KiB", m.Name, len(m.Wasm))
		}
	}
}
