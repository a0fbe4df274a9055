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
// A folder with a go.mod is a Go program, compiled for wasip1: a reactor when it
// exports entries with //go:wasmexport, else a command. A folder with *.c files
// is a C program, compiled by clang: a command when it has a main, else a
// reactor; when it includes circles.h it is linked with guest-sdk/c.
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
	"go/build"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/circles-host/circles/modules"
)

// Config says what to build. Dir must be named; the rest may be zero.
type Config struct {
	Dir     string        // of the project
	SDK     string        // the folder with circles.h and circles.c; "" when the project needs none
	Timeout time.Duration // of the compiler; 0 means 10 minutes
}

// Built is a module that was built.
type Built struct {
	Wasm     []byte // with the manifest in it
	Language string // "Go" or "C"
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

const (
	installGo = "install Go 1.24 or newer, from https://go.dev/dl"
	installC  = "install clang with a linker and a C library for WebAssembly; on Debian or Ubuntu: apt install clang lld wasi-libc libclang-rt-dev-wasm32"
)

// Build builds the project in c.Dir. It writes nothing there. Errors are a
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
	p := project{dir: dir, sdk: c.SDK}
	isGo := false
	for _, e := range entries {
		switch {
		case e.Name() == "go.mod":
			isGo = true
		case filepath.Ext(e.Name()) == ".c" && e.Type().IsRegular():
			p.sources = append(p.sources, e.Name())
		case filepath.Ext(e.Name()) == ".h" && e.Type().IsRegular():
			p.headers = append(p.headers, e.Name())
		}
	}
	b := &Built{}
	if b.Manifest, err = readManifest(filepath.Join(dir, manifestFile)); err != nil {
		return nil, err
	}
	var cmd *exec.Cmd
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	made, err := os.MkdirTemp("", "circles-build-")
	if err != nil {
		return nil, fmt.Errorf("build module: %w", err)
	}
	defer os.RemoveAll(made)
	out := filepath.Join(made, "module.wasm")
	switch {
	case isGo:
		b.Language = "Go"
		cmd, b.Reactor, err = p.goCommand(ctx, out)
	case len(p.sources) > 0:
		b.Language = "C"
		cmd, b.Reactor, err = p.cCommand(ctx, out)
	default:
		err = fmt.Errorf("build module: %s has neither a go.mod nor *.c files; for another language, compile it for wasip1 and add the file", c.Dir)
	}
	if err != nil {
		return nil, err
	}
	if b.Warnings, err = run(ctx, cmd, c.Timeout); err != nil {
		return nil, err
	}
	if b.Wasm, err = readBounded(out, maxModule); err != nil {
		return nil, fmt.Errorf("build module: %s succeeded and left no module: %w", filepath.Base(cmd.Path), err)
	}
	if b.Manifest != nil {
		if b.Wasm, err = modules.WithManifest(b.Wasm, b.Manifest); err != nil {
			return nil, fmt.Errorf("build module: %s: %w", manifestFile, err)
		}
	}
	return b, nil
}

// project is a folder that is built.
type project struct {
	dir, sdk         string
	sources, headers []string // in C
}

// goCommand says how to build a Go program.
func (p project) goCommand(ctx context.Context, out string) (cmd *exec.Cmd, reactor bool, err error) {
	target := build.Default
	target.GOOS, target.GOARCH, target.CgoEnabled = "wasip1", "wasm", false
	pkg, err := target.ImportDir(p.dir, 0)
	if err != nil {
		return nil, false, fmt.Errorf("build module: %w", err)
	}
	if pkg.Name != "main" {
		return nil, false, fmt.Errorf("build module: %s is package %s, and a module is a package main", p.dir, pkg.Name)
	}
	reactor, err = p.anyMatch(pkg.GoFiles, wasmExport)
	if err != nil {
		return nil, false, err
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		return nil, false, fmt.Errorf("build module: %w for Go here: %s", ErrNoCompiler, installGo)
	}
	// Without -buildvcs=false go would start git in a folder whose .git may be
	// anybody's, and the module would depend on where it is built.
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out}
	if reactor {
		args = append(args, "-buildmode=c-shared")
	}
	cmd = exec.CommandContext(ctx, tool, append(args, ".")...)
	cmd.Dir = p.dir
	cmd.Env = append(environment(goVariables...),
		"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOWORK=off",
		"GOTOOLCHAIN=local", // a go.mod chooses no other compiler to fetch and run
		"GOFLAGS=-trimpath", // instead of what go env -w may have left
		"PWD="+p.dir,        // as os/exec does it for the whole environment
		"GO111MODULE=on")
	return cmd, reactor, nil
}

// goVariables say where Go keeps things, and from where it may fetch them.
var goVariables = []string{
	"GOROOT", "GOPATH", "GOCACHE", "GOMODCACHE", "GOENV", "GOPROXY", "GOPRIVATE", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOVCS",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
}

var (
	// https://pkg.go.dev/cmd/compile#hdr-Compiler_Directives
	wasmExport = regexp.MustCompile(`(?m)^//go:wasmexport[ \t]+\S`)
	cMain      = regexp.MustCompile(`(?m)^[ \t]*(?:int[ \t\n]+)?main[ \t]*\(`)
	useSDK     = regexp.MustCompile(`(?m)^[ \t]*#[ \t]*include[ \t]*[<"]circles\.h[>"]`)
)

// cCommand says how to build a C program.
func (p project) cCommand(ctx context.Context, out string) (cmd *exec.Cmd, reactor bool, err error) {
	command, err := p.anyMatch(p.sources, cMain)
	if err != nil {
		return nil, false, err
	}
	needsSDK, err := p.anyMatch(slices.Concat(p.sources, p.headers), useSDK)
	if err != nil {
		return nil, false, err
	}
	args := []string{"--target=wasm32-wasi", "-std=c11", "-Oz", "-Wall", "-Wextra", "-Wl,--strip-all", "-Wl,--gc-sections", "-I."}
	if !command {
		args = append(args, "-mexec-model=reactor")
	}
	for _, s := range p.sources {
		args = append(args, "./"+s) // a name may begin with "-"
	}
	if needsSDK && !slices.Contains(p.headers, "circles.h") {
		sdk, err := p.findSDK()
		if err != nil {
			return nil, false, err
		}
		args = append(args, "-I"+sdk, filepath.Join(sdk, "circles.c"))
	}
	name := "clang"
	if cc := os.Getenv("CC"); cc != "" {
		name = cc
	}
	tool, err := exec.LookPath(name)
	if err != nil {
		return nil, false, fmt.Errorf("build module: %w for C here, %s: %s", ErrNoCompiler, name, installC)
	}
	cmd = exec.CommandContext(ctx, tool, append(args, "-o", out)...)
	cmd.Dir = p.dir
	cmd.Env = environment("LIBRARY_PATH", "C_INCLUDE_PATH")
	return cmd, !command, nil
}

func (p project) findSDK() (string, error) {
	if p.sdk == "" {
		return "", errors.New("build module: it includes circles.h: say where the C SDK is, the folder guest-sdk/c of circles, with --sdk DIR or CIRCLES_C_SDK")
	}
	sdk, err := filepath.Abs(p.sdk)
	if err != nil {
		return "", fmt.Errorf("build module: C SDK: %w", err)
	}
	for _, name := range []string{"circles.h", "circles.c"} {
		if _, err := os.Stat(filepath.Join(sdk, name)); err != nil {
			return "", fmt.Errorf("build module: C SDK: %w; give the folder guest-sdk/c of circles", err)
		}
	}
	return sdk, nil
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
func run(ctx context.Context, cmd *exec.Cmd, timeout time.Duration) (said string, err error) {
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
	for _, sign := range []string{"wasm-ld", "crt1", "libclang_rt", "unable to create target", "'stdio.h' file not found", "'stdlib.h' file not found", "'string.h' file not found", "'stdint.h' file not found"} {
		if !strings.HasPrefix(name, "go") && strings.Contains(wrong.Output, sign) && !strings.Contains(wrong.Output, "undefined symbol") {
			wrong.Hint = "if it is incomplete: " + installC
		}
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
