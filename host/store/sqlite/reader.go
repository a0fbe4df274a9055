package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store/overlay"
)

// OpenReader opens the context that lies in the file c.Path for reading, also
// while another process has it open and goes on writing it. All that it shows,
// files and log, is the one state that was committed last when it was opened, so
// it is to be closed soon: meanwhile PATH-wal cannot be emptied. Nothing is
// changed, removed or made; a file that is not there is fs.ErrNotExist.
func OpenReader(c Config) (*overlay.Store, error) {
	b, err := openReader(c)
	if err != nil {
		return nil, fmt.Errorf("open store for reading: %w", err)
	}
	return overlay.New(b, overlay.Config{Limits: c.Limits, Now: c.Now}), nil
}

var errReader = errors.New("the context was opened for reading only")

func openReader(c Config) (_ *backend, err error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	path, err := realPath(c.Path)
	if err != nil {
		return nil, err
	}
	if _, err := plain(path); err != nil {
		return nil, err
	}
	if err := header(path); err != nil {
		return nil, err
	}
	b := &backend{path: path, now: c.Now, broken: errReader, stage: newStaging(path + "-stage")}
	// One connection, in one transaction for as long as it lives: two would not see
	// the same.
	b.read = newPool(1, func() (*conn, error) {
		c, err := openConn(path, "", true)
		if err != nil {
			return nil, err
		}
		// What is in the -wal file is for the one who writes to move.
		_, err = c.db.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true)
		if err == nil {
			err = c.exec("BEGIN")
		}
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		return c, nil
	})
	err = b.look(func(c *conn) (err error) {
		b.tail, err = inspect(c, path, false)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, b.release())
	}
	return b, nil
}

// realPath is path with the links in its directory followed, which is the owner's
// to choose, but not in its last name.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("find the directory of %s: %w", path, err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}
