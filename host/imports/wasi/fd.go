package wasi

import (
	"encoding/binary"
	"io"
	"math"
	"time"

	"github.com/circles-host/circles/host/store"
)

// randomChunk is how many bytes random_get makes between two looks at the
// deadline.
const randomChunk = 1 << 20

// The refusals that need checking before an operation on a descriptor come in
// one order: that it is open, that it is of the kind, that it may, and only
// then what else is wrong.

// file returns an open regular file that has the rights.
func (c call) file(fd uint64, need rights) (*descriptor, errno) {
	d := c.files.get(fd)
	switch {
	case d == nil:
		return nil, eBadf
	case d.isStream:
		return nil, eSpipe
	case d.kind == typeDirectory:
		return nil, eIsdir
	case d.base&need != need:
		return nil, eNotcapable
	}
	return d, 0
}

// any returns whatever is open and has the rights.
func (c call) any(fd uint64, need rights) (*descriptor, errno) {
	d := c.files.get(fd)
	switch {
	case d == nil:
		return nil, eBadf
	case d.base&need != need:
		return nil, eNotcapable
	}
	return d, 0
}

// space returns n bytes of the guest's memory to be written.
func (c call) space(ptr uint64, n uint32) ([]byte, errno) {
	b, ok := c.mem.Read(uint32(ptr), n)
	if !ok {
		return nil, eFault
	}
	return b, 0
}

// fdAdvise does nothing with good advice. Parameters: fd, offset, len, advice.
func fdAdvise(c call, p []uint64) errno {
	const advices = 6
	if _, e := c.file(p[0], rightAdvise); e != 0 {
		return e
	}
	if p[1] > math.MaxInt64 || p[2] > math.MaxInt64 || uint8(p[3]) >= advices {
		return eInval
	}
	return 0
}

// fdAllocate makes a file as long as it is to be. What it claims is what it is
// charged for, as if it were written: fd, offset, len.
func fdAllocate(c call, p []uint64) errno {
	d, e := c.file(p[0], 0)
	switch offset, n := p[1], p[2]; {
	case e != 0:
		return e
	case !d.write:
		return eBadf
	case d.base&rightAllocate == 0:
		return eNotcapable
	case offset > math.MaxInt64 || n > math.MaxInt64 || n == 0:
		return eInval
	case offset+n > math.MaxInt64:
		return eFbig
	}
	info, err := d.file.Stat()
	if size := int64(p[1] + p[2]); err == nil && size > info.Size {
		err = d.file.Truncate(size)
	}
	return c.files.refuse(err)
}

// fdClose: fd.
func fdClose(c call, p []uint64) errno {
	if c.files.get(p[0]) == nil {
		return eBadf
	}
	c.files.close(uint32(p[0]))
	return 0
}

// fdSync succeeds and does nothing. What a transaction has staged is made
// durable when it commits, all at once, and not at all if it does not: a sync
// before that would promise nothing, and would cost every neighbour on the
// disk (a loop of fsync makes theirs ten times slower).
func fdSync(c call, p []uint64) errno {
	_, e := c.any(p[0], rightSync)
	return e
}

// fdDatasync is fdSync, under a right of its own.
func fdDatasync(c call, p []uint64) errno {
	_, e := c.any(p[0], rightDatasync)
	return e
}

// fdFdstatGet: fd, result.
func fdFdstatGet(c call, p []uint64) errno {
	d, e := c.any(p[0], 0)
	if e != 0 {
		return e
	}
	b, e := c.space(p[1], 24)
	if e != 0 {
		return e
	}
	clear(b)
	b[0] = byte(d.kind)
	binary.LittleEndian.PutUint16(b[2:], d.flags)
	binary.LittleEndian.PutUint64(b[8:], uint64(d.base))
	binary.LittleEndian.PutUint64(b[16:], uint64(d.inheriting))
	return 0
}

// fdFdstatSetFlags: fd, flags.
func fdFdstatSetFlags(c call, p []uint64) errno {
	d, e := c.any(p[0], rightSetFlags)
	flags := uint16(p[1])
	switch {
	case e != 0:
		return e
	case flags&^allFlags != 0:
		return eInval
	case d.isStream && flags&^flagAppend != 0:
		// It would be for the host as well, and for the shell that started it.
		return eNotsup
	}
	d.flags = flags
	return 0
}

// fdFdstatSetRights drops rights: fd, base, inheriting.
func fdFdstatSetRights(c call, p []uint64) errno {
	d, e := c.any(p[0], 0)
	base, inheriting := rights(p[1]), rights(p[2])
	switch {
	case e != 0:
		return e
	case base&^d.base != 0 || inheriting&^d.inheriting != 0:
		return eNotcapable
	}
	d.base, d.inheriting = base, inheriting
	return 0
}

// filestatSize is the size of what tells of a file.
//
// https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md#filestat
const filestatSize = 64

func (c call) putFilestat(b []byte, device uint64, info store.Info) {
	if c.timeless() {
		info.Atime, info.Mtime, info.Ctime = Still, Still, Still
	}
	clear(b[:filestatSize])
	binary.LittleEndian.PutUint64(b[0:], device)
	binary.LittleEndian.PutUint64(b[8:], info.Inode)
	b[16] = byte(typeOf(info.Kind))
	binary.LittleEndian.PutUint64(b[24:], 1) // links
	binary.LittleEndian.PutUint64(b[32:], uint64(info.Size))
	binary.LittleEndian.PutUint64(b[40:], nanoseconds(info.Atime))
	binary.LittleEndian.PutUint64(b[48:], nanoseconds(info.Mtime))
	binary.LittleEndian.PutUint64(b[56:], nanoseconds(info.Ctime))
}

// fdFilestatGet: fd, result. Of a stream there is nothing to tell: a size, a
// time or an inode would be the host's.
func fdFilestatGet(c call, p []uint64) errno {
	d, e := c.any(p[0], rightStat)
	if e != 0 {
		return e
	}
	b, e := c.space(p[1], filestatSize)
	if e != 0 {
		return e
	}
	if d.isStream {
		clear(b)
		return 0
	}
	info, err := d.info()
	if err != nil {
		return c.files.refuse(err)
	}
	c.putFilestat(b, uint64(d.device), info)
	return 0
}

// fdFilestatSetSize: fd, size. The refusals are those of ftruncate(2).
func fdFilestatSetSize(c call, p []uint64) errno {
	d, e := c.file(p[0], 0)
	switch {
	case e == eSpipe:
		return eInval
	case e != 0:
		return e
	case !d.write:
		return eInval
	case d.base&rightSetSize == 0:
		return eNotcapable
	case p[1] > math.MaxInt64:
		return eInval
	}
	return c.files.refuse(d.file.Truncate(int64(p[1])))
}

// fdFilestatSetTimes: fd, atime, mtime, flags.
func fdFilestatSetTimes(c call, p []uint64) errno {
	d, e := c.any(p[0], 0)
	switch {
	case e != 0:
		return e
	case d.isStream:
		return eNotsup
	case d.base&rightSetTimes == 0:
		return eNotcapable
	}
	atime, mtime, e := moments(p[1], p[2], p[3])
	if e != 0 {
		return e
	}
	if d.preopened {
		below, err := d.directory()
		if err == nil {
			err = below.SetTimes(".", true, atime, mtime)
		}
		return c.files.refuse(err)
	}
	return c.files.refuse(d.file.SetTimes(atime, mtime))
}

// moments reads two times and the flags that say which to set, and which of them
// to the present. One that is zero is left as it is. Those of 2^63 nanoseconds
// and more would turn negative.
func moments(atim, mtim, flags uint64) (atime, mtime time.Time, e errno) {
	const setAtime, nowAtime, setMtime, nowMtime, all = 1, 2, 4, 8, 15
	moment := func(ns, set, now uint64) (time.Time, errno) {
		switch {
		case flags&set != 0 && flags&now != 0, flags&set != 0 && ns > math.MaxInt64:
			return time.Time{}, eInval
		case flags&set != 0:
			return time.Unix(0, int64(ns)).UTC(), 0
		case flags&now != 0:
			return time.Now().UTC(), 0
		}
		return time.Time{}, 0
	}
	if flags = uint64(uint16(flags)); flags&^all != 0 {
		return atime, mtime, eInval
	}
	if atime, e = moment(atim, setAtime, nowAtime); e == 0 {
		mtime, e = moment(mtim, setMtime, nowMtime)
	}
	return atime, mtime, e
}

// fdPrestatGet: fd, result.
func fdPrestatGet(c call, p []uint64) errno {
	d := c.files.get(p[0])
	if d == nil || !d.preopened {
		return eBadf
	}
	b, e := c.space(p[1], 8)
	if e != 0 {
		return e
	}
	binary.LittleEndian.PutUint32(b[0:], 0) // a directory
	binary.LittleEndian.PutUint32(b[4:], uint32(len(d.name)))
	return 0
}

// fdPrestatDirName: fd, buf, len. A buffer longer than the name is legal.
func fdPrestatDirName(c call, p []uint64) errno {
	d := c.files.get(p[0])
	if d == nil || !d.preopened {
		return eBadf
	}
	if uint64(uint32(p[2])) < uint64(len(d.name)) {
		return eNametoolong
	}
	b, e := c.space(p[1], uint32(len(d.name)))
	if e != 0 {
		return e
	}
	copy(b, d.name)
	return 0
}

// fdRenumber closes `to` and gives its number to `from`, whatever they are. It
// makes no room: both are open. wazero grows its table to any number, and took
// 45 s and 17 GB for 0x7fffffff.
func fdRenumber(c call, p []uint64) errno {
	d := c.files.get(p[0])
	if d == nil || c.files.get(p[1]) == nil {
		return eBadf
	}
	from, to := uint32(p[0]), uint32(p[1])
	if from == to {
		return 0
	}
	c.files.close(to)
	c.files.fds[from], c.files.fds[to] = nil, d
	c.files.lowest = min(c.files.lowest, int(from))
	return 0
}

// fdSeek: fd, offset, whence, result. The rights to seek and to tell are two.
func fdSeek(c call, p []uint64) errno {
	need := rightSeek
	if p[1] == 0 && uint32(p[2]) == io.SeekCurrent {
		need = rightTell
	}
	return c.seek(p[0], need, int64(p[1]), uint32(p[2]), p[3])
}

// fdTell: fd, result.
func fdTell(c call, p []uint64) errno {
	return c.seek(p[0], rightTell, 0, io.SeekCurrent, p[1])
}

func (c call) seek(fd uint64, need rights, offset int64, whence uint32, result uint64) errno {
	d, e := c.file(fd, 0)
	switch {
	case e != 0:
		return e
	case d.base&(need|rightSeek) == 0: // who may seek may tell
		return eNotcapable
	}
	b, e := c.space(result, 8)
	if e != 0 {
		return e
	}
	var from int64
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		from = d.offset
	case io.SeekEnd:
		info, err := d.file.Stat()
		if err != nil {
			return c.files.refuse(err)
		}
		from = info.Size
	default:
		return eInval
	}
	// It begins at no negative number, so a sum that overflows comes out negative.
	if from+offset < 0 {
		return eInval
	}
	d.offset = from + offset
	binary.LittleEndian.PutUint64(b, uint64(d.offset))
	return 0
}

// noSocket serves all that is for sockets: there are none.
func noSocket(c call, p []uint64) errno {
	if c.files.get(p[0]) == nil {
		return eBadf
	}
	return eNotsock
}

// randomGet fills the buffer a part at a time: gigabytes take seconds, and a
// deadline may fall into them. Parameters: buf, len.
func randomGet(c call, p []uint64) errno {
	if s := c.files.senses; s != nil && !s.Random() {
		return eAcces
	}
	ptr, n := uint32(p[0]), uint32(p[1])
	if _, e := c.space(p[0], n); e != 0 {
		return e
	}
	for n > 0 {
		stop(c.ctx)
		part := min(n, randomChunk)
		if e := c.forward([]uint64{uint64(ptr), uint64(part)}); e != 0 {
			return e
		}
		ptr, n = ptr+part, n-part
	}
	return 0
}
