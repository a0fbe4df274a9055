package envelope

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"math/big"
	"math/bits"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/script/scriptpb"
)

func key(t testing.TB, seed byte) *peer.Key {
	t.Helper()
	if k, ok := keys.Load(seed); ok {
		return k.(*peer.Key)
	}
	k, err := peer.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	keys.Store(seed, k)
	return k
}

var keys sync.Map // by seed: to make one takes longer than most of what is done with it

// log is what a host remembers, in memory: who is held, and answers by nonce.
type log struct {
	held     []peer.ID
	receipts map[script.Nonce]receipt
	err      error
	asked    int
}

type receipt struct {
	id     script.ID
	sealed []byte
}

func (l *log) Holds(id peer.ID) bool { return slices.Contains(l.held, id) }

func (l *log) Prior(_ context.Context, _, _, _ peer.ID, nonce script.Nonce) (script.ID, []byte, bool, error) {
	l.asked++
	r, ok := l.receipts[nonce]
	return r.id, r.sealed, ok, l.err
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func sample(t testing.TB) script.Script {
	return script.Script{
		Target: key(t, 2).ID(), Nonce: script.Nonce{1}, NotBefore: noon, Deadline: noon.Add(time.Minute),
		Logic: script.Logic{Name: "guestbook"}, Entry: "sign", Params: []byte("hi"),
	}
}

func sealed(t testing.TB, s script.Script, k *peer.Key) []byte {
	t.Helper()
	b, _, err := SealScript(s, k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func bobs(t testing.TB) *log { return &log{held: []peer.ID{key(t, 2).ID()}} }

func TestSealOpen(t *testing.T) {
	alice := key(t, 1)
	s := sample(t)
	b, id, err := SealScript(s, alice)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(t.Context(), b, noon, bobs(t))
	if err != nil {
		t.Fatal(err)
	}
	s.Caller = alice.ID()
	if !reflect.DeepEqual(*v.Script(), s) || v.ID() != id || v.Prior() != nil {
		t.Errorf("%+v became %+v", s, v.Script())
	}
	// What was verified is a copy: the bytes that came may be used again.
	clear(b)
	if !reflect.DeepEqual(*v.Script(), s) {
		t.Error("a verified script changes with the bytes that it came in")
	}
}

func TestSealScriptFillsIn(t *testing.T) {
	alice := key(t, 1)
	s := script.Script{Target: key(t, 2).ID(), Logic: script.Logic{Name: "guestbook"}}
	one, _, err := SealScript(s, alice)
	if err != nil {
		t.Fatal(err)
	}
	two := sealed(t, s, alice)
	v1, err := Open(t.Context(), one, time.Now(), bobs(t))
	if err != nil {
		t.Fatal(err)
	}
	v2, err := Open(t.Context(), two, time.Now(), bobs(t))
	if err != nil {
		t.Fatal(err)
	}
	if v1.Script().Nonce == v2.Script().Nonce || v1.ID() == v2.ID() {
		t.Error("two scripts with one nonce")
	}
	if got := v1.Script(); got.Caller != alice.ID() || got.Deadline.Sub(got.NotBefore) != DefaultLifetime {
		t.Errorf("%+v", got)
	}
	if p, err := split(one); err != nil || len(one)-len(p.payload) > overhead-64 {
		t.Errorf("an envelope adds %d bytes", len(one)-len(p.payload))
	}
	s.Caller = key(t, 3).ID()
	if _, _, err := SealScript(s, alice); err == nil || !strings.Contains(err.Error(), "caller's key") {
		t.Errorf("sealed with another's key: %v", err)
	}
	s.Caller, s.Deadline = "", noon.AddDate(-10, 0, 0)
	if _, _, err := SealScript(s, alice); err == nil {
		t.Error("sealed after its deadline")
	}
	s.Deadline, s.Logic = time.Time{}, script.Logic{Wasm: make([]byte, script.MaxSealed)}
	if _, _, err := SealScript(s, alice); KindOf(err) != TooLarge {
		t.Errorf("sealed what nobody takes: %v", err)
	}
}

// opener opens one kind of envelope.
type opener struct {
	name   string
	sealed []byte
	open   func([]byte) error
}

func openers(t testing.TB) []opener {
	t.Helper()
	alice, bob, host := key(t, 1), key(t, 2), key(t, 3)
	r, err := SealReceipt(script.Receipt{Script: script.ID{1}, Caller: alice.ID(), Target: bob.ID(), Host: host.ID(), Code: script.Done}, host)
	if err != nil {
		t.Fatal(err)
	}
	question := script.Question{Script: script.ID{1}, Seq: 1, Op: script.AskRead, Path: "/a", Length: 10}
	q, err := SealQuestion(question, host)
	if err != nil {
		t.Fatal(err)
	}
	a, err := SealAnswer(script.Answer{Op: script.AskRead, Data: []byte("hi")}, question, alice)
	if err != nil {
		t.Fatal(err)
	}
	known := bobs(t)
	delegation := chain(t, 1)[0]
	revocation, err := SealRevocation(script.Digest{1}, alice)
	if err != nil {
		t.Fatal(err)
	}
	head, err := SealHead(script.Head{Context: bob.ID(), Host: host.ID(), Seq: 1, Hash: script.Digest{2}, Time: noon}, host)
	if err != nil {
		t.Fatal(err)
	}
	return []opener{
		{"delegation", delegation, func(b []byte) error { _, err := OpenChain([][]byte{b}); return err }},
		{"revocation", revocation, func(b []byte) error { _, err := OpenRevocation(b); return err }},
		{"head", head, func(b []byte) error { _, _, err := OpenHead(b); return err }},
		{"publication", SealPublished(script.Digest{3}, alice), func(b []byte) error { _, err := OpenPublished(b, script.Digest{3}); return err }},
		{"script", sealed(t, sample(t), alice), func(b []byte) error {
			_, err := Open(context.Background(), b, noon, known)
			return err
		}},
		{"receipt", r, func(b []byte) error { _, _, err := OpenReceipt(b, ""); return err }},
		{"question", q, func(b []byte) error { _, _, err := OpenQuestion(b, ""); return err }},
		{"answer", a, func(b []byte) error { _, err := OpenAnswer(b, alice.ID(), question); return err }},
	}
}

// Each byte changed is an error: to each other value in lengths, types and names,
// which a signature over the payload alone would not hold, and in each bit of
// payload and signature, where each try costs a verification.
func TestEverySingleByteChangeIsRefused(t *testing.T) {
	for _, o := range openers(t) {
		if err := o.open(o.sealed); err != nil {
			t.Fatal(o.name, err)
		}
		// What kind it is makes no difference: of some, each bit of each byte, or one.
		one := o.name == "delegation" || o.name == "revocation" || o.name == "head" || o.name == "publication"
		whole := slices.Clone(o.sealed)
		for i, was := range whole {
			for by := 1; by < 256; by++ {
				several := bits.OnesCount8(uint8(by)) > 1
				if signed(whole, i) && (several || one && by != 1<<(i%8)) || one && several {
					continue
				}
				o.sealed[i] = was ^ byte(by)
				err := o.open(o.sealed)
				if err == nil {
					t.Fatalf("%s: byte %d changed from %#x to %#x is taken", o.name, i, was, o.sealed[i])
				}
				if k := KindOf(err); k != Malformed && k != Unauthenticated {
					t.Fatalf("%s: byte %d changed from %#x to %#x: %v", o.name, i, was, o.sealed[i], err)
				}
			}
			o.sealed[i] = was
		}
	}
}

// signed reports whether the byte at i is one of payload or signature.
func signed(sealed []byte, i int) bool {
	p, _ := split(sealed)
	payload := bytes.Index(sealed, p.payload)
	return i >= payload && i < payload+len(p.payload) || i >= len(sealed)-len(p.signature)
}

func TestTruncatedOrExtendedIsRefused(t *testing.T) {
	for _, o := range openers(t) {
		for n := range o.sealed {
			if err := o.open(o.sealed[:n]); KindOf(err) != Malformed {
				t.Fatalf("%s: the first %d bytes: %v", o.name, n, err)
			}
			if err := o.open(slices.Insert(slices.Clone(o.sealed), n, 0)); err == nil {
				t.Fatalf("%s: a byte put in at %d", o.name, n)
			}
			if err := o.open(slices.Delete(slices.Clone(o.sealed), n, n+1)); err == nil {
				t.Fatalf("%s: byte %d taken out", o.name, n)
			}
		}
		for _, tail := range [][]byte{{0}, {0x0a, 0}, {0x2a, 1, 'x'}, o.sealed} {
			if err := o.open(append(slices.Clone(o.sealed), tail...)); KindOf(err) != Malformed {
				t.Errorf("%s: with %d bytes more: %v", o.name, len(tail), err)
			}
		}
	}
}

// Nothing that was signed as one thing can be shown as another.
func TestOneKindIsNeverAnother(t *testing.T) {
	all := openers(t)
	for _, o := range all {
		for _, other := range all {
			if err := o.open(other.sealed); (err == nil) != (o.name == other.name) {
				t.Errorf("%s opened as %s: %v", other.name, o.name, err)
			}
		}
	}
}

func fields(b []byte) (f [][]byte) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		n += protowire.ConsumeFieldValue(num, typ, b[n:])
		f = append(f, b[:n])
		b = b[n:]
	}
	return f
}

// Every other way to write the same four fields.
func TestOtherSpellingsAreRefused(t *testing.T) {
	for _, o := range openers(t) {
		f := fields(o.sealed)
		if len(f) != 4 || !bytes.Equal(bytes.Join(f, nil), o.sealed) {
			t.Fatal("not four fields")
		}
		pad := func(i int) []byte { // the length as a varint that is one byte too long
			b := slices.Clone(f[i])
			_, n := protowire.ConsumeVarint(b[1:])
			b[n] |= 0x80
			return slices.Insert(b, n+1, 0)
		}
		padTag := func(i int) []byte { return append([]byte{f[i][0] | 0x80, 0}, f[i][1:]...) }
		group := append(append(protowire.AppendTag(nil, 1, protowire.StartGroupType), f[0]...), protowire.AppendTag(nil, 1, protowire.EndGroupType)...)
		for i, spelling := range [][][]byte{
			{f[1], f[0], f[2], f[3]}, {f[3], f[2], f[1], f[0]}, {f[0], f[1], f[3], f[2]},
			{f[0], f[0], f[1], f[2], f[3]}, {f[0], f[1], f[2], f[3], f[3]}, {f[0], f[1], f[2], f[3], f[0]},
			{f[0], f[1], f[2], f[3], {0x2a, 1, 'x'}}, {{0x2a, 1, 'x'}, f[0], f[1], f[2], f[3]},
			{f[0], f[1], {0x2a, 0}, f[2], f[3]}, {f[0], f[1], f[2], f[3], {0x28, 1}},
			{pad(0), f[1], f[2], f[3]}, {f[0], pad(1), f[2], f[3]}, {f[0], f[1], pad(2), f[3]}, {f[0], f[1], f[2], pad(3)},
			{padTag(0), f[1], f[2], f[3]}, {f[0], f[1], f[2], padTag(3)},
			{group, f[1], f[2], f[3]},
			{{0x0a, 0}, f[1], f[2], f[3]}, {f[0], f[1], f[2], {0x22, 0}}, {f[1], f[2], f[3]},
		} {
			if err := o.open(bytes.Join(spelling, nil)); KindOf(err) != Malformed {
				t.Errorf("%s: spelling %d: %v", o.name, i, err)
			}
		}
	}
}

// Ed25519 verifiers that do not reduce S take S + L too; a second signature for
// the same script would be a second sealed form of it.
func TestSignatureIsNotMalleable(t *testing.T) {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	alice := key(t, 1)
	b := sealed(t, sample(t), alice)
	p, err := split(b)
	if err != nil {
		t.Fatal(err)
	}
	s := slices.Clone(p.signature[32:])
	slices.Reverse(s)
	for n := range 16 {
		raised := new(big.Int).Add(new(big.Int).SetBytes(s), new(big.Int).Mul(order, big.NewInt(int64(n))))
		if raised.BitLen() > 256 {
			break
		}
		le := raised.FillBytes(make([]byte, 32))
		slices.Reverse(le)
		p.signature = append(slices.Clone(p.signature[:32]), le...)
		_, err := Open(t.Context(), join(p), noon, bobs(t))
		if n == 0 && err != nil {
			t.Fatal(err)
		}
		if n > 0 && KindOf(err) != Unauthenticated {
			t.Errorf("S + %d L: %v", n, err)
		}
	}
	for _, length := range []int{1, 32, 63, 65, 128} {
		p.signature = bytes.Repeat([]byte{1}, length)
		if _, err := Open(t.Context(), join(p), noon, bobs(t)); KindOf(err) != Unauthenticated {
			t.Errorf("a signature of %d bytes: %v", length, err)
		}
	}
}

// A key of small order signs everything for everybody; nobody may be called so.
func TestSmallOrderSignerIsRefused(t *testing.T) {
	b := sealed(t, sample(t), key(t, 1))
	p, _ := split(b)
	identity := make([]byte, 32)
	identity[0] = 1
	p.signer = []byte(peer.IDOf(identity))
	// For the identity as public key, R = identity and S = 0 fit any message.
	p.signature = append(slices.Clone(identity), make([]byte, 32)...)
	if !ed25519.Verify(identity, pae(p.payloadType, p.payload), p.signature) {
		t.Fatal("this is no attack")
	}
	if _, err := Open(t.Context(), join(p), noon, bobs(t)); KindOf(err) != Unauthenticated {
		t.Errorf("taken: %v", err)
	}
}

// Bytes cannot be moved between type and payload without a new signature, and
// the encoding is DSSE's own: the example of its specification.
func TestPAE(t *testing.T) {
	if got := string(pae([]byte("http://example.com/HelloWorld"), []byte("hello world"))); got != "DSSEv1 29 http://example.com/HelloWorld 11 hello world" {
		t.Error(got)
	}
	alice := key(t, 1)
	b := sealed(t, sample(t), alice)
	p, _ := split(b)
	moved := p
	moved.payloadType = append(slices.Clone(p.payloadType), p.payload[0])
	moved.payload = p.payload[1:]
	if bytes.Equal(pae(moved.payloadType, moved.payload), pae(p.payloadType, p.payload)) {
		t.Error("two readings of the same signed bytes")
	}
}

// What split takes is what the protobuf library writes, and the other way round.
func TestSplitIsTheProtobufMessage(t *testing.T) {
	b := sealed(t, sample(t), key(t, 1))
	var m scriptpb.Envelope
	if err := proto.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("the library writes %x, we %x", again, b)
	}
}

func TestOpenRefuses(t *testing.T) {
	alice, mallory := key(t, 1), key(t, 4)
	with := func(change func(*script.Script)) []byte {
		s := sample(t)
		change(&s)
		return sealed(t, s, alice)
	}
	// Mallory signs a script that says it is from alice.
	s := sample(t)
	s.Caller = alice.ID()
	payload, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	forged := seal(scriptType, payload, mallory)
	// Mallory puts his name on what alice signed, and hers on what he signed.
	p, _ := split(sealed(t, sample(t), alice))
	renamed := p
	renamed.signer = []byte(mallory.ID())
	q, _ := split(forged)
	q.signer = []byte(alice.ID())

	for _, test := range []struct {
		name   string
		sealed []byte
		now    time.Time
		kind   Kind
		hint   string
	}{
		{"in time", with(func(*script.Script) {}), noon, 0, ""},
		{"clock behind, within skew", with(func(*script.Script) {}), noon.Add(-ClockSkew), 0, ""},
		{"clock ahead, within skew", with(func(*script.Script) {}), noon.Add(time.Minute + ClockSkew), 0, ""},
		{"future", with(func(*script.Script) {}), noon.Add(-ClockSkew - time.Millisecond), NotYet, "clocks"},
		{"expired", with(func(*script.Script) {}), noon.Add(time.Minute + ClockSkew + time.Millisecond), Expired, "seal it again"},
		{"long ago", with(func(*script.Script) {}), noon.AddDate(200, 0, 0), Expired, "deadline was"},
		{"far deadline", with(func(s *script.Script) { s.Deadline = noon.Add(script.MaxLifetime + ClockSkew + time.Second) }), noon, Expired, "nearer"},
		{"furthest deadline", with(func(s *script.Script) { s.Deadline = noon.Add(script.MaxLifetime) }), noon, 0, ""},
		{"year 9999", with(func(s *script.Script) { s.Deadline = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }), noon, Expired, "nearer"},
		{"other target", with(func(s *script.Script) { s.Target = mallory.ID() }), noon, NotHere, "not on this host"},
		{"nothing", nil, noon, Malformed, "not a sealed message"},
		{"text", []byte("hello"), noon, Malformed, "not a sealed message"},
		{"a script that is not sealed", payload, noon, Malformed, ""},
		{"too large", make([]byte, script.MaxSealed+1), noon, TooLarge, "at most"},
		{"from another", forged, noon, Unauthenticated, "signed it"},
		{"signer renamed", join(renamed), noon, Unauthenticated, "signature"},
		{"signature of another", join(q), noon, Unauthenticated, "signature"},
		{"signed garbage", seal(scriptType, []byte("garbage"), alice), noon, Malformed, "decode script"},
		{"signed unknown field", seal(scriptType, append(slices.Clone(p.payload), 0x7a, 1, 'x'), alice), noon, Malformed, "not known to this version"},
		{"newer type", seal("application/vnd.circles.script.v2+protobuf", p.payload, alice), noon, Malformed, "v1"},
		{"signer is no id", join(parts{p.payload, p.payloadType, []byte("alice"), p.signature}), noon, Unauthenticated, "did:key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := Open(t.Context(), test.sealed, test.now, bobs(t))
			if KindOf(err) != test.kind || (err == nil) != (test.kind == 0) || (v == nil) == (err == nil) {
				t.Fatalf("kind %d, want %d: %v", KindOf(err), test.kind, err)
			}
			if err != nil && (!strings.Contains(err.Error(), test.hint) || len(err.Error()) > 500) {
				t.Errorf("%q does not say %q in few words", err, test.hint)
			}
		})
	}
}

func TestOpenReplay(t *testing.T) {
	alice := key(t, 1)
	b := sealed(t, sample(t), alice)
	known := bobs(t)
	v, err := Open(t.Context(), b, noon, known)
	if err != nil {
		t.Fatal(err)
	}
	known.receipts = map[script.Nonce]receipt{v.Script().Nonce: {v.ID(), []byte("the first receipt")}}

	// The same bytes find the first receipt, also long after the deadline, and
	// before the start: who lost the answer can ask for it again.
	for _, now := range []time.Time{noon, noon.AddDate(1, 0, 0), noon.AddDate(-1, 0, 0)} {
		v, err := Open(t.Context(), b, now, known)
		if err != nil || string(v.Prior()) != "the first receipt" {
			t.Errorf("again at %s: %v", now, err)
		}
	}
	// Other bytes with the same nonce are not that script.
	other := sample(t)
	other.Params = []byte("other")
	if v, err := Open(t.Context(), sealed(t, other, alice), noon, known); KindOf(err) != Conflict || v != nil {
		t.Errorf("the nonce used for another script: %v", err)
	}
	// A log that cannot be read is the host's fault and no verdict.
	known.err = errors.New("disk on fire")
	if _, err := Open(t.Context(), b, noon, known); KindOf(err) != 0 || !errors.Is(err, known.err) {
		t.Errorf("%v", err)
	}
}

// What nobody signed, and what is not for anybody here, costs no look at the log.
func TestOpenAsksTheLogLast(t *testing.T) {
	known := bobs(t)
	b := sealed(t, sample(t), key(t, 1))
	for i := range b {
		b[i] ^= 1
		_, _ = Open(t.Context(), b, noon, known)
		b[i] ^= 1
	}
	other := sample(t)
	other.Target = key(t, 9).ID()
	_, _ = Open(t.Context(), sealed(t, other, key(t, 1)), noon, known)
	if known.asked != 0 {
		t.Errorf("asked %d times", known.asked)
	}
}

func TestReceipts(t *testing.T) {
	alice, bob, host, mallory := key(t, 1), key(t, 2), key(t, 3), key(t, 4)
	r := script.Receipt{Script: script.ID{1}, Caller: alice.ID(), Target: bob.ID(), Host: host.ID(), Code: script.Done, Result: []byte("ok"), Started: noon, Finished: noon}
	b, err := SealReceipt(r, host)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []peer.ID{host.ID(), ""} {
		got, signer, err := OpenReceiptOf(r.Script, b, want)
		if err != nil || signer != host.ID() || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v by %s, %v", got, signer, err)
		}
	}
	if _, _, err := OpenReceipt(b, mallory.ID()); KindOf(err) != Unauthenticated {
		t.Errorf("the receipt of another host: %v", err)
	}
	if _, _, err := OpenReceiptOf(script.ID{2}, b, host.ID()); KindOf(err) != Unauthenticated {
		t.Errorf("the receipt of another script: %v", err)
	}
	if _, err := SealReceipt(r, mallory); err == nil {
		t.Error("sealed with the key of another host")
	}
	// Mallory signs a receipt in the host's name.
	payload, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenReceipt(seal(receiptType, payload, mallory), ""); KindOf(err) != Unauthenticated {
		t.Errorf("a receipt in another's name: %v", err)
	}
	if _, _, err := OpenReceipt(make([]byte, script.MaxSealed+1), ""); KindOf(err) != TooLarge {
		t.Errorf("too large: %v", err)
	}
}

func TestQuestionsAndAnswers(t *testing.T) {
	alice, host, mallory := key(t, 1), key(t, 3), key(t, 4)
	q := script.Question{Script: script.ID{1}, Seq: 1, Op: script.AskRead, Path: "/a", Offset: 7, Length: 10}
	b, err := SealQuestion(q, host)
	if err != nil {
		t.Fatal(err)
	}
	got, signer, err := OpenQuestion(b, host.ID())
	if err != nil || got != q || signer != host.ID() {
		t.Fatalf("%+v by %s, %v", got, signer, err)
	}
	if _, _, err := OpenQuestion(b, mallory.ID()); KindOf(err) != Unauthenticated {
		t.Errorf("the question of another host: %v", err)
	}
	if _, _, err := OpenQuestion(make([]byte, maxQuestion+1), ""); KindOf(err) != TooLarge {
		t.Errorf("too large: %v", err)
	}

	b, err = SealAnswer(script.Answer{Op: script.AskRead, Data: []byte("hello")}, got, alice)
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenAnswer(b, alice.ID(), q)
	if err != nil || string(a.Data) != "hello" {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := OpenAnswer(b, mallory.ID(), q); KindOf(err) != Unauthenticated {
		t.Errorf("the answer of another: %v", err)
	}
	// An answer to one question is none to any other, of this script or another.
	for name, change := range map[string]func(*script.Question){
		"script": func(q *script.Question) { q.Script[31]++ }, "seq": func(q *script.Question) { q.Seq++ },
		"path": func(q *script.Question) { q.Path = "/b" }, "offset": func(q *script.Question) { q.Offset++ },
		"length": func(q *script.Question) { q.Length++ }, "op": func(q *script.Question) { q.Op = script.AskList },
	} {
		other := q
		change(&other)
		if _, err := OpenAnswer(b, alice.ID(), other); KindOf(err) != Unauthenticated {
			t.Errorf("an answer to a question of another %s: %v", name, err)
		}
	}
	// Not what was asked for, though bound to the question and signed.
	encoded, _ := q.Encode()
	for name, bad := range map[string]script.Answer{
		"more": {Op: script.AskRead, Data: []byte("hello world")},
		"list": {Op: script.AskList},
	} {
		if _, err := SealAnswer(bad, q, alice); err == nil {
			t.Errorf("%s than asked for is sealed", name)
		}
		bad.Question = script.DigestOf(encoded)
		payload, err := bad.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAnswer(seal(answerType, payload, alice), alice.ID(), q); KindOf(err) != Malformed {
			t.Errorf("%s than asked for is opened: %v", name, err)
		}
	}
	// The largest answers fit.
	largest := make([]script.ListEntry, script.MaxListing)
	for i := range largest {
		largest[i] = script.ListEntry{Name: strings.Repeat("x", script.MaxFileName), Kind: script.KindDirectory}
	}
	for _, test := range []struct {
		q script.Question
		a script.Answer
	}{
		{script.Question{Script: script.ID{1}, Seq: 1, Op: script.AskList, Path: "/" + strings.Repeat("y", script.MaxPath-1), Length: script.MaxListing}, script.Answer{Op: script.AskList, Entries: largest}},
		{script.Question{Script: script.ID{1}, Seq: 1, Op: script.AskRead, Path: "/", Length: script.MaxData}, script.Answer{Op: script.AskRead, Data: make([]byte, script.MaxData)}},
		{q, script.Answer{Problem: &script.Problem{Code: script.ProblemIO, Message: strings.Repeat("m", 1<<20)}}},
	} {
		b, err := SealQuestion(test.q, host)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := OpenQuestion(b, ""); err != nil {
			t.Error(err)
		}
		if b, err = SealAnswer(test.a, test.q, alice); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAnswer(b, alice.ID(), test.q); err != nil {
			t.Error(err)
		}
	}
}

// Bytes that nobody signed must not cost the host more memory than they are: here
// a length that promises 2^40 bytes, and 32 MiB of payload with a bad signature.
func TestOpenOfGarbageAllocatesLittle(t *testing.T) {
	promise := binary.AppendUvarint([]byte{0x0a}, 1<<40)
	if n := testing.AllocsPerRun(10, func() { _, _ = Open(context.Background(), promise, noon, nil) }); n > 20 {
		t.Errorf("%v allocations", n)
	}
	large := join(parts{make([]byte, 31<<20), []byte(scriptType), []byte("did:key:z6Mkx"), []byte("x")})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Open(context.Background(), large, noon, nil)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; err == nil || used > 1<<20 {
		t.Errorf("%d bytes allocated for a message whose signer is nobody: %v", used, err)
	}
}

func fuzzOpen(f *testing.F, name string) {
	for _, o := range openers(f) {
		f.Add(o.sealed)
	}
	all := openers(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, o := range all {
			if o.name != name {
				continue
			}
			if err := o.open(b); err != nil {
				if KindOf(err) == 0 && !errors.Is(err, context.Canceled) {
					t.Fatalf("an error of no kind: %v", err)
				}
				return
			}
			// Nobody but the holders of the sample keys can sign: what opens is a sample.
			if !bytes.Equal(b, o.sealed) {
				t.Fatalf("forged: %x", b)
			}
			if p, err := split(b); err != nil || !bytes.Equal(join(p), b) {
				t.Fatalf("two spellings: %x", b)
			}
		}
	})
}

func FuzzOpen(f *testing.F)         { fuzzOpen(f, "script") }
func FuzzOpenReceipt(f *testing.F)  { fuzzOpen(f, "receipt") }
func FuzzOpenQuestion(f *testing.F) { fuzzOpen(f, "question") }
func FuzzOpenAnswer(f *testing.F)   { fuzzOpen(f, "answer") }

// FuzzOpenSigned: payloads of a peer who signs whatever he likes.
func FuzzOpenSigned(f *testing.F) {
	alice := key(f, 1)
	for _, o := range openers(f) {
		p, _ := split(o.sealed)
		f.Add(p.payload)
	}
	known := bobs(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		v, err := Open(context.Background(), seal(scriptType, payload, alice), noon, known)
		if err != nil {
			if KindOf(err) == 0 {
				t.Fatal(err)
			}
			return
		}
		if again, err := v.Script().Encode(); err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("%x became %x", payload, again)
		}
		if v.Script().Caller != alice.ID() || v.ID() != script.IDOf(payload) {
			t.Fatal("in another's name")
		}
	})
}

func FuzzSplit(f *testing.F) {
	for _, o := range openers(f) {
		f.Add(o.sealed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := split(b)
		if err != nil {
			return
		}
		if !bytes.Equal(join(p), b) {
			t.Fatalf("%x is a second spelling", b)
		}
		var m scriptpb.Envelope
		if err := proto.Unmarshal(b, &m); err != nil {
			return // text that is not UTF-8, which no type or signer is
		}
		if !bytes.Equal(m.Payload, p.payload) || m.PayloadType != string(p.payloadType) || m.Signer != string(p.signer) || !bytes.Equal(m.Signature, p.signature) {
			t.Fatalf("%x reads otherwise to the protobuf library", b)
		}
	})
}

func BenchmarkSealScript(b *testing.B) {
	s, alice := sample(b), key(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := SealScript(s, alice); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for name, size := range map[string]int{"small": 16, "1MiB": 1 << 20, "16MiB": script.MaxParams} {
		b.Run(name, func(b *testing.B) {
			s := sample(b)
			s.Params = make([]byte, size)
			enc, known := sealed(b, s, key(b, 1)), bobs(b)
			b.SetBytes(int64(len(enc)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(context.Background(), enc, noon, known); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpenReceipt(b *testing.B) {
	enc := openers(b)[4].sealed
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := OpenReceipt(enc, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadReceipt(b *testing.B) {
	enc := openers(b)[4].sealed
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadReceipt(enc); err != nil {
			b.Fatal(err)
		}
	}
}

// What is read without a look at the signature is what is opened with one, and a
// receipt.
func TestReadReceipt(t *testing.T) {
	for _, o := range openers(t) {
		read, err := ReadReceipt(o.sealed)
		opened, _, wrong := OpenReceipt(o.sealed, "")
		if (err == nil) != (wrong == nil) || !reflect.DeepEqual(read, opened) {
			t.Errorf("%v: read %+v, %v; opened %+v, %v", o, read, err, opened, wrong)
		}
	}
	for _, garbage := range [][]byte{nil, {0}, bytes.Repeat([]byte{10}, 1000)} {
		if _, err := ReadReceipt(garbage); KindOf(err) != Malformed {
			t.Errorf("%x is read: %v", garbage, err)
		}
	}
}

// A flood of bytes that nobody signed.
func BenchmarkOpenForged(b *testing.B) {
	enc, known := sealed(b, sample(b), key(b, 1)), bobs(b)
	enc[100] ^= 1
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(context.Background(), enc, noon, known); err == nil {
			b.Fatal("taken")
		}
	}
}
