package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// The file is a header and then frames:
//
//	length   8 bytes, big endian
//	digest   32 bytes, SHA-256 of the length and the payload
//	payload  length bytes: a byte that says what it is, and that
//
// A page is a part of a file's content. A commit says what has changed, and by
// that which pages count. A frame is there when its digest is right; so what
// follows the last one that is, is the remains of a commit that was cut off. A
// commit is acknowledged when it and all before it has reached the disk.
const (
	header      = "circles example store 1\n"
	frameHead   = 8 + sha256.Size
	framePage   = 'P'
	frameCommit = 'C'
	maxFrame    = 128 << 20 // more than the largest commit, and a bound for a damaged length
)

// commit is the payload of a commit's frame, in gob.
type commit struct {
	Steps []step
	Slots int
	Log   []entry
}

type step struct {
	Kind         overlay.StepKind
	Path         string
	Slot         int
	Size         int64
	Pages        map[int64]int64 // of a put: where each page lies in this file
	Target       string
	Atime, Mtime time.Time
	At           time.Time // when it was committed
}

type entry struct {
	Time time.Time
	Key  store.Key
	Data []byte
}

func sum(length, payload []byte) []byte {
	h := sha256.New()
	h.Write(length)
	h.Write(payload)
	return h.Sum(nil)
}

// appendFrame writes a frame at the end, and tells where its payload lies behind
// the byte that says what it is.
func (b *backend) appendFrame(what byte, data []byte) (int64, error) {
	payload := append([]byte{what}, data...)
	frame := binary.BigEndian.AppendUint64(nil, uint64(len(payload)))
	frame = append(frame, sum(frame, payload)...)
	if _, err := b.file.WriteAt(append(frame, payload...), b.end); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	at := b.end + frameHead + 1
	b.end += frameHead + int64(len(payload))
	return at, nil
}

// replay reads the file from its beginning, and takes off the remains.
func (b *backend) replay() error {
	info, err := b.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		if _, err := b.file.WriteAt([]byte(header), 0); err != nil {
			return err
		}
		b.end = int64(len(header))
		return b.file.Sync()
	}
	head := make([]byte, len(header))
	if _, err := io.ReadFull(io.NewSectionReader(b.file, 0, info.Size()), head); err != nil || string(head) != header {
		return errors.New("it is not a store of this plugin")
	}
	at := int64(len(header))
	for {
		size, payload, err := b.frameAt(at, info.Size())
		if err != nil {
			return err
		}
		if payload == nil {
			if err := b.onlyRemains(at, info.Size()); err != nil {
				return err
			}
			break
		}
		if payload[0] == frameCommit {
			var c commit
			if err := gob.NewDecoder(bytes.NewReader(payload[1:])).Decode(&c); err != nil {
				return fmt.Errorf("read the commit at %d: %w", at, err)
			}
			if err := b.apply(&c); err != nil {
				return fmt.Errorf("repeat the commit at %d: %w", at, err)
			}
		}
		at += size
	}
	b.end = at
	if err := b.file.Truncate(at); err != nil {
		return err
	}
	return b.file.Sync()
}

// frameAt reads one frame; its payload is nil if it is not whole.
func (b *backend) frameAt(at, size int64) (int64, []byte, error) {
	if size-at < frameHead {
		return 0, nil, nil
	}
	head := make([]byte, frameHead)
	if _, err := b.file.ReadAt(head, at); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint64(head)
	if n == 0 || n > maxFrame || int64(n) > size-at-frameHead {
		return 0, nil, nil
	}
	payload := make([]byte, n)
	if _, err := b.file.ReadAt(payload, at+frameHead); err != nil {
		return 0, nil, err
	}
	if !bytes.Equal(sum(head[:8], payload), head[8:]) {
		return 0, nil, nil
	}
	return frameHead + int64(n), payload, nil
}

// onlyRemains looks for a commit behind a frame that is not right.
func (b *backend) onlyRemains(from, size int64) error {
	tail := bufio.NewReaderSize(io.NewSectionReader(b.file, from, size-from), 1<<20)
	for at := from; ; at++ {
		head, err := tail.Peek(frameHead + 1)
		if err != nil { // nothing that long is left
			return nil
		}
		if head[frameHead] == frameCommit {
			if _, payload, err := b.frameAt(at, size); err != nil || payload != nil {
				return errors.Join(err, fmt.Errorf("it is damaged at byte %d, before the commit at %d: put a copy in its place", from, at))
			}
		}
		_, _ = tail.Discard(1)
	}
}
