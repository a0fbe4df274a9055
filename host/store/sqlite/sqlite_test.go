package sqlite

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
	"github.com/circles-host/circles/host/store/storetest"
)

// memoryConfig is a context where waiting for the disk costs nothing, for tests
// that commit by the hundred. What they test does not depend on the file system.
func memoryConfig(t testing.TB) Config {
	dir, err := os.MkdirTemp("/dev/shm", "circles-test-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Config{Path: filepath.Join(dir, "context.db")}
}

func TestStore(t *testing.T) {
	storetest.RunDurable(t, func(t *testing.T) (store.Store, func() store.Store) {
		c := memoryConfig(t)
		open := func() store.Store {
			s, err := Open(c)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		return open(), open
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, c Config) *overlay.Store {
	t.Helper()
	s, err := Open(c)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func keyOf(n int) store.Key { return store.Key{byte(n), byte(n >> 8), byte(n >> 16), 1} }

func update(t testing.TB, s *overlay.Store, f func(fs store.FS) error) {
	t.Helper()
	must(t, s.Update(context.Background(), func(tx store.Tx) error { return f(tx.Files(nil)) }))
}

func view(t testing.TB, s *overlay.Store, f func(fs store.FS) error) {
	t.Helper()
	must(t, s.View(context.Background(), func(tx store.Tx) error { return f(tx.Files(nil)) }))
}

func write(fs store.FS, path, content string) error {
	f, err := fs.Open(path, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(content), 0)
	return err
}

func read(t testing.TB, fs store.FS, path string) string {
	t.Helper()
	f, err := fs.Open(path, store.FlagRead)
	must(t, err)
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	must(t, err)
	return string(b)
}

func list(t testing.TB, fs store.FS, path string) (names []string) {
	t.Helper()
	f, err := fs.Open(path, store.FlagRead|store.FlagDirectory)
	must(t, err)
	defer f.Close()
	entries, err := f.ReadDir(0, 1<<20)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

// at writes to a file from an offset on.
type at struct {
	f   io.WriterAt
	off int64
}

func (a *at) Write(p []byte) (int, error) {
	n, err := a.f.WriteAt(p, a.off)
	a.off += int64(n)
	return n, err
}
