package module

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Side is one of two modules that are compared.
type Side struct {
	Info      engine.Info
	Publisher peer.ID
	Source    []SourceFile // what it carries, or the text that it is; nil if neither
}

// Difference is how one module differs from another: what an owner wants to know of
// a version before it runs. It is empty for two that are the same bytes.
type Difference struct {
	Values []ValueDifference `json:"values,omitempty"` // in a fixed order
	Lists  []ListDifference  `json:"lists,omitempty"`
	Source []FileDifference  `json:"source,omitempty"` // of those that have one both
	// NoSource says of which there is none, "before", "after" or "both", so that nothing
	// can be said; "" if of none, or if the modules are the same.
	NoSource string `json:"no_source,omitempty"`
}

// ValueDifference is one property that each has one of.
type ValueDifference struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// ListDifference is one property that each has several of.
type ListDifference struct {
	What string   `json:"what"`
	Gone []string `json:"gone,omitempty"`
	New  []string `json:"new,omitempty"`
}

// FileDifference is one file of the source.
type FileDifference struct {
	Name string `json:"name"`
	Kind string `json:"kind"`           // "new", "gone" or "changed"
	Diff string `json:"diff,omitempty"` // unified; "" if it is no text, or too long to be compared
}

// Bounds of what is compared line by line, in bytes: the time that it takes grows
// with the square of what differs.
const (
	maxDiffed   = 256 << 10 // of one file
	maxAllDiffs = 1 << 20   // of all diffs together
)

// Compare says how b differs from a. What it says of entries, types, and grants is
// the modules' own word, as is the source.
func Compare(a, b Side) (d Difference) {
	if a.Info.Digest == b.Info.Digest && a.Info.Language == b.Info.Language {
		return d
	}
	value := func(what, before, after string) {
		if before != after {
			d.Values = append(d.Values, ValueDifference{what, before, after})
		}
	}
	value("digest", script.Digest(a.Info.Digest).String(), script.Digest(b.Info.Digest).String())
	value("size", fmt.Sprint(a.Info.Size), fmt.Sprint(b.Info.Size))
	value("shape", string(a.Info.Shape), string(b.Info.Shape))
	value("publisher", string(a.Publisher), string(b.Publisher))
	value("language", a.Info.Language, b.Info.Language)
	value("toolchain", a.Info.Toolchain, b.Info.Toolchain)
	value("memory", fmt.Sprint(a.Info.Memory), fmt.Sprint(b.Info.Memory))
	before, after := described(a.Info), described(b.Info)
	value("description", before.about, after.about)
	list := func(what string, before, after []string) {
		l := ListDifference{what, less(before, after), less(after, before)}
		if len(l.Gone)+len(l.New) > 0 {
			d.Lists = append(d.Lists, l)
		}
	}
	list("imports", before.imports, after.imports)
	list("entries", a.Info.Entries, b.Info.Entries)
	list("types", before.types, after.types)
	list("needs", before.needs, after.needs)
	list("lends", before.lends, after.lends)
	switch {
	case a.Source == nil && b.Source == nil:
		d.NoSource = "both"
	case a.Source == nil:
		d.NoSource = "before"
	case b.Source == nil:
		d.NoSource = "after"
	default:
		d.Source = compareFiles(a.Source, b.Source)
	}
	return d
}

// Same reports whether there is no difference.
func (d Difference) Same() bool { return len(d.Values)+len(d.Lists)+len(d.Source) == 0 }

type description struct {
	about                        string
	imports, types, needs, lends []string
}

func described(i engine.Info) (d description) {
	for _, f := range i.Imports {
		d.imports = append(d.imports, f.Module+" "+f.Name)
	}
	m := i.Manifest
	if m == nil {
		return d
	}
	d.about = m.Description
	for entry, types := range m.Types() {
		for _, key := range slices.Sorted(maps.Keys(types)) {
			d.types = append(d.types, fmt.Sprintf("%s: %s %s", entry, key, types[key]))
		}
	}
	for _, n := range m.Needs {
		d.needs = append(d.needs, n.Action+" "+n.Path)
	}
	for _, n := range m.Lends {
		d.lends = append(d.lends, n.Action+" "+n.Path)
	}
	return d
}

// less is what is in a and not in b, sorted.
func less(a, b []string) (list []string) {
	in := map[string]bool{}
	for _, s := range b {
		in[s] = true
	}
	for _, s := range a {
		if !in[s] {
			list = append(list, s)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func compareFiles(a, b []SourceFile) (list []FileDifference) {
	before, after := byName(a), byName(b)
	all := maps.Clone(before)
	maps.Copy(all, after)
	room := maxAllDiffs
	for _, name := range slices.Sorted(maps.Keys(all)) {
		x, was := before[name]
		y, is := after[name]
		f := FileDifference{Name: name, Kind: "changed"}
		switch {
		case was && is && bytes.Equal(x, y):
			continue
		case !was:
			f.Kind = "new"
		case !is:
			f.Kind = "gone"
		}
		if max(len(x), len(y)) <= maxDiffed && isText(x) && isText(y) && room > 0 {
			f.Diff = udiff.Unified("before/"+name, "after/"+name, string(x), string(y))
			if len(f.Diff) > room {
				f.Diff = f.Diff[:strings.LastIndexByte(f.Diff[:room], '\n')+1] + "… more\n"
			}
			room -= len(f.Diff)
		}
		list = append(list, f)
	}
	return list
}

func byName(files []SourceFile) map[string][]byte {
	all := map[string][]byte{}
	for _, f := range files {
		all[f.Name] = f.Text
	}
	return all
}

func isText(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// Sections lists how two modules differ that should be the same, section by section,
// in the order of the first: "code: 812 bytes, and 820".
func Sections(a, b []byte) (differences []string, err error) {
	type section struct {
		name    string
		content []byte
	}
	read := func(wasm []byte) (all []section, err error) {
		err = sections(wasm, func(name string, custom bool, content []byte, _, _ int) {
			if custom {
				name = fmt.Sprintf("custom section %q", name)
			}
			all = append(all, section{name, content})
		})
		return all, err
	}
	before, err := read(a)
	if err != nil {
		return nil, err
	}
	after, err := read(b)
	if err != nil {
		return nil, err
	}
	for i := range max(len(before), len(after)) {
		switch {
		case len(differences) == 20:
			return append(differences, "and more"), nil
		case i >= len(after):
			differences = append(differences, fmt.Sprintf("%s: %d bytes, and none", before[i].name, len(before[i].content)))
		case i >= len(before):
			differences = append(differences, fmt.Sprintf("%s: none, and %d bytes", after[i].name, len(after[i].content)))
		case before[i].name != after[i].name:
			return append(differences, fmt.Sprintf("%s in place of %s", after[i].name, before[i].name)), nil
		case !bytes.Equal(before[i].content, after[i].content):
			differences = append(differences, fmt.Sprintf("%s: %d bytes, and %d", before[i].name, len(before[i].content), len(after[i].content)))
		}
	}
	return differences, nil
}
