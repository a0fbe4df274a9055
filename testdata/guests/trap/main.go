// trap writes a file and then executes WebAssembly's unreachable instruction. A
// panic of Go's would not do: it ends in an exit code.
package main

import (
	"fmt"
	"os"
)

// trap is in trap_wasm.s.
func trap()

func main() {
	if err := os.WriteFile("/trap.txt", []byte("written before the trap\n"), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	trap()
}
