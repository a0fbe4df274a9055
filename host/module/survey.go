package module

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/script"
)

// Survey is what lies in a layer's directory, for a command that looks at it while
// a worker may have it open: what its names stand for, with pins and maps. Nothing
// is compiled, so a file that does not compile is what its name stands for.
type Survey struct {
	Dir  string
	Pins *Pins // nil if there are none
	List []Standing
}

// Standing is what one name stands for.
type Standing struct {
	Name    string
	Path    string        // of what runs; "" if nothing does
	Pin     script.Digest // zero if it is not pinned
	Held    string        // the file of that name, when it is not what runs; ""
	Problem error         // why nothing runs, or what is wrong beside
}

// Look surveys a directory, which need not be there. Modules are the files with one
// of the suffixes; none means Suffix. They are not read, but for those that are pinned. The error is about
// the PinsFile, and the Survey then is as if that were not there.
func Look(dir string, suffixes ...string) (Survey, error) {
	if len(suffixes) == 0 {
		suffixes = []string{Suffix}
	}
	s := Survey{Dir: dir}
	pins, pinsErr := ReadPins(dir)
	s.Pins = pins
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, errors.Join(pinsErr, fmt.Errorf("list modules: %w", err))
	}
	at := map[string]int{}
	for _, e := range entries {
		suffix := filepath.Ext(e.Name())
		name := strings.TrimSuffix(e.Name(), suffix)
		if !slices.Contains(suffixes, suffix) || strings.HasPrefix(name, ".") {
			continue
		}
		one := Standing{Name: name, Path: filepath.Join(dir, e.Name())}
		switch i, twice := at[name]; {
		case !ValidName(name):
			one.Problem = errors.New("not a module's name: want 1 to 63 of a-z, 0-9 and \"-\"")
		case twice:
			s.List[i].Problem = fmt.Errorf("there are %s and %s; remove all but one", filepath.Base(s.List[i].Path), e.Name())
			continue
		}
		at[name] = len(s.List)
		s.List = append(s.List, one)
	}
	if pins != nil {
		for _, name := range slices.Sorted(maps.Keys(pins.Pin)) {
			i, ok := at[name]
			if !ok {
				i = len(s.List)
				s.List = append(s.List, Standing{Name: name})
			}
			s.List[i] = s.List[i].pinned(dir, pins.Pin[name])
		}
	}
	slices.SortFunc(s.List, func(a, b Standing) int { return strings.Compare(a.Name, b.Name) })
	return s, pinsErr
}

// pinned is what s becomes by a pin.
func (s Standing) pinned(dir string, to script.Digest) Standing {
	p := Standing{Name: s.Name, Pin: to}
	saved, _ := readKept(s.Path)
	if s.Path != "" && sha256.Sum256(saved) != to {
		p.Held = s.Path
	}
	all, err := Versions(dir, s.Name)
	i := slices.IndexFunc(all, func(v Version) bool { return v.Digest == to })
	switch {
	case i >= 0:
		p.Path = all[i].Path(dir)
		_, p.Problem = all[i].Read(dir)
	case s.Path != "" && p.Held == "":
		p.Path = s.Path
	default:
		p.Problem = errors.Join(err, fmt.Errorf("%w: it is pinned to %s, which is not kept here", ErrNotFound, to))
	}
	return p
}

// Code reads what runs, and returns its digest.
func (s Standing) Code() (code []byte, digest script.Digest, err error) {
	if s.Problem != nil {
		return nil, digest, fmt.Errorf("module %s: %w", s.Name, s.Problem)
	}
	if code, err = readKept(s.Path); err != nil {
		return nil, digest, fmt.Errorf("read module %s: %w", s.Name, err)
	}
	return code, sha256.Sum256(code), nil
}

// Get returns what a name stands for in s.
func (s Survey) Get(name string) (Standing, bool) {
	i := slices.IndexFunc(s.List, func(one Standing) bool { return one.Name == name })
	if i < 0 {
		return Standing{}, false
	}
	return s.List[i], true
}

// Locate is Find for surveys: it returns what logic stands for, which of layers has
// it, and whether it is what an owner has mapped logic to. Carried code that is not
// mapped is nobody's: at is -1. Errors wrap ErrNotFound.
func Locate(logic script.Logic, layers ...Survey) (found Standing, at int, instead bool, err error) {
	for i, l := range layers {
		if l.Pins != nil {
			key := logic.Name
			if key == "" {
				key = Asked(logic).String()
			}
			if to, ok := l.Pins.Map[key]; ok {
				for j, below := range layers[i:] {
					if s, ok := below.Get(to); ok {
						return s, i + j, true, nil
					}
				}
				return found, -1, true, fmt.Errorf("%w: %s is mapped to the module %s, which is not there", ErrNotFound, key, to)
			}
		}
		for _, s := range l.List {
			if logic.Name != "" && s.Name == logic.Name {
				return s, i, false, nil
			}
			if logic.Name != "" || logic.Digest.IsZero() {
				continue
			}
			if _, digest, err := s.Code(); err == nil && digest == logic.Digest {
				return s, i, false, nil
			}
		}
	}
	if logic.Name == "" && logic.Digest.IsZero() {
		return found, -1, false, nil
	}
	if logic.Name == "" {
		return found, -1, false, fmt.Errorf("%w: no module with digest %s", ErrNotFound, logic.Digest)
	}
	return found, -1, false, fmt.Errorf("%w: no module named %q", ErrNotFound, logic.Name)
}
