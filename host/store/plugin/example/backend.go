package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// backend is the tree in memory, and the file in which its commits are. The tree
// is changed only by a Commit with a plan, while the host lets nobody else look.
type backend struct {
	path string
	file *os.File
	root *node
	made uint64

	mu   sync.Mutex // the end of the file, and the log
	end  int64
	log  []store.Entry
	keys map[store.Key]int // index in log
	bad  error             // why nothing more can be committed
}

type node struct {
	attr     overlay.Attr
	children map[string]*node
	pages    map[int64]int64 // where in the file each page lies; what is missing is zeros
	target   string
}

const pageSize = 16 << 10

// open opens the file, or makes it.
func open(path string) (*backend, error) {
	f, err := create(path)
	if err != nil {
		return nil, err
	}
	b := &backend{path: path, file: f, keys: map[store.Key]int{}}
	b.root = b.node(store.KindDir, time.Now())
	if err = b.replay(); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return b, nil
}

func (b *backend) node(kind store.Kind, at time.Time) *node {
	b.made++
	n := &node{attr: overlay.Attr{Kind: kind, Atime: at, Mtime: at, Ctime: at}}
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

// Lstat implements overlay.Lower.
func (b *backend) Lstat(path string) (overlay.Attr, error) {
	n, err := b.find(path)
	if err != nil {
		return overlay.Attr{}, err
	}
	return n.attr, nil
}

// ReadDir implements overlay.Lower.
func (b *backend) ReadDir(path string, limit int) ([]overlay.Name, error) {
	n, err := b.find(path)
	if err != nil {
		return nil, err
	}
	if n.attr.Kind != store.KindDir {
		return nil, store.ErrNotDir
	}
	var names []overlay.Name
	for name, c := range n.children {
		if len(names) == limit {
			break
		}
		names = append(names, overlay.Name{Name: name, Kind: c.attr.Kind})
	}
	return names, nil
}

// Readlink implements overlay.Lower.
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

// Open implements overlay.Lower.
func (b *backend) Open(path string) (overlay.LowerFile, error) {
	n, err := b.find(path)
	if err != nil {
		return nil, err
	}
	if n.attr.Kind != store.KindFile {
		return nil, store.ErrSpecial
	}
	return &content{b: b, attr: n.attr, pages: n.pages}, nil
}

// content is what a file holds, as a commit has left it.
type content struct {
	b     *backend
	attr  overlay.Attr
	pages map[int64]int64 // never changed
}

func (c *content) Attr() overlay.Attr { return c.attr }
func (c *content) Close() error       { return nil }

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.attr.Size {
		return 0, io.EOF
	}
	var short error
	if int64(len(p)) > c.attr.Size-off {
		p, short = p[:c.attr.Size-off], io.EOF
	}
	for n := 0; n < len(p); {
		i, in := (off+int64(n))/pageSize, (off+int64(n))%pageSize
		part := p[n:min(len(p), n+int(pageSize-in))]
		if at, ok := c.pages[i]; !ok {
			clear(part)
		} else if _, err := c.b.file.ReadAt(part, at+in); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), short
}

// staged is what a transaction has written: pages over those of a content. They
// are in memory; so a transaction takes at most as much of it as the host's
// limit of what one may stage.
type staged struct {
	content
	written map[int64]*[pageSize]byte
}

// Stage implements overlay.Backend.
func (b *backend) Stage(_ context.Context, from overlay.LowerFile, n int64) (overlay.Staged, error) {
	s := &staged{content: content{b: b, pages: map[int64]int64{}}, written: map[int64]*[pageSize]byte{}}
	if from != nil && n > 0 {
		maps.Copy(s.pages, from.(*content).pages)
		return s, s.Truncate(n)
	}
	return s, nil
}

func (s *staged) page(i int64) (*[pageSize]byte, error) {
	if p := s.written[i]; p != nil {
		return p, nil
	}
	p := new([pageSize]byte)
	if at, ok := s.pages[i]; ok {
		if _, err := s.b.file.ReadAt(p[:], at); err != nil {
			return nil, err
		}
	}
	s.written[i] = p
	return p, nil
}

func (s *staged) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		i, in := (off+int64(n))/pageSize, (off+int64(n))%pageSize
		part := p[n:min(len(p), n+int(pageSize-in))]
		if w := s.written[i]; w != nil {
			copy(part, w[in:])
		} else if at, ok := s.pages[i]; !ok {
			clear(part)
		} else if _, err := s.b.file.ReadAt(part, at+in); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), nil
}

func (s *staged) WriteAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		w, err := s.page((off + int64(n)) / pageSize)
		if err != nil {
			return n, err
		}
		n += copy(w[(off+int64(n))%pageSize:], p[n:])
	}
	return len(p), nil
}

func (s *staged) Truncate(size int64) error {
	beyond := func(i int64) bool { return i*pageSize >= size }
	maps.DeleteFunc(s.pages, func(i, _ int64) bool { return beyond(i) })
	maps.DeleteFunc(s.written, func(i int64, _ *[pageSize]byte) bool { return beyond(i) })
	i, in := size/pageSize, size%pageSize
	_, old := s.pages[i]
	if in == 0 || !old && s.written[i] == nil {
		return nil
	}
	w, err := s.page(i)
	if err != nil {
		return err
	}
	clear(w[in:])
	return nil
}

func (s *staged) Idle() {}

func (s *staged) Discard() { s.written = nil }

// Prepare implements overlay.Backend: the pages are written. Nobody looks at them
// before a commit says where they are.
func (b *backend) Prepare(_ context.Context, p *overlay.Plan) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bad != nil {
		return b.bad
	}
	begin := b.end
	defer func() {
		if err != nil {
			b.end = begin
		}
	}()
	for _, st := range p.Steps {
		if st.Kind != overlay.StepPut {
			continue
		}
		s := st.File.(*staged)
		for i, page := range s.written {
			at, err := b.appendFrame(framePage, page[:])
			if err != nil {
				return err
			}
			s.pages[i] = at
		}
		s.written = nil
	}
	if b.end == begin {
		return nil
	}
	return b.file.Sync()
}

// Abandon implements overlay.Backend. What was written lies in the file, unused.
func (b *backend) Abandon(*overlay.Plan) {}

// Commit implements overlay.Backend. Nobody else writes to the file, so that what
// the plan expects still holds.
func (b *backend) Commit(_ context.Context, p *overlay.Plan, records []overlay.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bad != nil {
		return b.bad
	}
	c := &commit{}
	for _, r := range records {
		if _, ok := b.keys[r.Key]; ok {
			return fmt.Errorf("append log entry %x: %w", r.Key[:8], store.ErrExists)
		}
		c.Log = append(c.Log, entry{r.Time, r.Key, r.Data})
	}
	if p != nil {
		c.Slots = p.Slots
		now := time.Now()
		for _, s := range p.Steps {
			st := step{
				Kind: s.Kind, Path: s.Path, Slot: s.Slot, Size: s.Size, Target: s.Target,
				Atime: s.Atime, Mtime: s.Mtime, At: now,
			}
			if s.Kind == overlay.StepPut {
				st.Pages = s.File.(*staged).pages
			}
			c.Steps = append(c.Steps, st)
		}
	}
	var encoded bytes.Buffer
	if err := gob.NewEncoder(&encoded).Encode(c); err != nil {
		return err
	}
	if _, err := b.appendFrame(frameCommit, encoded.Bytes()); err != nil {
		return err // it is not whole, so nothing happened
	}
	if err := b.file.Sync(); err != nil {
		return b.undecided(err)
	}
	if err := b.apply(c); err != nil {
		return b.undecided(err)
	}
	return nil
}

// undecided is for a commit of which only the next open can tell whether it is in
// the file.
func (b *backend) undecided(err error) error {
	b.bad = fmt.Errorf("%w: %w", overlay.ErrBroken, err)
	return b.bad
}

// apply does to the tree and the log what a commit says.
func (b *backend) apply(c *commit) error {
	slots := make([]*node, c.Slots)
	for _, s := range c.Steps {
		if err := b.step(s, slots); err != nil {
			return fmt.Errorf("apply change to %q: %w", s.Path, err)
		}
	}
	for _, r := range c.Log {
		e := store.Entry{Seq: 1, Time: r.Time.UTC(), Key: r.Key, Data: r.Data}
		if n := len(b.log); n > 0 {
			e.Seq, e.Prev = b.log[n-1].Seq+1, b.log[n-1].Hash()
		}
		b.keys[r.Key] = len(b.log)
		b.log = append(b.log, e)
	}
	return nil
}

func (b *backend) step(s step, slots []*node) error {
	if s.Kind == overlay.StepTimes {
		n, err := b.find(s.Path)
		if err == nil {
			n.attr.Atime, n.attr.Mtime, n.attr.Ctime = s.Atime, s.Mtime, s.At
		}
		return err
	}
	dir, name := ".", s.Path
	if i := strings.LastIndexByte(s.Path, '/'); i >= 0 {
		dir, name = s.Path[:i], s.Path[i+1:]
	}
	d, err := b.find(dir)
	if err != nil {
		return err
	}
	n := d.children[name]
	d.attr.Mtime, d.attr.Ctime = s.At, s.At
	switch s.Kind {
	case overlay.StepRemove, overlay.StepOut:
		switch {
		case n == nil:
			return store.ErrNotExist
		case s.Kind == overlay.StepOut:
			slots[s.Slot] = n
		case len(n.children) > 0:
			return store.ErrNotEmpty
		}
		delete(d.children, name)
	case overlay.StepMkdir:
		if n != nil {
			return store.ErrExists
		}
		d.children[name] = b.node(store.KindDir, s.At)
	case overlay.StepIn:
		d.children[name] = slots[s.Slot]
	case overlay.StepSymlink:
		n := b.node(store.KindLink, s.At)
		n.target, n.attr.Size = s.Target, int64(len(s.Target))
		d.children[name] = n
	case overlay.StepPut:
		n := b.node(store.KindFile, s.At)
		n.pages, n.attr.Size, n.attr.Atime, n.attr.Mtime = s.Pages, s.Size, s.Atime, s.Mtime
		d.children[name] = n
	default:
		return fmt.Errorf("step of kind %d: %w", s.Kind, store.ErrNotSupported)
	}
	return nil
}

// HasKey implements overlay.Backend.
func (b *backend) HasKey(key store.Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.keys[key]
	return ok
}

// Entry implements overlay.Backend.
func (b *backend) Entry(_ context.Context, key store.Key) (store.Entry, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, ok := b.keys[key]
	if !ok {
		return store.Entry{}, false, nil
	}
	return b.log[i], true, nil
}

// Log implements overlay.Backend.
func (b *backend) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		b.mu.Lock()
		log := b.log
		b.mu.Unlock()
		for _, e := range log[min(max(from, 1)-1, uint64(len(log))):] {
			if err := ctx.Err(); err != nil {
				yield(store.Entry{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Head implements overlay.Header.
func (b *backend) Head() (uint64, [32]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.log)
	if n == 0 {
		return 0, [32]byte{}
	}
	return b.log[n-1].Seq, b.log[n-1].Hash()
}

// Close implements overlay.Backend.
func (b *backend) Close() error { return b.file.Close() }
