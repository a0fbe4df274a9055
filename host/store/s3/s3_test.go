package s3_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
	"github.com/circles-host/circles/host/store/s3"
	"github.com/circles-host/circles/host/store/s3/s3test"
	"github.com/circles-host/circles/host/store/storetest"
)

var prefixes atomic.Int64

// on is an empty place in the server's bucket.
func on(server *s3test.Server) s3.Config {
	return s3.Config{
		Endpoint: server.Endpoint, Region: server.Region, Bucket: server.Bucket,
		Prefix:    fmt.Sprintf("context %d/", prefixes.Add(1)),
		AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	}
}

func open(t testing.TB, c s3.Config) *cas.Store {
	t.Helper()
	s, err := s3.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRemote(t *testing.T) {
	server := s3test.Start(t)
	castest.Run(t, func(t *testing.T) cas.Remote {
		r, err := s3.Dial(t.Context(), on(server))
		must(t, err)
		return r
	})
}

func TestStore(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	storetest.RunDurable(t, func(t *testing.T) (store.Store, func() store.Store) {
		c := on(server)
		again := func() store.Store { return open(t, c) }
		return again(), again
	})
}

// TestCrash kills two workers that commit to one context at once.
func TestCrash(t *testing.T) {
	storetest.Crash(t, storetest.Crasher{
		Place: func(t *testing.T) string {
			c := on(s3test.Start(t))
			c.Store.CacheDir = t.TempDir()
			place, err := json.Marshal(crashPlace{c, c.SecretKey, c.Store.CacheDir})
			must(t, err)
			return string(place)
		},
		Open: func(place string) ([]store.Store, error) {
			var p crashPlace
			if err := json.Unmarshal([]byte(place), &p); err != nil {
				return nil, err
			}
			p.SecretKey, p.Store.CacheDir = p.Secret, p.Cache
			s, err := s3.Open(context.Background(), p.Config)
			return []store.Store{s}, err
		},
		Workers: 2,
	})
}

type crashPlace struct {
	s3.Config
	Secret, Cache string
}

// TestWorkersLoseNothing: several workers, each with its own connections.
func TestWorkersLoseNothing(t *testing.T) {
	t.Parallel()
	const workers, rounds = 4, 20
	c := on(s3test.Start(t))
	var stores []*cas.Store
	for range workers {
		stores = append(stores, open(t, c))
	}
	castest.Hammer(t, stores, rounds)
	castest.Hammered(t, open(t, c), workers, rounds)
}

// BenchmarkCommit tells what a commit costs on a server on this machine: what a
// bucket that is far away costs is that, and so many round trips.
func BenchmarkCommit(b *testing.B) {
	c := on(s3test.Start(b))
	for _, bench := range []struct {
		name string
		size int
	}{{"log entry", 0}, {"100 B appended", 100}, {"100 kB written", 100_000}, {"10 MB written", 10_000_000}} {
		b.Run(bench.name, func(b *testing.B) {
			c.Prefix = fmt.Sprintf("bench %d/", prefixes.Add(1))
			s := open(b, c)
			data := make([]byte, bench.size)
			i := 0
			for b.Loop() {
				i++
				data = append(data[:0:0], make([]byte, bench.size)...)
				must(b, s.Update(b.Context(), func(tx store.Tx) error {
					if bench.size > 0 {
						flag := store.FlagWrite | store.FlagCreate
						if bench.size == 100 {
							flag |= store.FlagAppend
						}
						f, err := tx.Files(nil).Open("f", flag)
						if err != nil {
							return err
						}
						data[0] = byte(i)
						if _, err := f.WriteAt(data, 0); err != nil {
							return err
						}
					}
					return tx.Append(store.Key{byte(i), byte(i >> 8), byte(i >> 16)}, make([]byte, 900))
				}))
			}
		})
	}
}
