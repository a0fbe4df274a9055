// Package overlay is the transaction of a context, whatever keeps its files: an
// in-memory tree of what a script changed, over a read-only lower state.
//
// A backend implements Backend and hands it to New, which gives a store.Store.
//
// # The tree
//
// Nodes load from the lower state one name at a time, when a path walks over
// them. What the script changes stays in the tree until commit: new nodes, moved
// nodes (a moved node remembers its origin, its path in the lower state, so that
// renaming a directory copies nothing and its children still load), and masks
// (names that the lower state has and the transaction no longer shows). A file's
// content is the lower one's until the first write, truncation included, copies
// it up to a staged file. Plan turns the finished tree into steps that a backend
// applies.
//
// # Confinement
//
// A path is resolved here, component by component, and never by a kernel: ".."
// walks the tree, symbolic links are read and followed by us (40 at most), and
// what leads above the root, or is absolute in a link, is ErrEscapes. The
// backend only ever sees paths of real directories, and must not follow a link
// on them either: that keeps a directory swapped for a link, while we look,
// from leading out.
//
// # The host's own directory
//
// What the host keeps for a context beside its owner's files lies in a directory
// at the top of the tree, so every backend keeps it as it keeps the rest, in the
// same commit. Only Private leads there. In Files a name there that is its name,
// or that some file system would take for it (in other case, with characters
// that do not show; by the identity of what it names), is absent, unlisted and
// cannot be made. If something else is there, a link that somebody planted above
// all, Private does not work: that is neither used nor replaced.
//
// # Guards
//
// The guard is asked with the resolved path, and before the answer can show
// whether anything is there. Three more questions close side channels: a link is
// followed, ".." leaves a directory, and a missing component is reported, only
// if OpStat of that place is allowed. Otherwise "hidden/x/../../public" would
// tell whether hidden/x exists.
//
// A rename moves everything below a directory to new paths, under new rules. So
// each thing below is asked for too: OpRemove at its old path, OpWrite at its
// new one; and what may not be read (or listed) at the old path must not become
// readable at the new one. A directory that holds more than the guard can be
// asked about (Limits.Moved) does not move.
//
// # Bounds
//
// Everything that a script can make grow is counted: see Limits. Clean nodes are
// a cache and are never refused, only not kept. Path components are at most 255
// bytes, paths 4,096, trees 128 deep; resolution looks at 4,096 components at
// most, links included.
package overlay

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/circles-host/circles/host/store"
)

// Attr is what a lower state knows about one entry.
type Attr struct {
	Kind                store.Kind
	Size                int64
	Atime, Mtime, Ctime time.Time
	// Version changes when the entry is replaced or edited: for a commit to
	// notice that someone else did. Of a directory only ID counts.
	Version Version
}

// Version identifies one state of one entry.
type Version struct {
	ID           [2]uint64 // device and inode number, or what is like them
	Size         int64
	Mtime, Ctime int64 // nanoseconds since 1970
}

// Same reports whether a and b are the same entry in the same state, of a
// directory: the same directory.
func (a Attr) Same(b Attr) bool {
	if a.Kind != b.Kind || a.Version.ID != b.Version.ID {
		return false
	}
	return a.Kind == store.KindDir || a.Version == b.Version
}

// Name is one entry of a lower directory.
type Name struct {
	Name string
	Kind store.Kind
}

// Lower is a committed state. A path is slash-separated, relative and clean; the
// root is ".". No component of it is a link as far as we know, and if one has
// become one, the call fails instead of following it. Errors are those of
// package store where one fits. Calls may run side by side.
type Lower interface {
	Lstat(path string) (Attr, error)
	// ReadDir returns at most limit names, in any order.
	ReadDir(path string, limit int) ([]Name, error)
	// Open opens a regular file, and never blocks; anything else is ErrSpecial.
	Open(path string) (LowerFile, error)
	Readlink(path string) (string, error)
}

// LowerFile is an open file of a lower state. It stays readable when its name is
// gone.
type LowerFile interface {
	io.ReaderAt
	io.Closer
	Attr() Attr // as of opening
}

// Staged is the content of a file that a transaction wrote. Its size is kept by
// the transaction; reading past what was written gives zeros or io.EOF.
type Staged interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	// Idle says that no handle is open: a descriptor may be given back until
	// the next call.
	Idle()
	// Discard frees the content. It is called at most once, and not after the
	// content was committed.
	Discard()
}

// Record is a log entry to be.
type Record struct {
	Key  store.Key
	Time time.Time // UTC
	Data []byte
}

// Backend keeps one context. Lower and Entry, Log, HasKey are called while
// transactions run; Prepare and
// Abandon by one goroutine at a time; Commit with a plan while
// nothing else looks at the lower state, Commit without one at any time.
type Backend interface {
	Lower

	// Stage makes a staged file holding the first n bytes of from, which may be
	// nil when n is 0. What else a file has and a guest does not see (mode
	// bits) is taken from from.
	Stage(ctx context.Context, from LowerFile, n int64) (Staged, error)

	// Prepare makes the staged content of a plan durable. After it, the content
	// is only read.
	Prepare(ctx context.Context, p *Plan) error

	// Abandon undoes what Prepare made, for a plan that was not committed.
	Abandon(p *Plan)

	// Commit applies the plan (nil: none) and appends the records as one unit,
	// durable when it returns nil. An error means that nothing happened, or is
	// ErrBroken. A key that is in the log already is store.ErrExists; a lower
	// state that is no longer what the plan expects is an error too. A backend
	// that cannot know whether it succeeded before ctx ends finds out, or breaks.
	Commit(ctx context.Context, p *Plan, records []Record) error

	HasKey(key store.Key) bool
	Entry(ctx context.Context, key store.Key) (store.Entry, bool, error)
	Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error]
	Close() error
}

// Snapshotter is a Backend whose committed states do not change: a commit makes a
// new one, and those who hold an old one go on reading that. Its transactions each
// work on one snapshot, and it commits while others run. What a plan expects is
// compared with nothing but Plan.Base: a backend that several hosts commit to must
// fail with store.ErrConflict if the files are no longer in that state.
//
// Its own Lower and HasKey are not called then.
type Snapshotter interface {
	Backend
	// Snapshot returns the last committed state for one transaction, which calls
	// Release when it has ended. What is asked of the state ends with ctx.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Looker is a Backend that answers one transaction at less cost than all: from
// what it opened for the last question, say. The state is the backend's own, which
// does not change meanwhile by any commit.
type Looker interface {
	Backend
	// Look is called for each transaction, which calls Release when it has ended
	// and is one goroutine's.
	Look() Snapshot
}

// Snapshot is the state that a transaction starts from. Release is called last,
// and once.
type Snapshot interface {
	Lower
	HasKey(key store.Key) bool
	Release()
}

// ErrBroken is for a backend whose commit was decided but not wholly applied.
// The store then refuses every further transaction until it is opened again.
var ErrBroken = errors.New("store must be opened again")

// Limits bound what one transaction may use. A zero field means its default.
type Limits struct {
	FileSize    int64 // bytes of one file that is written; default 2 GiB; over it ErrTooBig
	StagedBytes int64 // sum of the sizes of files written; default 4 GiB; ErrQuota
	Entries     int   // names made, removed, moved or rewritten; default 100,000; ErrQuota
	OpenFiles   int   // handles open at once; default 512; ErrTooManyOpen
	Listed      int   // directory entries held by open handles; default 500,000; ErrQuota
	Depth       int   // directories that a path is deep; default and most 128; ErrNameTooLong
	Moved       int   // entries below one renamed directory; default 10,000; ErrQuota
	Records     int   // log entries appended; default 1,000; ErrQuota
	RecordBytes int   // bytes of one log entry, default 16 MiB, else ErrTooBig; four times that in all, else ErrQuota
	cachedNodes int   // clean directories kept in memory
	nodes       int   // nodes kept in memory, for whatever reason
}

func (l Limits) withDefaults() Limits {
	return Limits{
		FileSize:    cmp.Or(l.FileSize, 2<<30),
		StagedBytes: cmp.Or(l.StagedBytes, 4<<30),
		Entries:     cmp.Or(l.Entries, 100_000),
		OpenFiles:   cmp.Or(l.OpenFiles, 512),
		Listed:      cmp.Or(l.Listed, 500_000),
		Depth:       min(cmp.Or(l.Depth, maxDepth), maxDepth),
		Moved:       cmp.Or(l.Moved, 10_000),
		Records:     cmp.Or(l.Records, 1_000),
		RecordBytes: cmp.Or(l.RecordBytes, 16<<20),
		cachedNodes: cmp.Or(l.cachedNodes, 50_000),
		nodes:       cmp.Or(l.nodes, 400_000),
	}
}

const (
	maxName  = 255
	maxPath  = 4096
	maxDepth = 128
	maxLinks = 40
	maxSteps = 4096 // components looked at in one resolution
)
