package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// staging holds what the running update has written: the first of it in memory, which
// is enough for most scripts, the rest in a file that has no name any more, where
// that can be had, so that a crash leaves nothing. Only one update runs, so there
// is no lock.
type staging struct {
	dir   string // "" is the system's for temporary files
	inMem int    // bytes
	file  *os.File
	next  int64 // slots from here on were never used
	free  []int64
	used  int // slots in use
}

const memStaged = 8 << 20 // bytes

func (s *staging) alloc() (int64, error) {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "circles-staged-")
		if err != nil {
			return 0, fmt.Errorf("make staging file: %w", err)
		}
		os.Remove(f.Name()) // where an open file keeps its name, release removes it
		s.file = f
	}
	s.used++
	if n := len(s.free); n > 0 {
		slot := s.free[n-1]
		s.free = s.free[:n-1]
		return slot, nil
	}
	s.next++
	return s.next - 1, nil
}

func (s *staging) release(slot int64) {
	s.used--
	s.free = append(s.free, slot)
	if s.used == 0 {
		s.close()
	}
}

func (s *staging) close() {
	if s.file != nil {
		s.file.Close()
		os.Remove(s.file.Name())
	}
	s.file, s.next, s.free, s.used = nil, 0, nil, 0
}

// staged is a file that the update wrote: the first baseLen bytes of a committed
// one, and over it what was written, by chunks. It implements overlay.Staged.
type staged struct {
	s       *staging
	base    *lowerFile // nil if there is none
	baseLen int64
	chunks  map[int64]*chunk
	end     int64             // no chunk has this place or a higher one
	ready   map[int64][]piece // of the chunks that change, once they are put
}

// chunk is what was written of one: spans of it, in order and apart.
type chunk struct {
	spans []span
	mem   []byte // from the start of the chunk on; nil if it is in a slot
	slot  int64
}

type span struct{ from, to int }

// maxSpans bounds what is remembered of a chunk that is written here and there; one
// with more is filled up from what is below.
const maxSpans = 32

func (b *backend) newStaged(from overlay.LowerFile, n int64) *staged {
	f := &staged{s: &b.staging, chunks: map[int64]*chunk{}}
	if from != nil {
		f.base, f.baseLen = from.(*lowerFile), n
	}
	return f
}

func (f *staged) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		at, in := (off+int64(n))/chunkSize, int((off+int64(n))%chunkSize)
		q := p[n:min(len(p), n+chunkSize-in)]
		if err := f.readChunk(at, in, q); err != nil {
			return n, err
		}
		n += len(q)
	}
	return n, nil
}

func (f *staged) readChunk(at int64, in int, p []byte) error {
	c := f.chunks[at]
	if c == nil || len(c.spans) == 0 || c.spans[0].from > in || c.spans[0].to < in+len(p) {
		have := max(0, min(int64(len(p)), f.baseLen-at*chunkSize-int64(in)))
		if have > 0 {
			if _, err := f.base.ReadAt(p[:have], at*chunkSize+int64(in)); err != nil {
				return err
			}
		}
		clear(p[have:])
	}
	if c == nil {
		return nil
	}
	for _, s := range c.spans {
		if from, to := max(s.from, in), min(s.to, in+len(p)); from < to {
			if err := f.s.readAt(c, p[from-in:to-in], from); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *staging) readAt(c *chunk, p []byte, in int) error {
	if c.mem != nil {
		copy(p, c.mem[in:])
		return nil
	}
	if _, err := s.file.ReadAt(p, c.slot*chunkSize+int64(in)); err != nil {
		return fmt.Errorf("read staging file: %w", err)
	}
	return nil
}

func (f *staged) WriteAt(p []byte, off int64) (int, error) {
	if off > maxSize-int64(len(p)) {
		return 0, fmt.Errorf("over %d bytes: %w", int64(maxSize), store.ErrTooBig)
	}
	n := 0
	for n < len(p) {
		at, in := (off+int64(n))/chunkSize, int((off+int64(n))%chunkSize)
		q := p[n:min(len(p), n+chunkSize-in)]
		if err := f.writeChunk(at, in, q); err != nil {
			return n, err
		}
		n += len(q)
	}
	return n, nil
}

func (f *staged) writeChunk(at int64, in int, p []byte) error {
	c := f.chunks[at]
	if c == nil {
		c = &chunk{mem: []byte{}}
		f.chunks[at] = c
		f.end = max(f.end, at+1)
	}
	if len(c.spans) >= maxSpans {
		whole := make([]byte, chunkSize)
		if err := f.readChunk(at, 0, whole); err != nil {
			return err
		}
		if err := f.s.writeAt(c, whole, 0); err != nil {
			return err
		}
		c.spans = []span{{0, chunkSize}}
	}
	if err := f.s.writeAt(c, p, in); err != nil {
		return err
	}
	c.add(span{in, in + len(p)})
	return nil
}

// add joins a span with those that it meets.
func (c *chunk) add(s span) {
	i := 0
	for i < len(c.spans) && c.spans[i].to < s.from {
		i++
	}
	k := i
	for k < len(c.spans) && c.spans[k].from <= s.to {
		s.from, s.to = min(s.from, c.spans[k].from), max(s.to, c.spans[k].to)
		k++
	}
	c.spans = slices.Replace(c.spans, i, k, s)
}

func (s *staging) writeAt(c *chunk, p []byte, in int) error {
	if end := in + len(p); c.mem != nil && end > len(c.mem) {
		if end > cap(c.mem) && s.inMem-cap(c.mem)+grown(c.mem, end) > memStaged {
			if err := s.spill(c); err != nil {
				return err
			}
		} else {
			if end > cap(c.mem) {
				mem := make([]byte, len(c.mem), grown(c.mem, end))
				copy(mem, c.mem)
				s.inMem += cap(mem) - cap(c.mem)
				c.mem = mem
			}
			c.mem = c.mem[:end]
		}
	}
	if c.mem != nil {
		copy(c.mem[in:], p)
		return nil
	}
	return s.writeFile(p, c.slot*chunkSize+int64(in))
}

func grown(mem []byte, n int) int { return min(chunkSize, max(n, 2*cap(mem))) }

// spill moves a chunk from memory to the file.
func (s *staging) spill(c *chunk) error {
	slot, err := s.alloc()
	if err != nil {
		return err
	}
	if err := s.writeFile(c.mem, slot*chunkSize); err != nil {
		s.release(slot)
		return err
	}
	s.inMem -= cap(c.mem)
	c.mem, c.slot = nil, slot
	return nil
}

func (s *staging) writeFile(p []byte, off int64) error {
	if _, err := s.file.WriteAt(p, off); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("no room for staged files: free some space on the disk of %s: %w", s.file.Name(), err)
		}
		return fmt.Errorf("write staging file: %w", err)
	}
	return nil
}

func (f *staged) Truncate(size int64) error {
	if size > maxSize {
		return fmt.Errorf("over %d bytes: %w", int64(maxSize), store.ErrTooBig)
	}
	f.baseLen = min(f.baseLen, size)
	if f.end*chunkSize <= size {
		return nil
	}
	for at, c := range f.chunks {
		if at*chunkSize >= size {
			f.drop(at, c)
		}
	}
	f.end = (size + chunkSize - 1) / chunkSize
	if c := f.chunks[size/chunkSize]; c != nil {
		in := int(size % chunkSize)
		for i := len(c.spans) - 1; i >= 0; i-- {
			if c.spans[i].to = min(c.spans[i].to, in); c.spans[i].from >= c.spans[i].to {
				c.spans = c.spans[:i]
			}
		}
	}
	return nil
}

func (f *staged) drop(at int64, c *chunk) {
	if c.mem != nil {
		f.s.inMem -= cap(c.mem)
	} else {
		f.s.release(c.slot)
	}
	delete(f.chunks, at)
}

func (f *staged) Idle() {}

func (f *staged) Discard() {
	for at, c := range f.chunks {
		f.drop(at, c)
	}
	f.end, f.ready = 0, nil
}

// packer puts what was written into blobs, several small files into one.
type packer struct {
	w    *writer
	ctx  context.Context
	open []byte
	wait []wanted // pieces whose blob is still open
}

// wanted is a piece that gets its blob's name when that is full.
type wanted struct {
	pieces []piece
	i      int
}

// add takes a piece whose bytes are in raw into a blob.
func (p *packer) add(pieces []piece, i int) error {
	raw := pieces[i].raw
	if len(p.open)+len(raw) > MaxBlob {
		if err := p.seal(); err != nil {
			return err
		}
	}
	pieces[i].off = len(p.open)
	p.open = append(p.open, raw...)
	p.wait = append(p.wait, wanted{pieces, i})
	return nil
}

// seal names the open blob. Those that were named are put when there are some.
func (p *packer) seal() error {
	if len(p.open) == 0 {
		return nil
	}
	id := p.w.write(p.open)
	for _, w := range p.wait {
		w.pieces[w.i].raw, w.pieces[w.i].blob = nil, id
	}
	p.open, p.wait = nil, nil
	if len(p.w.blobs) >= parallel {
		return p.w.flush(p.ctx)
	}
	return nil
}
