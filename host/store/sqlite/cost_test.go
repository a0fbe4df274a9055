package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// TestAppendCostsTheAppend: a few bytes more, changed or cut in a large file
// write a few pages, and stage a chunk or two.
func TestAppendCostsTheAppend(t *testing.T) {
	c := memoryConfig(t)
	b, err := open(c, hooks{})
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	const size = 24 << 20
	block := strings.Repeat("0123456789abcdef", 4096)
	update(t, s, func(fs store.FS) error {
		f, err := fs.Open("big", store.FlagWrite|store.FlagCreate)
		must(t, err)
		defer f.Close()
		for off := int64(0); off < size; off += int64(len(block)) {
			if _, err := f.WriteAt([]byte(block), off); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, s.Close())
	for _, step := range []struct {
		name string
		do   func(f store.File) error
		at   int64
		want string
	}{
		{"append", func(f store.File) error { _, err := f.WriteAt([]byte("appended"), size); return err },
			size - 4, "cdefappended"},
		{"change", func(f store.File) error { _, err := f.WriteAt([]byte("CHANGED"), size/2-3); return err },
			size/2 - 4, "cCHANGED4567"},
		{"cut", func(f store.File) error {
			if err := f.Truncate(size - 10); err != nil {
				return err
			}
			return f.Truncate(size + 10)
		}, size - 12, "45\x00\x00\x00\x00"},
	} {
		b, err := open(c, hooks{})
		must(t, err)
		s := overlay.New(b, overlay.Config{})
		update(t, s, func(fs store.FS) error {
			f, err := fs.Open("big", store.FlagRead|store.FlagWrite)
			must(t, err)
			defer f.Close()
			if err := step.do(f); err != nil {
				return err
			}
			if b.stage.used > 2 {
				t.Errorf("%s: %d chunks staged", step.name, b.stage.used)
			}
			return nil
		})
		if b.stage.used != 0 {
			t.Errorf("%s: %d chunks staged after commit", step.name, b.stage.used)
		}
		info, err := os.Stat(c.Path + "-wal")
		must(t, err)
		if info.Size() > 64*pageSize {
			t.Errorf("%s: wrote %d bytes", step.name, info.Size())
		}
		view(t, s, func(fs store.FS) error {
			f, err := fs.Open("big", store.FlagRead)
			must(t, err)
			defer f.Close()
			got := make([]byte, len(step.want))
			if _, err := f.ReadAt(got, step.at); err != nil || string(got) != step.want {
				t.Errorf("%s: there is %q, %v", step.name, got, err)
			}
			return nil
		})
		must(t, s.Close())
	}
}

// TestStaged: a staged file against plain bytes, through many chunks, slots in
// memory and in the staging file, and slots used again.
func TestStaged(t *testing.T) {
	c := memoryConfig(t)
	b, err := open(c, hooks{})
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	defer s.Close()
	update(t, s, func(fs store.FS) error { return write(fs, "f", strings.Repeat("base", 50_000)) })
	view(t, s, func(store.FS) error {
		for round := range 20 {
			lower, err := b.Open("f")
			must(t, err)
			n := int64(round * 10_000)
			st, err := b.Stage(context.Background(), lower, n)
			must(t, err)
			want := []byte(strings.Repeat("base", 50_000))[:n]
			for i := range 40 {
				off := int64((i*i*7919 + round*31) % (3 << 20))
				switch {
				case i%7 == 6:
					must(t, st.Truncate(off))
					if off < int64(len(want)) {
						want = want[:off]
					} else {
						want = append(want, make([]byte, off-int64(len(want)))...)
					}
				default:
					p := []byte(strings.Repeat(fmt.Sprintf("%03d.", i), 1+i*i*20))
					if end := off + int64(len(p)); end > int64(len(want)) {
						want = append(want, make([]byte, end-int64(len(want)))...)
					}
					copy(want[off:], p)
					if _, err := st.WriteAt(p, off); err != nil {
						t.Fatal(err)
					}
				}
			}
			got := make([]byte, len(want)+1000)
			if _, err := st.ReadAt(got, 0); err != nil || string(got) != string(want)+strings.Repeat("\x00", 1000) {
				t.Fatalf("round %d: content differs, %v", round, err)
			}
			if left, _ := filepath.Glob(c.Path + "-stage"); len(left) > 0 {
				t.Fatal("the staging file has a name")
			}
			st.Discard()
			if b.stage.used != 0 || b.stage.file != nil {
				t.Fatalf("round %d: %d slots in use", round, b.stage.used)
			}
		}
		return nil
	})
}

// TestTooBig: nothing overflows at the edge of what a file may be.
func TestTooBig(t *testing.T) {
	s, err := Open(Config{Path: memoryConfig(t).Path, Limits: overlay.Limits{FileSize: 1 << 62, StagedBytes: 1 << 62}})
	must(t, err)
	defer s.Close()
	update(t, s, func(fs store.FS) error {
		f, err := fs.Open("f", store.FlagRead|store.FlagWrite|store.FlagCreate)
		must(t, err)
		if err := f.Truncate(maxSize + 1); !errors.Is(err, store.ErrTooBig) {
			t.Errorf("truncate: %v", err)
		}
		if _, err := f.WriteAt([]byte("xy"), maxSize-1); !errors.Is(err, store.ErrTooBig) {
			t.Errorf("write: %v", err)
		}
		if _, err := f.WriteAt([]byte("end"), maxSize-3); err != nil {
			t.Errorf("write at the last place: %v", err)
		}
		return f.Close()
	})
	update(t, s, func(fs store.FS) error { return write(fs, "g", "neighbour") })
	view(t, s, func(fs store.FS) error {
		f, err := fs.Open("f", store.FlagRead)
		must(t, err)
		buf := make([]byte, 5)
		if n, err := f.ReadAt(buf, maxSize-5); n != 5 || err != nil && err != io.EOF || string(buf) != "\x00\x00end" {
			t.Errorf("%d bytes, %v: %q", n, err, buf)
		}
		if got := read(t, fs, "g"); got != "neighbour" {
			t.Errorf("the next file holds %q", got)
		}
		return f.Close()
	})
}

// TestEntryBeforePreparedUpdate: an update whose plan is applied waits for a view
// that ends by appending an entry. Neither waits for the other for good.
func TestEntryBeforePreparedUpdate(t *testing.T) {
	c := memoryConfig(t)
	b, err := open(c, hooks{})
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	must(t, commitState(s, 1))
	updated := make(chan error, 1)
	must(t, s.View(context.Background(), func(tx store.Tx) error {
		go func() { updated <- commitState(s, 2) }()
		for prepared := false; !prepared; time.Sleep(time.Millisecond) {
			b.write.Lock()
			prepared = b.prepared != nil
			b.write.Unlock()
		}
		if n := read(t, tx.Files(nil), "state"); n != "1" {
			t.Errorf("the view reads state %q", n)
		}
		return tx.Append(keyOf(100), []byte("2"))
	}))
	must(t, <-updated)
	view(t, s, func(fs store.FS) error {
		if n := read(t, fs, "state"); n != "2" {
			t.Errorf("state %q", n)
		}
		return nil
	})
	for i, key := range []store.Key{keyOf(1), keyOf(100), keyOf(2)} {
		if e, ok, err := s.Entry(context.Background(), key); !ok || err != nil || e.Seq != uint64(i)+1 {
			t.Errorf("entry %d: %+v, %v, %v", i+1, e, ok, err)
		}
	}
	// Given up, it leaves the connection free.
	ctx, cancel := context.WithCancel(context.Background())
	must(t, s.View(context.Background(), func(store.Tx) error {
		go func() {
			updated <- s.Update(ctx, func(tx store.Tx) error { return write(tx.Files(nil), "state", "9") })
		}()
		for prepared := false; !prepared; time.Sleep(time.Millisecond) {
			b.write.Lock()
			prepared = b.prepared != nil
			b.write.Unlock()
		}
		cancel()
		if err := <-updated; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled update: %v", err)
		}
		return nil
	}))
	must(t, commitState(s, 3))
	must(t, s.Close())
}

// TestHammer: updates, views and readers of the log at once.
func TestHammer(t *testing.T) {
	s := mustOpen(t, memoryConfig(t))
	must(t, commitState(s, 1))
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for n := 2; n < 40; n++ {
			if err := commitState(s, n); err != nil {
				t.Errorf("update %d: %v", n, err)
			}
		}
	})
	for r := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if err := s.View(context.Background(), func(tx store.Tx) error {
					fs := tx.Files(nil)
					n := read(t, fs, "state")
					if got := read(t, fs, "d"+n+"/same"); got != n {
						t.Errorf("state %s, and the other file has %s", n, got)
					}
					if i%3 == 0 {
						return tx.Append(store.Key{byte(r), byte(i), byte(i >> 8), 2}, nil)
					}
					return nil
				}); err != nil {
					t.Errorf("view: %v", err)
				}
				var prev *[32]byte
				for e, err := range s.Log(context.Background(), uint64(max(1, i))) {
					if err != nil || prev != nil && e.Prev != *prev {
						t.Errorf("log: %v", err)
						break
					}
					h := e.Hash()
					prev = &h
					if _, ok, err := s.Entry(context.Background(), e.Key); !ok || err != nil {
						t.Errorf("entry %d: %v, %v", e.Seq, ok, err)
					}
				}
			}
		})
	}
	wg.Wait()
}
