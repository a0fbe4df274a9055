package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/history"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/revoked"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/turns"
)

// peerContext is the named environment of a peer that is held here: its files,
// policies, modules and log, open.
type peerContext struct {
	host       *Host
	entry      peer.Entry
	store      store.Store
	history    *history.History
	policies   *policy.Live
	modules    *module.Layer
	schemas    schemas
	revoked    *revoked.List
	badRevoked atomic.Pointer[string] // what is wrong with it, or the host's, as it was reported
	circles    atomic.Pointer[peer.Circles]
	badFile    atomic.Pointer[error] // what is wrong with circles.toml, nil if nothing
	rereads    rereads
	refusals   refusals
	spending   spending
	lookNext   atomic.Int64 // when a refusal may have the policies read again, Unix ns
	lookSeen   atomic.Int64 // when their folder had last changed, as of then, Unix ns
	unwatch    func()

	places *turns.Places // for scripts that are delivered
	waits  waits         // of scripts for each other

	dir fs.FileInfo // entry.Dir as it was when this was opened

	// Guarded by openContexts.mu:
	users   int
	since   time.Time     // of the last release
	retired chan struct{} // set when it is to close; closed when nobody uses it any more
}

// meet names the parties as the owner of this context knows them.
func (c *peerContext) meet(caller peer.ID, via ...peer.ID) peer.Parties {
	return c.host.peers.Meet(caller, c.entry.ID, c.circles.Load(), via...)
}

// accept decides by the policies in force. Before it refuses it looks whether
// they were changed a moment ago: who has just allowed a script, and sends it,
// should not have to wait for the file to be noticed. A permit that was taken
// back, on the other hand, is out of force as soon as that is noticed.
func (c *peerContext) accept(ctx context.Context, v *envelope.Verified, parties peer.Parties, code policy.Code) (*policy.Accepted, error) {
	if err := c.unrevoked(v, parties); err != nil {
		return nil, err
	}
	set := c.policies.Current()
	accepted, err := c.decide(ctx, set, v, parties, code)
	if err == nil {
		return accepted, nil
	}
	// A flood of refusals must not read the policies each time: a look is followed
	// by a rest, which is longer the longer the look took. Only a file that has
	// come or gone since, which is one stat call to see, is worth an end to it: on
	// a busy machine a look takes long, and the rest after the refusal that told an
	// owner how to allow a script must not make the next one be refused too.
	next := c.lookNext.Load()
	folder := folderTime(c.entry)
	if wait := time.Duration(next - c.host.now().UnixNano()); wait > lookRest && folder == c.lookSeen.Load() {
		return nil, err
	} else if wait > 0 {
		time.Sleep(min(wait, lookRest))
	}
	began := time.Now()
	if !c.lookNext.CompareAndSwap(next, c.host.now().Add(lookRest).UnixNano()) {
		return nil, err // somebody else looks
	}
	c.lookSeen.Store(folder)
	c.reread() // reports by itself
	c.lookNext.Store(c.host.now().Add(max(lookRest, 20*time.Since(began))).UnixNano())
	if c.policies.Current() == set {
		return nil, err
	}
	return c.decide(ctx, c.policies.Current(), v, parties, code)
}

// folderTime is when a file last came into the policy folder, or left it, in Unix
// ns; 0 when that cannot be told.
func folderTime(e peer.Entry) int64 {
	info, err := os.Stat(filepath.Join(e.Dir, "policy"))
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}

// lookRest is the shortest rest; a refusal waits for the end of one no longer.
const lookRest = 5 * time.Millisecond

// problem says what in the owner's files is not in force as it is written.
func (c *peerContext) problem() error {
	var circles error
	if p := c.badFile.Load(); p != nil {
		circles = *p
	}
	if err := errors.Join(c.policies.Problem(), circles, c.modules.Problem(), c.schemas.Problem()); err != nil {
		return fmt.Errorf("peer %s: %w", c.entry.Name, err)
	}
	return nil
}

func (c *peerContext) close() error {
	c.forsake()
	return c.store.Close()
}

// openContext opens what is in <root>/peers/<petname>.
func (h *Host) openContext(ctx context.Context, id peer.ID) (*peerContext, error) {
	entry, ok := h.peers.ByID(id)
	if !ok || !entry.Held() {
		return nil, &transport.Error{Code: transport.NotFound, Message: fmt.Sprintf("the context of %s is not on this host", id)}
	}
	dir, err := os.Stat(entry.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the context of %s: %w", entry.Name, err)
	}
	// Its files and what its owner edits are read side by side: somebody waits for the
	// first call.
	c := &peerContext{host: h, entry: entry, dir: dir, history: history.New(h.undoable(entry)), revoked: revoked.Open(RevokedDir(entry))}
	c.places = turns.NewPlaces(h.config.MaxPerContext)
	var edited sync.WaitGroup
	edited.Go(func() { c.follow(ctx) })
	c.store, err = h.config.OpenStore(ctx, entry)
	edited.Wait()
	if err != nil {
		c.forsake()
		// A server that is down, a disk that is away, a file that is damaged: it
		// concerns this peer only, and what it is, is the operator's to know.
		h.report(fmt.Errorf("open the context of %s: %w", entry.Name, err))
		return nil, &transport.Error{Code: transport.Unavailable, Message: fmt.Sprintf("the context of %s cannot be opened at present; the operator of its host has been told why; send it again later", id.Short())}
	}
	c.openSchemas(ctx)
	h.log.Debug("context opened", "peer", string(entry.Name), "id", entry.ID)
	return c, nil
}

// follow reads what the owner edits, and keeps up with it until forsake.
func (c *peerContext) follow(ctx context.Context) {
	h, entry := c.host, c.entry
	c.modules = module.Config{
		Label: "peer", Dir: filepath.Join(entry.Dir, "modules"), Engine: h.engine, Watcher: h.watcher, Below: h.modules, Keep: h.config.Versions,
		Report: func(e module.Event) {
			h.notice(Notice{Peer: entry.Name, Kind: "module", Module: &e, Err: e.Err})
			c.retest()
		},
	}.Open(ctx)
	c.openPolicies()
}

// forsake ends what follow began.
func (c *peerContext) forsake() {
	c.unwatch()
	c.rereads.end()
	c.schemas.end()
	c.policies.Close()
	c.modules.Close()
}

// openContexts are the contexts in use. One opens when it is first asked for,
// and closes when nobody has used it for a while, so that a host pays for the
// peers that are in use and not for all those that it could serve.
type openContexts struct {
	host *Host

	mu     sync.Mutex
	byID   map[peer.ID]*opening
	closed bool
}

// opening is a context that is open or being opened; whoever asks for it
// meanwhile waits for the first to ask.
type opening struct {
	done    chan struct{}
	context *peerContext
	err     error
	closing bool
}

// open returns the context of id, and what must be called when it is no longer
// used.
func (cs *openContexts) open(ctx context.Context, id peer.ID) (c *peerContext, release func(), err error) {
	for {
		cs.mu.Lock()
		if cs.closed {
			cs.mu.Unlock()
			return nil, nil, errShutdown
		}
		o, ok := cs.byID[id]
		if !ok {
			cs.makeRoom(1)
			o = &opening{done: make(chan struct{})}
			cs.byID[id] = o
			// Not in the sender's time: others may wait for it by then.
			go func() {
				o.context, o.err = cs.host.openContext(cs.host.running, id)
				cs.mu.Lock()
				defer cs.mu.Unlock()
				if o.err != nil {
					delete(cs.byID, id)
				} else {
					o.context.since = time.Now()
				}
				close(o.done)
			}()
		}
		cs.mu.Unlock()
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
		if errors.Is(o.err, errClosing) {
			continue // it has closed; open it anew
		}
		if o.err != nil {
			return nil, nil, o.err
		}
		cs.mu.Lock()
		if cs.byID[id] != o { // it was closed in between
			cs.mu.Unlock()
			continue
		}
		o.context.users++
		cs.mu.Unlock()
		release = sync.OnceFunc(func() { cs.release(o.context) })
		if !o.context.inPlace() {
			cs.mu.Lock()
			if cs.byID[id] == o {
				cs.retire(id, o)
			}
			cs.mu.Unlock()
			release()
			continue
		}
		return o.context, release, nil
	}
}

func (cs *openContexts) release(c *peerContext) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.users--
	c.since = time.Now()
	if c.users == 0 && c.retired != nil {
		close(c.retired)
	}
	cs.makeRoom(0)
}

// inPlace reports whether the directory that the context was opened in is still
// the peer's. An owner who moves it away, renames it or puts a backup in its
// place does not expect the old one to be written, nor its policies to count.
func (c *peerContext) inPlace() bool {
	entry, ok := c.host.peers.ByID(c.entry.ID)
	if !ok || entry.Dir != c.entry.Dir {
		return false
	}
	dir, err := os.Stat(entry.Dir)
	return err == nil && os.SameFile(dir, c.dir)
}

// makeRoom closes contexts, those first that were unused for longest, until there
// is room for n more: anybody can have a context opened, by a script that is then
// refused, and each takes some ten descriptors. Those in use stay.
func (cs *openContexts) makeRoom(n int) {
	most := cs.host.config.MaxContexts - n
	if len(cs.byID) <= most {
		return
	}
	open := 0
	var unused []peer.ID
	for id, o := range cs.byID {
		if !o.closing {
			open++
		}
		if o.unused() {
			unused = append(unused, id)
		}
	}
	slices.SortFunc(unused, func(a, b peer.ID) int {
		return cs.byID[a].context.since.Compare(cs.byID[b].context.since)
	})
	for _, id := range unused[:min(len(unused), max(open-most, 0))] {
		cs.retire(id, cs.byID[id])
	}
}

// unused reports whether it is open, and nobody uses it.
func (o *opening) unused() bool {
	select {
	case <-o.done:
		return o.err == nil && o.context.users == 0
	default:
		return false
	}
}

// retire closes an open context when nobody uses it any more. It stays in byID
// meanwhile: whoever asks for it waits, and then opens it anew, when this one has
// let go of its files.
func (cs *openContexts) retire(id peer.ID, o *opening) {
	closing := &opening{done: make(chan struct{}), err: errClosing, closing: true}
	cs.byID[id] = closing
	unused := o.context.retire()
	go func() {
		<-unused
		if err := o.context.close(); err != nil {
			cs.host.log.Error("close context", "peer", o.context.entry.Name, "error", err)
		}
		cs.mu.Lock()
		defer cs.mu.Unlock()
		if cs.byID[id] == closing {
			delete(cs.byID, id)
		}
		close(closing.done)
	}()
}

// retire returns what is closed when nobody uses c any more.
func (c *peerContext) retire() <-chan struct{} {
	c.retired = make(chan struct{})
	if c.users == 0 {
		close(c.retired)
	}
	return c.retired
}

// idleOut closes the contexts that nobody has used since before.
func (cs *openContexts) idleOut(before time.Time) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for id, o := range cs.byID {
		if o.unused() && !o.context.since.After(before) {
			cs.retire(id, o)
		}
	}
}

// errClosing is what who waits for a context that closes finds; it asks again.
var errClosing = errors.New("the context is being closed")

// each calls f with every context that is open now.
func (cs *openContexts) each(f func(*peerContext)) {
	cs.mu.Lock()
	var open []*peerContext
	for _, o := range cs.byID {
		select {
		case <-o.done:
			if o.err == nil {
				open = append(open, o.context)
			}
		default:
		}
	}
	cs.mu.Unlock()
	for _, c := range open {
		f(c)
	}
}

// close closes every context, each when the scripts that are under way there,
// which have been cancelled, are done with: they must not find it half closed,
// without the modules that shadow those of the host.
func (cs *openContexts) close() error {
	cs.mu.Lock()
	cs.closed = true
	waiting := cs.byID
	cs.byID = map[peer.ID]*opening{}
	cs.mu.Unlock()
	var errs []error
	for _, o := range waiting {
		<-o.done
		if o.err == nil {
			cs.mu.Lock()
			unused := o.context.retire()
			cs.mu.Unlock()
			<-unused
			errs = append(errs, o.context.close())
		}
	}
	return errors.Join(errs...)
}

// refusals bounds how many scripts that did not run enter the log: anybody can
// be refused, as often as they like, and the owner's disk must not pay for it.
type refusals struct {
	mu   sync.Mutex
	left float64
	last time.Time
}

const (
	refusalsPerMinute = 60
	refusalsBurst     = 600
)

// take reports whether one more may be logged.
func (r *refusals) take(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last.IsZero() {
		r.left = refusalsBurst
	} else {
		r.left = min(refusalsBurst, r.left+now.Sub(r.last).Minutes()*refusalsPerMinute)
	}
	r.last = now
	if r.left < 1 {
		return false
	}
	r.left--
	return true
}
