package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/host/engine/abi"
	"github.com/circles-host/circles/host/engine/rewrite"
)

// A text is made a Program by a language module, which is of the world language
// in wit/script.wit. It is compiled once, however many texts there are. An instance of
// it is given the text, by its entry "load", once; its memory is then the image with
// which the text's runs begin, each by the entry "call". So no run parses anything.
//
// Loading is initialising: nothing of a context is in reach, and what is called is
// watched, as SNAPSHOTS.md has it. Where there can be no image each run loads the
// text anew, and is not charged for it.

// Language is a language in which texts are run.
type Language struct {
	Name   string   // as policies and scripts have it: "javascript"
	Suffix string   // of files with such texts: ".js"
	Digest [32]byte // SHA-256 of the language module
	// Wasm returns the language module; it is called when a text is first to be loaded.
	Wasm func() ([]byte, error)
}

const (
	// MaxText is the most bytes that a text has. It is about 6,000 lines.
	MaxText = 256 << 10
	// loadFuel bounds loading one text: a second or two of computing. It ends what loops
	// while it is loaded, at the same point on every machine. loadWall is for a machine that
	// is too busy to get there.
	loadFuel = 1 << 29
	loadWall = 10 * time.Second
	// The entries that a text may have, and the bytes of a name of one.
	maxTextEntries = 256
	maxTextEntry   = 128
	maxLoaded      = 64 << 10 // bytes of what load returns

	// interpreterTime bounds compiling a language module, which is the host's own, and on
	// a busy machine takes long.
	interpreterTime = 10 * time.Minute

	loadEntry = "load"
	callEntry = "call"
)

// TextError is what is wrong with a text. It wraps ErrInvalid.
type TextError struct {
	Language string
	File     string // where it is; "" if it is in none
	// Message is lines for the author, the first of which begins with LINE:COLUMN where
	// there is one, counted from 1.
	Message string
}

func (e *TextError) Error() string {
	if e.File != "" && e.Message != "" && '0' < e.Message[0] && e.Message[0] <= '9' {
		return e.File + ":" + e.Message
	}
	if e.File != "" {
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("load %s: %s", e.Language, e.Message)
}

func (e *TextError) Unwrap() error { return ErrInvalid }

// CheckText says why b is not the text of any language; nil if it may be one.
func CheckText(b []byte) error {
	switch at := bytes.IndexByte(b, 0); {
	case len(b) > MaxText:
		return fmt.Errorf("it has %d bytes; a text may have %d", len(b), MaxText)
	case len(bytes.TrimSpace(b)) == 0:
		return errors.New("it is empty")
	case bytes.HasPrefix(b, []byte("\ufeff")):
		return errors.New("1:1: it begins with a byte order mark; save it as UTF-8 without one")
	case bytes.HasPrefix(b, []byte("\xff\xfe")), bytes.HasPrefix(b, []byte("\xfe\xff")):
		return errors.New("1:1: it is UTF-16; save it as UTF-8")
	case at >= 0:
		return fmt.Errorf("%s: it has a NUL byte, which no text has", position(b, at))
	case !utf8.Valid(b):
		at := 0
		for {
			r, n := utf8.DecodeRune(b[at:])
			if r == utf8.RuneError && n == 1 {
				return fmt.Errorf("%s: it is not UTF-8 (byte %#02x); save it as UTF-8", position(b, at), b[at])
			}
			at += n
		}
	}
	return nil
}

// position is the line and column of the byte at, as LINE:COLUMN.
func position(b []byte, at int) string {
	line := bytes.Count(b[:at], []byte("\n")) + 1
	begin := bytes.LastIndexByte(b[:at], '\n') + 1
	return fmt.Sprintf("%d:%d", line, utf8.RuneCount(b[begin:at])+1)
}

// Languages are those of Config.Languages; read only.
func (e *Engine) Languages() []Language { return e.config.Languages }

// interpreter is a Language in an engine.
type interpreter struct {
	Language
	inspect func() (Info, error) // once

	mu      sync.Mutex
	program *Program      // compiled, with a reference of this one's; nil before
	pending chan struct{} // closed when the compilation that is under way has ended
	failed  error         // of the last one
	closed  bool
}

func interpreters(languages []Language) []*interpreter {
	var all []*interpreter
	for _, l := range languages {
		i := &interpreter{Language: l}
		i.inspect = sync.OnceValues(func() (Info, error) {
			wasm, err := i.wasm()
			if err != nil {
				return Info{}, err
			}
			return Inspect(wasm)
		})
		all = append(all, i)
	}
	return all
}

// wasm returns the language module, which is what it is said to be.
func (i *interpreter) wasm() ([]byte, error) {
	wasm, err := i.Wasm()
	if err != nil {
		return nil, fmt.Errorf("language %s: %w", i.Name, err)
	}
	if sha256.Sum256(wasm) != i.Digest {
		return nil, fmt.Errorf("language %s: its module is another one than this host was given", i.Name)
	}
	return wasm, nil
}

func (e *Engine) interpreter(language string) (*interpreter, error) {
	var have []string
	for _, i := range e.interpreters {
		if i.Name == language {
			return i, nil
		}
		have = append(have, i.Name)
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("%w: it is a text in %s, and this host runs no texts", ErrInvalid, quote(language))
	}
	return nil, fmt.Errorf("%w: it is a text in %s; this host has %s", ErrInvalid, quote(language), strings.Join(have, ", "))
}

// get returns the compiled language module, with a reference for the caller. The first
// to ask has it compiled, which goes on when he stops waiting.
func (i *interpreter) get(ctx context.Context, e *Engine) (*Program, error) {
	i.mu.Lock()
	if i.program == nil && i.pending == nil && !i.closed {
		i.pending = make(chan struct{})
		go i.compile(e)
	}
	pending := i.pending
	i.mu.Unlock()
	if pending != nil {
		select {
		case <-pending:
		case <-ctx.Done():
			return nil, fmt.Errorf("load %s: waited for its interpreter to be compiled, which goes on: %w; try again", i.Name, ctx.Err())
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.program != nil && i.program.Retain():
		return i.program, nil
	case i.failed != nil && !i.closed:
		return nil, i.failed
	}
	return nil, fmt.Errorf("load %s: engine: %w", i.Name, ErrClosed)
}

// compile compiles the language module and tells those who wait.
func (i *interpreter) compile(e *Engine) {
	p, err := func() (*Program, error) {
		wasm, err := i.wasm()
		if err != nil {
			return nil, err
		}
		p, err := e.compileWithin(e.ctx, wasm, interpreterTime)
		if err != nil {
			// The bytes are this host's own: it is nobody's fault who sends a text.
			return nil, fmt.Errorf("compile the interpreter of %s: %v", i.Name, err)
		}
		if !p.pure {
			p.Close()
			return nil, fmt.Errorf("compile the interpreter of %s: it cannot be initialised once for all texts: %s", i.Name, p.info.Plain)
		}
		for _, entry := range []string{loadEntry, callEntry} {
			if !slices.Contains(p.info.Entries, entry) {
				p.Close()
				return nil, fmt.Errorf("compile the interpreter of %s: it has no entry %q", i.Name, entry)
			}
		}
		return p, nil
	}()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failed = err
	if p != nil && i.closed {
		p.Close()
	} else {
		i.program = p
	}
	close(i.pending)
	i.pending = nil
}

// close lets go of the compiled language module.
func (i *interpreter) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	if i.program != nil {
		i.program.Close()
		i.program = nil
	}
}

// InspectText is Inspect for a text, which it does not parse: of its Info, Entries and
// what Load finds out are left out. Its imports are those of its language module, since
// the text can call no others.
func (e *Engine) InspectText(language string, text []byte) (Info, error) {
	i, err := e.interpreter(language)
	if err != nil {
		return Info{}, fmt.Errorf("inspect text: %w", err)
	}
	return i.inspectText(text)
}

// InspectText is the method of that name, for who has no engine.
func InspectText(l Language, text []byte) (Info, error) {
	return interpreters([]Language{l})[0].inspectText(text)
}

func (i *interpreter) inspectText(text []byte) (Info, error) {
	if err := CheckText(text); err != nil {
		return Info{}, &TextError{Language: i.Name, Message: err.Error()}
	}
	of, err := i.inspect()
	if err != nil {
		return Info{}, fmt.Errorf("inspect text: %v", err)
	}
	return of.ofText(i, text), nil
}

// ofText is what is said of a text by what is said of the language module.
func (i *Info) ofText(by *interpreter, text []byte) Info {
	return Info{
		Digest: sha256.Sum256(text), Size: len(text), Shape: Reactor, Imports: i.Imports, Memory: i.Memory,
		Language: by.Name, Interpreter: by.Digest,
	}
}

// Load makes a Program of a text, or returns one that Config.Keep has it keep. Its
// Digest is that of the text. It does not keep text.
//
// An error that is a *TextError is the text's fault, and one that wraps ErrInvalid
// that of whoever named the language. Any other is the host's, as of Compile.
func (e *Engine) Load(ctx context.Context, language string, text []byte) (*Program, error) {
	i, err := e.interpreter(language)
	if err != nil {
		return nil, fmt.Errorf("load text: %w", err)
	}
	if err := CheckText(text); err != nil {
		return nil, &TextError{Language: language, Message: err.Error()}
	}
	key := sha256.Sum256(append(slices.Clone(i.Digest[:]), text...))
	if p := e.texts.find(key); p != nil {
		return p, nil
	}
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	of, err := i.get(ctx, e)
	if err != nil {
		return nil, err
	}
	select {
	case e.loads <- struct{}{}:
		defer func() { <-e.loads }()
	case <-ctx.Done():
		of.Close()
		return nil, fmt.Errorf("load %s: waited for %d other texts: %w", language, cap(e.loads), ctx.Err())
	}
	p := &Program{
		engine: e, gen: of.gen, key: key, code: of.code, standin: of.standin, links: of.links, start: of.start, calls: of.calls,
		dispatchFrom: of.dispatchFrom, dispatchTo: of.dispatchTo,
		of: of, text: bytes.Clone(text), info: of.info.ofText(i, text), refs: 1,
	}
	if err := p.load(ctx); err != nil {
		of.Close()
		return nil, err
	}
	e.mu.Lock()
	e.programs[p] = struct{}{}
	e.mu.Unlock()
	e.texts.add(p)
	return p, nil
}

// load has the language module read the text, and makes the image of what it is then.
func (p *Program) load(ctx context.Context) (err error) {
	e, of := p.engine, p.of
	r := e.newRun(ctx, Limits{Wall: loadWall, Memory: maxImage, Fuel: loadFuel, HostCalls: primeHostCalls, Log: maxLoaded}, &Call{})
	r.priming = &priming{}
	defer r.end()
	defer func() {
		if v := recover(); v != nil {
			err = p.loadError(ctx, r, r.failure(p, asError("", v)))
		}
	}()
	defer r.instance.Close()
	image := of.begin()
	if image != nil && p.standin == nil {
		if r.memory.image, err = image.memory.Open(); err != nil {
			return err
		}
	}
	defer r.memory.close()
	mod, err := p.instantiate(r, &Call{}, image)
	if err != nil {
		return fmt.Errorf("instantiate module: %w", err)
	}
	defer mod.Close(context.Background())
	if image != nil {
		image.enter(r, mod)
	}
	fuel := r.global(mod, rewrite.FuelGlobal)
	if of.primed == nil {
		if err := r.initialise(of, mod, fuel); err != nil {
			return p.loadError(ctx, r, r.failure(p, err))
		}
	}
	loaded, err := p.give(r, mod)
	if err != nil {
		return p.loadError(ctx, r, err)
	}
	if p.info.Entries, err = loadedEntries(loaded); err != nil {
		return fmt.Errorf("load %s: its interpreter answers %w", p.info.Language, err)
	}
	p.pure = true
	p.initial = of.initial + 2*r.burned(fuel) + 1<<20
	switch size := int64(mod.Memory().Size()); {
	case of.info.Plain != "" || image == nil:
		p.info.Plain = "its interpreter has no image: " + of.info.Plain
	case e.images.Add(size) > e.config.MaxImages:
		e.images.Add(-size)
		p.info.Plain = fmt.Sprintf("this host keeps images of %d bytes, and has no room for this one's %d", e.config.MaxImages, size)
	default:
		if p.primed, err = captureAfter(r, mod, image); err != nil {
			e.images.Add(-size)
			return fmt.Errorf("load %s: %w", p.info.Language, err)
		}
		p.info.Image = uint64(size)
		p.text = nil // it is in the image
	}
	return nil
}

// captureAfter makes an image of an instance that began with another one.
func captureAfter(r *run, mod api.Module, before *image) (*image, error) {
	var names []string
	for _, g := range before.globals {
		names = append(names, g.name)
	}
	im, err := capture(r, mod, names, before.globals)
	if err != nil {
		return nil, err
	}
	for i := range im.globals {
		// Changed is what differs from the module's own, which before does not have.
		im.globals[i].changed = im.globals[i].changed || before.globals[i].changed
	}
	return im, nil
}

// give calls the language module's entry "load" with the text.
func (p *Program) give(r *run, mod api.Module) ([]byte, error) {
	loaded, text, isErr, err := abi.CallBytes(r, mod, loadEntry, p.text, abi.Options{
		MaxResult: maxLoaded, Through: rewrite.CallExport, Calls: p.calls,
	})
	if err != nil {
		return nil, r.failure(p, err)
	}
	if isErr {
		return nil, r.memoryOr(&Failure{Kind: Returned, Detail: clean(text, 8<<10)})
	}
	return loaded, nil
}

// unloaded is how a run ends that is to load its text first, and cannot: by the run's own
// limits, since it was loaded before. What a host function fails with is no such end, whatever
// it wraps.
type unloaded struct{ failure *Failure }

func (u *unloaded) Error() string { return u.failure.Detail }

// loadError says whose fault it is that a text could not be loaded, and what.
func (p *Program) loadError(ctx context.Context, r *run, err error) error {
	var failure *Failure
	if !errors.As(err, &failure) || ctx.Err() != nil || failure.Kind == DeadlineHit || failure.Kind == Cancelled {
		return fmt.Errorf("load %s: %w", p.info.Language, err)
	}
	message := failure.Detail
	switch {
	case r.priming.forbidden != "":
		message = fmt.Sprintf("it calls %s while it is loaded, when nobody has called it: move that into a function", r.priming.forbidden)
	case failure.Kind == FuelHit:
		message = fmt.Sprintf("loading it takes more than %d instructions; what it computes belongs into a function", loadFuel)
	case failure.Kind != Returned:
		message = "while it is loaded it is " + failure.Detail
	}
	return &TextError{Language: p.info.Language, Message: message}
}

// loadedEntries reads what load returns: {"entries":["run", …]}.
func loadedEntries(b []byte) ([]string, error) {
	var loaded struct {
		Entries []string `json:"entries"`
	}
	if err := json.Unmarshal(b, &loaded); err != nil {
		return nil, fmt.Errorf("what is no JSON of entries: %w", err)
	}
	switch n := len(loaded.Entries); {
	case n == 0:
		return nil, errors.New("without an entry")
	case n > maxTextEntries:
		return nil, fmt.Errorf("with %d entries; a text may have %d", n, maxTextEntries)
	}
	for _, name := range loaded.Entries {
		if name == "" || len(name) > maxTextEntry || clean(name, maxTextEntry) != name {
			return nil, fmt.Errorf("with an entry %s, which is no name for one", quote(name))
		}
	}
	slices.Sort(loaded.Entries)
	return slices.Compact(loaded.Entries), nil
}
