package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	w "github.com/circles-host/circles/host/engine/abi/abitest"
)

// checked is an engine that compares each instance with its image.
var checked = sync.OnceValues(func() (*Engine, error) {
	return New(context.Background(), Config{MaxCompileTime: 10 * time.Minute, CheckImages: true}, wasi())
})

// A difference between an instance and its image is found, or the test before
// would hold nothing.
func TestCheckImages(t *testing.T) {
	e, err := checked()
	if err != nil {
		t.Fatal(err)
	}
	p := compile(t, e, stateful())
	r := e.newRun(t.Context(), Limits{}.WithDefaults(), &Call{})
	if r.memory.image, err = p.primed.memory.Open(); err != nil {
		t.Fatal(err)
	}
	defer r.memory.close()
	mod, err := p.instantiate(r, &Call{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close(t.Context())
	if err := p.primed.check(new(run), mod); err == nil {
		t.Error("an instance whose globals are those of the module passed")
	}
	p.primed.enter(new(run), mod)
	if err := p.primed.check(new(run), mod); err != nil {
		t.Error(err)
	}
	for _, at := range []uint32{0, 256, 5<<16 - 1} {
		b, _ := mod.Memory().ReadByte(at)
		mod.Memory().WriteByte(at, b+1)
		if err := p.primed.check(new(run), mod); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("byte %#x", at)) {
			t.Errorf("byte %d changed: %v", at, err)
		}
		mod.Memory().WriteByte(at, b)
	}
	mod.Memory().Grow(1)
	if err := p.primed.check(new(run), mod); err == nil {
		t.Error("a larger memory passed")
	}
	// And by way of Run, which is a bug of the host's, no failure of the guest's.
	p.primed.globals[0].value++
	p.primed.globals[0].changed = false
	var f *Failure
	if _, err := e.Run(t.Context(), p, Call{}); err == nil || errors.As(err, &f) || !strings.Contains(err.Error(), "differs from its image") {
		t.Errorf("Run = %v", err)
	}
}

// The bytes of images are bounded, and closing a program makes room.
func TestImagesAreBounded(t *testing.T) {
	e := newEngine(t, Config{MaxImages: 6 << 16}, wasi())
	first, err := e.Compile(t.Context(), stateful()) // 5 pages
	if err != nil {
		t.Fatal(err)
	}
	second := compile(t, e, guest(w.I32(0), w.Drop))
	third := compile(t, e, guest())
	if first.Info().Image != 5<<16 || second.Info().Image != 1<<16 || third.Info().Image != 0 || !strings.Contains(third.Info().Plain, "no room") {
		t.Errorf("images of %d, %d and %d bytes (%s)", first.Info().Image, second.Info().Image, third.Info().Image, third.Info().Plain)
	}
	ran(t, e, third, Call{})
	first.Close()
	if p := compile(t, e, guest()); p.Info().Image != 1<<16 {
		t.Errorf("no image although there is room: %s", p.Info().Plain)
	}
}
