package http2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/transport/http2/deliverypb"
)

// conversation is the host's end of one Converse stream: questions go out,
// numbered; answers come in, in any order.
type conversation struct {
	stream     *connect.BidiStream[deliverypb.ConverseRequest, deliverypb.ConverseResponse]
	arrival    *arrival
	maxMessage int

	sending sync.Mutex // a stream takes one Send at a time

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan reply
	ended   error // set once no answer can come any more
}

type reply struct {
	sealed []byte
	err    error
}

var errConversationOver = errors.New("the sender closed the conversation")

func (c *conversation) ask(ctx context.Context, sealed []byte) ([]byte, error) {
	answered := make(chan reply, 1)
	c.mu.Lock()
	if c.ended != nil {
		c.mu.Unlock()
		return nil, unreachable(c.ended)
	}
	c.next++
	number := c.next
	c.waiting[number] = answered
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, number)
		c.mu.Unlock()
	}()

	q := &deliverypb.ConverseResponse{Message: &deliverypb.ConverseResponse_Question{
		Question: &deliverypb.Question{Number: number, Sealed: sealed}}}
	if err := c.question(ctx, q); err != nil {
		return nil, unreachable(err)
	}
	select {
	case r := <-answered:
		return r.sealed, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// question sends q before ctx ends, or ends the conversation: its sender reads
// nothing, and would not learn anything else either.
func (c *conversation) question(ctx context.Context, q *deliverypb.ConverseResponse) error {
	until, _ := ctx.Deadline()
	defer context.AfterFunc(ctx, func() {
		// The deadline is seen to by the write itself, and does no harm to one
		// that has just been done with.
		if errors.Is(ctx.Err(), context.Canceled) {
			c.arrival.out.cut()
		}
	})()
	return c.send(q, until)
}

// send sends m until then; zero leaves it at the server's own bound.
func (c *conversation) send(m *deliverypb.ConverseResponse, until time.Time) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.arrival.out.until = until
	return c.stream.Send(m)
}

// listen hands out answers until the stream ends, then fails every question
// that still waits. A sender that breaks the protocol ends the conversation,
// and with it the script's context.
func (c *conversation) listen(cancel context.CancelCauseFunc) {
	for {
		m, err := c.stream.Receive()
		if err != nil {
			c.end(errConversationOver)
			return
		}
		a := m.GetAnswer()
		if a == nil || len(a.GetSealed()) > c.maxMessage {
			err := errors.New("the sender broke the conversation's protocol")
			c.end(err)
			cancel(err)
			return
		}
		c.arrival.answered()
		c.mu.Lock()
		// An answer to nothing is dropped: the question may have timed out.
		if answered, ok := c.waiting[a.GetNumber()]; ok {
			delete(c.waiting, a.GetNumber())
			r := reply{sealed: a.GetSealed()}
			if a.GetError() != "" {
				r = reply{err: unreachable(errors.New(a.GetError()))}
			}
			answered <- r // buffered, and only ever sent to here
		}
		c.mu.Unlock()
	}
}

func (c *conversation) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = why
	for number, answered := range c.waiting {
		delete(c.waiting, number)
		answered <- reply{err: unreachable(why)}
	}
}

func unreachable(err error) error {
	return &transport.Error{Code: transport.Unavailable, Message: fmt.Sprintf("ask the sender: %v", err)}
}

// limitListener accepts no more than cap(slots) connections at once. It waits
// before Accept, so that what is over the bound stays in the kernel's queue.
type limitListener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitConn struct {
	net.Conn
	release func()
}

func (c *limitConn) Close() error {
	c.release()
	return c.Conn.Close()
}
