package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
)

func undo(id script.ID) script.Script { return script.Script{Logic: script.Logic{Undo: id}} }

// private changes what the host keeps for itself, as whoever holds the disk can.
func (w *world) private(name peer.Name, f func(store.FS) error) {
	w.Helper()
	if err := w.stores[w.entry(name).ID].Update(w.Context(), func(tx store.Tx) error { return f(tx.Private()) }); err != nil {
		w.Fatal(err)
	}
}

// kept finds what is kept of a script: its manifest, and what that keeps.
func kept(fs store.FS, id script.ID) (paths []string, err error) {
	names := func(dir string) (names []string) {
		d, openErr := fs.Open(dir, store.FlagRead|store.FlagDirectory)
		if openErr != nil {
			return nil
		}
		defer d.Close()
		entries, _ := d.ReadDir(0, 1000)
		for _, e := range entries {
			names = append(names, path.Join(dir, e.Name))
		}
		return names
	}
	for _, bucket := range names("history") {
		for _, p := range names(bucket) {
			if strings.HasPrefix(path.Base(p), fmt.Sprintf("%x", id[:])) {
				paths = append(paths, p)
			}
		}
	}
	if len(paths) == 0 {
		return nil, errors.New("nothing is kept")
	}
	return paths, nil
}

func whole(fs store.FS, p string) ([]byte, error) {
	f, err := fs.Open(p, store.FlagRead)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
}

func rewrite(fs store.FS, p string, b []byte) error {
	f, err := fs.Open(p, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, 0)
	return err
}

func (w *world) want(r script.Receipt, code script.Code, words ...string) script.Receipt {
	w.Helper()
	if r.Code != code {
		w.Fatalf("%v %q, want %v", r.Code, r.Message, code)
	}
	for _, word := range words {
		if !strings.Contains(r.Message, word) {
			w.Errorf("%q does not say %q", r.Message, word)
		}
	}
	return r
}

// What a script did is undone by a script of the owner's, whatever the policies
// say, and by nobody else; that is logged, answered once, and undone in its turn.
func TestUndo(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	w.allow("bob", guestbookPermit(w, "alice"))
	first := w.want(w.send("alice", "bob", sign("first")), script.Done)
	before := w.read("bob", "/guestbook/entries.txt")
	second := w.want(w.send("alice", "bob", sign("second")), script.Done)
	after := w.read("bob", "/guestbook/entries.txt")
	if second.Kept.IsZero() || second.Kept == first.Kept {
		t.Errorf("kept %v and %v", first.Kept, second.Kept)
	}

	w.policy("bob", "all", anything)
	for _, who := range []peer.Name{"alice", "carol"} { // the one whose script it was, too
		w.want(w.send(who, "bob", undo(second.Script)), script.Refused, string(who)+" may not undo what was done in the context of bob: only its owner may")
	}
	w.policy("bob", "no", `@id("no") forbid(principal, action, resource);`)
	w.policy("bob", "broken", `permit(`)

	dry := undo(second.Script)
	dry.DryRun = true
	r := w.want(w.send("bob", "bob", dry), script.Done)
	if !r.DryRun || len(r.Effects) == 0 || !strings.Contains(fmt.Sprint(r.Effects), "-2. alice: second") || w.read("bob", "/guestbook/entries.txt") != after {
		t.Errorf("dry run: %+v", r)
	}
	sealed, id := w.seal("bob", "bob", undo(second.Script))
	r = w.want(w.deliver(sealed, id), script.Done)
	if r.Undid != second.Script || len(r.Policies) != 1 || r.Policies[0] != policy.Owner || !r.Module.IsZero() || r.Kept.IsZero() {
		t.Errorf("receipt %+v", r)
	}
	if got := w.read("bob", "/guestbook/entries.txt"); got != before {
		t.Errorf("undone, it is %q, want %q", got, before)
	}
	if again := w.deliver(sealed, id); !again.Finished.Equal(r.Finished) {
		t.Error("an undo that was delivered twice was done twice")
	}
	w.want(w.send("bob", "bob", undo(second.Script)), script.Conflict, "undo first", r.Script.Short(), "undo of "+second.Script.Short(), "by bob")
	w.want(w.send("bob", "bob", undo(r.Script)), script.Done)
	if got := w.read("bob", "/guestbook/entries.txt"); got != after {
		t.Errorf("done again, it is %q, want %q", got, after)
	}
	w.want(w.send("bob", "bob", undo(script.ID{1})), script.NotFound, "nothing is kept of it")
	w.want(w.send("bob", "bob", undo(second.Script)), script.NotFound, "is no longer kept; if it was undone")
	log := w.logged("bob")
	if last := log[len(log)-1]; last.Undid != second.Script || last.Code != script.NotFound {
		t.Errorf("the log ends with %+v", last)
	}
}

// An undo of another context's script, and of one that changed nothing.
func TestUndoOfWhatWasNotDoneThere(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	w.policy("bob", "all", anything)
	w.policy("carol", "all", anything)
	r := w.want(w.send("alice", "bob", sign("x")), script.Done)
	w.want(w.send("carol", "carol", undo(r.Script)), script.NotFound, "nothing is kept of it")
	none := w.want(w.send("alice", "bob", carried(guest(nil, abitest.I32(16)))), script.Done)
	if !none.Kept.IsZero() {
		t.Error("something is kept of a script that changed nothing")
	}
	w.want(w.send("bob", "bob", undo(none.Script)), script.NotFound, "changed nothing")
}

// Whoever holds the disk of a context edits what is kept: an undo does what the
// receipts say, or nothing.
func TestForgedHistory(t *testing.T) {
	for name, forge := range map[string]func(fs store.FS, paths []string, other string) error{
		"path": func(fs store.FS, paths []string, _ string) error {
			b, err := whole(fs, paths[0])
			if err != nil {
				return err
			}
			return rewrite(fs, paths[0], bytes.ReplaceAll(b, []byte("/guestbook/count"), []byte("/guestbook/owner")))
		},
		"other manifest": func(fs store.FS, paths []string, other string) error {
			b, err := whole(fs, other)
			if err != nil {
				return err
			}
			return rewrite(fs, paths[0], b)
		},
		"other manifest, with this id": func(fs store.FS, paths []string, other string) error {
			b, err := whole(fs, other)
			if err != nil {
				return err
			}
			id, of := path.Base(paths[0]), path.Base(other)
			return rewrite(fs, paths[0], bytes.ReplaceAll(b, []byte(of), []byte(id)))
		},
		"no manifest":    func(fs store.FS, paths []string, _ string) error { return fs.Unlink(paths[0]) },
		"empty manifest": func(fs store.FS, paths []string, _ string) error { return rewrite(fs, paths[0], nil) },
		"nonsense": func(fs store.FS, paths []string, _ string) error {
			return rewrite(fs, paths[0], []byte(`{"version":1}`))
		},
		"nested nonsense": func(fs store.FS, paths []string, _ string) error {
			return rewrite(fs, paths[0], bytes.Repeat([]byte(`[`), 1<<20))
		},
		"huge manifest": func(fs store.FS, paths []string, _ string) error {
			return rewrite(fs, paths[0], bytes.Repeat([]byte(" "), 17<<20))
		},
		"directory for a manifest": func(fs store.FS, paths []string, _ string) error {
			return errors.Join(fs.Unlink(paths[0]), fs.Mkdir(paths[0]))
		},
		"nothing kept": func(fs store.FS, paths []string, _ string) error { return fs.Unlink(paths[1]) },
		"other contents": func(fs store.FS, paths []string, _ string) error {
			b, err := whole(fs, paths[1])
			if err != nil {
				return err
			}
			b[0] ^= 1
			return rewrite(fs, paths[1], b)
		},
		"more contents": func(fs store.FS, paths []string, _ string) error {
			b, err := whole(fs, paths[1])
			if err != nil {
				return err
			}
			return rewrite(fs, paths[1], append(b, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "alice", "bob")
			w.policy("bob", "all", anything)
			first := w.want(w.send("alice", "bob", sign("first")), script.Done)
			second := w.want(w.send("alice", "bob", sign("second")), script.Done)
			before := w.read("bob", "/guestbook/entries.txt")
			w.private("bob", func(fs store.FS) error {
				paths, err := kept(fs, second.Script)
				if err != nil || len(paths) < 2 {
					return fmt.Errorf("kept %q: %v", paths, err)
				}
				others, err := kept(fs, first.Script)
				if err != nil {
					return err
				}
				return forge(fs, paths, others[0])
			})
			r := w.want(w.send("bob", "bob", undo(second.Script)), script.NotFound, "cannot be undone")
			if len(r.Effects) > 0 || w.read("bob", "/guestbook/entries.txt") != before {
				t.Errorf("something was done by what is kept: %+v", r.Effects)
			}
			w.want(w.send("alice", "bob", sign("third")), script.Done) // and scripts go on
		})
	}
}

// A receipt tells its caller nothing of what the script may not read, and of what
// is kept only that it is; that is undone all the same.
func TestUndoOfWhatTheScriptMayNotRead(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.put("bob", "/secret", "1234")
	w.policy("bob", "blind", `@id("blind") permit(principal, action in [Action::"submit", Action::"write"], resource);`)
	write := carried(on("write", "iiiiii", "/secret", abitest.I32(256), abitest.I32(2)))
	r := w.want(w.send("alice", "bob", write), script.Done)
	if len(r.Effects) != 1 || r.Effects[0].Before != (script.Blob{}) || r.Effects[0].After != (script.Blob{}) {
		t.Errorf("effects %+v", r.Effects)
	}
	u := w.want(w.send("bob", "bob", undo(r.Script)), script.Done)
	if w.read("bob", "/secret") != "1234" {
		t.Errorf("undone, it is %q", w.read("bob", "/secret"))
	}
	if u.Effects[0].After != (script.Blob{Size: 4, Digest: script.DigestOf([]byte("1234"))}) {
		t.Errorf("the owner is told %+v", u.Effects)
	}
	again := w.want(w.send("alice", "bob", write), script.Done)
	if again.Kept == r.Kept {
		t.Error("what is kept has the same digest each time, so that it can be guessed")
	}
}

// Undos and scripts at the same time: each undo finds its script's work whole, or
// is told what is in the way.
func TestUndoRacedByScripts(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	var ids []script.ID
	for i := range 4 {
		r := w.want(w.send("alice", "bob", sign(fmt.Sprint("before ", i))), script.Done)
		ids = append(ids, r.Script)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	undone, signed := 0, 0
	deliver := func(from peer.Name, s script.Script, count *int, may ...script.Code) {
		sealed, id := w.seal(from, "bob", s)
		wg.Go(func() {
			r := w.deliver(sealed, id)
			mu.Lock()
			defer mu.Unlock()
			if r.Code == script.Done {
				*count++
				return
			}
			for _, code := range may {
				if r.Code == code {
					return
				}
			}
			t.Errorf("%v %s", r.Code, r.Message)
		})
	}
	for i := range 8 {
		deliver("alice", sign(fmt.Sprint("meanwhile ", i)), &signed)
		deliver("bob", undo(ids[i%len(ids)]), &undone, script.Conflict, script.NotFound)
	}
	wg.Wait()
	lines := strings.Count(w.read("bob", "/guestbook/entries.txt"), "\n")
	if signed != 8 || lines != len(ids)+signed-undone {
		t.Errorf("%d lines, with %d signed before, %d meanwhile, and %d undone", lines, len(ids), signed, undone)
	}
}

// A context whose private directory cannot be used runs scripts; they just cannot
// be undone.
func TestScriptsWithoutHistory(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	for name, c := range map[string]host.Config{
		"off":      {Undo: history.Config{Keep: -1}},
		"no bytes": {Undo: history.Config{Bytes: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			w.host.Close()
			w.start(c)
			w.want(w.send("alice", "bob", sign("one")), script.Done)
			r := w.want(w.send("alice", "bob", sign("two")), script.Done)
			w.want(w.send("bob", "bob", undo(r.Script)), script.NotFound, "cannot be undone")
		})
	}
}

// An undo takes what an undo has, and nothing else.
func TestUndoIsStrict(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	for _, s := range []script.Script{
		{Logic: script.Logic{Undo: script.ID{1}, Name: "guestbook"}},
		{Logic: script.Logic{Undo: script.ID{1}}, Params: []byte("x")},
		{Logic: script.Logic{Undo: script.ID{1}}, Entry: "run"},
	} {
		s.Caller, s.Target, s.Nonce = w.entry("bob").ID, w.entry("bob").ID, script.Nonce{1}
		if _, err := s.Encode(); err == nil {
			t.Errorf("%+v can be sent", s)
		}
	}
	if b, err := json.Marshal(w.want(w.send("bob", "bob", undo(script.ID{7})), script.NotFound)); err != nil || !bytes.Contains(b, []byte(`"undid":"sha256:07`)) {
		t.Errorf("%s, %v", b, err)
	}
}

// reads counts the bytes that are read of what was committed.
type reads struct {
	overlay.Backend
	n *atomic.Int64
}

func (r reads) Open(path string) (overlay.LowerFile, error) {
	f, err := r.Backend.Open(path)
	return readsFile{f, r.n}, err
}

// Stage is given the file that it knows.
func (r reads) Stage(ctx context.Context, from overlay.LowerFile, n int64) (overlay.Staged, error) {
	if f, ok := from.(readsFile); ok {
		from = f.LowerFile
	}
	return r.Backend.Stage(ctx, from, n)
}

type readsFile struct {
	overlay.LowerFile
	n *atomic.Int64
}

func (f readsFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.LowerFile.ReadAt(p, off)
	f.n.Add(int64(n))
	return n, err
}

// A script that appends to a long file costs what it appends: nobody reads the
// rest of the file, neither for the receipt nor for what undoes it; nor does the
// undo, nor its undo.
func TestAppendingToALongFile(t *testing.T) {
	const long = 200 << 20
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	var n atomic.Int64
	w.stores[w.entry("bob").ID] = mem.NewOn(mem.Config{}, func(b overlay.Backend) overlay.Backend { return reads{b, &n} })
	w.files("bob", func(fs store.FS) error {
		f, err := fs.Open("/log", store.FlagWrite|store.FlagCreate)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Truncate(long)
	})
	size := func() int64 {
		var info store.Info
		w.files("bob", func(fs store.FS) (err error) { info, err = fs.Stat("/log", true); return err })
		return info.Size
	}
	r := w.want(w.send("alice", "bob", carried(on("append", "iiiiii", "/log", abitest.I32(256), abitest.I32(4)))), script.Done)
	added := script.Blob{Size: 4, Digest: script.DigestOf([]byte("/log"))}
	if len(r.Effects) != 1 || r.Effects[0].End != (script.End{At: long, After: added}) || size() != long+4 {
		t.Errorf("effects %+v, %d bytes", r.Effects, size())
	}
	u := w.want(w.send("bob", "bob", undo(r.Script)), script.Done)
	if u.Effects[0].End.Before != added || u.Effects[0].End.At != long || size() != long {
		t.Errorf("undone: %+v, %d bytes", u.Effects, size())
	}
	w.want(w.send("bob", "bob", undo(u.Script)), script.Done)
	if size() != long+4 {
		t.Errorf("done again: %d bytes", size())
	}
	if got := n.Load(); got > 1<<20 {
		t.Errorf("%d bytes were read", got)
	}
}
