package castest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
)

// Run is the suite that a Remote passes: what package cas relies on. open makes a
// Remote on an empty bucket; the suite closes it.
func Run(t *testing.T, open func(*testing.T) cas.Remote) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, context.Context, cas.Remote)
	}{
		{"BlobsComeBackAsTheyWere", blobs},
		{"BlobsAreListed", listed},
		{"RootIsSwappedOnlyFromItsVersion", swapped},
		{"OneOfManySwapsWins", race},
		{"EndedContextsEndCalls", ended},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			r := open(t)
			t.Cleanup(func() { r.Close() })
			c.run(t, ctx, r)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func blob(epoch uint64, data []byte) cas.BlobID {
	return cas.BlobID{Epoch: epoch, Digest: sha256.Sum256(data)}
}

func blobs(t *testing.T, ctx context.Context, r cas.Remote) {
	big := make([]byte, cas.MaxBlob)
	rand.Read(big)
	for _, data := range [][]byte{{}, []byte("x"), []byte("\x00\r\n\xff"), big} {
		id := blob(7, data)
		if has, err := r.HasBlob(ctx, id); has || err != nil {
			t.Fatalf("has a blob before it was put: %v, %v", has, err)
		}
		if _, err := r.GetBlob(ctx, id); !errors.Is(err, store.ErrNotExist) {
			t.Fatalf("get of a blob that is not there: %v", err)
		}
		must(t, r.DeleteBlob(ctx, id))
		for range 2 {
			must(t, r.PutBlob(ctx, id, data))
			got, err := r.GetBlob(ctx, id)
			must(t, err)
			if !bytes.Equal(got, data) {
				t.Fatalf("got %d other bytes than the %d that were put", len(got), len(data))
			}
			if has, err := r.HasBlob(ctx, id); !has || err != nil {
				t.Fatalf("does not have what was put: %v, %v", has, err)
			}
		}
		if _, err := r.GetBlob(ctx, cas.BlobID{Epoch: 8, Digest: id.Digest}); !errors.Is(err, store.ErrNotExist) {
			t.Fatalf("a blob of another epoch: %v", err)
		}
		must(t, r.DeleteBlob(ctx, id))
		if _, err := r.GetBlob(ctx, id); !errors.Is(err, store.ErrNotExist) {
			t.Fatalf("get of a blob that was deleted: %v", err)
		}
	}
}

func listed(t *testing.T, ctx context.Context, r cas.Remote) {
	want := map[cas.Blob]bool{}
	for i := range 30 {
		data := fmt.Appendf(nil, "%*d", i+1, i)
		id := blob(uint64(i%3), data)
		must(t, r.PutBlob(ctx, id, data))
		want[cas.Blob{ID: id, Size: int64(len(data))}] = true
	}
	_, err := r.SwapRoot(ctx, []byte("a root is no blob"), "")
	must(t, err)
	n := 0
	for b, err := range r.ListBlobs(ctx) {
		must(t, err)
		if !want[b] {
			t.Errorf("lists %v of %d bytes, which was not put", b.ID, b.Size)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("lists %d blobs, of %d", n, len(want))
	}
	for range r.ListBlobs(ctx) {
		break // a list that is left early holds nothing up
	}
}

func swapped(t *testing.T, ctx context.Context, r cas.Remote) {
	data, none, err := r.LoadRoot(ctx, "")
	if len(data) != 0 || none != "" || err != nil {
		t.Fatalf("root of an empty bucket: %d bytes, version %q, %v", len(data), none, err)
	}
	if _, err := r.SwapRoot(ctx, []byte("early"), "1"); !errors.Is(err, cas.ErrLost) {
		t.Fatalf("swapped a root that is not there: %v", err)
	}
	first, err := r.SwapRoot(ctx, []byte("one"), "")
	must(t, err)
	if _, err := r.SwapRoot(ctx, []byte("another one"), ""); !errors.Is(err, cas.ErrLost) {
		t.Fatalf("made a second first root: %v", err)
	}
	big := bytes.Repeat([]byte("2"), cas.MaxRoot)
	second, err := r.SwapRoot(ctx, big, first)
	must(t, err)
	if first == "" || second == "" || second == first {
		t.Fatalf("versions %q and %q", first, second)
	}
	if _, err := r.SwapRoot(ctx, []byte("late"), first); !errors.Is(err, cas.ErrLost) {
		t.Fatalf("swapped from an old version: %v", err)
	}
	for _, have := range []cas.Version{"", first} {
		data, version, err := r.LoadRoot(ctx, have)
		if !bytes.Equal(data, big) || version != second || err != nil {
			t.Fatalf("root is %.20q, version %q, %v; want version %q", data, version, err, second)
		}
	}
	data, version, err := r.LoadRoot(ctx, second)
	if len(data) > 0 && !bytes.Equal(data, big) || version != second || err != nil {
		t.Fatalf("root as it was: %.20q, version %q, %v", data, version, err)
	}
}

// race is what loses commits if the bucket ignores the condition.
func race(t *testing.T, ctx context.Context, r cas.Remote) {
	version, err := r.SwapRoot(ctx, []byte("start"), "")
	must(t, err)
	for round := range 5 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var winners []string
		for i := range 8 {
			wg.Go(func() {
				data := fmt.Sprintf("round %d, %d", round, i)
				v, err := r.SwapRoot(ctx, []byte(data), version)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && v != "":
					winners = append(winners, data)
				case !errors.Is(err, cas.ErrLost):
					t.Errorf("swap: %q, %v", v, err)
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d of 8 swaps from one version succeeded: %q", len(winners), winners)
		}
		data, v, err := r.LoadRoot(ctx, version)
		must(t, err)
		if string(data) != winners[0] {
			t.Fatalf("%q won, and the root is %q", winners[0], data)
		}
		version = v
	}
}

func ended(t *testing.T, ctx context.Context, r cas.Remote) {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	id := blob(1, nil)
	_, err1 := r.GetBlob(ctx, id)
	_, err2 := r.HasBlob(ctx, id)
	_, _, err3 := r.LoadRoot(ctx, "")
	_, err4 := r.SwapRoot(ctx, nil, "")
	for i, err := range []error{r.PutBlob(ctx, id, nil), err1, err2, err3, err4, r.DeleteBlob(ctx, id)} {
		if err == nil {
			t.Errorf("call %d succeeded after its context had ended", i)
		}
	}
}
