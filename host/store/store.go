// Package store keeps the files and the log of a peer's context, in
// transactions, and gives a guest the sandboxed file system that it sees.
//
// A Store is one context. A script runs inside one transaction of it: what it
// writes it sees at once, others see after commit, and what does not commit was
// never there. The namespace that a transaction shows is our own tree
// (host/store/overlay): symbolic links are followed by us, component by
// component, so a path that a guest forms is never handed to a kernel to
// resolve, and the backend below is asked only for single entries of real
// directories. That is what confines a guest, on every backend alike.
//
// Backends are sibling packages: fs (the owner's ordinary directory) and mem.
// storetest is the suite that each of them passes in one line.
//
// This package imports nothing of ours.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"time"
)

// Store holds one context. It is safe for concurrent use.
type Store interface {
	// View runs f on the last committed state. Views run side by side.
	// Every mutating call on its Tx fails with ErrReadOnly, except Append. A
	// commit may hold up new views until those that run have ended; see Nested.
	View(ctx context.Context, f func(Tx) error) error

	// Update runs f alone: writers of one context wait for each other, at most
	// until ctx ends. If f returns nil its changes and the entries it appended
	// are committed as one unit and durable when Update returns nil; if it
	// returns an error or panics, nothing of it remains. An error of the commit
	// means the same, unless it is ErrUnknown. A Store may run f only once per
	// call.
	Update(ctx context.Context, f func(Tx) error) error

	// Entry returns the committed log entry with that key.
	Entry(ctx context.Context, key Key) (Entry, bool, error)

	// Log yields committed entries in order, oldest first, from sequence number
	// from (the first is 1).
	Log(ctx context.Context, from uint64) iter.Seq2[Entry, error]

	// Close waits for running transactions and releases the store.
	Close() error
}

// Nested marks ctx as that of somebody who is in a transaction already, of
// another store. A View under it waits for no more than a commit that is being
// applied: were it held up by one that waits for views, two contexts whose
// scripts read each other could wait for each other.
func Nested(ctx context.Context) context.Context {
	return context.WithValue(ctx, nestedKey{}, true)
}

// IsNested reports whether ctx was marked by Nested; for backends.
func IsNested(ctx context.Context) bool { return ctx.Value(nestedKey{}) != nil }

type nestedKey struct{}

// Key is what an entry is found by; unique within a log. The host uses a digest
// of (caller, nonce).
type Key [32]byte

// Entry is one record of the hash-chained log.
type Entry struct {
	Seq  uint64    // 1, 2, 3 …
	Prev [32]byte  // Hash of the entry before; zero for the first
	Time time.Time // when it was committed, by the host's clock, UTC
	Key  Key
	Data []byte // opaque here: a sealed receipt
}

// Tx is one transaction. It is used by one goroutine at a time, and not after
// the function that it was passed to has returned.
type Tx interface {
	// Files returns the context's file system, every operation asking guard
	// first. A nil guard allows everything: for the owner's own tools.
	Files(guard Guard) FS

	// Private returns a file system of the host's own: what it keeps for this
	// context beside the owner's files, committed with the rest and durable with
	// it. It lies in the directory PrivateName at the top of the context, which
	// no path, link, rename or listing of Files reaches and Changes leaves out:
	// there the name is not there, and cannot be made. That directory is made
	// with the first thing in it; until then there is nothing, "/" included.
	//
	// It is counted apart from Files, by limits of the same size. What lies there
	// may have been edited by the owner, or be hostile: whoever reads it checks
	// it. Symbolic links are ErrSpecial instead of being followed, and cannot be
	// made.
	Private() FS

	// Keep puts the regular file that was at path before the transaction, which
	// has replaced, removed or rewritten it, at to in Private; the directory of to
	// must be there, to itself not. It is moved, not copied, where the backend can
	// do that. What there is no need to keep is ErrInvalid: a file that was only
	// appended to or moved, and anything but a file. path is as Changes has it;
	// after a Keep, Changes knows less of the change there.
	Keep(path, to string) error

	// Restore moves the file at from in Private to path in Files, where it takes
	// the place of a file or link.
	Restore(from, path string) error

	// Changes compares the transaction with the state it started from, in path
	// order. A file that was written and ends up as it was is not a change.
	Changes() ([]Change, error)

	// Limit sets limits of this transaction, instead of those that the store has
	// for each, and returns those in force. It is called before Files is used.
	Limit(Limits) Limits

	// Usage tells what the transaction has used so far.
	Usage() Usage

	// Append adds an entry to the log, with the transaction's other effects;
	// Seq, Prev and Time are filled in at commit. A key that is already in the
	// log, or appended twice, is ErrExists.
	Append(key Key, data []byte) error

	// AppendAt is Append for an entry that another store had, with the time that it
	// has there: a log that is copied whole, in order, has the same hashes.
	AppendAt(key Key, data []byte, at time.Time) error
}

// PrivateName is where Tx.Private lies, at the top of a context. In Files it is
// nothing that could be named, however it is spelled.
const PrivateName = ".circles"

// Limits bound what one transaction may use of a context; a zero field leaves
// what the store has. Sizes are those that files claim to have, holes and room
// that was allocated ahead included.
type Limits struct {
	Bytes    int64 // sum of the sizes of the files that it writes; over it ErrQuota
	FileSize int64 // bytes of one file that it writes; ErrTooBig
	Entries  int   // names that it makes, removes, moves, or whose files it writes; ErrQuota
	Handles  int   // files and directories open at once; ErrTooManyOpen
	Listed   int   // directory entries held by open handles; ErrQuota
	Depth    int   // names in a path, 128 at most; ErrNameTooLong
}

// Usage is the most that a transaction used at any time of what Limits count. A
// file that was written and removed again was room taken all the same.
type Usage struct {
	Bytes   int64
	Entries int
	Handles int
}

// Quota bounds what a context holds, whatever the number of transactions that
// wrote it. A zero field bounds nothing.
type Quota struct {
	Bytes   int64 // of all files together, by their sizes: holes count
	Entries int64 // files, directories and links
	Log     int64 // bytes of log entries
}

// Volume is what a context holds, Private included; as in Quota.
type Volume struct{ Bytes, Entries, Log int64 }

// Memo keeps a note of at most some hundred bytes. What Save is given Load returns
// later, or an older one, or nothing: it need not be durable. nil forgets it.
type Memo interface {
	Load() ([]byte, error)
	Save([]byte) error
}

// Op is what a guard is asked about.
type Op uint8

const (
	OpRead   Op = iota + 1 // contents and link targets
	OpList                 // names in a directory
	OpWrite                // create, change, mkdir, symlink, times, a rename's new name
	OpRemove               // unlink, rmdir, a rename's old name
	OpStat                 // size, kind, times; a sensible guard allows it where it allows any other
)

// Guard decides whether a transaction's user may do op on path. Path is
// absolute and *resolved*: no symbolic link is left in it, so a link cannot
// lead around a guard. An error that is not ErrHidden reaches the caller as
// ErrDenied with that error as its cause; ErrHidden reads as ErrNotExist.
type Guard interface {
	Allow(op Op, path string) error
}

// FS is a file system confined to one context. Paths are slash-separated and
// relative to its root; a leading "/" is allowed and means the same. ".." never
// climbs above the root: a path or link that would is ErrEscapes. Operations
// follow symbolic links in all but the last component, and in that too unless
// they say otherwise.
type FS interface {
	Open(path string, flag Flag) (File, error)
	Stat(path string, follow bool) (Info, error)
	Readlink(path string) (string, error)
	Mkdir(path string) error
	Rmdir(path string) error
	Unlink(path string) error
	// Rename replaces an existing target as rename(2) does.
	Rename(from, to string) error
	// RenameTo is Rename to a path of another FS, one that is Below the same
	// Files as this one. Any other is ErrNotSupported.
	RenameTo(from string, at FS, to string) error
	// Symlink refuses a target that is absolute or climbs out lexically.
	Symlink(target, path string) error
	// SetTimes sets access and modification times; a zero time is left as it is.
	SetTimes(path string, follow bool, atime, mtime time.Time) error
}

// Flag says how Open opens.
type Flag uint16

const (
	FlagRead Flag = 1 << iota
	FlagWrite
	FlagAppend    // every write goes to the end
	FlagCreate    // make a regular file if there is none
	FlagExclusive // with FlagCreate: fail if there is one
	FlagTruncate
	FlagDirectory // fail unless it is a directory
	FlagNoFollow  // fail with ErrLoop if the last component is a link
)

// File is an open file or directory, at no position: offsets are explicit.
// It stays readable after its name is gone, until Close or the end of the Tx.
type File interface {
	io.ReaderAt
	io.WriterAt // ignores the offset of a file opened with FlagAppend
	Stat() (Info, error)
	Truncate(size int64) error
	SetTimes(atime, mtime time.Time) error
	// ReadDir returns up to n entries after the first skip, in name order;
	// fewer than n means the end. "." and ".." are not among them.
	ReadDir(skip, n int) ([]DirEntry, error)
	// Below is the file system whose root is this directory, wherever it is moved
	// to meanwhile; nothing beside or above it can be reached. It ends with Close.
	Below() (FS, error)
	Close() error
}

// Info describes a file.
type Info struct {
	Kind  Kind
	Size  int64  // 0 for a directory
	Inode uint64 // stable within a transaction, not the host's own number
	Atime time.Time
	Mtime time.Time
	Ctime time.Time
}

// Kind is what an entry is. Nothing else is ever shown to a guest: FIFOs,
// sockets and devices left in a directory are ErrSpecial to open and are listed
// as KindOther.
type Kind uint8

const (
	KindFile Kind = iota + 1
	KindDir
	KindLink
	KindOther
)

// DirEntry is one name in a directory.
type DirEntry struct {
	Name  string
	Kind  Kind
	Inode uint64
}

// Change is one difference a transaction makes.
type Change struct {
	Path   string // absolute
	Kind   ChangeKind
	Link   string                            // a new link's target
	Before func() (io.ReadSeekCloser, error) // nil unless there was a regular file
	After  func() (io.ReadSeekCloser, error) // nil unless there is one now
	Sizes  struct{ Before, After int64 }
	// Intact is, of a regular file that was written in place, how many of its
	// first bytes nobody has touched. To know it costs nothing, however long the
	// file is.
	Intact int64
	// Appended: the file got longer, and all that was in it is intact.
	Appended bool
	// From is where the file was before the transaction that is at Path now, with
	// the same contents; "" if it was written, or did not move.
	From string
	Was  Was
}

// Was is what was at a path before the transaction. Kind is 0 if nothing was.
type Was struct {
	Kind         Kind
	Link         string // a link's target
	Atime, Mtime time.Time
}

// ChangeKind says what happened to a path.
type ChangeKind uint8

const (
	ChangeCreate ChangeKind = iota + 1
	ChangeModify
	ChangeRemove
	ChangeMkdir
	ChangeSymlink
	ChangeTimes
)

// The errors of FS and File. Those that have a counterpart in io/fs are it, so
// that errors.Is works with either.
var (
	ErrNotExist     = fs.ErrNotExist
	ErrExists       = fs.ErrExist
	ErrClosed       = fs.ErrClosed
	ErrDenied       = fs.ErrPermission                            // the guard said no
	ErrInvalid      = fs.ErrInvalid                               // NUL in a path, negative offset, bad flags
	ErrReadOnly     = errors.New("read-only transaction")         //
	ErrHidden       = errors.New("hidden")                        // from a guard: show it as absent
	ErrEscapes      = errors.New("path leads out of the context") //
	ErrNotDir       = errors.New("not a directory")
	ErrIsDir        = errors.New("is a directory")
	ErrNotEmpty     = errors.New("directory not empty")
	ErrLoop         = errors.New("too many levels of symbolic links")
	ErrSpecial      = errors.New("not a regular file or directory")
	ErrNameTooLong  = errors.New("name too long")
	ErrTooBig       = errors.New("file too big")
	ErrQuota        = errors.New("quota exceeded")
	ErrLogFull      = fmt.Errorf("the log is full: %w", ErrQuota)
	ErrTooManyOpen  = errors.New("too many open files")
	ErrBadFile      = errors.New("file not open for that") // a read of a write-only file, and the like
	ErrNotSupported = errors.New("operation not supported")

	// ErrConflict is the error of an Update whose files something other than a
	// transaction changed meanwhile. Nothing of it was kept; it may be run again.
	ErrConflict = errors.New("files were changed at the same time")

	// ErrUnknown is the error of an Update or View that may have been committed: its
	// store is far away, and did not answer. It was committed whole, or will be in
	// a moment, or was not and never will be. Who appended an entry finds out by
	// appending it again: if that succeeds, the first time did not, and cannot any
	// more; ErrExists says that it did.
	ErrUnknown = errors.New("it is not known whether that was committed")
)

// Finding is something that a check of a context found.
type Finding struct {
	Where string `json:"where"` // a path in the context, or the part of what keeps it
	What  string `json:"what"`  // is there, for a person
	// Damage: what was written is not there any more as it was written. Else it is
	// unfinished, or somebody's doing.
	Damage bool   `json:"damage"`
	Fix    string `json:"fix,omitempty"` // what mends it; "" if nothing here does
	Fixed  bool   `json:"fixed"`         // that was done
}
