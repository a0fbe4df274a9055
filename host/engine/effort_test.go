package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine/rewrite"
)

// body is the body of a function under construction.
type body struct{ b []byte }

func (c *body) op(bytes ...byte) *body { c.b = append(c.b, bytes...); return c }

// with is op with an operand.
func (c *body) with(op byte, n int) *body {
	c.b = binary.AppendUvarint(append(c.b, op), uint64(n))
	return c
}

func (c *body) times(n int, f func(i int)) *body {
	for i := range n {
		f(i)
	}
	return c
}

// function makes a command of a body with so many i32 locals.
func function(locals int, c *body) []byte {
	b := binary.AppendUvarint([]byte{1}, uint64(locals))
	b = append(append(append(b, 0x7f), c.b...), 0x0b)
	code := append(binary.AppendUvarint([]byte{1}, uint64(len(b))), b...)
	return module(section(sectionType, 1, 0x60, 0, 0), section(sectionFunction, 1, 0),
		section(sectionExport, append([]byte{1, 6}, "_start\x00\x00"...)...), section(sectionCode, code...))
}

// nested are n loops inside of each other, and inside of them a use of each of v
// locals.
func nested(n, v int, set bool) []byte {
	c := new(body)
	c.times(n, func(int) { c.op(0x03, 0x40) })
	c.times(v, func(i int) {
		if c.with(0x20, i); set {
			c.op(0x41, 1, 0x6a).with(0x21, i)
		} else {
			c.op(0x1a)
		}
	})
	c.times(n, func(int) { c.op(0x20, 0, 0x0d, 0, 0x0b) })
	return function(v, c)
}

// Each of these is small, valid, and took wazero gigabytes or minutes.
func TestCompileBombs(t *testing.T) {
	ifs := new(body)
	ifs.times(50_000, func(int) { ifs.op(0x20, 0, 0x04, 0x40, 0x20, 0, 0x45, 0x21, 0, 0x0b) })
	blocks := new(body)
	blocks.times(20, func(int) {
		blocks.times(4000, func(int) { blocks.op(0x02, 0x40) })
		blocks.times(4000, func(i int) { blocks.op(0x20, 0).with(0x0d, i*7919%(4000-i)).op(0x0b) })
	})
	stack := new(body)
	stack.times(5000, func(int) { stack.op(0x20, 0, 0x41, 1, 0x6a) })
	stack.times(1000, func(int) { stack.op(0x02, 0x40, 0x20, 0, 0x0d, 0, 0x0b) })
	stack.times(5000, func(int) { stack.op(0x1a) })
	table := new(body)
	table.op(0x02, 0x40)
	table.times(1000, func(i int) { table.op(0x41, 1).with(0x21, i) })
	table.op(0x20, 0).with(0x0e, 60_000).times(60_001, func(int) { table.op(0) }).op(0x0b)
	table.times(1000, func(i int) { table.with(0x20, i).op(0x1a) })

	e := sharedEngine(t)
	for _, tc := range []struct {
		name string
		wasm []byte
	}{
		{"variables inside of loops", nested(1000, 3000, true)},
		{"variables only read inside of loops", nested(1000, 1000, false)},
		{"ifs", function(1, ifs)},
		{"blocks inside of blocks", function(1, blocks)},
		{"a stack of values across branches", function(1, stack)},
		{"a table of branches", function(1000, table)},
		{"results of calls", resultsBomb()},
		{"locals of functions", localsBomb()},
		{"functions just below the bound", manyOf(nested(100, 700, false), 100)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			p, err := e.Compile(t.Context(), tc.wasm)
			if !errors.Is(err, ErrInvalid) { // by checkEffort, or rewrite's own bounds before it
				t.Errorf("Compile of %d bytes = %v, %v", len(tc.wasm), p, err)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("refused after %v", took)
			}
		})
	}
}

// resultsBomb calls a function of 1,000 results, in two bytes each time.
func resultsBomb() []byte {
	many := append([]byte{0x60, 0, 0xe8, 7}, bytes.Repeat([]byte{0x7f}, 1000)...)
	c := new(body)
	c.times(10_000, func(int) { c.op(0x10, 1) })
	start := append(append([]byte{0}, c.b...), 0x00, 0x0b)
	give := append(append([]byte{0}, bytes.Repeat([]byte{0x41, 0}, 1000)...), 0x0b)
	code := append(binary.AppendUvarint([]byte{2}, uint64(len(start))), start...)
	code = append(append(code, binary.AppendUvarint(nil, uint64(len(give)))...), give...)
	return module(section(sectionType, append([]byte{2, 0x60, 0, 0}, many...)...), section(sectionFunction, 2, 0, 1),
		section(sectionExport, append([]byte{1, 6}, "_start\x00\x00"...)...), section(sectionCode, code...))
}

// localsBomb has 1,000 functions of 7 bytes with 50,000 locals each.
func localsBomb() []byte { return manyOf(function(50_000, new(body)), 1000) }

// manyOf repeats the only function of a module n times.
func manyOf(wasm []byte, n int) []byte {
	info, err := Inspect(wasm)
	if err != nil {
		panic(err)
	}
	code := wasm[info.sections[sectionCode].from+1 : info.sections[sectionCode].to]
	return module(section(sectionType, 1, 0x60, 0, 0),
		section(sectionFunction, append(binary.AppendUvarint(nil, uint64(n)), make([]byte, n)...)...),
		section(sectionExport, append([]byte{1, 6}, "_start\x00\x00"...)...),
		section(sectionCode, append(binary.AppendUvarint(nil, uint64(n)), bytes.Repeat(code, n)...)...))
}

func effortOf(t testing.TB, wasm []byte) int {
	t.Helper()
	var info Info
	m := moduleReader{info: &info}
	if err := m.read(wasm); err != nil {
		t.Fatal(err)
	}
	s := info.sections[sectionCode]
	r := reader{b: wasm, off: s.from + 1, end: s.to}
	b := r.bytes(r.u32())
	var e effort
	cost, err := e.function(&m, m.funcs[0], &reader{b: wasm, off: r.off - len(b), end: r.off})
	if err != nil {
		t.Fatal(err)
	}
	return cost
}

// What a local costs: the places between its setting and its last use.
func TestEffortOfLocals(t *testing.T) {
	const n = 100
	ifs := func(c *body) { c.times(n, func(int) { c.op(0x41, 0, 0x04, 0x40, 0x0b) }) } // two places each
	measure := func(f func(c *body)) int {
		c, empty := new(body), new(body)
		f(c)
		// The same places, without a local.
		loops := bytes.Count(c.b, []byte{0x03, 0x40})
		empty.times(loops, func(int) { empty.op(0x03, 0x40) })
		empty.times(n, func(int) { empty.op(0x41, 0, 0x04, 0x40, 0x0b) })
		empty.times(loops, func(int) { empty.op(0x0b) })
		return effortOf(t, function(1, c)) - effortOf(t, function(1, empty))
	}
	for _, tc := range []struct {
		name     string
		body     func(c *body)
		least, m int
	}{
		{"never used", func(c *body) { c.op(0x41, 1, 0x21, 0); ifs(c) }, 0, 0},
		{"used at once", func(c *body) { c.op(0x41, 1, 0x21, 0, 0x20, 0, 0x1a); ifs(c) }, 0, 1},
		{"live across", func(c *body) { c.op(0x41, 1, 0x21, 0); ifs(c); c.op(0x20, 0, 0x1a) }, 2 * n, 2*n + 1},
		{"the zero it begins with", func(c *body) { ifs(c); c.op(0x20, 0, 0x1a) }, 2 * n, 2*n + 1},
		{"set anew before use", func(c *body) { c.op(0x41, 1, 0x21, 0); ifs(c); c.op(0x41, 1, 0x21, 0, 0x20, 0, 0x1a) }, 0, 1},
		{"two lives", func(c *body) {
			c.op(0x41, 1, 0x21, 0, 0x20, 0, 0x1a)
			ifs(c)
			c.op(0x41, 1, 0x21, 0, 0x20, 0, 0x1a)
		}, 0, 2},
		{"of a loop only", func(c *body) { c.op(0x03, 0x40, 0x41, 1, 0x21, 0, 0x20, 0, 0x1a); ifs(c); c.op(0x0b) }, 0, 1},
		{"into a loop", func(c *body) { c.op(0x03, 0x40, 0x20, 0, 0x1a); ifs(c); c.op(0x0b) }, 2 * n, 2*n + 2},
		{"around a loop", func(c *body) {
			c.op(0x03, 0x40, 0x20, 0, 0x1a)
			ifs(c)
			c.op(0x41, 1, 0x21, 0, 0x0b)
		}, 2 * n, 2*n + 2},
		{"out of a loop", func(c *body) {
			c.op(0x03, 0x40, 0x41, 1, 0x21, 0)
			ifs(c)
			c.op(0x0b, 0x20, 0, 0x1a)
		}, 2 * n, 2*n + 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := measure(tc.body); got < tc.least || got > tc.m {
				t.Errorf("costs %d; want %d to %d", got, tc.least, tc.m)
			}
		})
	}
}

// The walk over the code steps over every instruction that wazero accepts: it
// arrives at the end of each body of the Go guests.
func TestEffortOfGoGuests(t *testing.T) {
	for _, build := range []func() ([]byte, error){commandWasm, reactorWasm} {
		wasm, err := build()
		if err != nil {
			t.Fatal(err)
		}
		if wasm, err = rewrite.Meter(wasm, rewrite.Options{}); err != nil {
			t.Fatal(err)
		}
		var info Info
		m := moduleReader{info: &info}
		if err := m.read(wasm); err != nil {
			t.Fatal(err)
		}
		if err := m.checkEffort(wasm); err != nil {
			t.Error(err)
		}
	}
}
