package rewrite

import "fmt"

// A MalformedError is a module that breaks the binary format, or a limit that
// every engine of note shares. No engine should be handed such a module:
// decoders that trust its counts allocate what they say, and twelve bytes can
// say 4 GiB.
type MalformedError struct {
	What   string // what is wrong, e.g. "unexpected end"
	Where  string // the place, e.g. "code section, function 12"
	Offset int    // the byte of the module at which it was noticed
}

func (e *MalformedError) Error() string {
	return fmt.Sprintf("decode module: %s at byte %#x (%s); build the module again or fetch it anew", e.What, e.Offset, e.Where)
}

// An UnsupportedError is a module that may be valid, but uses what this package
// does not understand, and so would mangle. What was seen of the module up to
// Offset is well-formed; nothing is known of the rest.
type UnsupportedError struct {
	What   string // the construct, e.g. "atomic instruction 0x1e"
	Where  string // the place, e.g. "code section, function 12"
	Offset int    // the byte of the module at which it was noticed
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("rewrite module: %s is not supported, at byte %#x (%s); build for WebAssembly 2.0 without later proposals", e.What, e.Offset, e.Where)
}

// A ReservedError is a module that imports from, or exports under, the names
// that belong to the engine. It must not run in any way: what bears these names
// is trusted by the host.
type ReservedError struct {
	Name string // the module name imported from, or the name exported
}

func (e *ReservedError) Error() string {
	return fmt.Sprintf("rewrite module: the name %q is reserved: names starting with %q belong to the engine; rename the import or export", e.Name, ReservedPrefix)
}
