package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// DataSize is how many bytes of data an entry has that is so long encoded.
func DataSize(encoded int) int { return encoded - entryHeader }

// entryHeader is the size of an encoded entry without its data:
// seq 8, prev 32, time 8+4, key 32.
const entryHeader = 8 + 32 + 12 + 32

// hashDomain keeps a log hash from being mistaken for a hash of anything else
// that this project signs or stores.
const hashDomain = "circles log entry v1\x00"

// Hash is what the next entry's Prev must be: SHA-256 over a domain separator
// and the encoded entry. To verify a log, walk it from sequence number 1 and
// compare each Prev with the Hash of the entry before it.
func (e Entry) Hash() [32]byte {
	h := sha256.New()
	h.Write([]byte(hashDomain))
	var head [entryHeader]byte
	h.Write(e.appendHeader(head[:0]))
	h.Write(e.Data)
	return [32]byte(h.Sum(nil))
}

func (e Entry) appendHeader(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = append(b, e.Prev[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(e.Time.Nanosecond()))
	return append(b, e.Key[:]...)
}

// AppendBinary encodes the entry, big endian and without padding:
//
//	seq   8 bytes
//	prev  32 bytes
//	time  8 bytes of seconds since 1970, two's complement; 4 bytes of nanoseconds
//	key   32 bytes
//	data  the rest
//
// The encoding is one to one: every field before data has one size and one
// form. It never fails.
func (e Entry) AppendBinary(b []byte) ([]byte, error) {
	return append(e.appendHeader(b), e.Data...), nil
}

// UnmarshalBinary decodes what AppendBinary wrote; it copies b.
func (e *Entry) UnmarshalBinary(b []byte) error {
	if len(b) < entryHeader {
		return fmt.Errorf("decode log entry: %d bytes, want at least %d", len(b), entryHeader)
	}
	nsec := binary.BigEndian.Uint32(b[48:])
	if nsec >= 1e9 {
		return errors.New("decode log entry: nanoseconds out of range")
	}
	*e = Entry{
		Seq:  binary.BigEndian.Uint64(b),
		Prev: [32]byte(b[8:40]),
		Time: time.Unix(int64(binary.BigEndian.Uint64(b[40:])), int64(nsec)).UTC(),
		Key:  Key(b[52:84]),
		Data: append([]byte{}, b[entryHeader:]...),
	}
	return nil
}
