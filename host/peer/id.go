package peer

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync/atomic"

	"github.com/mr-tron/base58"
)

// ID is a peer's identity, "did:key:z6Mk…". The zero value is no peer. Only
// ParseID, Key.ID and IDOf make valid ones; every other package may assume that
// an ID that it was handed by this one is well formed.
type ID string

const (
	scheme = "did:key:z" // z: multibase's sign for base58btc

	// An Ed25519 did:key encodes 34 bytes: the multicodec 0xed as a varint, and
	// the key. The leading 0xed is never zero and the whole always lies between
	// 58^46 and 58^47, so every ID has the same length and starts alike.
	codec0, codec1 = 0xed, 0x01
	digits         = 47
	idLen          = len(scheme) + digits
	lead           = "6Mk"
)

// IDOf returns the ID of a public key of ed25519.PublicKeySize bytes; it panics
// on any other length, as package ed25519 does.
func IDOf(public ed25519.PublicKey) ID {
	if len(public) != ed25519.PublicKeySize {
		panic(fmt.Sprintf("peer.IDOf: a public key of %d bytes", len(public)))
	}
	var b [2 + ed25519.PublicKeySize]byte
	b[0], b[1] = codec0, codec1
	copy(b[2:], public)
	return ID(scheme + base58.Encode(b[:]))
}

// ParseID checks that s is the did:key of an Ed25519 key and returns it. One key
// has one ID: another spelling of it is refused, so that IDs compare as strings.
// So are keys that are not a point of the curve (about half of all typing
// errors end here, as a did:key has no checksum), and the few points of small
// order, for which anybody can sign.
func ParseID(s string) (ID, error) {
	if _, err := publicKey(s); err != nil {
		return "", err
	}
	return ID(s), nil
}

// PublicKey returns the key that id stands for. The error is ParseID's, for an
// ID that did not come from it.
func (id ID) PublicKey() (ed25519.PublicKey, error) { return publicKey(string(id)) }

// Short is a form for people's eyes, "z6Mk…8 characters". Others can make a key
// with the same short form, so nothing is decided by it.
func (id ID) Short() string {
	if len(id) != idLen {
		return string(id)
	}
	return "z6Mk…" + string(id[idLen-8:])
}

func publicKey(s string) (ed25519.PublicKey, error) {
	// Length first: base58 decoding is quadratic in it.
	if len(s) != idLen || !strings.HasPrefix(s, scheme+lead) {
		return nil, malformed(s)
	}
	slot := &parsed[maphash.String(parsedSeed, s)%uint64(len(parsed))]
	if p := slot.Load(); p != nil && p.id == s {
		return bytes.Clone(p.public[:]), nil
	}
	b, err := base58.Decode(s[len(scheme):])
	if err != nil {
		return nil, malformed(s)
	}
	if len(b) != 2+ed25519.PublicKeySize || b[0] != codec0 || b[1] != codec1 {
		return nil, malformed(s)
	}
	public := ed25519.PublicKey(b[2:])
	if string(IDOf(public)) != s {
		return nil, malformed(s)
	}
	if err := checkPoint(public); err != nil {
		return nil, fmt.Errorf("id %s: %w", s, err)
	}
	slot.Store(&parsedID{strings.Clone(s), [ed25519.PublicKeySize]byte(public)})
	return public, nil
}

// parsed remembers IDs that were found good. The way of a script meets the same
// two or three of them six times, and each costs as much as a twelfth of a
// verification. It has a fixed size, so strangers who send other IDs push out
// what is in it and can do no more; the seed is this process's, so they cannot
// choose what.
var (
	parsed     [1024]atomic.Pointer[parsedID]
	parsedSeed = maphash.MakeSeed()
)

type parsedID struct {
	id     string
	public [ed25519.PublicKeySize]byte
}

// malformed explains what is wrong with s, which is not an ID. It looks for the
// mistakes that people make before it falls back to the length.
func malformed(s string) error {
	const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	shown := s
	if len(shown) > 80 {
		shown = shown[:80] + "…"
	}
	say := func(format string, a ...any) error {
		return fmt.Errorf("id %q: "+format, append([]any{shown}, a...)...)
	}
	trimmed := strings.Trim(s, " \t\r\n\"'<>")
	switch {
	case s == "":
		return errors.New("id is empty: a peer's id starts with did:key:z6Mk")
	case trimmed != s:
		return say("remove the spaces or quotes around it")
	case strings.HasPrefix(s, "z6Mk"):
		return say("put did:key: before it")
	case strings.HasPrefix(strings.ToLower(s), "did:key:") && !strings.HasPrefix(s, "did:key:"):
		return say("write did:key: in lower case")
	case strings.HasPrefix(s, "did:") && !strings.HasPrefix(s, "did:key:"):
		return say("only did:key is understood, not other kinds of DID")
	case !strings.HasPrefix(s, "did:"):
		return say("a peer's id starts with did:key:z6Mk")
	case strings.ContainsAny(s, "#?/"):
		return say("leave out everything from the first of # ? / on")
	case !strings.HasPrefix(s, scheme):
		return say("what follows did:key: must start with z (base58btc)")
	case !strings.HasPrefix(s, scheme+lead):
		return say("not an Ed25519 key; those start with did:key:z6Mk")
	}
	for i, r := range s[len(scheme):] {
		if !strings.ContainsRune(alphabet, r) {
			return say("character %q at position %d is not base58 (which has no 0, O, I and l)", r, len(scheme)+i+1)
		}
	}
	if len(s) != idLen {
		return say("%d characters long, must be %d: was it copied whole?", len(s), idLen)
	}
	return say("not an Ed25519 key in its one spelling: was it copied correctly?")
}

var (
	// smallOrder holds the y coordinates (little endian) of the eight points
	// whose order divides the cofactor; either sign of x. RFC 8032 lets a
	// verifier accept such a key, and for it one signature fits any message.
	smallOrder = [...][32]byte{
		{0: 1}, // order 1
		{0: 0xec, 1: 0xff, 2: 0xff, 3: 0xff, 4: 0xff, 5: 0xff, 6: 0xff, 7: 0xff, 8: 0xff, 9: 0xff, 10: 0xff,
			11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff, 16: 0xff, 17: 0xff, 18: 0xff, 19: 0xff, 20: 0xff,
			21: 0xff, 22: 0xff, 23: 0xff, 24: 0xff, 25: 0xff, 26: 0xff, 27: 0xff, 28: 0xff, 29: 0xff, 30: 0xff,
			31: 0x7f}, // order 2: y = -1
		{}, // order 4: y = 0
		{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
			0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a}, // order 8
		{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
			0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05}, // order 8
	}
)

// checkPoint reports whether public encodes a point of edwards25519 (RFC 8032,
// section 5.1.3), canonically, and not one of small order.
func checkPoint(public ed25519.PublicKey) error {
	var y [32]byte
	copy(y[:], public)
	y[31] &= 0x7f // the sign of x
	for i := range smallOrder {
		if y == smallOrder[i] {
			return errors.New("a key for which anybody can sign (a point of small order)")
		}
	}
	if y[31] == 0x7f && y[0] >= 0xed && bytes.Count(y[1:31], []byte{0xff}) == 30 {
		return errors.New("not a canonical curve point: was it copied correctly?") // y ≥ 2^255-19
	}
	if complaint(public) != complaintOfGood {
		return errors.New("not a point of the curve: was it copied correctly?")
	}
	return nil
}

// complaint is what crypto/ed25519 says to an empty signature by a key: for a key
// that is no point it speaks of the key. The package has no other way to ask,
// and this one costs a twelfth of a verification and no arithmetic of our own.
// Were it to look at the signature first, only this check would be lost, and
// TestParseIDRefuses fail; a signature by what is no point never verifies.
func complaint(public ed25519.PublicKey) string {
	return ed25519.VerifyWithOptions(public, nil, nil, &ed25519.Options{}).Error()
}

// complaintOfGood is that of a key that is one: of the seed of zeros.
var complaintOfGood = complaint(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey))
