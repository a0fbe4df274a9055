package host_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/engine/abi/abitest"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/modules"
)

// command is a program whose _start does what the code says.
func command(build func(m *abitest.Module) []abitest.Code) []byte {
	var m abitest.Module
	code := build(&m)
	m.MemoryMax(1, 65536)
	m.Func("_start", "", "", code...)
	return m.Bytes()
}

// writes makes "out" in the first directory, and then does what code says.
func writes(code ...abitest.Code) []byte {
	return command(func(m *abitest.Module) []abitest.Code {
		open := m.Import("wasi_snapshot_preview1", "path_open", "iiiiiIIii", "i")
		exit := m.Import("wasi_snapshot_preview1", "proc_exit", "i", "")
		m.Data(64, "out")
		start := []abitest.Code{
			abitest.I32(3), abitest.I32(0), abitest.I32(64), abitest.I32(3), abitest.I32(1),
			abitest.I64(64), abitest.I64(0), abitest.I32(0), abitest.I32(128), abitest.Call(open),
			abitest.If, abitest.I32(99), abitest.Call(exit), abitest.End, // it could not be made
		}
		if code == nil {
			code = []abitest.Code{abitest.I32(7), abitest.Call(exit)}
		}
		return append(start, code...)
	})
}

func TestExecKeepsWhatAProgramWroteUnlessItTraps(t *testing.T) {
	for _, tc := range []struct {
		name string
		wasm []byte
		kind engine.Kind
		code uint32
		kept bool
	}{
		{"exit code 7", writes(), engine.Exited, 7, true},
		{"trap", writes(abitest.Unreachable), engine.Trapped, 0, false},
		{"endless", writes(abitest.Loop, abitest.Br(0), abitest.End), engine.DeadlineHit, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, stage := t.TempDir(), t.TempDir()
			s, err := fs.Open(fs.Config{Data: dir, Log: filepath.Join(stage, "log"), Tx: filepath.Join(stage, "tx")})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			used, err := host.Exec{Wasm: tc.wasm, CacheDir: cacheDir, Dirs: []host.ExecDir{{Name: "/d", Store: s}},
				Limits: engine.Limits{Wall: 300 * time.Millisecond}}.Run(t.Context())
			var f *engine.Failure
			if !errors.As(err, &f) || f.Kind != tc.kind || f.ExitCode != tc.code {
				t.Errorf("ended with %v", err)
			}
			if used.Entries != 1 || used.Handles != 1 || used.HostCalls == 0 {
				t.Errorf("it used %+v", used)
			}
			_, err = os.Lstat(filepath.Join(dir, "out"))
			if (err == nil) != tc.kept {
				t.Errorf("what it wrote: %v; want it kept: %v", err, tc.kept)
			}
		})
	}
}

func TestExecStdioAndDirs(t *testing.T) {
	count, _ := modules.Get("wordcount")
	data := mem.New(mem.Config{})
	if err := data.Update(t.Context(), func(tx store.Tx) error {
		f, err := tx.Files(nil).Open("/in.txt", store.FlagWrite|store.FlagCreate)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte("one two\nthree\n"), 0)
		return errors.Join(err, f.Close())
	}); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) (string, string, error) {
		var out, errs bytes.Buffer
		_, err := host.Exec{Wasm: count.Wasm, CacheDir: cacheDir, Name: "wordcount", Args: args,
			Dirs:  []host.ExecDir{{Name: "work", Store: data}},
			Stdio: engine.Stdio{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}}.Run(context.Background())
		return out.String(), errs.String(), err
	}
	if out, _, err := run("a b c"); err != nil || !strings.Contains(out, `"words":3`) {
		t.Errorf("stdin: %q, %v", out, err)
	}
	if out, _, err := run("", "/work/in.txt"); err != nil || !strings.Contains(out, `"lines":2,"words":3`) {
		t.Errorf("file: %q, %v", out, err)
	}
	_, errs, err := run("", "/gone")
	var f *engine.Failure
	if !errors.As(err, &f) || f.Kind != engine.Exited || f.ExitCode != 1 || !strings.Contains(errs, "/gone") {
		t.Errorf("absent file: %q, %v", errs, err)
	}
}

func TestExecRefusesWhatIsNoProgram(t *testing.T) {
	book, _ := modules.Get("guestbook")
	for what, tc := range map[string]struct {
		wasm []byte
		says string
	}{
		"reactor":   {book.Wasm, "reactor"},
		"component": {[]byte{0, 'a', 's', 'm', 0x0d, 0, 1, 0}, "component"},
		"text":      {[]byte("(module)"), ""},
	} {
		_, err := host.Exec{Wasm: tc.wasm}.Run(t.Context())
		if !errors.Is(err, engine.ErrInvalid) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
