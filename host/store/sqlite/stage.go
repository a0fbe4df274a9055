package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// staging holds what the running update has written, in slots of a chunk each:
// the first few in memory, which is enough for most scripts, the rest in one
// file beside the database. The file has lost its name by the time anything is
// in it, so a crash leaves nothing. Only one update runs, so there is no lock.
type staging struct {
	path string
	mem  [memSlots][]byte
	file *os.File
	used int   // slots in use
	next int64 // slots from here on were never used
	free []int64
}

const memSlots = 16 // 1 MiB

func newStaging(path string) *staging { return &staging{path: path} }

func (s *staging) alloc() (int64, error) {
	var slot int64
	if n := len(s.free); n > 0 {
		slot = s.free[n-1]
	} else {
		slot = s.next
	}
	if slot < memSlots {
		if s.mem[slot] == nil {
			s.mem[slot] = make([]byte, chunkSize)
		}
	} else if s.file == nil {
		f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return 0, fmt.Errorf("make staging file: %w", err)
		}
		os.Remove(s.path) // where an open file keeps its name, Open removes it
		s.file = f
	}
	if n := len(s.free); n > 0 {
		s.free = s.free[:n-1]
	} else {
		s.next++
	}
	s.used++
	return slot, nil
}

func (s *staging) release(slot int64) {
	s.used--
	s.free = append(s.free, slot)
	if s.used == 0 {
		s.close()
		*s = staging{path: s.path}
	}
}

func (s *staging) close() {
	if s.file != nil {
		s.file.Close()
		os.Remove(s.path)
	}
}

func (s *staging) readAt(slot int64, p []byte, off int64) error {
	if slot < memSlots {
		copy(p, s.mem[slot][off:])
		return nil
	}
	if _, err := s.file.ReadAt(p, slot*chunkSize+off); err != nil {
		return fmt.Errorf("read staging file: %w", err)
	}
	return nil
}

func (s *staging) writeAt(slot int64, p []byte, off int64) error {
	if slot < memSlots {
		copy(s.mem[slot][off:], p)
		return nil
	}
	if _, err := s.file.WriteAt(p, slot*chunkSize+off); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("no room to write beside %s: free some space on its disk: %w", s.path, err)
		}
		return fmt.Errorf("write staging file: %w", err)
	}
	return nil
}

// staged is a file that the update wrote: the first baseLen bytes of a committed
// one, and over it the chunks that were written.
type staged struct {
	s       *staging
	base    *lowerFile // nil if there is none
	baseLen int64
	chunks  map[int64]*part
	end     int64 // no chunk has this place or a higher one
}

// part is a chunk that was written: the first size bytes of a slot, then zeros.
type part struct {
	slot int64
	size int
}

// Stage implements overlay.Backend. It copies nothing.
func (b *backend) Stage(_ context.Context, from overlay.LowerFile, n int64) (overlay.Staged, error) {
	f := &staged{s: b.stage, chunks: map[int64]*part{}}
	if from != nil && n > 0 {
		was := from.(*lowerFile)
		f.base = &lowerFile{b: b, node: was.node, at: -1}
		f.baseLen = min(n, was.attr.Size)
	}
	return f, nil
}

// baseIn is how many bytes of a chunk the base still gives.
func (f *staged) baseIn(at int64) int {
	return int(min(max(f.baseLen-at*chunkSize, 0), chunkSize))
}

func (f *staged) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		at, in := (off+int64(n))/chunkSize, int((off+int64(n))%chunkSize)
		dst := p[n:min(len(p), n+chunkSize-in)]
		have, read := f.baseIn(at), func(q []byte) error {
			_, err := f.base.ReadAt(q, at*chunkSize+int64(in))
			return err
		}
		if c := f.chunks[at]; c != nil {
			have, read = c.size, func(q []byte) error { return f.s.readAt(c.slot, q, int64(in)) }
		}
		from := dst[:max(0, min(len(dst), have-in))]
		if len(from) > 0 {
			if err := read(from); err != nil {
				return n, err
			}
		}
		clear(dst[len(from):])
		n += len(dst)
	}
	return n, nil
}

func (f *staged) WriteAt(p []byte, off int64) (int, error) {
	if off > maxSize-int64(len(p)) {
		return 0, fmt.Errorf("over %d bytes: %w", int64(maxSize), store.ErrTooBig)
	}
	n := 0
	for n < len(p) {
		at, in := (off+int64(n))/chunkSize, int((off+int64(n))%chunkSize)
		src := p[n:min(len(p), n+chunkSize-in)]
		if err := f.write(at, in, src); err != nil {
			return n, err
		}
		n += len(src)
	}
	return n, nil
}

var zeros [chunkSize]byte

func (f *staged) write(at int64, in int, src []byte) error {
	c := f.chunks[at]
	if c == nil {
		var copied []byte
		if have := f.baseIn(at); have > 0 && (in > 0 || len(src) < have) {
			copied = make([]byte, have)
			if _, err := f.base.ReadAt(copied, at*chunkSize); err != nil {
				return err
			}
		}
		slot, err := f.s.alloc()
		if err != nil {
			return err
		}
		if err := f.s.writeAt(slot, copied, 0); err != nil {
			f.s.release(slot)
			return err
		}
		c = &part{slot, len(copied)}
		f.chunks[at] = c
		f.end = max(f.end, at+1)
	}
	if in > c.size { // a slot may hold what an earlier file had
		if err := f.s.writeAt(c.slot, zeros[:in-c.size], int64(c.size)); err != nil {
			return err
		}
		c.size = in
	}
	if err := f.s.writeAt(c.slot, src, int64(in)); err != nil {
		return err
	}
	c.size = max(c.size, in+len(src))
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
			f.s.release(c.slot)
			delete(f.chunks, at)
		}
	}
	f.end = (size + chunkSize - 1) / chunkSize
	if c := f.chunks[size/chunkSize]; c != nil {
		c.size = min(c.size, int(size%chunkSize))
	}
	return nil
}

func (f *staged) Idle() {}

func (f *staged) Discard() {
	for _, c := range f.chunks {
		f.s.release(c.slot)
	}
	f.chunks, f.end = nil, 0
}
