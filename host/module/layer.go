package module

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/watch"
)

// Bounds of one layer.
const (
	MaxModules = 1000
	MaxBytes   = 64 << 20 // of one file that is read; the engine's own bound may be lower
)

// Layer is one directory of modules as it is now. Its methods may be called from
// any goroutine; a look-up takes no lock.
type Layer struct {
	label, dir string
	below      *Layer // nil if there is none
	keeps      Keep
	engine     *engine.Engine
	report     func(Event)
	stop       func()
	cancel     context.CancelFunc
	running    context.Context

	current  atomic.Pointer[map[string]*version] // never changed once stored
	pins     atomic.Pointer[pinned]              // nil if its owner has none
	composed atomic.Pointer[composition]

	loading  sync.Mutex         // one Reload at a time; guards what follows
	failed   map[string]failure // by name: why a file is not in force
	known    known              // of the files, before they were looked at
	noted    [32]byte           // digest of what was last written of that
	problems atomic.Pointer[[]error]

	pinsRead  bool               // pins are what the owner wrote, now or before
	pinsError error              // what is wrong with the file now
	held      map[string]failure // by name: a file beside which another version is pinned
	keptMore  bool               // since versions were last forgotten
	opened    bool               // the directory was looked at before

	inDir      map[string]bool    // the names of modules in the directory, and pinned ones
	fresh      map[string]arrival // those that were not here before, until the compose file was looked at
	badCompose string             // what was reported of it
}

// settled is how old a time of modification must be for a later change to be
// sure to get another one: file systems keep times as coarse as two seconds.
const settled = 3 * time.Second

var racy atomic.Uint64

// failure is a file that was tried. It is tried again when it has changed.
type failure struct {
	path   string
	stamp  stamp
	digest [32]byte
	err    error
}

// stamp tells, without reading a file, that it has not changed.
type stamp struct {
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"` // Unix ns; -1 while it is not settled
	Inode uint64 `json:"inode"`
}

// Event is something that happened to one module of a layer.
type Event struct {
	Layer, Name string
	Kind        EventKind
	Digest      [32]byte // of the version that is in force now; zero for none
	Err         error    // Broken
	Notes       []string // for its author: entries that are gone, parts that were ignored
}

// EventKind says what happened.
type EventKind string

// A broken file leaves the version in force that was, if there was one.
const (
	Loaded   EventKind = "loaded"
	Replaced EventKind = "replaced"
	Removed  EventKind = "removed"
	Broken   EventKind = "broken"
	Held     EventKind = "held" // a file was saved whose name is pinned to another version, which stays
)

// Open loads the modules of dir, which need not exist yet, and keeps them up to
// date until Close, while watcher lives; without one (nil) only Reload does. It
// returns when every module is compiled, or has failed, or is known to compile: one
// that this engine's cache has seen is compiled when it is first run. Label is what
// policies know the layer by: "peer" or "host". Report gets an Event at a time, from
// one goroutine, and must not call back into the Layer; nil drops them.
func Open(ctx context.Context, label, dir string, e *engine.Engine, watcher *watch.Watcher, report func(Event)) *Layer {
	return Config{Label: label, Dir: dir, Engine: e, Watcher: watcher, Report: report}.Open(ctx)
}

// Config is what a Layer is opened with; Open says what is what. The fields that
// Open does not take may be zero.
type Config struct {
	Label, Dir string
	Engine     *engine.Engine
	Watcher    *watch.Watcher
	Report     func(Event)
	Below      *Layer // where names are looked up that this one does not have, and pinned versions
	Keep       Keep   // how much of the past
}

// Open is the function Open, with all of c.
func (c Config) Open(ctx context.Context) *Layer {
	l := &Layer{
		label: c.Label, dir: c.Dir, below: c.Below, keeps: c.Keep, engine: c.Engine, report: c.Report,
		stop: func() {}, failed: map[string]failure{}, held: map[string]failure{},
	}
	l.composed.Store(&composition{})
	dir, watcher := c.Dir, c.Watcher
	if l.report == nil {
		l.report = func(Event) {}
	}
	l.running, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	l.current.Store(&map[string]*version{})
	if watcher != nil {
		l.stop = watcher.Dir(dir, func() { _ = l.Reload(l.running) })
	}
	_ = l.Reload(ctx)
	return l
}

// Close stops following the directory and releases the modules. Those that run
// finish.
func (l *Layer) Close() {
	l.cancel()
	l.stop()
	l.loading.Lock()
	defer l.loading.Unlock()
	for _, v := range *l.current.Swap(&map[string]*version{}) {
		v.close()
	}
}

// Module describes a module in force.
type Module struct {
	Name, Layer string
	File        string // its path; of a text what it says there is what runs, or is about to
	engine.Info
}

// List returns the modules in force, by name.
func (l *Layer) List() []Module {
	current := *l.current.Load()
	var list []Module
	for _, name := range slices.Sorted(maps.Keys(current)) {
		list = append(list, Module{Name: name, Layer: l.label, File: current[name].path, Info: current[name].info})
	}
	return list
}

// Problem says which files are not in force as they are, and why; nil if none.
func (l *Layer) Problem() error {
	if p := l.problems.Load(); p != nil {
		return errors.Join(*p...)
	}
	return nil
}

// find returns the first version, in no order, that match accepts.
func (l *Layer) find(match func(*version) bool) *Found {
again:
	for _, v := range *l.current.Load() {
		if !match(v) {
			continue
		}
		f := &Found{Name: v.name, Layer: l.label, Info: v.info, Publisher: v.publisher, version: v}
		if p := v.program.Load(); p != nil {
			if !p.Retain() {
				// It was replaced between the load and here, and nobody runs it.
				goto again
			}
			f.program = p
		}
		return f
	}
	return nil
}

// Reload looks at the directory now, compiles what has changed and swaps it in,
// a module at a time. It returns Problem.
func (l *Layer) Reload(ctx context.Context) error {
	l.loading.Lock()
	defer l.loading.Unlock()
	var problems []error
	present := map[string]bool{}
	l.inDir, l.fresh = present, map[string]arrival{}
	entries, err := os.ReadDir(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Not the owner's wish to have no modules: keep what there is.
		problems = append(problems, fmt.Errorf("read modules: %w", err))
		l.problems.Store(&problems)
		return l.Problem()
	}
	if l.known == nil && len(entries) > 0 && len(*l.current.Load()) == 0 {
		l.known = l.readKnown()
	}
	problems = append(problems, l.takePins()...)
	if p := l.pins.Load(); p != nil && p.unread != nil {
		entries = nil // which of the files may run nobody knows
	}
	problems = append(problems, l.loadPinned(ctx, present)...)
	files := l.files(entries)
	byName := named(files)
	for _, f := range files {
		name := f.name
		if !ValidName(name) {
			problems = append(problems, fmt.Errorf("%s: not a module's name; rename it to 1 to 63 of a-z, 0-9 and \"-\"", f.path))
			continue
		}
		if l.isPinned(name) {
			l.hold(f)
			continue
		}
		if len(present) >= MaxModules {
			problems = append(problems, fmt.Errorf("%s: more than %d modules; the rest is ignored", l.dir, MaxModules))
			break
		}
		if present[name] {
			continue // said of the first
		}
		present[name] = true
		if same := byName[name]; len(same) > 1 {
			problems = append(problems, l.ambiguous(f, same))
			continue
		}
		if err := l.load(ctx, f, nil); err != nil {
			problems = append(problems, fmt.Errorf("module %s: %w", name, err))
		}
	}
	rejected, err := l.compose()
	if err != nil {
		problems = append(problems, err)
	}
	problems = append(problems, l.addFresh(rejected)...)
	composed := l.composed.Load()
	for name := range *l.current.Load() {
		if !present[name] {
			if line := composed.namedBy(name); line != 0 && !l.canRun(name) {
				problems = append(problems, fmt.Errorf("module %s: its file is gone, and it stays in force, since %s names it on line %d; take it out there too", name, filepath.Join(l.dir, ComposeFile), line))
				continue
			}
			l.swap(name, nil)
			l.report(Event{Layer: l.label, Name: name, Kind: Removed})
		}
	}
	problems = append(problems, l.unresolved()...)
	l.known = nil
	_ = l.noteKnown() // what cannot be written is found out again
	if err := l.forgetVersions(); err != nil {
		problems = append(problems, err)
	}
	l.opened = true
	maps.DeleteFunc(l.held, func(name string, _ failure) bool { return !present[name] })
	maps.DeleteFunc(l.failed, func(name string, _ failure) bool { return !present[name] })
	l.problems.Store(&problems)
	return l.Problem()
}

// load brings one file into force, unless it is or has failed already. want, if not
// nil, is the digest that it must have.
func (l *Layer) load(ctx context.Context, f file, want *script.Digest) error {
	name := f.name
	old := (*l.current.Load())[name]
	seen, isSeen := l.known[name]
	isSeen = isSeen && seen.File == f.base()
	if old != nil {
		seen, isSeen = knownFile{f.base(), old.stamp, old.info, old.publisher}, old.path == f.path
	}
	isSeen = isSeen && (want == nil || *want == seen.Info.Digest)
	wasm, at, err := l.read(f.path, isSeen, seen.Stamp)
	if err == nil && wasm == nil {
		delete(l.failed, name) // it is what it was before a change for the worse
		if old == nil {
			old = newVersion(l.dir, f, at, seen.Info, seen.Publisher)
			l.fresh[name] = arrival{old, Event{Layer: l.label, Name: name, Kind: Loaded, Digest: seen.Info.Digest, Notes: seen.Info.Warnings}}
			_ = l.keepVersion(old, nil) // a folder that cannot be written is noted when there is something new
		}
		return nil
	}
	digest := sha256.Sum256(wasm)
	if err == nil && want != nil && digest != *want {
		err = fmt.Errorf("%w: what is kept of %s is damaged; remove %s", ErrNotFound, *want, f.path)
	}
	if before, tried := l.failed[name]; tried && before.path == f.path && (before.stamp == at || err == nil && before.digest == digest) {
		return before.err
	}
	var next *version
	if err == nil {
		next = newVersion(l.dir, f, at, engine.Info{}, "")
		if old != nil && old.info.Digest == digest && old.language == f.language {
			// The same bytes were saved again. Remember how they look now.
			next.info, next.publisher = old.info, old.publisher
			if p := old.program.Load(); p != nil && p.Retain() {
				next.program.Store(p)
			}
		} else if next.publisher, err = f.signer(wasm, digest); err == nil {
			var p *engine.Program
			if p, err = f.compile(ctx, l.engine, wasm); err == nil {
				next.info = p.Info()
				next.program.Store(p)
			}
		}
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed since: the watcher calls again
		}
		switch {
		case old != nil && (old.program.Load() != nil || isKept(l.dir, old.kept(), old.info.Size)):
			err = fmt.Errorf("%w%s", err, staysInForce)
		case old != nil: // it was never run, and what it was is gone
			l.swap(name, nil)
			old = nil
		}
		if ctx.Err() == nil { // else it is the host's shutdown, not the file's fault
			l.failed[name] = failure{f.path, at, digest, err}
			l.report(Event{Layer: l.label, Name: name, Kind: Broken, Err: err, Digest: digestOf(old)})
		}
		return err
	}
	delete(l.failed, name)
	if old != nil {
		l.swap(name, next)
	}
	unkept := l.keepVersion(next, wasm)
	if old == nil || old.info.Digest != next.info.Digest || old.language != next.language {
		event := Event{Layer: l.label, Name: name, Kind: Loaded, Digest: next.info.Digest, Notes: next.info.Warnings}
		if old != nil {
			event.Kind = Replaced
			if gone := missing(old.info, next.info); len(gone) > 0 {
				event.Notes = append(event.Notes, "it no longer has: "+strings.Join(gone, ", "))
			}
		}
		if unkept != nil {
			event.Notes = append(event.Notes, fmt.Sprintf("nobody can go back to it later: %v", unkept))
		}
		if old == nil {
			l.fresh[name] = arrival{next, event}
		} else {
			l.report(event)
		}
	}
	return nil
}

// hold looks at the file of a name that is pinned, which is not what runs.
func (l *Layer) hold(f file) {
	before, seen := l.held[f.name]
	b, at, err := l.read(f.path, seen && before.path == f.path, before.stamp)
	if err != nil || b == nil {
		return
	}
	now := failure{path: f.path, stamp: at, digest: sha256.Sum256(b)}
	l.held[f.name] = now
	pin := l.pins.Load().Pin[f.name]
	if now.digest == pin || seen && now.digest == before.digest || !l.opened {
		return // or it was so before the layer was opened
	}
	l.report(Event{Layer: l.label, Name: f.name, Kind: Held, Digest: digestOf((*l.current.Load())[f.name]), Notes: []string{
		fmt.Sprintf("%s is %s, and does not run: %s pins it to %s", f.base(), script.Digest(now.digest), PinsFile, pin),
	}})
}

// read returns the bytes of a file, or none when it was seen before and looks as it
// did.
func (l *Layer) read(path string, before bool, seen stamp) (wasm []byte, at stamp, err error) {
	f, info, err := openRegular(path) // a FIFO must not stop the reloading for good
	if err != nil {
		return nil, at, err
	}
	defer f.Close()
	at = stampOf(info)
	if time.Since(info.ModTime()) < settled {
		at.Mtime = -1 // it may change again and look the same; a stamp of now never equals it
		at.Inode = racy.Add(1)
	}
	if before && seen == at {
		return nil, at, nil
	}
	if info.Size() > MaxBytes {
		return nil, at, fmt.Errorf("%s has %d bytes; a layer's module may have %d", path, info.Size(), MaxBytes)
	}
	wasm, err = io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, at, err
	}
	if wasm == nil {
		wasm = []byte{}
	}
	return wasm, at, nil
}

// swap puts next in force, nil for none, and lets go of what was.
func (l *Layer) swap(name string, next *version) {
	before := *l.current.Load()
	after := maps.Clone(before)
	if next == nil {
		delete(after, name)
	} else {
		after[name] = next
	}
	l.current.Store(&after)
	if old := before[name]; old != nil {
		old.close()
	}
}

// arrival is a module that was not here before, and what there is to report of it when
// it is in force.
type arrival struct {
	*version
	event Event
}

// addFresh puts the modules in force that were not here before: all but those before
// which rejected, a compose file that is not in force, puts others. Without these they
// were not meant to run.
func (l *Layer) addFresh(rejected *composition) (problems []error) {
	for _, name := range slices.Sorted(maps.Keys(l.fresh)) {
		a := l.fresh[name]
		if rejected != nil && rejected.chains[name].names != nil && l.composed.Load().broken == nil {
			problems = append(problems, fmt.Errorf("module %s: it is not in force before %s is mended, which names it", name, filepath.Join(l.dir, ComposeFile)))
			a.close()
			continue
		}
		l.swap(name, a.version)
		l.report(a.event)
	}
	l.fresh = nil
	return problems
}

// missing lists the entries of old that next does not have.
func missing(old, next engine.Info) []string {
	var gone []string
	for _, entry := range old.Entries {
		if !slices.Contains(next.Entries, entry) {
			gone = append(gone, entry)
		}
	}
	return gone
}

func digestOf(v *version) (d [32]byte) {
	if v != nil {
		d = v.info.Digest
	}
	return d
}

// ValidName reports whether name can be a module's: 1 to 63 of a-z, 0-9 and "-",
// neither first nor last a "-".
func ValidName(name string) bool {
	if len(name) < 1 || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Add writes a module into the directory of a layer, whole or not at all. It
// does not compile it: whoever has the layer open does.
func Add(dir, name string, wasm []byte) (path string, err error) {
	return add(dir, name, Suffix, wasm)
}

// AddText is Add for a text.
func AddText(dir, name string, l engine.Language, text []byte) (path string, err error) {
	return add(dir, name, l.Suffix, text)
}

func add(dir, name, suffix string, b []byte) (path string, err error) {
	if !ValidName(name) {
		return "", fmt.Errorf("module name %q: want 1 to 63 of a-z, 0-9 and \"-\"", name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("add module: %w", err)
	}
	path = filepath.Join(dir, name+suffix)
	if err := writeWhole(dir, name+suffix, b, 0o644, true); err != nil {
		return "", fmt.Errorf("add module: %w", err)
	}
	return path, nil
}
