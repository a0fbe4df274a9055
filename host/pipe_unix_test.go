//go:build unix

package host_test

import (
	"syscall"
	"testing"
)

// pipe makes one, which opens for nobody.
func pipe(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}
