package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// backend is an overlay.Backend on one SQLite file.
type backend struct {
	path  string
	now   func() time.Time
	lock  *os.File
	stage *staging
	read  *pool

	write  sync.Mutex // held through a commit; guards what follows
	conn   *conn
	next   tail // where the log will end when the running commit is done
	broken error
	closed bool
	queue  appendQueue
	// prepared is the plan that the open transaction of conn has applied, or nil
	// if there is none.
	prepared *overlay.Plan

	tails sync.Mutex // guards tail, which write alone does not let be read
	tail  tail

	dirs dirCache
}

// hooks are for tests.
type hooks struct {
	vfs string // a VFS to put between SQLite and the file
}

// Open opens the context that lies in the file c.Path, and makes it if there is
// no such file. A file that is open already is ErrLocked, one that is not as it
// was written a *DamageError.
func Open(c Config) (*overlay.Store, error) {
	b, err := open(c, hooks{})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return overlay.New(b, overlay.Config{Limits: c.Limits, Now: c.Now}), nil
}

func open(c Config, h hooks) (_ *backend, err error) {
	if c.Path == "" {
		return nil, errors.New("no database file is named")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Readers <= 0 {
		c.Readers = 4
	}
	// The directory is the owner's to choose; in it, nothing is followed.
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("find the directory of %s: %w", c.Path, err)
	}
	path = filepath.Join(dir, filepath.Base(path))
	b := &backend{path: path, now: c.Now}
	defer func() {
		if err != nil {
			_ = b.release()
		}
	}()
	if b.lock, err = takeLock(path + "-lock"); err != nil {
		return nil, err
	}
	// Nobody else is here, so these are left from a crash.
	for _, left := range []string{"-stage", "-new", "-new-wal", "-new-shm", "-new-journal"} {
		if err := os.Remove(path + left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("remove what a crash left: %w", err)
		}
	}
	clean, err := b.examine(h)
	if err != nil {
		return nil, err
	}
	b.stage = newStaging(path + "-stage")
	b.read = newPool(c.Readers, func() (*conn, error) { return openConn(path, h.vfs, true) })
	return b, b.explain(guarded(func() error {
		if b.conn, err = openConn(path, h.vfs, false); err != nil {
			return err
		}
		if b.tail, err = inspect(b.conn, path, !clean); err != nil {
			return err
		}
		_ = os.Chmod(path+"-shm", 0o600) // made by the mode of the umask; holds no content
		return nil
	}))
}

// examine looks at the files before SQLite does. It makes a database if there is
// none, and reports whether the one that is there was closed.
func (b *backend) examine(h hooks) (clean bool, err error) {
	there := map[string]int64{}
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		switch size, err := plain(b.path + suffix); {
		case err == nil:
			there[suffix] = size
		case !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
	}
	if _, ok := there[""]; !ok {
		for _, suffix := range []string{"-wal", "-journal"} {
			if there[suffix] > 0 {
				return false, fmt.Errorf("%s is missing, but %s%s holds changes to it: put both back where they were, or move that file away to begin a new context",
					b.path, b.path, suffix)
			}
		}
		return true, b.create(h)
	}
	if err := header(b.path); err != nil {
		return false, err
	}
	// SQLite removes both when the last connection is closed.
	return there["-wal"] == 0 && there["-journal"] == 0, nil
}

// header refuses what is not a database of ours, with a better message than
// SQLite has, and before SQLite reads it.
func header(path string) error {
	f, err := openPlain(path)
	if err != nil {
		return fmt.Errorf("read database: %w", err)
	}
	defer f.Close()
	head := make([]byte, 100)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read database: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("read database: %w", err)
	}
	switch {
	case n == 0:
		return &DamageError{File: path, Err: errors.New("the file is empty")}
	case n < len(head):
		return notOurs(path)
	case string(head[:16]) != "SQLite format 3\x00" || binary.BigEndian.Uint32(head[68:]) != applicationID:
		return notOurs(path)
	case size%pageSize != 0:
		return &DamageError{File: path, Err: fmt.Errorf("the file is %d bytes long, which is not a number of whole pages", size)}
	}
	return nil
}

const pageSize = 4096

// create makes the database under another name and moves it into place when it
// is whole and durable: so a file at b.path always was one, and if it is empty
// or short, something has happened to it.
func (b *backend) create(h hooks) error {
	fresh := b.path + "-new"
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	f.Close()
	if err := guarded(func() error {
		c, err := openConn(fresh, h.vfs, false)
		if err != nil {
			return err
		}
		err = build(c, nanoseconds(b.now()))
		return errors.Join(err, c.close()) // which moves it all from the -wal file, and syncs
	}); err != nil {
		return fmt.Errorf("create database: %w", explain(fresh, err))
	}
	if err := os.Rename(fresh, b.path); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	return syncDir(filepath.Dir(b.path))
}

// HasKey implements overlay.Backend.
func (b *backend) HasKey(key store.Key) (has bool) {
	// An error need not be reported: the commit finds it, or the key, again.
	_ = b.read.use(func(c *conn) (err error) {
		has, err = hasKey(c, key)
		return err
	})
	return has
}

// Close implements overlay.Backend. What is in the -wal file goes into the
// database, which is then one file again.
func (b *backend) Close() error {
	b.write.Lock()
	defer b.write.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	return b.release()
}

func (b *backend) release() error {
	var err error
	if b.read != nil {
		err = b.read.close()
	}
	if b.conn != nil {
		err = errors.Join(err, guarded(b.conn.close)) // the last one checkpoints
		b.conn = nil
	}
	if b.stage != nil {
		b.stage.close()
	}
	if b.lock != nil {
		b.lock.Close() // last: it gives up the lock
	}
	if err != nil {
		return fmt.Errorf("close %s (nothing is lost, it is finished when it is opened again): %w", b.path, err)
	}
	return nil
}
