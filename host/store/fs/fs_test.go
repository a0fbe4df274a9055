//go:build linux || darwin || freebsd

package fs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/storetest"
)

// config is a fresh context on disk.
func config(t testing.TB) Config {
	dir := t.TempDir()
	return Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")}
}

// memoryConfig is one where fsync costs nothing, for tests that commit by the
// hundred. What they test does not depend on the file system.
func memoryConfig(t testing.TB) Config {
	dir, err := os.MkdirTemp("/dev/shm", "circles-test-")
	if err != nil {
		return config(t)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")}
}

func TestStore(t *testing.T) {
	storetest.RunDurable(t, func(t *testing.T) (store.Store, func() store.Store) {
		c := config(t)
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
