package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Manifest is what a module says of itself to people, in its custom section
// "circles-manifest". Nothing of it is to be relied on: needs are what the
// author wishes for, and policy alone decides.
//
// All its text is printable: control characters, with which a module could
// forge what a terminal shows, have been replaced.
type Manifest struct {
	Description string               `json:"description"`
	Entries     map[string]EntryInfo `json:"entries"`
	Needs       []Need               `json:"needs"` // of the target
	Lends       []Need               `json:"lends"` // of the caller: what is asked to be lent
}

// EntryInfo describes one entry.
type EntryInfo struct {
	Description string `json:"description"`
	Params      string `json:"params"`
	Result      string `json:"result"`
	// Types are those of the params, if they are a JSON object and policies may look
	// at them: "string", "number", a whole one, or "boolean", by key. All keys must be
	// there, and no others; but for those whose type ends in "?", which may be missing.
	Types map[string]string `json:"types,omitempty"`
}

// Types are those of the params of each entry that declares them; nil if none does.
// They are not to be changed.
func (m *Manifest) Types() (types map[string]map[string]string) {
	if m == nil {
		return nil
	}
	for name, e := range m.Entries {
		if len(e.Types) == 0 {
			continue
		}
		if types == nil {
			types = make(map[string]map[string]string)
		}
		types[name] = e.Types
	}
	return types
}

// Need is an action on a path, or on records, of a context that the module does not work
// without, or not as well.
type Need struct {
	Action string `json:"action"` // of files: read, list, write or remove; of records: get, put, query or delete; of modules: call; or send
	Path   string `json:"path"`   // absolute and clean; of records: COLLECTION, or COLLECTION/KEY; of a module its name; of send: *
}

const (
	maxManifestEntries = 256
	maxManifestNeeds   = 256
	maxManifestText    = 4096 // bytes of one text
	maxManifestTypes   = 64   // of the params of one entry
)

func parseManifest(section []byte) (*Manifest, error) {
	if len(section) > maxManifest {
		return nil, fmt.Errorf("it has %d bytes; this host reads %d", len(section), maxManifest)
	}
	if !utf8.Valid(section) {
		return nil, errors.New("it is not UTF-8")
	}
	var raw Manifest
	if err := json.Unmarshal(section, &raw); err != nil {
		return nil, fmt.Errorf("parse JSON: %s", clean(err.Error(), 200))
	}
	if len(raw.Entries) > maxManifestEntries || len(raw.Needs)+len(raw.Lends) > maxManifestNeeds {
		return nil, fmt.Errorf("it has %d entries and %d needs; this host reads %d of each", len(raw.Entries), len(raw.Needs)+len(raw.Lends), maxManifestNeeds)
	}
	m := &Manifest{Description: clean(raw.Description, maxManifestText)}
	for name, e := range raw.Entries {
		if !isKebab(name) {
			return nil, fmt.Errorf("entry %s is not a kebab-case name", quote(name))
		}
		if m.Entries == nil {
			m.Entries = make(map[string]EntryInfo)
		}
		m.Entries[name] = EntryInfo{
			Description: clean(e.Description, maxManifestText),
			Params:      clean(e.Params, maxManifestText),
			Result:      clean(e.Result, maxManifestText),
			Types:       e.Types,
		}
		if err := checkTypes(e.Types); err != nil {
			return nil, fmt.Errorf("types of the entry %s: %w", name, err)
		}
	}
	var err error
	if m.Needs, err = checkNeeds(raw.Needs); err == nil {
		m.Lends, err = checkNeeds(raw.Lends)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func checkTypes(types map[string]string) error {
	if len(types) > maxManifestTypes {
		return fmt.Errorf("there are %d; this host reads %d", len(types), maxManifestTypes)
	}
	for name, kind := range types {
		if !paramName.MatchString(name) {
			return fmt.Errorf("%s is not a name: at most 64 letters, digits, - and _", quote(name))
		}
		if kind := strings.TrimSuffix(kind, "?"); kind != "string" && kind != "number" && kind != "boolean" {
			return fmt.Errorf("%s of %s is none of string, number, boolean, nor one of these with a ?", quote(kind), quote(name))
		}
	}
	return nil
}

var (
	paramName  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	moduleName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

func checkNeeds(needs []Need) ([]Need, error) {
	for _, n := range needs {
		switch n.Action {
		case "read", "list", "write", "remove":
		case "get", "put", "query", "delete":
			collection, key, one := strings.Cut(n.Path, "/")
			if !isCollection(collection) || one && (key == "" || n.Action == "query") || n.Path != clean(n.Path, maxManifestText) {
				return nil, fmt.Errorf("need %s of %s: records are named by their collection, like shopping-list, or one of them like shopping-list/milk", n.Action, quote(n.Path))
			}
			continue
		case "send":
			if n.Path != "*" {
				return nil, fmt.Errorf("need send of %s: to whom it sends scripts, its owner decides: write *", quote(n.Path))
			}
			continue
		case "call":
			if !moduleName.MatchString(n.Path) {
				return nil, fmt.Errorf("need call of %s: modules are named like shopping-list", quote(n.Path))
			}
			continue
		default:
			return nil, fmt.Errorf("need %s is none of read, list, write, remove, get, put, query, delete, call, send", quote(n.Action))
		}
		if !strings.HasPrefix(n.Path, "/") || path.Clean(n.Path) != n.Path || n.Path != clean(n.Path, maxManifestText) {
			return nil, fmt.Errorf("need %s of %s: a path is absolute and clean, like /shared/notes", n.Action, quote(n.Path))
		}
	}
	return needs, nil
}

// isCollection reports whether s can name a collection of records: lower-case
// words joined by hyphens, of at most 64 bytes.
func isCollection(s string) bool {
	return len(s) <= 64 && collectionName.MatchString(s)
}

var collectionName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// clean returns s, cut to max bytes, with everything that is not printable
// replaced. Line breaks and tabs stay.
func clean(s string, max int) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, s)
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max] + "…"
}

// quote shows a name that somebody else chose, in a message.
func quote(s string) string { return fmt.Sprintf("%q", clean(s, 100)) }
