package modules_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/modules"
)

func guestbook(t *testing.T, h *sdktest.Host) *sdktest.Guest {
	t.Helper()
	m, ok := modules.Get("guestbook")
	if !ok {
		t.Fatal("no module guestbook")
	}
	return h.Load(t, m.Wasm)
}

func TestGuestbookSigns(t *testing.T) {
	h := sdktest.New(t)
	h.Put(t, "caller", "/card.txt", "Alice Liddell, Oxford\nnot shown: the rest\n")
	g := guestbook(t, h)

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
