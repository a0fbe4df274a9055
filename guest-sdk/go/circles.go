// Package circles is what a script module written in Go imports: the contexts of
// the two peers that a script concerns, a log, and the entries that a host calls.
//
// A script module is built with the stock Go toolchain, 1.24 or newer:
//
//	package main
//
//	import "github.com/circles-host/circles/guest-sdk/go"
//
//	//go:wasmexport run
//	func run(ptr, n uint32) uint32 { return circles.Handle(ptr, n, greet) }
//
//	func greet(params []byte) ([]byte, error) {
//		card, err := circles.Caller().ReadFile("/card.txt")
//		if err != nil {
//			return nil, err
//		}
//		return append([]byte("hello, "), card...), nil
//	}
//
//	func main() {}
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o greet.wasm
//
// That is a reactor: each go:wasmexport of that type is an entry that a script
// can name, "run" the default. An ordinary program, built without -buildmode, is
// a command: it has its params on stdin and its result on stdout, and may use
// Caller, Target and Log too.
//
// The target's files are also the program's own, at "/", through package os.
// Both ways go through the policy of the target's owner and one transaction: when
// an entry returns an error, panics or runs into a limit, nothing that it wrote
// remains.
//
// # What differs from an ordinary program
//
// A host gives every call a fresh instance, and may make it by copying one that
// has run as far as the end of all init functions, without any context in reach.
// So package variables start from the same values in every call, and init
// functions must not use a context; a package variable may hold one:
//
//	var me = circles.Target()
//
// For the same reason whatever the Go runtime drew at random while it started is
// the same in every call: math/rand and math/rand/v2 without a seed of one's own,
// the order of maps, hash/maphash. Where that matters, draw from crypto/rand,
// which asks the host each time.
//
// Nothing runs between calls: goroutines that an entry leaves behind do not go
// on, and an entry that waits for something that cannot happen fails.
//
// # Tests
//
// The package also compiles for other platforms, where every operation fails with
// an *Error of code Unavailable. Write handlers as functions of their params and
// an fs.FS, and `go test` runs them anywhere.
package circles

import (
	"io/fs"
	"time"
)

// Context is the named environment of a peer: its files and records, as far as
// that peer's policy lets this script at them. It is a name rather than an open handle: it
// may be kept, copied to a package variable and used in any later call.
//
// Paths are slash-separated and start at the context's root; a leading "/" may be
// left out. Errors are of type *Error. Methods may be called from several
// goroutines; the calls take turns.
type Context struct {
	party party
}

// party is which of the two peers of a script.
type party uint8

const (
	caller party = iota
	target
	parties
)

var contexts = [parties]Context{{caller}, {target}}

// Caller is the context of the peer that sent this script. What it allows is what
// that peer lent in the script; it can never be changed.
func Caller() *Context { return &contexts[caller] }

// Target is the context that this script runs in.
func Target() *Context { return &contexts[target] }

// ID is the peer's identity, "did:key:z6Mk…".
func (c *Context) ID() string { return hostID(c.party) }

// Name is the name that the target's owner gave this peer, and "" for a stranger.
// It identifies nobody outside of this target: store IDs, show names.
func (c *Context) Name() string { return hostName(c.party) }

// ReadFile returns the whole contents of a file. For large files, read parts with
// ReadAt or through FS.
func (c *Context) ReadFile(path string) ([]byte, error) {
	b, err := hostRead(c.party, path)
	return b, failed("read", path, err)
}

// ReadAt returns up to n bytes of a file from offset: fewer at its end, none
// beyond it. That is no error, unlike with io.ReaderAt.
func (c *Context) ReadAt(path string, offset uint64, n uint32) ([]byte, error) {
	b, err := hostReadAt(c.party, path, offset, n)
	return b, failed("read", path, err)
}

// WriteFile replaces the contents of a file, or makes one. Directories on the way
// must be there.
func (c *Context) WriteFile(path string, data []byte) error {
	return failed("write", path, hostWrite(c.party, path, data))
}

// Append adds to the end of a file, or makes one.
func (c *Context) Append(path string, data []byte) error {
	return failed("append", path, hostAppend(c.party, path, data))
}

// ReadDir returns the entries of a directory, in name order. Their Info method
// asks the host again, for each.
func (c *Context) ReadDir(path string) ([]fs.DirEntry, error) {
	entries, err := hostList(c.party, path)
	if err != nil {
		return nil, failed("list", path, err)
	}
	list := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		list[i] = dirEntry{c, path, e}
	}
	return list, nil
}

// Stat describes a file or directory.
func (c *Context) Stat(path string) (fs.FileInfo, error) {
	s, err := hostStat(c.party, path)
	if err != nil {
		return nil, failed("stat", path, err)
	}
	return fileInfo{base(path), s}, nil
}

// Mkdir makes a directory.
func (c *Context) Mkdir(path string) error {
	return failed("mkdir", path, hostMkdir(c.party, path))
}

// Remove removes a file, a link or an empty directory.
func (c *Context) Remove(path string) error {
	return failed("remove", path, hostRemove(c.party, path))
}

// kind is what a name stands for; contexts.kind in host.wit.
type kind uint8

const (
	kindFile kind = iota
	kindDirectory
	kindLink
	kindOther
)

func (k kind) mode() fs.FileMode {
	switch k {
	case kindFile:
		return 0
	case kindDirectory:
		return fs.ModeDir
	case kindLink:
		return fs.ModeSymlink
	}
	return fs.ModeIrregular
}

// entry is contexts.entry in host.wit.
type entry struct {
	name string
	kind kind
}

// stat is contexts.stat in host.wit.
type stat struct {
	kind     kind
	size     uint64
	modified uint64 // milliseconds since 1970
}

type dirEntry struct {
	context *Context
	dir     string
	entry   entry
}

func (e dirEntry) Name() string               { return e.entry.name }
func (e dirEntry) IsDir() bool                { return e.entry.kind == kindDirectory }
func (e dirEntry) Type() fs.FileMode          { return e.entry.kind.mode() }
func (e dirEntry) Info() (fs.FileInfo, error) { return e.context.Stat(e.dir + "/" + e.entry.name) }
func (e dirEntry) String() string             { return fs.FormatDirEntry(e) }

type fileInfo struct {
	name string
	stat stat
}

// Mode has permission bits because much code looks at them; what is allowed is
// decided by policy, at each operation.
func (i fileInfo) Mode() fs.FileMode {
	if i.IsDir() {
		return i.stat.kind.mode() | 0o755
	}
	return i.stat.kind.mode() | 0o644
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return int64(i.stat.size) }
func (i fileInfo) ModTime() time.Time { return time.UnixMilli(int64(i.stat.modified)) }
func (i fileInfo) IsDir() bool        { return i.stat.kind == kindDirectory }
func (i fileInfo) Sys() any           { return nil }
func (i fileInfo) String() string     { return fs.FormatFileInfo(i) }
