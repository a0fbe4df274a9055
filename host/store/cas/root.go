package cas

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/circles-host/circles/host/store"
)

const (
	rootMagic = "circles root 1\n"
	// deltaSize bounds the changes that a root holds beside each tree, in bytes: the
	// larger, the fewer pages are written, and the more is sent at each commit.
	deltaSize  = 24 << 10
	maxDeltas  = deltaSize / 4
	maxRecent  = 64
	commitSize = 16
)

// commitID is drawn anew for every root that is written.
type commitID [commitSize]byte

func newCommitID() (id commitID) {
	rand.Read(id[:])
	return id
}

// state is a committed state: a decoded root. It does not change.
type state struct {
	version Version // as the bucket calls it; "" of one that is not there yet

	gen      uint64     // how many commits there were
	id       commitID   //
	recent   []commitID // of the commits before, the last one first
	epoch    uint64     // goes into the names of what is written on top of it
	filesGen uint64     // how many commits there were that changed the files
	nextIno  uint64     //
	bytes    int64      // that the files have together; modulo 2⁶⁴, since they may claim any size
	entries  int64      // files, directories and links below the top
	files    table      //
	logSeq   uint64     // of the last log entry; 0 if there is none
	logHash  [32]byte   // its hash
	logBytes int64      // of the entries together, as overlay.LogSize has them
	log      table      //
}

// newState is that of a bucket without a root.
func newState() *state {
	top := node{kind: store.KindDir, ino: rootIno}
	return &state{
		epoch: 1, nextIno: rootIno + 1,
		files: table{noPage, []entry{{nodeKey(0, ""), top.encode()}}},
		log:   table{tree: noPage},
	}
}

// table is a sorted map: a tree of pages, and over it the changes since that was
// written, by key. A nil value says that a key is gone.
type table struct {
	tree  ref
	delta []entry
}

// encode is the root:
//
//	magic    "circles root 1\n"
//	gen      8 bytes, id 16, epoch 8, filesGen 8, nextIno 8, bytes 8, entries 8
//	recent   1 byte that counts them, 16 each
//	files    a table
//	logSeq   8 bytes, logHash 32, logBytes 8
//	log      a table
//	check    32 bytes: SHA-256 of all before it
//
// and a table is the height of its tree (1 byte, 0 of an empty one), the BlobID of its
// top page (8 + 32), the number of changes (4), and of each a byte that is 1 if
// the key has a value, the lengths of key and value (2 each), and both. Big endian.
func (s *state) encode() []byte {
	b := append(make([]byte, 0, 2*deltaSize+4096), rootMagic...)
	b = binary.BigEndian.AppendUint64(b, s.gen)
	b = append(b, s.id[:]...)
	b = binary.BigEndian.AppendUint64(b, s.epoch)
	b = binary.BigEndian.AppendUint64(b, s.filesGen)
	b = binary.BigEndian.AppendUint64(b, s.nextIno)
	b = binary.BigEndian.AppendUint64(b, uint64(s.bytes))
	b = binary.BigEndian.AppendUint64(b, uint64(s.entries))
	b = append(b, byte(len(s.recent)))
	for _, id := range s.recent {
		b = append(b, id[:]...)
	}
	b = s.files.append(b)
	b = binary.BigEndian.AppendUint64(b, s.logSeq)
	b = append(b, s.logHash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.logBytes))
	b = s.log.append(b)
	return sealRoot(b)
}

func sealRoot(b []byte) []byte {
	check := sha256.Sum256(b)
	return append(b[:len(b):len(b)], check[:]...)
}

func (t table) append(b []byte) []byte {
	b = append(b, byte(t.tree.level+1))
	b = appendID(b, t.tree.id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(t.delta)))
	for _, e := range t.delta {
		has := byte(0)
		if e.val != nil {
			has = 1
		}
		b = append(b, has)
		b = appendEntries(b, []entry{e})
	}
	return b
}

var errNotRoot = errors.New("not the root of a context, or one that was cut or changed on its way")

// decodeRoot decodes what encode wrote. The state shares b.
func decodeRoot(b []byte) (*state, error) {
	d := decoder{b: b}
	if len(b) > MaxRoot || string(d.take(len(rootMagic))) != rootMagic || len(d.b) < sha256.Size {
		return nil, errNotRoot
	}
	body := len(b) - sha256.Size
	if sha256.Sum256(b[:body]) != [32]byte(b[body:]) {
		return nil, errNotRoot
	}
	d.b = d.b[:len(d.b)-sha256.Size]
	s := &state{gen: d.u64(), id: commitID(fill(d.take(commitSize), commitSize)), epoch: d.u64(), filesGen: d.u64(), nextIno: d.u64(),
		bytes: int64(d.u64()), entries: int64(d.u64())}
	n := int(d.u8())
	if n > maxRecent {
		return nil, errMalformed
	}
	for range n {
		s.recent = append(s.recent, commitID(fill(d.take(commitSize), commitSize)))
	}
	s.files = d.table()
	s.logSeq, s.logHash, s.logBytes = d.u64(), d.hash(), int64(d.u64())
	s.log = d.table()
	if s.gen == 0 || s.epoch == 0 || s.nextIno <= rootIno || s.nextIno > 1<<62 || s.logSeq > 1<<62 || s.gen > 1<<62 || s.epoch > 1<<62 {
		d.bad = true
	}
	return s, d.end()
}

func fill(b []byte, n int) []byte {
	if b == nil {
		return make([]byte, n)
	}
	return b
}

func (d *decoder) table() table {
	t := table{}
	t.tree.level = int(d.u8()) - 1
	t.tree.id = d.id()
	if t.tree.level > maxLevel || t.tree.level < 0 && t.tree != noPage {
		d.bad = true
	}
	n := int(d.u32())
	if n > maxDeltas {
		d.bad = true
	}
	for range n {
		has, k, v := d.u8(), d.u16(), d.u16()
		e := entry{d.take(k), d.take(v)}
		if i := len(t.delta); has > 1 || has == 0 && v > 0 || k == 0 || k > maxKey || v > maxValue ||
			i > 0 && bytes.Compare(t.delta[i-1].key, e.key) >= 0 {
			d.bad = true
		}
		if d.bad {
			break
		}
		if has == 0 {
			e.val = nil
		}
		t.delta = append(t.delta, e)
	}
	return t
}

// get finds a key; nil if it is not there. A value is never nil.
func (t table) get(ctx context.Context, from pages, key []byte) ([]byte, error) {
	if i, ok := find(t.delta, key); ok {
		return t.delta[i].val, nil
	}
	return lookup(ctx, from, t.tree, key)
}

// scan visits, in order, the entries that have a prefix, from key first on, until
// visit returns false.
func (t table) scan(ctx context.Context, from pages, prefix, first []byte, visit func(entry) (bool, error)) error {
	i, _ := find(t.delta, first)
	delta := t.delta[i:]
	more := true
	give := func(e entry) (err error) {
		more, err = false, nil
		if bytes.HasPrefix(e.key, prefix) {
			more = true
			if e.val != nil {
				more, err = visit(e)
			}
		}
		return err
	}
	err := walk(ctx, from, t.tree, first, nil, func(e entry) (bool, error) {
		for len(delta) > 0 && more {
			c := bytes.Compare(delta[0].key, e.key)
			if c > 0 {
				break
			}
			if err := give(delta[0]); err != nil {
				return false, err
			}
			delta = delta[1:]
			if c == 0 {
				return more, nil
			}
		}
		if !more {
			return false, nil
		}
		err := give(e)
		return more, err
	})
	for ; err == nil && more && len(delta) > 0; delta = delta[1:] {
		err = give(delta[0])
	}
	return err
}

// with is t with changes, sorted by their keys, over it: in its delta, while that has
// room, or in the pages that w is given to write.
func (t table) with(ctx context.Context, w pageWriter, changes []entry) (table, error) {
	t.delta = merge(t.delta, changes, false)
	size := 0
	for _, e := range t.delta {
		size += 1 + e.size()
	}
	if size <= deltaSize && len(t.delta) <= maxDeltas {
		return t, nil
	}
	tree, err := update(ctx, w, t.tree, t.delta)
	return table{tree: tree}, err
}

// next is the state that a commit on top of s begins with.
func (s *state) next() *state {
	n := *s
	n.version = ""
	n.gen++
	n.id = newCommitID()
	n.recent = append([]commitID{s.id}, s.recent[:min(len(s.recent), maxRecent-1)]...)
	return &n
}

// follows reports whether s was made by the commit id, or later ones; and whether
// that can be told: whether base, on which that commit was built, is recent enough.
func (s *state) follows(id commitID, base *state) (yes, known bool) {
	if s.id == id || slices.Contains(s.recent, id) {
		return true, true
	}
	return false, s.id == base.id || slices.Contains(s.recent, base.id)
}
