// Package contexts is the WIT interface circles:host/contexts: the contexts of
// the two peers that a script concerns, as handles with methods.
//
//	e, err := engine.New(ctx, engine.Config{}, contexts.Module(), log.Module())
//	out, err := e.Run(ctx, p, engine.Call{State: state, …}) // state is a contexts.State
//
// A Context decides and does; this package only carries it across: it lifts
// arguments, bounds what crosses, and turns errors into the WIT record. Local
// is a Context over a store's transaction, ReadOnly narrows one, and a context
// on another host is an implementation elsewhere.
package contexts

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi"
)

// What crosses in one call.
const (
	MaxPath    = 4096     // bytes
	MaxBytes   = 16 << 20 // of a read or a write
	MaxEntries = 1 << 16  // of a list
	MaxQuery   = 64 << 10 // bytes of a query, and of where to go on with it
	maxMessage = 4 << 10  // bytes of an error's message
)

// State is what a call's state (engine.Call.State) has to offer. Either may be
// nil, in a run outside of any context: a guest that asks for it is trapped.
type State interface {
	Caller() Context
	Target() Context
	// Clock reports whether the guest may tell the time. All files have the time
	// Still for one that may not.
	Clock() bool
}

// Still is 2000-01-01T00:00:00Z, as in wasi.Still, in milliseconds since 1970.
const Still = 946684800000

// The interface's name and version.
const (
	name    = "circles:host/contexts"
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

// kind is the WIT resource `context`. Contexts belong to the call, not to the
// handles, so dropping a handle ends nothing.
var kind = abi.NewKind("context", nil)

// The WIT types.
var (
	// ErrorType is the record error, which LowerError lowers.
	ErrorType = abi.Record(
		abi.Field{Name: "code", Type: abi.Enum(codeNames...)},
		abi.Field{Name: "message", Type: abi.String},
	)
	kindEnum   = abi.Enum("file", "directory", "link", "other")
	statRecord = abi.Record(
		abi.Field{Name: "kind", Type: kindEnum},
		abi.Field{Name: "size", Type: abi.U64},
		abi.Field{Name: "modified", Type: abi.U64},
	)
	entryRecord = abi.Record(
		abi.Field{Name: "name", Type: abi.String},
		abi.Field{Name: "kind", Type: kindEnum},
	)
	itemRecord = abi.Record(
		abi.Field{Name: "key", Type: abi.String},
		abi.Field{Name: "value", Type: abi.Option(abi.Bytes)},
	)
	pageRecord = abi.Record(
		abi.Field{Name: "items", Type: abi.List(itemRecord)},
		abi.Field{Name: "next", Type: abi.String},
	)
)

// Functions returns the interface's functions, as wit/deps/circles-host/host.wit
// declares them.
func Functions() []abi.Func {
	self := abi.Borrow(kind)
	return []abi.Func{
		{Name: "caller", Result: abi.Own(kind), Do: func(c *abi.Call) {
			lowerContext(c, state(c.Context()).Caller())
		}},
		{Name: "target", Result: abi.Own(kind), Do: func(c *abi.Call) {
			lowerContext(c, state(c.Context()).Target())
		}},
		abi.Drop(kind),

		{Name: "[method]context.id", Params: []*abi.Type{self}, Result: abi.String, Do: func(c *abi.Call) {
			c.Result().String(abi.Self[Context](c).ID())
		}},
		{Name: "[method]context.name", Params: []*abi.Type{self}, Result: abi.String, Do: func(c *abi.Call) {
			c.Result().String(abi.Self[Context](c).Name())
		}},
		{
			Name:   "[method]context.read",
			Params: []*abi.Type{self, abi.String},
			Result: abi.Result(abi.Bytes, ErrorType),
			Do: func(c *abi.Call) {
				x := abi.Self[Context](c)
				p, ok := liftPath(c)
				if !ok {
					return
				}
				b, err := x.Read(c.Context(), p, MaxBytes)
				LowerBytes(c, b, MaxBytes, err)
			},
		},
		{
			Name:   "[method]context.read-at",
			Params: []*abi.Type{self, abi.String, abi.U64, abi.U32},
			Result: abi.Result(abi.Bytes, ErrorType),
			Do: func(c *abi.Call) {
				x := abi.Self[Context](c)
				p, ok := liftPath(c)
				if !ok {
					return
				}
				offset, length := c.U64(), c.U32()
				if length > MaxBytes {
					// Not cut: fewer bytes than asked for mean the end of the file.
					LowerError(c, &Error{Code: TooLarge, Message: fmt.Sprintf("cannot read %d bytes at once: ask for at most %d", length, MaxBytes)})
					return
				}
				b, err := x.ReadAt(c.Context(), p, offset, int(length))
				LowerBytes(c, b, int(length), err)
			},
		},
		{
			Name:   "[method]context.write",
			Params: []*abi.Type{self, abi.String, abi.Bytes},
			Result: abi.Result(nil, ErrorType),
			Do:     change(Context.Write),
		},
		{
			Name:   "[method]context.append",
			Params: []*abi.Type{self, abi.String, abi.Bytes},
			Result: abi.Result(nil, ErrorType),
			Do:     change(Context.Append),
		},
		{
			Name:   "[method]context.list",
			Params: []*abi.Type{self, abi.String},
			Result: abi.Result(abi.List(entryRecord), ErrorType),
			Do:     list,
		},
		{
			Name:   "[method]context.stat",
			Params: []*abi.Type{self, abi.String},
			Result: abi.Result(statRecord, ErrorType),
			Do: func(c *abi.Call) {
				x := abi.Self[Context](c)
				p, ok := liftPath(c)
				if !ok {
					return
				}
				s, err := x.Stat(c.Context(), p)
				if err != nil {
					LowerError(c, err)
					return
				}
				out := c.Result().Case(abi.Ok)
				out.Field(0).Case(lowerKind(s.Kind))
				out.Field(1).U64(s.Size)
				if s.Modified != 0 && !state(c.Context()).Clock() {
					s.Modified = Still
				}
				out.Field(2).U64(s.Modified)
			},
		},
		{
			Name:   "[method]context.make-directory",
			Params: []*abi.Type{self, abi.String},
			Result: abi.Result(nil, ErrorType),
			Do:     act(Context.MakeDirectory),
		},
		{
			Name:   "[method]context.remove",
			Params: []*abi.Type{self, abi.String},
			Result: abi.Result(nil, ErrorType),
			Do:     act(Context.Remove),
		},
		{
			Name:   "[method]context.get-record",
			Params: []*abi.Type{self, abi.String, abi.String},
			Result: abi.Result(abi.Bytes, ErrorType),
			Do:     getRecord,
		},
		{
			Name:   "[method]context.put-record",
			Params: []*abi.Type{self, abi.String, abi.String, abi.Bytes},
			Result: abi.Result(nil, ErrorType),
			Do:     putRecord,
		},
		{
			Name:   "[method]context.delete-record",
			Params: []*abi.Type{self, abi.String, abi.String},
			Result: abi.Result(nil, ErrorType),
			Do:     deleteRecord,
		},
		{
			Name:   "[method]context.list-records",
			Params: []*abi.Type{self, abi.String, abi.String, abi.String, abi.U32},
			Result: abi.Result(pageRecord, ErrorType),
			Do:     listRecords,
		},
		{
			Name:   "[method]context.replace-record",
			Params: []*abi.Type{self, abi.String, abi.String, abi.Option(abi.Bytes), abi.Bytes},
			Result: abi.Result(nil, ErrorType),
			Do:     replaceRecord,
		},
		{
			Name:   "[method]context.query-records",
			Params: []*abi.Type{self, abi.String, abi.String, abi.String, abi.U32},
			Result: abi.Result(pageRecord, ErrorType),
			Do:     queryRecords,
		},
		{
			Name:   "[method]context.send",
			Params: []*abi.Type{self, abi.String, abi.String, abi.String, abi.Bytes},
			Result: abi.Result(abi.Bytes, ErrorType),
			Do:     send,
		},
	}
}

func send(c *abi.Call) {
	x := abi.Self[Context](c)
	var to, logic, entry string
	ok := true
	for _, s := range []*string{&to, &logic, &entry} {
		var whole bool
		*s, whole = c.String(MaxName)
		ok = ok && whole
	}
	if !ok {
		LowerError(c, &Error{Code: Invalid, Message: fmt.Sprintf("names of peers, modules and entries have at most %d bytes", MaxName)})
		return
	}
	params, ok := c.Bytes(MaxBytes)
	if !ok {
		LowerError(c, &Error{Code: TooLarge, Message: fmt.Sprintf("params have at most %d bytes", MaxBytes)})
		return
	}
	result, err := x.Send(c.Context(), to, logic, entry, params)
	LowerBytes(c, result, MaxBytes, err)
}

func lowerContext(c *abi.Call, x Context) {
	if x == nil {
		panic(errors.New("call circles:host/contexts: this run has no such context; send the module as a script from one peer to another"))
	}
	c.Result().Own(x)
}

// act is a method of a path alone.
func act(method func(Context, context.Context, string) error) func(*abi.Call) {
	return func(c *abi.Call) {
		x := abi.Self[Context](c)
		p, ok := liftPath(c)
		if !ok {
			return
		}
		lowerDone(c, method(x, c.Context(), p))
	}
}

// change is a method of a path and the data for it.
func change(method func(Context, context.Context, string, []byte) error) func(*abi.Call) {
	return func(c *abi.Call) {
		x := abi.Self[Context](c)
		p, ok := liftPath(c)
		if !ok {
			return
		}
		data, ok := c.Bytes(MaxBytes)
		if !ok {
			LowerError(c, &Error{Code: TooLarge, Message: fmt.Sprintf("cannot change %s: more than %d bytes at once; append it in parts", quote(p), MaxBytes)})
			return
		}
		lowerDone(c, method(x, c.Context(), p, data))
	}
}

func list(c *abi.Call) {
	x := abi.Self[Context](c)
	p, ok := liftPath(c)
	if !ok {
		return
	}
	entries, err := x.List(c.Context(), p, MaxEntries)
	if err == nil && len(entries) > MaxEntries {
		err = overrun(x, "entries", len(entries), MaxEntries)
	}
	if err != nil {
		LowerError(c, err)
		return
	}
	out := c.Result().Case(abi.Ok).List(len(entries))
	for i, e := range entries {
		out.At(i).Field(0).String(e.Name)
		out.At(i).Field(1).Case(lowerKind(e.Kind))
	}
}

// liftPath lifts a path. One that is too long is an error that the guest gets,
// and ends the call.
func liftPath(c *abi.Call) (string, bool) {
	p, whole := c.String(MaxPath)
	if !whole {
		LowerError(c, &Error{Code: Invalid, Message: fmt.Sprintf("a path has at most %d bytes", MaxPath)})
	}
	return p, whole
}

// LowerBytes lowers a result<list<u8>, error>.
func LowerBytes(c *abi.Call, b []byte, limit int, err error) {
	if err == nil && len(b) > limit {
		err = &Error{Code: Unavailable, Message: fmt.Sprintf("the context answered with %d bytes, over the limit of %d", len(b), limit)}
	}
	if err != nil {
		LowerError(c, err)
		return
	}
	c.Result().Case(abi.Ok).Bytes(b)
}

// overrun is a context, on a host that we do not control, that sent more than
// was asked for.
func overrun(x Context, what string, n, limit int) error {
	return &Error{Code: Unavailable, Message: fmt.Sprintf("the context of %s answered with %d %s, over the limit of %d", owner(x), n, what, limit)}
}

func lowerDone(c *abi.Call, err error) {
	if err != nil {
		LowerError(c, err)
		return
	}
	c.Result().Case(abi.Ok)
}

// LowerError lowers the error of a result<…, error>. If the run is over, there is
// nobody to tell, and it panics.
func LowerError(c *abi.Call, err error) {
	if ctx := c.Context(); ctx.Err() != nil {
		// The run is over. Its guest could do nothing with an error but go on.
		panic(fmt.Errorf("call a context: %w", context.Cause(ctx)))
	}
	code, message := failure(err)
	if asked := engine.Asked(c.Context(), name); code == Violates && (asked == "0.1.0" || asked == "0.1.1") {
		code = Invalid // the guest knows no codes above IO
	}
	if len(message) > maxMessage {
		n := maxMessage
		for n > 0 && !utf8.RuneStart(message[n]) {
			n--
		}
		message = message[:n] + "…"
	}
	out := c.Result().Case(abi.Err)
	out.Field(0).Case(uint32(code))
	out.Field(1).String(message)
}

// lowerKind maps what is no kind to other: it may come from another host.
func lowerKind(k Kind) uint32 { return uint32(min(k, Other)) }

// state returns the contexts of the call that ctx belongs to.
func state(ctx context.Context) State {
	s, ok := engine.CallState(ctx).(State)
	if !ok {
		panic(errors.New("call circles:host/contexts: this run has no contexts; send the module as a script from one peer to another"))
	}
	return s
}
