package history

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
)

// world is a context with a history, in which scripts are functions.
type world struct {
	testing.TB
	s   store.Store
	h   *History
	now time.Time
	n   int

	looked int // how often the store was asked for an entry or a directory
}

func newWorld(t testing.TB, c Config) *world {
	w := &world{TB: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.s = mem.NewOn(mem.Config{Now: func() time.Time { w.now = w.now.Add(time.Millisecond); return w.now }},
		func(b overlay.Backend) overlay.Backend { return counting{b, w} })
	t.Cleanup(func() { w.s.Close() })
	c.Now = func() time.Time { return w.now }
	w.h = New(c)
	return w
}

// counting counts what the store is asked for.
type counting struct {
	overlay.Backend
	w *world
}

func (c counting) Lstat(path string) (overlay.Attr, error) {
	c.w.looked++
	return c.Backend.Lstat(path)
}

func (c counting) ReadDir(path string, limit int) ([]overlay.Name, error) {
	names, err := c.Backend.ReadDir(path, limit)
	c.w.looked += 1 + len(names)
	return names, err
}

// files are those of one transaction; what fails ends the test.
type files struct {
	testing.TB
	store.FS
	tx store.Tx
}

func (f *files) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *files) write(p, content string) {
	f.Helper()
	h, err := f.Open(p, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	f.must(err)
	_, err = h.WriteAt([]byte(content), 0)
	f.must(err)
	f.must(h.Close())
}

func (f *files) put(p, content string, off int64) {
	f.Helper()
	h, err := f.Open(p, store.FlagWrite)
	f.must(err)
	_, err = h.WriteAt([]byte(content), off)
	f.must(err)
	f.must(h.Close())
}

func (f *files) cut(p string, size int64) {
	f.Helper()
	h, err := f.Open(p, store.FlagWrite)
	f.must(err)
	f.must(h.Truncate(size))
	f.must(h.Close())
}

func (f *files) read(p string) string {
	f.Helper()
	h, err := f.Open(p, store.FlagRead)
	f.must(err)
	defer h.Close()
	b, err := io.ReadAll(io.NewSectionReader(h, 0, 1<<40))
	f.must(err)
	return string(b)
}

// tree is everything with its times, by path.
func (f *files) tree() map[string]string {
	f.Helper()
	all := map[string]string{}
	var walk func(dir string)
	walk = func(dir string) {
		d, err := f.Open(dir, store.FlagRead|store.FlagDirectory)
		f.must(err)
		entries, err := d.ReadDir(0, 1<<20)
		f.must(err)
		f.must(d.Close())
		for _, e := range entries {
			p := path.Join(dir, e.Name)
			info, err := f.Stat(p, false)
			f.must(err)
			switch e.Kind {
			case store.KindDir:
				all[p] = "dir"
				walk(p)
			case store.KindLink:
				target, err := f.Readlink(p)
				f.must(err)
				all[p] = fmt.Sprint("link ", target, " ", info.Mtime.UnixNano())
			default:
				text := f.read(p)
				if len(text) > 1000 {
					text = script.DigestOf([]byte(text)).String()
				}
				all[p] = fmt.Sprint("file ", text, " ", info.Mtime.UnixNano())
			}
		}
	}
	walk("/")
	return all
}

// by changes files as something else than a script does.
func (w *world) by(f func(*files)) {
	w.Helper()
	if err := w.s.Update(w.Context(), func(tx store.Tx) error {
		f(&files{w.TB, tx.Files(nil), tx})
		return nil
	}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) tree() (tree map[string]string) {
	w.Helper()
	w.by(func(f *files) { tree = f.tree() })
	return tree
}

func (w *world) private() (tree map[string]string) {
	w.Helper()
	w.by(func(f *files) {
		p := &files{w.TB, f.tx.Private(), f.tx}
		if _, err := p.Stat("/", false); err == nil {
			tree = p.tree()
		}
	})
	return tree
}

// script runs f as a script does, and returns its id and what was kept.
func (w *world) script(f func(*files)) (script.ID, *Kept) {
	w.Helper()
	w.n++
	id := script.ID{byte(w.n), byte(w.n >> 8), 1}
	kept, err := w.run(id, func(tx store.Tx) error {
		f(&files{w.TB, tx.Files(nil), tx})
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	return id, kept
}

func (w *world) run(id script.ID, f func(store.Tx) error) (kept *Kept, err error) {
	ctx := w.Context()
	err = w.s.Update(ctx, func(tx store.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		cs, err := w.h.Changes(ctx, tx, func(string) bool { return false })
		if err != nil {
			return err
		}
		kept, err = w.h.Keep(ctx, tx, id, store.Key(id), cs)
		return err
	})
	if err == nil {
		kept.Committed()
	}
	return kept, err
}

// undo undoes a script, by one of its own, whose id it returns.
func (w *world) undo(id script.ID) (script.ID, error) {
	w.n++
	by := script.ID{byte(w.n), byte(w.n >> 8), 2}
	_, err := w.run(by, func(tx store.Tx) error {
		m, err := w.h.Find(w.Context(), tx, id)
		if err != nil {
			return err
		}
		if m.Script != id {
			w.Errorf("the manifest of %s is of %s", id.Short(), m.Script.Short())
		}
		return m.Undo(w.Context(), tx, records.In(tx.Private(), records.Config{}).As(nil))
	})
	return by, err
}

func (w *world) mustUndo(id script.ID) script.ID {
	w.Helper()
	by, err := w.undo(id)
	if err != nil {
		w.Fatal(err)
	}
	return by
}

// timeless leaves out times: what takes the place of its like is no change, and
// the time is not kept.
func timeless(tree map[string]string) map[string]string {
	for p, s := range tree {
		if s != "dir" {
			tree[p] = s[:strings.LastIndexByte(s, ' ')+1]
		}
	}
	return tree
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if got[p] != want[p] {
			t.Errorf("%s: %s is %.60q, want %.60q", what, p, got[p], want[p])
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s: %s is %.60q, want nothing", what, p, got[p])
		}
	}
}

var long = strings.Repeat("0123456789abcdef", 1<<16+1) // just longer than longFile

// before makes a bit of everything.
func before(f *files) {
	for _, d := range []string{"d", "d/sub", "empty", "moves", "moves/in"} {
		f.must(f.Mkdir(d))
	}
	for _, name := range []string{"a", "b", "d/f", "d/sub/f", "moves/f", "moves/in/f", "edited", "removed", "touched", "kind", "short"} {
		f.write(name, "content of "+name)
		f.must(f.SetTimes(name, false, time.Unix(1, 0), time.Unix(int64(len(name)), 5)))
	}
	for _, name := range []string{"long", "longer", "shorter", "end"} {
		f.write(name, long)
	}
	f.must(f.Symlink("a", "link"))
	f.must(f.Symlink("b", "relinked"))
	f.must(f.SetTimes("link", false, time.Unix(7, 0), time.Unix(8, 0)))
}

var scripts = map[string]func(*files){
	"makes": func(f *files) {
		f.write("new", "new")
		f.must(f.Mkdir("nd"))
		f.write("nd/f", "")
		f.must(f.Symlink("new", "nl"))
	},
	"edits":   func(f *files) { f.write("edited", "else"); f.put("short", "X", 3) },
	"removes": func(f *files) { f.must(f.Unlink("removed")); f.must(f.Unlink("link")); f.must(f.Rmdir("empty")) },
	"removes a tree": func(f *files) {
		f.must(f.Unlink("d/sub/f"))
		f.must(f.Rmdir("d/sub"))
		f.must(f.Unlink("d/f"))
		f.must(f.Rmdir("d"))
	},
	"appends":             func(f *files) { f.put("long", "more", int64(len(long))); f.put("short", "more", 16) },
	"changes ends":        func(f *files) { f.put("end", "END", int64(len(long)-2)); f.cut("shorter", int64(len(long)-9)) },
	"changes a beginning": func(f *files) { f.put("long", "X", 0); f.cut("longer", 3) },
	"touches": func(f *files) {
		f.must(f.SetTimes("touched", true, time.Time{}, time.Unix(1<<40, 1))) // no date that JSON has
		f.must(f.SetTimes("d", true, time.Unix(1, 1), time.Unix(2, 2)))
	},
	"moves": func(f *files) { f.must(f.Rename("a", "c")); f.must(f.Rename("moves", "moved")) },
	"moves over": func(f *files) {
		f.must(f.Rename("a", "b"))
		f.must(f.Rename("edited", "removed"))
		f.write("edited", "again")
	},
	"moves and edits": func(f *files) { f.must(f.Rename("moves", "d/m")); f.write("d/m/in/f", "X"); f.put("d/m/f", "++", 18) },
	"swaps": func(f *files) {
		f.must(f.Rename("a", "t"))
		f.must(f.Rename("b", "a"))
		f.must(f.Rename("t", "b"))
		f.must(f.Rename("d", "t"))
		f.must(f.Rename("moves", "d"))
		f.must(f.Rename("t", "moves"))
	},
	"relinks": func(f *files) { f.must(f.Unlink("relinked")); f.must(f.Symlink("d", "relinked")) },
	"changes kinds": func(f *files) {
		f.must(f.Unlink("kind"))
		f.must(f.Mkdir("kind"))
		f.write("kind/in", "x")
		f.must(f.Unlink("link"))
		f.write("link", "file")
		f.must(f.Rmdir("empty"))
		f.must(f.Symlink("a", "empty"))
	},
	"moves over its like": func(f *files) {
		f.write("like", "content of a")
		f.must(f.Rename("a", "there"))
		f.must(f.Rename("like", "a"))
	},
	"replaces by its like": func(f *files) {
		f.write("b", "content of a")
		f.must(f.Rename("a", "b"))
	},
}

// A script is undone, that is undone, and that again; each leaves everything as
// it was before the one that it undid, times included.
func TestUndo(t *testing.T) {
	for name, does := range scripts {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{})
			w.by(before)
			then := w.tree()
			id, kept := w.script(does)
			if kept.Why != "" || kept.Digest.IsZero() {
				t.Fatalf("it cannot be undone: %q, %v", kept.Why, kept.Digest)
			}
			now := w.tree()
			if maps.Equal(then, now) {
				t.Fatal("it changes nothing")
			}
			check := func(what string, want map[string]string) {
				t.Helper()
				got := w.tree()
				if strings.Contains(name, "like") {
					got, want = timeless(got), timeless(maps.Clone(want))
				}
				same(t, what, got, want)
			}
			undo := w.mustUndo(id)
			check("undone", then)
			redo := w.mustUndo(undo)
			check("and done again", now)
			w.mustUndo(redo)
			check("and undone again", then)
		})
	}
}

// All at once, and in the reverse order.
func TestUndoOfSeveral(t *testing.T) {
	w := newWorld(t, Config{})
	w.by(before)
	states := []map[string]string{w.tree()}
	var ids []script.ID
	for _, name := range []string{"makes", "edits", "appends", "changes ends", "touches", "relinks", "removes", "moves and edits"} {
		id, _ := w.script(scripts[name])
		ids = append(ids, id)
		states = append(states, w.tree())
	}
	for i, id := range slices.Backward(ids) {
		w.mustUndo(id)
		same(t, fmt.Sprint("undone ", i), w.tree(), states[i])
	}
}

func TestConflicts(t *testing.T) {
	for _, test := range []struct {
		name, does string
		after      func(*files)
		want       []string // nil: no conflict
	}{
		{"elsewhere", "edits", func(f *files) { f.write("a", "other") }, nil},
		{"edited", "edits", func(f *files) { f.write("edited", "other") }, []string{"/edited"}},
		{"edited, same size", "edits", func(f *files) { f.put("edited", "E", 0) }, []string{"/edited"}},
		{"written as it was", "edits", func(f *files) { f.write("edited", "else") }, nil},
		{"removed", "edits", func(f *files) { f.must(f.Unlink("edited")); f.must(f.Unlink("short")) }, []string{"/edited", "/short"}},
		{"made again", "removes", func(f *files) { f.write("removed", "new") }, []string{"/removed"}},
		{"another link", "relinks", func(f *files) { f.must(f.Unlink("relinked")); f.must(f.Symlink("a", "relinked")) }, []string{"/relinked"}},
		{"appended to", "appends", func(f *files) { f.put("long", "!", int64(len(long)+4)) }, []string{"/long"}},
		{"appended part changed", "appends", func(f *files) { f.put("long", "!", int64(len(long)+3)) }, []string{"/long"}},
		{"changed before the appended part", "appends", func(f *files) { f.put("long", "!", 3) }, nil},
		{"changed before the end", "changes ends", func(f *files) { f.put("end", "!", 3) }, nil},
		{"end changed", "changes ends", func(f *files) { f.put("end", "!", int64(len(long))) }, []string{"/end"}},
		{"touched", "touches", func(f *files) { f.must(f.SetTimes("touched", true, time.Time{}, time.Unix(9, 0))) }, []string{"/touched"}},
		{"more in its directory", "makes", func(f *files) { f.write("nd/other", "x"); f.must(f.Mkdir("nd/more")) }, []string{"/nd/more", "/nd/other"}},
		{"directory became a link", "moves and edits", func(f *files) {
			f.must(f.Rename("d", "e"))
			f.must(f.Symlink("e", "d"))
		}, []string{"/d"}},
		{"directory became a link, all the same below it", "makes", func(f *files) {
			f.must(f.Rename("nd", "e"))
			f.must(f.Symlink("e", "nd"))
		}, []string{"/nd"}},
		{"file became a link to its like", "edits", func(f *files) {
			f.must(f.Rename("edited", "e"))
			f.must(f.Symlink("e", "edited"))
		}, []string{"/edited"}},
		{"directory removed", "moves and edits", func(f *files) {
			for _, p := range []string{"d/m/f", "d/m/in/f", "d/f", "d/sub/f"} {
				f.must(f.Unlink(p))
			}
			for _, p := range []string{"d/m/in", "d/m", "d/sub", "d"} {
				f.must(f.Rmdir(p))
			}
		}, []string{"/d"}},
		{"directory came back as a file", "removes a tree", func(f *files) { f.write("d", "file") }, []string{"/d"}},
		{"moved on", "moves", func(f *files) { f.must(f.Rename("c", "e")) }, []string{"/c"}},
		{"place taken", "moves", func(f *files) { f.write("a", "new") }, []string{"/a"}},
		{"directory for a file", "edits", func(f *files) { f.must(f.Unlink("edited")); f.must(f.Mkdir("edited")) }, []string{"/edited"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, Config{})
			w.by(before)
			id, _ := w.script(scripts[test.does])
			w.by(test.after)
			now, kept := w.tree(), w.private()
			_, err := w.undo(id)
			if test.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var c *ConflictError
			if !errors.As(err, &c) || !slices.Equal(c.Paths, test.want) || c.Script != id {
				t.Fatalf("%v, want a conflict over %q", err, test.want)
			}
			same(t, "after a conflict", w.tree(), now)
			same(t, "what is kept, after a conflict", w.private(), kept)
		})
	}
}

// random scripts on few names, undone in the reverse order.
func TestRandomScripts(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, Config{})
		pick := func() string {
			p := string(rune('a' + rnd.IntN(3)))
			for rnd.IntN(2) == 0 && len(p) < 5 {
				p += "/" + string(rune('a'+rnd.IntN(3)))
			}
			return p
		}
		var ids []script.ID
		states := []map[string]string{timeless(w.tree())}
		var trail []string
		for range 6 {
			id, kept := w.script(func(f *files) {
				for range 1 + rnd.IntN(8) {
					p, q := pick(), pick()
					var err error
					what := rnd.IntN(8)
					switch what {
					case 0, 1:
						var h store.File
						if h, err = f.Open(p, store.FlagWrite|store.FlagCreate|store.FlagNoFollow); err == nil {
							_, err = h.WriteAt([]byte(strings.Repeat(q, 1+rnd.IntN(3))), int64(rnd.IntN(5)))
							f.must(h.Close())
						}
					case 2:
						err = f.Mkdir(p)
					case 3:
						err = f.Symlink(path.Base(q), p)
					case 4:
						err = f.Unlink(p)
					case 5:
						err = f.Rmdir(p)
					default:
						err = f.Rename(p, q)
					}
					trail = append(trail, fmt.Sprint(what, " ", p, " ", q, ": ", err))
				}
			})
			trail = append(trail, "end")
			if kept.Why != "" {
				t.Fatalf("seed %d: %s", seed, kept.Why)
			}
			ids, states = append(ids, id), append(states, timeless(w.tree()))
		}
		for i, id := range slices.Backward(ids) {
			if maps.Equal(states[i], states[i+1]) {
				continue // it changed nothing, and nothing is kept of it
			}
			if _, err := w.undo(id); err != nil {
				t.Fatalf("seed %d, script %d: %v after\n%s", seed, i, err, strings.Join(trail, "\n"))
			}
			if same(t, fmt.Sprintf("seed %d, undone %d", seed, i), timeless(w.tree()), states[i]); t.Failed() {
				t.Fatal(strings.Join(trail, "\n"))
			}
		}
	}
}
