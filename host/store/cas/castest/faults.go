package castest

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store/cas"
)

// Faults is a Remote whose network is bad: one in Rate requests fails before it was
// carried out, or after, or is carried out later, when the caller has been told of an
// error already; and one in Rate answers is cut or has a wrong byte. Each takes up to
// Delay, so that workers meet.
type Faults struct {
	cas.Remote
	Rate  int // 0: no faults
	Delay time.Duration

	mu       sync.Mutex
	injected int
	late     sync.WaitGroup
}

// Injected is how many faults there were.
func (f *Faults) Injected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.injected
}

// Wait waits for requests that are carried out late.
func (f *Faults) Wait() { f.late.Wait() }

var errFault = errors.New("503 injected")

func (f *Faults) hit() bool {
	if f.Delay > 0 {
		time.Sleep(rand.N(f.Delay))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Rate == 0 || rand.IntN(f.Rate) > 0 {
		return false
	}
	f.injected++
	return true
}

// around makes a request that changes something.
func (f *Faults) around(ctx context.Context, request func(context.Context) error) error {
	if !f.hit() {
		return request(ctx)
	}
	switch rand.IntN(3) {
	case 0: // never
	case 1: // unheard
		_ = request(ctx)
	case 2: // late
		f.late.Go(func() {
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			_ = request(context.WithoutCancel(ctx)) // its caller is gone
		})
	}
	return errFault
}

func (f *Faults) answer(data []byte) []byte {
	if len(data) == 0 || !f.hit() {
		return data
	}
	at := rand.IntN(len(data))
	if rand.IntN(2) == 0 {
		return data[:at]
	}
	data[at] ^= 1 << rand.IntN(8)
	return data
}

// PutBlob implements cas.Remote.
func (f *Faults) PutBlob(ctx context.Context, id cas.BlobID, data []byte) error {
	return f.around(ctx, func(ctx context.Context) error { return f.Remote.PutBlob(ctx, id, data) })
}

// GetBlob implements cas.Remote.
func (f *Faults) GetBlob(ctx context.Context, id cas.BlobID) ([]byte, error) {
	if f.hit() {
		return nil, errFault
	}
	data, err := f.Remote.GetBlob(ctx, id)
	return f.answer(data), err
}

// ListBlobs implements cas.Remote.
func (f *Faults) ListBlobs(ctx context.Context) iter.Seq2[cas.Blob, error] {
	return func(yield func(cas.Blob, error) bool) {
		for b, err := range f.Remote.ListBlobs(ctx) {
			if err == nil && f.hit() {
				err = errFault
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

// DeleteBlob implements cas.Remote.
func (f *Faults) DeleteBlob(ctx context.Context, id cas.BlobID) error {
	return f.around(ctx, func(ctx context.Context) error { return f.Remote.DeleteBlob(ctx, id) })
}

// LoadRoot implements cas.Remote.
func (f *Faults) LoadRoot(ctx context.Context, have cas.Version) ([]byte, cas.Version, error) {
	if f.hit() {
		return nil, "", errFault
	}
	data, version, err := f.Remote.LoadRoot(ctx, have)
	return f.answer(data), version, err
}

// SwapRoot implements cas.Remote.
func (f *Faults) SwapRoot(ctx context.Context, data []byte, base cas.Version) (cas.Version, error) {
	data = append([]byte{}, data...) // which a late request still needs
	done := make(chan cas.Version, 1)
	err := f.around(ctx, func(ctx context.Context) error {
		v, err := f.Remote.SwapRoot(ctx, data, base)
		done <- v
		return err
	})
	if err != nil {
		return "", err
	}
	return <-done, nil
}
