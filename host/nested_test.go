package host_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/transport/http2"
	"github.com/circles-host/circles/host/turns"
)

// withCourier adds the module courier, which sends scripts, to the host.
func (w *world) withCourier() {
	w.Helper()
	f, err := os.Open("testdata/courier/SHA256SUMS")
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	files := 0
	for lines := bufio.NewScanner(f); lines.Scan(); files++ {
		want, file, _ := strings.Cut(lines.Text(), "  ")
		b, err := os.ReadFile(filepath.Join("testdata/courier", file))
		if err != nil {
			w.Fatal(err)
		}
		if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != want {
			w.Errorf("%s is not what courier.wasm was built with; run testdata/courier/build.sh", file)
		}
	}
	if files != 3 {
		w.Fatalf("SHA256SUMS names %d files", files)
	}
	wasm, err := os.ReadFile("testdata/courier/courier.wasm")
	if err != nil {
		w.Fatal(err)
	}
	if _, err := module.Add(filepath.Join(w.root.Dir, "modules"), "courier", wasm); err != nil {
		w.Fatal(err)
	}
}

// write writes a policy file of a peer; the host has to read it yet.
func (w *world) write(name peer.Name, text string) {
	w.Helper()
	if err := os.WriteFile(filepath.Join(w.entry(name).Dir, "policy", "test.cedar"), []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

const open = `@id("all") permit(principal, action, resource);`

// couriers is a world in which everybody may do everything.
func couriers(t testing.TB, names ...peer.Name) *world {
	w := newWorld(t, names...)
	w.withCourier()
	for _, name := range names {
		w.write(name, open)
	}
	w.reopen()
	return w
}

func courier(entry, params string) script.Script {
	return script.Script{Logic: script.Logic{Name: "courier"}, Entry: entry, Params: []byte(params)}
}

// A script sends another one, as its target and not as its caller, and has its result;
// its receipt names it, and both logs have theirs.
func TestSend(t *testing.T) {
	w := couriers(t, "alice", "bob", "carol")
	r := w.send("alice", "bob", courier("keep", "carol courier see\nhello"))
	if r.Code != script.Done || string(r.Result) != "hello" {
		t.Fatalf("%v %s: %q", r.Code, r.Message, r.Result)
	}
	if got := w.read("carol", "/seen"); got != "hello" {
		t.Errorf("carol has %q", got)
	}
	there := w.logged("carol")
	if len(there) != 1 || there[0].Caller != w.entry("bob").ID || there[0].Target != w.entry("carol").ID || there[0].Code != script.Done {
		t.Fatalf("carol's log: %+v", there)
	}
	if len(r.Sent) != 1 || r.Sent[0].Script != there[0].Script || r.Sent[0].Target != w.entry("carol").ID || r.Sent[0].Code != script.Done || r.Sent[0].Receipt.IsZero() {
		t.Errorf("sent %+v", r.Sent)
	}
	if r.Usage.Wall < there[0].Usage.Wall {
		t.Error("the time of the nested script is not the outer one's")
	}
	// The bytes that were sent are the same each time, so that they are done once.
	for _, to := range []string{string(w.entry("carol").ID), "carol"} {
		if r := w.send("alice", "bob", courier("send", to+" courier see\n!")); r.Code != script.Done {
			t.Errorf("to %s: %v %s", to, r.Code, r.Message)
		}
	}
	if got := w.read("carol", "/seen"); got != "hello!!" {
		t.Errorf("carol has %q", got)
	}
	// What it did stands, though who sent it did not.
	r = w.send("alice", "bob", courier("fail", "carol courier see\n?"))
	if r.Code != script.Failed || len(r.Sent) != 1 || r.Sent[0].Code != script.Done {
		t.Errorf("%v: sent %+v", r.Code, r.Sent)
	}
	if got := w.read("carol", "/seen"); got != "hello!!?" {
		t.Errorf("carol has %q", got)
	}
	digest := script.DigestOf(must(os.ReadFile("testdata/courier/courier.wasm"))(t))
	if r := w.send("alice", "bob", courier("send", "carol "+digest.String()+" see\n.")); r.Code != script.Done {
		t.Errorf("by digest: %v %s", r.Code, r.Message)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// How a nested script ended, and why one is not sent, is said in words and a code.
func TestSendFails(t *testing.T) {
	w := couriers(t, "alice", "bob", "carol", "dave", "eve")
	w.write("dave", "")
	w.write("eve", `@id("look") @review permit(principal, action, resource);`)
	if err := os.Remove(filepath.Join(w.entry("carol").Dir, "peer.key")); err != nil {
		t.Fatal(err)
	}
	stranger := must(peer.GenerateKey())(t).ID()
	w.reopen()
	for _, tt := range []struct{ to, params, want string }{
		{"bob", "dave courier see", "denied: script"},
		{"bob", "eve courier see", "unavailable: script"},
		{"bob", "eve courier see", "pending"},
		{"bob", "alice nothing see", "not-found: script"},
		{"bob", "alice courier nothing", "not-found: script"},
		{"bob", "alice courier fail\nx", "failed: script"},
		{"bob", "alice wordcount -", "invalid: cannot send"},
		{"bob", "alice ../x see", "invalid: cannot send"},
		{"bob", "alice sha256:12 see", "invalid: cannot send"},
		{"bob", "nobody courier see", "not-found: cannot send to nobody"},
		{"bob", "a\x1bb courier see", "not-found: cannot send to \"a\\x1bb\""},
		{"bob", "bob courier see", "denied: cannot send to bob"},
		{"bob", string(stranger) + " courier see", "peer add NAME --id " + string(stranger)},
		{"carol", "alice courier see", "delegation create " + string(w.host.ID()) + " courier:see --as " + string(w.entry("carol").ID) + " --to alice"},
	} {
		r := w.send("alice", peer.Name(tt.to), courier("ask", tt.params))
		if r.Code != script.Done || !strings.Contains(string(r.Result), tt.want) {
			t.Errorf("%q: %v %s: %s; want %s", tt.params, r.Code, r.Message, r.Result, tt.want)
		}
	}
	// By a delegation to the host it is sent, though nobody has the key.
	d := script.Delegation{To: w.host.ID(), Targets: []peer.ID{w.entry("alice").ID}, Entries: []string{"courier:see"},
		Allows: []script.Grant{{Action: script.Write, Path: "/"}, {Action: script.Read, Path: "/"}}, NotAfter: time.Now().Add(time.Hour)}
	key := must(peer.GenerateKey())(t)
	frank := must(w.root.AddPeer("frank", key.ID()))(t)
	sealed, _, err := envelope.SealDelegation(d, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := host.KeepDelegation(w.root.DelegationsDir(), [][]byte{sealed}); err != nil {
		t.Fatal(err)
	}
	w.write("frank", open)
	w.reopen()
	if r := w.send("alice", "frank", courier("send", "alice courier see\nx")); r.Code != script.Done {
		t.Errorf("by delegation: %v %s", r.Code, r.Message)
	} else if l := w.logged("alice"); l[len(l)-1].Caller != frank.ID || len(l[len(l)-1].Via) != 1 || l[len(l)-1].Via[0].To != w.host.ID() {
		t.Errorf("by delegation: %+v", l)
	}
	if r := w.send("alice", "frank", courier("ask", "alice courier send\nx")); !strings.Contains(string(r.Result), "delegation create") {
		t.Errorf("what the delegation does not let run: %s", r.Result)
	}
}

// Who may be sent to is for the target's owner to say, of this caller and this module,
// and nobody learns who is known there.
func TestSendIsAllowed(t *testing.T) {
	w := couriers(t, "alice", "bob", "carol", "dave")
	circles := fmt.Sprintf("friends = [%q]\n", "carol")
	if err := os.WriteFile(filepath.Join(w.entry("bob").Dir, "policy", "circles.toml"), []byte(circles), 0o600); err != nil {
		t.Fatal(err)
	}
	alice := `principal == Peer::"` + string(w.entry("alice").ID) + `"`
	const rest = `@id("run") permit(principal, action == Action::"submit", resource);`
	for _, tt := range []struct {
		policy string
		to     string
		want   string // "" is that it is sent
	}{
		{"", "carol", "denied: may not send to carol from the context of bob: no policy of bob permits it"},
		{"", "nobody", "denied: may not send to nobody from the context of bob: no policy of bob permits it"},
		{`permit(` + alice + `, action == Action::"send", resource == Peer::"` + string(w.entry("carol").ID) + `");`, "carol", ""},
		{`permit(` + alice + `, action == Action::"send", resource == Peer::"` + string(w.entry("carol").ID) + `");`, "dave", "denied"},
		{`permit(` + alice + `, action == Action::"send", resource in Circle::"friends");`, "carol", ""},
		{`permit(` + alice + `, action == Action::"send", resource in Circle::"friends");`, "dave", "denied"},
		{`permit(` + alice + `, action == Action::"send", resource in Circle::"friends");`, "nobody", "denied"},
		{`permit(` + alice + `, action == Action::"send", resource) when { resource.name like "c*" };`, "carol", "denied"}, // dave may have no name, so it does not load
		{`permit(` + alice + `, action == Action::"send", resource) when { resource has name && resource.name like "c*" };`, "carol", ""},
		{`permit(` + alice + `, action == Action::"send", resource) when { context.module.name == "other" };`, "carol", "denied"},
		{`permit(principal == Peer::"` + string(w.entry("dave").ID) + `", action == Action::"send", resource);`, "carol", "denied"},
		{`permit(principal, action, resource); forbid(principal, action == Action::"send", resource in Circle::"friends");`, "carol", "forbids it"},
		{`permit(principal, action, resource); forbid(principal, action == Action::"send", resource in Circle::"friends");`, "dave", ""},
	} {
		w.write("bob", rest+tt.policy)
		w.reopen()
		r := w.send("alice", "bob", courier("ask", tt.to+" courier see\nx"))
		sent := len(r.Sent) == 1 && r.Sent[0].Code == script.Done
		if got := string(r.Result); tt.want != "" && (!strings.Contains(got+r.Message, tt.want) && r.Code != script.Refused || sent) || tt.want == "" && !sent {
			t.Errorf("%s\nto %s: %v %s: %s", tt.policy, tt.to, r.Code, r.Message, got)
		}
	}
	// The receipt of one that then fails says what to do.
	w.write("bob", rest)
	w.reopen()
	if r := w.send("alice", "bob", courier("send", "carol courier see\nx")); !strings.Contains(r.Message, "policy allow --to bob alice courier --send carol") {
		t.Errorf("%s", r.Message)
	}
	// And it is a policy that can be written.
	w.allow("bob", policy.Permit{Peer: w.entry("alice").ID, Module: "courier", Send: []string{string(w.entry("carol").ID)}})
	if r := w.send("alice", "bob", courier("send", "carol courier see\nx")); r.Code != script.Done {
		t.Errorf("%v %s", r.Code, r.Message)
	}
}

// How many may be sent is bounded, by the host and by the policy; and how deep.
func TestSendsAreBounded(t *testing.T) {
	names := []peer.Name{"alice", "b1", "b2", "b3", "b4", "b5", "b6"}
	w := couriers(t, names...)
	if r := w.send("alice", "b1", courier("many", "b2 courier see\nx")); !strings.HasPrefix(string(r.Result), "16 denied: cannot send to b2: this script has sent 16 others") || len(r.Sent) != 16 {
		t.Errorf("%v %s: %s; sent %d", r.Code, r.Message, r.Result, len(r.Sent))
	}
	w.write("b1", `@id("all") @limits("sends=3") permit(principal, action, resource);`)
	w.reopen()
	if r := w.send("alice", "b1", courier("many", "b2 courier see\nx")); !strings.HasPrefix(string(r.Result), "3 denied") {
		t.Errorf("%v %s: %s", r.Code, r.Message, r.Result)
	}
	params := ""
	for _, n := range names[2:] {
		params += string(n) + " courier send\n"
	}
	params = strings.TrimSuffix(params, "b6 courier send\n")
	if r := w.send("alice", "b1", courier("send", params+"alice courier see\nx")); r.Code != script.Failed || !strings.Contains(r.Message, "4 deep") {
		t.Errorf("five deep: %v %s %s", r.Code, r.Message, r.Result)
	}
	params = strings.TrimSuffix(params, "b5 courier send\n")
	if r := w.send("alice", "b1", courier("send", params+"alice courier see\nx")); r.Code != script.Done {
		t.Errorf("four deep: %v %s", r.Code, r.Message)
	}
	// Its own deadline ends it, and nothing else.
	w.write("b2", `@id("all") @limits("time=20ms") permit(principal, action, resource);`)
	w.reopen()
	if r := w.send("alice", "b1", courier("ask", "b2 courier see\nx")); r.Code != script.Done {
		t.Errorf("%v %s", r.Code, r.Message)
	}
}

// A script that would wait for itself is told so, however far off.
func TestSendInACircle(t *testing.T) {
	w := couriers(t, "alice", "bob", "carol")
	for _, params := range []string{
		"carol courier send\nbob courier see\nx",
		"carol courier send\nalice courier send\nbob courier see\nx",
		"carol courier send\nalice courier send\ncarol courier see\nx",
	} {
		started := time.Now()
		r := w.send("alice", "bob", courier("send", params))
		if r.Code != script.Failed || !strings.Contains(r.Message, "waits for this script") {
			t.Errorf("%q: %v %s", params, r.Code, r.Message)
		}
		if time.Since(started) > 40*time.Second {
			t.Errorf("%q took %v", params, time.Since(started))
		}
	}
	// The one that sent the first script may be sent to: it does not wait in a context.
	if r := w.send("alice", "bob", courier("send", "alice courier see\nx")); r.Code != script.Done {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	// What the sender of a script wrote about who waits is not the host's to believe more
	// than that.
	s := courier("see", "x")
	s.Within = script.Within{Root: script.ID{1}, Contexts: []peer.ID{w.entry("bob").ID, w.entry("alice").ID}}
	s.Target, s.Caller = w.entry("bob").ID, w.entry("alice").ID
	if _, _, err := envelope.SealScript(s, w.key("alice")); err == nil {
		t.Error("a script was sealed for which its own target waits")
	}
}

// Scripts that send to where others are that send to where they are do not stand still,
// and each is done once.
func TestSendsCross(t *testing.T) {
	names := []peer.Name{"alice", "bob", "carol", "dave"}
	w := couriers(t, names...)
	const rounds = 5
	var wg sync.WaitGroup
	sent := map[peer.Name]int{}
	var mu sync.Mutex
	for i, from := range names {
		for j, to := range names {
			if i == j {
				continue
			}
			wg.Go(func() {
				for range rounds {
					// To one, and through one to a third.
					third := names[(6-i-j)%4]
					params := string(to) + " courier see\n."
					if third != from && third != to {
						params = string(to) + " courier keep\n" + string(third) + " courier see\n."
					} else {
						third = to
					}
					r := w.send("alice", from, courier("keep", params))
					if r.Code != script.Done {
						t.Errorf("%s: %v %s", from, r.Code, r.Message)
						continue
					}
					mu.Lock()
					sent[third]++
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	for _, name := range names {
		if got := w.read(name, "/seen"); len(got) != sent[name] {
			t.Errorf("%s was sent to %d times, and has %d", name, sent[name], len(got))
		}
	}
}

// However many wait for those that they sent, a host goes on: places, memory and
// processors are not held by all of them.
func TestManySend(t *testing.T) {
	var names []peer.Name
	for i := range 12 {
		names = append(names, peer.Name(fmt.Sprintf("p%d", i)))
	}
	w := couriers(t, names...)
	w.host.Close()
	memory := uint64(64 << 20)
	w.start(host.Config{MaxScripts: 24, MaxPerContext: 24, Turns: turns.Config{Processors: 1, Memory: 6 * memory}})
	var wg sync.WaitGroup
	for i := range names {
		wg.Go(func() {
			next := func(n int) string { return string(names[(i+n)%len(names)]) }
			params := next(1) + " courier send\n" + next(2) + " courier send\n" + next(3) + " courier see\nx"
			for range 4 {
				if r := w.send(names[i], names[i], courier("send", params)); r.Code != script.Done {
					t.Errorf("%s: %v %s", names[i], r.Code, r.Message)
				}
			}
		})
	}
	wg.Wait()
	for _, name := range names {
		if got := w.read(name, "/seen"); got != "xxxx" {
			t.Errorf("%s has %q", name, got)
		}
	}
}

// A dry run sends dry runs, and a rehearsal keeps nothing anywhere.
func TestSendDryRun(t *testing.T) {
	w := couriers(t, "alice", "bob", "carol")
	s := courier("send", "carol courier see\nx")
	s.DryRun = true
	r := w.send("alice", "bob", s)
	if r.Code != script.Done || string(r.Result) != "x" || len(r.Sent) != 1 {
		t.Fatalf("%v %s: %q, sent %+v", r.Code, r.Message, r.Result, r.Sent)
	}
	if l := w.logged("carol"); len(l) != 1 || !l[0].DryRun {
		t.Errorf("carol's log: %+v", l)
	}
	s = courier("send", "carol courier see\nx")
	s.Caller, s.Target, s.NotBefore = w.entry("alice").ID, w.entry("bob").ID, time.Now()
	s.Deadline = s.NotBefore.Add(time.Minute)
	x, err := w.host.Rehearse(t.Context(), s, nil)
	if err != nil || x.Receipt.Code != script.Done || string(x.Receipt.Result) != "x" || len(x.Receipt.Sent) != 1 {
		t.Errorf("%v, %+v", err, x)
	}
	if len(x.Accesses) != 1 || x.Accesses[0].Action != script.Send || x.Accesses[0].Path != "carol" || !x.Accesses[0].Allowed {
		t.Errorf("accesses %+v", x.Accesses)
	}
	if n := len(w.logged("carol")); n != 1 || w.read("carol", "/seen") != "" {
		t.Errorf("carol's log has %d entries, and she has seen %q", n, w.read("carol", "/seen"))
	}
	// What its owner wants to look at first is for nobody else to try.
	w.write("carol", `@id("look") @review permit(principal, action, resource);`)
	w.write("bob", `@id("run") permit(principal, action == Action::"submit", resource);`)
	w.reopen()
	g, err := w.host.Suggest(t.Context(), s)
	if err != nil || len(g.Permit.Send) != 1 || g.Permit.Send[0] != string(w.entry("carol").ID) || !strings.Contains(g.Last.Receipt.Message, "looks at what this would do") {
		t.Errorf("suggested %+v, %v", g, err)
	}
}

// What is held for review is tried with what it sends, and nothing of what it has seen
// leaves; approved, it sends it once, however often it is approved.
func TestSendHeldForReview(t *testing.T) {
	w := couriers(t, "alice", "bob", "carol")
	w.write("bob", `@id("look") @review permit(principal, action, resource);`)
	w.reopen()
	sealed, id := w.seal("alice", "bob", courier("keep", "carol courier see\nx"))
	if r := w.deliver(sealed, id); r.Code != script.Pending || len(r.Sent) != 0 {
		t.Fatalf("%v %s", r.Code, r.Message)
	}
	if len(w.logged("carol")) != 0 || w.read("carol", "/seen") != "" {
		t.Fatal("carol was told of what is held")
	}
	approve := func(id script.ID, decision script.Decision) script.Receipt {
		decision.Ruling, decision.Script = script.Approve, id
		return w.send("bob", "bob", script.Script{Logic: script.Logic{Decide: decision}})
	}
	dry := script.Script{Logic: script.Logic{Decide: script.Decision{Ruling: script.Approve, Script: id}}, DryRun: true}
	if r := w.send("bob", "bob", dry); r.Code != script.Done || w.read("carol", "/seen") != "" {
		t.Errorf("a dry run of the decision: %v %s", r.Code, r.Message)
	}
	// What it sends to has something else to say by now: nothing is done anywhere.
	w.put("carol", "/seen", "before ")
	if r := approve(id, script.Decision{}); r.Code != script.Conflict || w.read("carol", "/seen") != "before " {
		t.Errorf("%v %s; carol has %q", r.Code, r.Message, w.read("carol", "/seen"))
	}
	if r := approve(id, script.Decision{OtherAnswer: true}); r.Code != script.Done {
		t.Fatalf("%v %s", r.Code, r.Message)
	}
	r := w.deliver(sealed, id)
	if r.Code != script.Done || len(r.Sent) != 1 || r.Sent[0].Code != script.Done || string(r.Result) != "before x" || w.read("carol", "/seen") != "before x" {
		t.Errorf("%+v; carol has %q", r, w.read("carol", "/seen"))
	}
}

// contested is a store that others commit to first, so many times.
type contested struct {
	store.Store
	left    *int
	changed func()
}

func (c contested) Update(ctx context.Context, f func(store.Tx) error) error {
	if *c.left == 0 {
		return c.Store.Update(ctx, f)
	}
	*c.left--
	err := c.Store.Update(ctx, func(tx store.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		return store.ErrConflict
	})
	c.changed()
	return err
}

// A script that is run again, since others committed first, sends what it sent once.
func TestSendOnce(t *testing.T) {
	w := couriers(t, "alice", "bob", "carol")
	left := 0
	secret := ""
	w.wrap = func(id peer.ID, s store.Store) store.Store {
		if id != w.entry("bob").ID {
			return s
		}
		return contested{s, &left, func() {
			if secret != "" {
				w.put("bob", "/secret", secret)
			}
		}}
	}
	w.reopen()
	left = 3
	r := w.send("alice", "bob", courier("keep", "carol courier see\nx"))
	if r.Code != script.Done || left != 0 || string(r.Result) != "x" || len(r.Sent) != 1 || w.read("bob", "/kept") != "before\nafter\n" {
		t.Fatalf("%d left: %v %s, %q, sent %+v", left, r.Code, r.Message, r.Result, r.Sent)
	}
	if got := w.read("carol", "/seen"); got != "x" || len(w.logged("carol")) != 1 {
		t.Errorf("carol has %q, and %d receipts", got, len(w.logged("carol")))
	}
	// One that sends something else the second time is told so, and its receipt names
	// what was sent the first time.
	w.put("bob", "/secret", "one")
	left, secret = 1, "two"
	r = w.send("alice", "bob", courier("leak", "carol courier see"))
	if r.Code != script.Done || !strings.HasPrefix(string(r.Result), "conflict: cannot send to carol: an earlier run of this script sent something else") {
		t.Errorf("%v %s: %s", r.Code, r.Message, r.Result)
	}
	if len(r.Sent) != 2 || r.Sent[0].Code != script.Done || r.Sent[1].Code != script.Unknown {
		t.Errorf("sent %+v", r.Sent)
	}
	if got := w.read("carol", "/seen"); got != "xone" {
		t.Errorf("carol has %q", got)
	}
}

// serve listens on loopback, and returns the URL.
func (w *world) serve() string {
	w.Helper()
	// A host that is opened anew serves the same address.
	server := http2.NewServer(func(ctx context.Context, sealed []byte, back transport.Back) ([]byte, error) {
		return w.host.Deliver(ctx, sealed, back)
	}, http2.Config{Host: string(w.host.ID())})
	l, err := server.Listen("127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	w.Cleanup(func() { stop(); <-done })
	return "http://" + l.Addr().String()
}

// knows lets a root know the peers of another, which is at url.
func (w *world) knows(other *world, url string, names ...peer.Name) {
	w.Helper()
	for _, name := range names {
		if err := w.root.Peers.SetRoute(name, peer.Route{ID: other.entry(name).ID, URL: url, Host: other.host.ID()}); err != nil {
			w.Fatal(err)
		}
	}
}

// Two hosts: a script sends to a peer on the other one as to one here, that one back to
// a third, and none to one that waits for it; however many do so at once, none stands
// still.
func TestSendBetweenHosts(t *testing.T) {
	here, there := couriers(t, "alice", "bob"), couriers(t, "carol", "dave")
	dial := func(url string) (transport.Sender, error) { return http2.Dial(url, nil) }
	for _, w := range []*world{here, there} {
		w.host.Close()
		w.start(host.Config{Dial: dial})
	}
	hereURL, thereURL := here.serve(), there.serve()
	here.knows(there, thereURL, "carol", "dave")
	there.knows(here, hereURL, "alice", "bob")
	for _, w := range []*world{here, there} {
		if err := w.root.Peers.Refresh(); err != nil {
			t.Fatal(err)
		}
		w.host.Close()
		w.start(host.Config{Dial: dial})
	}

	r := here.send("alice", "bob", courier("keep", "carol courier keep\nalice courier see\nhello"))
	if r.Code != script.Done || string(r.Result) != "hello" || here.read("alice", "/seen") != "hello" {
		t.Fatalf("%v %s: %q", r.Code, r.Message, r.Result)
	}
	l := there.logged("carol")
	if len(l) != 1 || l[0].Script != r.Sent[0].Script || l[0].Host != there.host.ID() || len(l[0].Sent) != 1 || l[0].Caller != here.entry("bob").ID {
		t.Errorf("carol's log: %+v", l)
	}
	r = here.send("alice", "bob", courier("send", "carol courier send\nbob courier see\nx"))
	if r.Code != script.Failed || !strings.Contains(r.Message, "the context of bob waits for this script") {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	// A dry run is one there, too; a try that has looked at something here goes nowhere.
	s := courier("send", "carol courier see\nx")
	s.DryRun = true
	if r := here.send("alice", "bob", s); r.Code != script.Done || there.read("carol", "/seen") != "" {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	here.put("bob", "/secret", "secret")
	here.write("bob", `@id("look") @review permit(principal, action, resource);`)
	here.host.Close()
	here.start(host.Config{Dial: dial})
	before := len(there.logged("carol"))
	if r := here.send("alice", "bob", courier("leak", "carol courier see")); r.Code != script.Pending {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	if l := there.logged("carol"); len(l) != before {
		t.Errorf("what bob has not approved was told carol: %+v", l[before:])
	}
	if r := here.send("alice", "bob", courier("send", "carol courier see\nx")); r.Code != script.Pending {
		t.Errorf("%v %s", r.Code, r.Message)
	}
	if l := there.logged("carol"); len(l) != before+1 || !l[before].DryRun {
		t.Errorf("what alice said was not tried: %+v", l[before:])
	}
	here.write("bob", open)
	here.host.Close()
	here.start(host.Config{Dial: dial})

	var wg sync.WaitGroup
	cross := func(w *world, from, to, third peer.Name) {
		wg.Go(func() {
			for range 3 {
				r := w.send(from, from, courier("keep", fmt.Sprintf("%s courier keep\n%s courier see\n.", to, third)))
				if r.Code != script.Done {
					t.Errorf("from %s: %v %s", from, r.Code, r.Message)
				}
			}
		})
	}
	cross(here, "alice", "carol", "bob")
	cross(here, "bob", "dave", "alice")
	cross(there, "carol", "alice", "dave")
	cross(there, "dave", "bob", "carol")
	wg.Wait()
	for w, names := range map[*world][]peer.Name{here: {"alice", "bob"}, there: {"carol", "dave"}} {
		for _, name := range names {
			if got := strings.Count(w.read(name, "/seen"), "."); got != 3 {
				t.Errorf("%s has %q", name, w.read(name, "/seen"))
			}
		}
	}
}

// A host that is closed ends those that wait for others, and waits for no longer.
func TestCloseWhileSending(t *testing.T) {
	w := couriers(t, "alice", "bob", "carol")
	ended := make(chan struct{})
	for i := range 8 {
		to, params := peer.Name("bob"), "carol courier many\nalice courier see\nx"
		if i%2 == 0 {
			to, params = "carol", "bob courier many\nalice courier see\nx"
		}
		sealed, _ := w.seal("alice", to, courier("many", params))
		go func() {
			defer func() { ended <- struct{}{} }()
			_, _ = w.host.Deliver(context.Background(), sealed, nil)
		}()
	}
	time.Sleep(20 * time.Millisecond)
	if err := w.host.Close(); err != nil {
		t.Error(err)
	}
	for range 8 {
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("a script waits still")
		}
	}
}

// What a module may send that another one calls is no more than what both may.
func TestSendOfCalled(t *testing.T) {
	w := couriers(t, "alice", "bob", "carol")
	for _, name := range []string{"outer.js", "inner.js"} {
		text := `export function pass(to) { return target.send(to, "courier", "see", "x"); }`
		if name == "outer.js" {
			text = `export function pass(to) { return modules.call("inner", "pass", to); }`
		}
		if err := os.WriteFile(filepath.Join(w.entry("bob").Dir, "modules", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const rest = `@id("run") permit(principal, action in [Action::"submit", Action::"call"], resource);`
	for policies, want := range map[string]script.Code{
		`@id("i") permit(principal, action == Action::"send", resource) when { context.module.name == "inner" };`: script.Failed,
		`@id("o") permit(principal, action == Action::"send", resource) when { context.module.name == "outer" };`: script.Failed,
		`@id("b") permit(principal, action == Action::"send", resource);`:                                         script.Done,
	} {
		w.write("bob", rest+policies)
		w.reopen()
		r := w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "outer"}, Entry: "pass", Params: []byte(`"carol"`)})
		if r.Code != want || len(r.Sent) != 0 != (want == script.Done) {
			t.Errorf("%s: %v %s; sent %+v", policies, r.Code, r.Message, r.Sent)
		}
	}
}

// A script that sends one, beside what it sends by itself.
func BenchmarkSend(b *testing.B) {
	w := couriers(b, "alice", "bob", "carol")
	for _, bb := range []struct{ name, to, entry, params string }{
		{"alone", "carol", "see", ""}, {"sent by another", "bob", "send", "carol courier see\n"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				if r := w.send("alice", peer.Name(bb.to), courier(bb.entry, bb.params)); r.Code != script.Done {
					b.Fatal(r.Message)
				}
			}
		})
	}
}
