package revoked_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/revoked"
	"github.com/circles-host/circles/host/script"
)

func key(t testing.TB, seed byte) *peer.Key {
	t.Helper()
	k, err := peer.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// chain is of two delegations, by the peers of seeds 1 and 2.
func chain(t testing.TB) []envelope.Link {
	return []envelope.Link{
		{ID: script.Digest{1}, Delegation: script.Delegation{Issuer: key(t, 1).ID(), To: key(t, 2).ID()}},
		{ID: script.Digest{2}, Delegation: script.Delegation{Issuer: key(t, 2).ID(), To: key(t, 3).ID()}},
	}
}

func sealed(t testing.TB, id script.Digest, seed byte) []byte {
	t.Helper()
	b, err := envelope.SealRevocation(id, key(t, seed))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Changes in quick succession are each seen at once, also where the directory's time
// does not tell them apart.
func TestSeenAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "revoked")
	list := revoked.Open(dir)
	if err := list.Check(chain(t)); err != nil {
		t.Fatal("without a directory:", err)
	}
	for range 50 {
		name, err := revoked.Add(dir, script.Digest{2}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var e *revoked.Error
		if err := list.Check(chain(t)); !errors.As(err, &e) || e.Delegation != (script.Digest{2}) || e.By != "" {
			t.Fatalf("taken back: %v", err)
		}
		if err := list.Check(chain(t)[:1]); err != nil {
			t.Fatalf("what it passes on: %v", err)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := list.Check(chain(t)); err != nil {
			t.Fatalf("no longer: %v", err)
		}
	}
	// A file that is written again, under a directory whose time stays what it was.
	name, err := revoked.Add(dir, script.Digest{2}, sealed(t, script.Digest{2}, 9))
	if err != nil {
		t.Fatal(err)
	}
	if err := list.Check(chain(t)); err != nil {
		t.Fatalf("by a stranger: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), envelope.Text(envelope.RevocationText, sealed(t, script.Digest{2}, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := list.Check(chain(t)); err == nil || !strings.Contains(err.Error(), "taken back by z6Mk") {
		t.Fatalf("by an issuer: %v", err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
	for range 3 { // read, and then from memory
		if err := list.Check(chain(t)); err == nil {
			t.Fatal("forgotten")
		}
	}
}

// A directory is its owner's, and what is in it may be a mistake: that lets nothing in.
func TestOddFiles(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"empty":    func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"nonsense": func(p string) error { return os.WriteFile(p, []byte("\x00\xff"), 0o600) },
		"of another": func(p string) error {
			return os.WriteFile(p, envelope.Text(envelope.RevocationText, sealed(t, script.Digest{7}, 9)), 0o600)
		},
		"huge":        func(p string) error { return os.WriteFile(p, make([]byte, 1<<20), 0o600) },
		"a directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"a link out":  func(p string) error { return os.Symlink("/dev/zero", p) },
	} {
		dir := t.TempDir()
		if err := put(filepath.Join(dir, fmt.Sprintf("%x.revoked", script.Digest{2}))); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var e *revoked.Error
		if err := revoked.Open(dir).Check(chain(t)); !errors.As(err, &e) || e.Delegation != (script.Digest{2}) {
			t.Errorf("a file that is %s: %v", name, err)
		}
	}
	for name, put := range map[string]func(dir string) error{
		"a name that is no id": func(dir string) error { return os.WriteFile(filepath.Join(dir, "12.revoked"), nil, 0o600) },
		"a file for directory": func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) },
		"too many files": func(dir string) error {
			for i := range revoked.MaxFiles + 1 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := put(dir); err != nil {
			t.Fatal(err)
		}
		list := revoked.Open(dir)
		var e *revoked.Error
		if err := list.Check(chain(t)); !errors.As(err, &e) || errors.Unwrap(e) == nil || strings.Contains(e.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := revoked.All(dir); err == nil {
			t.Errorf("%s: listed", name)
		}
		// It is looked at again, and well when that is mended.
		if err := errors.Join(os.RemoveAll(dir), list.Check(chain(t))); err != nil {
			t.Errorf("%s: mended: %v", name, err)
		}
	}
}

func TestAdd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for _, by := range [][]byte{nil, sealed(t, script.Digest{2}, 1), sealed(t, script.Digest{2}, 2), sealed(t, script.Digest{2}, 1)} {
		if _, err := revoked.Add(dir, script.Digest{2}, by); err != nil {
			t.Fatal(err)
		}
	}
	all, err := revoked.All(dir)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	seen := map[peer.ID]bool{}
	for _, e := range all {
		seen[e.By] = e.Delegation == script.Digest{2}
	}
	if !seen[""] || !seen[key(t, 1).ID()] || !seen[key(t, 2).ID()] {
		t.Errorf("%+v", all)
	}
	if _, err := revoked.Add(dir, script.Digest{2}, sealed(t, script.Digest{3}, 1)); err == nil {
		t.Error("a revocation of another delegation")
	}
	if _, err := revoked.Add(dir, script.Digest{2}, []byte("x")); err == nil {
		t.Error("what is no revocation")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func BenchmarkCheck(b *testing.B) {
	dir := b.TempDir()
	for i := range 1000 {
		if _, err := revoked.Add(dir, script.Digest{9, byte(i), byte(i >> 8)}, nil); err != nil {
			b.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, old, old); err != nil {
		b.Fatal(err)
	}
	list, links := revoked.Open(dir), chain(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := list.Check(links); err != nil {
			b.Fatal(err)
		}
	}
}
