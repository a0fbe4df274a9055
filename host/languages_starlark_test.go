package host_test

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
