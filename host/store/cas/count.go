package cas

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// Head implements overlay.Header: where the log ends in this state.
func (s *snapshot) Head() (seq uint64, hash [32]byte) { return s.logSeq, s.logHash }

// Head implements overlay.Header: where the log ended when it was last looked at.
func (b *backend) Head() (seq uint64, hash [32]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.logSeq, b.state.logHash
}

// Count implements overlay.Counter: one scan over the pages of the table, instead of
// a look at each file.
func (s *snapshot) Count(ctx context.Context) (bytes, entries int64, err error) {
	err = s.files.scan(ctx, s.b.bucket, []byte{'n'}, []byte{'n'}, func(e entry) (bool, error) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		n, err := decodeNode(e.val)
		if err != nil {
			return false, &DamageError{What: "the table of files", Err: err}
		}
		if n.ino != rootIno {
			entries++
		}
		if n.kind == store.KindFile {
			bytes = min(bytes+min(n.size, math.MaxInt64/4), math.MaxInt64/4)
		}
		return true, nil
	})
	return bytes, entries, s.fail(err)
}

// LogBytes implements overlay.LogCounter, from the pages alone.
func (b *backend) LogBytes(ctx context.Context) (sum int64, err error) {
	state, err := b.current()
	if err != nil {
		return 0, err
	}
	on := &snapshot{state: state, ctx: ctx, b: b}
	err = state.log.scan(ctx, b.bucket, []byte{'e'}, []byte{'e'}, func(e entry) (bool, error) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		_, size, err := decodeLogged(e)
		if err != nil {
			return false, &DamageError{What: "the table of the log", Err: err}
		}
		sum += overlay.LogSize(int(size))
		return true, nil
	})
	return sum, on.fail(err)
}

// Clear removes a context from r, for good, and closes r: first its root becomes
// that of an empty context, in one step, so that no worker goes on with it, and then
// the blobs go. What a worker that is in the middle of a commit puts there meanwhile
// stays, and is nobody's.
func Clear(ctx context.Context, r Remote) (err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	cache, err := newCache(1<<20, "", 0)
	if err != nil {
		return err
	}
	defer cache.close()
	b := &bucket{remote: r, cache: cache, callTime: 20 * time.Second}
	s, err := b.load(ctx, nil)
	if err != nil {
		return fmt.Errorf("clear store: %w", err)
	}
	if s.version != "" {
		none := newState()
		none.gen, none.id, none.epoch = s.gen+1, newCommitID(), s.epoch+1
		if err := b.call(ctx, "clear the root", func(ctx context.Context) error {
			_, err := r.SwapRoot(ctx, none.encode(), s.version)
			if errors.Is(err, ErrLost) { // by an earlier try of ours, perhaps
				if now, lookErr := b.load(ctx, nil); lookErr == nil && now.id == none.id {
					return nil
				}
			}
			return err
		}); err != nil {
			return fmt.Errorf("clear store: %w", err)
		}
	}
	for {
		var some []BlobID // listed first: to delete what is being listed may upset the list
		for blob, err := range r.ListBlobs(ctx) {
			if err != nil {
				return fmt.Errorf("clear store: list what is left: %w", err)
			}
			if some = append(some, blob.ID); len(some) == 10_000 {
				break
			}
		}
		if len(some) == 0 {
			return nil
		}
		for _, id := range some {
			if err := b.call(ctx, "delete a blob", func(ctx context.Context) error { return r.DeleteBlob(ctx, id) }); err != nil {
				return fmt.Errorf("clear store: %w", err)
			}
		}
	}
}
