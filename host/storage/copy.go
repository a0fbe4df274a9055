package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"time"

	"github.com/circles-host/circles/host/store"
)

// Progress is how far a copy has come.
type Progress struct {
	Doing   string // "copy" or "verify"
	Entries int64  // files, directories and links that are done with
	Bytes   int64  // of files
	Log     uint64 // log entries
	// Of is what there is of them in all; 0 where that is not known.
	Of struct{ Entries, Bytes int64 }
}

// batch is what one transaction of a copy carries at most, but for its last item.
type batch struct {
	bytes   int64 // of files, or of log entries
	entries int   // of a file system, or of the log
}

var usualBatch = batch{bytes: 32 << 20, entries: 500}

const blockSize = 256 << 10

// Copy makes to hold what from holds: every file, directory and link with its
// times, what the host keeps in Private, and the log, entry by entry with its
// times, so that its hashes are the same. It goes on where an earlier call with
// the same source was interrupted, at any point. Its transactions are of bounded
// size, and the last word on whether all is there is Compare's.
//
// What a context may hold and a store cannot say (FIFOs, sockets, devices, links
// that lead out) is an error that names it: nothing is left out.
func Copy(ctx context.Context, to, from store.Store, report func(Progress)) error {
	return (&copying{ctx: ctx, to: to, report: report, batch: usualBatch, p: Progress{Doing: "copy"}}).all(from)
}

func (c *copying) all(from store.Store) error {
	if err := c.measure(from); err != nil {
		return err
	}
	if err := from.View(c.ctx, func(tx store.Tx) error {
		for _, area := range areas {
			if err := c.area(area, area.of(tx)); err != nil {
				return err
			}
		}
		// Whatever is made in a directory changes its times, so they come last.
		for _, area := range areas {
			if err := c.times(area, area.of(tx)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("copy files: %w", err)
	}
	if err := c.log(from); err != nil {
		return fmt.Errorf("copy log: %w", err)
	}
	return nil
}

// area is one of the file systems of a context. Files comes last: to make
// something in Private changes the times of what Private lies in.
type area struct {
	name string
	of   func(store.Tx) store.FS
}

var areas = []area{
	{"the host's ", func(tx store.Tx) store.FS { return tx.Private() }},
	{"", func(tx store.Tx) store.FS { return tx.Files(nil) }},
}

type copying struct {
	ctx    context.Context
	to     store.Store
	report func(Progress)
	batch  batch
	p      Progress
}

func (c *copying) tell() {
	if c.report != nil {
		c.report(c.p)
	}
}

// measure finds out how much there is, where that is known.
func (c *copying) measure(from store.Store) error {
	v, err := volume(c.ctx, from, true)
	if errors.Is(err, store.ErrNotSupported) {
		return nil
	}
	c.p.Of.Entries, c.p.Of.Bytes = v.Entries, v.Bytes
	return err
}

// volume is what a store holds; store.ErrNotSupported if it does not know.
func volume(ctx context.Context, s store.Store, exact bool) (store.Volume, error) {
	m, ok := s.(interface {
		Volume(context.Context, bool) (store.Volume, error)
	})
	if !ok {
		return store.Volume{}, store.ErrNotSupported
	}
	return m.Volume(ctx, exact)
}

// item is something in a file system.
type item struct {
	path string // absolute
	info store.Info
	link string
}

// walk yields everything below a directory, it itself first, in an order that does
// not depend on the backend: a directory before what is in it, names in theirs.
// What a directory holds comes after it in one piece, so that memory is bounded by
// the depth of the tree and its largest directories.
func walk(ctx context.Context, fs store.FS) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		info, err := fs.Stat("/", false)
		if errors.Is(err, store.ErrNotExist) {
			return // the host has kept nothing yet
		}
		if err != nil || yield(item{path: "/", info: info}, nil) {
			if err == nil {
				err = walkBelow(ctx, fs, "/", yield)
			}
			if err != nil && !errors.Is(err, errEnough) {
				yield(item{}, err)
			}
		}
	}
}

var errEnough = errors.New("enough")

func walkBelow(ctx context.Context, fs store.FS, dir string, yield func(item, error) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	h, err := fs.Open(dir, store.FlagRead|store.FlagDirectory|store.FlagNoFollow)
	if err != nil {
		return err
	}
	list, err := h.ReadDir(0, maxListed)
	if err = errors.Join(err, h.Close()); err != nil {
		return err
	}
	for _, e := range list {
		i := item{path: path.Join(dir, e.Name)}
		if i.info, err = fs.Stat(i.path, false); err != nil {
			return err
		}
		switch i.info.Kind {
		case store.KindLink:
			if i.link, err = fs.Readlink(i.path); err != nil {
				return err
			}
		case store.KindFile, store.KindDir:
		default:
			return fmt.Errorf("%s is neither a file, a directory nor a link, and cannot be carried: move it away", i.path)
		}
		if !yield(i, nil) {
			return errEnough
		}
		if i.info.Kind == store.KindDir {
			if err := walkBelow(ctx, fs, i.path, yield); err != nil {
				return err
			}
		}
	}
	return nil
}

const maxListed = 50_000_000

// area copies one file system, but for the times of its directories.
func (c *copying) area(a area, src store.FS) error {
	next, stop := iter.Pull2(walk(c.ctx, src))
	defer stop()
	var now *file // under way
	defer func() {
		if now != nil {
			now.src.Close()
		}
	}()
	done := false
	for !done {
		err := c.to.Update(c.ctx, func(tx store.Tx) error {
			dst := a.of(tx)
			for bytes, entries := int64(0), 0; bytes < c.batch.bytes && entries < c.batch.entries; {
				if now == nil {
					i, err, more := next()
					if !more {
						done = true
						return nil
					}
					if err != nil {
						return err
					}
					entries++
					if now, err = c.begin(dst, src, i); err != nil {
						return fmt.Errorf("%s%s: %w", a.name, i.path, err)
					}
					if now == nil {
						c.p.Entries++
						continue
					}
				}
				n, whole, err := now.some(dst, c.batch.bytes-bytes)
				if err != nil {
					return fmt.Errorf("%s%s: %w", a.name, now.path, err)
				}
				bytes += n
				c.p.Bytes += n
				if whole {
					c.p.Entries++
					now.src.Close()
					now = nil
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		c.tell()
	}
	return nil
}

// begin makes a directory or a link, or opens a file that is to be copied. What is
// there already, from an earlier call, stays; nothing else can be there.
func (c *copying) begin(dst, src store.FS, i item) (*file, error) {
	there, err := dst.Stat(i.path, false)
	if err != nil && !errors.Is(err, store.ErrNotExist) {
		return nil, err
	}
	if err == nil && there.Kind != i.info.Kind {
		return nil, fmt.Errorf("something else is there: %w", errStale)
	}
	missing := err != nil
	switch i.info.Kind {
	case store.KindDir:
		switch {
		case !missing:
			return nil, nil
		case i.path == "/": // the host's, which is made with the first thing in it
			return nil, errors.Join(dst.Mkdir("/first"), dst.Rmdir("/first"))
		}
		return nil, dst.Mkdir(i.path)
	case store.KindLink:
		if missing {
			err := dst.Symlink(i.link, i.path)
			if errors.Is(err, store.ErrEscapes) {
				err = fmt.Errorf("the link leads to %.200q, out of the context, and cannot be carried: remove it", i.link)
			}
			if err != nil {
				return nil, err
			}
		}
		return nil, dst.SetTimes(i.path, false, i.info.Atime, i.info.Mtime)
	}
	if !missing && there.Size == i.info.Size && there.Mtime.Equal(i.info.Mtime) {
		c.p.Bytes += there.Size
		return nil, nil
	}
	f := &file{item: i}
	if !missing && there.Size <= i.info.Size {
		f.off = there.Size
		c.p.Bytes += there.Size
	}
	f.src, err = src.Open(i.path, store.FlagRead|store.FlagNoFollow)
	return f, err
}

// errStale says that what is in the destination is not the beginning of a copy.
var errStale = errors.New("not a copy of this context")

// file is a file that is being copied, up to off.
type file struct {
	item
	src store.File
	off int64
}

// some copies at most about limit bytes more.
func (f *file) some(dst store.FS, limit int64) (n int64, whole bool, err error) {
	flag := store.FlagWrite | store.FlagCreate | store.FlagNoFollow
	if f.off == 0 {
		flag |= store.FlagTruncate
	}
	h, err := dst.Open(f.path, flag)
	if err != nil {
		return 0, false, err
	}
	defer h.Close()
	buf := make([]byte, min(blockSize, f.info.Size+1))
	for n < limit {
		k, err := f.src.ReadAt(buf[:min(int64(len(buf)), max(f.info.Size-f.off, 1))], f.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return n, false, err
		}
		if k == 0 || f.off >= f.info.Size {
			if f.off != f.info.Size || k > 0 {
				return n, false, errChanged
			}
			// The end may be a hole, or it was all there.
			if err := h.Truncate(f.info.Size); err != nil {
				return n, false, err
			}
			return n, true, h.SetTimes(f.info.Atime, f.info.Mtime)
		}
		// A hole stays one; a file may claim to be of any size.
		if !zero(buf[:k]) {
			if _, err := h.WriteAt(buf[:k], f.off); err != nil {
				return n, false, err
			}
		}
		f.off += int64(k)
		n += int64(k)
	}
	return n, false, h.Truncate(f.off) // so that it shows how far this came
}

var errChanged = errors.New("it was changed while it was copied: do it again")

var zeros [blockSize]byte

func zero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// times sets the times of directories.
func (c *copying) times(a area, src store.FS) error {
	next, stop := iter.Pull2(walk(c.ctx, src))
	defer stop()
	for done := false; !done; {
		if err := c.to.Update(c.ctx, func(tx store.Tx) error {
			dst := a.of(tx)
			for n := 0; n < c.batch.entries; {
				i, err, more := next()
				if !more {
					done = true
					return nil
				}
				if err != nil {
					return err
				}
				if i.info.Kind != store.KindDir {
					continue
				}
				n++
				if err := dst.SetTimes(i.path, false, i.info.Atime, i.info.Mtime); err != nil {
					return fmt.Errorf("%s%s: %w", a.name, i.path, err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// log copies the entries that are not there yet.
func (c *copying) log(from store.Store) error {
	next, stop := iter.Pull2(from.Log(c.ctx, 1))
	defer stop()
	for have, err := range c.to.Log(c.ctx, 1) {
		if err != nil {
			return err
		}
		e, err, more := next()
		if err != nil {
			return err
		}
		if !more || e.Hash() != have.Hash() {
			return fmt.Errorf("entry %d is another there: %w", have.Seq, errStale)
		}
		c.p.Log++
	}
	for done := false; !done; {
		if err := c.to.Update(c.ctx, func(tx store.Tx) error {
			for n, size := 0, int64(0); n < c.batch.entries && size < c.batch.bytes; n++ {
				e, err, more := next()
				if !more {
					done = true
					return nil
				}
				if err != nil {
					return err
				}
				if err := tx.AppendAt(e.Key, e.Data, e.Time); err != nil {
					return fmt.Errorf("entry %d: %w", e.Seq, err)
				}
				size += int64(len(e.Data))
				c.p.Log++
			}
			return nil
		}); err != nil {
			return err
		}
		c.tell()
	}
	return nil
}

// Same is what two stores that hold the same hold.
type Same struct {
	Entries, Bytes int64 // files, directories and links, and the bytes of the files
	Log            uint64
	Head           [32]byte // the hash of the last entry
}

// DifferError says in what two stores differ.
type DifferError struct {
	What string // a path, or an entry of the log
	Why  string
}

func (e *DifferError) Error() string { return e.What + " " + e.Why }

// Compare reads all of two stores and fails, with a *DifferError, unless they hold
// the same: every name, kind, content, link, time of modification, and every log
// entry with its hash. (The time that a file was last read is copied, and not
// compared: to compare changes it.)
func Compare(ctx context.Context, a, b store.Store, report func(Progress)) (s Same, err error) {
	c := &copying{ctx: ctx, report: report, p: Progress{Doing: "verify"}}
	if err := c.measure(a); err != nil {
		return s, err
	}
	err = a.View(ctx, func(ta store.Tx) error {
		return b.View(store.Nested(ctx), func(tb store.Tx) error {
			for _, area := range areas {
				if err := c.compare(area, area.of(ta), area.of(tb)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return s, fmt.Errorf("compare files: %w", err)
	}
	// More than was seen is there, under names that a store cannot say.
	for _, x := range []store.Store{a, b} {
		v, err := volume(ctx, x, false)
		switch {
		case errors.Is(err, store.ErrNotSupported):
		case err != nil:
			return s, err
		case v.Entries != c.p.Entries:
			return s, &DifferError{fmt.Sprintf("%d of %d names", v.Entries-c.p.Entries, v.Entries), "cannot be said, since they are not UTF-8, and would be lost: rename them"}
		}
	}
	s.Entries, s.Bytes = c.p.Entries, c.p.Bytes
	next, stop := iter.Pull2(b.Log(ctx, 1))
	defer stop()
	for e, err := range a.Log(ctx, 1) {
		if err != nil {
			return s, err
		}
		o, err, more := next()
		switch {
		case err != nil:
			return s, err
		case !more:
			return s, &DifferError{fmt.Sprintf("log entry %d", e.Seq), "is missing"}
		case o.Seq != e.Seq || o.Hash() != e.Hash():
			return s, &DifferError{fmt.Sprintf("log entry %d", e.Seq), "is another"}
		}
		s.Log, s.Head = e.Seq, e.Hash()
		if c.p.Log++; c.p.Log%1000 == 0 {
			c.tell()
		}
	}
	if e, err, more := next(); err != nil {
		return s, err
	} else if more {
		return s, &DifferError{fmt.Sprintf("log entry %d", e.Seq), "has come from elsewhere"}
	}
	c.tell()
	return s, nil
}

func (c *copying) compare(a area, x, y store.FS) error {
	next, stop := iter.Pull2(walk(c.ctx, y))
	defer stop()
	differ := func(i item, why string) error { return &DifferError{a.name + i.path, why} }
	for i, err := range walk(c.ctx, x) {
		if err != nil {
			return err
		}
		j, err, more := next()
		switch {
		case err != nil:
			return err
		case !more || i.path != j.path:
			if more && cmp.Compare(j.path, i.path) < 0 {
				return differ(j, "has come from elsewhere")
			}
			return differ(i, "is missing, or something was put beside it")
		case i.info.Kind != j.info.Kind:
			return differ(i, "is of another kind")
		case i.link != j.link:
			return differ(i, "leads elsewhere")
		case i.info.Size != j.info.Size:
			return differ(i, fmt.Sprintf("has %d bytes instead of %d", j.info.Size, i.info.Size))
		case !i.info.Mtime.Equal(j.info.Mtime):
			return differ(i, fmt.Sprintf("was modified at %s instead of %s", j.info.Mtime.UTC().Format(time.RFC3339Nano), i.info.Mtime.UTC().Format(time.RFC3339Nano)))
		}
		if i.info.Kind == store.KindFile {
			if err := c.content(i, x, y, differ); err != nil {
				return err
			}
		}
		if i.path != "/" || a.name != "" { // the root is no entry; the host's directory is one
			c.p.Entries++
		}
		if c.p.Entries%1000 == 0 {
			c.tell()
		}
	}
	j, err, more := next()
	if err == nil && more {
		err = differ(j, "has come from elsewhere")
	}
	return err
}

func (c *copying) content(i item, x, y store.FS, differ func(item, string) error) error {
	a, err := x.Open(i.path, store.FlagRead|store.FlagNoFollow)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := y.Open(i.path, store.FlagRead|store.FlagNoFollow)
	if err != nil {
		return err
	}
	defer b.Close()
	bufA, bufB := make([]byte, min(blockSize, i.info.Size)), make([]byte, min(blockSize, i.info.Size))
	for off := int64(0); off < i.info.Size; {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		n := min(int64(len(bufA)), i.info.Size-off)
		for _, r := range []struct {
			f store.File
			b []byte
		}{{a, bufA}, {b, bufB}} {
			if k, err := r.f.ReadAt(r.b[:n], off); int64(k) < n {
				return errors.Join(differ(i, "ends too soon"), err)
			}
		}
		if !bytes.Equal(bufA[:n], bufB[:n]) {
			return differ(i, fmt.Sprintf("differs in the %d bytes at %d", n, off))
		}
		off += n
		c.p.Bytes += n
		if off%(16<<20) == 0 {
			c.tell()
		}
	}
	return nil
}
