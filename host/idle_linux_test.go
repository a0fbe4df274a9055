package host_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// held is what a process has of the things that there are only so many of.
type held struct{ files, watches, goroutines int }

func holds(t *testing.T) held {
	t.Helper()
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil || len(infos) == 0 {
		t.Fatal("no descriptors are found in /proc", err)
	}
	h := held{files: openFiles(t), goroutines: runtime.NumGoroutine()}
	for _, f := range infos {
		text, _ := os.ReadFile(f) // that of the glob itself is gone
		h.watches += bytes.Count(text, []byte("inotify wd"))
	}
	return h
}

// TestIdlePeersHoldNothing: neither peers that are registered nor contexts that were
// used take a file, a watch or a goroutine while nobody calls them.
func TestIdlePeersHoldNothing(t *testing.T) {
	const idle = 100 * time.Millisecond
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	w.onDisk(host.Config{IdleAfter: idle})
	run := carried(guest(nil, abitest.I32(16)))
	if r := w.send("alice", "bob", run); r.Code != script.Done {
		t.Fatal(r.Code, r.Message)
	}
	// Whoever closes what comes last is not waited for: it is the least of some time.
	few := holds(t)
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		now := holds(t)
		few = held{min(few.files, now.files), min(few.watches, now.watches), min(few.goroutines, now.goroutines)}
	}

	var names []peer.Name
	for i := range 150 {
		name := peer.Name(fmt.Sprintf("p%d", i))
		if _, err := w.root.AddPeer(name, ""); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.entry(name).Dir, "policy", "all.cedar"), []byte(anything), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	w.onDisk(host.Config{IdleAfter: idle})
	check := func(what string) {
		t.Helper()
		within(t, func() error {
			if now := holds(t); now.files > few.files || now.watches > few.watches || now.goroutines > few.goroutines {
				return fmt.Errorf("%s: it holds %+v; with two peers %+v", what, now, few)
			}
			return nil
		})
	}
	check("150 more are registered")
	most := few
	for _, name := range names[:50] {
		if r := w.send("alice", name, run); r.Code != script.Done {
			t.Fatal(r.Code, r.Message)
		}
		now := holds(t)
		most = held{max(most.files, now.files), max(most.watches, now.watches), max(most.goroutines, now.goroutines)}
	}
	if most.files <= few.files || most.watches <= few.watches {
		t.Errorf("contexts in use hold %+v, those that are not %+v: this test sees nothing", most, few)
	}
	check("50 were used")
}
