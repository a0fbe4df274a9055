//go:build unix

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store"
)

// planted is a context of four commits, closed.
func planted(t *testing.T) Config {
	t.Helper()
	whole, err := fourCommits()
	must(t, err)
	c := memoryConfig(t)
	must(t, os.WriteFile(c.Path, whole, 0o600))
	return c
}

var fourCommits = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "circles-test-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c := Config{Path: filepath.Join(dir, "context.db")}
	s, err := Open(c)
	if err != nil {
		return nil, err
	}
	for n := range 4 {
		if err := commitState(s, n+1); err != nil {
			return nil, err
		}
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(c.Path)
})

// alter runs SQL on a closed context as somebody else would, without any of the
// settings that hold us back.
func alter(t *testing.T, c Config, sql string) {
	t.Helper()
	db, err := sqlite3.OpenFlags(c.Path, sqlite3.OPEN_READWRITE)
	must(t, err)
	must(t, db.Exec("PRAGMA ignore_check_constraints = ON; PRAGMA writable_schema = ON;"+sql))
	must(t, db.Close())
}

// TestForeignFiles: what is not a closed or crashed context of ours is refused,
// by an error that names it.
func TestForeignFiles(t *testing.T) {
	tests := map[string]struct {
		do      func(t *testing.T, c Config)
		damaged bool
		want    string
	}{
		"empty":    {func(t *testing.T, c Config) { must(t, os.Truncate(c.Path, 0)) }, true, "is empty"},
		"short":    {func(t *testing.T, c Config) { must(t, os.Truncate(c.Path, 99)) }, false, "not the database of a context"},
		"odd size": {func(t *testing.T, c Config) { must(t, os.Truncate(c.Path, 3*pageSize+1)) }, true, "whole pages"},
		"cut off":  {func(t *testing.T, c Config) { must(t, os.Truncate(c.Path, 3*pageSize)) }, true, "damaged"},
		"text": {func(t *testing.T, c Config) {
			must(t, os.WriteFile(c.Path, []byte(strings.Repeat("text\n", 4096)), 0o600))
		}, false, "not the database of a context"},
		"another's database": {func(t *testing.T, c Config) { alter(t, c, "PRAGMA application_id = 7") }, false, "not the database of a context"},
		"newer":              {func(t *testing.T, c Config) { alter(t, c, "PRAGMA user_version = 2") }, false, "newer circles-host"},
		"never":              {func(t *testing.T, c Config) { alter(t, c, "PRAGMA user_version = 0") }, true, "format 0"},
		"trigger": {func(t *testing.T, c Config) {
			alter(t, c, "CREATE TRIGGER evil AFTER INSERT ON log BEGIN DELETE FROM log; END")
		}, true, "tables"},
		"view": {func(t *testing.T, c Config) { alter(t, c, "DROP TABLE log; CREATE VIEW log AS SELECT 1 AS seq") }, true, "tables"},
		"virtual table": {func(t *testing.T, c Config) {
			alter(t, c, "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, 'CREATE VIRTUAL TABLE x USING dbstat(main)')")
		}, true, "tables"},
		"constraint dropped": {func(t *testing.T, c Config) {
			alter(t, c, "UPDATE sqlite_schema SET sql = replace(sql, 'length(name) <= 255', 'length(name) <= 999')")
		}, true, "tables"},
		"not SQL": {func(t *testing.T, c Config) {
			alter(t, c, "UPDATE sqlite_schema SET sql = 'CREATE TABLE' WHERE name = 'log'")
		}, true, "damaged"},
		"journal mode":  {func(t *testing.T, c Config) { alter(t, c, "PRAGMA journal_mode = DELETE") }, true, "journal mode"},
		"no root":       {func(t *testing.T, c Config) { alter(t, c, "DELETE FROM node WHERE id = 1") }, true, "root"},
		"root a file":   {func(t *testing.T, c Config) { alter(t, c, "UPDATE node SET kind = 1 WHERE id = 1") }, true, "root"},
		"ring":          {func(t *testing.T, c Config) { alter(t, c, "UPDATE node SET parent = 2 WHERE id = 1") }, true, "root"},
		"entry missing": {func(t *testing.T, c Config) { alter(t, c, "DELETE FROM log WHERE seq = 2") }, true, "log has 3 entries"},
		"first missing": {func(t *testing.T, c Config) { alter(t, c, "DELETE FROM log WHERE seq = 1") }, true, "log has 3 entries"},
		"last changed":  {func(t *testing.T, c Config) { alter(t, c, "UPDATE log SET prev = zeroblob(32) WHERE seq = 4") }, true, "entry 4"},
		"without its database": {func(t *testing.T, c Config) {
			must(t, os.Rename(c.Path, c.Path+"-wal"))
		}, false, "put both back"},
		"link": {func(t *testing.T, c Config) {
			must(t, os.Rename(c.Path, c.Path+".real"))
			must(t, os.Symlink(c.Path+".real", c.Path))
		}, false, "not a regular file"},
		"link to nothing": {func(t *testing.T, c Config) {
			must(t, os.Remove(c.Path))
			must(t, os.Symlink(c.Path+".none", c.Path))
		}, false, "not a regular file"},
		"hard link": {func(t *testing.T, c Config) { must(t, os.Link(c.Path, c.Path+".too")) }, false, "hard links"},
		"FIFO": {func(t *testing.T, c Config) {
			must(t, os.Remove(c.Path))
			must(t, syscall.Mkfifo(c.Path, 0o600))
		}, false, "not a regular file"},
		"directory": {func(t *testing.T, c Config) { must(t, os.Remove(c.Path)); must(t, os.Mkdir(c.Path, 0o700)) }, false, "not a regular file"},
		"-wal link": {func(t *testing.T, c Config) { must(t, os.Symlink("/etc/passwd", c.Path+"-wal")) }, false, "not a regular file"},
		"-shm link": {func(t *testing.T, c Config) { must(t, os.Symlink("x", c.Path+"-shm")) }, false, "not a regular file"},
		"-journal":  {func(t *testing.T, c Config) { must(t, syscall.Mkfifo(c.Path+"-journal", 0o600)) }, false, "not a regular file"},
		"-lock link": {func(t *testing.T, c Config) {
			must(t, os.Symlink("x", c.Path+"-lock"))
		}, false, "symbolic link"},
		"-lock FIFO": {func(t *testing.T, c Config) {
			must(t, syscall.Mkfifo(c.Path+"-lock", 0o600))
		}, false, "not a regular file"},
		"no directory": {func(t *testing.T, c Config) { must(t, os.RemoveAll(filepath.Dir(c.Path))) }, false, "directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := planted(t)
			test.do(t, c)
			s, err := Open(c)
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			var damage *DamageError
			if errors.As(err, &damage) != test.damaged || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), c.Path) {
				t.Errorf("error is %q", err)
			}
			if _, err := os.Stat(c.Path + ".none"); err == nil {
				t.Error("a file was made where a link led")
			}
		})
	}
}

// TestDamageInside: what opening does not look for is found when it is read, and
// never shown for good.
func TestDamageInside(t *testing.T) {
	tests := map[string]struct {
		sql string
		use func(t *testing.T, fs store.FS) error
	}{
		"name with a slash": {"UPDATE node SET name = CAST('a/../../b' AS BLOB) WHERE name = CAST('state' AS BLOB)", listRoot},
		"name that climbs":  {"UPDATE node SET name = CAST('..' AS BLOB) WHERE name = CAST('state' AS BLOB)", listRoot},
		"name with NUL":     {"UPDATE node SET name = x'610062' WHERE name = CAST('state' AS BLOB)", listRoot},
		"no name":           {"UPDATE node SET name = x'' WHERE name = CAST('state' AS BLOB)", listRoot},
		"over-long name":    {"UPDATE node SET name = zeroblob(300) WHERE name = CAST('state' AS BLOB)", listRoot},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := planted(t)
			alter(t, c, test.sql)
			s := mustOpen(t, c)
			err := s.View(context.Background(), func(tx store.Tx) error { return test.use(t, tx.Files(nil)) })
			var damage *DamageError
			if !errors.As(err, &damage) {
				t.Errorf("error is %v", err)
			}
		})
	}
	// What is odd, and harms nobody.
	c := planted(t)
	alter(t, c, `UPDATE node SET size = -5 WHERE name = CAST('state' AS BLOB); UPDATE chunk SET data = zeroblob(1000000);
		INSERT INTO node (parent, name, kind, size, atime, mtime, ctime, edits) VALUES (1, CAST('odd' AS BLOB), 77, 5, 0, 0, 0, 0), (99, CAST('lost' AS BLOB), 1, 5, 0, 0, 0, 0),
			(1, CAST('huge' AS BLOB), 1, 9223372036854775807, 0, 0, 0, 0)`)
	s := mustOpen(t, c)
	view(t, s, func(fs store.FS) error {
		if got := list(t, fs, "/"); strings.Join(got, " ") != "big d4 huge odd state" {
			t.Errorf("the root holds %q", got)
		}
		if _, err := fs.Open("odd", store.FlagRead); !errors.Is(err, store.ErrSpecial) {
			t.Errorf("open of an unknown kind: %v", err)
		}
		if got := read(t, fs, "state"); got != "" {
			t.Errorf("file of negative size holds %q", got)
		}
		if got := read(t, fs, "big"); len(got) != 250_000 {
			t.Errorf("file with chunks that are too long has %d bytes", len(got))
		}
		f, err := fs.Open("huge", store.FlagRead)
		must(t, err)
		buf := make([]byte, 100)
		if n, err := f.ReadAt(buf, 1<<62); n != 100 || err != nil {
			t.Errorf("far inside a file that claims to be huge: %d, %v", n, err)
		}
		return f.Close()
	})
}

func listRoot(t *testing.T, fs store.FS) error {
	f, err := fs.Open("/", store.FlagRead|store.FlagDirectory)
	must(t, err)
	_, err = f.ReadDir(0, 100)
	return err
}

// TestLogDamage: an entry that was changed, removed or put in is reported by
// whoever reads it.
func TestLogDamage(t *testing.T) {
	for name, sql := range map[string]string{
		"data":    "UPDATE log SET data = CAST('X' AS BLOB) WHERE seq = 2",
		"time":    "UPDATE log SET time = time + 1 WHERE seq = 2",
		"key":     "UPDATE log SET key = CAST(x'00' || substr(key, 2) AS BLOB) WHERE seq = 2",
		"prev":    "UPDATE log SET prev = zeroblob(32) WHERE seq = 2",
		"swapped": "UPDATE log SET seq = 99 WHERE seq = 1; UPDATE log SET seq = 1 WHERE seq = 2; UPDATE log SET seq = 2 WHERE seq = 99",
	} {
		t.Run(name, func(t *testing.T) {
			c := planted(t)
			alter(t, c, sql)
			s := mustOpen(t, c)
			var damage *DamageError
			var last error
			for _, err := range s.Log(context.Background(), 1) {
				last = err
			}
			if !errors.As(last, &damage) {
				t.Errorf("log: %v", last)
			}
			if name != "key" { // which is not found by its old one
				if _, _, err := s.Entry(context.Background(), keyOf(2)); !errors.As(err, &damage) {
					t.Errorf("entry: %v", err)
				}
			}
			must(t, s.Close())
			// After a crash, opening reads it all.
			if err := reopenCrashed(t, c); !errors.As(err, &damage) {
				t.Errorf("opened after a crash: %v", err)
			}
		})
	}
}

// reopenCrashed opens a context that looks as if its process had been killed.
func reopenCrashed(t *testing.T, c Config) error {
	t.Helper()
	db, err := sqlite3.OpenFlags(c.Path, sqlite3.OPEN_READWRITE)
	must(t, err)
	_, err = db.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true)
	must(t, err)
	must(t, db.Exec("UPDATE node SET edits = edits + 1 WHERE kind = 1"))
	must(t, db.Close())
	s, err := Open(c)
	if err == nil {
		s.Close()
	}
	return err
}

// TestQuickCheck: a page that was changed is found at open if the context was
// not closed, though no entry of the log lies in it.
func TestQuickCheck(t *testing.T) {
	c := planted(t)
	alter(t, c, "UPDATE node SET kind = 9 WHERE kind = 3 OR name = CAST('state' AS BLOB)")
	must(t, mustOpen(t, c).Close()) // closed: not looked for
	var damage *DamageError
	if err := reopenCrashed(t, c); !errors.As(err, &damage) {
		t.Errorf("opened: %v", err)
	}
}

// TestFlippedBytes: whatever is changed in the file or the -wal file, nothing
// panics or hangs, and no log that is not the one that was written is read to
// its end.
func TestFlippedBytes(t *testing.T) {
	closed := planted(t)
	whole, err := os.ReadFile(closed.Path)
	must(t, err)
	crashed := memoryConfig(t)
	s := mustOpen(t, crashed)
	for n := range 4 {
		must(t, commitState(s, n+1))
	}
	base, err := os.ReadFile(crashed.Path)
	must(t, err)
	wal, err := os.ReadFile(crashed.Path + "-wal")
	must(t, err)
	must(t, s.Close())

	dir := memoryConfig(t)
	found := 0
	for i := range 60 {
		main, log := append([]byte{}, whole...), []byte(nil)
		target := main
		if i%2 == 1 {
			main, log = append([]byte{}, base...), append([]byte{}, wal...)
			target = log
		}
		for range 1 + rand.IntN(4) {
			// The first pages have what leads to the others.
			at := rand.IntN(min(len(target), 8*pageSize))
			if rand.IntN(2) == 0 {
				at = at/pageSize*pageSize + rand.IntN(64)
			}
			target[at] ^= byte(1 + rand.IntN(255))
		}
		must(t, os.WriteFile(dir.Path, main, 0o600))
		os.Remove(dir.Path + "-wal")
		os.Remove(dir.Path + "-shm")
		if log != nil {
			must(t, os.WriteFile(dir.Path+"-wal", log, 0o600))
		}
		s, err := Open(dir)
		if err != nil {
			found++
			continue
		}
		n := 0
		for e, err := range s.Log(context.Background(), 1) {
			if err != nil {
				found++
				break
			}
			if n++; string(e.Data) != fmt.Sprint(n) {
				t.Errorf("entry %d holds %q", n, e.Data)
			}
		}
		s.View(context.Background(), func(tx store.Tx) error {
			walk(tx.Files(nil), "", 0)
			return nil
		})
		s.Update(context.Background(), func(tx store.Tx) error {
			write(tx.Files(nil), "big", "x")
			write(tx.Files(nil), "new", "x")
			return tx.Append(keyOf(1000), nil)
		})
		s.Close()
	}
	if found == 0 {
		t.Error("no damage was found: the test tests nothing")
	}
}

// walk reads whatever can be read.
func walk(fs store.FS, dir string, depth int) {
	f, err := fs.Open(dir+"/", store.FlagRead|store.FlagDirectory)
	if err != nil || depth > 10 {
		return
	}
	defer f.Close()
	entries, _ := f.ReadDir(0, 1000)
	for _, e := range entries {
		if e.Kind == store.KindDir {
			walk(fs, dir+"/"+e.Name, depth+1)
		} else if h, err := fs.Open(dir+"/"+e.Name, store.FlagRead); err == nil {
			h.ReadAt(make([]byte, 300_000), 0)
			h.Close()
		}
	}
}

// TestLocked: one store at a time.
func TestLocked(t *testing.T) {
	c := memoryConfig(t)
	s := mustOpen(t, c)
	if _, err := Open(c); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), c.Path) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, s.Close())
	must(t, mustOpen(t, c).Close())
}

// TestFilesOfOthers: nobody else can read what is in the files, and closed, the
// context is one file.
func TestFilesOfOthers(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	c := memoryConfig(t)
	s := mustOpen(t, c)
	must(t, commitState(s, 1))
	view(t, s, func(fs store.FS) error { _, err := fs.Stat("state", true); return err })
	names := func() (all []string) {
		entries, err := os.ReadDir(filepath.Dir(c.Path))
		must(t, err)
		for _, e := range entries {
			info, err := e.Info()
			must(t, err)
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", e.Name(), info.Mode())
			}
			all = append(all, e.Name())
		}
		return all
	}
	if got := strings.Join(names(), " "); got != "context.db context.db-lock context.db-shm context.db-wal" {
		t.Errorf("open, there are %s", got)
	}
	must(t, s.Close())
	if got := strings.Join(names(), " "); got != "context.db context.db-lock" {
		t.Errorf("closed, there are %s", got)
	}
}

// TestLeftovers: what a crash leaves beside the database is swept.
func TestLeftovers(t *testing.T) {
	c := planted(t)
	for _, suffix := range []string{"-stage", "-new", "-new-wal", "-new-journal"} {
		must(t, os.WriteFile(c.Path+suffix, []byte("left"), 0o600))
	}
	must(t, mustOpen(t, c).Close())
	left, err := filepath.Glob(c.Path + "-*")
	must(t, err)
	if len(left) != 1 {
		t.Errorf("left: %q", left)
	}
	// A database that was being made when the machine stopped was never one.
	os.Remove(c.Path)
	must(t, os.WriteFile(c.Path+"-new", []byte("half"), 0o600))
	if n := state(t, mustOpen(t, c)); n != 0 {
		t.Errorf("state %d", n)
	}
}

// TestNoAttach: SQL of ours cannot reach another file, even if it were made to.
func TestNoAttach(t *testing.T) {
	c := planted(t)
	db, err := openConn(c.Path, "", false)
	must(t, err)
	defer db.close()
	for _, sql := range []string{
		"ATTACH '" + c.Path + "-other' AS other", "VACUUM INTO '" + c.Path + "-other'", "SELECT load_extension('x')",
		"PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = ''",
	} {
		if err := db.db.Exec(sql); err == nil {
			t.Errorf("%s: allowed", sql)
		}
	}
	if _, err := os.Stat(c.Path + "-other"); err == nil {
		t.Error("another file was made")
	}
}
