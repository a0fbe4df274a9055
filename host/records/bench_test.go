package records_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/schema"
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

// cpu is the time that the process has had, in ns.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

type bound map[string]*schema.Schema

func (b bound) Of(collection string) *schema.Schema { return b[collection] }

// BenchmarkQuery: a collection of 100,000 bookings with two indexes, and twenty of
// them that are asked for, in a transaction of their own; beside the same by reading
// all.
func BenchmarkQuery(b *testing.B) {
	const many = 100_000
	ctx := context.Background()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	s, err := schema.Parse("bookings.json", `{"type": "object", "required": ["starts", "room"], "properties": {"starts": {"type": "string", "format": "date-time"},
		"room": {"type": "string"}, "seats": {"type": "integer", "minimum": 1}}, "x-circles-index": [["/starts"], ["/room", "/starts"]]}`)
	must(err)
	value := func(i int) []byte {
		return fmt.Appendf(nil, `{"starts":"2026-%02d-%02dT%02d:%02d:00Z","room":"room %d","seats":%d,"notes":"%060d"}`, 1+i%12, 1+i/12%28, i/336%24, i/8064%60, i%97, 1+i%8, i)
	}
	for name, open := range map[string]func() (store.Store, error){
		"fs": func() (store.Store, error) {
			dir := b.TempDir()
			return fs.Open(fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")})
		},
		"sqlite": func() (store.Store, error) {
			return sqlite.Open(sqlite.Config{Path: filepath.Join(b.TempDir(), "db")})
		},
	} {
		b.Run(name, func(b *testing.B) {
			st, err := open()
			must(err)
			defer st.Close()
			looked := &records.Looked{}
			in := func(transact func(context.Context, func(store.Tx) error) error, readOnly bool, f func(t *records.Tx, c *records.Collections) error) {
				must(transact(ctx, func(tx store.Tx) error {
					t := records.In(tx.Private(), records.Config{ReadOnly: readOnly, Schemas: bound{"bookings": s}, Looked: looked})
					if err := f(t, t.As(nil)); err != nil || readOnly {
						return err
					}
					return t.Flush(ctx)
				}))
			}
			for from := 0; from < many; from += 25_000 {
				in(st.Update, false, func(_ *records.Tx, c *records.Collections) error {
					for i := from; i < from+25_000; i++ {
						if err := c.Put(ctx, "bookings", fmt.Sprintf("%06d", i*7919%many), value(i)); err != nil {
							return err
						}
					}
					return nil
				})
			}
			in(st.Update, false, func(t *records.Tx, _ *records.Collections) error {
				_, err := t.Bind(ctx, "bookings", s)
				return err
			})
			b.Run("bind", func(b *testing.B) {
				for b.Loop() {
					in(st.Update, false, func(t *records.Tx, _ *records.Collections) error {
						if err := t.Unbind(ctx, "bookings"); err != nil {
							return err
						}
						_, err := t.Bind(ctx, "bookings", s)
						return err
					})
				}
			})
			ask := func(b *testing.B, query func(i int) string) {
				began := cpu(b)
				defer func() { b.ReportMetric(float64(cpu(b)-began)/float64(b.N), "cpu-ns/op") }() // of a machine that others use too
				for i := 0; b.Loop(); i++ {
					in(st.View, true, func(_ *records.Tx, c *records.Collections) error {
						page, err := c.Query(ctx, "bookings", query(i), "", 20)
						if err == nil && len(page.Records) != 20 {
							return fmt.Errorf("%d records", len(page.Records))
						}
						return err
					})
				}
			}
			b.Run("equals-order", func(b *testing.B) {
				ask(b, func(i int) string {
					return fmt.Sprintf(`{"where": {"and": [{"field": "/room", "equals": "room %d"}, {"field": "/starts", "from": "2026-0%d"}]}, "order": [{"field": "/starts"}]}`, i%97, 1+i%9)
				})
			})
			b.Run("range", func(b *testing.B) {
				ask(b, func(i int) string {
					return fmt.Sprintf(`{"where": {"field": "/starts", "prefix": "2026-%02d-%02d"}, "order": [{"field": "/starts", "descending": true}]}`, 1+i%12, 1+i%28)
				})
			})
			b.Run("reading-all", func(b *testing.B) {
				for b.Loop() {
					in(st.View, true, func(_ *records.Tx, c *records.Collections) error {
						n := 0
						for r := (records.Range{}); ; {
							page, err := c.Scan(ctx, "bookings", r)
							for _, record := range page.Records {
								var v struct{ Room string }
								if err := json.Unmarshal(record.Value, &v); err != nil {
									return err
								}
								if v.Room == "room 5" {
									n++
								}
							}
							if r.From = page.Next; r.From == "" || err != nil {
								return err
							}
						}
					})
				}
			})
			b.Run("put", func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					in(st.Update, false, func(_ *records.Tx, c *records.Collections) error {
						return c.Put(ctx, "bookings", fmt.Sprintf("%06d", i*7919%many), value(i+1))
					})
				}
			})
		})
	}
}
