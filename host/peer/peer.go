// Package peer names the parties to a script and finds them.
//
// A peer is an Ed25519 key. Its ID is the did:key form of the public key
// (https://w3c-ccg.github.io/did-key-spec/), so an ID alone is enough to verify
// what its peer signed: no registry is asked. On a host a peer also has a
// petname, chosen locally and meaning nothing elsewhere, and it may belong to
// circles, which the owner of a context names for use in policies.
//
//	id, err := peer.ParseID("did:key:z6Mk…")            // strict: one spelling per key
//	key, err := peer.ReadKeyFile("peers/bob/peer.key")  // refused when others can read it
//	dir, err := peer.OpenDirectory(root)                // who is held here, who is known elsewhere
//
// This package imports nothing of ours; it is the vocabulary of the others.
package peer

import "fmt"

// Name is a petname: 1 to 63 characters of a-z, 0-9 and "-", neither first nor
// last a "-". It is also a directory name, so nothing else is allowed in it.
type Name string

// MaxName is the length of the longest petname, in bytes.
const MaxName = 63

// ParseName returns s as a Name, or an error that says what a petname is.
func ParseName(s string) (Name, error) {
	if s == "" {
		return "", fmt.Errorf("petname is empty: use 1 to %d characters of a-z, 0-9 and -", MaxName)
	}
	if len(s) > MaxName {
		return "", fmt.Errorf("petname %.20q… is %d characters long: use at most %d", s, len(s), MaxName)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			continue
		}
		if c == '-' && i > 0 && i < len(s)-1 {
			continue
		}
		return "", fmt.Errorf("petname %q: use only a-z, 0-9 and -, and no - at either end", s)
	}
	return Name(s), nil
}

// Peer is what a host knows of one peer. Name and Circles are those that the
// owner of the *target* context gave it; both are empty for a stranger.
type Peer struct {
	ID      ID
	Name    Name
	Circles []string
}

// Known reports whether the owner has a name for it, or a circle: whether it is
// no stranger.
func (p Peer) Known() bool { return p.Name != "" || len(p.Circles) > 0 }

// String is the petname if there is one, else the ID's short form: for people.
func (p Peer) String() string {
	if p.Name != "" {
		return string(p.Name)
	}
	return p.ID.Short()
}

// Parties are the peers that a script concerns.
type Parties struct {
	Caller, Target Peer
	// Via is whom the caller's delegation came by, in order; the last sent the
	// script, on the caller's behalf. nil if the caller did.
	Via []Peer

	known   *Directory
	circles *Circles
}

// Other finds somebody as the owner of the target's context knows them, by petname or
// did:key; ok is false if there is nobody of that name.
func (p Parties) Other(s string) (other Peer, ok bool) {
	id, err := ParseID(s)
	if err != nil {
		name, err := ParseName(s)
		if err != nil || p.known == nil {
			return Peer{}, false
		}
		e, ok := p.known.ByName(name)
		if !ok {
			return Peer{}, false
		}
		id = e.ID
	}
	other.ID = id
	if p.known != nil {
		other.Name = p.known.NameOf(p.Target.ID, id)
	}
	if p.circles != nil {
		other.Circles = p.circles.Of(id, other.Name)
	}
	return other, true
}

// Known reports whether the owner knows the caller, and all whom its delegation
// came by.
func (p Parties) Known() bool {
	for _, v := range p.Via {
		if !v.Known() {
			return false
		}
	}
	return p.Caller.Known()
}
