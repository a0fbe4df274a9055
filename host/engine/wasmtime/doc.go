// Package wasmtime is an engine.Machine: it has guests run by Wasmtime, which is
// written in Rust and compiles with Cranelift, where the engine has wazero.
//
//	e, err := engine.New(ctx, engine.Config{Machine: wasmtime.New()}, hostModules...)
//
// It needs cgo, a C linker, and the build tag wasmtime. Without the tag this
// package is empty, and nothing of Wasmtime is in the program:
//
//	CGO_ENABLED=1 go test -tags wasmtime ./host/engine/wasmtime
//
// # What it is for
//
// It is an oracle first. Two compilers that share no code run the same module, on the same
// input: where they differ, one of them is wrong, or we are. TestOracle compares
// results, files, logs, how a guest ends and what it burned, to the unit of fuel, over all guests
// of this repository, and over modules and inputs that nobody wrote. And
// it is the way out, should wazero's compiler have a hole on the day that it
// is found.
//
// What is shipped has wazero, for the reasons in RATIONALE: no cgo, no library for each platform,
// instances in microseconds. Wasmtime takes some 100 µs for an instance here, since an image is
// copied and each crossing goes by way of cgo.
//
// # What is the same
//
// All but the code generator: what the engine refuses, what it makes of a module
// (so that fuel is in the code, and no setting of Wasmtime's), images, host
// functions, limits. A guest has Wasmtime's memory; a wazero instance without code
// stands in for it with host functions, see engine.Machine.
//
// # What is not
//
//   - The bits of a NaN that arithmetic makes, which WebAssembly leaves open. Neither
//     is told to make them canonical.
//   - A module whose elements lie outside of their table is refused. wazero leaves them
//     out, and runs it.
//   - Guests run on the stack of their thread, which has less room than wazero's own. A
//     module that was made to have frames larger than they are counted for traps
//     here (stack overflow) where there it may come to its limit.
//   - The texts of errors that are no traps: what a compiler does not like of a
//     module that it refuses.
package wasmtime
