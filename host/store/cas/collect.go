package cas

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// Collected is what Collect did.
type Collected struct {
	Deleted, Kept           int   // blobs
	DeletedBytes, KeptBytes int64 //
}

// Collect deletes blobs that nothing refers to any more: what commits replaced, and
// what those left that were not completed. It is safe beside other workers, at any
// time and without their clocks; see "Garbage" in the package's documentation. It
// costs two requests for each thousand blobs, one to read each page that is not in the
// cache, and one for each blob that is deleted; and it holds about 100 bytes of
// memory for each blob that is kept.
//
// Beginning makes updates that run elsewhere fail with store.ErrConflict, once. A
// transaction that began before, and runs on after grace has passed, may fail with it
// too when it reads what was replaced meanwhile: let grace be longer than scripts
// may run.
func (s *Store) Collect(ctx context.Context, grace time.Duration) (Collected, error) {
	c, err := s.b.collect(ctx, grace)
	if err != nil {
		return c, fmt.Errorf("collect garbage: %w", err)
	}
	return c, nil
}

func (b *backend) collect(ctx context.Context, grace time.Duration) (c Collected, err error) {
	on, err := b.newEpoch(ctx)
	if err != nil || on.gen == 0 {
		return c, err
	}
	used := map[BlobID]struct{}{}
	if err := on.blobs(ctx, b.bucket, func(id BlobID) { used[id] = struct{}{} }); err != nil {
		return c, (&snapshot{state: on, ctx: ctx, b: b}).fail(err)
	}
	select {
	case <-time.After(grace):
	case <-ctx.Done():
		return c, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	room := make(chan struct{}, parallel)
	for blob, err := range b.bucket.remote.ListBlobs(ctx) {
		if err != nil {
			cancel(err)
			break
		}
		if _, ok := used[blob.ID]; ok || blob.ID.Epoch >= on.epoch {
			mu.Lock()
			c.Kept++
			c.KeptBytes += blob.Size
			mu.Unlock()
			continue
		}
		room <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-room }()
			if err := b.bucket.call(ctx, "delete blob "+blob.ID.String(), func(ctx context.Context) error {
				return b.bucket.remote.DeleteBlob(ctx, blob.ID)
			}); err != nil {
				cancel(err)
				return
			}
			mu.Lock()
			c.Deleted++
			c.DeletedBytes += blob.Size
			mu.Unlock()
		})
	}
	wg.Wait()
	return c, context.Cause(ctx)
}

// newEpoch commits the beginning of one, and nothing else.
func (b *backend) newEpoch(ctx context.Context) (*state, error) {
	select {
	case b.committing <- struct{}{}:
		defer func() { <-b.committing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for range maxLost {
		base, err := b.refresh(ctx)
		if err != nil || base.gen == 0 {
			return base, err
		}
		next := base.next()
		next.epoch++
		if err := b.swap(ctx, base, next); err == nil {
			return next, nil
		} else if !errors.Is(err, ErrLost) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: other workers were quicker %d times", store.ErrConflict, maxLost)
}

// blobs tells of every blob that s refers to.
func (s *state) blobs(ctx context.Context, from pages, blob func(BlobID)) error {
	each := func(e entry) error {
		var pieces []piece
		var err error
		switch {
		case e.val == nil:
		case e.key[0] == 'c':
			pieces, _, err = decodePieces(e.val, chunkSize)
		case e.key[0] == 'e':
			var l logged
			l, _, err = decodeLogged(e)
			pieces = l.data
		}
		if err != nil {
			return &DamageError{What: "a table", Err: err}
		}
		for _, p := range pieces {
			if p.blob.Epoch > 0 {
				blob(p.blob)
			}
		}
		return nil
	}
	for _, t := range []table{s.files, s.log} {
		if err := walk(ctx, from, t.tree, nil, blob, func(e entry) (bool, error) {
			if _, hidden := find(t.delta, e.key); hidden {
				return true, nil
			}
			return true, each(e)
		}); err != nil {
			return err
		}
		for _, e := range t.delta {
			if err := each(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// Check reads all that the last committed state refers to, past the cache, and tells
// report of everything that is not as it should be: blobs that are missing or are not
// what their names say, entries that do not decode, files without a directory, a log
// whose chain is broken. It changes nothing. Its own error is that of a bucket that
// cannot be asked.
func (s *Store) Check(ctx context.Context, report func(error)) error {
	b := s.b
	state, err := b.refresh(ctx)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	cache, err := newCache(1<<20, "", 0)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	fresh := &backend{bucket: &bucket{b.bucket.remote, cache, b.bucket.callTime, b.bucket.lag}, state: state}
	on := &snapshot{state: state, ctx: ctx, b: fresh}
	k := checker{on: on, report: report, blobs: map[BlobID]int{}, nodes: map[uint64]place{}}
	if err := k.check(); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	return nil
}

type checker struct {
	on     *snapshot
	report func(error)
	blobs  map[BlobID]int // how long each must be, at least
	nodes  map[uint64]place
}

// place is where a node is.
type place struct {
	parent uint64
	name   string
	kind   store.Kind
}

func (k *checker) problem(format string, args ...any) error {
	k.report(&DamageError{What: "the context", Err: fmt.Errorf(format, args...)})
	return nil
}

// found passes a damage on, and gives back what else went wrong.
func (k *checker) found(err error) error {
	var damage *DamageError
	if err = k.on.fail(err); errors.As(err, &damage) {
		k.report(err)
		return nil
	}
	return err
}

func (k *checker) check() error {
	ctx, from := k.on.ctx, k.on.b.bucket
	need := func(pieces []piece) {
		for _, p := range pieces {
			if p.blob.Epoch > 0 {
				k.blobs[p.blob] = max(k.blobs[p.blob], p.off+p.n)
			}
		}
	}
	// Nodes sort after chunks, so those are looked at in a second pass.
	var bytes, logBytes int64
	err := k.on.files.scan(ctx, from, []byte{'n'}, []byte{'n'}, func(e entry) (bool, error) {
		n, err := decodeNode(e.val)
		if err != nil || len(e.key) < 9 {
			return true, k.problem("entry %q of the table of files: %w", e.key, errMalformed)
		}
		d := decoder{b: e.key[1:9]}
		at := place{d.u64(), string(e.key[9:]), n.kind}
		if was, twice := k.nodes[n.ino]; twice {
			return true, k.problem("%q and %q are one node", was.name, at.name)
		}
		k.nodes[n.ino] = at
		if n.kind == store.KindFile {
			bytes += n.size
		}
		return true, nil
	})
	if err := k.found(err); err != nil {
		return err
	}
	if s := k.on.state; s.bytes != bytes || s.entries != int64(len(k.nodes)-1) {
		_ = k.problem("it counts %d bytes in %d entries, and has %d in %d", s.bytes, s.entries, bytes, len(k.nodes)-1)
	}
	for ino, at := range k.nodes {
		if ino != rootIno && k.nodes[at.parent].kind != store.KindDir {
			k.report(&DamageError{What: "the context", Err: fmt.Errorf("%q is in no directory", at.name)})
		}
	}
	err = k.on.files.scan(ctx, from, []byte{'c'}, []byte{'c'}, func(e entry) (bool, error) {
		d := decoder{b: e.key[1:]}
		ino, _ := d.u64(), d.u64()
		pieces, _, err := decodePieces(e.val, chunkSize)
		if err != nil || d.end() != nil {
			return true, k.problem("entry %x of the table of files: %w", e.key, errMalformed)
		}
		if k.nodes[ino].kind != store.KindFile {
			return true, k.problem("entry %x of the table of files is of no file", e.key)
		}
		need(pieces)
		return true, nil
	})
	if err := k.found(err); err != nil {
		return err
	}
	err = k.on.log.scan(ctx, from, []byte{'e'}, []byte{'e'}, func(e entry) (bool, error) {
		l, size, err := decodeLogged(e)
		logBytes += overlay.LogSize(int(size))
		if err != nil {
			return true, k.problem("entry %x of the table of the log: %w", e.key, errMalformed)
		}
		need(l.data)
		seq, err := k.on.log.get(ctx, from, keyKey(l.Key))
		if err != nil {
			return false, err
		}
		if at, err := decodeSeq(seq); err != nil || at != l.Seq {
			return true, k.problem("log entry %d is not found by its key", l.Seq)
		}
		return true, nil
	})
	if err := k.found(err); err != nil {
		return err
	}
	if k.on.logBytes != logBytes {
		_ = k.problem("it counts %d bytes of log entries, and has %d", k.on.logBytes, logBytes)
	}
	for _, err := range k.on.b.Log(ctx, 1) {
		if err := k.found(err); err != nil {
			return err
		}
	}
	for id, n := range k.blobs {
		o, got := from.blob(ctx, id)
		if err := k.found(got); err != nil {
			return err
		}
		if got == nil && len(o.data) < n {
			k.report(&DamageError{What: "blob " + id.String(), Err: errors.New("it is shorter than what should be in it")})
		}
	}
	return nil
}
