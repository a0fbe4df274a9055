package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	w "github.com/circles-host/circles/host/engine/abi/abitest"
)

// lucky is a module that remembers 8 random bytes from when it was initialised,
// and returns them.
func lucky() []byte {
	var m w.Module
	random := m.Import("wasi_snapshot_preview1", "random_get", "ii", "i")
	m.Memory(3)
	m.Bump(8192)
	g := m.Global(1)
	m.Func("_initialize", "", "", w.I32(512), w.I32(8), w.Call(random), w.Drop, w.I32(2), w.GlobalSet(g))
	m.Func("run", "ii", "i", w.I32(1028), w.I32(512), w.Store, w.I32(1032), w.I32(8), w.Store, w.I32(1024))
	return m.Bytes()
}

// TestImagesOnDisk has images of modules that are slow to initialise, which here
// all are, outlive the process; and does to the files what damage, others and
// other versions may.
func TestImagesOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	start := func() (*Engine, *Program) {
		e := newEngine(t, Config{CacheDir: dir, CheckImages: true}, wasi())
		e.slow = 0
		return e, compile(t, e, lucky())
	}
	bytesOf := func() string {
		e, p := start()
		if p.Info().Image != 3<<16 {
			t.Fatalf("image of %d bytes, plain because %q", p.Info().Image, p.Info().Plain)
		}
		ran(t, e, p, Call{})
		return string(ran(t, e, p, Call{}).Result)
	}
	first := bytesOf()
	if again := bytesOf(); again != first {
		t.Fatalf("initialised anew: %x, then %x", first, again)
	}
	files, err := filepath.Glob(filepath.Join(dir, imageDir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	// forge gives what a change makes of the file's body its right checksum.
	forge := func(change func(b []byte) []byte) []byte {
		b := change(bytes.Clone(whole[:len(whole)-sha256.Size]))
		sum := sha256.Sum256(b)
		return append(b, sum[:]...)
	}
	const counts = len(imageMagic) + 32 // where the count of globals is
	pages := counts + 4 + 8*int(whole[counts])
	for name, b := range map[string][]byte{
		"empty":            {},
		"cut off":          whole[:len(whole)-1],
		"cut to the key":   whole[:counts],
		"a byte more":      append(bytes.Clone(whole), 0),
		"another version":  forge(func(b []byte) []byte { b[14]++; return b }),
		"another module's": forge(func(b []byte) []byte { b[len(imageMagic)]++; return b }),
		"fewer pages":      forge(func(b []byte) []byte { b[pages]--; return b[:len(b)-1] }),
		"pages missing":    forge(func(b []byte) []byte { return b[:len(b)-1] }),
		"4 billion pages":  forge(func(b []byte) []byte { binary.LittleEndian.PutUint32(b[pages:], 1<<32-1); return b }),
		"a page too many":  forge(func(b []byte) []byte { b[pages]++; return b }),
		"a page of a kind": forge(func(b []byte) []byte { b[len(b)-1] = 2; return b }),
		"no globals": forge(func(b []byte) []byte {
			binary.LittleEndian.PutUint32(b[counts:], 0)
			return append(b[:counts+4], b[pages:]...)
		}),
		"4 billion globals": forge(func(b []byte) []byte { binary.LittleEndian.PutUint32(b[counts:], 1<<32-1); return b }),
	} {
		if err := os.WriteFile(files[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := bytesOf(); got == first {
			t.Errorf("%s: used", name)
		}
		if after, err := os.ReadFile(files[0]); err != nil || len(after) != len(whole) {
			t.Errorf("%s: the file was not made anew (%v)", name, err)
		}
	}
	damaged := bytes.Clone(whole)
	for i := 0; i < len(whole); i += 1 + len(whole)/200 {
		damaged[i] ^= 4
		if _, _, err := decodeImage(damaged, [32]byte(whole[len(imageMagic):])); err == nil {
			t.Errorf("damage at byte %d was not noticed", i)
		}
		damaged[i] ^= 4
	}
	// Of others: a link, and a file that anybody can write.
	for name, plant := range map[string]func(path string) error{
		"link": func(path string) error {
			other := filepath.Join(t.TempDir(), "image")
			return errors.Join(os.WriteFile(other, whole, 0o600), os.Remove(path), os.Symlink(other, path))
		},
		"writable by others": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, whole, 0o600), os.Chmod(path, 0o666))
		},
		"directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		if err := plant(files[0]); err != nil {
			t.Fatal(err)
		}
		if got := bytesOf(); got == first {
			t.Errorf("%s: used", name)
		}
		os.RemoveAll(files[0])
		bytesOf()
	}
}
