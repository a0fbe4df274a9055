package log_test

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/circles-host/circles/host/engine"
	. "github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/imports/log"
)

// logged runs a guest that logs message, and returns its log.
func logged(t *testing.T, level int32, message string) (string, error) {
	t.Helper()
	ctx := context.Background()
	e, err := engine.New(ctx, engine.Config{}, log.Module())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(ctx)
	var m Module
	write := m.Import("circles:host/log@0.1.0", "write", "iii", "")
	m.Memory(2)
	m.Bump(1 << 16)
	m.Data(64, message)
	m.Func("run", "ii", "i", I32(level), I32(64), I32(int32(len(message))), Call(write), I32(1), I32(0), I32(0), Call(write), I32(16))
	p, err := e.Compile(ctx, m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, err := e.Run(ctx, p, engine.Call{})
	return string(out.Log), err
}

func TestWrite(t *testing.T) {
	for _, tc := range []struct {
		level         int32
		message, want string
	}{
		{0, "plain", "debug: plain\n"},
		{1, "", "info: \n"},
		{2, "grüße, 世界 👋\tend", "warn: grüße, 世界 👋\tend\n"},
		{3, "ends with a line break\n", "error: ends with a line break\n"},
	} {
		got, err := logged(t, tc.level, tc.message)
		if err != nil || got != tc.want+"info: \n" {
			t.Errorf("write(%d, %q) logged %q, %v; want %q", tc.level, tc.message, got, err, tc.want)
		}
	}
}

// A guest cannot write a line that looks like another's, nor one that speaks to
// the reader's terminal.
func TestForgedLines(t *testing.T) {
	for message, want := range map[string]string{
		"a\nerror: forged":                `a\nerror: forged`,
		"a\r\x1b[2K error: forged":        `a\r\x1b[2K error: forged`,
		"\x1b]0;title\x07":                `\x1b]0;title\a`,
		"\u009b31m":                       `\u009b31m`,
		"\x00\x7f\b":                      `\x00\x7f\b`,
		"a\u2028b\u2029c\u0085d":          `a\u2028b\u2029c\u0085d`,
		"\u202egnp.exe\u2066\u200b\ufeff": `\u202egnp.exe\u2066\u200b\ufeff`,
	} {
		got, err := logged(t, 1, message)
		if err != nil || got != "info: "+want+"\ninfo: \n" {
			t.Errorf("message %q logged %q, %v", message, got, err)
		}
	}
}

func TestLongMessageIsCut(t *testing.T) {
	got, err := logged(t, 1, "x"+strings.Repeat("ä", log.MaxLine))
	want := "info: x" + strings.Repeat("ä", log.MaxLine/2-1) + "…\ninfo: \n"
	if err != nil || got != want {
		t.Errorf("%d bytes logged, %v; want %d", len(got), err, len(want))
	}
}

func TestHostileArguments(t *testing.T) {
	if got, err := logged(t, 4, "x"); err == nil || !strings.Contains(err.Error(), "no case of enum{debug, info, warn, error}") {
		t.Errorf("level 4 logged %q, %v", got, err)
	}
	if got, err := logged(t, 1, "\xff\xfe"); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("message that is not UTF-8 logged %q, %v", got, err)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\nb\x1b[0m")
	f.Fuzz(func(t *testing.T, message string) {
		if !utf8.ValidString(message) {
			return // never gets here: the ABI has checked it
		}
		line := log.Line("info", message)
		body := strings.TrimSuffix(line, "\n")
		if body == line || !utf8.ValidString(line) || strings.IndexFunc(body, func(r rune) bool {
			return r != '\t' && (r < ' ' || 0x7f <= r && r < 0xa0 || r == 0x2028 || r == 0x2029)
		}) >= 0 {
			t.Errorf("%q became %q", message, line)
		}
	})
}
