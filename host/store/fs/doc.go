// Package fs keeps a context in its owner's ordinary directory: plain files that
// any tool can read and edit. Start with Open.
package fs

import (
	"errors"
	"fmt"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// Config says where a context lies. Data, Log and Tx must be named; the rest
// may be zero.
type Config struct {
	Data string // what scripts see
	Log  string // the log's segments
	Tx   string // staged files, journal and lock; on Data's file system, outside Data

	Limits     overlay.Limits
	LogSegment int64            // size in bytes after which a log segment is full; default 16 MiB
	Now        func() time.Time // default time.Now
}

// ErrConflict is the error of a commit whose files were changed, by something
// other than this store, while the transaction ran. Nothing of it was applied.
var ErrConflict = store.ErrConflict

// ErrLocked is the error of opening a context that is open, here or elsewhere.
var ErrLocked = errors.New("context is in use by another process")

// LogDamageError is the error of opening or reading a log that is not as it was
// written. An append that was cut short by a crash is not damage.
type LogDamageError struct {
	File   string // the segment
	Offset int64  // of the entry in it
	Err    error  // what is wrong
}

func (e *LogDamageError) Error() string {
	return fmt.Sprintf("log %s is damaged at byte %d: %v; restore it from a backup, or move the log directory away to begin a new one",
		e.File, e.Offset, e.Err)
}

func (e *LogDamageError) Unwrap() error { return e.Err }
