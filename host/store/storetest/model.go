package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
)

var modelCases = []testCase{
	{"RandomOperations", func(st *stage) { againstModel(st, 40) }},
}

var keptModelCases = []testCase{
	{"RandomOperationsAndReopening", func(st *stage) { againstModel(st, 15) }},
}

// model is a file system as plain as can be: one tree of pointers, copied for a
// transaction and thrown away to roll it back.
type model struct {
	root *mnode
}

type mnode struct {
	kind   store.Kind
	parent *mnode
	kids   map[string]*mnode
	data   []byte
	target string
}

func newModel() *model {
	return &model{&mnode{kind: store.KindDir, kids: map[string]*mnode{}}}
}

func (n *mnode) clone(parent *mnode) *mnode {
	c := &mnode{kind: n.kind, parent: parent, data: slices.Clone(n.data), target: n.target}
	if n.kids != nil {
		c.kids = map[string]*mnode{}
		for name, k := range n.kids {
			c.kids[name] = k.clone(c)
		}
	}
	return c
}

// find resolves a path; ok is false if the walk itself fails.
func (m *model) find(path string, follow bool) (dir *mnode, name string, n *mnode, ok bool) {
	cur := m.root
	parts := strings.Split(path, "/")
	for links := 0; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		if part == ".." {
			if cur = cur.parent; cur == nil {
				return nil, "", nil, false
			}
			continue
		}
		last := len(parts) == 0
		k := cur.kids[part]
		if k != nil && k.kind == store.KindLink && (!last || follow) {
			if links++; links > 40 {
				return nil, "", nil, false
			}
			parts = append(strings.Split(k.target, "/"), parts...)
			continue
		}
		if last {
			return cur, part, k, true
		}
		if k == nil || k.kind != store.KindDir {
			return nil, "", nil, false
		}
		cur = k
	}
	return cur.parent, "", cur, true // ended in ".."
}

func (m *model) dump() map[string]string {
	out := map[string]string{}
	var walk func(n *mnode, path string)
	walk = func(n *mnode, path string) {
		for name, k := range n.kids {
			p := path + "/" + name
			switch k.kind {
			case store.KindDir:
				out[p] = "dir"
				walk(k, p)
			case store.KindFile:
				out[p] = "file " + string(k.data)
			case store.KindLink:
				out[p] = "link " + k.target
			}
		}
	}
	walk(m.root, "")
	return out
}

func (f *files) dump() map[string]string {
	f.Helper()
	out := map[string]string{}
	var walk func(path string)
	walk = func(path string) {
		h := f.open(path+"/", store.FlagRead)
		list, err := h.ReadDir(0, 1<<20)
		f.must(err)
		f.must(h.Close())
		for _, e := range list {
			p := path + "/" + e.Name
			switch e.Kind {
			case store.KindDir:
				out[p] = "dir"
				walk(p)
			case store.KindFile:
				out[p] = "file " + f.read(p)
			case store.KindLink:
				target, err := f.Readlink(p)
				f.must(err)
				out[p] = "link " + target
			}
		}
	}
	walk("")
	return out
}

// againstModel does the same random things to the store and to the model, and
// compares every outcome and every state.
func againstModel(st *stage, seeds uint64) {
	began := time.Now()
	for seed := range seeds {
		// A store in another process, under the race detector, takes a second for
		// each; a few of them find what there is to find.
		if seed >= seeds/5 && time.Since(began) > 5*time.Second {
			break
		}
		st.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			sub := &stage{T: t, s: st.s}
			sub.update(removeAll)
			r := &randomRun{stage: sub, rnd: rand.New(rand.NewPCG(seed, 2)), m: newModel(), kept: map[string]string{}}
			r.weigh()
			for range 5 {
				r.tx()
				r.weigh()
				if st.reopen != nil {
					st.reopen()
					sub.s = st.s
				}
				sub.view(func(fs *files) { r.same(fs, r.m.dump(), fs.dump()) })
			}
		})
	}
}

type randomRun struct {
	*stage
	rnd     *rand.Rand
	m       *model
	trail   []string
	handles []*randomHandle
	kept    map[string]string // by its path in Private
}

// measured is a store that knows what its context holds.
type measured interface {
	Bound(store.Quota, store.Memo)
	Volume(ctx context.Context, exact bool) (store.Volume, error)
}

// weigh compares what the store has added up, commit by commit, with what there
// is.
func (r *randomRun) weigh() {
	s, ok := r.s.(measured)
	if !ok {
		return
	}
	added, err := s.Volume(context.Background(), false)
	if err != nil {
		r.Fatal(err)
	}
	counted, err := s.Volume(context.Background(), true)
	if err != nil {
		r.Fatal(err)
	}
	want := store.Volume{Log: counted.Log}
	hold := func(all map[string]string) {
		for _, what := range all {
			want.Entries++
			if data, ok := strings.CutPrefix(what, "file "); ok {
				want.Bytes += int64(len(data))
			}
		}
	}
	hold(r.m.dump())
	if err := r.s.View(context.Background(), func(tx store.Tx) error {
		private := &files{r.T, tx.Private(), tx}
		if _, err := private.Stat("/", true); errors.Is(err, store.ErrNotExist) {
			return nil
		}
		want.Entries++
		hold(private.dump())
		return nil
	}); err != nil {
		r.Fatal(err)
	}
	if added != counted || counted != want {
		r.Fatalf("usage added up to %+v, is counted as %+v, is %+v; after\n\t%s", added, counted, want, strings.Join(r.trail, "\n\t"))
	}
}

type randomHandle struct {
	h store.File
	n *mnode
}

func (r *randomRun) same(fs *files, want, got map[string]string) {
	r.Helper()
	if maps.Equal(want, got) {
		return
	}
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if got[p] != want[p] {
			r.Errorf("%s: %q, want %q", p, got[p], want[p])
		}
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[p]; !ok {
			r.Errorf("%s: %q, want nothing", p, got[p])
		}
	}
	r.Fatalf("after\n\t%s", strings.Join(r.trail, "\n\t"))
}

// tx runs one transaction of random operations, and commits it or does not.
func (r *randomRun) tx() {
	committed, kept := r.m, maps.Clone(r.kept)
	before := committed.dump()
	r.m = &model{committed.root.clone(nil)}
	r.handles = nil
	commit := r.rnd.IntN(4) > 0
	stop := errors.New("stop")
	r.trail = append(r.trail, "begin")
	err := r.s.Update(context.Background(), func(tx store.Tx) error {
		fs := &files{r.T, tx.Files(nil), tx}
		for range 10 + r.rnd.IntN(40) {
			r.op(fs)
			if r.rnd.IntN(8) == 0 {
				r.same(fs, r.m.dump(), fs.dump())
				r.checkChanges(fs, before)
			}
		}
		r.same(fs, r.m.dump(), fs.dump())
		for _, h := range r.handles {
			if got := fs.all(h.h); got != string(h.n.data) {
				r.Errorf("an open file reads %q, want %q", got, h.n.data)
			}
		}
		r.checkChanges(fs, before)
		r.keep(fs, before)
		if !commit {
			return stop
		}
		return nil
	})
	if commit && err != nil || !commit && !errors.Is(err, stop) {
		r.Fatalf("update: %v after\n\t%s", err, strings.Join(r.trail, "\n\t"))
	}
	if !commit {
		r.m, r.kept = committed, kept
	}
	r.checkKept()
	r.trail = append(r.trail, fmt.Sprint("end, commit: ", commit))
}

// checkChanges applies what Changes says to the state before: that must give the
// state after, and no change may be for nothing.
func (r *randomRun) checkChanges(fs *files, before map[string]string) {
	list, err := fs.tx.Changes()
	fs.must(err)
	state := maps.Clone(before)
	content := func(open func() (io.ReadSeekCloser, error)) string {
		if open == nil {
			return ""
		}
		rc, err := open()
		fs.must(err)
		defer rc.Close()
		b, err := io.ReadAll(rc)
		fs.must(err)
		return "file " + string(b)
	}
	for _, c := range list {
		was, is := state[c.Path], ""
		switch c.Kind {
		case store.ChangeRemove:
		case store.ChangeCreate, store.ChangeModify:
			is = content(c.After)
		case store.ChangeMkdir:
			is = "dir"
		case store.ChangeSymlink:
			is = "link " + c.Link
		default:
			r.Errorf("unexpected change %+v", c)
		}
		if was == is || strings.HasPrefix(was, "file ") && c.Before != nil && content(c.Before) != was {
			r.Errorf("change of %s, which was %q and is %q: %+v", c.Path, was, is, c)
		}
		r.checkWas(c, before, was, is)
		if is == "" {
			delete(state, c.Path)
		} else {
			state[c.Path] = is
		}
	}
	r.same(fs, state, fs.dump())
}

// checkWas checks what a change says of what was before: at its path, at the
// beginning of its file, and where its file came from. was leaves out what an
// earlier change of the same path removed.
func (r *randomRun) checkWas(c store.Change, before map[string]string, was, is string) {
	kind, rest, _ := strings.Cut(was, " ")
	want := store.Was{Kind: map[string]store.Kind{"file": store.KindFile, "dir": store.KindDir, "link": store.KindLink}[kind]}
	if kind == "link" {
		want.Link = rest
	}
	if c.Was.Kind != want.Kind || c.Was.Link != want.Link || (c.Was.Mtime.IsZero() && want.Kind != 0) {
		r.Errorf("change of %s, which was %q, says that it was %+v", c.Path, was, c.Was)
	}
	fresh, _ := strings.CutPrefix(is, "file ")
	switch n := int(c.Intact); {
	case n > len(rest) || n > len(fresh) || rest[:n] != fresh[:n]:
		r.Errorf("change of %s from %q to %q says that %d bytes are intact", c.Path, was, is, n)
	case c.Appended != (kind == "file" && n == len(rest) && len(fresh) > n) && (c.Appended || n > 0):
		r.Errorf("change of %s from %q to %q, %d bytes intact, says that it was appended to: %v", c.Path, was, is, n, c.Appended)
	}
	if c.From != "" && before[c.From] != is {
		r.Errorf("change of %s, which is %q now, says that it was %s before, which was %q", c.Path, is, c.From, before[c.From])
	}
}

// path makes a path of few names, so that they meet often.
func (r *randomRun) path() string {
	parts := make([]string, 1+r.rnd.IntN(3))
	for i := range parts {
		parts[i] = string(rune('a' + r.rnd.IntN(4)))
		if i < len(parts)-1 && r.rnd.IntN(12) == 0 {
			parts[i] = ".."
		}
	}
	return strings.Join(parts, "/")
}

func (r *randomRun) op(fs *files) {
	var desc string
	var got error
	var want bool // that it succeeds
	p := r.path()
	switch r.rnd.IntN(17) {
	case 0, 1, 2: // write a file
		data := strings.Repeat(string(rune('A'+r.rnd.IntN(26))), r.rnd.IntN(20))
		desc = fmt.Sprintf("write %s %q", p, data)
		dir, name, n, ok := r.m.find(p, true)
		want = ok && name != "" && (n == nil || n.kind == store.KindFile)
		if want {
			if n == nil {
				n = &mnode{kind: store.KindFile, parent: dir}
				dir.kids[name] = n
			}
			n.data = []byte(data)
		}
		h, err := fs.Open(p, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
		if got = err; err == nil {
			_, err := h.WriteAt([]byte(data), 0)
			fs.must(err)
			fs.must(h.Close())
		}
	case 3, 4: // change a file, and perhaps keep it open
		off, size := r.rnd.IntN(30), r.rnd.IntN(30)
		cut := r.rnd.IntN(3) == 0
		desc = fmt.Sprintf("change %s at %d, size %d, cut %v", p, off, size, cut)
		_, _, n, ok := r.m.find(p, true)
		want = ok && n != nil && n.kind == store.KindFile
		h, err := fs.Open(p, store.FlagRead|store.FlagWrite)
		if got = err; err == nil && want {
			r.change(fs, &randomHandle{h, n}, off, size, cut)
			if len(r.handles) < 10 && r.rnd.IntN(2) == 0 {
				r.handles = append(r.handles, &randomHandle{h, n})
			} else {
				fs.must(h.Close())
			}
		}
	case 5: // change a file that is open, and may be gone
		if len(r.handles) == 0 {
			return
		}
		h := r.handles[r.rnd.IntN(len(r.handles))]
		desc, want = "change an open file", true
		r.change(fs, h, r.rnd.IntN(30), r.rnd.IntN(30), r.rnd.IntN(3) == 0)
	case 6, 7:
		desc = "mkdir " + p
		dir, name, n, ok := r.m.find(p, false)
		if want = ok && name != "" && n == nil; want {
			dir.kids[name] = &mnode{kind: store.KindDir, parent: dir, kids: map[string]*mnode{}}
		}
		got = fs.Mkdir(p)
	case 8:
		desc = "rmdir " + p
		dir, name, n, ok := r.m.find(p, false)
		if want = ok && name != "" && n != nil && n.kind == store.KindDir && len(n.kids) == 0; want {
			delete(dir.kids, name)
		}
		got = fs.Rmdir(p)
	case 9:
		desc = "unlink " + p
		dir, name, n, ok := r.m.find(p, false)
		if want = ok && name != "" && n != nil && n.kind != store.KindDir; want {
			delete(dir.kids, name)
		}
		got = fs.Unlink(p)
	case 10:
		target := r.path()
		desc = fmt.Sprintf("symlink %s to %s", p, target)
		dir, name, n, ok := r.m.find(p, false)
		depth, inside := 0, true
		for d := dir; d != nil && d.parent != nil; d = d.parent {
			depth++
		}
		for part := range strings.SplitSeq(target, "/") {
			if part != ".." {
				depth++
			} else if depth--; depth < 0 {
				inside = false
			}
		}
		if want = ok && name != "" && n == nil && inside; want {
			dir.kids[name] = &mnode{kind: store.KindLink, parent: dir, target: target}
		}
		got = fs.Symlink(target, p)
	case 11:
		desc = "stat " + p
		_, _, n, ok := r.m.find(p, true)
		want = ok && n != nil
		i, err := fs.Stat(p, true)
		if got = err; err == nil && want && (i.Kind != n.kind || i.Size != int64(len(n.data))) {
			r.Errorf("stat %s: %+v, want kind %d, %d bytes", p, i, n.kind, len(n.data))
		}
	case 12: // put back what was kept
		names := slices.Sorted(maps.Keys(r.kept))
		if len(names) == 0 {
			return
		}
		from := names[r.rnd.IntN(len(names))]
		desc = fmt.Sprintf("restore %s to %s", from, p)
		dir, name, n, ok := r.m.find(p, false)
		if want = ok && name != "" && (n == nil || n.kind != store.KindDir); want {
			_, data, _ := strings.Cut(r.kept[from], " ")
			dir.kids[name] = &mnode{kind: store.KindFile, parent: dir, data: []byte(data)}
			delete(r.kept, from)
		}
		got = fs.tx.Restore(from, p)
	default:
		to := r.path()
		desc = fmt.Sprintf("rename %s to %s", p, to)
		want = r.m.rename(p, to)
		got = fs.Rename(p, to)
	}
	r.trail = append(r.trail, fmt.Sprintf("%s: %v", desc, got))
	if (got == nil) != want {
		r.Fatalf("it should succeed: %v; after\n\t%s", want, strings.Join(r.trail, "\n\t"))
	}
}

func (r *randomRun) change(fs *files, h *randomHandle, off, size int, cut bool) {
	if cut {
		fs.must(h.h.Truncate(int64(off)))
		h.n.data = append(h.n.data, make([]byte, max(0, off-len(h.n.data)))...)[:off]
		return
	}
	if size > 0 {
		data := []byte(strings.Repeat(string(rune('a'+r.rnd.IntN(26))), size))
		_, err := h.h.WriteAt(data, int64(off))
		fs.must(err)
		h.n.data = append(h.n.data, make([]byte, max(0, off+size-len(h.n.data)))...)
		copy(h.n.data[off:], data)
	}
}

func (m *model) rename(from, to string) bool {
	dir, name, n, ok := m.find(from, false)
	if !ok || name == "" || n == nil {
		return false
	}
	toDir, toName, old, ok := m.find(to, false)
	if !ok || toName == "" {
		return false
	}
	if old == n {
		return true
	}
	for d := toDir; d != nil; d = d.parent {
		if d == n {
			return false
		}
	}
	if old != nil {
		if (n.kind == store.KindDir) != (old.kind == store.KindDir) || len(old.kids) > 0 {
			return false
		}
	}
	delete(dir.kids, name)
	toDir.kids[toName] = n
	n.parent = toDir
	return true
}
