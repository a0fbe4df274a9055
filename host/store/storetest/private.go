package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/circles-host/circles/host/store"
)

var privateCases = []testCase{
	{"PrivateOutOfReach", privateOutOfReach},
	{"PrivateIsAFileSystem", privateIsAFileSystem},
	{"PrivateInTransactions", privateInTransactions},
	{"PrivateMakesNoDirectory", privateMakesNoDirectory},
}

var keptPrivateCases = []testCase{
	{"PrivateKept", privateKept},
}

// privateSpellings are names that some file system takes for PrivateName.
var privateSpellings = []string{
	".circles", ".CIRCLES", ".Circles", ".circle\u017f", ".cir\u200ccles", "\ufeff.circles", ".circles\ufe0f", ".circles.", ".circles ", ".ci\u00adrcles . .",
}

// privateOutOfReach: what the host keeps for itself is, for everybody else, not
// there and cannot be made, by whatever name, path or link, and is no change.
func privateOutOfReach(st *stage) {
	both(st, func(fs *files) {
		p := fs.private()
		p.mkdir("d")
		p.write("d/f", "the host's")
		fs.mkdir("own")
		fs.write("own/f", "x")
	}, func(fs *files) {
		kept := func() {
			fs.Helper()
			fs.private().wantTree("/d/", `/d/f = "the host's"`)
		}
		for _, name := range privateSpellings {
			for _, path := range []string{name, "/" + name, "own/../" + name, name + "/", name + "/d", name + "/d/f", name + "/.", name + "/../own", "link/d/f"} {
				if strings.HasPrefix(path, "link") {
					fs.must(fs.Symlink(name, "link"))
				}
				missing := func(err error) { fs.Helper(); fs.want(store.ErrNotExist, err) }
				_, err := fs.Stat(path, true)
				missing(err)
				_, err = fs.Stat(path, false)
				missing(err)
				_, err = fs.Readlink(path)
				missing(err)
				for _, flag := range []store.Flag{0, store.FlagRead, store.FlagWrite, store.FlagRead | store.FlagDirectory, store.FlagRead | store.FlagNoFollow} {
					_, err = fs.Open(path, flag)
					missing(err)
				}
				missing(fs.SetTimes(path, true, time.Unix(1, 0), time.Unix(1, 0)))
				missing(fs.Unlink(path))
				if !strings.HasSuffix(path, ".") {
					missing(fs.Rmdir(path))
					missing(fs.Rename(path, "own/taken"))
				}
				if strings.HasPrefix(path, "link") {
					// A link there may be made, and leads nowhere.
					_, err = fs.Open("link", store.FlagWrite|store.FlagCreate)
					fs.want(store.ErrDenied, err)
					fs.must(fs.Unlink("link"))
				}
			}
			// Nor can anything come to be there, from which it would be part of
			// the host's directory.
			for _, path := range []string{name, "own/../" + name, name + "/"} {
				fs.want(store.ErrDenied, fs.Mkdir(path))
				fs.want(store.ErrDenied, fs.Rename("own", path))
			}
			fs.want(store.ErrDenied, fs.Symlink("own", name))
			fs.want(store.ErrDenied, fs.Rename("own/f", name))
			for _, flag := range []store.Flag{store.FlagWrite | store.FlagCreate, store.FlagRead | store.FlagCreate | store.FlagExclusive} {
				_, err := fs.Open(name, flag)
				fs.want(store.ErrDenied, err)
			}
			fs.want(store.ErrNotExist, fs.Mkdir(name+"/new"))
			fs.want(store.ErrNotExist, fs.Rename("own", name+"/new"))
			// Elsewhere it is a name as any other.
			fs.must(fs.Mkdir("own/" + name))
			fs.must(fs.Rmdir("own/" + name))
		}
		if got := fs.names("/"); !slices.Equal(got, []string{"own"}) {
			fs.Errorf("the root shows %q", got)
		}
		g := fs.as(guardFunc(func(op store.Op, path string) error {
			if strings.Contains(path, "ircles") {
				fs.Errorf("the guard was asked for %s of %s", opNames[op], path)
			}
			return nil
		}))
		g.names("/")
		fs.wantTree("/own/", `/own/f = "x"`)
		kept()
		// From inside there is no way out either.
		p := fs.private()
		for _, path := range []string{"..", "../own", "d/../../own/f", "/.."} {
			_, err := p.Stat(path, true)
			p.want(store.ErrEscapes, err)
		}
		p.want(store.ErrNotSupported, p.Symlink("../own", "l"))
		list, err := fs.tx.Changes()
		fs.must(err)
		for _, c := range list {
			if strings.Contains(c.Path, "ircles") {
				fs.Errorf("change %+v", c)
			}
		}
	})
}

// privateIsAFileSystem: the host's has the operations that the script's has.
func privateIsAFileSystem(st *stage) {
	both(st, func(fs *files) {
		p := fs.private()
		p.mkdir("a", "a/b", "c")
		p.write("a/b/f", "one")
		p.write("g", "two")
	}, func(fs *files) {
		p := fs.private()
		p.must(p.Rename("a/b", "c/b"))
		p.write("c/b/f", "changed")
		p.must(p.Unlink("g"))
		p.must(p.Rmdir("a"))
		p.must(p.SetTimes("c/b/f", true, time.Unix(5, 0), time.Unix(6, 0)))
		h := p.open("c/b/f", store.FlagRead|store.FlagWrite|store.FlagAppend)
		_, err := h.WriteAt([]byte(" more"), 0)
		p.must(err)
		p.must(h.Close())
		p.want(store.ErrInvalid, p.Rmdir("/"))
		p.want(store.ErrInvalid, p.Rename("c", "/"))
		p.want(store.ErrExists, p.Mkdir("/"))
		if i, err := p.Stat("/", true); err != nil || i.Kind != store.KindDir {
			p.Errorf("its root is %+v, %v", i, err)
		}
		p.wantTree("/c/", "/c/b/", `/c/b/f = "changed more"`)
		fs.wantTree()
		if list, err := fs.tx.Changes(); err != nil || len(list) > 0 {
			fs.Errorf("changes: %+v, %v", list, err)
		}
	})
}

// privateInTransactions: it is rolled back with the rest, a view does not write
// it, and a transaction that changes nothing else is committed.
func privateInTransactions(st *stage) {
	st.discard(func(fs *files) { fs.private().write("f", "never") })
	st.view(func(fs *files) {
		_, err := fs.private().Stat("f", true)
		fs.want(store.ErrNotExist, err)
		_, err = fs.private().Open("f", store.FlagWrite|store.FlagCreate)
		fs.want(store.ErrReadOnly, err)
		fs.want(store.ErrReadOnly, fs.private().Mkdir("d"))
	})
	st.update(func(fs *files) { fs.private().write("f", "old") })
	st.update(func(fs *files) {
		fs.private().write("f", "new")
		fs.write("f", "the script's")
		st.view(func(fs *files) { fs.private().wantTree(`/f = "old"`); fs.wantTree() })
	})
	st.view(func(fs *files) { fs.private().wantTree(`/f = "new"`); fs.wantTree(`/f = "the script's"`) })
}

// privateMakesNoDirectory: looking is not having. A context of which the host
// keeps nothing gets no directory.
func privateMakesNoDirectory(st *stage) {
	st.update(func(fs *files) {
		p := fs.private()
		_, err := p.Stat("/", true)
		fs.want(store.ErrNotExist, err)
		_, err = p.Open("/", store.FlagRead|store.FlagDirectory)
		fs.want(store.ErrNotExist, err)
		_, err = p.Open("f", store.FlagRead)
		fs.want(store.ErrNotExist, err)
		fs.want(store.ErrNotExist, p.Unlink("f"))
		fs.want(store.ErrNotExist, p.Rename("f", "g"))
		fs.write("x", "")
	})
	st.view(func(fs *files) {
		_, err := fs.private().Stat("/", true)
		fs.want(store.ErrNotExist, err)
	})
}

func privateKept(st *stage) {
	for i := range 3 {
		st.update(func(fs *files) {
			p := fs.private()
			p.write(fmt.Sprint("f", i), strings.Repeat("x", i*70_000))
			if i == 1 {
				p.mkdir("d")
				p.must(p.Rename("f0", "d/f0"))
			}
		})
		st.reopen()
	}
	st.view(func(fs *files) {
		if got := fs.private().dump(); len(got) != 4 || got["/d/f0"] != "file " || len(got["/f2"]) != 5+140_000 {
			fs.Errorf("kept: %d entries, %d bytes of f2", len(got), len(got["/f2"]))
		}
		fs.wantTree()
	})
}
