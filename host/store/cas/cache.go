package cas

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// object is a blob in memory, and what it decodes to as a page.
type object struct {
	id   BlobID
	data []byte

	once sync.Once
	page *page
	err  error
}

// cache keeps blobs by their names, in memory and, if it has one, in a directory: those
// that were used last. Blobs do not change, so it is never wrong, only empty. What
// is in the directory is compared with its name whenever it is read: it may be cut,
// changed, deleted, or shared with other processes, at any time.
type cache struct {
	mu      sync.Mutex
	objects map[BlobID]*list.Element // of *object
	recent  list.List                // the last used in front
	size    int
	room    int

	dir   *os.Root // nil if there is none
	files map[string]*list.Element
	order list.List // of cachedFile, the last used in front
	used  int64
	most  int64
}

type cachedFile struct {
	name string
	size int64
}

// newCache makes a cache of room bytes in memory, and of most bytes in a directory,
// which it makes; with "" there is none.
func newCache(room int, dir string, most int64) (*cache, error) {
	c := &cache{objects: map[BlobID]*list.Element{}, room: room, files: map[string]*list.Element{}, most: most}
	if dir == "" {
		return c, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the cache's directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the cache's directory: %w", err)
	}
	c.dir = root
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // one that cannot be read is not used
		}
		if info, err := d.Info(); err == nil && cacheName(path) {
			c.files[path] = c.order.PushBack(cachedFile{path, info.Size()})
			c.used += info.Size()
		}
		return nil
	})
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("read the cache's directory: %w", err)
	}
	c.mu.Lock()
	c.shrink()
	c.mu.Unlock()
	return c, nil
}

// fileName is where a blob is in the directory: no more names in one than file
// systems like.
func fileName(id BlobID) string {
	s := id.String()
	return s[17:19] + "/" + strings.Replace(s, "/", "-", 1)
}

const partSuffix = ".part" // of a file that is being written, or never was to its end

func cacheName(path string) bool {
	dir, name, ok := strings.Cut(strings.TrimSuffix(path, partSuffix), "/")
	id, err := ParseBlobID(strings.Replace(name, "-", "/", 1))
	return ok && err == nil && strings.HasPrefix(fileName(id), dir+"/")
}

func (c *cache) close() {
	if c.dir != nil {
		c.dir.Close()
	}
}

// get returns a blob, or nil.
func (c *cache) get(id BlobID) *object {
	c.mu.Lock()
	if e := c.objects[id]; e != nil {
		c.recent.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*object)
	}
	name := fileName(id)
	e := c.files[name]
	if e != nil {
		c.order.MoveToFront(e)
	}
	c.mu.Unlock()
	if e == nil {
		return nil
	}
	data, err := c.read(name)
	if err != nil || sha256.Sum256(data) != id.Digest {
		c.mu.Lock()
		c.drop(name)
		c.mu.Unlock()
		return nil
	}
	return c.keep(id, data)
}

func (c *cache) read(name string) ([]byte, error) {
	if info, err := c.dir.Lstat(name); err != nil || !info.Mode().IsRegular() || info.Size() > MaxBlob {
		return nil, errors.Join(err, errMalformed)
	}
	f, err := c.dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxBlob+1))
}

// put keeps a blob, which is what its name says.
func (c *cache) put(id BlobID, data []byte) *object {
	o := c.keep(id, data)
	name := fileName(id)
	c.mu.Lock()
	_, there := c.files[name]
	c.mu.Unlock()
	if c.dir == nil || there || int64(len(data)) > c.most {
		return o
	}
	// A full disk, or a directory that somebody deleted, costs us the cache and
	// nothing else.
	_ = c.dir.Mkdir(name[:2], 0o700)
	if c.writeFile(name, data) != nil {
		_ = c.dir.Remove(name + partSuffix)
		return o
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files[name] == nil {
		c.files[name] = c.order.PushFront(cachedFile{name, int64(len(data))})
		c.used += int64(len(data))
	}
	c.shrink()
	return o
}

func (c *cache) writeFile(name string, data []byte) error {
	if err := c.dir.WriteFile(name+partSuffix, data, 0o600); err != nil {
		return err
	}
	return c.dir.Rename(name+partSuffix, name)
}

// keep puts a blob into memory.
func (c *cache) keep(id BlobID, data []byte) *object {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.objects[id]; e != nil {
		return e.Value.(*object)
	}
	o := &object{id: id, data: data}
	if len(data) > c.room {
		return o
	}
	c.objects[id] = c.recent.PushFront(o)
	c.size += objectSize(o)
	for c.size > c.room {
		e := c.recent.Back()
		old := c.recent.Remove(e).(*object)
		delete(c.objects, old.id)
		c.size -= objectSize(old)
	}
	return o
}

// objectSize is what an object takes, its page and our books included.
func objectSize(o *object) int {
	if len(o.data) <= pageSize {
		return 4*len(o.data) + 256
	}
	return len(o.data)
}

// shrink deletes files until there is room. The caller holds mu.
func (c *cache) shrink() {
	for c.used > c.most {
		c.drop(c.order.Back().Value.(cachedFile).name)
	}
}

func (c *cache) drop(name string) {
	if e := c.files[name]; e != nil {
		c.used -= c.order.Remove(e).(cachedFile).size
		delete(c.files, name)
		_ = c.dir.Remove(name)
	}
}
