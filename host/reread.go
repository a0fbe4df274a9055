package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
)

// rereads has the policies, the circles and the tests of a context read one
// after the other, so that the tests are run on what is about to be in force.
type rereads struct {
	mu   sync.Mutex
	open bool          // false before the first, and after the last
	next *peer.Circles // by which the tests are run
}

func (r *rereads) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = false
}

// openPolicies reads policies and circles for the first time, and follows them.
// The modules must be open, since tests name them.
func (c *peerContext) openPolicies() {
	r := &c.rereads
	r.mu.Lock()
	circles, err := c.readCircles()
	r.next = circles
	c.policies = policy.OpenTested(filepath.Join(c.entry.Dir, "policy"), nil, c.meetTest, func(err error) {
		c.host.notice(Notice{Peer: c.entry.Name, Kind: "policy", Err: err})
	})
	c.takeCircles(circles, err)
	r.open = true
	r.mu.Unlock()
	c.unwatch = c.host.watcher.Dir(filepath.Dir(c.entry.CirclesFile()), c.reread)
}

// reread takes over what the owner has changed in the policy folder.
func (c *peerContext) reread() { c.rereadWith(false) }

// retest has the tests run again, because a module that they may name has come,
// changed or gone.
func (c *peerContext) retest() { c.rereadWith(true) }

func (c *peerContext) rereadWith(again bool) {
	r := &c.rereads
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open {
		return
	}
	before := r.next
	circles, err := c.readCircles()
	r.next = circles
	if again || !circles.Equal(before) {
		_ = c.policies.Retest()
	} else {
		_ = c.policies.Reload()
	}
	c.takeCircles(circles, err)
}

// readCircles are the circles as they are in the file, or, when it has a mistake
// in it, as they are in force.
func (c *peerContext) readCircles() (*peer.Circles, error) {
	circles, err := peer.ReadCircles(c.entry.CirclesFile(), c.host.peers.Knows)
	if errors.Is(err, fs.ErrNotExist) {
		return &peer.Circles{}, nil
	}
	if err != nil {
		// Before they were ever read nobody is in any circle, which permits less.
		return c.circles.Load(), err
	}
	return circles, nil
}

// takeCircles puts circles in force, unless a test of the owner's fails by them,
// or err says what is wrong with their file.
func (c *peerContext) takeCircles(circles *peer.Circles, err error) {
	if err == nil && !circles.Equal(c.circles.Load()) {
		// While the files of policies have a mistake in them, the tests are run on
		// what is in force.
		if failing := c.policies.Failing(); failing != nil {
			err = fmt.Errorf("circles.toml is not taken over: %w", failing)
		}
	}
	before := c.badFile.Load()
	if err != nil {
		c.badFile.Store(&err)
		if before == nil || (*before).Error() != err.Error() {
			c.host.notice(Notice{Peer: c.entry.Name, Kind: "circles", Err: err})
		}
		return
	}
	c.circles.Store(circles)
	if c.badFile.Swap(nil) != nil {
		c.host.notice(Notice{Peer: c.entry.Name, Kind: "circles"})
	}
}

// meetTest finds what a test of the policies speaks of.
func (c *peerContext) meetTest(t policy.Test) (peer.Parties, policy.Code, error) {
	caller, err := c.host.peers.Resolve(t.As)
	if err != nil {
		return peer.Parties{}, policy.Code{}, err
	}
	found, err := module.Find(t.Module, c.modules, c.host.modules)
	if err != nil {
		return peer.Parties{}, policy.Code{}, err
	}
	defer found.Release()
	return c.host.peers.Meet(caller.ID, c.entry.ID, c.rereads.next), codeOf(found), nil
}
