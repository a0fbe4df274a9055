package policy

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/circles-host/circles/host/near"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// File is the text of one policy file.
type File struct {
	Name string // "friends.cedar"
	Text string
}

// Problem is one mistake in the policies of an owner.
type Problem struct {
	File         string
	Line, Column int    // from 1, columns in characters; 0 when the file as a whole is meant
	Source       string // the line, or what is around the column if it is very long
	Message      string
}

func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(graphic(p.File))
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	if source := strings.TrimSpace(p.Source); source != "" {
		b.WriteString("\n\t" + source)
	}
	return b.String()
}

// Problems are all mistakes that were found: what cannot be parsed at all hides
// what follows it in its file.
type Problems []Problem

func (ps Problems) Error() string {
	const shown = 10
	var lines []string
	for i, p := range ps {
		if i == shown {
			lines = append(lines, fmt.Sprintf("and %d more", len(ps)-shown))
			break
		}
		lines = append(lines, p.Error())
	}
	return strings.Join(lines, "\n")
}

// Load reads the *.cedar files of a directory, names that start with a dot
// aside, and parses them. Without such files, or without the directory, the Set
// is empty: it permits nothing. The error is Problems when files are at fault.
//
// Nothing outside of dir is read, whatever links lie in it, so that a message
// cannot quote another file; and nothing but regular files, so that a pipe
// cannot hang it.
func Load(dir string) (*Set, error) {
	read, err := readDir(dir)
	if err != nil {
		return nil, err
	}
	return Parse(read)
}

// settling is how often Load reads a directory again that was changed meanwhile.
const settling = 5

// readDir reads the policy files of dir, and the files that are named besides if
// they are there, as they were at one time.
func readDir(dir string, also ...string) ([]File, error) {
	root, err := os.OpenRoot(dir + "/.") // what is no directory fails at once, a pipe too
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	defer root.Close()
	for attempt := range settling {
		if attempt > 0 {
			time.Sleep(time.Duration(attempt) * 5 * time.Millisecond)
		}
		before, err := list(root, also)
		if err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
		read, err := readFiles(root, before)
		after, listErr := list(root, also)
		if listErr != nil || !slices.Equal(before, after) {
			continue // somebody is saving: what was read may be half of it
		}
		return read, err
	}
	return nil, fmt.Errorf("read policies: %s is being changed all the time; it is read again when that stops", dir)
}

// listed is a file as its directory shows it.
type listed struct {
	name  string
	size  int64
	mode  fs.FileMode
	mtime int64
	err   string
}

// list returns the policy files and the others that are wanted, sorted.
func list(root *os.Root, also []string) ([]listed, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var found []listed
	for _, e := range entries {
		name := e.Name()
		// A leading dot is an editor's: Emacs locks a.cedar with ".#a.cedar".
		if (path.Ext(name) != ".cedar" || name[0] == '.') && !slices.Contains(also, name) {
			continue
		}
		l := listed{name: name}
		if info, err := root.Stat(name); err != nil {
			l.err = err.Error()
		} else {
			l.size, l.mode, l.mtime = info.Size(), info.Mode(), info.ModTime().UnixNano()
		}
		found = append(found, l)
	}
	return found, nil
}

func readFiles(root *os.Root, found []listed) ([]File, error) {
	var problems Problems
	var read []File
	if len(found) > maxFiles {
		return nil, Problems{{Message: fmt.Sprintf("%d policy files, at most %d are read", len(found), maxFiles)}}
	}
	total := 0
	for _, l := range found {
		text, err := readFile(root, l)
		if total += len(text); err == nil && total > maxTotal {
			err = fmt.Errorf("the policy files are larger than %d MiB together", maxTotal>>20)
		}
		if err != nil {
			problems = append(problems, Problem{File: l.name, Message: err.Error()})
			if total > maxTotal {
				break
			}
			continue
		}
		read = append(read, File{l.name, text})
	}
	if problems != nil {
		return nil, problems
	}
	return read, nil
}

func readFile(root *os.Root, l listed) (string, error) {
	switch {
	case l.err != "":
		return "", errors.New(l.err)
	case !l.mode.IsRegular():
		return "", errors.New("is not a regular file")
	}
	// Without O_NONBLOCK a pipe put here a moment ago would never open.
	f, err := root.OpenFile(l.name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", errors.New("is not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return string(text), err
}

// Parse makes a Set of policy texts. A policy's id is its @id annotation, else
// its file's name, "#" and its number in the file, from 1; no two may have the
// same. The error is Problems, of all files.
//
// Every policy is type checked against Schema, so that a misspelt action,
// entity type or attribute is found now, and not by the script that a forbid
// then fails to stop.
func Parse(fileTexts []File) (*Set, error) {
	ordered := slices.SortedFunc(slices.Values(fileTexts), func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	s := &Set{index: index{}}
	version := sha256.New()
	var problems Problems
	seen := make(map[string]Problem)
	for _, f := range ordered {
		fmt.Fprintf(version, "%q %q\n", f.Name, f.Text)
		rules, bad := parseFile(f)
		for i := range bad {
			bad[i].File = f.Name
			bad[i].Message = clip(bad[i].Message)
			if bad[i].Line > 0 {
				bad[i].Source = excerpt(f.Text, bad[i].Line, bad[i].Column)
			}
		}
		problems = append(problems, bad...)
		for _, r := range rules {
			at := Problem{File: f.Name, Line: r.line, Column: r.column, Source: excerpt(f.Text, r.line, r.column)}
			if other, taken := seen[r.id]; taken {
				at.Message = fmt.Sprintf("the id %q is taken by the policy at %s:%d; give one of them another @id",
					r.id, other.File, other.Line)
				problems = append(problems, at)
				continue
			}
			seen[r.id] = at
			s.rules = append(s.rules, r)
		}
		if len(s.rules) > maxPolicies {
			problems = append(problems, Problem{File: f.Name, Message: fmt.Sprintf("there are more than %d policies", maxPolicies)})
			break
		}
	}
	if problems != nil {
		return nil, problems
	}
	s.byID = make(map[string]*rule, len(s.rules))
	for _, r := range s.rules {
		s.index.add(r)
		s.byID[r.id] = r
		s.counts = max(s.counts, r.counts)
		s.args = s.args || r.args
		s.fields = s.fields || r.fields
	}
	s.given = make(map[script.Action]bool, len(given))
	for _, a := range given {
		s.given[a] = !slices.ContainsFunc(s.rules, func(r *rule) bool { return r.decides(a) })
	}
	s.version = script.Digest(version.Sum(nil))
	return s, nil
}

func parseFile(f File) ([]*rule, Problems) {
	whole := func(format string, a ...any) Problems {
		return Problems{{Message: fmt.Sprintf(format, a...)}}
	}
	switch {
	case !printable(f.Name) || len(f.Name) > maxID:
		return nil, whole("a policy file's name must be printable and at most %d bytes long, since it names policies; rename it", maxID)
	case len(f.Text) > maxFile:
		return nil, whole("is larger than %d KiB; split it", maxFile>>10)
	case f.Text == "":
		// What an editor that writes in place leaves for a moment. Were it no
		// policies, the forbids that were in it would be void for that moment.
		return nil, whole("is empty; delete it, or write a comment into it")
	case !utf8.ValidString(f.Text):
		return nil, whole("is not UTF-8 text")
	}
	if strings.HasPrefix(f.Text, "\ufeff") {
		return nil, whole("starts with a byte order mark; save it as UTF-8 without one")
	}
	spans, over := split(f.Text)
	if over != nil {
		return nil, Problems{*over}
	}
	parsed, err := cedar.NewPolicyListFromBytes(f.Name, []byte(f.Text))
	if err != nil {
		return nil, Problems{syntaxProblem(f.Text, err)}
	}
	if len(parsed) != len(spans) {
		// Cedar-go and tokenize do not agree where policies end, so the bounds
		// may not have held; positions certainly do not.
		return nil, whole("has policies that cannot be told apart; write each statement with one semicolon at its end")
	}
	var rules []*rule
	var problems Problems
	for i, p := range parsed {
		r, bad := newRule(f.Name, i+1, p, spans[i])
		problems = append(problems, bad...)
		if r != nil {
			rules = append(rules, r)
		}
	}
	return rules, problems
}

// clip bounds a message, which may quote a word of a MiB, and takes from it what
// could drive a terminal.
func clip(message string) string {
	const most = 400
	if len(message) > most {
		message = message[:most] + "…"
	}
	return graphic(message)
}

// printable reports whether s can be shown on a terminal and in a receipt as it
// is: ids and names reach both.
func printable(s string) bool {
	return s != "" && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) < 0
}

var (
	inputPosition = regexp.MustCompile(`^(?:parser error: )?(?:parse error at )?<input>:(\d+):(\d+):? ?`)
	quotedToken   = regexp.MustCompile(`^"(?:[^"\\]|\\.)*": `)
	wanted        = regexp.MustCompile(`^exact got (.*) want (.*)$`)
)

// syntaxProblem takes an error of cedar-go's parser apart.
func syntaxProblem(text string, err error) Problem {
	m := inputPosition.FindStringSubmatch(err.Error())
	if m == nil {
		// An escape sequence, a number too large: cedar-go does not say where.
		return Problem{Message: "not a Cedar policy: " + strings.TrimPrefix(err.Error(), "parser error: ")}
	}
	line, _ := strconv.Atoi(m[1])
	column, _ := strconv.Atoi(m[2])
	p := Problem{Line: line, Column: column}
	rest := quotedToken.ReplaceAllString(err.Error()[len(m[0]):], "")

	// Cedar-go stands at the token after the one that it did not want.
	tokens := slices.Collect(tokenize(text))
	at, _ := slices.BinarySearchFunc(tokens, p, func(t token, p Problem) int {
		return cmp.Or(cmp.Compare(t.line, p.Line), cmp.Compare(t.column, p.Column))
	})
	if at > 0 && !strings.HasPrefix(rest, "invalid character") {
		if w := wanted.FindStringSubmatch(rest); w != nil {
			if w[1] == "" {
				w[1] = "the end of the file"
				at = len(tokens)
			}
			rest = fmt.Sprintf("expected %s, not %s", w[2], w[1])
		}
		bad := tokens[at-1]
		if strings.HasSuffix(rest, bad.text) || strings.HasPrefix(rest, "invalid primary") || strings.HasPrefix(rest, "expected") {
			p.Line, p.Column = bad.line, bad.column
			if n := near.Name(bad.text, known().names); n != "" {
				rest += fmt.Sprintf(" (did you mean %s?)", n)
			}
		}
	}
	p.Message = "not a Cedar policy: " + rest
	return p
}

// rule is one policy, compiled.
type rule struct {
	id           string
	policy       *cedar.Policy
	file         string
	line, column int
	annotations
	forbids bool
	fixed   *cedar.Policy // the conditions that are settled once the path alone is unknown; see settle
	rest    int           // how many are not
	first   firstly       // what its first condition asks for
	counts  time.Duration // how far back it looks at what was used
	args    bool          // it looks into the params
	fields  bool          // it looks at values that are put, or at what is asked by

	// its scope, by which those are found that may apply
	principal ast.IsPrincipalScopeNode
	action    ast.IsActionScopeNode
	resource  ast.IsResourceScopeNode
}

func newRule(file string, number int, p *cedar.Policy, text span) (*rule, Problems) {
	start := text.tokens[0]
	tree := (*ast.Policy)(p.AST())
	r := &rule{
		id: file + "#" + strconv.Itoa(number), policy: p, file: file, line: start.line, column: start.column,
		principal: tree.Principal, action: tree.Action, resource: tree.Resource,
		forbids: p.Effect() == cedar.Forbid,
	}
	r.fixed, r.rest = settle(tree)
	r.first = firstOf(tree)
	r.counts = countsOf(tree)
	r.args, r.fields = looksAtArgs(tree), looksAtFields(tree)
	var problems Problems
	report := func(at token, format string, a ...any) {
		problems = append(problems, Problem{Line: at.line, Column: at.column, Message: fmt.Sprintf(format, a...)})
	}
	for _, a := range tree.Annotations {
		if err := r.annotate(string(a.Key), string(a.Value), tree); err != nil {
			report(text.find(string(a.Key)), "%v", err)
		}
	}
	for uid := range entities(tree) {
		if message := wrongID(uid); message != "" {
			report(text.find(string(uid.ID)), "%s", message)
		}
	}
	for _, message := range typeErrors(tree) {
		at := start
		if m := backquoted.FindStringSubmatch(message); m != nil {
			name := m[1]
			if kind, id, ok := strings.Cut(name, "::"); ok { // Action::"raed"
				if name = kind; kind == string(typeAction) {
					name = strings.Trim(id, `"`)
				}
			}
			name = strings.Trim(name, `"`) // of a tag
			at = text.find(name)
			if strings.HasPrefix(message, unsafeTag) {
				message = fmt.Sprintf("tag %q may be absent: ask first, as in context.args.numbers.hasTag(%q) && …", name, name)
			} else if strings.HasPrefix(message, unsafeAccess) {
				message = strings.TrimPrefix(message, unsafeAccess) + fmt.Sprintf(" may be absent: ask first, as in principal has %s && …", name)
			} else if n := near.Name(name, known().names); n != "" {
				message += fmt.Sprintf(" (did you mean %s?)", n)
			}
		}
		report(at, "%s", message)
	}
	if problems != nil {
		return nil, problems
	}
	return r, nil
}

var backquoted = regexp.MustCompile("`([^`]+)`")

// find returns the first token that is word, or a string of it, or the last part
// of a name that ends in it; else the policy's first.
func (s span) find(word string) token {
	if i := strings.LastIndexByte(word, '.'); i >= 0 {
		word = word[i+1:]
	}
	for _, t := range s.tokens {
		if strings.Trim(t.text, `"`) == word {
			return t
		}
	}
	return s.tokens[0]
}

// What the type checker says, where we say it otherwise.
const (
	unsafeAccess = "unable to guarantee safety of access to optional "
	unsafeTag    = "unable to guarantee safety of access to tag "
	noAction     = "unable to find an applicable action given the policy scope constraints"
)

// typeErrors checks a policy against the schema. The checker is experimental,
// and policies are anybody's text: should it panic, the policy is at fault.
func typeErrors(tree *ast.Policy) (messages []string) {
	defer func() {
		if r := recover(); r != nil {
			messages = []string{fmt.Sprintf("the type checker cannot cope with this policy (%v); write it more simply", r)}
		}
	}()
	err := known().validator.Policy("", tree)
	if err == nil {
		return nil
	}
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	for _, err := range errs {
		message := err.Error()
		if message == noAction {
			if len(errs) > 1 {
				continue // it follows from the others
			}
			message = "can never apply: submit is done to a Context, and so are clock, random and log, read, list, write and remove to a Path, get, put and delete to a Record, query to a Collection, and send to a Peer"
		}
		if what, action, ok := strings.Cut(message, " in context for "); ok {
			// Said again for every action that the policy is about.
			if slices.ContainsFunc(messages, func(m string) bool { return strings.HasPrefix(m, what+" in context") }) {
				continue
			}
			message = what + " in context for " + action
		}
		const most = 20
		if !slices.Contains(messages, message) && len(messages) < most {
			messages = append(messages, message)
		}
	}
	return messages
}

// decides reports whether r may keep a given action from somebody: by forbidding
// it, or by failing. A permit without conditions does neither.
func (r *rule) decides(a script.Action) bool {
	if !mayMatch(actionUID(a), r.action) || !r.forbids && r.rest == 0 && len(r.policy.AST().Conditions) == 0 {
		return false
	}
	switch scope := r.resource.(type) {
	case ast.ScopeTypeIs:
		return scope.Type == typeContext
	case ast.ScopeTypeEq:
		return scope.Entity.Type == typeContext
	case ast.ScopeTypeIn:
		return scope.Entity.Type == typeContext
	case ast.ScopeTypeIsIn:
		return scope.Type == typeContext
	}
	return true
}

// entities yields the entities that a policy names.
func entities(tree *ast.Policy) func(yield func(types.EntityUID) bool) {
	return func(yield func(types.EntityUID) bool) {
		more := true
		take := func(uid types.EntityUID) { more = more && yield(uid) }
		scope := func(s ast.IsScopeNode) {
			switch s := s.(type) {
			case ast.ScopeTypeEq:
				take(s.Entity)
			case ast.ScopeTypeIn:
				take(s.Entity)
			case ast.ScopeTypeIsIn:
				take(s.Entity)
			case ast.ScopeTypeInSet:
				for _, uid := range s.Entities {
					take(uid)
				}
			}
		}
		scope(tree.Principal)
		scope(tree.Action)
		scope(tree.Resource)
		for _, c := range tree.Conditions {
			ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
				if v, ok := n.(ast.NodeValue); ok {
					if uid, ok := v.Value.(types.EntityUID); ok {
						take(uid)
					}
				}
				return more
			})
		}
	}
}

// wrongID explains why an entity can never be the one that is asked about. A
// forbid of Path::"/secret/" would be silently void.
func wrongID(uid types.EntityUID) string {
	id := string(uid.ID)
	switch uid.Type {
	case typePath:
		switch {
		case id == "":
			return `a path is absolute: Path::"/" is the whole context`
		case cleanPath(id) != "":
			return fmt.Sprintf("Path::%q matches nothing: %s; write Path::%q", id, cleanPath(id), path.Clean("/"+id))
		}
	case typeCollection:
		if err := script.CheckCollection(id); err != nil {
			return fmt.Sprintf("Collection::%q matches nothing: %v", id, err)
		}
	case typeRecord:
		_, key, err := script.SplitRecord(id)
		if err == nil && key == "" {
			err = fmt.Errorf(`a record is named by its collection and its key; all of them are resource in Collection::%q`, id)
		}
		if err != nil {
			return fmt.Sprintf("Record::%q matches nothing: %v", id, err)
		}
	case typeModule:
		if wrong := checkModule(id); wrong != "" {
			return fmt.Sprintf("Module::%q matches nothing: %s", id, wrong)
		}
	case typePeer, typeContext:
		if _, err := peer.ParseID(id); err != nil {
			return fmt.Sprintf("%s::%q matches nothing: %v; \"circles-host peer list\" shows the ids", uid.Type, id, err)
		}
	case typeStrings, typeNumbers, typeBooleans:
		return "params have no id: ask context.args, as in context.args.numbers"
	case typeStringFields, typeNumberFields, typeBooleanFields:
		return "values have no id: ask context.value, as in context.value.strings"
	case typeCircle:
		if !printable(id) {
			return "a circle's name is printable text"
		}
	}
	return ""
}

// wrongResource says what is wrong with name as that of something to which action
// is done, or "".
func wrongResource(action script.Action, name string) string {
	switch {
	case action == Call:
		return checkModule(name)
	case action == script.Send:
		return wrongPeer(name)
	case !action.OfRecords():
		return cleanPath(name)
	}
	if err := script.CheckResource(action, name); err != nil {
		return err.Error()
	}
	return ""
}

// wrongPeer says what is wrong with s as what a peer is called by, or "".
func wrongPeer(s string) string {
	if strings.HasPrefix(s, "did:") {
		if _, err := peer.ParseID(s); err != nil {
			return err.Error()
		}
	} else if _, err := peer.ParseName(s); err != nil {
		return err.Error()
	}
	return ""
}

// cleanPath says what is wrong with p as the one name of a file, or "".
func cleanPath(p string) string {
	switch {
	case p == "" || p[0] != '/':
		return "not an absolute path"
	case len(p) > script.MaxPath:
		return fmt.Sprintf("longer than %d bytes", script.MaxPath)
	case strings.IndexByte(p, 0) >= 0:
		return "has a NUL in it"
	case path.Clean(p) != p:
		return `has "..", "." or a slash too many in it`
	case strings.Count(p, "/") > maxDepth:
		return fmt.Sprintf("more than %d directories deep", maxDepth)
	}
	return ""
}

// maxDepth bounds what one decision walks through.
const maxDepth = 256
