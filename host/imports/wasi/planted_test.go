//go:build linux || darwin || freebsd

package wasi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
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

func TestProcLinksLeftInTheDirectory(t *testing.T) {
	w, data, outside := planted(t)
	open, err := os.Open(filepath.Join(outside, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	var steps []step
	for link, target := range map[string]string{
		"root": "/proc/self/root", "cwd": "/proc/self/cwd", "thread": "/proc/thread-self/root/etc",
		"fd": fmt.Sprintf("/proc/self/fd/%d", open.Fd()), "fds": "/dev/fd", "up": "../../../../../../proc/self/root",
	} {
		if err := os.Symlink(target, filepath.Join(data, link)); err != nil {
			t.Fatal(err)
		}
		steps = append(steps,
			do("open", "r", link).is("NOTCAPABLE"), do("open", "rd", link).is("NOTCAPABLE"), do("open", "w", link).is("NOTCAPABLE"),
			do("open", "r", link+"/etc/passwd").is("NOTCAPABLE"), do("stat", link).is("NOTCAPABLE"), do("open", "rn", link).is("LOOP"))
	}
	// And those that a guest would make.
	steps = append(steps, do("symlink", "/proc/self/root", "own").is("NOTCAPABLE"), do("symlink", "../proc/self/root", "own").is("NOTCAPABLE"))
	w.steps(t, steps...)
}

// A hard link is no link that anything could see: what it shows is read, and what
// is written goes to a file of the context's own. A guest can make none.
func TestHardLinkToTheOutside(t *testing.T) {
	w, data, outside := planted(t)
	if err := os.Link(filepath.Join(outside, "f"), filepath.Join(data, "planted")); err != nil {
		t.Fatal(err)
	}
	w.steps(t,
		do("link", "../outside/f", "own").is("NOTSUP"), do("link", "/outside/f", "own").is("NOTCAPABLE"), do("lstat", "own").is("NOENT"),
		do("f=", "open", "rw", "planted"), do("read", "f", "9").is("OK outside"), do("pwrite", "f", "changed", "0").is("OK 7"), do("utimes", "planted", "1", "1", "5"),
	)
	for file, want := range map[string]string{filepath.Join(data, "planted"): "changed", filepath.Join(outside, "f"): "outside"} {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", file, got, err, want)
		}
	}
	if info, err := os.Stat(filepath.Join(outside, "f")); err != nil || info.ModTime().Before(time.Now().Add(-time.Hour)) {
		t.Errorf("the file outside: %v, %v", info, err)
	}
}

// The numbers of inodes and devices would tell a guest of the host's disks, and
// whether two contexts share one.
func TestInodeNumbersAreNotTheHosts(t *testing.T) {
	ids := func() []string {
		w, data, _ := planted(t)
		names := []string{"f", "d", "d/g"}
		write(t, filepath.Join(data, "f"), "x")
		if err := os.Mkdir(filepath.Join(data, "d"), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(data, "d/g"), "x")
		params := ""
		for _, name := range names {
			params += fmt.Sprintf("\"ids\"\t%q\n", name)
		}
		out, _, err := w.run(t, engine.Call{Params: []byte(params)})
		if err != nil {
			t.Fatal(err)
		}
		shown := strings.Split(strings.TrimSpace(string(out.Result)), "\n")
		for i, name := range names {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(data, name), &st); err != nil {
				t.Fatal(err)
			}
			var device, inode uint64
			if n, err := fmt.Sscanf(shown[i], "0\t\"%d %d\"", &device, &inode); n != 2 || err != nil {
				t.Fatalf("%s: %q", name, shown[i])
			}
			if device == uint64(st.Dev) || inode == st.Ino {
				t.Errorf("%s shows device %d and inode %d, which are %d and %d on the host", name, device, inode, st.Dev, st.Ino)
			}
		}
		return shown
	}
	// They are of the path alone, the same wherever a context is kept.
	if a, b := ids(), ids(); !slices.Equal(a, b) {
		t.Errorf("%q in one place and %q in another", a, b)
	}
}

// One script makes and moves links while others read: nobody sees outside.
func TestLinksSwappedByAnotherScript(t *testing.T) {
	w, data, outside := planted(t)
	if err := os.MkdirAll(filepath.Join(data, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(data, "d/f"), "inside")
	var wait sync.WaitGroup
	defer wait.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait.Go(func() {
		writer := &world{store: w.store, ctx: ctx}
		for swaps := 0; ctx.Err() == nil; swaps++ {
			_, _, err := writer.run(t, engine.Call{Args: []string{"swap", strconv.Itoa(swaps)}})
			var failed *engine.Failure
			if errors.As(err, &failed) && failed.Kind != engine.Cancelled {
				t.Errorf("swap %d: %v: %s", swaps, err, failed.Log)
				return
			}
		}
	})
	for range 2 {
		wait.Go(func() {
			reader := &world{store: w.store, view: true}
			for range 30 {
				_, _, err := reader.run(t, engine.Call{Args: []string{"watch"}})
				if err != nil {
					t.Errorf("a reader: %v", err)
				}
			}
			cancel()
		})
	}
	wait.Wait()
	if got, err := os.ReadFile(filepath.Join(outside, "f")); err != nil || string(got) != "outside" {
		t.Errorf("the file outside is %q, %v", got, err)
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
