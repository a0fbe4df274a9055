package policy

import (
	"fmt"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on the text of policies. Cedar-go's parser, its type checker and its
// evaluator all recurse over what they are given and have no bounds of their
// own: 1 MiB of "(" is a goroutine stack of more than a hundred MiB, and some
// parts take time that is quadratic. These keep the deepest stack and the
// longest load small, and leave room for policies far larger than people write.
const (
	maxFile        = 1 << 20  // bytes of one file
	maxTotal       = 16 << 20 // bytes of all files
	maxFiles       = 1000
	maxPolicies    = 10_000 // in all files
	maxNesting     = 64     // of brackets
	maxOperators   = 1000   // in one policy; each may be one level of the syntax tree
	maxCommas      = 10_000 // in one policy: elements of sets and records
	maxAnnotations = 32     // of one policy
	maxNamespaces  = 8      // "::" in a row
	maxID          = 128    // bytes of a policy's id
)

// token is a piece of policy text. Only so much is told apart as bounds and
// positions need; whether it is Cedar is for cedar-go to say.
type token struct {
	text         string // a string's with its quotes
	line, column int    // from 1; columns count characters
}

// tokenize splits text as cedar-go does: a string or a comment starts and ends
// at the same places, or else text is not Cedar.
func tokenize(text string) iter.Seq[token] {
	return func(yield func(token) bool) {
		line, counted, column := 1, 0, 1 // column is that of the byte at counted
		for i := 0; i < len(text); {
			n, blank := tokenLen(text[i:])
			if !blank {
				// Counted onwards from the last token: a line may be a MiB long.
				column += utf8.RuneCountInString(text[counted:i])
				counted = i
				if !yield(token{text[i : i+n], line, column}) {
					return
				}
			} else if lines := strings.Count(text[i:i+n], "\n"); lines > 0 {
				line += lines
				counted, column = i+strings.LastIndexByte(text[i:i+n], '\n')+1, 1
			}
			i += n
		}
	}
}

// tokenLen returns the length of what s starts with, and whether that is white
// space or a comment.
func tokenLen(s string) (n int, blank bool) {
	word := func(c byte) bool {
		return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	}
	switch c := s[0]; {
	case c == '\n', c == ' ', c == '\t', c == '\r':
		return 1, true
	case strings.HasPrefix(s, "//"):
		if n := strings.IndexByte(s, '\n'); n >= 0 {
			return n, true
		}
		return len(s), true
	case strings.HasPrefix(s, "/*"):
		if n := strings.Index(s[2:], "*/"); n >= 0 {
			return n + 4, true
		}
		return len(s), true
	case word(c):
		n := 1
		for n < len(s) && word(s[n]) {
			n++
		}
		return n, false
	case c == '"':
		for n := 1; n < len(s); n++ {
			switch s[n] {
			case '"':
				return n + 1, false
			case '\n':
				return n, false
			case '\\':
				n++
			}
		}
		return len(s), false
	case len(s) > 1:
		switch s[:2] {
		case "::", "==", "!=", "<=", ">=", "&&", "||":
			return 2, false
		}
	}
	_, n = utf8.DecodeRuneInString(s)
	return n, false
}

// span is the text of one policy.
type span struct {
	tokens []token
}

// split divides a file into policies, at each ";" outside of brackets, and checks
// each against the bounds. Only text that keeps them is handed to cedar-go.
func split(text string) ([]span, *Problem) {
	var spans []span
	var tokens []token // of the policy that is being read
	nesting, operators, commas, annotations, colons := 0, 0, 0, 0, 0
	for t := range tokenize(text) {
		if t.text != "::" && (len(tokens) == 0 || tokens[len(tokens)-1].text != "::") {
			colons = 0
		}
		tokens = append(tokens, t)
		over := ""
		switch t.text {
		case "(", "[", "{":
			if nesting++; nesting > maxNesting {
				over = fmt.Sprintf("brackets are nested more than %d deep", maxNesting)
			}
		case ")", "]", "}":
			nesting-- // more closed than opened is cedar-go's to report
		case ",", ":":
			if commas++; commas > 2*maxCommas {
				over = fmt.Sprintf("a policy has more than %d elements", maxCommas)
			}
		case "@":
			if annotations++; annotations > maxAnnotations {
				over = fmt.Sprintf("a policy has more than %d annotations", maxAnnotations)
			}
		case "::":
			if colons++; colons > maxNamespaces {
				over = fmt.Sprintf("a name has more than %d parts", maxNamespaces)
			}
		case ";":
			if nesting > 0 {
				break
			}
			spans = append(spans, span{tokens})
			if len(spans) > maxPolicies {
				over = fmt.Sprintf("there are more than %d policies", maxPolicies)
			}
			tokens = nil
			nesting, operators, commas, annotations = 0, 0, 0, 0
		}
		switch t.text {
		case "[", // a["b"]["c"] nests as a.b.c does
			"&&", "||", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "!", ".",
			"if", "then", "else", "in", "is", "has", "like", "when", "unless":
			if operators++; operators > maxOperators {
				over = fmt.Sprintf("a policy has more than %d operators; split it", maxOperators)
			}
		}
		if over != "" {
			return nil, &Problem{Line: t.line, Column: t.column, Message: over}
		}
	}
	return spans, nil
}

// excerpt is what to show of a line, n from 1, around a column, from 1: all of
// it, unless it is very long. Nothing in it can drive a terminal.
func excerpt(text string, n, column int) string {
	for ; n > 1; n-- {
		_, after, ok := strings.Cut(text, "\n")
		if !ok {
			return ""
		}
		text = after
	}
	text, _, _ = strings.Cut(text, "\n")
	const before, most = 60, 160
	from, to := 0, len(text)
	if len(text) > most {
		for range max(0, column-before) {
			_, n := utf8.DecodeRuneInString(text[from:])
			from += n
		}
		to = min(from+most, len(text))
	}
	shown := graphic(strings.TrimRight(text[from:to], "\r"))
	if from > 0 {
		shown = "…" + shown
	}
	if to < len(text) {
		shown += "…"
	}
	return shown
}

// graphic is s without what drives a terminal.
func graphic(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsGraphic(r):
			return r
		}
		return utf8.RuneError
	}, s)
}
