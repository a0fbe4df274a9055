package wasi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
)

// bench is the engine and the guest that all tests share: to build and compile
// it takes seconds, and minutes on a busy machine under the race detector.
type bench struct {
	engine *engine.Engine
	guest  *engine.Program
}

// guestWasm builds the guest.
var guestWasm = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "wasi-guest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "guest.wasm")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", file, "./testdata/guest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the guest: %w\n%s", err, out)
	}
	return os.ReadFile(file)
})

var theBench = sync.OnceValues(func() (b bench, err error) {
	wasm, err := guestWasm()
	if err != nil {
		return b, err
	}
	ctx := context.Background()
	if b.engine, err = engine.New(ctx, engine.Config{MaxCompileTime: time.Hour}, Module()); err != nil {
		return b, err
	}
	b.guest, err = b.engine.Compile(ctx, wasm)
	return b, err
})

func setup(t *testing.T) bench {
	t.Helper()
	b, err := theBench()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// world is a context and what a guest of it gets.
type world struct {
	store  store.Store
	guard  store.Guard
	config Config
	limits engine.Limits
	ctx    context.Context               // default context.Background()
	view   bool                          // run in a read-only transaction
	dirs   func(tx store.Tx) []Preopened // default "/"
	within bool                          // in the transaction that dirs are of, and not in one of its own
}

// run runs the guest in one transaction, which commits if it does well.
func (w *world) run(t *testing.T, call engine.Call) (out engine.Output, files *Files, err error) {
	t.Helper()
	b := setup(t)
	if w.store == nil {
		w.store = mem.New(mem.Config{})
	}
	if w.ctx == nil {
		w.ctx = context.Background()
	}
	call.Limits = w.limits
	transact := w.store.Update
	if w.within {
		transact = func(_ context.Context, f func(store.Tx) error) error { return f(nil) }
	}
	if w.view {
		transact = w.store.View
	}
	err = transact(w.ctx, func(tx store.Tx) error {
		var ctx context.Context
		if w.dirs != nil {
			ctx, files = MountAll(w.ctx, w.dirs(tx), w.config)
		} else {
			ctx, files = Mount(w.ctx, tx.Files(w.guard), w.config)
		}
		out, err = b.engine.Run(ctx, b.guest, call)
		return errors.Join(err, files.Close())
	})
	return out, files, err
}

// step is one call that the guest makes, and what must come of it: "OK" or an
// errno's name and, if more is given, the detail, of which "*" leaves off the
// end.
type step struct {
	do   []string
	want string
}

func do(words ...string) step         { return step{do: words, want: "OK"} }
func (s step) is(want ...string) step { s.want = strings.Join(want, " "); return s }

// steps has the guest make the calls in one run, and compares.
func (w *world) steps(t *testing.T, steps ...step) *Files {
	t.Helper()
	var in strings.Builder
	for _, s := range steps {
		for i, word := range s.do {
			if i > 0 {
				in.WriteByte('\t')
			}
			in.WriteString(strconv.Quote(word))
		}
		in.WriteByte('\n')
	}
	out, files, err := w.run(t, engine.Call{Params: []byte(in.String())})
	var failed *engine.Failure
	if errors.As(err, &failed) {
		t.Fatalf("the guest failed: %v\n%s", err, failed.Log)
	}
	if err != nil {
		t.Fatalf("the host failed: %v", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out.Result), "\n"), "\n")
	if len(lines) != len(steps) {
		t.Fatalf("%d answers to %d calls", len(lines), len(steps))
	}
	for i, s := range steps {
		code, quoted, _ := strings.Cut(lines[i], "\t")
		detail, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(code)
		if err != nil {
			t.Fatal(err)
		}
		got := errnoName(errno(n))
		if want, _, _ := strings.Cut(s.want, " "); want != s.want {
			got += " " + detail
		}
		if prefix, ok := strings.CutSuffix(s.want, "*"); ok && strings.HasPrefix(got, prefix) {
			continue
		}
		if got != s.want {
			t.Errorf("%.100q: %.200s; want %.200s", s.do, got, s.want)
		}
	}
	return files
}

func errnoName(e errno) string {
	names := map[errno]string{0: "OK", eAcces: "ACCES", eBadf: "BADF", eDquot: "DQUOT", eExist: "EXIST", eFault: "FAULT",
		eFbig: "FBIG", eIlseq: "ILSEQ", eInval: "INVAL", eIO: "IO", eIsdir: "ISDIR", eLoop: "LOOP", eMfile: "MFILE",
		eNametoolong: "NAMETOOLONG", eNoent: "NOENT", eNospc: "NOSPC", eNotdir: "NOTDIR", eNotempty: "NOTEMPTY",
		eNotsock: "NOTSOCK", eNotsup: "NOTSUP", ePerm: "PERM", eRofs: "ROFS", eSpipe: "SPIPE", eXdev: "XDEV", eNotcapable: "NOTCAPABLE", 52: "NOSYS"}
	if n, ok := names[e]; ok {
		return n
	}
	return strconv.Itoa(int(e))
}

// content reads a committed file.
func (w *world) content(t *testing.T, path string) string {
	t.Helper()
	var b []byte
	err := w.store.View(context.Background(), func(tx store.Tx) error {
		f, err := tx.Files(nil).Open(path, store.FlagRead)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		b = make([]byte, info.Size)
		_, err = f.ReadAt(b, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOrdinaryProgramWorksAndCommits(t *testing.T) {
	w := &world{}
	out, files, err := w.run(t, engine.Call{Args: []string{"ordinary"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `/ d---------
/notes d---------
/notes/big ----------
/notes/link L---------
/notes/old d---------
/notes/old/b.txt ----------
`
	if string(out.Result) != want {
		t.Errorf("the program saw\n%s", out.Result)
	}
	if got := w.content(t, "/notes/old/b.txt"); got != "first second" {
		t.Errorf("committed %q", got)
	}
	if got := w.content(t, "/notes/big"); got != "012" {
		t.Errorf("committed %q", got)
	}
	if n := files.Open(); n != 0 {
		t.Errorf("%d files still open after the run", n)
	}
}
