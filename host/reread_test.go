package host_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/modules"
)

// eventually waits for what a hot reload will make true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// TestOwnersTestsHoldWhatIsReloaded: an owner's test cases stop a policy and a
// circle that would let in whom they keep out, while the host runs; a module that
// they name is asked about as it is now.
func TestOwnersTestsHoldWhatIsReloaded(t *testing.T) {
	w := newWorld(t, "alice", "bob", "mallory")
	dir := filepath.Join(w.entry("bob").Dir, "policy")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("circles.toml", `friends = ["alice"]`)
	write(policy.TestsFile, `
[[test]]
name = "friends sign"
as = "alice"
module = "guestbook"
entry = "sign"
expect = "permit"

[[test]]
name = "mallory does not"
as = "mallory"
module = "guestbook"
entry = "sign"
expect = "refuse"
`)
	write("friends.cedar", `@id("friends") permit(principal in Circle::"friends", action, resource);`)
	w.reopen()
	in := func(name string) bool { return w.send(peer.Name(name), "bob", sign("hello")).Code == script.Done }
	if !in("alice") || in("mallory") {
		t.Fatalf("at first: %v", w.host.Problem())
	}
	problem := func(want string) {
		t.Helper()
		eventually(t, want, func() bool {
			err := w.host.Problem()
			return err != nil && strings.Contains(err.Error(), want)
		})
		if !in("alice") || in("mallory") {
			t.Errorf("%s: what was in force is not", want)
		}
	}
	well := func() {
		t.Helper()
		eventually(t, "that all is well", func() bool { return w.host.Problem() == nil })
	}

	write("open.cedar", `@id("open") permit(principal, action, resource);`)
	problem(`test "mallory does not" fails: it expects refuse, and policy open permits it`)
	if err := os.Remove(filepath.Join(dir, "open.cedar")); err != nil {
		t.Fatal(err)
	}
	well()

	write("circles.toml", `friends = ["alice", "mallory"]`)
	problem("circles.toml is not taken over")
	// A mistake in a policy does not open the way for the circle.
	write("open.cedar", `@id("open") permit(`)
	problem("open.cedar:1")
	write("circles.toml", "friends = [\"mallory\", \"alice\"]")
	problem("circles.toml is not taken over")
	if err := os.Remove(filepath.Join(dir, "open.cedar")); err != nil {
		t.Fatal(err)
	}
	// Both at once: a circle that is called otherwise.
	write("friends.cedar", `@id("friends") permit(principal in Circle::"close-friends", action, resource);`)
	write("circles.toml", `close-friends = ["alice"]`)
	well()
	if !in("alice") || in("mallory") {
		t.Error("a circle was given another name")
	}

	// A module that is gone cannot be asked about, and takes nothing out of force.
	layer := filepath.Join(w.root.Dir, "modules")
	if err := os.Remove(filepath.Join(layer, "guestbook.wasm")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the module's end", func() bool {
		err := w.host.Problem()
		return err != nil && strings.Contains(err.Error(), `no module named "guestbook"`)
	})
	guestbook, _ := modules.Get("guestbook")
	if _, err := module.Add(layer, "guestbook", guestbook.Wasm); err != nil {
		t.Fatal(err)
	}
	well()
	if !in("alice") || in("mallory") {
		t.Error("the module is back")
	}
}
