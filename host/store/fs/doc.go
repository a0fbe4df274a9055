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
//	tx/journal     while commits may be in a journal and not in data/ and log/: which
//	tx/stage/      content on its way into data/, and small files on their way out
//	               that will be used again, under names that mean nothing
//	tx/names/      empty: new names are tried here if the file system is an unusual one
//	tx/redo/       the journal of a context that shares none, while it is open
//
// A closed context is complete in data/ and log/: it can be copied and moved. So
// can one that is open or was not closed, if what tx/journal names goes with it.
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
// A transaction's new content is in tx/stage already, if it is not so small that it
// is in memory (1 MiB of files of at most 64 KiB). A commit then
//
//  1. writes to tx/stage what is in memory, sets mode and times of each staged file,
//     and fsyncs those that are too large for the journal, and then tx/stage; makes
//     staged links,
//  2. checks that the owner has not changed what the plan will replace, move or
//     remove (else ErrConflict), that names and permissions allow all of it, and
//     that the disk has room,
//  3. writes one record to the journal and waits until it is durable, which it
//     becomes together with the records of other contexts: the atomic point,
//  4. applies the plan by renames, unlinks and mkdirs, and appends the log entries,
//     none of which waits for the disk,
//  5. marks the record as applied.
//
// Before 3 nothing in data/ or log/ has changed. From 3 on the commit is a fact:
// what the disk has lost of 4 after a crash, Open does again. Others of the owner's
// programs may see step 4 half done; each file is whole at any time. One whose old
// content is kept (store.Tx.Keep) is away between two renames.
//
// A small file that replaces another changes places with it, where the kernel can
// (RENAME_EXCHANGE). The old one is removed, or used for what is staged later: when
// its record is settled, so that the disk has it nowhere else, and if it was made by
// this process, is of 16 KiB or less, has one name and no attributes, and nobody has
// it open, which a lease tells (F_SETLEASE). A context keeps 256 of them at most, and
// none when it is closed.
//
// The journal has two files. When one is full, or its oldest record a second old,
// records go to the other, and the first is drained: the files and directories
// that its records changed are fsynced, or, if they are many, whole file systems
// are (syncfs, where the kernel reports what it could not write); then its head is
// overwritten with zeros, and that is made durable. A context does the same for
// itself when it is closed, and then removes tx/journal, durably. When both files
// are full, commits wait.
//
// So tx/journal is written, and fsynced, before the first commit after an opening;
// and a context is opened in three ways: without tx/journal there is nothing to
// do; with it, and with no record in the journal, there is not either; else the
// records are done again.
//
// A commit that moves a directory, or that makes a large file longer in place, is
// alone: what was committed before is made durable first, all of its content and
// tx/stage too, and it is applied with an fsync after each directory. Its steps can
// be repeated one by one: what comes in is renamed from tx/stage, and if it is not
// there any more, the step was done; what leaves is recognised by device and inode
// number, and a file also by size and modification time; moves go out of data/ into
// tx/stage and in again, so that no entry is named by a path that another step
// changes; and what a file grows by is written at the offset that was its end.
//
// # Recovery
//
// Open reads the records of the context, in order, and leaves out those that the
// last of them says are settled: wholly on the disk. If a process died, and the
// machine did not, those that are marked as applied are so, in the kernel's cache;
// the head of a journal's file says in which run of the machine it was written, and
// a record on which mount: one that was lost and mounted again has no such cache.
// Of the others any part may be on the disk, in any order: names may be missing or
// of later commits, content of files that were not fsynced may be short or zeros.
// One that is alone has nothing else beside it, and is applied again.
//
// Else the records are not done again one after the other: that would move and
// remove what a later one had put in the place of another. What they amount to is
// worked out, path by path: which file, directory or link is there in the end, or
// none. No directory moves, so a path means the same in all of them. A file is
// known by its device and inode number, also while it is moved; one that was made
// has its number, size and times in the record, since it was in tx/stage before.
// Then everything known that is not where it belongs goes: to tx/stage if it
// belongs elsewhere, else away. Then directories are made, and what is missing put
// in place: from tx/stage, or, for small files and links, from the record. Small
// files that are in place already are made again, since what is read of them may be
// what the disk refused. This can be interrupted and done again.
//
// What is in the way and known to no record, or known with another size or
// modification time, is the owner's, from between the commit and now: it is kept,
// renamed to NAME.conflict-1. What a record would remove and is not as it was
// stays, as does a directory that is no longer empty. If a file that was to grow is
// not the same any more, the rest is kept beside it as NAME.conflict-1.
//
// Log entries that are not in the log are appended; the log is cut at where the
// first record's entries begin, so nothing that was not durable is believed. At the
// end all of the file system is synced, and tx/journal removed.
//
// This holds on file systems whose rename is atomic, after a crash too, and whose
// fsync of a directory makes its names durable, as those with a journal of their
// own do.
//
// # Journal
//
// The directory of a journal may be used by several processes. Each has a name, 32
// hexadecimal digits, and two files: NAME.0, held with flock while the process
// lives, and NAME.1. OpenJournal goes through what dead processes left: the records
// that contexts need are written to NAME.CONTEXT.kept, one for each context, and
// NAME.0 is made empty. The same is done with the records of a context that cannot
// be settled, because its disk is full or it was taken away: it holds up no other.
// Whoever opens the context finds its records in any of the three, by what
// tx/journal says:
//
//	circles journal v2
//	NAME
//	CONTEXT        32 hexadecimal digits, made anew at each opening
//	DIRECTORY      of the journal, relative to tx
//
// A file has a head of 4,096 bytes; if that begins with zeros, it has no records:
//
//	"CIRCLEJ2"     8 bytes
//	epoch          8 bytes, random; records of another are left over
//	run            64 bytes, names the run of the machine (Linux: boot_id), zero padded
//	checksum       4 bytes, CRC-32C of the above
//	zeros
//
// and after it records, until the first that is not whole:
//
//	"CIRCLER2"     8 bytes
//	epoch          8 bytes
//	batch          8 bytes; batches are numbered, and made durable one after the other
//	length         8 bytes, of the body; at most 256 MiB
//	checksum       4 bytes, CRC-32C of the body
//	last           1 byte, 1 if the record ends its batch
//	checksum       4 bytes, CRC-32C of the above
//	applied        1 byte, set to 1 later
//	body
//
// Integers are big endian. A batch is written only when the one before it is
// durable, so what follows the last whole record is the beginning of one that was
// never acknowledged, and is dropped; unless a whole record of a later batch lies
// behind it, which is a JournalDamageError. A body has unsigned (u) and zigzag (i)
// varints as in encoding/binary, and strings as a length (u) and bytes:
//
//	context        16 bytes
//	number (u) of the record in its context, from 1
//	settled (u)    records up to this one are wholly on the disk
//	tx             string, the context's Tx directory relative to the journal's
//	device (u) that data/ was on, which may have another number in the next run; and
//	the number (u) of the mount, 0 if it is not known
//	number of steps (u), and each:
//	    kind       1 byte: 1 remove, 2 out, 3 mkdir, 4 in, 5 put, 6 symlink, 7 times, 64 grow
//	    path       string, relative to data/
//	    was        1 byte, the kind of entry that was there, 0 for none; if not 0, its version
//	    slot       string, of out, in, put, symlink and grow: the name in tx/stage
//	    times      of times, put and grow: atime, mtime, each seconds (i) and nanoseconds (u)
//	    target     string, of symlink
//	    made       of put and grow: version of the staged file; mode, user, group (u);
//	               the offset from which on it counts (u); 1 byte, and if that is 1
//	               all of the content (string)
//	segment (u) and offset (u) at which the log entries belong
//	number of log entries (u), and each as a string: store.Entry.AppendBinary
//
// A version is device (u), inode number (u), size (i) and modification time in
// nanoseconds (i).
//
// A failed write or fdatasync of the journal is not tried again: the kernel forgets
// what it could not write. The journal then takes no more, and each context that
// uses it must be opened again, with another journal. So must one whose commit
// could not be applied, or made durable; that concerns it alone.
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
// log with a hole would let a script be run twice. A segment is begun only when
// the one before it is durable.
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

	// Journal is shared with other contexts, whose commits then wait for the disk
	// together. A context without has one of its own.
	Journal *Journal

	Limits     overlay.Limits
	LogSegment int64            // size in bytes after which a log segment is full; default 16 MiB
	Now        func() time.Time // default time.Now
}

// JournalConfig is for OpenJournal. All but Dir may be zero.
type JournalConfig struct {
	Dir  string        // one for all contexts of a root; several processes may use it
	Size int64         // bytes of commits after which what they did is made durable in its place; default 32 MiB
	Age  time.Duration // the longest that this is put off; default 1 s
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
