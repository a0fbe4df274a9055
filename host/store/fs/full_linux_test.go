package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// smallDisk mounts a file system of 4 MiB. Without the right to, there is none:
// then TestDiskRefuses has to do.
func smallDisk(t *testing.T) (dir string, ok bool) {
	dir = filepath.Join(t.TempDir(), "disk")
	must(t, os.Mkdir(dir, 0o700))
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Logf("mount: %v", err)
		return "", false
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir, true
}

// TestFullDisk: commits to a disk that is full are refused and leave nothing, as
// long as it is; reading goes on; what was acknowledged is there; and no context is
// broken by it.
func TestFullDisk(t *testing.T) {
	dir, ok := smallDisk(t)
	if !ok {
		return
	}
	j := mustJournal(t, JournalConfig{Dir: filepath.Join(dir, "journal"), Size: 256 << 10})
	var stores []store.Store
	for i := range 3 {
		at := filepath.Join(dir, fmt.Sprint(i))
		stores = append(stores, mustOpen(t, Config{Data: filepath.Join(at, "data"), Log: filepath.Join(at, "log"), Tx: filepath.Join(at, "tx"), Journal: j}))
	}
	filler := filepath.Join(dir, "filler")
	for round, fill := range []int{512 << 10, 1 << 20, 2 << 20} { // how much of it somebody else took
		must(t, os.WriteFile(filler, make([]byte, fill), 0o600))
		refused := 0
		for i := 0; refused < 20; i++ {
			if i == 10_000 {
				t.Fatal("the disk does not fill")
			}
			s := stores[i%3]
			name := fmt.Sprint("f", round, i)
			var key store.Key
			rand.Read(key[:])
			err := s.Update(context.Background(), func(tx store.Tx) error {
				return first(write(tx.Files(nil), name, strings.Repeat("x", 1<<(i%18))), tx.Append(key, nil))
			})
			switch {
			case errors.Is(err, overlay.ErrBroken):
				t.Fatalf("round %d: %v", round, err)
			case err != nil:
				refused++
				if !errors.Is(err, store.ErrQuota) {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			_, logged, eerr := s.Entry(context.Background(), key)
			must(t, eerr)
			view(t, s, func(fs store.FS) error {
				if _, serr := fs.Stat(name, true); (serr == nil) != (err == nil) || logged != (err == nil) {
					t.Fatalf("round %d: a commit ends with %v, and the file with %v; logged: %v", round, err, serr, logged)
				}
				return nil
			})
		}
		must(t, os.Remove(filler))
		for _, s := range stores { // and there is room again
			must(t, s.Update(context.Background(), func(tx store.Tx) error {
				fs := tx.Files(nil)
				h, err := fs.Open("/", store.FlagRead)
				if err != nil {
					return err
				}
				names, err := h.ReadDir(0, 1<<20)
				for _, name := range names {
					err = first(err, fs.Unlink(name.Name))
				}
				return first(err, h.Close(), write(fs, "kept", fmt.Sprint(round)))
			}))
		}
	}
	for i, s := range stores {
		want := state(t, s)
		must(t, s.Close())
		at := filepath.Join(dir, fmt.Sprint(i))
		s = mustOpen(t, Config{Data: filepath.Join(at, "data"), Log: filepath.Join(at, "log"), Tx: filepath.Join(at, "tx")})
		if got := state(t, s); got != want {
			t.Errorf("context %d, opened again, has\n%.200s\nwant\n%.200s", i, got, want)
		}
	}
}

// TestReadOnlyDisk: a context on a file system that was mounted read-only, with a
// commit that is not finished, does not open, loses nothing, and opens when it can
// be written to again.
func TestReadOnlyDisk(t *testing.T) {
	dir, ok := smallDisk(t)
	if !ok {
		return
	}
	c := Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")}
	killed(t, JournalConfig{Dir: filepath.Join(dir, "journal")}, c, func(s store.Store) { must(t, set(s, "f", "x")) })
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if s, err := Open(c); !errors.Is(err, unix.EROFS) {
		t.Errorf("open: %v", err)
		if err == nil {
			s.Close()
		}
	}
	for e, err := range ReadLog(context.Background(), c.Log) {
		if err != nil || string(e.Data) != "x" {
			t.Errorf("log: %s, %v", e.Data, err)
		}
	}
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=4m"))
	s := mustOpen(t, c)
	if got, want := state(t, s), "/f = \"x\" 1\n/last = \"decided\" 7\n1 x\n2 decided\n"; got != want {
		t.Errorf("there is\n%s\nwant\n%s", got, want)
	}
	must(t, s.Close())
}
