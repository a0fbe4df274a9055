// Package floor runs a module on wazero alone, as somebody would who has only
// its documentation: what a fresh call of ours is measured beside.
//
//	f, err := floor.New(ctx, wasm)
//	result, err := f.Call(ctx, params)
//	defer f.Close(ctx)
//
// Nothing is limited, metered or confined, and a guest that loops is never
// stopped: it is for modules that whoever measures trusts, and for nothing else.
package floor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/host/engine/abi"
)

// Floor is a compiled module. It belongs to one goroutine.
type Floor struct {
	runtime wazero.Runtime
	code    wazero.CompiledModule
	config  wazero.ModuleConfig
	command bool
}

const wasi = "wasi_snapshot_preview1"

// New compiles a module: a command, whose params are its input and whose result
// is its output, or a reactor, of which the entry "run" is called. Host functions
// other than WASI's do nothing and return zero.
func New(ctx context.Context, wasm []byte) (*Floor, error) {
	f := &Floor{runtime: wazero.NewRuntime(ctx)}
	err := f.compile(ctx, wasm)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("compile for wazero alone: %w", err), f.Close(ctx))
	}
	return f, nil
}

func (f *Floor) compile(ctx context.Context, wasm []byte) (err error) {
	if _, err = wasi_snapshot_preview1.Instantiate(ctx, f.runtime); err != nil {
		return err
	}
	if f.code, err = f.runtime.CompileModule(ctx, wasm); err != nil {
		return err
	}
	hosts := map[string]wazero.HostModuleBuilder{}
	for _, fn := range f.code.ImportedFunctions() {
		module, name, _ := fn.Import()
		if module == wasi {
			continue
		}
		if hosts[module] == nil {
			hosts[module] = f.runtime.NewHostModuleBuilder(module)
		}
		results := len(fn.ResultTypes())
		zero := api.GoFunc(func(_ context.Context, stack []uint64) { clear(stack[:results]) })
		hosts[module] = hosts[module].NewFunctionBuilder().WithGoFunction(zero, fn.ParamTypes(), fn.ResultTypes()).Export(name)
	}
	for _, h := range hosts {
		if _, err := h.Instantiate(ctx); err != nil {
			return err
		}
	}
	// What an instance of ours has too: else wazero seeds a random generator for each.
	f.config = wazero.NewModuleConfig().WithName("").WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime()
	_, f.command = f.code.ExportedFunctions()["_start"]
	if !f.command {
		f.config = f.config.WithStartFunctions("_initialize")
	}
	return nil
}

// Call makes an instance, initialises it, calls it and closes it. The text of an
// error that the entry returns is its result.
func (f *Floor) Call(ctx context.Context, params []byte) ([]byte, error) {
	if f.command {
		var out bytes.Buffer
		mod, err := f.runtime.InstantiateModule(ctx, f.code, f.config.WithStdin(bytes.NewReader(params)).WithStdout(&out).WithArgs("script"))
		var exit *sys.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 0) {
			return nil, err
		}
		if mod != nil {
			err = mod.Close(ctx)
		} else {
			err = nil
		}
		return out.Bytes(), err
	}
	mod, err := f.runtime.InstantiateModule(ctx, f.code, f.config)
	if err != nil {
		return nil, err
	}
	result, text, isErr, err := abi.CallBytes(ctx, mod, "run", params, abi.Options{})
	if err == nil && isErr {
		result = []byte(text)
	}
	return result, errors.Join(err, mod.Close(ctx))
}

// Close releases the code.
func (f *Floor) Close(ctx context.Context) error { return f.runtime.Close(ctx) }
