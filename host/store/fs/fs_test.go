//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/storetest"
)

// config is a fresh context on disk.
func config(t testing.TB) Config {
	dir := t.TempDir()
	return Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")}
}

// memoryConfig is one where fsync costs nothing, for tests that commit by the
// hundred. What they test does not depend on the file system.
func memoryConfig(t testing.TB) Config {
	dir, err := os.MkdirTemp("/dev/shm", "circles-test-")
	if err != nil {
		return config(t)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")}
}

func TestStore(t *testing.T) {
	storetest.RunDurable(t, func(t *testing.T) (store.Store, func() store.Store) {
		c := memoryConfig(t)
		open := func() store.Store {
			s, err := Open(c)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		return open(), open
	})
}

// TestOSRoot is the suite without openat2.
func TestOSRoot(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return openVia(t, memoryConfig(t), newWalkRoot)
	})
}

func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 10} {
		b.Run(fmt.Sprintf("files=%d", n), func(b *testing.B) {
			s := mustOpen(b, config(b))
			i := 0
			for b.Loop() {
				i++
				if err := s.Update(context.Background(), func(tx store.Tx) error {
					for k := range n {
						if err := write(tx.Files(nil), fmt.Sprint("f", k), fmt.Sprint(i)); err != nil {
							return err
						}
					}
					return tx.Append(store.Key{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}, []byte("receipt"))
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("log only", func(b *testing.B) {
		s := mustOpen(b, config(b))
		i := 0
		for b.Loop() {
			i++
			if err := s.View(context.Background(), func(tx store.Tx) error {
				return tx.Append(store.Key{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}, []byte("receipt"))
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkFiles(b *testing.B) {
	c := config(b)
	s := mustOpen(b, c)
	update(b, s, func(fs store.FS) error {
		return first(fs.Mkdir("a"), fs.Mkdir("a/b"), fs.Mkdir("a/b/c"), write(fs, "a/b/c/f", strings.Repeat("x", 4096)), fs.Mkdir("many"))
	})
	for i := range 10_000 {
		must(b, os.WriteFile(filepath.Join(c.Data, "many", fmt.Sprint(i)), nil, 0o644))
	}
	view(b, s, func(fs store.FS) error {
		b.Run("stat", func(b *testing.B) {
			for b.Loop() {
				_, err := fs.Stat("a/b/c/f", true)
				must(b, err)
			}
		})
		b.Run("open+stat+close", func(b *testing.B) {
			for b.Loop() {
				f, err := fs.Open("a/b/c/f", store.FlagRead)
				must(b, err)
				_, err = f.Stat()
				must(b, err)
				must(b, f.Close())
			}
		})
		b.Run("read 4 KiB", func(b *testing.B) {
			f, err := fs.Open("a/b/c/f", store.FlagRead)
			must(b, err)
			buf := make([]byte, 4096)
			for b.Loop() {
				_, err := f.ReadAt(buf, 0)
				must(b, err)
			}
			must(b, f.Close())
		})
		b.Run("list 10,000", func(b *testing.B) {
			for b.Loop() {
				f, err := fs.Open("many", store.FlagRead)
				must(b, err)
				list, err := f.ReadDir(0, 1<<20)
				if must(b, err); len(list) != 10_000 {
					b.Fatal(len(list))
				}
				must(b, f.Close())
			}
		})
		return nil
	})
}

// TestCasefoldAgreesWithATry: what a file system says of itself is what it does.
func TestCasefoldAgreesWithATry(t *testing.T) {
	dir, err := openat(unix.AT_FDCWD, t.TempDir(), dirFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	tried, err := tryFolds(dir)
	if err != nil {
		t.Fatal(err)
	}
	if said, known := casefold(dir); known && said != tried {
		t.Errorf("it says %v, and does %v", said, tried)
	}
	if found, err := folds(dir); err != nil || found != tried {
		t.Errorf("found %v, %v; a try says %v", found, err, tried)
	}
}
