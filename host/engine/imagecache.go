package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/circles-host/circles/host/engine/rewrite"
	"github.com/circles-host/circles/host/engine/snapshot"
)

// The images of modules that take long to initialise are kept in a directory of
// Config.CacheDir, a file each:
//
//	"circles image 1\n"
//	the key, 32 bytes           see imageKey
//	u32 globals, u64 each       in the order of rewrite.Prepared
//	u32 pages of 64 KiB, each   0: all zero; 1 and its bytes
//	SHA-256 of all before it
//
// Numbers are little endian. What is not exactly that is not there: the module is
// initialised again, and the file made anew.
//
// Whoever can write to the directory can put native code beside it, which is
// executed, see openCache. So the checksum is against damage. A file that is
// forged, checksum and all, decides what one module's guests find in their own memory, and
// no more: sizes and counts are held to the module's and this host's own bounds.
const (
	imageMagic = "circles image 1\n"
	imageDir   = "images"
	// primeSlow is how long initialising takes for a file to be worth it. A Go guest
	// takes 4 ms, as long as reading and comparing its image.
	primeSlow = 50 * time.Millisecond
)

// build identifies this program: what host functions answered while a module was
// initialised may be otherwise in another build.
var build = sync.OnceValue(func() string {
	var s string
	if info, ok := debug.ReadBuildInfo(); ok {
		s = info.String()
	}
	if exe, err := os.Executable(); err == nil {
		if info, err := os.Stat(exe); err == nil {
			s += fmt.Sprintln(info.Size(), info.ModTime().UnixNano())
		}
	}
	return s
})

// imageKey identifies an image: the module, what was made of it, what it may
// call, and this build.
func (p *Program) imageKey(m *rewrite.Prepared) [32]byte {
	h := sha256.New()
	code := sha256.Sum256(m.Wasm)
	h.Write(p.info.Digest[:])
	h.Write(code[:])
	fmt.Fprintf(h, "%q %q", p.gen.hosts.offered(), build())
	if m := p.engine.config.Machine; m != nil {
		fmt.Fprintf(h, " %q", m.String())
	}
	return [32]byte(h.Sum(nil))
}

func (e *Engine) imagePath(key [32]byte) string {
	return filepath.Join(e.config.CacheDir, imageDir, hex.EncodeToString(key[:]))
}

// loadImage returns the image of a key, or nil if there is none that is whole.
// before is the image of the instance that is not initialised, most the bytes of memory
// that the module may have.
func (e *Engine) loadImage(key [32]byte, before *image, most uint64) *image {
	if e.config.CacheDir == "" {
		return nil
	}
	path := e.imagePath(key)
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || foreign(info) != "" || info.Size() > maxImage+1<<20 {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	memory, values, err := decodeImage(b, key)
	if err != nil || len(values) != len(before.globals) || len(memory) < before.memory.Size() || uint64(len(memory)) > most {
		return nil
	}
	im := &image{}
	for i, g := range before.globals {
		im.globals = append(im.globals, global{name: g.name, value: values[i], changed: values[i] != g.value})
	}
	if im.memory, err = snapshot.New(memory); err != nil {
		return nil
	}
	return im
}

// storeImage writes an image to the cache. What cannot be written is initialised
// again the next time.
func (e *Engine) storeImage(key [32]byte, im *image) error {
	if e.config.CacheDir == "" {
		return nil
	}
	path := e.imagePath(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := checkCache(filepath.Dir(path)); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "new-") // 0600: seeds of random generators are in it
	if err != nil {
		return err
	}
	_, err = f.Write(encodeImage(im, key))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

var zeroPage = make([]byte, pageSize)

func encodeImage(im *image, key [32]byte) []byte {
	b := append([]byte(imageMagic), key[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(im.globals)))
	for _, g := range im.globals {
		b = binary.LittleEndian.AppendUint64(b, g.value)
	}
	memory := im.memory.Bytes()
	b = binary.LittleEndian.AppendUint32(b, uint32(len(memory)/pageSize))
	for ; len(memory) > 0; memory = memory[pageSize:] {
		if page := memory[:pageSize]; bytes.Equal(page, zeroPage) {
			b = append(b, 0)
		} else {
			b = append(append(b, 1), page...)
		}
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

var errImage = errors.New("not a memory image of this module")

func decodeImage(b []byte, key [32]byte) (memory []byte, globals []uint64, err error) {
	r := reader{b: b}
	if string(r.bytes(uint32(len(imageMagic)))) != imageMagic || !bytes.Equal(r.bytes(32), key[:]) || r.len() < sha256.Size {
		return nil, nil, errImage
	}
	body := len(b) - sha256.Size
	if sum := sha256.Sum256(b[:body]); !bytes.Equal(b[body:], sum[:]) {
		return nil, nil, errImage
	}
	r.b = b[:body]
	u32 := func() uint32 {
		if p := r.bytes(4); len(p) == 4 {
			return binary.LittleEndian.Uint32(p)
		}
		return 0
	}
	n := u32()
	if n > maxGlobals {
		return nil, nil, errImage
	}
	for range n {
		if p := r.bytes(8); len(p) == 8 {
			globals = append(globals, binary.LittleEndian.Uint64(p))
		}
	}
	pages := u32()
	if r.err != nil || pages > maxImage/pageSize {
		return nil, nil, errImage
	}
	memory = make([]byte, int(pages)*pageSize)
	for i := range int(pages) {
		switch r.byte() {
		case 0:
		case 1:
			copy(memory[i*pageSize:], r.bytes(pageSize))
		default:
			return nil, nil, errImage
		}
	}
	if r.done() != nil {
		return nil, nil, errImage
	}
	return memory, globals, nil
}

// CacheDir is where compiled code is kept; "" if nowhere.
func (e *Engine) CacheDir() string { return e.config.CacheDir }

// Fingerprint tells whether what this engine found out about a module holds for
// another: it has the same program, the same host functions and the same languages.
func (e *Engine) Fingerprint() [32]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := fmt.Appendf(nil, "%q %q", e.current.hosts.offered(), build())
	for _, l := range e.config.Languages {
		b = fmt.Appendf(b, " %q %q %x", l.Name, l.Suffix, l.Digest)
	}
	return sha256.Sum256(b)
}
