package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	w "github.com/circles-host/circles/host/engine/abi/abitest"
)

// An engine that is closed leaves no memory file open, whether its programs were
// closed or not.
func TestClosedEngineKeepsNoImage(t *testing.T) {
	open := func() (n int) {
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil || len(fds) == 0 {
			t.Fatalf("descriptors: %q, %v", fds, err)
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.Contains(to, "circles-image") {
				n++
			}
		}
		return n
	}
	var m w.Module
	m.Memory(100)
	m.Func("_start", "", "")
	before := open()
	e, err := New(t.Context(), Config{}, wasi())
	if err != nil {
		t.Fatal(err)
	}
	for _, closed := range []bool{true, false} {
		p, err := e.Compile(t.Context(), m.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		ran(t, e, p, Call{})
		if n := open(); n != before+1 {
			t.Errorf("%d memory files for one program", n-before)
		}
		if closed {
			p.Close()
			if n := open(); n != before {
				t.Errorf("%d memory files left when the program was closed", n-before)
			}
		} else {
			defer p.Close() // after the engine is no error
		}
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := open(); n != before {
		t.Errorf("%d memory files left when the engine was closed", n-before)
	}
}
