package sqlite

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store"
)

const (
	applicationID = 0x43_52_43_4c // "CRCL", in the header of every file of ours
	version       = 1             // user_version
	rootID        = 1

	chunkBits = 24 // of a chunk's id: its place in the file
	chunkSize = 64 << 10
	maxSize   = chunkSize << chunkBits // of a file: 1 TiB
)

// schema is what sqlite_schema must hold, to the letter: so there is no trigger,
// view, virtual table or expression in a file that we open but these.
var schema = []string{
	`CREATE TABLE node (
	id     INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 549755813887),
	parent INTEGER NOT NULL,
	name   BLOB NOT NULL CHECK (length(name) <= 255 AND instr(name, x'2f') = 0 AND instr(name, x'00') = 0),
	kind   INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
	size   INTEGER NOT NULL CHECK (size >= 0),
	atime  INTEGER NOT NULL,
	mtime  INTEGER NOT NULL,
	ctime  INTEGER NOT NULL,
	edits  INTEGER NOT NULL,
	target BLOB CHECK ((target IS NULL) = (kind <> 3)),
	UNIQUE (parent, name)
) STRICT`,
	`CREATE TABLE chunk (
	id   INTEGER PRIMARY KEY,
	data BLOB NOT NULL CHECK (length(data) BETWEEN 1 AND 65536)
) STRICT`,
	`CREATE TABLE log (
	seq  INTEGER PRIMARY KEY CHECK (seq >= 1),
	prev BLOB NOT NULL CHECK (length(prev) = 32),
	time INTEGER NOT NULL,
	key  BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
	data BLOB NOT NULL
) STRICT`,
}

// build makes the tables of a new context.
func build(c *conn, now int64) error {
	if err := c.db.Exec(fmt.Sprintf("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; PRAGMA application_id = %d; PRAGMA user_version = %d;",
		applicationID, version)); err != nil {
		return err
	}
	for _, sql := range schema {
		if err := c.db.Exec(sql); err != nil {
			return err
		}
	}
	if err := c.exec(`INSERT INTO node (id, parent, name, kind, size, atime, mtime, ctime, edits) VALUES (?, 0, x'', 2, 0, ?, ?, ?, 0)`,
		int64(rootID), now, now, now); err != nil {
		return err
	}
	return c.db.Exec("COMMIT")
}

// inspect refuses a file that this version of the program did not make, and
// finds damage that costs little to find; all of it only if thorough.
func inspect(c *conn, path string, thorough bool) (tail, error) {
	id, err := c.int("PRAGMA application_id")
	if err != nil {
		return tail{}, err
	}
	if id != applicationID {
		return tail{}, notOurs(path)
	}
	v, err := c.int("PRAGMA user_version")
	switch {
	case err != nil:
		return tail{}, err
	case v > version:
		return tail{}, fmt.Errorf("%s has format %d, and this program knows formats up to %d: open it with a newer circles-host", path, v, version)
	case v < version:
		return tail{}, &DamageError{File: path, Err: fmt.Errorf("no format %d was ever written", v)}
	}
	var has []string
	if err := c.rows(`SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid`, func(s *sqlite3.Stmt) bool {
		has = append(has, s.ColumnText(0))
		return len(has) <= len(schema)
	}); err != nil {
		return tail{}, err
	}
	if !slices.Equal(has, schema) {
		return tail{}, &DamageError{File: path, Err: errors.New("its tables are not those of a context")}
	}
	var mode string
	if _, err := c.row("PRAGMA journal_mode", func(s *sqlite3.Stmt) { mode = s.ColumnText(0) }); err != nil {
		return tail{}, err
	}
	if mode != "wal" && !c.still {
		return tail{}, &DamageError{File: path, Err: fmt.Errorf("its journal mode was changed to %q", mode)}
	}
	if thorough {
		said := "nothing"
		if _, err := c.row("PRAGMA quick_check(1)", func(s *sqlite3.Stmt) { said = s.ColumnText(0) }); err != nil {
			return tail{}, err
		}
		if said != "ok" {
			return tail{}, &DamageError{File: path, Err: errors.New(said)}
		}
	}
	// A root that had a parent would make the tree a ring, which a walk would
	// never leave. Every other row has one parent, and what hangs in a ring of
	// its own is not found from the root.
	if _, found, err := lookup(c, 0, ""); err != nil {
		return tail{}, err
	} else if root, known, err := byID(c, rootID); err != nil {
		return tail{}, err
	} else if !found || !known || root.parent != 0 || root.attr.Kind != store.KindDir {
		return tail{}, &DamageError{File: path, Err: errors.New("there is no root directory")}
	}
	return inspectLog(c, path, thorough)
}

func notOurs(path string) error {
	return fmt.Errorf("%s is not the database of a context: name another file, or move this one away to begin a new context", path)
}
