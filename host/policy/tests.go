package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/circles-host/circles/host/budget"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// TestsFile is the name of the file beside the policies in which their owner
// says what is to come of them.
const TestsFile = "tests.toml"

// Test is a case that an owner wrote down: what is to become of one script.
//
//	[[test]]
//	name   = "friends may sign, and read no diary"
//	as     = "alice"                 # a petname or did:key; circles.toml says what she belongs to
//	module = "guestbook"             # as it is in the layers now, or sha256:…
//	entry  = "sign"                  # none is the default entry
//	expect = "permit"                # or "refuse"
//	allow  = ["read /guestbook/a"]   # what it may do to files and records once it runs
//	deny   = ["read /diary.txt"]     # and may not
//	params = '{"guests": 5}'         # or their size, 100, in bytes; none if not said
//	at     = 2026-06-01T12:00:00Z    # when; now if not said
//	transport = "local"              # "http" if not said
//	used   = {hour = {scripts = 20}} # by its scripts before: minute, hour, day; scripts, fuel, bytes
//
// as, module and expect must be there.
type Test struct {
	Name   string
	Line   int // of its [[test]], from 1
	As     string
	Module script.Logic // by name or digest
	Entry  string
	Permit bool // what is expected
	Allow  []Need
	Deny   []Need
	Params int       // bytes
	Args   []byte    // the params themselves, if they were said
	At     time.Time // zero: now
	// Transport is "http" if it was not said.
	Transport string
	Used      budget.Used
}

const (
	maxTests     = 1000
	maxTestNeeds = 1000 // of one test, each way
)

// ReadTests reads the tests beside the policies of dir. The error wraps
// fs.ErrNotExist when there are none, and is Problems when the file is at fault.
// Like Load it reads nothing outside of dir, and nothing but a regular file.
func ReadTests(dir string) ([]Test, error) {
	root, err := os.OpenRoot(dir + "/.") // what is no directory fails at once, a pipe too
	if err != nil {
		return nil, fmt.Errorf("read policy tests: %w", err)
	}
	defer root.Close()
	info, err := root.Stat(TestsFile)
	if err != nil {
		return nil, fmt.Errorf("read policy tests %s: %w", filepath.Join(dir, TestsFile), err)
	}
	text, err := readFile(root, listed{name: TestsFile, mode: info.Mode()})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read policy tests %s: %w", filepath.Join(dir, TestsFile), err)
	}
	if err != nil {
		return nil, Problems{{File: TestsFile, Message: err.Error()}}
	}
	return ParseTests(TestsFile, text)
}

// testText is a Test as it is written. Pointers tell what is not there from
// what is empty.
type testText struct {
	Name   string    `toml:"name"`
	As     string    `toml:"as"`
	Module string    `toml:"module"`
	Entry  string    `toml:"entry"`
	Expect *string   `toml:"expect"`
	Allow  []string  `toml:"allow"`
	Deny   []string  `toml:"deny"`
	Params any       `toml:"params"`
	At     time.Time `toml:"at"`

	Transport string     `toml:"transport"`
	Used      usedByText `toml:"used"`
}

type usedByText struct {
	Minute amountText `toml:"minute"`
	Hour   amountText `toml:"hour"`
	Day    amountText `toml:"day"`
}

type amountText struct {
	Scripts int64 `toml:"scripts"`
	Fuel    int64 `toml:"fuel"`
	Bytes   int64 `toml:"bytes"`
}

// used is what was used at least in each window, as what was used within a minute
// was within the hour too.
func (w usedByText) used() (u budget.Used, err error) {
	wider := func(a budget.Amount, t amountText) (budget.Amount, error) {
		if t.Scripts < 0 || t.Fuel < 0 || t.Bytes < 0 {
			return a, errors.New("used is less than nothing")
		}
		return budget.Amount{Scripts: max(a.Scripts, t.Scripts), Fuel: max(a.Fuel, t.Fuel), Bytes: max(a.Bytes, t.Bytes)}, nil
	}
	if u.Minute, err = wider(budget.Amount{}, w.Minute); err == nil {
		u.Hour, err = wider(u.Minute, w.Hour)
	}
	if err == nil {
		u.Day, err = wider(u.Hour, w.Day)
	}
	return u, err
}

// ParseTests is ReadTests for a text at hand; file is its name in errors, which
// are Problems. A key that is not one is a mistake: a deny that is misspelt would
// be a test that tests nothing.
func ParseTests(file, text string) ([]Test, error) {
	at := func(line, column int, format string, a ...any) error {
		p := Problem{File: file, Line: line, Column: column, Message: clip(fmt.Sprintf(format, a...))}
		if line > 0 && utf8.ValidString(text) {
			p.Source = excerpt(text, line, column)
		}
		return Problems{p}
	}
	if len(text) > maxFile {
		return nil, at(0, 0, "is larger than %d KiB; split it", maxFile>>10)
	}
	var all struct {
		Test []testText `toml:"test"`
	}
	err := toml.NewDecoder(strings.NewReader(text)).DisallowUnknownFields().Decode(&all)
	var strict *toml.StrictMissingError
	var decode *toml.DecodeError
	switch {
	case errors.As(err, &strict) && len(strict.Errors) > 0:
		line, column := strict.Errors[0].Position()
		key := strict.Errors[0].Key()
		if len(key) > 1 {
			return nil, at(line, column, "a test has no key %q: it has name, as, module, entry, expect, allow, deny, params, at, transport and used", key[len(key)-1])
		}
		return nil, at(line, column, "there is no key %q here: a test begins with the line [[test]]", strings.Join(key, "."))
	case errors.As(err, &decode):
		line, column := decode.Position()
		return nil, at(line, column, "%s", strings.TrimPrefix(decode.Error(), "toml: "))
	case err != nil:
		return nil, at(0, 0, "%s", strings.TrimPrefix(err.Error(), "toml: "))
	case len(all.Test) == 0:
		return nil, at(0, 0, "has no test in it; a test begins with the line [[test]]")
	case len(all.Test) > maxTests:
		return nil, at(0, 0, "has %d tests, at most %d are run; split it", len(all.Test), maxTests)
	}
	lines := TableLines([]byte(text), "test")
	tests := make([]Test, 0, len(all.Test))
	first := make(map[string]int, len(all.Test))
	var problems Problems
	for i, written := range all.Test {
		line := 0 // of tests that are written as an array of inline tables
		if len(lines) == len(all.Test) {
			line = lines[i]
		}
		t, err := written.test()
		t.Line = line
		if t.Name == "" {
			t.Name = fmt.Sprintf("test %d", i+1)
		}
		if err == nil && first[t.Name] > 0 {
			err = fmt.Errorf("another test has this name, number %d; give one of them another", first[t.Name])
		}
		if err != nil {
			p := Problem{File: file, Line: line, Message: clip(fmt.Sprintf("test %q: %v", t.Name, err))}
			if line > 0 {
				p.Column = 1
			}
			problems = append(problems, p)
			continue
		}
		first[t.Name] = i + 1
		tests = append(tests, t)
	}
	if problems != nil {
		return nil, problems
	}
	return tests, nil
}

// TableLines are the lines of text, from 1, where an array of tables of that name goes
// on: of each [[test]], for "test". TOML that cannot be read has as many as there are
// before the mistake.
func TableLines(text []byte, name string) (lines []int) {
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.ArrayTable {
			continue
		}
		key := e.Key()
		key.Next()
		if bytes.Equal(key.Node().Data, []byte(name)) && key.IsLast() {
			lines = append(lines, p.Shape(key.Node().Raw).Start.Line)
		}
	}
	return lines
}

func (w testText) test() (t Test, err error) {
	t = Test{Name: graphic(w.Name), As: w.As, Entry: w.Entry, At: w.At, Transport: cmp.Or(w.Transport, "http")}
	switch {
	case w.As == "":
		return t, errors.New(`as is missing: who sends the script, as = "alice"`)
	case w.Module == "":
		return t, errors.New(`module is missing: what is to run, module = "guestbook"`)
	case w.Expect == nil:
		return t, errors.New(`expect is missing: expect = "permit" or "refuse"`)
	case *w.Expect != "permit" && *w.Expect != "refuse":
		return t, fmt.Errorf(`expect is %q: it must be "permit" or "refuse"`, *w.Expect)
	case len(w.Allow) > maxTestNeeds || len(w.Deny) > maxTestNeeds:
		return t, fmt.Errorf("allow or deny has more than %d lines; make several tests of it", maxTestNeeds)
	}
	switch p := w.Params.(type) {
	case nil:
	case string:
		t.Args, t.Params = []byte(p), len(p)
	case int64:
		if t.Params = int(p); p < 0 || p > script.MaxParams {
			return t, fmt.Errorf("params is %d: it is a number of bytes, up to %d, or the params as text", p, script.MaxParams)
		}
	default:
		return t, errors.New(`params is neither text nor a number of bytes: params = '{"guests": 5}'`)
	}
	if t.Used, err = w.Used.used(); err != nil {
		return t, err
	}
	t.Permit = *w.Expect == "permit"
	if !t.Permit && len(w.Allow)+len(w.Deny) > 0 {
		// It would hold whatever the policies say of files.
		return t, errors.New("a script that is refused touches nothing: leave out allow and deny, or expect a permit")
	}
	t.Module.Name = w.Module
	if strings.HasPrefix(w.Module, "sha256:") {
		t.Module.Name = ""
		if t.Module.Digest, err = script.ParseDigest(w.Module); err != nil {
			return t, fmt.Errorf("module: %w", err)
		}
	}
	if t.Allow, err = ParseNeeds(w.Allow); err != nil {
		return t, fmt.Errorf("allow: %w", err)
	}
	if t.Deny, err = ParseNeeds(w.Deny); err != nil {
		return t, fmt.Errorf("deny: %w", err)
	}
	return t, nil
}

// ParseNeeds reads texts such as "read /guestbook/a", "get bookings/today" and "call audit": an
// action, a space, and all the rest a path, a record or a module.
func ParseNeeds(texts []string) ([]Need, error) {
	var needs []Need
	for _, text := range texts {
		action, path, ok := strings.Cut(text, " ")
		if !ok {
			return nil, fmt.Errorf("%q: write an action and a path or record, as in \"read /notes.txt\" or \"get notes/today\"", text)
		}
		a, err := parseAction(action)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		// What no script can name is denied whatever the policies say.
		if wrong := wrongResource(a, path); wrong != "" {
			what := "path"
			switch {
			case a == Call:
				what = "module"
			case a.OfRecords():
				what = "record"
			}
			return nil, fmt.Errorf("%q: %s: %s", text, what, wrong)
		}
		needs = append(needs, Need{Action: a, Path: path})
	}
	return needs, nil
}

// TestResult is what came of a Test.
type TestResult struct {
	Test    Test
	Problem error // why it could not be asked; then the rest is zero
	Submit  Verdict
	Allow   []Explained // as Test.Allow
	Deny    []Explained // as Test.Deny
}

// Passed reports whether all was as the owner expects it. What could not be
// asked has not passed: a refusal for want of a module says nothing of policies.
func (r TestResult) Passed() bool {
	return r.Problem == nil && r.Submit.Permitted == r.Test.Permit && len(r.Submit.Failed) == 0 && r.Submit.Problem == nil &&
		!slices.ContainsFunc(r.Allow, func(x Explained) bool { return x.Denied != nil }) &&
		!slices.ContainsFunc(r.Deny, func(x Explained) bool { return x.Denied == nil || len(x.Denied.Verdict.Failed) > 0 })
}

// Meet finds what a Test speaks of: the parties, as the owner's circles have
// them, and the code. Code that is not found is an error of Test's.
type Meet func(Test) (peer.Parties, Code, error)

// Test runs the tests, in order, and touches nothing else. A refusal because a
// policy could not be evaluated passes no test: it is a mistake in the policy,
// even where it refuses what was to be refused.
func (s *Set) Test(tests []Test, meet Meet, now time.Time) []TestResult {
	results := make([]TestResult, len(tests))
	for i, t := range tests {
		r := &results[i]
		r.Test = t
		parties, code, err := meet(t)
		if err == nil && !code.Found {
			err = errors.New("there is no such module")
		}
		if err != nil {
			r.Problem = err
			continue
		}
		request := Request{Parties: parties, Code: code, Entry: t.Entry, Params: t.Params, Args: t.Args, Now: now, Transport: t.Transport, Used: t.Used}
		if !t.At.IsZero() {
			request.Now = t.At
		}
		x := s.Explain(request, slices.Concat(t.Allow, t.Deny)...)
		r.Submit, r.Allow, r.Deny = x.Submit, x.Needs[:len(t.Allow)], x.Needs[len(t.Allow):]
	}
	return results
}

// Failing says which of the results are not as the owner expects, as Problems of
// TestsFile; nil if all are.
func Failing(results []TestResult) error {
	var ps Problems
	for _, r := range results {
		if r.Passed() {
			continue
		}
		p := Problem{File: TestsFile, Line: r.Test.Line, Message: clip(fmt.Sprintf("test %q fails: %s", r.Test.Name, r.failure()))}
		if p.Line > 0 {
			p.Column = 1
		}
		ps = append(ps, p)
	}
	if ps == nil {
		return nil
	}
	return ps
}

// failure is the first thing that is not as it should be.
func (r TestResult) failure() string {
	if r.Problem != nil {
		return r.Problem.Error()
	}
	if v := r.Submit; v.Permitted != r.Test.Permit || len(v.Failed) > 0 || v.Problem != nil {
		expected := "refuse"
		if r.Test.Permit {
			expected = "permit"
		}
		return fmt.Sprintf("it expects %s, and %s", expected, v)
	}
	for _, x := range r.Allow {
		if x.Denied != nil {
			return fmt.Sprintf("%s %s must be allowed, and %s", x.Action, shortened(x.Path), x.Denied.Verdict)
		}
	}
	for _, x := range r.Deny {
		if x.Denied == nil {
			return fmt.Sprintf("%s %s must be denied, and %s", x.Action, shortened(x.Path), Verdict{Permitted: true, Policies: x.By})
		}
		if v := x.Denied.Verdict; len(v.Failed) > 0 {
			return fmt.Sprintf("%s %s must be denied, and %s", x.Action, shortened(x.Path), v)
		}
	}
	return "it does not say why" // Passed and this look at the same
}
