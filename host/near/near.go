// Package near finds the name that a person who wrote another one may have meant, for
// "did you mean …?".
package near

import "strings"

// maxName is the longest that is looked at, in bytes: what is longer is nobody's slip.
const maxName = 200

// Name returns that of names which who wrote s may have meant, or "": one in which up to
// a third of the characters differ, whatever their case. Of two that are as near it is
// the one in the same case.
func Name(s string, names []string) string {
	if len(s) > maxName {
		return ""
	}
	best, least := "", max(1, len(s)/3)+1
	for _, n := range names {
		switch d := distance(strings.ToLower(s), strings.ToLower(n), least+1); {
		case n == s:
		case d < least, d == least && best != "" && distance(s, n, len(s)) < distance(s, best, len(s)):
			best, least = n, d
		}
	}
	return best
}

// distance is the number of characters to change, add, leave out or swap with
// their neighbour between a and b, or most when it is not less.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	before, above := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := above[j]
			if a[i] != b[j] {
				cost = 1 + min(above[j], above[j+1], row[j])
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cost = min(cost, before[j-1]+1)
			}
			row[j+1] = cost
		}
		before, above = above, row
	}
	return min(above[len(b)], most)
}
