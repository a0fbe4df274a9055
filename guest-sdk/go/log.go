package circles

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
)

// Log adds a line to the log that is kept with the receipt, and that both peers
// may read. The host cuts what is over its limit. Levels in between count as the
// one below them.
func Log(level slog.Level, message string) {
	l := uint32(0)
	switch {
	case level >= slog.LevelError:
		l = 3
	case level >= slog.LevelWarn:
		l = 2
	case level >= slog.LevelInfo:
		l = 1
	}
	hostLog(l, strings.ToValidUTF8(message, "\uFFFD"))
}

// LogHandler is a handler for package log/slog that writes to Log:
//
//	log := slog.New(circles.LogHandler(nil))
//	log.Info("signed", "entry", 3) // info: signed entry=3
//
// The host adds time and level, so the line has neither. By default levels from
// info up are logged, as elsewhere in slog.
func LogHandler(opts *slog.HandlerOptions) slog.Handler {
	var o slog.HandlerOptions
	if opts != nil {
		o = *opts
	}
	replace := o.ReplaceAttr
	o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		if replace != nil {
			return replace(groups, a)
		}
		return a
	}
	line := new(line)
	return logHandler{line, slog.NewTextHandler(&line.attrs, &o)}
}

// logHandler lets a TextHandler write the attributes, and puts the message before
// them.
type logHandler struct {
	line *line
	text slog.Handler
}

// line is shared by a handler and those derived from it.
type line struct {
	mu    sync.Mutex
	attrs bytes.Buffer
}

func (h logHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.text.Enabled(ctx, l) }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.attrs.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	Log(r.Level, strings.TrimSpace(r.Message+" "+h.line.attrs.String()))
	return nil
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.line, h.text.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.line, h.text.WithGroup(name)}
}
