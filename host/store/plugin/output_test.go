package plugin

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestOutputRate: after a flood as many lines are logged as time passes, and those
// that were not are counted.
func TestOutputRate(t *testing.T) {
	var l lines
	now := time.Now()
	o := newOutput(slog.New(slog.NewTextHandler(&l, nil)), func() time.Time { return now })
	for range 3 {
		o.Write([]byte(strings.Repeat("line\n", 1000)))
		now = now.Add(time.Second)
	}
	o.Write([]byte("half a l"))
	now = now.Add(time.Second)
	o.Write([]byte("ine\x07\n\n"))
	got := l.get()
	// 100; then twice a count and 5 lines; then one more of each.
	if want := outputBurst + 2*(1+outputRate) + 2; len(got) != want {
		t.Fatalf("%d lines, want %d", len(got), want)
	}
	if !strings.Contains(got[outputBurst], "lines=900") || !strings.Contains(got[len(got)-1], `line="half a line "`) {
		t.Errorf("%q … %q", got[outputBurst], got[len(got)-1])
	}
	if o.lastLine() != "half a line " {
		t.Errorf("the last is %q", o.lastLine())
	}
}
