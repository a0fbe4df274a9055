package sqlite

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/circles-host/circles/host/store"
)

// TestReaderBesideAWorker: who reads while another writes sees one state, all
// through, and leaves everything as it was.
func TestReaderBesideAWorker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "context.sqlite")
	if _, err := OpenReader(Config{Path: path}); !errors.Is(err, iofs.ErrNotExist) {
		t.Fatalf("opened what is not there: %v", err)
	}
	w, err := Open(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx := context.Background()
	write := func(text string) {
		t.Helper()
		if err := w.Update(ctx, func(tx store.Tx) error {
			f, err := tx.Files(nil).Open("f", store.FlagWrite|store.FlagCreate|store.FlagTruncate)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte(text), 0)
			return errors.Join(err, f.Close(), tx.Append(store.Key{text[0]}, []byte(text)))
		}); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	r, err := OpenReader(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	look := func(want string, entries int) {
		t.Helper()
		if err := r.View(ctx, func(tx store.Tx) error {
			f, err := tx.Files(nil).Open("f", store.FlagRead)
			if err != nil {
				return err
			}
			b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
			if string(b) != want {
				t.Errorf("read %q, want %q", b, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range r.Log(ctx, 1) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != entries {
			t.Errorf("%d entries, want %d", n, entries)
		}
	}
	look("first", 1)
	write("second, and longer")
	look("first", 1)
	if err := r.Update(ctx, func(tx store.Tx) error { return tx.Files(nil).Mkdir("d") }); !errors.Is(err, errReader) {
		t.Errorf("a reader wrote: %v", err)
	}
	if err := r.View(ctx, func(tx store.Tx) error { return tx.Append(store.Key{9}, nil) }); !errors.Is(err, errReader) {
		t.Errorf("a reader logged: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r, err = OpenReader(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	look("second, and longer", 2)
	// The worker goes first, and is not held up; what it did is all there.
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	look("second, and longer", 2)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path + "-stage"); err == nil {
		t.Error("a reader staged something")
	}
}
