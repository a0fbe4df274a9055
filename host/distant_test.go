package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/envelope"
	remote "github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/transport"
)

// distance is a script's two ends: the host that runs it, and its caller, whose
// context is elsewhere.
type distance struct {
	*testing.T
	caller, host *peer.Key
	lender       *Lender
	context      *distantContext
	asked        int
	tamper       func(sealed []byte, err error) ([]byte, error) // what the carrier makes of an answer
}

func newDistance(t *testing.T, policies string, lent ...script.Grant) *distance {
	t.Helper()
	d := &distance{T: t, caller: newKey(t), host: newKey(t)}
	target := newKey(t).ID()
	s := script.Script{Caller: d.caller.ID(), Target: target, Logic: script.Logic{Name: "m"}, Lent: lent}
	_, id, err := envelope.SealScript(s, d.caller)
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Parse([]policy.File{{Name: "p.cedar", Text: policy.Starter + policies}})
	if err != nil {
		t.Fatal(err)
	}
	files := mem.New(mem.Config{})
	err = files.Update(t.Context(), func(tx store.Tx) error {
		fs := tx.Files(nil)
		for _, dir := range []string{"/shared", "/shared/many", "/private"} {
			if err := fs.Mkdir(dir); err != nil {
				return err
			}
		}
		for path, data := range map[string]string{
			"/shared/card.txt": "Alice", "/shared/secret.txt": "no", "/private/diary": "dear",
			"/shared/big": strings.Repeat("0123456789abcdef", 200_000),
		} {
			if err := write(fs, path, data); err != nil {
				return err
			}
		}
		for i := range 3000 {
			if err := write(fs, fmt.Sprintf("/shared/many/%04d", i), ""); err != nil {
				return err
			}
		}
		return fs.Symlink("../private/diary", "/shared/link")
	})
	if err != nil {
		t.Fatal(err)
	}
	d.lender = &Lender{
		Key: d.caller, Script: &s, ID: id, Host: d.host.ID(), Policies: set,
		Parties:   peer.Parties{Caller: peer.Peer{ID: d.caller.ID(), Name: "alice"}, Target: peer.Peer{ID: target, Name: "bob"}},
		OpenStore: func(context.Context) (store.Store, error) { return files, nil },
	}
	t.Cleanup(func() { d.lender.Close() })
	d.tamper = func(sealed []byte, err error) ([]byte, error) { return sealed, err }
	d.context = &distantContext{
		host: &Host{key: d.host}, script: &s, id: id, peer: peer.Peer{ID: d.caller.ID(), Name: "alice"},
		back: func(ctx context.Context, sealed []byte) ([]byte, error) {
			d.asked++
			return d.tamper(d.lender.Answer(ctx, sealed))
		},
	}
	return d
}

func newKey(t *testing.T) *peer.Key {
	t.Helper()
	k, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func write(fs store.FS, path, data string) error {
	f, err := fs.Open(path, store.FlagWrite|store.FlagCreate)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(data), 0)
	return err
}

func (d *distance) wantCode(what string, err error, code remote.Code) {
	d.Helper()
	var e *remote.Error
	if !errors.As(err, &e) || e.Code != code {
		d.Errorf("%s: %v; want %v", what, err, code)
	}
}

func TestDistantContextIsReadAsFarAsItIsLent(t *testing.T) {
	ctx := t.Context()
	d := newDistance(t, `@id("secret") forbid(principal, action, resource in Path::"/shared/secret.txt");`,
		script.Grant{Action: script.Read, Path: "/shared"}, script.Grant{Action: script.List, Path: "/shared"})
	c := d.context

	data, err := c.Read(ctx, "shared/card.txt", 1<<20)
	if err != nil || string(data) != "Alice" {
		t.Errorf("read: %q, %v", data, err)
	}
	// More than one answer carries, in pieces.
	data, err = c.Read(ctx, "/shared/big", 8<<20)
	if err != nil || !bytes.Equal(data, bytes.Repeat([]byte("0123456789abcdef"), 200_000)) {
		t.Errorf("read big: %d bytes, %v", len(data), err)
	}
	_, err = c.Read(ctx, "/shared/big", 2<<20)
	d.wantCode("a file over the limit", err, remote.TooLarge)
	data, err = c.ReadAt(ctx, "/shared/big", 16*100_000+4, 2<<20)
	if err != nil || len(data) != 16*100_000-4 || string(data[:4]) != "4567" {
		t.Errorf("read at: %d bytes, %v", len(data), err)
	}
	entries, err := c.List(ctx, "/shared/many", 5000)
	if err != nil || len(entries) != 3000 || entries[2999].Name != "2999" || entries[0].Kind != remote.File {
		t.Errorf("list: %d entries, %v", len(entries), err)
	}
	_, err = c.List(ctx, "/shared/many", 2000)
	d.wantCode("a listing over the limit", err, remote.TooLarge)
	s, err := c.Stat(ctx, "/shared/big")
	if err != nil || s.Size != 3_200_000 || s.Kind != remote.File || s.Modified == 0 {
		t.Errorf("stat: %+v, %v", s, err)
	}

	_, err = c.Read(ctx, "/shared/none", 1<<20)
	d.wantCode("an absent file", err, remote.NotFound)
	_, err = c.Read(ctx, "/shared", 1<<20)
	d.wantCode("a directory", err, remote.IsDirectory)
	_, err = c.Read(ctx, "/shared/secret.txt", 1<<20)
	d.wantCode("what the caller's policy forbids", err, remote.Denied)
	_, err = c.Read(ctx, "/shared/link", 1<<20)
	d.wantCode("a link to what is not lent", err, remote.Denied)

	asked := d.asked
	_, err = c.Read(ctx, "/private/diary", 1<<20)
	d.wantCode("what is not lent", err, remote.Denied)
	_, err = c.Read(ctx, "/shared/../private/diary", 1<<20)
	d.wantCode("what is not lent, by another way", err, remote.Denied)
	_, err = c.List(ctx, "/sharedness", 10)
	d.wantCode("a name that begins like one that is lent", err, remote.Denied)
	if d.asked != asked {
		t.Error("the caller was asked for what it did not lend")
	}
}

// Whoever carries the bytes can neither answer for the caller nor show it an
// answer to another question.
func TestDistantContextTrustsNoCarrier(t *testing.T) {
	lent := script.Grant{Action: script.Read, Path: "/shared"}
	read := func(d *distance, p string) error {
		_, err := d.context.Read(t.Context(), p, 1<<20)
		return err
	}
	d := newDistance(t, "", lent)
	var first []byte
	d.tamper = func(sealed []byte, err error) ([]byte, error) {
		if first == nil {
			first = sealed
		}
		return first, err
	}
	if err := read(d, "/shared/card.txt"); err != nil {
		t.Fatal(err)
	}
	d.wantCode("an old answer", read(d, "/shared/card.txt"), remote.Unavailable)
	d.tamper = func([]byte, error) ([]byte, error) { return []byte("not an envelope"), nil }
	d.wantCode("garbage", read(d, "/shared/card.txt"), remote.Unavailable)
	d.tamper = func(sealed []byte, err error) ([]byte, error) { sealed[len(sealed)-1] ^= 1; return sealed, err }
	d.wantCode("a changed answer", read(d, "/shared/card.txt"), remote.Unavailable)
	d.tamper = func([]byte, error) ([]byte, error) {
		return nil, &transport.Error{Code: transport.Unavailable, Message: "gone"}
	}
	d.wantCode("a sender that is gone", read(d, "/shared/card.txt"), remote.Unavailable)

	other := newDistance(t, "", lent)
	other.lender.Key = newKey(t) // somebody else answers
	if err := read(other, "/shared/card.txt"); err == nil {
		t.Error("an answer that the caller did not sign was taken")
	}
}

// The caller answers the host that it sent to, about the script that it sent,
// and nobody else.
func TestLenderAnswersOnlyItsHost(t *testing.T) {
	d := newDistance(t, "", script.Grant{Action: script.Read, Path: "/"})
	ask := func(key *peer.Key, id script.ID) error {
		sealed, err := envelope.SealQuestion(script.Question{Script: id, Seq: 1, Op: script.AskRead, Path: "/shared/card.txt", Length: 9}, key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.lender.Answer(t.Context(), sealed)
		return err
	}
	if err := ask(d.host, d.lender.ID); err != nil {
		t.Fatal(err)
	}
	if err := ask(newKey(t), d.lender.ID); err == nil {
		t.Error("answered another host")
	}
	if err := ask(d.host, script.ID{1}); err == nil {
		t.Error("answered about a script that was not sent")
	}
	if _, err := d.lender.Answer(t.Context(), []byte("who are you?")); err == nil {
		t.Error("answered something that is no question")
	}
}

// Records are got and listed over the way back like files, as far as they are lent
// and the caller's policies go.
func TestDistantRecords(t *testing.T) {
	ctx := t.Context()
	d := newDistance(t, `@id("secret") forbid(principal, action == Action::"get", resource == Record::"cards/secret");`,
		script.Grant{Action: script.Get, Path: "cards"}, script.Grant{Action: script.Query, Path: "cards"}, script.Grant{Action: script.Get, Path: "notes/one"},
		script.Grant{Action: script.Get, Path: "large"}, script.Grant{Action: script.Query, Path: "large"},
		script.Grant{Action: script.Get, Path: "numbers"}, script.Grant{Action: script.Query, Path: "numbers"})
	s, err := d.lender.OpenStore(ctx)
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	err = s.Update(ctx, func(tx store.Tx) error {
		all := records.In(tx.Private(), records.Config{Limits: records.Limits{Value: 2 << 20}})
		c := all.As(nil)
		for i := range 2500 {
			if err := c.Put(ctx, "cards", fmt.Sprintf("%04d", i), fmt.Appendf(nil, "card %d", i)); err != nil {
				return err
			}
		}
		for key, value := range map[string][]byte{"cards/secret": []byte("no"), "notes/one": nil, "notes/two": []byte("2"), "large/big": big,
			"numbers/a": []byte(`{"n":50}`), "numbers/b": []byte(`{"n":30}`), "numbers/c": []byte(`{"n":60}`), "numbers/d": []byte(`{"n":40}`)} {
			collection, key, _ := strings.Cut(key, "/")
			if err := c.Put(ctx, collection, key, value); err != nil {
				return err
			}
		}
		return all.Flush(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	c := d.context
	if v, err := c.GetRecord(ctx, "cards", "0007", 100); err != nil || string(v) != "card 7" {
		t.Errorf("get: %q, %v", v, err)
	}
	if v, err := c.GetRecord(ctx, "notes", "one", 100); err != nil || len(v) != 0 {
		t.Errorf("get an empty one: %q, %v", v, err)
	}
	// More than one answer carries, in pieces.
	if v, err := c.GetRecord(ctx, "large", "big", 4<<20); err != nil || !bytes.Equal(v, big) {
		t.Errorf("get a large one: %d bytes, %v", len(v), err)
	}
	_, err = c.GetRecord(ctx, "large", "big", 1<<20)
	d.wantCode("a record over the limit", err, remote.TooLarge)
	if page, err := c.ListRecords(ctx, "large", records.Range{Limit: 10}); err != nil || len(page.Records) != 1 || len(page.Records[0].Value) != len(big) {
		t.Errorf("list a large one: %d records, %v", len(page.Records), err)
	}
	seen := 0
	for r := (records.Range{Prefix: "1", Limit: 300}); ; {
		page, err := c.ListRecords(ctx, "cards", r)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range page.Records {
			if want := fmt.Sprintf("%04d", 1000+seen); record.Key != want || record.Denied || string(record.Value) != fmt.Sprint("card ", 1000+seen) {
				t.Fatalf("record %d is %+v", seen, record)
			}
			seen++
		}
		if r.From = page.Next; r.From == "" {
			break
		}
	}
	if seen != 1000 {
		t.Errorf("%d records begin with 1", seen)
	}
	if page, err := c.ListRecords(ctx, "cards", records.Range{Prefix: "s", Limit: 9}); err != nil || len(page.Records) != 1 || !page.Records[0].Denied || page.Records[0].Value != nil {
		t.Errorf("what may be seen and not got: %+v, %v", page, err)
	}

	// A query that both sides take for the same, in pages that follow each other.
	const large = `{"where":{"field":"/n","from":40},"order":[{"field":"/n","descending":true}]}`
	var found []string
	for start, pages := "", 0; ; pages++ {
		page, err := c.QueryRecords(ctx, "numbers", large, start, 2)
		if err != nil || pages > 3 {
			t.Fatalf("%d pages, %v, %v", pages, found, err)
		}
		for _, record := range page.Records {
			found = append(found, record.Key+" "+string(record.Value))
		}
		if start = page.Next; start == "" {
			break
		}
	}
	if want := []string{`c {"n":60}`, `a {"n":50}`, `d {"n":40}`}; !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
	_, err = c.QueryRecords(ctx, "numbers", `{"were":{}}`, "", 2)
	d.wantCode("a query that is none", err, remote.Invalid)
	_, err = c.QueryRecords(ctx, "numbers", "{}", "elsewhere", 2)
	d.wantCode("a place to go on that is none", err, remote.Invalid)

	_, err = c.GetRecord(ctx, "cards", "none", 9)
	d.wantCode("a record that is not there", err, remote.NotFound)
	_, err = c.GetRecord(ctx, "cards", "secret", 9)
	d.wantCode("what the caller's policy forbids", err, remote.Denied)
	asked := d.asked
	_, err = c.GetRecord(ctx, "notes", "two", 9)
	d.wantCode("what is not lent", err, remote.Denied)
	_, err = c.GetRecord(ctx, "notes", "one/more", 9)
	d.wantCode("a key that begins like one that is lent", err, remote.Denied)
	_, err = c.ListRecords(ctx, "notes", records.Range{Limit: 9})
	d.wantCode("a query that is not lent", err, remote.Denied)
	_, err = c.QueryRecords(ctx, "notes", "{}", "", 9)
	d.wantCode("a query by values that is not lent", err, remote.Denied)
	_, err = c.GetRecord(ctx, "../cards", "0007", 9)
	d.wantCode("a name that is none", err, remote.Invalid)
	_, err = c.GetRecord(ctx, "cards", "a\x00", 9)
	d.wantCode("a key that is none", err, remote.Invalid)
	if d.asked != asked {
		t.Error("the caller was asked for what it did not lend")
	}
	d.wantCode("a put", remote.ReadOnly(c).PutRecord(ctx, "cards", "0007", nil), remote.ReadOnlyContext)
}

// A caller that lies in its answers about records is not believed, and what it does
// not lend it does not tell, whoever asks.
func TestDistantRecordsOfALiar(t *testing.T) {
	ctx := t.Context()
	d := newDistance(t, "", script.Grant{Action: script.Query, Path: "cards"}, script.Grant{Action: script.Get, Path: "cards"})
	lie := func(answer func(q script.Question) script.Answer) {
		d.context.back = func(_ context.Context, sealed []byte) ([]byte, error) {
			q, _, err := envelope.OpenQuestion(sealed, "")
			if err != nil {
				return nil, err
			}
			return envelope.SealAnswer(answer(q), q, d.caller)
		}
	}
	for name, answer := range map[string]func(q script.Question) script.Answer{
		"out of order": func(q script.Question) script.Answer {
			return script.Answer{Op: q.Op, Records: []script.Record{{Key: "b"}, {Key: "a"}}}
		},
		"before the start": func(q script.Question) script.Answer {
			return script.Answer{Op: q.Op, Records: []script.Record{{Key: "a"}}}
		},
		"an endless one": func(q script.Question) script.Answer {
			return script.Answer{Op: q.Op, Records: []script.Record{{Key: "b"}}, Next: "b"}
		},
		"empty, and more": func(q script.Question) script.Answer { return script.Answer{Op: q.Op, Next: "c"} },
		"more than asked": func(q script.Question) script.Answer {
			return script.Answer{Op: q.Op, Records: []script.Record{{Key: "b"}, {Key: "c"}, {Key: "d"}}}
		},
		"another operation": func(q script.Question) script.Answer { return script.Answer{Op: script.AskRead, Data: []byte("x")} },
	} {
		lie(answer)
		_, err := d.context.ListRecords(ctx, "cards", records.Range{From: "b", Limit: 2})
		d.wantCode(name, err, remote.Unavailable)
	}
	// One that always has another MiB ends at the limit.
	lie(func(q script.Question) script.Answer {
		return script.Answer{Op: q.Op, Value: make([]byte, script.MaxData)}
	})
	_, err := d.context.GetRecord(ctx, "cards", "a", 5<<20)
	d.wantCode("a value without end", err, remote.TooLarge)

	// The lender's side does not rely on the asker to know what is lent.
	for _, q := range []script.Question{
		{Op: script.AskGet, Path: "notes/one", Length: 9}, {Op: script.AskQuery, Path: "notes", Length: 9},
		{Op: script.AskFind, Path: "notes", Find: "{}", Length: 9},
	} {
		q.Script, q.Seq = d.lender.ID, 1
		sealed, err := envelope.SealQuestion(q, d.host)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := d.lender.Answer(ctx, sealed)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := envelope.OpenAnswer(reply, d.caller.ID(), q); err != nil || a.Problem == nil || a.Problem.Code != script.ProblemDenied {
			t.Errorf("%v: %+v, %v", q.Op, a, err)
		}
	}
}
