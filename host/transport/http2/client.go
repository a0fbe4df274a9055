package http2

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/transport/http2/deliverypb"
)

// Client is a transport.Sender to one host. It is safe for concurrent use and
// keeps one HTTP/2 connection.
type Client struct {
	url     string
	http    *http.Transport
	service deliverypb.DeliveryServiceClient
}

var _ transport.Sender = (*Client)(nil)

// Dial prepares a client for the host at base, "https://host:port" or, on
// loopback, "http://127.0.0.1:port". It does not connect yet. config may be nil.
func Dial(base string, config *tls.Config) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("host URL %q: want https://HOST:PORT, or http://127.0.0.1:PORT on this machine", base)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("host URL %q: plain http is for loopback only; use https://%s", base, u.Host)
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS13}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(u.Scheme == "https")
	protocols.SetUnencryptedHTTP2(u.Scheme == "http")
	t := &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: config,
		IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{
			// A host that vanished is noticed by its silence.
			SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second,
		},
	}
	base = strings.TrimSuffix(base, "/")
	return &Client{
		url:  base,
		http: t,
		service: deliverypb.NewDeliveryServiceClient(
			&http.Client{Transport: t, CheckRedirect: noRedirect}, base,
			// What comes back is a receipt or a question: neither is larger.
			connect.WithReadMaxBytes(DefaultMaxMessage+4096)),
	}, nil
}

// A redirect could send a script, which is addressed to one peer, to a host
// that its sender never named.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Describe asks the host for its identity and version. Nothing in the answer is
// signed: over plain HTTP it is a hint, over TLS the certificate's word.
func (c *Client) Describe(ctx context.Context) (host, version string, err error) {
	d, err := c.service.Describe(ctx, &deliverypb.DescribeRequest{})
	if err != nil {
		return "", "", fromWire(c.url, err)
	}
	return d.GetHost(), d.GetVersion(), nil
}

// Send implements transport.Sender.
func (c *Client) Send(ctx context.Context, sealed []byte, answer transport.Back) ([]byte, error) {
	if answer == nil {
		r, err := c.service.Deliver(ctx, &deliverypb.DeliverRequest{Script: sealed})
		if err != nil {
			return nil, fromWire(c.url, err)
		}
		return r.GetReceipt(), nil
	}
	receipt, err := c.converse(ctx, sealed, answer)
	if err != nil {
		return nil, fromWire(c.url, err)
	}
	return receipt, nil
}

func (c *Client) converse(ctx context.Context, sealed []byte, answer transport.Back) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // also ends the stream
	stream, err := c.service.Converse(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&deliverypb.ConverseRequest{Message: &deliverypb.ConverseRequest_Script{Script: sealed}})
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	// EOF: the host answered before it had read all. Receive has the reason.
	for {
		m, err := stream.Receive()
		if err != nil {
			return nil, err
		}
		switch m := m.GetMessage().(type) {
		case *deliverypb.ConverseResponse_Receipt:
			return m.Receipt, nil
		case *deliverypb.ConverseResponse_Question:
			// One at a time: a script asks from one goroutine, and a host that
			// asks more at once makes only itself wait.
			a := &deliverypb.Answer{Number: m.Question.GetNumber()}
			if a.Sealed, err = answer(ctx, m.Question.GetSealed()); err != nil {
				a.Sealed, a.Error = nil, err.Error()
			}
			err := stream.Send(&deliverypb.ConverseRequest{Message: &deliverypb.ConverseRequest_Answer{Answer: a}})
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			// EOF: the host did not wait for this answer. Receive has what it said instead.
		default:
			return nil, errors.New("the host sent neither a question nor a receipt")
		}
	}
}

// Close closes the connection. Sends that are under way fail.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}
