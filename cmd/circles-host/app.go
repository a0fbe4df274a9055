package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/near"
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
	exitPending     = 8 // held until the target's owner has looked at it
	exitInterrupted = 130
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
	case script.Pending:
		return exitPending
	case script.Internal, script.Unknown:
		return exitError
	}
	return exitFailed
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := newApp()
	app.Reader, app.Writer, app.ErrWriter = stdin, stdout, stderr
	out := newPrinter(stdout)
	app.Metadata = map[string]any{printerKey: out}
	if len(args) > 1 && args[1] == completeWord {
		complete(app, args[2:], stdout)
		return exitOK
	}
	line, leaf := arrange(app, args)
	if line.help {
		help(out, leaf)
		return exitOK
	}
	err := app.RunContext(ctx, line.words)
	if err == nil {
		return exitOK
	}
	var known coded
	if ctx.Err() != nil && errors.Is(err, context.Canceled) && !errors.As(err, &known) {
		err = coded{exitInterrupted, errors.New("interrupted")}
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(stderr, "%s: %s\n", host.Command, clean(text))
	}
	return exitCode(err)
}

func newApp() *cli.App {
	app := &cli.App{
		Name:            host.Command,
		Usage:           "own your backend: other peers' scripts run in your context, under your policy",
		Version:         version,
		HideVersion:     true, // there is a command
		HideHelp:        true, // arrange finds --help
		HideHelpCommand: true,
		Commands: []*cli.Command{
			runCommand(), initCommand(), peerCommand(), moduleCommand(), policyCommand(),
			sendCommand(), replCommand(), receiptCommand(), delegationCommand(), reviewCommand(), undoCommand(), logCommand(), fsckCommand(), schemaCommand(), storeCommand(), execCommand(),
			newCommand(), devCommand(), testCommand(),
			benchCommand(), versionCommand(), completionCommand(),
		},
		// Without this the library ends the process inside Run.
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return flagError(err, nil, "") },
		CommandNotFound: func(*cli.Context, string) {}, // Action says it, with an exit code
	}
	app.Action = func(c *cli.Context) error {
		if !c.Args().Present() {
			help(printerOf(c), &cli.Command{Subcommands: app.Commands, Usage: app.Usage})
			return nil
		}
		return noCommand(app.Commands, c.Args().First(), "")
	}
	prepare(app.Commands, "")
	return app
}

const printerKey = "printer"

func printerOf(c *cli.Context) *printer { return c.App.Metadata[printerKey].(*printer) }

// nameOfCommand is what a person types for c, as in "peer add".
func nameOfCommand(c *cli.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(c.HelpName, host.Command), " ")
}

// prepare gives every command what the library does not inherit.
func prepare(commands []*cli.Command, parent string) {
	for _, c := range commands {
		c.HelpName = strings.TrimPrefix(parent+" "+c.Name, " ")
		c.OnUsageError = func(ctx *cli.Context, err error, _ bool) error {
			return flagError(err, c.Flags, nameOfCommand(c))
		}
		c.HideHelp, c.HideHelpCommand = true, true
		if len(c.Subcommands) > 0 {
			c.Action = func(ctx *cli.Context) error {
				if ctx.Args().Present() {
					return noCommand(c.Subcommands, ctx.Args().First(), nameOfCommand(c))
				}
				help(printerOf(ctx), c)
				return nil
			}
		}
		prepare(c.Subcommands, c.HelpName)
	}
}

func noCommand(commands []*cli.Command, name, parent string) error {
	words := strings.TrimSpace(host.Command + " " + parent)
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	if meant := near.Name(name, names); meant != "" {
		return usage("there is no command %q; did you mean %s %s?", strings.TrimSpace(parent+" "+name), words, meant)
	}
	return usage("there is no command %q; %s --help lists those that there are", strings.TrimSpace(parent+" "+name), words)
}

// flagError says what the flag package says in its own words.
func flagError(err error, flags []cli.Flag, command string) error {
	text := err.Error()
	see := strings.Join(strings.Fields("; see "+host.Command+" "+command+" --help"), " ")
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		var names []string
		for _, f := range flags {
			names = append(names, f.Names()...)
		}
		if meant := near.Name(name, names); meant != "" {
			return usage("%s has no flag --%s; did you mean --%s?", command, name, meant)
		}
		if command == "" {
			return usage("there is no flag --%s%s", name, see)
		}
		return usage("%s has no flag --%s%s", command, name, see)
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return usage("--%s needs a value%s", strings.TrimLeft(name, "-"), see)
	}
	if value, rest, ok := strings.Cut(text, " for flag -"); ok {
		name, reason, _ := strings.Cut(rest, ": ")
		return usage("--%s: %s: %s%s", strings.TrimLeft(name, "-"), value, reason, see)
	}
	return usage("%w%s", err, see)
}

// commandLine is what was typed, as the library wants it.
type commandLine struct {
	words []string
	help  bool
}

// arrange puts flags before arguments, because the library stops looking for
// flags at the first argument, and people write either. "--" ends the flags; what
// follows the first argument of a command that passes it through is not looked
// at. It also finds --help, and "help COMMAND", and what they are about.
func arrange(app *cli.App, args []string) (commandLine, *cli.Command) {
	top := &cli.Command{Subcommands: app.Commands, Flags: app.Flags, Usage: app.Usage}
	if len(args) == 0 {
		return commandLine{words: []string{host.Command}}, top
	}
	if len(args) > 1 && args[1] == "help" {
		args = append(append([]string{args[0]}, args[2:]...), "--help")
	}
	line := commandLine{words: args[:1:1]}
	leaf := top
	takesValue := valued(top)
	var flags, rest []string
	ended := false
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest, ended = append(rest, args[i+1:]...), true
			break
		}
		if len(arg) > 1 && arg[0] == '-' {
			if arg == "-h" || arg == "--help" || arg == "-help" {
				line.help = true
				continue
			}
			flags = append(flags, arg)
			name := strings.TrimLeft(arg, "-")
			takes, own := valued(&cli.Command{Flags: leaf.Flags})[name]
			if !own {
				takes = takesValue[name]
			}
			if takes && i+1 < len(args) {
				i++
				flags = append(flags, args[i])
			}
			continue
		}
		if len(rest) == 0 {
			if next := find(leaf.Subcommands, arg); next != nil {
				leaf = next
				line.words = append(line.words, arg)
				continue
			}
		}
		if passThrough[leaf.Name] {
			rest, ended = append(rest, args[i:]...), true
			break
		}
		rest = append(rest, arg)
	}
	line.words = append(line.words, flags...)
	if len(rest) > 0 || ended {
		line.words = append(append(line.words, "--"), rest...)
	}
	return line, leaf
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

// valued names the flags, of whichever command, that are followed by a value. A
// name means the same everywhere, which TestFlags holds, so that a flag may stand
// before its command too; but for new --list, which stands after it.
func valued(c *cli.Command) map[string]bool {
	names := map[string]bool{}
	for _, f := range c.Flags {
		_, isBool := f.(*cli.BoolFlag)
		for _, n := range f.Names() {
			names[n] = names[n] || !isBool
		}
	}
	for _, sub := range c.Subcommands {
		for n, takes := range valued(sub) {
			names[n] = names[n] || takes
		}
	}
	return names
}

// rootFlag is on every command that works on a root.
func rootFlag() cli.Flag {
	return &cli.StringFlag{Name: "root", EnvVars: []string{"CIRCLES_ROOT"}, Value: defaultRoot, Usage: "`DIR` that holds the host"}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON for programs"}
}

// rootDir is where the root is. A variable that is set to nothing is not set.
func rootDir(c *cli.Context) string {
	if dir := c.String("root"); dir != "" {
		return dir
	}
	return defaultRoot
}

const defaultRoot = "circles"

func openRoot(c *cli.Context) (*host.Root, error) {
	r, err := host.OpenRoot(rootDir(c))
	if errors.Is(err, host.ErrNoRoot) {
		return nil, coded{exitNotFound, err}
	}
	if err == nil {
		err = checkStores(r)
	}
	return r, err
}

// args checks how many arguments there are; names tells what they are.
func args(c *cli.Context, least, most int, names string) error {
	n := c.Args().Len()
	if n >= least && n <= most {
		return nil
	}
	got := "nothing"
	if n > 0 {
		quoted := make([]string, n)
		for i, a := range c.Args().Slice() {
			quoted[i] = fmt.Sprintf("%.60q", a)
		}
		got = strings.Join(quoted, " ")
	}
	if most == 0 {
		names = "no arguments"
	}
	name := nameOfCommand(c.Command)
	return usage("%s takes %s, and got %s; see %s %s --help", name, names, got, host.Command, name)
}

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// needs checks that flags are there. The library's own check prints the help on
// standard output, where a program expects the result.
func needs(c *cli.Context, flags ...string) error {
	var missing []string
	for _, f := range c.Command.Flags {
		if name := f.Names()[0]; slices.Contains(flags, name) && c.String(name) == "" {
			word, _ := describe(f)
			missing = append(missing, "--"+name+" "+word)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	name := nameOfCommand(c.Command)
	return usage("%s needs %s; see %s %s --help", name, strings.Join(missing, " and "), host.Command, name)
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
