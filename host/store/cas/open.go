package cas

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// Config is for Open. Its zero value works.
type Config struct {
	Limits overlay.Limits
	Now    func() time.Time // default time.Now

	// CacheDir is a directory of this context's own where blobs are kept that were
	// read or written, so that they need not be got again. It is made if it is not
	// there, may be deleted whenever nobody uses it, and several processes may share
	// it. Default: none.
	CacheDir   string
	CacheBytes int64 // in CacheDir at most; default 256 MiB
	Memory     int   // bytes of blobs held in memory at most; default 16 MiB

	// StageDir is where files that a running update writes are kept once they are
	// more than 8 MiB. Default: the system's directory for temporary files.
	StageDir string

	CallTime   time.Duration // one request takes at most; default 20 s
	RetryAfter time.Duration // the second try of a request comes, and each further one twice as long after; default 50 ms
	SettleTime time.Duration // to find out what became of a commit; default 30 s
}

// Store is a store.Store on a Remote.
type Store struct {
	*overlay.Store
	b *backend
}

// backend implements overlay.Snapshotter.
type backend struct {
	overlay.Lower // of nothing: transactions read a snapshot

	bucket     *bucket
	now        func() time.Time
	settle     time.Duration
	staging    staging
	prepared   *prepared
	committing chan struct{} // holds an element while a commit is made

	mu     sync.Mutex
	state  *state // the latest that was seen
	closed bool
}

// Open opens the context that is kept at r, which it owns from then on, also when it
// fails. A bucket without a root is an empty context; its root is written with the
// first commit.
func Open(ctx context.Context, r Remote, c Config) (*Store, error) {
	s, err := open(ctx, r, c)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", errors.Join(err, r.Close()))
	}
	return s, nil
}

// OpenBackend is Open without the transactions: for a process that serves it to a
// host which has them, as a storage plugin does.
func OpenBackend(ctx context.Context, r Remote, c Config) (overlay.Snapshotter, error) {
	s, err := Open(ctx, r, c)
	if err != nil {
		return nil, err
	}
	return s.b, nil
}

func open(ctx context.Context, r Remote, c Config) (*Store, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	cache, err := newCache(cmp.Or(c.Memory, 16<<20), c.CacheDir, cmp.Or(c.CacheBytes, 256<<20))
	if err != nil {
		return nil, err
	}
	b := &backend{
		bucket:  &bucket{remote: r, cache: cache, callTime: cmp.Or(c.CallTime, 20*time.Second), lag: cmp.Or(c.RetryAfter, 50*time.Millisecond)},
		now:     c.Now,
		settle:  cmp.Or(c.SettleTime, 30*time.Second),
		staging: staging{dir: c.StageDir}, committing: make(chan struct{}, 1),
	}
	if b.state, err = b.bucket.load(ctx, nil); err != nil {
		cache.close()
		return nil, err
	}
	return &Store{overlay.New(b, overlay.Config{Limits: c.Limits, Now: c.Now}), b}, nil
}

// Snapshot implements overlay.Snapshotter.
func (b *backend) Snapshot(ctx context.Context) (overlay.Snapshot, error) {
	s, err := b.refresh(ctx)
	if err != nil {
		return nil, err
	}
	return &snapshot{state: s, ctx: ctx, b: b}, nil
}

// Stage implements overlay.Backend.
func (b *backend) Stage(_ context.Context, from overlay.LowerFile, n int64) (overlay.Staged, error) {
	return b.newStaged(from, n), nil
}

// Close implements overlay.Backend.
func (b *backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return store.ErrClosed
	}
	b.closed = true
	b.staging.close()
	b.bucket.cache.close()
	return b.bucket.remote.Close()
}

var (
	_ overlay.Snapshotter = (*backend)(nil)
	_ overlay.Header      = (*backend)(nil)
	_ overlay.LogCounter  = (*backend)(nil)
	_ overlay.Snapshot    = (*snapshot)(nil)
	_ overlay.Header      = (*snapshot)(nil)
	_ overlay.Counter     = (*snapshot)(nil)
)
