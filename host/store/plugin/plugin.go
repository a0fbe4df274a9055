// Package plugin keeps a context in a process of somebody else's: a storage
// backend that is not part of this program. A host begins with Open, the author
// of a backend with Serve.
//
// # What crosses
//
// The process implements overlay.Backend, and is called over gRPC on a Unix
// socket (on Windows, on loopback) with a certificate at each end that is made
// for the one process: hashicorp/go-plugin's handshake, version 1, with its
// AutoMTLS. proto/circles/storage/v1/storage.proto has the messages. One process
// keeps one context, and is told of no other.
//
// Paths, links, guards, limits, quotas and the order of transactions stay in the
// host, in package overlay. A plugin is asked for single entries of one context
// and given what a transaction changed. So it is trusted with the bytes of that
// context and with nothing else of the host's. It is a program all the same, and
// runs with the rights of the host's user: one that is not trusted that far is
// started by a Command that confines it (bwrap, systemd-run, a container).
//
// # What a host believes
//
// Nothing that it can check. A name that is none, a size below zero, an entry
// given twice, more than was asked for, a message over 4 MiB, a log whose numbers
// or hashes do not link, or that has lost what was acknowledged: such an answer
// fails the call, and a plugin that lies is ended. A call ends at CallTimeout,
// and so does the plugin: it hangs. What it writes to its standard error goes to
// the host's log, 100 lines at once and 5 a second after that.
//
// # When it ends
//
// A transaction that is running fails; nothing of it was committed. A commit that
// was sent and not answered is store.ErrUnknown and overlay.ErrBroken. In either case
// the store starts the plugin again when it is next used, and whoever retries
// finds out by the key of the log entry. A plugin that fails again and again is
// started after a delay, that doubles up to a minute; until then every use is an
// error that says so.
//
// The process has a group of its own, which is killed with it; on Linux the
// kernel kills it when the host dies, and Serve ends when its standard input
// does, which is when the host is gone, in whatever way.
package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate

// Config says which program keeps a context, and how long it is waited for.
// Command is required; the zero value of the rest works.
type Config struct {
	// Command is the program: a path, or a name that is looked for in PATH.
	Command string
	Args    []string
	// Env is all that the program gets of the environment: "NAME" for the value
	// that the host has, or "NAME=value".
	Env []string
	// Dir is where it runs; "" means where the host does.
	Dir string
	// SHA256, if set, is the digest that the program must have, in hexadecimal. It
	// is then a program that the kernel runs, and not a script.
	SHA256 string
	// Settings mean something to the plugin: where it keeps the context, above
	// all. They are not seen in a list of processes.
	Settings map[string]string

	// StartTimeout is how long it may take to start and to open the context;
	// default 20 s.
	StartTimeout time.Duration
	// CallTimeout is how long it may take to answer; default 10 s.
	CallTimeout time.Duration
	// CommitTimeout is how long a copy, a preparation, a commit or closing may
	// take; default 1 min.
	CommitTimeout time.Duration
	// RestartDelay is waited before a plugin that failed twice in a row is started
	// again; it doubles each time, up to a minute. Default 1 s.
	RestartDelay time.Duration

	Limits overlay.Limits
	Now    func() time.Time // default time.Now
	// Log is for the host's operator, and has what the plugin writes to its
	// standard error. nil means slog.Default().
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	c.StartTimeout = cmp.Or(c.StartTimeout, 20*time.Second)
	c.CallTimeout = cmp.Or(c.CallTimeout, 10*time.Second)
	c.CommitTimeout = cmp.Or(c.CommitTimeout, time.Minute)
	c.RestartDelay = cmp.Or(c.RestartDelay, time.Second)
	c.Limits.RecordBytes = cmp.Or(c.Limits.RecordBytes, 16<<20)
	c.Log = cmp.Or(c.Log, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

const (
	maxRestartDelay = time.Minute
	// healthy is how long a plugin has to run for an earlier failure to be
	// forgotten.
	healthy = time.Minute
)

// Store is a context that a plugin keeps. It is safe for concurrent use.
type Store struct {
	config Config
	head   head

	turn chan struct{} // holds one value while somebody starts the plugin

	mu       sync.Mutex
	now      *generation
	failures int             // in a row
	next     time.Time       // not started again before
	dying    <-chan struct{} // closed when the last one is gone
	closed   bool
	old      sync.WaitGroup // generations that are being put away
	bounds   bounds
}

// generation is one run of the plugin.
type generation struct {
	connection *connection
	store      *overlay.Store
	began      time.Time
}

// Open starts the plugin, and opens the context in it.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Command == "" {
		return nil, errors.New("open store: no storage plugin is named")
	}
	s := &Store{config: c.withDefaults(), turn: make(chan struct{}, 1)}
	k, err := connect(ctx, s.config, &s.head)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.now = s.generation(k)
	return s, nil
}

// current is the store on the plugin that runs. If none does, it starts one, or
// says why not.
func (s *Store) current(ctx context.Context) (*overlay.Store, error) {
	if g, err := s.running(); g != nil || err != nil {
		return g, err
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if g, err := s.running(); g != nil || err != nil {
		return g, err
	}
	s.mu.Lock()
	wait, failures, dying := s.next.Sub(s.config.Now()), s.failures, s.dying
	s.mu.Unlock()
	if wait > 0 {
		return nil, fmt.Errorf("storage plugin %s failed %d times in a row, the log says why; it is started again in %v",
			s.config.Command, failures, wait.Round(10*time.Millisecond))
	}
	if dying != nil {
		select {
		case <-dying: // it was killed; a second one must not meet it
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	k, err := connect(ctx, s.config, &s.head)
	if err != nil {
		if ctx.Err() == nil { // else it was given up, and did not fail
			s.failed(err)
		}
		return nil, err
	}
	g := s.generation(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.old.Go(func() { _ = g.close() })
		return nil, store.ErrClosed
	}
	s.now = g
	return g.store, nil
}

func (s *Store) generation(k *connection) *generation {
	on := overlay.New(k.backend, overlay.Config{Limits: s.config.Limits, Now: s.config.Now})
	s.mu.Lock()
	b := s.bounds
	s.mu.Unlock()
	on.Bound(b.quota, b.memo)
	on.Widen(b.wide)
	return &generation{connection: k, began: s.config.Now(), store: on}
}

// running is the store on the plugin that runs, nil if there is none.
func (s *Store) running() (*overlay.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	g := s.now
	if g == nil {
		return nil, nil
	}
	if !g.connection.client.gone() {
		return g.store, nil
	}
	// Its transactions fail by themselves, and may take a while to. What follows
	// waits for none of them: none can commit any more.
	s.now = nil
	if s.config.Now().Sub(g.began) > healthy {
		s.failures = 0
	}
	s.fail(g.connection.client.usable())
	s.dying = g.connection.process.ended
	s.old.Go(func() { _ = g.close() })
	return nil, nil
}

func (s *Store) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err)
}

func (s *Store) fail(err error) {
	s.failures++
	delay := time.Duration(0)
	if s.failures > 1 {
		delay = min(maxRestartDelay, s.config.RestartDelay<<min(s.failures-2, 16))
	}
	s.next = s.config.Now().Add(delay)
	s.config.Log.Error("storage plugin failed", "command", s.config.Command, "error", err, "in a row", s.failures, "next start in", delay)
}

func (g *generation) close() error {
	err := g.store.Close()
	g.connection.end()
	return err
}

// View implements store.Store.
func (s *Store) View(ctx context.Context, f func(store.Tx) error) error {
	on, err := s.current(ctx)
	if err != nil {
		return fmt.Errorf("begin view: %w", err)
	}
	return on.View(ctx, f)
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, f func(store.Tx) error) error {
	on, err := s.current(ctx)
	if err != nil {
		return fmt.Errorf("begin update: %w", err)
	}
	return on.Update(ctx, f)
}

// Entry implements store.Store.
func (s *Store) Entry(ctx context.Context, key store.Key) (store.Entry, bool, error) {
	on, err := s.current(ctx)
	if err != nil {
		return store.Entry{}, false, fmt.Errorf("read log entry: %w", err)
	}
	return on.Entry(ctx, key)
}

// Log implements store.Store.
func (s *Store) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		on, err := s.current(ctx)
		if err != nil {
			yield(store.Entry{}, fmt.Errorf("read log: %w", err))
			return
		}
		on.Log(ctx, from)(yield)
	}
}

// Close implements store.Store. A second Close does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	g := s.now
	s.now = nil
	s.mu.Unlock()
	var err error
	if g != nil {
		err = g.close()
	}
	s.old.Wait()
	return err
}
