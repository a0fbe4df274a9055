package sdktest_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/modules/build"
	testbuild "github.com/circles-host/circles/testdata/build"
)

// sdks are the SDKs, each with its guest of the suite: committed built, so that
// the tests need no other toolchain than Go's.
var sdks = []struct {
	language string // as package build knows it
	dir      string // of the guest's project
}{
	{"go", "../../testdata/guests/suite"},
	{"rust", "testdata/rust/suite"},
	{"zig", "testdata/zig/suite"},
	{"assemblyscript", "testdata/assemblyscript/suite"},
	{"cpp", "testdata/cpp/suite"}, // and so circles.h, on which circles.hpp is built
}

// TestSuite runs what is committed.
func TestSuite(t *testing.T) {
	for _, s := range sdks {
		t.Run(s.language, func(t *testing.T) {
			if s.language == "go" {
				sdktest.Suite(t, testbuild.Go(t, "testdata/guests/suite", true), true)
				return
			}
			committed(t, s.dir)
			wasm, err := os.ReadFile(s.dir + "/suite.wasm")
			if err != nil {
				t.Fatal(err)
			}
			sdktest.Suite(t, wasm, s.language == "assemblyscript")
		})
	}
}

// TestRebuilt builds each guest of its sources, and runs the suite with what comes
// out. Compilers of other versions make other bytes; the behaviour must be the
// same.
func TestRebuilt(t *testing.T) {
	for _, s := range sdks {
		t.Run(s.language, func(t *testing.T) {
			if s.language == "go" {
				return // TestSuite has just built it
			}
			sdktest.Suite(t, rebuilt(t, s.language, s.dir), s.language == "assemblyscript")
		})
	}
}

// TestJavaScript needs no toolchain: the interpreter is committed built, and the rest
// is done here.
func TestJavaScript(t *testing.T) {
	committed(t, "../js")
	built, err := build.Build(t.Context(), build.Config{Dir: "testdata/js/suite"})
	if err != nil {
		t.Fatal(err)
	}
	sdktest.SuiteOfScript(t, built.Wasm)
}

// TestByHand: the module without an SDK that docs/abi.md shows does what it says
// there. That page is held to the source by the test of the guides.
func TestByHand(t *testing.T) {
	const dir = "testdata/byhand"
	committed(t, dir)
	wasm, err := os.ReadFile(dir + "/byhand.wasm")
	if err != nil {
		t.Fatal(err)
	}
	byHand(t, wasm)
	t.Run("c", func(t *testing.T) { byHand(t, rebuilt(t, "c", dir)) })
}

func byHand(t *testing.T, wasm []byte) {
	h := sdktest.New(t)
	h.Put(t, "caller", "/card.txt", strings.Repeat("Alice ", 20_000)) // more than its first memory holds
	g := h.Load(t, wasm)
	if got := call(t, g, "run", "params"); got != "hello, "+strings.Repeat("Alice ", 20_000) {
		t.Errorf("it returned %d bytes, %.40q", len(got), got)
	}
	var failed sdktest.ErrGuest
	if _, err := sdktest.New(t).Load(t, wasm).Call("run", nil); !errors.As(err, &failed) || failed == "" {
		t.Errorf("without a card: %v", err)
	}
	if g.Handles() != 0 {
		t.Errorf("%d handles are left", g.Handles())
	}
}

// rebuilt builds a project, if it is asked for and can be done.
func rebuilt(t *testing.T, language, dir string) []byte {
	t.Helper()
	l, ok := build.Find(language)
	if !ok {
		t.Fatalf("nobody builds %s", language)
	}
	if !strings.Contains(" "+os.Getenv("CIRCLES_REBUILD")+" ", " "+language+" ") {
		t.Skipf("%s: not built again, since CIRCLES_REBUILD does not name it; .ci/run sdk-%s does", l.Title, language)
	}
	built, err := build.Build(t.Context(), build.Config{Dir: dir})
	if errors.Is(err, build.ErrNoCompiler) {
		t.Skipf("%s: %v", l.Title, err)
	}
	var wrong *build.CompileError
	if errors.As(err, &wrong) {
		t.Fatalf("%v\n%s", err, wrong.Output)
	}
	if err != nil {
		t.Fatal(err)
	}
	if built.Warnings != "" {
		t.Errorf("the compiler warns:\n%s", built.Warnings)
	}
	return built.Wasm
}

// committed looks at whether a guest was built of the sources that are there now.
func committed(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := 0
	for lines := bufio.NewScanner(f); lines.Scan(); files++ {
		want, file, _ := strings.Cut(lines.Text(), "  ")
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != want {
			t.Errorf("%s is not what the guest in %s was built of; run guest-sdk/sdktest/testdata/suites.sh", file, dir)
		}
	}
	if files < 2 {
		t.Fatalf("SHA256SUMS of %s names %d files", dir, files)
	}
}
