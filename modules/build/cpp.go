package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cpp is compiled by clang++ as C++17 without exceptions: a command when it has a
// main, else a reactor. C sources beside it are compiled as C. When it includes
// circles.hpp or circles.h it is linked with the SDK.
var cpp = Language{
	Name: "cpp", Title: "C++", Sign: "*.cpp",
	Install: installCPP,
	command: cppCommand,
	version: func(ctx context.Context) (string, error) {
		text, err := said(ctx, clangPP(), "--version")
		if err != nil {
			return "", err
		}
		return clangVersion.FindString(text), linksCPP(ctx)
	},
	hint: func(output string) string {
		if strings.Contains(output, "file not found") || strings.Contains(output, "c++abi") || strings.Contains(output, "unable to find library -lc++") {
			return "if it is incomplete: " + installCPP
		}
		return c.hint(output)
	},
}

const installCPP = "install clang with a linker, a C library and libc++ for WebAssembly; on Debian or Ubuntu: " +
	"apt install clang lld wasi-libc libclang-rt-dev-wasm32 libc++-dev-wasm32"

// clangPP is the compiler's name.
func clangPP() string {
	if cxx := os.Getenv("CXX"); cxx != "" {
		return cxx
	}
	return "clang++"
}

// linksCPP reports whether clang++ can make a module.
func linksCPP(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "circles-build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "a.cpp")
	if err := os.WriteFile(file, []byte("#include <string>\nint main(int n, char **) { return std::to_string(n).size(); }\n"), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, clangPP(), "--target=wasm32-wasi", "-fno-exceptions", file, "-o", filepath.Join(dir, "a.wasm"))
	cmd.Env = environment()
	if b, err := cmd.CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(string(b), "\n")
		return fmt.Errorf("clang++ is there, and cannot make a module: %s", first)
	}
	return nil
}

// cppCommand says how to build a C++ program. What is C in it, the SDK's part too, is
// compiled here, since one call of clang has one language standard.
func cppCommand(ctx context.Context, l Language, p project) (recipe, error) {
	out := filepath.Join(p.made, "module.wasm")
	sources, inC := p.named("*.cpp"), p.named("*.c")
	headers := slices.Concat(p.named("*.h"), p.named("*.hpp"))
	command, err := p.anyMatch(slices.Concat(sources, inC), cMain)
	if err != nil {
		return recipe{}, err
	}
	needsSDK, err := p.anyMatch(slices.Concat(sources, inC, headers), useSDK)
	if err != nil {
		return recipe{}, err
	}
	common := []string{"--target=wasm32-wasi", "-Oz", "-Wall", "-Wextra", "-I."}
	for i, s := range inC {
		inC[i] = "./" + s // a name may begin with "-"
	}
	if needsSDK && !slices.Contains(headers, "circles.h") {
		dir, err := p.findSDK()
		if err != nil {
			return recipe{}, err
		}
		common = append(common, "-I"+dir)
		inC = append(inC, filepath.Join(dir, "circles.c"))
	}
	tool, err := exec.LookPath(clangPP())
	if err != nil {
		return recipe{}, l.missing(clangPP() + " is not there")
	}
	var objects []string
	for i, s := range inC {
		objects = append(objects, filepath.Join(p.made, fmt.Sprintf("%d.o", i)))
		cc, err := exec.LookPath(clang())
		if err != nil {
			return recipe{}, l.missing(clang() + " is not there")
		}
		cmd := exec.CommandContext(ctx, cc, append(slices.Clone(common), "-std=c11", "-c", s, "-o", objects[i])...)
		cmd.Dir, cmd.Env = p.dir, environment("LIBRARY_PATH", "C_INCLUDE_PATH")
		if _, err := run(ctx, cmd, 10*time.Minute, l.hint); err != nil {
			return recipe{}, err
		}
	}
	args := slices.Concat(common, []string{"-std=c++17", "-fno-exceptions", "-fno-rtti", "-Wl,--strip-debug", "-Wl,--gc-sections"})
	if !command {
		args = append(args, "-mexec-model=reactor")
	}
	for _, s := range sources {
		args = append(args, "./"+s)
	}
	cmd := exec.CommandContext(ctx, tool, append(append(args, objects...), "-o", out)...)
	cmd.Dir = p.dir
	cmd.Env = environment("LIBRARY_PATH", "CPLUS_INCLUDE_PATH")
	return recipe{cmd: cmd, out: out, reactor: !command}, nil
}
