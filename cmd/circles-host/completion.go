package main

import (
	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a completion script for a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: `bash:  source <(` + host.Command + ` completion bash)
zsh:   source <(` + host.Command + ` completion zsh)
fish:  ` + host.Command + ` completion fish | source`,
		Action: func(c *cli.Context) error {
			if err := args(c, 1, 1, "bash|zsh|fish"); err != nil {
				return err
			}
			p := printerOf(c)
			switch shell := c.Args().First(); shell {
			case "bash":
				p.f("%s", bashCompletion)
			case "zsh":
				p.f("%s", zshCompletion)
			case "fish":
				text, err := c.App.ToFishCompletion()
				if err != nil {
					return err
				}
				p.f("%s", text)
			default:
				return usage("there is no completion for %q; want bash, zsh or fish", shell)
			}
			return nil
		},
	}
}

// The program itself lists what may come next when it is called with
// --generate-bash-completion as its last argument.
const bashCompletion = `_circles_host() {
	local words=("${COMP_WORDS[@]:0:COMP_CWORD}") current="${COMP_WORDS[COMP_CWORD]}"
	if [[ "$current" == -* ]]; then
		words+=("$current")
	fi
	local next
	next=$("${words[@]}" --generate-bash-completion 2>/dev/null) || return
	mapfile -t COMPREPLY < <(compgen -W "$next" -- "$current")
	[[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o default
}
complete -F _circles_host circles-host
`

const zshCompletion = `#compdef circles-host
_circles_host() {
	local -a next
	local current="${words[CURRENT]}"
	if [[ "$current" == -* ]]; then
		next=("${(@f)$(${words[1,CURRENT]} --generate-bash-completion 2>/dev/null)}")
	else
		next=("${(@f)$(${words[1,CURRENT-1]} --generate-bash-completion 2>/dev/null)}")
	fi
	if [[ -n "${next[1]}" ]]; then
		_describe 'values' next
	else
		_files
	fi
}
compdef _circles_host circles-host
`
