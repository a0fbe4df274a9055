package main

import (
	"fmt"
	"strings"
	"testing"
)

// loads is the error of loading a text, or its entries.
func loads(text string) string {
	p, err := load([]byte(text))
	if err != nil {
		return err.Error()
	}
	b, err := p.describe()
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestPlaces are mistakes in texts, each told with where its token begins, and, where
// people come from other languages, with what to write instead.
func TestPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"if x == 1\n  y\n":                      "1:10: got newline, want ':'",
		"if x == 1\r\n  y\r\n":                  "1:10: got newline, want ':'",
		"x = 'é' zz":                            "1:9: got identifier, want newline",
		"x = [1 23]":                            "1:8: got int literal, want ']'",
		"x = {a: 1, b}":                         "1:13: got '}', want ':'",
		"x = 1 // 2 += 3":                       "1:12: got '+=', want newline",
		"x = (1,\n2":                            "2:2: got end of file, want ')'",
		"def f():\nreturn 1":                    "2:1: got return, want indent",
		"x = 'abc":                              "1:5: unexpected EOF in string",
		"x = y\nz = null\nw = undefinedd":       "1:5: undefined: y\n2:5: undefined: null\n  hint: Starlark says None\n3:5: undefined: undefinedd",
		`x = f"a{b}"`:                           "1:6: got string literal, want newline\n  hint: Starlark has no f\"…\"",
		`print "hello"`:                         "1:7: got string literal, want newline\n  hint: join strings with +",
		"import os":                             "1:1: got import, want primary expression\n  hint: a text is one file",
		"try:\n  x":                             "1:1: got try, want primary expression\n  hint: Starlark has no exceptions; attempt",
		"a = b is c":                            "1:7: got is, want newline\n  hint: Starlark has no is",
		"load('x.star', 'y')":                   "1:1: there is no load: a text is one file",
		"if True:\n  load('x.star', 'y')":       "2:3: there is no load",
		"return 1":                              "1:1: return statement not within a function\n  hint: the result of a text is its last expression",
		"break":                                 "1:1: break not in a loop",
		strings.Repeat("x = nowhere\n", 300):    "10:5: undefined: nowhere\nand 290 more",
		"x = " + strings.Repeat("(", 5000):      "brackets, blocks or operators are nested too deep here",
		"x = 1" + strings.Repeat("+1", 5000):    "1:5: the text is nested more than 2000 deep here",
		"x = 1\nf" + strings.Repeat("()", 9000): "2:1: the text is nested more than 2000 deep here",
	} {
		if got := loads(text); !strings.Contains(got, want) {
			t.Errorf("%.60q: %s; want %s", text, got, want)
		}
	}
}

// many is a text with n entries.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "def f%d(): pass\n", i)
	}
	return b.String()
}

// TestEntries are the entries of texts.
func TestEntries(t *testing.T) {
	for text, want := range map[string]string{
		"1":                         `{"entries":["run"]}`,
		"# nothing":                 `{"entries":["run"]}`,
		"def _f(): pass\n_f()":      `{"entries":["run"]}`,
		"if True:\n  def f(): pass": `{"entries":["run"]}`,
		"def sign(params): pass\ndef read_all(): pass\nrun = sign\nx = 1\n_g = sign":              `{"entries":["sign","read-all","run"]}`,
		"def a1_b2(params, *, loud = False): pass":                                                `{"entries":["a1-b2"]}`,
		"def f(*args, **kwargs): pass":                                                            `{"entries":["f"]}`,
		"def f(params, much = 1): pass\nf = lambda: 1":                                            `{"entries":["f"]}`,
		"def f(a, b): pass\ndef g(*, a): pass\ndef Sign(): pass\ndef a__b(): pass\ndef h(): pass": "1:5: an entry takes params, or nothing: def f(params).",
		"def g(*, a): pass": "1:5: an entry takes params, or nothing",
		"def Sign(): pass":  "1:5: Sign is no name for an entry",
		"def a__b(): pass":  "1:5: a__b is no name for an entry",
		"def a_1(): pass":   "1:5: a_1 is no name for an entry",
		"def é(): pass":     "1:5: é is no name for an entry",
		"def " + strings.Repeat("x", 129) + "(): pass": "1:5: " + strings.Repeat("x", 129) + " is no name for an entry",
		many(256):                          `{"entries":["f0","f1",`,
		many(300):                          "257:5: a text has at most 256 entries",
		"def f(): pass\nx = 1 // 0":        "2:7: floored division by zero",
		"def f(): pass\nparams":            "2:1: undefined: params\n  hint: in a text with functions",
		"def f(): pass\nx = target.id":     "2:11: target.id is for functions: this text defines entries",
		"def f(): pass\nlog.info(1)":       "2:9: log.info is for functions",
		"def f(): pass\nprint(1)":          "print is for functions",
		"def f(): pass\nmodules.call('x')": "2:13: modules.call is for functions",
		"def f(): pass\nx = attempt(target.read, '/x')\nif not x.ok: fail(x.message)": "target.read is for functions",
	} {
		if got := loads(text); !strings.HasPrefix(got, want) && !(strings.HasPrefix(want, "print") || strings.HasPrefix(want, "target.read")) || !strings.Contains(got, want) {
			t.Errorf("%q: %s; want %s", text, got, want)
		}
	}
}

// TestCalls runs texts natively: there is no host, so what asks one is unavailable.
func TestCalls(t *testing.T) {
	const functions = `
seen = []

def f(params):
    return attempt(seen.append, params).message

def g(params, loud = False, *args, **kwargs):
    return [params, loud, args, kwargs]

def h(*args):
    return args

def n():
    return len(seen)

def k(*, loud = "no"):
    return loud

def deep(params):
    return _deep(params - 1)

def _deep(n):
    return _deep(n - 1) if n else "done"

def broken(params):
    return _add(params, "x")

def _add(a, b):
    c = a + b
    return c
`
	p, err := load([]byte(functions))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ entry, params, want string }{
		{"f", `1`, "append: cannot append to frozen list"},
		{"g", `{"a":[1]}`, `[{"a":[1]},false,[],{}]`},
		{"g", ``, `[null,false,[],{}]`},
		{"h", `"x"`, `["x"]`},
		{"n", ``, `0`},
		{"k", `1`, `no`},
		{"deep", `900`, `done`},
		{"deep", `100000`, "functions call each other more than 1000 deep; use a loop, or find out what does not end\n  in _deep, "},
		{"broken", `1`, "29:11: unknown binary op: int + string\n  in _add, 29:11\n  in broken, 26:16\n  hint: write str(n)"},
		{"f", `{"a":1,"a":2}`, `params: at offset 7: the object has the key "a" twice`},
		{"none", ``, `the text has no entry "none"`},
	} {
		b, err := p.call(c.entry, []byte(c.params))
		got := string(b)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s(%s): %s; want %s", c.entry, c.params, got, c.want)
		}
	}
	for text, want := range map[string]string{
		`"text"`:                               "text",
		`b"\xff\x00"`:                          "\xff\x00",
		`None`:                                 "",
		`x = 1`:                                "",
		`[1].append(2)`:                        "",
		`1; 2`:                                 "2",
		"if True:\n    1":                      "",
		`x = 1; x += 1; x`:                     "2",
		"def _f(x): return x * 2\n_f(21)":      "42",
		"i = 0\nwhile i < 3: i += 1\nset([i])": "[3]",
		`fail("no", "room", 1)`:                "no room 1",
		`fail()`:                               "the script failed, and does not say why",
		"def _f(): fail('own')\nattempt(_f)":   `{"code":"fail","message":"own","ok":false,"value":null,"violations":[]}`,
		"r = attempt(lambda x: x + 1, 2)\n[r.ok, r.value, r.code]": `[true,3,""]`,
		"attempt(lambda: 1 // 0).code":                             "error",
		"attempt(target.read, '/x').code":                          "unavailable",
		"attempt()":                                                "1:8: attempt: want a function",
		"def _f(n): return attempt(_f, n + 1)\n_f(0)":              "functions call each other more than 1000 deep",
		"target.wirte('/x', 'y')":                                  "1:7: target has no .wirte; it has append, exists, id, list, make_directory, name, read, read_bytes, records, remove, send, stat, write (did you mean .write?)",
		"target.write('/x', {})":                                   "1:13: target.write: for parameter text: want a string or bytes, got a dict; json.encode(value) makes a string of it",
		"1 << 1000000":                                             "1:3: shift count too large: 1000000",
		"'x' * (1 << 40)":                                          "1:5: repeat count 1099511627776 too large",
		`"a" + 1`:                                                  `hint: write "…" + str(n)`,
		"{}[1]":                                                    "1:3: key 1 not in dict",
		"type(target) + type(log)":                                 "targetlog",
		"{target: 1}":                                              "target is no key",
	} {
		if got := run(t, last(text), text); got != want && !(len(want) > 20 && strings.Contains(got, want)) && !(strings.Contains(want, " ") && strings.Contains(got, want)) {
			t.Errorf("%q: %q; want %q", text, got, want)
		}
	}
}

// TestHintsAreUsed holds each hint to a text that gets it: go.starlark.net may word its
// errors otherwise one day.
func TestHintsAreUsed(t *testing.T) {
	texts := []string{
		"null", "nil", "true", "false", "open('x')", "def f(): return params", "isinstance(1, 2)", "Exception()", "return 1",
		"import x", "from x import y", "try: x", "raise x", "class A: x", "with x: y", "1 is 1", `f"x"`, `print "x"`, "del x", "global x", "“x”", "‘x’",
		"if 1:\n    x = 1\n  y = 2", "'a' + 1", "1 + 'a'", "'a' + None",
		"x = []\ndef f(): x.append(1)",
	}
	used := map[string]bool{}
	for _, text := range texts {
		got := loads(text)
		if strings.HasPrefix(got, "{") {
			p, err := load([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			entry := "run"
			if len(p.entries) > 0 {
				entry = p.entries[0].name
			}
			_, err = p.call(entry, nil)
			got = fmt.Sprint(err)
		}
		for _, h := range hints {
			if strings.Contains(got, h.hint) {
				used[h.message] = true
			}
		}
	}
	for _, h := range hints {
		if !used[h.message] {
			t.Errorf("nothing gets the hint of %q", h.message)
		}
	}
}

// FuzzText loads and calls any text: it is told what is wrong with it, and nothing panics.
func FuzzText(f *testing.F) {
	for _, s := range []string{"1 + 2", "def f(params): return params", "x = [i for i in range(3)]", "if x:\n  y\nelse:\n  z", "lambda *a, **k: a", "'%s' % (1,)", "x.y[1:2](z)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 2000 || strings.Contains(s, "while") || strings.Contains(s, "*") || strings.Contains(s, "for") {
			return // what takes long is a matter of fuel, and of the host
		}
		p, err := load([]byte(s))
		if err != nil {
			if err.Error() == "" || strings.Contains(err.Error(), "internal error") {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		name := "run"
		if len(p.entries) > 0 {
			name = p.entries[0].name
		}
		if _, err := p.call(name, []byte("{}")); err != nil && strings.Contains(err.Error(), "interpreter failed") {
			t.Fatalf("%q: %v", s, err)
		}
	})
}
