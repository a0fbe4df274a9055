package peer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// old makes what was done to peers/ long past.
func old(t testing.TB, root string) {
	t.Helper()
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(root, peersDir), long, long); err != nil {
		t.Fatal(err)
	}
}

// Opening a root, and keeping it, looks at no peer that nobody asks for.
func TestOpeningLooksAtNoPeer(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	for i := range byte(5) {
		if _, err := d.Hold(Name(fmt.Sprint("p", i)), key(t, i).ID(), nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	old(t, root)
	if n := len(open(t, root).All()); n != 5 { // scans, as the time is another
		t.Fatalf("%d peers", n)
	}
	// Were this file looked at, there would be a problem.
	write(t, filepath.Join(root, peersDir, "p3", identityFile), "id = ")
	d = open(t, root)
	if p := d.Problems(); len(p) > 0 {
		t.Errorf("looked at p3: %v", p)
	}
	for i := range byte(5) {
		if got, want := d.Holds(key(t, i).ID()), i != 3; got != want {
			t.Errorf("p%d held: %v", i, got)
		}
	}
	if err := d.Refresh(); err != nil {
		t.Fatal(err)
	}
	if p := d.Problems(); len(p) != 1 {
		t.Errorf("not seen on request: %v", p)
	}
	// Nor is it forgotten by those who open the root later.
	if p := open(t, root).Problems(); len(p) != 1 {
		t.Errorf("forgotten: %v", p)
	}
}

// A peer that another process adds is in the index when that has returned; it
// must not cost each of many who are added a look at all.
func TestAddingLooksAtNoOtherPeer(t *testing.T) {
	root := t.TempDir()
	if _, err := open(t, root).Hold("first", key(t, 1).ID(), nil, ""); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(root, peersDir, "first", identityFile)
	text, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	write(t, at, "id = ") // were it looked at, the next would find a problem
	if _, err := open(t, root).Hold("second", key(t, 2).ID(), nil, ""); err != nil {
		t.Fatal(err)
	}
	d := open(t, root)
	if p := d.Problems(); len(p) > 0 || !d.Holds(key(t, 2).ID()) {
		t.Errorf("looked at first: %v", p)
	}
	write(t, at, string(text))
	if !open(t, root).Holds(key(t, 1).ID()) {
		t.Error("first is gone")
	}
	// When the clock of a coarse file system could tell, it is looked at once more.
	eventually(t, "that somebody looks again", func() bool {
		b, err := os.ReadFile(d.index.completeFile())
		d.look()
		return err == nil && strings.HasSuffix(strings.SplitN(string(b), "\n", 2)[0], " false")
	})
}

// The index is only where to look. Whoever can write it, or leaves it as it was,
// cannot have one peer taken for another.
func TestIndexIsNotTrusted(t *testing.T) {
	root := t.TempDir()
	alice, bob := key(t, 1).ID(), key(t, 2).ID()
	for name, id := range map[string]ID{"alice": alice, "bob": bob} {
		write(t, filepath.Join(root, peersDir, name, identityFile), identityText(id))
	}
	old(t, root)
	d := open(t, root)
	link := d.index.link(alice)
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"bob", "../peers/bob", "../../elsewhere", ".", "alice/bob", "bob/", strings.Repeat("x", 300)} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		d = open(t, root)
		if e, ok := d.ByID(alice); ok {
			t.Errorf("%q: alice is %+v", target, e)
		}
		if e, ok := d.ByID(bob); !ok || e.Name != "bob" {
			t.Errorf("%q: bob is %+v", target, e)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"", "\x00", "circles peers v1", "broken\nseveral\n", strings.Repeat("x", maxConfigFile+1)} {
		write(t, d.index.completeFile(), text)
		if d := open(t, root); !d.Holds(alice) || !d.Holds(bob) {
			t.Errorf("%.20q stopped a scan", text)
		}
	}
	for _, id := range []ID{"", "did:key:", "did:key:../../peers/bob", "did:key:complete", "bob", ID("did:key:" + strings.Repeat("z", 5000)), "did:key:z6Mk\x00"} {
		if d.Holds(id) {
			t.Errorf("%.40q is held", id)
		}
	}
}

// Deleted, as everything in cache may be, it is made again.
func TestIndexMayBeDeleted(t *testing.T) {
	root := t.TempDir()
	alice, bob := key(t, 1).ID(), key(t, 2).ID()
	write(t, filepath.Join(root, peersDir, "alice", identityFile), identityText(alice))
	write(t, filepath.Join(root, peersDir, "bob", identityFile), identityText(bob))
	old(t, root)
	d := open(t, root)
	if !d.Holds(alice) {
		t.Fatal("not held")
	}
	if err := os.RemoveAll(filepath.Join(root, "cache")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bob, whom nobody asked for before", func() bool { return d.Holds(bob) })
	if !open(t, root).Holds(alice) {
		t.Error("gone for who opens it anew")
	}
}

// Where it cannot be written, who is held is kept in memory.
func TestIndexThatCannotBeWritten(t *testing.T) {
	root := t.TempDir()
	alice := key(t, 1).ID()
	write(t, filepath.Join(root, peersDir, "alice", identityFile), identityText(alice))
	write(t, filepath.Join(root, "cache"), "no directory")
	old(t, root)
	d := open(t, root)
	if !d.Holds(alice) || len(d.Problems()) > 0 {
		t.Errorf("not held: %v", d.Problems())
	}
	scans := d.index.inMemory.Load()
	time.Sleep(2 * checkEvery)
	if d.Knows("bob") || d.index.inMemory.Load() != scans {
		t.Error("it scans at every look")
	}
	if _, err := d.Hold("bob", key(t, 2).ID(), nil, ""); err != nil || !d.Holds(key(t, 2).ID()) {
		t.Errorf("bob: %v", err)
	}
}

// A copy by hand of a peer's directory is found, whoever made the index before.
func TestCopiesAreFound(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	alice := key(t, 1)
	e, err := d.Hold("alice", alice.ID(), alice, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(e.Dir+"-copy", os.DirFS(e.Dir)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the copy", func() bool { return !d.Holds(alice.ID()) && len(d.Problems()) == 1 })
	if _, err := d.Hold("third", alice.ID(), nil, ""); err == nil {
		t.Error("a third was made")
	}
	if d.Knows("alice") || d.Knows("alice-copy") {
		t.Error("one of them is served by its name")
	}
	if err := os.Rename(e.Dir, filepath.Join(filepath.Dir(e.Dir), ".alice")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that one is left", func() bool {
		e, ok := d.ByID(alice.ID())
		return ok && e.Name == "alice-copy" && len(d.Problems()) == 0
	})
}

// Start-up with many peers beside few; the ratio is what counts.
func BenchmarkOpenDirectory(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			root := b.TempDir()
			for i := range n {
				k, err := GenerateKey()
				if err != nil {
					b.Fatal(err)
				}
				write(b, filepath.Join(root, peersDir, fmt.Sprint("p", i), identityFile), identityText(k.ID()))
			}
			long := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(root, peersDir), long, long); err != nil {
				b.Fatal(err)
			}
			open(b, root) // makes the index
			b.ReportAllocs()
			for b.Loop() {
				open(b, root)
			}
		})
	}
}
