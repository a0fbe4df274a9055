package module_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
)

var someSource = module.Source{
	Recipe: module.Recipe{Format: 1, Language: "go", Toolchain: "go1.26.0", Builder: "v1"},
	Files:  []module.SourceFile{{Name: "go.mod", Text: []byte("module m\n")}, {Name: "main.go", Text: []byte("package main\n")}, {Name: "sub/a ö.go", Text: []byte{}}},
}

// custom appends a custom section.
func custom(wasm []byte, name string, content []byte) []byte {
	body := append(binary.AppendUvarint(nil, uint64(len(name))), name...)
	body = append(body, content...)
	out := append(bytes.Clone(wasm), 0)
	return append(binary.AppendUvarint(out, uint64(len(body))), body...)
}

// TestSource: what goes in comes out, and is written where it belongs; the engine
// takes no notice, and a signature covers it.
func TestSource(t *testing.T) {
	bare := says("hi")
	wasm, err := module.WithSource(bare, someSource)
	if err != nil {
		t.Fatal(err)
	}
	again, err := module.WithSource(wasm, someSource)
	if err != nil || !bytes.Equal(wasm, again) {
		t.Errorf("embedded twice: %v, %d bytes, %d at first", err, len(again), len(wasm))
	}
	got, err := module.ReadSource(wasm)
	if err != nil || !reflect.DeepEqual(*got, someSource) {
		t.Errorf("%+v, %v", got, err)
	}
	if s, err := module.ReadSource(bare); s != nil || err != nil {
		t.Errorf("of none: %+v, %v", s, err)
	}
	if info, err := engine.Inspect(wasm); err != nil || len(info.Entries) != 1 || len(info.Warnings) > 0 {
		t.Errorf("%+v, %v", info, err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	if err := got.Write(dir); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "main.go")); string(text) != "package main\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if err := got.Write(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}

	key, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := module.Sign(wasm, key)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := module.ReadSource(signed); err != nil || len(s.Files) != 3 {
		t.Errorf("signed: %+v, %v", s, err)
	}
	at := bytes.Index(signed, []byte(module.SourceSection)) + 40
	signed[at] ^= 1
	if by, err := module.Publisher(signed, digest(signed)); err == nil {
		t.Errorf("its source was changed, and %s signed it", by)
	}
	signed[at] ^= 1
	if _, err := module.WithSource(signed, someSource); err == nil || !strings.Contains(err.Error(), "signed") {
		t.Errorf("after it was signed: %v", err)
	}
	for _, wasm := range [][]byte{wasm, signed} {
		if b, err := module.Unsourced(wasm); err != nil || !bytes.Equal(b, bare) {
			t.Errorf("unsourced: %v, %d bytes; it had %d", err, len(b), len(bare))
		}
	}
}

// packed is what a stranger may have put into the section.
func packed(headers ...any) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	for i := 0; i < len(headers); i += 2 {
		h, text := headers[i].(tar.Header), headers[i+1].(string)
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Size == 0 && h.Typeflag == tar.TypeReg {
			h.Size = int64(len(text))
		}
		_ = t.WriteHeader(&h)
		_, _ = t.Write([]byte(text))
	}
	_, _ = t.Close(), z.Close()
	return b.Bytes()
}

func TestHostileSources(t *testing.T) {
	recipe := tar.Header{Name: module.SourceRecipe}
	file := func(name string) []byte { return packed(recipe, "{}", tar.Header{Name: name}, "x") }
	zeros := strings.Repeat("\x00", module.MaxSource+1)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(packedTar(recipe, "{}"))
	for range 64 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	many := []any{recipe, "{}"}
	for i := range module.MaxSourceFiles + 1 {
		many = append(many, tar.Header{Name: fmt.Sprintf("f%05d", i)}, "")
	}
	for name, tt := range map[string]struct {
		content []byte
		want    string
	}{
		"nothing":            {nil, "unpack"},
		"no gzip":            {[]byte("PK\x03\x04 zip"), "unpack"},
		"no tar":             {gzipped(strings.Repeat("x", 2000)), "unpack"},
		"no recipe":          {packed(tar.Header{Name: "main.go"}, "x"), "where circles-source.json should be"},
		"no files":           {packed(), "unpack"},
		"a recipe twice":     {packed(recipe, "{}", recipe, "{}"), "where circles-source.json should be"},
		"a recipe of text":   {packed(recipe, "format: 1"), "circles-source.json"},
		"a bomb":             {packed(recipe, "{}", tar.Header{Name: "a"}, zeros), "more than 8388608 bytes"},
		"a bomb at its end":  {bomb.Bytes(), "does not end where it should"},
		"many files":         {packed(many...), "more than 1000 files"},
		"much":               {bytes.Repeat([]byte{1}, module.MaxSourcePacked+1), "are the most"},
		"more behind":        {append(file("a"), file("b")...), "something follows"},
		"up":                 {file("../main.go"), "not a path below the project"},
		"up within":          {file("a/../../main.go"), "not a path below the project"},
		"absolute":           {file("/etc/passwd"), "not a path below the project"},
		"of Windows":         {file(`C:\autoexec.bat`), "should not have"},
		"another stream":     {file("a:b"), "should not have"},
		"not clean":          {file("a//b"), "not a path below the project"},
		"nothing's":          {file("."), "hidden"},
		"hidden":             {file(".cargo/config.toml"), "hidden"},
		"hidden below":       {file("a/.npmrc"), "hidden"},
		"not UTF-8":          {file("a\xff"), ""},
		"an escape":          {file("a\x1b[2J"), "should not have"},
		"long":               {file(strings.Repeat("a/", 200) + "a"), "255 are the most"},
		"a symbolic link":    {packed(recipe, "{}", tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, ""), "no regular file"},
		"a hard link":        {packed(recipe, "{}", tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}, ""), "no regular file"},
		"a device":           {packed(recipe, "{}", tar.Header{Name: "a", Typeflag: tar.TypeChar}, ""), "no regular file"},
		"two of a name":      {packed(recipe, "{}", tar.Header{Name: "a"}, "", tar.Header{Name: "a"}, ""), "not in its order"},
		"two but for a case": {packed(recipe, "{}", tar.Header{Name: "A"}, "", tar.Header{Name: "a"}, ""), "another file's name"},
		"below a file":       {packed(recipe, "{}", tar.Header{Name: "a"}, "", tar.Header{Name: "a/b"}, ""), "below a file"},
		"out of order":       {packed(recipe, "{}", tar.Header{Name: "b"}, "", tar.Header{Name: "a"}, ""), "not in its order"},
		"cut off":            {file("a")[:60], "unpack"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := module.ReadSource(custom(says("hi"), module.SourceSection, tt.content))
			if !errors.Is(err, module.ErrSource) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v; want %q", s, err, tt.want)
			}
		})
	}
	good := file("a")
	if s, err := module.ReadSource(custom(says("hi"), module.SourceSection, good)); err != nil || len(s.Files) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := module.ReadSource(custom(custom(says("hi"), module.SourceSection, good), module.SourceSection, good)); err == nil || !strings.Contains(err.Error(), "2 times") {
		t.Errorf("twice: %v", err)
	}
	// A million sections are one pass.
	wasm := says("hi")
	wasm = append(wasm, bytes.Repeat(custom(nil, module.SourceSection, nil), 1<<20)...)
	if b, err := module.Unsourced(wasm); err != nil || len(b) != len(says("hi")) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for _, s := range []module.Source{
		{Files: []module.SourceFile{{Name: "../a"}}},
		{Files: []module.SourceFile{{Name: ".env"}}},
		{Files: []module.SourceFile{{Name: module.SourceRecipe}}},
		{Files: []module.SourceFile{{Name: "a", Text: []byte(zeros)}}},
	} {
		if _, err := module.WithSource(says("hi"), s); !errors.Is(err, module.ErrSource) {
			t.Errorf("%v", err)
		}
	}
}

func packedTar(h tar.Header, text string) []byte {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	h.Typeflag, h.Size = tar.TypeReg, int64(len(text))
	_ = t.WriteHeader(&h)
	_, _ = t.Write([]byte(text))
	_ = t.Close()
	return b.Bytes()
}

func gzipped(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.Bytes()
}

// FuzzSource: whatever a module carries, its source is read within its bounds or
// refused; what is read can be written below a folder, and embedded again.
func FuzzSource(f *testing.F) {
	wasm, err := module.WithSource(says("hi"), someSource)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wasm[bytes.Index(wasm, []byte(module.SourceSection))+len(module.SourceSection):], true)
	f.Add(packed(tar.Header{Name: module.SourceRecipe}, "{}", tar.Header{Name: "../a"}, "x"), true)
	f.Add(packedTar(tar.Header{Name: module.SourceRecipe}, "{}"), false)
	f.Fuzz(func(t *testing.T, content []byte, asIs bool) {
		if !asIs { // so that what is mutated is the tar
			content = gzipped(string(content))
		}
		s, err := module.ReadSource(custom(says("hi"), module.SourceSection, content))
		if err != nil {
			if !errors.Is(err, module.ErrSource) {
				t.Fatal(err)
			}
			return
		}
		dir := t.TempDir()
		if err := s.Write(filepath.Join(dir, "in")); err != nil {
			t.Fatal(err)
		}
		if out, err := os.ReadDir(dir); err != nil || len(out) != 1 {
			t.Fatalf("%v, %v", out, err)
		}
		again, err := module.WithSource(says("hi"), *s)
		if err != nil && !strings.Contains(err.Error(), "packed it has") {
			t.Fatal(err)
		}
		if err == nil {
			if back, err := module.ReadSource(again); err != nil || len(back.Files) != len(s.Files) {
				t.Fatalf("%+v, %v", back, err)
			}
		}
	})
}
