package host

import (
	"cmp"
	"context"

	"github.com/circles-host/circles/host/imports/contexts"
)

// others are the modules that one module of a run may use.
type others struct {
	entry string // as the script names it
}

// Entry implements modules.Modules.
func (o others) Entry() string { return cmp.Or(o.entry, "run") }

// Call implements modules.Modules.
func (o others) Call(context.Context, string, string, []byte) ([]byte, error) {
	return nil, &contexts.Error{Code: contexts.Unavailable, Message: "cannot call a module: modules of this host call no others"}
}

// Base implements modules.Modules.
func (o others) Base(context.Context, string, []byte) ([]byte, error) {
	return nil, &contexts.Error{Code: contexts.NotFound, Message: "cannot call the base: this module stands before no other"}
}
