package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/cmd/circles-host/bench"
	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:      "bench",
		Usage:     "measure what scripts cost on this machine",
		ArgsUsage: "[SECTION]…",
		Description: `Measures a worker on this machine, in temporary roots, and prints what it found
beside what it cannot be better than: a fresh call beside wazero alone, a script's
whole path beside Ed25519 alone, and so on. On a machine that others use, times
move and ratios hold. It takes some minutes and a GB of disk; sections narrow it:

` + sectionList() + `

An aim that is not met is marked, and is no failure.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quick", Usage: "small numbers, to see that it works; what it measures says little"},
			&cli.StringFlag{Name: "report", Usage: "write the report as JSON to `FILE` too"},
			&cli.StringFlag{Name: "disk", Usage: "make the roots in `DIR`, to measure the disk that it is on"},
			&cli.StringSliceFlag{Name: "module", Usage: "make fresh calls of `FILE.wasm` too; may be given several times"},
			&cli.BoolFlag{Name: "markdown", Usage: "print the table as Markdown, for a page or an issue"},
			jsonFlag(),
		},
		Action: benchAction,
	}
}

func benchAction(c *cli.Context) error {
	config := bench.Config{
		Stores: func(r *host.Root) (bench.OpenStore, func() error) {
			contexts, closed := workersContexts(r)
			return contexts.Open, closed
		},
		Dir: c.String("disk"), Quick: c.Bool("quick"), Modules: map[string][]byte{},
	}
	var known []string
	for _, s := range bench.Sections() {
		known = append(known, s.Name)
	}
	for _, name := range c.Args().Slice() {
		if !slices.Contains(known, name) {
			return usage("bench has no section %q; it has %s", name, strings.Join(known, ", "))
		}
		config.Only = append(config.Only, name)
	}
	for _, file := range c.StringSlice("module") {
		wasm, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read module: %w", err)
		}
		if _, err := engine.Inspect(wasm); err != nil {
			return coded{exitInvalid, fmt.Errorf("%s: %w", file, err)}
		}
		config.Modules[strings.TrimSuffix(filepath.Base(file), module.Suffix)] = wasm
	}
	progress := newPrinter(c.App.ErrWriter)
	if progress.width > 0 {
		config.Progress = func(text string) {
			progress.f("\r\x1b[K%s", progress.dim(clipLine(text, progress.width-1)))
		}
	}
	report, err := bench.Run(c.Context, config)
	if progress.width > 0 {
		progress.f("\r\x1b[K")
	}
	if err != nil {
		return err
	}
	report.Version = version
	if file := c.String("report"); file != "" {
		text, err := json.MarshalIndent(report, "", "  ")
		if err == nil {
			err = os.WriteFile(file, append(text, '\n'), 0o644)
		}
		if err != nil {
			return errors.Join(errors.New("write report"), err)
		}
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(report)
	}
	if c.Bool("markdown") {
		printMarkdown(p, report)
		return nil
	}
	printReport(p, report)
	return nil
}

// on says where the figures are from.
func on(r *bench.Report) string {
	m := r.Machine
	text := fmt.Sprintf("%s bench %s on %s/%s", host.Command, r.Version, m.OS, m.Arch)
	if m.Kernel != "" {
		text += " " + m.Kernel
	}
	text += fmt.Sprintf(", %d processors", m.Processors)
	if m.Processor != "" {
		text += " (" + m.Processor + ")"
	}
	text += ", " + m.Go
	if m.Load != "" {
		text += ", load " + m.Load + " as it began"
	}
	return line(text)
}

const underTable = "medians; cpu is per operation, of the whole process; it took %.0f s"

func printMarkdown(p *printer, r *bench.Report) {
	for _, l := range wrap(on(r)+", "+r.Started.Format("2006-01-02")+".", helpWidth) {
		p.f("%s\n", l)
	}
	for i, row := range r.Rows {
		if i == 0 || r.Rows[i-1].Section != row.Section {
			p.f("\n| %s | | cpu | floor | | |\n| --- | ---: | ---: | ---: | --- | --- |\n", title(row.Section))
		}
		p.f("| %s |\n", strings.ReplaceAll(strings.Join(benchCells(row), " | "), "  ", " "))
	}
	for _, note := range r.Notes {
		p.f("\n%s.\n", strings.Join(wrap(note, helpWidth), "\n"))
	}
	p.f("\nFigures are "+underTable+".\n", float64(r.Took))
}

// sectionList is for the help.
func sectionList() string {
	var lines []string
	for _, s := range bench.Sections() {
		lines = append(lines, fmt.Sprintf("   %-10s %s", s.Name, s.Title))
	}
	return strings.Join(lines, "\n")
}

// clipLine is the beginning of text, of at most n columns.
func clipLine(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}

func printReport(p *printer, r *bench.Report) {
	p.f("%s\n", on(r))
	if r.Quick {
		p.f("%s\n", p.yellow("quick: these figures say that it works, and little more"))
	}
	cells := [][]string{{"", "", "cpu", "floor", "", ""}}
	heads := map[int]string{}
	for i, row := range r.Rows {
		if i == 0 || r.Rows[i-1].Section != row.Section {
			heads[len(cells)] = title(row.Section)
		}
		cells = append(cells, benchCells(row))
	}
	widths := make([]int, 6)
	for _, line := range cells {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, line := range cells {
		if head, ok := heads[n]; ok {
			p.f("\n%s\n", p.bold(head))
		}
		var b strings.Builder
		for i, cell := range line {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 || i >= 4 {
				b.WriteString("  " + cell + space)
			} else {
				b.WriteString("  " + space + cell)
			}
		}
		text := strings.TrimRight(b.String(), " ")
		if n == 0 {
			text = p.dim(text)
		} else if row := r.Rows[n-1]; row.Aim != 0 && !row.Met() {
			text = p.yellow(text)
		}
		p.f("%s\n", text)
	}
	for _, note := range r.Notes {
		p.f("\n%s %s", p.yellow("!"), note)
	}
	p.f("\n%s\n", p.dim(fmt.Sprintf(underTable, float64(r.Took))))
}

func title(section string) string {
	for _, s := range bench.Sections() {
		if s.Name == section {
			return s.Title
		}
	}
	return section
}

// benchCells are a row's columns: name, value, cpu, floor, its name, verdict.
func benchCells(row bench.Row) []string {
	cells := []string{row.Name, figure(row.Value, row.Unit), "", "", "", ""}
	if row.CPU != 0 {
		cells[2] = figure(row.CPU, "µs")
	}
	if f := row.Floor; f != nil {
		cells[3], cells[4] = figure(f.Value, row.Unit), f.Name
	}
	if row.Ratio != 0 {
		cells[5] = figure(row.Ratio, "") + " " + row.RatioOf
	}
	if row.Aim != 0 {
		sign, mark := "≤", "✓"
		if row.AtLeast {
			sign = "≥"
		}
		if !row.Met() {
			mark = "✗"
		}
		unit := row.Unit
		if row.Ratio != 0 {
			unit = ""
		}
		cells[5] = strings.TrimSpace(fmt.Sprintf("%s  %s %s %s", cells[5], mark, sign, figure(row.Aim, unit)))
	}
	return cells
}

// figure is a number of three digits with its unit, in the unit that suits it.
func figure(v float64, unit string) string {
	switch {
	case unit == "µs" && v >= 1e6:
		v, unit = v/1e6, "s"
	case unit == "µs" && v >= 1e4:
		v, unit = v/1e3, "ms"
	}
	digits := 0
	if a := math.Abs(v); a != 0 && a < 100 && v != math.Trunc(v) {
		digits = 1
		if a < 10 {
			digits = 2
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", digits, v, unit))
}
