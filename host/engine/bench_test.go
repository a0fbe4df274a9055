package engine

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/circles-host/circles/host/engine/abi"
)

// BenchmarkRun is one run in a fresh instance, beside the same with wazero
// alone: instantiate, call, close, unlimited and not to be interrupted.
func BenchmarkRun(b *testing.B) {
	reactor, err := reactorWasm()
	if err != nil {
		b.Fatal(err)
	}
	params := []byte("params")
	for _, g := range []struct {
		name string
		wasm []byte
	}{{"small", guest()}, {"go", reactor}} {
		b.Run(g.name+"/engine", func(b *testing.B) {
			e := newEngine(b, Config{}, wasi())
			p := compile(b, e, g.wasm)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Run(context.Background(), p, Call{Params: params}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(g.name+"/wazero", func(b *testing.B) {
			ctx := b.Context()
			rt := wazero.NewRuntime(ctx)
			defer rt.Close(ctx)
			wasi_snapshot_preview1.MustInstantiate(ctx, rt)
			compiled, err := rt.CompileModule(ctx, g.wasm)
			if err != nil {
				b.Fatal(err)
			}
			cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")
			b.ReportAllocs()
			for b.Loop() {
				mod, err := rt.InstantiateModule(ctx, compiled, cfg)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, _, err := abi.CallBytes(ctx, mod, "run", params, abi.Options{}); err != nil {
					b.Fatal(err)
				}
				mod.Close(ctx)
			}
		})
	}
}

// BenchmarkHostCall is what the wrapper of host functions costs.
func BenchmarkHostCall(b *testing.B) {
	e := newEngine(b, Config{}, HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithGoFunction(hostNothing{}, nil, nil).Export("nothing")
	}})
	p := compile(b, e, hostCallLoop(100_000))
	b.Run("engine", func(b *testing.B) {
		for b.Loop() {
			if _, err := e.Run(context.Background(), p, Call{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/call")
	})
	b.Run("wazero", func(b *testing.B) {
		ctx := b.Context()
		rt := wazero.NewRuntime(ctx)
		defer rt.Close(ctx)
		if _, err := rt.NewHostModuleBuilder("test").NewFunctionBuilder().WithGoFunction(hostNothing{}, nil, nil).Export("nothing").Instantiate(ctx); err != nil {
			b.Fatal(err)
		}
		compiled, err := rt.CompileModule(ctx, hostCallLoop(100_000))
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			mod, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				b.Fatal(err)
			}
			mod.Close(ctx)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/call")
	})
}

type hostNothing struct{}

func (hostNothing) Call(context.Context, []uint64) {}

func BenchmarkInspect(b *testing.B) {
	wasm, err := reactorWasm()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(wasm)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Inspect(wasm); err != nil {
			b.Fatal(err)
		}
	}
}
