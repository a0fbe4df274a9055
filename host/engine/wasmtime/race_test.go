//go:build wasmtime && race

package wasmtime_test

// raceDetector slows compilers down tenfold, and has nothing to find in them.
const raceDetector = true
