package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/near"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/storage"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
	"github.com/circles-host/circles/host/store/sqlite"
)

// backends are the ways in which a context can be stored, by the name that
// peer.toml uses. journals, which may be nil, makes the contexts in directories
// share one.
func backends(root *host.Root, journals *journals) map[string]storage.Backend {
	all := map[string]storage.Backend{
		"s3":      s3Backend(root),
		"natsobj": natsBackend(root),
		host.FS: {
			Open: func(_ context.Context, e peer.Entry) (store.Store, error) {
				c := fsConfig(e)
				var err error
				if c.Journal, err = journals.current(); err != nil {
					return nil, err
				}
				return known(fs.Open(c))
			},
			Read: func(_ context.Context, e peer.Entry) (store.Store, error) { return &beside{e: e}, nil },
			Where: func(e peer.Entry) string {
				return fmt.Sprintf("%s, %s", filepath.Join(relative(e.Dir), "data"), filepath.Join(relative(e.Dir), "log"))
			},
			Remove: func(_ context.Context, e peer.Entry) error { return remove(e, "data", "log", "tx") },
			Verify: func(ctx context.Context, e peer.Entry, repair bool, report func(store.Finding)) error {
				return inUseError(fs.Check(ctx, fsConfig(e), repair, report))
			},
			Edited: true,
		},
		"sqlite": {
			Open: func(_ context.Context, e peer.Entry) (store.Store, error) { return known(sqlite.Open(sqliteConfig(e))) },
			Read: func(_ context.Context, e peer.Entry) (store.Store, error) {
				s, err := known(sqlite.OpenReader(sqliteConfig(e)))
				if errors.Is(err, iofs.ErrNotExist) { // nothing has run there yet
					return mem.New(mem.Config{}), nil
				}
				return s, err
			},
			Where: func(e peer.Entry) string { return relative(sqliteConfig(e).Path) },
			Remove: func(_ context.Context, e peer.Entry) error {
				name := filepath.Base(sqliteConfig(e).Path)
				return remove(e, name, name+"-wal", name+"-shm", name+"-lock", name+"-stage", name+"-new")
			},
			Verify: func(ctx context.Context, e peer.Entry, repair bool, report func(store.Finding)) error {
				err := sqlite.Check(ctx, sqliteConfig(e), repair, report)
				if errors.Is(err, iofs.ErrNotExist) { // nothing has run there yet
					return nil
				}
				return inUseError(err)
			},
		},
	}
	for name, c := range root.Config.Store.Plugin {
		all["plugin:"+name] = pluginBackend(root, name, c)
	}
	return all
}

// checkStores says what is wrong in [store] of circles.toml.
func checkStores(root *host.Root) error {
	set := root.Config.Store
	var names []string
	if len(set.S3) > 0 {
		names = append(names, "s3")
	}
	if len(set.NATSObj) > 0 {
		names = append(names, "natsobj")
	}
	for name := range set.Plugin {
		names = append(names, "plugin:"+name)
	}
	all := backends(root, nil)
	for _, name := range names {
		if err := all[name].Check(); err != nil {
			return err
		}
	}
	if set.Backend == "" {
		return nil
	}
	if _, err := findBackend(all, set.Backend); err != nil {
		return fmt.Errorf("circles.toml: [store]: backend: %w", err)
	}
	return nil
}

// journals is the journal that the contexts in directories share, and those before
// it that failed.
type journals struct {
	dir string

	mu   sync.Mutex
	all  []*fs.Journal
	last *fs.Journal
}

// current is the journal for a context that is opened now. None means that the
// context has one of its own.
func (j *journals) current() (*fs.Journal, error) {
	if j == nil {
		return nil, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.last != nil && j.last.Err() == nil {
		return j.last, nil
	}
	next, err := fs.OpenJournal(fs.JournalConfig{Dir: j.dir})
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	j.all, j.last = append(j.all, next), next
	return next, nil
}

func (j *journals) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, one := range j.all {
		errs = append(errs, one.Close())
	}
	j.all, j.last = nil, nil
	return errors.Join(errs...)
}

func fsConfig(e peer.Entry) fs.Config {
	return fs.Config{Data: filepath.Join(e.Dir, "data"), Log: filepath.Join(e.Dir, "log"), Tx: filepath.Join(e.Dir, "tx")}
}

func sqliteConfig(e peer.Entry) sqlite.Config {
	return sqlite.Config{Path: filepath.Join(e.Dir, "context.sqlite")}
}

// contextsOf opens the contexts of a root, one or a few.
func contextsOf(root *host.Root) *storage.Contexts { return contextsWith(root, nil) }

// workersContexts opens the contexts of a root for a worker, which has many open at
// once. What it returns besides is called when all of them are closed.
func workersContexts(root *host.Root) (*storage.Contexts, func() error) {
	j := &journals{dir: filepath.Join(root.Dir, "journal")}
	return contextsWith(root, j), j.close
}

func contextsWith(root *host.Root, j *journals) *storage.Contexts {
	all := backends(root, j)
	return storage.New(storage.Config{Quota: root.Config.Quota, Find: func(name string) (storage.Backend, error) {
		return findBackend(all, name)
	}})
}

func findBackend(all map[string]storage.Backend, name string) (storage.Backend, error) {
	if b, ok := all[name]; ok {
		return b, nil
	}
	names := slices.Sorted(maps.Keys(all))
	if meant := near.Name(name, names); meant != "" {
		return storage.Backend{}, fmt.Errorf("there is no backend %q; did you mean %s?", name, meant)
	}
	return storage.Backend{}, fmt.Errorf("there is no backend %q; there are %s", name, strings.Join(names, ", "))
}

// usableBackend is findBackend for a context that is to be kept there from now on.
func usableBackend(root *host.Root, name string) (storage.Backend, error) {
	b, err := findBackend(backends(root, nil), name)
	if err != nil {
		return b, coded{exitUsage, err}
	}
	if b.Check != nil {
		err = b.Check()
	}
	return b, err
}

// known turns what a backend's Open returns into a store.Store, which is nil when
// that failed (a nil of the backend's own type would not be), and its error into
// one that says so if somebody has the context open.
func known[S store.Store](s S, err error) (store.Store, error) {
	if err == nil {
		return s, nil
	}
	return nil, inUseError(err)
}

// inUseError is err, and says so if that is because somebody has the context open.
func inUseError(err error) error {
	if errors.Is(err, fs.ErrLocked) || errors.Is(err, sqlite.ErrLocked) {
		return fmt.Errorf("%w: %w", storage.ErrInUse, err)
	}
	return err
}

// remove removes files and directories of a context.
func remove(e peer.Entry, names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, os.RemoveAll(filepath.Join(e.Dir, name)))
	}
	return errors.Join(errs...)
}

// openScratch opens a directory that is no peer's context, with what a
// transaction needs in stage.
func openScratch(dir, stage string) (store.Store, error) {
	return known(fs.Open(fs.Config{Data: dir, Log: filepath.Join(stage, "log"), Tx: filepath.Join(stage, "tx")}))
}

// beside reads a context in a directory that somebody else may have open and goes
// on writing: files are read as they are, each whole, and nothing but the files
// and the log is touched.
type beside struct {
	e peer.Entry

	once  sync.Once
	files store.Store
	err   error
}

func (b *beside) View(ctx context.Context, f func(store.Tx) error) error {
	b.once.Do(func() {
		b.files, b.err = known(fs.OpenReader(fsConfig(b.e)))
		if errors.Is(b.err, store.ErrNotExist) { // nothing has run there yet
			b.files, b.err = mem.New(mem.Config{}), nil
		}
	})
	if b.err != nil {
		return fmt.Errorf("read the context of %s: %w", b.e.Name, b.err)
	}
	return b.files.View(ctx, f)
}

func (b *beside) Update(context.Context, func(store.Tx) error) error {
	return fmt.Errorf("the context of %s was opened for reading only", b.e.Name)
}

func (b *beside) Log(ctx context.Context, from uint64) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		for e, err := range fs.ReadLog(ctx, fsConfig(b.e).Log) {
			if err == nil && e.Seq < from {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Volume counts by a walk of its own, which needs nothing that could be changed.
func (b *beside) Volume(ctx context.Context, _ bool) (u store.Volume, err error) {
	_ = filepath.WalkDir(fsConfig(b.e).Data, func(path string, d iofs.DirEntry, err error) error {
		if err != nil || path == fsConfig(b.e).Data {
			return nil // what cannot be read is not counted
		}
		u.Entries++
		if info, err := d.Info(); err == nil && d.Type().IsRegular() {
			u.Bytes += info.Size()
		}
		return ctx.Err()
	})
	for e, err := range b.Log(ctx, 1) {
		if err != nil {
			return u, err
		}
		u.Log += overlay.LogSize(len(e.Data))
	}
	return u, ctx.Err()
}

func (b *beside) Entry(ctx context.Context, key store.Key) (store.Entry, bool, error) {
	for e, err := range b.Log(ctx, 1) {
		if err != nil || e.Key == key {
			return e, err == nil, err
		}
	}
	return store.Entry{}, false, nil
}

func (b *beside) Close() error {
	b.once.Do(func() { b.err = store.ErrClosed })
	if b.files != nil {
		return b.files.Close()
	}
	return nil
}
