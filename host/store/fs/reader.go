//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// OpenReader opens a context for reading, also while another process has it open
// and goes on writing it, or where nothing can be written. Files are read as they
// are at that moment, each whole; the log up to an entry that is being written.
// Nothing is changed or made: what a crash left unfinished stays so.
func OpenReader(c Config) (*overlay.Store, error) {
	b := &reader{logDir: c.Log}
	var err error
	if b.lower.under, err = newBeneath(c.Data); err != nil {
		return nil, fmt.Errorf("open store %s for reading: %w", c.Data, fileError(err))
	}
	var data unix.Stat_t
	if err := unix.Fstat(b.lower.under.root(), &data); err != nil {
		b.lower.under.close()
		return nil, fmt.Errorf("open store %s for reading: %w", c.Data, err)
	}
	b.lower.dev = uint64(data.Dev)
	return overlay.New(b, overlay.Config{Limits: c.Limits, Now: c.Now}), nil
}

var errReader = errors.New("the context was opened for reading only")

// reader is an overlay.Backend that commits nothing.
type reader struct {
	lower
	logDir string
}

func (b *reader) Stage(context.Context, overlay.LowerFile, int64) (overlay.Staged, error) {
	return nil, errReader
}
func (b *reader) Prepare(context.Context, *overlay.Plan) error                  { return errReader }
func (b *reader) Abandon(*overlay.Plan)                                         {}
func (b *reader) Commit(context.Context, *overlay.Plan, []overlay.Record) error { return errReader }

func (b *reader) HasKey(key store.Key) bool {
	_, has, err := b.Entry(context.Background(), key)
	return has || err != nil
}

func (b *reader) Entry(ctx context.Context, key store.Key) (store.Entry, bool, error) {
	for e, err := range ReadLog(ctx, b.logDir) {
		if err != nil || e.Key == key {
			return e, err == nil, err
		}
	}
	return store.Entry{}, false, nil
}

func (b *reader) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		for e, err := range ReadLog(ctx, b.logDir) {
			if err == nil && e.Seq < from {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (b *reader) Close() error {
	b.lower.under.close()
	return nil
}
