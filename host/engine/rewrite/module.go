package rewrite

// Limits of what Decode accepts. All but maxElements and maxNesting are those that the
// WebAssembly JavaScript interface sets for every browser, so no toolchain
// emits more. They bound what decoders and compilers after this one allocate.
//
// https://webassembly.github.io/spec/js-api/#limits
const (
	maxTypes        = 1_000_000
	maxFunctions    = 1_000_000
	maxImports      = 1_000_000
	maxExports      = 1_000_000
	maxGlobals      = 1_000_000
	maxSegments     = 100_000
	maxTables       = 100_000
	maxTableEntries = 10_000_000
	maxElements     = 1_000_000 // in all segments: wazero makes some 60 bytes of each
	maxPages        = 65_536
	maxBody         = 7_654_321
	maxParams       = 1_000
	maxResults      = 1_000
	maxLocals       = 50_000
	maxLabels       = 65_520
	// maxNesting is how deep blocks may lie in each other. wazero takes time that
	// grows with its square: 0.2 s for 1,000, 7 s for this, 45 s for 10,000, in a
	// module of 80 kB. Standard Go nests a block for each point at which a function
	// resumes: 550 in its standard library, 7,741 in the Go compiler.
	maxNesting = 4_096
)

const header = "\x00asm\x01\x00\x00\x00"

// Section numbers of the binary format.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
	secTag       = 13
)

var sectionNames = [...]string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start",
	"element", "code", "data", "data count", "tag"}

// sectionRank orders the sections of a module, which their numbers do not quite.
func sectionRank(id byte) int {
	if id == secDataCount {
		return secElement*2 + 1
	}
	return int(id) * 2
}

// Kinds of imports and exports.
const (
	kindFunc   = 0
	kindTable  = 1
	kindMemory = 2
	kindGlobal = 3
)

// A Module is a decoded module. Its bytes alias what Decode was given, which
// must not change while the module is in use. A Module is not safe for
// concurrent use.
type Module struct {
	wasm     []byte
	sections []section

	types     []funcType
	imports   []extern // in order
	exports   []extern
	funcTypes []uint32 // type indices: imported functions first, then the module's own
	bodies    []span   // of the module's own functions, local declarations included
	globals   []global // the module's own
	elements  []element
	start     int64 // a function index, or -1

	importedFuncs, importedGlobals uint32
	importedMutable                bool   // a mutable global is imported
	tables, memories               uint32 // imported ones included
	table                          table  // the last one
	memory                         table  // its limits, in pages
	data                           []segment
	uses                           uses   // of instructions that a snapshot has to know of
	dataCount                      int64  // as the data count section says, or -1
	locals                         uint64 // declared by all functions together
	elems                          int    // in all element segments together
}

// A section is one section, with its place in the module.
type section struct {
	id      byte
	name    string // of a custom section
	raw     []byte // with its number and size
	payload []byte // for a custom section, what follows the name
	offset  int    // of payload in the module
}

// A span is a stretch of the module's bytes.
type span struct{ from, to uint32 }

type funcType struct{ params, results []byte }

// An extern is one import or export.
type extern struct {
	module, name string // module: imports only
	kind         byte
	index        uint32 // exports: what it names; imported functions: their type
	raw          []byte
}

type global struct {
	typ     byte
	mutable bool
	init    []byte
	raw     []byte
	refs    bool // init names functions
}

// An element is one element segment.
type element struct {
	flags  uint32
	table  uint32
	offset []byte // a constant expression; nil for one that is not active
	kind   byte   // where flags has one
	head   []byte // what comes before the items' count
	count  int
	items  []byte // function indices; with bit 2 of flags, constant expressions
}

// A table is a table's type, or a memory's.
type table struct {
	typ      byte // of a table
	imported bool
	min, max uint32 // max is 1<<32-1 if there is none
}

// A segment is one data segment.
type segment struct {
	flags  uint32
	offset []byte // a constant expression; nil for a passive one
	bytes  []byte
}

// uses says which instructions there are in a module's code, dead code included.
type uses struct {
	tableRead   bool   // table.get, table.size, ref.func, or call_indirect of a table other than the first
	tableChange bool   // table.set, table.init, table.copy, table.grow, table.fill, elem.drop
	dataSegment bool   // memory.init, data.drop
	indirect    []bool // by type: call_indirect names it
}

func (u *uses) see(in *instr) {
	switch in.op {
	case opTableGet, opRefFunc:
		u.tableRead = true
	case opTableSet:
		u.tableChange = true
	case opCallIndirect, opReturnCallIndirect:
		u.tableRead = u.tableRead || in.index2 != 0
		for uint32(len(u.indirect)) <= in.index { // a type that exists, w.next has seen to that
			u.indirect = append(u.indirect, false)
		}
		u.indirect[in.index] = true
	case opMisc:
		switch in.sub {
		case miscMemoryInit, miscDataDrop:
			u.dataSegment = true
		case miscTableSize:
			u.tableRead = true
		case miscTableInit, miscElemDrop, miscTableCopy, miscTableGrow, miscTableFill:
			u.tableChange = true
		}
	}
}

func (m *Module) funcType(fn uint32) funcType { return m.types[m.funcTypes[fn]] }

func (m *Module) allFuncs() uint32   { return uint32(len(m.funcTypes)) }
func (m *Module) allGlobals() uint32 { return m.importedGlobals + uint32(len(m.globals)) }

// Encode returns the module's bytes. Of a module as Decode returned it, they
// are those it was decoded from, byte for byte.
func (m *Module) Encode() []byte {
	out := make([]byte, 0, len(m.wasm))
	out = append(out, header...)
	for i := range m.sections {
		out = append(out, m.sections[i].raw...)
	}
	return out
}

// Imports calls visit with the names of each import in order, until it returns
// false.
func (m *Module) Imports(visit func(module, name string) bool) {
	for i := range m.imports {
		if !visit(m.imports[i].module, m.imports[i].name) {
			return
		}
	}
}
