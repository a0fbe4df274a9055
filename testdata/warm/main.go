// Warm compiles the language modules into a cache of compiled code, for tests that run
// with the race detector, which slows the compiler tenfold.
//
//	go run ./testdata/warm DIR
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/modules/languages"
)

func main() {
	if err := warm(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func warm(ctx context.Context, dir string) error {
	var all []engine.Language
	for _, l := range languages.All() {
		all = append(all, engine.Language{Name: l.Name, Suffix: l.Suffix, Digest: l.Digest, Wasm: l.Wasm})
	}
	e, err := engine.New(ctx, engine.Config{CacheDir: dir, Languages: all}, host.HostModules()...)
	if err != nil {
		return err
	}
	defer e.Close(ctx)
	for _, l := range all {
		p, err := e.Load(ctx, l.Name, []byte("1"))
		if err != nil {
			return err
		}
		p.Close()
	}
	return nil
}
