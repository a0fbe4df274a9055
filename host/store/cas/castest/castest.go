// Package castest has what tests of package cas, and of the Remotes that carry it,
// share: a bucket in memory, and the suite that a Remote passes.
package castest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
)

// Bucket is a cas.Remote in memory. Several workers may share one; Close does
// nothing to it. The zero value is an empty bucket.
type Bucket struct {
	mu      sync.Mutex
	blobs   map[cas.BlobID][]byte
	root    []byte
	version int
}

var _ cas.Remote = (*Bucket)(nil)

// PutBlob implements cas.Remote.
func (b *Bucket) PutBlob(ctx context.Context, id cas.BlobID, data []byte) error {
	if len(data) > cas.MaxBlob {
		return fmt.Errorf("put blob %v: %d bytes are too many: %w", id, len(data), cas.ErrRefused)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.blobs == nil {
		b.blobs = map[cas.BlobID][]byte{}
	}
	b.blobs[id] = slices.Clone(data)
	return ctx.Err()
}

// GetBlob implements cas.Remote.
func (b *Bucket) GetBlob(ctx context.Context, id cas.BlobID) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.blobs[id]
	if !ok {
		return nil, fmt.Errorf("get blob %v: %w", id, store.ErrNotExist)
	}
	return slices.Clone(data), ctx.Err()
}

// HasBlob implements cas.Remote.
func (b *Bucket) HasBlob(ctx context.Context, id cas.BlobID) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.blobs[id]
	return ok, ctx.Err()
}

// ListBlobs implements cas.Remote.
func (b *Bucket) ListBlobs(ctx context.Context) iter.Seq2[cas.Blob, error] {
	return func(yield func(cas.Blob, error) bool) {
		b.mu.Lock()
		blobs := maps.Clone(b.blobs)
		b.mu.Unlock()
		for id, data := range blobs {
			if ctx.Err() != nil {
				yield(cas.Blob{}, ctx.Err())
				return
			}
			if !yield(cas.Blob{ID: id, Size: int64(len(data))}, nil) {
				return
			}
		}
	}
}

// DeleteBlob implements cas.Remote.
func (b *Bucket) DeleteBlob(ctx context.Context, id cas.BlobID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.blobs, id)
	return ctx.Err()
}

// LoadRoot implements cas.Remote.
func (b *Bucket) LoadRoot(ctx context.Context, have cas.Version) ([]byte, cas.Version, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if have == b.name() {
		return nil, have, ctx.Err()
	}
	return slices.Clone(b.root), b.name(), ctx.Err()
}

// SwapRoot implements cas.Remote.
func (b *Bucket) SwapRoot(ctx context.Context, data []byte, base cas.Version) (cas.Version, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if base != b.name() {
		return "", fmt.Errorf("swap root: %w", cas.ErrLost)
	}
	b.root = bytes.Clone(data)
	b.version++
	return b.name(), ctx.Err()
}

func (b *Bucket) name() cas.Version {
	if b.version == 0 {
		return ""
	}
	return cas.Version(fmt.Sprint(b.version))
}

// Close implements cas.Remote.
func (b *Bucket) Close() error { return nil }
