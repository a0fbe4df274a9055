// Package wasi gives a guest WASI preview 1: the functions of
// wasi_snapshot_preview1 with every argument bounded, over a file system that
// is a transaction of a peer's context.
//
//	e, err := engine.New(ctx, engine.Config{}, wasi.Module())
//	…
//	ctx, files := wasi.Mount(ctx, tx.Files(guard), wasi.Config{})
//	out, err := e.Run(ctx, p, engine.Call{Files: files})
//	if files.Err() != nil { … } // the storage failed: do not commit
//
// The functions are wazero's own, each behind a guard of ours (guards.go);
// those whose own code cannot be bounded from outside (poll_oneoff,
// fd_readdir, the sockets, the syncs) are written here. Module lists them all,
// so that a function that a later wazero adds is not exported unseen.
//
// # What a guest can reach
//
// File descriptors 0 to 2 are what the engine bound to them, 3 is the
// directory "/", and nothing else is ever open that the guest has not opened
// below 3. Paths are resolved by store.FS, which confines them; this package
// hands it only names without NUL, in UTF-8, without "..".
//
// # State
//
// What belongs to one instance (the files it has open, the context of the
// call being served, the errno of the last refusal) is in its FS, which the
// functions find in the context that the engine passes them: Mount puts it
// there. A guest that has no files runs without one.
//
// # Deadlines
//
// Each function ends the guest with sys.ExitError when its context has ended,
// before and after its work and while it waits: a guest whose loop is a host
// call is stopped there, and one that sleeps in poll_oneoff is woken. Nothing
// need be set on wazero.ModuleConfig for it. A guest can exit with the same
// codes by itself, so ask the context, not the code, whether time ran out.
//
// The functions: https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md
package wasi

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	stock "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/store"
)

// Config bounds one instance. The zero value works.
type Config struct {
	// Handles is how many files and directories a guest may hold open at once.
	// 0 means 256.
	Handles int
}

const defaultHandles = 256

// Mount makes a guest's "/" of files, for one instance, and a context in which
// the functions of Module find it. Both are for the same engine.Run: the FS as
// engine.Call.Files, the context as its first argument. An FS belongs to the
// goroutine that runs the instance.
func Mount(ctx context.Context, files store.FS, c Config) (context.Context, *FS) {
	if c.Handles <= 0 {
		c.Handles = defaultHandles
	}
	f := &FS{store: files, handles: c.Handles}
	f.ctx = context.WithValue(ctx, mountKey{}, f)
	return f.ctx, f
}

type mountKey struct{}

// mounted returns the instance's file system, nil if it has none.
func mounted(ctx context.Context) *FS {
	f, _ := ctx.Value(mountKey{}).(*FS)
	return f
}

// Module is wasi_snapshot_preview1 for engine.New. It panics if the wazero
// that this was built with has functions that guards does not list, or lacks
// one: that is a build to refuse, not a condition to handle.
func Module() engine.HostModule {
	originals, err := originals()
	if err == nil {
		err = covered(originals)
	}
	if err != nil {
		panic(fmt.Errorf("wasi: %w", err))
	}
	return engine.HostModule{
		Name: stock.ModuleName,
		Export: func(b wazero.HostModuleBuilder) {
			for name, o := range originals {
				b.NewFunctionBuilder().
					WithGoModuleFunction(guarded(name, originals), o.def.ParamTypes(), o.def.ResultTypes()).
					WithName(name).
					WithParameterNames(o.def.ParamNames()...).
					WithResultNames(o.def.ResultNames()...).
					Export(name)
			}
		},
	}
}

// original is one of wazero's own functions.
type original struct {
	def  api.FunctionDefinition
	call api.GoModuleFunction
}

// originals compiles wazero's host module, never to be instantiated, to get at
// its functions, which have no state of their own.
var originals = sync.OnceValues(func() (map[string]original, error) {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	m, err := stock.NewBuilder(r).Compile(ctx)
	if err != nil {
		return nil, fmt.Errorf("compile wazero's %s: %w", stock.ModuleName, err)
	}
	all := map[string]original{}
	for name, def := range m.ExportedFunctions() {
		call, ok := def.GoFunction().(api.GoModuleFunction)
		if !ok {
			return nil, fmt.Errorf("wazero's %s is a %T, not a Go function on a module: this package must learn the new form", name, def.GoFunction())
		}
		all[name] = original{def, call}
	}
	return all, nil
})

// covered checks that wazero's functions and guards are the same.
func covered(originals map[string]original) error {
	for name := range originals {
		if _, ok := guards[name]; !ok {
			return fmt.Errorf("wazero exports %s, which has no guard: add one to guards", name)
		}
	}
	for name := range guards {
		if _, ok := originals[name]; !ok {
			return fmt.Errorf("wazero no longer exports %s, which guests import: write it here", name)
		}
	}
	return nil
}

// guarded is a function as guests get it.
func guarded(name string, originals map[string]original) api.GoModuleFunc {
	if name == "proc_exit" { // has no result, and ends the guest by itself
		return originals[name].call.Call
	}
	guard := guards[name]
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		stop(ctx)
		if reflect.ValueOf(mod.Memory()).IsNil() {
			// A guest may import these and have no memory. wazero's functions
			// would panic with a nil dereference, which looks like our own bug.
			stack[0] = uint64(eFault)
			return
		}
		fs := mounted(ctx)
		fs.enter(ctx)
		e := guard(call{ctx, mod, fs, name, originals}, stack)
		stop(ctx)
		stack[0] = uint64(fs.substitute(e))
	}
}

// stop ends the guest if its time is over or its caller has gone. A panic with
// an ExitError on the guest's own goroutine is how wazero unwinds one; closing
// the instance from another would pull its memory from under a running call.
func stop(ctx context.Context) {
	switch err := ctx.Err(); {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded):
		panic(sys.NewExitError(sys.ExitCodeDeadlineExceeded))
	default:
		panic(sys.NewExitError(sys.ExitCodeContextCanceled))
	}
}
