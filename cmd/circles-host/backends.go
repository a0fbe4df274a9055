package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
)

// backends are the ways in which a context can be stored, by the name that
// peer.toml uses.
var backends = map[string]func(context.Context, peer.Entry) (store.Store, error){
	"fs": func(_ context.Context, e peer.Entry) (store.Store, error) {
		return known(fs.Open(fs.Config{Data: filepath.Join(e.Dir, "data"), Log: filepath.Join(e.Dir, "log"), Tx: filepath.Join(e.Dir, "tx")}))
	},
}

// openStore opens a context that is held in a root. When another process has it
// open, as a send without a worker does for a moment, it waits a while.
func openStore(ctx context.Context, e peer.Entry) (s store.Store, err error) {
	for start := time.Now(); ; {
		s, err = backends["fs"](ctx, e)
		if !errors.Is(err, fs.ErrLocked) || time.Since(start) > lockedFor {
			return s, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

const lockedFor = 3 * time.Second

// openScratch opens a directory that is no peer's context, with what a
// transaction needs in stage.
func openScratch(dir, stage string) (store.Store, error) {
	return known(fs.Open(fs.Config{Data: dir, Log: filepath.Join(stage, "log"), Tx: filepath.Join(stage, "tx")}))
}

// known turns what a backend's Open returns into a store.Store, which is nil when
// that failed: a nil of the backend's own type would not be.
func known[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// lendStore opens a context for a script that runs elsewhere and reads what its
// sender lent. The sender's own worker may have the context open, and goes on
// writing it: then files are read as they are, each whole, and nothing but the
// files is touched.
func lendStore(ctx context.Context, e peer.Entry) (store.Store, error) {
	s, err := backends["fs"](ctx, e)
	if !errors.Is(err, fs.ErrLocked) {
		return s, err
	}
	stage, err := os.MkdirTemp(e.Dir, ".lend-")
	if err != nil {
		return nil, fmt.Errorf("read the context of %s beside its worker: %w", e.Name, err)
	}
	s, err = openScratch(filepath.Join(e.Dir, "data"), stage)
	if err != nil {
		os.RemoveAll(stage)
		return nil, err
	}
	return reader{s, stage}, nil
}

// reader is a store whose log and lock are not the context's own.
type reader struct {
	store.Store
	stage string
}

func (reader) Update(context.Context, func(store.Tx) error) error {
	return errors.New("a context that is lent can be read only")
}

func (r reader) Close() error { return errors.Join(r.Store.Close(), os.RemoveAll(r.stage)) }
