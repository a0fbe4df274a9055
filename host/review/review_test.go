package review

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// in runs f on a private file system, and commits.
func in(t *testing.T, s store.Store, f func(fs store.FS)) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx store.Tx) error { f(tx.Private()); return nil }); err != nil {
		t.Fatal(err)
	}
}

func sample(n byte, caller peer.ID) *Held {
	return &Held{
		Script: script.ID{n}, Caller: caller, Key: store.Key{n, 1}, Expires: time.UnixMilli(1_800_000_000_000 + int64(n)).UTC(),
		Sealed: []byte("sealed"), Transport: "mail", Would: []byte("would"), Outcome: Outcome{script.Digest{2}, script.Digest{3}},
		Answers: map[script.Digest][]byte{{4}: []byte("four"), {5}: []byte("five")},
	}
}

// What is put is found again, by its digest, and by no other; and is gone when it is
// removed.
func TestPutOpenRemove(t *testing.T) {
	s := mem.New(mem.Config{})
	want := sample(7, "alice")
	var kept script.Digest
	in(t, s, func(fs store.FS) {
		if items, err := List(fs); err != nil || items != nil {
			t.Errorf("at first there is %v, %v", items, err)
		}
		var err error
		if kept, err = Put(t.Context(), fs, want, Limits{}); err != nil {
			t.Fatal(err)
		}
	})
	in(t, s, func(fs store.FS) {
		i, ok, err := Find(fs, want.Script)
		if err != nil || !ok || i.Key != want.Key || !i.Expires.Equal(want.Expires) {
			t.Fatalf("%+v, %v, %v", i, ok, err)
		}
		got, err := i.Open(t.Context(), fs, kept)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := i.Open(t.Context(), fs, script.Digest{1}); !errors.Is(err, ErrDamaged) {
			t.Errorf("by another digest: %v", err)
		}
		if _, ok, _ := Find(fs, script.ID{8}); ok {
			t.Error("another is found")
		}
		if err := i.Remove(fs); err != nil {
			t.Fatal(err)
		}
		if items, err := List(fs); err != nil || len(items) != 0 {
			t.Errorf("then there is %v, %v", items, err)
		}
		if err := i.Remove(fs); err != nil {
			t.Errorf("removed twice: %v", err)
		}
		if _, err := i.Open(t.Context(), fs, kept); !errors.Is(err, ErrDamaged) {
			t.Errorf("when it is gone: %v", err)
		}
	})
}

// The digest in the receipt is salted: who guesses what is kept cannot check it.
func TestKeptTellsNothing(t *testing.T) {
	if h := sample(1, "alice"); bytes.Equal(h.encode(), h.encode()) {
		t.Error("the same is written twice in the same way")
	}
}

func TestRoom(t *testing.T) {
	size := int64(len(sample(0, "alice").encode()))
	for _, c := range []struct {
		name   string
		limits Limits
		own    bool // of the error for the third of alice's, after one of bob's
	}{
		{"scripts of one", Limits{PerCaller: 2}, true},
		{"bytes of one", Limits{CallerBytes: 3*size - 1}, true},
		{"scripts of all", Limits{Scripts: 3}, false},
		{"bytes of all", Limits{Bytes: 4*size - 1}, false},
	} {
		s := mem.New(mem.Config{})
		in(t, s, func(fs store.FS) {
			for n, caller := range []peer.ID{"alice", "olive", "alice"} {
				if _, err := Put(t.Context(), fs, sample(byte(n), caller), c.limits); err != nil {
					t.Fatalf("%s: %d: %v", c.name, n, err)
				}
			}
			var full *FullError
			if _, err := Put(t.Context(), fs, sample(9, "alice"), c.limits); !errors.As(err, &full) || full.Own != c.own {
				t.Errorf("%s: %v", c.name, err)
			}
			if err := Room(fs, "alice", size, c.limits); !errors.As(err, &full) {
				t.Errorf("%s: there is room, says Room", c.name)
			}
			if items, _ := List(fs); len(items) != 3 {
				t.Errorf("%s: %d wait", c.name, len(items))
			}
		})
	}
}

// What somebody else has put there is no item; it is in the way of none either.
func TestListOfOthersFiles(t *testing.T) {
	s := mem.New(mem.Config{})
	zero := strings.Repeat("0", 64)
	in(t, s, func(fs store.FS) {
		if err := fs.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{
			"x", zero, zero + "." + zero, fmt.Sprintf("%s.%s.a.0.1", zero, zero), fmt.Sprintf("%s.%s.a.-5.1", zero, zero),
			fmt.Sprintf("%s.%s.a.1.-1", zero, zero), fmt.Sprintf("%s.%s.a.01.1", zero, zero), fmt.Sprintf("%s.%s.a.1.1.", zero, zero),
			fmt.Sprintf("%s.%s.a.1.99999999999999999999", zero, zero), strings.ToUpper("a") + zero[1:] + "." + zero + ".a.1.1",
		} {
			f, err := fs.Open(dir+"/"+name, store.FlagWrite|store.FlagCreate)
			if err != nil {
				t.Fatal(name, err)
			}
			f.Close()
		}
		if err := fs.Mkdir(fmt.Sprintf("%s/%s.%s.a.1.1", dir, zero, zero)); err != nil {
			t.Fatal(err)
		}
		if items, err := List(fs); err != nil || len(items) != 0 {
			t.Errorf("%v, %v", items, err)
		}
		if _, err := Put(t.Context(), fs, sample(1, "alice"), Limits{}); err != nil {
			t.Error(err)
		}
		// A name that says another length than the file has.
		i, _, _ := Find(fs, script.ID{1})
		i.bytes++
		if err := fs.Rename(dir+"/"+i.name, dir+"/"+i.format()); err != nil {
			t.Fatal(err)
		}
		i, _, _ = Find(fs, script.ID{1})
		if _, err := i.Open(t.Context(), fs, script.Digest{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("longer by its name: %v", err)
		}
	})
	in(t, mem.New(mem.Config{}), func(fs store.FS) { // a file in the directory's place
		f, err := fs.Open(dir, store.FlagWrite|store.FlagCreate)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if items, err := List(fs); err != nil || items != nil {
			t.Errorf("%v, %v", items, err)
		}
		if _, err := Put(t.Context(), fs, sample(1, "alice"), Limits{}); err == nil {
			t.Error("put below a file")
		}
	})
}

// FuzzHeld holds that no bytes make decode panic or take more than they are long.
func FuzzHeld(f *testing.F) {
	f.Add(sample(1, "alice").encode())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(h.encode())
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}

// What the caller's host answered when the script was held it is answered again, to
// the same question, and not to another; and nobody is asked.
func TestAnswers(t *testing.T) {
	alice, host := newKey(t), newKey(t)
	asked := 0
	r := Record(func(_ context.Context, sealed []byte) ([]byte, error) {
		asked++
		q, _, err := envelope.OpenQuestion(sealed, "")
		if err != nil {
			return nil, err
		}
		return envelope.SealAnswer(script.Answer{Op: q.Op, Data: []byte(q.Path)}, q, alice)
	})
	question := func(seq uint64, path string) (script.Question, []byte) {
		q := script.Question{Script: script.ID{1}, Seq: seq, Op: script.AskRead, Path: path, Length: 10}
		sealed, err := envelope.SealQuestion(q, host)
		if err != nil {
			t.Fatal(err)
		}
		return q, sealed
	}
	for seq, path := range []string{"/a", "/b"} {
		_, sealed := question(uint64(seq+1), path)
		if _, err := r.Back()(t.Context(), sealed); err != nil {
			t.Fatal(err)
		}
	}
	h := &Held{Answers: r.Answers()}
	q, sealed := question(2, "/b")
	answer, err := h.Back()(t.Context(), sealed)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := envelope.OpenAnswer(answer, alice.ID(), q); err != nil || string(a.Data) != "/b" {
		t.Errorf("%+v, %v", a, err)
	}
	for _, other := range []struct {
		seq  uint64
		path string
	}{{1, "/b"}, {3, "/b"}, {2, "/c"}} {
		_, sealed := question(other.seq, other.path)
		if _, err := h.Back()(t.Context(), sealed); !errors.Is(err, errNotAsked) {
			t.Errorf("%+v: %v", other, err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	if _, err := h.Back()(t.Context(), []byte("no question")); err == nil {
		t.Error("what is no question is answered")
	}
	if Record(nil).Back() != nil {
		t.Error("there is a way back where there was none")
	}
	big := Record(func(context.Context, []byte) ([]byte, error) { return make([]byte, maxAnswered), nil })
	_, first := question(1, "/a")
	if _, err := big.Back()(t.Context(), first); err != nil {
		t.Error(err)
	}
	_, second := question(2, "/a")
	if _, err := big.Back()(t.Context(), second); !errors.Is(err, errTooMuch) {
		t.Errorf("more than is kept: %v", err)
	}
}

func newKey(t *testing.T) *peer.Key {
	t.Helper()
	k, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}
