package rewrite

import "strings"

// Names that Meter adds to a module. A module that already uses names under
// ReservedPrefix is refused.
const (
	ReservedPrefix = "circles:engine/"
	// FuelGlobal is the export under which the host finds the counter: a mutable
	// i64, the fuel that remains of what was granted.
	FuelGlobal = ReservedPrefix + "fuel"
	// DefaultModule and DefaultFunc name the host function that grants more.
	DefaultModule = ReservedPrefix + "meter"
	DefaultFunc   = "refill"
)

// Options are how Meter names what it imports. The zero value works.
type Options struct {
	Module string // "" means DefaultModule
	Func   string // "" means DefaultFunc
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
	return m.meter(opt)
}

func (m *Module) meter(opt Options) ([]byte, error) {
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
	e := &edit{m: m}
	// () -> (i64), the import's type; () -> (), the helper's.
	e.addType([]byte{0x60, 0, 1, typeI64})
	e.addType([]byte{0x60, 0, 0})
	e.importFunc(opt.Module, opt.Func, uint32(len(m.types)))
	c := metering{
		w:      newBodyReader(m),
		edit:   e,
		refill: m.importedFuncs,
		more:   m.allFuncs() + 1,
		fuel:   m.allGlobals(),
	}
	e.addGlobal([]byte{typeI64, 1, opI64Const, 0, opEnd})
	e.addExport(FuelGlobal, kindGlobal, c.fuel)
	for i := range m.bodies {
		body, err := c.function(i)
		if err != nil {
			return nil, err
		}
		e.bodies = append(e.bodies, body)
	}
	e.addFunc(uint32(len(m.types))+1, c.moreBody())
	return e.encode()
}
