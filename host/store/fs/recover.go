//go:build linux || darwin || freebsd

package fs

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// recover finishes or forgets what a crash interrupted.
func (b *backend) recover(c Config) error {
	ref, ok, err := readReference(b.txPath)
	if err != nil {
		return err
	}
	found := &claim{}
	if ok {
		if found, err = b.look(ref); err != nil {
			return err
		}
		defer found.release()
	}
	var logged *record // the first that has entries
	mount := mountID(b.lower.under.root())
	for _, r := range found.records {
		r.rebase(b.lower.dev)
		r.applied = r.applied && r.mount == mount && mount != 0
		if len(r.entries) > 0 && logged == nil {
			logged = r
		}
	}
	if b.log, err = openLog(b.logDir, c.Log, c.LogSegment, logged, b.disk); err != nil {
		return err
	}
	if len(found.records) > 0 {
		if err := b.redo(found.records); err != nil {
			return fmt.Errorf("finish interrupted commit: %w", err)
		}
	}
	if ok {
		if err := b.unrefer(); err != nil {
			return fmt.Errorf("forget finished commits: %w", err)
		}
		if err := b.at("forgotten"); err != nil {
			return err
		}
		found.drop(b)
	}
	for _, dir := range []int{b.stage, b.names} {
		if err := sweep(dir, b.disk); err != nil {
			return err
		}
	}
	return nil
}

// redo does again what records say, of which any part may have reached the disk,
// and makes it durable.
func (b *backend) redo(records []*record) error {
	again := slices.DeleteFunc(slices.Clone(records), func(r *record) bool { return r.applied && !b.hooks.reboot })
	switch {
	case len(again) == 0:
	case again[0].alone(): // and then there is no other
		if err := b.apply(again[0].ops, true); err != nil {
			return err
		}
	default:
		if err := newOutcome(b, again).bring(); err != nil {
			return err
		}
	}
	if err := b.at("redone"); err != nil {
		return err
	}
	for _, r := range records {
		if err := b.log.again(r.entries); err != nil {
			return err
		}
	}
	if err := b.log.sync(); err != nil {
		return fmt.Errorf("make log durable: %w", err)
	}
	// What was done before is not done again, so nothing says whether it is
	// durable. This is rare, so everything may be made so.
	if err := b.disk.syncAll(b.lower.under.root()); err != nil {
		return fmt.Errorf("make commit durable: %w", err)
	}
	return b.at("redone durably")
}

// outcome is what records amount to, path by path. Directories do not move in
// them (see op.alone), so a path says the same place in all of them, and only what
// is there in the end counts.
type outcome struct {
	b       *backend
	paths   map[string]*result
	objects map[[2]uint64][]*object // by device and inode number, as far as they are known
	made    int
}

// object is a file or link that a path has, or had in between.
type object struct {
	id       [2]uint64 // zero if it is not known
	nth      int       // of those that had this number, one after the other
	versions []overlay.Attr
	put      *op // that made it
	link     *op // that made it; with neither, it was there before
	slots    []string
	at       string // its path in the end; "" if it is nowhere
}

// result is what a path has in the end.
type result struct {
	decided bool // else only times are set
	obj     *object
	dir     bool // else, without an object, there is nothing
	was     []overlay.Attr
	times   *op
}

func newOutcome(b *backend, records []*record) *outcome {
	out := &outcome{b: b, paths: map[string]*result{}, objects: map[[2]uint64][]*object{}}
	for _, r := range records {
		slots := map[string]*object{}
		for i := range r.ops {
			out.add(&r.ops[i], slots)
		}
	}
	return out
}

// existing is the object that a path had, as a transaction saw it. Numbers are used
// again, by the file system, for a file that is made when another was removed.
func (out *outcome) existing(r *result, path string, was overlay.Attr) *object {
	if was.Kind == store.KindLink && r.obj != nil && r.obj.link != nil && r.obj.id == [2]uint64{} {
		out.number(r.obj, was.Version.ID) // it was made by one of the records, and not known then
	}
	var obj *object
	if all := out.objects[was.Version.ID]; len(all) > 0 {
		if last := all[len(all)-1]; last.at == path || last.was(was) {
			obj = last
		}
	}
	if obj == nil {
		obj = &object{}
		out.number(obj, was.Version.ID)
	}
	obj.versions = append(obj.versions, was)
	return obj
}

func (out *outcome) number(obj *object, id [2]uint64) {
	obj.id, obj.nth = id, len(out.objects[id])
	out.objects[id] = append(out.objects[id], obj)
}

// known is the object that an entry is: the one that was left so, or else the last
// that had its number, if that is anywhere in the end.
func (out *outcome) known(there overlay.Attr) *object {
	all := out.objects[there.Version.ID]
	for _, obj := range slices.Backward(all) {
		if obj.was(there) {
			return obj
		}
	}
	if len(all) > 0 && all[len(all)-1].at != "" {
		return all[len(all)-1]
	}
	return nil
}

func (r *result) set(p string, obj *object) {
	if r.obj != nil && r.obj.at == p {
		r.obj.at = ""
	}
	r.decided, r.obj, r.dir, r.times = true, obj, false, nil
	if obj != nil {
		obj.at = p
	}
}

func (out *outcome) add(o *op, slots map[string]*object) {
	r := out.paths[o.path]
	if r == nil {
		r = &result{}
		out.paths[o.path] = r
	}
	var was *object
	switch {
	case o.was.Kind == store.KindDir:
		r.was = append(r.was, o.was)
	case o.was.Kind != 0:
		was = out.existing(r, o.path, o.was)
	}
	switch o.kind {
	case overlay.StepRemove:
		r.set(o.path, nil)
	case overlay.StepOut:
		r.set(o.path, nil)
		if was != nil {
			was.slots = append(was.slots, o.slot)
			slots[o.slot] = was
		}
	case overlay.StepIn:
		if obj := slots[o.slot]; obj != nil {
			r.set(o.path, obj)
		}
	case overlay.StepMkdir:
		r.set(o.path, nil)
		r.dir = true
	case overlay.StepPut:
		obj := &object{put: o, slots: []string{o.slot}}
		obj.versions = []overlay.Attr{{Kind: store.KindFile, Size: o.made.Size, Version: o.made}}
		out.number(obj, o.made.ID)
		r.set(o.path, obj)
	case overlay.StepSymlink:
		r.set(o.path, &object{link: o, slots: []string{o.slot}})
	case overlay.StepTimes:
		r.times = o
		if r.obj != nil && len(r.obj.versions) > 0 {
			v := r.obj.versions[len(r.obj.versions)-1]
			v.Version.Mtime = o.mtime.UnixNano()
			r.obj.versions = append(r.obj.versions, v)
		}
	}
}

// bring makes the directory so. What is in the way and is none of what the records
// know is the owner's, who made or changed it since: it is kept beside.
func (out *outcome) bring() error {
	paths := slices.SortedFunc(maps.Keys(out.paths), comparePaths)
	// What is known, and not where it belongs, leaves: what will be somewhere else
	// goes to the staging directory, the rest is removed. The deepest first, so
	// that directories are empty.
	for _, p := range slices.Backward(paths) {
		if err := out.visit(p, false, out.clear); err != nil {
			return err
		}
	}
	for _, p := range paths {
		r := out.paths[p]
		if err := out.visit(p, r.obj != nil || r.dir, out.place); err != nil {
			return err
		}
	}
	for _, p := range paths {
		if err := out.visit(p, false, out.setTimes); err != nil {
			return err
		}
	}
	return nil
}

// comparePaths orders a directory before what it holds.
func comparePaths(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}

// visit calls do in the directory of a path. If that is not there any more, there
// is nothing to do, unless something must come to it.
func (out *outcome) visit(p string, must bool, do func(c *cursor, name string, r *result) error) error {
	c := &cursor{b: out.b, fd: -1}
	dir, name := split(p)
	if p == "." {
		name = "."
	}
	err := c.to(dir)
	if err != nil && (must || !gone(err)) {
		return fmt.Errorf("apply commit to /%s: %w", p, errNoDirectory(err))
	}
	if err != nil {
		return nil
	}
	err = do(c, name, out.paths[p])
	c.dirty = false // redo makes everything durable
	_ = c.leave()
	if err == nil {
		err = out.b.at("step")
	}
	if err != nil {
		return fmt.Errorf("apply commit to /%s: %w", p, err)
	}
	return nil
}

func (out *outcome) clear(c *cursor, name string, r *result) error {
	st, err := lstatat(c.fd, name)
	if err == unix.ENOENT || err == nil && !r.decided {
		return nil
	}
	if err != nil {
		return err
	}
	there := attrOf(&st)
	if there.Kind == store.KindDir {
		if r.dir || !slices.ContainsFunc(r.was, func(was overlay.Attr) bool { return there.Version.ID == was.Version.ID }) {
			return nil
		}
		if err := out.b.disk.rmdir(c.fd, name); err != unix.ENOTEMPTY && err != unix.EEXIST {
			return err
		}
		return nil // the owner has put something in: the directory stays
	}
	obj := out.known(there)
	switch {
	case obj == nil || obj == r.obj:
		return nil
	case obj.at != "":
		return out.b.disk.rename(c.fd, name, out.b.stage, obj.aside())
	case !obj.was(there):
		return nil // something newer, which is not ours to remove
	}
	return out.b.disk.unlink(c.fd, name)
}

// aside is the object's name in the staging directory while it is on its way, in
// this recovery or one that was interrupted.
func (obj *object) aside() string { return fmt.Sprintf("r%x-%x-%d", obj.id[0], obj.id[1], obj.nth) }

// was reports whether an entry is one of the object's versions. One that a record
// made may be shorter than it should be, with some of its content missing, after a
// crash: its times were set before it had its name. One that was another file before
// may be as long as that was.
func (obj *object) was(there overlay.Attr) bool {
	return slices.ContainsFunc(obj.versions, func(v overlay.Attr) bool {
		return v.Kind == there.Kind && v.Version.ID == there.Version.ID && v.Version.Mtime == there.Version.Mtime &&
			(v.Version.Size == there.Version.Size || obj.put != nil && (obj.put.isInline || there.Version.Size < v.Version.Size))
	})
}

func (out *outcome) place(c *cursor, name string, r *result) error {
	if r.dir {
		return out.b.mkdir(c, name)
	}
	if r.obj == nil {
		return nil
	}
	obj := r.obj
	st, err := lstatat(c.fd, name)
	if err != nil && err != unix.ENOENT {
		return err
	}
	taken := err == nil
	if taken {
		there := attrOf(&st)
		if ours, err := out.isThere(c, name, obj, there); ours || err != nil {
			return err
		}
		// What is of ours, and may have lost content, is replaced.
		taken = out.known(there) != obj || !obj.was(there)
	}
	slot, err := out.source(obj)
	if err != nil || slot == "" {
		return err // it was there, and the owner has removed it
	}
	if taken {
		if err := out.b.setAside(c, name); err != nil {
			return err
		}
	}
	return out.b.disk.rename(out.b.stage, slot, c.fd, name)
}

// isThere reports whether an entry is all that it should be. What the journal has
// the content of is compared with it, and not believed when it has the right
// inode number: that it reads well may be the cache's doing, after the disk
// refused it.
func (out *outcome) isThere(c *cursor, name string, obj *object, there overlay.Attr) (bool, error) {
	same := out.known(there) == obj
	switch {
	case obj.link != nil:
		if there.Kind != store.KindLink {
			return false, nil
		}
		target, err := readlinkat(c.fd, name)
		return target == obj.link.target, err
	case obj.put == nil || !obj.put.isInline:
		return same, nil
	case same || there.Kind != store.KindFile || there.Size != int64(len(obj.put.content)):
		return false, nil
	}
	// One that an interrupted recovery made has another number.
	if !slices.ContainsFunc(obj.versions, func(v overlay.Attr) bool { return v.Version.Mtime == there.Version.Mtime }) {
		return false, nil
	}
	f, err := openWritable(c.fd, name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	have := make([]byte, there.Size)
	if _, err := f.ReadAt(have, 0); err != nil && there.Size > 0 {
		return false, err
	}
	return string(have) == string(obj.put.content), nil
}

// source finds an object in the staging directory, or makes it there. "" means
// that it is not there, and cannot be made.
func (out *outcome) source(obj *object) (string, error) {
	b := out.b
	if obj.put != nil && obj.put.isInline {
		return out.write(obj.put)
	}
	for _, slot := range append([]string{obj.aside()}, obj.slots...) {
		st, err := lstatat(b.stage, slot)
		if err == nil && (obj.id == [2]uint64{} || attrOf(&st).Version.ID == obj.id) {
			return slot, nil
		}
		if err != nil && err != unix.ENOENT {
			return "", err
		}
	}
	if obj.link == nil {
		return "", nil
	}
	slot := out.name()
	return slot, b.disk.symlink(obj.link.target, b.stage, slot)
}

func (out *outcome) name() string {
	out.made++
	return fmt.Sprintf("w%x-%d", out.b.nonce, out.made)
}

// write makes a file of what the journal has of it. It is durable before it gets
// its name, so that what has the name and the times is whole.
func (out *outcome) write(o *op) (string, error) {
	b, slot := out.b, out.name()
	f, err := b.disk.create(b.stage, slot, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := b.disk.write(f, o.content, 0); err != nil {
		return "", err
	}
	fd := int(f.Fd())
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, int(o.uid), int(o.gid)); err != nil {
			return "", err
		}
	}
	if err := unix.Fchmod(fd, o.mode); err != nil {
		return "", err
	}
	if err := setTimes(b.stage, slot, o.atime, o.mtime); err != nil {
		return "", err
	}
	return slot, b.disk.sync(fd)
}

func (out *outcome) setTimes(c *cursor, name string, r *result) error {
	if r.times == nil {
		return nil
	}
	err := setTimes(c.fd, name, r.times.atime, r.times.mtime)
	if err == unix.ENOENT {
		return nil
	}
	return err
}
