package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The files that a Directory reads and writes, below a root.
const (
	peersDir     = "peers"
	rootConfig   = "circles.toml"
	identityFile = "peer.toml"
	keyFile      = "peer.key"
)

// Entry is what a root knows of one peer.
type Entry struct {
	ID   ID
	Name Name
	Dir  string // of its context, <root>/peers/<name>, when that is held here; else ""
	URL  string // where its context is held, if that is known and not here
	Host ID     // who signs receipts there; "" takes any host's
}

// Held reports whether the peer's context is here.
func (e Entry) Held() bool { return e.Dir != "" }

// Key reads the peer's private key, and checks that it is the one for its id. A
// context whose key is kept elsewhere has none: the error is fs.ErrNotExist.
func (e Entry) Key() (*Key, error) {
	if !e.Held() {
		return nil, fmt.Errorf("key of %s: its context is not here: %w", e.Name, fs.ErrNotExist)
	}
	key, err := ReadKeyFile(filepath.Join(e.Dir, keyFile))
	if err != nil {
		return nil, err
	}
	if key.ID() != e.ID {
		return nil, fmt.Errorf("read key %s: it is the key of %s, but %s says %s: one of the two files belongs to another peer",
			filepath.Join(e.Dir, keyFile), key.ID(), identityFile, e.ID)
	}
	return key, nil
}

// CirclesFile is where the peer's own circles are, beside its policies.
func (e Entry) CirclesFile() string { return filepath.Join(e.Dir, "policy", "circles.toml") }

// Directory knows the peers of a root: those whose contexts are held there, by
// <root>/peers/<petname>/peer.toml, and those elsewhere, by the [peers.<petname>]
// tables of <root>/circles.toml.
//
// Neither to open one nor to keep it takes time or memory by the number of peers
// that are held: who has an id is looked up on disk, by index, and remembered
// for those that were asked for. It keeps up with peers that are added or removed
// while it is open: a lookup sees to that, at most every 50 ms and never for more
// than a twentieth of the time, so that asking for unknown ids costs a system call
// each, and two more now and then.
//
// What is wrong with one peer's files takes only that peer out; see Problems. A
// Directory is safe for concurrent use, and its changes by several processes.
type Directory struct {
	root  string
	start time.Time    // what next counts from
	next  atomic.Int64 // when a lookup looks at the disk again, in ns after start
	now   atomic.Pointer[state]

	mu      sync.Mutex // for what follows, and for replacing now
	index   index
	routes  map[Name]Route
	badFile error // what is wrong with circles.toml, nil if nothing
	peers   stamp
	config  stamp
}

// state is what lookups go by: replaced, with what was remembered, when anything
// has changed on disk.
type state struct {
	routes   map[Name]Entry
	routeIDs map[ID]Name
	problems []error
	seen     seen
}

// seen remembers peers that are held.
type seen struct {
	mu     sync.RWMutex
	byID   map[ID]Entry
	byName map[Name]Entry
}

// maxSeen bounds what is remembered, to a few MiB.
const maxSeen = 10_000

func (s *seen) put(e Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byID) >= maxSeen || s.byID == nil {
		s.byID, s.byName = map[ID]Entry{}, map[Name]Entry{}
	}
	s.byID[e.ID], s.byName[e.Name] = e, e
}

const (
	checkEvery = 50 * time.Millisecond
	restFactor = 20 // a check that took t is followed by at least 20 t of rest
)

// stamp tells whether a file or directory has changed since it was read.
type stamp struct {
	mtime time.Time
	size  int64
	// fresh: it had changed so shortly before it was read that a change just
	// after might have left the same time. Then it counts as changed.
	fresh bool
}

// stampOf looks at path as it is now, before it is read.
func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return stamp{}, nil
	}
	if err != nil {
		return stamp{}, err
	}
	return stamp{mtime: info.ModTime(), size: info.Size(), fresh: time.Since(info.ModTime()) < granularity}, nil
}

const granularity = 2 * time.Second // of the coarsest file systems

func (s stamp) changed(now stamp) bool {
	return s.fresh || !s.mtime.Equal(now.mtime) || s.size != now.size
}

// OpenDirectory reads the peers of root. It fails only if there is no such
// directory or its peers cannot be listed; what is wrong with single peers is in
// Problems.
func OpenDirectory(root string) (*Directory, error) {
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("open root %s: no such directory: make one with init, or name another with --root", root)
	}
	d := &Directory{root: root, start: time.Now()}
	d.index.open(root)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refresh(false, false); err != nil {
		return nil, err
	}
	return d, nil
}

// ByID returns what is known of the peer with that id.
func (d *Directory) ByID(id ID) (Entry, bool) {
	d.look()
	now := d.now.Load()
	if e, ok := d.heldByID(now, id); ok {
		return e, true
	}
	e, ok := now.routes[now.routeIDs[id]]
	return e, ok
}

// ByName returns what is known of the peer with that petname.
func (d *Directory) ByName(name Name) (Entry, bool) {
	d.look()
	now := d.now.Load()
	if e, ok := d.heldByName(now, name); ok {
		return e, true
	}
	e, ok := now.routes[name]
	return e, ok
}

// heldByID finds the peer with that id among those that are held.
func (d *Directory) heldByID(now *state, id ID) (Entry, bool) {
	now.seen.mu.RLock()
	e, ok := now.seen.byID[id]
	now.seen.mu.RUnlock()
	if ok {
		return e, true
	}
	// Of several that say so, none is: see index.
	if names := d.index.names(id); len(names) == 1 {
		if e, ok := d.heldByName(now, names[0]); ok && e.ID == id {
			return e, true
		}
	}
	return Entry{}, false
}

func (d *Directory) heldByName(now *state, name Name) (Entry, bool) {
	now.seen.mu.RLock()
	e, ok := now.seen.byName[name]
	now.seen.mu.RUnlock()
	if ok {
		return e, true
	}
	if len(name) == 0 || name[0] == '.' {
		return Entry{}, false
	}
	id, err := readIdentity(filepath.Join(d.root, peersDir), string(name))
	if err != nil {
		return Entry{}, false
	}
	if names := d.index.names(id); len(names) != 1 || names[0] != name {
		return Entry{}, false
	}
	e = Entry{ID: id, Name: name, Dir: d.dir(name)}
	now.seen.put(e)
	return e, true
}

// Knows reports whether there is a peer with that petname.
func (d *Directory) Knows(name Name) bool {
	_, ok := d.ByName(name)
	return ok
}

// Holds reports whether the context of id is here.
func (d *Directory) Holds(id ID) bool {
	e, ok := d.ByID(id)
	return ok && e.Held()
}

// NameOf returns the petname that an owner, the first, gave to a peer, the
// second; "" if none. Petnames are the same for all owners of a root so far.
func (d *Directory) NameOf(_, id ID) Name {
	e, _ := d.ByID(id)
	return e.Name
}

// Meet returns the parties to a script, with the names that target's owner has for
// them and its circles, which may be nil. via is whom a delegation came by.
func (d *Directory) Meet(caller, target ID, circles *Circles, via ...ID) Parties {
	if circles == nil {
		circles = &Circles{}
	}
	of := func(id ID) Peer {
		name := d.NameOf(target, id)
		return Peer{ID: id, Name: name, Circles: circles.Of(id, name)}
	}
	p := Parties{Caller: of(caller), Target: of(target), known: d, circles: circles}
	for _, id := range via {
		p.Via = append(p.Via, of(id))
	}
	return p
}

// Resolve finds the peer that a person means by s: a petname or an id. An id
// that is not known here is an Entry with nothing else in it.
func (d *Directory) Resolve(s string) (Entry, error) {
	if strings.HasPrefix(s, "did:") || strings.HasPrefix(s, "z6Mk") {
		id, err := ParseID(s)
		if err != nil {
			return Entry{}, err
		}
		if e, ok := d.ByID(id); ok {
			return e, nil
		}
		return Entry{ID: id}, nil
	}
	name, err := ParseName(s)
	if err != nil {
		return Entry{}, err
	}
	if e, ok := d.ByName(name); ok {
		return e, nil
	}
	some, more := d.Some(7)
	var names []string
	for _, e := range some {
		names = append(names, string(e.Name))
	}
	if more {
		names = append(names, "…")
	}
	if len(names) == 0 {
		return Entry{}, fmt.Errorf("no peer is called %q in %s, nor anything else: add one with peer add", name, d.root)
	}
	return Entry{}, fmt.Errorf("no peer is called %q in %s; it knows %s", name, d.root, strings.Join(names, ", "))
}

// All returns every peer, by name. It looks at each on disk.
func (d *Directory) All() []Entry {
	d.look()
	now := d.now.Load()
	all := slices.Collect(maps.Values(now.routes))
	names, err := os.ReadDir(filepath.Join(d.root, peersDir))
	if err == nil {
		for _, f := range names {
			if e, ok := d.heldByName(now, Name(f.Name())); ok {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return all
}

// Some returns at most n peers, by name, and whether there are more. It does not
// look at all of them.
func (d *Directory) Some(n int) (some []Entry, more bool) {
	d.look()
	now := d.now.Load()
	some = slices.Collect(maps.Values(now.routes))
	if dir, err := os.Open(filepath.Join(d.root, peersDir)); err == nil {
		defer dir.Close()
		// A few more, as some are hidden or broken.
		files, _ := dir.ReadDir(2*n + 16)
		for _, f := range files {
			if e, ok := d.heldByName(now, Name(f.Name())); ok {
				some = append(some, e)
			}
		}
		_, err := dir.ReadDir(1)
		more = err == nil
	}
	slices.SortFunc(some, func(a, b Entry) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return some[:min(n, len(some))], more || len(some) > n
}

// Problems returns what is wrong with single peers, and with the routes as a
// whole; each names the file and says what to do. Such a peer is not in the
// Directory; routes stay as they were when they could last be read.
func (d *Directory) Problems() []error {
	d.look()
	return slices.Clone(d.now.Load().problems)
}

// look refreshes the index if it is time to. While one goroutine does so the
// others go on with what was known before.
func (d *Directory) look() {
	if int64(time.Since(d.start)) < d.next.Load() || !d.mu.TryLock() {
		return
	}
	defer d.mu.Unlock()
	// An error leaves what was known in force, and is met again when next due.
	_ = d.refresh(false, false)
}

// Refresh reads everything again, also what a lookup would not look for: an
// identity that was changed in place.
func (d *Directory) Refresh() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refresh(true, false)
}

func (d *Directory) refresh(all, locked bool) error {
	began := time.Now()
	defer func() {
		rest := max(checkEvery, restFactor*time.Since(began))
		d.next.Store(int64(time.Since(d.start) + rest))
	}()
	peers, err := d.readPeers(all, locked)
	if err != nil {
		return fmt.Errorf("read peers: %w", err)
	}
	if routes := d.readRoutes(all); peers || routes || d.now.Load() == nil {
		d.publish()
	}
	return nil
}

// readPeers brings the index up to date and reports whether anything changed.
func (d *Directory) readPeers(all, locked bool) (changed bool, err error) {
	now, err := stampOf(filepath.Join(d.root, peersDir))
	if err != nil {
		return false, err
	}
	changed = all || !d.peers.mtime.Equal(now.mtime) || d.peers.size != now.size
	if changed || d.peers.changed(now) || d.index.gone() {
		if all || !d.index.complete(now) {
			if now, err = d.scan(locked); err != nil {
				return false, err
			}
			changed = true
		}
		d.peers = now
	}
	again, err := d.index.recheck(func() error { _, err := d.scan(locked); return err })
	return changed || again, err
}

// scan makes the index anew, alone among all processes.
func (d *Directory) scan(locked bool) (at stamp, err error) {
	if !locked {
		unlock, err := lockDir(d.root)
		if err != nil {
			return at, err
		}
		defer unlock()
	}
	if at, err = stampOf(filepath.Join(d.root, peersDir)); err != nil {
		return at, err
	}
	return at, d.index.scan(at)
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func readIdentity(dir, name string) (ID, error) {
	if _, err := ParseName(name); err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	file := filepath.Join(dir, name, identityFile)
	text, err := readConfig(file)
	if err != nil {
		return "", err
	}
	return parseIdentity(file, text)
}

// readRoutes brings routes up to date and reports whether anything changed.
func (d *Directory) readRoutes(all bool) (changed bool) {
	file := filepath.Join(d.root, rootConfig)
	now, err := stampOf(file)
	if err == nil && !all && !d.config.changed(now) {
		return false
	}
	var routes map[Name]Route
	if err == nil {
		var text []byte
		text, err = readConfig(file)
		if errors.Is(err, fs.ErrNotExist) {
			text, err = nil, nil
		}
		if err == nil {
			routes, err = parseRoutes(file, text)
		}
	}
	d.config = now
	if err != nil {
		changed = d.badFile == nil || d.badFile.Error() != err.Error()
		d.badFile = err
		return changed
	}
	changed = d.badFile != nil || !equalRoutes(d.routes, routes)
	d.routes, d.badFile = routes, nil
	return changed
}

// publish makes a new state of what is on disk.
func (d *Directory) publish() {
	now := &state{routes: map[Name]Entry{}, routeIDs: map[ID]Name{}, problems: d.index.problems()}
	problem := func(format string, a ...any) { now.problems = append(now.problems, fmt.Errorf(format, a...)) }
	file := filepath.Join(d.root, rootConfig)
	for _, name := range sorted(d.routes) {
		r := d.routes[name]
		if e, ok := d.heldByName(now, name); ok && e.ID != r.ID {
			problem("%s: [peers.%s] is %s, but that petname belongs to %s: rename one", file, name, r.ID, e.ID)
			continue
		}
		if e, ok := d.heldByID(now, r.ID); ok {
			// A context that is held here needs no route; its name is that of its directory.
			if e.Name != name {
				problem("%s: [peers.%s] is called %s already: keep one of the names", file, name, e.Name)
			}
			continue
		}
		if d.index.troubles(name) {
			continue // there is a context of that name, and a problem with it is reported
		}
		now.routes[name], now.routeIDs[r.ID] = Entry{ID: r.ID, Name: name, URL: r.URL, Host: r.Host}, name
	}
	if d.badFile != nil {
		problem("routes to other peers are as they were before: %w", d.badFile)
	}
	d.now.Store(now)
}

func sorted[V any](m map[Name]V) []Name {
	names := make([]Name, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (d *Directory) dir(name Name) string { return filepath.Join(d.root, peersDir, string(name)) }

// Hold makes the context of a new peer, <root>/peers/<name>, with its identity,
// its key unless that is nil, and the empty directories of the layout. With store,
// which is the name of a backend, its files and log are kept there, and not in
// directories of its own. It is there as a whole and on disk when Hold returns, or
// not at all.
func (d *Directory) Hold(name Name, id ID, key *Key, store string) (e Entry, err error) {
	if _, err := ParseName(string(name)); err != nil {
		return Entry{}, fmt.Errorf("add peer: %w", err)
	}
	if _, err := ParseID(string(id)); err != nil {
		return Entry{}, fmt.Errorf("add peer %s: %w", name, err)
	}
	if key != nil && key.ID() != id {
		return Entry{}, fmt.Errorf("add peer %s: the key is that of %s, not of %s", name, key.ID(), id)
	}
	err = d.change(func() (edit, error) {
		if other, ok := d.ByName(name); ok && (other.Held() || other.ID != id) {
			return edit{}, fmt.Errorf("the name is that of %s already: choose another", other.ID)
		}
		if other, ok := d.ByID(id); ok && (other.Held() || other.Name != name) {
			return edit{}, fmt.Errorf("%s is known as %s already", id, other.Name)
		}
		if err := d.index.taken(id); err != nil {
			return edit{}, err
		}
		return edit{id: id, name: name}, makeContext(filepath.Join(d.root, peersDir), name, id, key, store)
	})
	if err != nil {
		return Entry{}, fmt.Errorf("add peer %s: %w", name, err)
	}
	return Entry{ID: id, Name: name, Dir: d.dir(name)}, nil
}

func makeContext(peers string, name Name, id ID, key *Key, store string) (err error) {
	if err := os.MkdirAll(peers, 0o700); err != nil {
		return err
	}
	final := filepath.Join(peers, string(name))
	if isThere(final) {
		return fmt.Errorf("%s is there already: move it away, or choose another name", final)
	}
	// Under a hidden name first, so that nobody sees half of it.
	making, err := os.MkdirTemp(peers, ".new-"+string(name)+"-") // mode 0700
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(making)
		}
	}()
	subs := []string{"policy", "modules", "schema"}
	if store == "" {
		subs = append(subs, "data", "log")
	}
	for _, sub := range subs {
		if err := os.Mkdir(filepath.Join(making, sub), 0o700); err != nil {
			return err
		}
	}
	text := identityLines(id)
	if store != "" {
		text = fmt.Appendf(text, "store = %s\n", tomlString(store))
	}
	if err := replaceFile(filepath.Join(making, identityFile), text, 0o644); err != nil {
		return err
	}
	if key != nil {
		if err := WriteKeyFile(filepath.Join(making, keyFile), key); err != nil {
			return err
		}
	}
	if err := os.Rename(making, final); err != nil {
		return err
	}
	return syncDir(peers)
}

// SetRoute writes where a peer that is held elsewhere is found, in circles.toml,
// in place of what was said of that peer before.
func (d *Directory) SetRoute(name Name, r Route) error {
	if _, err := ParseName(string(name)); err != nil {
		return fmt.Errorf("add route: %w", err)
	}
	if _, err := ParseID(string(r.ID)); err != nil {
		return fmt.Errorf("add route to %s: %w", name, err)
	}
	err := d.change(func() (edit, error) {
		if other, ok := d.ByName(name); ok && other.ID != r.ID {
			return edit{}, fmt.Errorf("the name is that of %s already: choose another, or remove that first", other.ID)
		}
		if other, ok := d.ByID(r.ID); ok && (other.Held() || other.Name != name) {
			return edit{}, fmt.Errorf("%s is known as %s already", r.ID, other.Name)
		}
		return edit{}, d.editConfig(name, &r)
	})
	if err != nil {
		return fmt.Errorf("add route to %s: %w", name, err)
	}
	return nil
}

// Remove takes a peer out of use: its route is taken out of circles.toml; a
// context that is held here is set aside under the hidden name that is returned,
// and never deleted, since its data and its log are the owner's.
func (d *Directory) Remove(name Name) (aside string, err error) {
	err = d.change(func() (edit, error) {
		e, ok := d.ByName(name)
		if !ok {
			return edit{}, errors.New("no peer is called so")
		}
		if !e.Held() {
			return edit{}, d.editConfig(name, nil)
		}
		aside = filepath.Join(d.root, peersDir, fmt.Sprintf(".removed-%s-%s", name, time.Now().UTC().Format("20060102T150405.000000000")))
		if err := os.Rename(e.Dir, aside); err != nil {
			return edit{}, err
		}
		return edit{id: e.ID, name: name, leave: true}, syncDir(filepath.Dir(aside))
	})
	if err != nil {
		return "", fmt.Errorf("remove peer %s: %w", name, err)
	}
	return aside, nil
}

// change runs f on what is on disk now, alone among all processes, and takes in
// what f did, which is an edit of peers/ unless that has no name.
func (d *Directory) change(f func() (edit, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	unlock, err := lockDir(d.root)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.refresh(false, true); err != nil {
		return err
	}
	dir := filepath.Join(d.root, peersDir)
	before, err := stampOf(dir)
	if err != nil {
		return err
	}
	whole := d.index.complete(before)
	e, err := f()
	if err != nil {
		return err
	}
	if after, err := stampOf(dir); whole && e.name != "" && err == nil {
		// If that fails, the index is what it was, and made anew below.
		_ = d.index.apply(e, after)
	}
	return d.refresh(false, true)
}

func (d *Directory) editConfig(name Name, r *Route) error {
	file := filepath.Join(d.root, rootConfig)
	mode := fs.FileMode(0o644)
	text, err := readConfig(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if info, err := os.Stat(file); err == nil {
		mode = info.Mode().Perm()
	}
	text, err = editRoute(file, text, name, r)
	if err != nil {
		return err
	}
	return replaceFile(file, text, mode)
}
