package rewrite

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

var kernels = []struct {
	guest, name string
	arg         uint64
}{
	{"kernels", "lcg", 1_000_000},
	{"kernels", "sieve", 1_000_000},
	{"kernels", "matrix", 128},
	{"kernels", "fib", 25},
	{"kernels", "collatz", 20_000},
	{"kernels", "leaves", 1_000_000},
	{"kernels", "interpret", 200_000},
	{"go", "fib", 22},
	{"go", "hash", 500},
	{"go", "parse", 20},
	{"go", "alloc", 12},
	{"go", "sorted", 5_000},
}

func guest(t testing.TB, name string) []byte {
	if name == "go" {
		return goGuest(t, "reactor")
	}
	return readFile(t, "testdata/"+name+".wasm")
}

// start instantiates a guest with WASI; with a meter, metered.
func start(ctx context.Context, t testing.TB, cfg wazero.RuntimeConfig, wasm []byte, meter *meterHost) api.Module {
	t.Helper()
	rt := wazero.NewRuntimeWithConfig(ctx, cfg.WithCoreFeatures(features))
	t.Cleanup(func() { rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	if meter != nil {
		meter.instantiate(ctx, t, rt)
		metered, err := Meter(wasm, Options{})
		if err != nil {
			t.Fatal(err)
		}
		wasm = metered
	}
	m, err := rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions("_initialize"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// BenchmarkMeter runs each kernel as it is, metered, and with wazero's own
// interruption.
func BenchmarkMeter(b *testing.B) {
	ctx := context.Background()
	for _, k := range kernels {
		for _, way := range []string{"plain", "metered", "interruptible"} {
			b.Run(k.guest+"_"+k.name+"/"+way, func(b *testing.B) {
				var meter *meterHost
				if way == "metered" {
					meter = &meterHost{slice: 1 << 20}
				}
				cfg := wazero.NewRuntimeConfig().WithCloseOnContextDone(way == "interruptible")
				m := start(ctx, b, cfg, guest(b, k.guest), meter)
				call, cancel := context.WithCancel(ctx)
				defer cancel()
				f := m.ExportedFunction(k.name)
				for b.Loop() {
					if _, err := f.Call(call, k.arg); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkRewrite(b *testing.B) {
	wasm := goGuest(b, "reactor")
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(wasm)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(wasm); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("meter", func(b *testing.B) {
		b.SetBytes(int64(len(wasm)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Meter(wasm, Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
