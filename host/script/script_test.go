package script

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script/scriptpb"
)

func id(t testing.TB, seed byte) peer.ID {
	t.Helper()
	k, err := peer.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k.ID()
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 345e6, time.UTC)

func sampleScript(t testing.TB) Script {
	return Script{
		Caller: id(t, 1), Target: id(t, 2), Nonce: Nonce{1, 2, 3},
		NotBefore: noon, Deadline: noon.Add(time.Minute),
		Logic: Logic{Name: "guestbook"}, Entry: "sign", Params: []byte(`{"text":"hello"}`),
		Lent: []Grant{{Read, "/shared"}, {List, "/"}}, DryRun: true,
	}
}

func sampleReceipt(t testing.TB) Receipt {
	return Receipt{
		Script: Digest{1}, Caller: id(t, 1), Target: id(t, 2), Host: id(t, 3),
		Code: Done, Message: "fine", Policies: []string{"friends", "policy0"},
		Module: Digest{2}, ModuleName: "guestbook", Entry: "sign",
		Result: []byte(`{"ok":true}`), ExitCode: 3, Log: []byte("signed\n"),
		Effects: []Effect{
			{Kind: Created, Path: "/book/a", After: Blob{5, Digest{3}}},
			{Kind: Modified, Path: "/book/b", Before: Blob{0, Digest{4}}, After: Blob{9, Digest{5}}, Diff: "+a\n"},
			{Kind: Linked, Path: "/l", To: "book/a"},
			{Kind: Removed, Path: "/not-\xffutf8", Before: Blob{1, Digest{6}}},
		},
		MoreEffects: 7,
		Usage:       Usage{Wall: 81 * time.Microsecond, Fuel: 1 << 63, MemoryBytes: 1 << 20, HostCalls: 4, OutputBytes: 11, LogBytes: 7, FileBytes: 42, Entries: 2, Handles: 3},
		Started:     noon, Finished: noon.Add(time.Millisecond), DryRun: true,
	}
}

// sampleUndone is a receipt with what an undo adds to it, and with long files.
func sampleUndone(t testing.TB) Receipt {
	r := sampleReceipt(t)
	r.Undid, r.Kept = ID{8}, Digest{9}
	r.Effects = append(r.Effects,
		Effect{Kind: Modified, Path: "/log", End: End{At: 1 << 30, After: Blob{12, Digest{7}}}},
		Effect{Kind: Modified, Path: "/tail", End: End{At: 1 << 30, Before: Blob{12, Digest{7}}, After: Blob{0, Digest{8}}}})
	return r
}

func sampleUndo(t testing.TB) Script {
	return Script{
		Caller: id(t, 1), Target: id(t, 1), Nonce: Nonce{1, 2, 3},
		NotBefore: noon, Deadline: noon.Add(time.Minute), Logic: Logic{Undo: ID{7}},
	}
}

// sampleChained is a script on behalf of its caller, sampleVia its receipt.
func sampleChained(t testing.TB) Script {
	s := sampleScript(t)
	s.Lent, s.Chain = nil, [][]byte{[]byte("one"), []byte("two")}
	return s
}

func sampleVia(t testing.TB) Receipt {
	r := sampleReceipt(t)
	r.Via = []Via{{Digest{1}, id(t, 4)}, {Digest{2}, id(t, 5)}}
	return r
}

func sampleDelegation(t testing.TB) Delegation {
	return Delegation{
		Issuer: id(t, 1), To: id(t, 3), Parent: Digest{5}, Nonce: Nonce{9}, NotAfter: noon, Depth: 2,
		Targets: []peer.ID{id(t, 2)}, Entries: []string{"guestbook:sign", "*"},
		Allows: []Grant{{Read, "/shared"}, {Query, "cards"}, {Get, "cards/a"}},
	}
}

func sampleDecision(t testing.TB) Script {
	s := sampleUndo(t)
	s.Logic = Logic{Decide: Decision{Ruling: Approve, Script: ID{7}, OtherChanges: true, OtherAnswer: true}}
	return s
}

// sampleHeld is a receipt with what a review adds to it.
func sampleHeld(t testing.TB) Receipt {
	r := sampleReceipt(t)
	r.Code, r.Kept, r.Expires = Pending, Digest{9}, noon.Add(time.Hour)
	r.Pending, r.Decision, r.Decided = Digest{10}, ID{11}, ID{12}
	return r
}

// sampleInstead is a receipt of a script that asked for other code than what ran.
func sampleInstead(t testing.TB) Receipt {
	r := sampleReceipt(t)
	r.ModuleName, r.Instead, r.Asked = "", "mine", Digest{13}
	return r
}

// sampleComposed is a receipt of a script for which several modules ran.
func sampleComposed(t testing.TB) Receipt {
	r := sampleReceipt(t)
	r.Parts = []Part{{"audit", "peer", Digest{14}, 1, 5}, {"guestbook", "host", Digest{2}, 1 << 40, 1<<63 - 5}, {"", "carried", Digest{15}, 1, 0}}
	return r
}

func sampleQuestion() Question {
	return Question{Script: Digest{1}, Seq: 1, Op: AskRead, Path: "/shared/a", Offset: 10, Length: MaxData}
}

func sampleAnswers() []Answer {
	return []Answer{
		{Question: Digest{1}, Op: AskRead, Data: []byte("hello")},
		{Question: Digest{1}, Op: AskRead, Data: []byte{}},
		{Question: Digest{1}, Op: AskList, Entries: []ListEntry{{"a", KindFile}, {"ä b", KindDirectory}}},
		{Question: Digest{1}, Op: AskList},
		{Question: Digest{1}, Op: AskGet, Value: []byte{0, 1}},
		{Question: Digest{1}, Op: AskGet, Value: []byte{}},
		{Question: Digest{1}, Op: AskQuery, Records: []Record{{"a", []byte("1"), false}, {"b", nil, true}, {"ä", nil, false}}, Next: "ö"},
		{Question: Digest{1}, Op: AskQuery},
		{Question: Digest{1}, Op: AskFind, Records: []Record{{"b", nil, true}, {"a", []byte("1"), false}}, Next: "\x00 no key\n"},
		{Question: Digest{1}, Op: AskFind},
		{Question: Digest{1}, Op: AskStat, Stat: Stat{KindFile, 1 << 40, noon}},
		{Question: Digest{1}, Problem: &Problem{ProblemDenied, "no grant"}},
	}
}

// codec is one message, for tests that are the same for all of them.
type codec struct {
	name   string
	sample []byte // an encoding
	pb     proto.Message
	decode func([]byte) (encode func() ([]byte, error), err error)
}

func codecs(t testing.TB) []codec {
	t.Helper()
	must := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	s, r, q := sampleScript(t), sampleReceipt(t), sampleQuestion()
	undo, undone := sampleUndo(t), sampleUndone(t)
	decision, held := sampleDecision(t), sampleHeld(t)
	carried := sampleScript(t)
	carried.Logic = Logic{Text: Text{"javascript", "target.write(\"hi.txt\", `né ${caller.name}`)\n"}}
	all := []codec{
		{"script", must(s.Encode()), &scriptpb.Script{}, func(b []byte) (func() ([]byte, error), error) {
			s, err := DecodeScript(b)
			return s.Encode, err
		}},
		{"receipt", must(r.Encode()), &scriptpb.Receipt{}, func(b []byte) (func() ([]byte, error), error) {
			r, err := DecodeReceipt(b)
			return r.Encode, err
		}},
		{"question", must(q.Encode()), &scriptpb.Question{}, func(b []byte) (func() ([]byte, error), error) {
			q, err := DecodeQuestion(b)
			return q.Encode, err
		}},
		{"script", must(undo.Encode()), &scriptpb.Script{}, func(b []byte) (func() ([]byte, error), error) {
			s, err := DecodeScript(b)
			return s.Encode, err
		}},
		{"receipt", must(undone.Encode()), &scriptpb.Receipt{}, func(b []byte) (func() ([]byte, error), error) {
			r, err := DecodeReceipt(b)
			return r.Encode, err
		}},
		{"script", must(decision.Encode()), &scriptpb.Script{}, func(b []byte) (func() ([]byte, error), error) {
			s, err := DecodeScript(b)
			return s.Encode, err
		}},
		{"receipt", must(held.Encode()), &scriptpb.Receipt{}, func(b []byte) (func() ([]byte, error), error) {
			r, err := DecodeReceipt(b)
			return r.Encode, err
		}},
	}
	chained, via, d := sampleChained(t), sampleVia(t), sampleDelegation(t)
	revocation := Revocation{Delegation: Digest{1}, Issuer: id(t, 1)}
	head := Head{Context: id(t, 2), Host: id(t, 3), Seq: 7, Hash: Digest{4}, Time: noon}
	all = append(all,
		codec{"script", must(chained.Encode()), &scriptpb.Script{}, func(b []byte) (func() ([]byte, error), error) {
			s, err := DecodeScript(b)
			return s.Encode, err
		}},
		codec{"receipt", must(via.Encode()), &scriptpb.Receipt{}, func(b []byte) (func() ([]byte, error), error) {
			r, err := DecodeReceipt(b)
			return r.Encode, err
		}},
		codec{"delegation", must(d.Encode()), &scriptpb.Delegation{}, func(b []byte) (func() ([]byte, error), error) {
			d, err := DecodeDelegation(b)
			return d.Encode, err
		}},
		codec{"revocation", must(revocation.Encode()), &scriptpb.Revocation{}, func(b []byte) (func() ([]byte, error), error) {
			r, err := DecodeRevocation(b)
			return r.Encode, err
		}},
		codec{"script", must(carried.Encode()), &scriptpb.Script{}, func(b []byte) (func() ([]byte, error), error) {
			s, err := DecodeScript(b)
			return s.Encode, err
		}},
		codec{"head", must(head.Encode()), &scriptpb.Head{}, func(b []byte) (func() ([]byte, error), error) {
			h, err := DecodeHead(b)
			return h.Encode, err
		}},
	)
	for _, a := range sampleAnswers() {
		all = append(all, codec{"answer", must(a.Encode()), &scriptpb.Answer{}, func(b []byte) (func() ([]byte, error), error) {
			a, err := DecodeAnswer(b)
			return a.Encode, err
		}})
	}
	return all
}

func TestEncodeDecodeIsIdentity(t *testing.T) {
	s := sampleScript(t)
	for _, logic := range []Logic{{Name: "a.b-c_9"}, {Digest: Digest{9}}, {Wasm: []byte("\x00asm")}, {Text: Text{"javascript", "1 + 1 // né"}}} {
		s.Logic = logic
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeScript(b); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%+v became %+v, %v", s, got, err)
		}
	}
	u := sampleUndo(t)
	for _, logic := range []Logic{
		u.Logic, sampleDecision(t).Logic,
		{Decide: Decision{Ruling: Reject, Script: ID{7}, Reason: "not in my garden"}}, {Decide: Decision{Ruling: Expire}},
	} {
		u.Logic = logic
		if b, err := u.Encode(); err != nil {
			t.Error(err)
		} else if got, err := DecodeScript(b); err != nil || !reflect.DeepEqual(got, u) {
			t.Errorf("%+v became %+v, %v", u, got, err)
		}
	}
	for _, r := range []Receipt{sampleUndone(t), sampleHeld(t), sampleInstead(t), sampleComposed(t)} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeReceipt(b); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
	bare := Receipt{Script: Digest{1}, Caller: id(t, 1), Target: id(t, 2), Host: id(t, 3), Code: Refused}
	b, err := bare.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeReceipt(b); err != nil || !reflect.DeepEqual(got, bare) {
		t.Errorf("%+v became %+v, %v", bare, got, err)
	}
	for _, a := range sampleAnswers() {
		b, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeAnswer(b); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v became %+v, %v", a, got, err)
		}
	}
}

// What was signed yesterday must decode tomorrow: these bytes never change.
func TestEncodingIsStable(t *testing.T) {
	want := []string{"82d9663017b7c0f8", "4b740a8e3de5e830", "d6888cf95a573c46", "bcefe9582bf4478d", "a0992dc7127bf1f0", "87dcd2aa111f1ed6", "a2ad27b35e3ef4c3"}
	for i, c := range codecs(t)[:len(want)] {
		got := DigestOf(c.sample).String()[len("sha256:"):][:16]
		if want := want[i]; got != want {
			t.Errorf("the encoding of the sample %s has changed: %s, was %s", c.name, got, want)
		}
	}
}

// Decode takes one encoding only: whatever else it is made of, it is refused,
// or it is the encoding of something else.
func TestDecodeEveryChangedByte(t *testing.T) {
	for _, c := range codecs(t) {
		if enc, err := c.decode(c.sample); err != nil {
			t.Fatal(c.name, err)
		} else if b, err := enc(); err != nil || !bytes.Equal(b, c.sample) {
			t.Fatal(c.name, "does not come back", err)
		}
		for n := range c.sample {
			if enc, err := c.decode(c.sample[:n]); err == nil && !reencodes(enc, c.sample[:n]) {
				t.Errorf("%s cut to %d bytes is a second encoding", c.name, n)
			}
			for bit := range 8 {
				changed := bytes.Clone(c.sample)
				changed[n] ^= 1 << bit
				enc, err := c.decode(changed)
				if err != nil {
					continue
				}
				if !reencodes(enc, changed) && !hasUnknown(t, c, changed) {
					t.Errorf("%s with bit %d of byte %d changed is a second encoding", c.name, bit, n)
				}
			}
		}
	}
}

func reencodes(encode func() ([]byte, error), want []byte) bool {
	b, err := encode()
	return err == nil && bytes.Equal(b, want)
}

// hasUnknown reports whether a receipt has fields that this version skips.
func hasUnknown(t testing.TB, c codec, b []byte) bool {
	t.Helper()
	return c.name == "receipt" && strict(b, c.pb.ProtoReflect().Descriptor(), false) != nil
}

func TestDecodeRefusesOtherEncodings(t *testing.T) {
	field := func(num protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), value)
	}
	number := func(num protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
	}
	caller, target := field(1, []byte(id(t, 1))), field(2, []byte(id(t, 2)))
	nonce, notBefore, deadline := field(3, bytes.Repeat([]byte{1}, 16)), number(4, 1767355200345), number(5, 1767355260345)
	logic := field(6, field(1, []byte("guestbook")))
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	good := cat(caller, target, nonce, notBefore, deadline, logic)
	if _, err := DecodeScript(good); err != nil {
		t.Fatal(err)
	}
	padded := append(protowire.AppendTag(nil, 1, protowire.BytesType), byte(len(id(t, 1)))|0x80, 0)
	padded = append(padded, id(t, 1)...)
	for _, test := range []struct {
		name string
		b    []byte
		hint string
	}{
		{"empty", nil, "nonce"},
		{"unknown field", cat(good, field(15, []byte("only on Sundays"))), "may restrict"},
		{"unknown field of a group", cat(good, protowire.AppendTag(nil, 15, protowire.StartGroupType)), "may restrict"},
		{"unknown field in logic", cat(caller, target, nonce, notBefore, deadline, field(6, cat(field(1, []byte("g")), field(9, []byte("x"))))), "may restrict"},
		{"unknown field in grant", cat(good, field(9, cat(field(1, []byte("read")), field(2, []byte("/a")), field(3, []byte("x"))))), "may restrict"},
		{"reordered", cat(target, caller, nonce, notBefore, deadline, logic), "comes after"},
		{"twice", cat(caller, caller, target, nonce, notBefore, deadline, logic), "twice"},
		{"twice, apart", cat(good, caller), "comes after"},
		{"logic twice (parsers merge it)", cat(caller, target, nonce, notBefore, deadline, logic, logic), "twice"},
		{"two kinds of logic", cat(caller, target, nonce, notBefore, deadline, field(6, cat(field(1, []byte("g")), field(3, []byte("x"))))), "more than one kind"},
		{"truth of 2", cat(caller, target, nonce, notBefore, deadline, logic, number(10, 2)), "out of range"},
		{"untruth spelt out", cat(caller, target, nonce, notBefore, deadline, logic, number(10, 0)), "though it is empty"},
		{"padded length", cat(padded, target, nonce, notBefore, deadline, logic), "padded"},
		{"padded tag", cat([]byte{0x8a, 0}, caller[1:], target, nonce, notBefore, deadline, logic), "padded"},
		{"padded number", cat(caller, target, nonce, number(4, 1767355200345)[:6], []byte{0x80 | number(4, 1767355200345)[6], 0}, deadline, logic), "padded"},
		{"default written", cat(good, field(7, nil)), "though it is empty"},
		{"wrong wire type", cat(good, number(7, 1)), "wire type"},
		{"field 0", cat([]byte{0x02, 0}, good), "no valid field"},
		{"field 2^29", cat(good, protowire.AppendVarint(nil, 1<<32|2), []byte{0}), "no valid field"},
		{"tag of 64 bits", cat(good, protowire.AppendVarint(nil, math.MaxUint64), []byte{0}), ""},
		{"length beyond the end", cat(good, []byte{0x3a, 0x7f, 'x'}), "cut short"},
		{"length of 2^63", cat(good, []byte{0x3a}, protowire.AppendVarint(nil, 1<<63)), "cut short"},
		{"trailing byte", cat(good, []byte{0}), "no valid field"},
		{"not UTF-8", cat(caller, target, nonce, notBefore, deadline, logic, field(7, []byte{0xff})), "UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := DecodeScript(test.b)
			if err == nil {
				t.Fatal("taken")
			}
			if !strings.Contains(err.Error(), test.hint) {
				t.Errorf("%q does not say %q", err, test.hint)
			}
		})
	}
}

// A number that does not fit its field is cut by the library, and would then be
// another one.
func TestDecodeRefusesNumbersOutOfRange(t *testing.T) {
	r := Receipt{Script: Digest{1}, Caller: id(t, 1), Target: id(t, 2), Host: id(t, 3), Code: Done, ExitCode: 7}
	good, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		field protowire.Number
		was   uint64
		now   uint64
	}{{5, 1, 256 + 1}, {5, 1, math.MaxUint64}, {12, 7, 1<<32 + 7}} {
		number := func(v uint64) []byte {
			return protowire.AppendVarint(protowire.AppendTag(nil, test.field, protowire.VarintType), v)
		}
		b := bytes.Replace(good, number(test.was), number(test.now), 1)
		if bytes.Equal(b, good) {
			t.Fatal("the field is not there")
		}
		if got, err := DecodeReceipt(b); err == nil || !strings.Contains(err.Error(), "out of range") {
			t.Errorf("%d in field %d is taken as %+v, %v", test.now, test.field, got, err)
		}
	}
}

func TestScriptBounds(t *testing.T) {
	long := strings.Repeat("a", 1<<13)
	grants := func(n int) (g []Grant) {
		for range n {
			g = append(g, Grant{Read, "/a"})
		}
		return g
	}
	decide := func(d Decision) func(*Script) {
		return func(s *Script) { s.Logic, s.Entry, s.Params, s.Lent = Logic{Decide: d}, "", nil, nil }
	}
	for _, test := range []struct {
		name   string
		change func(*Script)
		hint   string // "": it is fine
	}{
		{"as it is", func(*Script) {}, ""},
		{"no caller", func(s *Script) { s.Caller = "" }, "caller"},
		{"petname for target", func(s *Script) { s.Target = "bob" }, "target"},
		{"zero nonce", func(s *Script) { s.Nonce = Nonce{} }, "random bytes"},
		{"no not-before", func(s *Script) { s.NotBefore = time.Time{} }, "not-before"},
		{"no deadline", func(s *Script) { s.Deadline = time.Time{} }, "deadline"},
		{"deadline first", func(s *Script) { s.Deadline = s.NotBefore.Add(-time.Millisecond) }, "before the script may start"},
		{"deadline at once", func(s *Script) { s.Deadline = s.NotBefore }, ""},
		{"year 10000", func(s *Script) { s.Deadline = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "year 10000"},
		{"no logic", func(s *Script) { s.Logic = Logic{} }, "exactly one"},
		{"two logics", func(s *Script) { s.Logic.Wasm = []byte("x") }, "exactly one"},
		{"undo by an entry", func(s *Script) { s.Logic = Logic{Undo: ID{1}}; s.Params, s.Lent = nil, nil }, "an undo or a decision has no"},
		{"undo with params", func(s *Script) { s.Logic = Logic{Undo: ID{1}}; s.Entry, s.Lent = "", nil }, "an undo or a decision has no"},
		{"undo that lends", func(s *Script) { s.Logic = Logic{Undo: ID{1}}; s.Entry, s.Params = "", nil }, "an undo or a decision has no"},
		{"revocation", func(s *Script) { s.Logic, s.Entry, s.Params, s.Lent = Logic{Revoke: []byte("x")}, "", nil, nil }, ""},
		{"long revocation", func(s *Script) {
			s.Logic, s.Entry, s.Params, s.Lent = Logic{Revoke: make([]byte, MaxRevocation+1)}, "", nil, nil
		}, "a revocation of"},
		{"revocation by an entry", func(s *Script) { s.Logic = Logic{Revoke: []byte("x")}; s.Params, s.Lent = nil, nil }, "has no"},
		{"decision by an entry", func(s *Script) { s.Logic = sampleDecision(t).Logic; s.Params, s.Lent = nil, nil }, "an undo or a decision has no"},
		{"decision about nothing", decide(Decision{Ruling: Approve}), "about which script"},
		{"decision without a ruling", decide(Decision{Script: ID{1}}), "approve, reject or expire"},
		{"unknown ruling", decide(Decision{Ruling: 4, Script: ID{1}}), "approve, reject or expire"},
		{"what expires is named", decide(Decision{Ruling: Expire, Script: ID{1}}), "is not named"},
		{"reason to approve", decide(Decision{Ruling: Approve, Script: ID{1}, Reason: "x"}), "only who rejects"},
		{"rejected with changes", decide(Decision{Ruling: Reject, Script: ID{1}, OtherChanges: true}), "only who approves"},
		{"long reason", decide(Decision{Ruling: Reject, Script: ID{1}, Reason: strings.Repeat("x", MaxReason+1)}), "one line of text"},
		{"reason of two lines", decide(Decision{Ruling: Reject, Script: ID{1}, Reason: "a\nb"}), "one line of text"},
		{"text and name", func(s *Script) { s.Logic.Text = Text{"rhai", "1"} }, "exactly one"},
		{"text in no language", func(s *Script) { s.Logic = Logic{Text: Text{"", "1"}} }, "the language"},
		{"text in a path", func(s *Script) { s.Logic = Logic{Text: Text{"../rhai", "1"}} }, "the language"},
		{"text in a long language", func(s *Script) { s.Logic = Logic{Text: Text{long[:MaxModule+1], "1"}} }, "the language"},
		{"empty text", func(s *Script) { s.Logic = Logic{Text: Text{"rhai", ""}} }, "a text is empty"},
		{"long text", func(s *Script) { s.Logic = Logic{Text: Text{"rhai", strings.Repeat("1", MaxText+1)}} }, "at most 262144"},
		{"longest text", func(s *Script) { s.Logic = Logic{Text: Text{"rhai", strings.Repeat("1", MaxText)}} }, ""},
		{"empty wasm", func(s *Script) { s.Logic = Logic{Wasm: []byte{}} }, "exactly one"},
		{"path for module", func(s *Script) { s.Logic.Name = "../../host.key" }, "module name"},
		{"slash in module", func(s *Script) { s.Logic.Name = "a/b" }, "module name"},
		{"NUL in module", func(s *Script) { s.Logic.Name = "a\x00" }, "module name"},
		{"long module", func(s *Script) { s.Logic.Name = long[:MaxModule+1] }, "module name"},
		{"longest module", func(s *Script) { s.Logic.Name = long[:MaxModule] }, ""},
		{"no entry", func(s *Script) { s.Entry = "" }, ""},
		{"WIT entry", func(s *Script) { s.Entry = "circles:script/run@0.1.0#run" }, ""},
		{"escape in entry", func(s *Script) { s.Entry = "a\x1b[2J" }, "entry"},
		{"longest entry", func(s *Script) { s.Entry = long[:MaxEntry] }, ""},
		{"long entry", func(s *Script) { s.Entry = long[:MaxEntry+1] }, "entry"},
		{"largest params", func(s *Script) { s.Params = make([]byte, MaxParams) }, ""},
		{"large params", func(s *Script) { s.Params = make([]byte, MaxParams+1) }, "params"},
		{"most grants", func(s *Script) { s.Lent = grants(MaxLent) }, ""},
		{"many grants", func(s *Script) { s.Lent = grants(MaxLent + 1) }, "grants"},
		{"unknown action", func(s *Script) { s.Lent[0].Action = "own" }, "no such action"},
		{"relative path", func(s *Script) { s.Lent[0].Path = "a" }, "must start with /"},
		{"empty path", func(s *Script) { s.Lent[0].Path = "" }, "must start with /"},
		{"path up", func(s *Script) { s.Lent[0].Path = "/a/../b" }, `must be written "/b"`},
		{"path with slash at its end", func(s *Script) { s.Lent[0].Path = "/a/" }, `must be written "/a"`},
		{"NUL in path", func(s *Script) { s.Lent[0].Path = "/a\x00b" }, "NUL"},
		{"not UTF-8", func(s *Script) { s.Lent[0].Path = "/\xff" }, "UTF-8"},
		{"long path", func(s *Script) { s.Lent[0].Path = "/" + long }, "bytes long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := sampleScript(t)
			test.change(&s)
			b, err := s.Encode()
			if test.hint == "" {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := DecodeScript(b); err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("encoded")
			}
			if !strings.Contains(err.Error(), test.hint) || len(err.Error()) > 400 {
				t.Errorf("%q does not say %q in few words", err, test.hint)
			}
			// The decoder has the same rules, whoever encoded it.
			m := &scriptpb.Script{
				Caller: string(s.Caller), Target: string(s.Target), Nonce: s.Nonce[:], Entry: s.Entry, Params: s.Params, Logic: &scriptpb.Logic{},
			}
			if !s.NotBefore.IsZero() {
				m.NotBeforeMs = s.NotBefore.UnixMilli()
			}
			if !s.Deadline.IsZero() {
				m.DeadlineMs = s.Deadline.UnixMilli()
			}
			switch {
			case s.Logic.Text != Text{} && s.Logic.Name == "":
				m.Logic.Logic = &scriptpb.Logic_Text{Text: &scriptpb.Text{Language: s.Logic.Text.Language, Source: s.Logic.Text.Source}}
			case s.Logic.Name != "" && s.Logic.Wasm == nil:
				m.Logic.Logic = &scriptpb.Logic_Name{Name: s.Logic.Name}
			case s.Logic.Wasm != nil:
				m.Logic.Logic = &scriptpb.Logic_Wasm{Wasm: s.Logic.Wasm}
			case s.Logic.Decide != Decision{}:
				m.Logic.Logic = &scriptpb.Logic_Decide{Decide: s.Logic.Decide.message()}
			}
			for _, g := range s.Lent {
				m.Lent = append(m.Lent, &scriptpb.Grant{Action: string(g.Action), Path: g.Path})
			}
			b, err = marshal(m)
			if err != nil || test.hint == "exactly one" {
				return // cannot be written at all
			}
			if _, err := DecodeScript(b); err == nil {
				t.Error("decoded")
			}
		})
	}
	for _, n := range []int{0, 15, 17} {
		m := &scriptpb.Script{}
		if err := proto.Unmarshal(codecs(t)[0].sample, m); err != nil {
			t.Fatal(err)
		}
		m.Nonce = bytes.Repeat([]byte{1}, n)
		b, _ := marshal(m)
		if _, err := DecodeScript(b); err == nil {
			t.Errorf("a nonce of %d bytes is taken", n)
		}
	}
}

// An attacker's cheapest bytes: two for an empty item. Counted before they are
// made into objects, so that decoding takes no more memory than a few times the
// message.
func TestDecodeManyEmptyItemsCostsNothing(t *testing.T) {
	items := func(num protowire.Number) []byte {
		return bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), nil), 512<<10)
	}
	listing := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), items(1))
	for _, test := range []struct {
		name   string
		b      []byte
		decode func(b []byte) error
	}{
		{"grants", items(9), func(b []byte) error { _, err := DecodeScript(b); return err }},
		{"policies", items(7), func(b []byte) error { _, err := DecodeReceipt(b); return err }},
		{"effects", items(14), func(b []byte) error { _, err := DecodeReceipt(b); return err }},
		{"unknown", items(99), func(b []byte) error { _, err := DecodeReceipt(b); return err }},
		{"entries", listing, func(b []byte) error { _, err := DecodeAnswer(b); return err }},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := test.decode(test.b)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: taken", test.name)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%s: %d KiB allocated", test.name, used>>10)
		}
	}
}

// Every field of every message must be of a kind that strict knows, and every
// repeated one bounded; members of oneofs come last.
func TestStrictKnowsEveryField(t *testing.T) {
	seen := 0
	messages := scriptpb.File_circles_v1_script_proto.Messages()
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		lastPlain := protowire.Number(0)
		for j := range fields.Len() {
			fd := fields.Get(j)
			seen++
			switch fd.Kind() {
			case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind,
				protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.Uint32Kind, protoreflect.EnumKind, protoreflect.BoolKind:
			default:
				t.Errorf("%s is a %s", fd.FullName(), fd.Kind())
			}
			if fd.IsList() && (maxItems[fd.FullName()] == 0 || fd.Kind() == protoreflect.EnumKind) {
				t.Errorf("%s has no bound, or would be packed", fd.FullName())
			}
			if fd.ContainingOneof() == nil {
				lastPlain = max(lastPlain, fd.Number())
			}
		}
		for j := range fields.Len() {
			if fd := fields.Get(j); fd.ContainingOneof() != nil && fd.Number() < lastPlain {
				t.Errorf("%s has a lower number than a field outside its oneof", fd.FullName())
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d fields seen", seen)
	}
}

func TestReceiptSkipsWhatANewerHostAdds(t *testing.T) {
	r := sampleReceipt(t)
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, 99, protowire.BytesType), []byte("new"))
	got, err := DecodeReceipt(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, r) {
		t.Errorf("%+v", got)
	}
	r.Code = 77
	if b, err = r.Encode(); err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeReceipt(b); err != nil || got.Code.String() != "code-77" {
		t.Errorf("a newer code: %v, %v", got.Code, err)
	}
}

// A script must not be able to have no receipt by what it does.
func TestReceiptOfAHostileScriptEncodes(t *testing.T) {
	huge := strings.Repeat("\xff\xfeä", 20<<20/4)
	effects := make([]Effect, 3*MaxEffects)
	for i := range effects {
		effects[i] = Effect{Kind: Created, Path: "/" + strings.Repeat("x", 200) + fmt.Sprint(i), After: Blob{1, Digest{1}}}
	}
	for name, change := range map[string]func(*Receipt){
		"message":       func(r *Receipt) { r.Message = huge },
		"message, NULs": func(r *Receipt) { r.Message = strings.Repeat("\x00\x1b", 1<<20) },
		"odd messages":  func(r *Receipt) { r.Message = strings.Repeat("\xff", MaxMessage) },
		"log":           func(r *Receipt) { r.Log = []byte(huge) },
		"policies":      func(r *Receipt) { r.Policies = strings.Split(strings.Repeat(huge[:1000]+",", 10_000), ",") },
		"entry":         func(r *Receipt) { r.Entry, r.ModuleName = huge, huge },
		"effects":       func(r *Receipt) { r.Effects = effects },
		"long path":     func(r *Receipt) { r.Effects = []Effect{{Kind: Created, Path: "/" + huge[:MaxPath]}} },
		"long link":     func(r *Receipt) { r.Effects = []Effect{{Kind: Linked, Path: "/a", To: huge[:MaxPath+1]}} },
		"clock":         func(r *Receipt) { r.Usage.Wall = -1 },
		"all": func(r *Receipt) {
			r.Message, r.Log, r.Effects, r.Result = huge, []byte(huge), effects, make([]byte, MaxResult)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := sampleReceipt(t)
			change(&r)
			b, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > MaxSealed-1024 {
				t.Errorf("%d bytes", len(b))
			}
			got, err := DecodeReceipt(b)
			if err != nil {
				t.Fatal(err)
			}
			if want := r.MoreEffects + uint64(len(r.Effects)); got.MoreEffects+uint64(len(got.Effects)) != want {
				t.Errorf("%d effects and %d more of %d", len(got.Effects), got.MoreEffects, want)
			}
			if len(r.Message) > MaxMessage && !strings.HasSuffix(got.Message, "…") {
				t.Errorf("a cut message does not show it: …%q", got.Message[len(got.Message)-10:])
			}
		})
	}
	r := sampleReceipt(t)
	r.Result = make([]byte, MaxResult+1)
	if _, err := r.Encode(); err == nil {
		t.Error("a result that does not fit was cut or taken")
	}
	r = sampleReceipt(t)
	r.Host = ""
	if _, err := r.Encode(); err == nil {
		t.Error("a receipt by nobody")
	}
}

func TestCutText(t *testing.T) {
	for _, s := range []string{"", "a", "abcdefgh", "abcdefghi", "ääää", "äääää", "\xff", "\xff\xffabcdefg", "aaaaaaa\xff", strings.Repeat("\xff ", 9), "aaaaaaaä"} {
		got := cutText(s, 8)
		if len(got) > 8 || !utf8.ValidString(got) {
			t.Errorf("%q became %q", s, got)
		}
		if utf8.ValidString(s) && len(s) <= 8 && got != s {
			t.Errorf("%q became %q", s, got)
		}
		if len(s) > 8 && !strings.HasSuffix(got, "…") {
			t.Errorf("%q became %q, which does not show that it was cut", s, got)
		}
	}
}

func TestQuestionAndAnswerBounds(t *testing.T) {
	for name, change := range map[string]func(*Question){
		"no script":      func(q *Question) { q.Script = ID{} },
		"no seq":         func(q *Question) { q.Seq = 0 },
		"unknown op":     func(q *Question) { q.Op = 9 },
		"no op":          func(q *Question) { q.Op = 0 },
		"up":             func(q *Question) { q.Path = "/../x" },
		"relative":       func(q *Question) { q.Path = "x" },
		"far":            func(q *Question) { q.Offset = 1 << 63 },
		"nothing":        func(q *Question) { q.Length = 0 },
		"too much":       func(q *Question) { q.Length = MaxData + 1 },
		"long list":      func(q *Question) { q.Op, q.Length = AskList, MaxListing+1 },
		"stat of length": func(q *Question) { q.Op, q.Offset = AskStat, 0 },
		"stat at offset": func(q *Question) { q.Op, q.Length = AskStat, 0 },

		"get of a path":       func(q *Question) { q.Op, q.Path = AskGet, "/notes/a" },
		"get of a collection": func(q *Question) { q.Op, q.Path = AskGet, "notes" },
		"get of too much":     func(q *Question) { q.Op, q.Path, q.Length = AskGet, "notes/a", MaxData+1 },
		"read of a record":    func(q *Question) { q.Path = "notes/a" },
		"read from a key":     func(q *Question) { q.From = "a" },
		"get with a prefix":   func(q *Question) { q.Op, q.Path, q.Prefix = AskGet, "notes/a", "a" },
		"query of a record":   func(q *Question) { q.Op, q.Path, q.Offset = AskQuery, "notes/a", 0 },
		"query of a path":     func(q *Question) { q.Op, q.Path, q.Offset = AskQuery, "/notes", 0 },
		"query at offset":     func(q *Question) { q.Op, q.Path = AskQuery, "notes" },
		"query of too much":   func(q *Question) { q.Op, q.Path, q.Offset, q.Length = AskQuery, "notes", 0, MaxRecords+1 },
		"query of a long prefix": func(q *Question) {
			q.Op, q.Path, q.Offset, q.Prefix = AskQuery, "notes", 0, strings.Repeat("k", MaxKey+1)
		},
		"find in a record":   func(q *Question) { q.Op, q.Path, q.Offset, q.Length = AskFind, "notes/a", 0, 9 },
		"find at offset":     func(q *Question) { q.Op, q.Path, q.Length = AskFind, "notes", 9 },
		"find too much":      func(q *Question) { q.Op, q.Path, q.Offset, q.Length = AskFind, "notes", 0, MaxRecords+1 },
		"find with a prefix": func(q *Question) { q.Op, q.Path, q.Offset, q.Length, q.Prefix = AskFind, "notes", 0, 9, "a" },
		"find by too long a query": func(q *Question) {
			q.Op, q.Path, q.Offset, q.Length, q.Find = AskFind, "notes", 0, 9, strings.Repeat(" ", MaxFind+1)
		},
		"find from too far": func(q *Question) {
			q.Op, q.Path, q.Offset, q.Length, q.From = AskFind, "notes", 0, 9, strings.Repeat(" ", MaxFind+1)
		},
		"read by a query":         func(q *Question) { q.Find = "{}" },
		"query from what is none": func(q *Question) { q.Op, q.Path, q.Offset, q.From = AskQuery, "notes", 0, "\xff" },
	} {
		q := sampleQuestion()
		change(&q)
		if _, err := q.Encode(); err == nil {
			t.Errorf("question, %s: encoded", name)
		} else if b, err := marshal(&scriptpb.Question{Script: q.Script.bytes(), Seq: q.Seq, Op: scriptpb.Op(q.Op), Path: q.Path, Offset: q.Offset, Length: q.Length,
			From: q.From, Prefix: strings.ToValidUTF8(q.Prefix, "?"), Query: q.Find}); err != nil && q.From != "\xff" {
			t.Errorf("question, %s: %v", name, err)
		} else if _, err := DecodeQuestion(b); err == nil {
			t.Errorf("question, %s: decoded", name)
		}
	}
	names := func(n ...string) (e []ListEntry) {
		for _, n := range n {
			e = append(e, ListEntry{n, KindFile})
		}
		return e
	}
	d := Digest{1}
	for name, a := range map[string]Answer{
		"no question":    {Op: AskRead},
		"no answer":      {Question: d},
		"both":           {Question: d, Op: AskRead, Problem: &Problem{ProblemIO, "x"}},
		"no code":        {Question: d, Problem: &Problem{0, "x"}},
		"much data":      {Question: d, Op: AskRead, Data: make([]byte, MaxData+1)},
		"many entries":   {Question: d, Op: AskList, Entries: make([]ListEntry, MaxListing+1)},
		"empty name":     {Question: d, Op: AskList, Entries: names("")},
		"dot":            {Question: d, Op: AskList, Entries: names(".")},
		"dot dot":        {Question: d, Op: AskList, Entries: names("a", "..")},
		"slash":          {Question: d, Op: AskList, Entries: names("a/b")},
		"NUL":            {Question: d, Op: AskList, Entries: names("a\x00")},
		"long name":      {Question: d, Op: AskList, Entries: names(strings.Repeat("a", MaxFileName+1))},
		"name not UTF-8": {Question: d, Op: AskList, Entries: names("\xff")},
		"kind of entry":  {Question: d, Op: AskList, Entries: []ListEntry{{"a", 9}}},
		"kind":           {Question: d, Op: AskStat, Stat: Stat{Kind: 0}},
		"late":           {Question: d, Op: AskStat, Stat: Stat{KindFile, 1, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		"much value":     {Question: d, Op: AskGet, Value: make([]byte, MaxData+1)},
		"many records":   {Question: d, Op: AskQuery, Records: make([]Record, MaxRecords+1)},
		"large records":  {Question: d, Op: AskQuery, Records: []Record{{"a", make([]byte, MaxRecordBytes), false}}},
		"no key":         {Question: d, Op: AskQuery, Records: []Record{{"", nil, false}}},
		"key with NUL":   {Question: d, Op: AskQuery, Records: []Record{{"a\x00", nil, false}}},
		"denied and not": {Question: d, Op: AskQuery, Records: []Record{{"a", []byte("x"), true}}},
		"next is no key": {Question: d, Op: AskQuery, Next: strings.Repeat("k", MaxKey+1)},
		"next too far":   {Question: d, Op: AskFind, Next: strings.Repeat("k", MaxFind+1)},
		"next no text":   {Question: d, Op: AskFind, Next: "\xff"},
	} {
		if _, err := a.Encode(); err == nil {
			t.Errorf("answer, %s: encoded", name)
		}
	}
	old := Answer{Question: d, Op: AskStat, Stat: Stat{Kind: KindFile, Modified: time.Unix(-5, 0)}}
	b, err := old.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeAnswer(b); err != nil || got.Stat.Modified.Unix() != 0 {
		t.Errorf("a file of 1969: %v, %v", got.Stat.Modified, err)
	}
	long := Answer{Question: d, Problem: &Problem{ProblemIO, strings.Repeat("\xff", 1<<20)}}
	if b, err := long.Encode(); err != nil {
		t.Error(err)
	} else if _, err := DecodeAnswer(b); err != nil {
		t.Error(err)
	}
	q := Question{Op: AskRead, Length: 2}
	for _, a := range []Answer{{Op: AskList}, {Op: AskStat}, {Op: AskRead, Data: []byte("abc")}, {}} {
		if q.Fits(&a) == nil {
			t.Errorf("%+v fits a question for two bytes", a)
		}
	}
	q = Question{Op: AskGet, Length: 2}
	for _, a := range []Answer{{Op: AskRead}, {Op: AskGet, Value: []byte("abc")}, {Op: AskQuery}} {
		if q.Fits(&a) == nil {
			t.Errorf("%+v fits a question for two bytes of a record", a)
		}
	}
	q = Question{Op: AskFind, Length: 1}
	for _, a := range []Answer{{Op: AskQuery}, {Op: AskFind, Records: make([]Record, 2)}} {
		if q.Fits(&a) == nil {
			t.Errorf("%+v fits a question for one record", a)
		}
	}
	q = Question{Op: AskQuery, Length: 2, Prefix: "b/", From: "b/2"}
	of := func(next string, keys ...string) Answer {
		a := Answer{Op: AskQuery, Next: next}
		for _, k := range keys {
			a.Records = append(a.Records, Record{Key: k})
		}
		return a
	}
	for _, a := range []Answer{of(""), of("", "b/2"), of("b/4", "b/2", "b/3")} {
		if err := q.Fits(&a); err != nil {
			t.Errorf("%+v does not fit: %v", a, err)
		}
	}
	for _, a := range []Answer{of("", "b/2", "b/3", "b/4"), of("", "b/1"), of("", "c"), of("", "b/3", "b/2"), of("", "b/2", "b/2"), of("b/2"), of("b/2", "b/2"), of("c", "b/2")} {
		if q.Fits(&a) == nil {
			t.Errorf("%+v fits", a)
		}
	}
	q = Question{Op: AskList, Length: 1}
	if q.Fits(&Answer{Op: AskList, Entries: names("a", "b")}) == nil {
		t.Error("two entries fit a question for one")
	}
}

func TestTexts(t *testing.T) {
	for c, want := range map[Code]string{Done: "done", Refused: "refused", NotFound: "not-found", OutOfMemory: "out-of-memory", 200: "code-200"} {
		if c.String() != want {
			t.Errorf("%d is %q", uint8(c), c)
		}
	}
	for i := range 256 {
		var got Code
		b, _ := Code(i).MarshalText()
		if err := got.UnmarshalText(b); err != nil || got != Code(i) {
			t.Errorf("%s became %s, %v", b, got, err)
		}
	}
	for _, bad := range []string{"", "Done", "code-1", "code-001", "code-256", "code--1"} {
		if err := new(Code).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is a code", bad)
		}
	}
	d := DigestOf([]byte("x"))
	const digits = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
	for format, want := range map[string]string{"%s": "sha256:" + digits, "%v": "sha256:" + digits, "%x": digits, "%X": strings.ToUpper(digits), "%q": `"sha256:` + digits + `"`, "%.10s": "sha256:2d7"} {
		if got := fmt.Sprintf(format, d); got != want {
			t.Errorf("%s: %s", format, got)
		}
	}
	for _, s := range []string{d.String(), digits, strings.ToUpper(digits)} {
		if got, err := ParseDigest(s); err != nil || got != d {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, bad := range []string{"", "sha256:", digits[1:], digits + "0", "sha512:" + digits, strings.Repeat("g", 64), strings.Repeat("0", 64)} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("%q is a digest", bad)
		}
	}
}

func TestReceiptJSON(t *testing.T) {
	r := sampleUndone(t)
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	byPointer, err := json.Marshal(&r)
	if err != nil || !bytes.Equal(b, byPointer) {
		t.Errorf("a receipt and a pointer to it differ: %s, %v", byPointer, err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]any{
		"script": Digest{1}.String(), "caller": string(r.Caller), "target": string(r.Target), "host": string(r.Host),
		"code": "done", "message": "fine", "module": Digest{2}.String(), "module_name": "guestbook", "entry": "sign",
		"result": `{"ok":true}`, "exit_code": 3.0, "log": "signed\n", "more_effects": 7.0,
		"started": "2026-01-02T12:00:00.345Z", "finished": "2026-01-02T12:00:00.346Z",
	} {
		if !reflect.DeepEqual(got[field], want) {
			t.Errorf("%s is %v, want %v", field, got[field], want)
		}
	}
	effects := got["effects"].([]any)
	if e := effects[0].(map[string]any); e["kind"] != "created" || e["path"] != "/book/a" || e["after"].(map[string]any)["size"] != 5.0 || e["before"] != nil {
		t.Errorf("first effect: %v", e)
	}
	if e := effects[3].(map[string]any); e["path"] != nil || e["path_base64"] != base64.StdEncoding.EncodeToString([]byte("/not-\xffutf8")) {
		t.Errorf("path that is not UTF-8: %v", e)
	}
	if e := effects[4].(map[string]any); e["before"] != nil || e["after"] != nil || e["end"].(map[string]any)["at"] != float64(1<<30) ||
		e["end"].(map[string]any)["before"] != nil || e["end"].(map[string]any)["after"].(map[string]any)["size"] != 12.0 {
		t.Errorf("end of a file: %v", e)
	}
	if b, err := json.Marshal(sampleHeld(t)); err != nil {
		t.Error(err)
	} else if want := fmt.Sprintf(`"code":"pending"%s"expires":"2026-01-02T13:00:00.345Z","pending":%q,"decision":%q,"decided":%q`, "|", Digest{10}, ID{11}, ID{12}); !within(string(b), want) {
		t.Errorf("%s does not say %s", b, want)
	}
	if got["undid"] != (ID{8}).String() || got["kept"] != (Digest{9}).String() {
		t.Errorf("undid %v, kept %v", got["undid"], got["kept"])
	}
	r.Result = []byte{0xff}
	b, _ = json.Marshal(r)
	if !bytes.Contains(b, []byte(`"result_base64":"/w=="`)) || bytes.Contains(b, []byte(`"result":`)) {
		t.Errorf("result that is not UTF-8: %s", b)
	}
	bare, err := json.Marshal(Receipt{Code: Refused})
	if err != nil || !bytes.Contains(bare, []byte(`"code":"refused"`)) || bytes.Contains(bare, []byte("module")) {
		t.Errorf("bare: %s, %v", bare, err)
	}
}

// within reports whether the parts of want, which "|" separates, are in text.
func within(text, want string) bool {
	for part := range strings.SplitSeq(want, "|") {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// fuzz holds, for any bytes: a decoder takes only what encodes to the same bytes,
// and what a tolerant one skipped stays away.
func fuzz(f *testing.F, name string) {
	for _, c := range codecs(f) {
		if c.name == name {
			f.Add(c.sample)
		}
	}
	all := codecs(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range all {
			if c.name != name {
				continue
			}
			encode, err := c.decode(b)
			if err != nil {
				if len(err.Error()) > 2000 {
					t.Fatalf("an error of %d bytes", len(err.Error()))
				}
				return
			}
			again, err := encode()
			if err != nil {
				t.Fatalf("decoded, but does not encode: %v", err)
			}
			if bytes.Equal(again, b) {
				return
			}
			if !hasUnknown(t, c, b) {
				t.Fatalf("%x is a second encoding of %x", b, again)
			}
			encode, err = c.decode(again)
			if err != nil {
				t.Fatal(err)
			}
			if !reencodes(encode, again) {
				t.Fatalf("%x does not come back", again)
			}
			return
		}
	})
}

func FuzzDecodeScript(f *testing.F)   { fuzz(f, "script") }
func FuzzDecodeReceipt(f *testing.F)  { fuzz(f, "receipt") }
func FuzzDecodeQuestion(f *testing.F) { fuzz(f, "question") }
func FuzzDecodeAnswer(f *testing.F)   { fuzz(f, "answer") }

func FuzzDecodeDelegation(f *testing.F) { fuzz(f, "delegation") }

// FuzzStrict: what strict passes is what the library itself would write.
func FuzzStrict(f *testing.F) {
	for _, c := range codecs(f) {
		f.Add(c.sample)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []proto.Message{&scriptpb.Script{}, &scriptpb.Receipt{}, &scriptpb.Question{}, &scriptpb.Answer{}, &scriptpb.Envelope{}} {
			if unmarshal(b, m, false) != nil {
				continue
			}
			again, err := marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, again) {
				t.Fatalf("%T: %x, the library writes %x", m, b, again)
			}
		}
	})
}

func BenchmarkDecodeScript(b *testing.B) {
	enc := codecs(b)[0].sample
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeScript(enc); err != nil {
			b.Fatal(err)
		}
	}
}
