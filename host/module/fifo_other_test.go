//go:build !unix

package module_test

import (
	"os"
	"testing"
)

// Without FIFOs a directory stands in: it is no regular file either.
func fifo(t *testing.T, path string) {
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}
