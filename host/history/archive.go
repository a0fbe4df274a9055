package history

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// Archive is all that is kept of a context, for checking it.
type Archive struct {
	private store.FS
	buckets map[script.ID]*bucket
}

// Read looks up what is kept. It reads names only.
func Read(ctx context.Context, tx store.Tx) (*Archive, error) {
	a := &Archive{private: tx.Private(), buckets: map[script.ID]*bucket{}}
	names, err := list(a.private, dir)
	if err != nil && !errors.Is(err, store.ErrNotExist) {
		return nil, fmt.Errorf("look up what is kept to undo scripts by: %w", err)
	}
	for _, n := range names {
		b := &bucket{name: n}
		files, err := list(a.private, b.path())
		if errors.Is(err, store.ErrNotDir) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up what is kept to undo scripts by: %w", err)
		}
		for _, f := range files {
			var id script.ID
			if len(f) != hex.EncodedLen(len(id)) {
				continue
			}
			if _, err := hex.Decode(id[:], []byte(f)); err == nil {
				a.buckets[id] = b
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return a, nil
}

// Scripts are those of which something is kept.
func (a *Archive) Scripts() iter.Seq[script.ID] {
	return func(yield func(script.ID) bool) {
		for id := range a.buckets {
			if !yield(id) {
				return
			}
		}
	}
}

// Manifest reads the manifest of a script; nil if there is none. An error that is
// a *NotKeptError is the manifest's.
func (a *Archive) Manifest(ctx context.Context, id script.ID) (*Manifest, error) {
	b := a.buckets[id]
	if b == nil {
		return nil, nil
	}
	return manifest(ctx, a.private, b, id)
}

// Where is where the manifest lies in a context.
func (m *Manifest) Where() string {
	return "/" + store.PrivateName + "/" + m.bucket.path(name(m.Script))
}

// Left is what a script left at a path.
type Left struct {
	Path  string
	Kind  store.ChangeKind // a removal: nothing is there
	Link  string
	New   script.Blob // of a file, or its end:
	End   script.End
	Mtime time.Time // zero if that is not known
}

// Left yields what the script left, nothing if that is not written down.
func (m *Manifest) Left() iter.Seq[Left] {
	return func(yield func(Left) bool) {
		for _, c := range m.changes {
			l := Left{Path: c.Path, Kind: c.Kind, Link: c.Link}
			if c.New != nil {
				l.New = *c.New
			}
			if c.End != nil {
				l.End = *c.End
			}
			if c.Times != nil {
				l.Mtime = c.Times.Mtime.time()
			}
			if !yield(l) {
				return
			}
		}
	}
}

// KeptFile is a file that is kept whole.
type KeptFile struct {
	At   string // in Private
	From string // the path at which it was
	script.Blob
}

// Kept yields the files that the script replaced or removed.
func (m *Manifest) Kept() iter.Seq[KeptFile] {
	return func(yield func(KeptFile) bool) {
		u := &undoing{Manifest: m}
		for _, c := range m.changes {
			if c.N == 0 {
				continue
			}
			at, want := u.keptAs(c)
			if !yield(KeptFile{at, c.Path, want}) {
				return
			}
		}
	}
}

// Check reports whether a kept file is there and as it was kept.
func (a *Archive) Check(ctx context.Context, f KeptFile) (string, error) {
	u := &undoing{ctx: ctx, private: a.private}
	is, err := u.blob(f.At)
	switch {
	case errors.Is(err, store.ErrNotExist):
		return "is missing", nil
	case errors.Is(err, store.ErrSpecial), errors.Is(err, store.ErrLoop), errors.Is(err, store.ErrIsDir):
		return "is no file", nil
	case err != nil:
		return "", fmt.Errorf("read what was at %s before: %w", f.From, err)
	case is != f.Blob:
		return "is not what it was", nil
	}
	return "", nil
}
