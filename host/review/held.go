package review

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// maxAnswers is how many answers of the caller's host are kept with a script.
const maxAnswers = 4096

// encode writes what is held as a line that says what it is, and then parts, each
// with its length before it as an unsigned varint: salt, script, caller, log key,
// expiry, sealed script, transport, receipt, the two digests, and of each answer the question's
// digest and the answer.
func (h *Held) encode() []byte {
	parts := [][]byte{
		salt(), h.Script[:], []byte(h.Caller), h.Key[:], binary.AppendVarint(nil, h.Expires.UnixMilli()),
		h.Sealed, []byte(h.Transport), h.Would, h.Outcome.Changes[:], h.Outcome.Answer[:],
	}
	for _, q := range slices.SortedFunc(maps.Keys(h.Answers), func(a, b script.Digest) int { return bytes.Compare(a[:], b[:]) }) {
		parts = append(parts, q[:], h.Answers[q])
	}
	size := len(magic)
	for _, p := range parts {
		size += binary.MaxVarintLen64 + len(p)
	}
	b := append(make([]byte, 0, size), magic...)
	for _, p := range parts {
		b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
	}
	return b
}

// decode is the inverse of encode. Its digest has been checked, so what it finds
// wrong was written by another version.
func decode(b []byte) (*Held, error) {
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok {
		return nil, fmt.Errorf("%w: it is of another version", ErrDamaged)
	}
	next := func() (part []byte) {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			ok = false
			return nil
		}
		part, rest = rest[n:n+int(size):n+int(size)], rest[n+int(size):]
		return part
	}
	digest := func() (d script.Digest) {
		p := next()
		ok = ok && len(p) == len(d)
		copy(d[:], p)
		return d
	}
	h := &Held{}
	next() // the salt
	h.Script = digest()
	h.Caller = peer.ID(next())
	h.Key = [32]byte(digest())
	ms, n := binary.Varint(next())
	ok = ok && n > 0
	h.Expires = time.UnixMilli(ms).UTC()
	h.Sealed, h.Transport, h.Would = next(), string(next()), next()
	h.Outcome = Outcome{Changes: digest(), Answer: digest()}
	for ok && len(rest) > 0 && len(h.Answers) < maxAnswers {
		if h.Answers == nil {
			h.Answers = map[script.Digest][]byte{}
		}
		q := digest()
		h.Answers[q] = next()
	}
	if !ok || len(rest) > 0 {
		return nil, fmt.Errorf("%w: it is cut short, or of another version", ErrDamaged)
	}
	return h, nil
}
