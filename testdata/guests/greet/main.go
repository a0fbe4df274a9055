package main

import "github.com/circles-host/circles/guest-sdk/go"

//go:wasmexport run
func run(ptr, n uint32) uint32 { return circles.Handle(ptr, n, greet) }

func greet(params []byte) ([]byte, error) {
	card, err := circles.Caller().ReadFile("/card.txt")
	if err != nil {
		return nil, err
	}
	return append([]byte("hello, "), card...), nil
}

func main() {}
