package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

const (
	defaultMaxModuleBytes = 32 << 20
	defaultMaxCompileTime = 60 * time.Second
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
	cache   wazero.CompilationCache
	runtime wazero.Runtime
	hosts   hostModules
	base    wazero.ModuleConfig // what the instances of all calls share
	compile chan struct{}       // a token for each compilation that is running

	stop context.CancelFunc // cancels runs
	ctx  context.Context    // done when stopped
	mu   sync.Mutex
	busy int           // runs and compilations; counted down to zero by Close
	idle chan struct{} // closed when busy reaches 0 after closed was set
	done bool          // closed
}

// New makes an engine that offers hosts to guests.
func New(ctx context.Context, config Config, hosts ...HostModule) (*Engine, error) {
	if config.MaxModuleBytes <= 0 {
		config.MaxModuleBytes = defaultMaxModuleBytes
	}
	if config.MaxCompileTime <= 0 {
		config.MaxCompileTime = defaultMaxCompileTime
	}
	e := &Engine{
		config: config,
		// wazero has no way to stop a compilation, so that what is given up on
		// goes on in the background: at most one for each processor.
		compile: make(chan struct{}, runtime.GOMAXPROCS(0)),
		idle:    make(chan struct{}),
		// The defaults of a ModuleConfig are fakes that are made anew, and
		// seeded, for each instance: 10 µs, and predictable random numbers.
		base: wazero.NewModuleConfig().
			WithName(""). // anonymous: instances of one module do not collide
			WithStartFunctions().
			WithRandSource(rand.Reader).
			WithSysWalltime().
			WithSysNanotime(),
	}
	e.ctx, e.stop = context.WithCancel(context.WithoutCancel(ctx))
	if config.CacheDir != "" {
		if err := openCache(config.CacheDir); err != nil {
			return nil, err
		}
		cache, err := wazero.NewCompilationCacheWithDir(config.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("open compilation cache: %w", err)
		}
		e.cache = cache
	} else {
		e.cache = wazero.NewCompilationCache()
	}
	e.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().
		WithCompilationCache(e.cache).
		WithCloseOnContextDone(true))
	for _, h := range hosts {
		m, err := e.export(ctx, e.runtime, h)
		if err != nil {
			e.Close(ctx)
			return nil, err
		}
		e.hosts = append(e.hosts, m)
	}
	return e, nil
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
// context, or a long compilation. Closing twice is not an error.
func (e *Engine) Close(ctx context.Context) error {
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
	ctx = context.WithoutCancel(ctx)
	var err error
	if e.runtime != nil {
		err = e.runtime.Close(ctx)
	}
	if e.cache != nil {
		err = errors.Join(err, e.cache.Close(ctx))
	}
	return err
}

// Program is a compiled module. It is safe for concurrent use, by any number of
// runs.
//
// It is reference counted, so that it can be replaced while it runs: Compile
// returns it with one reference, Retain adds one, Close drops one, and each Run
// holds one. The last one to go frees the code.
type Program struct {
	engine *Engine
	info   Info
	code   wazero.CompiledModule
	links  experimental.ImportResolver

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
	if p.refs == 0 {
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
		p.code.Close(context.Background()) // never fails
	}
}

// Compile makes a Program of a module. It does not keep wasm.
//
// Errors that wrap ErrInvalid are the module's fault; of these, an
// *UnsupportedError lists imports that this host does not offer. Any other is
// the host's: ctx ended, the engine is closed, or the time limit was reached,
// which a busy machine can be the cause of.
//
// wazero cannot be stopped while it compiles. When Compile returns early the
// work goes on in the background, and the slot that it occupies is free again
// only when it ends; there is one for each processor.
func (e *Engine) Compile(ctx context.Context, wasm []byte) (*Program, error) {
	if len(wasm) > e.config.MaxModuleBytes {
		return nil, fmt.Errorf("compile module: %w: it has %d bytes; this host allows %d", ErrInvalid, len(wasm), e.config.MaxModuleBytes)
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
	if _, err := e.hosts.link(&info, nil); err != nil {
		return nil, fmt.Errorf("compile module: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, e.config.MaxCompileTime)
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
	code := prepare(wasm, &info)
	type outcome struct {
		p   *Program
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		defer e.leave()
		defer func() { <-e.compile }()
		p, err := e.build(info, code)
		done <- outcome{p, err}
	}()
	select {
	case o := <-done:
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

// build compiles code. A panic of wazero's compiler is an error.
func (e *Engine) build(info Info, code []byte) (p *Program, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("compile module: %w", &PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	ctx := context.Background()
	compiled, err := e.runtime.CompileModule(ctx, code)
	if err != nil && strings.Contains(err.Error(), "compilationcache:") {
		// A damaged file would make this module fail for as long as it lies
		// there. wazero does not say which it is.
		if err := clearCache(e.config.CacheDir); err != nil {
			return nil, fmt.Errorf("compile module: clear damaged cache: %w", err)
		}
		compiled, err = e.runtime.CompileModule(ctx, code)
	}
	if err != nil {
		return nil, fmt.Errorf("compile module: %w: %w", ErrInvalid, err)
	}
	links, err := e.hosts.link(&info, compiled.ImportedFunctions())
	if err != nil {
		compiled.Close(ctx)
		return nil, fmt.Errorf("compile module: %w", err)
	}
	return &Program{
		engine: e,
		info:   info,
		code:   compiled,
		links:  func(name string) api.Module { return links[name] },
		refs:   1,
	}, nil
}
