package peer

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Route says where a peer's context is held when it is not here.
type Route struct {
	ID   ID
	URL  string // of its worker; "" when only the petname is known
	Host ID     // who signs receipts there; "" takes any host's
}

// check returns what is wrong with r, and in which of its keys.
func (r Route) check() (key string, err error) {
	if r.ID == "" {
		return "", errNoID
	}
	if _, err := ParseID(string(r.ID)); err != nil {
		return "id", err
	}
	if r.Host != "" {
		if _, err := ParseID(string(r.Host)); err != nil {
			return "host", err
		}
	}
	if r.URL == "" {
		return "", nil
	}
	if len(r.URL) > 2048 {
		return "url", errors.New("url is longer than 2048 bytes")
	}
	u, err := url.Parse(r.URL)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return "url", fmt.Errorf("url %.80q: write it whole, https://host:port", r.URL)
	}
	if u.User != nil {
		return "url", errors.New("url: leave user and password out: scripts are signed")
	}
	return "", nil
}

var errNoID = errors.New("id is missing: id = \"did:key:z6Mk…\"")

// parseIdentity reads a peer.toml.
//
// Ids are decoded as plain strings and parsed afterwards, here and below: go-toml
// (2.4.3) fills a string type without calling its UnmarshalText.
func parseIdentity(file string, text []byte) (ID, error) {
	var got struct {
		ID string `toml:"id"`
	}
	mine := func(k toml.Key) bool { return len(k) > 0 && !slices.Contains(settings, k[0]) }
	if err := decodeTOML(file, text, &got, mine); err != nil {
		return "", err
	}
	if got.ID == "" {
		return "", fmt.Errorf("%s: %w", file, errNoID)
	}
	id, err := ParseID(got.ID)
	if err != nil {
		return "", fmt.Errorf("%s: %w", place(file, text, "id"), err)
	}
	return id, nil
}

// settings are the keys of a peer.toml that are read when the context is opened,
// and judged then: what is wrong with them takes a peer out of service, and not
// out of the Directory.
var settings = []string{"store", "quota"}

// Settings decodes what the peer.toml of a context that is held here says besides
// whose it is, as it is now, into v, which points to a struct with toml tags.
func (e Entry) Settings(v any) error {
	file := filepath.Join(e.Dir, identityFile)
	text, err := readConfig(file)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	return decodeTOML(file, text, v, func(k toml.Key) bool { return len(k) > 0 && k[0] != "id" })
}

// WriteIdentity writes a peer.toml into dir that says whose context it is, and
// nothing else.
func WriteIdentity(dir string, id ID) error {
	if err := replaceFile(filepath.Join(dir, identityFile), identityLines(id), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", identityFile, err)
	}
	return nil
}

func identityLines(id ID) []byte {
	return fmt.Appendf(nil, "# Who this context belongs to.\nid = %q\n", string(id))
}

// SetStore writes into the peer.toml of a context that is held here how it is
// stored, and leaves the rest of that file as it is: it is people's, comments
// included. It is there at once, or not at all.
func (e Entry) SetStore(store string) error {
	file := filepath.Join(e.Dir, identityFile)
	text, err := readConfig(file)
	if err == nil {
		text, err = editStore(file, text, store)
	}
	if err == nil {
		err = replaceFile(file, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("set how %s is stored: %w", e.Name, err)
	}
	return nil
}

// editStore returns the text of a peer.toml with store = name in it. A key of the
// top must stand before the first table.
func editStore(file string, text []byte, name string) ([]byte, error) {
	line := fmt.Appendf(nil, "store = %s\n", tomlString(name))
	at := span{start: len(text), end: len(text)}
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Comment {
			continue
		}
		it := e.Key()
		it.Next()
		first := it.Node()
		start := bytes.LastIndexByte(text[:first.Raw.Offset], '\n') + 1
		if e.Kind != unstable.KeyValue { // the first table
			at = span{start: start, end: start}
			break
		}
		if it.IsLast() && string(first.Data) == "store" {
			raw := e.Value().Raw
			at = span{start: start, end: lineEnd(text, int(raw.Offset+raw.Length))}
			break
		}
	}
	head := text[:at.start:at.start]
	if len(head) > 0 && !bytes.HasSuffix(head, []byte("\n")) {
		head = append(head, '\n')
	}
	out := slices.Concat(head, line, text[at.end:])
	// An editor of text had better look at what it did.
	was, errWas := parseIdentity(file, text)
	is, errIs := parseIdentity(file, out)
	var got struct {
		Store string `toml:"store"`
	}
	err := errors.Join(errWas, errIs, toml.Unmarshal(out, &got))
	if err != nil || was != is || got.Store != name {
		return nil, fmt.Errorf("%s: cannot set store = %s there (%v): edit the file by hand", file, tomlString(name), err)
	}
	return out, nil
}

// parseRoutes reads the [peers.<petname>] tables of circles.toml. What else is
// in that file is others' to judge.
func parseRoutes(file string, text []byte) (map[Name]Route, error) {
	var got struct {
		Peers map[string]struct {
			ID   string `toml:"id"`
			URL  string `toml:"url"`
			Host string `toml:"host"`
		} `toml:"peers"`
	}
	if err := decodeTOML(file, text, &got, func(k toml.Key) bool { return len(k) > 0 && k[0] == "peers" }); err != nil {
		return nil, err
	}
	routes := make(map[Name]Route, len(got.Peers))
	// In order, so that the same file has the same first error.
	for _, s := range slices.Sorted(maps.Keys(got.Peers)) {
		g := got.Peers[s]
		name, err := ParseName(s)
		if err != nil {
			return nil, fmt.Errorf("%s: [peers.%s]: %w", place(file, text, "peers", s), s, err)
		}
		r := Route{ID: ID(g.ID), URL: g.URL, Host: ID(g.Host)}
		if key, err := r.check(); err != nil {
			path := []string{"peers", s}
			if key != "" {
				path = append(path, key)
			}
			return nil, fmt.Errorf("%s: [peers.%s]: %w", place(file, text, path...), s, err)
		}
		routes[name] = r
	}
	return routes, nil
}

// place returns "file:line" of the table or value at path, or of what it is part
// of where that is written in one piece.
func place(file string, text []byte, path ...string) string {
	var p unstable.Parser
	p.Reset(text)
	var table []string
	line, best := 0, 0
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Comment {
			continue
		}
		at := 0
		var full []string
		if e.Kind == unstable.KeyValue {
			full = slices.Clone(table)
		}
		for it := e.Key(); it.Next(); {
			n := it.Node()
			if at == 0 {
				at = p.Shape(n.Raw).Start.Line
			}
			full = append(full, string(n.Data))
		}
		if e.Kind != unstable.KeyValue {
			table = full
		}
		same := 0
		for same < min(len(full), len(path)) && full[same] == path[same] {
			same++
		}
		if same > best && (same == len(full) || same == len(path)) {
			line, best = at, same
		}
	}
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// decodeTOML decodes text into v. An unknown field is an error if mine says that
// its key is ours; all errors are "file:line: what".
func decodeTOML(file string, text []byte, v any, mine func(toml.Key) bool) error {
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(v)
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		for i := range missing.Errors {
			if e := &missing.Errors[i]; mine(e.Key()) {
				line, _ := e.Position()
				return fmt.Errorf("%s:%d: unknown key %s: correct or remove it", file, line, last(e.Key()))
			}
		}
		return nil
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, _ := bad.Position()
		return fmt.Errorf("%s:%d: %w", file, line, bad)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func last(k toml.Key) string {
	if len(k) == 0 {
		return "?"
	}
	return strconv.Quote(k[len(k)-1])
}

type span struct{ start, end int }

// findTable returns where [peers.<name>] and what belongs to it lies in text:
// from the start of its line to the end of its last value's.
func findTable(text []byte, name string) (found span, ok bool) {
	var p unstable.Parser
	p.Reset(text)
	inside := false
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Comment {
			continue
		}
		var path []string
		end := 0
		start := -1
		for it := e.Key(); it.Next(); {
			n := it.Node()
			path = append(path, string(n.Data))
			if start < 0 {
				start = int(n.Raw.Offset)
			}
			end = int(n.Raw.Offset + n.Raw.Length)
		}
		switch {
		case e.Kind == unstable.KeyValue && inside:
			if raw := e.Value().Raw; raw.Length > 0 {
				end = int(raw.Offset + raw.Length)
			}
			found.end = lineEnd(text, end)
		case e.Kind == unstable.KeyValue:
		default:
			if inside = len(path) == 2 && path[0] == "peers" && path[1] == name && e.Kind == unstable.Table; inside {
				found = span{start: bytes.LastIndexByte(text[:start], '\n') + 1, end: lineEnd(text, end)}
				ok = true
			}
		}
	}
	return found, ok && p.Error() == nil
}

// lineEnd returns the offset after the newline that ends the line with offset at.
func lineEnd(text []byte, at int) int {
	if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
		return at + n + 1
	}
	return len(text)
}

// editRoute returns text with the route of name set, or taken out if it is nil,
// and everything else as it was: the file is people's, comments included.
func editRoute(file string, text []byte, name Name, route *Route) ([]byte, error) {
	want, err := parseRoutes(file, text)
	if err != nil {
		return nil, err
	}
	out := bytes.Clone(text)
	if at, ok := findTable(text, string(name)); ok {
		out = append(out[:at.start:at.start], text[at.end:]...)
	}
	delete(want, name)
	if route != nil {
		if _, err := route.check(); err != nil {
			return nil, err
		}
		want[name] = *route
		if len(out) > 0 && !bytes.HasSuffix(out, []byte("\n")) {
			out = append(out, '\n')
		}
		if len(out) > 0 && !bytes.HasSuffix(out, []byte("\n\n")) {
			out = append(out, '\n')
		}
		out = fmt.Appendf(out, "[peers.%s]\nid = %q\n", name, string(route.ID))
		if route.URL != "" {
			out = fmt.Appendf(out, "url = %s\n", tomlString(route.URL))
		}
		if route.Host != "" {
			out = fmt.Appendf(out, "host = %q\n", string(route.Host))
		}
	}
	// An editor of text had better look at what it did.
	got, err := parseRoutes(file, out)
	if err != nil || !equalRoutes(got, want) {
		return nil, fmt.Errorf("%s: cannot change [peers.%s], as it is not written as a table of its own: edit the file by hand", file, name)
	}
	return out, nil
}

func equalRoutes(a, b map[Name]Route) bool {
	if len(a) != len(b) {
		return false
	}
	for name, r := range a {
		if b[name] != r {
			return false
		}
	}
	return true
}

// tomlString quotes s as a TOML basic string.
func tomlString(s string) string {
	out := []byte{'"'}
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r < 0x20 || r == 0x7f:
			out = fmt.Appendf(out, `\u%04X`, r)
		default:
			out = append(out, string(r)...)
		}
	}
	return string(append(out, '"'))
}
