package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/review"
	"github.com/circles-host/circles/host/revoked"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/script/scriptpb"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/transport"
)

// reviewed has scripts of alice's and of carol's wait for bob.
func reviewed(t testing.TB) *world {
	w := newWorld(t, "alice", "bob", "carol")
	for _, name := range []peer.Name{"alice", "carol"} {
		p := guestbookPermit(w, name)
		p.Review = 72 * time.Hour
		w.allow("bob", p)
	}
	return w
}

func decision(d script.Decision) script.Script { return script.Script{Logic: script.Logic{Decide: d}} }

func approve(id script.ID) script.Script {
	return decision(script.Decision{Ruling: script.Approve, Script: id})
}

func reject(id script.ID, reason string) script.Script {
	return decision(script.Decision{Ruling: script.Reject, Script: id, Reason: reason})
}

// hold sends a script that must wait.
func (w *world) hold(from peer.Name, s script.Script) (sealed []byte, id script.ID) {
	w.Helper()
	sealed, id = w.seal(from, "bob", s)
	w.want(w.deliver(sealed, id), script.Pending)
	return sealed, id
}

// held counts what is kept for bob to look at.
func (w *world) held() (n int) {
	w.Helper()
	w.private("bob", func(fs store.FS) error {
		items, err := review.List(fs)
		n = len(items)
		return err
	})
	return n
}

// What waits is run for its owner to see and leaves nothing; its caller is told that
// it waits, and nothing else, however often it asks; then what became of it. Only
// the owner decides, once.
func TestReview(t *testing.T) {
	w := reviewed(t)
	w.put("alice", "/card.txt", "Alice, Oxford")
	sealed, id := w.hold("alice", sign("hello"))
	pending := w.want(w.deliver(sealed, id), script.Pending, "held until bob has looked", "the same script, sent again")
	left := time.Until(pending.Expires)
	if left < 71*time.Hour || left > 72*time.Hour || pending.Module.IsZero() || pending.Kept.IsZero() || len(pending.Policies) != 1 {
		t.Errorf("%+v", pending)
	}
	told := pending
	told.Script, told.Caller, told.Target, told.Host, told.Code, told.Message, told.Policies = script.ID{}, "", "", "", 0, "", nil
	told.Module, told.ModuleName, told.Entry, told.Started, told.Finished, told.Expires, told.Kept = script.Digest{}, "", "", time.Time{}, time.Time{}, time.Time{}, script.Digest{}
	told.Usage.Wall = 0
	if fmt.Sprintf("%+v", told) != fmt.Sprintf("%+v", script.Receipt{}) {
		t.Errorf("a caller who waits is told %+v", told)
	}
	if got := w.read("bob", "/guestbook/entries.txt"); got != "" || w.held() != 1 {
		t.Fatalf("before it is approved it wrote %q, and %d wait", got, w.held())
	}
	for _, who := range []peer.Name{"alice", "carol"} {
		w.want(w.send(who, "bob", approve(id)), script.Refused, string(who)+" may not decide about what is held for review in the context of bob: only its owner may")
	}
	dry := approve(id)
	dry.DryRun = true
	if r := w.want(w.send("bob", "bob", dry), script.Done); !r.DryRun || !strings.Contains(fmt.Sprint(r.Effects), "+1. alice: hello (Alice, Oxford)") || w.held() != 1 {
		t.Errorf("dry run %+v", r)
	}

	w.reopen() // it survives
	s, did := w.seal("bob", "bob", approve(id))
	r := w.want(w.deliver(s, did), script.Done)
	if r.Decided != id || len(r.Effects) != 0 || r.Policies[0] != policy.Owner || !strings.Contains(string(r.Result), `"code":"done"`) {
		t.Errorf("the decision: %+v %s", r, r.Result)
	}
	if again := w.deliver(s, did); !again.Finished.Equal(r.Finished) {
		t.Error("a decision that was delivered twice was done twice")
	}
	final := w.want(w.deliver(sealed, id), script.Done)
	if !strings.Contains(string(final.Result), "Alice, Oxford") || len(final.Effects) == 0 || final.Decision != did || final.Module != pending.Module {
		t.Errorf("final %+v", final)
	}
	log := w.logged("bob")
	if n := len(log); log[n-1].Script != did || log[n-2].Script != id || log[n-2].Code != script.Done {
		t.Errorf("the log ends with %+v", log[n-2:])
	}
	for e, err := range w.stores[w.entry("bob").ID].Log(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if final.Pending == script.DigestOf(e.Data) {
			final.Pending = script.Digest{}
		}
	}
	if !final.Pending.IsZero() {
		t.Error("the final receipt does not refer to the pending one")
	}
	if w.held() != 0 {
		t.Error("it is still kept")
	}
	w.want(w.send("bob", "bob", approve(id)), script.Conflict, "was decided already", did.Short(), "it is done")
	w.want(w.send("bob", "bob", reject(id, "")), script.Conflict, "was decided already")
	w.want(w.send("bob", "bob", approve(script.ID{9})), script.NotFound, "no script 090000000000 is held for review")
	w.want(w.send("bob", "bob", undo(id)), script.Done)
	if got := w.read("bob", "/guestbook/entries.txt"); got != "" {
		t.Errorf("undone, it is %q", got)
	}
}

// A rejection is final, and says why as far as the owner does.
func TestReject(t *testing.T) {
	w := reviewed(t)
	for reason, want := range map[string]string{"no ads": "bob looked at what it would do, and rejected it: no ads", "": "rejected it"} {
		sealed, id := w.hold("alice", sign("buy"))
		r := w.want(w.send("bob", "bob", reject(id, reason)), script.Done)
		final := w.want(w.deliver(sealed, id), script.Refused, want)
		if !strings.HasSuffix(final.Message, want) || final.Decision != r.Script || len(final.Effects) != 0 {
			t.Errorf("%+v", final)
		}
		w.want(w.send("bob", "bob", approve(id)), script.Conflict, "was decided already")
	}
	if w.read("bob", "/guestbook/entries.txt") != "" || w.held() != 0 {
		t.Error("something is left of what was rejected")
	}
}

// What would be done now is what was looked at, or nothing is.
func TestApproveWhatChanged(t *testing.T) {
	w := reviewed(t)
	first, firstID := w.hold("alice", sign("one"))
	second, secondID := w.hold("carol", sign("two"))
	w.want(w.send("bob", "bob", approve(firstID)), script.Done)
	before := w.read("bob", "/guestbook/entries.txt")
	w.want(w.send("bob", "bob", approve(secondID)), script.Conflict, "would change something else, and answer something else, than what was looked at", "review approve bob "+secondID.Short()+" --dry-run")
	answer := script.Decision{Ruling: script.Approve, Script: secondID, OtherAnswer: true}
	w.want(w.send("bob", "bob", decision(answer)), script.Conflict, "would change something else than")
	changes := script.Decision{Ruling: script.Approve, Script: secondID, OtherChanges: true}
	w.want(w.send("bob", "bob", decision(changes)), script.Conflict, "would answer something else than")
	if got := w.read("bob", "/guestbook/entries.txt"); got != before || w.held() != 1 {
		t.Fatalf("it was not approved, and there is %q, %d held", got, w.held())
	}
	dry := approve(secondID)
	dry.DryRun = true
	if r := w.want(w.send("bob", "bob", dry), script.Conflict); !strings.Contains(fmt.Sprint(r.Effects), "+2. carol: two") {
		t.Errorf("dry run %+v", r)
	}
	w.want(w.deliver(second, secondID), script.Pending)
	changes.OtherAnswer = true
	w.want(w.send("bob", "bob", decision(changes)), script.Done)
	w.want(w.deliver(first, firstID), script.Done)
	if r := w.want(w.deliver(second, secondID), script.Done); w.read("bob", "/guestbook/entries.txt") != before+"2. carol: two\n" {
		t.Errorf("%s", r.Result)
	}
}

// Who takes a permit back, a module away, or has time go by, need not reject each
// script that waits: it cannot be approved.
func TestApproveWhatIsNotThereAnyMore(t *testing.T) {
	w := reviewed(t)
	sealed, id := w.hold("alice", sign("hello"))
	w.policy("bob", "no", `@id("no") forbid(principal, action == Action::"submit", resource);`)
	w.want(w.send("bob", "bob", approve(id)), script.Refused, "it is not permitted any more", "policy no of bob forbids it")
	if err := os.Remove(filepath.Join(w.entry("bob").Dir, "policy", "no.cedar")); err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(w.root.Dir, "modules", "guestbook.wasm")
	wasm, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(module); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	w.want(w.send("bob", "bob", approve(id)), script.NotFound, `no module named "guestbook" here any more: put it back, or reject`)
	all := script.Decision{Ruling: script.Approve, Script: id, OtherChanges: true, OtherAnswer: true}
	if err := os.WriteFile(module, guest(nil, abitest.Unreachable), 0o600); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	w.want(w.send("bob", "bob", decision(all)), script.Conflict, "put that back, or reject")
	if err := os.WriteFile(module, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	w.want(w.send("bob", "bob", approve(id)), script.Done)
	w.want(w.deliver(sealed, id), script.Done)
}

// clock is a host's, which a test sets.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// What nobody decided about in time is refused: when its caller asks, when its owner
// decides or looks, when another script needs the room.
func TestReviewExpires(t *testing.T) {
	w := reviewed(t)
	c := &clock{}
	w.host.Close()
	w.start(host.Config{Now: c.now, Review: review.Limits{PerCaller: 4}})
	late := func(asks func(sealed []byte, id script.ID)) {
		t.Helper()
		c.ahead.Store(0)
		sealed, id := w.hold("alice", sign("hello"))
		c.ahead.Store(int64(73 * time.Hour))
		asks(sealed, id)
		final := w.want(w.deliver(sealed, id), script.Refused, "nobody approved it before", "send a new one")
		if final.Pending.IsZero() || !final.Decision.IsZero() || w.held() != 0 {
			t.Errorf("%+v, %d held", final, w.held())
		}
		if again := w.deliver(sealed, id); !again.Finished.Equal(final.Finished) {
			t.Error("it expired twice")
		}
	}
	later := func(s script.Script) script.Script { // sent when the host's clock says
		s.NotBefore, s.Deadline = c.now(), c.now().Add(time.Hour)
		return s
	}
	late(func([]byte, script.ID) {})
	late(func(_ []byte, id script.ID) {
		w.want(w.send("bob", "bob", later(approve(id))), script.Conflict, "expired at")
	})
	late(func(_ []byte, id script.ID) {
		w.want(w.send("bob", "bob", later(reject(id, "no"))), script.Conflict, "expired at")
	})
	late(func([]byte, script.ID) {
		r := w.want(w.send("bob", "bob", later(decision(script.Decision{Ruling: script.Expire}))), script.Done)
		if string(r.Result) != `{"expired":1}` {
			t.Errorf("result %s", r.Result)
		}
	})
	late(func([]byte, script.ID) {
		s, id := w.seal("carol", "bob", later(sign("next")))
		w.want(w.deliver(s, id), script.Pending)
		w.want(w.send("bob", "bob", later(reject(id, ""))), script.Done)
	})
	if w.read("bob", "/guestbook/entries.txt") != "" {
		t.Error("something that expired was done")
	}
}

// A caller who floods reviews fills its own share and nobody else's, and does not
// even have scripts run beyond it.
func TestReviewFlood(t *testing.T) {
	w := reviewed(t)
	w.host.Close()
	w.start(host.Config{Review: review.Limits{PerCaller: 3, Scripts: 5, CallerBytes: 100 << 10}})
	var ids []script.ID
	var wg sync.WaitGroup
	var mu sync.Mutex
	full := 0
	for i := range 20 {
		sealed, id := w.seal("alice", "bob", sign(fmt.Sprint(i)))
		wg.Go(func() {
			back, err := w.host.Deliver(t.Context(), sealed, nil)
			if err != nil {
				t.Error(err)
				return
			}
			r, _, err := envelope.OpenReceiptOf(id, back, "")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				t.Error(err)
			case r.Code == script.Pending:
				ids = append(ids, id)
			case r.Code == script.Unavailable && strings.Contains(r.Message, "as many scripts of yours as may wait"):
				full++
			default:
				t.Errorf("%v %s", r.Code, r.Message)
			}
		})
	}
	wg.Wait()
	if len(ids) != 3 || full != 17 || w.held() != 3 {
		t.Fatalf("%d wait, %d are turned away, %d held", len(ids), full, w.held())
	}
	for range 2 {
		w.hold("carol", sign("me too"))
	}
	w.want(w.send("carol", "bob", sign("more")), script.Unavailable, "as many scripts as may wait")
	w.want(w.send("bob", "bob", reject(ids[0], "")), script.Done)
	w.want(w.send("alice", "bob", sign(strings.Repeat("x", 200<<10))), script.Unavailable, "of yours")
	w.hold("alice", sign("in its place"))
}

// Many decide at once, and one of them does.
func TestDecideAtOnce(t *testing.T) {
	w := reviewed(t)
	for range 5 {
		sealed, id := w.hold("alice", sign("hello"))
		lines := strings.Count(w.read("bob", "/guestbook/entries.txt"), "\n")
		var done, approved atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			d := approve(id)
			if i%2 == 1 {
				d = reject(id, "")
			}
			s, did := w.seal("bob", "bob", d)
			wg.Go(func() {
				r := w.deliver(s, did)
				switch {
				case r.Code == script.Done && i%2 == 0:
					approved.Add(1)
					done.Add(1)
				case r.Code == script.Done:
					done.Add(1)
				case r.Code != script.Conflict || !strings.Contains(r.Message, "was decided already"):
					t.Errorf("%v %s", r.Code, r.Message)
				}
			})
			wg.Go(func() { w.deliver(sealed, id) }) // its caller asks meanwhile
		}
		wg.Wait()
		if done.Load() != 1 {
			t.Fatalf("%d decisions were done", done.Load())
		}
		want := script.Refused
		if approved.Load() == 1 {
			want = script.Done
			lines++
		}
		w.want(w.deliver(sealed, id), want)
		if got := strings.Count(w.read("bob", "/guestbook/entries.txt"), "\n"); got != lines || w.held() != 0 {
			t.Fatalf("%d lines, want %d; %d held", got, lines, w.held())
		}
	}
}

// A script that is delivered many times at once is held once.
func TestHoldOnce(t *testing.T) {
	w := reviewed(t)
	sealed, id := w.seal("alice", "bob", sign("hello"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { w.want(w.deliver(sealed, id), script.Pending) })
	}
	wg.Wait()
	if got := w.logged("bob"); w.held() != 1 || len(got) != 1 {
		t.Errorf("%d held, %d receipts", w.held(), len(got))
	}
}

// What was kept, changed by whoever holds the disk, is not run, and can be rejected.
func TestHeldIsDamaged(t *testing.T) {
	w := reviewed(t)
	var ids []script.ID
	for i := range 3 {
		_, id := w.hold("alice", sign(fmt.Sprint(i)))
		ids = append(ids, id)
	}
	name := func(fs store.FS, id script.ID) string {
		d, err := fs.Open("review", store.FlagRead|store.FlagDirectory)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		entries, err := d.ReadDir(0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name, fmt.Sprintf("%x", id[:])) {
				return "review/" + e.Name
			}
		}
		t.Fatalf("%s is not kept", id)
		return ""
	}
	w.private("bob", func(fs store.FS) error {
		b, err := whole(fs, name(fs, ids[0]))
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return rewrite(fs, name(fs, ids[0]), b)
	})
	w.private("bob", func(fs store.FS) error { // another's in its place, as it was written
		b, err := whole(fs, name(fs, ids[2]))
		if err != nil {
			return err
		}
		return rewrite(fs, name(fs, ids[1]), b)
	})
	w.private("bob", func(fs store.FS) error {
		if err := rewrite(fs, "review/"+strings.Repeat("0", 64), nil); err != nil {
			return err
		}
		return fs.Mkdir("review/" + fmt.Sprintf("%x.%x.%s.1.1", make([]byte, 32), make([]byte, 32), "00"))
	})
	for _, id := range ids[:2] {
		w.want(w.send("bob", "bob", approve(id)), script.NotFound, "was changed since, and so it cannot be run: reject it")
		w.want(w.send("bob", "bob", reject(id, "")), script.Done)
	}
	w.want(w.send("bob", "bob", approve(ids[2])), script.Done)
}

// A script that fails waits too, and its caller is not told that it failed: it could
// have chosen to by what it read. When it is approved the caller is told. The code
// that it carries is kept with it.
func TestHeldThatFails(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	w.policy("bob", "all", `@id("all") @review permit(principal, action, resource);`)
	trap := script.Script{Logic: script.Logic{Wasm: guest(nil, abitest.Unreachable)}}
	sealed, id := w.hold("alice", trap)
	w.reopen()
	r := w.want(w.send("bob", "bob", approve(id)), script.Done)
	var became struct{ Code script.Code }
	if err := json.Unmarshal(r.Result, &became); err != nil || became.Code != script.Trapped {
		t.Errorf("%s: %v", r.Result, err)
	}
	final := w.want(w.deliver(sealed, id), script.Trapped, "unreachable")
	if final.Decision != r.Script || final.Pending.IsZero() || w.held() != 0 {
		t.Errorf("%+v", final)
	}
	// An entry that is not there says nothing of anything that was read.
	trap.Entry = "nope"
	w.want(w.send("alice", "bob", trap), script.NotFound)
	trap.Entry, trap.DryRun = "", true
	w.want(w.send("alice", "bob", trap), script.Refused, "bob looks at what this would do before it is done, and nobody else does")
}

// A script that waits asks its caller's host for nothing once it has looked at
// anything of its target's: the question could say what it saw.
func TestHeldAsksBeforeItLooks(t *testing.T) {
	w := newWorld(t, "bob")
	w.policy("bob", "all", `@id("all") @review permit(principal, action, resource);`)
	w.host.Close()
	w.start(host.Config{Review: review.Limits{PerCaller: 1}})
	dave, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	does := func(order ...uint32) []byte { // 0 reads of the target, 1 of the caller
		return guest(func(m *abitest.Module) {
			m.Import("circles:host/contexts@0.1.0", "target", "", "i")
			m.Import("circles:host/contexts@0.1.0", "caller", "", "i")
			m.Import("circles:host/contexts@0.1.0", "[method]context.read", "iiii", "")
			m.Data(256, "/secret")
		}, func() (code []abitest.Code) {
			for _, of := range order {
				code = append(code, abitest.Call(of), abitest.I32(256), abitest.I32(7), abitest.I32(128), abitest.Call(2))
			}
			return append(code, abitest.I32(16))
		}()...)
	}
	for _, c := range []struct {
		order []uint32
		asked int
	}{{[]uint32{1}, 1}, {[]uint32{1, 1, 0}, 2}, {[]uint32{0, 1}, 0}, {[]uint32{1, 0, 1, 1}, 1}} {
		s := carried(does(c.order...))
		s.Target, s.Lent = w.entry("bob").ID, []script.Grant{{Action: script.Read, Path: "/"}}
		sealed, id, err := envelope.SealScript(s, dave)
		if err != nil {
			t.Fatal(err)
		}
		asked, held := 0, id
		ask := func(_ context.Context, question []byte) ([]byte, error) {
			asked++
			q, _, err := envelope.OpenQuestion(question, "")
			if err != nil {
				return nil, err
			}
			return envelope.SealAnswer(script.Answer{Op: q.Op, Data: []byte("mine")}, q, dave)
		}
		back, err := w.host.Deliver(t.Context(), sealed, ask)
		if err != nil {
			t.Fatal(err)
		}
		if r, _, err := envelope.OpenReceiptOf(id, back, ""); err != nil || r.Code != script.Pending {
			t.Fatalf("%+v, %v", r, err)
		}
		if asked != c.asked {
			t.Errorf("%v: asked %d times, want %d", c.order, asked, c.asked)
		}
		// One for which there is no room to wait is not even run.
		s.Nonce = script.Nonce{}
		if sealed, id, err = envelope.SealScript(s, dave); err != nil {
			t.Fatal(err)
		}
		if back, err = w.host.Deliver(t.Context(), sealed, ask); err != nil {
			t.Fatal(err)
		}
		if r, _, err := envelope.OpenReceiptOf(id, back, ""); err != nil || r.Code != script.Unavailable || asked != c.asked {
			t.Fatalf("%+v, %v, asked %d times", r, err, asked)
		}
		w.want(w.send("bob", "bob", approve(held)), script.Done)
		if asked != c.asked {
			t.Errorf("%v: asked when it was approved", c.order)
		}
	}
}

// A store far away that fails now and then, also by not saying whether it has
// committed: however often its owner has to decide, a script is approved or rejected
// once, and its effects are there if, and only if, its final receipt says so.
func TestDecideOnAStoreThatFails(t *testing.T) {
	w := reviewed(t)
	w.host.Close()
	bucket := &castest.Bucket{}
	faults := &castest.Faults{Remote: bucket, Rate: 12}
	open := func(remote cas.Remote) *host.Host {
		h, err := host.Open(t.Context(), w.root, host.Config{CacheDir: cacheDir, Log: slog.New(slog.DiscardHandler), OpenStore: func(ctx context.Context, e peer.Entry) (store.Store, error) {
			if e.Name != "bob" {
				return mem.New(mem.Config{}), nil
			}
			return cas.Open(ctx, remote, cas.Config{})
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	var sealed [][]byte
	var ids []script.ID
	w.host = open(bucket)
	for i := range 12 {
		s, id := w.hold("alice", sign(fmt.Sprint(i)))
		sealed, ids = append(sealed, s), append(ids, id)
	}
	w.host.Close()

	failing := open(faults)
	for i, id := range ids {
		d := decision(script.Decision{Ruling: script.Approve, Script: id, OtherChanges: true, OtherAnswer: true})
		if i%3 == 2 {
			d = reject(id, "")
		}
		decided := false
		for n := 0; !decided && n < 200; n++ {
			s, did := w.seal("bob", "bob", d)
			if back, err := failing.Deliver(t.Context(), s, nil); err == nil {
				r, _, err := envelope.OpenReceiptOf(did, back, "")
				decided = err == nil && (r.Code == script.Done || r.Code == script.Conflict)
			}
		}
		if !decided {
			t.Fatal("it never comes to an end")
		}
	}
	failing.Close()
	faults.Wait()

	w.host = open(bucket)
	lines := 0
	for i, id := range ids {
		want := script.Done
		if i%3 == 2 {
			want = script.Refused
		} else {
			lines++
		}
		w.want(w.deliver(sealed[i], id), want)
	}
	w.host.Close()
	s, err := cas.Open(t.Context(), bucket, cas.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.View(t.Context(), func(tx store.Tx) error {
		book, err := whole(tx.Files(nil), "/guestbook/entries.txt")
		if got := strings.Count(string(book), "\n"); got != lines {
			t.Errorf("%d lines, want %d: %s", got, lines, book)
		}
		items, listed := review.List(tx.Private())
		if len(items) != 0 {
			t.Errorf("%d are still held", len(items))
		}
		return errors.Join(err, listed)
	}); err != nil {
		t.Fatal(err)
	}
	if faults.Injected() == 0 {
		t.Error("nothing failed")
	}
}

// A script that came by delegations waits as its caller's, with all through whom it
// came in its receipts; it is approved if none of them was taken back meanwhile.
func TestReviewOnBehalf(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave")
	p := guestbookPermit(w, "alice")
	p.Review = 72 * time.Hour
	w.allow("bob", p)
	one := w.link(w.key("alice"), w.entry("carol").ID, nil)
	two := w.link(w.key("carol"), w.entry("dave").ID, one)
	via := []script.Via{{Delegation: idOf(t, one), To: w.entry("carol").ID}, {Delegation: idOf(t, two), To: w.entry("dave").ID}}
	hold := func() (sealed []byte, id script.ID) {
		t.Helper()
		s := sign("hello")
		s.Lent, s.Chain, s.Target = nil, two, w.entry("bob").ID
		sealed, id, err := envelope.SealScript(s, w.key("dave"))
		if err != nil {
			t.Fatal(err)
		}
		if r := w.want(w.deliver(sealed, id), script.Pending); r.Caller != w.entry("alice").ID || !slices.Equal(r.Via, via) {
			t.Errorf("%+v", r)
		}
		return sealed, id
	}
	final := func(sealed []byte, id script.ID, code script.Code) {
		t.Helper()
		if r := w.want(w.deliver(sealed, id), code); r.Caller != w.entry("alice").ID || !slices.Equal(r.Via, via) {
			t.Errorf("%+v", r)
		}
	}
	sealed, id := hold()
	w.private("bob", func(fs store.FS) error { // what the owner is shown
		item, _, err := review.Find(fs, id)
		if err != nil {
			return err
		}
		h, err := item.Open(t.Context(), fs, w.logged("bob")[0].Kept)
		if err != nil {
			return err
		}
		if would, err := script.DecodeReceipt(h.Would); err != nil || !slices.Equal(would.Via, via) {
			t.Errorf("%+v, %v", would, err)
		}
		return nil
	})
	w.reopen()
	w.want(w.send("bob", "bob", approve(id)), script.Done)
	final(sealed, id, script.Done)
	if book := w.read("bob", "/guestbook/entries.txt"); book != "1. alice: hello\n" {
		t.Errorf("guestbook: %q", book)
	}

	for _, c := range []struct {
		dir string
		id  script.Digest
	}{{host.RevokedDir(w.entry("bob")), via[0].Delegation}, {w.root.RevokedDir(), via[1].Delegation}} {
		sealed, id = hold()
		file, err := revoked.Add(c.dir, c.id, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.want(w.send("bob", "bob", approve(id)), script.Refused, "it is not permitted any more", "was taken back")
		w.want(w.deliver(sealed, id), script.Pending)
		w.want(w.send("bob", "bob", reject(id, "")), script.Done)
		final(sealed, id, script.Refused)
		if err := os.Remove(filepath.Join(c.dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	if book := w.read("bob", "/guestbook/entries.txt"); book != "1. alice: hello\n" {
		t.Errorf("guestbook: %q", book)
	}
}

// Whom the owner lets send anything decides nothing: not sealed as it should be, and
// not by bytes that were made by hand.
func TestDecideOnBehalf(t *testing.T) {
	w := reviewed(t)
	_, id := w.hold("alice", sign("hello"))
	chain := w.link(w.key("bob"), w.entry("carol").ID, nil, func(d *script.Delegation) { d.Entries = []string{"*"} })
	for _, d := range []script.Script{approve(id), reject(id, ""), decision(script.Decision{Ruling: script.Expire})} {
		d.Target, d.Chain = w.entry("bob").ID, chain
		if _, _, err := envelope.SealScript(d, w.key("carol")); err == nil || !strings.Contains(err.Error(), "it cannot be delegated") {
			t.Errorf("sealed: %v", err)
		}
		d.Chain = nil
		sealed, _ := w.seal("bob", "bob", d)
		var m scriptpb.Envelope
		var s scriptpb.Script
		if err := errors.Join(proto.Unmarshal(sealed, &m), proto.Unmarshal(m.Payload, &s)); err != nil {
			t.Fatal(err)
		}
		s.Chain = chain
		encode := func(m proto.Message) []byte {
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		m.Payload, m.Signer = encode(&s), string(w.entry("carol").ID)
		m.Signature = w.key("carol").Sign(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(m.PayloadType), m.PayloadType, len(m.Payload), m.Payload))
		_, err := w.host.Deliver(t.Context(), encode(&m), nil)
		wantBare(t, err, transport.Malformed)
		if err == nil || !strings.Contains(err.Error(), "it cannot be delegated") {
			t.Errorf("by hand: %v", err)
		}
	}
	if w.held() != 1 || len(w.logged("bob")) != 1 || w.read("bob", "/guestbook/entries.txt") != "" {
		t.Error("something was decided")
	}
}
