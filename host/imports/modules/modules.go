// Package modules is the WIT interface circles:host/modules: a script's way to other
// modules of the context that it runs in.
//
//	e, err := engine.New(ctx, engine.Config{}, contexts.Module(), log.Module(), modules.Module())
//	out, err := e.Run(ctx, p, engine.Call{State: state, …}) // state is a modules.State too
//
// A Modules finds and runs them; this package only carries it across, with the
// errors of package contexts.
package modules

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi"
	"github.com/circles-host/circles/host/imports/contexts"
)

// What crosses in one call, beside a message: contexts bounds that.
const (
	MaxName  = 1024              // bytes of a module's name, and of an entry's
	MaxBytes = contexts.MaxBytes // of params, and of a result
)

// State is what a call's state (engine.Call.State) has to offer. It may be nil: a
// guest that asks is trapped.
type State interface {
	Modules() Modules
}

// Modules are the others, as one module may use them.
//
// Names come from a guest: any UTF-8 up to MaxName bytes, "" included. Errors that
// the guest shall see are *contexts.Error; of any other it learns only that the host
// failed. Methods are called by one goroutine at a time, with the context of the
// run, and return when it ends.
type Modules interface {
	// Call runs an entry of a module by its name; an empty entry is "run".
	Call(ctx context.Context, name, entry string, params []byte) ([]byte, error)
	// Base runs an entry of what the guest stands before; an empty entry is the one
	// that the guest was entered by.
	Base(ctx context.Context, entry string, params []byte) ([]byte, error)
	// Entry is the entry that was asked for, which is never empty.
	Entry() string
}

// The interface's name and version.
const (
	name    = "circles:host/modules"
	version = "0.1.2"
)

// Module returns the host module for an engine. A guest that calls it in a call
// whose State is not this package's fails with an error that says so.
func Module() engine.HostModule {
	return engine.HostModule{
		Name:    name,
		Version: version,
		Export: func(b wazero.HostModuleBuilder) {
			abi.Export(b, name+"@"+version, Functions()...)
		},
	}
}

// Functions returns the interface's functions, as wit/deps/circles-host/host.wit
// declares them.
func Functions() []abi.Func {
	result := abi.Result(abi.Bytes, contexts.ErrorType)
	return []abi.Func{
		{
			Name:   "call",
			Params: []*abi.Type{abi.String, abi.String, abi.Bytes},
			Result: result,
			Do: func(c *abi.Call) {
				m := of(c.Context())
				var name, entry string
				if !lift(c, &name, &entry) {
					return
				}
				params, ok := liftParams(c)
				if !ok {
					return
				}
				out, err := m.Call(c.Context(), name, entry, params)
				contexts.LowerBytes(c, out, MaxBytes, err)
			},
		},
		{
			Name:   "base",
			Params: []*abi.Type{abi.String, abi.Bytes},
			Result: result,
			Do: func(c *abi.Call) {
				m := of(c.Context())
				var entry string
				if !lift(c, &entry) {
					return
				}
				params, ok := liftParams(c)
				if !ok {
					return
				}
				out, err := m.Base(c.Context(), entry, params)
				contexts.LowerBytes(c, out, MaxBytes, err)
			},
		},
		{Name: "entry", Result: abi.String, Do: func(c *abi.Call) {
			c.Result().String(of(c.Context()).Entry())
		}},
	}
}

// lift lifts names. One that is too long is an error that the guest gets, and ends
// the call.
func lift(c *abi.Call, into ...*string) bool {
	ok := true
	for _, s := range into {
		var whole bool
		*s, whole = c.String(MaxName)
		ok = ok && whole
	}
	if !ok {
		contexts.LowerError(c, &contexts.Error{Code: contexts.Invalid, Message: fmt.Sprintf("names of modules and entries have at most %d bytes", MaxName)})
	}
	return ok
}

func liftParams(c *abi.Call) ([]byte, bool) {
	params, ok := c.Bytes(MaxBytes)
	if !ok {
		contexts.LowerError(c, &contexts.Error{Code: contexts.TooLarge, Message: fmt.Sprintf("params have at most %d bytes; hand over more in a file", MaxBytes)})
	}
	return params, ok
}

// of returns the modules of the call that ctx belongs to.
func of(ctx context.Context) Modules {
	if s, ok := engine.CallState(ctx).(State); ok {
		if m := s.Modules(); m != nil {
			return m
		}
	}
	panic(errors.New("call circles:host/modules: this run has no other modules; send the module as a script from one peer to another"))
}
