//go:build linux || darwin || freebsd

package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// backend is an overlay.Backend on an ordinary directory.
type backend struct {
	lower
	now    func() time.Time
	disk   disk
	lock   *os.File
	txPath string
	txDir  int
	stage  int
	logDir int
	logDev uint64
	nonce  [8]byte // tells this process's slots from any other's

	journal    *Journal // nil: until the first commit, which makes one of its own
	ownJournal bool
	session    *session // nil until the first commit

	names      int  // an empty directory to try names in
	plainNames bool // the file system takes any name that a script can say

	// By the one update that runs.
	staged  uint64
	commits uint64
	bases   int          // see staged
	held    int64        // bytes; see staged
	fresh   *unix.Stat_t // of the first file that was made
	reused  int          // for tests

	mu     sync.Mutex // the log and what follows; held through a commit
	log    *chainLog
	broken error
	closed bool

	hooks hooks
}

// hooks are for tests.
type hooks struct {
	crash   func(step string) error // called at each step of a commit; an error stops it there
	beneath func(dir string) (beneath, error)
	disk    disk
	age     time.Duration // of a journal of its own
	reboot  bool          // recovery is not to know what was applied
}

// at marks a step, at which a test may pull the plug.
func (b *backend) at(step string) error {
	if b.hooks.crash == nil {
		return nil
	}
	return b.hooks.crash(step)
}

// Open opens the context that lies in three directories, which are made if they
// are missing, finishes a commit that a crash interrupted, and reads the log. A
// log that is not as it was written is a *LogDamageError, a context that is open
// already ErrLocked.
func Open(c Config) (*overlay.Store, error) {
	b, err := open(c, hooks{})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", c.Data, err)
	}
	return overlay.New(b, overlay.Config{Limits: c.Limits, Now: c.Now}), nil
}

func open(c Config, h hooks) (_ *backend, err error) {
	if c.Data == "" || c.Log == "" || c.Tx == "" {
		return nil, errors.New("data, log and tx directories must be named")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if h.beneath == nil {
		h.beneath = newBeneath
	}
	if c.LogSegment == 0 {
		c.LogSegment = logSegSize
	}
	b := &backend{now: c.Now, disk: h.disk, txPath: c.Tx, journal: c.Journal, txDir: -1, stage: -1, logDir: -1, names: -1, hooks: h}
	rand.Read(b.nonce[:])
	defer func() {
		if err != nil {
			b.release()
		}
	}()
	for dir, perm := range map[string]os.FileMode{c.Data: 0o777, c.Log: 0o700, c.Tx: 0o700} {
		if err := os.MkdirAll(dir, perm); err != nil {
			return nil, err
		}
	}
	if err := apart(c); err != nil {
		return nil, err
	}
	if b.txDir, err = openat(unix.AT_FDCWD, c.Tx, dirFlags, 0); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Tx, err)
	}
	if err := b.takeLock(c.Tx); err != nil {
		return nil, err
	}
	if b.lower.under, err = h.beneath(c.Data); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Data, err)
	}
	var data, stage unix.Stat_t
	if err := unix.Fstat(b.lower.under.root(), &data); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Data, err)
	}
	b.lower.dev = uint64(data.Dev)
	if err := unix.Mkdirat(b.txDir, "stage", 0o700); err != nil && err != unix.EEXIST {
		return nil, fmt.Errorf("make staging directory: %w", err)
	}
	if b.stage, err = openat(b.txDir, "stage", dirFlags|unix.O_NOFOLLOW, 0); err != nil {
		return nil, fmt.Errorf("open staging directory: %w", err)
	}
	if err := unix.Mkdirat(b.txDir, "names", 0o700); err != nil && err != unix.EEXIST {
		return nil, fmt.Errorf("make directory to try names in: %w", err)
	}
	if b.names, err = openat(b.txDir, "names", dirFlags|unix.O_NOFOLLOW, 0); err != nil {
		return nil, fmt.Errorf("open directory to try names in: %w", err)
	}
	b.plainNames = plainNames(b.lower.under.root())
	if b.lower.folds, err = folds(b.names); err != nil {
		return nil, fmt.Errorf("try whether the file system tells case apart: %w", err)
	}
	if err := unix.Fstat(b.stage, &stage); err != nil {
		return nil, fmt.Errorf("open staging directory: %w", err)
	}
	if stage.Dev != data.Dev {
		return nil, fmt.Errorf("%s and %s are on different file systems, so nothing can be renamed from one to the other: keep them on one", c.Data, c.Tx)
	}
	if b.logDir, err = openat(unix.AT_FDCWD, c.Log, dirFlags, 0); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Log, err)
	}
	var log unix.Stat_t
	if err := unix.Fstat(b.logDir, &log); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Log, err)
	}
	b.logDev = uint64(log.Dev)
	return b, b.recover(c)
}

// apart refuses a layout in which a guest could reach the log or the journal.
func apart(c Config) error {
	data, err := filepath.EvalSymlinks(c.Data)
	if err != nil {
		return err
	}
	if data, err = filepath.Abs(data); err != nil {
		return err
	}
	for _, dir := range []string{c.Log, c.Tx} {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return err
		}
		if real, err = filepath.Abs(real); err != nil {
			return err
		}
		if real == data || strings.HasPrefix(real, data+string(filepath.Separator)) {
			return fmt.Errorf("%s lies in %s, where scripts could reach it: keep it outside", dir, c.Data)
		}
	}
	return nil
}

// takeLock keeps other processes, and other stores of this one, away. The kernel
// drops the lock when its holder dies, however it dies.
func (b *backend) takeLock(dir string) error {
	fd, err := openat(b.txDir, "lock", unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open lock file: %w", err)
	}
	b.lock = os.NewFile(uintptr(fd), "lock")
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return fmt.Errorf("%w: stop what holds %s", ErrLocked, filepath.Join(dir, "lock"))
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	return nil
}

// folds reports whether a file is found by a name of another case.
func folds(dir int) (bool, error) {
	if folds, known := casefold(dir); known {
		return folds, nil
	}
	return tryFolds(dir)
}

func tryFolds(dir int) (bool, error) {
	fd, err := openat(dir, "case", unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false, err
	}
	unix.Close(fd)
	_, err = lstatat(dir, "CASE")
	if undo := unix.Unlinkat(dir, "case", 0); undo != nil {
		return false, undo
	}
	if err == unix.ENOENT {
		return false, nil
	}
	return err == nil, err
}

// sweep empties a directory of staging. A directory in it would be the owner's,
// moved out and never in again, which no crash leaves; it is not removed.
func sweep(dir int, d disk) error {
	for {
		fd, err := openat(dir, ".", dirFlags, 0)
		if err != nil {
			return fmt.Errorf("sweep staging directory: %w", err)
		}
		names, err := readDir(fd, 10_000)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("sweep staging directory: %w", err)
		}
		swept := 0
		for _, n := range names {
			if n.Kind != store.KindDir && d.unlink(dir, n.Name) == nil {
				swept++
			}
		}
		if swept == 0 {
			return nil
		}
	}
}

// HasKey implements overlay.Backend.
func (b *backend) HasKey(key store.Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.log.keys[key]
	return ok
}

// Entry implements overlay.Backend.
func (b *backend) Entry(ctx context.Context, key store.Key) (store.Entry, bool, error) {
	if ctx.Err() != nil {
		return store.Entry{}, false, context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return store.Entry{}, false, store.ErrClosed
	}
	seq, ok := b.log.keys[key]
	if !ok {
		return store.Entry{}, false, nil
	}
	e, err := b.log.read(seq)
	return e, err == nil, err
}

// LogBytes implements overlay.LogCounter: the sizes are in the index.
func (b *backend) LogBytes(_ context.Context, seq uint64) (sum int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range b.log.where[:min(seq, uint64(len(b.log.where)))] {
		sum += overlay.LogSize(store.DataSize(at.size))
	}
	return sum, nil
}

// Log implements overlay.Backend: the entries that there were when the loop
// began.
func (b *backend) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		b.mu.Lock()
		end := uint64(len(b.log.where))
		b.mu.Unlock()
		for seq := max(from, 1); seq <= end; seq++ {
			e, err := b.entry(ctx, seq)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (b *backend) entry(ctx context.Context, seq uint64) (store.Entry, error) {
	if ctx.Err() != nil {
		return store.Entry{}, context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return store.Entry{}, store.ErrClosed
	}
	return b.log.read(seq)
}

// Close implements overlay.Backend.
func (b *backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	err := b.leaveJournal()
	b.release()
	if err != nil {
		return fmt.Errorf("close store %s: what was committed is safe, and not yet durable in its place: %w; open it again", b.txPath, err)
	}
	return nil
}

func (b *backend) release() {
	if b.log != nil {
		b.log.close()
	}
	if b.lower.under != nil {
		b.lower.under.close()
	}
	for _, fd := range []int{b.stage, b.names, b.logDir, b.txDir} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if b.lock != nil {
		b.lock.Close() // last: it gives up the lock
	}
}
