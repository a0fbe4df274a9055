package natsobj

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/circles-host/circles/host/store/cas"
)

// dialer makes the connections that the client library uses. It does TLS itself,
// so that what comes out of it can be guarded.
type dialer struct {
	tls *tls.Config // nil: loopback only, in the clear
}

// SkipTLSHandshake tells the client library that this is done.
func (dialer) SkipTLSHandshake() bool { return true }

const dialTime = 10 * time.Second

// Dial implements nats.CustomDialer. addr has the name as it is in the URL.
func (d dialer) Dial(network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if d.tls == nil {
		if to, ok := raw.RemoteAddr().(*net.TCPAddr); !ok || !to.IP.IsLoopback() {
			raw.Close()
			return nil, fmt.Errorf("%s is at %s, which is not this machine: begin its URL with tls://", addr, raw.RemoteAddr())
		}
		return guard(raw), nil
	}
	c, err := d.secure(ctx, raw, addr)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return guard(c), nil
}

// secure starts TLS on a connection, as a NATS server wants it: after one line in
// the clear, of which nothing is believed.
func (d dialer) secure(ctx context.Context, raw net.Conn, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	end, _ := ctx.Deadline()
	if err := raw.SetDeadline(end); err != nil {
		return nil, err
	}
	line, err := readLine(raw)
	if err != nil {
		return nil, fmt.Errorf("wait for the greeting of %s: %w", addr, err)
	}
	var info struct {
		Required  bool `json:"tls_required"`
		Available bool `json:"tls_available"`
	}
	if body, ok := bytes.CutPrefix(line, []byte("INFO ")); !ok || json.Unmarshal(body, &info) != nil {
		return nil, fmt.Errorf("%s is no NATS server", addr)
	}
	if !info.Required && !info.Available {
		return nil, fmt.Errorf("%s does not speak TLS, without which everybody on the way could read the files: set up tls in the server's configuration", addr)
	}
	config := d.tls.Clone()
	config.ServerName = host
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &replay{Conn: c, first: bytes.NewReader(line)}, nil
}

// readLine reads a line and not one byte more: what follows is TLS.
func readLine(r io.Reader) ([]byte, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) < 64<<10 {
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		if line = append(line, b[0]); b[0] == '\n' {
			return line, nil
		}
	}
	return nil, errors.New("a line of more than 64 KiB")
}

// replay gives a line before what the connection gives.
type replay struct {
	net.Conn
	first *bytes.Reader
}

func (r *replay) Read(p []byte) (int, error) {
	if r.first.Len() > 0 {
		return r.first.Read(p)
	}
	return r.Conn.Read(p)
}

// connect makes what c describes.
func (c Config) connect(ctx context.Context, r *remote) (*nats.Conn, error) {
	urls, secure, err := c.servers()
	if err != nil {
		return nil, err
	}
	d := dialer{}
	if secure {
		if d.tls, err = c.tls(); err != nil {
			return nil, err
		}
	}
	o := []nats.Option{
		nats.Name("circles"),
		nats.SetCustomDialer(d),
		nats.SkipHostLookup(),          // names are for certificates
		nats.IgnoreDiscoveredServers(), // a server does not choose whom we talk to
		nats.Timeout(dialTime),
		nats.MaxReconnects(-1), // until Close
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectBufSize(-1), // what cannot be sent now fails, and is not sent later
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { r.interrupt(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { r.refused(err) }),
	}
	auth, err := c.auth()
	if err != nil {
		return nil, err
	}
	o = append(o, auth...)
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(strings.Join(urls, ","), o...)
		done <- result{nc, err}
	}()
	select {
	case got := <-done:
		return got.nc, explain(got.err)
	case <-ctx.Done():
		go func() {
			if got := <-done; got.nc != nil {
				got.nc.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// servers checks the URLs. With TLS to one of them, it is TLS to all.
func (c Config) servers() (urls []string, secure bool, err error) {
	for i, s := range c.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" || u.Scheme != "tls" && u.Scheme != "nats" {
			return nil, false, fmt.Errorf("server %d must be like tls://host:port", i+1) // it may hold a password
		}
		if u.User != nil {
			return nil, false, fmt.Errorf("server %s must not hold a password: put it into a file, and name that", u.Host)
		}
		tls := u.Scheme == "tls"
		if !tls && !loopback(u.Hostname()) {
			return nil, false, fmt.Errorf("server %s must begin with tls://: without TLS everybody on the way could read the files", u.Host)
		}
		if i > 0 && tls != secure {
			return nil, false, errors.New("either all servers begin with tls://, or none")
		}
		secure = tls
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "4222")
		}
		urls = append(urls, "nats://"+u.Host)
	}
	if len(urls) == 0 {
		return nil, false, errors.New("no server is named")
	}
	return urls, secure, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (c Config) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate in PEM form", c.CAFile)
		}
	}
	if c.CertFile != "" || c.KeyFile != "" {
		if err := private(c.KeyFile); err != nil {
			return nil, err
		}
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read cert_file and key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

// auth is how the host says who it is.
func (c Config) auth() ([]nats.Option, error) {
	given := 0
	for _, s := range []string{c.CredentialsFile, c.SeedFile, c.User} {
		if s != "" {
			given++
		}
	}
	if given > 1 {
		return nil, errors.New("set one of credentials_file, seed_file and user")
	}
	switch {
	case c.CredentialsFile != "":
		if err := private(c.CredentialsFile); err != nil {
			return nil, err
		}
		return []nats.Option{nats.UserCredentials(c.CredentialsFile)}, nil
	case c.SeedFile != "":
		if err := private(c.SeedFile); err != nil {
			return nil, err
		}
		o, err := nats.NkeyOptionFromSeed(c.SeedFile)
		if err != nil {
			return nil, fmt.Errorf("read seed_file: %w", err)
		}
		return []nats.Option{o}, nil
	case c.User != "":
		if c.PasswordFile == "" {
			return nil, errors.New("there is a user but no password_file: name the file that holds the password")
		}
		if err := private(c.PasswordFile); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read password_file: %w", err)
		}
		return []nats.Option{nats.UserInfo(c.User, strings.TrimSpace(string(b)))}, nil
	}
	return nil, nil
}

// private refuses a file of secrets that others can read.
func private(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	if !info.Mode().IsRegular() || othersRead(info) {
		return fmt.Errorf("%s holds secrets and others can read it, or it is no file: chmod 600 it", file)
	}
	return nil
}

// explain marks what another try does not cure.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrAccountAuthExpired):
		return fmt.Errorf("the server does not accept the credentials: %w: %w", cas.ErrRefused, err)
	}
	return err
}
