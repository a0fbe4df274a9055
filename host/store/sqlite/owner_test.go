package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store"
)

// TestOwnerReads: another program may look while the context is open.
func TestOwnerReads(t *testing.T) {
	c := memoryConfig(t)
	s := mustOpen(t, c)
	must(t, commitState(s, 1))
	db, err := sqlite3.OpenFlags(c.Path, sqlite3.OPEN_READONLY)
	must(t, err)
	defer db.Close()
	must(t, db.Exec("BEGIN; SELECT count(*) FROM log"))
	must(t, commitState(s, 2))
	st, _, err := db.Prepare("SELECT max(seq) FROM log")
	must(t, err)
	defer st.Close()
	if !st.Step() || st.ColumnInt(0) != 1 {
		t.Errorf("in its transaction the owner sees entry %d", st.ColumnInt(0))
	}
}

// TestOwnerChanges: what another program changes under a running update is not
// written over, and an update waits for one that is writing, but not for ever.
func TestOwnerChanges(t *testing.T) {
	for name, test := range map[string]struct {
		sql  string
		want func(error) bool
	}{
		"file changed": {"UPDATE node SET mtime = 1 WHERE name = CAST('state' AS BLOB)", isConflict},
		"file removed": {"DELETE FROM node WHERE name = CAST('state' AS BLOB)", isConflict},
		"name taken":   {"UPDATE node SET name = CAST('new' AS BLOB) WHERE name = CAST('big' AS BLOB)", isConflict},
		"log":          {"DELETE FROM log", func(err error) bool { return errors.As(err, new(*DamageError)) }},
		"writing":      {"BEGIN IMMEDIATE", func(err error) bool { return errors.Is(err, sqlite3.BUSY) }},
	} {
		t.Run(name, func(t *testing.T) {
			c := memoryConfig(t)
			s := mustOpen(t, c)
			must(t, commitState(s, 1))
			db, err := sqlite3.OpenFlags(c.Path, sqlite3.OPEN_READWRITE)
			must(t, err)
			err = s.Update(context.Background(), func(tx store.Tx) error {
				must(t, write(tx.Files(nil), "state", "mine"))
				must(t, write(tx.Files(nil), "new", "mine"))
				must(t, tx.Append(keyOf(9), nil))
				return db.Exec(test.sql)
			})
			if !test.want(err) || strings.Count(err.Error(), c.Path) > 1 {
				t.Errorf("error is %v", err)
			}
			must(t, db.Close())
			view(t, s, func(fs store.FS) error {
				if _, err := fs.Stat("state", true); err == nil && read(t, fs, "state") != "1" {
					t.Error("it was written over")
				}
				return nil
			})
		})
	}
}

func isConflict(err error) bool { return errors.Is(err, store.ErrConflict) }

// TestOddPaths: a path is a path, whatever it would mean in a URI.
func TestOddPaths(t *testing.T) {
	root := filepath.Dir(memoryConfig(t).Path)
	for _, name := range []string{"a?mode=memory", "b#c", "d%41", "e f+&vfs=x", "file:g", ":memory:", "ü\xff"} {
		dir := filepath.Join(root, name)
		must(t, os.Mkdir(dir, 0o700))
		c := Config{Path: filepath.Join(dir, name)}
		s := mustOpen(t, c)
		must(t, commitState(s, 1))
		must(t, s.Close())
		if info, err := os.Stat(c.Path); err != nil || info.Size() == 0 {
			t.Errorf("%q: %v", name, err)
		}
		if n := consistent(t, c); n != 1 {
			t.Errorf("%q has state %d", name, n)
		}
	}
}
