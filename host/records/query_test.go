package records

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/sqlite"
)

// bindings are the schemas of a test.
type bindings map[string]*schema.Schema

func (b bindings) Of(collection string) *schema.Schema { return b[collection] }

// bind binds a collection, and has what is done later be held to it.
func (b *bench) bind(collection, text string) {
	b.Helper()
	s, err := schema.Parse(collection+".json", text)
	b.must(err)
	b.must(b.update(func(t *Tx, _ *Collections) error { _, err := t.Bind(ctx, collection, s); return err }))
	b.c.Schemas = bindings{collection: s}
}

// find asks a query, page by page, and returns the keys.
func (b *bench) find(collection, query string, limit int) (keys []string, err error) {
	for start := ""; ; {
		var page Page
		err := b.view(func(c *Collections) (err error) {
			page, err = c.Query(ctx, collection, query, start, limit)
			return err
		})
		if err != nil {
			return nil, err
		}
		if limit > 0 && len(page.Records) > limit || page.Next != "" && len(page.Records) == 0 {
			b.Errorf("%s: a page of %d records, with limit %d", query, len(page.Records), limit)
		}
		for _, r := range page.Records {
			keys = append(keys, r.Key)
		}
		if start = page.Next; start == "" {
			return keys, nil
		}
	}
}

// uses reports whether a query looks at an index.
func (b *bench) uses(collection, query string) (used bool) {
	b.must(b.view(func(c *Collections) error {
		_, err := c.Query(ctx, collection, query, "", 3)
		for _, of := range c.t.collections {
			used = used || of.index && slices.ContainsFunc(of.pages, func(p *page) bool { return p.used > 0 })
		}
		return err
	}))
	return used
}

// model answers queries by what they mean, from records in memory.
type model map[string]any

// field follows a pointer of letters.
func field(v any, pointer string) (any, bool) {
	for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[name]; !ok {
			return nil, false
		}
	}
	return v, true
}

// rank is how values of different types are ordered.
func rank(v any, ok bool) (int, float64, string) {
	if !ok {
		return 0, 0, ""
	}
	switch v := v.(type) {
	case nil:
		return 1, 0, ""
	case bool:
		if v {
			return 3, 0, ""
		}
		return 2, 0, ""
	case float64:
		return 4, v, ""
	case string:
		return 5, 0, v
	}
	return 6, 0, ""
}

func order(a, b any, aok, bok bool) int {
	i, f, s := rank(a, aok)
	j, g, t := rank(b, bok)
	return cmp.Or(cmp.Compare(i, j), cmp.Compare(f, g), cmp.Compare(s, t))
}

func (m model) holds(cond map[string]any, v any) bool {
	if all, ok := cond["and"].([]any); ok {
		return !slices.ContainsFunc(all, func(c any) bool { return !m.holds(c.(map[string]any), v) })
	}
	if any, ok := cond["or"].([]any); ok {
		return slices.ContainsFunc(any, func(c interface{}) bool { return m.holds(c.(map[string]interface{}), v) })
	}
	is, ok := field(v, cond["field"].(string))
	if !ok {
		return false
	}
	for word, than := range cond {
		n := order(is, than, true, true)
		i, _, s := rank(is, true)
		j, _, p := rank(than, true)
		switch word {
		case "prefix":
			ok = i == 5 && strings.HasPrefix(s, p)
		case "equals":
			ok = n == 0
		case "above":
			ok = i == j && n > 0
		case "from":
			ok = i == j && n >= 0
		case "below":
			ok = i == j && n < 0
		case "to":
			ok = i == j && n <= 0
		}
		if !ok {
			return false
		}
	}
	return true
}

func (m model) find(t testing.TB, query string) []string {
	var q struct {
		Where map[string]any
		Order []struct {
			Field      string
			Descending bool
		}
		Limit int
	}
	if err := json.Unmarshal([]byte(query), &q); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for key, v := range m {
		if q.Where == nil || m.holds(q.Where, v) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int {
		back := false
		for _, o := range q.Order {
			back = o.Descending
			x, xok := field(m[a], o.Field)
			y, yok := field(m[b], o.Field)
			n := order(x, y, xok, yok)
			if back {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		if back {
			return cmp.Compare(b, a)
		}
		return cmp.Compare(a, b)
	})
	if q.Limit > 0 && len(keys) > q.Limit {
		keys = keys[:q.Limit]
	}
	return keys
}

// draw makes up records and queries from few words, so that they meet.
type draw struct{ *rand.Rand }

func (d draw) of(words ...string) string { return words[d.IntN(len(words))] }

func (d draw) scalar() string {
	return d.of("null", "true", "false", "0", "-0", "1", "1.0", "-2.5", "3", "1e2", "9007199254740992", "-1e300", `""`, `"a"`, `"a b"`, `"a!"`, `"ab"`, `"a\u0000"`, `"\""`, `"b\\"`, `"é"`, `"😀"`, `"`+strings.Repeat("l", 508)+`"`)
}

func (d draw) record() string {
	var fields []string
	for _, name := range []string{"a", "b", "c"} {
		switch d.IntN(8) {
		case 0:
		case 1:
			fields = append(fields, fmt.Sprintf(`"%s": %s`, name, d.of("[]", `{"a": 1}`)))
		default:
			fields = append(fields, fmt.Sprintf(`"%s": %s`, name, d.scalar()))
		}
	}
	return "{" + strings.Join(append(fields, `"n": {"x": `+d.scalar()+`}`), ", ") + "}"
}

func (d draw) pointer() string { return d.of("/a", "/b", "/c", "/n/x") }

func (d draw) cond(depth int) string {
	if depth > 0 && d.IntN(2) == 0 {
		return fmt.Sprintf(`{"%s": [%s, %s]}`, d.of("and", "and", "or"), d.cond(depth-1), d.cond(depth-1))
	}
	f := d.pointer()
	scalar := func() string {
		for {
			if s := d.scalar(); s[0] != 'n' && s[0] != 't' && s[0] != 'f' {
				return s
			}
		}
	}
	switch d.IntN(6) {
	case 0:
		return fmt.Sprintf(`{"field": "%s", "prefix": %s}`, f, d.of(`""`, `"a"`, `"a "`, `"\""`, `"é"`))
	case 1:
		return fmt.Sprintf(`{"field": "%s", "%s": %s}`, f, d.of("above", "from", "below", "to"), scalar())
	case 2:
		return fmt.Sprintf(`{"field": "%s", "%s": %s, "%s": %s}`, f, d.of("above", "from"), scalar(), d.of("below", "to"), scalar())
	}
	return fmt.Sprintf(`{"field": "%s", "equals": %s}`, f, d.scalar())
}

func (d draw) query() string {
	var parts []string
	if d.IntN(4) > 0 {
		parts = append(parts, `"where": `+d.cond(3))
	}
	if d.IntN(3) > 0 {
		down := func() string { return d.of("true", "false") }
		fields := fmt.Sprintf(`{"field": "%s", "descending": %s}`, d.of("/a", "/b"), down())
		if d.IntN(2) == 0 {
			fields += fmt.Sprintf(`, {"field": "%s", "descending": %s}`, d.of("/c", "/n/x"), down())
		}
		parts = append(parts, `"order": [`+fields+`]`)
	}
	if d.IntN(4) == 0 {
		parts = append(parts, fmt.Sprintf(`"limit": %d`, 1+d.IntN(40)))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

const manyIndexes = `{"x-circles-index": [["/a"], ["/a", "/c"], ["/b", "/n/x", "/a"], ["/b"], ["/n/x", "/b"]]}`

// TestQueriesMeanWhatTheySay: whatever is asked, of whatever records, in pages of
// whatever size, by whatever indexes, the answer is what the query means; while
// records come, change and go.
func TestQueriesMeanWhatTheySay(t *testing.T) {
	b := newBench(t)
	d := draw{rand.New(rand.NewPCG(2, 7))}
	m := model{}
	change := func(n int) {
		b.must(b.update(func(_ *Tx, c *Collections) error {
			for range n {
				key := fmt.Sprintf("k %d", d.IntN(300))
				if d.IntN(4) == 0 && m[key] != nil {
					delete(m, key)
					if err := c.Delete(ctx, "c", key); err != nil {
						return err
					}
					continue
				}
				text := d.record()
				var v any
				b.must(json.Unmarshal([]byte(text), &v))
				m[key] = v
				if err := c.Put(ctx, "c", key, []byte(text)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	change(250)
	for _, indexes := range []string{`{}`, manyIndexes} {
		b.bind("c", indexes)
		asked, some := 0, 0
		for range 12 {
			for range 20 {
				query := d.query()
				got, err := b.find("c", query, []int{0, 9, 50, 200}[d.IntN(4)])
				if err != nil {
					if !strings.Contains(err.Error(), "alternatives") {
						t.Fatalf("%s: %v", query, err)
					}
					continue
				}
				want := m.find(t, query)
				if asked++; len(want) > 0 {
					some++
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%s with %s:\n%q\nwant\n%q", query, indexes, got, want)
				}
			}
			change(30)
		}
		if asked < 150 || some < asked/3 {
			t.Errorf("%d queries, %d with an answer", asked, some)
		}
	}
}

// TestIndexesFollow: on each store, indexes are right after what scripts do, after a
// restart, after what the owner does to the files of records, or of indexes, and when
// the schema asks for others.
func TestIndexesFollow(t *testing.T) {
	for name, open := range map[string]func(dir string) (store.Store, error){
		"mem": func(string) (store.Store, error) { return mem.New(mem.Config{}), nil },
		"fs": func(dir string) (store.Store, error) {
			return fs.Open(fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")})
		},
		"sqlite": func(dir string) (store.Store, error) {
			return sqlite.Open(sqlite.Config{Path: filepath.Join(dir, "db")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := &bench{TB: t}
			var err error
			b.s, err = open(dir)
			b.must(err)
			defer func() { b.s.Close() }()
			stale := 0
			b.c.Stale = func(string) { stale++ }
			b.bind("c", `{"x-circles-index": [["/n"], ["/s", "/n"]]}`)
			for from := 0; from < 600; from += 300 {
				var kv []string
				for i := from; i < from+300; i++ {
					kv = append(kv, fmt.Sprintf("%04d", i), fmt.Sprintf(`{"n": %d, "s": "s%d", "pad": "%0100d"}`, 599-i, i%7, i))
				}
				b.put("c", kv...)
			}
			ask := func(want string, indexed bool) {
				t.Helper()
				for query, want := range map[string]string{
					`{"where": {"field": "/n", "from": 10, "below": 13}}`:                                                                             want,
					`{"where": {"field": "/s", "equals": "s3"}, "order": [{"field": "/n"}], "limit": 2}`:                                              "0598 0591",
					`{"where": {"or": [{"field": "/n", "equals": 5}, {"field": "/n", "equals": 3}]}, "order": [{"field": "/n", "descending": true}]}`: "0594 0596",
				} {
					got, err := b.find("c", query, 0)
					if err != nil || strings.Join(got, " ") != want {
						t.Errorf("%s: %q, %v; want %s", query, got, err, want)
					}
					if used := b.uses("c", query); used != indexed {
						t.Errorf("%s uses an index: %v", query, used)
					}
				}
			}
			ask("0587 0588 0589", true)
			// What stays as it was, or is changed back, has no other times.
			b.put("c", "0588", fmt.Sprintf(`{"n": %d, "s": "s%d", "pad": "%0100d"}`, 599-588, 588%7, 588))
			b.must(b.update(func(_ *Tx, c *Collections) error {
				return errors.Join(c.Put(ctx, "c", "0300x", []byte(`{}`)), c.Delete(ctx, "c", "0300x"))
			}))
			ask("0587 0588 0589", true)
			b.put("c", "0588", `{"n": 5000}`, "0000", `{"n": 12.5}`)
			b.must(b.update(func(_ *Tx, c *Collections) error { return c.Delete(ctx, "c", "0589") }))
			ask("0000 0587", true)
			if name != "mem" {
				b.must(b.s.Close())
				b.s, err = open(dir)
				b.must(err)
				ask("0000 0587", true)
			}
			reindex := func(want bool) {
				t.Helper()
				b.must(b.update(func(t *Tx, _ *Collections) error {
					made, err := t.Reindex(ctx, "c", b.c.Schemas.Of("c").Indexes())
					if made != want {
						b.Errorf("made again: %v", made)
					}
					return err
				}))
			}
			reindex(false)
			if stale > 0 {
				t.Error("indexes were stale")
			}
			for what, edit := range map[string]func(private store.FS) error{
				"a page of records": func(private store.FS) error {
					const page = "records/c/1.ndjson"
					return writeFile(private, page, strings.Replace(fileText(t, private, page), `"n": 12.5`, `"n": 11.5`, 1))
				},
				"a page of records that is gone, and came back": func(private store.FS) error {
					const page = "records/c/1.ndjson"
					text := fileText(t, private, page)
					if err := private.Unlink(page); err != nil {
						return err
					}
					return writeFile(private, page, text)
				},
				"the indexes' lists": func(private store.FS) error {
					return errors.Join(private.Unlink("indexes/c/"+numbered(t, private, 0)+"/index.ndjson"), private.Unlink("indexes/c/"+numbered(t, private, 1)+"/index.ndjson"))
				},
				"damaged indexes": func(private store.FS) error {
					return errors.Join(writeFile(private, "indexes/c/"+numbered(t, private, 0)+"/index.ndjson", "{"), writeFile(private, "indexes/c/"+numbered(t, private, 1)+"/index.ndjson", "[]"))
				},
				"no state": func(private store.FS) error { return private.Unlink("indexes/c/state.json") },
				"another state": func(private store.FS) error {
					return writeFile(private, "indexes/c/state.json", `{"indexes":[{"fields":["/n"],"at":1,"pages":0}],"pages":"00000000000000000000000000000000"}`)
				},
			} {
				b.must(b.s.Update(ctx, func(tx store.Tx) error { return edit(tx.Private()) }))
				ask("0000 0587", false) // by looking at all
				reindex(true)
				ask("0000 0587", true)
				if t.Failed() {
					t.Fatal(what)
				}
			}
			if stale == 0 {
				t.Error("nobody was told that indexes are stale")
			}
			// A page of an index that is gone is found out by whoever looks for it.
			b.must(b.s.Update(ctx, func(tx store.Tx) error {
				return tx.Private().Unlink("indexes/c/" + numbered(t, tx.Private(), 0) + "/1.ndjson")
			}))
			b.put("c", "0001", `{"n": -1}`)
			reindex(true)
			ask("0000 0587", true)
			b.bind("c", `{"x-circles-index": [["/s", "/n"], ["/n"]]}`)
			ask("0000 0587", true)
			b.bind("c", `{}`)
			ask("0000 0587", false)
			b.must(b.view(func(c *Collections) error {
				if names, err := c.t.names("indexes/c"); len(names) > 0 || err != nil {
					t.Errorf("indexes of before: %v, %v", names, err)
				}
				return nil
			}))
		})
	}
}

func fileText(t *testing.T, private store.FS, path string) string {
	text, _, err := In(private, Config{}).read(path, maxPage)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// numbered is the directory of an index.
func numbered(t *testing.T, private store.FS, n int) string {
	names, err := In(private, Config{}).names("indexes/c")
	if err != nil || len(names) < 2 {
		t.Fatalf("no indexes: %v", err)
	}
	return names[n].Name
}

// TestQueryTellsNothingOfWhatMayNotBeGot: records that may not be got are as if they
// were not there, in what is found and what is counted.
func TestQueryTellsNothingOfWhatMayNotBeGot(t *testing.T) {
	b := newBench(t)
	for _, text := range []string{`{}`, `{"x-circles-index": [["/n"]]}`} {
		b.bind("c", text)
		b.put("c", "a", `{"n": 1}`, "hidden", `{"n": 2}`, "secret", `{"n": 2}`, "z", `{"n": 3}`)
		b.must(b.view(func(all *Collections) error {
			c := all.t.As(guardFunc(func(op Op, _, key string) error {
				switch {
				case op == OpGet && key == "hidden":
					return store.ErrHidden
				case op == OpGet && key == "secret":
					return errors.New("no")
				}
				return nil
			}))
			for query, want := range map[string]string{
				`{}`: "a z", `{"where": {"field": "/n", "equals": 2}}`: "", `{"order": [{"field": "/n", "descending": true}]}`: "z a",
				`{"where": {"or": [{"field": "/n", "from": 2}, {"field": "/n", "below": 0}]}, "limit": 1}`: "z",
			} {
				page, err := c.Query(ctx, "c", query, "", 2)
				var keys []string
				for _, r := range page.Records {
					keys = append(keys, r.Key)
				}
				if err != nil || strings.Join(keys, " ") != want || page.Next != "" {
					t.Errorf("%s: %q, next %q, %v; want %s", query, keys, page.Next, err, want)
				}
			}
			hidden := all.t.As(guardFunc(func(op Op, _, _ string) error { return map[Op]error{OpQuery: store.ErrHidden}[op] }))
			if page, err := hidden.Query(ctx, "c", "{", "", 0); err != nil || len(page.Records) > 0 {
				t.Errorf("a hidden collection: %v, %v", page, err)
			}
			denied := all.t.As(guardFunc(func(Op, string, string) error { return errors.New("no") }))
			if _, err := denied.Query(ctx, "c", "{}", "", 0); !errors.Is(err, store.ErrDenied) {
				t.Errorf("a denied collection: %v", err)
			}
			return nil
		}))
	}
}

// TestCursorsTellNothing: where a page ends that looked at many records which may not
// be got, nothing is told of the one that it ends at.
func TestCursorsTellNothing(t *testing.T) {
	b := newBench(t)
	kv := []string{"z", "{}"}
	for i := range MaxLooked + 10 {
		kv = append(kv, fmt.Sprintf("mallory/%05d", i), "{}")
	}
	b.put("c", kv...)
	b.must(b.view(func(all *Collections) error {
		c := all.t.As(guardFunc(func(op Op, _, key string) error {
			if op == OpGet && key != "z" {
				return store.ErrHidden
			}
			return nil
		}))
		page, err := c.Query(ctx, "c", `{}`, "", 1)
		b.must(err)
		raw, err := base64.RawURLEncoding.DecodeString(page.Next)
		if err != nil || len(page.Records) != 0 || len(raw) < 500 || bytes.Contains(raw, []byte("mallory")) {
			t.Fatalf("%d records, next %q, %v", len(page.Records), raw, err)
		}
		next, err := c.Query(ctx, "c", `{}`, page.Next, 1)
		if err != nil || len(next.Records) != 1 || next.Records[0].Key != "z" || next.Next != "" {
			t.Errorf("the page after it: %v, %v", next, err)
		}
		raw[len(raw)-1] ^= 1
		for _, start := range []string{base64.RawURLEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw[:10]), base64.RawURLEncoding.EncodeToString(raw[:40])} {
			if _, err := c.Query(ctx, "c", `{}`, start, 1); err == nil || !strings.Contains(err.Error(), "begin without one") {
				t.Errorf("a cursor that was changed: %v", err)
			}
		}
		return nil
	}))
}

// TestPagesOutliveChanges: a cursor is a place, not a number: what is put and
// deleted between two pages makes neither a record come twice nor one be left out.
func TestPagesOutliveChanges(t *testing.T) {
	b := newBench(t)
	b.bind("c", `{"x-circles-index": [["/n"]]}`)
	for i := range 100 {
		b.put("c", fmt.Sprintf("%02d", i), fmt.Sprintf(`{"n": %d}`, i/10))
	}
	for _, query := range []string{`{"order": [{"field": "/n"}]}`, `{"order": [{"field": "/n", "descending": true}]}`,
		`{"where": {"or": [{"field": "/n", "below": 50}, {"field": "/n", "equals": 3}]}}`} {
		had := map[string]int{}
		start := ""
		for n := 0; n == 0 || start != ""; n++ {
			b.must(b.view(func(c *Collections) error {
				page, err := c.Query(ctx, "c", query, start, 7)
				for _, r := range page.Records {
					had[r.Key]++
				}
				start = page.Next
				return err
			}))
			last := slices.Max(slices.Collect(maps.Keys(had)))
			b.must(b.update(func(_ *Tx, c *Collections) error {
				_ = c.Delete(ctx, "c", "new"+last)
				return c.Put(ctx, "c", "new"+last, []byte(`{"n": 4.5}`))
			}))
			if n == 3 { // where the last page ended
				b.must(b.update(func(_ *Tx, c *Collections) error { return c.Delete(ctx, "c", last) }))
			}
		}
		old := 0
		for key, n := range had {
			if n != 1 {
				t.Errorf("%s came %d times", key, n)
			}
			if len(key) == 2 {
				old++
			}
		}
		if old < 98 {
			t.Errorf("%s: %d records came", query, old)
		}
	}
	b.must(b.view(func(c *Collections) error {
		page, err := c.Query(ctx, "c", `{}`, "", 1)
		b.must(err)
		for _, start := range []string{"x", "AQ", page.Next[:4], strings.Repeat("A", 1000), page.Next} {
			if _, err := c.Query(ctx, "c", `{ }`, start, 1); err == nil || !strings.Contains(err.Error(), "start is not the next of a page of this query") {
				t.Errorf("start %.20q: %v", start, err)
			}
		}
		return nil
	}))
}

// TestQueriesAreBounded: what would look at everything says which index it wants.
func TestQueriesAreBounded(t *testing.T) {
	b := newBench(t)
	var kv []string
	for i := range MaxLooked + 10 {
		kv = append(kv, fmt.Sprintf("%05d", i), fmt.Sprintf(`{"n":%d,"s":"x"}`, i))
	}
	b.put("c", kv...)
	fails := func(query, want string) {
		t.Helper()
		if _, err := b.find("c", query, 5); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", query, err, want)
		}
	}
	fails(`{"where": {"field": "/n", "equals": -1}}`, `more than 10000 records; the collection's owner can declare an index for it, in schema/c.json: "x-circles-index": [["/n"]]`)
	fails(`{"where": {"field": "/s", "equals": "x"}, "order": [{"field": "/n"}]}`, `[["/s", "/n"]]`)
	b.bind("c", `{"x-circles-index": [["/s"]]}`)
	fails(`{"where": {"field": "/s", "equals": "x"}, "order": [{"field": "/n"}]}`, `[["/s", "/n"]]`)
	b.bind("c", `{"x-circles-index": [["/s", "/n"]]}`)
	if got, err := b.find("c", `{"where": {"field": "/s", "equals": "x"}, "order": [{"field": "/n", "descending": true}], "limit": 2}`, 0); err != nil || strings.Join(got, " ") != "10009 10008" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := b.find("c", `{}`, 1000); err != nil || len(got) != MaxLooked+10 {
		t.Errorf("all: %d, %v", len(got), err)
	}
	b.owner(func(private store.FS) error {
		return writeFile(private, "records/c/3.ndjson", fileText(t, private, "records/c/3.ndjson")+"\n")
	})
	fails(`{"where": {"field": "/n", "equals": -1}}`, "the index that it needs is being made")
	for _, query := range []string{"", "[]", `{"wher": {}}`, `{"where": {}}`, `{"where": {"field": "n", "equals": 1}}`, `{"where": {"field": "/n", "equals": [1]}}`,
		`{"where": {"field": "/n", "equal": 1}}`, `{"order": [{}]}`, `{"limit": -1}`, `{"limit": 1.5}`, `{"where": {"and": []}}`,
		`{"where": {"field": "/n", "above": null}}`, `{"where": {"field": "/n", "above": 1, "from": 1}}`, strings.Repeat(`{"where":`, 1000),
		`{"where": ` + strings.Repeat(`{"and": [`, 40) + `{"field": "/n", "equals": 1}` + strings.Repeat(`]}`, 40) + `}`,
		`{"where": {"and": [` + strings.Repeat(`{"or": [{"field": "/a", "equals": 1}, {"field": "/b", "equals": 1}]}, `, 30) + `{"field": "/n", "equals": 1}]}}`} {
		var wrong *QueryError
		err := b.view(func(c *Collections) error { _, err := c.Query(ctx, "c", query, "", 0); return err })
		if !errors.As(err, &wrong) || !strings.Contains(wrong.Error(), "line 1, column ") {
			t.Errorf("%.60s: %v", query, err)
		}
	}
}
