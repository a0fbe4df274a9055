package envelope

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Link is one delegation of a chain, checked. Its ID is the SHA-256 of the signed
// bytes.
type Link struct {
	script.Delegation
	ID script.Digest
}

// SealDelegation signs d with its issuer's key. What d leaves empty it fills in:
// the issuer from the key, and a random nonce.
func SealDelegation(d script.Delegation, key *peer.Key) (sealed []byte, id script.Digest, err error) {
	if d.Issuer == "" {
		d.Issuer = key.ID()
	}
	if d.Issuer != key.ID() {
		return nil, id, fmt.Errorf("seal delegation: it is by %s, but the key is that of %s: sign with the issuer's key", d.Issuer, key.ID())
	}
	if d.Nonce == (script.Nonce{}) {
		if _, err := rand.Read(d.Nonce[:]); err != nil {
			return nil, id, fmt.Errorf("seal delegation: draw a nonce: %w", err)
		}
	}
	payload, err := d.Encode()
	if err != nil {
		return nil, id, fmt.Errorf("seal delegation: %w", err)
	}
	if len(payload) > script.MaxDelegation-overhead {
		return nil, id, fail(TooLarge, "seal delegation: it is %d bytes long, at most %d are taken: allow directories instead of their files", len(payload), script.MaxDelegation-overhead)
	}
	return seal(delegationType, payload, key), script.DigestOf(payload), nil
}

// OpenChain checks sealed delegations, of which each but the first passes on the
// one before it: that there are not too many, that each is in form, narrows the
// one before it, and was signed by its issuer, and that nobody occurs in it twice.
// Signatures, which cost most, are checked last. The time is the caller's to
// check; see CheckTime. The error is an *Error.
func OpenChain(sealed [][]byte) ([]Link, error) {
	if len(sealed) == 0 || len(sealed) > script.MaxChain {
		return nil, fail(Malformed, "open chain: it has %d delegations, must be 1 to %d", len(sealed), script.MaxChain)
	}
	links := make([]Link, len(sealed))
	signed := make([]signature, len(sealed))
	for i, b := range sealed {
		var err error
		if signed[i], err = take(b, script.MaxDelegation, delegationType); err != nil {
			return nil, fmt.Errorf("open chain: delegation %d: %w", i+1, err)
		}
		d, err := script.DecodeDelegation(signed[i].payload)
		if err != nil {
			return nil, fail(Malformed, "open chain: delegation %d: %w", i+1, err)
		}
		links[i] = Link{Delegation: d, ID: script.DigestOf(signed[i].payload)}
		if d.Issuer != signed[i].signer {
			return nil, fail(Unauthenticated, "open chain: delegation %d: issuer: it says it is by %s, but %s signed it", i+1, d.Issuer, signed[i].signer)
		}
		if i == 0 && !d.Parent.IsZero() {
			return nil, fail(Unauthenticated, "open chain: delegation 1: parent: it passes on %s, which is missing: send the whole chain", d.Parent.Short())
		}
		if i > 0 {
			if err := d.Narrows(&links[i-1].Delegation, links[i-1].ID); err != nil {
				return nil, fail(Unauthenticated, "open chain: delegation %d: %w", i+1, err)
			}
		}
		for _, before := range links[:i] {
			if before.Issuer == d.To {
				return nil, fail(Unauthenticated, "open chain: delegation %d: to: it goes in a circle, back to %s", i+1, d.To)
			}
		}
	}
	for i, s := range signed {
		if err := s.verify(); err != nil {
			return nil, fmt.Errorf("open chain: delegation %d: %w", i+1, err)
		}
	}
	return links, nil
}

// CheckTime says whether a chain that OpenChain returned is over as of now, give or
// take ClockSkew, or good for longer than is taken. The last link ends first.
func CheckTime(chain []Link, now time.Time) error {
	const hint = "have it issued anew"
	if last := chain[len(chain)-1]; now.Sub(last.NotAfter) > ClockSkew {
		return fail(Expired, "delegation %s was good until %s and here it is %s: %s", last.ID.Short(), stamp(last.NotAfter), stamp(now), hint)
	}
	if first := chain[0]; first.NotAfter.Sub(now) > script.MaxDelegated+ClockSkew {
		return fail(Expired, "delegation %s is good until %s, more than %d days from now: %s, for less", first.ID.Short(), stamp(first.NotAfter), script.MaxDelegated/(24*time.Hour), hint)
	}
	return nil
}

// leads says why a chain does not lead from the caller of s to who signed it, and
// into the target's context.
func leads(chain []Link, s *script.Script, signer peer.ID) error {
	first, last := chain[0], chain[len(chain)-1]
	switch {
	case first.Issuer != s.Caller:
		return fail(Unauthenticated, "it says it is from %s, but its chain begins with a delegation by %s", s.Caller, first.Issuer)
	case last.To != signer:
		return fail(Unauthenticated, "%s signed it, but its chain ends with a delegation to %s", signer, last.To)
	case !last.For(s.Target):
		return fail(Unauthenticated, "targets: delegation %s is not for the context of %s", last.ID.Short(), s.Target)
	}
	return nil
}

// SealRevocation signs with the key of who takes a delegation back.
func SealRevocation(id script.Digest, key *peer.Key) ([]byte, error) {
	r := script.Revocation{Delegation: id, Issuer: key.ID()}
	payload, err := r.Encode()
	if err != nil {
		return nil, fmt.Errorf("seal revocation: %w", err)
	}
	return seal(revocationType, payload, key), nil
}

// OpenRevocation checks a sealed revocation: that it is in form, and that whom it
// names signed it. Whether that is anybody who may take that delegation back shows
// when the delegation is used.
func OpenRevocation(sealed []byte) (script.Revocation, error) {
	payload, signer, err := open(sealed, script.MaxRevocation, revocationType)
	if err != nil {
		return script.Revocation{}, fmt.Errorf("open revocation: %w", err)
	}
	r, err := script.DecodeRevocation(payload)
	if err != nil {
		return script.Revocation{}, fail(Malformed, "open revocation: %w", err)
	}
	if r.Issuer != signer {
		return script.Revocation{}, fail(Unauthenticated, "open revocation: it says it is by %s, but %s signed it", r.Issuer, signer)
	}
	return r, nil
}

// SealHead signs h: as the host whose log it is of, or as somebody who has seen it.
func SealHead(h script.Head, key *peer.Key) ([]byte, error) {
	payload, err := h.Encode()
	if err != nil {
		return nil, fmt.Errorf("seal head: %w", err)
	}
	return seal(headType, payload, key), nil
}

// MaxHead is the length of the longest sealed head, in bytes.
const MaxHead = 1 << 10

// OpenHead checks a sealed head: that it is in form and that signer signed it. That
// is the host that it names, or whoever countersigned it.
func OpenHead(sealed []byte) (h script.Head, signer peer.ID, err error) {
	payload, signer, err := open(sealed, MaxHead, headType)
	if err != nil {
		return script.Head{}, "", fmt.Errorf("open head: %w", err)
	}
	if h, err = script.DecodeHead(payload); err != nil {
		return script.Head{}, "", fail(Malformed, "open head: %w", err)
	}
	return h, signer, nil
}
