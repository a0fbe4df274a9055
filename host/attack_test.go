package host_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/turns"
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

// A file of a GiB that a script appends to stays the file that it is: a copy would
// be another.
func TestAppendToAGiB(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	w.onDisk(host.Config{})
	long := filepath.Join(w.entry("bob").Dir, "data", "long")
	if err := os.WriteFile(long, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(long, 1<<30); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(long)
	if err != nil {
		t.Fatal(err)
	}
	r := w.send("alice", "bob", carried(on("append", "iiiiii", "/long", abitest.I32(256), abitest.I32(5))))
	after, err := os.Stat(long)
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != script.Done || after.Size() != 1<<30+5 || !os.SameFile(before, after) {
		t.Errorf("%v %s: %d bytes, the same file: %v", r.Code, r.Message, after.Size(), os.SameFile(before, after))
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

// An owner puts a backup in a context's place while the host serves it: what
// was moved away is neither written nor obeyed any more.
func TestContextIsReplacedWhileServed(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	w.onDisk(host.Config{})
	write := carried(on("write", "iiiiii", "/f", abitest.I32(256), abitest.I32(2)))
	if r := w.send("alice", "bob", write); r.Code != script.Done {
		t.Fatal(r.Code, r.Message)
	}
	dir := w.entry("bob").Dir
	aside := filepath.Join(filepath.Dir(dir), ".bob-before")
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"policy/all.cedar", "data/f"} {
		if err := os.Remove(filepath.Join(backup, gone)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(dir, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, dir); err != nil {
		t.Fatal(err)
	}
	if r := w.send("alice", "bob", write); r.Code != script.Refused {
		t.Errorf("by the policies that were moved away: %v %s", r.Code, r.Message)
	}
	if err := os.WriteFile(filepath.Join(dir, "policy", "all.cedar"), []byte(anything), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.send("alice", "bob", write); r.Code != script.Done {
		t.Errorf("by the policies that are there: %v %s", r.Code, r.Message)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "f")); err != nil {
		t.Error(err)
	}
}

// Strangers, whom nobody lets run anything, cannot have every context of a host
// kept open.
func TestStrangersDoNotHoldEveryContextOpen(t *testing.T) {
	const peers, most = 24, 4
	names := make([]peer.Name, peers)
	for i := range names {
		names[i] = peer.Name(fmt.Sprintf("p%d", i))
	}
	w := newWorld(t, names...)
	w.onDisk(host.Config{MaxContexts: most})
	before := openFiles(t)
	var all sync.WaitGroup
	for i := range names {
		sealed, id := w.seal("p0", names[i], sign("x"))
		all.Go(func() {
			if r := w.deliver(sealed, id); r.Code != script.Refused {
				t.Error(r.Code, r.Message)
			}
		})
	}
	all.Wait()
	for i := range names { // and one after the other
		w.send("p0", names[i], sign("y"))
	}
	const each = 16 // descriptors of a context, at most
	within(t, func() error {
		if n := openFiles(t); n > before+each*most {
			return fmt.Errorf("%d files are open, %d before", n, before)
		}
		return nil
	})
	t.Logf("%d files open, %d before", openFiles(t), before)
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// within waits until f has no error.
func within(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Error(err)
}

// A host that closes answers each script by what is in force or not at all: a
// peer's modules do not make way for those of the host that they shadow.
func TestCloseWhileScriptsArrive(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", anything)
	good, bad := guest(nil, abitest.I32(16)), guest(nil, abitest.Unreachable)
	for dir, wasm := range map[string][]byte{w.root.Dir: bad, w.entry("bob").Dir: good} {
		if _, err := module.Add(filepath.Join(dir, "modules"), "mine", wasm); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		w.onDisk(host.Config{})
		w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "mine"}})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for {
					sealed, id := w.seal("alice", "bob", script.Script{Logic: script.Logic{Name: "mine"}})
					back, err := w.host.Deliver(t.Context(), sealed, nil)
					if err != nil {
						wantBare(t, err, transport.Unavailable)
						return
					}
					r, _, err := envelope.OpenReceiptOf(id, back, w.host.ID())
					if err != nil || r.Code != script.Done && r.Code != script.Unavailable {
						t.Errorf("%v %s %v", r.Code, r.Message, err)
					}
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
		w.host.Close()
		all.Wait()
	}
}

// A caller who has a context wait keeps the others of the host from nothing.
func TestABusyContextTurnsScriptsAway(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	w.policy("bob", "all", anything)
	w.policy("carol", "all", anything)
	w.onDisk(host.Config{MaxPerContext: 4, Limits: engine.Limits{Wall: 2 * time.Second}})
	spin := carried(guest(nil, abitest.Loop, abitest.Br(0), abitest.End, abitest.I32(16)))
	var all sync.WaitGroup
	var mu sync.Mutex
	away := 0
	ctx, cancel := context.WithCancel(t.Context())
	for _, caller := range []peer.Name{"alice", "alice", "alice", "carol", "carol", "alice", "carol"} {
		sealed, _ := w.seal(caller, "bob", spin)
		began := make(chan struct{})
		all.Go(func() {
			close(began)
			if _, err := w.host.Deliver(ctx, sealed, nil); err != nil {
				var e *transport.Error
				if wantBare(t, err, transport.Unavailable); errors.As(err, &e) && e.RetryAfter <= 0 {
					t.Errorf("it is not said when to come again: %+v", e)
				}
				mu.Lock()
				defer mu.Unlock()
				away++
			}
		})
		<-began
	}
	// Of 4 places alice gets 2 however often she asks, carol one, and one is left for
	// whoever comes.
	within(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		if away != 4 {
			return fmt.Errorf("%d of 7 were turned away", away)
		}
		return nil
	})
	if r := w.send("alice", "carol", carried(guest(nil, abitest.I32(16)))); r.Code != script.Done {
		t.Errorf("a neighbour: %v %s", r.Code, r.Message)
	}
	cancel()
	all.Wait()
}

// All scripts together take no more memory than the host has for them, by what
// each may take: one more waits, and one too many is turned away.
func TestScriptsTogetherHaveABoundedMemory(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave")
	for _, name := range []peer.Name{"bob", "carol", "dave"} {
		w.policy(name, "all", anything)
	}
	w.host.Close()
	w.start(host.Config{
		Limits: engine.Limits{Wall: time.Minute, Memory: 64 << 20},
		Turns:  turns.Config{Memory: 1, Waiting: 1}, // raised to what one script may take
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spin := carried(guest(nil, abitest.Loop, abitest.Br(0), abitest.End, abitest.I32(16)))
	var spinning sync.WaitGroup
	sealed, _ := w.seal("alice", "bob", spin)
	spinning.Go(func() { _, _ = w.host.Deliver(ctx, sealed, nil) })
	// try sends a script that waits in vain for a moment, and says why.
	try := func() string {
		sealed, _ := w.seal("carol", "dave", carried(guest(nil, abitest.I32(16))))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := w.host.Deliver(ctx, sealed, nil)
		var e *transport.Error
		if !errors.As(err, &e) || e.Code != transport.Unavailable {
			return fmt.Sprintf("not turned away: %v", err)
		}
		return e.Message
	}
	wants := func(message string) {
		t.Helper()
		within(t, func() error {
			if got := try(); !strings.Contains(got, message) {
				return errors.New(got)
			}
			return nil
		})
	}
	wants("did not get to this script in time") // the first has begun
	waits := make(chan script.Code, 1)
	second, id := w.seal("bob", "carol", carried(guest(nil, abitest.I32(16))))
	go func() {
		for t.Context().Err() == nil { // another may have been the one that waits
			if back, err := w.host.Deliver(t.Context(), second, nil); err == nil {
				r, _, _ := envelope.OpenReceiptOf(id, back, w.host.ID())
				waits <- r.Code
				return
			}
		}
	}()
	wants("waiting for their turn")
	if len(waits) != 0 {
		t.Error("the second did not wait")
	}
	cancel()
	spinning.Wait()
	if code := <-waits; code != script.Done {
		t.Errorf("the one that waited: %v", code)
	}
}

// Scripts that compute for ever leave another caller's the processors when it is
// its turn, and end at their deadlines.
func TestGreedyScriptsLetOthersCompute(t *testing.T) {
	var greedy []peer.Name
	for i := range 12 {
		greedy = append(greedy, peer.Name(fmt.Sprintf("target%d", i)))
	}
	w := newWorld(t, append([]peer.Name{"alice", "bob", "carol"}, greedy...)...)
	for _, name := range append(greedy, "carol") {
		w.policy(name, "all", anything)
	}
	w.host.Close()
	w.start(host.Config{Limits: engine.Limits{Wall: time.Minute}, Turns: turns.Config{Processors: 1}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spin := carried(guest(nil, abitest.Loop, abitest.Br(0), abitest.End, abitest.I32(16)))
	var spinning sync.WaitGroup
	for _, to := range greedy {
		sealed, _ := w.seal("alice", to, spin)
		spinning.Go(func() { _, _ = w.host.Deliver(ctx, sealed, nil) })
	}
	for range 20 {
		if r := w.send("bob", "carol", carried(guest(nil, abitest.I32(16)))); r.Code != script.Done {
			t.Fatalf("%v %s", r.Code, r.Message)
		}
	}
	cancel()
	spinning.Wait()
}

// A host that keeps a script open may not go on reading what was lent to it.
func TestNothingIsLentAfterTheDeadline(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	asker, err := w.root.Key()
	if err != nil {
		t.Fatal(err)
	}
	for late, open := range map[time.Duration]bool{-time.Minute: true, time.Minute: false} {
		s := sign("x")
		s.Caller, s.Deadline = w.entry("alice").ID, time.Now().Add(-late)
		q := script.Question{Script: script.ID{1}, Seq: 1, Op: script.AskStat, Path: "/card.txt"}
		sealed, err := envelope.SealQuestion(q, asker)
		if err != nil {
			t.Fatal(err)
		}
		l := &host.Lender{Key: w.key("alice"), Script: &s, ID: q.Script, Host: asker.ID(),
			OpenStore: func(context.Context) (store.Store, error) { return nil, errors.New("closed") }}
		if _, err := l.Answer(t.Context(), sealed); (err == nil) != open {
			t.Errorf("%v after the deadline: %v", late, err)
		}
		l.Close()
	}
}

// What scripts may do to their host, sixteen at a time: each gets its receipt,
// a neighbour gets through, and nothing of it stays.
func TestNothingStaysOfHostileScripts(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	w.policy("bob", "all", anything)
	w.policy("carol", "all", anything)
	w.put("bob", "/big", strings.Repeat("x", 16<<20))
	target := func(m *abitest.Module) {
		m.Import("circles:host/contexts@0.1.0", "target", "", "i")
	}
	forks := guest(target, abitest.Loop, abitest.Call(0), abitest.Drop, abitest.Br(0), abitest.End, abitest.I32(16))
	reads := guest(func(m *abitest.Module) {
		target(m)
		m.Import("circles:host/contexts@0.1.0", "[method]context.read", "iiii", "")
		m.Data(256, "/big")
	}, abitest.Loop, abitest.Call(0), abitest.I32(256), abitest.I32(4), abitest.I32(128), abitest.Call(1), abitest.Br(0), abitest.End, abitest.I32(16))
	huge := guest(nil, abitest.I32(16), abitest.I32(0), abitest.Store, abitest.I32(20), abitest.I32(64), abitest.Store, abitest.I32(24), abitest.I32(16<<20), abitest.Store, abitest.I32(300), abitest.MemoryGrow, abitest.Drop, abitest.I32(16))
	spam := script.Script{Logic: script.Logic{Wasm: build.Go(t, "testdata/guests/spam", false)}, Params: []byte("stderr")}
	w.host.Close()
	w.start(host.Config{Limits: engine.Limits{Wall: 2 * time.Second}})
	one := func(s script.Script) {
		sealed, id := w.seal("alice", "bob", s)
		r := w.deliver(sealed, id)
		if r.Code == script.Done || r.Code == script.Internal || len(r.Log) > script.MaxLog || len(r.Result) > 0 {
			t.Errorf("%v %s", r.Code, r.Message)
		}
	}
	for _, s := range []script.Script{carried(forks), carried(reads), carried(huge), spam} {
		one(s)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	var all sync.WaitGroup
	for i := range 16 {
		s := []script.Script{carried(forks), carried(reads), carried(huge), carried(forks)}[i%4]
		all.Go(func() { one(s) })
	}
	if r := w.send("alice", "carol", carried(guest(nil, abitest.I32(16)))); r.Code != script.Done {
		t.Errorf("a neighbour: %v %s", r.Code, r.Message)
	}
	all.Wait()
	within(t, func() error {
		runtime.GC()
		runtime.ReadMemStats(&after)
		if after.HeapAlloc > before.HeapAlloc+8<<20 || runtime.NumGoroutine() > goroutines+2 {
			return fmt.Errorf("%d MiB and %d goroutines; before %d and %d", after.HeapAlloc>>20, runtime.NumGoroutine(), before.HeapAlloc>>20, goroutines)
		}
		return nil
	})
	t.Logf("heap %d → %d KiB, taken from the system %d → %d MiB, goroutines %d → %d",
		before.HeapAlloc>>10, after.HeapAlloc>>10, before.Sys>>20, after.Sys>>20, goroutines, runtime.NumGoroutine())
}

// A caller who sends more than a host has room for, to whatever contexts, leaves room
// for who comes after.
func TestOneCallerLeavesRoomForOthers(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave")
	for _, name := range []peer.Name{"bob", "carol", "dave"} {
		w.policy(name, "all", anything)
	}
	w.onDisk(host.Config{MaxScripts: 6, Limits: engine.Limits{Wall: time.Minute}})
	spin := carried(guest(nil, abitest.Loop, abitest.Br(0), abitest.End, abitest.I32(16)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	away := make(chan error, 12)
	for i := range 12 {
		sealed, _ := w.seal("alice", []peer.Name{"bob", "carol"}[i%2], spin)
		all.Go(func() {
			if _, err := w.host.Deliver(ctx, sealed, nil); err != nil {
				away <- err
			}
		})
	}
	for range 9 { // 3 have a place
		select {
		case err := <-away:
			wantBare(t, err, transport.Unavailable)
		case <-time.After(20 * time.Second):
			t.Fatal("they were not turned away at once")
		}
	}
	for range 3 {
		if r := w.send("bob", "dave", carried(guest(nil, abitest.I32(16)))); r.Code != script.Done {
			t.Errorf("who comes after: %v %s", r.Code, r.Message)
		}
	}
	cancel()
	all.Wait()
	if r := w.send("alice", "bob", carried(guest(nil, abitest.I32(16)))); r.Code != script.Done {
		t.Errorf("when they have ended: %v %s", r.Code, r.Message)
	}
}

// Whoever waits for memory is told that there was none when the script's own time is
// over, and not when the sender gives up.
func TestWaitingEndsAtTheScriptsDeadline(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave")
	for _, name := range []peer.Name{"bob", "carol", "dave"} {
		w.policy(name, "all", anything)
	}
	w.onDisk(host.Config{
		Limits: engine.Limits{Wall: time.Minute, Memory: 64 << 20},
		Turns:  turns.Config{Memory: 1}, // raised to what one script may take
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spin := carried(guest(nil, abitest.Loop, abitest.Br(0), abitest.End, abitest.I32(16)))
	sealed, _ := w.seal("alice", "bob", spin)
	var all sync.WaitGroup
	all.Go(func() { _, _ = w.host.Deliver(ctx, sealed, nil) })
	small := carried(guest(nil, abitest.I32(16)))
	// Until that one has the memory, small scripts get through.
	within(t, func() error {
		small.Deadline = time.Now().Add(300 * time.Millisecond)
		sealed, _ := w.seal("dave", "carol", small)
		_, err := w.host.Deliver(t.Context(), sealed, nil)
		var e *transport.Error
		if !errors.As(err, &e) || e.Code != transport.Unavailable {
			return fmt.Errorf("with all memory taken: %v", err)
		}
		return nil
	})
	cancel()
	all.Wait()
}
