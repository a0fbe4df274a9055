// Package project begins a guest project: a folder that builds as it stands, with
// a program, cases that it passes, and the SDK of its language.
//
//	files, err := project.New("greeter", "go", "greeter")
//
// All of it is embedded: neither a network nor a checkout of circles is needed.
// The program does the same in each language, and the cases are the same file.
package project

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	sdk "github.com/circles-host/circles/guest-sdk"
	"github.com/circles-host/circles/modules/build"
)

// The templates have {{name}}, {{language}}, {{source}} and {{sdk}} where New puts
// what they stand for. Files that other tools would take for their own end in .txt.
//
//go:embed templates
var templates embed.FS

// template is how a project in one language begins.
type template struct {
	source string // the program's file
	sdk    string // where the SDK lies in the project; "" for a language whose SDK the build brings
	about  string // the SDK, in a sentence for README
	first  string // what is to be run in the folder before it can be built; "" for nothing
	types  string // what editors want of the SDK, a file that is put beside the program; "" for nothing
}

var known = map[string]template{
	"go":             {source: "main.go", sdk: "vendor/github.com/circles-host/circles/guest-sdk/go", about: "The SDK is in `vendor`, so that it builds without a network; `go doc github.com/circles-host/circles/guest-sdk/go` tells what it offers."},
	"rust":           {source: "src/lib.rs", sdk: "circles-guest", about: "The SDK is in `circles-guest`; `cargo doc --open` tells what it offers."},
	"assemblyscript": {source: "index.ts", sdk: "circles", first: "npm install", about: "The SDK is in `circles`; `npm install` fetches the compiler, once."},
	"ts":             {source: "index.ts", types: "circles.d.ts", about: "The SDK is the module \"circles\", which comes with `circles-host`; `circles.d.ts` tells editors what it offers."},
	"js":             {source: "index.js", types: "circles.d.ts", about: "The SDK is the module \"circles\", which comes with `circles-host`; `circles.d.ts` tells what it offers."},
	"c":              {source: "main.c", about: "The SDK, `circles.h`, comes with `circles-host`; a copy of it in this folder would be used instead."},
	"zig":            {source: "main.zig", about: "The SDK, the package `circles`, comes with `circles-host`."},
	"cpp":            {source: "main.cpp", about: "The SDK, `circles.hpp`, comes with `circles-host`; copies of it and of `circles.h` and `circles.c` in this folder would be used instead."},
}

// First is what a newcomer has to run in a new project's folder before it can be
// built; "" for nothing.
func First(language string) string { return known[language].first }

// Languages are those in which a project can be begun, by the names that
// build.Find knows.
func Languages() []string {
	var names []string
	for _, l := range build.Languages() {
		if _, ok := known[l.Name]; ok {
			names = append(names, l.Name)
		}
	}
	return names
}

// ErrNotEmpty is wrapped by the error about a folder that has something in it.
var ErrNotEmpty = errors.New("it is not empty")

// New writes a project into dir, which must be empty or not there yet. name is
// the module's, as module.ValidName wants it. It returns the files that a
// newcomer should look at, as paths in dir.
func New(dir, language, name string) (files []string, err error) {
	t, ok := known[language]
	l, found := build.Find(language)
	if !ok || !found {
		return nil, fmt.Errorf("new project: there is no template for %q, but for %s", language, strings.Join(Languages(), ", "))
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("new project: %w", err)
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("new project in %s: %w; choose another folder", dir, ErrNotEmpty)
	}
	// Whole or not at all: it is made beside, and renamed.
	whole, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("new project: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(whole), 0o755); err != nil {
		return nil, fmt.Errorf("new project: %w", err)
	}
	made, err := os.MkdirTemp(filepath.Dir(whole), ".new-")
	if err != nil {
		return nil, fmt.Errorf("new project: %w", err)
	}
	defer os.RemoveAll(made)
	words := strings.NewReplacer("{{name}}", name, "{{language}}", l.Title, "{{source}}", t.source, "{{sdk}}", t.about)
	for _, from := range []string{"templates/shared", "templates/" + language} {
		some, err := write(made, from, words)
		if err != nil {
			return nil, fmt.Errorf("new project: %w", err)
		}
		files = append(files, some...)
	}
	if t.types != "" {
		if err := types(made, t.types); err != nil {
			return nil, fmt.Errorf("new project: %w", err)
		}
	}
	if t.sdk != "" {
		if err := bring(made, language, t.sdk); err != nil {
			return nil, fmt.Errorf("new project: %w", err)
		}
	}
	if err := os.Chmod(made, 0o755); err != nil { // MkdirTemp's is for nobody else
		return nil, fmt.Errorf("new project: %w", err)
	}
	if err := os.Remove(whole); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("new project: %w", err)
	}
	if err := os.Rename(made, whole); err != nil {
		return nil, fmt.Errorf("new project: %w", err)
	}
	slices.Sort(files)
	return files, nil
}

// write writes a folder of templates.
func write(to, from string, words *strings.Replacer) (files []string, err error) {
	err = fs.WalkDir(templates, from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := templates.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(path, from+"/"), ".txt")
		if name == "gitignore" {
			name = ".gitignore"
		} else {
			files = append(files, name)
		}
		file := filepath.Join(to, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, []byte(words.Replace(string(text))), 0o644)
	})
	return files, err
}

// types puts a file of JavaScript's SDK into the project.
func types(dir, name string) error {
	files, err := sdk.Of("js")
	if err != nil {
		return err
	}
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), text, 0o644)
}

// bring puts an SDK into the project.
func bring(dir, language, at string) error {
	files, err := sdk.Of(language)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, filepath.FromSlash(at))
	if err := os.CopyFS(to, files); err != nil {
		return err
	}
	if language != "go" {
		return nil
	}
	// https://go.dev/ref/mod#vendoring
	const list = "# github.com/circles-host/circles/guest-sdk/go v0.1.0\n## explicit; go 1.24\ngithub.com/circles-host/circles/guest-sdk/go\n"
	if err := os.Remove(filepath.Join(to, "go.mod")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "vendor", "modules.txt"), []byte(list), 0o644)
}
