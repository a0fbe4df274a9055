package main

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/units"
)

// Exit codes of exec beside the program's own, as other runtimes and coreutils
// have them.
const (
	execTimeout = 124 // its time was over
	execError   = 125 // it was not run
	execStopped = 130 // Ctrl-C
	execTrap    = 134 // a trap, or a limit other than time
)

// execLimits are wide: the program is the developer's own.
var execLimits = engine.Limits{Wall: 10 * time.Minute, Memory: 1 << 30, Output: 1 << 40, HostCalls: 1 << 40, Log: 1 << 40}

func execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run any WASI program in a throwaway context",
		ArgsUsage: "FILE.wasm [ARG…]",
		Description: `The program gets this command's standard streams and ends it with its own exit
code. It sees the directories that --dir shows it, each preopened under its name
in the order given, and no other file. What it writes there is kept when it ends
by itself, and dropped when it traps or is stopped.

What follows FILE.wasm is the program's. Exit codes beside its own: 124 its time
was over, 125 it was not run, 130 Ctrl-C, 134 a trap or another limit.

Limits end the program, but for those on its files, of which it is told: bytes,
the sizes of the files that it writes in one directory together, and entries, the
names that it makes, removes, moves or whose files it writes there (EDQUOT); file,
the size of each (EFBIG); handles, the files it has open (EMFILE); depth, the names
in a path (ENAMETOOLONG).

   circles-host exec --dir .::/work --limit time=5s,bytes=64MiB wordcount.wasm /work/README.md`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "dir", Usage: "show the program the directory `HOST::GUEST`; HOST alone is shown under its own name"},
			&cli.StringSliceFlag{Name: "env", Usage: "set the environment variable `K=V`; K alone takes its value from here"},
			&cli.StringSliceFlag{Name: "limit", Usage: "`NAME=VALUE` of " + limitNames + ", as in time=5s,bytes=64MiB"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print on standard error what it used"},
			&cli.BoolFlag{Name: "json", Usage: "print that as JSON"},
		},
		Action: func(c *cli.Context) error {
			err := execProgram(c)
			var f *engine.Failure
			var known coded
			switch {
			case err == nil:
				return nil
			case errors.As(err, &known):
				return err
			case !errors.As(err, &f):
				return coded{execError, err}
			case f.Kind == engine.Exited:
				return coded{code: int(uint8(f.ExitCode))}
			case f.Kind == engine.DeadlineHit:
				return coded{execTimeout, fmt.Errorf("%s; nothing that it wrote was kept", f.Detail)}
			case f.Kind == engine.Cancelled:
				return coded{execStopped, errors.New("stopped; nothing that it wrote was kept")}
			}
			return coded{execTrap, fmt.Errorf("%s; nothing that it wrote was kept", clean(f.Detail))}
		},
	}
}

func execProgram(c *cli.Context) error {
	if c.Args().Len() == 0 {
		return usage("want exec FILE.wasm [ARG…]; see --help")
	}
	file := c.Args().First()
	wasm, err := readModule(file)
	if err != nil {
		return err
	}
	x := host.Exec{
		Wasm: wasm, Name: filepath.Base(file), Args: c.Args().Tail(), Env: map[string]string{}, Limits: execLimits, CacheDir: codeCache(),
		Stdio: engine.Stdio{Stdin: c.App.Reader, Stdout: c.App.Writer, Stderr: c.App.ErrWriter},
	}
	for _, kv := range c.StringSlice("env") {
		k, v, ok := strings.Cut(kv, "=")
		if k == "" {
			return usage("--env %q: want K=V", kv)
		}
		if !ok {
			v = os.Getenv(k)
		}
		x.Env[k] = v
	}
	for _, limit := range c.StringSlice("limit") {
		if err := setLimit(&x, limit); err != nil {
			return usage("--limit %s: %w", limit, err)
		}
	}
	for _, dir := range c.StringSlice("dir") {
		from, at, ok := strings.Cut(dir, "::")
		if !ok {
			at = from
		}
		if from == "" || at == "" {
			return usage("--dir %q: want HOST::GUEST", dir)
		}
		s, done, err := openDir(from)
		if err != nil {
			return fmt.Errorf("--dir %s: %w", dir, err)
		}
		defer done()
		for _, other := range x.Dirs {
			if other.Name == at {
				return usage("--dir %s: there are two for %s", dir, at)
			}
		}
		x.Dirs = append(x.Dirs, host.ExecDir{Name: at, Store: s})
	}
	used, err := x.Run(c.Context)
	switch {
	case c.Bool("json"):
		line, _ := json.Marshal(used) // of numbers
		fmt.Fprintf(c.App.ErrWriter, "%s\n", line)
	case c.Bool("verbose"):
		fmt.Fprintf(c.App.ErrWriter, "used %s\n", usageText(used))
	}
	return err
}

// codeCache keeps compiled code of modules that belong to no root; "" when there is
// no such place. Only code that this user compiled is taken from it, which is why
// the engine wants the folder to be nobody else's.
func codeCache() string {
	if dir := os.Getenv(cacheVariable); dir != "" {
		return dir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, host.Command)
}

// limitNames are those that setLimit knows.
const limitNames = "time, memory, output, log, fuel, host-calls, bytes, file, entries, handles or depth"

func setLimit(x *host.Exec, text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return errors.New("want NAME=VALUE, as in time=5s")
	}
	l, files := &x.Limits, &x.Files
	var (
		duration units.Duration
		size     units.Size
		number   units.Count
		to       encoding.TextUnmarshaler
		set      func()
	)
	sized := func(f func(uint64)) { to, set = &size, func() { f(uint64(size)) } }
	counted := func(f func(uint64)) { to, set = &number, func() { f(uint64(number)) } }
	const most = 1 << 30 // of what is counted in an int
	switch name {
	case "time":
		to, set = &duration, func() { l.Wall = time.Duration(duration) }
	case "memory":
		sized(func(n uint64) { l.Memory = n })
	case "output":
		sized(func(n uint64) { l.Output = n })
	case "log":
		sized(func(n uint64) { l.Log = n })
	case "bytes":
		sized(func(n uint64) { files.Bytes = int64(n) })
	case "file":
		sized(func(n uint64) { files.FileSize = int64(n) })
	case "fuel":
		counted(func(n uint64) { l.Fuel = n })
	case "host-calls":
		counted(func(n uint64) { l.HostCalls = n })
	case "entries":
		counted(func(n uint64) { files.Entries = int(min(n, most)) })
	case "handles":
		counted(func(n uint64) { files.Handles = int(min(n, most)) })
	case "depth":
		counted(func(n uint64) { files.Depth = int(min(n, most)) })
	default:
		return fmt.Errorf("there is no limit %q; want %s", name, limitNames)
	}
	err := to.UnmarshalText([]byte(value))
	if err == nil {
		set()
	}
	return err
}

// openDir opens a directory of the developer's for one run. What the program
// writes is staged beside it, since only there can a file be renamed into place.
func openDir(dir string) (s store.Store, done func(), err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		return nil, nil, errors.New("it is not a directory")
	}
	if dir == filepath.Dir(dir) {
		return nil, nil, errors.New("there is no place beside / to stage what is written; name the directory that the program needs")
	}
	stage, err := os.MkdirTemp(filepath.Dir(dir), ".circles-exec-")
	if err != nil {
		return nil, nil, fmt.Errorf("stage beside it what the program writes: %w", err)
	}
	s, err = openScratch(dir, stage)
	if err != nil {
		os.RemoveAll(stage)
		return nil, nil, err
	}
	return s, func() { s.Close(); os.RemoveAll(stage) }, nil
}
