//go:build wasip1

// Guest counts lines, words and bytes, as the Go guest that circles-host bench measures
// does, bound to Extism by hand: what its PDK does for an input and an output.
package main

import (
	"encoding/binary"
	"strconv"
)

//go:wasmimport extism:host/env input_length
func inputLength() uint64

//go:wasmimport extism:host/env input_load_u64
func inputLoad64(at uint64) uint64

//go:wasmimport extism:host/env input_load_u8
func inputLoad8(at uint64) uint32

//go:wasmimport extism:host/env alloc
func alloc(n uint64) uint64

//go:wasmimport extism:host/env store_u64
func store64(at, v uint64)

//go:wasmimport extism:host/env store_u8
func store8(at uint64, v uint32)

//go:wasmimport extism:host/env output_set
func outputSet(at, n uint64)

func main() {}

//go:wasmexport run
func run() int32 {
	text := make([]byte, 0, inputLength()+8)
	n := inputLength()
	for uint64(len(text))+8 <= n {
		text = binary.LittleEndian.AppendUint64(text, inputLoad64(uint64(len(text))))
	}
	for uint64(len(text)) < n {
		text = append(text, byte(inputLoad8(uint64(len(text)))))
	}
	out := count(text)
	at := alloc(uint64(len(out)))
	i := 0
	for ; i+8 <= len(out); i += 8 {
		store64(at+uint64(i), binary.LittleEndian.Uint64(out[i:]))
	}
	for ; i < len(out); i++ {
		store8(at+uint64(i), uint32(out[i]))
	}
	outputSet(at, uint64(len(out)))
	return 0
}

func count(text []byte) []byte {
	lines, words, inWord := 0, 0, false
	for _, c := range text {
		if c == '\n' {
			lines++
		}
		space := c == ' ' || c >= '\t' && c <= '\r'
		if !space && !inWord {
			words++
		}
		inWord = !space
	}
	out := append([]byte(nil), `{"lines":`...)
	out = strconv.AppendInt(out, int64(lines), 10)
	out = strconv.AppendInt(append(out, `,"words":`...), int64(words), 10)
	out = strconv.AppendInt(append(out, `,"bytes":`...), int64(len(text)), 10)
	return append(out, "}\n"...)
}
