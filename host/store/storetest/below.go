package storetest

import (
	"errors"

	"github.com/circles-host/circles/host/store"
)

var belowCases = []testCase{
	{"BelowADirectory", below},
	{"BelowADirectoryThatMoves", belowMoved},
	{"BelowADirectoryThatIsGone", belowGone},
	{"BelowAsksTheGuard", belowGuard},
	{"RenameToAnother", renameTo},
}

// under opens a directory, and what is below it.
func (f *files) under(path string) (store.File, *files) {
	f.Helper()
	h := f.open(path, store.FlagRead|store.FlagDirectory)
	fs, err := h.Below()
	f.must(err)
	return h, &files{f.T, fs, f.tx}
}

// below: nothing beside or above the directory can be said, by ".." or by a link.
func below(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("d", "d/e", "other")
		fs.write("f", "beside")
		fs.write("other/f", "other")
		fs.write("d/f", "in d")
		fs.must(fs.Symlink("../other/f", "d/out"))
		fs.must(fs.Symlink("e/../f", "d/in"))
	}, func(fs *files) {
		h, d := fs.under("d")
		for path, want := range map[string]string{"f": "in d", "/f": "in d", "e/../f": "in d", "./in": "in d"} {
			if got := d.read(path); got != want {
				fs.Errorf("%s is %q", path, got)
			}
		}
		for _, path := range []string{"..", "../f", "e/../../f", "out", "../d/f", "/.."} {
			_, err := d.Open(path, store.FlagRead)
			fs.want(store.ErrEscapes, err)
			_, err = d.Stat(path, true)
			fs.want(store.ErrEscapes, err)
		}
		fs.want(store.ErrEscapes, d.Mkdir("../new"))
		fs.want(store.ErrEscapes, d.Rename("f", "../f2"))
		if got := fs.read("d/out"); got != "other" { // from above it is no way out
			fs.Errorf("d/out is %q", got)
		}
		e, inner := d.under("e")
		_, err := inner.Stat("..", true)
		fs.want(store.ErrEscapes, err)
		fs.must(e.Close())
		if i, err := d.Stat(".", true); err != nil || i.Kind != store.KindDir {
			fs.Errorf("itself is %+v, %v", i, err)
		}
		fs.must(h.Close())
		_, err = d.Stat("f", true)
		fs.want(store.ErrClosed, err)
		_, err = h.Below()
		fs.want(store.ErrClosed, err)
		file := fs.open("f", store.FlagRead)
		_, err = file.Below()
		fs.want(store.ErrNotDir, err)
		fs.must(file.Close())
	})
}

// belowMoved: the directory is meant, and not the name that it had.
func belowMoved(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("a", "a/d", "b")
		fs.write("a/d/f", "kept")
	}, func(fs *files) {
		h, d := fs.under("a/d")
		fs.must(fs.Rename("a/d", "b/moved"))
		fs.mkdir("a/d")
		fs.write("a/d/f", "another")
		if got := d.read("f"); got != "kept" {
			fs.Errorf("f is %q", got)
		}
		d.write("g", "new")
		if got := fs.read("b/moved/g"); got != "new" {
			fs.Errorf("g is %q", got)
		}
		_, err := d.Stat("../f", true)
		fs.want(store.ErrEscapes, err)
		fs.must(h.Close())
	})
}

// belowGone: there is nothing, also when another directory has its name.
func belowGone(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("d")
		fs.write("d/f", "old")
	}, func(fs *files) {
		h, d := fs.under("d")
		fs.must(d.Unlink("f"))
		fs.must(fs.Rmdir("d"))
		fs.mkdir("d")
		fs.write("d/f", "new")
		_, err := d.Stat("f", true)
		fs.want(store.ErrNotExist, err)
		_, err = d.Open("g", store.FlagWrite|store.FlagCreate)
		fs.want(store.ErrNotExist, err)
		fs.want(store.ErrNotExist, d.Mkdir("e"))
		fs.must(h.Close())
	})
}

func belowGuard(st *stage) {
	st.discard(func(fs *files) {
		fs.mkdir("d")
		fs.write("d/no", "secret")
		fs.write("d/yes", "public")
		g := fs.as(refusing{"/d/no"})
		_, d := g.under("d")
		_, err := d.Open("no", store.FlagRead)
		fs.want(store.ErrDenied, err)
		fs.want(store.ErrDenied, d.Rename("no", "yes"))
		if got := d.read("yes"); got != "public" {
			fs.Errorf("yes is %q", got)
		}
	})
}

// refusing is a guard that refuses one path.
type refusing struct{ path string }

func (r refusing) Allow(op store.Op, path string) error {
	if path == r.path && op != store.OpStat {
		return errors.New("no")
	}
	return nil
}

func renameTo(st *stage) {
	st.discard(func(fs *files) {
		fs.mkdir("a", "b", "a/sub")
		fs.write("a/f", "F")
		_, a := fs.under("a")
		_, b := fs.under("b")
		fs.must(a.RenameTo("f", b.FS, "g"))
		fs.must(a.RenameTo("sub", b.FS, "sub"))
		fs.want(store.ErrEscapes, a.RenameTo("../b/g", b.FS, "h"))
		fs.want(store.ErrEscapes, b.RenameTo("g", a.FS, "../h"))
		fs.want(store.ErrInvalid, fs.RenameTo("b", b.FS, "in-itself"))
		// Another guard may have another opinion.
		fs.want(store.ErrNotSupported, a.RenameTo("x", fs.tx.Files(nil), "x"))
		fs.wantTree("/a/", "/b/", `/b/g = "F"`, "/b/sub/")
	})
}
