package sdktest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Suite holds an SDK's guest to what every SDK must do. The guest is a reactor
// with these entries:
//
//	run         returns its params
//	op          "OP PATH [TEXT]", on the target, or the caller when OP is in capitals:
//	            read, part (three bytes from the offset TEXT), write, append, mkdir,
//	            remove, stat, list, who. An error is "code N, with a message", or fails
//	            the entry when TEXT is "pass on"
//	record      "get|put|delete|make COLLECTION KEY [VALUE]", where make replaces
//	            nothing, "replace COLLECTION KEY EXPECTED VALUE", "list COLLECTION START
//	            PREFIX LIMIT" or "query COLLECTION START LIMIT QUERY", where "-" is
//	            nothing. An error is "code N, with a message", and has "; PATH: REASON" for
//	            each violation
//	others      "call NAME - ENTRY PARAMS", "base - - ENTRY PARAMS", "send TO LOGIC ENTRY
//	            PARAMS", or "entry"; otherwise as op
//	log-lines   logs its params at each level
//	fail        fails with its params, or traps or fails when they are "trap"
//	large       writes N parts of 16 MiB to /large, reads them again, says how many
//	            bytes there are
//	habits      does with files and records what its language's users do
//	queries     puts {"n": 0} to {"n": 24} into the collection found, as 00 to 24, and
//	            finds some of them as its language's users do
//	raw         calls a host function with numbers, without the SDK: "read SELF PATH LEN
//	            RET", "list …", "drop SELF", "log LEVEL PTR LEN", "open TIMES"
//
// collected says that the language has a garbage collector, which lets memory grow
// by a few MiB for reasons of its own.
//
// The guest need not be built for this host: it is run on circles' own, too.
func Suite(t *testing.T, wasm []byte, collected bool) {
	t.Run("cases", func(t *testing.T) { suiteCases(t, wasm) })
	t.Run("others", func(t *testing.T) { suiteOthers(t, wasm) })
	t.Run("stat", func(t *testing.T) { suiteStat(t, wasm) })
	t.Run("log", func(t *testing.T) { suiteLog(t, wasm) })
	t.Run("failures", func(t *testing.T) { suiteFailures(t, wasm) })
	t.Run("habits", func(t *testing.T) { suiteHabits(t, wasm) })
	t.Run("large", func(t *testing.T) { suiteLarge(t, wasm) })
	t.Run("nested", func(t *testing.T) { suiteNested(t, wasm) })
	t.Run("leaks", func(t *testing.T) { suiteLeaks(t, wasm, collected) })
	t.Run("memory", func(t *testing.T) { suiteMemory(t, wasm) })
	t.Run("hostile", func(t *testing.T) { suiteHostile(t, wasm) })
}

// SuiteOfScript is Suite for a language whose guests are scripts in an interpreter: it
// gives them no numbers to call the host with, so raw does what they can do in its
// place, and returns "true".
func SuiteOfScript(t *testing.T, wasm []byte) {
	t.Run("cases", func(t *testing.T) { suiteCases(t, wasm) })
	t.Run("others", func(t *testing.T) { suiteOthers(t, wasm) })
	t.Run("stat", func(t *testing.T) { suiteStat(t, wasm) })
	t.Run("log", func(t *testing.T) { suiteLog(t, wasm) })
	t.Run("failures", func(t *testing.T) { suiteFailures(t, wasm) })
	t.Run("habits", func(t *testing.T) { suiteHabits(t, wasm) })
	t.Run("large", func(t *testing.T) { suiteLarge(t, wasm) })
	t.Run("nested", func(t *testing.T) { suiteNested(t, wasm) })
	t.Run("leaks", func(t *testing.T) { suiteLeaks(t, wasm, true) })
	t.Run("memory", func(t *testing.T) { suiteMemory(t, wasm) })
	t.Run("hostile", func(t *testing.T) {
		if got := suiteCall(t, suiteHost(t).Load(t, wasm), "raw", ""); got != "true" {
			t.Error(got)
		}
	})
}

// Case is a call, and what it must return.
type Case struct{ Entry, Params, Want string }

// Cases are calls in the order in which they are to be made, in contexts that
// Begin made: every host function, and every error that this host has.
var Cases = []Case{
	{"run", "", ""},
	{"run", "x\x00\xff", "x\x00\xff"},
	{"op", "read /dir/file", "8 abcdefgh"},
	{"op", "read dir/sub/x", "0 "},
	{"op", "part /dir/file 0", "3 abc"},
	{"op", "part /dir/file 6", "2 gh"},
	{"op", "part /dir/file 8", "0 "},
	{"op", "part /dir/file 18446744073709551615", "0 "},
	{"op", "write /new hello", ""},
	{"op", "append /new  again", ""},
	{"op", "read /new", "11 hello again"},
	{"op", "write /né é", ""},
	{"op", "read /né", "2 é"},
	{"op", "remove /né", ""},
	{"op", "mkdir /made", ""},
	{"op", "list /", "dir:1 made:1 new:0 "},
	{"op", "list /made", ""},
	{"op", "remove /made", ""},
	{"op", "Read /lent.txt", "13 lent by alice"},
	{"op", "Read /secret", "code 1, with a message"},
	{"op", "Write /lent.txt x", "code 8, with a message"},
	{"op", "read /none", "code 0, with a message"},
	{"op", "mkdir /dir", "code 2, with a message"},
	{"op", "read /dir/file/x", "code 3, with a message"},
	{"op", "read /dir", "code 4, with a message"},
	{"op", "remove /dir", "code 5, with a message"},
	{"op", "read ../../etc/passwd", "code 6, with a message"},
	{"op", "stat /none", "code 0, with a message"},
	{"op", "list /none", "code 0, with a message"},
	{"record", "put notes c 3", ""},
	{"record", "put notes a one and one", ""},
	{"record", "put notes b 2", ""},
	{"record", "put notes c", ""},
	{"record", "put notes d/é {}", ""},
	{"record", "get notes a", "11 one and one"},
	{"record", "get notes c", "0 "},
	{"record", "get notes b", "code 1, with a message"},
	{"record", "get notes z", "code 0, with a message"},
	{"record", "get NOTES a", "code 6, with a message"},
	{"record", "list notes - - 0", "a=one and one b=(denied) c= d/é={} next:"},
	{"record", "list notes - - 2", "a=one and one b=(denied) next:c"},
	{"record", "list notes c - 2", "c= d/é={} next:"},
	{"record", "list notes - d/ 9", "d/é={} next:"},
	{"record", "list none - - 9", "next:"},
	{"record", "delete notes a", ""},
	{"record", "delete notes a", "code 0, with a message"},
	{"record", "list notes - a 9", "next:"},
	{"record", "Get cards home", "13 lent by alice"},
	{"record", "List cards - - 9", "home=lent by alice next:"},
	{"record", "Put cards home x", "code 8, with a message"},
	{"record", "Delete cards home", "code 8, with a message"},
	{"record", "make notes a one", ""},
	{"record", "make notes a two", "code 11, with a message"},
	{"record", "replace notes a two three", "code 11, with a message"},
	{"record", "replace notes z two three", "code 11, with a message"},
	{"record", "get notes a", "3 one"},
	{"record", "replace notes a one two", ""},
	{"record", "replace notes a two ", ""},
	{"record", "replace notes a  three", ""},
	{"record", "get notes a", "5 three"},
	{"record", "Replace cards home lent x", "code 8, with a message"},
	{"record", "Make cards home x", "code 8, with a message"},
}

func suiteHost(t *testing.T) *Host {
	t.Helper()
	h := New(t)
	h.Lent = func(path string) bool { return path == "/lent.txt" }
	h.Seen = func(_, key string) bool { return key != "b" }
	h.Put(t, "caller", "/lent.txt", "lent by alice")
	h.Put(t, "target", "/dir/file", "abcdefgh")
	h.Put(t, "target", "/dir/sub/x", "")
	h.Caller.Records = map[string]map[string]string{"cards": {"home": "lent by alice"}}
	return h
}

func suiteCall(t *testing.T, g *Guest, entry, params string) string {
	t.Helper()
	b, err := g.Call(entry, []byte(params))
	if err != nil {
		t.Fatalf("%s(%.80q): %v", entry, params, err)
	}
	if g.Handles() != 0 {
		t.Errorf("%s(%.80q) left %d handles", entry, params, g.Handles())
	}
	return string(b)
}

func suiteCases(t *testing.T, wasm []byte) {
	g := suiteHost(t).Load(t, wasm)
	for _, c := range append([]Case{
		{"op", "who x", "did:key:z6MkBob bob"},
		{"op", "Who x", "did:key:z6MkAlice alice"},
	}, Cases...) {
		if got := suiteCall(t, g, c.Entry, c.Params); got != c.Want {
			t.Errorf("%s %q: %q, want %q", c.Entry, c.Params, got, c.Want)
		}
	}
}

// Trees are the records of the collection trees of the target, and Queries calls that
// find some of them. The value of b is not to be seen.
var (
	Trees = map[string]string{
		"a": `{"kind":"oak","metres":20}`,
		"b": `{"kind":"oak"}`,
		"c": `{"kind":"elm","metres":30}`,
		"d": `{"kind":"oak","metres":25,"at":{"x":1}}`,
		"e": `no JSON`,
	}
	Queries = []Case{
		{"record", `query trees - 9 {"where":{"field":"/kind","equals":"oak"}}`, `a={"kind":"oak","metres":20} d={"kind":"oak","metres":25,"at":{"x":1}} next:`},
		{"record", `query trees - 9 {"where":{"and":[{"field":"/kind","prefix":"o"},{"field":"/metres","above":20}]}}`, `d={"kind":"oak","metres":25,"at":{"x":1}} next:`},
		{"record", `query trees - 9 {"where":{"or":[{"field":"/at/x","equals":1},{"field":"/metres","from":20,"below":25}]},"order":[{"field":"/metres","descending":true}]}`,
			`d={"kind":"oak","metres":25,"at":{"x":1}} a={"kind":"oak","metres":20} next:`},
		{"record", `query trees - 9 {"order":[{"field":"","descending":true}],"limit":2}`, `e=no JSON d={"kind":"oak","metres":25,"at":{"x":1}} next:`},
		{"record", `query trees - 9 {"where":{"field":"/at/y","equals":null}}`, `next:`},
		{"record", `query trees - 9 {"limit":1}`, `a={"kind":"oak","metres":20} next:`},
		{"record", `query trees - 9 {"where":{"and":[]}}`, "code 6, with a message"},
		{"record", `query trees - 9 {"where":{"or":[{"equals":1}]}}`, "code 6, with a message"},
		{"record", `query trees - 9 {"where":{"field":"/kind"}}`, "code 6, with a message"},
		{"record", "query trees - 9 oak", "code 6, with a message"},
		{"record", `query trees - 9 {"were":{}}`, "code 6, with a message"},
		{"record", "query trees x 9 {}", "code 6, with a message"},
		{"record", "query none - 9 {}", "next:"},
		{"record", "Query cards - 9 {}", "home=lent by alice next:"},
		{"record", "Query CARDS - 9 {}", "code 6, with a message"},
	}
)

// What a host answers that has other modules, somebody to send to, schemas, and queries.
func suiteOthers(t *testing.T, wasm []byte) {
	h := suiteHost(t)
	h.Target.Records = map[string]map[string]string{"trees": maps.Clone(Trees)}
	h.Check = func(collection, value string) string {
		if collection != "checked" || strings.HasPrefix(value, "{") {
			return ""
		}
		return ": it is no object\n/né/0: it is there: not to be"
	}
	g := h.Load(t, wasm)
	check := func(cases []Case) {
		t.Helper()
		for _, c := range cases {
			if got := suiteCall(t, g, c.Entry, c.Params); got != c.Want {
				t.Errorf("%s %q: %q, want %q", c.Entry, c.Params, got, c.Want)
			}
		}
	}
	check(Queries)
	check([]Case{
		{"record", "put checked a {}", ""},
		{"record", "put checked a x", "code 12, with a message; : it is no object; /né/0: it is there: not to be"},
		{"record", "replace checked a {} x", "code 12, with a message; : it is no object; /né/0: it is there: not to be"},
		{"record", "replace checked a x x", "code 11, with a message"},
		{"record", "get checked a", "2 {}"},
		{"record", `query trees - 1 {"where":{"field":"/metres","to":100}}`, `a={"kind":"oak","metres":20} next:#1`},
		{"record", `query trees #1 1 {"where":{"field":"/metres","to":100}}`, `c={"kind":"elm","metres":30} next:#2`},
		{"record", `query trees #2 1 {"where":{"field":"/metres","to":100}}`, `d={"kind":"oak","metres":25,"at":{"x":1}} next:`},

		{"queries", "", "ok"},

		{"others", "entry", "others"},
		{"others", "call none - - x", "code 0, with a message"},
		{"others", "base - - - x", "code 0, with a message"},
		{"others", "send bob module - x", "code 9, with a message"},
	})
	h.Modules = map[string]func(entry string, params []byte) ([]byte, error){
		"echo":   func(entry string, params []byte) ([]byte, error) { return append([]byte(entry+": "), params...), nil },
		"broken": func(string, []byte) ([]byte, error) { return nil, errors.New("it broke") },
	}
	h.Base = h.Modules["echo"]
	h.Send = func(to, logic, entry string, params []byte) ([]byte, error) {
		if logic == "broken" {
			return nil, errors.New("it broke")
		}
		return []byte(to + " " + logic + " " + entry + ": " + string(params)), nil
	}
	check([]Case{
		{"others", "call echo - - né it is", "14 run: né it is"},
		{"others", "call echo - sign ", "6 sign: "},
		{"others", "call broken - - x", "code 13, with a message"},
		{"others", "base - - - x y", "11 others: x y"},
		{"others", "base - - sign x", "7 sign: x"},
		{"others", "send bob module - x y", "19 bob module run: x y"},
		{"others", "send did:key:z6Mk sha256:00 sign ", "29 did:key:z6Mk sha256:00 sign: "},
		{"others", "send bob broken - x", "code 13, with a message"},
		{"others", "Send bob module - x", "code 8, with a message"},
	})
}

func suiteStat(t *testing.T, wasm []byte) {
	h := suiteHost(t)
	g := h.Load(t, wasm)
	info, err := os.Stat(filepath.Join(h.Target.Dir, "dir", "file"))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("kind 0 size 8 modified %d", info.ModTime().UnixMilli())
	if got := suiteCall(t, g, "op", "stat /dir/file"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := suiteCall(t, g, "op", "stat /dir"); !strings.HasPrefix(got, "kind 1 size 0 ") {
		t.Errorf("a directory: %q", got)
	}
}

func suiteLog(t *testing.T, wasm []byte) {
	g := suiteHost(t).Load(t, wasm)
	suiteCall(t, g, "log-lines", "né")
	if got := fmt.Sprint(g.Log); got != "[debug: né info: né warn: né error: né]" {
		t.Errorf("the log is %s", got)
	}
}

func suiteFailures(t *testing.T, wasm []byte) {
	g := suiteHost(t).Load(t, wasm)
	for _, c := range []Case{
		{"fail", "no pén", "no pén"},
		{"fail", "", ""},
		{"op", "Read /secret pass on", "the caller did not lend /secret"},
		{"op", "dance /", "params: no such operation"},
	} {
		_, err := g.Call(c.Entry, []byte(c.Params))
		var failed ErrGuest
		if !errors.As(err, &failed) || string(failed) != c.Want {
			t.Errorf("%s %q: %v, want %q", c.Entry, c.Params, err, c.Want)
		}
	}
	if got := suiteCall(t, g, "run", "still there"); got != "still there" {
		t.Errorf("after the failures: %q", got)
	}
	if _, err := g.Call("fail", []byte("trap")); err == nil {
		t.Error("a trap did not fail the entry")
	}
}

func suiteHabits(t *testing.T, wasm []byte) {
	if got := suiteCall(t, suiteHost(t).Load(t, wasm), "habits", ""); got != "ok" {
		t.Error(got)
	}
}

// 64 MiB as params and result, and as a file in parts of what one call may have.
func suiteLarge(t *testing.T, wasm []byte) {
	g := suiteHost(t).Load(t, wasm)
	if got := suiteCall(t, g, "large", "4"); got != "67108864" {
		t.Errorf("large: %s", got)
	}
	params := strings.Repeat("0123456789abcdef", 4<<20)
	if got := suiteCall(t, g, "run", params); got != params {
		t.Errorf("run returned %d bytes of %d, or others", len(got), len(params))
	}
}

// A host function calls cabi_realloc while the entry that called it waits. Here
// memory grows meanwhile, so that whoever kept a view of it has a stale one, and
// the guest's allocator hands out what the result could be mistaken for.
func suiteNested(t *testing.T, wasm []byte) {
	h := suiteHost(t)
	for i := range 100 {
		h.Put(t, "target", fmt.Sprintf("/many/%03d", i), "")
	}
	g := h.Load(t, wasm)
	grown := 0
	h.Disturb = func(g *Guest) {
		for _, size := range []uint64{1, 12, 300, 70_000} {
			r, err := g.Module.ExportedFunction("cabi_realloc").Call(g.ctx, 0, 0, 4, size)
			if err != nil {
				t.Fatalf("cabi_realloc: %v", err)
			}
			fill := make([]byte, size)
			for i := range fill {
				fill[i] = 0xEE
			}
			if !g.Module.Memory().Write(uint32(r[0]), fill) {
				t.Fatal("cabi_realloc returned what is out of bounds")
			}
		}
		if _, ok := g.Module.Memory().Grow(1); ok {
			grown++
		}
	}
	want := ""
	for i := range 100 {
		want += fmt.Sprintf("%03d:0 ", i)
	}
	if got := suiteCall(t, g, "op", "list /many"); got != want {
		t.Errorf("list: %q", got)
	}
	for range 20 {
		if got := suiteCall(t, g, "op", "Read /lent.txt"); got != "13 lent by alice" {
			t.Errorf("read: %q", got)
		}
		if got := suiteCall(t, g, "op", "Read /secret"); got != "code 1, with a message" {
			t.Errorf("an error: %q", got)
		}
	}
	if grown == 0 {
		t.Error("memory never grew; the test no longer shows what it should")
	}
}

// 20,000 calls leave no handle with the host, and memory does not grow.
func suiteLeaks(t *testing.T, wasm []byte, collected bool) {
	h := suiteHost(t)
	h.Target.Records = map[string]map[string]string{"notes": {"a": "one", "b": "two"}}
	g := h.Load(t, wasm)
	calls := []Case{
		{"op", "Read /lent.txt", ""}, {"op", "Read /none", ""}, {"op", "list /dir", ""}, {"op", "remove /none", ""}, {"op", "who x", ""}, {"op", "stat /dir", ""},
		{"record", "get notes a", ""}, {"record", "get notes none", ""}, {"record", "list notes - - 0", ""}, {"record", "put notes a 1", ""}, {"record", "list notes - x 0", ""},
		{"record", "replace notes a 1 1", ""}, {"record", "replace notes a 2 1", ""}, {"record", "make notes a 1", ""}, {"record", "query notes - 0 {}", ""}, {"record", "query notes - 0 x", ""},
		{"others", "call none - - x", ""}, {"others", "base - - - x", ""}, {"others", "send bob module - x", ""}, {"others", "entry", ""},
		{"run", strings.Repeat("params ", 10_000), ""},
	}
	size := uint32(0)
	for i := range 20_000 {
		c := calls[i%len(calls)]
		suiteCall(t, g, c.Entry, c.Params)
		if t.Failed() {
			t.FailNow()
		}
		if i == 2_000 {
			size = g.Module.Memory().Size()
		}
	}
	if collected {
		size += 8 << 20
	}
	if got := g.Module.Memory().Size(); got > size {
		t.Errorf("memory grew from %d to %d bytes", size, got)
	}
}

// cabi_realloc must keep what is in a block, and not hand the host a null pointer.
func suiteMemory(t *testing.T, wasm []byte) {
	h := New(t)
	g := h.Load(t, wasm)
	alloc := func(old, oldSize, align, size uint64) uint32 {
		t.Helper()
		r, err := g.Module.ExportedFunction("cabi_realloc").Call(g.ctx, old, oldSize, align, size)
		if err != nil {
			t.Fatalf("cabi_realloc(%d, %d, %d, %d): %v", old, oldSize, align, size, err)
		}
		at := uint32(r[0])
		if at == 0 || uint64(at)%align != 0 {
			t.Errorf("cabi_realloc(%d, %d, %d, %d) is %#x", old, oldSize, align, size, at)
		}
		return at
	}
	for _, align := range []uint64{1, 2, 4, 8} {
		alloc(0, 0, align, 0)
		at := alloc(0, 0, align, 24)
		g.Module.Memory().Write(at, []byte("abcdefghijklmnopqrstuvwx"))
		at = alloc(uint64(at), 24, align, 4000)
		if b, _ := g.Module.Memory().Read(at, 24); string(b) != "abcdefghijklmnopqrstuvwx" {
			t.Errorf("a block grew, and has %q", b)
		}
		at = alloc(uint64(at), 4000, align, 8)
		if b, _ := g.Module.Memory().Read(at, 8); string(b) != "abcdefgh" {
			t.Errorf("a block shrank, and has %q", b)
		}
	}
	for _, size := range []uint64{0xFFFFFFFF, 0xFFFFFFFE, 0xFFFF0000} {
		g := h.Load(t, wasm)
		if r, err := g.Module.ExportedFunction("cabi_realloc").Call(g.ctx, 0, 0, 1, size); err == nil {
			t.Errorf("cabi_realloc of %d bytes returned %#x", size, r)
		}
	}
}

// Hostile are params of the entry raw that no host may serve: an address out of
// bounds, an end beyond 4 GiB, a handle that is not there, text that is none.
var Hostile = []string{
	"read 7 16 1 1024",             // no such handle
	"read 4294967295 16 1 1024",    //
	"drop 7",                       //
	"drop 0",                       //
	"log 0 4294967295 1",           // text beyond memory
	"log 0 16 4294967295",          //
	"log 4 16 1",                   // no such level
	"log 4294967295 16 1",          //
	"list 9 16 1 16 1 16 1 0 1024", //
	"list 9 4294967295 4294967295 1 1 1 1 1 3", //
}

// Hostile use through the raw imports ends in a trap, for that instance alone.
func suiteHostile(t *testing.T, wasm []byte) {
	h := suiteHost(t)
	for _, params := range Hostile {
		g := h.Load(t, wasm)
		if b, err := g.Call("raw", []byte(params)); err == nil || errors.As(err, new(ErrGuest)) {
			t.Errorf("%q: %q, %v; want a trap", params, b, err)
		}
		if got := suiteCall(t, h.Load(t, wasm), "run", "x"); got != "x" {
			t.Errorf("after %q: %q", params, got)
		}
	}
	g := h.Load(t, wasm)
	if _, err := g.Call("raw", []byte("open 5")); err != nil || g.Handles() != 5 {
		t.Errorf("five handles by hand: %d, %v", g.Handles(), err)
	}
}
