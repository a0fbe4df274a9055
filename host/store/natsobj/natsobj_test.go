package natsobj

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
	"github.com/circles-host/circles/host/store/natsobj/natstest"
	"github.com/circles-host/circles/host/store/storetest"
)

var prefixes atomic.Int64

// on is an empty place in a bucket of the server.
func on(server *natstest.Server) Config {
	return Config{Servers: []string{server.URL}, Bucket: "test", Prefix: fmt.Sprint("context-", prefixes.Add(1))}
}

func mustDial(t *testing.T, c Config) *remote {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := Dial(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r.(*remote)
}

func blob(data string) (cas.BlobID, []byte) {
	return cas.BlobID{Epoch: 1, Digest: sha256.Sum256([]byte(data))}, []byte(data)
}

func TestRemote(t *testing.T) {
	server := natstest.Start(t, "")
	castest.Run(t, func(t *testing.T) cas.Remote { return mustDial(t, on(server)) })
}

func TestStore(t *testing.T) {
	server := natstest.Start(t, "")
	storetest.RunDurable(t, func(t *testing.T) (store.Store, func() store.Store) {
		c := on(server)
		open := func() store.Store { return mustOpen(t, c) }
		return open(), open
	})
}

func mustOpen(t *testing.T, c Config) *cas.Store {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCrash kills a host that commits. (Two at a time are in the next test: an
// update that changes nothing is logged after what was committed since it began,
// which this suite's model would run in that order.)
func TestCrash(t *testing.T) {
	storetest.Crash(t, storetest.Crasher{
		Place: func(t *testing.T) string { return natstest.Start(t, "").URL },
		Open: func(place string) ([]store.Store, error) {
			s, err := Open(context.Background(), Config{Servers: []string{place}, Bucket: "crash"})
			return []store.Store{s}, err
		},
	})
}

// TestServerIsKilledUnderTwoHosts: both commit to one context, the server is killed
// again and again, and nothing that was acknowledged is lost, torn or mixed.
func TestServerIsKilledUnderTwoHosts(t *testing.T) {
	server := natstest.Start(t, "")
	c := on(server)
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := map[store.Key]bool{}
	stop := make(chan struct{})
	for host := range 2 {
		s := mustOpen(t, c)
		defer s.Close()
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key := store.Key{byte(host), byte(n), byte(n >> 8)}
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				err := s.Update(ctx, func(tx store.Tx) error {
					fs := tx.Files(nil)
					if err := fs.Mkdir(fmt.Sprintf("%x", key[:3])); err != nil {
						return err
					}
					return tx.Append(key, nil)
				})
				cancel()
				if err == nil {
					mu.Lock()
					acked[key] = true
					mu.Unlock()
				}
			}
		})
	}
	for range 4 {
		time.Sleep(200 * time.Millisecond)
		server.Kill()
		server.Restart("")
	}
	time.Sleep(200 * time.Millisecond)
	close(stop)
	wg.Wait()
	s := mustOpen(t, c)
	defer s.Close()
	if err := s.View(t.Context(), func(tx store.Tx) error {
		n := 0
		for e, err := range s.Log(t.Context(), 1) {
			if err != nil {
				return err
			}
			delete(acked, e.Key)
			n++
			if _, err := tx.Files(nil).Stat(fmt.Sprintf("%x", e.Key[:3]), false); err != nil {
				t.Errorf("entry %d is there, and its directory is not: %v", e.Seq, err)
			}
		}
		d, err := tx.Files(nil).Open("/", store.FlagRead|store.FlagDirectory)
		if err != nil {
			return err
		}
		list, err := d.ReadDir(0, 1<<20)
		if len(list) != n {
			t.Errorf("%d directories of %d entries", len(list), n)
		}
		if n < 10 {
			t.Errorf("only %d commits: the test tests little", n)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(acked) > 0 {
		t.Errorf("%d commits were acknowledged and are lost", len(acked))
	}
}

// TestKilledServer: what was acknowledged is there when the server is back, and
// those who were connected go on.
func TestKilledServer(t *testing.T) {
	server := natstest.Start(t, "")
	c := on(server)
	r := mustDial(t, c)
	var version cas.Version
	root := 0
	for round := range 5 {
		id, data := blob(fmt.Sprint("blob ", round))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		try(t, func() error { return r.PutBlob(ctx, id, data) })
		try(t, func() (err error) {
			_, version, err = r.LoadRoot(ctx, "")
			return err
		})
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			time.Sleep(time.Duration(round) * 2 * time.Millisecond)
			server.Kill()
		}()
		for {
			v, err := r.SwapRoot(ctx, fmt.Append(nil, "root ", root+1), version)
			if err != nil {
				if errors.Is(err, cas.ErrLost) || errors.Is(err, cas.ErrRefused) {
					t.Errorf("a swap whose outcome is unknown: %v", err)
				}
				break
			}
			version, root = v, root+1
		}
		<-killed
		server.Restart("")
		var now []byte
		try(t, func() (err error) {
			now, _, err = r.LoadRoot(ctx, "")
			return err
		})
		var at int
		fmt.Sscanf(string(now), "root %d", &at)
		if at != root && at != root+1 {
			t.Fatalf("the root is %q, and %d was acknowledged", now, root)
		}
		root = at
		if got, err := r.GetBlob(ctx, id); err != nil || !bytes.Equal(got, data) {
			t.Errorf("the blob is %q, %v", got, err)
		}
		cancel()
	}
	if root == 0 {
		t.Error("nothing was ever acknowledged")
	}
}

// try repeats what fails while a connection is made again.
func try(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// TestLostAcknowledgement: the server did it, and nobody heard. That is neither
// success, nor a swap that somebody else won; and it is told at once.
func TestLostAcknowledgement(t *testing.T) {
	server := natstest.Start(t, "")
	p := startProxy(t, server.Addr)
	c := on(server)
	direct := mustDial(t, c)
	c.Servers = []string{"nats://" + p.addr()}
	r := mustDial(t, c)
	p.deafen()
	begin := time.Now()
	_, err := r.SwapRoot(t.Context(), []byte("unheard"), "")
	if err == nil || errors.Is(err, cas.ErrLost) || errors.Is(err, cas.ErrRefused) || !strings.Contains(err.Error(), "connection was lost") {
		t.Errorf("swap: %v", err)
	}
	if time.Since(begin) > 20*time.Second {
		t.Errorf("it took %v", time.Since(begin))
	}
	data, version, err := direct.LoadRoot(t.Context(), "")
	if err != nil || string(data) != "unheard" {
		t.Fatalf("the root is %q, %v", data, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	try(t, func() error { // the same call again has lost, to itself
		_, err := r.SwapRoot(ctx, []byte("unheard"), "")
		if errors.Is(err, cas.ErrLost) {
			return nil
		}
		return fmt.Errorf("again: %w", err)
	})
	if _, v, err := r.LoadRoot(ctx, ""); v != version || err != nil {
		t.Errorf("version %q, %v; want %q", v, err, version)
	}
}

// proxy carries bytes to a server. When it is deaf it carries what goes there, and
// cuts the connection when something comes back.
type proxy struct {
	l    net.Listener
	deaf atomic.Bool
}

func startProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(s, c)
				s.Close()
			}()
			go func() {
				defer c.Close()
				defer s.Close()
				b := make([]byte, 64<<10)
				for {
					n, err := s.Read(b)
					if err != nil || p.deaf.CompareAndSwap(true, false) {
						return
					}
					if _, err := c.Write(b[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }
func (p *proxy) deafen()      { p.deaf.Store(true) }

// TestRefusals: what cannot work says so, and how to mend it.
func TestRefusals(t *testing.T) {
	write := func(name, content string, mode os.FileMode) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	password := write("password", "wrong\n", 0o600)
	for name, c := range map[string]struct {
		server string // its configuration; "-" for none
		config Config
		want   string
	}{
		"NoServer":         {"-", Config{Bucket: "b"}, "no server is named"},
		"BucketName":       {"-", Config{Servers: []string{"nats://localhost"}, Bucket: "a.b>*"}, "letters, digits"},
		"PrefixName":       {"-", Config{Servers: []string{"nats://localhost"}, Bucket: "b", Prefix: "*"}, "letters, digits"},
		"PlainOffLoopback": {"-", Config{Servers: []string{"nats://example.org"}, Bucket: "b"}, "must begin with tls://"},
		"PlainNameTrick":   {"-", Config{Servers: []string{"nats://localhost.example.org"}, Bucket: "b"}, "must begin with tls://"},
		"PasswordInURL":    {"-", Config{Servers: []string{"nats://u:hunter2@localhost"}, Bucket: "b"}, "must not hold a password"},
		"OtherScheme":      {"-", Config{Servers: []string{"ws://u:hunter2@localhost"}, Bucket: "b"}, "must be like tls://"},
		"Mixed":            {"-", Config{Servers: []string{"nats://localhost", "tls://localhost"}, Bucket: "b"}, "either all"},
		"NobodyThere":      {"-", Config{Servers: []string{"nats://127.0.0.1:1"}, Bucket: "b"}, "no servers available"},
		"TwoCredentials":   {"-", Config{Servers: []string{"nats://localhost"}, Bucket: "b", User: "u", SeedFile: "s"}, "set one of"},
		"OthersRead":       {"-", Config{Servers: []string{"nats://localhost"}, Bucket: "b", SeedFile: write("seed", "SUA", 0o644)}, "chmod 600"},
		"SeedGarbage":      {"-", Config{Servers: []string{"nats://localhost"}, Bucket: "b", SeedFile: write("seed", "SUA", 0o600)}, "read seed_file"},
		"WithoutPassword":  {"-", Config{Servers: []string{"nats://localhost"}, Bucket: "b", User: "u"}, "name the file"},
		"CAGarbage":        {"-", Config{Servers: []string{"tls://localhost"}, Bucket: "b", CAFile: password}, "no certificate"},
		"WrongPassword":    {natstest.JetStream + "authorization { user: u, password: right }", Config{Bucket: "b", User: "u", PasswordFile: password}, "does not accept the credentials"},
		"NoCredentials":    {natstest.JetStream + "authorization { user: u, password: right }", Config{Bucket: "b"}, "does not accept the credentials"},
		"NoJetStream":      {"max_control_line: 4096", Config{Bucket: "b"}, "JetStream: it is not enabled"},
		"JetStreamElsewhere": {natstest.JetStream + `accounts { A { users: [{user: u, password: wrong}] }, B { jetstream: enabled } }`,
			Config{Bucket: "b", User: "u", PasswordFile: password}, "nable JetStream for this account"},
		"SmallMessages": {natstest.JetStream + "max_payload: 65536", Config{Bucket: "b"}, "max_payload"},
		"NotPermitted": {natstest.JetStream + `authorization { users: [{user: u, password: wrong, permissions: { publish: "foo", subscribe: "_INBOX.>" }}] }`,
			Config{Bucket: "b", User: "u", PasswordFile: password}, "does not permit it"},
		"NoTLS":        {natstest.JetStream, Config{Bucket: "b", Servers: []string{"tls://ADDR"}}, "does not speak TLS"},
		"ManyReplicas": {natstest.JetStream, Config{Bucket: "b", Replicas: 3}, "replicas"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.server != "-" {
				s := natstest.Start(t, c.server)
				if len(c.config.Servers) == 0 {
					c.config.Servers = []string{s.URL}
				}
				c.config.Servers[0] = strings.ReplaceAll(c.config.Servers[0], "ADDR", s.Addr)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			r, err := Dial(ctx, c.config)
			if err == nil {
				r.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("dial: %v; want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

// TestFullStream: a stream at its limit refuses, and keeps what it has.
func TestFullStream(t *testing.T) {
	server := natstest.Start(t, "")
	admin, err := nats.Connect(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	c := on(server)
	r := mustDial(t, c)
	limit(t, r, func(s map[string]any) { s["max_bytes"] = 300_000 })
	first, data := blob("the first one")
	if err := r.PutBlob(t.Context(), first, data); err != nil {
		t.Fatal(err)
	}
	id, big := blob(strings.Repeat("x", 290_000))
	if err := r.PutBlob(t.Context(), id, big); err != nil {
		t.Fatal(err)
	}
	id, big = blob(strings.Repeat("y", 290_000))
	err = r.PutBlob(t.Context(), id, big)
	if !errors.Is(err, cas.ErrRefused) || !strings.Contains(err.Error(), "max_bytes") {
		t.Errorf("put beyond the limit: %v", err)
	}
	if _, err := r.SwapRoot(t.Context(), bytes.Repeat([]byte("r"), 20_000), ""); !errors.Is(err, cas.ErrRefused) {
		t.Errorf("swap beyond the limit: %v", err)
	}
	if got, err := r.GetBlob(t.Context(), first); err != nil || !bytes.Equal(got, data) {
		t.Errorf("what was there: %q, %v", got, err)
	}
	if has, err := r.HasBlob(t.Context(), id); has || err != nil {
		t.Errorf("what was refused is there: %v, %v", has, err)
	}
}

// limit changes the stream's configuration, as an operator may.
func limit(t *testing.T, r *remote, change func(map[string]any)) {
	t.Helper()
	var info struct {
		Config map[string]any `json:"config"`
	}
	if err := r.api(t.Context(), "STREAM.INFO."+r.stream, struct{}{}, &info); err != nil {
		t.Fatal(err)
	}
	change(info.Config)
	if err := r.api(t.Context(), "STREAM.UPDATE."+r.stream, info.Config, &info); err != nil {
		t.Fatal(err)
	}
}

// TestUnfitStream: a stream that forgets, or may answer with what is old, is not
// used.
func TestUnfitStream(t *testing.T) {
	server := natstest.Start(t, "")
	c := on(server)
	r := mustDial(t, c)
	for field, change := range map[string]map[string]any{
		"max_age":              {"max_age": 3_600_000_000_000},
		"discard":              {"discard": "old"},
		"max_msgs_per_subject": {"max_msgs_per_subject": 2},
		"allow_direct":         {"allow_direct": true},
		"max_msg_size":         {"max_msg_size": 1000},
		"subjects":             {"subjects": []string{"circles.test.>", "other.>"}},
	} {
		var before map[string]any
		limit(t, r, func(s map[string]any) {
			before = map[string]any{}
			for k, v := range change {
				before[k] = s[k]
				s[k] = v
			}
		})
		if bad, err := Dial(t.Context(), c); err == nil || !errors.Is(err, cas.ErrRefused) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
			if err == nil {
				bad.Close()
			}
		}
		limit(t, r, func(s map[string]any) {
			for k, v := range before {
				s[k] = v
			}
		})
	}
	mustDial(t, c)
}

// TestRemovedStream: it is an error, and not an empty context.
func TestRemovedStream(t *testing.T) {
	server := natstest.Start(t, "")
	r := mustDial(t, on(server))
	if _, err := r.SwapRoot(t.Context(), []byte("root"), ""); err != nil {
		t.Fatal(err)
	}
	var gone map[string]any
	if err := r.api(t.Context(), "STREAM.DELETE."+r.stream, struct{}{}, &gone); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.LoadRoot(t.Context(), ""); !errors.Is(err, cas.ErrRefused) || errors.Is(err, store.ErrNotExist) {
		t.Errorf("load root: %v", err)
	}
}

// TestTLS: with a certificate that is trusted it works, and else it does not.
func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	server := natstest.Start(t, natstest.JetStream+fmt.Sprintf("tls { cert_file: %q, key_file: %q }", cert, key))
	c := on(server)
	c.Servers = []string{"tls://" + server.Addr}
	if _, err := Dial(t.Context(), c); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("of a server that nobody vouches for: %v", err)
	}
	c.CAFile = cert
	r := mustDial(t, c)
	id, data := blob(strings.Repeat("over TLS", 100_000))
	if err := r.PutBlob(t.Context(), id, data); err != nil {
		t.Fatal(err)
	}
	if got, err := r.GetBlob(t.Context(), id); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	server.Kill() // and it is made again over TLS
	server.Restart("")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	try(t, func() error { _, err := r.GetBlob(ctx, id); return err })
	c.Servers = []string{server.URL}
	if _, err := Dial(t.Context(), c); err == nil {
		t.Error("a server that requires TLS is talked to without")
	}
}

func certificate(t *testing.T) (cert, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, keyFile
}
