package rewrite

// StackSize is how many bytes of stack a guest may have in use, by the measure of
// frameSize: a fib has 50,000 frames in it, an interpreter whose loop is a function
// of 100 KB some 300. Native programs have 8 MiB too, on Linux, and those that
// Wasmtime runs by default 512 KiB.
const StackSize = 8 << 20

// What a frame is taken to have. No engine says what it really takes, and no two
// take the same. In wazero, which gives each value that it cannot keep in a register
// a place of its own, the frames of a Go program come to a third of the bytes of
// its functions at most.
const (
	frameBase  = 128 // return address, saved registers, what calls pass on the stack
	frameValue = 8   // for each parameter, result and local
	frameShare = 4   // and one for so many bytes of the body
)

// frameSize is what a frame of the current function counts for. It depends on
// the module alone, so that a recursion ends at the same depth everywhere.
func (c *metering) frameSize(fn int, body int) int64 {
	t := c.m.funcType(c.m.importedFuncs + uint32(fn))
	return frameBase + frameValue*int64(int(c.w.locals)+len(t.results)) + int64(body)/frameShare
}

// push takes the frame from what is left of the stack, and opens a block around the
// body, so that all ways out of the function but return and tail calls come to
// pop. The function that is called when there is none left does not return: if it
// did, all that is live here would be stored for it in each call.
//
// Functions that call none of the module's own have no frame. There is one of them
// at a time.
func (c *metering) push(fn int) {
	c.out = appendU32(append(c.out, opGlobalGet), c.stack)
	c.out = appendS64(append(c.out, opI32Const), c.frame)
	c.out = append(c.out, opI32LtS, opIf, typeEmpty, opI32Const, LimitStack, opI64Const, 0)
	c.out = append(appendU32(append(c.out, opCall), c.limit), opUnreachable, opEnd)
	c.moveStack(opI32Sub)
	c.out = append(c.out, opBlock)
	switch results := c.m.funcType(c.m.importedFuncs + uint32(fn)).results; len(results) {
	case 0:
		c.out = append(c.out, typeEmpty)
	case 1:
		c.out = append(c.out, results[0])
	default:
		typ, ok := c.resultTypes[string(results)]
		if !ok {
			typ = c.addType(append(appendU32([]byte{0x60, 0}, uint32(len(results))), results...))
			if c.resultTypes == nil {
				c.resultTypes = make(map[string]uint32)
			}
			c.resultTypes[string(results)] = typ
		}
		c.out = appendS64(c.out, int64(typ))
	}
}

// pop gives the frame back.
func (c *metering) pop() { c.moveStack(opI32Add) }

func (c *metering) moveStack(op byte) {
	c.out = appendU32(append(c.out, opGlobalGet), c.stack)
	c.out = append(appendS64(append(c.out, opI32Const), c.frame), op)
	c.out = appendU32(append(c.out, opGlobalSet), c.stack)
}
