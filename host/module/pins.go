package module

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/script"
)

// PinsFile is the file of a layer's directory by which its owner decides which code
// a name or a digest stands for:
//
//	[pin]
//	guestbook = "sha256:6f0c…"        # these bytes, whatever is saved as guestbook.wasm
//
//	[map]
//	greeter        = "my-greeter"     # who asks for greeter gets my-greeter
//	"sha256:91ab…" = "my-greeter"     # and so does who asks for that code, or brings it
//
// A pinned name has that version and no other. It is taken from what is kept (see
// Keep), from the file that has the name, or from a layer below, and is then kept
// here, so that it stays what it is whatever becomes of the others. What nobody
// has leaves in force what was, and is Problem; if nothing was, the name stands for
// nothing, and not for what a layer below has by it.
//
// A map is asked for what the script names or brings, before anything is looked up,
// and once: what it leads to is the module that this layer, or one below, has by
// that name. It may not be mapped again, so there are no cycles. One that is not
// there is an error for who asks for it, and Problem.
//
// The file is followed while the layer is open. One with a mistake in it leaves in
// force what was; if nothing was, as after a start, no script finds any code here or
// below, since what its owner decided against could run.
const PinsFile = "pins.toml"

// Bounds of a PinsFile.
const (
	maxPinsFile = 256 << 10 // bytes
	maxPins     = 1000      // and as many maps
)

// Pins are what a PinsFile says. They do not change.
type Pins struct {
	Pin map[string]script.Digest // by name
	Map map[string]string        // to the name of a module, by name or "sha256:" and hex digits in lower case
}

// ErrPins is wrapped by the error about code that cannot be looked up, since the
// PinsFile of a layer has a mistake in it.
var ErrPins = errors.New("what its owner decided about modules cannot be read")

// ReadPins reads the PinsFile of a directory; nil if there is none. What is not as
// it should be is an error with file and line.
func ReadPins(dir string) (*Pins, error) {
	path := filepath.Join(dir, PinsFile)
	text, err := readPins(path)
	if err != nil || text == nil {
		return nil, err
	}
	return ParsePins(path, text)
}

// readPins is nil if there is no file.
func readPins(path string) ([]byte, error) {
	text, err := readRested(path, maxPinsFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read pins: %w", err)
	case len(text) > maxPinsFile:
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxPinsFile)
	}
	return text, nil
}

// ParsePins is ReadPins for a text at hand; file is its name in errors.
func ParsePins(file string, text []byte) (*Pins, error) {
	var raw struct {
		Pin map[string]string `toml:"pin"`
		Map map[string]string `toml:"map"`
	}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields() // a section that is misspelt is a pin that is not there
	if err := d.Decode(&raw); err != nil {
		var unknown *toml.StrictMissingError
		var decode *toml.DecodeError
		switch {
		case errors.As(err, &unknown) && len(unknown.Errors) > 0:
			line, _ := unknown.Errors[0].Position()
			return nil, fmt.Errorf("%s:%d: there is no setting %q; there are [pin] and [map]", file, line, strings.Join(unknown.Errors[0].Key(), "."))
		case errors.As(err, &decode):
			line, column := decode.Position()
			return nil, fmt.Errorf("%s:%d:%d: %s", file, line, column, strings.TrimPrefix(decode.Error(), "toml: "))
		}
		return nil, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "toml: "))
	}
	if max(len(raw.Pin), len(raw.Map)) > maxPins {
		return nil, fmt.Errorf("%s: more than %d pins, or maps", file, maxPins)
	}
	fail := func(section, key, format string, a ...any) error {
		at := file
		if _, line := lineOf(text, section, key); line > 0 {
			at = fmt.Sprintf("%s:%d", file, line)
		}
		return fmt.Errorf("%s: [%s] %s: %s", at, section, key, fmt.Sprintf(format, a...))
	}
	p := &Pins{Pin: map[string]script.Digest{}, Map: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(raw.Pin)) {
		if !ValidName(name) {
			return nil, fail("pin", name, "not a module's name: want 1 to 63 of a-z, 0-9 and \"-\"")
		}
		digest, err := script.ParseDigest(raw.Pin[name])
		if err != nil || digest.IsZero() {
			return nil, fail("pin", name, "want the digest of a version, as in %s = \"sha256:…\"; module versions %s lists them", name, name)
		}
		p.Pin[name] = digest
	}
	for _, from := range slices.Sorted(maps.Keys(raw.Map)) {
		to, key := raw.Map[from], from
		if !ValidName(from) {
			digest, err := script.ParseDigest(from)
			if err != nil || digest.IsZero() || !strings.HasPrefix(from, "sha256:") {
				return nil, fail("map", from, "want the name or the digest, \"sha256:…\", that scripts ask for")
			}
			key = digest.String()
		}
		if !ValidName(to) {
			return nil, fail("map", from, "want the name of the module that runs instead")
		}
		if _, twice := p.Map[key]; twice {
			return nil, fail("map", from, "it is mapped twice")
		}
		p.Map[key] = to
	}
	for _, from := range slices.Sorted(maps.Keys(p.Map)) {
		to := p.Map[from]
		next, again := p.Map[to]
		if !again {
			continue
		}
		way := []string{from, to}
		for again && len(way) < 20 && !slices.Contains(way[:len(way)-1], way[len(way)-1]) {
			way = append(way, next)
			next, again = p.Map[next]
		}
		if last := way[len(way)-1]; slices.Contains(way[:len(way)-1], last) {
			return nil, fail("map", from, "it leads back to where it was: %s", strings.Join(way, " → "))
		}
		return nil, fail("map", from, "%s is itself mapped, to %s; write the module that is to run in the end", to, p.Map[to])
	}
	return p, nil
}

// lineOf finds the line of text in which a section says what key is, and where a
// line for it may be put: both are numbers from 1, 0 if there is no such line or
// section. It takes a text that ParsePins understands; a key in a form that nobody
// writes by hand it does not find.
func lineOf(text []byte, section, key string) (end, line int) {
	in := false
	for i, l := range strings.Split(string(text), "\n") {
		l = strings.TrimSpace(l)
		if strings.HasPrefix(l, "[") {
			name, _, _ := strings.Cut(strings.TrimPrefix(l, "["), "]")
			if in = strings.TrimSpace(name) == section; in {
				end = i + 1
			}
			continue
		}
		if !in || l == "" || l[0] == '#' {
			continue
		}
		end = i + 1
		if before, _, ok := strings.Cut(l, "="); ok && strings.Trim(strings.TrimSpace(before), `"'`) == key {
			return end, i + 1
		}
	}
	return end, 0
}

// pinned is what a layer has in force of its PinsFile. It does not change.
type pinned struct {
	*Pins
	// lost are pinned names for which there is no code, and why.
	lost map[string]error
	// unread is what is wrong with a file of which nothing was ever in force.
	unread error
}

// takePins brings the PinsFile into force, and returns what of it is not. It runs
// with l.loading held.
func (l *Layer) takePins() (problems []error) {
	pins, err := ReadPins(l.dir)
	before := l.pins.Load()
	switch {
	case err == nil && pins == nil:
		l.pins.Store(nil)
	case err == nil:
		l.pins.Store(&pinned{Pins: pins})
	default:
		if before == nil && !l.pinsRead {
			l.pins.Store(&pinned{Pins: &Pins{}, unread: err})
		} else if before == nil || before.unread == nil {
			err = fmt.Errorf("%w; what it said before stays in force", err)
		}
		if l.pinsError == nil || l.pinsError.Error() != err.Error() {
			l.report(Event{Layer: l.label, Name: PinsFile, Kind: Broken, Err: err})
		}
		l.pinsError = err
		return []error{err}
	}
	l.pinsRead, l.pinsError = true, nil
	return nil
}

// loadPinned brings what is pinned into force, and returns its names.
func (l *Layer) loadPinned(ctx context.Context, present map[string]bool) (problems []error) {
	p := l.pins.Load()
	if p == nil {
		return nil
	}
	lost := map[string]error{}
	for _, name := range slices.Sorted(maps.Keys(p.Pin)) {
		present[name] = true
		want := p.Pin[name]
		f, err := l.bring(name, want)
		if err == nil {
			err = l.load(ctx, f, &want)
		} else if before, tried := l.failed[name]; !tried || before.err.Error() != err.Error() {
			l.failed[name] = failure{err: err}
			l.report(Event{Layer: l.label, Name: name, Kind: Broken, Err: err, Digest: digestOf((*l.current.Load())[name])})
		}
		if err == nil {
			continue
		}
		if (*l.current.Load())[name] == nil {
			lost[name] = err
		} else if !strings.HasSuffix(err.Error(), staysInForce) {
			err = fmt.Errorf("%w%s", err, staysInForce)
		}
		problems = append(problems, fmt.Errorf("module %s: %w", name, err))
	}
	l.pins.Store(&pinned{Pins: p.Pins, lost: lost, unread: p.unread})
	return problems
}

func (l *Layer) isPinned(name string) bool {
	p := l.pins.Load()
	return p != nil && !p.Pin[name].IsZero()
}

const staysInForce = "; the version before stays in force"

// bring returns the kept version of a name, and gets it there if somebody else has
// it: a layer below, or this one by another name.
func (l *Layer) bring(name string, want script.Digest) (file, error) {
	var dirs []string
	for at := l; at != nil; at = at.below {
		dirs = append(dirs, at.dir)
	}
	v, b, err := obtain(name, want, func(yield func(string) bool) {
		for at := l; at != nil; at = at.below {
			for _, v := range *at.current.Load() {
				if v.info.Digest == want && !yield(v.path) {
					return
				}
			}
		}
		for _, suffix := range l.suffixes() {
			if !yield(filepath.Join(l.dir, name+suffix)) {
				return
			}
		}
	}, dirs...)
	if err != nil {
		return file{}, fmt.Errorf("it is pinned: %w", err)
	}
	if b != nil {
		if err := keep(l.dir, v, b); err != nil {
			return file{}, err
		}
		l.keptMore = true
	}
	_, language, ok := Split(l.engine.Languages(), name+v.Suffix)
	if !ok {
		return file{}, fmt.Errorf("%w: it is pinned to %s, which is in no language that this host has", engine.ErrInvalid, want)
	}
	return file{name, v.Path(l.dir), language}, nil
}

func (l *Layer) suffixes() []string {
	list := []string{Suffix}
	for _, language := range l.engine.Languages() {
		list = append(list, language.Suffix)
	}
	return list
}

// Obtain looks for the code with a digest in everything that lies in the layers'
// directories dirs, by whatever name, and keeps it in the first of them as a version
// of name, where a pin finds it. Errors wrap ErrNotFound, and name the version that
// may have been meant.
func Obtain(name string, want script.Digest, dirs ...string) (Version, error) {
	v, b, err := obtain(name, want, func(yield func(string) bool) {
		for _, dir := range dirs {
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if e.Type().IsRegular() && e.Name()[0] != '.' && e.Name() != PinsFile && !yield(filepath.Join(dir, e.Name())) {
					return
				}
			}
		}
	}, dirs...)
	if err == nil && b != nil {
		err = keep(dirs[0], v, b)
	}
	if err == nil { // from now on nothing else may have it
		err = durable(v.Path(dirs[0]))
	}
	return v, err
}

func durable(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// obtain finds code that is kept, or lies in one of files. It comes without its bytes
// if it is kept in dirs[0] as a version of name.
func obtain(name string, want script.Digest, files iter.Seq[string], dirs ...string) (v Version, b []byte, err error) {
	near, least := script.Digest{}, 0
	for i, dir := range dirs {
		names := []string{name}
		entries, _ := os.ReadDir(filepath.Join(dir, versionsDir))
		for _, e := range entries {
			if e.Name() != name && ValidName(e.Name()) {
				names = append(names, e.Name())
			}
		}
		for n, of := range names {
			all, _ := Versions(dir, of)
			for _, v := range all {
				if digits := common(v.Digest, want); n == 0 && digits >= least {
					near, least = v.Digest, digits+1
				}
				if v.Digest != want {
					continue
				}
				if i == 0 && n == 0 {
					return v, nil, nil
				}
				if b, err := v.Read(dir); err == nil {
					return Version{Name: name, Digest: want, Suffix: v.Suffix, Size: v.Size}, b, nil
				}
			}
		}
	}
	for path := range files {
		if b, err := readKept(path); err == nil && sha256.Sum256(b) == want {
			return Version{Name: name, Digest: want, Suffix: filepath.Ext(path), Size: int64(len(b))}, b, nil
		}
	}
	if near.IsZero() {
		return v, nil, fmt.Errorf("%w: nobody here has %s; add it to a layer, by whatever name", ErrNotFound, want)
	}
	return v, nil, fmt.Errorf("%w: nobody here has %s; the nearest that is kept of %s is %s", ErrNotFound, want, name, near)
}

// common is how many digits two digests begin with alike.
func common(a, b script.Digest) int {
	x, y := fmt.Sprintf("%x", a), fmt.Sprintf("%x", b)
	n := 0
	for n < len(x) && x[n] == y[n] {
		n++
	}
	return n
}

// unresolved are the maps that lead to no module.
func (l *Layer) unresolved() (problems []error) {
	p := l.pins.Load()
	if p == nil {
		return nil
	}
	for _, from := range slices.Sorted(maps.Keys(p.Map)) {
		if to := p.Map[from]; !l.has(to) {
			problems = append(problems, fmt.Errorf("%s: [map] %s: %w", filepath.Join(l.dir, PinsFile), from, l.unmapped(to)))
		}
	}
	return problems
}

func (l *Layer) unmapped(to string) error {
	var names []string
	for at := l; at != nil; at = at.below {
		names = append(names, slices.Collect(maps.Keys(*at.current.Load()))...)
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) > 10 {
		names = append(names[:10], "…")
	}
	return fmt.Errorf("there is no module %s; there are: %s", to, cmp.Or(strings.Join(names, ", "), "none"))
}

// has reports whether a name is in force here or below.
func (l *Layer) has(name string) bool {
	for at := l; at != nil; at = at.below {
		if _, ok := (*at.current.Load())[name]; ok {
			return true
		}
	}
	return false
}

// Retry looks again for what is pinned or composed and was not there, because a layer
// below has changed. It may be called where a report of that layer is taken.
func (l *Layer) Retry(ctx context.Context) {
	if p := l.pins.Load(); p != nil && l.problems.Load() != nil && len(*l.problems.Load()) > 0 {
		_ = l.Reload(ctx)
		return
	}
	l.recompose()
}

// Asked is the digest of the code that a script brings, or names by it; zero if it
// names it by name.
func Asked(logic script.Logic) script.Digest {
	if carried := logic.Carried(); !carried.IsZero() {
		return carried
	}
	return logic.Digest
}

// asks is how a map may name what a script asks for; "" if it can be in none.
func (l *Layer) asks(logic script.Logic) string {
	p := l.pins.Load()
	switch {
	case p == nil || len(p.Map) == 0:
		return ""
	case logic.Name != "":
		return logic.Name
	}
	return Asked(logic).String()
}

// mapped returns the module that runs instead of what logic asks for, as the owner
// of layers[0] wants it; nil if that is not so.
func mapped(logic script.Logic, layers []*Layer) (*Found, error) {
	l := layers[0]
	p := l.pins.Load()
	if p == nil {
		return nil, nil
	}
	if p.unread != nil {
		return nil, fmt.Errorf("%w: %s of the %s's modules has a mistake in it; its owner has been told which", ErrPins, PinsFile, l.label)
	}
	to, ok := p.Map[l.asks(logic)]
	if !ok {
		return nil, nil
	}
	for _, at := range layers {
		if f, err := at.lookUp(to); f != nil || err != nil {
			if f != nil {
				f.Instead = true
			}
			return f, err
		}
	}
	return nil, fmt.Errorf("%w: here %s stands for the module %s, which is not there", ErrNotFound, l.asks(logic), to)
}

// lookUp finds a module of this layer. The error is about one that is pinned to what
// is not there: its owner wants no other.
func (l *Layer) lookUp(name string) (*Found, error) {
	if f := l.find(func(v *version) bool { return v.name == name }); f != nil {
		return f, nil
	}
	if p := l.pins.Load(); p != nil {
		if p.lost[name] != nil { // which is for its owner
			return nil, fmt.Errorf("%w: module %s is pinned to a version that is not there; its owner has been told", ErrNotFound, name)
		}
	}
	return nil, nil
}

// A PinsChange is what SetPins makes of a PinsFile.
type PinsChange struct {
	Section string // "pin" or "map"
	Key     string
	Value   string // "" takes the line away
}

// SetPins changes one line of a directory's PinsFile, and leaves the others, with
// what its owner wrote beside them, as they are. It reports whether there was
// something to change.
func SetPins(dir string, c PinsChange) (changed bool, err error) {
	path := filepath.Join(dir, PinsFile)
	text, err := readPins(path)
	if err != nil {
		return false, err
	}
	before, err := ParsePins(path, text)
	if err != nil {
		return false, fmt.Errorf("%w; correct it first", err)
	}
	if before.value(c) == c.Value {
		return false, nil
	}
	key := c.Key
	if !ValidName(key) {
		key = fmt.Sprintf("%q", key)
	}
	said := fmt.Sprintf("%s = %q", key, c.Value)
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	end, at := lineOf(text, c.Section, c.Key)
	switch {
	case c.Value == "" && at > 0:
		lines = slices.Delete(lines, at-1, at)
	case at > 0:
		if _, comment, ok := strings.Cut(lines[at-1], "#"); ok {
			said += "  #" + comment
		}
		lines[at-1] = said
	case end > 0:
		lines = slices.Insert(lines, end, said)
	default:
		lines = append(lines, "", "["+c.Section+"]", said)
	}
	made := []byte(strings.TrimLeft(strings.Join(lines, "\n"), "\n") + "\n")
	after, err := ParsePins(path, made)
	if err != nil {
		return false, err
	}
	if after.value(c) != c.Value {
		return false, fmt.Errorf("change %s: [%s] %s is written there in a way that is not understood; edit it by hand", path, c.Section, c.Key)
	}
	return true, writeWhole(dir, PinsFile, made, 0o600, true)
}

func (p *Pins) value(c PinsChange) string {
	if c.Section == "map" {
		return p.Map[c.Key]
	}
	if digest, ok := p.Pin[c.Key]; ok {
		return digest.String()
	}
	return ""
}
