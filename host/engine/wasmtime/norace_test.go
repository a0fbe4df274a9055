//go:build wasmtime && !race

package wasmtime_test

const raceDetector = false
