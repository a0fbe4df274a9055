package records_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/sqlite"
)

// BenchmarkRecords: collections of 100,000 records of some 150 bytes, each
// operation in a transaction of its own, which opens the collection anew.
func BenchmarkRecords(b *testing.B) {
	const many = 100_000
	ctx := context.Background()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	key := func(i int) string { return fmt.Sprintf("2026/%06d", i) }
	value := func(i int) []byte {
		return fmt.Appendf(nil, `{"number":%d,"name":"somebody","notes":"%0100d","tags":["a","b"]}`, i, i)
	}
	for name, open := range map[string]func() (store.Store, error){
		"mem": func() (store.Store, error) { return mem.New(mem.Config{}), nil },
		"fs": func() (store.Store, error) {
			dir := b.TempDir()
			return fs.Open(fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")})
		},
		"sqlite": func() (store.Store, error) {
			return sqlite.Open(sqlite.Config{Path: filepath.Join(b.TempDir(), "db")})
		},
	} {
		s, err := open()
		must(err)
		update := func(f func(c *records.Collections) error) {
			must(s.Update(ctx, func(tx store.Tx) error {
				t := records.In(tx.Private(), records.Config{})
				if err := f(t.As(nil)); err != nil {
					return err
				}
				return t.Flush(ctx)
			}))
		}
		view := func(f func(c *records.Collections) error) {
			must(s.View(ctx, func(tx store.Tx) error {
				return f(records.In(tx.Private(), records.Config{ReadOnly: true}).As(nil))
			}))
		}
		fill := func() {
			for from := 0; from < many; from += 25_000 {
				update(func(c *records.Collections) error {
					for i := from; i < from+25_000; i++ {
						if err := c.Put(ctx, "c", key(i), value(i)); err != nil {
							return err
						}
					}
					return nil
				})
			}
		}
		b.Run(name, func(b *testing.B) {
			fill()
			b.Run("fill", func(b *testing.B) {
				for b.Loop() {
					fill()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/many, "ns/record")
			})
			b.Run("get", func(b *testing.B) {
				for b.Loop() {
					view(func(c *records.Collections) error { _, err := c.Get(ctx, "c", key(rand.IntN(many))); return err })
				}
			})
			b.Run("get100", func(b *testing.B) {
				for b.Loop() {
					view(func(c *records.Collections) error {
						for range 100 {
							if _, err := c.Get(ctx, "c", key(rand.IntN(many))); err != nil {
								return err
							}
						}
						return nil
					})
				}
			})
			b.Run("scan100", func(b *testing.B) {
				for b.Loop() {
					view(func(c *records.Collections) error {
						page, err := c.Scan(ctx, "c", records.Range{From: key(rand.IntN(many - 100)), Limit: 100})
						if err == nil && len(page.Records) != 100 {
							return fmt.Errorf("%d records", len(page.Records))
						}
						return err
					})
				}
			})
			b.Run("put", func(b *testing.B) {
				for b.Loop() {
					i := rand.IntN(many)
					update(func(c *records.Collections) error { return c.Put(ctx, "c", key(i), value(i+1)) })
				}
			})
		})
		must(s.Close())
	}
}
