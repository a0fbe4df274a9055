// Package log is the WIT interface circles:host/log: lines that a script leaves
// for the people who read its receipt.
//
//	e, err := engine.New(ctx, engine.Config{}, contexts.Module(), log.Module())
//
// Lines go to engine.Log, which bounds them and keeps them with the outcome of
// the run.
package log

import (
	"strconv"
	"strings"
	"unicode"

	"github.com/tetratelabs/wazero"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi"
)

// The interface's name and version.
const (
	name    = "circles:host/log"
	version = "0.1.2"
)

// MaxLine bounds one message, in bytes; the rest is cut.
const MaxLine = 8 << 10

var levels = []string{"debug", "info", "warn", "error"}

// Module returns the host module for an engine.
func Module() engine.HostModule {
	return engine.HostModule{
		Name:    name,
		Version: version,
		Export: func(b wazero.HostModuleBuilder) {
			abi.Export(b, name+"@"+version, Functions()...)
		},
	}
}

// Functions returns the interface's functions, as wit/deps/circles-host/host.wit
// declares them.
func Functions() []abi.Func {
	return []abi.Func{{
		Name:   "write",
		Params: []*abi.Type{abi.Enum(levels...), abi.String},
		Do: func(c *abi.Call) {
			level := levels[c.Enum()]
			message, whole := c.String(MaxLine)
			line := Line(level, message)
			if !whole {
				line = strings.TrimSuffix(line, "\n") + "…\n"
			}
			// One Write, so that no line of another writer comes in between.
			// A log that is full is never the guest's error.
			_, _ = engine.Log(c.Context()).Write([]byte(line))
		},
	}}
}

// Line returns a message as one line of a log, "info: booked 10:00\n". A
// message is a guest's: whatever would end the line, or speak to the reader's
// terminal instead of to the reader (control characters, escapes, marks that
// turn the text's direction), is written as a Go escape.
func Line(level, message string) string {
	var b strings.Builder
	b.Grow(len(level) + 2 + len(message) + 1)
	b.WriteString(level)
	b.WriteString(": ")
	for _, r := range strings.TrimRight(message, "\r\n") {
		if r == '\t' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
	}
	b.WriteByte('\n')
	return b.String()
}
