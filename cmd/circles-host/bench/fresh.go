package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/floor"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

var someWords = []byte("the quick brown fox\njumps over the lazy dog\n")

const theirCount = `{"lines":2,"words":9,"bytes":44}`

// onePage is the least that can be instantiated, a module with one page of memory:
// a measure of the machine.
//
//	(module (memory (export "memory") 1) (func (export "_start")))
var onePage = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // type: () -> ()
	"\x03\x02\x01\x00" + // function 0
	"\x05\x03\x01\x00\x01" + // memory: 1 page
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" + // exports
	"\x0a\x04\x01\x02\x00\x0b") // code: end

// freshCalls measures a call in a fresh instance: instantiate, initialise, call,
// close; with all limits and metering on and a file system bound, as each script
// has, beside wazero alone, without any of that, and not to be interrupted.
func (r *run) freshCalls() error {
	e, err := engine.New(r.ctx, engine.Config{}, host.HostModules()...)
	if err != nil {
		return err
	}
	defer e.Close(context.WithoutCancel(r.ctx))
	return withFiles(r.ctx, func(files store.FS) error {
		for _, g := range append(r.guests, guest{"1 page, no work", onePage, 0}) {
			r.Progress("fresh call: " + g.name)
			if err := r.freshCall(e, g, files); err != nil {
				return fmt.Errorf("%s: %w", g.name, err)
			}
		}
		return nil
	})
}

func (r *run) freshCall(e *engine.Engine, g guest, files store.FS) error {
	ours, done, err := oursFresh(r.ctx, e, g.wasm, files)
	if err != nil {
		return err
	}
	defer done()
	f, err := floor.New(r.ctx, g.wasm)
	if err != nil {
		return err
	}
	defer f.Close(context.WithoutCancel(r.ctx))
	raw := func() ([]byte, error) { return f.Call(r.ctx, someWords) }
	for who, call := range map[string]func() ([]byte, error){"ours": ours, "wazero alone": raw} {
		out, err := call()
		if err != nil {
			return fmt.Errorf("%s: %w", who, err)
		}
		if g.aim != 0 && !bytes.HasPrefix(out, []byte(theirCount)) { // they do the same work
			return fmt.Errorf("%s: %q is not %s", who, out, theirCount)
		}
	}
	m, err := r.inTurn(r.of(101, 3),
		variant{r.of(100, 10), func() error { _, err := ours(); return err }},
		variant{r.of(4, 1), func() error { _, err := raw(); return err }},
	)
	if err != nil {
		return err
	}
	r.add(faster(beside("fresh", g.name, m[0], "wazero alone", m[1]), g.aim))
	return nil
}

// oursFresh returns what makes one call as the host does.
func oursFresh(ctx context.Context, e *engine.Engine, wasm []byte, files store.FS) (call func() ([]byte, error), done func(), err error) {
	p, err := e.Compile(ctx, wasm)
	if err != nil {
		return nil, nil, err
	}
	c := engine.Call{Params: someWords}
	return func() ([]byte, error) {
		ctx, mounted := wasi.Mount(ctx, files, wasi.Config{})
		out, err := e.Run(ctx, p, c)
		var f *engine.Failure
		if errors.As(err, &f) && f.Kind == engine.Returned {
			err = nil // it did not like its params, which is an answer too
		}
		return out.Result, errors.Join(err, mounted.Close())
	}, p.Close, nil
}

// withFiles calls f with the files of an open transaction.
func withFiles(ctx context.Context, f func(store.FS) error) error {
	s := mem.New(mem.Config{})
	defer s.Close()
	return s.View(ctx, func(tx store.Tx) error { return f(tx.Files(nil)) })
}
