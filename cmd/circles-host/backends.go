package main

import (
	"context"
	"errors"
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
		return fs.Open(fs.Config{Data: filepath.Join(e.Dir, "data"), Log: filepath.Join(e.Dir, "log"), Tx: filepath.Join(e.Dir, "tx")})
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
	return fs.Open(fs.Config{Data: dir, Log: filepath.Join(stage, "log"), Tx: filepath.Join(stage, "tx")})
}
