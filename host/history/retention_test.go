package history

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// usage is how many files are kept, and how many bytes of them, as it is there.
func (w *world) usage() (names int, bytes int64) {
	w.Helper()
	w.by(func(f *files) {
		private := f.tx.Private()
		buckets, err := list(private, dir)
		if errors.Is(err, store.ErrNotExist) {
			return
		}
		f.must(err)
		for _, b := range buckets {
			in, err := list(private, dir+"/"+b)
			if errors.Is(err, store.ErrNotDir) {
				continue // the sizes
			}
			f.must(err)
			for _, n := range in {
				info, err := private.Stat(dir+"/"+b+"/"+n, false)
				f.must(err)
				names, bytes = names+1, bytes+info.Size
			}
		}
	})
	return names, bytes
}

// believed is what the history believes of that.
func (h *History) believed() (names int, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.names, h.bytes
}

func (w *world) check() {
	w.Helper()
	names, bytes := w.usage()
	if n, b := w.h.believed(); n != names || b != bytes {
		w.Errorf("%d files of %d bytes are kept, and it believes %d of %d", names, bytes, n, b)
	}
}

// reopen has the history find out anew what there is.
func (w *world) reopen() { w.h = New(w.h.config) }

// What is too old goes, as later scripts run, and no sooner.
func TestKeepsForAWhile(t *testing.T) {
	w := newWorld(t, Config{Keep: 24 * time.Hour})
	w.by(func(f *files) { f.write("f", "0") })
	var ids []script.ID
	for i := range 40 { // one an hour
		id, kept := w.script(func(f *files) { f.write("f", fmt.Sprint(i+1)); f.write(fmt.Sprint("g", i), "x") })
		if kept.Why != "" {
			t.Fatal(kept.Why)
		}
		ids = append(ids, id)
		w.now = w.now.Add(time.Hour)
		if i%7 == 0 {
			w.reopen()
		}
	}
	w.script(func(f *files) { f.write("last", "x") }) // nothing goes but with a script
	w.check()
	var notKept *NotKeptError
	if _, err := w.undo(ids[0]); !errors.As(err, &notKept) {
		t.Errorf("undo after 40 hours of 24: %v", err)
	}
	for i := 39; i >= 18; i-- {
		if _, err := w.undo(ids[i]); err != nil {
			t.Fatalf("undo after %d hours of 24: %v", 40-i, err)
		}
	}
	if got := w.tree()["/f"]; !strings.HasPrefix(got, "file 18 ") {
		t.Errorf("f is %q", got)
	}
	// What undos took out is believed to be there until its directory goes.
	w.now = w.now.Add(60 * time.Hour)
	for range 30 {
		w.script(func(f *files) { f.write("last", fmt.Sprint(w.n)) })
	}
	w.check()
}

// The oldest goes when there is no more room, a bounded number of files at a time,
// and what is believed of the rest stays true, also when scripts fail and when it
// is counted anew.
func TestKeepsSoMuch(t *testing.T) {
	const most = 200_000
	w := newWorld(t, Config{Bytes: most})
	w.by(func(f *files) { f.write("f", strings.Repeat("x", 10_000)) })
	var last script.ID
	for i := range 120 {
		id, kept := w.script(func(f *files) { f.write("f", fmt.Sprint(i, strings.Repeat("y", 10_000))) })
		if kept.Why == "" {
			last = id
		} else if kept.Why != "" && !strings.Contains(kept.Why, "no room") {
			t.Fatal(kept.Why)
		}
		if i%10 == 0 {
			w.now = w.now.Add(time.Minute)
		}
		if i%17 == 0 {
			if _, err := w.run(script.ID{255, byte(i)}, func(tx store.Tx) error {
				(&files{t, tx.Files(nil), tx}).write("f", "failed")
				return errors.New("failed")
			}); err == nil {
				t.Fatal("it did not fail")
			}
		}
		if i%23 == 0 {
			w.reopen()
		}
		if _, bytes := w.usage(); bytes > most+most/4 {
			t.Fatalf("%d bytes are kept, of %d", bytes, most)
		}
	}
	w.check()
	if last.IsZero() {
		t.Fatal("nothing was kept")
	}
	w.mustUndo(last)
}

// What cannot be kept is said, and nothing half of it stays.
func TestWhatIsNotKept(t *testing.T) {
	for _, test := range []struct {
		name   string
		config Config
		does   func(*files)
		why    string
	}{
		{"too many", Config{}, func(f *files) {
			for i := range maxChanges + 1 {
				f.write(fmt.Sprint("n", i), "")
			}
		}, "more than 10000 files"},
		{"too much", Config{Bytes: 3 << 20}, func(f *files) { f.must(f.Unlink("long")) }, "replaced or removed 1048592 bytes"},
		{"off", Config{Keep: -1}, func(f *files) { f.write("a", "x") }, "nothing is kept here"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.config)
			w.by(before)
			id, kept := w.script(test.does)
			if !strings.Contains(kept.Why, test.why) {
				t.Errorf("%q, want %q", kept.Why, test.why)
			}
			if names, _ := w.usage(); names > 1 { // the manifest, which says why
				t.Errorf("%d files are kept", names)
			}
			var notKept *NotKeptError
			if _, err := w.undo(id); !errors.As(err, &notKept) {
				t.Errorf("undo: %v", err)
			}
		})
	}
}

// A context that is full: a script may still remove files; it cannot be undone.
func TestContextWithoutRoom(t *testing.T) {
	w := newWorld(t, Config{})
	s := mem.New(mem.Config{Now: func() time.Time { return w.now }})
	s.Bound(store.Quota{Bytes: 1000}, nil)
	t.Cleanup(func() { s.Close() })
	w.s = s
	w.by(func(f *files) { f.write("a", strings.Repeat("a", 20)); f.write("b", strings.Repeat("b", 980)) })
	_, kept := w.script(func(f *files) { f.must(f.Unlink("a")) })
	if kept.Why == "" || !kept.Digest.IsZero() {
		t.Errorf("kept %+v", kept)
	}
	if tree := w.tree(); tree["/a"] != "" || tree["/b"] == "" {
		t.Errorf("files are %q", slices.Collect(maps.Keys(tree)))
	}
	if names, _ := w.usage(); names > 0 {
		t.Errorf("%d files are kept", names)
	}
}

// What somebody put where the history is does not make scripts fail.
func TestHistoryIsInTheWay(t *testing.T) {
	w := newWorld(t, Config{})
	w.by(before)
	w.by(func(f *files) {
		p := &files{t, f.tx.Private(), f.tx}
		p.write(dir, "a file")
	})
	_, kept := w.script(scripts["edits"])
	if kept.Why == "" || kept.Problem == nil {
		t.Errorf("kept %+v", kept)
	}
	w.by(func(f *files) {
		p := &files{t, f.tx.Private(), f.tx}
		p.must(p.Unlink(dir))
		p.must(p.Mkdir(dir))
		p.must(p.Mkdir(dir + "/20200101T000000.000"))
		p.must(p.Mkdir(dir + "/20200101T000000.000/mine"))
		p.write(dir+"/20200101T000000.000/mine/note", "note")
		p.write(dir+"/sizes", "{nonsense")
		p.must(p.Mkdir(dir + "/note"))
	})
	w.reopen()
	for range 3 {
		id, kept := w.script(func(f *files) { f.write("a", fmt.Sprint(w.n)) })
		if kept.Why != "" || kept.Problem != nil {
			t.Fatalf("kept %+v", kept)
		}
		w.mustUndo(id)
	}
	if private := w.private(); private["/history/20200101T000000.000/mine/note"] == "" {
		t.Error("what is not the host's was removed")
	}
}

// An owner's time is theirs to set back.
func TestClockThatGoesBack(t *testing.T) {
	w := newWorld(t, Config{})
	w.by(before)
	var ids []script.ID
	for i := range 6 {
		id, kept := w.script(func(f *files) { f.write("a", fmt.Sprint(i)) })
		if kept.Why != "" {
			t.Fatal(kept.Why)
		}
		ids = append(ids, id)
		w.now = w.now.Add(-90 * time.Minute)
	}
	for _, id := range slices.Backward(ids) {
		w.mustUndo(id)
	}
}

// To keep costs by what a script changed, not by what is kept already: a script
// looks at no more names when there are a thousand times as many.
func TestKeepingDoesNotScan(t *testing.T) {
	w := newWorld(t, Config{})
	w.by(func(f *files) { f.write("f", "0") })
	cost := func() int {
		before := w.looked
		w.script(func(f *files) { f.write("f", fmt.Sprint(w.n, w.now)) })
		return w.looked - before
	}
	cost()
	few := cost()
	for range 200 {
		w.script(func(f *files) { f.write("f", fmt.Sprint(w.now)) })
	}
	if many := cost(); many > few+5 {
		t.Errorf("a script asks the store %d times when little is kept, and %d times when much is", few, many)
	}
}
