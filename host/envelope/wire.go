package envelope

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/circles-host/circles/host/peer"
)

// The payload types that are signed along, so that nothing signed as one kind
// can be shown as another.
const (
	scriptType   = "application/vnd.circles.script.v1+protobuf"
	receiptType  = "application/vnd.circles.receipt.v1+protobuf"
	questionType = "application/vnd.circles.question.v1+protobuf"
	answerType   = "application/vnd.circles.answer.v1+protobuf"

	delegationType = "application/vnd.circles.delegation.v1+protobuf"
	revocationType = "application/vnd.circles.revocation.v1+protobuf"
	headType       = "application/vnd.circles.head.v1+protobuf"
	publishedType  = "application/vnd.circles.published.v1" // a SHA-256
)

// overhead is how many bytes an envelope adds to its payload, at most.
const overhead = 256

// parts are the fields of circles.v1.Envelope, in the order of their numbers,
// 1 to 4. They point into the sealed bytes.
type parts struct {
	payload, payloadType, signer, signature []byte
}

// split takes an envelope apart. It is written by hand because this is the one
// message that is parsed before anybody is known: it copies nothing, so that
// bytes which nobody signed cost no memory, and it takes only the one encoding,
// each of the four fields once, in order, with lengths of minimal size. So there
// is no byte outside payload, type, signer and signature that could be changed.
func split(b []byte) (p parts, err error) {
	for i, field := range []*[]byte{&p.payload, &p.payloadType, &p.signer, &p.signature} {
		num := protowire.Number(i + 1)
		if len(b) == 0 || b[0] != byte(protowire.EncodeTag(num, protowire.BytesType)) {
			return parts{}, fmt.Errorf("field %d is missing or not where it belongs", num)
		}
		length, n := protowire.ConsumeVarint(b[1:])
		if n < 0 || n != protowire.SizeVarint(length) || length > uint64(len(b)-1-n) {
			return parts{}, fmt.Errorf("field %d is cut short or padded", num)
		}
		if length == 0 {
			return parts{}, fmt.Errorf("field %d is empty", num)
		}
		b = b[1+n:]
		*field, b = b[:length:length], b[length:]
	}
	if len(b) > 0 {
		return parts{}, fmt.Errorf("%d bytes follow its end", len(b))
	}
	return p, nil
}

// join is the inverse of split.
func join(p parts) []byte {
	size := 0
	for i, field := range [][]byte{p.payload, p.payloadType, p.signer, p.signature} {
		size += protowire.SizeTag(protowire.Number(i+1)) + protowire.SizeBytes(len(field))
	}
	b := make([]byte, 0, size)
	for i, field := range [][]byte{p.payload, p.payloadType, p.signer, p.signature} {
		b = protowire.AppendTag(b, protowire.Number(i+1), protowire.BytesType)
		b = protowire.AppendBytes(b, field)
	}
	return b
}

// pae is DSSE's pre-authentication encoding
// (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md):
// the lengths make it impossible to move bytes between type and payload.
func pae(payloadType, payload []byte) []byte {
	b := make([]byte, 0, 64+len(payloadType)+len(payload))
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

func seal(payloadType string, payload []byte, key *peer.Key) []byte {
	return join(parts{
		payload:     payload,
		payloadType: []byte(payloadType),
		signer:      []byte(key.ID()),
		signature:   key.Sign(pae([]byte(payloadType), payload)),
	})
}

// signature is an envelope whose signature has not been looked at.
type signature struct {
	parts
	signer peer.ID
	public ed25519.PublicKey
}

// take checks size, form and type, and who is said to have signed.
func take(sealed []byte, limit int, payloadType string) (s signature, err error) {
	if len(sealed) > limit {
		return s, fail(TooLarge, "it is %d bytes long, at most %d are taken: send less, or name a module instead of carrying it", len(sealed), limit)
	}
	if s.parts, err = split(sealed); err != nil {
		return s, fail(Malformed, "not a sealed message: %w; send the bytes as they were sealed", err)
	}
	if string(s.payloadType) != payloadType {
		return s, fail(Malformed, "it is of type %.80q, but %q is expected here", s.payloadType, payloadType)
	}
	s.signer, err = peer.ParseID(string(s.parts.signer))
	if err != nil {
		return s, fail(Unauthenticated, "signer: %w", err)
	}
	if s.public, err = s.signer.PublicKey(); err != nil {
		return s, fail(Unauthenticated, "signer: %w", err)
	}
	return s, nil
}

func (s signature) verify() error {
	// Verify refuses a signature whose second half is not reduced (S + L), so a
	// signature has one form too.
	if !ed25519.Verify(s.public, pae(s.payloadType, s.payload), s.signature) {
		return fail(Unauthenticated, "the signature does not fit %s and what was sent: sign the exact bytes with that peer's key", s.signer)
	}
	return nil
}

// open checks size, form, type and signature, in the order of what they cost,
// and returns the payload, which is part of sealed, and who signed it.
func open(sealed []byte, limit int, payloadType string) (payload []byte, signer peer.ID, err error) {
	s, err := take(sealed, limit, payloadType)
	if err == nil {
		err = s.verify()
	}
	if err != nil {
		return nil, "", err
	}
	return s.payload, s.signer, nil
}

// Error is why an envelope was not opened. Kind is for programs, the text is for
// the person who sent it.
type Error struct {
	Kind Kind
	err  error
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// Kind says what kind of refusal an Error is.
type Kind uint8

const (
	Malformed       Kind = iota + 1 // not bytes that Seal could have made
	Unauthenticated                 // signer, key and signature do not fit each other
	NotHere                         // the target's context is not on this host
	NotYet                          // it may not start before a time that is still to come
	Expired                         // its deadline has passed, or is further off than is taken
	TooLarge                        // more bytes than are taken
	Conflict                        // the nonce was used before, for another script
)

// KindOf returns the kind of an error of this package, 0 for any other.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func fail(kind Kind, format string, a ...any) error {
	return &Error{Kind: kind, err: fmt.Errorf(format, a...)}
}
