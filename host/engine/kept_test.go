package engine

import (
	"fmt"
	"sync"
	"testing"

	"github.com/circles-host/circles/host/engine/abi/abitest"
)

// numbered is a module unlike those of other numbers.
func numbered(n int) []byte {
	var m abitest.Module
	m.Memory(1)
	m.Data(64, fmt.Sprint("number ", n))
	m.Bump(1024)
	m.Func("run", "ii", "i", abitest.I32(16))
	return m.Bytes()
}

// TestTheSameBytesAreCompiledOnce: as long as they are kept, whoever has closed
// the program meanwhile.
func TestTheSameBytesAreCompiledOnce(t *testing.T) {
	e := newEngine(t, Config{Keep: 2})
	first := compile(t, e, numbered(1))
	first.Close()
	again := compile(t, e, numbered(1))
	if again != first {
		t.Error("it was compiled again")
	}
	if _, err := e.Run(t.Context(), again, Call{}); err != nil {
		t.Error(err)
	}
	again.Close()

	// Two others come: it was not asked for for longest, and goes.
	two := compile(t, e, numbered(2))
	compile(t, e, numbered(3)).Close()
	if first.Retain() {
		t.Error("three are kept, and two were to be")
	}
	compile(t, e, numbered(4)).Close() // 2 is not kept any more, and somebody has it
	if _, err := e.Run(t.Context(), two, Call{}); err != nil {
		t.Errorf("a program that somebody has: %v", err)
	}
	two.Close()
	if two.Retain() {
		t.Error("nobody has it, it is not kept, and it was not freed")
	}
}

// TestNothingIsKeptUnlessAskedFor: nor what is large, nor by an engine that closes.
func TestNothingIsKeptUnlessAskedFor(t *testing.T) {
	e := newEngine(t, Config{})
	p := compile(t, e, numbered(1))
	p.Close()
	if p.Retain() {
		t.Error("kept")
	}
	e = newEngine(t, Config{Keep: 8})
	p = compile(t, e, numbered(1))
	e.kept.mu.Lock()
	e.kept.size += maxKept - p.info.Size // as if there were large ones
	e.kept.mu.Unlock()
	compile(t, e, numbered(2)).Close()
	p.Close()
	if p.Retain() {
		t.Error("more bytes are kept than may be")
	}
	q := compile(t, e, numbered(3))
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	q.Close()
	if q.Retain() || len(e.kept.all) != 0 {
		t.Error("an engine that is closed keeps programs")
	}
}

// TestKeptUnderLoad: programs come, go and are run from everywhere at once, and none
// is freed while somebody has it.
func TestKeptUnderLoad(t *testing.T) {
	e := newEngine(t, Config{Keep: 2})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 60 {
				p, err := e.Compile(t.Context(), numbered((n+i)%4))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := e.Run(t.Context(), p, Call{}); err != nil {
					t.Error(err)
				}
				p.Close()
			}
		})
	}
	all.Wait()
}
