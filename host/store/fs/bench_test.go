//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// rawSyncs is how often a second the disk makes a page that is overwritten durable,
// when one asks after the other.
func rawSyncs(b *testing.B, dir string) float64 {
	f, err := os.Create(filepath.Join(dir, "raw"))
	must(b, err)
	defer os.Remove(f.Name())
	defer f.Close()
	page := make([]byte, 4096)
	_, err = f.Write(page)
	must(b, err)
	must(b, f.Sync())
	const n = 200
	start := time.Now()
	for range n {
		_, err := f.WriteAt(page, 0)
		must(b, err)
		must(b, datasync(f))
	}
	return n / time.Since(start).Seconds()
}

// BenchmarkContexts commits to many contexts at once, a small file and a log entry
// each time: commits a second, how many for each time that the disk is waited for
// (all of it counted, making durable in place too), and that as a ratio to what
// the disk can do alone.
func BenchmarkContexts(b *testing.B) {
	for _, shared := range []bool{false, true} {
		for _, n := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("contexts=%d/shared=%v", n, shared), func(b *testing.B) {
				dir := b.TempDir()
				raw := rawSyncs(b, dir)
				var j *Journal
				var err error
				if shared {
					j, err = OpenJournal(JournalConfig{Dir: filepath.Join(dir, "journal")})
					must(b, err)
				}
				stores := make([]*overlay.Store, n)
				for i := range stores {
					at := filepath.Join(dir, fmt.Sprint(i))
					c := Config{Data: filepath.Join(at, "data"), Log: filepath.Join(at, "log"), Tx: filepath.Join(at, "tx"), Journal: j}
					stores[i], err = Open(c)
					must(b, err)
					must(b, benchCommit(stores[i], 0))
				}
				var left atomic.Int64
				left.Store(int64(b.N))
				var before int64
				if shared {
					before = j.syncs.Load()
				}
				b.ResetTimer()
				start := time.Now()
				var wg sync.WaitGroup
				for _, s := range stores {
					wg.Go(func() {
						for k := left.Add(-1); k >= 0; k = left.Add(-1) {
							if err := benchCommit(s, int(k)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				rate := float64(b.N) / time.Since(start).Seconds()
				b.StopTimer()
				if shared {
					b.ReportMetric(float64(b.N)/float64(j.syncs.Load()-before), "commits/fsync")
				}
				for _, s := range stores {
					must(b, s.Close())
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(rate, "commits/s")
				b.ReportMetric(rate/raw, "commits/rawfsync")
				if shared {
					must(b, j.Close())
				}
			})
		}
	}
}

func benchCommit(s store.Store, k int) error {
	return s.Update(context.Background(), func(tx store.Tx) error {
		var key store.Key
		rand.Read(key[:])
		return first(write(tx.Files(nil), fmt.Sprint("f", k%10), fmt.Sprint("state ", k)), tx.Append(key, make([]byte, 1000)))
	})
}

// BenchmarkAppend appends a line to a file of 1 GiB, and overwrites one in the
// middle, which copies it.
func BenchmarkAppend(b *testing.B) {
	c := config(b)
	c.Limits = overlay.Limits{FileSize: 2 << 30, StagedBytes: 4 << 30}
	s := mustOpen(b, c)
	path := filepath.Join(c.Data, "big")
	f, err := os.Create(path)
	must(b, err)
	block := []byte(strings.Repeat("0123456789abcdef", 1<<16))
	for range 1 << 10 {
		_, err := f.Write(block)
		must(b, err)
	}
	must(b, f.Sync())
	must(b, f.Close())
	for name, off := range map[string]int64{"end": -1, "middle": 1 << 29} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				update(b, s, func(fs store.FS) error {
					flag := store.FlagWrite
					if off < 0 {
						flag |= store.FlagAppend
					}
					f, err := fs.Open("big", flag)
					if err != nil {
						return err
					}
					_, err = f.WriteAt([]byte(fmt.Sprintln("a line", b.N)), max(off, 0))
					return first(err, f.Close())
				})
			}
		})
	}
}
