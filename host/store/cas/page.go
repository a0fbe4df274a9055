package cas

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
)

const (
	pageSize   = 32 << 10        // of an encoded page, at most; it is written whole when an entry of it changes
	pageSmall  = pageSize / 4    // one that gets smaller is joined with its neighbour
	maxKey     = 1 + 8 + 255     // a name in a directory
	maxValue   = 6 << 10         // a link's target, a chunk with all that it may hold inline
	maxLevel   = 10              // a tree of that height, of pages that are a quarter full, has 10¹⁶ entries
	pageHeader = 1 + 1 + 2       //
	pageMagic  = byte('P' | 128) // no text file begins so
	maxEntries = pageSize / 8
)

// page is a node of a tree: entries in the order of their keys, each key once. In a
// leaf (level 0) a value is what is kept; above, it is the BlobID of a page one level
// down, whose first key is the entry's.
//
// Encoded: magic 1, level 1, number of entries 2; of each the length of its key 2 and
// of its value 2, then both.
type page struct {
	level   int
	entries []entry
	size    int // encoded
}

type entry struct{ key, val []byte }

func (e entry) size() int { return 4 + len(e.key) + len(e.val) }

func newPage(level int, entries []entry) *page {
	p := &page{level: level, entries: entries, size: pageHeader}
	for _, e := range entries {
		p.size += e.size()
	}
	return p
}

func (p *page) encode() []byte {
	b := make([]byte, 0, p.size)
	b = append(b, pageMagic, byte(p.level))
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.entries)))
	return appendEntries(b, p.entries)
}

func appendEntries(b []byte, entries []entry) []byte {
	for _, e := range entries {
		b = binary.BigEndian.AppendUint16(b, uint16(len(e.key)))
		b = binary.BigEndian.AppendUint16(b, uint16(len(e.val)))
		b = append(append(b, e.key...), e.val...)
	}
	return b
}

// decodePage decodes what encode wrote, and nothing else. The page shares b.
func decodePage(b []byte) (*page, error) {
	p := &page{size: len(b)}
	d := decoder{b: b}
	magic, level, n := d.u8(), d.u8(), d.u16()
	p.level = int(level)
	if len(b) > pageSize || magic != pageMagic || p.level > maxLevel || n == 0 || n > maxEntries || n*4 > len(b) {
		return nil, errMalformed
	}
	p.entries = make([]entry, n)
	for i := range p.entries {
		k, v := d.u16(), d.u16()
		e := entry{d.take(k), d.take(v)}
		if d.bad || k == 0 || k > maxKey || v > maxValue || i > 0 && bytes.Compare(p.entries[i-1].key, e.key) >= 0 ||
			p.level > 0 && v != idSize {
			return nil, errMalformed
		}
		p.entries[i] = e
	}
	return p, d.end()
}

// child is the page that an entry above the leaves names.
func (p *page) child(i int) ref {
	d := decoder{b: p.entries[i].val}
	return ref{d.id(), p.level - 1}
}

// find returns where key is, or would be.
func find(entries []entry, key []byte) (int, bool) {
	return slices.BinarySearchFunc(entries, key, func(e entry, key []byte) int { return bytes.Compare(e.key, key) })
}

// ref names a page. A level below 0 is that of an empty tree.
type ref struct {
	id    BlobID
	level int
}

var noPage = ref{level: -1}

// pages is where a tree's pages come from: verified against their digests.
type pages interface {
	page(ctx context.Context, id BlobID) (*page, error)
}

// load gets a page that must begin with lo and end before hi; nil bounds nothing.
// With that no page can be in a tree twice, so that a tree made up by an enemy is no
// larger than what the enemy stores.
func load(ctx context.Context, from pages, r ref, lo, hi []byte) (*page, error) {
	p, err := from.page(ctx, r.id)
	if err != nil {
		return nil, err
	}
	if p.level != r.level || lo != nil && !bytes.Equal(p.entries[0].key, lo) ||
		hi != nil && bytes.Compare(p.entries[len(p.entries)-1].key, hi) >= 0 {
		return nil, &DamageError{What: "blob " + r.id.String(), Err: fmt.Errorf("a page in the wrong place: %w", errMalformed)}
	}
	return p, nil
}

// bounds are those of child i of p, which itself ends before hi.
func (p *page) bounds(i int, hi []byte) (lo, below []byte) {
	if i+1 < len(p.entries) {
		hi = p.entries[i+1].key
	}
	return p.entries[i].key, hi
}

// lookup finds a key in the tree under r; nil if it is not there.
func lookup(ctx context.Context, from pages, r ref, key []byte) ([]byte, error) {
	var lo, hi []byte
	for r.level >= 0 {
		p, err := load(ctx, from, r, lo, hi)
		if err != nil {
			return nil, err
		}
		i, ok := find(p.entries, key)
		if p.level == 0 {
			if !ok {
				return nil, nil
			}
			return p.entries[i].val, nil
		}
		if !ok {
			i--
		}
		if i < 0 {
			return nil, nil
		}
		lo, hi = p.bounds(i, hi)
		r = p.child(i)
	}
	return nil, nil
}

// walk visits the entries of the tree under r from key first on, in order, until
// visit returns false. visited, which may be nil, is told of every page.
func walk(ctx context.Context, from pages, r ref, first []byte, visited func(BlobID), visit func(entry) (bool, error)) error {
	if r.level < 0 {
		return nil
	}
	_, err := walkPage(ctx, from, r, nil, nil, first, visited, visit)
	return err
}

func walkPage(ctx context.Context, from pages, r ref, lo, hi, first []byte, visited func(BlobID), visit func(entry) (bool, error)) (bool, error) {
	p, err := load(ctx, from, r, lo, hi)
	if err != nil {
		return false, err
	}
	if visited != nil {
		visited(r.id)
	}
	i, ok := find(p.entries, first)
	if p.level > 0 && !ok && i > 0 {
		i--
	}
	for ; i < len(p.entries); i++ {
		var more bool
		if p.level == 0 {
			more, err = visit(p.entries[i])
		} else {
			lo, below := p.bounds(i, hi)
			more, err = walkPage(ctx, from, p.child(i), lo, below, first, visited, visit)
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// pageWriter makes pages; those under way are found in it.
type pageWriter interface {
	pages
	write(data []byte) BlobID
}

// update applies changes, sorted by their keys, to the tree under r: a nil value
// removes. Only the pages on the way to a change are written anew.
func update(ctx context.Context, w pageWriter, r ref, changes []entry) (ref, error) {
	if len(changes) == 0 {
		return r, nil
	}
	var made []*page
	var err error
	if r.level < 0 {
		made = split(0, merge(nil, changes, true))
	} else if made, err = updatePage(ctx, w, r, nil, nil, changes); err != nil {
		return ref{}, err
	}
	for len(made) > 1 {
		above := make([]entry, len(made))
		for i, p := range made {
			above[i] = entry{p.entries[0].key, appendID(nil, w.write(p.encode()))}
		}
		if made[0].level == maxLevel {
			return ref{}, fmt.Errorf("a tree of more than %d levels", maxLevel)
		}
		made = split(made[0].level+1, above)
	}
	if len(made) == 0 {
		return noPage, nil
	}
	top := made[0]
	for top.level > 0 && len(top.entries) == 1 {
		r := top.child(0)
		if top, err = load(ctx, w, r, top.entries[0].key, nil); err != nil {
			return ref{}, err
		}
		if top.level == 0 || len(top.entries) > 1 {
			return r, nil
		}
	}
	return ref{w.write(top.encode()), top.level}, nil
}

// updatePage returns the pages, not yet written, that take the place of one.
func updatePage(ctx context.Context, w pageWriter, r ref, lo, hi []byte, changes []entry) ([]*page, error) {
	p, err := load(ctx, w, r, lo, hi)
	if err != nil {
		return nil, err
	}
	if p.level == 0 {
		return split(0, merge(p.entries, changes, true)), nil
	}
	// What is below p, partly as it was (an entry), partly anew (a page).
	type part struct {
		entry entry
		page  *page
	}
	var parts []part
	for i := range p.entries {
		lo, below := p.bounds(i, hi)
		n := len(changes)
		if i+1 < len(p.entries) {
			n = sort.Search(n, func(k int) bool { return bytes.Compare(changes[k].key, p.entries[i+1].key) >= 0 })
		}
		if n == 0 {
			parts = append(parts, part{entry: p.entries[i]})
			continue
		}
		made, err := updatePage(ctx, w, p.child(i), lo, below, changes[:n])
		if err != nil {
			return nil, err
		}
		changes = changes[n:]
		for _, m := range made {
			parts = append(parts, part{page: m})
		}
	}
	// A page that has become small takes in its neighbour. The neighbours' bounds are
	// not checked here again: decoding and joining them keeps the order, or fails.
	for i := 0; i < len(parts); i++ {
		if parts[i].page == nil || parts[i].page.size >= pageSmall || len(parts) == 1 {
			continue
		}
		k := max(i-1, 0) // joins parts k and k+1
		var entries []entry
		for _, q := range parts[k : k+2] {
			if q.page == nil {
				id := (&decoder{b: q.entry.val}).id()
				if q.page, err = load(ctx, w, ref{id, p.level - 1}, q.entry.key, nil); err != nil {
					return nil, err
				}
			}
			if n := len(entries); n > 0 && bytes.Compare(entries[n-1].key, q.page.entries[0].key) >= 0 {
				return nil, &DamageError{What: "blob " + r.id.String(), Err: errMalformed}
			}
			entries = append(entries, q.page.entries...)
		}
		var joined []part
		for _, m := range split(p.level-1, entries) {
			joined = append(joined, part{page: m})
		}
		parts = slices.Replace(parts, k, k+2, joined...)
		i = k - 1 // what was joined may still be small
	}
	entries := make([]entry, len(parts))
	for i, q := range parts {
		if q.page == nil {
			entries[i] = q.entry
		} else {
			entries[i] = entry{q.page.entries[0].key, appendID(nil, w.write(q.page.encode()))}
		}
	}
	return split(p.level, entries), nil
}

// merge is old with changes over it. A nil value is left out, or kept as a note of
// what is gone.
func merge(old, changes []entry, drop bool) []entry {
	out := make([]entry, 0, len(old)+len(changes))
	for len(old) > 0 || len(changes) > 0 {
		c := -1
		switch {
		case len(old) == 0:
			c = 1
		case len(changes) > 0:
			c = bytes.Compare(old[0].key, changes[0].key)
		}
		if c < 0 {
			out, old = append(out, old[0]), old[1:]
			continue
		}
		if c == 0 {
			old = old[1:]
		}
		if changes[0].val != nil || !drop {
			out = append(out, changes[0])
		}
		changes = changes[1:]
	}
	return out
}

// split makes pages of about the same size. What was all written at the end, as a
// log is, leaves them half full; that is what it costs to have one rule.
func split(level int, entries []entry) []*page {
	if len(entries) == 0 {
		return nil
	}
	total := 0
	for _, e := range entries {
		total += e.size()
	}
	const room = pageSize - pageHeader
	if total <= room {
		return []*page{newPage(level, entries)}
	}
	n := cmp.Or(total/(room/2), 1)
	want := total / n
	var made []*page
	for len(entries) > 0 {
		size, k := 0, 0
		for k < len(entries) && (k == 0 || size+entries[k].size() <= room) && (size < want || len(made) == n-1) {
			size += entries[k].size()
			k++
		}
		made = append(made, newPage(level, entries[:k:k]))
		entries = entries[k:]
	}
	return made
}
