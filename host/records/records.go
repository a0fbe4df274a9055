// Package records keeps collections of records for a context: values by key, in
// the order of their keys, in the same transaction as the files and as durable.
//
//	all := records.In(tx.Private(), records.Config{})   // for one transaction
//	mine := all.As(guard)                               // as far as guard allows
//	err := mine.Put(ctx, "bookings", "2026-11-23/alice", []byte(`{"seats":2}`))
//	page, err := mine.Scan(ctx, "bookings", records.Range{Prefix: "2026-11-"})
//	err = all.Flush(ctx)                                // before the transaction ends
//
// What a transaction wrote it sees at once. It has to Flush before it commits;
// what was not flushed is not written.
//
// # Files
//
// Everything is text that the owner can read with any tool, below the directory
// that the host keeps for itself:
//
//	records/COLLECTION/index.ndjson   {"page":1,"from":""}
//	                                  {"page":2,"from":"2026-11-2"}
//	records/COLLECTION/1.ndjson       {"key":"2026-11-01/bob","value":{"seats":1}}
//	                                  {"key":"2026-11-19/eve","text":"phoned, will call again"}
//	records/COLLECTION/2.ndjson       {"key":"2026-11-23/alice","base64":"iVBORw0KGgo="}
//
// A page holds, a line each and in the order of their bytes, the records from its
// "from" on to that of the next page. A value that is JSON of one line is there as
// it is, other text as "text", and what is neither as "base64"; what is read is
// byte for byte what was written. A page that has grown over 32 KiB is split, one
// of few records is joined with its neighbour, so that a change costs the writing
// of one page, whatever the size of the collection. The first page begins at "".
//
// # Schemas, indexes, queries
//
// A collection may be bound to a schema (host/schema), which values that are put are
// held against, and which declares indexes: see Tx.Bind, Collections.Query, and
// index.go for how indexes lie beside the records:
//
//	schemas/COLLECTION.json           the schema that is in force
//	indexes/COLLECTION/state.json     which indexes there are, and of which pages
//	indexes/COLLECTION/1/1.ndjson     {"key":"5blue 52026-11-23T10:00 2026-11-23/alice","value":1}
//
// # The owner's edits
//
// Lines may be changed, added, put into another order, and removed with any
// editor, also while a host runs: a script that meets a change of its owner's
// while it runs is told to try again. A new line belongs into the page of its
// key; where that is too much to ask, remove index.ndjson, and it is made again
// from the pages, whatever they are called, as long as no two of them overlap. A
// collection is made by putting a page into a new directory, and done away with
// by removing it.
//
// # Trust
//
// What is in these files may be anybody's doing. Sizes are bounded before anything
// is read, nothing takes more than a few times the memory that it takes on the
// disk, and what cannot be made sense of is a *DamageError that names the file and the line and
// quotes nothing. Reading the rest of the collection goes on to work; what is
// damaged is never written over.
package records

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Limits bound what one transaction may use. A zero field means its default.
type Limits struct {
	Value        int   // bytes of a value that is written; default 1 MiB, at most 2; over it ErrTooBig
	Changed      int   // records changed; default 100,000; ErrQuota
	ChangedBytes int64 // of their values, as they were and as they are; default 16 MiB; ErrQuota
	Collections  int   // touched; default 1,000, with indexes of 64 MiB; ErrQuota
	Cached       int64 // bytes of pages kept in memory; default 8 MiB; more costs reading again
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Value:        min(cmp.Or(l.Value, 1<<20), maxPage/4), // however it is written, a page is read again
		Changed:      cmp.Or(l.Changed, 100_000),
		ChangedBytes: cmp.Or(l.ChangedBytes, 16<<20), // they are in memory
		Collections:  cmp.Or(l.Collections, 1_000),
		Cached:       cmp.Or(l.Cached, 8<<20),
	}
}

// Config is for In. The zero value works.
type Config struct {
	Limits Limits
	// ReadOnly refuses changes with store.ErrReadOnly: the transaction is a view.
	ReadOnly bool
	// Schemas are what values are held against; nil takes any.
	Schemas Schemas
	// Looked remembers, from one transaction to the next, when the indexes of a
	// collection were last held against its pages. nil looks each time.
	Looked *Looked
	// Stale is told of a collection whose indexes are not used, since its pages are
	// not those that they were made from, until Reindex. It must not block. nil drops
	// it.
	Stale func(collection string)
}

// Op is what a guard is asked about.
type Op uint8

const (
	OpGet    Op = iota + 1 // a record's value
	OpPut                  // make a record, or change it
	OpDelete               // remove a record
	OpQuery                // which keys a collection has; the key is ""
)

// Guard decides whether a transaction's user may do op on a record, or with an
// empty key on a collection. An error that is not store.ErrHidden reaches the
// caller as store.ErrDenied with it as the cause; store.ErrHidden reads as
// store.ErrNotExist, and a scan leaves out what is hidden.
type Guard interface {
	Allow(op Op, collection, key string) error
}

// FieldGuard is a Guard that may also look at what is put and at what a query asks
// by, and knows of what a query finds that nobody has named it; of these it is asked so,
// and not by Allow.
type FieldGuard interface {
	Guard
	AllowPut(collection, key string, value []byte) error
	AllowQuery(collection string, fields []string) error
	// AllowFound is OpGet of a record that a query has come upon. Who asks is not to know
	// that it is there if they may not get it.
	AllowFound(collection, key string) error
}

// Tx is the records of one context within one transaction. Like the transaction
// it is used by one goroutine at a time.
type Tx struct {
	fs          store.FS
	limits      Limits
	readOnly    bool
	schemas     Schemas
	collections map[string]*collection
	cached      int64
	listed      int64               // bytes of lists of pages
	indexes     map[string]*indexes // nil for a collection that has none
	scratch     []byte
	peeked      *page // that scratch has the file of
	looked      *Looked
	stale       func(collection string)
	loaded      []*page // those that are in memory
	tick        uint64

	changes      map[id]*Change
	changedBytes int64
}

type id struct{ collection, key string }

// In returns the records that lie in a context's private file system.
func In(private store.FS, c Config) *Tx {
	return &Tx{
		fs: private, limits: c.Limits.withDefaults(), readOnly: c.ReadOnly, schemas: c.Schemas,
		collections: map[string]*collection{}, changes: map[id]*Change{},
		indexes: map[string]*indexes{}, looked: c.Looked, stale: c.Stale,
	}
}

// As returns what may be done with the records under a guard. A nil guard allows
// everything: for the owner's own tools. All that one Tx returns see each other's
// changes.
func (t *Tx) As(guard Guard) *Collections { return &Collections{t, guard} }

// Change is one record that a transaction changed. A value is nil where there was,
// or is, no record; an empty one is not.
type Change struct {
	Collection, Key string
	Before          []byte
	After           []byte
}

// Changes are the records that the transaction has changed, in the order of their
// collections and keys. One that ends up as it was is not among them.
func (t *Tx) Changes() []Change {
	var all []Change
	for _, c := range t.changes {
		if (c.Before == nil) != (c.After == nil) || string(c.Before) != string(c.After) {
			all = append(all, *c)
		}
	}
	slices.SortFunc(all, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Collection, b.Collection), cmp.Compare(a.Key, b.Key))
	})
	return all
}

// Collections are the records as far as a guard allows. Names and keys that can
// be none are store.ErrInvalid, and no guard is asked about them.
type Collections struct {
	t     *Tx
	guard Guard
}

// allow checks names, and asks the guard.
func (c *Collections) allow(op Op, collection, key string) error {
	return c.allowBy(op, collection, key, func(g Guard) error { return g.Allow(op, collection, key) })
}

func (c *Collections) allowPut(collection, key string, value []byte) error {
	return c.allowBy(OpPut, collection, key, func(g Guard) error {
		if g, ok := g.(FieldGuard); ok {
			return g.AllowPut(collection, key, value)
		}
		return g.Allow(OpPut, collection, key)
	})
}

// allowQuery is asked with no query for one that cannot be read.
func (c *Collections) allowQuery(collection string, q *schema.Query) error {
	return c.allowBy(OpQuery, collection, "", func(g Guard) error {
		f, ok := g.(FieldGuard)
		if !ok || q == nil {
			return g.Allow(OpQuery, collection, "")
		}
		var fields []string
		where, order := q.Fields()
		for _, p := range slices.Concat(where, order) {
			if !slices.Contains(fields, p.String()) {
				fields = append(fields, p.String())
			}
		}
		return f.AllowQuery(collection, fields)
	})
}

func (c *Collections) allowFound(collection, key string) error {
	return c.allowBy(OpGet, collection, key, func(g Guard) error {
		if g, ok := g.(FieldGuard); ok {
			return g.AllowFound(collection, key)
		}
		return g.Allow(OpGet, collection, key)
	})
}

func (c *Collections) allowBy(op Op, collection, key string, ask func(Guard) error) error {
	if err := script.CheckCollection(collection); err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if op != OpQuery {
		if err := script.CheckKey(key); err != nil {
			return fmt.Errorf("%w: %w", store.ErrInvalid, err)
		}
	}
	if c.guard == nil {
		return nil
	}
	err := ask(c.guard)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrHidden):
		return store.ErrNotExist
	}
	return fmt.Errorf("%w: %w", store.ErrDenied, err)
}

func fail(verb, collection, key string, err error) error {
	return fmt.Errorf("%s record %q of %q: %w", verb, shown(key), shown(collection), err)
}

// shown bounds how much a message repeats of a guest's words.
func shown(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

// Get returns a record's value, which is the caller's to keep.
func (c *Collections) Get(ctx context.Context, collection, key string) ([]byte, error) {
	err := c.allow(OpGet, collection, key)
	var value []byte
	if err == nil {
		value, err = c.t.get(ctx, collection, key)
	}
	if err != nil {
		return nil, fail("get", collection, key, err)
	}
	return value, nil
}

// Put makes a record, or replaces its value, which it copies.
func (c *Collections) Put(ctx context.Context, collection, key string, value []byte) error {
	err := c.allowPut(collection, key, value)
	if err == nil {
		err = c.t.put(ctx, collection, key, value, nil)
	}
	if err != nil {
		return fail("put", collection, key, err)
	}
	return nil
}

// ErrMismatch is the error of PutIf when the record is not as it was expected to be.
var ErrMismatch = errors.New("the record is not as expected")

// PutIf is Put if the SHA-256 of the record's value is was, and for a zero was if
// there is no such record; else ErrMismatch. What it tells is what Get would: both
// are asked for. (Within one transaction Get and then Put is the same, as nobody
// writes in between. This is for what somebody read in an earlier one.)
func (c *Collections) PutIf(ctx context.Context, collection, key string, value []byte, was script.Digest) error {
	err := c.allowPut(collection, key, value)
	if err == nil {
		err = c.allow(OpGet, collection, key)
	}
	if err == nil {
		err = c.t.put(ctx, collection, key, value, &was)
	}
	if err != nil {
		return fail("put", collection, key, err)
	}
	return nil
}

// Delete removes a record. One that is not there is store.ErrNotExist.
func (c *Collections) Delete(ctx context.Context, collection, key string) error {
	err := c.allow(OpDelete, collection, key)
	if err == nil {
		err = c.t.remove(ctx, collection, key)
	}
	if err != nil {
		return fail("delete", collection, key, err)
	}
	return nil
}

// Range says which records a scan returns: those whose keys are not less than
// From and begin with Prefix, at most Limit of them (0: MaxScan), and no more than
// fit into Bytes (0: MaxScanBytes), keys included, save that there is at least one.
type Range struct {
	From, Prefix string
	Limit        int
	Bytes        int
}

// What one scan returns at most.
const (
	MaxScan      = 1000
	MaxScanBytes = 1 << 20
)

// Record is one result of a scan. Denied means that its value may not be got.
type Record struct {
	Key    string
	Value  []byte
	Denied bool
}

// Page is the result of a scan. Next is the key to go on from, "" at the end.
type Page struct {
	Records []Record
	Next    string
}

// Scan returns records in the order of their keys' bytes. Whoever may query a
// collection sees its keys; each value is asked for as by Get. A collection that
// is not there is an empty one.
func (c *Collections) Scan(ctx context.Context, collection string, r Range) (Page, error) {
	if r.Limit <= 0 || r.Limit > MaxScan {
		r.Limit = MaxScan
	}
	if r.Bytes <= 0 {
		r.Bytes = MaxScanBytes
	}
	err := c.allow(OpQuery, collection, "")
	if errors.Is(err, store.ErrNotExist) {
		return Page{}, nil
	}
	var page Page
	if err == nil {
		page, err = c.scan(ctx, collection, r)
	}
	if err != nil {
		return Page{}, fmt.Errorf("scan records of %q: %w", shown(collection), err)
	}
	return page, nil
}

func (c *Collections) scan(ctx context.Context, collection string, r Range) (Page, error) {
	var found Page
	of, err := c.t.collection(ctx, collection)
	if err != nil {
		return found, err
	}
	from := max(r.From, r.Prefix)
	size := 0
	for at := of.find(from); at < len(of.pages); at++ {
		p := of.pages[at]
		if r.Prefix != "" && p.from > r.Prefix && !strings.HasPrefix(p.from, r.Prefix) {
			break // it, and all after it, begin behind the prefix
		}
		if err := ctx.Err(); err != nil {
			return found, context.Cause(ctx)
		}
		if err := c.t.load(p); err != nil {
			return found, err
		}
		i, _ := p.search(from)
		for ; i < len(p.entries); i++ {
			e := p.entries[i]
			if !strings.HasPrefix(e.key, r.Prefix) {
				return found, nil
			}
			err := c.allow(OpGet, collection, e.key)
			if errors.Is(err, store.ErrNotExist) {
				continue
			}
			record := Record{Key: strings.Clone(e.key), Denied: err != nil}
			if len(found.Records) == r.Limit {
				found.Next = record.Key
				return found, nil
			}
			if !record.Denied {
				if record.Value, err = e.value(); err != nil {
					return found, p.damage(i, err)
				}
			}
			size += len(record.Key) + len(record.Value)
			if size > r.Bytes && len(found.Records) > 0 {
				found.Next = record.Key
				return found, nil
			}
			found.Records = append(found.Records, record)
		}
	}
	return found, nil
}

func (t *Tx) get(ctx context.Context, collection, key string) ([]byte, error) {
	of, err := t.collection(ctx, collection)
	if err != nil {
		return nil, err
	}
	value, _, err := t.at(of, key)
	if err == nil && value == nil {
		err = store.ErrNotExist
	}
	return value, err
}

// at finds a key: its page, if any is there, and its value, nil if there is none.
func (t *Tx) at(of *collection, key string) (value []byte, p *page, err error) {
	if len(of.pages) == 0 {
		return nil, nil, nil
	}
	p = of.pages[of.find(key)]
	if err := t.load(p); err != nil {
		return nil, nil, err
	}
	i, ok := p.search(key)
	if !ok {
		return nil, p, nil
	}
	if value, err = p.entries[i].value(); err != nil {
		return nil, nil, p.damage(i, err)
	}
	return value, p, nil
}

func (t *Tx) put(ctx context.Context, collection, key string, value []byte, was *script.Digest) error {
	switch {
	case t.readOnly:
		return store.ErrReadOnly
	case len(value) > t.limits.Value:
		return fmt.Errorf("a value of %d bytes, at most %d are allowed: %w", len(value), t.limits.Value, store.ErrTooBig)
	}
	of, err := t.collection(ctx, collection)
	if err != nil {
		return err
	}
	before, p, err := t.at(of, key)
	if err != nil {
		return err
	}
	if was != nil {
		is := script.Digest{}
		if before != nil {
			is = sha256.Sum256(before)
		}
		if is != *was {
			return ErrMismatch
		}
	}
	if err := t.check(ctx, collection, value); err != nil {
		return err
	}
	after := append([]byte{}, value...) // not nil, if it is empty
	line := encodeLine(key, after)
	if p != nil && len(of.pages) >= maxPages && p.size+int64(len(line)) > maxPage {
		return fmt.Errorf("the collection has %d pages, and cannot have more: %w", len(of.pages), store.ErrQuota)
	}
	if err := t.change(id{collection, key}, before, after); err != nil {
		return err
	}
	if p == nil {
		p = &page{of: of, entries: []entry{}}
		t.touch(p)
		of.pages = []*page{p}
		of.reindex = true
		t.keep(p)
	}
	of.changed = true
	atEnd := p.put(entry{key: strings.Clone(key), line: line})
	t.cached += p.settle()
	t.split(p, atEnd)
	if err := t.evict(); err != nil {
		return err
	}
	t.maintain(ctx, of, key, before, after)
	return nil
}

func (t *Tx) remove(ctx context.Context, collection, key string) error {
	if t.readOnly {
		return store.ErrReadOnly
	}
	of, err := t.collection(ctx, collection)
	if err != nil {
		return err
	}
	before, p, err := t.at(of, key)
	switch {
	case err != nil:
		return err
	case before == nil:
		return store.ErrNotExist
	}
	if err := t.change(id{collection, key}, before, nil); err != nil {
		return err
	}
	of.changed = true
	p.remove(key)
	t.cached += p.settle()
	if err := t.join(p); err != nil {
		return err
	}
	t.maintain(ctx, of, key, before, nil)
	return nil
}

// change notes what a record was and is, and counts it, before it is changed.
func (t *Tx) change(at id, before, after []byte) error {
	c := t.changes[at]
	more := int64(len(after))
	if c == nil {
		if len(t.changes) >= t.limits.Changed {
			return fmt.Errorf("more than %d records changed in one transaction: %w", t.limits.Changed, store.ErrQuota)
		}
		more += int64(len(before) + len(at.key))
	} else {
		more -= int64(len(c.After))
	}
	if more > 0 && t.changedBytes+more > t.limits.ChangedBytes {
		return fmt.Errorf("more than %d bytes of records changed in one transaction: %w", t.limits.ChangedBytes, store.ErrQuota)
	}
	t.changedBytes += more
	if c == nil {
		c = &Change{Collection: strings.Clone(at.collection), Key: strings.Clone(at.key), Before: before}
		t.changes[id{c.Collection, c.Key}] = c
	}
	c.After = after
	return nil
}
