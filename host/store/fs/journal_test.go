//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// rootOf is a directory with n contexts that share a journal.
func rootOf(t testing.TB, n int) (dir string, contexts []Config, journal JournalConfig) {
	dir = filepath.Dir(memoryConfig(t).Data)
	for i := range n {
		at := filepath.Join(dir, "peers", fmt.Sprint(i))
		contexts = append(contexts, Config{Data: filepath.Join(at, "data"), Log: filepath.Join(at, "log"), Tx: filepath.Join(at, "tx")})
	}
	return dir, contexts, JournalConfig{Dir: filepath.Join(dir, "journal"), Age: time.Hour}
}

func mustJournal(t testing.TB, c JournalConfig) *Journal {
	t.Helper()
	j, err := OpenJournal(c)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// set writes a file and logs it.
func set(s store.Store, path, content string) error {
	return s.Update(context.Background(), func(tx store.Tx) error {
		var key store.Key
		rand.Read(key[:])
		return first(write(tx.Files(nil), path, content), tx.Append(key, []byte(content)))
	})
}

// state is the files of a context, with names and contents, and its log.
func state(t *testing.T, s store.Store) string {
	t.Helper()
	var b strings.Builder
	view(t, s, func(fs store.FS) error {
		b.WriteString(tree(t, fs, ""))
		return nil
	})
	for e, err := range s.Log(context.Background(), 1) {
		must(t, err)
		fmt.Fprintf(&b, "%d %s\n", e.Seq, e.Data)
	}
	return b.String()
}

// killed runs f on a context that shares a journal with others, in a process that
// dies before it has applied the last commit.
func killed(t *testing.T, journal JournalConfig, c Config, f func(s store.Store)) {
	t.Helper()
	c.Journal = mustJournal(t, journal)
	armed := false
	stop := make(chan struct{})
	b, err := open(c, hooks{crash: func(step string) error {
		if armed && step == "decided" {
			close(stop)
			select {}
		}
		return nil
	}})
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	f(s)
	armed = true
	go set(s, "last", "decided")
	<-stop
	die(b)
}

// TestTornJournal: a record of which any part is missing or changed was never
// decided, if it is the last one. One that has others behind it was: that is
// damage, and is said.
func TestTornJournal(t *testing.T) {
	_, contexts, journal := rootOf(t, 1)
	c := contexts[0]
	killed(t, journal, c, func(s store.Store) {
		must(t, set(s, "one", "1"))
		must(t, set(s, "two", "2"))
	})
	paths, err := filepath.Glob(filepath.Join(journal.Dir, "*.0"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%v, %v", paths, err)
	}
	whole, err := os.ReadFile(paths[0])
	must(t, err)
	ref, err := os.ReadFile(filepath.Join(c.Tx, "journal"))
	must(t, err)
	var starts []int
	for i := 0; ; {
		k := strings.Index(string(whole[i:]), recordMagic)
		if k < 0 {
			break
		}
		starts = append(starts, i+k)
		i += k + 1
	}
	if len(starts) != 3 {
		t.Fatalf("%d records", len(starts))
	}
	end := len(strings.TrimRight(string(whole), "\x00"))
	const before, after = "/one = \"1\" 1\n/two = \"2\" 1\n1 1\n2 2\n", "/last = \"decided\" 7\n/one = \"1\" 1\n/two = \"2\" 1\n1 1\n2 2\n3 decided\n"
	try := func(what string, b []byte, wantDamage bool, want ...string) {
		t.Helper()
		// Opening ends the journal; it is put back, and so is what the opening
		// before has made.
		must(t, os.WriteFile(paths[0], b, 0o600))
		must(t, os.WriteFile(filepath.Join(c.Tx, "journal"), ref, 0o600))
		for _, name := range []string{"last"} {
			os.Remove(filepath.Join(c.Data, name))
		}
		cutLog(t, c, 2)
		s, err := Open(c)
		var damage *JournalDamageError
		if wantDamage {
			if !errors.As(err, &damage) || damage.File != paths[0] {
				t.Fatalf("%s: %v, want damage", what, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer s.Close()
		if got := state(t, s); !slices.Contains(want, got) {
			t.Fatalf("%s: there is\n%s", what, got)
		}
	}
	try("whole", whole, false, after)
	last := starts[2]
	for at := last; at < end; at += 1 + (end-last)/60 {
		// Whether its applied mark is set matters not to whether it was decided.
		if at != last+frameFlag {
			flipped := slices.Clone(whole)
			flipped[at] ^= 0x10
			try(fmt.Sprintf("last record flipped at %d", at-last), flipped, false, before)
		}
		try(fmt.Sprintf("last record cut at %d", at-last), whole[:at], false, before)
		zeros := slices.Clone(whole)
		clear(zeros[at:])
		try(fmt.Sprintf("last record zero from %d", at-last), zeros, false, before)
	}
	for at := starts[0]; at < last; at += 1 + (last-starts[0])/60 {
		if at == starts[0]+frameFlag || at == starts[1]+frameFlag {
			continue
		}
		flipped := slices.Clone(whole)
		flipped[at] ^= 0x10
		try(fmt.Sprintf("flipped at %d", at), flipped, true)
	}
	for at := 0; at < headFields; at++ {
		flipped := slices.Clone(whole)
		flipped[at] ^= 0x10
		try(fmt.Sprintf("head flipped at %d", at), flipped, true)
	}
}

// cutLog cuts a log to its first n entries.
func cutLog(t *testing.T, c Config, n int) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(c.Log, "*.log"))
	must(t, err)
	if len(segments) != 1 {
		t.Fatalf("segments: %v", segments)
	}
	b, err := os.ReadFile(segments[0])
	must(t, err)
	r := strings.NewReader(string(b[len(logMagic):]))
	for range n {
		if _, err := readFrame(r, int64(r.Len())); err != nil {
			t.Fatal(err)
		}
	}
	must(t, os.Truncate(segments[0], int64(len(b)-r.Len())))
}

// TestContextsShareAJournal: many contexts commit at once, and far fewer times is
// the disk waited for than they commit.
func TestContextsShareAJournal(t *testing.T) {
	const n, each = 32, 20
	_, contexts, journal := rootOf(t, n)
	var waits atomic.Int64
	j, err := openJournal(journal, disk{before: func(op diskOp) error {
		if op.what == "sync" { // as long as a disk takes
			waits.Add(1)
			time.Sleep(2 * time.Millisecond)
		}
		return nil
	}})
	must(t, err)
	var wg sync.WaitGroup
	for i, c := range contexts {
		c.Journal = j
		wg.Go(func() {
			s, err := Open(c)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for k := range each {
				if err := set(s, fmt.Sprint("f", k%3), fmt.Sprint(i, k)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left, err := os.ReadDir(journal.Dir); err != nil || len(left) > 0 {
		t.Errorf("when all contexts are closed the journal holds %v, %v", left, err)
	}
	must(t, j.Close())
	if waits.Load() > n*each/2 {
		t.Errorf("%d commits waited %d times", n*each, waits.Load())
	}
	for i, c := range contexts {
		s := mustOpen(t, c)
		want := fmt.Sprintf("%d %d", i, each-1)
		view(t, s, func(fs store.FS) error {
			if got, err := read(fs, fmt.Sprint("f", (each-1)%3)); got != want || err != nil {
				t.Errorf("context %d holds %q, %v", i, got, err)
			}
			return nil
		})
	}
}

// TestClosedContextIsComplete: what is needed of a closed context is in its own
// directory, which can be moved and read by itself. The context of a process that
// died is complete with its journal, wherever it was moved to.
func TestClosedContextIsComplete(t *testing.T) {
	dir, contexts, journal := rootOf(t, 2)
	c := contexts[0]
	c.Journal = mustJournal(t, journal)
	s := mustOpen(t, c)
	must(t, set(s, "f", "closed"))
	if _, ok, err := readReference(c.Tx); !ok || err != nil {
		t.Errorf("while it is open, it does not refer to the journal: %v", err)
	}
	must(t, s.Close())
	if _, ok, err := readReference(c.Tx); ok || err != nil {
		t.Errorf("closed, it refers to a journal: %v", err)
	}
	must(t, c.Journal.Close())
	must(t, os.RemoveAll(journal.Dir))
	moved := filepath.Join(dir, "moved")
	must(t, os.Rename(filepath.Dir(c.Data), moved))
	at := func(dir string) Config {
		return Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")}
	}
	s = mustOpen(t, at(moved))
	if got := state(t, s); got != "/f = \"closed\" 6\n1 closed\n" {
		t.Errorf("there is\n%s", got)
	}

	c = contexts[1]
	killed(t, journal, c, func(s store.Store) { must(t, set(s, "f", "x")) })
	moved = filepath.Join(dir, "elsewhere", "and", "deeper")
	must(t, os.MkdirAll(filepath.Dir(moved), 0o700))
	must(t, os.Rename(filepath.Dir(c.Data), moved))
	_, err := Open(at(moved)) // which cannot know where it was before
	if err == nil || !strings.Contains(err.Error(), "put it back") {
		t.Errorf("without its journal: %v", err)
	}
	c = at(moved)
	c.Journal = mustJournal(t, journal) // adopts
	defer c.Journal.Close()
	s = mustOpen(t, c)
	if got, want := state(t, s), "/f = \"x\" 1\n/last = \"decided\" 7\n1 x\n2 decided\n"; got != want {
		t.Errorf("there is\n%s\nwant\n%s", got, want)
	}
}

// TestJournalIsGone: a context whose last commits are in a journal that is not
// there does not open without them, until somebody decides so.
func TestJournalIsGone(t *testing.T) {
	_, contexts, journal := rootOf(t, 1)
	c := contexts[0]
	killed(t, journal, c, func(s store.Store) { must(t, set(s, "f", "x")) })
	must(t, os.Rename(journal.Dir, journal.Dir+"-away"))
	_, err := Open(c)
	if ref := filepath.Join(c.Tx, "journal"); err == nil || !strings.Contains(err.Error(), journal.Dir) || !strings.Contains(err.Error(), "remove "+ref) {
		t.Fatalf("open: %v", err)
	}
	for _, content := range []string{"nonsense", "circles journal v2\n", strings.Repeat("x", 1<<20), oldMagic + strings.Repeat("x", 100)} {
		must(t, os.WriteFile(filepath.Join(c.Tx, "journal"), []byte(content), 0o600))
		if s, err := Open(c); err == nil {
			s.Close()
			t.Errorf("opens with a reference of %.20q", content)
		}
	}
	must(t, os.Remove(filepath.Join(c.Tx, "journal")))
	s := mustOpen(t, c)
	if got := state(t, s); !strings.HasPrefix(got, "/f = \"x\" 1\n") {
		t.Errorf("there is\n%s", got)
	}
	must(t, s.Close())
	// A journal of the version before, which was empty.
	must(t, os.WriteFile(filepath.Join(c.Tx, "journal"), make([]byte, 200), 0o600))
	s = mustOpen(t, c)
	must(t, set(s, "f", "y"))
}

// TestBrokenContextHoldsUpNoOther: of contexts that share a journal one cannot be
// written to any more. The others go on for as long as they like, and it is
// finished when it is opened again, in the same process.
func TestBrokenContextHoldsUpNoOther(t *testing.T) {
	_, contexts, journal := rootOf(t, 2)
	journal.Size = 64 << 10
	j := mustJournal(t, journal)
	var full atomic.Bool
	open2 := func(c Config, h hooks) (store.Store, error) {
		c.Journal = j
		b, err := open(c, h)
		if err != nil {
			return nil, err
		}
		return overlay.New(b, overlay.Config{}), nil
	}
	bad, err := open2(contexts[0], hooks{disk: disk{before: func(op diskOp) error {
		if full.Load() && (op.what == "rename" || op.what == "exchange" || op.what == "sync") {
			return unix.ENOSPC
		}
		return nil
	}}})
	must(t, err)
	good, err := open2(contexts[1], hooks{})
	must(t, err)
	must(t, set(bad, "f", "one"))
	full.Store(true)
	if err := set(bad, "f", "two"); !errors.Is(err, overlay.ErrBroken) {
		t.Fatalf("commit that cannot be applied: %v", err)
	}
	more := func() {
		t.Helper()
		for i := range 300 { // many times the journal's size
			must(t, set(good, "g", strings.Repeat("x", 1000+i)))
		}
	}
	more()
	must(t, bad.Close())
	if s, err := Open(contexts[0]); !errors.Is(err, ErrLocked) {
		if err == nil {
			s.Close()
		}
		t.Errorf("opened with another journal while its own is in use: %v", err)
	}
	more()
	full.Store(false)
	bad, err = open2(contexts[0], hooks{reboot: true})
	must(t, err)
	if got, want := state(t, bad), "/f = \"two\" 3\n1 one\n2 two\n"; got != want {
		t.Errorf("there is\n%s\nwant\n%s", got, want)
	}
	more()
	must(t, set(bad, "f", "three"))
	must(t, bad.Close())
	must(t, good.Close())
	must(t, j.Close())
	if left, _ := os.ReadDir(journal.Dir); len(left) > 0 {
		t.Errorf("left in the journal: %v", left)
	}
}

// TestBackPressure: while the disk does not come to make commits durable in their
// place, the journal does not grow without bound, and who waits for room waits no
// longer than it may.
func TestBackPressure(t *testing.T) {
	_, contexts, journal := rootOf(t, 1)
	journal.Size = 100 << 10
	held := make(chan struct{})
	var hold atomic.Bool
	d := disk{before: func(op diskOp) error {
		if hold.Load() && op.what == "sync" {
			if path, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", op.file)); strings.Contains(path, "/data") {
				<-held
			}
		}
		return nil
	}}
	c := contexts[0]
	c.Journal = mustJournal(t, journal)
	b, err := open(c, hooks{disk: d})
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	must(t, set(s, "f", "first"))
	hold.Store(true)
	for i := 0; ; i++ {
		if i == 1000 {
			t.Fatal("the journal takes everything")
		}
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		err := s.Update(ctx, func(tx store.Tx) error { return write(tx.Files(nil), "f", strings.Repeat("x", 5000+i)) })
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		must(t, err)
	}
	files, _ := filepath.Glob(filepath.Join(journal.Dir, "*"))
	for _, f := range files {
		if i, err := os.Stat(f); err != nil || i.Size() > 2*journal.Size {
			t.Errorf("%s has %d bytes, %v", f, i.Size(), err)
		}
	}
	hold.Store(false)
	close(held)
	must(t, set(s, "f", "last"))
	must(t, s.Close())
	s = mustOpen(t, contexts[0])
	if got := state(t, s); got != "/f = \"last\" 4\n1 first\n2 last\n" {
		t.Errorf("there is\n%s", got)
	}
}

// TestJournalSyncFails: when nobody can say what the journal has on the disk,
// nothing is committed to it any more, and nothing is tried again: the kernel
// forgets what it could not write. Opened again, a context knows, and goes on in
// another journal.
func TestJournalSyncFails(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EROFS} {
		_, contexts, journal := rootOf(t, 2)
		var bad atomic.Bool
		failed := map[uint64]int{}
		j, err := openJournal(journal, disk{before: func(op diskOp) error {
			if bad.Load() && op.what == "sync" {
				var st unix.Stat_t
				_ = unix.Fstat(op.file, &st)
				failed[st.Ino]++ // syncs of a journal do not overlap
				return errno
			}
			return nil
		}})
		must(t, err)
		var stores []store.Store
		for i := range contexts {
			contexts[i].Journal = j
			stores = append(stores, mustOpen(t, contexts[i]))
			must(t, set(stores[i], "f", "one"))
		}
		bad.Store(true)
		for range 3 {
			for _, s := range stores {
				if err := set(s, "f", "two"); !errors.Is(err, overlay.ErrBroken) {
					t.Errorf("%v: commit: %v", errno, err)
				}
			}
		}
		for ino, n := range failed {
			if n != 1 {
				t.Errorf("%v: file %d was synced %d times after it could not be", errno, ino, n)
			}
		}
		bad.Store(false)
		for i, s := range stores {
			must(t, s.Close())
			s = mustOpen(t, contexts[i])
			if got := state(t, s); got != "/f = \"one\" 3\n1 one\n" && got != "/f = \"two\" 3\n1 one\n2 two\n" {
				t.Errorf("%v: there is\n%s", errno, got)
			}
			must(t, set(s, "f", "three"))
			must(t, s.Close())
		}
		must(t, j.Close())
	}
}

// TestDiskRefuses lets the disk refuse one operation after the other of a commit:
// each leaves the state before, and a store that goes on, or says that it is
// broken, and leaves the state after when it is opened again.
func TestDiskRefuses(t *testing.T) {
	for _, name := range []string{"files", "swap", "moved and edited", "kinds"} {
		for _, errno := range []unix.Errno{unix.ENOSPC, unix.EIO, unix.EROFS} {
			var before, after string
			broken, refused := 0, 0
			for at := 0; ; at++ {
				c := memoryConfig(t)
				n, armed, decided := 0, false, false
				var mu sync.Mutex
				note := func(step string) error {
					decided = decided || armed && step == "decided"
					return nil
				}
				b, err := open(c, hooks{age: time.Hour, crash: note, disk: disk{before: func(diskOp) error {
					mu.Lock()
					defer mu.Unlock()
					if armed {
						if n++; at > 0 && n >= at && n < at+3 {
							return errno
						}
					}
					return nil
				}}})
				must(t, err)
				s := overlay.New(b, overlay.Config{})
				must(t, s.Update(context.Background(), seed))
				if before == "" {
					before = state(t, s)
				}
				armed = true
				err = s.Update(context.Background(), commits[name])
				armed = false
				switch {
				case errors.Is(err, overlay.ErrBroken):
					broken++
				case err != nil:
					refused++
					if got := state(t, s); got != before {
						t.Fatalf("%s, %v at %d: %v, but there is\n%s", name, errno, at, err, got)
					}
					must(t, s.Update(context.Background(), commits[name]))
				}
				if at > 0 && n < at {
					s.Close()
					break
				}
				if after == "" {
					after = state(t, s)
				}
				s.Close()
				again, oerr := open(c, hooks{reboot: at%2 == 0})
				must(t, oerr)
				s = overlay.New(again, overlay.Config{})
				if got := state(t, s); got != after && (got != before || decided) {
					t.Fatalf("%s, %v at %d: %v, and opened again there is\n%s\nwant\n%s", name, errno, at, err, got, after)
				}
				s.Close()
			}
			if broken == 0 || refused == 0 {
				t.Errorf("%s, %v: broken %d times, refused %d times: the test tests little", name, errno, broken, refused)
			}
		}
	}
}

// TestGrow: a large file that a script appends to is not copied, and the owner's
// inode stays.
func TestGrow(t *testing.T) {
	const size = 300 << 10
	big := strings.Repeat("0123456789abcdef", size/16)
	grow := func(s store.Store, what string) error {
		return s.Update(context.Background(), func(tx store.Tx) error {
			f, err := tx.Files(nil).Open("big", store.FlagRead|store.FlagWrite|store.FlagAppend)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte(what), 0); err != nil {
				return err
			}
			got := make([]byte, 8+len(what))
			if n, err := f.ReadAt(got, size-8); n < len(got) || string(got) != "89abcdef"+what {
				t.Errorf("around the old end the script reads %q, %v", got[:n], err)
			}
			return tx.Append(store.Key{1}, []byte(what))
		})
	}
	for name, tc := range map[string]struct {
		owner   func(path string) error // before the commit
		inPlace bool
	}{
		"in place":  {func(string) error { return nil }, true},
		"hard link": {func(p string) error { return os.Link(p, filepath.Join(filepath.Dir(filepath.Dir(p)), "outside")) }, false},
		"set-uid":   {func(p string) error { return os.Chmod(p, 0o755|os.ModeSetuid) }, false},
	} {
		c := memoryConfig(t)
		s := mustOpen(t, c)
		path := filepath.Join(c.Data, "big")
		must(t, os.WriteFile(path, []byte(big), 0o644))
		must(t, tc.owner(path))
		var was, is unix.Stat_t
		must(t, unix.Stat(path, &was))
		must(t, grow(s, "more"))
		must(t, unix.Stat(path, &is))
		if b, err := os.ReadFile(path); string(b) != big+"more" || err != nil {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
		if (was.Ino == is.Ino) != tc.inPlace || is.Mode&unix.S_ISUID != 0 {
			t.Errorf("%s: inode %d became %d, mode %o", name, was.Ino, is.Ino, is.Mode)
		}
		if b, err := os.ReadFile(filepath.Join(filepath.Dir(c.Data), "outside")); err == nil && string(b) != big {
			t.Errorf("%s: a file outside has %d bytes", name, len(b))
		}
		if left, _ := os.ReadDir(filepath.Join(c.Tx, "stage")); len(left) > 0 {
			t.Errorf("%s: left in staging: %v", name, left)
		}
	}

	// Again and again: nothing stays open.
	c := memoryConfig(t)
	b, err := open(c, hooks{})
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	must(t, os.WriteFile(filepath.Join(c.Data, "big"), []byte(big), 0o644))
	for i := range 2 * maxBases {
		update(t, s, func(fs store.FS) error {
			f, err := fs.Open("big", store.FlagWrite|store.FlagAppend)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("more"), 0)
			return first(err, f.Close())
		})
		if b.bases != 0 {
			t.Fatalf("after %d commits %d files are held open", i+1, b.bases)
		}
	}
	must(t, s.Close())
	if b, err := os.ReadFile(filepath.Join(c.Data, "big")); len(b) != size+2*maxBases*4 || err != nil {
		t.Errorf("there are %d bytes, %v", len(b), err)
	}

	// The plug at every step; and what the owner may have done, or the disk lost,
	// until it is opened again.
	for name, tc := range map[string]struct {
		meanwhile func(path string) error
		want      string // of the file; and what is beside it
		beside    string
	}{
		"nothing":      {func(string) error { return nil }, big + "more", ""},
		"half of it":   {func(p string) error { return os.WriteFile(p, []byte(big+"mo"), 0o644) }, big + "more", ""},
		"zeros":        {func(p string) error { return first(os.Truncate(p, size), os.Truncate(p, size+3)) }, big + "more", ""},
		"owner's end":  {func(p string) error { return os.WriteFile(p, []byte(big+"own"), 0o644) }, big + "own", "more"},
		"owner's own":  {func(p string) error { return first(os.Remove(p), os.WriteFile(p, []byte("mine"), 0o644)) }, "mine", "more"},
		"owner's edit": {func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("x", size)), 0o644) }, strings.Repeat("x", size), "more"},
		"removed":      {os.Remove, "", "more"},
	} {
		c := memoryConfig(t)
		must(t, os.MkdirAll(c.Data, 0o755))
		path := filepath.Join(c.Data, "big")
		must(t, os.WriteFile(path, []byte(big), 0o644))
		_, stopped := crash(t, c, 4, func(s store.Store) { grow(s, "more") })
		if !stopped {
			t.Fatal("not reached")
		}
		must(t, tc.meanwhile(path))
		s, err := Open(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b, _ := os.ReadFile(path); string(b) != tc.want {
			t.Errorf("%s: %d bytes, ending in %q", name, len(b), b[max(0, len(b)-8):])
		}
		if b, _ := os.ReadFile(path + ".conflict-1"); string(b) != tc.beside {
			t.Errorf("%s: beside it is %.20q", name, b)
		}
		must(t, s.Close())
	}
}

// TestChangeOfLargeFile: what was not copied when a file was opened is read, cut,
// overwritten and moved as if it had been.
func TestChangeOfLargeFile(t *testing.T) {
	c := memoryConfig(t)
	s := mustOpen(t, c)
	const size = 200 << 10
	content := []byte(strings.Repeat("0123456789abcdef", size/16))
	path := filepath.Join(c.Data, "f")
	for name, f := range map[string]func(f store.File, b []byte) []byte{
		"middle": func(f store.File, b []byte) []byte {
			_, err := f.WriteAt([]byte("XYZ"), 1000)
			must(t, err)
			copy(b[1000:], "XYZ")
			return b
		},
		"end, then middle": func(f store.File, b []byte) []byte {
			_, err := f.WriteAt([]byte("end"), size)
			must(t, err)
			_, err = f.WriteAt([]byte("XYZ"), 70_000)
			must(t, err)
			copy(b[70_000:], "XYZ")
			return append(b, "end"...)
		},
		"cut": func(f store.File, b []byte) []byte {
			must(t, f.Truncate(100_000))
			return b[:100_000]
		},
		"cut, then end": func(f store.File, b []byte) []byte {
			must(t, f.Truncate(100_000))
			_, err := f.WriteAt([]byte("end"), 100_010)
			must(t, err)
			return append(append(b[:100_000], make([]byte, 10)...), "end"...)
		},
		"across the end": func(f store.File, b []byte) []byte {
			_, err := f.WriteAt([]byte("across"), size-3)
			must(t, err)
			return append(b[:size-3], "across"...)
		},
		"hole": func(f store.File, b []byte) []byte {
			must(t, f.Truncate(size+5000))
			return append(b, make([]byte, 5000)...)
		},
	} {
		must(t, os.WriteFile(path, content, 0o644))
		var want []byte
		update(t, s, func(fs store.FS) error {
			h, err := fs.Open("f", store.FlagRead|store.FlagWrite)
			if err != nil {
				return err
			}
			want = f(h, slices.Clone(content))
			got := make([]byte, len(want))
			if n, err := h.ReadAt(got, 0); n != len(want) || !slices.Equal(got, want) {
				t.Errorf("%s: the script reads %d bytes of %d, %v", name, n, len(want), err)
			}
			return h.Close()
		})
		if b, err := os.ReadFile(path); !slices.Equal(b, want) || err != nil {
			t.Errorf("%s: there are %d bytes, want %d", name, len(b), len(want))
		}
	}
	// Renamed over another of the same size, which is not what it was made of.
	must(t, os.WriteFile(path, content, 0o644))
	must(t, os.WriteFile(filepath.Join(c.Data, "g"), []byte(strings.Repeat("g", size)), 0o644))
	update(t, s, func(fs store.FS) error {
		h, err := fs.Open("f", store.FlagWrite|store.FlagAppend)
		if err != nil {
			return err
		}
		_, err = h.WriteAt([]byte("end"), 0)
		return first(err, h.Close(), fs.Rename("f", "g"))
	})
	if b, err := os.ReadFile(filepath.Join(c.Data, "g")); string(b) != string(content)+"end" || err != nil {
		t.Errorf("renamed: %d bytes, %v", len(b), err)
	}
}
