package contexts_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi"
	. "github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// recordGuard denies a collection and a key, in the words of a policy.
type recordGuard struct{}

func (recordGuard) Allow(_ records.Op, collection, key string) error {
	switch {
	case collection == "secret" || key == "secret":
		return fmt.Errorf("may not touch %q: no policy of bob permits it", collection+"/"+key)
	case key == "hidden":
		return store.ErrHidden
	}
	return nil
}

func readOnlySend(ctx context.Context, c contexts.Context) error {
	_, err := c.Send(ctx, "alice", "module", "", nil)
	return err
}

// withRecords runs f on a context with records, which are kept if f returns nil.
func withRecords(t testing.TB, s store.Store, c records.Config, report func(error), f func(contexts.Context) error) {
	t.Helper()
	err := s.Update(context.Background(), func(tx store.Tx) error {
		all := records.In(tx.Private(), c)
		if err := f(contexts.Local("did:key:z6MkBob", "bob", tx.Files(nil), all.As(recordGuard{}), report)); err != nil {
			return err
		}
		return all.Flush(context.Background())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRecordErrors: what a guest is told of records, and in which words.
func TestRecordErrors(t *testing.T) {
	ctx := t.Context()
	s := mem.New(mem.Config{})
	defer s.Close()
	limits := records.Config{Limits: records.Limits{Value: 100, ChangedBytes: 150}}
	var reported error
	withRecords(t, s, limits, func(err error) { reported = err }, func(c contexts.Context) error {
		get := func(collection, key string) error { _, err := c.GetRecord(ctx, collection, key, 10); return err }
		list := func(collection string) error { _, err := c.ListRecords(ctx, collection, records.Range{}); return err }
		put := func(collection, key string, n int) error { return c.PutRecord(ctx, collection, key, make([]byte, n)) }
		if err := errors.Join(put("c", "a", 10), put("c", "long", 11)); err != nil {
			return err
		}
		readOnly := contexts.ReadOnly(c)
		for _, tc := range []struct {
			err  error
			code contexts.Code
			says string
		}{
			{get("c", "none"), contexts.NotFound, "cannot get record c/none: there is no such record"},
			{get("none", "a"), contexts.NotFound, "there is no such record"},
			{get("c", "hidden"), contexts.NotFound, "there is no such record"},
			{c.DeleteRecord(ctx, "c", "none"), contexts.NotFound, "cannot delete record c/none"},
			{get("c", "long"), contexts.TooLarge, "it has 11 bytes"},
			{get("c", "secret"), contexts.Denied, `may not touch "c/secret": no policy of bob permits it`},
			{put("secret", "a", 1), contexts.Denied, `may not touch "secret/a"`},
			{list("secret"), contexts.Denied, `may not touch "secret/"`},
			{put("c", "b", 101), contexts.TooLarge, "over the limit for one record"},
			{errors.Join(put("c", "d", 100), put("c", "e", 100)), contexts.TooLarge, "is used up"},
			{get("C", "a"), contexts.Invalid, "does not name a collection"},
			{get("../c", "a"), contexts.Invalid, "does not name a collection"},
			{list(""), contexts.Invalid, "a collection has a name"},
			{c.ReplaceRecord(ctx, "c", "a", nil, nil), contexts.Conflict, "cannot replace record c/a: it is not as it was expected to be"},
			{c.ReplaceRecord(ctx, "c", "a", []byte{}, nil), contexts.Conflict, "not as it was expected to be"},
			{c.ReplaceRecord(ctx, "c", "none", []byte{}, nil), contexts.Conflict, "not as it was expected to be"},
			{c.ReplaceRecord(ctx, "c", "hidden", nil, nil), contexts.NotFound, "there is no such record"},
			{c.ReplaceRecord(ctx, "c", "secret", nil, nil), contexts.Denied, `may not touch "c/secret"`},
			{readOnly.ReplaceRecord(ctx, "c", "a", nil, nil), contexts.ReadOnlyContext, "cannot replace record c/a"},
			{readOnlySend(ctx, readOnly), contexts.ReadOnlyContext, "cannot send from the context of bob: it is read-only for this script; send from the target's"},
			{put("c", "", 1), contexts.Invalid, "is not empty"},
			{put("c", "a\n", 1), contexts.Invalid, "control character"},
			{readOnly.PutRecord(ctx, "c", "a", nil), contexts.ReadOnlyContext, "cannot put record c/a: the context of bob is read-only"},
			{readOnly.DeleteRecord(ctx, "c", "a\x1b"), contexts.ReadOnlyContext, `cannot delete record "c/a\x1b"`},
		} {
			var e *contexts.Error
			if !errors.As(tc.err, &e) || e.Code != tc.code || !strings.Contains(e.Message, tc.says) {
				t.Errorf("%v; want %v, %s", tc.err, tc.code, tc.says)
			}
		}
		if reported != nil {
			t.Errorf("reported: %v", reported)
		}
		return nil
	})

	// Damage is for the owner to mend, so both the receipt and the log tell of it.
	if err := s.Update(ctx, func(tx store.Tx) error {
		f, err := tx.Private().Open("records/c/1.ndjson", store.FlagWrite|store.FlagTruncate)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte("password: hunter2\n"), 0)
		return errors.Join(err, f.Close())
	}); err != nil {
		t.Fatal(err)
	}
	withRecords(t, s, limits, func(err error) { reported = err }, func(c contexts.Context) error {
		_, err := c.GetRecord(ctx, "c", "a", 10)
		var e *contexts.Error
		if !errors.As(err, &e) || e.Code != contexts.IO || !strings.Contains(e.Message, "/.circles/records/c/1.ndjson is damaged: line 1") || strings.Contains(e.Message, "hunter") {
			t.Errorf("damage: %v", err)
		}
		if reported == nil {
			t.Error("it is not in the host's log")
		}
		return nil
	})
}

// recordMethods is a guest whose entries call one method of target() for records.
// Each entry returns the result's bytes as they lie in memory, 32 of them.
func recordMethods(keyLen, valueLen int32, key string) []byte {
	const in, collection, name, area, out = "circles:host/contexts@0.1.2", 64, 1024, 256, 128
	var m Module
	target := m.Import(in, "target", "", "i")
	get := m.Import(in, "[method]context.get-record", "iiiiii", "")
	put := m.Import(in, "[method]context.put-record", "iiiiiiii", "")
	remove := m.Import(in, "[method]context.delete-record", "iiiiii", "")
	list := m.Import(in, "[method]context.list-records", "iiiiiiiii", "")
	replace := m.Import(in, "[method]context.replace-record", "iiiiiiiiiii", "")
	query := m.Import(in, "[method]context.query-records", "iiiiiiiii", "")
	send := m.Import(in, "[method]context.send", "iiiiiiiiii", "")
	m.Memory(2)
	m.Bump(128 << 10)
	var le [12]byte
	binary.LittleEndian.PutUint32(le[4:], area)
	binary.LittleEndian.PutUint32(le[8:], 32)
	m.Data(out, string(le[:]))
	m.Data(collection, "notes")
	m.Data(name, key)
	start := []Code{Call(target), I32(collection), I32(5)}
	entry := func(export string, code ...Code) {
		m.Func(export, "ii", "i", append(append(append([]Code{}, start...), code...), I32(out))...)
	}
	entry("get", I32(name), I32(keyLen), I32(area), Call(get))
	entry("put", I32(name), I32(keyLen), I32(name), I32(valueLen), I32(area), Call(put))
	entry("delete", I32(name), I32(keyLen), I32(area), Call(remove))
	entry("list", I32(0), I32(0), I32(name), I32(keyLen), I32(-1), I32(area), Call(list))
	entry("list-from", I32(name), I32(keyLen), I32(0), I32(0), I32(0), I32(area), Call(list))
	entry("make", I32(name), I32(keyLen), I32(0), I32(-1), I32(-1), I32(name), I32(valueLen), I32(area), Call(replace))
	entry("replace", I32(name), I32(keyLen), I32(1), I32(name), I32(2), I32(name), I32(valueLen), I32(area), Call(replace))
	entry("query", I32(name), I32(keyLen), I32(0), I32(0), I32(-1), I32(area), Call(query))
	m.Func("send", "ii", "i", Call(target), I32(name), I32(keyLen), I32(name), I32(keyLen), I32(0), I32(0), I32(name), I32(valueLen), I32(area), Call(send), I32(out))
	return m.Bytes()
}

// TestRecordsOfAGuest: the methods as a guest's core functions call them.
func TestRecordsOfAGuest(t *testing.T) {
	s := mem.New(mem.Config{})
	defer s.Close()
	withRecords(t, s, records.Config{}, nil, func(c contexts.Context) error {
		p := compile(t, recordMethods(3, 2, "key"))
		call := func(entry string) string {
			t.Helper()
			got, err := run(t, p, entry, "", peers{c, c})
			if err != nil {
				t.Fatalf("%s: %v", entry, err)
			}
			return got
		}
		word := func(s string, i int) uint32 { return binary.LittleEndian.Uint32([]byte(s)[4*i:]) }
		if got := call("get"); got[0] != 1 || contexts.Code(got[4]) != contexts.NotFound {
			t.Errorf("get of nothing: %x", got)
		}
		if got := call("put"); got[0] != 0 {
			t.Errorf("put: %x", got)
		}
		if got := call("get"); got[0] != 0 || word(got, 2) != 2 {
			t.Errorf("get: %x", got)
		}
		if got := call("list"); got[0] != 0 || word(got, 2) != 1 || word(got, 4) != 0 {
			t.Errorf("list: %x", got)
		}
		if got := call("list-from"); got[0] != 0 || word(got, 2) != 1 {
			t.Errorf("list from the key: %x", got)
		}
		if got := call("make"); got[0] != 1 || contexts.Code(got[4]) != contexts.Conflict {
			t.Errorf("make what is there: %x", got)
		}
		if got := call("replace"); got[0] != 0 {
			t.Errorf("replace: %x", got)
		}
		if got := call("delete"); got[0] != 0 {
			t.Errorf("delete: %x", got)
		}
		if got := call("replace"); got[0] != 1 || contexts.Code(got[4]) != contexts.Conflict {
			t.Errorf("replace nothing: %x", got)
		}
		if got := call("make"); got[0] != 0 {
			t.Errorf("make: %x", got)
		}
		if got := call("delete"); got[0] != 0 {
			t.Errorf("delete what was made: %x", got)
		}
		if got := call("list"); got[0] != 0 || word(got, 2) != 0 {
			t.Errorf("list of nothing: %x", got)
		}
		return nil
	})
}

// TestRecordArgumentsAreBounded: names that are too long are an error that the
// guest gets; memory that it does not have, or text that is none, ends it.
func TestRecordArgumentsAreBounded(t *testing.T) {
	s := mem.New(mem.Config{})
	defer s.Close()
	entries := []string{"get", "put", "delete", "list", "list-from", "make", "replace", "send"}
	withRecords(t, s, records.Config{}, nil, func(c contexts.Context) error {
		p := compile(t, recordMethods(contexts.MaxName+1, 0, strings.Repeat("k", contexts.MaxName+1)))
		for _, entry := range entries {
			got, err := run(t, p, entry, "", peers{c, c})
			if err != nil || got[0] != 1 || contexts.Code(got[4]) != contexts.Invalid {
				t.Errorf("%s of a key of %d bytes: %x, %v", entry, contexts.MaxName+1, got, err)
			}
		}
		for name, p := range map[string]*engine.Program{
			"a key that ends outside": compile(t, recordMethods(-1, 0, "")), "a key that is no text": compile(t, recordMethods(1, 0, "\xff")),
		} {
			for _, entry := range entries {
				_, err := run(t, p, entry, "", peers{c, c})
				var v *abi.Violation
				var f *engine.Failure
				if !errors.As(err, &f) || f.Kind != engine.Trapped || !errors.As(f.Cause, &v) {
					t.Errorf("%s: %s: %v", name, entry, err)
				}
			}
		}
		huge := compile(t, recordMethods(1, -1, "k"))
		for _, entry := range []string{"put", "make", "send"} {
			_, err := run(t, huge, entry, "", peers{c, c})
			var f *engine.Failure
			if !errors.As(err, &f) || f.Kind != engine.Trapped {
				t.Errorf("%s of 4 GiB: %v", entry, err)
			}
		}
		long := compile(t, recordMethods(contexts.MaxQuery+1, 0, strings.Repeat("q", contexts.MaxQuery+1)))
		if got, err := run(t, long, "query", "", peers{c, c}); err != nil || got[0] != 1 || contexts.Code(got[4]) != contexts.Invalid {
			t.Errorf("a query of %d bytes: %x, %v", contexts.MaxQuery+1, got, err)
		}
		return nil
	})
}

// hostileRecords is a context on a host that sends what it likes.
type hostileRecords struct {
	contexts.Context
	value []byte
	page  records.Page
}

func (h hostileRecords) Name() string { return "mallory" }

func (h hostileRecords) GetRecord(context.Context, string, string, int) ([]byte, error) {
	return h.value, nil
}

func (h hostileRecords) ListRecords(context.Context, string, records.Range) (records.Page, error) {
	return h.page, nil
}

func (h hostileRecords) QueryRecords(context.Context, string, string, string, int) (records.Page, error) {
	return h.page, nil
}

func (h hostileRecords) Send(context.Context, string, string, string, []byte) ([]byte, error) {
	return h.value, nil
}

func TestHostileRecords(t *testing.T) {
	p := compile(t, recordMethods(3, 0, "key"))
	for name, tc := range map[string]struct {
		entry string
		h     hostileRecords
	}{
		"a huge value":  {"get", hostileRecords{value: make([]byte, contexts.MaxBytes+1)}},
		"many records":  {"list", hostileRecords{page: records.Page{Records: make([]records.Record, contexts.MaxRecords+1)}}},
		"a huge result": {"send", hostileRecords{value: make([]byte, contexts.MaxBytes+1)}},
		"many found":    {"query", hostileRecords{page: records.Page{Records: make([]records.Record, contexts.MaxRecords+1)}}},
		"a huge cursor": {"query", hostileRecords{page: records.Page{Next: strings.Repeat("n", contexts.MaxBytes+1)}}},
		"large records": {"list", hostileRecords{page: records.Page{Records: []records.Record{{Key: "k", Value: make([]byte, contexts.MaxBytes)}}}}},
	} {
		got, err := run(t, p, tc.entry, "", peers{nil, tc.h})
		if err != nil || got[0] != 1 || contexts.Code(got[4]) != contexts.Unavailable {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	got, err := run(t, p, "list", "", peers{nil, hostileRecords{page: records.Page{Records: []records.Record{{Key: "\xff", Denied: true}}, Next: "\xff"}}})
	if err != nil || got[0] != 0 {
		t.Errorf("names that are no text: %x, %v", got, err)
	}
}

// violating is a context whose schema nothing is as it should be for.
type violating struct{ contexts.Context }

func (violating) PutRecord(context.Context, string, string, []byte) error {
	return &contexts.Error{Code: contexts.Violates, Message: "/seats: it is not a number"}
}

// A guest that was built for a version which has no violates, and may well fail on a
// number that it does not know, gets invalid.
func TestOlderGuestsGetOlderCodes(t *testing.T) {
	for versions, want := range map[[2]string]contexts.Code{
		{"0.1.2", "0.1.2"}: contexts.Violates,
		{"0.1.1", "0.1.1"}: contexts.Invalid,
		{"0.1.1", "0.1.2"}: contexts.Invalid, // of the two libraries in it, one may ask
	} {
		const area, out = 256, 128
		var m Module
		target := m.Import("circles:host/contexts@"+versions[0], "target", "", "i")
		put := m.Import("circles:host/contexts@"+versions[1], "[method]context.put-record", "iiiiiiii", "")
		m.Memory(2)
		m.Bump(128 << 10)
		var le [12]byte
		binary.LittleEndian.PutUint32(le[4:], area)
		binary.LittleEndian.PutUint32(le[8:], 16)
		m.Data(out, string(le[:]))
		m.Data(64, "key")
		m.Func("run", "ii", "i", Call(target), I32(64), I32(3), I32(64), I32(3), I32(0), I32(0), I32(area), Call(put), I32(out))
		got, err := run(t, compile(t, m.Bytes()), "run", "", peers{nil, violating{}})
		if err != nil || got[0] != 1 || contexts.Code(got[4]) != want {
			t.Errorf("a guest for %v: %x, %v; want %v", versions, got, err, want)
		}
	}
}
