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
		interface j { use i.{e, r}; f: func(x: e) -> r; }
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
	if j := w.Interfaces["a:b/j@1.2.3"]; len(j) != 1 || j[0].String() != "func(enum{one-two, three}) -> "+rec {
		t.Errorf("what uses another interface is %v", j)
	}
	if w.Imports["a:b/w@1.2.3"][0] != "a:b/i@1.2.3" || w.Exports["a:b/w@1.2.3"][0].String() != "func(list<u8>) -> bool" {
		t.Errorf("world is %v, %v", w.Imports, w.Exports)
	}
	for _, bad := range []string{
		"", "package a:b@1.0.0", "package a:b@1.0.0; interface i { f: func(x: mystery); }",
		"package a:b@1.0.0; interface i { f: func() -> }", "package a:b@1.0.0; interface i { enum e { a b } }",
		"package a:b@1.0.0; interface i {", "package a:b@1.0.0; flags x {}",
		"package a:b@1.0.0; interface i { use j.{e}; }", "package a:b@1.0.0; interface j { enum e { a } } interface i { use j.{f}; }",
	} {
		if _, err := ParseWIT(bad); err == nil {
			t.Errorf("ParseWIT(%q) found nothing wrong", bad)
		}
	}
}

// What worlds export is what the engine calls, and what they import is declared
// beside them.
func TestScriptWorlds(t *testing.T) {
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
	for world, exports := range map[string]string{"circles:script/run@0.1.1": "run", "circles:script/language@0.1.1": "load call"} {
		var names []string
		for _, e := range script.Exports[world] {
			names = append(names, e.Name)
			if e.String() != "func(list<u8>) -> result<list<u8>, string>" {
				t.Errorf("%s exports %s as %v", world, e.Name, e)
			}
		}
		if got := strings.Join(names, " "); got != exports {
			t.Errorf("%s exports %s, want %s", world, got, exports)
		}
		imported := fmt.Sprint(script.Imports[world])
		if len(script.Imports[world]) != len(host.Interfaces) {
			t.Errorf("%s imports %s, the host has %d interfaces", world, imported, len(host.Interfaces))
		}
		for name := range host.Interfaces {
			if !strings.Contains(imported, name) {
				t.Errorf("%s does not import %s", world, name)
			}
		}
	}
}
