package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/modules/build"
)

func moduleVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "build a module again of the source that it carries, and compare",
		ArgsUsage: "NAME[@VERSION]|FILE.wasm",
		Description: `It is built in a folder of its own, which is removed afterwards, with the compiler
that is here. Compilers are given a stranger's code: look at it first, with module
source. Builds in Rust and AssemblyScript run some of it, with all that you may do
on this machine, and so want --trust.

What is compared is the module without its source and signature. It is the same, or
another (7), which may be the compiler's doing, if that is another than it was built
with.

` + moduleWords,
		Flags: []cli.Flag{
			rootFlag(), peerFlag(),
			&cli.BoolFlag{Name: "trust", Usage: "build it although that runs code of whoever made it, here, with your rights"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := args(c, 1, 1, "NAME|FILE.wasm"); err != nil {
				return err
			}
			return moduleVerify(c, c.Args().First())
		},
	}
}

// verifyJSON is what became of it, for programs.
type verifyJSON struct {
	Same      bool          `json:"same"`
	Digest    script.Digest `json:"digest"`                // of the module, as it is
	Built     script.Digest `json:"built"`                 // of what was built, without source and signature
	Was       script.Digest `json:"was"`                   // of the module, likewise
	Recipe    module.Recipe `json:"recipe"`                // as the module has it
	Toolchain string        `json:"toolchain"`             // that is here
	Differ    []string      `json:"differences,omitempty"` // sections
}

func moduleVerify(c *cli.Context, named string) error {
	m, err := findModule(c, named)
	if err != nil {
		return err
	}
	if l := languageBySuffix(m.path); l.Name != "" {
		return usage("%s is a text in %s: what is shown is what runs, and there is nothing to build", m.title, l.Name)
	}
	s, err := sourceOf(m)
	if err != nil {
		return err
	}
	l, known := build.Find(s.Recipe.Language)
	if !known || s.Recipe.Format != 1 {
		return coded{exitInvalid, fmt.Errorf("%s says that it was built in %q, by recipe %d, which this version does not know; module source shows its files", m.title, s.Recipe.Language, s.Recipe.Format)}
	}
	if l.Runs != "" && !c.Bool("trust") {
		return usage("to build %s is to run, here and with your rights, what whoever made it wrote: %s; read it with module source --to DIR, and then say --trust", m.title, l.Runs)
	}
	toolchain, err := l.Toolchain(c.Context)
	if err != nil {
		return buildError(c, err)
	}
	v := verifyJSON{Recipe: s.Recipe, Toolchain: toolchain, Digest: digestOfCode(m.code)}
	e := newPrinter(c.App.ErrWriter)
	e.f("%s %s\n", e.yellow("!"), fmt.Sprintf("building %s of whoever made %s, with %s", count(len(s.Files), "file"), m.title, line(toolchain)))
	built, err := rebuild(c, s, l)
	if err != nil {
		return err
	}
	was, err := module.Unsourced(m.code)
	if err != nil {
		return coded{exitInvalid, err}
	}
	v.Was, v.Built, v.Same = digestOfCode(was), digestOfCode(built), bytes.Equal(was, built)
	if !v.Same {
		if v.Differ, err = module.Sections(was, built); err != nil {
			return coded{exitInvalid, err}
		}
	}
	return verified(c, m, v)
}

func digestOfCode(code []byte) script.Digest { return script.DigestOf(code) }

// rebuild builds a source in a folder of its own.
func rebuild(c *cli.Context, s *module.Source, l build.Language) (wasm []byte, err error) {
	dir, err := os.MkdirTemp("", "circles-verify-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	project := filepath.Join(dir, "module")
	if err := s.Write(project); err != nil {
		return nil, err
	}
	done := progress(c.Context, c.App.ErrWriter, "building")
	built, err := build.Build(c.Context, build.Config{Dir: project, Language: l.Name, Foreign: true})
	done()
	if err != nil {
		return nil, buildError(c, err)
	}
	if _, err := engine.Inspect(built.Wasm); err != nil {
		return nil, coded{exitInvalid, fmt.Errorf("it was built, and is no module: %w", err)}
	}
	return module.Unsourced(built.Wasm)
}

func verified(c *cli.Context, m aModule, v verifyJSON) error {
	p := printerOf(c)
	code := exitOK
	if !v.Same {
		code = exitInvalid
	}
	if c.Bool("json") {
		return errors.Join(p.json(v), silently(code))
	}
	if v.Same {
		p.f("%s %s was built of the source that it carries\n  %s, without source and signature %s\n", p.green("✓"), p.bold(m.title), v.Digest, v.Was)
		return nil
	}
	p.f("%s %s is not what its source makes here\n", p.red("✗"), p.bold(m.title))
	for _, d := range v.Differ {
		p.f("  %s\n", line(d))
	}
	if v.Toolchain != v.Recipe.Toolchain {
		p.f("  %s\n", line("it says that it was built with "+orNothing(v.Recipe.Toolchain)+", and here is "+v.Toolchain))
	}
	return silently(code)
}
