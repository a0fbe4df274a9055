//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
	"github.com/circles-host/circles/host/store/storetest"
)

// plug stops a commit at its nth step for good: the goroutine that it runs on
// never goes on, so nothing is cleaned up, just as when the process dies.
type plug struct {
	at      int // 0: never
	n       int
	steps   []string
	stopped chan struct{}
}

func (p *plug) step(name string) error {
	p.n++
	p.steps = append(p.steps, name)
	if p.n == p.at {
		close(p.stopped)
		select {}
	}
	return nil
}

// crash runs f on the context and pulls the plug at step at. It reports whether
// f came that far.
func crash(t *testing.T, c Config, at int, f func(s store.Store)) (steps []string, stopped bool) {
	t.Helper()
	p := &plug{at: at, stopped: make(chan struct{})}
	var b *backend
	done := make(chan struct{})
	opened := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		// Opening may be what crashes: it recovers.
		if b, err = open(c, hooks{crash: p.step, age: time.Hour}); err != nil {
			t.Errorf("open: %v", err)
			return
		}
		close(opened)
		s := overlay.New(b, overlay.Config{})
		f(s)
		s.Close()
	}()
	select {
	case <-done:
		return p.steps, false
	case <-p.stopped:
		select {
		case <-opened:
			die(b)
		default:
			t.Fatal("stopped while opening: use crashRecovery")
		}
		return p.steps, true
	}
}

// die gives up what a process has open, as the kernel does for the dead.
func die(b *backend) {
	if j := b.journal; j != nil {
		for i := range j.files {
			if j.files[i].f != nil {
				j.files[i].f.Close()
			}
		}
		for _, fd := range j.devices {
			unix.Close(fd)
		}
		unix.Close(j.dirFD)
	}
	b.release()
}

// crashRecovery opens the context and pulls the plug at step at of recovery.
func crashRecovery(t *testing.T, c Config, at int, reboot bool) (stopped bool) {
	t.Helper()
	n := 0
	b, err := open(c, hooks{
		crash: func(string) error {
			if n++; n == at {
				return errPlug
			}
			return nil
		},
		beneath: beneaths[[]string{"kernel", "os.Root"}[at%2]],
		reboot:  reboot,
	})
	switch {
	case errors.Is(err, errPlug):
		return true
	case err != nil:
		t.Fatalf("open: %v", err)
	}
	b.Close()
	return false
}

var errPlug = errors.New("plug pulled")

// everything is all that a context holds, as a string.
func everything(t *testing.T, c Config) string {
	t.Helper()
	return everythingWith(t, c, hooks{})
}

func everythingWith(t *testing.T, c Config, h hooks) string {
	t.Helper()
	backend, err := open(c, h)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	s := overlay.New(backend, overlay.Config{})
	defer s.Close()
	var b strings.Builder
	if err := s.View(context.Background(), func(tx store.Tx) error {
		b.WriteString(tree(t, tx.Files(nil), ""))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var prev [32]byte
	for e, err := range s.Log(context.Background(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Prev != prev {
			t.Fatalf("entry %d breaks the chain", e.Seq)
		}
		prev = e.Hash()
		fmt.Fprintf(&b, "entry %d %x %s\n", e.Seq, e.Key[:2], e.Data)
	}
	left, err := os.ReadDir(filepath.Join(c.Tx, "stage"))
	if err != nil || len(left) > 0 {
		t.Fatalf("left in staging: %v, %v", left, err)
	}
	return b.String()
}

func tree(t *testing.T, fs store.FS, dir string) string {
	t.Helper()
	h, err := fs.Open(dir+"/", store.FlagRead|store.FlagDirectory)
	if err != nil {
		t.Fatal(err)
	}
	list, err := h.ReadDir(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range list {
		p := dir + "/" + e.Name
		switch e.Kind {
		case store.KindDir:
			fmt.Fprintf(&b, "%s/\n%s", p, tree(t, fs, p))
		case store.KindLink:
			target, _ := fs.Readlink(p)
			fmt.Fprintf(&b, "%s -> %s\n", p, target)
		default:
			f, err := fs.Open(p, store.FlagRead)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s = %.20q %d\n", p, data, len(data))
		}
	}
	return b.String()
}

func write(fs store.FS, path, content string) error {
	f, err := fs.Open(path, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(content), 0)
	return err
}

// first is the first error of a sequence.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func seed(tx store.Tx) error {
	fs := tx.Files(nil)
	return first(
		fs.Mkdir("d"), fs.Mkdir("d/sub"), fs.Mkdir("gone"), fs.Mkdir("gone/too"),
		write(fs, "a", "A"), write(fs, "b", "B"), write(fs, "d/f", "in d"), write(fs, "d/sub/g", "in sub"),
		write(fs, "gone/x", "x"), write(fs, "kind", "file"), write(fs, "edit", "before"), fs.Symlink("a", "l"),
		tx.Append(store.Key{1}, []byte("seed")),
	)
}

var commits = map[string]func(tx store.Tx) error{
	"files": func(tx store.Tx) error {
		fs := tx.Files(nil)
		return first(write(fs, "a", "new A"), write(fs, "made", "x"), write(fs, "d/sub/g", strings.Repeat("long", 50_000)), fs.Unlink("b"),
			tx.Append(store.Key{2}, []byte("two")), tx.Append(store.Key{3}, []byte("three")))
	},
	"no entries": func(tx store.Tx) error {
		fs := tx.Files(nil)
		return first(write(fs, "a", "new A"), fs.Mkdir("m"))
	},
	"swap": func(tx store.Tx) error {
		fs := tx.Files(nil)
		return first(fs.Rename("a", "t"), fs.Rename("b", "a"), fs.Rename("t", "b"), fs.Rename("d", "e"), fs.Rename("gone", "d"), fs.Rename("e", "gone"),
			tx.Append(store.Key{2}, nil))
	},
	"same name in a new directory": func(tx store.Tx) error {
		fs := tx.Files(nil)
		return first(fs.Rename("d", "e"), fs.Mkdir("d"), fs.Rename("e/f", "d/f"), fs.Rename("e/sub", "d/sub"), fs.Rmdir("e"), write(fs, "d/sub/new", "n"))
	},
	"inside out": func(tx store.Tx) error {
		fs := tx.Files(nil)
		return first(fs.Rename("d/sub", "s"), fs.Rename("d", "s/d"), fs.Rename("s", "d"), write(fs, "d/d/f", "rewritten"), write(fs, "d/g", "too"))
	},
	"kinds": func(tx store.Tx) error {
		fs := tx.Files(nil)
		return first(fs.Unlink("kind"), fs.Mkdir("kind"), write(fs, "kind/f", "x"), fs.Unlink("l"), write(fs, "l", "a file"),
			fs.Unlink("a"), fs.Symlink("kind/f", "a"), fs.Unlink("gone/x"), fs.Rmdir("gone/too"), fs.Rmdir("gone"), fs.Symlink("d", "gone"))
	},
	"moved and edited": func(tx store.Tx) error {
		fs := tx.Files(nil)
		return first(write(fs, "d/f", "edited"), fs.Rename("d", "m"), fs.Rename("m/f", "edit"), fs.Rename("b", "m/f"), fs.Unlink("m/sub/g"),
			tx.Append(store.Key{2}, []byte("moved")))
	},
}

// TestCrash pulls the plug at every step of every kind of commit, by itself and
// with others before it that are only in the journal, and at every step of the
// recovery from that: what is found is the state before a commit or the one after
// it, and once it was the one after it stays so. Half of the time recovery does
// not know what had been applied already, as after a power cut.
func TestCrash(t *testing.T) {
	for name, commit := range commits {
		t.Run(name, func(t *testing.T) {
			run := func(s store.Store, f func(store.Tx) error) {
				if err := s.Update(context.Background(), f); err != nil {
					t.Errorf("update: %v", err)
				}
			}
			for kind, play := range map[string]struct{ before, now []func(store.Tx) error }{
				"alone":      {[]func(store.Tx) error{seed}, []func(store.Tx) error{commit}},
				"with seed":  {nil, []func(store.Tx) error{seed, commit}},
				"and others": {[]func(store.Tx) error{seed}, []func(store.Tx) error{touch, commit, untouch}},
			} {
				before := func(c Config) {
					crash(t, c, 0, func(s store.Store) {
						for _, f := range play.before {
							run(s, f)
						}
					})
				}
				// What the states are, and how many steps lie between.
				c := memoryConfig(t)
				before(c)
				states := []string{everything(t, c)}
				for i := range play.now {
					c := memoryConfig(t)
					before(c)
					crash(t, c, 0, func(s store.Store) {
						for _, f := range play.now[:i+1] {
							run(s, f)
						}
					})
					if left, err := os.ReadDir(filepath.Join(c.Tx, "stage")); err != nil || len(left) > 0 {
						t.Errorf("the commit left in staging: %v, %v", left, err)
					}
					states = append(states, everything(t, c))
					if slices.Contains(states[:i+1], states[i+1]) {
						t.Fatal("the commit does nothing")
					}
				}
				now := func(s store.Store) {
					for _, f := range play.now {
						run(s, f)
					}
				}
				steps, _ := crash(t, c, 0, now)
				if steps[len(steps)-1] != "forgotten" {
					t.Fatalf("steps: %q", steps)
				}
				decided := 0
				for at := 1; at <= len(steps); at++ {
					if steps[at-1] == "decided" {
						decided++
					}
					if kind != "alone" && at%2 != len(name)%2 { // or it takes long
						continue
					}
					// Recovery crashes at its first, second, … step, until it has
					// fewer; for a few steps only.
					again := at%9 <= 1 && kind != "with seed" || at == len(steps)-4
					for recovery := 0; recovery == 0 || again; recovery++ {
						c := memoryConfig(t)
						if at == 3*len(steps)/4 && recovery == 0 {
							c = config(t) // a file system that uses inode numbers again
						}
						before(c)
						if _, stopped := crash(t, c, at, now); !stopped {
							t.Fatalf("step %d was not reached", at)
						}
						reboot := (at+recovery)%2 == 0
						stopped := recovery > 0 && crashRecovery(t, c, recovery, reboot)
						if got := everythingWith(t, c, hooks{reboot: reboot}); got != states[decided] {
							t.Fatalf("%s: after a crash at step %d (%s) and one at step %d of recovery there is\n%s\nwant\n%s", kind, at, steps[at-1], recovery, got, states[decided])
						}
						if recovery > 0 && !stopped {
							break
						}
					}
				}
			}
		})
	}
}

// touch and untouch are commits before and after another, of the same files.
func touch(tx store.Tx) error {
	fs := tx.Files(nil)
	return first(write(fs, "a", "touched"), fs.Rename("b", "t"), fs.Rename("edit", "b"), fs.Rename("t", "edit"), write(fs, "d/f", "touched"),
		fs.Mkdir("new"), write(fs, "new/f", "x"), fs.Unlink("l"), fs.Symlink("b", "l"), fs.SetTimes("kind", true, old, old), tx.Append(store.Key{8}, nil))
}

func untouch(tx store.Tx) error {
	fs := tx.Files(nil)
	for _, err := range []error{write(fs, "a", "again"), fs.Unlink("edit"), fs.Unlink("new/f"), fs.Rmdir("new"), fs.Rename("b", "b2"), fs.Unlink("l")} {
		if err != nil && !errors.Is(err, store.ErrNotExist) && !errors.Is(err, store.ErrIsDir) {
			return err
		}
	}
	return tx.Append(store.Key{9}, []byte("untouched"))
}

// TestKill is the real thing: processes that commit to several contexts, all but
// one of which share a journal, are killed.
func TestKill(t *testing.T) {
	storetest.Crash(t, storetest.Crasher{
		Place: func(t *testing.T) string { return filepath.Dir(memoryConfig(t).Data) },
		Open: func(dir string) (stores []store.Store, err error) {
			// Small and impatient, so that it is drained all the time.
			j, err := OpenJournal(JournalConfig{Dir: filepath.Join(dir, "journal"), Size: 64 << 10, Age: 3 * time.Millisecond})
			for i := 0; i < 3 && err == nil; i++ {
				var s store.Store
				at := filepath.Join(dir, fmt.Sprint(i))
				c := Config{Data: filepath.Join(at, "data"), Log: filepath.Join(at, "log"), Tx: filepath.Join(at, "tx"), LogSegment: 16 << 10}
				if i > 0 {
					c.Journal = j
				}
				s, err = Open(c)
				stores = append(stores, s)
			}
			return stores, err
		},
	})
}
