package rewrite

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
	refill uint32 // the imported function
	more   uint32 // the helper that calls it until the counter is not negative
	fuel   uint32 // the counter, a global

	w      *bodyReader
	costs  []uint64 // by slot
	frames []frame

	// The state of the going-through.
	slot    int // that instructions now count for, or dead
	slots   int // opened so far
	writing bool
	out     []byte
	copied  int    // how much of the body has been written or left out
	depth   uint32 // of labels in the output

	// What the first time through found.
	loops, calls, lengths bool

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
	entry int
	// outer is the outermost frame that a branch in this one goes to; or this
	// frame's own index, or more.
	outer   int
	reached bool // its end is branched to, or it is an if whose first arm goes on to its end
	out     uint32
	wrapped bool // loop: has the three labels around it that its slow path needs
}

// function returns the metered body of the module's own function fn.
func (c *metering) function(fn int) ([]byte, error) {
	m, w, s := c.m, c.w, c.m.bodies[fn]
	body := m.wasm[s.from:s.to]

	c.loops, c.calls, c.lengths = false, false, false
	c.costs = c.costs[:0]
	c.writing = false
	if err := c.walk(fn, s); err != nil {
		return nil, err
	}

	// Declare the locals, after the function's own.
	c.hasLocal = c.loops
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
	if err := c.walk(fn, s); err != nil {
		return nil, err
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
	c.slots = 0
	c.depth = 0
	c.open(slotFunction)
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
		c.depth++
		c.frames = append(c.frames, frame{op: opBlock, entry: c.slot, dead: c.slot == dead, outer: top + 1, out: c.depth})
	case opIf:
		c.depth++
		c.frames = append(c.frames, frame{op: opIf, entry: c.slot, dead: c.slot == dead, outer: top + 1, out: c.depth})
		if c.slot != dead {
			c.flush(in.end)
			c.open(slotArm)
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
			c.open(slotArm)
		}
	case opEnd:
		c.end(in)
	case opBr:
		c.branch(in.index)
		c.relabel(in, in.index)
		c.slot = dead
	case opBrIf:
		c.branch(in.index)
		c.relabel(in, in.index)
		if c.slot != dead {
			c.flush(in.end)
			c.open(slotAfter)
		}
	case opBrTable:
		for _, l := range in.labels {
			c.branch(l)
		}
		c.relabelTable(in)
		c.slot = dead
	case opReturn:
		c.branch(uint32(top))
		c.slot = dead
	case opUnreachable:
		c.slot = dead
	case opCall, opReturnCall, opRefFunc:
		if c.writing {
			c.flush(in.at)
			c.out = appendU32(append(c.out, in.op), c.renumber(in.index))
			c.copied = in.end
		}
		c.afterCall(in)
	case opCallIndirect, opReturnCallIndirect:
		c.afterCall(in)
	case opMemoryGrow, opMisc:
		if l, ok := lengthOf(in); ok && c.slot != dead {
			c.lengths = true
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
	target := top - int(l)
	if target < 0 {
		return // w.next has made it an error
	}
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
	if f.op == opLoop {
		c.endLoop(in, &f)
	}
	c.depth = f.out - 1
	if f.wrapped {
		c.depth -= 3
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
	joined := f.reached || f.op == opIf && !f.hasElse
	switch {
	case !joined: // only what fell through gets here, or nothing
	default:
		c.flush(in.end)
		c.open(slotAfter)
	}
}

// Kinds of slots.
const (
	slotFunction = iota
	slotTurn     // of a loop
	slotArm      // of an if
	slotAfter    // a br_if that is not taken, or where paths join
)

// open opens a slot at the place in the output and writes its charge.
func (c *metering) open(kind int) {
	c.slot = c.slots
	c.slots++
	if !c.writing {
		c.costs = append(c.costs, 0)
		return
	}
	if kind == slotFunction && c.hasLocal {
		c.getGlobal()
		c.setLocal()
	}
	c.charge(c.costs[c.slot])
	if kind == slotFunction && c.calls {
		c.check()
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

// loop opens a loop. The counter is checked before the turn is charged. The call
// for more lies outside the loop, because a call inside makes the compiler give
// up registers across it even where it is never reached:
//
//	block bt
//	  loop bt
//	    block
//	      loop bt            ;; the guest's
//	        counter < 0
//	        br_if 1
//	        …
//	      end
//	      br 2
//	    end
//	    call more
//	    br 0
//	  end
//	end
func (c *metering) loop(in *instr) {
	f := frame{op: opLoop, entry: c.slot, dead: c.slot == dead, outer: len(c.frames)}
	switch {
	case f.dead:
		c.depth++
	case in.block < 0 && len(c.m.types[in.index].params) > 0:
		// Its parameters are on the stack and cannot be brought back: ask in place.
		c.loops = true
		c.depth++
		if c.writing {
			c.flush(in.end)
			c.check()
		}
	default:
		c.loops = true
		c.depth += 4
		f.wrapped = true
		if c.writing {
			c.flush(in.at)
			bt := c.w.r.b[in.at+1 : in.end]
			c.out = append(append(c.out, opBlock), bt...)
			c.out = append(append(c.out, opLoop), bt...)
			c.out = append(c.out, opBlock, typeEmpty)
			c.out = append(append(c.out, opLoop), bt...)
			c.copied = in.end
			c.getCounter()
			c.out = append(c.out, opI64Const, 0, opI64LtS, opBrIf, 1)
		}
	}
	f.out = c.depth
	c.frames = append(c.frames, f)
	if !f.dead {
		c.flush(in.end)
		c.open(slotTurn)
	}
}

func (c *metering) endLoop(in *instr, f *frame) {
	if !f.wrapped || !c.writing {
		return
	}
	c.flush(in.end)
	c.out = append(c.out, opBr, 2, opEnd)
	c.callMore()
	c.out = append(c.out, opBr, 0, opEnd, opEnd)
}

// label returns the label in the output that the input's label l has become.
func (c *metering) label(l uint32) uint32 {
	return c.depth - c.frames[len(c.frames)-1-int(l)].out
}

func (c *metering) relabel(in *instr, l uint32) {
	if !c.writing || c.label(l) == l {
		return
	}
	c.flush(in.at)
	c.out = appendU32(append(c.out, in.op), c.label(l))
	c.copied = in.end
}

func (c *metering) relabelTable(in *instr) {
	if !c.writing {
		return
	}
	c.flush(in.at)
	c.out = appendU32(append(c.out, in.op), uint32(len(in.labels)-1))
	for _, l := range in.labels {
		c.out = appendU32(c.out, c.label(l))
	}
	c.copied = in.end
}

// length charges for the range that in works through. Before it runs, the length
// is on top of the stack.
func (c *metering) length(in *instr, l length) {
	if !c.writing {
		return
	}
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
	c.check()
	if !l.gained {
		c.flush(in.end)
	}
}

// moreBody is the body of the helper: do fuel += refill() while fuel < 0.
func (c *metering) moreBody() []byte {
	b := appendU32([]byte{0, opLoop, typeEmpty, opGlobalGet}, c.fuel)
	b = appendU32(append(b, opCall), c.refill)
	b = appendU32(append(b, opI64Add, opGlobalSet), c.fuel)
	b = appendU32(append(b, opGlobalGet), c.fuel)
	return append(b, opI64Const, 0, opI64LtS, opBrIf, 0, opEnd, opEnd)
}
