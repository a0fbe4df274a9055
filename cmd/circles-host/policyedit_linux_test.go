package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/host"
)

// TestPolicyAllowAsks: on a terminal a policy is shown first, and written if its
// owner says so.
func TestPolicyAllowAsks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "circles")
	quiet := func(args ...string) {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{host.Command}, args...), strings.NewReader(""), &out, &out); code != exitOK {
			t.Fatalf("%v: %s", args, out.String())
		}
	}
	quiet("init", "--root", dir)
	quiet("peer", "add", "alice", "--root", dir)
	quiet("peer", "add", "bob", "--root", dir)
	file := filepath.Join(dir, "peers/bob/policy/allow-alice-wordcount.cedar")
	for _, tt := range []struct {
		answer string
		extra  []string
		code   int
		asked  bool
	}{
		{"n\n", nil, exitInterrupted, true},
		{"\n", nil, exitInterrupted, true},
		{"y\n", nil, exitOK, true},
		{"", []string{"--yes"}, exitOK, false},
	} {
		_ = os.Remove(file)
		tty, screen := terminal(t)
		if _, err := screen.WriteString(tt.answer); err != nil {
			t.Fatal(err)
		}
		args := append([]string{host.Command, "policy", "allow", "--root", dir, "--to", "bob", "alice", "wordcount"}, tt.extra...)
		if code := run(t.Context(), args, tty, tty, tty); code != tt.code {
			t.Errorf("%q: exit code %d, want %d", tt.answer, code, tt.code)
		}
		_, err := os.Stat(file)
		if written := err == nil; written != (tt.code == exitOK) {
			t.Errorf("%q: written is %t", tt.answer, written)
		}
		var seen strings.Builder
		for b := make([]byte, 4096); !strings.Contains(seen.String(), "wordcount"); {
			n, err := screen.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			seen.Write(b[:n])
		}
		tty.Close()
		for b := make([]byte, 4096); ; {
			n, err := screen.Read(b)
			if seen.Write(b[:n]); err != nil {
				break // the other end is closed
			}
		}
		if asked := strings.Contains(seen.String(), "[y/N]"); asked != tt.asked {
			t.Errorf("%q: asked is %t\n%s", tt.answer, asked, seen.String())
		}
		if shown := strings.Index(seen.String(), "permit ("); shown < 0 {
			t.Errorf("%q: it was not shown:\n%s", tt.answer, seen.String())
		}
	}
}
