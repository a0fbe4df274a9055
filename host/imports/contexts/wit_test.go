package contexts_test

import (
	"testing"

	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/imports/contexts"
)

func TestHostMatchesWIT(t *testing.T) {
	m := contexts.Module()
	abitest.CheckInterface(t, "../../../wit/deps/circles-host/host.wit", m.Name+"@"+m.Version, contexts.Functions(), m.Export)
}
