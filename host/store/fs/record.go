//go:build linux || darwin || freebsd

package fs

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// record is one commit, as the journal keeps it. See the package's documentation
// for its encoding.
type record struct {
	context contextID
	tx      string // the context's Tx directory, relative to the journal's
	device  uint64 // that the context's data is on
	mount   uint64 // and the mount, see mountID
	seq     uint64 // of the context's records, from 1
	settled uint64 // records of the context up to this one are wholly on the disk
	ops     []op
	logSeg  uint64 // the segment that the entries go to, by its first sequence number
	logOff  int64  // where in it they start
	entries []store.Entry

	applied bool // as far as the process that wrote it came to say
}

// contextID tells one session of a context, from its opening to its closing, from
// all others.
type contextID [16]byte

// op is a step of a plan as the journal keeps it.
type op struct {
	kind         overlay.StepKind
	path         string
	slot         string       // name in the staging directory: out, in, put, symlink, grow
	was          overlay.Attr // kind and version; kind 0 if there was nothing
	target       string       // of a symlink
	atime, mtime time.Time    // times, put, grow

	// Of put, and from off of grow.
	made     overlay.Version // the staged file
	mode     uint32
	uid, gid uint32
	isInline bool // content is all of it, and it need not be in the slot
	content  []byte
	off      int64 // of grow: what was there before is kept up to here
}

// stepGrow writes the end of a file in place, whose beginning stays as it is. It
// is a StepPut whose content would begin with all of what was there.
const stepGrow overlay.StepKind = 64

// alone reports whether a step moves a directory, or changes a file in place: it
// is applied for itself, with nothing else outstanding.
func (o *op) alone() bool {
	return o.kind == overlay.StepOut && o.was.Kind == store.KindDir || o.kind == stepGrow
}

func (r *record) alone() bool {
	for i := range r.ops {
		if r.ops[i].alone() {
			return true
		}
	}
	return false
}

// rebase says that the device that the context's data is on has another number
// now.
func (r *record) rebase(device uint64) {
	for i := range r.ops {
		o := &r.ops[i]
		for _, id := range []*[2]uint64{&o.was.Version.ID, &o.made.ID} {
			if id[0] == r.device {
				id[0] = device
			}
		}
	}
	r.device = device
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// append encodes the record.
func (r *record) append(b []byte) []byte {
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	when := func(t time.Time) {
		b = binary.AppendVarint(b, t.Unix())
		b = binary.AppendUvarint(b, uint64(t.Nanosecond()))
	}
	version := func(v overlay.Version) {
		b = binary.AppendUvarint(b, v.ID[0])
		b = binary.AppendUvarint(b, v.ID[1])
		b = binary.AppendVarint(b, v.Size)
		b = binary.AppendVarint(b, v.Mtime)
	}
	b = append(b, r.context[:]...)
	b = binary.AppendUvarint(b, r.seq)
	b = binary.AppendUvarint(b, r.settled)
	str(r.tx)
	b = binary.AppendUvarint(b, r.device)
	b = binary.AppendUvarint(b, r.mount)
	b = binary.AppendUvarint(b, uint64(len(r.ops)))
	for _, o := range r.ops {
		b = append(b, byte(o.kind))
		str(o.path)
		b = append(b, byte(o.was.Kind))
		if o.was.Kind != 0 {
			version(o.was.Version)
		}
		if o.hasSlot() {
			str(o.slot)
		}
		if o.hasTimes() {
			when(o.atime)
			when(o.mtime)
		}
		switch o.kind {
		case overlay.StepSymlink:
			str(o.target)
		case overlay.StepPut, stepGrow:
			version(o.made)
			b = binary.AppendUvarint(b, uint64(o.mode))
			b = binary.AppendUvarint(b, uint64(o.uid))
			b = binary.AppendUvarint(b, uint64(o.gid))
			b = binary.AppendUvarint(b, uint64(o.off))
			if o.isInline {
				b = append(b, 1)
				str(string(o.content))
			} else {
				b = append(b, 0)
			}
		}
	}
	b = binary.AppendUvarint(b, r.logSeg)
	b = binary.AppendUvarint(b, uint64(r.logOff))
	b = binary.AppendUvarint(b, uint64(len(r.entries)))
	for _, e := range r.entries {
		enc, _ := e.AppendBinary(nil)
		str(string(enc))
	}
	return b
}

func (o *op) hasSlot() bool {
	switch o.kind {
	case overlay.StepOut, overlay.StepIn, overlay.StepPut, overlay.StepSymlink, stepGrow:
		return true
	}
	return false
}

func (o *op) hasTimes() bool {
	switch o.kind {
	case overlay.StepTimes, overlay.StepPut, stepGrow:
		return true
	}
	return false
}

var errRecord = errors.New("malformed journal record")

// decodeRecord decodes a record. It is guarded by a checksum, but what lies on a
// disk is input all the same.
func decodeRecord(b []byte) (*record, error) {
	bad := false
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	varint := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	octet := func() byte {
		if len(b) == 0 {
			bad = true
			return 0
		}
		v := b[0]
		b = b[1:]
		return v
	}
	bytes := func() []byte {
		n := uvarint()
		if n > uint64(len(b)) {
			bad, b = true, nil
			return nil
		}
		s := b[:n:n]
		b = b[n:]
		return s
	}
	str := func() string { return string(bytes()) }
	when := func() time.Time {
		sec, nsec := varint(), uvarint()
		if nsec >= 1e9 {
			bad = true
			return time.Time{}
		}
		return time.Unix(sec, int64(nsec))
	}
	version := func() (v overlay.Version) {
		v.ID[0], v.ID[1], v.Size, v.Mtime = uvarint(), uvarint(), varint(), varint()
		return v
	}
	narrow := func(v uint64, most uint64) uint64 {
		bad = bad || v > most
		return v
	}
	r := &record{}
	if len(b) < len(r.context) {
		return nil, errRecord
	}
	b = b[copy(r.context[:], b):]
	r.seq, r.settled = uvarint(), uvarint()
	r.tx, r.device, r.mount = str(), uvarint(), uvarint()
	for n := uvarint(); n > 0 && !bad; n-- {
		o := op{kind: overlay.StepKind(octet()), path: str()}
		switch o.kind {
		case overlay.StepRemove, overlay.StepOut, overlay.StepMkdir, overlay.StepIn, overlay.StepPut, overlay.StepSymlink, overlay.StepTimes, stepGrow:
		default:
			bad = true
		}
		if o.was.Kind = store.Kind(octet()); o.was.Kind != 0 {
			o.was.Version = version()
		}
		if o.hasSlot() {
			o.slot = str()
			bad = bad || !plainName(o.slot)
		}
		if o.hasTimes() {
			o.atime, o.mtime = when(), when()
		}
		switch o.kind {
		case overlay.StepSymlink:
			o.target = str()
		case overlay.StepPut, stepGrow:
			o.made = version()
			o.mode = uint32(narrow(uvarint(), 0o777))
			o.uid = uint32(narrow(uvarint(), math.MaxUint32))
			o.gid = uint32(narrow(uvarint(), math.MaxUint32))
			o.off = int64(narrow(uvarint(), math.MaxInt64))
			if o.isInline = octet() != 0; o.isInline {
				o.content = bytes()
			}
		}
		bad = bad || !plainPath(o.path) && (o.kind != overlay.StepTimes || o.path != ".")
		r.ops = append(r.ops, o)
	}
	r.logSeg = uvarint()
	r.logOff = int64(narrow(uvarint(), math.MaxInt64))
	for n := uvarint(); n > 0 && !bad; n-- {
		var e store.Entry
		if err := e.UnmarshalBinary(bytes()); err != nil {
			bad = true
		}
		r.entries = append(r.entries, e)
	}
	if bad || len(b) > 0 {
		return nil, errRecord
	}
	return r, nil
}

// plainPath reports whether a path names something below a directory without
// any way to leave it.
func plainPath(p string) bool {
	for start := 0; ; {
		end := start
		for end < len(p) && p[end] != '/' {
			end++
		}
		if !plainName(p[start:end]) {
			return false
		}
		if end == len(p) {
			return true
		}
		start = end + 1
	}
}

func plainName(s string) bool {
	if s == "" || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		if s[i] == 0 || s[i] == '/' {
			return false
		}
	}
	return true
}
