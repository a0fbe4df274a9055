// Reactor is a guest for the engine's tests, with its bindings written by hand.
package main

import (
	crand "crypto/rand"
	"encoding/hex"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
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

// remembered is what the last call within the instance was given.
var remembered = map[string]string{"": "nothing"}

//go:wasmexport remember
func remember(p, n uint32) uint32 {
	before := remembered[""]
	remembered[""] = "" + params(p, n)
	for i := range 100 {
		remembered[strconv.Itoa(i)] = remembered[""]
	}
	return answer(false, before)
}

// unlike returns what is to differ from call to call.
//
//go:wasmexport unlike
func unlike(p, n uint32) uint32 {
	b := make([]byte, 16)
	crand.Read(b)
	return answer(false, hex.EncodeToString(b)+" "+strconv.FormatInt(time.Now().UnixNano(), 10))
}

// work uses the scheduler, timers, maps, channels, the garbage collector and a
// heap that grows by a few MiB, and returns the same each time.
//
//go:wasmexport work
func work(p, n uint32) uint32 {
	var wg sync.WaitGroup
	sums := make(chan int, 20)
	for g := range 20 {
		wg.Go(func() {
			m := map[int][]byte{}
			for i := range 200 {
				m[i] = make([]byte, 1<<10)
				m[i][0] = byte(g)
				if i%50 == 0 {
					runtime.Gosched()
				}
			}
			time.Sleep(time.Microsecond)
			sum := 0
			for _, b := range m {
				sum += int(b[0])
			}
			sums <- sum
		})
	}
	wg.Wait()
	runtime.GC()
	close(sums)
	total := 0
	for s := range sums {
		total += s
	}
	return answer(false, strconv.Itoa(total))
}

//go:wasmexport leave
func leave(p, n uint32) uint32 {
	os.Exit(3)
	return 0
}
