package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

func policyTestCommand() *cli.Command {
	return &cli.Command{
		Name:      "test",
		Usage:     "run the owner's test cases against a peer's policies, or everybody's",
		ArgsUsage: "[PEER]",
		Description: `The cases are in policy/` + policy.TestsFile + ` of the peer's context, beside the policies:

   [[test]]
   name   = "friends may sign, and read no diary"
   as     = "alice"                # a petname or did:key, in the circles of circles.toml
   module = "guestbook"            # as the layers have it now, or sha256:DIGEST
   entry  = "sign"
   expect = "permit"               # or "refuse"
   allow  = ["write /guestbook"]   # what it may do once it runs
   deny   = ["read /diary.txt"]    # and may not

params = '{"guests": 5}' (or BYTES), at = 2026-06-01T12:00:00Z, transport =
"local" ("http" if not said) and used = {hour = {scripts = 20}} are for policies
that look at them.
Nothing is run. It looks at the files as they are, in force or not. A worker runs
the cases too, whenever a file beside them changes: while one fails, what was in
force before stays, and a worker that starts then permits nothing there.`,
		Flags:  []cli.Flag{rootFlag(), jsonFlag()},
		Action: policyTest,
	}
}

// testedJSON is one peer's tests, for programs.
type testedJSON struct {
	Peer   peer.Name  `json:"peer"`
	Error  string     `json:"error,omitempty"` // why there are no results
	Passed int        `json:"passed"`
	Failed int        `json:"failed"`
	Tests  []testJSON `json:"tests"`
}

type testJSON struct {
	Name     string     `json:"name"`
	Line     int        `json:"line,omitempty"`
	Passed   bool       `json:"passed"`
	Problem  string     `json:"problem,omitempty"` // why it could not be asked
	Expected string     `json:"expected"`
	Actual   string     `json:"actual,omitempty"`
	Policies []string   `json:"policies"` // that decided
	Reason   string     `json:"reason,omitempty"`
	Files    []fileJSON `json:"files,omitempty"`
}

type fileJSON struct {
	Action   script.Action `json:"action"`
	Path     string        `json:"path"`
	Passed   bool          `json:"passed"`
	Expected string        `json:"expected"`
	Actual   string        `json:"actual"`
	Policies []string      `json:"policies"`
	Reason   string        `json:"reason,omitempty"`
}

func policyTest(c *cli.Context) error {
	if err := args(c, 0, 1, "[PEER]"); err != nil {
		return err
	}
	root, peers, err := rootAndAll(c)
	if err != nil {
		return err
	}
	if c.NArg() == 0 {
		// Whoever has written no tests is not asked about.
		peers = slices.DeleteFunc(peers, func(e peer.Entry) bool {
			_, err := os.Lstat(filepath.Join(e.Dir, "policy", policy.TestsFile))
			return err != nil
		})
		if len(peers) == 0 {
			return coded{exitNotFound, fmt.Errorf("nobody in %s has written policy/%s; %s policy test --help shows one", relative(root.Dir), policy.TestsFile, host.Command)}
		}
	}
	p := printerOf(c)
	results := []testedJSON{}
	wrong := 0
	for _, e := range peers {
		tested, err := testPolicies(root, e)
		if errors.Is(err, fs.ErrNotExist) {
			return coded{exitNotFound, fmt.Errorf("%s has no %s; %s policy test --help shows one", e.Name, relative(filepath.Join(e.Dir, "policy", policy.TestsFile)), host.Command)}
		}
		if err != nil {
			tested.Error = relativeIn(filepath.Join(e.Dir, "policy"), err.Error())
			wrong++
		}
		wrong += tested.Failed
		results = append(results, tested)
		if !c.Bool("json") {
			showTested(p, tested, len(peers) > 1)
		}
	}
	if c.Bool("json") {
		if err := p.json(results); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return coded{code: exitInvalid}
	}
	return nil
}

// testPolicies runs the tests of one peer. An error that is not fs.ErrNotExist is
// a mistake in one of the files.
func testPolicies(root *host.Root, e peer.Entry) (testedJSON, error) {
	view := testedJSON{Peer: e.Name, Tests: []testJSON{}}
	dir := filepath.Join(e.Dir, "policy")
	tests, err := policy.ReadTests(dir)
	if err != nil {
		return view, err
	}
	set, err := policy.Load(dir)
	if err != nil {
		return view, errors.New(strings.Join(problems(err), "\n"))
	}
	circles, err := circlesOf(root, e)
	if err != nil {
		return view, err
	}
	for _, r := range set.Test(tests, meetIn(root, e, circles), time.Now()) {
		v := testView(r)
		if v.Passed {
			view.Passed++
		} else {
			view.Failed++
		}
		view.Tests = append(view.Tests, v)
	}
	return view, nil
}

// circlesOf are a peer's circles; without a file there are none.
func circlesOf(root *host.Root, e peer.Entry) (*peer.Circles, error) {
	circles, err := peer.ReadCircles(e.CirclesFile(), root.Peers.Knows)
	if errors.Is(err, fs.ErrNotExist) {
		return &peer.Circles{}, nil
	}
	return circles, err
}

// meetIn finds what tests of a peer's policies speak of.
func meetIn(root *host.Root, e peer.Entry, circles *peer.Circles) policy.Meet {
	read := map[string]located{} // each module once, by name or digest
	return func(t policy.Test) (peer.Parties, policy.Code, error) {
		caller, err := root.Peers.Resolve(t.As)
		if err != nil {
			return peer.Parties{}, policy.Code{}, err
		}
		what := t.Module.Name
		if what == "" {
			what = t.Module.Digest.String()
		}
		m, ok := read[what]
		if !ok {
			if m, err = locate(root, e, t.Module); err != nil {
				return peer.Parties{}, policy.Code{}, err
			}
			read[what] = m
		}
		if !m.found {
			return peer.Parties{}, policy.Code{}, fmt.Errorf("%s has no module %s, so it is refused whatever the policies say; add it, or correct the test", e.Name, what)
		}
		return root.Peers.Meet(caller.ID, e.ID, circles), m.code(), nil
	}
}

func testView(r policy.TestResult) testJSON {
	word := func(ok bool, yes, no string) string {
		if ok {
			return yes
		}
		return no
	}
	v := testJSON{
		Name: r.Test.Name, Line: r.Test.Line, Passed: r.Passed(), Policies: []string{},
		Expected: word(r.Test.Permit, "permit", "refuse"),
	}
	if r.Problem != nil {
		v.Problem = r.Problem.Error()
		return v
	}
	v.Actual, v.Reason = word(r.Submit.Permitted, "permit", "refuse"), r.Submit.String()
	v.Policies = append(v.Policies, r.Submit.Policies...)
	files := func(list []policy.Explained, expected bool) {
		for _, x := range list {
			f := fileJSON{
				Action: x.Action, Path: x.Path, Passed: (x.Denied == nil) == expected, Policies: []string{},
				Expected: word(expected, "allow", "deny"), Actual: word(x.Denied == nil, "allow", "deny"),
			}
			f.Policies = append(f.Policies, x.By...)
			if d := x.Denied; d != nil {
				f.Policies = append(f.Policies, d.Verdict.Policies...)
				f.Reason = d.Verdict.String()
				f.Passed = f.Passed && len(d.Verdict.Failed) == 0
			}
			v.Files = append(v.Files, f)
		}
	}
	files(r.Allow, true)
	files(r.Deny, false)
	return v
}

func showTested(p *printer, tested testedJSON, named bool) {
	if named {
		p.f("%s\n", p.bold(string(tested.Peer)))
	}
	if tested.Error != "" {
		p.f("%s nothing was tested:\n%s\n", p.red("✗"), indent("  ", clean(tested.Error)))
		return
	}
	for _, t := range tested.Tests {
		if t.Passed {
			p.f("%s %s  %s\n", p.green("✓"), line(t.Name), p.dim(t.Reason))
			continue
		}
		p.f("%s %s  %s\n", p.red("✗"), line(t.Name), p.dim(fmt.Sprintf("%s:%d", policy.TestsFile, t.Line)))
		if t.Problem != "" {
			p.f("  %s\n", line(t.Problem))
			continue
		}
		p.f("  %s: %s\n", gap(t.Expected, t.Actual), line(t.Reason))
		for _, f := range t.Files {
			if f.Passed {
				continue
			}
			why := f.Reason
			if why == "" {
				why = "by " + strings.Join(f.Policies, ", ")
			}
			p.f("  %s %s: %s, %s\n", f.Action, line(f.Path), gap(f.Expected, f.Actual), line(why))
		}
	}
	p.f("%d passed, %d failed\n", tested.Passed, tested.Failed)
}

// gap says what was expected and what it is.
func gap(expected, actual string) string {
	if expected == actual {
		return "is " + actual
	}
	return "expected " + expected + ", is " + actual
}
