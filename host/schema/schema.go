// Package schema binds collections of records to JSON Schemas: it reads the
// schemas of a context's owner, and says what is wrong with a value.
//
//	s, err := schema.Parse("bookings.json", text)
//	value, err := s.Check(ctx, []byte(`{"seats": "two"}`))   // *Violations: "/seats: is a string, and must be an integer"
//
// # What a schema is
//
// One file for each collection, schema/COLLECTION.json, in JSON Schema 2020-12:
//
//	{
//	  "type": "object",
//	  "required": ["starts"],
//	  "properties": {
//	    "starts": {"type": "string", "format": "date-time"},
//	    "room":   {"enum": ["red", "blue"]}
//	  },
//	  "x-circles-index": [["/starts"], ["/room", "/starts"]]
//	}
//
// The keywords of the specification mean what it says, with these limits, which
// are there so that whoever writes a schema, and whoever sends a value, cannot have
// the host read, compute or remember without end:
//
//   - The document stands alone: $ref begins with "#", and "$id" is there at most
//     once, at the top. So no other document is ever fetched, and a $dynamicRef
//     goes where a $ref would.
//   - A keyword that the specification does not have is refused, unless it begins
//     with "x-": a mistyped one would silently check nothing.
//   - "format" is checked, for the formats in Formats; another is refused.
//     The contents of strings (contentEncoding, contentSchema) are not checked, as
//     in the specification.
//   - Patterns are RE2's, which take no longer than their length times that of the
//     string.
//   - A schema has at most 256 KiB, 2,000 schemas in it, and no reference that leads
//     back to itself without going deeper into the value. A value has at
//     most 100,000 parts and is nested at most 128 deep. To check one takes at most
//     maxWork steps, whatever the schema says: a value that would take more is
//     refused with that as the reason.
//
// Three keywords are our own, and stand at the top. "x-circles-index" lists the
// indexes that the collection has; each is a list of JSON Pointers (RFC 6901) to the
// fields that it is sorted by. "x-circles-stored": "as-is" has the schema taken over
// although records that are there already may violate it; "checked", the default,
// refuses it then. Any other that begins with "x-circles-" is refused.
//
// # Whose work it is
//
// github.com/santhosh-tekuri/jsonschema decides what a schema is, by the metaschemas,
// and what is of a format. Evaluating is ours: that library's evaluation cannot be
// bounded or interrupted. A fuzz target holds both against each other.
package schema

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/circles-host/circles/host/near"
	"github.com/circles-host/circles/host/script"
)

const (
	maxFile     = 256 << 10 // bytes of a schema; the largest that people write by hand have some 100 KiB
	maxSchemas  = 2000      // in a document: the library's compiler takes their square, a tenth of a second
	maxPattern  = 1000      // bytes of a pattern
	maxProgram  = 5000      // instructions of a compiled one: matching takes that many steps a byte
	maxPrograms = 50_000    // of all patterns together
	maxIndexes  = 8         // each has to be written with every record
	maxPointer  = 200       // bytes of a field's pointer
)

// MaxFields is how many fields an index, or an order, has.
const MaxFields = 4

// The URL of the only dialect that is read.
const dialect = "https://json-schema.org/draft/2020-12/schema"

// Error is a mistake in a schema.
type Error struct {
	File         string // "bookings.json"
	Line, Column int    // from 1, columns in characters; 0 when the file as a whole is meant
	Pointer      string // into the document, "" for its top
	Err          error
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where += fmt.Sprintf(":%d:%d", e.Line, e.Column)
	}
	if e.Pointer != "" {
		where += ": " + shorten(e.Pointer)
	}
	return fmt.Sprintf("%s: %v", where, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Schema is what a collection is bound to. It does not change, and is safe for
// concurrent use.
type Schema struct {
	text    string
	digest  script.Digest
	root    *rule
	indexes []Index
	stored  bool // as-is: what is there may stay
	work    int  // that a check may take
}

// Index is what records are sorted by: fields of their values.
type Index struct{ Fields []Pointer }

// String shows an index as it is declared.
func (x Index) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, f := range x.Fields {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(f.String()))
	}
	return b.String() + "]"
}

// Text is the document as it was parsed.
func (s *Schema) Text() string { return s.text }

// Digest is the SHA-256 of the document.
func (s *Schema) Digest() script.Digest { return s.digest }

// Indexes are those that the schema declares, in its order.
func (s *Schema) Indexes() []Index { return s.indexes }

// KeepsStored reports whether records that are there already may violate it.
func (s *Schema) KeepsStored() bool { return s.stored }

// Parse reads a schema. File is its name, for the errors, each of which is an
// *Error.
func Parse(file, text string) (*Schema, error) {
	if len(text) > maxFile {
		return nil, &Error{File: file, Err: fmt.Errorf("it has %d bytes, and a schema has at most %d: put what it lists into records of its own", len(text), maxFile)}
	}
	b := &builder{file: file, text: text, at: map[string]*rule{}, anchors: map[string]string{}, keywords: keywords()}
	v, err := readJSON(text)
	var wrong *syntaxError
	if errors.As(err, &wrong) {
		return nil, b.fail(wrong.at, "", wrong.err)
	}
	s := &Schema{text: text, digest: sha256.Sum256([]byte(text)), work: maxWork}
	if v.kind != object {
		return nil, b.fail(v.at, "", errors.New("a schema is a JSON object here, so that it can say more later; {} takes every JSON value"))
	}
	if s.root, err = b.schema(&v, ""); err != nil {
		return nil, err
	}
	if err := b.references(); err != nil {
		return nil, err
	}
	if err := b.acyclic(); err != nil {
		return nil, err
	}
	if err := b.byLibrary(&v); err != nil {
		return nil, err
	}
	if s.indexes, err = b.indexes(&v, s.root); err != nil {
		return nil, err
	}
	if stored := v.member("x-circles-stored"); stored != nil {
		switch stored.text {
		case "as-is":
			s.stored = true
		case "checked":
		default:
			return nil, b.fail(stored.at, "/x-circles-stored", errors.New(`it is "checked": records that are there must be valid, or "as-is": they may stay as they are`))
		}
	}
	return s, nil
}

// rule is one schema of a document, ready to be evaluated. Nil and empty fields
// demand nothing.
type rule struct {
	pointer string
	at      int
	never   bool // the schema false
	always  bool // true, {} and those that only tell

	types     kind
	whole     bool // an integer is a number that is whole
	enum      []string
	named     string  // what is listed, for people
	listed    []Value // of either, as they are written
	only      *string // const
	onlyNamed string
	ref       *rule

	allOf, anyOf, oneOf []*rule
	not, when           *rule
	then, otherwise     *rule

	least, most  *decimal // inclusive
	above, below *decimal
	multiple     *decimal
	shortest     int
	longest      int // -1: none
	pattern      *pattern
	format       *jsonschema.Format
	fewestItems  int
	mostItems    int
	unique       bool
	prefix       []*rule
	items        *rule
	contains     *rule
	fewestThat   int // that contains holds for
	mostThat     int
	fewest       int // properties
	mostMembers  int
	required     []string
	needs        []need
	properties   map[string]*rule
	patterns     []patternRule
	additional   *rule
	names        *rule
	restMembers  *rule // unevaluatedProperties
	restItems    *rule
	refText      string
	refAt        int
	order        []string // of properties, as they are written
	title, about string
}

type need struct {
	name     string
	required []string
	schema   *rule
}

type patternRule struct {
	*pattern
	rule *rule
}

type pattern struct {
	*regexp.Regexp
	size int // instructions
}

// builder reads the schemas of one document.
type builder struct {
	file, text string
	at         map[string]*rule // by pointer
	all        []*rule
	anchors    map[string]string // pointers
	programs   int
	keywords   map[string]keyword
}

func (b *builder) fail(at int, pointer string, err error) error {
	line, column := position(b.text, at)
	return &Error{b.file, line, column, pointer, err}
}

// keyword reads one keyword's value into a rule. The pointer is that of the value.
type keyword = func(b *builder, r *rule, v *Value, pointer string) error

// keywords are those of 2020-12. (No variable: they refer to each other.)
func keywords() map[string]keyword {
	return map[string]keyword{
		"$schema": func(b *builder, r *rule, v *Value, pointer string) error {
			if strings.TrimSuffix(v.text, "#") != dialect {
				return b.fail(v.at, pointer, fmt.Errorf("%s is read here, and nothing else: leave $schema out, or set it to that", dialect))
			}
			return nil
		},
		"$id": func(b *builder, r *rule, v *Value, pointer string) error {
			if r.pointer != "" {
				return b.fail(v.at, pointer, errors.New("a $id makes a document of its own, and here is one only: use $anchor, or put it into $defs"))
			}
			if v.kind != text || strings.Contains(v.text, "#") {
				return b.fail(v.at, pointer, errors.New("it is a URL without a fragment"))
			}
			return nil
		},
		"$anchor":        anchor,
		"$dynamicAnchor": anchor,
		"$ref":           reference,
		"$dynamicRef":    reference,
		"$comment":       told,
		"title": func(b *builder, r *rule, v *Value, _ string) error {
			r.title = v.text
			return nil
		},
		"description": func(b *builder, r *rule, v *Value, _ string) error {
			r.about = v.text
			return nil
		},
		"default": told, "deprecated": told, "readOnly": told, "writeOnly": told, "examples": told,
		"contentEncoding": told, "contentMediaType": told,
		"contentSchema": func(b *builder, r *rule, v *Value, pointer string) error {
			_, err := b.schema(v, pointer)
			return err
		},
		"$defs": func(b *builder, r *rule, v *Value, pointer string) error {
			_, _, err := b.schemasOf(v, pointer)
			return err
		},

		"allOf": many(func(r *rule) *[]*rule { return &r.allOf }),
		"anyOf": many(func(r *rule) *[]*rule { return &r.anyOf }),
		"oneOf": many(func(r *rule) *[]*rule { return &r.oneOf }),
		"not":   one(func(r *rule) **rule { return &r.not }),
		"if":    one(func(r *rule) **rule { return &r.when }),
		"then":  one(func(r *rule) **rule { return &r.then }),
		"else":  one(func(r *rule) **rule { return &r.otherwise }),

		"prefixItems":           many(func(r *rule) *[]*rule { return &r.prefix }),
		"items":                 one(func(r *rule) **rule { return &r.items }),
		"contains":              one(func(r *rule) **rule { return &r.contains }),
		"additionalProperties":  one(func(r *rule) **rule { return &r.additional }),
		"propertyNames":         one(func(r *rule) **rule { return &r.names }),
		"unevaluatedItems":      one(func(r *rule) **rule { return &r.restItems }),
		"unevaluatedProperties": one(func(r *rule) **rule { return &r.restMembers }),
		"properties": func(b *builder, r *rule, v *Value, pointer string) (err error) {
			r.properties, r.order, err = b.schemasOf(v, pointer)
			return err
		},
		"patternProperties": func(b *builder, r *rule, v *Value, pointer string) error {
			schemas, order, err := b.schemasOf(v, pointer)
			for i, name := range order {
				p, wrong := b.pattern(name)
				if wrong != nil {
					return b.fail(v.members[i].at, join(pointer, name), wrong)
				}
				r.patterns = append(r.patterns, patternRule{p, schemas[name]})
			}
			return err
		},
		"dependentSchemas": func(b *builder, r *rule, v *Value, pointer string) error {
			schemas, order, err := b.schemasOf(v, pointer)
			for _, name := range order {
				r.needs = append(r.needs, need{name: name, schema: schemas[name]})
			}
			return err
		},
		"dependentRequired": func(b *builder, r *rule, v *Value, pointer string) error {
			if v.kind != object {
				return b.fail(v.at, pointer, errors.New("it is an object of lists of names"))
			}
			for i := range v.members {
				m := &v.members[i]
				names, err := b.texts(&m.value, join(pointer, m.name))
				if err != nil {
					return err
				}
				r.needs = append(r.needs, need{name: m.name, required: names})
			}
			return nil
		},

		"type": func(b *builder, r *rule, v *Value, pointer string) error {
			names := []Value{*v}
			if v.kind == array {
				names = v.items
			}
			integer := false
			for i := range names {
				name := names[i].text
				is := kind(0)
				for k, n := range kindNames {
					if n == name {
						is = k
					}
				}
				switch {
				case names[i].kind == text && name == "integer":
					integer = true
				case names[i].kind == text && is != 0:
					r.types |= is
				default:
					all := []string{"null", "boolean", "number", "integer", "string", "array", "object"}
					return b.fail(names[i].at, pointer, fmt.Errorf("it is one of %s, or a list of them%s", strings.Join(all, ", "), meant(name, all)))
				}
			}
			if integer && r.types&number == 0 {
				r.types |= number
				r.whole = true
			}
			return nil
		},
		"enum": func(b *builder, r *rule, v *Value, pointer string) error {
			if v.kind != array || len(v.items) == 0 {
				return b.fail(v.at, pointer, errors.New("it is a list of at least one value"))
			}
			r.enum, r.listed = listed(r, v.items), v.items
			return nil
		},
		"const": func(b *builder, r *rule, v *Value, _ string) error {
			only := v.canonicalText()
			r.only, r.onlyNamed, r.listed = &only, v.short(), []Value{*v}
			return nil
		},
		"multipleOf": func(b *builder, r *rule, v *Value, pointer string) error {
			d, err := b.number(v, pointer)
			if err == nil && (d.negative || d.digits == "") {
				return b.fail(v.at, pointer, errors.New("it is a number above 0"))
			}
			r.multiple = d
			return err
		},
		"maximum":          bound(func(r *rule) **decimal { return &r.most }),
		"exclusiveMaximum": bound(func(r *rule) **decimal { return &r.below }),
		"minimum":          bound(func(r *rule) **decimal { return &r.least }),
		"exclusiveMinimum": bound(func(r *rule) **decimal { return &r.above }),
		"maxLength":        count(func(r *rule) *int { return &r.longest }),
		"minLength":        count(func(r *rule) *int { return &r.shortest }),
		"maxItems":         count(func(r *rule) *int { return &r.mostItems }),
		"minItems":         count(func(r *rule) *int { return &r.fewestItems }),
		"maxContains":      count(func(r *rule) *int { return &r.mostThat }),
		"minContains":      count(func(r *rule) *int { return &r.fewestThat }),
		"maxProperties":    count(func(r *rule) *int { return &r.mostMembers }),
		"minProperties":    count(func(r *rule) *int { return &r.fewest }),
		"uniqueItems": func(b *builder, r *rule, v *Value, pointer string) error {
			if v.kind != boolean {
				return b.fail(v.at, pointer, errors.New("it is true or false"))
			}
			r.unique = v.truth
			return nil
		},
		"required": func(b *builder, r *rule, v *Value, pointer string) (err error) {
			r.required, err = b.texts(v, pointer)
			return err
		},
		"pattern": func(b *builder, r *rule, v *Value, pointer string) error {
			if v.kind != text {
				return b.fail(v.at, pointer, errors.New("it is a regular expression"))
			}
			p, err := b.pattern(v.text)
			if err != nil {
				return b.fail(v.at, pointer, err)
			}
			r.pattern = p
			return nil
		},
		"format": func(b *builder, r *rule, v *Value, pointer string) error {
			f := formats()[v.text]
			if v.kind != text || f == nil {
				return b.fail(v.at, pointer, fmt.Errorf("no such format: it is one of %s%s", strings.Join(Formats(), ", "), meant(v.text, Formats())))
			}
			r.format = f
			return nil
		},
	}
}

// elsewhere are keywords of other drafts, and what to write instead.
var elsewhere = map[string]string{
	"definitions":      `write "$defs"`,
	"dependencies":     `write "dependentRequired" or "dependentSchemas"`,
	"additionalItems":  `write "prefixItems" and "items"`,
	"id":               `write "$id"`,
	"$recursiveRef":    `write "$dynamicRef"`,
	"$recursiveAnchor": `write "$dynamicAnchor"`,
	"$vocabulary":      "it belongs into a metaschema",
}

var ours = []string{"x-circles-index", "x-circles-stored"}

func told(*builder, *rule, *Value, string) error { return nil }

func anchor(b *builder, r *rule, v *Value, pointer string) error {
	if v.kind != text || v.text == "" {
		return b.fail(v.at, pointer, errors.New("it is a name"))
	}
	if at, ok := b.anchors[v.text]; ok && at != r.pointer {
		return b.fail(v.at, pointer, fmt.Errorf("the anchor %s is there twice", quote(v.text)))
	}
	b.anchors[v.text] = r.pointer
	return nil
}

func reference(b *builder, r *rule, v *Value, pointer string) error {
	switch {
	case v.kind != text || v.text == "":
		return b.fail(v.at, pointer, errors.New(`it is a reference, such as "#/$defs/name"`))
	case !strings.HasPrefix(v.text, "#"):
		return b.fail(v.at, pointer, fmt.Errorf(`%s is another document, and none is read: copy what you need into "$defs", and write "#/$defs/…"`, quote(v.text)))
	case r.ref != nil || r.refText != "":
		return b.fail(v.at, pointer, errors.New("$ref and $dynamicRef in one schema: put them into two, in allOf"))
	}
	r.refText, r.refAt = v.text, v.at
	return nil
}

func one(field func(*rule) **rule) keyword {
	return func(b *builder, r *rule, v *Value, pointer string) (err error) {
		*field(r), err = b.schema(v, pointer)
		return err
	}
}

func many(field func(*rule) *[]*rule) keyword {
	return func(b *builder, r *rule, v *Value, pointer string) error {
		if v.kind != array || len(v.items) == 0 {
			return b.fail(v.at, pointer, errors.New("it is a list of at least one schema"))
		}
		for i := range v.items {
			s, err := b.schema(&v.items[i], join(pointer, strconv.Itoa(i)))
			if err != nil {
				return err
			}
			*field(r) = append(*field(r), s)
		}
		return nil
	}
}

func bound(field func(*rule) **decimal) keyword {
	return func(b *builder, r *rule, v *Value, pointer string) (err error) {
		*field(r), err = b.number(v, pointer)
		return err
	}
}

func count(field func(*rule) *int) keyword {
	return func(b *builder, r *rule, v *Value, pointer string) error {
		d := decimalOf(v.text)
		if v.kind != number || d.negative || !d.integer() {
			return b.fail(v.at, pointer, errors.New("it is a whole number, from 0"))
		}
		n, err := strconv.Atoi(d.digits + strings.Repeat("0", d.exponent))
		if d.digits == "" {
			n, err = 0, nil
		}
		if err != nil {
			n = math.MaxInt
		}
		*field(r) = n
		return nil
	}
}

func (b *builder) number(v *Value, pointer string) (*decimal, error) {
	if v.kind != number {
		return nil, b.fail(v.at, pointer, errors.New("it is a number"))
	}
	d := decimalOf(v.text)
	return &d, nil
}

func (b *builder) texts(v *Value, pointer string) ([]string, error) {
	if v.kind != array {
		return nil, b.fail(v.at, pointer, errors.New("it is a list of names"))
	}
	var names []string
	for i := range v.items {
		if v.items[i].kind != text {
			return nil, b.fail(v.items[i].at, pointer, errors.New("it is a list of names"))
		}
		names = append(names, v.items[i].text)
	}
	return names, nil
}

// listed returns canonical texts of values, and notes what they are for people.
func listed(r *rule, values []Value) []string {
	all := make([]string, len(values))
	var shown []string
	for i := range values {
		all[i] = values[i].canonicalText()
		if i < 8 {
			shown = append(shown, values[i].short())
		}
	}
	r.named = strings.Join(shown, ", ")
	if len(values) > len(shown) {
		r.named += fmt.Sprintf(" and %d more", len(values)-len(shown))
	}
	slices.Sort(all)
	return all
}

// short shows a value in a message.
func (v *Value) short() string {
	switch v.kind {
	case text:
		return quote(v.text)
	case number:
		return shorten(v.text)
	case boolean:
		return strconv.FormatBool(v.truth)
	case null:
		return "null"
	}
	return "an " + kindNames[v.kind]
}

func (b *builder) pattern(in string) (*pattern, error) {
	if len(in) > maxPattern {
		return nil, fmt.Errorf("the pattern has %d bytes, and at most %d are read", len(in), maxPattern)
	}
	parsed, err := syntax.Parse(in, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("%w (patterns are RE2's: without look-around and back-references)", err)
	}
	// Before it is compiled: a repetition of repetitions is short to write.
	size := instructions(parsed)
	if size > maxProgram {
		return nil, fmt.Errorf("the pattern %s takes too long: its repetitions come to %d steps for each character, and at most %d are allowed", quote(in), size, maxProgram)
	}
	if b.programs += size; b.programs > maxPrograms {
		return nil, fmt.Errorf("the patterns of the schema come to more than %d steps for each character", maxPrograms)
	}
	re, err := regexp.Compile(in)
	if err != nil {
		return nil, err
	}
	return &pattern{re, size}, nil
}

// instructions is about how large a program a pattern becomes; at most some more
// than maxProgram.
func instructions(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral || re.Op == syntax.OpCharClass {
		n = max(1, len(re.Rune)/2)
	}
	for _, sub := range re.Sub {
		n = min(n+instructions(sub), maxProgram+1)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, maxProgram+1)
}

// schema reads one schema.
func (b *builder) schema(v *Value, pointer string) (*rule, error) {
	r := &rule{pointer: pointer, at: v.at, longest: -1, mostItems: -1, mostThat: -1, fewestThat: -1, mostMembers: -1}
	if len(b.all) == maxSchemas {
		return nil, b.fail(v.at, pointer, fmt.Errorf("there are more than %d schemas in it", maxSchemas))
	}
	b.at[pointer] = r
	b.all = append(b.all, r)
	switch v.kind {
	case boolean:
		r.never, r.always = !v.truth, v.truth
		return r, nil
	case object:
	default:
		return nil, b.fail(v.at, pointer, errors.New("a schema is an object, true or false"))
	}
	for i := range v.members {
		m := &v.members[i]
		read := b.keywords[m.name]
		within := join(pointer, m.name)
		if read == nil {
			if strings.HasPrefix(m.name, "x-") && (!strings.HasPrefix(m.name, "x-circles-") || pointer == "" && slices.Contains(ours, m.name)) {
				continue
			}
			why := fmt.Errorf("there is no keyword %s in JSON Schema 2020-12%s; names of your own begin with x-", quote(m.name), meant(m.name, slices.Concat(ours, slices.Sorted(maps.Keys(b.keywords)))))
			if hint := elsewhere[m.name]; hint != "" {
				why = fmt.Errorf("%s is not of JSON Schema 2020-12: %s", quote(m.name), hint)
			} else if slices.Contains(ours, m.name) {
				why = fmt.Errorf("%s stands at the top of the document", m.name)
			}
			return nil, b.fail(m.at, within, why)
		}
		if err := read(b, r, &m.value, within); err != nil {
			return nil, err
		}
	}
	if r.contains != nil && r.fewestThat < 0 {
		r.fewestThat = 1
	}
	return r, nil
}

func (b *builder) schemasOf(v *Value, pointer string) (map[string]*rule, []string, error) {
	if v.kind != object {
		return nil, nil, b.fail(v.at, pointer, errors.New("it is an object of schemas, by name"))
	}
	all := make(map[string]*rule, len(v.members))
	var order []string
	for i := range v.members {
		m := &v.members[i]
		s, err := b.schema(&m.value, join(pointer, m.name))
		if err != nil {
			return nil, nil, err
		}
		all[m.name] = s
		order = append(order, m.name)
	}
	return all, order, nil
}

// references finds what the schemas refer to.
func (b *builder) references() error {
	for _, r := range b.all {
		if r.refText == "" {
			continue
		}
		fragment := r.refText[1:]
		pointer, err := unescape(fragment)
		if fragment != "" && !strings.HasPrefix(fragment, "/") {
			at, ok := b.anchors[fragment]
			if !ok {
				names := make([]string, 0, len(b.anchors))
				for name := range b.anchors {
					names = append(names, "#"+name)
				}
				slices.Sort(names)
				return b.fail(r.refAt, r.pointer, fmt.Errorf("there is no anchor %s%s", quote(fragment), meant(r.refText, names)))
			}
			pointer = at
		}
		if r.ref = b.at[pointer]; r.ref == nil || err != nil {
			names := make([]string, 0, len(b.at))
			for p := range b.at {
				names = append(names, "#"+p)
			}
			slices.Sort(names)
			return b.fail(r.refAt, r.pointer, fmt.Errorf("there is no schema at %s%s", quote(r.refText), meant(r.refText, names)))
		}
	}
	return nil
}

// inPlace are the schemas that are evaluated on the same value as r.
func (r *rule) inPlace() []*rule {
	all := slices.Concat(r.allOf, r.anyOf, r.oneOf)
	for _, n := range r.needs {
		all = append(all, n.schema)
	}
	all = append(all, r.ref, r.not, r.when, r.then, r.otherwise)
	return slices.DeleteFunc(all, func(r *rule) bool { return r == nil })
}

// acyclic refuses references by which a value would be checked for ever. It is also
// what bounds how deep an evaluation goes.
func (b *builder) acyclic() error {
	const (
		under = 1
		done  = 2
	)
	state := map[*rule]int{}
	var visit func(r *rule) error
	visit = func(r *rule) error {
		state[r] = under
		for _, s := range r.inPlace() {
			switch state[s] {
			case under:
				return b.fail(r.at, r.pointer, fmt.Errorf("%s leads back to itself without going deeper into the value, so that checking one would never end", quote("#"+s.pointer)))
			case done:
			default:
				if err := visit(s); err != nil {
					return err
				}
			}
		}
		state[r] = done
		return nil
	}
	for _, r := range b.all {
		if state[r] == 0 {
			if err := visit(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// unescape reads the JSON Pointer of a URI fragment.
func unescape(fragment string) (string, error) {
	if !strings.Contains(fragment, "%") {
		return fragment, nil
	}
	var b strings.Builder
	for i := 0; i < len(fragment); i++ {
		if fragment[i] != '%' {
			b.WriteByte(fragment[i])
			continue
		}
		if i+2 >= len(fragment) {
			return "", errors.New("a percent sign takes two hexadecimal digits")
		}
		c, err := strconv.ParseUint(fragment[i+1:i+3], 16, 8)
		if err != nil {
			return "", err
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}

// join is the pointer to a member of what pointer points to.
func join(pointer, name string) string {
	return pointer + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// shorten bounds what a message repeats of a pointer or a number.
func shorten(s string) string {
	const most = 120
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(strings.Map(printable, s), "�")
}

// meant is a hint at the nearest name, or "".
func meant(s string, names []string) string {
	best := near.Name(s, names)
	if best == "" {
		return ""
	}
	return "; did you mean " + quote(best) + "?"
}
