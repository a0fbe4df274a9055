//go:build race

package main

// raceDetector makes compiling WebAssembly tenfold as slow, and more on a busy machine.
const raceDetector = true
