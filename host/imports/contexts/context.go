package contexts

import (
	"context"
	"errors"
	"fmt"

	"github.com/circles-host/circles/host/records"
)

// Context is one peer's context, as a script may use it. What it allows is the
// implementation's affair: Local asks the store, whose guard asks the policy.
//
// Paths come from a guest: any UTF-8 up to MaxPath bytes, "" included; so do the
// names of collections and keys, up to MaxName. Errors that the guest shall see are *Error; of any other it learns only that the
// host failed. Methods are called by one goroutine at a time, with the context
// of the run, and return when it ends.
type Context interface {
	ID() string   // did:key:z6Mk…
	Name() string // petname, "" for a stranger

	// Read returns a whole file, or TooLarge if it has more than limit bytes.
	Read(ctx context.Context, path string, limit int) ([]byte, error)
	// ReadAt returns up to length bytes from offset, fewer at the end of the
	// file only. length is at most MaxBytes.
	ReadAt(ctx context.Context, path string, offset uint64, length int) ([]byte, error)
	Write(ctx context.Context, path string, data []byte) error
	Append(ctx context.Context, path string, data []byte) error
	// List returns a directory's entries in name order, or TooLarge if it has
	// more than limit.
	List(ctx context.Context, path string, limit int) ([]Entry, error)
	Stat(ctx context.Context, path string) (Stat, error)
	MakeDirectory(ctx context.Context, path string) error
	Remove(ctx context.Context, path string) error

	// GetRecord returns a record's value, or TooLarge if it has more than limit
	// bytes.
	GetRecord(ctx context.Context, collection, key string, limit int) ([]byte, error)
	PutRecord(ctx context.Context, collection, key string, value []byte) error
	DeleteRecord(ctx context.Context, collection, key string) error
	// ListRecords returns the records of a range in the order of their keys; at
	// most MaxRecords of them, of MaxBytes.
	ListRecords(ctx context.Context, collection string, r records.Range) (records.Page, error)
	// ReplaceRecord puts a record if its value is expected, and for nil if there is
	// none; else it is a Conflict.
	ReplaceRecord(ctx context.Context, collection, key string, expected, value []byte) error
	// QueryRecords returns the records that a query of at most MaxQuery bytes is true
	// of: at most limit of them, of MaxBytes. start is "" or the Next of the page
	// before, and what a guest makes of that.
	QueryRecords(ctx context.Context, collection, query, start string, limit int) (records.Page, error)

	// Send sends a script from this context's peer to another one, waits for it, and
	// returns its result, of at most MaxBytes. If the script failed it is Failed.
	Send(ctx context.Context, to, logic, entry string, params []byte) ([]byte, error)
}

// Kind is what an entry is, in the order of the WIT enum.
type Kind uint8

const (
	File Kind = iota
	Directory
	Link
	Other
)

// Stat describes a file or directory.
type Stat struct {
	Kind     Kind
	Size     uint64 // bytes; 0 for a directory
	Modified uint64 // milliseconds since 1970 UTC
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	Kind Kind
}

// Code is the WIT enum error-code, in its order.
type Code uint8

const (
	NotFound Code = iota
	Denied
	Exists
	NotDirectory
	IsDirectory
	NotEmpty
	Invalid
	TooLarge
	ReadOnlyContext
	Unavailable
	IO
	Conflict
	Violates // since 0.1.2; a guest that was built for an older version gets Invalid
	Failed
)

var codeNames = []string{
	NotFound:        "not-found",
	Denied:          "denied",
	Exists:          "exists",
	NotDirectory:    "not-directory",
	IsDirectory:     "is-directory",
	NotEmpty:        "not-empty",
	Invalid:         "invalid",
	TooLarge:        "too-large",
	ReadOnlyContext: "read-only",
	Unavailable:     "unavailable",
	IO:              "io",
	Conflict:        "conflict",
	Violates:        "violates",
	Failed:          "failed",
}

// String returns the code as WIT names it.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Error is a failure that the guest is told about. Message goes to the guest,
// to the caller and into the receipt: it names paths of the context, never the
// host's own. Err does not leave the host.
type Error struct {
	Code    Code
	Message string
	Err     error
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// ReadOnly returns c without its mutating methods: a caller's context can be
// read, as far as the caller lent it, and never changed.
func ReadOnly(c Context) Context { return readOnly{c} }

type readOnly struct{ Context }

func (r readOnly) refuse(verb, what string) error {
	return &Error{
		Code:    ReadOnlyContext,
		Message: fmt.Sprintf("cannot %s %s: the context of %s is read-only for this script; return the data as the result, and let its owner write it", verb, what, owner(r)),
	}
}

func (r readOnly) PutRecord(_ context.Context, collection, key string, _ []byte) error {
	return r.refuse("put record", quoteRecord(collection, key))
}

func (r readOnly) DeleteRecord(_ context.Context, collection, key string) error {
	return r.refuse("delete record", quoteRecord(collection, key))
}

func (r readOnly) ReplaceRecord(_ context.Context, collection, key string, _, _ []byte) error {
	return r.refuse("replace record", quoteRecord(collection, key))
}

func (r readOnly) Send(context.Context, string, string, string, []byte) ([]byte, error) {
	return nil, &Error{
		Code:    ReadOnlyContext,
		Message: fmt.Sprintf("cannot send from the context of %s: it is read-only for this script; send from the target's", owner(r)),
	}
}

func (r readOnly) Write(_ context.Context, path string, _ []byte) error {
	return r.refuse("write", quote(path))
}

func (r readOnly) Append(_ context.Context, path string, _ []byte) error {
	return r.refuse("append to", quote(path))
}

func (r readOnly) MakeDirectory(_ context.Context, path string) error {
	return r.refuse("make directory", quote(path))
}

func (r readOnly) Remove(_ context.Context, path string) error {
	return r.refuse("remove", quote(path))
}

// owner names a context's peer in a message.
func owner(c Context) string {
	if n := c.Name(); n != "" {
		return n
	}
	if id := c.ID(); id != "" {
		return id
	}
	return "an unknown peer"
}

// failure is what the guest is told of err. Whatever is not an *Error may name
// the host's own paths and addresses, so none of its text is passed on.
func failure(err error) (Code, string) {
	var e *Error
	if !errors.As(err, &e) || int(e.Code) >= len(codeNames) {
		return IO, "the host failed to do this; its own log says more"
	}
	return e.Code, e.Message
}
