package host

import (
	"context"
	"fmt"
	"time"

	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/turns"
)

// enter opens the context of a script, and takes a place for it there and on the
// host: both have only so many, and no caller gets all of them. Who gets none is
// turned away at once, before anything is decided about the script, and told when to
// come again; what is called in the end gives back what was taken.
func (cs *openContexts) enter(ctx context.Context, s *script.Script) (*peerContext, func(), error) {
	if isInside(ctx) {
		return cs.open(ctx, s.Target)
	}
	here, retry, ok := cs.host.places.Take(string(s.Caller))
	if !ok {
		return nil, nil, full("this host runs", retry)
	}
	c, release, err := cs.open(ctx, s.Target)
	if err != nil {
		here.Leave()
		return nil, nil, err
	}
	there, retry, ok := c.places.Take(string(s.Caller))
	if !ok {
		release()
		here.Leave()
		return nil, nil, full("this peer's context takes", retry)
	}
	return c, func() { there.Leave(); release(); here.Leave() }, nil
}

func full(who string, retry time.Duration) error {
	return &transport.Error{
		Code:       transport.Unavailable,
		Message:    fmt.Sprintf("%s as many scripts at once as it may, of all callers or of this one; send it again in %v", who, retry.Round(100*time.Millisecond)),
		RetryAfter: retry,
	}
}

// share waits for the memory that a may take, no longer than a's own deadline: what
// comes after it would be for nothing. For a script that others wait for it does not
// wait long: who has the memory may wait for what those hold.
func (h *Host) share(ctx context.Context, a *policy.Accepted) (*turns.Turn, error) {
	ctx, cancel := h.deadline(ctx, a)
	defer cancel()
	level := len(a.Script().Within.Contexts)
	if level == 0 {
		return h.turns.Enter(ctx, string(a.Script().Caller), 0, h.limits(a).Memory)
	}
	shortly, cancel := context.WithTimeout(ctx, nestedShare)
	defer cancel()
	turn, err := h.turns.Enter(shortly, string(a.Script().Caller), level, h.limits(a).Memory)
	if err != nil && shortly.Err() != nil && ctx.Err() == nil {
		return nil, &transport.Error{Code: transport.Standstill, Message: "this host has no memory for it while others wait for it; send it again"}
	}
	return turn, err
}

// nestedShare is how long a script that others wait for waits for memory.
const nestedShare = 200 * time.Millisecond
