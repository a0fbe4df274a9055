package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/modules/languages"
)

// cacheVariable names the folder where compiled code is kept, instead of in each root: for
// many that are there for a short time only.
const cacheVariable = "CIRCLES_CACHE"

// defaultLanguage is that of a text of which nothing says in which it is.
const defaultLanguage = "javascript"

// hostLanguages are those whose texts run here.
func hostLanguages() (all []engine.Language) {
	for _, l := range languages.All() {
		all = append(all, engine.Language{Name: l.Name, Suffix: l.Suffix, Digest: l.Digest, Wasm: l.Wasm})
	}
	return all
}

func langFlag() cli.Flag {
	var names []string
	for _, l := range languages.All() {
		names = append(names, l.Name)
	}
	return &cli.StringFlag{Name: "lang", Usage: "the text is in `LANGUAGE`, " + strings.Join(names, ", ")}
}

// languageNamed is the language of --lang.
func languageNamed(name string) (engine.Language, error) {
	var names []string
	for _, l := range hostLanguages() {
		if l.Name == name {
			return l, nil
		}
		names = append(names, l.Name)
	}
	return engine.Language{}, usage("--lang %s: want one of %s", name, strings.Join(names, ", "))
}

// languageOf is the language of the text in a file: that of --lang, or else of the
// file's suffix; its Name is "" if the file is no text's.
func languageOf(c *cli.Context, file string) (engine.Language, error) {
	if name := c.String("lang"); name != "" {
		return languageNamed(name)
	}
	return languageBySuffix(file), nil
}

func languageBySuffix(file string) engine.Language {
	for _, l := range hostLanguages() {
		if filepath.Ext(file) == l.Suffix {
			return l
		}
	}
	return engine.Language{}
}

// inspectCode is what can be said of a module, or a text in l, without running any of it,
// and who signed it.
func inspectCode(l engine.Language, code []byte) (info engine.Info, publisher peer.ID, err error) {
	if l.Name != "" {
		info, err = engine.InspectText(l, code)
		return info, "", err
	}
	if info, err = engine.Inspect(code); err == nil {
		publisher, err = module.Publisher(code, info.Digest)
	}
	return info, publisher, err
}

// readText reads a text that is to be carried.
func readText(file string, l engine.Language) (text script.Text, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return text, fmt.Errorf("read text: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > engine.MaxText {
		return text, coded{exitInvalid, fmt.Errorf("read text: %s is not a file of at most %d bytes", file, engine.MaxText)}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return text, fmt.Errorf("read text: %w", err)
	}
	if err := engine.CheckText(b); err != nil {
		return text, coded{exitInvalid, &engine.TextError{Language: l.Name, File: file, Message: err.Error()}}
	}
	return script.Text{Language: l.Name, Source: string(b)}, nil
}

// logicOf is the code that the first argument, or --text, asks to run, and how many
// arguments say so.
func logicOf(c *cli.Context) (l script.Logic, entry string, used int, err error) {
	if !c.IsSet("text") {
		l, entry, err = logic(c, c.Args().First())
		return l, entry, 1, err
	}
	language, err := languageNamed(lang(c))
	if err != nil {
		return l, "", 0, err
	}
	text := c.String("text")
	if err := engine.CheckText([]byte(text)); err != nil {
		return l, "", 0, usage("--text: %w", err)
	}
	return script.Logic{Text: script.Text{Language: language.Name, Source: text}}, "", 0, nil
}

// logic reads MODULE[:ENTRY].
func logic(c *cli.Context, arg string) (l script.Logic, entry string, err error) {
	name := arg
	if rest, ok := strings.CutPrefix(arg, "sha256:"); ok {
		digest, e, _ := strings.Cut(rest, ":")
		if l.Digest, err = script.ParseDigest("sha256:" + digest); err != nil {
			return l, "", usage("%w", err)
		}
		return l, e, nil
	}
	if i := strings.LastIndexByte(arg, ':'); i >= 0 {
		name, entry = arg[:i], arg[i+1:]
	}
	if strings.HasSuffix(name, module.Suffix) {
		if l.Wasm, err = os.ReadFile(name); err != nil {
			return l, "", fmt.Errorf("read module: %w", err)
		}
		if l.Wasm == nil {
			l.Wasm = []byte{}
		}
		return l, entry, nil
	}
	language, err := languageOf(c, name)
	if err != nil {
		return l, "", err
	}
	if language.Name != "" {
		l.Text, err = readText(name, language)
		return l, entry, err
	}
	if !module.ValidName(name) {
		return l, "", usage("module %q: want a name, sha256:DIGEST, a FILE.wasm, or a text in a file that ends with %s", name, suffixesText())
	}
	l.Name = name
	return l, entry, nil
}

func suffixesText() string {
	var all []string
	for _, l := range hostLanguages() {
		all = append(all, l.Suffix)
	}
	return strings.Join(all, " or ")
}

// inspectCarried is inspectCode for code that a script carries.
func inspectCarried(l script.Logic) (engine.Info, peer.ID, error) {
	if l.Wasm != nil {
		return inspectCode(engine.Language{}, l.Wasm)
	}
	language, err := languageNamed(l.Text.Language)
	if err != nil {
		return engine.Info{}, "", err
	}
	return inspectCode(language, []byte(l.Text.Source))
}

// inFile says of what is wrong with a file which it is.
func inFile(err error, file string) error {
	var text *engine.TextError
	if errors.As(err, &text) {
		return &engine.TextError{Language: text.Language, File: file, Message: text.Message}
	}
	return fmt.Errorf("%s: %w", file, err)
}

// sameName is the file in a layer's folder in which another module of that name lies.
func sameName(dir, name, suffix string) string {
	for _, other := range append(hostLanguages(), engine.Language{Suffix: module.Suffix}) {
		if path := filepath.Join(dir, name+other.Suffix); other.Suffix != suffix {
			if _, err := os.Lstat(path); err == nil {
				return path
			}
		}
	}
	return ""
}

// addFile puts a module, or a text, into a layer's folder.
func addFile(dir, name string, l engine.Language, code []byte) (path string, err error) {
	if l.Name == "" {
		return module.Add(dir, name, code)
	}
	return module.AddText(dir, name, l, code)
}

// moduleNames are the names of the modules, compiled or texts, in a layer's folder.
func moduleNames(dir string) (list []string) {
	list = names(dir, module.Suffix)
	for _, l := range hostLanguages() {
		list = append(list, names(dir, l.Suffix)...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
