package sdktest_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/testdata/build"
)

// load starts the guest that testdata/guests/sdk has for these tests.
func load(t *testing.T, h *sdktest.Host) *sdktest.Guest {
	t.Helper()
	return h.Load(t, build.Go(t, "testdata/guests/sdk", true))
}

func call(t *testing.T, g *sdktest.Guest, entry, params string) string {
	t.Helper()
	b, err := g.Call(entry, []byte(params))
	if err != nil {
		t.Fatalf("%s(%.80q): %v", entry, params, err)
	}
	return string(b)
}

func TestGoEntries(t *testing.T) {
	g := load(t, sdktest.New(t))
	for _, params := range []string{"", "x", strings.Repeat("long ", 1<<18)} {
		if got := call(t, g, "run", params); got != params {
			t.Errorf("run echoed %d bytes of %d", len(got), len(params))
		}
	}
	if got := call(t, g, "greet", `{"name": "bob", "times": 2}`); got != `{"text":"hello, bob hello, bob "}` {
		t.Errorf("greet: %s", got)
	}
	if got := call(t, g, "greet", " "); got != `{"text":""}` {
		t.Errorf("greet without params: %s", got)
	}
	if got := call(t, g, "fail", "empty"); got != "" {
		t.Errorf("empty result: %q", got)
	}
	if got := call(t, g, "who", ""); got != "alice did:key:z6MkAlice, bob did:key:z6MkBob" {
		t.Errorf("who: %s", got)
	}
}

func TestGoErrorsFailTheEntry(t *testing.T) {
	g := load(t, sdktest.New(t))
	for _, c := range []struct{ entry, params, want string }{
		{"fail", "no pen", "no pen"},
		{"fail", "panic", "panic: boom"},
		{"fail", "index", "panic: runtime error: slice bounds out of range"},
		{"fail", "not utf-8", "bad \uFFFD byte"},
		{"greet", `{"times": 4}`, "greet : 4 times is too often"},
		{"greet", `{"time": 4}`, `params: unknown field "time"`},
		{"greet", `{"times": "x"}`, "params: cannot unmarshal string into Go struct field greeting.times of type int"},
		{"greet", `{} {}`, "params: more than one JSON value"},
		{"greet", `{"name"`, "params: unexpected EOF"},
		{"read", "/none", "read /none: "},
	} {
		_, err := g.Call(c.entry, []byte(c.params))
		var failed sdktest.ErrGuest
		if !errors.As(err, &failed) || !strings.HasPrefix(string(failed), c.want) {
			t.Errorf("%s(%q): %v, want %q", c.entry, c.params, err, c.want)
		}
	}
	if !strings.Contains(g.Stderr.String(), "main.fail") {
		t.Errorf("the panic's stack is not on stderr:\n%s", g.Stderr.String())
	}
	if got := call(t, g, "run", "still there"); got != "still there" {
		t.Errorf("after the failures: %q", got)
	}
	if _, err := g.Call("fail", []byte("exit")); err == nil || errors.As(err, new(sdktest.ErrGuest)) {
		t.Errorf("os.Exit: %v", err)
	}
}

func TestGoErrorCodes(t *testing.T) {
	h := sdktest.New(t)
	h.Lent = func(path string) bool { return path == "/lent.txt" }
	h.Put(t, "caller", "/lent.txt", "x")
	h.Put(t, "target", "/dir/file", "x")
	g := load(t, h)
	for _, c := range [][2]string{
		{"read /dir/file", "ok"},
		{"stat /dir/file", "ok"},
		{"list /dir", "ok"},
		{"write /dir/new", "ok"},
		{"append /dir/new", "ok"},
		{"mkdir /dir/sub", "ok"},
		{"remove /dir/sub", "ok"},
		{"steal /lent.txt", "ok"},
		{"read /none", "not found ErrNotExist"},
		{"stat /none", "not found ErrNotExist"},
		{"list /none", "not found ErrNotExist"},
		{"write /none/file", "not found ErrNotExist"},
		{"remove /none", "not found ErrNotExist"},
		{"read ../x", "invalid ErrInvalid"},
		{"write /dir/\xff", "invalid ErrInvalid"},
		{"mkdir /dir", "exists ErrExist"},
		{"remove /dir", "not empty ErrExist"},
		{"read /dir/file/x", "not a directory"},
		{"read /dir", "is a directory"},
		{"steal /secret.txt", "denied ErrPermission"},
		{"deface /lent.txt", "read-only ErrPermission"},
	} {
		if got := call(t, g, "classify", c[0]); got != c[1] {
			t.Errorf("%q: %s, want %s", c[0], got, c[1])
		}
	}
	if got := h.Get(t, "target", "/dir/new"); got != "xx" {
		t.Errorf("written and appended: %q", got)
	}
}

func TestGoFS(t *testing.T) {
	h := sdktest.New(t)
	for path, data := range map[string]string{
		"/a.txt": "alpha", "/empty": "", "/dir/b.txt": "beta", "/dir/sub/c.txt": strings.Repeat("gamma", 1000),
	} {
		h.Put(t, "target", path, data)
	}
	g := load(t, h)
	call(t, g, "testfs", "a.txt empty dir/b.txt dir/sub/c.txt")

	big := make([]byte, 1_234_567)
	for i := range big {
		big[i] = byte(i)
	}
	h.Put(t, "target", "/big", string(big))
	if got := call(t, g, "stream", "big"); got != "1234567 bytes in 1235 parts" {
		t.Errorf("stream: %s", got)
	}
}

func TestGoLog(t *testing.T) {
	g := load(t, sdktest.New(t))
	call(t, g, "log", "")
	want := "[debug: plain \uFFFD info: signed the book who=alice entry=3 error: failed who=alice g.why=\"no pen\"]"
	if got := fmt.Sprint(g.Log); got != want {
		t.Errorf("log %s, want %s", got, want)
	}
}

// TestGoStackMovesUnderHostCall: with return areas on the stack (//go:noescape),
// the host wrote to where the stack had been before cabi_realloc shrank it, and
// 200 of 200 results were corrupt.
func TestGoStackMovesUnderHostCall(t *testing.T) {
	h := sdktest.New(t)
	h.Put(t, "caller", "/hello.txt", "hello from the host")
	g := load(t, h)
	h.Disturb = collect(t)
	if got := call(t, g, "deep", "/hello.txt"); got != "0 bad" {
		t.Error(got)
	}
}

// TestGoBlocksStayReachable: the collector must not free what cabi_realloc handed
// out before the guest has lifted it, though only the host has its address.
func TestGoBlocksStayReachable(t *testing.T) {
	h := sdktest.New(t)
	for i := range 300 {
		h.Put(t, "target", fmt.Sprintf("/file-%03d-%s", i, strings.Repeat("x", i%40)), "")
	}
	g := load(t, h)
	h.Disturb = collect(t)
	if got := call(t, g, "names", ""); got != "300 names" {
		t.Error(got)
	}
	params := strings.Repeat("params too ", 10)
	if got := call(t, g, "run", params); got != params {
		t.Errorf("run echoed %q", got)
	}
}

// collect has the guest collect garbage and overwrite what was freed.
func collect(t *testing.T) func(*sdktest.Guest) {
	return func(g *sdktest.Guest) {
		if _, err := g.Module.ExportedFunction("collect").Call(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestGoReadsTheClockInRealloc: a collection that starts in cabi_realloc asks for
// the time, so WASI must be there while a host function is under way. A host that
// forbids calls while it lowers a value breaks every Go guest.
func TestGoReadsTheClockInRealloc(t *testing.T) {
	g := load(t, sdktest.New(t))
	for range 20 {
		call(t, g, "run", strings.Repeat("x", 4<<20))
	}
	if g.ClockReads == 0 {
		t.Errorf("no clock was read in %d calls of cabi_realloc; the test no longer shows what it should", g.Reallocs)
	}
}

// TestGoReallocBeforeRuntime: made into a component, a guest's cabi_realloc is
// called by the adapter inside the first WASI call of the starting runtime.
func TestGoReallocBeforeRuntime(t *testing.T) {
	h := sdktest.New(t)
	var blocks []uint32
	h.DuringInit = func(m api.Module) {
		if len(blocks) > 0 {
			return
		}
		for _, size := range []uint64{64 << 10, 3, 64 << 10} {
			r, err := m.ExportedFunction("cabi_realloc").Call(t.Context(), 0, 0, 8, size)
			if err != nil {
				t.Fatalf("cabi_realloc of %d bytes: %v", size, err)
			}
			blocks = append(blocks, uint32(r[0]))
			fill := []byte(strings.Repeat(string(rune('a'+len(blocks))), int(size)))
			if uint32(r[0])%8 != 0 || !m.Memory().Write(uint32(r[0]), fill) {
				t.Fatalf("block of %d bytes at %#x", size, r[0])
			}
		}
	}
	g := load(t, h)
	if len(blocks) != 3 {
		t.Fatalf("%d blocks", len(blocks))
	}
	for range 20 {
		call(t, g, "run", strings.Repeat("x", 1<<20))
	}
	for i, size := range []uint32{64 << 10, 3, 64 << 10} {
		b, _ := g.Module.Memory().Read(blocks[i], size)
		if want := strings.Repeat(string(rune('b'+i)), int(size)); string(b) != want {
			t.Errorf("block %d was overwritten", i)
		}
	}
}

// TestGoReallocBeforeRuntimeOverrun: what does not fit into the room that there is
// before the runtime is up must end the instance, not run over its data.
func TestGoReallocBeforeRuntimeOverrun(t *testing.T) {
	for _, size := range []uint64{161 << 10, 1 << 31, 0xFFFFFFFF, 0xFFFFFFF8} {
		h := sdktest.New(t)
		called := false
		h.DuringInit = func(m api.Module) {
			if called {
				return
			}
			called = true
			if r, err := m.ExportedFunction("cabi_realloc").Call(t.Context(), 0, 0, 8, size); err == nil {
				t.Errorf("cabi_realloc of %d bytes before the runtime is up returned %#x", size, r)
			}
		}
		_, _ = h.Command(t, build.Go(t, "testdata/guests/sdkcommand", false), sdktest.Options{})
		if !called {
			t.Fatal("the runtime did not ask for its arguments")
		}
	}
}

// TestGoNoLeaks: 20,000 calls leave no handle with the host and no block pinned.
func TestGoNoLeaks(t *testing.T) {
	h := sdktest.New(t)
	h.Put(t, "caller", "/hello.txt", "hello from the host")
	g := load(t, h)
	heap := func() int {
		n, err := strconv.Atoi(call(t, g, "heap", ""))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 100 {
		call(t, g, "read", "/hello.txt")
	}
	before := heap()
	for i := range 20_000 {
		call(t, g, []string{"read", "who", "run"}[i%3], "/hello.txt")
		if g.Handles() != 0 {
			t.Fatalf("call %d left %d handles", i, g.Handles())
		}
	}
	if after := heap(); after > before+64<<10 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

// TestGoGoroutinesTakeTurns: goroutines may use the host at the same time.
func TestGoGoroutinesTakeTurns(t *testing.T) {
	h := sdktest.New(t)
	h.Put(t, "caller", "/hello.txt", "hello from the host")
	g := load(t, h)
	h.Disturb = collect(t)
	call(t, g, "race", "/hello.txt")
}

// exitCode is what a command ended with.
func exitCode(t *testing.T, err error) uint32 {
	t.Helper()
	var exit *sys.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err == nil {
		return 0
	}
	return exit.ExitCode()
}

func TestGoCommand(t *testing.T) {
	h := sdktest.New(t)
	h.Put(t, "caller", "/card.txt", "a card")
	g, err := h.Command(t, build.Go(t, "testdata/guests/sdkcommand", false), sdktest.Options{Stdin: "/card.txt"})
	if code := exitCode(t, err); code != 0 || g.Stdout.String() != "alice brought a card to bob" {
		t.Errorf("exit %d, %q, %s", code, g.Stdout.String(), g.Stderr.String())
	}
	g, err = h.Command(t, build.Go(t, "testdata/guests/sdkcommand", false), sdktest.Options{Stdin: "/none"})
	if code := exitCode(t, err); code != 1 || !strings.HasPrefix(g.Stderr.String(), "read /none: ") {
		t.Errorf("exit %d, %s", code, g.Stderr.String())
	}
}

func TestGoRecords(t *testing.T) {
	h := sdktest.New(t)
	h.Caller.Records = map[string]map[string]string{"cards": {"home": "lent by alice"}}
	h.Seen = func(_, key string) bool { return key != "b" }
	g := load(t, h)
	for _, c := range [][2]string{
		{"put notes c 3", ""},
		{"put notes a 1", ""},
		{"put notes b 2", ""},
		{"put notes c -", ""},
		{"put notes d/é {}", ""},
		{"get notes a", "1"},
		{"get notes c", ""},
		{"get notes b", "denied get notes/b"},
		{"get notes z", "not found get notes/z"},
		{"get NOTES a", "invalid get NOTES/a"},
		{"get notes \xff", "invalid get notes/\xff"},
		{"page notes - - 0", "a=1:false b=:true c=:false d/é={}:false "},
		{"page notes - - 2", "a=1:false b=:true c"},
		{"page notes c - 2", "c=:false d/é={}:false "},
		{"page notes - d/ 9", "d/é={}:false "},
		{"page notes \xff - 9", "invalid list notes"},
		{"page none - - 9", ""},
		{"delete notes a", ""},
		{"delete notes a", "not found delete notes/a"},
		{"GET cards home", "lent by alice"},
		{"ALL cards -", "home=lent by alice "},
		{"PUT cards home x", "read-only put cards/home"},
		{"DELETE cards home", "read-only delete cards/home"},
		{"all NOTES -", "invalid list NOTES"},
	} {
		if got := call(t, g, "records", c[0]); got != c[1] {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
	if fmt.Sprint(h.Target.Records["notes"]) != "map[b:2 c: d/é:{}]" {
		t.Errorf("what is left: %v", h.Target.Records)
	}
}

// Several pages, with the collector at work whenever the host allocates: no key or
// value may be another's, or garbage.
func TestGoRecordsUnderCollection(t *testing.T) {
	h := sdktest.New(t)
	notes, want := map[string]string{}, ""
	for i := range 25 {
		key, value := fmt.Sprintf("%02d-%s", i, strings.Repeat("k", i*7%30)), strings.Repeat(strconv.Itoa(i), 1+i*i)
		notes[key] = value
		want += key + "=" + value + " "
	}
	h.Target.Records = map[string]map[string]string{"notes": notes}
	g := load(t, h)
	h.Disturb = collect(t)
	if got := call(t, g, "records", "all notes -"); got != want {
		t.Errorf("got %.200q, want %.200q", got, want)
	}
}
