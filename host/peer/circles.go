package peer

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Limits of a circles file; its size is bounded too.
const (
	maxCircles = 1024
	maxMembers = 20_000 // over all circles
	maxWithin  = 50_000 // circles in circles, directly or not: a thousand can be in each other half a million times
)

// Circles are the groups that the owner of a context names, for use in that
// context's policies. They are read from a file of lines
//
//	friends = ["alice", "did:key:z6Mk…"]
//	family  = ["carol"]
//	close   = ["dave", "circle:friends", "circle:family"]
//
// Whoever is in a circle that is in another is in that one too. No circle is in
// itself, in whatever way.
//
// Circles are immutable and safe for concurrent use. The zero value has none.
type Circles struct {
	names  []string // sorted
	byID   map[ID][]string
	byName map[Name][]string
	within map[string][]string // all that a circle is in, sorted; only of those that are in some
}

// ReadCircles reads a circles file; one that is not there is empty. known, if
// not nil, says whether a petname is one: a circle may be what a policy forbids
// something to, and a misspelt member of that would be let in.
//
// Anything that is not as it should be is an error, "file:line: what to do".
func ReadCircles(path string, known func(Name) bool) (*Circles, error) {
	text, err := readConfig(path)
	if errors.Is(err, os.ErrNotExist) {
		return &Circles{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read circles: %w", err)
	}
	return ParseCircles(path, text, known)
}

// ParseCircles is ReadCircles for a text at hand; file is its name in errors.
func ParseCircles(file string, text []byte, known func(Name) bool) (*Circles, error) {
	c := &Circles{byID: map[ID][]string{}, byName: map[Name][]string{}}
	var p unstable.Parser
	p.Reset(text)
	line := func(n *unstable.Node) int { return p.Shape(n.Raw).Start.Line }
	members := 0
	nested := nesting{file: file, in: map[string][]string{}, line: map[[2]string]int{}}
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Comment:
			continue
		case unstable.KeyValue:
		default:
			key := e.Key()
			key.Next()
			return nil, fmt.Errorf("%s:%d: a table, but this file has only lines such as friends = [\"alice\"]", file, line(key.Node()))
		}
		key := e.Key()
		key.Next()
		at := line(key.Node())
		circle := string(key.Node().Data)
		if !key.IsLast() {
			return nil, fmt.Errorf("%s:%d: the name of circle %q has a dot: use a-z, 0-9 and -", file, at, circle)
		}
		if _, err := ParseName(circle); err != nil {
			return nil, fmt.Errorf("%s:%d: name of a circle: %w", file, at, err)
		}
		if slices.Contains(c.names, circle) {
			return nil, fmt.Errorf("%s:%d: circle %q is there twice: put its members in one list", file, at, circle)
		}
		if len(c.names) == maxCircles {
			return nil, fmt.Errorf("%s:%d: more than %d circles", file, at, maxCircles)
		}
		c.names = append(c.names, circle)
		if e.Value().Kind != unstable.Array {
			return nil, fmt.Errorf("%s:%d: circle %q must be a list of petnames and ids: %s = [\"alice\"]", file, at, circle, circle)
		}
		for it := e.Value().Children(); it.Next(); {
			n := it.Node()
			if n.Kind == unstable.Comment {
				continue
			}
			if n.Raw.Length > 0 {
				at = line(n)
			}
			if n.Kind != unstable.String {
				return nil, fmt.Errorf("%s:%d: circle %q: a member must be a petname, an id or a circle:NAME in quotes", file, at, circle)
			}
			if members++; members > maxMembers {
				return nil, fmt.Errorf("%s:%d: more than %d members in all", file, at, maxMembers)
			}
			if inner, ok := strings.CutPrefix(string(n.Data), circlePrefix); ok {
				nested.add(inner, circle, at)
				continue
			}
			if err := c.add(circle, string(n.Data), known); err != nil {
				return nil, fmt.Errorf("%s:%d: circle %q: %w", file, at, circle, err)
			}
		}
	}
	if err := p.Error(); err != nil {
		return nil, syntaxError(file, text, &p, err)
	}
	slices.Sort(c.names)
	var err error
	if c.within, err = nested.resolve(c.names); err != nil {
		return nil, err
	}
	return c, nil
}

// circlePrefix begins a member that is a circle. No petname has a colon.
const circlePrefix = "circle:"

// nesting is which circles are in which, as the file has it.
type nesting struct {
	file string
	in   map[string][]string // by circle, those that have it as a member
	line map[[2]string]int   // of that
}

func (n *nesting) add(inner, outer string, line int) {
	if n.line[[2]string{inner, outer}] == 0 {
		n.in[inner] = append(n.in[inner], outer)
		n.line[[2]string{inner, outer}] = line
	}
}

// resolve finds all circles that each circle is in.
func (n *nesting) resolve(names []string) (map[string][]string, error) {
	within := make(map[string][]string, len(n.in))
	total := 0
	var way []string // from one circle outwards, to find one that is in itself
	var visit func(circle string) error
	visit = func(circle string) error {
		if within[circle] != nil || len(n.in[circle]) == 0 {
			return nil
		}
		way = append(way, circle)
		var all []string
		for _, outer := range n.in[circle] {
			if i := slices.Index(way, outer); i >= 0 {
				ring := append(slices.Clone(way[i:]), outer)
				const shown = 8
				if len(ring) > shown {
					ring = append(ring[:shown-1:shown-1], "…", outer)
				}
				return fmt.Errorf("%s:%d: circle %q is in itself, which says nothing (%s): take one of them out",
					n.file, n.line[[2]string{circle, outer}], outer, strings.Join(ring, " is in "))
			}
			if err := visit(outer); err != nil {
				return err
			}
			all = append(append(all, outer), within[outer]...)
		}
		way = way[:len(way)-1]
		slices.Sort(all)
		all = slices.Clip(slices.Compact(all))
		if total += len(all); total > maxWithin {
			return fmt.Errorf("%s:%d: circles are in each other in more than %d ways: nest them less", n.file, n.line[[2]string{circle, n.in[circle][0]}], maxWithin)
		}
		within[circle] = all
		return nil
	}
	// In order, so that the same file has the same first error.
	for _, inner := range slices.Sorted(maps.Keys(n.in)) {
		if _, ok := slices.BinarySearch(names, inner); !ok {
			outer := n.in[inner][0]
			return nil, fmt.Errorf("%s:%d: circle %q: there is no circle %.80q here: correct it, or make one", n.file, n.line[[2]string{inner, outer}], outer, inner)
		}
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return within, nil
}

func (c *Circles) add(circle, member string, known func(Name) bool) error {
	if len(member) > len("did:") && member[:len("did:")] == "did:" {
		id, err := ParseID(member)
		if err != nil {
			return err
		}
		c.byID[id] = append(c.byID[id], circle)
		return nil
	}
	name, err := ParseName(member)
	if err != nil {
		return err
	}
	if known != nil && !known(name) {
		return fmt.Errorf("no peer is called %q here: correct it, add the peer, or give its did:key", name)
	}
	c.byName[name] = append(c.byName[name], circle)
	return nil
}

// Names returns the names of all circles, sorted.
func (c *Circles) Names() []string { return slices.Clone(c.names) }

// Equal reports whether both have the same circles with the same members.
func (c *Circles) Equal(other *Circles) bool {
	if c == nil || other == nil {
		return c == other
	}
	return slices.Equal(c.names, other.names) && maps.EqualFunc(c.byID, other.byID, slices.Equal) &&
		maps.EqualFunc(c.byName, other.byName, slices.Equal) && maps.EqualFunc(c.within, other.within, slices.Equal)
}

// Of returns the circles of the peer with that id, whom the owner calls name (""
// for a stranger), sorted.
func (c *Circles) Of(id ID, name Name) []string {
	in := c.byID[id]
	if name != "" {
		in = slices.Concat(in, c.byName[name])
	}
	in = slices.Clone(in)
	for _, circle := range in {
		in = append(in, c.within[circle]...)
	}
	slices.Sort(in)
	return slices.Compact(in)
}

// syntaxError puts the line on an error of the parser.
func syntaxError(file string, text []byte, p *unstable.Parser, err error) error {
	var bad *unstable.ParserError
	if errors.As(err, &bad) {
		at := 1
		if len(bad.Highlight) > 0 {
			at = p.Shape(p.Range(bad.Highlight)).Start.Line
		} else if len(text) > 0 {
			at = p.Shape(unstable.Range{Offset: uint32(len(text)) - 1, Length: 1}).Start.Line
		}
		return fmt.Errorf("%s:%d: %s", file, at, bad.Message)
	}
	return fmt.Errorf("%s: %w", file, err)
}
