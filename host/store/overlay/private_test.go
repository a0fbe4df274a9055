package overlay_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
)

// otherName is a backend that has a second name for one directory, as some file
// systems do.
type otherName struct {
	overlay.Backend
	name, of string
}

func (b otherName) Lstat(path string) (overlay.Attr, error) {
	if path == b.name {
		path = b.of
	}
	return b.Backend.Lstat(path)
}

// TestPrivateByAnotherName: a name that the file system below takes for the
// host's own directory, and that we did not think of, is known by what it names.
func TestPrivateByAnotherName(t *testing.T) {
	s := mem.NewOn(mem.Config{}, func(b overlay.Backend) overlay.Backend {
		return otherName{b, "CIRCLE~1", store.PrivateName}
	})
	defer s.Close()
	update(t, s, func(tx store.Tx, fs store.FS) { must(t, create(tx.Private(), "f")) })
	update(t, s, func(tx store.Tx, fs store.FS) {
		for _, path := range []string{"CIRCLE~1", "CIRCLE~1/f"} {
			_, err := fs.Stat(path, true)
			want(t, store.ErrNotExist, err)
			_, err = fs.Open(path, store.FlagRead)
			want(t, store.ErrNotExist, err)
		}
		want(t, store.ErrDenied, fs.Mkdir("CIRCLE~1"))
		want(t, store.ErrNotExist, fs.Rename("CIRCLE~1", "mine"))
	})
}

// planted is a backend that shows something that is no directory where the
// host's own should be.
type planted struct {
	overlay.Backend
	kind store.Kind
}

func (b planted) Lstat(path string) (overlay.Attr, error) {
	if path == store.PrivateName {
		return overlay.Attr{Kind: b.kind}, nil
	}
	return b.Backend.Lstat(path)
}

func (b planted) Readlink(string) (string, error) { return "elsewhere", nil }

// TestPrivatePlanted: what is no directory is neither used, followed nor
// replaced, and the script's files work as ever.
func TestPrivatePlanted(t *testing.T) {
	for _, kind := range []store.Kind{store.KindFile, store.KindLink, store.KindOther} {
		s := mem.NewOn(mem.Config{}, func(b overlay.Backend) overlay.Backend { return planted{b, kind} })
		update(t, s, func(tx store.Tx, fs store.FS) {
			must(t, fs.Mkdir("elsewhere"))
			p := tx.Private()
			want(t, store.ErrNotDir, create(p, "f"))
			want(t, store.ErrNotDir, p.Mkdir("d"))
			_, err := p.Stat("/", true)
			want(t, store.ErrNotDir, err)
			_, err = p.Open("f", store.FlagRead)
			want(t, store.ErrNotDir, err)
			must(t, create(fs, "elsewhere/f"))
		})
		s.Close()
	}
}

// TestPrivateCountedApart: a script that has used up its limits leaves the host
// its own, and the host's do not count as the script's.
func TestPrivateCountedApart(t *testing.T) {
	limits := overlay.Limits{StagedBytes: 1000, Entries: 10, OpenFiles: 3, Listed: 20}
	s := mem.New(mem.Config{Limits: limits})
	defer s.Close()
	for name, first := range map[string]bool{"script first": true, "host first": false} {
		stop := fmt.Errorf("stop")
		err := s.Update(context.Background(), func(tx store.Tx) error {
			// fill uses up every limit of one side, and checks that it ends.
			fill := func(fs store.FS) {
				open := make([]store.File, 3)
				for i := range open {
					f, err := fs.Open(fmt.Sprint("f", i), rwc)
					must(t, err)
					open[i] = f
				}
				want(t, store.ErrTooManyOpen, create(fs, "f9"))
				_, err := open[0].WriteAt(bytes.Repeat([]byte("x"), 1000), 0)
				must(t, err)
				_, err = open[0].WriteAt([]byte("y"), 1000)
				want(t, store.ErrQuota, err)
				for _, f := range open {
					must(t, f.Close())
				}
				made := 3
				for err = nil; err == nil; made++ {
					err = fs.Mkdir(fmt.Sprint("d", made))
				}
				want(t, store.ErrQuota, err)
				if made < 9 || made > 11 { // the host's directory itself is one name
					t.Errorf("%s: %d names, want 10", name, made-1)
				}
				for range 2 {
					f, err := fs.Open("/", store.FlagRead)
					must(t, err)
					list, err := f.ReadDir(0, 100)
					must(t, err)
					if len(list) < 9 {
						t.Errorf("%s: listed %d", name, len(list))
					}
				}
				f, err := fs.Open("/", store.FlagRead)
				must(t, err)
				_, err = f.ReadDir(0, 100)
				want(t, store.ErrQuota, err)
			}
			sides := []store.FS{tx.Files(nil), tx.Private()}
			if !first {
				sides[0], sides[1] = sides[1], sides[0]
			}
			fill(sides[0])
			fill(sides[1])
			return stop
		})
		want(t, stop, err)
	}
}
