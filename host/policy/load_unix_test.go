//go:build unix

package policy

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What else may lie in a policy directory must not hang, leak or be skipped: a
// file that is not read may hold forbids.
func TestLoadReadsRegularFilesOfItsDirectoryOnly(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "shadow")
	put(t, secret, "root:secret:1:::")
	tests := []struct {
		name string
		make func(path string) error
		want string
	}{
		{"pipe", func(p string) error { return syscall.Mkfifo(p, 0o600) }, "x.cedar: is not a regular file"},
		{"directory", func(p string) error { return os.Mkdir(p, 0o700) }, "x.cedar: is not a regular file"},
		{"link out", func(p string) error { return os.Symlink(secret, p) }, "escapes"},
		{"link up", func(p string) error { return os.Symlink("../x", p) }, "escapes"},
		{"link to nothing", func(p string) error { return os.Symlink("nothing", p) }, "no such file"},
		{"link to itself", func(p string) error { return os.Symlink("x.cedar", p) }, "x.cedar"},
		{"link to a device", func(p string) error { return os.Symlink("/dev/zero", p) }, "escapes"},
		{"sparse", func(p string) error {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(p, 1<<40)
		}, "is larger than 1024 KiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, dir+"/a.cedar", `permit(principal, action, resource);`)
			if err := tt.make(dir + "/x.cedar"); err != nil {
				t.Fatal(err)
			}
			s, err := Load(dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v, %v, want %s", s, err, tt.want)
			}
		})
	}
}

// A pipe in the directory's place must not hang who opens it.
func TestLoadReadsADirectoryOnly(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "policy")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Load(pipe); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("%v, %v", s, err)
	}
	if all, err := ReadTests(pipe); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("%v, %v", all, err)
	}
}

// A link within the directory is how configuration is mounted in containers.
func TestLoadFollowsLinksWithin(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/..2026/x.cedar", `permit(principal, action, resource);`)
	for link, to := range map[string]string{"..data": "..2026", "x.cedar": "..data/x.cedar"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := Load(dir); err != nil || s.Len() != 1 {
		t.Error(err)
	}
}
