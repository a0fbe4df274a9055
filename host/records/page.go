package records

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/circles-host/circles/host/store"
)

const (
	pageSize    = 32 << 10 // bytes after which a page is split
	maxPage     = 8 << 20  // bytes of a page that is read: its owner may have made it
	mergeBelow  = pageSize / 4
	lineBytes   = 48 // what an entry takes in memory beside its line
	canonicalTo = `{"key":"`
)

// page is one file of a collection: its records from from on to the next page's.
type page struct {
	of     *collection
	number uint64     // of its file; 0 for one that has none yet
	file   store.Info // as it was when it was read or written; zero if it was not there
	from   string
	used   uint64 // when it was last looked at
	dirty  bool   // entries are not what the file holds

	entries []entry // nil: not in memory
	size    int64   // of the lines
	counted int64   // of that, and of entries, in Tx.cached
}

// entry is a record as its page has it. The line of one that nobody has changed
// stays as its owner may have written it.
type entry struct {
	key, line string // without the line's end
}

// search returns where key is, or belongs.
func (p *page) search(key string) (int, bool) {
	return slices.BinarySearchFunc(p.entries, key, func(e entry, key string) int { return cmp.Compare(e.key, key) })
}

// put reports whether e is the page's last entry.
func (p *page) put(e entry) (last bool) {
	i, ok := p.search(e.key)
	if ok {
		p.size += int64(len(e.line) - len(p.entries[i].line))
		p.entries[i] = e
	} else {
		p.size += int64(len(e.line) + 1)
		p.entries = slices.Insert(p.entries, i, e)
	}
	p.dirty = true
	return i == len(p.entries)-1
}

func (p *page) remove(key string) {
	if i, ok := p.search(key); ok {
		p.size -= int64(len(p.entries[i].line) + 1)
		p.entries = slices.Delete(p.entries, i, i+1)
		p.dirty = true
	}
}

// settle returns by how much what the page takes in memory has changed since it
// last returned that.
func (p *page) settle() int64 {
	var now int64
	if p.entries != nil {
		now = p.size + int64(len(p.entries))*lineBytes
	}
	change := now - p.counted
	p.counted = now
	return change
}

// lineError is damage at one line of a file.
type lineError struct {
	line int // from 1
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

// shortest is a line that no record's is shorter than.
const shortest = `{"key":"k","text":""}`

// parsePage reads a page. Values are looked at when they are asked for.
func parsePage(text string, check func(string) error) ([]entry, error) {
	entries := make([]entry, 0, min(strings.Count(text, "\n"), len(text)/len(shortest))+1)
	sorted := true
	for n, line := range lines(text) {
		key, ok := canonicalKey(line)
		if !ok {
			w, err := parseLine(line)
			if err != nil {
				return nil, &lineError{n, err}
			}
			key = *w.Key
		}
		if err := check(key); err != nil {
			return nil, &lineError{n, errors.New("it has no key that a record can have")}
		}
		sorted = sorted && (len(entries) == 0 || entries[len(entries)-1].key < key)
		entries = append(entries, entry{key, line})
	}
	if !sorted {
		slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
		for i := 1; i < len(entries); i++ {
			if entries[i-1].key == entries[i].key {
				twice := 0
				for n, line := range lines(text) {
					if line == entries[i].line {
						twice = n
					}
				}
				return nil, &lineError{twice, errors.New("another line has the same key")}
			}
		}
	}
	return entries, nil
}

// lines yields the lines of a text that are not blank, and their numbers from 1.
func lines(text string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for n := 1; text != ""; n++ {
			line, rest, _ := strings.Cut(text, "\n")
			text = rest
			line = strings.TrimSuffix(line, "\r")
			if strings.Trim(line, " \t") != "" && !yield(n, line) {
				return
			}
		}
	}
}

// canonicalKey returns the key of a line as we write it, if nothing in the key is
// escaped.
func canonicalKey(line string) (string, bool) {
	rest, ok := strings.CutPrefix(line, canonicalTo)
	if !ok {
		return "", false
	}
	end := strings.IndexByte(rest, '"')
	if end < 0 || strings.IndexByte(rest[:end], '\\') >= 0 || !strings.HasPrefix(rest[end:], `",`) {
		return "", false
	}
	return rest[:end], true
}

// written is a line as anybody may write it.
type written struct {
	Key    *string         `json:"key"`
	Value  json.RawMessage `json:"value"`
	Text   *string         `json:"text"`
	Base64 *string         `json:"base64"`
}

func parseLine(line string) (written, error) {
	var w written
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil || d.InputOffset() != int64(len(strings.TrimRight(line, " \t"))) {
		return w, errors.New(`it is not one JSON object with "key", and one of "value", "text" and "base64"`)
	}
	if !utf8.ValidString(line) {
		return w, errors.New("it is not UTF-8")
	}
	of := 0
	for _, is := range []bool{w.Value != nil, w.Text != nil, w.Base64 != nil} {
		if is {
			of++
		}
	}
	if w.Key == nil || of != 1 {
		return w, errors.New(`it must have "key", and one of "value", "text" and "base64"`)
	}
	return w, nil
}

// value returns a record's value; it is never nil without an error.
func (e entry) value() ([]byte, error) {
	if key, ok := canonicalKey(e.line); ok {
		// Nobody else writes a long line, so these are worth it.
		rest := e.line[len(canonicalTo)+len(key):]
		if v, ok := strings.CutPrefix(rest, `","value":`); ok {
			if v, ok := strings.CutSuffix(v, "}"); ok {
				if b := []byte(v); plainJSON(b) {
					return b, nil
				}
			}
		}
		if v, ok := strings.CutPrefix(rest, `","base64":"`); ok {
			if v, ok := strings.CutSuffix(v, `"}`); ok {
				if b, err := base64.StdEncoding.Strict().DecodeString(v); err == nil {
					return b, nil
				}
			}
		}
	}
	w, err := parseLine(e.line)
	if err != nil {
		return nil, err
	}
	switch {
	case w.Text != nil:
		return []byte(*w.Text), nil
	case w.Base64 != nil:
		b, err := base64.StdEncoding.Strict().DecodeString(*w.Base64)
		if err != nil {
			return nil, errors.New(`its "base64" is not that`)
		}
		return b, nil
	}
	return w.Value, nil
}

// plainJSON reports whether b can stand in a line as it is, and be got back byte
// for byte.
func plainJSON(b []byte) bool {
	if len(b) == 0 || b[0] <= ' ' || b[len(b)-1] <= ' ' || bytes.IndexByte(b, '\n') >= 0 || bytes.IndexByte(b, '\r') >= 0 {
		return false
	}
	return json.Valid(b) && utf8.Valid(b)
}

// plainText reports whether a person can read b: no control characters save tabs
// and line ends.
func plainText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f {
			return false
		}
	}
	return len(b) > 0 && utf8.Valid(b)
}

// encodeLine writes a record.
func encodeLine(key string, value []byte) string {
	var b strings.Builder
	b.Grow(len(key) + len(value) + 32)
	b.WriteString(`{"key":`)
	writeString(&b, key)
	switch {
	case plainJSON(value):
		b.WriteString(`,"value":`)
		b.Write(value)
	case plainText(value):
		b.WriteString(`,"text":`)
		writeString(&b, string(value))
	default:
		b.WriteString(`,"base64":"`)
		b.WriteString(base64.StdEncoding.EncodeToString(value))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// writeString writes s, UTF-8, as a JSON string. "<" and the like stay what they
// are: this is for people.
func writeString(b *strings.Builder, s string) {
	b.WriteByte('"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b.WriteString(s[from:i])
		from = i + 1
		switch c {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		default:
			fmt.Fprintf(b, `\u%04x`, c)
		}
	}
	b.WriteString(s[from:])
	b.WriteByte('"')
}

// encode is the text of a page.
func (p *page) encode() []byte {
	b := make([]byte, 0, p.size)
	for _, e := range p.entries {
		b = append(append(b, e.line...), '\n')
	}
	return b
}

// half returns where to split a page: so that both sides are about as large, and
// neither is empty.
func (p *page) half() int {
	var size int64
	at := 0
	for i, e := range p.entries {
		if size += int64(len(e.line) + 1); size >= p.size/2 {
			at = i + 1
			break
		}
	}
	return min(max(at, 1), len(p.entries)-1)
}

// separator is a short text between two keys: greater than low, and not greater
// than high. It bounds a page in the index, where it need not be a key.
func separator(low, high string) string {
	for n := range len(high) {
		if n > 0 && utf8.RuneStart(high[n]) && high[:n] > low {
			return high[:n]
		}
	}
	return high
}
