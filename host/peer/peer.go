// Package peer names the parties to a script and finds them.
//
// A peer is an Ed25519 key. Its ID is the did:key form of the public key
// (https://w3c-ccg.github.io/did-key-spec/), so an ID alone is enough to verify
// what its peer signed: no registry is asked. On a host a peer also has a
// petname, chosen locally and meaning nothing elsewhere, and it may belong to
// circles, which the owner of a context names for use in policies.
//
// This package imports nothing of ours; it is the vocabulary of the others.
package peer

// ID is a peer's identity, "did:key:z6Mk…". The zero value is no peer. Only
// ParseID, Key.ID and IDOf make valid ones; every other package may assume that
// an ID that it was handed by this one is well formed.
type ID string

// Name is a petname: 1 to 63 characters of a-z, 0-9 and "-", neither first nor
// last a "-". It is also a directory name, so nothing else is allowed in it.
type Name string

// Peer is what a host knows of one peer. Name and Circles are those that the
// owner of the *target* context gave it; both are empty for a stranger.
type Peer struct {
	ID      ID
	Name    Name
	Circles []string
}

// Parties are the two peers that a script concerns.
type Parties struct{ Caller, Target Peer }
