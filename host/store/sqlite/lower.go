package sqlite

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// node is a row of the table of that name.
type node struct {
	id, parent int64
	attr       overlay.Attr
}

const nodeColumns = `id, parent, kind, size, atime, mtime, ctime, edits`

func scanNode(s *sqlite3.Stmt) node {
	n := node{id: s.ColumnInt64(0), parent: s.ColumnInt64(1)}
	mtime, ctime := s.ColumnInt64(5), s.ColumnInt64(6)
	n.attr = overlay.Attr{
		Kind:  kindOf(s.ColumnInt64(2)),
		Size:  max(s.ColumnInt64(3), 0),
		Atime: fromNanoseconds(s.ColumnInt64(4)), Mtime: fromNanoseconds(mtime), Ctime: fromNanoseconds(ctime),
	}
	n.attr.Version = overlay.Version{ID: [2]uint64{0, uint64(n.id)}, Size: n.attr.Size, Mtime: mtime, Ctime: ctime}
	if n.attr.Kind != store.KindDir {
		n.attr.Version.ID[0] = uint64(s.ColumnInt64(7))
	}
	return n
}

// kindOf reads a kind; one that the table's checks would not let in is shown as
// what nobody can open.
func kindOf(k int64) store.Kind {
	switch k := store.Kind(k); k {
	case store.KindFile, store.KindDir, store.KindLink:
		return k
	}
	return store.KindOther
}

func lookup(c *conn, parent int64, name string) (n node, found bool, err error) {
	found, err = c.row(`SELECT `+nodeColumns+` FROM node WHERE parent = ? AND name = ?`,
		func(s *sqlite3.Stmt) { n = scanNode(s) }, parent, []byte(name))
	return n, found, err
}

func byID(c *conn, id int64) (n node, found bool, err error) {
	found, err = c.row(`SELECT `+nodeColumns+` FROM node WHERE id = ?`,
		func(s *sqlite3.Stmt) { n = scanNode(s) }, id)
	return n, found, err
}

// dirCache knows the ids of directories by their paths. A plan that is committed
// empties it, when nobody else looks.
type dirCache struct {
	mu  sync.Mutex
	ids map[string]int64
}

const dirCacheSize = 4096

func (d *dirCache) get(path string) (int64, bool) {
	if path == "." {
		return rootID, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id, ok := d.ids[path]
	return id, ok
}

func (d *dirCache) put(path string, id int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil || len(d.ids) >= dirCacheSize {
		d.ids = map[string]int64{}
	}
	d.ids[path] = id
}

func (d *dirCache) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids = nil
}

// split parts a path into its directory's and its last name.
func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return ".", path
}

// resolve finds a directory.
func (d *dirCache) resolve(c *conn, path string) (int64, error) {
	if id, ok := d.get(path); ok {
		return id, nil
	}
	id, at := int64(rootID), 0
	for at < len(path) {
		end := strings.IndexByte(path[at:], '/')
		if end < 0 {
			end = len(path) - at
		}
		end += at
		if known, ok := d.get(path[:end]); ok {
			id = known
		} else {
			n, found, err := lookup(c, id, path[at:end])
			switch {
			case err != nil:
				return 0, err
			case !found:
				return 0, store.ErrNotExist
			case n.attr.Kind != store.KindDir:
				return 0, store.ErrNotDir
			}
			id = n.id
			d.put(path[:end], id)
		}
		at = end + 1
	}
	return id, nil
}

// find finds an entry.
func (d *dirCache) find(c *conn, path string) (node, error) {
	if path == "." {
		n, found, err := byID(c, rootID)
		if err == nil && !found {
			err = store.ErrNotExist
		}
		return n, err
	}
	dir, name := split(path)
	parent, err := d.resolve(c, dir)
	if err != nil {
		return node{}, err
	}
	n, found, err := lookup(c, parent, name)
	if err == nil && !found {
		err = store.ErrNotExist
	}
	return n, err
}

// look runs f with a connection for reading.
func (b *backend) look(f func(*conn) error) error { return b.explain(b.read.use(f)) }

// Lstat implements overlay.Lower.
func (b *backend) Lstat(path string) (overlay.Attr, error) {
	var n node
	err := b.look(func(c *conn) (err error) {
		n, err = b.dirs.find(c, path)
		return err
	})
	return n.attr, err
}

// ReadDir implements overlay.Lower.
func (b *backend) ReadDir(path string, limit int) (names []overlay.Name, err error) {
	err = b.look(func(c *conn) error {
		id, err := b.dirs.resolve(c, path)
		if err != nil {
			return err
		}
		bad := false
		err = c.rows(`SELECT name, kind FROM node WHERE parent = ? LIMIT ?`, func(s *sqlite3.Stmt) bool {
			name := string(s.ColumnRawBlob(0))
			bad = bad || !speakable(name)
			names = append(names, overlay.Name{Name: name, Kind: kindOf(s.ColumnInt64(1))})
			return !bad
		}, id, int64(limit))
		if err == nil && bad {
			err = &DamageError{File: b.path, Err: fmt.Errorf("directory %q holds %q, which is no name", path, names[len(names)-1].Name)}
		}
		return err
	})
	return names, err
}

// speakable reports whether a name can be part of a path. The table's checks let
// no other in, but the file need not have been written through them.
func speakable(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 && !strings.ContainsAny(name, "/\x00")
}

// Readlink implements overlay.Lower.
func (b *backend) Readlink(path string) (target string, err error) {
	err = b.look(func(c *conn) error {
		n, err := b.dirs.find(c, path)
		if err != nil {
			return err
		}
		if n.attr.Kind != store.KindLink {
			return store.ErrInvalid
		}
		_, err = c.row(`SELECT target FROM node WHERE id = ?`, func(s *sqlite3.Stmt) { target = string(s.ColumnRawBlob(0)) }, n.id)
		return err
	})
	return target, err
}

// Open implements overlay.Lower.
func (b *backend) Open(path string) (overlay.LowerFile, error) {
	var n node
	err := b.look(func(c *conn) (err error) {
		n, err = b.dirs.find(c, path)
		return err
	})
	if err != nil {
		return nil, err
	}
	if n.attr.Kind != store.KindFile {
		return nil, store.ErrSpecial
	}
	return &lowerFile{b: b, node: n, at: -1}, nil
}

// lowerFile reads a committed file. No plan is committed while one is open, save
// that of the update that it belongs to.
type lowerFile struct {
	b *backend
	node

	mu  sync.Mutex
	at  int64  // the chunk in buf; -1 for none
	buf []byte // the last chunk that was read in part: most scripts read little by little
}

func (f *lowerFile) Attr() overlay.Attr { return f.attr }

func (f *lowerFile) Close() error { return nil }

func (f *lowerFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, store.ErrInvalid
	}
	if off >= f.attr.Size {
		return 0, io.EOF
	}
	var short error
	if int64(len(p)) > f.attr.Size-off {
		p, short = p[:f.attr.Size-off], io.EOF
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(p) {
		at, in := (off+int64(n))/chunkSize, (off+int64(n))%chunkSize
		part := p[n:min(len(p), n+int(chunkSize-in))]
		if len(part) == chunkSize {
			if err := f.chunk(at, part); err != nil {
				return n, err
			}
		} else {
			if f.at != at {
				if f.buf == nil {
					f.buf = make([]byte, min(chunkSize, f.attr.Size))
				}
				f.at = -1
				if err := f.chunk(at, f.buf); err != nil {
					return n, err
				}
				f.at = at
			}
			copy(part, f.buf[in:])
		}
		n += len(part)
	}
	return n, short
}

// chunk fills p from the start of a chunk; where there is no row, or it ends, the
// file has a hole.
func (f *lowerFile) chunk(at int64, p []byte) error {
	return f.b.look(func(c *conn) error {
		got := 0
		_, err := c.row(`SELECT data FROM chunk WHERE id = ?`, func(s *sqlite3.Stmt) { got = copy(p, s.ColumnRawBlob(0)) }, chunkID(f.id, at))
		clear(p[got:])
		return err
	})
}

// chunkID is the id of a file's chunk: those of a file are next to each other.
func chunkID(file, at int64) int64 { return file<<chunkBits | at }
