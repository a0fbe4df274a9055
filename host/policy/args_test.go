package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
)

var partyTypes = map[string]map[string]string{
	"sign": {"day": "string", "guests": "number", "vip": "boolean"},
	"run":  {"guests": "number"},
}

func withArgs(text string) Request {
	r := from(alice)
	r.Code.Types = partyTypes
	r.Args, r.Params = []byte(text), len(text)
	return r
}

const fewGuests = `@id("few") permit(principal == Peer::"alice", action == Action::"submit", resource) when {
	context.module.name == "guestbook" && context.args.numbers.hasTag("guests") && context.args.numbers.getTag("guests") < 10 };`

// What may be missing is not there for policies either, and is what it is declared to
// be where it is.
func TestOptionalArgs(t *testing.T) {
	s := parse(t, `@id("few") permit(principal, action == Action::"submit", resource) unless {
		context.args.numbers.hasTag("guests") && context.args.numbers.getTag("guests") >= 10 };`)
	for _, tc := range []struct{ params, refused string }{
		{`{"day":"x"}`, ""},
		{`{"day":"x","guests":5}`, ""},
		{`{"day":"x","guests":50}`, "no policy permits it"},
		{`{"day":"x","guests":null}`, `"guests" is not a number`},
		{`{"day":"x","guests":"5"}`, `"guests" is not a number`},
		{`{"day":"x","guests":5,"guests":50}`, `"guests" is there twice`},
		{`{"day":"x","guests?":50}`, `there is no "guests?"`},
		{`{"guests":5}`, `"day" is missing`},
		{`{}`, `"day" is missing`},
	} {
		r := withArgs(tc.params)
		r.Code.Types = map[string]map[string]string{"sign": {"day": "string", "guests": "number?", "vip": "boolean?"}}
		v := s.Submit(r)
		if v.Permitted != (tc.refused == "") || !strings.Contains(v.String(), tc.refused) {
			t.Errorf("%s: %s", tc.params, v)
		}
	}
}

// A policy decides by params that have one reading, and none runs that has another.
func TestArgs(t *testing.T) {
	s := parse(t, fewGuests)
	const rest = `"day":"x","vip":true}`
	for _, tc := range []struct{ params, refused string }{
		{`{"guests":5,` + rest, ""},
		{" {\n\"vip\" : false, \"guests\":-5, \"day\":\"\\u00e9\\ud83d\\ude00\"}\n", ""},
		{`{"guests":10,` + rest, "no policy permits it"},
		{`{"guests":50,"guests":5,` + rest, `"guests" is there twice`},
		{`{"guests":5,"\u0067uests":50,` + rest, "backslash"},
		{`{"Guests":5,` + rest, `there is no "Guests"`},
		{`{"guests":5,"GUESTS":50,` + rest, `there is no "GUESTS"`},
		{`{"guests":5,"other":1,` + rest, `there is no "other"`},
		{`{"guests":5,"vip":true}`, `"day" is missing`},
		{`{"guests":"5",` + rest, `"guests" is not a number`},
		{`{"guests":null,` + rest, `"guests" is not a number`},
		{`{"guests":true,` + rest, `"guests" is not a number`},
		{`{"guests":{},` + rest, `"guests" is not a number`},
		{`{"guests":[5],` + rest, `"guests" is not a number`},
		{`{"guests":5,"day":7,"vip":true}`, `"day" is not a string`},
		{`{"guests":5,"day":"x","vip":0}`, `"vip" is not a boolean`},
		{`{"guests":5.0,` + rest, "whole number"},
		{`{"guests":1e0,` + rest, "whole number"},
		{`{"guests":-0,` + rest, "whole number"},
		{`{"guests":9007199254740992,` + rest, "whole number"},
		{`{"guests":-9007199254740992,` + rest, "whole number"},
		{`{"guests":18446744073709551617,` + rest, "whole number"},
		{`{"guests":` + strings.Repeat("9", 10000) + `,` + rest, "whole number"},
		{`{"guests":05,` + rest, "not JSON"},
		{`{"guests":5,"day":"a\u0000b","vip":true}`, "NUL"},
		{`{"guests":5,"day":"\ud800","vip":true}`, "no character"},
		{"{\"guests\":5,\"day\":\"\xff\",\"vip\":true}", "not UTF-8"},
		{"\ufeff{\"guests\":5," + rest, "not JSON"},
		{`{"guests":5,` + rest + `{}`, "not JSON"},
		{`{"guests":5,` + rest + "\x00", "not JSON"},
		{`{"guests":5,"day":"x","vip":true,}`, "not JSON"},
		{"", "not JSON"},
		{`[5]`, "not a JSON object"},
		{`null`, "not a JSON object"},
		{strings.Repeat("[", 60000), "not JSON"},
		{strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "not a JSON object"},
		{`{"guests":5,"day":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `,"vip":true}`, `"day" is not a string`},
		{`{"guests":5,"day":"` + strings.Repeat("x", MaxArgs-38) + `","vip":true}`, ""},
		{`{"guests":5,"day":"` + strings.Repeat("x", 1<<20) + `","vip":true}`, "at most"},
	} {
		v := s.Submit(withArgs(tc.params))
		if v.Permitted != (tc.refused == "") || !v.Permitted && !strings.Contains(v.String(), tc.refused) {
			t.Errorf("%.80q: %v; want %q", tc.params, v, tc.refused)
		}
	}
	r := withArgs(`{"guests":3}`)
	r.Entry = ""
	if v := s.Submit(r); !v.Permitted {
		t.Errorf("the default entry: %v", v)
	}
	r.Code.Types = nil
	if v := s.Submit(r); v.Permitted || v.Unread != nil {
		t.Errorf("no types are declared: %+v", v)
	}
}

// Whom no policy permits anything, whatever the params, or one forbids it, is told
// no more because of them; and where no policy looks they may be anything.
func TestUnreadArgsTellStrangersNothing(t *testing.T) {
	bad := withArgs("bad")
	bad.Parties.Caller = mallory
	if v := parse(t, fewGuests).Submit(bad); v.Permitted || v.Unread != nil {
		t.Errorf("a stranger: %+v", v)
	}
	const many = `@id("many") forbid(principal, action, resource) when { context.args.numbers.hasTag("guests") && context.args.numbers.getTag("guests") > 10 };`
	if v := parse(t, many).Submit(bad); v.Permitted || v.Unread != nil {
		t.Errorf("where only a forbid looks: %+v", v)
	}
	if v := parse(t, many, `permit(principal, action, resource);`).Submit(bad); v.Permitted || v.Unread == nil {
		t.Errorf("a forbid that cannot be asked: %+v", v)
	}
	hidden := parse(t, fewGuests, `@id("no") @hide forbid(principal, action, resource) when { context.transport == "" };`)
	if v := hidden.Submit(withArgs("bad")); v.Permitted || v.Unread != nil || !v.Hidden {
		t.Errorf("what is hidden: %+v", v)
	}
	if v := parse(t, `permit(principal, action, resource) when { context.params < 20 };`).Submit(bad); !v.Permitted {
		t.Errorf("no policy looks: %v", v)
	}
}

// Params that only a policy about files would look at are refused before anything
// runs.
func TestAcceptReadsArgs(t *testing.T) {
	code := guestbook
	code.Types = partyTypes
	s := parse(t, `permit(principal, action == Action::"submit", resource);
		permit(principal, action in Action::"files", resource in Path::"/guestbook") when { context.args.booleans.hasTag("vip") && context.args.booleans.getTag("vip") };`)
	for params, refused := range map[string]bool{`{"guests":5,"day":"x","vip":true}`: false, `{"guests":5,"day":"x","vip":false}`: false, `{"guests":5}`: true} {
		v := sent(t, script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "sign", Params: []byte(params)}, bobsHost{})
		a, err := s.Accept(v, from(alice).Parties, code, Occasion{Now: noon})
		var e *RefusedError
		if errors.As(err, &e) != refused || refused && !strings.Contains(err.Error(), `"day" is missing`) || !refused && err != nil {
			t.Fatalf("%s: %v", params, err)
		}
		if refused {
			continue
		}
		if may := a.Target().Allow(script.Read, "/guestbook/a") == nil; may != strings.Contains(params, "true") {
			t.Errorf("%s: may read: %t", params, may)
		}
	}
}

// Another's params are not remembered.
func TestArgsAreNotRemembered(t *testing.T) {
	s := parse(t, fewGuests)
	for range 2 {
		for params, ok := range map[string]bool{`{"guests":5,"day":"x","vip":true}`: true, `{"guests":50,"day":"x","vip":true}`: false} {
			if v := s.Submit(withArgs(params)); v.Permitted != ok {
				t.Errorf("%s: %v", params, v)
			}
		}
	}
}

// What is misspelt, of another type or not asked for first is said, with its place.
func TestArgsAreTypeChecked(t *testing.T) {
	for condition, want := range map[string]string{
		`context.args.numbrs.hasTag("g")`:                                          "did you mean numbers?",
		`context.arg.numbers.hasTag("g")`:                                          "did you mean args?",
		`context.args.numbers.getTag("g") < 1`:                                     "x.cedar:2:29: tag",
		`context.args.strings.hasTag("g") && context.args.strings.getTag("g") < 1`: "x.cedar:",
		`NumberParams::"params".hasTag("g")`:                                       "as in context.args.numbers",
	} {
		_, err := Parse([]File{{"x.cedar", "permit(principal, action == Action::\"submit\", resource) when {\n" + condition + " };"}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", condition, err, want)
		}
	}
}
