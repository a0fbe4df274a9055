//go:build linux

package storage

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/archive"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/store"
)

// bound is the schema of the collection that the tests of indexes keep.
type bound struct{ *schema.Schema }

func (b bound) Of(string) *schema.Schema { return b.Schema }

// indexed checks that the indexes of a context are right, and that queries by them find
// what a scan does.
func indexed(t *testing.T, s store.Store, b bound, where string) {
	t.Helper()
	must(t, s.View(context.Background(), func(tx store.Tx) error {
		r := records.In(tx.Private(), records.Config{Schemas: b, ReadOnly: true})
		if right, err := r.Indexed(t.Context(), "c", b.Indexes()); err != nil || !right {
			t.Errorf("%s: the index is right: %v, %v", where, right, err)
		}
		c := r.As(nil)
		for n := range 7 {
			var want, got []string
			all, err := c.Scan(t.Context(), "c", records.Range{})
			must(t, err)
			for _, x := range all.Records {
				if strings.Contains(string(x.Value), fmt.Sprintf(`"n": %d,`, n)) {
					want = append(want, x.Key)
				}
			}
			found, err := c.Query(t.Context(), "c", fmt.Sprintf(`{"where": {"field": "/n", "equals": %d}}`, n), "", 0)
			must(t, err)
			for _, x := range found.Records {
				got = append(got, x.Key)
			}
			if len(want) < 50 || !slices.Equal(got, want) {
				t.Errorf("%s: %d are found by the index, and %d by a scan", where, len(got), len(want))
			}
		}
		return nil
	}))
}

// change puts records, of which one is deleted again, so that its page stays as it was,
// in a transaction that its indexes follow.
func change(t *testing.T, s store.Store, b bound, from, to int) {
	t.Helper()
	must(t, s.Update(context.Background(), func(tx store.Tx) error {
		r := records.In(tx.Private(), records.Config{Schemas: b})
		if _, err := r.Bind(t.Context(), "c", b.Schema); err != nil {
			return err
		}
		c := r.As(nil)
		for i := from; i < to; i++ {
			value := fmt.Sprintf(`{"n": %d, "text": %q}`, i*5%7, strings.Repeat("x", 200))
			if err := c.Put(t.Context(), "c", fmt.Sprintf("%04d", i*31%1000), []byte(value)); err != nil {
				return err
			}
		}
		if err := c.Delete(t.Context(), "c", fmt.Sprintf("%04d", from*31%1000)); err != nil {
			return err
		}
		return r.Flush(t.Context())
	}))
}

// TestIndexesComeAlong: indexes are right after their context was moved to another
// backend and back, and exported and imported, and go on to follow what is put.
func TestIndexesComeAlong(t *testing.T) {
	ctx := context.Background()
	of, err := schema.Parse("c.json", `{"x-circles-index": [["/n"]]}`)
	must(t, err)
	b := bound{of}
	e := newPeer(t)
	c := contexts(plain)
	opened := func(e peer.Entry, f func(store.Store)) {
		t.Helper()
		s, err := c.Open(ctx, e)
		must(t, err)
		f(s)
		must(t, s.Close())
	}
	next := 600
	use := func(e peer.Entry, where string) {
		t.Helper()
		opened(e, func(s store.Store) {
			indexed(t, s, b, where)
			change(t, s, b, next, next+20)
			next += 20
			indexed(t, s, b, where+", and changed")
		})
	}
	opened(e, func(s store.Store) { change(t, s, b, 0, next) })
	use(e, "where it was made")
	for _, to := range []string{"sqlite", "fs"} {
		_, err := c.Migrate(ctx, e, Move{To: to, Replace: true})
		must(t, err)
		use(e, "moved to "+to)
	}

	key, err := e.Key()
	must(t, err)
	var out bytes.Buffer
	_, err = archive.Write(ctx, &out, archive.Source{Dir: e.Dir, Peer: e.ID, Name: e.Name}, key)
	must(t, err)
	a, err := archive.Open(&out, archive.Limits{})
	must(t, err)
	to := newPeer(t)
	for _, name := range []string{"data", "log"} {
		must(t, os.RemoveAll(filepath.Join(to.Dir, name)))
	}
	in := filepath.Join(filepath.Dir(to.Dir), "in")
	must(t, os.Mkdir(in, 0o700))
	must(t, a.Extract(ctx, in))
	for _, name := range []string{"data", "log"} {
		must(t, os.Rename(filepath.Join(in, name), filepath.Join(to.Dir, name)))
	}
	use(to, "imported")
}
