// Package extism_test measures a fresh call of ours beside one of Extism's Go SDK: the
// same work, in Go, of a plugin that is compiled before, in a fresh instance.
//
//	go test -run '^$' -bench . -benchtime 200x
//
// It is a module of its own, so that the product does not depend on the other.
package extism_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	extism "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

const (
	text  = "the quick brown fox\njumps over the lazy dog\n"
	count = `{"lines":2,"words":9,"bytes":44}` + "\n"
)

// build compiles the Go program in dir as a reactor.
func build(dir string) ([]byte, error) {
	out, err := os.CreateTemp("", "guest-*.wasm")
	if err != nil {
		return nil, err
	}
	out.Close()
	defer os.Remove(out.Name())
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out.Name(), ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off")
	if said, err := cmd.CombinedOutput(); err != nil {
		os.Stderr.Write(said)
		return nil, err
	}
	return os.ReadFile(out.Name())
}

var ourGuest = sync.OnceValues(func() ([]byte, error) {
	source, err := os.ReadFile("../../../cmd/circles-host/bench/goguest/main.go.txt")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "guest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{"main.go": string(source), "go.mod": "module guest\n\ngo 1.24\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return build(dir)
})

var theirGuest = sync.OnceValues(func() ([]byte, error) { return build("guest") })

// ours makes one call as a host does for each script: metered, limited, with files.
func ours(t testing.TB) func() string {
	ctx := context.Background()
	wasm, err := ourGuest()
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(ctx, engine.Config{}, wasi.Module())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(ctx) })
	p, err := e.Compile(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	files, end := make(chan store.FS), make(chan struct{})
	go func() {
		_ = mem.New(mem.Config{}).View(ctx, func(tx store.Tx) error {
			files <- tx.Files(nil)
			<-end
			return nil
		})
	}()
	t.Cleanup(func() { close(end) })
	fs := <-files
	return func() string {
		ctx, mounted := wasi.Mount(ctx, fs, wasi.Config{})
		out, err := e.Run(ctx, p, engine.Call{Params: []byte(text)})
		mounted.Close()
		if err != nil {
			t.Fatal(err)
		}
		return string(out.Result)
	}
}

// theirs makes one call as its documentation has it for calls that share nothing.
func theirs(t testing.TB) func() string {
	ctx := context.Background()
	wasm, err := theirGuest()
	if err != nil {
		t.Fatal(err)
	}
	manifest := extism.Manifest{Wasm: []extism.Wasm{extism.WasmData{Data: wasm, Name: "main"}}}
	plugin, err := extism.NewCompiledPlugin(ctx, manifest, extism.PluginConfig{EnableWasi: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plugin.Close(ctx) })
	config := extism.PluginInstanceConfig{ModuleConfig: wazero.NewModuleConfig()}
	return func() string {
		instance, err := plugin.Instance(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		defer instance.Close(ctx)
		code, out, err := instance.Call("run", []byte(text))
		if err != nil || code != 0 {
			t.Fatal(code, err)
		}
		return string(out)
	}
}

// TestBothDoTheWork: a comparison of different things would be worth nothing.
func TestBothDoTheWork(t *testing.T) {
	for who, call := range map[string]func() string{"ours": ours(t), "extism": theirs(t)} {
		for range 3 {
			if got := call(); got != count {
				t.Errorf("%s: %q, want %q", who, got, count)
			}
		}
	}
}

// BenchmarkFresh takes both in turn; figures are medians.
func BenchmarkFresh(b *testing.B) {
	calls := []func() string{ours(b), theirs(b)}
	var times [2][]float64
	for b.Loop() {
		for i, call := range calls {
			call() // caches are its own
			began := time.Now()
			call()
			times[i] = append(times[i], float64(time.Since(began).Nanoseconds())/1e3)
		}
	}
	var median [2]float64
	for i := range times {
		slices.Sort(times[i])
		median[i] = times[i][len(times[i])/2]
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median[0], "µs/circles")
	b.ReportMetric(median[1], "µs/extism")
	b.ReportMetric(median[1]/median[0], "times-faster")
}
