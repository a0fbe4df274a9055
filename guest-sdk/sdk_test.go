package sdk_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sdk "github.com/circles-host/circles/guest-sdk"
)

// What is embedded is what lies in the folders.
func TestOf(t *testing.T) {
	for language, wanted := range map[string][]string{
		"go":             {"*.go", "go.mod"},
		"c":              {"circles.h", "circles.hpp", "circles.c"},
		"assemblyscript": {"*.ts", "*.mjs"},
		"js":             {"circles.js", "circles.d.ts", "javascript.wasm.gz"},
		"rust":           {"Cargo.toml", "src/*.rs"},
		"zig":            {"*.zig"},
	} {
		files, err := sdk.Of(language)
		if err != nil {
			t.Fatal(err)
		}
		var there []string
		if err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				there = append(there, path)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, pattern := range wanted {
			names, err := filepath.Glob(filepath.Join(language, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if strings.HasSuffix(name, "_test.go") {
					continue
				}
				n++
				want, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := fs.ReadFile(files, filepath.ToSlash(strings.TrimPrefix(name, language+string(filepath.Separator)))); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s is not as embedded (%v); run go generate ./guest-sdk", name, err)
				}
			}
		}
		if n < 1 || len(there) != n {
			t.Errorf("%s: %d files are embedded, %d lie there: %q", language, len(there), n, there)
		}
	}
	if _, err := sdk.Of("cobol"); err == nil {
		t.Error("there is one for COBOL")
	}
}
