package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/script"
)

// TestPermitCountsAtOnceWhereReadingPoliciesIsSlow: the refusal that tells an
// owner how to allow a script reads the policies again, and then rests from it,
// the longer the slower that was. Who allows the script and sends it again at
// once is not refused for that.
func TestPermitCountsAtOnceWhereReadingPoliciesIsSlow(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	var slow strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&slow, "@id(\"slow-%d\") permit (principal, action == Action::\"submit\", resource) when { context.params < 0 };\n", i)
	}
	dir := filepath.Join(w.entry("bob").Dir, "policy")
	if err := os.WriteFile(filepath.Join(dir, "slow.cedar"), []byte(slow.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if r := w.send("alice", "bob", sign("no")); r.Code != script.Refused {
			t.Fatalf("without a permit: %v, %s", r.Code, r.Message)
		}
	}
	if _, err := guestbookPermit(w, "alice").Save(dir); err != nil {
		t.Fatal(err)
	}
	if r := w.send("alice", "bob", sign("yes")); r.Code != script.Done {
		t.Errorf("with a permit that was just saved: %v, %s", r.Code, r.Message)
	}
}
