package engine_test

import (
	"testing"

	"github.com/circles-host/circles/host/engine/enginetest"
)

func TestEngine(t *testing.T) { enginetest.Run(t, nil) }
