package envelope

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// The people of these tests, by the seeds of their keys: alice lets carol act for
// her at bob's, and carol passes it on to dave, and he to erin.
const (
	alice = 1
	bob   = 2
	carol = 3
	dave  = 4
	erin  = 5
	frank = 6
)

// chain is delegations from alice to carol, to dave, to …, each as wide as it may be.
func chain(t testing.TB, n int, change ...func(i int, d *script.Delegation)) [][]byte {
	t.Helper()
	var sealed [][]byte
	var parent script.Digest
	holders := []byte{alice, carol, dave, erin, frank, 7}
	for i := range n {
		d := script.Delegation{
			To: key(t, holders[i+1]).ID(), Parent: parent, Nonce: script.Nonce{byte(i + 1)},
			NotAfter: noon.Add(time.Hour), Depth: uint32(max(script.MaxChain-1-i, 0)),
			Targets: []peer.ID{key(t, bob).ID()}, Entries: []string{"guestbook"},
			Allows: []script.Grant{{Action: script.Read, Path: "/a"}, {Action: script.Get, Path: "cards"}},
		}
		for _, c := range change {
			c(i, &d)
		}
		b, id, err := SealDelegation(d, key(t, holders[i]))
		if err != nil {
			t.Fatal(err)
		}
		sealed, parent = append(sealed, b), id
	}
	return sealed
}

// onBehalf is a script with a chain, sealed without looking whether that is right.
func onBehalf(t testing.TB, links [][]byte, signer byte, change ...func(*script.Script)) []byte {
	t.Helper()
	s := sample(t)
	s.Caller, s.Chain = key(t, alice).ID(), links
	for _, c := range change {
		c(&s)
	}
	payload, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return seal(scriptType, payload, key(t, signer))
}

func TestOnBehalf(t *testing.T) {
	for n, signer := range map[int]byte{1: carol, 2: dave, 3: erin, script.MaxChain: frank} {
		links := chain(t, n)
		s := sample(t)
		s.Chain = links
		b, id, err := SealScript(s, key(t, signer))
		if err != nil {
			t.Fatal(err)
		}
		v, err := Open(t.Context(), b, noon, bobs(t))
		if err != nil {
			t.Fatalf("%d links: %v", n, err)
		}
		if v.Script().Caller != key(t, alice).ID() || v.Signer() != key(t, signer).ID() || v.ID() != id {
			t.Errorf("from %s, signed by %s", v.Script().Caller, v.Signer())
		}
		if via := v.Via(); len(v.Chain()) != n || len(via) != n || via[0] != key(t, carol).ID() || via[n-1] != v.Signer() {
			t.Errorf("by way of %v", via)
		}
	}
	v, err := Open(t.Context(), sealed(t, sample(t), key(t, alice)), noon, bobs(t))
	if err != nil || v.Chain() != nil || v.Via() != nil || v.Signer() != key(t, alice).ID() {
		t.Errorf("without a chain: %+v, %v", v, err)
	}
}

// Whatever a holder of a chain makes of it that gives more than was given, or is
// not it, is refused, and is told why.
func TestChainsThatAreRefused(t *testing.T) {
	at := func(n int, f func(*script.Delegation)) func(int, *script.Delegation) {
		return func(i int, d *script.Delegation) {
			if i == n {
				f(d)
			}
		}
	}
	two := chain(t, 2)
	// Another delegation of alice's to carol, and of carol's to dave.
	foreign := chain(t, 2, func(_ int, d *script.Delegation) { d.Nonce[1] = 9 })
	byOther, _, err := SealDelegation(script.Delegation{To: key(t, dave).ID(), NotAfter: noon.Add(time.Hour), Targets: []peer.ID{key(t, bob).ID()}, Entries: []string{"*"}}, key(t, frank))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		links  [][]byte
		signer byte
		hint   string
	}{
		{"the first is missing", two[1:], dave, "parent: it passes on"},
		{"the last is missing", two[:1], dave, "ends with a delegation to"},
		{"the last is not for the signer", two, carol, "ends with a delegation to"},
		{"by the caller itself", two, alice, "ends with a delegation to"},
		{"reordered", [][]byte{two[1], two[0]}, carol, "parent"},
		{"twice the same", [][]byte{two[0], two[0]}, carol, "parent"},
		{"extended by somebody else's", append(slices.Clone(two[:1]), byOther), dave, "parent"},
		{"one of another chain", [][]byte{two[0], foreign[1]}, dave, "parent: it passes on another"},
		{"by another than it says", [][]byte{byOther}, dave, "begins with a delegation by"},
		{"of no delegations but a script", [][]byte{sealed(t, sample(t), key(t, alice))}, carol, "is of type"},
		{"more often than it may be passed on", chain(t, 2, func(i int, d *script.Delegation) { d.Depth = 0 }), dave, "depth: the one before it may not be passed on"},
		{"deeper", chain(t, 2, func(i int, d *script.Delegation) { d.Depth = 2 }), dave, "depth: 2"},
		{"for longer", chain(t, 2, at(1, func(d *script.Delegation) { d.NotAfter = noon.Add(2 * time.Hour) })), dave, "not-after"},
		{"for another target", chain(t, 2, at(1, func(d *script.Delegation) { d.Targets = append(d.Targets, key(t, erin).ID()) })), dave, "targets"},
		{"for another module", chain(t, 2, at(1, func(d *script.Delegation) { d.Entries = []string{"calendar"} })), dave, "entries"},
		{"for any module", chain(t, 2, at(1, func(d *script.Delegation) { d.Entries = []string{"*"} })), dave, "entries"},
		{"for every entry", chain(t, 2, at(0, func(d *script.Delegation) { d.Entries = []string{"guestbook:sign"} })), dave, "entries"},
		{"another action", chain(t, 2, at(1, func(d *script.Delegation) { d.Allows = []script.Grant{{Action: script.Write, Path: "/a"}} })), dave, "allows"},
		{"a path above", chain(t, 2, at(1, func(d *script.Delegation) { d.Allows = []script.Grant{{Action: script.Read, Path: "/"}} })), dave, "allows"},
		{"a path that begins alike", chain(t, 2, at(1, func(d *script.Delegation) { d.Allows = []script.Grant{{Action: script.Read, Path: "/ab"}} })), dave, "allows"},
		{"another collection", chain(t, 2, at(1, func(d *script.Delegation) { d.Allows = []script.Grant{{Action: script.Get, Path: "cards-2"}} })), dave, "allows"},
		{"in a circle", chain(t, 2, at(1, func(d *script.Delegation) { d.To = key(t, alice).ID() })), alice, "goes in a circle"},
		{"at another's", chain(t, 1, at(0, func(d *script.Delegation) { d.Targets = []peer.ID{key(t, erin).ID()} })), carol, "targets: delegation"},
	} {
		_, err := Open(t.Context(), onBehalf(t, test.links, test.signer), noon, bobs(t))
		if k := KindOf(err); err == nil || k != Unauthenticated && k != Malformed || !strings.Contains(err.Error(), test.hint) {
			t.Errorf("%s: %v", test.name, err)
		}
		s := sample(t)
		s.Caller, s.Chain = key(t, alice).ID(), test.links
		if _, _, err := SealScript(s, key(t, test.signer)); err == nil {
			t.Errorf("%s: sealed", test.name)
		}
	}
	other := func(s *script.Script) { s.Caller = key(t, erin).ID() }
	if _, err := Open(t.Context(), onBehalf(t, two, dave, other), noon, bobs(t)); err == nil || !strings.Contains(err.Error(), "its chain begins with") {
		t.Errorf("for a caller who delegated nothing: %v", err)
	}
	if _, err := OpenChain(chain(t, script.MaxChain+1, func(_ int, d *script.Delegation) { d.Depth = 3 })); KindOf(err) != Malformed {
		t.Errorf("a chain that is too long: %v", err)
	}
	if _, err := OpenChain(nil); KindOf(err) != Malformed {
		t.Errorf("no chain: %v", err)
	}
	d := script.Delegation{Issuer: key(t, bob).ID(), To: key(t, carol).ID(), NotAfter: noon, Targets: []peer.ID{key(t, bob).ID()}, Entries: []string{"*"}}
	if _, _, err := SealDelegation(d, key(t, alice)); err == nil || !strings.Contains(err.Error(), "issuer's key") {
		t.Errorf("sealed in another's name: %v", err)
	}
	for range script.MaxAllows {
		d.Allows = append(d.Allows, script.Grant{Action: script.Read, Path: "/" + strings.Repeat("a", 1000)})
	}
	if _, _, err := SealDelegation(d, key(t, bob)); KindOf(err) != TooLarge {
		t.Errorf("sealed what nobody takes: %v", err)
	}
}

// A holder may change the links that it carries, and signs what it makes of them.
func TestEveryByteOfEveryLink(t *testing.T) {
	links := chain(t, 2)
	for i := range links {
		whole := slices.Clone(links[i])
		for n, was := range whole {
			links[i][n] = was ^ 1<<(n%8)
			if _, err := OpenChain(links); KindOf(err) != Malformed && KindOf(err) != Unauthenticated {
				t.Fatalf("byte %d of link %d changed from %#x to %#x: %v", n, i, was, links[i][n], err)
			}
			links[i][n] = was
		}
		for n := range whole {
			links[i] = whole[:n]
			if _, err := OpenChain(links); err == nil {
				t.Fatalf("link %d cut to %d bytes is taken", i, n)
			}
		}
		links[i] = whole
	}
	if _, err := OpenChain(links); err != nil {
		t.Fatal(err)
	}
}

// A chain that is wrong for any other reason costs no verification, however its
// links are signed; and one whose links nobody signed is none.
func TestSignaturesAreCheckedLast(t *testing.T) {
	forged := func(links [][]byte) [][]byte {
		for _, b := range links {
			b[len(b)-1] ^= 1
		}
		return links
	}
	wide := forged(chain(t, 4, func(i int, d *script.Delegation) {
		if i == 3 {
			d.Entries = []string{"*"}
		}
	}))
	if _, err := OpenChain(wide); err == nil || !strings.Contains(err.Error(), "delegation 4: entries") {
		t.Errorf("%v", err)
	}
	for i := range 4 {
		links := chain(t, 4)
		forged(links[i : i+1])
		if _, err := OpenChain(links); KindOf(err) != Unauthenticated || !strings.Contains(err.Error(), fmt.Sprintf("delegation %d: the signature", i+1)) {
			t.Errorf("link %d forged: %v", i+1, err)
		}
	}
}

func TestDelegationTimes(t *testing.T) {
	until := func(n int, end time.Time) [][]byte {
		return chain(t, n, func(_ int, d *script.Delegation) { d.NotAfter = end })
	}
	for _, test := range []struct {
		name string
		end  time.Time
		want Kind
	}{
		{"good", noon.Add(time.Second), 0},
		{"over, within the skew of clocks", noon.Add(-ClockSkew), 0},
		{"over", noon.Add(-ClockSkew - time.Millisecond), Expired},
		{"as long as may be", noon.Add(script.MaxDelegated), 0},
		{"for ever", noon.AddDate(100, 0, 0), Expired},
	} {
		if _, err := Open(t.Context(), onBehalf(t, until(2, test.end), dave), noon, bobs(t)); KindOf(err) != test.want {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	// The last link ends first.
	links := chain(t, 2, func(i int, d *script.Delegation) {
		if i == 1 {
			d.NotAfter = noon.Add(-time.Minute)
		}
	})
	if _, err := Open(t.Context(), onBehalf(t, links, dave), noon, bobs(t)); KindOf(err) != Expired {
		t.Errorf("%v", err)
	}
}

// A script that is delivered again after its chain has ended gets its receipt, and
// its nonce is one of the signer's on behalf of the caller, not one of the caller's.
func TestOnBehalfReplay(t *testing.T) {
	b := onBehalf(t, chain(t, 1), carol)
	p, _ := split(b)
	known := &behalfLog{log: *bobs(t), signer: key(t, carol).ID(), id: script.IDOf(p.payload)}
	v, err := Open(t.Context(), b, noon.AddDate(1, 0, 0), known)
	if err != nil || string(v.Prior()) != "receipt" {
		t.Errorf("%v, %v", v, err)
	}
	if known.signer = key(t, alice).ID(); true {
		if v, err := Open(t.Context(), b, noon, known); err != nil || v.Prior() != nil {
			t.Errorf("the caller's nonce was taken for the signer's: %v, %v", v, err)
		}
	}
}

type behalfLog struct {
	log
	signer peer.ID
	id     script.ID
}

func (l *behalfLog) Prior(_ context.Context, caller, signer, _ peer.ID, _ script.Nonce) (script.ID, []byte, bool, error) {
	return l.id, []byte("receipt"), signer == l.signer, nil
}

// Random chains are taken exactly if no link of them allows anything that the one
// before it does not, and what they allow is what every link does.
func TestRandomChains(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	taken, refused, through := 0, 0, 0
	const rounds = 600
	for range rounds {
		links, sealed := randomChain(t, r)
		want := ""
		for i := 1; i < len(links) && want == ""; i++ {
			want = widens(links[i-1], links[i])
		}
		got, err := OpenChain(sealed)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), ": "+want+": ") {
			t.Fatalf("seed %d: %v, but it widens %q: %+v", seed, err, want, links)
		}
		if err != nil {
			refused++
			continue
		}
		taken++
		if len(links) > 1 {
			through++
		}
		leaf := got[len(got)-1]
		for _, p := range probes {
			every := true
			for _, l := range links {
				every = every && allows(l, p)
			}
			if leaf.Allow(p.Action, p.Path) != every {
				t.Fatalf("seed %d: %s of %s: %t by every link, in %+v", seed, p.Action, p.Path, every, links)
			}
		}
		for _, module := range modules {
			for _, entry := range entries {
				every := true
				for _, l := range links {
					every = every && runs(l, module, entry)
				}
				if leaf.Runs(module, script.Digest{}, entry) != every {
					t.Fatalf("seed %d: %s:%s: %t by every link, in %+v", seed, module, entry, every, links)
				}
			}
		}
	}
	if least := rounds / 20; taken < least || refused < least || through < least {
		t.Errorf("%d taken, %d of them passed on, %d refused: that tries too little", taken, through, refused)
	}
}

// What is asked of random chains: names that they may have in them, and one of each
// kind that they have not, so that what covers them all covers everything.
var (
	modules = []string{"a", "b", "none"}
	entries = []string{"x", "y", "none"}
	probes  = func() (list []script.Grant) {
		for _, a := range []script.Action{script.Read, script.Write} {
			for _, p := range []string{"/", "/a", "/a/b", "/a/b/none", "/a/none", "/ab", "/ab/none", "/none"} {
				list = append(list, script.Grant{Action: a, Path: p})
			}
		}
		for _, p := range []string{"c", "c/k", "c/k/none", "c/none", "cc", "cc/none"} {
			list = append(list, script.Grant{Action: script.Get, Path: p})
		}
		return list
	}()
)

func randomChain(t *testing.T, r *rand.Rand) (links []script.Delegation, sealed [][]byte) {
	some := func(n int) int { return r.IntN(n) }
	var parent script.Digest
	for i := range 1 + some(script.MaxChain) {
		d := script.Delegation{
			Issuer: key(t, byte(10+i)).ID(), To: key(t, byte(11+i)).ID(), Parent: parent, Nonce: script.Nonce{1},
			NotAfter: noon.Add(time.Duration(10-2*i+some(4)) * time.Minute), Depth: uint32(max(0, script.MaxChain-1-i)),
		}
		if some(10) == 0 {
			d.Depth = uint32(some(script.MaxChain))
		}
		for range 1 + some(3) {
			d.Targets = append(d.Targets, key(t, byte(2+some(3))).ID())
			module := []string{"*", "*", "a", "b"}[some(4)]
			if entry := []string{"", "", "x", "y"}[some(4)]; entry != "" {
				module += ":" + entry
			}
			d.Entries = append(d.Entries, module)
		}
		for range some(4) {
			if some(4) == 0 {
				d.Allows = append(d.Allows, script.Grant{Action: script.Get, Path: []string{"c", "c/k", "cc"}[some(3)]})
				continue
			}
			d.Allows = append(d.Allows, script.Grant{Action: []script.Action{script.Read, script.Write}[some(2)], Path: []string{"/", "/", "/a", "/a/b", "/ab"}[some(5)]})
		}
		if i > 0 && some(4) > 0 { // most pass on some of what was given
			before := links[i-1]
			d.Targets = before.Targets[:1+some(len(before.Targets))]
			d.Entries = before.Entries[:1+some(len(before.Entries))]
			d.Allows = before.Allows[some(len(before.Allows)+1):]
			if d.NotAfter.After(before.NotAfter) {
				d.NotAfter = before.NotAfter
			}
		}
		b, id, err := SealDelegation(d, key(t, byte(10+i)))
		if err != nil {
			t.Fatal(err)
		}
		links, sealed, parent = append(links, d), append(sealed, b), id
	}
	return links, sealed
}

// widens names the first field in which child allows what parent does not, by
// asking about everything that there is.
func widens(parent, child script.Delegation) string {
	if child.Depth >= parent.Depth {
		return "depth"
	}
	if child.NotAfter.Sub(parent.NotAfter) > 0 {
		return "not-after"
	}
	for _, target := range child.Targets {
		if !slices.Contains(parent.Targets, target) {
			return "targets"
		}
	}
	for _, module := range modules {
		for _, entry := range entries {
			if runs(child, module, entry) && !runs(parent, module, entry) {
				return "entries"
			}
		}
	}
	for _, p := range probes {
		if allows(child, p) && !allows(parent, p) {
			return "allows"
		}
	}
	return ""
}

func runs(d script.Delegation, module, entry string) bool {
	for _, e := range []string{"*", "*:" + entry, module, module + ":" + entry} {
		if slices.Contains(d.Entries, e) {
			return true
		}
	}
	return false
}

func allows(d script.Delegation, p script.Grant) bool {
	for _, g := range d.Allows {
		above := strings.HasPrefix(p.Path+"/", strings.TrimSuffix(g.Path, "/")+"/")
		if g.Action.OfRecords() && strings.Contains(g.Path, "/") {
			above = g.Path == p.Path
		}
		if g.Action == p.Action && above {
			return true
		}
	}
	return false
}

func TestRevocationsAndHeads(t *testing.T) {
	b, err := SealRevocation(script.Digest{1}, key(t, alice))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := OpenRevocation(b); err != nil || r.Issuer != key(t, alice).ID() || r.Delegation != (script.Digest{1}) {
		t.Errorf("%+v, %v", r, err)
	}
	r := script.Revocation{Delegation: script.Digest{1}, Issuer: key(t, alice).ID()}
	payload, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRevocation(seal(revocationType, payload, key(t, bob))); KindOf(err) != Unauthenticated {
		t.Errorf("in another's name: %v", err)
	}
	h := script.Head{Context: key(t, bob).ID(), Host: key(t, carol).ID(), Seq: 3, Hash: script.Digest{7}, Time: noon}
	for _, signer := range []byte{carol, alice} {
		if b, err = SealHead(h, key(t, signer)); err != nil {
			t.Fatal(err)
		}
		if got, by, err := OpenHead(b); err != nil || by != key(t, signer).ID() || !reflect.DeepEqual(got, h) {
			t.Errorf("%+v by %s, %v", got, by, err)
		}
	}
	for _, bad := range []script.Head{{Context: h.Context, Host: h.Host, Seq: 0, Hash: h.Hash, Time: noon}, {Context: h.Context, Host: h.Host, Seq: 1, Time: noon}, {Host: h.Host, Seq: 1, Hash: h.Hash, Time: noon}} {
		if _, err := SealHead(bad, key(t, carol)); err == nil {
			t.Errorf("sealed %+v", bad)
		}
	}
	if _, err := SealRevocation(script.Digest{}, key(t, alice)); err == nil {
		t.Error("took nothing back")
	}
}

func FuzzOpenChain(f *testing.F) {
	links := chain(f, 2)
	f.Add(links[0], links[1])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		got, err := OpenChain([][]byte{a, b})
		if err != nil {
			if KindOf(err) == 0 {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if len(got) != 2 || !bytes.Equal(a, links[0]) || !bytes.Equal(b, links[1]) {
			t.Fatalf("forged: %x %x", a, b)
		}
	})
}

// BenchmarkOpenOnBehalf: what each link of a chain adds to BenchmarkOpen.
func BenchmarkOpenOnBehalf(b *testing.B) {
	for n, signer := range map[int]byte{1: carol, script.MaxChain: frank} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			enc, known := onBehalf(b, chain(b, n), signer), bobs(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(b.Context(), enc, noon, known); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
