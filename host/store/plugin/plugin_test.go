package plugin

import (
	"context"
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/storetest"
)

// example is the example's command, built once; the test binary itself is the
// plugin that misbehaves, when it is started with an argument that says how.
var example string

func TestMain(m *testing.M) {
	if len(os.Args) >= 3 && os.Args[1] == "play" {
		plays[os.Args[2]](os.Args[3:])
		return
	}
	if example = os.Getenv("CIRCLES_TEST_EXAMPLE"); example != "" { // a process of one of these tests
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "circles-plugin-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		example = filepath.Join(dir, "example")
		if out, err := exec.Command("go", "build", "-o", example, "./example").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the example: %v\n%s", err, out)
			return 1
		}
		os.Setenv("CIRCLES_TEST_EXAMPLE", example)
		return m.Run()
	}())
}

// exampleConfig is the example with a store of its own.
func exampleConfig(t *testing.T) Config {
	return Config{Command: example, Settings: map[string]string{"path": filepath.Join(t.TempDir(), "store")}}
}

func mustOpen(t *testing.T, c Config) *Store {
	t.Helper()
	s, err := Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestStore is the suite across the process boundary.
func TestStore(t *testing.T) {
	t.Parallel()
	storetest.RunDurable(t, func(t *testing.T) (store.Store, func() store.Store) {
		c := exampleConfig(t)
		return mustOpen(t, c), func() store.Store { return mustOpen(t, c) }
	})
}

// TestCrash kills hosts; their plugins end with them, wherever they are.
func TestCrash(t *testing.T) {
	t.Parallel()
	storetest.Crash(t, storetest.Crasher{
		Place: func(t *testing.T) string { return t.TempDir() },
		Open: func(place string) ([]store.Store, error) {
			if os.Getenv("CIRCLES_TEST_CRASH") != "" { // a worker, which leaves its directory of sockets
				os.Setenv("TMPDIR", place)
			}
			s, err := Open(context.Background(), Config{Command: example, Settings: map[string]string{"path": filepath.Join(place, "store")}})
			return []store.Store{s}, err
		},
	})
}

// TestGuide builds the plugin that the guide shows, as its reader would: in a
// module of its own. It passes the suite.
func TestGuide(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../../cmd/circles-host/docs/storage-plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(guide), "```go file=vault/main.go\n")
	program, _, found := strings.Cut(after, "```\n")
	if !found {
		t.Fatal("the guide has no plugin")
	}
	formatted, err := format.Source([]byte(program))
	if err != nil || string(formatted) != program {
		t.Errorf("it is not as gofmt writes it: %v", err)
	}
	repository, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(repository, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(repository, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const circles = "github.com/circles-host/circles"
	for name, content := range map[string]string{
		"main.go": program, "go.sum": string(sum),
		"go.mod": strings.Replace(string(mod), "module "+circles, "module example.org/vault", 1) +
			"\nrequire " + circles + " v0.0.0\nreplace " + circles + " => " + repository + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-mod=mod", "-o", "vault", ".")
	build.Dir, build.Env = dir, append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	storetest.Run(t, func(t *testing.T) store.Store {
		return mustOpen(t, Config{Command: filepath.Join(dir, "vault"), Settings: map[string]string{"path": filepath.Join(t.TempDir(), "context")}})
	})
}
