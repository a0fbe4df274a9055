package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host/module"
)

func moduleDiffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "compare two modules, or two versions: imports, entries, grants, source",
		ArgsUsage: "NAME|FILE [NAME|FILE]",
		Description: `With one argument, what is in force with the version before. What a module says of
its entries, of what it needs, and of its source is its own word.

` + moduleWords,
		Flags: []cli.Flag{rootFlag(), peerFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := args(c, 1, 2, "NAME|FILE [NAME|FILE]"); err != nil {
				return err
			}
			before, after := c.Args().First(), c.Args().Get(1)
			if after == "" {
				name, _, _ := strings.Cut(before, "@")
				if !module.ValidName(name) {
					return usage("module diff FILE needs a second one; of a NAME the version before is one")
				}
				before, after = name+"@previous", before
			}
			return moduleDiff(c, before, after)
		},
	}
}

// sideOf is a module as module.Compare takes it.
func sideOf(m aModule) (s module.Side, err error) {
	if s.Info, s.Publisher, err = inspectCode(languageBySuffix(m.path), m.code); err != nil {
		return s, coded{exitInvalid, inFile(err, m.title)}
	}
	var none coded
	source, err := sourceOf(m)
	switch {
	case err == nil:
		s.Source = source.Files
	case errors.As(err, &none) && none.code == exitNotFound:
	default:
		return s, err
	}
	return s, nil
}

func moduleDiff(c *cli.Context, before, after string) error {
	var sides [2]module.Side
	for i, word := range []string{before, after} {
		m, err := findModule(c, word)
		if errors.Is(err, os.ErrNotExist) {
			return coded{exitNotFound, err}
		}
		if err != nil {
			return err
		}
		if languageBySuffix(m.path).Name != "" {
			m.name, m.path = "text", "text"+filepath.Ext(m.path) // so that two texts are two versions of one file
		}
		if sides[i], err = sideOf(m); err != nil {
			return err
		}
	}
	d := module.Compare(sides[0], sides[1])
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(d)
	}
	if d.Same() {
		p.f("they are the same: sha256:%x\n", sides[0].Info.Digest)
		return nil
	}
	for _, v := range d.Values {
		p.f("%s %s → %s\n", p.dim(pad(v.What, 11)), line(orNothing(v.Before)), line(orNothing(v.After)))
	}
	for _, l := range d.Lists {
		label := l.What
		for _, what := range l.Gone {
			p.f("%s %s\n", p.dim(pad(label, 11)), p.red("- "+line(what)))
			label = ""
		}
		for _, what := range l.New {
			p.f("%s %s\n", p.dim(pad(label, 11)), p.green("+ "+line(what)))
			label = ""
		}
	}
	for _, f := range d.Source {
		p.f("%s %s, %s\n", p.dim(pad("source", 11)), line(f.Name), f.Kind)
		for l := range strings.Lines(f.Diff) {
			text := line(strings.TrimSuffix(l, "\n"))
			switch {
			case strings.HasPrefix(l, "---"), strings.HasPrefix(l, "+++"):
				continue
			case strings.HasPrefix(l, "-"):
				text = p.red(text)
			case strings.HasPrefix(l, "+"):
				text = p.green(text)
			}
			p.f("  %s\n", text)
		}
	}
	if d.NoSource != "" {
		p.f("%s %s\n", p.dim(pad("source", 11)), map[string]string{
			"both": "none carries its own, so what changed in it cannot be told", "before": "the first carries none", "after": "the second carries none",
		}[d.NoSource])
	}
	return nil
}

func orNothing(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
