package rewrite

import "sort"

// metering inserts fuel metering into the bodies of functions.
//
// A body is gone through twice by the same steps: first to add up what each
// charge must be, then to write. A slot is a point at which fuel is charged: the
// start of the function, of a loop's turn, of an arm of an if, what follows a
// br_if, or what follows a block that was left by other ways than its end.
// Instructions add to the slot in whose wake they always run. After a block that
// can only be left through its end, what follows counts for the slot from before
// the block.
type metering struct {
	*edit
	refill uint32 // the imported functions
	limit  uint32
	more   uint32 // the helper that calls it until the counter is not negative
	fuel   uint32 // the counter, a global
	stack  uint32 // bytes of stack that are left, a global

	resultTypes map[string]uint32 // types of blocks, see push
	// dispatch are the functions to call in place of call_indirect, by type.
	dispatch map[uint32]uint32

	w      *bodyReader
	costs  []uint64 // by slot
	frames []frame

	// The state of the going-through.
	slot    int // that instructions now count for, or dead
	slots   int // opened so far
	writing bool
	out     []byte
	copied  int // how much of the body has been written or left out

	// The innermost loop, while no other loop has been met in it: its number,
	// or -1.
	inner  int
	loopID int

	// uses says how each local is used in the loop inner; those of which it says
	// anything are touched. Both are kept from function to function: to clear
	// 50,000 of them for each of a million functions would take hours.
	uses    []use
	touched []uint32
	epoch   uint64 // counts loops

	// What the first time through found.
	carry                 [][]uint32 // by loop: the locals to carry over its slow path, see carried
	loops, calls, lengths bool
	deep                  bool    // it calls the module's own functions, other than by tail calls
	frame                 int64   // what a frame of it counts for, if deep
	hot                   bool    // there is a loop without loops and calls in it
	groups                []group // of the function's locals, when localType has needed them

	local    uint32 // holds the counter if the function has loops
	scratch  uint32 // of type i32, if lengths; the next too
	hasLocal bool
}

const dead = -1 // the slot of code that cannot be reached

// A frame is a block, loop, if or the function itself, around the current
// instruction.
type frame struct {
	op      byte
	hasElse bool // if: the else has been seen
	dead    bool // starts in dead code
	// entry is the slot from before it; after a frame that is only left through
	// its end, counting goes on there.
	entry     int
	then, els int // slots of the arms of an if
	head      int // the slot of a loop's turn
	// outer is the outermost frame that a branch in this one goes to; or this
	// frame's own index, or more.
	outer   int
	reached bool // its end is branched to, or it is an if whose first arm goes on to its end

	// Of a loop:
	id    int   // its number, or -1 if it has parameters
	turns []int // slots from which it is always branched to
	maybe bool  // it is branched to conditionally
}

// function returns the metered body of the module's own function fn.
func (c *metering) function(fn int) ([]byte, error) {
	m, w, s := c.m, c.w, c.m.bodies[fn]
	body := m.wasm[s.from:s.to]

	c.loops, c.calls, c.lengths, c.hot, c.deep = false, false, false, false, false
	c.costs, c.carry, c.groups = c.costs[:0], c.carry[:0], c.groups[:0]
	c.writing = false
	if err := c.walk(fn, s); err != nil {
		return nil, err
	}

	// Declare the locals, after the function's own.
	c.hasLocal = c.loops && (!c.calls || c.hot)
	c.writing = true
	c.out = make([]byte, 0, len(body)+len(body)/4+32)
	groups, next := w.nGroup, w.locals
	if c.hasLocal {
		c.local = next
		next++
		groups++
	}
	if c.lengths {
		c.scratch = next
		groups++
	}
	c.out = appendU32(c.out, groups)
	c.out = append(c.out, body[w.groups.from:w.groups.to]...)
	if c.hasLocal {
		c.out = append(c.out, 1, typeI64)
	}
	if c.lengths {
		c.out = append(c.out, 2, typeI32)
	}
	if c.deep {
		c.frame = c.frameSize(fn, len(body))
		c.push(fn)
	}
	if err := c.walk(fn, s); err != nil {
		return nil, err
	}
	if c.deep { // the body's end is that of the block
		c.pop()
		c.out = append(c.out, opEnd)
	}
	out := c.out
	c.out = nil
	return out, nil
}

// walk goes through the body of function fn.
func (c *metering) walk(fn int, s span) error {
	w := c.w
	w.open(fn, s)
	c.copied = w.code
	c.frames = append(c.frames[:0], frame{outer: 0, entry: dead})
	c.slots, c.loopID, c.inner = 0, 0, -1
	c.enter()
	var in instr
	for w.next(&in) {
		c.step(&in)
	}
	if w.r.err == nil && c.writing {
		c.flush(len(w.r.b))
	}
	return w.r.err
}

// flush writes the body up to byte to.
func (c *metering) flush(to int) {
	if c.writing {
		c.out = append(c.out, c.w.r.b[c.copied:to]...)
		c.copied = to
	}
}

func (c *metering) step(in *instr) {
	top := len(c.frames) - 1
	if c.slot != dead {
		if k := cost(in); k > 0 && !c.writing {
			c.costs[c.slot] += k
		}
	}
	switch in.op {
	case opBlock:
		c.frames = append(c.frames, frame{op: opBlock, entry: c.slot, dead: c.slot == dead, outer: top + 1})
	case opIf:
		c.frames = append(c.frames, frame{op: opIf, entry: c.slot, dead: c.slot == dead, outer: top + 1})
		if c.slot != dead {
			c.flush(in.end)
			c.open()
			c.frames[top+1].then = c.slot
		}
	case opLoop:
		c.loop(in)
	case opElse:
		f := &c.frames[top]
		if f.op != opIf || f.hasElse {
			c.w.r.malformed(in.at, "else outside an if")
			return
		}
		f.hasElse = true
		f.reached = f.reached || c.slot != dead
		if !f.dead {
			c.flush(in.end)
			c.open()
			f.els = c.slot
		}
	case opEnd:
		c.end(in)
	case opBr:
		c.branch(in.index)
		c.turn(in.index, true)
		c.slot = dead
	case opBrIf:
		c.branch(in.index)
		c.turn(in.index, false)
		if c.slot != dead {
			c.flush(in.end)
			c.open()
		}
	case opBrTable:
		for _, l := range in.labels {
			c.branch(l)
			c.turn(l, false)
		}
		c.slot = dead
	case opReturn:
		if c.deep && c.writing {
			c.flush(in.at)
			c.out = appendU32(append(c.out, opBr), uint32(top))
			c.copied = in.end
		}
		c.branch(uint32(top))
		c.slot = dead
	case opUnreachable:
		c.slot = dead
	case opCall, opReturnCall, opRefFunc:
		if c.writing {
			c.flush(in.at)
			if in.op == opReturnCall && c.deep {
				c.pop()
			}
			c.out = appendU32(append(c.out, in.op), c.renumber(in.index))
			c.copied = in.end
		}
		c.afterCall(in)
	case opCallIndirect, opReturnCallIndirect:
		if in.op == opReturnCallIndirect && c.deep && c.writing {
			c.flush(in.at)
			c.pop()
		}
		if fn, ok := c.dispatch[in.index]; ok && c.writing {
			op := byte(opCall)
			if in.op == opReturnCallIndirect {
				op = opReturnCall
			}
			c.flush(in.at)
			c.out = appendU32(append(c.out, op), fn)
			c.copied = in.end
		}
		c.afterCall(in)
	case opLocalGet, opLocalSet, opLocalTee:
		c.use(in)
	case opMemoryGrow, opMisc:
		if l, ok := lengthOf(in); ok && c.slot != dead {
			c.lengths = true
			c.inner = -1
			c.length(in, l)
		}
	}
}

func (c *metering) afterCall(in *instr) {
	if c.slot == dead {
		return
	}
	switch in.op {
	case opReturnCall, opReturnCallIndirect:
		c.calls = true
		c.branch(uint32(len(c.frames) - 1))
		c.slot = dead
	case opCall, opCallIndirect:
		c.calls = true
		c.deep = c.deep || in.op == opCallIndirect || in.index >= c.m.importedFuncs
		c.inner = -1
		if c.writing && c.hasLocal {
			c.flush(in.end)
			c.getGlobal()
			c.setLocal()
		}
	}
}

// branch notes a branch to label l.
func (c *metering) branch(l uint32) {
	if c.slot == dead {
		return
	}
	top := len(c.frames) - 1
	target := top - int(l) // which exists, w.next has seen to that
	f := &c.frames[target]
	if f.op != opLoop {
		f.reached = true
	}
	// The frames inside the target are left without their ends. They learn it
	// when they end, see end.
	if target < c.frames[top].outer {
		c.frames[top].outer = target
	}
}

// end closes a frame and decides for which slot the code after it counts.
func (c *metering) end(in *instr) {
	top := len(c.frames) - 1
	f := c.frames[top]
	c.frames = c.frames[:top]
	if top == 0 {
		return
	}
	if f.op == opIf && f.hasElse && !f.dead && !c.writing {
		// One arm runs or the other: what both cost is charged before them.
		least := min(c.costs[f.then], c.costs[f.els])
		c.costs[f.entry] += least
		c.costs[f.then] -= least
		c.costs[f.els] -= least
	}
	if f.op == opLoop {
		c.endLoop(&f)
	}
	// A branch to a frame around the parent leaves the parent too.
	if parent := &c.frames[top-1]; f.outer < parent.outer {
		parent.outer = f.outer
	}
	if f.dead {
		c.slot = dead
		return
	}
	if f.outer >= top {
		// It is only left through its end: what comes after it runs as often as
		// what came before, unless a trap or an endless loop comes between.
		c.slot = f.entry
		return
	}
	if f.reached || f.op == opIf && !f.hasElse {
		c.flush(in.end)
		c.open()
	} // else only what fell through goes on, or nothing
}

// open opens a slot at the place in the output and writes its charge.
func (c *metering) open() {
	c.slot = c.slots
	c.slots++
	if c.writing {
		c.charge(c.costs[c.slot])
	} else {
		c.costs = append(c.costs, 0)
	}
}

// charge takes k from the counter.
func (c *metering) charge(k uint64) {
	if k == 0 {
		return
	}
	c.getCounter()
	c.out = appendS64(append(c.out, opI64Const), int64(k))
	c.out = append(c.out, opI64Sub)
	c.setCounter()
}

// check asks the host for more if the counter is below zero.
func (c *metering) check() {
	c.getCounter()
	c.out = append(c.out, opI64Const, 0, opI64LtS, opIf, typeEmpty)
	c.callMore()
	c.out = append(c.out, opEnd)
}

func (c *metering) callMore() {
	c.out = appendU32(append(c.out, opCall), c.more)
	if c.hasLocal {
		c.getGlobal()
		c.setLocal()
	}
}

func (c *metering) getGlobal() { c.out = appendU32(append(c.out, opGlobalGet), c.fuel) }
func (c *metering) setLocal()  { c.out = appendU32(append(c.out, opLocalSet), c.local) }

// getCounter pushes the counter.
func (c *metering) getCounter() {
	if c.hasLocal {
		c.out = appendU32(append(c.out, opLocalGet), c.local)
	} else {
		c.getGlobal()
	}
}

// setCounter pops the counter. The global is always kept current, so that the
// count is exact whenever the host sees it: in host calls, and after a trap.
func (c *metering) setCounter() {
	if c.hasLocal {
		c.out = appendU32(append(c.out, opLocalTee), c.local)
	}
	c.out = appendU32(append(c.out, opGlobalSet), c.fuel)
}

// loop opens a loop. The counter is checked before the turn is charged, so that
// the way back from asking can be the way that every turn takes, see ask.
func (c *metering) loop(in *instr) {
	f := frame{op: opLoop, entry: c.slot, dead: c.slot == dead, outer: len(c.frames), id: -1}
	c.inner = -1
	switch {
	case f.dead:
	case in.block < 0 && len(c.m.types[in.index].params) > 0:
		// A branch back would need the parameters, which may be gone: ask in place.
		c.loops = true
		c.flush(in.end)
		if c.writing {
			c.check()
		}
	default:
		c.loops = true
		f.id = c.loopID
		c.inner = f.id
		c.loopID++
		c.epoch++
		c.touched = c.touched[:0]
		c.flush(in.end)
		if c.writing {
			c.ask(c.carry[f.id])
		} else {
			c.carry = append(c.carry, nil)
		}
	}
	if !f.dead {
		c.open()
		f.head = c.slot
	}
	c.frames = append(c.frames, f)
}

// turn notes a branch to label l, if that is a loop.
func (c *metering) turn(l uint32, always bool) {
	if c.writing || c.slot == dead {
		return
	}
	if f := &c.frames[len(c.frames)-1-int(l)]; f.op != opLoop {
		return
	} else if always {
		f.turns = append(f.turns, c.slot)
	} else {
		f.maybe = true
	}
}

// ask asks for more if the counter is below zero, at the start of a loop
// without parameters, and then starts the loop's turn anew:
//
//	block
//	  counter >= 0
//	  br_if 0
//	  …              ;; refresh what the loop carries
//	  call more
//	  br 1
//	end
//
// Were it to go on in place, as check does, two ways would join in every turn,
// and wazero would forget there what it holds in registers.
func (c *metering) ask(carry []uint32) {
	c.out = append(c.out, opBlock, typeEmpty)
	c.getCounter()
	c.out = append(c.out, opI64Const, 0, opI64GeS, opBrIf, 0)
	for _, l := range carry {
		c.refresh(l)
	}
	c.callMore()
	c.out = append(c.out, opBr, 1, opEnd)
}

func (c *metering) endLoop(f *frame) {
	if !c.writing && !f.dead && !f.maybe {
		// Wherever the loop is entered or turned to, its first slot is sure to
		// follow: it is charged there, where there is a charge anyway.
		h := c.costs[f.head]
		c.costs[f.head] = 0
		c.costs[f.entry] += h
		for _, slot := range f.turns {
			c.costs[slot] += h
		}
	}
	if c.inner >= 0 && c.inner == f.id && !c.writing {
		c.carry[f.id] = c.carried()
		c.hot = true
	}
	c.inner = -1
}

// length charges for the range that in works through, and checks.
func (c *metering) length(in *instr, l length) {
	if !c.writing {
		return
	}
	c.charged(in, l)
	if in.op == opMemoryGrow {
		c.refused()
	}
	c.check()
	if !l.gained {
		c.flush(in.end)
	}
}

// refused tells the host if memory.grow failed. Not every engine would.
func (c *metering) refused() {
	n, result := c.scratch, c.scratch+1
	c.out = appendU32(append(c.out, opLocalGet), result)
	c.out = append(c.out, opI32Const, 0x7f, opI32Eq, opIf, typeEmpty, opI32Const, LimitMemory)
	c.out = append(c.out, opMemorySize, 0, opI64ExtendI32U)
	c.out = append(appendU32(append(c.out, opLocalGet), n), opI64ExtendI32U, opI64Add)
	c.out = append(appendU32(append(c.out, opCall), c.limit), opEnd)
}

// charged charges for the range that in works through. Before it runs, the length
// is on top of the stack.
func (c *metering) charged(in *instr, l length) {
	c.flush(in.at)
	n, result := c.scratch, c.scratch+1
	c.out = appendU32(append(c.out, opLocalTee), n)
	if l.gained {
		c.flush(in.end)
		c.out = appendU32(append(c.out, opLocalTee), result)
	}
	c.getCounter()
	c.out = appendU32(append(c.out, opLocalGet), n)
	if l.gained {
		c.out = append(c.out, opI32Const, 0)
		c.out = appendU32(append(c.out, opLocalGet), result)
		c.out = append(c.out, opI32Const, 0x7f, opI32Ne, opSelect)
	}
	c.out = append(c.out, opI64ExtendI32U)
	if l.shift > 0 {
		c.out = append(appendS64(append(c.out, opI64Const), l.shift), opI64ShrU)
	}
	if l.scale > 0 {
		c.out = append(appendS64(append(c.out, opI64Const), l.scale), opI64Mul)
	}
	c.out = append(c.out, opI64Sub)
	c.setCounter()
}

// moreBody is the body of the helper: do fuel += refill() while fuel < 0.
func (c *metering) moreBody() []byte {
	b := appendU32([]byte{0, opLoop, typeEmpty, opGlobalGet}, c.fuel)
	b = appendU32(append(b, opCall), c.refill)
	b = appendU32(append(b, opI64Add, opGlobalSet), c.fuel)
	b = appendU32(append(b, opGlobalGet), c.fuel)
	return append(b, opI64Const, 0, opI64LtS, opBrIf, 0, opEnd, opEnd)
}

// enter opens the function. One that calls others asks for more first.
func (c *metering) enter() {
	if c.writing && c.calls {
		c.out = append(c.out, opLoop, typeEmpty)
		if c.hasLocal {
			c.getGlobal()
			c.setLocal()
		}
		c.ask(nil)
		c.out = append(c.out, opEnd)
	} else if c.writing && c.hasLocal {
		c.getGlobal()
		c.setLocal()
	}
	c.open()
}

// A use is how a local is used in the loop numbered epoch.
type use struct {
	epoch uint64
	kind  uint8
}

const (
	usedGet = 1 << iota // read before it is set, in the order of the text
	usedSet
	usedCarried = usedGet | usedSet
)

// use notes the use of a local in the innermost loop.
func (c *metering) use(in *instr) {
	if c.writing || c.inner < 0 {
		return
	}
	for uint32(len(c.uses)) <= in.index {
		c.uses = append(c.uses, use{})
	}
	u := &c.uses[in.index]
	if u.epoch != c.epoch {
		*u = use{epoch: c.epoch}
		c.touched = append(c.touched, in.index)
	}
	switch {
	case in.op != opLocalGet:
		u.kind |= usedSet
	case u.kind == 0:
		u.kind = usedGet
	}
}

// maxCarried is for how many locals of a loop refresh is worth its while: a
// machine has no more registers.
const maxCarried = 16

// carried returns the locals that hold values from one turn of the innermost
// loop to the next, in registers if all goes well.
func (c *metering) carried() []uint32 {
	var ls []uint32
	for _, l := range c.touched {
		if c.uses[l].kind == usedCarried {
			if len(ls) == maxCarried {
				return nil
			}
			ls = append(ls, l)
		}
	}
	return ls
}

// refresh sets local l to itself, by way of an instruction that makes it
// another value for the compiler. wazero's register allocator stores a value
// that is needed after a call where the value is made, and the values that a
// loop carries are made in every turn. The copy is made on the slow path, and it
// is the copy that is needed after the call.
func (c *metering) refresh(l uint32) {
	t := c.localType(l)
	if t == typeFuncref || t == typeExternref {
		return
	}
	c.out = appendU32(append(c.out, opLocalGet), l)
	switch t {
	case typeI32:
		c.out = append(c.out, opI32Const, 0, opI32Add)
	case typeI64:
		c.out = append(c.out, opI64Const, 0, opI64Add)
	case typeF32:
		c.out = append(c.out, opI32ReinterpretF32, opF32ReinterpretI32)
	case typeF64:
		c.out = append(c.out, opI64ReinterpretF64, opF64ReinterpretI64)
	case typeV128:
		c.out = appendU32(append(c.out, opLocalGet), l)
		c.out = append(c.out, opVector, vecV128Or)
	}
	c.out = appendU32(append(c.out, opLocalSet), l)
}

// A group is a declaration of locals of one type: those up to, not with, end.
type group struct {
	end uint32
	typ byte
}

// localType returns the type of a local or parameter of the current function.
func (c *metering) localType(l uint32) byte {
	w := c.w
	params := c.m.funcType(c.m.importedFuncs + uint32(w.fn)).params
	if l < uint32(len(params)) {
		return params[l]
	}
	if len(c.groups) == 0 {
		end := uint32(len(params))
		r := reader{b: w.r.b[w.groups.from:w.groups.to]}
		for r.left() > 0 {
			end += r.u32()
			c.groups = append(c.groups, group{end, r.byte()})
		}
	}
	i := sort.Search(len(c.groups), func(i int) bool { return l < c.groups[i].end })
	return c.groups[i].typ
}
