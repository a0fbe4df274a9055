//go:build wasmtime

package wasmtime_test

import (
	"testing"

	"github.com/circles-host/circles/host/engine/enginetest"
	"github.com/circles-host/circles/host/engine/wasmtime"
)

func TestEngine(t *testing.T) { enginetest.Run(t, wasmtime.New()) }
