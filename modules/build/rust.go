package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// rust is compiled by cargo for wasm32-wasip1: a reactor when the crate's library is
// a cdylib, else a command.
//
// The standard library for that target comes with rustup, or is there when a
// distribution's compiler brings it. Debian's rustc-web brings its source only, of
// which we make it, once: see standardLibrary.
var rust = Language{
	Name: "rust", Title: "Rust", Sign: "Cargo.toml",
	Runs: "build.rs and macros, its own and those of the crates that it depends on",
	Install: "install Rust from https://rustup.rs, and then: rustup target add " + rustTarget +
		"; or on Debian or Ubuntu: apt install " + debianRust,
	command: rustCommand,
	version: func(ctx context.Context) (string, error) {
		tools, err := findRust(ctx, ".")
		if err != nil {
			return "", err
		}
		words := strings.Fields(tools.version)
		return strings.Join(words[:min(2, len(words))], " "), nil // rustc 1.95.0 (59807616e 2026-04-14) …
	},
	hint: func(output string) string {
		if strings.Contains(output, "target may not be installed") {
			return "if it is missing: rustup target add " + rustTarget
		}
		return ""
	},
}

const (
	rustTarget = "wasm32-wasip1"
	debianRust = "rustc-web cargo-web rust-web-src lld wasi-libc"
)

// rustTools are a compiler and its cargo, and what it takes to use them.
type rustTools struct {
	cargo, rustc string
	version      string // what rustc -vV says
	source       string // of the standard library, if that is still to be made of it
}

// The parts of a Debian compiler that has no standard library for the target.
const (
	debianSource = "/usr/lib/rustlib/src/rust/library"
	wasiLibc     = "/usr/lib/wasm32-wasi"
)

// findRust finds a compiler that can make modules of the project in dir, whose
// rust-toolchain.toml may name one: that of PATH if it has the target, else Debian's.
func findRust(ctx context.Context, dir string) (rustTools, error) {
	found, err := exec.LookPath("rustc")
	if err != nil {
		return rustTools{}, errors.New("rustc is not in PATH")
	}
	ask := func(rustc string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, rustc, args...)
		cmd.Dir, cmd.Env, cmd.WaitDelay = dir, rustEnvironment(), time.Second
		b, err := cmd.Output()
		return strings.TrimSpace(string(b)), err
	}
	what := "its standard library for " + rustTarget + " is not installed"
	for _, rustc := range []string{found, "/usr/bin/rustc"} {
		tools := rustTools{rustc: rustc, cargo: filepath.Join(filepath.Dir(rustc), "cargo"+filepath.Ext(rustc))}
		if tools.version, err = ask(rustc, "-vV"); err != nil {
			continue
		}
		if _, err := os.Stat(tools.cargo); err != nil {
			what = "cargo is not beside " + rustc
			continue
		}
		libraries, err := ask(rustc, "--print", "target-libdir", "--target", rustTarget)
		if err != nil {
			what = rustc + " does not know " + rustTarget
			continue
		}
		if std, _ := filepath.Glob(filepath.Join(libraries, "libstd-*.rlib")); len(std) > 0 {
			return tools, nil
		}
		if rustc != "/usr/bin/rustc" {
			continue
		}
		source, err := filepath.EvalSymlinks(debianSource)
		if err != nil {
			continue
		}
		for _, part := range []string{filepath.Join(source, "vendor"), filepath.Join(wasiLibc, "libc.a")} {
			if _, err := os.Stat(part); err != nil {
				return rustTools{}, fmt.Errorf("%s is missing, of which with %s the standard library is made", part, source)
			}
		}
		if _, err := exec.LookPath("wasm-ld"); err != nil {
			return rustTools{}, errors.New("wasm-ld is not in PATH")
		}
		tools.source = source
		return tools, nil
	}
	return rustTools{}, errors.New(what)
}

func rustEnvironment() []string {
	return append(environment("CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "CARGO_HTTP_CAINFO",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"),
		"RUSTUP_AUTO_INSTALL=0") // a project chooses no other compiler to fetch and run
}

// rustCommand says how to build a crate. Cargo keeps what it compiled in a folder of
// the user's cache, for the next time; in the project it writes Cargo.lock, if there
// is none.
func rustCommand(ctx context.Context, l Language, p project) (recipe, error) {
	tools, err := findRust(ctx, p.dir)
	if err != nil {
		return recipe{}, l.missing(err.Error())
	}
	crate, err := tools.crate(ctx, p.dir)
	if err != nil {
		return recipe{}, err
	}
	// Paths of this machine stay out of the module, as with Go's -trimpath.
	flags := []string{"--remap-path-prefix=" + top(p.dir) + "=."}
	if home, err := os.UserHomeDir(); err == nil {
		flags = append(flags, "--remap-path-prefix="+home+"=~")
	}
	env := append(rustEnvironment(), "RUSTC="+tools.rustc)
	if tools.source != "" {
		std, err := tools.standardLibrary(ctx)
		if err != nil {
			return recipe{}, err
		}
		flags = append(flags, "--sysroot="+std, "-Clinker=wasm-ld")
	}
	// Cargo does not know when the standard library is another, so the folder is.
	target, err := cacheDir("rust-target", p.dir, tools.version, strings.Join(flags, " "))
	if err != nil {
		return recipe{}, fmt.Errorf("build module: %w", err)
	}
	args := []string{"build", "--quiet", "--release", "--target", rustTarget, "--target-dir", target, "--manifest-path", filepath.Join(p.dir, "Cargo.toml")}
	file := crate.name
	if crate.reactor {
		args = append(args, "--lib")
		file = strings.ReplaceAll(file, "-", "_")
	} else {
		args = append(args, "--bin", crate.name)
	}
	cmd := exec.CommandContext(ctx, tools.cargo, args...)
	cmd.Dir = p.dir
	cmd.Env = slices.Concat(env, []string{"CARGO_ENCODED_RUSTFLAGS=" + strings.Join(flags, "\x1f")})
	return recipe{cmd: cmd, reactor: crate.reactor, out: filepath.Join(target, rustTarget, "release", file+".wasm")}, nil
}

// crate is what is built of a package.
type crate struct {
	name    string // of the library or program
	reactor bool
}

// crate asks cargo what there is to be built.
func (r rustTools) crate(ctx context.Context, dir string) (crate, error) {
	cmd := exec.CommandContext(ctx, r.cargo, "metadata", "--no-deps", "--format-version=1", "--manifest-path", filepath.Join(dir, "Cargo.toml"))
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, append(rustEnvironment(), "RUSTC="+r.rustc), time.Second
	var said, wrong bounded
	cmd.Stdout, cmd.Stderr = &said, &wrong
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return crate{}, &CompileError{Tool: "cargo", Output: wrong.String()}
		}
		return crate{}, fmt.Errorf("build module: run cargo: %w", err)
	}
	var metadata struct {
		Packages []struct {
			Manifest string `json:"manifest_path"`
			Default  string `json:"default_run"`
			Targets  []struct {
				Name  string   `json:"name"`
				Kinds []string `json:"kind"`
			} `json:"targets"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(said.Bytes(), &metadata); err != nil {
		return crate{}, fmt.Errorf("build module: what cargo metadata says: %w", err)
	}
	var programs []string
	for _, p := range metadata.Packages {
		if !sameFile(p.Manifest, filepath.Join(dir, "Cargo.toml")) {
			continue // another of a workspace
		}
		for _, t := range p.Targets {
			switch {
			case slices.Contains(t.Kinds, "cdylib"):
				return crate{t.Name, true}, nil
			case slices.Contains(t.Kinds, "bin"):
				programs = append(programs, t.Name)
			}
		}
		if p.Default != "" {
			programs = []string{p.Default}
		}
	}
	switch len(programs) {
	case 0:
		return crate{}, fmt.Errorf("build module: %s has neither a program nor a library that is a module; for that, write crate-type = [\"cdylib\"] under [lib] in Cargo.toml", dir)
	case 1:
		return crate{programs[0], false}, nil
	}
	return crate{}, fmt.Errorf("build module: %s has the programs %s, and a module is one; name it with default-run under [package] in Cargo.toml", dir, strings.Join(programs, ", "))
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// top is the folder of the repository that dir is in, or dir.
func top(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return at
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}

// cacheDir makes a folder of the user's cache that belongs to all that is named. Of
// each kind those that were used last are kept, maxKept of them.
func cacheDir(kind string, named ...string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	base = filepath.Join(base, "circles-build")
	sum := sha256.Sum256([]byte(strings.Join(named, "\x00")))
	dir := filepath.Join(base, kind+"-"+hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		return "", err
	}
	return dir, forget(base, kind)
}

const maxKept = 8

// forget removes the folders of a kind that were not used for longest.
func forget(base, kind string) error {
	all, err := filepath.Glob(filepath.Join(base, kind+"-*"))
	if err != nil || len(all) <= maxKept {
		return err
	}
	used := map[string]time.Time{}
	for _, dir := range all {
		if info, err := os.Stat(dir); err == nil { // else another removed it
			used[dir] = info.ModTime()
		}
	}
	slices.SortFunc(all, func(a, b string) int { return used[b].Compare(used[a]) })
	for _, dir := range all[maxKept:] {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// standardLibrary makes the standard library of its source, with what Debian's
// packages have of it, and returns the folder to name as --sysroot. It takes half a
// minute to a minute, once for each version of the compiler.
func (r rustTools) standardLibrary(ctx context.Context) (string, error) {
	const recipeVersion = "1"
	c, err := os.Stat(filepath.Join(wasiLibc, "libc.a"))
	if err != nil {
		return "", fmt.Errorf("build module: %w", err)
	}
	std, err := cacheDir("rust-std", recipeVersion, r.version, r.source, c.ModTime().String())
	if err != nil {
		return "", fmt.Errorf("build module: %w", err)
	}
	libraries := filepath.Join("lib", "rustlib", rustTarget, "lib")
	if _, err := os.Stat(filepath.Join(std, libraries)); err == nil {
		return std, nil
	}
	made, err := os.MkdirTemp(filepath.Dir(std), ".making-")
	if err != nil {
		return "", fmt.Errorf("build module: %w", err)
	}
	defer os.RemoveAll(made)

	// A crate of nothing, whose dependencies are the standard library.
	stub := filepath.Join(made, "stub")
	for name, text := range map[string]string{
		"Cargo.toml": "[package]\nname = \"stub\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[profile.release]\npanic = \"abort\"\n\n[workspace]\n",
		"src/lib.rs": "",
	} {
		file := filepath.Join(stub, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			return "", fmt.Errorf("build module: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, r.cargo, "build", "--release", "--offline", "--target", rustTarget, "-Zbuild-std=std,panic_abort",
		"--config", `source.crates-io.replace-with="vendored"`,
		"--config", fmt.Sprintf("source.vendored.directory=%q", filepath.ToSlash(filepath.Join(r.source, "vendor"))))
	cmd.Dir = stub
	cmd.Env = append(rustEnvironment(), "RUSTC="+r.rustc,
		"CARGO_HOME="+filepath.Join(made, "home"), // whose settings are not those of whoever builds
		"RUSTC_BOOTSTRAP=1",                       // -Zbuild-std is for nightly compilers, or for those who know that they have the very source
		// With bitcode, for modules that are optimised as a whole.
		"CARGO_ENCODED_RUSTFLAGS=-Cembed-bitcode=yes\x1f--remap-path-prefix="+r.source+"=library\x1f--remap-path-prefix="+debianSource+"=library")
	if _, err := run(ctx, cmd, 10*time.Minute, nil); err != nil {
		var wrong *CompileError
		if errors.As(err, &wrong) {
			return "", fmt.Errorf("build module: the standard library of Rust: %w\n%s", err, wrong.Output)
		}
		return "", err
	}

	// As rustup lays it out, so that the compiler finds all of it by itself.
	to := filepath.Join(made, "std", libraries)
	compiled, err := filepath.Glob(filepath.Join(stub, "target", rustTarget, "release", "deps", "*.rlib"))
	if err != nil || len(compiled) == 0 {
		return "", fmt.Errorf("build module: the standard library of Rust: nothing was made of %s: %w", r.source, err)
	}
	own := filepath.Join(to, "self-contained")
	copies := map[string]string{}
	for _, file := range compiled {
		if !strings.HasPrefix(filepath.Base(file), "libstub") {
			copies[file] = filepath.Join(to, filepath.Base(file))
		}
	}
	for _, name := range []string{"libc.a", "crt1-command.o", "crt1-reactor.o"} {
		copies[filepath.Join(wasiLibc, name)] = filepath.Join(own, name)
	}
	if err := os.MkdirAll(own, 0o755); err != nil {
		return "", fmt.Errorf("build module: %w", err)
	}
	for from, to := range copies {
		b, err := readBounded(from, maxModule)
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			return "", fmt.Errorf("build module: %w", err)
		}
	}
	// Whole or not at all; whoever made it meanwhile made the same.
	if err := os.Rename(filepath.Join(made, "std", "lib"), filepath.Join(std, "lib")); err != nil {
		if _, there := os.Stat(filepath.Join(std, libraries)); there != nil {
			return "", fmt.Errorf("build module: %w", err)
		}
	}
	return std, nil
}
