package wasi

import (
	"context"
	"time"

	"github.com/circles-host/circles/host/store"
)

// filetype is a kind of file as guests know it.
//
// https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md#filetype
type filetype byte

const (
	// typeUnknown is also that of the standard streams. A character device
	// would be a terminal to libc, which would flush it at each line.
	typeUnknown   filetype = 0
	typeDirectory filetype = 3
	typeFile      filetype = 4
	typeLink      filetype = 7
)

func typeOf(k store.Kind) filetype {
	switch k {
	case store.KindDir:
		return typeDirectory
	case store.KindFile:
		return typeFile
	case store.KindLink:
		return typeLink
	default:
		return typeUnknown
	}
}

// Flags of a descriptor.
//
// https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md#fdflags
const (
	flagAppend   = 1 << 0
	flagNonblock = 1 << 2
	allFlags     = 1<<5 - 1
)

// descriptor is what a number of a guest's stands for.
type descriptor struct {
	kind        filetype
	isStream    bool
	preopened   bool
	read, write bool // as it was opened: what rights were dropped since is in base
	flags       uint16
	// A standard stream's number with wazero, which has it bound to whatever the
	// engine said. It keeps that when the guest gives it another.
	stream           uint32
	device           uint32 // of a file or directory: which of the preopened file systems it is in, from 1
	base, inheriting rights

	// A file or directory. A preopened directory has no file until it is listed.
	file   store.File
	below  store.FS // of a directory; nil until it is used
	offset int64
	charge int    // against the limit on handles
	name   string // of a preopened directory
}

// Files is what one instance has open, made by Mount. It belongs to the
// goroutine that runs the instance.
type Files struct {
	outer   context.Context // that it was mounted in
	ctx     context.Context // of the call that is being served
	fds     []*descriptor   // by number; nil is free
	lowest  int             // no number below it is free
	handles int             // how many may be open
	open    int             // how many are, streams and preopened directories not counted
	peak    int             // how many were
	failure error
	senses  Senses
	slept   time.Duration // while the clock stood still
}

// Left is how many more files the instance may open, as Config.Handles has it for one
// that runs meanwhile.
func (f *Files) Left() int {
	if left := f.handles - f.open; left > 0 {
		return left
	}
	return -1
}

// newFiles has the three streams and the preopened directories.
func newFiles(ctx context.Context, c Config, preopened []Preopened) *Files {
	// Together, for each run makes one and most open no more.
	made := &struct {
		files Files
		fds   [7]*descriptor
		first [4]descriptor
	}{}
	f := &made.files
	*f = Files{outer: ctx, ctx: ctx, handles: c.Handles, senses: c.Senses, fds: made.fds[:0]}
	for i := range uint32(3) {
		d := &made.first[i]
		*d = descriptor{stream: i, isStream: true, base: streamRights | rightWrite, write: true}
		if i == 0 {
			d.base, d.read, d.write = streamRights|rightRead, true, false
		}
		f.add(d)
	}
	for i, p := range preopened {
		d := &made.first[3]
		if i > 0 {
			d = new(descriptor)
		}
		*d = descriptor{
			kind: typeDirectory, base: directoryRights, inheriting: allRights, below: p.Files, device: uint32(i + 1),
			preopened: true, name: p.Name,
		}
		f.add(d)
	}
	return f
}

// add gives d the lowest free number, as POSIX has it.
func (f *Files) add(d *descriptor) uint32 {
	for f.lowest < len(f.fds) && f.fds[f.lowest] != nil {
		f.lowest++
	}
	n := f.lowest
	if n == len(f.fds) {
		f.fds = append(f.fds, d)
	} else {
		f.fds[n] = d
	}
	f.open += d.charge
	f.peak = max(f.peak, f.open)
	f.lowest++
	return uint32(n)
}

// get returns what a number stands for, nil if nothing. The table is as long as
// the highest number that was ever in use, whatever a guest asks for.
func (f *Files) get(fd uint64) *descriptor {
	if n := uint32(fd); uint64(n) < uint64(len(f.fds)) {
		return f.fds[n]
	}
	return nil
}

// close frees a number. It always succeeds: a guest that has given up a
// descriptor must get its place back. A failure is the storage's.
func (f *Files) close(fd uint32) {
	d := f.fds[fd]
	f.fds[fd] = nil
	f.lowest = min(f.lowest, int(fd))
	f.open -= d.charge
	if d.file == nil {
		return
	}
	if err := d.file.Close(); err != nil && f.failure == nil {
		f.failure = err
	}
	d.file, d.below = nil, nil
}

// Close closes what the guest left open, and returns Err.
func (f *Files) Close() error {
	for fd, d := range f.fds {
		if d != nil {
			f.close(uint32(fd))
		}
	}
	return f.failure
}

// Err returns the first failure of the storage itself, as opposed to what a
// guest brought about. The guest was told of an I/O error and may have carried
// on; the transaction should not be committed.
func (f *Files) Err() error { return f.failure }

// Open returns how many files and directories the guest holds open.
func (f *Files) Open() int { return f.open }

// Peak returns the most that Open was.
func (f *Files) Peak() int { return f.peak }

// refuse returns what the guest gets for err.
func (f *Files) refuse(err error) errno {
	switch {
	case err == nil:
		return 0
	case f.ctx.Err() != nil:
		return eIO // the guest ends before it sees it
	}
	guest, expected := translate(err)
	if !expected && f.failure == nil {
		f.failure = err
	}
	return guest
}

// directory is the file system below a directory.
func (d *descriptor) directory() (store.FS, error) {
	if d.below == nil && d.file != nil {
		below, err := d.file.Below()
		if err != nil {
			return nil, err
		}
		d.below = below
	}
	if d.below == nil {
		return nil, store.ErrEscapes // it is shown, and leads nowhere: see Mount
	}
	return d.below, nil
}

// handle is a directory opened, for what needs more than its path.
func (d *descriptor) handle() (store.File, error) {
	if d.file == nil {
		below, err := d.directory()
		if err != nil {
			return nil, err
		}
		if d.file, err = below.Open(".", store.FlagRead|store.FlagDirectory); err != nil {
			d.file = nil
			return nil, err
		}
	}
	return d.file, nil
}

func (d *descriptor) info() (store.Info, error) {
	if d.file != nil {
		return d.file.Stat()
	}
	below, err := d.directory()
	if err != nil {
		return store.Info{}, err
	}
	return below.Stat(".", true)
}

func nanoseconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}
