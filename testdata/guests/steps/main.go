//go:build wasip1

// steps is a reactor that does what its params say, for tests of modules that run each
// other. Params are a JSON list of steps, each a list: the step's name and what it
// needs. The result is a line for each step that has something to say.
//
//	[["write", "/a", "text"], ["call", "other", "run", [["read", "/a"]]]]
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/circles-host/circles/guest-sdk/go"
)

func main() {}

//go:wasmexport run
func run(ptr, n uint32) uint32 { return circles.Handle(ptr, n, steps) }

//go:wasmexport sign
func sign(ptr, n uint32) uint32 { return circles.Handle(ptr, n, steps) }

func steps(params []byte) ([]byte, error) {
	var all [][]json.RawMessage
	if len(params) > 0 {
		if err := json.Unmarshal(params, &all); err != nil {
			return nil, fmt.Errorf("steps: %w", err)
		}
	}
	var said []string
	for _, step := range all {
		line, err := do(step)
		if err != nil {
			return nil, err
		}
		if line != "" {
			said = append(said, line)
		}
	}
	return []byte(strings.Join(said, "\n")), nil
}

func do(step []json.RawMessage) (string, error) {
	text := func(i int) (s string) {
		if i < len(step) {
			_ = json.Unmarshal(step[i], &s)
		}
		return s
	}
	params := func(i int) []byte {
		if i < len(step) {
			return step[i]
		}
		return nil
	}
	said := func(b []byte, err error) (string, error) { return string(b), err }
	target := circles.Target()
	switch name := text(0); name {
	case "say":
		return text(1), nil
	case "entry":
		return circles.Entry(), nil
	case "log":
		slog.Info(text(1))
		return "", nil
	case "fail":
		return "", errors.New(text(1))
	case "exit":
		os.Exit(3)
		return "", nil
	case "write":
		return "", target.WriteFile(text(1), []byte(text(2)))
	case "append":
		return "", target.Append(text(1), []byte(text(2)))
	case "read":
		return said(target.ReadFile(text(1)))
	case "lent":
		return said(circles.Caller().ReadFile(text(1)))
	case "put":
		return "", target.Collection(text(1)).Put(text(2), []byte(text(3)))
	case "get":
		return said(target.Collection(text(1)).Get(text(2)))
	case "loop":
		for {
		}
	case "eat": // memory
		var have [][]byte
		for {
			have = append(have, make([]byte, 1<<20))
			if len(have) == 1<<20 {
				return "", errors.New("it has eaten a TiB")
			}
		}
	case "call":
		return said(circles.Call(text(1), text(2), params(3)))
	case "base":
		return said(circles.Base(text(1), params(2)))
	case "try": // a step, and go on whatever comes of it
		var inner []json.RawMessage
		if err := json.Unmarshal(step[1], &inner); err != nil {
			return "", err
		}
		line, err := do(inner)
		if err != nil {
			return "error: " + err.Error(), nil
		}
		return line, nil
	case "again": // forever, in the module of that name
		return said(circles.Call(text(1), "", []byte(fmt.Sprintf(`[["again", %q]]`, text(1)))))
	default:
		return "", fmt.Errorf("no such step: %q", name)
	}
}
