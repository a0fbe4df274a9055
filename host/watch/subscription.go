package watch

import (
	"sync"
	"time"
)

// subscription is one watched directory. The fields up to watched belong to the
// Watcher, under its lock; those from mu on are the subscription's own.
type subscription struct {
	dir     string // absolute, as asked for
	real    string // dir, resolved; "" while it does not exist
	next    string // the name, in a resolved directory, whose appearance or loss moves dir
	watched []string

	changed            func()
	debounce, maxDelay time.Duration

	mu      sync.Mutex
	idle    sync.Cond // on mu: running became false
	timer   *time.Timer
	first   time.Time // of the changes not yet called back for; zero when there are none
	latest  time.Time
	running bool
	stopped bool
}

func newSubscription(dir string, changed func(), o Options) *subscription {
	s := &subscription{dir: dir, changed: changed, debounce: o.Debounce, maxDelay: o.MaxDelay}
	s.idle.L = &s.mu
	return s
}

// touch notes a change.
func (s *subscription) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.latest = time.Now()
	if s.first.IsZero() {
		s.first = s.latest
	}
	if !s.running {
		s.schedule()
	}
}

// schedule sets the timer for when the directory will have been quiet for long
// enough, or will have kept us waiting for long enough.
func (s *subscription) schedule() {
	due := s.latest.Add(s.debounce)
	if limit := s.first.Add(s.maxDelay); due.After(limit) {
		due = limit
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(time.Until(due), s.fire)
		return
	}
	s.timer.Reset(time.Until(due))
}

func (s *subscription) fire() {
	s.mu.Lock()
	// A timer that was reset just as it went off comes here twice.
	if s.stopped || s.running || s.first.IsZero() {
		s.mu.Unlock()
		return
	}
	s.running, s.first = true, time.Time{}
	s.mu.Unlock()

	s.changed()

	s.mu.Lock()
	s.running = false
	s.idle.Broadcast()
	if !s.stopped && !s.first.IsZero() {
		s.schedule()
	}
	s.mu.Unlock()
}

func (s *subscription) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.timer != nil {
		s.timer.Stop()
	}
	for s.running {
		s.idle.Wait()
	}
}
