package wasi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	stock "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
)

// BenchmarkGuest is file I/O by a guest, in a transaction of a real directory,
// against the same guest on wazero's own mount of it, which confines nothing, and
// against Go itself. of-stock and of-native are speeds in proportion, from one
// run: 1.0 is as fast.
func BenchmarkGuest(b *testing.B) {
	bench, err := theBench()
	if err != nil {
		b.Fatal(err)
	}
	root := b.TempDir()
	dir := filepath.Join(root, "data")
	prepare(b, dir)
	s, err := fs.Open(fs.Config{Data: dir, Log: filepath.Join(root, "log"), Tx: filepath.Join(root, "tx")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()

	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	stock.MustInstantiate(ctx, r)
	wasm, err := guestWasm()
	if err != nil {
		b.Fatal(err)
	}
	code, err := r.CompileModule(ctx, wasm)
	if err != nil {
		b.Fatal(err)
	}
	config := wazero.NewModuleConfig().WithName("").WithSysWalltime().WithSysNanotime().WithSysNanosleep().
		WithFSConfig(wazero.NewFSConfig().WithDirMount(dir, "/"))

	parse := func(out []byte, err error) time.Duration {
		b.Helper()
		ns, bad := strconv.ParseInt(string(out), 10, 64)
		if err != nil || bad != nil {
			b.Fatal(err, bad)
		}
		return time.Duration(ns)
	}
	ways := []struct {
		name string
		run  func(what string) time.Duration
	}{
		{"native", func(what string) time.Duration { return native(b, dir, what) }},
		{"stock", func(what string) time.Duration {
			var out bytes.Buffer
			m, err := r.InstantiateModule(ctx, code, config.WithArgs("guest", "bench", what).WithStdout(&out).WithStderr(os.Stderr))
			if err == nil {
				err = m.Close(ctx)
			}
			return parse(out.Bytes(), exitedWell(err))
		}},
		{"sandbox", func(what string) time.Duration {
			var took time.Duration
			rollback := errors.New("roll back")
			if err := s.Update(ctx, func(tx store.Tx) error {
				ctx, files := Mount(ctx, tx.Files(nil), Config{})
				out, err := bench.engine.Run(ctx, bench.guest, engine.Call{Args: []string{"bench", what},
					Limits: engine.Limits{Wall: time.Minute, HostCalls: 1 << 40}})
				took = parse(out.Result, errors.Join(err, files.Close()))
				return rollback
			}); !errors.Is(err, rollback) {
				b.Fatal(err)
			}
			return took
		}},
	}
	for _, what := range []string{"read-4096", "read-1048576", "write-4096", "write-1048576", "open", "list"} {
		b.Run(what, func(b *testing.B) {
			least := map[string]time.Duration{}
			for b.Loop() {
				for _, way := range ways {
					os.Remove(filepath.Join(dir, "new")) // to be made, and not emptied
					if took := way.run(what); least[way.name] == 0 || took < least[way.name] {
						least[way.name] = took
					}
				}
			}
			b.ReportMetric(float64(least["stock"])/float64(least["sandbox"]), "of-stock")
			b.ReportMetric(float64(least["native"])/float64(least["sandbox"]), "of-native")
			b.ReportMetric(float64(least["sandbox"].Microseconds()), "µs")
		})
	}
}

func exitedWell(err error) error {
	if err != nil && err.Error() == "module closed with exit_code(0)" {
		return nil
	}
	return err
}

// prepare makes a file of 16 MiB, and a directory of 10,000 small ones.
func prepare(b *testing.B, dir string) {
	many := filepath.Join(dir, "many")
	if err := os.MkdirAll(many, 0o700); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 16<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		if err := os.WriteFile(filepath.Join(many, strconv.Itoa(i)), []byte("small"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

// native does what the guest's bench does.
func native(b *testing.B, dir, what string) time.Duration {
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	buf := make([]byte, 1)
	kind := what
	if i := bytes.IndexByte([]byte(what), '-'); i > 0 {
		n, err := strconv.Atoi(what[i+1:])
		must(err)
		kind, buf = what[:i], make([]byte, n)
	}
	for i := range buf {
		buf[i] = byte(i)
	}
	start := time.Now()
	switch kind {
	case "read":
		f, err := os.Open(filepath.Join(dir, "big"))
		must(err)
		for err == nil {
			_, err = f.Read(buf)
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		must(f.Close())
	case "write":
		f, err := os.Create(filepath.Join(dir, "new"))
		must(err)
		for range 16 << 20 / len(buf) {
			_, err = f.Write(buf)
			must(err)
		}
		must(f.Close())
	case "open":
		for i := range 1000 {
			f, err := os.Open(filepath.Join(dir, "many", strconv.Itoa(i)))
			must(err)
			_, err = f.Stat()
			must(err)
			must(f.Close())
		}
	case "list":
		f, err := os.Open(filepath.Join(dir, "many"))
		must(err)
		names, err := f.ReadDir(-1)
		must(err)
		if len(names) != 10_000 {
			b.Fatal(len(names))
		}
		must(f.Close())
	}
	return time.Since(start)
}
