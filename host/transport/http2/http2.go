// Package http2 carries sealed bytes over HTTP, by the Connect protocol
// (https://connectrpc.com/docs/protocol): JSON over HTTP/1.1 for curl, and
// Connect, gRPC or gRPC-Web over HTTP/2 for services, all on one port. A script
// that reads its caller's context while it runs does so over the bidirectional
// stream it came by, which needs HTTP/2.
//
// Plain text is for loopback only, on both ends: Listen refuses to serve it on
// another address, Dial to send to one. Everywhere else it is TLS 1.3.
//
//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate
package http2

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/circles-host/circles/host/transport"
)

// DefaultMaxMessage bounds one sealed message, in bytes.
const DefaultMaxMessage = 32 << 20

// The transport's codes on the wire. It is a bijection, so that each code that
// a handler answers with is the code that the other end sees.
var codes = map[transport.Code]connect.Code{
	transport.Malformed:       connect.CodeInvalidArgument,
	transport.Unauthenticated: connect.CodeUnauthenticated,
	transport.NotFound:        connect.CodeNotFound,
	transport.Expired:         connect.CodeFailedPrecondition,
	transport.TooLarge:        connect.CodeResourceExhausted,
	transport.Conflict:        connect.CodeAlreadyExists,
	transport.Unavailable:     connect.CodeUnavailable,
	transport.Internal:        connect.CodeInternal,
	transport.Standstill:      connect.CodeAborted,
}

// toWire hides every error that is not a *transport.Error: its text is for
// the host's own log, not for whoever sent the bytes.
func toWire(err error) error {
	var e *transport.Error
	if !errors.As(err, &e) {
		return connect.NewError(connect.CodeInternal, errors.New("the host failed; its operator's log says why"))
	}
	wire := connect.NewError(codes[e.Code], errors.New(e.Message))
	if e.Code == transport.Unavailable {
		seconds := max(1, int64((e.RetryAfter+time.Second-1)/time.Second))
		wire.Meta().Set(retryAfter, strconv.FormatInt(seconds, 10))
	}
	return wire
}

// retryAfter is in seconds here; RFC 9110, section 10.2.3.
const retryAfter = "Retry-After"

// maxRetryAfter is the longest that a client believes it was told to wait.
const maxRetryAfter = time.Hour

func retryOf(e *connect.Error) time.Duration {
	seconds, err := strconv.ParseUint(e.Meta().Get(retryAfter), 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

// fromWire makes of a client's error what the other end's handler answered, or
// Unavailable where it was never reached.
func fromWire(url string, err error) error {
	var e *connect.Error
	if !errors.As(err, &e) {
		return &transport.Error{Code: transport.Unavailable, Message: fmt.Sprintf("reach %s: %v", url, err)}
	}
	if !connect.IsWireError(err) {
		switch e.Code() {
		case connect.CodeResourceExhausted: // larger than our own bound
			return &transport.Error{Code: transport.TooLarge, Message: e.Message()}
		case connect.CodeCanceled, connect.CodeDeadlineExceeded:
			return fmt.Errorf("send to %s: %w", url, err)
		}
		return &transport.Error{Code: transport.Unavailable, Message: fmt.Sprintf("reach %s: %s", url, e.Message())}
	}
	for code, wire := range codes {
		if wire == e.Code() {
			back := &transport.Error{Code: code, Message: e.Message()}
			if code == transport.Unavailable {
				back.RetryAfter = retryOf(e)
			}
			return back
		}
	}
	return &transport.Error{Code: transport.Internal, Message: fmt.Sprintf("%s answered %v: %s", url, e.Code(), e.Message())}
}

// loopback reports whether only this machine can connect to host.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
