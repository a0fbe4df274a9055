package module

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"sync/atomic"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
)

// PublisherSection is the name of the custom section in which a publisher signs.
const PublisherSection = "circles-publisher"

// Publisher says who signed a module; "" if nobody did. Digest is the SHA-256 of
// wasm, with the signature.
//
// The signature is what envelope.SealPublished makes of the SHA-256 of all bytes
// before it, in a custom section that is the last of the module, there once, and
// encoded with lengths of minimal size. Anything else by that name is an error
// which wraps engine.ErrInvalid, and never a publisher: a module with it is not to
// be run, as its publisher would not have it, or it is somebody else's.
//
// What was found good is remembered by its digest. A module that nobody signed
// costs a look at its sections' headers.
func Publisher(wasm []byte, digest [32]byte) (peer.ID, error) {
	start, from, to, err := engine.CustomSection(wasm, PublisherSection)
	if err != nil || to == 0 {
		return "", err
	}
	slot := &published[maphash.Bytes(publishedSeed, digest[:])%uint64(len(published))]
	if p := slot.Load(); p != nil && p.digest == digest {
		return p.by, nil
	}
	fail := func(err error) (peer.ID, error) {
		return "", fmt.Errorf("module's signature: %w: %w; have it signed again, after the last change", engine.ErrInvalid, err)
	}
	if to != len(wasm) {
		return fail(fmt.Errorf("%d bytes follow the section %s, which must be the last", len(wasm)-to, PublisherSection))
	}
	if to-from > envelope.MaxPublished || !bytes.Equal(publisherSection(wasm[from:to]), wasm[start:]) {
		return fail(fmt.Errorf("the section %s is not in its one form", PublisherSection))
	}
	by, err := envelope.OpenPublished(wasm[from:to], sha256.Sum256(wasm[:start]))
	if err != nil {
		return fail(err)
	}
	slot.Store(&publication{digest, by})
	return by, nil
}

// published remembers signatures that were found good: a script that carries a
// module brings it each time. It has a fixed size, so strangers who send other
// modules push out what is in it and can do no more.
var (
	published     [256]atomic.Pointer[publication]
	publishedSeed = maphash.MakeSeed()
)

type publication struct {
	digest [32]byte
	by     peer.ID
}

// Sign returns wasm with the signature of key's owner at its end, in place of one
// that was there. With it the module has another digest. Errors wrap
// engine.ErrInvalid.
func Sign(wasm []byte, key *peer.Key) ([]byte, error) {
	start, _, to, err := engine.CustomSection(wasm, PublisherSection)
	if err != nil {
		return nil, fmt.Errorf("sign module: %w", err)
	}
	body := wasm
	if to != 0 {
		if to != len(wasm) {
			return nil, fmt.Errorf("sign module: %w: something follows its section %s; build it again", engine.ErrInvalid, PublisherSection)
		}
		body = wasm[:start]
	}
	section := publisherSection(envelope.SealPublished(sha256.Sum256(body), key))
	return append(bytes.Clone(body), section...), nil
}

// publisherSection is the section's one form.
func publisherSection(sealed []byte) []byte {
	content := binary.AppendUvarint(nil, uint64(len(PublisherSection)))
	content = append(append(content, PublisherSection...), sealed...)
	return append(binary.AppendUvarint([]byte{0}, uint64(len(content))), content...)
}
