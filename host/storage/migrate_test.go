//go:build linux

package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/store"
	ordinary "github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/sqlite"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// table is the backends that keep what they are given on this machine.
func table(between func(store.Store) store.Store) func(string) (Backend, error) {
	wrap := func(s store.Store, err error) (store.Store, error) {
		if err != nil {
			if errors.Is(err, ordinary.ErrLocked) || errors.Is(err, sqlite.ErrLocked) {
				err = fmt.Errorf("%w: %w", ErrInUse, err)
			}
			return nil, err
		}
		return between(s), nil
	}
	remove := func(names ...string) func(context.Context, peer.Entry) error {
		return func(_ context.Context, e peer.Entry) error {
			for _, n := range names {
				if err := os.RemoveAll(filepath.Join(e.Dir, n)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	all := map[string]Backend{
		"fs": {
			Open: func(_ context.Context, e peer.Entry) (store.Store, error) {
				s, err := ordinary.Open(ordinary.Config{Data: filepath.Join(e.Dir, "data"), Log: filepath.Join(e.Dir, "log"), Tx: filepath.Join(e.Dir, "tx")})
				return wrap(s, err)
			},
			Where:  func(e peer.Entry) string { return filepath.Join(e.Dir, "data") },
			Remove: remove("data", "log", "tx"),
		},
		"sqlite": {
			Open: func(_ context.Context, e peer.Entry) (store.Store, error) {
				s, err := sqlite.Open(sqlite.Config{Path: filepath.Join(e.Dir, "context.sqlite")})
				return wrap(s, err)
			},
			Where:  func(e peer.Entry) string { return filepath.Join(e.Dir, "context.sqlite") },
			Remove: remove("context.sqlite", "context.sqlite-wal", "context.sqlite-shm", "context.sqlite-lock"),
		},
	}
	return func(name string) (Backend, error) {
		b, ok := all[name]
		if !ok {
			return b, fmt.Errorf("there is no backend %q", name)
		}
		return b, nil
	}
}

func plain(s store.Store) store.Store { return s }

// newPeer makes a context in memory, as far as there is such a directory.
func newPeer(t testing.TB) peer.Entry {
	t.Helper()
	parent := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		parent = "/dev/shm"
	}
	root, err := os.MkdirTemp(parent, "circles-storage-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	d, err := peer.OpenDirectory(root)
	must(t, err)
	key, err := peer.GenerateKey()
	must(t, err)
	e, err := d.Hold("bob", key.ID(), key, "")
	must(t, err)
	return e
}

func contexts(between func(store.Store) store.Store) *Contexts {
	c := New(Config{Find: table(between), Wait: time.Millisecond})
	c.batch = batch{bytes: 200 << 10, entries: 7} // so that there are many transactions
	return c
}

// fill puts some of everything into a context, and entries in its log.
func fill(t testing.TB, s store.Store, entries int) {
	t.Helper()
	at := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	must(t, s.Update(context.Background(), func(tx store.Tx) error {
		write := func(f store.FS, path string, data []byte, hole int64) {
			h, err := f.Open(path, store.FlagWrite|store.FlagCreate)
			must(t, err)
			_, err = h.WriteAt(data, hole)
			must(t, err)
			must(t, h.SetTimes(at, at.Add(time.Duration(len(data))*time.Second)))
			must(t, h.Close())
		}
		f, p := tx.Files(nil), tx.Private()
		must(t, f.Mkdir("d"))
		must(t, f.Mkdir("d/empty"))
		must(t, f.Mkdir("d/deep"))
		must(t, f.Symlink("../big", "d/link"))
		must(t, f.Symlink("nowhere", "dangling"))
		must(t, f.SetTimes("dangling", false, at, at.Add(time.Hour)))
		big := make([]byte, 1<<20)
		for i := range big {
			big[i] = byte(i >> 8 * 7)
		}
		write(f, "big", big, 0)
		write(f, "sparse", []byte("end"), 3<<20)
		write(f, "empty", nil, 0)
		for i := range 40 {
			write(f, fmt.Sprintf("d/deep/%d", i), []byte(strings.Repeat("x", i)), 0)
		}
		write(f, "d/ünï code\n", []byte("said"), 0)
		must(t, p.Mkdir("records"))
		write(p, "records/r", []byte("kept by the host"), 0)
		must(t, f.SetTimes("d", false, at, at.Add(3*time.Hour)))
		must(t, p.SetTimes("records", false, at, at.Add(4*time.Hour)))
		must(t, f.SetTimes("/", false, at, at.Add(5*time.Hour)))
		return nil
	}))
	for i := range entries {
		must(t, s.Update(context.Background(), func(tx store.Tx) error {
			return tx.Append(store.Key{1, byte(i), byte(i >> 8)}, []byte(fmt.Sprint("entry ", i)))
		}))
	}
}

// filled is a context in the directory of its owner.
func filled(t testing.TB) peer.Entry {
	t.Helper()
	e := newPeer(t)
	s, err := contexts(plain).Open(context.Background(), e)
	must(t, err)
	fill(t, s, 30)
	must(t, s.Close())
	return e
}

// copyOf is the fs backend's context of e under another peer, to compare with.
func copyOf(t testing.TB, e peer.Entry) peer.Entry {
	t.Helper()
	other := newPeer(t)
	for _, dir := range []string{"data", "log"} {
		must(t, os.RemoveAll(filepath.Join(other.Dir, dir)))
		if out, err := exec.Command("cp", "-a", filepath.Join(e.Dir, dir), other.Dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return other
}

func sameAs(t testing.TB, a, b peer.Entry) Same {
	t.Helper()
	c, ctx := contexts(plain), context.Background()
	x, err := c.Open(ctx, a)
	must(t, err)
	defer x.Close()
	y, err := c.Open(ctx, b)
	must(t, err)
	defer y.Close()
	same, err := Compare(ctx, x, y, nil)
	must(t, err)
	return same
}

func keptIn(t testing.TB, e peer.Entry, want string) {
	t.Helper()
	if k, err := contexts(plain).Of(e); err != nil || k.Name != want {
		t.Errorf("it is in %q, %v, want %q", k.Name, err, want)
	}
}

// TestMigrateAndBack: what comes back is what went: all of it, and the log with the
// same hashes, which go on.
func TestMigrateAndBack(t *testing.T) {
	ctx := context.Background()
	e := filled(t)
	was := copyOf(t, e)
	c := contexts(plain)
	var told int
	r, err := c.Migrate(ctx, e, Move{To: "sqlite", Report: func(Progress) { told++ }})
	must(t, err)
	if r.From != "fs" || r.Log != 30 || r.Entries != 52 || r.Left != filepath.Join(e.Dir, "data") || told < 10 {
		t.Errorf("%+v, told %d times", r, told)
	}
	keptIn(t, e, "sqlite")
	if same := sameAs(t, was, e); same != r.Same {
		t.Errorf("%+v, moved %+v", same, r.Same)
	}
	if _, err := os.Stat(filepath.Join(e.Dir, "data", "big")); err != nil {
		t.Errorf("the old data is gone: %v", err)
	}
	if _, err := os.Stat(moveFile(e)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note that it moves is still there: %v", err)
	}
	if _, err := c.Migrate(ctx, e, Move{To: "sqlite"}); !errors.Is(err, ErrHere) {
		t.Errorf("to where it is: %v", err)
	}

	s, err := c.Open(ctx, e)
	must(t, err)
	if got, ok, err := s.Entry(ctx, store.Key{1, 7}); err != nil || !ok || string(got.Data) != "entry 7" {
		t.Errorf("entry 7 is %q, %v, %v", got.Data, ok, err)
	}
	must(t, s.Update(ctx, func(tx store.Tx) error {
		return errors.Join(tx.Files(nil).Mkdir("more"), tx.Append(store.Key{9}, []byte("after")))
	}))
	must(t, s.Close())

	if _, err := c.Migrate(ctx, e, Move{To: "fs"}); !errors.Is(err, ErrTaken) {
		t.Errorf("over what was left: %v", err)
	}
	keptIn(t, e, "sqlite")
	r, err = c.Migrate(ctx, e, Move{To: "fs", Replace: true})
	must(t, err)
	if r.Log != 31 || r.Entries != 53 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(e.Dir, "data", "more")); err != nil {
		t.Error(err)
	}
	if err := c.Remove(ctx, e, "fs"); err == nil {
		t.Error("removed what is live")
	}
	must(t, c.Remove(ctx, e, "sqlite"))
	if left, _ := filepath.Glob(filepath.Join(e.Dir, "context.sqlite*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	s, err = c.Open(ctx, e)
	must(t, err)
	must(t, s.Close())
}

// TestMigrateEmpty: a context in which nothing has happened.
func TestMigrateEmpty(t *testing.T) {
	e := newPeer(t)
	c := contexts(plain)
	r, err := c.Migrate(context.Background(), e, Move{To: "sqlite"})
	must(t, err)
	if r.Same != (Same{}) {
		t.Errorf("%+v", r)
	}
	_, err = c.Migrate(context.Background(), e, Move{To: "fs", Replace: true})
	must(t, err)
}

// TestMigrateStaysWhereItWas: nobody's open context moves, and nothing that cannot
// be carried is left behind.
func TestMigrateStaysWhereItWas(t *testing.T) {
	ctx := context.Background()
	e := filled(t)
	c := contexts(plain)
	fails := func(why string, wants ...string) {
		t.Helper()
		_, err := c.Migrate(ctx, e, Move{To: "sqlite"})
		if err == nil {
			t.Fatalf("moved: %s", why)
		}
		for _, w := range wants {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %s", why, err, w)
			}
		}
		keptIn(t, e, "fs")
	}
	s, err := c.Open(ctx, e)
	must(t, err)
	fails("it is open", "in use")
	must(t, s.Close())
	if _, err := c.Migrate(ctx, e, Move{To: "nowhere"}); err == nil {
		t.Error("moved to nowhere")
	}

	data := filepath.Join(e.Dir, "data")
	for name, plant := range map[string]func(path string) error{
		"fifo":     func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"out":      func(p string) error { return os.Symlink("/etc/passwd", p) },
		"up":       func(p string) error { return os.Symlink("../peer.key", p) },
		"bad\xff":  func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"d/\xff\n": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		path := filepath.Join(data, name)
		must(t, plant(path))
		want := "/" + name
		if strings.Contains(name, "\xff") {
			want = "1 of 53 names cannot be said"
		}
		fails(name, want)
		must(t, os.Remove(path))
	}
	// What was begun is used, or thrown away: in the end it is all there.
	was := copyOf(t, e)
	_, err = c.Migrate(ctx, e, Move{To: "sqlite"})
	must(t, err)
	sameAs(t, was, e)
}

var errUnplugged = errors.New("unplugged")

// unplugged is a store whose nth update from now on, and all after it, fail.
type unplugged struct {
	store.Store
	left *atomic.Int64
}

func (u unplugged) Update(ctx context.Context, f func(store.Tx) error) error {
	if u.left.Add(-1) < 0 {
		return errUnplugged
	}
	return u.Store.Update(ctx, f)
}

// TestMigrateInterruptedAtEachTransaction: wherever it is interrupted, the context
// is where it was, and the next call goes on.
func TestMigrateInterruptedAtEachTransaction(t *testing.T) {
	ctx := context.Background()
	e := filled(t)
	was := copyOf(t, e)
	var left atomic.Int64
	for n := 1; ; n++ {
		if n > 500 {
			t.Fatal("it does not end")
		}
		left.Store(int64(n)) // of what is done already a call looks at a few, and does nothing
		_, err := contexts(func(s store.Store) store.Store { return unplugged{s, &left} }).Migrate(ctx, e, Move{To: "sqlite"})
		if err == nil {
			if n < 5 {
				t.Errorf("only %d calls", n)
			}
			break
		}
		if !errors.Is(err, errUnplugged) {
			t.Fatal(err)
		}
		keptIn(t, e, "fs")
		if n%10 == 0 {
			sameAs(t, was, e)
		}
	}
	keptIn(t, e, "sqlite")
	sameAs(t, was, e)
}

// TestMigrateAfterAChange: what a script or the owner did between an interrupted
// call and the next is there in the end.
func TestMigrateAfterAChange(t *testing.T) {
	for what, change := range map[string]func(t *testing.T, e peer.Entry){
		"script": func(t *testing.T, e peer.Entry) {
			s, err := contexts(plain).Open(context.Background(), e)
			must(t, err)
			must(t, s.Update(context.Background(), func(tx store.Tx) error {
				return errors.Join(tx.Files(nil).Unlink("empty"), tx.Files(nil).Unlink("d/deep/3"), tx.Append(store.Key{9}, []byte("x")))
			}))
			must(t, s.Close())
		},
		"owner": func(t *testing.T, e peer.Entry) {
			data := filepath.Join(e.Dir, "data")
			info, err := os.Stat(filepath.Join(data, "d/deep/9"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(data, "d/deep/9"), []byte("123456789"), 0o600))
			must(t, os.Chtimes(filepath.Join(data, "d/deep/9"), info.ModTime(), info.ModTime()))
			must(t, os.Remove(filepath.Join(data, "empty")))
			must(t, os.Mkdir(filepath.Join(data, "empty"), 0o700))
		},
	} {
		t.Run(what, func(t *testing.T) {
			e := filled(t)
			var left atomic.Int64
			left.Store(12)
			_, err := contexts(func(s store.Store) store.Store { return unplugged{s, &left} }).Migrate(context.Background(), e, Move{To: "sqlite"})
			if !errors.Is(err, errUnplugged) {
				t.Fatal(err)
			}
			change(t, e)
			was := copyOf(t, e)
			_, err = contexts(plain).Migrate(context.Background(), e, Move{To: "sqlite"})
			must(t, err)
			sameAs(t, was, e)
		})
	}
}

// liar is a store that keeps something else than it is given.
type liar struct {
	store.Store
	lie func(tx store.Tx) store.Tx
}

func (l liar) View(ctx context.Context, f func(store.Tx) error) error {
	return l.Store.View(ctx, func(tx store.Tx) error { return f(l.lie(tx)) })
}

type lyingTx struct{ store.Tx }

func (l lyingTx) Files(g store.Guard) store.FS { return lyingFS{l.Tx.Files(g)} }

type lyingFS struct{ store.FS }

func (l lyingFS) Open(path string, flag store.Flag) (store.File, error) {
	f, err := l.FS.Open(path, flag)
	return lyingFile{f}, err
}

type lyingFile struct{ store.File }

func (l lyingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.File.ReadAt(p, off)
	if n > 0 && off <= 700_000 && off+int64(n) > 700_000 {
		p[700_000-off] ^= 1
	}
	return n, err
}

// TestMigrateFindsALie: one bit that is not as it was, and it does not move.
func TestMigrateFindsALie(t *testing.T) {
	e := filled(t)
	c := contexts(plain)
	honest := c.config.Find
	c.config.Find = func(name string) (Backend, error) {
		b, err := honest(name)
		if open := b.Open; name == "sqlite" {
			b.Open = func(ctx context.Context, e peer.Entry) (store.Store, error) {
				s, err := open(ctx, e)
				return liar{s, func(tx store.Tx) store.Tx { return lyingTx{tx} }}, err
			}
		}
		return b, err
	}
	_, err := c.Migrate(context.Background(), e, Move{To: "sqlite"})
	var differ *DifferError
	if !errors.As(err, &differ) || differ.What != "/big" {
		t.Errorf("%v", err)
	}
	keptIn(t, e, "fs")
}

// TestMigrateKilled is the real thing: a process that moves a context is killed
// with SIGKILL at random moments, until one comes through.
func TestMigrateKilled(t *testing.T) {
	if dir := os.Getenv("CIRCLES_TEST_MIGRATE"); dir != "" {
		d, err := peer.OpenDirectory(dir)
		must(t, err)
		e, _ := d.ByName("bob")
		fmt.Println("begins")
		_, err = contexts(plain).Migrate(context.Background(), e, Move{To: os.Getenv("CIRCLES_TEST_MIGRATE_TO"), Replace: true})
		if err != nil && !errors.Is(err, ErrHere) {
			t.Fatal(err)
		}
		fmt.Println("moved")
		return
	}
	e := filled(t)
	was := copyOf(t, e)
	killed, to := 0, "sqlite"
	for round := range 10 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMigrateKilled$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), "CIRCLES_TEST_MIGRATE="+filepath.Dir(filepath.Dir(e.Dir)), "CIRCLES_TEST_MIGRATE_TO="+to)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		moved := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			switch lines.Text() {
			case "begins":
				if round%7 == 6 {
					break // this one may live
				}
				go func() {
					time.Sleep(time.Duration(rand.IntN(60_000*(1+round%7))) * time.Microsecond)
					cmd.Process.Kill()
				}()
			case "moved":
				moved = true
			default:
				if !strings.HasPrefix(lines.Text(), "PASS") && !strings.HasPrefix(lines.Text(), "ok") {
					t.Errorf("round %d: it says %q", round, lines.Text())
				}
			}
		}
		if cmd.Wait() != nil {
			killed++
		}
		k, err := contexts(plain).Of(e)
		must(t, err)
		if moved && k.Name != to {
			t.Fatalf("it said that it had moved to %s, and is in %s", to, k.Name)
		}
		sameAs(t, was, e) // wherever it is
		if k.Name == to {
			to = map[string]string{"sqlite": "fs", "fs": "sqlite"}[to]
		}
	}
	if killed == 0 {
		t.Error("none was killed")
	}
	t.Logf("%d killed", killed)
}

// TestPlantedNotes: what lies in the place of a file of ours is not followed, does
// not block and is not obeyed.
func TestPlantedNotes(t *testing.T) {
	ctx := context.Background()
	for what, plant := range map[string]func(path string) error{
		"fifo": func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"link": func(p string) error { return os.Symlink("/etc/passwd", p) },
		"dir":  func(p string) error { return os.Mkdir(p, 0o700) },
		"text": func(p string) error { return os.WriteFile(p, []byte("move it to nowhere"), 0o600) },
		"long": func(p string) error { return os.WriteFile(p, make([]byte, 1<<20), 0o600) },
	} {
		e := filled(t)
		must(t, os.RemoveAll(filepath.Join(e.Dir, memoFile)))
		must(t, plant(filepath.Join(e.Dir, memoFile)))
		must(t, plant(moveFile(e)))
		c := contexts(plain)
		s, err := c.Open(ctx, e)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		must(t, s.Update(ctx, func(tx store.Tx) error { return tx.Files(nil).Mkdir("more") }))
		must(t, s.Close())
		if _, err := c.Migrate(ctx, e, Move{To: "sqlite"}); err == nil || !strings.Contains(err.Error(), "context.moving") {
			t.Errorf("%s: moved beside a note that makes no sense: %v", what, err)
		}
		keptIn(t, e, "fs")
	}
	// A lock that somebody else's file is in the place of.
	e := filled(t)
	must(t, os.RemoveAll(filepath.Join(e.Dir, lockFile)))
	must(t, os.Symlink("/tmp/elsewhere", filepath.Join(e.Dir, lockFile)))
	if _, err := contexts(plain).Open(ctx, e); err == nil {
		t.Error("a lock was followed elsewhere")
	}
}

// TestOpenWaitsForNobodyElsewhere: two that may not have a context at once, and two
// that may.
func TestOpenWaitsForNobodyElsewhere(t *testing.T) {
	ctx := context.Background()
	e := filled(t)
	c := contexts(plain)
	s, err := c.Open(ctx, e)
	must(t, err)
	if _, err := c.Open(ctx, e); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, s.Close())

	honest := c.config.Find
	c.config.Find = func(name string) (Backend, error) {
		b, err := honest(name)
		b.Shared = true
		b.Open = func(context.Context, peer.Entry) (store.Store, error) { return mem.New(mem.Config{}), nil }
		return b, err
	}
	one, err := c.Open(ctx, e)
	must(t, err)
	two, err := c.Open(ctx, e)
	must(t, err)
	if _, err := c.Migrate(ctx, e, Move{To: "sqlite"}); !errors.Is(err, ErrInUse) {
		t.Errorf("moved while two have it open: %v", err)
	}
	must(t, one.Close())
	must(t, two.Close())
	one, err = c.Open(canceled(), e) // nothing to wait for
	must(t, err)
	must(t, one.Close())
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
