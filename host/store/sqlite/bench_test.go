//go:build linux || darwin || freebsd

package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/overlay"
)

// BenchmarkBackends is fs and sqlite side by side, on a disk.
func BenchmarkBackends(b *testing.B) {
	for name, open := range map[string]func() (*overlay.Store, error){
		"fs": func() (*overlay.Store, error) {
			dir := b.TempDir()
			return fs.Open(fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx"),
				Limits: overlay.Limits{FileSize: 1 << 31, StagedBytes: 1 << 32}})
		},
		"sqlite": func() (*overlay.Store, error) {
			return Open(Config{Path: filepath.Join(b.TempDir(), "context.db"), Limits: overlay.Limits{FileSize: 1 << 31, StagedBytes: 1 << 32}})
		},
	} {
		s, err := open()
		must(b, err)
		key := 0
		receipt := make([]byte, 700)
		appendOne := func(tx store.Tx) error { key++; return tx.Append(keyOf(key), receipt) }
		commit := func(b *testing.B, f func(fs store.FS) error) {
			for b.Loop() {
				must(b, s.Update(context.Background(), func(tx store.Tx) error {
					if err := f(tx.Files(nil)); err != nil {
						return err
					}
					return appendOne(tx)
				}))
			}
		}
		block := strings.Repeat("0123456789abcdef", 256)
		i := 0
		b.Run(name+"/commit 4 KiB", func(b *testing.B) {
			commit(b, func(fs store.FS) error { i++; return write(fs, "small", fmt.Sprint(i)+block) })
		})
		b.Run(name+"/commit 10 files", func(b *testing.B) {
			commit(b, func(fs store.FS) error {
				i++
				for k := range 10 {
					if err := write(fs, fmt.Sprint("f", k), fmt.Sprint(i)); err != nil {
						return err
					}
				}
				return nil
			})
		})
		b.Run(name+"/log only", func(b *testing.B) {
			for b.Loop() {
				must(b, s.View(context.Background(), appendOne))
			}
		})
		b.Run(name+"/log only, 16 at once", func(b *testing.B) {
			var mu sync.Mutex
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					mu.Lock()
					key++
					k := keyOf(key)
					mu.Unlock()
					if err := s.View(context.Background(), func(tx store.Tx) error { return tx.Append(k, receipt) }); err != nil {
						b.Error(err)
					}
				}
			})
		})
		update(b, s, func(fs store.FS) error {
			big, err := fs.Open("big", store.FlagWrite|store.FlagCreate)
			must(b, err)
			for off := range int64(128) {
				if _, err := big.WriteAt([]byte(strings.Repeat(block, 256)), off<<20); err != nil {
					return err
				}
			}
			must(b, big.Close())
			for _, d := range []string{"a", "a/b", "a/b/c", "many"} {
				must(b, fs.Mkdir(d))
			}
			for i := range 10_000 {
				must(b, write(fs, fmt.Sprint("many/", i), ""))
			}
			return write(fs, "a/b/c/f", block)
		})
		b.Run(name+"/append to 128 MiB", func(b *testing.B) {
			commit(b, func(fs store.FS) error {
				f, err := fs.Open("big", store.FlagWrite|store.FlagAppend)
				must(b, err)
				defer f.Close()
				_, err = f.WriteAt([]byte(block), 0)
				return err
			})
		})
		view(b, s, func(fs store.FS) error {
			f, err := fs.Open("big", store.FlagRead)
			must(b, err)
			defer f.Close()
			for _, size := range []int{4 << 10, 1 << 20} {
				b.Run(fmt.Sprintf("%s/read %d KiB", name, size>>10), func(b *testing.B) {
					b.SetBytes(int64(size))
					buf, off := make([]byte, size), int64(0)
					for b.Loop() {
						_, err := f.ReadAt(buf, off)
						must(b, err)
						off = (off + int64(size)) % (128 << 20)
					}
				})
			}
			b.Run(name+"/open+stat+close", func(b *testing.B) {
				for b.Loop() {
					f, err := fs.Open("a/b/c/f", store.FlagRead)
					must(b, err)
					_, err = f.Stat()
					must(b, err)
					must(b, f.Close())
				}
			})
			b.Run(name+"/list 10,000", func(b *testing.B) {
				for b.Loop() {
					if got := list(b, fs, "many"); len(got) != 10_000 {
						b.Fatal(len(got))
					}
				}
			})
			return nil
		})
		must(b, s.Close())
	}
}
