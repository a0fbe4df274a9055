//go:build !unix

package host_test

import (
	"os"
	"testing"
)

// pipe makes a file, where there are no pipes.
func pipe(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
