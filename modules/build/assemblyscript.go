package build

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"time"
)

// assemblyscript is compiled by asc, of the project's own node_modules or of PATH, as
// asconfig.json says: a reactor whose entries are what it exports.
var assemblyscript = Language{
	Name: "assemblyscript", Title: "AssemblyScript", Sign: "asconfig.json",
	Runs:    "transforms, and whatever compiler package.json names",
	Install: "install Node.js 20 or newer, from https://nodejs.org, and then in the project: npm install",
	command: ascCommand,
	version: func(ctx context.Context) (string, error) {
		text, err := said(ctx, "node", "--version")
		if err == nil {
			if _, err = exec.LookPath("npm"); err != nil {
				err = errors.New("npm is not in PATH")
			}
		}
		return "node " + text, err
	},
}

func ascCommand(ctx context.Context, l Language, p project) (recipe, error) {
	if p.foreign && len(p.below(filepath.Join("node_modules", ".bin", "asc"))) == 0 {
		if err := npmInstall(ctx, l, p); err != nil {
			return recipe{}, err
		}
	}
	tool, err := exec.LookPath(filepath.Join(p.dir, "node_modules", ".bin", "asc"))
	if err != nil {
		tool, err = exec.LookPath("asc")
	}
	if err != nil {
		return recipe{}, l.missing("asc is neither in node_modules nor in PATH")
	}
	out := filepath.Join(p.made, "module.wasm")
	to, err := filepath.Rel(p.dir, out) // as asc takes paths to be below where it runs
	if err != nil {
		return recipe{}, err
	}
	args := []string{"--config", "asconfig.json", "-o", to}
	// The SDK's, which asconfig.json has no way to name.
	if transform := filepath.Join("circles", "kebab.mjs"); len(p.below(transform)) > 0 {
		args = append(args, "--transform", "./"+filepath.ToSlash(transform))
	}
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = p.dir
	cmd.Env = environment("NODE_PATH")
	return recipe{cmd: cmd, out: out, reactor: true}, nil
}

// npmInstall brings what package.json names, as package-lock.json has it if that is
// there, without running any of it.
func npmInstall(ctx context.Context, l Language, p project) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return l.missing("npm is not in PATH")
	}
	how := "install"
	if len(p.below("package-lock.json")) > 0 {
		how = "ci"
	}
	cmd := exec.CommandContext(ctx, npm, how, "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
	cmd.Dir = p.dir
	cmd.Env = environment("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "npm_config_registry", "npm_config_cafile", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE")
	cmd.Env = append(cmd.Env, "GIT_ALLOW_PROTOCOL=none") // a package that is a repository is not fetched
	_, err = run(ctx, cmd, 10*time.Minute, nil)
	return err
}
