package build

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/circles-host/circles/modules/languages"
)

// Cache returns a folder of compiled code for hosts in tests, with the language modules
// in it. It is the user's, and stays: what it has is known by its contents. Errors say what
// could not be compiled.
var Cache = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.UserCacheDir(); err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "circles-tests")
	h := sha256.New()
	for _, l := range languages.All() {
		h.Write(l.Digest[:])
	}
	done := filepath.Join(dir, fmt.Sprintf("warm-%x", h.Sum(nil)))
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	top, err := root()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "test", "-count=1", "-timeout=10m", "./testdata/warm")
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOOS=", "GOARCH=", "CIRCLES_WARM="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the language modules: %w\n%s", err, out)
	}
	return dir, os.WriteFile(done, nil, 0o600)
})
