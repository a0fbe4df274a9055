package abitest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/circles-host/circles/host/engine/abi"
)

// WIT is what one file declares: functions by the interface or world that they
// belong to. Names are complete, "circles:host/log@0.1.0". Functions carry their
// core names, and a resource brings its [resource-drop].
type WIT struct {
	Interfaces map[string][]abi.Func
	Imports    map[string][]string   // of a world: interfaces
	Exports    map[string][]abi.Func // of a world
}

// ParseWIT reads the part of WIT that circles uses: enums, records, variants,
// resources, functions, types used from an interface before, and worlds of them
// (https://github.com/WebAssembly/component-model/blob/main/design/mvp/WIT.md).
// It checks no more than it needs to understand; anything else is an error.
func ParseWIT(src string) (w WIT, err error) {
	p := &witParser{tokens: witTokens(src), types: map[string]*abi.Type{}, kinds: map[string]*abi.Kind{}, declared: map[string]map[string]*abi.Type{}}
	defer func() {
		if v, ok := recover().(witError); ok {
			err = fmt.Errorf("parse WIT: %s, before %q", string(v), strings.Join(p.tokens[:min(8, len(p.tokens))], " "))
		}
	}()
	w = WIT{Interfaces: map[string][]abi.Func{}, Imports: map[string][]string{}, Exports: map[string][]abi.Func{}}
	p.want("package")
	pkg := p.name()
	p.want(";")
	base, version, _ := strings.Cut(pkg, "@")
	for len(p.tokens) > 0 {
		what, name := p.next(), p.name()
		full := base + "/" + name + "@" + version
		p.want("{")
		switch what {
		case "interface":
			w.Interfaces[full] = p.items()
			p.declared[name] = maps.Clone(p.types)
		case "world":
			for !p.is("}") {
				switch kind, item := p.next(), p.name(); kind {
				case "import":
					w.Imports[full] = append(w.Imports[full], item)
				case "export":
					p.want(":")
					w.Exports[full] = append(w.Exports[full], p.function(item, nil))
					continue
				default:
					p.fail("a world has imports and exports")
				}
				p.want(";")
			}
		default:
			p.fail("want interface or world")
		}
	}
	return w, nil
}

type witError string

type witParser struct {
	tokens []string
	types  map[string]*abi.Type // of the interface
	kinds  map[string]*abi.Kind

	declared map[string]map[string]*abi.Type // of the interfaces before
}

// witTokens splits src into words and marks. A word may hold what names do:
// "circles:host/log@0.1.0" is one word.
func witTokens(src string) []string {
	var out []string
	for line := range strings.Lines(src) {
		line, _, _ = strings.Cut(line, "//")
		for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
			n := 0
			for n < len(line) && line[0] != '-' && (isWord(line[n]) || n > 0 && n+1 < len(line) && strings.IndexByte(":/@.", line[n]) >= 0 && isWord(line[n+1])) {
				n++
			}
			switch {
			case n > 0:
			case strings.HasPrefix(line, "->"):
				n = 2
			default:
				n = 1
			}
			out = append(out, strings.TrimPrefix(line[:n], "%"))
			line = line[n:]
		}
	}
	return out
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '%' || c == '_'
}

func (p *witParser) fail(format string, args ...any) {
	panic(witError(fmt.Sprintf(format, args...)))
}

func (p *witParser) next() string {
	if len(p.tokens) == 0 {
		p.fail("unexpected end")
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t
}

// is consumes the next token if it is t.
func (p *witParser) is(t string) bool {
	if len(p.tokens) > 0 && p.tokens[0] == t {
		p.tokens = p.tokens[1:]
		return true
	}
	return false
}

func (p *witParser) want(t string) {
	if !p.is(t) {
		p.fail("want %q", t)
	}
}

func (p *witParser) name() string {
	t := p.next()
	if !isWord(t[0]) {
		p.fail("want a name, got %q", t)
	}
	return t
}

// items parses an interface from behind its "{".
func (p *witParser) items() []abi.Func {
	clear(p.types)
	clear(p.kinds)
	var funcs []abi.Func
	for !p.is("}") {
		switch word := p.next(); word {
		case "use":
			from := p.name()
			p.want(".")
			for _, f := range p.fields(false) {
				t := p.declared[from][f.Name]
				if t == nil {
					p.fail("no interface before this one declares %s.%s", from, f.Name)
				}
				p.declare(f.Name, t)
			}
			p.want(";")
		case "enum":
			name := p.name()
			var cases []string
			for _, f := range p.fields(false) {
				cases = append(cases, f.Name)
			}
			p.declare(name, abi.Enum(cases...))
		case "record":
			name := p.name()
			p.declare(name, abi.Record(p.fields(true)...))
		case "resource":
			name := p.name()
			kind := abi.NewKind(name, nil)
			p.kinds[name] = kind
			funcs = append(funcs, abi.Drop(kind))
			p.want("{")
			for !p.is("}") {
				method := p.name()
				p.want(":")
				if p.is("static") {
					funcs = append(funcs, p.function("[static]"+name+"."+method, nil))
				} else {
					funcs = append(funcs, p.function("[method]"+name+"."+method, abi.Borrow(kind)))
				}
			}
		default: // a function
			p.want(":")
			funcs = append(funcs, p.function(word, nil))
		}
	}
	return funcs
}

func (p *witParser) declare(name string, t *abi.Type) {
	if p.types[name] != nil {
		p.fail("%s is declared twice", name)
	}
	p.types[name] = t
}

// fields parses "{ a: t, b: t }", or names alone.
func (p *witParser) fields(typed bool) []abi.Field {
	var out []abi.Field
	p.want("{")
	for !p.is("}") {
		f := abi.Field{Name: p.name()}
		if typed {
			p.want(":")
			f.Type = p.typ()
		}
		out = append(out, f)
		if !p.is(",") {
			p.want("}")
			break
		}
	}
	return out
}

func (p *witParser) function(name string, self *abi.Type) abi.Func {
	f := abi.Func{Name: name}
	if self != nil {
		f.Params = append(f.Params, self)
	}
	p.want("func")
	p.want("(")
	for !p.is(")") {
		p.name()
		p.want(":")
		f.Params = append(f.Params, p.typ())
		if !p.is(",") {
			p.want(")")
			break
		}
	}
	if p.is("->") {
		f.Result = p.typ()
	}
	p.want(";")
	return f
}

func (p *witParser) typ() *abi.Type {
	switch name := p.name(); name {
	case "bool":
		return abi.Bool
	case "u8":
		return abi.U8
	case "u16":
		return abi.U16
	case "u32":
		return abi.U32
	case "u64":
		return abi.U64
	case "string":
		return abi.String
	case "list":
		return abi.List(p.args(1)[0])
	case "option":
		return abi.Option(p.args(1)[0])
	case "borrow":
		p.want("<")
		k := p.kinds[p.name()]
		p.want(">")
		return abi.Borrow(k)
	case "result":
		if len(p.tokens) == 0 || p.tokens[0] != "<" {
			return abi.Result(nil, nil)
		}
		args := p.args(2)
		return abi.Result(args[0], args[1])
	default:
		if t := p.types[name]; t != nil {
			return t
		}
		if k := p.kinds[name]; k != nil {
			return abi.Own(k)
		}
		p.fail("unknown type %s", name)
		return nil
	}
}

// args parses "<t, _>" into n types; a missing one is nil.
func (p *witParser) args(n int) []*abi.Type {
	out := make([]*abi.Type, n)
	p.want("<")
	for i := range out {
		if !p.is("_") {
			out[i] = p.typ()
		}
		if !p.is(",") {
			break
		}
	}
	p.want(">")
	return out
}

// CheckInterface holds a host module against the WIT file: the same functions,
// of the same types, under the same core names, and what wazero makes of them
// has the core types that follow.
func CheckInterface(t *testing.T, path, name string, funcs []abi.Func, export func(wazero.HostModuleBuilder)) {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wit, err := ParseWIT(string(src))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	declared := wit.Interfaces[name]
	if len(declared) == 0 {
		t.Fatalf("%s has no interface %s; it has %q", path, name, slices.Sorted(maps.Keys(wit.Interfaces)))
	}
	host := map[string]abi.Func{}
	for _, f := range funcs {
		host[f.Name] = f
	}

	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(t.Context())
	b := rt.NewHostModuleBuilder(name)
	export(b)
	compiled, err := b.Compile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exported := compiled.ExportedFunctions()

	for _, want := range declared {
		got, ok := host[want.Name]
		if !ok {
			t.Errorf("%s: the host has no %q", name, want.Name)
			continue
		}
		delete(host, want.Name)
		if got.String() != want.String() {
			t.Errorf("%s: %s differs\n host: %s\n  WIT: %s", name, want.Name, got, want)
		}
		params, results := want.Core()
		d := exported[want.Name]
		if d == nil || string(d.ParamTypes()) != string(params) || string(d.ResultTypes()) != string(results) {
			t.Errorf("%s: %s is exported as %v, want %v -> %v", name, want.Name, d, params, results)
		}
	}
	for name := range host {
		t.Errorf("the host has %q, which the WIT file does not", name)
	}
	if len(exported) != len(declared) {
		t.Errorf("%d functions are exported, %d declared", len(exported), len(declared))
	}
}

// Exported returns the names of what a host module exports, sorted.
func Exported(t *testing.T, export func(wazero.HostModuleBuilder)) []string {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer r.Close(t.Context())
	b := r.NewHostModuleBuilder("exported")
	export(b)
	m, err := b.Compile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(m.ExportedFunctions()))
}

// CheckGuest holds a guest that uses all of its SDK against WIT files: it imports
// every function of every interface that the world imports, exports what the world
// does, and each has the core type that follows from what is declared
// (https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md#flattening).
func CheckGuest(t *testing.T, wasm []byte, world string, paths ...string) {
	t.Helper()
	interfaces, imports, exports := map[string][]abi.Func{}, []string(nil), []abi.Func(nil)
	for _, path := range paths {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		wit, err := ParseWIT(string(src))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		maps.Copy(interfaces, wit.Interfaces)
		imports = append(imports, wit.Imports[world]...)
		exports = append(exports, wit.Exports[world]...)
	}
	if len(imports) == 0 || len(exports) == 0 {
		t.Fatalf("%q declare no world %s", paths, world)
	}

	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(t.Context())
	guest, err := rt.CompileModule(t.Context(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range guest.ImportedFunctions() {
		if module, name, _ := f.Import(); strings.HasPrefix(module, "circles:") {
			got[module+" "+name] = fmt.Sprint(f.ParamTypes(), f.ResultTypes())
		}
	}
	for _, name := range imports {
		if len(interfaces[name]) == 0 {
			t.Errorf("the world imports %s, which %q do not declare", name, paths)
		}
		for _, f := range interfaces[name] {
			params, results := f.Core()
			key, want := name+" "+f.Name, fmt.Sprint(params, results)
			if got[key] != want {
				t.Errorf("it imports %s of type %q, want %s for %s", key, got[key], want, f)
			}
			delete(got, key)
		}
	}
	for name := range got {
		t.Errorf("it imports %s, which no WIT file declares", name)
	}
	exported := guest.ExportedFunctions()
	for _, f := range exports {
		if d := exported[f.Name]; d == nil || !abi.IsEntry(f.Name, d) {
			t.Errorf("it does not export %s as %s", f.Name, f)
		}
	}
	const realloc = "[127 127 127 127] [127]" // i32 is 0x7f
	if d := exported["cabi_realloc"]; d == nil || fmt.Sprint(d.ParamTypes(), d.ResultTypes()) != realloc {
		t.Errorf("its cabi_realloc is %v", d)
	}
}

// Enums returns the cases of each enum that a WIT file declares, by the enum's name.
func Enums(t *testing.T, path string) map[string][]string {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	p := &witParser{tokens: witTokens(string(src))}
	for len(p.tokens) > 0 {
		if !p.is("enum") {
			p.next()
			continue
		}
		name := p.name()
		for _, f := range p.fields(false) {
			out[name] = append(out[name], f.Name)
		}
	}
	return out
}
