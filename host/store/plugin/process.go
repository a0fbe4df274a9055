package plugin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// process is a running plugin: go-plugin's runner.Runner. It is started with
// pipes and nothing else of the host's: no environment beyond what is named, no
// files, a process group of its own.
type process struct {
	config Config
	env    []string // go-plugin's part of the environment
	dir    string   // where its socket has to be

	stdin          *os.File // our end; it ends with us, however we end
	stdout, stderr *os.File

	mu     sync.Mutex
	cmd    *exec.Cmd // once it is started
	killed bool
	reaped bool

	ended chan struct{} // closed when it is gone; then err is set
	err   error
}

func newProcess(c Config) *process { return &process{config: c, ended: make(chan struct{})} }

// Start implements runner.Runner.
func (p *process) Start(context.Context) error {
	cmd, binary, err := p.command()
	if err != nil {
		return err
	}
	if binary != nil {
		defer binary.Close()
	}
	var ends [3]*os.File // the plugin's
	defer func() {
		for _, f := range ends {
			if f != nil {
				f.Close()
			}
		}
	}()
	if ends[0], p.stdin, err = os.Pipe(); err == nil {
		if p.stdout, ends[1], err = os.Pipe(); err == nil {
			p.stderr, ends[2], err = os.Pipe()
		}
	}
	if err != nil {
		p.closePipes()
		return fmt.Errorf("make pipes to the storage plugin: %w", err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = ends[0], ends[1], ends[2]
	started := make(chan error)
	go p.run(cmd, started)
	if err := <-started; err != nil {
		p.closePipes()
		return fmt.Errorf("start the storage plugin: %w", err)
	}
	return nil
}

func (p *process) command() (cmd *exec.Cmd, binary *os.File, err error) {
	path, err := exec.LookPath(p.config.Command)
	if err == nil {
		path, err = filepath.Abs(path) // it is relative to where we are, and not to Dir
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find the storage plugin: %w", err)
	}
	cmd = exec.Command(path, p.config.Args...) //nolint:forbidigo // the one program that a host starts: its operator has named it
	if p.config.SHA256 != "" {
		if binary, err = pinned(path, p.config.SHA256); err != nil {
			return nil, nil, err
		}
		// What was hashed is what runs, also if the name has been given to
		// another file meanwhile.
		if self := descriptorPath(binary); self != "" {
			cmd.Path = self
		}
	}
	cmd.Dir = p.config.Dir
	cmd.Env = []string{}
	for _, e := range p.config.Env {
		name, _, given := strings.Cut(e, "=")
		switch value, ok := os.LookupEnv(name); {
		case given:
			cmd.Env = append(cmd.Env, e)
		case ok:
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, p.env...) // last, so that these hold
	own(cmd)
	return cmd, binary, nil
}

// pinned opens a program that has that digest.
func pinned(path, digest string) (*os.File, error) {
	want, err := hex.DecodeString(digest)
	if err != nil || len(want) != sha256.Size {
		return nil, fmt.Errorf("the digest of the storage plugin must be the 64 hexadecimal digits of a SHA-256, and is %q", digest)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the storage plugin: %w", err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("read the storage plugin: %w", err)
	}
	if got := h.Sum(nil); subtle.ConstantTimeCompare(got, want) != 1 {
		f.Close()
		return nil, fmt.Errorf("%s is not the storage plugin that was named: its SHA-256 is %x; if it was replaced on purpose, name that", path, got)
	}
	return f, nil
}

// run starts the process and stays with it, on one thread: the kernel ends the
// process with the thread that started it.
func (p *process) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	p.mu.Lock()
	p.cmd = cmd
	if p.killed {
		killAll(cmd)
	}
	p.mu.Unlock()
	started <- nil
	reap := awaitExit(cmd)
	p.mu.Lock()
	killAll(cmd) // what it has started
	err := reap()
	p.reaped = true
	p.mu.Unlock()
	p.err = errors.New("it ended")
	if err != nil {
		p.err = fmt.Errorf("it ended with %w", err)
	}
	// What it said last is still read; what has left its group and holds a pipe is
	// not waited for.
	for _, f := range []*os.File{p.stdout, p.stderr} {
		_ = f.SetReadDeadline(time.Now().Add(lastWords))
	}
	p.stdin.Close()
	close(p.ended)
}

const lastWords = 500 * time.Millisecond

func (p *process) closePipes() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// Kill implements runner.AttachedRunner: it ends the process and what it has
// started, at once.
func (p *process) Kill(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	if p.cmd != nil && !p.reaped {
		killAll(p.cmd)
	}
	return nil
}

// leave has the process end by itself, and ends it if it does not.
func (p *process) leave(grace time.Duration) {
	p.stdin.Close()
	select {
	case <-p.ended:
	case <-time.After(grace):
		_ = p.Kill(context.Background())
	}
}

// Wait implements runner.AttachedRunner.
func (p *process) Wait(context.Context) error {
	<-p.ended
	p.stdout.Close()
	p.stderr.Close()
	return nil
}

// ID implements runner.AttachedRunner.
func (p *process) ID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return ""
	}
	return strconv.Itoa(p.cmd.Process.Pid)
}

// PluginToHost implements runner.AddrTranslator. A plugin says where it listens,
// and the host goes there: so it has to be where only it could have been told to.
func (p *process) PluginToHost(network, addr string) (string, string, error) {
	if runtime.GOOS == "windows" {
		if host, _, err := net.SplitHostPort(addr); network != "tcp" || err != nil || host != "127.0.0.1" {
			return "", "", fmt.Errorf("it listens on %s %s, and not on this machine's loopback", printable(network), printable(addr))
		}
		return network, addr, nil
	}
	info, err := os.Lstat(addr)
	if network != "unix" || filepath.Dir(addr) != p.dir || err != nil || info.Mode().Type() != os.ModeSocket {
		return "", "", fmt.Errorf("it listens on %s %s, and not in the directory that it was given", printable(network), printable(addr))
	}
	return network, addr, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (p *process) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

// Stdout, Stderr, Name and Diagnose implement runner.Runner.
func (p *process) Stdout() io.ReadCloser           { return p.stdout }
func (p *process) Stderr() io.ReadCloser           { return p.stderr }
func (p *process) Name() string                    { return p.config.Command }
func (p *process) Diagnose(context.Context) string { return "" }

// printable is what a plugin said, fit for a log: short, and nothing that moves a
// terminal's cursor.
func printable(s string) string {
	const most = 1024
	s = strings.ToValidUTF8(s, "?")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
