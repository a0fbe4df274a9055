package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
)

func moduleListCommand() *cli.Command {
	return &cli.Command{
		Name:      "list",
		Usage:     "list modules, which layer wins, and what it hides",
		ArgsUsage: " ",
		Flags:     []cli.Flag{rootFlag(), peerFlag(), jsonFlag()},
		Action:    moduleList,
	}
}

func moduleList(c *cli.Context) error {
	if err := args(c, 0, 0, "without arguments"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	layers, surveys, problem, err := surveyed(c, root)
	if err != nil {
		return err
	}
	list := []moduleJSON{}
	seen := map[string]int{}
	mapped := map[string]bool{}
	for i, s := range surveys {
		for _, m := range s.List {
			if at, ok := seen[m.Name]; ok {
				list[at].Hides = "the " + layers[i].label + "'s"
				continue
			}
			seen[m.Name] = len(list)
			list = append(list, listed(layers[i].label, m))
		}
		if s.Pins == nil {
			continue
		}
		for _, from := range slices.Sorted(maps.Keys(s.Pins.Map)) {
			if at, ok := seen[from]; ok && list[at].Layer != layers[i].label || mapped[from] {
				continue // a layer above has it
			}
			mapped[from] = true
			v := moduleJSON{Name: from, Layer: layers[i].label, Instead: s.Pins.Map[from], Imports: map[string][]string{}}
			if at, ok := seen[from]; ok {
				list[at].Instead = v.Instead
				continue
			}
			there := false
			for _, below := range surveys[i:] {
				_, ok := below.Get(v.Instead)
				there = there || ok
			}
			if !there {
				v.Problem = fmt.Sprintf("it is mapped to %s, which is not there", v.Instead)
			}
			seen[from] = len(list)
			list = append(list, v)
		}
	}
	for i := range surveys {
		var names []string
		for _, below := range surveys[i:] {
			for _, m := range below.List {
				names = append(names, m.Name)
			}
		}
		stages, err := module.ReadCompose(layers[i].dir, names)
		problem = errors.Join(problem, err)
		for name, before := range stages {
			at := seen[name]
			list[at].Before = append(list[at].Before, before...)
		}
	}
	p := printerOf(c)
	if problem != nil {
		newPrinter(c.App.ErrWriter).f("%s\n", clean(problem.Error()))
	}
	if c.Bool("json") {
		return p.json(list)
	}
	for _, m := range list {
		if m.Problem != "" {
			p.f("%s %s  %s\n", p.red("✗"), p.bold(pad(m.Name, 14)), line(m.Problem))
			continue
		}
		if m.Digest.IsZero() {
			about := "runs for who asks for it · " + m.Layer + " layer"
			if m.Hides != "" {
				about += " · hides " + m.Hides
			}
			p.f("%s  %s %s\n", p.bold(pad(m.Name, 14)), p.bold(m.Instead), p.dim(about))
			continue
		}
		about := []string{string(m.Shape), bytesText(uint64(m.Size))}
		if m.text {
			about[0] = "text in " + line(m.Language)
		}
		if len(m.Entries) > 0 {
			about = append(about, "entries "+strings.Join(m.Entries, " "))
		}
		about = append(about, m.Layer+" layer")
		if m.Hides != "" {
			about = append(about, "hides "+m.Hides)
		}
		if len(m.Before) > 0 {
			about = append(about, "after "+strings.Join(m.Before, ", "))
		}
		if m.Pinned {
			about = append(about, "pinned")
		}
		if m.Held != "" {
			about = append(about, filepath.Base(m.Held)+" is another version and does not run")
		}
		if m.Instead != "" {
			about = append(about, "who asks for it gets "+m.Instead)
		}
		p.f("%s  %s  %s\n", p.bold(pad(m.Name, 14)), m.Digest.Short(), p.dim(p.flow(30, 30, strings.Join(about, " · "))))
	}
	if len(list) == 0 {
		newPrinter(c.App.ErrWriter).f("no modules yet; %s module add FILE.wasm\n", host.Command)
	}
	return nil
}

// listed describes a module of a layer.
func listed(layer string, m module.Standing) moduleJSON {
	var info engine.Info
	code, _, err := m.Code()
	if err == nil {
		info, _, err = inspectCode(languageBySuffix(m.Path), code)
	}
	if m.Problem != nil {
		err = m.Problem
	}
	v := moduleView(m.Name, layer, info)
	v.text = info.Text()
	v.Pinned, v.Held = !m.Pin.IsZero(), m.Held
	if err != nil {
		v.Problem = err.Error()
	}
	return v
}
