package modules_test

import (
	"testing"

	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/imports/modules"
)

func TestHostMatchesWIT(t *testing.T) {
	m := modules.Module()
	abitest.CheckInterface(t, "../../../wit/deps/circles-host/host.wit", m.Name+"@"+m.Version, modules.Functions(), m.Export)
}
