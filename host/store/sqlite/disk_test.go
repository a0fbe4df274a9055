package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// disk lies between SQLite and the file system. It knows what of each file a
// power cut would leave, and can make any write or sync fail.
type disk struct {
	vfs.VFSFilename
	fault func(op, path string) error

	mu    sync.Mutex
	files map[string]*image
	syncs int
}

// image is a file as it was at its last sync, and what was done to it since.
type image struct {
	durable []byte
	pending []func([]byte) []byte
}

// newDisk registers a disk and returns it with its name.
func newDisk(t *testing.T) (*disk, hooks) {
	name := t.Name()
	d := &disk{VFSFilename: vfs.Find("").(vfs.VFSFilename), files: map[string]*image{}, fault: func(string, string) error { return nil }}
	vfs.Register(name, d)
	t.Cleanup(func() { vfs.Unregister(name) })
	return d, hooks{vfs: name}
}

func (d *disk) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := d.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, 0, err
	}
	path := name.String()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[path] == nil {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, 0, err
		}
		d.files[path] = &image{durable: content}
	}
	return &diskFile{f.(vfs.FileSharedMemory), d, path}, out, nil
}

func (d *disk) Delete(path string, syncDir bool) error {
	if err := d.fault("delete", path); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.files, path)
	d.mu.Unlock()
	return d.VFSFilename.Delete(path, syncDir)
}

type diskFile struct {
	vfs.FileSharedMemory
	d    *disk
	path string
}

// change does something to the file, and remembers it until the next sync.
func (f *diskFile) change(op string, do func() error, then func([]byte) []byte) error {
	if err := f.d.fault(op, f.path); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if i := f.d.files[f.path]; i != nil {
		i.pending = append(i.pending, then)
	}
	return nil
}

func (f *diskFile) WriteAt(p []byte, off int64) (n int, err error) {
	data := slices.Clone(p)
	err = f.change("write", func() error {
		n, err = f.FileSharedMemory.WriteAt(p, off)
		return err
	}, func(b []byte) []byte {
		if end := off + int64(len(data)); end > int64(len(b)) {
			b = append(b, make([]byte, end-int64(len(b)))...)
		}
		copy(b[off:], data)
		return b
	})
	return n, err
}

func (f *diskFile) Truncate(size int64) error {
	return f.change("truncate", func() error { return f.FileSharedMemory.Truncate(size) }, func(b []byte) []byte {
		return append(b, make([]byte, max(0, size-int64(len(b))))...)[:size]
	})
}

func (f *diskFile) Sync(flags vfs.SyncFlag) error {
	if err := f.d.fault("sync", f.path); err != nil {
		return err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.syncs++
	if i := f.d.files[f.path]; i != nil {
		for _, change := range i.pending {
			i.durable = change(i.durable)
		}
		i.pending = nil
	}
	return nil // the real disk need not be waited for
}

// left writes what a power cut leaves into a directory: of each file what was
// synced, and any of what was done since.
func (d *disk) left(t *testing.T, dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, i := range d.files {
		b := slices.Clone(i.durable)
		for _, change := range i.pending {
			if rand.IntN(2) == 0 {
				b = change(b)
			}
		}
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o600))
	}
}

// TestPowerCut cuts the power at random writes and syncs: what was acknowledged
// is there, though nothing is left but what was synced and any part of the rest.
func TestPowerCut(t *testing.T) {
	root := filepath.Dir(memoryConfig(t).Path)
	c := Config{Path: filepath.Join(root, "context.db")}
	must(t, mustOpen(t, c).Close())
	acked := 0
	for round := range 25 {
		d, h := newDisk(t)
		ops, at, off := 0, 1+rand.IntN(400), errors.New("the power is off")
		d.fault = func(string, string) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if ops++; ops >= at {
				return off
			}
			return nil
		}
		before := acked
		if b, err := open(c, h); err == nil {
			s := overlay.New(b, overlay.Config{})
			for err == nil {
				if err = commitState(s, acked+1); err == nil {
					acked++
				}
			}
			s.Close()
		}
		dir := filepath.Join(root, fmt.Sprint(round))
		must(t, os.Mkdir(dir, 0o700))
		d.left(t, dir)
		c.Path = filepath.Join(dir, "context.db")
		n := consistent(t, c)
		if n != acked && n != acked+1 {
			t.Fatalf("round %d, cut at %d: state %d, acknowledged %d (%d before)", round, at, n, acked, before)
		}
		acked = n
	}
	if acked < 12 {
		t.Errorf("only %d commits: the test tests little", acked)
	}
}

// TestCommitSyncFails: when nobody can say whether a commit is on the disk, the
// store says so and does nothing more; opened again, it knows.
func TestCommitSyncFails(t *testing.T) {
	c := memoryConfig(t)
	d, h := newDisk(t)
	b, err := open(c, h)
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	must(t, commitState(s, 1))
	bad := errors.New("the disk is broken")
	d.fault = func(op, path string) error {
		if op == "sync" {
			return bad
		}
		return nil
	}
	if err := commitState(s, 2); !errors.Is(err, overlay.ErrBroken) {
		t.Fatalf("commit that could not be synced: %v", err)
	}
	d.fault = func(string, string) error { return nil }
	for name, do := range map[string]func(context.Context, func(store.Tx) error) error{"update": s.Update, "view": s.View} {
		if err := do(context.Background(), func(tx store.Tx) error { return tx.Append(keyOf(9), nil) }); !errors.Is(err, overlay.ErrBroken) {
			t.Errorf("%s after that: %v", name, err)
		}
	}
	if err := b.appendOnly([]overlay.Record{{Key: keyOf(9)}}); !errors.Is(err, overlay.ErrBroken) {
		t.Errorf("view that had begun before: %v", err)
	}
	s.Close()
	if n := consistent(t, c); n != 1 && n != 2 {
		t.Errorf("opened again, it has state %d", n)
	}
}

// TestDiskFull: a commit for which there is no room leaves nothing, says what to
// do, and the next one that fits succeeds.
func TestDiskFull(t *testing.T) {
	c := memoryConfig(t)
	d, h := newDisk(t)
	b, err := open(c, h)
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	defer s.Close()
	must(t, commitState(s, 1))
	for at := range 30 {
		left := at
		d.fault = func(op, path string) error {
			if op == "write" && strings.HasSuffix(path, "-wal") {
				if left--; left < 0 {
					return sqlite3.FULL
				}
			}
			return nil
		}
		err := commitState(s, 2)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, overlay.ErrBroken) || !strings.Contains(err.Error(), c.Path) {
			t.Fatalf("no room at write %d: %v", at, err)
		}
		if n := state(t, s); n != 1 {
			t.Fatalf("no room at write %d: state %d", at, n)
		}
	}
	d.fault = func(string, string) error { return nil }
	for n := state(t, s) + 1; n < 5; n++ {
		must(t, commitState(s, n))
	}
	must(t, s.Close())
	if n := consistent(t, c); n != 4 {
		t.Errorf("state %d", n)
	}
}

// TestSharedCommits: views that end at the same time share a wait for the disk.
func TestSharedCommits(t *testing.T) {
	d, h := newDisk(t)
	b, err := open(memoryConfig(t), h)
	must(t, err)
	s := overlay.New(b, overlay.Config{})
	defer s.Close()
	const views = 40
	var wg sync.WaitGroup
	b.write.Lock() // a commit is running; all of them come meanwhile
	for i := range views {
		wg.Go(func() {
			if err := s.View(context.Background(), func(tx store.Tx) error { return tx.Append(keyOf(i), fmt.Append(nil, i)) }); err != nil {
				t.Errorf("view: %v", err)
			}
		})
	}
	for waiting := 0; waiting < views; time.Sleep(time.Millisecond) {
		b.queue.mu.Lock()
		waiting = len(b.queue.waiting)
		b.queue.mu.Unlock()
	}
	d.mu.Lock()
	before := d.syncs
	d.mu.Unlock()
	b.write.Unlock()
	wg.Wait()
	if n := d.syncs - before; n > 3 {
		t.Errorf("%d syncs for %d commits", n, views)
	}
	n := 0
	for _, err := range s.Log(context.Background(), 1) {
		must(t, err)
		n++
	}
	if n != views {
		t.Errorf("%d entries", n)
	}
}
