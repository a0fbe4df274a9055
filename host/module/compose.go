package module

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/circles-host/circles/host/near"
)

// ComposeFile is the name of the file beside the modules of a layer that says which of
// them stand before others:
//
//	# whoever runs guestbook runs these, in this order
//	guestbook = ["rate-limit", "audit", "guestbook"]
//
// The last is the module itself; the others are its stages, each the module of that
// name in this layer or one below, with what is put before it in turn. A script that asks for
// guestbook enters the first, which goes on to the next by base, or does not.
//
// What is in force is what was last found good, as with modules, also if a module that
// it names is removed. Until there is something good, nothing that the file could
// be about runs: an owner who puts a guard before a module does not want it to run
// without.
const ComposeFile = "compose.toml"

// Bounds of a compose file.
const (
	maxCompose = 64 << 10 // bytes
	maxChains  = 500
	// MaxStages is how many stages stand before a module, those that stand before its
	// stages included.
	MaxStages = 8
)

// composition is a compose file that was read.
type composition struct {
	digest [32]byte // of its text; zero for none
	chains map[string]chain
	broken error // there never was a good one: nothing may run; else nil
}

// chain is what a compose file says of one module.
type chain struct {
	names []string
	line  int
}

// ComposeError is what is wrong with a compose file.
type ComposeError struct {
	Path    string
	Line    int // 0 if it is about all of it
	Message string
}

func (e *ComposeError) Error() string {
	if e.Line == 0 {
		return e.Path + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Message)
}

// compose looks at the compose file now. The error is why what it says is not in
// force; rejected is what it says then, as far as it can be read.
//
// The caller holds l.loading. Modules that are new, in l.fresh, can be named.
func (l *Layer) compose() (rejected *composition, err error) {
	before := l.composed.Load()
	next, err := readCompose(l.dir)
	if err == nil {
		err = next.check(l.dir, l.canRun, l.names)
	}
	if err == nil {
		if next.digest != before.digest || before.broken != nil {
			l.composed.Store(next)
			if next.digest != before.digest {
				kind := Replaced
				switch {
				case next.digest == [32]byte{}:
					kind = Removed
				case before.digest == [32]byte{}:
					kind = Loaded
				}
				l.report(Event{Layer: l.label, Name: ComposeFile, Kind: kind, Digest: next.digest})
			}
		}
		l.badCompose = ""
		return nil, nil
	}
	if before.chains == nil { // there was none since the layer was opened
		l.composed.Store(&composition{broken: err})
	} else {
		err = fmt.Errorf("%w; what it said before stays in force", err)
	}
	if l.badCompose != err.Error() {
		l.badCompose = err.Error()
		l.report(Event{Layer: l.label, Name: ComposeFile, Kind: Broken, Err: err, Digest: before.digest})
	}
	return next, err
}

// ReadCompose is what the compose file of a directory puts before each module, in order.
// names are the modules there and in the layers below. The error is a *ComposeError.
func ReadCompose(dir string, names []string) (map[string][]string, error) {
	c, err := readCompose(dir)
	if err == nil {
		err = c.check(dir, func(name string) bool { return slices.Contains(names, name) }, func() []string { return names })
	}
	if err != nil {
		return nil, err
	}
	stages := make(map[string][]string, len(c.chains))
	for name, of := range c.chains {
		stages[name] = of.names[:len(of.names)-1]
	}
	return stages, nil
}

// readCompose reads the file of a directory; one that is not there says nothing.
func readCompose(dir string) (*composition, error) {
	path := filepath.Join(dir, ComposeFile)
	text, err := readRested(path, maxCompose)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &composition{chains: map[string]chain{}}, nil
	case errors.Is(err, errNotRegular):
		return nil, &ComposeError{Path: path, Message: "it is not a regular file"}
	case err != nil:
		return nil, &ComposeError{Path: path, Message: err.Error()}
	}
	c, err := parseCompose(text)
	var bad *ComposeError
	if errors.As(err, &bad) {
		bad.Path = path
	}
	return c, err
}

// parseCompose reads the text of a compose file. A *ComposeError has no path yet. What
// is returned with an error has those chains that could be read.
func parseCompose(text []byte) (*composition, error) {
	c := &composition{digest: sha256.Sum256(text), chains: map[string]chain{}}
	wrong := func(line int, format string, a ...any) (*composition, error) {
		return c, &ComposeError{Line: line, Message: fmt.Sprintf(format, a...)}
	}
	if len(text) > maxCompose {
		return wrong(0, "it has more than %d KiB", maxCompose>>10)
	}
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ := at.Position()
			return wrong(line, "%s", strings.TrimPrefix(at.Error(), "toml: "))
		}
		return wrong(0, "%s", strings.TrimPrefix(err.Error(), "toml: "))
	}
	var first error
	fail := func(line int, format string, a ...any) {
		if first == nil {
			_, first = wrong(line, format, a...)
		}
	}
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		key := e.Key()
		var parts []string
		line := 0
		for key.Next() {
			if line == 0 {
				line = p.Shape(key.Node().Raw).Start.Line
			}
			parts = append(parts, string(key.Node().Data))
		}
		name := strings.Join(parts, ".")
		if e.Kind != unstable.KeyValue || len(parts) != 1 || !ValidName(name) {
			fail(line, `there is no key %.80q here: each line is the name of a module and what runs for it, guestbook = ["audit", "guestbook"]`, name)
			continue
		}
		names, ok := stringsIn(all[name])
		switch {
		case !ok || len(names) == 0:
			fail(line, `what runs for %s is a list of names: %s = ["audit", %q]`, name, name, name)
		case len(c.chains) == maxChains:
			fail(line, "more than %d modules are composed", maxChains)
		default:
			c.chains[name] = chain{names, line}
		}
	}
	return c, first
}

func stringsIn(v any) (names []string, ok bool) {
	list, ok := v.([]any)
	for _, item := range list {
		name, is := item.(string)
		names, ok = append(names, name), ok && is
	}
	return names, ok
}

// check says what of c, of the directory dir, cannot be in force: canRun reports whether
// there is a module of a name, and names are all that there are.
func (c *composition) check(dir string, canRun func(string) bool, names func() []string) error {
	sorted := make([]string, 0, len(c.chains))
	for name := range c.chains {
		sorted = append(sorted, name)
	}
	slices.SortFunc(sorted, func(a, b string) int { return c.chains[a].line - c.chains[b].line })
	for _, name := range sorted {
		of := c.chains[name]
		wrong := func(format string, a ...any) error {
			return &ComposeError{Path: filepath.Join(dir, ComposeFile), Line: of.line, Message: fmt.Sprintf(format, a...)}
		}
		for i, stage := range of.names {
			switch {
			case slices.Contains(of.names[:i], stage):
				return wrong("%s names %.80q twice", name, stage)
			case !canRun(stage):
				hint := ""
				if n := near.Name(stage, names()); n != "" {
					hint = fmt.Sprintf("; did you mean %s?", n)
				}
				return wrong("%s names %.80q, and there is no such module here%s", name, stage, hint)
			}
		}
		if last := of.names[len(of.names)-1]; last != name {
			return wrong("the last for %s is %.80q, and must be %s itself: the others stand before it", name, last, name)
		}
		stages, through := c.stages(name, nil)
		if through != nil {
			return wrong("%s goes round: %s; take one of them out", name, strings.Join(through, ", which names "))
		}
		if stages > MaxStages {
			return wrong("%d modules stand before %s, with those that stand before them; at most %d may", stages, name, MaxStages)
		}
	}
	return nil
}

// stages is how many stand before name; or how it comes to itself again. before are
// those that led to it.
func (c *composition) stages(name string, before []string) (n int, round []string) {
	if i := slices.Index(before, name); i >= 0 {
		return 0, append(slices.Clone(before[i:]), name)
	}
	for _, stage := range c.chains[name].names {
		if stage == name {
			continue
		}
		more, round := c.stages(stage, append(before, name))
		if n += 1 + more; round != nil || n > maxChains {
			return n, round
		}
	}
	return n, nil
}

// canRun reports whether there is a module of that name, here or below, whose file is
// there too.
func (l *Layer) canRun(name string) bool {
	if l.fresh[name].version != nil || l.inDir[name] && (*l.current.Load())[name] != nil {
		return true
	}
	return l.below != nil && (*l.below.current.Load())[name] != nil
}

// names are those of all modules that canRun, sorted.
func (l *Layer) names() (names []string) {
	for of := l; of != nil; of = of.below {
		for name := range *of.current.Load() {
			names = append(names, name)
		}
	}
	for name := range l.fresh {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return !l.canRun(name) })
}

// namedBy is the line of the compose file in force that names a module; 0 if none does.
func (c *composition) namedBy(name string) int {
	line := 0
	for _, of := range c.chains {
		if slices.Contains(of.names, name) && (line == 0 || of.line < line) {
			line = of.line
		}
	}
	return line
}

// recompose looks at the compose file again, as when a layer below has changed that it
// may name modules of.
func (l *Layer) recompose() {
	if !l.loading.TryLock() {
		go func() { // not in the time of who has changed the layer below
			l.loading.Lock()
			defer l.loading.Unlock()
			l.recheck()
		}()
		return
	}
	defer l.loading.Unlock()
	l.recheck()
}

func (l *Layer) recheck() {
	_, err := l.compose()
	var problems []error
	if p := l.problems.Load(); p != nil {
		problems = slices.DeleteFunc(slices.Clone(*p), func(err error) bool { var c *ComposeError; return errors.As(err, &c) })
	}
	if err != nil {
		problems = append(problems, err)
	}
	l.problems.Store(&problems)
}
