package module

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/peer"
)

// version is one version of a module. Once it is compiled it holds one reference
// to the program, for as long as it is current.
type version struct {
	file
	dir   string // of its layer, where versions are kept
	stamp stamp
	info  engine.Info

	publisher peer.ID

	program atomic.Pointer[engine.Program] // nil until somebody runs it
	// compiling has an element while somebody compiles it or it is closed.
	compiling chan struct{}
	closed    bool // guarded by compiling
}

func newVersion(dir string, of file, at stamp, info engine.Info, publisher peer.ID) *version {
	return &version{file: of, dir: dir, stamp: at, info: info, publisher: publisher, compiling: make(chan struct{}, 1)}
}

// run returns the program, with a reference for the caller, and compiles it if
// nobody has run it before. Whoever comes meanwhile waits for that.
func (v *version) run(ctx context.Context, e *engine.Engine) (*engine.Program, error) {
	if p := v.program.Load(); p != nil && p.Retain() {
		return p, nil
	}
	select {
	case v.compiling <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("compile module %s: %w", v.name, context.Cause(ctx))
	}
	defer func() { <-v.compiling }()
	if v.closed {
		return nil, v.replaced()
	}
	if p := v.program.Load(); p != nil && p.Retain() {
		return p, nil
	}
	wasm, err := v.read()
	if err != nil {
		return nil, err
	}
	p, err := v.compile(ctx, e, wasm)
	if err != nil {
		return nil, err
	}
	p.Retain()
	v.program.Store(p)
	return p, nil
}

// read returns the bytes that were decided about, and no others: the file may have
// been replaced since it was looked at. Then they are what was kept of it.
func (v *version) read() ([]byte, error) {
	wasm, err := v.readFile(v.path)
	if errors.Is(err, ErrNotFound) {
		wasm, err = v.readFile(v.kept().Path(v.dir))
	}
	if err != nil {
		return nil, err
	}
	// It was decided on the word of the cache, if it was in there.
	if publisher, err := v.signer(wasm, v.info.Digest); err != nil || publisher != v.publisher {
		return nil, fmt.Errorf("read module %s: %w; delete the host's cache folder", v.name, cmp.Or(err, errPublisher))
	}
	return wasm, nil
}

func (v *version) readFile(path string) ([]byte, error) {
	f, err := openNonblock(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, v.replaced()
	}
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", v.name, err)
	}
	defer f.Close()
	wasm, err := io.ReadAll(io.LimitReader(f, int64(v.info.Size)+1))
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", v.name, err)
	}
	if sha256.Sum256(wasm) != v.info.Digest {
		return nil, v.replaced()
	}
	return wasm, nil
}

var errPublisher = errors.New("what the cache says of who signed it is not so")

func (v *version) replaced() error {
	return fmt.Errorf("%w: module %s is being replaced; send it again in a moment", ErrNotFound, v.name)
}

// close lets go of the program. Those that run finish.
func (v *version) close() {
	v.compiling <- struct{}{}
	defer func() { <-v.compiling }()
	v.closed = true
	if p := v.program.Load(); p != nil {
		p.Close()
	}
}
