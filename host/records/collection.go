package records

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

const (
	root      = "records" // the directory of all collections, in the private file system
	indexName = "index.ndjson"
	suffix    = ".ndjson"
	maxIndex  = 16 << 20 // bytes of an index that is read
	maxRead   = 64 << 20 // of all indexes in one transaction: they stay in memory
	maxNumber = 1 << 53  // of a page: JSON has no larger ones for everybody
	maxPages  = 1 << 16  // of one collection: some 2 GiB
)

// DamageError is the error of a collection whose files cannot be made sense of.
// It is for the owner, and quotes nothing of the files.
type DamageError struct {
	File string // from the top of the context: "/.circles/records/notes/3.ndjson"
	Err  error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s is damaged: %v; mend it, with any editor, or remove it", e.File, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// collection is what is known of one collection: all its pages, some of them in
// memory.
type collection struct {
	name    string
	at      string // the directory of an index; "" for that of the collection
	index   bool
	wrote   sum        // of what this transaction has written, less what was there before
	pages   []*page    // in order; none: there is no such collection
	gone    []*page    // whose files are to be removed
	next    uint64     // a number that no page has
	file    store.Info // of its list of pages; zero if it was not there
	reindex bool       // the index is not what its file holds
	changed bool
	made    bool // its directory is there
}

func (c *collection) dir() string {
	if c.index {
		return c.at
	}
	return root + "/" + c.name
}

// checkKey says what is wrong with a key.
func (c *collection) checkKey(key string) error {
	if c.index {
		return checkEntry(key)
	}
	return script.CheckKey(key)
}

func (c *collection) indexFile() string { return c.dir() + "/" + indexName }
func (p *page) path() string            { return p.of.dir() + "/" + strconv.FormatUint(p.number, 10) + suffix }

func damaged(file string, err error) error {
	return &DamageError{"/" + store.PrivateName + "/" + file, err}
}

// damage is an error of the entry at i.
func (p *page) damage(i int, err error) error {
	return damaged(p.path(), fmt.Errorf("record %d in order: %w", i+1, err))
}

// find returns the page that a key belongs to; 0 if there is none.
func (c *collection) find(key string) int {
	i, ok := slices.BinarySearchFunc(c.pages, key, func(p *page, key string) int { return cmp.Compare(p.from, key) })
	if !ok {
		i--
	}
	return max(i, 0)
}

// collection reads a collection's index, once in a transaction.
func (t *Tx) collection(ctx context.Context, name string) (*collection, error) {
	if c := t.collections[name]; c != nil {
		return c, nil
	}
	if len(t.collections) >= t.limits.Collections {
		return nil, fmt.Errorf("more than %d collections in one transaction: %w", t.limits.Collections, store.ErrQuota)
	}
	c := &collection{name: strings.Clone(name), next: 1}
	if err := t.open(ctx, c); err != nil {
		return nil, err
	}
	return c, nil
}

// open reads the list of a collection's pages.
func (t *Tx) open(ctx context.Context, c *collection) error {
	text, info, err := t.read(c.indexFile(), maxIndex)
	switch {
	case errors.Is(err, store.ErrNotExist) && c.index: // as it is with one that has no entries
	case errors.Is(err, store.ErrNotExist):
		if err := t.rebuild(ctx, c); err != nil {
			return err
		}
	case err != nil:
		return err
	case t.listed+int64(len(text)) > maxRead:
		return fmt.Errorf("indexes of more than %d bytes in one transaction: %w", maxRead, store.ErrQuota)
	default:
		t.listed += int64(len(text))
		c.file = info
		if c.pages, err = parseIndex(text, c.checkKey); err != nil {
			return damaged(c.indexFile(), fmt.Errorf("%w; without it, it is made again from the pages", err))
		}
	}
	for _, p := range c.pages {
		p.of = c
		c.next = max(c.next, p.number+1)
	}
	key := c.name
	if c.index {
		key = c.at
	}
	t.collections[key] = c
	return nil
}

// parseIndex reads an index.
func parseIndex(text string, check func(string) error) ([]*page, error) {
	most := strings.Count(text, "\n") + 1
	all := make([]page, 0, min(most, maxPages))
	pages := make([]*page, 0, cap(all))
	numbers := make([]uint64, 0, cap(all))
	for n, line := range lines(text) {
		number, from, err := parseIndexLine(line, check)
		if err != nil {
			return nil, &lineError{n, err}
		}
		switch {
		case len(pages) == 0 && from != "":
			err = errors.New(`the first page must be from ""`)
		case len(pages) > 0 && from <= pages[len(pages)-1].from:
			err = errors.New("pages must be in the order of their keys")
		case len(pages) == maxPages:
			err = fmt.Errorf("there are more than %d pages", maxPages)
		}
		if err != nil {
			return nil, &lineError{n, err}
		}
		all = append(all, page{number: number, from: from})
		pages = append(pages, &all[len(all)-1])
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	if len(slices.Compact(numbers)) < len(pages) {
		return nil, errors.New("two lines name the same page")
	}
	return pages, nil
}

var errIndexLine = errors.New(`it is not {"page":NUMBER,"from":"KEY"}`)

func parseIndexLine(line string, check func(string) error) (number uint64, from string, err error) {
	// As we write it; most lines of a large collection are.
	if rest, ok := strings.CutPrefix(line, `{"page":`); ok {
		number, from, _ := strings.Cut(rest, `,"from":"`)
		from, ok := strings.CutSuffix(from, `"}`)
		if n, err := strconv.ParseUint(number, 10, 64); ok && err == nil && n > 0 && n <= maxNumber &&
			!strings.ContainsAny(from, `\"`) && (from == "" || check(from) == nil) {
			return n, from, nil
		}
	}
	var w struct {
		Page *uint64 `json:"page"`
		From *string `json:"from"`
	}
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if d.Decode(&w) != nil || d.InputOffset() != int64(len(strings.TrimRight(line, " \t"))) || w.Page == nil || w.From == nil ||
		*w.Page == 0 || *w.Page > maxNumber || *w.From != "" && check(*w.From) != nil {
		return 0, "", errIndexLine
	}
	return *w.Page, *w.From, nil
}

func (c *collection) encodeIndex() []byte {
	var b strings.Builder
	for _, p := range c.pages {
		fmt.Fprintf(&b, `{"page":%d,"from":`, p.number)
		writeString(&b, p.from)
		b.WriteString("}\n")
	}
	return []byte(b.String())
}

// rebuild makes the index of a collection that has none: it is new, or its owner
// has put pages there, or has removed the index so that it be made again.
func (t *Tx) rebuild(ctx context.Context, c *collection) error {
	d, err := t.fs.Open(c.dir(), store.FlagRead|store.FlagDirectory)
	if errors.Is(err, store.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.ReadDir(0, 2*maxPages)
	if err != nil {
		return err
	}
	type bounds struct {
		*page
		last string
	}
	var all []bounds
	for _, e := range names {
		number, ok := strings.CutSuffix(e.Name, suffix)
		n, err := strconv.ParseUint(number, 10, 63)
		if !ok || err != nil || n == 0 || n > maxNumber || strconv.FormatUint(n, 10) != number {
			continue
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		p := &page{of: c, number: n}
		if err := t.load(p); err != nil {
			return err
		}
		if len(p.entries) > 0 {
			p.from = strings.Clone(p.entries[0].key)
			all = append(all, bounds{p, strings.Clone(p.entries[len(p.entries)-1].key)})
		}
		if len(all) > maxPages {
			return damaged(c.dir(), fmt.Errorf("there are more than %d pages", maxPages))
		}
	}
	slices.SortFunc(all, func(a, b bounds) int { return cmp.Compare(a.from, b.from) })
	for i, b := range all {
		if i == 0 {
			b.from = ""
		} else if before := all[i-1]; before.last >= b.from {
			return damaged(b.path(), fmt.Errorf("its first key is not behind the last one of %d%s; put the lines of both into one", before.number, suffix))
		}
		c.pages = append(c.pages, b.page)
	}
	c.reindex = len(c.pages) > 0
	return nil
}

// read returns a file of at most limit bytes.
func (t *Tx) read(path string, limit int64) (text string, info store.Info, err error) {
	var b strings.Builder // a large page is not in memory twice
	info, err = t.readWith(path, limit, func(f *io.SectionReader) error {
		b.Grow(int(f.Size()))
		_, err := io.Copy(&b, f)
		return err
	})
	return b.String(), info, err
}

// readWith has a file of at most limit bytes read.
func (t *Tx) readWith(path string, limit int64, read func(*io.SectionReader) error) (info store.Info, err error) {
	f, err := t.fs.Open(path, store.FlagRead)
	if err != nil {
		return info, err
	}
	defer f.Close()
	info, err = f.Stat()
	switch {
	case err != nil:
		return info, err
	case info.Kind != store.KindFile:
		return info, damaged(path, errors.New("it is no file"))
	case info.Size < 0 || info.Size > limit:
		return info, damaged(path, fmt.Errorf("it has %d bytes, and at most %d are read", info.Size, limit))
	}
	return info, read(io.NewSectionReader(f, 0, info.Size))
}

// peek returns the value of one record for who only reads: of a page that is not in
// memory its line is looked for, which takes a third of the time of reading the page,
// and no memory. found is false if that was not enough to tell.
func (t *Tx) peek(of *collection, key string) (value []byte, found bool) {
	if len(of.pages) == 0 || strings.ContainsAny(key, `"\`) {
		return nil, false
	}
	p := of.pages[of.find(key)]
	if p.entries != nil || p.number == 0 {
		return nil, false
	}
	if t.peeked != p {
		t.peeked = nil
		_, err := t.readWith(p.path(), pageSize*2, func(f *io.SectionReader) error {
			t.scratch = slices.Grow(t.scratch[:0], int(f.Size()))[:f.Size()]
			_, err := io.ReadFull(f, t.scratch)
			return err
		})
		if err != nil {
			return nil, false // reading the page says what is the matter
		}
		t.peeked = p
	}
	begins := append(append(append(make([]byte, 0, len(key)+len(canonicalTo)+2), canonicalTo...), key...), `",`...)
	at := bytes.Index(t.scratch, begins)
	if at < 0 || at > 0 && t.scratch[at-1] != '\n' {
		return nil, false
	}
	line := t.scratch[at:]
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		line = line[:end]
	}
	value, err := entry{key, string(line)}.value()
	return value, err == nil
}

// load brings a page into memory. One whose file is not there any more has lost
// its records: the owner removed them.
func (t *Tx) load(p *page) error {
	t.touch(p)
	if p.entries != nil {
		return nil
	}
	text, info, err := t.read(p.path(), maxPage)
	if errors.Is(err, store.ErrNotExist) {
		if p.of.index && p.number != 0 {
			return damaged(p.path(), errors.New("it is not there"))
		}
		info, err = store.Info{}, nil
	}
	if err != nil {
		return err
	}
	if p.file != (store.Info{}) && !unchanged(p.file, info) { // read before, in this transaction
		return fmt.Errorf("/%s/%s was changed: %w", store.PrivateName, p.path(), store.ErrConflict)
	}
	entries, err := parsePage(text, p.of.checkKey)
	if err != nil {
		return damaged(p.path(), err)
	}
	if pages := p.of.pages; len(entries) > 0 && len(pages) > 0 {
		at := p.of.find(p.from)
		if entries[0].key < p.from || at+1 < len(pages) && entries[len(entries)-1].key >= pages[at+1].from {
			return damaged(p.path(), fmt.Errorf("it holds a key that belongs into another page; remove %s, and it is made again from the pages", indexName))
		}
	}
	p.entries, p.size, p.file = entries, 0, info
	for _, e := range entries {
		p.size += int64(len(e.line) + 1)
	}
	t.keep(p)
	return t.evict()
}

func (t *Tx) touch(p *page) {
	t.tick++
	p.used = t.tick
}

// unchanged reports whether a file is as it was. Its path, which its inode number
// is of, is the same.
func unchanged(was, is store.Info) bool {
	return was.Kind == is.Kind && was.Size == is.Size && was.Mtime.Equal(is.Mtime) && was.Ctime.Equal(is.Ctime)
}

// keep notes that a page is in memory.
func (t *Tx) keep(p *page) {
	t.loaded = append(t.loaded, p)
	t.cached += p.settle()
}

// forget takes a page out of memory.
func (t *Tx) forget(p *page) {
	p.entries, p.dirty = nil, false
	t.cached += p.settle()
	t.loaded = slices.DeleteFunc(t.loaded, func(q *page) bool { return q == p })
}

// evict takes pages out of memory as long as there is too much of it, those first
// that were not used for the longest time, and never the last two that were: they
// are being worked on. What they hold is in the transaction's files then.
func (t *Tx) evict() error {
	for t.cached > t.limits.Cached {
		var oldest *page
		for _, p := range t.loaded {
			if p.used+1 < t.tick && (oldest == nil || p.used < oldest.used) {
				oldest = p
			}
		}
		if oldest == nil {
			return nil
		}
		if oldest.dirty {
			if err := t.write(oldest); err != nil {
				return err
			}
		}
		t.forget(oldest)
	}
	return nil
}

// split makes several pages of one that has grown too large. If it grew at the end
// of the collection only the last record moves on: keys that are written in their
// order, times above all, leave full pages behind.
func (t *Tx) split(p *page, atEnd bool) {
	if p.size <= pageSize || len(p.entries) < 2 || len(p.of.pages) >= maxPages {
		return
	}
	c := p.of
	at := p.half()
	i := c.find(p.from)
	if atEnd && i == len(c.pages)-1 {
		at = len(p.entries) - 1
	}
	q := &page{of: c, dirty: true, entries: slices.Clone(p.entries[at:])}
	p.entries, p.dirty = p.entries[:at:at], true
	for _, e := range q.entries {
		q.size += int64(len(e.line) + 1)
	}
	p.size -= q.size
	q.from = separator(p.entries[at-1].key, q.entries[0].key)
	c.pages = slices.Insert(c.pages, i+1, q)
	c.reindex = true
	t.cached += p.settle()
	t.touch(q)
	t.keep(q)
	t.split(p, false)
	t.split(q, false)
}

// join does away with a page of which little is left.
func (t *Tx) join(p *page) error {
	c := p.of
	if p.size >= mergeBelow || len(c.pages) < 2 {
		return nil
	}
	i := c.find(p.from)
	if len(p.entries) == 0 {
		t.drop(p)
		c.pages[0].from = ""
		return nil
	}
	for _, left := range []int{i, i - 1} {
		if left < 0 || left+1 == len(c.pages) {
			continue
		}
		a, b := c.pages[left], c.pages[left+1]
		other := a
		if other == p {
			other = b
		}
		t.touch(p) // so that it stays in memory
		var damage *DamageError
		if err := t.load(other); errors.As(err, &damage) {
			continue
		} else if err != nil {
			return err
		}
		if a.size+b.size > pageSize*3/4 {
			continue
		}
		a.entries, a.dirty = slices.Concat(a.entries, b.entries), true
		a.size += b.size
		t.cached += a.settle()
		t.drop(b)
		return nil
	}
	return nil
}

// drop takes a page out of its collection.
func (t *Tx) drop(p *page) {
	c := p.of
	i := c.find(p.from)
	c.pages = slices.Delete(c.pages, i, i+1)
	c.gone = append(c.gone, p)
	c.reindex = true
	t.forget(p)
}

// Flush writes what is only in memory to the transaction's files. The transaction
// must not be committed if it fails.
func (t *Tx) Flush(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(t.collections)) {
		if c := t.collections[name]; c.changed {
			if err := t.flush(ctx, c); err != nil {
				return fmt.Errorf("write records of %s: %w", c.name, err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.indexes)) {
		if err := t.flushIndexes(name); err != nil {
			return fmt.Errorf("write indexes of %s: %w", name, err)
		}
	}
	return nil
}

func (t *Tx) flush(ctx context.Context, c *collection) error {
	if len(c.pages) == 1 && c.pages[0].entries != nil && len(c.pages[0].entries) == 0 {
		t.drop(c.pages[0])
	}
	for _, p := range c.pages {
		if !p.dirty {
			continue
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := t.write(p); err != nil {
			return err
		}
	}
	for _, p := range c.gone {
		if err := t.unlink(p.path(), p.file); err != nil {
			return err
		}
		if !c.index {
			c.wrote = c.wrote.minus(fingerprint(p.number, p.file))
		}
	}
	c.gone, c.changed = nil, false
	if len(c.pages) == 0 {
		if err := t.unlink(c.indexFile(), c.file); err != nil {
			return err
		}
		c.file, c.made, c.reindex = store.Info{}, false, false
		// What else its owner keeps there stays.
		if err := t.fs.Rmdir(c.dir()); err != nil && !errors.Is(err, store.ErrNotEmpty) && !errors.Is(err, store.ErrNotExist) {
			return err
		}
		return nil
	}
	if !c.reindex {
		return nil
	}
	var err error
	if c.file, err = t.replace(c.indexFile(), c.file, c.encodeIndex()); err != nil {
		return err
	}
	c.reindex = false
	return nil
}

// write writes a page, which is in memory, to its file.
func (t *Tx) write(p *page) error {
	c := p.of
	t.peeked = nil
	if !c.made {
		dirs := []string{root, c.dir()}
		if c.index {
			dirs = []string{indexRoot, indexDir(c.name), c.at}
		}
		for _, dir := range dirs {
			if err := t.fs.Mkdir(dir); err != nil && !errors.Is(err, store.ErrExists) {
				return err
			}
		}
		c.made = true
	}
	text := p.encode()
	for p.number == 0 {
		if c.next > maxNumber {
			c.next = 1
		}
		n := c.next
		c.next++
		if slices.ContainsFunc(c.pages, func(q *page) bool { return q.number == n }) {
			continue
		}
		// A file that is there and in no index is the owner's: it stays.
		p.number = n
		if _, err := t.fs.Stat(p.path(), false); err == nil {
			p.number = 0
		} else if !errors.Is(err, store.ErrNotExist) {
			return err
		}
	}
	if t.holds(p, text) {
		p.dirty = false
		return nil
	}
	info, err := t.replace(p.path(), p.file, text)
	if err != nil {
		return err
	}
	if !c.index {
		c.wrote = c.wrote.plus(fingerprint(p.number, info)).minus(fingerprint(p.number, p.file))
	}
	p.file, p.dirty = info, false
	return nil
}

// holds reports whether a page's file has that text already, since what was changed was
// changed back. A store leaves such a file, and its times, as they were before the
// transaction, whatever they are within it: the indexes would seem to be wrong.
func (t *Tx) holds(p *page, text []byte) bool {
	if p.file.Size != int64(len(text)) || p.file == (store.Info{}) {
		return false
	}
	is, info, err := t.read(p.path(), maxPage)
	return err == nil && unchanged(p.file, info) && is == string(text) // else replace says what is the matter
}

// replace gives a file other contents, if it is as it was when it was read: what
// its owner did to it meanwhile must not be lost.
func (t *Tx) replace(path string, was store.Info, text []byte) (store.Info, error) {
	flags := store.FlagWrite
	if was == (store.Info{}) {
		flags |= store.FlagCreate | store.FlagExclusive
	}
	f, err := t.fs.Open(path, flags)
	if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotExist) {
		return was, fmt.Errorf("/%s/%s came or went: %w", store.PrivateName, path, store.ErrConflict)
	}
	if err != nil {
		return was, err
	}
	info, err := f.Stat()
	if err == nil && was != (store.Info{}) {
		if !unchanged(was, info) {
			err = fmt.Errorf("/%s/%s was changed: %w", store.PrivateName, path, store.ErrConflict)
		} else {
			err = f.Truncate(0)
		}
	}
	if err == nil {
		_, err = f.WriteAt(text, 0)
	}
	if err == nil {
		info, err = f.Stat()
	}
	return info, errors.Join(err, f.Close())
}

// unlink removes a file, if it is there and as it was.
func (t *Tx) unlink(path string, was store.Info) error {
	is, err := t.fs.Stat(path, false)
	switch {
	case errors.Is(err, store.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !unchanged(was, is):
		return fmt.Errorf("/%s/%s was changed: %w", store.PrivateName, path, store.ErrConflict)
	}
	return t.fs.Unlink(path)
}

// maxNames bounds the collections that are looked for in one context.
const maxNames = 1 << 20

// Names are the collections that a private file system holds, in order. What is
// there and can be none is left out.
func Names(private store.FS) ([]string, error) {
	d, err := private.Open(root, store.FlagRead|store.FlagDirectory)
	if errors.Is(err, store.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(0, maxNames)
	var names []string
	for _, e := range entries {
		if e.Kind == store.KindDir && script.CheckCollection(e.Name) == nil {
			names = append(names, e.Name)
		}
	}
	return names, err
}
