package rewrite

import "strings"

// Names that Meter adds to a module. A module that already uses names under
// ReservedPrefix is refused.
const (
	ReservedPrefix = "circles:engine/"
	// FuelGlobal is the export under which the host finds the counter: a mutable
	// i64, the fuel that remains of what was granted.
	FuelGlobal = ReservedPrefix + "fuel"
	// StackGlobal is the export of what is left of the stack: a mutable i32, which
	// is StackSize whenever no call is under way, but for calls that a trap or the
	// host has ended. A host that calls such an instance again sets it.
	StackGlobal = ReservedPrefix + "stack"
	// DefaultModule and DefaultFunc name the host function that grants more.
	DefaultModule = ReservedPrefix + "meter"
	DefaultFunc   = "refill"
	// LimitFunc is a host function beside that one, of type (i32, i64) -> (). Its
	// first parameter says which limit was reached.
	LimitFunc = "limit"
	// LimitMemory: memory.grow was refused, for a memory of so many pages. The
	// function returns.
	LimitMemory = 0
	// LimitStack: the guest has called deeper than StackSize. The function does not
	// return; if it does, that is a trap.
	LimitStack = 1
)

// Options are how Meter and Prepare name what they import, and what Prepare adds.
// The zero value works.
type Options struct {
	Module string // "" means DefaultModule
	Func   string // "" means DefaultFunc

	// Calls are exported functions to be reachable through the one function
	// CallExport, see Prepared.Calls. Prepare only.
	Calls []string
	// MaxMemory is how many bytes an image may have at most; 0 means any number.
	// Prepare only.
	MaxMemory uint64
	// Tables leaves calls through tables what they are. Prepare only.
	Tables bool
}

// Meter returns the module with fuel metering inserted; see the package
// documentation for what that is. It is a pure function of its arguments.
//
// Its errors are those of Decode, *UnsupportedError for a module that would
// outgrow a limit, and *ReservedError.
func Meter(wasm []byte, opt Options) ([]byte, error) {
	m, err := Decode(wasm)
	if err != nil {
		return nil, err
	}
	e := &edit{m: m}
	c, err := e.meter(opt)
	if err != nil {
		return nil, err
	}
	if err := c.functions(); err != nil {
		return nil, err
	}
	return e.encode()
}

// meter adds all of metering but the bodies.
func (e *edit) meter(opt Options) (*metering, error) {
	m := e.m
	if opt.Module == "" {
		opt.Module = DefaultModule
	}
	if opt.Func == "" {
		opt.Func = DefaultFunc
	}
	for _, x := range m.imports {
		if strings.HasPrefix(x.module, ReservedPrefix) || x.module == opt.Module {
			return nil, &ReservedError{x.module}
		}
	}
	for _, x := range m.exports {
		if strings.HasPrefix(x.name, ReservedPrefix) {
			return nil, &ReservedError{x.name}
		}
	}
	e.importFunc(opt.Module, opt.Func, e.addType([]byte{0x60, 0, 1, typeI64}))
	e.importFunc(opt.Module, LimitFunc, e.addType([]byte{0x60, 2, typeI32, typeI64, 0}))
	c := &metering{w: newBodyReader(m), edit: e, refill: m.importedFuncs, limit: m.importedFuncs + 1, fuel: m.allGlobals()}
	c.more = e.addFunc(e.addType([]byte{0x60, 0, 0}), c.moreBody())
	e.addGlobal([]byte{typeI64, 1, opI64Const, 0, opEnd})
	c.stack = c.fuel + 1
	e.addGlobal(append(appendS64([]byte{typeI32, 1, opI32Const}, StackSize), opEnd))
	e.addExport(FuelGlobal, kindGlobal, c.fuel)
	e.addExport(StackGlobal, kindGlobal, c.stack)
	return c, nil
}

// functions meters the module's own functions.
func (c *metering) functions() error {
	for i := range c.m.bodies {
		body, err := c.function(i)
		if err != nil {
			return err
		}
		c.edit.bodies = append(c.edit.bodies, body)
	}
	return nil
}
