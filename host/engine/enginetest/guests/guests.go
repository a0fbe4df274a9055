// Package guests makes the modules that the engine's tests run: Go programs, built
// by the go command, which caches them, and modules put together by hand.
package guests

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	w "github.com/circles-host/circles/host/engine/abi/abitest"
)

// GoCommand and GoReactor build the programs in ../../testdata.
var (
	GoCommand = sync.OnceValues(func() ([]byte, error) { return buildGo("command") })
	GoReactor = sync.OnceValues(func() ([]byte, error) { return buildGo("reactor", "-buildmode=c-shared") })
)

func buildGo(name string, flags ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", append(append([]string{"build", "-ldflags=-s -w", "-o", out}, flags...),
		"github.com/circles-host/circles/host/engine/testdata/"+name)...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %v\n%s", name, err, b)
	}
	return os.ReadFile(out)
}

// Reactor makes a module whose "run" is code, with a memory and an allocator. Its
// result, unless code ends otherwise, is ok of nothing.
func Reactor(code ...w.Code) []byte {
	var m w.Module
	m.Memory(1)
	m.Bump(1024)
	m.Func("run", "ii", "i", append(code, w.I32(16))...)
	return m.Bytes()
}

// Command makes a module whose "_start" is code.
func Command(code ...w.Code) []byte {
	var m w.Module
	m.Memory(1)
	m.Func("_start", "", "", code...)
	return m.Bytes()
}

// Section encodes a section, for what abitest does not make.
func Section(id byte, contents ...byte) []byte {
	return append(binary.AppendUvarint([]byte{id}, uint64(len(contents))), contents...)
}

// Module puts sections together.
func Module(sections ...[]byte) []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range sections {
		out = append(out, s...)
	}
	return out
}

// CalledIndirectly is a command that calls an entry of its table: 0 does nothing,
// 1 is unreachable, 2 is null.
func CalledIndirectly(entry byte) []byte {
	return Module(Section(1, 1, 0x60, 0, 0), Section(3, 3, 0, 0, 0), Section(4, 1, 0x70, 0, 3),
		Section(5, 1, 0, 1), Section(7, append([]byte{1, 6}, "_start\x00\x00"...)...),
		Section(9, 1, 0, 0x41, 0, 0x0b, 2, 1, 2),
		Section(10, 3, 8, 0, 0x41, entry&0x7f|0x80, entry>>7, 0x11, 0, 0, 0x0b, 2, 0, 0x0b, 3, 0, 0, 0x0b))
}

// Fibonacci is a command that computes fib(n) by its definition.
func Fibonacci(n int32) []byte {
	var m w.Module
	m.Memory(1)
	m.Func("fib", "i", "i",
		w.Get(0), w.I32(1), w.LeU, w.If, w.Get(0), w.Return, w.End,
		w.Get(0), w.I32(1), w.Sub, w.Call(0), w.Get(0), w.I32(2), w.Sub, w.Call(0), w.Add)
	m.Func("_start", "", "", w.I32(n), w.Call(0), w.Drop)
	return m.Bytes()
}

// ReallocRecurses is a reactor that never gets as far as its entry.
func ReallocRecurses() []byte {
	var m w.Module
	m.Memory(1)
	m.Func("fib", "i", "i",
		w.Get(0), w.I32(1), w.LeU, w.If, w.Get(0), w.Return, w.End,
		w.Get(0), w.I32(1), w.Sub, w.Call(0), w.Get(0), w.I32(2), w.Sub, w.Call(0), w.Add)
	m.Func("cabi_realloc", "iiii", "i", w.I32(100), w.Call(0))
	m.Func("run", "ii", "i", w.I32(16))
	return m.Bytes()
}

// Stateful is a module whose initialising changes data, globals and the size of
// its memory. Its entry "run" returns 12 bytes, the word at 256, a global and the
// pages that it has, then spoils all three.
func Stateful() []byte {
	var m w.Module
	m.Memory(2)
	m.Bump(8192)
	m.Data(256, "data")
	m.Data(131000, strings.Repeat("x", 72))
	g := m.Global(7)
	m.Func("_initialize", "", "",
		w.I32(256), w.I32(256), w.Load, w.I32(1), w.Add, w.Store,
		w.I32(40), w.GlobalSet(g), w.I32(3), w.MemoryGrow, w.Drop)
	m.Func("run", "ii", "i",
		w.I32(512), w.I32(256), w.Load, w.Store, w.I32(516), w.GlobalGet(g), w.Store, w.I32(520), w.MemorySize, w.Store,
		w.I32(256), w.I32(-1), w.Store, w.I32(99), w.GlobalSet(g), w.I32(5), w.MemoryGrow, w.Drop,
		w.I32(131000), w.I32(-1), w.Store,
		w.I32(1028), w.I32(512), w.Store, w.I32(1032), w.I32(12), w.Store, w.I32(1024))
	return m.Bytes()
}

// Started is a command whose start section runs code.
func Started(code ...w.Code) []byte {
	var m w.Module
	m.Memory(1)
	m.Start(m.Func("init", "", "", code...))
	m.Func("_start", "", "")
	return m.Bytes()
}

// LoadedEntries is what Language answers when it has loaded a text.
const LoadedEntries = `{"entries":["x","run"]}`

// Language is a language module. A call of a text returns the text, and spoils what it
// finds: the next would return another. What is loaded begins with a letter: "!" is
// refused with a place, "~" loops, "w" writes to standard output, "m" has no end of
// memory, "t" traps, and what is loaded of "e" is not what a language module says.
func Language() []byte {
	var m w.Module
	write := m.Import("wasi_snapshot_preview1", "fd_write", "iiii", "i")
	m.Memory(2)
	m.Bump(8192)
	m.Data(64, LoadedEntries)
	m.Data(128, "1:2: no")
	n := m.Global(7)
	m.Func("_initialize", "", "", w.I32(40), w.GlobalSet(n))
	result := func(tag, at, size int32) w.Code {
		var c w.Code
		for _, part := range []w.Code{w.I32(2048), w.I32(tag), w.Store, w.I32(2052), w.I32(at), w.Store, w.I32(2056), w.I32(size), w.Store, w.I32(2048), w.Return} {
			c = append(c, part...)
		}
		return c
	}
	begins := func(with byte) w.Code {
		var c w.Code
		for _, part := range []w.Code{w.Get(0), w.Load8, w.I32(int32(with)), w.Eq, w.If} {
			c = append(c, part...)
		}
		return c
	}
	m.Func("load", "ii", "i",
		begins('!'), result(1, 128, 7), w.End,
		begins('~'), w.Loop, w.Br(0), w.End, w.End,
		begins('w'), w.I32(1), w.I32(0), w.I32(0), w.I32(96), w.Call(write), w.Drop, w.End,
		begins('m'), w.I32(60000), w.MemoryGrow, w.I32(-1), w.Eq, w.If, w.Unreachable, w.End, w.End,
		begins('t'), w.Unreachable, w.End,
		begins('e'), result(0, 128, 7), w.End,
		w.I32(3), w.MemoryGrow, w.Drop, // the image of a text may be larger
		w.I32(300), w.Get(0), w.Store, w.I32(304), w.Get(1), w.Store,
		w.GlobalGet(n), w.I32(1), w.Add, w.GlobalSet(n),
		result(0, 64, int32(len(LoadedEntries))), w.Unreachable)
	m.Func("call", "ii", "i",
		// text[0] += n - 41, which is 0 in the first call.
		w.I32(300), w.Load, w.I32(300), w.Load, w.Load8, w.GlobalGet(n), w.Add, w.I32(41), w.Sub, w.Store8,
		w.GlobalGet(n), w.I32(1), w.Add, w.GlobalSet(n),
		w.I32(2048), w.I32(0), w.Store, w.I32(2052), w.I32(300), w.Load, w.Store, w.I32(2056), w.I32(304), w.Load, w.Store,
		w.I32(2048))
	return m.Bytes()
}
