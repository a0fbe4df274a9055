// Addmanifest puts a manifest into a module, in place of any that it has:
//
//	go run ./modules/addmanifest booking.wasm modules/booking/manifest.json
package main

import (
	"fmt"
	"os"

	"github.com/circles-host/circles/modules"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: addmanifest MODULE.wasm MANIFEST.json")
		os.Exit(2)
	}
	if err := add(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "addmanifest:", err)
		os.Exit(1)
	}
}

// add replaces the module by rename: a host that watches the folder must never
// see half of it.
func add(module, manifest string) error {
	wasm, err := os.ReadFile(module)
	if err != nil {
		return err
	}
	m, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	wasm, err = modules.WithManifest(wasm, m)
	if err != nil {
		return fmt.Errorf("%s: %w", module, err)
	}
	if err := os.WriteFile(module+".new", wasm, 0o644); err != nil {
		return err
	}
	return os.Rename(module+".new", module)
}
