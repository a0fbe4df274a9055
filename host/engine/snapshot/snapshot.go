// Package snapshot keeps the memory that a module has when it is initialised,
// and gives each run a copy of it in microseconds.
//
//	image, err := snapshot.New(memory)
//	defer image.Close()
//	…
//	m, err := image.Open()
//	b := m.Bytes(size, limit) // the image's bytes, zeros after them; the run's own
//	m.Close()
//
// # How
//
// Up to 256 KiB an image is copied into a buffer: page tables cost more. A larger
// one is a sealed memory file, which each run maps privately, so that reading
// costs nothing and writing copies a page. When a run has ended its mapping is
// brought back to the image and kept for the next: the kernel is asked which
// pages were written (PAGEMAP_SCAN, Linux 6.7), and those are copied back.
// Where it cannot tell, MADV_DONTNEED forgets all of them, which costs faults later.
// Before any of this is relied on it is tried, once a process, with what a wrong
// answer would do: a page that is not brought back is one run's data in the next.
// Where no memory files are (other systems, a sandbox that forbids them), and
// where a process has mapped as much as it should, the image is copied into Go's heap.
//
// Whichever way it is, a run sees the same bytes. TestMemoryIsTheImage holds that.
//
// # Ownership
//
// A Memory belongs to one goroutine. Its bytes are gone, or somebody else's, the
// moment it is closed: whoever reads them later reads another run's memory, or
// crashes the process. So it is closed when the run is over and not earlier,
// whatever the runtime thinks of the instance, and no slice of it is ever kept.
//
// An Image is safe for concurrent use. Memories hold it: Close drops the owner's
// reference, and the last memory frees it.
package snapshot

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// small is the size up to which a copy is cheaper than a mapping.
	small = 256 << 10
	// room is the address space after an image that a run may grow into without
	// moving. It takes no memory before it is used.
	room = 64 << 20
	// pageSize is WebAssembly's. Every size here is a multiple of it.
	pageSize = 64 << 10
)

// way is how memories of an image are made.
type way int

const (
	copied    way = iota // into a buffer
	scanned              // mapped, and the pages that were written copied back
	forgotten            // mapped, and the pages that were written forgotten
)

func (w way) String() string {
	return [...]string{"copied", "mapped and scanned", "mapped and forgotten"}[w]
}

// Image is a module's memory as it is initialised.
type Image struct {
	data []byte // read only
	way  way
	file int // the memory file, unless copied

	refs atomic.Int64

	mu   sync.Mutex
	idle []*Memory // mapped, and equal to the image
	bufs sync.Pool // of *Memory with a buffer of the image's size, dirty
}

// New makes an image of memory, which it copies. Its length is a multiple of
// 64 KiB.
func New(memory []byte) (*Image, error) { return newImage(memory, best(len(memory))) }

func newImage(memory []byte, w way) (*Image, error) {
	if len(memory)%pageSize != 0 {
		return nil, fmt.Errorf("make memory image: %d bytes are no whole number of pages", len(memory))
	}
	im := &Image{way: w}
	im.refs.Store(1)
	if w != copied && im.seal(memory) == nil {
		return im, nil
	}
	im.way = copied
	im.data = append(make([]byte, 0, len(memory)), memory...)
	return im, nil
}

// Size is how many bytes the image has.
func (im *Image) Size() int { return len(im.data) }

// Way says, for people, how memories of the image are made.
func (im *Image) Way() string { return im.way.String() }

// Bytes is the image itself, to compare with. It must not be written to, and is
// valid until Close.
func (im *Image) Bytes() []byte { return im.data }

// Close drops the owner's reference. Memories that are open stay valid.
func (im *Image) Close() { im.unref() }

func (im *Image) unref() {
	if im.refs.Add(-1) > 0 {
		return
	}
	for _, m := range im.idle {
		m.unmap()
	}
	im.idle = nil
	if im.way != copied {
		im.free()
	}
}

// Memory is one run's copy of an image, and what it grows by.
type Memory struct {
	im      *Image
	buf     []byte // the mapping with its room, or a buffer of at least the image's size
	mapped  bool
	grown   []byte // in Go's heap; takes buf's place once that is too small
	high    int    // the most bytes that were handed out
	regions []region
}

// maxIdle is how many mappings an image keeps for runs to come.
func maxIdle() int { return 2 * runtime.GOMAXPROCS(0) }

// Open gives a run a copy of the image.
func (im *Image) Open() (*Memory, error) {
	if im.refs.Add(1) <= 1 {
		im.refs.Add(-1)
		return nil, fmt.Errorf("open memory image: %w", os.ErrClosed)
	}
	if im.way != copied {
		im.mu.Lock()
		if n := len(im.idle); n > 0 {
			m := im.idle[n-1]
			im.idle[n-1] = nil
			im.idle = im.idle[:n-1]
			im.mu.Unlock()
			return m, nil
		}
		im.mu.Unlock()
		// Without a mapping, because there are too many or the kernel will have no
		// more, a copy does as well.
		if m := (&Memory{im: im}); m.mapImage() == nil {
			return m, nil
		}
	}
	m, ok := im.bufs.Get().(*Memory)
	if !ok {
		m = &Memory{im: im, buf: make([]byte, len(im.data))}
	}
	copy(m.buf, im.data)
	return m, nil
}

// Bytes returns the memory's first size bytes, or the image if that is larger;
// nil if that is more than limit, or more than there is. What is after the image
// is zero at first. It invalidates what it returned before.
func (m *Memory) Bytes(size, limit uint64) []byte {
	size = max(size, uint64(len(m.im.data)))
	if size > limit {
		return nil
	}
	at := m.buf
	if m.grown != nil {
		at = m.grown
	}
	if size > uint64(cap(at)) {
		// Guest allocators grow in small steps, each of which would copy all.
		grown := make([]byte, size, min(size+size/4+1<<20, limit))
		copy(grown, at[:m.high])
		m.grown, at = grown, grown
	}
	m.high = max(m.high, int(size))
	return at[:size:size]
}

// Close ends the run's use of the memory. It is called once.
func (m *Memory) Close() {
	im := m.im
	switch {
	case !m.mapped:
		m.grown, m.high = nil, 0
		im.bufs.Put(m)
	case m.restore() && im.keep(m):
	default:
		m.unmap()
	}
	im.unref()
}

// keep puts a memory that equals the image aside for the next run, unless there
// are enough.
func (im *Image) keep(m *Memory) bool {
	im.mu.Lock()
	defer im.mu.Unlock()
	if len(im.idle) >= maxIdle() {
		return false
	}
	im.idle = append(im.idle, m)
	return true
}
