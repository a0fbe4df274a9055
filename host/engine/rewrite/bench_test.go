package rewrite

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
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
	{"reactor", "fib", 22},
	{"reactor", "hash", 500},
	{"parser", "parse", 20},
	{"reactor", "alloc", 12},
	{"reactor", "sorted", 5_000},
}

// BenchmarkMeter runs each kernel as it is, metered, prepared for an image as well,
// and with wazero's own interruption.
func BenchmarkMeter(b *testing.B) {
	engines := map[string]*engine{
		"plain":         shared(b),
		"metered":       shared(b),
		"prepared":      shared(b),
		"interruptible": newEngine(b, wazero.NewRuntimeConfig().WithCloseOnContextDone(true)),
	}
	for _, k := range kernels {
		for _, way := range []string{"plain", "metered", "prepared", "interruptible"} {
			b.Run(k.guest+"_"+k.name+"/"+way, func(b *testing.B) {
				var meter *meterHost
				if way == "metered" || way == "prepared" {
					meter = &meterHost{slice: 1 << 20}
				}
				wasm := guest(b, k.guest)
				if meter != nil {
					wasm = metered(b, wasm)
				}
				if way == "prepared" {
					p, err := Prepare(guest(b, k.guest), Options{})
					if err != nil {
						b.Fatal(err)
					}
					ctx := context.WithValue(context.Background(), meterKey{}, meter)
					m, err := engines[way].rt.InstantiateModule(ctx, engines[way].compile(b, p.Wasm), wazero.NewModuleConfig().WithName(""))
					if err != nil {
						b.Fatal(err)
					}
					for _, d := range p.Data {
						m.Memory().Write(d.Offset, d.Bytes)
					}
					defer m.Close(ctx)
					if init := m.ExportedFunction("_initialize"); init != nil {
						if _, err := init.Call(ctx); err != nil {
							b.Fatal(err)
						}
					}
					run := m.ExportedFunction(k.name)
					for b.Loop() {
						if _, err := run.Call(ctx, k.arg); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				ctx, m := engines[way].start(b, wasm, meter)
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
	wasm := goGuest(b, "parser")
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
