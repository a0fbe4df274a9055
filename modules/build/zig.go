package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	sdk "github.com/circles-host/circles/guest-sdk"
)

// zig is compiled by zig itself: a command when main.zig has a main, else a reactor.
// It can import "circles", the SDK.
var zig = Language{
	Name: "zig", Title: "Zig", Sign: "main.zig",
	Install: "install Zig " + zigVersion + ", from https://ziglang.org/download or with pip: pip install ziglang==" + zigVersion,
	command: zigCommand,
	version: func(ctx context.Context) (string, error) {
		tool, err := findZig(ctx)
		if err != nil {
			return "", err
		}
		return "zig " + tool.version, nil
	},
	hint: func(output string) string {
		if strings.Contains(output, "circles.zig") || strings.Contains(output, "/lib/std/") {
			return "if it is another version: the SDK is for Zig " + zigVersion
		}
		return ""
	},
}

// zigVersion is the one that the SDK is tested with. The language is not stable: others
// may do, or not.
const zigVersion = "0.17.0"

type zigTool struct {
	argv    []string // before the arguments
	version string
}

// findZig finds the compiler: in PATH, or as the package ziglang of Python's.
func findZig(ctx context.Context) (zigTool, error) {
	for _, argv := range [][]string{{"zig"}, {"python-zig"}, {"python3", "-m", "ziglang"}} {
		path, err := exec.LookPath(argv[0])
		if err != nil {
			continue
		}
		argv := append([]string{path}, argv[1:]...)
		cmd := exec.CommandContext(ctx, path, append(argv[1:], "version")...)
		cmd.Env, cmd.WaitDelay = zigEnvironment(), time.Second
		if b, err := cmd.Output(); err == nil {
			return zigTool{argv, strings.TrimSpace(string(b))}, nil
		}
	}
	return zigTool{}, errors.New("zig is not in PATH")
}

func zigEnvironment() []string {
	return environment("PYTHONPATH", "ZIG_LIB_DIR", "ZIG_GLOBAL_CACHE_DIR")
}

var zigMain = regexp.MustCompile(`(?m)^pub fn main\(`)

// zigCommand says how to build a Zig program. A build.zig is not read: what is built is
// main.zig, with what it imports.
func zigCommand(ctx context.Context, l Language, p project) (recipe, error) {
	command, err := p.anyMatch([]string{"main.zig"}, zigMain)
	if err != nil {
		return recipe{}, err
	}
	tool, err := findZig(ctx)
	if err != nil {
		return recipe{}, l.missing(err.Error())
	}
	files, err := sdk.Of("zig")
	if err != nil {
		return recipe{}, fmt.Errorf("build module: %w", err)
	}
	// Where the sources lie is in what is made, and in the key of what is kept.
	kept, err := cacheDir("zig", tool.version)
	if err != nil {
		return recipe{}, fmt.Errorf("build module: %w", err)
	}
	dir := filepath.Join(p.made, "circles-sdk")
	if err := os.CopyFS(dir, files); err != nil {
		return recipe{}, fmt.Errorf("build module: Zig SDK: %w", err)
	}
	out := filepath.Join(p.made, "module.wasm")
	args := slices.Concat(tool.argv[1:], []string{"build-exe", "-target", "wasm32-wasi", "-O", "ReleaseSmall", "-fno-strip", "-rdynamic", "--stack", "1048576"})
	if !command {
		args = append(args, "-mexec-model=reactor", "-fno-entry")
	}
	args = append(args, "--dep", "circles", "-Mroot=main.zig", "-Mcircles="+filepath.Join(dir, "circles.zig"), "-femit-bin="+out)
	cmd := exec.CommandContext(ctx, tool.argv[0], args...)
	cmd.Dir = p.dir
	cmd.Env = append(zigEnvironment(), "ZIG_LOCAL_CACHE_DIR="+kept)
	return recipe{cmd: cmd, out: out, reactor: !command, debug: true}, nil
}
