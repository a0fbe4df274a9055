package modules_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/modules"
	"github.com/circles-host/circles/modules/languages"
	"github.com/circles-host/circles/testdata/build"
)

// guest is a guestbook: a module, or a text that its language's module has loaded.
type guest interface {
	Call(entry string, params []byte) ([]byte, error)
	Handles() int
}

// text is a guest that a language module runs.
type text struct{ *sdktest.Guest }

func (g text) Call(entry string, params []byte) ([]byte, error) { return g.Enter(entry, params) }

// guestbooks runs a test with each of the guestbooks, which are one in behaviour.
func guestbooks(t *testing.T, test func(t *testing.T, h *sdktest.Host, g guest)) {
	t.Run("c", func(t *testing.T) {
		m, ok := modules.Get("guestbook")
		if !ok {
			t.Fatal("no module guestbook")
		}
		h := sdktest.New(t)
		test(t, h, h.Load(t, m.Wasm))
	})
	t.Run("go", func(t *testing.T) {
		h := sdktest.New(t)
		test(t, h, h.Load(t, build.Go(t, "modules/guestbook/go", true)))
	})
	texts := 0
	for _, l := range languages.All() {
		source, err := os.ReadFile("guestbook/guestbook" + l.Suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		texts++
		t.Run(l.Name, func(t *testing.T) {
			wasm, err := l.Wasm()
			if err != nil {
				t.Fatal(err)
			}
			h := sdktest.New(t)
			g := h.Load(t, wasm)
			if _, err := g.Call("load", source); err != nil {
				t.Fatal(err)
			}
			test(t, h, text{g})
		})
	}
	if texts == 0 {
		t.Error("there is no guestbook that is a text")
	}
}

func TestGuestbookSigns(t *testing.T) {
	guestbooks(t, guestbookSigns)
}

func guestbookSigns(t *testing.T, h *sdktest.Host, g guest) {
	h.Put(t, "caller", "/card.txt", "Alice Liddell, Oxford\nnot shown: the rest\n")

	for i, want := range []string{
		"1. alice: Hello, Bob! (Alice Liddell, Oxford)",
		"2. alice: Hello, Bob! (Alice Liddell, Oxford)",
	} {
		result, err := g.Call([]string{"sign", "run"}[i], []byte(`{"message": "Hello, Bob!"}`))
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Entry int
			Text  string
		}
		if err := json.Unmarshal(result, &got); err != nil {
			t.Fatalf("%s: %v", result, err)
		}
		if got.Entry != i+1 || got.Text != want {
			t.Errorf("entry %d: %q, want %q", got.Entry, got.Text, want)
		}
	}
	book := h.Get(t, "target", "/guestbook/entries.txt")
	if strings.Count(book, "\n") != 2 || h.Get(t, "target", "/guestbook/count") != "2\n" {
		t.Errorf("book:\n%s", book)
	}
	result, err := g.Call("read", nil)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(book)
	if string(result) != fmt.Sprintf(`{"entries":2,"text":%s}`, want) {
		t.Errorf("read: %s", result)
	}
	if g.Handles() != 0 {
		t.Errorf("%d handles left", g.Handles())
	}
}

func TestGuestbookParams(t *testing.T) {
	guestbooks(t, guestbookParams)
}

func guestbookParams(t *testing.T, h *sdktest.Host, g guest) {
	n := 0
	for params, want := range map[string]string{
		`{"message":"plain"}`:                              "plain",
		" {\t\"message\"\r\n:  \"spaces\" } ":              "spaces",
		`{"message":"\"\\\/\u0041\u00e9\u20ac"}`:           `"\/Aé€`,
		`{"message":"\ud83d\uDE00 and 😀"}`:                 "😀 and 😀",
		`{"mess\u0061ge":"x"}`:                             "x",
		`{"message":"a\nb\r\n2. bob: forged\tc\u0000d"}`:   "a b 2. bob: forged c d",
		`{"message":"\u001b[31mred\u009b\u202e\u2028end"}`: "[31mred end",
		`{"message":"` + strings.Repeat("é", 500) + `"}`:   strings.Repeat("é", 500),
	} {
		n++
		// A fresh book each, as maps have no order.
		h.Put(t, "target", "/guestbook/count", "0")
		wantJSON, _ := json.Marshal("1. alice: " + want)
		expect(t, g, "sign", params, `{"entry":1,"text":`+string(wantJSON)+`}`)
	}
	if got := strings.Count(h.Get(t, "target", "/guestbook/entries.txt"), "\n"); got != n {
		t.Errorf("%d lines of %d entries", got, n)
	}

	for _, params := range []string{
		``, ` `, `{}`, `[]`, `"x"`, `null`, `{"message"}`, `{"message":}`, `{"message":1}`, `{"message":null}`, `{"message":"x"`,
		`{"message":"x",}`, `{"message":"x"}}`, `{"message":"x"} x`, `{"message":"x","message":"y"}`, `{"message":"x","to":"y"}`,
		`{"text":"x"}`, `{"messages":"x"}`, `{"message` + strings.Repeat("e", 1<<20) + `":"x"}`, `{'message':'x'}`,
		`{"message":"\x"}`, `{"message":"\`, `{"message":"\u12`, `{"message":"\u12g4"}`, `{"message":"\ud800"}`, `{"message":"\udc00"}`,
		`{"message":"\ud800\ud800"}`, `{"message":"\ud800x"}`, `{"message":"\ud83d\u`, "{\"message\":\"\n\"}",
		"{\"message\":\"\xff\"}", "{\"message\":\"\xc0\x80\"}", "{\"message\":\"\xed\xa0\x80\"}", "{\"message\":\"\xf4\x90\x80\x80\"}", "{\"message\":\"\xe2\x82",
		`{"message":"` + strings.Repeat("x", 1001) + `"}`, `{"message":"` + strings.Repeat("x", 1<<22),
		strings.Repeat("[", 1<<20), strings.Repeat(`{"message":`, 1<<16), "\xef\xbb\xbf{\"message\":\"x\"}",
	} {
		// A text is not given what its interpreter cannot be sure of.
		expect(t, g, "sign", params, `error: params: want {"message": "…"}|params: at offset`)
	}
	for _, params := range []string{`{"message":""}`, `{"message":" \n\t\u0000"}`} {
		expect(t, g, "sign", params, "error: params: the message has nothing in it")
	}
}

func TestGuestbookCards(t *testing.T) {
	guestbooks(t, guestbookCards)
}

func guestbookCards(t *testing.T, h *sdktest.Host, g guest) {
	sign := func(want string) {
		t.Helper()
		h.Put(t, "target", "/guestbook/count", "0\n")
		wantJSON, _ := json.Marshal("1. alice: hi" + want)
		expect(t, g, "run", `{"message":"hi"}`, `{"entry":1,"text":`+string(wantJSON)+`}`)
	}
	sign("") // no card
	for card, want := range map[string]string{
		"Alice\n":                        " (Alice)",
		"\n\nAlice":                      "",
		"A\x1b]0;title\x07l":             " (A ]0;title l)",
		"\xff\xfe\x00A":                  " (?? A)",
		strings.Repeat("x", 1<<20):       " (" + strings.Repeat("x", 120) + ")",
		strings.Repeat("😀", 40) + "tail": " (" + strings.Repeat("😀", 30) + ")",
	} {
		h.Put(t, "caller", "/card.txt", card)
		sign(want)
	}
	h.Lent = func(string) bool { return false }
	sign("") // not lent
	h.Lent = nil
	if err := os.Remove(filepath.Join(h.Caller.Dir, "card.txt")); err != nil {
		t.Fatal(err)
	}
	h.Put(t, "caller", "/card.txt/x", "")
	expect(t, g, "sign", `{"message":"hi"}`, "error: is a directory|read /card.txt: is a directory")

	h.Caller.Name = ""
	h.Lent = func(string) bool { return false }
	expect(t, g, "sign", `{"message":"hi"}`, `{"entry":2,"text":"2. did:key:z6MkAlice: hi"}`)
}

func TestGuestbookOfAnOwnerWhoEdits(t *testing.T) {
	guestbooks(t, guestbookOfAnOwnerWhoEdits)
}

func guestbookOfAnOwnerWhoEdits(t *testing.T, h *sdktest.Host, g guest) {
	expect(t, g, "read", "", `{"entries":0,"text":""}`)
	for _, count := range []string{"", "x", "-1", "1 ", "1\n\n", "1000000000", "99999999999999999999", "\x00"} {
		h.Put(t, "target", "/guestbook/count", count)
		for _, entry := range []string{"sign", "read"} {
			expect(t, g, entry, `{"message":"hi"}`, "error: guestbook: /guestbook/count has no number in it")
		}
	}
	h.Put(t, "target", "/guestbook/count", "999999999")
	expect(t, g, "sign", `{"message":"hi"}`, "error: guestbook: the book is full")

	h.Put(t, "target", "/guestbook/count", "2\n")
	h.Put(t, "target", "/guestbook/entries.txt", "1. \x1b[2J\xff\n2. \"x\"\\")
	expect(t, g, "read", "", `{"entries":2,"text":"1. [2J?\n2. \"x\"\\\n"}`)

	// Only the end of a long book is returned, from the beginning of a line.
	line := strings.Repeat("x", 999) + "\n"
	h.Put(t, "target", "/guestbook/entries.txt", "first\n"+strings.Repeat(line, 100)+"last\n")
	b, err := g.Call("read", nil)
	var got struct{ Text string }
	if err == nil {
		err = json.Unmarshal(b, &got)
	}
	if err != nil || len(got.Text) > 64<<10 || !strings.HasPrefix(got.Text, line) || !strings.HasSuffix(got.Text, line+"last\n") {
		t.Errorf("%d bytes, %v", len(got.Text), err)
	}
	// Whatever the owner left where the book should be is an error, not a trap.
	if err := os.Remove(filepath.Join(h.Target.Dir, "guestbook/entries.txt")); err != nil {
		t.Fatal(err)
	}
	h.Put(t, "target", "/guestbook/entries.txt/x", "")
	expect(t, g, "read", "", "error: guestbook: cannot read /guestbook/entries.txt: |read /guestbook/entries.txt: ")
	expect(t, g, "sign", `{"message":"hi"}`, "error: guestbook: cannot add to /guestbook/entries.txt: |append /guestbook/entries.txt: ")
}

// FuzzGuestbookParams compares the parser in guestbook.c with encoding/json: what
// it takes must mean the same there, and what it refuses must be wrong there or by
// our rules. Whatever it is sent, it must not trap.
func FuzzGuestbookParams(f *testing.F) {
	for _, seed := range []string{
		`{"message":"x"}`, ` { "message" : "\ud83d\ude00\u0000\/" } `, `{"mess\u0061ge":"é"}`, `{"message":"\ud800"}`,
		`{"message":"x","message":"y"}`, `{"message":1}`, "{\"message\":\"\xff\"}", `{"message":"` + strings.Repeat("x", 1001) + `"}`,
	} {
		f.Add([]byte(seed))
	}
	m, _ := modules.Get("guestbook")
	h := sdktest.New(f)
	g := h.Load(f, m.Wasm)
	f.Fuzz(func(t *testing.T, params []byte) {
		h.Put(t, "target", "/guestbook/count", "0")
		h.Put(t, "target", "/guestbook/entries.txt", "")
		result, err := g.Call("sign", params)
		var failed sdktest.ErrGuest
		if err != nil && !errors.As(err, &failed) {
			t.Fatalf("%q: %v", params, err)
		}
		message, ok := reference(params)
		switch {
		case ok && err == nil:
			var got struct {
				Entry int
				Text  string
			}
			want := "1. alice: " + oneLine(message)
			if err := json.Unmarshal(result, &got); err != nil || got.Entry != 1 || got.Text != want {
				t.Errorf("%q: %s, want %q", params, result, want)
			}
		case ok && oneLine(message) != "" || !ok && err == nil:
			t.Errorf("%q: %s, %v; encoding/json says %q, %v", params, result, err, message, ok)
		}
	})
}

// reference is read_params of guestbook.c in terms of encoding/json.
func reference(params []byte) (message string, ok bool) {
	d := json.NewDecoder(bytes.NewReader(params))
	var tokens []json.Token
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil || len(tokens) == 4 {
			return "", false
		}
		tokens = append(tokens, token)
	}
	if len(tokens) != 4 || tokens[0] != json.Delim('{') || tokens[1] != "message" || tokens[3] != json.Delim('}') {
		return "", false
	}
	message, ok = tokens[2].(string)
	// encoding/json replaces what is not UTF-8; guestbook.c refuses it.
	return message, ok && utf8.Valid(params) && paired.Match(params) && len(message) <= 1000
}

// paired matches JSON whose escaped surrogates are all halves of pairs.
var paired = regexp.MustCompile(`(?s)^(?:[^\\]|\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|` +
	`\\u(?:[0-9abcefABCEF][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F]{2})*$`)

// oneLine is put_line of guestbook.c.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return r == ' ' || unicode.IsControl(r) || r >= 0x2028 && r <= 0x202E || r >= 0x2066 && r <= 0x2069
	}), " ")
}
