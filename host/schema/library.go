package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// home is where the library believes a schema to be. There is no such host.
const home = "https://schema.invalid/schema.json"

// compiler never loads anything: the metaschemas are in it.
func compiler() *jsonschema.Compiler {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(nowhere{})
	return c
}

type nowhere struct{}

func (nowhere) Load(string) (any, error) {
	return nil, errors.New("it refers to another document, and none is read")
}

// byLibrary has the library say whether the document is a schema: by the
// metaschema, and by its own reading of references.
func (b *builder) byLibrary(v *Value) error {
	c := compiler()
	if err := c.AddResource(home, v.plain()); err != nil {
		return b.fail(v.at, "", err)
	}
	_, err := c.Compile(home)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.SchemaValidationError
	var wrong *jsonschema.ValidationError
	if !errors.As(err, &invalid) || !errors.As(invalid.Err, &wrong) {
		return b.fail(v.at, "", errors.New(shorten(err.Error())))
	}
	for len(wrong.Causes) > 0 {
		wrong = wrong.Causes[0]
	}
	at, pointer := v, ""
	for _, name := range wrong.InstanceLocation {
		pointer = join(pointer, name)
		if next := at.child(name); next != nil {
			at = next
		}
	}
	text := strings.TrimSpace(wrong.Error())
	if i := strings.LastIndex(text, "': "); i >= 0 {
		text = text[i+3:]
	}
	return b.fail(at.at, pointer, fmt.Errorf("it is not as JSON Schema has it: %s", shorten(text)))
}

// plain is v as encoding/json would have it.
func (v *Value) plain() any {
	switch v.kind {
	case boolean:
		return v.truth
	case number:
		return json.Number(v.text)
	case text:
		return v.text
	case array:
		all := make([]any, len(v.items))
		for i := range v.items {
			all[i] = v.items[i].plain()
		}
		return all
	case object:
		all := make(map[string]any, len(v.members))
		for i := range v.members {
			all[v.members[i].name] = v.members[i].value.plain()
		}
		return all
	}
	return nil
}

// formats are those of the library that are checked here: each takes time in
// proportion to the string. (Not "regex", whose compiling does not.)
var formats = sync.OnceValue(func() map[string]*jsonschema.Format {
	all := map[string]*jsonschema.Format{}
	for _, name := range []string{
		"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uuid",
		"json-pointer",
	} {
		c := compiler()
		c.AssertFormat()
		if err := c.AddResource(home, map[string]any{"format": name}); err == nil {
			if s, err := c.Compile(home); err == nil {
				all[name] = s.Format
			}
		}
	}
	return all
})

// Formats are the names that "format" takes.
func Formats() []string { return slices.Sorted(maps.Keys(formats())) }
