package plugin

import (
	"context"
	"io"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// BenchmarkPlugin compares a store in another process with one in memory: what the
// boundary costs. (The commits of the example wait for the disk.)
func BenchmarkPlugin(b *testing.B) {
	ctx := context.Background()
	for _, on := range []struct {
		name string
		open func(*testing.B) store.Store
	}{
		{"memory", func(*testing.B) store.Store { return mem.New(mem.Config{}) }},
		{"process", func(b *testing.B) store.Store {
			s, err := Open(ctx, play("honest"))
			if err != nil {
				b.Fatal(err)
			}
			return s
		}},
	} {
		s := on.open(b)
		b.Cleanup(func() { s.Close() })
		big := make([]byte, 16<<20)
		fill := func(tx store.Tx) error {
			f, err := tx.Files(nil).Open("big", store.FlagWrite|store.FlagCreate)
			if err == nil {
				_, err = f.WriteAt(big, 0)
			}
			return err
		}
		if err := s.Update(ctx, fill); err != nil {
			b.Fatal(err)
		}
		view := func(b *testing.B, f func(fs store.FS) error) {
			if err := s.View(ctx, func(tx store.Tx) error {
				for b.Loop() {
					if err := f(tx.Files(nil)); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(on.name+"/stat", func(b *testing.B) {
			view(b, func(fs store.FS) error {
				_, err := fs.Stat("big", false)
				return err
			})
		})
		read := func(size int) func(b *testing.B) {
			return func(b *testing.B) {
				b.SetBytes(int64(len(big)))
				p := make([]byte, size)
				view(b, func(fs store.FS) error {
					f, err := fs.Open("big", store.FlagRead)
					if err != nil {
						return err
					}
					defer f.Close()
					for off := int64(0); ; off += int64(size) {
						if _, err := f.ReadAt(p, off); err == io.EOF {
							return nil
						} else if err != nil {
							return err
						}
					}
				})
			}
		}
		b.Run(on.name+"/read4KiB", read(4<<10))
		b.Run(on.name+"/read1MiB", read(1<<20))
		b.Run(on.name+"/write4KiB", func(b *testing.B) {
			b.SetBytes(int64(len(big)))
			for b.Loop() {
				if err := s.Update(ctx, func(tx store.Tx) error {
					f, err := tx.Files(nil).Open("written", store.FlagWrite|store.FlagCreate|store.FlagTruncate)
					for off := 0; off < len(big) && err == nil; off += 4 << 10 {
						_, err = f.WriteAt(big[off:off+4<<10], int64(off))
					}
					return err
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(on.name+"/commit", func(b *testing.B) {
			for b.Loop() {
				if err := put(s, "f", "content", randomKey(1)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			s, err := Open(ctx, Config{Command: example, Settings: map[string]string{"path": b.TempDir() + "/store"}})
			if err != nil {
				b.Fatal(err)
			}
			s.Close()
		}
	})
}
