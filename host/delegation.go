package host

import (
	"errors"
	"path/filepath"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/revoked"
)

// RevokedDir is where the delegations are that the owner of e takes back, or that
// their issuers took back there: beside the owner's policies, and carried along with
// them. See package revoked.
func RevokedDir(e peer.Entry) string { return filepath.Join(e.Dir, "policy", "revoked") }

// RevokedDir is the same for every context of the root.
func (r *Root) RevokedDir() string { return filepath.Join(r.Dir, "revoked") }

// DelegationsDir is where the delegations are that e was given.
func DelegationsDir(e peer.Entry) string { return filepath.Join(e.Dir, "delegations") }

// DelegationsDir is where those are that the host was given.
func (r *Root) DelegationsDir() string { return filepath.Join(r.Dir, "delegations") }

// unrevoked refuses a script that carries a delegation which was taken back, here or
// for all contexts of the host. A script without one costs nothing.
func (c *peerContext) unrevoked(v *envelope.Verified, parties peer.Parties) error {
	if v.Chain() == nil {
		return nil
	}
	for _, list := range []*revoked.List{c.revoked, c.host.revoked} {
		err := list.Check(v.Chain())
		if err == nil {
			continue
		}
		if broken := errors.Unwrap(err); broken != nil {
			c.host.report(broken)
		}
		return &policy.RefusedError{Request: policy.Request{Parties: parties}, Reason: err.Error()}
	}
	return nil
}
