package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
)

var txCases = []testCase{
	{"Isolation", isolation},
	{"RollBack", rollBack},
	{"Changes", changes},
	{"ChangesAskedInBetween", changesInBetween},
	{"Intact", intact},
	{"LogChain", logChain},
	{"AppendInView", appendInView},
	{"WaitsEndWithContext", waitsEnd},
	{"CloseWaits", closeWaits},
	{"Concurrency", concurrency},
}

var keptCases = []testCase{
	{"Kept", kept},
}

func isolation(st *stage) {
	st.update(func(fs *files) { fs.write("f", "old") })
	st.update(func(fs *files) {
		fs.write("f", "new")
		fs.write("g", "made")
		if got := fs.read("f"); got != "new" {
			fs.Errorf("the writer reads %q", got)
		}
		st.view(func(fs *files) { fs.wantTree(`/f = "old"`) })
	})
	st.view(func(fs *files) { fs.wantTree(`/f = "new"`, `/g = "made"`) })
}

func rollBack(st *stage) {
	st.update(func(fs *files) { fs.mkdir("d"); fs.write("d/f", "old") })
	mess := func(fs *files) {
		fs.write("d/f", "new")
		fs.write("g", "new")
		fs.must(fs.Rename("d", "e"))
		fs.must(fs.Symlink("g", "l"))
		fs.must(fs.tx.Append(store.Key{1}, []byte("entry")))
	}
	untouched := func() {
		st.Helper()
		st.view(func(fs *files) { fs.wantTree("/d/", `/d/f = "old"`) })
		if _, ok, err := st.s.Entry(context.Background(), store.Key{1}); ok || err != nil {
			st.Errorf("the entry is there: %v, %v", ok, err)
		}
	}
	st.discard(mess)
	untouched()

	func() {
		defer func() {
			if recover() != "panic" {
				st.Error("the panic did not come through")
			}
		}()
		st.s.Update(context.Background(), func(tx store.Tx) error {
			mess(&files{st.T, tx.Files(nil), tx})
			panic("panic")
		})
	}()
	untouched()

	ctx, cancel := context.WithCancel(context.Background())
	if err := st.s.Update(ctx, func(tx store.Tx) error {
		mess(&files{st.T, tx.Files(nil), tx})
		cancel()
		return nil
	}); !errors.Is(err, context.Canceled) {
		st.Errorf("update with its context cancelled: %v", err)
	}
	untouched()

	done := make(chan struct{}) // Goexit, as a failing test does
	go func() {
		defer close(done)
		st.s.Update(context.Background(), func(tx store.Tx) error {
			mess(&files{st.T, tx.Files(nil), tx})
			runtime.Goexit()
			return nil
		})
	}()
	<-done
	untouched()
	st.update(mess) // and the store goes on
}

func changes(st *stage) {
	st.update(func(fs *files) {
		fs.mkdir("d", "d/sub", "gone", "same")
		fs.write("d/a", "a")
		fs.write("d/sub/b", "b")
		fs.write("edit", "before")
		fs.write("same/content", "same")
		fs.write("same/written", "unchanged")
		fs.write("touched", "x")
		fs.write("kind", "file")
		fs.must(fs.Symlink("edit", "link"))
		fs.must(fs.Symlink("edit", "samelink"))
	})
	describe := func(fs *files) []string {
		list, err := fs.tx.Changes()
		fs.must(err)
		var out []string
		for _, c := range list {
			s := fmt.Sprintf("%s %s", map[store.ChangeKind]string{
				store.ChangeCreate: "create", store.ChangeModify: "modify", store.ChangeRemove: "remove",
				store.ChangeMkdir: "mkdir", store.ChangeSymlink: "symlink", store.ChangeTimes: "times",
			}[c.Kind], c.Path)
			if c.Link != "" {
				s += " -> " + c.Link
			}
			for _, side := range []struct {
				name string
				open func() (io.ReadSeekCloser, error)
				size int64
			}{{"was", c.Before, c.Sizes.Before}, {"is", c.After, c.Sizes.After}} {
				if side.open == nil {
					if side.size != 0 {
						fs.Errorf("%s: size %d of nothing", c.Path, side.size)
					}
					continue
				}
				r, err := side.open()
				fs.must(err)
				b, err := io.ReadAll(r)
				fs.must(err)
				fs.must(r.Close())
				if int64(len(b)) != side.size {
					fs.Errorf("%s: size %d, %d bytes", c.Path, side.size, len(b))
				}
				s += fmt.Sprintf(" %s:%s", side.name, b)
			}
			out = append(out, s)
		}
		return out
	}
	run := func(fs *files) {
		fs.write("edit", "after")
		fs.write("new", "made")
		fs.write("temporary", "x")
		fs.must(fs.Unlink("temporary"))
		fs.must(fs.Rename("d", "moved"))
		fs.write("moved/sub/b", "B")
		fs.write("moved/sub/c", "c")
		fs.must(fs.Rmdir("gone"))
		// Written, and as it was in the end; and replaced by its like.
		fs.write("same/written", "something else")
		fs.write("same/written", "unchanged")
		fs.write("same/tmp", "same")
		fs.must(fs.Rename("same/tmp", "same/content"))
		fs.must(fs.SetTimes("touched", true, time.Time{}, time.Unix(1, 0)))
		fs.must(fs.Unlink("kind"))
		fs.mkdir("kind")
		fs.must(fs.Unlink("link"))
		fs.must(fs.Symlink("new", "link"))
		fs.must(fs.Unlink("samelink"))
		fs.must(fs.Symlink("edit", "samelink"))
	}
	want := []string{
		"remove /d", "remove /d/a was:a", "remove /d/sub", "remove /d/sub/b was:b",
		"modify /edit was:before is:after",
		"remove /gone",
		"remove /kind was:file", "mkdir /kind",
		"symlink /link -> new",
		"mkdir /moved", "create /moved/a is:a", "mkdir /moved/sub", "create /moved/sub/b is:B", "create /moved/sub/c is:c",
		"create /new is:made",
		"times /touched was:x is:x",
	}
	st.update(func(fs *files) {
		if got := describe(fs); len(got) > 0 {
			fs.Errorf("a new transaction has changes: %q", got)
		}
		run(fs)
		got := strings.Join(describe(fs), "\n")
		if want := strings.Join(want, "\n"); got != want {
			fs.Errorf("changes are\n%s\nwant\n%s", got, want)
		}
		if again := strings.Join(describe(fs), "\n"); again != got {
			fs.Errorf("asked again, changes are\n%s", again)
		}
	})
	st.view(func(fs *files) {
		fs.wantTree(`/edit = "after"`, `/kind/`, `/link -> new`, `/moved/`, `/moved/a = "a"`, `/moved/sub/`,
			`/moved/sub/b = "B"`, `/moved/sub/c = "c"`, `/new = "made"`, `/same/`, `/same/content = "same"`,
			`/same/written = "unchanged"`, `/samelink -> edit`, `/touched = "x"`)
	})
}

// intact: how much of a file is as it was is known without reading it.
func intact(st *stage) {
	long := strings.Repeat("0123456789", 30_000)
	st.update(func(fs *files) {
		for _, name := range []string{"append", "hole", "end", "cut", "middle", "again", "moved", "replaced", "other"} {
			fs.write(name, long)
		}
		fs.write("empty", "")
	})
	st.update(func(fs *files) {
		size := int64(len(long))
		write := func(name, s string, off int64) {
			h := fs.open(name, store.FlagWrite)
			_, err := h.WriteAt([]byte(s), off)
			fs.must(err)
			fs.must(h.Close())
		}
		cut := func(name string, size int64) {
			h := fs.open(name, store.FlagWrite)
			fs.must(h.Truncate(size))
			fs.must(h.Close())
		}
		h := fs.open("append", store.FlagWrite|store.FlagAppend)
		_, err := h.WriteAt([]byte("more"), 0)
		fs.must(err)
		fs.must(h.Close())
		cut("hole", size+100)
		write("empty", "x", 0)
		write("end", "x", size-1)
		cut("cut", 17)
		write("middle", "x", 70_000)
		cut("again", 5) // and what was cut off written as it was, which nobody compares
		write("again", long[5:]+"!", 5)
		fs.must(fs.Rename("moved", "new"))
		fs.write("replaced", long[:9]+"else")
		fs.must(fs.Rename("other", "replaced")) // its like: no change there
		list, err := fs.tx.Changes()
		fs.must(err)
		var got []string
		for _, c := range list {
			got = append(got, fmt.Sprint(c.Path, " ", c.Intact, " ", c.Appended, " ", c.From))
		}
		if want := []string{
			"/again 5 false ", "/append 300000 true ", "/cut 17 false ", "/empty 0 true ", "/end 299999 false ",
			"/hole 300000 true ", "/middle 70000 false ", "/moved 0 false ", "/new 0 false /moved", "/other 0 false ",
		}; !slices.Equal(got, want) {
			fs.Errorf("changes are %q, want %q", got, want)
		}
	})
}

// changesInBetween: what was found equal once may differ later, and the other way
// about; Changes must not remember, nor the commit.
func changesInBetween(st *stage) {
	st.update(func(fs *files) { fs.write("f", "aaa"); fs.write("g", "aaa") })
	st.update(func(fs *files) {
		count := func(want int) {
			fs.Helper()
			if list, err := fs.tx.Changes(); err != nil || len(list) != want {
				fs.Errorf("%d changes, want %d; %v", len(list), want, err)
			}
		}
		f := fs.open("f", store.FlagWrite)
		put := func(s string) {
			_, err := f.WriteAt([]byte(s), 0)
			fs.must(err)
		}
		put("aaa")
		count(0)
		put("bbb")
		count(1)
		put("aaa")
		count(0)
		put("ccc")
		fs.write("g", "bbb")
		count(2)
		fs.write("g", "aaa")
		count(1)
	})
	st.view(func(fs *files) { fs.wantTree(`/f = "ccc"`, `/g = "aaa"`) })
}

// entries reads the log and checks its chain.
func (st *stage) entries(from uint64) []store.Entry {
	st.Helper()
	var all []store.Entry
	var prev [32]byte
	for e, err := range st.s.Log(context.Background(), 1) {
		if err != nil {
			st.Fatalf("log: %v", err)
		}
		if e.Seq != uint64(len(all))+1 || e.Prev != prev {
			st.Fatalf("entry %d does not follow entry %d", e.Seq, len(all))
		}
		prev = e.Hash()
		all = append(all, e)
	}
	var tail []store.Entry
	for e, err := range st.s.Log(context.Background(), from) {
		if err != nil {
			st.Fatalf("log: %v", err)
		}
		tail = append(tail, e)
	}
	if from = max(from, 1); len(tail) != max(0, len(all)-int(from-1)) || len(tail) > 0 && tail[0].Seq != from {
		st.Errorf("from %d the log has %d entries of %d", from, len(tail), len(all))
	}
	return tail
}

func logChain(st *stage) {
	start := time.Now().Add(-time.Second)
	if got := st.entries(0); len(got) != 0 {
		st.Fatalf("new log has entries: %v", got)
	}
	data := []byte("one")
	st.update(func(fs *files) {
		fs.must(fs.tx.Append(store.Key{1}, data))
		data[0] = 'X' // the store has its own copy
		fs.want(store.ErrExists, fs.tx.Append(store.Key{1}, []byte("twice")))
		fs.must(fs.tx.Append(store.Key{2}, []byte("two")))
		if _, ok, _ := st.s.Entry(context.Background(), store.Key{1}); ok {
			fs.Error("the entry is there before its commit")
		}
	})
	st.update(func(fs *files) {
		fs.want(store.ErrExists, fs.tx.Append(store.Key{2}, []byte("again")))
		fs.must(fs.tx.Append(store.Key{3}, nil))
		fs.want(store.ErrTooBig, fs.tx.Append(store.Key{4}, make([]byte, 16<<20+1)))
		fs.write("f", "with a file")
	})
	for i, want := range []string{"one", "two", ""} {
		e, ok, err := st.s.Entry(context.Background(), store.Key{byte(i + 1)})
		if err != nil || !ok || string(e.Data) != want || e.Seq != uint64(i)+1 || e.Key != (store.Key{byte(i + 1)}) {
			st.Errorf("entry %d: %+v, %v, %v", i+1, e, ok, err)
		}
		if e.Time.Before(start) || e.Time.After(time.Now().Add(time.Second)) || e.Time.Location() != time.UTC {
			st.Errorf("entry %d is of %v", i+1, e.Time)
		}
		clear(e.Data) // nobody's but the caller's
	}
	if e, ok, err := st.s.Entry(context.Background(), store.Key{9}); ok || err != nil {
		st.Errorf("unknown key: %+v, %v", e, err)
	}
	if got := st.entries(2); len(got) != 2 || !bytes.Equal(got[0].Data, []byte("two")) {
		st.Errorf("from 2: %+v", got)
	}
	st.entries(4)
	st.entries(1 << 63)
	for range st.s.Log(context.Background(), 1) {
		break
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, err := range st.s.Log(ctx, 1) {
		if !errors.Is(err, context.Canceled) {
			st.Errorf("log with a cancelled context: %v", err)
		}
	}
}

func appendInView(st *stage) {
	st.view(func(fs *files) { fs.must(fs.tx.Append(store.Key{1}, []byte("seen"))) })
	if _, ok, err := st.s.Entry(context.Background(), store.Key{1}); !ok || err != nil {
		st.Errorf("entry of a view: %v, %v", ok, err)
	}
	stop := errors.New("stop")
	err := st.s.View(context.Background(), func(tx store.Tx) error {
		if err := tx.Append(store.Key{2}, nil); err != nil {
			return err
		}
		return stop
	})
	if _, ok, _ := st.s.Entry(context.Background(), store.Key{2}); ok || !errors.Is(err, stop) {
		st.Errorf("a view that failed left its entry; %v", err)
	}
	// Two transactions append one key: the first to end has it.
	err = st.s.Update(context.Background(), func(tx store.Tx) error {
		if err := tx.Append(store.Key{3}, []byte("update")); err != nil {
			return err
		}
		fs := &files{st.T, tx.Files(nil), tx}
		fs.write("f", "x")
		return st.s.View(context.Background(), func(tx store.Tx) error { return tx.Append(store.Key{3}, []byte("view")) })
	})
	if !errors.Is(err, store.ErrExists) {
		st.Errorf("the second to append a key got %v", err)
	}
	st.view(func(fs *files) { fs.wantTree() })
	st.entries(1)
}

func waitsEnd(st *stage) {
	started, stop := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		st.s.Update(context.Background(), func(store.Tx) error { close(started); <-stop; return nil })
	})
	<-started
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := st.s.Update(ctx, func(store.Tx) error { st.Error("two updates ran at once"); return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		st.Errorf("waiting update: %v", err)
	}
	close(stop)
	wg.Wait()

	// A commit beside a view that does not end waits no longer than its context
	// lasts, or, where states can be held, not at all; the view does not see it.
	started, stop = make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		st.s.View(context.Background(), func(tx store.Tx) error {
			fs := &files{st.T, tx.Files(nil), tx}
			close(started)
			<-stop
			fs.wantTree()
			return nil
		})
	})
	<-started
	ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err = st.s.Update(ctx, func(tx store.Tx) error { return tx.Files(nil).Mkdir("d") })
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		st.Errorf("commit beside a view: %v", err)
	}
	committed := err == nil
	st.view(func(fs *files) {
		if committed {
			fs.wantTree("/d/")
		} else {
			fs.wantTree()
		}
	})
	close(stop)
	wg.Wait()
	st.update(func(fs *files) { fs.mkdir("e") })
}

func closeWaits(st *stage) {
	started, stop := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := st.s.Update(context.Background(), func(tx store.Tx) error {
			close(started)
			<-stop
			return tx.Files(nil).Mkdir("d")
		}); err != nil {
			st.Errorf("update at closing time: %v", err)
		}
	})
	<-started
	closed := make(chan error)
	go func() { closed <- st.s.Close() }()
	select {
	case <-closed:
		st.Error("closed under a transaction")
	case <-time.After(20 * time.Millisecond):
	}
	close(stop)
	if err := <-closed; err != nil {
		st.Errorf("close: %v", err)
	}
	wg.Wait()
	none := func(store.Tx) error { st.Error("a transaction ran after Close"); return nil }
	if err := st.s.View(context.Background(), none); !errors.Is(err, store.ErrClosed) {
		st.Errorf("view after close: %v", err)
	}
	if err := st.s.Update(context.Background(), none); !errors.Is(err, store.ErrClosed) {
		st.Errorf("update after close: %v", err)
	}
	if _, _, err := st.s.Entry(context.Background(), store.Key{1}); !errors.Is(err, store.ErrClosed) {
		st.Errorf("entry after close: %v", err)
	}
	if err := st.s.Close(); err != nil {
		st.Errorf("second close: %v", err)
	}
}

// concurrency: writers add to two files what must stay equal; readers check.
func concurrency(st *stage) {
	st.update(func(fs *files) { fs.write("a", ""); fs.write("b", "") })
	const writers, rounds = 3, 8
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				if err := st.s.Update(context.Background(), func(tx store.Tx) error {
					for _, p := range []string{"a", "b"} {
						h, err := tx.Files(nil).Open(p, store.FlagWrite|store.FlagAppend)
						if err != nil {
							return err
						}
						if _, err := h.WriteAt([]byte("x"), 0); err != nil {
							return err
						}
					}
					return tx.Append(store.Key{byte(w), byte(i)}, nil)
				}); err != nil {
					st.Errorf("update: %v", err)
				}
			}
		})
		wg.Go(func() {
			for i := range rounds {
				if err := st.s.View(context.Background(), func(tx store.Tx) error {
					fs := &files{st.T, tx.Files(nil), tx}
					a, err := fs.Stat("a", true)
					if err != nil {
						return err
					}
					b, err := fs.Stat("b", true)
					if err != nil {
						return err
					}
					if a.Size != b.Size {
						return fmt.Errorf("torn state: %d and %d bytes", a.Size, b.Size)
					}
					return tx.Append(store.Key{0xff, byte(w), byte(i)}, nil)
				}); err != nil {
					st.Errorf("view: %v", err)
				}
			}
		})
	}
	wg.Wait()
	st.view(func(fs *files) {
		if n := len(fs.read("a")); n != writers*rounds {
			fs.Errorf("%d writes of %d", n, writers*rounds)
		}
	})
	if n := len(st.entries(1)); n != 2*writers*rounds {
		st.Errorf("%d entries of %d", n, 2*writers*rounds)
	}
}

func kept(st *stage) {
	st.update(func(fs *files) {
		fs.mkdir("d")
		fs.write("d/f", "kept")
		fs.must(fs.Symlink("d/f", "l"))
		fs.must(fs.tx.Append(store.Key{1}, []byte("one")))
	})
	st.view(func(fs *files) { fs.must(fs.tx.Append(store.Key{2}, []byte("two"))) })
	before := st.entries(1)
	st.reopen()
	st.view(func(fs *files) { fs.wantTree("/d/", `/d/f = "kept"`, "/l -> d/f") })
	after := st.entries(1)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		st.Errorf("the log was %v and is %v", before, after)
	}
	if e, ok, err := st.s.Entry(context.Background(), store.Key{2}); !ok || err != nil || string(e.Data) != "two" {
		st.Errorf("entry: %+v, %v, %v", e, ok, err)
	}
	st.update(func(fs *files) {
		fs.want(store.ErrExists, fs.tx.Append(store.Key{1}, nil))
		fs.must(fs.tx.Append(store.Key{3}, nil))
	})
	st.reopen()
	if n := len(st.entries(1)); n != 3 {
		st.Errorf("%d entries", n)
	}
}
