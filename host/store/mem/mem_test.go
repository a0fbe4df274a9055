package mem_test

import (
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return mem.New(mem.Config{}) })
}
