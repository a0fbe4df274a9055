package wasi

import (
	"encoding/binary"
	"math"

	"github.com/circles-host/circles/host/store"
)

// direntSize is the size of an entry without its name: the cookie of the next
// one (8 bytes), the inode (8), the name's length (4), the type (1), padding.
const direntSize = 24

// maxDirectory is the most bytes of a buffer for entries. More is refused, as a
// short answer means the end.
const maxDirectory = 64 << 10

// fdReaddir keeps nothing. wazero would keep what it read for as long as the
// directory is open: 400 handles held 800 MiB. Here a cookie is the number of an
// entry ("." and ".." being 0 and 1) and the store counts the same way, over a
// listing that it takes when a guest starts at the beginning and whose size it
// bounds. So any cookie is good, a forged one too, and what is beyond the end is
// the end.
//
// Parameters: fd, buf, len, cookie, result.
func fdReaddir(c call, p []uint64) errno {
	size, cookie := uint32(p[2]), p[3]
	d := c.files.get(p[0])
	switch {
	case d == nil || d.kind != typeDirectory:
		return eBadf // not ENOTDIR, at which Rust's library panics
	case d.base&rightReaddir == 0:
		return eNotcapable
	case size < direntSize || size > maxDirectory || cookie > math.MaxInt32:
		return eInval
	}
	buf, e := c.space(p[1], size)
	if e != 0 {
		return e
	}
	used, e := c.space(p[4], 4)
	if e != 0 {
		return e
	}
	w := buf[:0]
	for ; cookie < 2 && len(w) < cap(w); cookie++ {
		dot := store.DirEntry{Name: ".."[:cookie+1], Kind: store.KindDir}
		if cookie == 0 {
			if info, err := d.info(); err == nil {
				dot.Inode = info.Inode
			}
		}
		w = appendEntry(w, cookie+1, dot)
	}
	if len(w) < cap(w) {
		dir, err := d.handle()
		if err != nil {
			return c.files.refuse(err)
		}
		entries, err := dir.ReadDir(int(cookie-2), (cap(w)-len(w))/(direntSize+1)+1) // more than fit
		if err != nil {
			return c.files.refuse(err)
		}
		for _, entry := range entries {
			if len(w) == cap(w) {
				break
			}
			cookie++
			w = appendEntry(w, cookie, entry)
		}
	}
	binary.LittleEndian.PutUint32(used, uint32(len(w)))
	return 0
}

// appendEntry adds an entry, cut to what is left: a full buffer is how a guest
// learns that there is more, and from the length it learns how much longer a
// buffer it needs.
func appendEntry(w []byte, next uint64, e store.DirEntry) []byte {
	var head [direntSize]byte
	binary.LittleEndian.PutUint64(head[0:], next)
	binary.LittleEndian.PutUint64(head[8:], e.Inode)
	binary.LittleEndian.PutUint32(head[16:], uint32(len(e.Name)))
	head[20] = byte(typeOf(e.Kind))
	w = append(w, head[:min(direntSize, cap(w)-len(w))]...)
	return append(w, e.Name[:min(len(e.Name), cap(w)-len(w))]...)
}
