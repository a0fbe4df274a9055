package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal returns both ends of a terminal: what is written to the one that is a
// terminal is read from the other.
func terminal(t *testing.T) (tty, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return tty, screen
}

func TestProgress(t *testing.T) {
	tty, screen := terminal(t)
	done := progress(t.Context(), tty, "building \x1b[2Jthings")
	var seen strings.Builder
	for b := make([]byte, 256); !strings.Contains(seen.String(), "things… "); { // the test's deadline ends it
		n, err := screen.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		seen.Write(b[:n])
	}
	done()
	if text := seen.String(); strings.Contains(text, "\x1b[2J") || !strings.HasPrefix(text, "\r\x1b[K") {
		t.Errorf("wrote %q", text)
	}
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(screen) // ends with EIO, as the other end is closed
	if !strings.HasSuffix(string(rest), "\r\x1b[K") {
		t.Errorf("left %q on the line", rest)
	}
}

// What is over soon, and what is not seen by a person, says nothing.
func TestProgressSilent(t *testing.T) {
	tty, screen := terminal(t)
	progress(t.Context(), tty, "blinking")()
	tty.Close()
	if b, _ := io.ReadAll(screen); len(b) > 0 {
		t.Errorf("wrote %q", b)
	}
	var pipe strings.Builder
	done := progress(t.Context(), &pipe, "building")
	time.Sleep(progressAfter + 100*time.Millisecond)
	done()
	if pipe.Len() > 0 {
		t.Errorf("wrote %q into a pipe", pipe.String())
	}
}
