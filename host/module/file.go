package module

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/peer"
)

// file is one in which a module lies: compiled, NAME.wasm, or a text in one of the
// engine's languages, NAME.js.
type file struct {
	name     string // of the module
	path     string
	language string // of a text; "" for a compiled module
}

func (f file) base() string { return filepath.Base(f.path) }

// Split takes a file's name apart into the module's and the language of the text, one
// of languages, or "" for a compiled module; ok is false if a file of that name is no
// module's.
func Split(languages []engine.Language, file string) (name, language string, ok bool) {
	if strings.HasPrefix(file, ".") {
		return "", "", false // a temporary one
	}
	if name, ok := strings.CutSuffix(file, Suffix); ok {
		return name, "", true
	}
	for _, l := range languages {
		if name, ok := strings.CutSuffix(file, l.Suffix); ok {
			return name, l.Name, true
		}
	}
	return "", "", false // a README, a source
}

// files are those of a layer's folder in which modules lie.
func (l *Layer) files(entries []fs.DirEntry) (files []file) {
	for _, entry := range entries {
		if name, language, ok := Split(l.engine.Languages(), entry.Name()); ok {
			files = append(files, file{name, filepath.Join(l.dir, entry.Name()), language})
		}
	}
	return files
}

// named are the files of each name.
func named(files []file) map[string][]file {
	byName := make(map[string][]file, len(files))
	for _, f := range files {
		byName[f.name] = append(byName[f.name], f)
	}
	return byName
}

// ambiguous says that there are several files of one name. Which of them is meant is not
// for this host to guess: that in force stays, if there is one.
func (l *Layer) ambiguous(f file, files []file) error {
	var names []string
	for _, f := range files {
		names = append(names, f.base())
	}
	err := fmt.Errorf("%w: %s are there in %s; remove all but one, or rename it", engine.ErrInvalid, strings.Join(names, " and "), l.dir)
	old := (*l.current.Load())[f.name]
	if old != nil {
		err = fmt.Errorf("%w; that of %s stays in force", err, old.base())
	}
	if before, told := l.failed[f.name]; !told || before.err.Error() != err.Error() {
		l.failed[f.name] = failure{err: err}
		l.report(Event{Layer: l.label, Name: f.name, Kind: Broken, Err: err, Digest: digestOf(old)})
	}
	return fmt.Errorf("module %s: %w", f.name, err)
}

// compile makes a program of what the file holds.
func (f file) compile(ctx context.Context, e *engine.Engine, b []byte) (*engine.Program, error) {
	if f.language == "" {
		return e.Compile(ctx, b)
	}
	p, err := e.Load(ctx, f.language, b)
	return p, inFile(err, f.path)
}

// inFile says of an error in a text where that is.
func inFile(err error, path string) error {
	if t, ok := err.(*engine.TextError); ok {
		return &engine.TextError{Language: t.Language, File: path, Message: t.Message}
	}
	return err
}

// signer is who signed what the file holds. A text has no place for a signature that
// is not part of the text: it is allowed by its digest.
func (f file) signer(b []byte, digest [32]byte) (peer.ID, error) {
	if f.language != "" {
		return "", nil
	}
	return Publisher(b, digest)
}
