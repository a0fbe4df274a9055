package engine

import (
	"fmt"
	"strings"
)

// A Machine runs code in place of wazero: what the engine needs of a WebAssembly
// runtime, and no more. All else is the same whichever runs: what is refused, how
// a module is metered and rewritten, images, host functions, limits, and what a
// guest's end is called. Fuel is in the code, and so it is the same as well.
//
// Host functions are written for wazero's instances. So each instance of a
// Machine has a wazero one that stands in for it, see standin.go.
//
// A Machine and its Code are used by many goroutines at once, an Instance by one.
type Machine interface {
	// String names the machine and its version. What was made by one is not used
	// by another.
	String() string
	// Compile compiles a module, after it has validated it as WebAssembly 2.0 with tail calls
	// and extended constant expressions; what else there is, is refused. The module
	// imports functions only, and has no start section. It is not kept.
	Compile(wasm []byte) (Code, error)
}

// Code is a compiled module.
type Code interface {
	// Instantiate makes an instance, with data and elements in their places. Its
	// memory grows to most bytes, and no further.
	//
	// call serves the imports, which it knows by their order in the module. It is
	// called on the goroutine that called Instance.Call, with the parameters in stack,
	// and leaves the results there. An error of its unwinds the guest.
	Instantiate(most uint64, call func(function int, stack []uint64) error) (Instance, error)
	Close() // when all of its instances are
}

// Instance is an instance of Code. Exports that are named to it exist.
type Instance interface {
	// Call calls an exported function, of i32 and i64 parameters, at most one
	// result, and as many elements in stack as the more of these. It may be called
	// while it runs, by a host function.
	//
	// Its error is that of a host function, as it is; or a *Trap; or it is a fault of
	// the machine.
	Call(function string, stack []uint64) error
	// Memory is the memory that is exported under that name, until code runs.
	Memory(export string) []byte
	Grow(export string, bytes uint64) error // to that size, whole pages
	Global(export string) uint64            // a mutable one of type i32, i64, f32 or f64, as its bits
	SetGlobal(export string, bits uint64)
	Close()
}

// Trap is how an Instance ends a guest. Reason is as wazero has it: one of
// the Trap constants, for those that both know.
type Trap struct {
	Reason string
	Stack  []uint32 // the functions that were active, by index, innermost first
}

// The reasons of traps.
const (
	TrapUnreachable    = "unreachable"
	TrapMemory         = "out of bounds memory access"
	TrapTable          = "invalid table access" // an index outside of it, or a null entry
	TrapSignature      = "indirect call type mismatch"
	TrapDivideByZero   = "integer divide by zero"
	TrapIntegerRange   = "integer overflow"
	TrapNotANumber     = "invalid conversion to integer"
	TrapStackExhausted = "stack overflow"
)

// Error is formed as wazero's are.
func (t *Trap) Error() string {
	var b strings.Builder
	b.WriteString("wasm error: " + t.Reason + "\nwasm stack trace:")
	for _, f := range t.Stack[:min(len(t.Stack), 30)] {
		fmt.Fprintf(&b, "\n\t.$%d()", f)
	}
	return b.String()
}
