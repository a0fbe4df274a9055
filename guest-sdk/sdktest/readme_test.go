package sdktest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/testdata/build"
)

// TestReadme holds that the modules in guest-sdk/README.md are those that are
// built and run here, and that the package comment of the Go SDK shows the same.
func TestReadme(t *testing.T) {
	read := func(file string) string {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	readme := read("../README.md")
	greet := read("../../testdata/guests/greet/main.go")
	if !strings.Contains(readme, "```go\n"+greet+"```\n") {
		t.Error("the Go module in README.md is not testdata/guests/greet/main.go")
	}
	if !strings.Contains(readme, "```c\n"+read("testdata/greet.c")+"```\n") {
		t.Error("the C module in README.md is not testdata/greet.c")
	}
	comment := ""
	for line := range strings.Lines(greet) {
		comment += strings.TrimRight("//\t"+strings.TrimSuffix(line, "\n"), "\t") + "\n"
	}
	if !strings.Contains(read("../go/circles.go"), comment) {
		t.Error("the module in the package comment of guest-sdk/go is not the one in README.md")
	}

	h := sdktest.New(t)
	h.Put(t, "caller", "/card.txt", "Alice Liddell")
	if got := call(t, h.Load(t, build.Go(t, "testdata/guests/greet", true)), "run", ""); got != "hello, Alice Liddell" {
		t.Errorf("Go: %q", got)
	}
	if got := call(t, loadC(t, h, "greet"), "run", ""); got != "Alice Liddell" {
		t.Errorf("C: %q", got)
	}
}
