package s3_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
	"github.com/circles-host/circles/host/store/s3"
	"github.com/circles-host/circles/host/store/s3/s3test"
)

// between is a proxy in front of a server. To hit, which may be nil, each request is
// shown with its body, and what the server would be asked; it answers itself, or
// returns false.
func between(t *testing.T, c s3.Config, hit func(w http.ResponseWriter, r *http.Request, ask func(body []byte) *answer, body []byte) bool) s3.Config {
	t.Helper()
	target, err := url.Parse(c.Endpoint)
	must(t, err)
	client := &http.Transport{MaxIdleConnsPerHost: 50, DisableCompression: true}
	t.Cleanup(client.CloseIdleConnections)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		ask := func(body []byte) *answer {
			out := r.Clone(context.WithoutCancel(r.Context()))
			out.URL.Scheme, out.URL.Host = target.Scheme, target.Host // Host stays what was signed
			out.RequestURI, out.Body, out.ContentLength = "", io.NopCloser(bytes.NewReader(body)), int64(len(body))
			if len(body) == 0 {
				out.Body = http.NoBody
			}
			resp, err := client.RoundTrip(out)
			if err != nil {
				return &answer{status: http.StatusBadGateway}
			}
			defer resp.Body.Close()
			got, _ := io.ReadAll(resp.Body)
			return &answer{resp.StatusCode, resp.Header, got, resp.ContentLength}
		}
		if hit == nil || !hit(w, r, ask, body) {
			ask(body).give(w, r)
		}
	}))
	t.Cleanup(proxy.Close)
	c.Endpoint = proxy.URL
	return c
}

type answer struct {
	status int
	header http.Header
	body   []byte
	length int64 // as the server said: of an answer to HEAD, too
}

func (a *answer) give(w http.ResponseWriter, r *http.Request) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	if r.Method == http.MethodHead && a.length >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(a.length, 10))
	}
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// slam ends a connection without an answer.
func slam(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		conn.Close()
	}
}

func slowDown(w http.ResponseWriter) {
	w.WriteHeader(http.StatusServiceUnavailable)
	io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>injected: please reduce your request rate</Message></Error>`)
}

// TestWorkersLoseNothingOnABadNetwork: workers behind a proxy that loses requests and
// answers, is slow, says that it is busy, cuts answers, and changes bytes in both.
func TestWorkersLoseNothingOnABadNetwork(t *testing.T) {
	t.Parallel()
	const workers, rounds = 4, 16
	direct := on(s3test.Start(t))
	var injected [8]atomic.Int64
	var stores []*cas.Store
	for range workers {
		c := between(t, direct, func(w http.ResponseWriter, r *http.Request, ask func([]byte) *answer, body []byte) bool {
			fault := mathrand.IntN(80)
			if fault >= len(injected) {
				return false
			}
			injected[fault].Add(1)
			switch fault {
			case 0: // lost on the way there
				slam(w)
			case 1: // lost on the way back
				ask(body)
				slam(w)
			case 2: // carried out when the client has given up
				time.AfterFunc(time.Duration(mathrand.IntN(30))*time.Millisecond, func() { ask(body) })
				slam(w)
			case 3:
				slowDown(w)
			case 4:
				w.WriteHeader(http.StatusInternalServerError)
			case 5: // cut
				a := ask(body)
				w.Header().Set("Content-Length", strconv.Itoa(len(a.body)+1))
				w.WriteHeader(a.status)
				w.Write(a.body)
			case 6: // a bit that tips over on the way there
				if len(body) > 0 {
					body[mathrand.IntN(len(body))] ^= 1 << mathrand.IntN(8)
				}
				ask(body).give(w, r)
			case 7: // or back
				a := ask(body)
				if len(a.body) > 0 {
					a.body[mathrand.IntN(len(a.body))] ^= 1 << mathrand.IntN(8)
				}
				a.give(w, r)
			}
			return true
		})
		c.Store = cas.Config{SettleTime: 2 * time.Second, RetryAfter: time.Millisecond}
		s, err := s3.Open(context.Background(), c)
		for err != nil {
			s, err = s3.Open(context.Background(), c)
		}
		t.Cleanup(func() { s.Close() })
		stores = append(stores, s)
	}
	castest.Hammer(t, stores, rounds)
	for fault := range injected {
		if injected[fault].Load() == 0 {
			t.Errorf("fault %d was never injected", fault)
		}
	}
	time.Sleep(50 * time.Millisecond) // for the last of the late ones
	castest.Hammered(t, open(t, direct), workers, rounds)
}

// TestUnheardCommit: the answer to the one request that commits is lost, after it was
// carried out, before, or while the outcome cannot be asked for either.
func TestUnheardCommit(t *testing.T) {
	t.Parallel()
	direct := on(s3test.Start(t))
	var mode atomic.Value
	mode.Store("")
	isSwap := func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/root")
	}
	c := between(t, direct, func(w http.ResponseWriter, r *http.Request, ask func([]byte) *answer, body []byte) bool {
		switch m := mode.Load().(string); {
		case m == "after" && isSwap(r):
			mode.Store("")
			ask(body)
		case m == "before" && isSwap(r):
			mode.Store("")
		case m == "down after" && isSwap(r):
			ask(body)
			mode.Store("down")
		case m == "down before" && isSwap(r):
			mode.Store("down")
		case m == "down":
		default:
			return false
		}
		slam(w)
		return true
	})
	// Who is answered in the end is patient, however busy the machine is; who never
	// is gives up soon.
	c.Store = cas.Config{RetryAfter: time.Millisecond}
	s := open(t, c)
	commit := func(n byte) error {
		return s.Update(context.Background(), func(tx store.Tx) error {
			f, err := tx.Files(nil).Open("f", store.FlagWrite|store.FlagCreate|store.FlagAppend)
			if err != nil {
				return err
			}
			if _, err := f.WriteAt([]byte{'0' + n}, 0); err != nil {
				return err
			}
			return tx.Append(store.Key{n}, nil)
		})
	}
	must(t, commit(1))
	for n, m := range map[byte]string{2: "after", 3: "before"} {
		mode.Store(m)
		if err := commit(n); err != nil {
			t.Errorf("answer lost %s it was carried out: %v", m, err)
		}
	}
	c.Store.SettleTime = 200 * time.Millisecond
	s = open(t, c)
	for n, m := range map[byte]string{4: "down after", 5: "down before"} {
		mode.Store(m)
		if err := commit(n); !errors.Is(err, store.ErrUnknown) {
			t.Errorf("%s: %v, want that it is unknown", m, err)
		}
		if err := commit(9); err == nil || errors.Is(err, store.ErrUnknown) {
			t.Errorf("%s: the next one: %v", m, err)
		}
		mode.Store("")
		// Whoever wants to know asks with the same key.
		err := s.View(context.Background(), func(tx store.Tx) error { return tx.Append(store.Key{n}, []byte("failed")) })
		if was := m == "down after"; was != errors.Is(err, store.ErrExists) || !was && err != nil {
			t.Errorf("%s: asked again: %v", m, err)
		}
	}
	var content []byte
	other := open(t, direct)
	must(t, other.View(context.Background(), func(tx store.Tx) error {
		f, err := tx.Files(nil).Open("f", store.FlagRead)
		if err != nil {
			return err
		}
		content = make([]byte, 9)
		n, err := f.ReadAt(content, 0)
		content = content[:n]
		if err == io.EOF {
			return nil
		}
		return err
	}))
	for n, times := range map[byte]int{1: 1, 2: 1, 3: 1, 4: 1, 5: 0, 9: 0} {
		if got := bytes.Count(content, []byte{'0' + n}); got != times {
			t.Errorf("the file holds %q: %d %d times, want %d", content, n, got, times)
		}
	}
}

// TestUnconditionalBucketIsRefused: one that ignores If-Match, or If-None-Match.
func TestUnconditionalBucketIsRefused(t *testing.T) {
	for _, ignored := range []string{"If-Match", "If-None-Match"} {
		objects := map[string][]byte{}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			was, there := objects[r.URL.Path]
			etag := func(b []byte) string { return fmt.Sprintf(`"%032x"`, b) }
			deny := r.Header.Get("If-None-Match") == "*" && there ||
				r.Header.Get("If-Match") != "" && (!there || r.Header.Get("If-Match") != etag(was))
			if r.Method != http.MethodPut || deny && r.Header.Get(ignored) == "" {
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
			objects[r.URL.Path], _ = io.ReadAll(r.Body)
			w.Header().Set("ETag", etag(objects[r.URL.Path]))
		}))
		_, err := s3.Dial(t.Context(), s3.Config{Endpoint: server.URL, Bucket: "bucket", AccessKey: "key", SecretKey: "secret"})
		if !errors.Is(err, s3.ErrUnconditional) {
			t.Errorf("without %s: %v", ignored, err)
		}
		server.Close()
	}
}

// TestRefusals: what is wrong, and what to do, is in the message.
func TestRefusals(t *testing.T) {
	server := s3test.Start(t)
	good := on(server)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	gone.Close()
	dir := t.TempDir()
	secret := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		must(t, os.Chmod(path, mode))
		return path
	}
	keys := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", server.AccessKey, server.SecretKey)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	for _, c := range []struct {
		name   string
		change func(*s3.Config)
		want   string // in the error; "" wants none
	}{
		{"as it should be", func(c *s3.Config) {}, ""},
		{"secret in a file", func(c *s3.Config) {
			c.SecretKey, c.SecretKeyFile = "", secret("secret", server.SecretKey+"\n", 0o600)
		}, ""},
		{"credentials file", func(c *s3.Config) {
			c.AccessKey, c.SecretKey, c.CredentialsFile = "", "", secret("credentials", keys, 0o600)
		}, ""},
		{"wrong secret", func(c *s3.Config) { c.SecretKey = "guess" }, "secret key is wrong"},
		{"unknown key", func(c *s3.Config) { c.AccessKey = "nobody" }, "access key"},
		{"no such bucket", func(c *s3.Config) { c.Bucket = "elsewhere" }, "no such bucket"},
		{"nobody there", func(c *s3.Config) { c.Endpoint = "http://" + gone.Addr().String() }, "connection refused"},
		{"in the clear", func(c *s3.Config) { c.Endpoint = "http://s3.example.com" }, "https"},
		{"in the clear to a name like loopback", func(c *s3.Config) { c.Endpoint = "http://localhost.example.com" }, "https"},
		{"keys in the URL", func(c *s3.Config) { c.Endpoint = "https://key:secret@s3.example.com" }, "must be like"},
		{"a path in the URL", func(c *s3.Config) { c.Endpoint += "/bucket" }, "without a path"},
		{"no bucket", func(c *s3.Config) { c.Bucket = "" }, "no bucket"},
		{"a prefix that is none", func(c *s3.Config) { c.Prefix = "alice" }, "slash"},
		{"a prefix that climbs", func(c *s3.Config) { c.Prefix = "../alice/" }, "slash"},
		{"no keys", func(c *s3.Config) { c.AccessKey = "" }, "credentials_file"},
		{"no secret", func(c *s3.Config) { c.SecretKey = "" }, "secret_key_file"},
		{"a secret that everybody reads", func(c *s3.Config) {
			c.SecretKey, c.SecretKeyFile = "", secret("open", server.SecretKey, 0o644)
		}, "chmod 600"},
		{"credentials that everybody reads", func(c *s3.Config) { c.CredentialsFile = secret("open2", keys, 0o640) }, "chmod 600"},
		{"no such profile", func(c *s3.Config) {
			c.CredentialsFile, c.Profile = secret("credentials2", keys, 0o600), "work"
		}, "[work]"},
		{"certificates that are none", func(c *s3.Config) { c.CAFile = secret("ca", "x", 0o600) }, "no certificate"},
	} {
		config := good
		c.change(&config)
		r, err := s3.Dial(t.Context(), config)
		switch {
		case err == nil:
			r.Close()
			if c.want != "" {
				t.Errorf("%s: no error", c.name)
			}
		case c.want == "" || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		case strings.Contains(err.Error(), server.SecretKey):
			t.Errorf("%s: the error tells the secret key: %v", c.name, err)
		}
	}
}

// TestAProxysNotFoundIsNotAnEmptyContext: what is in the way may say 404 to anything.
func TestAProxysNotFoundIsNotAnEmptyContext(t *testing.T) {
	direct := on(s3test.Start(t))
	s := open(t, direct)
	must(t, s.View(context.Background(), func(tx store.Tx) error { return tx.Append(store.Key{1}, nil) }))
	for _, lists := range []bool{true, false} {
		c := between(t, direct, func(w http.ResponseWriter, r *http.Request, _ func([]byte) *answer, _ []byte) bool {
			if r.Method != http.MethodGet || lists && r.URL.Query().Has("list-type") {
				return false
			}
			http.NotFound(w, r)
			return true
		})
		c.Store.RetryAfter = time.Millisecond
		if s, err := s3.Open(t.Context(), c); err == nil {
			t.Errorf("opened, as an empty context")
			s.Close()
		}
	}
}

// TestTLS: what the certificate's issuer is not trusted for is not spoken to.
func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	c := on(s3test.StartTLS(t, certFile, keyFile))
	if _, err := s3.Dial(t.Context(), c); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("spoke to a server that nobody vouches for: %v", err)
	}
	c.CAFile = certFile
	castest.Run(t, func(t *testing.T) cas.Remote {
		c.Prefix = fmt.Sprintf("tls %d/", prefixes.Add(1))
		r, err := s3.Dial(t.Context(), c)
		must(t, err)
		return r
	})
}
