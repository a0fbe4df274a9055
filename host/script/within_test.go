package script

import (
	"reflect"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/peer"
)

// What says which scripts wait is signed, and has one form; it cannot say that a script
// would wait for itself, nor be longer than is allowed.
func TestWithin(t *testing.T) {
	ids := make([]peer.ID, 7)
	for i := range ids {
		ids[i] = id(t, byte(i+1))
	}
	script := func(change func(*Script)) *Script {
		s := sampleScript(t)
		s.Caller, s.Target, s.Lent, s.Chain = ids[1], ids[2], nil, nil
		s.Within = Within{Root: ID{1}, Contexts: []peer.ID{ids[0], ids[1]}}
		if change != nil {
			change(&s)
		}
		return &s
	}
	b, err := script(nil).Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeScript(b)
	if err != nil || !reflect.DeepEqual(got.Within, script(nil).Within) {
		t.Fatalf("%v, %+v", err, got.Within)
	}
	for _, tt := range []struct {
		want   string
		change func(*Script)
	}{
		{"or neither", func(s *Script) { s.Within.Root = ID{} }},
		{"or neither", func(s *Script) { s.Within.Contexts = nil }},
		{"would wait for itself", func(s *Script) { s.Within.Contexts[0] = s.Target }},
		{"not the caller's", func(s *Script) { s.Within.Contexts[1] = ids[3] }},
		{"waits twice", func(s *Script) { s.Within.Contexts = []peer.ID{ids[0], ids[0], ids[1]} }},
		{"5 scripts wait", func(s *Script) {
			s.Within.Contexts = []peer.ID{ids[0], ids[3], ids[4], ids[5], ids[1]}
		}},
		{"within: ", func(s *Script) { s.Within.Contexts[0] = "did:key:nobody" }},
		{"lends nothing", func(s *Script) { s.Lent = []Grant{{Read, "/"}} }},
		{"no script sends it", func(s *Script) { s.Logic, s.Entry, s.Params = Logic{Undo: ID{1}}, "", nil }},
	} {
		if _, err := script(tt.change).Encode(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.want, err)
		}
	}
	// To send cannot be lent, and can be delegated, to a peer.
	if err := (Grant{Send, string(ids[0])}).check(); err != nil {
		t.Error(err)
	}
	if err := (Grant{Send, "/x"}).check(); err == nil {
		t.Error("a path was something to send to")
	}
	if _, err := script(func(s *Script) { s.Within, s.Lent = Within{}, []Grant{{Send, string(ids[0])}} }).Encode(); err == nil {
		t.Error("to send was lent")
	}
}

// The scripts that one sent are in its receipt, and its JSON.
func TestSentInReceipts(t *testing.T) {
	r := sampleReceipt(t)
	r.Sent = []Sent{{Script: ID{1}, Target: r.Caller, Code: Done, Receipt: Digest{2}}, {Script: ID{3}, Target: r.Caller}}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeReceipt(b)
	if err != nil || !reflect.DeepEqual(got.Sent, r.Sent) {
		t.Fatalf("%v, %+v", err, got.Sent)
	}
	text, err := r.MarshalJSON()
	if err != nil || !strings.Contains(string(text), `"sent":[{"script":"sha256:01`) || !strings.Contains(string(text), `"code":"unknown"}]`) {
		t.Errorf("%v: %s", err, text)
	}
	r.Sent = make([]Sent, MaxSent+1)
	for i := range r.Sent {
		r.Sent[i] = Sent{Script: ID{1}, Target: r.Caller}
	}
	if _, err := r.Encode(); err == nil {
		t.Error("too many were encoded")
	}
}
