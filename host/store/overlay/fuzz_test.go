package overlay_test

import (
	"context"
	"path"
	"testing"
	"unicode/utf8"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
)

// FuzzPath: whatever a guest writes for a path, and for a link on its way, the
// guard is asked about clean absolute paths below the root and nothing else.
func FuzzPath(f *testing.F) {
	for _, seed := range [][2]string{
		{"d/l/../x", "../d"}, {"/../..", "."}, {"l//l/", "l"}, {"d/l", "/etc"}, {"a\x00", "\xff"}, {"d/./l/f", "./../d/./"}, {"...", "...."},
	} {
		f.Add(seed[0], seed[1])
	}
	s := mem.New(mem.Config{Limits: overlay.Limits{Moved: 100}})
	update(f, s, func(_ store.Tx, fs store.FS) {
		must(f, fs.Mkdir("d"))
		must(f, create(fs, "d/f"))
	})
	f.Fuzz(func(t *testing.T, p, target string) {
		s.Update(context.Background(), func(tx store.Tx) error {
			fs := tx.Files(guardFunc(func(_ store.Op, p string) error {
				if p == "" || p[0] != '/' || path.Clean(p) != p || !utf8.ValidString(p) || len(p) > 4200 {
					t.Errorf("asked about %q", p)
				}
				return nil
			}))
			fs.Symlink(target, "l")
			fs.Symlink(target, "d/l")
			fs.Stat(p, true)
			fs.Stat(p, false)
			fs.Mkdir(p)
			fs.Rename("d", p)
			fs.Rename(p, "x")
			if f, err := fs.Open(p, rwc); err == nil {
				f.WriteAt([]byte("x"), 0)
				f.Close()
			}
			fs.Unlink(p)
			fs.Rmdir(p)
			_, err := tx.Changes()
			return err
		})
	})
}
