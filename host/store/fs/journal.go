//go:build linux || darwin || freebsd

package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// record is what the journal holds: one commit, decided and not yet known to be
// wholly applied. See the package's documentation for its encoding.
type record struct {
	ops     []op
	logSeg  uint64 // the segment that the entries go to, by its first sequence number
	logOff  int64  // where in it they start
	entries []store.Entry
}

// op is a step of a plan as the journal keeps it.
type op struct {
	kind         overlay.StepKind
	path         string
	slot         string       // name in the staging directory: out, in, put, symlink
	was          overlay.Attr // kind and version; kind 0 if there was nothing
	target       string       // of a symlink, to say what it was; the link itself is in its slot
	atime, mtime time.Time    // times
}

const (
	journalMagic = "CIRCLEJ1"
	journalHead  = len(journalMagic) + 8 + 4
	// maxJournal bounds what is believed of a length: more than any transaction
	// within the default limits makes.
	maxJournal = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// append encodes the record, framed.
func (r *record) append(b []byte) []byte {
	start := len(b)
	b = append(b, journalMagic...)
	b = append(b, make([]byte, 12)...)
	body := len(b)
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	when := func(t time.Time) {
		b = binary.AppendVarint(b, t.Unix())
		b = binary.AppendUvarint(b, uint64(t.Nanosecond()))
	}
	b = binary.AppendUvarint(b, uint64(len(r.ops)))
	for _, o := range r.ops {
		b = append(b, byte(o.kind))
		str(o.path)
		switch o.kind {
		case overlay.StepOut, overlay.StepIn, overlay.StepPut, overlay.StepSymlink:
			str(o.slot)
		}
		if o.kind == overlay.StepSymlink {
			str(o.target)
		}
		if o.kind == overlay.StepTimes {
			when(o.atime)
			when(o.mtime)
			continue
		}
		b = append(b, byte(o.was.Kind))
		if o.was.Kind != 0 {
			v := o.was.Version
			b = binary.AppendUvarint(b, v.ID[0])
			b = binary.AppendUvarint(b, v.ID[1])
			b = binary.AppendVarint(b, v.Size)
			b = binary.AppendVarint(b, v.Mtime)
		}
	}
	b = binary.AppendUvarint(b, r.logSeg)
	b = binary.AppendUvarint(b, uint64(r.logOff))
	b = binary.AppendUvarint(b, uint64(len(r.entries)))
	for _, e := range r.entries {
		enc, _ := e.AppendBinary(nil)
		str(string(enc))
	}
	binary.BigEndian.PutUint64(b[start+8:], uint64(len(b)-body))
	binary.BigEndian.PutUint32(b[start+16:], journalSum(b[start+8:start+16], b[body:]))
	return b
}

// journalSum covers the length too: without it a head of zeros would be that of
// an empty record.
func journalSum(length, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, body)
}

var errRecord = errors.New("malformed journal record")

// decodeRecord decodes a record's body. It is guarded by a checksum, but what
// lies on a disk is input all the same.
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
	str := func() string {
		n := uvarint()
		if n > uint64(len(b)) {
			bad, b = true, nil
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	when := func() time.Time {
		sec, nsec := varint(), uvarint()
		if nsec >= 1e9 {
			bad = true
			return time.Time{}
		}
		return time.Unix(sec, int64(nsec))
	}
	r := &record{}
	for n := uvarint(); n > 0 && !bad; n-- {
		o := op{kind: overlay.StepKind(octet()), path: str()}
		switch o.kind {
		case overlay.StepOut, overlay.StepIn, overlay.StepPut, overlay.StepSymlink:
			o.slot = str()
			bad = bad || !plainName(o.slot)
		case overlay.StepRemove, overlay.StepMkdir, overlay.StepTimes:
		default:
			bad = true
		}
		if o.kind == overlay.StepSymlink {
			o.target = str()
		}
		if o.kind == overlay.StepTimes {
			o.atime, o.mtime = when(), when()
		} else if o.was.Kind = store.Kind(octet()); o.was.Kind != 0 {
			v := &o.was.Version
			v.ID[0], v.ID[1], v.Size, v.Mtime = uvarint(), uvarint(), varint(), varint()
		}
		bad = bad || !plainPath(o.path) && (o.kind != overlay.StepTimes || o.path != ".")
		r.ops = append(r.ops, o)
	}
	off := uint64(0)
	r.logSeg, off = uvarint(), uvarint()
	if off > math.MaxInt64 {
		bad = true
	}
	r.logOff = int64(off)
	for n := uvarint(); n > 0 && !bad; n-- {
		var e store.Entry
		if err := e.UnmarshalBinary([]byte(str())); err != nil {
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

// journal is the file that makes a commit atomic: the commit is decided when a
// whole record in it is durable, and done when the record is no longer there.
type journal struct {
	f *os.File
}

func openJournal(txDir int) (*journal, error) {
	fd, err := openat(txDir, "journal", unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &journal{os.NewFile(uintptr(fd), "journal")}, nil
}

// read returns the record that is there, or nil. One that is torn was never
// decided.
func (j *journal) read() (*record, error) {
	head := make([]byte, journalHead)
	if _, err := io.ReadFull(io.NewSectionReader(j.f, 0, int64(journalHead)), head); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, nil
		}
		return nil, fmt.Errorf("read journal: %w", err)
	}
	size := binary.BigEndian.Uint64(head[8:])
	info, err := j.f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if string(head[:8]) != journalMagic || size > maxJournal || int64(size) > info.Size()-int64(journalHead) {
		return nil, nil
	}
	body := make([]byte, size)
	if _, err := j.f.ReadAt(body, int64(journalHead)); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if journalSum(head[8:16], body) != binary.BigEndian.Uint32(head[16:]) {
		return nil, nil
	}
	r, err := decodeRecord(body)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w; it was written whole, so a newer version of this program may have made it", err)
	}
	return r, nil
}

// write makes a record durable: the moment at which a commit is decided.
func (j *journal) write(b []byte) error {
	if _, err := j.f.WriteAt(b, 0); err != nil {
		return err
	}
	return datasync(j.f)
}

// drop makes the record's absence durable. It must be before anything else is
// committed, or an old commit could be applied over newer state.
func (j *journal) drop() error {
	info, err := j.f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > 1<<20 {
		err = j.f.Truncate(0)
	} else {
		// Overwriting the head, at the same size, spares the file system a
		// change of metadata.
		_, err = j.f.WriteAt(make([]byte, journalHead), 0)
	}
	if err != nil {
		return err
	}
	return datasync(j.f)
}
