package storetest

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
)

var fileCases = []testCase{
	{"OpenFlags", openFlags},
	{"Paths", paths},
	{"Names", names},
	{"ReadAndWrite", readAndWrite},
	{"Append", appendMode},
	{"Truncate", truncate},
	{"Directories", directories},
	{"ReadDirWhileRemoving", readDirWhileRemoving},
	{"Unlink", unlink},
	{"UnlinkedStaysOpen", unlinkedStaysOpen},
	{"RenameErrors", renameErrors},
	{"Renames", renames},
	{"RenameOfOpenFile", renameOfOpenFile},
	{"Times", times},
	{"Inodes", inodes},
	{"AfterTheEnd", afterTheEnd},
	{"ReadOnly", readOnly},
}

// both runs f twice: on files made in the same transaction, and on files that
// were committed before. What a guest sees must not depend on that.
func both(st *stage, setup, f func(fs *files)) {
	st.Helper()
	st.Run("uncommitted", func(t *testing.T) {
		sub := &stage{T: t, s: st.s}
		sub.discard(func(fs *files) { setup(fs); f(fs) })
	})
	st.Run("committed", func(t *testing.T) {
		sub := &stage{T: t, s: st.s}
		sub.update(setup)
		sub.discard(f)
	})
}

func openFlags(st *stage) {
	const r, w, c, x, tr = store.FlagRead, store.FlagWrite, store.FlagCreate, store.FlagExclusive, store.FlagTruncate
	const dir, nofollow = store.FlagDirectory, store.FlagNoFollow
	both(st, func(fs *files) {
		fs.mkdir("d")
		fs.write("f", "content")
		fs.must(fs.Symlink("f", "l"))
		fs.must(fs.Symlink("d", "ld"))
		fs.must(fs.Symlink("missing", "dangling"))
	}, func(fs *files) {
		for _, tc := range []struct {
			path string
			flag store.Flag
			want error
		}{
			{"f", r, nil}, {"f", r | w, nil}, {"f", 0, nil}, {"f", w | tr, nil}, {"f", r | c, nil},
			{"f", r | c | x, store.ErrExists}, {"f", w | c | x, store.ErrExists},
			{"f", r | dir, store.ErrNotDir}, {"f/", r, store.ErrNotDir}, {"f/.", r, store.ErrNotDir}, {"f/x", r, store.ErrNotDir},
			{"f", r | nofollow, nil},
			{"missing", r, store.ErrNotExist}, {"missing", w, store.ErrNotExist}, {"missing/", r | dir, store.ErrNotExist},
			{"missing/x", r | c, store.ErrNotExist}, {"new/", w | c, store.ErrIsDir},
			{"d", r, nil}, {"d", 0, nil}, {"d", r | dir, nil}, {"d/", r, nil}, {"d/.", r, nil}, {"d", r | nofollow | dir, nil},
			{"d", w, store.ErrIsDir}, {"d", r | w | tr, store.ErrIsDir}, {"d", r | c, store.ErrIsDir}, {"d", r | c | x, store.ErrExists},
			{"/", r, nil}, {".", r | dir, nil}, {"./", r, nil}, {"d/..", r, nil}, {"", r, store.ErrNotExist},
			{"l", r, nil}, {"l", r | nofollow, store.ErrLoop}, {"l", w | c | x, store.ErrExists}, {"l/", r, store.ErrNotDir},
			{"ld", r | dir, nil}, {"ld", r | dir | nofollow, store.ErrLoop}, {"ld/", r | dir | nofollow, nil},
			{"dangling", r, store.ErrNotExist}, {"dangling", w | c | x, store.ErrExists}, {"dangling", w | c | nofollow, store.ErrLoop},
			{"f", r | tr, store.ErrInvalid}, {"f", r | x, store.ErrInvalid}, {"new", w | c | dir, store.ErrInvalid}, {"f", 1 << 12, store.ErrInvalid},
		} {
			h, err := fs.Open(tc.path, tc.flag)
			if err == nil {
				fs.must(h.Close())
			}
			if fs.want(tc.want, err); fs.Failed() {
				fs.Fatalf("open %q with %b", tc.path, tc.flag)
			}
		}
		// Creating through a dangling link makes what it points to.
		fs.write("dangling", "x")
		if got := fs.read("missing"); got != "x" {
			fs.Errorf("through the link %q was written", got)
		}
		// A handle does what it was opened for.
		h := fs.open("missing", store.FlagWrite)
		_, err := h.ReadAt(make([]byte, 1), 0)
		fs.want(store.ErrBadFile, err)
		_, err = h.ReadDir(0, 1)
		fs.want(store.ErrNotDir, err)
		fs.must(h.Close())
		fs.want(store.ErrClosed, h.Close())
		_, err = h.Stat()
		fs.want(store.ErrClosed, err)
		h = fs.open("missing", store.FlagRead)
		_, err = h.WriteAt([]byte("x"), 0)
		fs.want(store.ErrBadFile, err)
		fs.want(store.ErrBadFile, h.Truncate(0))
		h = fs.open("d", store.FlagRead)
		_, err = h.ReadAt(make([]byte, 1), 0)
		fs.want(store.ErrIsDir, err)
		_, err = h.WriteAt([]byte("x"), 0)
		fs.want(store.ErrIsDir, err)
	})
}

func paths(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("a", "a/b")
		fs.write("a/b/f", "deep")
		fs.write("f", "top")
	}, func(fs *files) {
		for path, want := range map[string]string{
			"f": "top", "/f": "top", "//f": "top", "./f": "top", "a/../f": "top", "a/b/../../f": "top", "/a/./b//../../f": "top",
			"a/b/f": "deep", "/a/b/f": "deep", "a/../a/b/f": "deep",
		} {
			if got := fs.read(path); got != want {
				fs.Errorf("%q holds %q, want %q", path, got, want)
			}
		}
		for path, want := range map[string]error{
			"..": store.ErrEscapes, "/..": store.ErrEscapes, "../f": store.ErrEscapes, "a/../../f": store.ErrEscapes, "a/b/../../..": store.ErrEscapes,
			"missing/../f": store.ErrNotExist, "f/../f": store.ErrNotDir,
			"a\x00b": store.ErrInvalid, "\x00": store.ErrInvalid, "a/\xff": store.ErrInvalid, "\xc3\x28": store.ErrInvalid,
			strings.Repeat("n", 256):                        store.ErrNameTooLong,
			strings.Repeat("a/../", 900) + "f":              store.ErrNameTooLong,
			strings.Repeat("/", 4097):                       store.ErrNameTooLong,
			"missing/" + strings.Repeat("n", 256):           store.ErrNotExist,
			strings.Repeat("a/", 200):                       store.ErrNotExist,
			strings.Repeat("a/b/../../", 400) + "f":         nil,
			strings.Repeat("./", 2000) + "f":                nil,
			"a/b/" + strings.Repeat("n", 255):               store.ErrNotExist,
			strings.Repeat("a/../", 800) + "..":             store.ErrEscapes,
			"a/" + strings.Repeat("../a/", 300) + "../../f": store.ErrEscapes,
		} {
			_, err := fs.Stat(path, true)
			if fs.want(want, err); fs.Failed() {
				fs.Fatalf("stat %.40q", path)
			}
			if want == nil {
				continue
			}
			// The same from every other operation. Not which error: that it is one.
			for op, f := range map[string]func(string) error{
				"open":     func(p string) error { _, err := fs.Open(p, store.FlagRead); return err },
				"lstat":    func(p string) error { _, err := fs.Stat(p, false); return err },
				"readlink": func(p string) error { _, err := fs.Readlink(p); return err },
				"rmdir":    fs.Rmdir,
				"unlink":   fs.Unlink,
				"from":     func(p string) error { return fs.Rename(p, "x") },
				"times":    func(p string) error { return fs.SetTimes(p, true, time.Now(), time.Now()) },
			} {
				if err := f(path); err == nil {
					fs.Fatalf("%s %.40q succeeds", op, path)
				}
			}
			if want != store.ErrNotExist {
				for op, f := range map[string]func(string) error{
					"create":  func(p string) error { _, err := fs.Open(p, store.FlagWrite|store.FlagCreate); return err },
					"mkdir":   fs.Mkdir,
					"symlink": func(p string) error { return fs.Symlink("x", p) },
					"to":      func(p string) error { return fs.Rename("f", p) },
				} {
					if err := f(path); err == nil {
						fs.Fatalf("%s %.40q succeeds", op, path)
					}
				}
			}
		}
		// The root and dots name nothing that could be made or removed.
		for _, p := range []string{"/", ".", "a/.", "a/b/.."} {
			if fs.Rmdir(p) == nil || fs.Unlink(p) == nil || fs.Rename(p, "x") == nil || fs.Rename("a", p) == nil || fs.Mkdir(p) == nil || fs.Symlink("x", p) == nil {
				fs.Errorf("%q was changed", p)
			}
		}
		fs.wantTree(`/a/`, `/a/b/`, `/a/b/f = "deep"`, `/f = "top"`)
	})
}

// names: the depth of a tree is bounded, also when it grows by renames.
func names(st *stage) {
	const depth = 128
	st.discard(func(fs *files) {
		deep := func(root string, n int) string {
			fs.mkdir(root)
			p := root
			for range n - 1 {
				p += "/d"
				fs.mkdir(p)
			}
			return p
		}
		full := deep("full", depth)
		fs.want(store.ErrNameTooLong, fs.Mkdir(full+"/d"))
		_, err := fs.Open(full+"/f", store.FlagWrite|store.FlagCreate)
		fs.want(store.ErrNameTooLong, err)

		half := deep("half", depth/2)
		tail := deep("tail", depth/2)
		fs.must(fs.Rename("tail", half+"/t"))
		fs.must(fs.Rename(half+"/t", "tail"))
		fs.mkdir(tail + "/d")
		fs.want(store.ErrNameTooLong, fs.Rename("tail", half+"/t"))

		// The length of a whole path is bounded too.
		long, name := "", "/"+strings.Repeat("n", 254)
		for range 16 {
			long += name
			fs.mkdir(long)
		}
		fs.want(store.ErrNameTooLong, fs.Mkdir(long+"/"+strings.Repeat("n", 100)))
		fs.mkdir("short", "short/"+strings.Repeat("n", 100))
		fs.want(store.ErrNameTooLong, fs.Rename("short", long+"/s"))
	})
}

func readAndWrite(st *stage) {
	big := strings.Repeat("0123456789abcdef", 8<<10)
	both(st, func(fs *files) {
		fs.write("f", "hello world")
		fs.write("big", big)
	}, func(fs *files) {
		h := fs.open("f", store.FlagRead|store.FlagWrite)
		buf := make([]byte, 5)
		n, err := h.ReadAt(buf, 6)
		if fs.must(err); string(buf[:n]) != "world" {
			fs.Errorf("read %q", buf[:n])
		}
		n, err = h.ReadAt(buf, 8)
		if n != 3 || err != io.EOF {
			fs.Errorf("read at the end: %d, %v", n, err)
		}
		n, err = h.ReadAt(buf, 1000)
		if n != 0 || err != io.EOF {
			fs.Errorf("read past the end: %d, %v", n, err)
		}
		if n, err := h.ReadAt(nil, 1000); n != 0 || err != nil {
			fs.Errorf("empty read: %d, %v", n, err)
		}
		_, err = h.ReadAt(buf, -1)
		fs.want(store.ErrInvalid, err)
		_, err = h.WriteAt(buf, -1)
		fs.want(store.ErrInvalid, err)
		_, err = h.WriteAt(buf, 1<<62)
		fs.want(store.ErrTooBig, err)
		_, err = h.WriteAt(buf, 1<<63-1)
		fs.want(store.ErrTooBig, err)
		fs.want(store.ErrTooBig, h.Truncate(1<<62))
		if n, err := h.WriteAt(nil, 5000); n != 0 || err != nil {
			fs.Errorf("empty write: %d, %v", n, err)
		}
		if got := fs.all(h); got != "hello world" {
			fs.Errorf("failed and empty writes left %q", got)
		}

		// Handles of one file see one content, whenever they were opened.
		other := fs.open("f", store.FlagRead)
		_, err = h.WriteAt([]byte("J"), 0)
		fs.must(err)
		_, err = h.WriteAt([]byte("!"), 14)
		fs.must(err)
		const want = "Jello world\x00\x00\x00!"
		if got := fs.all(other); got != want {
			fs.Errorf("the other handle reads %q", got)
		}
		if i, err := other.Stat(); err != nil || i.Size != int64(len(want)) || i.Kind != store.KindFile {
			fs.Errorf("stat: %+v, %v", i, err)
		}
		fs.must(h.Close())
		fs.must(other.Close())
		if got := fs.read("f"); got != want {
			fs.Errorf("the file holds %q", got)
		}

		b := fs.open("big", store.FlagRead|store.FlagWrite)
		_, err = b.WriteAt([]byte("X"), 70000)
		fs.must(err)
		if got := fs.all(b); got != big[:70000]+"X"+big[70001:] {
			fs.Error("a write in the middle of a large file changed the rest")
		}
		// Far behind the end, with a hole between that reads as zeros.
		_, err = b.WriteAt([]byte("end"), 100<<20)
		fs.must(err)
		hole := make([]byte, 10)
		_, err = b.ReadAt(hole, 50<<20)
		if fs.must(err); string(hole) != strings.Repeat("\x00", 10) {
			fs.Errorf("the hole holds %q", hole)
		}
	})
}

func appendMode(st *stage) {
	both(st, func(fs *files) { fs.write("log", "one\n") }, func(fs *files) {
		a := fs.open("log", store.FlagWrite|store.FlagAppend)
		b := fs.open("log", store.FlagWrite|store.FlagAppend|store.FlagRead)
		for i, h := range []store.File{a, b, a} {
			_, err := h.WriteAt(fmt.Appendf(nil, "%d\n", i), 0)
			fs.must(err)
		}
		if got := fs.all(b); got != "one\n0\n1\n2\n" {
			fs.Errorf("appended %q", got)
		}
	})
}

func truncate(st *stage) {
	both(st, func(fs *files) { fs.write("f", "content") }, func(fs *files) {
		h := fs.open("f", store.FlagRead|store.FlagWrite)
		fs.want(store.ErrInvalid, h.Truncate(-1))
		for _, tc := range []struct {
			size int64
			want string
		}{{7, "content"}, {4, "cont"}, {6, "cont\x00\x00"}, {0, ""}, {2, "\x00\x00"}} {
			fs.must(h.Truncate(tc.size))
			if got := fs.all(h); got != tc.want {
				fs.Errorf("truncated to %d: %q, want %q", tc.size, got, tc.want)
			}
		}
		_, err := h.WriteAt([]byte("new"), 1)
		fs.must(err)
		fs.must(fs.open("f", store.FlagWrite|store.FlagTruncate).Close())
		if got := fs.all(h); got != "" {
			fs.Errorf("opening with truncation left %q", got)
		}
	})
}

func directories(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("d", "d/sub", "empty")
		fs.write("d/f", "x")
		fs.write("f", "x")
		fs.must(fs.Symlink("empty", "l"))
	}, func(fs *files) {
		for path, want := range map[string]error{
			"d": store.ErrNotEmpty, "f": store.ErrNotDir, "f/": store.ErrNotDir, "l": store.ErrNotDir, "l/": store.ErrNotDir,
			"missing": store.ErrNotExist, "/": store.ErrInvalid, "empty/.": store.ErrInvalid,
		} {
			fs.want(want, fs.Rmdir(path))
		}
		for path, want := range map[string]error{
			"d": store.ErrExists, "f": store.ErrExists, "l": store.ErrExists, "l/": store.ErrExists, "/": store.ErrExists, "d/..": store.ErrExists,
			"missing/d": store.ErrNotExist, "f/d": store.ErrNotDir,
		} {
			fs.want(want, fs.Mkdir(path))
		}
		fs.must(fs.Rmdir("empty/"))
		fs.mkdir("empty/")
		fs.must(fs.Rmdir("d/sub"))
		fs.must(fs.Unlink("d/f"))
		fs.must(fs.Rmdir("d"))
		_, err := fs.Stat("d", true)
		fs.want(store.ErrNotExist, err)
		// A directory made where one was removed shows nothing of the old one.
		fs.mkdir("d")
		if got := fs.names("d"); len(got) > 0 {
			fs.Errorf("new directory holds %q", got)
		}
		if i, err := fs.Stat("d", true); err != nil || i.Kind != store.KindDir || i.Size != 0 {
			fs.Errorf("stat: %+v, %v", i, err)
		}

		// ReadDir in pieces, in name order.
		want := []string{}
		for i := range 25 {
			name := fmt.Sprintf("f%02d", i)
			fs.write("d/"+name, "")
			want = append(want, name)
		}
		h := fs.open("d", store.FlagRead)
		var got []string
		for {
			list, err := h.ReadDir(len(got), 7)
			fs.must(err)
			for _, e := range list {
				got = append(got, e.Name)
				if i, err := fs.Stat("d/"+e.Name, false); err != nil || i.Inode != e.Inode || e.Kind != store.KindFile {
					fs.Errorf("entry %+v, stat %+v, %v", e, i, err)
				}
			}
			if len(list) < 7 {
				break
			}
		}
		if !slices.Equal(got, want) {
			fs.Errorf("listed %q", got)
		}
		if list, err := h.ReadDir(25, 1); len(list) != 0 || err != nil {
			fs.Errorf("after the end: %v, %v", list, err)
		}
		_, err = h.ReadDir(-1, 1)
		fs.want(store.ErrInvalid, err)
		if list, err := h.ReadDir(1<<62, 1<<62); len(list) != 0 || err != nil {
			fs.Errorf("far after the end: %v, %v", list, err)
		}
		// From the beginning again shows what changed meanwhile.
		fs.write("d/a-late", "")
		list, err := h.ReadDir(0, 1)
		if err != nil || len(list) != 1 || list[0].Name != "a-late" {
			fs.Errorf("read again: %v, %v", list, err)
		}
	})
}

// readDirWhileRemoving: rm -r reads on while it removes, and must not skip.
func readDirWhileRemoving(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("d")
		for i := range 40 {
			fs.write(fmt.Sprintf("d/%02d", i), "")
		}
	}, func(fs *files) {
		h := fs.open("d", store.FlagRead)
		for at := 0; ; {
			list, err := h.ReadDir(at, 3)
			fs.must(err)
			for _, e := range list {
				fs.must(fs.Unlink("d/" + e.Name))
			}
			if at += len(list); len(list) < 3 {
				break
			}
		}
		fs.must(fs.Rmdir("d"))
		if list, err := h.ReadDir(0, 10); err != nil || len(list) != 0 {
			fs.Errorf("a removed directory lists %v, %v", list, err)
		}
	})
}

func unlink(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("d")
		fs.write("f", "x")
		fs.write("g", "x")
		fs.must(fs.Symlink("f", "l"))
	}, func(fs *files) {
		for path, want := range map[string]error{
			"d": store.ErrIsDir, "d/": store.ErrIsDir, "/": store.ErrIsDir, "f/": store.ErrNotDir, "l/": store.ErrNotDir,
			"missing": store.ErrNotExist, "f/x": store.ErrNotDir,
		} {
			fs.want(want, fs.Unlink(path))
		}
		fs.must(fs.Unlink("l"))
		if got := fs.read("f"); got != "x" {
			fs.Errorf("removing the link left %q", got)
		}
		fs.must(fs.Unlink("f"))
		fs.want(store.ErrNotExist, fs.Unlink("f"))
		fs.write("f", "again")
		fs.must(fs.Unlink("f"))
		fs.mkdir("f")
		fs.wantTree("/d/", "/f/", `/g = "x"`)
	})
}

func unlinkedStaysOpen(st *stage) {
	both(st, func(fs *files) { fs.write("f", "content") }, func(fs *files) {
		r := fs.open("f", store.FlagRead)
		w := fs.open("f", store.FlagRead|store.FlagWrite)
		fs.must(fs.Unlink("f"))
		fs.write("f", "another")
		if got := fs.all(r); got != "content" {
			fs.Errorf("the removed file reads %q", got)
		}
		_, err := w.WriteAt([]byte("C"), 0)
		fs.must(err)
		if got := fs.all(r); got != "Content" {
			fs.Errorf("the removed file reads %q after a write", got)
		}
		fs.must(r.Close())
		fs.must(w.Close())
		if got := fs.read("f"); got != "another" {
			fs.Errorf("the new file reads %q", got)
		}
		// Replaced by rename is removed as well.
		r = fs.open("f", store.FlagRead)
		fs.write("g", "third")
		fs.must(fs.Rename("g", "f"))
		if got := fs.all(r); got != "another" {
			fs.Errorf("the replaced file reads %q", got)
		}
	})
}

func renameErrors(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("d", "d/sub", "empty", "full")
		fs.write("full/x", "x")
		fs.write("f", "f")
		fs.write("g", "g")
		fs.must(fs.Symlink("d", "l"))
	}, func(fs *files) {
		before := fs.tree()
		for _, tc := range []struct {
			from, to string
			want     error
		}{
			{"missing", "x", store.ErrNotExist}, {"f", "missing/x", store.ErrNotExist}, {"f", "g/x", store.ErrNotDir},
			{"f", "d", store.ErrIsDir}, {"d", "f", store.ErrNotDir}, {"d", "full", store.ErrNotEmpty},
			{"d", "d/sub/x", store.ErrInvalid}, {"d", "d/x", store.ErrInvalid}, {"d", "l/x", store.ErrInvalid}, {"d/sub", "d", store.ErrNotEmpty},
			{"f/", "x", store.ErrNotDir}, {"f", "x/", store.ErrNotDir}, {"l/", "x", store.ErrNotDir},
			{"d/.", "x", store.ErrInvalid}, {"d/sub/..", "x", store.ErrInvalid}, {"/", "x", store.ErrInvalid}, {"d", "/", store.ErrInvalid}, {"d", "empty/.", store.ErrInvalid},
			{"f", "f", nil}, {"d", "d", nil}, {"d", "l/../d", nil}, {"d/sub", "l/sub", nil},
		} {
			if fs.want(tc.want, fs.Rename(tc.from, tc.to)); fs.Failed() {
				fs.Fatalf("rename %s to %s", tc.from, tc.to)
			}
		}
		if after := fs.tree(); after != before {
			fs.Errorf("renames that failed, or did nothing, left\n%s", after)
		}
	})
}

func renames(st *stage) {
	setup := func(fs *files) {
		fs.mkdir("d", "d/sub", "d/sub/deep", "empty")
		fs.write("d/sub/deep/f", "deep")
		fs.write("d/f", "in d")
		fs.write("a", "A")
		fs.write("b", "B")
		fs.must(fs.Symlink("a", "l"))
	}
	for _, tc := range []struct {
		name string
		run  func(fs *files)
		want []string
	}{
		{"file over file", func(fs *files) {
			fs.must(fs.Rename("a", "b"))
		}, []string{`/b = "A"`, `/d/`, `/d/f = "in d"`, `/d/sub/`, `/d/sub/deep/`, `/d/sub/deep/f = "deep"`, `/empty/`, `/l -> a`}},
		{"directory over an empty one", func(fs *files) {
			fs.must(fs.Rename("d", "empty"))
		}, []string{`/a = "A"`, `/b = "B"`, `/empty/`, `/empty/f = "in d"`, `/empty/sub/`, `/empty/sub/deep/`, `/empty/sub/deep/f = "deep"`, `/l -> a`}},
		{"link over file", func(fs *files) {
			fs.must(fs.Rename("l", "b"))
			if got := fs.read("b"); got != "A" {
				fs.Errorf("through the link: %q", got)
			}
		}, []string{`/a = "A"`, `/b -> a`, `/d/`, `/d/f = "in d"`, `/d/sub/`, `/d/sub/deep/`, `/d/sub/deep/f = "deep"`, `/empty/`}},
		{"swap", func(fs *files) {
			fs.must(fs.Rename("a", "t"))
			fs.must(fs.Rename("b", "a"))
			fs.must(fs.Rename("t", "b"))
		}, []string{`/a = "B"`, `/b = "A"`, `/d/`, `/d/f = "in d"`, `/d/sub/`, `/d/sub/deep/`, `/d/sub/deep/f = "deep"`, `/empty/`, `/l -> a`}},
		{"child becomes parent", func(fs *files) {
			fs.must(fs.Rename("d/sub", "s"))
			fs.must(fs.Rename("d", "s/d"))
			fs.must(fs.Rename("s", "d"))
			fs.write("d/d/new", "new")
		}, []string{`/a = "A"`, `/b = "B"`, `/d/`, `/d/d/`, `/d/d/f = "in d"`, `/d/d/new = "new"`, `/d/deep/`, `/d/deep/f = "deep"`, `/empty/`, `/l -> a`}},
		{"out and back into a new directory of the old name", func(fs *files) {
			fs.must(fs.Rename("d", "e"))
			fs.mkdir("d")
			fs.must(fs.Rename("e/f", "d/f"))
			fs.must(fs.Rename("e/sub", "d/sub"))
			fs.must(fs.Rmdir("e"))
		}, []string{`/a = "A"`, `/b = "B"`, `/d/`, `/d/f = "in d"`, `/d/sub/`, `/d/sub/deep/`, `/d/sub/deep/f = "deep"`, `/empty/`, `/l -> a`}},
		{"there and back", func(fs *files) {
			fs.must(fs.Rename("d", "empty/d"))
			fs.must(fs.Rename("empty/d", "d"))
			fs.must(fs.Rename("a", "z"))
			fs.must(fs.Rename("z", "a"))
			if c, err := fs.tx.Changes(); err != nil {
				fs.Error(err)
			} else if len(c) > 0 && strings.HasSuffix(fs.Name(), "/committed") {
				fs.Errorf("changes: %+v", c)
			}
		}, []string{`/a = "A"`, `/b = "B"`, `/d/`, `/d/f = "in d"`, `/d/sub/`, `/d/sub/deep/`, `/d/sub/deep/f = "deep"`, `/empty/`, `/l -> a`}},
		{"changed before and after the move", func(fs *files) {
			fs.write("d/f", "rewritten")
			fs.must(fs.Unlink("d/sub/deep/f"))
			fs.must(fs.Rename("d", "moved"))
			fs.write("moved/sub/deep/f", "other")
			fs.must(fs.Rename("moved/f", "moved/sub/f"))
			fs.must(fs.Rename("b", "moved/f"))
		}, []string{`/a = "A"`, `/empty/`, `/l -> a`, `/moved/`, `/moved/f = "B"`, `/moved/sub/`, `/moved/sub/deep/`, `/moved/sub/deep/f = "other"`, `/moved/sub/f = "rewritten"`}},
		{"emptied after the move", func(fs *files) {
			fs.must(fs.Rename("d", "m"))
			fs.must(fs.Unlink("m/f"))
			fs.must(fs.Rename("m/sub/deep", "deep"))
			fs.must(fs.Rmdir("m/sub"))
			fs.must(fs.Rmdir("m"))
			fs.write("d", "a file now")
		}, []string{`/a = "A"`, `/b = "B"`, `/d = "a file now"`, `/deep/`, `/deep/f = "deep"`, `/empty/`, `/l -> a`}},
		{"kinds change places", func(fs *files) {
			fs.must(fs.Rename("a", "t"))
			fs.must(fs.Rename("d", "a"))
			fs.must(fs.Rename("t", "d"))
			fs.must(fs.Unlink("l"))
			fs.mkdir("l")
			fs.must(fs.Rename("b", "l/b"))
		}, []string{`/a/`, `/a/f = "in d"`, `/a/sub/`, `/a/sub/deep/`, `/a/sub/deep/f = "deep"`, `/d = "A"`, `/empty/`, `/l/`, `/l/b = "B"`}},
	} {
		st.Run(tc.name, func(t *testing.T) {
			sub := &stage{T: t, s: st.s}
			both(sub, setup, func(fs *files) {
				tc.run(fs)
				fs.wantTree(tc.want...)
			})
			sub.update(tc.run)
			sub.view(func(fs *files) { fs.wantTree(tc.want...) })
			sub.update(removeAll)
		})
	}
}

// removeAll removes everything.
func removeAll(fs *files) {
	fs.Helper()
	var rm func(dir string)
	rm = func(dir string) {
		h := fs.open(dir+"/", store.FlagRead)
		list, err := h.ReadDir(0, 1<<30)
		fs.must(err)
		fs.must(h.Close())
		for _, e := range list {
			if p := dir + "/" + e.Name; e.Kind == store.KindDir {
				rm(p)
				fs.must(fs.Rmdir(p))
			} else {
				fs.must(fs.Unlink(p))
			}
		}
	}
	rm("")
}

func renameOfOpenFile(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("d")
		fs.write("d/f", "x")
	}, func(fs *files) {
		h := fs.open("d/f", store.FlagRead|store.FlagWrite)
		dir := fs.open("d", store.FlagRead)
		fs.must(fs.Rename("d", "e"))
		_, err := h.WriteAt([]byte("yy"), 0)
		fs.must(err)
		if got := fs.read("e/f"); got != "yy" {
			fs.Errorf("the moved file holds %q", got)
		}
		list, err := dir.ReadDir(0, 10)
		if err != nil || len(list) != 1 {
			fs.Errorf("the moved directory lists %v, %v", list, err)
		}
	})
}

func times(st *stage) {
	old := time.Date(2001, 2, 3, 4, 5, 6, 7000, time.UTC)
	older := old.Add(-time.Hour)
	check := func(fs *files, path string) {
		fs.Helper()
		i, err := fs.Stat(path, false)
		fs.must(err)
		if !i.Atime.Equal(old) || !i.Mtime.Equal(older) {
			fs.Errorf("%s: atime %v, mtime %v", path, i.Atime, i.Mtime)
		}
	}
	setup := func(fs *files) {
		fs.write("f", "x")
		fs.write("g", "x")
		fs.mkdir("d")
		fs.must(fs.Symlink("g", "l"))
	}
	set := func(fs *files) {
		fs.must(fs.SetTimes("f", true, old, older))
		fs.must(fs.SetTimes("d", true, old, time.Time{}))
		fs.must(fs.SetTimes("d", true, time.Time{}, older))
		fs.must(fs.SetTimes("l", false, old, older))
		h := fs.open("g", store.FlagRead)
		g, err := fs.Stat("g", true)
		fs.must(err)
		if g.Mtime.Equal(older) {
			fs.Error("setting a link's times set its target's")
		}
		fs.must(h.SetTimes(old, older))
		fs.want(store.ErrNotExist, fs.SetTimes("missing", true, old, old))
		fs.want(store.ErrNotDir, fs.SetTimes("f/", true, old, old))
	}
	both(st, setup, func(fs *files) {
		set(fs)
		for _, p := range []string{"f", "g", "d", "l"} {
			check(fs, p)
		}
		before, err := fs.Stat("f", true)
		fs.must(err)
		h := fs.open("f", store.FlagWrite)
		_, err = h.WriteAt([]byte("y"), 0)
		fs.must(err)
		if after, err := h.Stat(); err != nil || !after.Mtime.After(before.Mtime) {
			fs.Errorf("a write left the modification time at %v", after.Mtime)
		}
	})
	st.update(set)
	st.view(func(fs *files) {
		for _, p := range []string{"f", "g", "d", "l"} {
			check(fs, p)
		}
	})
	// What was written keeps the time at which it was, whenever it is committed.
	var mtime time.Time
	st.update(func(fs *files) {
		fs.write("f", "new")
		i, err := fs.Stat("f", true)
		fs.must(err)
		mtime = i.Mtime
	})
	st.view(func(fs *files) {
		if i, err := fs.Stat("f", true); err != nil || !i.Mtime.Equal(mtime) {
			fs.Errorf("mtime %v after commit, %v before", i.Mtime, mtime)
		}
	})
}

func inodes(st *stage) {
	both(st, func(fs *files) {
		fs.mkdir("d")
		fs.write("d/f", "x")
		fs.write("g", "x")
	}, func(fs *files) {
		ino := func(p string) uint64 {
			i, err := fs.Stat(p, false)
			fs.must(err)
			return i.Inode
		}
		seen := map[uint64]string{}
		for _, p := range []string{"/", "d", "d/f", "g"} {
			if other, dup := seen[ino(p)]; dup || ino(p) == 0 {
				fs.Errorf("%s has the inode number %d of %q", p, ino(p), other)
			}
			seen[ino(p)] = p
		}
		f, d := ino("d/f"), ino("d")
		fs.write("d/f", "rewritten")
		fs.must(fs.Rename("d", "e"))
		if ino("e/f") != f || ino("e") != d {
			fs.Error("a rename changed inode numbers")
		}
		fs.must(fs.Unlink("g"))
		fs.write("g", "x")
		if _, dup := seen[ino("g")]; dup {
			fs.Error("a new file has the inode number of a removed one")
		}
	})
}

func afterTheEnd(st *stage) {
	var kept *files
	var h store.File
	st.update(func(fs *files) {
		fs.write("f", "x")
		h = fs.open("f", store.FlagRead|store.FlagWrite)
		kept = fs
	})
	fs := kept
	_, err := h.ReadAt(make([]byte, 1), 0)
	fs.want(store.ErrClosed, err)
	_, err = h.WriteAt([]byte("y"), 0)
	fs.want(store.ErrClosed, err)
	_, err = fs.Open("f", store.FlagRead)
	fs.want(store.ErrClosed, err)
	_, err = fs.Stat("f", true)
	fs.want(store.ErrClosed, err)
	fs.want(store.ErrClosed, fs.Mkdir("d"))
	fs.want(store.ErrClosed, fs.Rename("f", "g"))
	fs.want(store.ErrClosed, fs.tx.Append(store.Key{9}, nil))
	_, err = fs.tx.Changes()
	fs.want(store.ErrClosed, err)
}

func readOnly(st *stage) {
	st.update(func(fs *files) { fs.mkdir("d"); fs.write("f", "x") })
	st.view(func(fs *files) {
		for name, err := range map[string]error{
			"mkdir":   fs.Mkdir("x"),
			"rmdir":   fs.Rmdir("d"),
			"unlink":  fs.Unlink("f"),
			"rename":  fs.Rename("f", "g"),
			"symlink": fs.Symlink("f", "l"),
			"times":   fs.SetTimes("f", true, time.Now(), time.Now()),
			"write":   func() error { _, err := fs.Open("f", store.FlagWrite); return err }(),
			"create":  func() error { _, err := fs.Open("new", store.FlagRead|store.FlagCreate); return err }(),
		} {
			if fs.want(store.ErrReadOnly, err); fs.Failed() {
				fs.Fatal(name)
			}
		}
		h := fs.open("f", store.FlagRead|store.FlagCreate)
		fs.want(store.ErrReadOnly, h.SetTimes(time.Now(), time.Now()))
		fs.want(store.ErrBadFile, h.Truncate(0))
	})
	st.view(func(fs *files) { fs.wantTree("/d/", `/f = "x"`) })
}
