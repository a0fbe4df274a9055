package http2

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/transport/http2/deliverypb"
)

// Name is what scripts are said to come by; see transport.By.
const Name = "http"

// Config configures a Server. The zero value works, with a Handler.
type Config struct {
	// TLS makes the server speak TLS. It is required on any address but
	// loopback.
	TLS *tls.Config
	// MaxMessage bounds a sealed message. 0 means DefaultMaxMessage.
	MaxMessage int
	// MaxConcurrent bounds the scripts that are received and run at once; one
	// more is answered Unavailable at once, before its body is read. 0 means 64.
	MaxConcurrent int
	// MaxReceived bounds, in bytes, what is received and not yet done with, of
	// all scripts together; one that would go beyond it is answered Unavailable.
	// 0 means 256 MiB, but never less than one message.
	MaxReceived int64
	// MaxConnections bounds open connections; one more waits to be accepted.
	// 0 means 1,024.
	MaxConnections int
	// ReceiveTimeout bounds how long a script may take to arrive. 0 means 30 s.
	ReceiveTimeout time.Duration
	// SendTimeout bounds how long the other end may take to receive what is
	// written to it, a receipt or a question. 0 means 30 s.
	SendTimeout time.Duration
	// Drain bounds how long Serve lets running scripts finish. 0 means 30 s.
	Drain time.Duration
	// Host and Version are what Describe answers.
	Host, Version string
	// Problem, if set, is asked by the health endpoint; an error makes it 503. Its
	// text is in the answer on loopback only: with TLS, anybody may ask.
	Problem func() error
	// Log gets what the other end must not see. nil means slog.Default().
	Log *slog.Logger
}

// Server feeds a transport.Handler from HTTP.
type Server struct {
	config   Config
	handle   transport.Handler
	slots    chan struct{}
	received atomic.Int64 // bytes; see Config.MaxReceived
	draining atomic.Bool
	http     *http.Server
}

// NewServer returns a server that is not yet listening.
func NewServer(handle transport.Handler, c Config) *Server {
	if c.MaxMessage == 0 {
		c.MaxMessage = DefaultMaxMessage
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 64
	}
	if c.MaxReceived == 0 {
		c.MaxReceived = 256 << 20
	}
	c.MaxReceived = max(c.MaxReceived, 2*int64(c.MaxMessage))
	if c.MaxConnections == 0 {
		c.MaxConnections = 1024
	}
	if c.ReceiveTimeout == 0 {
		c.ReceiveTimeout = 30 * time.Second
	}
	if c.SendTimeout == 0 {
		c.SendTimeout = 30 * time.Second
	}
	if c.Drain == 0 {
		c.Drain = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	s := &Server{config: c, handle: handle, slots: make(chan struct{}, c.MaxConcurrent)}

	mux := http.NewServeMux()
	mux.Handle(deliverypb.NewDeliveryServiceHandler(delivery{s},
		// Base64 of JSON and the message's own framing come on top of what is sealed.
		connect.WithReadMaxBytes(c.MaxMessage+c.MaxMessage/2),
		connect.WithSendMaxBytes(c.MaxMessage+4096),
		// A compressed body would take a thousand times the memory that it is
		// counted for. Modules are sent rarely, and by name ever after.
		connect.WithCompression("gzip", nil, nil),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, r any) error {
			c.Log.Error("handler panicked", "procedure", spec.Procedure, "panic", r, "stack", string(debug.Stack()))
			return toWire(errors.New("panic"))
		}),
	))
	mux.HandleFunc("GET /healthz", s.health)

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(c.TLS != nil)
	protocols.SetUnencryptedHTTP2(c.TLS == nil)
	s.http = &http.Server{
		BaseContext:       func(net.Listener) context.Context { return transport.By(context.Background(), Name) },
		Handler:           s.admit(mux),
		Protocols:         protocols,
		TLSConfig:         c.TLS,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 250},
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Listen opens addr for Serve. Without TLS it refuses all but loopback.
func (s *Server) Listen(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w; want HOST:PORT, as in 127.0.0.1:7070", addr, err)
	}
	if s.config.TLS == nil && !loopback(host) {
		return nil, fmt.Errorf("listen on %q: plain HTTP is for loopback only; give a TLS certificate and key, or listen on 127.0.0.1", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// Serve answers on l until ctx ends, then lets what runs finish, for at most
// Config.Drain, and closes l. Meanwhile new scripts are answered Unavailable.
// It returns nil after an orderly end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	l = &limitListener{Listener: l, slots: make(chan struct{}, s.config.MaxConnections), closed: make(chan struct{})}
	failed := make(chan error, 1)
	go func() {
		if s.config.TLS != nil {
			failed <- s.http.ServeTLS(l, "", "")
		} else {
			failed <- s.http.Serve(l)
		}
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.Drain)
	defer cancel()
	shutdown := make(chan struct{})
	go func() { defer close(shutdown); _ = s.http.Shutdown(drain) }()
	// Every slot taken back is a script that has finished.
	for range cap(s.slots) {
		select {
		case s.slots <- struct{}{}:
		case <-drain.Done():
			s.http.Close()
			return fmt.Errorf("stop serving %s: scripts still ran after %v", l.Addr(), s.config.Drain)
		}
	}
	// Shutdown also waits for HTTP/2 connections that were just being set up when
	// it was called, and nobody tells those to go away. They carry nothing.
	select {
	case <-shutdown:
	case <-time.After(2 * time.Second):
	}
	s.http.Close()
	return nil
}

// admit is in front of everything that reads a body.
func (s *Server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		out := &outlet{ResponseWriter: w, control: control, timeout: s.config.SendTimeout}
		w = out
		defer out.end()
		if r.URL.Path == "/healthz" {
			next.ServeHTTP(w, r)
			return
		}
		refuse := func(why string) {
			if r.ProtoMajor == 1 {
				w.Header().Set("Connection", "close") // or the server would wait for the body
			}
			ew := connect.NewErrorWriter()
			_ = ew.Write(w, r, toWire(&transport.Error{Code: transport.Unavailable, Message: why}))
		}
		if s.draining.Load() {
			refuse("the host is shutting down; try again soon")
			return
		}
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		default:
			refuse("the host is running as many scripts as it can; try again in a second")
			return
		}
		// A body that trickles in must not hold its slot. The deadline is lifted
		// once the script is here: it may run longer than that, and a
		// conversation goes on reading.
		a := &arrival{body: r.Body, server: s, control: control, out: out}
		defer a.end()
		_ = a.control.SetReadDeadline(time.Now().Add(s.config.ReceiveTimeout))
		r = r.WithContext(context.WithValue(r.Context(), arrivalKey{}, a))
		r.Body = a
		next.ServeHTTP(w, r)
	})
}

// outlet is the way to the other end. HTTP/2 lets that one say how much it takes,
// so that whoever takes nothing, not even an error, would hold a slot, or as a
// script's caller the target's only transaction, for good: each write has a
// deadline, at which the stream is reset.
type outlet struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	// until, unless zero, is an earlier deadline for what is written next. It
	// belongs to who writes.
	until time.Time

	mu   sync.Mutex
	over bool // the request is done with, and nothing of it may be touched
}

func (o *outlet) Write(b []byte) (int, error) {
	o.arm()
	defer o.disarm()
	return o.ResponseWriter.Write(b)
}

// Flush implements http.Flusher, which Connect wants for streams.
func (o *outlet) Flush() {
	o.arm()
	defer o.disarm()
	_ = o.control.Flush()
}

func (o *outlet) arm() {
	deadline := time.Now().Add(o.timeout)
	if !o.until.IsZero() && o.until.Before(deadline) {
		deadline = o.until
	}
	_ = o.control.SetWriteDeadline(deadline)
}

// disarm is for after a write: HTTP/2 resets a stream at its deadline whether
// anything waits to be written or not.
func (o *outlet) disarm() { _ = o.control.SetWriteDeadline(time.Time{}) }

// cut resets the stream: whoever writes to it, now or later, gets an error. It
// may be called while somebody does.
func (o *outlet) cut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		_ = o.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// end is called when the handler is done. What it wrote last is flushed after
// that, and has a deadline too.
func (o *outlet) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over, o.until = true, time.Time{}
	o.arm()
}

// Unwrap is for http.ResponseController.
func (o *outlet) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// arrival is the body of a request, of which account is kept.
type arrival struct {
	body    io.ReadCloser
	server  *Server
	control *http.ResponseController
	out     *outlet

	mu     sync.Mutex // whoever listens for answers may outlive the request
	held   int64      // bytes
	script int64      // of these, the script's
	over   bool
}

type arrivalKey struct{}

var errFull = &transport.Error{Code: transport.Unavailable, Message: "the host is receiving as much as it can hold; try again in a second"}

func (a *arrival) Read(b []byte) (int, error) {
	n, err := a.body.Read(b)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return n, err
	}
	a.held += int64(n)
	if a.server.received.Add(int64(n)) > a.server.config.MaxReceived {
		return n, toWire(errFull)
	}
	return n, err
}

func (a *arrival) Close() error { return a.body.Close() }

// end gives back all that is held.
func (a *arrival) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server.received.Add(-a.held)
	a.held, a.over = 0, true
}

// received is called when the script is here: the time for that is over, and
// what was read so far is held until it is done.
func received(ctx context.Context) *arrival {
	a := ctx.Value(arrivalKey{}).(*arrival)
	_ = a.control.SetReadDeadline(time.Time{})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.script = a.held
	return a
}

// answered is called when an answer was handed on, which is not held.
func (a *arrival) answered() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.server.received.Add(a.script - a.held)
		a.held = a.script
	}
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	status, code, detail := "serving", http.StatusOK, ""
	if s.config.Problem != nil {
		if err := s.config.Problem(); err != nil {
			status, code = "degraded", http.StatusServiceUnavailable
			if s.config.TLS == nil {
				detail = err.Error() // names files, and shows lines of policies: for this machine only
			}
		}
	}
	if s.draining.Load() {
		status, code = "draining", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(struct {
		Status  string `json:"status"`
		Host    string `json:"host,omitempty"`
		Version string `json:"version,omitempty"`
		Detail  string `json:"detail,omitempty"`
	}{status, s.config.Host, s.config.Version, detail})
}

// deliver runs the handler, and keeps to ourselves what is nobody else's.
func (s *Server) deliver(ctx context.Context, sealed []byte, back transport.Back) ([]byte, error) {
	if len(sealed) > s.config.MaxMessage {
		return nil, toWire(&transport.Error{Code: transport.TooLarge,
			Message: fmt.Sprintf("a script of %d bytes; this host takes %d", len(sealed), s.config.MaxMessage)})
	}
	receipt, err := s.handle(ctx, sealed, back)
	if err != nil {
		var known *transport.Error
		if !errors.As(err, &known) || known.Code == transport.Internal {
			s.config.Log.Error("deliver script", "error", err)
		}
		return nil, toWire(err)
	}
	return receipt, nil
}

// delivery implements the service.
type delivery struct{ *Server }

func (d delivery) Deliver(ctx context.Context, req *deliverypb.DeliverRequest) (*deliverypb.DeliverResponse, error) {
	received(ctx)
	receipt, err := d.deliver(ctx, req.GetScript(), nil)
	if err != nil {
		return nil, err
	}
	return &deliverypb.DeliverResponse{Receipt: receipt}, nil
}

func (d delivery) Describe(context.Context, *deliverypb.DescribeRequest) (*deliverypb.DescribeResponse, error) {
	return &deliverypb.DescribeResponse{Host: d.config.Host, Version: d.config.Version}, nil
}

func (d delivery) Converse(ctx context.Context, stream *connect.BidiStream[deliverypb.ConverseRequest, deliverypb.ConverseResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	arrival := received(ctx)
	if _, ok := first.GetMessage().(*deliverypb.ConverseRequest_Script); !ok {
		return toWire(&transport.Error{Code: transport.Malformed, Message: "a conversation starts with a script"})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &conversation{stream: stream, arrival: arrival, waiting: map[uint64]chan reply{}, maxMessage: d.config.MaxMessage}
	go c.listen(cancel)
	receipt, err := d.deliver(ctx, first.GetScript(), c.ask)
	if err != nil {
		return err
	}
	return c.send(&deliverypb.ConverseResponse{Message: &deliverypb.ConverseResponse_Receipt{Receipt: receipt}}, time.Time{})
}
