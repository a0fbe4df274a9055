// Package fs keeps a context in its owner's ordinary directory: plain files that
// any tool can read and edit. Start with Open.
//
// # Layout
//
// Three directories, on one file system, none of which a path of a guest's can
// reach save the first:
//
//	data/          what scripts see as "/"
//	log/           the log: 00000000000000000001.log, …
//	tx/lock        held with flock while the context is open
//	tx/journal     the commit that is decided and not known to be wholly applied
//	tx/stage/      content on its way into data/, under names that mean nothing
//	tx/names/      empty: new names are tried here if the file system is an unusual one
//
// # Confinement
//
// Paths are resolved by package overlay. Here, a directory is opened by
// openat2(RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_XDEV)
// where the kernel has it, and through os.Root elsewhere; everything else is one
// *at call on that descriptor and a single name, and follows nothing. Only
// regular files are opened, without blocking, and looked at again once open.
// Entries on another file system, FIFOs, sockets and devices are KindOther.
//
// What no path sandbox can see is a hard link: a file outside that the owner (or
// whoever may write to data/) has linked into data/ is a file in data/. It can be
// read; a write goes to a copy, which takes the name, so the file outside never
// changes.
//
// # Commit
//
// A transaction's new content is in tx/stage already. A commit then
//
//  1. sets mode and times of each staged file and fsyncs it; makes staged links;
//     fsyncs tx/stage,
//  2. checks that the owner has not changed what the plan will replace, move or
//     remove (else ErrConflict), and that names and permissions allow all of it,
//  3. writes one record to tx/journal and fdatasyncs it: the atomic point,
//  4. applies the plan by renames, unlinks and mkdirs, fsyncing each directory
//     when it is done with it,
//  5. appends the log entries, and fdatasyncs the segment,
//  6. overwrites the record's head with zeros, and fdatasyncs the journal.
//
// Before 3 nothing in data/ or log/ has changed. After 3, if anything fails or
// the machine stops, Open does 4 to 6 again, with a sync of the whole file system
// after 4: it cannot know which of the steps that it finds done are durable. 6
// must be durable before the next commit: an old record applied over newer state
// would undo it.
//
// A transaction that changes no files only appends to the log (5). Others of the
// owner's programs may see step 4 half done; each file is whole at any time.
//
// # Steps that can be repeated
//
// Content comes in by renaming it from tx/stage: if it is not there any more, the
// step was done. What leaves is recognised by device and inode number, and a file
// also by size and modification time, so a repetition leaves alone what has taken
// its place. Moves go out of data/ into tx/stage and in again, so no entry is
// named by a path that another step changes. What the owner has put in the way
// between the check and the rename (or between a crash and Open) is kept, renamed
// to NAME.conflict-1; a directory to be removed that is no longer empty stays.
//
// # Journal
//
// One record, at the start of tx/journal:
//
//	"CIRCLEJ1"   8 bytes
//	length       8 bytes, big endian, of the body
//	checksum     4 bytes, big endian, CRC-32C of length and body
//	body
//
// and the body, with unsigned (u) and zigzag (i) varints as in encoding/binary,
// and strings as a length (u) and bytes:
//
//	number of steps (u), and each:
//	    kind       1 byte: 1 remove, 2 out, 3 mkdir, 4 in, 5 put, 6 symlink, 7 times
//	    path       string, relative to data/
//	    slot       string, of out, in, put and symlink: the name in tx/stage
//	    target     string, of symlink
//	    times      of times: atime, mtime, each seconds (i) and nanoseconds (u); ends the step
//	    was        1 byte, the kind of entry that was there, 0 for none; if not 0:
//	               device (u), inode number (u), size (i), mtime in nanoseconds (i)
//	segment (u) and offset (u) at which the log entries belong
//	number of log entries (u), and each as a string: store.Entry.AppendBinary
//
// A record whose magic, length or checksum is wrong was never decided, and is
// dropped; so is everything in tx/stage, once no record is left.
//
// # Log
//
// A segment is named by the sequence number of its first entry, 20 digits, and
// begins with the 16 bytes "circles log v1\n\n". Entries follow:
//
//	length       4 bytes, big endian, of the entry
//	checksum     4 bytes, big endian, CRC-32C of the length
//	checksum     4 bytes, big endian, CRC-32C of the entry
//	entry        store.Entry.AppendBinary
//
// Each entry's Prev is the SHA-256 of the entry before it (store.Entry.Hash), so
// nothing can be changed, removed or put in without all that follows showing it.
// Open reads the whole log and checks it. A last entry that the file ends inside
// of, or that is all zeros, was never acknowledged: it is cut off, or, if a
// journal record has it, written again. Everything else is a LogDamageError: a
// log with a hole would let a script be run twice.
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
