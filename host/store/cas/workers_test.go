package cas_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
)

func open(t testing.TB, r cas.Remote, c cas.Config) *cas.Store {
	t.Helper()
	s, err := cas.Open(context.Background(), r, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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

func read(t testing.TB, s store.Store, path string) (content string) {
	t.Helper()
	must(t, s.View(context.Background(), func(tx store.Tx) (err error) {
		content, err = readIn(tx, path)
		return err
	}))
	return content
}

func readIn(tx store.Tx, path string) (string, error) {
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

func update(s store.Store, f func(fs store.FS) error) error {
	return s.Update(context.Background(), func(tx store.Tx) error { return f(tx.Files(nil)) })
}

// sound fails t if anything is wrong with what s refers to.
func sound(t testing.TB, s *cas.Store) {
	t.Helper()
	must(t, s.Check(context.Background(), func(err error) { t.Errorf("check: %v", err) }))
}

func entries(t testing.TB, s store.Store) (all []store.Entry) {
	t.Helper()
	for e, err := range s.Log(context.Background(), 1) {
		must(t, err)
		all = append(all, e)
	}
	return all
}

func keyOf(worker, i int) store.Key { return store.Key{byte(worker), byte(i), byte(i >> 8), 1} }

// slow makes workers meet each other.
func slow(r cas.Remote) cas.Remote { return &castest.Faults{Remote: r, Delay: time.Millisecond} }

func TestWorkersLoseNothing(t *testing.T) {
	const workers, rounds = 4, 16
	var bucket castest.Bucket
	var stores []*cas.Store
	for range workers {
		stores = append(stores, open(t, slow(&bucket), cas.Config{}))
	}
	castest.Hammer(t, stores, rounds)
	castest.Hammered(t, open(t, &bucket, cas.Config{}), workers, rounds)
}

// badly is for a network that is expected to fail.
var badly = cas.Config{SettleTime: 500 * time.Millisecond, RetryAfter: time.Millisecond}

func TestWorkersLoseNothingOnABadNetwork(t *testing.T) {
	const workers, rounds = 4, 25
	var bucket castest.Bucket
	var stores []*cas.Store
	var nets []*castest.Faults
	for range workers {
		nets = append(nets, &castest.Faults{Remote: &bucket, Rate: 10, Delay: time.Millisecond})
		s, err := cas.Open(context.Background(), nets[len(nets)-1], badly)
		for err != nil {
			s, err = cas.Open(context.Background(), nets[len(nets)-1], badly)
		}
		t.Cleanup(func() { s.Close() })
		stores = append(stores, s)
	}
	castest.Hammer(t, stores, rounds)
	injected := 0
	for _, n := range nets {
		n.Wait()
		injected += n.Injected()
	}
	if injected < 50 {
		t.Errorf("only %d faults", injected)
	}
	castest.Hammered(t, open(t, &bucket, cas.Config{}), workers, rounds)
}

// TestWorkersLoseNothingWhileGarbageIsCollected: what is deleted is never what
// somebody is about to refer to.
func TestWorkersLoseNothingWhileGarbageIsCollected(t *testing.T) {
	const workers, rounds = 3, 20
	var bucket castest.Bucket
	var stores []*cas.Store
	for range workers {
		stores = append(stores, open(t, slow(&bucket), cas.Config{}))
	}
	collector := open(t, slow(&bucket), cas.Config{})
	done := make(chan struct{})
	var wg sync.WaitGroup
	deleted := 0
	wg.Go(func() {
		for {
			c, err := collector.Collect(context.Background(), 0)
			if err != nil && !errors.Is(err, store.ErrConflict) {
				t.Errorf("%v", err)
			}
			deleted += c.Deleted
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	castest.Hammer(t, stores, rounds)
	close(done)
	wg.Wait()
	if deleted == 0 {
		t.Error("nothing was deleted: the test tests nothing")
	}
	castest.Hammered(t, open(t, &bucket, cas.Config{}), workers, rounds)
}

// TestAKeyIsCommittedOnce: two workers that were sent the same script.
func TestAKeyIsCommittedOnce(t *testing.T) {
	var bucket castest.Bucket
	a, b := open(t, &bucket, cas.Config{}), open(t, &bucket, cas.Config{})
	for i := range 30 {
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for w, s := range []*cas.Store{a, b} {
			wg.Go(func() {
				errs[w] = s.Update(context.Background(), func(tx store.Tx) error {
					if i%2 == 0 {
						if err := appendTo(tx.Files(nil), "f", "x"); err != nil {
							return err
						}
					}
					return tx.Append(keyOf(0, i), fmt.Append(nil, w))
				})
			})
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict):
				t.Error(err)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %v", i, errs)
		}
	}
	// After the one has looked, and before it commits.
	if err := a.Update(context.Background(), func(tx store.Tx) error {
		must(t, b.View(context.Background(), func(tx store.Tx) error { return tx.Append(keyOf(0, 99), nil) }))
		must(t, appendTo(tx.Files(nil), "f", "x"))
		return tx.Append(keyOf(0, 99), nil)
	}); !errors.Is(err, store.ErrExists) {
		t.Errorf("the second to commit got %v", err)
	}
	if f, n := read(t, a, "f"), len(entries(t, b)); len(f) != 30 || n != 31 {
		t.Errorf("%d lines, %d entries; want 15 and 31", len(f)/2, n)
	}
}

// TestAViewKeepsItsState: commits do not wait for it, and it does not see them, here
// or elsewhere.
func TestAViewKeepsItsState(t *testing.T) {
	var bucket castest.Bucket
	a, b := open(t, &bucket, cas.Config{}), open(t, &bucket, cas.Config{})
	must(t, update(a, func(fs store.FS) error { return appendTo(fs, "f", "one") }))
	must(t, b.View(context.Background(), func(tx store.Tx) error {
		for _, s := range []*cas.Store{a, b} {
			must(t, update(s, func(fs store.FS) error { return appendTo(fs, "f", "more") }))
		}
		got, err := readIn(tx, "f")
		if got != "one\n" {
			t.Errorf("the view reads %q", got)
		}
		return err
	}))
	for _, s := range []*cas.Store{a, b} {
		if got := read(t, s, "f"); got != "one\nmore\nmore\n" {
			t.Errorf("after it: %q", got)
		}
	}
}

// TestOnlyFilesConflict: a commit that changes files fails if another worker has
// changed some since it began, and nothing of it remains; entries of the log alone
// are no reason to fail, and never fail for that.
func TestOnlyFilesConflict(t *testing.T) {
	var bucket castest.Bucket
	a, b := open(t, &bucket, cas.Config{}), open(t, &bucket, cas.Config{})
	must(t, a.Update(context.Background(), func(tx store.Tx) error {
		for i := range 3 { // receipts of views, and of scripts that failed
			must(t, b.View(context.Background(), func(tx store.Tx) error { return tx.Append(keyOf(1, i), nil) }))
		}
		must(t, tx.Append(keyOf(0, 0), nil))
		return appendTo(tx.Files(nil), "f", "a")
	}))
	err := a.Update(context.Background(), func(tx store.Tx) error {
		must(t, update(b, func(fs store.FS) error { return appendTo(fs, "other", "b") }))
		must(t, tx.Append(keyOf(0, 1), nil))
		return appendTo(tx.Files(nil), "f", "lost")
	})
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v", err)
	}
	// One that happens to change none might have, had it seen what is there now.
	if err := a.Update(context.Background(), func(tx store.Tx) error {
		must(t, update(b, func(fs store.FS) error { return appendTo(fs, "other", "b") }))
		return tx.Append(keyOf(0, 2), nil)
	}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an update that changes nothing got %v", err)
	}
	must(t, a.View(context.Background(), func(tx store.Tx) error {
		must(t, update(b, func(fs store.FS) error { return appendTo(fs, "other", "b") }))
		return tx.Append(keyOf(0, 3), nil)
	}))
	if got := read(t, b, "f") + read(t, a, "other"); got != "a\nb\nb\nb\n" {
		t.Errorf("files hold %q", got)
	}
	if n := len(entries(t, a)); n != 5 {
		t.Errorf("%d log entries, want 5", n)
	}
}
