package build

import (
	"context"
	"fmt"
	"go/build"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// golang is compiled for wasip1 by the stock toolchain: a reactor when it exports
// entries with //go:wasmexport, else a command.
var golang = Language{
	Name: "go", Title: "Go", Sign: "go.mod",
	Install: "install Go 1.24 or newer, from https://go.dev/dl",
	command: goCommand,
	version: func(ctx context.Context) (string, error) {
		text, err := said(ctx, "go", "version")
		words := strings.Fields(text) // go version go1.26.0 linux/amd64
		if err == nil && len(words) > 2 {
			text = words[2]
		}
		return text, err
	},
}

// https://pkg.go.dev/cmd/compile#hdr-Compiler_Directives
var wasmExport = regexp.MustCompile(`(?m)^//go:wasmexport[ \t]+\S`)

// goCommand says how to build a Go program.
func goCommand(ctx context.Context, l Language, p project) (recipe, error) {
	out := filepath.Join(p.made, "module.wasm")
	target := build.Default
	target.GOOS, target.GOARCH, target.CgoEnabled = "wasip1", "wasm", false
	pkg, err := target.ImportDir(p.dir, 0)
	if err != nil {
		return recipe{}, fmt.Errorf("build module: %w", err)
	}
	if pkg.Name != "main" {
		return recipe{}, fmt.Errorf("build module: %s is package %s, and a module is a package main", p.dir, pkg.Name)
	}
	reactor, err := p.anyMatch(pkg.GoFiles, wasmExport)
	if err != nil {
		return recipe{}, err
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		return recipe{}, l.missing("go is not in PATH")
	}
	// The names of functions stay, for stack traces.
	// Without -buildvcs=false go would start git in a folder whose .git may be
	// anybody's, and the module would depend on where it is built.
	args := []string{"build", "-trimpath", "-buildvcs=false", "-o", out}
	if reactor {
		args = append(args, "-buildmode=c-shared")
	}
	cmd := exec.CommandContext(ctx, tool, append(args, ".")...)
	cmd.Dir = p.dir
	cmd.Env = append(environment(goVariables...),
		"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOWORK=off",
		"GOTOOLCHAIN=local", // a go.mod chooses no other compiler to fetch and run
		"GOFLAGS=-trimpath", // instead of what go env -w may have left
		"PWD="+p.dir,        // as os/exec does it for the whole environment
		"GO111MODULE=on")
	if p.foreign {
		cmd.Env = append(cmd.Env, "GOVCS=*:off")
	}
	return recipe{cmd: cmd, out: out, reactor: reactor}, nil
}

// goVariables say where Go keeps things, and from where it may fetch them.
var goVariables = []string{
	"GOROOT", "GOPATH", "GOCACHE", "GOMODCACHE", "GOENV", "GOPROXY", "GOPRIVATE", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOVCS",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
}
