package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/store"
)

// SchemaDir is where an owner keeps the schemas of a context's collections.
func SchemaDir(e peer.Entry) string { return filepath.Join(e.Dir, "schema") }

// schemas are what the collections of a context are bound to. A file that its owner
// has changed is in force once the records that are there are seen to be as it has
// them: which schema is in force is kept with the records, in their transaction, so
// that it is the same after a restart, and whatever becomes of the file. While
// there are no files this costs nothing.
type schemas struct {
	inForce atomic.Pointer[map[string]*schema.Schema]
	problem atomic.Pointer[error]
	looked  records.Looked
	making  sync.Map // collections whose indexes are to be made again

	mu       sync.Mutex // one at a time looks at the files
	problems map[string]error
	read     map[string]*schema.Schema // as they are in the files
	open     bool
	unwatch  func()
}

// Of implements records.Schemas.
func (s *schemas) Of(collection string) *schema.Schema {
	if all := s.inForce.Load(); all != nil {
		return (*all)[collection]
	}
	return nil
}

// Problem is why what is in force is not what is in the files, or nil.
func (s *schemas) Problem() error {
	if p := s.problem.Load(); p != nil {
		return *p
	}
	return nil
}

// openSchemas takes over the schemas, and follows them. The store must be open.
func (c *peerContext) openSchemas(ctx context.Context) {
	c.schemas.mu.Lock()
	c.schemas.open = true
	c.schemas.mu.Unlock()
	c.schemas.unwatch = c.host.watcher.Dir(SchemaDir(c.entry), func() { c.rebind(c.host.running) })
	c.rebind(ctx)
}

func (s *schemas) end() {
	if s.unwatch != nil {
		s.unwatch()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
}

// rebindTime bounds how long the records of one collection are checked: they are a
// transaction, and scripts that write wait for it.
const rebindTime = time.Minute

// rebind takes over what has changed in the files.
func (c *peerContext) rebind(ctx context.Context) {
	s := &c.schemas
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return
	}
	defer func() {
		var all []error
		for _, name := range slices.Sorted(maps.Keys(s.problems)) {
			all = append(all, s.problems[name])
		}
		err := errors.Join(all...)
		s.problem.Store(&err)
	}()
	files, err := schema.ReadDir(SchemaDir(c.entry), s.read)
	if err != nil {
		c.sayProblem("", err)
		if s.inForce.Load() == nil {
			c.bindAsBefore(ctx)
		}
		return
	}
	c.sayProblem("", nil)
	inForce := map[string]*schema.Schema{}
	if was := s.inForce.Load(); was != nil {
		maps.Copy(inForce, *was)
	}
	for _, collection := range slices.Sorted(maps.Keys(files.Schemas)) {
		file := files.Schemas[collection]
		if s.read[collection] == file && s.problems[collection] == nil {
			continue // as it was
		}
		is, err := c.bind(ctx, collection, file)
		if is != nil {
			inForce[collection] = is
		}
		c.sayProblem(collection, err)
	}
	for name, err := range files.Problems {
		if inForce[name] == nil && strings.IndexByte(name, '.') < 0 {
			if was := c.boundTo(ctx, name, nil); was != nil { // by an earlier process
				inForce[name] = was
			}
		}
		c.sayProblem(name, err)
	}
	for collection := range maps.Clone(inForce) {
		if files.Schemas[collection] == nil && files.Problems[collection] == nil {
			err := c.store.Update(ctx, func(tx store.Tx) error {
				return c.recordsOf(tx).Unbind(ctx, collection)
			})
			if err == nil {
				delete(inForce, collection)
				c.host.notice(Notice{Peer: c.entry.Name, Kind: "schema", About: collection + ": its file is gone, so that it takes any value now, and has no indexes"})
			}
			c.sayProblem(collection, err)
		}
	}
	for name := range maps.Clone(s.problems) {
		if name != "" && files.Schemas[name] == nil && files.Problems[name] == nil && inForce[name] == nil {
			c.sayProblem(name, nil)
		}
	}
	s.read = files.Schemas
	if len(inForce) > 0 || s.inForce.Load() != nil {
		s.inForce.Store(&inForce)
	}
}

// bindAsBefore puts in force what an earlier process had.
func (c *peerContext) bindAsBefore(ctx context.Context) {
	var names []string
	err := c.store.View(ctx, func(tx store.Tx) (err error) {
		names, err = records.BoundCollections(tx.Private())
		return err
	})
	if err != nil {
		c.host.report(fmt.Errorf("peer %s: read which schemas were in force: %w", c.entry.Name, err))
		return
	}
	inForce := map[string]*schema.Schema{}
	for _, name := range names {
		if is := c.boundTo(ctx, name, nil); is != nil {
			inForce[name] = is
		}
	}
	if len(inForce) > 0 {
		c.schemas.inForce.Store(&inForce)
	}
}

func (c *peerContext) recordsOf(tx store.Tx) *records.Tx {
	return records.In(tx.Private(), records.Config{Schemas: &c.schemas})
}

// boundTo is what a collection was bound to last, nil if to nothing.
func (c *peerContext) boundTo(ctx context.Context, collection string, file *schema.Schema) (s *schema.Schema) {
	err := c.store.View(ctx, func(tx store.Tx) (err error) {
		s, err = records.Bound(tx.Private(), collection, file)
		return err
	})
	if err != nil {
		c.host.report(fmt.Errorf("peer %s: read the schema of %s that was in force: %w", c.entry.Name, collection, err))
	}
	return s
}

// bind puts the schema in a file in force, unless records violate it that are there,
// and returns what is in force then.
func (c *peerContext) bind(ctx context.Context, collection string, file *schema.Schema) (*schema.Schema, error) {
	was := c.boundTo(ctx, collection, file)
	if was != nil && was.Digest() == file.Digest() {
		return file, c.reindex(ctx, collection, file)
	}
	ctx, cancel := context.WithTimeout(ctx, rebindTime)
	defer cancel()
	err := c.store.Update(ctx, func(tx store.Tx) error {
		t := c.recordsOf(tx)
		if _, err := t.Bind(ctx, collection, file); err != nil {
			return err
		}
		return t.Flush(ctx)
	})
	if err != nil {
		return was, &schema.Error{File: collection + schema.Suffix, Err: err}
	}
	about := collection + ": in force"
	if was != nil {
		for _, x := range was.Indexes() {
			if !slices.ContainsFunc(file.Indexes(), func(y schema.Index) bool { return slices.Equal(x.Fields, y.Fields) }) {
				about += fmt.Sprintf("; the index %s is gone, as the file no longer has it", x)
			}
		}
	}
	c.host.notice(Notice{Peer: c.entry.Name, Kind: "schema", About: about})
	return file, nil
}

// reindex has the indexes of a collection made again if its files are not those that
// they were made from. To find out costs a look at each file.
func (c *peerContext) reindex(ctx context.Context, collection string, s *schema.Schema) error {
	right := false
	err := c.store.View(ctx, func(tx store.Tx) (err error) {
		right, err = records.In(tx.Private(), records.Config{ReadOnly: true, Looked: &c.schemas.looked}).Indexed(ctx, collection, s.Indexes())
		return err
	})
	if right || err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rebindTime)
	defer cancel()
	for range maxRuns {
		err = c.store.Update(ctx, func(tx store.Tx) error {
			t := c.recordsOf(tx)
			if _, err := t.Reindex(ctx, collection, s.Indexes()); err != nil {
				return err
			}
			return t.Flush(ctx)
		})
		if !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("make the indexes of %s again: %w", collection, err)
	}
	return nil
}

// reindexRest is how long nobody tries again to make indexes that could not be made.
const reindexRest = time.Minute

// reindexSoon has it done beside the scripts that run: one of them has found the
// indexes not to be right.
func (c *peerContext) reindexSoon(collection string) {
	s := c.schemas.Of(collection)
	if s == nil {
		return
	}
	if _, making := c.schemas.making.LoadOrStore(collection, true); making {
		return
	}
	go func() {
		done := func() { c.schemas.making.Delete(collection) }
		open, release, err := c.host.contexts.open(c.host.running, c.entry.ID)
		if err != nil {
			return // it is looked at again when the context opens
		}
		defer release()
		if err := open.reindex(c.host.running, collection, s); err != nil && c.host.running.Err() == nil {
			c.host.report(fmt.Errorf("peer %s: %w", c.entry.Name, err))
			// Or scripts that ask on and on would have it tried on and on.
			time.AfterFunc(reindexRest, done)
			return
		}
		done()
	}()
}

// sayProblem notes what is wrong with a file, nil if nothing is any more.
func (c *peerContext) sayProblem(name string, err error) {
	s := &c.schemas
	was := s.problems[name]
	if err == nil {
		delete(s.problems, name)
		return
	}
	if s.problems == nil {
		s.problems = map[string]error{}
	}
	s.problems[name] = err
	if was == nil || was.Error() != err.Error() {
		c.host.notice(Notice{Peer: c.entry.Name, Kind: "schema", Err: err})
	}
}
