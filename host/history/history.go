// Package history keeps, for a while, what scripts replaced and removed in a
// context, and puts it back. Start with New: a context has one History.
//
//	h := history.New(history.Config{})
//	// In the transaction of a script, when it has ended:
//	changes, err := h.Changes(ctx, tx, told)            // what it did to files, with digests
//	changes.Records(list)                               // and to records
//	kept, err := h.Keep(ctx, tx, id, key, changes)      // kept.Digest goes into the receipt
//	// when that is committed:
//	kept.Committed()
//	// In the transaction of another, later:
//	m, err := h.Find(ctx, tx, id)                       // m.Digest must be what the receipt says
//	err = m.Undo(ctx, tx, records)
//
// # What is kept
//
// A manifest: each change of a record, with its old value; each change of a file
// or directory with its kind, sizes and SHA-256 before and after, also
// of files that the script may not read. And what was at each path before, which
// is moved there (store.Tx.Keep), so that nothing is copied. A file that was only
// appended to is undone by cutting it: nothing is kept of it, and no more of it
// read than was appended. Of another long file of which only the end changed, the
// end is kept.
//
// # Where
//
// In store.Tx.Private, so that no script reaches it, and it is committed with the
// script's own changes:
//
//	history/20260102T150405.678/<id>      the manifest of one script, by its id in hexadecimal digits
//	history/20260102T150405.678/<id>.1    what it replaced or removed, numbered as in the manifest
//	history/sizes                         how much is in those directories that are full
//
// A directory is for the scripts of an hour, or for fewer, and goes as a whole
// when the last of them is too old or there is no more room. Each transaction
// removes a bounded number of names of the oldest one. So keeping costs by what a
// script changed, whatever is there already.
//
// # Trust
//
// What lies there can be edited by the context's owner, or come from a hostile
// store. A manifest counts if its digest is the one in the receipt, which the
// host signed and the log chains; what was kept, if its digest is that of the
// manifest. Paths are used in Files only, from the root down and through real
// directories, so even a manifest that nobody checked would lead nowhere else.
package history

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/circles-host/circles/host/script"
)

// Config is for New. The zero value works.
type Config struct {
	// Keep is how long a script can be undone; a little longer, as a rule. 0 means
	// DefaultKeep, less than 0 that nothing is kept.
	Keep time.Duration
	// Bytes bounds what is kept of one context; the oldest goes first. A script
	// that replaces or removes more than a quarter of it cannot be undone. 0 means
	// DefaultBytes.
	Bytes int64
	Now   func() time.Time // nil means time.Now
}

// What a zero Config means.
const (
	DefaultKeep  = 7 * 24 * time.Hour
	DefaultBytes = 1 << 30
)

// Bounds of what one script may have changed to be undoable.
const (
	maxChanges  = 10_000
	maxManifest = 16 << 20 // bytes
	maxCopied   = 16 << 20 // bytes of one file that are copied, where it cannot be moved
)

// History is what is kept of one context. It is safe for concurrent use; Keep is
// called in one transaction at a time.
type History struct {
	config Config

	mu      sync.Mutex
	loaded  bool
	buckets []*bucket // oldest first
	bytes   int64     // in all of them; what undos took out counts until its bucket goes
	names   int
	remove  []string // names of buckets[0] that are still to be removed, when it goes
	going   *bucket  // buckets[0], if remove is of it
}

// New returns the history of a context; what is in it is looked up when it is
// first used.
func New(c Config) *History {
	c.Keep = cmp.Or(c.Keep, DefaultKeep)
	c.Bytes = cmp.Or(c.Bytes, DefaultBytes)
	if c.Now == nil {
		c.Now = time.Now
	}
	return &History{config: c}
}

// NotKeptError is the answer to the wish to undo a script of which nothing was
// kept, or not for so long, or not whole.
type NotKeptError struct {
	Script script.ID
	Reason string
}

func (e *NotKeptError) Error() string {
	return fmt.Sprintf("script %s cannot be undone: %s", e.Script.Short(), e.Reason)
}

// ConflictError is the answer to the wish to undo a script when what it left is
// no longer as it left it.
type ConflictError struct {
	Script script.ID
	Paths  []string // absolute, or COLLECTION/KEY; at most maxConflicts of them
	More   bool
	// Now is what is in those of them that are files or records, where that was read.
	Now map[string]script.Blob
}

const maxConflicts = 100

func (e *ConflictError) Error() string {
	return fmt.Sprintf("script %s cannot be undone: %s changed since", e.Script.Short(), strings.Join(e.Paths, ", "))
}

func (e *ConflictError) add(path string) {
	if len(e.Paths) == maxConflicts {
		e.More = true
		return
	}
	if n := len(e.Paths); n == 0 || e.Paths[n-1] != path {
		e.Paths = append(e.Paths, path)
	}
}

var errFull = errors.New("full")

const dir = "history"

func name(id script.ID) string { return fmt.Sprintf("%x", id[:]) }

func (b *bucket) path(names ...string) string {
	return path.Join(append([]string{dir, b.name}, names...)...)
}
