package castest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
)

// Hammer lets workers, each with a store of its own on one bucket, append lines to
// two files and to the log, as hosts do: after a conflict again, and after an outcome
// that is not known by asking with the same key. Nothing may be lost, torn or there
// twice, which Hammered sees.
func Hammer(t *testing.T, stores []*cas.Store, rounds int) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	conflicts, unknown, unsent := 0, 0, 0
	note := func(n *int) { mu.Lock(); *n++; mu.Unlock() }
	for w, s := range stores {
		wg.Go(func() {
			for i := range rounds {
				key, begin := store.Key{byte(w), byte(i), byte(i >> 8), 1}, s.Update
				if i%4 == 3 {
					begin = s.View
				}
				for try := 0; ; try++ {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					err := begin(ctx, func(tx store.Tx) error {
						a, err := readFile(tx, "a")
						if err != nil && !errors.Is(err, store.ErrNotExist) {
							return err
						}
						b, err := readFile(tx, "d/b")
						if err != nil && !errors.Is(err, store.ErrNotExist) {
							return err
						}
						if a != b {
							return fmt.Errorf("torn: a has %d bytes, b %d", len(a), len(b))
						}
						if i%4 != 3 {
							fs := tx.Files(nil)
							if err := fs.Mkdir("d"); err != nil && !errors.Is(err, store.ErrExists) {
								return err
							}
							for _, path := range []string{"a", "d/b"} {
								if err := appendTo(fs, path, fmt.Sprintf("%d %d %s", w, i, filling[:i*977%len(filling)])); err != nil {
									return err
								}
							}
						}
						return tx.Append(key, fmt.Appendf(nil, "%d %d\n%s", w, i, filling[:i*911%len(filling)]))
					})
					cancel()
					if err == nil || errors.Is(err, store.ErrExists) && try > 0 {
						break
					}
					switch {
					case try == 1000:
						t.Errorf("worker %d, round %d, for the 1000th time: %v", w, i, err)
						return
					case errors.Is(err, store.ErrConflict):
						note(&conflicts)
					case errors.Is(err, store.ErrUnknown):
						note(&unknown)
					case strings.Contains(err.Error(), "injected"), strings.Contains(err.Error(), "damaged"):
						note(&unsent) // the network was bad several times in a row
					default:
						t.Errorf("worker %d, round %d: %v", w, i, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d conflicts, %d outcomes unknown, %d failures", conflicts, unknown, unsent)
}

// filling makes some lines and entries too long to be kept in a table.
var filling = strings.Repeat("-", 12_000)

// Hammered checks what Hammer left, by a store that need not be one of those.
func Hammered(t *testing.T, s *cas.Store, workers, rounds int) {
	t.Helper()
	want := map[string]bool{}
	for w := range workers {
		for i := range rounds {
			want[fmt.Sprintf("%d %d", w, i)] = i%4 != 3
		}
	}
	var a, b string
	must(t, s.View(context.Background(), func(tx store.Tx) (err error) {
		if a, err = readFile(tx, "a"); err == nil {
			b, err = readFile(tx, "d/b")
		}
		return err
	}))
	if a != b {
		t.Error("the files differ")
	}
	seen := map[string]int{}
	lines := strings.Split(strings.TrimSuffix(a, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " -")
		seen[lines[i]]++
	}
	var order []string
	logged := map[string]int{}
	for e, err := range s.Log(context.Background(), 1) {
		must(t, err)
		line, _, _ := strings.Cut(string(e.Data), "\n")
		logged[line]++
		if want[line] {
			order = append(order, line)
		}
	}
	for line, isFile := range want {
		if n := map[bool]int{true: 1}[isFile]; seen[line] != n {
			t.Errorf("%q is in the file %d times, want %d", line, seen[line], n)
		}
		if logged[line] != 1 {
			t.Errorf("%q is in the log %d times", line, logged[line])
		}
	}
	if len(seen) != len(lines) || !slices.Equal(order, lines) {
		t.Error("the log and the file tell of different orders")
	}
	must(t, s.Check(context.Background(), func(err error) { t.Errorf("check: %v", err) }))
}

func readFile(tx store.Tx, path string) (string, error) {
	f, err := tx.Files(nil).Open(path, store.FlagRead)
	if err != nil {
		return "", err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, i.Size))
	return string(b), err
}

// appendTo appends a line to a file.
func appendTo(fs store.FS, path, line string) error {
	f, err := fs.Open(path, store.FlagWrite|store.FlagCreate|store.FlagAppend)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(line+"\n"), 0)
	return err
}
