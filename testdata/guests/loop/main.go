// loop never ends and never calls the host, with a loop or, told "recurse", with
// calls alone: only a check inside the code itself stops it.
package main

import (
	"fmt"
	"math"
)

var sink float64

func main() {
	how := ""
	fmt.Scan(&how)
	if how == "recurse" {
		fib(1 << 30)
	}
	for i := 0; ; i++ {
		sink += math.Sqrt(float64(i))
	}
}

// fib is never deep, and never done.
func fib(n int) int {
	if n < 2 || n < 1<<30-60 {
		return n
	}
	return fib(n-1) + fib(n-2)
}
