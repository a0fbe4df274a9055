package plugin

import (
	"log/slog"
	"sync"
	"time"
)

// output takes what a plugin writes to its standard error and standard output,
// and hands the host's log lines of it: bounded ones, and so many and no more.
type output struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	line    []byte
	cut     bool // the rest of line was dropped
	tokens  float64
	at      time.Time // when tokens were counted last
	dropped int
	last    string
}

const (
	outputLine  = 1024 // bytes of a line
	outputBurst = 100  // lines at once
	outputRate  = 5    // lines a second after that
)

func newOutput(log *slog.Logger, now func() time.Time) *output {
	return &output{log: log, now: now, tokens: outputBurst, at: now()}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range p {
		switch {
		case b == '\n':
			o.end()
		case len(o.line) < outputLine:
			o.line = append(o.line, b)
		default:
			o.cut = true
		}
	}
	return len(p), nil
}

// end logs a line, or counts it.
func (o *output) end() {
	line := printable(string(o.line))
	if o.cut {
		line += " …"
	}
	o.line, o.cut = o.line[:0], false
	if line == "" {
		return
	}
	o.last = line
	now := o.now()
	o.tokens = min(outputBurst, o.tokens+max(0, now.Sub(o.at).Seconds())*outputRate)
	o.at = now
	if o.tokens < 1 {
		o.dropped++
		return
	}
	o.tokens--
	if o.dropped > 0 {
		o.log.Warn("storage plugin wrote more than is logged", "lines", o.dropped)
		o.dropped = 0
	}
	o.log.Info("storage plugin says", "line", line)
}

// lastLine is what was said last.
func (o *output) lastLine() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.line) > 0 {
		return printable(string(o.line))
	}
	return o.last
}
