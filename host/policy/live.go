package policy

import (
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/circles-host/circles/host/watch"
)

// Live is the policies of one directory as they are now. Its methods may be
// called from any goroutine; Current costs one atomic load.
//
// A change that does not load is not taken over in part: what was in force
// stays, and Problem says what is wrong. When nothing has been in force yet,
// nothing is permitted. So a mistake in a policy never permits anything new; it
// can leave a permit in force that its owner meant to take back, and is
// therefore reported. A directory without policies is no mistake: it permits
// nothing.
//
// The owner's tests (TestsFile) are part of what must load: policies that do not
// pass them are not taken over, and neither is anything while the tests
// themselves have a mistake in them. A test stops what is new and takes nothing
// out of force. Where nothing has been in force yet, nothing is permitted: which
// of the two is right, the policies or the test, is for the owner to say.
type Live struct {
	dir    string
	meet   Meet // nil: tests are not run
	report func(error)
	stop   func()
	state  atomic.Pointer[state]
	reload sync.Mutex
}

type state struct {
	set     *Set
	problem error
	tests   []Test // that were read last
	tested  [sha256.Size]byte
}

// Open loads the policies of dir and keeps them up to date until Close, which
// must be called, while watcher lives; without one (nil) only Reload does.
//
// Report is told each time that what is in force may not be what is in the files
// (with what is wrong), and when it is again (nil), the first load included if
// that fails. It must not call back into the Live. Nil drops reports.
func Open(dir string, watcher *watch.Watcher, report func(error)) *Live {
	return OpenTested(dir, watcher, nil, report)
}

// OpenTested is Open for policies that must pass their owner's tests. meet finds
// what the tests speak of as it is, or as it is about to be; when that has changed,
// whoever knows calls Retest. It must not call back into the Live.
func OpenTested(dir string, watcher *watch.Watcher, meet Meet, report func(error)) *Live {
	l := &Live{dir: dir, meet: meet, report: report, stop: func() {}}
	if l.report == nil {
		l.report = func(error) {}
	}
	l.state.Store(&state{set: Broken(errors.New("policies have not been loaded yet"))})
	if watcher != nil {
		l.stop = watcher.Dir(dir, func() { _ = l.Reload() })
	}
	_ = l.Reload()
	return l
}

// Current is the version in force.
func (l *Live) Current() *Set { return l.state.Load().set }

// Problem is why the files are not in force as they are, or nil. It is Problems
// when the files are at fault.
func (l *Live) Problem() error { return l.state.Load().problem }

// Reload looks at the files now, and returns Problem.
func (l *Live) Reload() error { return l.load(false) }

// Retest is Reload, and runs the tests also if neither they nor the policies have
// changed.
func (l *Live) Retest() error { return l.load(true) }

// Failing runs the tests that were read last on what is in force, and says as
// Problems which fail; where nothing is in force, nothing can be let in.
func (l *Live) Failing() error {
	s := l.state.Load()
	return l.failing(s.set, s.tests)
}

func (l *Live) failing(s *Set, tests []Test) error {
	if len(tests) == 0 || s.problem != nil {
		return nil
	}
	return Failing(s.Test(tests, l.meet, time.Now()))
}

func (l *Live) load(again bool) error {
	l.reload.Lock()
	defer l.reload.Unlock()
	old := l.state.Load()
	next, err := l.read(old)
	if err == nil && old.problem == nil && next.set == old.set && next.tested == old.tested && !(again && len(next.tests) > 0) {
		return nil // as often, when something beside the policies has changed
	}
	if err == nil {
		err = l.failing(next.set, next.tests)
	}
	if err == nil {
		l.state.Store(next)
		if old.problem != nil {
			l.report(nil)
		}
		return nil
	}
	next.set, next.problem = old.set, err
	if next.set.problem != nil {
		next.set = Broken(err)
	}
	l.state.Store(next)
	if old.problem == nil || old.problem.Error() != err.Error() {
		l.report(err)
	}
	return err
}

// read returns what is in the files, and the tests that are in force when they
// cannot be read. It has old's set if that is the same.
func (l *Live) read(old *state) (*state, error) {
	next := &state{tests: old.tests, tested: old.tested}
	var also []string
	if l.meet != nil {
		also = []string{TestsFile}
	}
	read, err := readDir(l.dir, also...)
	if err != nil {
		return next, err
	}
	if i := slices.IndexFunc(read, func(f File) bool { return f.Name == TestsFile }); i >= 0 {
		text := read[i].Text
		read = slices.Delete(read, i, i+1)
		tests, err := ParseTests(TestsFile, text)
		if err != nil {
			return next, err
		}
		next.tests, next.tested = tests, sha256.Sum256([]byte(text))
	} else {
		next.tests, next.tested = nil, [sha256.Size]byte{}
	}
	if next.set, err = Parse(read); err == nil && old.set.problem == nil && old.set.version == next.set.version {
		next.set = old.set // and what it has remembered
	}
	return next, err
}

// Close stops watching. What is in force stays so.
func (l *Live) Close() { l.stop() }
