package wasi

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	wsys "github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// A wazero with another set of functions must not get past us unseen.
func TestEveryFunctionIsServed(t *testing.T) {
	all, err := originals()
	if err != nil {
		t.Fatal(err)
	}
	if err := covered(all); err != nil {
		t.Error(err)
	}
	more := maps.Clone(all)
	more["fd_format_disk"] = original{}
	if covered(more) == nil {
		t.Error("a function without a guard was accepted")
	}
	fewer := maps.Clone(all)
	delete(fewer, "fd_read")
	if covered(fewer) == nil {
		t.Error("a function that is missing was accepted")
	}
}

// failing is a store whose disk breaks.
type failing struct{ store.FS }

var errDisk = errors.New("disk on fire")

func (f failing) Open(path string, flag store.Flag) (store.File, error) {
	file, err := f.FS.Open(path, flag)
	return failingFile{file}, err
}

type failingFile struct{ store.File }

func (failingFile) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

// A guest may ignore an I/O error, exit with 0, and have half of its work
// committed: the host must be able to tell.
func TestStorageFailureIsNotCommitted(t *testing.T) {
	b := setup(t)
	s := mem.New(mem.Config{})
	(&world{store: s}).steps(t, do("f=", "open", "cw", "f"), do("write", "f", "x"))
	var failure error
	err := s.Update(context.Background(), func(tx store.Tx) error {
		ctx, files := Mount(context.Background(), failing{tx.Files(nil)}, Config{})
		out, err := b.engine.Run(ctx, b.guest, engine.Call{Params: []byte("\"f=\"\t\"open\"\t\"r\"\t\"f\"\n\"read\"\t\"f\"\t\"1\"\n\"unlink\"\t\"none\"\n")})
		if want := "0\t\"\"\n29\t\"\"\n44\t\"\"\n"; err != nil || string(out.Result) != want {
			t.Errorf("the guest saw %q, %v; want %q", out.Result, err, want)
		}
		failure = files.Close()
		return failure
	})
	if !errors.Is(err, errDisk) || !errors.Is(failure, errDisk) {
		t.Errorf("the host saw %v, and Err %v", err, failure)
	}
}

// keeping remembers the last link's target as it was given.
type keeping struct {
	store.FS
	target string
}

func (k *keeping) Symlink(target, _ string) error {
	k.target = target
	return nil
}

// A store that was given the guest's memory as a string, and keeps it, would see
// it change after it was checked.
func TestLinkTargetIsCopied(t *testing.T) {
	b := setup(t)
	k := &keeping{}
	ctx, _ := Mount(context.Background(), k, Config{})
	if _, err := b.engine.Run(ctx, b.guest, engine.Call{Params: []byte("\"symlink-and-scribble\"\t\"innocent\"\t\"link\"\n")}); err != nil {
		t.Fatal(err)
	}
	if k.target != "innocent" {
		t.Errorf("the target became %q", k.target)
	}
}

// What a guest brings about is not the storage's failure.
func TestRefusalsAreNotStorageFailures(t *testing.T) {
	files := (&world{guard: writesDenied{}}).steps(t,
		do("open", "cw", "f").is("ACCES"), do("open", "r", "none").is("NOENT"), do("mkdir", "d").is("ACCES"))
	if err := files.Err(); err != nil {
		t.Error(err)
	}
}

// late is a store that is asked for something after the time is over.
type late struct {
	store.FS
	cancel func()
	asked  int
}

func (l *late) Mkdir(path string) error {
	l.asked++
	l.cancel()
	return l.FS.Mkdir(path)
}

// A guest whose time ends in the middle of a call does not make another.
func TestFilesAfterTheDeadline(t *testing.T) {
	b := setup(t)
	s := mem.New(mem.Config{})
	err := s.Update(context.Background(), func(tx store.Tx) error {
		ctx, cancel := context.WithCancel(context.Background())
		l := &late{FS: tx.Files(nil), cancel: cancel}
		ctx, files := Mount(ctx, l, Config{})
		_, err := b.engine.Run(ctx, b.guest, engine.Call{Params: []byte("\"f=\"\t\"open\"\t\"cw\"\t\"f\"\n\"mkdir\"\t\"a\"\n\"mkdir\"\t\"b\"\n")})
		var failed *engine.Failure
		if !errors.As(err, &failed) || failed.Kind != engine.Cancelled {
			t.Errorf("ended with %v", err)
		}
		if l.asked != 1 {
			t.Errorf("the store was asked %d times", l.asked)
		}
		if err := files.Close(); err != nil || files.Open() != 0 {
			t.Errorf("close: %v, %d left", err, files.Open())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// command assembles a module of one page of memory, or none, that imports a
// function of four i32, and whose _start runs code, where that is function 0.
func command(imported string, pages byte, code ...byte) []byte {
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	wasm = append(wasm, section(1, 2,
		0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, // (func (param i32 i32 i32 i32) (result i32))
		0x60, 0, 0)...)
	wasm = append(wasm, section(2, slices.Concat([]byte{1}, name("wasi_snapshot_preview1"), name(imported), []byte{0, 0})...)...)
	wasm = append(wasm, section(3, 1, 1)...)
	if pages > 0 {
		wasm = append(wasm, section(5, 1, 0, pages)...)
	}
	wasm = append(wasm, section(7, slices.Concat([]byte{1}, name("_start"), []byte{0, 1})...)...)
	code = slices.Concat([]byte{0}, code, []byte{0x0b})
	return append(wasm, section(10, slices.Concat([]byte{1, byte(len(code))}, code)...)...)
}

// wazero's functions dereference the memory that is not there.
func TestGuestWithoutMemory(t *testing.T) {
	b := setup(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := b.engine.Compile(ctx, command("fd_write", 0,
		0x41, 1, 0x41, 0, 0x41, 1, 0x41, 0, 0x10, 0, // fd_write(1, 0, 1, 0)
		0x41, byte(eFault), 0x47, 0x04, 0x40, 0x00, 0x0b)) // unless that is FAULT, unreachable
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := b.engine.Run(ctx, p, engine.Call{}); err != nil {
		t.Error(err)
	}
}

// An engine may leave the time to us.
func TestSleepEndsWithoutAnEngine(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())
	defer r.Close(context.Background())
	m := Module()
	host := r.NewHostModuleBuilder(m.Name)
	m.Export(host)
	if _, err := host.Instantiate(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, err := r.Instantiate(ctx, command("poll_oneoff", 1,
		0x41, 24, 0x42, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x37, 3, 0, // a timeout of 2^63-1 at 24
		0x41, 0, 0x41, 0xc0, 0, 0x41, 1, 0x41, 0x80, 1, 0x10, 0, 0x1a)) // poll_oneoff(0, 64, 1, 128)
	var exit *wsys.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != wsys.ExitCodeDeadlineExceeded {
		t.Errorf("ended with %v, not at the deadline", err)
	}
}

// A guest without files sees a "/" that leads nowhere.
func TestGuestWithoutFiles(t *testing.T) {
	b := setup(t)
	out, err := b.engine.Run(context.Background(), b.guest, engine.Call{Params: []byte(
		"\"open\"\t\"r\"\t\"f\"\n" + "\"prestat\"\t\"/\"\t\"1\"\n" + "\"readdir\"\t\"/\"\t\"100\"\t\"0\"\n" +
			"\"seek\"\t\"stdin\"\t\"0\"\t\"0\"\n" + "\"poll\"\t\"1\"\t\"stdin\"\t\"1\"\t\"/\"\n")})
	if err != nil {
		t.Fatal(err)
	}
	want := "76\t\"\"\n" + "0\t\"/\"\n" + "76\t\"0:\"\n" + "70\t\"0\"\n" + "0\t\"0:0 1:0\"\n"
	if string(out.Result) != want {
		t.Errorf("the guest saw %q; want %q", out.Result, want)
	}
}

func BenchmarkCall(b *testing.B) {
	bench, err := theBench()
	if err != nil {
		b.Fatal(err)
	}
	s := mem.New(mem.Config{})
	b.ReportAllocs()
	err = s.Update(context.Background(), func(tx store.Tx) error {
		ctx, _ := Mount(context.Background(), tx.Files(nil), Config{})
		_, err := bench.engine.Run(ctx, bench.guest, engine.Call{Args: []string{"stats", strconv.Itoa(b.N)},
			Limits: engine.Limits{Wall: time.Hour, HostCalls: 1 << 62}})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}
