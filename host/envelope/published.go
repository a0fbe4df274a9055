package envelope

import (
	"fmt"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// MaxPublished is the length of the longest sealed publication, in bytes.
const MaxPublished = 512

// SealPublished signs that the owner of key publishes the bytes with this digest.
func SealPublished(digest script.Digest, key *peer.Key) []byte {
	return seal(publishedType, digest[:], key)
}

// OpenPublished checks a sealed publication: that it is in form, is about these
// bytes and no others, and that publisher signed it. The error is an *Error.
func OpenPublished(sealed []byte, digest script.Digest) (publisher peer.ID, err error) {
	payload, publisher, err := open(sealed, MaxPublished, publishedType)
	if err != nil {
		return "", fmt.Errorf("open publication: %w", err)
	}
	if string(payload) != string(digest[:]) {
		return "", fail(Unauthenticated, "open publication: %s signed other bytes than these: have these signed", publisher)
	}
	return publisher, nil
}
