// Package languages has the languages in which a script may be a text, each with the
// language module that interprets it.
//
//	for _, l := range languages.All() {
//		wasm, err := l.Wasm()
//		…
//	}
//
// A language module is of the world language in wit/script.wit: a host gives it a text
// once, by its entry "load", and each run enters the text by "call". It lies in
// modules/NAME with its source, the recipe that makes it, and SHA256SUMS, packed with
// gzip, in parts where it is large: NAME.wasm.gz, or NAME.wasm.gz.0, NAME.wasm.gz.1, ….
package languages

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/circles-host/circles/modules"
)

// Language is a language of texts.
type Language struct {
	Name   string // as policies, scripts and --lang have it
	Title  string // as people write it
	Suffix string // of files
	Digest [sha256.Size]byte
}

// maxWasm is more than any of the language modules has, unpacked.
const maxWasm = 32 << 20

// All returns the languages by name.
func All() []Language {
	return slices.Clone(all)
}

var all = []Language{
	language("javascript", "JavaScript", ".js"),
	language("rhai", "Rhai", ".rhai"),
	language("starlark", "Starlark", ".star"),
}

// Of returns the language of that name.
func Of(name string) (Language, bool) {
	i := slices.IndexFunc(all, func(l Language) bool { return l.Name == name })
	if i < 0 {
		return Language{}, false
	}
	return all[i], true
}

// language makes a Language of what is in its folder: SHA256SUMS has the digest of
// NAME.wasm.
func language(name, title, suffix string) Language {
	l := Language{Name: name, Title: title, Suffix: suffix}
	sums, err := modules.Languages.ReadFile(name + "/SHA256SUMS")
	if err != nil {
		panic(err) // go:embed has it, or there is no build
	}
	for line := range strings.Lines(string(sums)) {
		if sum, file, ok := strings.Cut(strings.TrimSpace(line), "  "); ok && file == name+".wasm" {
			if n, err := hex.Decode(l.Digest[:], []byte(sum)); err == nil && n == len(l.Digest) {
				return l
			}
		}
	}
	panic(fmt.Sprintf("modules/%s/SHA256SUMS: no digest of %s.wasm", name, name))
}

// Wasm unpacks the language module. What it returns has the Digest.
func (l Language) Wasm() ([]byte, error) {
	parts, err := fs.Glob(modules.Languages, l.Name+"/"+l.Name+".wasm.gz*") // in order
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", l.Name, err)
	}
	var readers []io.Reader
	for _, part := range parts {
		b, err := modules.Languages.ReadFile(part)
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", l.Name, err)
		}
		readers = append(readers, bytes.NewReader(b))
	}
	z, err := gzip.NewReader(io.MultiReader(readers...))
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", l.Name, err)
	}
	wasm, err := io.ReadAll(io.LimitReader(z, maxWasm))
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", l.Name, err)
	}
	if sha256.Sum256(wasm) != l.Digest {
		return nil, fmt.Errorf("unpack %s: it has another digest than modules/%s/SHA256SUMS says", l.Name, l.Name)
	}
	return wasm, nil
}
