package cas

import (
	"context"
	"errors"
	"fmt"
	"time"
)

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
	b := &bucket{remote: r, cache: cache, callTime: 20 * time.Second, lag: 50 * time.Millisecond}
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
