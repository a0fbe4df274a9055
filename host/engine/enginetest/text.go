package enginetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/enginetest/guests"
)

// language is one whose texts return themselves.
func language(wasm []byte) engine.Language {
	return engine.Language{Name: "self", Suffix: ".self", Digest: sha256.Sum256(wasm), Wasm: func() ([]byte, error) { return wasm, nil }}
}

// loadsTexts: a text is a program with an image of its own, of the code that all texts
// share; each run finds it as it was loaded, and so it is without images, at the same
// cost.
func (s *suite) loadsTexts(t *testing.T) {
	var usage [2]engine.Usage
	for i, config := range []engine.Config{{Keep: 4, CheckImages: true}, {Plain: true}, {MaxImages: 3 << 16}} {
		config.Languages = []engine.Language{language(guests.Language())}
		e := s.engine(t, config, wasi())
		texts := []string{"a text", "another text"}
		for _, text := range texts {
			p, err := e.Load(t.Context(), "self", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			info := p.Info()
			if info.Digest != sha256.Sum256([]byte(text)) || info.Size != len(text) || !info.Text() || info.Language != "self" ||
				!reflect.DeepEqual(info.Entries, []string{"run", "x"}) || len(info.Imports) != 1 {
				t.Errorf("%+v", info)
			}
			if (info.Image == 5<<16) != (i == 0) || (info.Plain == "") != (i == 0) {
				t.Errorf("%+v: an image of %d bytes, plain because %q", config, info.Image, info.Plain)
			}
			if described, err := e.InspectText("self", []byte(text)); err != nil || described.Digest != info.Digest || !reflect.DeepEqual(described.Imports, info.Imports) {
				t.Errorf("%+v %v", described, err)
			}
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for _, entry := range []string{"", "run", "x"} {
						out, err := e.Run(t.Context(), p, engine.Call{Entry: entry})
						if err != nil || string(out.Result) != text {
							t.Errorf("%q, %v; want %q", out.Result, err, text)
						}
					}
				})
			}
			wg.Wait()
			out, err := e.Run(t.Context(), p, engine.Call{})
			if err != nil {
				t.Error(err)
			}
			out.Usage.Wall = 0
			if usage[0] == (engine.Usage{}) {
				usage[0] = out.Usage
			}
			if usage[1] = out.Usage; len(text) == len(texts[0]) && usage[0] != usage[1] {
				t.Errorf("%+v: it uses %+v, and with images %+v", config, usage[1], usage[0])
			}
			var f *engine.Failure
			if _, err := e.Run(t.Context(), p, engine.Call{Entry: "load"}); !errors.As(err, &f) || f.Kind != engine.NoEntry {
				t.Errorf("an entry of its interpreter's: %v", err)
			}
			p.Close()
			again, err := e.Load(t.Context(), "self", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if (again == p) != (config.Keep > 0) {
				t.Errorf("%+v: loaded again: %v", config, again != p)
			}
			again.Close()
		}
	}
}

// textsThatCannotBeLoaded: whose fault it is, and where.
func (s *suite) textsThatCannotBeLoaded(t *testing.T) {
	wasm := guests.Language()
	other := guests.Reactor()
	e := s.engine(t, engine.Config{Languages: []engine.Language{
		language(wasm),
		{Name: "none", Wasm: func() ([]byte, error) { return other, nil }, Digest: sha256.Sum256(other)},
		{Name: "changed", Wasm: func() ([]byte, error) { return wasm, nil }, Digest: sha256.Sum256(other)},
		{Name: "gone", Wasm: func() ([]byte, error) { return nil, errors.New("no disk") }},
	}}, wasi())
	for _, c := range []struct {
		language, text string
		want           string // of a TextError; or of another that wraps ErrInvalid, "!" and it; or of neither, "?" and it
	}{
		{"self", "!", "1:2: no"},
		{"self", "~", "loading it takes more than"},
		{"self", "wa", "it calls wasi_snapshot_preview1.fd_write while it is loaded"},
		{"self", "m", "out of memory"},
		{"self", "t", "wasm error: unreachable"},
		{"self", "e", "?no JSON of entries"},
		{"self", "", "it is empty"},
		{"self", "\n a\x00", "2:3: it has a NUL byte"},
		{"self", "\ufeffa", "1:1: it begins with a byte order mark"},
		{"self", "né\xc3", "1:3: it is not UTF-8"},
		{"self", strings.Repeat("a", engine.MaxText+1), "a text may have 262144"},
		{"else", "a", "!this host has self, none, changed, gone"},
		{"none", "a", `?it has no entry "load"`},
		{"changed", "a", "?its module is another one"},
		{"gone", "a", "?no disk"},
	} {
		p, err := e.Load(t.Context(), c.language, []byte(c.text))
		if err == nil {
			t.Errorf("%s %.20q was loaded", c.language, c.text)
			p.Close()
			continue
		}
		var bad *engine.TextError
		isText, invalid := errors.As(err, &bad), errors.Is(err, engine.ErrInvalid)
		want, wantInvalid := c.want, true
		if rest, ok := strings.CutPrefix(want, "!"); ok {
			want = rest
		} else if rest, ok := strings.CutPrefix(want, "?"); ok {
			want, wantInvalid = rest, false
		} else if !isText || bad.Language != c.language {
			t.Errorf("%s %.20q: %v is no TextError", c.language, c.text, err)
		}
		if invalid != wantInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %.20q: %v, the sender's fault: %v; want %q", c.language, c.text, err, invalid, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.Load(ctx, "self", []byte("~~")); err == nil || errors.Is(err, engine.ErrInvalid) {
		t.Errorf("who does not wait any longer: %v", err)
	}
	if p, err := e.Load(t.Context(), "self", []byte("a")); err != nil {
		t.Error(err)
	} else {
		p.Close()
	}
}

// loadsTextsUnderLoad: many at once, of which few are kept, while the engine closes.
func (s *suite) loadsTextsUnderLoad(t *testing.T) {
	e := s.engine(t, engine.Config{Keep: 3, Languages: []engine.Language{language(guests.Language())}}, wasi())
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				text := fmt.Sprint("a text of ", (g*7+i)%11)
				p, err := e.Load(t.Context(), "self", []byte(text))
				if err != nil {
					if !errors.Is(err, engine.ErrClosed) {
						t.Error(err)
					}
					return
				}
				out, err := e.Run(t.Context(), p, engine.Call{})
				if err != nil && !errors.Is(err, engine.ErrClosed) || err == nil && string(out.Result) != text {
					t.Errorf("%q %v, want %q", out.Result, err, text)
				}
				p.Close()
				if g == 0 && i == 150 {
					go e.Close(context.Background())
				}
			}
		})
	}
	wg.Wait()
}
