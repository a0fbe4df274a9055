package peer

import (
	"errors"
	"fmt"
	"io/fs"
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
// It keeps up with peers that are added or removed while it is open: a lookup
// sees to that, at most every 50 ms and never for more than a twentieth of the
// time, so that asking for unknown ids costs two stat calls now and then,
// however many there are and however many peers. It holds one Entry for each
// peer on disk and nothing for those that are asked for in vain.
//
// What is wrong with one peer's files takes only that peer out; see Problems. A
// Directory is safe for concurrent use, and its changes by several processes.
type Directory struct {
	root  string
	start time.Time    // what next counts from
	next  atomic.Int64 // when a lookup looks at the disk again, in ns after start
	now   atomic.Pointer[index]

	mu      sync.Mutex // for what follows, and for replacing now
	held    map[Name]ID
	broken  map[Name]error
	routes  map[Name]Route
	badFile error // what is wrong with circles.toml, nil if nothing
	peers   stamp
	config  stamp
}

// index is what lookups read; never changed once it is published.
type index struct {
	byName   map[Name]Entry
	byID     map[ID]Entry
	problems []error
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
	const granularity = 2 * time.Second // of the coarsest file systems
	return stamp{mtime: info.ModTime(), size: info.Size(), fresh: time.Since(info.ModTime()) < granularity}, nil
}

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
	if err := d.Refresh(); err != nil {
		return nil, err
	}
	return d, nil
}

// ByID returns what is known of the peer with that id.
func (d *Directory) ByID(id ID) (Entry, bool) {
	d.look()
	e, ok := d.now.Load().byID[id]
	return e, ok
}

// ByName returns what is known of the peer with that petname.
func (d *Directory) ByName(name Name) (Entry, bool) {
	d.look()
	e, ok := d.now.Load().byName[name]
	return e, ok
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

// Meet returns the two parties to a script, with the names that target's owner
// has for them and its circles, which may be nil.
func (d *Directory) Meet(caller, target ID, circles *Circles) Parties {
	if circles == nil {
		circles = &Circles{}
	}
	of := func(id ID) Peer {
		name := d.NameOf(target, id)
		return Peer{ID: id, Name: name, Circles: circles.Of(id, name)}
	}
	return Parties{Caller: of(caller), Target: of(target)}
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
	names := make([]string, 0, 8)
	for _, e := range d.All() {
		if len(names) == cap(names) {
			names = append(names, "…")
			break
		}
		names = append(names, string(e.Name))
	}
	if len(names) == 0 {
		return Entry{}, fmt.Errorf("no peer is called %q in %s, nor anything else: add one with peer add", name, d.root)
	}
	return Entry{}, fmt.Errorf("no peer is called %q in %s; it knows %s", name, d.root, strings.Join(names, ", "))
}

// All returns every peer, by name.
func (d *Directory) All() []Entry {
	d.look()
	byName := d.now.Load().byName
	all := make([]Entry, 0, len(byName))
	for _, e := range byName {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return all
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
	_ = d.refresh(false)
}

// Refresh reads everything again, also what a lookup would not look for: an
// identity that was changed in place.
func (d *Directory) Refresh() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refresh(true)
}

func (d *Directory) refresh(all bool) error {
	began := time.Now()
	defer func() {
		rest := max(checkEvery, restFactor*time.Since(began))
		d.next.Store(int64(time.Since(d.start) + rest))
	}()
	peers, err := d.readPeers(all)
	if err != nil {
		return fmt.Errorf("read peers: %w", err)
	}
	if routes := d.readRoutes(all); peers || routes || d.now.Load() == nil {
		d.publish()
	}
	return nil
}

// readPeers brings held and broken up to date and reports whether they changed.
func (d *Directory) readPeers(all bool) (changed bool, err error) {
	dir := filepath.Join(d.root, peersDir)
	now, err := stampOf(dir)
	if err != nil {
		return false, err
	}
	if !all && !d.peers.changed(now) && len(d.broken) == 0 {
		return false, nil
	}
	there, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if all {
		d.held, d.broken = map[Name]ID{}, map[Name]error{}
		changed = true
	}
	seen := make(map[Name]bool, len(there))
	for _, f := range there {
		// Hidden names are ours: a peer that is being made or was removed.
		if strings.HasPrefix(f.Name(), ".") || f.Type().IsRegular() {
			continue
		}
		name := Name(f.Name())
		seen[name] = true
		if _, ok := d.held[name]; ok {
			continue
		}
		id, err := readIdentity(dir, f.Name())
		if err != nil && !isThere(filepath.Join(dir, f.Name())) {
			delete(seen, name) // removed since the directory was read
			continue
		}
		switch before, was := d.broken[name]; {
		case err == nil:
			delete(d.broken, name)
			d.held[name] = id
			changed = true
		case !was || before.Error() != err.Error():
			d.broken[name] = err
			changed = true
		}
	}
	for name := range d.held {
		if !seen[name] {
			delete(d.held, name)
			changed = true
		}
	}
	for name := range d.broken {
		if !seen[name] {
			delete(d.broken, name)
			changed = true
		}
	}
	d.peers = now
	return changed, nil
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

// publish makes the index from held, broken and routes.
func (d *Directory) publish() {
	ix := &index{
		byName: make(map[Name]Entry, len(d.held)+len(d.routes)),
		byID:   make(map[ID]Entry, len(d.held)+len(d.routes)),
	}
	problem := func(format string, a ...any) { ix.problems = append(ix.problems, fmt.Errorf(format, a...)) }
	for _, name := range sorted(d.held) {
		e := Entry{ID: d.held[name], Name: name, Dir: d.dir(name)}
		if first, ok := ix.byID[e.ID]; ok {
			// Nothing says which of them is the copy, and to write on in the wrong
			// one would part the peer's data in two: serve neither.
			problem("%s and %s are both of %s: remove or rename one of the two (a leading dot takes it out of use)", first.Dir, e.Dir, e.ID)
			delete(ix.byName, first.Name)
			continue
		}
		ix.byName[name], ix.byID[e.ID] = e, e
	}
	for id, e := range ix.byID {
		if _, ok := ix.byName[e.Name]; !ok {
			delete(ix.byID, id)
		}
	}
	file := filepath.Join(d.root, rootConfig)
	for _, name := range sorted(d.routes) {
		r := d.routes[name]
		if e, ok := ix.byName[name]; ok && e.ID != r.ID {
			problem("%s: [peers.%s] is %s, but that petname belongs to %s: rename one", file, name, r.ID, e.ID)
			continue
		}
		if e, ok := ix.byID[r.ID]; ok {
			// A context that is held here needs no route; its name is that of its directory.
			if e.Name != name {
				problem("%s: [peers.%s] is called %s already: keep one of the names", file, name, e.Name)
			}
			continue
		}
		_, taken := d.held[name]
		if _, bad := d.broken[name]; taken || bad {
			continue // there is a context of that name, and a problem with it is reported
		}
		e := Entry{ID: r.ID, Name: name, URL: r.URL, Host: r.Host}
		ix.byName[name], ix.byID[e.ID] = e, e
	}
	for _, name := range sorted(d.broken) {
		problem("peer %q is not served: %w", name, d.broken[name])
	}
	if d.badFile != nil {
		problem("routes to other peers are as they were before: %w", d.badFile)
	}
	d.now.Store(ix)
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
	err = d.change(func(ix *index) error {
		if other, ok := ix.byName[name]; ok && (other.Held() || other.ID != id) {
			return fmt.Errorf("the name is that of %s already: choose another", other.ID)
		}
		if other, ok := ix.byID[id]; ok && (other.Held() || other.Name != name) {
			return fmt.Errorf("%s is known as %s already", id, other.Name)
		}
		return makeContext(filepath.Join(d.root, peersDir), name, id, key, store)
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
	text := fmt.Appendf(nil, "# Who this context belongs to.\nid = %q\n", string(id))
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
	err := d.change(func(ix *index) error {
		if other, ok := ix.byName[name]; ok && other.ID != r.ID {
			return fmt.Errorf("the name is that of %s already: choose another, or remove that first", other.ID)
		}
		if other, ok := ix.byID[r.ID]; ok && (other.Held() || other.Name != name) {
			return fmt.Errorf("%s is known as %s already", r.ID, other.Name)
		}
		return d.editConfig(name, &r)
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
	err = d.change(func(ix *index) error {
		e, ok := ix.byName[name]
		if !ok {
			return errors.New("no peer is called so")
		}
		if !e.Held() {
			return d.editConfig(name, nil)
		}
		aside = filepath.Join(d.root, peersDir, fmt.Sprintf(".removed-%s-%s", name, time.Now().UTC().Format("20060102T150405.000000000")))
		if err := os.Rename(e.Dir, aside); err != nil {
			return err
		}
		return syncDir(filepath.Dir(aside))
	})
	if err != nil {
		return "", fmt.Errorf("remove peer %s: %w", name, err)
	}
	return aside, nil
}

// change runs f on what is on disk now, alone among all processes, and takes in
// what f did.
func (d *Directory) change(f func(*index) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	unlock, err := lockDir(d.root)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.refresh(false); err != nil {
		return err
	}
	if err := f(d.now.Load()); err != nil {
		return err
	}
	return d.refresh(false)
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
