package fs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
)

// device makes a character device, if it may.
func device(path string) bool {
	return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) == nil
}

// asOwner runs f without root's power over files, in a context that is its own.
func asOwner(t *testing.T, c Config, f func()) {
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	dir := filepath.Dir(c.Data)
	for p := dir; p != "/" && p != "/dev/shm"; p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o755))
		if filepath.Dir(p) == os.TempDir() {
			break
		}
	}
	must(t, os.Chown(dir, nobody, nobody))
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, err := unix.SetfsuidRetUid(nobody); err != nil {
			t.Errorf("set file system user: %v", err)
			return
		}
		f()
	}()
	<-done
}

// TestOwnerForbids: a directory that its owner made read-only, or a file that
// they made immutable, refuses the commit. Found out only when it is applied, it
// would leave a commit that can be neither finished nor forgotten.
func TestOwnerForbids(t *testing.T) {
	c := memoryConfig(t)
	asOwner(t, c, func() {
		s, err := Open(c)
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		try := func(f func(fs store.FS) error) error {
			return s.Update(context.Background(), func(tx store.Tx) error { return f(tx.Files(nil)) })
		}
		if err := try(func(fs store.FS) error {
			return first(fs.Mkdir("d"), write(fs, "d/f", "x"), fs.Mkdir("d/sub"), write(fs, "f", "x"), fs.Mkdir("m"), fs.Mkdir("m/sub"))
		}); err != nil {
			t.Error(err)
			return
		}
		for _, dir := range []string{"d", "m/sub"} {
			if err := os.Chmod(filepath.Join(c.Data, dir), 0o555); err != nil {
				t.Error(err)
			}
		}
		for name, f := range map[string]func(fs store.FS) error{
			"create":             func(fs store.FS) error { return write(fs, "d/new", "x") },
			"edit":               func(fs store.FS) error { return write(fs, "d/f", "y") },
			"remove":             func(fs store.FS) error { return fs.Unlink("d/f") },
			"rmdir":              func(fs store.FS) error { return fs.Rmdir("d/sub") },
			"mkdir":              func(fs store.FS) error { return fs.Mkdir("d/new") },
			"link":               func(fs store.FS) error { return fs.Symlink("f", "d/l") },
			"move in":            func(fs store.FS) error { return fs.Rename("f", "d/g") },
			"move out":           func(fs store.FS) error { return fs.Rename("d/f", "g") },
			"move the directory": func(fs store.FS) error { return fs.Rename("m/sub", "sub") },
			"below a moved one":  func(fs store.FS) error { return first(fs.Rename("m", "n"), fs.Mkdir("n/sub/new")) },
		} {
			if err := try(f); !errors.Is(err, store.ErrDenied) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := try(func(fs store.FS) error { return write(fs, "f", "goes on") }); err != nil {
			t.Errorf("after that: %v", err)
		}
	})
}

func TestImmutable(t *testing.T) {
	c := config(t)
	s := mustOpen(t, c)
	update(t, s, func(fs store.FS) error { return first(write(fs, "f", "x"), fs.Mkdir("d"), write(fs, "d/f", "x")) })
	for _, name := range []string{"f", "d"} {
		f, err := os.Open(filepath.Join(c.Data, name))
		must(t, err)
		defer f.Close()
		const immutableFlag = 0x10
		if unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutableFlag) != nil {
			return // not root, or a file system without
		}
		defer unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
	}
	for name, f := range map[string]func(fs store.FS) error{
		"edit":      func(fs store.FS) error { return write(fs, "f", "y") },
		"remove":    func(fs store.FS) error { return fs.Unlink("f") },
		"move":      func(fs store.FS) error { return fs.Rename("f", "g") },
		"times":     func(fs store.FS) error { return fs.SetTimes("f", true, old, old) },
		"directory": func(fs store.FS) error { return write(fs, "d/new", "y") },
		"move it":   func(fs store.FS) error { return fs.Rename("d", "e") },
	} {
		err := s.Update(context.Background(), func(tx store.Tx) error { return f(tx.Files(nil)) })
		if !errors.Is(err, store.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	update(t, s, func(fs store.FS) error { return write(fs, "g", "goes on") })
}

// TestStrangeNames: a name that the file system does not take refuses the commit
// before it is decided. (Here it is one that is taken already where names are
// tried; a file system that takes fewer than ext4 is not at hand.)
func TestStrangeNames(t *testing.T) {
	c := memoryConfig(t)
	b, err := open(c, hooks{})
	must(t, err)
	defer b.Close()
	must(t, os.Mkdir(filepath.Join(c.Tx, "names", "bad"), 0o700))
	if err := b.tryName("dir/bad"); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "/dir/bad") {
		t.Errorf("bad name: %v", err)
	}
	must(t, b.tryName("dir/good"))
	left, err := os.ReadDir(filepath.Join(c.Tx, "names"))
	if err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}
