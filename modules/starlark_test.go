package modules_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/modules/languages"
)

// starlark is a host's instance of Starlark.
func starlark(t *testing.T, h *sdktest.Host) *sdktest.Guest {
	t.Helper()
	l, ok := languages.Of("starlark")
	if !ok {
		t.Fatal("there is no Starlark")
	}
	wasm, err := l.Wasm()
	if err != nil {
		t.Fatal(err)
	}
	return h.Load(t, wasm)
}

// runText loads a text and runs it, without params.
func runText(t *testing.T, g *sdktest.Guest, source string) string {
	t.Helper()
	if _, err := g.Call("load", []byte(source)); err != nil {
		t.Fatal(err)
	}
	b, err := g.Enter("run", nil)
	if g.Handles() != 0 {
		t.Errorf("%d handles left", g.Handles())
	}
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

// TestStarlarkObjects is what a text does with records, other modules and peers, by a host
// of the SDKs' suite; the suite of all languages has the rest.
func TestStarlarkObjects(t *testing.T) {
	h := sdktest.New(t)
	h.Target.Records = map[string]map[string]string{
		"visits": {"a": `{ "n": 1 }`, "b": `{"n":2}`, "c": `{"n":3}`, "d": "text", "e": "\xff", "f": `{"n":1,"n":2}`, "g": `{ "m": 1 }`},
	}
	h.Seen = func(collection, key string) bool { return key != "hidden" }
	h.Check = func(collection, value string) string {
		if strings.Contains(value, "-") {
			return "/n: it is less than 0"
		}
		return ""
	}
	h.Modules = map[string]func(string, []byte) ([]byte, error){"echo": func(entry string, params []byte) ([]byte, error) {
		if entry == "fail" {
			return nil, errors.New("echo has no voice")
		}
		return fmt.Appendf(nil, `{"entry":%q,"params":%q}`, entry, params), nil
	}}
	h.Base = h.Modules["echo"]
	h.Send = func(to, logic, entry string, params []byte) ([]byte, error) {
		if to == "carol" {
			return nil, errors.New("carol is not at home")
		}
		return fmt.Appendf(nil, `[%q,%q,%q,%q]`, to, logic, entry, params), nil
	}
	g := starlark(t, h)
	for text, want := range map[string]string{
		`r.query({"where": {"field": "/n", "above": 1}, "order": [{"field": "/n", "descending": True}]}).items[0].value["n"]`: `3`,
		`[len(r.query(limit = 2).items), r.query(limit = 2).next != ""]`:                                                      `[2,true]`,
		`r.query("no JSON")`:                                         "error: 2:8: query visits: ",
		`r.get("f")`:                                                 `{"n":1,"n":2}`,
		`[r.get("d"), type(r.get("e"))]`:                             `["text","bytes"]`,
		`r.replace("g", {"m": 1}, {"m": 5}); r.get("g")`:             `{"m":5}`, // whatever its blanks were
		`x = attempt(r.replace, "b", 1, 2); x.code`:                  `conflict`,
		`x = attempt(r.replace, "b", None, 2); x.code`:               `conflict`,
		`r.replace("new", None, b"\x00"); r.get("new")`:              "\x00",
		`x = attempt(r.put, "b", {"n": -1}); [x.code, x.violations]`: `["violates",[{"path":"/n","reason":"it is less than 0"}]]`,
		`r.put("b", target)`:                                         "error: 2:6: records.put: a target cannot be written as JSON",
		`modules.call("echo", "speak", {"b": 1, "a": [2]})`:          `{"entry":"speak","params":"{\"a\":[2],\"b\":1}"}`,
		`modules.call("echo", params = "text")`:                      `{"entry":"run","params":"text"}`,
		`modules.call("echo")["params"]`:                             ``,
		`attempt(modules.call, "echo", "fail").code`:                 `failed`,
		`modules.call("echo", "fail")`:                               "error: 2:13: echo has no voice",
		`attempt(modules.call, "none").code`:                         `not-found`,
		`base.call({"a": 1})`:                                        `{"entry":"run","params":"{\"a\":1}"}`,
		`base.call("speak", None)`:                                   `{"entry":"speak","params":""}`,
		`base.call(entry = "speak", params = "x")`:                   `{"entry":"speak","params":"x"}`,
		`target.send("bob", "echo", "speak", 7)`:                     `["bob","echo","speak","7"]`,
		`target.send("bob", "echo")`:                                 `["bob","echo","run",""]`,
		`attempt(target.send, "carol", "echo").code`:                 `failed`,
		`attempt(caller.send, "bob", "echo").code`:                   `read-only`,
		`attempt(caller.write, "/x", "y").code`:                      `read-only`,
		`[target.list("/none", default = 1), target.stat("/none", default = 2), target.read("/none", default = 3), target.exists("/none")]`:             `[1,2,3,false]`,
		`target.write("/bin", b"\xff\x00abc"); [attempt(target.read, "/bin").message, list(target.read_bytes("/bin", offset = 1, length = 2).elems())]`: `["read /bin: the file is not UTF-8 text; target.read_bytes reads any",[0,97]]`,
	} {
		got := runText(t, g, "r = target.records('visits')\n"+text)
		if message, ok := strings.CutPrefix(want, "error: "); ok {
			if !strings.HasPrefix(got, "error: "+message) {
				t.Errorf("%s: %s, want %s", text, got, want)
			}
			continue
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestStarlarkCollects: what the host hands over while memory is collected, again and
// again, is whole.
func TestStarlarkCollects(t *testing.T) {
	h := sdktest.New(t)
	h.Target.Records = map[string]map[string]string{}
	got := runText(t, starlark(t, h), `
r = target.records("many")
for i in range(1000):
    waste = [str(i) * 10 for _ in range(200)]
    key = "k%d" % i
    r.put(key, {"n": i, "waste": waste[:20]})
    target.write("/f", waste[0])
    if target.read("/f") != waste[0] or r.get(key)["waste"][19] != waste[19]:
        fail("it is not what was written, in turn", i)
total = 0
start = ""
while True:
    page = r.list(start = start)
    for x in page.items:
        total += x.value["n"]
    start = page.next
    if not start: break
total
`)
	if got != "499500" {
		t.Error(got)
	}
}
