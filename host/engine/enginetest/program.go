package enginetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/circles-host/circles/host/engine"
	w "github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/engine/enginetest/guests"
)

// A program is replaced 200 times while others run it: no run fails but for
// ErrClosed, upon which the new one is there.
func (s *suite) replaceUnderLoad(t *testing.T) {
	e := s.engine(t, engine.Config{}, wasi())
	version := func(i int) *engine.Program {
		var m w.Module
		m.Memory(1)
		m.Bump(1024)
		m.Data(20, string(binary.LittleEndian.AppendUint32(nil, 64))+"\x04")
		m.Data(64, fmt.Sprintf("v%03d", i))
		m.Func("run", "ii", "i", w.I32(16))
		p, err := e.Compile(t.Context(), m.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var current atomic.Pointer[engine.Program]
	current.Store(version(0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var runs atomic.Int64
	for range 4 {
		wg.Go(func() {
			last := ""
			for {
				select {
				case <-stop:
					return
				default:
				}
				out, err := e.Run(context.Background(), current.Load(), engine.Call{})
				switch {
				case errors.Is(err, engine.ErrClosed):
					continue
				case err != nil:
					t.Error(err)
					return
				case string(out.Result) < last:
					t.Errorf("%s after %s", out.Result, last)
				}
				last = string(out.Result)
				runs.Add(1)
			}
		})
	}
	for i := 1; i <= 200; i++ {
		current.Swap(version(i)).Close()
	}
	close(stop)
	wg.Wait()
	if runs.Load() == 0 {
		t.Error("nothing ran")
	}
	p := current.Load()
	p.Close()
	if _, err := e.Run(t.Context(), p, engine.Call{}); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("run of a closed program: %v", err)
	}
	if p.Retain() {
		t.Error("a closed program can be retained")
	}
}

// A run that has begun goes on when its program is closed under it.
func (s *suite) closeProgramWhileItRuns(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	e := s.engine(t, engine.Config{}, engine.HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(context.Context) { close(entered); <-leave }).Export("wait")
	}})
	var m w.Module
	f := m.Import("test", "wait", "", "")
	m.Memory(1)
	m.Func("work", "i", "i", w.Get(0), w.I32(1), w.Add)
	m.Func("_start", "", "", w.Call(f), w.I32(1), w.Call(1), w.Drop)
	p, err := e.Compile(t.Context(), m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := e.Run(context.Background(), p, engine.Call{})
		done <- err
	}()
	<-entered
	p.Close()
	runtime.GC() // the code is unmapped by a finalizer
	runtime.GC()
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Close waits for what runs, and ends it when it may not wait any longer.
func (s *suite) closeEngine(t *testing.T) {
	// The guest says when it runs: what an Engine counts as running may be the end
	// of a compilation.
	entered := make(chan struct{})
	e, err := engine.New(t.Context(), engine.Config{Machine: s.machine}, engine.HostModule{Name: "test", Export: func(b wazero.HostModuleBuilder) {
		b.NewFunctionBuilder().WithFunc(func(context.Context) { close(entered) }).Export("entered")
	}})
	if err != nil {
		t.Fatal(err)
	}
	var m w.Module
	enter := m.Import("test", "entered", "", "")
	m.Memory(1)
	m.Func("_start", "", "", w.Call(enter), w.Loop, w.Br(0), w.End)
	p, err := e.Compile(t.Context(), m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := e.Run(context.Background(), p, engine.Call{Limits: engine.Limits{Wall: time.Minute}})
		done <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
	var f *engine.Failure
	if err := <-done; !errors.As(err, &f) || f.Kind != engine.Cancelled {
		t.Errorf("Run = %v", err)
	}
	if _, err := e.Run(t.Context(), p, engine.Call{}); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("Run after Close = %v", err)
	}
	if _, err := e.Compile(t.Context(), guests.Reactor()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("Compile after Close = %v", err)
	}
	p.Close()
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// wazero grows a table to 2^32 entries of 8 bytes if the module lets it.
func (s *suite) tableGrowIsBounded(t *testing.T) {
	// (table 0 funcref) (func (export "_start")
	//   (loop (br_if 0 (i32.ne (table.grow 0 (ref.null func) (i32.const 0x100000)) (i32.const -1))))
	//   trap unless table.size 0 <= 0x100000)
	body := []byte{0, 0x03, 0x40, 0xd0, 0x70, 0x41, 0x80, 0x80, 0xc0, 0x00, 0xfc, 0x0f, 0, 0x41, 0x7f, 0x47, 0x0d, 0, 0x0b,
		0xfc, 0x10, 0, 0x41, 0x80, 0x80, 0xc0, 0x00, 0x4b, 0x04, 0x40, 0x00, 0x0b, 0x0b}
	build := func(tables ...byte) []byte {
		return guests.Module(guests.Section(1, 1, 0x60, 0, 0), guests.Section(3, 1, 0), guests.Section(4, tables...),
			guests.Section(7, append([]byte{1, 6}, "_start\x00\x00"...)...),
			guests.Section(10, append([]byte{1, byte(len(body))}, body...)...))
	}
	e := s.shared(t)
	for name, wasm := range map[string][]byte{
		"no maximum":    build(1, 0x70, 0, 0),
		"large maximum": build(1, 0x70, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"many tables":   build(append([]byte{64}, bytes.Repeat([]byte{0x70, 0, 0}, 64)...)...),
	} {
		t.Run(name, func(t *testing.T) { ran(t, e, compile(t, e, wasm), engine.Call{}) })
	}
}
