package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Language is one in which a project can be built.
type Language struct {
	Name  string // as commands take it: "go"
	Title string // as people write it: "Go"
	// Sign is what a folder of such a project has: "go.mod", "*.c". The first
	// language of which one is there is the project's.
	Sign string
	// Install is how to get what is missing, in words that can be pasted.
	Install string
	// Runs is what of a project's own runs on the machine that builds it, in words;
	// "" if nothing does. Somebody else's project is then to be read first.
	Runs string

	command func(ctx context.Context, l Language, p project) (recipe, error)
	// version asks the tools what they are. Its error says what is missing.
	version func(ctx context.Context) (string, error)
	// hint is what a compiler's refusal suggests is missing; nil for none.
	hint func(output string) string
}

// Languages are those that Build knows, in the order in which it looks for their
// signs.
func Languages() []Language { return slices.Clone(languages) }

var languages = []Language{golang, rust, assemblyscript, typescript, javascript, zig, cpp, c}

// Find returns the language of that name.
func Find(name string) (Language, bool) {
	i := slices.IndexFunc(languages, func(l Language) bool { return l.Name == name })
	if i < 0 {
		return Language{}, false
	}
	return languages[i], true
}

// Toolchain asks the tools of l which version they are, in a few words. The error
// is a MissingError.
func (l Language) Toolchain(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	version, err = l.version(ctx)
	if err != nil {
		return "", MissingError{l, err.Error()}
	}
	return version, nil
}

// MissingError says which tool of a language is not there. It is an
// ErrNoCompiler.
type MissingError struct {
	Language Language
	What     string // "go is not in PATH"
}

func (e MissingError) Error() string {
	return fmt.Sprintf("%v for %s here, %s: %s", ErrNoCompiler, e.Language.Title, e.What, e.Language.Install)
}

func (e MissingError) Is(target error) bool { return target == ErrNoCompiler }

// missing is the error of a build that wants a tool which is not there.
func (l Language) missing(what string) error {
	return fmt.Errorf("build module: %w", MissingError{l, what})
}

// recipe is how a project is built.
type recipe struct {
	cmd     *exec.Cmd
	out     string // the module that it leaves
	reactor bool
	debug   bool // the compiler cannot leave out DWARF alone, which is to be taken out of it

	// Of a language that takes no tools, cmd is nil and the module made already.
	wasm     []byte
	warnings string
}

// signs is what to look for, in words.
func signs() string {
	var all []string
	for _, l := range languages {
		all = append(all, fmt.Sprintf("%s (%s)", l.Sign, l.Title))
	}
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}

// project is a folder that is built.
type project struct {
	dir     string          // absolute
	files   map[string]bool // names in it, and whether they are regular files
	sdk     string          // the C SDK's folder, if there is to be one of one's own
	foreign bool            // as in Config
	made    string          // a folder for what is made, which is removed afterwards
}

// named are the regular files of p that match pattern, in order.
func (p project) named(pattern string) (names []string) {
	for name, regular := range p.files {
		if ok, _ := filepath.Match(pattern, name); ok && regular {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (p project) language() (Language, bool) {
	for _, l := range languages {
		if len(p.named(l.Sign)) > 0 {
			return l, true
		}
	}
	return Language{}, false
}

// said is the first line that a tool prints of itself.
func said(ctx context.Context, tool string, args ...string) (string, error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return "", errors.New(tool + " is not in PATH")
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = environment()
	cmd.WaitDelay = time.Second
	b, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s does not say its version: %w", tool, err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return first, nil
}

// has reports whether there is anything of that name.
func (p project) has(name string) bool {
	_, there := p.files[name]
	return there
}

// below are the regular files of p at a path, none or one.
func (p project) below(path string) []string {
	info, err := os.Stat(filepath.Join(p.dir, path))
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return []string{path}
}
