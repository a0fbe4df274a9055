package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// patience is how long a test waits for what must happen; reached only on
// failure.
const patience = 20 * time.Second

// quick is for tests: the shape of the behaviour without its leisure.
var quick = Options{Debounce: 10 * time.Millisecond, MaxDelay: 100 * time.Millisecond, Poll: 10 * time.Millisecond}

// calls counts call backs.
type calls struct{ c chan struct{} }

func newCalls() calls { return calls{make(chan struct{}, 10_000)} }

func (c calls) add() { c.c <- struct{}{} }

func (c calls) wait(t *testing.T, after string) {
	t.Helper()
	select {
	case <-c.c:
	case <-time.After(patience):
		t.Fatalf("no call after %s", after)
	}
}

// settle takes calls until there have been none for a while.
func (c calls) settle() {
	for {
		select {
		case <-c.c:
		case <-time.After(8 * quick.Debounce):
			return
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// failing is notification of a kernel that has no watches left.
type failing struct {
	notifier
	err  error
	left atomic.Int64
}

func (f *failing) Add(path string) error {
	if f.left.Add(-1) < 0 {
		return f.err
	}
	return f.notifier.Add(path)
}

func exhausted(t *testing.T, o Options, left int64) (*Watcher, *failing) {
	t.Helper()
	n, err := fsnotify.NewWatcher()
	must(t, err)
	f := &failing{notifier: n, err: os.NewSyscallError("inotify_add_watch", syscall.ENOSPC)}
	f.left.Store(left)
	return start(o, f, n.Events, n.Errors), f
}

// Each change must be seen both by notification and by polling.
func TestChangesAreSeen(t *testing.T) {
	ways := map[string]func(*testing.T) *Watcher{
		"notified":       func(*testing.T) *Watcher { return New(quick) },
		"polled":         func(*testing.T) *Watcher { return start(quick, nil, nil, nil) },
		"out of watches": func(t *testing.T) *Watcher { w, _ := exhausted(t, quick, 0); return w },
	}
	steps := []struct {
		name string
		do   func(t *testing.T, dir string)
	}{
		{"create", func(t *testing.T, dir string) { write(t, dir+"/a", "1") }},
		{"write in place", func(t *testing.T, dir string) { write(t, dir+"/a", "two") }},
		{"rename over, as editors save", func(t *testing.T, dir string) {
			write(t, dir+"/.a.swp", "three")
			must(t, os.Rename(dir+"/.a.swp", dir+"/a"))
		}},
		{"write after rename over", func(t *testing.T, dir string) { write(t, dir+"/a", "four!") }},
		{"rename in from elsewhere", func(t *testing.T, dir string) {
			write(t, filepath.Dir(filepath.Dir(dir))+"/b", "1")
			must(t, os.Rename(filepath.Dir(filepath.Dir(dir))+"/b", dir+"/b"))
		}},
		{"remove", func(t *testing.T, dir string) { must(t, os.Remove(dir+"/a")) }},
		{"directory deleted", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }},
		{"directory made again", func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o700)) }},
		{"create in the new directory", func(t *testing.T, dir string) { write(t, dir+"/c", "1") }},
		{"parent and directory deleted", func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Dir(dir))) }},
		{"parent and directory made again", func(t *testing.T, dir string) { must(t, os.MkdirAll(dir, 0o700)) }},
		{"create in the third directory", func(t *testing.T, dir string) { write(t, dir+"/d", "1") }},
		{"directory renamed away", func(t *testing.T, dir string) { must(t, os.Rename(dir, dir+".old")) }},
		{"another renamed to its place", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+".new", 0o700))
			must(t, os.Rename(dir+".new", dir))
		}},
		{"create in the fourth directory", func(t *testing.T, dir string) { write(t, dir+"/e", "1") }},
		{"a file in its place", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(dir))
			write(t, dir, "not a directory")
		}},
		{"a link in its place", func(t *testing.T, dir string) {
			must(t, os.Remove(dir))
			must(t, os.MkdirAll(dir+".one", 0o700))
			must(t, os.Symlink(dir+".one", dir))
		}},
		{"create behind the link", func(t *testing.T, dir string) { write(t, dir+".one/f", "1") }},
		{"link pointed elsewhere", func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+".two", 0o700))
			must(t, os.Symlink(dir+".two", dir+".link"))
			must(t, os.Rename(dir+".link", dir))
		}},
		{"create behind the other link", func(t *testing.T, dir string) { write(t, dir+".two/g", "1") }},
		{"link's end deleted", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+".two")) }},
		{"link's end made again", func(t *testing.T, dir string) { must(t, os.Mkdir(dir+".two", 0o700)) }},
		{"create behind the link again", func(t *testing.T, dir string) { write(t, dir+".two/h", "1") }},
	}
	for name, watcher := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watcher(t)
			defer w.Close()
			dir := filepath.Join(t.TempDir(), "absent", "at first", "policy")
			seen := newCalls()
			defer w.Dir(dir, seen.add)()

			must(t, os.MkdirAll(dir, 0o700))
			seen.wait(t, "directory made")
			seen.settle()
			for _, s := range steps {
				s.do(t, dir)
				seen.wait(t, s.name)
				seen.settle()
			}
		})
	}
}

// Two names of one directory share a kernel watch; both must hear of a change,
// and one's stop must not deafen the other.
func TestTwoNamesOfOneDirectory(t *testing.T) {
	w := New(quick)
	defer w.Close()
	top := t.TempDir()
	must(t, os.Mkdir(top+"/dir", 0o700))
	must(t, os.Symlink("dir", top+"/link"))
	a, b, c := newCalls(), newCalls(), newCalls()
	stop := w.Dir(top+"/dir", a.add)
	defer w.Dir(top+"/link", b.add)()
	defer w.Dir(top, c.add)()

	write(t, top+"/dir/x", "1")
	a.wait(t, "create, by its name")
	b.wait(t, "create, by the link's name")
	a.settle()
	b.settle()
	stop()
	write(t, top+"/dir/x", "22")
	b.wait(t, "write")
	if len(a.c) > 0 {
		t.Error("a call after stop")
	}
}

// The neighbour's changes are not ours.
func TestNeighboursAreNotSeen(t *testing.T) {
	w := New(quick)
	defer w.Close()
	top := t.TempDir()
	must(t, os.Mkdir(top+"/policy", 0o700))
	must(t, os.Mkdir(top+"/data", 0o700))
	seen, theirs := newCalls(), newCalls()
	defer w.Dir(top+"/policy", seen.add)()
	defer w.Dir(top+"/data", theirs.add)()
	seen.settle()
	write(t, top+"/data/x", "1")
	write(t, top+"/peer.toml", "1")
	theirs.wait(t, "create")
	seen.settle()
	if n := len(seen.c); n != 0 {
		t.Errorf("%d calls for changes beside the directory", n)
	}
}

func TestManyChangesAreOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		s := newSubscription("", func() { n.Add(1) }, Options{}.withDefaults())
		for range 50 {
			s.touch()
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := n.Load(); n != 0 {
			t.Fatalf("%d calls before the directory was quiet", n)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if n := n.Load(); n != 1 {
			t.Fatalf("%d calls, want 1", n)
		}
	})
}

func TestConstantChangesAreCalledForEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		s := newSubscription("", func() { n.Add(1) }, Options{}.withDefaults())
		for range 1000 { // ten seconds
			s.touch()
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := n.Load(); n < 9 || n > 10 {
			t.Errorf("%d calls in 10 s, want one a second", n)
		}
		s.stop()
	})
}

// What changes while a call runs is called for afterwards, never beside it.
func TestCallsDoNotOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n, inside atomic.Int64
		s := newSubscription("", nil, Options{}.withDefaults())
		s.changed = func() {
			if inside.Add(1) != 1 {
				t.Error("two calls at once")
			}
			time.Sleep(5 * time.Second)
			inside.Add(-1)
			n.Add(1)
		}
		for range 20 {
			s.touch()
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := n.Load(); n < 4 || n > 6 {
			t.Errorf("%d calls of 5 s each for 20 s of changes", n)
		}
		s.touch()
		time.Sleep(time.Second)
		s.stop() // waits
		synctest.Wait()
		if inside.Load() != 0 {
			t.Error("stop returned while a call ran")
		}
		s.touch()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n.Load() > 7 {
			t.Error("a call after stop")
		}
	})
}

func TestExhaustionIsSaidOnce(t *testing.T) {
	var mu sync.Mutex
	var said []string
	o := quick
	o.Warn = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, err.Error())
	}
	w, f := exhausted(t, o, 2) // enough for one directory
	defer w.Close()
	top := t.TempDir()
	var seen []calls
	for i := range 3 {
		dir := fmt.Sprintf("%s/%d/policy", top, i)
		must(t, os.MkdirAll(dir, 0o700))
		seen = append(seen, newCalls())
		defer w.Dir(dir, seen[i].add)()
	}
	for i := range seen {
		write(t, fmt.Sprintf("%s/%d/policy/x", top, i), "1")
		seen[i].wait(t, "create")
	}
	mu.Lock()
	if len(said) != 1 || !strings.Contains(said[0], "/1/policy") || !strings.Contains(said[0], "max_user_watches") {
		t.Errorf("said %q", said)
	}
	mu.Unlock()

	// Watches become free again: no more polling, and nothing is lost.
	f.left.Store(1000)
	for deadline := time.Now().Add(patience); ; time.Sleep(quick.Poll) {
		w.mu.Lock()
		n := len(w.polled)
		w.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d directories still polled", n)
		}
	}
	for i := range seen {
		seen[i].settle()
		write(t, fmt.Sprintf("%s/%d/policy/y", top, i), "1")
		seen[i].wait(t, "create after recovery")
	}
}

func TestOverflowIsAChangeEverywhere(t *testing.T) {
	n, err := fsnotify.NewWatcher()
	must(t, err)
	errs := make(chan error)
	w := start(quick, n, n.Events, errs)
	defer w.Close()
	defer close(errs)
	a, b := newCalls(), newCalls()
	w.Dir(t.TempDir(), a.add)
	w.Dir(t.TempDir(), b.add)
	errs <- fsnotify.ErrEventOverflow
	a.wait(t, "overflow")
	b.wait(t, "overflow")
}

func TestDeadNotificationIsPolled(t *testing.T) {
	var said atomic.Int64
	o := quick
	o.Warn = func(error) { said.Add(1) }
	n, err := fsnotify.NewWatcher()
	must(t, err)
	w := start(o, n, n.Events, n.Errors)
	defer w.Close()
	dir := t.TempDir()
	seen := newCalls()
	w.Dir(dir, seen.add)
	n.Close()
	seen.wait(t, "the end of notification")
	seen.settle()
	write(t, dir+"/x", "1")
	seen.wait(t, "create")
	if said.Load() != 1 {
		t.Errorf("warned %d times, want once", said.Load())
	}
}

// Directories come and go, under load, while others are watched and given up.
func TestHammer(t *testing.T) {
	before := runtime.NumGoroutine()
	w := New(Options{Debounce: time.Millisecond, MaxDelay: 5 * time.Millisecond, Poll: 5 * time.Millisecond})
	top := t.TempDir()
	var writers, watchers sync.WaitGroup
	end := make(chan struct{})
	for i := range 4 {
		dir := fmt.Sprintf("%s/%d/policy", top, i)
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-end:
					return
				default:
				}
				_ = os.MkdirAll(dir, 0o700)
				_ = os.WriteFile(dir+"/a", []byte(fmt.Sprint(n)), 0o600)
				_ = os.Rename(dir+"/a", dir+"/b")
				if n%3 == 0 {
					_ = os.RemoveAll(filepath.Dir(dir))
				}
			}
		})
		for range 2 {
			watchers.Go(func() {
				for range 50 {
					var stopped atomic.Bool
					stop := w.Dir(dir, func() {
						if stopped.Load() {
							t.Error("a call after stop")
						}
					})
					time.Sleep(2 * time.Millisecond)
					stop()
					stopped.Store(true)
				}
			})
		}
	}
	watchers.Wait()

	// One that stays must have seen the last change.
	var last atomic.Value
	file := top + "/0/policy/final"
	w.Dir(filepath.Dir(file), func() {
		text, err := os.ReadFile(file)
		if err == nil {
			last.Store(string(text))
		}
	})
	close(end)
	writers.Wait()
	must(t, os.MkdirAll(filepath.Dir(file), 0o700))
	write(t, file, "done")
	for deadline := time.Now().Add(patience); last.Load() != "done"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the last change was missed")
		}
	}
	w.Close()
	w.Close()
	if len(w.at) > 2 {
		t.Errorf("watches left behind: %v", w.at)
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestStopGivesUpItsWatches(t *testing.T) {
	w := New(quick)
	defer w.Close()
	for range 100 {
		w.Dir(t.TempDir()+"/a/b/c", func() {})()
	}
	if len(w.at)+len(w.subs)+len(w.polled) != 0 {
		t.Errorf("left behind: %v %v %v", w.at, w.subs, w.polled)
	}
	if list := w.notify.(*fsnotify.Watcher).WatchList(); len(list) != 0 {
		t.Errorf("the kernel still watches %v", list)
	}
}

func TestClosedWatcherIsInert(t *testing.T) {
	w := New(quick)
	n := w.notify
	stop := w.Dir(t.TempDir(), func() { t.Error("called") })
	w.Close()
	stop()
	w.Dir(t.TempDir(), func() { t.Error("called") })()
	if !errors.Is(n.Add(t.TempDir()), fsnotify.ErrClosed) {
		t.Error("the notification was not closed")
	}
}
