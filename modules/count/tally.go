package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"unicode"
)

const (
	minGroup  = 5        // files that must share a value before it is named
	maxFiles  = 10_000   // in the folder
	maxFile   = 64 << 10 // bytes; a larger file is left out
	maxValue  = 64       // bytes of a value; a longer one is not a group's name
	maxGroups = 100      // values that are named
)

type params struct {
	Dir   string `json:"dir"`
	Field string `json:"field"`
	Min   int    `json:"min"` // 0 means minGroup; less is refused, more is stricter
}

// result says nothing from which the size of a suppressed group follows: there is
// no total, and Other is left out when it would be small itself.
type result struct {
	Field  string         `json:"field"`
	Counts map[string]int `json:"counts"`
	// Other is how many files have a value that is not named; 0 and absent when
	// there are fewer than Min of them.
	Other int `json:"other,omitempty"`
	Min   int `json:"min"`
}

// tally counts. Its errors are returned to the caller and logged in the receipt,
// so they speak of the params only: neither of a file's contents nor of its name.
func tally(fsys fs.FS, p params) (*result, error) {
	dir := path.Clean("/" + p.Dir)[1:]
	if dir == "" {
		dir = "."
	}
	switch {
	case p.Dir == "":
		return nil, errors.New(`params: want {"dir": "/survey", "field": "diet"}`)
	case p.Field == "" || len(p.Field) > maxValue:
		return nil, fmt.Errorf("params: field has %d bytes; want 1 to %d", len(p.Field), maxValue)
	case p.Min != 0 && p.Min < minGroup:
		return nil, fmt.Errorf("params: min is %d; groups below %d are never shown", p.Min, minGroup)
	}
	least := max(p.Min, minGroup)

	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > maxFiles {
		return nil, fmt.Errorf("count %s: it has more than %d entries", p.Dir, maxFiles)
	}
	groups := map[string]int{}
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		if value, ok := read(fsys, path.Join(dir, e.Name()), p.Field); ok {
			groups[value]++
		}
	}

	r := &result{Field: p.Field, Counts: map[string]int{}, Min: least}
	other := 0
	for value, n := range groups {
		if n >= least && value != "" {
			r.Counts[value] = n
		} else {
			other += n
		}
	}
	if len(r.Counts) > maxGroups {
		return nil, fmt.Errorf("count %s: %q has more than %d values; it is not a field to group by", p.Dir, p.Field, maxGroups)
	}
	if other >= least {
		r.Other = other
	}
	return r, nil
}

// read returns one file's value of the field as a group's name: "" for one that
// cannot be a name. A file that is too large, cannot be read, is not a JSON object
// or lacks the field does not count at all; which it was is nobody's business.
func read(fsys fs.FS, name, field string) (string, bool) {
	info, err := fs.Stat(fsys, name)
	if err != nil || info.Size() > maxFile {
		return "", false
	}
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return "", false
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(b, &object) != nil {
		return "", false
	}
	raw, ok := object[field]
	if !ok {
		return "", false
	}
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return "", false
	}
	switch v := value.(type) {
	case string:
		if len(v) > maxValue || strings.ContainsFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return "", true
		}
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	}
	return "", true
}
