package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	sdk "github.com/circles-host/circles/guest-sdk"
)

// c is compiled by clang: a command when it has a main, else a reactor. When it
// includes circles.h it is linked with the SDK.
var c = Language{
	Name: "c", Title: "C", Sign: "*.c",
	Install: installC,
	command: cCommand,
	version: func(ctx context.Context) (string, error) {
		text, err := said(ctx, clang(), "--version")
		if err != nil {
			return "", err
		}
		return clangVersion.FindString(text), links(ctx)
	},
	hint: func(output string) string {
		for _, sign := range []string{"wasm-ld", "crt1", "libclang_rt", "unable to create target", "'stdio.h' file not found", "'stdlib.h' file not found", "'string.h' file not found", "'stdint.h' file not found"} {
			if strings.Contains(output, sign) && !strings.Contains(output, "undefined symbol") {
				return "if it is incomplete: " + installC
			}
		}
		return ""
	},
}

const installC = "install clang with a linker and a C library for WebAssembly; on Debian or Ubuntu: apt install clang lld wasi-libc libclang-rt-dev-wasm32"

// links reports whether clang can make a module: the linker and the C library come
// in packages of their own.
func links(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "circles-build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "a.c")
	if err := os.WriteFile(file, []byte("#include <stdio.h>\nint main(void) { return puts(\"\"); }\n"), 0o600); err != nil {
		return err
	}
	if b, err := exec.CommandContext(ctx, clang(), "--target=wasm32-wasi", file, "-o", filepath.Join(dir, "a.wasm")).CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(string(b), "\n")
		return fmt.Errorf("clang is there, and cannot make a module: %s", first)
	}
	return nil
}

// clang is the compiler's name.
func clang() string {
	if cc := os.Getenv("CC"); cc != "" {
		return cc
	}
	return "clang"
}

var (
	cMain        = regexp.MustCompile(`(?m)^[ \t]*(?:int[ \t\n]+)?main[ \t]*\(`)
	useSDK       = regexp.MustCompile(`(?m)^[ \t]*#[ \t]*include[ \t]*[<"]circles\.h(?:pp)?[>"]`)
	clangVersion = regexp.MustCompile(`clang version [0-9.]+`)
)

// cCommand says how to build a C program.
func cCommand(ctx context.Context, l Language, p project) (recipe, error) {
	out := filepath.Join(p.made, "module.wasm")
	sources, headers := p.named("*.c"), p.named("*.h")
	command, err := p.anyMatch(sources, cMain)
	if err != nil {
		return recipe{}, err
	}
	needsSDK, err := p.anyMatch(slices.Concat(sources, headers), useSDK)
	if err != nil {
		return recipe{}, err
	}
	args := []string{"--target=wasm32-wasi", "-std=c11", "-Oz", "-Wall", "-Wextra", "-Wl,--strip-debug", "-Wl,--gc-sections", "-I."}
	if !command {
		args = append(args, "-mexec-model=reactor")
	}
	for _, s := range sources {
		args = append(args, "./"+s) // a name may begin with "-"
	}
	if needsSDK && !slices.Contains(headers, "circles.h") {
		dir, err := p.findSDK()
		if err != nil {
			return recipe{}, err
		}
		args = append(args, "-I"+dir, filepath.Join(dir, "circles.c"))
	}
	tool, err := exec.LookPath(clang())
	if err != nil {
		return recipe{}, l.missing(clang() + " is not there")
	}
	cmd := exec.CommandContext(ctx, tool, append(args, "-o", out)...)
	cmd.Dir = p.dir
	cmd.Env = environment("LIBRARY_PATH", "C_INCLUDE_PATH")
	return recipe{cmd: cmd, out: out, reactor: !command}, nil
}

// findSDK is the folder with circles.h and circles.c.
func (p project) findSDK() (string, error) {
	if p.sdk == "" {
		files, err := sdk.Of("c")
		if err != nil {
			return "", fmt.Errorf("build module: %w", err)
		}
		dir := filepath.Join(p.made, "sdk")
		if err := os.CopyFS(dir, files); err != nil {
			return "", fmt.Errorf("build module: C SDK: %w", err)
		}
		return dir, nil
	}
	dir, err := filepath.Abs(p.sdk)
	if err != nil {
		return "", fmt.Errorf("build module: C SDK: %w", err)
	}
	for _, name := range []string{"circles.h", "circles.c"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("build module: C SDK: %w; give the folder guest-sdk/c of circles, or nothing for the one that is built in", err)
		}
	}
	return dir, nil
}
