package envelope

import (
	"bytes"
	"encoding/base64"

	"github.com/circles-host/circles/host/script"
)

// TextKind is what a text holds: the first line of it.
type TextKind string

// The kinds of texts. A chain of delegations is one text, so that whoever is handed
// the last of them has what it passes on.
const (
	DelegationText TextKind = "circles delegation v1"
	RevocationText TextKind = "circles revocation v1"
	HeadText       TextKind = "circles head v1"
)

// MaxText is the length of the longest text, in bytes.
const MaxText = 2 * script.MaxChain * script.MaxDelegation

// Text writes sealed messages as lines that survive a mail: the kind, and each
// message in base64.
func Text(kind TextKind, sealed ...[]byte) []byte {
	b := append([]byte(kind), '\n')
	for _, s := range sealed {
		b = append(base64.StdEncoding.AppendEncode(b, s), '\n')
	}
	return b
}

// ParseText is the inverse of Text. There is at least one message, and of
// delegations a chain at most; whether anybody signed them, it does not look.
func ParseText(kind TextKind, text []byte) (sealed [][]byte, err error) {
	if len(text) > MaxText {
		return nil, fail(TooLarge, "read %q: %d bytes, at most %d are taken", kind, len(text), MaxText)
	}
	lines := bytes.Split(bytes.TrimRight(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), "\n"), []byte("\n"))
	most := 1
	if kind == DelegationText {
		most = script.MaxChain
	}
	if string(lines[0]) != string(kind) || len(lines) < 2 || len(lines)-1 > most {
		return nil, fail(Malformed, "it is no file that begins with %q and has 1 to %d lines more", kind, most)
	}
	for i, l := range lines[1:] {
		b, err := base64.StdEncoding.Strict().DecodeString(string(l))
		if err != nil {
			return nil, fail(Malformed, "line %d of the file is no base64: was it copied whole?", i+2)
		}
		sealed = append(sealed, b)
	}
	return sealed, nil
}
