package abitest

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestParseWIT(t *testing.T) {
	w, err := ParseWIT(`
		// comment
		package a:b@1.2.3;
		/// doc { enum }
		interface i {
		  enum e { one-two, three }   // trailing, comma missing
		  record r { x: e, y: u64, z: option<string>, }
		  resource res {
		    get: func(self-like: borrow<res>) -> result<r, e>;
		    make: static func() -> res;
		  }
		  %list: func() -> list<r>;
		  none: func();
		  both: func(a: u8, b: list<u8>) -> result;
		  ok: func() -> result<_, string>;
		}
		world w { import a:b/i@1.2.3; export run: func(p: list<u8>) -> bool; }`)
	if err != nil {
		t.Fatal(err)
	}
	const rec = "record{x: enum{one-two, three}, y: u64, z: option<string>}"
	var got []string
	for _, f := range w.Interfaces["a:b/i@1.2.3"] {
		got = append(got, f.Name+" "+f.String())
	}
	want := []string{
		"[resource-drop]res func(own<res>)",
		"[method]res.get func(borrow<res>, borrow<res>) -> result<" + rec + ", enum{one-two, three}>",
		"[static]res.make func() -> own<res>",
		"list func() -> list<" + rec + ">",
		"none func()",
		"both func(u8, list<u8>) -> result",
		"ok func() -> result<_, string>",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("parsed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if w.Imports["a:b/w@1.2.3"][0] != "a:b/i@1.2.3" || w.Exports["a:b/w@1.2.3"][0].String() != "func(list<u8>) -> bool" {
		t.Errorf("world is %v, %v", w.Imports, w.Exports)
	}
	for _, bad := range []string{
		"", "package a:b@1.0.0", "package a:b@1.0.0; interface i { f: func(x: mystery); }",
		"package a:b@1.0.0; interface i { f: func() -> }", "package a:b@1.0.0; interface i { enum e { a b } }",
		"package a:b@1.0.0; interface i {", "package a:b@1.0.0; flags x {}",
	} {
		if _, err := ParseWIT(bad); err == nil {
			t.Errorf("ParseWIT(%q) found nothing wrong", bad)
		}
	}
}

// The world's one export is what the engine calls, and what it imports is
// declared beside it.
func TestScriptWorld(t *testing.T) {
	read := func(path string) WIT {
		src, err := os.ReadFile("../../../../wit/" + path)
		if err != nil {
			t.Fatal(err)
		}
		w, err := ParseWIT(string(src))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return w
	}
	script, host := read("script.wit"), read("deps/circles-host/host.wit")
	const world = "circles:script/run@0.1.0"
	if e := script.Exports[world]; len(e) != 1 || e[0].Name != "run" || e[0].String() != "func(list<u8>) -> result<list<u8>, string>" {
		t.Errorf("world exports %v", e)
	}
	imported := fmt.Sprint(script.Imports[world])
	if len(script.Imports[world]) != len(host.Interfaces) {
		t.Errorf("world imports %s, the host has %d interfaces", imported, len(host.Interfaces))
	}
	for name := range host.Interfaces {
		if !strings.Contains(imported, name) {
			t.Errorf("world does not import %s", name)
		}
	}
}
