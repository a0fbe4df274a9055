package engine_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/engine/floor"
	"github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/imports/log"
	"github.com/circles-host/circles/host/imports/modules"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// goReactor is a standard Go guest.
var goReactor = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "./testdata/reactor")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if _, err := cmd.CombinedOutput(); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
})

// onePage is a module with one page of memory that does next to nothing.
func onePage() []byte { return pages(1) }

func pages(n uint32) []byte {
	var m abitest.Module
	m.Memory(n)
	if n > 1 { // as a program with static data of that size has
		m.Data(8<<10, strings.Repeat("static data ", int(n)*4000))
	}
	m.Bump(1024)
	m.Func("run", "ii", "i", abitest.I32(16))
	return m.Bytes()
}

// BenchmarkFresh is a call in a fresh instance: instantiate, initialise, call,
// close. Ours has all limits, metering and a file system bound, in turn with
// wazero alone, without any of that and not to be interrupted; and with the
// least that wazero can instantiate, as a measure of the machine. All figures are
// medians.
func BenchmarkFresh(b *testing.B) {
	wasm, err := goReactor()
	if err != nil {
		b.Fatal(err)
	}
	c, err := os.ReadFile("../../modules/guestbook/guestbook.wasm")
	if err != nil {
		b.Fatal(err)
	}
	// The guests of the SDKs' suite, whose run returns its params.
	sdk := func(language string) []byte {
		wasm, err := os.ReadFile("../../guest-sdk/sdktest/testdata/" + language + "/suite/suite.wasm")
		if err != nil {
			b.Fatal(err)
		}
		return wasm
	}
	for _, g := range []struct {
		name string
		wasm []byte
	}{{"go", wasm}, {"c", c}, {"1MiB", pages(16)}, {"small", onePage()}, {"rust", sdk("rust")}, {"zig", sdk("zig")}, {"cpp", sdk("cpp")}} {
		b.Run(g.name, func(b *testing.B) {
			ours, raw, page := fresh(b, g.wasm), rawCall(b, g.wasm), rawCall(b, onePage())
			var times [3][]float64
			for b.Loop() {
				for i, f := range []func(){ours, raw, page} {
					f() // caches are its own
					start := time.Now()
					f()
					times[i] = append(times[i], float64(time.Since(start).Nanoseconds()))
				}
			}
			var median [3]float64
			for i := range times {
				slices.Sort(times[i])
				median[i] = times[i][len(times[i])/2]
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median[0]/1e3, "µs/call")
			b.ReportMetric(median[1]/1e3, "µs/wazero")
			b.ReportMetric(median[2]/1e3, "µs/wazero-1-page")
			b.ReportMetric(median[1]/median[0], "times-faster")
		})
	}
}

// fresh returns what makes one call in the engine as the host does.
func fresh(b testing.TB, wasm []byte) func() {
	ctx := context.Background()
	e, err := engine.New(ctx, engine.Config{}, wasi.Module(), contexts.Module(), log.Module(), modules.Module())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close(ctx) })
	p, err := e.Compile(ctx, wasm)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	if p.Info().Image == 0 {
		b.Fatal(p.Info().Plain)
	}
	call := engine.Call{Params: []byte("params")}
	files := opened(b)
	return func() {
		ctx, mounted := wasi.Mount(ctx, files, wasi.Config{})
		_, err := e.Run(ctx, p, call)
		mounted.Close()
		var f *engine.Failure
		if err != nil && (!errors.As(err, &f) || f.Kind != engine.Returned) {
			b.Fatal(err)
		}
	}
}

// opened is a file system of an open transaction.
func opened(b testing.TB) store.FS {
	files := make(chan store.FS)
	end := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- mem.New(mem.Config{}).View(context.Background(), func(tx store.Tx) error {
			files <- tx.Files(nil)
			<-end
			return nil
		})
	}()
	b.Cleanup(func() {
		close(end)
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return <-files
}

// rawCall returns what makes one call with wazero alone.
func rawCall(b testing.TB, wasm []byte) func() {
	f, err := floor.New(b.Context(), wasm)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close(context.Background()) })
	params := []byte("params")
	return func() {
		if _, err := f.Call(b.Context(), params); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFreshAllocs is what a fresh call allocates on Go's heap.
func BenchmarkFreshAllocs(b *testing.B) {
	wasm, err := goReactor()
	if err != nil {
		b.Fatal(err)
	}
	for _, g := range []struct {
		name string
		wasm []byte
	}{{"go", wasm}, {"small", onePage()}} {
		b.Run(g.name, func(b *testing.B) {
			call := fresh(b, g.wasm)
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

// BenchmarkFreshParallel is how much more is done by all processors than by one.
func BenchmarkFreshParallel(b *testing.B) {
	wasm, err := goReactor()
	if err != nil {
		b.Fatal(err)
	}
	call := fresh(b, wasm)
	rate := func(procs int) float64 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		const n = 2000
		start := time.Now()
		var wg sync.WaitGroup
		for range procs {
			wg.Go(func() {
				for range n {
					call()
				}
			})
		}
		wg.Wait()
		return float64(procs*n) / time.Since(start).Seconds()
	}
	var ratios []float64
	for b.Loop() {
		one := rate(1)
		ratios = append(ratios, rate(runtime.NumCPU())/one)
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "times-one-processor")
}

// TestFreshCallAllocates: what a fresh call takes of Go's heap is bounded, in
// numbers and in bytes, so that calls are not paid for by the collector.
func TestFreshCallAllocates(t *testing.T) {
	wasm, err := goReactor()
	if err != nil {
		t.Fatal(err)
	}
	for name, wasm := range map[string][]byte{"go": wasm, "small": onePage()} {
		call := fresh(t, wasm)
		// 45 and 16 KiB were the aim, and reached; the global that counts the stack takes
		// wazero two more, and is worth it.
		const most, mostBytes, runs = 47, 16<<10 + 128, 200
		if allocs := testing.AllocsPerRun(runs, call); allocs > most && !raceDetector {
			t.Errorf("%s: %v allocations, want at most %d", name, allocs, most)
		}
		// The least of some: other goroutines allocate meanwhile, too.
		least := uint64(1 << 60)
		for range 20 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 10 {
				call()
			}
			runtime.ReadMemStats(&after)
			least = min(least, (after.TotalAlloc-before.TotalAlloc)/10)
		}
		if least > mostBytes && !raceDetector {
			t.Errorf("%s: %d bytes, want at most %d", name, least, mostBytes)
		}
	}
}
