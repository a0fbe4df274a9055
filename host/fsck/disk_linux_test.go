package fsck_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Disks that are read only, or full, are made in a mount namespace of a child
// process, which needs no privileges.
const childEnv = "FSCK_TEST_DISK"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	os.Args = []string{os.Args[0], "-test.run=^TestOnDisk$", "-test.v"}
	os.Exit(m.Run())
}

// onDisk runs TestOnDisk in a child that may mount.
func onDisk(t *testing.T, kind, dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), childEnv+"="+kind+" "+dir)
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestOnDisk") {
		t.Errorf("on a disk that is %s: %v\n%s", kind, err, out)
	}
}

func TestReadOnlyAndFullDisks(t *testing.T) {
	for _, kind := range []string{"read-only", "full"} {
		dir := t.TempDir()
		for name, p := range map[string]*place{"fs": inDirectory(t, filepath.Join(dir, "fs")), "sqlite": inSQLite(t, filepath.Join(dir, "sqlite"))} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			p.some()
			p.wants(false, 0)
		}
		// A crash's leftovers, and damage.
		if err := os.WriteFile(filepath.Join(dir, "fs/tx/stage/f1"), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
		damage(t, filepath.Join(dir, "fs/data/h"), flip)
		onDisk(t, kind, dir)
	}
}

// TestOnDisk is the child of TestReadOnlyAndFullDisks; by itself it has nothing to
// do.
func TestOnDisk(t *testing.T) {
	kind, dir, ok := strings.Cut(os.Getenv(childEnv), " ")
	if !ok {
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	on := dir
	switch kind {
	case "read-only":
		if err := errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""),
			unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
			t.Fatal(err)
		}
	case "full":
		on = t.TempDir()
		if err := unix.Mount("none", on, "tmpfs", 0, "size=4m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(on, unix.MNT_DETACH) })
		if err := copyAll(on, dir); err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ { // the last of them is short
			if err := os.WriteFile(filepath.Join(on, fmt.Sprint("fill", i)), make([]byte, 64<<10), 0o600); err != nil {
				break
			}
		}
	}
	if err := os.WriteFile(filepath.Join(on, "more"), make([]byte, 64<<10), 0o600); err == nil {
		t.Fatal("the disk takes more")
	}
	p := inDirectory(t, filepath.Join(on, "fs"))
	lines, r := p.check(false)
	if len(lines) != 1 || !strings.Contains(lines[0], "stage 1 files of transactions") || r.Receipts != 3 {
		t.Errorf("found %q, %+v", lines, r)
	}
	lines, _ = p.check(true)
	if len(lines) == 0 || !strings.Contains(lines[0], "1 files of transactions") {
		t.Errorf("found %q", lines)
	}
	if kind == "read-only" && !strings.Contains(strings.Join(lines, "\n"), "could not be opened to mend that") {
		t.Errorf("what could not be mended is not told: %q", lines)
	}
	p = inSQLite(t, filepath.Join(on, "sqlite"))
	if lines, r := p.check(false); len(lines) > 0 || r.Receipts != 3 || r.Files != 5 {
		t.Errorf("sqlite: found %q, %+v", lines, r)
	}
}
