//go:build !linux && !darwin && !freebsd

package fs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// Open needs calls relative to a directory descriptor, without which a commit
// could be led out of the context by a directory swapped for a link. Where there
// are none, it refuses.
func Open(c Config) (*overlay.Store, error) {
	return nil, fmt.Errorf("open store %s: plain directories on %s: %w; keep the context in memory", c.Data, runtime.GOOS, errors.ErrUnsupported)
}

// Journal is not supported on this system.
type Journal struct{}

// OpenJournal is not supported on this system.
func OpenJournal(c JournalConfig) (*Journal, error) {
	return nil, fmt.Errorf("open journal %s: %w on %s", c.Dir, errors.ErrUnsupported, runtime.GOOS)
}

// Err is nil.
func (*Journal) Err() error { return nil }

// Close does nothing.
func (*Journal) Close() error { return nil }

// ReadLog is not supported on this system.
func ReadLog(context.Context, string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		yield(store.Entry{}, fmt.Errorf("read log: %w on %s", errors.ErrUnsupported, runtime.GOOS))
	}
}

// OpenReader is not supported on this system.
func OpenReader(c Config) (*overlay.Store, error) { return Open(c) }

// Check is not supported on this system.
func Check(context.Context, Config, bool, func(store.Finding)) error {
	return fmt.Errorf("check a plain directory: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}
