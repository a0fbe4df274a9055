package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

// touchFlags name what a permit or a forbid is about, besides running.
func touchFlags(let string) []cli.Flag {
	flag := func(action script.Action, text string) cli.Flag {
		return &cli.StringSliceFlag{Name: string(action), Usage: let + " " + text}
	}
	return []cli.Flag{
		flag(script.Read, "read `PATH` and all below"),
		flag(script.List, "list `PATH` and all below"),
		flag(script.Write, "write `PATH` and all below"),
		flag(script.Remove, "remove `PATH` and all below"),
		flag(script.Get, "get the records of `COLLECTION`, or one as COLLECTION/KEY"),
		flag(script.Put, "put records of `COLLECTION`, or one"),
		flag(script.Query, "see which records `COLLECTION` has"),
		flag(script.Delete, "delete records of `COLLECTION`, or one"),
		flag(policy.Call, "have the module `NAME` run"),
		flag(script.Send, "send scripts to `PEER`, as the owner of the context"),
	}
}

// whoFlags say whose policies are to be changed, and about whom.
func whoFlags(to string) []cli.Flag {
	return []cli.Flag{
		rootFlag(),
		&cli.StringFlag{Name: "to", Usage: "the `PEER` " + to},
		&cli.BoolFlag{Name: "circle", Usage: "WHO is a circle"},
	}
}

// editFlags are those of commands that change a policy folder.
func editFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "dry-run", Usage: "show what would change, and change nothing"},
		&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask first; in a pipe nothing is asked"},
		jsonFlag(),
	}
}

func policyAllowCommand() *cli.Command {
	flags := whoFlags("in whose context it may run")
	flags = append(flags, touchFlags("let it")...)
	flags = append(flags,
		langFlag(),
		&cli.BoolFlag{Name: "called", Usage: "let it do that where it is called, or stands before another; not be sent"},
		&cli.StringFlag{Name: "publisher", Usage: "if `PEER` signed it; without MODULE, whatever they signed"},
		&cli.StringFlag{Name: "review", Usage: "look first at what it would do, each time; it waits for `TIME`, as in 36h or 7d"},
		&cli.StringFlag{Name: "limits", Usage: "let it use no more than `LIMITS`, as in \"time=200ms, memory=32MiB, fuel=50M\""},
		&cli.BoolFlag{Name: "print", Usage: "print the policy and write nothing"})
	return &cli.Command{
		Name:      "allow",
		Usage:     "write a policy that lets a peer run a module",
		ArgsUsage: "WHO [MODULE[:ENTRY]]",
		Description: `WHO is a petname, a did:key or, with --circle, a circle of the target. MODULE is a
name, sha256:DIGEST or a file; of a text --lang says the language, or its file's
suffix. The policy is a readable Cedar file in the target's policy
folder; policy revoke takes it back, and so does deleting it. On a terminal it is
shown, and written when you say so. It is in force when it is saved.

A module that others call, or that compose.toml puts before another, needs no permit
to be sent: --called permits what it touches, and that alone.`,
		Flags:  append(flags, editFlags()...),
		Action: policyAllow,
	}
}

func policyDenyCommand() *cli.Command {
	flags := whoFlags("in whose context it may not run")
	flags = append(flags, touchFlags("it may run, and not")...)
	flags = append(flags,
		&cli.StringFlag{Name: "reason", Usage: "tell whom it refuses `WHY`"},
		&cli.BoolFlag{Name: "hide", Usage: "let it look as if there were nothing"})
	return &cli.Command{
		Name:      "deny",
		Usage:     "write a policy that keeps a peer from running a module, or anything",
		ArgsUsage: "WHO [MODULE[:ENTRY]]",
		Description: `Writes a forbid, which outweighs every permit, in the way of policy allow. Without
MODULE it is about all that WHO sends. With --read and the like the module may run,
and may not do that. To take back what policy allow wrote, use policy revoke: what
no policy permits is denied.`,
		Flags:  append(flags, editFlags()...),
		Action: policyDeny,
	}
}

func policyRevokeCommand() *cli.Command {
	return &cli.Command{
		Name:      "revoke",
		Usage:     "take back a policy that policy allow or policy deny wrote",
		ArgsUsage: "ID | WHO MODULE",
		Description: `ID is the policy's, as receipts and policy check name it. WHO MODULE stand for every
permit for that peer, or with --circle that circle, to run that module. A policy that
you have written yourself is left alone: its file and line are told, and the exit
code is 7. So it is when others still permit the same.`,
		Flags:  append(whoFlags("whose policies they are"), editFlags()...),
		Action: policyRevoke,
	}
}

// touched reads touchFlags. Peers are named as in the root, and what comes of them are
// their ids.
func touched(c *cli.Context, root *host.Root) (grants []script.Grant, err error) {
	for _, a := range []script.Action{
		script.Read, script.List, script.Write, script.Remove, script.Get, script.Put, script.Query, script.Delete, policy.Call, script.Send,
	} {
		for _, on := range c.StringSlice(string(a)) {
			if a == script.Send {
				e, err := root.Peers.Resolve(on)
				if err != nil {
					return nil, coded{exitNotFound, err}
				}
				on = string(e.ID)
			}
			grants = append(grants, script.Grant{Action: a, Path: on})
		}
	}
	return grants, nil
}

// permitOf is the permit, or forbid, that the command line is about.
func permitOf(c *cli.Context, root *host.Root) (p policy.Permit, err error) {
	grants, err := touched(c, root)
	if err != nil {
		return p, err
	}
	for _, g := range grants {
		p.Add(g.Action, g.Path)
	}
	if who := c.Args().First(); c.Bool("circle") {
		p.Circle = who
	} else {
		e, err := root.Peers.Resolve(who)
		if err != nil {
			return p, coded{exitNotFound, err}
		}
		p.Peer, p.Name = e.ID, e.Name
	}
	if c.NArg() < 2 {
		return p, nil
	}
	l, entry, err := logic(c, c.Args().Get(1))
	if err != nil {
		return p, err
	}
	if !l.Carried().IsZero() || l.Wasm != nil {
		info, _, err := inspectCarried(l)
		if err != nil {
			return p, coded{exitInvalid, fmt.Errorf("%s: %w", c.Args().Get(1), err)}
		}
		l.Digest = info.Digest
		p.Language = l.Text.Language
	}
	p.Module, p.Digest = l.Name, l.Digest
	if p.Digest != (script.Digest{}) && c.IsSet("lang") {
		language, err := languageNamed(c.String("lang"))
		if err != nil {
			return p, err
		}
		p.Language = language.Name
	}
	if entry != "" {
		p.Entries = []string{entry}
	}
	return p, nil
}

func policyAllow(c *cli.Context) error {
	least := 2
	if c.IsSet("publisher") {
		least = 1
	}
	if err := first(args(c, least, 2, "WHO MODULE[:ENTRY]"), needs(c, "to")); err != nil {
		return err
	}
	root, target, err := rootAndTarget(c)
	if err != nil {
		return err
	}
	permit, err := permitOf(c, root)
	if err != nil {
		return err
	}
	if c.IsSet("publisher") {
		by, err := root.Peers.Resolve(c.String("publisher"))
		if err != nil {
			return coded{exitNotFound, err}
		}
		permit.Publisher = by.ID
	}
	if text := c.String("limits"); text != "" {
		if permit.Limits, err = policy.ParseLimits(text); err != nil {
			return usage("--limits: %w", err)
		}
	}
	if text := c.String("review"); text != "" {
		if permit.Review, err = policy.ParseReview(text); err != nil {
			return usage("--review %w", err)
		}
	}
	if permit.Within = c.Bool("called"); permit.Within && (!permit.Touches() || permit.Limits != (policy.Limits{}) || permit.Review != 0) {
		return usage("--called is about what a module does while another runs: say that with --read and the like, without --limits and --review, which are for what is sent")
	}
	text, err := permit.Format()
	if err != nil {
		return coded{exitUsage, err}
	}
	if c.Bool("print") {
		printerOf(c).f("%s", text)
		return nil
	}
	e, err := permit.Plan(filepath.Join(target.Dir, "policy"))
	if err != nil {
		return err
	}
	return edit(c, root, target, e)
}

func policyDeny(c *cli.Context) error {
	if err := first(args(c, 1, 2, "WHO [MODULE[:ENTRY]]"), needs(c, "to")); err != nil {
		return err
	}
	root, target, err := rootAndTarget(c)
	if err != nil {
		return err
	}
	permit, err := permitOf(c, root)
	if err != nil {
		return err
	}
	forbid := policy.Forbid{Permit: permit, Reason: c.String("reason"), Hide: c.Bool("hide")}
	if _, err := forbid.Format(); err != nil {
		return coded{exitUsage, err}
	}
	e, err := forbid.Plan(filepath.Join(target.Dir, "policy"))
	if err != nil {
		return err
	}
	return edit(c, root, target, e)
}

func policyRevoke(c *cli.Context) error {
	if err := first(args(c, 1, 2, "ID | WHO MODULE"), needs(c, "to")); err != nil {
		return err
	}
	root, target, err := rootAndTarget(c)
	if err != nil {
		return err
	}
	id := c.Args().First()
	var permit policy.Permit
	if c.NArg() == 2 {
		if permit, err = permitOf(c, root); err != nil {
			return err
		}
		if permit.Entries != nil {
			return usage("revoke %s: say the module without an entry, or the policy's id", c.Args().Get(1))
		}
		id = ""
	}
	dir := filepath.Join(target.Dir, "policy")
	edits, left, err := policy.Revoke(dir, id, permit)
	if err != nil {
		return err
	}
	what := "policy " + id
	if id == "" {
		what = "permit for " + strings.Join(c.Args().Slice(), " to run ")
	}
	if len(edits)+len(left) == 0 {
		return coded{exitNotFound, fmt.Errorf("%s has no %s; %s policy check %s lists the policies", target.Name, line(what), host.Command, target.Name)}
	}
	if len(edits) > 0 {
		if err := edit(c, root, target, edits...); err != nil {
			return err
		}
	} else if c.Bool("json") {
		if err := printerOf(c).json([]editJSON{}); err != nil {
			return err
		}
	}
	for _, at := range left {
		e := newPrinter(c.App.ErrWriter)
		e.f("%s %s\n", e.yellow("!"), clean(fmt.Sprintf("%s:%d: %s is your own, among others; edit it there", relative(filepath.Join(dir, at.File)), at.Line, at.Policy)))
	}
	if len(left) > 0 {
		return coded{code: exitInvalid}
	}
	return nil
}

// rootAndTarget are the root and the peer of --to, whose context is in it.
func rootAndTarget(c *cli.Context) (root *host.Root, target peer.Entry, err error) {
	return rootAndHeld(c, c.String("to"))
}

// editJSON is a change to a policy folder, for programs.
type editJSON struct {
	File    string `json:"file"`
	Policy  string `json:"policy"` // its text
	Removed bool   `json:"removed,omitempty"`
	Made    bool   `json:"made"` // false: a dry run
	Diff    string `json:"diff"`
}

// edit shows edits to a peer's policies, asks if there is somebody to ask, and
// makes them. Edits by which a test case would fail that does not fail now change
// nothing, as a worker would not take them over.
func edit(c *cli.Context, root *host.Root, target peer.Entry, edits ...policy.Edit) error {
	dir := filepath.Join(target.Dir, "policy")
	p, ask := printerOf(c), newPrinter(c.App.ErrWriter)
	dry := c.Bool("dry-run")
	var views []editJSON
	for _, e := range edits {
		path := filepath.Join(dir, e.File)
		v := editJSON{File: path, Policy: e.After, Made: !dry, Diff: e.Diff()}
		sign, text := p.green("+ "+relative(path)), e.After
		if e.After == "" {
			v.Removed, v.Policy = true, e.Before
			sign, text = p.red("- "+relative(path)), e.Before
		}
		views = append(views, v)
		if !c.Bool("json") {
			p.f("%s\n%s\n", sign, clean(strings.TrimRight(text, "\n")))
		}
	}
	if err := breaks(root, target, edits); err != nil {
		return err
	}
	if !dry {
		if in, ok := c.App.Reader.(*os.File); ok && term.IsTerminal(int(in.Fd())) && ask.width > 0 && !c.Bool("yes") && !c.Bool("json") {
			ask.f("Do this to the policies of %s? [y/N] ", target.Name)
			answer, _ := bufio.NewReader(in).ReadString('\n')
			if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
				return coded{exitInterrupted, errors.New("nothing was changed")}
			}
		}
		for _, e := range edits {
			if err := e.Apply(dir); err != nil {
				return err
			}
		}
	}
	if c.Bool("json") {
		if len(views) == 1 {
			return p.json(views[0])
		}
		return p.json(views)
	}
	if dry {
		ask.f("%s\n", ask.dim("dry run, nothing was changed"))
	}
	return nil
}

// breaks says which test cases of the owner's would come to fail.
func breaks(root *host.Root, e peer.Entry, edits []policy.Edit) error {
	dir := filepath.Join(e.Dir, "policy")
	tests, err := policy.ReadTests(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return coded{exitInvalid, errors.New(relativeIn(dir, err.Error()))}
	}
	circles, err := circlesOf(root, e)
	if err != nil {
		return coded{exitInvalid, err}
	}
	failing := func(set *policy.Set) error {
		return policy.Failing(set.Test(tests, meetIn(root, e, circles), time.Now()))
	}
	if set, err := policy.Load(dir); err != nil || failing(set) != nil {
		return nil // this may be what mends it
	}
	after, err := policy.With(dir, edits...)
	if err != nil {
		return coded{exitInvalid, err}
	}
	if err := failing(after); err != nil {
		return coded{exitInvalid, fmt.Errorf("nothing was changed, since a test case says otherwise; correct that first:\n%s", relativeIn(dir, err.Error()))}
	}
	return nil
}
