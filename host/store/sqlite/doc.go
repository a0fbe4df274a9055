// Package sqlite keeps a context in one SQLite file: for an owner who would
// rather copy, move and back up one file than a directory. Start with Open.
//
// # Layout
//
//	PATH         the database
//	PATH-wal     commits that are not in PATH yet; gone when the context is closed
//	PATH-shm     SQLite's index of PATH-wal; gone when the context is closed
//	PATH-lock    held with flock while the context is open
//	PATH-stage   what a running update writes; has lost its name before it has content
//	PATH-new     a database that is being made
//
// An owner may read the database with any SQLite tool at any time; it should be
// changed only while it is closed. (A commit notices if what it replaces was
// changed, and if the log was.) A copy of a context that is open, or was killed,
// must have PATH-wal with it, or be made by SQLite: sqlite3 PATH '.backup COPY'.
// The file does not shrink; VACUUM, while it is closed, makes it do so.
//
// # Schema
//
// application_id is 0x4352434c, "CRCL"; user_version is 1. A file with a higher
// one is refused. A later version of this package that changes the schema raises
// user_version, in the transaction that changes the tables.
//
//	node   a file, directory or link, by (parent, name). The root is number 1, with
//	       parent 0. Names and link targets are bytes; times are nanoseconds since
//	       1970. kind is store.Kind: 1 file, 2 directory, 3 link. edits counts
//	       how often a file was written over.
//	chunk  64 KiB of a file: number (node << 24) + place. A row may be shorter and
//	       may be missing: what is not there reads as zeros. So a file has at most
//	       1 TiB, and a hole costs nothing.
//	log    store.Entry, a column for each field; key is unique.
//
// The rest is in schema.go, with the checks that each row must pass.
//
// # Commit
//
// What an update writes is staged outside the database: new chunks over a
// committed file, which is not copied. So views run beside it on the last
// committed state. Prepare then applies the plan in one transaction of SQLite's,
// beside views too, which in WAL mode go on seeing what was committed before; it
// replaces the chunks that changed and no others, so that appending to a large
// file costs what is appended. Commit adds the log entries and ends the
// transaction. A view that ends with entries while an update is prepared goes
// first, and the update applies its plan again: it waits for that view, so the
// view must not wait for it. Entries of views that end at the same time share
// one transaction.
//
// synchronous is FULL: COMMIT waits until PATH-wal is on the disk. With NORMAL,
// SQLite's usual advice for WAL, it waits at checkpoints only; the file stays
// sound, but a power cut takes back commits whose receipts were acknowledged
// (TestPowerCut fails with it). If that wait fails, nobody knows whether the
// commit will be there after a crash: the store is overlay.ErrBroken until it
// is opened again. A full disk is not that: the commit is taken back.
//
// # Trust
//
// The file may come from anywhere. It must be a regular file of ours with one
// name; it, and the files beside it, are opened without following a link; its
// tables must be these to the letter, so it has no trigger, view or virtual
// table; there is nothing to attach or load; SQLite is in defensive mode with an
// untrusted schema. Where it was not closed, all pages and the whole log are
// checked before it is used; where it was, that no log entry is missing, and the
// rest when it is read: an entry that its neighbours do not vouch for is a
// *DamageError. What is damaged in PATH-wal is not told from a commit that was
// cut short: SQLite drops it and what follows. SQLite itself runs in a memory of its own (next section), so
// what a crafted file makes it overrun is that, and it ends in an error.
//
// # Why github.com/ncruces/go-sqlite3
//
// Both it (v0.36.0) and modernc.org/sqlite (v1.61.1) are SQLite 3.54.1 without
// cgo, and as fast on our work. Best of four runs, on a memory file
// system, ncruces against modernc: commit of a 4 KiB file and a log entry 38 and
// 42 µs, lookup of a name 6.3 and 7.0 µs, listing 10,000 names 5.5 and 6.6 ms, writing
// 16 MiB 58 and 48 ms, reading them 28 and 31 ms, open and close 0.37 and
// 0.11 ms. On a disk a commit is 0.2 ms with either: it is the disk's. ncruces
// adds 10.3 MB to a program and 26 s to a first build, modernc 7.5 MB and 23 s.
// What decided:
//
//   - ncruces translates SQLite's WebAssembly build to Go, where each access to
//     memory is checked and each connection has a memory of its own, of at most
//     256 MiB. modernc translates C to Go with raw pointers: an overrun there is
//     one in the host's heap. Our files may be hostile.
//   - It has SQLite's own interface: defensive mode, limits and error codes, which
//     database/sql hides, and a file system in Go that tests can make fail.
//   - It locks open file descriptions. POSIX locks, which modernc uses, are lost
//     when any descriptor of the file is closed in the process.
//   - It links 3 modules besides x/sys, modernc 7. It has needed no wazero since v0.34.
package sqlite

import (
	"errors"
	"fmt"
	"time"

	"github.com/circles-host/circles/host/store/overlay"
)

// Config says where a context lies. Path must be named; the rest may be zero.
type Config struct {
	Path string // the database; its directory must exist

	Limits  overlay.Limits
	Readers int              // connections for reading, made when needed, each of up to 3 MiB; default 4
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
