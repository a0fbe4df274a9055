//go:build wasip1

// Reactor is a guest that computes in the ways of ordinary Go programs.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"sort"
)

func main() {}

//go:wasmexport fib
func fib(n uint32) uint32 {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

//go:wasmexport hash
func hash(rounds uint32) uint32 {
	block := make([]byte, 1024)
	for range rounds {
		sum := sha256.Sum256(block)
		copy(block, sum[:])
	}
	return binary.LittleEndian.Uint32(block)
}

type node struct {
	left, right *node
	v           uint32
}

func tree(depth uint32) *node {
	if depth == 0 {
		return &node{v: 1}
	}
	return &node{tree(depth - 1), tree(depth - 1), depth}
}

func (n *node) sum() uint32 {
	if n == nil {
		return 0
	}
	return n.v + n.left.sum() + n.right.sum()
}

//go:wasmexport alloc
func alloc(depth uint32) uint32 { return tree(depth).sum() }

//go:wasmexport sorted
func sorted(n uint32) uint32 {
	words := make([]string, n)
	x := uint32(1)
	for i := range words {
		x = x*1664525 + 1013904223
		words[i] = string(rune('a'+x>>28)) + string(rune('a'+x>>24&15))
	}
	sort.Strings(words)
	return uint32(words[n/2][0])
}

//go:wasmexport spin
func spin() {
	for {
	}
}

type speaker interface{ speak(n uint32) uint32 }
type dog struct{ next speaker }
type cat struct{ next speaker }

func (d *dog) speak(n uint32) uint32 { return d.next.speak(n+1) + 1 }
func (c *cat) speak(n uint32) uint32 { return c.next.speak(n+2) + 1 }

// Chase recurses for ever, through an interface.
//
//go:wasmexport chase
func chase() uint32 {
	d, c := &dog{}, &cat{}
	d.next, c.next = c, d
	return d.speak(0)
}
