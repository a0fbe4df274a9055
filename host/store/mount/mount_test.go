package mount_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/mount"
)

// joined calls f with a root, and other file systems at /data and /data/deep.
func joined(t *testing.T, f func(*mount.FS)) {
	t.Helper()
	in := func(f func(store.FS)) {
		if err := mem.New(mem.Config{}).Update(t.Context(), func(tx store.Tx) error { f(tx.Files(nil)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	in(func(root store.FS) {
		in(func(data store.FS) {
			in(func(deep store.FS) {
				m := mount.New(root)
				for at, fs := range map[string]store.FS{"data": data, "/data/deep/": deep} {
					// In either order: the way to the deeper one is the root's.
					if err := m.Mount(at, fs); err != nil {
						t.Fatal(err)
					}
				}
				put(t, root, "/root.txt")
				put(t, data, "/d.txt")
				put(t, deep, "/e.txt")
				f(m)
			})
		})
	})
}

func put(t *testing.T, fs store.FS, path string) {
	t.Helper()
	f, err := fs.Open(path, store.FlagWrite|store.FlagCreate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(path), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, fs store.FS, path string) (names []string) {
	t.Helper()
	f, err := fs.Open(path, store.FlagRead|store.FlagDirectory)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	entries, err := f.ReadDir(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

func TestPathsLeadToTheirFileSystem(t *testing.T) {
	joined(t, func(m *mount.FS) {
		for path, want := range map[string]string{
			"/root.txt": "/root.txt", "root.txt": "/root.txt", "/data/d.txt": "/d.txt", "data//d.txt": "/d.txt",
			"/data/deep/e.txt": "/e.txt", "/data/../root.txt": "/root.txt",
		} {
			f, err := m.Open(path, store.FlagRead)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			b := make([]byte, len(want))
			if _, err := f.ReadAt(b, 0); err != nil || string(b) != want {
				t.Errorf("%s: %q, %v", path, b, err)
			}
			f.Close()
		}
		for _, path := range []string{"/d.txt", "/database", "/data/deep2", "/e.txt"} {
			if _, err := m.Stat(path, true); !errors.Is(err, store.ErrNotExist) {
				t.Errorf("%s: %v", path, err)
			}
		}
		if got := list(t, m, "/"); !slices.Equal(got, []string{"data", "root.txt"}) {
			t.Errorf("root: %v", got)
		}
		if got := list(t, m, "/data"); !slices.Equal(got, []string{"d.txt"}) {
			t.Errorf("data: %v", got)
		}
		if got := list(t, m, "/data/deep"); !slices.Equal(got, []string{"e.txt"}) {
			t.Errorf("deep: %v", got)
		}
	})
}

func TestMountPointsStay(t *testing.T) {
	joined(t, func(m *mount.FS) {
		for what, err := range map[string]error{
			"rmdir of a mount":         m.Rmdir("/data/deep"),
			"rmdir above a mount":      m.Rmdir("/data"),
			"rename of a mount":        m.Rename("/data", "/elsewhere"),
			"rename onto a mount":      m.Rename("/root.txt", "/data"),
			"rename between two":       m.Rename("/root.txt", "/data/root.txt"),
			"unlink of a mount":        m.Unlink("/data"),
			"mkdir on a mount":         m.Mkdir("/data"),
			"link on a mount":          m.Symlink("root.txt", "/data"),
			"a link from one to other": open(m, "/data/out"),
		} {
			if err == nil {
				t.Errorf("%s was done", what)
			}
		}
		if err := m.Rename("/data/d.txt", "/data/d2.txt"); err != nil {
			t.Errorf("rename within one: %v", err)
		}
		if err := m.Symlink("../root.txt", "/data/out"); err == nil {
			if err := open(m, "/data/out"); !errors.Is(err, store.ErrEscapes) {
				t.Errorf("a link led from one file system into another: %v", err)
			}
		}
	})
}

func open(m *mount.FS, path string) error {
	f, err := m.Open(path, store.FlagRead)
	if err == nil {
		f.Close()
	}
	return err
}

func TestInodesDiffer(t *testing.T) {
	joined(t, func(m *mount.FS) {
		seen := map[uint64]string{}
		for _, path := range []string{"/", "/root.txt", "/data", "/data/d.txt", "/data/deep", "/data/deep/e.txt"} {
			info, err := m.Stat(path, true)
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := seen[info.Inode]; ok {
				t.Errorf("%s and %s are both %d", path, other, info.Inode)
			}
			seen[info.Inode] = path
		}
	})
}
