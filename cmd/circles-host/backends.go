package main

import (
	"context"
	"path/filepath"

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

// openStore opens a context that is held in a root.
func openStore(ctx context.Context, e peer.Entry) (store.Store, error) {
	return backends["fs"](ctx, e)
}

// openScratch opens a directory that is no peer's context, with what a
// transaction needs in stage.
func openScratch(dir, stage string) (store.Store, error) {
	return fs.Open(fs.Config{Data: dir, Log: filepath.Join(stage, "log"), Tx: filepath.Join(stage, "tx")})
}
