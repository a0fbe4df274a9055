package overlay_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
)

// bounded is a context in memory that may hold 1,000 bytes in 20 entries.
func bounded() *overlay.Store {
	s := mem.New(mem.Config{})
	s.Bound(store.Quota{Bytes: 1000, Entries: 20}, nil)
	return s
}

func writeN(fs store.FS, path string, size int64) error {
	f, err := fs.Open(path, rwc|store.FlagTruncate)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(make([]byte, size), 0)
	return err
}

func holds(t testing.TB, s *overlay.Store, bytes, entries int64) {
	t.Helper()
	for _, exact := range []bool{false, true} {
		u, err := s.Volume(context.Background(), exact)
		must(t, err)
		if u.Bytes != bytes || u.Entries != entries {
			t.Errorf("exact %v: %d bytes in %d entries, want %d in %d", exact, u.Bytes, u.Entries, bytes, entries)
		}
	}
}

// TestManyScriptsFillAContext: each within its own limits, and the one that goes
// over what the context may hold is told when it writes, not when it commits.
func TestManyScriptsFillAContext(t *testing.T) {
	s := bounded()
	for i := range 9 {
		update(t, s, func(_ store.Tx, fs store.FS) { must(t, writeN(fs, fmt.Sprint(i), 100)) })
	}
	update(t, s, func(_ store.Tx, fs store.FS) {
		f, err := fs.Open("f", rwc)
		must(t, err)
		_, err = f.WriteAt(make([]byte, 101), 0)
		want(t, store.ErrQuota, err)
		_, err = f.WriteAt(make([]byte, 100), 0) // what was refused is not counted
		must(t, err)
		_, err = f.WriteAt([]byte{1}, 100)
		want(t, store.ErrQuota, err)
		_, err = f.WriteAt([]byte{1}, 99) // not more than before
		must(t, err)
		want(t, store.ErrQuota, f.Truncate(1<<20)) // a hole counts as what it claims
		if i, err := f.Stat(); err != nil || i.Size != 100 {
			t.Errorf("%+v, %v", i, err)
		}
		must(t, f.Close())
	})
	holds(t, s, 1000, 10)
	// What is freed may be used, by the same script too.
	update(t, s, func(_ store.Tx, fs store.FS) {
		must(t, fs.Unlink("0"))
		must(t, writeN(fs, "g", 100))
		f, err := fs.Open("1", store.FlagWrite)
		must(t, err)
		must(t, f.Truncate(10))
		must(t, f.Close())
		must(t, writeN(fs, "h", 90))
		want(t, store.ErrQuota, writeN(fs, "i", 1))
	})
	holds(t, s, 1000, 12)
	stop := errors.New("stop")
	want(t, stop, s.Update(context.Background(), func(tx store.Tx) error {
		must(t, tx.Files(nil).Unlink("g"))
		return stop
	}))
	holds(t, s, 1000, 12)
	update(t, s, func(_ store.Tx, fs store.FS) { want(t, store.ErrQuota, writeN(fs, "j", 1)) })
}

// TestManyNames: names count, whatever they are of, and a rename makes none.
func TestManyNames(t *testing.T) {
	s := bounded()
	update(t, s, func(_ store.Tx, fs store.FS) {
		must(t, fs.Mkdir("d"))
		must(t, create(fs, "d/f"))
		must(t, fs.Symlink("f", "d/l"))
		for i := range 17 {
			must(t, create(fs, fmt.Sprintf("d/%d", i)))
		}
		want(t, store.ErrQuota, create(fs, "x"))
		want(t, store.ErrQuota, fs.Mkdir("x"))
		want(t, store.ErrQuota, fs.Symlink("d", "x"))
		must(t, fs.Rename("d", "e"))
		must(t, fs.Rename("e/0", "e/1"))
		must(t, create(fs, "x"))
		want(t, store.ErrQuota, create(fs, "y"))
		must(t, fs.Unlink("e/l"))
		must(t, fs.Mkdir("y"))
		must(t, fs.Rmdir("y"))
		must(t, fs.Mkdir("y"))
	})
	holds(t, s, 0, 20)
}

// TestUnlinkedFilesStayCharged: a file without a name that is written on takes the
// room of others until it is closed.
func TestUnlinkedFilesStayCharged(t *testing.T) {
	s := bounded()
	update(t, s, func(_ store.Tx, fs store.FS) {
		f, err := fs.Open("f", rwc)
		must(t, err)
		must(t, fs.Unlink("f"))
		_, err = f.WriteAt(make([]byte, 900), 0)
		must(t, err)
		want(t, store.ErrQuota, writeN(fs, "g", 101))
		must(t, f.Close())
		must(t, writeN(fs, "g", 1000))
	})
	holds(t, s, 1000, 1)
}

// TestPrivateCounts: what the host keeps for a context fills its disk too.
func TestPrivateCounts(t *testing.T) {
	s := bounded()
	update(t, s, func(tx store.Tx, fs store.FS) {
		must(t, writeN(tx.Private(), "p", 600))
		want(t, store.ErrQuota, writeN(fs, "g", 401))
		want(t, store.ErrQuota, writeN(tx.Private(), "q", 401))
	})
	update(t, s, func(tx store.Tx, fs store.FS) {
		must(t, writeN(fs, "f", 400))
		must(t, writeN(fs, "f", 10))
		must(t, writeN(tx.Private(), "q", 390))
		want(t, store.ErrQuota, writeN(fs, "f", 11))
	})
	holds(t, s, 990, 5) // with the directory; f was cut before it was refused
}

// TestKeptCounts: what a script replaces and the host keeps is there twice.
func TestKeptCounts(t *testing.T) {
	s := bounded()
	update(t, s, func(tx store.Tx, fs store.FS) { must(t, writeN(fs, "f", 400)) })
	update(t, s, func(tx store.Tx, fs store.FS) {
		must(t, writeN(fs, "f", 300))
		must(t, tx.Keep("/f", "k"))
	})
	holds(t, s, 700, 3)
	update(t, s, func(tx store.Tx, fs store.FS) {
		must(t, writeN(fs, "f", 500))
		want(t, store.ErrQuota, tx.Keep("/f", "k2"))
	})
	holds(t, s, 900, 3)
}

// TestLogFull: a log that has no room ends what has effects first; a little more
// is for saying so.
func TestLogFull(t *testing.T) {
	const size = 1 << 20
	s := mem.New(mem.Config{})
	s.Bound(store.Quota{Log: 16 * size}, nil)
	ctx := context.Background()
	n := byte(0)
	add := func(tx store.Tx) error { n++; return tx.Append(store.Key{n}, make([]byte, 1<<20-128)) }
	for range 16 {
		must(t, s.Update(ctx, add))
	}
	err := s.Update(ctx, add)
	want(t, store.ErrLogFull, err)
	want(t, store.ErrQuota, err)
	must(t, s.View(ctx, add))
	want(t, store.ErrLogFull, s.View(ctx, add))
	if u, err := s.Volume(ctx, true); err != nil || u.Log != 17*size {
		t.Errorf("%+v, %v", u, err)
	}
}

// memo keeps a note in memory.
type memo struct{ text []byte }

func (m *memo) Load() ([]byte, error) { return m.text, nil }
func (m *memo) Save(b []byte) error   { m.text = b; return nil }

// walks counts what is asked of a directory, between the store and the context.
type walks struct {
	overlay.Backend
	n *atomic.Int64
}

func (w walks) ReadDir(path string, limit int) ([]overlay.Name, error) {
	w.n.Add(1)
	return w.Backend.ReadDir(path, limit)
}

func (w walks) Head() (uint64, [32]byte) { return w.Backend.(overlay.Header).Head() }

// TestNoteSavesTheWalk: a context that was closed is not counted when it is opened
// again; one whose log has gone on meanwhile is, and so is one whose note says
// what cannot be.
func TestNoteSavesTheWalk(t *testing.T) {
	var kept overlay.Backend // survives Close, as a disk does
	var n atomic.Int64
	mem.NewOn(mem.Config{}, func(b overlay.Backend) overlay.Backend { kept = b; return b })
	note := &memo{}
	var now time.Time
	open := func() *overlay.Store {
		s := overlay.New(walks{undying{kept}, &n}, overlay.Config{Now: func() time.Time { return now }})
		s.Bound(store.Quota{Bytes: 1000, Entries: 100}, note)
		return s
	}
	logged := byte(0)
	grow := func(s *overlay.Store, size int64) error {
		logged++
		return s.Update(context.Background(), func(tx store.Tx) error {
			if err := writeN(tx.Files(nil), fmt.Sprint(logged), size); err != nil {
				return err
			}
			return tx.Append(store.Key{logged}, []byte("x"))
		})
	}
	walked := func(want bool, why string) {
		t.Helper()
		if got := n.Swap(0) > 0; got != want {
			t.Errorf("walked over the files: %v; %s", got, why)
		}
	}
	now = time.Unix(1e9, 0)

	s := open()
	must(t, grow(s, 100))
	walked(true, "nothing was known")
	must(t, s.Close())
	s = open()
	must(t, grow(s, 100))
	walked(false, "it was closed")
	holds2 := func(bytes int64) {
		t.Helper()
		u, err := s.Volume(context.Background(), false)
		must(t, err)
		if u.Bytes != bytes {
			t.Errorf("%d bytes, want %d", u.Bytes, bytes)
		}
	}
	holds2(200)
	before := string(note.text)
	must(t, s.Close())
	after := string(note.text)

	note.text = []byte(before) // as if it had not been closed
	s = open()
	must(t, grow(s, 100))
	walked(true, "there was a crash")
	holds2(300)
	must(t, s.Close())

	note.text = []byte(after)
	s = open()
	holds2(300)
	walked(true, "the note is older than the log")
	must(t, s.Close())
	good := string(note.text)

	for _, bad := range []string{"", "{", "null", `{"bytes":-1}`, `{"bytes":9223372036854775807}`, "[1,2]", "\x00\xff"} {
		note.text = []byte(bad)
		s = open()
		holds2(300)
		walked(true, "the note is "+bad)
		must(t, s.Close())
	}

	note.text = []byte(good)
	now = now.Add(25 * time.Hour)
	s = open()
	holds2(300)
	walked(true, "it was counted yesterday")

	// A commit that the log does not show must not leave a note that seems true.
	update(t, s, func(_ store.Tx, fs store.FS) { must(t, writeN(fs, "unlogged", 50)) })
	if len(note.text) != 0 {
		t.Errorf("the note is still %s", note.text)
	}
	must(t, s.Close())
	s = open()
	holds2(350)
	must(t, s.Close())
}

// undying is a backend that stays open.
type undying struct{ overlay.Backend }

func (undying) Close() error               { return nil }
func (u undying) Head() (uint64, [32]byte) { return u.Backend.(overlay.Header).Head() }

// TestOwnerMakesRoom: who removes files of a full context has room at once; and
// what the owner adds counts when it is counted next.
func TestOwnerMakesRoom(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	s, err := fs.Open(fs.Config{Data: data, Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")})
	must(t, err)
	defer s.Close()
	s.Bound(store.Quota{Bytes: 1000, Entries: 20}, nil)
	update(t, s, func(_ store.Tx, fs store.FS) { must(t, writeN(fs, "f", 900)) })
	must(t, os.WriteFile(filepath.Join(data, "owner's"), make([]byte, 5000), 0o600))
	update(t, s, func(_ store.Tx, fs store.FS) { must(t, writeN(fs, "g", 100)) }) // not seen yet
	must(t, os.Remove(filepath.Join(data, "f")))
	must(t, os.Remove(filepath.Join(data, "owner's")))
	overlay.Rested(s)
	update(t, s, func(_ store.Tx, fs store.FS) {
		must(t, writeN(fs, "h", 900))
		want(t, store.ErrQuota, writeN(fs, "i", 1))
	})
	holds(t, s, 1000, 3)
	must(t, os.WriteFile(filepath.Join(data, "owner's"), make([]byte, 5000), 0o600))
	overlay.Rested(s)
	update(t, s, func(_ store.Tx, fs store.FS) {
		want(t, store.ErrQuota, writeN(fs, "i", 1))
		must(t, fs.Unlink("owner's"))
		must(t, fs.Unlink("g"))
		must(t, writeN(fs, "i", 100))
	})
	holds(t, s, 1000, 2)
}

// TestRefusalsDoNotWalk: a script that is refused again and again does not have
// the context counted each time.
func TestRefusalsDoNotWalk(t *testing.T) {
	var n atomic.Int64
	s := mem.NewOn(mem.Config{}, func(b overlay.Backend) overlay.Backend { return walks{b, &n} })
	s.Bound(store.Quota{Bytes: 10}, nil)
	for range 100 {
		update(t, s, func(_ store.Tx, fs store.FS) { want(t, store.ErrQuota, writeN(fs, "f", 11)) })
	}
	if n.Load() > 2 {
		t.Errorf("walked %d times for 100 refusals", n.Load())
	}
}

// slow is a context that takes long to walk over.
type slow struct {
	overlay.Backend
	held chan struct{}
}

func (s slow) ReadDir(path string, limit int) ([]overlay.Name, error) {
	<-s.held
	return s.Backend.ReadDir(path, limit)
}

// TestCountOutlivesTheScript: a script whose time is over does not wait for the
// count that it began, and the next one has the result. Close ends it.
func TestCountOutlivesTheScript(t *testing.T) {
	held := make(chan struct{})
	s := mem.NewOn(mem.Config{}, func(b overlay.Backend) overlay.Backend { return slow{b, held} })
	s.Bound(store.Quota{Bytes: 10}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := s.Update(ctx, func(tx store.Tx) error { return writeN(tx.Files(nil), "f", 5) })
	want(t, context.DeadlineExceeded, err)
	close(held)
	update(t, s, func(_ store.Tx, fs store.FS) { must(t, writeN(fs, "f", 5)) })
	holds(t, s, 5, 1)
	must(t, s.Close())
	if _, err := s.Volume(context.Background(), true); !errors.Is(err, store.ErrClosed) && !errors.Is(err, context.Canceled) {
		t.Errorf("usage of a closed store: %v", err)
	}
}

// TestQuotaBesideViews: entries that views append while it is counted are counted
// once.
func TestQuotaBesideViews(t *testing.T) {
	s := mem.New(mem.Config{})
	s.Bound(store.Quota{Bytes: 1 << 20, Log: 1 << 30}, nil)
	ctx := context.Background()
	done := make(chan struct{})
	var wg atomic.Int64
	for g := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 200 {
				if err := s.View(ctx, func(tx store.Tx) error { return tx.Append(store.Key{byte(g), byte(i), 1}, []byte("x")) }); err != nil {
					t.Error(err)
				}
				wg.Add(1)
			}
		}()
	}
	for range 50 {
		if _, err := s.Volume(ctx, true); err != nil {
			t.Error(err)
		}
	}
	for range 4 {
		<-done
	}
	if u, err := s.Volume(ctx, false); err != nil || u.Log != 800*overlay.LogSize(1) {
		t.Errorf("%+v, %v, want %d", u, err, 800*overlay.LogSize(1))
	}
}

// BenchmarkQuota is what a quota costs each commit of 4 KiB.
func BenchmarkQuota(b *testing.B) {
	in := map[string]func(*testing.B) *overlay.Store{
		"mem": func(*testing.B) *overlay.Store { return mem.New(mem.Config{}) },
		"fs": func(b *testing.B) *overlay.Store {
			dir := b.TempDir()
			s, err := fs.Open(fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")})
			must(b, err)
			return s
		},
	}
	for name, open := range in {
		for how, q := range map[string]store.Quota{"without": {}, "with": {Bytes: 1 << 40, Entries: 1 << 30, Log: 1 << 50}} {
			b.Run(name+"/"+how, func(b *testing.B) {
				s := open(b)
				defer s.Close()
				s.Bound(q, &memo{})
				text := make([]byte, 4<<10)
				key := store.Key{}
				b.ReportAllocs()
				for i := range b.N {
					key[0], key[1], key[2], key[3] = byte(i), byte(i>>8), byte(i>>16), byte(i>>24)
					if err := s.Update(context.Background(), func(tx store.Tx) error {
						f, err := tx.Files(nil).Open("f", rwc)
						if err != nil {
							return err
						}
						text[0] = byte(i)
						if _, err = f.WriteAt(text, 0); err != nil {
							return err
						}
						return tx.Append(key, text[:100])
					}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkCount is what it costs to count what a directory of 10,000 files holds.
func BenchmarkCount(b *testing.B) {
	dir := b.TempDir()
	s, err := fs.Open(fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")})
	must(b, err)
	defer s.Close()
	for d := range 100 {
		must(b, os.Mkdir(filepath.Join(dir, "data", fmt.Sprint(d)), 0o700))
		for f := range 100 {
			must(b, os.WriteFile(filepath.Join(dir, "data", fmt.Sprint(d), fmt.Sprint(f)), []byte("x"), 0o600))
		}
	}
	for b.Loop() {
		if v, err := s.Volume(context.Background(), true); err != nil || v.Entries != 10_100 {
			b.Fatal(v, err)
		}
	}
}
