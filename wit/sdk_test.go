// Package wit_test holds the SDKs to the WIT files, which are the only source: what
// the host offers is held to them beside its host functions, by TestHostMatchesWIT.
package wit_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/engine/abi/abitest"
	modulebuild "github.com/circles-host/circles/modules/build"
	"github.com/circles-host/circles/testdata/build"
)

// TestSDKsMatchWIT: the suite's guest of each SDK uses all of the SDK, so its imports
// are the SDK's.
func TestSDKsMatchWIT(t *testing.T) {
	guests := map[string]func() []byte{
		"go":   func() []byte { return build.Go(t, "testdata/guests/suite", true) },
		"rust": func() []byte { return read(t, "../guest-sdk/sdktest/testdata/rust/suite/suite.wasm") },
		"zig":  func() []byte { return read(t, "../guest-sdk/sdktest/testdata/zig/suite/suite.wasm") },
		"assemblyscript": func() []byte {
			return read(t, "../guest-sdk/sdktest/testdata/assemblyscript/suite/suite.wasm")
		},
		"js": func() []byte {
			built, err := modulebuild.Build(t.Context(), modulebuild.Config{Dir: "../guest-sdk/sdktest/testdata/js/suite"})
			if err != nil {
				t.Fatal(err)
			}
			return built.Wasm
		},
		"cpp": func() []byte { return read(t, "../guest-sdk/sdktest/testdata/cpp/suite/suite.wasm") },
	}
	for name, wasm := range guests {
		t.Run(name, func(t *testing.T) {
			abitest.CheckGuest(t, wasm(), "circles:script/run@0.1.1", "script.wit", "deps/circles-host/host.wit")
		})
	}
}

// TestEnumsMatchWIT: what is a number at the border has the same cases, in the same
// order, in each SDK's source and in the host that they are tested with. Each block
// is found by how it begins, and ends with a line of its own.
func TestEnumsMatchWIT(t *testing.T) {
	enums := abitest.Enums(t, "deps/circles-host/host.wit")
	if len(enums) != 3 {
		t.Fatalf("there are the enums %v", enums)
	}
	for _, e := range []struct {
		file, enum string
		begin, end string
		spell      func(word string) string // of a case
	}{
		{"go/error.go", "error-code", "const (\n\tNotFound ", "\n)", func(c string) string { return strings.Replace(camel("")(c), "Io", "IO", 1) }},
		{"go/circles.go", "kind", "const (\n\tkindFile ", "\n)", camel("kind")},
		{"sdktest/host.go", "error-code", "const (\n\tnotFound ", "\n)", func(c string) string {
			if c == "io" {
				return "ioFailed"
			}
			name := camel("")(c)
			return strings.ToLower(name[:1]) + name[1:]
		}},
		{"c/circles.h", "error-code", "typedef enum {\n  CIRCLES_NOT_FOUND ", "\n}", upper("CIRCLES_")},
		{"c/circles.h", "kind", "typedef enum { CIRCLES_FILE ", "}", upper("CIRCLES_")},
		{"c/circles.h", "level", "typedef enum { CIRCLES_DEBUG ", "}", upper("CIRCLES_")},
		{"assemblyscript/index.ts", "error-code", "export enum Code {", "\n}", camel("")},
		{"assemblyscript/index.ts", "kind", "export enum Kind {", "\n}", camel("")},
		{"assemblyscript/index.ts", "level", "export enum Level {", "\n}", camel("")},
		{"js/circles.js", "error-code", "const codes = [", "\n]", quoted},
		{"js/circles.js", "kind", "const kinds = [", "]", quoted},
		{"js/circles.js", "level", "host.log([", "]", quoted},
		{"js/circles.d.ts", "error-code", "export type Code = (", "\n  );", quoted},
		{"rust/src/error.rs", "error-code", "pub enum Code {", "\n}", camel("")},
		{"rust/src/error.rs", "error-code", "const ALL: [Code; 14] = [", "\n    ]", camel("Code::")},
		{"rust/src/context.rs", "kind", "pub enum Kind {", "\n}", camel("")},
		{"zig/circles.zig", "error-code", "pub const Error = error{", "\n}", camel("")},
		{"zig/circles.zig", "error-code", "pub const codes = [_]Error{", "\n}", camel("error.")},
		{"zig/circles.zig", "kind", "pub const Kind = enum(u8) {", "\n}", func(c string) string { return c }},
		{"zig/circles.zig", "level", "pub const Level = enum(u8) {", "\n}", func(c string) string { return strings.Replace(c, "error", "err", 1) }}, // error is a word of Zig's
		{"rust/src/lib.rs", "level", "pub enum Level {", "\n}", camel("")},
	} {
		var want []string
		for _, c := range enums[e.enum] {
			want = append(want, e.spell(c))
		}
		_, block, ok := strings.Cut(string(read(t, "../guest-sdk/"+e.file)), e.begin)
		words := strings.Fields(e.begin)
		if last := words[len(words)-1]; !strings.ContainsAny(last, "{[(") {
			block = last + " " + block // the block begins with its first case
		}
		block, _, closed := strings.Cut(block, e.end)
		if !ok || !closed {
			t.Errorf("%s: there is no %q", e.file, e.begin)
			continue
		}
		if got := cases(block); !slices.Equal(got, want) {
			t.Errorf("%s has %q for %s, want %q", e.file, got, e.enum, want)
		}
	}
}

var comment = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`)

// cases are the first words of what commas or ends of lines separate.
func cases(block string) (names []string) {
	for part := range strings.FieldsFuncSeq(comment.ReplaceAllString(block, ""), func(r rune) bool { return r == ',' || r == '\n' }) {
		if words := strings.Fields(part); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			names = append(names, words[0])
		}
	}
	return names
}

func camel(prefix string) func(string) string {
	return func(c string) string {
		name := prefix
		for _, word := range strings.Split(c, "-") {
			name += strings.ToUpper(word[:1]) + word[1:]
		}
		return name
	}
}

func quoted(c string) string { return "\"" + c + "\"" }

func upper(prefix string) func(string) string {
	return func(c string) string { return prefix + strings.ToUpper(strings.ReplaceAll(c, "-", "_")) }
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
