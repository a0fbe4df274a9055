package overlay_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
	"github.com/circles-host/circles/host/store/storetest"
)

// TestSmallCache: what is kept in memory changes nothing that a script sees.
func TestSmallCache(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			storetest.Run(t, func(*testing.T) store.Store {
				return mem.New(mem.Config{Limits: overlay.Limits{}.WithCache(n, 0)})
			})
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, target, err error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
}

func update(t testing.TB, s store.Store, f func(tx store.Tx, fs store.FS)) {
	t.Helper()
	must(t, s.Update(context.Background(), func(tx store.Tx) error { f(tx, tx.Files(nil)); return nil }))
}

func create(fs store.FS, path string) error {
	f, err := fs.Open(path, store.FlagWrite|store.FlagCreate)
	if err != nil {
		return err
	}
	return f.Close()
}

const rwc = store.FlagRead | store.FlagWrite | store.FlagCreate

func TestFileSize(t *testing.T) {
	s := mem.New(mem.Config{Limits: overlay.Limits{FileSize: 100}})
	update(t, s, func(_ store.Tx, fs store.FS) {
		f, err := fs.Open("f", rwc)
		must(t, err)
		_, err = f.WriteAt(make([]byte, 100), 0)
		must(t, err)
		_, err = f.WriteAt([]byte{1}, 100)
		want(t, store.ErrTooBig, err)
		_, err = f.WriteAt(make([]byte, 2), 99)
		want(t, store.ErrTooBig, err)
		_, err = f.WriteAt(make([]byte, 2), 1<<63-2)
		want(t, store.ErrTooBig, err)
		want(t, store.ErrTooBig, f.Truncate(101))
		a, err := fs.Open("f", store.FlagWrite|store.FlagAppend)
		must(t, err)
		_, err = a.WriteAt([]byte{1}, 0)
		want(t, store.ErrTooBig, err)
		if i, err := f.Stat(); err != nil || i.Size != 100 {
			t.Errorf("%+v, %v", i, err)
		}
	})
}

// TestStagedBytes: what is removed but open stays charged, or a script could hold
// any amount in files without names.
func TestStagedBytes(t *testing.T) {
	s := mem.New(mem.Config{Limits: overlay.Limits{StagedBytes: 100}})
	update(t, s, func(tx store.Tx, fs store.FS) {
		f, err := fs.Open("f", rwc)
		must(t, err)
		_, err = f.WriteAt(make([]byte, 60), 0)
		must(t, err)
		must(t, fs.Unlink("f"))
		g, err := fs.Open("f", rwc)
		must(t, err)
		_, err = g.WriteAt(make([]byte, 41), 0)
		want(t, store.ErrQuota, err)
		want(t, store.ErrQuota, g.Truncate(41))
		_, err = g.WriteAt(make([]byte, 40), 0)
		must(t, err)
		must(t, f.Close())
		must(t, g.Truncate(100))
		must(t, g.Truncate(10))
		must(t, g.Close())
		if _, staged, _ := overlay.Charged(tx); staged != 10 {
			t.Errorf("%d bytes are charged", staged)
		}
	})
	// A copy of what was there counts, from the first write on.
	update(t, s, func(tx store.Tx, fs store.FS) {
		f, err := fs.Open("f", rwc)
		must(t, err)
		if _, staged, _ := overlay.Charged(tx); staged != 0 {
			t.Errorf("%d bytes are charged for opening", staged)
		}
		_, err = f.WriteAt([]byte{1}, 0)
		must(t, err)
		if _, staged, _ := overlay.Charged(tx); staged != 10 {
			t.Errorf("%d bytes are charged for a copy", staged)
		}
	})
}

func TestEntries(t *testing.T) {
	s := mem.New(mem.Config{Limits: overlay.Limits{Entries: 10}})
	update(t, s, func(tx store.Tx, fs store.FS) {
		for i := range 10 {
			must(t, fs.Mkdir(fmt.Sprint(i)))
		}
		want(t, store.ErrQuota, fs.Mkdir("x"))
		want(t, store.ErrQuota, create(fs, "x"))
		want(t, store.ErrQuota, fs.Symlink("x", "x"))
		must(t, fs.Rename("0", "y"))
		// Temporary files come and go without end.
		must(t, fs.Rmdir("y"))
		for i := range 50 {
			must(t, create(fs, fmt.Sprint("tmp", i)))
			must(t, fs.Unlink(fmt.Sprint("tmp", i)))
		}
		must(t, fs.Mkdir("0"))
	})
	update(t, s, func(tx store.Tx, fs store.FS) {
		for i := range 10 { // what was there counts when it goes, is moved or written
			must(t, fs.Rename(fmt.Sprint(i), fmt.Sprint("r", i)))
		}
		want(t, store.ErrQuota, fs.Mkdir("x"))
		must(t, fs.Rename("r0", "0")) // and no more when it is back
		must(t, create(fs, "x"))
		want(t, store.ErrQuota, fs.Rename("0", "r0"))
		for i := 1; i < 10; i++ {
			must(t, fs.Rmdir(fmt.Sprint("r", i)))
		}
		want(t, store.ErrQuota, fs.Rmdir("0"))
		want(t, store.ErrQuota, fs.SetTimes("0", true, time.Now(), time.Now()))
	})
	// Many changes of one file are one.
	update(t, s, func(tx store.Tx, fs store.FS) {
		for i := range 50 {
			f, err := fs.Open("x", store.FlagWrite|store.FlagTruncate)
			must(t, err)
			_, err = f.WriteAt([]byte{byte(i)}, 0)
			must(t, err)
			must(t, f.Close())
		}
		if n, _, _ := overlay.Charged(tx); n != 1 {
			t.Errorf("%d entries are charged", n)
		}
	})
}

func TestOpenFiles(t *testing.T) {
	s := mem.New(mem.Config{Limits: overlay.Limits{OpenFiles: 3}})
	update(t, s, func(_ store.Tx, fs store.FS) {
		var open []store.File
		for range 3 {
			f, err := fs.Open("f", rwc)
			must(t, err)
			open = append(open, f)
		}
		_, err := fs.Open("f", store.FlagRead)
		want(t, store.ErrTooManyOpen, err)
		_, err = fs.Open("/", store.FlagRead)
		want(t, store.ErrTooManyOpen, err)
		_, err = fs.Open("new", rwc)
		want(t, store.ErrTooManyOpen, err)
		if _, err := fs.Stat("new", true); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("a file that could not be opened was made: %v", err)
		}
		must(t, open[0].Close())
		_, err = fs.Open("f", store.FlagRead)
		must(t, err)
	})
}

// TestListed: four hundred handles on a large directory held a gigabyte of
// listings.
func TestListed(t *testing.T) {
	s := mem.New(mem.Config{Limits: overlay.Limits{Listed: 25}})
	update(t, s, func(tx store.Tx, fs store.FS) {
		for i := range 10 {
			must(t, create(fs, fmt.Sprint(i)))
		}
		list := func() (store.File, error) {
			d, err := fs.Open("/", store.FlagRead)
			must(t, err)
			_, err = d.ReadDir(0, 1)
			return d, err
		}
		a, err := list()
		must(t, err)
		_, err = list()
		must(t, err)
		c, err := list()
		want(t, store.ErrQuota, err)
		must(t, a.Close())
		_, err = c.ReadDir(0, 1)
		must(t, err)
		for range 100 { // beginning again does not add up
			_, err = c.ReadDir(0, 1)
			must(t, err)
		}
		if _, _, listed := overlay.Charged(tx); listed != 20 {
			t.Errorf("%d entries are charged", listed)
		}
	})
	update(t, s, func(_ store.Tx, fs store.FS) {
		for i := range 20 {
			must(t, create(fs, fmt.Sprint("more", i)))
		}
		d, err := fs.Open("/", store.FlagRead)
		must(t, err)
		_, err = d.ReadDir(0, 1)
		want(t, store.ErrQuota, err)
	})
}

func TestMoved(t *testing.T) {
	for _, committed := range []bool{false, true} {
		s := mem.New(mem.Config{Limits: overlay.Limits{Moved: 10}})
		asked := 0
		guard := guardFunc(func(store.Op, string) error { asked++; return nil })
		setup := func(_ store.Tx, fs store.FS) {
			must(t, fs.Mkdir("d"))
			must(t, fs.Mkdir("d/sub"))
			for i := range 9 {
				must(t, create(fs, fmt.Sprint("d/sub/", i)))
			}
		}
		test := func(tx store.Tx, fs store.FS) {
			must(t, fs.Rename("d", "e"))
			must(t, fs.Mkdir("e/one-more"))
			want(t, store.ErrQuota, tx.Files(guard).Rename("e", "f"))
			if asked > 50 {
				t.Errorf("the guard was asked %d times", asked)
			}
			must(t, tx.Files(guard).Rename("e/sub", "f"))
		}
		if committed {
			update(t, s, setup)
			update(t, s, test)
		} else {
			update(t, s, func(tx store.Tx, fs store.FS) { setup(tx, fs); test(tx, fs) })
		}
	}
	// What moves counts as changed, for Changes lists it; moved again, no more.
	s := mem.New(mem.Config{Limits: overlay.Limits{Entries: 50}})
	update(t, s, func(_ store.Tx, fs store.FS) {
		must(t, fs.Mkdir("d"))
		for i := range 20 {
			must(t, create(fs, fmt.Sprint("d/", i)))
		}
	})
	update(t, s, func(tx store.Tx, fs store.FS) {
		for i := range 20 {
			must(t, fs.Rename("d", "e"))
			must(t, fs.Rename("e", "d"))
			must(t, fs.Rename("d", fmt.Sprint("d", i)))
			must(t, fs.Rename(fmt.Sprint("d", i), "d"))
		}
		if n, _, _ := overlay.Charged(tx); n != 0 {
			t.Errorf("%d entries are charged", n)
		}
	})
}

func TestRecords(t *testing.T) {
	s := mem.New(mem.Config{Limits: overlay.Limits{Records: 2, RecordBytes: 10}})
	update(t, s, func(tx store.Tx, _ store.FS) {
		want(t, store.ErrTooBig, tx.Append(store.Key{1}, make([]byte, 11)))
		must(t, tx.Append(store.Key{1}, make([]byte, 10)))
		must(t, tx.Append(store.Key{2}, nil))
		want(t, store.ErrQuota, tx.Append(store.Key{3}, nil))
	})
}

// TestNodes: looking at many files keeps nothing; changing many directories ends.
func TestNodes(t *testing.T) {
	s := mem.New(mem.Config{Limits: overlay.Limits{}.WithCache(50, 100)})
	for d := range 15 {
		update(t, s, func(_ store.Tx, fs store.FS) {
			must(t, fs.Mkdir(fmt.Sprint(d)))
			for f := range 15 {
				must(t, fs.Mkdir(fmt.Sprint(d, "/", f)))
				must(t, create(fs, fmt.Sprint(d, "/f", f)))
			}
		})
	}
	update(t, s, func(tx store.Tx, fs store.FS) {
		for d := range 15 {
			for f := range 15 {
				_, err := fs.Stat(fmt.Sprint(d, "/", f, "/none"), true)
				want(t, store.ErrNotExist, err)
				_, err = fs.Stat(fmt.Sprint(d, "/f", f), true)
				must(t, err)
				h, err := fs.Open(fmt.Sprint(d, "/f", f), store.FlagRead)
				must(t, err)
				must(t, h.Close())
			}
		}
		if n := overlay.Kept(tx); n > 50+2 {
			t.Errorf("%d nodes are kept for looking", n)
		}
		var err error
		for i := 0; err == nil && i < 225; i++ {
			err = create(fs, fmt.Sprint(i/15, "/", i%15, "/new"))
		}
		want(t, store.ErrQuota, err)
		if n := overlay.Kept(tx); n > 100 {
			t.Errorf("%d nodes are kept", n)
		}
	})
}

type guardFunc func(op store.Op, path string) error

func (g guardFunc) Allow(op store.Op, path string) error { return g(op, path) }

// counting counts what is asked of a backend.
type counting struct {
	overlay.Backend
	readDirs, lstats atomic.Int64
}

func (c *counting) ReadDir(path string, limit int) ([]overlay.Name, error) {
	c.readDirs.Add(1)
	return c.Backend.ReadDir(path, limit)
}

func (c *counting) Lstat(path string) (overlay.Attr, error) {
	c.lstats.Add(1)
	return c.Backend.Lstat(path)
}

// TestOpenListsNothing: opening, making, moving and removing a name looks at that
// name, however many others its directory has.
func TestOpenListsNothing(t *testing.T) {
	var c *counting
	s := mem.NewOn(mem.Config{}, func(b overlay.Backend) overlay.Backend {
		c = &counting{Backend: b}
		return c
	})
	update(t, s, func(_ store.Tx, fs store.FS) {
		must(t, fs.Mkdir("d"))
		for i := range 2000 {
			must(t, create(fs, fmt.Sprint("d/", i)))
		}
	})
	c.readDirs.Store(0)
	c.lstats.Store(0)
	update(t, s, func(_ store.Tx, fs store.FS) {
		f, err := fs.Open("d/7", store.FlagRead|store.FlagWrite)
		must(t, err)
		_, err = f.WriteAt([]byte("x"), 0)
		must(t, err)
		must(t, f.Close())
		must(t, create(fs, "d/new"))
		must(t, fs.Rename("d/8", "d/eight"))
		must(t, fs.Unlink("d/9"))
		want(t, store.ErrNotEmpty, fs.Rmdir("d"))
	})
	if d, l := c.readDirs.Load(), c.lstats.Load(); d != 0 || l > 20 {
		t.Errorf("%d directories were listed, %d names looked at", d, l)
	}
}

// TestLongWalkEndsWithContext: the deadline of a transaction also ends work that
// one call starts.
func TestLongWalkEndsWithContext(t *testing.T) {
	s := mem.New(mem.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	err := s.Update(ctx, func(tx store.Tx) error {
		fs := tx.Files(nil)
		must(t, fs.Mkdir("d"))
		must(t, fs.Mkdir("d/e"))
		cancel()
		want(t, context.Canceled, fs.Rename("d", "x"))
		return nil
	})
	want(t, context.Canceled, err)
}

// TestDirectoryChurn: a directory moved about and refilled does not make paths
// longer than a path may be.
func TestDirectoryChurn(t *testing.T) {
	s := mem.New(mem.Config{})
	update(t, s, func(_ store.Tx, fs store.FS) {
		name := strings.Repeat("n", 200)
		must(t, fs.Mkdir(name))
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			if err = fs.Mkdir("x"); err != nil {
				break
			}
			if err = fs.Rename(name, "x/"+name); err == nil {
				err = fs.Rename("x", name)
			}
		}
		want(t, store.ErrNameTooLong, err)
		if n > 25 {
			t.Errorf("%d levels of 200 bytes", n)
		}
	})
}

// BenchmarkOpenStatClose is the hot path of a script that reads.
func BenchmarkOpenStatClose(b *testing.B) {
	s := mem.New(mem.Config{})
	update(b, s, func(_ store.Tx, fs store.FS) {
		must(b, fs.Mkdir("a"))
		must(b, fs.Mkdir("a/b"))
		must(b, fs.Mkdir("a/b/c"))
		must(b, create(fs, "a/b/c/f"))
	})
	guard := guardFunc(func(store.Op, string) error { return nil })
	must(b, s.View(context.Background(), func(tx store.Tx) error {
		fs := tx.Files(guard)
		b.ReportAllocs()
		for b.Loop() {
			f, err := fs.Open("a/b/c/f", store.FlagRead)
			must(b, err)
			_, err = f.Stat()
			must(b, err)
			must(b, f.Close())
		}
		return nil
	}))
}

func TestDepth(t *testing.T) {
	s := mem.New(mem.Config{Limits: overlay.Limits{Depth: 3}})
	update(t, s, func(_ store.Tx, fs store.FS) {
		must(t, fs.Mkdir("a"))
		must(t, fs.Mkdir("a/b"))
		must(t, create(fs, "a/b/f"))
		must(t, fs.Mkdir("a/b/c"))
		want(t, store.ErrNameTooLong, create(fs, "a/b/c/f"))
		want(t, store.ErrNameTooLong, fs.Mkdir("a/b/c/d"))
		_, err := fs.Stat("a/b/c/../c/../f", true) // passing by is not being deep
		must(t, err)
		must(t, fs.Mkdir("x"))
		must(t, fs.Mkdir("x/y"))
		want(t, store.ErrNameTooLong, fs.Rename("x", "a/b/x")) // and what is below it
		must(t, fs.Rename("x/y", "a/y"))

		// Below a directory it is counted from the top.
		h, err := fs.Open("a/b", store.FlagRead|store.FlagDirectory)
		must(t, err)
		b, err := h.Below()
		must(t, err)
		want(t, store.ErrNameTooLong, create(b, "c/f"))
		must(t, create(b, "g"))
	})
}

// TestLimitsOfOneTransaction: it may be given less than the store allows, or
// more.
func TestLimitsOfOneTransaction(t *testing.T) {
	s := mem.New(mem.Config{Limits: overlay.Limits{FileSize: 100, StagedBytes: 150, Entries: 5, OpenFiles: 4, Depth: 4}})
	update(t, s, func(tx store.Tx, fs store.FS) {
		tx.Limit(store.Limits{FileSize: 50, Bytes: 60, Entries: 3, Handles: 2, Depth: 1})
		if l := tx.Limit(store.Limits{}); l.FileSize != 50 || l.Bytes != 60 || l.Entries != 3 || l.Handles != 2 || l.Depth != 1 || l.Listed == 0 {
			t.Errorf("in force are %+v", l)
		}
		f, err := fs.Open("f", rwc)
		must(t, err)
		want(t, store.ErrTooBig, f.Truncate(51))
		must(t, f.Truncate(50))
		g, err := fs.Open("g", rwc)
		must(t, err)
		want(t, store.ErrQuota, g.Truncate(11))
		_, err = fs.Open("f", store.FlagRead)
		want(t, store.ErrTooManyOpen, err)
		must(t, fs.Mkdir("d"))
		want(t, store.ErrQuota, fs.Mkdir("e"))
		must(t, g.Close())
		want(t, store.ErrNameTooLong, create(fs, "d/f"))
		must(t, fs.Rmdir("d"))
		must(t, fs.Unlink("g"))
		// The most that there was at once, and not what is left.
		if used := tx.Usage(); used != (store.Usage{Bytes: 50, Entries: 3, Handles: 2}) {
			t.Errorf("used %+v", used)
		}
		// What the host keeps for itself is not the script's to pay for.
		own, err := tx.Private().Open("big", rwc)
		must(t, err)
		must(t, own.Truncate(90))
		must(t, own.Close())
		if used := tx.Usage(); used.Bytes != 50 {
			t.Errorf("used %+v", used)
		}
	})
	// Of this transaction, and no other.
	update(t, s, func(_ store.Tx, fs store.FS) {
		f, err := fs.Open("h", rwc)
		must(t, err)
		want(t, store.ErrTooBig, f.Truncate(101))
		must(t, f.Truncate(100))
	})
	update(t, s, func(tx store.Tx, fs store.FS) {
		tx.Limit(store.Limits{FileSize: 1000, Bytes: 1000, Entries: 1000, Depth: 1000})
		f, err := fs.Open("h", rwc)
		must(t, err)
		must(t, f.Truncate(1000))
		for i := range 128 { // more has no store
			must(t, fs.Mkdir(strings.Repeat("d/", i)+"d"))
		}
		want(t, store.ErrNameTooLong, fs.Mkdir(strings.Repeat("d/", 128)+"d"))
	})
}

// bottomless makes up a tree in which each directory holds two more.
type bottomless struct {
	overlay.Backend
	armed *bool
}

func (b bottomless) ReadDir(path string, limit int) ([]overlay.Name, error) {
	if !*b.armed {
		return b.Backend.ReadDir(path, limit)
	}
	return []overlay.Name{{Name: "a", Kind: store.KindDir}, {Name: "b", Kind: store.KindDir}}, nil
}

// TestTreeWithoutBottom: a lower state that goes on for ever, once a directory of
// it was moved, ends what is asked of it.
func TestTreeWithoutBottom(t *testing.T) {
	armed := false
	s := mem.NewOn(mem.Config{}, func(b overlay.Backend) overlay.Backend { return bottomless{b, &armed} })
	update(t, s, func(_ store.Tx, fs store.FS) { must(t, fs.Mkdir("d")) })
	update(t, s, func(tx store.Tx, fs store.FS) {
		must(t, fs.Rename("d", "e"))
		armed = true
		_, err := tx.Changes()
		want(t, store.ErrQuota, err)
		want(t, store.ErrNameTooLong, fs.Rename("e", "f")) // the depth, first
		armed = false
	})
}
