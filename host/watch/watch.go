// Package watch tells when something in a directory has changed, for what is
// reloaded while the host runs: policies and modules.
//
//	w := watch.New(watch.Options{Warn: log})
//	defer w.Close()
//	stop := w.Dir("peers/bob/policy", reload) // first watch,
//	defer stop()
//	load()                                     // then load: no change falls between
//
// A call back says only that something may have changed since the last one, and
// may be spurious; the reader looks at the directory again and compares. It
// comes once the directory has been quiet for a while, so that an editor's
// write-and-rename or a copy of many files is one call, and at the latest after
// Options.MaxDelay when it never is.
//
// The directory need not exist. It may appear later, be deleted, be renamed
// away, be a symbolic link that is pointed elsewhere; each is a change. Only the
// directory itself is watched, not those below it, and not a renaming of its
// parent's parents.
//
// One Watcher serves a whole host. Linux grants a user 128 inotify instances by
// default and a few ten thousand watches; a Watcher takes one instance and two
// watches a directory. Where the kernel has no more, or cannot watch some
// directory, the Watcher polls that directory instead and says so once.
package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options tune a Watcher. The zero value is for interactive use: what somebody
// saves is in force before they have switched to the other window.
type Options struct {
	Debounce time.Duration // how long a directory must be quiet before the call; 0 is 100 ms
	MaxDelay time.Duration // from the first change to the call under a constant stream; 0 is 1 s
	Poll     time.Duration // between looks at a directory that cannot be watched; 0 is 2 s

	// Warn is told, once a Watcher, that directories are polled, and why; and
	// each error that the system's notification reports. It must not block. Nil
	// drops them.
	Warn func(error)
}

func (o Options) withDefaults() Options {
	if o.Debounce <= 0 {
		o.Debounce = 100 * time.Millisecond
	}
	if o.MaxDelay <= 0 {
		o.MaxDelay = time.Second
	}
	if o.Poll <= 0 {
		o.Poll = 2 * time.Second
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return o
}

// Watcher watches directories. Its methods may be called from any goroutine.
type Watcher struct {
	o       Options
	closing chan struct{}
	loops   sync.WaitGroup
	alarm   chan struct{} // the notification lost events, or died: every directory may have changed
	warned  atomic.Bool   // of polling

	mu     sync.Mutex
	notify notifier // nil when there is none, or no more
	at     map[string]map[*subscription]struct{}
	subs   map[*subscription]struct{}
	polled map[*subscription]fingerprint
	closed bool
}

// notifier is the part of fsnotify.Watcher that can fail for want of kernel
// resources.
type notifier interface {
	Add(path string) error
	Remove(path string) error
	Close() error
}

// New starts a Watcher. It does not fail: without notification it polls.
func New(o Options) *Watcher {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		w := start(o, nil, nil, nil)
		w.warnPolling(fmt.Errorf("start file notification: %w", err))
		return w
	}
	return start(o, n, n.Events, n.Errors)
}

func start(o Options, n notifier, events <-chan fsnotify.Event, errs <-chan error) *Watcher {
	w := &Watcher{
		o:       o.withDefaults(),
		closing: make(chan struct{}),
		alarm:   make(chan struct{}, 1),
		notify:  n,
		at:      make(map[string]map[*subscription]struct{}),
		subs:    make(map[*subscription]struct{}),
		polled:  make(map[*subscription]fingerprint),
	}
	w.loops.Go(func() { w.run(events) })
	w.loops.Go(w.poll)
	if errs != nil {
		// Errors have their own goroutine, which takes no lock: fsnotify sends
		// some of them holding its own, which Add in the other loop waits for.
		w.loops.Go(func() { w.listen(errs) })
	}
	return w
}

// Close stops watching and returns when no call back runs any more. It must not
// be called from one.
func (w *Watcher) Close() {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.closed = true
	close(w.closing)
	n := w.notify
	subs := make([]*subscription, 0, len(w.subs))
	for s := range w.subs {
		subs = append(subs, s)
	}
	w.mu.Unlock()

	if n != nil {
		n.Close()
	}
	w.loops.Wait()
	for _, s := range subs {
		s.stop()
	}
}

// Dir calls changed after something in dir changed, until stop is called or the
// Watcher is closed. Changes made after Dir has returned are never missed.
//
// Calls for one directory come one after the other, those for different
// directories side by side, so changed may take its time. stop returns when no
// call runs any more; it must not be called from changed.
func (w *Watcher) Dir(dir string, changed func()) (stop func()) {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	s := newSubscription(dir, changed, w.o)

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return func() {}
	}
	w.subs[s] = struct{}{}
	w.arm(s)
	return func() {
		w.mu.Lock()
		w.disarm(s)
		delete(w.subs, s)
		w.mu.Unlock()
		s.stop()
	}
}

// run maps what the system reports to directories.
func (w *Watcher) run(events <-chan fsnotify.Event) {
	for {
		select {
		case <-w.closing:
			return
		case e, ok := <-events:
			if !ok {
				events = nil // closed, or died: poll what is left
				w.lost()
				continue
			}
			w.event(e)
		case <-w.alarm:
			w.all()
		}
	}
}

func (w *Watcher) listen(errs <-chan error) {
	for err := range errs {
		if !errors.Is(err, fsnotify.ErrEventOverflow) {
			w.o.Warn(fmt.Errorf("watch files: %w", err))
		}
		select {
		case w.alarm <- struct{}{}:
		default:
		}
	}
}

// event tells each directory that e concerns.
func (w *Watcher) event(e fsnotify.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	concerned := make(map[*subscription]bool) // true: what is watched for it must be looked at again
	for s := range w.at[filepath.Dir(e.Name)] {
		switch {
		case e.Name == s.next:
			concerned[s] = true
		case filepath.Dir(e.Name) == s.real:
			concerned[s] = concerned[s] || false
		}
	}
	for s := range w.at[e.Name] { // something watched was itself deleted, moved or changed
		concerned[s] = concerned[s] || !e.Has(fsnotify.Chmod) || e.Name != s.real
	}
	for s, rearm := range concerned {
		if rearm {
			w.arm(s)
		}
		s.touch()
	}
}

// all is the answer to lost events: look at everything again.
func (w *Watcher) all() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.subs {
		w.arm(s)
		s.touch()
	}
}

// lost switches to polling after the notification has died.
func (w *Watcher) lost() {
	w.mu.Lock()
	closed := w.closed
	w.notify = nil
	w.mu.Unlock()
	if !closed {
		w.warnPolling(errors.New("file notification ended"))
		w.all()
	}
}

// poll looks at the directories that cannot be watched, and tries again to
// watch them.
func (w *Watcher) poll() {
	tick := time.NewTicker(w.o.Poll)
	defer tick.Stop()
	for {
		select {
		case <-w.closing:
			return
		case <-tick.C:
		}
		w.mu.Lock()
		round := slices.Collect(maps.Keys(w.polled))
		w.mu.Unlock()
		for _, s := range round {
			now := look(s.dir) // without the lock: the disk may be slow, or far away
			w.mu.Lock()
			w.looked(s, now)
			closed := w.closed
			w.mu.Unlock()
			if closed {
				return
			}
		}
	}
}

func (w *Watcher) looked(s *subscription, now fingerprint) {
	before, polled := w.polled[s]
	if !polled {
		return // given up, or watched, meanwhile
	}
	if now != before {
		w.polled[s] = now
		s.touch()
	}
	if w.notify == nil {
		return
	}
	if w.arm(s); !w.isPolled(s) {
		s.touch() // whatever changed since the look
	}
}

func (w *Watcher) isPolled(s *subscription) bool {
	_, ok := w.polled[s]
	return ok
}

// arm watches, for s, its directory and the place where the directory is named,
// or the nearest place that exists on the way there; or polls. Paths are
// resolved first: fsnotify knows a directory under the first name it was given.
//
// A directory that was replaced has kept its path but not its watch, so all
// watches of s are made anew. Watching an inode twice is no error.
func (w *Watcher) arm(s *subscription) {
	if _, ok := w.subs[s]; !ok {
		return
	}
	last, polled := w.polled[s]
	w.disarm(s)
	err := w.tryArm(s)
	if err == nil {
		return
	}
	w.disarm(s)
	if w.notify != nil {
		w.warnPolling(fmt.Errorf("watch %s: %w", s.dir, err))
	}
	if !polled {
		last = look(s.dir)
	}
	w.polled[s] = last
}

func (w *Watcher) tryArm(s *subscription) error {
	if w.notify == nil {
		return errors.New("no file notification")
	}
	// Each turn starts over because something on the way appeared or vanished
	// after it had been looked at. Somebody who keeps that up gets polled.
	for range 8 {
		parent, next := filepath.Dir(s.dir), s.dir
		if parent != s.dir {
			real, err := filepath.EvalSymlinks(parent)
			for absent(err) && parent != filepath.Dir(parent) {
				parent, next = filepath.Dir(parent), parent
				real, err = filepath.EvalSymlinks(parent)
			}
			if err != nil {
				return err
			}
			if err := w.add(s, real); absent(err) {
				continue
			} else if err != nil {
				return err
			}
			s.next = filepath.Join(real, filepath.Base(next))
		}
		if next == s.dir {
			real, err := resolve(s.dir, s.next)
			if absent(err) {
				if _, err := os.Lstat(s.dir); err == nil {
					return errors.New("a symbolic link to nothing")
				}
				return nil
			}
			if err != nil {
				return err
			}
			if err := w.add(s, real); absent(err) {
				continue
			} else if err != nil {
				return err
			}
			s.real = real
			return nil
		}
		if _, err := os.Lstat(next); absent(err) {
			return nil
		}
	}
	return errors.New("it changes too often")
}

// resolve is EvalSymlinks of dir, which is known to be there as at but for links
// in its last name; "" if it is not known. It saves a system call for each name in
// a path, and a host watches three directories for each context that it opens.
func resolve(dir, at string) (string, error) {
	if at != "" {
		info, err := os.Lstat(at)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return at, nil
		}
	}
	return filepath.EvalSymlinks(dir)
}

func (w *Watcher) add(s *subscription, path string) error {
	if err := w.notify.Add(path); err != nil {
		return err
	}
	if w.at[path] == nil {
		w.at[path] = make(map[*subscription]struct{})
	}
	w.at[path][s] = struct{}{}
	s.watched = append(s.watched, path)
	return nil
}

// disarm gives up what is watched or polled for s.
func (w *Watcher) disarm(s *subscription) {
	for _, path := range s.watched {
		delete(w.at[path], s)
		if len(w.at[path]) > 0 {
			continue
		}
		delete(w.at, path)
		if w.notify != nil {
			_ = w.notify.Remove(path) // gone already when the directory is
		}
	}
	s.watched, s.next, s.real = nil, "", ""
	delete(w.polled, s)
}

func (w *Watcher) warnPolling(err error) {
	if !w.warned.Swap(true) {
		hint := ""
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
			hint = " (raise fs.inotify.max_user_watches or max_user_instances)"
		}
		w.o.Warn(fmt.Errorf("%w; looking every %v instead%s", err, w.o.Poll, hint))
	}
}

func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
