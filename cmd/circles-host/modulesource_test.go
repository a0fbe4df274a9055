package main

import (
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/module"
)

// sourced is a module that says of itself that it was built in a language, of what is a
// project in Rust.
func sourced(ts *testscript.TestScript, language string) []byte {
	var m abitest.Module
	m.Memory(1)
	m.Func("_start", "", "")
	wasm, err := module.WithSource(m.Bytes(), module.Source{
		Recipe: module.Recipe{Format: 1, Language: language},
		Files:  []module.SourceFile{{Name: "Cargo.toml", Text: []byte("[package]\n")}, {Name: "build.rs"}, {Name: "index.js"}},
	})
	ts.Check(err)
	return wasm
}

// spliced is the first of two modules with the source of the second.
func spliced(ts *testscript.TestScript, names string) []byte {
	one, two, _ := strings.Cut(names, ",")
	from, err := os.ReadFile(ts.MkAbs(two))
	ts.Check(err)
	to, err := os.ReadFile(ts.MkAbs(one))
	ts.Check(err)
	s, err := module.ReadSource(from)
	ts.Check(err)
	wasm, err := module.WithSource(to, *s)
	ts.Check(err)
	return wasm
}
