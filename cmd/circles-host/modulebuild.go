package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/modules/build"
)

func moduleBuildCommand() *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "build a module of a project in Go, C or another language, and check it",
		ArgsUsage: "DIR",
		Description: `A folder with a go.mod is a Go program: a reactor when it has a //go:wasmexport,
else a command. A folder with *.c files is a C program: a command when it has a
main, else a reactor; circles.h comes with this program. A manifest.json in the
folder goes into the module. For other languages, compile for wasip1 and use
module add.

With embed-source = true in a ` + build.SettingsFile + `, as circles-host new writes it, the module carries
its source, for everybody who has the module: what builds read of the folder, without
what is hidden, ignored by a .gitignore, or looks like a secret. The command lists it.

The file is written when this host can run the module, and not before.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write `FILE` instead of DIR.wasm in the folder itself"},
			&cli.StringFlag{Name: "sdk", EnvVars: []string{"CIRCLES_C_SDK"}, Usage: "take circles.h and circles.c from `DIR` instead of those that are built in"},
			&cli.BoolFlag{Name: "embed-source", Usage: "have the module carry its source, as embed-source in " + build.SettingsFile + " says; =false to have it not"},
			jsonFlag(),
		},
		Action: moduleBuild,
	}
}

func moduleBuild(c *cli.Context) error {
	if err := args(c, 1, 1, "DIR"); err != nil {
		return err
	}
	dir := c.Args().First()
	file := c.String("output")
	if file == "" {
		whole, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		file = filepath.Join(dir, filepath.Base(whole)+module.Suffix)
	}
	if filepath.Ext(file) != module.Suffix {
		return usage("--output %s: a module's file ends with %s", file, module.Suffix)
	}
	errOut := newPrinter(c.App.ErrWriter)
	done := progress(c.Context, c.App.ErrWriter, "building "+dir)
	built, err := build.Build(c.Context, build.Config{Dir: dir, SDK: c.String("sdk")})
	done()
	if err != nil {
		return buildError(c, err)
	}
	errOut.f("%s", clean(built.Warnings))
	embedded, left, err := embedSource(c, dir, built)
	if err != nil {
		return coded{exitInvalid, fmt.Errorf("%s was built, and is not written: %w", dir, err)}
	}
	info, err := engine.Inspect(built.Wasm)
	if err == nil {
		err = checkManifest(built.Manifest, info)
	}
	if err == nil {
		info, err = check(c, nil, file, built.Wasm)
	}
	if err != nil {
		return coded{exitInvalid, fmt.Errorf("%s was built, and is not written: %w", dir, err)}
	}
	if err := replace(file, built.Wasm); err != nil {
		return err
	}
	p := printerOf(c)
	v := moduleView("", "", info)
	if c.Bool("json") {
		return p.json(struct {
			File   string   `json:"file"`
			Source []string `json:"source,omitempty"` // the files that it carries
			moduleJSON
		}{file, embedded, v})
	}
	p.f("%s %s  %s, %s in %s\n", p.green("✓"), p.bold(relative(file)), v.Shape, bytesText(uint64(v.Size)), built.Language)
	p.f("  digest   %s\n", v.Digest)
	if v.Shape == engine.Reactor {
		p.f("  entries  %s\n", line(strings.Join(v.Entries, " ")))
	}
	if embedded != nil {
		p.f("  source   %s\n", p.flow(11, 11, line(strings.Join(embedded, " "))))
	}
	for _, l := range left {
		p.f("  %s\n", p.dim("without  "+line(l.Name)+", "+l.Why))
	}
	if info.Manifest == nil {
		p.f("  %s\n", p.dim("no manifest.json: nobody is told what it does and needs"))
	}
	for _, w := range v.Warnings {
		p.f("%s %s\n", p.yellow("!"), line(w))
	}
	next := "module add " + quote(relative(file))
	if v.Shape == engine.Command {
		next = "exec " + quote(relative(file))
	}
	p.f("\nNext: %s %s\n", host.Command, next)
	return nil
}

// embedSource puts the source into what was built, if the project or the command line
// says so, and returns what it is, and what was left out.
func embedSource(c *cli.Context, dir string, b *build.Built) (names []string, left []build.LeftOut, err error) {
	settings, err := build.ReadSettings(dir)
	if err != nil {
		return nil, nil, err
	}
	if c.IsSet("embed-source") {
		settings.EmbedSource = c.Bool("embed-source")
	}
	if !settings.EmbedSource {
		return nil, nil, nil
	}
	files, left, err := build.Sources(dir, settings)
	if err != nil {
		return nil, nil, err
	}
	l, _ := build.Find(b.Name)
	toolchain, err := l.Toolchain(c.Context)
	if err != nil {
		return nil, nil, err
	}
	s := module.Source{Recipe: module.Recipe{Format: 1, Language: b.Name, Toolchain: toolchain, Builder: version}}
	for _, f := range files {
		s.Files = append(s.Files, module.SourceFile(f))
		names = append(names, f.Name)
	}
	b.Wasm, err = module.WithSource(b.Wasm, s)
	return names, left, err
}

// checkManifest refuses a manifest of which a host would ignore a part: whoever
// writes one had better hear of it now.
func checkManifest(text []byte, info engine.Info) error {
	if text == nil {
		return nil
	}
	if info.Manifest == nil {
		return fmt.Errorf("manifest.json: %s", strings.Join(info.Warnings, "; "))
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&engine.Manifest{}); err != nil {
		return fmt.Errorf("manifest.json: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("manifest.json: something follows the object")
	}
	entries := info.Entries
	if info.Shape == engine.Command {
		entries = []string{"run"} // see modules/README.md
	}
	for _, name := range slices.Sorted(maps.Keys(info.Manifest.Entries)) {
		if !slices.Contains(entries, name) {
			return fmt.Errorf("manifest.json describes the entry %q, and the module has %s", name, strings.Join(entries, ", "))
		}
	}
	return nil
}

// replace puts content in place of a file, whole or not at all: a worker may be
// watching the folder.
func replace(file string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".building-*")
	if err != nil {
		return fmt.Errorf("write module: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write module: %w", err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fmt.Errorf("write module: %w", err)
	}
	return nil
}
