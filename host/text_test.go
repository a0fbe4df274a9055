package host_test

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

// TestCarriedTexts: a text that a script carries is decided about by its digest and its
// language, as one that is carried, before anything has parsed it. What is permitted in one
// language is not in another, whatever the text means there.
func TestCarriedTexts(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	const text = `"a".length` // a text of both languages
	send := func(language, source string) script.Receipt {
		t.Helper()
		return w.send("alice", "bob", script.Script{Logic: script.Logic{Text: script.Text{Language: language, Source: source}}})
	}
	r := send("javascript", text)
	if r.Code != script.Refused || !strings.Contains(r.Message, "policy allow --to bob alice "+script.DigestOf([]byte(text)).String()+" --lang javascript") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Name: "alice", Digest: sha256.Sum256([]byte(text)), Language: "javascript"})
	r = send("javascript", text)
	if r.Code != script.Done || string(r.Result) != "1" || r.Module != sha256.Sum256([]byte(text)) || r.ModuleName != "" {
		t.Errorf("%v %q %s %s %s", r.Code, r.Result, r.Message, r.Module, r.ModuleName)
	}
	for name, got := range map[string]script.Receipt{
		"in another language": send("starlark", text),
		"another byte":        send("javascript", text+" "),
		"broken":              send("javascript", text+"("),
	} {
		if got.Code != script.Refused {
			t.Errorf("%s: %v %q %s", name, got.Code, got.Result, got.Message)
		}
	}
	// What is wrong with a text is told to who may run something, with the place.
	if r := send("javascript", "x\x00"); r.Code != script.Refused {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	w.policy("bob", "all", `permit(principal, action, resource);`)
	for _, c := range []struct {
		language, source string
		code             script.Code
		message          string
	}{
		{"javascript", "1 +\n  +", script.Invalid, "2:4: SyntaxError"},
		{"javascript", "while (true); export {}", script.Invalid, ""},
		{"javascript", "\ufeff1", script.Invalid, "byte order mark"},
		{"javascript", "x\x00", script.Invalid, "1:2: it has a NUL byte"},
		{"cobol", "1", script.Invalid, "this host has"},
		{"javascript", "export const f = 1; export function run() { return f + 1 }", script.Done, ""},
	} {
		if r := send(c.language, c.source); r.Code != c.code || !strings.Contains(r.Message, c.message) {
			t.Errorf("%s %.30q: %v %q %s; want %v %q", c.language, c.source, r.Code, r.Result, r.Message, c.code, c.message)
		}
	}
}
