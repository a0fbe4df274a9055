package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a completion script for a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: `For this session; put the line into the shell's own file to keep it:

   bash   source <(` + host.Command + ` completion bash)
   zsh    source <(` + host.Command + ` completion zsh)
   fish   ` + host.Command + ` completion fish | source`,
		Action: func(c *cli.Context) error {
			if err := args(c, 1, 1, "bash, zsh or fish"); err != nil {
				return err
			}
			script, ok := completions[c.Args().First()]
			if !ok {
				return usage("there is no completion for %q; there is for bash, zsh and fish", c.Args().First())
			}
			printerOf(c).f("%s", script)
			return nil
		},
	}
}

// completeWord, as the first argument, makes the program list what the last of
// the others may become, one on a line, with a tab before what it means.
const completeWord = "__complete"

var completions = map[string]string{
	"bash": `_circles_host() {
	local IFS=$'\n' current="${COMP_WORDS[COMP_CWORD]}"
	COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" ` + completeWord + ` "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1)" -- "$current"))
	[[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o default 2>/dev/null
}
complete -F _circles_host ` + host.Command + `
`,
	"zsh": `#compdef ` + host.Command + `
_circles_host() {
	local -a next
	next=("${(@f)$("${words[1]}" ` + completeWord + ` "${(@)words[2,CURRENT]}" 2>/dev/null | sed $'s/:/\\\\:/g; s/\t/:/')}")
	if [[ -n "${next[1]}" ]]; then
		_describe 'values' next
	else
		_files
	fi
}
compdef _circles_host ` + host.Command + `
`,
	"fish": `function __circles_host
	set -l words (commandline -opc) (commandline -ct)
	$words[1] ` + completeWord + ` $words[2..] 2>/dev/null
end
complete -c ` + host.Command + ` -a '(__circles_host)'
`,
}

// complete lists what the last word may become; nothing means a file.
func complete(app *cli.App, words []string, w io.Writer) {
	if len(words) == 0 {
		return
	}
	current := words[len(words)-1]
	c := &cli.Command{Subcommands: app.Commands}
	takesValue := valued(c)
	var arguments []string
	flag := "" // that current is the value of
	root := defaultRoot
	if env := os.Getenv("CIRCLES_ROOT"); env != "" {
		root = env
	}
	for _, word := range words[:len(words)-1] {
		switch {
		case flag != "":
			if flag == "root" {
				root = word
			}
			flag = ""
		case word == "--":
			return
		case strings.HasPrefix(word, "-") && takesValue[strings.TrimLeft(word, "-")]:
			flag = strings.TrimLeft(word, "-")
		case strings.HasPrefix(word, "-"):
			if value, ok := strings.CutPrefix(word, "--root="); ok {
				root = value
			}
		default:
			if next := find(c.Subcommands, word); next != nil && len(arguments) == 0 {
				c = next
			} else {
				arguments = append(arguments, word)
			}
		}
	}
	offer := func(value, about string) {
		if strings.HasPrefix(value, current) {
			fmt.Fprintf(w, "%s\t%s\n", value, about)
		}
	}
	if flag == "" && strings.HasPrefix(current, "-") {
		for _, f := range c.Flags {
			_, about := describe(f)
			offer("--"+f.Names()[0], about)
		}
		offer("--help", "say what this command does")
		return
	}
	if flag == "" && len(c.Subcommands) > 0 {
		if len(arguments) > 0 {
			return // there is no such command
		}
		for _, sub := range c.Subcommands {
			offer(sub.Name, sub.Usage)
		}
		return
	}
	kind := flag
	if kinds := argumentKinds[nameOfCommand(c)]; flag == "" && len(arguments) < len(kinds) {
		kind = kinds[len(arguments)]
	}
	switch kind {
	case "as", "to", "peer":
		r, err := host.OpenRoot(root)
		if err != nil {
			return
		}
		for _, e := range r.Peers.All() {
			offer(string(e.Name), e.ID.Short())
		}
	case "module":
		// Peers may have modules of their own; those of the host are a start.
		for _, name := range moduleNames(filepath.Join(root, "modules")) {
			offer(name, "")
		}
	case "shell":
		for _, shell := range slices.Sorted(maps.Keys(completions)) {
			offer(shell, "")
		}
	}
}

// argumentKinds says what the arguments of commands are.
var argumentKinds = map[string][]string{
	"completion":      {"shell"},
	"fsck":            {"peer"},
	"log":             {"peer"},
	"module diff":     {"module", "module"},
	"module source":   {"module"},
	"module verify":   {"module"},
	"module inspect":  {"module"},
	"module map":      {"module", "module"},
	"module pin":      {"module"},
	"module rollback": {"module"},
	"module unmap":    {"module"},
	"module unpin":    {"module"},
	"module versions": {"module"},
	"peer export":     {"peer"},
	"peer show":       {"peer"},
	"policy allow":    {"peer", "module"},
	"policy check":    {"peer"},
	"policy explain":  {"module"},
	"policy test":     {"peer"},
	"send":            {"module"},
}
