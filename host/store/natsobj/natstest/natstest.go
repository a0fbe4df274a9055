// Package natstest starts a NATS server for tests, with JetStream, in a process of
// its own and on loopback, and ends and starts it again. The server is a Go module
// of its own, in the folder server, so that the host does not depend on it. It is
// built once; what was built is kept in the user's cache directory.
package natstest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/circles-host/circles/host/store/cas/castest"
)

// Server is a server that runs until its test has ended.
type Server struct {
	Addr string // 127.0.0.1:port; the same after Restart
	URL  string // nats://Addr

	t      testing.TB
	dir    string
	config string

	cmd   *exec.Cmd
	stdin io.Closer
	said  *bytes.Buffer
}

// JetStream is the configuration that a durable context wants.
const JetStream = "jetstream { store_dir: DIR, sync_interval: always }\n"

// Start starts a server with a configuration in which DIR stands for a directory of
// its own; "" is JetStream.
func Start(t testing.TB, config string) *Server {
	t.Helper()
	if config == "" {
		config = JetStream
	}
	dir, err := os.MkdirTemp("", "nats-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: dir, config: strings.ReplaceAll(config, "DIR", fmt.Sprintf("%q", filepath.Join(dir, "data")))}
	t.Cleanup(func() {
		s.stop()
		os.RemoveAll(dir)
	})
	s.Addr = "127.0.0.1:-1" // a port of the kernel's choice
	s.start()
	return s
}

func (s *Server) start() {
	s.t.Helper()
	program, err := built()
	if err != nil {
		s.t.Fatalf("build the NATS server: %v", err)
	}
	file := filepath.Join(s.dir, "config")
	if err := os.WriteFile(file, []byte("listen: \""+s.Addr+"\"\n"+s.config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.said = &bytes.Buffer{}
	s.cmd = exec.Command(program, file)
	s.cmd.Stderr = s.said
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.stop()
		s.t.Fatalf("the NATS server does not start: %v\n%s", err, s.said)
	}
	s.Addr = strings.TrimSpace(line)
	s.URL = "nats://" + s.Addr
}

// Kill kills the server, with SIGKILL.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Restart starts the server again, on the same port, and on what it had stored.
// Another configuration takes the place of the one it had, if there is one.
func (s *Server) Restart(config string) {
	s.t.Helper()
	s.stop()
	if config != "" {
		s.config = strings.ReplaceAll(config, "DIR", fmt.Sprintf("%q", filepath.Join(s.dir, "data")))
	}
	s.start()
}

func (s *Server) stop() {
	s.stdin.Close()
	_ = s.cmd.Wait()
}

// built returns the server's program.
var built = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	return castest.BuildServer("nats-server", filepath.Join(filepath.Dir(here), "server"))
})
