package host_test

import (
	"fmt"
	"testing"

	"github.com/circles-host/circles/host/script"
)

// What is held counts when it is held, once: not again when it is approved, and no
// less when it is rejected; so it does after a restart, though no receipt tells what it
// took, as its caller has that.
func TestReviewInBudgets(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave")
	budget := func(of string, most int) {
		w.policy("bob", "all", `@id("all") @review permit(principal, action, resource) when {
			action != Action::"submit" || context.used.day.`+of+fmt.Sprintf(" < %d };", most))
	}
	budget("scripts", 3)
	_, approved := w.hold("alice", sign("approved"))
	_, rejected := w.hold("alice", sign("rejected"))
	w.want(w.send("bob", "bob", approve(approved)), script.Done)
	w.want(w.send("bob", "bob", reject(rejected, "")), script.Done)
	again, third := w.hold("alice", sign("a third, as the two count two")) // so the approval did not count
	w.want(w.deliver(again, third), script.Pending)                        // nor does asking
	w.want(w.send("alice", "bob", sign("a fourth")), script.Refused, "send it again after")
	// Its own script counts, and does not keep it from being approved.
	w.reopen()
	w.want(w.send("alice", "bob", sign("a fourth")), script.Refused, "send it again after")
	w.want(w.send("bob", "bob", approve(third)), script.Done)
	w.want(w.send("alice", "bob", sign("a fourth")), script.Refused, "send it again after")
	w.reopen()
	w.want(w.send("alice", "bob", sign("a fourth")), script.Refused, "send it again after")
	budget("scripts", 4)
	w.reopen()
	w.hold("alice", sign("a fourth")) // three count, and not five
	w.hold("carol", sign("her own"))

	// Bytes, which a script writes though they are dropped; also of those that were
	// decided about before the restart.
	budget("bytes", 1)
	w.reopen()
	w.want(w.send("alice", "bob", sign("another")), script.Refused, "send it again after")
	_, first := w.hold("dave", sign("what is held has bytes"))
	w.want(w.send("dave", "bob", sign("another")), script.Refused, "send it again after")
	w.want(w.send("bob", "bob", reject(first, "")), script.Done)
	w.want(w.send("dave", "bob", sign("another")), script.Refused, "send it again after")
	w.reopen()
	w.want(w.send("dave", "bob", sign("another")), script.Refused, "send it again after")
	budget("fuel", 1)
	w.reopen()
	w.want(w.send("dave", "bob", sign("another")), script.Refused, "send it again after")
}
