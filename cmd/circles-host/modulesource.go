package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/module"
)

func moduleSourceCommand() *cli.Command {
	return &cli.Command{
		Name:      "source",
		Usage:     "show what a module was built of, as it says, or the text that it is",
		ArgsUsage: "NAME[@VERSION]|FILE.wasm [FILE]",
		Description: `A text is its own source. A compiled module has one if it was built with
module build --embed-source. That it was built of it, module verify finds out.

` + moduleWords,
		Flags: []cli.Flag{
			rootFlag(), peerFlag(),
			&cli.StringFlag{Name: "to", Usage: "write the files into `DIR`, which is empty or not there yet"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := args(c, 1, 2, "NAME|FILE.wasm [FILE]"); err != nil {
				return err
			}
			return moduleSource(c, c.Args().First(), c.Args().Get(1))
		},
	}
}

// sourceOf is what a module carries of its source, or the text that it is.
func sourceOf(m aModule) (*module.Source, error) {
	if l := languageBySuffix(m.path); l.Name != "" {
		name := m.name + l.Suffix
		if m.name == "" {
			name = filepath.Base(m.path)
		}
		return &module.Source{Recipe: module.Recipe{Language: l.Name}, Files: []module.SourceFile{{Name: name, Text: m.code}}}, nil
	}
	s, err := module.ReadSource(m.code)
	if err != nil {
		return nil, coded{exitInvalid, fmt.Errorf("%s: %w", m.title, err)}
	}
	if s == nil {
		return nil, coded{exitNotFound, fmt.Errorf("%s carries no source; whoever builds it can have it, with %s module build --embed-source", m.title, host.Command)}
	}
	return s, nil
}

// sourceJSON is a source, for programs.
type sourceJSON struct {
	Recipe module.Recipe    `json:"recipe"`
	Files  []sourceFileJSON `json:"files"`
}

type sourceFileJSON struct {
	Name string `json:"name"`
	Size int    `json:"size"`
	Text string `json:"text,omitempty"` // of the file that was asked for, or of all
}

func moduleSource(c *cli.Context, named, file string) error {
	m, err := findModule(c, named)
	if err != nil {
		return err
	}
	s, err := sourceOf(m)
	if err != nil {
		return err
	}
	files := s.Files
	if file != "" {
		f, ok := s.Get(file)
		if !ok {
			return coded{exitNotFound, fmt.Errorf("the source of %s has no file %s; there are: %s", m.title, file, strings.Join(fileNames(s.Files), ", "))}
		}
		files = []module.SourceFile{f}
	}
	p, e := printerOf(c), newPrinter(c.App.ErrWriter)
	if dir := c.String("to"); dir != "" {
		if err := (&module.Source{Files: files}).Write(dir); err != nil {
			return err
		}
		e.f("%s in %s\n", count(len(files), "file"), relative(dir))
		return nil
	}
	if c.Bool("json") {
		v := sourceJSON{Recipe: s.Recipe}
		for _, f := range files {
			v.Files = append(v.Files, sourceFileJSON{f.Name, len(f.Text), string(f.Text)})
		}
		return p.json(v)
	}
	if len(files) == 1 {
		return p.result(files[0].Text, e)
	}
	for _, f := range files {
		p.f("%s  %s\n", pad(bytesText(uint64(len(f.Text))), 8), line(f.Name))
	}
	by := s.Recipe.Language
	if s.Recipe.Toolchain != "" {
		by += ", " + s.Recipe.Toolchain
	}
	e.f("%s\n", e.dim("it says that it was built of these, in "+line(by)+"; module source "+m.title+" FILE shows one"))
	return nil
}

func fileNames(files []module.SourceFile) (names []string) {
	for _, f := range files {
		names = append(names, line(f.Name))
	}
	return names
}
