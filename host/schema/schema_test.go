package schema_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/circles-host/circles/host/schema"
)

func parse(t *testing.T, text string) *schema.Schema {
	t.Helper()
	s, err := schema.Parse("s.json", text)
	if err != nil {
		t.Fatalf("parse %.200s: %v", text, err)
	}
	return s
}

func TestCheck(t *testing.T) {
	const booking = `{
	  "type": "object", "required": ["starts", "room"], "additionalProperties": false,
	  "properties": {
	    "starts": {"type": "string", "format": "date-time"},
	    "room": {"enum": ["red", "blue"]},
	    "seats": {"type": "integer", "minimum": 1, "maximum": 12},
	    "guests": {"type": "array", "items": {"$ref": "#/$defs/guest"}, "uniqueItems": true, "maxItems": 3},
	    "note": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]}
	  },
	  "$defs": {"guest": {"type": "string", "pattern": "^[a-z]+$"}}
	}`
	for _, test := range []struct{ schema, value, want string }{
		{booking, `{"starts": "2026-11-23T10:00:00Z", "room": "red", "seats": 2, "guests": ["bob"], "note": null}`, ""},
		{booking, `{}`, "/starts: is missing\n/room: is missing"},
		{booking, `[]`, ": is an array, and must be an object"},
		{booking, `{"starts": "noon", "room": "green", "seats": 2.5, "guests": ["Bob", 7, "eve", "eve"], "note": "long enough", "seat": 1}`,
			"/starts: is \"noon\", and must be a valid date-time\n" +
				"/room: is \"green\", and must be one of \"red\", \"blue\"\n" +
				"/seats: is the number 2.5, and must be an integer\n" +
				"/guests: has 4 items, and must have at most 3\n" +
				"/guests: has equal items, 2 and 3, and must have each once\n" +
				"/guests/0: is \"Bob\", and must match the pattern ^[a-z]+$\n" +
				"/guests/1: is the number 7, and must be a string\n" +
				"/note: has 11 characters, and must have at most 5\n" +
				"/seat: is no property that the schema has; did you mean \"seats\"?"},
		{booking, `{"starts": `, ": line 1, column 12: the JSON ends too early"},
		{booking, `{"starts": "2026-11-23T10:00:00Z", "room": "red", "room": "blue"}`, `: line 1, column 51: "room" is there twice`},
		{`{"maximum": 9007199254740992}`, `9007199254740993`, ": is 9007199254740993, and must be at most 9007199254740992"},
		{`{"exclusiveMinimum": 0, "multipleOf": 0.01}`, `0.07`, ""},
		{`{"exclusiveMinimum": 0, "multipleOf": 0.01}`, `-1e-3`, ": is -1e-3, and must be above 0\n: is -1e-3, and must be a multiple of 0.01"},
		{`{"const": {"a": [1.0, "x"], "b": null}}`, `{"b": null, "a": [1, "x"]}`, ""},
		{`{"oneOf": [{"minimum": 2}, {"maximum": 5}]}`, `3`, ": is as alternatives 1 and 2 have it (oneOf), and must be as one of them only"},
		{`{"not": {"type": "string"}}`, `"a"`, ": is what the schema excludes (not)"},
		{`{"contains": {"type": "null"}, "maxContains": 1}`, `[null, 1, null]`, ": has 2 items of the kind that it must contain, and must have at most 1"},
		{`{"propertyNames": {"pattern": "^x"}}`, `{"a": 1}`, `: has a property "a", and the schema does not allow that name`},
		{`{"dependentRequired": {"card": ["name"]}}`, `{"card": 1}`, `/name: is missing, and must be there with "card"`},
		{`{"properties": {"a": true}, "unevaluatedProperties": false}`, `{"a": 1, "~/": 2}`, `/~0~1: is no property that the schema has`},
		{`{"items": {"$ref": "#/$defs/tree"}, "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}`, `[[[], [1]]]`, `/0/1/0: is the number 1, and must be an array`},
		{`{"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}}`, `{"a": 1}`, "/b: is missing"},
		{`{"properties": {"a": false}}`, `{"a": 1}`, "/a: is not allowed here"},
	} {
		_, err := parse(t, test.schema).Check(t.Context(), []byte(test.value))
		got := ""
		if err != nil {
			got = err.Error()
		}
		var violations *schema.Violations
		if got != test.want || err != nil && !errors.As(err, &violations) {
			t.Errorf("%.60s… on %s:\n%s\nwant:\n%s", test.schema, test.value, got, test.want)
		}
	}
	// Of many, 20 are told.
	_, err := parse(t, `{"items": {"type": "null"}}`).Check(t.Context(), []byte("["+strings.Repeat("1,", 999)+"1]"))
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 21 || lines[20] != "and 980 more" {
		t.Errorf("of 1000 violations: %q", lines)
	}
}

// TestMistakes: what is wrong with a schema is said with its place, and what may
// have been meant.
func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"{\n  \"type\": \"object\",\n  \"requred\": []\n}": `s.json:3:3: /requred: there is no keyword "requred" in JSON Schema 2020-12; did you mean "required"?; names of your own begin with x-`,
		`{"type": "strng"}`:                                                 `s.json:1:10: /type: it is one of null, boolean, number, integer, string, array, object, or a list of them; did you mean "string"?`,
		`{"properties": {"a": {"$ref": "other.json"}}}`:                     `s.json:1:31: /properties/a/$ref: "other.json" is another document, and none is read`,
		`{"$ref": "https://example.com/a"}`:                                 `is another document, and none is read`,
		`{"$ref": "#/$defs/guset", "$defs": {"guest": true}}`:               `there is no schema at "#/$defs/guset"; did you mean "#/$defs/guest"?`,
		`{"$ref": "#"}`:                                                     `leads back to itself without going deeper into the value`,
		`{"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#"}]}}}`: `leads back to itself`,
		`{"$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}}`:                  `leads back to itself`,
		`{"pattern": "(?=a)"}`:                                              `patterns are RE2's: without look-around`,
		`{"pattern": "((a{100}){100}){100}"}`:                               `invalid repeat count`,
		`{"pattern": "(abcdefghijklmnopqrstuvwxyz[a-z]){900}"}`:             `its repetitions come to`,
		`{"format": "datetime"}`:                                            `; did you mean "date-time"?`,
		`{"definitions": {}}`:                                               `"definitions" is not of JSON Schema 2020-12: write "$defs"`,
		`{"$schema": "http://json-schema.org/draft-07/schema#"}`:            `https://json-schema.org/draft/2020-12/schema is read here, and nothing else`,
		`{"properties": {"a": {"$id": "b"}}}`:                               `a $id makes a document of its own`,
		`{"title": 5}`:                                                      `s.json:1:11: /title: it is not as JSON Schema has it: got number, want string`,
		`{"required": ["a", "a"]}`:                                          `/required: it is not as JSON Schema has it`,
		`[]`:                                                                `a schema is a JSON object here`,
		`{"minimum": 1e999999999}`:                                          `the number is too long`,
		`{"a`:                                                               `s.json:1:4: the JSON ends too early`,
		"{\"title\": \"\xff\"}":                                             `it is not UTF-8`,
		`{"x-circles-index": [["/a"]], "properties": {"b": {}}}`:            `s.json:1:23: /x-circles-index/0: the schema has no property "a"`,
		`{"x-circles-index": [["/strats"]], "properties": {"starts": {}}}`:  `did you mean "starts"?`,
		`{"x-circles-index": [["starts"]]}`:                                 `did you mean "/starts"?`,
		`{"x-circles-index": [["/a"], ["/a"]]}`:                             `the same index is there twice`,
		`{"x-circles-index": ["/a"]}`:                                       `each a list of fields`,
		`{"x-circles-indexes": []}`:                                         `did you mean "x-circles-index"?`,
		`{"x-circles-stored": "ok"}`:                                        `"as-is": they may stay`,
		`{"properties": {"a": {"x-circles-index": []}}}`:                    `x-circles-index stands at the top of the document`,
		`{"title": "` + strings.Repeat("a", 10<<20) + `"}`:                  `and a schema has at most 262144`,
		strings.Repeat(`{"not":`, 200) + `true` + strings.Repeat(`}`, 200):  `it is nested deeper than 128`,
		`{"allOf": [` + strings.Repeat(`true,`, 5000) + `true]}`:            `there are more than 2000 schemas in it`,
		`{"enum": [` + strings.Repeat(`0,`, 110_000) + `0]}`:                `it has more than 100000 values in it`,
	} {
		_, err := schema.Parse("s.json", text)
		var wrong *schema.Error
		if err == nil || !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) || len(err.Error()) > 800 {
			t.Errorf("%.80s: %v\nwant: %s", text, err, want)
		}
	}
}

// bombs are schemas that are short, and would take for ever to evaluate.
var bombs = map[string][2]string{
	"alternatives of alternatives": {func() string {
		var b strings.Builder
		b.WriteString(`{"$ref": "#/$defs/a0", "$defs": {`)
		for i := range 60 {
			fmt.Fprintf(&b, `"a%d": {"anyOf": [{"$ref": "#/$defs/a%d"}, {"$ref": "#/$defs/a%[2]d"}]}, `, i, i+1)
		}
		b.WriteString(`"a60": {"type": "null"}}}`)
		return b.String()
	}(), `1`},
	"a type of itself, twice": {`{"type": "array", "items": {"allOf": [{"$dynamicRef": "#here"}, {"$dynamicRef": "#here"}]}, "$dynamicAnchor": "here"}`,
		strings.Repeat("[", 100) + strings.Repeat("]", 100)},
	"patterns on long strings": {`{"items": {"pattern": "(a|aa|aaa|aaaa){1,200}$", "allOf": [{"pattern": "(x+x+)+y"}]}}`,
		`["` + strings.Repeat("a", 500_000) + `!", "` + strings.Repeat("x", 500_000) + `"]`},
	"each item once, on each level": {func() string {
		s := `{"uniqueItems": true}`
		for range 100 {
			s = `{"uniqueItems": true, "allOf": [{"uniqueItems": true}], "items": ` + s + `}`
		}
		return s
	}(), strings.Repeat("[0,", 100) + "[" + func() string {
		var b strings.Builder
		for i := range 90_000 {
			fmt.Fprintf(&b, "%d,", i)
		}
		return b.String()
	}() + "0.5]" + strings.Repeat("]", 100)},
	"many names, many patterns": {func() string {
		var b strings.Builder
		b.WriteString(`{"patternProperties": {`)
		for i := range 1000 {
			fmt.Fprintf(&b, `"a.*b%d": {"type": "null"}, `, i)
		}
		b.WriteString(`"c": true}}`)
		return b.String()
	}(), func() string {
		var b strings.Builder
		b.WriteString("{")
		for i := range 40_000 {
			fmt.Fprintf(&b, `"aaaaaaaaaaaa%d": 1, `, i)
		}
		b.WriteString(`"b": 1}`)
		return b.String()
	}()},
}

// TestSchemaBombs: whatever a schema and a value say, a check ends, soon, and says
// why.
func TestSchemaBombs(t *testing.T) {
	for name, bomb := range bombs {
		s := parse(t, bomb[0])
		if name != "alternatives of alternatives" { // which takes all that a check may take
			s.Hasten(20)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err := s.Check(ctx, []byte(bomb[1]))
		cancel()
		if err == nil || !strings.Contains(err.Error(), "takes too long") {
			t.Errorf("%s: %.300v", name, err)
		}
	}
	// Nor can it hold up a run that is over.
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("the run is over")
	cancel(over)
	s := parse(t, bombs["alternatives of alternatives"][0])
	if _, err := s.Check(ctx, []byte("1")); !errors.Is(err, over) {
		t.Errorf("after the run is over: %v", err)
	}
}

// library checks by github.com/santhosh-tekuri/jsonschema.
func library(t *testing.T, text string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("https://schema.invalid/s.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("https://schema.invalid/s.json")
	if err != nil {
		t.Fatalf("the library refuses what we take: %v\n%s", err, text)
	}
	return s
}

// agree holds our evaluation against the library's.
func agree(t *testing.T, s *schema.Schema, by *jsonschema.Schema, value string) {
	t.Helper()
	_, err := s.Check(t.Context(), []byte(value))
	if err != nil && strings.Contains(err.Error(), "takes too long") {
		return
	}
	doc, decodeErr := jsonschema.UnmarshalJSON(strings.NewReader(value))
	if decodeErr != nil {
		if err == nil {
			t.Errorf("we read %q, and the library does not: %v", value, decodeErr)
		}
		return
	}
	if theirs := by.Validate(doc); (theirs == nil) != (err == nil) {
		t.Errorf("schema %s\nvalue  %s\nwe:      %v\nlibrary: %v", s.Text(), value, err, theirs)
	}
}

// draw makes up schemas and values from few words, so that they meet.
type draw struct{ *rand.Rand }

func (d draw) of(of ...string) string { return of[d.IntN(len(of))] }

func (d draw) value(depth int) string {
	if depth == 0 {
		return d.of("null", "true", "0", "1", "1.0", "2.5", "-3", "10e-1", `"a"`, `"ab"`, `""`, `"2026-11-23"`)
	}
	var b strings.Builder
	switch d.IntN(3) {
	case 0:
		return d.value(0)
	case 1:
		b.WriteByte('[')
		for i := range d.IntN(4) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(d.value(depth - 1))
		}
		b.WriteByte(']')
	default:
		b.WriteByte('{')
		for i, name := range []string{"a", "b", "c"}[:d.IntN(4)] {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"%s": %s`, name, d.value(depth-1))
		}
		b.WriteByte('}')
	}
	return b.String()
}

func (d draw) schema(depth int) string {
	if depth == 0 {
		return d.of("true", "false", "{}", `{"type": "string"}`, `{"type": ["integer", "null"]}`, `{"type": "object"}`, `{"$ref": "#/$defs/leaf"}`,
			`{"$dynamicRef": "#deep"}`, `{"type": "array"}`)
	}
	sub := func() string { return d.schema(depth - 1) }
	subs := func() string { return "[" + sub() + "," + sub() + "]" }
	members := func() string { return `{"a": ` + sub() + `, "b": ` + sub() + `}` }
	keywords := map[string]func() string{
		"type": func() string {
			return d.of(`"object"`, `"array"`, `["array", "object"]`, `["number", "string", "null"]`)
		},
		"enum": func() string { return "[" + d.value(1) + ", " + d.value(0) + "_]" }, "const": func() string { return d.value(1) },
		"multipleOf": func() string { return d.of("1", "0.5", "2") }, "maximum": func() string { return d.of("1", "0") },
		"exclusiveMinimum": func() string { return d.of("0", "1.0") }, "maxLength": func() string { return "1" }, "minLength": func() string { return "1" },
		"pattern": func() string { return d.of(`"^a"`, `"b$"`) }, "format": func() string { return `"date"` },
		"maxItems": func() string { return "2" }, "minItems": func() string { return "1" }, "uniqueItems": func() string { return "true" },
		"contains": sub, "minContains": func() string { return d.of("0", "1", "2") }, "maxContains": func() string { return d.of("0", "1", "2") },
		"prefixItems": subs, "items": sub, "unevaluatedItems": sub,
		"properties": members, "patternProperties": func() string { return `{"^[ab]": ` + sub() + `}` }, "additionalProperties": sub,
		"propertyNames": func() string { return d.of(`{"pattern": "[ab]"}`, "true") }, "unevaluatedProperties": sub,
		"required": func() string { return d.of(`["a"]`, `["a", "b"]`) }, "minProperties": func() string { return "1" }, "maxProperties": func() string { return "2" },
		"dependentRequired": func() string { return `{"a": ["b"]}` }, "dependentSchemas": func() string { return `{"a": ` + sub() + `}` },
		"allOf": subs, "anyOf": subs, "oneOf": subs, "not": sub, "if": sub, "then": sub, "else": sub,
	}
	var b strings.Builder
	b.WriteByte('{')
	n := 0
	for _, name := range []string{"type", "enum", "const", "multipleOf", "maximum", "exclusiveMinimum", "maxLength", "minLength", "pattern", "format",
		"maxItems", "minItems", "uniqueItems", "contains", "minContains", "maxContains", "prefixItems", "items", "unevaluatedItems", "properties",
		"patternProperties", "additionalProperties", "propertyNames", "unevaluatedProperties", "required", "minProperties", "maxProperties",
		"dependentRequired", "dependentSchemas", "allOf", "anyOf", "oneOf", "not", "if", "then", "else"} {
		if d.IntN(9) > 0 {
			continue
		}
		if n++; n > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%s": %s`, name, strings.ReplaceAll(keywords[name](), "_", ""))
	}
	b.WriteByte('}')
	return b.String()
}

// TestAsTheLibrary: on what can be drawn, our evaluation says what the library's
// does.
func TestAsTheLibrary(t *testing.T) {
	d := draw{rand.New(rand.NewPCG(7, 23))}
	valid, invalid := 0, 0
	for range 500 {
		top := d.schema(3)
		comma := ","
		if top == "{}" {
			comma = ""
		}
		text := `{"$defs": {"leaf": {"type": ["string", "number"]}, "deep": {"$dynamicAnchor": "deep", "type": ["object", "array", "null"], "items": {"$dynamicRef": "#deep"}}}` +
			comma + strings.TrimPrefix(top, "{")
		if top == "true" || top == "false" {
			continue
		}
		s, err := schema.Parse("s.json", text)
		if err != nil {
			if !strings.Contains(err.Error(), "as JSON Schema has it") { // an enum with a value twice
				t.Fatalf("%s: %v", text, err)
			}
			continue
		}
		by := library(t, text)
		for range 8 {
			value := d.value(3)
			agree(t, s, by, value)
			if _, err := s.Check(t.Context(), []byte(value)); err == nil {
				valid++
			} else {
				invalid++
			}
		}
	}
	if valid < 500 || invalid < 500 {
		t.Errorf("drawn: %d valid, %d invalid", valid, invalid)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(`{"type": "object", "properties": {"a": {"enum": [1, "b"]}}, "x-circles-index": [["/a"]]}`, `{"a": 1.0}`)
	f.Add(`{"$ref": "#/$defs/a", "$defs": {"a": {"prefixItems": [{"$ref": "#/$defs/a"}], "unevaluatedItems": false}}}`, `[[], 1]`)
	for _, b := range bombs {
		if len(b[0])+len(b[1]) < 2000 {
			f.Add(b[0], b[1])
		}
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		s, err := schema.Parse("s.json", text)
		if err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Errorf("an error that cannot be shown: %q", err)
			}
			return
		}
		s.Hasten(100)
		_, err = s.Check(t.Context(), []byte(value))
		if err != nil && !utf8.ValidString(err.Error()) {
			t.Errorf("violations that cannot be shown: %q", err)
		}
		if len(text)+len(value) < 500 && !strings.Contains(text, "x-circles") { // the library may take for ever
			agree(t, s, library(t, text), value)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	s, err := schema.Parse("s.json", `{"type": "object", "required": ["starts", "room"], "properties": {"starts": {"type": "string", "format": "date-time"},
		"room": {"enum": ["red", "blue"]}, "seats": {"type": "integer", "minimum": 1}}}`)
	if err != nil {
		b.Fatal(err)
	}
	value := []byte(`{"starts":"2026-11-23T10:00:00Z","room":"red","seats":2,"notes":"` + strings.Repeat("n", 100) + `"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Check(b.Context(), value); err != nil {
			b.Fatal(err)
		}
	}
}
