package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/transport"
)

// version is set when a release is built.
var version = "dev"

// Exit codes. docs/exit-codes.md has the table; they do not change.
const (
	exitOK          = 0
	exitError       = 1 // a file, the network or the host failed
	exitUsage       = 2 // the command line is not right
	exitRefused     = 3 // the target's policy does not permit it
	exitFailed      = 4 // the script ran and failed: its error, a trap, a limit
	exitNotFound    = 5 // no such peer, module or entry
	exitUnavailable = 6 // try again: nobody there, overload, shutdown
	exitInvalid     = 7 // checked and found wrong: a policy, a log, a module
)

// coded carries an exit code. Its message may be empty: then everything was
// said already.
type coded struct {
	code int
	err  error
}

func (c coded) Error() string {
	if c.err == nil {
		return ""
	}
	return c.err.Error()
}
func (c coded) Unwrap() error { return c.err }

func usage(format string, a ...any) error { return coded{exitUsage, fmt.Errorf(format, a...)} }

// exitCode is the one place that maps errors to exit codes.
func exitCode(err error) int {
	var c coded
	var t *transport.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &c):
		return c.code
	case errors.As(err, &t) && t.Code == transport.Unavailable:
		return exitUnavailable
	case errors.As(err, &t) && t.Code == transport.NotFound:
		return exitNotFound
	}
	return exitError
}

// receiptExit maps what became of a script to an exit code.
func receiptExit(code script.Code) int {
	switch code {
	case script.Done:
		return exitOK
	case script.Refused:
		return exitRefused
	case script.NotFound:
		return exitNotFound
	case script.Unavailable:
		return exitUnavailable
	case script.Invalid:
		return exitInvalid
	case script.Internal, script.Unknown:
		return exitError
	}
	return exitFailed
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := newPrinter(stdout)
	app := &cli.App{
		Name:                   host.Command,
		Usage:                  "own your backend: run other peers' scripts in your own context, under your own policy",
		Version:                version,
		HideVersion:            true, // there is a command
		Reader:                 stdin,
		Writer:                 stdout,
		ErrWriter:              stderr,
		EnableBashCompletion:   true,
		UseShortOptionHandling: false,
		Suggest:                true,
		HideHelpCommand:        true,
		Commands: []*cli.Command{
			runCommand(), initCommand(), peerCommand(), moduleCommand(), policyCommand(),
			sendCommand(), logCommand(), execCommand(), versionCommand(), completionCommand(),
		},
		Metadata: map[string]any{printerKey: out},
		// Without this the library ends the process inside Run.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return coded{exitUsage, err} },
		CommandNotFound: func(c *cli.Context, name string) {
			// Reported below, with an exit code; this would print to stdout.
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage("there is no command %q; %s --help lists them", c.Args().First(), host.Command)
			}
			return cli.ShowAppHelp(c)
		},
	}
	prepare(app.Commands)
	err := app.RunContext(ctx, interleave(app, args))
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(stderr, "%s: %s\n", host.Command, text)
	}
	return exitCode(err)
}

const printerKey = "printer"

func printerOf(c *cli.Context) *printer { return c.App.Metadata[printerKey].(*printer) }

// prepare gives every command what the library does not inherit.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = func(ctx *cli.Context, err error, _ bool) error {
			return usage("%w; see %s %s --help", err, host.Command, ctx.Command.FullName())
		}
		c.HideHelpCommand = true
		if len(c.Subcommands) > 0 && c.Action == nil {
			c.Action = func(ctx *cli.Context) error {
				if ctx.Args().Present() {
					return usage("there is no command %q; see %s %s --help", ctx.Command.Name+" "+ctx.Args().First(), host.Command, ctx.Command.FullName())
				}
				return cli.ShowSubcommandHelp(ctx)
			}
		}
		prepare(c.Subcommands)
	}
}

// interleave moves flags before arguments, because the library stops looking for
// flags at the first argument, and people write either. "--" ends the flags, and
// a command marked so keeps what follows its first argument as it is.
func interleave(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	out := args[:1:1]
	commands, flags := app.Commands, app.Flags
	var command *cli.Command
	i := 1
	for ; i < len(args); i++ {
		next := find(commands, args[i])
		if next == nil {
			break
		}
		command, commands, flags = next, next.Subcommands, next.Flags
		out = append(out, args[i])
	}
	if command == nil {
		return args
	}
	var first, rest []string
	for ; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			if passThrough[command.Name] {
				rest = append(rest, args[i:]...)
				break
			}
			rest = append(rest, arg)
			continue
		}
		first = append(first, arg)
		if takesValue(flags, arg) && i+1 < len(args) {
			i++
			first = append(first, args[i])
		}
	}
	out = append(out, first...)
	if len(rest) > 0 {
		out = append(append(out, "--"), rest...)
	}
	return out
}

// passThrough names the commands whose arguments are another program's.
var passThrough = map[string]bool{"exec": true}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// takesValue reports whether the flag arg is followed by its value.
func takesValue(flags []cli.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				_, isBool := f.(*cli.BoolFlag)
				return !isBool
			}
		}
	}
	return false
}

// rootFlag is on every command that works on a root.
func rootFlag() cli.Flag {
	return &cli.StringFlag{Name: "root", EnvVars: []string{"CIRCLES_ROOT"}, Value: "circles", Usage: "the host's directory `DIR`"}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON for programs"}
}

func openRoot(c *cli.Context) (*host.Root, error) {
	r, err := host.OpenRoot(c.String("root"))
	if errors.Is(err, host.ErrNoRoot) {
		return nil, coded{exitNotFound, err}
	}
	return r, err
}

// args checks how many arguments there are; names tells what they are.
func args(c *cli.Context, least, most int, names string) error {
	if n := c.Args().Len(); n < least || n > most {
		return usage("want %s %s; got %d arguments; see --help", c.Command.FullName(), names, n)
	}
	return nil
}

// logger writes the operator's log to stderr.
func logger(c *cli.Context) *slog.Logger {
	level := slog.LevelInfo
	if c.Bool("verbose") {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level}))
}

// relative shortens a path for people, where that is shorter.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if r, err := filepath.Rel(wd, path); err == nil && len(r) < len(path) && !strings.HasPrefix(r, "..") {
		return r
	}
	return path
}
