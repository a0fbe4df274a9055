package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// printer writes for people: with colour on a terminal, plain in a pipe.
type printer struct {
	w      io.Writer
	colour bool
	width  int // of the terminal, in columns; 0 in a pipe
}

func newPrinter(w io.Writer) *printer {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &printer{w: w}
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 40 {
		width = 80
	}
	// https://no-color.org
	return &printer{w: w, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", width: width}
}

// flow breaks text between words where the terminal ends, after used columns of
// its first line are taken and each other is indented. A pipe gets one line.
func (p *printer) flow(used, indent int, text string) string {
	if p.width == 0 || used+utf8.RuneCountInString(text) <= p.width {
		return text
	}
	var b strings.Builder
	at := used
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case at+1+n > p.width && (i > 0 || used > indent):
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		case i > 0:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}

func (p *printer) f(format string, a ...any) { fmt.Fprintf(p.w, format, a...) }

// result prints a script's result: its bytes as they are, but on a terminal,
// which a stranger's bytes could drive. What e prints next begins a line.
func (p *printer) result(b []byte, e *printer) error {
	if p.width > 0 {
		b = []byte(clean(string(b)))
	}
	if _, err := p.w.Write(b); err != nil {
		return err
	}
	open := len(b) > 0 && b[len(b)-1] != '\n'
	switch {
	case open && p.width > 0:
		p.f("\n")
	case open && sameFile(p.w, e.w): // and so it is not the result for a program
		e.f("\n")
	}
	return nil
}

func sameFile(a, b io.Writer) bool {
	fa, okA := a.(*os.File)
	fb, okB := b.(*os.File)
	if !okA || !okB {
		return false
	}
	infoA, errA := fa.Stat()
	infoB, errB := fb.Stat()
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// paint wraps text in an ANSI attribute.
func (p *printer) paint(attribute, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return "\x1b[" + attribute + "m" + text + "\x1b[0m"
}

func (p *printer) bold(s string) string   { return p.paint("1", s) }
func (p *printer) dim(s string) string    { return p.paint("2", s) }
func (p *printer) red(s string) string    { return p.paint("31", s) }
func (p *printer) green(s string) string  { return p.paint("32", s) }
func (p *printer) yellow(s string) string { return p.paint("33", s) }
func (p *printer) cyan(s string) string   { return p.paint("36", s) }

// json prints v, indented.
func (p *printer) json(v any) error {
	e := json.NewEncoder(p.w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// clean makes text from elsewhere fit to print: a module's name for itself, a
// guest's message, a path. Control characters could change what the terminal
// shows, or what it does.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// line is clean on one line.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		return r
	}, clean(s))
}

// indent puts prefix before every line.
func indent(prefix, s string) string {
	s = strings.TrimRight(s, "\n")
	return prefix + strings.ReplaceAll(s, "\n", "\n"+prefix)
}
