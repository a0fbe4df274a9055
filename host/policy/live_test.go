package policy

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/watch"
)

// patience is how long a test waits for what must happen; reached only on
// failure.
const patience = 20 * time.Second

func watcher(t *testing.T) *watch.Watcher {
	w := watch.New(watch.Options{Debounce: 5 * time.Millisecond, MaxDelay: 20 * time.Millisecond, Poll: 20 * time.Millisecond})
	t.Cleanup(w.Close)
	return w
}

// until waits for what a hot reload will make true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// reports keeps what a Live reports.
type reports struct {
	mu   sync.Mutex
	said []error
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, err)
}

func (r *reports) all() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said
}

const (
	permitAll = `@id("all") permit(principal, action, resource);`
	forbidAll = `@id("none") forbid(principal, action, resource);`
)

func TestPoliciesHotReload(t *testing.T) {
	dir := t.TempDir() + "/bob/policy"
	var r reports
	live := Open(dir, watcher(t), r.add)
	defer live.Close()
	permitted := func() bool { return live.Current().Submit(from(alice)).Permitted }
	if permitted() || live.Problem() != nil {
		t.Fatalf("without a directory: %v", live.Problem())
	}

	put(t, dir+"/a.cedar", permitAll)
	until(t, "the directory and its first policy", permitted)

	put(t, dir+"/b.cedar", forbidAll)
	until(t, "a forbid", func() bool { return !permitted() })

	// As vim saves.
	put(t, dir+"/4913", "")
	if err := errors.Join(os.Remove(dir+"/4913"), os.Rename(dir+"/b.cedar", dir+"/b.cedar~")); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/b.cedar", "// nothing is forbidden now")
	until(t, "a saved file", permitted)
	if said := r.all(); len(said) != 0 {
		t.Errorf("reported %v", said)
	}

	put(t, dir+"/b.cedar", `forbid(principal, action, resorce);`)
	until(t, "the mistake", func() bool { return live.Problem() != nil })
	if !permitted() {
		t.Error("the last good version is not in force")
	}
	if got := live.Problem().Error(); !strings.Contains(got, "b.cedar:1:") {
		t.Error(got)
	}
	// Another file, although good, is not taken over beside a broken one.
	put(t, dir+"/c.cedar", forbidAll)
	until(t, "two reports at most", func() bool { n := len(r.all()); return live.Reload() != nil && (n == 1 || n == 2) })
	if !permitted() {
		t.Error("half of a version is in force")
	}

	put(t, dir+"/b.cedar", `// mended`)
	until(t, "that it was mended", func() bool { return live.Problem() == nil && !permitted() })
	until(t, "the report", func() bool { said := r.all(); return len(said) >= 2 && said[0] != nil && said[len(said)-1] == nil })

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	until(t, "the directory's end", func() bool { return live.Current().Len() == 0 })
	if live.Problem() != nil {
		t.Error(live.Problem())
	}
}

// A host that starts with broken policies must not run scripts, and must say so.
func TestBrokenAtFirstPermitsNothing(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/a.cedar", permitAll)
	put(t, dir+"/b.cedar", `forbid(principal`)
	var r reports
	live := Open(dir, watcher(t), r.add)
	defer live.Close()
	v := live.Current().Submit(from(alice))
	if v.Permitted || v.Problem == nil || live.Problem() == nil || len(r.all()) != 1 {
		t.Errorf("%+v, %v, %v", v, live.Problem(), r.all())
	}
	if err := live.Current().Grants(from(alice)).Allow("read", "/"); err == nil {
		t.Error("reading is allowed")
	}
	put(t, dir+"/b.cedar", `//`)
	until(t, "that it was mended", func() bool { return live.Current().Submit(from(alice)).Permitted })
}

// An editor that writes in place leaves the file empty for a moment. Its
// forbids must stay in force.
func TestTruncatedFileKeepsItsForbids(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/a.cedar", permitAll)
	put(t, dir+"/b.cedar", forbidAll)
	live := Open(dir, nil, nil)
	defer live.Close()
	if err := os.Truncate(dir+"/b.cedar", 0); err != nil {
		t.Fatal(err)
	}
	if err := live.Reload(); err == nil || !strings.Contains(err.Error(), "b.cedar: is empty") {
		t.Error(err)
	}
	if v := live.Current().Submit(from(alice)); v.Permitted {
		t.Error(v)
	}
}

// A script that is running keeps the policies that it was accepted under.
func TestGrantsOutliveAReload(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/a.cedar", permitAll)
	live := Open(dir, nil, nil)
	defer live.Close()
	g := live.Current().Grants(from(alice))
	put(t, dir+"/a.cedar", forbidAll)
	if err := live.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := g.Allow("read", "/x"); err != nil {
		t.Error(err)
	}
	if err := live.Current().Grants(from(alice)).Allow("read", "/x"); err == nil {
		t.Error("the reload is not in force")
	}
}

// Policies change 200 times, whole, broken and half written, while scripts are
// decided about. Two files say together who is permitted: one permits, and the
// other, always, forbids mallory; no decision may ever see the one without the
// other.
func TestHammerReload(t *testing.T) {
	dir := t.TempDir()
	forbid := `@id("not-mallory") forbid(principal == Peer::"mallory", action, resource);`
	put(t, dir+"/a.cedar", permitAll)
	put(t, dir+"/b.cedar", forbid)
	live := Open(dir, watcher(t), nil)
	defer live.Close()

	var stop atomic.Bool
	var decided atomic.Int64
	var scripts sync.WaitGroup
	for range 2 {
		scripts.Go(func() {
			for !stop.Load() {
				s := live.Current()
				if v := s.Submit(from(mallory)); v.Permitted {
					t.Errorf("mallory: %v", v)
					return
				}
				if v := s.Submit(from(alice)); !v.Permitted {
					t.Errorf("alice: %v", v)
					return
				}
				if err := s.Grants(from(mallory)).Allow("read", "/x"); err == nil {
					t.Error("mallory may read")
					return
				}
				decided.Add(1)
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
	for i := range 200 {
		switch i % 4 {
		case 0: // in place
			put(t, dir+"/b.cedar", fmt.Sprintf("// %d\n%s", i, forbid))
		case 1: // by renaming
			put(t, dir+"/.new", fmt.Sprintf("// %d\n%s", i, forbid))
			if err := os.Rename(dir+"/.new", dir+"/b.cedar"); err != nil {
				t.Fatal(err)
			}
		case 2: // half
			put(t, dir+"/b.cedar", forbid[:i%len(forbid)])
		case 3:
			put(t, dir+"/a.cedar", fmt.Sprintf("// %d\n%s", i, permitAll))
		}
		if i%10 == 0 {
			_ = live.Reload() // beside the watcher
		}
		time.Sleep(time.Millisecond)
	}
	put(t, dir+"/b.cedar", forbid)
	put(t, dir+"/a.cedar", `@id("final") permit(principal, action, resource);`)
	until(t, "the last change", func() bool { return live.Current().has("final") })
	until(t, "some decisions", func() bool { return decided.Load() > 100 || t.Failed() })
	stop.Store(true)
	scripts.Wait()
	if live.Problem() != nil {
		t.Error(live.Problem())
	}
	t.Logf("%d decisions", decided.Load())
}
