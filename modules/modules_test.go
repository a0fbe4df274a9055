package modules_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/modules"
	"github.com/circles-host/circles/testdata/build"
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
	for _, m := range committed(t) {
		if !built[m.Name+"/"+m.Name+".wasm"] {
			t.Errorf("SHA256SUMS does not name %s", m.Name)
		}
	}
}

// committed are the modules that are kept built: those that programs bring along,
// those of the examples, which are there for the guides, and those to stand before others.
func committed(t *testing.T) []modules.Module {
	all := modules.List()
	for _, name := range []string{"album", "audit", "inventory", "rate-limit"} {
		wasm, err := os.ReadFile(name + "/" + name + ".wasm")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, modules.Module{Name: name, Wasm: wasm})
	}
	return all
}

// TestManifests holds that every module says what it is, in the section that
// README.md describes, and says it of the entries that it has.
func TestManifests(t *testing.T) {
	all := committed(t)
	for _, m := range all {
		if len(m.Wasm) > 40<<10 {
			t.Errorf("%s: %d bytes; a module that is committed stays below 40 KiB", m.Name, len(m.Wasm))
		}
	}
	for _, name := range []string{"booking", "count"} {
		manifest, err := os.ReadFile(name + "/manifest.json")
		if err != nil {
			t.Fatal(err)
		}
		wasm, err := modules.WithManifest(build.Go(t, "modules/"+name, true), manifest)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, modules.Module{Name: name, Wasm: wasm})
	}
	for _, m := range all {
		c, data := manifests(t, m.Wasm)
		if len(data) != 1 {
			t.Errorf("%s: %d manifests", m.Name, len(data))
			continue
		}
		var manifest struct {
			Description string
			Entries     map[string]struct{ Description, Params, Result string }
			Needs       []struct{ Action, Path string }
			Lends       []struct{ Action, Path string }
		}
		d := json.NewDecoder(bytes.NewReader(data[0]))
		d.DisallowUnknownFields()
		if err := d.Decode(&manifest); err != nil || manifest.Description == "" || len(manifest.Entries) == 0 || len(manifest.Needs) == 0 {
			t.Errorf("%s: %v, %+v", m.Name, err, manifest)
		}
		exports := c.ExportedFunctions()
		if _, command := exports["_start"]; command {
			if len(manifest.Entries) != 1 || manifest.Entries["run"].Description == "" {
				t.Errorf("%s: a command's manifest describes run, not %v", m.Name, manifest.Entries)
			}
			continue
		}
		for entry := range manifest.Entries {
			if _, ok := exports[entry]; !ok {
				t.Errorf("%s: the manifest names the entry %q, which the module has not", m.Name, entry)
			}
		}
		for name, f := range exports {
			i32 := api.ValueTypeI32
			if _, ok := manifest.Entries[name]; !ok && slices.Equal(f.ParamTypes(), []api.ValueType{i32, i32}) && slices.Equal(f.ResultTypes(), []api.ValueType{i32}) {
				t.Errorf("%s: the manifest does not name the entry %q", m.Name, name)
			}
		}
	}
}

// manifests returns the compiled module and its manifests.
func manifests(t *testing.T, wasm []byte) (wazero.CompiledModule, [][]byte) {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter().WithCustomSections(true))
	t.Cleanup(func() { r.Close(context.Background()) })
	c, err := r.CompileModule(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	var data [][]byte
	for _, s := range c.CustomSections() {
		if s.Name() == modules.ManifestSection {
			data = append(data, s.Data())
		}
	}
	return c, data
}

func TestWithManifest(t *testing.T) {
	m, _ := modules.Get("guestbook")
	long := []byte(`{"description": "` + strings.Repeat("x", 300) + `"}`)
	once, err := modules.WithManifest(m.Wasm, long)
	if err != nil {
		t.Fatal(err)
	}
	if _, data := manifests(t, once); len(data) != 1 || !bytes.Equal(data[0], long) {
		t.Errorf("%d manifests: %q", len(data), data)
	}
	if twice, err := modules.WithManifest(once, long); err != nil || !bytes.Equal(once, twice) {
		t.Errorf("adding the same manifest again changed the module, or %v", err)
	}
	for _, wasm := range [][]byte{
		nil, []byte("\x00asm"), []byte("\x00asm\x0d\x00\x01\x00"), m.Wasm[:len(m.Wasm)-1],
		append(bytes.Clone(m.Wasm), 0), append(bytes.Clone(m.Wasm), 0, 0x80),
		append(bytes.Clone(m.Wasm), 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		append(bytes.Clone(m.Wasm), 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
	} {
		if _, err := modules.WithManifest(wasm, long); err == nil {
			t.Errorf("a damaged module of %d bytes got a manifest", len(wasm))
		}
	}
	for _, manifest := range []string{"", "[]", "null", "{", `"x"`, "{} {}"} {
		if _, err := modules.WithManifest(m.Wasm, []byte(manifest)); err == nil {
			t.Errorf("%q was taken for a manifest", manifest)
		}
	}
}

func TestGet(t *testing.T) {
	for _, m := range modules.List() {
		if got, ok := modules.Get(m.Name); !ok || got.Digest() != m.Digest() {
			t.Errorf("%s: %v", m.Name, ok)
		}
	}
	if _, ok := modules.Get("none"); ok {
		t.Error("there is a module that there is not")
	}
}
