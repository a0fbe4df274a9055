package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
)

const helpWidth = 80

// help prints what a command does: its line, its description, what it takes.
func help(p *printer, c *cli.Command) {
	command := strings.TrimSpace(host.Command + " " + nameOfCommand(c))
	p.f("%s: %s\n\n", p.bold(command), c.Usage)
	line := command
	switch {
	case len(c.Subcommands) > 0:
		line += " COMMAND"
	default:
		if len(c.Flags) > 0 {
			line += " [OPTION…]"
		}
		if arguments := strings.TrimSpace(c.ArgsUsage); arguments != "" {
			line += " " + arguments
		}
	}
	p.f("  %s\n", line)
	if c.Description != "" {
		p.f("\n%s\n", strings.TrimSpace(c.Description))
	}
	if len(c.Subcommands) > 0 {
		p.f("\n%s\n", p.bold("Commands"))
		var rows [][2]string
		for _, sub := range c.Subcommands {
			rows = append(rows, [2]string{sub.Name, sub.Usage})
		}
		table(p, rows)
		p.f("\n%s\n", p.dim(command+" COMMAND --help tells more."))
	}
	if len(c.Flags) > 0 {
		p.f("\n%s\n", p.bold("Options"))
		var rows [][2]string
		for _, f := range c.Flags {
			word, about := describe(f)
			name := ""
			for _, n := range f.Names() {
				if len(n) == 1 {
					name = "-" + n + ", " + name
				} else {
					name += "--" + n
				}
			}
			rows = append(rows, [2]string{strings.TrimSpace(name + " " + word), about + defaults(f)})
		}
		table(p, rows)
	}
}

// describe splits a flag's usage into the word for its value and what it is; the
// word stands in backticks.
func describe(f cli.Flag) (word, about string) {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return "", ""
	}
	about = d.GetUsage()
	if before, rest, ok := strings.Cut(about, "`"); ok {
		value, after, _ := strings.Cut(rest, "`")
		return value, before + value + after
	}
	if d.TakesValue() {
		word = "VALUE"
	}
	return word, about
}

func defaults(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	var parts []string
	if value := d.GetValue(); d.TakesValue() && value != "" && value != "0" {
		parts = append(parts, "default "+strings.Replace(value, "m0s", "m", 1))
	}
	for _, env := range d.GetEnvVars() {
		parts = append(parts, "$"+env)
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// table prints rows of a name and what it means, in two columns.
func table(p *printer, rows [][2]string) {
	width := 0
	for _, r := range rows {
		if n := len([]rune(r[0])); n <= 24 {
			width = max(width, n)
		}
	}
	for _, r := range rows {
		name := pad(r[0], width)
		for i, text := range wrap(r[1], helpWidth-width-4) {
			if i == 0 && len([]rune(r[0])) > width {
				p.f("  %s\n", r[0])
				name = ""
			}
			p.f("  %s  %s\n", pad(name, width), text)
			name = ""
		}
	}
}
