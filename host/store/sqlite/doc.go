// Package sqlite keeps a context in one SQLite file.
package sqlite

import (
	"errors"
	"fmt"
	"time"

	"github.com/circles-host/circles/host/store/overlay"
)

// Config says where a context lies. Path must be named; the rest may be zero.
type Config struct {
	Path string // the database; beside it lie PATH-wal, PATH-shm and PATH-lock

	Limits  overlay.Limits
	Readers int              // connections for reading, each of about 3 MiB; default 4
	Now     func() time.Time // default time.Now
}

// ErrLocked is the error of opening a context that is open, here or elsewhere.
var ErrLocked = errors.New("context is in use by another process")

// DamageError is the error of opening or reading a database that is not as it
// was written.
type DamageError struct {
	File string
	Err  error // what is wrong
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("database %s is damaged: %v; restore it from a backup together with its -wal file, or move both away to begin a new context",
		e.File, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }
