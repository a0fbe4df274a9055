package plugin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
	pb "github.com/circles-host/circles/host/store/plugin/storagepb"
)

// plays are what the test binary does when it is started as a plugin, by the
// name that it is given as its second argument.
var plays = map[string]func(args []string){
	"dies":     func(args []string) { serve(&server{open: below(dies(args[0]))}) },
	"hangs":    hangs,
	"lies":     func(args []string) { serve(lies[args[0]].play(&server{open: inMemory})) },
	"floods":   floods,
	"says":     says,
	"plain":    withoutTLS,
	"environ":  func(args []string) { os.WriteFile(args[0], []byte(strings.Join(os.Environ(), "\n")), 0o600) },
	"children": children,
	"counts":   counts,
	"host":     asHost,
	"honest":   func([]string) { serve(&server{open: inMemory}) },
	"silent":   silent,
	"waits":    func([]string) { serve(&server{open: waits}) },
}

// play is a plugin that is this test.
func play(args ...string) Config {
	return Config{Command: os.Args[0], Args: append([]string{"play"}, args...), RestartDelay: time.Hour}
}

func inMemory(context.Context, map[string]string) (b overlay.Backend, err error) {
	mem.NewOn(mem.Config{}, func(made overlay.Backend) overlay.Backend {
		b = made
		return made
	})
	return b, nil
}

// below is a plugin that has the example keep its files, with something between.
func below(between func(overlay.Backend) overlay.Backend) func(context.Context, map[string]string) (overlay.Backend, error) {
	return func(ctx context.Context, settings map[string]string) (overlay.Backend, error) {
		k, err := connect(ctx, Config{Command: settings["example"], Settings: settings}.withDefaults(), &head{})
		if err != nil {
			return nil, err
		}
		return between(k.backend), nil
	}
}

// dies ends the process at the commit of a key that starts with 0xdd: before it is
// made, or after.
func dies(when string) func(overlay.Backend) overlay.Backend {
	return func(b overlay.Backend) overlay.Backend { return dying{b, when} }
}

type dying struct {
	overlay.Backend
	when string
}

func (d dying) Head() (uint64, [32]byte) { return d.Backend.(overlay.Header).Head() }

func (d dying) Commit(ctx context.Context, p *overlay.Plan, records []overlay.Record) error {
	die := records[len(records)-1].Key[0] == 0xdd
	if die && d.when == "before" {
		os.Exit(7)
	}
	err := d.Backend.Commit(ctx, p, records)
	if die && d.when == "after" && err == nil {
		os.Exit(7)
	}
	return err
}

// waits says that it is about to commit, and waits until it may.
func waits(ctx context.Context, settings map[string]string) (overlay.Backend, error) {
	return below(func(b overlay.Backend) overlay.Backend { return waiting{b, settings} })(ctx, settings)
}

type waiting struct {
	overlay.Backend
	settings map[string]string
}

func (w waiting) Commit(ctx context.Context, p *overlay.Plan, records []overlay.Record) error {
	os.WriteFile(w.settings["begun"], nil, 0o600)
	for {
		if _, err := os.Stat(w.settings["go"]); err == nil {
			return w.Backend.Commit(ctx, p, records)
		}
		time.Sleep(time.Millisecond)
	}
}

// appears waits for a file, and returns what is in it.
func appears(t *testing.T, path string) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil {
			return string(b)
		}
	}
	t.Fatalf("%s does not appear", path)
	return ""
}

// hangs never answers a call of one name. With a second argument, the example
// keeps its files.
func hangs(args []string) {
	method := func(full string) bool { return strings.HasSuffix(full, "/"+args[0]) }
	b := &server{open: inMemory}
	if len(args) > 1 {
		b.open = below(func(b overlay.Backend) overlay.Backend { return b })
	}
	serve(b,
		grpc.ChainUnaryInterceptor(func(ctx context.Context, q any, i *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if method(i.FullMethod) {
				select {}
			}
			return h(ctx, q)
		}),
		grpc.ChainStreamInterceptor(func(s any, stream grpc.ServerStream, i *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if method(i.FullMethod) {
				select {}
			}
			return h(s, stream)
		}))
}

func floods(args []string) {
	line := strings.Repeat("x", 200) + "\n"
	flood := func(f *os.File) {
		for range 50_000 {
			if _, err := f.WriteString(line); err != nil {
				return
			}
		}
		for range 3_000 { // a line of 600 KB, and what moves a cursor
			f.WriteString(line[:200])
		}
		f.WriteString("\x1b[2J\n")
	}
	switch args[0] {
	case "stderr":
		flood(os.Stderr)
	case "stdout":
		flood(os.Stdout) // before it says where it listens
	}
	serve(&server{open: func(ctx context.Context, settings map[string]string) (overlay.Backend, error) {
		flood(os.Stdout)
		flood(os.Stderr)
		return inMemory(ctx, settings)
	}})
}

// says writes one line and waits.
func says(args []string) {
	fmt.Println(args[0])
	time.Sleep(time.Hour)
}

// silent says nothing, and reads nothing; its number is in a file.
func silent(args []string) {
	os.WriteFile(args[0]+"-", fmt.Append(nil, os.Getpid()), 0o600)
	os.Rename(args[0]+"-", args[0])
	time.Sleep(time.Hour)
}

// withoutTLS shakes hands, and then talks in the clear.
func withoutTLS([]string) {
	l, err := net.Listen("unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s"))
	if err != nil {
		panic(err)
	}
	fmt.Printf("1|%d|unix|%s|grpc|\n", Version, l.Addr())
	s := grpc.NewServer()
	pb.RegisterBackendServiceServer(s, &server{open: inMemory})
	s.Serve(l)
}

// children starts a process in its own group, one that leaves the group and holds
// the pipes, and writes their numbers down.
func children(args []string) {
	in := exec.Command("sleep", "1000")
	out := exec.Command("sleep", "1000")
	out.SysProcAttr = ownSession()
	out.Stdout, out.Stderr = os.Stdout, os.Stderr
	for _, c := range []*exec.Cmd{in, out} {
		if err := c.Start(); err != nil {
			panic(err)
		}
	}
	os.WriteFile(args[0], fmt.Appendf(nil, "%d %d", in.Process.Pid, out.Process.Pid), 0o600)
	serve(&server{open: inMemory})
}

// counts writes down that it was started, and ends.
func counts(args []string) {
	f, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(f, "started")
	f.Close()
	fmt.Fprintln(os.Stderr, "no space for pigeons")
	os.Exit(3)
}

// asHost is a host that opens a plugin, says so, and waits to be killed.
func asHost(args []string) {
	s, err := Open(context.Background(), Config{Command: args[0], Args: args[1:], StartTimeout: time.Hour})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	time.Sleep(time.Hour)
	s.Close()
}

func randomKey(first byte) (k store.Key) {
	rand.Read(k[:])
	k[0] = first
	return k
}

// put writes a file and logs it.
func put(s store.Store, path, content string, key store.Key) error {
	return s.Update(context.Background(), func(tx store.Tx) error {
		f, err := tx.Files(nil).Open(path, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt([]byte(content), 0); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		return tx.Append(key, []byte(hex.EncodeToString(key[:4])))
	})
}

// get reads a file, "" if it is not there.
func get(t *testing.T, s store.Store, path string) string {
	t.Helper()
	content, err := read(s, path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func read(s store.Store, path string) (content string, err error) {
	err = s.View(context.Background(), func(tx store.Tx) error {
		f, err := tx.Files(nil).Open(path, store.FlagRead)
		if err != nil {
			return err
		}
		i, err := f.Stat()
		if err != nil {
			return err
		}
		p := make([]byte, min(i.Size, 1<<20))
		n, err := f.ReadAt(p, 0)
		content = string(p[:n])
		return err
	})
	return content, err
}
