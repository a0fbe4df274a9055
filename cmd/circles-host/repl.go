package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/script"
)

func replCommand() *cli.Command {
	return &cli.Command{
		Name:      "repl",
		Usage:     "try texts in the context of a peer, line by line, before doing them",
		ArgsUsage: " ",
		Description: `Each line is a script, sent as a dry run: its result, what it would change, and what
it is denied are shown, and nothing is changed. :commit does the last one for real;
:help tells the rest. A line that ends with "\" goes on in the next.

Nothing is kept from one line to the next but what was committed: each is a text by
itself, decided about by the target's policies like any other.

   echo 'target.list("/")' | circles-host repl --as alice --to bob`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "as", Usage: "send as `PEER`, whose key is in this root"},
			&cli.StringFlag{Name: "to", Usage: "send to `PEER`, a petname or did:key"},
			&cli.StringFlag{Name: "host", Usage: "the worker's `URL`, instead of the one that the target's route names"},
			langFlag(),
			&cli.StringSliceFlag{Name: "lend", Usage: "let the script do `ACTION:PATH` in the sender's context; read:/card.txt, list:/photos, get:cards/home, query:cards"},
			&cli.DurationFlag{Name: "deadline", Usage: "give up on a line after `TIME`", Value: time.Minute},
		},
		Action: func(c *cli.Context) error {
			if err := first(args(c, 0, 0, "without arguments"), needs(c, "as", "to")); err != nil {
				return err
			}
			root, err := openRoot(c)
			if err != nil {
				return err
			}
			from, to, _, err := ends(c, root)
			if err != nil {
				return err
			}
			r := &repl{c: c, root: root}
			if r.language, err = languageNamed(lang(c)); err != nil {
				return err
			}
			if r.lent, err = lent(c); err != nil {
				return err
			}
			lines := linesOf(c, func() string { return fmt.Sprintf("%s→%s %s> ", who(from), who(to), r.language.Name) })
			if lines.terminal != nil {
				newPrinter(c.App.ErrWriter).f("Each line is a dry run. :commit does the last one for real, :help tells more, :quit ends.\n")
			}
			return r.run(lines)
		},
	}
}

// lang is the language that --lang names.
func lang(c *cli.Context) string {
	if name := c.String("lang"); name != "" {
		return name
	}
	return defaultLanguage
}

// repl is a session.
type repl struct {
	c        *cli.Context
	root     *host.Root
	language engine.Language
	lent     []script.Grant
	params   []byte
	last     *script.Script // the last line, if it went well and was not committed
}

// run does line after line. Its error is that of the last one, so that a pipe's exit
// code tells of it.
func (r *repl) run(lines *lines) (last error) {
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return last
		}
		if err != nil {
			return err
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		if word == ":quit" || word == ":q" {
			return last
		}
		if last = r.do(word, strings.TrimSpace(rest), line); last == nil {
			continue
		}
		if r.c.Context.Err() != nil {
			return last // a run was interrupted
		}
		if code := (coded{}); errors.As(last, &code) && code.err == nil {
			continue // said already
		}
		newPrinter(r.c.App.ErrWriter).f("%s\n", clean(last.Error()))
		last = coded{code: exitCode(last)}
	}
}

const replHelp = `TEXT            try it: a dry run
TEXT\           and it goes on in the next line
:commit         do for real what was tried last
:lang LANGUAGE  go on in another language
:params JSON    what params are from now on; without JSON, none
:help, :quit    Ctrl-C drops a line, Ctrl-D ends
`

func (r *repl) do(word, rest, line string) error {
	e := newPrinter(r.c.App.ErrWriter)
	switch {
	case !strings.HasPrefix(word, ":"):
		return r.try(line)
	case word == ":commit" && rest == "":
		return r.commit()
	case word == ":help":
		e.f("%s", replHelp)
	case word == ":lang":
		l, err := languageNamed(rest)
		if err != nil {
			return err
		}
		r.language, r.last = l, nil
	case word == ":params":
		if len(rest) > script.MaxParams {
			return usage("params have more than %d bytes", script.MaxParams)
		}
		r.params = []byte(rest)
	default:
		return usage("%s: there is no such command; :help names them", word)
	}
	return nil
}

// try sends a line as a dry run.
func (r *repl) try(line string) error {
	r.last = nil
	if err := engine.CheckText([]byte(line)); err != nil {
		return coded{exitInvalid, err}
	}
	s := script.Script{Logic: script.Logic{Text: script.Text{Language: r.language.Name, Source: line}}, Params: r.params, Lent: r.lent, DryRun: true}
	err := r.send(s)
	if err == nil {
		r.last = &s
	}
	return err
}

// commit does what was tried last.
func (r *repl) commit() error {
	if r.last == nil {
		return usage("nothing to commit: what was tried last did not go well, or was committed")
	}
	s := *r.last
	s.DryRun = false
	err := r.send(s)
	if err == nil {
		r.last = nil // twice would be another script
	}
	return err
}

func (r *repl) send(s script.Script) (err error) {
	if s.NotBefore, s.Deadline, err = times(r.c); err != nil {
		return err
	}
	sent, err := deliver(r.c.Context, r.c, r.root, s)
	if err != nil {
		return err
	}
	err = report(r.c, sent)
	if result := sent.Receipt.Result; len(result) > 0 && result[len(result)-1] != '\n' && newPrinter(r.c.App.Writer).width == 0 {
		fmt.Fprintln(r.c.App.Writer) // a line for each
	}
	return err
}

// maxLine bounds what is read before it ends.
const maxLine = engine.MaxText

// lines are those that somebody types, with editing and a history that is not kept; or
// those of a pipe.
type lines struct {
	terminal *term.Terminal
	file     *os.File // of the terminal
	prompt   func() string
	pipe     *bufio.Scanner
}

func linesOf(c *cli.Context, prompt func() string) *lines {
	f, ok := c.App.Reader.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) && newPrinter(c.App.Writer).width > 0 {
		screen := struct {
			io.Reader
			io.Writer
		}{f, c.App.Writer}
		screen.Reader = keys{f}
		return &lines{terminal: term.NewTerminal(screen, ""), file: f, prompt: prompt}
	}
	s := bufio.NewScanner(c.App.Reader)
	s.Buffer(nil, maxLine+1)
	return &lines{pipe: s}
}

// next returns what was typed, of several lines if all but the last end with "\". The
// error is io.EOF at the end.
func (l *lines) next() (string, error) {
	var text strings.Builder
	for {
		line, err := l.line(text.Len() > 0)
		if err != nil {
			return "", err
		}
		if l.terminal != nil && line == droppedLine {
			return "", nil
		}
		more := strings.HasSuffix(line, `\`)
		text.WriteString(strings.TrimSuffix(line, `\`))
		if text.Len() > maxLine {
			return "", coded{exitInvalid, fmt.Errorf("a text has more than %d bytes", maxLine)}
		}
		if !more {
			return text.String(), nil
		}
		text.WriteByte('\n')
	}
}

// keys are those of a terminal, of which Ctrl-C drops what is being typed, as in
// shells. The terminal's editor would take it for the end.
type keys struct{ from io.Reader }

// droppedLine is what a line is that was dropped. It is a text in no language.
const droppedLine = "^C"

func (k keys) Read(p []byte) (int, error) {
	const ctrlC, drop = "\x03", "\x05\x15" + droppedLine + "\r" // go to the end, remove what is before that, enter this
	typed := make([]byte, max(1, len(p)/len(drop)))
	n, err := k.from.Read(typed)
	return copy(p, strings.ReplaceAll(string(typed[:n]), ctrlC, drop)), err
}

func (l *lines) line(within bool) (string, error) {
	if l.terminal == nil {
		if l.pipe.Scan() {
			return l.pipe.Text(), nil
		}
		if errors.Is(l.pipe.Err(), bufio.ErrTooLong) {
			return "", coded{exitInvalid, fmt.Errorf("a line has more than %d bytes", maxLine)}
		}
		if err := l.pipe.Err(); err != nil {
			return "", fmt.Errorf("read a line: %w", err)
		}
		return "", io.EOF
	}
	// Only while a line is edited: results are printed, and interrupted, as elsewhere.
	before, err := term.MakeRaw(int(l.file.Fd()))
	if err != nil {
		return "", fmt.Errorf("read a line: %w", err)
	}
	defer func() { _ = term.Restore(int(l.file.Fd()), before) }()
	if width, height, err := term.GetSize(int(l.file.Fd())); err == nil {
		_ = l.terminal.SetSize(width, height)
	}
	prompt := l.prompt()
	if within {
		prompt = strings.Repeat(" ", max(0, utf8.RuneCountInString(prompt)-2)) + "> "
	}
	l.terminal.SetPrompt(prompt)
	return l.terminal.ReadLine()
}
