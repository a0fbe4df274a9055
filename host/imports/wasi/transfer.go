package wasi

import (
	"encoding/binary"
	"io"
	"math"
)

// The most that one read or write may ask for; the rest makes it a short one,
// which any program must expect.
const (
	maxBuffers  = 1024     // as IOV_MAX in Linux
	maxTransfer = 64 << 20 // bytes
	bufferSize  = 8        // of an entry: a pointer and a length, 32 bits each
)

// fdRead: fd, buffers, count, result.
func fdRead(c call, p []uint64) errno {
	d := c.files.get(p[0])
	switch {
	case d == nil:
		return eBadf
	case d.kind == typeDirectory:
		return eIsdir
	case !d.read:
		return eBadf
	case d.base&rightRead == 0:
		return eNotcapable
	case d.isStream:
		return c.stream(d, p, true)
	}
	n, e := c.transfer(d, p[1], p[2], d.offset, true, p[3])
	d.offset += n
	return e
}

// fdWrite: fd, buffers, count, result.
func fdWrite(c call, p []uint64) errno {
	d := c.files.get(p[0])
	switch {
	case d == nil:
		return eBadf
	case d.kind == typeDirectory:
		return eIsdir
	case !d.write:
		return eBadf
	case d.base&rightWrite == 0:
		return eNotcapable
	case d.isStream:
		return c.stream(d, p, false)
	}
	offset := d.offset
	if d.flags&flagAppend != 0 {
		info, err := d.file.Stat()
		if err != nil {
			return c.files.refuse(err)
		}
		offset = info.Size
	}
	n, e := c.transfer(d, p[1], p[2], offset, false, p[3])
	if n > 0 {
		d.offset = offset + n
	}
	return e
}

// fdPread: fd, buffers, count, offset, result.
func fdPread(c call, p []uint64) errno {
	d, e := c.file(p[0], 0)
	switch {
	case e != 0:
		return e
	case !d.read:
		return eBadf
	case d.base&rightRead == 0 || d.base&rightSeek == 0:
		return eNotcapable
	case p[3] > math.MaxInt64:
		return eInval
	}
	_, e = c.transfer(d, p[1], p[2], int64(p[3]), true, p[4])
	return e
}

// fdPwrite: fd, buffers, count, offset, result. It writes at offset also when
// the file appends, as POSIX has it and Linux does not.
func fdPwrite(c call, p []uint64) errno {
	d, e := c.file(p[0], 0)
	switch {
	case e != 0:
		return e
	case !d.write:
		return eBadf
	case d.base&rightWrite == 0 || d.base&rightSeek == 0:
		return eNotcapable
	case p[3] > math.MaxInt64:
		return eInval
	}
	_, e = c.transfer(d, p[1], p[2], int64(p[3]), false, p[4])
	return e
}

// transfer reads or writes a file, from offset on, through the buffers, and
// stores in result how many bytes it moved. A failure after some is a short
// transfer: the next call finds it again.
func (c call) transfer(d *descriptor, vec, count uint64, offset int64, read bool, result uint64) (n int64, e errno) {
	size := uint32(min(uint32(count), maxBuffers) * bufferSize)
	list, ok := c.mem.Read(uint32(vec), size)
	if !ok {
		return 0, eFault
	}
	if _, ok := c.mem.Read(uint32(result), 4); !ok {
		return 0, eFault
	}
	if len(list) > bufferSize {
		// A read may write over its own list of buffers. The list is what it was
		// when the guest called.
		var few [8 * bufferSize]byte
		list = append(few[:0], list...)
	}
	// Each is checked before any is touched.
	for l := list; len(l) > 0; l = l[bufferSize:] {
		if _, ok := c.mem.Read(binary.LittleEndian.Uint32(l), binary.LittleEndian.Uint32(l[4:])); !ok {
			return 0, eFault
		}
	}
	for ; len(list) > 0 && n < maxTransfer; list = list[bufferSize:] {
		b, _ := c.mem.Read(binary.LittleEndian.Uint32(list), binary.LittleEndian.Uint32(list[4:]))
		if len(b) == 0 {
			continue
		}
		b = b[:min(int64(len(b)), maxTransfer-n)]
		var k int
		var err error
		switch {
		case offset > math.MaxInt64-n:
			err = io.EOF // of a read; a write ends before, at the limit of a file's size
		case read:
			k, err = d.file.ReadAt(b, offset+n)
		default:
			k, err = d.file.WriteAt(b, offset+n)
		}
		n += int64(k)
		if err != nil && err != io.EOF {
			if e = c.files.refuse(err); n == 0 {
				return 0, e
			}
			break
		}
		if k < len(b) {
			break
		}
	}
	c.mem.WriteUint32Le(uint32(result), uint32(n))
	return n, 0
}

// stream hands a read or write of a standard stream to wazero, in whose table
// the three are, and were from the start. wazero itself goes by what the guest
// says: a count whose eightfold wraps, sizes whose sum does, or one buffer 65,536
// times over, gigabytes in a call that no deadline interrupts.
//
// Parameters: fd, buffers, count, result.
func (c call) stream(d *descriptor, p []uint64, read bool) errno {
	vec, count := uint32(p[1]), min(uint32(p[2]), maxBuffers)
	list, ok := c.mem.Read(vec, count*bufferSize)
	if !ok {
		return eFault
	}
	p[0], p[2] = uint64(d.stream), uint64(count)
	var total uint32
	for i := range count {
		b := list[i*bufferSize:]
		n := binary.LittleEndian.Uint32(b[4:])
		if _, ok := c.mem.Read(binary.LittleEndian.Uint32(b), n); !ok {
			return eFault
		}
		if n > maxTransfer-total {
			// The entry is cut in place for the time of the call, in which the
			// guest does not run.
			binary.LittleEndian.PutUint32(b[4:], maxTransfer-total)
			defer binary.LittleEndian.PutUint32(b[4:], n)
			p[2] = uint64(i + 1)
			break
		}
		total += n
		if read && n > 0 {
			// A read fills the first buffer that has room, as a terminal's does:
			// wazero looks at the next entry after that, and what was read may
			// have changed it.
			p[2] = uint64(i + 1)
			break
		}
	}
	return c.forward(p)
}
