package host_test

import (
	"context"
	"testing"

	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/script"
)

// BenchmarkDeliver is the whole path in process, on a store in memory: verify,
// decide, run in a fresh instance, commit, sign; beside its floors.
func BenchmarkDeliver(b *testing.B) {
	w := newWorld(b, "alice", "bob")
	w.policy("bob", "all", `@id("all") permit(principal, action, resource);`)
	nothing := guest(nil, abitest.I32(16))
	deliver := func(b *testing.B, s script.Script) {
		s.Target = w.entry("bob").ID
		key := w.key("alice")
		sealed := make([][]byte, b.N)
		for i := range sealed {
			var err error
			if sealed[i], _, err = envelope.SealScript(s, key); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportAllocs()
		b.ResetTimer()
		for i := range sealed {
			if _, err := w.host.Deliver(context.Background(), sealed[i], nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("guestbook", func(b *testing.B) { deliver(b, sign("hello")) })
	b.Run("carried/does-nothing", func(b *testing.B) { deliver(b, script.Script{Logic: script.Logic{Wasm: nothing}}) })
	b.Run("refused", func(b *testing.B) {
		w.policy("bob", "all", `@id("none") forbid(principal, action, resource);`)
		deliver(b, sign("hello"))
	})
	b.Run("floor/seal-and-open", func(b *testing.B) {
		key := w.key("alice")
		r := script.Receipt{Script: script.ID{1}, Caller: key.ID(), Target: key.ID(), Host: key.ID(), Code: script.Done}
		for b.Loop() {
			sealed, err := envelope.SealReceipt(r, key)
			if err != nil {
				b.Fatal(err)
			}
			if _, _, err := envelope.OpenReceipt(sealed, key.ID()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
