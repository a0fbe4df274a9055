//go:build unix

package peer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReadKeyFileRefusesWiderModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "it's a key")
	if err := WriteKeyFile(path, key(t, 1)); err != nil {
		t.Fatal(err)
	}
	for mode := os.FileMode(0); mode <= 0o777; mode++ {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := ReadKeyFile(path)
		if mode&^0o600 != 0 {
			// The exact command, with the name as a shell takes it.
			if err == nil || !strings.Contains(err.Error(), `chmod 600 '`) || !strings.Contains(err.Error(), `it'\''s a key'`) {
				if mode&0o400 == 0 && os.Geteuid() != 0 {
					continue // cannot be opened to begin with
				}
				t.Fatalf("mode %#o: %v", mode, err)
			}
		} else if err != nil && mode&0o400 != 0 {
			t.Fatalf("mode %#o: %v", mode, err)
		}
	}
}

func TestWriteKeyFileIgnoresUmask(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := filepath.Join(t.TempDir(), "k")
	if err := WriteKeyFile(path, key(t, 1)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A link could lead to a file that somebody else chose, a FIFO could hold the
// host up for good, a directory or device is no key.
func TestKeyFileKinds(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := WriteKeyFile(good, key(t, 1)); err != nil {
		t.Fatal(err)
	}
	link, dangling, fifo, sub := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "fifo"), filepath.Join(dir, "sub")
	for _, err := range []error{
		os.Symlink(good, link), os.Symlink(filepath.Join(dir, "nowhere"), dangling),
		unix.Mkfifo(fifo, 0o600), os.Mkdir(sub, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{link, dangling, fifo, sub, "/dev/null", filepath.Join(dir, "absent")} {
		done := make(chan error, 1)
		go func() { _, err := ReadKeyFile(path); done <- err }()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s is taken", path)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s holds ReadKeyFile up", path)
		}
	}
	if _, err := ReadKeyFile(link); !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("%v does not say why", err)
	}
	if err := WriteKeyFile(dangling, key(t, 2)); err == nil {
		t.Error("a key was written through a dangling link")
	}
	if _, err := os.Lstat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("the link's target was made")
	}
}

// Only root can give files away; then a foreign file is refused with the remedy.
func TestReadKeyFileRefusesForeignOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	if err := WriteKeyFile(path, key(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 12345, -1); err != nil {
		return // not root: the kernel refuses to make the case
	}
	if _, err := ReadKeyFile(path); err == nil || !strings.Contains(err.Error(), "chown ") {
		t.Errorf("a file of another user: %v", err)
	}
}
