package cas

import (
	"encoding/binary"
	"time"

	"github.com/circles-host/circles/host/store"
)

// maxEntry bounds the data of a log entry that is read, in bytes: more than overlay
// ever lets anybody append.
const maxEntry = 64 << 20

// maxInlineEntry bounds the data of an entry that is kept in the table, in bytes.
const maxInlineEntry = 4 << 10

// logged is a log entry as its table has it. Encoded: prev 32, time 8 + 4 as an
// entry's, key 32, and the pieces of its data.
type logged struct {
	store.Entry
	data []piece
}

func (l logged) encode() []byte {
	b := append(make([]byte, 0, 1024), l.Prev[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Time.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(l.Time.Nanosecond()))
	b = append(b, l.Key[:]...)
	return appendPieces(b, l.data)
}

func decodeLogged(e entry) (l logged, size int64, err error) {
	k := decoder{b: e.key}
	kind := k.u8()
	l.Seq = k.u64()
	d := decoder{b: e.val}
	l.Prev = d.hash()
	sec, nsec := int64(d.u64()), d.u32()
	l.Time = time.Unix(sec, nsec).UTC()
	l.Key = store.Key(d.hash())
	if kind != 'e' || l.Seq == 0 || nsec >= 1e9 || k.end() != nil || d.bad {
		return l, 0, errMalformed
	}
	l.data, size, err = decodePieces(d.b, maxEntry)
	for _, p := range l.data {
		if p.raw == nil && p.blob.Epoch == 0 { // zeros, of which a few bytes would make many
			err = errMalformed
		}
	}
	return l, size, err
}

func entryKey(seq uint64) []byte { return number('e', seq) }

func keyKey(key store.Key) []byte { return append([]byte{'k'}, key[:]...) }

func decodeSeq(b []byte) (uint64, error) {
	d := decoder{b: b}
	seq := d.u64()
	return seq, d.end()
}
