package watch

import (
	"encoding/binary"
	"hash"
	"hash/fnv"
	"io/fs"
	"os"
)

// fingerprint is what a look at a directory sees: names, kinds, sizes, times and,
// where the system has them, inode numbers. Contents are not read. Different
// fingerprints mean a change; a change that keeps all of these is not seen.
type fingerprint uint64

func look(dir string) fingerprint {
	h := fnv.New64a()
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		h.Write([]byte(err.Error()))
	}
	if info, err := os.Stat(dir); err == nil {
		mix(h, info)
	}
	for _, e := range entries {
		// Stat, not Lstat: what a link points to is what would be loaded.
		if info, err := os.Stat(dir + string(os.PathSeparator) + e.Name()); err == nil {
			mix(h, info)
		}
		h.Write([]byte(e.Name()))
		h.Write([]byte{0})
	}
	return fingerprint(h.Sum64())
}

func mix(h hash.Hash, info fs.FileInfo) {
	var b [32]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(info.Size()))
	binary.LittleEndian.PutUint64(b[8:], uint64(info.ModTime().UnixNano()))
	binary.LittleEndian.PutUint64(b[16:], uint64(info.Mode()))
	binary.LittleEndian.PutUint64(b[24:], inode(info))
	h.Write(b[:])
}
