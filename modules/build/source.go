package build

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// SettingsFile is a project's file in which it says how it is built:
//
//	embed-source = true              # the module carries its source
//	include      = ["words/*.txt"]   # of which these are a part, besides what any build reads
//	leave-out    = ["drafts/"]       # and these are not
//
// Patterns are as in a .gitignore.
const SettingsFile = "build.toml"

// Settings are what a SettingsFile says.
type Settings struct {
	EmbedSource bool     `toml:"embed-source"`
	Include     []string `toml:"include"`
	LeaveOut    []string `toml:"leave-out"`
}

// ReadSettings reads the SettingsFile of a project; none is a zero one.
func ReadSettings(dir string) (s Settings, err error) {
	file := filepath.Join(dir, SettingsFile)
	text, err := readBounded(file, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("build module: %w", err)
	}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		var unknown *toml.StrictMissingError
		var wrong *toml.DecodeError
		switch {
		case errors.As(err, &unknown) && len(unknown.Errors) > 0:
			line, _ := unknown.Errors[0].Position()
			return s, fmt.Errorf("%s:%d: there is no setting %q; there are embed-source, include and leave-out", file, line, strings.Join(unknown.Errors[0].Key(), "."))
		case errors.As(err, &wrong):
			line, column := wrong.Position()
			return s, fmt.Errorf("%s:%d:%d: %s", file, line, column, strings.TrimPrefix(wrong.Error(), "toml: "))
		}
		return s, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// Source is one file of a project.
type Source struct {
	Name string // with slashes, below the project
	Text []byte
}

// LeftOut is a file or folder that is no part of a project's source.
type LeftOut struct{ Name, Why string }

const (
	maxSources     = 1000
	maxSourcesSize = 8 << 20 // as host/module has it
)

// Sources are the files of the project in dir from which somebody else can build it:
// those of the kinds that builds read, and what s includes. What is hidden, ignored by
// a .gitignore, or looks as if it were to be kept secret is none of them, whatever s
// says; neither are links, or what a build makes and fetches. They come in the order of
// their names, and with what was left out of what a build might read.
//
// A file in which a private key is written is an error: the module would take it to
// everybody.
func Sources(dir string, s Settings) (files []Source, left []LeftOut, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("gather sources: %w", err)
	}
	defer root.Close()
	g := gathering{root: root.FS(), include: patterns(s.Include, ""), leave: patterns(s.LeaveOut, "")}
	whole, err := filepath.Abs(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("gather sources: %w", err)
	}
	if err := g.above(whole); err != nil {
		return nil, nil, fmt.Errorf("gather sources: %w", err)
	}
	if err := g.folder(".", 0); err != nil {
		return nil, nil, fmt.Errorf("gather sources: %w", err)
	}
	slices.SortFunc(g.files, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	return g.files, g.left, nil
}

type gathering struct {
	root           fs.FS
	ignored        []pattern // of .gitignore files, those above first
	include, leave []pattern
	files          []Source
	left           []LeftOut
	size           int
}

// above reads the .gitignore files of the repository that the project lies in.
func (g *gathering) above(dir string) error {
	upper := top(dir)
	for at := filepath.Dir(dir); len(at) >= len(upper) && upper != dir; at = filepath.Dir(at) {
		text, err := readBounded(filepath.Join(at, ".gitignore"), maxManifest)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		below, err := filepath.Rel(at, dir)
		if err != nil {
			return err
		}
		var list []pattern
		for _, p := range patterns(strings.Split(string(text), "\n"), "") {
			p.above = filepath.ToSlash(below) + "/"
			list = append(list, p)
		}
		g.ignored = append(list, g.ignored...)
		if at == upper || at == filepath.Dir(at) {
			break
		}
	}
	return nil
}

const maxDepth = 32 // folders in each other

func (g *gathering) folder(dir string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s is more than %d folders deep; leave it out, with leave-out in %s", dir, maxDepth, SettingsFile)
	}
	if text, err := fs.ReadFile(g.root, path.Join(dir, ".gitignore")); err == nil && len(text) <= maxManifest {
		g.ignored = append(g.ignored, patterns(strings.Split(string(text), "\n"), dir)...)
	}
	entries, err := fs.ReadDir(g.root, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		why := g.why(name, e)
		switch {
		case why == "" && e.IsDir():
			err = g.folder(name, depth+1)
		case why == "":
			err = g.file(name)
		case why != silent:
			g.left = append(g.left, LeftOut{name, why})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// silent is the reason that nobody needs to be told.
const silent = "-"

// why is the reason why something is no source; "" if it is.
func (g *gathering) why(name string, e fs.DirEntry) string {
	base := e.Name()
	switch {
	case base[0] == '.':
		return silent
	case e.IsDir() && made[base]:
		return silent
	case matches(g.leave, name, e.IsDir()):
		return silent
	case matches(g.ignored, name, e.IsDir()):
		return "ignored by .gitignore"
	case secretName.MatchString(base):
		return "looks as if it were to be kept secret"
	case e.IsDir():
		return ""
	case !e.Type().IsRegular():
		return "not a regular file"
	case kinds.MatchString(base), matches(g.include, name, false):
		return ""
	case strings.HasSuffix(base, ".wasm"):
		return silent
	}
	return "of no kind that builds read; include it, in " + SettingsFile + ", if this one does"
}

func (g *gathering) file(name string) error {
	f, err := g.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if g.size += int(min(info.Size(), maxSourcesSize+1)); g.size > maxSourcesSize || len(g.files) == maxSources {
		return fmt.Errorf("with %s there are more than %d files, or %d bytes; leave some out, with leave-out in %s", name, maxSources, maxSourcesSize, SettingsFile)
	}
	text, err := fs.ReadFile(g.root, name)
	if err != nil {
		return err
	}
	if privateKey.Match(text) {
		return fmt.Errorf("%s has a private key in it, and everybody who gets the module would get that; take it out, or leave the file out, with leave-out in %s", name, SettingsFile)
	}
	g.files = append(g.files, Source{name, text})
	return nil
}

var (
	// made are folders that a build makes or fetches.
	made = map[string]bool{"node_modules": true, "target": true, "zig-out": true, "zig-cache": true, "__pycache__": true}
	// kinds are the files that builds of the languages that are known here read.
	kinds = regexp.MustCompile(`^(.*\.(go|c|h|cc|cpp|hpp|inc|rs|ts|js|mjs|zig|wit|star|rhai)|go\.(mod|sum)|modules\.txt|Cargo\.(toml|lock)|rust-toolchain(\.toml)?` +
		`|package(-lock)?\.json|[jt]sconfig\.json|asconfig\.json|manifest\.json|cases\.toml|build\.toml|build\.sh|README(\.md)?|LICEN[CS]E(\.(md|txt))?|COPYING|NOTICE)$`)
	secretName = regexp.MustCompile(`(?i)^(id_(rsa|dsa|ecdsa|ed25519).*|.*\.(pem|key|p12|pfx|jks|kdbx|env|keystore|asc|gpg)|(secrets?|credentials?|passwords?)(\.(json|toml|ya?ml|txt|ini|env|cfg))?|host\.key|peer\.key)$`)
	privateKey = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`)
)

// pattern is a line of a .gitignore; https://git-scm.com/docs/gitignore#_pattern_format
type pattern struct {
	parts    []string // between slashes; "**" is any number of folders
	dir      string   // it is in, and below which it holds
	above    string   // what stands before a name of the project, for a file above that
	anchored bool     // to dir; else it is of names wherever they are
	folders  bool     // it is of folders only
	not      bool     // what matches is in again
}

func patterns(lines []string, dir string) (list []pattern) {
	for _, l := range lines {
		l = strings.TrimRight(l, " \t\r")
		p := pattern{dir: dir}
		if l == "" || l[0] == '#' {
			continue
		}
		l, p.not = strings.CutPrefix(l, "!")
		l, p.folders = strings.CutSuffix(l, "/")
		p.anchored = strings.Contains(l, "/")
		p.parts = slices.CompactFunc(strings.Split(strings.TrimPrefix(l, "/"), "/"), func(a, b string) bool { return a == "**" && b == "**" })
		if len(p.parts) > maxDepth {
			continue
		}
		list = append(list, p)
	}
	return list
}

// matches tells what the last pattern that says something about a name says.
func matches(list []pattern, name string, folder bool) bool {
	for _, p := range slices.Backward(list) {
		if p.match(name, folder) {
			return !p.not
		}
	}
	return false
}

func (p pattern) match(name string, folder bool) bool {
	if p.folders && !folder {
		return false
	}
	name = p.above + name
	if p.dir != "" && p.dir != "." {
		var ok bool
		if name, ok = strings.CutPrefix(name, p.dir+"/"); !ok {
			return false
		}
	}
	if !p.anchored {
		ok, err := path.Match(p.parts[0], path.Base(name))
		return ok && err == nil
	}
	return matchParts(p.parts, strings.Split(name, "/"))
}

func matchParts(parts, names []string) bool {
	for ; len(parts) > 0; parts, names = parts[1:], names[1:] {
		if parts[0] == "**" {
			for i := range names {
				if len(parts) == 1 || matchParts(parts[1:], names[i:]) {
					return true
				}
			}
			return false
		}
		if len(names) == 0 {
			return false
		}
		if ok, err := path.Match(parts[0], names[0]); !ok || err != nil {
			return false
		}
	}
	return len(names) == 0
}
