//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
)

// Journal makes the commits of many contexts durable together: those that are
// ready at the same time share one write and one fdatasync. It is safe for
// concurrent use.
type Journal struct {
	dir   string // absolute, without links
	dirFD int
	size  int64
	age   time.Duration
	disk  disk

	mu      sync.Mutex
	changed sync.Cond     // a batch was written, a record applied, a file freed
	freed   chan struct{} // closed, and replaced, when a file is freed or the journal breaks
	files   [2]redoFile
	active  int
	batch   uint64 // the last one written
	next    *batch // the one that is gathered
	writing bool
	id      string // of the files
	life    int    // counts ids
	broken  error
	closed  bool
	open    int
	timer   *time.Timer
	work    sync.WaitGroup
	devices map[uint64]int // a descriptor on each file system that a context is on

	commits, syncs atomic.Int64 // for benchmarks
}

// redoFile is one of the two files: while the records of one are made superfluous,
// by making durable what they did, the other takes new ones.
type redoFile struct {
	f         *os.File
	path      string
	epoch     uint64
	end       int64 // where the next record goes; 0: there is none, and no head
	allocated int64 // bytes that have been written once, so that writing them again changes no metadata
	pending   int   // records that are not applied yet
	users     map[*session]struct{}
	draining  bool // its records are being made superfluous
}

// batch is what one fdatasync makes durable.
type batch struct {
	life   int // of the journal, when it was begun
	frames [][]byte
	by     []*session
	places []redoPlace
	done   chan struct{}
	err    error
}

// redoPlace is where a record is.
type redoPlace struct {
	life int
	file int
	off  int64
}

const (
	journalSize = 32 << 20
	journalAge  = time.Second
	// manySyncs is the number of files and directories from which it is cheaper
	// to make a whole file system durable.
	manySyncs = 64
)

// OpenJournal makes a journal in a directory, and takes care of what processes
// that died have left there: their records are kept, each context's in a file of
// its own, until that context is opened.
func OpenJournal(c JournalConfig) (*Journal, error) {
	j, err := openJournal(c, disk{})
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", c.Dir, err)
	}
	return j, nil
}

func openJournal(c JournalConfig, d disk) (*Journal, error) {
	if c.Dir == "" {
		return nil, errors.New("its directory must be named")
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := realPath(c.Dir)
	if err != nil {
		return nil, err
	}
	fd, err := openat(unix.AT_FDCWD, dir, dirFlags, 0)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		dir: dir, dirFD: fd, size: c.Size, age: c.Age, disk: d,
		freed: make(chan struct{}), next: newBatch(), devices: map[uint64]int{},
	}
	j.changed.L = &j.mu
	if j.size == 0 {
		j.size = journalSize
	}
	if j.age == 0 {
		j.age = journalAge
	}
	if err := adopt(dir, fd, d); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return j, nil
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func realPath(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

func redoName(id string, i int) string { return fmt.Sprintf("%s.%d", id, i) }

// begin makes the two files, when there is something to put into them.
func (j *Journal) begin() error {
	if j.files[0].f != nil {
		return nil
	}
	var id [16]byte
	rand.Read(id[:])
	j.id = hex.EncodeToString(id[:])
	j.life++
	for i := range j.files {
		name := redoName(j.id, i)
		f, err := j.disk.create(j.dirFD, name, 0o600)
		if err == nil {
			j.files[i] = redoFile{f: f, path: filepath.Join(j.dir, name), users: map[*session]struct{}{}}
			if i == 0 { // whoever gets this lock knows that we are dead
				err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			} else {
				err = j.disk.sync(j.dirFD)
			}
		}
		if err != nil {
			j.end()
			return fmt.Errorf("make journal: %w", fileError(err))
		}
	}
	return nil
}

// end lets the files go, and removes them if nobody needs them.
func (j *Journal) end() {
	needed := j.broken != nil
	for i := range j.files {
		for s := range j.files[i].users {
			if !needed && j.keep(s.id, &j.files[i]) != nil {
				needed = true
			}
		}
	}
	for i := range slices.Backward(j.files[:]) {
		if f := j.files[i].f; f != nil {
			if !needed {
				_ = j.disk.unlink(j.dirFD, redoName(j.id, i))
			}
			f.Close() // of the first, this gives up the lock
		}
	}
	j.files, j.broken = [2]redoFile{}, nil
	if j.timer != nil {
		j.timer.Stop()
	}
}

// idle waits until nothing is written. It is called with the lock.
func (j *Journal) idle() {
	for j.writing || j.files[0].draining || j.files[1].draining {
		j.changed.Wait()
	}
}

// attach lets a session commit. A journal that could not be written is left to
// those who open the contexts that used it, and another one begun.
func (j *Journal) attach(s *session, device uint64, dir int) (id string, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		if j.idle(); j.broken != nil {
			j.end()
		}
	}
	if j.closed {
		return "", fmt.Errorf("journal: %w", store.ErrClosed)
	}
	if err := j.begin(); err != nil {
		return "", err
	}
	if _, ok := j.devices[device]; !ok {
		fd, err := openat(dir, ".", dirFlags, 0)
		if err != nil {
			return "", err
		}
		j.devices[device] = fd
	}
	j.open++
	s.life = j.life
	return j.id, nil
}

// detach lets a session go. If it is needed, its records are to be found by those
// who open its context again.
func (j *Journal) detach(s *session, needed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !needed {
		for i := range j.files {
			delete(j.files[i].users, s)
		}
	}
	if j.open--; j.open == 0 {
		if j.idle(); j.open == 0 && j.files[0].f != nil {
			j.end()
		}
	}
}

// forget drops the records of a session that was finished by opening its context
// again.
func (j *Journal) forget(id contextID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.files {
		for s := range j.files[i].users {
			if s.id == id {
				delete(j.files[i].users, s)
			}
		}
	}
}

// admit waits until the journal has room.
func (j *Journal) admit(ctx context.Context) error {
	for {
		j.mu.Lock()
		err, wait := j.broken, j.files[j.active].end >= j.size && j.files[1-j.active].draining
		freed := j.freed
		j.mu.Unlock()
		if err != nil {
			return err
		}
		if !wait {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return fmt.Errorf("wait for room in the journal: %w", context.Cause(ctx))
		}
	}
}

// errUndecided is for a record that may or may not be on the disk.
var errUndecided = errors.New("the journal cannot tell what is on the disk")

// commit makes a record durable: when it returns nil, that has been decided. An
// error means that the record is not there, unless it is errUndecided. After nil
// the caller applies the record, and says so with applied.
func (j *Journal) commit(ctx context.Context, s *session, frame []byte) (redoPlace, error) {
	if len(frame) > maxRecord {
		return redoPlace{}, fmt.Errorf("commit that takes %d bytes to describe: %w", len(frame), store.ErrQuota)
	}
	if err := j.admit(ctx); err != nil {
		return redoPlace{}, err
	}
	j.mu.Lock()
	if s.life != j.life {
		j.mu.Unlock()
		return redoPlace{}, fmt.Errorf("%w any more, since it failed for another context", errUndecided)
	}
	b := j.next
	k := len(b.frames)
	if k == 0 {
		b.life = j.life
	}
	b.frames = append(b.frames, frame)
	b.by = append(b.by, s)
	if k > 0 { // the first writes for all
		j.mu.Unlock()
		<-b.done
	} else {
		for j.writing {
			j.changed.Wait()
		}
		// Those who are about to commit come along, as long as there are more of
		// them: where there is more to do than processors, waiting for the disk
		// would not give them time to.
		for n := 0; len(b.frames) > n; {
			n = len(b.frames)
			j.mu.Unlock()
			runtime.Gosched()
			j.mu.Lock()
		}
		j.next, j.writing = newBatch(), true
		b.err = j.write(b)
		j.writing = false
		j.changed.Broadcast()
		j.mu.Unlock()
		close(b.done)
	}
	if b.err != nil {
		return redoPlace{}, b.err
	}
	return b.places[k], nil
}

// write writes a batch. It is called with the lock, and gives it up while it
// waits for the disk.
func (j *Journal) write(b *batch) error {
	if j.broken != nil {
		return j.broken
	}
	if b.life != j.life { // it began anew, and the contexts of these refer to what it was
		return fmt.Errorf("%w any more, since it failed for another context", errUndecided)
	}
	file := &j.files[j.active]
	if other := &j.files[1-j.active]; file.end >= j.size && !other.draining {
		j.drain()
		file = other
	}
	head := file.end == 0
	if head {
		var epoch [8]byte
		rand.Read(epoch[:])
		file.epoch = binary.BigEndian.Uint64(epoch[:])
		j.arm()
	}
	var buf []byte
	start := file.end
	if head {
		buf = appendHead(buf, file.epoch, bootID())
	}
	for i, frame := range b.frames {
		seal(frame, file.epoch, j.batch+1, i == len(b.frames)-1, false)
		b.places = append(b.places, redoPlace{life: j.life, file: j.active, off: start + int64(len(buf))})
		buf = append(buf, frame...)
	}
	for _, s := range b.by {
		file.users[s] = struct{}{}
	}
	file.pending += len(b.frames)
	j.mu.Unlock()
	decided, err := j.put(file, buf, start)
	j.mu.Lock()
	if err != nil {
		file.pending -= len(b.frames)
		if !decided {
			return err
		}
		return j.fail(err)
	}
	file.end = start + int64(len(buf))
	j.batch++
	j.commits.Add(int64(len(b.frames)))
	return nil
}

// put writes to a file and waits for the disk. decided is false if an error is
// one that leaves nothing of it behind.
func (j *Journal) put(file *redoFile, buf []byte, off int64) (decided bool, err error) {
	end := off + int64(len(buf))
	if end > file.allocated {
		// Room is made first, by zeros: if there is none, nothing was written that
		// could be taken for a record. In steps that grow, so that few of the
		// writes change the file's size.
		grown := max(end, min(2*file.allocated, j.size), 64<<10)
		zero := make([]byte, min(grown-file.allocated, 1<<20))
		for at := file.allocated; at < grown; at += int64(len(zero)) {
			if err := j.disk.write(file.f, zero[:min(int64(len(zero)), grown-at)], at); err != nil {
				return false, fmt.Errorf("make room in the journal: %w", fileError(err))
			}
		}
		file.allocated = grown
	}
	if err := j.disk.write(file.f, buf, off); err != nil {
		return true, fmt.Errorf("write journal: %w", err)
	}
	j.syncs.Add(1)
	if err := j.disk.datasync(file.f); err != nil {
		return true, fmt.Errorf("write journal: %w", err)
	}
	return true, nil
}

// fail gives the journal up. What the disk has after a failed write or fdatasync
// nobody can say, and a second fdatasync that succeeds says nothing of the first.
func (j *Journal) fail(err error) error {
	j.broken = fmt.Errorf("%w: %w", errUndecided, err)
	close(j.freed)
	j.freed = make(chan struct{})
	j.changed.Broadcast()
	return j.broken
}

// applied says that a record that was decided has been applied, or that it could
// not be (kept).
func (j *Journal) applied(p redoPlace, kept bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if p.life != j.life {
		return
	}
	file := &j.files[p.file]
	if !kept {
		// For a crash of the process: then what is in the kernel's cache is as
		// good as on the disk. No more than a hint, so nobody waits for it.
		_ = j.disk.write(file.f, []byte{1}, p.off+frameFlag)
	}
	file.pending--
	j.changed.Broadcast()
}

// distrust takes back what applied said of records.
func (j *Journal) distrust(places []redoPlace) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range places {
		if p.life == j.life && j.files[p.file].f != nil {
			_ = j.disk.write(j.files[p.file].f, []byte{0}, p.off+frameFlag)
		}
	}
}

// arm sees to it that no record stays for longer than the journal's age.
func (j *Journal) arm() {
	if j.timer != nil {
		j.timer.Stop()
	}
	j.timer = time.AfterFunc(j.age, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		switch {
		case j.closed || j.broken != nil:
		case j.writing || j.files[1-j.active].draining: // its first batch, on a slow disk
			j.arm()
		case j.files[j.active].end == 0:
		default:
			j.drain()
		}
	})
}

// drain turns to the other file, and makes the records of this one superfluous
// meanwhile. It is called with the lock.
func (j *Journal) drain() {
	file := &j.files[j.active]
	file.draining = true
	j.active = 1 - j.active
	j.work.Go(func() {
		j.mu.Lock()
		for file.pending > 0 {
			j.changed.Wait()
		}
		var users []*session
		for s := range file.users {
			users = append(users, s)
		}
		j.mu.Unlock()
		err := j.settle(users, file)
		if err == nil {
			err = j.void(file)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		file.draining = false
		if err != nil {
			_ = j.fail(fmt.Errorf("make the journal's records superfluous: %w", err))
			return
		}
		clear(file.users)
		file.end = 0
		close(j.freed)
		j.freed = make(chan struct{})
		j.changed.Broadcast()
	})
}

// settle makes durable what sessions have applied. What cannot be is kept in a
// file of the context's own, for when it is opened again: it does not hold up the
// others.
func (j *Journal) settle(users []*session, file *redoFile) error {
	var some []*session
	work := 0
	for _, s := range users {
		if n := s.unsynced(); n > 0 {
			work += n
			some = append(some, s)
		} else {
			s.settling.Lock()   // somebody else may be at it
			s.settling.Unlock() //nolint:staticcheck // SA2001: waiting is all that is wanted
		}
	}
	if work >= manySyncs && wholeSyncReports() {
		j.settleTogether(some)
	} else {
		for _, s := range some {
			_ = s.settle() // and below is seen how it went
		}
	}
	var errs []error
	for _, s := range users {
		if _, err := s.state(); err == nil {
			continue
		}
		if err := j.keep(s.id, file); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// settleTogether makes whole file systems durable, instead of many files.
func (j *Journal) settleTogether(users []*session) {
	devices := map[uint64]error{}
	var taken []*taken
	for _, s := range users {
		t := s.take()
		if t == nil {
			continue
		}
		defer t.done()
		taken = append(taken, t)
		devices[s.b.lower.dev] = nil
	}
	for device := range devices {
		j.mu.Lock()
		fd := j.devices[device]
		j.mu.Unlock()
		j.syncs.Add(1)
		devices[device] = j.disk.syncAll(fd)
	}
	for _, t := range taken {
		err := devices[t.s.b.lower.dev]
		if err == nil && t.s.b.logDev != t.s.b.lower.dev {
			err = t.syncLog()
		}
		t.end(err)
	}
}

// keep writes the records that a context has in a file, and that are not settled,
// to a file of its own.
func (j *Journal) keep(id contextID, file *redoFile) error {
	records, err := readRedo(file.f, file.path, func(c contextID) bool { return c == id })
	if err != nil {
		return err
	}
	return keepRecords(j.dir, j.dirFD, j.id, id, records, j.disk)
}

func keptName(journal string, id contextID) string { return fmt.Sprintf("%s.%s.kept", journal, id) }

// keepRecords adds records of a context to a file of its own.
func keepRecords(dir string, dirFD int, journal string, id contextID, records []*record, d disk) error {
	name := keptName(journal, id)
	if f, err := os.Open(filepath.Join(dir, name)); err == nil {
		before, err := readRedo(f, f.Name(), func(contextID) bool { return true })
		f.Close()
		if err != nil {
			return err
		}
		records = append(before, records...)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	records, err := outstanding(records)
	if err != nil || len(records) == 0 {
		return err
	}
	buf := appendHead(nil, 1, bootID())
	for i, r := range records {
		frame := newFrame(r)
		seal(frame, 1, uint64(i)+1, true, r.applied)
		buf = append(buf, frame...)
	}
	_ = d.unlink(dirFD, name+".new")
	f, err := d.create(dirFD, name+".new", 0o600)
	if err != nil {
		return fmt.Errorf("keep commits of a context: %w", err)
	}
	defer f.Close()
	if err = d.write(f, buf, 0); err == nil {
		err = d.sync(int(f.Fd()))
	}
	if err == nil {
		err = d.rename(dirFD, name+".new", dirFD, name)
	}
	if err == nil {
		err = d.sync(dirFD)
	}
	if err != nil {
		return fmt.Errorf("keep commits of a context: %w", err)
	}
	return nil
}

// void makes it durable that a file has no records: an old one must not be applied
// over what its owner does later.
func (j *Journal) void(file *redoFile) error {
	if err := j.disk.write(file.f, make([]byte, headFields), 0); err != nil {
		return err
	}
	if file.allocated > j.size+j.size/4 { // one huge record made it so
		if err := j.disk.truncate(file.f, j.size); err != nil {
			return err
		}
		file.allocated = j.size
	}
	j.syncs.Add(1)
	return j.disk.datasync(file.f)
}

// Err is why the journal takes no more commits; nil while it does. It begins anew
// with the next context that is opened.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// Close releases the journal. The contexts that use it are closed first; with the
// last of them its files went.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	if j.open > 0 {
		j.mu.Unlock()
		return fmt.Errorf("close journal %s: %d contexts are still open: close them first", j.dir, j.open)
	}
	j.closed = true
	j.mu.Unlock()
	j.work.Wait()
	for _, fd := range j.devices {
		unix.Close(fd)
	}
	unix.Close(j.dirFD)
	return nil
}
