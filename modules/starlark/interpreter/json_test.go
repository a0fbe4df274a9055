package main

import (
	"encoding/json"
	"strings"
	"testing"

	"go.starlark.net/starlark"
)

// TestJSON decodes what is JSON and encodes it again: sorted, and nothing lost.
func TestJSON(t *testing.T) {
	for text, want := range map[string]string{
		`null`:                        `null`,
		` [ true , false ] `:          `[true,false]`,
		`{"b":1,"a":{}}`:              `{"a":{},"b":1}`,
		`[]`:                          `[]`,
		`123456789012345678901234567`: `123456789012345678901234567`,
		`-9223372036854775808`:        `-9223372036854775808`,
		`-0`:                          `0`,
		`1.5`:                         `1.5`,
		`1e3`:                         `1000.0`,
		`-1E-2`:                       `-0.01`,
		`"\u00e9\ud83d\ude00\/\b\f"`:  "\"é😀/\\u0008\\u000c\"",
		`"\"\\\n\r\t"`:                `"\"\\\n\r\t"`,
		"\"\u007f\u2028\"":            "\"\u007f\u2028\"",
		`""`:                          `""`,
		strings.Repeat("[", 500) + strings.Repeat("]", 500): strings.Repeat("[", 500) + strings.Repeat("]", 500),
	} {
		v, err := decode(text)
		if err != nil {
			t.Errorf("%.40s: %v", text, err)
			continue
		}
		got, err := encode(v, layout{})
		if err != nil || string(got) != want {
			t.Errorf("%.40s: %.60s, %v; want %.60s", text, got, err, want)
		}
	}
}

// TestJSONRefused is what looks like JSON. What is JSON by its grammar, and yet no value
// that one can be sure of, is never taken for a text.
func TestJSONRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:                          "at offset 0: the text ends, where a value is wanted",
		`{"a":1`:                    "at offset 6: the text ends, where a comma or } is wanted",
		`[1,]`:                      "at offset 3: ']', where a value is wanted",
		`[1 2]`:                     "at offset 3: '2', where a comma or ] is wanted",
		`{a:1}`:                     "at offset 1: 'a', where a key in quotes is wanted",
		`{"a" 1}`:                   "at offset 5: '1', where a colon is wanted",
		`01`:                        "at offset 0: a number begins with 0",
		`-`:                         "at offset 1: the text ends, where a digit is wanted",
		`1.`:                        "at offset 2: the text ends, where a digit is wanted",
		`1e+`:                       "at offset 3: the text ends, where a digit is wanted",
		`"a`:                        "at offset 2: the text ends in a string",
		`"\`:                        "at offset 2: the text ends in a string",
		`"\u12`:                     "the text ends in an escape",
		`"\u12zz"`:                  "four hexadecimal digits",
		`"\ud800"`:                  "half of a surrogate pair",
		`"\ud800\u0041"`:            "half of a surrogate pair",
		`"\udc00"`:                  "half of a surrogate pair",
		`"\x"`:                      `there is no escape \x`,
		"\"\xff\"":                  "not UTF-8",
		"\"a\nb\"":                  "control character",
		`1 2`:                       "at offset 2: '2', where the end is wanted",
		`nul`:                       "'n', where a value is wanted",
		`{"a":1,"a":2}`:             `at offset 7: the object has the key "a" twice`,
		`1e999`:                     "too large for a float",
		strings.Repeat("[", 502):    "nested more than 500 deep",
		strings.Repeat("[", 1e6):    "nested more than 500 deep",
		strings.Repeat(`{"":`, 1e5): "nested more than 500 deep",
	} {
		v, err := decode(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, %v; want %q", text, v, err, want)
		}
	}
	for text, kind := range map[string]string{`{"a":1,"a":2}`: "", `1e999`: "", "": "NoneType", "no JSON": "string", "\xff": "bytes", "[1,": "string", "7": "int"} {
		v, err := given([]byte(text))
		if kind == "" && err == nil || kind != "" && (err != nil || v.Type() != kind) {
			t.Errorf("%q is received as %v, %v", text, v, err)
		}
		if kind == "" && text != "" && received([]byte(text)) != starlark.String(text) {
			t.Errorf("%q is received as %v", text, received([]byte(text)))
		}
	}
}

// TestEncodeRefused are values that JSON does not have, or that have no end.
func TestEncodeRefused(t *testing.T) {
	for text, want := range map[string]string{
		`float("nan")`:           "JSON has no number like nan",
		`[float("+inf")]`:        "JSON has no number like +inf",
		`{1: 2}`:                 "the key 1, which is an int",
		`{(1, 2): 2}`:            "a tuple",
		`b"x"`:                   "bytes are no JSON",
		`print`:                  "a builtin_function_or_method cannot be written as JSON",
		"x = []\nx.append(x)\nx": "nested more than 500 deep, or contains itself",
		"x = []\nfor i in range(600): x = [x]\nx":              "nested more than 500 deep",
		"x = 'abcd' * 1000\nfor i in range(20): x = [x, x]\nx": "more than 64 MiB",
	} {
		if got := run(t, "json.encode("+last(text)+")", text); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %q", text, got, want)
		}
	}
}

// last is a text's last line; run runs the lines before it, and then expression.
func last(text string) string { return text[strings.LastIndexByte(text, '\n')+1:] }

func run(t *testing.T, expression, text string) string {
	t.Helper()
	p, err := load([]byte(strings.TrimSuffix(text, last(text)) + expression))
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.call("run", nil)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestJSONModule is the script's own json.
func TestJSONModule(t *testing.T) {
	for text, want := range map[string]string{
		`json.encode({"b": [1, 2.0], "a": (None, True), "c": struct(y = 1, x = set([2]))})`: `{"a":[null,true],"b":[1,2.0],"c":{"x":[2],"y":1}}`,
		`json.decode('{"a": [1]}')["a"][0] + 1`:                                             `2`,
		`json.decode("no", default = "x")`:                                                  `x`,
		`json.decode("no")`:                                                                 "1:12: json.decode: at offset 0: 'n', where a value is wanted",
		`json.indent('{"a":[1,{}],"b":[]}', prefix = "|", indent = " ")`:                    "{\n| \"a\": [\n|  1,\n|  {}\n| ],\n| \"b\": []\n|}",
		`json.encode_indent([1])`:                                                           "[\n\t1\n]",
		`json.encode("é"[1:] + "é"[:1])`:                                                    "\"\uFFFD\uFFFD\"",
		`json.decode(json.encode("</script>&"))`:                                            `</script>&`,
	} {
		if got := run(t, text, text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// FuzzJSON holds that what is decoded here is JSON, and means the same encoded.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"\u00e9",null,true]}`, `"\ud83d\ude00"`, `-0`, `[[[]]]`, "\"\xff\"", `{"a":1,"a":2}`, `1e400`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := decode(s)
		if err != nil {
			return
		}
		if !json.Valid([]byte(s)) {
			t.Fatalf("%q was decoded, and is no JSON", s)
		}
		b, err := encode(v, layout{lines: len(s)%2 == 0, indent: " "})
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(string(b))
		if err != nil {
			t.Fatalf("%q became %q: %v", s, b, err)
		}
		if same, err := starlark.EqualDepth(v, again, 2*maxNesting); err != nil || !same {
			t.Fatalf("%q became %q", s, b)
		}
	})
}
