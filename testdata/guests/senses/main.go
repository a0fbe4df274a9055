// Senses tells what a program has of its host beside its files.
package main

import (
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"
)

//go:wasmimport wasi_snapshot_preview1 random_get
func randomGet(buf unsafe.Pointer, n uint32) uint32

func main() {
	start := time.Now()
	time.Sleep(time.Hour / 2) // nobody waits that long
	slept := time.Since(start).Round(time.Minute)
	for range 10 { // a runtime that takes times for granted
		_ = make([]byte, 1<<20)
		runtime.GC()
	}
	var b [8]byte
	random := randomGet(unsafe.Pointer(&b), 8)
	if err := os.WriteFile("/f", nil, 0o644); err != nil {
		panic(err)
	}
	info, err := os.Stat("/f")
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stderr, "logged")
	fmt.Printf("year %d, slept %v, file of %d, random %d %t\n", start.UTC().Year(), slept, info.ModTime().UTC().Year(), random, b == [8]byte{})
}
