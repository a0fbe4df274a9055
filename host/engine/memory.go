package engine

import (
	"github.com/tetratelabs/wazero/experimental"

	"github.com/circles-host/circles/host/engine/snapshot"
)

// memory is the linear memory of one run, bounded and accounted. It implements
// wazero's MemoryAllocator and, since wazero has one memory to a module,
// LinearMemory as well.
//
// It is a copy of the program's image, or else lies in Go's heap, fresh and
// zeroed; or it is that of a Machine's instance.
type memory struct {
	limit  uint64 // bytes
	max    uint64 // bytes, by the module's own declaration
	peak   uint64 // with that of nested runs
	denied uint64 // size of the first growth that the limit denied; 0: none
	image  *snapshot.Memory
	buf    []byte

	native *native // if a Machine runs the guest
}

// Allocate implements experimental.MemoryAllocator. wazero calls it while it
// instantiates, for the one memory that a module defines; the engine has checked
// by then that the initial size is within the limit, since wazero panics on nil.
func (m *memory) Allocate(_, max uint64) experimental.LinearMemory {
	m.max = max
	return m
}

// Reallocate implements experimental.LinearMemory. The first time it is asked
// for what the module declares, and returns all of the image.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.limit {
		return nil
	}
	if m.native != nil {
		b := m.native.memory(size)
		m.peak = max(m.peak, uint64(len(b)))
		return b
	}
	if m.image != nil {
		b := m.image.Bytes(size, min(m.limit, m.max))
		m.peak = max(m.peak, uint64(len(b)))
		return b
	}
	m.peak = max(m.peak, size)
	if size <= uint64(cap(m.buf)) {
		m.buf = m.buf[:size]
		return m.buf
	}
	room := size
	if m.buf != nil {
		// A guest's allocator grows in small steps, each of which would copy
		// everything. The first allocation gets no room: most runs never grow.
		room = min(size+size/4+1<<20, m.limit, max(m.max, size))
	}
	buf := make([]byte, size, room)
	copy(buf, m.buf)
	m.buf = buf
	return buf
}

// refused is told what a guest asked for and did not get. What is more than its
// module may ever have was not refused by the limit.
func (m *memory) refused(size uint64) {
	if m.denied == 0 && size > m.limit && size <= m.max {
		m.denied = size
	}
}

// Free implements experimental.LinearMemory. wazero calls it when an instance
// is closed, which a guest's proc_exit does while host functions are still on the
// stack: what is freed here could be another run's before they are done. The run
// closes its memory itself, see close.
func (m *memory) Free() {}

// close gives the memory back. Nothing may look at it any more.
func (m *memory) close() {
	m.buf = nil
	if m.image != nil {
		m.image.Close()
		m.image = nil
	}
	if m.native != nil {
		m.native.inst.Close()
		m.native = nil
	}
}
