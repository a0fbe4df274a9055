package records

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Indexes lie beside the records, in pages of the same form, and are made from them:
//
//	indexes/bookings/state.json   {"indexes":[{"fields":["/room","/starts"],"at":1}],"pages":"…"}
//	indexes/bookings/1/1.ndjson   {"key":"5blue 52026-11-23T10:00 2026-11-23/alice","value":1}
//
// An entry's key is what its fields are sorted by (schema.Value.AppendKey), and the
// record's key. "pages" is a sum over the numbers, sizes and times of the collection's
// pages as they were when the indexes were last right: if it is not theirs, somebody
// has changed records by other means, and the indexes are not used until they have
// been made again. So whoever removes them, or a part of the collection, loses time
// and nothing else.
const (
	indexRoot  = "indexes"
	stateName  = "state.json"
	maxState   = 64 << 10
	maxIndexed = 1 << 20  // records of a collection that is indexed
	maxEntries = 96 << 20 // bytes of an index's entries: they are in memory while it is made
	maxEntry   = 8 << 10  // bytes of an entry's key: four fields of 512 bytes, each byte escaped, and the record's
)

func indexDir(collection string) string  { return indexRoot + "/" + collection }
func stateFile(collection string) string { return indexDir(collection) + "/" + stateName }

// sum adds up what files are. Adding and taking away may come in any order.
type sum [2]uint64

func fingerprint(number uint64, info store.Info) (s sum) {
	if info == (store.Info{}) {
		return s
	}
	var b [24]byte
	binary.BigEndian.PutUint64(b[:], number)
	binary.BigEndian.PutUint64(b[8:], uint64(info.Size))
	binary.BigEndian.PutUint64(b[16:], uint64(info.Mtime.UnixNano()))
	h := sha256.Sum256(b[:])
	return sum{binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])}
}

func (s sum) plus(t sum) sum  { return sum{s[0] + t[0], s[1] + t[1]} }
func (s sum) minus(t sum) sum { return sum{s[0] - t[0], s[1] - t[1]} }

func (s sum) String() string {
	b := binary.BigEndian.AppendUint64(nil, s[0])
	return hex.EncodeToString(binary.BigEndian.AppendUint64(b, s[1]))
}

func parseSum(text string) (s sum, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 16 {
		return s, errors.New("it has no sum of pages")
	}
	return sum{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, nil
}

// indexes are those of one collection, within a transaction.
type indexes struct {
	of   *collection
	list []*index
	sum  sum // of the pages, before what this transaction writes
	// What they are known to be. One that is bad has been found to be wrong, and is
	// of no use.
	right, bad bool
	changed    bool
}

type index struct {
	schema.Index
	at      uint64      // the number of its directory
	pages   int         // that its list has, says the state
	entries *collection // nil: not read yet
}

// state is state.json.
type state struct {
	Indexes []indexState `json:"indexes"`
	Pages   string       `json:"pages"`
}

type indexState struct {
	Fields []string `json:"fields"`
	At     uint64   `json:"at"`
	Pages  int      `json:"pages"`
}

// indexed returns the indexes that a collection has, nil if none. They may be stale:
// see usable.
func (t *Tx) indexed(ctx context.Context, of *collection) (*indexes, error) {
	if x, ok := t.indexes[of.name]; ok {
		return x, nil
	}
	x, err := t.readState(ctx, of)
	if err != nil {
		return nil, err
	}
	t.indexes[of.name] = x
	return x, nil
}

func (t *Tx) readState(ctx context.Context, of *collection) (*indexes, error) {
	text, _, err := t.read(stateFile(of.name), maxState)
	var damage *DamageError
	switch {
	case errors.Is(err, store.ErrNotExist), errors.As(err, &damage):
		return nil, nil
	case err != nil:
		return nil, err
	}
	var s state
	x := &indexes{of: of}
	if json.Unmarshal([]byte(text), &s) != nil || len(s.Indexes) > 64 {
		return nil, nil // what we did not write is made again
	}
	if x.sum, err = parseSum(s.Pages); err != nil {
		return nil, nil
	}
	for _, is := range s.Indexes {
		i := &index{at: is.At, pages: is.Pages}
		for _, f := range is.Fields {
			p, err := schema.ParsePointer(f)
			if err != nil {
				return nil, nil
			}
			i.Fields = append(i.Fields, p)
		}
		if len(i.Fields) == 0 || is.At == 0 || is.At > maxNumber {
			return nil, nil
		}
		x.list = append(x.list, i)
	}
	return x, nil
}

// opened reads the list of an index's pages, and reports whether it is the one that
// the state speaks of.
func (t *Tx) opened(ctx context.Context, x *indexes, i *index) (bool, error) {
	if i.entries != nil {
		return true, nil
	}
	entries := entriesOf(x.of.name, i.at)
	err := t.open(ctx, entries)
	var damage *DamageError
	if errors.As(err, &damage) || err == nil && len(entries.pages) != i.pages {
		x.bad, x.changed = true, true
		return false, nil
	}
	if err == nil {
		i.entries = entries
	}
	return err == nil, err
}

func entriesOf(name string, at uint64) *collection {
	return &collection{name: name, at: indexDir(name) + "/" + strconv.FormatUint(at, 10), next: 1, index: true}
}

// checkEntry is script.CheckKey for the keys of an index.
func checkEntry(key string) error {
	if key == "" || len(key) > maxEntry || !utf8.ValidString(key) {
		return errors.New("it is no entry of an index")
	}
	return nil
}

// appendFields appends what the fields of a value are sorted by. v is nil for what is
// no JSON.
func (x *index) appendFields(b []byte, v *schema.Value) []byte {
	for _, f := range x.Fields {
		var field *schema.Value
		if v != nil {
			field = f.In(v)
		}
		b = append(field.AppendKey(b), schema.Between...)
	}
	return b
}

func (x *index) entry(key string, v *schema.Value) string {
	return string(append(x.appendFields(make([]byte, 0, 64+len(key)), v), key...))
}

// parsed is a value as indexes and queries see it, nil if it is no JSON.
func parsed(value []byte) *schema.Value {
	if value == nil {
		return nil
	}
	v, err := schema.ReadJSON(string(value))
	if err != nil {
		return nil
	}
	return &v
}

// maintain has the indexes follow a change of a record that was made. Where they
// cannot, they are dropped, and made again later: a record is not lost for its index.
func (t *Tx) maintain(ctx context.Context, of *collection, key string, before, after []byte) {
	if t.schemas == nil || t.schemas.Of(of.name) == nil {
		return // whoever binds it again sees that they are not right any more
	}
	x, err := t.indexed(ctx, of)
	if err != nil {
		t.indexes[of.name] = &indexes{of: of, bad: true, changed: true}
		return
	}
	if x == nil || x.bad {
		return
	}
	x.changed = true
	was, is := parsed(before), parsed(after)
	for _, i := range x.list {
		stood, stands := "", ""
		if before != nil {
			stood = i.entry(key, was)
		}
		if after != nil {
			stands = i.entry(key, is)
		}
		if stood == stands {
			continue
		}
		if ok, err := t.opened(ctx, x, i); err != nil || !ok {
			x.bad = true
			return
		}
		if err := t.replaceEntry(i.entries, stood, stands); err != nil {
			x.bad = true
			return
		}
	}
}

func (t *Tx) replaceEntry(in *collection, stood, stands string) error {
	if stood != "" && len(in.pages) > 0 {
		p := in.pages[in.find(stood)]
		if err := t.load(p); err != nil {
			return err
		}
		if _, ok := p.search(stood); ok {
			in.changed = true
			p.remove(stood)
			t.cached += p.settle()
			if err := t.join(p); err != nil {
				return err
			}
		}
	}
	if stands == "" {
		return t.evict()
	}
	if len(in.pages) == 0 {
		p := &page{of: in, entries: []entry{}}
		t.touch(p)
		in.pages, in.reindex = []*page{p}, true
		t.keep(p)
	}
	p := in.pages[in.find(stands)]
	if err := t.load(p); err != nil {
		return err
	}
	in.changed = true
	atEnd := p.put(entry{key: stands, line: entryLine(stands)})
	t.cached += p.settle()
	t.split(p, atEnd)
	return t.evict()
}

func entryLine(key string) string {
	var b strings.Builder
	b.Grow(len(key) + 24)
	b.WriteString(canonicalTo[:len(canonicalTo)-1])
	writeString(&b, key)
	b.WriteString(`,"value":1}`)
	return b.String()
}

// usable returns the indexes of a collection if they are right, and nil if there are
// none or they are not. Finding out takes a look at each page's file, a few
// microseconds, so that of a large collection it is not done each time.
func (t *Tx) usable(ctx context.Context, of *collection) (*indexes, error) {
	x, err := t.indexed(ctx, of)
	if err != nil || x == nil {
		return nil, err
	}
	if !x.right && !x.bad {
		if len(of.pages) > fewPages && t.looked.recently(of.name) {
			x.right = true
		} else if err := t.verify(ctx, x); err != nil {
			return nil, err
		}
	}
	if x.bad {
		t.spoiled(x)
		return nil, nil
	}
	return x, nil
}

// fewPages are looked at each time.
const fewPages = 32

// verify looks whether the pages are those that the indexes were made from.
func (t *Tx) verify(ctx context.Context, x *indexes) error {
	var is sum
	for _, p := range x.of.pages {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if p.number == 0 {
			continue // it has no file yet
		}
		info, err := t.fs.Stat(p.path(), false)
		if errors.Is(err, store.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		is = is.plus(fingerprint(p.number, info))
	}
	for _, p := range x.of.gone {
		if p.number != 0 {
			is = is.plus(fingerprint(p.number, p.file))
		}
	}
	x.right = is == x.sum.plus(x.of.wrote)
	x.bad = !x.right
	if x.right {
		t.looked.now(x.of.name)
	}
	return nil
}

// flushIndexes writes the states of indexes that have followed a change. Their pages
// are written before, with those of the records.
func (t *Tx) flushIndexes(name string) error {
	x := t.indexes[name]
	if x == nil || !x.changed {
		return nil
	}
	if x.bad {
		x.changed = false
		return t.removeState(name)
	}
	s := state{Pages: x.sum.plus(x.of.wrote).String()}
	for _, i := range x.list {
		is := indexState{At: i.at, Pages: i.pages}
		if i.entries != nil {
			is.Pages = len(i.entries.pages)
		}
		for _, f := range i.Fields {
			is.Fields = append(is.Fields, f.String())
		}
		s.Indexes = append(s.Indexes, is)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	for _, dir := range []string{indexRoot, indexDir(name)} {
		if err := t.fs.Mkdir(dir); err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
	}
	x.changed = false
	return t.overwrite(stateFile(name), string(text)+"\n")
}

func (t *Tx) removeState(name string) error {
	err := t.fs.Unlink(stateFile(name))
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) {
		return nil
	}
	return err
}

// spoiled notes that the indexes of a collection have been found not to be as they
// should be.
func (t *Tx) spoiled(x *indexes) {
	x.bad = true
	if t.stale != nil {
		t.stale(x.of.name)
	}
}

// Indexed reports whether a collection has the indexes that are wanted, and they are
// right.
func (t *Tx) Indexed(ctx context.Context, collection string, want []schema.Index) (bool, error) {
	if err := script.CheckCollection(collection); err != nil {
		return false, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	of, err := t.collection(ctx, collection)
	if err != nil {
		return false, err
	}
	x, err := t.indexed(ctx, of)
	if err != nil || x == nil {
		return len(want) == 0 && err == nil, err
	}
	for _, i := range x.list {
		if _, err := t.opened(ctx, x, i); err != nil {
			return false, err
		}
	}
	if x.bad || !slices.EqualFunc(x.list, want, func(i *index, w schema.Index) bool { return slices.Equal(i.Fields, w.Fields) }) {
		return false, nil
	}
	err = t.verify(ctx, x)
	return x.right && err == nil, err
}

// Reindex sees to it that a collection has the indexes that are wanted, and no
// others, and that they are right. It reports whether it had to make them again.
func (t *Tx) Reindex(ctx context.Context, collection string, want []schema.Index) (made bool, err error) {
	right, err := t.Indexed(ctx, collection, want)
	if right || err != nil {
		return false, err
	}
	of, err := t.collection(ctx, collection)
	if err != nil {
		return false, err
	}
	if err := t.Flush(ctx); err != nil { // what is there is then in files
		return false, err
	}
	return true, t.reindex(ctx, of, want)
}

func (t *Tx) reindex(ctx context.Context, of *collection, want []schema.Index) error {
	if x := t.indexes[of.name]; x != nil {
		for _, i := range x.list {
			if i.entries != nil {
				for _, p := range i.entries.pages {
					t.forget(p)
				}
				delete(t.collections, i.entries.dir())
			}
		}
	}
	delete(t.indexes, of.name)
	used, err := t.removeIndexes(ctx, of.name)
	if err != nil || len(want) == 0 {
		return err
	}
	x := &indexes{of: of, right: true, changed: true}
	entries := make([][]entry, len(want))
	count, size := 0, 0
	err = t.each(ctx, of.name, func(key string, value []byte) error {
		if count++; count > maxIndexed {
			return fmt.Errorf("more than %d records cannot be indexed: %w", maxIndexed, store.ErrQuota)
		}
		v := parsed(value)
		for n, w := range want {
			k := (&index{Index: w}).entry(key, v)
			if size += len(k) + lineBytes; size > maxEntries {
				return fmt.Errorf("the indexes would have more than %d MiB: %w", maxEntries>>20, store.ErrQuota)
			}
			entries[n] = append(entries[n], entry{key: k})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for n, w := range want {
		used++
		i := &index{Index: w, at: used, entries: entriesOf(of.name, used)}
		slices.SortFunc(entries[n], func(a, b entry) int { return cmp.Compare(a.key, b.key) })
		if err := t.fill(ctx, i.entries, entries[n]); err != nil {
			return err
		}
		entries[n] = nil
		t.collections[i.entries.dir()] = i.entries
		x.list = append(x.list, i)
	}
	var is sum
	for _, p := range of.pages {
		info, err := t.fs.Stat(p.path(), false)
		if err != nil && !errors.Is(err, store.ErrNotExist) {
			return err
		}
		if err == nil {
			is = is.plus(fingerprint(p.number, info))
		}
	}
	x.sum = is.minus(of.wrote)
	t.indexes[of.name] = x
	t.looked.now(of.name)
	return nil
}

// fill makes pages of sorted entries.
func (t *Tx) fill(ctx context.Context, c *collection, all []entry) error {
	const full = pageSize * 3 / 4 // a page of which nothing is free is split by the next entry
	for len(all) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := &page{of: c, dirty: true, entries: []entry{}}
		if len(c.pages) > 0 {
			p.from = all[0].key
		}
		for len(all) > 0 && (p.size < full || len(p.entries) == 0) {
			e := entry{key: all[0].key, line: entryLine(all[0].key)}
			p.size += int64(len(e.line) + 1)
			p.entries = append(p.entries, e)
			all = all[1:]
		}
		c.pages = append(c.pages, p)
		c.changed, c.reindex = true, true
		t.touch(p)
		t.keep(p)
		if err := t.evict(); err != nil {
			return err
		}
		if len(c.pages) > maxPages {
			return fmt.Errorf("an index of more than %d pages: %w", maxPages, store.ErrQuota)
		}
	}
	return nil
}

// removeIndexes removes what there is of a collection's indexes, and returns the
// highest number that one had.
func (t *Tx) removeIndexes(ctx context.Context, collection string) (last uint64, err error) {
	if err := t.removeState(collection); err != nil {
		return 0, err
	}
	dirs, err := t.names(indexDir(collection))
	if err != nil {
		return 0, err
	}
	for _, d := range dirs {
		n, err := strconv.ParseUint(d.Name, 10, 64)
		if err != nil || n == 0 || n >= maxNumber || d.Kind != store.KindDir {
			continue
		}
		last = max(last, n)
		at := indexDir(collection) + "/" + d.Name
		files, err := t.names(at)
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			if f.Kind == store.KindFile && strings.HasSuffix(f.Name, suffix) {
				if err := t.fs.Unlink(at + "/" + f.Name); err != nil {
					return 0, err
				}
			}
		}
		// What else its owner keeps there stays.
		if err := t.fs.Rmdir(at); err != nil && !errors.Is(err, store.ErrNotEmpty) {
			return 0, err
		}
	}
	return last, nil
}

func (t *Tx) names(dir string) ([]store.DirEntry, error) {
	d, err := t.fs.Open(dir, store.FlagRead|store.FlagDirectory)
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrNotDir) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(0, 2*maxPages)
}
