// Package transport carries sealed bytes between peers. It never looks inside
// them: who signed what is envelope's business, on both ends.
//
// An implementation is a sibling package that offers a server, which feeds a
// Handler, and a client, which is a Sender. transporttest is the suite that
// each passes.
package transport

import (
	"context"
	"time"
)

// Handler answers one sealed script with a sealed receipt. back is the way back
// to the sender while the script runs, nil where the transport has none. An
// error that is an *Error crosses the wire as it is; any other becomes Internal
// without its text. It is called concurrently.
type Handler func(ctx context.Context, sealed []byte, back Back) ([]byte, error)

// By marks the context of a server: what a Handler gets from it came by the
// transport of that name, one word in lower case.
func By(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, byKey{}, name)
}

// Name is the transport that a script came by; Local if it came by none.
func Name(ctx context.Context) string {
	if name, ok := ctx.Value(byKey{}).(string); ok {
		return name
	}
	return Local
}

// Local is the name of no transport: the script was sent from within the process.
const Local = "local"

type byKey struct{}

// Back asks the other end of the connection that a script came by: a sealed
// question, a sealed answer. It is how a script reads its caller's context when
// that lives elsewhere. Safe for concurrent use; it fails when ctx ends or the
// connection does, never hangs.
type Back func(ctx context.Context, sealed []byte) ([]byte, error)

// Sender sends a sealed script to one host and returns the sealed receipt.
// answer, if not nil, is called for each question that comes back meanwhile.
type Sender interface {
	Send(ctx context.Context, sealed []byte, answer Back) ([]byte, error)
	Close() error
}

// Code says what kind of refusal an Error is. Codes are on the wire: append only.
type Code string

const (
	Malformed       Code = "malformed"       // not something that could be opened
	Unauthenticated Code = "unauthenticated" // signature, signer or key do not fit
	NotFound        Code = "not_found"       // the target is not here
	Expired         Code = "expired"         // outside its time
	TooLarge        Code = "too_large"
	Conflict        Code = "conflict"    // the nonce was used for other bytes
	Unavailable     Code = "unavailable" // overload or shutdown; try again
	Internal        Code = "internal"
	// Standstill: the script, and one that it would wait for, would wait for each other;
	// whoever sent it, and waits for it, gives up what others wait for and tries again.
	Standstill Code = "standstill"
)

// Error is an answer in place of a receipt: the sender could not be
// established, or the script never reached a host.
type Error struct {
	Code    Code
	Message string
	// RetryAfter, of Unavailable, is how long to wait before it is worth another try;
	// 0 where that is not known. Carried in whole seconds, rounded up.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Message }
