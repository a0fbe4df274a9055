package records

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
)

// TestOwnersEdits: what an owner does to the files with an editor is taken as it is
// meant, and kept.
func TestOwnersEdits(t *testing.T) {
	many := func(b *bench) {
		b.must(b.update(func(_ *Tx, c *Collections) error {
			for i := range 40 {
				if err := c.Put(ctx, "c", fmt.Sprintf("%02d", i), make([]byte, 2000)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	for name, run := range map[string]func(b *bench){
		"a page by hand": func(b *bench) {
			b.owner(func(fs store.FS) error {
				return writeFile(fs, "records/shopping/7.ndjson", "{ \"value\" : [ 1,2 ] , \"key\":\"b\"}\r\n\n{\"key\":\"a\",\"text\":\"milk\"}  \n{\"key\":\"\\u0063\",\"base64\":\"AAE=\"}")
			})
			b.wantAll("shopping", "a", "milk", "b", "[ 1,2 ]", "c", "\x00\x01")
			b.put("shopping", "b2", "x")
			// Lines that nobody changed stay as they were written.
			want := "{\"key\":\"a\",\"text\":\"milk\"}  \n{ \"value\" : [ 1,2 ] , \"key\":\"b\"}\n{\"key\":\"b2\",\"text\":\"x\"}\n{\"key\":\"\\u0063\",\"base64\":\"AAE=\"}\n"
			if got := b.file("records/shopping/7.ndjson"); got != want {
				b.Errorf("the page is %q, want %q", got, want)
			}
			b.checkFiles("shopping", 4)
		},
		"pages without an index": func(b *bench) {
			many(b)
			b.owner(func(fs store.FS) error { return fs.Unlink("records/c/index.ndjson") })
			b.must(b.view(func(c *Collections) error {
				found, err := all(c, "c", 7)
				if len(found) != 40 {
					b.Errorf("%d records", len(found))
				}
				return err
			}))
			b.put("c", "00x", "x", "99", "x")
			b.checkFiles("c", 42)
		},
		"a page less": func(b *bench) {
			many(b)
			b.owner(func(fs store.FS) error { return fs.Unlink("records/c/2.ndjson") })
			b.must(b.view(func(c *Collections) error {
				found, err := all(c, "c", 0)
				if len(found) >= 40 || len(found) < 20 {
					b.Errorf("%d records", len(found))
				}
				return err
			}))
			b.put("c", "13", "again") // in the page that is not there
			b.must(b.view(func(c *Collections) error {
				v, err := c.Get(ctx, "c", "13")
				if string(v) != "again" {
					b.Errorf("13 is %q", v)
				}
				return err
			}))
		},
		"an empty page": func(b *bench) {
			many(b)
			b.owner(func(fs store.FS) error { return writeFile(fs, "records/c/1.ndjson", "\n") })
			b.put("c", "00", "x")
			b.must(b.view(func(c *Collections) error { _, err := c.Get(ctx, "c", "00"); return err }))
		},
		"the last number that there is": func(b *bench) {
			b.owner(func(fs store.FS) error {
				return errors.Join(writeFile(fs, "records/c/index.ndjson", `{"page":9007199254740992,"from":""}`), writeFile(fs, "records/c/9007199254740992.ndjson", ""))
			})
			many(b)
			b.checkFiles("c", 40)
		},
		"no collection any more": func(b *bench) {
			b.put("c", "k", "1")
			b.owner(func(fs store.FS) error {
				return errors.Join(fs.Unlink("records/c/1.ndjson"), fs.Unlink("records/c/index.ndjson"), fs.Rmdir("records/c"))
			})
			b.wantAll("c")
			b.put("c", "k", "2")
			b.wantAll("c", "k", "2")
		},
		"files of their own": func(b *bench) {
			b.put("c", "k", "1")
			b.owner(func(fs store.FS) error {
				return errors.Join(writeFile(fs, "records/c/README", "mine"), writeFile(fs, "records/c/2.ndjson", "mine too"), writeFile(fs, "records/c/02.ndjson", "?"))
			})
			many(b) // there will be pages, and 2 is taken
			for path, want := range map[string]string{"records/c/README": "mine", "records/c/2.ndjson": "mine too"} {
				if got := b.file(path); got != want {
					b.Errorf("%s is %q", path, got)
				}
			}
			b.must(b.update(func(_ *Tx, c *Collections) error {
				found, err := all(c, "c", 0)
				for k := range found {
					err = errors.Join(err, c.Delete(ctx, "c", k))
				}
				return err
			}))
			if names := b.files("records/c"); len(names) != 3 {
				b.Errorf("what is left is %q", names)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { run(newBench(t)) })
	}
}

// TestDamage: what cannot be made sense of is an error that says where, is never
// written over, and leaves the rest of the collection usable.
func TestDamage(t *testing.T) {
	line := func(key string) string { return `{"key":"` + key + `","value":1}` + "\n" }
	for _, tc := range []struct{ name, page, index, want string }{
		{"no JSON", line("a") + "what is this\n", "", "/.circles/records/c/1.ndjson is damaged: line 2: "},
		{"no key", line("a") + "{\"value\":1}\n", "", "line 2: "},
		{"no value", `{"key":"a"}`, "", "line 1: "},
		{"two values", `{"key":"a","text":"1","base64":""}`, "", "record 1 in order: "},
		{"another field", `{"key":"a","value":1,"x":2}`, "", "record 1 in order: "},
		{"another line", `{"key":"a","value":1} {"key":"b","value":1}`, "", "record 1 in order: "},
		{"an empty key", `{"key":"","value":1}`, "", "line 1: "},
		{"a control character in a key", `{"key":"\u0007","value":1}`, "", "line 1: "},
		{"a NUL", "\x00", "", "line 1: "},
		{"no UTF-8", "{\"key\":\"a\xff\",\"value\":1}", "", "line 1: "},
		{"no UTF-8 in a value", "{\"key\":\"a\",\"value\":\"\xff\"}", "", "record 1 in order: "},
		{"no JSON in a value", `{"key":"a","value":[}`, "", "record 1 in order: "},
		{"no base64", `{"key":"a","base64":"?"}`, "", "record 1 in order: "},
		{"a key twice", line("a") + line("b") + line("a"), "", "line 3: "},
		{"a long key", line(strings.Repeat("k", 1025)), "", "line 1: "},
		{"deep JSON", `{"key":"a","value":` + strings.Repeat("[", 1<<20), "", "record 1 in order: "},
		{"a large page", strings.Repeat("\n", maxPage+1), "", "at most 8388608 are read"},
		{"a key of another page", line("a") + line("c"), `{"page":1,"from":""}` + "\n" + `{"page":2,"from":"b"}`, "belongs into another page"},
		{"an index of something else", line("a"), "hello", "/.circles/records/c/index.ndjson is damaged: line 1: "},
		{"an index without order", line("a"), `{"page":1,"from":""}` + "\n" + `{"page":2,"from":"b"}` + "\n" + `{"page":3,"from":"b"}`, "line 3: "},
		{"an index without a start", line("a"), `{"page":1,"from":"a"}`, "line 1: "},
		{"an index with a page twice", line("a"), `{"page":1,"from":""}` + "\n" + `{"page":1,"from":"b"}`, "name the same page"},
		{"an index with a huge number", line("a"), `{"page":9007199254740993,"from":""}`, "line 1: "},
		{"a large index", line("a"), strings.Repeat("\n", maxIndex+1), "at most 16777216 are read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t)
			b.owner(func(fs store.FS) error {
				err := writeFile(fs, "records/c/1.ndjson", tc.page)
				if tc.index != "" {
					err = errors.Join(err, writeFile(fs, "records/c/index.ndjson", tc.index))
				}
				return err
			})
			for what, err := range map[string]error{
				"get":    b.view(func(c *Collections) error { _, err := c.Get(ctx, "c", "a"); return err }),
				"scan":   b.view(func(c *Collections) error { _, err := c.Scan(ctx, "c", Range{}); return err }),
				"put":    b.update(func(_ *Tx, c *Collections) error { return c.Put(ctx, "c", "a", []byte("2")) }),
				"delete": b.update(func(_ *Tx, c *Collections) error { return c.Delete(ctx, "c", "a") }),
			} {
				var damage *DamageError
				if !errors.As(err, &damage) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s: %v, want %s", what, err, tc.want)
				} else if len(err.Error()) > 600 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
					t.Errorf("%s: message %q", what, err)
				}
			}
			if got := b.file("records/c/1.ndjson"); got != tc.page {
				t.Error("the damaged page was written over")
			}
			// It is one collection's damage.
			b.put("d", "k", "1")
		})
	}

	b := newBench(t)
	b.owner(func(fs store.FS) error {
		return errors.Join(writeFile(fs, "records/c/1.ndjson", line("a")+line("c")), writeFile(fs, "records/c/2.ndjson", line("b")+line("d")))
	})
	err := b.view(func(c *Collections) error { _, err := c.Get(ctx, "c", "a"); return err })
	if err == nil || !strings.Contains(err.Error(), "is not behind the last one of 1.ndjson") {
		t.Errorf("pages that overlap: %v", err)
	}
	// One damaged page, and the others.
	b.owner(func(fs store.FS) error {
		return errors.Join(writeFile(fs, "records/c/index.ndjson", `{"page":1,"from":""}`+"\n"+`{"page":2,"from":"d"}`), writeFile(fs, "records/c/2.ndjson", "?"))
	})
	b.must(b.view(func(c *Collections) error { _, err := c.Get(ctx, "c", "c"); return err }))
	b.must(b.update(func(_ *Tx, c *Collections) error {
		return errors.Join(c.Put(ctx, "c", "b", nil), c.Delete(ctx, "c", "a"))
	}))
	if got := b.file("records/c/2.ndjson"); got != "?" {
		t.Errorf("the damaged page is %q", got)
	}
}

// TestHostileSizes: what is on the disk does not grow in memory, nor do many of it.
func TestHostileSizes(t *testing.T) {
	b := newBench(t)
	index := `{"page":1,"from":""}` + "\n" + strings.Repeat("\n", maxIndex-100)
	b.owner(func(fs store.FS) error {
		err := writeFile(fs, "records/blank/1.ndjson", strings.Repeat("\n", maxPage))
		for i := range 5 {
			err = errors.Join(err, writeFile(fs, fmt.Sprintf("records/c%d/index.ndjson", i), index))
		}
		return err
	})
	b.must(b.view(func(c *Collections) error {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := c.Scan(ctx, "blank", Range{})
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 4*maxPage {
			t.Errorf("a page of %d bytes took %d", maxPage, n)
		}
		return err
	}))
	b.want(store.ErrQuota, b.view(func(c *Collections) error {
		for i := range 5 {
			if _, err := c.Scan(ctx, fmt.Sprint("c", i), Range{}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// TestDirectoriesInTheWay: where a file should be there is something else.
func TestDirectoriesInTheWay(t *testing.T) {
	for _, dir := range []string{"records/c/1.ndjson", "records/c/index.ndjson"} {
		b := newBench(t)
		b.owner(func(fs store.FS) error { return writeFile(fs, dir+"/x", "") })
		err := b.update(func(_ *Tx, c *Collections) error { return c.Put(ctx, "c", "a", nil) })
		if err == nil {
			t.Errorf("a directory at %s is no error", dir)
		}
	}
	for _, file := range []string{"records", "records/c"} {
		b := newBench(t)
		b.owner(func(fs store.FS) error { return writeFile(fs, file, "mine") })
		b.want(store.ErrNotDir, b.update(func(_ *Tx, c *Collections) error { return c.Put(ctx, "c", "a", nil) }))
	}
}

// TestOwnerEditsMeanwhile: an edit between the reading of a page and the commit is
// not lost: the transaction is refused.
func TestOwnerEditsMeanwhile(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // there is no plain-directory backend
	}
	dir := t.TempDir()
	s, err := fs.Open(fs.Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx")})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{TB: t, s: s}
	t.Cleanup(func() { s.Close() })
	page := filepath.Join(dir, "data", store.PrivateName, "records", "c", "1.ndjson")
	index := filepath.Join(dir, "data", store.PrivateName, "records", "c", "index.ndjson")
	b.put("c", "a", "1", "b", "2")
	edited := `{"key":"a","value":1}` + "\n" + `{"key":"mine","value":3}` + "\n"
	for name, edit := range map[string]func() error{
		"changed":   func() error { return os.WriteFile(page, []byte(edited), 0o600) },
		"removed":   func() error { return os.Remove(page) },
		"replaced":  func() error { return errors.Join(os.Remove(page), os.WriteFile(page, []byte(edited), 0o600)) },
		"new index": func() error { return os.WriteFile(index, []byte(`{"page":1,"from":""} `), 0o600) },
	} {
		for what, change := range map[string]func(c *Collections) error{
			"put":    func(c *Collections) error { return c.Put(ctx, "c", "b", []byte("9")) },
			"delete": func(c *Collections) error { return c.Delete(ctx, "c", "b") },
			"delete all": func(c *Collections) error {
				return errors.Join(c.Delete(ctx, "c", "a"), c.Delete(ctx, "c", "b"))
			},
			"fill": func(c *Collections) error { // which splits the page
				for i := range 40 {
					if err := c.Put(ctx, "c", fmt.Sprint("b", i), make([]byte, 2000)); err != nil {
						return err
					}
				}
				return nil
			},
		} {
			if name == "new index" && (what == "put" || what == "delete") {
				continue // which leave the index alone
			}
			if name == "removed" && what == "delete all" {
				continue // both want the same
			}
			b.must(os.RemoveAll(filepath.Dir(page)))
			b.put("c", "a", "1", "b", "2")
			err := s.Update(context.Background(), func(tx store.Tx) error {
				t := In(tx.Private(), Config{})
				c := t.As(nil)
				if _, err := c.Get(ctx, "c", "a"); err != nil {
					return err
				}
				b.must(edit())
				if err := change(c); err != nil {
					return err
				}
				return t.Flush(ctx)
			})
			if !errors.Is(err, store.ErrConflict) {
				t.Errorf("%s while it was %s: %v", what, name, err)
			}
			if got, _ := os.ReadFile(page); name != "removed" && name != "new index" && string(got) != edited {
				t.Errorf("%s while it was %s: the page is %q", what, name, got)
			}
		}
	}
}
