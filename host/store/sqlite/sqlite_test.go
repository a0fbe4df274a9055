package sqlite

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/circles-host/circles/host/store"
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
