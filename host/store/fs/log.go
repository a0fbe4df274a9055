//go:build linux || darwin || freebsd

package fs

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// chainLog is the log on disk, and an index of it in memory: 48 bytes an entry
// and its key. Its caller locks.
type chainLog struct {
	dir      int    // descriptor
	path     string // for messages
	segLimit int64  // a segment that has reached this size is followed by another
	disk     disk

	segs   []segment
	active *os.File // the last segment
	where  []place  // by sequence number, less one
	keys   map[store.Key]uint64
	last   [32]byte // hash of the last entry
}

type segment struct {
	first uint64 // sequence number of its first entry, and its name
	size  int64
}

// place is where an entry's frame is.
type place struct {
	seg  int
	off  int64
	size int // of the encoded entry
}

const (
	logMagic   = "circles log v1\n\n"
	frameHead  = 4 + 4 + 4
	maxEntry   = 64 << 20
	logSegSize = 16 << 20
)

func segName(first uint64) string { return fmt.Sprintf("%020d.log", first) }

// appendFrame frames an encoded entry. The length has a checksum of its own, so
// that a damaged length is not taken for an entry that was cut short.
func appendFrame(b, entry []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(entry)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:at+4], castagnoli))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(entry, castagnoli))
	return append(b, entry...)
}

var (
	errTorn   = errors.New("cut short")
	errFrame  = errors.New("length does not match its checksum")
	errBody   = errors.New("entry does not match its checksum")
	errSize   = errors.New("entry is longer than any that is written")
	errUnlink = errors.New("entry does not follow from the one before it")
	errTwice  = errors.New("entry has the key of an earlier one")
)

// readFrame reads one frame of at most left bytes. errTorn says that the file
// ends inside it, which only an append that was never acknowledged leaves.
func readFrame(r io.Reader, left int64) ([]byte, error) {
	var head [frameHead]byte
	if left < frameHead {
		return nil, errTorn
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	switch {
	case crc32.Checksum(head[:4], castagnoli) != binary.BigEndian.Uint32(head[4:]):
		return nil, errFrame
	case size > maxEntry:
		return nil, errSize
	case int64(size) > left-frameHead:
		return nil, errTorn
	}
	entry := make([]byte, size)
	if _, err := io.ReadFull(r, entry); err != nil {
		return nil, err
	}
	if crc32.Checksum(entry, castagnoli) != binary.BigEndian.Uint32(head[8:]) {
		return nil, errBody
	}
	return entry, nil
}

// openLog reads the whole log, checks its chain and builds the index. pending,
// if any, is a commit that was decided: what it appended, wholly or in part, is
// taken back, since it will be appended again.
func openLog(dir int, path string, segLimit int64, pending *record, d disk) (*chainLog, error) {
	l := &chainLog{dir: dir, path: path, segLimit: segLimit, disk: d, keys: map[store.Key]uint64{}}
	fd, err := openat(dir, ".", dirFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("list log: %w", err)
	}
	names, err := readDir(fd, 1<<20)
	unix.Close(fd)
	if err != nil {
		return nil, fmt.Errorf("list log: %w", err)
	}
	for _, e := range names {
		num, isLog := strings.CutSuffix(e.Name, ".log")
		first, err := strconv.ParseUint(num, 10, 64)
		if !isLog || err != nil || segName(first) != e.Name || e.Kind != store.KindFile {
			continue // an owner's note, not ours
		}
		l.segs = append(l.segs, segment{first: first})
	}
	slices.SortFunc(l.segs, func(a, b segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	for i := range l.segs {
		if err := l.scan(i, pending); err != nil {
			l.close()
			return nil, err
		}
	}
	if len(l.segs) == 0 {
		if err := l.rotate(); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (l *chainLog) damage(seg int, off int64, err error) error {
	return &LogDamageError{File: filepath.Join(l.path, segName(l.segs[seg].first)), Offset: off, Err: err}
}

func (l *chainLog) openSegment(i int, flags int) (*os.File, error) {
	name := segName(l.segs[i].first)
	fd, err := openat(l.dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log segment %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// scan reads one segment into the index.
func (l *chainLog) scan(i int, pending *record) error {
	last := i == len(l.segs)-1
	s := &l.segs[i]
	if want := uint64(len(l.where)) + 1; s.first != want {
		return l.damage(i, 0, fmt.Errorf("it starts at entry %d, but the one before it ends at %d", s.first, want-1))
	}
	flags := unix.O_RDONLY
	if last {
		flags = unix.O_RDWR
	}
	f, err := l.openSegment(i, flags)
	if err != nil {
		return err
	}
	if last {
		l.active = f
	} else {
		defer f.Close()
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s.size = info.Size()
	if last && pending != nil && pending.logSeg == s.first && pending.logOff >= int64(len(logMagic)) && s.size > pending.logOff {
		if err := l.cut(i, pending.logOff); err != nil {
			return err
		}
	}
	head := make([]byte, len(logMagic))
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if last && s.size <= int64(len(head)) && s.size >= int64(n) && begun(head[:n]) {
		return l.start(i) // the crash came between making the segment and its first entry
	}
	if string(head[:n]) != logMagic {
		return l.damage(i, 0, errors.New("it does not begin as a log segment does"))
	}
	off := int64(len(logMagic))
	r := bufio.NewReaderSize(io.NewSectionReader(f, off, s.size-off), int(min(256<<10, max(s.size-off, 16))))
	for off < s.size {
		enc, err := readFrame(r, s.size-off)
		if last && err != nil {
			if err == errTorn {
				return l.cut(i, off)
			}
			if err == errFrame { // or the size was durable before the bytes were
				if zero, zerr := zeroFrom(f, off, s.size); zerr != nil {
					return zerr
				} else if zero {
					return l.cut(i, off)
				}
			}
		}
		var e store.Entry
		if err == nil {
			err = e.UnmarshalBinary(enc)
		}
		if err == nil {
			err = l.index(e, place{i, off, len(enc)})
		}
		if err != nil {
			return l.damage(i, off, err)
		}
		off += frameHead + int64(len(enc))
	}
	return nil
}

// begun reports whether bytes are what a crash may leave of a segment's head.
func begun(b []byte) bool {
	k := 0
	for k < len(b) && b[k] == logMagic[k] {
		k++
	}
	return allZero(b[k:]) && (k < len(b) || k < len(logMagic))
}

// index adds the entry that comes next.
func (l *chainLog) index(e store.Entry, at place) error {
	if e.Seq != uint64(len(l.where))+1 || e.Prev != l.last {
		return errUnlink
	}
	if _, twice := l.keys[e.Key]; twice {
		return errTwice
	}
	l.where = append(l.where, at)
	l.keys[e.Key] = e.Seq
	l.last = e.Hash()
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func zeroFrom(f io.ReaderAt, off, end int64) (bool, error) {
	buf := make([]byte, 64<<10)
	for off < end {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
		if !allZero(buf[:n]) {
			return false, nil
		}
		if err != nil && err != io.EOF {
			return false, err
		}
		if n == 0 {
			break
		}
		off += int64(n)
	}
	return true, nil
}

// cut shortens the last segment, for good.
func (l *chainLog) cut(i int, size int64) error {
	if err := l.disk.truncate(l.active, size); err != nil {
		return fmt.Errorf("cut unfinished entry off the log: %w", err)
	}
	if err := l.disk.sync(int(l.active.Fd())); err != nil {
		return fmt.Errorf("cut unfinished entry off the log: %w", err)
	}
	l.segs[i].size = size
	return nil
}

// start writes the head of the last, empty segment.
func (l *chainLog) start(i int) error {
	if err := l.disk.truncate(l.active, 0); err != nil {
		return err
	}
	if err := l.disk.write(l.active, []byte(logMagic), 0); err != nil {
		return err
	}
	if err := l.disk.sync(int(l.active.Fd())); err != nil {
		return err
	}
	if err := l.disk.sync(l.dir); err != nil {
		return err
	}
	l.segs[i].size = int64(len(logMagic))
	return nil
}

// rotate begins a new segment.
func (l *chainLog) rotate() error {
	l.segs = append(l.segs, segment{first: uint64(len(l.where)) + 1})
	i := len(l.segs) - 1
	f, err := l.openSegment(i, unix.O_RDWR|unix.O_CREAT)
	if err == nil {
		old := l.active
		l.active = f
		if err = l.start(i); err != nil {
			l.active = old
			f.Close()
		} else if old != nil {
			old.Close()
		}
	}
	if err != nil {
		l.segs = l.segs[:i]
		return fmt.Errorf("begin log segment: %w", err)
	}
	return nil
}

// full reports whether the next entry begins a new segment.
func (l *chainLog) full() bool {
	s := l.segs[len(l.segs)-1]
	return s.size >= l.segLimit && s.size > int64(len(logMagic))
}

// sync makes what was appended durable.
func (l *chainLog) sync() error { return l.disk.datasync(l.active) }

// ready makes room for another entry in the last segment, and says where it
// will go.
func (l *chainLog) ready() (seg uint64, off int64, err error) {
	if l.full() {
		if err := l.rotate(); err != nil {
			return 0, 0, err
		}
	}
	s := l.segs[len(l.segs)-1]
	return s.first, s.size, nil
}

// next makes entries of records.
func (l *chainLog) next(records []overlay.Record) []store.Entry {
	entries := make([]store.Entry, len(records))
	seq, prev := uint64(len(l.where)), l.last
	for i, r := range records {
		seq++
		entries[i] = store.Entry{Seq: seq, Prev: prev, Time: r.Time, Key: r.Key, Data: r.Data}
		prev = entries[i].Hash()
	}
	return entries
}

// append appends entries, which the journal has. They are durable after sync.
func (l *chainLog) append(entries []store.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	i := len(l.segs) - 1
	s := &l.segs[i]
	var buf []byte
	places := make([]place, len(entries))
	for k, e := range entries {
		enc, _ := e.AppendBinary(nil)
		places[k] = place{i, s.size + int64(len(buf)), len(enc)}
		buf = appendFrame(buf, enc)
	}
	if err := l.disk.write(l.active, buf, s.size); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	s.size += int64(len(buf))
	for k, e := range entries {
		if err := l.index(e, places[k]); err != nil {
			return fmt.Errorf("append to log: %w", err)
		}
	}
	return nil
}

// again appends the entries of a record that are not there yet, after a crash.
func (l *chainLog) again(entries []store.Entry) error {
	for i, e := range entries {
		if e.Seq > uint64(len(l.where)) {
			return l.append(entries[i:])
		}
		there, err := l.read(e.Seq)
		if err != nil {
			return err
		}
		if there.Hash() != e.Hash() {
			return fmt.Errorf("append to log: entry %d is there, and is not what the journal says: %w", e.Seq, errUnlink)
		}
	}
	return nil
}

// read returns one entry.
func (l *chainLog) read(seq uint64) (store.Entry, error) {
	at := l.where[seq-1]
	f := l.active
	if at.seg != len(l.segs)-1 {
		var err error
		if f, err = l.openSegment(at.seg, unix.O_RDONLY); err != nil {
			return store.Entry{}, err
		}
		defer f.Close()
	}
	size := int64(frameHead + at.size)
	enc, err := readFrame(io.NewSectionReader(f, at.off, size), size)
	if err == nil && len(enc) != at.size {
		err = errBody
	}
	var e store.Entry
	if err == nil {
		err = e.UnmarshalBinary(enc)
	}
	if err == nil && e.Seq != seq {
		err = errUnlink
	}
	if err != nil {
		return store.Entry{}, l.damage(at.seg, at.off, err)
	}
	return e, nil
}

func (l *chainLog) close() {
	if l.active != nil {
		l.active.Close()
	}
}
