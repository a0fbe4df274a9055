package schema_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/circles-host/circles/host/schema"
)

var write = flag.Bool("write", false, "write testdata/booking.rs")

func booking(t testing.TB) *schema.Schema {
	text, err := os.ReadFile("testdata/booking.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := schema.Parse("booking.json", string(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const aBooking = `{"starts": "2026-11-23T10:00:00Z", "room": {"name": "red", "floor": 2}, "kind": "quiet work", "note": null, "price": 9.5,
	"guests": [{"name": "eve", "brings": [{"name": "bob"}]}], "labels": {"a": "b"}, "contact": {"e-mail": "a@b"}, "extra": 7, "confirmed": false,
	"before": {"starts": "2026-11-22T10:00:00Z", "room": {"name": "blue"}, "kind": "2nd", "note": "x"}}`

// TestBindingsInGo: what is written for Go compiles, and a value that the schema takes
// goes through it and comes out the same.
func TestBindingsInGo(t *testing.T) {
	s := booking(t)
	if _, err := s.Check(t.Context(), []byte(aBooking)); err != nil {
		t.Fatal(err)
	}
	code, err := s.Bindings("go", "booking")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":             "module example.com/b\n\ngo 1.24\n",
		"records/records.go": code,
		"main.go": `package main

import (
	"encoding/json"
	"os"

	"example.com/b/records"
)

func main() {
	var b records.Booking
	if err := json.NewDecoder(os.Stdin).Decode(&b); err != nil {
		panic(err)
	}
	if b.Room.Name != "red" || *b.Room.Floor != 2 || b.Note != nil || *b.Price != 9.5 || *b.Guests[0].Brings[0].Name != "bob" || b.Before.Kind != "2nd" {
		panic("not what was put in")
	}
	if err := json.NewEncoder(os.Stdout).Encode(b); err != nil {
		panic(err)
	}
}
`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := exec.CommandContext(t.Context(), "go", "run", ".")
	run.Dir, run.Stdin = dir, strings.NewReader(aBooking)
	run.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0")
	var stderr strings.Builder
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, stderr.String(), code)
	}
	var was, is any
	if json.Unmarshal([]byte(aBooking), &was) != nil || json.Unmarshal(out, &is) != nil || !reflect.DeepEqual(was, is) {
		t.Errorf("in: %s\nout: %s", aBooking, out)
	}
}

// TestBindingsInTypeScript: what is written for TypeScript is that, by a compiler's
// word.
func TestBindingsInTypeScript(t *testing.T) {
	code, err := booking(t).Bindings("typescript", "booking")
	if err != nil {
		t.Fatal(err)
	}
	r := api.Transform(code, api.TransformOptions{Loader: api.LoaderTS})
	if len(r.Errors) > 0 {
		t.Errorf("%v\n%s", r.Errors, code)
	}
	for _, want := range []string{"export interface Booking {", `kind: BookingKind;`, `export type BookingKind = "meeting" | "quiet work" | "type" | "2nd";`,
		"note: string | null;", "price?: number | null;", "guests?: Guest[];", "labels?: Record<string, string>;", `"e-mail"?: string;`, "before?: Booking;", "extra?: unknown;", `"with \"quotes\""?: number;`} {
		if !strings.Contains(code, want) {
			t.Errorf("no %s in\n%s", want, code)
		}
	}
}

// TestBindingsInRust: what is written for Rust is what rustc has been seen to take.
func TestBindingsInRust(t *testing.T) {
	code, err := booking(t).Bindings("rust", "booking")
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/booking.rs"
	if *write {
		if err := os.WriteFile(path, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != code {
		t.Errorf("%v; if it is meant, compile it, and go test -run Rust -write\n%s", err, code)
	}
}

// TestBindingsOfAnything: names that are words of a language, twice the same, or no
// names at all still become code.
func TestBindingsOfAnything(t *testing.T) {
	var odd []string
	for i, name := range []string{"type", "Type", "TYPE", "self", "fn", "", "-", "1", "a-b", "aB", "a b", "é", "\\n", "x,omitempty", "`", "a\\\"b"} {
		odd = append(odd, fmt.Sprintf(`"%s": {"type": "object", "properties": {"string": {"enum": ["", " ", "a", "A", "Self", "\u0001%d"]}, "x": {"$ref": "#"}}}`, name, i))
	}
	s := parse(t, `{"properties": {`+strings.Join(odd, ", ")+`}, "description": "two\nlines */ // \u0007"}`)
	for _, name := range []string{"value", "any", "", "string", "9"} {
		for _, language := range schema.Languages() {
			code, err := s.Bindings(language, name)
			if err != nil {
				t.Errorf("%s: %v", language, err)
			}
			if r := api.Transform(code, api.TransformOptions{Loader: api.LoaderTS}); language == "typescript" && len(r.Errors) > 0 {
				t.Errorf("%v\n%s", r.Errors[0], code)
			}
		}
	}
	if _, err := s.Bindings("typscript", "x"); err == nil || !strings.Contains(err.Error(), `did you mean "typescript"?`) {
		t.Error(err)
	}
}
