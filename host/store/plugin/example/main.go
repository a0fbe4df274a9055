// Command example is a storage plugin: a context in one file that is only ever
// appended to. It shows what package plugin asks of a backend, and is small
// enough to read; what it lacks is a way to give back the space of what was
// replaced.
//
// Its one setting is path, the file.
package main

import (
	"context"
	"errors"

	"github.com/circles-host/circles/host/store/overlay"
	"github.com/circles-host/circles/host/store/plugin"
)

func main() {
	plugin.Serve(func(_ context.Context, settings map[string]string) (overlay.Backend, error) {
		if settings["path"] == "" {
			return nil, errors.New("the setting path is missing: the file that keeps the context")
		}
		return open(settings["path"])
	})
}
