// Package rewrite takes WebAssembly modules apart and puts them together again,
// to insert what a host needs in them: first of all fuel metering.
//
//	metered, err := rewrite.Meter(wasm, rewrite.Options{})
//
// It is pure: what comes out depends on the bytes that went in alone, so that a
// compilation cache keyed by the output works. It imports no engine.
//
// # Fuel
//
// A metered module counts down an i64, the fuel that remains of what its host
// granted, for every instruction that runs; see cost.go for what each costs.
// When the counter is below zero at the start of a function that calls others,
// at the start of a loop's turn, or at a bulk instruction, the module calls an
// imported function
//
//	(import "circles:engine/meter" "refill" (func (result i64)))
//
// whose result is added to the counter, again and again until it is not negative.
// There the host decides, on the guest's own goroutine: it grants another slice
// by returning a number above zero, or it ends the guest by panicking, because
// the limit is reached, the deadline has passed or the caller has gone. Every
// way to run without end goes through these places, recursion and tail calls
// included, so a guest outlives its limits by no more than one slice and the
// longest stretch without such a place.
//
// The counter starts at zero, so the first thing that a metered module does, its
// start function included, is to ask for a slice. The host can read and set it
// as the exported global [FuelGlobal]:
//
//	burned = granted − remaining
//
// and may lower it to charge for host calls. That number is exact at every host
// call and when a call is over, after a trap too: it is the cost of all blocks
// of instructions entered, where a block's cost is charged on entering it. It
// depends on the module and its input alone: on no clock or machine, and not on
// how fuel is sliced. A run that is ended for want of fuel ends at the same
// instruction, and the same count, however its limit was sliced, provided that
// the slices granted add up to the limit before refill panics. The count can
// exceed what was granted: by what ran, or was about to run, since the last
// place that asks. So a host compares it with the limit when a run has ended well.
//
// # Stack
//
// How deep a guest can recurse would be the engine's affair, and with it how it
// ends and what it has burned by then. So a second counter is what is left of the stack:
// each function that calls others of the module takes a frame from it, by an estimate
// that depends on the module alone ([StackSize], stack.go), and gives it back. When
// there is none left, the module calls
//
//	(import "circles:engine/meter" "limit" (func (param i32 i64)))
//
// which ends the guest, as refill may. The same function is told of a memory.grow
// that was refused, and returns.
//
// The guest cannot reach the counter: it is a global after all of the guest's
// own, and Decode refuses code that names what does not exist in the module as
// it came. A module that imports from or exports under [ReservedPrefix] is
// refused.
//
// # What it costs
//
// BenchmarkMeter runs each kernel plain, metered and with wazero's own
// interruption (WithCloseOnContextDone). As ratios to plain, the best of nine
// interleaved runs on a shared machine of two cores, wazero 1.12:
//
//	                     metered   interruptible
//	register loop           1.01            25.4
//	sieve                   1.06            28.6
//	matrix product          1.22            24.1
//	recursion (fib)         1.18             1.2
//	branches (Collatz)      1.01            20.6
//	calls in a loop         0.79            12.4
//	br_table interpreter    1.25            26.5
//	Go: fib                 1.23            15.6
//	Go: SHA-256             1.08             4.5
//	Go: JSON                1.23             5.0
//	Go: allocation          1.24             7.4
//	Go: sorting             1.17             7.0
//	geometric mean          1.11            10.8
//
// That is without the stack's counter. With and without it in one run, a busy one:
// recursion 1.29 and 1.18, Go's fib 1.37 and 1.28, sorting 1.33 and 1.17, the interpreter, which
// was the worst, 1.55 and 1.50; the geometric mean of all twelve 1.17 and 1.11.
//
// A Go guest grows by a sixth, and takes wazero 1.2 to 1.6 times as long to
// compile. Meter itself takes some 20 ms a megabyte.
//
// # Images
//
// [Prepare] does the same in the same pass, and makes a module whose instances can
// begin with memory and globals that were captured once: it takes out data, start
// and table. See ../SNAPSHOTS.md for what the engine makes of that. TestSpecification
// and TestRandomPrograms run every module plain, metered and prepared.
//
// # What is done to the module
//
// Meter appends two types, an import, a global, a function and an export. Sections
// that this does not touch keep their bytes, custom ones included, except that
// those which name code by its offset (DWARF, relocations, source maps, branch
// hints) are dropped, since their offsets would lie. Function indices change by
// one throughout, the name section included.
//
// # Errors
//
// Decode and Meter return a [*MalformedError] for what breaks the format or a
// limit that every browser shares: nothing should run such a module, and wazero
// should not even decode it, for it allocates what a module's counts say. They
// return an [*UnsupportedError] for what they do not understand. That is nothing
// that wazero accepts with api.CoreFeaturesV2, tail calls and extended constant
// expressions. Meter returns a [*ReservedError] for names that are the engine's.
package rewrite
