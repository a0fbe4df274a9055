//go:build linux || darwin || freebsd

package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// logOf makes a log of n entries and returns its segments.
func logOf(t *testing.T, c Config, n int) (segments []string) {
	t.Helper()
	s := mustOpen(t, c)
	for i := range n {
		must(t, s.View(context.Background(), func(tx store.Tx) error {
			return tx.Append(store.Key{byte(i), byte(i >> 8)}, fmt.Appendf(nil, "entry %d %s", i+1, strings.Repeat("x", i)))
		}))
	}
	must(t, s.Close())
	segments, err := filepath.Glob(filepath.Join(c.Log, "*.log"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	slices.Sort(segments)
	return segments
}

// count opens the context and reads its log.
func count(t *testing.T, c Config) (int, error) {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	n := 0
	for e, err := range s.Log(context.Background(), 1) {
		must(t, err)
		if n++; !strings.HasPrefix(string(e.Data), fmt.Sprintf("entry %d ", n)) {
			t.Fatalf("entry %d holds %q", n, e.Data)
		}
		if got, ok, err := s.Entry(context.Background(), e.Key); !ok || err != nil || got.Hash() != e.Hash() {
			t.Fatalf("entry %d by its key: %+v, %v, %v", n, got, ok, err)
		}
	}
	return n, nil
}

// TestLogTornTail: wherever an append was cut short, the entries before it are
// all there, and the log goes on.
func TestLogTornTail(t *testing.T) {
	c := memoryConfig(t)
	seg := logOf(t, c, 3)[0]
	whole, err := os.ReadFile(seg)
	must(t, err)
	last := bytes.LastIndex(whole, []byte("entry 3")) - frameHead - 84
	for cut := last; cut < len(whole); cut++ {
		for _, tail := range [][]byte{nil, make([]byte, 100)} {
			if tail != nil && cut > last { // zeros behind part of an entry are not told from damage
				continue
			}
			must(t, os.WriteFile(seg, append(slices.Clone(whole[:cut]), tail...), 0o600))
			if n, err := count(t, c); n != 2 || err != nil {
				t.Fatalf("cut at %d: %d entries, %v", cut, n, err)
			}
		}
	}
	s := mustOpen(t, c)
	must(t, s.View(context.Background(), func(tx store.Tx) error { return tx.Append(store.Key{9}, []byte("entry 3 again")) }))
	must(t, s.Close())
	if n, err := count(t, c); n != 3 || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
}

// TestLogDamage: every changed byte of an acknowledged entry, the last one
// included, is reported with its place and nothing is cut off.
func TestLogDamage(t *testing.T) {
	c := memoryConfig(t)
	seg := logOf(t, c, 4)[0]
	whole, err := os.ReadFile(seg)
	must(t, err)
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 1 << (i % 8)
		must(t, os.WriteFile(seg, b, 0o600))
		_, err := count(t, c)
		var damage *LogDamageError
		if !errors.As(err, &damage) || damage.File != seg || damage.Offset > int64(i) || damage.Offset < int64(i)-frameHead-100 && damage.Offset != 0 {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if after, _ := os.ReadFile(seg); !bytes.Equal(after, b) {
			t.Fatalf("byte %d changed: opening changed the log", i)
		}
	}
	// Someone who recomputes the checksums is found by the chain.
	frames := func(b []byte) (out [][]byte) {
		for b = b[len(logMagic):]; len(b) > 0; {
			size := frameHead + int(binary.BigEndian.Uint32(b))
			out = append(out, b[:size])
			b = b[size:]
		}
		return out
	}(whole)
	reframe := func(enc []byte) []byte { return appendFrame(nil, enc) }
	changed := slices.Clone(frames[1][frameHead:])
	changed[len(changed)-1] ^= 1
	if crc32.Checksum(changed, castagnoli) == crc32.Checksum(frames[1][frameHead:], castagnoli) {
		t.Fatal("the test changes nothing")
	}
	for name, f := range map[string][][]byte{
		"changed": {frames[0], reframe(changed), frames[2], frames[3]},
		"removed": {frames[0], frames[2], frames[3]},
		"first":   {frames[1], frames[2], frames[3]},
		"swapped": {frames[0], frames[2], frames[1], frames[3]},
		"twice":   {frames[0], frames[1], frames[1], frames[2]},
		"short":   {frames[0], reframe([]byte("short"))},
		"huge":    {frames[0], binary.BigEndian.AppendUint32(nil, 1<<31)},
	} {
		must(t, os.WriteFile(seg, append([]byte(logMagic), bytes.Join(f, nil)...), 0o600))
		_, err := count(t, c)
		var damage *LogDamageError
		if name == "huge" { // less than a frame's head: cut short
			must(t, err)
		} else if !errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLogSegments(t *testing.T) {
	c := memoryConfig(t)
	c.LogSegment = 500
	segs := logOf(t, c, 20)
	if len(segs) < 5 {
		t.Fatalf("%d segments", len(segs))
	}
	if n, err := count(t, c); n != 20 || err != nil {
		t.Fatalf("%d entries, %v", n, err)
	}
	// A segment that was begun when the machine stopped.
	for _, start := range []string{"", logMagic[:5], "\x00\x00", logMagic} {
		must(t, os.WriteFile(filepath.Join(c.Log, segName(21)), []byte(start), 0o600))
		if n, err := count(t, c); n != 20 || err != nil {
			t.Fatalf("with a new segment holding %q: %d entries, %v", start, n, err)
		}
	}
	// What is not a segment is let be.
	must(t, os.WriteFile(filepath.Join(c.Log, "notes.log"), []byte("mine"), 0o600))
	must(t, os.WriteFile(filepath.Join(c.Log, "7.log"), []byte("mine"), 0o600))
	if n, err := count(t, c); n != 20 || err != nil {
		t.Fatalf("%d entries, %v", n, err)
	}
	var damage *LogDamageError
	whole, err := os.ReadFile(segs[1])
	must(t, err)
	must(t, os.WriteFile(segs[1], whole[:len(whole)-1], 0o600)) // in the middle, short is damage
	if _, err := count(t, c); !errors.As(err, &damage) || damage.File != segs[1] {
		t.Errorf("short segment: %v", err)
	}
	must(t, os.Remove(segs[1]))
	if _, err := count(t, c); !errors.As(err, &damage) || damage.File != segs[2] {
		t.Errorf("missing segment: %v", err)
	}
}

// TestLogDamageWhileOpen: reading checks again.
func TestLogDamageWhileOpen(t *testing.T) {
	c := memoryConfig(t)
	seg := logOf(t, c, 3)[0]
	s := mustOpen(t, c)
	whole, err := os.ReadFile(seg)
	must(t, err)
	whole[bytes.Index(whole, []byte("entry 2"))] ^= 1
	must(t, os.WriteFile(seg, whole, 0o600))
	var damage *LogDamageError
	if _, _, err := s.Entry(context.Background(), store.Key{1}); !errors.As(err, &damage) {
		t.Errorf("entry: %v", err)
	}
	var errs []error
	for _, err := range s.Log(context.Background(), 1) {
		errs = append(errs, err)
	}
	if len(errs) != 2 || errs[0] != nil || !errors.As(errs[1], &damage) {
		t.Errorf("log: %v", errs)
	}
}

// TestBroken: after a commit that was decided but not wholly applied the store
// refuses to go on, says so, and opening finishes the commit.
func TestBroken(t *testing.T) {
	c := memoryConfig(t)
	b, err := open(c, hooks{crash: func(step string) error {
		if step == "applied" {
			return errPlug
		}
		return nil
	}})
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	err = s.Update(context.Background(), func(tx store.Tx) error {
		return first(write(tx.Files(nil), "f", "x"), tx.Append(store.Key{1}, []byte("one")))
	})
	if !errors.Is(err, overlay.ErrBroken) || !errors.Is(err, errPlug) {
		t.Errorf("commit: %v", err)
	}
	for name, f := range map[string]func(context.Context, func(store.Tx) error) error{"view": s.View, "update": s.Update} {
		if err := f(context.Background(), func(store.Tx) error { t.Error(name + " runs"); return nil }); !errors.Is(err, overlay.ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, s.Close())
	if got, want := everything(t, c), "/f = \"x\" 1\nentry 1 0100 one\n"; got != want {
		t.Errorf("after opening again there is\n%s\nwant\n%s", got, want)
	}
}

// FuzzJournal: what lies in a journal is input.
func FuzzJournal(f *testing.F) {
	r := record{
		context: contextID{1, 2, 3}, tx: "../x/tx", device: 9, mount: 11, seq: 7, settled: 5,
		ops: []op{
			{kind: overlay.StepRemove, path: "a", was: overlay.Attr{Kind: store.KindFile, Version: overlay.Version{ID: [2]uint64{1, 2}, Size: 3, Mtime: -4}}},
			{kind: overlay.StepOut, path: "a/b", slot: "s", was: overlay.Attr{Kind: store.KindDir}},
			{kind: overlay.StepMkdir, path: "c"}, {kind: overlay.StepIn, path: "c/d", slot: "s"},
			{kind: overlay.StepPut, path: "e", slot: "f1", made: overlay.Version{ID: [2]uint64{3, 4}, Size: 5, Mtime: 6}, mode: 0o644, uid: 1, gid: 2, isInline: true, content: []byte("hello")},
			{kind: stepGrow, path: "e", slot: "f2", off: 1 << 30},
			{kind: overlay.StepSymlink, path: "l", slot: "s2", target: "../x"},
			{kind: overlay.StepTimes, path: ".", atime: time.Unix(-1, 5), mtime: time.Unix(1<<40, 0)},
		},
		logSeg: 1, logOff: 16, entries: []store.Entry{{Seq: 1, Data: []byte("x"), Time: time.Unix(1, 2).UTC()}},
	}
	f.Add(r.append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		for _, o := range r.ops {
			if o.path != "." && !filepath.IsLocal(o.path) || o.slot != "" && (o.slot != filepath.Base(o.slot) || !filepath.IsLocal(o.slot)) {
				t.Fatalf("a step leads out: %+v", o)
			}
		}
		again, err := decodeRecord(r.append(nil))
		if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", r) {
			t.Fatalf("decoded %+v, again %+v, %v", r, again, err)
		}
	})
}

// FuzzLogFrame: so is what lies in a log.
func FuzzLogFrame(f *testing.F) {
	enc, _ := store.Entry{Seq: 1, Data: []byte("x")}.AppendBinary(nil)
	f.Add(appendFrame(nil, enc))
	f.Add([]byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		entry, err := readFrame(bytes.NewReader(b), int64(len(b)))
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			t.Fatalf("read past the end: %v", err)
		}
		if err == nil && !bytes.HasPrefix(b, appendFrame(nil, entry)) {
			t.Fatal("decoded what was not encoded")
		}
	})
}
