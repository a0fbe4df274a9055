package records

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// MaxLooked is how many records, or entries of an index, one page of a query may look
// at: some 50 ms. What takes more wants an index.
const MaxLooked = 10_000

// QueryError is the error of a query that cannot be answered, and the fault of who
// asks.
type QueryError struct{ Err error }

func (e *QueryError) Error() string { return e.Err.Error() }
func (e *QueryError) Unwrap() error { return e.Err }

// UnindexedError is the error of a query that would look at more than MaxLooked
// records.
type UnindexedError struct {
	Collection string
	Index      schema.Index // that would help; none if the collection has it, and it does not
}

func (e *UnindexedError) Error() string {
	if len(e.Index.Fields) == 0 {
		return fmt.Sprintf("it would look at more than %d records; ask for fewer of them", MaxLooked)
	}
	return fmt.Sprintf("it would look at more than %d records; the collection's owner can declare an index for it, in schema/%s.json: \"x-circles-index\": [%s]",
		MaxLooked, e.Collection, e.Index)
}

// ErrIndexing is the error of a query that needs an index which is being made.
var ErrIndexing = errors.New("the index that it needs is being made, since the collection's files were changed by other means than scripts; ask again soon")

// Query returns records whose values a query (see schema.Query) is true of, and that
// may be got: of others nothing can be told by asking, not even that they are there.
// start is "" or the Next of the page before, which stays good whatever is changed
// between: it says where that page ended. There are at most limit records in a page
// (0: MaxScan), of MaxScanBytes.
//
// A condition, or an order, that an index begins with is looked up there. What is
// found is held against the records as they are.
func (c *Collections) Query(ctx context.Context, collection, query, start string, limit int) (Page, error) {
	page, err := c.query(ctx, collection, query, start, limit)
	if err != nil {
		return Page{}, fmt.Errorf("query records of %q: %w", shown(collection), err)
	}
	return page, nil
}

func (c *Collections) query(ctx context.Context, collection, text, start string, limit int) (Page, error) {
	q, wrong := schema.ParseQuery(text)
	err := c.allowQuery(collection, q)
	if errors.Is(err, store.ErrNotExist) {
		return Page{}, nil
	}
	if err != nil {
		return Page{}, err
	}
	if wrong != nil {
		return Page{}, &QueryError{wrong}
	}
	r := &results{c: c, q: q, collection: collection, alternatives: q.Where.Alternatives(), digest: digestOf(collection, text)}
	r.order = r.effective()
	if start != "" {
		if r.from, err = parseCursor(start, r.digest); err != nil {
			return Page{}, &QueryError{err}
		}
	}
	if r.limit = limit; limit <= 0 || limit > MaxScan {
		r.limit = MaxScan
	}
	r.left = -1
	if q.Limit > 0 {
		if r.left = q.Limit - r.from.before; r.left <= 0 {
			return Page{}, nil
		}
		r.limit = min(r.limit, r.left)
	}
	if r.of, err = c.t.collection(ctx, collection); err != nil || len(r.of.pages) == 0 {
		return Page{}, err
	}
	var of *indexes
	if q.Where != nil || len(r.order) > 0 {
		if of, err = c.t.usable(ctx, r.of); err != nil {
			return Page{}, err
		}
		r.indexing = of == nil && c.t.indexes[collection] != nil
	}
	plans, err := r.plans(ctx, of)
	if err != nil {
		return Page{}, err
	}
	if len(plans) == 1 && plans[0].streams {
		err = r.stream(ctx, plans[0])
	} else {
		err = r.collect(ctx, plans)
	}
	return r.page, err
}

// results is one page of a query that is being made.
type results struct {
	c            *Collections
	q            *schema.Query
	collection   string
	of           *collection
	alternatives [][]*schema.Cond
	order        []schema.Order
	digest       [8]byte
	from         cursor
	limit        int
	left         int // of the query's own limit; -1 without one
	indexing     bool

	looked int
	size   int
	page   Page
	tail   *found // the last of the page
}

// effective is the order without fields that are the same in all that is found.
func (r *results) effective() []schema.Order {
	if len(r.alternatives) != 1 {
		return r.q.Order
	}
	return slices.DeleteFunc(slices.Clone(r.q.Order), func(o schema.Order) bool {
		return slices.ContainsFunc(r.alternatives[0], func(c *schema.Cond) bool { return c.Equals != nil && c.Field == o.Field })
	})
}

// backwards reports whether records that are equal come in the reverse order of their
// keys.
func (r *results) backwards() bool {
	if n := len(r.q.Order); n > 0 {
		return r.q.Order[n-1].Descending
	}
	return r.q.Backwards
}

// plan is where the records of one alternative are: between two keys of an index, or
// of the collection.
type plan struct {
	in        *index // nil: the collection
	low, high string
	fixed     string // what all entries begin with, behind which the order's fields stand
	streams   bool   // entries are in the order that is wanted, or in the reverse one
	good      int    // how much of the conditions it uses
}

// plans are the best ones for the alternatives, by indexes that can be read.
func (r *results) plans(ctx context.Context, of *indexes) ([]plan, error) {
	var plans []plan
	for _, alternative := range r.alternatives {
		p := r.best(of, alternative)
		if p.in != nil {
			ok, err := r.c.t.opened(ctx, of, p.in)
			if err != nil {
				return nil, err
			}
			if !ok {
				r.c.t.spoiled(of)
				r.indexing = true
				return r.plans(ctx, nil)
			}
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// best is the best plan for one alternative.
func (r *results) best(of *indexes, conds []*schema.Cond) plan {
	best := plan{high: "\xff", streams: len(r.order) == 0}
	if of == nil {
		return best
	}
	for _, x := range of.list {
		p := plan{in: x}
		n := 0
		for ; n < len(x.Fields); n++ {
			i := slices.IndexFunc(conds, func(c *schema.Cond) bool { return c.Equals != nil && c.Field == x.Fields[n] })
			if i < 0 {
				break
			}
			p.fixed += string(conds[i].Equals.AppendKey(nil)) + schema.Between
			p.good += 2
		}
		p.low, p.high = p.fixed, p.fixed+"\xff"
		if n < len(x.Fields) {
			span, found := schema.Span{High: "\xff"}, false
			for _, c := range conds {
				if c.Field == x.Fields[n] {
					s := c.Span()
					span.Low, span.High, found = max(span.Low, s.Low), min(span.High, s.High), true
				}
			}
			if found {
				p.low, p.high = p.fixed+span.Low, p.fixed+span.High
				p.good++
			}
		}
		rest := x.Fields[n:]
		p.streams = len(rest) == len(r.order)
		for i := 0; i < len(rest) && p.streams; i++ {
			p.streams = rest[i] == r.order[i].Field && r.order[i].Descending == r.backwards()
		}
		if p.good > best.good || p.good == best.good && p.streams && !best.streams {
			best = p
		}
	}
	return best
}

// found is a record that is looked at.
type found struct {
	key   string
	value []byte
	order []string // what it is sorted by
}

// look returns a record if it is one that is asked for and may be got.
func (r *results) look(x *index, e entry) (*found, error) {
	key := e.key
	if x != nil {
		for range x.Fields {
			_, key, _ = strings.Cut(key, schema.Between)
		}
		if len(key) == 0 {
			return nil, nil
		}
	}
	if err := r.c.allowFound(r.collection, key); err != nil {
		return nil, nil // denied or hidden: what is in it decides nothing
	}
	var value []byte
	var err error
	if x == nil {
		value, err = e.value()
	} else {
		value, err = r.value(key)
	}
	if err != nil || value == nil {
		return nil, err
	}
	var v *schema.Value
	if r.q.Where != nil || len(r.order) > 0 {
		v = parsed(value)
	}
	if r.q.Where != nil && (v == nil || !r.q.Where.Holds(v)) || x != nil && x.entry(key, v) != e.key {
		return nil, nil
	}
	f := &found{key: strings.Clone(key), value: value}
	for _, o := range r.order {
		var field *schema.Value
		if v != nil {
			field = o.Field.In(v)
		}
		f.order = append(f.order, string(field.AppendKey(nil)))
	}
	return f, nil
}

// value is a record's value, nil if there is none.
func (r *results) value(key string) ([]byte, error) {
	if value, ok := r.c.t.peek(r.of, key); ok {
		return value, nil
	}
	value, _, err := r.c.t.at(r.of, key)
	return value, err
}

var errEnough = errors.New("enough")

// walk calls f with the entries of a plan, in order or backwards, until it returns an
// error.
func (r *results) walk(ctx context.Context, p plan, backwards bool, f func(entry) error) error {
	of := r.of
	if p.in != nil {
		of = p.in.entries
	}
	if len(of.pages) == 0 || p.low >= p.high {
		return nil
	}
	at, step := of.find(p.low), 1
	if backwards {
		at, step = of.find(p.high), -1
	}
	for ; at >= 0 && at < len(of.pages); at += step {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		page := of.pages[at]
		if !backwards && page.from >= p.high {
			return nil
		}
		if err := r.c.t.load(page); err != nil {
			return err
		}
		entries := page.entries // the page may be forgotten meanwhile
		from, _ := page.search(p.low)
		to, _ := page.search(p.high)
		for i := range to - from {
			n := from + i
			if backwards {
				n = to - 1 - i
			}
			if r.looked%256 == 255 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := f(entries[n]); err != nil {
				return err
			}
		}
		if backwards && page.from < p.low {
			return nil
		}
	}
	return nil
}

// stream makes a page of a plan whose entries are in the order that is wanted.
func (r *results) stream(ctx context.Context, p plan) error {
	backwards := r.backwards()
	if r.from.set {
		if at := p.fixed + r.from.position; backwards {
			p.high = min(p.high, at)
		} else {
			p.low = max(p.low, at+"\x00")
		}
	}
	err := r.walk(ctx, p, backwards, func(e entry) error {
		if r.looked++; r.looked > MaxLooked {
			switch n := len(r.page.Records); {
			case n == r.limit: // there may be more
				r.page.Next = r.next(r.tail)
				return errEnough
			case r.q.Where == nil && len(r.order) == 0: // as all before was, it may not be got
				r.page.Next = r.sealed(e.key)
				return errEnough
			}
			return r.unindexed(p)
		}
		f, err := r.look(p.in, e)
		if f == nil || err != nil {
			return err
		}
		if !r.add(f) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

// add adds a record to the page, or says that there is more than fits.
func (r *results) add(f *found) bool {
	size := len(f.key) + len(f.value)
	if n := len(r.page.Records); n == r.limit || n > 0 && r.size+size > MaxScanBytes {
		if r.left != n {
			r.page.Next = r.next(r.tail)
		}
		return false
	}
	r.size += size
	r.page.Records = append(r.page.Records, Record{Key: f.key, Value: f.value})
	r.tail = &found{key: f.key, order: f.order}
	return true
}

// collect makes a page of what has to be sorted first.
func (r *results) collect(ctx context.Context, plans []plan) error {
	var all []*found
	had := map[string]struct{}{}
	for _, p := range plans {
		err := r.walk(ctx, p, false, func(e entry) error {
			if r.looked++; r.looked > MaxLooked {
				return r.unindexed(p)
			}
			f, err := r.look(p.in, e)
			if f == nil || err != nil {
				return err
			}
			if _, twice := had[f.key]; twice {
				return nil
			}
			if len(plans) > 1 {
				had[f.key] = struct{}{}
			}
			f.value = nil // there may be many
			if !r.from.set || r.compare(f, r.from.found(len(r.order))) > 0 {
				all = append(all, f)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(all, r.compare)
	for _, f := range all {
		value, err := r.value(f.key)
		if err != nil {
			return err
		}
		if f.value = value; !r.add(f) {
			break
		}
	}
	return nil
}

// compare compares records by the order that is wanted.
func (r *results) compare(a, b *found) int {
	for i, o := range r.order {
		n := cmp.Compare(a.order[i], b.order[i])
		if o.Descending {
			n = -n
		}
		if n != 0 {
			return n
		}
	}
	if r.backwards() {
		return cmp.Compare(b.key, a.key)
	}
	return cmp.Compare(a.key, b.key)
}

// unindexed is the error of a plan that looks at too much, with an index that would
// not.
func (r *results) unindexed(p plan) error {
	if r.indexing {
		return ErrIndexing
	}
	e := &UnindexedError{Collection: r.collection}
	add := func(f schema.Pointer) {
		if f.String() != "" && !slices.Contains(e.Index.Fields, f) && len(e.Index.Fields) < schema.MaxFields {
			e.Index.Fields = append(e.Index.Fields, f)
		}
	}
	for _, c := range r.alternatives[0] {
		if c.Equals != nil {
			add(c.Field)
		}
	}
	for _, o := range r.order {
		add(o.Field)
	}
	if len(r.order) == 0 {
		for _, c := range r.alternatives[0] {
			if c.Equals == nil {
				add(c.Field)
				break
			}
		}
	}
	if p.in != nil && slices.Equal(p.in.Fields, e.Index.Fields) {
		e.Index.Fields = nil
	}
	return e
}

// cursor is where a page of a query ended.
type cursor struct {
	set      bool
	before   int    // records on the pages until there
	position string // of the last: what it is sorted by, and its key
}

// found is the record that c is at, in a query with so many fields in its order.
func (c cursor) found(fields int) *found {
	parts := strings.SplitN(c.position, schema.Between, fields+1)
	f := &found{order: make([]string, fields)}
	copy(f.order, parts)
	if len(parts) > fields {
		f.key = parts[fields]
	}
	return f
}

// next is where a page ends with that record.
func (r *results) next(f *found) string {
	b := r.head(plainCursor)
	for _, o := range f.order {
		b = append(append(b, o...), schema.Between...)
	}
	return base64.RawURLEncoding.EncodeToString(append(b, f.key...))
}

// What a cursor begins with.
const (
	plainCursor  = 1
	sealedCursor = 2
)

// head is what a cursor has before its position.
func (r *results) head(kind byte) []byte {
	b := append([]byte{kind}, r.digest[:]...)
	return binary.AppendUvarint(b, uint64(r.from.before+len(r.page.Records)))
}

// sealed is where a page ends with a record that may not be got: its key is not for
// who asks, and nor is how long that is. No other process can read it.
func (r *results) sealed(key string) string {
	var text [2 + script.MaxKey]byte
	binary.BigEndian.PutUint16(text[:], uint16(copy(text[2:], key)))
	seal := cursorSeal()
	return base64.RawURLEncoding.EncodeToString(seal.Seal(r.head(sealedCursor), nil, text[:], r.digest[:]))
}

func unseal(position []byte, query [8]byte) ([]byte, error) {
	text, err := cursorSeal().Open(nil, nil, position, query[:])
	if err != nil {
		return nil, err
	}
	return text[2:][:binary.BigEndian.Uint16(text)], nil
}

// cursorSeal is made of a key that nobody has but this process.
var cursorSeal = sync.OnceValue(func() cipher.AEAD {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has another size
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // of no AES
	}
	return seal
})

var errCursor = errors.New("start is not the next of a page of this query; begin without one")

func parseCursor(text string, query [8]byte) (cursor, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < 10 || b[0] != plainCursor && b[0] != sealedCursor || [8]byte(b[1:9]) != query {
		return cursor{}, errCursor
	}
	before, n := binary.Uvarint(b[9:])
	if n <= 0 || before > 1<<40 {
		return cursor{}, errCursor
	}
	position := b[9+n:]
	if b[0] == sealedCursor {
		if position, err = unseal(position, query); err != nil {
			return cursor{}, errCursor
		}
	}
	return cursor{true, int(before), string(position)}, nil
}

// digestOf tells queries apart, so that nobody goes on with another one by mistake.
func digestOf(collection, query string) [8]byte {
	h := sha256.Sum256([]byte(collection + "\x00" + query))
	return [8]byte(h[:8])
}
