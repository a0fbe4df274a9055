package project_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/modules/build"
	"github.com/circles-host/circles/modules/project"
)

// again builds of the sources that the module would carry what was built, elsewhere:
// the same comes out.
func again(t *testing.T, dir string, built *build.Built) {
	t.Helper()
	settings, err := build.ReadSettings(dir)
	if err != nil || !settings.EmbedSource {
		t.Fatalf("%+v, %v", settings, err)
	}
	files, left, err := build.Sources(dir, settings)
	if err != nil || len(left) > 0 {
		t.Fatalf("left out: %v, %v", left, err)
	}
	elsewhere := filepath.Join(t.TempDir(), "another", "place")
	for _, f := range files {
		file := filepath.Join(elsewhere, filepath.FromSlash(f.Name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, f.Text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	same, err := build.Build(t.Context(), build.Config{Dir: elsewhere, Language: built.Name, Foreign: true})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(same.Wasm, built.Wasm) {
		t.Errorf("built elsewhere it has %d bytes, and others; it had %d", len(same.Wasm), len(built.Wasm))
	}
	if _, err := build.Build(t.Context(), build.Config{Dir: elsewhere, Language: "none"}); err == nil || !strings.Contains(err.Error(), "it is to be in none") {
		t.Errorf("in another language: %v", err)
	}
}

// A project builds as it stands, in every language whose toolchain is here. What
// it does is tested with the command, in testdata/script/new.txtar there.
func TestNew(t *testing.T) {
	for _, language := range project.Languages() {
		t.Run(language, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "in", "between", "greeter")
			files, err := project.New(dir, language, "greeter")
			if err != nil {
				t.Fatal(err)
			}
			if len(files) < 4 {
				t.Errorf("files are %q", files)
			}
			for _, name := range files {
				text, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Error(err)
				}
				if strings.Contains(string(text), "{{") {
					t.Errorf("%s has a word that was not replaced:\n%s", name, text)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".new-*")); left != nil {
				t.Errorf("%q were left", left)
			}
			l, _ := build.Find(language)
			if _, err := l.Toolchain(t.Context()); err != nil {
				t.Skip(err)
			}
			built, err := build.Build(t.Context(), build.Config{Dir: dir})
			if errors.Is(err, build.ErrNoCompiler) {
				t.Skipf("%s: %v", l.Title, err) // AssemblyScript's is fetched by npm
			}
			var wrong *build.CompileError
			if errors.As(err, &wrong) {
				t.Fatal(wrong.Output)
			}
			if err != nil {
				t.Fatal(err)
			}
			if built.Language != l.Title || built.Manifest == nil || !built.Reactor || built.Warnings != "" {
				t.Errorf("%s, reactor %v, manifest %s, %s", built.Language, built.Reactor, built.Manifest, built.Warnings)
			}
			again(t, dir, built)
		})
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := project.New(dir, "cobol", "greeter"); err == nil || !strings.Contains(err.Error(), `no template for "cobol", but for go, `) {
		t.Errorf("COBOL: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := project.New(dir, "go", "greeter"); !errors.Is(err, project.ErrNotEmpty) {
		t.Errorf("a folder with something in it: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%v", left)
	}
	if _, err := project.New(filepath.Join(dir, "mine"), "go", "greeter"); err == nil {
		t.Error("a file was written over")
	}
	empty := t.TempDir()
	if _, err := project.New(empty, "go", "greeter"); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
}
