package modules_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/engine"
	. "github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/imports/modules"
)

// guest has an entry for each function, with n bytes at 1024 for each of its
// arguments. What it returns are the 16 bytes that its return area begins with.
func guest(text string, n int32) []byte {
	const in, at, area, out = "circles:host/modules@0.1.2", 1024, 256, 128
	var m Module
	call := m.Import(in, "call", "iiiiiii", "")
	base := m.Import(in, "base", "iiiii", "")
	entry := m.Import(in, "entry", "i", "")
	m.Memory(2)
	m.Bump(128 << 10)
	var le [12]byte
	binary.LittleEndian.PutUint32(le[4:], area)
	binary.LittleEndian.PutUint32(le[8:], 16)
	m.Data(out, string(le[:]))
	m.Data(at, text)
	m.Func("call", "ii", "i", I32(at), I32(n), I32(at), I32(n), I32(at), I32(n), I32(area), Call(call), I32(out))
	m.Func("base", "ii", "i", I32(at), I32(n), I32(at), I32(n), I32(area), Call(base), I32(out))
	m.Func("entry", "ii", "i", I32(area), Call(entry), I32(out))
	return m.Bytes()
}

// run runs an entry of a guest among others.
func run(t *testing.T, wasm []byte, entry string, state any) (string, error) {
	t.Helper()
	e, err := engine.New(t.Context(), engine.Config{}, contexts.Module(), modules.Module())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(context.Background())
	p, err := e.Compile(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, err := e.Run(t.Context(), p, engine.Call{Entry: entry, State: state, Limits: engine.Limits{Wall: 1 << 40}})
	return string(out.Result), err
}

// answering is a State whose modules all give one answer.
type answering struct {
	result []byte
	err    error
	asked  *string
}

func (a answering) Modules() modules.Modules { return a }
func (a answering) Entry() string            { return "visit" }

func (a answering) Call(_ context.Context, name, entry string, params []byte) ([]byte, error) {
	*a.asked = fmt.Sprintf("call %s %s %s", name, entry, params)
	return a.result, a.err
}

func (a answering) Base(_ context.Context, entry string, params []byte) ([]byte, error) {
	*a.asked = fmt.Sprintf("base %s %s", entry, params)
	return a.result, a.err
}

func TestWhatCrosses(t *testing.T) {
	word := func(s string, i int) uint32 { return binary.LittleEndian.Uint32([]byte(s)[4*i:]) }
	wasm := guest("name", 4)
	for entry, want := range map[string]string{"call": "call name name name", "base": "base name name"} {
		var asked string
		got, err := run(t, wasm, entry, answering{[]byte("result"), nil, &asked})
		if err != nil || asked != want || got[0] != 0 || word(got, 2) != 6 {
			t.Errorf("%s: asked %q, returned %x, %v", entry, asked, got, err)
		}
		for _, tc := range []struct {
			answer answering
			code   contexts.Code
		}{
			{answering{nil, &contexts.Error{Code: contexts.Failed, Message: "no"}, &asked}, contexts.Failed},
			{answering{nil, errors.New("of the host's own"), &asked}, contexts.IO},
			{answering{make([]byte, modules.MaxBytes+1), nil, &asked}, contexts.Unavailable},
		} {
			got, err := run(t, wasm, entry, tc.answer)
			if err != nil || got[0] != 1 || contexts.Code(got[4]) != tc.code {
				t.Errorf("%s: returned %x, %v; want %v", entry, got, err, tc.code)
			}
		}
	}
	if got, err := run(t, wasm, "entry", answering{}); err != nil || word(got, 1) != 5 {
		t.Errorf("entry: %x, %v", got, err)
	}
}

// Names that are too long are an error that the guest gets; memory that it does not
// have, text that is none, and a run without modules end it.
func TestHostileArguments(t *testing.T) {
	var asked string
	state := answering{asked: &asked}
	for _, entry := range []string{"call", "base"} {
		got, err := run(t, guest(strings.Repeat("n", modules.MaxName+1), modules.MaxName+1), entry, state)
		if err != nil || got[0] != 1 || contexts.Code(got[4]) != contexts.Invalid {
			t.Errorf("%s of a long name: %x, %v", entry, got, err)
		}
		for what, wasm := range map[string][]byte{"outside": guest("", -1), "no text": guest("\xff", 1)} {
			_, err := run(t, wasm, entry, state)
			var f *engine.Failure
			if !errors.As(err, &f) || f.Kind != engine.Trapped {
				t.Errorf("%s, %s: %v", entry, what, err)
			}
		}
	}
	if asked != "" {
		t.Errorf("asked %s", asked)
	}
	for _, entry := range []string{"call", "base", "entry"} {
		if _, err := run(t, guest("name", 4), entry, nil); err == nil || !strings.Contains(err.Error(), "no other modules") {
			t.Errorf("%s of none: %v", entry, err)
		}
	}
}
