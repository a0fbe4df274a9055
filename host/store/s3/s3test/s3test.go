// Package s3test starts an S3 server for tests: versitygw, in a process of its own,
// on loopback and with a bucket that is empty. The server is a Go module of its own, in
// the folder server, so that the host does not depend on it. It is built once; what
// was built is kept in the user's cache directory.
package s3test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/circles-host/circles/host/store/cas/castest"
)

// Server is a server that runs until its test has ended.
type Server struct {
	Endpoint  string // http://127.0.0.1:port
	Region    string
	AccessKey string
	SecretKey string
	Bucket    string // which is there, and empty
}

// Start starts a server.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t, "http")
}

// StartTLS starts a server that speaks TLS, with a certificate and its key in two
// files.
func StartTLS(t testing.TB, certFile, keyFile string) *Server {
	t.Helper()
	return start(t, "https", "S3TEST_CERT="+certFile, "S3TEST_KEY="+keyFile)
}

func start(t testing.TB, scheme string, env ...string) *Server {
	t.Helper()
	binary, err := built()
	if err != nil {
		t.Fatalf("build the S3 server: %v", err)
	}
	dir, err := os.MkdirTemp("", "s3-") // short, for the sake of a socket in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Region: "us-east-1", AccessKey: rand.Text(), SecretKey: rand.Text(), Bucket: "circles"}
	cmd := exec.Command(binary, dir)
	cmd.Env = append(append(os.Environ(), "S3TEST_ACCESS_KEY="+s.AccessKey, "S3TEST_SECRET_KEY="+s.SecretKey), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		stdin.Close()
		_ = cmd.Wait()
		t.Fatalf("the S3 server does not start: %v\n%s", err, &said)
	}
	go io.Copy(io.Discard, stdout)
	s.Endpoint = scheme + "://" + strings.TrimSpace(address)
	s.MakeBucket(t, s.Bucket)
	return s
}

// MakeBucket makes a further bucket.
func (s *Server) MakeBucket(t testing.TB, name string) {
	t.Helper()
	scheme, host, _ := strings.Cut(s.Endpoint, "://")
	c, err := minio.New(host, &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Region: s.Region, Secure: scheme == "https",
		// We have just started it.
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	})
	if err == nil {
		err = c.MakeBucket(context.Background(), name, minio.MakeBucketOptions{Region: s.Region})
	}
	if err != nil {
		t.Fatalf("make bucket %s: %v", name, err)
	}
}

// built returns the server's program.
var built = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	return castest.BuildServer("s3-server", filepath.Join(filepath.Dir(here), "server"))
})
