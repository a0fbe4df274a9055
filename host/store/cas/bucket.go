package cas

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
)

// bucket asks a Remote: with a deadline for each request, again after a failure
// where that is harmless, and without believing the answer.
type bucket struct {
	remote   Remote
	cache    *cache
	callTime time.Duration
	lag      time.Duration // before the second try; twice that before the third, and so on
}

const (
	maxTries = 4
	parallel = 8 // blobs that are put at a time
)

// call makes a request that may be made twice, until it succeeds, is refused or has
// failed often enough.
func (b *bucket) call(ctx context.Context, what string, request func(context.Context) error) error {
	var err error
	for try := range maxTries {
		if try > 0 && pause(ctx, b.lag<<(try-1)) != nil {
			break
		}
		if err = b.once(ctx, request); err == nil {
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, ErrRefused) || errors.Is(err, store.ErrNotExist) {
			break
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w (%v)", what, context.Cause(ctx), err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (b *bucket) once(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.callTime, errSlow)
	defer cancel()
	err := request(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errSlow) {
		return fmt.Errorf("%w after %v: %v", errSlow, b.callTime, err)
	}
	return err
}

var errSlow = errors.New("the bucket did not answer in time")

// pause waits for between half and all of d: workers that met once shall not meet
// again for that.
func pause(ctx context.Context, d time.Duration) error {
	var b [8]byte
	rand.Read(b[:])
	d = d/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d/2+1))
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// blob returns a blob that is what its name says. It is shared: nobody writes to it.
func (b *bucket) blob(ctx context.Context, id BlobID) (*object, error) {
	if o := b.cache.get(id); o != nil {
		return o, nil
	}
	var data []byte
	err := b.call(ctx, "get blob "+id.String(), func(ctx context.Context) (err error) {
		data, err = b.remote.GetBlob(ctx, id)
		if err == nil && (len(data) > MaxBlob || sha256.Sum256(data) != id.Digest) {
			return errLies // or something on the way does: it may be gone next time
		}
		return err
	})
	if errors.Is(err, errLies) {
		err = &DamageError{What: "blob " + id.String(), Err: err}
	}
	if err != nil {
		return nil, err
	}
	return b.cache.put(id, data), nil
}

var errLies = errors.New("it does not hold what its name says")

// page implements pages.
func (b *bucket) page(ctx context.Context, id BlobID) (*page, error) {
	o, err := b.blob(ctx, id)
	if err != nil {
		return nil, err
	}
	o.once.Do(func() { o.page, o.err = decodePage(o.data) })
	if o.err != nil {
		return nil, &DamageError{What: "blob " + id.String(), Err: fmt.Errorf("decode page: %w", o.err)}
	}
	return o.page, nil
}

// put stores blobs, some at a time.
func (b *bucket) put(ctx context.Context, blobs map[BlobID][]byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	room := make(chan struct{}, parallel)
	for id, data := range blobs {
		room <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-room }()
			err := b.call(ctx, "put blob "+id.String(), func(ctx context.Context) error { return b.remote.PutBlob(ctx, id, data) })
			if err != nil {
				cancel(err)
				return
			}
			b.cache.put(id, data)
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// load returns the root, and nil if it is still s, which may be nil.
func (b *bucket) load(ctx context.Context, s *state) (*state, error) {
	var have Version
	if s != nil {
		have = s.version
	}
	var found *state
	err := b.call(ctx, "load the root", func(ctx context.Context) error {
		data, version, err := b.remote.LoadRoot(ctx, have)
		switch {
		case err != nil:
			return err
		case version == have && s != nil:
			found = nil
			return nil
		case version == "":
			found = newState()
			return nil
		}
		if found, err = decodeRoot(data); err != nil {
			return &DamageError{What: "the root", Err: err}
		}
		found.version = version
		return nil
	})
	return found, err
}

// writer collects the blobs of one commit, all of one epoch.
type writer struct {
	*bucket
	epoch uint64
	blobs map[BlobID][]byte
}

func (b *bucket) writer(epoch uint64) *writer {
	return &writer{b, epoch, map[BlobID][]byte{}}
}

// write names a blob, which is put with the others.
func (w *writer) write(data []byte) BlobID {
	id := BlobID{w.epoch, sha256.Sum256(data)}
	w.blobs[id] = data
	return id
}

// page implements pages.
func (w *writer) page(ctx context.Context, id BlobID) (*page, error) {
	if data, ok := w.blobs[id]; ok {
		return decodePage(data)
	}
	return w.bucket.page(ctx, id)
}

// flush puts what was written, unless an earlier flush of this writer has.
func (w *writer) flush(ctx context.Context) error {
	err := w.put(ctx, w.blobs)
	if err == nil {
		clear(w.blobs)
	}
	return err
}
