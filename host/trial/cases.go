package trial

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

// CasesFile is the name of the file with a module's cases, beside its sources.
const CasesFile = "cases.toml"

// Case is one script, what is there before it, and what is to come of it.
//
//	[[case]]
//	name   = "alice signs"
//	entry  = "sign"                      # none is the default entry
//	params = { message = "Lovely!" }     # a text goes as it is, anything else as JSON
//	result = { entry = 1 }               # likewise: a text is compared as it is, anything else as JSON
//	before = { "/book.txt" = "", "cards/home" = '{"name":"Bob"}' }
//	after  = { "/book.txt" = "1. alice: Lovely!\n" }
//
// name must be there. These may be:
//
//	as      = "alice"                    # who sends it; this is who, if not said
//	to      = "bob"                      # in whose context it runs; likewise
//	caller  = { "/card.txt" = "Alice" }  # before, in the caller's context
//	lend    = ["read /card.txt"]         # what the caller lends; if not said, what the manifest asks for
//	allow   = ["write /book.txt"]        # what the target's policy allows; if not said, what the manifest needs
//	limits  = "time=100ms"               # of the permit, as @limits has it
//	expect  = "failed"                   # how it ends, as receipts have it; "done" if not said
//	message = "no such slot"             # is in what is said of that
//	matches = '"id":"[0-9a-f]{8}"'       # a regular expression that the result matches, instead of result
//	log     = "signed\n"                 # what it logs
//	denied  = ["read /diary.txt"]        # what of the target it asks for and does not get, and nothing else
//
// What is in after is compared with what is there, and nothing else may have
// changed. In it a text is what a file or record holds; true, that it is there;
// false, that it is not; { matches = "…" } and { base64 = "…" } say the text in
// other ways. Without after nobody looks.
type Case struct {
	Name   string
	Line   int // of its [[case]], from 1; 0 if not known
	As, To peer.Name
	Entry  string
	Params []byte
	Lend   []script.Grant // nil: what the manifest asks for
	Allow  []policy.Need  // nil: what the manifest needs
	Limits policy.Limits
	// Files by absolute path and records by COLLECTION/KEY, of the target and the
	// caller.
	Before, Caller map[string]string
	Want           Want
}

// Want is how a case is to go.
type Want struct {
	Code    script.Code
	Message string          // a part of the receipt's message; "" is not looked at
	Result  *Text           // nil is not looked at
	Log     *Text           // likewise
	Denied  []policy.Need   // of the target, all of them; nil is not looked at
	After   map[string]Text // by path or COLLECTION/KEY; nil is not looked at, and what is not in it must not have changed
}

// Text is what a text is to be: the first of its fields that is set.
type Text struct {
	Absent bool
	Any    bool // it is there
	Match  *regexp.Regexp
	JSON   []byte // the same value
	Exact  string
}

const (
	maxCasesFile = 16 << 20 // bytes
	maxCases     = 1000
	maxThings    = 1000 // files and records of one case
)

// CasesError is a mistake in a file of cases.
type CasesError struct {
	File         string
	Line, Column int // from 1; 0 if not known
	Err          error
}

func (e *CasesError) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	case e.Column == 0:
		return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Column, e.Err)
}

func (e *CasesError) Unwrap() error { return e.Err }

// ReadCases reads a file of cases. The error wraps fs.ErrNotExist when there is
// none.
func ReadCases(file string) ([]Case, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read cases: %s is not a file", file) // a pipe would hang us
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCasesFile+1))
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	return ParseCases(file, text)
}

// caseText is a Case as it is written.
type caseText struct {
	Name    string         `toml:"name"`
	As      string         `toml:"as"`
	To      string         `toml:"to"`
	Entry   string         `toml:"entry"`
	Params  any            `toml:"params"`
	Lend    []string       `toml:"lend"`
	Allow   []string       `toml:"allow"`
	Limits  string         `toml:"limits"`
	Before  map[string]any `toml:"before"`
	Caller  map[string]any `toml:"caller"`
	Expect  string         `toml:"expect"`
	Message string         `toml:"message"`
	Result  any            `toml:"result"`
	Matches *string        `toml:"matches"`
	Log     any            `toml:"log"`
	Denied  []string       `toml:"denied"`
	After   map[string]any `toml:"after"`
}

const caseKeys = "name, as, to, entry, params, lend, allow, limits, before, caller, expect, message, result, matches, log, denied and after"

// ParseCases is ReadCases for a text at hand; file is its name in errors, which
// are *CasesError. A key that is not one is a mistake: an "aftr" would be a case
// that looks at nothing.
func ParseCases(file string, text []byte) ([]Case, error) {
	at := func(line, column int, format string, a ...any) error {
		return &CasesError{file, line, column, fmt.Errorf(format, a...)}
	}
	if len(text) > maxCasesFile {
		return nil, at(0, 0, "is larger than %d MiB", maxCasesFile>>20)
	}
	var all struct {
		Case []caseText `toml:"case"`
	}
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&all)
	var strict *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &strict) && len(strict.Errors) > 0:
		line, column := strict.Errors[0].Position()
		key := strict.Errors[0].Key()
		if len(key) > 1 && key[0] == "case" {
			return nil, at(line, column, "a case has no key %q: it has %s", key[len(key)-1], caseKeys)
		}
		return nil, at(line, column, "there is no key %q here: a case begins with the line [[case]]", strings.Join(key, "."))
	case errors.As(err, &wrong):
		line, column := wrong.Position()
		return nil, at(line, column, "%s", strings.TrimPrefix(wrong.Error(), "toml: "))
	case err != nil:
		return nil, at(0, 0, "%s", strings.TrimPrefix(err.Error(), "toml: "))
	case len(all.Case) == 0:
		return nil, at(0, 0, "has no case in it; a case begins with the line [[case]]")
	case len(all.Case) > maxCases:
		return nil, at(0, 0, "has %d cases, at most %d are run", len(all.Case), maxCases)
	}
	lines := policy.TableLines(text, "case")
	cases := make([]Case, 0, len(all.Case))
	first := map[string]int{}
	for i, w := range all.Case {
		line := 0 // of cases that are written as an array of inline tables
		if len(lines) == len(all.Case) {
			line = lines[i]
		}
		k, err := w.read()
		k.Line = line
		if err == nil && first[k.Name] > 0 {
			err = fmt.Errorf("another has this name, number %d; give one of them another", first[k.Name])
		}
		if err != nil {
			return nil, at(line, 0, "case %d, %q: %w", i+1, k.Name, err)
		}
		first[k.Name] = i + 1
		cases = append(cases, k)
	}
	return cases, nil
}

func (w caseText) read() (k Case, err error) {
	k = Case{Name: w.Name, As: "alice", To: "bob", Entry: w.Entry, Want: Want{Code: script.Done, Message: w.Message}}
	if strings.TrimSpace(w.Name) == "" {
		return k, errors.New(`name is missing: say in a few words what it shows, name = "alice signs"`)
	}
	for _, who := range []struct {
		key, name string
		to        *peer.Name
	}{{"as", w.As, &k.As}, {"to", w.To, &k.To}} {
		if who.name == "" {
			continue
		}
		if *who.to, err = peer.ParseName(who.name); err != nil {
			return k, fmt.Errorf("%s: %w", who.key, err)
		}
	}
	if len(w.Entry) > script.MaxEntry {
		return k, fmt.Errorf("entry has more than %d bytes", script.MaxEntry)
	}
	if k.Params, err = plain(w.Params); err != nil {
		return k, fmt.Errorf("params: %w", err)
	}
	if len(k.Params) > script.MaxParams {
		return k, fmt.Errorf("params have more than %d bytes", script.MaxParams)
	}
	lend, err := policy.ParseNeeds(w.Lend)
	if err != nil {
		return k, fmt.Errorf("lend: %w", err)
	}
	if w.Lend != nil {
		k.Lend = []script.Grant{}
	}
	for _, n := range lend {
		if !n.Action.Reads() {
			return k, fmt.Errorf("lend: %s %s: what is lent can be read, listed, got or queried, and no more", n.Action, n.Path)
		}
		k.Lend = append(k.Lend, script.Grant{Action: n.Action, Path: n.Path})
	}
	if k.Allow, err = policy.ParseNeeds(w.Allow); err != nil {
		return k, fmt.Errorf("allow: %w", err)
	}
	if w.Allow != nil && k.Allow == nil {
		k.Allow = []policy.Need{}
	}
	if w.Limits != "" {
		if k.Limits, err = policy.ParseLimits(w.Limits); err != nil {
			return k, fmt.Errorf("limits: %w", err)
		}
	}
	if k.Before, err = contents("before", w.Before); err != nil {
		return k, err
	}
	if k.Caller, err = contents("caller", w.Caller); err != nil {
		return k, err
	}
	if k.As == k.To && k.Caller != nil {
		return k, errors.New("the caller is the target: write in before what is there")
	}
	if w.Expect != "" {
		if err := k.Want.Code.UnmarshalText([]byte(w.Expect)); err != nil {
			return k, fmt.Errorf("expect: %w", err)
		}
	}
	return k, w.want(&k.Want)
}

func (w caseText) want(want *Want) (err error) {
	if w.Result != nil && w.Matches != nil {
		return errors.New("it has result and matches: one of them says what the result is")
	}
	if w.Result != nil {
		if want.Result, err = value(w.Result); err != nil {
			return fmt.Errorf("result: %w", err)
		}
	}
	if w.Matches != nil {
		re, err := regexp.Compile(*w.Matches)
		if err != nil {
			return fmt.Errorf("matches: %w", err)
		}
		want.Result = &Text{Match: re}
	}
	if want.Result != nil && want.Code != script.Done {
		return fmt.Errorf("what ends as %s has no result: leave it out, or expect \"done\"", want.Code)
	}
	if want.Message != "" && want.Code == script.Done {
		return errors.New("what is done has no message: say in expect how else it ends")
	}
	if w.Log != nil {
		t, err := text(w.Log)
		if err != nil || t.Absent || t.Any {
			return errors.New(`log: want a text, or { matches = "…" }`)
		}
		want.Log = &t
	}
	if want.Denied, err = policy.ParseNeeds(w.Denied); err != nil {
		return fmt.Errorf("denied: %w", err)
	}
	if w.Denied != nil && want.Denied == nil {
		want.Denied = []policy.Need{}
	}
	if w.After == nil {
		return nil
	}
	want.After = map[string]Text{}
	if len(w.After) > maxThings {
		return fmt.Errorf("after names more than %d files and records", maxThings)
	}
	for _, name := range slices.Sorted(maps.Keys(w.After)) {
		if err := checkName(name); err != nil {
			return fmt.Errorf("after: %w", err)
		}
		if want.After[name], err = text(w.After[name]); err != nil {
			return fmt.Errorf("after: %s: %w", name, err)
		}
	}
	return nil
}

// contents reads what is there before: texts, by path or record.
func contents(key string, written map[string]any) (map[string]string, error) {
	if len(written) > maxThings {
		return nil, fmt.Errorf("%s names more than %d files and records", key, maxThings)
	}
	var all map[string]string
	for _, name := range slices.Sorted(maps.Keys(written)) {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		t, err := text(written[name])
		if err == nil && (t.Absent || t.Any || t.Match != nil) {
			err = errors.New(`want the text that is there, or { base64 = "…" }`)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", key, name, err)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[name] = t.Exact
	}
	return all, nil
}

// checkName wants a path or a record's name.
func checkName(name string) error {
	if !strings.HasPrefix(name, "/") {
		collection, key, err := script.SplitRecord(name)
		if err == nil && key == "" {
			err = fmt.Errorf("%q is neither an absolute path nor a record, as in \"/book.txt\" and \"cards/home\"", collection)
		}
		return err
	}
	if name == "/" || path.Clean(name) != name {
		return fmt.Errorf("%q: want the path of a file, without \"..\", \"//\" or a slash at its end", name)
	}
	return script.CheckResource(script.Read, name)
}

// text reads what a file, a record or the log is to be.
func text(v any) (t Text, err error) {
	switch v := v.(type) {
	case string:
		return Text{Exact: v}, nil
	case bool:
		return Text{Absent: !v, Any: v}, nil
	case map[string]any:
		if len(v) != 1 {
			break
		}
		if re, ok := v["matches"].(string); ok {
			t.Match, err = regexp.Compile(re)
			return t, err
		}
		if b64, ok := v["base64"].(string); ok {
			b, err := base64.StdEncoding.DecodeString(b64)
			return Text{Exact: string(b)}, err
		}
	}
	return t, errors.New(`want a text, true, false, { matches = "…" } or { base64 = "…" }`)
}

// value reads what a result is to be: a text as it is, anything else as JSON.
func value(v any) (*Text, error) {
	if s, ok := v.(string); ok {
		return &Text{Exact: s}, nil
	}
	b, err := json.Marshal(v)
	return &Text{JSON: b}, err
}

// plain makes params of what is written: a text as it is, anything else as JSON.
func plain(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []byte(v), nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
