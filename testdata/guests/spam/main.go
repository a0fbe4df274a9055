// spam writes without end to what it is told on stdin: stdout (the default),
// stderr, file (one that grows) or files (ever more). It stops at the first error,
// with exit code 1 and the error on stderr.
package main

import (
	"bytes"
	"fmt"
	"os"
)

func main() {
	where := "stdout"
	fmt.Scan(&where)
	chunk := bytes.Repeat([]byte("spam "), 1<<12)
	if err := spam(where, chunk); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func spam(where string, chunk []byte) error {
	out := os.Stdout
	switch where {
	case "stderr":
		out = os.Stderr
	case "file":
		f, err := os.Create("/spam")
		if err != nil {
			return err
		}
		out = f
	case "files":
		for i := 0; ; i++ {
			if err := os.WriteFile(fmt.Sprintf("/spam-%d", i), []byte("spam"), 0o644); err != nil {
				return err
			}
		}
	}
	for {
		if _, err := out.Write(chunk); err != nil {
			return err
		}
	}
}
