package module_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

func seeded(t testing.TB, seed byte) *peer.Key {
	t.Helper()
	key, err := peer.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signed(t testing.TB, wasm []byte, key *peer.Key) []byte {
	t.Helper()
	b, err := module.Sign(wasm, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func publisher(wasm []byte) (peer.ID, error) { return module.Publisher(wasm, sha256.Sum256(wasm)) }

// section is a custom section.
func section(name string, content []byte) []byte {
	b := append(binary.AppendUvarint(nil, uint64(len(name))), name...)
	b = append(b, content...)
	return append(binary.AppendUvarint([]byte{0}, uint64(len(b))), b...)
}

func TestPublisher(t *testing.T) {
	alice, bob := seeded(t, 1), seeded(t, 2)
	plain := says("hello")
	if by, err := publisher(plain); by != "" || err != nil {
		t.Fatalf("unsigned: %q, %v", by, err)
	}
	byAlice := signed(t, plain, alice)
	for range 2 { // the second time it is remembered
		if by, err := publisher(byAlice); by != alice.ID() || err != nil {
			t.Fatalf("%q, %v", by, err)
		}
	}
	if byBob := signed(t, byAlice, bob); !bytes.Equal(byBob, signed(t, plain, bob)) {
		t.Error("a signature is not put in place of the one before")
	} else if by, err := publisher(byBob); by != bob.ID() || err != nil {
		t.Errorf("%q, %v", by, err)
	}

	// In a layer, carried, and when it is opened again on what the cache knows.
	cache, dir := t.TempDir(), t.TempDir()
	if err := os.Chmod(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	add(t, dir, "m", byAlice)
	add(t, dir, "plain", plain)
	old(t, filepath.Join(dir, "m.wasm"), filepath.Join(dir, "plain.wasm"))
	for range 2 {
		e, l := start(t, cache, dir)
		for _, c := range []struct {
			logic script.Logic
			by    peer.ID
		}{
			{script.Logic{Name: "m"}, alice.ID()},
			{script.Logic{Digest: sha256.Sum256(byAlice)}, alice.ID()},
			{script.Logic{Name: "plain"}, ""},
			{script.Logic{Wasm: byAlice}, alice.ID()},
			{script.Logic{Wasm: plain}, ""},
		} {
			f, err := module.Find(c.logic, l)
			if err != nil {
				t.Fatal(err)
			}
			if f.Publisher != c.by {
				t.Errorf("publisher is %q, want %q", f.Publisher, c.by)
			}
			f.Release()
		}
		if got, err := answer(t, e, script.Logic{Name: "m"}, l); got != "hello" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		l.Close()
	}
}

func TestForgedPublisher(t *testing.T) {
	alice := seeded(t, 1)
	plain := says("hello")
	good := signed(t, plain, alice)
	of := func(sealed []byte) []byte {
		return append(bytes.Clone(plain), section(module.PublisherSection, sealed)...)
	}
	seal := envelope.SealPublished(sha256.Sum256(plain), alice)
	receipt, err := envelope.SealReceipt(script.Receipt{}, alice)
	if err != nil {
		receipt = nil // it is refused as empty, too
	}
	if !bytes.Equal(of(seal), good) {
		t.Fatal("the test makes other sections than Sign")
	}
	padded := append(bytes.Clone(plain), 0)
	body := section(module.PublisherSection, seal)[3:]
	padded = append(padded, byte(len(body))|0x80, byte(len(body)>>7)|0x80, 0)
	padded = append(padded, body...)
	claims := bytes.Replace(seal, []byte(alice.ID()), []byte(seeded(t, 2).ID()), 1)
	cases := map[string][]byte{
		"of other bytes":       append(says("other"), good[len(plain):]...),
		"somebody else's":      of(claims),
		"twice":                append(bytes.Clone(good), section(module.PublisherSection, seal)...),
		"signed over twice":    append(bytes.Clone(good), section(module.PublisherSection, envelope.SealPublished(sha256.Sum256(good), alice))...),
		"not last":             append(bytes.Clone(good), section("name", nil)...),
		"not in one form":      padded,
		"nothing":              of(nil),
		"huge":                 of(make([]byte, 1<<20)),
		"huge around it":       of(append(bytes.Clone(seal), make([]byte, 1<<20)...)),
		"one byte more":        of(append(bytes.Clone(seal), 0)),
		"of another type":      of(receipt),
		"a did:key":            of([]byte(alice.ID())),
		"of the signed module": of(envelope.SealPublished(sha256.Sum256(good), alice)),
	}
	for i := range good[len(plain):] {
		b := bytes.Clone(good)
		b[len(plain)+i] ^= 1
		if i < 4+len(module.PublisherSection) {
			// Another section, of another name, or none: then nobody has signed it.
			if by, err := publisher(b); by != "" {
				t.Errorf("byte %d of the section is changed: %q, %v", i, by, err)
			}
		} else {
			cases[fmt.Sprintf("byte %d of the section changed", i)] = b
		}
	}
	for i := 8; i < len(plain); i++ {
		b := bytes.Clone(good)
		b[i] ^= 1
		if by, _ := publisher(b); by != "" {
			t.Errorf("byte %d of the code is changed, and it is %s's", i, by)
		}
	}
	e := newEngine(t)
	dir := t.TempDir()
	n := 0
	for name, wasm := range cases {
		if by, err := publisher(wasm); by != "" || !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("%s: %q, %v", name, by, err)
		}
		if f, err := module.Find(script.Logic{Wasm: wasm}); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("%s: carried it is found: %v, %v", name, f, err)
		}
		if len(wasm) > 1<<20 || n < 20 {
			add(t, dir, fmt.Sprintf("m%d", n), wasm)
			n++
		}
	}
	l := module.Open(t.Context(), "host", dir, e, nil, nil)
	defer l.Close()
	if list := l.List(); len(list) != 0 || l.Problem() == nil {
		t.Errorf("%d are in force: %v", len(list), l.Problem())
	}
}

// What the cache says decides which policy lets a module in, so that it is looked
// at again before the module runs.
func TestCacheIsNotBelievedAboutPublishers(t *testing.T) {
	cache, dir := t.TempDir(), t.TempDir()
	if err := os.Chmod(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	alice, bob := seeded(t, 1), seeded(t, 2)
	add(t, dir, "m", signed(t, says("hello"), alice))
	old(t, filepath.Join(dir, "m.wasm"))
	_, l := start(t, cache, dir)
	l.Close()
	files, err := filepath.Glob(filepath.Join(cache, "layers", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := bytes.Cut(text, []byte("\n"))
	forged := bytes.Replace(body, []byte(alice.ID()), []byte(bob.ID()), 1)
	if bytes.Equal(forged, body) {
		t.Fatal("the cache does not name the publisher")
	}
	head = fmt.Appendf(head[:len(head)-64], "%x\n", sha256.Sum256(forged))
	if err := os.WriteFile(files[0], append(head, forged...), 0o600); err != nil {
		t.Fatal(err)
	}
	e, l := start(t, cache, dir)
	f, err := module.Find(script.Logic{Name: "m"}, l)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if f.Publisher != bob.ID() {
		t.Fatalf("the cache was not read: %q", f.Publisher)
	}
	if _, err := f.Program(t.Context(), e); err == nil {
		t.Error("what was accepted as bob's runs, and is alice's")
	}
}

func FuzzPublisher(f *testing.F) {
	alice := seeded(f, 1)
	plain := says("x")
	good := signed(f, plain, alice)
	f.Add(plain)
	f.Add(good)
	f.Add(append(bytes.Clone(good), section("name", nil)...))
	f.Add(section(module.PublisherSection, nil))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		by, err := publisher(wasm)
		if err != nil {
			if by != "" || !errors.Is(err, engine.ErrInvalid) {
				t.Fatalf("%q, %v", by, err)
			}
			return
		}
		if by == alice.ID() && !bytes.Equal(wasm, good) {
			t.Fatal("alice has signed what she has not")
		}
		again, err := module.Sign(wasm, alice)
		if err != nil {
			t.Fatal(err)
		}
		if by, err := publisher(again); by != alice.ID() || err != nil {
			t.Fatalf("signed: %q, %v", by, err)
		}
	})
}
