package main

import "github.com/circles-host/circles/guest-sdk/go"

// loaded is the text that this instance was given. It is in the image that each run of
// the text begins with, and no run can leave anything in it for the next.
var loaded *program

//go:wasmexport load
func loadEntry(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(source []byte) (entries []byte, err error) {
		if loaded, err = load(source); err != nil {
			return nil, err
		}
		return loaded.describe()
	})
}

//go:wasmexport call
func callEntry(ptr, n uint32) uint32 {
	return circles.Handle(ptr, n, func(params []byte) ([]byte, error) {
		return loaded.call(circles.Entry(), params)
	})
}
