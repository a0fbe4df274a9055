package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/modules/languages"
)

// textLanguages are the languages as a host is given them.
func textLanguages() (all []engine.Language) {
	for _, l := range languages.All() {
		all = append(all, engine.Language{Name: l.Name, Suffix: l.Suffix, Digest: l.Digest, Wasm: l.Wasm})
	}
	return all
}

// languageTexts are the texts of the suite in each language, by the names of textCases.
var languageTexts = map[string]map[string]string{
	"javascript": javascriptTexts,
	"rhai":       rhaiTexts,
	"starlark":   starlarkTexts,
}

// textCase is a call of a text, and what must become of it. In each language the text of
// that name does what about says.
type textCase struct {
	name, about   string
	entry, params string

	result  string // as it is; or as JSON, where it begins with { or [
	code    script.Code
	or      script.Code // as well
	message string      // a part of the receipt's
	at      bool        // the message begins with the LINE:COLUMN of the text's mark, see marked
	log     string      // a part of the log
}

// textCases are what all languages can do. A text has NAME, or NAME:ENTRY where one text
// has several.
var textCases = []textCase{
	{name: "value", about: "returns an object: n is params.n + 1, s is params.s, l is params.l with 4 at its end, t true, and none the value that JSON calls null",
		params: `{"n":2,"s":"né","l":[1,"x",null]}`, result: `{"n":3,"s":"né","l":[1,"x",null,4],"t":true,"none":null}`},
	{name: "text", about: "returns params and !, which are text", params: "no JSON, né", result: "no JSON, né!"},
	{name: "text", params: `"of JSON"`, result: "of JSON!"},
	{name: "nothing", about: "returns nothing", params: "{}", result: ""},
	{name: "empty", about: "returns whether there are no params", result: "true"},
	{name: "empty", params: "0", result: "false"},
	{name: "hello", about: `writes "hello " and the caller's name to hi.txt of the target, and returns nothing`, result: ""},
	{name: "ids", about: "returns the list of caller's id and name, target's id and name", result: `["ALICE","alice","BOB","bob"]`},
	{name: "lent", about: "returns the text of the caller's /card.txt", result: "Alice Liddell"},
	{name: "files", about: `makes the directory /d, writes "a" to /d/f, appends "b", and returns an object: text is what it reads there, names a list of the names in /d, kind and size what stat says of /d/f, gone the code of the error of reading /d/f once it is removed`,
		result: `{"text":"ab","names":["f"],"kind":"file","size":2,"gone":"not-found"}`},
	{name: "records", about: `in the collection notes: puts b = {"n":1}, a = "x", a/1 = 5 and c = [], deletes c, and returns an object: b is what it gets for b, a for a, keys a list of the keys, some the keys of the list from a on with prefix a and a limit of 1, next its next, gone the code of the error of getting c`,
		result: `{"b":{"n":1},"a":"x","keys":["a","a/1","b"],"some":["a"],"next":"a/1","gone":"not-found"}`},
	{name: "replace", about: `in the collection replaced: deletes k, whether it is there or not, replaces k, if there is no such record, by {"n":1}, and returns an object: again is the code of the error of doing that again, other that of replacing {"n":5} by {"n":2}, value what k is after {"n":1} was replaced by {"n":3}`,
		result: `{"again":"conflict","other":"conflict","value":{"n":3}}`},
	{name: "query", about: `in the collection numbers: puts 0 = {"n":0} to 4 = {"n":4}, and returns the keys of the first page of {"where": {"field": "/n", "above": 1}, "order": [{"field": "/n", "descending": true}], "limit": 2}`,
		result: `["4","3"]`},
	{name: "sends", about: `sends alice, from the target, what runs the module entries there, its entry sign, with {"by":"bob"}, and returns its result`, result: "signed bob"},
	{name: "calls", about: `calls the module entries, its entry sign, with {"by":"bob"}, and returns its result`, result: "signed bob"},
	{name: "base", about: `returns "over " and the result of what it stands before, called with its own params`, params: "x", result: "over x!"},
	{name: "log", about: `logs "one" as debug, "two" as info, "three" as warn, "four" as error`, log: "four"},
	{name: "entries", about: `has the entry sign, which returns "signed " and params.by, and read-all, which returns "all", spelled as the language likes, and something that is no entry`,
		entry: "sign", params: `{"by":"alice"}`, result: "signed alice"},
	{name: "entries", entry: "read-all", result: "all"},
	{name: "entries", code: script.NotFound, message: "sign"},
	{name: "constant", about: "has an entry run, and outside of it a value that is computed when it is loaded: 6 times 7, which run returns", result: "42"},
	{name: "state", about: "has an entry run that counts its calls, as far as the language lets it, and returns the count", result: "1"},
	{name: "state", result: "1"},
	{name: "denied", about: "returns the code of the error of reading /secret", result: "denied"},
	{name: "denied-uncaught", about: "reads /secret", code: script.Failed, message: "/secret", at: true},
	{name: "failure", about: "calls a function that uses a name that is nowhere", code: script.Failed, at: true},
	{name: "thrown", about: `ends with the script's own error "no room", as the language has it`, code: script.Failed, message: "no room"},
	{name: "endless", about: "loops", code: script.OverLimit, message: "fuel"},
	{name: "recursive", about: "has a function that calls itself, and no end", code: script.Failed, or: script.OverLimit},
	{name: "greedy", about: "makes a list, or a text, ever larger", code: script.OutOfMemory},
	{name: "wordy", about: "logs without end", code: script.OverLimit},
}

// textProblems are texts that cannot be loaded. The name of the text says which.
var textProblems = []struct {
	name, about string
	message     string
	at          bool
}{
	{name: "broken", about: "is no text of the language", at: true},
	{name: "early", about: "reads /secret of the target outside of its entry run", at: true},
	{name: "endless-early", about: "loops outside of its entry run; where the language has no such loop, it computes as long as it can"},
}

// mark stands in a text before the place that an error is at.
const mark = "¶"

// marked takes the mark out of a text, and says where it was.
func marked(text string) (rest, at string) {
	before, after, ok := strings.Cut(text, mark)
	if !ok {
		return text, ""
	}
	line := before[strings.LastIndexByte(before, '\n')+1:]
	return before + after, fmt.Sprintf("%d:%d: ", strings.Count(before, "\n")+1, len([]rune(line))+1)
}

// TestLanguages is the suite of every language: values, objects, errors with their
// places, texts that mean harm, and that no run sees anything of another.
func TestLanguages(t *testing.T) {
	for _, l := range textLanguages() {
		t.Run(l.Name, func(t *testing.T) { runLanguage(t, l, languageTexts[l.Name]) })
	}
}

func runLanguage(t *testing.T, l engine.Language, texts map[string]string) {
	w := newWorld(t, "alice", "bob")
	places := map[string]string{}
	dir := filepath.Join(w.root.Dir, "modules")
	for _, c := range textCases {
		text, ok := texts[c.name]
		if !ok {
			t.Fatalf("there is no text %q, which %s", c.name, c.about)
		}
		text, places[c.name] = marked(text)
		at := dir
		if c.name == "base" { // the peer's own, before one of the host's
			at = filepath.Join(w.entry("bob").Dir, "modules")
			if err := os.WriteFile(filepath.Join(dir, "base"+l.Suffix), []byte(texts["text"]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(at, c.name+l.Suffix), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.put("alice", "/card.txt", "Alice Liddell")
	w.put("bob", "/secret", "x")
	if err := os.WriteFile(filepath.Join(w.entry("alice").Dir, "policy", "all.cedar"), []byte(`permit(principal, action, resource);`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.policy("bob", "all", `@id("all") @limits("fuel=300M, memory=48MiB, time=60s, output=1MiB") permit(principal, action, resource);
		forbid (principal, action == Action::"read", resource in Path::"/secret");`)
	if err := w.host.Problem(); err != nil {
		t.Fatal(err)
	}
	send := func(c textCase) script.Receipt {
		t.Helper()
		return w.send("alice", "bob", script.Script{Logic: script.Logic{Name: c.name}, Entry: c.entry, Params: []byte(c.params),
			Lent: []script.Grant{{Action: script.Read, Path: "/card.txt"}}})
	}
	for _, c := range textCases {
		r := send(c)
		want, code := c.result, c.code
		want = strings.NewReplacer("ALICE", string(w.entry("alice").ID), "BOB", string(w.entry("bob").ID)).Replace(want)
		if code == script.Unknown {
			code = script.Done
		}
		if c.or != script.Unknown && r.Code == c.or {
			code = c.or
		}
		if r.Code != code || !sameResult(string(r.Result), want) {
			t.Errorf("%s %s %q: %v %q %s, want %v %q", c.name, c.entry, c.params, r.Code, r.Result, r.Message, code, want)
		}
		if !strings.Contains(r.Message, c.message) || !strings.Contains(string(r.Log), c.log) {
			t.Errorf("%s %q: %s, log %q, want in it %q, and in the log %q", c.name, c.params, r.Message, r.Log, c.message, c.log)
		}
		if c.name == "greedy" && len(r.Log) > 0 {
			t.Errorf("who wrote the text is told %q of the interpreter", r.Log)
		}
		if c.at && (places[c.name] == "" || !strings.HasPrefix(r.Message, places[c.name])) {
			t.Errorf("%s: %q, want it to begin with %q", c.name, r.Message, places[c.name])
		}
		if again := send(c); code == script.Done && again.Usage.Fuel != r.Usage.Fuel && !slices.Contains([]string{"files", "records", "hello", "replace", "query", "sends"}, c.name) {
			t.Errorf("%s takes %d fuel, and then %d", c.name, r.Usage.Fuel, again.Usage.Fuel)
		}
	}
	if got := w.read("bob", "/hi.txt"); got != "hello alice" {
		t.Errorf("/hi.txt is %q", got)
	}
	w.records("bob", func(c *records.Collections) error {
		b, err := c.Get(context.Background(), "notes", "b")
		if string(b) != `{"n":1}` {
			t.Errorf("notes/b is %q %v", b, err)
		}
		return nil
	})
	t.Run("load", func(t *testing.T) { loadLanguage(t, w, l, texts) })
}

// sameResult compares JSON by what it means.
func sameResult(got, want string) bool {
	if want == "" || want[0] != '{' && want[0] != '[' {
		return got == want
	}
	var a, b any
	return json.Unmarshal([]byte(got), &a) == nil && json.Unmarshal([]byte(want), &b) == nil && reflect.DeepEqual(a, b)
}

// loadLanguage loads texts that are none, and none of them ends the host or what is
// loaded after.
func loadLanguage(t *testing.T, w *world, l engine.Language, texts map[string]string) {
	e, err := engine.New(t.Context(), engine.Config{CacheDir: cacheDir, Languages: []engine.Language{l}}, host.HostModules()...)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(t.Context())
	problem := func(name, text string) string {
		t.Helper()
		p, err := e.Load(t.Context(), l.Name, []byte(text))
		if err == nil {
			t.Errorf("%s: it was loaded", name)
			p.Close()
			return ""
		}
		var bad *engine.TextError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v, which is no fault of the text's", name, err)
			return ""
		}
		return bad.Message
	}
	for _, c := range textProblems {
		text, ok := texts[c.name]
		if !ok {
			t.Fatalf("there is no text %q, which %s", c.name, c.about)
		}
		text, at := marked(text)
		got := problem(c.name, text)
		if c.at && (at == "" || !strings.HasPrefix(got, at)) || !strings.Contains(got, c.message) || got == "" {
			t.Errorf("%s: %q, want it to begin with %q", c.name, got, at)
		}
	}
	for _, deep := range []string{"(", "[", "-", "{", "f(", "if true {", "x = ", "\"", "/*", "(1, "} {
		if got := problem("deep "+deep, strings.Repeat(deep, (engine.MaxText-1)/len(deep))); len(got) > 16<<10 {
			t.Errorf("%q within each other: a message of %d bytes", deep, len(got))
		}
	}
	for name, text := range map[string]string{
		"1:1: it begins with a byte order mark": "\ufeff1",
		"2:4: it has a NUL byte":                "1;\n2; \x00",
		"2:3: it is not UTF-8":                  "1\né \xff",
		"1:1: it is UTF-16":                     "\xff\xfe1\x00",
		"it is empty":                           "\n \n",
		"a text may have 262144":                strings.Repeat("1;", engine.MaxText),
	} {
		if got := problem(name, text); !strings.HasPrefix(got, name) && !strings.HasSuffix(got, name) && !strings.Contains(got, name) {
			t.Errorf("%q", got)
		}
	}
	// A long one, and one after all of these.
	for name, text := range map[string]string{"long": strings.Repeat("1;\n", 10_000) + texts["value"], "value": texts["value"]} {
		p, err := e.Load(t.Context(), l.Name, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if i := p.Info(); i.Image == 0 || !reflect.DeepEqual(i.Entries, []string{"run"}) || i.Language != l.Name {
			t.Errorf("%s: %+v", name, i)
		}
		p.Close()
	}
}
