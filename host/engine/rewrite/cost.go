package rewrite

// Costs in fuel. One unit is roughly what one simple instruction takes, a third
// of a nanosecond on a current machine; an instruction that takes far longer
// costs more, or it would let a guest stretch a slice, and with it the time
// until the host next looks at the clock.
const (
	costDivide   = 8  // integer division and remainder, float division, square root
	costCall     = 4  // call, return_call
	costIndirect = 6  // call_indirect, return_call_indirect
	costBulk     = 16 // memory and table instructions over ranges, beside what their length costs
	costHost     = 256
	// What lengths cost.
	costShiftBytes = 3         // memory.fill, copy and init: a unit for 8 bytes
	costPage       = 65536 / 8 // memory.grow: for each page gained
	// table.fill, copy, init and grow: a unit for each entry.
)

// cost is what in costs when it is reached. What depends on a length comes on
// top, see lengthOf.
func cost(in *instr) uint64 {
	switch op := in.op; op {
	case opNop, opBlock, opLoop, opElse, opEnd:
		return 0
	case opI32DivS, opI32DivS + 1, opI32DivS + 2, opI32RemU,
		opI64DivS, opI64DivS + 1, opI64DivS + 2, opI64RemU,
		opF32Sqrt, opF32Div, opF64Sqrt, opF64Div:
		return costDivide
	case opCall, opReturnCall:
		return costCall
	case opCallIndirect, opReturnCallIndirect:
		return costIndirect
	case opMemoryGrow, opRefFunc:
		return costHost // these leave compiled code
	case opMisc:
		switch in.sub {
		case miscTableGrow:
			return costHost
		case miscMemoryInit, miscMemoryCopy, miscMemoryFill, miscTableInit, miscTableCopy, miscTableFill, miscDataDrop, miscElemDrop:
			return costBulk
		}
	}
	return 1
}

// A length says how the topmost operand of an instruction is charged for.
type length struct {
	shift  int64 // units = operand >> shift, where scale is 0
	scale  int64 // units = operand * scale
	gained bool  // charged afterwards, and only if the instruction's result is not -1
}

// lengthOf tells whether in works through a range whose length is its topmost
// operand, an i32 taken as unsigned.
func lengthOf(in *instr) (length, bool) {
	switch in.op {
	case opMemoryGrow:
		return length{scale: costPage, gained: true}, true
	case opMisc:
		switch in.sub {
		case miscMemoryInit, miscMemoryCopy, miscMemoryFill:
			return length{shift: costShiftBytes}, true
		case miscTableInit, miscTableCopy, miscTableFill:
			return length{}, true
		case miscTableGrow:
			return length{gained: true}, true
		}
	}
	return length{}, false
}
