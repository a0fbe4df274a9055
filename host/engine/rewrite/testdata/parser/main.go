//go:build wasip1

// Parser is a guest that parses JSON: a large one, for benchmarks.
package main

import "encoding/json"

func main() {}

const document = `{"name":"Ada","langs":["go","wasm","c"],"age":36,"nested":{"a":[1,2,3,{"b":null}],"t":true,"s":"some text here"},"x":1.5e3}`

//go:wasmexport parse
func parse(rounds uint32) uint32 {
	var n int
	for range rounds {
		var v map[string]any
		if json.Unmarshal([]byte(document), &v) != nil {
			return 0
		}
		n += len(v)
	}
	return uint32(n)
}
