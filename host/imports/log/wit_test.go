package log_test

import (
	"testing"

	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/imports/log"
)

func TestHostMatchesWIT(t *testing.T) {
	m := log.Module()
	abitest.CheckInterface(t, "../../../wit/deps/circles-host/host.wit", m.Name+"@"+m.Version, log.Functions(), m.Export)
}
