package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/circles-host/circles/host/engine/rewrite"
	"github.com/circles-host/circles/host/engine/snapshot"
)

const (
	// maxImage is the most memory that an image has.
	maxImage         = 64 << 20
	defaultMaxImages = 1 << 30
	// primeWall and primeFuel bound initialising a module once.
	primeWall      = 10 * time.Second
	primeFuel      = 1 << 31
	primeHostCalls = 10_000
)

// image is what a run begins with: memory and globals of an instance at some
// point before its first call.
type image struct {
	memory  *snapshot.Image
	globals []global
}

// global is the value of a mutable global.
type global struct {
	name    string
	value   uint64
	changed bool // it is another one than the module itself begins with
}

func (im *image) close() {
	if im != nil {
		im.memory.Close()
	}
}

// enter makes a fresh instance what the image says.
func (im *image) enter(r *run, mod api.Module) {
	for _, g := range im.globals {
		if g.changed {
			r.global(mod, g.name).Set(g.value)
		}
	}
}

// check compares a fresh instance with the image.
func (im *image) check(r *run, mod api.Module) error {
	for _, g := range im.globals {
		if got := r.global(mod, g.name).Get(); got != g.value {
			return fmt.Errorf("a fresh instance differs from its image: %s is %#x, not %#x", g.name, got, g.value)
		}
	}
	want := im.memory.Bytes()
	got, _ := mod.Memory().Read(0, mod.Memory().Size())
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("a fresh instance differs from its image: byte %#x of its memory is %#x, not %#x", i, got[i], want[i])
		}
	}
	return fmt.Errorf("a fresh instance differs from its image: its memory has %d bytes, not %d", len(got), len(want))
}

// initialise runs what a module wants run before its first call.
func (p *Program) initialise(r *run, mod api.Module) error {
	if p.of != nil {
		if p.of.primed == nil {
			if err := p.of.initialise(r, mod); err != nil {
				return err
			}
		}
		_, err := p.give(r, mod)
		if f, ok := err.(*Failure); ok {
			return &unloaded{f}
		}
		return err
	}
	names := []string{rewrite.StartExport, "_initialize"}
	if p.info.Shape == Command {
		names = names[:1]
	}
	for _, name := range names {
		if f := mod.ExportedFunction(name); f != nil {
			if _, err := f.Call(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin is what a run begins with; nil if the module has its data itself.
func (p *Program) begin() *image {
	switch {
	case p.primed != nil:
		return p.primed
	case p.of != nil:
		return p.of.begin()
	}
	return p.blank
}

// priming watches a module being initialised for all of its runs.
type priming struct {
	command   bool   // whose arguments and environment are a run's own
	forbidden string // the function called that has no place here
}

func (w *priming) see(r *run, f *hostFunc, params []uint64) {
	if w.command || f.initial == nil || !f.initial(f.function, params) {
		w.forbidden = f.name
		r.halt(Trapped, "called %s", f.name)
	}
}

// prime makes the program's images, and says in its Info why there is none.
func (p *Program) prime(ctx context.Context, m *rewrite.Prepared) (err error) {
	if m.Plain != "" {
		p.info.Plain = m.Plain
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, primeWall)
	defer cancel()
	watch := &priming{command: p.info.Shape == Command}
	r := p.engine.newRun(ctx, Limits{Wall: primeWall, Memory: maxImage, Fuel: primeFuel, HostCalls: primeHostCalls}, &Call{})
	r.priming = watch
	defer r.end()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("instantiate module: %w", asError("", v))
		}
	}()
	defer r.instance.Close()
	defer r.memory.close()
	mod, err := p.instantiate(r, &Call{}, nil)
	if err != nil {
		return fmt.Errorf("instantiate module: %w: %w", ErrInvalid, err)
	}
	defer mod.Close(context.Background())
	for _, d := range m.Data {
		if !mod.Memory().Write(d.Offset, d.Bytes) {
			return fmt.Errorf("instantiate module: %w: data outside of its memory", ErrInvalid)
		}
	}
	blank, err := capture(r, mod, m.Globals, nil)
	if err != nil {
		return err
	}
	p.blank = blank
	e := p.engine
	key := p.imageKey(m)
	p.initial = primeFuel
	p.primed = e.loadImage(key, blank, r.memory.max)
	if p.primed == nil {
		start := time.Now()
		failed := p.initialise(r, mod)
		took := time.Since(start)
		p.info.Plain = r.impure(failed)
		if p.info.Plain != "" {
			return nil
		}
		// What is free of charge is what was seen to be needed, with some room for
		// random numbers.
		p.initial = 2*r.burned(r.global(mod, rewrite.FuelGlobal)) + 1<<20
		if p.primed, err = capture(r, mod, m.Globals, blank.globals); err != nil {
			return err
		}
		if took >= e.slow {
			_ = e.storeImage(key, p.primed) // or else it is done again
		}
	}
	p.pure = true
	size := int64(p.primed.memory.Size())
	switch {
	case e.config.Plain:
		p.info.Plain = "this host is configured to initialise modules in each run"
	case e.images.Add(size) > e.config.MaxImages:
		e.images.Add(-size)
		p.info.Plain = fmt.Sprintf("this host keeps images of %d bytes, and has no room for this one's %d", e.config.MaxImages, size)
	default:
		p.info.Image = uint64(size)
		p.blank = nil
		blank.close()
		return nil
	}
	p.primed.close()
	p.primed = nil
	return nil
}

// impure says why a module that was initialised by r, with that outcome, is to be
// initialised in each run, or "".
func (r *run) impure(failed error) string {
	switch {
	case r.priming.forbidden != "":
		return fmt.Sprintf("it calls %s while it is initialised", r.priming.forbidden)
	case r.memory.denied > 0:
		return fmt.Sprintf("it asks for %d bytes of memory while it is initialised, where images have at most %d", r.memory.denied, maxImage)
	case failed == nil:
		return ""
	case r.stopped != nil:
		return "initialising it takes too long: it is " + r.stopped.detail
	}
	var bug *PanicError
	if errors.As(failed, &bug) {
		return "initialising it fails for a bug of this host: " + bug.Error()
	}
	text, _, _ := strings.Cut(failed.Error(), "\nwasm stack trace:")
	return "initialising it fails: " + clean(text, 200)
}

// capture makes an image of an instance. before are the globals as the module
// itself sets them; nil if they are that now.
func capture(r *run, mod api.Module, globals []string, before []global) (*image, error) {
	b, _ := mod.Memory().Read(0, mod.Memory().Size())
	memory, err := snapshot.New(b)
	if err != nil {
		return nil, err
	}
	im := &image{memory: memory}
	for i, name := range globals {
		g := global{name: name, value: r.global(mod, name).Get()}
		g.changed = before != nil && before[i].value != g.value
		im.globals = append(im.globals, g)
	}
	return im, nil
}

// instantiate makes a fresh instance in r's memory, with a shell of r's own. An
// image is for a Machine's instance, whose memory is not r's to map.
func (p *Program) instantiate(r *run, c *Call, im *image) (api.Module, error) {
	r.shell = p.shell(r, c)
	if p.standin != nil {
		return p.standin.instantiate(r, p, im)
	}
	return p.gen.runtime.InstantiateModule(r, p.code, r.shell.config)
}
