package contexts_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi"
	. "github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/imports/contexts"
	"github.com/circles-host/circles/host/imports/log"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
	"github.com/circles-host/circles/testdata/build"
)

// shared is one engine for all tests: what a worker has.
var shared = sync.OnceValues(func() (*engine.Engine, error) {
	wasi := engine.HostModule{Name: wasi_snapshot_preview1.ModuleName, Export: func(b wazero.HostModuleBuilder) {
		wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
	}}
	// A Go guest takes a minute to compile under -race on a busy machine.
	return engine.New(context.Background(), engine.Config{MaxCompileTime: 10 * time.Minute}, wasi, contexts.Module(), log.Module())
})

func compile(t testing.TB, wasm []byte) *engine.Program {
	t.Helper()
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.Compile(context.Background(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// peers is a call's state.
type peers struct{ caller, target contexts.Context }

func (p peers) Caller() contexts.Context { return p.caller }
func (p peers) Target() contexts.Context { return p.target }
func (p peers) Clock() bool              { return true }

// run runs an entry and returns its result, or the failure.
func run(t testing.TB, p *engine.Program, entry, params string, state any) (string, error) {
	t.Helper()
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.Run(t.Context(), p, engine.Call{
		Entry: entry, Params: []byte(params), State: state,
		Limits: engine.Limits{Wall: 1 << 40, Memory: 128 << 20},
	})
	return string(out.Result), err
}

// guard denies by the beginning of a path, in the words of a policy.
type guard []string

func (g guard) Allow(op store.Op, path string) error {
	for _, denied := range g {
		if path == denied || strings.HasPrefix(path, denied+"/") {
			return fmt.Errorf("policy of bob does not allow it on %s; ask bob for a permit", path)
		}
	}
	if path == "/hidden" {
		return store.ErrHidden
	}
	return nil
}

// bob makes a store with some files.
func bob(t testing.TB, limits overlay.Limits) store.Store {
	t.Helper()
	s := mem.New(mem.Config{Limits: limits})
	t.Cleanup(func() { s.Close() })
	err := s.Update(context.Background(), func(tx store.Tx) error {
		fs := tx.Files(nil)
		for _, dir := range []string{"/dir", "/empty", "/secret"} {
			if err := fs.Mkdir(dir); err != nil {
				return err
			}
		}
		for path, data := range map[string]string{"/a": "alpha", "/dir/b": "beta", "/secret/key": "k", "/hidden": "h"} {
			f, err := fs.Open(path, store.FlagWrite|store.FlagCreate)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(io.NewOffsetWriter(f, 0), data); err != nil {
				return err
			}
			f.Close()
		}
		return errors.Join(fs.Symlink("a", "/link"), fs.Symlink("secret/key", "/trick"),
			fs.Symlink("loop", "/loop"), fs.Symlink("nowhere", "/dangling"))
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// update runs f on bob's context in a transaction that is then committed.
func update(t testing.TB, s store.Store, f func(contexts.Context)) {
	t.Helper()
	err := s.Update(context.Background(), func(tx store.Tx) error {
		f(contexts.Local("did:key:z6MkBob", "bob", tx.Files(guard{"/secret"}), nil, func(err error) { t.Errorf("reported: %v", err) }))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLocal(t *testing.T) {
	ctx := t.Context()
	s := bob(t, overlay.Limits{})
	show := func(b []byte, err error) string { return fmt.Sprintf("%q %v", b, err) }
	update(t, s, func(c contexts.Context) {
		for _, tc := range []struct{ got, want string }{
			{show(c.Read(ctx, "/a", 5)), `"alpha" <nil>`},
			{show(c.Read(ctx, "a", 5)), `"alpha" <nil>`},
			{show(c.Read(ctx, "link", 5)), `"alpha" <nil>`},
			{show(c.Read(ctx, "/dir/../a", 5)), `"alpha" <nil>`},
			{show(c.ReadAt(ctx, "/a", 1, 3)), `"lph" <nil>`},
			{show(c.ReadAt(ctx, "/a", 3, 100)), `"ha" <nil>`},
			{show(c.ReadAt(ctx, "/a", 5, 1)), `"" <nil>`},
			{show(c.ReadAt(ctx, "/a", 1<<64-1, 1<<20)), `"" <nil>`},
			{show(nil, c.Write(ctx, "/a", []byte("new"))), `"" <nil>`},
			{show(c.Read(ctx, "/a", 5)), `"new" <nil>`},
			{show(nil, c.Append(ctx, "/a", []byte("er"))), `"" <nil>`},
			{show(nil, c.Append(ctx, "/fresh", []byte("made"))), `"" <nil>`},
			{show(nil, c.Write(ctx, "/a2", nil)), `"" <nil>`},
			{show(c.Read(ctx, "/a", 5)), `"newer" <nil>`},
			{show(c.Read(ctx, "/a2", 5)), `"" <nil>`},
			{show(nil, c.MakeDirectory(ctx, "/dir/sub")), `"" <nil>`},
			{show(nil, c.Remove(ctx, "/dir/sub")), `"" <nil>`},
			{show(nil, c.Remove(ctx, "/dangling")), `"" <nil>`},
			{show(nil, c.Remove(ctx, "/a2")), `"" <nil>`},
		} {
			if tc.got != tc.want {
				t.Errorf("got %s, want %s", tc.got, tc.want)
			}
		}
		for _, root := range []string{"", "/", "."} {
			entries, err := c.List(ctx, root, 100)
			want := "[{a 0} {dir 1} {empty 1} {fresh 0} {link 2} {loop 2} {secret 1} {trick 2}]"
			if fmt.Sprint(entries) != want || err != nil {
				t.Errorf("List(%q) = %v, %v; want %s", root, entries, err, want)
			}
		}
		if st, err := c.Stat(ctx, "/link"); err != nil || st.Kind != contexts.File || st.Size != 5 || st.Modified < 1.6e12 {
			t.Errorf("Stat follows links: %+v, %v", st, err)
		}
		if st, err := c.Stat(ctx, "/dir"); err != nil || st.Kind != contexts.Directory || st.Size != 0 {
			t.Errorf("Stat of a directory: %+v, %v", st, err)
		}
	})
	// All of it was in the one transaction, which was committed.
	err := s.View(ctx, func(tx store.Tx) error {
		b, err := contexts.Local("", "", tx.Files(nil), nil, nil).Read(ctx, "/a", 5)
		if string(b) != "newer" {
			t.Errorf("after commit: %q, %v", b, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLocalErrors(t *testing.T) {
	ctx := t.Context()
	s := bob(t, overlay.Limits{FileSize: 1000, StagedBytes: 1500})
	long := "/" + strings.Repeat("n", 300)
	update(t, s, func(c contexts.Context) {
		read := func(p string) error { _, err := c.Read(ctx, p, 4); return err }
		list := func(p string) error { _, err := c.List(ctx, p, 2); return err }
		stat := func(p string) error { _, err := c.Stat(ctx, p); return err }
		write := func(p string, n int) error { return c.Write(ctx, p, make([]byte, n)) }
		for _, tc := range []struct {
			err  error
			code contexts.Code
			want string
		}{
			{read("/none"), contexts.NotFound, "cannot read /none: there is no such file or directory"},
			{read("/dangling"), contexts.NotFound, "cannot read /dangling: there is no such"},
			{read("/hidden"), contexts.NotFound, "cannot read /hidden: there is no such"},
			{stat("/hidden"), contexts.NotFound, "cannot stat /hidden: there is no such"},
			{read("/secret/key"), contexts.Denied, "policy of bob does not allow it on /secret/key; ask bob for a permit"},
			// Through a link the sentence alone would not say what was asked for.
			{read("/trick"), contexts.Denied, "cannot read /trick: policy of bob does not allow it on /secret/key"},
			{stat("/secret/key"), contexts.Denied, "policy of bob"},
			{list("/secret"), contexts.Denied, "policy of bob"},
			{write("/secret/new", 1), contexts.Denied, "policy of bob"},
			{c.Append(ctx, "/secret/key", []byte("x")), contexts.Denied, "policy of bob"},
			{c.Remove(ctx, "/secret/key"), contexts.Denied, "policy of bob"},
			{c.MakeDirectory(ctx, "/secret/d"), contexts.Denied, "policy of bob"},
			{read("/dir"), contexts.IsDirectory, "cannot read /dir: it is a directory"},
			{read(""), contexts.IsDirectory, "cannot read /: it is a directory"},
			{write("/dir", 1), contexts.IsDirectory, "it is a directory"},
			{read("/a/x"), contexts.NotDirectory, "not a directory"},
			{list("/a"), contexts.NotDirectory, "cannot list /a: it is not a directory"},
			{c.MakeDirectory(ctx, "/dir"), contexts.Exists, "cannot make directory /dir: there is something"},
			{c.Remove(ctx, "/dir"), contexts.NotEmpty, "the directory has entries"},
			{c.Remove(ctx, "/"), contexts.Invalid, "cannot remove the root"},
			{c.Remove(ctx, "//./"), contexts.Invalid, "cannot remove the root"},
			{c.Remove(ctx, ""), contexts.Invalid, "cannot remove the root"},
			{read("/../etc/passwd"), contexts.Invalid, "leads out of the context"},
			{read("../../x"), contexts.Invalid, "leads out of the context"},
			{read("/loop"), contexts.Invalid, "too many symbolic links"},
			{read("/a\x00b"), contexts.Invalid, `cannot read "/a\x00b": the path is not a valid one`},
			{read("/\x1b[2Ja"), contexts.NotFound, `cannot read "/\x1b[2Ja"`},
			{write(long, 1), contexts.Invalid, "too long"},
			{read("/a"), contexts.TooLarge, "it has 5 bytes, and the limit is 4; read it in parts"},
			{list("/"), contexts.TooLarge, "more than 2 entries"},
			{write("/big", 1001), contexts.TooLarge, "over the limit for one file"},
			{errors.Join(write("/q1", 900), write("/q2", 900)), contexts.TooLarge, "quota is used up"},
			{write("/none/x", 1), contexts.NotFound, "there is no such"},
		} {
			var e *contexts.Error
			if !errors.As(tc.err, &e) || e.Code != tc.code || !strings.Contains(e.Message, tc.want) {
				t.Errorf("%v (%T); want %v: %q", tc.err, tc.err, tc.code, tc.want)
			}
		}
	})
	err := s.View(ctx, func(tx store.Tx) error {
		c := contexts.Local("did:key:z6MkBob", "bob", tx.Files(nil), nil, nil)
		for _, err := range []error{
			c.Write(ctx, "/a", nil), c.Append(ctx, "/a", nil), c.MakeDirectory(ctx, "/x"), c.Remove(ctx, "/a"),
			contexts.ReadOnly(c).Write(ctx, "/a", nil), contexts.ReadOnly(c).Append(ctx, "/a", nil),
			contexts.ReadOnly(c).MakeDirectory(ctx, "/x"), contexts.ReadOnly(c).Remove(ctx, "/a"),
		} {
			var e *contexts.Error
			if !errors.As(err, &e) || e.Code != contexts.ReadOnlyContext || !strings.Contains(e.Message, "the context of bob") {
				t.Errorf("change in a view: %v", err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// broken is a store of which every operation fails as a host's disk would.
type broken struct {
	store.FS
	err error
}

func (b broken) Open(string, store.Flag) (store.File, error) { return nil, b.err }
func (b broken) Stat(string, bool) (store.Info, error)       { return store.Info{}, b.err }

// What the host's own disk says names the host's own paths: it goes to the
// host's log and nowhere else.
func TestHostErrorsStayInside(t *testing.T) {
	for _, cause := range []error{
		&os.PathError{Op: "open", Path: "/var/circles/peers/bob/data/a", Err: syscall.EIO},
		&os.PathError{Op: "open", Path: "/var/circles/peers/bob/data/a", Err: syscall.EACCES},
		fmt.Errorf("commit: %w", &os.PathError{Op: "open", Path: "/var/circles/journal", Err: syscall.EPERM}),
		fmt.Errorf("%w: %w", store.ErrDenied, &os.PathError{Op: "open", Path: "/var/circles/peers/bob/data/a", Err: syscall.EACCES}),
	} {
		var reported error
		c := contexts.Local("", "bob", broken{err: cause}, nil, func(err error) { reported = err })
		_, err := c.Read(t.Context(), "/a", 10)
		var e *contexts.Error
		if !errors.As(err, &e) || strings.Contains(e.Message, "var") {
			t.Errorf("guest is told %q", err)
		}
		if !errors.Is(reported, cause) {
			t.Errorf("%v: reported as %v", cause, reported)
		}
	}
}

// The Go guest of the SDK's own tests, on a store, through the engine.
func TestGoGuest(t *testing.T) {
	p := compile(t, build.Go(t, "testdata/guests/sdk", true))
	s := bob(t, overlay.Limits{})
	alice := mem.New(mem.Config{})
	defer alice.Close()
	big := make([]byte, 1_234_567)
	for i := range big {
		big[i] = byte(i)
	}
	err := alice.Update(t.Context(), func(tx store.Tx) error {
		c := contexts.Local("", "", tx.Files(nil), nil, nil)
		return errors.Join(c.Write(t.Context(), "/hello.txt", []byte("hello from the host")), c.MakeDirectory(t.Context(), "/names"))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = alice.View(t.Context(), func(lent store.Tx) error {
		update(t, s, func(target contexts.Context) {
			state := peers{contexts.ReadOnly(contexts.Local("did:key:z6MkAlice", "alice", lent.Files(nil), nil, nil)), target}
			if err := target.Write(t.Context(), "/big", big); err != nil {
				t.Fatal(err)
			}
			for _, tc := range []struct{ entry, params, want string }{
				{"run", "echo", "echo"},
				{"who", "", "alice did:key:z6MkAlice, bob did:key:z6MkBob"},
				{"read", "/hello.txt", "hello from the host"},
				{"stream", "big", "1234567 bytes in 1235 parts"},
				{"deep", "/hello.txt", "0 bad"},
				{"race", "/hello.txt", ""},
				{"classify", "read /none", "not found ErrNotExist"},
				{"classify", "read /secret/key", "denied ErrPermission"},
				{"classify", "read /dir", "is a directory"},
				{"classify", "list /a", "not a directory"},
				{"classify", "read /../x", "invalid ErrInvalid"},
				{"classify", "deface /hello.txt", "read-only ErrPermission"},
				{"classify", "mkdir /dir", "exists ErrExist"},
				{"classify", "remove /dir", "not empty ErrExist"},
				{"classify", "mkdir /dir/new", "ok"},
				{"classify", "write /dir/new/f", "ok"},
				{"classify", "append /dir/new/f", "ok"},
				{"classify", "stat /dir/new/f", "ok"},
				{"classify", "remove /dir/new/f", "ok"},
				{"classify", "list /dir/new", "ok"},
			} {
				got, err := run(t, p, tc.entry, tc.params, state)
				if err != nil || got != tc.want {
					t.Errorf("%s(%q) = %q, %v; want %q", tc.entry, tc.params, got, err, tc.want)
				}
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// The standard library's test of an fs.FS opens and lists all there is.
	fresh := mem.New(mem.Config{})
	defer fresh.Close()
	update(t, fresh, func(c contexts.Context) {
		ctx := t.Context()
		err := errors.Join(c.Write(ctx, "/a.txt", []byte("alpha")), c.Write(ctx, "/empty", nil),
			c.MakeDirectory(ctx, "/dir"), c.MakeDirectory(ctx, "/dir/sub"),
			c.Write(ctx, "/dir/b.txt", []byte("beta")), c.Write(ctx, "/dir/sub/c.txt", big[:5000]))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := run(t, p, "testfs", "a.txt empty dir/b.txt dir/sub/c.txt", peers{c, c}); err != nil {
			t.Error(err)
		}
	})
}

// hostile is a context on a host that sends what it likes.
type hostile struct {
	contexts.Context
	bytes   []byte
	entries []contexts.Entry
	err     error
}

func (h hostile) ID() string   { return "did:key:\xff" }
func (h hostile) Name() string { return "mallory" }
func (h hostile) Read(context.Context, string, int) ([]byte, error) {
	return h.bytes, h.err
}

func (h hostile) ReadAt(context.Context, string, uint64, int) ([]byte, error) {
	return h.bytes, h.err
}

func (h hostile) List(context.Context, string, int) ([]contexts.Entry, error) {
	return h.entries, h.err
}

func (h hostile) Stat(context.Context, string) (contexts.Stat, error) {
	return contexts.Stat{Kind: 200, Size: 1 << 63, Modified: 1<<64 - 1}, h.err
}

// methods is a guest whose entries call one method of target() with a path and
// return the result's bytes as they lie in memory, 32 of them.
func methods(pathLen, length int32) []byte {
	const in, path, area, out = "circles:host/contexts@0.1.0", 1024, 256, 128
	var m Module
	imports := map[string][2]uint32{}
	target := m.Import(in, "target", "", "i")
	for entry, f := range map[string][2]string{
		"id": {"id", "ii"}, "read": {"read", "iiii"}, "read-at": {"read-at", "iiiIii"}, "write": {"write", "iiiiii"},
		"list": {"list", "iiii"}, "stat": {"stat", "iiii"}, "remove": {"remove", "iiii"},
	} {
		imports[entry] = [2]uint32{m.Import(in, "[method]context."+f[0], f[1], ""), 0}
	}
	m.Memory(2)
	m.Bump(128 << 10)
	var le [12]byte
	binary.LittleEndian.PutUint32(le[4:], area)
	binary.LittleEndian.PutUint32(le[8:], 32)
	m.Data(out, string(le[:]))
	m.Data(path, strings.Repeat("/p", 10_000))
	for entry, f := range imports {
		code := []Code{Call(target)}
		if entry != "id" {
			code = append(code, I32(path), I32(pathLen))
		}
		switch entry {
		case "read-at":
			code = append(code, I64(0), I32(length))
		case "write":
			code = append(code, I32(0), I32(length))
		}
		code = append(code, I32(area), Call(f[0]), I32(out))
		m.Func(entry, "ii", "i", code...)
	}
	return m.Bytes()
}

// A context on another host may be that host's lie: what it sends is bounded and
// made valid before a guest sees it.
func TestHostileContext(t *testing.T) {
	p := compile(t, methods(2, 10))
	word := func(s string, i int) uint32 { return binary.LittleEndian.Uint32([]byte(s)[4*i:]) }
	ok := func(entry string, h hostile) string {
		t.Helper()
		s, err := run(t, p, entry, "", peers{nil, h})
		if err != nil {
			t.Fatalf("%s: %v", entry, err)
		}
		return s
	}
	fails := func(entry string, h hostile, code contexts.Code) {
		t.Helper()
		if s := ok(entry, h); s[0] != 1 || contexts.Code(s[4]) != code {
			t.Errorf("%s: discriminant %d, code %v; want %v", entry, s[0], contexts.Code(s[4]), code)
		}
	}
	fails("read", hostile{bytes: make([]byte, contexts.MaxBytes+1)}, contexts.Unavailable)
	fails("read-at", hostile{bytes: make([]byte, 11)}, contexts.Unavailable)
	fails("list", hostile{entries: make([]contexts.Entry, contexts.MaxEntries+1)}, contexts.Unavailable)
	fails("read", hostile{err: errors.New("dial tcp 10.0.0.1:22: refused")}, contexts.IO)
	fails("read", hostile{err: &contexts.Error{Code: 99}}, contexts.IO)
	fails("read", hostile{err: fmt.Errorf("ask: %w", &contexts.Error{Code: contexts.Unavailable, Message: "later"})}, contexts.Unavailable)
	fails("list", hostile{err: &contexts.Error{Code: contexts.Denied, Message: strings.Repeat("ä", 1<<20)}}, contexts.Denied)
	if s := ok("list", hostile{err: &contexts.Error{Message: strings.Repeat("ä", 1<<20)}}); word(s, 3) > 5000 {
		t.Errorf("message of %d bytes", word(s, 3))
	}
	if s := ok("stat", hostile{}); s[0] != 0 || s[8] != byte(contexts.Other) {
		t.Errorf("stat is %x", s)
	}
	if s := ok("list", hostile{entries: []contexts.Entry{{Name: "\xff", Kind: 77}}}); s[0] != 0 || word(s, 2) != 1 {
		t.Errorf("list is %x", s)
	}
	// "\xff" is lowered as the three bytes of U+FFFD.
	if s := ok("id", hostile{}); word(s, 1) != uint32(len("did:key:\ufffd")) {
		t.Errorf("id of %d bytes", word(s, 1))
	}
}

// A guest that may not tell the time does not learn it from files.
func TestStatWithoutAClock(t *testing.T) {
	p := compile(t, methods(2, 10))
	for _, state := range []any{peers{nil, hostile{}}, timeless{peers{nil, hostile{}}}} {
		s, err := run(t, p, "stat", "", state)
		if err != nil {
			t.Fatal(err)
		}
		want := uint64(1<<64 - 1)
		if _, ok := state.(timeless); ok {
			want = uint64(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
		}
		if got := binary.LittleEndian.Uint64([]byte(s)[24:]); got != want {
			t.Errorf("%T: modified at %d, want %d", state, got, want)
		}
	}
}

type timeless struct{ peers }

func (timeless) Clock() bool { return false }

func TestGuestArgumentsAreBounded(t *testing.T) {
	s := bob(t, overlay.Limits{})
	update(t, s, func(c contexts.Context) {
		state := peers{c, c}
		long := compile(t, methods(contexts.MaxPath+1, 0))
		for _, entry := range []string{"read", "read-at", "write", "list", "stat", "remove"} {
			got, err := run(t, long, entry, "", state)
			if err != nil || got[0] != 1 {
				t.Errorf("%s of a path of %d bytes: %x, %v", entry, contexts.MaxPath+1, got, err)
			}
		}
		wide := compile(t, methods(2, -1))
		got, err := run(t, wide, "read-at", "", state)
		if err != nil || got[0] != 1 || contexts.Code(got[4]) != contexts.TooLarge {
			t.Errorf("read-at of 4 GiB: %x, %v", got, err)
		}
		// 4 GiB of data are not in its memory: that is no large write but a lie.
		_, err = run(t, wide, "write", "", state)
		var v *abi.Violation
		var f *engine.Failure
		if !errors.As(err, &f) || f.Kind != engine.Trapped || !errors.As(f.Cause, &v) {
			t.Errorf("write of 4 GiB: %v", err)
		}
	})
}

func TestStateWithoutContexts(t *testing.T) {
	p := compile(t, methods(2, 0))
	for _, state := range []any{nil, "something else"} {
		if _, err := run(t, p, "read", "", state); err == nil || !strings.Contains(err.Error(), "no contexts") {
			t.Errorf("state %v: %v", state, err)
		}
	}
	_, err := run(t, p, "read", "", peers{})
	var f *engine.Failure
	if !errors.As(err, &f) || f.Kind != engine.Trapped || !strings.Contains(f.Detail, "no such context") {
		t.Errorf("run without a target: %v", err)
	}
}

// A run that ends while a context works on it ends as what it is, and the guest
// does not get to go on.
func TestRunEndsInsideOfContext(t *testing.T) {
	p := compile(t, methods(2, 0))
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = e.Run(ctx, p, engine.Call{Entry: "read", State: peers{nil, slow{cancel: cancel}}})
	var f *engine.Failure
	if !errors.As(err, &f) || f.Kind != engine.Cancelled {
		t.Errorf("run cancelled inside of a context: %v", err)
	}
}

type slow struct {
	contexts.Context
	cancel func()
}

func (s slow) Read(ctx context.Context, _ string, _ int) ([]byte, error) {
	s.cancel()
	<-ctx.Done()
	return nil, ctx.Err()
}

// A read's memory follows the file's size, never the length that was asked for.
func TestReadAtAllocatesByFile(t *testing.T) {
	s := bob(t, overlay.Limits{})
	update(t, s, func(c contexts.Context) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			if _, err := c.ReadAt(t.Context(), "/a", 0, contexts.MaxBytes); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("100 reads of 5 bytes allocated %d bytes", n)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	s := bob(b, overlay.Limits{})
	err := s.View(b.Context(), func(tx store.Tx) error {
		c := contexts.Local("", "bob", tx.Files(guard{"/secret"}), nil, nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Read(b.Context(), "/dir/b", 100); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
