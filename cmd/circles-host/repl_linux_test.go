package main

import (
	"io"
	"testing"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// TestLinesOfATerminal: Ctrl-C drops what is typed, with the lines that it goes on
// from, and Ctrl-D ends.
func TestLinesOfATerminal(t *testing.T) {
	tty, screen := terminal(t)
	go func() { _, _ = io.Copy(io.Discard, screen) }()
	if _, err := term.MakeRaw(int(tty.Fd())); err != nil { // before anything is typed
		t.Fatal(err)
	}
	app := cli.NewApp()
	app.Reader, app.Writer = tty, tty
	l := linesOf(cli.NewContext(app, nil, nil), func() string { return "> " })
	if l.terminal == nil {
		t.Fatal("it is no terminal")
	}
	for _, x := range []struct{ typed, want string }{
		{"1 + 1\r", "1 + 1"},
		{"oops\x03", ""},
		{"12\x1b[D3\r", "132"},
		{"f(\\\rx\x03", ""},
		{"\x03", ""},
		{"a\\\rb\r", "a\nb"},
	} {
		if _, err := io.WriteString(screen, x.typed); err != nil {
			t.Fatal(err)
		}
		if got, err := l.next(); got != x.want || err != nil {
			t.Errorf("%q: %q, %v", x.typed, got, err)
		}
	}
	if _, err := io.WriteString(screen, "\x04"); err != nil {
		t.Fatal(err)
	}
	if got, err := l.next(); err != io.EOF {
		t.Errorf("Ctrl-D: %q, %v", got, err)
	}
}
