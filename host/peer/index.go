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
	"sync/atomic"
	"time"
)

// index finds the petname of an id among the peers that are held, without
// looking at all of them:
//
//	<root>/cache/peers/<id, without did:key:>   a symbolic link to the petname
//	<root>/cache/peers/complete                 what peers/ was like when all was in it
//
// It follows from <root>/peers, and is made anew when that has changed by other
// hands than ours, or when it is deleted. Nothing is taken from it on trust: who
// is found is who their own peer.toml says.
//
// Where several directories say that they are the context of one id, the link
// names them all, with slashes between: nothing says which of them is the copy,
// and to write on in the wrong one would part the peer's data in two.
type index struct {
	peers string
	links string

	// inMemory stands in for the links where they cannot be written.
	inMemory atomic.Pointer[map[ID][]Name]

	// Guarded by Directory.mu:
	broken  map[Name]error
	doubles map[ID][]Name
}

func (x *index) open(root string) {
	x.peers, x.links = filepath.Join(root, peersDir), filepath.Join(root, "cache", "peers")
}

func (x *index) completeFile() string { return filepath.Join(x.links, "complete") }

// link is where the petname of id stands; "" if that can be no id.
func (x *index) link(id ID) string {
	const longest = 64
	key := strings.TrimPrefix(string(id), "did:key:")
	if len(key) == len(id) || len(key) > longest || strings.Trim(key, "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz") != "" {
		return "" // it may be anything that a stranger wrote
	}
	return filepath.Join(x.links, key)
}

// gone reports whether somebody deleted it.
func (x *index) gone() bool { return x.inMemory.Load() == nil && !isThere(x.completeFile()) }

// taken says why nobody can be added under id although none is served.
func (x *index) taken(id ID) error {
	if names := x.names(id); len(names) > 1 {
		return fmt.Errorf("%s and %s are both of %s: remove one of the two first", filepath.Join(x.peers, string(names[0])), filepath.Join(x.peers, string(names[1])), id)
	}
	return nil
}

// names are the directories of id.
func (x *index) names(id ID) []Name {
	if m := x.inMemory.Load(); m != nil {
		return (*m)[id]
	}
	link := x.link(id)
	if link == "" {
		return nil
	}
	target, err := os.Readlink(link)
	if err != nil {
		return nil
	}
	var names []Name
	for name := range strings.SplitSeq(target, "/") {
		names = append(names, Name(name))
	}
	return names
}

// put makes the link of id; without names it removes it.
func (x *index) put(id ID, names []Name) error {
	link := x.link(id)
	if link == "" {
		return fmt.Errorf("no id: %q", id)
	}
	if len(names) == 0 {
		if err := os.Remove(link); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if slices.Equal(x.names(id), names) {
		return nil
	}
	var target strings.Builder
	for i, name := range names {
		if i > 0 {
			target.WriteByte('/')
		}
		target.WriteString(string(name))
	}
	if err := os.Symlink(target.String(), link); !errors.Is(err, fs.ErrExist) {
		return err
	}
	making := fmt.Sprintf("%s.new-%d-%d", link, os.Getpid(), time.Now().UnixNano())
	if err := os.Symlink(target.String(), making); err != nil {
		return err
	}
	if err := os.Rename(making, link); err != nil {
		return errors.Join(err, os.Remove(making))
	}
	return nil
}

// complete reports whether the index holds all that peers/ does, which now is the
// stamp of.
func (x *index) complete(now stamp) bool {
	text, err := readConfig(x.completeFile())
	if err != nil || x.inMemory.Load() != nil {
		return false
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	// One that was made at a time that a later change may have too is good for
	// as long as nobody could know better, and then looked at again.
	if first != now.text(false) && (first != now.text(true) || time.Since(now.mtime) >= granularity) {
		return false
	}
	broken := map[Name]error{}
	doubles := map[ID][]Name{}
	for line := range strings.Lines(rest) {
		kind, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch kind {
		case "broken":
			name := Name(what)
			if _, known := x.broken[name]; known {
				broken[name] = x.broken[name]
			} else if _, err := readIdentity(x.peers, what); err != nil {
				broken[name] = err
			} else {
				return false
			}
		case "several":
			doubles[ID(what)] = x.names(ID(what))
		}
	}
	x.broken, x.doubles = broken, doubles
	return true
}

func (s stamp) text(fresh bool) string {
	return fmt.Sprintf("circles peers v1 %d %d %t", s.mtime.UnixNano(), s.size, fresh)
}

// settle notes that the index is complete, for peers/ as it was at a stamp.
func (x *index) settle(at stamp) error {
	var text strings.Builder
	text.WriteString(at.text(at.fresh) + "\n")
	for _, name := range sorted(x.broken) {
		if strings.ContainsRune(string(name), '\n') {
			continue // is found again, at the next scan
		}
		fmt.Fprintf(&text, "broken %s\n", name)
	}
	for _, id := range slices.Sorted(maps.Keys(x.doubles)) {
		fmt.Fprintf(&text, "several %s\n", id)
	}
	// Not synced: one that a crash took, or left half, is made again.
	making := fmt.Sprintf("%s.new-%d-%d", x.completeFile(), os.Getpid(), time.Now().UnixNano())
	if err := os.WriteFile(making, []byte(text.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(making, x.completeFile())
}

// recheck looks again at what was broken, which may be mended without a change
// of peers/, and reports whether anything is different.
func (x *index) recheck(scan func() error) (changed bool, err error) {
	for name, before := range x.broken {
		id, err := readIdentity(x.peers, string(name))
		switch {
		case err == nil:
			if err := scan(); err != nil {
				return false, fmt.Errorf("take in %s: %w", id, err)
			}
			return true, nil
		case err.Error() != before.Error():
			x.broken[name], changed = err, true
		}
	}
	return changed, nil
}

// scan makes the index of all that is in peers/, of which at is the stamp from
// before.
func (x *index) scan(at stamp) error {
	there, err := os.ReadDir(x.peers)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ids := map[ID][]Name{}
	x.broken, x.doubles = map[Name]error{}, map[ID][]Name{}
	for _, f := range there {
		// Hidden names are ours: a peer that is being made or was removed.
		if strings.HasPrefix(f.Name(), ".") || f.Type().IsRegular() {
			continue
		}
		id, err := readIdentity(x.peers, f.Name())
		switch {
		case err == nil:
			ids[id] = append(ids[id], Name(f.Name())) // in order, as ReadDir is
		case isThere(filepath.Join(x.peers, f.Name())): // else it was removed meanwhile
			x.broken[Name(f.Name())] = err
		}
	}
	for id, names := range ids {
		if len(names) > 1 {
			x.doubles[id] = names
		}
	}
	if err := x.write(ids, at); err != nil {
		x.inMemory.Store(&ids)
	} else {
		x.inMemory.Store(nil)
	}
	return nil
}

func (x *index) write(ids map[ID][]Name, at stamp) error {
	if err := os.MkdirAll(x.links, 0o700); err != nil {
		return err
	}
	// Links of those who have left, and what a crash left.
	there, err := os.ReadDir(x.links)
	if err != nil {
		return err
	}
	for _, f := range there {
		if _, ok := ids[ID("did:key:"+f.Name())]; ok || f.Name() == filepath.Base(x.completeFile()) {
			continue
		}
		if err := os.Remove(filepath.Join(x.links, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	x.inMemory.Store(nil) // or put would compare with that
	for id, names := range ids {
		if err := x.put(id, names); err != nil {
			return err
		}
	}
	return x.settle(at)
}

// problems says what keeps peers from being served.
func (x *index) problems() (all []error) {
	for _, id := range slices.Sorted(maps.Keys(x.doubles)) {
		names := x.doubles[id]
		for _, other := range names[1:] {
			all = append(all, fmt.Errorf("%s and %s are both of %s: remove or rename one of the two (a leading dot takes it out of use)",
				filepath.Join(x.peers, string(names[0])), filepath.Join(x.peers, string(other)), id))
		}
	}
	for _, name := range sorted(x.broken) {
		all = append(all, fmt.Errorf("peer %q is not served: %w", name, x.broken[name]))
	}
	return all
}

// troubles reports whether a directory of that name is there and not served.
func (x *index) troubles(name Name) bool {
	if _, broken := x.broken[name]; broken {
		return true
	}
	for _, names := range x.doubles {
		if slices.Contains(names, name) {
			return true
		}
	}
	return false
}

// edit is what a change of ours does to peers/.
type edit struct {
	id    ID
	name  Name
	leave bool
}

// apply takes an edit of ours into an index that was complete before it.
func (x *index) apply(e edit, after stamp) error {
	var names []Name
	if !e.leave {
		names = []Name{e.name}
	}
	if err := os.MkdirAll(x.links, 0o700); err != nil {
		return err
	}
	if err := x.put(e.id, names); err != nil {
		return err
	}
	return x.settle(after)
}
