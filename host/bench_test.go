package host_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// BenchmarkDeliver is the whole path in process, on a store in memory: verify,
// decide, run in a fresh instance, commit, sign. Beside it, in the same run and
// taking turns with it, are its floors:
//
//	ed25519-µs  verifying and signing messages of that length, what a script cannot do without
//	run-µs      the instance, the guest, and what it calls of the host, as the receipt tells
//	ours-µs     the rest
//
// All are medians of what batches of scripts took, since others use the machine too.
func BenchmarkDeliver(b *testing.B) {
	w := newWorld(b, "alice", "bob")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	key, bob := w.key("alice"), w.entry("bob").ID
	// batch is how many scripts are sealed, and delivered, at a time.
	const batch = 64
	deliver := func(b *testing.B, s script.Script, code script.Code) {
		s.Target = bob
		var (
			whole, floors, runs, rest []float64
			before, after             runtime.MemStats
			bytes, allocs             uint64
			sealed                    [batch][]byte
			receipts                  [batch][]byte
		)
		for done := 0; done < b.N; done += batch {
			w.forget("bob", "/guestbook/entries.txt") // or each would read more than the one before
			n := min(batch, b.N-done)
			for i := range n {
				var err error
				if sealed[i], _, err = envelope.SealScript(s, key); err != nil {
					b.Fatal(err)
				}
			}
			runtime.ReadMemStats(&before)
			began := time.Now()
			for i := range n {
				var err error
				if receipts[i], err = w.host.Deliver(context.Background(), sealed[i], nil); err != nil {
					b.Fatal(err)
				}
			}
			deliver, run := time.Since(began), time.Duration(0)
			runtime.ReadMemStats(&after)
			bytes, allocs = bytes+after.TotalAlloc-before.TotalAlloc, allocs+after.Mallocs-before.Mallocs
			for i := range n {
				r, _, err := envelope.OpenReceipt(receipts[i], w.host.ID())
				if err != nil || r.Code != code {
					b.Fatalf("%v: %v %s", err, r.Code, r.Message)
				}
				run += r.Usage.Wall
			}
			floor := w.ed25519(sealed[:n], receipts[:n])
			per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }
			whole, floors = append(whole, per(deliver)), append(floors, per(floor))
			runs, rest = append(runs, per(run)), append(rest, per(deliver-floor-run))
		}
		median := func(of []float64) float64 { slices.Sort(of); return of[len(of)/2] }
		b.ReportMetric(0, "ns/op") // would count what is between the batches
		b.ReportMetric(median(whole), "µs/script")
		b.ReportMetric(median(floors), "ed25519-µs")
		b.ReportMetric(median(runs), "run-µs")
		b.ReportMetric(median(rest), "ours-µs")
		b.ReportMetric(median(rest)/median(floors), "ours/ed25519")
		b.ReportMetric(float64(bytes)/float64(b.N), "B/script")
		b.ReportMetric(float64(allocs)/float64(b.N), "allocs/script")
	}
	read := script.Script{Logic: script.Logic{Name: "guestbook"}, Entry: "read"}
	b.Run("guestbook-read", func(b *testing.B) { deliver(b, read, script.Done) })
	b.Run("guestbook-sign", func(b *testing.B) { deliver(b, sign("hello"), script.Done) })
	nothing := script.Script{Logic: script.Logic{Wasm: guest(nil, abitest.I32(16))}}
	b.Run("carried-does-nothing", func(b *testing.B) { deliver(b, nothing, script.Done) })
}

// ed25519 is how long it takes to verify messages, and sign others.
func (w *world) ed25519(verify, sign [][]byte) time.Duration {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.Fatal(err)
	}
	signatures := make([][]byte, len(verify))
	for i, m := range verify {
		signatures[i] = ed25519.Sign(private, m)
	}
	began := time.Now()
	for i, m := range verify {
		if !ed25519.Verify(public, m, signatures[i]) {
			w.Fatal("it was not verified")
		}
		ed25519.Sign(private, sign[i])
	}
	return time.Since(began)
}

// forget removes a file of a peer's, if it is there.
func (w *world) forget(name peer.Name, path string) {
	w.Helper()
	s := w.stores[w.entry(name).ID]
	if s == nil {
		return
	}
	err := s.Update(context.Background(), func(tx store.Tx) error { return tx.Files(nil).Unlink(path) })
	if err != nil && !errors.Is(err, store.ErrNotExist) {
		w.Fatal(err)
	}
}

// BenchmarkCalls is what it costs that a module has another one run, beside what that
// one's run costs that is a script's own: both as the receipts tell, in one run, taking turns.
func BenchmarkCalls(b *testing.B) {
	w := newWorld(b, "alice", "bob")
	const calls = 10
	leaf := guest(nil, abitest.I32(16))
	var call uint32
	caller := guest(func(m *abitest.Module) {
		call = m.Import("circles:host/modules@0.1.2", "call", "iiiiiii", "")
		m.Data(64, "leaf")
	}, abitest.I32(calls), abitest.Set(0), abitest.Loop,
		abitest.I32(64), abitest.I32(4), abitest.I32(0), abitest.I32(0), abitest.I32(0), abitest.I32(0), abitest.I32(128), abitest.Call(call),
		abitest.Get(0), abitest.I32(1), abitest.Sub, abitest.Set(0), abitest.Get(0), abitest.BrIf(0), abitest.End, abitest.I32(16))
	w.module("bob", "leaf", leaf)
	w.module("bob", "caller", caller)
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	var own, called []float64
	for b.Loop() {
		r := w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "leaf"}})
		if r.Code != script.Done {
			b.Fatal(r.Message)
		}
		own = append(own, float64(r.Usage.Wall.Nanoseconds())/1000)
		r = w.send("alice", "bob", script.Script{Logic: script.Logic{Name: "caller"}})
		if r.Code != script.Done || len(r.Parts) != 2 || r.Parts[0].Calls != calls {
			b.Fatalf("%s %+v", r.Message, r.Parts)
		}
		called = append(called, float64(r.Usage.Wall.Nanoseconds())/1000/calls)
	}
	median := func(of []float64) float64 { slices.Sort(of); return of[len(of)/2] }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(own), "own-µs")
	b.ReportMetric(median(called), "called-µs")
}
