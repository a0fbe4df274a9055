package natsobj

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const greeting = `INFO {"server_id":"x","version":"2.11.0","proto":1,"headers":true,"max_payload":1048576}` + "\r\n"

// TestHostileServer: what no server should send ends the connection, and neither
// the host nor its memory.
func TestHostileServer(t *testing.T) {
	for name, evil := range map[string]string{
		"MessageOfEveryByte":  "MSG a 1 9223372036854775807\r\n",
		"MessageOfPetabytes":  "MSG a 1 1000000000000000\r\nx",
		"MessageBeyondInt":    "MSG a 1 18446744073709551617\r\n",
		"MessageNegative":     "MSG a 1 -1\r\n",
		"HeadersBeyond":       "HMSG a 1 10 5\r\n",
		"HeadersNegative":     "HMSG a 1 -1 5\r\n",
		"NoSize":              "MSG a\r\n",
		"TooManyArguments":    "MSG a 1 b c d 5\r\n",
		"LongerThanItSays":    "MSG a 1 1\r\nxxx\r\n",
		"LineWithoutEnd":      "-ERR " + strings.Repeat("x", maxLine+1),
		"InfoWithoutEnd":      "INFO " + strings.Repeat("x", 64<<20),
		"SmuggledByReturn":    "PING\rMSG a 1 99999999999\r\n",
		"SmuggledByTab":       "MSG\ta 1 99999999999\r\n",
		"SmuggledByOK":        "+OKMSG a 1 99999999999\r\n",
		"SmuggledInLowerCase": "msg a 1 99999999999\r\n",
		"NotTheProtocol":      "HTTP/1.1 200 OK\r\n",
		"Empty":               "\r\n",
		"InfoGarbage":         "INFO {{{{\r\n",
		"PingFlood":           strings.Repeat("PING\r\n", 100_000),
		"ErrorFlood":          strings.Repeat("-ERR 'Permissions Violation for Publish to \"x\"'\r\n", 100_000),
		"MessageFlood":        strings.Repeat("MSG _INBOX.x 1 3\r\nabc\r\n", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := io.ReadAll(guard(stream{Reader: strings.NewReader(greeting + evil)}))
			if flood := strings.HasSuffix(name, "Flood") || name == "InfoGarbage"; (err == nil) != flood {
				t.Errorf("the guard says %v", err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						go io.Copy(io.Discard, c)
						io.WriteString(c, greeting+"PONG\r\n"+evil)
						time.Sleep(time.Second)
					}()
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begin := time.Now()
			r, err := Dial(ctx, Config{Servers: []string{"nats://" + l.Addr().String()}, Bucket: "b"})
			if err == nil {
				r.Close()
				t.Error("it opens")
			}
			if time.Since(begin) > 20*time.Second {
				t.Errorf("it took %v", time.Since(begin))
			}
		})
	}
	t.Cleanup(func() {
		runtime.GC() // what is kept counts, not what nobody has collected yet
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.HeapAlloc > 256<<20 {
			t.Errorf("the heap has %d bytes", m.HeapAlloc)
		}
	})
}

// stream is a connection that gives what there is.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }
func (stream) Close() error                 { return nil }

// TestGuardLetsThrough: what a server says comes out as it went in, however it is
// cut into pieces.
func TestGuardLetsThrough(t *testing.T) {
	said := greeting + "PING\r\n+OK\r\nMSG a.b 1 0\r\n\r\nMSG a.b 1 reply 5\r\n\r\nMSG\r\nHMSG a 1 12 14\r\nNATS/1.0\r\n\r\nok\r\n-ERR 'Stale Connection'\r\nPONG\r\n" +
		fmt.Sprintf("MSG big 1 %d\r\n%s\r\nPING\r\n", 1<<20, strings.Repeat("\n", 1<<20))
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(said), "bytes": iotest.OneByteReader(strings.NewReader(said)), "halves": iotest.HalfReader(strings.NewReader(said)),
	} {
		got, err := io.ReadAll(guard(stream{Reader: r}))
		if err != nil || string(got) != said {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(said), err)
		}
	}
}

// FuzzGuard: however a stream is cut, the guard says the same of it; and what it
// lets through says no size that it should not, where the client looks for one.
func FuzzGuard(f *testing.F) {
	f.Add([]byte(greeting+"MSG a 1 5\r\nhello\r\nPING\r\n"), uint64(1))
	f.Add([]byte(greeting+"HMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nok\r\n"), uint64(2))
	f.Fuzz(func(t *testing.T, said []byte, seed uint64) {
		whole, errWhole := io.ReadAll(guard(stream{Reader: bytes.NewReader(said)}))
		rnd := rand.New(rand.NewPCG(seed, 0))
		g := guard(stream{Reader: bytes.NewReader(said)})
		var parts []byte
		var errParts error
		for errParts == nil {
			p := make([]byte, 1+rnd.IntN(20))
			var n int
			n, errParts = g.Read(p)
			parts = append(parts, p[:n]...)
		}
		if (errParts == io.EOF) != (errWhole == nil) {
			t.Fatalf("whole: %v; in parts: %v", errWhole, errParts)
		}
		if errWhole == nil && (!bytes.Equal(whole, said) || !bytes.Equal(parts, said)) {
			t.Fatal("what was let through is not what was said")
		}
		if g.skip > maxMessage || len(g.line) > maxLine {
			t.Fatalf("a message of %d bytes, a line of %d", g.skip, len(g.line))
		}
	})
}
