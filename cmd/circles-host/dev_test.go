package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/modules/project"
)

// keyboard is at a command that runs while a test types and reads.
type keyboard struct {
	*testing.T
	in    io.WriteCloser
	mu    sync.Mutex
	said  bytes.Buffer
	read  int // of said
	ended chan int
}

func (s *keyboard) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(b)
}

// await waits for what matches, after what was waited for before.
func (s *keyboard) await(pattern string) {
	s.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		text := s.said.String()[s.read:]
		if at := re.FindStringIndex(text); at != nil {
			s.read += at[1]
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if time.Now().After(end) {
			s.Fatalf("it never said %s, but\n%s", pattern, text)
		}
		select {
		case code := <-s.ended:
			s.Fatalf("it ended with %d and never said %s, but\n%s", code, pattern, text)
		default:
		}
	}
}

func (s *keyboard) line(text string) {
	s.Helper()
	if _, err := io.WriteString(s.in, text+"\n"); err != nil {
		s.Fatal(err)
	}
}

func TestDev(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("GOCACHE", goCache(t))
	dir := filepath.Join(t.TempDir(), "greeter")
	if _, err := project.New(dir, "go", "greeter"); err != nil {
		t.Fatal(err)
	}
	edit := func(name string, pairs ...string) {
		file := filepath.Join(dir, name)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for ; len(pairs) > 0; pairs = pairs[2:] {
			if !bytes.Contains(b, []byte(pairs[0])) {
				t.Fatalf("%s has no %q", file, pairs[0])
			}
			b = bytes.Replace(b, []byte(pairs[0]), []byte(pairs[1]), 1)
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in, keys := io.Pipe()
	s := &keyboard{T: t, in: keys, ended: make(chan int, 1)}
	go func() { s.ended <- run(t.Context(), []string{"circles-host", "dev", dir}, in, s, s) }()

	s.await(`^✓ 3 of 3 cases pass$`)
	s.await(`^  created  /greetings.txt \(14 B\)\n    \+Hello, alice!$`)
	s.await(`^✓ Hello, alice!$`)
	s.await(`^compiled in .*, .* more from save to result$`)

	// A save: the cases tell what is different now, and bob's file is still there.
	edit("main.go", `"Hello"`, `"Hallo"`)
	s.await(`^✗ says Hello when it is given nothing to say  .*cases.toml:\d+$`)
	s.await(`^✗ 2 of 3 cases pass$`)
	s.await(`^  modified  /greetings.txt \(28 B\)\n     Hello, alice!\n    \+Hallo, alice!$`)

	// Another script, and the same again.
	s.line("Good evening")
	s.await(`^✓ Good evening, alice!$`)
	s.line("")
	s.await(`^✓ Good evening, alice!$`)
	s.line("run Servus")
	s.await(`^✓ Servus, alice!$`)

	// A mistake stays on the screen; what was built before goes on to run.
	edit("main.go", "text := ", "text = ")
	s.await(`^\./main.go:\d+:\d+: undefined: text$`)
	s.await(`the version before stays in force$`)
	s.line("")
	s.await(`^✓ Servus, alice!$`)

	// What it may not do says what to write into the manifest.
	edit("main.go", "text = ", "text := ", `Append("/greetings.txt"`, `Append("/diary.txt"`)
	s.await(`^  denied write /diary.txt  no policy`)
	s.await(`(?s)✗ failed: .*/diary\.txt.*manifest.json says what it needs; for once: circles-host policy allow --to bob alice greeter --write /diary\.txt`)
	edit("manifest.json", "/greetings.txt", "/diary.txt")
	s.await(`^  created  /diary.txt `)

	s.line("q")
	if code := <-s.ended; code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "circles-*")); left != nil {
		t.Errorf("%q were left", left)
	}
	if built, _ := filepath.Glob(filepath.Join(dir, "*.wasm")); built != nil {
		t.Errorf("%q were left in the project", built)
	}
}

// goCache is where the compiler of this test keeps things: the caches of the
// command that is tested are elsewhere.
func goCache(t *testing.T) string {
	if dir := os.Getenv("GOCACHE"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(home, ".cache", "go-build")
}

func TestDevOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("GOCACHE", goCache(t))
	dir := filepath.Join(t.TempDir(), "greeter")
	if _, err := project.New(dir, "go", "greeter"); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	dev := func(want int, more ...string) string {
		t.Helper()
		var out strings.Builder
		if code := run(t.Context(), append([]string{"circles-host", "dev", dir, "--once", "--root", root}, more...), strings.NewReader(""), &out, &out); code != want {
			t.Errorf("exit code %d, want %d\n%s", code, want, out.String())
		}
		return out.String()
	}
	dev(exitOK)
	// The root of a time before is gone on with.
	if out := dev(exitOK, "--send", "Ciao"); !strings.Contains(out, " Hello, alice!\n    +Ciao, alice!") {
		t.Errorf("%s", out)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dev(exitFailed)
	var out strings.Builder
	if code := run(t.Context(), []string{"circles-host", "dev", filepath.Join(dir, "main.go")}, nil, &out, &out); code != exitUsage {
		t.Errorf("a file: exit code %d\n%s", code, out.String())
	}
}
