package modules

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// ManifestSection is the name of the custom section that holds a manifest.
const ManifestSection = "circles-manifest"

// WithManifest returns the module with the manifest as its only
// "circles-manifest" section, at the end. It is for compilers that cannot emit
// one, such as Go's. The manifest must be a JSON object; README.md describes it.
// Format: https://webassembly.github.io/spec/core/binary/modules.html#custom-section
func WithManifest(wasm, manifest []byte) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(manifest, &object); err != nil {
		return nil, fmt.Errorf("add manifest: it is not a JSON object: %w", err)
	}
	if object == nil { // null
		return nil, errors.New("add manifest: it is not a JSON object")
	}
	out, err := without(wasm, func(section string) bool { return section == ManifestSection })
	if err != nil {
		return nil, fmt.Errorf("add manifest: %w", err)
	}
	section := binary.AppendUvarint(nil, uint64(len(ManifestSection)))
	section = append(section, ManifestSection...)
	section = append(section, manifest...)
	out = append(out, 0)
	out = binary.AppendUvarint(out, uint64(len(section)))
	return append(out, section...), nil
}

// WithoutDebug returns the module without its sections of DWARF, which hold paths of
// the machine that it was built on, and are often most of it. The names of functions
// stay, for stack traces.
// Format: https://yurydelendik.github.io/webassembly-dwarf/#sections
func WithoutDebug(wasm []byte) ([]byte, error) {
	return without(wasm, func(section string) bool { return strings.HasPrefix(section, ".debug_") })
}

// without returns the module without the custom sections of those names.
func without(wasm []byte, drop func(section string) bool) ([]byte, error) {
	header := []byte("\x00asm\x01\x00\x00\x00")
	if !bytes.HasPrefix(wasm, header) {
		return nil, errors.New("the file is not a core WebAssembly module")
	}
	out := bytes.Clone(header)
	for rest := wasm[len(header):]; len(rest) > 0; {
		id := rest[0]
		body, next, ok := sized(rest[1:])
		if !ok {
			return nil, errors.New("the module is cut off or damaged")
		}
		name, _, ok := sized(body)
		if id != 0 || !ok || !drop(string(name)) {
			out = append(out, rest[:len(rest)-len(next)]...)
		}
		rest = next
	}
	return out, nil
}

// sized splits b after the bytes whose number it begins with.
func sized(b []byte) (body, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	return b[k : k+int(n)], b[k+int(n):], true
}
