package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/store"
)

var keepCases = []testCase{
	{"Keep", keep},
	{"KeepRefuses", keepRefuses},
	{"KeepOfAChangedEnd", keepOfAChangedEnd},
}

// keep: what a transaction replaces or removes goes to the host, and comes back.
func keep(st *stage) {
	st.update(func(fs *files) {
		fs.mkdir("d", "d/sub", "moved")
		fs.write("d/sub/removed", "removed")
		fs.write("moved/in", "in a directory that moves")
		fs.write("edited", "edited")
		fs.write("over", "renamed over")
		fs.write("new", "new")
		fs.write("away", "away and rewritten")
		fs.write("link", "becomes a link")
		fs.write("dir", "becomes a directory")
	})
	want := map[string]string{}
	st.update(func(fs *files) {
		fs.must(fs.Unlink("d/sub/removed"))
		fs.must(fs.Rmdir("d/sub"))
		fs.must(fs.Rmdir("d"))
		fs.must(fs.Rename("moved", "there"))
		fs.write("there/in", "other")
		open := fs.open("edited", store.FlagRead|store.FlagWrite) // and stays open
		_, err := open.WriteAt([]byte("E"), 0)
		fs.must(err)
		fs.must(fs.Rename("new", "over"))
		fs.must(fs.Rename("away", "elsewhere"))
		fs.write("elsewhere", "rewritten")
		fs.must(fs.Unlink("link"))
		fs.must(fs.Symlink("edited", "link"))
		fs.must(fs.Unlink("dir"))
		fs.mkdir("dir")
		fs.must(fs.private().Mkdir("k"))
		for i, c := range []struct{ path, was string }{
			{"/d/sub/removed", "removed"}, {"/moved/in", "in a directory that moves"}, {"/edited", "edited"},
			{"/over", "renamed over"}, {"/away", "away and rewritten"}, {"/link", "becomes a link"}, {"/dir", "becomes a directory"},
		} {
			to := fmt.Sprint("k/", i)
			fs.must(fs.tx.Keep(c.path, to))
			want["/"+to] = "file " + c.was
			if got := fs.private().read(to); got != c.was {
				fs.Errorf("%s was kept as %q", c.path, got)
			}
		}
		_, err = open.WriteAt([]byte("!"), 6)
		fs.must(err)
	})
	want["/k"] = "dir"
	after := []string{`/dir/`, `/edited = "Edited!"`, `/elsewhere = "rewritten"`, `/link -> edited`, `/over = "new"`, `/there/`, `/there/in = "other"`}
	st.view(func(fs *files) {
		fs.wantTree(after...)
		if got := fs.private().dump(); fmt.Sprint(got) != fmt.Sprint(want) {
			fs.Errorf("kept is %q, want %q", got, want)
		}
	})
	st.discard(func(fs *files) { fs.must(fs.tx.Restore("k/2", "edited")) })
	st.update(func(fs *files) {
		fs.must(fs.tx.Restore("k/2", "edited")) // over a file
		fs.must(fs.tx.Restore("k/5", "link"))   // over the link itself
		fs.mkdir("d")
		fs.must(fs.tx.Restore("k/0", "d/removed")) // where nothing is
		fs.want(store.ErrIsDir, fs.tx.Restore("k/6", "dir"))
		fs.must(fs.Rmdir("dir"))
		fs.must(fs.tx.Restore("k/6", "dir"))
		fs.want(store.ErrNotExist, fs.tx.Restore("k/0", "d/again"))
		fs.want(store.ErrSpecial, fs.tx.Restore("k", "d/again"))
		fs.want(store.ErrDenied, fs.tx.Restore("k/1", store.PrivateName))
		list, err := fs.tx.Changes()
		fs.must(err)
		var got []string
		for _, c := range list {
			got = append(got, c.Path+c.From) // where it was kept is nobody's business
		}
		if want := []string{"/d", "/d/removed", "/dir", "/dir", "/edited", "/link", "/link"}; !slices.Equal(got, want) {
			fs.Errorf("changes are %q, want %q", got, want)
		}
	})
	st.view(func(fs *files) {
		fs.wantTree(`/d/`, `/d/removed = "removed"`, `/dir = "becomes a directory"`, `/edited = "edited"`, `/elsewhere = "rewritten"`,
			`/link = "becomes a link"`, `/over = "new"`, `/there/`, `/there/in = "other"`)
	})
}

func keepRefuses(st *stage) {
	st.update(func(fs *files) {
		fs.mkdir("d", "gone")
		fs.write("d/in", "in")
		fs.write("same", "same")
		fs.write("append", "append")
		fs.write("moved", "moved")
		fs.write("edited", "edited")
		fs.must(fs.Symlink("same", "link"))
		fs.private().write("mine", "mine")
	})
	st.update(func(fs *files) {
		fs.must(fs.Rmdir("gone"))
		fs.must(fs.Rename("d", "e"))
		fs.must(fs.Rename("moved", "there"))
		fs.must(fs.Unlink("link"))
		fs.write("edited", "other")
		fs.write("new", "new")
		h := fs.open("append", store.FlagWrite|store.FlagAppend)
		_, err := h.WriteAt([]byte("ed"), 0)
		fs.must(err)
		fs.private().write("mine", "changed")
		for _, path := range []string{
			"/gone", "/d", "/d/in", "/moved", "/link", "/new", "/append", "/same", "/none", "/none/none", "/same/none", "/", "", "edited",
			"/" + store.PrivateName + "/mine", "//edited", "/./edited",
		} {
			if err := fs.tx.Keep(path, "kept"); !errors.Is(err, store.ErrInvalid) {
				fs.Errorf("keep %q: %v", path, err)
			}
		}
		fs.want(store.ErrNotExist, fs.tx.Keep("/edited", "none/kept"))
		fs.want(store.ErrExists, fs.tx.Keep("/edited", "mine"))
		fs.must(fs.tx.Keep("/edited", "kept"))
		fs.want(store.ErrInvalid, fs.tx.Keep("/edited", "again"))
		fs.must(fs.tx.Restore("kept", "edited")) // within one transaction
	})
	st.view(func(fs *files) {
		fs.wantTree(`/append = "appended"`, `/e/`, `/e/in = "in"`, `/edited = "edited"`, `/new = "new"`, `/same = "same"`, `/there = "moved"`)
		if err := fs.tx.Keep("/edited", "kept"); !errors.Is(err, store.ErrReadOnly) {
			fs.Errorf("keep in a view: %v", err)
		}
		if err := fs.tx.Restore("mine", "edited"); !errors.Is(err, store.ErrReadOnly) {
			fs.Errorf("restore in a view: %v", err)
		}
	})
}

// keepOfAChangedEnd: a backend that stores what changed of a file, and not the
// file anew, keeps all of what it was.
func keepOfAChangedEnd(st *stage) {
	was := strings.Repeat("0123456789abcdef", 40_000) // some chunks, pages or blobs, and a part of one
	names := []string{"middle", "cut", "cut and longer", "appended and moved", "appended, then not"}
	st.update(func(fs *files) {
		for _, name := range names {
			fs.write(name, was)
		}
	})
	is := map[string]string{
		"middle": was[:100_000] + "X" + was[100_001:], "cut": was[:70_001], "cut and longer": was[:300_000] + strings.Repeat("\x00", 99) + "Y",
		"there": was + "Z", "appended, then not": "S" + was[1:] + "Z",
	}
	st.update(func(fs *files) {
		write := func(name, s string, off int) {
			h := fs.open(name, store.FlagWrite)
			_, err := h.WriteAt([]byte(s), int64(off))
			fs.must(err)
			fs.must(h.Close())
		}
		cut := func(name string, size int) {
			h := fs.open(name, store.FlagWrite)
			fs.must(h.Truncate(int64(size)))
			fs.must(h.Close())
		}
		write("middle", "X", 100_000)
		cut("cut", 70_001)
		cut("cut and longer", 300_000)
		write("cut and longer", "Y", 300_099)
		fs.must(fs.Rename("appended and moved", "there"))
		write("there", "Z", len(was))
		write("appended, then not", "Z", len(was))
		write("appended, then not", "S", 0)
		for i, name := range names {
			fs.must(fs.tx.Keep("/"+name, fmt.Sprint(i)))
		}
	})
	check := func(fs *files) {
		for path, want := range is {
			if got := fs.read(path); got != want {
				fs.Errorf("%s has %d bytes, and not the %d that it should", path, len(got), len(want))
			}
		}
		for i, name := range names {
			if got := fs.private().read(fmt.Sprint(i)); got != was {
				fs.Errorf("%s was kept as %d bytes, which are not what it was", name, len(got))
			}
		}
	}
	st.view(check)
	st.update(func(fs *files) { // each has a life of its own
		for path := range is {
			is[path] += "more"
			h := fs.open(path, store.FlagWrite|store.FlagAppend)
			_, err := h.WriteAt([]byte("more"), 0)
			fs.must(err)
			fs.must(h.Close())
		}
	})
	st.view(check)
}

// keep keeps some of what a random transaction has replaced or removed.
func (r *randomRun) keep(fs *files, before map[string]string) {
	if r.rnd.IntN(2) == 0 {
		return
	}
	list, err := fs.tx.Changes()
	fs.must(err)
	after := fs.dump()
	for _, c := range list {
		if c.Before == nil || r.rnd.IntN(4) == 0 {
			continue
		}
		to := fmt.Sprintf("/kept-%x", r.rnd.Uint64())
		err := fs.tx.Keep(c.Path, to)
		r.trail = append(r.trail, fmt.Sprintf("keep %s at %s: %v", c.Path, to, err))
		// What has moved is in use, with a change that says so or over its like.
		inUse := slices.Contains(slices.Collect(maps.Values(after)), before[c.Path])
		switch {
		case err == nil:
			r.kept[to] = before[c.Path]
		case !errors.Is(err, store.ErrInvalid) || !c.Appended && !inUse:
			r.Fatalf("%v after\n\t%s", err, strings.Join(r.trail, "\n\t"))
		}
	}
}

// checkKept compares what is kept with the model.
func (r *randomRun) checkKept() {
	if err := r.s.View(context.Background(), func(tx store.Tx) error {
		fs := &files{r.T, tx.Private(), tx}
		for path, want := range r.kept {
			if got := "file " + fs.read(path); got != want {
				r.Errorf("%s is %q, want %q", path, got, want)
			}
		}
		return nil
	}); err != nil {
		r.Fatal(err)
	}
}
