package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// ErrInvalid is what errors of Inspect and Compile wrap that are the module's
// fault: no other host would run these bytes either, or this one will not.
var ErrInvalid = errors.New("not a module that this host can run")

// Bounds of a module, beside Config.MaxModuleBytes. They are wider than any
// program that a toolchain was seen to make, and narrow enough that neither
// compiling nor instantiating at the bound harms the host: wazero allocates by
// these counts, for every instance, outside of Limits.Memory.
const (
	maxImports     = 1000
	maxExports     = 10_000
	maxTypes       = 10_000
	maxTypeSize    = 1 << 20 // bytes of the type section
	maxFunctions   = 200_000
	maxGlobals     = 10_000
	maxTables      = 64
	maxTableSize   = 1 << 20  // entries of all tables of an instance, 8 bytes each
	maxElementSize = 1 << 20  // bytes of the element section: at most that many entries
	maxBodySize    = 2 << 20  // bytes of one function; compiling takes a hundred times that
	maxTypeValues  = 1000     // params, and results, of one function type
	maxNameSize    = 1024     // bytes of an import's or export's name
	maxManifest    = 64 << 10 // bytes of the custom section
	maxMemoryPages = 65536
	pageSize       = 65536
)

// Info is what can be said of a module without compiling it.
type Info struct {
	Digest   [32]byte // SHA-256 of the bytes
	Size     int      // bytes
	Shape    Shape    // "" for a module that has nothing to call; Compile refuses it
	Imports  []Import // functions, in the order of the module
	Entries  []string // of a reactor, sorted; empty for a command
	Memory   uint64   // bytes of linear memory that every instance begins with
	Manifest *Manifest
	Language string // what the producers section says, e.g. "Go go1.26"; not to be relied on
	// Toolchain is what that section says made the module, e.g. "clang 14.0.6"; likewise.
	Toolchain string
	// Interpreter is the digest of the language module that runs it, if it is a text, whose
	// language Language then is; zero for a module.
	Interpreter [32]byte `json:",omitzero"`
	Warnings    []string // for the module's author: what was ignored, and why

	// Image is how many bytes of memory a run begins with as they are once the
	// module is initialised; Plain why each run initialises the module anew, in which
	// case Image is 0. Both are what Compile found out; Inspect leaves them empty.
	Image uint64
	Plain string

	exports  map[string]export
	calls    []string // what CallBytes calls: entries, their cabi_post_ functions, cabi_realloc, those of the right type
	others   []string // imports that are not functions, described
	nearMiss string   // why an export that looks like an entry is none
	sections [len(sectionNames)]span
}

// span is where a section lies in a module.
type span struct{ start, from, to int } // start: with its header

// Text reports whether it is a text, which a language module runs.
func (i *Info) Text() bool { return i.Interpreter != [32]byte{} }

// Modules lists the modules of host functions that are imported from, sorted.
func (i *Info) Modules() []string {
	var names []string
	for _, imp := range i.Imports {
		names = append(names, imp.Module)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

type export struct {
	kind  byte
	index uint32
}

// Kinds of imports and exports.
const (
	kindFunc   = 0
	kindTable  = 1
	kindMemory = 2
	kindGlobal = 3
	kindTag    = 4
)

var kindNames = [...]string{"function", "table", "memory", "global", "tag"}

// Sections, in the numbering of the binary format.
const (
	sectionCustom = iota
	sectionType
	sectionImport
	sectionFunction
	sectionTable
	sectionMemory
	sectionGlobal
	sectionExport
	sectionStart
	sectionElement
	sectionCode
	sectionData
	sectionDataCount
	sectionTag
)

var sectionNames = [...]string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count", "tag"}

// sectionOrder is the order that sections come in, which is not quite that of
// their numbers.
var sectionOrder = [...]byte{sectionCustom, sectionType, sectionImport, sectionFunction, sectionTable, sectionMemory, sectionTag, sectionGlobal, sectionExport, sectionStart, sectionElement, sectionDataCount, sectionCode, sectionData}

// Inspect reads what a module says of itself: its shape, imports, entries and
// manifest. It walks the sections once, compiles and validates nothing, and
// allocates no more than a small multiple of len(wasm), whatever the bytes are.
//
// Errors wrap ErrInvalid: bytes that are no module, a component, a module cut
// off, or one beyond a bound that Compile has. No error does not mean that
// Compile will succeed.
//
// https://webassembly.github.io/spec/core/binary/modules.html
func Inspect(wasm []byte) (Info, error) {
	info := Info{Digest: sha256.Sum256(wasm), Size: len(wasm)}
	m := moduleReader{info: &info}
	if err := m.read(wasm); err != nil {
		return info, fmt.Errorf("inspect module: %w: %w", ErrInvalid, err)
	}
	return info, nil
}

// CustomSection finds the first custom section of a name: its contents are
// wasm[from:to], and with its header it begins at start. It is all 0 if there is
// none. Errors wrap ErrInvalid; nothing behind what was found is looked at.
func CustomSection(wasm []byte, name string) (start, from, to int, err error) {
	if err := checkHeader(wasm); err != nil {
		return 0, 0, 0, fmt.Errorf("inspect module: %w: %w", ErrInvalid, err)
	}
	r := reader{b: wasm, off: 8}
	for r.len() > 0 {
		start := r.off
		id := r.byte()
		r.bytes(r.u32())
		if r.err != nil {
			break
		}
		if id != sectionCustom {
			continue
		}
		s := reader{b: wasm, off: start + 1, end: r.off}
		s.u32()
		if n := s.bytes(s.u32In(maxNameSize, "bytes of a name")); s.err == nil && string(n) == name {
			return start, s.off, s.end, nil
		}
	}
	if r.err != nil {
		return 0, 0, 0, fmt.Errorf("inspect module: %w: %w", ErrInvalid, r.err)
	}
	return 0, 0, 0, nil
}

// moduleReader walks a module's sections.
type moduleReader struct {
	info  *Info
	types []funcType
	funcs []uint32 // type of each function, imported ones first
}

// funcType keeps of a function type what entries are told by.
type funcType struct {
	params, results string // value types, a byte each
}

func (t funcType) String() string {
	return fmt.Sprintf("(%s) -> (%s)", valueNames(t.params), valueNames(t.results))
}

func valueNames(types string) string {
	names := map[byte]string{0x7f: "i32", 0x7e: "i64", 0x7d: "f32", 0x7c: "f64", 0x7b: "v128", 0x70: "funcref", 0x6f: "externref"}
	var b strings.Builder
	for i := range len(types) {
		if i == 8 {
			return b.String() + ", …"
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if n := names[types[i]]; n != "" {
			b.WriteString(n)
		} else {
			fmt.Fprintf(&b, "%#x", types[i])
		}
	}
	return b.String()
}

func (m *moduleReader) read(wasm []byte) error {
	if err := checkHeader(wasm); err != nil {
		return err
	}
	r := reader{b: wasm, off: 8}
	last := 0
	for r.len() > 0 {
		start := r.off
		id := r.byte()
		size := r.u32()
		if r.err == nil && int(id) >= len(sectionNames) {
			return fmt.Errorf("section %d at byte %#x is of a kind that WebAssembly does not have; the bytes are damaged, or for a later version", id, r.off)
		}
		body := r.bytes(size)
		if r.err != nil {
			return r.err
		}
		s := reader{b: wasm, off: r.off - len(body), end: r.off}
		if id != sectionCustom {
			rank := slices.Index(sectionOrder[:], id)
			if rank <= last {
				return fmt.Errorf("the %s section at byte %#x is there twice, or out of order; build the module again", sectionNames[id], start)
			}
			last = rank
			m.info.sections[id] = span{start, s.off, s.end}
		}
		if err := m.section(id, &s); err != nil {
			return fmt.Errorf("%s section: %w", sectionNames[id], err)
		}
	}
	m.shape()
	return nil
}

// checkHeader tells what the bytes are, if they are no core module.
func checkHeader(wasm []byte) error {
	const magic = "\x00asm"
	switch {
	case len(wasm) == 0:
		return errors.New("the file is empty")
	case len(wasm) < 4 || string(wasm[:4]) != magic:
		what := "it does not begin with the bytes 00 61 73 6d"
		switch {
		case strings.HasPrefix(magic, string(wasm)):
			what = "it is cut off after its first bytes"
		case strings.HasPrefix(string(wasm), "\x7fELF"):
			what = "it is a native ELF binary; build for wasip1 (GOOS=wasip1 GOARCH=wasm, --target=wasm32-wasi)"
		case strings.HasPrefix(string(wasm), "MZ"), strings.HasPrefix(string(wasm), "\xcf\xfa\xed\xfe"):
			what = "it is a native binary; build for wasip1"
		case strings.HasPrefix(string(wasm), "\x1f\x8b"), strings.HasPrefix(string(wasm), "PK\x03\x04"), strings.HasPrefix(string(wasm), "\x28\xb5\x2f\xfd"):
			what = "it is compressed; unpack it first"
		case strings.HasPrefix(strings.TrimLeft(string(wasm[:min(len(wasm), 512)]), " \t\r\n"), "(module"):
			what = "it is WebAssembly's text format; assemble it first, with wat2wasm or wasm-tools parse"
		case isText(wasm[:min(len(wasm), 512)]):
			what = "it is text"
		}
		return fmt.Errorf("it is not WebAssembly: %s", what)
	case len(wasm) < 8:
		return errors.New("it is truncated: the header ends after its first bytes; transfer or build it again")
	}
	switch version := binary.LittleEndian.Uint32(wasm[4:]); {
	case version == 1:
		return nil
	case version>>16 == 1: // the layer field of the component model's preamble
		return errors.New("it is a component, not a core module: what works is a core wasip1 module; take the core module out of it (wasm-tools component unbundle), or build without componentising")
	default:
		return fmt.Errorf("it is WebAssembly of version %#x; this host runs version 1", version)
	}
}

func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

func (m *moduleReader) section(id byte, r *reader) error {
	switch id {
	case sectionCustom:
		return m.custom(r)
	case sectionType:
		return m.typeSection(r)
	case sectionImport:
		return m.importSection(r)
	case sectionFunction:
		n := r.count(maxFunctions, "functions")
		for range n {
			m.funcs = append(m.funcs, r.u32())
			if r.err != nil {
				return r.err
			}
		}
	case sectionTable:
		total := uint64(0)
		for range r.count(maxTables, "tables") {
			if typ := r.byte(); r.err == nil && typ != 0x70 && typ != 0x6f {
				return fmt.Errorf("a table of type %#x belongs to a proposal that this host does not run (typed function references); build without it", typ)
			}
			min, _ := r.limits()
			if total += min; r.err == nil && total > maxTableSize {
				return fmt.Errorf("tables of %d entries; this host allows %d", total, maxTableSize)
			}
		}
	case sectionMemory:
		for range r.count(1, "memories") {
			min, max := r.limits()
			if r.err == nil && (min > maxMemoryPages || max != noMax && max > maxMemoryPages) {
				return fmt.Errorf("a memory of more than %d pages", maxMemoryPages)
			}
			m.info.Memory = min * pageSize
		}
	case sectionGlobal:
		r.count(maxGlobals, "globals")
		return r.err
	case sectionExport:
		return m.exportSection(r)
	case sectionElement:
		if r.len() > maxElementSize {
			return fmt.Errorf("%d bytes; this host allows %d", r.len(), maxElementSize)
		}
		return nil
	case sectionCode:
		for range r.count(maxFunctions, "functions") {
			size := r.u32()
			if r.err == nil && size > maxBodySize {
				return fmt.Errorf("a function of %d bytes; this host allows %d", size, maxBodySize)
			}
			r.bytes(size)
			if r.err != nil {
				return r.err
			}
		}
	case sectionStart:
		r.u32()
	default:
		return nil // data, data count, tag: nothing to learn
	}
	return r.done()
}

func (m *moduleReader) typeSection(r *reader) error {
	if r.len() > maxTypeSize {
		return fmt.Errorf("%d bytes; this host allows %d", r.len(), maxTypeSize)
	}
	for range r.count(maxTypes, "types") {
		if form := r.byte(); r.err == nil && form != 0x60 {
			return fmt.Errorf("type form %#x at byte %#x belongs to a proposal that this host does not run (garbage collection, stack switching); build without it", form, r.off-1)
		}
		params := r.bytes(r.u32In(maxTypeValues, "params"))
		results := r.bytes(r.u32In(maxTypeValues, "results"))
		if r.err != nil {
			return r.err
		}
		m.types = append(m.types, funcType{string(params), string(results)})
	}
	return r.done()
}

func (m *moduleReader) importSection(r *reader) error {
	for range r.count(maxImports, "imports") {
		module, name := r.name(), r.name()
		switch kind := r.byte(); {
		case r.err != nil:
			return r.err
		case kind == kindFunc:
			m.info.Imports = append(m.info.Imports, Import{module, name})
			m.funcs = append(m.funcs, r.u32())
		default:
			switch kind {
			case kindTable:
				r.byte()
				r.limits()
			case kindMemory:
				r.limits()
			case kindGlobal:
				r.byte()
				r.byte()
			case kindTag:
				r.byte()
				r.u32()
			default:
				return fmt.Errorf("import %q.%q is of kind %d, which WebAssembly does not have", module, name, kind)
			}
			m.info.others = append(m.info.others, fmt.Sprintf("%q.%q (a %s)", module, name, kindNames[kind]))
		}
	}
	return r.done()
}

func (m *moduleReader) exportSection(r *reader) error {
	n := r.count(maxExports, "exports")
	m.info.exports = make(map[string]export, min(n, 1024))
	for range n {
		name := r.name()
		kind, index := r.byte(), r.u32()
		if r.err != nil {
			return r.err
		}
		if int(kind) >= len(kindNames) {
			return fmt.Errorf("export %q is of kind %d, which WebAssembly does not have", name, kind)
		}
		if _, twice := m.info.exports[name]; twice {
			return fmt.Errorf("%q is exported twice", name)
		}
		m.info.exports[name] = export{kind, index}
	}
	return r.done()
}

// functionType returns the type of an exported function.
func (m *moduleReader) functionType(name string) (funcType, bool) {
	e, ok := m.info.exports[name]
	if !ok || e.kind != kindFunc || int64(e.index) >= int64(len(m.funcs)) || int64(m.funcs[e.index]) >= int64(len(m.types)) {
		return funcType{}, false
	}
	return m.types[m.funcs[e.index]], true
}

// shape finds out how the module is run. A command that also exports functions
// of an entry's type stays a command: toolchains export what they like, but
// _start is never there by chance.
func (m *moduleReader) shape() {
	entry := funcType{"\x7f\x7f", "\x7f"}
	if t, ok := m.functionType("_start"); ok && t == (funcType{}) {
		m.info.Shape = Command
		return
	}
	for name := range m.info.exports {
		t, ok := m.functionType(name)
		if !ok || !isKebab(name) {
			continue
		}
		if t == entry {
			m.info.Entries = append(m.info.Entries, name)
		} else if name == "run" {
			m.info.nearMiss = fmt.Sprintf("it exports run as %v; an entry is (i32, i32) -> (i32): func(params: list<u8>) -> result<list<u8>, string>", t)
		}
	}
	slices.Sort(m.info.Entries)
	if len(m.info.Entries) == 0 {
		return
	}
	m.info.Shape = Reactor
	if t, ok := m.functionType("cabi_realloc"); ok && t == (funcType{"\x7f\x7f\x7f\x7f", "\x7f"}) {
		m.info.calls = append(m.info.calls, "cabi_realloc")
	}
	for _, name := range m.info.Entries {
		post := "cabi_post_" + name
		if t, _ := m.functionType(post); t == (funcType{"\x7f", ""}) {
			m.info.calls = append(m.info.calls, name, post)
		} else if _, ok := m.info.exports[post]; !ok {
			m.info.calls = append(m.info.calls, name)
		}
	}
}

// runnable says why a module without errors cannot be run, or nil.
func (i *Info) runnable() error {
	if i.Shape == "" {
		why := "it exports neither _start nor an entry"
		if i.nearMiss != "" {
			why = i.nearMiss
		}
		return fmt.Errorf("%s; build a command (a main function), or a reactor that exports run", why)
	}
	if i.Shape == Reactor {
		if i.exports["memory"].kind != kindMemory {
			return errors.New(`it has entries but does not export its memory as "memory", through which params and results pass`)
		}
		if e, ok := i.exports["cabi_realloc"]; !ok || e.kind != kindFunc {
			return errors.New("it has entries but does not export cabi_realloc, with which the host passes params; link the guest SDK's bindings in")
		}
	}
	return nil
}

// isKebab reports whether s is a WIT name that can be an entry's: words of
// lower-case or of upper-case letters and digits, each beginning with a letter,
// joined by "-". The names of the Canonical ABI itself have underscores.
func isKebab(s string) bool {
	start, upper := true, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '-' && !start:
			start = true
			continue
		case 'a' <= c && c <= 'z' && (start || !upper):
			upper = false
		case 'A' <= c && c <= 'Z' && (start || upper):
			upper = true
		case '0' <= c && c <= '9' && !start:
		default:
			return false
		}
		start = false
	}
	return !start
}

func (m *moduleReader) custom(r *reader) error {
	name := r.name()
	if r.err != nil {
		return r.err
	}
	switch name {
	case "circles-manifest":
		if m.info.Manifest != nil {
			m.warn("there is a second circles-manifest section; the first is used")
			return nil
		}
		manifest, err := parseManifest(r.rest())
		if err != nil {
			m.warn(fmt.Sprintf("the circles-manifest section is ignored: %v", err))
			return nil
		}
		m.info.Manifest = manifest
	case "producers":
		m.info.Language, m.info.Toolchain = producers(r)
	}
	return nil // what other custom sections hold is nobody's concern
}

func (m *moduleReader) warn(text string) {
	if len(m.info.Warnings) < 16 { // a module may hold thousands of custom sections
		m.info.Warnings = append(m.info.Warnings, text)
	}
}

// producers returns what a producers section says of the language, and of the tools
// that made the module; "" for what it does not.
// https://github.com/WebAssembly/tool-conventions/blob/main/ProducersSection.md
func producers(r *reader) (language, toolchain string) {
	for range r.count(16, "fields") {
		field := r.name()
		for i := range r.count(16, "values") {
			name, version := r.name(), r.name()
			if r.err != nil {
				return language, toolchain
			}
			text := clean(strings.TrimSpace(name+" "+version), 64)
			switch {
			case field == "language" && i == 0:
				language = text
			case field == "processed-by" && toolchain == "":
				toolchain = text
			case field == "processed-by":
				toolchain = clean(toolchain+", "+text, 256)
			}
		}
		if r.err != nil {
			break
		}
	}
	return language, toolchain
}

// boundTables returns wasm with the maximum of each table lowered to what this
// host allows: wazero grows a table to whatever its module declares, up to 2^32
// entries of 8 bytes, and has no hook for it, so that a module of 60 bytes takes
// all memory. To the guest it is a table.grow that returns -1. info must come
// from reading wasm.
func boundTables(wasm []byte, info *Info) []byte {
	s := info.sections[sectionTable]
	if s == (span{}) {
		return wasm
	}
	r := reader{b: wasm, off: s.from, end: s.to}
	n := r.count(maxTables, "tables")
	most := uint64(maxTableSize / max(n, 1))
	tables := binary.AppendUvarint(nil, uint64(n))
	for range n {
		typ := r.byte()
		least, upper := r.limits()
		tables = append(tables, typ, 1)
		tables = binary.AppendUvarint(tables, least)
		tables = binary.AppendUvarint(tables, min(upper, max(least, most)))
	}
	out := make([]byte, 0, len(wasm)+64)
	out = append(append(out, wasm[:s.start]...), sectionTable)
	out = binary.AppendUvarint(out, uint64(len(tables)))
	out = append(out, tables...)
	return append(out, wasm[s.to:]...)
}

// reader reads the binary format. After the first error it returns zeroes and
// keeps the error.
type reader struct {
	b   []byte
	off int
	end int // 0: len(b)
	err error
}

func (r *reader) limit() int {
	if r.end != 0 {
		return r.end
	}
	return len(r.b)
}

func (r *reader) len() int {
	if r.err != nil {
		return 0
	}
	return r.limit() - r.off
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *reader) truncated() {
	if r.limit() == len(r.b) {
		r.fail("it is truncated: it ends at byte %#x, inside of something; transfer or build it again", r.limit())
	} else {
		r.fail("the section ends at byte %#x, inside of something; build the module again", r.limit())
	}
}

func (r *reader) byte() byte {
	if r.len() < 1 {
		r.truncated()
		return 0
	}
	r.off++
	return r.b[r.off-1]
}

// u32 reads an unsigned LEB128 of at most 32 bits.
func (r *reader) u32() uint32 {
	v := r.leb(5)
	if v > 1<<32-1 {
		r.fail("an integer at byte %#x has more than 32 bits", r.off)
		return 0
	}
	return uint32(v)
}

func (r *reader) leb(most int) uint64 {
	var v uint64
	for i := range most {
		c := r.byte()
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v
		}
	}
	r.fail("an integer at byte %#x is longer than %d bytes", r.off, most)
	return 0
}

// u32In reads a u32 that may be at most max.
func (r *reader) u32In(max uint32, what string) uint32 {
	n := r.u32()
	if n > max {
		r.fail("%d %s; this host allows %d", n, what, max)
		return 0
	}
	return n
}

// count reads the number of elements of a vector. Each of them takes a byte at
// least, so that a count beyond what is left is an error before anything is
// allocated or looped over.
func (r *reader) count(max uint32, what string) uint32 {
	n := r.u32In(max, what)
	if r.err == nil && int64(n) > int64(r.len()) {
		r.truncated()
		return 0
	}
	return n
}

func (r *reader) bytes(n uint32) []byte {
	if int64(n) > int64(r.len()) {
		r.truncated()
	}
	if r.err != nil {
		return nil
	}
	r.off += int(n)
	return r.b[r.off-int(n) : r.off : r.off]
}

func (r *reader) rest() []byte { return r.bytes(uint32(r.len())) }

func (r *reader) name() string {
	b := r.bytes(r.u32In(maxNameSize, "bytes of a name"))
	if !utf8.Valid(b) {
		r.fail("a name before byte %#x is not UTF-8", r.off)
		return ""
	}
	return string(b)
}

const noMax = 1<<64 - 1

// limits reads the limits of a table or memory. max is noMax if there is none.
func (r *reader) limits() (min, max uint64) {
	flags := r.byte()
	if r.err == nil && flags > 7 {
		r.fail("limits at byte %#x have flags %#x, which this host does not know", r.off-1, flags)
		return 0, noMax
	}
	most := 5
	if flags&4 != 0 { // 64-bit indices
		most = 10
	}
	min, max = r.leb(most), noMax
	if flags&1 != 0 {
		max = r.leb(most)
	}
	if r.err == nil && flags&4 != 0 {
		r.fail("64-bit memories and tables are a proposal that this host does not run; build for wasm32")
	}
	if r.err == nil && flags&2 != 0 {
		r.fail("shared memories belong to the threads proposal, which this host does not run; build without threads")
	}
	return min, max
}

// done is the error so far, or one for bytes that are left over.
func (r *reader) done() error {
	if r.err == nil && r.len() != 0 {
		r.fail("%d bytes are left over at byte %#x; build the module again", r.len(), r.off)
	}
	return r.err
}
