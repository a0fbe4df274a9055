package sqlite

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
	"github.com/circles-host/circles/host/store/storetest"
)

// TestKill is the real thing: processes that commit are killed. What the kernel
// has, it keeps: see TestPowerCut for the rest.
func TestKill(t *testing.T) {
	storetest.Crash(t, storetest.Crasher{
		Place: func(t *testing.T) string { return memoryConfig(t).Path },
		Open: func(path string) ([]store.Store, error) {
			s, err := Open(Config{Path: path})
			return []store.Store{s}, err
		},
	})
}

// commitState is a commit that touches everything: rows that are made, moved,
// replaced and removed, chunks that are added, cut and rewritten, and the log.
func commitState(s *overlay.Store, n int) error {
	return s.Update(context.Background(), func(tx store.Tx) error {
		fs := tx.Files(nil)
		if n == 1 {
			if err := fs.Mkdir("d1"); err != nil {
				return err
			}
		} else if err := fs.Rename(fmt.Sprint("d", n-1), fmt.Sprint("d", n)); err != nil {
			return err
		}
		if n > 3 {
			if err := fs.Unlink(fmt.Sprintf("d%d/only%d", n, n-3)); err != nil {
				return err
			}
		}
		big, err := fs.Open("big", store.FlagWrite|store.FlagCreate)
		if err != nil {
			return err
		}
		defer big.Close()
		size := int64(1+n%5) * 50_000
		if err := big.Truncate(size); err != nil {
			return err
		}
		for off := int64(0); off < size; off += 30_000 {
			if _, err := fmt.Fprintf(&at{big, off}, "%09d", n); err != nil {
				return err
			}
		}
		for _, name := range []string{"state", fmt.Sprintf("d%d/same", n), fmt.Sprintf("d%d/only%d", n, n)} {
			if err := write(fs, name, fmt.Sprint(n)); err != nil {
				return err
			}
		}
		return tx.Append(keyOf(n), fmt.Append(nil, n))
	})
}

// consistent opens the context, checks that it is exactly what commitState left
// some time, and returns when.
func consistent(t *testing.T, c Config) int {
	t.Helper()
	s := mustOpen(t, c)
	defer s.Close()
	n := state(t, s)
	last := 0
	var prev [32]byte
	for e, err := range s.Log(context.Background(), 1) {
		must(t, err)
		if last++; e.Prev != prev || string(e.Data) != fmt.Sprint(last) {
			t.Fatalf("log entry %d holds %q", last, e.Data)
		}
		prev = e.Hash()
	}
	if last != n {
		t.Fatalf("state %d, and the log has %d entries", n, last)
	}
	if n == 0 {
		return 0
	}
	must(t, s.View(context.Background(), func(tx store.Tx) error {
		fs := tx.Files(nil)
		if names := list(t, fs, "/"); strings.Join(names, " ") != fmt.Sprintf("big d%d state", n) {
			t.Errorf("state %d: the root holds %q", n, names)
		}
		if names := list(t, fs, fmt.Sprint("d", n)); len(names) != min(n, 3)+1 {
			t.Errorf("state %d: the directory holds %q", n, names)
		}
		if got := read(t, fs, fmt.Sprintf("d%d/same", n)); got != fmt.Sprint(n) {
			t.Errorf("state %d: d/same holds %q", n, got)
		}
		big := read(t, fs, "big")
		if len(big) != (1+n%5)*50_000 {
			t.Fatalf("state %d: big has %d bytes", n, len(big))
		}
		for off := 0; off < (1+n%5)*50_000; off += 30_000 {
			if got := big[off : off+9]; got != fmt.Sprintf("%09d", n) {
				t.Errorf("state %d: big has %q at %d", n, got, off)
			}
		}
		return nil
	}))
	return n
}

func state(t *testing.T, s *overlay.Store) (n int) {
	t.Helper()
	must(t, s.View(context.Background(), func(tx store.Tx) error {
		fs := tx.Files(nil)
		if _, err := fs.Stat("state", true); err == nil {
			fmt.Sscan(read(t, fs, "state"), &n)
		}
		return nil
	}))
	return n
}
