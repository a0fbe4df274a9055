package host_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
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
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/modules"
	"github.com/circles-host/circles/testdata/build"
)

// cacheDir is shared, so that modules are compiled once and not in each test; the
// language modules without the race detector, with which that takes minutes.
var cacheDir string

func TestMain(m *testing.M) {
	var err error
	if cacheDir, err = build.Cache(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// world is a host with peers on it, for tests that read as a play.
type world struct {
	testing.TB
	root   *host.Root
	host   *host.Host
	stores map[peer.ID]store.Store
	wrap   func(peer.ID, store.Store) store.Store // what hosts get of stores; nil for themselves
}

func newWorld(t testing.TB, names ...peer.Name) *world {
	t.Helper()
	w := &world{TB: t, stores: map[peer.ID]store.Store{}}
	var err error
	if w.root, _, err = host.InitRoot(filepath.Join(t.TempDir(), "root")); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := w.root.AddPeer(name, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range modules.List() {
		if _, err := module.Add(filepath.Join(w.root.Dir, "modules"), m.Name, m.Wasm); err != nil {
			t.Fatal(err)
		}
	}
	w.start(host.Config{})
	return w
}

// start opens the host; stores outlive it, so that it can be opened again.
func (w *world) start(c host.Config) {
	w.Helper()
	var mu sync.Mutex
	c.OpenStore = func(_ context.Context, e peer.Entry) (store.Store, error) {
		mu.Lock()
		defer mu.Unlock()
		if w.stores[e.ID] == nil {
			w.stores[e.ID] = mem.New(mem.Config{})
		}
		if s := store.Store(unclosed{w.stores[e.ID]}); w.wrap != nil {
			return w.wrap(e.ID, s), nil
		}
		return unclosed{w.stores[e.ID]}, nil
	}
	c.CacheDir = cacheDir
	c.Languages = textLanguages()
	c.Log = slog.New(slog.NewTextHandler(w.Output(), nil))
	h, err := host.Open(context.Background(), w.root, c)
	if err != nil {
		w.Fatal(err)
	}
	w.host = h
	w.Cleanup(func() { h.Close() })
}

type unclosed struct{ store.Store }

func (unclosed) Close() error { return nil }

func (w *world) entry(name peer.Name) peer.Entry {
	w.Helper()
	e, ok := w.root.Peers.ByName(name)
	if !ok {
		w.Fatalf("no peer %s", name)
	}
	return e
}

func (w *world) key(name peer.Name) *peer.Key {
	w.Helper()
	k, err := w.entry(name).Key()
	if err != nil {
		w.Fatal(err)
	}
	return k
}

// policy writes a policy file of a peer and waits until it is in force.
func (w *world) policy(name peer.Name, file, text string) {
	w.Helper()
	path := filepath.Join(w.entry(name).Dir, "policy", file+".cedar")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	w.reopen()
}

// reopen has the host read everything anew, so that tests need not wait.
func (w *world) reopen() {
	w.Helper()
	if w.host != nil {
		w.host.Close()
	}
	w.start(host.Config{})
}

func (w *world) allow(to peer.Name, p policy.Permit) {
	w.Helper()
	if _, err := p.Save(filepath.Join(w.entry(to).Dir, "policy")); err != nil {
		w.Fatal(err)
	}
	w.reopen()
}

func (w *world) put(name peer.Name, path, text string) {
	w.Helper()
	w.files(name, func(fs store.FS) error {
		for i, c := range path {
			if c == '/' && i > 0 {
				if err := fs.Mkdir(path[:i]); err != nil && !errors.Is(err, store.ErrExists) {
					return err
				}
			}
		}
		f, err := fs.Open(path, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte(text), 0)
		return err
	})
}

func (w *world) files(name peer.Name, f func(store.FS) error) {
	w.Helper()
	id := w.entry(name).ID
	if w.stores[id] == nil {
		w.stores[id] = mem.New(mem.Config{})
	}
	if err := w.stores[id].Update(w.Context(), func(tx store.Tx) error { return f(tx.Files(nil)) }); err != nil {
		w.Fatal(err)
	}
}

// read returns a file's contents, "" if there is none.
func (w *world) read(name peer.Name, path string) (text string) {
	w.Helper()
	w.files(name, func(fs store.FS) error {
		f, err := fs.Open(path, store.FlagRead)
		if errors.Is(err, store.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		b := make([]byte, info.Size)
		_, err = f.ReadAt(b, 0)
		text = string(b)
		return err
	})
	return text
}

// send seals a script and hands it to the host, as a transport would.
func (w *world) send(from, to peer.Name, s script.Script) script.Receipt {
	w.Helper()
	sealed, id := w.seal(from, to, s)
	return w.deliver(sealed, id)
}

func (w *world) seal(from, to peer.Name, s script.Script) ([]byte, script.ID) {
	w.Helper()
	s.Target = w.entry(to).ID
	sealed, id, err := envelope.SealScript(s, w.key(from))
	if err != nil {
		w.Fatal(err)
	}
	return sealed, id
}

func (w *world) deliver(sealed []byte, id script.ID) script.Receipt {
	w.Helper()
	back, err := w.host.Deliver(w.Context(), sealed, nil)
	if err != nil {
		w.Fatalf("deliver: %v", err)
	}
	r, _, err := envelope.OpenReceiptOf(id, back, w.host.ID())
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func (w *world) logged(name peer.Name) (receipts []script.Receipt) {
	w.Helper()
	s := w.stores[w.entry(name).ID]
	if s == nil {
		return nil
	}
	var prev [32]byte
	for e, err := range s.Log(w.Context(), 1) {
		if err != nil {
			w.Fatal(err)
		}
		if e.Prev != prev {
			w.Fatalf("log of %s: entry %d does not follow the one before", name, e.Seq)
		}
		prev = e.Hash()
		r, _, err := envelope.OpenReceipt(e.Data, w.host.ID())
		if err != nil {
			w.Fatal(err)
		}
		receipts = append(receipts, r)
	}
	return receipts
}

func sign(message string) script.Script {
	params, _ := json.Marshal(map[string]string{"message": message})
	return script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "sign", Params: params,
		Lent: []script.Grant{{Action: script.Read, Path: "/card.txt"}}}
}

func guestbookPermit(w *world, who peer.Name) policy.Permit {
	return policy.Permit{Peer: w.entry(who).ID, Name: who, Module: "guestbook",
		Read: []string{"/guestbook"}, Write: []string{"/guestbook"}, List: []string{"/guestbook"}}
}

// The story of the project: refused with the reason, allowed, run in the
// target's context with what the caller lent, committed with its receipt.
func TestFromScriptToReceipt(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.put("alice", "/card.txt", "Alice Liddell, Oxford\n")
	w.put("alice", "/diary.txt", "secret")

	r := w.send("alice", "bob", sign("first"))
	if r.Code != script.Refused || len(r.Policies) != 0 || len(r.Effects) != 0 {
		t.Fatalf("before any permit: %+v", r)
	}
	for _, want := range []string{"alice", "guestbook", "bob", "circles-host policy allow --to bob alice guestbook", "--write /guestbook"} {
		if !strings.Contains(r.Message, want) {
			t.Errorf("refusal %q does not say %q", r.Message, want)
		}
	}
	if got := w.read("bob", "/guestbook/entries.txt"); got != "" {
		t.Fatalf("a refused script wrote %q", got)
	}

	w.allow("bob", guestbookPermit(w, "alice"))
	sealed, id := w.seal("alice", "bob", sign("second"))
	r = w.deliver(sealed, id)
	if r.Code != script.Done {
		t.Fatalf("after the permit: %+v", r)
	}
	if !bytes.Contains(r.Result, []byte("second")) || !bytes.Contains(r.Result, []byte("Alice Liddell")) {
		t.Errorf("result %s", r.Result)
	}
	if len(r.Policies) == 0 || r.Module != modules.List()[0].Digest() || r.Host != w.host.ID() ||
		r.Caller != w.entry("alice").ID || r.Target != w.entry("bob").ID || r.Finished.Before(r.Started) {
		t.Errorf("receipt %+v", r)
	}
	book := w.read("bob", "/guestbook/entries.txt")
	if !strings.Contains(book, "second") || !strings.Contains(book, "alice") {
		t.Errorf("guestbook: %q", book)
	}
	var seen bool
	for _, e := range r.Effects {
		if e.Path == "/guestbook/entries.txt" {
			seen = e.Kind == script.Created && e.After.Size == int64(len(book)) && e.After.Digest == sha256.Sum256([]byte(book))
		}
	}
	if !seen {
		t.Errorf("effects do not tell of entries.txt: %+v", r.Effects)
	}

	again := w.deliver(sealed, id)
	if !again.Finished.Equal(r.Finished) || w.read("bob", "/guestbook/entries.txt") != book {
		t.Errorf("delivered twice: %+v, want the first receipt and nothing done", again)
	}
	if got := w.logged("bob"); len(got) != 2 || got[0].Code != script.Refused || got[1].Script != r.Script {
		t.Errorf("log of bob: %+v", got)
	}
}

// A receipt outlives policies and modules that have changed since.
func TestReplayAfterEverythingChanged(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.allow("bob", guestbookPermit(w, "alice"))
	sealed, id := w.seal("alice", "bob", sign("hello"))
	first := w.deliver(sealed, id)
	w.policy("bob", "no", `@id("no") forbid(principal, action, resource);`)
	if err := os.Remove(filepath.Join(w.root.Dir, "modules", "guestbook.wasm")); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if again := w.deliver(sealed, id); again.Code != script.Done || !again.Started.Equal(first.Started) {
		t.Errorf("again: %+v", again)
	}
}

func TestDeliveredTwiceAtOnceRunsOnce(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.allow("bob", guestbookPermit(w, "alice"))
	for range 10 {
		sealed, _ := w.seal("alice", "bob", sign("once"))
		var all sync.WaitGroup
		receipts := make([][]byte, 8)
		for i := range receipts {
			all.Go(func() {
				var err error
				if receipts[i], err = w.host.Deliver(t.Context(), sealed, nil); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, r := range receipts {
			if !bytes.Equal(r, receipts[0]) {
				t.Fatal("one script, two receipts")
			}
		}
	}
	if n := strings.Count(w.read("bob", "/guestbook/entries.txt"), "once"); n != 10 {
		t.Errorf("10 scripts left %d entries", n)
	}
}

func TestNonceUsedForOtherBytes(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	s := sign("one")
	s.Nonce = script.Nonce{7}
	w.send("alice", "bob", s)
	s.Params = []byte(`{"message":"two"}`)
	sealed, _ := w.seal("alice", "bob", s)
	_, err := w.host.Deliver(t.Context(), sealed, nil)
	wantBare(t, err, transport.Conflict)
}

// Before the sender is known the answer is a bare error.
func TestBareErrors(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	good, _ := w.seal("alice", "bob", sign("x"))
	stranger, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other := func(s script.Script) []byte {
		sealed, _, err := envelope.SealScript(s, w.key("alice"))
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	elsewhere := sign("x")
	elsewhere.Target = stranger.ID()
	late := sign("x")
	late.Target = w.entry("bob").ID
	late.NotBefore, late.Deadline = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	early := late
	early.NotBefore, early.Deadline = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for name, tc := range map[string]struct {
		sealed []byte
		code   transport.Code
	}{
		"nothing":      {nil, transport.Malformed},
		"garbage":      {[]byte("hello"), transport.Malformed},
		"cut off":      {good[:len(good)-9], transport.Malformed},
		"one bit":      {flipped, transport.Unauthenticated},
		"not here":     {other(elsewhere), transport.NotFound},
		"expired":      {other(late), transport.Expired},
		"not yet":      {other(early), transport.Expired},
		"oversize":     {make([]byte, script.MaxSealed+1), transport.TooLarge},
		"wrong signer": {bytes.Replace(good, []byte(w.entry("alice").ID), []byte(stranger.ID()), 1), transport.Malformed},
	} {
		back, err := w.host.Deliver(t.Context(), tc.sealed, nil)
		if back != nil {
			t.Errorf("%s: got a receipt", name)
		}
		var e *transport.Error
		if !errors.As(err, &e) || (e.Code != tc.code && name != "wrong signer") {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
	}
	if got := w.logged("bob"); len(got) != 0 {
		t.Errorf("something was logged: %+v", got)
	}
}

func wantBare(t *testing.T, err error, code transport.Code) {
	t.Helper()
	var e *transport.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error %v, want %s", err, code)
	}
}

// guest is a reactor whose entry run does what the code says.
func guest(build func(m *abitest.Module), code ...abitest.Code) []byte {
	var m abitest.Module
	if build != nil {
		build(&m)
	}
	m.MemoryMax(1, 65536)
	m.Bump(4096)
	m.Func("run", "ii", "i", code...)
	return m.Bytes()
}

// Each end that a script can come to has a code of its own, leaves no effect,
// and is in the log; and the host goes on.
func TestEnds(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	alien := guest(func(m *abitest.Module) { m.Import("env", "launch", "", "") }, abitest.I32(16))
	component := []byte{0, 'a', 's', 'm', 0x0d, 0, 1, 0}
	book := modules.List()[0].Wasm
	wall := engine.Limits{Wall: 300 * time.Millisecond}
	w.host.Close()
	w.start(host.Config{Limits: wall})
	for _, tc := range []struct {
		name    string
		s       script.Script
		code    script.Code
		message string
	}{
		{"trap", script.Script{Logic: script.Logic{Wasm: guest(nil, abitest.Unreachable)}}, script.Trapped, "unreachable"},
		{"endless loop", script.Script{Logic: script.Logic{Wasm: guest(nil, abitest.Loop, abitest.Br(0), abitest.End, abitest.I32(16))}}, script.Deadline, ""},
		{"recursion", script.Script{Logic: script.Logic{Wasm: guest(nil, abitest.I32(0), abitest.I32(0), abitest.Call(1))}}, script.OverLimit, "called too deep"},
		{"out of memory", script.Script{Logic: script.Logic{Wasm: guest(nil, abitest.I32(60000), abitest.MemoryGrow, abitest.I32(-1), abitest.Eq, abitest.If, abitest.Unreachable, abitest.End, abitest.I32(16))}}, script.OutOfMemory, ""},
		{"a lie about the result", script.Script{Logic: script.Logic{Wasm: guest(nil, abitest.I32(20), abitest.I32(-8), abitest.Store, abitest.I32(24), abitest.I32(1<<30), abitest.Store, abitest.I32(16))}}, script.Trapped, ""},
		{"entry returns an error", script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "sign", Params: []byte("not json")}, script.Failed, "message"},
		{"no such entry", script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "burn"}, script.NotFound, "burn"},
		{"no such module", script.Script{Logic: script.Logic{Name: "gone"}}, script.NotFound, "gone"},
		{"no such digest", script.Script{Logic: script.Logic{Digest: script.Digest{1}}}, script.NotFound, "sha256"},
		{"import not offered", script.Script{Logic: script.Logic{Wasm: alien}}, script.Invalid, "launch"},
		{"component", script.Script{Logic: script.Logic{Wasm: component}}, script.Invalid, "component"},
		{"truncated module", script.Script{Logic: script.Logic{Wasm: book[:len(book)/2]}}, script.Invalid, ""},
		{"text for a module", script.Script{Logic: script.Logic{Wasm: []byte("(module)")}}, script.Invalid, ""},
	} {
		r := w.send("alice", "bob", tc.s)
		if r.Code != tc.code || !strings.Contains(r.Message, tc.message) || r.Message == "" {
			t.Errorf("%s: %v %q; want %v that says %q", tc.name, r.Code, r.Message, tc.code, tc.message)
		}
		if len(r.Effects) != 0 || len(r.Result) != 0 {
			t.Errorf("%s: has effects %+v, result %q", tc.name, r.Effects, r.Result)
		}
		if got := w.logged("bob"); got[len(got)-1].Script != r.Script {
			t.Errorf("%s: is not in the log", tc.name)
		}
	}
	if r := w.send("alice", "bob", sign("still here")); r.Code != script.Done {
		t.Errorf("after all that: %v %s", r.Code, r.Message)
	}
}

// A refused stranger cannot find out which modules a peer has.
func TestRefusalDoesNotTellModulesApart(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	there := w.send("alice", "bob", sign("x"))
	gone := w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "gone"}})
	if there.Code != script.Refused || gone.Code != script.Refused {
		t.Errorf("codes %v, %v; want both refused", there.Code, gone.Code)
	}

	// A peer that the owner knows may be told how it would be allowed; a stranger
	// is told nothing that depends on what is there.
	stranger, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	refusal := func(name string) script.Receipt {
		s := sign("x")
		s.Target, s.Logic.Name = w.entry("bob").ID, name
		sealed, id, err := envelope.SealScript(s, stranger)
		if err != nil {
			t.Fatal(err)
		}
		return w.deliver(sealed, id)
	}
	there, gone = refusal("guestbook"), refusal("gone")
	if there.Code != script.Refused || there.Module != gone.Module || strings.ReplaceAll(there.Message, "guestbook", "gone") != gone.Message {
		t.Errorf("a stranger can tell %q, %v from %q, %v", there.Message, there.Module, gone.Message, gone.Module)
	}
}

// What the owner's annotations say holds for a script that runs.
func TestAnnotations(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.put("bob", "/open.txt", "open")
	w.put("bob", "/secret.txt", "secret")
	w.policy("bob", "all", `@id("all") @limits("fuel=1M") permit(principal, action, resource);
		@id("hidden") @hide forbid(principal, action, resource == Path::"/secret.txt");
		@id("may") @reason("come back in May") forbid(principal, action == Action::"submit", resource) when { context.module.name == "guestbook" };`)
	if r := w.send("alice", "bob", sign("x")); r.Code != script.Refused || !strings.Contains(r.Message, "come back in May") {
		t.Errorf("@reason: %v %s", r.Code, r.Message)
	}
	spin := guest(nil, abitest.Loop, abitest.Br(0), abitest.End, abitest.I32(16))
	if r := w.send("alice", "bob", carried(spin)); r.Code != script.OverLimit || r.Usage.Fuel > 1_100_000 {
		t.Errorf("@limits: %v %s, %d fuel", r.Code, r.Message, r.Usage.Fuel)
	}
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);
		@id("hidden") @hide forbid(principal, action, resource == Path::"/secret.txt");`)
	s := carried(build.Go(t, "testdata/guests/files", false))
	s.Params = []byte("list /\nread /open.txt\nread /secret.txt\nread /none.txt\nwrite /secret.txt x")
	r := w.send("alice", "bob", s)
	const want = "open.txt\n\"open\"\nerror: open /secret.txt: No such file or directory\nerror: open /none.txt: No such file or directory\n"
	if r.Code != script.Done || !strings.HasPrefix(string(r.Result), want) || strings.Contains(r.Message, "secret") {
		t.Errorf("@hide: %v %s\n%s%s", r.Code, r.Message, r.Result, r.Log)
	}
}

// A script that fails half-way leaves nothing, and says what it was denied.
func TestDeniedHalfWay(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	p := guestbookPermit(w, "alice")
	p.Write = []string{"/guestbook/entries.txt"}
	w.put("bob", "/guestbook/entries.txt", "before\n")
	w.allow("bob", p)
	r := w.send("alice", "bob", sign("x"))
	if r.Code != script.Failed {
		t.Fatalf("code %v: %s", r.Code, r.Message)
	}
	for _, want := range []string{"it was denied: write /guestbook", "to allow it: circles-host policy allow --to bob alice guestbook --write /guestbook"} {
		if !strings.Contains(r.Message, want) {
			t.Errorf("message %q does not say %q", r.Message, want)
		}
	}
	if got := w.read("bob", "/guestbook/entries.txt"); got != "before\n" {
		t.Errorf("what it wrote before stayed: %q", got)
	}
}

// What a caller lends is what its script can read there, and no more: not what
// was not lent, and nothing that the caller's own policies forbid.
func TestLending(t *testing.T) {
	for _, tc := range []struct {
		name   string
		lent   []script.Grant
		policy string // more of alice's
		card   bool
	}{
		{"lent", []script.Grant{{Action: script.Read, Path: "/card.txt"}}, "", true},
		{"all lent", []script.Grant{{Action: script.Read, Path: "/"}}, "", true},
		{"nothing lent", nil, "", false},
		{"another file lent", []script.Grant{{Action: script.Read, Path: "/card"}}, "", false},
		{"another action lent", []script.Grant{{Action: script.List, Path: "/card.txt"}}, "", false},
		{"forbidden", []script.Grant{{Action: script.Read, Path: "/card.txt"}}, `@id("never") forbid(principal, action, resource in Path::"/card.txt");`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, "alice", "bob")
			w.put("alice", "/card.txt", "Alice Liddell\n")
			w.policy("alice", "more", "// More.\n"+tc.policy)
			w.allow("bob", guestbookPermit(w, "alice"))
			s := sign("x")
			s.Lent = tc.lent
			r := w.send("alice", "bob", s)
			if r.Code != script.Done || strings.Contains(string(r.Result), "Liddell") != tc.card {
				t.Errorf("%v %s %s; want the card: %v", r.Code, r.Message, r.Result, tc.card)
			}
		})
	}
}

// Policies are in force when they are saved; a broken one leaves the last good.
func TestPolicyHotReload(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	notices := make(chan host.Notice, 64)
	w.host.Close()
	w.start(host.Config{Notify: func(n host.Notice) { notices <- n }})
	code := func() script.Code { return w.send("alice", "bob", sign("x")).Code }
	await := func(want script.Code) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); code() != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never became %v", want)
			}
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.entry("bob").Dir, "policy", "p.cedar"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code() != script.Refused {
		t.Fatal("allowed without a policy")
	}
	write(`permit(principal, action, resource);`)
	await(script.Done)
	write(`permit(principal, action, resource`)
	for n := range notices {
		if n.Kind == "policy" && n.Err != nil && n.Peer == "bob" {
			break
		}
	}
	if code() != script.Done || w.host.Problem() == nil {
		t.Errorf("a broken policy: code %v, problem %v", code(), w.host.Problem())
	}
	write(`forbid(principal, action, resource);`)
	await(script.Refused)
}

// A circle is the target's: its owner says who is in it.
func TestCircles(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	circles := "friends = [\"alice\"]\n"
	if err := os.WriteFile(w.entry("bob").CirclesFile(), []byte(circles), 0o600); err != nil {
		t.Fatal(err)
	}
	p := guestbookPermit(w, "alice")
	p.Peer, p.Name, p.Circle = "", "", "friends"
	w.allow("bob", p)
	if r := w.send("alice", "bob", sign("x")); r.Code != script.Done {
		t.Errorf("a friend: %v %s", r.Code, r.Message)
	}
	if r := w.send("carol", "bob", sign("x")); r.Code != script.Refused {
		t.Errorf("no friend: %v", r.Code)
	}
}

// A stranger's refusals do not fill the owner's disk.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	for range 700 {
		if r := w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "x"}}); r.Code != script.Refused {
			t.Fatalf("code %v", r.Code)
		}
	}
	if n := len(w.logged("bob")); n < 600 || n > 660 {
		t.Errorf("%d of 700 refusals are in the log; want about 600", n)
	}
}

// Contexts open when they are needed and close when they are not.
func TestContextsIdleOut(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.host.Close()
	var mu sync.Mutex
	opened, closed := 0, 0
	h, err := host.Open(t.Context(), w.root, host.Config{
		IdleAfter: 20 * time.Millisecond,
		OpenStore: func(context.Context, peer.Entry) (store.Store, error) {
			mu.Lock()
			defer mu.Unlock()
			opened++
			return counted{mem.New(mem.Config{}), func() { mu.Lock(); closed++; mu.Unlock() }}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	w.host = h
	for range 3 {
		var all sync.WaitGroup
		for range 4 {
			sealed, id := w.seal("alice", "bob", sign("x"))
			all.Go(func() { w.deliver(sealed, id) })
		}
		all.Wait()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			done := opened > 0 && opened == closed
			mu.Unlock()
			if done {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("opened %d, closed %d", opened, closed)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if opened < 3 {
		t.Errorf("opened %d times in 3 rounds", opened)
	}
}

type counted struct {
	store.Store
	closed func()
}

func (c counted) Close() error { c.closed(); return c.Store.Close() }

// A dry run says what a script would do, and does nothing.
func TestDryRun(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.put("alice", "/card.txt", "Alice Liddell\n")
	w.put("bob", "/guestbook/entries.txt", "1. bob: Welcome!\n")
	w.put("bob", "/guestbook/count", "1\n")
	s := sign("dry")
	s.DryRun = true
	if r := w.send("alice", "bob", s); r.Code != script.Refused || !r.DryRun {
		t.Fatalf("a dry run without a permit: %v", r.Code)
	}
	w.allow("bob", guestbookPermit(w, "alice"))
	r := w.send("alice", "bob", s)
	if r.Code != script.Done || !r.DryRun || !bytes.Contains(r.Result, []byte("dry")) {
		t.Fatalf("%v %s %s", r.Code, r.Message, r.Result)
	}
	var diff string
	for _, e := range r.Effects {
		if e.Path == "/guestbook/entries.txt" {
			diff = e.Diff
		}
	}
	if !strings.Contains(diff, " 1. bob: Welcome!\n+2. alice: dry (Alice Liddell)\n") {
		t.Errorf("diff %q", diff)
	}
	if got := w.read("bob", "/guestbook/entries.txt"); got != "1. bob: Welcome!\n" {
		t.Errorf("a dry run wrote: %q", got)
	}
	if log := w.logged("bob"); len(log) != 2 || !log[1].DryRun {
		t.Errorf("log %+v", log)
	}
	s.DryRun = false
	if r := w.send("alice", "bob", s); r.Code != script.Done || r.DryRun || !strings.Contains(string(r.Result), `"entry":2`) || r.Effects[0].Diff != "" {
		t.Errorf("for real: %+v", r)
	}
}

// Of a file that a script may write but not read, its receipt, which the caller
// gets, tells neither size nor digest, nor a dry run its text.
func TestReceiptTellsNothingOfWhatMayNotBeRead(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.put("bob", "/box", "yes\n")
	w.policy("bob", "p", `
@id("run") permit(principal, action == Action::"submit", resource);
@id("post") permit(principal, action == Action::"write", resource in Path::"/box");`)
	post := guest(func(m *abitest.Module) {
		m.Import("circles:host/contexts@0.1.0", "target", "", "i")
		m.Import("circles:host/contexts@0.1.0", "[method]context.append", "iiiiii", "")
		m.Data(64, "/box")
	}, abitest.Call(0), abitest.I32(64), abitest.I32(4), abitest.I32(64), abitest.I32(4), abitest.I32(128), abitest.Call(1), abitest.I32(16))
	for _, dry := range []bool{true, false} {
		r := w.send("alice", "bob", script.Script{Logic: script.Logic{Wasm: post}, DryRun: dry})
		if r.Code != script.Done || len(r.Effects) != 1 {
			t.Fatalf("%v %s %+v", r.Code, r.Message, r.Effects)
		}
		e := r.Effects[0]
		if e.Kind != script.Modified || e.Path != "/box" || e.Before != (script.Blob{}) || e.After != (script.Blob{}) || e.Diff != "" {
			t.Errorf("dry run %v: %+v", dry, e)
		}
	}
	if got := w.read("bob", "/box"); got != "yes\n/box" {
		t.Errorf("box: %q", got)
	}
}
