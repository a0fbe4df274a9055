//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

func mustOpen(t testing.TB, c Config) *overlay.Store {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func update(t testing.TB, s store.Store, f func(fs store.FS) error) {
	t.Helper()
	if err := s.Update(context.Background(), func(tx store.Tx) error { return f(tx.Files(nil)) }); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, s store.Store, f func(fs store.FS) error) {
	t.Helper()
	if err := s.View(context.Background(), func(tx store.Tx) error { return f(tx.Files(nil)) }); err != nil {
		t.Fatal(err)
	}
}

func read(fs store.FS, path string) (string, error) {
	f, err := fs.Open(path, store.FlagRead)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	return string(b), err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var old = time.Unix(1, 0)

// outside makes a directory that no script may see anything of, on the same file
// system as the context's data.
func outside(t testing.TB, c Config) string {
	dir := filepath.Join(filepath.Dir(c.Data), "outside")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("outside"), 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "dir"), 0o755))
	return dir
}

// TestOwnerEditsBetweenScripts: the directory is the owner's; what they do in it
// with other tools is simply there.
func TestOwnerEditsBetweenScripts(t *testing.T) {
	c := config(t)
	s := mustOpen(t, c)
	update(t, s, func(fs store.FS) error { return first(fs.Mkdir("d"), write(fs, "d/f", "script")) })
	must(t, os.WriteFile(filepath.Join(c.Data, "d/f"), []byte("owner"), 0o644))
	must(t, os.WriteFile(filepath.Join(c.Data, "new"), []byte("by hand"), 0o644))
	view(t, s, func(fs store.FS) error {
		for path, want := range map[string]string{"d/f": "owner", "new": "by hand"} {
			if got, err := read(fs, path); got != want || err != nil {
				t.Errorf("%s: %q, %v", path, got, err)
			}
		}
		return nil
	})
	if b, err := os.ReadFile(filepath.Join(c.Data, "d/f")); string(b) != "owner" || err != nil {
		t.Errorf("on disk: %q, %v", b, err)
	}
}

// TestConflict: what the owner changes while a script runs is not overwritten,
// removed or moved blindly.
func TestConflict(t *testing.T) {
	type disk func(path string) string
	for name, tc := range map[string]struct {
		script func(fs store.FS) error
		owner  func(p disk) error
	}{
		"edited": {func(fs store.FS) error { return write(fs, "f", "script") },
			func(p disk) error { return os.WriteFile(p("f"), []byte("OWNER"), 0o644) }},
		"edited to the same size and time": {func(fs store.FS) error { return write(fs, "f", "script") },
			func(p disk) error {
				i, _ := os.Stat(p("f"))
				return first(os.WriteFile(p("f"), []byte("FILE"), 0o644), os.Chtimes(p("f"), i.ModTime(), i.ModTime()))
			}},
		"replaced": {func(fs store.FS) error { return write(fs, "f", "script") },
			func(p disk) error {
				return first(os.WriteFile(p("g"), []byte("owner"), 0o644), os.Rename(p("g"), p("f")))
			}},
		"removed":            {func(fs store.FS) error { return write(fs, "f", "script") }, func(p disk) error { return os.Remove(p("f")) }},
		"edited, removed":    {func(fs store.FS) error { return fs.Unlink("f") }, func(p disk) error { return os.WriteFile(p("f"), []byte("owner's"), 0o644) }},
		"edited, moved":      {func(fs store.FS) error { return fs.Rename("f", "x") }, func(p disk) error { return os.WriteFile(p("f"), []byte("owner's"), 0o644) }},
		"edited, replaced":   {func(fs store.FS) error { return fs.Rename("d/f", "f") }, func(p disk) error { return os.WriteFile(p("f"), []byte("owner's"), 0o644) }},
		"made by both":       {func(fs store.FS) error { return write(fs, "new", "script") }, func(p disk) error { return os.WriteFile(p("new"), []byte("owner"), 0o644) }},
		"made by both below": {func(fs store.FS) error { return write(fs, "d/new", "script") }, func(p disk) error { return os.WriteFile(p("d/new"), []byte("owner"), 0o644) }},
		"mkdir by both":      {func(fs store.FS) error { return fs.Mkdir("new") }, func(p disk) error { return os.Mkdir(p("new"), 0o755) }},
		"moved onto":         {func(fs store.FS) error { return fs.Rename("f", "new") }, func(p disk) error { return os.WriteFile(p("new"), []byte("owner"), 0o644) }},
		"directory refilled": {func(fs store.FS) error { return first(fs.Unlink("d/f"), fs.Rmdir("d")) }, func(p disk) error { return os.WriteFile(p("d/new"), []byte("owner"), 0o644) }},
		"empty one refilled": {func(fs store.FS) error { return fs.Rmdir("empty") }, func(p disk) error { return os.WriteFile(p("empty/new"), []byte("owner"), 0o644) }},
		"directory replaced": {func(fs store.FS) error { return write(fs, "empty/new", "script") },
			func(p disk) error { return first(os.Rename(p("empty"), p("old")), os.Mkdir(p("empty"), 0o755)) }},
		"directory made a link": {func(fs store.FS) error { return write(fs, "empty/new", "script") },
			func(p disk) error { return first(os.Remove(p("empty")), os.Symlink("d", p("empty"))) }},
		"file made a link": {func(fs store.FS) error { return write(fs, "f", "script") },
			func(p disk) error { return first(os.Remove(p("f")), os.Symlink("d/f", p("f"))) }},
		"times": {func(fs store.FS) error { return fs.SetTimes("f", true, time.Unix(1, 0), time.Unix(1, 0)) },
			func(p disk) error { return os.WriteFile(p("f"), []byte("owner's"), 0o644) }},
	} {
		t.Run(name, func(t *testing.T) {
			c := memoryConfig(t)
			s := mustOpen(t, c)
			update(t, s, func(fs store.FS) error {
				return first(write(fs, "f", "file"), fs.Mkdir("d"), write(fs, "d/f", "in d"), fs.Mkdir("empty"))
			})
			var want string
			snapshot := func() string {
				var b strings.Builder
				filepath.Walk(c.Data, func(p string, i os.FileInfo, err error) error {
					data, _ := os.ReadFile(p)
					fmt.Fprintln(&b, p, i.Mode(), string(data))
					return err
				})
				return b.String()
			}
			err := s.Update(context.Background(), func(tx store.Tx) error {
				if err := tc.script(tx.Files(nil)); err != nil {
					t.Fatal(err)
				}
				if err := tx.Append(store.Key{1}, nil); err != nil {
					t.Fatal(err)
				}
				must(t, tc.owner(func(p string) string { return filepath.Join(c.Data, p) }))
				want = snapshot()
				return nil
			})
			if !errors.Is(err, ErrConflict) {
				t.Errorf("commit: %v, want ErrConflict", err)
			}
			if got := snapshot(); got != want {
				t.Errorf("there is\n%s\nwant\n%s", got, want)
			}
			if _, ok, _ := s.Entry(context.Background(), store.Key{1}); ok {
				t.Error("the entry was logged")
			}
			if left, _ := os.ReadDir(filepath.Join(c.Tx, "stage")); len(left) > 0 {
				t.Errorf("left in staging: %v", left)
			}
		})
	}
}

// TestOwnerEditsAfterCrash: between a crash that left a decided commit and the
// next opening, the owner has edited and made the very files: theirs are kept
// beside the committed ones.
func TestOwnerEditsAfterCrash(t *testing.T) {
	c := config(t)
	run := func(f func(store.Tx) error) func(store.Store) {
		return func(s store.Store) { s.Update(context.Background(), f) }
	}
	crash(t, c, 0, run(seed))
	steps, _ := crash(t, c, 0, func(s store.Store) {
		s.Update(context.Background(), func(tx store.Tx) error { return tx.Files(nil).Mkdir("probe") })
	})
	decided := slices.Index(steps, "decided") + 1
	_, stopped := crash(t, c, decided+1, run(func(tx store.Tx) error {
		fs := tx.Files(nil)
		return first(write(fs, "edit", "script"), write(fs, "made", "script"), fs.Mkdir("newdir"), fs.Unlink("kind"), fs.Unlink("gone/x"), fs.Rmdir("gone/too"), fs.Rmdir("gone"))
	}))
	if !stopped {
		t.Fatal("the commit was not reached")
	}
	p := func(name string) string { return filepath.Join(c.Data, name) }
	must(t, os.WriteFile(p("edit"), []byte("owner's edit"), 0o644))
	must(t, os.WriteFile(p("made"), []byte("owner made"), 0o644))
	must(t, os.WriteFile(p("newdir"), []byte("owner's file"), 0o644))
	must(t, os.WriteFile(p("kind"), []byte("owner's version"), 0o644))
	must(t, os.WriteFile(p("gone/keep"), []byte("owner's"), 0o644))
	everything(t, c)
	for name, want := range map[string]string{
		"edit": "script", "edit.conflict-1": "owner's edit", "made": "script", "made.conflict-1": "owner made",
		"newdir.conflict-1": "owner's file", "kind": "owner's version", "gone/keep": "owner's",
	} {
		if b, err := os.ReadFile(p(name)); string(b) != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
	if i, err := os.Stat(p("newdir")); err != nil || !i.IsDir() {
		t.Errorf("newdir: %v", err)
	}
}

// TestHostPlantedLinks: links that the owner, or an unpacked archive, left in
// data are never followed out of it.
func TestHostPlantedLinks(t *testing.T) {
	for name, openWith := range beneaths {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			out := outside(t, c)
			s := openVia(t, c, openWith)
			must(t, os.Mkdir(filepath.Join(c.Data, "in"), 0o755))
			must(t, os.WriteFile(filepath.Join(c.Data, "in/f"), []byte("inside"), 0o644))
			rel, err := filepath.Rel(filepath.Join(c.Data, "in"), out)
			must(t, err)
			for link, target := range map[string]string{
				"abs": out, "absf": filepath.Join(out, "secret"), "root": "/", "in/rel": rel, "in/up": "../../log", "self": filepath.Join(c.Data, "in"),
				"chain": "in/rel", "proc": "/proc/self/root", "badname": "\xff", "good": "in/f", "empty-ish": "./",
			} {
				must(t, os.Symlink(target, filepath.Join(c.Data, link)))
			}
			update(t, s, func(fs store.FS) error {
				for _, p := range []string{"abs/secret", "absf", "abs", "root/etc/passwd", "in/rel/secret", "in/up", "self/f", "chain/secret", "proc/etc/passwd", "abs/../in/f"} {
					for op, f := range map[string]func() error{
						"open":   func() error { _, err := fs.Open(p, store.FlagRead); return err },
						"write":  func() error { _, err := fs.Open(p, store.FlagWrite); return err },
						"stat":   func() error { _, err := fs.Stat(p, true); return err },
						"create": func() error { _, err := fs.Open(p+"/new", store.FlagWrite|store.FlagCreate); return err },
						"mkdir":  func() error { return fs.Mkdir(p + "/new") },
						"move":   func() error { return fs.Rename("in/f", p+"/f") },
						"times":  func() error { return fs.SetTimes(p, true, time.Unix(1, 0), time.Unix(1, 0)) },
					} {
						if err := f(); !errors.Is(err, store.ErrEscapes) {
							t.Errorf("%s %s: %v", op, p, err)
						}
					}
				}
				if _, err := fs.Stat("badname", true); !errors.Is(err, store.ErrInvalid) {
					t.Errorf("link to bytes that are no name: %v", err)
				}
				if got, err := read(fs, "good"); got != "inside" || err != nil {
					t.Errorf("a link that stays inside: %q, %v", got, err)
				}
				// They can be removed and moved, as entries.
				return first(fs.Unlink("abs"), fs.Rename("root", "in/root"))
			})
			if b, err := os.ReadFile(filepath.Join(out, "secret")); string(b) != "outside" || err != nil {
				t.Errorf("outside: %q, %v", b, err)
			}
		})
	}
}

// beneaths are both ways to open directories; a machine that has openat2 would
// otherwise never test the other.
var beneaths = map[string]func(string) (beneath, error){"kernel": newBeneath, "os.Root": newWalkRoot}

// openVia opens a context through one of them.
func openVia(t *testing.T, c Config, openWith func(string) (beneath, error)) *overlay.Store {
	t.Helper()
	b, err := open(c, hooks{beneath: openWith})
	must(t, err)
	if _, ok := b.lower.under.(*walkRoot); ok {
		// And what else an unusual file system needs.
		b.plainNames, b.lower.folds = false, true
	}
	s := overlay.New(b, overlay.Config{})
	t.Cleanup(func() { s.Close() })
	return s
}

// TestNeverFollows is the race below without the race: what the backend is asked
// for was a directory, or a file, when overlay looked, and is a link now.
func TestNeverFollows(t *testing.T) {
	for name, openWith := range beneaths {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			s := openVia(t, c, openWith)
			out := outside(t, c)
			must(t, os.MkdirAll(filepath.Join(c.Data, "in/sub"), 0o755))
			must(t, os.Symlink("secret", filepath.Join(out, "link")))
			for link, target := range map[string]string{"abs": out, "rel": "../outside", "file": "../outside/secret", "in/up": "../../outside", "magic": "/proc/self/cwd"} {
				must(t, os.Symlink(target, filepath.Join(c.Data, link)))
			}
			l := under(t, c, openWith)
			for _, dir := range []string{"abs", "rel", "in/up", "abs/dir", "rel/dir", "in/up/dir", "in/../../outside", "..", "../outside", out, "magic"} {
				if names, err := l.ReadDir(dir, 10); err == nil {
					t.Errorf("ReadDir %s: %v", dir, names)
				}
				for _, name := range []string{"secret", "link"} {
					if a, err := l.Lstat(dir + "/" + name); err == nil {
						t.Errorf("Lstat %s/%s: %+v", dir, name, a)
					}
					if target, err := l.Readlink(dir + "/" + name); err == nil {
						t.Errorf("Readlink %s/%s: %s", dir, name, target)
					}
					if f, err := l.Open(dir + "/" + name); err == nil {
						f.Close()
						t.Errorf("Open %s/%s succeeds", dir, name)
					}
				}
			}
			if f, err := l.Open("file"); err == nil {
				f.Close()
				t.Error("Open follows a link")
			}
			// A commit whose directory became a link at the last moment: the steps
			// that would go through it fail, and nothing outside has changed.
			for _, dir := range []string{"sub2", "in/sub"} {
				must(t, os.MkdirAll(filepath.Join(c.Data, dir), 0o755))
				err := s.Update(context.Background(), func(tx store.Tx) error {
					if err := write(tx.Files(nil), dir+"/made", "x"); err != nil {
						return err
					}
					must(t, os.Remove(filepath.Join(c.Data, dir)))
					must(t, os.Symlink(out, filepath.Join(c.Data, dir)))
					return nil
				})
				if !errors.Is(err, ErrConflict) {
					t.Errorf("commit into %s, which is a link now: %v", dir, err)
				}
			}
			must(t, os.MkdirAll(filepath.Join(c.Data, "late"), 0o755))
			must(t, s.Close())
			b, err := open(c, hooks{beneath: openWith, crash: func(step string) error {
				if step == "decided" { // after every check
					return first(os.Remove(filepath.Join(c.Data, "late")), os.Symlink(out, filepath.Join(c.Data, "late")))
				}
				return nil
			}})
			must(t, err)
			s = overlay.New(b, overlay.Config{})
			err = s.Update(context.Background(), func(tx store.Tx) error { return write(tx.Files(nil), "late/made", "x") })
			if !errors.Is(err, overlay.ErrBroken) {
				t.Errorf("commit into what became a link when it was decided: %v", err)
			}
			must(t, s.Close())
			if left, err := os.ReadDir(out); err != nil || len(left) != 3 {
				t.Errorf("outside: %v, %v", left, err)
			}
			// The owner puts the directory back, and the commit is finished.
			if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "/late") {
				t.Errorf("open: %v, want an error that names the directory", err)
			}
			must(t, first(os.Remove(filepath.Join(c.Data, "late")), os.Mkdir(filepath.Join(c.Data, "late"), 0o755)))
			s = mustOpen(t, c)
			view(t, s, func(fs store.FS) error {
				if got, err := read(fs, "late/made"); got != "x" || err != nil {
					t.Errorf("after recovery: %q, %v", got, err)
				}
				return nil
			})
		})
	}
}

// TestDirectorySwappedAfterALook: a transaction keeps the directory open that it
// looked into last. What its name leads to meanwhile is nothing to it, and to the
// next transaction it is what there is.
func TestDirectorySwappedAfterALook(t *testing.T) {
	for name, openWith := range beneaths {
		t.Run(name, func(t *testing.T) {
			c := memoryConfig(t)
			out := outside(t, c)
			d := filepath.Join(c.Data, "d")
			must(t, os.MkdirAll(d, 0o755))
			for _, f := range []string{"first", "secret"} {
				must(t, os.WriteFile(filepath.Join(d, f), []byte("inside"), 0o644))
			}
			s := openVia(t, c, openWith)
			look := func(path string) (got string, err error) {
				must(t, s.View(context.Background(), func(tx store.Tx) error {
					if path == "" {
						if got, err = read(tx.Files(nil), "d/first"); err != nil {
							return err
						}
						must(t, os.Rename(d, d+".old"))
						must(t, os.Symlink(out, d))
						path = "d/secret"
					}
					got, err = read(tx.Files(nil), path)
					return nil
				}))
				return got, err
			}
			if got, err := look(""); err == nil && got != "inside" {
				t.Errorf("read %q through the link", got)
			}
			if got, err := look("d/secret"); err == nil {
				t.Errorf("read %q through the link, in the next transaction", got)
			}
			if got, err := look("d.old/secret"); err != nil || got != "inside" {
				t.Errorf("what was moved is %q, %v", got, err)
			}
		})
	}
}

// TestSwappedUnderRace: another program swaps a directory for a link to the
// outside, and back, while scripts read and write below it.
func TestSwappedUnderRace(t *testing.T) {
	for name, openWith := range beneaths {
		t.Run(name, func(t *testing.T) {
			c := memoryConfig(t)
			out := outside(t, c)
			must(t, os.MkdirAll(filepath.Join(c.Data, "d/dir"), 0o755))
			must(t, os.WriteFile(filepath.Join(c.Data, "d/secret"), []byte("inside"), 0o644))
			must(t, os.Symlink(out, filepath.Join(c.Data, "link")))
			must(t, os.WriteFile(filepath.Join(c.Data, "f"), []byte("inside"), 0o644))
			must(t, os.Symlink("../outside/secret", filepath.Join(c.Data, "flink")))
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				p := func(name string) string { return filepath.Join(c.Data, name) }
				for {
					select {
					case <-stop:
						return
					default:
						os.Rename(p("d"), p("aside"))
						os.Rename(p("link"), p("d"))
						os.Rename(p("f"), p("faside"))
						os.Rename(p("flink"), p("f"))
						os.Rename(p("d"), p("link"))
						os.Rename(p("aside"), p("d"))
						os.Rename(p("f"), p("flink"))
						os.Rename(p("faside"), p("f"))
					}
				}
			})
			// Overlay remembers d from one look and opens below it in the next:
			// that gap is the race. A transaction per look would hardly meet it.
			s := openVia(t, c, openWith)
			reads, refused := 0, 0
			for end := time.Now().Add(400 * time.Millisecond); time.Now().Before(end); {
				s.View(context.Background(), func(tx store.Tx) error {
					fs := tx.Files(nil)
					for range 50 {
						got, err := read(fs, []string{"d/secret", "f"}[reads%2])
						switch {
						case err != nil:
							refused++
						case got != "inside":
							t.Fatalf("read %q", got)
						default:
							reads++
						}
						if f, err := fs.Open("d", store.FlagRead); err == nil {
							list, _ := f.ReadDir(0, 100)
							for _, e := range list {
								if e.Name != "secret" && e.Name != "dir" && !strings.HasPrefix(e.Name, "made") {
									t.Fatalf("listed %q", e.Name)
								}
							}
							f.Close()
						}
					}
					return nil
				})
			}
			t.Logf("%d reads, %d refused", reads, refused)
			// Commits into it: each either happens inside, or fails.
			for i := 0; i < 300; i++ {
				err := s.Update(context.Background(), func(tx store.Tx) error {
					return write(tx.Files(nil), fmt.Sprintf("d/dir/made%d", i), "x")
				})
				if errors.Is(err, overlay.ErrBroken) { // swapped between decision and rename: opening finishes it
					s.Close()
					for {
						b, err := open(c, hooks{})
						if err == nil {
							b.Close()
							break
						}
					}
					s = openVia(t, c, openWith)
				}
			}
			close(stop)
			wg.Wait()
			left, err := os.ReadDir(filepath.Join(out, "dir"))
			if err != nil || len(left) > 0 {
				t.Errorf("made outside: %v, %v", left, err)
			}
			if b, err := os.ReadFile(filepath.Join(out, "secret")); string(b) != "outside" || err != nil {
				t.Errorf("outside: %q, %v", b, err)
			}
		})
	}
}

// TestSpecialFiles: what is neither file, directory nor link is shown as such,
// never opened, and never waited for.
func TestSpecialFiles(t *testing.T) {
	c := config(t)
	s := mustOpen(t, c)
	p := func(name string) string { return filepath.Join(c.Data, name) }
	must(t, unix.Mkfifo(p("fifo"), 0o666))
	l, err := net.Listen("unix", p("sock"))
	if err != nil { // the path is too long for a socket's address
		t.Chdir(c.Data)
		l, err = net.Listen("unix", "sock")
	}
	must(t, err)
	defer l.Close()
	special := []string{"fifo", "sock"}
	if device(p("zero")) {
		special = append(special, "zero")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		update(t, s, func(fs store.FS) error {
			d, err := fs.Open("/", store.FlagRead)
			if err != nil {
				return err
			}
			list, err := d.ReadDir(0, 10)
			if err != nil || len(list) != len(special) {
				t.Errorf("list: %v, %v", list, err)
			}
			for _, e := range list {
				if e.Kind != store.KindOther {
					t.Errorf("%s is listed as %d", e.Name, e.Kind)
				}
			}
			for _, name := range special {
				for _, flag := range []store.Flag{store.FlagRead, store.FlagWrite, store.FlagWrite | store.FlagCreate | store.FlagTruncate, 0} {
					if _, err := fs.Open(name, flag); !errors.Is(err, store.ErrSpecial) {
						t.Errorf("open %s with %b: %v", name, flag, err)
					}
				}
				if i, err := fs.Stat(name, true); err != nil || i.Kind != store.KindOther || i.Size != 0 {
					t.Errorf("stat %s: %+v, %v", name, i, err)
				}
				if err := fs.Rename(name, name+"2"); err != nil {
					t.Errorf("rename %s: %v", name, err)
				}
				// The race: a file when it was looked at, a FIFO when it is opened.
				if _, err := under(t, c, newBeneath).Open(name); !errors.Is(err, store.ErrSpecial) {
					t.Errorf("open %s below: %v", name, err)
				}
			}
			return fs.Unlink("fifo2")
		})
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("an open blocks")
	}
	if i, err := os.Lstat(p("sock2")); err != nil || i.Mode().Type() != os.ModeSocket {
		t.Errorf("the moved socket: %v, %v", i, err)
	}
}

// under is another look at the same data, below the overlay.
func under(t *testing.T, c Config, openWith func(string) (beneath, error)) *lower {
	u, err := openWith(c.Data)
	must(t, err)
	t.Cleanup(func() { u.close() })
	var st unix.Stat_t
	must(t, unix.Fstat(u.root(), &st))
	return &lower{under: u, dev: uint64(st.Dev)}
}

// TestHardLinkToOutside documents what a path sandbox cannot see: a hard link in
// data is the file outside. It reads; a write makes a copy and leaves the file
// outside as it is.
func TestHardLinkToOutside(t *testing.T) {
	c := config(t)
	s := mustOpen(t, c)
	file := filepath.Join(filepath.Dir(c.Data), "outside")
	must(t, os.WriteFile(file, []byte("outside"), 0o644))
	must(t, os.Link(file, filepath.Join(c.Data, "hard")))
	must(t, os.Link(file, filepath.Join(c.Data, "hard2")))
	update(t, s, func(fs store.FS) error {
		if got, err := read(fs, "hard"); got != "outside" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		f, err := fs.Open("hard", store.FlagWrite)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte("INSIDE!"), 0)
		return first(err, fs.SetTimes("hard", true, time.Unix(1, 0), time.Unix(1, 0)))
	})
	if b, err := os.ReadFile(file); string(b) != "outside" || err != nil {
		t.Errorf("outside: %q, %v", b, err)
	}
	// Links to one file are removed, and renamed over one another, like others.
	must(t, os.Link(file, filepath.Join(c.Data, "hard3")))
	must(t, os.Link(file, filepath.Join(c.Data, "hard4")))
	update(t, s, func(fs store.FS) error {
		return first(fs.Unlink("hard2"), fs.Rename("hard3", "hard4"), fs.Unlink("hard"))
	})
	left, err := os.ReadDir(c.Data)
	if err != nil || len(left) != 1 || left[0].Name() != "hard4" {
		t.Errorf("left: %v, %v", left, err)
	}
	if left, _ := os.ReadDir(filepath.Join(c.Tx, "stage")); len(left) > 0 {
		t.Errorf("left in staging: %v", left)
	}
}

// TestNamesThatAreNoText: a guest can neither see nor say a name that is not
// UTF-8, and must not destroy what it cannot see.
func TestNamesThatAreNoText(t *testing.T) {
	c := config(t)
	s := mustOpen(t, c)
	must(t, os.Mkdir(filepath.Join(c.Data, "d"), 0o755))
	if err := os.WriteFile(filepath.Join(c.Data, "d", "\xff\xfe"), []byte("x"), 0o644); err != nil {
		return // a file system that has only text for names
	}
	update(t, s, func(fs store.FS) error {
		d, err := fs.Open("d", store.FlagRead)
		if err != nil {
			return err
		}
		if list, err := d.ReadDir(0, 10); err != nil || len(list) > 0 {
			t.Errorf("list: %v, %v", list, err)
		}
		if err := fs.Rmdir("d"); !errors.Is(err, store.ErrNotEmpty) {
			t.Errorf("rmdir: %v", err)
		}
		return fs.Rename("d", "moved")
	})
	if b, err := os.ReadFile(filepath.Join(c.Data, "moved", "\xff\xfe")); string(b) != "x" || err != nil {
		t.Errorf("after the move: %q, %v", b, err)
	}
	allow := guardFunc(func(store.Op, string) error { return nil })
	s.Update(context.Background(), func(tx store.Tx) error {
		if err := tx.Files(allow).Rename("moved", "again"); !errors.Is(err, store.ErrDenied) {
			t.Errorf("a guard cannot decide about such a name, but: %v", err)
		}
		return nil
	})
}

type guardFunc func(store.Op, string) error

func (g guardFunc) Allow(op store.Op, path string) error { return g(op, path) }

// TestModes: what the owner set stays, but never set-uid; and what they made
// read-only is.
func TestModes(t *testing.T) {
	c := config(t)
	s := mustOpen(t, c)
	p := func(name string) string { return filepath.Join(c.Data, name) }
	for name, mode := range map[string]os.FileMode{"private": 0o600, "program": 0o750, "suid": 0o755 | os.ModeSetuid, "readonly": 0o444} {
		must(t, os.WriteFile(p(name), []byte("x"), 0o644))
		must(t, os.Chmod(p(name), mode))
	}
	update(t, s, func(fs store.FS) error {
		if _, err := fs.Open("readonly", store.FlagWrite|store.FlagTruncate); !errors.Is(err, store.ErrDenied) {
			t.Errorf("truncating a read-only file: %v", err)
		}
		f, err := fs.Open("readonly", store.FlagWrite)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt([]byte("y"), 0); !errors.Is(err, store.ErrDenied) {
			t.Errorf("writing a read-only file: %v", err)
		}
		return first(write(fs, "private", "new"), write(fs, "program", "new"), write(fs, "suid", "new"), write(fs, "fresh", "new"))
	})
	for name, want := range map[string]os.FileMode{"private": 0o600, "program": 0o750, "suid": 0o755, "readonly": 0o444} {
		if i, err := os.Stat(p(name)); err != nil || i.Mode() != want {
			t.Errorf("%s has mode %v, want %v; %v", name, i.Mode(), want, err)
		}
	}
	must(t, os.WriteFile(p("like"), nil, 0o666))
	like, _ := os.Stat(p("like"))
	if i, err := os.Stat(p("fresh")); err != nil || i.Mode() != like.Mode() {
		t.Errorf("a new file has mode %v, want %v", i.Mode(), like.Mode())
	}
	for _, dir := range []string{c.Log, c.Tx} {
		if i, err := os.Stat(dir); err != nil || i.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", dir, i.Mode())
		}
	}
}

func TestLock(t *testing.T) {
	c := config(t)
	s := mustOpen(t, c)
	if _, err := Open(c); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), filepath.Join(c.Tx, "lock")) {
		t.Errorf("second open: %v", err)
	}
	must(t, s.Close())
	mustOpen(t, c)
}

// TestLayout: a log, or a journal, that a script could write to is refused.
func TestLayout(t *testing.T) {
	c := config(t)
	must(t, os.MkdirAll(c.Data, 0o755))
	must(t, os.Symlink(c.Data, c.Data+"-link"))
	for _, bad := range []Config{
		{},
		{Data: c.Data, Log: filepath.Join(c.Data, "log"), Tx: c.Tx},
		{Data: c.Data, Log: c.Log, Tx: filepath.Join(c.Data, "tx")},
		{Data: c.Data, Log: c.Log, Tx: c.Data},
		{Data: c.Data, Log: filepath.Join(c.Data+"-link", "log"), Tx: c.Tx},
		{Data: filepath.Join(c.Log, "../log/"), Log: c.Log, Tx: c.Tx},
	} {
		if s, err := Open(bad); err == nil {
			s.Close()
			t.Errorf("%+v opens", bad)
		}
	}
}

// TestViewDoesNotSeeApplying: a view that begins while a commit is being applied
// waits for its end.
func TestViewDoesNotSeeApplying(t *testing.T) {
	var s *overlay.Store
	armed := false
	check := func(step string) error {
		if step != "step" || !armed {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		if err := s.View(ctx, func(store.Tx) error { t.Error("a view runs while a commit is applied"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("view: %v", err)
		}
		return nil
	}
	b, err := open(config(t), hooks{crash: check})
	must(t, err)
	s = overlay.New(b, overlay.Config{})
	defer s.Close()
	armed = true
	update(t, s, func(fs store.FS) error { return first(write(fs, "a", "a"), write(fs, "b", "b")) })
}
