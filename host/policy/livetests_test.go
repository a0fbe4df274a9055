package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/peer"
)

const (
	onlyAlice = `@id("only-alice") permit(principal == Peer::"alice", action, resource);`
	cases2    = `[[test]]
name = "alice runs it"
as = "alice"
module = "guestbook"
expect = "permit"

[[test]]
name = "mallory does not"
as = "mallory"
module = "guestbook"
expect = "refuse"
`
)

// A reload that breaks a test of the owner's keeps what was in force, and says
// which test; so does one of tests that have a mistake in them.
func TestReloadThatBreaksATestIsNotTakenOver(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/a.cedar", onlyAlice)
	put(t, dir+"/"+TestsFile, cases2)
	var r reports
	live := OpenTested(dir, nil, meet, r.add)
	defer live.Close()
	inForce := func(when string) {
		t.Helper()
		s := live.Current()
		if !s.Submit(from(alice)).Permitted || s.Submit(from(mallory)).Permitted {
			t.Errorf("%s: %v, %v", when, s.Submit(from(alice)), s.Submit(from(mallory)))
		}
	}
	broken := func(want string) {
		t.Helper()
		err := live.Reload()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if live.Problem() == nil {
			t.Error("no problem is told")
		}
		inForce(want)
	}
	if err := live.Problem(); err != nil {
		t.Fatal(err)
	}
	inForce("at first")

	put(t, dir+"/b.cedar", permitAll)
	broken(`tests.toml:7:1: test "mallory does not" fails: it expects refuse, and policy all permits it`)
	put(t, dir+"/b.cedar", forbidAll)
	broken(`tests.toml:1:1: test "alice runs it" fails: it expects permit, and policy none forbids it`)
	if err := os.Remove(dir + "/b.cedar"); err != nil {
		t.Fatal(err)
	}
	if err := live.Reload(); err != nil {
		t.Error(err)
	}
	inForce("mended")

	// The tests change, and the policies do not.
	put(t, dir+"/"+TestsFile, strings.ReplaceAll(cases2, "permit", "refuse"))
	broken(`it expects refuse, and policy only-alice permits it`)
	put(t, dir+"/"+TestsFile, cases2[:20])
	broken("tests.toml")
	put(t, dir+"/"+TestsFile, "")
	broken("tests.toml: has no test in it")
	// Neither is anything else taken over meanwhile.
	put(t, dir+"/b.cedar", permitAll)
	broken("tests.toml: has no test in it")
	put(t, dir+"/"+TestsFile, strings.ReplaceAll(cases2, `"guestbook"`, `"gestbook"`))
	broken("there is no such module")

	// An owner who wants no tests takes them away.
	if err := os.Remove(dir + "/" + TestsFile); err != nil {
		t.Fatal(err)
	}
	if err := live.Reload(); err != nil || !live.Current().Submit(from(mallory)).Permitted {
		t.Errorf("without tests: %v", err)
	}
	said := r.all()
	if len(said) < 6 || said[len(said)-1] != nil || said[0] == nil {
		t.Errorf("reported %v", said)
	}
}

// A host that starts with a failing test has nothing that was in force: whether
// the policies or the test are wrong is not for it to guess.
func TestFailingTestAtFirstPermitsNothing(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/a.cedar", permitAll)
	put(t, dir+"/"+TestsFile, cases2)
	var r reports
	live := OpenTested(dir, nil, meet, r.add)
	defer live.Close()
	if v := live.Current().Submit(from(alice)); v.Permitted || v.Problem == nil || len(r.all()) != 1 {
		t.Errorf("%+v, %v", v, r.all())
	}
	put(t, dir+"/a.cedar", onlyAlice)
	if err := live.Reload(); err != nil || !live.Current().Submit(from(alice)).Permitted {
		t.Errorf("mended: %v", err)
	}
}

// What a test names may change without a file here: Retest looks again, and takes
// nothing out of force.
func TestRetest(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/a.cedar", onlyAlice)
	put(t, dir+"/"+TestsFile, cases2)
	var gone atomic.Bool
	live := OpenTested(dir, nil, func(x Test) (p peer.Parties, c Code, err error) {
		if gone.Load() {
			return p, c, fs.ErrNotExist
		}
		return meet(x)
	}, nil)
	defer live.Close()
	before := live.Current()
	gone.Store(true)
	if err := live.Reload(); err != nil {
		t.Errorf("nothing was changed, and %v", err)
	}
	if err := live.Retest(); err == nil || live.Current() != before {
		t.Errorf("the module is gone: %v", err)
	}
	if err := live.Failing(); err == nil {
		t.Error("nothing fails")
	}
	gone.Store(false)
	if err := live.Reload(); err != nil || live.Current() != before { // until it is well again each looks
		t.Errorf("the module is back: %v", err)
	}
}

// Policies and tests change 200 times, in every way, while scripts are decided
// about: what a test forbids is never let in, and what it wants never kept out.
func TestHammerTestedReload(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/"+TestsFile, cases2)
	put(t, dir+"/a.cedar", onlyAlice)
	live := OpenTested(dir, watcher(t), meet, nil)
	defer live.Close()
	var stop atomic.Bool
	var decided atomic.Int64
	var scripts sync.WaitGroup
	for range 2 {
		scripts.Go(func() {
			for !stop.Load() {
				s := live.Current()
				if a, m := s.Submit(from(alice)), s.Submit(from(mallory)); !a.Permitted || m.Permitted {
					t.Errorf("alice: %v, mallory: %v", a, m)
					return
				}
				decided.Add(1)
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
	for i := range 200 {
		switch i % 5 {
		case 0:
			put(t, dir+"/b.cedar", permitAll)
		case 1:
			put(t, dir+"/a.cedar", fmt.Sprintf("// %d\n%s", i, onlyAlice))
		case 2:
			put(t, dir+"/b.cedar", forbidAll[:i%len(forbidAll)])
		case 3: // in place, and by renaming
			put(t, dir+"/"+TestsFile, cases2[:i%len(cases2)])
			put(t, dir+"/.new", fmt.Sprintf("# %d\n%s", i, cases2))
			if err := os.Rename(dir+"/.new", dir+"/"+TestsFile); err != nil {
				t.Fatal(err)
			}
		case 4:
			if err := os.Remove(dir + "/b.cedar"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if i%7 == 0 {
			_ = live.Retest() // beside the watcher
		}
		time.Sleep(time.Millisecond)
	}
	_ = os.Remove(dir + "/b.cedar")
	put(t, dir+"/"+TestsFile, cases2)
	put(t, dir+"/a.cedar", onlyAlice+`@id("final") forbid(principal == Peer::"bob", action, resource);`)
	until(t, "the last change", func() bool { return live.Current().has("final") })
	until(t, "some decisions", func() bool { return decided.Load() > 100 || t.Failed() })
	stop.Store(true)
	scripts.Wait()
	if live.Problem() != nil {
		t.Error(live.Problem())
	}
}
