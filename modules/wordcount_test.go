package modules_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/modules"
)

// TestWordcount holds that a wasip1 program that knows nothing of circles works,
// by stdin, by file and by arguments.
func TestWordcount(t *testing.T) {
	m, ok := modules.Get("wordcount")
	if !ok {
		t.Fatal("no module wordcount")
	}
	h := sdktest.New(t)
	h.Put(t, "target", "/notes.txt", strings.Repeat("one two\n", 100_000))
	for _, c := range []struct {
		stdin string
		args  []string
		out   string
		code  uint32
		err   string
	}{
		{"hello, world\n", nil, `{"lines":1,"words":2,"bytes":13}`, 0, ""},
		{"", nil, `{"lines":0,"words":0,"bytes":0}`, 0, ""},
		{strings.Repeat("a b ", 300_000), nil, `{"lines":0,"words":600000,"bytes":1200000}`, 0, ""},
		{"file: /notes.txt\n", nil, `{"lines":100000,"words":200000,"bytes":800000}`, 0, ""},
		{"file: notes.txt", nil, `{"lines":100000,"words":200000,"bytes":800000}`, 0, ""},
		{"", []string{"/notes.txt"}, `{"lines":100000,"words":200000,"bytes":800000}`, 0, ""},
		{"file: /none\n", nil, "", 1, "wordcount: cannot open /none: No such file or directory"},
		{"file: " + strings.Repeat("x", 5000), nil, "", 2, "wordcount: the file's name is too long"},
		{"", []string{strings.Repeat("x", 5000)}, "", 1, "wordcount: cannot open "},
		{"", []string{"a", "b"}, "", 2, "wordcount: want at most one file"},
	} {
		g, err := h.Command(t, m.Wasm, sdktest.Options{Stdin: c.stdin, Args: c.args})
		code := uint32(0)
		if exit := (*sys.ExitError)(nil); errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != c.code || strings.TrimSpace(g.Stdout.String()) != c.out || !strings.HasPrefix(g.Stderr.String(), c.err) {
			t.Errorf("%.20q %.20q: exit %d, %q, %.80q", c.stdin, c.args, code, g.Stdout.String(), g.Stderr.String())
		}
	}
}
