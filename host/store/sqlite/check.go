package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store"
)

// Check looks at a context that nobody has open (else ErrLocked), without
// changing anything: that each page of the file is what SQLite makes, that the
// tables agree with their indexes, that each file's chunks are of a file, and that
// each log entry follows from the one before. A file that is not there is
// fs.ErrNotExist. With repair it is then opened once, which moves what is in the
// -wal file and removes leftovers; a damaged file cannot be mended.
func Check(ctx context.Context, c Config, repair bool, report func(store.Finding)) error {
	path, err := realPath(c.Path)
	if err == nil {
		_, err = plain(path)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Path, err)
	}
	unlock, err := lockToLook(path + "-lock")
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Path, err)
	}
	var found []store.Finding
	add := func(f store.Finding) { found = append(found, f) }
	whole, err := look(ctx, path, c, add)
	unlock()
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Path, err)
	}
	if repair && whole && len(found) > 0 {
		s, err := Open(c)
		if err == nil {
			err = s.Close()
		}
		for i := range found {
			found[i].Fixed = err == nil
		}
		if err != nil {
			add(store.Finding{Where: path, What: fmt.Sprintf("it could not be opened to mend that: %v", err), Damage: true})
		}
	}
	for _, f := range found {
		report(f)
	}
	return nil
}

// look reports whether the file is whole.
func look(ctx context.Context, path string, c Config, report func(store.Finding)) (whole bool, err error) {
	if info, err := os.Lstat(path + "-wal"); err == nil && info.Size() > 0 {
		report(store.Finding{Where: path + "-wal", What: "it was not closed, and has commits that are not in the database file yet", Fix: "opening it moves them there"})
	}
	for _, suffix := range []string{"-stage", "-new", "-new-wal", "-new-shm", "-new-journal"} {
		if _, err := os.Lstat(path + suffix); err == nil {
			report(store.Finding{Where: path + suffix, What: "it was left by what did not end", Fix: "opening it removes it"})
		}
	}
	damaged := func(err error) (bool, error) {
		var damage *DamageError
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if !errors.As(err, &damage) && !errors.Is(err, sqlite3.CORRUPT) && !errors.Is(err, sqlite3.NOTADB) {
			return false, err
		}
		report(store.Finding{Where: path, What: err.Error(), Damage: true})
		return false, nil
	}
	b, err := openReader(c)
	if err != nil {
		return damaged(err)
	}
	defer func() { err = errors.Join(err, b.release()) }()
	whole = true
	err = b.look(func(conn *conn) error {
		say := func(what string) {
			whole = false
			report(store.Finding{Where: path, What: what, Damage: true})
		}
		const most = 20
		if err := conn.rows(fmt.Sprintf("PRAGMA integrity_check(%d)", most), func(s *sqlite3.Stmt) bool {
			if text := s.ColumnText(0); text != "ok" {
				say(text)
			}
			return ctx.Err() == nil
		}); err != nil || !whole {
			return err // what the tables of a damaged file say is not to be believed
		}
		for _, check := range []struct{ sql, what string }{
			{`SELECT count(*) FROM chunk WHERE NOT EXISTS (SELECT 1 FROM node WHERE node.id = chunk.id >> %d AND kind = 1)`,
				"%d parts of files are of no file"},
			{`SELECT count(*) + 0 * %d FROM node WHERE parent <> 0 AND NOT EXISTS (SELECT 1 FROM node AS up WHERE up.id = node.parent AND up.kind = 2)`,
				"%d files and directories are in no directory"},
		} {
			n, err := conn.int(fmt.Sprintf(check.sql, chunkBits))
			if err != nil {
				return err
			}
			if n > 0 {
				say(fmt.Sprintf(check.what, n))
			}
		}
		if _, err := inspectLog(conn, path, true); err != nil {
			return err
		}
		return ctx.Err()
	})
	if err != nil {
		return damaged(err)
	}
	return whole, nil
}

// lockToLook keeps others out, without making a file where there is none.
func lockToLook(path string) (unlock func(), err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
