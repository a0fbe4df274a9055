// Package wasi gives a guest WASI preview 1: the functions of
// wasi_snapshot_preview1 with every argument bounded, over a file system that
// is a transaction of a peer's context.
//
//	e, err := engine.New(ctx, engine.Config{}, wasi.Module())
//	…
//	ctx, files := wasi.Mount(ctx, tx.Files(guard), wasi.Config{})
//	out, err := e.Run(ctx, p, engine.Call{Params: params})
//	if err := files.Close(); err != nil { … } // the storage failed: do not commit
//
// Descriptors, files and paths are served here, on a table of descriptors of our
// own; arguments, environment, clocks, randomness and what is behind the standard
// streams are wazero's, which Module takes from it and checks for completeness,
// so that a function that a later wazero adds is not left out unseen.
//
// # What a guest can reach
//
// Descriptors 0 to 2 are what the engine bound to them; those from 3 on are the
// preopened directories, for a script one, "/". Nothing else is ever open that
// the guest has not opened below these. Paths are resolved by store.FS, which
// confines them: below an open directory by its own tree, so that ".." and links
// do not lead out of the directory either, wherever it is moved. This package
// hands it only names without NUL, in UTF-8, that do not begin with a slash.
//
// # Rights
//
// Each descriptor has the rights that it was opened with, as far as they apply
// to it, and no more than the directory that it was opened through passes on;
// they can be dropped and never be had again. A call without the right for it is
// NOTCAPABLE, a write to what was not opened for writing BADF. They are for a
// guest to narrow a part of itself. What the script may do is for the guard of
// the store to say.
//
// # What is left out
//
//   - path_link is NOTSUP. A context has no hard links: the charge and the
//     permissions of a file would belong to two paths at once.
//   - Sockets and proc_raise: there is nobody to talk to or to signal. A
//     descriptor is NOTSOCK, a signal NOSYS.
//   - fd_sync, fd_datasync and the flags SYNC, DSYNC and RSYNC are accepted and
//     mean nothing: what a transaction wrote is durable when it commits, and not
//     at all before. NONBLOCK means nothing either, as nothing blocks.
//   - Offsets, sizes and times of 2^63 and more are INVAL.
//
// # Time and chance
//
// Config.Senses says whether a guest may tell the time, and draw random bytes.
// What a module was told of either when its image was made, which all its runs
// begin with, it was told before there was anybody to ask.
//
// # State
//
// What belongs to one instance (its descriptors, the context of the call being
// served) is in its Files, which the functions find in the context that the
// engine passes them: Mount puts it there. A guest that runs without has the
// streams, and a "/" that leads nowhere: one that looks for what is preopened
// before there is a context finds what it will find later.
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
	"time"

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
	// 0 means DefaultHandles, and less than that none.
	Handles int
	// Senses, if not nil, is asked what the guest may have beside its files.
	Senses Senses
}

// Senses says what a guest may have of its host beside its files. It is asked
// each time, on the guest's goroutine.
//
// A guest that may not tell the time has a clock that stands still at Still, and
// goes on only by as much as it sleeps, which takes no time: an error would end
// most programs before they began, as their runtimes rely on there being a clock.
// All times of files are Still, as a file that was just written would tell it too.
//
// A guest that may not draw random bytes gets an error. Anything else that it
// took for random would be worse.
type Senses interface {
	Clock() bool
	Random() bool
}

// Still is the time that is told to a guest that may not know it.
var Still = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// DefaultHandles is how many files and directories a guest may hold open.
const DefaultHandles = 256

// Preopened is a directory that a guest finds open, under the name that it is
// to give it: "/", or any other text, which is for the guest to interpret.
type Preopened struct {
	Name  string
	Files store.FS
}

// Mount gives one instance files as its "/", in a context in which the functions
// of Module find it: pass that to engine.Run.
func Mount(ctx context.Context, files store.FS, c Config) (context.Context, *Files) {
	return MountAll(ctx, []Preopened{{"/", files}}, c)
}

// MountAll is Mount for any number of directories, whose descriptors are 3, 4, …
// in this order. Nothing can be renamed from one to another.
func MountAll(ctx context.Context, dirs []Preopened, c Config) (context.Context, *Files) {
	if c.Handles == 0 {
		c.Handles = DefaultHandles
	}
	f := newFiles(ctx, c, dirs)
	f.ctx = (*mount)(f)
	return f.ctx, f
}

// mount is the context of who can find the files in it: the files themselves, so
// that it is not allocated beside them.
type mount Files

func (m *mount) Deadline() (time.Time, bool) { return m.outer.Deadline() }
func (m *mount) Done() <-chan struct{}       { return m.outer.Done() }
func (m *mount) Err() error                  { return m.outer.Err() }

func (m *mount) Value(key any) any {
	if key == (mountKey{}) {
		return (*Files)(m)
	}
	return m.outer.Value(key)
}

type mountKey struct{}

// nowhere is what a guest sees that runs without files.
var nowhere = []Preopened{{Name: "/"}}

// mounted returns the instance's files.
func mounted(ctx context.Context) *Files {
	f, ok := ctx.Value(mountKey{}).(*Files)
	if !ok {
		return newFiles(ctx, Config{}, nowhere)
	}
	f.ctx = ctx
	return f
}

// Module is wasi_snapshot_preview1 for engine.New. It panics if the wazero
// that this was built with has functions that are not served here, or lacks
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
		Name:    stock.ModuleName,
		Initial: initial,
		Export: func(b wazero.HostModuleBuilder) {
			for name, o := range originals {
				b.NewFunctionBuilder().
					WithGoModuleFunction(served(name, originals), o.def.ParamTypes(), o.def.ResultTypes()).
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

// covered checks that wazero's functions and ours are the same.
func covered(originals map[string]original) error {
	for name := range originals {
		if _, ok := functions[name]; !ok {
			return fmt.Errorf("wazero exports %s, which is not served: add it to functions", name)
		}
	}
	for name := range functions {
		if _, ok := originals[name]; !ok {
			return fmt.Errorf("wazero no longer exports %s, which guests import: give it a type of its own here", name)
		}
	}
	return nil
}

// call is one call of a function by a guest.
type call struct {
	ctx   context.Context
	mod   api.Module
	mem   api.Memory
	files *Files
	stock api.GoModuleFunction // wazero's own of that name
	clock api.GoModuleFunction // wazero's clock_time_get
}

// A function serves a call. Its parameters are in p, where an i32 may have
// garbage in its upper half: truncate.
type function func(c call, p []uint64) errno

// functions lists every function of wasi_snapshot_preview1.
var functions = map[string]function{
	"args_get":                call.forward,
	"args_sizes_get":          call.forward,
	"environ_get":             call.forward,
	"environ_sizes_get":       call.forward,
	"clock_res_get":           call.forward,
	"clock_time_get":          clockTimeGet,
	"random_get":              randomGet,
	"sched_yield":             call.forward,
	"proc_exit":               nil, // see served
	"proc_raise":              call.forward,
	"poll_oneoff":             pollOneoff,
	"fd_advise":               fdAdvise,
	"fd_allocate":             fdAllocate,
	"fd_close":                fdClose,
	"fd_datasync":             fdDatasync,
	"fd_fdstat_get":           fdFdstatGet,
	"fd_fdstat_set_flags":     fdFdstatSetFlags,
	"fd_fdstat_set_rights":    fdFdstatSetRights,
	"fd_filestat_get":         fdFilestatGet,
	"fd_filestat_set_size":    fdFilestatSetSize,
	"fd_filestat_set_times":   fdFilestatSetTimes,
	"fd_pread":                fdPread,
	"fd_prestat_get":          fdPrestatGet,
	"fd_prestat_dir_name":     fdPrestatDirName,
	"fd_pwrite":               fdPwrite,
	"fd_read":                 fdRead,
	"fd_readdir":              fdReaddir,
	"fd_renumber":             fdRenumber,
	"fd_seek":                 fdSeek,
	"fd_sync":                 fdSync,
	"fd_tell":                 fdTell,
	"fd_write":                fdWrite,
	"path_create_directory":   pathCreateDirectory,
	"path_filestat_get":       pathFilestatGet,
	"path_filestat_set_times": pathFilestatSetTimes,
	"path_link":               pathLink,
	"path_open":               pathOpen,
	"path_readlink":           pathReadlink,
	"path_remove_directory":   pathRemoveDirectory,
	"path_rename":             pathRename,
	"path_symlink":            pathSymlink,
	"path_unlink_file":        pathUnlinkFile,
	"sock_accept":             noSocket,
	"sock_recv":               noSocket,
	"sock_send":               noSocket,
	"sock_shutdown":           noSocket,
}

// served is a function as guests get it.
func served(name string, originals map[string]original) api.GoModuleFunc {
	if name == "proc_exit" { // has no result, and ends the guest by itself
		return originals[name].call.Call
	}
	f, stock, clock := functions[name], originals[name].call, originals["clock_time_get"].call
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		stop(ctx)
		mem := mod.Memory()
		if reflect.ValueOf(mem).IsNil() {
			// A guest may import these and have no memory. What wazero gives then
			// dereferences nil, which looks like our own bug.
			stack[0] = uint64(eFault)
			return
		}
		e := f(call{ctx, mod, mem, mounted(ctx), stock, clock}, stack)
		stop(ctx)
		stack[0] = uint64(e)
	}
}

// forward hands the call to wazero's own function, which takes its parameters
// from p and leaves its result in p[0].
func (c call) forward(p []uint64) errno {
	c.stock.Call(c.ctx, c.mod, p)
	return errno(p[0])
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
