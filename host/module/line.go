package module

import (
	"errors"
	"fmt"
	"slices"
)

// Place is a module in a line of those that stand one before the other.
type Place struct {
	*Found
	// Stage says that a compose file has put it there; else it is the module that was
	// asked for, or one of its name in a layer below.
	Stage bool
}

// ErrComposed is wrapped by errors about a compose file that keeps a module from
// running.
var ErrComposed = errors.New("what is to run before it is not known")

// maxLine bounds a line: two layers' stages, and the module in each.
const maxLine = 2*MaxStages + 2

// Composed reports whether a compose file in layers may be about f. It costs next to
// nothing where there is none.
func (f *Found) Composed(layers ...*Layer) bool {
	return f.version != nil && slices.ContainsFunc(layers, func(l *Layer) bool {
		c := l.composed.Load()
		_, named := c.chains[f.Name]
		return named || c.broken != nil
	})
}

// Line is what runs where f is asked for, the first first: what the compose files of
// layers put before it; f; and what f stands before: the modules of its name in the
// layers below its own, with what is put before those there. layers are those that f
// was looked for in. Who asked for f by its digest is spared the modules of its name
// in the layers above, and no stage.
//
// All that it finds is f's: Release releases it. The error wraps ErrNotFound or
// ErrComposed.
func (f *Found) Line(layers ...*Layer) ([]Place, error) {
	if f.version == nil { // it has no name here
		return []Place{{Found: f}}, nil
	}
	line, err := f.line(f.Name, layers, false)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", f.Name, err)
	}
	return line, nil
}

// line is the line for name in layers; passed says that f is in a layer above.
func (f *Found) line(name string, layers []*Layer, passed bool) ([]Place, error) {
	if len(layers) == 0 {
		return nil, nil
	}
	l := layers[0]
	c := l.composed.Load()
	if c.broken != nil {
		return nil, fmt.Errorf("%w: %s of the layer %s has a mistake, and nothing of it runs until that is mended", ErrComposed, ComposeFile, l.label)
	}
	here := f.Layer == l.label
	var own []Place
	switch {
	case here:
		own = []Place{{Found: f}}
	case passed:
		m, err := l.lookUp(name)
		if err != nil {
			return nil, err
		}
		if f.also(m) != nil {
			own = []Place{{Found: m}}
		}
	}
	below, err := f.line(name, layers[1:], passed || here)
	if err != nil || len(own)+len(below) == 0 {
		return nil, err
	}
	var stages []Place
	for _, stage := range c.chains[name].names {
		if stage == name {
			continue
		}
		if stages, err = f.stage(stages, stage, layers); err != nil {
			return nil, err
		}
	}
	all := slices.Concat(stages, own, below)
	if len(all) > maxLine {
		return nil, fmt.Errorf("%w: more than %d modules run for it", ErrComposed, maxLine)
	}
	return all, nil
}

// stage appends the stage of that name, from layers, after those that stand before it.
func (f *Found) stage(line []Place, name string, layers []*Layer) ([]Place, error) {
	for i, l := range layers {
		c := l.composed.Load()
		if c.broken != nil {
			break
		}
		m, err := l.lookUp(name)
		if err != nil {
			return nil, err
		}
		of, composed := c.chains[name]
		if m == nil && !composed {
			continue
		}
		m = f.also(m)
		for _, before := range of.names {
			if before == name {
				continue
			}
			if len(line) > maxLine {
				break // files that changed while this was looked up
			}
			if line, err = f.stage(line, before, layers[i:]); err != nil {
				return nil, err
			}
		}
		if m == nil {
			return f.stage(line, name, layers[i+1:])
		}
		return append(line, Place{m, true}), nil
	}
	return nil, fmt.Errorf("%w: no module named %q here, which is to run before it", ErrNotFound, name)
}

// also has m released with f.
func (f *Found) also(m *Found) *Found {
	if m != nil {
		f.with = append(f.with, m)
	}
	return m
}
