package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

func policyCheckCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "check a peer's policies, circles and test cases, or everybody's",
		ArgsUsage: "[PEER]",
		Description: `Says what keeps them from being in force as they are written, and exits with 7 if
anything does. Beside that it warns of policies that can be in force, and may not be
meant: that never decide anything, that another makes superfluous, that are for
everybody, that name a circle that is not there, or the digest of a module that has
changed. With --strict a warning counts as a mistake.`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.BoolFlag{Name: "strict", Usage: "exit with 7 for a warning too"},
			jsonFlag(),
		},
		Action: policyCheck,
	}
}

// rootAndAll are the root and the peer that is named, or all whose contexts are in it.
func rootAndAll(c *cli.Context) (root *host.Root, peers []peer.Entry, err error) {
	if root, err = openRoot(c); err != nil {
		return nil, nil, err
	}
	if name := c.Args().First(); name != "" {
		e, err := held(root, name)
		return root, []peer.Entry{e}, err
	}
	return root, slices.DeleteFunc(root.Peers.All(), func(e peer.Entry) bool { return !e.Held() }), nil
}

func policyCheck(c *cli.Context) error {
	if err := args(c, 0, 1, "[PEER]"); err != nil {
		return err
	}
	root, peers, err := rootAndAll(c)
	if err != nil {
		return err
	}
	p := printerOf(c)
	results := []checked{}
	wrong := 0
	for _, e := range peers {
		r := checkPeer(root, e)
		lookOver(c.Context, root, e, &r)
		if wrong += len(r.Problems); c.Bool("strict") {
			wrong += len(r.Warnings)
		}
		results = append(results, r)
		if c.Bool("json") {
			continue
		}
		if len(r.Problems) == 0 {
			p.f("%s %s  %s\n", p.green("✓"), p.bold(string(e.Name)), p.dim(count(len(r.Policies), "policy")+": "+orNone(r.Policies)))
		} else {
			p.f("%s %s  %s\n", p.red("✗"), p.bold(string(e.Name)), "not in force as written:")
		}
		for _, problem := range r.Problems {
			p.f("%s\n", indent("  ", clean(problem)))
		}
		for _, w := range r.Warnings {
			p.f("%s %s\n", p.yellow("!"), clean(w.text))
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

// checked is what was found in a peer's policy folder.
type checked struct {
	Peer     peer.Name      `json:"peer"`
	Policies []string       `json:"policies"`
	Problems []string       `json:"problems"`
	Warnings []checkWarning `json:"warnings"`
}

type checkWarning struct {
	Kind    policy.WarningKind `json:"kind"`
	Policy  string             `json:"policy"`
	File    string             `json:"file"`
	Line    int                `json:"line"`
	Column  int                `json:"column"`
	Message string             `json:"message"`
	text    string
}

// checkPeer says what is not in force as it is written.
func checkPeer(root *host.Root, e peer.Entry) checked {
	r := checked{Peer: e.Name, Policies: []string{}, Problems: []string{}, Warnings: []checkWarning{}}
	dir := filepath.Join(e.Dir, "policy")
	report := func(err error) {
		for _, problem := range problems(err) {
			r.Problems = append(r.Problems, relativeIn(dir, problem))
		}
	}
	set, err := policy.Load(dir)
	if err == nil {
		r.Policies = append(r.Policies, set.Policies()...)
	}
	report(err)
	circles, circlesErr := circlesOf(root, e)
	if circlesErr != nil {
		r.Problems = append(r.Problems, relativeIn(dir, circlesErr.Error()))
	}
	switch tests, testsErr := policy.ReadTests(dir); {
	case errors.Is(testsErr, fs.ErrNotExist):
	case testsErr != nil:
		report(testsErr)
	case err == nil && circlesErr == nil:
		report(policy.Failing(set.Test(tests, meetIn(root, e, circles), time.Now())))
	}
	return r
}

// lookOver adds what loads and may not be meant. What does not load has been said.
func lookOver(ctx context.Context, root *host.Root, e peer.Entry, r *checked) {
	dir := filepath.Join(e.Dir, "policy")
	circles, err := circlesOf(root, e)
	if err != nil {
		return
	}
	here := policy.Here{Circles: circles.Names(), Modules: digestsOf(root, e)}
	_, warnings, err := policy.Check(dir, here)
	if err != nil {
		return
	}
	for _, w := range warnings {
		if w.Kind == policy.NoModule {
			// Only then is the log worth reading, which may be long.
			here.Former = former(ctx, root, e)
			_, warnings, _ = policy.Check(dir, here)
			break
		}
	}
	for _, w := range warnings {
		r.Warnings = append(r.Warnings, checkWarning{
			Kind: w.Kind, Policy: w.Policy, File: filepath.Join(dir, w.File), Line: w.Line, Column: w.Column,
			Message: w.Message, text: relativeIn(dir, w.Error()),
		})
	}
}

// digestsOf are the modules that a context sees, by name.
func digestsOf(root *host.Root, e peer.Entry) map[string]script.Digest {
	found := map[string]script.Digest{}
	for _, layer := range layers(root, e) {
		survey, _ := module.Look(layer.dir, moduleSuffixes()...) // what it says is for a message
		for _, one := range survey.List {
			if _, shadowed := found[one.Name]; shadowed {
				continue
			}
			if _, digest, err := one.Code(); err == nil {
				found[one.Name] = digest
			}
		}
	}
	return found
}

// former are the names under which modules were run, by the receipts in the log.
// They are for a message, so whether the log is whole is not asked, and a log that
// cannot be read has none.
func former(ctx context.Context, root *host.Root, e peer.Entry) map[script.Digest]string {
	found := map[script.Digest]string{}
	s, err := contextsOf(root).Read(ctx, e)
	if err != nil {
		return found
	}
	defer s.Close()
	for entry, err := range s.Log(ctx, 1) {
		if err != nil {
			break
		}
		r, _, err := envelope.OpenReceipt(entry.Data, "")
		if err == nil && !r.Module.IsZero() && r.ModuleName != "" {
			found[r.Module] = r.ModuleName
		}
	}
	return found
}

func problems(err error) (list []string) {
	if err == nil {
		return nil
	}
	var ps policy.Problems
	if !errors.As(err, &ps) {
		return []string{err.Error()}
	}
	for _, p := range ps {
		list = append(list, p.Error())
	}
	return list
}

// relativeIn puts the folder in front of a problem that names a file only.
func relativeIn(dir, problem string) string {
	if strings.Contains(problem, dir) {
		return strings.ReplaceAll(problem, dir, relative(dir))
	}
	return filepath.Join(relative(dir), problem)
}
