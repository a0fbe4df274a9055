// Reactor is a guest for the engine's tests, with its bindings written by hand.
package main

import (
	"syscall"
	"unsafe"
)

var (
	kept  = map[uintptr][]byte{} // what the host holds pointers to
	calls int
	area  [3]uint32
)

func main() {}

//go:wasmexport cabi_realloc
func realloc(old, oldSize, align, size uint32) uint32 {
	b := make([]byte, size+align)
	p := (uintptr(unsafe.Pointer(&b[0])) + uintptr(align) - 1) &^ (uintptr(align) - 1)
	kept[p] = b
	return uint32(p)
}

func answer(isErr bool, text string) uint32 {
	b := []byte(text + "\x00")
	kept[uintptr(unsafe.Pointer(&b[0]))] = b
	area = [3]uint32{0, uint32(uintptr(unsafe.Pointer(&b[0]))), uint32(len(text))}
	if isErr {
		area[0] = 1
	}
	return uint32(uintptr(unsafe.Pointer(&area)))
}

func params(p, n uint32) string {
	if n == 0 {
		return ""
	}
	return unsafe.String((*byte)(unsafe.Pointer(uintptr(p))), n)
}

// run counts its calls within the instance.
//
//go:wasmexport run
func run(p, n uint32) uint32 {
	calls++
	return answer(false, "call "+string(rune('0'+calls))+": "+params(p, n))
}

//go:wasmexport say-no
func sayNo(p, n uint32) uint32 { return answer(true, "no: "+params(p, n)) }

//go:wasmexport give-much
func giveMuch(p, n uint32) uint32 { return answer(false, string(make([]byte, 1<<20))) }

//go:wasmexport blow-up
func blowUp(p, n uint32) uint32 { panic("blown up") }

//go:wasmexport print-it
func printIt(p, n uint32) uint32 {
	syscall.Write(1, []byte("printed\n"))
	return answer(false, "")
}

//go:wasmexport collect
func collect(p, n uint32) uint32 {
	var keep [][]byte
	for i := range 2000 {
		b := make([]byte, 1024)
		if i%100 == 0 {
			keep = append(keep, b)
		}
	}
	return answer(len(keep) != 20, "kept")
}
