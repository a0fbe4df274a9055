package main

import (
	"fmt"
	"os"
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
			{
				Name:      "allow",
				Usage:     "write a policy that lets a peer run a module",
				ArgsUsage: "WHO MODULE[:ENTRY]",
				Description: `WHO is a petname, a did:key or, with --circle, a circle of the target. MODULE is a
name or sha256:DIGEST. The policy is a readable Cedar file in the target's policy
folder; delete it to take the permit back. It is in force when it is saved.`,
				Flags: []cli.Flag{
					rootFlag(),
					&cli.StringFlag{Name: "to", Usage: "the `PEER` in whose context it may run"},
					&cli.BoolFlag{Name: "circle", Usage: "WHO is a circle"},
					&cli.StringSliceFlag{Name: "read", Usage: "let it read `PATH` and all below"},
					&cli.StringSliceFlag{Name: "list", Usage: "let it list `PATH` and all below"},
					&cli.StringSliceFlag{Name: "write", Usage: "let it write `PATH` and all below"},
					&cli.StringSliceFlag{Name: "remove", Usage: "let it remove `PATH` and all below"},
					&cli.StringSliceFlag{Name: "get", Usage: "let it get the records of `COLLECTION`, or one as COLLECTION/KEY"},
					&cli.StringSliceFlag{Name: "put", Usage: "let it put records of `COLLECTION`, or one"},
					&cli.StringSliceFlag{Name: "query", Usage: "let it see which records `COLLECTION` has"},
					&cli.StringSliceFlag{Name: "delete", Usage: "let it delete records of `COLLECTION`, or one"},
					&cli.StringFlag{Name: "limits", Usage: "let it use no more than `LIMITS`, as in \"time=200ms, memory=32MiB, fuel=50M\""},
					&cli.BoolFlag{Name: "print", Usage: "print the policy and write nothing"},
					jsonFlag(),
				},
				Action: policyAllow,
			},
			policyCheckCommand(),
			{
				Name:      "explain",
				Usage:     "tell what would become of a script, and which policies decide",
				ArgsUsage: "MODULE[:ENTRY]",
				Flags: []cli.Flag{
					rootFlag(),
					&cli.StringFlag{Name: "as", Usage: "the caller, `PEER`: a petname or did:key"},
					&cli.StringFlag{Name: "to", Usage: "the target `PEER`, held in this root"},
					jsonFlag(),
				},
				Action: policyExplain,
			},
			policyTestCommand(),
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

func policyAllow(c *cli.Context) error {
	if err := first(args(c, 2, 2, "WHO MODULE[:ENTRY]"), needs(c, "to")); err != nil {
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
	permit := policy.Permit{
		Read: c.StringSlice("read"), List: c.StringSlice("list"),
		Write: c.StringSlice("write"), Remove: c.StringSlice("remove"),
		Get: c.StringSlice("get"), Put: c.StringSlice("put"),
		Query: c.StringSlice("query"), Delete: c.StringSlice("delete"),
	}
	if text := c.String("limits"); text != "" {
		if permit.Limits, err = policy.ParseLimits(text); err != nil {
			return usage("--limits: %w", err)
		}
	}
	if who := c.Args().First(); c.Bool("circle") {
		permit.Circle = who
	} else {
		e, err := root.Peers.Resolve(who)
		if err != nil {
			return coded{exitNotFound, err}
		}
		permit.Peer, permit.Name = e.ID, e.Name
	}
	l, entry, err := logic(c.Args().Get(1))
	if err != nil {
		return err
	}
	if l.Wasm != nil {
		info, err := engine.Inspect(l.Wasm)
		if err != nil {
			return coded{exitInvalid, fmt.Errorf("%s: %w", c.Args().Get(1), err)}
		}
		l.Digest = info.Digest
	}
	permit.Module, permit.Digest = l.Name, l.Digest
	if entry != "" {
		permit.Entries = []string{entry}
	}
	text, err := permit.Format()
	if err != nil {
		return coded{exitUsage, err}
	}
	p := printerOf(c)
	if c.Bool("print") {
		p.f("%s", text)
		return nil
	}
	file, err := permit.Save(filepath.Join(target.Dir, "policy"))
	if err != nil {
		return err
	}
	path := filepath.Join(target.Dir, "policy", file)
	if c.Bool("json") {
		return p.json(map[string]string{"file": path, "policy": text})
	}
	p.f("%s\n%s\n", p.green("+ "+relative(path)), strings.TrimRight(text, "\n"))
	return nil
}

func policyExplain(c *cli.Context) error {
	if err := first(args(c, 1, 1, "MODULE[:ENTRY]"), needs(c, "as", "to")); err != nil {
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
	l, entry, err := logic(c.Args().First())
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
	request := policy.Request{Parties: root.Peers.Meet(caller.ID, target.ID, circles), Code: m.code(), Entry: entry, Now: time.Now()}
	var needs []policy.Need
	if m.found && m.info.Manifest != nil {
		for _, n := range m.info.Manifest.Needs {
			needs = append(needs, policy.Need{Action: script.Action(n.Action), Path: n.Path})
		}
	}
	x := set.Explain(request, needs...)
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
			Permitted bool     `json:"permitted"`
			Policies  []string `json:"policies"`
			Reason    string   `json:"reason"`
			Limits    string   `json:"limits,omitempty"`
			Needs     []need   `json:"needs,omitempty"`
		}{x.Submit.Permitted, x.Submit.Policies, x.Submit.String(), x.Limits.String(), nil}
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
	for _, n := range x.Needs {
		why := strings.Join(n.By, ", ")
		if n.Denied != nil {
			why = n.Denied.Verdict.String()
		}
		p.f("  %s %s %s  %s\n", mark(n.Denied == nil), pad(string(n.Action), 6), n.Path, p.dim(why))
	}
	if x.Submit.Permitted {
		return nil
	}
	if len(x.Submit.Policies) == 0 { // else one forbids it, and a permit would not help
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
}

func (m located) code() policy.Code {
	return policy.Code{Found: m.found, Digest: m.info.Digest, Name: m.name, Layer: m.layer, Size: int64(m.info.Size), Imports: m.info.Modules()}
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
	if l.Wasm != nil {
		info, err := engine.Inspect(l.Wasm)
		if err != nil {
			return located{}, coded{exitInvalid, err}
		}
		return located{found: true, layer: module.Carried, info: info}, nil
	}
	for _, layer := range layers(root, target) {
		for _, name := range names(layer.dir, module.Suffix) {
			if l.Name != "" && name != l.Name {
				continue
			}
			path := filepath.Join(layer.dir, name+module.Suffix)
			wasm, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			info, err := engine.Inspect(wasm)
			if err != nil || l.Name == "" && info.Digest != l.Digest {
				continue
			}
			return located{true, name, layer.label, path, info}, nil
		}
	}
	return located{}, nil
}
