package cas

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/circles-host/circles/host/store"
)

// memPages keeps pages in memory, encoded.
type memPages struct{ *writer }

func newMemPages() memPages {
	c, _ := newCache(0, "", 0)
	return memPages{(&bucket{cache: c}).writer(1)}
}

func (m memPages) page(_ context.Context, id BlobID) (*page, error) {
	data, ok := m.blobs[id]
	if !ok {
		return nil, store.ErrNotExist
	}
	return decodePage(data)
}

// checkTree compares a table with a map, and looks at the shape of its tree.
func checkTable(t testing.TB, m memPages, tab table, want map[string]string) {
	t.Helper()
	ctx := context.Background()
	keys := slices.Sorted(maps.Keys(want))
	var got []string
	if err := tab.scan(ctx, m, nil, nil, func(e entry) (bool, error) {
		got = append(got, string(e.key))
		if want[string(e.key)] != string(e.val) {
			t.Fatalf("key %x holds %x", e.key, e.val)
		}
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, keys) {
		t.Fatalf("scanned %d keys, want %d", len(got), len(keys))
	}
	if tab.tree.level > 0 {
		small := 0
		if err := walk(ctx, m, tab.tree, nil, func(id BlobID) {
			if id != tab.tree.id && len(m.blobs[id]) < pageSmall {
				small++
			}
		}, func(entry) (bool, error) { return true, nil }); err != nil {
			t.Fatal(err)
		}
		if small > 0 {
			t.Fatalf("%d pages are nearly empty", small)
		}
	}
}

// TestTableIsAMap does random changes, of many shapes, to a table and to a map.
func TestTableIsAMap(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		m, tab, want := newMemPages(), table{tree: noPage}, map[string]string{}
		space := 10 << rnd.IntN(12)
		for round := range 60 {
			changes := map[string][]byte{}
			for range 1 + rnd.IntN(1<<rnd.IntN(11)) {
				key := binary.BigEndian.AppendUint32(nil, uint32(rnd.IntN(space)))
				if rnd.IntN(20) == 0 {
					key = append(key, make([]byte, rnd.IntN(200))...)
				}
				if round%20 > 14 || rnd.IntN(3) == 0 {
					changes[string(key)] = nil
				} else {
					changes[string(key)] = make([]byte, rnd.IntN(1<<rnd.IntN(13)))
				}
			}
			var sorted []entry
			for _, k := range slices.Sorted(maps.Keys(changes)) {
				sorted = append(sorted, entry{[]byte(k), changes[k]})
				if changes[k] == nil {
					delete(want, k)
				} else {
					want[k] = string(changes[k])
				}
			}
			var err error
			if tab, err = tab.with(t.Context(), m, sorted); err != nil {
				t.Fatal(err)
			}
			if s := (&state{gen: 1, epoch: 1, nextIno: 2, files: tab, log: table{tree: noPage}}).encode(); len(s) > MaxRoot {
				t.Fatalf("the root has %d bytes", len(s))
			}
			checkTable(t, m, tab, want)
			for range 20 {
				key := binary.BigEndian.AppendUint32(nil, uint32(rnd.IntN(space)))
				got, err := tab.get(t.Context(), m, key)
				if err != nil {
					t.Fatal(err)
				}
				if w, ok := want[string(key)]; ok != (got != nil) || w != string(got) {
					t.Fatalf("key %x: %x, want %x", key, got, w)
				}
			}
			from := binary.BigEndian.AppendUint32(nil, uint32(rnd.IntN(space)))
			prefix := from[:rnd.IntN(4)]
			n := 0
			for k := range want {
				if k >= string(from) && bytes.HasPrefix([]byte(k), prefix) {
					n++
				}
			}
			if err := tab.scan(t.Context(), m, prefix, from, func(entry) (bool, error) { n--; return true, nil }); err != nil || n != 0 {
				t.Fatalf("scan from %x with prefix %x: %d too few, %v", from, prefix, n, err)
			}
			stops := 0
			if err := tab.scan(t.Context(), m, nil, nil, func(entry) (bool, error) { stops++; return stops < 3, nil }); err != nil || stops > 3 {
				t.Fatalf("a scan that was stopped visited %d; %v", stops, err)
			}
		}
	}
}

// TestUpdateWritesOnlyTheWay: one change in a large tree writes as many pages as the
// tree is high.
func TestUpdateWritesOnlyTheWay(t *testing.T) {
	m, tab := newMemPages(), table{tree: noPage}
	var all []entry
	for i := range 200_000 {
		all = append(all, entry{binary.BigEndian.AppendUint64(nil, uint64(i)), make([]byte, 60)})
	}
	tree, err := update(t.Context(), m, tab.tree, all)
	if err != nil {
		t.Fatal(err)
	}
	if tree.level != 2 {
		t.Fatalf("the tree has %d levels", tree.level+1)
	}
	before := len(m.blobs)
	for i := range 10 {
		if tree, err = update(t.Context(), m, tree, []entry{{all[i*19_777].key, []byte("changed")}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.blobs) - before; n != 30 {
		t.Errorf("10 changes wrote %d pages, want 30", n)
	}
	if tree, err = update(t.Context(), m, tree, func() []entry {
		for i := range all {
			all[i].val = nil
		}
		return all
	}()); err != nil || tree != noPage {
		t.Errorf("a tree of which all was removed: %v, %v", tree, err)
	}
}

// TestForgedTreesEnd: pages that refer to one page many times, or to what is not
// below them, would make a tree without end out of a few kilobytes.
func TestForgedTreesEnd(t *testing.T) {
	m := newMemPages()
	key := func(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }
	leaf := m.write(newPage(0, []entry{{key(0), []byte("x")}, {key(1), []byte("y")}}).encode())
	next := m.write(newPage(0, []entry{{key(1), []byte("z")}}).encode())
	var twice []entry
	for i := range 100 {
		twice = append(twice, entry{key(i), appendID(nil, leaf)})
	}
	for name, r := range map[string]ref{
		"one page many times":  {m.write(newPage(1, twice).encode()), 1},
		"levels left out":      {m.write(newPage(2, twice[:1]).encode()), 2},
		"a leaf as the top":    {leaf, 1},
		"a page of other keys": {m.write(newPage(1, []entry{{key(5), appendID(nil, leaf)}}).encode()), 1},
		"pages that overlap":   {m.write(newPage(1, []entry{{key(0), appendID(nil, leaf)}, {key(1), appendID(nil, next)}}).encode()), 1},
	} {
		n := 0
		err := walk(t.Context(), m, r, nil, nil, func(entry) (bool, error) { n++; return true, nil })
		if damage := (*DamageError)(nil); !errors.As(err, &damage) || n > 2 {
			t.Errorf("%s: visited %d entries, %v", name, n, err)
		}
	}
}

func FuzzPage(f *testing.F) {
	f.Add(newPage(0, []entry{{[]byte("a"), nil}, {[]byte("b"), []byte("c")}}).encode())
	f.Add(newPage(1, []entry{{[]byte("a"), make([]byte, idSize)}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePage(b)
		if err == nil && !bytes.Equal(p.encode(), b) {
			t.Errorf("%x is another page than %x", b, p.encode())
		}
	})
}

func FuzzRoot(f *testing.F) {
	s := newState().next()
	s.recent = append(s.recent, newCommitID())
	s.log.delta = []entry{{[]byte("gone"), nil}, {[]byte("k"), []byte("v")}}
	f.Add(s.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		// As an enemy would write it: with a checksum that is right.
		if len(b) > 32 {
			b = sealRoot(b[:len(b)-32])
		}
		s, err := decodeRoot(b)
		if err == nil && !bytes.Equal(s.encode(), b) {
			t.Errorf("%x is another root than %x", b, s.encode())
		}
	})
}

func FuzzValues(f *testing.F) {
	id := BlobID{1, [32]byte{2}}
	f.Add(node{kind: store.KindLink, ino: 3, size: 1, target: "x"}.encode())
	f.Add(appendPieces(nil, []piece{{n: 1, raw: []byte("x")}, {n: 5}, {n: 9, blob: id, off: 7}}))
	f.Add(logged{Entry: store.Entry{Seq: 1}, data: []piece{{n: 2, raw: []byte("xy")}}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeNode(b); err == nil && !bytes.Equal(n.encode(), b) {
			t.Errorf("node %x", b)
		}
		if p, total, err := decodePieces(b, chunkSize); err == nil && (!bytes.Equal(appendPieces(nil, p), b) || total > chunkSize) {
			t.Errorf("pieces %x", b)
		}
		if l, size, err := decodeLogged(entry{entryKey(7), b}); err == nil && (!bytes.Equal(l.encode(), b) || size > maxEntry) {
			t.Errorf("log entry %x", b)
		}
	})
}

// TestEveryByteOfARootCounts: a root that differs anywhere from what was written is
// refused.
func TestEveryByteOfARootCounts(t *testing.T) {
	s := newState().next()
	good := s.encode()
	back, err := decodeRoot(slices.Clone(good))
	if err != nil || !reflect.DeepEqual(back, s) {
		t.Fatalf("decoded %+v, %v", back, err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if _, err := decodeRoot(bad); err == nil {
			t.Errorf("byte %d was changed, and nobody saw", i)
		}
		if _, err := decodeRoot(good[:i:i]); err == nil {
			t.Errorf("cut to %d bytes, and nobody saw", i)
		}
	}
}

func TestPiecesAreCutWhereTheyShould(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := &bucket{}
	for range 2000 {
		var pieces []piece
		var all []byte
		for range rnd.IntN(6) {
			raw := make([]byte, 1+rnd.IntN(9))
			p := piece{n: len(raw)}
			if rnd.IntN(3) > 0 {
				for i := range raw {
					raw[i] = byte(1 + rnd.IntN(255))
				}
				p.raw = raw
			}
			pieces, all = append(pieces, p), append(all, raw...)
		}
		from := rnd.IntN(len(all) + 1)
		to := from + rnd.IntN(len(all)-from+1)
		got := make([]byte, to-from)
		if err := b.read(t.Context(), cut(pieces, from, to), got, 0); err != nil || !bytes.Equal(got, all[from:to]) {
			t.Fatalf("cut %v from %d to %d: %x, want %x; %v", pieces, from, to, got, all[from:to], err)
		}
		if err := b.read(t.Context(), pieces, got, from); err != nil || !bytes.Equal(got, all[from:to]) {
			t.Fatalf("read %v from %d to %d: %x, want %x; %v", pieces, from, to, got, all[from:to], err)
		}
	}
}
