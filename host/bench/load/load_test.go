package load_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/bench/load"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/transport/http2"
	"github.com/circles-host/circles/modules"
)

// cacheDir is shared, so that modules are compiled once.
var cacheDir string

func TestMain(m *testing.M) {
	var err error
	if cacheDir, err = os.MkdirTemp("", "circles-test-cache-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(cacheDir)
	os.Exit(code)
}

// served is a host on loopback, with contexts in directories that share a journal.
type served struct {
	host    *host.Host
	url     string
	keys    []*peer.Key
	ids     []peer.ID
	dirs    []string
	journal *fs.Journal
}

func serve(t testing.TB, peers int, policy string) *served {
	t.Helper()
	root, _, err := host.InitRoot(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	s := &served{}
	for i := range peers {
		e, err := root.AddPeer(peer.Name("p"+strconv.Itoa(i)), "")
		if err != nil {
			t.Fatal(err)
		}
		key, err := e.Key()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(e.Dir, "policy", "all.cedar"), []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
		s.keys, s.ids, s.dirs = append(s.keys, key), append(s.ids, e.ID), append(s.dirs, e.Dir)
	}
	for _, m := range modules.List() {
		if _, err := module.Add(filepath.Join(root.Dir, "modules"), m.Name, m.Wasm); err != nil {
			t.Fatal(err)
		}
	}
	if s.journal, err = fs.OpenJournal(fs.JournalConfig{Dir: filepath.Join(root.Dir, "journal")}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	h, err := host.Open(context.Background(), root, host.Config{
		CacheDir: cacheDir, Log: log,
		OpenStore: func(_ context.Context, e peer.Entry) (store.Store, error) {
			return fs.Open(fs.Config{
				Data: filepath.Join(e.Dir, "data"), Log: filepath.Join(e.Dir, "log"), Tx: filepath.Join(e.Dir, "tx"),
				Journal: s.journal,
			})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.host = h
	server := http2.NewServer(h.Deliver, http2.Config{Host: string(h.ID()), Log: log})
	l, err := server.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, h.Close(), s.journal.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *served) config(of func(n int) script.Script) load.Config {
	return load.Config{
		Dial: func() (transport.Sender, error) { return http2.Dial(s.url, nil) },
		Host: s.host.ID(), Callers: s.keys, Targets: s.ids, Script: of,
	}
}

const permitAll = `@id("all") permit(principal, action, resource);`

func signs(n int) script.Script {
	return script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "sign", Params: []byte(`{"message":"` + strconv.Itoa(n) + `"}`)}
}

func reads(int) script.Script {
	return script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "read"}
}

// What is counted was done: each script, of those that were measured and those
// before, is in a book.
func TestRun(t *testing.T) {
	s := serve(t, 3, permitAll)
	c := s.config(signs)
	c.Clients, c.Connections, c.Scripts, c.Warm = 6, 2, 30, 6
	r, err := load.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Scripts != 30 || r.Clients != 6 || r.Wall <= 0 || r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Max || r.PerSecond() <= 0 || r.CPUPerScript() <= 0 {
		t.Errorf("%+v", r)
	}
	signed := 0
	for _, dir := range s.dirs {
		b, err := os.ReadFile(filepath.Join(dir, "data", "guestbook", "count"))
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		signed += n
	}
	if signed != 36 {
		t.Errorf("%d have signed, 36 were sent", signed)
	}
	c.Scripts, c.For, c.Warm = 0, 50*time.Millisecond, 0
	if r, err = load.Run(t.Context(), c); err != nil || r.Scripts == 0 || r.Wall < c.For {
		t.Errorf("%+v, %v", r, err)
	}
}

// A script that is not done is no measurement.
func TestRunFails(t *testing.T) {
	s := serve(t, 2, `@id("none") forbid(principal, action, resource);`)
	c := s.config(reads)
	c.Clients, c.Scripts = 2, 10
	if r, err := load.Run(t.Context(), c); err == nil {
		t.Errorf("refused scripts passed for done ones: %+v", r)
	}
	c.Host = s.ids[0] // not who signs the receipts
	if r, err := load.Run(t.Context(), c); err == nil {
		t.Errorf("receipts of a stranger passed: %+v", r)
	}
	if _, err := load.Run(t.Context(), load.Config{}); err == nil {
		t.Error("there was nothing to send")
	}
}

// Who is turned away is counted, and sends another.
func TestRunBusy(t *testing.T) {
	s := serve(t, 1, permitAll)
	c := s.config(reads)
	c.Clients, c.Scripts = 1, 10
	var n atomic.Int64
	dial := c.Dial
	c.Dial = func() (transport.Sender, error) {
		via, err := dial()
		return sometimes{via, &n}, err
	}
	r, err := load.Run(t.Context(), c)
	if err != nil || r.Scripts != 10 || r.Busy != 4 {
		t.Errorf("%+v, %v; want 10 scripts, and 4 that were turned away", r, err)
	}
}

// sometimes turns away every third.
type sometimes struct {
	transport.Sender
	n *atomic.Int64
}

func (s sometimes) Send(ctx context.Context, sealed []byte, back transport.Back) ([]byte, error) {
	if s.n.Add(1)%3 == 0 {
		return nil, &transport.Error{Code: transport.Unavailable, Message: "busy"}
	}
	return s.Sender.Send(ctx, sealed, back)
}

// BenchmarkHTTP2 is the whole way of a script: signed by one of 64 clients, over
// HTTP/2 on loopback, verified, decided, run, committed to contexts in directories
// that share a journal, its receipt signed, and checked by the client. All of them
// in one process: cpu-µs/script is what both sides take together.
func BenchmarkHTTP2(b *testing.B) {
	for _, of := range []struct {
		name   string
		script func(int) script.Script
	}{{"guestbook-read", reads}, {"guestbook-sign", signs}} {
		b.Run(of.name, func(b *testing.B) {
			s := serve(b, 64, permitAll)
			c := s.config(of.script)
			c.Scripts, c.Warm = b.N, 2*64
			r, err := load.Run(b.Context(), c)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(r.PerSecond(), "scripts/s")
			b.ReportMetric(float64(r.CPUPerScript().Microseconds()), "cpu-µs/script")
			b.ReportMetric(float64(r.P50.Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(r.P99.Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(r.Busy), "busy")
		})
	}
}
