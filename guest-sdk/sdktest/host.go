// Package sdktest runs guests as the Canonical ABI says that a host does, and as
// unkindly as it allows: it is what the SDKs and the modules are tested against.
//
//	h := sdktest.New(t)
//	h.Put("caller", "/card.txt", "Alice Liddell")
//	g := h.Load(t, wasm)
//	result, err := g.Call("sign", []byte(`{"message": "hello"}`))
//
// It is no host to run foreign code on: there is no policy, no limit and no
// confinement. It imports nothing of the host's, so that guest and host are
// tested against wit/ and not against each other's misunderstandings.
package sdktest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// Party is one of the two contexts: a name, an identity, a folder, and records by
// collection and key.
type Party struct {
	ID, Name string
	Dir      string
	Records  map[string]map[string]string
}

// Host offers circles:host and wasip1 to guests. Its fields may be changed
// before Load.
type Host struct {
	Caller, Target Party

	// Lent says whether the caller lent a path; by default everything.
	Lent func(path string) bool
	// Seen says whether the value of a record may be got, whosever it is; by
	// default every one.
	Seen func(collection, key string) bool
	// ReadOnly refuses every change of the target through circles:host.
	ReadOnly bool
	// Check, if set, is what schemas say of a value that is put: "" that it is as it
	// should be, else a line for each violation, "/json/pointer: reason".
	Check func(collection, value string) string
	// Modules are those that the guest can call, by their names. Base is what it
	// stands before, and Send what becomes of a script that it sends; nil is that there
	// is none. An error that they return is one of the module's or script's own.
	Modules map[string]func(entry string, params []byte) ([]byte, error)
	Base    func(entry string, params []byte) ([]byte, error)
	Send    func(to, logic, entry string, params []byte) ([]byte, error)
	// Disturb, if set, runs before and after each call of cabi_realloc that a
	// host function makes. It may call the guest.
	Disturb func(g *Guest)
	// DuringInit, if set, runs when the guest asks for the size of its
	// arguments, which language runtimes do before they are up. It may call the
	// guest.
	DuringInit func(m api.Module)

	runtime wazero.Runtime
}

// compiled lets guests share compiled code, with those of later test runs too:
// compiling a guest in Go takes a second, and ten with the race detector.
var compiled = sync.OnceValue(func() wazero.CompilationCache {
	if dir, err := os.UserCacheDir(); err == nil {
		if cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(dir, "circles-sdktest")); err == nil {
			return cache
		}
	}
	return wazero.NewCompilationCache()
})

// New makes a host whose caller is alice and whose target is bob, each with an
// empty folder.
func New(t testing.TB) *Host {
	t.Helper()
	ctx := context.Background()
	h := &Host{
		Caller:  Party{ID: "did:key:z6MkAlice", Name: "alice", Dir: t.TempDir()},
		Target:  Party{ID: "did:key:z6MkBob", Name: "bob", Dir: t.TempDir()},
		runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(compiled())),
	}
	t.Cleanup(func() { h.runtime.Close(ctx) })
	return h
}

// Put writes a file in the folder of "caller" or "target", and the folders on
// the way to it.
func (h *Host) Put(t testing.TB, party, path, data string) {
	t.Helper()
	file := h.file(party, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Get reads a file in the folder of "caller" or "target".
func (h *Host) Get(t testing.TB, party, path string) string {
	t.Helper()
	b, err := os.ReadFile(h.file(party, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (h *Host) file(party, path string) string {
	dir := h.Target.Dir
	if party == "caller" {
		dir = h.Caller.Dir
	}
	return filepath.Join(dir, filepath.FromSlash(path))
}

// Guest is one instance, used by one goroutine.
type Guest struct {
	Module api.Module
	Stdout bytes.Buffer
	Stderr bytes.Buffer
	Log    []string // "info: message"
	// Reallocs counts calls of cabi_realloc by host functions, ClockReads the
	// reads of a clock that the guest made inside them.
	Reallocs, ClockReads int

	host      *Host
	entry     string // the one that was called
	ctx       context.Context
	handles   map[uint32]string // live handles: "caller" or "target"
	last      uint32            // handles are never reused, so that a stale one is found out
	inRealloc bool
}

// Options are what a command's instance starts with.
type Options struct {
	Stdin string
	Args  []string
}

// Load instantiates a reactor and initialises it.
func (h *Host) Load(t testing.TB, wasm []byte) *Guest {
	t.Helper()
	g := h.instantiate(t, wasm, Options{})
	if init := g.Module.ExportedFunction("_initialize"); init != nil {
		if _, err := init.Call(g.ctx); err != nil {
			t.Fatalf("_initialize: %v\n%s", err, g.Stderr.String())
		}
	}
	return g
}

// Command instantiates a command and runs its _start, whose error it returns.
func (h *Host) Command(t testing.TB, wasm []byte, o Options) (*Guest, error) {
	t.Helper()
	g := h.instantiate(t, wasm, o)
	_, err := g.Module.ExportedFunction("_start").Call(g.ctx)
	return g, err
}

func (h *Host) instantiate(t testing.TB, wasm []byte, o Options) *Guest {
	t.Helper()
	g := &Guest{host: h, handles: map[uint32]string{}}
	g.ctx = context.WithValue(context.Background(), guestKey{}, g)
	ctx := g.ctx
	code, err := h.runtime.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	if h.runtime.Module("wasi_snapshot_preview1") == nil {
		if err := h.offer(ctx); err != nil {
			t.Fatal(err)
		}
	}
	tick := func() int64 {
		if g.inRealloc {
			g.ClockReads++
		}
		return time.Now().UnixNano()
	}
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithArgs(append([]string{"guest"}, o.Args...)...).
		WithStdin(strings.NewReader(o.Stdin)).WithStdout(&g.Stdout).WithStderr(&g.Stderr).
		WithRandSource(rand.Reader).WithSysWalltime().WithNanotime(tick, 1).
		WithFSConfig(wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(sysfs.DirFS(h.Target.Dir), "/"))
	g.Module, err = h.runtime.InstantiateModule(ctx, code, config)
	if err != nil {
		t.Fatalf("instantiate: %v", err)
	}
	t.Cleanup(func() { g.Module.Close(ctx) })
	return g
}

// guestKey finds the *Guest in the context of a host function's call.
type guestKey struct{}

// ErrGuest is an error that an entry returned, as opposed to a trap.
type ErrGuest string

func (e ErrGuest) Error() string { return string(e) }

// Call runs an entry. What the entry returns as an error is an ErrGuest; any
// other error is a trap or a breach of the ABI.
func (g *Guest) Call(entry string, params []byte) ([]byte, error) {
	g.entry = entry
	return g.call(entry, params)
}

// Enter runs an entry of the text that a language module has loaded, by its entry
// "load"; otherwise as Call.
func (g *Guest) Enter(entry string, params []byte) ([]byte, error) {
	g.entry = entry
	return g.call("call", params)
}

func (g *Guest) call(entry string, params []byte) ([]byte, error) {
	f := g.Module.ExportedFunction(entry)
	if f == nil {
		return nil, fmt.Errorf("the guest has no entry %q", entry)
	}
	ptr, err := g.lower(g.ctx, params)
	if err != nil {
		return nil, err
	}
	results, err := f.Call(g.ctx, uint64(ptr), uint64(len(params)))
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, g.Stderr.String())
	}
	ret := uint32(results[0])
	area, ok := g.Module.Memory().Read(ret, 12)
	if !ok || ret%4 != 0 || area[0] > 1 {
		return nil, fmt.Errorf("entry %s returned no result area: %#x, %v", entry, ret, area)
	}
	at, n := le32(area[4:]), le32(area[8:])
	value, ok := g.Module.Memory().Read(at, n)
	if !ok {
		return nil, fmt.Errorf("entry %s returned %d bytes at %#x, which are out of bounds", entry, n, at)
	}
	value, failed := bytes.Clone(value), area[0] == 1
	if post := g.Module.ExportedFunction("cabi_post_" + entry); post != nil {
		if _, err := post.Call(g.ctx, uint64(ret)); err != nil {
			return nil, fmt.Errorf("cabi_post_%s: %w", entry, err)
		}
	}
	if !failed {
		return value, nil
	}
	if !utf8.Valid(value) {
		return nil, fmt.Errorf("entry %s returned an error that is not UTF-8: %q", entry, value)
	}
	return nil, ErrGuest(value)
}

// Handles is how many handles of contexts the guest holds.
func (g *Guest) Handles() int { return len(g.handles) }

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// lower copies b into memory that the guest's cabi_realloc makes.
func (g *Guest) lower(ctx context.Context, b []byte) (uint32, error) {
	ptr, err := g.realloc(ctx, 1, len(b))
	if err == nil && len(b) > 0 {
		g.Module.Memory().Write(ptr, b)
	}
	return ptr, err
}

func (g *Guest) realloc(ctx context.Context, align, size int) (uint32, error) {
	if g.host.Disturb != nil {
		g.host.Disturb(g)
	}
	f := g.Module.ExportedFunction("cabi_realloc")
	if f == nil {
		return 0, errors.New("the guest exports no cabi_realloc")
	}
	g.Reallocs++
	g.inRealloc = true
	results, err := f.Call(ctx, 0, 0, uint64(align), uint64(size))
	g.inRealloc = false
	if err != nil {
		return 0, fmt.Errorf("cabi_realloc: %w", err)
	}
	ptr := uint32(results[0])
	if int(ptr)%align != 0 || uint64(ptr)+uint64(size) > uint64(g.Module.Memory().Size()) {
		return 0, fmt.Errorf("cabi_realloc returned %#x for %d bytes aligned to %d", ptr, size, align)
	}
	if g.host.Disturb != nil {
		g.host.Disturb(g)
	}
	return ptr, nil
}

// offer instantiates the host modules. A panic in a host function reaches the
// guest's caller as an error.
func (h *Host) offer(ctx context.Context) error {
	wasi := h.runtime.NewHostModuleBuilder("wasi_snapshot_preview1")
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(wasi)
	if h.DuringInit != nil {
		wasi.NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, argc, size uint32) uint32 {
			h.DuringInit(m)
			m.Memory().WriteUint32Le(argc, 0)
			m.Memory().WriteUint32Le(size, 0)
			return 0
		}).Export("args_sizes_get")
	}
	if _, err := wasi.Instantiate(ctx); err != nil {
		return fmt.Errorf("offer wasip1: %w", err)
	}

	// A host serves guests that were built for what was before it, too.
	for _, version := range []string{"0.1.1", "0.1.2"} {
		if err := h.offerVersion(ctx, version); err != nil {
			return err
		}
	}
	return h.offerModules(ctx)
}

func (h *Host) offerVersion(ctx context.Context, version string) error {
	log := h.runtime.NewHostModuleBuilder("circles:host/log@" + version)
	log.NewFunctionBuilder().WithFunc(func(ctx context.Context, _ api.Module, level, ptr, n uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		g.Log = append(g.Log, []string{"debug", "info", "warn", "error"}[level]+": "+g.text(ptr, n))
	}).Export("write")
	if _, err := log.Instantiate(ctx); err != nil {
		return fmt.Errorf("offer circles:host/log: %w", err)
	}

	c := h.runtime.NewHostModuleBuilder("circles:host/contexts@" + version)
	export := func(name string, f any) { c.NewFunctionBuilder().WithFunc(f).Export(name) }
	open := func(party string) func(context.Context, api.Module) uint32 {
		return func(ctx context.Context, _ api.Module) uint32 {
			g := ctx.Value(guestKey{}).(*Guest)
			g.last++
			g.handles[g.last] = party
			return g.last
		}
	}
	export("caller", open("caller"))
	export("target", open("target"))
	export("[resource-drop]context", func(ctx context.Context, _ api.Module, self uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		g.party(self)
		delete(g.handles, self)
	})
	label := func(of func(Party) string) func(context.Context, api.Module, uint32, uint32) {
		return func(ctx context.Context, _ api.Module, self, ret uint32) {
			g := ctx.Value(guestKey{}).(*Guest)
			party := h.Target
			if g.party(self) == "caller" {
				party = h.Caller
			}
			g.putList(ctx, ret, []byte(of(party)))
		}
	}
	export("[method]context.id", label(func(p Party) string { return p.ID }))
	export("[method]context.name", label(func(p Party) string { return p.Name }))

	read := func(ctx context.Context, self, ptr, n, ret uint32, get func(file string) ([]byte, error)) {
		g := ctx.Value(guestKey{}).(*Guest)
		file, err := h.resolve(g.party(self), g.text(ptr, n), false)
		var b []byte
		if err == nil {
			b, err = get(file)
		}
		if err != nil {
			g.putError(ctx, ret, 4, err)
			return
		}
		g.put8(ret, 0)
		g.putList(ctx, ret+4, b)
	}
	export("[method]context.read", func(ctx context.Context, _ api.Module, self, ptr, n, ret uint32) {
		read(ctx, self, ptr, n, ret, os.ReadFile)
	})
	export("[method]context.read-at", func(ctx context.Context, _ api.Module, self, ptr, n uint32, offset uint64, length, ret uint32) {
		read(ctx, self, ptr, n, ret, func(file string) ([]byte, error) {
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			b = b[min(offset, uint64(len(b))):]
			return b[:min(uint64(length), uint64(len(b)))], nil
		})
	})

	change := func(ctx context.Context, self, ptr, n, ret uint32, do func(file string) error) {
		g := ctx.Value(guestKey{}).(*Guest)
		file, err := h.resolve(g.party(self), g.text(ptr, n), true)
		if err == nil {
			err = do(file)
		}
		if err != nil {
			g.putError(ctx, ret, 4, err)
			return
		}
		g.put8(ret, 0)
	}
	put := func(flag int) func(context.Context, api.Module, uint32, uint32, uint32, uint32, uint32, uint32) {
		return func(ctx context.Context, _ api.Module, self, ptr, n, data, size, ret uint32) {
			b := ctx.Value(guestKey{}).(*Guest).bytes(data, size)
			change(ctx, self, ptr, n, ret, func(file string) error {
				f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|flag, 0o644)
				if err != nil {
					return err
				}
				_, err = f.Write(b)
				return errors.Join(err, f.Close())
			})
		}
	}
	export("[method]context.write", put(os.O_TRUNC))
	export("[method]context.append", put(os.O_APPEND))
	export("[method]context.make-directory", func(ctx context.Context, _ api.Module, self, ptr, n, ret uint32) {
		change(ctx, self, ptr, n, ret, func(file string) error { return os.Mkdir(file, 0o755) })
	})
	export("[method]context.remove", func(ctx context.Context, _ api.Module, self, ptr, n, ret uint32) {
		change(ctx, self, ptr, n, ret, os.Remove)
	})
	export("[method]context.list", func(ctx context.Context, _ api.Module, self, ptr, n, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		dir, err := h.resolve(g.party(self), g.text(ptr, n), false)
		var entries []os.DirEntry
		if err == nil {
			entries, err = os.ReadDir(dir)
		}
		if err != nil {
			g.putError(ctx, ret, 4, err)
			return
		}
		at := g.must(g.realloc(ctx, 4, 12*len(entries)))
		for i, e := range entries {
			g.putList(ctx, at+uint32(12*i), []byte(e.Name()))
			g.put8(at+uint32(12*i)+8, kind(e.Type()))
		}
		g.put8(ret, 0)
		g.put32(ret+4, at)
		g.put32(ret+8, uint32(len(entries)))
	})
	export("[method]context.stat", func(ctx context.Context, _ api.Module, self, ptr, n, ret uint32) {
		g := ctx.Value(guestKey{}).(*Guest)
		file, err := h.resolve(g.party(self), g.text(ptr, n), false)
		var info os.FileInfo
		if err == nil {
			info, err = os.Stat(file)
		}
		if err != nil {
			g.putError(ctx, ret, 8, err)
			return
		}
		size := info.Size()
		if info.IsDir() {
			size = 0
		}
		g.put8(ret, 0)
		g.put8(ret+8, kind(info.Mode()))
		g.put64(ret+16, uint64(size))
		g.put64(ret+24, uint64(info.ModTime().UnixMilli()))
	})
	h.offerRecords(export)
	if version != "0.1.1" {
		h.offerQueries(export)
		h.offerSend(export)
	}
	if _, err := c.Instantiate(ctx); err != nil {
		return fmt.Errorf("offer circles:host/contexts: %w", err)
	}
	return nil
}

// Error codes of host.wit.
const (
	notFound = iota
	denied
	exists
	notDirectory
	isDirectory
	notEmpty
	invalid
	tooLarge
	readOnly
	unavailable
	ioFailed
	conflict
	violates
	failed
)

type hostError struct {
	code    byte
	message string
}

func (e *hostError) Error() string { return e.message }

func (h *Host) resolve(party, path string, change bool) (string, error) {
	dir := h.Target.Dir
	if party == "caller" {
		dir = h.Caller.Dir
		if change {
			return "", &hostError{readOnly, "the caller's context cannot be changed"}
		}
		if h.Lent != nil && !h.Lent(path) {
			return "", &hostError{denied, "the caller did not lend " + path}
		}
	} else if change && h.ReadOnly {
		return "", &hostError{readOnly, "this script may only read"}
	}
	local := strings.TrimPrefix(path, "/")
	if local == "" {
		local = "."
	}
	if !filepath.IsLocal(local) || strings.Contains(local, "\x00") {
		return "", &hostError{invalid, "the path leads out of the context"}
	}
	return filepath.Join(dir, local), nil
}

func code(err error) byte {
	var h *hostError
	switch {
	case errors.As(err, &h):
		return h.code
	case errors.Is(err, fs.ErrNotExist):
		return notFound
	case errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY):
		return exists
	case errors.Is(err, fs.ErrPermission):
		return denied
	case errors.Is(err, syscall.ENOTDIR):
		return notDirectory
	case errors.Is(err, syscall.EISDIR):
		return isDirectory
	case errors.Is(err, syscall.ENOTEMPTY):
		return notEmpty
	}
	return ioFailed
}

func kind(m fs.FileMode) byte {
	switch {
	case m.IsRegular():
		return 0
	case m.IsDir():
		return 1
	case m&fs.ModeSymlink != 0:
		return 2
	}
	return 3
}

// The functions below panic where the ABI says to trap.

func (g *Guest) party(handle uint32) string {
	p, ok := g.handles[handle]
	if !ok {
		panic(fmt.Sprintf("handle %d is not a live context", handle))
	}
	return p
}

func (g *Guest) bytes(ptr, n uint32) []byte {
	b, ok := g.Module.Memory().Read(ptr, n)
	if !ok {
		panic(fmt.Sprintf("%d bytes at %#x are out of bounds", n, ptr))
	}
	return bytes.Clone(b)
}

func (g *Guest) text(ptr, n uint32) string {
	b := g.bytes(ptr, n)
	if !utf8.Valid(b) {
		panic(fmt.Sprintf("%q is not UTF-8", b))
	}
	return string(b)
}

func (g *Guest) must(ptr uint32, err error) uint32 {
	if err != nil {
		panic(err)
	}
	return ptr
}

func (g *Guest) wrote(ok bool) {
	if !ok {
		panic("the return area is out of bounds")
	}
}

func (g *Guest) put8(at uint32, v byte)    { g.wrote(g.Module.Memory().WriteByte(at, v)) }
func (g *Guest) put32(at uint32, v uint32) { g.wrote(g.Module.Memory().WriteUint32Le(at, v)) }
func (g *Guest) put64(at uint32, v uint64) { g.wrote(g.Module.Memory().WriteUint64Le(at, v)) }

func (g *Guest) putList(ctx context.Context, at uint32, b []byte) {
	ptr := g.must(g.lower(ctx, b))
	g.put32(at, ptr)
	g.put32(at+4, uint32(len(b)))
}

func (g *Guest) putError(ctx context.Context, ret, payload uint32, err error) {
	g.put8(ret, 1)
	g.put8(ret+payload, code(err))
	var path *fs.PathError
	if errors.As(err, &path) { // which names a file of ours
		err = path.Err
	}
	g.putList(ctx, ret+payload+4, []byte(err.Error()))
}
