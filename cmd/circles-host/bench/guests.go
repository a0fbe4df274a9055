package bench

import (
	"embed"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/circles-host/circles/modules"
	"github.com/circles-host/circles/modules/build"
)

// guest is a module to make fresh calls of.
type guest struct {
	name string
	wasm []byte
	aim  float64 // how many times faster than with wazero alone
}

// goGuest is the source of the guest in Go. Built it has 1.8 MB, and packed 400 KB:
// too much to ship for this.
//
//go:embed goguest
var goGuest embed.FS

// findGuests collects the guests: in C, which is one of the modules that ship; in
// Go, which is built with the go command if there is one; those that were named.
func (r *run) findGuests() error {
	words, _ := modules.Get("wordcount")
	r.guests = append(r.guests, guest{"C", words.Wasm, 15})
	switch wasm, err := r.buildGo(); {
	case err == nil:
		r.guests = append(r.guests, guest{"Go", wasm, 200})
	case errors.Is(err, build.ErrNoCompiler):
		r.note("no guest in Go was measured: there is no go command here to build it; name one that is built with --module")
	default:
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(r.Modules)) {
		r.guests = append(r.guests, guest{name, r.Modules[name], 0})
	}
	return nil
}

func (r *run) buildGo() ([]byte, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return nil, build.ErrNoCompiler
	}
	r.Progress("building the guest in Go")
	dir := filepath.Join(r.dir, "goguest")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	source, err := goGuest.ReadFile("goguest/main.go.txt")
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{"main.go": string(source), "go.mod": "module goguest\n\ngo 1.24\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	built, err := build.Build(r.ctx, build.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	return built.Wasm, nil
}

// guest returns one by its name, or the one in C.
func (r *run) guest(name string) guest {
	for _, g := range r.guests {
		if g.name == name {
			return g
		}
	}
	return r.guests[0]
}
