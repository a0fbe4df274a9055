package rewrite

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// specSuites are the folders of the specification's own tests, as they lie in
// wazero's source, that this package must understand in full.

var specSuites = []string{"v2", "tail-call", "extended-const"}

// wazeroDir is where the source of wazero lies: a dependency of this module,
// and so at hand wherever it builds.
var wazeroDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	return strings.TrimSpace(string(out)), err
})

func specDir(t testing.TB, suite string) string {
	dir, err := wazeroDir()
	if err != nil {
		t.Fatalf("find wazero's source: %v", err)
	}
	return filepath.Join(dir, "internal", "integration_test", "spectest", suite, "testdata")
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no files match %s (%v)", pattern, err)
	}
	return names
}

// goGuests are the test guests in Go, built at test time.
var goGuests = map[string][]string{
	"command": nil,
	"reactor": {"-buildmode=c-shared"},
	"parser":  {"-buildmode=c-shared"},
}

var builds sync.Map // name -> func() ([]byte, error)

// scaled is how many of n cases to run: under the race detector, which has
// nothing to find here and slows compilers down tenfold, an eighth.
func scaled(n int) int {
	if raceDetector {
		return (n + 7) / 8
	}
	return n
}

func goGuest(t testing.TB, name string) []byte {
	t.Helper()
	f, _ := builds.LoadOrStore(name, sync.OnceValues(func() ([]byte, error) {
		dir, err := os.MkdirTemp("", "rewrite-test")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		out := filepath.Join(dir, "guest.wasm")
		cmd := exec.Command("go", append(append([]string{"build", "-o", out}, goGuests[name]...), ".")...)
		cmd.Dir = filepath.Join("testdata", name)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return nil, errors.New("build guest " + name + ": " + err.Error() + "\n" + string(msg))
		}
		return os.ReadFile(out)
	}))
	wasm, err := f.(func() ([]byte, error))()
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func checkIdentity(t *testing.T, name string, wasm []byte) {
	t.Helper()
	m, err := Decode(wasm)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if !bytes.Equal(m.Encode(), wasm) {
		t.Errorf("%s: encoded differently", name)
	}
	b, err := (&edit{m: m}).encode()
	if err != nil {
		t.Errorf("%s: %v", name, err)
	} else if _, err := Decode(b); err != nil {
		t.Errorf("%s: after an empty edit: %v", name, err)
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
