package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/imports/wasi"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/review"
	"github.com/circles-host/circles/host/revoked"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/turns"
	"github.com/circles-host/circles/host/watch"
)

// Config configures a Host. OpenStore is required; the zero value of the rest
// works.
type Config struct {
	// OpenStore opens the store of a peer that is held here. The Host closes it.
	OpenStore func(ctx context.Context, e peer.Entry) (store.Store, error)
	// Only, if not empty, are the peers that are served; others that the root
	// holds are as if they were elsewhere.
	Only []peer.ID
	// Limits of each script. The deadline that it carries may be nearer.
	Limits engine.Limits
	// Files limits what each script may use of its target's files; a zero field
	// leaves it as the store has it.
	Files store.Limits
	// Undo says what is kept to undo scripts by. Where Undo.Bytes is 0, no more
	// than a quarter of a context's quota is.
	Undo history.Config
	// Versions says how much of the past of its modules each layer keeps.
	Versions module.Keep
	// Review bounds what waits in each context for its owner to approve.
	Review review.Limits
	// Languages are those whose texts are run here; the command has a table of them.
	Languages []engine.Language
	// CacheDir keeps compiled code. "" means cache in the root.
	CacheDir string
	// IdleAfter is how long a context stays open unused. 0 means 5 minutes.
	IdleAfter time.Duration
	// MaxContexts bounds the contexts that are kept open unused. 0 means 1,000.
	MaxContexts int
	// MaxScripts bounds the scripts that run, or wait to, and MaxPerContext those in
	// one context; one more is turned away. Of both a caller gets no more than are left
	// for others: alone half. 0 means 64 and 48.
	MaxScripts    int
	MaxPerContext int
	// MaxSends bounds the scripts that one script sends to other peers. 0 means 16; it
	// is no more than script.MaxSent.
	MaxSends int
	// Dial makes a way to another host, for scripts that are sent there by others. nil
	// means that none is.
	Dial func(url string) (transport.Sender, error)
	// Turns bounds what all scripts together take of the machine, and how many
	// wait. Its zero value works; a memory that is less than what one script may
	// have is raised to that.
	Turns turns.Config
	// Notify is told what an owner or operator should see: a policy or module
	// that was reloaded, or that is broken and left the last good one in force.
	// It must not block and not call the Host. nil logs it.
	Notify func(Notice)
	// Log is for the host's operator. nil means slog.Default().
	Log *slog.Logger
	// Now is the host's clock. nil means time.Now.
	Now func() time.Time
}

// Notice is something that changed, or failed to, while the host runs.
type Notice struct {
	Peer   peer.Name     // whose; "" for the modules of the host
	Kind   string        // "policy", "circles", "module" or "schema"
	Err    error         // what is wrong; nil when it is well again, or changed
	Module *module.Event // for a module
	About  string        // for a schema: which, and what became of it
}

// Host serves the contexts that a root holds. It is safe for concurrent use.
type Host struct {
	config   Config
	key      *peer.Key
	peers    *peer.Directory
	quota    Quota // of a context whose peer.toml has none
	engine   *engine.Engine
	modules  *module.Layer // shared by all contexts
	revoked  *revoked.List // for all contexts
	turns    *turns.Turns
	places   *turns.Places // for scripts that are delivered
	contexts *openContexts
	ways     ways // to other hosts
	watcher  *watch.Watcher
	log      *slog.Logger
	now      func() time.Time

	delegations string // the folder of those that the host was given
	workerOf    func(context.Context, peer.Entry) string

	running context.Context // until Close
	stop    context.CancelFunc
	tasks   sync.WaitGroup
}

// keptPrograms are those whose context is closed, or whose script carried them, and
// that are ready when it comes again.
const keptPrograms = 64

var errShutdown = &transport.Error{Code: transport.Unavailable, Message: "the host is shutting down; send it again soon"}

// Open starts serving root: its modules are compiled, or read from the cache,
// before it returns; contexts open when they are first asked for.
func Open(ctx context.Context, root *Root, c Config) (*Host, error) {
	if c.OpenStore == nil {
		return nil, errors.New("open host: no OpenStore: say where contexts are stored")
	}
	if c.IdleAfter <= 0 {
		c.IdleAfter = 5 * time.Minute
	}
	// More than a receipt holds is no result, but a failure of the host.
	c.Limits.Output = min(c.Limits.Output, script.MaxResult)
	c.Limits.Log = min(c.Limits.Log, script.MaxLog)
	if c.MaxContexts <= 0 {
		c.MaxContexts = 1000
	}
	if c.MaxScripts <= 0 {
		c.MaxScripts = 64
	}
	if c.MaxPerContext <= 0 {
		c.MaxPerContext = 48
	}
	if c.MaxSends <= 0 {
		c.MaxSends = defaultSends
	}
	c.MaxSends = min(c.MaxSends, script.MaxSent)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.CacheDir == "" {
		c.CacheDir = filepath.Join(root.Dir, "cache")
	}
	c.Limits = c.Limits.WithDefaults()
	if c.Turns.Memory != 0 {
		c.Turns.Memory = max(c.Turns.Memory, c.Limits.Memory)
	}
	c.Turns.Script, c.Turns.Levels = c.Limits.Memory, script.MaxWithin
	key, err := root.Key()
	if err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	e, err := engine.New(ctx, engine.Config{CacheDir: c.CacheDir, Keep: keptPrograms, Languages: c.Languages}, HostModules()...)
	if err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	h := &Host{config: c, key: key, peers: root.Peers, quota: root.Config.Quota, engine: e, revoked: revoked.Open(root.RevokedDir()), turns: turns.New(c.Turns), places: turns.NewPlaces(c.MaxScripts), log: c.Log, now: c.Now}
	h.delegations, h.workerOf = root.DelegationsDir(), root.Worker
	h.running, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	h.contexts = &openContexts{host: h, byID: map[peer.ID]*opening{}}
	h.watcher = watch.New(watch.Options{Warn: func(err error) { c.Log.Warn("follow files", "error", err) }})
	h.modules = module.Config{
		Label: "host", Dir: filepath.Join(root.Dir, "modules"), Engine: e, Watcher: h.watcher, Keep: c.Versions,
		Report: func(ev module.Event) {
			h.notice(Notice{Kind: "module", Module: &ev, Err: ev.Err})
			h.contexts.each((*peerContext).hostChanged)
		},
	}.Open(ctx)
	h.tasks.Go(h.idle)
	return h, nil
}

// Holds reports whether the context of id is served here.
func (h *Host) Holds(id peer.ID) bool {
	return h.peers.Holds(id) && (len(h.config.Only) == 0 || slices.Contains(h.config.Only, id))
}

// ID is the host's identity, which signs its receipts.
func (h *Host) ID() peer.ID { return h.key.ID() }

// Problem says what in the files of the root and of the contexts that are open
// is not in force as it is written; nil if nothing.
func (h *Host) Problem() error {
	errs := append(h.peers.Problems(), h.modules.Problem())
	h.contexts.each(func(c *peerContext) { errs = append(errs, c.problem()) })
	return errors.Join(errs...)
}

// Close ends what runs, without effects, and releases everything. Whoever wants
// running scripts to finish lets the transports drain first.
func (h *Host) Close() error {
	h.stop()
	h.tasks.Wait()
	err := h.contexts.close()
	h.ways.close()
	h.modules.Close()
	h.watcher.Close()
	return errors.Join(err, h.engine.Close(context.Background()))
}

// idle closes contexts that are not in use.
func (h *Host) idle() {
	tick := time.NewTicker(h.config.IdleAfter / 4)
	defer tick.Stop()
	for {
		select {
		case <-h.running.Done():
			return
		case <-tick.C:
			h.contexts.idleOut(time.Now().Add(-h.config.IdleAfter))
		}
	}
}

// limits are what a script may use: what the host allows, as far as the policies
// that permitted it do not narrow that.
func (h *Host) limits(a *policy.Accepted) engine.Limits {
	l, by := h.config.Limits, a.Limits()
	narrow := func(limit *uint64, to uint64) {
		if to != 0 && (*limit == 0 || to < *limit) {
			*limit = to
		}
	}
	if by.Time != 0 {
		l.Wall = min(l.Wall, by.Time)
	}
	narrow(&l.Memory, by.Memory)
	narrow(&l.Output, by.Output)
	narrow(&l.Log, by.Log)
	narrow(&l.HostCalls, by.HostCalls)
	narrow(&l.Fuel, by.Fuel)
	return l
}

// limitFiles does for the target's files what limits does for the rest, and
// returns how many of them the script may have open; 0 is the default.
func (h *Host) limitFiles(tx store.Tx, a *policy.Accepted) (handles int) {
	limits, by := h.config.Files, a.Limits()
	if limits.Handles > 0 {
		limits.Handles += ownHandles
	}
	limits = tx.Limit(limits)
	limits.Bytes = nearer(limits.Bytes, by.Bytes)
	limits.FileSize = nearer(limits.FileSize, by.File)
	limits.Entries = nearer(limits.Entries, by.Entries)
	limits.Depth = nearer(limits.Depth, by.Depth)
	tx.Limit(limits)
	return nearer(cmp.Or(h.config.Files.Handles, wasi.DefaultHandles), by.Handles)
}

// nearer is limit, or what narrows it, if that is above 0.
func nearer[N int | int64](limit N, to uint64) N {
	if to == 0 || uint64(limit) < to {
		return limit
	}
	return N(to)
}

// deadline bounds a script: by its own deadline, by the host's limit, and by the
// host's life.
func (h *Host) deadline(ctx context.Context, a *policy.Accepted) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithDeadline(ctx, a.Script().Deadline)
	unlink := context.AfterFunc(h.running, cancel)
	return ctx, func() { unlink(); cancel() }
}

// report tells the operator what senders are not told.
func (h *Host) report(err error) { h.log.Error("host failure", "error", err) }

func (h *Host) notice(n Notice) {
	if h.config.Notify != nil {
		h.config.Notify(n)
		return
	}
	args := []any{"peer", n.Peer, "kind", n.Kind}
	level := slog.LevelInfo
	if n.Module != nil {
		if n.Module.Kind == module.Loaded {
			level = slog.LevelDebug // as each is when a context opens
		}
		args = append(args, "module", n.Module.Name, "event", n.Module.Kind)
		if n.Module.Kind == module.Held {
			h.log.Warn("saved, and not in force", append(args, "why", strings.Join(n.Module.Notes, "; "))...)
			return
		}
	}
	if n.About != "" {
		args = append(args, "about", n.About)
	}
	if n.Err != nil {
		h.log.Warn("not in force; the last good version stays", append(args, "error", n.Err)...)
		return
	}
	h.log.Log(h.running, level, "reloaded", args...)
}
