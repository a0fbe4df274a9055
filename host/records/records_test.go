package records

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/sqlite"
)

// bench is a context with records in it, and words for what is done to them.
type bench struct {
	testing.TB
	s store.Store
	c Config
}

func newBench(t testing.TB) *bench {
	b := &bench{TB: t, s: mem.New(mem.Config{})}
	t.Cleanup(func() { b.s.Close() })
	return b
}

// update runs f in a transaction that is flushed, and returns what came of it.
func (b *bench) update(f func(*Tx, *Collections) error) error {
	return b.s.Update(context.Background(), func(tx store.Tx) error {
		t := In(tx.Private(), b.c)
		if err := f(t, t.As(nil)); err != nil {
			return err
		}
		return t.Flush(context.Background())
	})
}

func (b *bench) view(f func(*Collections) error) error {
	return b.s.View(context.Background(), func(tx store.Tx) error {
		c := b.c
		c.ReadOnly = true
		return f(In(tx.Private(), c).As(nil))
	})
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) want(target, err error) {
	b.Helper()
	if !errors.Is(err, target) {
		b.Fatalf("got %v, want %v", err, target)
	}
}

// put commits records of a collection: key, value, key, value …
func (b *bench) put(collection string, kv ...string) {
	b.Helper()
	b.must(b.update(func(_ *Tx, c *Collections) error {
		for i := 0; i < len(kv); i += 2 {
			if err := c.Put(ctx, collection, kv[i], []byte(kv[i+1])); err != nil {
				return err
			}
		}
		return nil
	}))
}

// all reads a collection by scans.
func all(c *Collections, collection string, limit int) (map[string]string, error) {
	found := map[string]string{}
	last := ""
	for from := ""; ; {
		page, err := c.Scan(ctx, collection, Range{From: from, Limit: limit})
		if err != nil {
			return nil, err
		}
		for _, r := range page.Records {
			if r.Key <= last {
				return nil, fmt.Errorf("%q comes after %q", r.Key, last)
			}
			last = r.Key
			found[r.Key] = string(r.Value)
		}
		if from = page.Next; from == "" {
			return found, nil
		}
	}
}

// wantAll compares a collection with key, value, key, value …
func (b *bench) wantAll(collection string, kv ...string) {
	b.Helper()
	b.must(b.view(func(c *Collections) error {
		got, err := all(c, collection, 0)
		if err != nil {
			return err
		}
		want := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			want[kv[i]] = kv[i+1]
		}
		if !maps.Equal(got, want) {
			b.Errorf("%s holds %q, want %q", collection, got, want)
		}
		return nil
	}))
}

// owner does something to the files, as the context's owner may.
func (b *bench) owner(f func(fs store.FS) error) {
	b.Helper()
	b.must(b.s.Update(context.Background(), func(tx store.Tx) error { return f(tx.Private()) }))
}

func writeFile(fs store.FS, path, text string) error {
	for i := range path {
		if path[i] == '/' {
			if err := fs.Mkdir(path[:i]); err != nil && !errors.Is(err, store.ErrExists) {
				return err
			}
		}
	}
	f, err := fs.Open(path, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(text), 0)
	return err
}

func (b *bench) file(path string) (text string) {
	b.Helper()
	b.must(b.s.View(context.Background(), func(tx store.Tx) (err error) {
		text, err = readFile(tx.Private(), path)
		return err
	}))
	return text
}

func readFile(fs store.FS, path string) (string, error) {
	f, err := fs.Open(path, store.FlagRead)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	return string(text), err
}

func (b *bench) files(dir string) (names []string) {
	b.Helper()
	b.must(b.s.View(context.Background(), func(tx store.Tx) error {
		f, err := tx.Private().Open(dir, store.FlagRead|store.FlagDirectory)
		if errors.Is(err, store.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		list, err := f.ReadDir(0, 1<<20)
		for _, e := range list {
			names = append(names, e.Name)
		}
		return err
	}))
	return names
}

var ctx = context.Background()

// TestReadableFiles: what an owner sees is text, a record a line, and JSON is JSON.
func TestReadableFiles(t *testing.T) {
	b := newBench(t)
	b.put("notes", "b", "plain \"text\" & <more>\n", "a", `{"n": [1, 2]}`, "c", "\x00\x01", "d", "", "é/ü \"q\" \\", "1")
	want := `{"key":"a","value":{"n": [1, 2]}}
{"key":"b","text":"plain \"text\" & <more>\n"}
{"key":"c","base64":"AAE="}
{"key":"d","base64":""}
{"key":"é/ü \"q\" \\","value":1}
`
	if got := b.file("records/notes/1.ndjson"); got != want {
		t.Errorf("the page is\n%swant\n%s", got, want)
	}
	if got := b.file("records/notes/index.ndjson"); got != `{"page":1,"from":""}`+"\n" {
		t.Errorf("the index is %s", got)
	}
	b.wantAll("notes", "b", "plain \"text\" & <more>\n", "a", `{"n": [1, 2]}`, "c", "\x00\x01", "d", "", "é/ü \"q\" \\", "1")
}

// TestEveryValueComesBack: byte for byte, whatever it is.
func TestEveryValueComesBack(t *testing.T) {
	for _, v := range values {
		e := entry{"k", encodeLine("k", []byte(v))}
		if got, err := e.value(); err != nil || string(got) != v || got == nil {
			t.Errorf("%q came back as %q, %v, from %s", v, got, err, e.line)
		}
	}
}

var values = []string{
	"", " ", "null", "true", "1", "1e999", "-0", `""`, `"\ud800"`, `"a"`, " 1", "1 ", "1\n", "[1,\n2]", "[1,\r2]", "{}", `{"a":1,"a":2}`, "[", "\"\x00\"",
	"\"\xff\"", "\xff", "text", "\x7f", "\x1b[2J", "\t\r\n", "\u2028", "<script>", "\\", `"`, "}", `{"key":"a","value":1}`, "\ufeff", strings.Repeat("x", 1<<20),
	strings.Repeat("[", 9000) + strings.Repeat("]", 9000), strings.Repeat("[", 20000) + strings.Repeat("]", 20000), "1,\"x\":2",
}

func FuzzValue(f *testing.F) {
	for _, v := range values {
		f.Add("k", []byte(v))
	}
	f.Add(`a"\`, []byte("1"))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if script.CheckKey(key) != nil {
			return
		}
		line := encodeLine(key, value)
		entries, err := parsePage(line+"\n", script.CheckKey)
		if err != nil || len(entries) != 1 || entries[0].key != key {
			t.Fatalf("%s is %v, %v", line, entries, err)
		}
		if got, err := entries[0].value(); err != nil || string(got) != string(value) {
			t.Fatalf("%q came back as %q, %v, from %s", value, got, err, line)
		}
		// However its owner lays it out.
		if w, err := parseLine(line); err != nil || *w.Key != key {
			t.Fatalf("%s is %v to a stricter reader", line, err)
		}
	})
}

// FuzzPage: whatever a page and an index hold, it is an error or a collection that
// can be used.
func FuzzPage(f *testing.F) {
	f.Add(`{"key":"a","value":1}`+"\n"+`{"key":"b","text":"x"}`, `{"page":1,"from":""}`)
	f.Add(`{"key":"b","value":1}`+"\r\n\n"+` {"base64":"AA==","key":"a"} `, `{"page":1,"from":""}`+"\n"+`{"page":2,"from":"c"}`)
	f.Add(`{"key":"a","value":1,"x":2}`, `{"page": 1, "from": "\u0061"}`)
	f.Add("{\"key\":\"a\",\"value\":\x00}", "")
	f.Add(`{"key":"a","value":1}`+"\n"+`{"key":"a","value":1}`, `{"page":18446744073709551615,"from":""}`)
	f.Add(strings.Repeat("[", 100_000), strings.Repeat(`{"page":`, 1000))
	f.Fuzz(func(t *testing.T, page, index string) {
		b := &bench{TB: t, s: mem.New(mem.Config{})}
		defer b.s.Close()
		b.owner(func(fs store.FS) error {
			if index != "" {
				if err := writeFile(fs, "records/c/index.ndjson", index); err != nil {
					return err
				}
			}
			return writeFile(fs, "records/c/1.ndjson", page)
		})
		err := b.update(func(_ *Tx, c *Collections) error {
			before, err := all(c, "c", 3)
			if err != nil {
				return err
			}
			for key, value := range before {
				if got, err := c.Get(ctx, "c", key); err != nil || string(got) != value {
					t.Errorf("%q is %q by scan, and %q by get, %v", key, value, got, err)
				}
			}
			if err := c.Put(ctx, "c", "added", []byte("x")); err != nil {
				return err
			}
			before["added"] = "x"
			after, err := all(c, "c", 1000)
			if err != nil || !maps.Equal(before, after) {
				t.Errorf("after a put: %q, %v; want %q", after, err, before)
			}
			return nil
		})
		var damage *DamageError
		if err == nil {
			b.must(b.view(func(c *Collections) error { _, err := c.Get(ctx, "c", "added"); return err }))
		} else if !errors.As(err, &damage) {
			t.Errorf("error %v", err)
		} else if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Errorf("error %q", err)
		}
	})
}

// TestAgainstAMap does the same random things to a collection and to a map, with
// splits, joins, little memory, and transactions that are given up.
func TestAgainstAMap(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			b := newBench(t)
			rounds := 20
			switch dir := t.TempDir(); {
			case seed == 1 && runtime.GOOS != "windows":
				b.s = must(fs.Open(fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")}))
			case seed == 3:
				b.s = must(sqlite.Open(sqlite.Config{Path: filepath.Join(dir, "db")}))
			}
			t.Cleanup(func() { b.s.Close() })
			b.c.Limits.Cached = []int64{1, 40 << 10, 0}[seed%3]
			model := map[string]string{}
			key := func() string {
				switch rnd.IntN(4) {
				case 0:
					return strings.Repeat("k", rnd.IntN(5)) + fmt.Sprint(rnd.IntN(30))
				case 1:
					return strings.Repeat("é", 500) + fmt.Sprint(rnd.IntN(50))
				}
				return fmt.Sprintf("%04d", rnd.IntN(400))
			}
			stop := errors.New("stop")
			if seed == 1 || seed == 3 { // on a disk
				rounds = 6
			}
			for range rounds {
				next := maps.Clone(model)
				commit := rnd.IntN(4) > 0
				shrink := rnd.IntN(3) == 0
				err := b.update(func(tx *Tx, c *Collections) error {
					for range rnd.IntN(120) {
						k := key()
						switch op := rnd.IntN(10); {
						case op < 5 && !shrink:
							v := strings.Repeat("v", rnd.IntN(3000)) + k
							next[k] = v
							b.must(c.Put(ctx, "c", k, []byte(v)))
						case op < 8:
							_, ok := next[k]
							delete(next, k)
							if err := c.Delete(ctx, "c", k); (err == nil) != ok {
								t.Fatalf("delete %q: %v", k, err)
							}
						default:
							v, err := c.Get(ctx, "c", k)
							if want, ok := next[k]; ok != (err == nil) || string(v) != want {
								t.Fatalf("get %q: %q, %v", k, v, err)
							}
						}
					}
					if shrink && rnd.IntN(2) == 0 {
						for _, k := range slices.Sorted(maps.Keys(next)) {
							if rnd.IntN(8) > 0 {
								delete(next, k)
								b.must(c.Delete(ctx, "c", k))
							}
						}
					}
					got, err := all(c, "c", 1+rnd.IntN(100))
					b.must(err)
					if !maps.Equal(got, next) {
						t.Fatalf("in the transaction: %d records, want %d", len(got), len(next))
					}
					checkChanges(t, tx, model, next)
					if !commit {
						return stop
					}
					return nil
				})
				if commit {
					b.must(err)
					model = next
				} else {
					b.want(stop, err)
				}
				b.must(b.view(func(c *Collections) error {
					got, err := all(c, "c", 0)
					if !maps.Equal(got, model) {
						t.Fatalf("after it: %d records, want %d", len(got), len(model))
					}
					prefix := key()
					prefix = prefix[:min(len(prefix), 2)]
					page, err2 := c.Scan(ctx, "c", Range{Prefix: prefix})
					n := 0
					for k := range model {
						if strings.HasPrefix(k, prefix) {
							n++
						}
					}
					if len(page.Records) != n {
						t.Fatalf("%d records of %d begin with %q", len(page.Records), n, prefix)
					}
					return errors.Join(err, err2)
				}))
				b.checkFiles("c", len(model))
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func checkChanges(t *testing.T, tx *Tx, before, after map[string]string) {
	t.Helper()
	state := maps.Clone(before)
	for _, c := range tx.Changes() {
		if was, ok := state[c.Key]; ok != (c.Before != nil) || string(c.Before) != was {
			t.Fatalf("%q was %q, and not %q", c.Key, was, c.Before)
		}
		if c.After == nil {
			delete(state, c.Key)
		} else {
			state[c.Key] = string(c.After)
		}
	}
	if !maps.Equal(state, after) {
		t.Fatalf("the changes make %d records of %d, want %d", len(state), len(before), len(after))
	}
}

// checkFiles checks that a collection's files are as its documentation says.
func (b *bench) checkFiles(collection string, records int) {
	b.Helper()
	names := b.files(root + "/" + collection)
	if records == 0 {
		if len(names) > 0 {
			b.Errorf("an empty collection has the files %q", names)
		}
		return
	}
	pages, err := parseIndex(b.file(root+"/"+collection+"/"+indexName), script.CheckKey)
	b.must(err)
	if len(names) != len(pages)+1 {
		b.Errorf("the files are %q, for %d pages", names, len(pages))
	}
	total, small := 0, 0
	for i, p := range pages {
		text := b.file(fmt.Sprintf("%s/%s/%d%s", root, collection, p.number, suffix))
		entries, err := parsePage(text, script.CheckKey)
		b.must(err)
		total += len(entries)
		if len(text) > pageSize && len(entries) > 1 {
			b.Errorf("page %d has %d bytes", p.number, len(text))
		}
		if len(text) < mergeBelow {
			small++
		}
		for _, e := range entries {
			if e.key < p.from || i+1 < len(pages) && e.key >= pages[i+1].from {
				b.Errorf("page %d from %q holds %q", p.number, p.from, e.key)
			}
		}
	}
	if total != records {
		b.Errorf("the files hold %d records, want %d", total, records)
	}
	if small > len(pages)*3/4+1 {
		b.Errorf("%d of %d pages are nearly empty", small, len(pages))
	}
}

// TestScan: from, prefix, limit and bytes, and where to go on.
func TestScan(t *testing.T) {
	b := newBench(t)
	b.put("c", "a", "1", "b/1", "22", "b/2", "333", "b/3", "4444", "c", "5")
	for _, tc := range []struct {
		r    Range
		want string
	}{
		{Range{}, "a b/1 b/2 b/3 c"},
		{Range{Prefix: "b/"}, "b/1 b/2 b/3"},
		{Range{Prefix: "b/", From: "b/2"}, "b/2 b/3"},
		{Range{Prefix: "b/", From: "a"}, "b/1 b/2 b/3"},
		{Range{Prefix: "b/", From: "c"}, ""},
		{Range{From: "b"}, "b/1 b/2 b/3 c"},
		{Range{From: "b\x00\xff"}, "b/1 b/2 b/3 c"},
		{Range{From: "d"}, ""},
		{Range{Limit: 2}, "a b/1 …b/2"},
		{Range{Prefix: "b/", Limit: 3}, "b/1 b/2 b/3"},
		{Range{Prefix: "b/", Limit: 2}, "b/1 b/2 …b/3"},
		{Range{Bytes: 1}, "a …b/1"},
		{Range{Bytes: 7}, "a b/1 …b/2"},
		{Range{Limit: 1 << 30, Bytes: -1}, "a b/1 b/2 b/3 c"},
	} {
		b.must(b.view(func(c *Collections) error {
			page, err := c.Scan(ctx, "c", tc.r)
			var got []string
			for _, r := range page.Records {
				got = append(got, r.Key)
			}
			if page.Next != "" {
				got = append(got, "…"+page.Next)
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("%+v: %q, want %q", tc.r, s, tc.want)
			}
			return err
		}))
	}
	b.must(b.view(func(c *Collections) error {
		page, err := c.Scan(ctx, "none", Range{})
		if len(page.Records) > 0 {
			t.Error("a collection that is not there has records")
		}
		return err
	}))
}

// TestNames: a name is never a path. What can be none is refused before a guard,
// or the store, hears of it.
func TestNames(t *testing.T) {
	b := newBench(t)
	collections := []string{"", ".", "..", "a/b", "/", "../x", "a\x00b", "A", "a_b", "a--b", "-a", "a-", "1a", "a.ndjson", "é", "a\xff", "a b", "a\n", strings.Repeat("a", 65), strings.Repeat("a", 1<<20)}
	keys := []string{"", "\x00", "a\x00", "a\nb", "\x1b[2J", "a\u0085", "\xff", "a\xc3", strings.Repeat("k", 1025), strings.Repeat("k", 1<<20)}
	asked := guardFunc(func(Op, string, string) error { t.Error("the guard was asked"); return nil })
	b.must(b.update(func(tx *Tx, _ *Collections) error {
		c := tx.As(asked)
		try := func(collection, key string) {
			t.Helper()
			_, err := c.Get(ctx, collection, key)
			b.want(store.ErrInvalid, err)
			b.want(store.ErrInvalid, c.Put(ctx, collection, key, nil))
			b.want(store.ErrInvalid, c.PutIf(ctx, collection, key, nil, script.Digest{}))
			b.want(store.ErrInvalid, c.Delete(ctx, collection, key))
			if len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\x00\n\x1b") {
				t.Errorf("message %q", err)
			}
		}
		for _, name := range collections {
			try(name, "k")
			_, err := c.Scan(ctx, name, Range{})
			b.want(store.ErrInvalid, err)
		}
		for _, key := range keys {
			try("c", key)
		}
		return nil
	}))
	if names := b.files("/"); len(names) > 0 {
		t.Errorf("there is %q", names)
	}
	// And these are names like any others.
	good := []string{"..", "/", "../../x", ".", "a/../b", " ", "key", `"`, "é", "index.ndjson", strings.Repeat("k", 1024)}
	for _, collection := range []string{"a", "a1-b2", "index", "con", strings.Repeat("a", 64)} {
		var kv []string
		for _, k := range good {
			kv = append(kv, k, "x"+k)
		}
		b.put(collection, kv...)
		b.wantAll(collection, kv...)
	}
	if names := b.files("/"); !slices.Equal(names, []string{"records"}) {
		t.Errorf("there is %q", names)
	}
	b.owner(func(fs store.FS) error {
		return errors.Join(writeFile(fs, "records/README", ""), fs.Mkdir("records/Not One"))
	})
	b.must(b.s.View(ctx, func(tx store.Tx) error {
		names, err := Names(tx.Private())
		if want := []string{"a", "a1-b2", strings.Repeat("a", 64), "con", "index"}; !slices.Equal(names, want) {
			t.Errorf("the collections are %q, want %q", names, want)
		}
		return err
	}))
}

type guardFunc func(op Op, collection, key string) error

func (g guardFunc) Allow(op Op, collection, key string) error { return g(op, collection, key) }

// TestGuard: each access is asked for, before the answer can show whether there is
// anything, and a refusal is ErrDenied and changes nothing.
func TestGuard(t *testing.T) {
	b := newBench(t)
	b.put("c", "a", "1", "secret", "2", "z", "3")
	no := errors.New("no")
	var asked []string
	b.must(b.update(func(tx *Tx, _ *Collections) error {
		c := tx.As(guardFunc(func(op Op, collection, key string) error {
			asked = append(asked, fmt.Sprint(op, collection, key))
			if key == "secret" || collection == "hidden" || key == "none" {
				return no
			}
			return nil
		}))
		for _, key := range []string{"secret", "none"} {
			_, err := c.Get(ctx, "c", key)
			b.want(store.ErrDenied, err)
			b.want(no, err)
			b.want(store.ErrDenied, c.Put(ctx, "c", key, []byte("x")))
			b.want(store.ErrDenied, c.PutIf(ctx, "c", key, []byte("x"), script.Digest{1}))
			b.want(store.ErrDenied, c.Delete(ctx, "c", key))
		}
		_, err := c.Scan(ctx, "hidden", Range{})
		b.want(store.ErrDenied, err)
		asked = nil
		page, err := c.Scan(ctx, "c", Range{})
		if got := fmt.Sprint(page.Records); got != fmt.Sprint([]Record{{"a", []byte("1"), false}, {"secret", nil, true}, {"z", []byte("3"), false}}) {
			t.Errorf("the scan found %s", got)
		}
		if want := []string{"4c", "1ca", "1csecret", "1cz"}; !slices.Equal(asked, want) {
			t.Errorf("asked %q, want %q", asked, want)
		}
		return err
	}))
	b.wantAll("c", "a", "1", "secret", "2", "z", "3")

	// What is hidden is not there: no key of it, and no end of a page either.
	b.must(b.update(func(tx *Tx, _ *Collections) error {
		c := tx.As(guardFunc(func(op Op, collection, key string) error {
			if key == "secret" || key == "z" || collection == "hidden" {
				return fmt.Errorf("it is %w", store.ErrHidden)
			}
			return nil
		}))
		_, err := c.Get(ctx, "c", "secret")
		b.want(store.ErrNotExist, err)
		b.want(store.ErrNotExist, c.Put(ctx, "c", "secret", nil))
		b.want(store.ErrNotExist, c.Delete(ctx, "c", "secret"))
		page, err := c.Scan(ctx, "c", Range{Limit: 1})
		if len(page.Records) != 1 || page.Next != "" {
			t.Errorf("the scan found %v", page)
		}
		b.must(err)
		page, err = c.Scan(ctx, "hidden", Range{})
		if len(page.Records) > 0 {
			t.Errorf("the scan found %v", page)
		}
		return err
	}))
	b.wantAll("c", "a", "1", "secret", "2", "z", "3")

	// What a comparison tells is what reading would: that is asked for too.
	b.must(b.update(func(tx *Tx, _ *Collections) error {
		c := tx.As(guardFunc(func(op Op, _, _ string) error {
			if op == OpGet {
				return no
			}
			return nil
		}))
		b.want(store.ErrDenied, c.PutIf(ctx, "c", "a", []byte("x"), sha256.Sum256([]byte("1"))))
		return nil
	}))
}

// TestPutIf: a change that rests on what was read earlier is made to that, or not.
func TestPutIf(t *testing.T) {
	b := newBench(t)
	none := script.Digest{}
	b.must(b.update(func(_ *Tx, c *Collections) error {
		b.want(ErrMismatch, c.PutIf(ctx, "c", "k", []byte("1"), sha256.Sum256(nil)))
		b.must(c.PutIf(ctx, "c", "k", []byte("1"), none))
		b.want(ErrMismatch, c.PutIf(ctx, "c", "k", []byte("2"), none))
		b.want(ErrMismatch, c.PutIf(ctx, "c", "k", []byte("2"), sha256.Sum256([]byte("2"))))
		b.must(c.PutIf(ctx, "c", "k", []byte("2"), sha256.Sum256([]byte("1"))))
		b.must(c.PutIf(ctx, "c", "e", nil, none))
		b.want(ErrMismatch, c.PutIf(ctx, "c", "e", nil, none)) // an empty record is one
		return nil
	}))
	b.wantAll("c", "k", "2", "e", "")
}

// TestReadOnly: a view changes nothing.
func TestReadOnly(t *testing.T) {
	b := newBench(t)
	b.put("c", "k", "1")
	b.must(b.view(func(c *Collections) error {
		b.want(store.ErrReadOnly, c.Put(ctx, "c", "k", nil))
		b.want(store.ErrReadOnly, c.Delete(ctx, "c", "k"))
		return nil
	}))
}

// TestLimits: what one transaction may change is counted, and what is refused has
// no effect.
func TestLimits(t *testing.T) {
	b := newBench(t)
	b.c.Limits = Limits{Value: 100, Changed: 10, ChangedBytes: 500, Collections: 3}
	b.must(b.update(func(_ *Tx, c *Collections) error {
		b.want(store.ErrTooBig, c.Put(ctx, "c", "k", make([]byte, 101)))
		for i := range 10 {
			b.must(c.Put(ctx, "c", fmt.Sprint("k", i), []byte("x")))
		}
		b.want(store.ErrQuota, c.Put(ctx, "c", "k10", []byte("x")))
		b.must(c.Put(ctx, "c", "k9", []byte("y"))) // that one is counted already
		return nil
	}))
	b.must(b.update(func(_ *Tx, c *Collections) error {
		for range 1000 { // the same again and again is counted as what it is
			b.must(c.Put(ctx, "c", "k0", make([]byte, 100)))
		}
		for i := 1; i < 4; i++ {
			b.must(c.Put(ctx, "c", fmt.Sprint("k", i), make([]byte, 100)))
		}
		b.want(store.ErrQuota, c.Put(ctx, "c", "k4", make([]byte, 100)))
		if v, err := c.Get(ctx, "c", "k4"); string(v) != "x" {
			t.Errorf("k4 is %q, %v", v, err)
		}
		for _, name := range []string{"d", "e"} {
			_, err := c.Scan(ctx, name, Range{})
			b.must(err)
		}
		_, err := c.Get(ctx, "f", "k")
		b.want(store.ErrQuota, err)
		return nil
	}))
}

// TestAMillionRecords: a script that puts as many as it can is stopped by its
// limits, and keeps nothing.
func TestAMillionRecords(t *testing.T) {
	b := newBench(t)
	put := 0
	err := b.update(func(_ *Tx, c *Collections) error {
		for ; put < 1_000_000; put++ {
			if err := c.Put(ctx, "c", fmt.Sprintf("%08d", put), []byte("x")); err != nil {
				return err
			}
		}
		return nil
	})
	b.want(store.ErrQuota, err)
	if put != 100_000 {
		t.Errorf("%d records were put", put)
	}
	b.wantAll("c")
}

// TestLittleMemory: pages in memory are a cache, however many are written and read.
func TestLittleMemory(t *testing.T) {
	b := newBench(t)
	const most = 256 << 10
	b.c.Limits = Limits{Cached: most}
	b.must(b.update(func(tx *Tx, c *Collections) error {
		for i := range 5000 {
			if err := c.Put(ctx, "c", fmt.Sprint(i*7919%5000), make([]byte, 400)); err != nil {
				return err
			}
			var held int64
			for _, p := range tx.loaded {
				held += p.size
			}
			if tx.cached > most+4*pageSize || held > tx.cached {
				t.Fatalf("after %d: %d bytes of pages are in memory, %d are counted", i, held, tx.cached)
			}
		}
		found, err := all(c, "c", 0)
		if len(found) != 5000 || tx.cached > most+4*pageSize {
			t.Errorf("%d records, %d bytes", len(found), tx.cached)
		}
		return err
	}))
}
