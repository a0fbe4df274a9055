package fs

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
	"github.com/circles-host/circles/host/store/storetest"
)

// platter knows what of a directory would be left by a power cut: of names, what
// was done until some moment after the last that a sync made durable; of content,
// what was synced, and any sectors of the rest. It keeps what is replaced and
// removed, so that it can be put back with its inode number.
type platter struct {
	t      *testing.T
	root   string
	shadow string

	mu     sync.Mutex
	ops    int
	cutAt  int // the operation before which the power goes
	off    bool
	names  []nameChange
	lo     int // of names, these are durable
	writes []dataWrite
	whole  map[uint64]bool // inodes whose content is durable
	kept   int
}

type nameChange struct {
	dirs []uint64
	undo func() error
}

type dataWrite struct {
	f      *os.File
	ino    uint64
	off    int64
	before []byte // short if the file ended in it
	size   int64  // written
}

var errPower = errors.New("the power is off")

func newPlatter(t *testing.T, root string, cutAt int) *platter {
	shadow, err := os.MkdirTemp(filepath.Dir(root), "shadow-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(shadow) })
	p := &platter{t: t, root: root, shadow: shadow, cutAt: cutAt, whole: map[uint64]bool{}}
	p.each(func(path string, st *unix.Stat_t) { p.whole[st.Ino] = true })
	return p
}

// each visits every file below the root.
func (p *platter) each(f func(path string, st *unix.Stat_t)) {
	must(p.t, filepath.WalkDir(p.root, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && d.Type().IsRegular() && unix.Lstat(path, &st) == nil {
			f(path, &st)
		}
		return err
	}))
}

func (p *platter) disk() disk { return disk{before: p.before} }

func fdPath(fd int) string { return fmt.Sprint("/proc/self/fd/", fd) }

func inodeNumber(fd int) uint64 {
	var st unix.Stat_t
	_ = unix.Fstat(fd, &st)
	return st.Ino
}

func (p *platter) keep() string { p.kept++; return filepath.Join(p.shadow, fmt.Sprint(p.kept)) }

func (p *platter) before(op diskOp) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ops++; p.ops >= p.cutAt {
		p.off = true
	}
	if p.off {
		return errPower
	}
	at := func(dir int, name string) string {
		path, err := os.Readlink(fdPath(dir))
		if err != nil {
			p.t.Errorf("directory of %s: %v", name, err)
		}
		return filepath.Join(path, name)
	}
	exists := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	changed := func(undo func() error, dirs ...int) {
		c := nameChange{undo: undo}
		for _, fd := range dirs {
			c.dirs = append(c.dirs, inodeNumber(fd))
		}
		p.names = append(p.names, c)
	}
	switch op.what {
	case "rename":
		from, to := at(op.dir, op.name), at(op.to, op.dest)
		old := ""
		if i, err := os.Lstat(to); err == nil && !i.IsDir() {
			old = p.keep()
			if err := os.Link(to, old); err != nil {
				return err
			}
		}
		if exists(from) {
			changed(func() error {
				err := os.Rename(to, from)
				if err == nil && old != "" {
					err = os.Rename(old, to)
				}
				return err
			}, op.dir, op.to)
		}
	case "exchange":
		from, to := at(op.dir, op.name), at(op.to, op.dest)
		if exists(from) && exists(to) {
			changed(func() error {
				return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
			}, op.dir, op.to)
		}
	case "truncate":
		p.whole[inodeNumber(op.file)] = false
	case "unlink":
		path, old := at(op.dir, op.name), p.keep()
		if exists(path) {
			if err := os.Link(path, old); err != nil {
				return err
			}
			changed(func() error { return os.Rename(old, path) }, op.dir)
		}
	case "rmdir": // another is removed
		path, old := at(op.dir, op.name), p.keep()
		if left, err := os.ReadDir(path); err == nil && len(left) == 0 {
			if err := errors.Join(os.Rename(path, old), os.Mkdir(path, 0o755)); err != nil {
				return err
			}
			changed(func() error { return os.Rename(old, path) }, op.dir)
		}
	case "mkdir", "create", "symlink":
		if path := at(op.dir, op.name); !exists(path) {
			changed(func() error { return os.Remove(path) }, op.dir)
		}
	case "write":
		f, err := os.OpenFile(fdPath(op.file), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		before := make([]byte, op.size)
		n, _ := f.ReadAt(before, op.off)
		p.writes = append(p.writes, dataWrite{f, inodeNumber(op.file), op.off, before[:n], op.size})
	case "sync":
		ino := inodeNumber(op.file)
		p.whole[ino] = true
		p.writes = slices.DeleteFunc(p.writes, func(w dataWrite) bool {
			if w.ino == ino {
				w.f.Close()
			}
			return w.ino == ino
		})
		for i := p.lo; i < len(p.names); i++ {
			if slices.Contains(p.names[i].dirs, ino) {
				p.lo = i + 1
			}
		}
	case "syncfs":
		p.lo = len(p.names)
		for _, w := range p.writes {
			w.f.Close()
		}
		p.writes = nil
		p.each(func(_ string, st *unix.Stat_t) { p.whole[st.Ino] = true })
	}
	return nil
}

// cut leaves what a power cut would.
func (p *platter) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = true
	keepTimes := func(f *os.File, change func()) {
		var st unix.Stat_t
		must(p.t, unix.Fstat(int(f.Fd()), &st))
		change()
		must(p.t, unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(int(f.Fd())), []unix.Timespec{st.Atim, st.Mtim}, 0))
	}
	for _, w := range slices.Backward(p.writes) {
		keepTimes(w.f, func() {
			const sector = 512
			for off := w.off; off < w.off+w.size; {
				end := min((off/sector+1)*sector, w.off+w.size)
				if rand.IntN(2) == 0 {
					part := make([]byte, end-off)
					if k := off - w.off; k < int64(len(w.before)) {
						copy(part, w.before[k:])
					}
					_, err := w.f.WriteAt(part, off)
					must(p.t, err)
				}
				off = end
			}
			if grown := w.size - int64(len(w.before)); grown > 0 && rand.IntN(2) == 0 {
				must(p.t, w.f.Truncate(w.off+int64(len(w.before))+rand.Int64N(grown)))
			}
		})
		w.f.Close()
	}
	from := p.lo + rand.IntN(len(p.names)-p.lo+1)
	for _, c := range slices.Backward(p.names[from:]) {
		if err := c.undo(); err != nil {
			p.t.Errorf("undo: %v", err)
		}
	}
	p.each(func(path string, st *unix.Stat_t) {
		if p.whole[st.Ino] || rand.IntN(2) == 0 {
			return
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil { // the owner's mode
			return
		}
		defer f.Close()
		keepTimes(f, func() {
			size := rand.Int64N(st.Size + 1)
			must(p.t, f.Truncate(size))
			if rand.IntN(2) == 0 {
				must(p.t, f.Truncate(st.Size)) // zeros
			}
		})
	})
}

// TestPowerCut cuts the power at random operations of commits to two contexts that
// share a journal, of draining it, of closing and of recovery: what was
// acknowledged is there, whole, and nothing else is half there, though what is
// left is only what was synced and any part of the rest.
func TestPowerCut(t *testing.T) {
	root := filepath.Join(filepath.Dir(memoryConfig(t).Data), "root")
	must(t, os.Mkdir(root, 0o700))
	journal := JournalConfig{Dir: filepath.Join(root, "journal"), Size: 100 << 10, Age: 2 * time.Millisecond}
	configs := make([]Config, 2)
	models := make([]store.Store, 2)
	acked := make([]uint64, 2)
	for i := range configs {
		dir := filepath.Join(root, fmt.Sprint(i))
		configs[i] = Config{Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log"), Tx: filepath.Join(dir, "tx"), LogSegment: 20 << 10}
		models[i] = mem.New(mem.Config{})
		defer models[i].Close()
	}
	commits, redone, reused := 0, 0, 0
	for round := range 40 {
		p := newPlatter(t, root, 1+rand.IntN(1500))
		pending := make([]store.Key, 2)
		j, err := openJournal(journal, p.disk())
		backends := make([]*backend, 2)
		stores := make([]store.Store, 2)
		for i := 0; i < 2 && err == nil; i++ {
			c := configs[i]
			c.Journal = j
			if backends[i], err = open(c, hooks{disk: p.disk(), reboot: true}); err == nil {
				stores[i] = overlay.New(backends[i], overlay.Config{})
			}
		}
		for err == nil {
			i := rand.IntN(2)
			if rand.IntN(40) == 0 { // and opened again
				reused += backends[i].reused
				if err = stores[i].Close(); err != nil {
					break
				}
				c := configs[i]
				c.Journal = j
				if backends[i], err = open(c, hooks{disk: p.disk(), reboot: true}); err == nil {
					stores[i] = overlay.New(backends[i], overlay.Config{})
				}
				continue
			}
			crand.Read(pending[i][:])
			var committed bool
			if committed, err = transactOrRewrite(stores[i], pending[i]); committed {
				acked[i]++
				commits++
				_, merr := transactOrRewrite(models[i], pending[i])
				must(t, merr)
			}
		}
		if !errors.Is(err, errPower) {
			t.Fatalf("round %d: %v", round, err)
		}
		p.mu.Lock()
		p.off = true
		p.mu.Unlock()
		if j != nil {
			j.mu.Lock()
			j.closed = true
			j.mu.Unlock()
			j.work.Wait()
		}
		for _, b := range backends {
			if b != nil {
				reused += b.reused
				b.journal = nil
				die(b)
			}
		}
		if j != nil {
			die(&backend{journal: j, txDir: -1, stage: -1, logDir: -1, names: -1})
		}
		p.cut()

		for i, c := range configs {
			j, err := OpenJournal(journal) // which adopts what was left
			must(t, err)
			if round%2 == 0 {
				c.Journal = j
			}
			if _, ok, _ := readReference(c.Tx); ok {
				redone++
			}
			b, err := open(c, hooks{reboot: true})
			if err != nil {
				t.Fatalf("round %d, context %d: %v", round, i, err)
			}
			s := overlay.New(b, overlay.Config{})
			n := uint64(0)
			var last store.Key
			for e, err := range s.Log(context.Background(), 1) {
				must(t, err)
				n, last = e.Seq, e.Key
			}
			if n == acked[i]+1 && last == pending[i] {
				acked[i]++
				_, err := transactOrRewrite(models[i], last)
				must(t, err)
			} else if n != acked[i] {
				t.Fatalf("round %d, cut at %d: context %d has %d entries, %d were acknowledged", round, p.cutAt, i, n, acked[i])
			}
			storetest.Compare(t, models[i], s)
			must(t, s.Close())
			must(t, j.Close())
			if t.Failed() {
				t.Fatalf("round %d, cut at %d: context %d, after entry %d", round, p.cutAt, i, n)
			}
		}
	}
	t.Logf("%d commits, %d recoveries, %d files used again", commits, redone, reused)
	if commits < 100 || redone < 15 || reused < 25 {
		t.Error("the test tests little")
	}
}

// transactOrRewrite is storetest.Transact, or writes some small files anew, which
// are the same each time: their old ones are used again.
func transactOrRewrite(s store.Store, key store.Key) (bool, error) {
	if key[0]%3 == 0 {
		return storetest.Transact(s, key)
	}
	err := s.Update(context.Background(), func(tx store.Tx) error {
		fs := tx.Files(nil)
		for i := range 2 + key[1]%3 {
			content := strings.Repeat(fmt.Sprintf("%x", key), 1+int(key[2+i])*10)
			if err := write(fs, fmt.Sprint("again", i), content); err != nil {
				return err
			}
		}
		return tx.Append(key, nil)
	})
	return err == nil, err
}

// TestLostFileSystem is a power cut of a real file system: ext4 on a device of its
// own, told to forget what it has not written, while contexts commit. It is mounted
// again in the same run of the machine, so that nothing may be believed to be in
// the cache. Without the right to mount, TestPowerCut has to do.
func TestLostFileSystem(t *testing.T) {
	image := filepath.Join(filepath.Dir(memoryConfig(t).Data), "image")
	dir := filepath.Join(t.TempDir(), "disk")
	must(t, os.Mkdir(dir, 0o700))
	f, err := os.Create(image)
	must(t, err)
	must(t, f.Truncate(64<<20))
	must(t, f.Close())
	mount := func() error {
		out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	unmount := func() error {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			ls, _ := exec.Command("sh", "-c", fmt.Sprintf("ls -l /proc/%d/fd | grep disk", os.Getpid())).CombinedOutput()
			return fmt.Errorf("%w: %s\n%s", err, out, ls)
		}
		return nil
	}
	t.Cleanup(func() { unmount() })
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Logf("make file system: %v: %s", err, out)
		return
	}
	if err := mount(); err != nil {
		t.Log(err)
		return
	}
	journal := JournalConfig{Dir: filepath.Join(dir, "journal"), Size: 200 << 10, Age: 20 * time.Millisecond}
	const n = 4
	var configs [n]Config
	var models [n]store.Store
	for i := range n {
		at := filepath.Join(dir, fmt.Sprint(i))
		configs[i] = Config{Data: filepath.Join(at, "data"), Log: filepath.Join(at, "log"), Tx: filepath.Join(at, "tx")}
		models[i] = mem.New(mem.Config{})
		defer models[i].Close()
	}
	commits := 0
	for round := range 6 {
		j := mustJournal(t, journal)
		var acked [n][]store.Key
		var pending [n]store.Key
		var wg sync.WaitGroup
		var backends [n]*backend
		for i := range n {
			c := configs[i]
			c.Journal = j
			backends[i], err = open(c, hooks{})
			must(t, err)
			s := overlay.New(backends[i], overlay.Config{})
			wg.Go(func() {
				for {
					var key store.Key
					crand.Read(key[:])
					pending[i] = key
					committed, err := storetest.Transact(s, key)
					if err != nil {
						return
					}
					if committed {
						acked[i] = append(acked[i], key)
					}
				}
			})
		}
		time.Sleep(time.Duration(50+rand.IntN(300)) * time.Millisecond)
		root, err := os.Open(dir)
		must(t, err)
		const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN
		must(t, unix.IoctlSetPointerInt(int(root.Fd()), shutdown, noLogFlush))
		root.Close()
		wg.Wait()
		j.mu.Lock()
		j.closed = true
		j.mu.Unlock()
		j.work.Wait()
		for _, b := range backends {
			b.journal = nil
			die(b)
		}
		die(&backend{journal: j, txDir: -1, stage: -1, logDir: -1, names: -1})
		must(t, unmount())
		must(t, mount())
		for i, c := range configs {
			s, err := Open(c)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			var keys []store.Key
			for e, err := range s.Log(context.Background(), 1) {
				must(t, err)
				keys = append(keys, e.Key)
			}
			if len(keys) > 0 && keys[len(keys)-1] == pending[i] {
				acked[i] = append(acked[i], pending[i])
			}
			for _, key := range acked[i] {
				_, err := storetest.Transact(models[i], key)
				must(t, err)
			}
			commits += len(acked[i])
			if k := len(acked[i]); k > len(keys) || !slices.Equal(keys[len(keys)-k:], acked[i]) {
				t.Fatalf("round %d: of %d acknowledged commits of context %d the log has not all: %d entries", round, k, i, len(keys))
			}
			storetest.Compare(t, models[i], s)
			must(t, s.Close())
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	t.Logf("%d commits", commits)
	if commits < 20 {
		t.Error("the test tests little")
	}
}
