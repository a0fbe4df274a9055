package modules_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/modules/languages"
)

// rhai is what an entry of a text in Rhai says: its result, or "error: " or "load: " and
// its error.
func rhai(t testing.TB, h *sdktest.Host, source, entry, params string) (string, text) {
	t.Helper()
	wasm, err := rhaiModule()
	if err != nil {
		t.Fatal(err)
	}
	g := text{h.Load(t, wasm)}
	said := func(what string, result []byte, err error) string {
		var wrong sdktest.ErrGuest
		if errors.As(err, &wrong) {
			return what + ": " + err.Error()
		}
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		return string(result)
	}
	loaded, err := g.Guest.Call("load", []byte(source))
	if err != nil || entry == "" {
		return said("load", loaded, err), g
	}
	result, err := g.Call(entry, []byte(params))
	return said("error", result, err), g
}

var rhaiModule = sync.OnceValues(func() ([]byte, error) {
	l, _ := languages.Of("rhai")
	return l.Wasm()
})

// rhaiCase is a text, what it is called with, and what it says.
type rhaiCase struct{ text, params, want string }

// rhaiCases calls all of them in one instance, each as a function of one text. In what
// they say a line 1 is theirs.
func rhaiCases(t *testing.T, h *sdktest.Host, cases []rhaiCase) text {
	t.Helper()
	var all strings.Builder
	for i, c := range cases {
		fmt.Fprintf(&all, "fn case%d(params) {\n%s\n}\n", i, c.text)
	}
	loaded, g := rhai(t, h, all.String(), "", "")
	if strings.HasPrefix(loaded, "load: ") {
		t.Fatal(loaded)
	}
	for i, c := range cases {
		result, err := g.Call(fmt.Sprintf("case%d", i), []byte(c.params))
		got := string(result)
		if err != nil {
			got = "error: " + strings.Replace(err.Error(), fmt.Sprintf("%d:", 3*i+2), "1:", 1)
		}
		if got != c.want && !(strings.HasSuffix(c.want, "…") && strings.HasPrefix(got, strings.TrimSuffix(c.want, "…"))) {
			t.Errorf("%s of %q\n got %q\nwant %q", c.text, c.params, got, c.want)
		}
		if n := g.Handles(); n != 0 {
			t.Errorf("%s: %d handles left", c.text, n)
		}
	}
	return g
}

// TestRhaiValues takes values in and out: all 64 bits of whole numbers, text and
// bytes, and what has no form in JSON.
func TestRhaiValues(t *testing.T) {
	rhaiCases(t, sdktest.New(t), []rhaiCase{
		{`1 + 1`, ``, `2`},
		{`"two"`, ``, `two`},
		{`let x = 1;`, ``, ``},
		{`()`, ``, ``},
		{`params`, `{"b": [1, 2.0, -0.5e1, true, null, "x"], "a": {}}`, `{"a":{},"b":[1,2.0,-5.0,true,null,"x"]}`},
		{`params`, `9223372036854775807`, `9223372036854775807`},
		{`params - 1`, `-9223372036854775807`, `-9223372036854775808`},
		{`params`, `18446744073709551615`, `1.8446744073709552e19`},
		{`params`, `not JSON`, `not JSON`},
		{`type_of(params)`, ``, `()`},
		{`type_of(params)`, `"{"`, `string`},
		{`type_of(params)`, "\xff\xfe", `blob`},
		{`params`, "\xff\xfe", "\xff\xfe"},
		{`params`, `"\ud83d\ude00\u0000\n\"\\\/"`, "😀\x00\n\"\\/"},
		{`[params]`, `"\ud83d\ude00\u0000\n\"\\\/"`, `["😀\u0000\n\"\\/"]`},
		{`type_of(params)`, `[1,]`, `string`},
		{`type_of(params)`, `01`, `string`},
		{`type_of(params)`, `"\ud800"`, `string`},
		{`type_of(params)`, `{"a":1,"a":2}`, `string`},
		{`type_of(params)`, strings.Repeat("[", 99) + strings.Repeat("]", 99), `array`},
		{`type_of(params)`, strings.Repeat("[", 500) + strings.Repeat("]", 500), `string`},
		{`#{n: 0.1 + 0.2}`, ``, `{"n":0.30000000000000004}`},
		{`[1e300, 5e-324, 'c']`, ``, `[1e300,5e-324,"c"]`},
		{`to_json([1, "a"]) + to_json(#{k: 'c'})`, ``, `[1,"a"]{"k":"c"}`},
		{`parse_json("{\"a\": 9007199254740993}").a`, ``, `9007199254740993`},
		{`params.default + params.new.len`, `{"default": 1, "new": "xy"}`, `3`},
		{`exit(7); 1`, ``, `7`},
		{`0.0/0.0`, ``, `error: the result: NaN is not a number that JSON has`},
		{`[|x| x]`, ``, `error: the result: a function has no form in JSON; take what you need of it`},
		{`caller`, ``, `error: the result: a context has no form in JSON; take what you need of it`},
		{`#{b: blob(1)}`, ``, `error: the result: a blob has no form in JSON; make text of it with as_string(), or an array with to_array()`},
		{`let a = []; for i in 0..150 { a = [a]; } a`, ``, `error: the result: the value has more than 100 arrays and maps within each other, which JSON here may not have`},
	})
}

// TestRhaiEntries has functions, or the whole text, as entries; and a module that is
// called more than once, which no host does, does not mix up the calls.
func TestRhaiEntries(t *testing.T) {
	h := sdktest.New(t)
	for source, want := range map[string]string{
		`1`:                                        `{"entries":["run"]}`,
		`fn sign_book(p) {} fn read() {}`:          `{"entries":["read","sign-book"]}`,
		`private fn f(p) {} f(1)`:                  `{"entries":["run"]}`,
		`fn add(a, b) { a + b } add(1, 2)`:         `{"entries":["run"]}`,
		`let f = |x| x; f.call(1)`:                 `{"entries":["run"]}`,
		`fn run(p) {} fn int.twice() { this * 2 }`: `{"entries":["run"]}`,
		`let x = 1; fn a2_b3(p) { x }`:             `{"entries":["a2-b3"]}`,
		`fn Sign(p) {}`:                            `load: 1:4: Sign is not a name for an entry, which has lower-case words with _ between them, as in sign_book; or write private fn`,
		"1;\nfn a() {} fn a(p) {}":                 `load: 2:4: the entry a is there twice, with a parameter and without; write private fn for one, or name it otherwise`,
	} {
		if got, _ := rhai(t, h, source, "", ""); got != want {
			t.Errorf("%s\n got %q\nwant %q", source, got, want)
		}
	}
	_, g := rhai(t, h, `let all = []; fn run() { all } fn push_it(params) { let mine = all; mine.push(params); [mine, all] } fn whole() { params }`, "run", "")
	for _, c := range [][3]string{{"push-it", "1", "[[1],[]]"}, {"push-it", "2", "[[2],[]]"}, {"whole", `{"a":1}`, `{"a":1}`}, {"whole", "", ""}, {"run", "5", "[]"}} {
		if got, err := g.Call(c[0], []byte(c[1])); err != nil || string(got) != c[2] {
			t.Errorf("%s(%s): %s %v, want %s", c[0], c[1], got, err, c[2])
		}
	}
	if _, err := g.Call("none", nil); err == nil || !strings.Contains(err.Error(), "no entry none; it has push-it, run, whole") {
		t.Error(err)
	}
}

// TestRhaiErrors wants to be told where, what, and what to do.
func TestRhaiErrors(t *testing.T) {
	h := sdktest.New(t)
	for _, c := range []struct{ text, want string }{
		{"let x = 1;\nlet y = x +;", "load: 2:12: "},
		{"  nobody", "load: 1:3: there is no nobody here; declare it with let, or as a parameter"},
		{"let x = 1;\nfn run(p) {\n  x + other }", "load: 3:7: there is no other here; "},
		{"let x = \"abc", "load: 1:9: open string is not terminated"},
		{"1 /* 2", "load: 1:3: the text ends within a comment; end that with */"},
		{"1 /* 2 */", "1"},
		{"const A = 1; A = 2", "load: 1:14: cannot assign to constant A"},
		{"let thread = 1;", "load: 1:5: thread is a word that Rhai keeps for itself; take another"},
		{`eval("1")`, "load: 1:1: eval is not to be had: what runs is what the owner of the context can read"},
		{`import "x" as y;`, "load: 1:1: import is not to be had, a text is on its own; modules.call(name, entry, params) calls another module"},
		{"const X = caller.id; fn a() {}", "load: 1:18: there is no call yet: what stands outside of functions runs once, when the text is loaded; put this into a function"},
		{"loop {}\nfn a() {}", "load: 1:6: what stands outside of functions computes for too long"},
		{strings.Repeat("(", 1000), "load: 1:200: this is too deep within other expressions and blocks; give parts of it to variables or functions"},
		{"fn run(p) {\n  nothing(1) }", "error: 2:3: there is no function nothing (i64); look at the name, and at the number and types of what it is given"},
		{"fn run(p) {\n  deep(3) }\nprivate fn deep(n) {\n  if n == 0 { [1][5] } else { deep(n - 1) }\n}",
			"error: 4:19: array index 5 out of bounds: only 1 element in array\n4:31: called deep\n4:31: called deep\n4:31: called deep\n2:3: called deep"},
		{"private fn f(n) { 1 + f(n + 1) } f(1)", "error: 1:34: the calls are too deep within each other; a recursion has to end, or be written as a loop"},
	} {
		if got, _ := rhai(t, h, c.text, "run", ""); !strings.HasPrefix(got, c.want) || strings.HasSuffix(c.want, "called deep") && got != c.want {
			t.Errorf("%s\n got %q\nwant %q", c.text, got, c.want)
		}
	}
	rhaiCases(t, h, []rhaiCase{
		{"sleep(1)", "", "error: 1:1: sleep is not to be had; a script ends as soon as it can"},
		{"target.write(1)", "", "error: 1:8: there is no function write (context, i64); there is write(path, text)"},
		{"target.write(\"f\", 1)", "", "error: 1:8: a file is written as text or as a blob; make text of other values with to_string() or to_json(value)"},
		{`throw "enough"`, "", "error: enough"},
		{"throw #{a: 1}", "", `error: 1:1: the script threw {"a":1}`},
		{"throw", "", "error: 1:1: the script threw an error without a word"},
		{"target.read(\"/none\")", "", "error: 1:8: read /none: no such file or directory"},
		{`try { target.read("/none"); } catch (err) { throw err; }`, "", "error: 1:45: read /none: no such file or directory"},
		{`try { target.read("/none"); } catch (err) { return [err.code, err.message, err.violations, "" + err]; }`, "", `["not-found","read /none: no such file or directory",[],"read /none: no such file or directory"]`},
		{"1/params", "", "error: 1:2: there is no function / (i64, ()); …"},
		{"1/(params ?? 0)", "", "error: 1:2: division by zero: 1 / 0"},
		{"params.foo", "", "error: 1:8: unknown property 'foo' of a value of type '()'"},
		{"target = 3", "", "error: 1:1: cannot modify constant target"},
		{"let a = []; a.pad(1000000000000, 1)", "", "error: 1:15: 1000000000000 elements are more than the 67108864 that there may be"},
		{"blob(1000000000000)", "", "error: 1:1: 1000000000000 elements are more than the 67108864 that there may be"},
		{"parse_json(\"{\")", "", "error: 1:1: this is not JSON: at byte 2, a text is missing"},
	})
	if got, _ := rhai(t, h, "1;\n\"né\xff\"", "run", ""); got != "load: 2:4: this is not UTF-8; save it as UTF-8" {
		t.Error(got)
	}
}

// TestRhaiObjects uses what is not in the suite of all languages: records with all of their
// methods, what other modules and scripts answer, and blobs.
func TestRhaiObjects(t *testing.T) {
	h := sdktest.New(t)
	answer := func(who string) func(string, []byte) ([]byte, error) {
		return func(entry string, params []byte) ([]byte, error) {
			if entry == "fail" {
				return nil, errors.New("it would not")
			}
			return []byte(`["` + who + `","` + entry + `",` + strings.ReplaceAll(string(params)+"]", ",]", "]")), nil
		}
	}
	h.Modules = map[string]func(string, []byte) ([]byte, error){"other": answer("other")}
	h.Base = answer("base")
	h.Send = func(to, logic, entry string, params []byte) ([]byte, error) {
		return answer(to+" "+logic)(entry, params)
	}
	h.Check = func(collection, value string) string {
		if collection == "strict" {
			return "/a: want a number"
		}
		return ""
	}
	h.Put(t, "target", "/b", "\x00\xff\x02")
	h.Put(t, "target", "/t", "text")
	// As another language put it: with spaces, and its keys in another order.
	h.Target.Records = map[string]map[string]string{"notes": {"k": `{"z": 1, "a": 2}`}}
	g := rhaiCases(t, h, []rhaiCase{
		{`modules.call("other", "enter", #{n: 1})`, "", `["other","enter",{"n":1}]`},
		{`modules.call("other", "enter", 5)[2] + 1`, "", `6`},
		{`modules.call("none")`, "", `error: 1:9: there is no module none`},
		{`try { modules.call("other", "fail"); } catch (err) { return err.code + err.message; }`, "", `failedcall other: it would not`},
		{`base.call(7)`, "", `["base","case4",7]`},
		{`base.call("enter", [7])`, "", `["base","enter",[7]]`},
		{`target.send("carol", "guestbook", "sign", 1)`, "", `["carol guestbook","sign",1]`},
		{`try { caller.send("carol", "guestbook", "sign", 1); } catch (err) { return err.code; }`, "", `read-only`},
		{`target.read("/b")`, "", `error: 1:8: /b is not text in UTF-8; read_blob(path) gives its bytes`},
		{`target.read_blob("/b")`, "", "\x00\xff\x02"},
		{`let b = target.read_at("/b", 1, 1); b.push(9); target.write("/c", b); target.read_blob("/c").to_array()`, "", `[255,9]`},
		{`target.read_at("/b", -1, 1)`, "", `error: 1:8: read /b: 1 bytes from -1 are none that a file has`},
		{`[target.read("/x", 1), target.read_blob("/x", 2), target.stat("/x", 3), target.list("/x", 4), target.records("notes").get("x", 5)]`, "", `[1,2,3,4,5]`},
		{`target.read("/b", "none")`, "", `error: 1:8: /b is not text in UTF-8; read_blob(path) gives its bytes`},
		{`target.list("/b", [])`, "", `error: 1:8: list /b: not a directory`},
		{`[target.read("/t", 1), target.stat("/t", ()).size, target.list("/", 1).len, target.records("notes").get("k", 5).a]`, "", `["text",4,3,2]`},
		{`let notes = target.records("notes"); let k = notes.get("k"); notes.replace("k", k, #{n: k.z}); notes.get("k")`, "", `{"n":1}`},
		{`try { target.records("notes").replace("k", #{n: 2}, 3); } catch (err) { return err.code; }`, "", `conflict`},
		{`try { target.records("notes").replace("k", (), 3); } catch (err) { return err.code; }`, "", `conflict`},
		{`let notes = target.records("notes"); notes.replace("new", (), "x"); notes.get("new")`, "", `x`},
		{`let page = target.records("notes").query(#{where: #{field: "/n", from: 1}}); [page.items, page.next]`, "", `[[{"key":"k","value":{"n":1}}],""]`},
		{`target.records("notes").query("{}", "", 1).items.len`, "", `1`},
		{`target.records("notes").list("", "", -1)`, "", `error: 1:25: a limit of -1 is none; 0 is as many as there may be`},
		{`try { target.records("strict").put("k", 1); } catch (err) { return [err.code, err.violations]; }`, "", `["violates",[{"path":"/a","reason":"want a number"}]]`},
		{`print("a"); debug("b"); log.info(#{a: 1}); log.debug('c');`, "", ``},
	})
	if want := []string{"info: a", `debug: "b"`, `info: #{"a": 1}`, "debug: c"}; !slices.Equal(g.Log, want) {
		t.Errorf("log %q, want %q", g.Log, want)
	}
	if got := slices.Sorted(maps.Keys(h.Target.Records["notes"])); !slices.Equal(got, []string{"k", "new"}) {
		t.Error(got)
	}
}
