package host_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/testdata/build"
)

const anything = `@id("all") permit(principal, action, resource);`

// onDisk starts the host anew, with its contexts in their directories.
func (w *world) onDisk(c host.Config) {
	w.Helper()
	w.host.Close()
	c.OpenStore = func(_ context.Context, e peer.Entry) (store.Store, error) {
		s, err := fs.Open(fs.Config{Data: filepath.Join(e.Dir, "data"), Log: filepath.Join(e.Dir, "log"), Tx: filepath.Join(e.Dir, "tx")})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	c.CacheDir = cacheDir
	h, err := host.Open(context.Background(), w.root, c)
	if err != nil {
		w.Fatal(err)
	}
	w.host = h
	w.Cleanup(func() { h.Close() })
}

// on is a guest that calls one method of its target with path, and what else,
// and succeeds whatever comes of it.
func on(method, params string, path string, rest ...abitest.Code) []byte {
	return guest(func(m *abitest.Module) {
		m.Import("circles:host/contexts@0.1.0", "target", "", "i")
		m.Import("circles:host/contexts@0.1.0", "[method]context."+method, params, "")
		m.Data(256, path)
	}, append(append([]abitest.Code{abitest.Call(0), abitest.I32(256), abitest.I32(int32(len(path)))}, rest...), abitest.I32(128), abitest.Call(1), abitest.I32(16))...)
}

// carried is code that comes with its script.
func carried(wasm []byte) script.Script { return script.Script{Logic: script.Logic{Wasm: wasm}} }

// The time that it takes to say what a script did is the script's.
func TestRemovingAHugeFileEndsAtTheDeadline(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	w.onDisk(host.Config{})
	huge := filepath.Join(w.entry("bob").Dir, "data", "huge")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 1<<40); err != nil {
		t.Fatal(err)
	}
	s := carried(on("remove", "iiii", "/huge"))
	s.NotBefore = time.Now()
	s.Deadline = s.NotBefore.Add(time.Second)
	began := time.Now()
	r := w.send("alice", "bob", s)
	if took := time.Since(began); r.Code != script.Deadline || took > 20*time.Second {
		t.Errorf("%v %s after %v", r.Code, r.Message, took)
	}
	if _, err := os.Stat(huge); err != nil {
		t.Error(err)
	}
}

// A name may be anything, and neither prevents its receipt nor writes lines of
// its own into a diff.
func TestOddNamesInReceipts(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	long := strings.Repeat("/"+strings.Repeat("d", 200), 18)
	commands := []string{"write /a\r+++b hello", "write /\x1b[2J hello"}
	for i := 201; i <= len(long); i += 201 {
		commands = append(commands, "mkdir "+long[:i])
	}
	commands = append(commands, "write "+long+"/f x", "read /\xff/\x1b[31m", "write /\xff no")
	s := carried(build.Go(t, "testdata/guests/files", false))
	s.Params = []byte(strings.Join(commands, "\n"))
	for _, s.DryRun = range []bool{true, false} {
		r := w.send("alice", "bob", s)
		if r.Code != script.Done || len(r.Effects) != len(commands)-2 {
			t.Fatalf("dry run %v: %v %s; %d effects\n%s%s", s.DryRun, r.Code, r.Message, len(r.Effects), r.Result, r.Log)
		}
		for _, e := range r.Effects {
			if i := strings.IndexAny(e.Diff, "\r\x1b"); i >= 0 {
				t.Errorf("diff of %q has what its name brought along: %q", e.Path, e.Diff)
			}
		}
	}
}

// More effects than a receipt lists, written one by one.
func TestMoreEffectsThanAReceiptHolds(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	const n = script.MaxEffects + 50
	const digits, path, out, counter = 5, 256, 128, 10
	body := []abitest.Code{
		abitest.Call(0), abitest.Set(2),
		abitest.Loop,
		// the counter's digits, in base 16, become the name
	}
	for i := range int32(digits) {
		body = append(body, abitest.I32(path+1+i),
			abitest.Get(3), abitest.I32(4*i), abitest.ShrU, abitest.I32(15), abitest.And, abitest.I32('a'), abitest.Add, abitest.Store8)
	}
	body = append(body,
		abitest.Get(2), abitest.I32(path), abitest.I32(1+digits), abitest.I32(path), abitest.I32(4), abitest.I32(out), abitest.Call(1),
		abitest.Get(3), abitest.I32(1), abitest.Add, abitest.Set(3),
		abitest.Get(3), abitest.I32(n), abitest.Ne, abitest.BrIf(0), abitest.End,
		abitest.I32(16))
	wasm := guest(func(m *abitest.Module) {
		m.Import("circles:host/contexts@0.1.0", "target", "", "i")
		m.Import("circles:host/contexts@0.1.0", "[method]context.write", "iiiiii", "")
		m.Data(path, "/")
	}, body...)
	r := w.send("alice", "bob", carried(wasm))
	if r.Code != script.Done || len(r.Effects) != script.MaxEffects || r.MoreEffects != 50 {
		t.Errorf("%v %s: %d effects and %d more", r.Code, r.Message, len(r.Effects), r.MoreEffects)
	}
	if got := w.logged("bob"); len(got) != 1 || got[0].MoreEffects != 50 {
		t.Errorf("log: %d", len(got))
	}
}
