// Package mem keeps a context in memory: for tests, and for a script that is run
// once in a context that is thrown away. Everything that store.Store promises
// holds, save that nothing survives Close.
package mem

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// Config is for New. The zero value works.
type Config struct {
	Limits overlay.Limits
	Now    func() time.Time // default time.Now
}

// New returns an empty context.
func New(c Config) *overlay.Store {
	return NewOn(c, func(b overlay.Backend) overlay.Backend { return b })
}

// NewOn is New with something between the transactions and what keeps the files:
// to count what is asked for, or to make it fail.
func NewOn(c Config, between func(overlay.Backend) overlay.Backend) *overlay.Store {
	if c.Now == nil {
		c.Now = time.Now
	}
	b := &backend{now: c.Now, keys: map[store.Key]int{}}
	b.root = b.node(store.KindDir)
	return overlay.New(between(b), overlay.Config{Limits: c.Limits, Now: c.Now})
}

// backend is the committed state. The tree is changed only by Commit with a
// plan, while overlay lets nobody else look; so it has no lock of its own.
type backend struct {
	now  func() time.Time
	root *node
	made uint64

	mu   sync.Mutex // the log
	log  []store.Entry
	keys map[store.Key]int // index in log

	closed bool
}

type node struct {
	attr     overlay.Attr
	children map[string]*node
	content  *content
	target   string
}

func (b *backend) node(kind store.Kind) *node {
	b.made++
	now := b.now()
	n := &node{attr: overlay.Attr{Kind: kind, Atime: now, Mtime: now, Ctime: now}}
	n.attr.Version.ID[1] = b.made
	if kind == store.KindDir {
		n.children = map[string]*node{}
	}
	return n
}

func (b *backend) find(path string) (*node, error) {
	n := b.root
	if path == "." {
		return n, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		if n.attr.Kind != store.KindDir {
			return nil, store.ErrNotDir
		}
		if n = n.children[name]; n == nil {
			return nil, store.ErrNotExist
		}
	}
	return n, nil
}

func (b *backend) Lstat(path string) (overlay.Attr, error) {
	n, err := b.find(path)
	if err != nil {
		return overlay.Attr{}, err
	}
	return n.attr, nil
}

func (b *backend) ReadDir(path string, limit int) ([]overlay.Name, error) {
	n, err := b.find(path)
	if err != nil {
		return nil, err
	}
	if n.attr.Kind != store.KindDir {
		return nil, store.ErrNotDir
	}
	names := make([]overlay.Name, 0, min(limit, len(n.children)))
	for name, c := range n.children {
		if len(names) == limit {
			break
		}
		names = append(names, overlay.Name{Name: name, Kind: c.attr.Kind})
	}
	return names, nil
}

func (b *backend) Open(path string) (overlay.LowerFile, error) {
	n, err := b.find(path)
	if err != nil {
		return nil, err
	}
	if n.attr.Kind != store.KindFile {
		return nil, store.ErrSpecial
	}
	return lowerFile{n.content, n.attr}, nil
}

func (b *backend) Readlink(path string) (string, error) {
	n, err := b.find(path)
	if err != nil {
		return "", err
	}
	if n.attr.Kind != store.KindLink {
		return "", store.ErrInvalid
	}
	return n.target, nil
}

type lowerFile struct {
	c    *content
	attr overlay.Attr
}

func (f lowerFile) Attr() overlay.Attr { return f.attr }
func (f lowerFile) Close() error       { return nil }

func (f lowerFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.attr.Size {
		return 0, io.EOF
	}
	k := min(int64(len(p)), f.attr.Size-off)
	f.c.readAt(p[:k], off)
	if int(k) < len(p) {
		return int(k), io.EOF
	}
	return int(k), nil
}

const pageSize = 16 << 10

// content is a file's bytes in pages, so that a hole costs nothing: a script can
// write one byte at the far end of a file. A page has as many bytes as were
// written of it, which are few in most files; the rest are zeros. Pages are shared
// by copies of the content, and copied before the first write.
type content struct {
	pages map[int64][]byte
	owned map[int64]bool
}

func (c *content) readAt(p []byte, off int64) {
	for len(p) > 0 {
		at := off % pageSize
		k := min(int64(len(p)), pageSize-at)
		page := c.pages[off/pageSize]
		n := copy(p[:k], page[min(at, int64(len(page))):])
		clear(p[n:k])
		p, off = p[k:], off+k
	}
}

// page returns the first n bytes of a page, or more, which may be written.
func (c *content) page(i, n int64) []byte {
	page := c.pages[i]
	if c.owned[i] && int64(len(page)) >= n {
		return page
	}
	if n > int64(len(page)) && len(page) > 0 { // it grows again, as a rule
		n = min(max(n, 2*int64(len(page))), pageSize)
	}
	fresh := make([]byte, max(n, int64(len(page))))
	copy(fresh, page)
	c.pages[i], c.owned[i] = fresh, true
	return fresh
}

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	c.readAt(p, off)
	return len(p), nil
}

func (c *content) WriteAt(p []byte, off int64) (int, error) {
	total := len(p)
	for len(p) > 0 {
		at := off % pageSize
		k := copy(c.page(off/pageSize, min(at+int64(len(p)), pageSize))[at:], p)
		p, off = p[k:], off+int64(k)
	}
	return total, nil
}

func (c *content) Truncate(size int64) error {
	maps.DeleteFunc(c.pages, func(i int64, _ []byte) bool { return i*pageSize >= size })
	if i, at := size/pageSize, size%pageSize; at != 0 && int64(len(c.pages[i])) > at {
		clear(c.page(i, at)[at:])
	}
	return nil
}

func (c *content) Idle()    {}
func (c *content) Discard() {}

func (b *backend) Stage(_ context.Context, from overlay.LowerFile, n int64) (overlay.Staged, error) {
	c := &content{pages: map[int64][]byte{}, owned: map[int64]bool{}}
	if from != nil && n > 0 {
		maps.Copy(c.pages, from.(lowerFile).c.pages)
		_ = c.Truncate(n)
	}
	return c, nil
}

func (b *backend) Prepare(context.Context, *overlay.Plan) error { return nil }
func (b *backend) Abandon(*overlay.Plan)                        {}

func (b *backend) Commit(_ context.Context, p *overlay.Plan, records []overlay.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range records {
		if _, ok := b.keys[r.Key]; ok {
			return fmt.Errorf("append log entry %x: %w", r.Key[:8], store.ErrExists)
		}
	}
	if p != nil {
		slots := make([]*node, p.Slots)
		for _, s := range p.Steps {
			if err := b.apply(s, slots); err != nil {
				return fmt.Errorf("apply change to %s: %w: %w", s.Path, err, overlay.ErrBroken)
			}
		}
	}
	for _, r := range records {
		e := store.Entry{Seq: 1, Time: r.Time, Key: r.Key, Data: r.Data}
		if n := len(b.log); n > 0 {
			e.Seq, e.Prev = b.log[n-1].Seq+1, b.log[n-1].Hash()
		}
		b.keys[r.Key] = len(b.log)
		b.log = append(b.log, e)
	}
	return nil
}

func (b *backend) apply(s overlay.Step, slots []*node) error {
	dir, name := ".", s.Path
	if i := strings.LastIndexByte(s.Path, '/'); i >= 0 {
		dir, name = s.Path[:i], s.Path[i+1:]
	}
	d, err := b.find(dir)
	if err != nil {
		return err
	}
	now := b.now()
	changed := func() { d.attr.Mtime, d.attr.Ctime = now, now }
	switch s.Kind {
	case overlay.StepRemove, overlay.StepOut:
		n := d.children[name]
		switch {
		case n == nil:
			return store.ErrNotExist
		case s.Kind == overlay.StepOut:
			slots[s.Slot] = n
		case len(n.children) > 0:
			return store.ErrNotEmpty
		}
		delete(d.children, name)
		changed()
	case overlay.StepMkdir:
		if d.children[name] != nil {
			return store.ErrExists
		}
		d.children[name] = b.node(store.KindDir)
		changed()
	case overlay.StepIn:
		d.children[name] = slots[s.Slot]
		changed()
	case overlay.StepSymlink:
		n := b.node(store.KindLink)
		n.target, n.attr.Size = s.Target, int64(len(s.Target))
		d.children[name] = n
		changed()
	case overlay.StepPut:
		n := b.node(store.KindFile)
		n.content = s.File.(*content)
		n.content.owned = nil // never written again, only copied
		n.attr.Size, n.attr.Atime, n.attr.Mtime = s.Size, s.Atime, s.Mtime
		d.children[name] = n
		changed()
	case overlay.StepTimes:
		n, err := b.find(s.Path)
		if err != nil {
			return err
		}
		n.attr.Atime, n.attr.Mtime, n.attr.Ctime = s.Atime, s.Mtime, now
	}
	return nil
}

// Head implements overlay.Header.
func (b *backend) Head() (seq uint64, hash [32]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.log); n > 0 {
		seq, hash = b.log[n-1].Seq, b.log[n-1].Hash()
	}
	return seq, hash
}

func (b *backend) HasKey(key store.Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.keys[key]
	return ok
}

func (b *backend) Entry(ctx context.Context, key store.Key) (store.Entry, bool, error) {
	if err := ctx.Err(); err != nil {
		return store.Entry{}, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return store.Entry{}, false, store.ErrClosed
	}
	i, ok := b.keys[key]
	if !ok {
		return store.Entry{}, false, nil
	}
	return clone(b.log[i]), true, nil
}

// Log yields the entries that there were when the loop began.
func (b *backend) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		b.mu.Lock()
		log, closed := b.log, b.closed
		b.mu.Unlock()
		if closed {
			yield(store.Entry{}, store.ErrClosed)
			return
		}
		from := max(from, 1) - 1
		if from >= uint64(len(log)) {
			return
		}
		for _, e := range log[from:] {
			if err := ctx.Err(); err != nil {
				yield(store.Entry{}, err)
				return
			}
			if !yield(clone(e), nil) {
				return
			}
		}
	}
}

// clone keeps a reader's hands off the log.
func clone(e store.Entry) store.Entry {
	e.Data = slices.Clone(e.Data)
	return e
}

func (b *backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}
