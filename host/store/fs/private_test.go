//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
)

// TestPrivateInOwnersDirectory: the host's own directory is an ordinary one in
// data/. The owner may edit what is in it; what was planted in it, or in its
// place, leads nowhere.
func TestPrivateInOwnersDirectory(t *testing.T) {
	c := memoryConfig(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "f"), []byte("the host's machine"), 0o600))
	s := mustOpen(t, c)
	private := func(f func(p store.FS) error) error {
		return s.Update(context.Background(), func(tx store.Tx) error { return f(tx.Private()) })
	}
	at := func(names ...string) string {
		return filepath.Join(append([]string{c.Data, store.PrivateName}, names...)...)
	}

	must(t, private(func(p store.FS) error { return first(p.Mkdir("d"), write(p, "d/f", "one")) }))
	if got, err := os.ReadFile(at("d", "f")); string(got) != "one" {
		t.Errorf("the owner reads %q, %v", got, err)
	}
	must(t, os.WriteFile(at("d", "f"), []byte("owner's"), 0o600))
	must(t, private(func(p store.FS) error {
		got, err := read(p, "d/f")
		if got != "owner's" {
			t.Errorf("the host reads %q", got)
		}
		return err
	}))
	// An edit while a transaction writes the same is not lost.
	err := private(func(p store.FS) error {
		must(t, write(p, "d/f", "host's"))
		return os.WriteFile(at("d", "f"), []byte("owner's again"), 0o600)
	})
	if got, _ := os.ReadFile(at("d", "f")); !errors.Is(err, ErrConflict) || string(got) != "owner's again" {
		t.Errorf("after an edit meanwhile: %v, %q", err, got)
	}

	must(t, os.Symlink(outside, at("ld")))
	must(t, os.Symlink(filepath.Join(outside, "f"), at("lf")))
	must(t, unix.Mkfifo(at("fifo"), 0o600))
	for _, path := range []string{"ld/f", "ld/", "lf", "fifo"} {
		must(t, private(func(p store.FS) error {
			if _, err := read(p, path); !errors.Is(err, store.ErrSpecial) {
				t.Errorf("read %s: %v", path, err)
			}
			if err := write(p, path, "x"); !errors.Is(err, store.ErrSpecial) {
				t.Errorf("write %s: %v", path, err)
			}
			return nil
		}))
	}

	for name, plant := range map[string]func() error{
		"file":  func() error { return os.WriteFile(at(), []byte("what is this"), 0o600) },
		"link":  func() error { return os.Symlink(outside, at()) },
		"pipe":  func() error { return unix.Mkfifo(at(), 0o600) },
		"loose": func() error { return os.Symlink("nowhere", at()) },
	} {
		must(t, os.RemoveAll(at()))
		must(t, plant())
		if err := private(func(p store.FS) error { return write(p, "f", "x") }); !errors.Is(err, store.ErrNotDir) {
			t.Errorf("%s: write: %v", name, err)
		}
		must(t, private(func(p store.FS) error {
			if _, err := read(p, "f"); !errors.Is(err, store.ErrNotDir) {
				t.Errorf("%s: read: %v", name, err)
			}
			return nil
		}))
		if i, err := os.Lstat(at()); err != nil || i.IsDir() {
			t.Errorf("%s is %v, %v now", name, i, err)
		}
	}
	if got, _ := os.ReadFile(filepath.Join(outside, "f")); string(got) != "the host's machine" {
		t.Errorf("outside is %q", got)
	}
}
