package rewrite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// A program writes a random valid module of three functions (i32) -> (i32),
// with a memory and a table of them. Every loop and every call takes a step
// from a global and ends the run, by a trap, when no step is left; so all runs
// end.
type program struct {
	r      *rand.Rand
	labels []label // around the current place, the innermost last
	budget int     // of instructions still to write
}

// A label is what a branch to it needs.
type label struct {
	result bool // an i32
	loop   bool
}

const (
	stepGlobal   = 0
	randomLocals = 4 // the parameter included, all i32
)

func randomModule(seed uint64) []byte {
	p := &program{r: rand.New(rand.NewPCG(seed, 1))}
	var bodies [][]byte
	for range 3 {
		p.budget = 30 + p.r.IntN(150)
		p.labels = []label{{result: true}}
		b := p.step([]byte{1, randomLocals - 1, typeI32})
		b = p.statements(b)
		b = append(p.value(b), opEnd)
		bodies = append(bodies, b)
	}
	codes := []byte{byte(len(bodies))}
	for _, b := range bodies {
		codes = append(appendU32(codes, uint32(len(b))), b...)
	}
	return module(
		sec(secType, 3, 0x60, 1, typeI32, 1, typeI32, 0x60, 1, typeI32, 0, 0x60, 1, typeI32, 2, typeI32, typeI32),
		sec(secFunction, 3, 0, 0, 0),
		sec(secTable, 1, typeFuncref, 0, 3),
		sec(secMemory, 1, 0, 1),
		sec(secGlobal, append(append([]byte{1, typeI32, 1}, opI32Const), append(appendS64(nil, 200), opEnd)...)...),
		sec(secExport, 2, 3, 'r', 'u', 'n', kindFunc, 0, 3, 'm', 'e', 'm', kindMemory, 0),
		sec(secElement, 1, 0, opI32Const, 0, opEnd, 3, 0, 1, 2),
		sec(secCode, codes...),
	)
}

// step writes the taking of a step.
func (p *program) step(b []byte) []byte {
	return append(b, opGlobalGet, stepGlobal, opI32Const, 1, opI32Add+1, opGlobalSet, stepGlobal,
		opGlobalGet, stepGlobal, opFirstNumeric, opIf, typeEmpty, opUnreachable, opEnd)
}

func (p *program) local() byte { return byte(p.r.IntN(randomLocals)) }

// value writes instructions that push an i32.
func (p *program) value(b []byte) []byte {
	p.budget--
	if p.budget < 0 {
		return append(b, opLocalGet, p.local())
	}
	switch p.r.IntN(12) {
	case 0, 1, 2:
		return append(b, opLocalGet, p.local())
	case 3, 4:
		return appendS64(append(b, opI32Const), int64(p.r.IntN(40)-20))
	case 5:
		return append(p.value(p.value(b)), opI32Add)
	case 6:
		return append(p.value(p.value(b)), opI32Mul)
	case 7:
		return append(p.value(p.value(b)), opI32DivS) // which may trap
	case 8:
		return append(p.value(b), opCall, byte(p.r.IntN(3)))
	case 9:
		b = p.value(b)
		b = p.value(b)
		return append(b, opI32Const, 3, opI32RemU, opCallIndirect, 0, 0)
	case 10:
		b = append(p.value(b), opIf, typeI32)
		p.labels = append(p.labels, label{result: true})
		b = append(p.value(p.statements(b)), opElse)
		b = append(p.value(p.statements(b)), opEnd)
		p.labels = p.labels[:len(p.labels)-1]
		return b
	default:
		b = append(b, opBlock, typeI32)
		p.labels = append(p.labels, label{result: true})
		b = append(p.value(p.statements(b)), opEnd)
		p.labels = p.labels[:len(p.labels)-1]
		return b
	}
}

// statements writes instructions that leave the stack as it was, and sometimes
// ends them with a jump and dead code.
func (p *program) statements(b []byte) []byte {
	for range p.r.IntN(4) {
		if p.budget < 0 {
			break
		}
		b = p.statement(b)
	}
	if p.r.IntN(10) == 0 {
		b = p.jump(b)
		if p.r.IntN(2) == 0 {
			b = append(b, opBlock, typeEmpty, opLocalGet, 0, opIf, typeEmpty, opElse, opLoop, typeEmpty, opEnd, opEnd, opEnd)
		}
	}
	return b
}

func (p *program) block(b []byte, op byte, loop bool) []byte {
	b = append(b, op, typeEmpty)
	p.labels = append(p.labels, label{loop: loop})
	if loop {
		b = p.step(b)
	}
	b = p.statements(b)
	if op == opIf && p.r.IntN(2) == 0 {
		b = p.statements(append(b, opElse))
	}
	p.labels = p.labels[:len(p.labels)-1]
	return append(b, opEnd)
}

func (p *program) statement(b []byte) []byte {
	p.budget--
	switch p.r.IntN(14) {
	case 0, 1:
		return append(p.value(b), opLocalSet, p.local())
	case 2:
		return append(p.value(b), opLocalTee, p.local(), opDrop)
	case 3:
		return p.block(b, opBlock, false)
	case 4, 5:
		return p.block(b, opLoop, true)
	case 6, 7:
		return p.block(p.value(b), opIf, false)
	case 8, 9:
		return p.branchIf(b)
	case 10:
		// memory.fill of up to 255 bytes.
		b = append(b, opI32Const, 16)
		b = append(p.value(b), opLocalGet, p.local(), opI32Const, 0xff, 1, opI32And)
		return append(b, opMisc, miscMemoryFill, 0)
	case 11:
		// memory.grow, mostly beyond what is granted.
		return append(p.value(b), opMemoryGrow, 0, opLocalSet, p.local())
	case 12:
		// A loop that takes a parameter, and a block that gives two results.
		b = append(p.value(b), opLoop, 1)
		b = append(b, opLocalSet, p.local())
		b = p.step(b)
		b = append(b, opLocalGet, p.local())
		p.labels = append(p.labels, label{loop: true, result: true})
		b = p.value(b)
		b = append(b, opBrIf, 0, opDrop, opEnd)
		p.labels = p.labels[:len(p.labels)-1]
		return b
	default:
		b = append(p.value(b), opBlock, 2)
		p.labels = append(p.labels, label{})
		b = append(b, opLocalGet, p.local())
		p.labels = p.labels[:len(p.labels)-1]
		return append(b, opEnd, opLocalSet, p.local(), opLocalSet, p.local())
	}
}

func (p *program) pick() (depth byte, l label) {
	d := p.r.IntN(len(p.labels))
	return byte(d), p.labels[len(p.labels)-1-d]
}

func (p *program) branchIf(b []byte) []byte {
	d, l := p.pick()
	if l.result {
		b = p.value(b)
	}
	b = append(p.value(b), opBrIf, d)
	if l.result {
		b = append(b, opDrop)
	}
	return b
}

// jump writes a branch after which code is dead.
func (p *program) jump(b []byte) []byte {
	switch p.r.IntN(4) {
	case 0:
		return append(p.value(b), opReturn)
	case 1:
		return append(b, opUnreachable)
	case 2:
		// The labels of a br_table must agree.
		_, want := p.pick()
		if want.result {
			b = p.value(b)
		}
		var ds []byte
		for d := range p.labels {
			if l := p.labels[len(p.labels)-1-d]; l.result == want.result {
				ds = append(ds, byte(d))
			}
		}
		p.r.Shuffle(len(ds), func(i, j int) { ds[i], ds[j] = ds[j], ds[i] })
		b = append(p.value(b), opBrTable, byte(len(ds)-1))
		return append(b, ds...)
	default:
		d, l := p.pick()
		if l.result {
			b = p.value(b)
		}
		return append(b, opBr, d)
	}
}

// meterNaively charges for each instruction on its own, just before it, and
// never asks: the slow and obvious way, which the real one must agree with.
func meterNaively(t *testing.T, wasm []byte) []byte {
	m, err := Decode(wasm)
	if err != nil {
		t.Fatal(err)
	}
	e := &edit{m: m}
	fuel := m.allGlobals()
	e.addGlobal([]byte{typeI64, 1, opI64Const, 0, opEnd})
	e.addExport(FuelGlobal, kindGlobal, fuel)
	c := &metering{edit: e, fuel: fuel, writing: true}
	w := newBodyReader(m)
	for i, s := range m.bodies {
		body := m.wasm[s.from:s.to]
		var code []byte
		copied := 0
		if err := w.read(i, s, func(in *instr) {
			if copied == 0 {
				copied = w.code
			}
			code = append(code, body[copied:in.at]...)
			copied = in.at
			c.out = nil
			c.charge(cost(in))
			code = append(code, c.out...)
			if l, ok := lengthOf(in); ok {
				c.out, c.scratch, c.copied, c.w = nil, w.locals, in.at, w
				c.charged(in, l)
				code = append(code, c.out...)
				copied = c.copied
			}
		}); err != nil {
			t.Fatal(err)
		}
		b := appendU32(nil, w.nGroup+1)
		b = append(b, body[w.groups.from:w.groups.to]...)
		b = append(b, 2, typeI32)
		e.bodies = append(e.bodies, append(append(b, code...), body[copied:]...))
	}
	out, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// checkRandom runs a random module plain, metered, prepared and naively metered: the same
// result or trap and the same memory, and the same fuel, unless a trap cut short
// what was charged up front.
func checkRandom(t *testing.T, rt wazero.Runtime, seed uint64) (trapped bool) {
	t.Helper()
	ctx := context.Background()
	wasm := randomModule(seed)
	checkIdentity(t, fmt.Sprint(seed), wasm)
	var outcomes []string
	var burned []int64
	prepared, err := Prepare(wasm, Options{})
	if err != nil || prepared.Plain != "" || prepared.Dispatched != 3 {
		t.Fatalf("seed %d: prepared %+v, %v", seed, prepared, err)
	}
	for i, b := range [][]byte{wasm, meterNaively(t, wasm), metered(t, wasm), metered(t, wasm), prepared.Wasm} {
		meter := &meterHost{slice: []int64{0, 0, 7, 1 << 30, 100}[i]}
		ctx := context.WithValue(ctx, meterKey{}, meter)
		m, err := rt.InstantiateWithConfig(ctx, b, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		res, err := m.ExportedFunction("run").Call(ctx, 5)
		if err == nil {
			res[0] = uint64(api.DecodeI32(res[0]))
		}
		trapped = err != nil
		outcomes = append(outcomes, fmt.Sprint(res, sameTrap(firstLine(err)), m.Memory().Size(), string(memoryOf(m))))
		if i > 0 {
			burned = append(burned, meter.burned(m))
		}
		m.Close(ctx)
	}
	for _, o := range outcomes[1:] {
		if o != outcomes[0] {
			t.Errorf("seed %d: metered otherwise than plain", seed)
		}
	}
	if burned[1] != burned[2] {
		t.Errorf("seed %d: burned %d in small slices, %d in one", seed, burned[1], burned[2])
	}
	if burned[1] != burned[3] {
		t.Errorf("seed %d: burned %d metered, %d prepared", seed, burned[1], burned[3])
	}
	if burned[1] != burned[0] && !trapped || burned[1] < burned[0] {
		t.Errorf("seed %d: burned %d, counted %d one by one", seed, burned[1], burned[0])
	}
	return trapped
}

// small is an engine whose memories cannot become large.
func small(t testing.TB) wazero.Runtime {
	return newEngine(t, wazero.NewRuntimeConfig().WithMemoryLimitPages(16)).rt
}

func TestRandomPrograms(t *testing.T) {
	rt := small(t)
	traps := 0
	n := scaled(300)
	for seed := range uint64(n) {
		if checkRandom(t, rt, seed) {
			traps++
		}
	}
	if traps < n/20 || traps > n*19/20 {
		t.Errorf("%d of %d trapped: the programs test little", traps, n)
	}
}

func FuzzRandomPrograms(f *testing.F) {
	f.Add(uint64(1))
	rt := small(f)
	f.Fuzz(func(t *testing.T, seed uint64) { checkRandom(t, rt, seed) })
}
