//go:build wasmtime && !unix

package wasmtime

// stack is how many bytes of stack a guest may take: what Wasmtime has by default.
func stack() int { return 512 << 10 }
