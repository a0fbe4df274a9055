package http2_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/transport/http2"
	"github.com/circles-host/circles/host/transport/transporttest"
)

const maxMessage = 256 << 10

func start(t *testing.T, handle transport.Handler, c http2.Config) (url string, stop func() error) {
	t.Helper()
	c.MaxMessage = maxMessage
	c.Log = slog.New(slog.DiscardHandler)
	s := http2.NewServer(handle, c)
	l, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { err = s.Serve(ctx, l); close(done) }()
	stop = func() error { cancel(); <-done; return err }
	t.Cleanup(func() { stop() })
	scheme := "http"
	if c.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + l.Addr().String(), stop
}

func dial(t *testing.T, url string, config *tls.Config) *http2.Client {
	t.Helper()
	c, err := http2.Dial(url, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestTransport(t *testing.T) {
	transporttest.Run(t, func(t *testing.T, handle transport.Handler) transporttest.Rig {
		url, stop := start(t, handle, http2.Config{})
		return transporttest.Rig{Sender: dial(t, url, nil), Stop: stop, MaxMessage: maxMessage}
	})
}

func TestTransportOverTLS(t *testing.T) {
	// httptest makes a certificate for 127.0.0.1; nothing of its server is used.
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	cert, leaf := ts.TLS.Certificates[0], ts.Certificate()
	ts.Close()
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	transporttest.Run(t, func(t *testing.T, handle transport.Handler) transporttest.Rig {
		url, stop := start(t, handle, http2.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}})
		return transporttest.Rig{Sender: dial(t, url, &tls.Config{RootCAs: roots}), Stop: stop, MaxMessage: maxMessage}
	})
	t.Run("an unknown certificate is refused", func(t *testing.T) {
		url, _ := start(t, echo, http2.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
		_, err := dial(t, url, nil).Send(t.Context(), []byte("x"), nil)
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Fatalf("sent to a host nobody vouches for: %v", err)
		}
	})
}

func echo(_ context.Context, sealed []byte, _ transport.Back) ([]byte, error) { return sealed, nil }

// What the documentation tells curl users to do: HTTP/1.1 and JSON.
func TestJSONOverHTTP1(t *testing.T) {
	url, _ := start(t, func(_ context.Context, sealed []byte, _ transport.Back) ([]byte, error) {
		if string(sealed) == "bad" {
			return nil, &transport.Error{Code: transport.NotFound, Message: "no such peer"}
		}
		return append([]byte("re:"), sealed...), nil
	}, http2.Config{Host: "did:key:z6MkTest", Version: "v0"})
	post := func(procedure, body string) (int, map[string]any) {
		resp, err := http.Post(url+"/circles.delivery.v1.DeliveryService/"+procedure, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var m map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
			t.Fatal(err)
		}
		if resp.ProtoMajor != 1 {
			t.Errorf("answered by %s", resp.Proto)
		}
		return resp.StatusCode, m
	}
	script := func(s string) string {
		return fmt.Sprintf(`{"script":%q}`, base64.StdEncoding.EncodeToString([]byte(s)))
	}
	status, m := post("Deliver", script("hello"))
	if want := base64.StdEncoding.EncodeToString([]byte("re:hello")); status != 200 || m["receipt"] != want {
		t.Errorf("deliver: %d %v, want receipt %s", status, m, want)
	}
	if status, m := post("Deliver", script("bad")); status != 404 || m["code"] != "not_found" || m["message"] != "no such peer" {
		t.Errorf("refusal: %d %v", status, m)
	}
	if status, m := post("Deliver", `{"script": 7`); status != 400 || m["code"] != "invalid_argument" {
		t.Errorf("broken JSON: %d %v", status, m)
	}
	if status, m := post("Describe", "{}"); status != 200 || m["host"] != "did:key:z6MkTest" || m["version"] != "v0" {
		t.Errorf("describe: %d %v", status, m)
	}
	host, version, err := dial(t, url, nil).Describe(t.Context())
	if host != "did:key:z6MkTest" || version != "v0" || err != nil {
		t.Errorf("describe over HTTP/2: %q %q %v", host, version, err)
	}
}

func TestHealth(t *testing.T) {
	var problem error
	url, _ := start(t, echo, http2.Config{Problem: func() error { return problem }})
	get := func() (int, string) {
		resp, err := http.Get(url + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, body := get(); code != 200 || !strings.Contains(body, `"serving"`) {
		t.Errorf("healthy: %d %s", code, body)
	}
	problem = errors.New("policy of bob does not parse")
	if code, body := get(); code != 503 || !strings.Contains(body, "policy of bob") {
		t.Errorf("with a problem: %d %s", code, body)
	}
}

// With TLS anybody may ask after a host's health, and gets no line of a policy.
func TestHealthTellsStrangersNoMore(t *testing.T) {
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	cert, client := ts.TLS.Certificates[0], ts.Client()
	ts.Close()
	url, _ := start(t, echo, http2.Config{
		TLS:     &tls.Config{Certificates: []tls.Certificate{cert}},
		Problem: func() error { return errors.New("/home/bob/policy/p.cedar:3: secret") },
	})
	resp, err := client.Get(url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 503 || bytes.Contains(b, []byte("bob")) || !bytes.Contains(b, []byte("degraded")) {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}

// Past MaxConcurrent the answer comes at once, and before the body was read.
func TestFloodIsRefusedEarly(t *testing.T) {
	entered, release := make(chan struct{}, 8), make(chan struct{})
	url, _ := start(t, func(context.Context, []byte, transport.Back) ([]byte, error) {
		entered <- struct{}{}
		<-release
		return nil, nil
	}, http2.Config{MaxConcurrent: 2})
	defer close(release)
	for range 2 {
		go dial(t, url, nil).Send(context.Background(), []byte("x"), nil)
	}
	<-entered
	<-entered
	body, feed := io.Pipe() // never sent to the end
	defer feed.Close()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", url+"/circles.delivery.v1.DeliveryService/Deliver", body)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
}

// Large scripts from many senders at once must not add up to the host's memory.
func TestWhatIsReceivedIsBounded(t *testing.T) {
	entered, release := make(chan struct{}, 32), make(chan struct{})
	url, _ := start(t, func(_ context.Context, sealed []byte, _ transport.Back) ([]byte, error) {
		entered <- struct{}{}
		if len(sealed) > 1000 {
			<-release
		}
		return nil, nil
	}, http2.Config{MaxReceived: 2 * maxMessage})
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := dial(t, url, nil).Send(context.Background(), make([]byte, maxMessage-1000), nil)
			done <- err
		}()
	}
	<-entered
	<-entered
	_, err := dial(t, url, nil).Send(t.Context(), make([]byte, 10_000), nil)
	var e *transport.Error
	if !errors.As(err, &e) || e.Code != transport.Unavailable {
		t.Errorf("beyond the bound: %v", err)
	}
	if _, err := dial(t, url, nil).Send(t.Context(), make([]byte, 100), nil); err != nil {
		t.Errorf("a small one, within it: %v", err)
	}
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for range 8 { // what was given back can be used again, and again
		if _, err := dial(t, url, nil).Send(t.Context(), make([]byte, maxMessage-1000), nil); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// A body that trickles in must not keep its place for ever.
func TestSlowBodyLosesItsPlace(t *testing.T) {
	url, _ := start(t, echo, http2.Config{MaxConcurrent: 1, ReceiveTimeout: 200 * time.Millisecond})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /circles.delivery.v1.DeliveryService/Deliver HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: 1000\r\n\r\nslow")
	var last error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, last = dial(t, url, nil).Send(t.Context(), []byte("x"), nil); last == nil {
			return
		}
	}
	t.Fatalf("the only place was never given back: %v", last)
}

// A script may run for longer than it may take to arrive.
func TestReceiveTimeoutEndsWithTheScript(t *testing.T) {
	url, _ := start(t, func(ctx context.Context, sealed []byte, back transport.Back) ([]byte, error) {
		time.Sleep(300 * time.Millisecond)
		if back != nil {
			return back(ctx, sealed)
		}
		return sealed, ctx.Err()
	}, http2.Config{ReceiveTimeout: 100 * time.Millisecond})
	for _, answer := range []transport.Back{nil, func(_ context.Context, q []byte) ([]byte, error) { return q, nil }} {
		got, err := dial(t, url, nil).Send(t.Context(), []byte("x"), answer)
		if err != nil || !bytes.Equal(got, []byte("x")) {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestPlainTextIsForLoopback(t *testing.T) {
	s := http2.NewServer(echo, http2.Config{})
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0"} {
		if l, err := s.Listen(addr); err == nil || !strings.Contains(err.Error(), "loopback") {
			if l != nil {
				l.Close()
			}
			t.Errorf("listen %s in plain text: %v", addr, err)
		}
	}
	for _, url := range []string{"http://192.0.2.1:80", "http://example.com", "ftp://127.0.0.1", "127.0.0.1:80", "http://", "http://127.0.0.1.example.com"} {
		if _, err := http2.Dial(url, nil); err == nil {
			t.Errorf("dialled %s", url)
		}
	}
}

// A redirect must not carry a script to a host its sender did not name.
func TestRedirectIsNotFollowed(t *testing.T) {
	reached := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer other.Close()
	s := httptest.NewUnstartedServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	if _, err := dial(t, s.URL, nil).Send(t.Context(), []byte("secret"), nil); err == nil || reached {
		t.Errorf("redirect: error %v, reached the other host: %v", err, reached)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close()
	_, err = dial(t, url, nil).Send(t.Context(), []byte("x"), nil)
	var e *transport.Error
	if !errors.As(err, &e) || e.Code != transport.Unavailable || !strings.Contains(e.Message, url) {
		t.Errorf("got %v", err)
	}
}
