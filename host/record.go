package host

import (
	"context"
	"fmt"
	"strings"

	remote "github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// transaction is a store's, with the records of its context.
type transaction struct {
	store.Tx
	records *records.Tx
}

func newTransaction(tx store.Tx, readOnly bool) transaction {
	return transaction{tx, records.In(tx.Private(), records.Config{ReadOnly: readOnly})}
}

// transaction is one of this context's, whose records are bound to its schemas.
func (c *peerContext) transaction(tx store.Tx, readOnly bool) transaction {
	return transaction{tx, records.In(tx.Private(), records.Config{
		ReadOnly: readOnly, Schemas: &c.schemas, Looked: &c.schemas.looked, Stale: c.reindexSoon,
	})}
}

var recordActions = map[records.Op]script.Action{
	records.OpGet: script.Get, records.OpPut: script.Put, records.OpDelete: script.Delete, records.OpQuery: script.Query,
}

// recordGuard asks a script's grants about each access to the records of a
// context.
type recordGuard struct{ grants *policy.Grants }

// Allow implements records.Guard.
func (g recordGuard) Allow(op records.Op, collection, key string) error {
	return shown(g.grants.Allow(recordActions[op], script.JoinRecord(collection, key)))
}

// AllowPut implements records.FieldGuard.
func (g recordGuard) AllowPut(collection, key string, value []byte) error {
	var f *policy.Fields
	if g.grants.LookAtFields() {
		f = fieldsOf(value)
	}
	return shown(g.grants.AllowRecord(script.Put, script.JoinRecord(collection, key), f))
}

// AllowQuery implements records.FieldGuard.
func (g recordGuard) AllowQuery(collection string, fields []string) error {
	return shown(g.grants.AllowRecord(script.Query, collection, &policy.Fields{Asked: fields}))
}

// AllowFound implements records.FieldGuard.
func (g recordGuard) AllowFound(collection, key string) error {
	return g.Allow(records.OpGet, collection, key)
}

// fieldsOf is what policies see of a value that is put.
func fieldsOf(value []byte) *policy.Fields {
	f := &policy.Fields{Strings: map[string]string{}, Numbers: map[string]int64{}, Booleans: map[string]bool{}}
	v, err := schema.ReadJSON(string(value))
	if err == nil {
		err = v.Fields(func(at string, is any) {
			switch is := is.(type) {
			case string:
				f.Strings[at] = is
			case int64:
				f.Numbers[at] = is
			case bool:
				f.Booleans[at] = is
			}
		})
	}
	if err != nil {
		f.Unread = fmt.Errorf("a policy looks at its value, and that cannot be looked into: %w", err)
	}
	return f
}

// watchedRecords is a recordGuard that remembers what it denied, beside the files.
type watchedRecords struct{ *watched }

// Allow implements records.Guard.
func (w watchedRecords) Allow(op records.Op, collection, key string) error {
	return w.told(recordActions[op], script.JoinRecord(collection, key), recordGuard{w.grants}.Allow(op, collection, key))
}

// AllowPut implements records.FieldGuard.
func (w watchedRecords) AllowPut(collection, key string, value []byte) error {
	return w.told(script.Put, script.JoinRecord(collection, key), recordGuard{w.grants}.AllowPut(collection, key, value))
}

// AllowQuery implements records.FieldGuard.
func (w watchedRecords) AllowQuery(collection string, fields []string) error {
	return w.told(script.Query, collection, recordGuard{w.grants}.AllowQuery(collection, fields))
}

// AllowFound implements records.FieldGuard. What it denies is no denial for the receipt, which
// would tell the script's caller of the record.
func (w watchedRecords) AllowFound(collection, key string) error {
	err := recordGuard{w.grants}.AllowFound(collection, key)
	w.saw(script.Get, script.JoinRecord(collection, key), err)
	return err
}

func (w watchedRecords) told(action script.Action, path string, err error) error {
	w.saw(action, path, err)
	return w.note(err)
}

// recordEffects are the records that a transaction changed, as the receipt has
// them: as with files, nothing but the key is told of what told is false for.
// room is what is left for diffs.
func recordEffects(tx *records.Tx, told func(record string) bool, dryRun bool, room *int) []script.Effect {
	changes := tx.Changes()
	list := make([]script.Effect, len(changes))
	for i, c := range changes {
		e := script.Effect{Kind: script.RecordPut, Path: "/" + script.JoinRecord(c.Collection, c.Key)}
		if c.After == nil {
			e.Kind = script.RecordDeleted
		}
		if told(e.Path[1:]) {
			e.Before, e.After = recordBlob(c.Before), recordBlob(c.After)
			if dryRun && *room > 0 && len(c.Before) <= maxDiffed && len(c.After) <= maxDiffed {
				e.Diff = diff(e.Path, c.Before, c.After, min(*room, script.MaxDiff))
				*room -= len(e.Diff)
			}
		}
		list[i] = e
	}
	return list
}

func recordBlob(value []byte) script.Blob {
	if value == nil {
		return script.Blob{}
	}
	return script.Blob{Size: int64(len(value)), Digest: script.DigestOf(value)}
}

func (l *lentContext) GetRecord(ctx context.Context, collection, key string, limit int) (value []byte, err error) {
	err = l.in(ctx, func(c remote.Context) (err error) {
		value, err = c.GetRecord(ctx, collection, key, limit)
		return
	})
	return value, err
}

func (l *lentContext) ListRecords(ctx context.Context, collection string, r records.Range) (page records.Page, err error) {
	err = l.in(ctx, func(c remote.Context) (err error) { page, err = c.ListRecords(ctx, collection, r); return })
	return page, err
}

func (l *lentContext) QueryRecords(ctx context.Context, collection, query, start string, limit int) (page records.Page, err error) {
	err = l.in(ctx, func(c remote.Context) (err error) {
		page, err = c.QueryRecords(ctx, collection, query, start, limit)
		return
	})
	return page, err
}

func (d *distantContext) QueryRecords(ctx context.Context, collection, query, start string, limit int) (records.Page, error) {
	return d.records(ctx, script.Question{Op: script.AskFind, Path: collection, Find: query, From: start, Length: uint32(min(limit, script.MaxRecords))})
}

func (d *distantContext) GetRecord(ctx context.Context, collection, key string, limit int) ([]byte, error) {
	if err := nameable(script.Get, collection, key); err != nil {
		return nil, err
	}
	var value []byte
	for {
		q := script.Question{Op: script.AskGet, Path: script.JoinRecord(collection, key), Offset: uint64(len(value)), Length: script.MaxData}
		a, err := d.ask(ctx, script.Get, q)
		if err != nil {
			return nil, err
		}
		value = append(value, a.Value...)
		if len(value) > limit {
			return nil, &remote.Error{Code: remote.TooLarge, Message: fmt.Sprintf("cannot get record %q: it has more than %d bytes", q.Path, limit)}
		}
		if len(a.Value) < script.MaxData {
			return value, nil
		}
	}
}

func (d *distantContext) ListRecords(ctx context.Context, collection string, r records.Range) (records.Page, error) {
	return d.records(ctx, script.Question{
		Op: script.AskQuery, Path: collection, From: r.From, Prefix: r.Prefix, Length: uint32(min(r.Limit, script.MaxRecords)),
	})
}

// records asks for a page of records of the collection that is the Path of q.
func (d *distantContext) records(ctx context.Context, q script.Question) (records.Page, error) {
	if err := nameable(script.Query, q.Path, ""); err != nil {
		return records.Page{}, err
	}
	a, err := d.ask(ctx, script.Query, q)
	page := records.Page{Next: a.Next}
	for _, record := range a.Records {
		page.Records = append(page.Records, records.Record{Key: record.Key, Value: record.Value, Denied: record.Denied})
	}
	return page, err
}

// nameable checks what a script would ask another host about: a question that is
// none would be this host's mistake.
func nameable(action script.Action, collection, key string) error {
	err := script.CheckCollection(collection)
	if err == nil && action != script.Query {
		err = script.CheckKey(key)
	}
	if err == nil {
		return nil
	}
	name := strings.ToValidUTF8(collection+"/"+key, "�")
	return &remote.Error{Code: remote.Invalid, Message: fmt.Sprintf("cannot %s %.200q: %v", action, name, err)}
}

// answerRecords answers a question about records.
func answerRecords(ctx context.Context, c remote.Context, q script.Question, a *script.Answer) error {
	collection, key, err := script.SplitRecord(q.Path)
	if err != nil {
		return &remote.Error{Code: remote.Invalid, Message: err.Error()}
	}
	if q.Op == script.AskGet {
		value, err := c.GetRecord(ctx, collection, key, remote.MaxBytes)
		value = value[min(q.Offset, uint64(len(value))):]
		a.Value = value[:min(len(value), int(q.Length), script.MaxData)]
		return err
	}
	var page records.Page
	if q.Op == script.AskFind {
		page, err = c.QueryRecords(ctx, collection, q.Find, q.From, int(q.Length))
	} else {
		page, err = c.ListRecords(ctx, collection, records.Range{From: q.From, Prefix: q.Prefix, Limit: int(q.Length), Bytes: script.MaxRecordBytes / 2})
	}
	size := 0
	for _, r := range page.Records {
		a.Records = append(a.Records, script.Record{Key: r.Key, Value: r.Value, Denied: r.Denied})
		size += len(r.Key) + len(r.Value)
	}
	if err == nil && size > script.MaxRecordBytes {
		// One that its owner has made: scripts make none so large.
		return &remote.Error{Code: remote.TooLarge, Message: fmt.Sprintf("record %q is too large for an answer; get it by itself", script.JoinRecord(collection, a.Records[0].Key))}
	}
	a.Next = page.Next
	return err
}
