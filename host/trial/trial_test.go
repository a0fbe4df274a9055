package trial_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/trial"
	"github.com/circles-host/circles/modules"
)

// run runs cases of the guestbook.
func run(t *testing.T, text string) []trial.Result {
	t.Helper()
	cases, err := trial.ParseCases("cases.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := modules.Get("guestbook")
	if !ok {
		t.Fatal("there is no guestbook")
	}
	open := 0
	results, err := trial.Run(t.Context(), trial.Config{
		Wasm: m.Wasm, Name: "guestbook", CacheDir: t.TempDir(),
		OpenStore: func() (store.Store, error) { open++; return counted{mem.New(mem.Config{}), &open}, nil },
	}, cases)
	if err != nil {
		t.Fatal(err)
	}
	if open != 0 {
		t.Errorf("%d contexts were left open", open)
	}
	return results
}

type counted struct {
	store.Store
	open *int
}

func (c counted) Close() error {
	*c.open--
	return c.Store.Close()
}

func TestRun(t *testing.T) {
	for _, r := range run(t, `
[[case]]
name   = "signs, with a card"
entry  = "sign"
params = { message = "Lovely!" }
caller = { "/card.txt" = "Alice, Oxford\n" }
before = { "/guestbook/entries.txt" = "1. bob: Welcome\n", "/guestbook/count" = "1\n", "/diary.txt" = "secret" }
result = { entry = 2, text = "2. alice: Lovely! (Alice, Oxford)" }
[case.after]
"/guestbook/entries.txt" = "1. bob: Welcome\n2. alice: Lovely! (Alice, Oxford)\n"
"/guestbook/count"       = "2\n"
"/diary.txt"             = true
"/card.txt"              = false

[[case]]
name    = "starts a book"
as      = "carol"
params  = '{"message":"First"}'
matches = '"entry":1,'
after   = { "/guestbook/entries.txt" = { matches = '^1\. carol: First' }, "/guestbook/count" = { base64 = "MQo=" } }

[[case]]
name    = "wants a message"
params  = "{}"
expect  = "failed"
message = "want {"
after   = {}

[[case]]
name    = "may not write"
allow   = ["read /guestbook"]
params  = { message = "x" }
expect  = "failed"
after   = { "/guestbook/entries.txt" = false }

[[case]]
name    = "is told what it may not do"
allow   = ["read /guestbook"]
params  = { message = "x" }
expect  = "failed"
denied  = ["write /guestbook"]

[[case]]
name    = "is denied nothing"
params  = { message = "x" }
denied  = []

[[case]]
name    = "is stopped by the limits of its permit"
limits  = "fuel=10"
params  = { message = "x" }
expect  = "over-limit"

[[case]]
name    = "an owner is a caller like any other"
as      = "bob"
params  = { message = "mine" }
matches = "bob: mine"
after   = { "/guestbook/entries.txt" = "1. bob: mine\n", "/guestbook/count" = true }

[[case]]
name    = "has no such entry"
entry   = "burn"
expect  = "not-found"
`) {
		for _, p := range r.Problems {
			t.Errorf("case %q, line %d: %s", r.Case.Name, r.Case.Line, p)
		}
	}
}

// What is not as a case says is found, each in its own way.
func TestRunFinds(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{`result = { entry = 2, text = "1. alice: x" }`, `result is "{\"entry\":1,`},
		{`result = "no"`, `result is `},
		{`matches = "^entry"`, `want what matches "^entry"`},
		{`log = "signed"`, `log is "", want "signed"`},
		{`expect = "failed"`, "it is done, want failed: result"},
		{`after = { "/guestbook/count" = "1\n" }`, "/guestbook/entries.txt was created, and after does not name it"},
		{`after = { "/guestbook/count" = "2\n", "/guestbook/entries.txt" = true }`, `/guestbook/count is "1\n", want "2\n"`},
		{`after = { "/guestbook/count" = false, "/guestbook/entries.txt" = true }`, "/guestbook/count is there, and should not be"},
		{`after = { "/guestbook/count" = true, "/guestbook/entries.txt" = true, "/x/y" = true }`, "/x/y is not there"},
		{`after = { "/guestbook/count" = true, "/guestbook/entries.txt" = true, "cards/home" = true }`, "cards/home is not there"},
		{"before = { \"cards/home\" = \"a\" }\nafter = { \"/guestbook/count\" = true, \"/guestbook/entries.txt\" = true, \"cards/home\" = \"b\" }", `cards/home is "a", want "b"`},
		{"allow = [\"read /guestbook\"]\nexpect = \"failed\"\ndenied = []", "write /guestbook was denied, and denied does not name it: no policy"},
		{"denied = [\"write /guestbook\"]", "write /guestbook was allowed, and should be denied"},
		{"denied = [\"read /diary.txt\"]", "read /diary.txt was not even asked for"},
		{"allow = []\nmatches = \"x\"", "it is failed, want done"},
		{"expect = \"failed\"\nallow = []\nmessage = \"no room\"", `want one with "no room"`},
	} {
		results := run(t, "[[case]]\nname = \"a\"\nparams = { message = \"x\" }\n"+test.text)
		if found := strings.Join(results[0].Problems, "\n"); !strings.Contains(found, test.want) {
			t.Errorf("%s\nfound %q\nwant  %q", test.text, found, test.want)
		}
	}
}

func TestParseCasesRefuses(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "has no case in it"},
		{"[[case]]\n", "c.toml:1: case 1, \"\": name is missing"},
		{"[[cases]]\nname = \"a\"\n", "a case begins with the line [[case]]"},
		{"[[case]]\nname = \"a\"\naftr = {}\n", "c.toml:3:1: a case has no key \"aftr\""},
		{"[[case]]\nname = \"a\"\nparams = \n", "c.toml:3:"},
		{"[[case]]\nname = \"a\"\n[[case]]\nname = \"a\"\n", "c.toml:3: case 2, \"a\": another has this name"},
		{"[[case]]\nname = \"a\"\nas = \"Alice Liddell\"\n", "as: "},
		{"[[case]]\nname = \"a\"\nexpect = \"dead\"\n", "expect: "},
		{"[[case]]\nname = \"a\"\nlend = [\"write /x\"]\n", "what is lent can be read"},
		{"[[case]]\nname = \"a\"\nallow = [\"/x\"]\n", "allow: "},
		{"[[case]]\nname = \"a\"\ndenied = [\"eat /x\"]\n", "denied: "},
		{"[[case]]\nname = \"a\"\nlimits = \"much\"\n", "limits: "},
		{"[[case]]\nname = \"a\"\nbefore = { \"x\" = \"\" }\n", "neither an absolute path nor a record"},
		{"[[case]]\nname = \"a\"\nbefore = { \"/../x\" = \"\" }\n", "want the path of a file"},
		{"[[case]]\nname = \"a\"\nbefore = { \"/.circles/x\" = true }\n", "want the text that is there"},
		{"[[case]]\nname = \"a\"\nafter = { \"/x\" = 1 }\n", "after: /x: want a text, true, false"},
		{"[[case]]\nname = \"a\"\nafter = { \"/x\" = { matches = \"(\" } }\n", "after: /x: error parsing regexp"},
		{"[[case]]\nname = \"a\"\nresult = 1\nmatches = \"1\"\n", "it has result and matches"},
		{"[[case]]\nname = \"a\"\nresult = 1\nexpect = \"failed\"\n", "has no result"},
		{"[[case]]\nname = \"a\"\nmessage = \"x\"\n", "has no message"},
		{"[[case]]\nname = \"a\"\nas = \"bob\"\ncaller = { \"/x\" = \"\" }\n", "the caller is the target"},
		{strings.Repeat("[[case]]\nname = \"a\"\n", 1001), "at most 1000 are run"},
		{"[[case]]\nname = \"\xff\"\n", "c.toml:"},
	} {
		_, err := trial.ParseCases("c.toml", []byte(test.text))
		var wrong *trial.CasesError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.60q: %v, want %q", test.text, err, test.want)
		}
	}
}

func TestReadCases(t *testing.T) {
	file := filepath.Join(t.TempDir(), trial.CasesFile)
	if _, err := trial.ReadCases(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := trial.ReadCases(file); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("a directory: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("[[case]]\nname = \"a\"\nparams = [1, 2.5, \"<b>\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases, err := trial.ReadCases(file)
	if err != nil || len(cases) != 1 || string(cases[0].Params) != `[1,2.5,"<b>"]` || cases[0].Allow != nil || cases[0].Want.Code != script.Done {
		t.Errorf("%+v, %v", cases, err)
	}
}

func TestWriteJUnit(t *testing.T) {
	results := []trial.Result{
		{Case: &trial.Case{Name: "works", Line: 1}},
		{Case: &trial.Case{Name: "<does> not\x00", Line: 9}, Problems: []string{"result is \"\x1b[31m\"", "log & all"}, Receipt: script.Receipt{Log: []byte("\xff]]>")}},
	}
	var b bytes.Buffer
	if err := trial.WriteJUnit(&b, "guestbook", "cases.toml", results); err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Name    string `xml:"name,attr"`
			Line    int    `xml:"line,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
				Text    string `xml:",chardata"`
			} `xml:"failure"`
			Output string `xml:"system-out"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(b.Bytes(), &suite); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	if suite.Tests != 2 || suite.Failures != 1 || len(suite.Cases) != 2 || suite.Cases[0].Failure != nil || suite.Cases[0].Line != 1 {
		t.Fatalf("%+v", suite)
	}
	bad := suite.Cases[1]
	if bad.Name != "<does> not\uFFFD" || bad.Failure == nil || bad.Failure.Text != "result is \"\uFFFD[31m\"\nlog & all" || bad.Output != "\uFFFD]]>" {
		t.Errorf("%+v", bad)
	}
}
