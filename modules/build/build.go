// Package build compiles guest projects: a folder with sources, and perhaps a
// manifest.json, becomes one module.
//
//	built, err := build.Build(ctx, build.Config{Dir: "modules/booking"})
//	var wrong *build.CompileError
//	if errors.As(err, &wrong) {
//		fmt.Print(wrong.Output)
//	}
//	os.WriteFile("booking.wasm", built.Wasm, 0o644)
//
// Languages lists what it knows, and by which files a folder is recognised. What
// an SDK has to be there for, such as C's circles.h, comes with this package,
// unless the project has its own.
//
// The compilers run without a shell, in an environment of a few variables, and
// are stopped after Config.Timeout. What they are given is code that whoever
// builds it trusts: a C source can include any file that its compiler can read,
// and a go.mod can name dependencies to fetch.
package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/circles-host/circles/modules"
)

// Config says what to build. Dir must be named; the rest may be zero.
type Config struct {
	Dir     string        // of the project
	SDK     string        // the folder with circles.h and circles.c; "" takes what comes with this package
	Timeout time.Duration // of the compiler; 0 means 10 minutes
	// Language, if it is not "", is the one that the project must be in. Nothing is done
	// for one in another: some languages' builds run code, see Language.Runs.
	Language string
	// Foreign is for somebody else's project. What its package.json names, the compiler
	// too, is brought with npm, into Dir, without running what packages want run; and
	// what a go.mod names comes from Go's proxy, or does not, for version control is not
	// started.
	Foreign bool
}

// Built is a module that was built.
type Built struct {
	Wasm     []byte // with the manifest in it
	Name     string // of its language: "go"
	Language string // its title: "Go", "C", …
	Reactor  bool
	Manifest []byte // as manifest.json has it; nil if there is none. Only its being JSON was checked
	Warnings string // what the compiler said although it succeeded
}

// CompileError is a compiler's refusal of the sources.
type CompileError struct {
	Tool   string
	Output string // as it was, cut to 256 KiB
	Hint   string // what may have to be installed; or ""
}

func (e *CompileError) Error() string {
	text := e.Tool + " could not build it"
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// ErrNoCompiler is wrapped by the error that says what to install.
var ErrNoCompiler = errors.New("there is no compiler")

const (
	maxOutput   = 256 << 10 // bytes of what a compiler says
	maxManifest = 64 << 10  // bytes; a host reads no more
	maxSource   = 16 << 20  // bytes of one source that is looked at
	maxModule   = 256 << 20 // bytes that a compiler may write

	manifestFile = "manifest.json"
)

// Build builds the project in c.Dir. It writes nothing there, but for the Cargo.lock
// that cargo makes where there is none, and what c.Foreign brings. Errors are a
// *CompileError, wrap ErrNoCompiler, or say what is wrong with the project.
func Build(ctx context.Context, c Config) (*Built, error) {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Minute
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("build module: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("build module: %w", err)
	}
	p := project{dir: dir, sdk: c.SDK, foreign: c.Foreign, files: map[string]bool{}}
	for _, e := range entries {
		p.files[e.Name()] = e.Type().IsRegular()
	}
	l, ok := p.language()
	if !ok {
		return nil, fmt.Errorf("build module: %s is not a project in a language that can be built here, which has %s; for another, compile it for wasip1 and add the file", c.Dir, signs())
	}
	if c.Language != "" && c.Language != l.Name {
		return nil, fmt.Errorf("build module: it is to be in %s, and its files are a project in %s", c.Language, l.Title)
	}
	b := &Built{}
	if b.Manifest, err = readManifest(filepath.Join(dir, manifestFile)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	made, err := os.MkdirTemp("", "circles-build-")
	if err != nil {
		return nil, fmt.Errorf("build module: %w", err)
	}
	defer os.RemoveAll(made)
	p.made = made
	b.Name, b.Language = l.Name, l.Title
	r, err := l.command(ctx, l, p)
	if err != nil {
		return nil, err
	}
	b.Reactor, b.Wasm, b.Warnings = r.reactor, r.wasm, r.warnings
	if r.cmd != nil {
		if b.Warnings, err = run(ctx, r.cmd, c.Timeout, l.hint); err != nil {
			return nil, err
		}
		if b.Wasm, err = readBounded(r.out, maxModule); err != nil {
			return nil, fmt.Errorf("build module: %s succeeded and left no module: %w", filepath.Base(r.cmd.Path), err)
		}
	}
	if r.debug {
		if b.Wasm, err = modules.WithoutDebug(b.Wasm); err != nil {
			return nil, fmt.Errorf("build module: what %s made: %w", filepath.Base(r.cmd.Path), err)
		}
	}
	if b.Wasm, err = withLanguage(b.Wasm, l.Title); err != nil {
		return nil, fmt.Errorf("build module: what was built for %s: %w", l.Title, err)
	}
	if b.Manifest != nil {
		if b.Wasm, err = modules.WithManifest(b.Wasm, b.Manifest); err != nil {
			return nil, fmt.Errorf("build module: %s: %w", manifestFile, err)
		}
	}
	return b, nil
}

// anyMatch looks for re in files of the project.
func (p project) anyMatch(files []string, re *regexp.Regexp) (bool, error) {
	for _, name := range files {
		text, err := readBounded(filepath.Join(p.dir, name), maxSource)
		if err != nil {
			return false, fmt.Errorf("build module: %w", err)
		}
		if re.Match(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))) {
			return true, nil
		}
	}
	return false, nil
}

// environment is what any compiler needs, and those of the named variables that
// are set. Keys and tokens that are in ours stay with us.
func environment(names ...string) (env []string) {
	for _, name := range append(names, "PATH", "HOME", "TMPDIR", "TMP", "TEMP", "LANG", "LC_ALL", "USERPROFILE", "LOCALAPPDATA", "SYSTEMROOT", "XDG_CACHE_HOME", "XDG_CONFIG_HOME") {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// run runs a compiler, and returns what it says.
func run(ctx context.Context, cmd *exec.Cmd, timeout time.Duration, hint func(output string) string) (said string, err error) {
	var b bounded
	cmd.Stdout, cmd.Stderr = &b, &b
	// Those that the compiler started may live on for a moment, with its pipes.
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	name := filepath.Base(cmd.Path)
	if err == nil {
		return b.String(), nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return "", fmt.Errorf("build module: %s did not finish within %s, and was stopped", name, timeout)
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("build module: %w", context.Cause(ctx))
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return "", fmt.Errorf("build module: run %s: %w", name, err)
	}
	wrong := &CompileError{Tool: name, Output: b.String()}
	if hint != nil {
		wrong.Hint = hint(wrong.Output)
	}
	return "", wrong
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// readManifest returns nil when there is none.
func readManifest(path string) ([]byte, error) {
	text, err := readBounded(path, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("build module: %w", err)
	}
	return text, nil
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path) // a pipe would hang us
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, err
}
