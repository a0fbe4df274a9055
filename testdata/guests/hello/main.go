// hello is the least that a command does: params from stdin, result to stdout, a
// line of log to stderr.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	name, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "greeting %q\n", name)
	fmt.Printf("hello, %s", name)
}
