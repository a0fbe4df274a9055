package overlay

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/circles-host/circles/host/store"
)

// Tx is one transaction; see the package's documentation.
type Tx struct {
	s        *Store
	lower    Snapshot        // what the transaction started from
	ctx      context.Context // bounds long copies and walks
	readOnly bool
	ended    bool
	root     *node

	made    uint64 // nodes made, for their inode numbers
	kept    int    // nodes that are in some children map
	handles map[*file]struct{}

	script, host account

	used     store.Volume // what the context held when room was first asked for
	measured bool
	delta    store.Volume // what the transaction adds to that

	private    *node // see privateDir
	privateErr error

	records  []Record
	recorded int // bytes
	keys     map[store.Key]struct{}
}

// account is what is counted against the limits of a transaction: once for the
// script, and once for what the host keeps in Private, so that neither can use
// up what is the other's.
type account struct {
	entries int   // Limits.Entries
	staged  int64 // Limits.StagedBytes
	listed  int   // Limits.Listed
	open    int   // Limits.OpenFiles
	limits  Limits
	used    store.Usage
}

// node is an entry of the tree. There are no hard links here: a file has one
// node, and a node is one file.
type node struct {
	parent *node // nil for the root
	name   string
	kind   store.Kind
	ino    uint64
	kept   bool // in parent.children
	gone   bool // removed or replaced; open handles may still use it

	origin string // path in the lower state; "" if it has none
	attr   Attr   // what the lower state said of origin

	atime, mtime, ctime time.Time
	timesSet            bool // by the script, so they are part of the change

	of      *account
	charged int   // what it adds to of.entries
	weight  int64 // what it adds to the context's bytes
	left    bool  // it no longer adds to the context's entries

	// Directories.
	children map[string]*node
	// masked names are in the lower directory but no longer here; the value is
	// the node that was: removed, or moved elsewhere.
	masked map[string]*node

	// Files.
	opens  int
	lower  LowerFile // while opens > 0 and nothing is staged
	staged Staged
	size   int64
	intact int64  // of staged: so many first bytes are still those of the origin
	gen    uint64 // counts changes of content
	sameAt uint64 // gen at which content was last compared, +1
	same   bool   // the result

	target string // links that the transaction made
}

func newTx(ctx context.Context, s *Store, readOnly bool) (*Tx, error) {
	lower, err := s.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	t := &Tx{s: s, lower: lower, ctx: ctx, readOnly: readOnly, handles: map[*file]struct{}{}}
	t.script.limits, t.host.limits = s.limits, s.limits
	t.root = &node{kind: store.KindDir, origin: ".", kept: true, ino: inodeOf('l', "."), of: &t.script}
	return t, nil
}

// end releases what the transaction holds. Content that was committed belongs to
// the backend by then: plan and Commit leave staged files to Discard only if
// they were not taken.
func (t *Tx) end() {
	if t.ended {
		return
	}
	t.closeHandles()
	t.ended = true
	t.discard(t.root)
	t.lower.Release()
}

func (t *Tx) closeHandles() {
	for h := range t.handles {
		h.Close()
	}
}

func (t *Tx) discard(n *node) {
	if n.staged != nil {
		n.staged.Discard()
		n.staged = nil
	}
	for _, c := range n.children {
		t.discard(c)
	}
}

// Limit implements store.Tx.
func (t *Tx) Limit(l store.Limits) store.Limits {
	of := &t.script.limits
	of.StagedBytes = cmp.Or(l.Bytes, of.StagedBytes)
	of.FileSize = cmp.Or(l.FileSize, of.FileSize)
	of.Entries = cmp.Or(l.Entries, of.Entries)
	of.OpenFiles = cmp.Or(l.Handles, of.OpenFiles)
	of.Listed = cmp.Or(l.Listed, of.Listed)
	of.Depth = min(cmp.Or(l.Depth, of.Depth), maxDepth)
	return store.Limits{
		Bytes: of.StagedBytes, FileSize: of.FileSize, Entries: of.Entries,
		Handles: of.OpenFiles, Listed: of.Listed, Depth: of.Depth,
	}
}

// Usage implements store.Tx.
func (t *Tx) Usage() store.Usage { return t.script.used }

// Append implements store.Tx.
func (t *Tx) Append(key store.Key, data []byte) error { return t.AppendAt(key, data, time.Time{}) }

// AppendAt implements store.Tx.
func (t *Tx) AppendAt(key store.Key, data []byte, at time.Time) error {
	if t.ended {
		return store.ErrClosed
	}
	if len(data) > t.s.limits.RecordBytes {
		return fmt.Errorf("append log entry of %d bytes: %w", len(data), store.ErrTooBig)
	}
	if len(t.records) >= t.s.limits.Records || t.recorded+len(data) > 4*t.s.limits.RecordBytes {
		return fmt.Errorf("append more log entries than %d, of %d bytes, in one transaction: %w", len(t.records), t.recorded, store.ErrQuota)
	}
	if _, twice := t.keys[key]; twice || t.lower.HasKey(key) {
		return fmt.Errorf("append log entry %x: %w", key[:8], store.ErrExists)
	}
	if err := t.logRoom(LogSize(len(data))); err != nil {
		return fmt.Errorf("append log entry %x: %w", key[:8], err)
	}
	t.delta.Log += LogSize(len(data))
	if t.keys == nil {
		t.keys = map[store.Key]struct{}{}
	}
	t.keys[key] = struct{}{}
	t.recorded += len(data)
	t.records = append(t.records, Record{Key: key, Time: at.UTC(), Data: append([]byte{}, data...)})
	return nil
}

// join makes the lower path of a name in a lower directory.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// path is the node's absolute path.
func (n *node) path() string {
	if n.parent == nil {
		return "/"
	}
	size := 0
	for p := n; p.parent != nil; p = p.parent {
		size += 1 + len(p.name)
	}
	b := make([]byte, size)
	for p := n; p.parent != nil; p = p.parent {
		size -= len(p.name)
		copy(b[size:], p.name)
		size--
		b[size] = '/'
	}
	return string(b)
}

func childPath(d *node, name string) string {
	if d.parent == nil {
		return "/" + name
	}
	return d.path() + "/" + name
}

func (n *node) depth() int {
	d := 0
	for p := n.parent; p != nil; p = p.parent {
		d++
	}
	return d
}

// home reports whether n is where the lower state has it, relative to its
// directory.
func (n *node) home() bool {
	return n.origin != "" && n.parent.origin != "" && n.origin == join(n.parent.origin, n.name)
}

// inodeOf makes an inode number: the same for the same place in every
// transaction, unrelated to the host's, and without a table that would have to
// remember it. Numbers do not depend on the machine, so that a script which
// looks at them still runs alike everywhere.
func inodeOf(domain byte, s string) uint64 {
	var buf [128]byte
	h := sha256.Sum256(append(append(buf[:0], domain), s...))
	return binary.LittleEndian.Uint64(h[:]) | 1 // never 0
}

// lookup finds one name in a directory. The result is kept in the tree if it was
// already, or is a directory and the cache has room.
func (t *Tx) lookup(d *node, name string) (*node, error) {
	if n := d.children[name]; n != nil {
		return n, nil
	}
	if _, masked := d.masked[name]; masked || d.origin == "" {
		return nil, store.ErrNotExist
	}
	origin := join(d.origin, name)
	a, err := t.lower.Lstat(origin)
	if err != nil {
		// The directory itself may have gone away under us: nothing is there.
		if errors.Is(err, store.ErrNotDir) {
			err = store.ErrNotExist
		}
		return nil, err
	}
	n := &node{
		parent: d, name: name, kind: a.Kind, ino: inodeOf('l', origin), origin: origin,
		attr: a, size: a.Size, atime: a.Atime, mtime: a.Mtime, ctime: a.Ctime, of: t.account(d, name),
		weight: weightOf(a),
	}
	if a.Kind == store.KindDir && d.kept && t.kept < t.s.limits.cachedNodes {
		t.attach(n)
	}
	return n, nil
}

func (t *Tx) attach(n *node) {
	if n.parent.children == nil {
		n.parent.children = map[string]*node{}
	}
	n.parent.children[n.name] = n
	n.kept = true
	t.kept++
}

// keep puts n, and the directories above it, into the tree, so that what is done
// to it is found again.
func (t *Tx) keep(n *node) error {
	for ; !n.kept; n = n.parent {
		if t.kept >= t.s.limits.nodes {
			return fmt.Errorf("more than %d files and directories touched: %w", t.kept, store.ErrQuota)
		}
		t.attach(n)
	}
	return nil
}

// forget drops a node from the tree if it is as in the lower state and nobody
// uses it; and then, if there are more than the cache is for, the directories
// above it. Otherwise opening one file in each of very many directories would
// end in a quota.
func (t *Tx) forget(n *node) {
	for ; n.kept && n.clean(); n = n.parent {
		if n.kind == store.KindDir && t.kept <= t.s.limits.cachedNodes {
			return
		}
		_ = t.charge(n, 0)
		delete(n.parent.children, n.name)
		n.kept = false
		t.kept--
	}
}

// clean reports whether the lower state knows all that there is to know of n.
func (n *node) clean() bool {
	return n.parent != nil && !n.gone && n.opens == 0 && n.staged == nil && !n.timesSet &&
		len(n.children) == 0 && len(n.masked) == 0 && n.home()
}

// charge counts c entries for n, instead of what it counted before.
func (t *Tx) charge(n *node, c int) error {
	if c > n.charged && n.of.entries+c-n.charged > n.of.limits.Entries {
		return fmt.Errorf("more than %d names changed in one transaction: %w", n.of.limits.Entries, store.ErrQuota)
	}
	n.of.entries += c - n.charged
	n.charged = c
	n.of.used.Entries = max(n.of.used.Entries, n.of.entries)
	return nil
}

// chargeTarget counts what something that moves to a place there replaces.
func (t *Tx) chargeTarget(there spot) error {
	if err := t.keep(there.dir); err != nil {
		return err
	}
	if there.node == nil {
		return nil
	}
	if err := t.keep(there.node); err != nil {
		return err
	}
	return t.charge(there.node, max(there.node.charged, 1))
}

// grow counts bytes for n's staged content, before it becomes size.
func (t *Tx) grow(n *node, size int64) error {
	if size > n.of.limits.FileSize {
		return fmt.Errorf("over %d bytes: %w", n.of.limits.FileSize, store.ErrTooBig)
	}
	var was int64
	if n.staged != nil {
		was = n.size
	}
	if size > was && n.of.staged+size-was > n.of.limits.StagedBytes {
		return fmt.Errorf("more than %d bytes written in one transaction: %w", n.of.limits.StagedBytes, store.ErrQuota)
	}
	if err := t.room(size-n.weight, 0); err != nil {
		return err
	}
	n.of.staged += size - was
	n.of.used.Bytes = max(n.of.used.Bytes, n.of.staged)
	t.weigh(n, size)
	return nil
}

// weightOf is what an entry of the lower state has of the context's bytes.
func weightOf(a Attr) int64 {
	if a.Kind != store.KindFile {
		return 0
	}
	return a.Size
}

// create adds a new node.
func (t *Tx) create(d *node, name string, kind store.Kind) (*node, error) {
	if len(childPath(d, name)) > maxPath {
		return nil, store.ErrNameTooLong
	}
	if err := t.keep(d); err != nil {
		return nil, err
	}
	if t.kept >= t.s.limits.nodes {
		return nil, store.ErrQuota
	}
	now := t.s.now()
	t.made++
	n := &node{
		parent: d, name: name, kind: kind, atime: now, mtime: now, ctime: now,
		ino: inodeOf('n', fmt.Sprint(t.made)), of: t.account(d, name),
	}
	if err := t.room(0, 1); err != nil {
		return nil, err
	}
	if err := t.charge(n, 1); err != nil {
		return nil, err
	}
	t.delta.Entries++
	t.attach(n)
	d.mtime, d.ctime = now, now
	return n, nil
}

// detach takes a kept node out of its directory.
func (t *Tx) detach(n *node) {
	d := n.parent
	delete(d.children, n.name)
	n.kept = false
	t.kept--
	if n.home() {
		if d.masked == nil {
			d.masked = map[string]*node{}
		}
		d.masked[n.name] = n
	}
	now := t.s.now()
	d.mtime, d.ctime = now, now
}

// remove takes a node out for good. The caller has charged for it.
func (t *Tx) remove(n *node) {
	t.detach(n)
	n.gone = true
	t.release(n)
}

// release frees what a removed file holds once nobody has it open. A mask of a
// lower name stays charged, a file that only the transaction knew does not.
func (t *Tx) release(n *node) {
	if !n.gone || n.opens > 0 {
		return
	}
	t.leave(n)
	if n.staged != nil {
		n.of.staged -= n.size
		n.staged.Discard()
		n.staged = nil
	}
	if n.origin == "" {
		n.of.entries -= n.charged
		n.charged = 0
	}
}

// place puts a detached node where it belongs from now on.
func (t *Tx) place(n, d *node, name string) {
	n.parent, n.name = d, name
	t.attach(n)
	if n.home() && d.masked[name] == n {
		delete(d.masked, name)
	}
	now := t.s.now()
	n.ctime, d.mtime, d.ctime = now, now, now
}

// list merges a directory's names, in no order. A node that is not loaded has a
// nil node.
func (t *Tx) list(d *node, limit int, visit func(name string, kind store.Kind, n *node) error) error {
	if d.origin != "" && !d.gone {
		if err := t.listLower(d.origin, limit, func(e Name) error {
			if _, masked := d.masked[e.Name]; masked || d.children[e.Name] != nil {
				return nil
			}
			return visit(e.Name, e.Kind, nil)
		}); err != nil {
			return err
		}
	}
	for name, n := range d.children {
		if err := visit(name, n.kind, n); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) listLower(origin string, limit int, visit func(Name) error) error {
	names, err := t.lower.ReadDir(origin, limit+1)
	if err != nil {
		return err
	}
	if len(names) > limit {
		return fmt.Errorf("directory of more than %d names: %w", limit, store.ErrQuota)
	}
	for _, e := range names {
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}

// empty reports whether a directory shows no names. Names that a guest cannot
// spell, or may not see, count: removing them unseen would destroy them.
func (t *Tx) empty(d *node) (bool, error) {
	if len(d.children) > 0 {
		return false, nil
	}
	if d.origin == "" {
		return true, nil
	}
	names, err := t.lower.ReadDir(d.origin, len(d.masked)+1)
	if err != nil {
		return false, err
	}
	for _, e := range names {
		if _, masked := d.masked[e.Name]; !masked {
			return false, nil
		}
	}
	return true, nil
}

// below visits everything under a directory, loaded (n) or not (only origin),
// a directory before what it holds. rel starts with "/".
func (t *Tx) below(n *node, origin, rel string, visit func(rel string, kind store.Kind, n *node, origin string) error) error {
	if err := t.ctx.Err(); err != nil {
		return context.Cause(t.ctx)
	}
	each := func(name string, kind store.Kind, c *node) error {
		var from string
		switch {
		case c != nil:
			from = c.origin
		case n != nil:
			from = join(n.origin, name)
		default:
			from = join(origin, name)
		}
		to := rel + "/" + name
		if err := visit(to, kind, c, from); err != nil {
			return err
		}
		if kind == store.KindDir {
			return t.below(c, from, to, visit)
		}
		return nil
	}
	if n != nil {
		return t.list(n, t.s.limits.Listed, each)
	}
	return t.listLower(origin, t.s.limits.Listed, func(e Name) error { return each(e.Name, e.Kind, nil) })
}

func (t *Tx) readlink(n *node) (string, error) {
	if n.origin == "" {
		return n.target, nil
	}
	return t.lower.Readlink(n.origin)
}

// open takes a reference to a file's content.
func (t *Tx) open(n *node) error {
	if n.staged == nil && n.lower == nil {
		f, err := t.lower.Open(n.origin)
		if err != nil {
			return err
		}
		n.lower = f
		// Believe the open file rather than the name: it is what will be read
		// and, if it is written, what must not have changed until commit.
		a := f.Attr()
		n.attr, n.size, n.weight = a, a.Size, a.Size
		if !n.timesSet {
			n.atime, n.mtime, n.ctime = a.Atime, a.Mtime, a.Ctime
		}
	}
	n.opens++
	return nil
}

func (t *Tx) close(n *node) {
	n.opens--
	if n.opens > 0 {
		return
	}
	if n.lower != nil {
		n.lower.Close()
		n.lower = nil
	}
	if n.gone {
		t.release(n)
		return
	}
	if n.staged != nil {
		n.staged.Idle()
	}
	t.forget(n)
}

// copyUp stages the first size bytes of an open file, so that it can be written.
func (t *Tx) copyUp(n *node, size int64) error {
	if n.staged != nil {
		return nil
	}
	if !n.gone {
		if err := t.keep(n); err != nil {
			return err
		}
	}
	if err := t.charge(n, max(n.charged, 1)); err != nil {
		return err
	}
	if err := t.grow(n, size); err != nil {
		return err
	}
	st, err := t.s.backend.Stage(t.ctx, n.lower, size)
	if err != nil {
		n.of.staged -= size
		t.weigh(n, n.size)
		return err
	}
	n.staged, n.size, n.intact = st, size, size
	n.gen++
	if n.lower != nil {
		n.lower.Close()
		n.lower = nil
	}
	return nil
}

func (t *Tx) touch(n *node) {
	now := t.s.now()
	n.mtime, n.ctime = now, now
	n.gen++
}
