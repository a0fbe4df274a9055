package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "say who may run what in a peer's context, and find out why",
		Subcommands: []*cli.Command{
			policyAllowCommand(),
			policyDenyCommand(),
			policyRevokeCommand(),
			policySuggestCommand(),
			policyCheckCommand(),
			{
				Name:      "explain",
				Usage:     "tell what would become of a script, and which policies decide",
				ArgsUsage: "MODULE[:ENTRY] [PARAMS|@FILE|-]",
				Description: `Decides without running anything, and lists what the script would be allowed: what
its module says it needs, and each place that a policy names. With --trace it runs on
a transaction that is dropped, nobody having signed it, and lists what it asked for,
how often, and which policies answered; no log has anything of that. PARAMS are as for
send: policies may look at them.`,
				Flags: []cli.Flag{
					rootFlag(),
					&cli.StringFlag{Name: "as", Usage: "the caller, `PEER`: a petname or did:key"},
					&cli.StringFlag{Name: "to", Usage: "the target `PEER`, held in this root"},
					&cli.BoolFlag{Name: "trace", Usage: "run it, keep nothing, and show what it asked for"},
					jsonFlag(),
				},
				Action: policyExplain,
			},
			policyTestCommand(),
			policySchemaCommand(),
		},
	}
}

// held finds a peer whose context is in the root.
func held(root *host.Root, name string) (peer.Entry, error) {
	e, err := root.Peers.Resolve(name)
	if err != nil {
		return e, coded{exitNotFound, err}
	}
	if !e.Held() {
		return e, coded{exitNotFound, fmt.Errorf("the context of %s is not in %s", name, relative(root.Dir))}
	}
	return e, nil
}

// rootAndHeld are the root, and a peer whose context is in it.
func rootAndHeld(c *cli.Context, name string) (root *host.Root, e peer.Entry, err error) {
	if root, err = openRoot(c); err == nil {
		e, err = held(root, name)
	}
	return root, e, err
}

func policyExplain(c *cli.Context) error {
	if err := first(args(c, 1, 2, "MODULE[:ENTRY] [PARAMS]"), needs(c, "as", "to")); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	target, err := held(root, c.String("to"))
	if err != nil {
		return err
	}
	caller, err := root.Peers.Resolve(c.String("as"))
	if err != nil {
		return coded{exitNotFound, err}
	}
	l, entry, err := logic(c, c.Args().First())
	if err != nil {
		return err
	}
	circles, err := circlesOf(root, target)
	if err != nil {
		return coded{exitInvalid, err}
	}
	set, err := policy.Load(filepath.Join(target.Dir, "policy"))
	if err != nil {
		return coded{exitInvalid, err}
	}
	m, err := locate(root, target, l)
	if err != nil {
		return err
	}
	request := policy.Request{Parties: root.Peers.Meet(caller.ID, target.ID, circles), Code: m.code(), Entry: entry, Now: time.Now(), Transport: "http"}
	if request.Args, err = params(c.Args().Get(1), c.App.Reader); err != nil {
		return err
	}
	request.Params = len(request.Args)
	var needs []policy.Need
	if m.found && m.info.Manifest != nil {
		for _, n := range m.info.Manifest.Needs {
			if script.Action(n.Action) != script.Send { // to whom is not the module's to say
				needs = append(needs, policy.Need{Action: script.Action(n.Action), Path: n.Path})
			}
		}
	}
	x := set.Explain(request, needs...)
	reach, whole := set.Reach(request)
	var traced *host.Rehearsal
	if c.Bool("trace") {
		if traced, err = rehearse(c, root, caller, target, l, entry, request.Args); err != nil {
			return err
		}
	}
	p := printerOf(c)
	if c.Bool("json") {
		type need struct {
			Action  script.Action `json:"action"`
			Path    string        `json:"path"`
			Allowed bool          `json:"allowed"`
			By      []string      `json:"policies,omitempty"`
			Reason  string        `json:"reason,omitempty"`
		}
		v := struct {
			Permitted bool       `json:"permitted"`
			Policies  []string   `json:"policies"`
			Reason    string     `json:"reason"`
			Limits    string     `json:"limits,omitempty"`
			Review    string     `json:"review,omitempty"`
			Needs     []need     `json:"needs,omitempty"`
			May       []mayJSON  `json:"may"`
			MoreMay   bool       `json:"may_more,omitempty"` // there are more places that policies name
			Trace     *traceJSON `json:"trace,omitempty"`
		}{x.Submit.Permitted, x.Submit.Policies, x.Submit.String(), x.Limits.String(), "", nil, mayView(reach), !whole, traceView(traced)}
		if x.Review > 0 {
			v.Review = x.Review.String()
		}
		for _, n := range x.Needs {
			j := need{Action: n.Action, Path: n.Path, Allowed: n.Denied == nil, By: n.By}
			if n.Denied != nil {
				j.Reason = n.Denied.Error()
			}
			v.Needs = append(v.Needs, j)
		}
		if err := p.json(v); err != nil || v.Permitted {
			return err
		}
		return coded{code: exitRefused}
	}
	mark := func(ok bool) string {
		if ok {
			return p.green("✓")
		}
		return p.red("✗")
	}
	what := c.Args().First()
	if !m.found {
		p.f("%s\n", p.yellow("! "+string(target.Name)+" has no module "+what+"; a script that names it is refused or not found"))
	}
	p.f("%s %s\n", mark(x.Submit.Permitted), p.flow(2, 2, clean(fmt.Sprintf("%s runs %s in the context of %s: %s", who(caller), what, target.Name, x.Submit))))
	if l := x.Limits.String(); l != "" {
		p.f("  %s %s\n", p.dim("limits"), l)
	}
	if x.Review > 0 {
		p.f("  %s %s looks first at what it would do; it waits for %s\n", p.dim("review"), target.Name, ageText(x.Review))
	}
	for _, n := range x.Needs {
		why := strings.Join(n.By, ", ")
		if n.Denied != nil {
			why = n.Denied.Verdict.String()
		}
		p.f("  %s %s %s  %s\n", mark(n.Denied == nil), pad(string(n.Action), 6), n.Path, p.dim(why))
	}
	if x.Submit.Permitted {
		showMay(p, root, reach, whole, x.Needs)
		if traced != nil {
			showTrace(p, root, traced)
		}
		return nil
	}
	if len(x.Submit.Policies) == 0 && x.Submit.Unread == nil { // else one forbids it, and a permit would not help
		words := []string{host.Command, "policy", "allow", "--to", who(target), who(caller), what}
		for _, n := range needs {
			words = append(words, "--"+string(n.Action), quote(n.Path))
		}
		p.f("%s %s\n", p.dim("to allow it:"), clean(strings.Join(words, " ")))
	}
	return coded{code: exitRefused}
}

func who(e peer.Entry) string {
	if e.Name != "" {
		return string(e.Name)
	}
	return string(e.ID)
}

// located is the module that a name or digest means in a context.
type located struct {
	found bool
	name  string
	layer string
	path  string
	info  engine.Info

	publisher peer.ID
	instead   bool // it is what the target has mapped that to
}

func (m located) code() policy.Code {
	return policy.Code{Found: m.found, Digest: m.info.Digest, Name: m.name, Layer: m.layer, Size: int64(m.info.Size), Imports: m.info.Modules(), Language: m.info.Language, Text: m.info.Text(), Publisher: m.publisher, Types: m.info.Manifest.Types(), Instead: m.instead}
}

// layer is a folder of modules, and what policies call it.
type layer struct{ label, dir string }

// layers are those that a context sees, the first one first.
func layers(root *host.Root, target peer.Entry) []layer {
	return []layer{{"peer", filepath.Join(target.Dir, "modules")}, {"host", filepath.Join(root.Dir, "modules")}}
}

// locate looks a module up as a worker does, in the files: the peer's own layer,
// then the host's.
func locate(root *host.Root, target peer.Entry, l script.Logic) (located, error) {
	list := layers(root, target)
	var surveys []module.Survey
	for _, l := range list {
		s, err := module.Look(l.dir, moduleSuffixes()...)
		if err != nil {
			return located{}, coded{exitInvalid, err}
		}
		surveys = append(surveys, s)
	}
	found, at, instead, err := module.Locate(l, surveys...)
	if err != nil {
		return located{}, nil
	}
	if at < 0 {
		info, publisher, err := inspectCarried(l)
		if err != nil {
			return located{}, coded{exitInvalid, err}
		}
		return located{found: true, layer: module.Carried, info: info, publisher: publisher}, nil
	}
	wasm, err := readModule(found.Path)
	if err != nil {
		return located{}, nil
	}
	info, publisher, err := inspectCode(languageBySuffix(found.Path), wasm)
	if err != nil {
		return located{}, nil
	}
	return located{true, found.Name, list[at].label, found.Path, info, publisher, instead}, nil
}
