package policy

import (
	"errors"
	"sync"
	"sync/atomic"

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
type Live struct {
	dir    string
	report func(error)
	stop   func()
	state  atomic.Pointer[state]
	reload sync.Mutex
}

type state struct {
	set     *Set
	problem error
}

// Open loads the policies of dir and keeps them up to date until Close, which
// must be called, while watcher lives; without one (nil) only Reload does.
//
// Report is told each time that what is in force may not be what is in the files
// (with what is wrong), and when it is again (nil), the first load included if
// that fails. It must not call back into the Live. Nil drops reports.
func Open(dir string, watcher *watch.Watcher, report func(error)) *Live {
	l := &Live{dir: dir, report: report, stop: func() {}}
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
func (l *Live) Reload() error {
	l.reload.Lock()
	defer l.reload.Unlock()
	old := l.state.Load()
	set, err := Load(l.dir)
	switch {
	case err == nil && old.problem == nil && old.set.version == set.version:
		return nil // as often, when something beside the policies has changed
	case err == nil:
		l.state.Store(&state{set: set})
		if old.problem != nil {
			l.report(nil)
		}
		return nil
	}
	set = old.set
	if set.problem != nil {
		set = Broken(err)
	}
	l.state.Store(&state{set, err})
	if old.problem == nil || old.problem.Error() != err.Error() {
		l.report(err)
	}
	return err
}

// Close stops watching. What is in force stays so.
func (l *Live) Close() { l.stop() }
