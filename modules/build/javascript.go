package build

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/evanw/esbuild/pkg/api"

	sdk "github.com/circles-host/circles/guest-sdk"
)

// javascript and typescript are bundled here, and put into an interpreter that was
// built before: guest-sdk/js says how the two fit. It takes no tools.
var (
	javascript = Language{
		Name: "js", Title: "JavaScript", Sign: "index.js",
		command: bundled, version: builtIn,
	}
	typescript = Language{
		Name: "ts", Title: "TypeScript", Sign: "index.ts",
		command: bundled, version: builtIn,
	}
)

func builtIn(context.Context) (string, error) { return "QuickJS-ng, built in", nil }

const (
	maxScript  = 1 << 20 // bytes: MAX_SCRIPT of guest-sdk/js/javascript.c
	maxEntries = 32      // the entries that there are there
)

// bundled makes a module of index.ts or index.js, with all that it imports.
func bundled(ctx context.Context, l Language, p project) (recipe, error) {
	if p.foreign && len(p.below("package.json")) > 0 && !p.has("node_modules") {
		if err := npmInstall(ctx, l, p); err != nil {
			return recipe{}, err
		}
	}
	files, err := sdk.Of("js")
	if err != nil {
		return recipe{}, fmt.Errorf("build module: %w", err)
	}
	own, err := fs.ReadFile(files, "circles.js")
	if err != nil {
		return recipe{}, fmt.Errorf("build module: %w", err)
	}
	names, _, err := exported(l, p, string(own))
	if err != nil {
		return recipe{}, err
	}
	entries := make([]string, len(names))
	var glue strings.Builder
	fmt.Fprintf(&glue, "import { entry } from \"circles\";\nimport * as module from %q;\nglobalThis.circlesEntries = [\n", "./"+l.Sign)
	for i, name := range names {
		entries[i] = kebab(name)
		fmt.Fprintf(&glue, "  entry(%q, module[%q]),\n", entries[i], name)
	}
	glue.WriteString("];\n")
	script, said, err := bundle(p, string(own), api.BuildOptions{
		Stdin:  &api.StdinOptions{Contents: glue.String(), ResolveDir: p.dir, Sourcefile: "entries", Loader: api.LoaderJS},
		Format: api.FormatIIFE,
	})
	if err != nil {
		return recipe{}, err
	}
	if len(script) > maxScript {
		return recipe{}, fmt.Errorf("build module: with all that it imports %s has %d bytes; %d are the most", l.Sign, len(script), maxScript)
	}
	packed, err := fs.ReadFile(files, "javascript.wasm.gz")
	if err != nil {
		return recipe{}, fmt.Errorf("build module: %w", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return recipe{}, fmt.Errorf("build module: interpreter: %w", err)
	}
	interpreter, err := io.ReadAll(z)
	if err != nil {
		return recipe{}, fmt.Errorf("build module: interpreter: %w", err)
	}
	wasm, err := withScript(interpreter, script, entries)
	if err != nil {
		return recipe{}, fmt.Errorf("build module: interpreter: %w", err)
	}
	return recipe{wasm: wasm, reactor: true, warnings: said}, nil
}

// exported are the names that a project's file exports, in order.
func exported(l Language, p project, own string) (names []string, said string, err error) {
	result := api.Build(options(p, own, api.BuildOptions{
		EntryPoints: []string{filepath.Join(p.dir, l.Sign)},
		Format:      api.FormatESModule,
		Metafile:    true,
	}))
	if said, err = messages(result); err != nil {
		return nil, said, err
	}
	var meta struct {
		Outputs map[string]struct {
			Exports []string `json:"exports"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal([]byte(result.Metafile), &meta); err != nil {
		return nil, said, fmt.Errorf("build module: what esbuild says of %s: %w", l.Sign, err)
	}
	for _, out := range meta.Outputs {
		names = append(names, out.Exports...)
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return nil, said, fmt.Errorf("build module: %s exports nothing, and its exports are the entries; write: export function run(params) { … }", l.Sign)
	case len(names) > maxEntries:
		return nil, said, fmt.Errorf("build module: %s exports %d names, and a module has at most %d entries", l.Sign, len(names), maxEntries)
	}
	seen := map[string]string{}
	for _, name := range names {
		entry := kebab(name)
		if !entryName.MatchString(entry) {
			return nil, said, fmt.Errorf("build module: %s exports %s, which cannot be the name of an entry; want letters and digits, in camel case", l.Sign, name)
		}
		if other := seen[entry]; other != "" {
			return nil, said, fmt.Errorf("build module: %s exports %s and %s, and both would be the entry %s", l.Sign, other, name, entry)
		}
		seen[entry] = name
	}
	return names, said, nil
}

var (
	entryName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	hump      = regexp.MustCompile(`[A-Z]`)
)

// kebab is the entry of an export: logLines is log-lines, and default run.
func kebab(name string) string {
	if name == "default" {
		return "run"
	}
	return hump.ReplaceAllStringFunc(name, func(c string) string { return "-" + strings.ToLower(c) })
}

// bundle returns one script.
func bundle(p project, own string, o api.BuildOptions) (script []byte, said string, err error) {
	result := api.Build(options(p, own, o))
	if said, err = messages(result); err != nil {
		return nil, said, err
	}
	return result.OutputFiles[0].Contents, said, nil
}

// options are o with what holds for every build: the SDK is found as "circles", and
// nothing is read that decides otherwise.
func options(p project, own string, o api.BuildOptions) api.BuildOptions {
	o.AbsWorkingDir = p.dir
	o.Bundle, o.Write = true, false
	o.Outdir = p.made
	o.Platform, o.Target = api.PlatformNeutral, api.ES2023
	o.MainFields = []string{"module", "main"}
	o.LogLevel = api.LogLevelSilent
	o.Charset = api.CharsetUTF8
	o.LegalComments = api.LegalCommentsNone
	o.Plugins = []api.Plugin{{Name: "circles", Setup: func(b api.PluginBuild) {
		b.OnResolve(api.OnResolveOptions{Filter: "^circles$"}, func(api.OnResolveArgs) (api.OnResolveResult, error) {
			return api.OnResolveResult{Path: "circles", Namespace: "circles"}, nil
		})
		b.OnLoad(api.OnLoadOptions{Filter: ".*", Namespace: "circles"}, func(api.OnLoadArgs) (api.OnLoadResult, error) {
			return api.OnLoadResult{Contents: &own, Loader: api.LoaderJS}, nil
		})
	}}}
	return o
}

// messages are what esbuild has to say, as compilers say it.
func messages(r api.BuildResult) (warnings string, err error) {
	text := func(list []api.Message, kind api.MessageKind) string {
		return strings.Join(api.FormatMessages(list, api.FormatMessagesOptions{Kind: kind}), "")
	}
	if len(r.Errors) > 0 {
		return "", &CompileError{Tool: "esbuild", Output: text(r.Errors, api.ErrorMessage)}
	}
	return text(r.Warnings, api.WarningMessage), nil
}

// withScript puts a script and the names of its entries into the interpreter.
func withScript(wasm, script []byte, entries []string) ([]byte, error) {
	sections, err := parse(wasm)
	if err != nil {
		return nil, err
	}
	at, err := sections.address("circles_script")
	if err != nil {
		return nil, err
	}
	if err := sections.exports(func(name string) (string, bool) {
		if name == "circles_script" {
			return "", false
		}
		var n int
		if _, err := fmt.Sscanf(name, "entry %d", &n); err != nil {
			return name, true
		}
		if n >= len(entries) {
			return "", false
		}
		return entries[n], true
	}); err != nil {
		return nil, err
	}
	text := binaryLength(len(script))
	if err := sections.data(at, append(text, script...)); err != nil {
		return nil, err
	}
	return sections.encode(), nil
}
