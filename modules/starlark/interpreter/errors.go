package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/circles-host/circles/guest-sdk/go"
	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// What a reader of a receipt gets is lines: "LINE:COLUMN: what happened", then where it
// was called from, then a hint. Columns count letters, from 1.

// Bounds of what is told, since a receipt has to be read.
const (
	maxErrors = 10   // of a text, each with its line
	maxFrames = 8    // of a backtrace
	maxText   = 2000 // bytes of a message
)

// failure is what fail says: the script's own sentence, which stands alone.
type failure string

func (f failure) Error() string { return string(f) }

// codes are the names of circles.Code in the WIT, which attempt tells.
var codes = [...]string{
	circles.NotFound:     "not-found",
	circles.Denied:       "denied",
	circles.Exists:       "exists",
	circles.NotDirectory: "not-directory",
	circles.IsDirectory:  "is-directory",
	circles.NotEmpty:     "not-empty",
	circles.Invalid:      "invalid",
	circles.TooLarge:     "too-large",
	circles.ReadOnly:     "read-only",
	circles.Unavailable:  "unavailable",
	circles.IO:           "io",
	circles.Conflict:     "conflict",
	circles.Violates:     "violates",
	circles.Failed:       "failed",
}

// code says what kind of error it is: that of the host, "fail" for the script's own, and
// "error" for any other.
func code(err error) string {
	var host *circles.Error
	var own failure
	switch {
	case errors.As(err, &host) && int(host.Code) < len(codes):
		return codes[host.Code]
	case errors.As(err, &own):
		return "fail"
	}
	return "error"
}

// told is an error as the reader of the receipt gets it.
func told(err error) error {
	if own, ok := errors.AsType[failure](err); ok {
		return own
	}
	eval, ok := errors.AsType[*starlark.EvalError](err)
	if !ok {
		return errors.New(cut(err.Error()))
	}
	// A chain of attempts has an EvalError in an EvalError; the innermost knows most.
	for {
		inner, ok := errors.AsType[*starlark.EvalError](eval.Unwrap())
		if !ok {
			break
		}
		eval = inner
	}
	message := strings.TrimPrefix(cut(eval.Msg), "Starlark computation cancelled: ")
	var frames []starlark.CallFrame // those of the text, the innermost first
	for i := range eval.CallStack {
		if f := eval.CallStack.At(i); f.Pos.Filename() == fileName {
			frames = append(frames, f)
		}
	}
	var b strings.Builder
	if len(frames) > 0 {
		fmt.Fprintf(&b, "%d:%d: ", frames[0].Pos.Line, frames[0].Pos.Col)
	}
	b.WriteString(message)
	told := 0
	for i := 0; i < len(frames) && len(frames) > 1; {
		n := 1 // of the same call, in a recursion
		for i+n < len(frames) && frames[i+n] == frames[i] {
			n++
		}
		if told++; told > maxFrames {
			fmt.Fprintf(&b, "\n  and %d more", len(frames)-i)
			break
		}
		fmt.Fprintf(&b, "\n  in %s, %d:%d", place(frames[i].Name), frames[i].Pos.Line, frames[i].Pos.Col)
		if n > 1 {
			fmt.Fprintf(&b, ", %d times", n)
		}
		i += n
	}
	return errors.New(hinted(b.String(), message))
}

// place names a function for people.
func place(name string) string {
	if name == "<toplevel>" {
		return "the text"
	}
	return name
}

// refused is why a text is not taken: each error with its line, as far as they are few.
func refused(source string, err error) error {
	var list resolve.ErrorList
	var one syntax.Error
	switch {
	case errors.As(err, &list):
	case errors.As(err, &one):
		list = resolve.ErrorList{{Pos: begin(source, one), Msg: one.Msg}}
	default:
		return told(err)
	}
	var lines []string
	for i, e := range list {
		if i == maxErrors {
			lines = append(lines, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		message := strings.ReplaceAll(cut(e.Msg), "this Starlark dialect does not ", "Starlark does not ")
		if message == "excessive nesting" {
			message = "brackets, blocks or operators are nested too deep here"
		}
		line := fmt.Sprintf("%d:%d: %s", e.Pos.Line, e.Pos.Col, message)
		if strings.Contains(message, "got string literal, want") && strings.HasSuffix(before(source, e.Pos), "f") {
			message = `f"…"`
		}
		lines = append(lines, hinted(line, message))
	}
	return errors.New(strings.Join(lines, "\n"))
}

// before is what stands before a place, in its line.
func before(source string, pos syntax.Position) string {
	for range pos.Line - 1 {
		_, source, _ = strings.Cut(source, "\n")
	}
	line, _, _ := strings.Cut(source, "\n")
	n := int32(1)
	for i := range line {
		if n == pos.Col {
			return line[:i]
		}
		n++
	}
	return line
}

// begin is where the token of an error begins. The parser tells where it ends, but for
// a token that begins no expression.
func begin(source string, e syntax.Error) syntax.Position {
	pos := e.Pos
	token, want, ok := strings.Cut(e.Msg, ", want ")
	token, got := strings.CutPrefix(token, "got ")
	if !ok || !got || want == "primary expression" {
		return pos
	}
	line := before(source, pos)
	switch {
	case token == "newline":
		if pos.Col == 1 && pos.Line > 1 {
			pos.Line--
			pos.Col = math.MaxInt32 // of that line all
			pos.Col = int32(utf8.RuneCountInString(strings.TrimSuffix(before(source, pos), "\r"))) + 1
		}
	case token == "indent", token == "outdent", token == "end of file":
	case strings.HasPrefix(token, "'"):
		pos.Col -= int32(len(token) - len("''"))
	case token == "string literal", token == "bytes literal":
		if n := len(line) - 1; n > 0 {
			if i := strings.LastIndexByte(line[:n], line[n]); i >= 0 { // the quote that it began with, of a plain one
				pos.Col -= int32(utf8.RuneCountInString(line[i:]))
			}
		}
	default: // a word or a number
		word := strings.TrimRightFunc(line, func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) })
		pos.Col -= int32(utf8.RuneCountInString(line) - utf8.RuneCountInString(word))
	}
	pos.Col = max(pos.Col, 1)
	return pos
}

// at makes an error of the text at that place.
func at(pos syntax.Position, format string, args ...any) error {
	return resolve.ErrorList{{Pos: pos, Msg: fmt.Sprintf(format, args...)}}
}

// hints are for those who know Python, JavaScript or the Starlark of Bazel better: the
// first whose text the message contains is added to it.
var hints = []struct{ message, hint string }{
	{"undefined: null", "Starlark says None"},
	{"undefined: nil", "Starlark says None"},
	{"undefined: true", "Starlark says True"},
	{"undefined: false", "Starlark says False"},
	{"return statement not within", "the result of a text is its last expression, which stands alone: write it without return"},
	{"unexpected input character '“'", `quotes are plain ones: "…" or '…'`},
	{"unexpected input character '‘'", `quotes are plain ones: '…' or "…"`},
	{"undefined: open", "the files are target's: target.read(path), target.write(path, text)"},
	{"undefined: params", "in a text with functions each entry gets params as its parameter: def sign(params)"},
	{"undefined: isinstance", `compare types by name: type(x) == "string"`},
	{"undefined: Exception", `Starlark has no exceptions; fail("why") ends the script, attempt(f, …) goes on`},
	{"got import", "a text is one file; json is there already, and modules.call(name, entry, params) runs another module"},
	{"got from", "a text is one file; json is there already, and modules.call(name, entry, params) runs another module"},
	{"got try", "Starlark has no exceptions; attempt(f, …) tells whether a call succeeded"},
	{"got raise", `Starlark has no exceptions; fail("why") ends the script`},
	{"got class", `Starlark has no classes; struct(name = "…") has fields, and a dict has keys`},
	{"got with", "Starlark has no with; target.read(path) and target.write(path, text) need none"},
	{"got string literal, want", `join strings with +; call a function with brackets: print("hello")`},
	{"got is,", "Starlark has no is; write =="},
	{`f"…"`, `Starlark has no f"…"; write "hello {}".format(name) or "hello %s" % name`},
	{"got del", "Starlark has no del; write d.pop(key)"},
	{"got global", "a function cannot assign what is outside of it; return the value"},
	{"unindent does not match", "a block's lines begin alike: with as many blanks, or tabs"},
	{"frozen", "what a text makes outside of its functions is the same in each call, and cannot be changed; make a copy, as list(x) or dict(x), or keep it in a record"},
	{"unknown binary op: string + int", `write "…" + str(n), or "… %d" % n`},
	{"unknown binary op: int + string", `write str(n) + "…", or "%d …" % n`},
	{"unknown binary op: string + NoneType", `None is nothing at all; d.get(key, "") gives "" instead`},
}

// hinted adds to a text what to do about a message.
func hinted(text, message string) string {
	for _, h := range hints {
		if strings.Contains(message, h.message) {
			return text + "\n  hint: " + h.hint
		}
	}
	return text
}

// cut makes a message of foreign bytes fit to be read: UTF-8, and not without end.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// brief shows a value in an error: not all of it, which may have no end.
func brief(v starlark.Value) string {
	switch v := v.(type) {
	case starlark.String:
		s := strings.ToValidUTF8(string(v[:min(len(v), 43)]), "\uFFFD")
		if len(v) > 43 {
			s += "…"
		}
		return strconv.Quote(s)
	case starlark.Int:
		if n, ok := v.Int64(); ok {
			return strconv.FormatInt(n, 10)
		}
	case starlark.NoneType, starlark.Bool:
		return v.String()
	}
	return article(v.Type())
}

func article(word string) string {
	switch {
	case word == "NoneType":
		return "None"
	case word == "bytes":
		return word
	case word != "" && strings.IndexByte("aeiou", word[0]) >= 0:
		return "an " + word
	}
	return "a " + word
}
