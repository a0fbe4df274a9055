// Package module finds the code that a script names, in layers, and replaces a
// module that runs while its file changes.
//
// A Layer is one directory of modules: a peer's own, or the host's. Each is a file
// NAME.wasm, or a text in a language of the engine's, NAME.js. Two files of one name are
// an error that names both, and leave in force what was. A text has no manifest and no
// publisher: what it may do is what policies say, and it is allowed by its digest. Find
// asks layers in order, so a peer's own module shadows the host's of the same
// name. What it finds stays what it is until Release, whatever happens to the
// file meanwhile: the code that a policy accepted is the code that runs.
//
// A change to a file is compiled beside the version in force. When it compiles,
// and imports only what this host offers, one pointer is swapped: new scripts
// run the new version, those that run finish on the old one, which is freed
// after the last. When it does not, the old one stays in force and the Layer
// reports why.
//
// A module may be signed; see Publisher for the form. One whose signature is not
// good is no module: it is neither found nor put in force.
package module

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Suffix is what a module's file name ends with; the name of the module is what
// stands before it.
const Suffix = ".wasm"

// Carried is the Layer of code that came with its script.
const Carried = "carried"

// Owner is the Layer of what runs no code, but undoes an earlier script or decides
// about one.
const Owner = "owner"

// ErrNotFound is wrapped by errors about a module that no layer has.
var ErrNotFound = errors.New("module not found")

// Found is the code that a script asked for. It must be released.
type Found struct {
	Name  string // within its layer; "" for carried code
	Layer string // the layer's label, or Carried
	engine.Info
	Publisher peer.ID // who signed the bytes; "" if nobody

	Instead bool // it is not what the script named or brought, but what its target's owner has mapped that to

	program *engine.Program // nil until Program compiles it
	wasm    []byte          // of carried code
	text    string          // or this
	version *version        // of a layer's
	with    []*Found        // released with it, see Line
}

// Find looks logic up in layers, of which there is one at least, the first one first.
// Nothing is compiled: of carried code only the header is read, of a carried text
// nothing, and whether it compiles is found out by Program, after it was accepted.
// Errors wrap ErrNotFound or engine.ErrInvalid.
func Find(logic script.Logic, layers ...*Layer) (*Found, error) {
	if logic.OfOwner() {
		return &Found{Layer: Owner}, nil
	}
	for i, l := range layers {
		if f, err := mapped(logic, layers[i:]); f != nil || err != nil {
			return f, err
		}
		var f *Found
		var err error
		switch {
		case logic.Wasm != nil || logic.Text != script.Text{}:
		case logic.Name != "":
			f, err = l.lookUp(logic.Name)
		default:
			f = l.find(func(v *version) bool { return v.info.Digest == logic.Digest })
		}
		if f != nil || err != nil {
			return f, err
		}
	}
	switch {
	case logic.Wasm != nil:
		info, err := engine.Inspect(logic.Wasm)
		if err != nil {
			return nil, err
		}
		publisher, err := Publisher(logic.Wasm, info.Digest)
		if err != nil {
			return nil, err
		}
		return &Found{Layer: Carried, Info: info, Publisher: publisher, wasm: logic.Wasm}, nil
	case logic.Text != script.Text{}:
		info, err := layers[0].engine.InspectText(logic.Text.Language, []byte(logic.Text.Source))
		if err != nil {
			return nil, err
		}
		return &Found{Layer: Carried, Info: info, text: logic.Text.Source}, nil
	case logic.Name != "":
		return nil, fmt.Errorf("%w: no module named %q here", ErrNotFound, logic.Name)
	default:
		return nil, fmt.Errorf("%w: no module with digest sha256:%x here", ErrNotFound, logic.Digest)
	}
}

// Named finds the module of a name, as Find does, for a module that calls it by that:
// what owners map is what scripts ask for, and what runs in its place can so call
// what it stands in for.
func Named(name string, layers ...*Layer) (*Found, error) {
	for _, l := range layers {
		if f, err := l.lookUp(name); f != nil || err != nil {
			return f, err
		}
	}
	return nil, fmt.Errorf("%w: no module named %q here", ErrNotFound, name)
}

// Program returns the compiled code. Carried code, and what nobody has run since
// its layer was opened, it compiles, which is why it is called only for a script
// that was accepted; ctx bounds how long. It wraps ErrNotFound if what was found is
// not there any more, which the sender can try again.
func (f *Found) Program(ctx context.Context, e *engine.Engine) (p *engine.Program, err error) {
	switch {
	case f.program != nil:
		return f.program, nil
	case f.version != nil:
		p, err = f.version.run(ctx, e)
	case f.text != "":
		p, err = e.Load(ctx, f.Language, []byte(f.text))
	default:
		p, err = e.Compile(ctx, f.wasm)
	}
	if err != nil {
		return nil, err
	}
	f.program, f.wasm, f.text = p, nil, ""
	return p, nil
}

// HasEntry reports whether the code can be entered there. A command has no
// entries, and only the empty name, or "run", enters it.
func (f *Found) HasEntry(entry string) bool {
	if entry == "" {
		entry = "run"
	}
	if f.Shape == engine.Command {
		return entry == "run"
	}
	return slices.Contains(f.Entries, entry)
}

// Release gives the code back. The Found is of no use afterwards.
func (f *Found) Release() {
	if f.program != nil {
		f.program.Close()
		f.program = nil
	}
	for _, other := range f.with {
		other.Release()
	}
	f.with = nil
}
