package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/circles-host/circles/host/engine/rewrite"
)

const (
	defaultMaxModuleBytes = 32 << 20
	defaultMaxCompileTime = 60 * time.Second
	defaultMaxCacheBytes  = 2 << 30
	// closeGrace is how long Close waits for runs that it has cancelled.
	closeGrace = 5 * time.Second
)

// ErrClosed is what Run and Compile return for a Program or an Engine that has
// been closed. A caller that got the program from a table which is hot-reloaded
// looks it up again.
var ErrClosed = errors.New("closed")

// Engine compiles and runs modules. It is safe for concurrent use. Make it with
// New, and close it.
type Engine struct {
	config  Config
	hosts   []HostModule
	cache   wazero.CompilationCache
	base    wazero.ModuleConfig // what the instances of all calls share
	compile chan struct{}       // a token for each compilation that is running

	maxTypes int           // maxGenerationTypes; less in tests
	slow     time.Duration // primeSlow; less in tests

	images atomic.Int64 // bytes of all programs' primed images

	ctx  context.Context // done when runs are to stop
	stop context.CancelFunc

	mu      sync.Mutex
	current *generation   // what modules are compiled in
	busy    int           // runs and compilations; counted down to zero by Close
	idle    chan struct{} // closed when busy reaches 0 after done was set
	done    bool          // closed
	builds  int           // compilations since the cache was last pruned

	programs map[*Program]struct{} // that are not closed
	kept     kept

	interpreters []*interpreter
	loads        chan struct{} // a token for each text that is being loaded
	texts        kept
}

// New makes an engine that offers hosts to guests.
func New(ctx context.Context, config Config, hosts ...HostModule) (*Engine, error) {
	if config.MaxModuleBytes <= 0 {
		config.MaxModuleBytes = defaultMaxModuleBytes
	}
	if config.MaxCompileTime <= 0 {
		config.MaxCompileTime = defaultMaxCompileTime
	}
	if config.MaxCacheBytes <= 0 {
		config.MaxCacheBytes = defaultMaxCacheBytes
	}
	if config.MaxImages <= 0 {
		config.MaxImages = defaultMaxImages
	}
	e := &Engine{
		config: config,
		hosts:  hosts,
		// wazero has no way to stop a compilation, so that what is given up on
		// goes on in the background: at most one for each processor.
		compile:  make(chan struct{}, runtime.GOMAXPROCS(0)),
		idle:     make(chan struct{}),
		programs: make(map[*Program]struct{}),
		kept:     kept{programs: config.Keep},
		loads:    make(chan struct{}, runtime.GOMAXPROCS(0)),
		texts:    kept{programs: config.Keep},
		maxTypes: maxGenerationTypes,
		slow:     primeSlow,
		// The defaults of a ModuleConfig are fakes that are made anew, and
		// seeded, for each instance: 10 µs, and predictable random numbers.
		base: wazero.NewModuleConfig().
			WithName(""). // anonymous: instances of one module do not collide
			WithStartFunctions().
			WithRandSource(rand.Reader).
			WithSysWalltime().
			WithSysNanotime(),
	}
	if config.CacheDir != "" {
		if err := openCache(config.CacheDir); err != nil {
			return nil, err
		}
		if err := pruneCache(config.CacheDir, config.MaxCacheBytes); err != nil {
			return nil, fmt.Errorf("prune compilation cache: %w", err)
		}
		cache, err := wazero.NewCompilationCacheWithDir(config.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("open compilation cache: %w", err)
		}
		e.cache = cache
	} else {
		e.cache = wazero.NewCompilationCache()
	}
	e.interpreters = interpreters(config.Languages)
	e.ctx, e.stop = context.WithCancel(context.WithoutCancel(ctx))
	g, err := e.newGeneration(ctx)
	if err != nil {
		e.stop()
		e.cache.Close(ctx)
		return nil, err
	}
	e.current = g
	return e, nil
}

// generation is a wazero runtime with the host modules in it.
//
// A runtime remembers the function types of every module that it ever compiled,
// and forgets none: whoever may send modules could fill the memory with types.
// So an engine goes on to a new generation when one has seen enough of them,
// and the old one goes when its last program is closed. Compiled code is shared,
// by way of the compilation cache.
type generation struct {
	runtime wazero.Runtime
	hosts   hostModules
	meter   *hostModule
	enter   *hostModule // if there is a Machine

	refs  int // programs, compilations, and one for being current; guarded by Engine.mu
	types int // bytes of type sections seen; guarded by Engine.mu
}

// maxGenerationTypes is how many bytes of type sections one generation sees. Go
// guests have about 1 KB, large C++ programs 20 KB.
const maxGenerationTypes = 4 << 20

func (e *Engine) newGeneration(ctx context.Context) (*generation, error) {
	g := &generation{refs: 1}
	g.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().
		// What rewrite can meter, and no more: all code that runs is metered.
		WithCoreFeatures(api.CoreFeaturesV2|experimental.CoreFeaturesTailCall|experimental.CoreFeaturesExtendedConst).
		WithCompilationCache(e.cache))
	err := func() (err error) {
		if g.meter, err = exportMeter(ctx, g.runtime); err != nil {
			return err
		}
		if e.config.Machine != nil {
			if g.enter, err = exportEnter(ctx, g.runtime); err != nil {
				return err
			}
		}
		for _, h := range e.hosts {
			m, err := addHost(ctx, g.runtime, h)
			if err != nil {
				return err
			}
			g.hosts = append(g.hosts, m)
		}
		return nil
	}()
	if err != nil {
		g.close(ctx)
		return nil, err
	}
	return g, nil
}

func (g *generation) close(ctx context.Context) error {
	err := g.runtime.Close(ctx)
	for _, h := range append(g.hosts, g.meter, g.enter) {
		if h != nil {
			h.compiled.Close(ctx) // else the cache that generations share keeps it
		}
	}
	return err
}

// generation returns the one to compile a module in that has so many bytes of
// types. It is released with release.
func (e *Engine) generation(ctx context.Context, types int) (*generation, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current.types > e.maxTypes {
		next, err := e.newGeneration(ctx) // milliseconds, once in hundreds of modules
		if err != nil {
			return nil, err
		}
		e.drop(e.current)
		e.current = next
	}
	e.current.types += types
	e.current.refs++
	return e.current, nil
}

func (e *Engine) release(g *generation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(g)
}

// drop is release for who holds e.mu.
func (e *Engine) drop(g *generation) {
	if g.refs--; g.refs == 0 {
		g.close(context.Background())
	}
}

// enter counts one run or compilation, which Close waits for, until leave.
func (e *Engine) enter() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done {
		return fmt.Errorf("engine: %w", ErrClosed)
	}
	e.busy++
	return nil
}

func (e *Engine) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy--; e.busy == 0 && e.done {
		close(e.idle)
	}
}

// Close refuses new work, waits for runs and compilations until ctx ends, then
// cancels the runs, and releases everything. It returns an error, and releases
// nothing, if work goes on for 5 s after that: a host function that ignores its
// context, or a long compilation. Programs need not be closed before. Closing
// twice is not an error.
func (e *Engine) Close(ctx context.Context) error {
	e.kept.clear()
	e.texts.clear()
	for _, i := range e.interpreters {
		i.close()
	}
	e.mu.Lock()
	if e.done {
		e.mu.Unlock()
		return nil
	}
	if e.done = true; e.busy == 0 {
		close(e.idle)
	}
	e.mu.Unlock()
	defer e.stop()
	select {
	case <-e.idle:
	case <-ctx.Done():
		e.stop()
		grace := time.NewTimer(closeGrace)
		defer grace.Stop()
		select {
		case <-e.idle:
		case <-grace.C:
			return fmt.Errorf("close engine: work goes on %v after it was cancelled: %w", closeGrace, ctx.Err())
		}
	}
	e.mu.Lock()
	for p := range e.programs { // whose owners may not close them any more
		p.freeImages()
	}
	e.mu.Unlock()
	e.release(e.current)
	return e.cache.Close(context.WithoutCancel(ctx))
}

// Program is a compiled module, or a text of such a one's. It is safe for concurrent use, by any number of
// runs.
//
// It is reference counted, so that it can be replaced while it runs: Compile
// returns it with one reference, Retain adds one, Close drops one, and each Run
// holds one. The last one to go frees the code.
type Program struct {
	engine  *Engine
	gen     *generation
	info    Info
	key     [32]byte // what kept knows it by
	code    wazero.CompiledModule
	standin *standin // if a Machine runs it; then code is of its stand-in
	links   experimental.ImportResolver
	start   bool              // has a start function, exported as rewrite.StartExport
	calls   map[string]uint32 // see abi.Options
	// The functions whose unreachable is a call of no function of the table.
	dispatchFrom, dispatchTo uint32

	// Of a text: the language module, with a reference of the text's, whose code it is;
	// and the text, if each run is to load it.
	of   *Program
	text []byte

	// What runs begin with: primed, as the module is once it is initialised, or
	// blank, as it is before, if that is to be done in each run. Without either the
	// module has its data itself.
	primed, blank *image
	// pure: initialising depends on nothing that differs between two runs, and what
	// it burns is never charged for.
	pure bool
	// initial is the fuel that a pure module may burn while it is initialised in a run.
	initial uint64

	shells sync.Pool // of *shell, for runs to come
	freed  sync.Once // images

	mu   sync.Mutex
	refs int
}

func (p *Program) Digest() [32]byte    { return p.info.Digest } // SHA-256 of what was compiled
func (p *Program) Size() int           { return p.info.Size }   // bytes
func (p *Program) Shape() Shape        { return p.info.Shape }
func (p *Program) Entries() []string   { return p.info.Entries } // of a reactor, sorted; read only
func (p *Program) Imports() []Import   { return p.info.Imports } // read only
func (p *Program) Manifest() *Manifest { return p.info.Manifest }
func (p *Program) Info() Info          { return p.info }

// Retain adds a reference, for a caller that hands p on to somebody who closes
// it. It returns false if none is left: p is closed, look it up again.
func (p *Program) Retain() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refs <= 0 {
		return false
	}
	p.refs++
	return true
}

// Close drops a reference. Runs that have begun go on.
func (p *Program) Close() {
	p.mu.Lock()
	p.refs--
	last := p.refs == 0
	p.mu.Unlock()
	if last {
		p.engine.forget(p)
		p.freeImages()
		if p.of != nil {
			p.of.Close()
			return
		}
		p.code.Close(context.Background()) // never fails
		p.standin.close()
		p.engine.release(p.gen)
	}
}

// freeImages drops the program's references to its images. No run begins after.
func (p *Program) freeImages() {
	p.freed.Do(func() {
		p.primed.close()
		p.blank.close()
		p.engine.images.Add(-int64(p.info.Image))
	})
}

func (e *Engine) forget(p *Program) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.programs, p)
}

// Compile makes a Program of a module, or returns one that Config.Keep has it keep. It
// does not keep wasm.
//
// Errors that wrap ErrInvalid are the module's fault; of these, an
// *UnsupportedError lists imports that this host does not offer. Any other is
// the host's: ctx ended, the engine is closed, or the time limit was reached,
// which a busy machine can be the cause of.
//
// wazero cannot be stopped while it compiles. When Compile returns early the
// work goes on in the background, and the slot that it occupies is free again
// only when it ends; there is one for each processor. checkEffort bounds how long
// that can be: some 20 s of one processor, and 500 MB.
func (e *Engine) Compile(ctx context.Context, wasm []byte) (*Program, error) {
	return e.compileWithin(ctx, wasm, e.config.MaxCompileTime)
}

func (e *Engine) compileWithin(ctx context.Context, wasm []byte, most time.Duration) (*Program, error) {
	if len(wasm) > e.config.MaxModuleBytes {
		return nil, fmt.Errorf("compile module: %w: it has %d bytes; this host allows %d", ErrInvalid, len(wasm), e.config.MaxModuleBytes)
	}
	if p := e.kept.find(sha256.Sum256(wasm)); p != nil {
		return p, nil
	}
	info, err := Inspect(wasm)
	if err != nil {
		return nil, err
	}
	if err := info.runnable(); err != nil {
		return nil, fmt.Errorf("compile module: %w: %w", ErrInvalid, err)
	}
	// Names first: a guest of another host's fails here, before it costs a
	// second of compilation. Types follow when wazero has validated them.
	e.mu.Lock()
	hosts := e.current.hosts
	e.mu.Unlock()
	if _, err := hosts.link(&info, nil); err != nil {
		return nil, fmt.Errorf("compile module: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	select {
	case e.compile <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("compile module: waited for %d other compilations: %w", cap(e.compile), ctx.Err())
	}
	if err := e.enter(); err != nil {
		<-e.compile
		return nil, err
	}
	wasm = bytes.Clone(wasm) // for as long as it takes, which may be longer than the caller waits
	type outcome struct {
		p   *Program
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		defer e.leave()
		defer func() { <-e.compile }()
		p, err := e.build(info, wasm)
		done <- outcome{p, err}
	}()
	select {
	case o := <-done:
		if o.err == nil {
			e.kept.add(o.p)
		}
		return o.p, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.p != nil {
				o.p.Close()
			}
		}()
		return nil, fmt.Errorf("compile module: stopped waiting for it: %w; a smaller module, or the compilation cache, helps", ctx.Err())
	}
}

// build meters and compiles a module. A panic of wazero's compiler is an error.
func (e *Engine) build(info Info, wasm []byte) (p *Program, err error) {
	ctx := context.Background()
	prepared, after, err := rewritten(&info, wasm)
	if err != nil {
		return nil, fmt.Errorf("compile module: %w: %w", ErrInvalid, err)
	}
	types := after.sections[sectionType]
	g, err := e.generation(ctx, types.to-types.from)
	if err != nil {
		return nil, err
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("compile module: %w", &PanicError{Value: v, Stack: debug.Stack()})
		}
		if err != nil {
			e.release(g)
		}
	}()
	code := boundTables(prepared.Wasm, after)
	var stand *standin
	if e.config.Machine != nil {
		if code, stand, err = e.standIn(g, &info, code); err != nil {
			return nil, fmt.Errorf("compile module: %w: %w", ErrInvalid, err)
		}
		defer func() {
			if p == nil {
				stand.close()
			}
		}()
	}
	compiled, err := g.runtime.CompileModule(ctx, code)
	if err != nil && strings.Contains(err.Error(), "compilationcache:") {
		// A damaged file would make this module fail for as long as it lies
		// there. wazero does not say which it is.
		if err := clearCache(e.config.CacheDir); err != nil {
			return nil, fmt.Errorf("compile module: clear damaged cache: %w", err)
		}
		compiled, err = g.runtime.CompileModule(ctx, code)
	}
	if err != nil {
		return nil, fmt.Errorf("compile module: %w: %w", ErrInvalid, err)
	}
	e.built()
	links, err := g.hosts.link(&info, compiled.ImportedFunctions())
	if err != nil {
		compiled.Close(ctx)
		return nil, fmt.Errorf("compile module: %w", err)
	}
	links[rewrite.DefaultModule] = g.meter.module
	if g.enter != nil {
		links[enterModule] = g.enter.module
	}
	p = &Program{
		engine:  e,
		gen:     g,
		info:    info,
		key:     info.Digest,
		code:    compiled,
		standin: stand,
		links:   func(name string) api.Module { return links[name] },
		start:   prepared.Start,
		calls:   prepared.Calls,

		dispatchFrom: prepared.DispatchFrom,
		dispatchTo:   prepared.DispatchTo,

		refs: 1,
	}
	p.info.exports, p.info.calls = nil, nil // up to 10 MB of names that nobody asks for any more
	if err := p.prime(ctx, prepared); err != nil {
		p.freeImages()
		compiled.Close(ctx)
		return nil, fmt.Errorf("compile module: %w", err)
	}
	e.mu.Lock()
	e.programs[p] = struct{}{}
	e.mu.Unlock()
	return p, nil
}

// rewritten is the module as it is compiled, and what can be said of that.
func rewritten(info *Info, wasm []byte) (*rewrite.Prepared, *Info, error) {
	for _, tables := range []bool{false, true} {
		// What rewrite refuses has no place here: either wazero would refuse it too,
		// or it could not be stopped.
		p, err := rewrite.Prepare(wasm, rewrite.Options{Calls: info.calls, MaxMemory: maxImage, Tables: tables})
		if err != nil {
			return nil, nil, err
		}
		var after Info
		m := moduleReader{info: &after}
		if err = m.read(p.Wasm); err == nil {
			err = m.checkEffort(p.Wasm)
		}
		if err == nil {
			return p, &after, nil
		}
		if p.Dispatched == 0 {
			return nil, nil, err
		}
		// Perhaps it is the table made into code that is too much.
	}
	panic("unreachable: without Dispatched the loop returns")
}

// pruneEvery is how many compilations go by between two looks at the cache's
// size.
const pruneEvery = 64

func (e *Engine) built() {
	if e.config.CacheDir == "" {
		return
	}
	e.mu.Lock()
	e.builds++
	due := e.builds%pruneEvery == 0
	e.mu.Unlock()
	if due {
		// What cannot be removed now is tried again, and reported by New.
		_ = pruneCache(e.config.CacheDir, e.config.MaxCacheBytes)
	}
}
