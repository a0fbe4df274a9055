package store_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
)

func FuzzEntry(f *testing.F) {
	seed := store.Entry{Seq: 7, Prev: [32]byte{1}, Key: store.Key{2}, Time: time.Unix(-5, 6), Data: []byte("data")}
	enc, _ := seed.AppendBinary(nil)
	f.Add(enc)
	f.Add(enc[:84])
	f.Add(enc[:83])
	f.Fuzz(func(t *testing.T, b []byte) {
		var e store.Entry
		if e.UnmarshalBinary(b) != nil {
			return
		}
		again, err := e.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to %+v, which is %x", b, e, again)
		}
	})
}

// TestEntryHash: no two entries hash alike, whichever field differs, and the
// hash is that of the format, not of this build.
func TestEntryHash(t *testing.T) {
	base := store.Entry{Seq: 1, Time: time.Unix(1, 2), Data: []byte("ab")}
	seen := map[[32]byte]int{}
	for i, e := range []store.Entry{
		base,
		{Seq: 2, Time: base.Time, Data: base.Data},
		{Seq: 1, Prev: [32]byte{31: 1}, Time: base.Time, Data: base.Data},
		{Seq: 1, Time: time.Unix(1, 3), Data: base.Data},
		{Seq: 1, Time: time.Unix(2, 2), Data: base.Data},
		{Seq: 1, Time: base.Time, Key: store.Key{1}, Data: base.Data},
		{Seq: 1, Time: base.Time, Data: []byte("abc")},
		{Seq: 1, Time: base.Time},
	} {
		if j, dup := seen[e.Hash()]; dup {
			t.Errorf("entries %d and %d hash alike", i, j)
		}
		seen[e.Hash()] = i
	}
	const format = "3d5da29149174773101f047a95a6c9a249408f9165af6e39051179fc71d4b480"
	if got := fmt.Sprintf("%x", base.Hash()); got != format {
		t.Errorf("hash %s, want %s: logs written before would no longer verify", got, format)
	}
	if base.Hash() != (store.Entry{Seq: 1, Time: time.Unix(1, 2).UTC(), Data: []byte("ab")}).Hash() {
		t.Error("the time zone changes the hash")
	}
}
