package wasi

import (
	"encoding/binary"
	"math"

	"github.com/circles-host/circles/host/store"
)

// direntSize is the size of an entry without its name: the cookie of the next
// one (8 bytes), the inode (8), the name's length (4), the type (1), padding.
const direntSize = 24

// fdReaddir serves fd_readdir itself. wazero would keep what it read for as
// long as the directory is open: 400 handles held 800 MiB. Here nothing is
// kept, as a cookie is the number of an entry ("." and ".." being 0 and 1) and
// the store counts the same way, over a listing that it takes when a guest
// starts at the beginning and whose size it bounds. So any cookie is good, a
// forged one too, and what is beyond the end is the end.
//
// Parameters: fd, buf, buf_len, cookie, result.bufused.
func fdReaddir(c call, stack []uint64) errno {
	ptr, size, cookie, result := uint32(stack[1]), uint32(stack[2]), stack[3], uint32(stack[4])
	if size < direntSize || size > maxDirectory || cookie > math.MaxInt32 {
		return eInval
	}
	buf, ok := c.mod.Memory().Read(ptr, size)
	if !ok {
		return eFault
	}
	h, _ := c.file(uint32(stack[0]))
	if h == nil || !h.dir {
		return eBadf // not ENOTDIR, at which Rust's library panics
	}
	entries, err := h.list(int(cookie), int(size)/(direntSize+1)+1) // more than fit
	if err != nil {
		return c.fs.failed(err)
	}
	w := buf[:0]
	for _, e := range entries {
		cookie++
		var head [direntSize]byte
		binary.LittleEndian.PutUint64(head[0:], cookie)
		binary.LittleEndian.PutUint64(head[8:], e.Inode)
		binary.LittleEndian.PutUint32(head[16:], uint32(len(e.Name)))
		head[20] = filetype(e.Kind)
		// The last entry is cut to what is left: a full buffer is how a guest
		// learns that there is more, and from the length it learns how much
		// longer a buffer it needs.
		w = append(w, head[:min(direntSize, cap(w)-len(w))]...)
		w = append(w, e.Name[:min(len(e.Name), cap(w)-len(w))]...)
	}
	if !c.mod.Memory().WriteUint32Le(result, uint32(len(w))) {
		return eFault
	}
	return 0
}

// list returns up to n entries from cookie on.
func (h *file) list(cookie, n int) (entries []store.DirEntry, err error) {
	dir, err := h.entries()
	if err != nil {
		return nil, err
	}
	for ; cookie < 2 && n > 0; cookie, n = cookie+1, n-1 {
		e := store.DirEntry{Name: ".."[:cookie+1], Kind: store.KindDir}
		if cookie == 0 {
			if info, err := h.info(); err == nil {
				e.Inode = info.Inode
			}
		}
		entries = append(entries, e)
	}
	below, err := dir.ReadDir(cookie-2, n)
	return append(entries, below...), err
}

// filetype is a kind as guests know it.
//
// https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md#filetype
func filetype(k store.Kind) byte {
	switch k {
	case store.KindDir:
		return 3
	case store.KindFile:
		return 4
	case store.KindLink:
		return 7
	default:
		return 0
	}
}
