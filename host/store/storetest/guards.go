package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/circles-host/circles/host/store"
)

var guardCases = []testCase{
	{"GuardIsAsked", guardIsAsked},
	{"GuardRefuses", guardRefuses},
	{"GuardNoOracle", guardNoOracle},
	{"RenameLaundering", renameLaundering},
	{"GuardSeesNewPaths", guardSeesNewPaths},
}

// guardFunc is a guard of one function.
type guardFunc func(op store.Op, path string) error

func (g guardFunc) Allow(op store.Op, path string) error { return g(op, path) }

var opNames = map[store.Op]string{
	store.OpRead: "read", store.OpList: "list", store.OpWrite: "write", store.OpRemove: "remove", store.OpStat: "stat",
}

// rules deny or hide what lies at or below a path, for some operations or all.
type rule struct {
	under string
	ops   []store.Op // none: all
	err   error
}

func rules(rs ...rule) store.Guard {
	return guardFunc(func(op store.Op, path string) error {
		for _, r := range rs {
			if (path == r.under || strings.HasPrefix(path, r.under+"/")) && (len(r.ops) == 0 || slices.Contains(r.ops, op)) {
				return r.err
			}
		}
		return nil
	})
}

var errRule = errors.New("a rule of the test")

// guardIsAsked: each operation asks for what it does, of resolved paths.
func guardIsAsked(st *stage) {
	const r, w, c, x, tr = store.FlagRead, store.FlagWrite, store.FlagCreate, store.FlagExclusive, store.FlagTruncate
	open := func(path string, flag store.Flag) func(fs *files) error {
		return func(fs *files) error {
			h, err := fs.Open(path, flag)
			if err == nil {
				h.Close()
			}
			return err
		}
	}
	setup := func(fs *files) {
		fs.mkdir("d", "d/sub")
		fs.write("d/f", "x")
		fs.must(fs.Symlink("d/f", "l"))
		fs.must(fs.Symlink("d", "ld"))
		fs.must(fs.Symlink("../l", "d/chain"))
	}
	both(st, setup, func(fs *files) {
		for _, tc := range []struct {
			name string
			do   func(fs *files) error
			want string
		}{
			{"read", open("d/f", r), "read /d/f"},
			{"write", open("d/f", w), "write /d/f"},
			{"both", open("d/f", r|w), "read /d/f, write /d/f"},
			{"truncate", open("d/f", w|tr), "write /d/f"},
			{"neither", open("d/f", 0), "stat /d/f"},
			{"create what is there", open("d/f", r|c), "read /d/f"},
			{"create exclusively", open("d/f", r|c|x), "read /d/f, write /d/f"},
			{"missing", open("d/none", r), "read /d/none"},
			{"through a link", open("l", r), "stat /l, read /d/f"},
			{"through links", open("ld/chain", w), "stat /ld, stat /d/chain, stat /d, stat /l, write /d/f"},
			{"through a link to the directory", open("ld/f", r), "stat /ld, read /d/f"},
			{"dots", open("/d/sub/.././f", r), "stat /d/sub, read /d/f"},
			{"directory", open("d", r), "stat /d"},
			{"root", open("/", r), ""},
			{"stat", func(fs *files) error { _, err := fs.Stat("l", true); return err }, "stat /l, stat /d/f"},
			{"lstat", func(fs *files) error { _, err := fs.Stat("l", false); return err }, "stat /l"},
			{"stat root", func(fs *files) error { _, err := fs.Stat(".", true); return err }, ""},
			{"readlink", func(fs *files) error { _, err := fs.Readlink("l"); return err }, "read /l"},
			{"times", func(fs *files) error { return fs.SetTimes("l", true, time.Now(), time.Now()) }, "stat /l, write /d/f"},
			{"link times", func(fs *files) error { return fs.SetTimes("l", false, time.Now(), time.Now()) }, "write /l"},
			{"times of a file open for reading", func(fs *files) error { return fs.open("d/f", r).SetTimes(time.Now(), time.Now()) }, "read /d/f, write /d/f"},
			{"times of a file open for writing", func(fs *files) error { return fs.open("d/f", w).SetTimes(time.Now(), time.Now()) }, "write /d/f"},
			{"list", func(fs *files) error { _, err := fs.open("d/sub", r).ReadDir(0, 9); return err }, "stat /d/sub, list /d/sub"},
			{"list root", func(fs *files) error { _, err := fs.open(".", r).ReadDir(0, 9); return err }, "list /, stat /d, stat /l, stat /ld"},
			{"mkdir", func(fs *files) error { return fs.Mkdir("d/new") }, "write /d/new"},
			{"create", open("d/made", r|c), "read /d/made, write /d/made"},
			{"symlink", func(fs *files) error { return fs.Symlink("f", "ld/s") }, "stat /ld, write /d/s"},
			{"rename file", func(fs *files) error { return fs.Rename("d/made", "ld/made2") }, "remove /d/made, stat /ld, write /d/made2, read /d/made"},
			{"rename directory", func(fs *files) error { return fs.Rename("d", "e") },
				"remove /d, write /e, list /d, " +
					"read /d/chain, read /d/f, read /d/made2, read /d/s, " +
					"list /d/new, list /d/sub, " +
					"remove /d/chain, remove /d/f, remove /d/made2, remove /d/new, remove /d/s, remove /d/sub, " +
					"write /e/chain, write /e/f, write /e/made2, write /e/new, write /e/s, write /e/sub"},
			{"unlink", func(fs *files) error { return fs.Unlink("e/f") }, "remove /e/f"},
			{"unlink link", func(fs *files) error { return fs.Unlink("ld") }, "remove /ld"},
			{"rmdir", func(fs *files) error { return fs.Rmdir("e/sub") }, "remove /e/sub"},
		} {
			var asked []string
			g := fs.as(guardFunc(func(op store.Op, path string) error {
				asked = append(asked, opNames[op]+" "+path)
				return nil
			}))
			err := tc.do(g)
			if err != nil && !strings.HasPrefix(tc.name, "create excl") && tc.name != "missing" {
				fs.Fatalf("%s: %v", tc.name, err)
			}
			got, want := slices.Clone(asked), strings.Split(tc.want, ", ")
			if tc.want == "" {
				want = nil
			}
			if len(want) > 5 || strings.HasPrefix(tc.name, "list") { // a directory's names come in no order
				slices.Sort(got)
				slices.Sort(want)
			}
			if !slices.Equal(got, want) {
				fs.Errorf("%s asked for %q, want %q", tc.name, got, want)
			}
		}
	})
}

// guardRefuses: a refusal is ErrDenied with its cause, hidden is absent, and
// nothing is changed by what was refused.
func guardRefuses(st *stage) {
	const r, w, c = store.FlagRead, store.FlagWrite, store.FlagCreate
	both(st, func(fs *files) {
		fs.mkdir("p", "pub", "p/empty")
		fs.write("p/f", "secret")
		fs.write("pub/f", "x")
		fs.must(fs.Symlink("../p/f", "pub/l"))
		fs.must(fs.Symlink("../p", "pub/ld"))
		fs.must(fs.Symlink("x", "p/link"))
	}, func(fs *files) {
		before := fs.tree()
		for _, v := range []struct {
			err  error
			want error
		}{{errRule, store.ErrDenied}, {store.ErrHidden, store.ErrNotExist}, {fmt.Errorf("wrapped: %w", store.ErrHidden), store.ErrNotExist}} {
			g := fs.as(rules(rule{under: "/p", err: v.err}))
			for name, err := range map[string]error{
				"open":            func() error { _, err := g.Open("p/f", r); return err }(),
				"open for write":  func() error { _, err := g.Open("p/f", w); return err }(),
				"create":          func() error { _, err := g.Open("p/new", w|c); return err }(),
				"open directory":  func() error { _, err := g.Open("p", r); return err }(),
				"through link":    func() error { _, err := g.Open("pub/l", r); return err }(),
				"through dirlink": func() error { _, err := g.Open("pub/ld/f", r); return err }(),
				"create by link":  func() error { _, err := g.Open("pub/ld/new", w|c); return err }(),
				"stat":            func() error { _, err := g.Stat("p/f", true); return err }(),
				"stat by link":    func() error { _, err := g.Stat("pub/l", true); return err }(),
				"readlink":        func() error { _, err := g.Readlink("p/link"); return err }(),
				"mkdir":           g.Mkdir("p/new"),
				"mkdir existing":  g.Mkdir("p/empty"),
				"rmdir":           g.Rmdir("p/empty"),
				"unlink":          g.Unlink("p/f"),
				"unlink by link":  g.Unlink("pub/ld/f"),
				"symlink":         g.Symlink("x", "p/new"),
				"rename out":      g.Rename("p/f", "stolen"),
				"rename all":      g.Rename("p", "stolen"),
				"rename in":       g.Rename("pub/f", "p/f"),
				"rename by link":  g.Rename("pub/ld/f", "stolen"),
				"times":           g.SetTimes("p/f", true, time.Now(), time.Now()),
			} {
				if fs.want(v.want, err); v.err == errRule && !errors.Is(err, errRule) {
					fs.Errorf("%s: %v does not name its cause", name, err)
				}
				if fs.Failed() {
					fs.Fatal(name)
				}
			}
			if got := g.names("/"); slices.Contains(got, "p") != (v.err == errRule) || !slices.Contains(got, "pub") {
				fs.Errorf("with %v the root lists %q", v.err, got)
			}
			// A directory that seems empty but is not stays.
			h := fs.as(rules(rule{under: "/p/f", err: store.ErrHidden}, rule{under: "/p/link", err: store.ErrHidden}, rule{under: "/p/empty", err: store.ErrHidden}))
			if got := h.names("p"); len(got) != 0 {
				fs.Errorf("hidden names show: %q", got)
			}
			fs.want(store.ErrNotEmpty, h.Rmdir("p"))
		}
		if after := fs.tree(); after != before {
			fs.Errorf("refused operations left\n%s", after)
		}
		// Listing needs OpList, opening does not.
		g := fs.as(rules(rule{"/p", []store.Op{store.OpList}, errRule}))
		h := g.open("p", r)
		_, err := h.ReadDir(0, 1)
		fs.want(store.ErrDenied, err)
	})
}

// guardNoOracle: whether something is there must not show where the guard keeps
// it back: not by the kind of error, nor by a way through it.
func guardNoOracle(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("s", "s/d", "s/d/e")
		fs.write("s/f", "x")
		fs.write("pub", "x")
		fs.must(fs.Symlink("../pub", "s/l"))
		fs.must(fs.Symlink("nowhere", "s/dangling"))
		fs.must(fs.Symlink("s/l", "in"))
		fs.must(fs.Symlink("s/none/x", "in2"))
	}, func(fs *files) {
		for _, v := range []struct{ err, want error }{{errRule, store.ErrDenied}, {store.ErrHidden, store.ErrNotExist}} {
			g := fs.as(rules(rule{under: "/s", err: v.err}))
			for _, p := range []string{
				"s", "s/", "s/f", "s/f/", "s/f/x", "s/none", "s/none/", "s/none/x", "s/d", "s/d/", "s/d/none", "s/d/e/..", "s/d/..",
				"s/d/../../pub", "s/none/../../pub", "s/f/../../pub", "s/l", "s/l/", "s/dangling", "s/dangling/x", "s/l/../pub", "in", "in2",
				"s/d/e/../../../pub", "s/..", "s/../pub", "s/" + strings.Repeat("n/", 10),
			} {
				_, err := g.Stat(p, true)
				if fs.want(v.want, err); fs.Failed() {
					fs.Fatalf("stat %s", p)
				}
				_, err = g.Open(p, store.FlagRead)
				if fs.want(v.want, err); fs.Failed() {
					fs.Fatalf("open %s", p)
				}
				if _, err = g.Open(p, store.FlagWrite|store.FlagCreate|store.FlagExclusive); !errors.Is(err, v.want) && p != "in" && p != "in2" {
					fs.Fatalf("create %s: %v", p, err)
				}
				if err = g.Rename(p, "x"); !errors.Is(err, v.want) && p != "in" && p != "in2" {
					fs.Fatalf("rename %s: %v", p, err)
				}
				if p == "in" || p == "in2" {
					fs.Rename("x", p)
				}
			}
		}
	})
}

// renameLaundering: a rename carries everything below along, from under one rule
// to under another.
func renameLaundering(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("d", "d/sub", "d/sub/deep", "pub", "inbox")
		fs.write("d/sub/deep/secret", "secret")
		fs.write("d/open", "x")
		fs.write("inbox/tmp", "x")
	}, func(fs *files) {
		secret := func(ops ...store.Op) rule { return rule{"/d/sub/deep/secret", ops, errRule} }
		before := fs.tree()
		for name, g := range map[string]store.Guard{
			"unreadable":            rules(secret(store.OpRead)),
			"not to be removed":     rules(secret(store.OpRemove)),
			"all denied":            rules(secret()),
			"hidden":                rules(rule{"/d/sub/deep/secret", nil, store.ErrHidden}),
			"not listed":            rules(rule{"/d/sub/deep", []store.Op{store.OpList}, errRule}),
			"new path not writable": rules(rule{"/pub/d/sub/deep/secret", []store.Op{store.OpWrite}, errRule}),
			"directory":             rules(rule{"/pub/d/sub", []store.Op{store.OpWrite}, errRule}),
		} {
			if fs.want(store.ErrDenied, fs.as(g).Rename("d", "pub/d")); fs.Failed() {
				fs.Fatal(name)
			}
		}
		// In two steps, in pieces, or by way of a place without rules.
		g := fs.as(rules(secret(store.OpRead)))
		fs.want(store.ErrDenied, g.Rename("d/sub/deep/secret", "pub/secret"))
		fs.want(store.ErrDenied, g.Rename("d/sub/deep", "pub/deep"))
		fs.want(store.ErrDenied, g.Rename("d/sub", "d/sub2"))
		if after := fs.tree(); after != before {
			fs.Errorf("refused renames left\n%s", after)
		}
		// What may not be read at either path may move: nothing is gained.
		drop := fs.as(rules(rule{"/inbox", []store.Op{store.OpRead, store.OpList}, errRule}))
		fs.must(drop.Rename("inbox/tmp", "inbox/final"))
		fs.want(store.ErrDenied, drop.Rename("inbox/final", "pub/final"))
		// And what is allowed everywhere moves.
		fs.must(fs.as(rules()).Rename("d", "pub/d"))
		if got := fs.read("pub/d/sub/deep/secret"); got != "secret" {
			fs.Errorf("moved: %q", got)
		}
		// A rule for the new path holds from then on, also for what loads later.
		_, err := fs.as(rules(rule{under: "/pub/d/sub", err: errRule})).Open("pub/d/sub/deep/secret", store.FlagRead)
		fs.want(store.ErrDenied, err)
	})
}

// guardSeesNewPaths: an open directory is asked about by the path it has now.
func guardSeesNewPaths(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("a", "a/d")
		fs.write("a/d/f", "x")
	}, func(fs *files) {
		g := fs.as(rules(rule{"/b", []store.Op{store.OpList}, errRule}))
		dir := g.open("a/d", store.FlagRead)
		fs.must(fs.Rename("a", "b"))
		_, err := dir.ReadDir(0, 9)
		fs.want(store.ErrDenied, err)
	})
}
