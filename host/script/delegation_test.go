package script

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/peer"
)

func TestDelegationsComeBack(t *testing.T) {
	d := sampleDelegation(t)
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeDelegation(b); err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("%+v became %+v, %v", d, got, err)
	}
	s, r := sampleChained(t), sampleVia(t)
	if b, err = s.Encode(); err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeScript(b); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v became %+v, %v", s, got, err)
	}
	if b, err = r.Encode(); err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeReceipt(b); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v became %+v, %v", r, got, err)
	}
}

func TestDelegationBounds(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Delegation)
		hint   string // "": it is fine
	}{
		{"as it is", func(*Delegation) {}, ""},
		{"the first of a chain", func(d *Delegation) { d.Parent = Digest{} }, ""},
		{"no issuer", func(d *Delegation) { d.Issuer = "" }, "issuer"},
		{"to nobody", func(d *Delegation) { d.To = "bob" }, "to:"},
		{"to itself", func(d *Delegation) { d.To = d.Issuer }, "the issuer itself"},
		{"no nonce", func(d *Delegation) { d.Nonce = Nonce{} }, "nonce"},
		{"no end", func(d *Delegation) { d.NotAfter = time.Time{} }, "not-after"},
		{"deepest", func(d *Delegation) { d.Depth = MaxChain - 1 }, ""},
		{"too deep", func(d *Delegation) { d.Depth = MaxChain }, "depth"},
		{"no targets", func(d *Delegation) { d.Targets = nil }, "targets"},
		{"target by name", func(d *Delegation) { d.Targets = []peer.ID{"bob"} }, "targets"},
		{"many targets", func(d *Delegation) { d.Targets = bytesOf(d.Targets[0], MaxTargets+1) }, "targets"},
		{"no entries", func(d *Delegation) { d.Entries = nil }, "entries"},
		{"empty entry", func(d *Delegation) { d.Entries = []string{""} }, "entries"},
		{"entry of no module", func(d *Delegation) { d.Entries = []string{":sign"} }, "entries"},
		{"entry that is empty", func(d *Delegation) { d.Entries = []string{"guestbook:"} }, "entries"},
		{"path for module", func(d *Delegation) { d.Entries = []string{"../x"} }, "entries"},
		{"short digest", func(d *Delegation) { d.Entries = []string{"sha256:12"} }, "entries"},
		{"digest in capitals", func(d *Delegation) { d.Entries = []string{"sha256:" + strings.Repeat("AB", 32)} }, "entries"},
		{"digest", func(d *Delegation) { d.Entries = []string{"sha256:" + strings.Repeat("ab", 32) + ":run"} }, ""},
		{"huge entry", func(d *Delegation) { d.Entries = []string{strings.Repeat("a", 1<<12)} }, "entries"},
		{"many entries", func(d *Delegation) { d.Entries = bytesOf("*", MaxEntries+1) }, "entries"},
		{"nothing allowed", func(d *Delegation) { d.Allows = nil }, ""},
		{"no action", func(d *Delegation) { d.Allows = []Grant{{"own", "/"}} }, "allows"},
		{"path that climbs", func(d *Delegation) { d.Allows = []Grant{{Read, "/a/.."}} }, "allows"},
		{"record by path", func(d *Delegation) { d.Allows = []Grant{{Get, "/cards"}} }, "allows"},
		{"many allowed", func(d *Delegation) { d.Allows = bytesOf(Grant{Read, "/a"}, MaxAllows+1) }, "allows"},
	} {
		d := sampleDelegation(t)
		test.change(&d)
		b, err := d.Encode()
		if test.hint == "" {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			} else if got, err := DecodeDelegation(b); err != nil || !reflect.DeepEqual(got, d) {
				t.Errorf("%s: became %+v, %v", test.name, got, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.hint) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func bytesOf[T any](of T, n int) (list []T) {
	for range n {
		list = append(list, of)
	}
	return list
}

func TestChainBounds(t *testing.T) {
	for name, change := range map[string]func(*Script){
		"too long":    func(s *Script) { s.Chain = bytesOf([]byte("x"), MaxChain+1) },
		"empty":       func(s *Script) { s.Chain = [][]byte{{}} },
		"too large":   func(s *Script) { s.Chain = [][]byte{make([]byte, MaxDelegation+1)} },
		"that lends":  func(s *Script) { s.Lent = []Grant{{Read, "/a"}} },
		"for an undo": func(s *Script) { s.Logic, s.Entry, s.Params = Logic{Undo: ID{1}}, "", nil },
		"for a decision": func(s *Script) {
			s.Logic, s.Entry, s.Params = Logic{Decide: Decision{Ruling: Approve, Script: ID{1}}}, "", nil
		},
		"of no receipt": nil,
	} {
		s, r := sampleChained(t), sampleVia(t)
		if change == nil {
			for _, via := range [][]Via{bytesOf(r.Via[0], MaxChain+1), {{Digest{}, id(t, 4)}}, {{Digest{1}, "bob"}}} {
				if r.Via = via; reflect.DeepEqual(r, sampleVia(t)) {
					t.Fatal("nothing changed")
				}
				if _, err := r.Encode(); err == nil {
					t.Errorf("a receipt by way of %+v is encoded", via)
				}
			}
			continue
		}
		change(&s)
		if _, err := s.Encode(); err == nil {
			t.Errorf("a chain %s is encoded", name)
		}
		if s.Chain = nil; s.Logic.OfOwner() {
			if _, err := s.Encode(); err != nil {
				t.Errorf("%s, without a chain: %v", name, err)
			}
		}
	}
	// An item of no bytes costs its sender two: they are counted first.
	m := bytes.Repeat([]byte{11<<3 | 2, 0}, 1<<20)
	if _, err := DecodeScript(m); err == nil || !strings.Contains(err.Error(), "more than 4 chain") {
		t.Errorf("a million delegations: %v", err)
	}
}

func TestRuns(t *testing.T) {
	digest := Digest{0xab}
	other := "sha256:" + strings.Repeat("cd", 32)
	for _, test := range []struct {
		entry, name string
		digest      Digest
		asks        string
		want        bool
	}{
		{"*", "guestbook", digest, "sign", true},
		{"*", "", digest, "", true},
		{"*:sign", "guestbook", digest, "sign", true},
		{"*:sign", "guestbook", digest, "read", false},
		{"guestbook", "guestbook", digest, "anything", true},
		{"guestbook", "guestbook2", digest, "", false},
		{"guestbook", "", digest, "", false},
		{"guestbook:sign", "guestbook", digest, "sign", true},
		{"guestbook:sign", "guestbook", digest, "", false},
		{"guestbook:run", "guestbook", digest, "", true},
		{"guestbook:run", "guestbook", digest, "run", true},
		{digest.String(), "", digest, "x", true},
		{digest.String(), "guestbook", digest, "x", true},
		{other, "guestbook", digest, "x", false},
		{digest.String() + ":sign", "", digest, "sign", true},
		{digest.String() + ":sign", "", digest, "read", false},
		{"sha256:" + strings.Repeat("00", 31) + "01", "", Digest{}, "", false},
	} {
		if err := CheckRunnable(test.entry); err != nil {
			t.Fatal(err)
		}
		d := Delegation{Entries: []string{"nothing", test.entry}}
		if got := d.Runs(test.name, test.digest, test.asks); got != test.want {
			t.Errorf("%s lets %q %s:%s run: %t", test.entry, test.name, test.digest.Short(), test.asks, got)
		}
	}
}
