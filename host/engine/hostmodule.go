package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// UnsupportedError is a module that imports what this host does not offer. It
// wraps ErrInvalid. Missing lists all of it, so that an author builds once.
type UnsupportedError struct {
	Missing []Import
	Offered []string // modules of host functions, with their versions

	reasons []string // one for each of Missing, then for imports that are not functions
}

func (e *UnsupportedError) Error() string {
	const show = 12
	reasons := e.reasons
	more := ""
	if n := len(reasons) - show; n > 0 {
		reasons, more = reasons[:show], fmt.Sprintf("; and %d more", n)
	}
	offered := strings.Join(e.Offered, ", ")
	if offered == "" {
		offered = "nothing"
	}
	return fmt.Sprintf("the module imports what this host does not offer: %s%s; it offers %s", strings.Join(reasons, "; "), more, offered)
}

func (e *UnsupportedError) Unwrap() error { return ErrInvalid }

// hostModule is an instantiated HostModule.
type hostModule struct {
	name     string
	version  version // zero for an unversioned one
	module   api.Module
	compiled wazero.CompiledModule
	funcs    map[string]api.FunctionDefinition
	serve    map[string]*hostFunc
}

func (h *hostModule) String() string {
	if h.version == (version{}) {
		return h.name
	}
	return h.name + "@" + h.version.String()
}

// addHost instantiates h in rt, every function of it wrapped in a hostFunc.
//
// The functions are compiled twice: first as h exports them, which is how
// wazero reveals what they are, then wrapped. So nothing that a package of
// imports does, or forgets to do, gets a function past the wrapper.
func addHost(ctx context.Context, rt wazero.Runtime, h HostModule) (*hostModule, error) {
	out := &hostModule{name: h.Name, funcs: make(map[string]api.FunctionDefinition), serve: make(map[string]*hostFunc)}
	if h.Name == "" || h.Export == nil {
		return nil, fmt.Errorf("add host module %q: it has no name or no functions", h.Name)
	}
	if h.Version != "" {
		v, err := parseVersion(h.Version)
		if err != nil {
			return nil, fmt.Errorf("add host module %s: %w", h.Name, err)
		}
		out.version = v
	}
	bare := rt.NewHostModuleBuilder(out.String())
	h.Export(bare)
	exported, err := bare.Compile(ctx)
	if err != nil {
		return nil, fmt.Errorf("add host module %s: %w", out, err)
	}
	defer exported.Close(ctx)

	wrapped := rt.NewHostModuleBuilder(out.String())
	defs := exported.ExportedFunctions()
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		def := defs[name]
		f := hostFunc{name: out.String() + "." + name, function: name, initial: h.Initial}
		switch g := def.GoFunction().(type) {
		case api.GoModuleFunction:
			f.call = g.Call
		case api.GoFunction:
			f.call = func(ctx context.Context, _ api.Module, stack []uint64) { g.Call(ctx, stack) }
		default:
			return nil, fmt.Errorf("add host module %s: function %s is a %T", out, name, g)
		}
		b := wrapped.NewFunctionBuilder().WithName(def.Name())
		if names := def.ParamNames(); len(names) > 0 {
			b = b.WithParameterNames(names...)
		}
		b.WithGoModuleFunction(&f, def.ParamTypes(), def.ResultTypes()).Export(name)
		out.funcs[name], out.serve[name] = def, &f
	}
	out.compiled, err = wrapped.Compile(ctx)
	if err != nil {
		return nil, fmt.Errorf("add host module %s: %w", out, err)
	}
	// Not Builder.Instantiate: what that returns cannot be resolved to.
	out.module, err = rt.InstantiateModule(ctx, out.compiled, wazero.NewModuleConfig().WithName(out.String()))
	if err != nil {
		return nil, fmt.Errorf("add host module %s: %w", out, err)
	}
	return out, nil
}

// hostFunc is a host function as guests see it: counted, stopped when the run
// is over, and unable to take the worker down.
type hostFunc struct {
	name     string // with its module's
	function string
	initial  func(string, []uint64) bool
	call     func(context.Context, api.Module, []uint64)
}

// maxHostDepth bounds host functions that run inside of guest code that runs
// inside of host functions. Each level takes a stack of the host's and one of
// the guest's; a Go stack that overflows ends the process.
const maxHostDepth = 8

// Call implements api.GoModuleFunction.
func (f *hostFunc) Call(ctx context.Context, mod api.Module, stack []uint64) {
	r, ok := ctx.Value(runKey{}).(*run)
	if !ok {
		panic(&PanicError{Func: f.name, Value: "called outside of a run"})
	}
	r.enterHost(f.name)
	if r.priming != nil {
		r.priming.see(r, f, stack)
	}
	defer func() {
		if v := recover(); v != nil {
			panic(asError(f.name, v))
		}
	}()
	f.call(ctx, mod, stack)
	r.leaveHost()
}

// asError makes of what a host function panicked with an error that survives
// wazero's own recovery: an error that it panicked with on purpose stays what it
// is, everything else becomes a *PanicError. It is called while the panic's
// frames are still on the stack.
func asError(name string, v any) error {
	err, ok := v.(error)
	var rt runtime.Error
	if ok && !errors.As(err, &rt) {
		return err
	}
	return &PanicError{Func: name, Value: v, Stack: debug.Stack()}
}

// PanicError is a bug in the host: a host function, or wazero itself, panicked.
// The run is over, the worker goes on. Run returns it wrapped, never in a
// Failure, since the guest is not to be told.
type PanicError struct {
	Func  string // the host function, e.g. "wasi_snapshot_preview1.fd_read"; "" for the engine
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	where := e.Func
	if where == "" {
		where = "the engine"
	}
	return fmt.Sprintf("panic in %s: %v", where, e.Value)
}

// version is a semantic version.
type version struct {
	major, minor, patch uint64
	pre                 string
}

func (v version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch)
	if v.pre != "" {
		s += "-" + v.pre
	}
	return s
}

// parseVersion parses major.minor.patch[-pre][+build].
func parseVersion(s string) (version, error) {
	core, _, _ := strings.Cut(s, "+")
	core, pre, _ := strings.Cut(core, "-")
	v := version{pre: pre}
	parts := strings.Split(core, ".")
	if len(parts) != 3 {
		return version{}, fmt.Errorf("version %s is not of the form 1.2.3", quote(s))
	}
	for i, p := range []*uint64{&v.major, &v.minor, &v.patch} {
		n, err := strconv.ParseUint(parts[i], 10, 32)
		if err != nil {
			return version{}, fmt.Errorf("version %s is not of the form 1.2.3", quote(s))
		}
		*p = n
	}
	return v, nil
}

// serves reports whether a host at version v can serve a guest that was built
// against asked: the same compatible range by semver's caret rule, and v not
// older. Before 1.0.0 the minor version is the range, before 0.1.0 the patch.
// A pre-release serves itself only.
func (v version) serves(asked version) bool {
	switch {
	case v.pre != "" || asked.pre != "":
		return v == asked
	case v.major != asked.major:
		return false
	case v.major > 0:
		return v.minor > asked.minor || v.minor == asked.minor && v.patch >= asked.patch
	case v.minor != asked.minor:
		return false
	case v.minor > 0:
		return v.patch >= asked.patch
	default:
		return v.patch == asked.patch
	}
}

// hostModules are those of one runtime.
type hostModules []*hostModule

func (hs hostModules) offered() []string {
	names := make([]string, len(hs))
	for i, h := range hs {
		names[i] = h.String()
	}
	slices.Sort(names)
	return names
}

// find returns the host module that serves imports from name, or why none does.
func (hs hostModules) find(name string) (*hostModule, string) {
	base, asked, versioned := strings.Cut(name, "@")
	var want version
	if versioned {
		var err error
		if want, err = parseVersion(asked); err != nil {
			return nil, err.Error()
		}
	}
	var best *hostModule
	var have []string
	for _, h := range hs {
		if h.name != base {
			continue
		}
		have = append(have, h.version.String())
		if (h.version != version{}) != versioned {
			continue
		}
		if versioned && !h.version.serves(want) {
			continue
		}
		if best == nil || h.version.serves(best.version) {
			best = h
		}
	}
	switch {
	case best != nil:
		return best, ""
	case len(have) == 0:
		return nil, "no such module"
	case !versioned:
		return nil, fmt.Sprintf("it is imported without a version; this host has %s", strings.Join(have, ", "))
	default:
		return nil, fmt.Sprintf("this host has version %s, which does not serve %s", strings.Join(have, ", "), want)
	}
}

// link finds what a module imports: the host module for each of the names that
// it imports from. types[i] is the type of info.Imports[i]; without types, names
// alone are looked at.
func (hs hostModules) link(info *Info, types []api.FunctionDefinition) (map[string]api.Module, error) {
	links := make(map[string]api.Module)
	bad := &UnsupportedError{Offered: hs.offered()}
	miss := func(imp Import, why string) {
		bad.Missing = append(bad.Missing, imp)
		bad.reasons = append(bad.reasons, fmt.Sprintf("%s of %s (%s)", quote(imp.Name), quote(imp.Module), why))
	}
	for i, imp := range info.Imports {
		h, why := hs.find(imp.Module)
		if h == nil {
			miss(imp, why)
			continue
		}
		def, ok := h.funcs[imp.Name]
		if !ok {
			miss(imp, "no such function in "+h.String())
			continue
		}
		links[imp.Module] = h.module
		if types == nil {
			continue
		}
		if got, want := signature(types[i]), signature(def); got != want {
			miss(imp, fmt.Sprintf("imported as %v, it is %v", got, want))
		}
	}
	bad.reasons = append(bad.reasons, info.others...)
	if len(bad.reasons) > 0 {
		return nil, bad
	}
	return links, nil
}

func signature(d api.FunctionDefinition) string {
	return funcType{string(d.ParamTypes()), string(d.ResultTypes())}.String()
}
