package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/near"
	"github.com/circles-host/circles/modules/build"
	"github.com/circles-host/circles/modules/project"
)

func newCommand() *cli.Command {
	return &cli.Command{
		Name:      "new",
		Usage:     "begin a module: a folder that builds as it stands, with its cases",
		ArgsUsage: "LANG NAME",
		Description: `The folder is ./NAME, or DIR with --dir. It has a small program, what it needs of its
target in manifest.json, and what it does in cases.toml. --list shows the
languages, and what to install for those that cannot be built here yet.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "list", Usage: "show the languages, and whether their tools are installed"},
			&cli.StringFlag{Name: "dir", Usage: "write into `DIR`, which is empty or not there yet"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.Bool("list") {
				return newList(c)
			}
			return newProject(c)
		},
	}
}

// languageJSON is a language, for programs.
type languageJSON struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	Version string `json:"version,omitempty"` // of its tools, when they are here
	Missing string `json:"missing,omitempty"` // what is, when something is
	Install string `json:"install,omitempty"`
}

func newList(c *cli.Context) error {
	if err := args(c, 0, 0, "--list without arguments"); err != nil {
		return err
	}
	done := progress(c.Context, c.App.ErrWriter, "looking for compilers")
	var list []languageJSON
	for _, name := range project.Languages() {
		l, _ := build.Find(name)
		v := languageJSON{Name: l.Name, Title: l.Title}
		version, err := l.Toolchain(c.Context)
		if err != nil {
			var missing build.MissingError
			errors.As(err, &missing)
			v.Missing, v.Install = missing.What, l.Install
		}
		v.Version = version
		list = append(list, v)
	}
	done()
	list = append(list, languageJSON{Name: "python", Title: "Python", Missing: "not yet: it is compiled to components, which hosts do not run"})
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(list)
	}
	for _, l := range list {
		if l.Missing == "" {
			p.f("%s %s %s\n", p.green("✓"), p.bold(pad(l.Name, 16)), p.dim(pad(l.Title, 16)+" "+line(l.Version)))
			continue
		}
		p.f("%s %s %s %s\n", p.yellow("–"), p.bold(pad(l.Name, 16)), p.dim(pad(l.Title, 16)), line(l.Missing))
		if l.Install != "" {
			p.f("  %s\n", p.flow(2, 2, line(l.Install)))
		}
	}
	return nil
}

func newProject(c *cli.Context) error {
	if err := args(c, 2, 2, "LANG NAME; see --list"); err != nil {
		return err
	}
	language, name := c.Args().Get(0), c.Args().Get(1)
	languages := project.Languages()
	l, ok := build.Find(language)
	if !ok {
		meant := ""
		if near := near.Name(language, languages); near != "" {
			meant = fmt.Sprintf("; did you mean %s?", near)
		}
		return usage("there is no template for %q, but for %s%s", language, strings.Join(languages, ", "), meant)
	}
	if !module.ValidName(name) {
		return usage("module name %q: want 1 to 63 of a-z, 0-9 and \"-\"", name)
	}
	dir := c.String("dir")
	if dir == "" {
		dir = name
	}
	files, err := project.New(dir, language, name)
	if errors.Is(err, project.ErrNotEmpty) {
		return coded{exitUsage, err}
	}
	if err != nil {
		return err
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(map[string]any{"dir": dir, "language": l.Name, "files": files})
	}
	p.f("%s %s  a module in %s\n", p.green("✓"), p.bold(relative(dir)), l.Title)
	for _, f := range files {
		p.f("  %s\n", p.dim(filepath.Join(relative(dir), f)))
	}
	if _, err := l.Toolchain(c.Context); err != nil {
		e := newPrinter(c.App.ErrWriter)
		e.f("%s %s\n", e.yellow("!"), line(err.Error()))
	}
	p.f("\nNext:")
	if first := project.First(language); first != "" {
		p.f(" (cd %s && %s) &&", quote(relative(dir)), first)
	}
	p.f(" %s dev %s\n", host.Command, quote(relative(dir)))
	return nil
}
