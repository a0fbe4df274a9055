//go:build linux || darwin || freebsd

package fs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

// A redo file is a head, and records behind it. See the package's documentation.
const (
	redoMagic   = "CIRCLEJ2"
	redoHead    = 4096 // bytes before the first record
	headFields  = 8 + 8 + 64 + 4
	recordMagic = "CIRCLER2"
	frameFields = 8 + 8 + 8 + 8 + 4 + 1 + 4 + 1
	frameFlag   = frameFields - 1 // where the mark of an applied record is
	// maxRecord bounds one record, and what is believed of a length. A
	// transaction within the default limits makes less: 64 MiB of log entries,
	// and 100,000 steps.
	maxRecord = 256 << 20
)

// JournalDamageError is the error of opening a context whose commits are in a
// journal that is not as it was written. A write that was cut short by a crash is
// not damage.
type JournalDamageError struct {
	File   string
	Offset int64
	Err    error
}

func (e *JournalDamageError) Error() string {
	return fmt.Sprintf("journal %s is damaged at byte %d: %v; restore it from a backup, or move it and the context's tx/journal away to give up what was committed in the seconds before the crash",
		e.File, e.Offset, e.Err)
}

func (e *JournalDamageError) Unwrap() error { return e.Err }

// appendHead encodes a file's head: what its records begin with belongs to epoch,
// and was written in one run of the machine.
func appendHead(b []byte, epoch uint64, boot string) []byte {
	start := len(b)
	b = append(b, redoMagic...)
	b = binary.BigEndian.AppendUint64(b, epoch)
	var name [64]byte
	copy(name[:], boot)
	b = append(b, name[:]...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return append(b, make([]byte, redoHead-headFields)...)
}

func decodeHead(b []byte) (epoch uint64, boot string, ok bool) {
	if len(b) < headFields || string(b[:8]) != redoMagic || crc32.Checksum(b[:headFields-4], castagnoli) != binary.BigEndian.Uint32(b[headFields-4:]) {
		return 0, "", false
	}
	return binary.BigEndian.Uint64(b[8:]), string(bytes.TrimRight(b[16:16+64], "\x00")), true
}

// newFrame is a record with room for its frame, which seal fills in.
func newFrame(r *record) []byte { return r.append(make([]byte, frameFields)) }

// seal fills a frame in. last says that it ends its batch.
func seal(frame []byte, epoch, batch uint64, last, applied bool) {
	body := frame[frameFields:]
	b := frame[:0]
	b = append(b, recordMagic...)
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = binary.BigEndian.AppendUint64(b, batch)
	b = binary.BigEndian.AppendUint64(b, uint64(len(body)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	b = append(b, flag(last))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	frame[len(b)] = flag(applied)
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// frameInfo is what a frame says of itself.
type frameInfo struct {
	batch   uint64
	last    bool
	applied bool
}

// readRecordAt reads the record at off, if a whole one of the epoch is there.
func readRecordAt(f io.ReaderAt, off, size int64, epoch uint64) (info frameInfo, body []byte, ok bool, err error) {
	var head [frameFields]byte
	if size-off < frameFields {
		return info, nil, false, nil
	}
	if _, err := f.ReadAt(head[:], off); err != nil {
		return info, nil, false, err
	}
	length := binary.BigEndian.Uint64(head[24:])
	if string(head[:8]) != recordMagic || binary.BigEndian.Uint64(head[8:]) != epoch ||
		crc32.Checksum(head[:frameFields-5], castagnoli) != binary.BigEndian.Uint32(head[frameFields-5:]) ||
		length > maxRecord || int64(length) > size-off-frameFields {
		return info, nil, false, nil
	}
	info = frameInfo{binary.BigEndian.Uint64(head[16:]), head[36] != 0, head[frameFlag] != 0}
	body = make([]byte, length)
	if _, err := f.ReadAt(body, off+frameFields); err != nil {
		return info, nil, false, err
	}
	return info, body, crc32.Checksum(body, castagnoli) == binary.BigEndian.Uint32(head[32:]), nil
}

// readRedo returns the records of a redo file that belong to one of the contexts
// that want says. What follows the last whole record is the beginning of a batch
// that was never acknowledged; unless something of a later batch lies behind it,
// which was written only when that one was on the disk: then it is damage.
func readRedo(f *os.File, path string, want func(contextID) bool) ([]*record, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	head := make([]byte, headFields)
	if _, err := f.ReadAt(head, 0); err == io.EOF {
		return nil, nil // nothing was written yet
	} else if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	epoch, boot, ok := decodeHead(head)
	if !ok {
		if allZero(head) {
			return nil, nil // voided
		}
		// It is within one sector, which a disk writes whole or not at all.
		return nil, &JournalDamageError{path, 0, errors.New("it does not begin as a journal does")}
	}
	thisBoot := bootID()
	var records []*record
	last := frameInfo{last: true}
	off := int64(redoHead)
	for {
		fi, body, ok, err := readRecordAt(f, off, info.Size(), epoch)
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		if !ok {
			break
		}
		if len(body) >= len(contextID{}) && want(contextID(body[:16])) {
			r, err := decodeRecord(body)
			if err != nil {
				return nil, &JournalDamageError{path, off, fmt.Errorf("%w, though it is whole; a newer version of this program may have made it", err)}
			}
			r.applied = fi.applied && boot == thisBoot && boot != ""
			records = append(records, r)
		}
		last = fi
		off += frameFields + int64(len(body))
	}
	first := last.batch + 1 // the first that proves damage
	if last.last {
		first++
	}
	return records, laterBatch(f, path, off, info.Size(), epoch, first)
}

// laterBatch looks for a whole record, of a batch not before first, behind off.
func laterBatch(f *os.File, path string, off, size int64, epoch, first uint64) error {
	const chunk = 1 << 20
	buf := make([]byte, chunk+len(recordMagic))
	for at := off; at < size; at += chunk {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read journal: %w", err)
		}
		for i := 0; ; i++ {
			k := bytes.Index(buf[i:n], []byte(recordMagic))
			if k < 0 || i+k >= chunk {
				break
			}
			i += k
			fi, _, ok, err := readRecordAt(f, at+int64(i), size, epoch)
			if err != nil {
				return fmt.Errorf("read journal: %w", err)
			}
			if ok && fi.batch >= first {
				return &JournalDamageError{path, off, errors.New("a record that was acknowledged cannot be read")}
			}
		}
	}
	return nil
}

// outstanding sorts a context's records and leaves out those that others say are
// on the disk.
func outstanding(records []*record) ([]*record, error) {
	slices.SortStableFunc(records, func(a, b *record) int {
		if a.seq < b.seq {
			return -1
		}
		return int(flag(a.seq > b.seq))
	})
	records = slices.CompactFunc(records, func(a, b *record) bool { return a.seq == b.seq })
	if len(records) == 0 {
		return nil, nil
	}
	settled := records[len(records)-1].settled
	for len(records) > 0 && records[0].seq <= settled {
		records = records[1:]
	}
	for i, r := range records {
		if r.seq != records[0].seq+uint64(i) {
			return nil, fmt.Errorf("commit %d is in the journal, and the one before it is not", r.seq)
		}
	}
	return records, nil
}

func (id contextID) String() string { return hex.EncodeToString(id[:]) }
