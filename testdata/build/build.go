// Package build compiles guests for tests, each at most once in a process.
//
//	wasm := build.Go(t, "testdata/guests/hello", false)
//
// It needs nothing but the Go toolchain that runs the tests, and no network:
// guests import the standard library and guest-sdk/go only.
package build

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Go builds the Go program in dir, a folder of this repository given relative
// to its root, for GOOS=wasip1 GOARCH=wasm, and returns the module: a reactor
// (-buildmode=c-shared) or a command. A guest that does not build fails t.
// The bytes are shared: a caller that changes them works on a copy.
func Go(t testing.TB, dir string, reactor bool) []byte {
	t.Helper()
	key := guest{dir, reactor}
	once, _ := built.LoadOrStore(key, sync.OnceValues(key.build))
	wasm, err := once.(func() ([]byte, error))()
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// Root returns the root folder of this repository.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

type guest struct {
	dir     string
	reactor bool
}

// built holds, for each guest, the function that builds it when first called.
var built sync.Map

func (g guest) build() ([]byte, error) {
	top, err := root()
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "circles-guest-")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", g.dir, err)
	}
	defer os.RemoveAll(tmp)

	if err := witness(top, g.dir, "guest-sdk/go"); err != nil {
		return nil, fmt.Errorf("build %s: %w", g.dir, err)
	}

	out := filepath.Join(tmp, "guest.wasm")
	args := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", out}
	if g.reactor {
		args = append(args, "-buildmode=c-shared")
	}
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Dir = filepath.Join(top, filepath.FromSlash(g.dir))
	// GOFLAGS and GOWORK of whoever runs the tests must not change what is built.
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off", "GOWASM=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s for wasip1: %w\n%s", g.dir, err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", g.dir, err)
	}
	return wasm, nil
}

// witness opens the sources in these folders. The go command remembers which files
// a test opened, and reuses the test's result until one changes; it cannot know
// what the compiler that we start reads.
func witness(top string, dirs ...string) error {
	for _, dir := range dirs {
		files, err := os.ReadDir(filepath.Join(top, filepath.FromSlash(dir)))
		if err != nil {
			return err
		}
		for _, f := range files {
			if f.IsDir() {
				continue
			}
			file, err := os.Open(filepath.Join(top, filepath.FromSlash(dir), f.Name()))
			if err != nil {
				return err
			}
			file.Close()
		}
	}
	return nil
}

// root finds the folder with this module's go.mod above the working directory,
// which the go command sets to the folder of the package under test.
func root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find repository: %w", err)
	}
	for dir := start; ; {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/circles-host/circles\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("find repository: %s is not below the module github.com/circles-host/circles; run the test from its checkout", start)
		}
		dir = up
	}
}
