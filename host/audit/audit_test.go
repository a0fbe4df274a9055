package audit_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/audit"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// The people of these tests, by the seeds of their keys: alice sent scripts to bob,
// whose context host keeps.
const (
	alice = 1
	bob   = 2
	host  = 3
	carol = 4
)

func key(t testing.TB, seed byte) *peer.Key {
	t.Helper()
	k, err := peer.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// written is a log of n entries as a store made it; another history differs from the
// entry on that is given.
func written(t testing.TB, n int, from ...int) (log []store.Entry) {
	t.Helper()
	s := mem.New(mem.Config{})
	defer s.Close()
	for i := range n {
		r := script.Receipt{
			Script: script.ID{byte(i + 1)}, Caller: key(t, alice).ID(), Target: key(t, bob).ID(), Host: key(t, host).ID(), Code: script.Done,
		}
		if len(from) > 0 && i+1 >= from[0] {
			r.Message = "another"
		}
		sealed, err := envelope.SealReceipt(r, key(t, host))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Update(context.Background(), func(tx store.Tx) error { return tx.Append(store.Key{byte(i + 1)}, sealed) }); err != nil {
			t.Fatal(err)
		}
	}
	for e, err := range s.Log(context.Background(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, e)
	}
	return log
}

// rechained is what somebody without the host's key can make of entries: numbers,
// times and hashes that fit.
func rechained(log []store.Entry) []store.Entry {
	log = slices.Clone(log)
	var prev [32]byte
	for i := range log {
		log[i].Seq, log[i].Prev = uint64(i+1), prev
		prev = log[i].Hash()
	}
	return log
}

func read(t testing.TB, log []store.Entry, seen *audit.Witness) error {
	t.Helper()
	r := audit.Reader{Context: key(t, bob).ID(), Name: "bob", Signers: []peer.ID{key(t, host).ID()}}
	for _, e := range log {
		if _, err := r.Next(e); err != nil {
			return err
		}
		if seen != nil {
			seen.See(e)
		}
	}
	return nil
}

// What the chain alone shows: an entry that was removed, altered, moved, doubled or
// put in. That entries were taken from the end, it does not.
func TestTamperedLogs(t *testing.T) {
	log := written(t, 5)
	if err := read(t, log, nil); err != nil {
		t.Fatal(err)
	}
	for i := range log {
		var damage []struct {
			what string
			log  []store.Entry
		}
		add := func(what string, l []store.Entry) {
			damage = append(damage, struct {
				what string
				log  []store.Entry
			}{what, l})
		}
		last := i == len(log)-1
		if !last {
			add("removed", slices.Delete(slices.Clone(log), i, i+1))
			moved := slices.Clone(log)
			moved[i], moved[i+1] = moved[i+1], moved[i]
			add("moved", moved)
			add("doubled", slices.Insert(slices.Clone(log), i, log[i]))
			for name, change := range map[string]func(*store.Entry){
				"its time changed": func(e *store.Entry) { e.Time = e.Time.Add(time.Nanosecond) },
				"its key changed":  func(e *store.Entry) { e.Key[0] ^= 0x80 },
				"another receipt":  func(e *store.Entry) { e.Data = written(t, 5, 1)[i].Data },
			} {
				other := slices.Clone(log)
				change(&other[i])
				add(name, other)
			}
		}
		for n := i; n < len(log[i].Data); n += len(log) { // all entries together, each byte
			other := slices.Clone(log)
			other[i].Data = bytes.Clone(other[i].Data)
			other[i].Data[n] ^= 1 << (n % 8)
			add("a byte of its receipt changed", other)
			if n%3 == 0 {
				add("a byte of its receipt changed, and the chain made to fit", rechained(other))
			}
		}
		for n := range log[i].Prev {
			other := slices.Clone(log)
			other[i].Prev[n] ^= 1
			add("a byte of the hash before it changed", other)
		}
		other := slices.Clone(log)
		other[i].Seq += 10
		add("its number changed", other)
		stranger := slices.Clone(log)
		sealed, err := envelope.SealReceipt(script.Receipt{Script: script.ID{9}, Caller: key(t, alice).ID(), Target: key(t, bob).ID(), Host: key(t, carol).ID(), Code: script.Done}, key(t, carol))
		if err != nil {
			t.Fatal(err)
		}
		stranger[i].Data = sealed
		add("a receipt of another host in its place", rechained(stranger))
		for _, d := range damage {
			if err := read(t, d.log, nil); err == nil {
				t.Errorf("entry %d, %s: nothing shows", i+1, d.what)
			}
		}
	}
	if err := read(t, log[:3], nil); err != nil {
		t.Errorf("truncated: %v", err)
	}
}

// heads writes heads of a log into dir, as seed signs them.
func heads(t testing.TB, dir string, log []store.Entry, seed byte, seqs ...int) (files []string) {
	t.Helper()
	for _, seq := range seqs {
		e := log[seq-1]
		sealed, err := envelope.SealHead(script.Head{Context: key(t, bob).ID(), Host: key(t, host).ID(), Seq: e.Seq, Hash: e.Hash(), Time: e.Time}, key(t, seed))
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.CreateTemp(dir, "head")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(envelope.Text(envelope.HeadText, sealed)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		files = append(files, f.Name())
	}
	return files
}

// A host with its own key can make the chain fit, whatever it does. What others have
// seen shows it all the same: entries that are gone from the end, replaced, taken out,
// or of another history.
func TestRewrittenByItsHost(t *testing.T) {
	log := written(t, 6)
	dir := t.TempDir()
	heads(t, dir, log, host, 2, 5)
	heads(t, dir, log, alice, 5)
	if err := os.WriteFile(filepath.Join(dir, "kept-3"), log[2].Data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		log  []store.Entry
		want []string // of each contradiction, in order
	}{
		{"as it was", log, nil},
		{"longer", append(slices.Clone(log), extended(t, log)), nil},
		{"cut after the head", log[:5], nil},
		{"cut before it", log[:4], []string{"the log ends at entry 4, and entry 5 was there: ", "entry 5 was there"}},
		{"cut before all", log[:1], []string{"entry 2 was there", "entry 5 was there", "entry 5 was there", "the receipt of script 030000000000, which was done, is not in the log"}},
		{"empty", nil, []string{"ends at entry 0, and entry 2", "entry 5", "entry 5", "receipt of script"}},
		{"another entry 4", rechained(slices.Concat(log[:3], written(t, 6, 4)[3:])), []string{"entry 5 is not what it was", "entry 5 is not what it was"}},
		{"entry 3 taken out", rechained(slices.Delete(slices.Clone(log), 2, 3)), []string{"entry 5 is not", "entry 5 is not", "the receipt of script 030000000000"}},
		{"entries 3 and 4 in another order", rechained([]store.Entry{log[0], log[1], log[3], log[2], log[4], log[5]}), []string{"entry 5 is not", "entry 5 is not"}},
		{"another history from 1 on", written(t, 6, 1), []string{"entry 2 is not", "entry 5 is not", "entry 5 is not", "the receipt of script"}},
		{"another time of entry 1", rechained(func() []store.Entry {
			l := slices.Clone(log)
			l[0].Time = l[0].Time.Add(time.Hour)
			return l
		}()), []string{"entry 2 is not", "entry 5 is not", "entry 5 is not"}},
	} {
		seen, err := audit.Read(dir, key(t, bob).ID())
		if err != nil {
			t.Fatal(err)
		}
		if err := read(t, test.log, seen); err != nil {
			t.Fatalf("%s: the chain does not fit: %v", test.name, err)
		}
		got := seen.Contradictions()
		if len(got) != len(test.want) {
			t.Errorf("%s: %v", test.name, got)
			continue
		}
		for i, err := range got {
			var c *audit.Contradiction
			if !errors.As(err, &c) || !strings.Contains(err.Error(), test.want[i]) {
				t.Errorf("%s: %v, want %q", test.name, err, test.want[i])
			}
		}
	}
	// What is about another's log says nothing of this one.
	seen, err := audit.Read(dir, key(t, carol).ID())
	if err != nil {
		t.Fatal(err)
	}
	if got := seen.Contradictions(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func extended(t testing.TB, log []store.Entry) store.Entry {
	t.Helper()
	last := log[len(log)-1]
	return store.Entry{Seq: last.Seq + 1, Prev: last.Hash(), Time: last.Time, Key: store.Key{99}, Data: log[0].Data}
}

// A receipt of a script that did not run need not be in the log: hosts do not log
// every refusal.
func TestRefusalsNeedNotBeThere(t *testing.T) {
	dir := t.TempDir()
	sealed, err := envelope.SealReceipt(script.Receipt{Script: script.ID{9}, Caller: key(t, alice).ID(), Target: key(t, bob).ID(), Host: key(t, host).ID(), Code: script.Refused}, key(t, host))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "refused"), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := audit.Read(dir, key(t, bob).ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := read(t, written(t, 2), seen); err != nil || len(seen.Contradictions()) != 0 {
		t.Errorf("%v, %v", err, seen.Contradictions())
	}
}

// Who countersigns sees whether the host shows another history than it did before,
// to them or to a friend; no log is needed for that.
func TestCountersign(t *testing.T) {
	log, other := written(t, 4), written(t, 4, 3)
	from, dir := t.TempDir(), filepath.Join(t.TempDir(), "seen")
	first := heads(t, from, log, host, 2, 4)
	sign := func(file string, seed byte, must peer.ID) (string, error) {
		h, err := audit.ReadHead(file)
		if err != nil {
			t.Fatal(err)
		}
		return audit.Countersign(h, key(t, seed), must, dir)
	}
	for _, file := range first {
		if _, err := sign(file, alice, key(t, host).ID()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sign(first[1], alice, ""); err != nil {
		t.Errorf("again: %v", err)
	}
	file, err := sign(first[1], carol, "")
	if err != nil {
		t.Fatal(err)
	}
	if h, err := audit.ReadHead(file); err != nil || h.Signer != key(t, carol).ID() || h.Hash != log[3].Hash() {
		t.Errorf("%+v, %v", h, err)
	}
	var c *audit.Contradiction
	for _, seed := range []byte{alice, carol} {
		if _, err := sign(heads(t, from, other, host, 4)[0], seed, ""); !errors.As(err, &c) || !strings.Contains(err.Error(), "there are two logs: entry 4") {
			t.Errorf("another history: %v", err)
		}
	}
	if _, err := sign(heads(t, from, log, carol, 2)[0], alice, ""); err == nil || !strings.Contains(err.Error(), "and not the host") {
		t.Errorf("a head that the host did not sign: %v", err)
	}
	if _, err := sign(first[0], alice, key(t, carol).ID()); err == nil || !strings.Contains(err.Error(), "held by") {
		t.Errorf("a head of another host: %v", err)
	}
	seen, err := audit.Read(dir, key(t, bob).ID())
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := seen.Len(); n != 5 {
		t.Errorf("%d heads are kept", n)
	}
	if err := read(t, log, seen); err != nil || len(seen.Contradictions()) != 0 {
		t.Errorf("%v, %v", err, seen.Contradictions())
	}
}

// Whatever lies in a directory of evidence: nothing of it is taken for what it is not,
// or passed over.
func TestOddEvidence(t *testing.T) {
	log := written(t, 1)
	for name, put := range map[string]func(path string) error{
		"neither head nor receipt": func(p string) error { return os.WriteFile(p, []byte("hello"), 0o600) },
		"half a head":              func(p string) error { return os.WriteFile(p, []byte(envelope.HeadText), 0o600) },
		"a directory":              func(p string) error { return os.Mkdir(p, 0o700) },
		"a device":                 func(p string) error { return os.Symlink("/dev/zero", p) },
		"a changed head": func(p string) error {
			b, err := os.ReadFile(heads(t, t.TempDir(), log, host, 1)[0])
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return os.WriteFile(p, b, 0o600)
		},
		"a changed receipt": func(p string) error {
			b := bytes.Clone(log[0].Data)
			b[20] ^= 1
			return os.WriteFile(p, b, 0o600)
		},
	} {
		dir := t.TempDir()
		if err := put(filepath.Join(dir, "x")); err != nil {
			t.Fatal(err)
		}
		if _, err := audit.Read(dir, key(t, bob).ID()); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "x")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := audit.Read(filepath.Join(t.TempDir(), "none"), key(t, bob).ID()); err == nil {
		t.Error("a directory that is not there says nothing is wrong")
	}
}
