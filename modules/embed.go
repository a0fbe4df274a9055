// Package modules holds the script modules that ship with circles, as far as
// they are small enough to be kept built: those in C. Each has its source and
// its recipe in the folder of its name; README.md there says what it does.
//
//	for _, m := range modules.List() {
//		fmt.Println(m.Name, m.Digest(), len(m.Wasm))
//	}
package modules

import (
	"crypto/sha256"
	"embed"
)

// Languages has the language modules, packed, each in the folder of its language: package
// languages unpacks them.
//
//go:embed javascript/javascript.wasm.gz javascript/SHA256SUMS
//go:embed rhai/rhai.wasm.gz.* rhai/SHA256SUMS
//go:embed starlark/starlark.wasm.gz.* starlark/SHA256SUMS
var Languages embed.FS

var (
	//go:embed guestbook/guestbook.wasm
	guestbook []byte
	//go:embed wordcount/wordcount.wasm
	wordcount []byte
)

// Module is one WASM file and the name that it goes by.
type Module struct {
	Name string
	Wasm []byte // the file; shared, not to be changed
}

// Digest is the SHA-256 of the file: what scripts and policies know it by.
func (m Module) Digest() [sha256.Size]byte { return sha256.Sum256(m.Wasm) }

// List returns the modules in name order.
func List() []Module {
	return []Module{
		{"guestbook", guestbook},
		{"wordcount", wordcount},
	}
}

// Get returns the module with that name.
func Get(name string) (Module, bool) {
	for _, m := range List() {
		if m.Name == name {
			return m, true
		}
	}
	return Module{}, false
}
