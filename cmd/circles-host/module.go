package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

func moduleCommand() *cli.Command {
	return &cli.Command{
		Name:  "module",
		Usage: "build, sign, add, list, inspect, compare, pin and map modules",
		Subcommands: []*cli.Command{
			{
				Name:      "add",
				Usage:     "check a module and put it into a layer; a running worker takes it over",
				ArgsUsage: "FILE.wasm|TEXT [NAME]",
				Flags:     []cli.Flag{rootFlag(), peerFlag(), langFlag(), jsonFlag()},
				Action:    moduleAdd,
			},
			moduleListCommand(),
			{
				Name:        "inspect",
				Usage:       "tell what a module is and needs, and whether this host can run it",
				ArgsUsage:   "FILE.wasm|NAME[@VERSION]",
				Description: moduleWords,
				Flags:       []cli.Flag{rootFlag(), peerFlag(), jsonFlag()},
				Action:      moduleInspect,
			},
			moduleBuildCommand(),
			moduleSignCommand(),
			moduleVersionsCommand(), moduleRollbackCommand(), modulePinCommand(), moduleUnpinCommand(), moduleMapCommand(), moduleUnmapCommand(),
			moduleSourceCommand(), moduleDiffCommand(), moduleVerifyCommand(),
		},
	}
}

func peerFlag() cli.Flag {
	return &cli.StringFlag{Name: "peer", Usage: "in the own layer of the peer `NAME`, which shadows the host's"}
}

// openLayer opens the root, and says which folder is the layer's that --peer names.
func openLayer(c *cli.Context) (root *host.Root, dir string, err error) {
	if root, err = openRoot(c); err != nil {
		return nil, "", err
	}
	name := c.String("peer")
	if name == "" {
		return root, filepath.Join(root.Dir, "modules"), nil
	}
	e, err := held(root, name)
	return root, filepath.Join(e.Dir, "modules"), err
}

func moduleAdd(c *cli.Context) error {
	if err := args(c, 1, 2, "FILE.wasm|TEXT [NAME]"); err != nil {
		return err
	}
	file := c.Args().First()
	name := c.Args().Get(1)
	language, err := languageOf(c, file)
	if err != nil {
		return err
	}
	if name == "" {
		name = strings.TrimSuffix(filepath.Base(file), cmp.Or(language.Suffix, module.Suffix))
	}
	if !module.ValidName(name) {
		return usage("module name %q: want 1 to 63 of a-z, 0-9 and \"-\"; say one after the file", name)
	}
	root, dir, err := openLayer(c)
	if err != nil {
		return err
	}
	wasm, err := readModule(file)
	if err != nil {
		return err
	}
	info, err := check(c, root, file, wasm)
	if err != nil {
		return coded{exitInvalid, inFile(err, file)}
	}
	if other := sameName(dir, name, cmp.Or(language.Suffix, module.Suffix)); other != "" {
		return coded{exitInvalid, fmt.Errorf("%s is there, and two files of one name are none: remove it first, or say another name after the file", relative(other))}
	}
	if err := module.KeepSaved(dir, name, moduleSuffixes()...); err != nil {
		e := newPrinter(c.App.ErrWriter)
		e.f("%s nobody can go back to what was there: %s\n", e.yellow("!"), line(err.Error()))
	}
	path, err := addFile(dir, name, language, wasm)
	if err != nil {
		return err
	}
	if err := module.KeepSaved(dir, name, moduleSuffixes()...); err != nil {
		return err
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(moduleView(name, "", info))
	}
	p.f("%s %s  %s\n  %s\n", p.green("✓"), p.bold(name), script.Digest(info.Digest), relative(path))
	return nil
}

func readModule(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > module.MaxBytes {
		return nil, fmt.Errorf("read module: %s is not a file of at most %d bytes", file, module.MaxBytes)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	return wasm, nil
}

// check compiles a module, or loads a text, as the worker will, and leaves the code in
// the root's cache for it. root may be nil.
func check(c *cli.Context, root *host.Root, file string, code []byte) (engine.Info, error) {
	info, err := inspectFile(c, file, code)
	if err != nil {
		return info, err
	}
	err = withProgram(c, root, file, code, func(_ *engine.Engine, p *engine.Program) { info = p.Info() })
	return info, err
}

// inspectFile is what can be said of a file without running any of it.
func inspectFile(c *cli.Context, file string, code []byte) (info engine.Info, err error) {
	l, err := languageOf(c, file)
	if err == nil {
		info, _, err = inspectCode(l, code)
	}
	return info, err
}

// inspected is check, and what a run of the module costs to begin.
func inspected(c *cli.Context, root *host.Root, file string, code []byte) (info engine.Info, cost time.Duration, err error) {
	if info, err = inspectFile(c, file, code); err != nil {
		return info, 0, err
	}
	err = withProgram(c, root, file, code, func(e *engine.Engine, p *engine.Program) {
		info, cost = p.Info(), startCost(c.Context, e, p)
	})
	return info, cost, err
}

// withProgram compiles a module, or loads a text, and lets do something with it.
func withProgram(c *cli.Context, root *host.Root, file string, code []byte, do func(*engine.Engine, *engine.Program)) error {
	language, err := languageOf(c, file)
	if err != nil {
		return err
	}
	config := engine.Config{Languages: hostLanguages()}
	if root != nil {
		config.CacheDir = cmp.Or(os.Getenv(cacheVariable), filepath.Join(root.Dir, "cache"))
	}
	e, err := engine.New(c.Context, config, host.HostModules()...)
	if err != nil {
		return err
	}
	defer e.Close(c.Context)
	done := progress(c.Context, c.App.ErrWriter, "compiling")
	var p *engine.Program
	if language.Name != "" {
		p, err = e.Load(c.Context, language.Name, code)
	} else {
		p, err = e.Compile(c.Context, code)
	}
	done()
	if err != nil {
		return err
	}
	defer p.Close()
	do(e, p)
	return nil
}

// startCost is what a run costs before the module's own code does anything: the
// median of some that are given no fuel. It is 0 for a module that is initialised in
// each run, since that would be to run it.
func startCost(ctx context.Context, e *engine.Engine, p *engine.Program) time.Duration {
	info := p.Info()
	if info.Image == 0 {
		return 0
	}
	call := engine.Call{Limits: engine.Limits{Fuel: 1}}
	if len(info.Entries) > 0 {
		call.Entry = info.Entries[0]
	}
	var took []time.Duration
	for range 21 {
		var f *engine.Failure
		if _, err := e.Run(ctx, p, call); !errors.As(err, &f) || f.Kind != engine.FuelHit {
			return 0
		}
		took = append(took, f.Usage.Wall)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

type moduleJSON struct {
	Name        string                      `json:"name,omitempty"`
	Layer       string                      `json:"layer,omitempty"`
	Digest      script.Digest               `json:"digest"`
	Size        int                         `json:"size"`
	Shape       engine.Shape                `json:"shape"`
	Publisher   peer.ID                     `json:"publisher,omitempty"` // who signed it
	Language    string                      `json:"language,omitempty"`
	Toolchain   string                      `json:"toolchain,omitempty"`
	SourceFiles int                         `json:"source_files,omitempty"` // that it carries of what it was built of
	Description string                      `json:"description,omitempty"`
	Entries     []string                    `json:"entries,omitempty"`
	About       map[string]engine.EntryInfo `json:"about_entries,omitempty"`
	Imports     map[string][]string         `json:"imports"`
	Needs       []engine.Need               `json:"needs,omitempty"`
	Lends       []engine.Need               `json:"lends,omitempty"`
	Memory      uint64                      `json:"initial_memory"`
	Image       uint64                      `json:"image,omitempty"` // bytes of memory that each run begins with, initialised
	Plain       string                      `json:"plain,omitempty"` // why it is initialised in each run
	Start       time.Duration               `json:"start,omitempty"` // nanoseconds that a run costs here before its own code; 0 if not measured
	Warnings    []string                    `json:"warnings,omitempty"`
	Hides       string                      `json:"hides,omitempty"`
	Pinned      bool                        `json:"pinned,omitempty"`
	Held        string                      `json:"held,omitempty"`    // the file that its pin keeps from running
	Instead     string                      `json:"instead,omitempty"` // the module that runs for who asks for it
	Before      []string                    `json:"before,omitempty"`  // the modules that run before it, by a compose file
	Problem     string                      `json:"problem,omitempty"`

	text bool
}

func moduleView(name, layer string, i engine.Info) moduleJSON {
	v := moduleJSON{
		Name: name, Layer: layer, Digest: i.Digest, Size: i.Size, Shape: i.Shape, Language: i.Language, Toolchain: i.Toolchain,
		Entries: i.Entries, Memory: i.Memory, Image: i.Image, Plain: i.Plain, Warnings: i.Warnings, Imports: map[string][]string{},
	}
	for _, imp := range i.Imports {
		v.Imports[imp.Module] = append(v.Imports[imp.Module], imp.Name)
	}
	if m := i.Manifest; m != nil {
		v.Description, v.About, v.Needs, v.Lends = m.Description, m.Entries, m.Needs, m.Lends
	}
	return v
}

func moduleInspect(c *cli.Context) error {
	if err := args(c, 1, 1, "FILE.wasm|NAME"); err != nil {
		return err
	}
	file := c.Args().First()
	var root *host.Root
	if name, _, _ := strings.Cut(file, "@"); module.ValidName(name) {
		var err error
		if root, err = openRoot(c); err != nil {
			return err
		}
	}
	m, err := findModule(c, file)
	if err != nil {
		return err
	}
	file, name, wasm := m.path, m.name, m.code
	info, cost, problem := inspected(c, root, file, wasm)
	if info.Shape == "" && problem != nil && len(info.Imports) == 0 && !c.Bool("json") {
		return coded{exitInvalid, inFile(problem, file)}
	}
	v := moduleView(name, "", info)
	v.Start = cost
	if !info.Text() && problem == nil {
		switch s, err := module.ReadSource(wasm); {
		case err != nil:
			v.Warnings = append(v.Warnings, err.Error())
		case s != nil:
			v.SourceFiles = len(s.Files)
		}
	}
	if problem == nil && !info.Text() {
		if v.Publisher, err = module.Publisher(wasm, info.Digest); err != nil {
			return err
		}
	}
	if problem != nil {
		v.Problem = problem.Error()
	}
	p := printerOf(c)
	if c.Bool("json") {
		return errors.Join(p.json(v), silently(map[bool]int{true: exitInvalid}[problem != nil]))
	}
	row := func(label, value string) {
		if value != "" {
			p.f("%s %s\n", p.dim(pad(label, 9)), value)
		}
	}
	row("file", relative(file))
	row("about", line(v.Description))
	row("digest", v.Digest.String())
	row("size", bytesText(uint64(v.Size)))
	row("shape", string(v.Shape))
	if v.Publisher != "" {
		row("signed by", publisherText(c, root, v.Publisher))
	}
	row("language", line(v.Language))
	row("made by", line(v.Toolchain))
	if v.SourceFiles > 0 {
		row("source", count(v.SourceFiles, "file")+" in it; module source shows them")
	}
	row("memory", bytesText(v.Memory)+" to begin with")
	if v.Image > 0 {
		starts := "initialised, from an image of " + bytesText(v.Image)
		if v.Start > 0 {
			starts += ", in " + took(v.Start) + " here"
		}
		row("starts", starts)
	} else if v.Plain != "" {
		row("starts", "anew in each run: "+line(v.Plain))
	}
	for i, entry := range v.Entries {
		about := v.About[entry]
		label := ""
		if i == 0 {
			label = "entries"
		}
		row(label+" ", strings.TrimRight(pad(entry, 12)+" "+p.dim(line(about.Description)), " "))
		if about.Params != "" {
			row(" ", strings.Repeat(" ", 13)+p.dim("params "+line(about.Params)))
		}
	}
	for i, m := range info.Modules() {
		label := "imports"
		if i > 0 {
			label = " "
		}
		functions := v.Imports[m]
		slices.Sort(functions)
		row(label, m+"  "+p.dim(p.flow(12+len(m), 12, strings.Join(functions, " "))))
	}
	wants := func(label, whose string, needs []engine.Need) {
		for i, n := range needs {
			if i > 0 {
				label = " "
			}
			row(label, pad(n.Action, 6)+" "+clean(n.Path)+p.dim("  "+whose))
		}
	}
	wants("needs", "of the target", v.Needs)
	wants("lend it", "of the caller", v.Lends)
	for _, w := range v.Warnings {
		p.f("%s %s\n", p.yellow("!"), line(w))
	}
	if problem != nil {
		p.f("%s this host cannot run it: %s\n", p.red("✗"), line(problem.Error()))
		return coded{code: exitInvalid}
	}
	p.f("%s this host can run it\n", p.green("✓"))
	if info.Text() {
		p.f("\n%s\n", strings.TrimRight(clean(string(wasm)), "\n"))
	}
	return nil
}
