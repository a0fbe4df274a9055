package host_test

import (
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
)

var starlarkTexts = map[string]string{
	"value":   `{"n": params["n"] + 1, "s": params["s"], "l": params["l"] + [4], "t": True, "none": None}`,
	"text":    `params + "!"`,
	"nothing": `x = params`,
	"empty":   `params == None`,
	"hello":   `target.write("hi.txt", "hello " + caller.name)`,
	"ids":     `[caller.id, caller.name, target.id, target.name]`,
	"lent":    `caller.read("/card.txt")`,
	"files": `
attempt(target.remove, "/d")
target.make_directory("/d")
target.write("/d/f", "a")
target.append("/d/f", "b")
about = target.stat("/d/f")
text = target.read("/d/f")
names = [e.name for e in target.list("/d")]
target.remove("/d/f")
{"text": text, "names": names, "kind": about.kind, "size": about.size, "gone": attempt(target.read, "/d/f").code}`,
	"records": `
notes = target.records("notes")
notes.put("b", {"n": 1})
notes.put("a", "x")
notes.put("a/1", 5)
notes.put("c", [])
notes.delete("c")
some = notes.list(start = "a", prefix = "a", limit = 1)
{
    "b": notes.get("b"),
    "a": notes.get("a"),
    "keys": [r.key for r in notes.list().items],
    "some": [r.key for r in some.items],
    "next": some.next,
    "gone": attempt(notes.get, "c").code,
}`,
	"replace": `
r = target.records("replaced")
attempt(r.delete, "k")
r.replace("k", None, {"n": 1})
again = attempt(r.replace, "k", None, {"n": 2})
other = attempt(r.replace, "k", {"n": 5}, {"n": 2})
r.replace("k", {"n": 1}, {"n": 3})
{"again": again.code, "other": other.code, "value": r.get("k")}
`,
	"query": `
numbers = target.records("numbers")
for n in range(5):
    numbers.put(str(n), {"n": n})
page = numbers.query({"where": {"field": "/n", "above": 1}, "order": [{"field": "/n", "descending": True}], "limit": 2})
[r.key for r in page.items]
`,
	"sends": `target.send("alice", "entries", "sign", {"by": "bob"})`,
	"calls": `modules.call("entries", "sign", {"by": "bob"})`,
	"base":  `"over " + base.call(params)`,
	"log": `
log.debug("one")
log.info("two")
log.warn("three")
log.error("four")`,
	"entries": `
def _by(params):
    return params["by"]

def sign(params):
    return "signed " + _by(params)

def read_all():
    return "all"

about = "no entry"`,
	"constant": `
answer = 6 * 7

def run():
    return answer`,
	"state": `
calls = []

def run():
    attempt(calls.append, 1)
    return len(calls) + 1`,
	"denied":          `attempt(target.read, "/secret").code`,
	"denied-uncaught": "x = 1\nif x:\n    target.read¶('/secret')",
	"failure":         "def _f(x):\n    return {}¶[x]\n_f(1)",
	"thrown":          `fail("no room")`,
	"endless":         `while True: pass`,
	"recursive":       "def _f(n): return _f(n + 1) + 1\n_f(0)",
	"greedy":          "s = []\nwhile True: s.append('x' * 1000000)",
	"wordy":           `while True: print("and another thing")`,
	"broken":          "x = 1\nif x ¶y:\n    pass",
	"early":           "target.read¶('/secret')\ndef run(): return 1",
	"endless-early":   "def run(): return 1\nwhile True: pass",
}

// TestStarlarkHarm runs texts that mean harm, or might: each ends as it should, with a sentence
// that says why, and those that end well burn the same fuel each time, however often
// memory was collected meanwhile.
func TestStarlarkHarm(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", `@id("all") @limits("fuel=400M, memory=48MiB, time=60s, output=1MiB") permit(principal, action, resource);`)
	for _, c := range []struct {
		text    string
		code    script.Code
		message string
	}{
		{"d = {}\nfor i in range(3000): d['a long key, %d' % i] = [str(i)] * 20\nlen(d)", script.Done, ""},
		{"x = 1\nfor i in range(9000): x = (x * 31 + i) % 65521\nx", script.Done, ""},
		{"[hash('a'), hash('more than twelve bytes'), {'b': 1, 'a': 2}, [k for k in {'b': 1, 'a': 2}], dir(struct(b = 1, a = 2))]", script.Done, ""},
		{"x = [0] * 1000000000", script.Failed, "makeslice: len out of range"},
		{"x = 'x' * (1 << 29)", script.OutOfMemory, "out of memory"},
		{"x = 1 << 1000000", script.Failed, "1:7: shift count too large"},
		{"x = 3\nwhile True: x = x * x", script.OverLimit, "fuel"},
		{"x = []\nfor i in range(5000): x = [x]\nstr(x)", script.OverLimit, "called too deep"},
		{"x = []\nfor i in range(5000): x = [x]\nx", script.Failed, "nested more than 500 deep"},
		{"x = []\nx.append(x)\nx == [x]", script.Failed, "3:3: comparison exceeded maximum recursion depth"},
		{"def _f(n): return sorted([n], key = _f)\n_f(1)", script.Failed, "1000 deep"},
		{"def _f(n): return attempt(_f, n + 1)\n_f(1)", script.Failed, "1000 deep"},
		{"def _f(): return attempt(_f)\n_f()\nwhile True: pass", script.Failed, "1000 deep"},
		{"while True: attempt(fail, 'x' * 5000)", script.OverLimit, "fuel"},
		{"fail('x' * 100000, b'\\xff')", script.Failed, "xxx…"},
		{"while True: target.exists('/x')", script.OverLimit, ""},
		{"target.write('/x\\n\\x1b', 'x')\ntarget.read('\\x00')", script.Failed, "2:12: "},
		{"'é'[1:]", script.Done, ""},
		{"target.write('é'[1:], 'x')", script.Failed, "1:13: "},
		{"log.info('é'[1:] + '\\x1b[2J')", script.Done, ""},
	} {
		code := script.Script{Logic: script.Logic{Text: script.Text{Language: "starlark", Source: c.text}}}
		r := w.send("alice", "bob", code)
		if r.Code != c.code && !(c.code == script.OverLimit && r.Code == script.Failed && c.message == "") || !strings.Contains(r.Message, c.message) {
			t.Errorf("%.60q: %v %.300s, want %v %q", c.text, r.Code, r.Message, c.code, c.message)
		}
		if len(r.Message) > 8<<10 || len(r.Log) > 8<<10 {
			t.Errorf("%.60q: a message of %d bytes, and a log of %d", c.text, len(r.Message), len(r.Log))
		}
		if c.code == script.Done {
			if again := w.send("alice", "bob", code); again.Usage.Fuel != r.Usage.Fuel {
				t.Errorf("%.60q takes %d fuel, and then %d", c.text, r.Usage.Fuel, again.Usage.Fuel)
			}
		}
	}
}
