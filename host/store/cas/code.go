package cas

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// DamageError says that the bucket does not hold what a context needs, or holds
// what nobody wrote. Nothing is done about it here: restore what is named from a
// backup or from another copy of the bucket.
type DamageError struct {
	What string // the root, or a blob by its name
	Err  error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("the bucket is damaged: %s: %v; restore it from a backup", e.What, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

var errMalformed = errors.New("malformed")

// decoder takes fields off the front of b. After the first that is not there it
// gives zeros, and its err says so: no field makes it allocate what b does not hold.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	f := d.b[:n:n]
	d.b = d.b[n:]
	return f
}

func (d *decoder) u8() byte {
	if f := d.take(1); f != nil {
		return f[0]
	}
	return 0
}

func (d *decoder) u16() int {
	if f := d.take(2); f != nil {
		return int(binary.BigEndian.Uint16(f))
	}
	return 0
}

func (d *decoder) u32() int64 {
	if f := d.take(4); f != nil {
		return int64(binary.BigEndian.Uint32(f))
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if f := d.take(8); f != nil {
		return binary.BigEndian.Uint64(f)
	}
	return 0
}

func (d *decoder) hash() (h [32]byte) {
	copy(h[:], d.take(32))
	return h
}

func (d *decoder) id() BlobID { return BlobID{Epoch: d.u64(), Digest: d.hash()} }

// end is the error of what was taken; what is left over is one too.
func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return errMalformed
	}
	return nil
}

func appendID(b []byte, id BlobID) []byte {
	return append(binary.BigEndian.AppendUint64(b, id.Epoch), id.Digest[:]...)
}

const idSize = 8 + 32
