//go:build linux || darwin || freebsd

package wasi

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/store/fs"
)

// planted is a context on a real directory, with a file of someone else's
// beside it.
func planted(t *testing.T) (w *world, data, outside string) {
	t.Helper()
	root := t.TempDir()
	data, outside = filepath.Join(root, "data"), filepath.Join(root, "outside")
	for _, d := range []string{data, outside} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(outside, "f"), "outside")
	s, err := fs.Open(fs.Config{Data: data, Log: filepath.Join(root, "log"), Tx: filepath.Join(root, "tx")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &world{store: s}, data, outside
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSpecialFilesLeftInTheDirectory(t *testing.T) {
	w, data, _ := planted(t)
	if err := unix.Mkfifo(filepath.Join(data, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Bound by a relative path, as a socket's must be short.
	t.Chdir(data)
	l, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	steps := []step{}
	special := []string{"fifo", "socket"}
	if runtime.GOOS == "linux" && unix.Mknod(filepath.Join(data, "zero"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) == nil {
		special = append(special, "zero") // only root can make one
	}
	for _, name := range special {
		steps = append(steps,
			do("open", "r", name).is("PERM"), // a FIFO would block a thread for good
			do("open", "w", name).is("PERM"),
			do("open", "rwct", name).is("PERM"),
			do("open", "rd", name).is("PERM"),
			do("lstat", name).is("OK 0 *"),
			do("open", "r", name+"/x").is("NOTDIR"),
		)
	}
	w.steps(t, steps...)
}

func TestLinkPlantedByTheHost(t *testing.T) {
	w, data, outside := planted(t)
	for link, target := range map[string]string{
		"absolute":  filepath.Join(outside, "f"),
		"relative":  "../outside/f",
		"directory": "../outside",
		"chained":   "directory/f",
		"up":        "..",
		"proc":      "/proc/self/root",
	} {
		if err := os.Symlink(target, filepath.Join(data, link)); err != nil {
			t.Fatal(err)
		}
	}
	w.steps(t,
		do("open", "r", "absolute").is("NOTCAPABLE"),
		do("open", "r", "relative").is("NOTCAPABLE"),
		do("open", "w", "relative").is("NOTCAPABLE"),
		do("open", "rd", "directory").is("NOTCAPABLE"),
		do("open", "r", "directory/f").is("NOTCAPABLE"),
		do("open", "cw", "directory/new").is("NOTCAPABLE"),
		do("open", "r", "chained").is("NOTCAPABLE"),
		do("open", "rd", "up").is("NOTCAPABLE"),
		do("open", "r", "proc/etc/passwd").is("NOTCAPABLE"),
		do("stat", "up").is("NOTCAPABLE"),
		do("utimes", "relative", "1", "1", "5").is("NOTCAPABLE"),
		do("rename", "absolute", "directory/moved").is("NOTCAPABLE"),
		do("open", "rn", "absolute").is("LOOP"),
		do("lstat", "absolute").is("OK 7 *"),
		do("unlink", "directory/f").is("NOTCAPABLE"),
		do("unlink", "relative"), // the link itself
	)
	if _, err := os.Stat(filepath.Join(outside, "f")); err != nil {
		t.Error(err)
	}
}

// The owner, or a tool that runs amok, swaps a directory for a link to
// elsewhere and back while guests read below it.
func TestDirectorySwappedForALink(t *testing.T) {
	w, data, outside := planted(t)
	real, link, name := filepath.Join(data, "real"), filepath.Join(data, "link"), filepath.Join(data, "d")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(real, "f"), "inside")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			for _, from := range []string{real, link} {
				if os.Rename(from, name) == nil {
					os.Rename(name, from)
				}
			}
		}
	}()
	defer func() { stop.Store(true); <-done }()
	w.view = true
	for range 50 {
		// That a directory turned into a link under the store's hands may fail
		// the transaction; what must not be is that the guest saw through it.
		_, _, err := w.run(t, engine.Call{Args: []string{"watch"}})
		var failed *engine.Failure
		if errors.As(err, &failed) {
			t.Fatalf("%v: %s", err, failed.Log)
		}
	}
}

func TestOrdinaryProgramOnARealDirectory(t *testing.T) {
	w, data, _ := planted(t)
	w.limits.Wall = time.Minute
	if _, _, err := w.run(t, engine.Call{Args: []string{"ordinary"}}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(data, "notes/link"))
	if err != nil || string(got) != "first second" {
		t.Errorf("on disk is %q, %v", got, err)
	}
	info, err := os.Stat(filepath.Join(data, "notes/old/b.txt"))
	if err != nil || !info.ModTime().Equal(time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)) {
		t.Errorf("on disk is %v, %v", info, err)
	}
}
