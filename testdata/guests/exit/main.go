// exit writes a file and ends with the exit code that it is given on stdin, 3 if
// it is given none: a code other than 0 is a failure, and the file must be gone.
package main

import (
	"fmt"
	"os"
)

func main() {
	code := 3
	fmt.Scan(&code)
	if err := os.WriteFile("/exit.txt", []byte("written before the exit\n"), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	fmt.Print("output before the exit")
	os.Exit(code)
}
