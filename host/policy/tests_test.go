package policy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

const written = `# what is to come of it
[[test]]
name = "friends sign"
as = "alice"
module = "guestbook"
entry = "sign"
expect = "permit"
allow = ["read /guestbook/a b", "write /guestbook"]
deny = ["read /diary.txt"]

[[test]]
as = "mallory"
module = "guestbook"
entry = "sign"
expect = "refuse"
`

func meet(t Test) (peer.Parties, Code, error) {
	people := map[string]peer.Peer{"alice": alice, "mallory": mallory, string(alice.ID): alice, string(mallory.ID): mallory}
	who, ok := people[t.As]
	if !ok {
		return peer.Parties{}, Code{}, errors.New("no peer is called so")
	}
	if t.Module.Name != guestbook.Name {
		return peer.Parties{Caller: who, Target: bob}, Code{}, nil
	}
	return peer.Parties{Caller: who, Target: bob}, guestbook, nil
}

func TestPolicyTests(t *testing.T) {
	const good = `@id("sign") permit(principal in Circle::"friends", action == Action::"submit", resource);
		@id("files") permit(principal in Circle::"friends", action in Action::"files", resource in Path::"/guestbook");`
	const always = `[[test]]
		as = "alice"
		module = "guestbook"
		expect = "permit"
		`
	tests := []struct {
		name, policy, tests string
		want                string // of the results: "+" passed
	}{
		{"all as expected", good, written, "++"},
		{"nothing is permitted", `// nothing`, written, "-+"},
		{"everybody is let in", good + `permit(principal, action == Action::"submit", resource);`, written, "+-"},
		{"a file too many", good + `permit(principal, action == Action::"read", resource);`, written, "-+"},
		{"a file too few", good + `forbid(principal, action == Action::"write", resource);`, written, "-+"},
		{"a policy that fails passes no refusal", good + `permit(principal == Peer::"mallory", action, resource) when { context.params + 9223372036854775807 > context.params * 9223372036854775807 };`,
			strings.ReplaceAll(written, `expect = "refuse"`, "expect = \"refuse\"\nparams = 2"), "+-"},
		{"a name that nobody has", good, strings.ReplaceAll(written, "mallory", "malory"), "+-"},
		{"a module that is not there proves nothing", good, strings.ReplaceAll(written, `"guestbook"`, `"gestbook"`), "--"},
		{"by the clock: in time", `permit(principal, action, resource) when { context.now < datetime("2026-06-02") };`, always + "at = 2026-06-01T12:00:00Z", "+"},
		{"by the clock: too late", `permit(principal, action, resource) when { context.now < datetime("2026-06-02") };`, always + "at = 2026-06-02T00:00:00Z", "-"},
		{"by the entry", `permit(principal, action, resource) when { context.entry == "" };`, always, "+"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cases, err := ParseTests(TestsFile, tt.tests)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			results := parse(t, tt.policy).Test(cases, meet, noon)
			for _, r := range results {
				if r.Passed() {
					got += "+"
				} else {
					got += "-"
				}
			}
			if got != tt.want {
				t.Errorf("passed %s, want %s: %+v", got, tt.want, results)
			}
		})
	}
	if r := Broken(errors.New("x")).Test([]Test{{As: "mallory", Module: script.Logic{Name: guestbook.Name}}}, meet, noon)[0]; r.Passed() {
		t.Errorf("policies that are not in force refuse, and pass: %+v", r)
	}
}

func TestParseTestsStrictly(t *testing.T) {
	const head = "[[test]]\nas = \"alice\"\nmodule = \"m\"\n"
	tests := []struct{ name, text, want string }{
		{"empty", "", "tests.toml: has no test in it"},
		{"comments only", "# nothing\n", "has no test in it"},
		{"a key that is none", head + "expect = \"permit\"\ndenies = [\"read /x\"]\n", `tests.toml:5:1: a test has no key "denies"`},
		{"a table that is none", "[[tests]]\nas = \"alice\"\n", `tests.toml:1:`},
		{"a key outside", "as = \"alice\"\n", `tests.toml:1:1: there is no key "as" here`},
		{"not TOML", head + "expect = permit\n", "tests.toml:4:"},
		{"of another type", head + "expect = 1\n", "tests.toml:4:"},
		{"no expect", "\n" + head, `tests.toml:2:1: test "test 1": expect is missing`},
		{"another expect", head + "expect = \"deny\"\n", `must be "permit" or "refuse"`},
		{"nobody", "[[test]]\nmodule = \"m\"\nexpect = \"permit\"\n", "as is missing"},
		{"nothing", "[[test]]\nas = \"m\"\nexpect = \"permit\"\n", "module is missing"},
		{"a digest that is none", "[[test]]\nas = \"m\"\nmodule = \"sha256:12\"\nexpect = \"permit\"\n", "64 hex digits"},
		{"no such action", head + "expect = \"permit\"\nallow = [\"append /x\"]\n", "no such action"},
		{"no action", head + "expect = \"permit\"\nallow = [\"/x\"]\n", "write an action and a path"},
		{"a path that nobody can form", head + "expect = \"permit\"\ndeny = [\"read /a/../b\"]\n", `path: has`},
		{"a relative path", head + "expect = \"permit\"\ndeny = [\"read a\"]\n", "not an absolute path"},
		{"files of what is refused", head + "expect = \"refuse\"\ndeny = [\"read /a\"]\n", "a script that is refused touches nothing"},
		{"negative params", head + "expect = \"refuse\"\nparams = -1\n", "a number of bytes"},
		{"one name twice", strings.Repeat("[[test]]\nname = \"x\"\nas = \"a\"\nmodule = \"m\"\nexpect = \"refuse\"\n", 2), `tests.toml:6:1: test "x": another test has this name, number 1`},
		{"too large", strings.Repeat("#", maxFile+1), "is larger than"},
		{"too many", strings.Repeat("[[test]]\n", maxTests+1), "at most 1000 are run"},
		{"an escape sequence", head + "expect = \"\\u001b[2J\"\n", `must be`},
		{"not UTF-8", head + "name = \"\xff\"\n", "tests.toml"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseTests(TestsFile, tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%v, %v; want an error with %q", got, err, tt.want)
			}
		})
	}
}

func TestReadTests(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadTests(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := ReadTests(filepath.Join(dir, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, TestsFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTests(dir); err == nil || strings.Contains(err.Error(), "secret =") {
		t.Errorf("a link out of the directory: %v", err)
	}
	os.Remove(filepath.Join(dir, TestsFile))
	if err := os.WriteFile(filepath.Join(dir, TestsFile), []byte(written), 0o600); err != nil {
		t.Fatal(err)
	}
	tests, err := ReadTests(dir)
	if err != nil || len(tests) != 2 || tests[0].Line != 2 || tests[1].Name != "test 2" || tests[0].Allow[0].Path != "/guestbook/a b" {
		t.Errorf("%+v, %v", tests, err)
	}
}

func FuzzParseTests(f *testing.F) {
	f.Add(written)
	f.Add("test = [{as='a',module='m',expect='refuse'}]")
	set := &Set{}
	f.Fuzz(func(t *testing.T, text string) {
		tests, err := ParseTests(TestsFile, text)
		if err != nil {
			if err.Error() == "" || strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("error %q", err)
			}
			return
		}
		if len(tests) == 0 {
			t.Error("no tests, and no error")
		}
		set.Test(tests, meet, noon)
	})
}

// A test says by what a script comes, and what its caller used before.
func TestTestsOfTransportAndBudget(t *testing.T) {
	s := parse(t, `permit(principal, action == Action::"submit", resource) when { context.transport == "http" && context.used.hour.scripts < 20 };`)
	tests, err := ParseTests(TestsFile, `
[[test]]
name = "within"
as = "alice"
module = "guestbook"
expect = "permit"
used = {hour = {scripts = 19}, day = {fuel = 100}}
[[test]]
name = "over"
as = "alice"
module = "guestbook"
expect = "refuse"
used = {minute = {scripts = 20}}
[[test]]
name = "from here"
as = "alice"
module = "guestbook"
expect = "refuse"
transport = "local"
`)
	if err != nil {
		t.Fatal(err)
	}
	meet := func(Test) (peer.Parties, Code, error) {
		return peer.Parties{Caller: alice, Target: bob}, guestbook, nil
	}
	for _, r := range s.Test(tests, meet, noon) {
		if !r.Passed() {
			t.Errorf("%s: %+v", r.Test.Name, r)
		}
	}
	for _, bad := range []string{"used = {hour = {scripts = -1}}", "used = {week = {scripts = 1}}", "used = 3"} {
		if _, err := ParseTests(TestsFile, "[[test]]\nas = \"alice\"\nmodule = \"guestbook\"\nexpect = \"permit\"\n"+bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
