package policy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// bobsHost holds one context; prior is what it answered before.
type bobsHost struct {
	id    script.ID
	prior []byte
}

func (bobsHost) Holds(id peer.ID) bool { return id == bob.ID }

func (h bobsHost) Prior(context.Context, peer.ID, peer.ID, peer.ID, script.Nonce) (script.ID, []byte, bool, error) {
	return h.id, h.prior, h.prior != nil, nil
}

// sent is a script from alice to bob, sealed by her and opened by his host.
func sent(t *testing.T, s script.Script, h bobsHost) *envelope.Verified {
	t.Helper()
	key, err := peer.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	s.Target = bob.ID
	sealed, id, err := envelope.SealScript(s, key)
	if err != nil {
		t.Fatal(err)
	}
	if h.prior != nil {
		h.id = id
	}
	v, err := envelope.Open(t.Context(), sealed, time.Now(), h)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var parties = peer.Parties{Caller: alice, Target: bob}

func TestAccept(t *testing.T) {
	s := parse(t, `@id("sign") permit(principal in Circle::"friends", action == Action::"submit", resource)
			when { context.module.name == "guestbook" && context.entry == "sign" && context.params == 5 };
		@id("book") permit(principal in Circle::"friends", action in Action::"files", resource in Path::"/guestbook")
			when { context.module.name == "guestbook" && context.entry == "sign" };`)
	v := sent(t, script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "sign", Params: []byte("hello")}, bobsHost{})
	a, err := s.Accept(v, parties, guestbook, Occasion{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Policies(), []string{"sign"}) || a.Code().Digest != guestbook.Digest || a.Parties().Caller.Name != "alice" || a.ID() != v.ID() {
		t.Errorf("%+v", a)
	}
	if err := a.Target().Allow(script.Write, "/guestbook/alice.txt"); err != nil {
		t.Error(err)
	}
	if err := a.Target().Allow(script.Write, "/calendar"); err == nil {
		t.Error("allowed beyond the guestbook")
	}

	v = sent(t, script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "erase"}, bobsHost{})
	a, err = s.Accept(v, parties, guestbook, Occasion{Now: time.Now()})
	var refused *RefusedError
	if a != nil || !errors.As(err, &refused) {
		t.Fatalf("%v, %v", a, err)
	}
	if got := err.Error(); got != "alice may not run guestbook:erase in the context of bob: no policy of bob permits it" {
		t.Error(got)
	}

	// What the refusal says would allow it does.
	text, err := refused.Permit().Format()
	if err != nil {
		t.Fatal(err)
	}
	if _, err = parse(t, text).Accept(v, parties, guestbook, Occasion{Now: time.Now()}); err != nil {
		t.Error(err)
	}
	if v := parse(t, text).Submit(from(alice)); v.Permitted {
		t.Error("and permits another entry, too")
	}
}

// A decision about one thing must never be used to run another.
func TestAcceptDecidesAboutWhatWasSent(t *testing.T) {
	s := parse(t, `permit(principal, action, resource);`)
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	carried := Code{Found: true, Digest: sha256.Sum256(wasm), Layer: "carried"}
	byName := script.Logic{Name: "guestbook"}
	mapped, mappedToCarried := guestbook, carried
	mapped.Instead, mappedToCarried.Instead = true, true
	tests := []struct {
		name    string
		logic   script.Logic
		host    bobsHost
		parties peer.Parties
		code    Code
		want    string // "" is accepted
	}{
		{"as sent", byName, bobsHost{}, parties, guestbook, ""},
		{"not found, and permitted all the same", byName, bobsHost{}, parties, Code{}, ""},
		{"carried", script.Logic{Wasm: wasm}, bobsHost{}, parties, carried, ""},
		{"by digest", script.Logic{Digest: guestbook.Digest}, bobsHost{}, parties, guestbook, ""},
		{"another caller", byName, bobsHost{}, peer.Parties{Caller: mallory, Target: bob}, guestbook, "decided as from"},
		{"another target", byName, bobsHost{}, peer.Parties{Caller: alice, Target: mallory}, guestbook, "decided as from"},
		{"no parties", byName, bobsHost{}, peer.Parties{}, guestbook, "decided as from"},
		{"another digest", script.Logic{Digest: script.Digest{9}}, bobsHost{}, parties, guestbook, "it asks for sha256:09"},
		{"carried code that the target maps", script.Logic{Wasm: wasm}, bobsHost{}, parties, mapped, ""},
		{"a digest that the target maps", script.Logic{Digest: script.Digest{9}}, bobsHost{}, parties, mapped, ""},
		{"mapped to code that a stranger carries", byName, bobsHost{}, parties, mappedToCarried, "nobody can map"},
		{"carried code under a name", script.Logic{Wasm: wasm}, bobsHost{}, parties, guestbook, "it carries its code"},
		// Open does not look at the times of a script that was delivered before.
		{"delivered before", byName, bobsHost{prior: []byte("receipt")}, parties, guestbook, "answer with its receipt"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := sent(t, script.Script{Logic: tt.logic}, tt.host)
			a, err := s.Accept(v, tt.parties, tt.code, Occasion{Now: time.Now()})
			var refused *RefusedError
			switch {
			case tt.want == "" && (err != nil || a == nil):
				t.Error(err)
			case tt.want != "" && (err == nil || a != nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, &refused)):
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}
