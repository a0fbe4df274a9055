package policy

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// carol is in no circle of bob's; alice lets her act for her.
var carol = peer.Peer{ID: id(5), Name: "carol"}

// behalfOf is alice's script as carol sends it, with a delegation of alice's.
func behalfOf(t *testing.T, s script.Script, d script.Delegation) *envelope.Verified {
	t.Helper()
	key := func(seed byte) *peer.Key {
		k, err := peer.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	d.To, d.NotAfter, d.Targets = carol.ID, time.Now().Add(time.Hour), []peer.ID{bob.ID}
	link, _, err := envelope.SealDelegation(d, key(1))
	if err != nil {
		t.Fatal(err)
	}
	s.Target, s.Chain = bob.ID, [][]byte{link}
	sealed, _, err := envelope.SealScript(s, key(5))
	if err != nil {
		t.Fatal(err)
	}
	v, err := envelope.Open(t.Context(), sealed, time.Now(), bobsHost{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var byCarol = peer.Parties{Caller: alice, Target: bob, Via: []peer.Peer{carol}}

// What a delegate may do is what the delegation allows, and what the target's
// policies permit to who delegated, and nothing that they forbid to either.
func TestAcceptOnBehalf(t *testing.T) {
	const may = `@id("run") permit(principal in Circle::"friends", action == Action::"submit", resource) when { context.module.name == "guestbook" };
		@id("touch") permit(principal in Circle::"friends", action in [Action::"files", Action::"records"], resource);
		`
	logic := script.Logic{Name: "guestbook"}
	narrow := script.Delegation{Entries: []string{"guestbook:sign"}, Allows: []script.Grant{{Action: script.Read, Path: "/guestbook"}, {Action: script.Get, Path: "cards"}}}
	for _, test := range []struct {
		name   string
		policy string
		d      script.Delegation
		entry  string
		want   string // the refusal; "" is accepted
	}{
		{"as far as she may", may, narrow, "sign", ""},
		{"by the digest", may, script.Delegation{Entries: []string{guestbook.Digest.String()}}, "sign", ""},
		{"another entry", may, narrow, "read", "carol, on behalf of alice, may not run guestbook:read in the context of bob: entries: delegation"},
		{"another module", may, script.Delegation{Entries: []string{"calendar"}}, "sign", "entries: delegation"},
		{"what alice may not run either", `// nothing`, narrow, "sign", "carol, on behalf of alice, may not run guestbook:sign in the context of bob: no policy of bob permits it"},
		{"what only carol may", `permit(principal == Peer::"carol", action, resource);`, narrow, "sign", "no policy of bob permits it"},
		{"carol is forbidden", may + `@id("no") forbid(principal == Peer::"carol", action == Action::"submit", resource);`, narrow, "sign", "policy no of bob forbids it"},
		{"a forbid that fails for carol", may + `@id("no") forbid(principal == Peer::"carol", action, resource) when { context.params * 9223372036854775807 > 0 };`, narrow, "sign", "policy no of bob could not be evaluated"},
		{"alice is forbidden", may + `@id("no") forbid(principal == Peer::"alice", action == Action::"submit", resource);`, narrow, "sign", "policy no of bob forbids it"},
		{"no delegations", may + `@id("self") forbid(principal, action, resource) when { context has delegation };`, narrow, "sign", "policy self of bob forbids it"},
		{"by a signer", may + `@id("by") forbid(principal, action, resource) when { context has delegation && context.delegation.signer == Peer::"carol" };`, narrow, "sign", "policy by of bob forbids it"},
		{"by a stranger", may + `@id("strangers") forbid(principal, action, resource) when { context has delegation && !(context.delegation.signer in Circle::"friends") };`, narrow, "sign", "policy strangers of bob forbids it"},
		{"not far", may + `@id("far") forbid(principal, action, resource) when { context has delegation && context.delegation.links > 1 };`, narrow, "sign", ""},
	} {
		s := parse(t, strings.ReplaceAll(test.policy, `"carol"`, `"`+string(carol.ID)+`"`))
		v := behalfOf(t, script.Script{Logic: logic, Entry: test.entry, Params: []byte("hello")}, test.d)
		a, err := s.Accept(v, byCarol, guestbook, Occasion{Now: time.Now()})
		if test.want != "" {
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), strings.ReplaceAll(test.want, `"carol"`, string(carol.ID))) {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if !slices.Equal(a.Policies(), []string{"run"}) {
			t.Errorf("%s: by %v", test.name, a.Policies())
		}
		for _, access := range []script.Grant{
			{Action: script.Read, Path: "/guestbook/a"}, {Action: script.Read, Path: "/"}, {Action: script.Write, Path: "/guestbook/a"},
			{Action: script.Get, Path: "cards/a"}, {Action: script.Put, Path: "cards/a"}, {Action: script.Query, Path: "cards"},
		} {
			if err := a.Target().Allow(access.Action, access.Path); (err == nil) != test.d.Allow(access.Action, access.Path) {
				t.Errorf("%s: %+v: %v", test.name, access, err)
			} else if err != nil && !strings.Contains(err.Error(), ", by which it was sent, does not allow it") {
				t.Errorf("%s: %+v: %v", test.name, access, err)
			}
		}
	}
}

// A refusal by the delegation comes after that by the policies: it would tell a
// stranger with a delegation for a digest whether a name stands for it.
func TestDelegationsAreNoOracle(t *testing.T) {
	s := parse(t, `// nothing`)
	d := script.Delegation{Entries: []string{guestbook.Digest.String()}}
	v := behalfOf(t, script.Script{Logic: script.Logic{Name: "guestbook"}}, d)
	other := guestbook
	other.Digest = script.Digest{9}
	_, err := s.Accept(v, byCarol, guestbook, Occasion{Now: time.Now()})
	_, otherErr := s.Accept(v, byCarol, other, Occasion{Now: time.Now()})
	if err == nil || otherErr == nil || err.Error() != otherErr.Error() {
		t.Errorf("%v, and with another module %v", err, otherErr)
	}
}

// The decision is about those whom the script came by, and no others.
func TestAcceptDecidesAboutWhoSentIt(t *testing.T) {
	s := parse(t, `permit(principal, action, resource);`)
	v := behalfOf(t, script.Script{Logic: script.Logic{Name: "guestbook"}}, script.Delegation{Entries: []string{"*"}})
	for name, p := range map[string]peer.Parties{
		"nobody":   {Caller: alice, Target: bob},
		"another":  {Caller: alice, Target: bob, Via: []peer.Peer{mallory}},
		"too many": {Caller: alice, Target: bob, Via: []peer.Peer{carol, mallory}},
	} {
		if _, err := s.Accept(v, p, guestbook, Occasion{Now: time.Now()}); err == nil || !strings.Contains(err.Error(), "come by others") {
			t.Errorf("by way of %s: %v", name, err)
		}
	}
	direct := sent(t, script.Script{Logic: script.Logic{Name: "guestbook"}}, bobsHost{})
	if _, err := s.Accept(direct, byCarol, guestbook, Occasion{Now: time.Now()}); err == nil {
		t.Error("alice's own script was decided about as carol's")
	}
}
