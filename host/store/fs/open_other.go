//go:build !linux && !darwin && !freebsd

package fs

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/circles-host/circles/host/store/overlay"
)

// Open needs calls relative to a directory descriptor, without which a commit
// could be led out of the context by a directory swapped for a link. Where there
// are none, it refuses.
func Open(c Config) (*overlay.Store, error) {
	return nil, fmt.Errorf("open store %s: plain directories on %s: %w; keep the context in memory", c.Data, runtime.GOOS, errors.ErrUnsupported)
}
