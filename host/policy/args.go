package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// MaxArgs is how many bytes of params policies look into.
const MaxArgs = 64 << 10

// The entity types by whose tags policies see params.
const (
	typeStrings  types.EntityType = "StringParams"
	typeNumbers  types.EntityType = "NumberParams"
	typeBooleans types.EntityType = "BooleanParams"
)

// argsID is the only id that these have: there is one of each, the script's.
const argsID types.String = "params"

// argsRecord is context.args, the same for all: what differs are the tags.
var argsRecord = types.NewRecord(types.RecordMap{
	"strings":  types.NewEntityUID(typeStrings, argsID),
	"numbers":  types.NewEntityUID(typeNumbers, argsID),
	"booleans": types.NewEntityUID(typeBooleans, argsID),
})

// args are the params of a script, by their type; nil where none is declared.
type args map[types.EntityType]types.RecordMap

// args reads the params of r as the entry declares them. They must have one
// reading only: were there two, the policies would decide about one, and the
// module do the other. The error says what is wrong, for the caller.
func (r Request) args() (args, error) {
	entry := r.Entry
	if entry == "" {
		entry = "run" // see modules/README.md
	}
	declared := r.Code.Types[entry]
	if len(declared) == 0 {
		return nil, nil
	}
	a, err := readArgs(r.Args, declared)
	if err != nil {
		return nil, fmt.Errorf("its params are not as the module declares them: %w", err)
	}
	return a, nil
}

func readArgs(text []byte, declared map[string]string) (args, error) {
	switch {
	case len(text) > MaxArgs:
		return nil, fmt.Errorf("they have %d bytes, and policies look into %d at most", len(text), MaxArgs)
	case !utf8.Valid(text):
		return nil, errors.New("they are not UTF-8")
	case !json.Valid(text): // nothing but one value
		return nil, errors.New("they are not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("they are not a JSON object")
	}
	a := args{typeStrings: {}, typeNumbers: {}, typeBooleans: {}}
	seen := make(map[string]bool, len(declared))
	for d.More() {
		before := d.InputOffset()
		t, err := d.Token()
		if err != nil {
			return nil, errors.New("they are not JSON")
		}
		key, _ := t.(string)
		kind, ok := declared[key]
		switch {
		case bytes.IndexByte(text[before:d.InputOffset()], '\\') >= 0:
			return nil, errors.New("a key is written with a backslash")
		case !ok:
			return nil, fmt.Errorf("there is no %q", shortened(key))
		case seen[key]:
			return nil, fmt.Errorf("%q is there twice", key)
		}
		seen[key] = true
		if t, err = d.Token(); err != nil {
			return nil, errors.New("they are not JSON")
		}
		if err := a.add(key, strings.TrimSuffix(kind, "?"), t); err != nil {
			return nil, err
		}
	}
	first := "" // of those that are missing, so that it is always the same
	for key, kind := range declared {
		if !seen[key] && !strings.HasSuffix(kind, "?") && (first == "" || key < first) {
			first = key
		}
	}
	if first != "" {
		return nil, fmt.Errorf("%q is missing", first)
	}
	return a, nil
}

// maxArg is the largest number that all languages read alike: many have no others
// than doubles (RFC 7493, 2.2).
const maxArg = 1<<53 - 1

func (a args) add(key, kind string, t json.Token) error {
	wrong := fmt.Errorf("%q is not a %s", key, kind)
	switch v := t.(type) {
	case string:
		if kind != "string" {
			return wrong
		}
		// What is half a surrogate pair, or ends a string in C, is read in different
		// ways. The decoder has replaced the former.
		if strings.ContainsAny(v, "\x00\ufffd") {
			return fmt.Errorf("%q has a NUL in it, or what is no character", key)
		}
		a[typeStrings][types.String(key)] = types.String(v)
	case bool:
		if kind != "boolean" {
			return wrong
		}
		a[typeBooleans][types.String(key)] = types.Boolean(v)
	case json.Number:
		if kind != "number" {
			return wrong
		}
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != string(v) || n > maxArg || n < -maxArg {
			return fmt.Errorf("%q is not a whole number from -%d to %d, written in digits alone", key, maxArg, maxArg)
		}
		a[typeNumbers][types.String(key)] = types.Long(n)
	default:
		return wrong
	}
	return nil
}

// entity is the one of this type, if uid is it.
func (a args) entity(uid types.EntityUID) (types.Entity, bool) {
	if uid.ID != argsID {
		return types.Entity{}, false
	}
	return types.Entity{UID: uid, Tags: types.NewRecord(a[uid.Type])}, true
}

// looksAtArgs reports whether conditions look into the params.
func looksAtArgs(tree *ast.Policy) bool { return looksAt(tree, "args") }

// looksAt reports whether conditions look at any of these parts of the context.
func looksAt(tree *ast.Policy, parts ...types.String) (looks bool) {
	for _, c := range tree.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeTypeAccess:
				if v, ok := n.Arg.(ast.NodeTypeVariable); ok && v.Name == "context" {
					looks = looks || slices.Contains(parts, n.Value)
					return false
				}
			case ast.NodeTypeVariable:
				looks = looks || n.Name == "context" // all of it
			}
			return !looks
		})
	}
	return looks
}

func (c candidates) lookAtArgs() bool {
	return slices.ContainsFunc(c, func(r *rule) bool { return r.args })
}

// unread is the verdict when policies look at params that cannot be read. Whoever
// would be refused whatever the params say is told no more than that.
func (q *question) unread(err error, covering candidates, request types.Request) Verdict {
	blind := slices.DeleteFunc(slices.Clone(covering), func(r *rule) bool { return r.args })
	decision, diagnostic := cedar.Authorize(blind, &q.known.entities, request)
	v := verdictOf(decision, diagnostic)
	mayPermit := slices.ContainsFunc(covering, func(r *rule) bool { return !r.forbids && (r.args || v.Permitted) })
	if !v.Permitted && len(v.Policies) > 0 || !mayPermit {
		return q.set.explain(v)
	}
	return Verdict{Unread: err}
}
