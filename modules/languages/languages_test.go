package languages_test

import (
	"bytes"
	"testing"

	"github.com/circles-host/circles/modules/languages"
)

// TestLanguages unpacks each language's module, which has the digest that is pinned in
// its folder, and asks for the names by which scripts and files are told apart.
func TestLanguages(t *testing.T) {
	all := languages.All()
	if len(all) == 0 {
		t.Fatal("there is no language")
	}
	suffixes := map[string]bool{}
	for i, l := range all {
		if i > 0 && all[i-1].Name >= l.Name {
			t.Errorf("%s stands behind %s", l.Name, all[i-1].Name)
		}
		if suffixes[l.Suffix] || l.Suffix == ".wasm" || l.Title == "" {
			t.Errorf("%+v", l)
		}
		suffixes[l.Suffix] = true
		if of, ok := languages.Of(l.Name); !ok || of.Digest != l.Digest {
			t.Errorf("Of(%q): %v %+v", l.Name, ok, of)
		}
		wasm, err := l.Wasm()
		if err != nil {
			t.Error(err)
		}
		if !bytes.HasPrefix(wasm, []byte("\x00asm")) {
			t.Errorf("%s: no module", l.Name)
		}
	}
	if l, ok := languages.Of("cobol"); ok {
		t.Errorf("%+v", l)
	}
}
