package fsck_test

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

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/fsck"
	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/sqlite"
)

// place is where a context is kept, and how it is checked there.
type place struct {
	testing.TB
	key    *peer.Key
	dir    string
	edited bool
	open   func(context.Context) (store.Store, error)
	read   func(context.Context) (store.Store, error)
	verify func(context.Context, bool, func(store.Finding)) error

	past *history.History
	n    byte
}

func known[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func key(t testing.TB) *peer.Key {
	t.Helper()
	k, err := peer.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func inDirectory(t testing.TB, dir string) *place {
	c := fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")}
	return &place{
		TB: t, key: key(t), dir: dir, edited: true, past: history.New(history.Config{}),
		open: func(context.Context) (store.Store, error) { return known(fs.Open(c)) },
		read: func(context.Context) (store.Store, error) { return known(fs.OpenReader(c)) },
		verify: func(ctx context.Context, repair bool, report func(store.Finding)) error {
			return fs.Check(ctx, c, repair, report)
		},
	}
}

func inSQLite(t testing.TB, dir string) *place {
	c := sqlite.Config{Path: filepath.Join(dir, "context.sqlite")}
	return &place{
		TB: t, key: key(t), dir: dir, past: history.New(history.Config{}),
		open: func(context.Context) (store.Store, error) { return known(sqlite.Open(c)) },
		read: func(context.Context) (store.Store, error) { return known(sqlite.OpenReader(c)) },
		verify: func(ctx context.Context, repair bool, report func(store.Finding)) error {
			return sqlite.Check(ctx, c, repair, report)
		},
	}
}

func inBucket(t testing.TB, b *castest.Bucket) *place {
	open := func(ctx context.Context) (store.Store, error) { return known(cas.Open(ctx, b, cas.Config{})) }
	return &place{
		TB: t, key: key(t), open: open, read: open, past: history.New(history.Config{}),
		verify: func(ctx context.Context, _ bool, report func(store.Finding)) error {
			s, err := cas.Open(ctx, b, cas.Config{})
			if err != nil {
				return err
			}
			defer s.Close()
			return s.Check(ctx, func(err error) { report(store.Finding{Where: "bucket", What: err.Error(), Damage: true}) })
		},
	}
}

// script does what a host does for a script that writes files.
func (p *place) script(f func(store.FS)) script.ID {
	p.Helper()
	ctx := context.Background()
	s, err := p.open(ctx)
	if err != nil {
		p.Fatal(err)
	}
	p.n++
	id := script.ID{p.n}
	now := time.Now()
	if err := s.Update(ctx, func(tx store.Tx) error {
		f(tx.Files(nil))
		cs, err := p.past.Changes(ctx, tx, func(string) bool { return true })
		if err != nil {
			return err
		}
		r := script.Receipt{Script: id, Caller: p.key.ID(), Target: p.key.ID(), Host: p.key.ID(), Code: script.Done, Started: now, Finished: time.Now()}
		for _, c := range cs.List {
			kinds := map[store.ChangeKind]script.EffectKind{store.ChangeCreate: script.Created, store.ChangeModify: script.Modified,
				store.ChangeRemove: script.Removed, store.ChangeMkdir: script.MadeDir, store.ChangeSymlink: script.Linked, store.ChangeTimes: script.Touched}
			r.Effects = append(r.Effects, script.Effect{Kind: kinds[c.Kind], Path: c.Path, To: c.Link, Before: c.Old, After: c.New, End: c.End})
		}
		kept, err := p.past.Keep(ctx, tx, id, store.Key(id), cs)
		if err != nil {
			return err
		}
		defer kept.Committed()
		r.Kept = kept.Digest
		sealed, err := envelope.SealReceipt(r, p.key)
		if err != nil {
			return err
		}
		return tx.Append(store.Key(id), sealed)
	}); err != nil {
		p.Fatal(err)
	}
	if err := s.Close(); err != nil {
		p.Fatal(err)
	}
	return id
}

func (p *place) write(files store.FS, name, text string) {
	f, err := files.Open(name, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		p.Fatal(err)
	}
}

// check returns what is found, a line each, and whether damage is left.
func (p *place) check(repair bool) (lines []string, r fsck.Result) {
	p.Helper()
	r, err := fsck.Check(context.Background(), fsck.Config{
		Target: p.key.ID(), Signers: []peer.ID{p.key.ID()}, Backend: p.verify, Read: p.read, Open: p.open, Edited: p.edited, Repair: repair,
	}, func(f store.Finding) {
		mark := "note"
		switch {
		case f.Fixed:
			mark = "fixed"
		case f.Damage:
			mark = "damage"
		}
		lines = append(lines, fmt.Sprintf("%s: %s %s", mark, f.Where, f.What))
	})
	if err != nil {
		p.Fatalf("check: %v", err)
	}
	return lines, r
}

// wants checks that each line that is found has the words that are wanted.
func (p *place) wants(repair bool, damaged int, want ...string) {
	p.Helper()
	lines, r := p.check(repair)
	ok := len(lines) == len(want) && r.Damaged == damaged
	for i := range min(len(lines), len(want)) {
		ok = ok && strings.Contains(lines[i], want[i])
	}
	if !ok {
		p.Errorf("found %q, %+v; want %q, %d damaged", lines, r, want, damaged)
	}
}

func (p *place) some() {
	p.script(func(files store.FS) {
		if err := files.Mkdir("d"); err != nil {
			p.Fatal(err)
		}
		p.write(files, "d/f", "first")
		p.write(files, "g", "second")
		if err := files.Symlink("d/f", "link"); err != nil {
			p.Fatal(err)
		}
	})
	p.script(func(files store.FS) { p.write(files, "d/f", "second"); p.write(files, "h", "third") })
	p.script(func(files store.FS) { p.write(files, "g", "fourth") })
}

// TestWhole: what nothing happened to is whole, in every backend.
func TestWhole(t *testing.T) {
	for name, p := range map[string]*place{"fs": inDirectory(t, t.TempDir()), "sqlite": inSQLite(t, t.TempDir()), "bucket": inBucket(t, &castest.Bucket{})} {
		t.Run(name, func(t *testing.T) {
			p.TB = t
			p.some()
			if lines, r := p.check(false); len(lines) > 0 || r != (fsck.Result{Receipts: 3, Files: 5, Kept: 2}) {
				t.Errorf("found %q, %+v", lines, r)
			}
			p.wants(true, 0)
		})
	}
}

// damage changes bytes of a file on the host and leaves its time.
func damage(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), info.Mode()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func flip(b []byte) []byte { b[len(b)/2] ^= 1; return b }

// Damage is told from edits; with repair what is kept is put back, and only that.
func TestDamagedFiles(t *testing.T) {
	p := inDirectory(t, t.TempDir())
	p.some()
	data := filepath.Join(p.dir, "data")
	damage(t, filepath.Join(data, "d/f"), flip)                                                 // "second", which is kept as what g was
	damage(t, filepath.Join(data, "h"), func(b []byte) []byte { return b[:2] })                 // kept nowhere
	if err := os.WriteFile(filepath.Join(data, "g"), []byte("an owner's"), 0o600); err != nil { // later, so its time is another
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(data, "link")), os.Symlink("g", filepath.Join(data, "link"))); err != nil {
		t.Fatal(err)
	}
	p.wants(false, 2, "damage: /d/f has other contents", "note: /g has 10 bytes, and not 6", "damage: /h has 2 bytes, and not 5", "note: /link leads elsewhere")
	p.wants(true, 1, "note: /g", "damage: /h", "note: /link", "fixed: /d/f")
	if b, err := os.ReadFile(filepath.Join(data, "d/f")); err != nil || string(b) != "second" {
		t.Errorf("put back is %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(data, "g")); err != nil || string(b) != "an owner's" {
		t.Errorf("the owner's file is %q, %v", b, err)
	}
	p.wants(false, 1, "note: /g", "damage: /h", "note: /link")
}

// A directory of the context that was swapped for a link is not followed out, and
// nothing is put back through it.
func TestLinkInTheWay(t *testing.T) {
	p := inDirectory(t, t.TempDir())
	p.some()
	data, outside := filepath.Join(p.dir, "data"), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(data, "d")), os.Symlink(outside, filepath.Join(data, "d"))); err != nil {
		t.Fatal(err)
	}
	lines, r := p.check(true)
	if r.Damaged > 0 || len(lines) != 2 {
		t.Errorf("found %q", lines)
	}
	if b, _ := os.ReadFile(filepath.Join(outside, "f")); string(b) != "secret" {
		t.Errorf("a file outside is %q now", b)
	}
}

// What was kept longer ago than it is needed is known by receipts alone.
func TestWithoutHistory(t *testing.T) {
	p := inDirectory(t, t.TempDir())
	p.some()
	if err := os.RemoveAll(filepath.Join(p.dir, "data", store.PrivateName)); err != nil {
		t.Fatal(err)
	}
	p.wants(false, 0)
	damage(t, filepath.Join(p.dir, "data/g"), flip)
	p.wants(true, 1, "damage: /g has other contents")
}

// What is kept to undo scripts by is checked too.
func TestDamagedHistory(t *testing.T) {
	p := inDirectory(t, t.TempDir())
	p.some()
	kept, err := filepath.Glob(filepath.Join(p.dir, "data", store.PrivateName, "history/*/*.1"))
	if err != nil || len(kept) != 2 {
		t.Fatal(kept, err)
	}
	damage(t, kept[0], flip)
	if err := os.Remove(kept[1]); err != nil {
		t.Fatal(err)
	}
	p.wants(true, 2, "is not what it was; the script cannot be undone", "is missing; the script cannot be undone")
}

// A log with a changed byte, anywhere in it, is damaged, or its last entry was
// never written; nothing is compared with it, and nothing panics.
func TestDamagedLog(t *testing.T) {
	p := inDirectory(t, t.TempDir())
	p.some()
	logs, err := filepath.Glob(filepath.Join(p.dir, "log/*.log"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	whole, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(whole); at += 41 {
		b := slices.Clone(whole)
		b[at] ^= 0x10
		if err := os.WriteFile(logs[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		if lines, r := p.check(false); r.Damaged == 0 && r.Unknown == "" || len(lines) == 0 {
			t.Errorf("byte %d changed: found %q, %+v", at, lines, r)
		}
	}
	// An end that is missing is what a crash leaves before the receipt is out: what
	// is left is whole.
	if err := os.WriteFile(logs[0], whole[:len(whole)-7], 0o600); err != nil {
		t.Fatal(err)
	}
	lines, r := p.check(false)
	if len(lines) != 1 || !strings.Contains(lines[0], "was not written whole") || r.Receipts != 2 {
		t.Errorf("cut short: %q, %+v", lines, r)
	}
	lines, _ = p.check(true)
	if len(lines) == 0 || !strings.Contains(lines[0], "fixed: ") {
		t.Errorf("mended: %q", lines)
	}
}

// A journal, at any length and with anything in it: it is told, and mended or
// called damage, and what the context holds stays.
func TestTruncatedJournal(t *testing.T) {
	p := inDirectory(t, t.TempDir())
	p.some()
	journal := filepath.Join(p.dir, "tx/journal")
	for _, text := range []string{"CIRCLEJ1", "circles journal v2\n", "circles journal v2\n0123456789abcdef", strings.Repeat("x", 5000)} {
		if err := os.WriteFile(journal, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		lines, r := p.check(false)
		if len(lines) != 1 || !strings.Contains(lines[0], "was not closed") || r.Unknown == "" {
			t.Errorf("%.20q: %q, %+v", text, lines, r)
		}
		lines, _ = p.check(true)
		if len(lines) == 0 || !strings.Contains(lines[0], "was not closed") {
			t.Errorf("%.20q: %q", text, lines)
		}
		if b, err := os.ReadFile(filepath.Join(p.dir, "data/h")); err != nil || string(b) != "third" {
			t.Fatalf("%.20q: a file is %q, %v", text, b, err)
		}
		_ = os.Remove(journal)
	}
	p.wants(false, 0)
}

// A bucket without one of its blobs, whichever it is, or with one that is another.
func TestMissingBlob(t *testing.T) {
	b := &castest.Bucket{}
	p := inBucket(t, b)
	p.some()
	p.script(func(files store.FS) { p.write(files, "large", strings.Repeat("more than fits into a page. ", 20_000)) })
	ctx := context.Background()
	n := 0
	for blob, err := range b.ListBlobs(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		data, err := b.GetBlob(ctx, blob.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.DeleteBlob(ctx, blob.ID); err != nil {
			t.Fatal(err)
		}
		lines, r := p.check(false)
		if err := b.PutBlob(ctx, blob.ID, data); err != nil {
			t.Fatal(err)
		}
		if len(lines) > 0 && r.Damaged > 0 {
			n++
		}
	}
	if n == 0 {
		t.Error("no blob is missed")
	}
	p.wants(false, 0)
}

// A database with a changed byte: each that is found is called damage, in the file
// or in what it holds, and none ends the check.
func TestDamagedDatabase(t *testing.T) {
	p := inSQLite(t, t.TempDir())
	p.some()
	path := filepath.Join(p.dir, "context.sqlite")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for at := 100; at < len(whole); at += 997 {
		b := slices.Clone(whole)
		b[at] ^= 0x20
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, r := p.check(false); r.Damaged > 0 {
			found++
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no changed byte was found")
	}
	p.wants(false, 0)
}

// Nobody may have it open; and one that somebody else has open is not waited for.
func TestInUse(t *testing.T) {
	for name, p := range map[string]*place{"fs": inDirectory(t, t.TempDir()), "sqlite": inSQLite(t, t.TempDir())} {
		p.some()
		s, err := p.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.verify(t.Context(), true, func(store.Finding) {}); !errors.Is(err, fs.ErrLocked) && !errors.Is(err, sqlite.ErrLocked) {
			t.Errorf("%s: checked while open: %v", name, err)
		}
		s.Close()
	}
}

// copyAll copies a directory, with the times of its files.
func copyAll(to, from string) error {
	return filepath.Walk(from, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dest := filepath.Join(to, rel)
		switch {
		case info.IsDir():
			return os.MkdirAll(dest, 0o700)
		case info.Mode().Type() == os.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dest)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
		return errors.Join(out.Close(), os.Chtimes(dest, info.ModTime(), info.ModTime()))
	})
}
