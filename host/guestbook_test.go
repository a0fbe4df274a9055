package host_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/modules"
	"github.com/circles-host/circles/modules/languages"
	"github.com/circles-host/circles/testdata/build"
)

// TestGuestbooks signs the guestbook that is compiled from C, the one from Go, and those
// that are texts: what is told of the same visits, effects and results, is the same.
func TestGuestbooks(t *testing.T) {
	c, ok := modules.Get("guestbook")
	if !ok {
		t.Fatal("no module guestbook")
	}
	want := visits(t, ".wasm", c.Wasm)
	for i, r := range want {
		if good := i < 4; good != (r.Code == script.Done) || good != (len(r.Effects) > 0) && i != 3 {
			t.Fatalf("visit %d: %v %s, %d effects", i, r.Code, r.Message, len(r.Effects))
		}
	}
	others := map[string][]byte{".wasm": build.Go(t, "modules/guestbook/go", true)}
	for _, l := range languages.All() {
		text, err := os.ReadFile("../modules/guestbook/guestbook" + l.Suffix)
		if err == nil {
			others[l.Suffix] = text
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if len(others) < 2 {
		t.Fatal("there is no guestbook that is a text")
	}
	for suffix, code := range others {
		t.Run(suffix, func(t *testing.T) {
			for i, got := range visits(t, suffix, code) {
				if w := want[i]; got.Code != w.Code || string(got.Result) != string(w.Result) || !reflect.DeepEqual(got.Effects, w.Effects) {
					t.Errorf("visit %d: %v %s %s\n%+v\nwant %v %s\n%+v", i, got.Code, got.Result, got.Message, got.Effects, w.Code, w.Result, w.Effects)
				}
			}
		})
	}
}

// visits are the receipts of some visits to a guestbook.
func visits(t *testing.T, suffix string, code []byte) (all []script.Receipt) {
	t.Helper()
	w := newWorld(t, "alice", "bob")
	file := filepath.Join(t.TempDir(), "visitors"+suffix)
	if err := os.WriteFile(file, code, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file, filepath.Join(w.root.Dir, "modules", filepath.Base(file))); err != nil { // whole at once
		t.Fatal(err)
	}
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Name: "alice", Module: "visitors", Read: []string{"/guestbook"}, Write: []string{"/guestbook"}})
	w.put("alice", "/card.txt", "Alice Liddell, Oxford\nnot shown\n")
	lent := []script.Grant{{Action: script.Read, Path: "/card.txt"}}
	for _, s := range []script.Script{
		{Entry: "sign", Params: []byte(`{"message": "What a lovely place"}`), Lent: lent},
		{Entry: "run", Params: []byte(`{"message": "<b>\"And\"\n2. bob: again</b> \u001b[2J\u202eé😀"}`)},
		{Params: []byte(`{"message": "Good bye"}`), Lent: lent},
		{Entry: "read"},
		{Entry: "sign", Params: []byte(`{"message": " \n"}`)},
		{Entry: "sign", Params: []byte(`{"text": "Hi"}`)},
		{Entry: "burn"},
	} {
		s.Logic = script.Logic{Name: "visitors"}
		all = append(all, w.send("alice", "bob", s))
	}
	return all
}
