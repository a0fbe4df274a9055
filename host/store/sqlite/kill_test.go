package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// TestKill is the real thing: a process that commits in a loop is killed with
// SIGKILL, at random moments, and what it had been told was committed is there,
// whole; and nothing else is half there.
func TestKill(t *testing.T) {
	if path := os.Getenv("CIRCLES_TEST_KILL"); path != "" {
		killed(t, Config{Path: path})
		return
	}
	c := memoryConfig(t) // what the kernel has, it keeps: see TestPowerCut for the rest
	acked, rounds := 0, 25
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), "CIRCLES_TEST_KILL="+c.Path)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if _, err := fmt.Sscanf(lines.Text(), "committed %d", &acked); err != nil {
				t.Fatalf("the process says %q", lines.Text())
			}
			if n == 1 {
				go func() {
					time.Sleep(time.Duration(rand.IntN(15_000)) * time.Microsecond)
					cmd.Process.Kill()
				}()
			}
		}
		cmd.Wait()
		if n := consistent(t, c); n != acked && n != acked+1 {
			t.Fatalf("round %d: state %d, acknowledged %d", round, n, acked)
		}
	}
	if acked < rounds {
		t.Errorf("%d commits in %d rounds", acked, rounds)
	}
}

// killed commits until the process is killed.
func killed(t *testing.T, c Config) {
	s := mustOpen(t, c)
	for n := state(t, s) + 1; ; n++ {
		must(t, commitState(s, n))
		fmt.Printf("committed %d\n", n)
	}
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
