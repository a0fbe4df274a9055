package http2_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/transport/http2"
)

// deafPeer speaks just enough HTTP/2 to send a request and then, by a flow
// control window of 0, to take not one byte of any answer.
type deafPeer struct {
	*testing.T
	conn net.Conn
	next uint32
}

func newDeafPeer(t *testing.T, url string) *deafPeer {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go io.Copy(io.Discard, conn)
	d := &deafPeer{T: t, conn: conn, next: 1}
	io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	d.frame(4, 0, 0, []byte{0, 4, 0, 0, 0, 0}) // SETTINGS_INITIAL_WINDOW_SIZE = 0
	return d
}

func (d *deafPeer) frame(kind, flags byte, stream uint32, payload []byte) {
	d.Helper()
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	b = append(binary.BigEndian.AppendUint32(b, stream), payload...)
	if _, err := d.conn.Write(b); err != nil {
		d.Fatal(err)
	}
}

// post sends a request; end closes its side.
func (d *deafPeer) post(path, contentType string, body []byte, end bool) {
	d.Helper()
	var h []byte
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "x"}, {":path", path}, {"content-type", contentType}} {
		h = append(h, 0, byte(len(f[0])))
		h = append(append(h, f[0]...), byte(len(f[1])))
		h = append(h, f[1]...)
	}
	d.frame(1, 4, d.next, h) // HEADERS, END_HEADERS
	flags := byte(0)
	if end {
		flags = 1
	}
	d.frame(0, flags, d.next, body)
	d.next += 2
}

// message is sealed bytes as the first message of a conversation, in Connect's
// framing.
func message(sealed string) []byte {
	m := append([]byte{0x0a, byte(len(sealed))}, sealed...)
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

const (
	converse = "/circles.delivery.v1.DeliveryService/Converse"
	deliver  = "/circles.delivery.v1.DeliveryService/Deliver"
)

// A question to a sender that reads nothing fails when the script's time is
// over: it holds the target's only writing transaction.
func TestQuestionToASenderThatReadsNothing(t *testing.T) {
	ended := make(chan error, 1)
	url, _ := start(t, func(ctx context.Context, _ []byte, back transport.Back) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		_, err := back(ctx, []byte("question"))
		ended <- err
		return nil, err
	}, http2.Config{Drain: time.Second})
	newDeafPeer(t, url).post(converse, "application/connect+proto", message("script"), false)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("got an answer")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the question hangs")
	}
}

// Who takes no answer must not keep a slot for good.
func TestAnswersThatNobodyTakesGiveTheirSlotBack(t *testing.T) {
	for _, tc := range []struct {
		name, path, kind string
		body             []byte
	}{
		{"conversation", converse, "application/connect+proto", message("script")},
		{"delivery", deliver, "application/proto", []byte("\x0a\x06script")},
		{"garbage", converse, "application/connect+proto", []byte("\x00\x00\x00\x00\x03abc")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url, _ := start(t, func(context.Context, []byte, transport.Back) ([]byte, error) {
				return make([]byte, 200<<10), nil
			}, http2.Config{MaxConcurrent: 2, SendTimeout: 300 * time.Millisecond, Drain: time.Second})
			deaf := newDeafPeer(t, url)
			for range 2 {
				deaf.post(tc.path, tc.kind, tc.body, tc.path == deliver)
			}
			time.Sleep(200 * time.Millisecond)
			client := dial(t, url, nil)
			var err error
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if _, err = client.Send(t.Context(), []byte("x"), nil); err == nil {
					return
				}
			}
			t.Errorf("a neighbour never gets through: %v", err)
		})
	}
}

// A bomb is not unpacked: what is counted of a body is what it takes.
func TestCompressedBodiesAreRefused(t *testing.T) {
	called := false
	url, _ := start(t, func(_ context.Context, b []byte, _ transport.Back) ([]byte, error) { called = true; return b, nil }, http2.Config{})
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte("\x0a\x06script"))
	z.Close()
	req, err := http.NewRequest("POST", url+deliver, &b)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/proto")
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if called || resp.StatusCode == http.StatusOK {
		t.Errorf("status %s, handled: %v", resp.Status, called)
	}
}
