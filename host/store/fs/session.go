//go:build linux || darwin || freebsd

package fs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// session is a context's use of a journal, from its first commit until it is
// closed.
type session struct {
	b       *backend
	journal *Journal
	id      contextID
	tx      string // the context's Tx directory, relative to the journal's
	life    int    // of the journal
	seq     uint64 // of its last record; by the backend, with its lock

	settling sync.Mutex // held while what was applied is made durable, and while files move

	mu       sync.Mutex
	files    map[string]struct{}    // with content that is not durable yet
	moving   map[string]struct{}    // of those, what is in the staging directory
	dirs     map[string]struct{}    // with names that are not
	log      bool                   // the log's last segment is not
	applied  uint64                 // the last record that was
	settled  uint64                 // the last record that is wholly on the disk
	places   []redoPlace            // of those in between
	made     map[[2]uint64]struct{} // by device and inode number, files that were made here
	spare    []spare                // in the order of their records
	err      error                  // why this can never be settled here
	released bool
}

// changed notes what a step did to a directory, and to a file in it if that has
// new content.
func (s *session) changed(dir, file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirs[dir] = struct{}{}
	if file != "" {
		s.files[file] = struct{}{}
	}
}

// left notes that a file moves to the staging directory, and arrived that it comes
// from there: content that is not durable is looked for by its path. Between the
// two, and what leads to either, nothing may be settled.
func (s *session) left(file, slot string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.files[file]; ok {
		delete(s.files, file)
		s.moving[slot] = struct{}{}
	}
}

func (s *session) arrived(slot, file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.moving[slot]; ok {
		delete(s.moving, slot)
		s.files[file] = struct{}{}
	}
}

// done notes that a record was applied, and its entries appended to the log.
func (s *session) done(seq uint64, at redoPlace, logged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = seq
	s.places = append(s.places, at)
	s.log = s.log || logged
}

// state is the last record that is wholly on the disk, or why that cannot be said.
func (s *session) state() (settled uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settled, s.err
}

// fail says that the records that are not settled cannot be until the context is
// opened again.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		s.journal.distrust(s.places)
	}
}

// unsynced is how many files and directories would have to be made durable.
func (s *session) unsynced() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.released {
		return 0
	}
	n := len(s.files) + len(s.dirs)
	if s.log {
		n++
	}
	return n
}

// taken is what was not durable at a moment.
type taken struct {
	s           *session
	files, dirs map[string]struct{}
	log         bool
	upTo        uint64
}

// take begins to make durable what was applied; done ends it. It is nil if there
// is nothing to do, or nothing can be done.
func (s *session) take() *taken {
	s.settling.Lock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.released {
		s.settling.Unlock()
		return nil
	}
	t := &taken{s, s.files, s.dirs, s.log, s.applied}
	s.files, s.dirs, s.log = map[string]struct{}{}, map[string]struct{}{}, false
	return t
}

func (t *taken) done() { t.s.settling.Unlock() }

// end notes how it went.
func (t *taken) end(err error) {
	if err != nil {
		t.s.fail(fmt.Errorf("make commits durable: %w", err))
		return
	}
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places = s.places[min(t.upTo-s.settled, uint64(len(s.places))):]; len(s.places) == 0 {
		s.places = nil
	}
	s.settled = t.upTo
}

// settle makes durable all that was applied before. An error means that the
// journal's records are still needed.
func (s *session) settle() error {
	if t := s.take(); t != nil {
		t.end(t.sync())
		t.done()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// sync makes each file and directory durable. One that is not there any more was
// removed by the owner, or by a commit that is noted with its directory.
func (t *taken) sync() error {
	b := t.s.b
	if len(t.files)+len(t.dirs) >= manySyncs && wholeSyncReports() {
		t.s.journal.syncs.Add(1)
		if err := b.disk.syncAll(b.lower.under.root()); err != nil {
			return err
		}
		if b.logDev == b.lower.dev {
			return nil
		}
		return t.syncLog()
	}
	c := &cursor{b: b, fd: -1}
	defer func() { _ = c.leave() }() // it only looks
	for file := range t.files {
		dir, name := split(file)
		err := c.to(dir)
		if err == nil {
			var fd int
			if fd, err = openat(c.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err == nil {
				err = t.s.sync(fd)
				unix.Close(fd)
			}
		}
		if err != nil && !gone(err) {
			return fmt.Errorf("/%s: %w", file, err)
		}
	}
	for dir := range t.dirs {
		err := c.to(dir)
		if err == nil {
			err = t.s.sync(c.fd)
		}
		if err != nil && !gone(err) {
			return fmt.Errorf("directory /%s: %w", dir, err)
		}
	}
	return t.syncLog()
}

func (t *taken) syncLog() error {
	if !t.log {
		return nil
	}
	t.s.journal.syncs.Add(1)
	if err := t.s.b.log.sync(); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

func (s *session) sync(fd int) error {
	s.journal.syncs.Add(1)
	return s.b.disk.sync(fd)
}

// gone reports whether an error says that something else is at a path, or nothing.
// EACCES: the owner has taken it from us, so it can be no file of ours.
func gone(err error) bool {
	switch err {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENXIO, unix.ENODEV, unix.EXDEV, unix.EACCES, unix.EPERM:
		return true
	}
	return false
}

// reference is what tx/journal holds while commits of the context may be in a
// journal: where that is.
type reference struct {
	journal string // its id
	context contextID
	dir     string // its directory, relative to tx
}

const (
	refName  = "journal"
	refMagic = "circles journal v2"
	oldMagic = "CIRCLEJ1" // a journal of the version before, which was in the same place
)

func (r reference) String() string {
	return fmt.Sprintf("%s\n%s\n%s\n%s\n", refMagic, r.journal, r.context, r.dir)
}

func parseReference(s string) (r reference, ok bool) {
	line := strings.Split(s, "\n")
	if len(line) != 5 || line[0] != refMagic || line[4] != "" || !isID(line[1]) || !isID(line[2]) {
		return r, false
	}
	if _, err := hex.Decode(r.context[:], []byte(line[2])); err != nil {
		return r, false
	}
	r.journal, r.dir = line[1], line[3]
	return r, true
}

func isID(s string) bool {
	if len(s) != 32 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// readReference reads tx/journal. ok is false if there is none: then no journal
// has commits of this context.
func readReference(tx string) (r reference, ok bool, err error) {
	path := filepath.Join(tx, refName)
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return r, false, fmt.Errorf("read %s: %w", path, err)
	}
	if head := b[:min(len(b), 20)]; allZero(head) { // of the version before, with nothing in it
		return r, false, nil
	}
	if strings.HasPrefix(string(b), oldMagic) {
		return r, false, fmt.Errorf("%s has a commit that an earlier version of this program did not finish: open the context with that version once", path)
	}
	if r, ok = parseReference(string(b)); !ok {
		return r, false, fmt.Errorf("%s is damaged: it should say which journal has the context's last commits; remove it to give those up", path)
	}
	return r, true, nil
}

// attach makes a session, when there is something to commit: from now on, until
// it is settled and closed, whoever opens the context looks into the journal.
func (b *backend) attach() error {
	if b.session != nil {
		return nil
	}
	if b.journal == nil {
		j, err := openJournal(JournalConfig{Dir: filepath.Join(b.txPath, ownJournal), Size: ownSize, Age: b.hooks.age}, b.disk)
		if err != nil {
			return fmt.Errorf("open journal: %w", err)
		}
		b.journal, b.ownJournal = j, true
	}
	tx, err := realPath(b.txPath)
	if err != nil {
		return err
	}
	toTx, err := filepath.Rel(b.journal.dir, tx)
	if err != nil {
		return err
	}
	toDir, err := filepath.Rel(tx, b.journal.dir)
	if err != nil {
		return err
	}
	s := &session{b: b, journal: b.journal, tx: toTx, files: map[string]struct{}{}, moving: map[string]struct{}{}, dirs: map[string]struct{}{}, made: map[[2]uint64]struct{}{}}
	rand.Read(s.id[:])
	id, err := b.journal.attach(s, b.lower.dev, b.txDir)
	if err != nil {
		return err
	}
	if err := b.refer(reference{id, s.id, toDir}); err != nil {
		b.journal.detach(s, false)
		return fmt.Errorf("note which journal has the commits: %w", fileError(err))
	}
	b.session = s
	return nil
}

// ownJournal is where a context that shares no journal has its own, in tx.
const (
	ownJournal = "redo"
	ownSize    = 4 << 20
)

// refer writes tx/journal, of which there is none. It need not be there as a whole
// or not at all: until it is durable nothing is committed, and a file that a crash
// has left empty, or zeros in, is none. So it is made in its place, which is one
// transaction of the file system to wait for, where a renaming would be two.
func (b *backend) refer(r reference) error {
	f, err := b.disk.create(b.txDir, refName, 0o600)
	if err == unix.EEXIST { // what such a crash has left
		if err = b.disk.unlink(b.txDir, refName); err == nil {
			f, err = b.disk.create(b.txDir, refName, 0o600)
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := b.disk.write(f, []byte(r.String()), 0); err != nil {
		return err
	}
	if err := b.disk.sync(int(f.Fd())); err != nil {
		return err
	}
	return b.disk.sync(b.txDir)
}

// unrefer removes tx/journal for good.
func (b *backend) unrefer() error {
	if err := b.disk.unlink(b.txDir, refName); err != nil && err != unix.ENOENT {
		return err
	}
	return b.disk.sync(b.txDir)
}

// leaveJournal ends the session: everything that was committed is made durable in
// the context's own files, which are complete from then on. If that fails the
// journal keeps what is needed for finishing it.
func (b *backend) leaveJournal() error {
	var err error
	if s := b.session; s != nil {
		if b.broken != nil {
			s.fail(b.broken)
		}
		if err = s.settle(); err == nil {
			err = b.at("settled")
		}
		if err == nil {
			if err = b.unrefer(); err != nil {
				s.fail(err)
			}
		}
		_ = b.at("forgotten")
		b.dropSpares()
		s.settling.Lock()
		s.mu.Lock()
		s.released = true // its descriptors are closed after this
		s.mu.Unlock()
		s.settling.Unlock()
		b.journal.detach(s, err != nil)
		b.session = nil
	}
	if b.ownJournal {
		err = errors.Join(err, b.journal.Close())
		if err == nil {
			_ = b.disk.rmdir(b.txDir, ownJournal)
		}
	}
	if b.broken != nil {
		return nil // that was said when it broke
	}
	return err
}

// claim is what was found of a context's records in a journal.
type claim struct {
	reference
	dir     string   // of the journal
	pair    *os.File // the lock of a dead journal's files
	live    bool     // the journal is the one that is used now
	records []*record
}

func (c *claim) release() {
	if c.pair != nil {
		c.pair.Close()
	}
}

// look finds the records that a reference leads to: in the directory of the
// journal that will be used, or where it says.
func (b *backend) look(ref reference) (*claim, error) {
	mine := func(id contextID) bool { return id == ref.context }
	tx, err := realPath(b.txPath)
	if err != nil {
		return nil, err
	}
	dirs := []string{filepath.Join(tx, ref.dir)}
	if b.journal != nil && b.journal.dir != dirs[0] {
		dirs = append(dirs, b.journal.dir)
	}
	if j := b.journal; j != nil {
		// One that is in use is read while nothing is written to it.
		j.mu.Lock()
		defer j.mu.Unlock()
		j.idle()
	}
	for _, dir := range dirs {
		c := &claim{reference: ref, dir: dir, live: b.journal != nil && b.journal.id == ref.journal && b.journal.files[0].f != nil}
		found := false
		for i, name := range []string{redoName(ref.journal, 0), redoName(ref.journal, 1), keptName(ref.journal, ref.context)} {
			f, err := openRedo(filepath.Join(dir, name))
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			if err != nil {
				c.release()
				return nil, fmt.Errorf("open journal: %w", err)
			}
			found = true
			if i == 0 && !c.live {
				if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
					f.Close()
					return nil, fmt.Errorf("%w: the process that committed to it last has not let go of %s", ErrLocked, f.Name())
				}
				c.pair = f
			}
			records, err := readRedo(f, f.Name(), mine)
			if f != c.pair {
				f.Close()
			}
			if err != nil {
				c.release()
				return nil, err
			}
			c.records = append(c.records, records...)
		}
		if found {
			if c.records, err = outstanding(c.records); err != nil {
				c.release()
				return nil, &JournalDamageError{filepath.Join(dir, redoName(ref.journal, 0)), 0, err}
			}
			return c, nil
		}
	}
	return nil, fmt.Errorf("journal %s, which has the last commits of this context, is not in %s: put it back there, or remove %s to give those commits up",
		ref.journal, strings.Join(dirs, " nor in "), filepath.Join(b.txPath, refName))
}

func openRedo(path string) (*os.File, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// drop removes what nobody needs any more once the claim was taken up and the
// reference is gone. What it leaves, the next OpenJournal removes.
func (c *claim) drop(b *backend) {
	if c.live {
		b.journal.forget(c.context)
	}
	fd, err := openat(unix.AT_FDCWD, c.dir, dirFlags, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = b.disk.unlink(fd, keptName(c.journal, c.context))
	if filepath.Base(c.dir) == ownJournal && !c.live {
		_ = b.disk.unlink(fd, redoName(c.journal, 1))
		_ = b.disk.unlink(fd, redoName(c.journal, 0))
		_ = b.disk.rmdir(b.txDir, ownJournal)
	}
}

// adopt goes through what dead processes left in a journal's directory. Each
// context that still needs its records gets them in a file of its own.
func adopt(dir string, dirFD int, d disk) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		id, suffix, _ := strings.Cut(n.Name(), ".")
		if !isID(id) {
			continue
		}
		var err error
		switch {
		case suffix == "0":
			err = adoptPair(dir, dirFD, id, d)
		case strings.HasSuffix(suffix, ".kept") && isID(strings.TrimSuffix(suffix, ".kept")):
			err = adoptKept(filepath.Join(dir, n.Name()), dir, dirFD, id, d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func adoptPair(dir string, dirFD int, id string, d disk) error {
	first, err := openRedo(filepath.Join(dir, redoName(id, 0)))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer first.Close()
	if unix.Flock(int(first.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // its process lives, or somebody opens a context of its
	}
	if info, err := first.Stat(); err != nil || info.Size() == 0 {
		return err
	}
	found := map[contextID][]*record{}
	for i := range 2 {
		f := first
		if i == 1 {
			if f, err = openRedo(filepath.Join(dir, redoName(id, 1))); errors.Is(err, unix.ENOENT) {
				break
			} else if err != nil {
				return err
			}
			defer f.Close()
		}
		records, err := readRedo(f, f.Name(), func(contextID) bool { return true })
		if damage := (*JournalDamageError)(nil); errors.As(err, &damage) {
			return nil // for those whose commits they are to see, and to decide
		}
		if err != nil {
			return err
		}
		for _, r := range records {
			found[r.context] = append(found[r.context], r)
		}
	}
	for context, records := range found {
		if !needed(dir, id, records[0]) {
			continue
		}
		if err := keepRecords(dir, dirFD, id, context, records, d); err != nil {
			return err
		}
	}
	// An empty file remains: contexts that committed nothing since their last
	// records were voided refer to the journal too, and must not think it lost.
	if err := d.unlink(dirFD, redoName(id, 1)); err != nil && err != unix.ENOENT {
		return err
	}
	if err := d.truncate(first, 0); err != nil {
		return err
	}
	return d.sync(int(first.Fd()))
}

func adoptKept(path, dir string, dirFD int, id string, d disk) error {
	f, err := openRedo(path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	records, err := readRedo(f, path, func(contextID) bool { return true })
	if err != nil || len(records) > 0 && needed(dir, id, records[0]) {
		return nil
	}
	return d.unlink(dirFD, filepath.Base(path))
}

// needed reports whether a context may still be opened that needs a record: if
// its directory is there, and refers to the journal. One that is not there may
// have been moved.
func needed(dir, journal string, r *record) bool {
	tx := filepath.Join(dir, r.tx)
	ref, ok, err := readReference(tx)
	if err != nil {
		return true
	}
	if !ok {
		_, err := os.Stat(tx)
		return err != nil
	}
	return ref.journal == journal && ref.context == r.context
}
