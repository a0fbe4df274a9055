package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/imports/log"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mount"
)

// Exec is one run of a WASI program in a throwaway context: a developer's quick
// try, with no peer and no policy. What the program writes goes to a transaction
// over each of its directories.
type Exec struct {
	Wasm     []byte
	CacheDir string
	Name     string // args[0]
	Args     []string
	Env      map[string]string
	Stdio    engine.Stdio
	Limits   engine.Limits
	// Root is what the program sees at "/", thrown away afterwards. Dirs are
	// shown in it, by guest path; what the program writes there is committed when
	// it ends by itself, with whatever exit code, and dropped when it traps or is
	// stopped. Run closes none of them.
	Root store.Store
	Dirs map[string]store.Store
}

// Run runs the program. The error of one that did not end with exit code 0 is an
// *engine.Failure.
func (x Exec) Run(ctx context.Context) error {
	info, err := engine.Inspect(x.Wasm)
	if err != nil {
		return err
	}
	if info.Shape == engine.Reactor {
		return fmt.Errorf("%w: it is a reactor, with entries and no _start; add it to a root and send it a script, or build it as a command", engine.ErrInvalid)
	}
	// The contexts of peers are not among what is offered: there are none.
	e, err := engine.New(ctx, engine.Config{CacheDir: x.CacheDir}, wasi.Module(), log.Module())
	if err != nil {
		return err
	}
	defer e.Close(context.WithoutCancel(ctx))
	program, err := e.Compile(ctx, x.Wasm)
	if err != nil {
		return err
	}
	defer program.Close()

	var ended error // by itself, with an exit code
	err = x.Root.Update(ctx, func(tx store.Tx) error {
		files := mount.New(tx.Files(nil))
		var dirs []string
		for at := range x.Dirs {
			dirs = append(dirs, at)
		}
		return x.within(ctx, dirs, files, func() error {
			ctx, root := wasi.Mount(ctx, files, wasi.Config{})
			_, err := e.Run(ctx, program, engine.Call{
				Name: x.Name, Args: x.Args, Env: x.Env, Files: root, Limits: x.Limits, Stdio: &x.Stdio,
			})
			var f *engine.Failure
			if errors.As(err, &f) && f.Kind == engine.Exited {
				ended, err = err, nil
			}
			return errors.Join(err, root.Err())
		})
	})
	return errors.Join(err, ended)
}

// within opens a transaction on each directory in turn, and runs f in all.
func (x Exec) within(ctx context.Context, dirs []string, files *mount.FS, f func() error) error {
	if len(dirs) == 0 {
		return f()
	}
	return x.Dirs[dirs[0]].Update(ctx, func(tx store.Tx) error {
		if err := files.Mount(dirs[0], tx.Files(nil)); err != nil {
			return err
		}
		return x.within(ctx, dirs[1:], files, f)
	})
}
