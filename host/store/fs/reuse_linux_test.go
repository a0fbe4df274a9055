package fs

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// TestReplacedFileIsUsedAgain: what a commit has replaced holds another's content
// later, unless that could be seen by somebody: who has it open or mapped, has
// another name for it, or gave it an attribute. And never before its record is
// settled.
func TestReplacedFileIsUsedAgain(t *testing.T) {
	for _, dir := range []func(t testing.TB) Config{memoryConfig, config} {
		c := dir(t)
		b, err := open(c, hooks{age: time.Millisecond})
		must(t, err)
		s := overlay.New(b, overlay.Config{})
		f := filepath.Join(c.Data, "f")
		inode := func(path string) uint64 {
			t.Helper()
			var st unix.Stat_t
			must(t, unix.Stat(path, &st))
			return st.Ino
		}
		settled := func() {
			t.Helper()
			deadline := time.Now().Add(20 * time.Second)
			for {
				b.session.mu.Lock()
				done := b.session.settled == b.session.applied
				b.session.mu.Unlock()
				if done {
					return
				}
				if time.Now().After(deadline) {
					t.Fatal("the journal is not drained")
				}
				time.Sleep(time.Millisecond)
			}
		}
		long := strings.Repeat("long ", 1000)
		must(t, set(s, "f", long))
		was := inode(f)
		must(t, set(s, "f", "two")) // takes the place of the first
		settled()
		must(t, set(s, "g", "g"))
		if got := inode(filepath.Join(c.Data, "g")); b.reused != 1 || got != was {
			t.Fatalf("%d used again; g is inode %d, f was %d", b.reused, got, was)
		}
		for name, content := range map[string]string{"f": "two", "g": "g"} {
			if got, err := os.ReadFile(filepath.Join(c.Data, name)); err != nil || string(got) != content {
				t.Fatalf("%s is %.20q, %v", name, got, err)
			}
		}
		if info, err := os.Stat(filepath.Join(c.Data, "g")); err != nil || info.Mode() != modeOfNew(t, c) {
			t.Errorf("%v, %v; want the mode of a new file", info.Mode(), err)
		}

		// What somebody could see.
		other := filepath.Join(filepath.Dir(c.Data), "other")
		for name, hold := range map[string]func() (still func() string){
			"open": func() func() string {
				r, err := os.Open(f)
				must(t, err)
				return func() string { defer r.Close(); got, _ := io.ReadAll(r); return string(got) }
			},
			"mapped": func() func() string {
				r, err := os.Open(f)
				must(t, err)
				m, err := unix.Mmap(int(r.Fd()), 0, len(long), unix.PROT_READ, unix.MAP_SHARED)
				must(t, err)
				r.Close()
				return func() string { defer unix.Munmap(m); return string(m) }
			},
			"linked": func() func() string {
				must(t, os.Link(f, other))
				return func() string { defer os.Remove(other); got, _ := os.ReadFile(other); return string(got) }
			},
		} {
			must(t, set(s, "f", long))
			settled()
			still, before := hold(), b.reused
			must(t, set(s, "f", "replaced"))
			settled()
			for i := range 3 { // more than there may be spare
				must(t, set(s, "h", strings.Repeat("h", 1+i)))
				settled()
			}
			if got := still(); got != long {
				t.Errorf("%s: whoever read the file sees another: %.20q", name, got)
			}
			if b.reused == before {
				t.Errorf("%s: nothing was used again, so this tests nothing", name)
			}
		}
		if err := unix.Setxattr(f, "user.mine", []byte("x"), 0); err == nil {
			must(t, set(s, "f", "unmarked"))
			settled()
			for range 3 {
				must(t, set(s, "i", time.Now().String()))
				if n, err := unix.Getxattr(filepath.Join(c.Data, "i"), "user.mine", make([]byte, 9)); err == nil {
					t.Errorf("a file took over another's attribute, of %d bytes", n)
				}
				settled()
			}
		} else {
			t.Logf("no attributes: %v", err)
		}
		must(t, s.Close())
		if left, err := os.ReadDir(filepath.Join(c.Tx, "stage")); err != nil || len(left) > 0 {
			t.Errorf("left in staging: %v, %v", left, err)
		}
	}
}

func modeOfNew(t *testing.T, c Config) os.FileMode {
	t.Helper()
	f, err := os.Create(filepath.Join(filepath.Dir(c.Data), "new"))
	must(t, err)
	defer os.Remove(f.Name())
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	return info.Mode()
}

// TestUnsettledFileIsNotUsedAgain: until then some state of the disk has it in its
// place.
func TestUnsettledFileIsNotUsedAgain(t *testing.T) {
	b, err := open(memoryConfig(t), hooks{age: time.Hour})
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	for i := range 20 {
		must(t, set(s, "f", strings.Repeat("x", i)))
	}
	if b.reused > 0 || len(b.session.spare) == 0 {
		t.Errorf("%d were used again, %d are kept", b.reused, len(b.session.spare))
	}
	must(t, s.Close())
}

// TestSmallFilesTakeBoundedMemory: what is in memory of a transaction's files is
// no more than the journal takes, and nothing when it has ended.
func TestSmallFilesTakeBoundedMemory(t *testing.T) {
	b, err := open(memoryConfig(t), hooks{})
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	defer s.Close()
	most := int64(0)
	names := make([]string, 60)
	for i := range names {
		names[i] = string(rune('0' + i))
	}
	writeAll := func(end error) error {
		return s.Update(t.Context(), func(tx store.Tx) error {
			for _, name := range names {
				must(t, write(tx.Files(nil), name, strings.Repeat("x", 40<<10)))
				most = max(most, b.held)
			}
			return end
		})
	}
	if err := writeAll(io.EOF); err != io.EOF || b.held != 0 {
		t.Errorf("%v; %d bytes are held after a transaction that was dropped", err, b.held)
	}
	if err := writeAll(nil); err != nil || most < heldTotal/2 || most > heldTotal || b.held != 0 {
		t.Errorf("%v; %d bytes held, at most %d, and %d afterwards", err, most, heldTotal, b.held)
	}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(filepath.Dir(b.txPath), "data", name)); err != nil || info.Size() != 40<<10 {
			t.Fatalf("%v, %v", info, err)
		}
	}
}
