package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// pad fills s up to n columns.
func pad(s string, n int) string {
	if w := utf8.RuneCountInString(s); w < n {
		return s + strings.Repeat(" ", n-w)
	}
	return s
}

// count is "1 file" or "3 files".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok && !strings.HasSuffix(noun, "day") {
		noun = stem + "ie"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// bytesText shows a size as people say it.
func bytesText(n uint64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(uint64(1)<<u.shift)), ".0") + " " + u.name
		}
	}
	return fmt.Sprintf("%d B", n)
}

// number groups digits in threes.
func number(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// splitHint parts a receipt's message into what happened and the command that
// would allow it, "" if there is none.
func splitHint(message string) (reason, hint string) {
	reason, hint, _ = strings.Cut(message, "; to allow it: ")
	return reason, hint
}

// fitCommand breaks a command before its flags, where it is wider than a terminal
// with so much indentation, so that a shell still takes it as one.
func fitCommand(command string, indented int) string {
	const width = 80
	lines := []string{""}
	for i, part := range strings.Split(command, " --") {
		last := &lines[len(lines)-1]
		if i == 0 {
			*last = part
		} else if indented+utf8.RuneCountInString(*last)+len(" --")+utf8.RuneCountInString(part)+len(" \\") > width {
			lines = append(lines, strings.Repeat(" ", indented+2)+"--"+part)
		} else {
			*last += " --" + part
		}
	}
	return strings.Join(lines, " \\\n")
}

// wrap breaks text into lines of at most width columns, between words.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
