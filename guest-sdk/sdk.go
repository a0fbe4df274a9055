// Package sdk has the sources of the guest SDKs, for tools that put one into a
// guest author's project or hand it to a compiler: circles-host new and
// module build work offline and without a checkout of circles.
package sdk

import (
	"archive/zip"
	"bytes"
	"embed"
	"fmt"
	"io/fs"
)

//go:generate go run ./pack go go.zip

//go:embed c/circles.h c/circles.hpp c/circles.c
//go:embed rust/Cargo.toml rust/src
//go:embed zig/circles.zig
//go:embed assemblyscript/*.ts assemblyscript/*.mjs
//go:embed js/circles.js js/circles.d.ts js/javascript.wasm.gz
var sources embed.FS

// The Go SDK is a module of its own, of which nothing can be embedded as it is.
//
//go:embed go.zip
var goZip []byte

// Of returns the sources of a language's SDK, as they lie in its folder here
// without their tests. Languages are "assemblyscript", "c", "go", "js", "rust" and
// "zig".
func Of(language string) (fs.FS, error) {
	if language == "go" {
		z, err := zip.NewReader(bytes.NewReader(goZip), int64(len(goZip)))
		if err != nil {
			return nil, fmt.Errorf("read the Go SDK: %w", err)
		}
		return z, nil
	}
	if _, err := sources.ReadDir(language); err != nil {
		return nil, fmt.Errorf("there is no SDK for %q: %w", language, err)
	}
	return fs.Sub(sources, language)
}
