package sqlite

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store"
)

// maxValue is the longest row that is read or written, and so what a hostile
// file can make us hold. A log entry may have 16 MiB by default.
const maxValue = 64 << 20

// conn is a connection and its prepared statements; for one goroutine at a time.
type conn struct {
	db    *sqlite3.Conn
	still bool // on a disk that is read only, where SQLite keeps no log of changes
	stmts map[string]*sqlite3.Stmt
}

// openConn connects to a database that is there. vfs is "" save in tests.
func openConn(path, vfs string, readOnly bool) (_ *conn, err error) {
	q := url.Values{"modeof": {path}} // else the -wal file would be readable by whom the umask says
	if vfs != "" {
		q.Set("vfs", vfs)
	}
	// In SQLite's URIs a plus is a plus.
	name := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: strings.ReplaceAll(q.Encode(), "+", "%20")}
	db, err := sqlite3.OpenFlags(name.String(), sqlite3.OPEN_READWRITE|sqlite3.OPEN_URI|sqlite3.OPEN_NOFOLLOW)
	still := err != nil && readOnly && cannotWrite(path)
	if still {
		// A database that was closed, on a disk that takes no file beside it.
		q.Set("immutable", "1")
		name.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
		db, err = sqlite3.OpenFlags(name.String(), sqlite3.OPEN_READONLY|sqlite3.OPEN_URI|sqlite3.OPEN_NOFOLLOW)
	}
	if err != nil {
		return nil, err
	}
	c := &conn{db: db, still: still, stmts: map[string]*sqlite3.Stmt{}}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	// The file may have been made by somebody else: nothing in it may be run,
	// lead to another file, or reach SQLite's own tables through SQL. (Loading
	// extensions is left out of this build of SQLite altogether.)
	for op, on := range map[sqlite3.DBConfig]bool{
		sqlite3.DBCONFIG_DEFENSIVE:      true,
		sqlite3.DBCONFIG_TRUSTED_SCHEMA: false,
		sqlite3.DBCONFIG_ENABLE_TRIGGER: false,
		sqlite3.DBCONFIG_ENABLE_VIEW:    false,
		sqlite3.DBCONFIG_DQS_DML:        false,
		sqlite3.DBCONFIG_DQS_DDL:        false,
	} {
		if _, err := db.Config(op, on); err != nil {
			return nil, fmt.Errorf("configure connection: %w", err)
		}
	}
	db.Limit(sqlite3.LIMIT_ATTACHED, 0)
	db.Limit(sqlite3.LIMIT_LENGTH, maxValue+1<<10)
	db.Limit(sqlite3.LIMIT_SQL_LENGTH, 1<<16)
	if err := db.BusyTimeout(2 * time.Second); err != nil { // for an owner who looks with other tools
		return nil, fmt.Errorf("configure connection: %w", err)
	}
	pragmas := `
		PRAGMA trusted_schema = OFF;
		PRAGMA cell_size_check = ON;
		PRAGMA mmap_size = 0;
		PRAGMA temp_store = MEMORY;
		PRAGMA synchronous = FULL;
		PRAGMA journal_size_limit = 16777216;
		PRAGMA cache_size = -2048;`
	if readOnly {
		pragmas += `PRAGMA query_only = ON;`
	}
	if err := db.Exec(pragmas); err != nil {
		return nil, err
	}
	return c, nil
}

// cannotWrite reports whether the database has no -wal file, and none can be made:
// so nobody changes it.
func cannotWrite(path string) bool {
	if info, err := os.Lstat(path + "-wal"); err == nil && info.Size() > 0 {
		return false
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, syscall.EROFS)
}

func (c *conn) close() error {
	for _, s := range c.stmts {
		s.Close()
	}
	return c.db.Close()
}

func (c *conn) prepare(sql string, args []any) (*sqlite3.Stmt, error) {
	s := c.stmts[sql]
	if s == nil {
		var err error
		if s, _, err = c.db.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT); err != nil {
			return nil, err
		}
		c.stmts[sql] = s
	}
	for i, a := range args {
		var err error
		switch a := a.(type) {
		case int64:
			err = s.BindInt64(i+1, a)
		case []byte:
			if a == nil {
				a = []byte{} // a nil slice would be NULL
			}
			err = s.BindBlob(i+1, a)
		default:
			panic(fmt.Sprintf("parameter of type %T", a))
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// rows runs each on every row, until it returns false. What it reads off the row
// is not to be kept.
func (c *conn) rows(sql string, each func(*sqlite3.Stmt) bool, args ...any) error {
	s, err := c.prepare(sql, args)
	if err != nil {
		return err
	}
	more := true
	for more && s.Step() {
		more = each(s)
	}
	err = s.Err()
	_ = s.Reset()
	_ = s.ClearBindings() // they may be large
	return err
}

// row is rows for one row at most, and reports whether there was one.
func (c *conn) row(sql string, scan func(*sqlite3.Stmt), args ...any) (found bool, err error) {
	err = c.rows(sql, func(s *sqlite3.Stmt) bool {
		found = true
		scan(s)
		return false
	}, args...)
	return found && err == nil, err
}

// int is the number that a query gives.
func (c *conn) int(sql string, args ...any) (n int64, err error) {
	_, err = c.row(sql, func(s *sqlite3.Stmt) { n = s.ColumnInt64(0) }, args...)
	return n, err
}

func (c *conn) exec(sql string, args ...any) error {
	return c.rows(sql, func(*sqlite3.Stmt) bool { return true }, args...)
}

// guarded runs f and turns a panic into an error: SQLite runs in a memory of its
// own, checked at every access, and what a damaged or hostile file makes it do
// wrong ends in a Go panic on this side.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errTrap, p)
		}
	}()
	return f()
}

var errTrap = errors.New("SQLite failed on it")

// pool hands out connections for reading.
type pool struct {
	open func() (*conn, error)
	free chan struct{} // a token for each connection that there may be

	mu     sync.Mutex
	idle   []*conn
	closed bool
}

func newPool(size int, open func() (*conn, error)) *pool {
	p := &pool{open: open, free: make(chan struct{}, size)}
	for range size {
		p.free <- struct{}{}
	}
	return p
}

// use runs f with a connection. f must not call use.
func (p *pool) use(f func(*conn) error) error {
	<-p.free
	defer func() { p.free <- struct{}{} }()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return store.ErrClosed
	}
	var c *conn
	if n := len(p.idle); n > 0 {
		c, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	p.mu.Unlock()
	err := guarded(func() (err error) {
		if c == nil {
			if c, err = p.open(); err != nil {
				return err
			}
		}
		return f(c)
	})
	switch {
	case c == nil:
	case errors.Is(err, errTrap): // nobody knows what state it is in
		_ = guarded(func() error { return c.close() })
	default:
		p.mu.Lock()
		p.idle = append(p.idle, c)
		p.mu.Unlock()
	}
	return err
}

// close waits for those that use a connection.
func (p *pool) close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for range cap(p.free) {
		<-p.free
	}
	var errs []error
	for _, c := range p.idle {
		errs = append(errs, guarded(c.close))
	}
	p.idle = nil
	for range cap(p.free) { // those that come late find it closed
		p.free <- struct{}{}
	}
	return errors.Join(errs...)
}

// explain says of an error of SQLite's what happened, to which file, and what to
// do. Other errors are ours, and say so already.
func (b *backend) explain(err error) error { return explain(b.path, err) }

func explain(path string, err error) error {
	var code sqlite3.ErrorCode
	trap := errors.Is(err, errTrap)
	if !trap && !errors.As(err, &code) {
		return err
	}
	switch {
	case errors.As(err, new(*DamageError)):
		return err
	case trap, code == sqlite3.CORRUPT, code == sqlite3.NOTADB,
		errors.Is(err, sqlite3.IOERR_SHORT_READ), errors.Is(err, sqlite3.IOERR_CORRUPTFS):
		return &DamageError{File: path, Err: err}
	case code == sqlite3.FULL:
		return fmt.Errorf("%w: no room to write %s: free some space on its disk: %w", syscall.ENOSPC, path, err)
	case code == sqlite3.BUSY, code == sqlite3.LOCKED:
		return fmt.Errorf("another program is using %s: end what it does there and try again: %w", path, err)
	case code == sqlite3.TOOBIG:
		return fmt.Errorf("%w: more than %d bytes in one row of %s", store.ErrTooBig, maxValue, path)
	case code == sqlite3.READONLY, code == sqlite3.PERM, code == sqlite3.CANTOPEN:
		return fmt.Errorf("cannot write %s and the files beside it: check their owner and mode, and their directory's: %w", path, err)
	}
	return fmt.Errorf("use %s: %w", path, err)
}

// nanoseconds since 1970 are what the tables hold: from 1677 to 2262. A time that
// a script sets outside that is kept as the nearest inside.
func nanoseconds(t time.Time) int64 {
	switch s := t.Unix(); {
	case s >= math.MaxInt64/1_000_000_000:
		return math.MaxInt64
	case s <= math.MinInt64/1_000_000_000:
		return math.MinInt64
	}
	return t.UnixNano()
}

func fromNanoseconds(ns int64) time.Time { return time.Unix(0, ns).UTC() }
