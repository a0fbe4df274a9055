package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/imports/log"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/script"
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
	// Files limits what the program may use of each of Dirs. Handles is for all of
	// them together.
	Files store.Limits
}

// ExecDir is a directory that a program sees. The name is the program's to
// interpret; libc takes it for the path that it is at.
type ExecDir struct {
	Name  string
	Store store.Store
}

// Run runs the program. The error of one that did not end with exit code 0 is an
// *engine.Failure. What it used of its directories is summed up over them.
func (x Exec) Run(ctx context.Context) (used script.Usage, err error) {
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

	var (
		ended error // by itself, with an exit code
		run   engine.Usage
		files store.Usage
	)
	defer func() { used = usage(run, files) }()
	err = x.within(ctx, x.Dirs, nil, &files, func(dirs []wasi.Preopened) error {
		ctx, open := wasi.MountAll(ctx, dirs, wasi.Config{Handles: x.Files.Handles})
		out, err := e.Run(ctx, program, engine.Call{
			Name: x.Name, Args: x.Args, Env: x.Env, Limits: x.Limits, Stdio: &x.Stdio,
		})
		run, files.Handles = out.Usage, open.Peak()
		var f *engine.Failure
		if errors.As(err, &f) {
			run = f.Usage
		}
		if f != nil && f.Kind == engine.Exited {
			ended, err = err, nil
		}
		return errors.Join(err, open.Close())
	})
	return used, errors.Join(err, ended)
}

// within opens a transaction on each directory in turn, and runs f in all.
func (x Exec) within(ctx context.Context, dirs []ExecDir, open []wasi.Preopened, used *store.Usage, f func([]wasi.Preopened) error) error {
	if len(dirs) == 0 {
		return f(open)
	}
	return dirs[0].Store.Update(ctx, func(tx store.Tx) error {
		limits := x.Files
		if limits.Handles > 0 {
			limits.Handles += ownHandles
		}
		tx.Limit(limits)
		err := x.within(ctx, dirs[1:], append(open, wasi.Preopened{Name: dirs[0].Name, Files: tx.Files(nil)}), used, f)
		used.Bytes += tx.Usage().Bytes
		used.Entries += tx.Usage().Entries
		return err
	})
}
