package module

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/circles-host/circles/host/engine"
)

// SourceSection is the name of the custom section in which a module carries what it
// was built of. It holds a tar of regular files, packed with gzip, so that any tool
// can read it. The first is SourceRecipe, a Recipe in JSON; the others are the files
// by their paths in the project, in order.
//
// Hosts take no notice of it. It is part of the module's bytes, so the digest is
// with it, and a publisher signs it with the rest. What it says is the word of whoever
// made the module: that the module was built of this is so when it has been built of
// it again, and is the same; see Unsourced.
const (
	SourceSection = "circles-source"
	SourceRecipe  = "circles-source.json"
)

// Bounds of a source.
const (
	MaxSourcePacked = 1 << 20 // bytes in the section
	MaxSource       = 8 << 20 // bytes of all files together
	MaxSourceFiles  = 1000
	maxSourceName   = 255
	maxRecipe       = 16 << 10
)

// Source is what a module was built of.
type Source struct {
	Recipe Recipe
	Files  []SourceFile // by name
}

// Recipe says how. A version of this program that does not know a Format cannot
// build it, and still shows the files.
type Recipe struct {
	Format    int    `json:"format"`              // 1: circles-host module build, in the folder
	Language  string `json:"language"`            // as circles-host new --list has it: "go"
	Toolchain string `json:"toolchain,omitempty"` // what its compiler says of itself: "go1.26.0"
	Builder   string `json:"builder,omitempty"`   // the version of circles-host
}

// SourceFile is one file of a project. Its name is a path of slashes, below the
// project, without hidden parts.
type SourceFile struct {
	Name string
	Text []byte
}

// ErrSource is wrapped by errors about a source that is not as it should be.
var ErrSource = errors.New("the source that it carries is not as it should be")

// WithSource returns wasm with a source at its end, in place of one that was there.
// A module that is signed is an error: it is signed afterwards.
func WithSource(wasm []byte, s Source) ([]byte, error) {
	if _, _, to, err := engine.CustomSection(wasm, PublisherSection); err != nil || to != 0 {
		return nil, cmp.Or(err, fmt.Errorf("embed source: %w: the module is signed; embed it before", engine.ErrInvalid))
	}
	packed, err := s.pack()
	if err != nil {
		return nil, err
	}
	bare, err := without(wasm, SourceSection)
	if err != nil {
		return nil, err
	}
	content := binary.AppendUvarint(nil, uint64(len(SourceSection)))
	content = append(append(content, SourceSection...), packed...)
	return slices.Concat(bare, binary.AppendUvarint([]byte{0}, uint64(len(content))), content), nil
}

// pack is the section's contents.
func (s Source) pack() ([]byte, error) {
	recipe, err := json.Marshal(s.Recipe)
	if err != nil {
		return nil, err
	}
	files := slices.SortedFunc(slices.Values(s.Files), func(a, b SourceFile) int { return strings.Compare(a.Name, b.Name) })
	if err := checkSource(files); err != nil {
		return nil, fmt.Errorf("embed source: %w", err)
	}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // a level that there is
	t := tar.NewWriter(z)
	for _, f := range append([]SourceFile{{SourceRecipe, recipe}}, files...) {
		err = errors.Join(err, t.WriteHeader(&tar.Header{Name: f.Name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.Text))}))
		_, failed := t.Write(f.Text)
		err = errors.Join(err, failed)
	}
	if err = errors.Join(err, t.Close(), z.Close()); err != nil {
		return nil, fmt.Errorf("embed source: %w", err)
	}
	if b.Len() > MaxSourcePacked {
		return nil, fmt.Errorf("embed source: %w: packed it has %d bytes; %d are the most", ErrSource, b.Len(), MaxSourcePacked)
	}
	return b.Bytes(), nil
}

// ReadSource returns what a module carries of its source; nil if nothing. Whatever
// is in the section, it takes no more than a few times MaxSource of memory. Errors
// wrap ErrSource or engine.ErrInvalid.
func ReadSource(wasm []byte) (*Source, error) {
	var packed []byte
	found := 0
	err := sections(wasm, func(name string, custom bool, content []byte, _, _ int) {
		if custom && name == SourceSection {
			packed = content
			found++
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	if found == 0 {
		return nil, nil
	}
	if found > 1 {
		return nil, fmt.Errorf("read source: %w: the section %s is there %d times", ErrSource, SourceSection, found)
	}
	s, err := unpack(packed)
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	return s, nil
}

func unpack(packed []byte) (*Source, error) {
	fail := func(format string, a ...any) (*Source, error) {
		return nil, fmt.Errorf("%w: %s", ErrSource, fmt.Sprintf(format, a...))
	}
	if len(packed) > MaxSourcePacked {
		return fail("it has %d bytes; %d are the most", len(packed), MaxSourcePacked)
	}
	in := bytes.NewReader(packed)
	z, err := gzip.NewReader(in)
	if err != nil {
		return fail("unpack: %v", err)
	}
	z.Multistream(false)
	// A tar has up to a few blocks of 512 bytes beside each file.
	all := &io.LimitedReader{R: z, N: MaxSource + MaxSourceFiles*4096}
	t := tar.NewReader(all)
	s := &Source{}
	size := int64(0)
	for first := true; ; first = false {
		h, err := t.Next()
		if errors.Is(err, io.EOF) && !first {
			break
		}
		if err != nil {
			return fail("unpack: %v", err)
		}
		switch {
		case h.Typeflag != tar.TypeReg:
			return fail("%q is no regular file", h.Name)
		case first != (h.Name == SourceRecipe):
			return fail("%q is where %s should be, or the other way round", h.Name, SourceRecipe)
		case first && h.Size > maxRecipe:
			return fail("%s has %d bytes", SourceRecipe, h.Size)
		case len(s.Files) == MaxSourceFiles:
			return fail("it has more than %d files", MaxSourceFiles)
		case h.Size < 0 || size+h.Size > MaxSource:
			return fail("unpacked it has more than %d bytes", MaxSource)
		}
		text, err := io.ReadAll(io.LimitReader(t, h.Size))
		if err != nil || int64(len(text)) != h.Size {
			return fail("unpack %q: %v", h.Name, err)
		}
		if first {
			if err := json.Unmarshal(text, &s.Recipe); err != nil {
				return fail("%s: %v", SourceRecipe, err)
			}
			continue
		}
		size += h.Size
		s.Files = append(s.Files, SourceFile{h.Name, text})
	}
	if _, err := io.Copy(io.Discard, all); err != nil || all.N == 0 {
		return fail("unpack: it does not end where it should")
	}
	if in.Len() > 0 {
		return fail("something follows the packed files")
	}
	if err := checkSource(s.Files); err != nil {
		return nil, err
	}
	return s, nil
}

// checkSource holds files to their bounds, and their names to what may be written
// below a folder, on any system.
func checkSource(files []SourceFile) error {
	if len(files) > MaxSourceFiles {
		return fmt.Errorf("%w: it has %d files; %d are the most", ErrSource, len(files), MaxSourceFiles)
	}
	size := 0
	seen := map[string]bool{} // in lower case: some file systems know no other
	for i, f := range files {
		if size += len(f.Text); size > MaxSource {
			return fmt.Errorf("%w: it has more than %d bytes", ErrSource, MaxSource)
		}
		if err := checkSourceName(f.Name); err != nil {
			return fmt.Errorf("%w: the name %.300q: %w", ErrSource, f.Name, err)
		}
		if i > 0 && files[i-1].Name >= f.Name {
			return fmt.Errorf("%w: %q is not in its order", ErrSource, f.Name)
		}
		if seen[strings.ToLower(f.Name)] {
			return fmt.Errorf("%w: %q is another file's name, or a folder's", ErrSource, f.Name)
		}
		seen[strings.ToLower(f.Name)] = true
	}
	for _, f := range files {
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			if seen[strings.ToLower(dir)] {
				return fmt.Errorf("%w: %q is below a file", ErrSource, f.Name)
			}
		}
	}
	return nil
}

func checkSourceName(name string) error {
	switch {
	case len(name) > maxSourceName:
		return fmt.Errorf("it has %d bytes; %d are the most", len(name), maxSourceName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(`\:*?"<>|`, r) }):
		return errors.New("it has characters that file names should not have")
	case path.IsAbs(name) || path.Clean(name) != name || !filepath.IsLocal(filepath.FromSlash(name)):
		return errors.New("it is not a path below the project")
	case name == SourceRecipe:
		return errors.New("it is that of the recipe")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part[0] == '.' { // "." and ".." too
			return errors.New("it is hidden, and hidden files are no source")
		}
		if strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") {
			return errors.New("it ends with what some file systems leave out")
		}
	}
	return nil
}

// Get returns the file of that name.
func (s *Source) Get(name string) (SourceFile, bool) {
	i := slices.IndexFunc(s.Files, func(f SourceFile) bool { return f.Name == name })
	if i < 0 {
		return SourceFile{}, false
	}
	return s.Files[i], true
}

// Write writes the files into dir, which must be empty or not there yet.
func (s *Source) Write(dir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write source: %w", err)
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("%s: %w: it is not empty; choose another folder", dir, fs.ErrExist)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range s.Files {
		name := filepath.FromSlash(f.Name)
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		to, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = to.Write(f.Text)
		if err = errors.Join(err, to.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Unsourced is a module without what was put into it after it was built: its source
// and its signature. Of two modules that were built alike it is the same.
func Unsourced(wasm []byte) ([]byte, error) { return without(wasm, SourceSection, PublisherSection) }

// without returns wasm without the custom sections of these names, in one pass: a
// module may have a million of them.
func without(wasm []byte, names ...string) ([]byte, error) {
	var out []byte
	kept := 0 // of wasm, what is before it is in out
	err := sections(wasm, func(name string, custom bool, _ []byte, start, end int) {
		if custom && slices.Contains(names, name) {
			out = append(out, wasm[kept:start]...)
			kept = end
		}
	})
	if err != nil {
		return nil, err
	}
	return append(out, wasm[kept:]...), nil
}

// sections calls each with every section: its name, or its number, and what is in it.
func sections(wasm []byte, each func(name string, custom bool, content []byte, start, end int)) error {
	if len(wasm) < 8 || string(wasm[:8]) != "\x00asm\x01\x00\x00\x00" {
		return fmt.Errorf("%w: it is not WebAssembly", engine.ErrInvalid)
	}
	for at := 8; at < len(wasm); {
		n, k := binary.Uvarint(wasm[at+1:])
		from := at + 1 + k
		if k <= 0 || n > uint64(len(wasm)-from) {
			return fmt.Errorf("%w: it ends within a section", engine.ErrInvalid)
		}
		end := from + int(n)
		content := wasm[from:end]
		name, custom := sectionName(wasm[at]), wasm[at] == 0
		if custom {
			length, k := binary.Uvarint(content)
			if k <= 0 || length > uint64(len(content)-k) {
				return fmt.Errorf("%w: a custom section has no name", engine.ErrInvalid)
			}
			name, content = string(content[k:k+int(length)]), content[k+int(length):]
		}
		each(name, custom, content, at, end)
		at = end
	}
	return nil
}

// sectionName is what the specification calls a section.
// https://webassembly.github.io/spec/core/binary/modules.html#sections
func sectionName(id byte) string {
	names := [...]string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count", "tag"}
	if int(id) < len(names) {
		return names[id]
	}
	return fmt.Sprint("section ", id)
}
