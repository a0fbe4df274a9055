package cas

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// The keys of the files' table are
//
//	'n' parent name   an entry of a directory: a node
//	'c' ino place     a chunk of a file: pieces
//
// with parent, ino and place in 8 bytes. A node stays what it is, by its inode
// number, wherever it is moved, so that renaming a directory changes one entry. The
// top directory has the number rootIno and is an entry without a name in number 0.
//
// The keys of the log's table are
//
//	'e' seq   an entry, with its sequence number in 8 bytes
//	'k' key   the sequence number of the entry with that key
const (
	rootIno   = 1
	chunkSize = 1 << 20
	maxTarget = 4096
	maxSize   = math.MaxInt64 - chunkSize // of a file; places of chunks do not overflow
)

func nodeKey(parent uint64, name string) []byte {
	return append(number('n', parent), name...)
}

func number(kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 32), kind), n)
}

func chunkKey(ino uint64, place int64) []byte {
	return binary.BigEndian.AppendUint64(number('c', ino), uint64(place))
}

// node is an entry of a directory. Encoded: kind 1, then 8 bytes each of ino, edits,
// size and the times, in nanoseconds since 1970, and a link's target.
type node struct {
	kind                store.Kind
	ino                 uint64
	edits               uint64 // how often its content was replaced
	size                int64
	atime, mtime, ctime int64
	target              string
}

func (n node) encode() []byte {
	b := append(make([]byte, 0, 1+6*8+len(n.target)), byte(n.kind))
	for _, v := range [...]uint64{n.ino, n.edits, uint64(n.size), uint64(n.atime), uint64(n.mtime), uint64(n.ctime)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return append(b, n.target...)
}

func decodeNode(b []byte) (n node, err error) {
	d := decoder{b: b}
	n.kind = store.Kind(d.u8())
	n.ino, n.edits, n.size = d.u64(), d.u64(), int64(d.u64())
	n.atime, n.mtime, n.ctime = int64(d.u64()), int64(d.u64()), int64(d.u64())
	n.target = string(d.b)
	d.b = nil
	ok := n.ino > 0
	switch n.kind {
	case store.KindFile:
		ok = ok && n.target == "" && n.size >= 0 && n.size <= maxSize
	case store.KindDir:
		ok = ok && n.target == "" && n.size == 0
	case store.KindLink:
		ok = ok && len(n.target) <= maxTarget && n.size == int64(len(n.target))
	default:
		ok = false
	}
	if !ok {
		d.bad = true
	}
	return n, d.end()
}

func (n node) attr() overlay.Attr {
	return overlay.Attr{
		Kind: n.kind, Size: n.size,
		Atime: fromNanoseconds(n.atime), Mtime: fromNanoseconds(n.mtime), Ctime: fromNanoseconds(n.ctime),
		Version: overlay.Version{ID: [2]uint64{n.ino}, Size: n.size, Mtime: n.mtime, Ctime: int64(n.edits)},
	}
}

// nanoseconds since 1970, of a time that may lie outside the years that they reach.
func nanoseconds(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < math.MinInt64/1_000_000_000+1:
		return math.MinInt64
	case s > math.MaxInt64/1_000_000_000-1:
		return math.MaxInt64
	}
	return t.UnixNano()
}

func fromNanoseconds(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// piece is a run of bytes: given here, or a part of a blob, or zeros.
type piece struct {
	n    int
	raw  []byte // of n bytes, or nil
	blob BlobID // with an epoch of 0 there is none
	off  int    // where it is in the blob
}

const (
	maxPieces = 40      // of one chunk
	maxInline = 2 << 10 // bytes given in the pieces of one chunk, together
)

const (
	pieceZeros = iota
	pieceRaw
	pieceBlob
)

// appendPieces encodes pieces: of each its kind (1 byte) and length (4), and then the
// bytes, or the BlobID and the offset (4).
func appendPieces(b []byte, pieces []piece) []byte {
	for _, p := range pieces {
		kind := byte(pieceZeros)
		switch {
		case p.raw != nil:
			kind = pieceRaw
		case p.blob.Epoch > 0:
			kind = pieceBlob
		}
		b = binary.BigEndian.AppendUint32(append(b, kind), uint32(p.n))
		switch kind {
		case pieceRaw:
			b = append(b, p.raw...)
		case pieceBlob:
			b = binary.BigEndian.AppendUint32(appendID(b, p.blob), uint32(p.off))
		}
	}
	return b
}

// decodePieces decodes pieces that are at most limit bytes together. They share b.
func decodePieces(b []byte, limit int64) (pieces []piece, total int64, err error) {
	d := decoder{b: b}
	for len(d.b) > 0 {
		kind, n := d.u8(), d.u32()
		p := piece{n: int(n)}
		ok := n > 0 && total+n <= limit
		switch kind {
		case pieceZeros:
		case pieceRaw:
			p.raw = d.take(p.n)
		case pieceBlob:
			p.blob = d.id()
			p.off = int(d.u32())
			ok = ok && p.blob.Epoch > 0 && int64(p.off)+n <= MaxBlob
		default:
			ok = false
		}
		if !ok || d.bad {
			return nil, 0, errMalformed
		}
		total += n
		pieces = append(pieces, p)
	}
	return pieces, total, d.end()
}

// cut is the part of pieces from byte a to byte b.
func cut(pieces []piece, a, b int) []piece {
	var out []piece
	at := 0
	for _, p := range pieces {
		from, to := max(a-at, 0), min(b-at, p.n)
		at += p.n
		if from >= to {
			continue
		}
		q := p
		q.n, q.off = to-from, p.off+from
		if p.raw != nil {
			q.raw, q.off = p.raw[from:to], 0
		}
		out = append(out, q)
	}
	return out
}

func length(pieces []piece) (n int) {
	for _, p := range pieces {
		n += p.n
	}
	return n
}
