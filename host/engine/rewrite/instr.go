package rewrite

// Opcodes that the rewriter looks at or writes. The others it only steps over.
const (
	opUnreachable        = 0x00
	opNop                = 0x01
	opBlock              = 0x02
	opLoop               = 0x03
	opIf                 = 0x04
	opElse               = 0x05
	opEnd                = 0x0b
	opBr                 = 0x0c
	opBrIf               = 0x0d
	opBrTable            = 0x0e
	opReturn             = 0x0f
	opCall               = 0x10
	opCallIndirect       = 0x11
	opReturnCall         = 0x12
	opReturnCallIndirect = 0x13
	opDrop               = 0x1a
	opSelect             = 0x1b
	opSelectTyped        = 0x1c
	opLocalGet           = 0x20
	opLocalSet           = 0x21
	opLocalTee           = 0x22
	opGlobalGet          = 0x23
	opGlobalSet          = 0x24
	opTableGet           = 0x25
	opTableSet           = 0x26
	opFirstMemory        = 0x28 // i32.load
	opLastMemory         = 0x3e // i64.store32
	opMemorySize         = 0x3f
	opMemoryGrow         = 0x40
	opI32Const           = 0x41
	opI64Const           = 0x42
	opF32Const           = 0x43
	opF64Const           = 0x44
	opFirstNumeric       = 0x45 // i32.eqz
	opI32Eq              = 0x46
	opI32Ne              = 0x47
	opI32LtS             = 0x48
	opI64LtS             = 0x53
	opI64GeS             = 0x59
	opI32DivS            = 0x6d
	opI32RemU            = 0x70
	opI32Add             = 0x6a
	opI32Sub             = 0x6b
	opI32Mul             = 0x6c
	opI32And             = 0x71
	opI32ShrU            = 0x76
	opI64Add             = 0x7c
	opI64Sub             = 0x7d
	opI64Mul             = 0x7e
	opI64DivS            = 0x7f
	opI64RemU            = 0x82
	opI64ShrU            = 0x88
	opF32Sqrt            = 0x91
	opF32Div             = 0x95
	opF64Sqrt            = 0x9f
	opF64Div             = 0xa3
	opI64ExtendI32U      = 0xad
	opI32ReinterpretF32  = 0xbc
	opI64ReinterpretF64  = 0xbd
	opF32ReinterpretI32  = 0xbe
	opF64ReinterpretI64  = 0xbf
	opLastNumeric        = 0xc4 // i64.extend32_s
	opRefNull            = 0xd0
	opRefIsNull          = 0xd1
	opRefFunc            = 0xd2
	opMisc               = 0xfc
	opVector             = 0xfd
	opAtomic             = 0xfe
)

// Second bytes of opMisc.
const (
	miscLastTruncSat = 0x07
	miscMemoryInit   = 0x08
	miscDataDrop     = 0x09
	miscMemoryCopy   = 0x0a
	miscMemoryFill   = 0x0b
	miscTableInit    = 0x0c
	miscElemDrop     = 0x0d
	miscTableCopy    = 0x0e
	miscTableGrow    = 0x0f
	miscTableSize    = 0x10
	miscTableFill    = 0x11
)

// Second bytes of opVector.
const vecV128Or = 0x50

// Value types of WebAssembly 2.0.
const (
	typeI32       = 0x7f
	typeI64       = 0x7e
	typeF32       = 0x7d
	typeF64       = 0x7c
	typeV128      = 0x7b
	typeFuncref   = 0x70
	typeExternref = 0x6f
	typeEmpty     = 0x40 // a block without parameters and results
)

// An instr is one decoded instruction.
type instr struct {
	op  byte
	sub byte // the second byte of opMisc and opVector
	at  int  // where its first byte lies in the body
	end int  // where the next instruction starts

	index  uint32 // of a local, global, function, table, data or element segment; label of br and br_if
	index2 uint32 // the table of call_indirect
	// block is the type of block, loop and if: a value type, typeEmpty, or -1
	// when index is the index of a function type.
	block  int
	labels []uint32 // of br_table, the default last; valid until the next instruction
}

// instruction decodes the next instruction. Everything is read just as wazero
// reads it: a byte sequence that two decoders split differently would let a
// guest hide instructions from the meter, so vector opcodes must have their shortest
// form and reserved bytes must be zero, even where the specification allows
// more.
func (r *reader) instruction(in *instr, labels []uint32) {
	*in = instr{at: r.pos, labels: labels[:0]}
	in.op = r.byte()
	switch op := in.op; {
	case op >= opFirstNumeric && op <= opLastNumeric,
		op == opUnreachable, op == opNop, op == opElse, op == opEnd, op == opReturn,
		op == opDrop, op == opSelect, op == opRefIsNull:
	case op >= opLocalGet && op <= opTableSet,
		op == opBr, op == opBrIf, op == opCall, op == opReturnCall, op == opRefFunc:
		in.index = r.u32()
	case op >= opFirstMemory && op <= opLastMemory:
		r.memarg()
	case op == opI32Const:
		r.signed(32)
	case op == opI64Const:
		r.signed(64)
	case op == opF32Const:
		r.take(4)
	case op == opF64Const:
		r.take(8)
	case op == opBlock || op == opLoop || op == opIf:
		at := r.pos
		switch t := r.signed(33); {
		case t >= 0:
			in.block, in.index = -1, uint32(t)
		case t >= -64 && (t&0x7f == typeEmpty || isValueType(byte(t&0x7f))):
			in.block = int(t & 0x7f)
		default:
			r.unsupported(at, "block type %d", t)
		}
	case op == opBrTable:
		n := r.count("labels", 1, maxLabels)
		for i := 0; i <= n && r.err == nil; i++ {
			in.labels = append(in.labels, r.u32())
		}
	case op == opCallIndirect || op == opReturnCallIndirect:
		in.index, in.index2 = r.u32(), r.u32()
	case op == opSelectTyped:
		at := r.pos
		if r.u32() != 1 || r.pos != at+1 {
			r.malformed(at, "select with other than one type")
		}
		r.valueType()
	case op == opMemorySize || op == opMemoryGrow:
		r.zero("memory index")
	case op == opRefNull:
		at := r.pos
		if t := r.byte(); t != typeFuncref && t != typeExternref {
			r.unsupported(at, "reference type %#x", t)
		}
	case op == opMisc:
		sub := r.u32()
		in.sub = byte(sub)
		switch {
		case sub <= miscLastTruncSat:
		case sub == miscMemoryInit:
			in.index = r.u32()
			r.zero("memory index")
		case sub == miscMemoryCopy:
			r.zero("memory index")
			r.zero("memory index")
		case sub == miscMemoryFill:
			r.zero("memory index")
		case sub == miscTableInit || sub == miscTableCopy:
			in.index, in.index2 = r.u32(), r.u32()
		case sub == miscDataDrop || sub == miscElemDrop || sub == miscTableGrow || sub == miscTableSize || sub == miscTableFill:
			in.index = r.u32()
		default:
			r.unsupported(in.at, "instruction 0xfc %#x", sub)
		}
	case op == opVector:
		r.vector(in)
	case op == opAtomic:
		r.unsupported(in.at, "atomic instruction %#x", r.byte())
	default:
		r.unsupported(in.at, "instruction %#x", op)
	}
	in.end = r.pos
}

// vector decodes what follows 0xfd. Opcodes from 0x80 on are two bytes, the
// second 1. wazero takes the first byte alone for the opcode and that 1 for a
// nop; any other second byte it would run as an instruction of its own.
func (r *reader) vector(in *instr) {
	sub := r.byte()
	in.sub = sub
	switch {
	case sub <= 0x0b || sub == 0x5c || sub == 0x5d: // loads, splats, store
		r.memarg()
	case sub == 0x0c || sub == 0x0d: // v128.const, shuffle
		r.take(16)
	case sub >= 0x15 && sub <= 0x22: // extract and replace lane
		r.byte()
	case sub >= 0x54 && sub <= 0x5b: // load and store lane
		r.memarg()
		r.byte()
	case sub == 0x9a || sub == 0xa2 || sub == 0xa5 || sub == 0xa6 || sub == 0xaf || sub == 0xb0 || sub == 0xb2 ||
		sub == 0xb3 || sub == 0xb4 || sub == 0xbb || sub == 0xc2 || sub == 0xc5 || sub == 0xc6 || sub == 0xcf ||
		sub == 0xd0 || sub == 0xd2 || sub == 0xd3 || sub == 0xd4 || sub == 0xe2 || sub == 0xee:
		r.unsupported(in.at, "vector instruction %#x", sub)
	case sub >= 0x80:
		if hi := r.byte(); hi != 1 {
			r.unsupported(in.at, "vector instruction %#x %#x (relaxed SIMD)", sub, hi)
		}
	}
}

func (r *reader) memarg() {
	at := r.pos
	if align := r.u32(); align >= 0x40 {
		r.unsupported(at, "memory index in a load or store")
	}
	r.u32()
}

func (r *reader) zero(what string) {
	at := r.pos
	if r.byte() != 0 {
		r.unsupported(at, "%s other than 0", what)
	}
}

func isValueType(t byte) bool {
	switch t {
	case typeI32, typeI64, typeF32, typeF64, typeV128, typeFuncref, typeExternref:
		return true
	}
	return false
}

func (r *reader) valueType() byte {
	at := r.pos
	t := r.byte()
	if r.err == nil && !isValueType(t) {
		r.unsupported(at, "value type %#x", t)
	}
	return t
}

// constExpr steps over a constant expression and returns its bytes with the
// end. visit sees each instruction.
func (r *reader) constExpr(visit func(*instr)) []byte {
	start := r.pos
	var in instr
	for r.err == nil {
		r.instruction(&in, nil)
		switch in.op {
		case opEnd:
			return r.b[start:r.pos:r.pos]
		case opI32Const, opI64Const, opF32Const, opF64Const, opGlobalGet, opRefNull, opRefFunc,
			opI32Add, opI32Add + 1, opI32Mul, opI64Add, opI64Sub, opI64Mul:
		case opVector:
			if in.sub != 0x0c {
				r.unsupported(in.at, "vector instruction %#x in a constant expression", in.sub)
			}
		default:
			r.unsupported(in.at, "instruction %#x in a constant expression", in.op)
		}
		if visit != nil && r.err == nil {
			visit(&in)
		}
	}
	return nil
}
