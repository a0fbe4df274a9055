package envelope

import (
	"crypto/rand"
	"fmt"

	"github.com/circles-host/circles/host/script"
)

// Suppose is a script that nobody has signed, for a dry run by the owner of its
// target, who wants to know what it would do before anybody sends it. It stays a
// supposition: Supposed tells, it is a dry run whatever s says, and what is done
// with it has no receipt.
func Suppose(s script.Script) (*Verified, error) {
	s.DryRun = true
	if len(s.Chain) > 0 {
		return nil, fmt.Errorf("suppose script: it is sent on behalf of another, by delegations that nobody has shown")
	}
	if _, err := rand.Read(s.Nonce[:]); err != nil {
		return nil, fmt.Errorf("suppose script: draw a nonce: %w", err)
	}
	payload, err := s.Encode()
	if err != nil {
		return nil, fmt.Errorf("suppose script: %w", err)
	}
	return &Verified{script: s, id: script.IDOf(payload), signer: s.Caller, supposed: true}, nil
}

// Supposed reports whether nobody has signed it.
func (v *Verified) Supposed() bool { return v.supposed }
