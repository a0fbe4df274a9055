package host_test

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

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/revoked"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/transport"
)

// link is a delegation for the guestbook of bob's, passed on from what before ends
// with.
func (w *world) link(by *peer.Key, to peer.ID, before [][]byte, change ...func(*script.Delegation)) [][]byte {
	w.Helper()
	d := script.Delegation{
		To: to, NotAfter: time.Now().Add(time.Hour), Depth: uint32(script.MaxChain - 1 - len(before)),
		Targets: []peer.ID{w.entry("bob").ID}, Entries: []string{"guestbook"},
	}
	for _, a := range []script.Action{script.Read, script.Write, script.List} {
		d.Allows = append(d.Allows, script.Grant{Action: a, Path: "/guestbook"})
	}
	if len(before) > 0 {
		chain, err := envelope.OpenChain(before)
		if err != nil {
			w.Fatal(err)
		}
		d.Parent = chain[len(chain)-1].ID
		d.NotAfter = chain[len(chain)-1].NotAfter
	}
	for _, c := range change {
		c(&d)
	}
	sealed, _, err := envelope.SealDelegation(d, by)
	if err != nil {
		w.Fatal(err)
	}
	return append(slices.Clone(before), sealed)
}

// signs is the guestbook's script, sent with a chain.
func (w *world) signs(by *peer.Key, chain [][]byte) script.Receipt {
	w.Helper()
	s := sign("hello")
	s.Lent, s.Chain, s.Target = nil, chain, w.entry("bob").ID
	sealed, id, err := envelope.SealScript(s, by)
	if err != nil {
		w.Fatal(err)
	}
	return w.deliver(sealed, id)
}

func idOf(t testing.TB, chain [][]byte) script.Digest {
	t.Helper()
	links, err := envelope.OpenChain(chain)
	if err != nil {
		t.Fatal(err)
	}
	return links[len(links)-1].ID
}

// Carol sends what alice lets her, as far as bob lets alice: his receipts and his
// log say who it was, on whose behalf, and the script runs as alice's.
func TestOnBehalf(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave")
	w.put("alice", "/card.txt", "Alice Liddell")
	w.allow("bob", guestbookPermit(w, "alice"))
	one := w.link(w.key("alice"), w.entry("carol").ID, nil)
	two := w.link(w.key("carol"), w.entry("dave").ID, one)

	r := w.signs(w.key("dave"), two)
	if r.Code != script.Done || r.Caller != w.entry("alice").ID {
		t.Fatalf("%+v", r)
	}
	want := []script.Via{{Delegation: idOf(t, one), To: w.entry("carol").ID}, {Delegation: idOf(t, two), To: w.entry("dave").ID}}
	if !slices.Equal(r.Via, want) {
		t.Errorf("by way of %+v", r.Via)
	}
	if book := w.read("bob", "/guestbook/entries.txt"); !strings.Contains(book, "alice: hello") || strings.Contains(book, "Liddell") {
		t.Errorf("guestbook: %q", book)
	}
	if log := w.logged("bob"); len(log) != 1 || !slices.Equal(log[0].Via, want) {
		t.Errorf("log of bob: %+v", log)
	}
	if r := w.send("carol", "bob", sign("as myself")); r.Code != script.Refused || len(r.Via) != 0 {
		t.Errorf("carol herself: %v %s", r.Code, r.Message)
	}

	// Less than the guestbook needs.
	narrow := w.link(w.key("alice"), w.entry("carol").ID, nil, func(d *script.Delegation) { d.Allows = d.Allows[:1] })
	r = w.signs(w.key("carol"), narrow)
	if r.Code == script.Done || !strings.Contains(r.Message, "it was denied:") || strings.Contains(r.Message, "; to allow it: ") {
		t.Errorf("with a delegation that lets it read: %v %s", r.Code, r.Message)
	}
	other := w.link(w.key("alice"), w.entry("carol").ID, nil, func(d *script.Delegation) { d.Entries = []string{"guestbook:read"} })
	if r = w.signs(w.key("carol"), other); r.Code != script.Refused || !strings.Contains(r.Message, "carol, on behalf of alice, may not run guestbook:sign") {
		t.Errorf("with a delegation for another entry: %v %s", r.Code, r.Message)
	}
	w.policy("bob", "no-carol", `@id("no-carol") forbid(principal == Peer::"`+string(w.entry("carol").ID)+`", action, resource);`)
	if r = w.signs(w.key("dave"), two); r.Code != script.Refused || !slices.Equal(r.Policies, []string{"no-carol"}) {
		t.Errorf("by way of carol, who is forbidden: %v %s by %v", r.Code, r.Message, r.Policies)
	}
}

// A peer whose key is not on the host that holds its context lets that host send.
func TestHostOnBehalfOfAPeerWhoseKeyItHasNot(t *testing.T) {
	w := newWorld(t, "bob")
	elsewhere, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.root.AddPeer("alice", elsewhere.ID()); err != nil {
		t.Fatal(err)
	}
	w.allow("bob", guestbookPermit(w, "alice"))
	hostKey, err := w.root.Key()
	if err != nil {
		t.Fatal(err)
	}
	chain := w.link(elsewhere, hostKey.ID(), nil)
	if r := w.signs(hostKey, chain); r.Code != script.Done || r.Caller != elsewhere.ID() || r.Via[0].To != hostKey.ID() {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(w.read("bob", "/guestbook/entries.txt"), "alice: hello") {
		t.Error("it did not run as alice's")
	}
	// Through Send, as a program would.
	s := sign("sent")
	s.Lent, s.Chain, s.Target = nil, chain, w.entry("bob").ID
	sent, err := host.Send(t.Context(), sender{w.host}, s, hostKey, w.host.ID(), func(*host.Lender) { t.Error("it was to lend something of alice's") })
	if err != nil || sent.Receipt.Code != script.Done || sent.Receipt.Caller != elsewhere.ID() {
		t.Errorf("%+v, %v", sent.Receipt, err)
	}
}

type sender struct{ *host.Host }

func (s sender) Send(ctx context.Context, sealed []byte, back transport.Back) ([]byte, error) {
	return s.Deliver(ctx, sealed, back)
}

// What was taken back is so for the next script, by whoever may: the target's owner,
// the host's operator, and each who issued the delegation or what it passes on.
func TestRevocation(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave")
	w.allow("bob", guestbookPermit(w, "alice"))
	one := w.link(w.key("alice"), w.entry("carol").ID, nil)
	two := w.link(w.key("carol"), w.entry("dave").ID, one)
	first, second := idOf(t, one), idOf(t, two)
	bobs, all := host.RevokedDir(w.entry("bob")), w.root.RevokedDir()
	by := func(name peer.Name, id script.Digest) []byte {
		sealed, err := envelope.SealRevocation(id, w.key(name))
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	s := sign("before")
	s.Lent, s.Chain, s.Target = nil, two, w.entry("bob").ID
	before, beforeID, err := envelope.SealScript(s, w.key("dave"))
	if err != nil {
		t.Fatal(err)
	}
	done := w.deliver(before, beforeID)
	if done.Code != script.Done {
		t.Fatal(done.Message)
	}
	for _, test := range []struct {
		name   string
		dir    string
		id     script.Digest
		sealed []byte
		holds  bool
	}{
		{"bob, the first", bobs, first, nil, true},
		{"bob, the second", bobs, second, nil, true},
		{"the operator", all, second, nil, true},
		{"alice, her own", bobs, first, by("alice", first), true},
		{"alice, what passes hers on", bobs, second, by("alice", second), true},
		{"alice, for all contexts", all, first, by("alice", first), true},
		{"carol, her own", bobs, second, by("carol", second), true},
		{"carol, what she was given", bobs, first, by("carol", first), false},
		{"dave, who issued none", bobs, second, by("dave", second), false},
		{"another delegation", bobs, script.Digest{1}, nil, false},
	} {
		file, err := revoked.Add(test.dir, test.id, test.sealed)
		if err != nil {
			t.Fatal(err)
		}
		r := w.signs(w.key("dave"), two)
		if held := r.Code == script.Refused; held != test.holds || !held && r.Code != script.Done {
			t.Errorf("%s: %v %s", test.name, r.Code, r.Message)
		}
		if test.holds && (!strings.Contains(r.Message, "was taken back") || strings.Contains(r.Message, "; to allow it: ") || len(r.Via) != 2) {
			t.Errorf("%s: %s, by way of %v", test.name, r.Message, r.Via)
		}
		// What was done stays done, and its receipt is there for who asks.
		if again := w.deliver(before, beforeID); !again.Finished.Equal(done.Finished) {
			t.Errorf("%s: delivered again: %+v", test.name, again)
		}
		if err := os.Remove(filepath.Join(test.dir, file)); err != nil {
			t.Fatal(err)
		}
		if r := w.signs(w.key("dave"), two); r.Code != script.Done {
			t.Errorf("%s: after the file was removed: %v %s", test.name, r.Code, r.Message)
		}
	}
	// A list that cannot be read lets no chain in, and all others.
	if err := os.WriteFile(filepath.Join(bobs, "what-is-this.revoked"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.signs(w.key("dave"), two); r.Code != script.Refused || strings.Contains(r.Message, bobs) {
		t.Errorf("with a list that cannot be read: %v %s", r.Code, r.Message)
	}
	if r := w.send("alice", "bob", sign("myself")); r.Code != script.Done {
		t.Errorf("alice herself: %v %s", r.Code, r.Message)
	}
}

// Nonces on behalf of a caller are not the caller's own, or whoever acts for her
// could use them up.
func TestNoncesOnBehalf(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	w.allow("bob", guestbookPermit(w, "alice"))
	chain := w.link(w.key("alice"), w.entry("carol").ID, nil)
	s := sign("hello")
	s.Lent, s.Nonce, s.Target = nil, script.Nonce{7}, w.entry("bob").ID
	mine, mineID, err := envelope.SealScript(s, w.key("alice"))
	if err != nil {
		t.Fatal(err)
	}
	s.Chain = chain
	hers, hersID, err := envelope.SealScript(s, w.key("carol"))
	if err != nil {
		t.Fatal(err)
	}
	if r := w.deliver(hers, hersID); r.Code != script.Done {
		t.Fatalf("%+v", r)
	}
	if r := w.deliver(mine, mineID); r.Code != script.Done || len(r.Via) != 0 {
		t.Errorf("alice, with a nonce that carol used: %+v", r)
	}
	if r := w.deliver(hers, hersID); len(r.Via) != 1 {
		t.Errorf("delivered again: %+v", r)
	}
	s.Params = []byte(`{"message":"other"}`)
	if hers, _, err = envelope.SealScript(s, w.key("carol")); err != nil {
		t.Fatal(err)
	}
	_, err = w.host.Deliver(t.Context(), hers, nil)
	var e *transport.Error
	if !errors.As(err, &e) || e.Code != transport.Conflict {
		t.Errorf("the same nonce for another script: %v", err)
	}
}

// What a delegation is not for: an undo, which is the owner's alone, the caller's own
// files, and telling a stranger what there is.
func TestWhatIsNotDelegated(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	stranger, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s := script.Script{Logic: script.Logic{Undo: script.ID{1}}, Target: w.entry("bob").ID}
	s.Chain = w.link(w.key("bob"), stranger.ID(), nil)
	if _, _, err := envelope.SealScript(s, stranger); err == nil {
		t.Error("an undo was delegated")
	}
	s = sign("x")
	s.Target, s.Chain = w.entry("bob").ID, w.link(w.key("alice"), stranger.ID(), nil)
	if _, _, err := envelope.SealScript(s, stranger); err == nil {
		t.Error("another's files were lent")
	}
	there := w.signs(stranger, s.Chain)
	if there.Code != script.Refused || !there.Module.IsZero() || strings.Contains(there.Message, "--write") {
		t.Errorf("a stranger was told of a module: %+v", there)
	}
	// Bob's own context, in his name: as far as his policies let himself.
	mine := w.link(w.key("bob"), stranger.ID(), nil)
	if r := w.signs(stranger, mine); r.Code != script.Refused {
		t.Errorf("without a permit: %v", r.Code)
	}
	w.put("bob", "/secret.txt", "secret")
	w.policy("bob", "self", `@id("self") permit(principal, action, resource) when { principal == Peer::"`+string(w.entry("bob").ID)+`" };`)
	if r := w.signs(stranger, mine); r.Code != script.Done || bytes.Contains(r.Result, []byte("secret")) {
		t.Errorf("%v %s %s", r.Code, r.Message, r.Result)
	}
}

// A chain that is over, for another, or not whole has nobody to give a receipt to.
func TestChainsThatAreNone(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	w.allow("bob", guestbookPermit(w, "alice"))
	over := w.link(w.key("alice"), w.entry("carol").ID, nil, func(d *script.Delegation) { d.NotAfter = time.Now().Add(-time.Hour) })
	s := sign("x")
	s.Lent, s.Target, s.Chain = nil, w.entry("bob").ID, over
	sealed, _, err := envelope.SealScript(s, w.key("carol"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.host.Deliver(t.Context(), sealed, nil)
	var e *transport.Error
	if !errors.As(err, &e) || e.Code != transport.Expired || !strings.Contains(e.Message, "was good until") {
		t.Errorf("%v", err)
	}
	if n := len(w.logged("bob")); n != 0 {
		t.Errorf("%d entries in bob's log", n)
	}
}

// A revocation that is sent is kept where the delegation is used, whoever brings it, if
// the target's owner knows who signed it; nobody fills the place.
func TestRevocationIsSent(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave")
	w.allow("bob", guestbookPermit(w, "alice"))
	chain := w.link(w.key("alice"), w.entry("carol").ID, nil)
	stranger, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	dir := host.RevokedDir(w.entry("bob"))
	kept := func() int {
		all, err := revoked.All(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	send := func(by *peer.Key, sealed []byte, dry bool) script.Receipt {
		t.Helper()
		s := script.Script{Target: w.entry("bob").ID, Logic: script.Logic{Revoke: sealed}, DryRun: dry}
		b, id, err := envelope.SealScript(s, by)
		if err != nil {
			t.Fatal(err)
		}
		return w.deliver(b, id)
	}
	revocation := func(by *peer.Key, id script.Digest) []byte {
		sealed, err := envelope.SealRevocation(id, by)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	alices := revocation(w.key("alice"), idOf(t, chain))
	changed := bytes.Clone(alices)
	changed[len(changed)-1] ^= 1
	for name, sealed := range map[string][]byte{"changed": changed, "nonsense": []byte("x"), "a stranger's": revocation(stranger, idOf(t, chain))} {
		if r := send(w.key("alice"), sealed, false); r.Code != script.Refused || kept() != 0 {
			t.Errorf("%s: %v %s; %d are kept", name, r.Code, r.Message, kept())
		}
	}
	// One of somebody who did not issue it is kept, and takes nothing back.
	if r := send(w.key("dave"), revocation(w.key("dave"), idOf(t, chain)), false); r.Code != script.Done {
		t.Errorf("dave's: %v %s", r.Code, r.Message)
	}
	if r := send(stranger, alices, true); r.Code != script.Done || kept() != 1 {
		t.Errorf("a dry run: %v %s; %d are kept", r.Code, r.Message, kept())
	}
	if r := w.signs(w.key("carol"), chain); r.Code != script.Done {
		t.Fatalf("before it: %v %s", r.Code, r.Message)
	}
	r := send(stranger, alices, false)
	if r.Code != script.Done || !slices.Equal(r.Policies, []string{policy.Issuer}) || kept() != 2 || !strings.Contains(string(r.Result), string(w.entry("alice").ID)) {
		t.Errorf("%+v; %d are kept", r, kept())
	}
	if r := w.signs(w.key("carol"), chain); r.Code != script.Refused || !strings.Contains(r.Message, "was taken back by") {
		t.Errorf("after it: %v %s", r.Code, r.Message)
	}
	if r := send(w.key("alice"), alices, false); r.Code != script.Done || kept() != 2 {
		t.Errorf("again: %v; %d are kept", r.Code, kept())
	}
	for n := range 64 {
		r = send(w.key("alice"), revocation(w.key("alice"), script.Digest{1, byte(n)}), false)
	}
	if r.Code != script.Refused || !strings.Contains(r.Message, "64 revocations of yours") || kept() != 65 {
		t.Errorf("too many: %v %s; %d are kept", r.Code, r.Message, kept())
	}
	if r := send(w.key("dave"), revocation(w.key("dave"), script.Digest{9}), false); r.Code != script.Done {
		t.Errorf("dave's, when alice has no room: %v %s", r.Code, r.Message)
	}
}
