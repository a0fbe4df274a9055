package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

var quiet = slog.New(slog.DiscardHandler)

// withExample is a plugin of ours that has the example keep its files.
func withExample(t *testing.T, args ...string) Config {
	c := play(args...)
	c.Settings = map[string]string{"example": example, "path": filepath.Join(t.TempDir(), "store")}
	c.Log = quiet
	return c
}

// TestDiesInTransaction: what runs fails, nothing of it is kept, and the next
// transaction has a new process.
func TestDiesInTransaction(t *testing.T) {
	c := exampleConfig(t)
	c.Log = quiet
	s := mustOpen(t, c)
	if err := put(s, "f", "kept", store.Key{1}); err != nil {
		t.Fatal(err)
	}
	first := s.now.connection.process
	err := s.Update(context.Background(), func(tx store.Tx) error {
		fs := tx.Files(nil)
		if err := fs.Mkdir("d"); err != nil {
			return err
		}
		first.cmd.Process.Kill()
		<-first.ended
		if _, err := fs.Open("f", store.FlagRead); !errors.Is(err, errDead) {
			t.Errorf("after its end a call says %v", err)
		}
		return tx.Append(store.Key{2}, nil)
	})
	if !errors.Is(err, errDead) || errors.Is(err, overlay.ErrBroken) {
		t.Errorf("update: %v", err)
	}
	if got := get(t, s, "f"); got != "kept" {
		t.Errorf("the file holds %q", got)
	}
	if _, found, err := s.Entry(context.Background(), store.Key{2}); found || err != nil {
		t.Errorf("the entry of what failed is there: %v, %v", found, err)
	}
	if s.now.connection.process == first {
		t.Error("it was not started again")
	}
	if err := put(s, "f", "goes on", store.Key{3}); err != nil {
		t.Error(err)
	}
}

// TestDiesInCommit: nobody knows, and says so; the one that is started next does.
func TestDiesInCommit(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			s := mustOpen(t, withExample(t, "dies", when))
			if err := put(s, "f", "first", store.Key{1}); err != nil {
				t.Fatal(err)
			}
			key := randomKey(0xdd)
			if err := put(s, "f", "second", key); !errors.Is(err, overlay.ErrBroken) || !errors.Is(err, store.ErrUnknown) {
				t.Fatalf("the commit's error is %v", err)
			}
			_, found, err := s.Entry(context.Background(), key)
			if err != nil || found != (when == "after") {
				t.Errorf("the entry is there: %v, %v", found, err)
			}
			if got := get(t, s, "f"); got != map[string]string{"before": "first", "after": "second"}[when] {
				t.Errorf("the file holds %q", got)
			}
			if seq, _ := s.head.get(); seq != map[string]uint64{"before": 1, "after": 2}[when] {
				t.Errorf("the host takes entry %d for the last", seq)
			}
			if err := walk(s, 1); err != nil {
				t.Errorf("log: %v", err)
			}
			if err := put(s, "f", "third", store.Key{3}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHangs: each call ends, the plugin with it, and the next use starts another.
func TestHangs(t *testing.T) {
	use := func(s store.Store) error {
		return errors.Join(put(s, "f", "content", randomKey(1)), func() error { _, err := read(s, "f"); return err }(), list(s), readLink(s), walk(s, 1))
	}
	for _, call := range []string{"Lstat", "OpenFile", "ReadFile", "Stage", "WriteStaged", "Prepare", "Commit", "HasKey", "ReadDir", "Log", "CloseFile"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			c := withExample(t, "hangs", call, "kept")
			c.CallTimeout, c.CommitTimeout = time.Second, time.Second
			s := mustOpen(t, c)
			first := s.now.connection.process
			done := make(chan error, 1)
			go func() { done <- use(s) }()
			select {
			case err := <-done:
				if err == nil {
					t.Error("nothing failed")
				}
				if broken := errors.Is(err, overlay.ErrBroken); broken != (call == "Commit") {
					t.Errorf("broken %v: %v", broken, err)
				}
			case <-time.After(time.Minute):
				t.Fatal("the host is held")
			}
			select {
			case <-first.ended:
			case <-time.After(10 * time.Second):
				t.Error("it was not ended")
			}
			_ = stat(s)
			if s.now != nil && s.now.connection.process == first {
				t.Error("the same one goes on")
			}
		})
	}
	t.Run("Open", func(t *testing.T) {
		t.Parallel()
		c := play("hangs", "Open")
		c.Log = quiet
		c.StartTimeout = 3 * time.Second
		_, err := Open(context.Background(), c)
		if err == nil || !strings.Contains(err.Error(), "gone") {
			t.Errorf("open: %v", err)
		}
	})
	t.Run("Close", func(t *testing.T) {
		t.Parallel()
		c := play("hangs", "Close")
		c.CommitTimeout = time.Second
		s := mustOpen(t, c)
		p := s.now.connection.process
		if err := s.Close(); !errors.Is(err, errDead) {
			t.Errorf("close: %v", err)
		}
		<-p.ended
	})
	t.Run("WithItsCaller", func(t *testing.T) { // whose time is shorter
		t.Parallel()
		c := play("hangs", "Log")
		s := mustOpen(t, c)
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		for _, err := range s.Log(ctx, 1) {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("log: %v", err)
			}
		}
		if s.now.connection.client.gone() {
			t.Error("it was ended for a caller that did not wait")
		}
	})
}

// TestCommitIsNotGivenUpHalfWay: a caller that stops waiting does not make the
// outcome unknown.
func TestCommitIsNotGivenUpHalfWay(t *testing.T) {
	c := withExample(t, "waits")
	c.Settings["begun"], c.Settings["go"] = filepath.Join(t.TempDir(), "begun"), filepath.Join(t.TempDir(), "go")
	s := mustOpen(t, c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Update(ctx, func(tx store.Tx) error { return errors.Join(tx.Files(nil).Mkdir("d"), tx.Append(store.Key{1}, nil)) })
	}()
	appears(t, c.Settings["begun"])
	cancel()
	if err := os.WriteFile(c.Settings["go"], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the commit: %v", err)
	}
	if _, found, err := s.Entry(context.Background(), store.Key{1}); !found || err != nil {
		t.Errorf("its entry: %v, %v", found, err)
	}
	if err := s.Update(ctx, func(tx store.Tx) error { return tx.Append(store.Key{2}, nil) }); !errors.Is(err, context.Canceled) || errors.Is(err, overlay.ErrBroken) {
		t.Errorf("one whose caller was gone before: %v", err)
	}
}

// lines is a log that counts.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

func (l *lines) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// TestFloods: 10 MB and more on its standard error and output, and the host's log
// has a few lines of it, none of them long.
func TestFloods(t *testing.T) {
	for _, where := range []string{"stderr", "later"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			var l lines
			c := play("floods", where)
			c.Log = slog.New(slog.NewTextHandler(&l, nil))
			now := time.Now()
			c.Now = func() time.Time { return now } // no time passes
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s := mustOpen(t, c)
			if err := put(s, "f", "content", store.Key{1}); err != nil {
				t.Error(err)
			}
			runtime.ReadMemStats(&after)
			got := l.get()
			if len(got) != outputBurst {
				t.Errorf("%d lines were logged, want %d", len(got), outputBurst)
			}
			for _, line := range got {
				if len(line) > 2*outputLine || strings.ContainsRune(line, '\x1b') {
					t.Errorf("a line of %d bytes: %.80q", len(line), line)
				}
			}
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
				t.Errorf("the heap has grown by %d bytes", grown)
			}
		})
	}
	t.Run("stdout", func(t *testing.T) { // where it should say where it listens
		t.Parallel()
		c := play("floods", "stdout")
		_, err := Open(context.Background(), c)
		if err == nil || len(err.Error()) > 4000 {
			t.Errorf("open: %.5000v", err)
		}
	})
}

// TestNotAPlugin: what is no plugin, or one of another version, is refused, with
// an error that helps, and is gone.
func TestNotAPlugin(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	visited := make(chan struct{})
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
			close(visited)
		}
	}()
	elsewhere := filepath.Join(t.TempDir(), "s")
	u, err := net.Listen("unix", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	for name, c := range map[string]struct {
		config Config
		want   string
	}{
		"Nothing":            {Config{Command: filepath.Join(t.TempDir(), "nothing")}, "find the storage plugin"},
		"NotAProgram":        {Config{Command: t.TempDir()}, "find the storage plugin"},
		"EndsAtOnce":         {Config{Command: "false"}, "start the storage plugin"},
		"SaysSomethingElse":  {play("says", "hello"), "hello"},
		"SaysNothing":        {Config{Command: "sleep", Args: []string{"1000"}}, "not ready within"},
		"OtherCore":          {play("says", "9|1|unix|/x|grpc|"), "core"},
		"OtherVersion":       {play("says", "1|99|unix|/x|grpc|"), "incompatible API version"},
		"NegativeVersion":    {play("says", "1|-1|unix|/x|grpc|"), "incompatible API version"},
		"OldProtocol":        {play("says", "1|1|tcp|"+l.Addr().String()+"|netrpc|"), "listens"},
		"ListensElsewhere":   {play("says", "1|1|tcp|"+l.Addr().String()+"|grpc|"), "listens"},
		"AnotherSocket":      {play("says", "1|1|unix|"+elsewhere+"|grpc|"), "listens"},
		"NoSocket":           {play("says", "1|1|unix|../x|grpc|"), "listens"},
		"CertificateGarbage": {play("says", "1|1|unix|/x|grpc|"+strings.Repeat("A", 60)), "listens"},
		"LineOfOneMegabyte":  {play("says", strings.Repeat("x", 100_000)), "start the storage plugin"},
		"WithoutTLS":         {play("plain"), ""},
		"DigestOfAnother":    {Config{Command: example, SHA256: strings.Repeat("0", 64)}, "is not the storage plugin that was named"},
		"DigestGarbage":      {Config{Command: example, SHA256: "abc"}, "64 hexadecimal digits"},
		"RefusesToOpen":      {Config{Command: example}, "the setting path is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.config.StartTimeout, c.config.Log = time.Minute, quiet
			if name == "SaysNothing" {
				c.config.StartTimeout = time.Second
			}
			_, err := Open(context.Background(), c.config)
			if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 4000 {
				t.Errorf("open: %.5000v; want %q", err, c.want)
			}
		})
	}
	t.Cleanup(func() {
		select {
		case <-visited:
			t.Error("the host went where the plugin sent it")
		default:
		}
	})
}

// TestPinned: the program that has the digest runs, and only that.
func TestPinned(t *testing.T) {
	b, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	c := exampleConfig(t)
	c.SHA256 = fmt.Sprintf("%x", sha256.Sum256(b))
	if err := put(mustOpen(t, c), "f", "content", store.Key{1}); err != nil {
		t.Error(err)
	}
}

// TestBackOff: a plugin that fails again and again is not started again and again.
func TestBackOff(t *testing.T) {
	c := exampleConfig(t)
	c.Log, c.RestartDelay = quiet, time.Second
	var mu sync.Mutex
	now := time.Now()
	c.Now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	s := mustOpen(t, c)
	starts := filepath.Join(t.TempDir(), "starts")
	first := s.now.connection.process
	s.config.Command, s.config.Args = os.Args[0], []string{"play", "counts", starts} // replaced by a bad one
	first.cmd.Process.Kill()
	<-s.now.connection.client.dead
	count := func() int {
		b, _ := os.ReadFile(starts)
		return bytes.Count(b, []byte("started"))
	}
	for i, step := range []struct {
		wait time.Duration
		want int
	}{{0, 1}, {time.Second / 2, 1}, {time.Second, 2}, {time.Second, 2}, {time.Second, 3}, {3 * time.Second, 3}, {time.Second, 4}, {time.Hour, 5}, {time.Minute, 6}, {time.Minute, 7}} {
		pass(step.wait)
		for range 5 {
			err := stat(s)
			if err == nil {
				t.Fatal("it works")
			}
			if n := count(); n != step.want {
				t.Fatalf("step %d: started %d times, want %d; %v", i, n, step.want, err)
			}
		}
	}
	if err := stat(s); err == nil || !strings.Contains(err.Error(), "is started again in 1m0s") {
		t.Errorf("the error does not tell when it is tried again: %v", err)
	}
	s.config.Command, s.config.Args = c.Command, nil // somebody has mended it
	pass(time.Minute)
	if err := stat(s); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("after that: %v", err)
	}
}

// TestForgets: a plugin that was started again without what it had acknowledged is
// not used.
func TestForgets(t *testing.T) {
	c := play("honest")
	c.Log = quiet
	s := mustOpen(t, c)
	if err := put(s, "f", "content", store.Key{1}); err != nil {
		t.Fatal(err)
	}
	first := s.now.connection.process
	first.cmd.Process.Kill()
	<-s.now.connection.client.dead
	if err := stat(s); err == nil || !strings.Contains(err.Error(), "log entry 1 of the storage plugin: it is missing") {
		t.Errorf("after it has forgotten all: %v", err)
	}
}

// TestConcurrentUse: many transactions, a plugin that is killed now and then, and
// nothing that was acknowledged is lost.
func TestConcurrentUse(t *testing.T) {
	c := exampleConfig(t)
	c.Log, c.RestartDelay = quiet, time.Millisecond
	s := mustOpen(t, c)
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := map[store.Key]bool{}
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := randomKey(1)
				if put(s, fmt.Sprint("f", i%3), "content", key) == nil {
					mu.Lock()
					acked[key] = true
					mu.Unlock()
				}
				_, _ = read(s, "f0")
			}
		})
	}
	for range 8 {
		time.Sleep(100 * time.Millisecond)
		s.mu.Lock()
		if g := s.now; g != nil {
			_ = g.connection.process.Kill(context.Background())
		}
		s.mu.Unlock()
	}
	close(stop)
	wg.Wait()
	var err error
	for deadline := time.Now().Add(30 * time.Second); ; {
		if err = put(s, "last", "x", store.Key{9}); err == nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	seen := map[store.Key]bool{}
	for e, err := range s.Log(context.Background(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		seen[e.Key] = true
	}
	for key := range acked {
		if !seen[key] {
			t.Errorf("%x was acknowledged and is lost", key[:4])
		}
	}
	if len(acked) < 10 {
		t.Errorf("only %d commits: the test tests little", len(acked))
	}
}
