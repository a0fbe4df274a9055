package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
	pb "github.com/circles-host/circles/host/store/plugin/storagepb"
)

// client is the overlay.Backend that a running plugin is. It believes nothing:
// an answer that cannot be ends the process, as does one that comes too late or
// not at all. Then every further call fails at once.
type client struct {
	lower  // the committed state
	config Config
	rpc    pb.BackendServiceClient
	head   *head
	kill   func() // ends the process; returns at once

	ids    atomic.Uint64
	commit chan struct{} // holds one value: a commit at a time

	mu     sync.Mutex
	plan   *overlay.Plan // the last that was prepared
	planID uint64
	queue  []func() // later's; the first is running
	fault  error    // why it is of no use any more
	closed bool
	dead   chan struct{} // closed with fault set
}

func newClient(c Config, conn grpc.ClientConnInterface, h *head, kill func()) *client {
	cl := &client{
		config: c, rpc: pb.NewBackendServiceClient(conn), head: h, kill: kill,
		commit: make(chan struct{}, 1), dead: make(chan struct{}),
	}
	cl.lower = lower{c: cl, ctx: context.Background()}
	return cl
}

// errDead is the error of a plugin whose process is gone, or has to go.
var errDead = errors.New("the storage plugin is gone")

// fail gives the plugin up, for the first reason that there is.
func (c *client) fail(reason error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault == nil {
		c.fault = fmt.Errorf("%w: %w", errDead, reason)
		close(c.dead)
		c.kill()
	}
	return c.fault
}

// usable is nil while the plugin is.
func (c *client) usable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return store.ErrClosed
	}
	return c.fault
}

// gone reports whether the plugin was given up.
func (c *client) gone() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// ended is what a call's error means: that of the caller's context if that has
// ended, else the end of the plugin. A call that nobody waits for is not held
// against the plugin: the next one is.
func (c *client) ended(ctx context.Context, call string, err error) error {
	if fault := c.usable(); fault != nil {
		return fault
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// The other end keeps the same deadline, and its answer may be here first.
	if end, ok := ctx.Deadline(); ok && status.Code(err) == codes.DeadlineExceeded && time.Until(end) < 100*time.Millisecond {
		return context.DeadlineExceeded
	}
	return c.fail(fmt.Errorf("%s: %s", call, printable(err.Error())))
}

// call makes a call that must be answered within a time. The refusal of the
// plugin, if it is one, is the error.
func call[Q any, A interface{ GetFailure() *pb.Failure }](
	ctx context.Context, c *client, name string, limit time.Duration,
	f func(context.Context, Q, ...grpc.CallOption) (A, error), q Q,
) (a A, err error) {
	if err := c.usable(); err != nil {
		return a, err
	}
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if a, err = f(within, q); err != nil {
		return a, c.ended(ctx, name, err)
	}
	return a, c.refused(a.GetFailure())
}

// refused turns a failure into an error. Only a commit may leave a backend broken,
// or not know what has become of it.
func (c *client) refused(f *pb.Failure) error {
	err := asRefusal(f)
	if errors.Is(err, overlay.ErrBroken) || errors.Is(err, store.ErrUnknown) {
		return c.fail(lied("it fails as only a commit can: %v", err))
	}
	return err
}

// later makes a call whose answer nobody needs, after those before it. Nobody
// waits for it, unless there are very many.
func (c *client) later(f func()) {
	c.mu.Lock()
	if len(c.queue) >= maxQueue {
		c.mu.Unlock()
		f()
		return
	}
	c.queue = append(c.queue, f)
	idle := len(c.queue) == 1
	c.mu.Unlock()
	if !idle {
		return
	}
	go func() {
		for {
			c.mu.Lock()
			f := c.queue[0]
			c.mu.Unlock()
			f()
			c.mu.Lock()
			c.queue = c.queue[1:]
			more := len(c.queue) > 0
			c.mu.Unlock()
			if !more {
				return
			}
		}
	}()
}

const maxQueue = 1000

// open hands the settings over.
func (c *client) open(ctx context.Context) (overlay.Backend, error) {
	m, err := call(ctx, c, "open", c.config.StartTimeout, c.rpc.Open, &pb.OpenRequest{Settings: c.config.Settings})
	if err != nil {
		return nil, err
	}
	if m.Snapshots {
		return snapshotter{c}, nil
	}
	if m.End == nil {
		return c, nil
	}
	hash, err := fixed(m.End.Hash)
	if err == nil {
		err = c.head.begin(m.End.Seq, hash)
	}
	if err != nil {
		return nil, c.fail(err)
	}
	return headed{c}, nil
}

// headed is a client that knows where the log ends, since nobody else commits.
type headed struct{ *client }

// Head implements overlay.Header.
func (h headed) Head() (uint64, [32]byte) { return h.head.get() }

// lower is a state: that of the last commit, for a backend that has but one, or
// of a snapshot. What is asked of a snapshot ends with its transaction.
type lower struct {
	c   *client
	ctx context.Context
	id  uint64 // of the snapshot, else 0
}

// snapshotter is a client whose plugin has snapshots.
type snapshotter struct{ *client }

// Snapshot implements overlay.Snapshotter.
func (s snapshotter) Snapshot(ctx context.Context) (overlay.Snapshot, error) {
	l := lower{s.client, ctx, s.ids.Add(1)}
	if _, err := call(ctx, s.client, "snapshot", s.config.CallTimeout, s.rpc.Snapshot, &pb.SnapshotRequest{Snapshot: l.id}); err != nil {
		l.Release() // it may have been made
		return nil, err
	}
	return l, nil
}

// Release implements overlay.Snapshot.
func (l lower) Release() {
	l.c.later(func() {
		_, _ = call(context.Background(), l.c, "release snapshot", l.c.config.CallTimeout,
			plain(l.c.rpc.ReleaseSnapshot), &pb.ReleaseSnapshotRequest{Snapshot: l.id})
	})
}

// Lstat implements overlay.Lower.
func (l lower) Lstat(path string) (a overlay.Attr, err error) {
	if err := checkPath(path); err != nil {
		return a, err
	}
	m, err := call(l.ctx, l.c, "lstat", l.c.config.CallTimeout, l.c.rpc.Lstat, &pb.LstatRequest{Path: []byte(path), Snapshot: l.id})
	if err != nil {
		return a, err
	}
	if a, err = attrFrom(m.Attr); err != nil {
		return a, l.c.fail(err)
	}
	return a, nil
}

// ReadDir implements overlay.Lower.
func (l lower) ReadDir(path string, limit int) ([]overlay.Name, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := l.c.usable(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.c.config.CallTimeout)
	defer cancel()
	stream, err := l.c.rpc.ReadDir(ctx, &pb.ReadDirRequest{Path: []byte(path), Limit: uint64(max(limit, 0)), Snapshot: l.id})
	if err != nil {
		return nil, l.c.ended(l.ctx, "read directory", err)
	}
	var names []overlay.Name
	seen, bytes := map[string]struct{}{}, 0
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, l.c.ended(l.ctx, "read directory", err)
		}
		if err := l.c.refused(m.Failure); err != nil {
			return nil, err
		}
		if len(m.Names) == 0 || len(m.Names) != len(m.Kinds) {
			return nil, l.c.fail(lied("a directory holds %d names of %d kinds", len(m.Names), len(m.Kinds)))
		}
		for i, b := range m.Names {
			name := string(b)
			kind, err := kindFrom(pb.Kind(m.Kinds[i]))
			if err == nil {
				err = checkName(name)
			}
			if _, twice := seen[name]; twice && err == nil {
				err = lied("a directory holds %q twice", printable(name))
			}
			if bytes += len(name); bytes > maxListing && err == nil {
				err = lied("the names in a directory have more than %d bytes", maxListing)
			}
			if len(names) == limit && err == nil {
				err = lied("it lists more than the %d names that it was asked for", limit)
			}
			if err != nil {
				return nil, l.c.fail(err)
			}
			seen[name] = struct{}{}
			names = append(names, overlay.Name{Name: name, Kind: kind})
		}
	}
}

// Readlink implements overlay.Lower.
func (l lower) Readlink(path string) (string, error) {
	if err := checkPath(path); err != nil {
		return "", err
	}
	m, err := call(l.ctx, l.c, "read link", l.c.config.CallTimeout, l.c.rpc.Readlink, &pb.ReadlinkRequest{Path: []byte(path), Snapshot: l.id})
	if err != nil {
		return "", err
	}
	if len(m.Target) == 0 || len(m.Target) > maxLink {
		return "", l.c.fail(lied("a link has a target of %d bytes", len(m.Target)))
	}
	for _, b := range m.Target {
		if b == 0 {
			return "", l.c.fail(lied("a link's target has a zero byte"))
		}
	}
	return string(m.Target), nil
}

// Open implements overlay.Lower.
func (l lower) Open(path string) (overlay.LowerFile, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	f := &lowerFile{c: l.c, ctx: l.ctx, id: l.c.ids.Add(1), at: -1}
	m, err := call(l.ctx, l.c, "open file", l.c.config.CallTimeout, l.c.rpc.OpenFile, &pb.OpenFileRequest{Path: []byte(path), File: f.id, Snapshot: l.id})
	if err != nil {
		return nil, err
	}
	if f.attr, err = attrFrom(m.Attr); err == nil && f.attr.Kind != store.KindFile {
		err = lied("it opened what is no file")
	}
	if err != nil {
		return nil, l.c.fail(err)
	}
	return f, nil
}

// HasKey implements overlay.Backend and overlay.Snapshot. An error need not be reported: the commit
// finds it, or the key, again.
func (l lower) HasKey(key store.Key) bool {
	if l.c.usable() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.c.config.CallTimeout)
	defer cancel()
	m, err := l.c.rpc.HasKey(ctx, &pb.HasKeyRequest{Key: key[:], Snapshot: l.id})
	if err != nil {
		_ = l.c.ended(l.ctx, "look for a key", err)
		return false
	}
	return m.Has
}

// lowerFile is an open file. Small reads are answered from a block that is read
// ahead; a guest that reads byte by byte would otherwise make a call for each.
type lowerFile struct {
	c    *client
	ctx  context.Context
	id   uint64
	attr overlay.Attr

	mu    sync.Mutex
	at    int64 // where block begins; -1: there is none
	block []byte
}

const (
	blockSize = 64 << 10
	aheadSize = 256 << 10 // for who reads on
)

func (f *lowerFile) Attr() overlay.Attr { return f.attr }

func (f *lowerFile) Close() error {
	f.c.later(func() {
		_, _ = call(context.Background(), f.c, "close file", f.c.config.CallTimeout,
			plain(f.c.rpc.CloseFile), &pb.CloseFileRequest{File: f.id})
	})
	return nil
}

// ReadAt implements io.ReaderAt. What the file had when it was opened is there.
func (f *lowerFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, store.ErrInvalid
	}
	if off >= f.attr.Size {
		return 0, io.EOF
	}
	var short error
	if int64(len(p)) > f.attr.Size-off {
		p, short = p[:f.attr.Size-off], io.EOF
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(p) {
		at := off + int64(n)
		if f.at >= 0 && at >= f.at && at < f.at+int64(len(f.block)) {
			n += copy(p[n:], f.block[at-f.at:])
			continue
		}
		if len(p)-n >= blockSize {
			k, err := f.read(p[n:min(len(p), n+maxPart)], at)
			n += k
			if err != nil {
				return n, err
			}
			continue
		}
		size := int64(blockSize)
		if f.at >= 0 && at == f.at+int64(len(f.block)) { // one after the other
			size = aheadSize
		}
		f.at = at / blockSize * blockSize
		size = min(size, f.attr.Size-f.at)
		if int64(cap(f.block)) < size {
			f.block = make([]byte, size)
		}
		f.block = f.block[:size]
		if _, err := f.read(f.block, f.at); err != nil {
			f.at = -1
			return n, err
		}
	}
	return n, short
}

func (f *lowerFile) read(p []byte, off int64) (int, error) {
	m, err := call(f.ctx, f.c, "read file", f.c.config.CallTimeout,
		f.c.rpc.ReadFile, &pb.ReadFileRequest{File: f.id, Offset: off, Size: uint32(len(p))})
	if err != nil {
		return 0, err
	}
	if len(m.Data) > len(p) {
		return 0, f.c.fail(lied("it was asked for %d bytes and gave %d", len(p), len(m.Data)))
	}
	n := copy(p, m.Data)
	if n < len(p) { // something other than a transaction has cut it
		return n, fmt.Errorf("read %d bytes at %d of a file of %d: %w", len(p), off, f.attr.Size, io.ErrUnexpectedEOF)
	}
	return n, nil
}

// staged is what a transaction has written to a file. Writes that follow each
// other are sent together.
type staged struct {
	c  *client
	id uint64

	mu  sync.Mutex
	buf []byte // written, and not sent
	off int64  // where
	err error  // of a write that was acknowledged before it was sent
}

// Stage implements overlay.Backend.
func (c *client) Stage(ctx context.Context, from overlay.LowerFile, n int64) (overlay.Staged, error) {
	s := &staged{c: c, id: c.ids.Add(1)}
	q := &pb.StageRequest{Staged: s.id, Size: n}
	if from != nil {
		q.From = from.(*lowerFile).id
	}
	if _, err := call(ctx, c, "stage", c.config.CommitTimeout, c.rpc.Stage, q); err != nil {
		s.Discard() // it may have been made
		return nil, err
	}
	return s, nil
}

func (s *staged) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.flush(false); err != nil {
		return 0, err
	}
	n := 0
	for n < len(p) {
		part := p[n:min(len(p), n+maxPart)]
		m, err := call(context.Background(), s.c, "read staged file", s.c.config.CallTimeout,
			s.c.rpc.ReadStaged, &pb.ReadStagedRequest{Staged: s.id, Offset: off + int64(n), Size: uint32(len(part))})
		if err != nil {
			return n, err
		}
		if len(m.Data) > len(part) {
			return n, s.c.fail(lied("it was asked for %d bytes and gave %d", len(part), len(m.Data)))
		}
		clear(part[copy(part, m.Data):])
		n += len(part)
	}
	return n, nil
}

// WriteAt implements io.WriterAt. What it has taken and cannot write fails the
// next call, or the commit.
func (s *staged) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buf) > 0 && (off != s.off+int64(len(s.buf)) || len(s.buf)+len(p) > blockSize) {
		if err := s.flush(false); err != nil {
			return 0, err
		}
	}
	if s.err != nil {
		return 0, s.err
	}
	if len(p) < blockSize {
		if len(s.buf) == 0 {
			s.off = off
		}
		s.buf = append(s.buf, p...)
		return len(p), nil
	}
	for n := 0; n < len(p); {
		k := min(len(p)-n, maxPart)
		if err := s.send(p[n:n+k], off+int64(n), false); err != nil {
			return n, err
		}
		n += k
	}
	return len(p), nil
}

func (s *staged) send(p []byte, off int64, idle bool) error {
	_, err := call(context.Background(), s.c, "write staged file", s.c.config.CallTimeout,
		s.c.rpc.WriteStaged, &pb.WriteStagedRequest{Staged: s.id, Offset: off, Data: p, Idle: idle})
	return err
}

func (s *staged) flush(idle bool) error {
	if s.err == nil && (idle || len(s.buf) > 0) {
		s.err = s.send(s.buf, s.off, idle)
		s.buf = s.buf[:0]
	}
	return s.err
}

func (s *staged) Truncate(size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.flush(false); err != nil {
		return err
	}
	_, err := call(context.Background(), s.c, "truncate staged file", s.c.config.CallTimeout,
		s.c.rpc.TruncateStaged, &pb.TruncateStagedRequest{Staged: s.id, Size: size})
	return err
}

func (s *staged) Idle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.flush(true) // kept, for Prepare
	s.buf = nil
}

func (s *staged) Discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = nil
	s.c.later(func() {
		_, _ = call(context.Background(), s.c, "discard staged file", s.c.config.CallTimeout,
			plain(s.c.rpc.DiscardStaged), &pb.DiscardStagedRequest{Staged: s.id})
	})
}

// settled reports whether all that was written has been sent.
func (s *staged) settled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flush(false)
}

// plain makes an answer that cannot fail one that did not.
func plain[Q, A any](f func(context.Context, Q, ...grpc.CallOption) (A, error)) func(context.Context, Q, ...grpc.CallOption) (never, error) {
	return func(ctx context.Context, q Q, o ...grpc.CallOption) (never, error) {
		_, err := f(ctx, q, o...)
		return never{}, err
	}
}

type never struct{}

func (never) GetFailure() *pb.Failure { return nil }

// number numbers the plan that Prepare, Commit and Abandon are given in turn.
func (c *client) number(p *overlay.Plan) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.plan != p {
		c.plan, c.planID = p, c.ids.Add(1)
	}
	return c.planID
}

// Prepare implements overlay.Backend.
func (c *client) Prepare(ctx context.Context, p *overlay.Plan) error {
	for _, s := range p.Steps {
		if s.Kind == overlay.StepPut {
			if err := s.File.(*staged).settled(); err != nil {
				return err
			}
		}
	}
	if err := c.usable(); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, c.config.CommitTimeout)
	defer cancel()
	stream, err := c.rpc.Prepare(within)
	if err != nil {
		return c.ended(ctx, "prepare", err)
	}
	id := func(s overlay.Staged) uint64 { return s.(*staged).id }
	// When the plugin has answered before it has read all, sending is io.EOF, and
	// the answer says why.
	base := uint64(0)
	if l, ok := p.Base.(lower); ok {
		base = l.id
	}
	if err := sendPlan(c.number(p), base, p, id, stream.Send); err != nil && !errors.Is(err, io.EOF) {
		return c.ended(ctx, "prepare", err)
	}
	m, err := stream.CloseAndRecv()
	if err != nil {
		return c.ended(ctx, "prepare", err)
	}
	return c.refused(m.Failure)
}

// Abandon implements overlay.Backend.
func (c *client) Abandon(p *overlay.Plan) {
	if c.usable() == nil {
		_, _ = call(context.Background(), c, "abandon", c.config.CommitTimeout, plain(c.rpc.Abandon), &pb.AbandonRequest{Plan: c.number(p)})
	}
}

// Commit implements overlay.Backend. Once it is sent it is not given up for ctx,
// only for CommitTimeout: half-way, nobody would know what has become of it.
func (c *client) Commit(ctx context.Context, p *overlay.Plan, records []overlay.Record) error {
	select {
	case c.commit <- struct{}{}:
		defer func() { <-c.commit }()
	case <-c.dead:
		return c.usable()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := c.usable(); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.config.CommitTimeout)
	defer cancel()
	var plan uint64
	if p != nil {
		plan = c.number(p)
	}
	unknown := func(err error) error {
		err = c.fail(fmt.Errorf("commit: %s", printable(err.Error())))
		return fmt.Errorf("%w: %w: %w", store.ErrUnknown, overlay.ErrBroken, err)
	}
	stream, err := c.rpc.Commit(within)
	if err != nil {
		return unknown(err)
	}
	if err := sendRecords(plan, records, stream.Send); err != nil && !errors.Is(err, io.EOF) {
		return unknown(err)
	}
	m, err := stream.CloseAndRecv()
	if err != nil {
		return unknown(err)
	}
	if err := asRefusal(m.Failure); errors.Is(err, overlay.ErrBroken) {
		return unknown(err)
	} else if err != nil {
		return err
	}
	if len(records) == 0 {
		return nil
	}
	prev, err := fixed(m.Prev)
	if err == nil {
		err = c.head.committed(within, c.log, m.Seq, prev, records)
	}
	if err != nil {
		return unknown(err)
	}
	return nil
}

func sendRecords(plan uint64, records []overlay.Record, send func(*pb.CommitRequest) error) error {
	if len(records) == 0 {
		return send(&pb.CommitRequest{Plan: plan})
	}
	for _, r := range records {
		part, data := &pb.CommitRequest{Key: r.Key[:], Time: timeTo(r.Time)}, r.Data
		for {
			k := min(len(data), maxPart)
			part.Plan, part.Data, part.More = plan, data[:k], len(data) > k
			if err := send(part); err != nil {
				return err
			}
			if !part.More {
				break
			}
			part, data = new(pb.CommitRequest), data[k:]
		}
	}
	return nil
}

// Entry implements overlay.Backend. The entry after it must vouch for it.
func (c *client) Entry(ctx context.Context, key store.Key) (e store.Entry, found bool, err error) {
	if err := c.usable(); err != nil {
		return e, false, err
	}
	if ctx.Err() != nil {
		return e, false, context.Cause(ctx)
	}
	within, cancel := context.WithTimeout(ctx, c.config.CallTimeout)
	defer cancel()
	stream, err := c.rpc.Entry(within, &pb.EntryRequest{Key: key[:]})
	if err != nil {
		return e, false, c.ended(ctx, "read log entry", err)
	}
	parts := entryParts{most: c.config.Limits.RecordBytes}
	for whole := false; !whole; {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) && !parts.more {
			return e, false, nil
		}
		if err != nil {
			return e, false, c.ended(ctx, "read log entry", err)
		}
		if err := c.refused(m.Failure); err != nil {
			return e, false, err
		}
		if whole, err = parts.add(m.Part); err != nil {
			return e, false, c.fail(err)
		}
	}
	cancel()
	e = parts.e
	if e.Key != key {
		return e, false, c.fail(lied("it was asked for one log entry and gave another"))
	}
	if err := c.head.vouch(ctx, c.log, e); err != nil {
		return store.Entry{}, false, err
	}
	return e, true, nil
}

// Log implements overlay.Backend.
func (c *client) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return c.head.follow(c.log(ctx, max(from, 1)), max(from, 1))
}

// log is the log as the plugin gives it: whole entries of the right numbers.
func (c *client) log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		fail := func(err error) { yield(store.Entry{}, err) }
		if err := c.usable(); err != nil {
			fail(err)
			return
		}
		if ctx.Err() != nil {
			fail(context.Cause(ctx))
			return
		}
		// Between two answers the caller may take its time; the plugin may not.
		within, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		timer := time.AfterFunc(c.config.CallTimeout, func() { cancel(context.DeadlineExceeded) })
		defer timer.Stop()
		stream, err := c.rpc.Log(within, &pb.LogRequest{From: from})
		if err != nil {
			fail(c.ended(ctx, "read log", err))
			return
		}
		parts := entryParts{most: c.config.Limits.RecordBytes}
		for next := from; ; {
			timer.Reset(c.config.CallTimeout)
			m, err := stream.Recv()
			timer.Stop()
			if errors.Is(err, io.EOF) && !parts.more {
				return
			}
			if err != nil {
				fail(c.ended(ctx, "read log", err))
				return
			}
			if err := c.refused(m.Failure); err != nil {
				fail(err)
				return
			}
			whole, err := parts.add(m.Part)
			if err == nil && whole && parts.e.Seq != next {
				err = lied("after log entry %d comes %d", next-1, parts.e.Seq)
			}
			if err != nil {
				fail(c.fail(err))
				return
			}
			if whole {
				next++
				if !yield(parts.e, nil) {
					return
				}
				if ctx.Err() != nil {
					fail(context.Cause(ctx))
					return
				}
			}
		}
	}
}

// Close implements overlay.Backend.
func (c *client) Close() error {
	if err := c.usable(); err != nil {
		return nil // there is nobody left to tell
	}
	_, err := call(context.Background(), c, "close", c.config.CommitTimeout, c.rpc.Close, &pb.CloseRequest{})
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return err
}
