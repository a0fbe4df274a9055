// guestbook is guestbook.c in Go: the same files and results.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/circles-host/circles/guest-sdk/go"
)

func main() {}

//go:wasmexport run
func run(ptr, n uint32) uint32 { return circles.Handle(ptr, n, sign) }

//go:wasmexport sign
func signEntry(ptr, n uint32) uint32 { return circles.Handle(ptr, n, sign) }

//go:wasmexport read
func readEntry(ptr, n uint32) uint32 { return circles.Handle(ptr, n, read) }

const (
	book    = "/guestbook"
	entries = book + "/entries.txt"
	count   = book + "/count"
	most    = 999999999 // entries
	end     = 64 << 10  // bytes of the book that read returns
)

// sign adds a line with the caller's name, message and card.
func sign(params []byte) ([]byte, error) {
	message, err := messageOf(params)
	if err != nil {
		return nil, err
	}
	bob, alice := circles.Target(), circles.Caller()

	// A visitor who lends no card may sign too; any other failure is one.
	card, err := alice.ReadAt("/card.txt", 0, 120)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}

	if err := bob.Mkdir(book); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("guestbook: cannot make %w", err)
	}
	n, err := last(bob)
	if err != nil {
		return nil, err
	}
	if n == most {
		return nil, errors.New("guestbook: the book is full; its owner can archive " + book)
	}
	n++

	name := alice.Name()
	if name == "" {
		name = alice.ID() // a stranger
	}
	text := shown(message, 1000)
	if text == "" {
		return nil, errors.New("params: the message has nothing in it that can be shown")
	}
	line := fmt.Sprintf("%d. %s: %s", n, shown(name, 80), text)
	first, _, _ := strings.Cut(string(card), "\n")
	if card := shown(first, 120); card != "" {
		line += " (" + card + ")"
	}

	if err := bob.Append(entries, []byte(line+"\n")); err != nil {
		return nil, err
	}
	if err := bob.WriteFile(count, []byte(strconv.Itoa(n)+"\n")); err != nil {
		return nil, err
	}
	return result(struct {
		Entry int    `json:"entry"`
		Text  string `json:"text"`
	}{n, line})
}

// read returns the entries, at most the last 64 KiB of them.
func read([]byte) ([]byte, error) {
	bob := circles.Target()
	n, err := last(bob)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	about, err := bob.Stat(entries)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		from := max(about.Size()-end, 0)
		b, err := bob.ReadAt(entries, uint64(from), end)
		if err != nil {
			return nil, err
		}
		if from > 0 { // start with a whole line
			_, b, _ = bytes.Cut(b, []byte("\n"))
		}
		// The owner may have edited the book, so its text is foreign too.
		for line := range strings.Lines(string(b)) {
			text.WriteString(shown(line, end) + "\n")
		}
	}
	return result(struct {
		Entries int    `json:"entries"`
		Text    string `json:"text"`
	}{n, text.String()})
}

// result is JSON as guestbook.c writes it: encoding/json would escape < and &.
func result(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// messageOf takes {"message": "…"}: that member, once, and no other, so that a misspelt
// or repeated one is an error and not a surprise.
func messageOf(params []byte) (string, error) {
	want := errors.New(`params: want {"message": "…"}, at most 1000 bytes of UTF-8`)
	if !utf8.Valid(params) {
		return "", want
	}
	d := json.NewDecoder(bytes.NewReader(params))
	var tokens []json.Token
	for len(tokens) < 5 {
		t, err := d.Token()
		if err != nil {
			break
		}
		tokens = append(tokens, t)
	}
	if len(tokens) != 4 || d.More() || tokens[0] != json.Delim('{') || tokens[1] != "message" || tokens[3] != json.Delim('}') {
		return "", want
	}
	message, ok := tokens[2].(string)
	if !ok || len(message) > 1000 || !json.Valid(params) {
		return "", want
	}
	// Half of a surrogate pair has no UTF-8, so it is refused; the decoder replaces it.
	if strings.Contains(message, "\uFFFD") && !bytes.Contains(params, []byte("\uFFFD")) {
		return "", want
	}
	return message, nil
}

// last is the number of the last entry: 0 without a book.
func last(bob *circles.Context) (int, error) {
	b, err := bob.ReadAt(count, 0, 11)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	digits := strings.TrimSuffix(string(b), "\n")
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n > most {
		return 0, errors.New("guestbook: " + count + " has no number in it; the owner can repair it: it holds the number of the last entry in " + entries)
	}
	return int(n), nil
}

// shown is foreign text as one harmless stretch of a line, of at most so many bytes.
// Whatever breaks a line, or moves what is around it, becomes a blank.
func shown(s string, most int) string {
	var b strings.Builder
	gap := ""
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		c := s[i : i+n]
		i += n
		switch {
		case r <= ' ' || r >= 0x7F && r < 0xA0 || r >= 0x2028 && r <= 0x202E || r >= 0x2066 && r <= 0x2069:
			if b.Len() > 0 {
				gap = " "
			}
			continue
		case r == utf8.RuneError && n == 1:
			c = "?"
		}
		if b.Len()+len(gap)+len(c) > most {
			break
		}
		b.WriteString(gap + c)
		gap = ""
	}
	return b.String()
}
