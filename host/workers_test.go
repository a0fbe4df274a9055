package host_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
)

// Two workers hold one peer, whose context is in a bucket that both of them commit
// to. What they are sent, at the same time and partly both of them, is done once
// each, and nothing that one does takes away what the other did.
func TestTwoWorkersOnOneBucket(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.allow("bob", guestbookPermit(w, "alice"))
	w.host.Close()
	elsewhere, _, err := host.InitRoot(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"peers", "modules"} {
		os.RemoveAll(filepath.Join(elsewhere.Dir, dir))
		if err := os.CopyFS(filepath.Join(elsewhere.Dir, dir), os.DirFS(filepath.Join(w.root.Dir, dir))); err != nil {
			t.Fatal(err)
		}
	}
	// A copy is as readable as the umask has it, and keys must not be.
	if err := filepath.Walk(filepath.Join(elsewhere.Dir, "peers"), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			err = os.Chmod(path, 0o600)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if elsewhere, err = host.OpenRoot(elsewhere.Dir); err != nil {
		t.Fatal(err)
	}
	buckets := map[peer.ID]*castest.Bucket{w.entry("alice").ID: {}, w.entry("bob").ID: {}}
	var hosts []*host.Host
	for _, root := range []*host.Root{w.root, elsewhere} {
		h, err := host.Open(t.Context(), root, host.Config{CacheDir: cacheDir, OpenStore: func(ctx context.Context, e peer.Entry) (store.Store, error) {
			// A bucket is not as near as memory, or they would hardly meet.
			return cas.Open(ctx, &castest.Faults{Remote: buckets[e.ID], Delay: 2 * time.Millisecond}, cas.Config{})
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		hosts = append(hosts, h)
	}
	if hosts[0].ID() == hosts[1].ID() {
		t.Fatal("the workers are one")
	}

	const scripts = 12
	var wg sync.WaitGroup
	var mu sync.Mutex
	receipts := map[script.ID][][]byte{}
	for i := range scripts {
		for which, h := range hosts {
			// Each its own; and one that both are sent.
			for _, message := range []string{fmt.Sprintf("script %d of worker %d.", i, which), fmt.Sprintf("script %d of both.", i)} {
				if which == 1 && strings.HasSuffix(message, "both.") {
					continue
				}
				sealed, id := w.seal("alice", "bob", sign(message))
				to := []*host.Host{h}
				if strings.HasSuffix(message, "both.") {
					to = hosts
				}
				for _, h := range to {
					wg.Go(func() {
						back, err := h.Deliver(t.Context(), sealed, nil)
						if err != nil {
							t.Errorf("%s: %v", message, err)
							return
						}
						r, _, err := envelope.OpenReceiptOf(id, back, "")
						if err != nil || r.Code != script.Done {
							t.Errorf("%s: %v %s, %v", message, r.Code, r.Message, err)
						}
						mu.Lock()
						receipts[id] = append(receipts[id], back)
						mu.Unlock()
					})
				}
			}
		}
	}
	wg.Wait()
	for id, rs := range receipts {
		if len(rs) == 2 && !bytes.Equal(rs[0], rs[1]) {
			t.Errorf("script %v was given two receipts", id)
		}
	}

	bob, err := cas.Open(t.Context(), buckets[w.entry("bob").ID], cas.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.stores[w.entry("bob").ID] = bob
	defer bob.Close()
	book := w.read("bob", "/guestbook/entries.txt")
	for i := range scripts {
		for _, message := range []string{fmt.Sprintf("script %d of worker 0.", i), fmt.Sprintf("script %d of worker 1.", i), fmt.Sprintf("script %d of both.", i)} {
			if n := strings.Count(book, message); n != 1 {
				t.Errorf("%q is in the guestbook %d times", message, n)
			}
		}
	}
	byHost := map[peer.ID]int{}
	for e, err := range bob.Log(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := envelope.OpenReceipt(e.Data, "")
		if err != nil {
			t.Fatal(err)
		}
		byHost[r.Host]++
	}
	if a, b := byHost[hosts[0].ID()], byHost[hosts[1].ID()]; a+b != 3*scripts || a < scripts || b < scripts {
		t.Errorf("the log has %d receipts of one worker and %d of the other, want %d together", a, b, 3*scripts)
	}
	if err := bob.Check(t.Context(), func(err error) { t.Error(err) }); err != nil {
		t.Error(err)
	}
}
