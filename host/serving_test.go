package host_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
)

// TestClaim: one worker for a root, or several for different peers of it; who
// looks for a worker finds the one that is there, and none that has gone.
func TestClaim(t *testing.T) {
	root, _, err := host.InitRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	add := func(name peer.Name) peer.Entry {
		e, err := root.AddPeer(name, "")
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	alice, bob := add("alice"), add("bob")
	claim := func(url string, only ...peer.Entry) func() {
		t.Helper()
		c, err := root.Claim(only...)
		if err == nil {
			err = c.Announce(url)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c.Release
	}
	refused := func(only ...peer.Entry) {
		t.Helper()
		c, err := root.Claim(only...)
		if err == nil {
			c.Release()
		}
		if !errors.Is(err, host.ErrServed) {
			t.Errorf("a second claim: %v, want ErrServed", err)
		}
	}
	at := func(e peer.Entry, want string) {
		t.Helper()
		if got := root.Worker(t.Context(), e); got != want {
			t.Errorf("the worker of %s is %q, want %q", e.Name, got, want)
		}
	}

	at(bob, "")
	whole := claim("http://whole")
	at(bob, "http://whole")
	at(peer.Entry{}, "http://whole")
	refused()
	refused(bob)
	whole()
	at(bob, "")
	// One that was killed leaves its address behind.
	if err := os.WriteFile(filepath.Join(root.Dir, "worker.lock"), []byte(`{"pid": 1, "url": "http://dead"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	at(bob, "")

	forBob := claim("http://bob", bob)
	at(bob, "http://bob")
	at(alice, "")
	refused()
	refused(bob)
	if _, err := root.Claim(); strings.Contains(fmt.Sprint(err), "dead") {
		t.Errorf("a worker that is gone is named: %v", err)
	}
	refused(alice, bob)
	forAlice := claim("http://alice", alice) // the failed claim above left nothing locked
	at(alice, "http://alice")
	forBob()
	forAlice()

	// What others left in the file is not believed, nor in the way.
	if err := os.WriteFile(filepath.Join(root.Dir, "worker.lock"), []byte("{\"url\": 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	at(bob, "")
	claim("http://whole")()
}
