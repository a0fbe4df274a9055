package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/imports/log"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/store"
)

// Exec is one run of a WASI program in a throwaway context: a developer's quick
// try, with no peer and no policy. What the program writes goes to a transaction
// over each of its directories, which is committed when it ends by itself, with
// whatever exit code, and dropped when it traps or is stopped.
type Exec struct {
	Wasm     []byte
	CacheDir string
	Name     string // args[0]
	Args     []string
	Env      map[string]string
	Stdio    engine.Stdio
	Limits   engine.Limits
	// Dirs are all that the program sees of any file system: preopened, in this
	// order, under these names. Run closes none of them.
	Dirs []ExecDir
	// Files narrows what each of Dirs lets one transaction use. Handles is for
	// all of them together.
	Files store.Limits
}

// ExecDir is a directory that a program sees. The name is the program's to
// interpret; libc takes it for the path that it is at.
type ExecDir struct {
	Name  string
	Store store.Store
}

// ExecUsage is what a program used. Bytes and entries are summed up over the
// directories; handles are the most that were open at once.
type ExecUsage struct {
	engine.Usage
	Files store.Usage
}

// Run runs the program. The error of one that did not end with exit code 0 is an
// *engine.Failure.
func (x Exec) Run(ctx context.Context) (used ExecUsage, err error) {
	info, err := engine.Inspect(x.Wasm)
	if err != nil {
		return used, err
	}
	if info.Shape == engine.Reactor {
		return used, fmt.Errorf("%w: it is a reactor, with entries and no _start; add it to a root and send it a script, or build it as a command", engine.ErrInvalid)
	}
	// The contexts of peers are not among what is offered: there are none.
	e, err := engine.New(ctx, engine.Config{CacheDir: x.CacheDir}, wasi.Module(), log.Module())
	if err != nil {
		return used, err
	}
	defer e.Close(context.WithoutCancel(ctx))
	program, err := e.Compile(ctx, x.Wasm)
	if err != nil {
		return used, err
	}
	defer program.Close()

	var ended error // by itself, with an exit code
	err = x.within(ctx, x.Dirs, nil, &used, func(dirs []wasi.Preopened) error {
		ctx, files := wasi.MountAll(ctx, dirs, wasi.Config{Handles: x.Files.Handles})
		out, err := e.Run(ctx, program, engine.Call{
			Name: x.Name, Args: x.Args, Env: x.Env, Limits: x.Limits, Stdio: &x.Stdio,
		})
		used.Usage, used.Files.Handles = out.Usage, files.Peak()
		var f *engine.Failure
		if errors.As(err, &f) && f.Kind == engine.Exited {
			ended, err = err, nil
		}
		return errors.Join(err, files.Close())
	})
	return used, errors.Join(err, ended)
}

// within opens a transaction on each directory in turn, and runs f in all.
func (x Exec) within(ctx context.Context, dirs []ExecDir, open []wasi.Preopened, used *ExecUsage, f func([]wasi.Preopened) error) error {
	if len(dirs) == 0 {
		return f(open)
	}
	return dirs[0].Store.Update(ctx, func(tx store.Tx) error {
		limits := x.Files
		limits.Handles = 0 // counted where the program has them all
		tx.Narrow(limits)
		err := x.within(ctx, dirs[1:], append(open, wasi.Preopened{Name: dirs[0].Name, Files: tx.Files(nil)}), used, f)
		used.Files.Bytes += tx.Usage().Bytes
		used.Files.Entries += tx.Usage().Entries
		return err
	})
}
