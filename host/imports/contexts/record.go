package contexts

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/circles-host/circles/host/engine/abi"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// MaxName is the size in bytes of the longest name of a collection, key, or
// beginning of one, that crosses in a call.
const MaxName = script.MaxKey

// MaxRecords is the most that one list-records or query-records returns.
const MaxRecords = records.MaxScan

func (l *local) GetRecord(ctx context.Context, collection, key string, limit int) ([]byte, error) {
	value, err := l.records.Get(ctx, collection, key)
	if err != nil {
		return nil, l.failRecord(ctx, "get", collection, key, err)
	}
	if len(value) > limit {
		return nil, &Error{Code: TooLarge, Message: fmt.Sprintf("cannot get record %s: it has %d bytes, and the limit is %d", quoteRecord(collection, key), len(value), limit)}
	}
	return value, nil
}

func (l *local) PutRecord(ctx context.Context, collection, key string, value []byte) error {
	if err := l.records.Put(ctx, collection, key, value); err != nil {
		return l.failRecord(ctx, "put", collection, key, err)
	}
	return nil
}

func (l *local) DeleteRecord(ctx context.Context, collection, key string) error {
	if err := l.records.Delete(ctx, collection, key); err != nil {
		return l.failRecord(ctx, "delete", collection, key, err)
	}
	return nil
}

func (l *local) ReplaceRecord(ctx context.Context, collection, key string, expected, value []byte) error {
	var was script.Digest
	if expected != nil {
		was = script.DigestOf(expected)
	}
	if err := l.records.PutIf(ctx, collection, key, value, was); err != nil {
		return l.failRecord(ctx, "replace", collection, key, err)
	}
	return nil
}

func (l *local) QueryRecords(ctx context.Context, collection, query, start string, limit int) (records.Page, error) {
	page, err := l.records.Query(ctx, collection, query, start, limit)
	if err != nil {
		return records.Page{}, l.failRecord(ctx, "query", collection, "", err)
	}
	return page, nil
}

func (l *local) Send(context.Context, string, string, string, []byte) ([]byte, error) {
	return nil, &Error{Code: Unavailable, Message: "cannot send: scripts of this host send no others; return the data as the result, and let the caller send it"}
}

func (l *local) ListRecords(ctx context.Context, collection string, r records.Range) (records.Page, error) {
	page, err := l.records.Scan(ctx, collection, r)
	if err != nil {
		return records.Page{}, l.failRecord(ctx, "query", collection, "", err)
	}
	return page, nil
}

// failRecord is fail for records: what is the matter with a name, and with the
// owner's files, is said here.
func (l *local) failRecord(ctx context.Context, verb, collection, key string, err error) error {
	if ctx.Err() != nil {
		return err // the run is over
	}
	what, quoted := collection, quoteRecord(collection, key)
	if key != "" {
		verb, what = verb+" record", collection+"/"+key
	} else {
		verb += " collection"
	}
	say := func(code Code, why string) error {
		return &Error{Code: code, Message: "cannot " + verb + " " + quoted + ": " + why, Err: err}
	}
	var damage *records.DamageError
	var violation *records.ViolationError
	var query *records.QueryError
	var unindexed *records.UnindexedError
	switch {
	case errors.As(err, &query):
		return say(Invalid, query.Error())
	case errors.As(err, &unindexed):
		return say(TooLarge, unindexed.Error())
	case errors.Is(err, records.ErrIndexing):
		return say(Unavailable, records.ErrIndexing.Error())
	case errors.As(err, &violation):
		return say(Violates, "it is not as the schema of "+collection+" has it\n"+violation.Error())
	case errors.Is(err, records.ErrMismatch):
		return say(Conflict, "it is not as it was expected to be; get it again")
	case errors.As(err, &damage):
		l.tell(verb, quoted, err)
		return say(IO, damage.Error()) // which names a file of the context, and quotes nothing
	case errors.Is(err, store.ErrInvalid):
		wrong := script.CheckCollection(collection)
		if wrong == nil {
			wrong = script.CheckKey(key)
		}
		if wrong != nil {
			return say(Invalid, wrong.Error())
		}
	case errors.Is(err, store.ErrDenied): // below
	case errors.Is(err, store.ErrNotExist):
		return say(NotFound, "there is no such record")
	case errors.Is(err, store.ErrTooBig):
		return say(TooLarge, "the value is over the limit for one record; keep it in a file")
	case errors.Is(err, store.ErrQuota):
		return say(TooLarge, "a limit of what one script may change is used up, or the context's quota; change less at once")
	case errors.Is(err, store.ErrConflict):
		return say(Unavailable, "its owner changed the same records meanwhile, by other means; send the script again")
	}
	return l.failed(verb, what, quoted, err)
}

// quoteRecord shows a record, or with an empty key a collection, in a message.
func quoteRecord(collection, key string) string {
	return printed(strings.ToValidUTF8(script.JoinRecord(collection, key), "\uFFFD"))
}

// liftNames lifts strings of at most MaxName bytes. One that is longer is an error
// that the guest gets, and ends the call.
func liftNames(c *abi.Call, into ...*string) bool {
	ok := true
	for _, s := range into {
		var whole bool
		*s, whole = c.String(MaxName)
		ok = ok && whole
	}
	if !ok {
		LowerError(c, &Error{Code: Invalid, Message: fmt.Sprintf("collections and keys have at most %d bytes", MaxName)})
	}
	return ok
}

func getRecord(c *abi.Call) {
	x := abi.Self[Context](c)
	var collection, key string
	if !liftNames(c, &collection, &key) {
		return
	}
	value, err := x.GetRecord(c.Context(), collection, key, MaxBytes)
	LowerBytes(c, value, MaxBytes, err)
}

func putRecord(c *abi.Call) {
	x := abi.Self[Context](c)
	var collection, key string
	if !liftNames(c, &collection, &key) {
		return
	}
	value, ok := c.Bytes(MaxBytes)
	if !ok {
		LowerError(c, &Error{Code: TooLarge, Message: fmt.Sprintf("cannot put record %s: a value of more than %d bytes; keep it in a file", quoteRecord(collection, key), MaxBytes)})
		return
	}
	lowerDone(c, x.PutRecord(c.Context(), collection, key, value))
}

func replaceRecord(c *abi.Call) {
	x := abi.Self[Context](c)
	var collection, key string
	if !liftNames(c, &collection, &key) {
		return
	}
	expected, ok := c.OptionBytes(MaxBytes)
	value, all := c.Bytes(MaxBytes)
	if !ok || !all {
		LowerError(c, &Error{Code: TooLarge, Message: fmt.Sprintf("cannot replace record %s: a value of more than %d bytes; keep it in a file", quoteRecord(collection, key), MaxBytes)})
		return
	}
	lowerDone(c, x.ReplaceRecord(c.Context(), collection, key, expected, value))
}

func deleteRecord(c *abi.Call) {
	x := abi.Self[Context](c)
	var collection, key string
	if !liftNames(c, &collection, &key) {
		return
	}
	lowerDone(c, x.DeleteRecord(c.Context(), collection, key))
}

func listRecords(c *abi.Call) {
	x := abi.Self[Context](c)
	var collection string
	var r records.Range
	if !liftNames(c, &collection, &r.From, &r.Prefix) {
		return
	}
	r.Limit = liftLimit(c)
	page, err := x.ListRecords(c.Context(), collection, r)
	lowerPage(c, x, page, r.Limit, err)
}

func queryRecords(c *abi.Call) {
	x := abi.Self[Context](c)
	var collection string
	if !liftNames(c, &collection) {
		return
	}
	query, ok := c.String(MaxQuery)
	start, all := c.String(MaxQuery)
	if !ok || !all {
		LowerError(c, &Error{Code: Invalid, Message: fmt.Sprintf("a query has at most %d bytes, and where it goes on too", MaxQuery)})
		return
	}
	limit := liftLimit(c)
	page, err := x.QueryRecords(c.Context(), collection, query, start, limit)
	lowerPage(c, x, page, limit, err)
}

// liftLimit lifts how many records a page may have.
func liftLimit(c *abi.Call) int {
	limit := int64(c.U32())
	if limit == 0 || limit > MaxRecords {
		limit = MaxRecords
	}
	return int(limit)
}

func lowerPage(c *abi.Call, x Context, page records.Page, limit int, err error) {
	size := 0
	for _, record := range page.Records {
		size += len(record.Key) + len(record.Value)
	}
	size += len(page.Next)
	switch {
	case err != nil:
	case len(page.Records) > limit:
		err = overrun(x, "records", len(page.Records), limit)
	case size > MaxBytes:
		err = overrun(x, "bytes of records", size, MaxBytes)
	}
	if err != nil {
		LowerError(c, err)
		return
	}
	out := c.Result().Case(abi.Ok)
	list := out.Field(0).List(len(page.Records))
	for i, record := range page.Records {
		list.At(i).Field(0).String(record.Key)
		if record.Denied {
			list.At(i).Field(1).Case(0)
		} else {
			list.At(i).Field(1).Case(1).Bytes(record.Value)
		}
	}
	out.Field(1).String(page.Next)
}
