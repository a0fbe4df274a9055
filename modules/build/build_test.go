package build

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// project writes the files of a project, name and text in turn.
func write(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	mod     = "module example.com/m\n\ngo 1.24\n"
	hello   = "package main\n\nfunc main() { println(\"hello\") }\n"
	reactor = "package main\n\n//go:wasmexport run\nfunc run() {}\n\nfunc main() {}\n"
)

func TestGo(t *testing.T) {
	t.Setenv("GOFLAGS", "-toolexec=/nonexistent") // what is set here does not reach the compiler
	for name, tt := range map[string]struct {
		source  string
		reactor bool
	}{"command": {hello, false}, "reactor": {reactor, true}} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, "go.mod", mod, "main.go", tt.source, "manifest.json", `{"description":"x"}`,
				"other_linux.go", "package main\n\n//go:wasmexport no\nfunc no() {}\n", "main_test.go", "package main\n//go:wasmexport no\n")
			b, err := Build(t.Context(), Config{Dir: dir})
			if err != nil {
				var wrong *CompileError
				if errors.As(err, &wrong) {
					t.Log(wrong.Output)
				}
				t.Fatal(err)
			}
			if b.Language != "Go" || b.Reactor != tt.reactor || !bytes.HasPrefix(b.Wasm, []byte("\x00asm")) || !bytes.HasSuffix(b.Wasm, []byte(`{"description":"x"}`)) {
				t.Errorf("%s, reactor %v, %d bytes", b.Language, b.Reactor, len(b.Wasm))
			}
			if left, _ := os.ReadDir(dir); len(left) != 5 {
				t.Errorf("files were left in the project: %v", left)
			}
		})
	}
}

func TestWrongProjects(t *testing.T) {
	tests := []struct {
		name  string
		files []string
		want  string
	}{
		{"nothing", nil, "is not a project in a language that can be built here, which has go.mod (Go)"},
		{"no package main", []string{"go.mod", mod, "a.go", "package a\n"}, "is package a, and a module is a package main"},
		{"no sources", []string{"go.mod", mod}, "no buildable Go source files"},
		{"no JSON", []string{"go.mod", mod, "main.go", hello, "manifest.json", "[]"}, "manifest.json: add manifest: it is not a JSON object"},
		{"a manifest too large", []string{"a.c", "", "manifest.json", strings.Repeat(" ", maxManifest+1)}, "larger than"},
		{"another toolchain", []string{"go.mod", "module m\n\ngo 1.99.0\n", "main.go", hello}, "go could not build it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Build(t.Context(), Config{Dir: write(t, tt.files...)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
		})
	}
	if _, err := Build(t.Context(), Config{Dir: write(t, "a.c", "#include \"circles.h\"\n"), SDK: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "guest-sdk/c") {
		t.Errorf("an SDK without circles.h: %v", err)
	}
	_, err := Build(t.Context(), Config{Dir: write(t, "go.mod", mod, "main.go", "package main\n\nfunc main() { nothing() }\n")})
	var wrong *CompileError
	if !errors.As(err, &wrong) || !strings.Contains(wrong.Output, "main.go:3:15: undefined: nothing") {
		t.Errorf("a mistake: %v", err)
	}
}

func TestNoCompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CC", "")
	for _, files := range [][]string{{"go.mod", mod, "main.go", hello}, {"a.c", "int main(void) { return 0; }"}, {"Cargo.toml", "[package]"}} {
		_, err := Build(t.Context(), Config{Dir: write(t, files...)})
		if !errors.Is(err, ErrNoCompiler) || !strings.Contains(err.Error(), "install") {
			t.Errorf("%v", err)
		}
	}
}

// TestRust: a program, a library that is a module, and packages that are neither.
func TestRust(t *testing.T) {
	if _, err := rust.Toolchain(t.Context()); err != nil {
		t.Skipf("Rust: %v", err)
	}
	const pkg, lib = "[package]\nname = \"a-module\"\nversion = \"0.1.0\"\nedition = \"2021\"\n", "[lib]\npath = \"main.rs\"\n"
	const bins = "[[bin]]\nname = \"one\"\npath = \"main.rs\"\n[[bin]]\nname = \"two\"\npath = \"main.rs\"\n"
	for name, tt := range map[string]struct {
		manifest, source string
		reactor          bool
		want             string // of the error
	}{
		"program":      {pkg + "[[bin]]\nname = \"one\"\npath = \"main.rs\"\n", "fn main() { println!(\"hello\"); }", false, ""},
		"module":       {pkg + lib + "crate-type = [\"cdylib\"]\n", "#[no_mangle] pub extern \"C\" fn run() {}", true, ""},
		"both":         {pkg + lib + "crate-type = [\"rlib\", \"cdylib\"]\n" + bins, "#[no_mangle] pub extern \"C\" fn run() {} #[allow(dead_code)] fn main() {}", true, ""},
		"library":      {pkg + lib, "", false, "neither a program nor a library that is a module"},
		"two programs": {pkg + bins, "fn main() {}", false, "has the programs one, two, and a module is one"},
		"one of two":   {pkg + "default-run = \"two\"\n" + bins, "fn main() {}", false, ""},
		"not TOML":     {"[", "", false, "cargo could not build it"},
		"a mistake":    {pkg + lib + "crate-type = [\"cdylib\"]\n", "fn f() { nothing() }", false, "cargo could not build it"},
	} {
		t.Run(name, func(t *testing.T) {
			files := []string{"Cargo.toml", tt.manifest, "main.rs", tt.source}
			b, err := Build(t.Context(), Config{Dir: write(t, files...)})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v; want %q", err, tt.want)
				}
				return
			}
			var wrong *CompileError
			if errors.As(err, &wrong) {
				t.Log(wrong.Output)
			}
			if err != nil {
				t.Fatal(err)
			}
			if b.Language != "Rust" || b.Reactor != tt.reactor || bytes.Contains(b.Wasm, []byte(t.TempDir())) {
				t.Errorf("%s, reactor %v", b.Language, b.Reactor)
			}
			if b.Reactor == bytes.Contains(b.Wasm, []byte("\x06_start\x00")) { // an export, of a function
				t.Error("it is of another shape than it is said to be")
			}
		})
	}
}

// TestForget: of what compilers keep, that which was used last is left.
func TestForget(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	first, err := cacheDir("kind", "first")
	if err != nil {
		t.Fatal(err)
	}
	other, err := cacheDir("other", "first")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxKept {
		old := time.Now().Add(-time.Hour)
		if dir, err := cacheDir("kind", "number", strings.Repeat("x", i)); err != nil || os.Chtimes(dir, old, old) != nil {
			t.Fatal(err)
		}
		if _, err := cacheDir("kind", "first"); err != nil { // is in use
			t.Fatal(err)
		}
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(first), "kind-*"))
	if _, err := os.Stat(first); err != nil || len(left) != maxKept {
		t.Errorf("%d are left, %v", len(left), err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// TestCompilers plays a compiler: how it is called, in which environment, and
// one that neither ends nor stops talking.
func TestCompilers(t *testing.T) {
	sh, err := os.Stat("/bin/sh")
	if err != nil || !sh.Mode().IsRegular() {
		t.Fatal("this test needs /bin/sh: ", err)
	}
	cc := func(script string) {
		path := filepath.Join(t.TempDir(), "cc")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("CC", path)
	}
	t.Setenv("A_TOKEN", "secret")
	sdk := write(t, "circles.h", "", "circles.c", "")

	cc(`for a; do o=$a; done; printf '\0asm\1\0\0\0' >"$o"; echo "$@"; env`)
	b, err := Build(t.Context(), Config{Dir: write(t, "-rf.c", "#include <circles.h>\n"), SDK: sdk})
	if err != nil || b.Language != "C" || !b.Reactor {
		t.Fatalf("%+v, %v", b, err)
	}
	for _, want := range []string{"-mexec-model=reactor ./-rf.c -I" + sdk + " " + sdk + "/circles.c -o ", "PATH="} {
		if !strings.Contains(b.Warnings, want) {
			t.Errorf("no %q in %s", want, b.Warnings)
		}
	}
	if strings.Contains(b.Warnings, "secret") {
		t.Error("the compiler got a token that is none of its business")
	}
	b, err = Build(t.Context(), Config{Dir: write(t, "a.c", "int\nmain(void) { return 0; }\n")})
	if err != nil || b.Reactor || strings.Contains(b.Warnings, "circles.c") {
		t.Errorf("a command: %+v, %v", b, err)
	}

	dir := write(t, "a.c", "int main(void) { return 0; }\n")
	cc("echo talk; echo error: cannot open crt1.o >&2; exit 1")
	var wrong *CompileError
	if _, err := Build(t.Context(), Config{Dir: dir}); !errors.As(err, &wrong) || wrong.Output != "talk\nerror: cannot open crt1.o\n" || !strings.Contains(err.Error(), "wasi-libc") {
		t.Errorf("%v", err)
	}
	cc("exit 0")
	if _, err := Build(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "left no module") {
		t.Errorf("%v", err)
	}
	cc("while :; do echo talk; done")
	if _, err := Build(t.Context(), Config{Dir: dir, Timeout: 200 * time.Millisecond}); err == nil || !strings.Contains(err.Error(), "was stopped") {
		t.Errorf("%v", err)
	}
}
