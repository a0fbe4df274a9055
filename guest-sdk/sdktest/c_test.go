package sdktest_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/guest-sdk/sdktest"
)

// loadC starts a guest of testdata/, after a look at whether it was built from the
// sources that are there now.
func loadC(t *testing.T, h *sdktest.Host, name string) *sdktest.Guest {
	t.Helper()
	f, err := os.Open("testdata/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := 0
	for lines := bufio.NewScanner(f); lines.Scan(); files++ {
		want, file, _ := strings.Cut(lines.Text(), "  ")
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != want {
			t.Errorf("%s is not what the C guests were built with; run testdata/build.sh", file)
		}
	}
	if files != 10 {
		t.Fatalf("SHA256SUMS names %d files", files)
	}
	wasm, err := os.ReadFile("testdata/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	return h.Load(t, wasm)
}

func TestC(t *testing.T) {
	h := sdktest.New(t)
	h.Lent = func(path string) bool { return path == "/lent.txt" }
	h.Put(t, "caller", "/lent.txt", "lent by alice")
	h.Put(t, "target", "/dir/file", "abcdefgh")
	h.Put(t, "target", "/dir/sub/x", "")
	g := loadC(t, h, "csdk")
	for _, c := range [][2]string{
		{"read /dir/file", "8 abcdefgh"},
		{"read dir/sub/x", "0 "},
		{"part /dir/file 0", "3 abc"},
		{"part /dir/file 6", "2 gh"},
		{"part /dir/file 8", "0 "},
		{"part /dir/file 18446744073709551615", "0 "},
		{"write /new hello", ""},
		{"append /new  again", ""},
		{"read /new", "11 hello again"},
		{"mkdir /made", ""},
		{"list /", "dir:1 made:1 new:0 "},
		{"list /made", ""},
		{"remove /made", ""},
		{"who x", "did:key:z6MkBob bob"},
		{"Who x", "did:key:z6MkAlice alice"},
		{"Read /lent.txt", "13 lent by alice"},
		{"Read /secret", "code 1, with a message"},
		{"Write /lent.txt x", "code 8, with a message"},
		{"read /none", "code 0, with a message"},
		{"mkdir /dir", "code 2, with a message"},
		{"read /dir/file/x", "code 3, with a message"},
		{"read /dir", "code 4, with a message"},
		{"remove /dir", "code 5, with a message"},
		{"read ../../etc/passwd", "code 6, with a message"},
		{"stat /none", "code 0, with a message"},
		{"list /none", "code 0, with a message"},
		{"ignore /none", ""},
	} {
		if got := call(t, g, "op", c[0]); got != c[1] {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
	info, err := os.Stat(filepath.Join(h.Target.Dir, "dir", "file"))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("kind 0 size 8 modified %d", info.ModTime().UnixMilli())
	if got := call(t, g, "op", "stat /dir/file"); got != want {
		t.Errorf("stat: %q, want %q", got, want)
	}
	var failed sdktest.ErrGuest
	if _, err := g.Call("op", []byte("Read /secret pass on")); !errors.As(err, &failed) || failed != "the caller did not lend /secret" {
		t.Errorf("a host's error passed on: %v", err)
	}
	if _, err := g.Call("op", []byte("dance /")); !errors.As(err, &failed) || failed != "params: no such operation" {
		t.Errorf("an error of the guest's own: %v", err)
	}
	if got := call(t, g, "two-words", ""); got != "" || fmt.Sprint(g.Log) != "[warn: from C]" {
		t.Errorf("two-words: %q, log %v", got, g.Log)
	}
}

func TestCRecords(t *testing.T) {
	h := sdktest.New(t)
	h.Caller.Records = map[string]map[string]string{"cards": {"home": "lent by alice"}}
	h.Seen = func(_, key string) bool { return key != "b" }
	g := loadC(t, h, "csdk")
	for _, c := range [][2]string{
		{"put notes c 3", ""},
		{"put notes a one and one", ""},
		{"put notes b 2", ""},
		{"put notes c", ""},
		{"put notes d/é {}", ""},
		{"get notes a", "11 one and one"},
		{"get notes c", "0 "},
		{"get notes b", "code 1, with a message"},
		{"get notes z", "code 0, with a message"},
		{"get NOTES a", "code 6, with a message"},
		{"list notes - - 0", "a=one and one b=(denied) c= d/é={} next:"},
		{"list notes - - 2", "a=one and one b=(denied) next:c"},
		{"list notes c - 2", "c= d/é={} next:"},
		{"list notes - d/ 9", "d/é={} next:"},
		{"list none - - 9", "next:"},
		{"delete notes a", ""},
		{"delete notes a", "code 0, with a message"},
		{"list notes - a 9", "next:"},
		{"Get cards home", "13 lent by alice"},
		{"List cards - - 9", "home=lent by alice next:"},
		{"Put cards home x", "code 8, with a message"},
		{"Delete cards home", "code 8, with a message"},
	} {
		if got := call(t, g, "record", c[0]); got != c[1] {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
	if g.Handles() != 0 {
		t.Errorf("%d handles are left", g.Handles())
	}
}

// TestNotes: the module of the guides does what they say.
func TestNotes(t *testing.T) {
	h := sdktest.New(t)
	h.Caller.Records = map[string]map[string]string{"cards": {"home": "Alice, Oxford"}}
	h.Seen = func(_, key string) bool { return key != "secret" }
	g := loadC(t, h, "notes")
	for _, c := range [][3]string{
		{"put", "b {\"n\":1}", ""},
		{"put", "a/1 one", ""},
		{"put", "a/2 two and two", ""},
		{"put", "secret x", ""},
		{"get", "b", `{"n":1}`},
		{"all", "", "a/1: one\na/2: two and two\nb: {\"n\":1}\nsecret: (not to be seen)\n"},
		{"all", "a/", "a/1: one\na/2: two and two\n"},
		{"drop", "a/1", ""},
		{"all", "a/", "a/2: two and two\n"},
		{"card", "", "Alice, Oxford"},
		{"get", "did:key:z6MkAlice", "Alice, Oxford"},
	} {
		if got := call(t, g, c[0], c[1]); got != c[2] {
			t.Errorf("%s %q: %q, want %q", c[0], c[1], got, c[2])
		}
	}
	var failed sdktest.ErrGuest
	if _, err := g.Call("get", []byte("a/1")); !errors.As(err, &failed) {
		t.Errorf("get of what is gone: %v", err)
	}
}

// TestCNoLeaks: 20,000 calls leave no handle with the host, and memory does not
// grow.
func TestCNoLeaks(t *testing.T) {
	h := sdktest.New(t)
	h.Put(t, "caller", "/card", "card")
	h.Put(t, "target", "/a/b", "")
	h.Target.Records = map[string]map[string]string{"notes": {"a": "one", "b": "two"}}
	g := loadC(t, h, "csdk")
	size := uint32(0)
	for i := range 20_000 {
		for _, op := range []string{"Read /card", "Read /none", "list /a", "ignore /none", "who x", "stat /a"}[i%6:][:1] {
			call(t, g, "op", op)
		}
		for _, op := range []string{"get notes a", "get notes none", "list notes - - 0", "put notes a 1", "list notes - x 0"}[i%5:][:1] {
			call(t, g, "record", op)
		}
		if g.Handles() != 0 {
			t.Fatalf("call %d left %d handles", i, g.Handles())
		}
		if i == 100 {
			size = g.Module.Memory().Size()
		}
	}
	if got := g.Module.Memory().Size(); got > size {
		t.Errorf("memory grew from %d to %d bytes", size, got)
	}
}

// TestCOutOfMemoryTraps: cabi_realloc must not hand the host a null pointer.
func TestCOutOfMemoryTraps(t *testing.T) {
	g := loadC(t, sdktest.New(t), "csdk")
	for _, size := range []uint64{0xFFFFFFFF, 0xFFFFFFFE, 0xFFFF0000} {
		if r, err := g.Module.ExportedFunction("cabi_realloc").Call(t.Context(), 0, 0, 1, size); err == nil {
			t.Errorf("cabi_realloc of %d bytes returned %#x", size, r)
		}
	}
	if r, err := g.Module.ExportedFunction("cabi_realloc").Call(t.Context(), 0, 0, 64, 8); err == nil {
		t.Errorf("cabi_realloc aligned to 64 returned %#x", r)
	}
}
