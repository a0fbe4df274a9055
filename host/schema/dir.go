package schema

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/circles-host/circles/host/script"
)

const (
	maxFiles = 1000    // schemas of one context
	maxTotal = 8 << 20 // bytes of all of them
)

// Suffix is what the name of a schema's file ends with, behind the collection's.
const Suffix = ".json"

// Files are the schemas in a directory: those that could be read, and what is
// wrong with the others.
type Files struct {
	Schemas  map[string]*Schema // by collection
	Problems map[string]error   // by collection, or by the name of a file that is none's
}

// Err is what is wrong, or nil.
func (f Files) Err() error {
	var all []error
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range f.Problems {
			if !yield(name) {
				return
			}
		}
	}) {
		all = append(all, f.Problems[name])
	}
	return errors.Join(all...)
}

// ReadDir reads the schemas of a directory, which need not be there. What known has
// of a collection is taken where the text is the same, as compiling takes longer
// than reading. Names that begin with a dot, or end with ~, are an editor's.
//
// Nothing outside of dir is read, whatever links lie in it, and nothing but regular
// files. After an error nothing is known of what dir has.
func ReadDir(dir string, known map[string]*Schema) (Files, error) {
	f := Files{map[string]*Schema{}, map[string]error{}}
	root, err := openDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("read schemas: %w", err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return f, fmt.Errorf("read schemas: %w", err)
	}
	total := 0
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
			continue
		}
		collection, ok := strings.CutSuffix(name, Suffix)
		if !ok && path.Ext(name) != "" && !strings.EqualFold(path.Ext(name), Suffix) && !strings.HasPrefix(path.Ext(name), ".js") {
			continue // a README, a picture
		}
		if !ok {
			f.Problems[name] = &Error{File: shorten(name), Err: fmt.Errorf("a schema's file is named COLLECTION%s: rename it, or move it away", Suffix)}
			continue
		}
		if err := script.CheckCollection(collection); err != nil {
			f.Problems[name] = &Error{File: shorten(name), Err: err}
			continue
		}
		if len(f.Schemas)+len(f.Problems) == maxFiles || total > maxTotal {
			// Not some of them: a collection whose file is not read would be bound to nothing.
			return f, fmt.Errorf("read schemas: there are more than %d in %s, or they have more than %d MiB together, so that none of these files counts; move some away", maxFiles, dir, maxTotal>>20)
		}
		in, err := readFile(root, name)
		total += len(in)
		if s := known[collection]; err == nil && s != nil && s.text == in {
			f.Schemas[collection] = s
			continue
		}
		var s *Schema
		if err == nil {
			s, err = Parse(name, in)
		} else {
			err = &Error{File: name, Err: err}
		}
		if err != nil {
			f.Problems[collection] = err
		} else {
			f.Schemas[collection] = s
		}
	}
	return f, nil
}

// openDir opens a directory, and nothing that would never open, as a pipe.
func openDir(dir string) (*os.Root, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", dir)
	}
	if err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// ReadFile reads one schema. What is wrong with it is an *Error.
func ReadFile(dir, name string) (*Schema, error) {
	root, err := openDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	defer root.Close()
	in, err := readFile(root, name)
	if err != nil {
		return nil, &Error{File: name, Err: err}
	}
	return Parse(name, in)
}

// readFile reads one regular file, or at least enough of it to see that it is too
// large.
func readFile(root *os.Root, name string) (string, error) {
	// Without O_NONBLOCK a pipe that was put here would never open.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is not a regular file")
	}
	if err != nil {
		return "", err
	}
	var b strings.Builder
	_, err = io.Copy(&b, io.LimitReader(f, maxFile+1))
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("it has %d bytes, and a schema has at most %d: put what it lists into records of its own", info.Size(), maxFile)
	}
	return b.String(), err
}
